//! What is refused for good: label sets beyond the limits, histograms that contradict themselves.

use crate::storage::batch::Refusal;
use crate::storage::options::Limits;
use larum_storage_format::histogram::CUSTOM_BUCKETS_SCHEMA;
use larum_storage_format::{Histogram, Labels, Span, is_stale};

/// Finest and coarsest exponential schema.
const SCHEMAS: std::ops::RangeInclusive<i32> = -4..=8;

/// Checks the labels of a new series.
pub(super) fn check_labels(labels: &Labels, limits: &Limits) -> Result<(), Refusal> {
    let too_long = |what: String, len_bytes: usize, limit_bytes: usize| {
        if len_bytes > limit_bytes { Err(Refusal::TooLong { what, len_bytes, limit_bytes }) } else { Ok(()) }
    };
    if labels.metric_name().is_none() {
        return Err(Refusal::NoMetricName);
    }
    // A label takes four bytes at least, and no part of the set is longer than all of it.
    let most = labels.as_bytes().len();
    let least_limit_bytes = limits.label_name_bytes.min(limits.label_value_bytes).min(limits.series_bytes);
    if most / 4 <= limits.labels && most <= least_limit_bytes {
        return Ok(());
    }
    let count = labels.len();
    if count > limits.labels {
        return Err(Refusal::TooManyLabels { count, limit: limits.labels });
    }
    let mut bytes = 0;
    for (name, value) in labels {
        // The texts of sane limits are short; a name beyond them is not repeated.
        if name.len() > limits.label_name_bytes {
            too_long("a label name".to_owned(), name.len(), limits.label_name_bytes)?;
        }
        if value.len() > limits.label_value_bytes {
            too_long(format!("value of label {name:?}"), value.len(), limits.label_value_bytes)?;
        }
        bytes += name.len() + value.len();
    }
    too_long("the series".to_owned(), bytes, limits.series_bytes)
}

/// Checks a native histogram, after Prometheus' own rules (`model/histogram`, `Validate`).
pub(super) fn check_histogram(histogram: &Histogram) -> Result<(), Refusal> {
    // A stale marker says nothing besides.
    if is_stale(histogram.sum) {
        return Ok(());
    }
    validate(histogram).map_err(Refusal::BadHistogram)
}

fn validate(h: &Histogram) -> Result<(), String> {
    let custom = h.schema == CUSTOM_BUCKETS_SCHEMA;
    if !custom && !SCHEMAS.contains(&h.schema) {
        return Err(format!("schema {} is unknown", h.schema));
    }
    if custom {
        if !h.negative_spans.is_empty() || !h.negative_buckets.is_empty() || h.zero_count != 0.0 {
            return Err("custom buckets go with neither negative nor zero buckets".to_owned());
        }
        if h.custom_values.iter().any(|v| v.is_nan() || *v == f64::INFINITY)
            || h.custom_values.windows(2).any(|pair| pair[0] >= pair[1])
        {
            return Err("custom bounds must ascend and be below +Inf".to_owned());
        }
    } else if !h.custom_values.is_empty() {
        return Err("an exponential schema has no custom bounds".to_owned());
    }
    check_side("positive", &h.positive_spans, &h.positive_buckets)?;
    check_side("negative", &h.negative_spans, &h.negative_buckets)?;
    if custom {
        let reach = h.positive_spans.iter().map(|s| i64::from(s.offset) + i64::from(s.length)).sum::<i64>();
        if reach > h.custom_values.len() as i64 + 1 || h.positive_spans.first().is_some_and(|s| s.offset < 0)
        {
            return Err(format!("buckets up to {reach}, but {} custom bounds", h.custom_values.len()));
        }
    }
    // A negated comparison, so that a NaN is refused too.
    if !(h.zero_count >= 0.0 && h.count >= 0.0) {
        return Err("a count is negative or no number".to_owned());
    }
    if h.zero_threshold.is_nan() || h.zero_threshold < 0.0 {
        return Err("the zero threshold is negative or no number".to_owned());
    }
    // Integers add up exactly. Observations of NaN count, but are in no bucket.
    let in_buckets: f64 =
        h.zero_count + h.positive_buckets.iter().sum::<f64>() + h.negative_buckets.iter().sum::<f64>();
    if h.is_integer && (in_buckets > h.count || (in_buckets < h.count && !h.sum.is_nan())) {
        return Err(format!("{in_buckets} observations in the buckets, but the count is {}", h.count));
    }
    Ok(())
}

fn check_side(side: &str, spans: &[Span], buckets: &[f64]) -> Result<(), String> {
    if spans.iter().skip(1).any(|span| span.offset < 0) {
        return Err(format!("a {side} span begins before the end of the one before"));
    }
    let spanned: u64 = spans.iter().map(|span| u64::from(span.length)).sum();
    if spanned != buckets.len() as u64 {
        return Err(format!("{side} spans of {spanned} buckets, but {} buckets", buckets.len()));
    }
    if buckets.iter().any(|count| count.is_nan() || *count < 0.0) {
        return Err(format!("a {side} bucket's count is negative or no number"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_beyond_a_limit_are_refused_and_the_limit_is_named() {
        let limits = Limits { labels: 3, label_name_bytes: 8, label_value_bytes: 4, series_bytes: 30 };
        let check = |pairs: &[(&str, &str)]| {
            check_labels(&Labels::from_pairs(pairs.iter().copied()).unwrap(), &limits)
                .map_err(|refusal| refusal.to_string())
        };
        assert_eq!(check(&[("__name__", "up"), ("a", "1234")]), Ok(()));
        assert_eq!(check(&[("a", "b")]), Err("the label __name__ is missing".to_owned()));
        assert_eq!(
            check(&[("__name__", "up"), ("a", "1"), ("b", "2"), ("c", "3")]),
            Err("4 labels, 3 are allowed".to_owned())
        );
        assert_eq!(
            check(&[("__name__", "up"), ("a", "12345")]),
            Err("value of label \"a\" is 5 bytes long, 4 are allowed".to_owned())
        );
        assert!(check(&[("__name__", "up"), ("a23456789", "1")]).is_err());
        assert!(check(&[("__name__", "1234"), ("a2345678", "1234"), ("b2345678", "1234")]).is_err());
    }

    #[test]
    fn histograms_that_contradict_themselves_are_refused() {
        let good = Histogram {
            is_integer: true,
            count: 3.0,
            zero_count: 1.0,
            positive_spans: vec![Span { offset: -3, length: 2 }],
            positive_buckets: vec![2.0, 0.0],
            ..Histogram::default()
        };
        assert_eq!(check_histogram(&good), Ok(()));
        let bad: [fn(&mut Histogram); 7] = [
            |h| h.schema = 9,
            |h| h.count = 2.0,
            |h| h.positive_buckets.push(1.0),
            |h| h.positive_buckets = vec![3.0, -1.0],
            |h| h.custom_values.push(1.0),
            |h| h.zero_threshold = f64::NAN,
            |h| h.schema = CUSTOM_BUCKETS_SCHEMA,
        ];
        for (case, change) in bad.iter().enumerate() {
            let mut histogram = good.clone();
            change(&mut histogram);
            assert!(check_histogram(&histogram).is_err(), "case {case}");
            histogram.sum = larum_storage_format::STALE_NAN;
            assert_eq!(check_histogram(&histogram), Ok(()), "case {case}, stale");
        }
    }
}
