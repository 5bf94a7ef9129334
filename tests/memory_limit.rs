//! The process keeps to its memory: whatever fifty clients ask for at once, while samples come as fast
//! as they are taken, it stays under `--memory.limit`, rules miss no evaluation, and small questions are
//! answered. `LARUM_TEST_MEMORY_MIB` makes it larger, data and all.
#![cfg(target_os = "linux")]

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use support::{Larum, get, get_with, now_ms, remote_write, wait_until};

/// How long everybody goes on.
const STORM: Duration = Duration::from_secs(8);
const CLIENTS: usize = 50;
const SERIES_PER_TARGET: usize = 200;
const INTERVAL_MS: i64 = 15_000;
const HISTORY_MS: i64 = 2_700_000;

const RULES: &str = "
groups:
- name: storm
  interval: 2s
  rules:
  - {record: 'target:up:count', expr: 'count by (job) (up)'}
  - {record: 'target:metric_7:rate', expr: 'sum(rate(metric_7_total[5m]))'}
  - {alert: Always, expr: 'count(up) > 0'}
";

/// One line of `/proc/PID/status`, in bytes.
fn status_bytes(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel tells");
    line.trim_matches([':', ' ', '\t']).trim_end_matches(" kB").trim().parse::<u64>().expect("a number") << 10
}

/// A sum over all samples of one metric of the server.
fn metric(larum: &Larum, name: &str) -> f64 {
    let page = get(&format!("{}/metrics", larum.url)).expect("the server answers").body;
    let of_name =
        page.lines().filter(|line| line.strip_prefix(name).is_some_and(|l| l.starts_with(['{', ' '])));
    of_name
        .map(|line| line.rsplit_once(' ').expect("name and value").1.parse::<f64>().expect("a number"))
        .sum()
}

/// The samples of one target at some times.
fn write_target(larum: &Larum, target: usize, times_ms: &[i64]) -> u16 {
    let instance = format!("host-{target}:9100");
    let names: Vec<String> = (1..SERIES_PER_TARGET).map(|n| format!("metric_{n}_total")).collect();
    let names = std::iter::once("up").chain(names.iter().map(String::as_str));
    let labels: Vec<[(&str, &str); 4]> = names
        .map(|name| [("__name__", name), ("instance", &instance), ("job", "storm"), ("zone", "eu-1")])
        .collect();
    let samples: Vec<(i64, f64)> = times_ms.iter().map(|&t| (t, (t / 1000 % 100_000) as f64)).collect();
    let series: Vec<support::WriteSeries> = labels.iter().map(|l| (&l[..], &samples[..])).collect();
    remote_write(&larum.url, &series).status
}

/// What the clients ask: path, parameters.
fn worst_cases(start_ms: i64, end_ms: i64) -> Vec<(&'static str, Vec<(&'static str, String)>)> {
    let seconds = |t_ms: i64| (t_ms / 1000).to_string();
    let range = |query: &str| {
        let steps = [("start", seconds(start_ms)), ("end", seconds(end_ms)), ("step", "1".to_owned())];
        ("/api/v1/query_range", [("query", query.to_owned())].into_iter().chain(steps).collect())
    };
    let instant =
        |query: &str| ("/api/v1/query", vec![("query", query.to_owned()), ("time", seconds(end_ms))]);
    let all = ("match[]", r#"{__name__=~".+"}"#.to_owned());
    vec![
        range(r#"{__name__=~".+"}"#),
        range(r#"rate({__name__=~".+"}[5m])"#),
        range(r#"count by (__name__, instance) ({__name__=~".+"})"#),
        range(r#"topk(3, {__name__=~".+"})"#),
        range(r#"{__name__=~".+"} + on (__name__, instance) {__name__=~".+"}"#),
        range(r#"quantile(0.9, {__name__=~"metric_[1-9]_total"})"#),
        range(r#"sum(metric_1_total)"#),
        range(r#"label_replace({__name__=~".+"}, "x", "$1", "instance", "(.*)")"#),
        instant(r#"{__name__=~".+"}[30m]"#),
        instant(r#"max_over_time({__name__=~".+"}[30m:1s])"#),
        instant(r#"sum_over_time(rate({__name__=~".+"}[1m])[30m:1s])"#),
        instant(r#"count by (__name__, instance) ({__name__=~".+"})"#),
        instant(r#"count_values("v", {__name__=~".+"})"#),
        ("/api/v1/series", vec![all.clone()]),
        ("/api/v1/label/instance/values", vec![all.clone()]),
        ("/api/v1/labels", vec![all]),
    ]
}

fn ask(larum: &Larum, path: &str, parameters: &[(&'static str, String)]) -> (u16, String) {
    let parameters: Vec<(&str, &str)> = parameters.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let answer = get_with(&format!("{}{path}", larum.url), &parameters).expect("the server answers");
    (answer.status, answer.body)
}

fn start(dir: &Path, limit_mib: u64) -> Larum {
    std::fs::write(dir.join("rules.yml"), RULES).expect("the rules are written");
    std::fs::write(dir.join("larum.yml"), "rule_files: [rules.yml]\n").expect("the configuration is written");
    let config = format!("--config.file={}", dir.join("larum.yml").display());
    Larum::start(dir, &[&config, &format!("--memory.limit={limit_mib}MiB"), "--query.timeout=50s"])
}

#[test]
fn fifty_worst_queries_and_full_ingest_stay_under_the_limit() {
    let limit_mib =
        std::env::var("LARUM_TEST_MEMORY_MIB").map_or(256, |text| text.parse().expect("a number"));
    let targets = limit_mib as usize / 4;
    let dir = tempfile::tempdir().expect("a temporary folder");
    let larum = start(dir.path(), limit_mib);
    let pid = larum.process.id();
    let begun_ms = now_ms();
    let times: Vec<i64> =
        (0..HISTORY_MS / INTERVAL_MS).map(|i| begun_ms - HISTORY_MS + i * INTERVAL_MS).collect();
    for target in 0..targets {
        assert_eq!(write_target(&larum, target, &times), 204);
    }
    wait_until("rules are evaluated", Duration::from_secs(20), || {
        metric(&larum, "prometheus_rule_group_iterations_total") >= 2.0
    });

    let cases = worst_cases(begun_ms - HISTORY_MS, begun_ms);
    let over = AtomicBool::new(false);
    let [answered, refused, late, written, sent_away, small, small_refused] =
        [const { AtomicU64::new(0) }; 7];
    std::thread::scope(|scope| {
        let (larum, cases, over) = (&larum, &cases, &over);
        for client in 0..CLIENTS {
            let (answered, refused, late) = (&answered, &refused, &late);
            scope.spawn(move || {
                for (path, parameters) in cases.iter().cycle().skip(client) {
                    if over.load(Relaxed) {
                        return;
                    }
                    match ask(larum, path, parameters) {
                        (200, _) => answered.fetch_add(1, Relaxed),
                        (422, body) => {
                            let told = body.contains("not enough memory") && body.contains("memory limit of")
                                || body.contains("would load too many samples");
                            assert!(told, "{parameters:?}: {body}");
                            refused.fetch_add(1, Relaxed)
                        }
                        // On a slow machine, the queue is long.
                        (503, body) if body.contains("query timed out") => late.fetch_add(1, Relaxed),
                        (status, body) => panic!("{path} {parameters:?}: {status} {body}"),
                    };
                }
            });
        }
        for writer in 0..2 {
            let (written, sent_away) = (&written, &sent_away);
            scope.spawn(move || {
                // Late samples and new ones, of all targets by turns.
                for round in 0.. {
                    let t = begun_ms + round / targets as i64 * 50 + writer;
                    let target = round as usize % targets;
                    if over.load(Relaxed) {
                        return;
                    }
                    match write_target(larum, target, &[t, t + 2, t + 4, t + 6]) {
                        204 => written.fetch_add(4 * SERIES_PER_TARGET as u64, Relaxed),
                        503 => sent_away.fetch_add(1, Relaxed),
                        status => panic!("a write was answered {status}"),
                    };
                }
            });
        }
        let (small, small_refused) = (&small, &small_refused);
        scope.spawn(move || {
            while !over.load(Relaxed) {
                let asked = Instant::now();
                match ask(larum, "/api/v1/query", &[("query", "count(up)".to_owned())]) {
                    (200, _) => small.fetch_add(1, Relaxed),
                    // At the limit even these wait for a moment's room.
                    (422, body) if body.contains("not enough memory") => small_refused.fetch_add(1, Relaxed),
                    (status, body) => panic!("{status} after {:?}: {body}", asked.elapsed()),
                };
            }
        });
        let until = Instant::now() + STORM;
        let (mut most, mut said) = (0, String::new());
        while Instant::now() < until {
            let resident = status_bytes(pid, "RssAnon");
            if resident > most {
                most = resident;
                let status = get(&format!("{}/api/v1/status/memory", larum.url)).expect("it answers").body;
                said = format!("{} MiB at most: {status}", resident >> 20);
            }
            assert_eq!(get(&format!("{}/-/healthy", larum.url)).map(|r| r.status), Some(200));
            std::thread::sleep(Duration::from_millis(50));
        }
        over.store(true, Relaxed);
        println!("{said}");
    });
    // Pages of mapped files do not count: of a debug build's own code there are some 20 MiB.
    let (peak_mib, mapped_mib) = (status_bytes(pid, "VmHWM") >> 20, status_bytes(pid, "RssFile") >> 20);
    let figures =
        [&answered, &refused, &late, &written, &sent_away, &small, &small_refused].map(|f| f.load(Relaxed));
    let [answered, refused, late, written, sent_away, small, small_refused] = figures;
    println!(
        "peak {peak_mib} of {limit_mib} MiB, {mapped_mib} of them mapped files; {answered} answered, {refused} refused, {late} too late, {small} small ones answered, {small_refused} refused; \
         {written} samples written, {sent_away} writes sent away"
    );
    assert!(peak_mib - mapped_mib <= limit_mib, "{peak_mib} MiB, {mapped_mib} of them mapped files");
    assert!(answered > 0 && refused > 0 && small > 0 && written > 0);
    assert_eq!(metric(&larum, "prometheus_rule_group_iterations_missed_total"), 0.0);
    assert_eq!(metric(&larum, "prometheus_rule_evaluation_failures_total"), 0.0);
    assert!(metric(&larum, "larum_memory_refused_total") >= refused as f64 / 2.0);
    // What was short comes back.
    wait_until("there is memory again", Duration::from_secs(20), || {
        let (status, _) =
            ask(&larum, "/api/v1/query", &[("query", "count by (__name__) ({__name__=~\".+\"})".to_owned())]);
        status == 200 && metric(&larum, "larum_memory_reserved_bytes") < (limit_mib << 20) as f64 / 2.0
    });
}
