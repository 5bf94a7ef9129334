//! Native histograms as test scripts write them: `schema:1 count:3 buckets:[1 2]`.

use super::histogram::compacted;
use super::number::parse_go_float;
use larum_storage_format::histogram::{CounterResetHint, Histogram, Span};
use std::fmt::{self, Write};

/// A histogram, and what was written about it.
#[derive(Debug, Clone, Default)]
pub(crate) struct HistogramText {
    /// The histogram.
    pub histogram: Histogram,
    /// Whether a counter reset hint was written.
    pub hint_given: bool,
}

impl HistogramText {
    /// Parses what stands between `{{` and `}}`. An error says at which byte it is.
    pub fn parse(text: &str) -> Result<HistogramText, (usize, String)> {
        let mut parsed = HistogramText::default();
        let mut seen: Vec<&str> = Vec::new();
        let (mut offset, mut n_offset) = (0, 0);
        let mut at = 0;
        loop {
            at += text[at..].len() - text[at..].trim_start().len();
            let rest = &text[at..];
            if rest.is_empty() {
                break;
            }
            let Some((key, value)) = rest.split_once(':') else {
                return Err((at, "missing `:` for histogram descriptor".to_owned()));
            };
            if seen.contains(&key) {
                return Err((at, format!("duplicate key {key:?} in histogram")));
            }
            seen.push(key);
            let len = if value.starts_with('[') {
                value.find(']').map(|close| close + 1)
            } else {
                Some(value.find(char::is_whitespace).unwrap_or(value.len()))
            };
            let Some(len) = len else { return Err((at, format!("{key} has no closing bracket"))) };
            let value = &value[..len];
            let bad = |what: &str| (at, format!("error parsing {key} {what}: {value:?}"));
            let float = || parse_signed(value).ok_or_else(|| bad("number"));
            let integer = || value.parse::<i32>().map_err(|_| bad("number"));
            let floats = || parse_list(value).ok_or_else(|| bad("float array"));
            let histogram = &mut parsed.histogram;
            match key {
                "schema" => histogram.schema = integer()?,
                "sum" => histogram.sum = float()?,
                "count" => histogram.count = float()?,
                "z_bucket" => histogram.zero_count = float()?,
                "z_bucket_w" => histogram.zero_threshold = float()?,
                "buckets" => histogram.positive_buckets = floats()?,
                "n_buckets" => histogram.negative_buckets = floats()?,
                "custom_values" => histogram.custom_values = floats()?,
                "offset" => offset = integer()?,
                "n_offset" => n_offset = integer()?,
                "counter_reset_hint" => {
                    parsed.hint_given = true;
                    histogram.counter_reset_hint = match value {
                        "unknown" => CounterResetHint::Unknown,
                        "reset" => CounterResetHint::CounterReset,
                        "not_reset" => CounterResetHint::NotCounterReset,
                        "gauge" => CounterResetHint::Gauge,
                        _ => return Err((at, format!("bad histogram descriptor found: {value:?}"))),
                    };
                }
                _ => return Err((at, format!("bad histogram descriptor found: {key:?}"))),
            }
            at += key.len() + 1 + len;
        }
        let histogram = &mut parsed.histogram;
        histogram.positive_spans = one_span(offset, histogram.positive_buckets.len());
        histogram.negative_spans = one_span(n_offset, histogram.negative_buckets.len());
        Ok(parsed)
    }
}

fn parse_signed(text: &str) -> Option<f64> {
    parse_go_float(text).ok()
}

/// `[1 2 3]`
fn parse_list(text: &str) -> Option<Vec<f64>> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    inner.split_whitespace().map(parse_signed).collect()
}

fn one_span(offset: i32, length: usize) -> Vec<Span> {
    if length == 0 { Vec::new() } else { vec![Span { offset, length: length as u32 }] }
}

/// Writes a histogram as scripts have it, braces included; what is 0 or empty is left out.
pub(crate) fn write_histogram(out: &mut impl Write, histogram: &Histogram) -> fmt::Result {
    let h = compacted(histogram);
    let hint = match h.counter_reset_hint {
        CounterResetHint::Unknown => "",
        CounterResetHint::CounterReset => "reset",
        CounterResetHint::NotCounterReset => "not_reset",
        CounterResetHint::Gauge => "gauge",
    };
    let (offset, buckets) = dense(&h.positive_spans, &h.positive_buckets);
    let (n_offset, n_buckets) = dense(&h.negative_spans, &h.negative_buckets);
    let mut parts = Vec::new();
    let mut part = |key: &str, value: &str| {
        if !matches!(value, "" | "0" | "[]") {
            parts.push(format!("{key}:{value}"));
        }
    };
    part("schema", &h.schema.to_string());
    part("count", &h.count.to_string());
    part("sum", &h.sum.to_string());
    part("z_bucket", &h.zero_count.to_string());
    part("z_bucket_w", &h.zero_threshold.to_string());
    part("counter_reset_hint", hint);
    part("custom_values", &list(&h.custom_values));
    part("offset", &offset.to_string());
    part("buckets", &buckets);
    part("n_offset", &n_offset.to_string());
    part("n_buckets", &n_buckets);
    write!(out, "{{{{{}}}}}", parts.join(" "))
}

/// The index of the first bucket and the counts from it on, gaps as zeros; a gap too wide to be written
/// that way as its width, `[1 ...+70000 2]`.
fn dense(spans: &[Span], buckets: &[f64]) -> (i32, String) {
    const WIDEST: i32 = 64;
    let mut counts = buckets.iter();
    let mut texts: Vec<String> = Vec::new();
    for (i, span) in spans.iter().enumerate() {
        match span.offset {
            _ if i == 0 => {}
            gap if gap > WIDEST => texts.push(format!("...+{gap}")),
            gap => texts.extend((0..gap).map(|_| "0".to_owned())),
        }
        texts.extend(counts.by_ref().take(span.length as usize).map(f64::to_string));
    }
    (spans.first().map_or(0, |span| span.offset), format!("[{}]", texts.join(" ")))
}

fn list(values: &[f64]) -> String {
    let texts: Vec<String> = values.iter().map(f64::to_string).collect();
    format!("[{}]", texts.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_are_read() {
        let text = "schema:1 sum:-0.3 count:3.1  z_bucket:7.1 z_bucket_w:0.05 buckets:[5.1 10 7 ] offset:-3 \
                    n_buckets:[4.1 5] n_offset:5 counter_reset_hint:gauge custom_values:[1 2] ";
        let HistogramText { histogram, hint_given } = HistogramText::parse(text).unwrap();
        let expected = Histogram {
            schema: 1,
            sum: -0.3,
            count: 3.1,
            zero_count: 7.1,
            zero_threshold: 0.05,
            positive_buckets: vec![5.1, 10.0, 7.0],
            positive_spans: vec![Span { offset: -3, length: 3 }],
            negative_buckets: vec![4.1, 5.0],
            negative_spans: vec![Span { offset: 5, length: 2 }],
            counter_reset_hint: CounterResetHint::Gauge,
            custom_values: vec![1.0, 2.0],
            ..Histogram::default()
        };
        assert_eq!(histogram, expected);
        assert!(hint_given);
        assert_eq!(HistogramText::parse("").unwrap().histogram, Histogram::default());
    }

    #[test]
    fn a_histogram_is_shown_as_it_is_written() {
        for text in [
            "",
            "schema:1 count:3.5 sum:-0.25 z_bucket:7 z_bucket_w:0.125 counter_reset_hint:gauge offset:-3 \
             buckets:[5 0 7] n_offset:5 n_buckets:[4]",
            "schema:-53 count:3 sum:2 custom_values:[1 2.5] buckets:[1 2]",
        ] {
            let mut shown = String::new();
            write_histogram(&mut shown, &HistogramText::parse(text).unwrap().histogram).unwrap();
            assert_eq!(shown, format!("{{{{{text}}}}}"));
        }
    }

    #[test]
    fn errors_name_the_key() {
        for (text, at, message) in [
            ("schema:1 schema:1", 9, "duplicate key \"schema\" in histogram"),
            ("foo:1", 0, "bad histogram descriptor found: \"foo\""),
            ("counter_reset_hint:foo", 0, "bad histogram descriptor found: \"foo\""),
            ("sum", 0, "missing `:` for histogram descriptor"),
            ("sum:x", 0, "error parsing sum number: \"x\""),
            ("buckets:[1 2", 0, "buckets has no closing bracket"),
        ] {
            assert_eq!(HistogramText::parse(text).unwrap_err(), (at, message.to_owned()));
        }
    }
}
