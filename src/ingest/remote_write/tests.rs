//! Requests as senders write them, and as nobody should.

use super::*;
use larum_storage_format::varint::put_uvarint;
use larum_storage_format::{CounterResetHint, Span};
use proptest::prelude::*;

/// Appends a length-delimited field.
fn put(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    put_uvarint(out, u64::from(number) << 3 | 2);
    put_uvarint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn label(name: &str, value: &str) -> Vec<u8> {
    let (mut inner, mut out) = (Vec::new(), Vec::new());
    put(&mut inner, 1, name.as_bytes());
    put(&mut inner, 2, value.as_bytes());
    put(&mut out, 1, &inner);
    out
}

fn sample(t_ms: i64, value: f64) -> Vec<u8> {
    let (mut inner, mut out) = (vec![0x09], Vec::new());
    inner.extend_from_slice(&value.to_le_bytes());
    inner.push(0x10);
    put_uvarint(&mut inner, t_ms as u64);
    put(&mut out, 2, &inner);
    out
}

fn series(fields: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, 1, &fields.concat());
    out
}

fn decoded(text: Vec<u8>) -> (Batch, Extras) {
    let mut batch = Batch::new();
    let extras = decode(text, &mut batch).expect("a valid request");
    (batch, extras)
}

#[test]
fn series_and_samples_come_out_as_sent() {
    let request = [
        series(&[label("__name__", "up"), label("job", "a"), sample(1000, 1.5), sample(-2, f64::NAN)]),
        series(&[label("job", ""), label("__name__", "b"), sample(i64::MIN, -0.0), sample(i64::MAX, 0.0)]),
    ];
    let (batch, _) = decoded(request.concat());
    assert_eq!(batch.series_count(), 2);
    assert_eq!(batch.parse_labels(0).unwrap().to_string(), r#"{__name__="up", job="a"}"#);
    assert_eq!(
        batch.parse_labels(1).unwrap().to_string(),
        r#"{__name__="b"}"#,
        "sorted, empty value dropped"
    );
    assert_eq!(batch.timestamps(), [1000, -2, i64::MIN, i64::MAX]);
    let bits: Vec<u64> = batch.values().iter().map(|v| v.to_bits()).collect();
    assert_eq!(bits, [1.5, f64::NAN, -0.0, 0.0].map(f64::to_bits));
    assert_eq!((batch.series_samples(0), batch.series_samples(1)), (0..2, 2..4));
}

#[test]
fn labels_in_pieces_give_the_same_set_as_labels_in_one_piece() {
    let unknown = vec![0x3a, 0x01, b'x'];
    let (a, b, s) = (label("__name__", "m"), label("z", "1"), sample(1, 1.0));
    let arrangements = [
        vec![a.clone(), b.clone(), s.clone()],
        vec![a.clone(), unknown.clone(), b.clone(), s.clone()],
        vec![unknown.clone(), a.clone(), s.clone(), b.clone(), unknown.clone()],
        vec![s, a, unknown, b],
    ];
    for fields in arrangements {
        let (batch, _) =
            decoded([series(&fields), series(&[label("__name__", "n"), sample(2, 2.0)])].concat());
        assert_eq!(batch.parse_labels(0).unwrap().to_string(), r#"{__name__="m", z="1"}"#);
        assert_eq!(batch.parse_labels(1).unwrap().to_string(), r#"{__name__="n"}"#);
        assert_eq!(batch.timestamps(), [1, 2]);
    }
}

#[test]
fn label_sets_that_are_none_are_refused_one_by_one() {
    let cases = [
        (vec![label("a", "1"), label("a", "2")], "duplicate label name \"a\""),
        (vec![label("", "1")], "a label has an empty name"),
        (vec![vec![0x0a, 0x05, 0x0a, 0x01, b'a', 0x12, 0x00], label("a", "")], "duplicate label name \"a\""),
        (
            vec![vec![0x0a, 0x06, 0x0a, 0x01, b'a', 0x12, 0x01, 0xff]],
            "label value of \"a\" is not valid UTF-8",
        ),
        (vec![vec![0x0a, 0x03, 0x0a, 0x01, 0xff]], "label name \"\u{fffd}\" is not valid UTF-8"),
        (vec![vec![0x0a, 0x02, 0x0a, 0x09]], "label bytes are not canonical at offset 2"),
    ];
    for (mut fields, expected) in cases {
        fields.push(sample(1, 1.0));
        let (batch, _) = decoded(series(&fields));
        assert_eq!(batch.parse_labels(0).unwrap_err().to_string(), expected);
    }
    let (batch, _) = decoded(series(&[sample(1, 1.0)]));
    assert!(batch.parse_labels(0).unwrap().is_empty());
}

#[test]
fn an_integer_histogram_gets_absolute_counts() {
    let mut h = vec![0x08, 10];
    h.push(0x19);
    h.extend_from_slice(&2.5f64.to_le_bytes());
    h.extend_from_slice(&[0x20, 3]); // schema -2
    h.extend_from_slice(&[0x30, 1]); // zero count
    put(&mut h, 11, &[0x08, 4, 0x10, 2]); // positive span: offset 2, length 2
    put(&mut h, 12, &[6, 1]); // deltas 3, -1
    h.extend_from_slice(&[0x70, 1, 0x78, 99]); // reset hint, timestamp
    let mut field = Vec::new();
    put(&mut field, 4, &h);
    let (batch, _) = decoded(series(&[label("__name__", "h"), sample(1, 1.0), field]));
    assert_eq!(batch.timestamps(), [1, 99]);
    let (index, histogram) = &batch.histograms()[0];
    assert_eq!(*index, 1);
    assert!(histogram.is_integer);
    assert_eq!(
        (histogram.count, histogram.sum, histogram.schema, histogram.zero_count),
        (10.0, 2.5, -2, 1.0)
    );
    assert_eq!(histogram.positive_spans, [Span { offset: 2, length: 2 }]);
    assert_eq!(histogram.positive_buckets, [3.0, 2.0]);
    assert_eq!(histogram.counter_reset_hint, CounterResetHint::CounterReset);
}

#[test]
fn a_float_histogram_keeps_its_counts() {
    let mut h = vec![0x11];
    h.extend_from_slice(&4.5f64.to_le_bytes());
    put(&mut h, 8, &[0x08, 1, 0x10, 1]); // negative span: offset -1, length 1
    put(&mut h, 10, &4.5f64.to_le_bytes());
    put(&mut h, 16, &[1.0f64.to_le_bytes(), 2.0f64.to_le_bytes()].concat());
    let mut field = Vec::new();
    put(&mut field, 4, &h);
    let (batch, _) = decoded(series(&[label("__name__", "h"), field]));
    let histogram = &batch.histograms()[0].1;
    assert!(!histogram.is_integer);
    assert_eq!(histogram.negative_spans, [Span { offset: -1, length: 1 }]);
    assert_eq!((histogram.count, &histogram.negative_buckets[..]), (4.5, &[4.5][..]));
    assert_eq!(histogram.custom_values, [1.0, 2.0]);
}

#[test]
fn metadata_is_kept_and_exemplars_are_counted() {
    let mut meta = vec![0x08, 1];
    put(&mut meta, 2, b"requests_total");
    put(&mut meta, 4, b"Requests.");
    let mut request = series(&[label("__name__", "a"), sample(1, 1.0), vec![0x1a, 0x00], vec![0x1a, 0x00]]);
    put(&mut request, 3, &meta);
    let (_, extras) = decoded(request);
    assert_eq!(extras.exemplars, 2);
    let expected = MetricMetadata {
        name: "requests_total".to_owned(),
        metric_type: MetricType::Counter,
        help: "Requests.".to_owned(),
        unit: String::new(),
    };
    assert_eq!(extras.metadata, [expected]);
}

#[test]
fn a_false_claim_is_refused_before_memory_is_touched() {
    let limits = BodyLimits::default();
    let claim = |n: u64| {
        let mut body = Vec::new();
        put_uvarint(&mut body, n);
        body.extend_from_slice(b"abc");
        claimed_len(&body, &limits).unwrap_err().to_string()
    };
    assert_eq!(
        claim(u64::from(u32::MAX)),
        "the decompressed body is 4294967295 bytes long, 134217728 are allowed"
    );
    assert_eq!(claim(128 << 20), "the body is no snappy block: 7 bytes cannot hold the 134217728 they claim");
    assert_eq!(claim(u64::MAX), "the body is no snappy block: no valid length at its start");
    assert!(claimed_len(&[], &limits).is_err());
}

#[test]
fn the_best_compressible_body_is_within_the_ratio() {
    let body = snap::raw::Encoder::new().compress_vec(&vec![0; 1 << 20]).unwrap();
    let mut text = vec![7; 10];
    decompress(&body, &BodyLimits::default(), &mut text).unwrap();
    assert_eq!(text, vec![0; 1 << 20]);
}

#[test]
fn garbage_names_the_offset_and_leaves_the_batch_empty() {
    let mut batch = Batch::new();
    let mut request = series(&[label("__name__", "a"), sample(1, 1.0)]);
    let at = request.len();
    request.extend_from_slice(&[0x0a, 0x7f, 0x00]);
    let error = decode(request, &mut batch).unwrap_err();
    assert_eq!(error, DecodeError::Protobuf { what: "a length beyond the end of its message", offset: at });
    assert!(batch.is_empty() && batch.series_count() == 0);
}

#[test]
fn a_body_of_empty_messages_does_not_multiply_in_memory() {
    let mut histograms = Vec::new();
    put(&mut histograms, 1, &[0x22, 0x00].repeat(2 << 20));
    let error = decode(histograms, &mut Batch::new()).unwrap_err();
    assert_eq!(error, DecodeError::TooDense { limit_bytes: MAX_MEMORY_BYTES });
}

proptest! {
    #[test]
    fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut batch = Batch::new();
        if decode(bytes.clone(), &mut batch).is_ok() {
            for i in 0..batch.series_count() {
                let _ = batch.parse_labels(i);
            }
        }
        let _ = decompress(&bytes, &BodyLimits::default(), &mut Vec::new());
        let _ = parse_labels(&bytes);
    }

    #[test]
    fn damaged_requests_decode_or_are_refused(at in 0usize..200, byte: u8, cut in 0usize..200) {
        let mut h = vec![0x08, 10, 0x70, 1, 0x78, 99];
        put(&mut h, 11, &[0x08, 4, 0x10, 2]);
        put(&mut h, 12, &[6, 1]);
        let mut histogram = Vec::new();
        put(&mut histogram, 4, &h);
        let fields = [label("__name__", "up"), label("job", "a"), sample(1000, 1.5), histogram];
        let mut request = series(&fields).repeat(2);
        if let Some(target) = request.get_mut(at) {
            *target = byte;
        }
        request.truncate(cut.max(1));
        let mut batch = Batch::new();
        if decode(request, &mut batch).is_ok() {
            for i in 0..batch.series_count() {
                let _ = batch.parse_labels(i);
                prop_assert!(batch.series_samples(i).end <= batch.len());
            }
        }
    }

    #[test]
    fn what_is_encoded_comes_back(
        all in proptest::collection::vec(
            (proptest::collection::btree_map("[a-z]{1,8}", "\\PC{1,20}", 1..8),
             proptest::collection::vec((any::<i64>(), any::<f64>()), 1..5)),
            0..6,
        )
    ) {
        let mut request = Vec::new();
        for (labels, samples) in &all {
            let mut fields: Vec<Vec<u8>> = labels.iter().rev().map(|(n, v)| label(n, v)).collect();
            fields.extend(samples.iter().map(|(t, v)| sample(*t, *v)));
            request.extend(series(&fields));
        }
        let (batch, _) = decoded(request);
        prop_assert_eq!(batch.series_count(), all.len());
        for (i, (labels, samples)) in all.iter().enumerate() {
            prop_assert_eq!(batch.parse_labels(i).unwrap(), Labels::from_pairs(labels).unwrap());
            for (at, (t, v)) in batch.series_samples(i).zip(samples) {
                prop_assert_eq!(batch.timestamps()[at], *t);
                prop_assert_eq!(batch.values()[at].to_bits(), v.to_bits());
            }
        }
    }
}
