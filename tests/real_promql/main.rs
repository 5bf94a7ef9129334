//! Random PromQL is asked of a real Prometheus and of Larum, which hold the same samples: the
//! answers have to be the same.
//!
//! The seed is printed; `PROMQL_SEED` sets it, and `PROMQL_QUERIES` the number of queries.

#[path = "../support/mod.rs"]
mod support;

mod data;
mod grammar;
mod numbers;
mod random;

use grammar::{Grammar, KNOWN_CHANGES, Question};
use random::Random;
use serde_json::Value;
use std::collections::BTreeMap;
use support::{Larum, Response, WriteSeries, get_with, real_server, start_prometheus};

/// Another seed finds other differences; this one keeps a run comparable with the last.
const SEED: u64 = 20_261_121;
const QUERIES: usize = 2_000;
/// Where the samples end: always the same time, so that a seed means the same data every day.
const END_MS: i64 = 1_790_000_100_000;

/// What came of a question.
enum Outcome {
    /// Both refuse it.
    BothFail,
    /// The same answer, which is empty.
    Empty,
    /// The same answer, with something in it.
    Same,
    /// Not the same: what differs.
    Differ(String),
}

#[test]
fn a_real_prometheus_gives_the_same_answers_to_random_queries() {
    let Some(prometheus) = real_server("prometheus") else { return };
    let seed = number_from_environment("PROMQL_SEED").unwrap_or(SEED);
    let queries = number_from_environment("PROMQL_QUERIES").map_or(QUERIES, |n| n as usize);
    println!("PROMQL_SEED={seed} PROMQL_QUERIES={queries}");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let larum = Larum::start(dir.path(), &["--storage.tsdb.retention.time=100y"]);
    let (_prometheus, prometheus_url) = start_prometheus(
        &prometheus,
        dir.path(),
        |_| "global: {}\n".to_owned(),
        &["--web.enable-remote-write-receiver"],
    );

    let end_ms = END_MS;
    let mut random = Random::new(seed);
    let series = data::series(&mut random, end_ms);
    fill(&larum.url, &series);
    fill(&prometheus_url, &series);

    let from_s = (end_ms - data::SLOTS * data::INTERVAL_MS) / 1000;
    let mut grammar = Grammar { random, from_s, to_s: end_ms / 1000 };
    let questions: Vec<Question> = (0..queries).map(|_| grammar.question()).collect();
    let (mut failed, mut empty, mut same, mut differences) = (0, 0, 0, Vec::new());
    for (question, outcome) in questions.iter().zip(ask_all(&prometheus_url, &larum.url, &questions)) {
        match outcome {
            Outcome::BothFail => failed += 1,
            Outcome::Empty => empty += 1,
            Outcome::Same => same += 1,
            Outcome::Differ(what) => differences.push((question, what)),
        }
    }
    println!(
        "{} series; {same} answers are the same, {empty} empty, {failed} refused by both, {} differ",
        series.len(),
        differences.len()
    );
    for (Question { query, start_s, range }, what) in &differences {
        println!("\n{query}\n  at {start_s} {range:?}\n  {what}");
    }
    if !differences.is_empty() {
        println!("\nKnown to differ, and avoided:");
        KNOWN_CHANGES.iter().for_each(|(change, how)| println!("- {change}: {how}"));
    }
    assert!(differences.is_empty(), "{} of {queries} answers differ", differences.len());
    assert!(same * 10 >= (same + empty) * 6, "too many answers are empty");
    assert!(failed * 4 < queries, "too many queries fail");
}

fn number_from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|e| panic!("{name}={text}: {e}")))
}

fn fill(url: &str, series: &[data::Written]) {
    for some in series.chunks(50) {
        let labels: Vec<Vec<(&str, &str)>> =
            some.iter().map(|s| s.labels.iter().map(|(n, v)| (*n, v.as_str())).collect()).collect();
        let request: Vec<WriteSeries> =
            some.iter().zip(&labels).map(|(s, labels)| (labels.as_slice(), s.samples.as_slice())).collect();
        let response = support::remote_write(url, &request);
        assert!(matches!(response.status, 200 | 204), "{url}: {} {}", response.status, response.body);
    }
}

/// Asks both servers all questions, a few at a time; the outcomes in the order of the questions.
fn ask_all(prometheus_url: &str, larum_url: &str, questions: &[Question]) -> Vec<Outcome> {
    let part = questions.len().div_ceil(4).max(1);
    std::thread::scope(|scope| {
        let parts: Vec<_> = questions
            .chunks(part)
            .map(|questions| {
                scope.spawn(move || {
                    questions.iter().map(|q| compare(prometheus_url, larum_url, q)).collect::<Vec<_>>()
                })
            })
            .collect();
        parts.into_iter().flat_map(|part| part.join().expect("a comparison does not panic")).collect()
    })
}

fn compare(prometheus_url: &str, larum_url: &str, question: &Question) -> Outcome {
    let theirs = ask(
        prometheus_url,
        question,
        &question.query.replace("double_exponential_smoothing", "holt_winters"),
    );
    let ours = ask(larum_url, question, &question.query);
    match (ours.status, theirs.status) {
        (200, 200) => {}
        (ours, theirs) if ours == theirs => return Outcome::BothFail,
        _ => return Outcome::Differ(format!("Larum: {}\n  Prometheus: {}", ours.body, theirs.body)),
    }
    let (ours, theirs) = (&ours.json()["data"], &theirs.json()["data"]);
    if ours["resultType"] != theirs["resultType"] {
        return Outcome::Differ(format!("Larum: {ours}\n  Prometheus: {theirs}"));
    }
    let (ours, theirs) = (answer(ours), answer(theirs));
    if let Some((labels, points)) = ours.iter().find(|(labels, _)| !theirs.contains_key(*labels)) {
        return Outcome::Differ(format!("Larum alone has {labels}: {points:?}"));
    }
    for (labels, theirs) in &theirs {
        let Some(ours) = ours.get(labels) else {
            return Outcome::Differ(format!("Prometheus alone has {labels}: {theirs:?}"));
        };
        let mut pairs = ours.iter().zip(theirs);
        if ours.len() != theirs.len() || !pairs.all(|(a, b)| a.0 == b.0 && close(&a.1, &b.1)) {
            return Outcome::Differ(format!("{labels}\n  Larum: {ours:?}\n  Prometheus: {theirs:?}"));
        }
    }
    if theirs.is_empty() { Outcome::Empty } else { Outcome::Same }
}

fn ask(url: &str, question: &Question, query: &str) -> Response {
    let start = question.start_s.to_string();
    let response = match question.range {
        None => get_with(&format!("{url}/api/v1/query"), &[("query", query), ("time", &start)]),
        Some((end, step)) => {
            let (end, step) = (end.to_string(), step.to_string());
            let parameters = [("query", query), ("start", &start), ("end", &end), ("step", &step)];
            get_with(&format!("{url}/api/v1/query_range"), &parameters)
        }
    };
    response.unwrap_or_else(|| panic!("{url} does not answer {query}"))
}

/// The time of a point, as it is written, and its value.
type Point = (String, String);

/// The points by labels; those of a scalar or a text have none.
fn answer(data: &Value) -> BTreeMap<String, Vec<Point>> {
    let point = |p: &Value| (p[0].to_string(), p[1].as_str().unwrap_or_default().to_owned());
    let result = &data["result"];
    if matches!(data["resultType"].as_str(), Some("scalar" | "string")) {
        return BTreeMap::from([(String::new(), vec![point(result)])]);
    }
    let series = result.as_array().expect("the result is a list");
    let answer: BTreeMap<String, Vec<Point>> = series
        .iter()
        .map(|series| {
            let points = match series["values"].as_array() {
                Some(values) => values.iter().map(point).collect(),
                None => vec![point(&series["value"])],
            };
            (series["metric"].to_string(), points)
        })
        .collect();
    assert_eq!(answer.len(), series.len(), "a series is there twice: {result}");
    answer
}

/// Equal to 1e-9 of the larger; what remains of sums that cancel out is nothing.
fn close(a: &str, b: &str) -> bool {
    if a == b {
        return true;
    }
    let (Ok(a), Ok(b)) = (a.parse::<f64>(), b.parse::<f64>()) else { return false };
    a == b || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
}
