//! A real Prometheus sends, Larum is down for longer than rules look back, and what Prometheus has kept
//! arrives first when it comes up again.

use super::receiver::{Receiver, assert_fires_all_the_time, time_ms};
use super::support::{Larum, get, get_with, now_ms, start_prometheus, wait_until};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

const DOWN: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(60);

const RULES: &str = "
groups:
- name: scrapes
  interval: 1s
  rules:
  - {record: slots, expr: time()}
  - {alert: Scraped, expr: up == 1, for: 2s}
  - {alert: Lost, expr: absent(up)}
";

/// An alert fires on what `prometheus` scrapes and sends; Larum is killed, and started half a minute later.
pub fn run(prometheus: &Path) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let dir = dir.path();
    let receiver = Receiver::start();
    let config = receiver.configure(dir, RULES);
    let flags = [
        &config[..],
        "--query.lookback-delta=10s",
        // So that an Alertmanager waits longer than Larum is down.
        "--rules.alert.resend-delay=15s",
        // Own samples must not be taken for a sign of the sender.
        "--rules.self-monitoring=true",
    ];
    let larum = Larum::start(dir, &flags);
    let (port, url) = (larum.port, larum.url.clone());
    let (_prometheus, _) = start_prometheus(
        prometheus,
        dir,
        |port| {
            format!(
                "global: {{scrape_interval: 1s}}\n\
                 scrape_configs: [{{job_name: self, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}]\n\
                 remote_write: [{{url: '{url}/api/v1/write'}}]\n"
            )
        },
        &[],
    );
    wait_until("the alert fires", PATIENCE, || !receiver.heard_of("Scraped").is_empty());
    // Before Prometheus was there, nothing was.
    let lost_before = receiver.heard_of("Lost").len();
    let active_at = active_at(&url).expect("the alert fires");

    larum.process.kill_9();
    let killed_at_ms = now_ms();
    std::thread::sleep(DOWN);
    let larum = Larum::start_on(port, dir, &flags);
    assert_eq!(self::active_at(&url), Some(active_at), "it fires from the first moment");
    let mut slots = Vec::new();
    wait_until("the present is evaluated", PATIENCE, || {
        assert_eq!(self::active_at(&url), Some(active_at), "it fires all the time");
        slots = times(&url, "slots");
        slots.last().is_some_and(|last_ms| now_ms() - last_ms < 1500)
    });
    let messages = receiver.heard_of("Scraped");
    assert_fires_all_the_time(&messages);
    assert!(messages.iter().any(|message| message.at_ms > killed_at_ms + DOWN.as_millis() as i64));
    assert!(slots.windows(2).all(|pair| pair[1] - pair[0] == 1000), "a slot is missing: {slots:?}");
    let lost: Vec<_> = receiver.heard_of("Lost").split_off(lost_before);
    assert!(lost.iter().all(|message| message.is_resolved()), "samples were taken for lost: {lost:?}");
    let lost_at = times(&url, "ALERTS{alertname=\"Lost\"}");
    assert!(lost_at.iter().all(|t_ms| *t_ms < active_at), "samples were taken for lost: {lost_at:?}");
    assert_eq!(larum.process.stop(Duration::from_secs(20)), Some(0), "a clean stop");
}

/// Since when the alert has been active, if it fires.
fn active_at(url: &str) -> Option<i64> {
    let alerts = get(&format!("{url}/api/v1/alerts")).expect("Larum answers").json();
    let alerts = alerts["data"]["alerts"].as_array().expect("alerts").clone();
    let is_it = |alert: &&Value| alert["labels"]["alertname"] == "Scraped" && alert["state"] == "firing";
    alerts.iter().find(is_it).map(|alert| time_ms(&alert["activeAt"]))
}

/// When the series that a selector selects have samples.
fn times(url: &str, selector: &str) -> Vec<i64> {
    let query = format!("{selector}[10m]");
    let answer = get_with(&format!("{url}/api/v1/query"), &[("query", &query)]);
    let answer = answer.expect("Larum answers").json();
    let series = answer["data"]["result"].as_array().unwrap_or_else(|| panic!("{answer}")).clone();
    let samples = series.iter().flat_map(|series| series["values"].as_array().expect("samples"));
    samples.map(|sample| (sample[0].as_f64().expect("a time") * 1000.0).round() as i64).collect()
}
