//! A server that watches itself: the alerts that come along fire, once, and can be turned off.
#![cfg(feature = "server")]

mod support;

use serde_json::Value;
use std::path::Path;
use std::time::Duration;
use support::{Larum, get, get_with, post, wait_until};

const PATIENCE: Duration = Duration::from_secs(30);

/// Rules in a circle, of which an alert that comes along tells without waiting.
const CIRCLE: &str = "
groups:
- {name: g, rules: [{record: a, expr: b}]}
- {name: h, rules: [{record: b, expr: a}]}
";

fn start(dir: &Path, rule_files: &str, flags: &[&str]) -> Larum {
    std::fs::write(dir.join("circle.yml"), CIRCLE).unwrap();
    configure(dir, rule_files);
    let config = format!("--config.file={}", dir.join("larum.yml").display());
    Larum::start(dir, &[&[config.as_str(), "--web.enable-lifecycle"], flags].concat())
}

fn configure(dir: &Path, rule_files: &str) {
    let text = format!("global: {{evaluation_interval: 1s}}\nrule_files: [{rule_files}]\n");
    std::fs::write(dir.join("larum.yml"), text).unwrap();
}

fn data(larum: &Larum, path: &str) -> Value {
    get(&format!("{}/api/v1/{path}", larum.url)).unwrap().json()["data"].clone()
}

/// The files of the groups.
fn files(larum: &Larum) -> Vec<String> {
    let groups = data(larum, "rules?exclude_alerts=true")["groups"].take();
    groups.as_array().unwrap().iter().map(|group| group["file"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn an_alert_that_comes_along_fires_once_whoever_loads_it() {
    let dir = tempfile::tempdir().unwrap();
    let larum = start(dir.path(), "circle.yml", &["--rules.self-monitoring"]);
    let firing = || {
        let alerts = data(&larum, "alerts")["alerts"].take();
        let is_firing = |a: &&Value| a["labels"]["alertname"] == "LarumRuleCircle" && a["state"] == "firing";
        alerts.as_array().unwrap().iter().filter(is_firing).cloned().collect::<Vec<_>>()
    };
    wait_until("the alert fires", PATIENCE, || firing().len() == 1);
    let labels = firing()[0]["labels"].clone();
    assert_eq!((&labels["job"], &labels["severity"]), (&"larum".into(), &"warning".into()));
    let instance = labels["instance"].as_str().unwrap().to_owned();
    assert!(instance.ends_with(&format!(":{}", larum.port)), "{instance}");
    assert_eq!(files(&larum).iter().filter(|file| *file == "built-in/larum.yaml").count(), 1);

    // What the alerts look at can be asked for; nothing else is stored.
    let asked = |query| {
        let answer = get_with(&format!("{}/api/v1/query", larum.url), &[("query", query)]);
        answer.unwrap().json()["data"]["result"].take()
    };
    assert_eq!(asked("larum_rule_circles")[0]["metric"]["instance"], instance);
    assert_eq!(asked("prometheus_build_info"), Value::Array(Vec::new()));

    // Who loads the file by its path has its alerts instead, and not twice.
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules/larum.yaml");
    configure(dir.path(), &format!("circle.yml, '{}'", shipped.display()));
    assert_eq!(post(&format!("{}/-/reload", larum.url), &[], b"").unwrap().status, 200);
    assert!(!files(&larum).iter().any(|file| file == "built-in/larum.yaml"), "{:?}", files(&larum));
    wait_until("the alert fires again", PATIENCE, || firing().len() == 1);
    let rules = data(&larum, "rules?type=alert&rule_name[]=LarumRuleCircle")["groups"].take();
    assert_eq!(rules.as_array().unwrap().len(), 1, "{rules}");
}

#[test]
fn self_monitoring_can_be_turned_off() {
    let dir = tempfile::tempdir().unwrap();
    let larum = start(dir.path(), "circle.yml", &["--rules.self-monitoring=false"]);
    let iterations = || {
        let text = get(&format!("{}/metrics", larum.url)).unwrap().body;
        let lines = text.lines().filter(|line| line.starts_with("prometheus_rule_group_iterations_total{"));
        lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum::<u64>()
    };
    wait_until("rules were evaluated for a while", PATIENCE, || iterations() >= 6);
    assert_eq!(files(&larum).len(), 2);
    assert_eq!(data(&larum, "label/job/values"), Value::Array(Vec::new()));
}
