//! What texts mean, what is wrong with them, and that any bytes are one or the other.

use super::*;
use proptest::prelude::*;

type Found = Vec<(String, i64, f64)>;

/// What a text holds, read in pieces of so many bytes; and how many exemplars.
fn read(text: &[u8], piece: usize, default_ms: Option<i64>) -> (Found, Result<u64, TextError>) {
    let (mut decoder, mut batch) = (Decoder::new(default_ms), Batch::new());
    let (mut found, mut rest) = (Found::new(), Vec::new());
    let mut collect = |batch: &Batch| {
        for series in 0..batch.series_count() {
            for at in batch.series_samples(series) {
                let labels = batch.parse_labels(series).map_or_else(|e| e.to_string(), |l| l.to_string());
                found.push((labels, batch.timestamps()[at], batch.values()[at]));
            }
        }
    };
    for bytes in text.chunks(piece.max(1)) {
        rest.extend_from_slice(bytes);
        let outcome = decoder.decode(rest, &mut batch);
        collect(&batch);
        match outcome {
            Ok(after) => rest = after,
            Err(error) => return (found, Err(error)),
        }
    }
    let outcome = decoder.finish(rest, &mut batch);
    collect(&batch);
    (found, outcome.map(|()| decoder.exemplars()))
}

const TEXT: &str = r#"# HELP requests Total.
# TYPE requests counter
requests_total{code="200",path="a\\b\"\n"} 1 1700000000
requests_total{code="200",path="a\\b\"\n"} 2.5 1700000015.25 # {trace="x"} 0.5
requests_total{code="500",} NaN 1700000000 # {} 1 1700000000.1

up -Inf -1
{"metric.name","label.x"="v", job = "j"} 3e2 5
{"only"} 1 5
# EOF
"#;

#[test]
fn a_text_is_read_in_pieces_of_any_length() {
    let series = |labels: &str| format!("{{__name__=\"requests_total\", code={labels}}}");
    let slash = series(r#""200", path="a\\b\"\n""#);
    let (found, outcome) = read(TEXT.as_bytes(), usize::MAX, None);
    assert_eq!(outcome, Ok(2));
    assert_eq!(found[0], (slash.clone(), 1_700_000_000_000, 1.0));
    assert_eq!(found[1], (slash, 1_700_000_015_250, 2.5));
    assert_eq!(found[2].0, series("\"500\""));
    assert!(found[2].2.is_nan());
    assert_eq!(found[3], ("{__name__=\"up\"}".to_owned(), -1000, f64::NEG_INFINITY));
    assert_eq!(found[4].0, r#"{__name__="metric.name", job="j", "label.x"="v"}"#);
    assert_eq!((found[4].2, found[5].0.as_str(), found.len()), (300.0, "{__name__=\"only\"}", 6));
    for piece in [1, 7, 64] {
        let (again, outcome) = read(TEXT.as_bytes(), piece, None);
        assert_eq!((format!("{again:?}"), outcome), (format!("{found:?}"), Ok(2)));
    }
    assert_eq!(read(b"up 1 5\r\n# EOF", 3, None), (vec![("{__name__=\"up\"}".to_owned(), 5000, 1.0)], Ok(0)));
}

#[test]
fn lines_count_the_same_if_whole_ones_are_left_for_the_end() {
    let outcome = Decoder::new(None).finish(b"up 1 5\n# more\n".to_vec(), &mut Batch::new());
    assert!(outcome.unwrap_err().to_string().starts_with("3:1: the text does not end"));
}

#[test]
fn what_is_wrong_is_told_with_line_and_column() {
    for (text, expected) in [
        ("", "1:1: the text does not end with \"# EOF\": it was cut short, or is not OpenMetrics"),
        ("up 1 5\n", "2:1: the text does not end with \"# EOF\": it was cut short, or is not OpenMetrics"),
        ("# EOF\n\nup 1 5\n", "3:1: text after \"# EOF\""),
        ("up 1\n# EOF\n", "1:5: the sample has no timestamp; say when such samples were taken (timestamp)"),
        ("a 1 5\nup one 5\n", "2:4: expected a value, found 'o'"),
        ("up 1 soon\n", "1:6: expected a timestamp in seconds, found 's'"),
        ("up 1 5 6\n", "1:8: expected the end of the line, found '6'"),
        ("up\n", "1:3: expected a space and a value, found the end of the line"),
        ("up \n", "1:4: expected a value, found the end of the line"),
        ("9up 1 5\n", "1:1: expected the name of a metric, found '9'"),
        ("up{a=\"b} 1 5\n", "1:6: the quote is not closed"),
        ("up{a=\"\\x\"} 1 5\n", "1:7: unknown escape; there are \\\\, \\\" and \\n"),
        ("up{a=b} 1 5\n", "1:6: expected a quote, found 'b'"),
        ("up{a=\"b\" c=\"d\"} 1 5\n", "1:10: expected \",\" or \"}\", found 'c'"),
        ("up{=\"b\"} 1 5\n", "1:4: expected the name of a label, found '='"),
        ("up{\"up\"} 1 5\n", "1:8: expected \"=\", found '}'"),
        ("{a=\"b\"} 1 5\n", "1:1: the series has no metric name"),
        ("up 1 5 # trace 1\n", "1:10: expected \"{\", found 't'"),
    ] {
        let (_, outcome) = read(text.as_bytes(), 5, None);
        assert_eq!(outcome.unwrap_err().to_string(), expected, "{text:?}");
    }
    let (_, outcome) = read(b"up 1 5\nup{a=\"\xff\"} 1 5\n", 100, None);
    assert_eq!(outcome.unwrap_err().to_string(), "2:7: this is not UTF-8");
}

#[test]
fn lines_before_the_wrong_one_are_kept() {
    let (found, outcome) = read(b"up 1 5\nup 2 6\nup\n", 100, None);
    assert!(outcome.is_err());
    assert_eq!(found.len(), 2);
}

#[test]
fn samples_without_a_time_get_the_one_that_is_given() {
    let (found, outcome) = read(b"a 1\nb 2 7\n# EOF\n", 4, Some(9));
    assert_eq!(outcome, Ok(0));
    assert_eq!(found.iter().map(|(_, t, _)| *t).collect::<Vec<_>>(), [9, 7000]);
}

#[test]
fn a_line_without_end_takes_no_more_memory_than_a_long_one() {
    let (mut decoder, mut batch) = (Decoder::default(), Batch::new());
    let mut rest = Vec::new();
    for _ in 0..3 {
        rest.resize(rest.len() + MAX_LINE_BYTES / 2, b'x');
        match decoder.decode(rest, &mut batch) {
            Ok(after) => rest = after,
            Err(error) => return assert!(error.what.contains("longer than 1048576 bytes"), "{error}"),
        }
    }
    panic!("it was not refused");
}

proptest! {
    #[test]
    fn any_bytes_are_samples_or_an_error(
        text in proptest::collection::vec(prop_oneof![
            Just(b"up".to_vec()), Just(b"{".to_vec()), Just(b"}".to_vec()), Just(b"a=\"".to_vec()), Just(b"\"".to_vec()),
            Just(b" 1".to_vec()), Just(b" 5\n".to_vec()), Just(b"\\".to_vec()), Just(b" # {} 1".to_vec()), Just(b",".to_vec()),
            Just("ü".as_bytes().to_vec()), proptest::collection::vec(any::<u8>(), 1..3), Just(b"# EOF\n".to_vec()),
        ], 0..40),
        piece in 1usize..50,
    ) {
        let text = text.concat();
        let (in_pieces, outcome) = read(&text, piece, Some(1));
        let (at_once, same) = read(&text, usize::MAX, Some(1));
        prop_assert_eq!(format!("{in_pieces:?}"), format!("{at_once:?}"));
        prop_assert_eq!(outcome, same);
    }
}
