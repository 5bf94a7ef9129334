//! Functions that change labels, and those that order series: `label_replace`, `label_join`,
//! `sort`, `sort_by_label`.

use super::super::eval::{EvalError, Operand, Site};
use super::super::merge;
use super::super::row::{SeriesRow, Vector};
use crate::storage::regex::{Rewriter, TooLong};
use larum_storage_format::Labels;
use larum_storage_format::labels::METRIC_NAME;
use std::cmp::Ordering;

type Outcome = Result<Operand, EvalError>;

/// The vector and the texts after it.
fn vector_and_texts(args: Vec<Operand>) -> (Vector, Vec<String>) {
    let mut args = args.into_iter();
    let vector = args.next().map_or_else(Vec::new, Operand::vector);
    (vector, args.map(Operand::text).collect())
}

/// `label_replace(v, dst, replacement, src, regex)`: where `regex` matches the label `src`, `dst`
/// becomes the replacement.
pub(super) fn label_replace(site: &Site<'_, '_>, args: Vec<Operand>) -> Outcome {
    let (vector, texts) = vector_and_texts(args);
    let [dst, replacement, src, pattern] = texts.as_slice() else { return Ok(Operand::Vector(vector)) };
    let rewriter = Rewriter::anchored(pattern).map_err(|_| {
        EvalError::Execution(format!("invalid regular expression in label_replace(): {pattern}"))
    })?;
    check_label(dst, "destination", "label_replace")?;
    with_label(site, vector, dst, |labels| {
        rewriter.expand(labels.get(src).unwrap_or(""), replacement, LABEL_BYTES_MAX)
    })
}

/// `label_join(v, dst, separator, src...)`: `dst` becomes the labels `src`, joined.
pub(super) fn label_join(site: &Site<'_, '_>, args: Vec<Operand>) -> Outcome {
    let (vector, texts) = vector_and_texts(args);
    let [dst, separator, sources @ ..] = texts.as_slice() else { return Ok(Operand::Vector(vector)) };
    sources.iter().try_for_each(|src| check_label(src, "source", "label_join"))?;
    check_label(dst, "destination", "label_join")?;
    with_label(site, vector, dst, |labels| {
        let values: Vec<&str> = sources.iter().map(|src| labels.get(src).unwrap_or("")).collect();
        let separators = separator.len().saturating_mul(values.len().saturating_sub(1));
        let bytes = values.iter().fold(separators, |bytes, value| bytes.saturating_add(value.len()));
        if bytes > LABEL_BYTES_MAX { Err(TooLong) } else { Ok(Some(values.join(separator))) }
    })
}

fn check_label(name: &str, role: &str, function: &str) -> Result<(), EvalError> {
    if name.is_empty() {
        return Err(EvalError::Execution(format!("invalid {role} label name in {function}(): {name}")));
    }
    Ok(())
}

/// The longest label that a query may make, in bytes.
const LABEL_BYTES_MAX: usize = 1 << 20;

/// How long all labels that one call makes may be together, in bytes.
const ALL_LABELS_BYTES_MAX: usize = 256 << 20;

/// Sets the label `dst` of every series to what `value` says, if it says anything.
fn with_label(
    site: &Site<'_, '_>,
    vector: Vector,
    dst: &str,
    value: impl Fn(&Labels) -> Result<Option<String>, TooLong>,
) -> Outcome {
    let name = site.call.function.name;
    let mut made_bytes = 0;
    let mut merger = merge::Merger::default();
    for mut series in vector {
        site.evaluator.alive()?;
        let value = value(&series.labels).map_err(|TooLong| {
            EvalError::Execution(format!("{name}() makes a label of more than {LABEL_BYTES_MAX} bytes"))
        })?;
        if let Some(value) = value {
            made_bytes += value.len();
            if made_bytes > ALL_LABELS_BYTES_MAX {
                return Err(EvalError::Execution(format!(
                    "{name}() makes labels of more than {ALL_LABELS_BYTES_MAX} bytes in all"
                )));
            }
            series.labels = series.labels.to_builder().set(dst, &value).build();
            // A name that was set on purpose stays.
            series.drop_name &= dst != METRIC_NAME;
        }
        merger.add(series)?;
    }
    Ok(Operand::Vector(merger.finish()))
}

/// With more than one step there is no one order, and the answer is sorted by labels; says so.
fn sorts(site: &Site<'_, '_>) -> bool {
    let sorts = site.steps.start_ms() == site.steps.end_ms();
    if !sorts {
        site.evaluator.warn(
            "sort is ineffective for range queries since results are always ordered by labels",
            site.pos,
        );
    }
    sorts
}

/// `sort(v)`
pub(super) fn sort(site: &Site<'_, '_>, args: Vec<Operand>) -> Outcome {
    sort_by_value(site, args, |a, b| a.total_cmp(&b))
}

/// `sort_desc(v)`
pub(super) fn sort_desc(site: &Site<'_, '_>, args: Vec<Operand>) -> Outcome {
    sort_by_value(site, args, |a, b| b.total_cmp(&a))
}

/// Sorts floats, NaN last; drops histograms, which have no order.
fn sort_by_value(site: &Site<'_, '_>, args: Vec<Operand>, order: fn(f64, f64) -> Ordering) -> Outcome {
    let (mut vector, _) = vector_and_texts(args);
    for series in &mut vector {
        series.row.histograms.clear();
    }
    vector.retain(|series| series.row.points() > 0);
    if sorts(site) {
        // -0 and 0 are the same.
        let value = |series: &SeriesRow| series.row.float(0).unwrap_or(f64::NAN) + 0.0;
        vector.sort_by(|a, b| {
            let (a, b) = (value(a), value(b));
            a.is_nan().cmp(&b.is_nan()).then_with(|| order(a, b))
        });
    }
    Ok(Operand::Vector(vector))
}

/// `sort_by_label(v, label...)`
pub(super) fn sort_by_label(site: &Site<'_, '_>, args: Vec<Operand>) -> Outcome {
    let (mut vector, labels) = vector_and_texts(args);
    if sorts(site) {
        vector.sort_by(|a, b| by_labels(&a.labels, &b.labels, &labels));
    }
    Ok(Operand::Vector(vector))
}

/// `sort_by_label_desc(v, label...)`
pub(super) fn sort_by_label_desc(site: &Site<'_, '_>, args: Vec<Operand>) -> Outcome {
    let (mut vector, labels) = vector_and_texts(args);
    if sorts(site) {
        vector.sort_by(|a, b| by_labels(&b.labels, &a.labels, &labels));
    }
    Ok(Operand::Vector(vector))
}

/// By the values of `names` in turn, numbers in them by their size; then by all labels.
fn by_labels(a: &Labels, b: &Labels, names: &[String]) -> Ordering {
    names
        .iter()
        .map(|name| natural(a.get(name).unwrap_or(""), b.get(name).unwrap_or("")))
        .find(|order| order.is_ne())
        .unwrap_or_else(|| a.cmp(b))
}

/// The order of `a2` before `a10`: digits that stand together count as a number.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    while !a.is_empty() && !b.is_empty() {
        let (chunk_a, rest_a) = chunk(a);
        let (chunk_b, rest_b) = chunk(b);
        let order = match (chunk_a.parse::<u64>(), chunk_b.parse::<u64>()) {
            (Ok(a), Ok(b)) => a.cmp(&b),
            _ => chunk_a.cmp(chunk_b),
        };
        if order.is_ne() {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
    a.len().cmp(&b.len())
}

/// The digits at the beginning of `text`, or what stands before the first digit.
fn chunk(text: &str) -> (&str, &str) {
    let digits = text.starts_with(|c: char| c.is_ascii_digit());
    text.split_at(text.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_labels_are_sorted_by_size() {
        let mut texts = ["a10", "a2", "b1", "", "a", "10", "9", "a2b", "a02c"];
        texts.sort_by(|a, b| natural(a, b));
        assert_eq!(texts, ["", "9", "10", "a", "a2", "a2b", "a02c", "a10", "b1"]);
    }
}
