//! Answers, byte for byte as Prometheus prints them.

use super::*;
use crate::promql::value::{FloatPoint, HistogramPoint, Series};
use larum_storage_format::Labels;
use std::sync::Arc;

/// The answer, written in pieces of these lengths.
fn written(value: Value, limit: Option<usize>, piece: usize) -> String {
    let mut text = AnswerText::new(value, 1_500, limit, b"}}".to_vec());
    let (mut all, mut more) = (Vec::new(), true);
    while more {
        let mut out = Vec::new();
        more = text.write(&mut out, piece);
        all.extend_from_slice(&out);
    }
    String::from_utf8(all).unwrap()
}

/// What it is as data, which it has to be in whatever pieces it is written.
fn shown(value: Value, limit: Option<usize>) -> String {
    let whole = written(value.clone(), limit, usize::MAX);
    for piece in [1, 5, 40, 200] {
        assert_eq!(written(value.clone(), limit, piece), whole);
    }
    let data = whole.strip_prefix(r#"{"status":"success","data":"#).and_then(|rest| rest.strip_suffix('}'));
    data.unwrap_or_else(|| panic!("{whole}")).to_owned()
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

#[test]
fn a_vector_is_printed_as_prometheus_does() {
    let element = |name: &str, t_ms, value| VectorElement {
        labels: labels(&[("__name__", "up"), ("job", name)]),
        t_ms,
        value: SampleValue::Float(value),
    };
    let vector = vec![element("a<\"b\"", 1_700_000_000_120, 1e-7), element("b", 1_700_000_000_000, f64::NAN)];
    let first = r#"{"metric":{"__name__":"up","job":"a<\"b\""},"value":[1700000000.120,"1e-07"]}"#;
    let second = r#"{"metric":{"__name__":"up","job":"b"},"value":[1700000000,"NaN"]}"#;
    assert_eq!(
        shown(Value::Vector(vector.clone()), None),
        format!(r#"{{"resultType":"vector","result":[{first},{second}]}}"#)
    );
    assert_eq!(
        shown(Value::Vector(vector), Some(1)),
        format!(r#"{{"resultType":"vector","result":[{first}]}}"#)
    );
    assert_eq!(shown(Value::Vector(vec![]), None), r#"{"resultType":"vector","result":[]}"#);
}

#[test]
fn a_matrix_and_a_scalar_are_printed_as_prometheus_does() {
    let floats = [(0, 0.5), (15_000, 1e21)].map(|(t_ms, value)| FloatPoint { t_ms, value });
    let series = Series { labels: labels(&[("a", "b")]), floats: floats.to_vec(), histograms: vec![] };
    assert_eq!(
        shown(Value::Matrix(vec![series]), None),
        r#"{"resultType":"matrix","result":[{"metric":{"a":"b"},"values":[[0,"0.5"],[15,"1e+21"]]}]}"#
    );
    assert_eq!(
        shown(Value::Scalar(FloatPoint { t_ms: 1_500, value: 1e21 }), None),
        r#"{"resultType":"scalar","result":[1.5,"1000000000000000000000"]}"#
    );
    assert_eq!(
        shown(Value::String("a<b".to_owned()), None),
        r#"{"resultType":"string","result":[1.5,"a\u003cb"]}"#
    );
}

#[test]
fn a_series_of_floats_and_histograms_is_the_same_in_whatever_pieces_it_is_written() {
    let histogram = Arc::new(Histogram { count: 2.0, sum: 5.0, zero_count: 2.0, ..Histogram::default() });
    let series = |name: &str, floats: i64, histograms: i64| Series {
        labels: labels(&[("a", name)]),
        floats: (0..floats).map(|i| FloatPoint { t_ms: i * 1_234, value: i as f64 / 3.0 }).collect(),
        histograms: (0..histograms)
            .map(|i| HistogramPoint { t_ms: i * 1_000, value: histogram.clone() })
            .collect(),
    };
    let all = vec![series("floats", 40, 0), series("none", 0, 0), series("both", 3, 9), series("last", 0, 2)];
    let whole: serde_json::Value = serde_json::from_str(&shown(Value::Matrix(all), None)).unwrap();
    let length = |index: usize, list: &str| whole["result"][index][list].as_array().map(Vec::len);
    let lengths = [0, 1, 2, 3].map(|index| (length(index, "values"), length(index, "histograms")));
    assert_eq!(lengths, [(Some(40), None), (None, None), (Some(3), Some(9)), (None, Some(2))]);
}

#[test]
fn a_histogram_shows_its_buckets_from_low_to_high() {
    let histogram = Histogram {
        count: 12.0,
        sum: 18.4,
        schema: 1,
        zero_threshold: 0.001,
        zero_count: 2.0,
        positive_spans: vec![Span { offset: 0, length: 2 }, Span { offset: 1, length: 1 }],
        positive_buckets: vec![2.0, 1.0, 0.0],
        negative_spans: vec![Span { offset: 0, length: 1 }],
        negative_buckets: vec![4.0],
        ..Histogram::default()
    };
    let element = VectorElement {
        labels: Labels::empty(),
        t_ms: 0,
        value: SampleValue::Histogram(Arc::new(histogram)),
    };
    let buckets = concat!(
        r#"[[1,"-1","-0.7071067811865475","4"],[3,"-0.001","0.001","2"],"#,
        r#"[0,"0.7071067811865475","1","2"],[0,"1","1.414213562373095","1"]]"#
    );
    let text = shown(Value::Vector(vec![element]), None);
    // The last digits of a power of two with a fraction are the mathematics library's own.
    let text = text
        .replace("0.7071067811865476", "0.7071067811865475")
        .replace("1.4142135623730951", "1.414213562373095");
    assert_eq!(
        text,
        format!(
            r#"{{"resultType":"vector","result":[{{"metric":{{}},"histogram":[0,{{"count":"12","sum":"18.4","buckets":{buckets}}}]}}]}}"#
        )
    );
}

#[test]
fn bounds_follow_the_schema() {
    let bounds = |schema, custom: &[f64], indexes: &[i64]| {
        let h = Histogram { schema, custom_values: custom.to_vec(), ..Histogram::default() };
        indexes.iter().map(|&i| bound(&h, i)).collect::<Vec<_>>()
    };
    assert_eq!(bounds(0, &[], &[-1, 0, 1, 1023, 1024]), [0.5, 1.0, 2.0, 1023f64.exp2(), f64::MAX]);
    assert_eq!(bounds(-2, &[], &[0, 1, -1]), [1.0, 16.0, 0.0625]);
    assert_eq!(bounds(2, &[], &[4, -4]), [2.0, 0.5]);
    assert_eq!(
        bounds(CUSTOM_BUCKETS_SCHEMA, &[0.5, 3.0], &[-1, 0, 1, 2]),
        [f64::NEG_INFINITY, 0.5, 3.0, f64::INFINITY]
    );
}
