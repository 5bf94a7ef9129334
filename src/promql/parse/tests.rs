//! What parses to what, and what is said about what does not.

use super::*;
use crate::promql::ast::{BinaryOp, MatrixSelector};
use proptest::prelude::*;
use series::{SequenceValue, parse_series};

/// Queries and what Prometheus says about them, `LINE:COLUMN: parse error: ` left out where it is
/// `1:COLUMN`.
const ERRORS: &[(&str, &str)] = &include!("errors.in");

#[test]
fn errors_are_those_of_prometheus() {
    for (query, expected) in ERRORS {
        let error = match parse(query) {
            Ok(expr) => panic!("{query:?} parses to {expr}"),
            Err(error) => error,
        };
        assert_eq!(format!("{}: {}", error.column, error.message), *expected, "{query:?}");
    }
}

/// What Prometheus 3.14 refuses without features, and the feature that each needs.
const GATED: &[(&str, &str, &str)] = &[
    ("1 + info(up)", "5: function \"info\" is not enabled", "promql-experimental-functions"),
    (
        "abs(sort_by_label(up, 'a'))",
        "5: function \"sort_by_label\" is not enabled",
        "promql-experimental-functions",
    ),
    ("start()", "1: function \"start\" is not enabled", "promql-experimental-functions"),
    ("max_of(1, 2)", "1: function \"max_of\" is not enabled", "promql-experimental-functions"),
    (
        "start_timestamp(up)",
        "1: function \"start_timestamp\" is not enabled",
        "promql-experimental-functions",
    ),
    ("sum(limitk(1, up))", "5: limitk() is experimental and not enabled", "promql-experimental-functions"),
    (
        "limit_ratio(1, up)",
        "1: limit_ratio() is experimental and not enabled",
        "promql-experimental-functions",
    ),
    (
        "1 * a + fill(0) b",
        "1: binop fill modifiers are experimental and not enabled",
        "promql-binop-fill-modifiers",
    ),
    (
        "a + on (x) group_left fill_right(0) b",
        "1: binop fill modifiers are experimental and not enabled",
        "promql-binop-fill-modifiers",
    ),
    (
        "rate(a[5m] anchored)",
        "6: anchored modifier is experimental and not enabled",
        "promql-extended-range-selectors",
    ),
    ("a smoothed", "1: smoothed modifier is experimental and not enabled", "promql-extended-range-selectors"),
];

#[test]
fn what_stock_prometheus_refuses_is_refused_if_that_is_asked_for() {
    for (query, complaint, feature) in GATED {
        assert!(parse(query).is_ok(), "{query}");
        let error = parse_with(query, Syntax::strict(|_| false)).unwrap_err();
        let suffix = format!(" (--query.strict-prometheus is set, without --enable-feature={feature})");
        assert_eq!(format!("{}: {}", error.column, error.message), format!("{complaint}{suffix}"), "{query}");
        assert!(parse_with(query, Syntax::strict(|name| name == *feature)).is_ok(), "{query}");
        assert!(parse_with(query, Syntax::strict(|name| name != *feature)).is_err(), "{query}");
    }
    for query in [
        "a[1m + step()] offset (2 * max_of(1m, range()))",
        "first_over_time(a[5m])",
        "h </ 2",
        "{'utf.8', \"a b\"='c'}",
        "anchored + smoothed + fill + limitk",
        "1_000 + 1h30m",
    ] {
        assert!(parse_with(query, Syntax::strict(|_| false)).is_ok(), "{query}");
    }
    let experimental = crate::promql::functions::FUNCTIONS.iter().filter(|f| f.experimental).count();
    assert_eq!((experimental, crate::promql::functions::FUNCTIONS.len()), (17, 90));
}

#[test]
fn an_error_is_told_with_its_line_and_column() {
    assert_eq!(parse("up +\n  rate(up)").unwrap_err().to_string().split(": ").next(), Some("2:8"));
    assert_eq!(
        parse("# nothing\n").unwrap_err().to_string(),
        "unknown position: parse error: no expression found in input"
    );
}

fn at(query: &str, pos: Pos) -> &str {
    &query[pos.start as usize..pos.end as usize]
}

#[test]
fn every_node_knows_its_text() {
    let query = "-sum by (a) (rate(x{b='c'}[5m] offset 1m)) + on (a) (y @ 3)";
    let expr = parse(query).unwrap();
    assert_eq!(at(query, expr.pos), query);
    let ExprKind::Binary(binary) = expr.kind else { panic!("no binary expression") };
    assert_eq!(at(query, binary.op_pos), "+");
    assert_eq!(at(query, binary.lhs.pos), "-sum by (a) (rate(x{b='c'}[5m] offset 1m))");
    assert_eq!(at(query, binary.rhs.pos), "(y @ 3)");
    let ExprKind::Unary(_, sum) = binary.lhs.kind else { panic!("no sign") };
    let ExprKind::Aggregate(sum) = sum.kind else { panic!("no aggregation") };
    assert_eq!(at(query, sum.expr.pos), "rate(x{b='c'}[5m] offset 1m)");
    let ExprKind::Call(rate) = sum.expr.kind else { panic!("no call") };
    assert_eq!(at(query, rate.args[0].pos), "x{b='c'}[5m] offset 1m");
    let ExprKind::MatrixSelector(MatrixSelector { selector_pos, range, .. }) = &rate.args[0].kind else {
        panic!("no range")
    };
    assert_eq!(at(query, *selector_pos), "x{b='c'}");
    assert_eq!(at(query, range.pos), "5m");
}

/// Where the tree branches becomes visible in parentheses.
fn shape(expr: &Expr) -> String {
    match &expr.kind {
        ExprKind::Binary(binary) => {
            format!("({} {} {})", shape(&binary.lhs), binary.op.symbol(), shape(&binary.rhs))
        }
        ExprKind::Unary(_, inner) => format!("[-{}]", shape(inner)),
        ExprKind::Paren(inner) => shape(inner),
        _ => expr.to_string(),
    }
}

#[test]
fn operators_bind_as_in_prometheus() {
    for (query, expected) in [
        ("a + b * c ^ d ^ e", "(a + (b * (c ^ (d ^ e))))"),
        ("a * b % c atan2 d / e", "((((a * b) % c) atan2 d) / e)"),
        ("a + b == c - d", "((a + b) == (c - d))"),
        ("a == b > c </ d", "(((a == b) > c) </ d)"),
        ("a or b and c unless d or e", "((a or ((b and c) unless d)) or e)"),
        ("-a ^ b", "[-(a ^ b)]"),
        ("-a * b", "([-a] * b)"),
        ("a ^ -b * c", "((a ^ [-b]) * c)"),
        ("a * -b ^ c ^ d", "(a * [-(b ^ (c ^ d))])"),
        ("1 ^ -2", "(1 ^ -2)"),
        ("-1 ^ 2", "[-(1 ^ 2)]"),
        ("a + -b offset 5m * c", "(a + ([-b offset 5m] * c))"),
        ("a offset 2 ^ 2", "(a offset 2s ^ 2)"),
        ("a offset step() * 2", "(a offset step() * 2)"),
        ("a offset (step() * 2) + 1", "a offset (step() * 2) + 1"),
        ("a[-2 ^ 2 + 5]", "a[-2 ^ 2 + 5]"),
    ] {
        assert_eq!(shape(&parse(query).unwrap()), expected, "{query}");
    }
}

#[test]
fn numbers_are_read_in_all_notations() {
    for (query, expected) in [
        ("0x1f", 31.0),
        ("0X_1F", 31.0),
        ("0xee", 238.0),
        ("017", 15.0),
        ("08", 8.0),
        ("1_000", 1000.0),
        ("5.", 5.0),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("1E-3", 0.001),
        ("-1h30m", -5400.0),
        ("1y", 31_536_000.0),
        ("1ms", 0.001),
        ("iNf", f64::INFINITY),
        ("99999999999999999999", 1e20),
    ] {
        let ExprKind::Number { value, .. } = parse(query).unwrap().kind else { panic!("{query}") };
        assert_eq!(value, expected, "{query}");
    }
}

#[test]
fn strings_have_three_forms_and_the_escapes_of_go() {
    for (query, expected) in [
        (r#""a\"b\t\x41\101\u00e9\U0001F600""#, "a\"b\tAA\u{e9}\u{1f600}"),
        (r#"'it\'s "so"'"#, "it's \"so\""),
        (r"`\d+\`", r"\d+\"),
        (r#""\xc3\xa9""#, "\u{e9}"),
    ] {
        let ExprKind::String(text) = parse(query).unwrap().kind else { panic!("{query}") };
        assert_eq!(text, expected, "{query}");
    }
    // What is no UTF-8 keeps its notation.
    assert_eq!(parse(r#""a\xff\377\u00e9""#).unwrap().to_string(), r#""a\xff\xffé""#);
    assert_eq!(parse(r#"{a="b\xff"}"#).unwrap().to_string(), "{a=\"b\u{fffd}\"}");
}

#[test]
fn words_of_the_language_may_be_names() {
    for query in [
        "sum",
        "avg{by='x'}",
        "offset",
        "by",
        "without",
        "and",
        "start",
        "end + step",
        "range",
        "anchored",
        "smoothed{a='b'} smoothed",
        "fill + fill(0) fill_left",
        "min_of",
        "max_of{}",
        "sum by (on, bool, group_left, offset, atan2, start, fill) (x)",
        "inf_total",
        "Sum",
        "a unless on (unless) b",
        "x{on='1', and='2', nan='3', sum='4'}",
        "a:b:c",
        ":a",
    ] {
        parse(query).unwrap_or_else(|error| panic!("{query}: {error}"));
    }
}

#[test]
fn selectors_without_modifiers_are_read_alone() {
    let shown = |text: &str| parse_matchers(text).map(|m| format!("{m:?}")).map_err(|e| e.to_string());
    assert_eq!(shown(r#"up{a="b"}"#).unwrap(), r#"[a="b", __name__="up"]"#);
    assert_eq!(shown(r#"{"m.n", 'x y'!="z"}"#).unwrap(), r#"[__name__="m.n", "x y"!="z"]"#);
    assert_eq!(shown("{}").unwrap(), "[]");
    assert_eq!(shown("up offset 5m").unwrap_err(), "1:4: parse error: unexpected <offset>");
    assert_eq!(shown("1").unwrap_err(), "1:1: parse error: unexpected number \"1\"");
    assert_eq!(parse_metric("a{b='c',}").unwrap().to_string(), r#"{__name__="a", b="c"}"#);
    assert_eq!(
        parse_metric("a{b!='c'}").unwrap_err().to_string(),
        "1:4: parse error: unexpected <op:!=> in label set, expected \"=\""
    );
}

#[test]
fn a_query_nested_ever_so_deeply_is_an_error() {
    let deep = |before: &str, after: &str, n: usize| format!("{}1{}", before.repeat(n), after.repeat(n));
    for query in [
        deep("(", ")", 100_000),
        deep("-", "", 100_000),
        deep("", "+1", 100_000),
        deep("", "^1", 100_000),
        deep("abs(", ")", 100_000),
        deep("sum(", ")", 100_000),
        deep("a or (", ")", 100_000),
        deep("a[", "]", 100_000),
        format!("a{}", "[1m:]".repeat(100_000)),
        format!("a[{}1{}]", "(".repeat(100_000), ")".repeat(100_000)),
        format!("a[{}1]", "-".repeat(100_000)),
        format!("a offset (1{})", "+1".repeat(100_000)),
        format!("({}", "-{}-1".repeat(100_000)),
        "(".repeat(100_000),
        "a{".repeat(100_000),
    ] {
        assert!(parse(&query).is_err());
    }
    assert!(parse(&deep("(", ")", MAX_DEPTH - 1)).is_ok());
    assert!(parse(&deep("", "+1", MAX_DEPTH - 1)).is_ok());
    assert!(parse(&deep("", "+1", MAX_DEPTH)).is_err());
    let long = format!("\"{}\"", "x".repeat(MAX_QUERY_BYTES));
    assert!(parse(&long).unwrap_err().message.contains("at most 1048576"));
}

#[test]
fn the_longest_queries_are_refused_in_no_time() {
    let started = std::time::Instant::now();
    let full = |part: &str| part.repeat((MAX_QUERY_BYTES - 100) / part.len());
    for query in [
        format!("abs({}1)", full("{},")),
        format!("abs({}1)", full("1,")),
        format!(
            "a + on ({}) group_left ({}) b",
            full("a,").split_at(500_000).0,
            full("b,").split_at(500_000).0
        ),
        format!("a{{{}}}", full("a='b',")),
        full("fill "),
        full("a[5m "),
        full("\n"),
        full("-"),
    ] {
        let _ = parse(&query);
    }
    // Anything quadratic takes minutes.
    assert!(started.elapsed() < std::time::Duration::from_secs(20));
}

fn values(text: &str) -> String {
    let described = parse_series(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let values: Vec<String> = described
        .values
        .iter()
        .map(|value| match value {
            SequenceValue::Omitted => "_".to_owned(),
            SequenceValue::Float(v) if larum_storage_format::sample::is_stale(*v) => "stale".to_owned(),
            SequenceValue::Float(v) => v.to_string(),
            SequenceValue::Histogram { value, .. } => format!("h{}", value.sum),
        })
        .collect();
    format!("{} {}", described.labels, values.join(" "))
}

#[test]
fn series_descriptions_stand_for_values() {
    for (text, expected) in [
        ("{} 1 2 3", "{} 1 2 3"),
        ("m{a=\"b\"} 1 -1 +5 Inf -inf NaN", "{__name__=\"m\", a=\"b\"} 1 -1 5 inf -inf NaN"),
        ("m 3-10x4 1e-1x1", "{__name__=\"m\"} 3 -7 -17 -27 -37 0.1 0.1"),
        ("m _ 5 _x4 stale 0x2  ", "{__name__=\"m\"} _ 5 _ _ _ _ stale 0 0 0"),
        ("m {{sum:1}}+{{sum:2}}x2 {{}}x1", "{__name__=\"m\"} h1 h3 h5 h0 h0"),
        ("m{} {{ }}", "{__name__=\"m\"} h0"),
        ("sum -0x0", "{__name__=\"sum\"} -0"),
        ("{\"m.x\", 'a}b'='}'} 1", "{__name__=\"m.x\", \"a}b\"=\"}\"} 1"),
        ("m", "{__name__=\"m\"} "),
    ] {
        assert_eq!(values(text), expected, "{text}");
    }
    for text in [
        "{} 1+1",
        "m 1 _a4",
        "m -3-3 -3",
        "m -3 _-2",
        "m 3+3x4-4",
        "m x3",
        "m 1x",
        "m foo",
        "m 1x99999999",
        "m {{sum:1}",
        "m {{foo:1}}",
        "m {{sum:1}}+{{sum:1}}",
        "m {{schema:1}}+{{schema:0}}x2",
        "m{a!='b'} 1",
        "m{a='b' 1",
    ] {
        assert!(parse_series(text).is_err(), "{text}");
    }
}

#[test]
fn every_query_of_the_acceptance_scripts_parses_and_prints() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/promqltest");
    let Ok(files) = std::fs::read_dir(&folder) else {
        eprintln!("SKIPPED: {} is absent", folder.display());
        return;
    };
    let mut queries = 0;
    for file in files.flatten().filter(|file| file.path().extension().is_some_and(|e| e == "test")) {
        let text = std::fs::read_to_string(file.path()).unwrap();
        for line in text.lines().map(str::trim).filter(|line| line.starts_with("eval")) {
            let query = crate::promql::testlang::query_of(line).unwrap_or_else(|| panic!("{line}"));
            queries += 1;
            let expr = parse(query).unwrap_or_else(|error| panic!("{query}: {error}"));
            let printed = expr.to_string();
            let again = parse(&printed).unwrap_or_else(|error| panic!("{query} -> {printed}: {error}"));
            assert_eq!(again.to_string(), printed, "{query}");
        }
    }
    assert_eq!(queries, 1_886);
}

proptest! {
    #[test]
    fn any_text_parses_or_is_an_error(text in "\\PC*", words in proptest::collection::vec(
        prop::sample::select(vec![
            "(", ")", "[", "]", "{", "}", ",", ":", "=", "=~", "!~", "\"a\"", "'", "`", "\\", "5m", "1", "0x",
            "e", ".", "_", "foo", "sum", "by", "on", "offset", "@", "-", "+", "*", "^", "</", "step", "min_of",
            "start", "bool", "group_left", "fill", "#", "\n", "anchored", "and", "rate", " ",
        ]), 0..40))
    {
        for query in [text, words.concat(), words.join(" ")] {
            if let Ok(expr) = parse(&query) {
                prop_assert!(parse(&expr.to_string()).is_ok());
            }
            let _ = parse_series(&query);
            let _ = parse_matchers(&query);
            let _ = parse_metric(&query);
        }
    }
}

#[test]
fn set_operators_are_many_to_many_and_scalars_match_nothing() {
    let matching = |query: &str| match parse(query).unwrap().kind {
        ExprKind::Binary(binary) => (binary.op, binary.matching),
        _ => panic!("no binary expression"),
    };
    let (op, and) = matching("a and on (x) b");
    assert_eq!(op, BinaryOp::And);
    assert_eq!(and.unwrap().card, crate::promql::ast::Cardinality::ManyToMany);
    assert_eq!(matching("a + 1").1, None);
}
