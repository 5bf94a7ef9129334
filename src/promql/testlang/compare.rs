//! Compares what a query yields with what a script expects.

use super::Difference;
use super::expect::{Expectations, ExpectedSeries, Notes, RangeVector};
use crate::promql::EvalError;
use crate::promql::histogram::compacted;
use crate::promql::histogram_text::write_histogram;
use crate::promql::parse::series::SequenceValue;
use crate::promql::value::{Answer, Series, Value, VectorElement};
use larum_storage_format::sample::is_stale;
use larum_storage_format::{Histogram, Labels, Value as SampleValue};
use std::collections::BTreeMap;

type Result<T> = std::result::Result<T, Difference>;

fn differ<T>(expected: impl Into<String>, got: impl Into<String>) -> Result<T> {
    Err(Difference { line: None, expected: expected.into(), got: got.into(), how: String::new() })
}

impl ExpectedSeries {
    fn differ<T>(&self, expected: impl Into<String>, got: impl Into<String>) -> Result<T> {
        differ(expected, got).map_err(|difference| Difference { line: Some(self.line), ..difference })
    }
}

/// Checks failure and annotations; says whether the value has to be looked at.
pub(super) fn outcome<'a>(
    expected: &Expectations,
    query: &str,
    result: &'a std::result::Result<Answer, EvalError>,
) -> Result<Option<&'a Value>> {
    let answer = match (result, &expected.fail) {
        (Err(error), Some(pattern)) => {
            let message = error.to_string();
            return if pattern.matches(&message) {
                Ok(None)
            } else {
                differ(format!("a failure {pattern}"), format!("the failure {message:?}"))
            };
        }
        (Err(error), None) => return differ("a value", format!("the failure {:?}", error.to_string())),
        (Ok(answer), Some(pattern)) => {
            return differ(format!("a failure {pattern}"), show(&answer.value));
        }
        (Ok(answer), None) => answer,
    };
    annotations("warning", &expected.warnings, &answer.annotations.all_warnings(query))?;
    annotations("info", &expected.infos, &answer.annotations.all_infos(query))?;
    Ok(Some(&answer.value))
}

fn annotations(kind: &str, expected: &Notes, found: &[String]) -> Result<()> {
    if expected.none && !found.is_empty() {
        return differ(format!("no {kind}"), format!("{found:?}"));
    }
    if expected.some && found.is_empty() {
        return differ(format!("some {kind}"), "none");
    }
    if expected.like.is_empty() {
        return Ok(());
    }
    if let Some(pattern) =
        expected.like.iter().find(|pattern| !found.iter().any(|text| pattern.matches(text)))
    {
        let article = if kind == "info" { "an" } else { "a" };
        return differ(format!("{article} {kind} {pattern}"), format!("{found:?}"));
    }
    match found.iter().find(|text| !expected.like.iter().any(|pattern| pattern.matches(text))) {
        Some(text) => differ(format!("no other {kind}"), format!("{text:?}")),
        None => Ok(()),
    }
}

/// Compares the value of an instant query.
pub(super) fn instant(expected: &Expectations, value: &Value) -> Result<()> {
    if let Some(text) = &expected.string {
        return match value {
            Value::String(found) if found == text => Ok(()),
            other => differ(format!("the text {text:?}"), show(other)),
        };
    }
    if let Some(number) = expected.scalar {
        return match value {
            Value::Scalar(point) if same_float(point.value, number) => Ok(()),
            other => differ(format!("the scalar {number}"), show(other)),
        };
    }
    match (value, &expected.range_vector) {
        (Value::Matrix(found), Some(range)) => matrix(expected, found, range),
        (Value::Vector(found), None) => vector(expected, found),
        (other, Some(_)) => {
            differ(format!("a range vector of {} series", expected.series.len()), show(other))
        }
        (other, None) => differ(format!("a vector of {}", expected.series.len()), show(other)),
    }
}

fn vector(expected: &Expectations, found: &[VectorElement]) -> Result<()> {
    for (i, series) in expected.series.iter().enumerate() {
        let labels = &series.labels;
        // The parser of scripts sees to it that there is one value.
        let Some(wanted) = series.values.first() else { continue };
        let wanted_text = format!("{labels} {}", show_wanted(wanted));
        let Some(at) = found.iter().position(|element| element.labels == *labels) else {
            return series.differ(wanted_text, show_vector(found));
        };
        if expected.ordered && at != i {
            return series.differ(format!("{labels} at place {}", i + 1), format!("it at place {}", at + 1));
        }
        if !same_value(&found[at].value, wanted) {
            return series.differ(wanted_text, show_value(&found[at].value));
        }
    }
    unexpected(&expected.series, found.iter().map(|element| &element.labels))?;
    match found.len() == expected.series.len() {
        true => Ok(()),
        false => differ("each label set once", show_vector(found)),
    }
}

/// Compares a matrix: the i-th value belongs to `start_ms + i * step_ms`.
pub(super) fn matrix(expected: &Expectations, found: &[Series], range: &RangeVector) -> Result<()> {
    if expected.ordered {
        return differ("an ordered vector", format!("a range vector of {} series", found.len()));
    }
    for expected in &expected.series {
        let labels = &expected.labels;
        let Some(series) = found.iter().find(|series| series.labels == *labels) else {
            let found: Vec<String> = found.iter().take(10).map(|series| series.labels.to_string()).collect();
            return expected.differ(labels.to_string(), format!("[{}]", found.join(", ")));
        };
        let mut points = points(series);
        for (i, wanted) in expected.values.iter().enumerate() {
            let t_ms = range.start_ms.saturating_add(range.step_ms.saturating_mul(i as i64));
            if t_ms > range.end_ms {
                let values = expected.values.len();
                return expected
                    .differ(format!("{values} values of {labels}"), format!("steps for {i} alone"));
            }
            match (points.remove(&t_ms), wanted) {
                (None, SequenceValue::Omitted) => {}
                (Some(value), wanted) if same_value(&value, wanted) => {}
                (found, wanted) => {
                    let found = found.map_or_else(|| "nothing".to_owned(), |v| show_value(&v));
                    let wanted = show_wanted(wanted);
                    return expected.differ(format!("{labels} {wanted} at {t_ms} ms"), found);
                }
            }
        }
        if let Some((t_ms, value)) = points.into_iter().next() {
            return expected.differ(format!("nothing of {labels} at {t_ms} ms"), show_value(&value));
        }
    }
    unexpected(&expected.series, found.iter().map(|series| &series.labels))?;
    if found.is_sorted_by(|a, b| a.labels < b.labels) {
        Ok(())
    } else {
        differ("series sorted by their labels", "another order")
    }
}

fn unexpected<'a>(expected: &[ExpectedSeries], mut found: impl Iterator<Item = &'a Labels>) -> Result<()> {
    match found.find(|labels| !expected.iter().any(|series| series.labels == **labels)) {
        Some(labels) => differ(format!("{} series", expected.len()), format!("{labels} besides")),
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
        SampleValue::Histogram(histogram) => {
            let mut text = String::new();
            write_histogram(&mut text, histogram).expect("writing to a string does not fail");
            text
        }
    }
}

fn show_wanted(value: &SequenceValue) -> String {
    match value {
        SequenceValue::Omitted => "nothing".to_owned(),
        SequenceValue::Float(value) => show_value(&SampleValue::Float(*value)),
        SequenceValue::Histogram { value, .. } => show_value(&SampleValue::Histogram(value.clone())),
    }
}
