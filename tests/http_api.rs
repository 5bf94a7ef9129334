//! The server from outside: every answer to a write, the shapes of the API, and what it refuses.

mod support;

use serde_json::json;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;
use support::{
    Larum, Response, free_port, get, get_with, now_ms, post, remote_write, shared, wait_until, write_request,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// Runs larum with `args` until it ends by itself.
fn run(args: &[&str], dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_larum")).args(args).current_dir(dir).output().expect("larum runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Posts `body` to the write path, compressed unless it is a raw body, with further headers.
fn write_raw(larum: &Larum, headers: &[(&str, &str)], body: &[u8]) -> Response {
    let mut all = vec![("Content-Type", "application/x-protobuf")];
    all.extend_from_slice(headers);
    post(&format!("{}/api/v1/write", larum.url), &all, body).expect("the server answers")
}

fn snappy(body: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(body).expect("snappy compresses")
}

/// One query at one time; the body of the answer.
fn query(larum: &Larum, query: &str, t_ms: i64) -> String {
    let time = format!("{}.{:03}", t_ms / 1000, t_ms % 1000);
    let url = format!("{}/api/v1/query", larum.url);
    get_with(&url, &[("query", query), ("time", &time)]).expect("the server answers").body
}

/// Sends `request` as it stands and reads until the server closes the connection.
fn exchange(larum: &Larum, request: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", larum.port)).expect("the server accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    stream.write_all(request.as_bytes()).expect("the request is sent");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn a_command_line_that_cannot_be_understood_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(&["--web.listen-adress=127.0.0.1:0"], dir.path());
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--web.listen-adress"), "{}", stderr(&output));
    assert!(stderr(&output).contains("--web.listen-address"), "the suggestion: {}", stderr(&output));

    std::fs::write(dir.path().join("bad.yml"), "global:\n  evaluation_intervall: 1s\n").unwrap();
    let output = run(&["--config.file=bad.yml"], dir.path());
    assert_eq!(output.status.code(), Some(1));
    let expected = "larum: --config.file: bad.yml:2:3: unknown field `evaluation_intervall`";
    assert!(stderr(&output).starts_with(expected), "{}", stderr(&output));

    let output = run(&["--version"], dir.path());
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("larum {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn files_are_checked_without_starting() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("good.yml", "groups: [{name: g, rules: [{record: a, expr: up}]}]\n");
    write("tab.yml", "groups:\n\t- name: g\n");
    write("unknown.yml", "groups:\n- name: g\n  rulez: []\n");
    write("config.yml", "rule_files: [good.yml]\n");
    assert_eq!(run(&["check", "rules", "good.yml"], dir.path()).status.code(), Some(0));
    assert_eq!(run(&["check", "config", "config.yml"], dir.path()).status.code(), Some(0));
    for (file, place) in [("tab.yml", "tab.yml:2:"), ("unknown.yml", "unknown.yml:3:3:")] {
        let output = run(&["check", "rules", file], dir.path());
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).starts_with(place), "{}", stderr(&output));
    }
    // What a server refuses that keeps to Prometheus' syntax is refused.
    write("experimental.yml", "groups: [{name: g, rules: [{record: a, expr: 'mad_over_time(up[5m])'}]}]\n");
    let check = |strict: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_larum"));
        command.args(["check", "rules", "experimental.yml"]).current_dir(dir.path());
        command.env("LARUM_QUERY_STRICT_PROMETHEUS", strict).output().unwrap()
    };
    assert_eq!(check("false").status.code(), Some(0));
    let refused = check("true");
    assert!(stderr(&refused).contains("experimental"), "{}", stderr(&refused));
    assert_eq!(refused.status.code(), Some(1));
}

#[test]
fn a_folder_that_cannot_be_used_is_refused_in_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let larum = Larum::start(dir.path(), &[]);
    let address = format!("--web.listen-address=127.0.0.1:{}", free_port());
    let output = run(&["--storage.tsdb.path=data", &address, "--log.level=error"], dir.path());
    assert_eq!(output.status.code(), Some(1));
    let error = stderr(&output);
    let holder = format!("data folder data is in use by another process (pid {})", larum.process.id());
    assert!(error.starts_with(&format!("larum: --storage.tsdb.path: {holder}")), "{error}");
    let mode = std::fs::metadata(dir.path().join("data")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "nobody else may read the data");

    let taken = format!("--web.listen-address=127.0.0.1:{}", larum.port);
    let output = run(&["--storage.tsdb.path=other", &taken, "--log.level=error"], dir.path());
    assert!(stderr(&output).contains(&taken), "{}", stderr(&output));

    std::fs::create_dir_all(dir.path().join("prometheus/chunks_head")).unwrap();
    std::fs::create_dir_all(dir.path().join("prometheus/wal")).unwrap();
    std::fs::write(dir.path().join("prometheus/wal/00000000"), "").unwrap();
    let output = run(&["--storage.tsdb.path=prometheus", &address, "--log.level=error"], dir.path());
    assert!(stderr(&output).contains("holds Prometheus' data"), "{}", stderr(&output));
}

#[test]
fn a_query_ends_when_its_client_goes_away() {
    let dir = tempfile::tempdir().unwrap();
    let larum = Larum::start(dir.path(), &["--query.timeout=10m"]);
    let running = || {
        let page = get(&format!("{}/metrics", larum.url)).expect("the server answers").body;
        page.contains("\nprometheus_engine_queries 1\n")
    };
    let mut client = TcpStream::connect(("127.0.0.1", larum.port)).expect("the server accepts");
    // 11,000 windows of 360,000 samples, which takes minutes.
    let query = "quantile_over_time(0.5,vector(1)[100h:1s])";
    let request = format!(
        "GET /api/v1/query_range?query={query}&start=0&end=11000&step=1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    );
    client.write_all(request.as_bytes()).expect("the request is sent");
    wait_until("the query runs", PATIENCE, running);
    drop(client);
    wait_until("the query has ended", PATIENCE, || !running());
    let memory = get(&format!("{}/api/v1/status/memory", larum.url)).expect("the server answers").json();
    assert_eq!(memory["data"]["reservedBytes"]["queries"], 0, "{memory}");
}

#[test]
fn a_write_is_answered_by_what_came_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let larum = Larum::start(dir.path(), &["--storage.tsdb.retention.time=1d"]);
    let now = now_ms();
    let up = [("__name__", "up"), ("job", "a")];
    let kept = remote_write(&larum.url, &[(&up, &[(now, 1.0)])]);
    assert_eq!((kept.status, kept.body.as_str()), (204, ""));
    let again = remote_write(&larum.url, &[(&up, &[(now, 1.0)])]);
    assert_eq!(again.status, 204, "what is there already is a no-op: {}", again.body);

    // Good samples of a request are kept, bad ones are named.
    let no_name = [("job", "a")];
    let long = "x".repeat(10 << 20);
    let too_long = [("__name__", "up"), ("path", long.as_str())];
    let (old, ahead) = (now - 2 * 86_400_000, now + 3_600_000);
    type Labels<'a> = &'a [(&'a str, &'a str)];
    let cases: [(Labels, i64, &str); 8] = [
        (&no_name, now, "__name__ is missing"),
        (&[("__name__", "up"), ("a", "1"), ("a", "2")], now, "duplicate label name \"a\""),
        (&[("__name__", "up"), ("", "1")], now, "empty name"),
        (&too_long, now, "10485760 bytes long, 16384 are allowed"),
        (&up, old, "older than retention"),
        (&up, ahead, "too far ahead of now"),
        (&up, i64::MAX, "too far ahead of now"),
        (&up, i64::MIN, "older than retention"),
    ];
    for (i, (labels, t_ms, reason)) in cases.into_iter().enumerate() {
        let good_name = format!("good_{i}");
        let good = [("__name__", good_name.as_str())];
        let answer = remote_write(&larum.url, &[(labels, &[(t_ms, 2.0)]), (&good, &[(now, 3.0)])]);
        assert_eq!(answer.status, 400, "{reason}: {}", answer.body);
        let head: String = answer.body.chars().take(1024).collect();
        assert!(head.starts_with("refused 1 of 2: "), "{head}");
        for part in [reason, ", series {", &format!(", timestamp {t_ms}\n")] {
            assert!(head.contains(part), "{part} in {head}");
        }
        assert!(query(&larum, &good_name, now).contains("\"3\""), "the good sample beside: {reason}");
    }

    // Labels in any order and empty values are the same series.
    let mixed = [("job", "a"), ("empty", ""), ("__name__", "up")];
    assert_eq!(remote_write(&larum.url, &[(&mixed, &[(now + 1, 5.0)])]).status, 204);
    assert!(query(&larum, "count(up)", now + 1).contains(",\"1\"]"));

    // What is no write request at all.
    let request = snappy(&write_request(&[(&up, &[(now, 1.0)])]));
    let gzip = write_raw(&larum, &[("Content-Encoding", "gzip")], &request);
    assert_eq!(gzip.status, 415);
    for proto in ["proto=io.prometheus.write.v2.Request", " proto = io.prometheus.write.v2.Request"] {
        let content_type = format!("application/x-protobuf;{proto}");
        let url = format!("{}/api/v1/write", larum.url);
        assert_eq!(post(&url, &[("Content-Type", &content_type)], &request).unwrap().status, 415);
    }
    let garbage = write_raw(&larum, &[], &snappy(&[0xff; 100]));
    assert_eq!(garbage.status, 400);
    assert!(garbage.body.contains("at byte 0"), "{}", garbage.body);
    let truncated = write_raw(&larum, &[], &request[..request.len() - 5]);
    assert_eq!((truncated.status, truncated.body.contains("no snappy block")), (400, true));
    let claim = write_raw(&larum, &[], &[0xff, 0xff, 0xff, 0xff, 0x0f, 1, 2, 3, 4, 5]);
    assert_eq!(claim.status, 400);
    assert!(claim.body.contains("4294967295 bytes long"), "{}", claim.body);
    let huge = write_raw(&larum, &[], &vec![0; (32 << 20) + 1]);
    assert_eq!(huge.status, 400);
    assert!(huge.body.contains("longer than 33554432 bytes"), "{}", huge.body);
    assert!(query(&larum, "up", now).contains("\"success\""), "it still answers");
}

#[test]
fn acknowledged_samples_survive_kill_9_and_a_clean_stop() {
    let dir = tempfile::tempdir().unwrap();
    let start = now_ms() - 60_000;
    let labels = [("__name__", "kept")];
    let mut larum = Larum::start(dir.path(), &[]);
    for round in 0..3 {
        for i in 0..20 {
            let t_ms = start + round * 1000 + i;
            assert_eq!(remote_write(&larum.url, &[(&labels, &[(t_ms, 1.0)])]).status, 204);
        }
        if round == 1 {
            assert_eq!(larum.process.stop(PATIENCE), Some(0), "a clean stop");
        } else {
            larum.process.kill_9();
        }
        larum = Larum::start(dir.path(), &[]);
        let expected = format!(",\"{}\"]", 20 * (round + 1));
        let counted = query(&larum, "count_over_time(kept[2m])", start + 60_000);
        assert!(counted.contains(&expected), "{expected} in {counted}");
    }
}

#[test]
fn two_signals_at_once_are_one_wish_to_stop() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..5 {
        let larum = Larum::start(dir.path(), &[]);
        assert_eq!(remote_write(&larum.url, &[(&[("__name__", "kept")], &[(now_ms(), 1.0)])]).status, 204);
        larum.process.signal("INT");
        assert_eq!(larum.process.stop(PATIENCE), Some(0), "a clean stop");
    }
}

#[test]
fn answers_to_queries_are_prometheus_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let larum = Larum::start(dir.path(), &[]);
    let t = now_ms() / 1000 * 1000 - 60_000;
    let a = [("__name__", "m"), ("path", "/a<\"b\">&c")];
    let b = [("__name__", "m"), ("path", "/b")];
    let a_samples = [(t, 1.5), (t + 15_120, 1e-7), (t + 30_000, f64::INFINITY)];
    let written = remote_write(&larum.url, &[(&a, &a_samples), (&b, &[(t, 1e21)])]);
    assert_eq!(written.status, 204, "{}", written.body);
    let s = t / 1000;

    let metric_a = r#"{"__name__":"m","path":"/a<\"b\">&c"}"#;
    let metric_b = r#"{"__name__":"m","path":"/b"}"#;
    let success = |kind: &str, result: &str| {
        format!(r#"{{"status":"success","data":{{"resultType":"{kind}","result":{result}}}}}"#)
    };
    let instant = |q: &str| query(&larum, q, t);
    for (selector, metric, value) in
        [("m{path!=\"/b\"}", metric_a, "1.5"), ("m{path=\"/b\"}", metric_b, "1e+21")]
    {
        let result = format!(r#"[{{"metric":{metric},"value":[{s},"{value}"]}}]"#);
        assert_eq!(instant(selector), success("vector", &result));
    }
    assert_eq!(instant("nothing"), success("vector", "[]"));
    assert_eq!(instant("1e21"), success("scalar", &format!(r#"[{s},"1000000000000000000000"]"#)));
    assert_eq!(instant("\"a<b\""), success("string", &format!(r#"[{s},"a\u003cb"]"#)));
    assert_eq!(
        query(&larum, "m{path=~\"/a.*\"}[1m]", t + 30_000),
        success(
            "matrix",
            &format!(
                r#"[{{"metric":{metric_a},"values":[[{s},"1.5"],[{}.120,"1e-07"],[{},"+Inf"]]}}]"#,
                s + 15,
                s + 30
            )
        )
    );

    let range_url = format!("{}/api/v1/query_range", larum.url);
    let (start, end) = (s.to_string(), (s + 30).to_string());
    let range = [("query", "m{path=\"/b\"} * 2"), ("start", &start), ("end", &end), ("step", "15s")];
    let expected = success(
        "matrix",
        &format!(
            r#"[{{"metric":{{"path":"/b"}},"values":[[{s},"2e+21"],[{},"2e+21"],[{},"2e+21"]]}}]"#,
            s + 15,
            s + 30
        ),
    );
    assert_eq!(get_with(&range_url, &range).unwrap().body, expected);
    let form = format!("query=m%7Bpath%3D%22%2Fb%22%7D+*+2&start={start}&end={end}&step=15");
    let posted = post(&range_url, &[("Content-Type", "application/x-www-form-urlencoded")], form.as_bytes());
    assert_eq!(posted.unwrap().body, expected, "GET and form POST are alike");

    let text = |path: &str| get(&format!("{}{path}", larum.url)).unwrap().body;
    assert_eq!(text("/api/v1/labels"), r#"{"status":"success","data":["__name__","path"]}"#);
    assert_eq!(
        text("/api/v1/label/path/values"),
        r#"{"status":"success","data":["/a\u003c\"b\"\u003e\u0026c","/b"]}"#
    );
    assert_eq!(
        text("/api/v1/label/U__pa_74_h/values?limit=1"),
        format!(
            r#"{{"status":"success","data":["/a\u003c\"b\"\u003e\u0026c"],"warnings":["results truncated due to limit"]}}"#
        )
    );
    assert_eq!(text("/api/v1/label/no%2Fsuch%20name/values"), r#"{"status":"success","data":[]}"#);
    assert_eq!(
        text("/api/v1/series?match[]=m"),
        format!(r#"{{"status":"success","data":[{metric_a},{metric_b}]}}"#)
    );
    let limited = text("/api/v1/query?query=m&limit=1&time=");
    assert!(limited.ends_with(r#"]},"warnings":["results truncated due to limit"]}"#), "{limited}");
    for (path, data) in [
        ("/api/v1/rules", json!({ "groups": [] })),
        ("/api/v1/alerts", json!({ "alerts": [] })),
        ("/api/v1/metadata", json!({})),
        ("/api/v1/targets", json!({ "activeTargets": [], "droppedTargets": [], "droppedTargetCounts": {} })),
        ("/api/v1/alertmanagers", json!({ "activeAlertmanagers": [], "droppedAlertmanagers": [] })),
    ] {
        let answer = get(&format!("{}{path}", larum.url)).unwrap();
        assert_eq!(answer.json(), json!({ "status": "success", "data": data }), "{path}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{path}");
    }
}

#[test]
fn steps_are_used_again_and_answers_are_those_of_an_evaluation() {
    let dir = tempfile::tempdir().unwrap();
    let larum = Larum::start(dir.path(), &[]);
    // On a border of minutes, somewhat before now.
    let base = now_ms() / 60_000 * 60_000 - 600_000;
    let write = |samples: &[(i64, f64)]| {
        assert_eq!(remote_write(&larum.url, &[(&[("__name__", "m")], samples)]).status, 204);
    };
    let samples: Vec<(i64, f64)> = (0..20).map(|i| (base + i * 15_000, i as f64 / 7.0)).collect();
    write(&samples);
    let ask = |more: &[(&str, &str)]| {
        let (start, end) = ((base / 1000).to_string(), (base / 1000 + 285).to_string());
        let mut params = vec![("query", "rate(m[1m])"), ("start", &start), ("end", &end), ("step", "15")];
        params.extend_from_slice(more);
        get_with(&format!("{}/api/v1/query_range", larum.url), &params).expect("the server answers")
    };
    let figure = |series: &str| -> f64 {
        let page = get(&format!("{}/metrics", larum.url)).expect("the server answers").body;
        let line = page.lines().find_map(|line| line.strip_prefix(series)).expect(series);
        line.trim().parse().expect("a number")
    };
    let queries = |result: &str| figure(&format!("larum_query_cache_queries_total{{result=\"{result}\"}}"));
    let first = ask(&[]);
    assert!(first.body.contains("might not be a counter") && first.body.contains("[["), "{}", first.body);
    assert_eq!((queries("miss"), queries("hit")), (1.0, 0.0));
    assert_eq!(ask(&[]).body, first.body);
    assert_eq!((queries("miss"), queries("hit")), (1.0, 1.0));
    assert_eq!(ask(&[("nocache", "1")]).body, first.body);
    assert!(ask(&[("stats", "all")]).body.contains("\"stats\""));
    assert_eq!((queries("miss"), queries("hit"), queries("bypass")), (1.0, 1.0, 2.0));
    // A sample that comes late is seen at once.
    write(&[(base + 277_500, 1000.0)]);
    let late = ask(&[]).body;
    assert_eq!(late, ask(&[("nocache", "true")]).body);
    assert_ne!(late, first.body);
    assert_eq!(queries("partial"), 1.0);
    assert_eq!(figure("larum_query_cache_steps_total{from=\"cache\"}"), 39.0);
    assert_eq!(figure("larum_query_cache_steps_total{from=\"evaluation\"}"), 21.0);
    assert!(figure("larum_query_cache_bytes") > 300.0 && figure("larum_query_cache_runs") == 1.0);
    let unclear = ask(&[("nocache", "maybe")]);
    assert_eq!(unclear.status, 400);
    assert!(unclear.body.contains("nocache"), "{}", unclear.body);
    larum.process.kill_9();

    let larum = Larum::start(dir.path(), &["--query.cache-size=0"]);
    let range = [
        ("query", "m"),
        ("start", &(base / 1000).to_string()),
        ("end", &(base / 1000 + 60).to_string()),
        ("step", "15"),
    ];
    for _ in 0..2 {
        assert_eq!(get_with(&format!("{}/api/v1/query_range", larum.url), &range).unwrap().status, 200);
    }
    let page = get(&format!("{}/metrics", larum.url)).unwrap().body;
    assert!(page.contains("larum_query_cache_queries_total{result=\"hit\"} 0\n"), "{page}");
}

#[test]
fn queries_are_formatted_and_taken_apart() {
    let dir = tempfile::tempdir().unwrap();
    let larum = Larum::start(dir.path(), &[]);
    let ask = |path: &str, query: &str| {
        let answer = get_with(&format!("{}/api/v1/{path}", larum.url), &[("query", query)]).unwrap();
        (answer.status, answer.body)
    };
    let formatted = ask("format_query", "sum(rate(up{job=\"a<b\"}[300]))by(job)\n # why");
    let expected = r#"{"status":"success","data":"sum by (job) (rate(up{job=\"a\u003cb\"}[5m]))"}"#;
    assert_eq!(formatted, (200, expected.to_owned()));
    let parsed = ask("parse_query", "up{job!=\"a<b\"} > bool -1");
    let expected = concat!(
        r#"{"status":"success","data":{"bool":true,"lhs":{"anchored":false,"matchers":[{"name":"job","type":"!=","#,
        r#""value":"a\u003cb"},{"name":"__name__","type":"=","value":"up"}],"name":"up","offset":0,"smoothed":false,"#,
        r#""startOrEnd":null,"timestamp":null,"type":"vectorSelector"},"matching":null,"op":"\u003e","#,
        r#""rhs":{"type":"numberLiteral","val":"-1"},"type":"binaryExpr"}}"#
    );
    assert_eq!(parsed, (200, expected.to_owned()));
    let url = format!("{}/api/v1/parse_query", larum.url);
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let posted = post(&url, &form, b"query=up%7Bjob%21%3D%22a%3Cb%22%7D+%3E+bool+-1").unwrap();
    assert_eq!(posted.body, expected);
    for path in ["format_query", "parse_query"] {
        for (query, error) in [
            ("up +", "1:5: parse error: unexpected end of input"),
            ("", "unknown position: parse error: no expression found in input"),
            (
                "rate(up)",
                r#"1:6: parse error: expected type range vector in call to function "rate", got instant vector"#,
            ),
        ] {
            let (status, body) = ask(path, query);
            let body: serde_json::Value = serde_json::from_str(&body).unwrap();
            let told = (status, body["errorType"].as_str(), body["error"].as_str().unwrap());
            let expected = format!("invalid parameter \"query\": {error}");
            assert_eq!(told, (400, Some("bad_data"), expected.as_str()), "{path} {query}");
        }
    }
    // As deep as a query may be.
    let deep = format!("{}1{}", "(".repeat(990), ")".repeat(990));
    assert_eq!(ask("parse_query", &deep).1.matches("parenExpr").count(), 990);
}

#[test]
fn a_strict_server_refuses_what_prometheus_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let rules = dir.path().join("rules.yml");
    let config = dir.path().join("larum.yml");
    std::fs::write(&rules, "groups:\n- name: g\n  rules:\n  - {alert: A, expr: 'limitk(1, up)'}\n").unwrap();
    std::fs::write(&config, format!("rule_files: ['{}']\n", rules.display())).unwrap();
    let config_flag = format!("--config.file={}", config.display());
    let data = dir.path().join("data");
    let data_flag = format!("--storage.tsdb.path={}", data.display());
    let refused = run(&[&config_flag, &data_flag, "--query.strict-prometheus"], dir.path());
    let said = stderr(&refused);
    assert!(!refused.status.success());
    let reason = "limitk() is experimental and not enabled (--query.strict-prometheus is set, without \
                  --enable-feature=promql-experimental-functions)";
    assert!(said.contains("rules.yml:4:23") && said.contains(reason), "{said}");

    let flags = ["--query.strict-prometheus", "--enable-feature=promql-experimental-functions"];
    let larum = Larum::start(dir.path(), &flags);
    let now = now_ms();
    assert!(query(&larum, "limitk(1, vector(1))", now).contains("\"success\""));
    let error = query(&larum, "vector(1) + fill(1) vector(1)", now);
    assert!(error.contains("bad_data") && error.contains("promql-binop-fill-modifiers"), "{error}");
    let flags = get(&format!("{}/api/v1/status/flags", larum.url)).unwrap().json();
    assert_eq!(flags["data"]["query.strict-prometheus"], "true");
}

#[test]
fn faults_of_a_query_are_named_and_leave_the_server_answering() {
    let dir = tempfile::tempdir().unwrap();
    let larum = Larum::start(dir.path(), &[]);
    let error = |path: &str, parameters: &[(&str, &str)]| {
        let answer = get_with(&format!("{}{path}", larum.url), parameters).unwrap();
        let body = answer.json();
        let text = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
        (answer.status, text("errorType"), text("error"))
    };
    let nested = format!("{}1{}", "(".repeat(100_000), ")".repeat(100_000));
    let url = format!("{}/api/v1/query", larum.url);
    let form = format!("query={nested}");
    let deep = post(&url, &[("Content-Type", "application/x-www-form-urlencoded")], form.as_bytes()).unwrap();
    assert_eq!((deep.status, deep.json()["errorType"].as_str()), (400, Some("bad_data")));

    let (status, kind, message) = error("/api/v1/query", &[("query", "sum(")]);
    assert_eq!((status, kind.as_str()), (400, "bad_data"));
    assert!(message.starts_with("invalid parameter \"query\": 1:5: parse error: "), "{message}");
    let bomb = format!("up{{a=~\"{}\"}}", "(a{500}){500}");
    assert_eq!(error("/api/v1/query", &[("query", &bomb)]).0, 400);
    let cases = [
        (
            "/api/v1/query",
            &[("query", "up"), ("time", "soon")][..],
            400,
            "invalid parameter \"time\": cannot parse \"soon\" to a valid timestamp",
        ),
        (
            "/api/v1/query",
            &[("query", "up"), ("timeout", "x")],
            400,
            "invalid parameter \"timeout\": cannot parse \"x\" to a valid duration",
        ),
        (
            "/api/v1/query_range",
            &[("query", "up"), ("start", "2"), ("end", "1"), ("step", "1")],
            400,
            "invalid parameter \"end\": end timestamp must not be before start time",
        ),
        (
            "/api/v1/query_range",
            &[("query", "up"), ("start", "1"), ("end", "2"), ("step", "0")],
            400,
            "invalid parameter \"step\": zero or negative query resolution step widths are not accepted. Try a positive integer",
        ),
        (
            "/api/v1/query_range",
            &[("query", "up"), ("start", "0"), ("end", "11001"), ("step", "1")],
            400,
            "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)",
        ),
        ("/api/v1/series", &[], 400, "no match[] parameter provided"),
        ("/api/v1/series", &[("match[]", "{}")], 400, "invalid parameter \"match[]\": "),
    ];
    for (path, parameters, status, message) in cases {
        let (got, _, text) = error(path, parameters);
        assert!(got == status && text.starts_with(message), "{path} {parameters:?}: {got} {text}");
    }
    let nowhere = get(&format!("{}/api/v1/nothing", larum.url)).unwrap();
    assert_eq!(nowhere.status, 404);
    let disabled = post(&format!("{}/api/v1/admin/tsdb/flush", larum.url), &[], b"").unwrap();
    assert!(disabled.body.contains("admin APIs disabled"), "{}", disabled.body);
    let disabled = post(&format!("{}/-/reload", larum.url), &[], b"").unwrap();
    assert_eq!((disabled.status, disabled.body.as_str()), (403, "Lifecycle API is not enabled.\n"));
    assert!(query(&larum, "1", 0).contains("success"), "it still answers");
}

#[test]
fn foreign_hosts_and_origins_are_refused_on_loopback() {
    let dir = tempfile::tempdir().unwrap();
    let larum = Larum::start(dir.path(), &["--web.enable-admin-api"]);
    let status = |host: &str, more: &str, method: &str, path: &str| {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\n{more}Content-Length: 0\r\nConnection: close\r\n\r\n"
        );
        let answer = exchange(&larum, &request);
        assert!(!answer.to_lowercase().contains("access-control"), "no CORS headers: {answer}");
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    let own = format!("127.0.0.1:{}", larum.port);
    assert_eq!(status(&own, "", "GET", "/-/healthy"), "200");
    assert_eq!(status("localhost:1", "", "GET", "/-/healthy"), "200");
    assert_eq!(status("evil.example", "", "GET", "/-/healthy"), "403");
    assert_eq!(status("evil.example", "", "POST", "/api/v1/write"), "403");
    let evil = "Origin: http://evil.example\r\n";
    assert_eq!(status(&own, evil, "POST", "/api/v1/admin/tsdb/flush"), "403");
    assert_eq!(status(&own, "", "HEAD", "/-/ready"), "200");
    assert_eq!(status(&own, "", "POST", "/api/v1/admin/tsdb/flush"), "204");
}

#[test]
fn pages_for_people_are_whole_and_load_nothing_from_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let larum = Larum::start(dir.path(), &[]);
    // By the way of somebody who opens the address, and by the link in an alert.
    for path in ["/", "/graph?g0.expr=up+%3E+0&g0.tab=1", "/query", "/alerts", "/rules"] {
        let page = get(&format!("{}{path}", larum.url)).unwrap();
        assert!(page.status == 200 && page.body.starts_with("<!doctype html>"), "{path}: {}", page.body);
        let policy = page.header("content-security-policy").unwrap_or_default();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    }
    let mut names = vec!["page.html".to_owned(), "README.md".to_owned()];
    let mut found = get(&format!("{}/graph", larum.url)).unwrap().body;
    loop {
        // Relative, so that it works below a prefix.
        let quoted = found.split('"').map(|name| name.trim_start_matches("assets/").trim_start_matches("./"));
        let new = quoted.filter(|name| name.ends_with(".js") || name.ends_with(".css"));
        let new: BTreeSet<String> = new.map(str::to_owned).filter(|name| !names.contains(name)).collect();
        if new.is_empty() {
            break;
        }
        found.clear();
        for name in new {
            let asset = get(&format!("{}/assets/{name}", larum.url)).unwrap();
            let kind = if name.ends_with(".css") { "text/css" } else { "text/javascript" };
            assert!(asset.header("content-type").is_some_and(|found| found.starts_with(kind)), "{name}");
            found += &asset.body;
            names.push(name);
        }
    }
    let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/web")).unwrap();
    let mut files: Vec<String> =
        folder.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    files.sort();
    assert_eq!(names, files, "what is served, and what there is");
}

#[test]
fn status_pages_and_metrics_tell_about_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let config = "global: {evaluation_interval: 1s}\nalerting:\n  alertmanagers:\n  - basic_auth: {username: u, \
                  password: hunter2}\n    static_configs: [{targets: ['127.0.0.1:1']}]\n";
    std::fs::write(dir.path().join("larum.yml"), config).unwrap();
    let flag = format!("--config.file={}", dir.path().join("larum.yml").display());
    let larum = Larum::start(dir.path(), &[&flag, "--web.enable-lifecycle"]);
    let page = |path: &str| get(&format!("{}{path}", larum.url)).unwrap();
    let shown = page("/api/v1/status/config").body;
    assert!(shown.contains("evaluation_interval") && !shown.contains("hunter2"), "{shown}");
    assert_eq!(page("/api/v1/status/flags").json()["data"]["web.enable-lifecycle"], "true");
    assert_eq!(page("/api/v1/status/runtimeinfo").json()["data"]["storageRetention"], "15d");
    assert!(page("/api/v1/status/buildinfo").json()["data"]["version"].is_string());
    let status = page("/api/v1/status/tsdb?limit=1").json()["data"].clone();
    assert!(status["headStats"]["numSeries"].is_number());
    for list in ["seriesCountByMetricName", "memoryInBytesByLabelName", "seriesCountByLabelValuePair"] {
        assert!(status[list].as_array().is_some_and(|list| list.len() <= 1), "{status}");
    }
    let retention = page("/api/v1/status/tsdb/retention").json()["data"].clone();
    assert!(retention["bytesNow"].as_u64().is_some_and(|bytes| bytes > 0), "{retention}");
    assert_eq!(retention["bytesNow"], retention["bytesAfter"]);
    assert!(retention["bytesByKind"]["wal"].is_number() && retention["limitBytes"].is_null(), "{retention}");
    let damage = page("/api/v1/status/tsdb/damage").json()["data"].clone();
    assert_eq!((&damage["damaged"], &damage["scrub"]["intervalSeconds"]), (&json!([]), &json!(86_400.0)));
    assert_eq!(page("/api/v1/status/walreplay").json()["data"]["state"], "done");
    assert_eq!(page("/health").status, 200);
    let metrics = page("/metrics");
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    for line in [
        "prometheus_ready 1\n",
        "prometheus_config_last_reload_successful 1\n",
        "# TYPE prometheus_tsdb_head_samples_appended_total counter\n",
        "prometheus_http_requests_total{handler=\"/health\",code=\"200\"} 1\n",
        "prometheus_notifications_alertmanagers_discovered 1\n",
    ] {
        assert!(metrics.body.contains(line), "{line} in {}", metrics.body);
    }

    std::fs::write(dir.path().join("larum.yml"), "global: [").unwrap();
    let reload = || post(&format!("{}/-/reload", larum.url), &[], b"").unwrap();
    let failed = reload();
    assert_eq!(failed.status, 500);
    assert!(failed.body.contains("larum.yml:1:"), "{}", failed.body);
    assert!(failed.body.ends_with("\nThe old configuration stays in force.\n"), "{}", failed.body);
    assert!(page("/metrics").body.contains("prometheus_config_last_reload_successful 0\n"));
    assert!(page("/api/v1/status/config").body.contains("evaluation_interval"), "the old one is in force");
    let config = "global: {evaluation_interval: 2s}\nstorage:\n  tsdb: {retention: {time: 20d, size: 10GB}}\n  \
                  retention: [{match: '{job=\"ci\"}', keep: 3d}]\n  cleanup_schedule: CRON_TZ=Asia/Tokyo 0 2 * * *\n";
    std::fs::write(dir.path().join("larum.yml"), config).unwrap();
    larum.process.signal("HUP");
    wait_until("SIGHUP loads the configuration", PATIENCE, || {
        page("/api/v1/status/config").body.contains("evaluation_interval: 2s")
    });
    let retention = page("/api/v1/status/tsdb/retention?limit=1").json()["data"].clone();
    assert_eq!(retention["limitBytes"], 10_u64 << 30);
    assert_eq!(retention["retentionSeconds"], json!(20.0 * 86_400.0));
    let policy =
        json!({"match": "{job=\"ci\"}", "keepSeconds": 3.0 * 86_400.0, "bytesNow": 0, "bytesAfter": 0});
    assert_eq!((&retention["policies"][0], &retention["policies"][1]["match"]), (&policy, &json!(null)));
    assert_eq!(retention["cleanupSchedule"], "CRON_TZ=Asia/Tokyo 0 2 * * *");
    assert!(retention["nextCleanup"].as_str().is_some_and(|at| at.ends_with("T17:00:00Z")), "{retention}");
    assert!(retention["metrics"].is_array() && retention["uncountedPartitions"] == 0, "{retention}");
    assert_eq!(page("/api/v1/status/runtimeinfo").json()["data"]["storageRetention"], "20d or 10GiB");
    assert!(page("/metrics").body.contains("\nlarum_retention_policies 2\n"));
    assert!(page("/metrics").body.contains("\nprometheus_tsdb_retention_limit_seconds 1.728e+06\n"));
    let mut larum = larum;
    post(&format!("{}/-/quit", larum.url), &[], b"").expect("it says good bye");
    wait_until("it ends", PATIENCE, || !larum.process.is_running());
}

#[test]
fn the_admin_api_flushes_compacts_deletes_and_copies() {
    let dir = tempfile::tempdir().unwrap();
    let larum = Larum::start(dir.path(), &["--web.enable-admin-api"]);
    let now = now_ms();
    let series = |name: &'static str| [("__name__", name)];
    let (gone, stays) = (series("gone"), series("stays"));
    remote_write(&larum.url, &[(&gone, &[(now, 1.0)]), (&stays, &[(now, 2.0)])]);
    let admin = |what: &str| post(&format!("{}/api/v1/admin/tsdb/{what}", larum.url), &[], b"").unwrap();
    assert_eq!(admin("flush").status, 204);
    assert!(query(&larum, "gone", now).contains("\"1\""), "from the partition");
    let preview = admin("delete_series?match[]=gone&dry_run=true");
    assert_eq!(preview.status, 200);
    let preview = preview.json();
    let counts = &preview["data"];
    assert_eq!((&counts["series"], &counts["samples"]), (&1.into(), &1.into()));
    assert!(counts["bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{counts}");
    assert!(query(&larum, "gone", now).contains("\"1\""), "a preview deletes nothing");
    assert_eq!(admin("delete_series?match[]=gone").status, 204);
    for wrong in ["delete_series", "delete_series?match[]=gone&dry_run=perhaps"] {
        assert_eq!(admin(wrong).status, 400, "{wrong}");
    }
    assert!(query(&larum, "gone", now).contains("\"result\":[]"));
    let names = get(&format!("{}/api/v1/label/__name__/values", larum.url)).unwrap().json();
    assert!(!names["data"].to_string().contains("gone"), "{names}");
    assert!(larum.process.log().contains(r#"{__name__=\"gone\"}"#), "{}", larum.process.log());
    for what in ["compact", "trust_clock", "clean_tombstones"] {
        assert_eq!(admin(what).status, 204, "{what}");
    }
    let jobs = get(&format!("{}/api/v1/admin/tsdb/jobs", larum.url)).unwrap().json();
    let job = &jobs["data"][0];
    assert_eq!((&job["kind"], &job["state"]), (&"clean_tombstones".into(), &"done".into()), "{jobs}");
    assert_eq!(admin(&format!("jobs/{}/cancel", job["id"])).status, 404, "it is over");
    assert_eq!(admin("jobs/x/cancel").status, 400);
    assert!(query(&larum, "stays", now).contains("\"2\""));
    let snapshot = admin("snapshot");
    let name = snapshot.json()["data"]["name"].as_str().expect("the name of the copy").to_owned();
    let copy = tempfile::tempdir().unwrap();
    std::fs::rename(dir.path().join("data/snapshots").join(name), copy.path().join("data")).unwrap();
    let opened = Larum::start(copy.path(), &[]);
    assert!(query(&opened, "stays", now).contains("\"2\""), "the copy opens on its own");
}

#[test]
fn the_files_and_flags_of_users_work_as_they_are() {
    let Some(inputs) = shared("inputs/prometheus.yml") else { return };
    let inputs = inputs.parent().expect("a folder");
    let dir = tempfile::tempdir().unwrap();
    let config = std::fs::read_to_string(inputs.join("prometheus.yml")).unwrap();
    let local = config.replace("alertmanager:9093", "127.0.0.1:1");
    std::fs::write(dir.path().join("prometheus.yml"), local).unwrap();
    std::fs::copy(inputs.join("alert-rules.yml"), dir.path().join("alert-rules.yml")).unwrap();
    let flag = format!("--config.file={}", dir.path().join("prometheus.yml").display());
    let flags = [
        flag.as_str(),
        "--web.console.libraries=/etc/prometheus/console_libraries",
        "--web.console.templates=/etc/prometheus/consoles",
        "--web.enable-lifecycle",
        "--web.enable-admin-api",
    ];
    let larum = Larum::start(dir.path(), &flags);
    let rules = get(&format!("{}/api/v1/rules", larum.url)).unwrap().json();
    assert_eq!(rules["data"]["groups"][0]["rules"].as_array().map(Vec::len), Some(7));
    assert!(larum.process.log().contains("not scraped yet"), "{}", larum.process.log());
}

#[test]
fn idle_connections_make_room_and_a_request_in_flight_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let larum = Larum::start(dir.path(), &["--web.max-connections=4"]);
    let connect = || TcpStream::connect(("127.0.0.1", larum.port)).expect("the kernel accepts");
    let form = "query=1";
    let head = format!(
        "POST /api/v1/query HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nExpect: 100-continue\r\n\r\n",
        form.len()
    );
    let mut in_flight = connect();
    in_flight.set_read_timeout(Some(PATIENCE)).unwrap();
    in_flight.write_all(head.as_bytes()).unwrap();
    let mut go_on = [0; 25];
    in_flight.read_exact(&mut go_on).expect("the server waits for the body");
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");

    // Silent ones, one that sends its head byte by byte, and one that was served and stays.
    let mut idle: Vec<TcpStream> = (0..20).map(|_| connect()).collect();
    idle[0].write_all(b"GET /metrics HTTP/1.1\r\nHos").unwrap();
    let mut served = connect();
    served.write_all(b"GET /-/ready HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    served.set_read_timeout(Some(PATIENCE)).unwrap();
    served.read_exact(&mut [0; 12]).expect("it is served");
    for _ in 0..20 {
        assert_eq!(get(&format!("{}/-/ready", larum.url)).map(|r| r.status), Some(200));
    }
    in_flight.write_all(form.as_bytes()).unwrap();
    let mut answer = String::new();
    in_flight.read_to_string(&mut answer).expect("it was not closed");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    drop(idle);
}
