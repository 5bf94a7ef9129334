//! A real Prometheus scrapes a real node_exporter and remote-writes to Larum, which is killed with
//! -9 on the way. In the end both hold the same samples and answer the same queries alike.

mod support;

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use support::{Larum, Process, free_port, get_with, now_ms, real_server, wait_until};

/// How long Prometheus scrapes, Larum's death in the middle included.
const RUN: Duration = Duration::from_secs(30);

/// Asked at half a scrape interval off the samples: Debian's Prometheus 2.42 has closed windows,
/// Prometheus 3 and Larum have left-open ones, and so no sample may fall on a border. (Since 3.0 the
/// first seconds of a counter are extrapolated otherwise, too: no window reaches back that far.)
const INSTANT_QUERIES: [&str; 12] = [
    "up",
    "count({job=\"node\"})",
    "count by (__name__) ({__name__=~\"node_(cpu|memory|disk).*\"})",
    "sum by (mode) (rate(node_cpu_seconds_total[10s]))",
    "avg without (cpu) (irate(node_cpu_seconds_total[5s]))",
    "node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes * 100",
    "topk(5, node_cpu_seconds_total)",
    "node_filesystem_avail_bytes / on (instance, device, mountpoint) group_left () node_filesystem_size_bytes < 2",
    "label_replace(up, \"host\", \"$1\", \"instance\", \"(.*):.*\")",
    "quantile_over_time(0.9, node_load1[15s]) or absent(nonexistent_metric)",
    "predict_linear(node_memory_MemFree_bytes[20s], 60)",
    "stddev by (mode) (node_cpu_seconds_total unless node_cpu_seconds_total{mode=\"idle\"})",
];

const RANGE_QUERIES: [&str; 8] = [
    "up",
    "rate(node_context_switches_total[5s])",
    "sum by (cpu) (rate(node_cpu_seconds_total{mode!=\"idle\"}[5s]))",
    "histogram_quantile(0.9, sum by (le, handler) (rate(prometheus_http_request_duration_seconds_bucket[10s])))",
    "increase(prometheus_tsdb_head_samples_appended_total[10s])",
    "max_over_time(node_load1[5s]) - min_over_time(node_load1[5s])",
    "avg_over_time(process_resident_memory_bytes[7s]) > bool 1e6",
    "max_over_time(rate(node_intr_total[5s])[10s:2s])",
];

#[test]
fn a_real_prometheus_finds_the_same_data_and_answers_in_larum_after_kill_9() {
    let (Some(prometheus), Some(node_exporter)) =
        (real_server("prometheus"), real_server("prometheus-node-exporter"))
    else {
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary folder");
    let dir = dir.path();

    let exporter_port = free_port();
    let _exporter =
        Process::start(
            "node_exporter",
            Command::new(node_exporter)
                .arg(format!("--web.listen-address=127.0.0.1:{exporter_port}"))
                .args(["--no-collector.systemd", "--no-collector.textfile", "--log.level=warn"]),
            dir,
        );
    let larum = Larum::start(dir, &[]);
    let (larum_port, larum_url) = (larum.port, larum.url.clone());
    let (_prometheus, prometheus_url) = start_prometheus(&prometheus, dir, exporter_port, &larum_url);

    let started = now_ms();
    let ran_for = |d: Duration| now_ms() - started >= d.as_millis() as i64;
    wait_until("half of the run is over", RUN, || ran_for(RUN / 2));
    let before_the_kill = count(&larum_url, "count(up)", now_ms());
    assert_eq!(before_the_kill, 2.0, "both targets have arrived before the kill");
    larum.process.kill_9();
    let _larum = Larum::start_on(larum_port, dir, &[]);
    wait_until("the run is over", RUN, || ran_for(RUN));

    // What Prometheus scraped until now arrives within the deadline; then T lies half an interval
    // before the newest scrape, and neither server will learn anything more about times up to T.
    let end = now_ms();
    let newest = (newest_up(&prometheus_url, end) * 1000.0).round() as i64;
    wait_until("Larum has what Prometheus has", Duration::from_secs(30), || {
        newest_by_series(&prometheus_url, newest) == newest_by_series(&larum_url, newest)
    });
    let off_the_second = if (newest - 500) % 1000 == 0 { 400 } else { 500 };
    let t_ms = newest - off_the_second;

    assert_no_sample_is_missing(&prometheus_url, &larum_url, t_ms);
    for query in INSTANT_QUERIES {
        let parameters = [("query", query.to_owned()), ("time", seconds(t_ms))];
        compare(&prometheus_url, &larum_url, "query", &parameters);
    }
    for query in RANGE_QUERIES {
        let parameters = [
            ("query", query.to_owned()),
            ("start", seconds(t_ms - 9_000)),
            ("end", seconds(t_ms)),
            ("step", "3".to_owned()),
        ];
        compare(&prometheus_url, &larum_url, "query_range", &parameters);
    }
}

fn start_prometheus(program: &Path, dir: &Path, exporter_port: u16, larum_url: &str) -> (Process, String) {
    let config = |port| {
        format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
             scrape_configs:\n\
             - {{job_name: node, static_configs: [{{targets: ['127.0.0.1:{exporter_port}']}}]}}\n\
             - {{job_name: prometheus, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}\n\
             remote_write:\n\
             - url: {larum_url}/api/v1/write\n  \
               queue_config: {{batch_send_deadline: 1s, max_backoff: 1s}}\n"
        )
    };
    support::start_prometheus(program, dir, config, &[])
}

/// Every raw sample that Prometheus has up to `t_ms` is in Larum, with the same value.
fn assert_no_sample_is_missing(prometheus_url: &str, larum_url: &str, t_ms: i64) {
    let query = "{job=~\".+\"}[2m]";
    let parameters = [("query", query.to_owned()), ("time", seconds(t_ms))];
    let (ours, theirs) = (ask(larum_url, "query", &parameters), ask(prometheus_url, "query", &parameters));
    let ours = series_by_labels(&ours, "values");
    let mut samples = 0;
    for (labels, values) in series_by_labels(&theirs, "values") {
        let mine = ours.get(&labels).unwrap_or_else(|| panic!("series {labels} is missing"));
        let mine: BTreeMap<String, &Value> = points(mine).collect();
        for (t, value) in points(&values) {
            assert_eq!(mine.get(&t), Some(&value), "sample of {labels} at {t}");
            samples += 1;
        }
    }
    assert!(samples > 10_000, "the comparison saw {samples} samples only");
}

fn points(values: &Value) -> impl Iterator<Item = (String, &Value)> {
    let values = values.as_array().expect("values are a list");
    values.iter().map(|point| (point[0].to_string(), &point[1]))
}

/// Both servers give the same answer to 1e-9, and a `topk`-free order does not matter.
fn compare(prometheus_url: &str, larum_url: &str, path: &str, parameters: &[(&str, String)]) {
    let key = if path == "query" { "value" } else { "values" };
    let (ours, theirs) = (ask(larum_url, path, parameters), ask(prometheus_url, path, parameters));
    let context = format!("{path} {parameters:?}");
    let (ours, theirs) = (series_by_labels(&ours, key), series_by_labels(&theirs, key));
    assert!(!theirs.is_empty(), "a question without an answer tells nothing: {context}");
    let names = |set: &BTreeMap<String, Value>| set.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&ours), names(&theirs), "series of {context}");
    for (labels, theirs) in &theirs {
        let ours = &ours[labels];
        let (ours, theirs) = if key == "value" {
            (vec![ours.clone()], vec![theirs.clone()])
        } else {
            (ours.as_array().cloned().unwrap_or_default(), theirs.as_array().cloned().unwrap_or_default())
        };
        assert_eq!(ours.len(), theirs.len(), "points of {labels} in {context}");
        for (a, b) in ours.iter().zip(&theirs) {
            assert_eq!(a[0].to_string(), b[0].to_string(), "time of a point of {labels} in {context}");
            assert!(close(&a[1], &b[1]), "{labels}: Larum {} Prometheus {} in {context}", a[1], b[1]);
        }
    }
}

fn close(a: &Value, b: &Value) -> bool {
    let (Some(a), Some(b)) = (a.as_str(), b.as_str()) else { return false };
    if a == b {
        return true;
    }
    let (Ok(a), Ok(b)) = (a.parse::<f64>(), b.parse::<f64>()) else { return false };
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e-9)
}

fn ask(url: &str, path: &str, parameters: &[(&str, String)]) -> Value {
    let parameters: Vec<(&str, &str)> = parameters.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let response = get_with(&format!("{url}/api/v1/{path}"), &parameters).expect("the server answers");
    assert_eq!(response.status, 200, "{url} {path} {parameters:?}: {}", response.body);
    response.json()["data"]["result"].clone()
}

fn series_by_labels(result: &Value, key: &str) -> BTreeMap<String, Value> {
    let result = result.as_array().expect("the result is a list");
    result.iter().map(|series| (series["metric"].to_string(), series[key].clone())).collect()
}

fn count(url: &str, query: &str, t_ms: i64) -> f64 {
    let result = ask(url, "query", &[("query", query.to_owned()), ("time", seconds(t_ms))]);
    result[0]["value"][1].as_str().and_then(|v| v.parse().ok()).unwrap_or(0.0)
}

fn newest_up(url: &str, t_ms: i64) -> f64 {
    count(url, "min(timestamp(up))", t_ms)
}

/// The time of the newest sample of each series, asked as raw samples: `timestamp()` would drop the
/// names that tell the series apart.
fn newest_by_series(url: &str, t_ms: i64) -> BTreeMap<String, Value> {
    let query = "{job=~\".+\"}[10s]";
    let result = ask(url, "query", &[("query", query.to_owned()), ("time", seconds(t_ms))]);
    let newest =
        |values: &Value| values.as_array().and_then(|v| v.last()).map_or(Value::Null, |p| p[0].clone());
    series_by_labels(&result, "values")
        .iter()
        .map(|(labels, values)| (labels.clone(), newest(values)))
        .collect()
}

fn seconds(ms: i64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}
