//! What a query yields, as JSON: `{"status":"success","data":{"resultType":...,"result":...` and so on.

use super::super::http::stream::Text;
use super::super::json;
use crate::promql::number::{Bytes, write_sample_value, write_scalar_timestamp, write_scalar_value};
use crate::promql::value::{Value, VectorElement};
use larum_storage_format::histogram::CUSTOM_BUCKETS_SCHEMA;
use larum_storage_format::{Histogram, Span, Value as SampleValue};

/// The answer of a query, written as it is read.
pub struct AnswerText {
    value: Value,
    at_ms: i64,
    /// So many elements or series are shown.
    shown: usize,
    tail: Vec<u8>,
    next: Next,
}

/// What comes next of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Head,
    /// An element, or the labels of a series.
    Item(usize),
    /// A point of a series, which is among its floats or its histograms.
    Float(usize, usize),
    Histogram(usize, usize),
    Tail,
    Nothing,
}

impl AnswerText {
    /// The answer of a query at `at_ms`, with at most `limit` series. `tail` is what stands behind the
    /// result, such as `,"stats":{}},"warnings":[]}`.
    pub fn new(value: Value, at_ms: i64, limit: Option<usize>, tail: Vec<u8>) -> AnswerText {
        let shown = length(&value).min(limit.unwrap_or(usize::MAX));
        AnswerText { value, at_ms, shown, tail, next: Next::Head }
    }

    /// Writes what is next; gives what comes after it.
    fn step(&mut self, out: &mut Vec<u8>, until: usize) -> Next {
        match (self.next, &self.value) {
            (Next::Head, value) => {
                out.extend_from_slice(json::SUCCESS);
                out.extend_from_slice(br#"{"resultType":""#);
                out.extend_from_slice(value.value_type().name().as_bytes());
                out.extend_from_slice(br#"","result":["#);
                match value {
                    Value::Vector(_) | Value::Matrix(_) => return Next::Item(0),
                    Value::Scalar(point) => {
                        let _ = write_scalar_timestamp(&mut Bytes(out), point.t_ms);
                        out.extend_from_slice(b",\"");
                        let _ = write_scalar_value(&mut Bytes(out), point.value);
                        out.push(b'"');
                    }
                    Value::String(text) => {
                        let _ = write_scalar_timestamp(&mut Bytes(out), self.at_ms);
                        out.push(b',');
                        json::text(out, text);
                    }
                }
                Next::Tail
            }
            (Next::Item(index), _) if index == self.shown => Next::Tail,
            (Next::Item(index), Value::Vector(elements)) => {
                comma(out, index);
                element(out, &elements[index]);
                Next::Item(index + 1)
            }
            (Next::Item(index), Value::Matrix(all)) => {
                comma(out, index);
                out.extend_from_slice(br#"{"metric":"#);
                json::labels(out, &all[index].labels);
                Next::Float(index, 0)
            }
            (Next::Float(index, from), Value::Matrix(all)) => {
                let to = points(out, until, br#","values":["#, &all[index].floats, from, |out, point| {
                    json::point(out, point.t_ms, point.value);
                });
                if to < all[index].floats.len() { Next::Float(index, to) } else { Next::Histogram(index, 0) }
            }
            (Next::Histogram(index, from), Value::Matrix(all)) => {
                let to =
                    points(out, until, br#","histograms":["#, &all[index].histograms, from, |out, point| {
                        histogram_point(out, point.t_ms, &point.value);
                    });
                if to < all[index].histograms.len() {
                    return Next::Histogram(index, to);
                }
                out.push(b'}');
                Next::Item(index + 1)
            }
            (Next::Tail, _) => {
                out.push(b']');
                out.extend_from_slice(&self.tail);
                Next::Nothing
            }
            (_, _) => Next::Nothing,
        }
    }
}

impl Text for AnswerText {
    fn write(&mut self, out: &mut Vec<u8>, until: usize) -> bool {
        while self.next != Next::Nothing && out.len() < until {
            self.next = self.step(out, until);
        }
        self.next != Next::Nothing
    }
}

/// How many elements or series there are.
pub fn length(value: &Value) -> usize {
    match value {
        Value::Scalar(_) | Value::String(_) => 0,
        Value::Vector(elements) => elements.len(),
        Value::Matrix(all) => all.len(),
    }
}

fn comma(out: &mut Vec<u8>, index: usize) {
    if index > 0 {
        out.push(b',');
    }
}

/// Adds the list of these points from the index `from` on, until `out` is long enough; gives the index
/// of the first that is missing. Where there are none, there is no list.
fn points<P>(
    out: &mut Vec<u8>,
    until: usize,
    begin: &[u8],
    points: &[P],
    from: usize,
    write: impl Fn(&mut Vec<u8>, &P),
) -> usize {
    if points.is_empty() {
        return 0;
    }
    if from == 0 {
        out.extend_from_slice(begin);
    }
    let mut to = from;
    for point in &points[from..] {
        comma(out, to);
        write(out, point);
        to += 1;
        if out.len() >= until {
            break;
        }
    }
    if to == points.len() {
        out.push(b']');
    }
    to
}

fn element(out: &mut Vec<u8>, element: &VectorElement) {
    out.extend_from_slice(br#"{"metric":"#);
    json::labels(out, &element.labels);
    match &element.value {
        SampleValue::Float(value) => {
            out.extend_from_slice(br#","value":"#);
            json::point(out, element.t_ms, *value);
        }
        SampleValue::Histogram(value) => {
            out.extend_from_slice(br#","histogram":"#);
            histogram_point(out, element.t_ms, value);
        }
    }
    out.push(b'}');
}

fn histogram_point(out: &mut Vec<u8>, t_ms: i64, histogram: &Histogram) {
    out.push(b'[');
    json::timestamp(out, t_ms);
    out.extend_from_slice(b",{\"count\":");
    quoted(out, histogram.count);
    out.extend_from_slice(b",\"sum\":");
    quoted(out, histogram.sum);
    let buckets = buckets(histogram);
    if !buckets.is_empty() {
        out.extend_from_slice(b",\"buckets\":");
        json::list(out, buckets, |out, bucket| {
            // What of its borders a bucket holds, as the API numbers it.
            let rule = match (bucket.lower_inclusive, bucket.upper_inclusive) {
                (false, true) => b'0',
                (true, false) => b'1',
                (false, false) => b'2',
                (true, true) => b'3',
            };
            out.extend_from_slice(&[b'[', rule]);
            for value in [bucket.lower, bucket.upper, bucket.count] {
                out.push(b',');
                quoted(out, value);
            }
            out.push(b']');
        });
    }
    out.extend_from_slice(b"}]");
}

fn quoted(out: &mut Vec<u8>, value: f64) {
    out.push(b'"');
    let _ = write_sample_value(&mut Bytes(out), value);
    out.push(b'"');
}

/// A bucket with observations.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Bucket {
    lower: f64,
    upper: f64,
    lower_inclusive: bool,
    upper_inclusive: bool,
    count: f64,
}

/// The buckets that hold something, from the lowest to the highest.
fn buckets(histogram: &Histogram) -> Vec<Bucket> {
    let custom = histogram.schema == CUSTOM_BUCKETS_SCHEMA;
    let mut all = Vec::new();
    for (index, count) in indexed(&histogram.negative_spans, &histogram.negative_buckets) {
        let (upper, lower) = (-bound(histogram, index - 1), -bound(histogram, index));
        let upper = if upper > -histogram.zero_threshold { -histogram.zero_threshold } else { upper };
        all.push(Bucket { lower, upper, lower_inclusive: true, upper_inclusive: false, count });
    }
    all.reverse();
    if histogram.zero_count != 0.0 {
        let (lower, upper) = (-histogram.zero_threshold, histogram.zero_threshold);
        let count = histogram.zero_count;
        all.push(Bucket { lower, upper, lower_inclusive: true, upper_inclusive: true, count });
    }
    for (index, count) in indexed(&histogram.positive_spans, &histogram.positive_buckets) {
        let (lower, upper) = (bound(histogram, index - 1), bound(histogram, index));
        let lower =
            if !custom && lower < histogram.zero_threshold { histogram.zero_threshold } else { lower };
        let lower_inclusive = custom && index == 0;
        all.push(Bucket { lower, upper, lower_inclusive, upper_inclusive: true, count });
    }
    all.retain(|bucket| bucket.count != 0.0);
    all
}

/// Index and count of every bucket that the spans name.
fn indexed<'a>(spans: &'a [Span], counts: &'a [f64]) -> impl Iterator<Item = (i64, f64)> + 'a {
    let mut next = 0i64;
    let indexes = spans.iter().flat_map(move |span| {
        let first = next.saturating_add(i64::from(span.offset));
        next = first.saturating_add(i64::from(span.length));
        first..next
    });
    indexes.zip(counts.iter().copied())
}

/// The upper bound of the bucket `index`.
fn bound(histogram: &Histogram, index: i64) -> f64 {
    if histogram.schema == CUSTOM_BUCKETS_SCHEMA {
        return match usize::try_from(index) {
            Ok(index) => histogram.custom_values.get(index).copied().unwrap_or(f64::INFINITY),
            Err(_) => f64::NEG_INFINITY,
        };
    }
    let schema = histogram.schema.clamp(-4, 8);
    let (exponent, fraction) = if schema <= 0 {
        (index.saturating_mul(1 << -schema), 0)
    } else {
        (index >> schema, index & ((1 << schema) - 1))
    };
    let fraction = (fraction as f64 / f64::from(1 << schema.max(0))).exp2();
    // The last bucket of finite floats ends with them.
    match exponent {
        1024 if fraction == 1.0 => f64::MAX,
        1024.. => f64::INFINITY,
        exponent => (exponent.max(-1100) as f64).exp2() * fraction,
    }
}

#[cfg(test)]
mod tests;
