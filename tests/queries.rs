//! Queries seen from outside: those that run, how an operator ends one, what queries cost, where they are
//! logged, what they say of themselves, and that small ones do not wait for long ones.

mod support;

use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use support::{
    Larum, Response, get, get_with, now_ms, post, real_server, remote_write, start_prometheus, wait_until,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// Takes minutes, unless somebody ends it.
const SLOW: &str = "max_over_time(quantile_over_time(0.5, vector(time())[1d:1s])[1d:1s])";

/// Without rules of its own, whose queries would be seen, too.
fn start(dir: &Path, flags: &[&str]) -> Larum {
    Larum::start(dir, &[&["--rules.self-monitoring=false"], flags].concat())
}

/// Asks `query` in a thread of its own.
fn ask_aside(larum: &Larum, query: &'static str) -> std::thread::JoinHandle<Response> {
    let url = format!("{}/api/v1/query", larum.url);
    std::thread::spawn(move || get_with(&url, &[("query", query)]).expect("the server answers"))
}

fn data(larum: &Larum, path: &str) -> Value {
    get(&format!("{}{path}", larum.url)).expect("the server answers").json()["data"].take()
}

fn active(larum: &Larum) -> Vec<Value> {
    data(larum, "/api/v1/status/active_queries").as_array().expect("a list").clone()
}

fn wait_for_active(larum: &Larum, what: &str, is_there: impl Fn(&Value) -> bool) -> Value {
    let mut found = Value::Null;
    wait_until(what, PATIENCE, || {
        found = active(larum).into_iter().find(&is_there).unwrap_or(Value::Null);
        !found.is_null()
    });
    found
}

fn cancel(larum: &Larum, id: &Value) -> Response {
    post(&format!("{}/api/v1/admin/queries/{id}/cancel", larum.url), &[], b"").expect("the server answers")
}

/// Ten series of 60 samples each, every 10 s until now.
fn fill(url: &str, end_ms: i64) {
    let names: Vec<String> = (0..10).map(|n| n.to_string()).collect();
    for name in &names {
        let labels = [("__name__", "m_total"), ("n", name.as_str())];
        let samples: Vec<(i64, f64)> = (0..60).map(|t| (end_ms - (59 - t) * 10_000, t as f64)).collect();
        let response = remote_write(url, &[(&labels, &samples)]);
        assert!(matches!(response.status, 200 | 204), "{}", response.body);
    }
}

#[test]
fn a_query_is_seen_while_it_waits_and_runs_and_an_operator_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    // One thread for anything, and one for small queries.
    let larum = start(dir.path(), &["--query.max-concurrency=2", "--web.enable-admin-api"]);
    let first = ask_aside(&larum, SLOW);
    let running = wait_for_active(&larum, "the query runs", |q| q["state"] == "running");
    assert_eq!((&running["query"], &running["kind"]), (&json!(SLOW), &json!("instant")));
    let origin = &running["origin"];
    assert_eq!((&origin["type"], &origin["address"]), (&json!("client"), &json!("127.0.0.1")));
    assert_eq!((&origin["method"], &origin["path"]), (&json!("GET"), &json!("/api/v1/query")));
    assert!(running["elapsedSeconds"].as_f64() > Some(0.0) && running["memoryBytes"].is_u64(), "{running}");

    // As slow, written otherwise.
    let second =
        ask_aside(&larum, "0 + max_over_time(quantile_over_time(0.5, vector(time())[1d:1s])[1d:1s])");
    let waiting = wait_for_active(&larum, "another waits", |q| q["state"] == "waiting");
    assert_eq!(active(&larum).len(), 2);

    // Small ones are answered meanwhile.
    for query in ["1 + 1", "up"] {
        let answer = get_with(&format!("{}/api/v1/query", larum.url), &[("query", query)]).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    let metrics = get(&format!("{}/metrics", larum.url)).unwrap().body;
    assert!(metrics.contains("larum_queries_small_lane_total 2\n"), "{metrics}");
    assert!(metrics.contains("larum_queries_active 2\n"), "{metrics}");

    for (id, asked) in [(&waiting["id"], second), (&running["id"], first)] {
        assert_eq!(cancel(&larum, id).status, 204);
        let answer = asked.join().unwrap();
        assert_eq!(answer.status, 499, "{}", answer.body);
        let json = answer.json();
        assert_eq!(json["errorType"], "canceled");
        let expected = format!(
            "query was canceled in expression evaluation: by an operator at 127.0.0.1 (/api/v1/admin/queries/{id}/cancel)"
        );
        assert_eq!(json["error"], json!(expected));
    }
    wait_until("both are over", PATIENCE, || active(&larum).is_empty());
    let none = cancel(&larum, &running["id"]);
    assert_eq!((none.status, &none.json()["errorType"]), (404, &json!("not_found")));
    assert_eq!(cancel(&larum, &json!("x")).status, 400);
}

#[test]
fn only_who_administrates_may_cancel() {
    let dir = tempfile::tempdir().unwrap();
    let larum = start(dir.path(), &[]);
    let refused = cancel(&larum, &json!(1));
    assert_eq!((refused.status, &refused.json()["error"]), (503, &json!("admin APIs disabled")));
}

#[test]
fn queries_of_rules_are_seen_logged_and_ended_like_others() {
    let dir = tempfile::tempdir().unwrap();
    let rule = format!("groups:\n- name: g\n  interval: 1s\n  rules:\n  - record: slow\n    expr: {SLOW}\n");
    std::fs::write(dir.path().join("rules.yml"), rule).unwrap();
    let config = "global:\n  query_log_file: queries.log\nrule_files: [rules.yml]\n";
    std::fs::write(dir.path().join("larum.yml"), config).unwrap();
    let config = format!("--config.file={}", dir.path().join("larum.yml").display());
    let larum = start(dir.path(), &[&config, "--web.enable-admin-api", "--web.enable-lifecycle"]);
    let running = wait_for_active(&larum, "the rule's query runs", |q| q["origin"]["type"] == "rule");
    let origin = &running["origin"];
    assert_eq!((&origin["group"], &origin["rule"]), (&json!("g"), &json!("slow")));
    assert_eq!(cancel(&larum, &running["id"]).status, 204);
    wait_until("the rule says why it failed", PATIENCE, || {
        let rules = data(&larum, "/api/v1/rules");
        let error = rules["groups"][0]["rules"][0]["lastError"].as_str().unwrap_or("").to_owned();
        error.starts_with("query was canceled in expression evaluation: by an operator")
    });

    let log = |name: &str| -> Vec<Value> {
        let text = std::fs::read_to_string(dir.path().join(name)).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
    };
    wait_until("the rule's query is logged", PATIENCE, || !log("queries.log").is_empty());
    let line = &log("queries.log")[0];
    assert_eq!((&line["params"]["query"], &line["ruleGroup"]["name"]), (&json!(SLOW), &json!("g")));
    assert!(line["error"].as_str().is_some_and(|error| error.contains("by an operator")), "{line}");

    // Another file from the next reload on; one that cannot be written is refused, and the old one stays.
    let reload = |file: &str| {
        let config = format!("global:\n  query_log_file: {file}\n");
        std::fs::write(dir.path().join("larum.yml"), config).unwrap();
        post(&format!("{}/-/reload", larum.url), &[], b"").unwrap()
    };
    let refused = reload("none/queries.log");
    assert_eq!(refused.status, 500);
    assert!(refused.body.contains("larum.yml:2:19: query_log_file: "), "{}", refused.body);
    assert_eq!(reload("others.log").status, 200);
    let ask = |query| get_with(&format!("{}/api/v1/query", larum.url), &[("query", query)]).unwrap();
    assert_eq!(ask("1 + 1").status, 200);
    wait_until("the query is logged", PATIENCE, || {
        log("others.log").iter().any(|l| l["params"]["query"] == "1 + 1")
    });
    let lines = log("others.log");
    let line = lines.iter().find(|line| line["params"]["query"] == "1 + 1").unwrap();
    let request = json!({ "clientIP": "127.0.0.1", "method": "GET", "path": "/api/v1/query" });
    assert_eq!(line["httpRequest"], request);
    assert!(line["stats"]["timings"]["execTotalTime"].as_f64() > Some(0.0), "{line}");
    let metrics = get(&format!("{}/metrics", larum.url)).unwrap().body;
    assert!(metrics.contains("prometheus_engine_query_log_enabled 1\n"), "{metrics}");
    assert!(metrics.contains("prometheus_engine_query_log_failures_total 0\n"), "{metrics}");
}

#[test]
fn a_query_log_that_cannot_be_written_is_an_error_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("larum.yml"), "global:\n  query_log_file: none/queries.log\n").unwrap();
    let args = ["--config.file=larum.yml", "--storage.tsdb.path=data", "--web.listen-address=127.0.0.1:0"];
    let output =
        Command::new(env!("CARGO_BIN_EXE_larum")).args(args).current_dir(dir.path()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(
        error.contains("larum: --config.file: larum.yml:2:19: query_log_file: none/queries.log: "),
        "{error}"
    );
}

#[test]
fn a_full_disk_under_the_query_log_costs_lines_and_nothing_else() {
    if !Path::new("/dev/full").exists() {
        return eprintln!("skipped: there is no /dev/full here");
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("larum.yml"), "global:\n  query_log_file: /dev/full\n").unwrap();
    let config = format!("--config.file={}", dir.path().join("larum.yml").display());
    let larum = start(dir.path(), &[&config]);
    for _ in 0..3 {
        assert_eq!(get(&format!("{}/api/v1/query?query=1", larum.url)).unwrap().status, 200);
    }
    wait_until("the lines are counted", PATIENCE, || {
        let metrics = get(&format!("{}/metrics", larum.url)).unwrap().body;
        metrics.contains("prometheus_engine_query_log_failures_total 3\n")
    });
    assert!(larum.process.log().contains("queries are not logged until it can be written"));
}

#[test]
fn what_queries_cost_is_added_up_by_query_and_by_dashboard_and_rule() {
    let dir = tempfile::tempdir().unwrap();
    let larum = start(dir.path(), &[]);
    fill(&larum.url, now_ms());
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let grafana = [form[0], ("X-Dashboard-Uid", "abc"), ("X-Panel-Id", "7"), ("X-Grafana-Org-Id", "1")];
    // The same query, however it is written.
    for (headers, body) in [
        (&form[..], "query=sum(m_total)"),
        (&grafana[..], "query=sum+(+m_total+)"),
        (&grafana[..], "query=sum(m_total)"),
        (&grafana[..], "query=count(m_total)"),
        (&form[..], "query=m_total+%2B+on()+m_total"),
    ] {
        let _ = post(&format!("{}/api/v1/query", larum.url), headers, body.as_bytes()).unwrap();
    }
    let top = data(&larum, "/api/v1/status/top_queries?sort=count&limit=2");
    let queries = top["byQuery"].as_array().unwrap();
    assert_eq!(queries.len(), 2);
    let sum = &queries[0];
    assert_eq!(
        (&sum["query"], &sum["count"], &sum["errors"]),
        (&json!("sum(m_total)"), &json!(3), &json!(0))
    );
    assert!(sum["samples"].as_u64() >= Some(30), "{sum}");
    assert!(
        sum["totalSeconds"].as_f64() >= sum["maxSeconds"].as_f64() && sum["maxSeconds"].as_f64() > Some(0.0)
    );
    assert!(sum["peakMemoryBytes"].as_u64() > Some(0), "{sum}");
    let origin = &top["byOrigin"][0];
    let panel = json!({ "type": "dashboard", "orgId": "1", "dashboardUid": "abc", "panelId": "7" });
    assert_eq!((&origin["origin"], &origin["count"]), (&panel, &json!(3)));
    let other = &top["byOrigin"][1];
    assert_eq!((&other["origin"]["address"], &other["errors"]), (&json!("127.0.0.1"), &json!(1)));
    assert_eq!(get(&format!("{}/api/v1/status/top_queries?sort=size", larum.url)).unwrap().status, 400);
}

#[test]
fn a_query_explains_what_it_would_read_and_what_it_took() {
    let dir = tempfile::tempdir().unwrap();
    let larum = start(dir.path(), &[]);
    let end_ms = now_ms();
    fill(&larum.url, end_ms);
    let (start, end) = ((end_ms - 300_000) / 1000, end_ms / 1000);
    let ask = |explain: &str| {
        let (start, end) = (start.to_string(), end.to_string());
        let parameters = [
            ("query", "sum(rate(m_total[1m]))"),
            ("start", &start),
            ("end", &end),
            ("step", "60"),
            ("explain", explain),
        ];
        get_with(&format!("{}/api/v1/query_range", larum.url), &parameters).unwrap()
    };
    let plain = ask("false").json();
    let explained = ask("true").json();
    assert_eq!(
        (&explained["data"]["result"], &plain["data"]["explain"]),
        (&plain["data"]["result"], &Value::Null)
    );
    let explain = &explained["data"]["explain"];
    let selector = &explain["estimate"]["selectors"][0];
    assert_eq!((&selector["selector"], &selector["series"]), (&json!("m_total[1m]"), &json!(10)));
    assert!(selector["samples"].as_u64() >= Some(350) && selector["bytes"].as_u64() > Some(0), "{selector}");
    let sum = &explain["measured"];
    let matrix = &sum["children"][0]["children"][0];
    assert_eq!(
        (&sum["kind"], &sum["seriesIn"], &sum["seriesOut"]),
        (&json!("aggregation"), &json!(10), &json!(1))
    );
    assert_eq!((&matrix["expr"], &matrix["samples"]), (&json!("m_total[1m]"), &selector["samples"]));
    assert!(
        explain["text"].as_str().is_some_and(|text| text.contains("\n    call: rate(m_total[1m]) (")),
        "{explain}"
    );

    let estimate = ask("estimate").json();
    assert_eq!(
        (&estimate["data"]["result"], &estimate["data"]["explain"]["measured"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(estimate["data"]["explain"]["estimate"], explain["estimate"]);
    let text = ask("text");
    assert!(text.header("content-type").is_some_and(|t| t.starts_with("text/plain")), "{}", text.body);
    assert!(text.body.starts_with("estimate\n  m_total[1m]: 10 series, "), "{}", text.body);
    assert_eq!(ask("maybe").status, 400);
}

/// The keys of an object, and of those in it.
fn keys(value: &Value) -> Vec<String> {
    let Some(object) = value.as_object() else { return Vec::new() };
    let inside = object.iter().flat_map(|(name, value)| {
        std::iter::once(name.clone()).chain(keys(value).into_iter().map(move |key| format!("{name}.{key}")))
    });
    inside.collect()
}

#[test]
fn stats_are_those_of_a_real_prometheus() {
    let Some(prometheus) = real_server("prometheus") else { return };
    let dir = tempfile::tempdir().unwrap();
    let larum = start(dir.path(), &["--storage.tsdb.retention.time=100y"]);
    let flags = ["--web.enable-remote-write-receiver", "--enable-feature=promql-per-step-stats"];
    let (_prometheus, url) = start_prometheus(&prometheus, dir.path(), |_| "global: {}\n".to_owned(), &flags);
    let end_ms = now_ms() / 60_000 * 60_000;
    fill(&larum.url, end_ms);
    fill(&url, end_ms);
    // No sample lies on the border of a window: to which it belongs has changed since Prometheus 2.
    let (start, end) = (end_ms / 1000 - 297, (end_ms / 1000 + 3).to_string());
    for query in [
        "m_total",
        "sum(m_total)",
        "sum(rate(m_total[1m]))",
        "rate(m_total[1m]) > 0.05 or m_total offset 2m",
        "sum_over_time(m_total[2m] @ end())",
        "m_total @ end()",
        "max_over_time(sum(m_total)[2m:20s])",
        "max_over_time(rate(m_total[30s])[1m:10s])",
        "histogram_quantile(0.9, m_total)",
        "timestamp(m_total)",
        "absent(m_none)",
        "vector(1)",
    ] {
        let start = start.to_string();
        let range = [("query", query), ("start", &start), ("end", &end), ("step", "30")];
        let instant = [("query", query), ("time", &end)];
        for (path, parameters) in [("query_range", &range[..]), ("query", &instant[..])] {
            let ask = |url: &str, stats: &'static str| {
                let parameters = [parameters, &[("stats", stats)]].concat();
                let answer = get_with(&format!("{url}/api/v1/{path}"), &parameters).expect("an answer");
                assert_eq!(answer.status, 200, "{query}: {}", answer.body);
                answer.json()["data"].take()
            };
            for stats in ["all", "true", "1", ""] {
                let (ours, theirs) = (ask(&larum.url, stats), ask(&url, stats));
                let (ours, theirs) = (&ours["stats"], &theirs["stats"]);
                // Newer ones have more; all that this one has is there.
                let missing: Vec<String> =
                    keys(theirs).into_iter().filter(|key| !keys(ours).contains(key)).collect();
                assert_eq!((ours.is_null(), &missing[..]), (theirs.is_null(), &[][..]), "{query} {stats}");
                for figure in ["totalQueryableSamples", "totalQueryableSamplesPerStep"] {
                    let (ours, theirs) = (&ours["samples"][figure], &theirs["samples"][figure]);
                    assert_eq!(ours, theirs, "{path} {query} {stats} {figure}");
                }
            }
        }
    }
}

#[test]
fn nobody_waits_for_long_queries_with_small_ones() {
    let dir = tempfile::tempdir().unwrap();
    let larum = start(dir.path(), &["--query.max-concurrency=4", "--web.enable-admin-api"]);
    let slow: Vec<_> = (0..8).map(|_| ask_aside(&larum, SLOW)).collect();
    wait_until("all are there", PATIENCE, || active(&larum).len() == 8);
    let begun = Instant::now();
    for _ in 0..20 {
        let answer = get(&format!("{}/api/v1/query?query=vector(1)", larum.url)).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    // Theirs take two minutes, as they may.
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    for query in active(&larum) {
        assert_eq!(cancel(&larum, &query["id"]).status, 204);
    }
    assert!(slow.into_iter().all(|asked| asked.join().unwrap().status == 499));
}
