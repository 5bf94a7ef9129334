//! What a query yields, as JSON: `{"resultType":...,"result":...,"stats":...}`.

use super::super::error::ApiError;
use super::super::json;
use crate::promql::number::{Bytes, write_sample_value, write_scalar_timestamp, write_scalar_value};
use crate::promql::value::{Answer, HistogramPoint, Series, Value, VectorElement};
use larum_storage_format::histogram::CUSTOM_BUCKETS_SCHEMA;
use larum_storage_format::{Histogram, Span, Value as SampleValue};
use std::time::Duration;

/// What the parts of a query took.
#[derive(Debug, Clone, Copy)]
pub struct Timings {
    /// Waiting for a thread.
    pub queue: Duration,
    /// Parsing and planning.
    pub prepare: Duration,
    /// Evaluating.
    pub evaluate: Duration,
    /// All of it.
    pub total: Duration,
}

/// Adds the answer of a query at `at_ms`, with at most `limit` series; says whether some were left
/// out. `go_on` is asked after each series, with the length so far.
///
/// # Errors
/// What `go_on` says.
pub fn write_answer(
    out: &mut Vec<u8>,
    answer: &Answer,
    at_ms: i64,
    limit: Option<usize>,
    timings: Option<Timings>,
    go_on: &mut dyn FnMut(usize) -> Result<(), ApiError>,
) -> Result<bool, ApiError> {
    out.extend_from_slice(br#"{"resultType":""#);
    out.extend_from_slice(answer.value.value_type().name().as_bytes());
    out.extend_from_slice(br#"","result":"#);
    let limit = limit.unwrap_or(usize::MAX);
    let truncated = match &answer.value {
        Value::Scalar(point) => {
            out.push(b'[');
            let _ = write_scalar_timestamp(&mut Bytes(out), point.t_ms);
            out.extend_from_slice(b",\"");
            let _ = write_scalar_value(&mut Bytes(out), point.value);
            out.extend_from_slice(b"\"]");
            false
        }
        Value::String(text) => {
            out.push(b'[');
            let _ = write_scalar_timestamp(&mut Bytes(out), at_ms);
            out.push(b',');
            json::text(out, text);
            out.push(b']');
            false
        }
        Value::Vector(elements) => {
            json::long_list(out, elements.iter().take(limit), element, go_on)?;
            elements.len() > limit
        }
        Value::Matrix(all) => {
            json::long_list(out, all.iter().take(limit), series, go_on)?;
            all.len() > limit
        }
    };
    if let Some(timings) = timings {
        write_stats(out, answer, timings);
    }
    out.push(b'}');
    Ok(truncated)
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

fn series(out: &mut Vec<u8>, series: &Series) {
    out.extend_from_slice(br#"{"metric":"#);
    json::labels(out, &series.labels);
    if !series.floats.is_empty() {
        out.extend_from_slice(br#","values":"#);
        json::list(out, &series.floats, |out, point| json::point(out, point.t_ms, point.value));
    }
    if !series.histograms.is_empty() {
        out.extend_from_slice(br#","histograms":"#);
        json::list(out, &series.histograms, |out, HistogramPoint { t_ms, value }| {
            histogram_point(out, *t_ms, value);
        });
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

fn write_stats(out: &mut Vec<u8>, answer: &Answer, timings: Timings) {
    let seconds = |d: Duration| d.as_secs_f64();
    let stats = serde_json::json!({
        "timings": {
            "evalTotalTime": seconds(timings.evaluate + timings.prepare),
            "resultSortTime": 0,
            "queryPreparationTime": seconds(timings.prepare),
            "innerEvalTime": seconds(timings.evaluate),
            "execQueueTime": seconds(timings.queue),
            "execTotalTime": seconds(timings.total),
        },
        "samples": {
            "totalQueryableSamples": answer.stats.samples,
            "samplesRead": answer.stats.samples,
            "peakSamples": answer.stats.peak_samples,
        },
    });
    out.extend_from_slice(b",\"stats\":");
    json::serialized(out, &stats);
}

#[cfg(test)]
mod tests;
