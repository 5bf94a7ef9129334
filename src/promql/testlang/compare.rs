//! Compares what a query yields with what a script expects.

use super::expect::{Expectations, ExpectedSeries, Pattern};
use crate::promql::EvalError;
use crate::promql::histogram::compacted;
use crate::promql::parse::series::SequenceValue;
use crate::promql::value::{Answer, Series, Value, VectorElement};
use larum_storage_format::sample::is_stale;
use larum_storage_format::{Histogram, Labels, Value as SampleValue};
use std::collections::BTreeMap;

/// Why an answer is not the expected one.
type Difference = String;

/// Checks failure and annotations; says whether the value has to be looked at.
pub(super) fn outcome<'a>(
    expected: &Expectations,
    query: &str,
    result: &'a Result<Answer, EvalError>,
) -> Result<Option<&'a Value>, Difference> {
    let answer = match (result, &expected.fail) {
        (Err(error), Some(pattern)) => {
            let message = error.to_string();
            return if pattern.matches(&message) {
                Ok(None)
            } else {
                Err(format!("fails with {message:?}, expected {pattern:?}"))
            };
        }
        (Err(error), None) => return Err(format!("fails: {error}")),
        (Ok(_), Some(_)) => return Err("does not fail".to_owned()),
        (Ok(answer), None) => answer,
    };
    let warnings = answer.annotations.warnings(query);
    let infos = answer.annotations.infos(query);
    annotations("warning", &expected.warn, expected.no_warn, &warnings)?;
    annotations("info", &expected.info, expected.no_info, &infos)?;
    Ok(Some(&answer.value))
}

fn annotations(kind: &str, expected: &[Pattern], none: bool, found: &[String]) -> Result<(), Difference> {
    if none && !found.is_empty() {
        return Err(format!("has an unexpected {kind}: {found:?}"));
    }
    if expected.is_empty() {
        return Ok(());
    }
    if let Some(pattern) = expected.iter().find(|pattern| !found.iter().any(|text| pattern.matches(text))) {
        return Err(format!("has no {kind} like {pattern:?}, but {found:?}"));
    }
    match found.iter().find(|text| !expected.iter().any(|pattern| pattern.matches(text))) {
        Some(text) => Err(format!("has an unexpected {kind}: {text:?}")),
        None => Ok(()),
    }
}

/// Compares the value of an instant query.
pub(super) fn instant(expected: &Expectations, value: &Value) -> Result<(), Difference> {
    if let Some(text) = &expected.string {
        return match value {
            Value::String(found) if found == text => Ok(()),
            other => Err(format!("is {}, expected the text {text:?}", show(other))),
        };
    }
    if let Some(number) = expected.scalar {
        return match value {
            Value::Scalar(point) if same_float(point.value, number) => Ok(()),
            other => Err(format!("is {}, expected the scalar {number}", show(other))),
        };
    }
    match (value, &expected.range_vector) {
        (Value::Matrix(found), Some(range)) => matrix(&expected.series, found, range.start_ms, range.step_ms),
        (Value::Vector(found), None) => vector(expected, found),
        (other, _) => Err(format!("is {}, expected {}", show(other), lines(&expected.series))),
    }
}

fn vector(expected: &Expectations, found: &[VectorElement]) -> Result<(), Difference> {
    for (i, series) in expected.series.iter().enumerate() {
        let ExpectedSeries { line, labels, values } = series;
        let Some(at) = found.iter().position(|element| element.labels == *labels) else {
            return Err(format!("line {line}: {labels} is missing in {}", show_vector(found)));
        };
        if expected.ordered && at != i {
            return Err(format!("line {line}: {labels} stands at {}, expected at {}", at + 1, i + 1));
        }
        let [wanted] = values.as_slice() else {
            return Err(format!("line {line}: an element of a vector has one value"));
        };
        if !same_value(&found[at].value, wanted) {
            let found = show_value(&found[at].value);
            return Err(format!("line {line}: {labels} is {found}, expected {}", show_wanted(wanted)));
        }
    }
    unexpected(&expected.series, found.iter().map(|element| &element.labels))?;
    match found.len() == expected.series.len() {
        true => Ok(()),
        false => Err(format!("has label sets twice: {}", show_vector(found))),
    }
}

/// Compares a matrix: the i-th value belongs to `start_ms + i * step_ms`.
pub(super) fn matrix(
    expected: &[ExpectedSeries],
    found: &[Series],
    start_ms: i64,
    step_ms: i64,
) -> Result<(), Difference> {
    for ExpectedSeries { line, labels, values } in expected {
        let Some(series) = found.iter().find(|series| series.labels == *labels) else {
            let found: Vec<String> = found.iter().map(|series| series.labels.to_string()).collect();
            return Err(format!("line {line}: {labels} is missing, there are {found:?}"));
        };
        let mut points = points(series);
        for (i, wanted) in values.iter().enumerate() {
            let t_ms = start_ms.saturating_add(step_ms.saturating_mul(i as i64));
            match (points.remove(&t_ms), wanted) {
                (None, SequenceValue::Omitted) => {}
                (Some(value), wanted) if same_value(&value, wanted) => {}
                (found, wanted) => {
                    let found = found.map_or_else(|| "nothing".to_owned(), |v| show_value(&v));
                    let wanted = show_wanted(wanted);
                    return Err(format!("line {line}: {labels} is {found} at {t_ms} ms, expected {wanted}"));
                }
            }
        }
        if let Some((t_ms, value)) = points.into_iter().next() {
            let value = show_value(&value);
            return Err(format!("line {line}: {labels} is {value} at {t_ms} ms, expected nothing"));
        }
    }
    unexpected(expected, found.iter().map(|series| &series.labels))?;
    if found.is_sorted_by(|a, b| a.labels < b.labels) {
        Ok(())
    } else {
        Err("the series are not sorted by their labels".to_owned())
    }
}

fn unexpected<'a>(
    expected: &[ExpectedSeries],
    mut found: impl Iterator<Item = &'a Labels>,
) -> Result<(), Difference> {
    match found.find(|labels| !expected.iter().any(|series| series.labels == **labels)) {
        Some(labels) => Err(format!("{labels} is unexpected")),
        None => Ok(()),
    }
}

fn points(series: &Series) -> BTreeMap<i64, SampleValue> {
    let floats = series.floats.iter().map(|point| (point.t_ms, SampleValue::Float(point.value)));
    let histograms =
        series.histograms.iter().map(|point| (point.t_ms, SampleValue::Histogram(point.value.clone())));
    floats.chain(histograms).collect()
}

/// The vector at `t_ms` within the value of a range query; the scalar, if that is what it is of.
pub(super) fn at_time(value: &Value, t_ms: i64, scalar: bool) -> Value {
    match value {
        Value::Matrix(matrix) if scalar => {
            let point = matrix.first().and_then(|series| series.floats.iter().find(|p| p.t_ms == t_ms));
            point.map_or_else(|| Value::Vector(Vec::new()), |point| Value::Scalar(*point))
        }
        Value::Matrix(matrix) => Value::Vector(
            matrix
                .iter()
                .filter_map(|series| {
                    let value = points(series).remove(&t_ms)?;
                    Some(VectorElement { labels: series.labels.clone(), t_ms, value })
                })
                .collect(),
        ),
        other => other.clone(),
    }
}

fn same_value(found: &SampleValue, wanted: &SequenceValue) -> bool {
    match (found, wanted) {
        (SampleValue::Float(found), SequenceValue::Float(wanted)) => same_float(*found, *wanted),
        (SampleValue::Histogram(found), SequenceValue::Histogram { value, hint_given }) => {
            same_histogram(found, value, *hint_given)
        }
        _ => false,
    }
}

/// Equal but for 1e-6 of the value (Prometheus' `almost.Equal`).
fn same_float(a: f64, b: f64) -> bool {
    const EPSILON: f64 = 1e-6;
    if is_stale(a) || is_stale(b) {
        return is_stale(a) && is_stale(b);
    }
    if a.is_nan() && b.is_nan() || a == b {
        return true;
    }
    let (difference, sum) = ((a - b).abs(), a.abs() + b.abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < EPSILON * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < EPSILON
}

fn same_histogram(a: &Histogram, b: &Histogram, with_hint: bool) -> bool {
    let same_floats =
        |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_float(*a, *b));
    let (a, b) = (compacted(a), compacted(b));
    a.schema == b.schema
        && a.zero_threshold == b.zero_threshold
        && (!with_hint || a.counter_reset_hint == b.counter_reset_hint)
        && a.positive_spans == b.positive_spans
        && a.negative_spans == b.negative_spans
        && a.custom_values == b.custom_values
        && same_floats(&[a.count, a.sum, a.zero_count], &[b.count, b.sum, b.zero_count])
        && same_floats(&a.positive_buckets, &b.positive_buckets)
        && same_floats(&a.negative_buckets, &b.negative_buckets)
}

fn show(value: &Value) -> String {
    match value {
        Value::Scalar(point) => format!("the scalar {}", point.value),
        Value::String(text) => format!("the text {text:?}"),
        Value::Vector(vector) => show_vector(vector),
        Value::Matrix(matrix) => format!("a range vector of {} series", matrix.len()),
    }
}

fn show_vector(vector: &[VectorElement]) -> String {
    let elements: Vec<String> = vector
        .iter()
        .take(10)
        .map(|element| format!("{} {}", element.labels, show_value(&element.value)))
        .collect();
    format!("a vector of {} [{}]", vector.len(), elements.join(", "))
}

fn show_value(value: &SampleValue) -> String {
    match value {
        SampleValue::Float(value) if is_stale(*value) => "stale".to_owned(),
        SampleValue::Float(value) => value.to_string(),
        SampleValue::Histogram(histogram) => format!("{histogram:?}"),
    }
}

fn show_wanted(value: &SequenceValue) -> String {
    match value {
        SequenceValue::Omitted => "nothing".to_owned(),
        SequenceValue::Float(value) => show_value(&SampleValue::Float(*value)),
        SequenceValue::Histogram { value, .. } => show_value(&SampleValue::Histogram(value.clone())),
    }
}

fn lines(series: &[ExpectedSeries]) -> String {
    format!("a vector of {}", series.len())
}
