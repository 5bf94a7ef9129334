//! The text of numbers: thousands of values over the whole range of exponents, as a real Prometheus
//! prints them in vectors, matrices and scalars. Answers have to be the same byte by byte.

use crate::END_MS;
use crate::random::Random;
use crate::support::{self, Larum, WriteSeries, real_server, start_prometheus};
use std::fmt::Write;
use ureq::Agent;

/// The fewest values that the promise is about.
const LEAST: usize = 10_000;
/// So many questions are under way at once.
const ASKERS: usize = 4;

#[test]
fn numbers_are_printed_as_a_real_prometheus_prints_them() {
    let Some(prometheus) = real_server("prometheus") else { return };
    let dir = tempfile::tempdir().expect("a temporary folder");
    let larum = Larum::start(dir.path(), &["--storage.tsdb.retention.time=100y", "--log.level=warn"]);
    let config = |_| "global: {}\n".to_owned();
    let flags = ["--web.enable-remote-write-receiver", "--storage.tsdb.retention.time=100y"];
    let (_prometheus, prometheus_url) = start_prometheus(&prometheus, dir.path(), config, &flags);
    let values = values(&mut Random::new(crate::SEED));
    assert!(values.len() >= LEAST, "{} values", values.len());
    let urls = [larum.url.as_str(), &prometheus_url];
    urls.iter().for_each(|url| fill(url, &values));

    compare_vectors(urls, values.len());
    compare_matrices(urls, values.len());
    compare_scalars(urls, &values);
}

/// Every exponent there is, and what is known to be printed wrong by others.
fn values(random: &mut Random) -> Vec<f64> {
    let mut values = vec![0.0, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
    for exponent in 0..0x7ff_u64 {
        let fractions = [0, 1, (1 << 52) - 1, random.next() >> 12, random.next() >> 12];
        values.extend(fractions.map(|fraction| f64::from_bits(exponent << 52 | fraction)));
    }
    let with_neighbours = |value: f64| [value.next_down(), value, value.next_up()];
    // Where the notation changes, and where the number of digits does: 1e21, 1e-6 and 1e-7 are among them.
    for exponent in -323..=308 {
        let power: f64 = format!("1e{exponent}").parse().expect("a float");
        values.extend(with_neighbours(power));
    }
    // Halfway between two shortest texts: halves, quarters and eighths where floats are as far apart.
    values.push(2_023_347_301_156_851.3);
    for bits in [50, 51, 52] {
        let odd = |random: &mut Random| (1 << 52 | random.next() >> 12 | 1) as f64;
        values.extend((0..300).map(|_| odd(random) / f64::from(1 << (52 - bits + 1))));
    }
    // Integers that floats hold, and those beyond.
    for bits in 50..=70 {
        let power = 2f64.powi(bits);
        values.extend(with_neighbours(power));
        values.extend([power - 1.0, power + 1.0, (power * 1.37).floor(), i64::MAX as f64]);
    }
    // What exporters send: few digits.
    values.extend((0..1000).map(|_| random.below(1_000_000) as f64 / 10f64.powi(random.below(9) as i32)));
    for (i, value) in values.iter_mut().enumerate().skip(5) {
        *value = if i % 3 == 1 { -*value } else { *value };
    }
    values
}

/// From one sample to the next in the series that has all values: so close that Prometheus cuts no block,
/// as 2.42 may lose what comes in meanwhile.
const APART_MS: i64 = 500;

/// When the value of this index was sampled in that series: whole seconds, tenths, hundredths, thousandths.
fn time_ms(index: usize, count: usize) -> i64 {
    END_MS - (count - index) as i64 * APART_MS + [0, 120, 200, 7, 490, 1][index % 6]
}

/// Writes the values: each in a series of its own, and all of them in one series.
fn fill(url: &str, values: &[f64]) {
    let send = |series: &[WriteSeries]| {
        let response = support::remote_write(url, series);
        assert!(matches!(response.status, 200 | 204), "{url}: {} {}", response.status, response.body);
    };
    let numbers: Vec<String> = (0..values.len()).map(|i| i.to_string()).collect();
    let samples: Vec<[(i64, f64); 1]> = values.iter().map(|value| [(END_MS, *value)]).collect();
    let labels: Vec<_> = numbers.iter().map(|number| [("__name__", "each"), ("number", number)]).collect();
    let series: Vec<WriteSeries> = labels.iter().zip(&samples).map(|(l, s)| (&l[..], &s[..])).collect();
    let all: Vec<(i64, f64)> =
        values.iter().enumerate().map(|(i, value)| (time_ms(i, values.len()), *value)).collect();
    all.chunks(2_000).for_each(|some| send(&[(&[("__name__", "all")], some)]));
    series.chunks(2_000).for_each(send);
}

fn compare_vectors(urls: [&str; 2], count: usize) {
    for time in ["1790000100", "1790000100.1", "1790000100.12", "1790000100.123", "1790000399.999"] {
        let [ours, theirs] = urls.map(|url| {
            let body = ask(&keeping_agent(), url, "query", &[("query", "each"), ("time", time)]);
            // Elements have no order.
            let mut elements: Vec<String> = body.split("{\"metric\"").map(with_one_end).collect();
            elements.sort();
            elements
        });
        assert_eq!(ours.len(), count + 1, "at {time}");
        let different = ours.iter().zip(&theirs).find(|(ours, theirs)| ours != theirs);
        assert!(different.is_none() && ours.len() == theirs.len(), "at {time}: {different:?}");
    }
}

/// An element as it is anywhere but at the end of its list.
fn with_one_end(element: &str) -> String {
    element.trim_end_matches("]}}").trim_end_matches(',').to_owned()
}

fn compare_matrices(urls: [&str; 2], count: usize) {
    let span_s = count as i64 * APART_MS / 1000;
    let window = format!("all[{}s]", span_s + 10);
    let time = ("time", "1790000100");
    same(urls, "query", &[("query", &window), time], count);
    // Steps at whole seconds see some of the values, those between see others.
    let (first_s, last_s) = (END_MS / 1000 - span_s, END_MS / 1000);
    for fraction in ["", ".45", ".999"] {
        let (start, end) = (format!("{first_s}{fraction}"), format!("{last_s}{fraction}"));
        let parameters = [("query", "all"), ("start", &start), ("end", &end), ("step", "1")];
        same(urls, "query_range", &parameters, span_s as usize);
    }
}

/// Asks both; the bodies have to be the same and to hold so many points at least.
fn same(urls: [&str; 2], path: &str, parameters: &[(&str, &str)], points: usize) {
    let [ours, theirs] = urls.map(|url| ask(&keeping_agent(), url, path, parameters));
    let shown = ours.matches("\"]").count();
    assert!(shown >= points, "{shown} points of {points}: {parameters:?}");
    let at = ours.bytes().zip(theirs.bytes()).position(|(ours, theirs)| ours != theirs);
    let near = |text: &str| at.map(|at| text[at.saturating_sub(60)..(at + 60).min(text.len())].to_owned());
    assert!(ours == theirs, "{parameters:?}: {:?} and not {:?}", near(&ours), near(&theirs));
}

/// Scalars are printed by rules of their own, values and times.
fn compare_scalars(urls: [&str; 2], values: &[f64]) {
    let times =
        ["1790000100", "1790000100.12", "1790000100.5", "1790000100.123", "0", "0.001", "1.5", "99.99"];
    let part = values.len().div_ceil(ASKERS);
    std::thread::scope(|scope| {
        for (number, values) in values.chunks(part).enumerate() {
            scope.spawn(move || {
                let agents = urls.map(|url| (keeping_agent(), url));
                for (i, value) in values.iter().enumerate() {
                    let mut query = String::new();
                    let _ = match value.is_infinite() {
                        true => write!(query, "{}Inf", if *value < 0.0 { "-" } else { "" }),
                        false => write!(query, "{value:e}"),
                    };
                    let time = times[(i + number) % times.len()];
                    let [ours, theirs] = agents
                        .each_ref()
                        .map(|(agent, url)| ask(agent, url, "query", &[("query", &query), ("time", time)]));
                    assert!(ours.contains("scalar"), "{query}: {ours}");
                    assert_eq!(ours, theirs, "{query} at {time}");
                }
            });
        }
    });
}

/// Keeps its connection.
fn keeping_agent() -> Agent {
    Agent::config_builder().http_status_as_error(false).build().into()
}

fn ask(agent: &Agent, url: &str, path: &str, parameters: &[(&str, &str)]) -> String {
    let request = agent.get(format!("{url}/api/v1/{path}")).query_pairs(parameters.iter().copied());
    let mut response = request.call().unwrap_or_else(|e| panic!("{url}: {parameters:?}: {e}"));
    response.body_mut().with_config().limit(1 << 30).read_to_string().expect("a body of text")
}
