//! The other way round: a batch as a request of remote write 1.0, for who sends to a server.

use crate::storage::Batch;
use larum_storage_format::varint::{put_uvarint, zigzag};
use larum_storage_format::{Histogram, LabelsError, Span};

/// The body of a request with what `batch` holds. A series whose labels are no label set is left out,
/// and `refuse` is told its place in the batch.
///
/// # Errors
/// The request is longer than a snappy block can be.
pub fn encode(batch: &Batch, refuse: &mut dyn FnMut(usize, LabelsError)) -> Result<Vec<u8>, snap::Error> {
    let (mut request, mut message, mut field) = (Vec::new(), Vec::new(), Vec::new());
    let mut histograms = batch.histograms().iter().peekable();
    for series in 0..batch.series_count() {
        let labels = batch.parse_labels(series);
        message.clear();
        for (name, value) in labels.iter().flatten() {
            field.clear();
            put_bytes(&mut field, 1, name.as_bytes());
            put_bytes(&mut field, 2, value.as_bytes());
            put_bytes(&mut message, super::LABELS, &field);
        }
        for sample in batch.series_samples(series) {
            let t_ms = batch.timestamps()[sample];
            field.clear();
            let histogram = histograms.next_if(|(at, _)| *at as usize == sample);
            let number = match histogram {
                Some((_, histogram)) => {
                    put_histogram(&mut field, histogram, t_ms);
                    super::HISTOGRAMS
                }
                None => {
                    put_double(&mut field, 1, batch.values()[sample]);
                    put_varint(&mut field, 2, t_ms as u64);
                    super::SAMPLES
                }
            };
            put_bytes(&mut message, number, &field);
        }
        match labels {
            Ok(_) => put_bytes(&mut request, super::TIMESERIES, &message),
            Err(error) => refuse(series, error),
        }
    }
    snap::raw::Encoder::new().compress_vec(&request)
}

// Field numbers of `Histogram` and `BucketSpan` in Prometheus' prompb/types.proto.
fn put_histogram(out: &mut Vec<u8>, h: &Histogram, t_ms: i64) {
    if h.is_integer {
        put_varint(out, 1, h.count as u64);
        put_varint(out, 6, h.zero_count as u64);
    } else {
        put_double(out, 2, h.count);
        put_double(out, 7, h.zero_count);
    }
    put_double(out, 3, h.sum);
    put_varint(out, 4, zigzag(h.schema.into()));
    put_double(out, 5, h.zero_threshold);
    for (spans, buckets, number) in
        [(&h.negative_spans, &h.negative_buckets, 8), (&h.positive_spans, &h.positive_buckets, 11)]
    {
        spans.iter().for_each(|span| put_span(out, number, span));
        if h.is_integer {
            put_deltas(out, number + 1, buckets);
        } else {
            put_doubles(out, number + 2, buckets);
        }
    }
    put_varint(out, 14, h.counter_reset_hint as u64);
    put_varint(out, 15, t_ms as u64);
    put_doubles(out, 16, &h.custom_values);
}

fn put_span(out: &mut Vec<u8>, number: u32, span: &Span) {
    let mut message = Vec::with_capacity(12);
    put_varint(&mut message, 1, zigzag(span.offset.into()));
    put_varint(&mut message, 2, span.length.into());
    put_bytes(out, number, &message);
}

fn put_deltas(out: &mut Vec<u8>, number: u32, counts: &[f64]) {
    let (mut packed, mut before) = (Vec::new(), 0);
    for &count in counts {
        put_uvarint(&mut packed, zigzag((count as i64).wrapping_sub(before)));
        before = count as i64;
    }
    put_packed(out, number, &packed);
}

fn put_doubles(out: &mut Vec<u8>, number: u32, values: &[f64]) {
    let packed: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    put_packed(out, number, &packed);
}

fn put_packed(out: &mut Vec<u8>, number: u32, packed: &[u8]) {
    if !packed.is_empty() {
        put_bytes(out, number, packed);
    }
}

fn put_key(out: &mut Vec<u8>, number: u32, wire_type: u32) {
    put_uvarint(out, (number << 3 | wire_type).into());
}

fn put_varint(out: &mut Vec<u8>, number: u32, value: u64) {
    put_key(out, number, 0);
    put_uvarint(out, value);
}

fn put_double(out: &mut Vec<u8>, number: u32, value: f64) {
    put_key(out, number, 1);
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_key(out, number, 2);
    put_uvarint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::remote_write::{BodyLimits, decode, decompress};
    use larum_storage_format::histogram::CUSTOM_BUCKETS_SCHEMA;
    use larum_storage_format::{CounterResetHint, Labels, STALE_NAN};
    use std::sync::Arc;

    #[test]
    fn what_is_encoded_is_decoded_as_it_was() {
        let histograms = [
            Histogram {
                is_integer: true,
                counter_reset_hint: CounterResetHint::NotCounterReset,
                schema: 3,
                zero_threshold: 1e-128,
                zero_count: 2.0,
                count: 15.0,
                sum: -4.5,
                positive_spans: vec![Span { offset: -2, length: 2 }, Span { offset: 5, length: 1 }],
                positive_buckets: vec![3.0, 1.0, 4.0],
                negative_spans: vec![Span { offset: 0, length: 1 }],
                negative_buckets: vec![5.0],
                ..Histogram::default()
            },
            Histogram {
                counter_reset_hint: CounterResetHint::Gauge,
                schema: CUSTOM_BUCKETS_SCHEMA,
                count: 1.5,
                sum: 2.25,
                positive_spans: vec![Span { offset: 0, length: 2 }],
                positive_buckets: vec![1.0, 0.5],
                custom_values: vec![0.1],
                ..Histogram::default()
            },
            Histogram { is_integer: true, sum: STALE_NAN, ..Histogram::default() },
        ];
        let labels = |job: &str| Labels::from_pairs([("__name__", "m"), ("job", job)]).unwrap();
        let mut batch = Batch::new();
        batch.push_series(&labels("floats"));
        for (t_ms, value) in [(-5, STALE_NAN), (i64::MAX, f64::INFINITY), (0, -0.0)] {
            batch.sample(t_ms, value);
        }
        batch.push_series(&labels("both"));
        batch.sample(1, 2.0);
        (2..).zip(&histograms).for_each(|(t_ms, h)| batch.histogram(t_ms, Arc::new(h.clone())));

        let body = encode(&batch, &mut |_, e| panic!("{e}")).unwrap();
        let (mut text, mut again) = (Vec::new(), Batch::new());
        decompress(&body, &BodyLimits::default(), &mut text).unwrap();
        decode(text, &mut again).unwrap();
        assert_eq!(again.timestamps(), batch.timestamps());
        let bits = |batch: &Batch| batch.values().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&again), bits(&batch));
        for series in 0..2 {
            assert_eq!(again.parse_labels(series), batch.parse_labels(series));
            assert_eq!(again.series_samples(series), batch.series_samples(series));
        }
        assert_eq!(again.histograms().len(), 3);
        for ((at, found), expected) in again.histograms().iter().zip(&histograms) {
            assert!(found.same_bits(expected), "{at}: {found:?}");
        }
    }

    #[test]
    fn counts_as_far_apart_as_can_be_are_encoded() {
        let mut out = Vec::new();
        put_deltas(&mut out, 12, &[f64::MIN, f64::MAX, f64::MIN]);
        assert!(!out.is_empty());
    }

    #[test]
    fn a_series_with_bad_labels_is_left_out_and_named() {
        let mut batch = Batch::with_parser(Labels::from_canonical_bytes, vec![1]);
        batch.begin_series(0..1);
        batch.sample(1, 1.0);
        batch.begin_series(0..0);
        batch.sample(2, 2.0);
        let mut refused = Vec::new();
        let body = encode(&batch, &mut |series, _| refused.push(series)).unwrap();
        let (mut text, mut again) = (Vec::new(), Batch::new());
        decompress(&body, &BodyLimits::default(), &mut text).unwrap();
        decode(text, &mut again).unwrap();
        assert_eq!((refused, again.timestamps()), (vec![0], &[2i64][..]));
    }
}
