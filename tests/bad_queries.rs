//! Queries, times and samples that nobody means well: each is answered or refused, in bounded time and
//! memory, and none ends the process.

use larum::promql::ast::{AggregateOp, ValueType};
use larum::promql::functions::FUNCTIONS;
use larum::promql::parse::MAX_QUERY_BYTES;
use larum::promql::testlang::Memory;
use larum::promql::{Answer, EvalOptions, Steps, evaluate, parse};
use larum::storage::Timestamp;
use larum_storage_format::histogram::{CUSTOM_BUCKETS_SCHEMA, Span};
use larum_storage_format::{Histogram, Labels, Sample, Value};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

const MINUTE_MS: i64 = 60_000;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

fn float(timestamp_ms: i64, value: f64) -> Sample {
    Sample { timestamp_ms, start_timestamp_ms: None, value: Value::Float(value) }
}

fn instant(ms: i64) -> Steps {
    Steps::instant(Timestamp::from_millis(ms))
}

/// Asks as a server does, but may take a minute (a debug build beside others), and hold few samples.
fn ask(memory: &Memory, query: &str, steps: Steps) -> Result<Answer, String> {
    let deadline = Some(Instant::now() + Duration::from_secs(60));
    let options = EvalOptions { deadline, max_samples: 100_000, ..EvalOptions::default() };
    let expr = parse(query).map_err(|error| error.to_string())?;
    evaluate(&expr, memory, steps, &options).map_err(|error| error.to_string())
}

/// Asks what may be answered or refused, but must not panic; what did is added to `faults`.
fn survive(faults: &mut BTreeSet<String>, memory: &Memory, query: &str, steps: Steps) {
    if catch_unwind(AssertUnwindSafe(|| drop(ask(memory, query, steps)))).is_err() {
        let shown: String = query.chars().take(60).collect();
        faults.insert(format!("{shown} ({steps:?})"));
    }
}

/// Why a query is refused.
fn refused(memory: &Memory, query: &str, steps: Steps) -> String {
    let shown: String = query.chars().take(100).collect();
    match ask(memory, query, steps) {
        Ok(_) => panic!("{shown} is answered"),
        Err(error) => error,
    }
}

fn one_series() -> Memory {
    let mut memory = Memory::default();
    for minute in 0..10 {
        memory.insert(&labels(&[("__name__", "m"), ("a", "x")]), float(minute * MINUTE_MS, minute as f64));
    }
    memory
}

#[test]
fn durations_that_make_no_sense_are_refused() {
    let memory = one_series();
    for (query, reason) in [
        ("m[1h / 0]", "1:6: parse error: division by zero"),
        ("m[1h % 0s]", "1:6: parse error: modulo by zero"),
        ("m[1h / (0)]", "1:6: parse error: division by zero"),
        ("m[1h / (5m - 5m)]", "division by zero"),
        ("m offset (1h % (5m - 300))", "modulo by zero"),
        // An instant query has no step.
        ("m[1h / step()]", "division by zero"),
        ("m[step()]", "duration must be greater than 0"),
        ("m[1m - 1h]", "duration must be greater than 0"),
        ("m[0]", "1:3: parse error: duration must be greater than 0"),
        ("m[-1s]", "1:3: parse error: duration must be greater than 0"),
        ("m[0.000000001]", "duration must be greater than 0"),
        ("m[1h:0.000000001]", "duration must be greater than 0"),
        ("m[1h:0.0004]", "duration must be greater than 0"),
        ("m[293y]", "1:3: parse error: duration out of range"),
        ("m[1e30]", "1:3: parse error: duration out of range"),
        ("m[Inf]", "1:3: parse error: unexpected character in duration expression: 'I'"),
        ("m[NaN]", "1:3: parse error: unexpected character in duration expression: 'N'"),
        ("m[99999999999999999999]", "1:3: parse error: duration out of range"),
        ("m offset 293y", "1:10: parse error: duration out of range"),
        ("m offset -1e30", "1:11: parse error: duration out of range"),
        ("m[292y + 292y]", "duration is out of range"),
        ("m[2 ^ 1000]", "duration is out of range"),
        ("m[10 ^ 308 * 10 - 10 ^ 308 * 10]", "duration is out of range"),
        ("m offset (292y * 292y)", "duration is out of range"),
        ("m @ Inf", "1:1: parse error: timestamp out of bounds for @ modifier: +Inf"),
        ("m @ -Inf", "1:1: parse error: timestamp out of bounds for @ modifier: -Inf"),
        ("m @ NaN", "1:1: parse error: timestamp out of bounds for @ modifier: NaN"),
        (
            "m @ 9223372036854775.808",
            "1:1: parse error: timestamp out of bounds for @ modifier: 9223372036854775.000000",
        ),
    ] {
        let error = refused(&memory, query, instant(5 * MINUTE_MS));
        assert!(error == reason || error.starts_with("1:1: parse error: timestamp out"), "{query}: {error}");
    }
    assert!(
        Steps::new(Timestamp::from_millis(0), Timestamp::from_millis(1), Duration::from_nanos(1)).is_err()
    );
}

#[test]
fn times_at_the_ends_of_time_are_times() {
    let mut faults = BTreeSet::new();
    let mut memory = one_series();
    for end in [i64::MIN, i64::MIN + 1, i64::MAX - 1, i64::MAX] {
        memory.insert(&labels(&[("__name__", "m"), ("a", "end")]), float(end, 1.0));
    }
    let queries = [
        "m",
        "m smoothed",
        "rate(m[292y])",
        "rate(m[292y] smoothed)",
        "increase(m[292y] anchored)",
        "max_over_time(m[292y:291y])",
        "sum_over_time(m[1h:1m])",
        "m offset 292y",
        "m offset -292y",
        "m[5m] offset -292y",
        "m[292y] smoothed",
        "m @ 9223372036854774",
        "m @ -9223372036854774 offset 292y",
        "rate(m[292y] @ 9223372036854774 offset -292y)",
        "max_over_time(m[292y:1y] @ 9223372036854774 offset -292y)",
        "timestamp(m)",
        "time() + minute() + day_of_year() + days_in_month()",
        "predict_linear(m[292y], 1e300)",
        "deriv(m[292y])",
        "absent_over_time(m[292y])",
        "ts_of_last_over_time(m[292y])",
        "vector(1)",
        "m @ start() - m @ end()",
        "m[range() + 1] offset (0 - range())",
    ];
    let at = Timestamp::from_millis;
    for query in queries {
        for ms in [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX - 1, i64::MAX] {
            survive(&mut faults, &memory, query, instant(ms));
        }
        for (start, end) in
            [(i64::MIN, i64::MAX), (i64::MIN, i64::MIN + 5), (i64::MAX - 5, i64::MAX), (-1, 1)]
        {
            for step in [1, MINUTE_MS as u64, i64::MAX as u64] {
                let _ =
                    ask(&memory, query, Steps::new(at(start), at(end), Duration::from_millis(step)).unwrap());
            }
        }
    }
    // The most steps there can be are too many to begin with.
    let steps = Steps::new(at(i64::MIN), at(i64::MAX), Duration::from_millis(1)).unwrap();
    assert!(refused(&memory, "1", steps).contains("too many samples"));
    assert!(refused(&memory, "max_over_time(m[292y:0.001])", instant(0)).contains("too many samples"));
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn everything_over_years_is_refused_if_it_is_too_much() {
    const YEAR_MS: i64 = 365 * 24 * 60 * MINUTE_MS;
    let mut memory = Memory::default();
    for series in 0..200 {
        let name = format!("metric_{}", series % 40);
        let labels = labels(&[("__name__", &name), ("n", &series.to_string())]);
        for i in 0..1_000 {
            memory.insert(&labels, float(i * (10 * YEAR_MS / 1_000), i as f64));
        }
    }
    let now = 10 * YEAR_MS;
    let at = Timestamp::from_millis;
    let range = Steps::new(at(0), at(now), Duration::from_secs(24 * 3600)).unwrap();
    for everything in ["{__name__=~\".+\"}", "{__name__!=\"\"}", "{n!~\"x.*\",__name__=~\".*\",n=~\".+\"}"] {
        for (query, steps) in [
            (format!("{everything}[10y]"), instant(now)),
            (format!("sort(last_over_time({everything}[2d]))"), range),
            (format!("max_over_time({everything}[10y:1m])"), instant(now)),
        ] {
            assert!(refused(&memory, &query, steps).contains("too many samples"), "{query}");
        }
        // What is looked at and let go again is not held.
        let counted = ask(&memory, &format!("count(count_over_time({everything}[10y]))"), instant(now));
        assert!(matches!(counted.unwrap().value, larum::promql::Value::Vector(vector) if vector.len() == 1));
    }
}

#[test]
fn a_megabyte_of_query_is_answered_or_refused_soon() {
    let mut faults = BTreeSet::new();
    let memory = one_series();
    let started = Instant::now();
    let full = |part: &str, room: usize| part.repeat((MAX_QUERY_BYTES - room) / part.len());
    for query in [
        format!("m{{a=\"{}\"}}", full("x", 100)),
        format!("m{{{}}}", full("a=~\"x.*\",", 100)),
        format!("m{{a=~\"{}x\"}}", full("abcdefg|", 100)),
        format!("m{{a=~\"{}\"}}", full("[a-z]", 100)),
        format!("m{{a=~\"{}\"}}", full("x?", 100)),
        format!("m{{a=~\"{}x{}\"}}", "(".repeat(400_000), ")".repeat(400_000)),
        format!("sum by ({}a) (m)", full("a,", 100)),
        format!("sum without ({}a) (m)", full("b,", 100)),
        format!("m + on ({}a) m", full("a,", 100)),
        format!("label_join(m, \"d\", \",\", {}\"a\")", full("\"a\",", 100)),
        format!("sort_by_label(m, {}\"a\")", full("\"a\",", 100)),
        format!("label_replace(m, \"d\", \"{}\", \"a\", \"(.*)\")", full("$1", 100)),
        format!("label_replace(m, \"d\", \"$1\", \"a\", \"{}\")", full("(x)?", 100)),
        format!("count_values(\"{}\", m)", full("v", 100)),
        format!("m @ {}", full("9", 100)),
        format!("m[{}1]", full("1+", 100)),
        format!("{}1", full("1,", 100)),
        format!("info(m, {{{}}})", full("data=~\".*\",", 100)),
        full(" ", 1),
        full("#", 1),
        full("m\n#", 3),
        full("\u{1F600}", 4),
        full("\\", 1),
        full("\"", 1),
    ] {
        survive(&mut faults, &memory, &query, instant(5 * MINUTE_MS));
    }
    // Far less, if nothing is quadratic.
    assert!(started.elapsed() < Duration::from_secs(90), "{:?}", started.elapsed());
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn labels_that_queries_make_are_bounded() {
    let mut memory = Memory::default();
    let value = "v".repeat(60_000);
    memory.insert(&labels(&[("__name__", "m"), ("a", &value)]), float(0, 1.0));
    let template = "$1".repeat(300_000);
    let made = "makes a label of more than 1048576 bytes";
    for query in [
        format!("label_replace(m, \"d\", \"{template}\", \"a\", \"(.*)\")"),
        format!("label_replace(m, \"d\", \"{}\", \"a\", \"(?P<n>.*)\")", "${n}".repeat(100_000)),
        format!("label_join(m, \"d\", \"{}\", {}\"a\")", "s".repeat(500_000), "\"a\",".repeat(1_000)),
    ] {
        assert!(refused(&memory, &query, instant(0)).contains(made));
    }
    // Twice as long each time.
    let mut doubled = "m".to_owned();
    for _ in 0..40 {
        doubled = format!("label_replace({doubled}, \"a\", \"$1$1\", \"a\", \"(.*)\")");
    }
    assert!(refused(&memory, &doubled, instant(0)).contains(made));
    // Many that are just short enough.
    let mut memory = Memory::default();
    for series in 0..400 {
        memory.insert(&labels(&[("__name__", "m"), ("a", &series.to_string())]), float(0, 1.0));
    }
    let long = format!("label_replace(m, \"d\", \"{}$1\", \"a\", \"(.*)\")", "x".repeat(1_000_000));
    let error = refused(&memory, &long, instant(0));
    assert_eq!(error, "label_replace() makes labels of more than 268435456 bytes in all");
}

fn dense(schema: i32, offset: i32, buckets: Vec<f64>, custom_values: Vec<f64>) -> Histogram {
    let count = buckets.iter().sum();
    Histogram {
        schema,
        count,
        sum: count * 2.0,
        zero_threshold: if schema == CUSTOM_BUCKETS_SCHEMA { 0.0 } else { 0.001 },
        positive_spans: vec![Span { offset, length: buckets.len() as u32 }],
        positive_buckets: buckets,
        custom_values,
        ..Histogram::default()
    }
}

/// Histograms that are large, and such that no sender should send.
fn bad_histograms() -> Vec<(&'static str, Histogram)> {
    const MANY: usize = 10_000;
    let counts: Vec<f64> = (0..MANY).map(|i| (i % 7) as f64).collect();
    let bounds: Vec<f64> = (0..MANY - 1).map(|i| i as f64 / 3.0).collect();
    let custom =
        |buckets: &[f64], bounds: &[f64]| dense(CUSTOM_BUCKETS_SCHEMA, 0, buckets.to_vec(), bounds.to_vec());
    let spans = |spans: &[(i32, u32)], buckets: usize| Histogram {
        positive_spans: spans
            .iter()
            .map(|(offset, length)| Span { offset: *offset, length: *length })
            .collect(),
        positive_buckets: vec![1.0; buckets],
        negative_spans: spans
            .iter()
            .map(|(offset, length)| Span { offset: *offset, length: *length })
            .collect(),
        negative_buckets: vec![1.0; buckets],
        count: 2.0 * buckets as f64,
        ..Histogram::default()
    };
    vec![
        ("ten thousand exponential buckets", dense(8, -5_000, counts.clone(), vec![])),
        ("the same, wider", dense(3, -5_000, counts.clone(), vec![])),
        ("ten thousand custom buckets", custom(&counts, &bounds)),
        ("the same with other bounds", custom(&counts, &bounds.iter().map(|b| b + 0.1).collect::<Vec<_>>())),
        ("bounds twice", custom(&[1.0, 2.0, 3.0, 4.0], &[1.0, 1.0, 1.0])),
        ("bounds that descend", custom(&[1.0, 2.0, 3.0, 4.0], &[3.0, 2.0, 1.0])),
        ("bounds that are none", custom(&[1.0, 2.0, 3.0], &[f64::NAN, f64::INFINITY])),
        ("more buckets than bounds", custom(&[1.0; 9], &[1.0, 2.0])),
        ("no bounds", custom(&[1.0, 2.0], &[])),
        ("no buckets", custom(&[], &[1.0])),
        ("counts that are none", dense(0, 0, vec![f64::NAN, f64::INFINITY, -5.0, f64::NEG_INFINITY], vec![])),
        ("the last bucket there is", dense(8, i32::MAX, vec![1.0, 2.0, 3.0], vec![])),
        ("the first bucket there is", dense(-4, i32::MIN, vec![1.0, 2.0, 3.0], vec![])),
        ("buckets far apart", spans(&[(i32::MIN, 1), (i32::MAX, 1), (i32::MAX, 1)], 3)),
        ("buckets that go back", spans(&[(5, 2), (-4, 2)], 4)),
        ("spans of nothing", spans(&[(0, 0), (3, 0), (1, 2)], 2)),
        ("a schema that does not exist", dense(99, 0, vec![1.0, 2.0], vec![])),
        ("a schema below all", dense(i32::MIN, 0, vec![1.0, 2.0], vec![])),
        (
            "a zero bucket over all",
            Histogram { zero_threshold: f64::INFINITY, zero_count: 5.0, ..dense(0, 0, vec![1.0], vec![]) },
        ),
        (
            "a zero bucket of no width",
            Histogram { zero_threshold: f64::NAN, zero_count: f64::NAN, ..dense(0, 0, vec![1.0], vec![]) },
        ),
    ]
}

/// A call of every function, every aggregation and every operator, of `m`.
fn everything_of(m: &str) -> Vec<String> {
    let mut queries = Vec::new();
    for function in &FUNCTIONS {
        let args: Vec<String> = (0..function.min_args().max(function.args.len()))
            .map(|i| match function.arg_type(i).unwrap() {
                ValueType::Vector if function.name == "info" && i == 1 => "{x=~\".*\"}".to_owned(),
                ValueType::Vector => m.to_owned(),
                ValueType::Matrix => format!("{m}[5m]"),
                ValueType::Scalar => "0.9".to_owned(),
                ValueType::String => "\"a\"".to_owned(),
            })
            .collect();
        queries.push(format!("{}({})", function.name, args.join(", ")));
    }
    for op in AggregateOp::ALL {
        let param = match op.param_type() {
            Some(ValueType::String) => "\"v\", ",
            Some(_) => "0.9, ",
            None => "",
        };
        queries.push(format!("{}({param}{m})", op.name()));
    }
    for op in ["+", "-", "*", "/", "%", "^", "atan2", "==", "!=", "</", ">/"] {
        queries.push(format!("{m} {op} 1.5"));
        queries.push(format!("{m} {op} ignoring (a) {m}"));
        queries.push(format!("-1 * {m} {op} {m}"));
    }
    queries.extend(
        ["histogram_quantiles(m, \"q\", 0, 0.5, 1, 2)", "m[5m]", "m smoothed", "rate(m[5m] anchored)"]
            .map(str::to_owned),
    );
    queries.extend(
        ["increase(m[5m] smoothed)", "sum_over_time(m[5m:1m])", "histogram_fraction(-Inf, NaN, m)"]
            .map(str::to_owned),
    );
    queries
}

#[test]
fn histograms_that_are_large_or_wrong_are_survived() {
    let mut faults = BTreeSet::new();
    let started = Instant::now();
    let histograms = bad_histograms();
    let mut mixed = Memory::default();
    for (i, (_, histogram)) in histograms.iter().enumerate() {
        let value = Value::Histogram(Arc::new(histogram.clone()));
        let sample = Sample { timestamp_ms: i as i64 * 10_000, start_timestamp_ms: None, value };
        mixed.insert(&labels(&[("__name__", "m"), ("a", "mixed")]), sample.clone());
        mixed.insert(&labels(&[("__name__", "m"), ("a", &i.to_string())]), sample);
    }
    let at = Timestamp::from_millis;
    let range = Steps::new(at(0), at(5 * MINUTE_MS), Duration::from_secs(30)).unwrap();
    for query in everything_of("m") {
        survive(&mut faults, &mixed, &query, range);
    }
    for (name, histogram) in histograms {
        let mut memory = Memory::default();
        for minute in 0..5 {
            let value = Value::Histogram(Arc::new(histogram.clone()));
            let sample = Sample { timestamp_ms: minute * MINUTE_MS, start_timestamp_ms: None, value };
            memory.insert(&labels(&[("__name__", "m"), ("a", "x")]), sample);
        }
        let of_this = Instant::now();
        for query in everything_of("m") {
            survive(&mut faults, &memory, &query, instant(4 * MINUTE_MS));
        }
        assert!(of_this.elapsed() < Duration::from_secs(30), "{name}: {:?}", of_this.elapsed());
    }
    assert!(started.elapsed() < Duration::from_secs(180), "{:?}", started.elapsed());
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn parameters_beyond_all_bounds_are_answered_or_refused() {
    let mut faults = BTreeSet::new();
    let mut memory = one_series();
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN_POSITIVE, -0.0, 1e300] {
        let labels = labels(&[("__name__", "m"), ("a", &value.to_string())]);
        for minute in 0..10 {
            memory.insert(&labels, float(minute * MINUTE_MS, value));
        }
    }
    let at = Timestamp::from_millis;
    let range = Steps::new(at(0), at(9 * MINUTE_MS), Duration::from_secs(60)).unwrap();
    for number in [
        "NaN",
        "Inf",
        "-Inf",
        "1e300",
        "-1e300",
        "9223372036854775808",
        "0.5",
        "-0",
        "scalar(m{a=\"x\"}) * 1e19",
    ] {
        for call in [
            "topk(N, m)",
            "bottomk(N, m)",
            "limitk(N, m)",
            "limit_ratio(N, m)",
            "quantile(N, m)",
            "round(m, N)",
            "clamp(m, N, N)",
            "predict_linear(m[5m], N)",
            "quantile_over_time(N, m[5m])",
            "m ^ N",
            "m % N",
            "double_exponential_smoothing(m[5m], N, N)",
            "histogram_quantile(N, m)",
            "m + fill(1) (m > N)",
            "histogram_fraction(N, N, m)",
            "vector(N)",
            "minute(vector(N))",
            "days_in_month(vector(N))",
            "m atan2 N",
            "max_of(N, N)",
            "count_values(\"v\", vector(N))",
        ] {
            let query = call.replace('N', number);
            survive(&mut faults, &memory, &query, range);
            survive(&mut faults, &memory, &query, instant(5 * MINUTE_MS));
        }
    }
    for query in everything_of("m") {
        survive(&mut faults, &memory, &query, range);
    }
    assert!(faults.is_empty(), "{faults:#?}");
}
