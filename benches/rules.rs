//! What alerting costs: 10,000 alerting rules over 100,000 series every 15 s, a thousand of their alerts
//! firing, in a server of its own. Prometheus does the same afterwards, where it is there.
//!
//! `cargo bench --bench rules` prints how much of a core each server takes with all that it does (samples
//! come in meanwhile, one of each series every 15 s), how many slots it missed, and how long it takes after
//! `kill -9` until Larum shows all alerts again as they were. `LARUM_BENCH_QUICK=1` takes a tenth of the
//! rules and half the time.

#[path = "../tests/support/mod.rs"]
mod outside;
mod support;

use outside::{Larum, WriteSeries, get, now_ms, remote_write, servers, start_prometheus, wait_until};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use support::row;

const INTERVAL: Duration = Duration::from_secs(15);
/// The most time until all alerts fire, or are shown again.
const PATIENCE: Duration = Duration::from_secs(120);
const RULES_PER_GROUP: usize = 100;
/// Series that a rule looks at.
const INSTANCES: usize = 10;
/// One alert in so many that could be fires.
const FIRING: usize = 100;

/// How much is measured.
#[derive(Clone, Copy)]
struct Size {
    rules: usize,
    slots: u32,
}

fn main() {
    let is_quick = std::env::var_os("LARUM_BENCH_QUICK").is_some();
    let size = if is_quick { Size { rules: 1_000, slots: 2 } } else { Size { rules: 10_000, slots: 4 } };
    let dir = tempfile::tempdir().expect("a temporary folder");
    let rules = dir.path().join("rules.yml");
    std::fs::write(&rules, rule_file(size)).expect("the rules are written");
    let config = format!("global: {{evaluation_interval: 15s}}\nrule_files: ['{}']\n", rules.display());

    let path = dir.path().join("larum.yml");
    std::fs::write(&path, &config).expect("the configuration is written");
    let flags = [&format!("--config.file={}", path.display())[..], "--log.level=warn"];
    let larum = Larum::start(dir.path(), &flags);
    let (port, url) = (larum.port, larum.url.clone());
    let before = fed(&url, size, || {
        measure(&url, larum.process.id(), size, "");
        alerts(&url)
    });
    larum.process.kill_9();
    let killed = Instant::now();
    let larum = Larum::spawn_on(port, dir.path(), &flags);
    while get(&format!("{url}/-/ready")).is_none_or(|answer| answer.status != 200) || alerts(&url) != before {
        assert!(killed.elapsed() < PATIENCE, "the alerts do not come back as they were");
        thread::sleep(Duration::from_millis(2));
    }
    row("rules, kill to all alerts firing", killed.elapsed().as_secs_f64() * 1e3, "ms");
    drop(larum);

    let program = servers().join("bin/prometheus");
    if !program.is_file() {
        return eprintln!("rules: NOTICE: Prometheus is not measured: no {}", program.display());
    }
    let flags = ["--web.enable-remote-write-receiver"];
    let (prometheus, url) = start_prometheus(&program, dir.path(), |_| config, &flags);
    fed(&url, size, || measure(&url, prometheus.id(), size, ", Prometheus"));
}

/// Measures a server that samples come to, from when its alerts fire.
fn measure(url: &str, process: u32, size: Size, whose: &str) {
    let firing = size.rules * INSTANCES / FIRING;
    wait_until("all alerts fire", PATIENCE, || alerts(url).len() == firing);
    let missed = || metric(url, "prometheus_rule_group_iterations_missed_total");
    let evaluated = || metric(url, "prometheus_rule_evaluations_total");
    let (started, cpu_before, missed_before, evaluated_before) =
        (Instant::now(), cpu_seconds(process), missed(), evaluated());
    thread::sleep(INTERVAL * size.slots);
    let (cpu_after, seconds) = (cpu_seconds(process), started.elapsed().as_secs_f64());
    let per_slot = (evaluated() - evaluated_before) / f64::from(size.slots);
    assert!((per_slot - size.rules as f64).abs() <= size.rules as f64 * 0.1, "{per_slot} rules a slot");
    if let (Some(before), Some(after)) = (cpu_before, cpu_after) {
        row(&format!("rules, share of a core{whose}"), (after - before) / seconds * 100.0, "%");
    }
    row(&format!("rules, slots missed{whose}"), missed() - missed_before, "slots");
}

/// Groups of rules, each with ten series that it looks at.
fn rule_file(size: Size) -> String {
    let mut text = String::from("groups:\n");
    for rule in 0..size.rules {
        let (group, service) = (rule / RULES_PER_GROUP, rule % RULES_PER_GROUP);
        if service == 0 {
            let _ = writeln!(text, "- name: group {group}\n  rules:");
        }
        let _ = writeln!(
            text,
            "  - alert: QueueLong{group}_{service}\n    expr: queue_{group}_length{{service=\"s{service}\"}} > 3\n    \
             for: 15s\n    labels: {{severity: page}}\n    annotations:\n      \
             summary: '{{{{ $labels.service }}}} on {{{{ $labels.instance }}}}: {{{{ $value }}}} wait'"
        );
    }
    text
}

/// Sends a sample of each series every interval while `work` goes on.
fn fed<T>(url: &str, size: Size, work: impl FnOnce() -> T) -> T {
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut next = Instant::now();
            while !is_done.load(Ordering::Relaxed) {
                if Instant::now() >= next {
                    next += INTERVAL;
                    send_all(url, size);
                }
                thread::sleep(Duration::from_millis(50));
            }
        });
        let worked = work();
        is_done.store(true, Ordering::Relaxed);
        worked
    })
}

fn send_all(url: &str, size: Size) {
    let t_ms = now_ms();
    for group in 0..size.rules / RULES_PER_GROUP {
        let name = format!("queue_{group}_length");
        let numbers = 0..RULES_PER_GROUP * INSTANCES;
        let names: Vec<(String, String)> = numbers
            .clone()
            .map(|n| (format!("10.0.{}.{}:9100", n % INSTANCES, group % 250), format!("s{}", n / INSTANCES)))
            .collect();
        let labels: Vec<[(&str, &str); 4]> = names
            .iter()
            .map(|(i, s)| {
                [("__name__", &name[..]), ("instance", &i[..]), ("job", "workers"), ("service", &s[..])]
            })
            .collect();
        let values: Vec<_> =
            numbers.map(|n| [(t_ms, if n % FIRING == 0 { 7.0 } else { (n % 3) as f64 })]).collect();
        let series: Vec<WriteSeries> = labels.iter().zip(&values).map(|(l, v)| (&l[..], &v[..])).collect();
        let answer = remote_write(url, &series);
        assert_eq!(answer.status, 204, "{}", answer.body);
    }
}

/// The alerts that fire and since when they have been active.
fn alerts(url: &str) -> BTreeMap<String, String> {
    let Some(answer) = get(&format!("{url}/api/v1/alerts")).filter(|answer| answer.status == 200) else {
        return BTreeMap::new();
    };
    let answer = answer.json();
    let all = answer["data"]["alerts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_firing = |alert: &&Value| alert["state"] == "firing";
    let shown = |alert: &Value| (alert["labels"].to_string(), alert["activeAt"].to_string());
    all.iter().filter(is_firing).map(shown).collect()
}

/// The sum of a metric of the server over all its labels.
fn metric(url: &str, name: &str) -> f64 {
    let answer = get(&format!("{url}/metrics")).expect("the server answers");
    let samples = answer.body.lines().filter(|line| line.starts_with(name));
    samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// CPU time of a process so far; `None` where the system does not tell.
fn cpu_seconds(process: u32) -> Option<f64> {
    /// What Linux counts in, whatever its own clock.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string(Path::new("/proc").join(process.to_string()).join("stat")).ok()?;
    let after_name = stat.rsplit_once(')')?.1;
    let ticks = after_name.split_whitespace().skip(11).take(2);
    Some(ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SECOND)
}
