//! Blocks that promtool and a real Prometheus made are imported, into a folder and into a server that
//! runs, and hold what promtool says they hold. Text is imported as promtool imports it.
#![cfg(feature = "server")]

mod support;

use larum::ingest::remote_write;
use larum::{Batch, Histogram, Labels};
use larum_storage_format::STALE_NAN;
use larum_storage_format::Span;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;
use support::{Larum, get_with, now_ms, post, real_server, start_prometheus, wait_until};

fn labels(name: &str, job: &str) -> Labels {
    Labels::from_pairs([("__name__", name), ("job", job), ("path", "a\\b\"\u{e9}")]).unwrap()
}

/// A day and a half of samples at odd intervals, with special values, as text. Blocks of promtool are
/// of two hours.
fn text(start_s: i64) -> String {
    let mut text = "# TYPE cpu_seconds counter\n# HELP cpu_seconds Of a day.\n".to_owned();
    for series in 0..5i64 {
        for i in 0..400i64 {
            let value = match (series, i % 50) {
                (1, 7) => "NaN".to_owned(),
                (1, 8) => "+Inf".to_owned(),
                (1, 9) => "-Inf".to_owned(),
                (2, _) => "42".to_owned(),
                (3, _) => format!("{}", (i as f64).sin()),
                _ => format!("{}", i * 1000 + series),
            };
            let t_s = start_s + i * 300 + (i * i * series) % 7;
            text.push_str(&format!(
                "cpu_seconds_total{{cpu=\"{series}\",path=\"a\\\\b\\\"\"}} {value} {t_s}.5\n"
            ));
        }
    }
    text + "# EOF\n"
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}{}", out(&output), err(&output));
    out(&output)
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn larum() -> Command {
    Command::new(env!("CARGO_BIN_EXE_larum"))
}

fn import(what: &str, from: &Path, data: &Path) -> Command {
    let mut command = larum();
    command.args(["tsdb", "import", what]).arg(from).arg("--storage.tsdb.retention.time=0");
    command.arg(format!("--storage.tsdb.path={}", data.display()));
    command
}

/// What a dump prints, in an order of its own.
fn sorted(dump: &str) -> Vec<String> {
    let mut lines: Vec<String> = dump.lines().map(str::to_owned).collect();
    lines.sort();
    assert!(lines.len() > 10, "{dump}");
    lines
}

fn dump(data: &Path) -> Vec<String> {
    let path = format!("--storage.tsdb.path={}", data.display());
    sorted(&succeed(larum().args(["tsdb", "dump", &path])))
}

fn promtool_dump(promtool: &Path, data: &Path) -> Vec<String> {
    // It reads nothing where there is no WAL.
    std::fs::create_dir_all(data.join("wal")).unwrap();
    sorted(&succeed(Command::new(promtool).args(["tsdb", "dump"]).arg(data)))
}

/// Prometheus 2.42 does not dump native histograms.
fn without_histograms(mut dump: Vec<String>) -> Vec<String> {
    dump.retain(|line| !line.contains("integers") && !line.contains("floats"));
    dump
}

/// How many samples the partitions hold once everything is merged.
fn merged_samples(data: &Path) -> u64 {
    let options = larum::Options::default();
    let storage = larum::storage::Storage::open(data, options).unwrap();
    storage.compact().unwrap();
    drop(storage);
    let inspection = larum::storage::inspect::Inspection::open(data).unwrap();
    inspection.partitions().map(|p| p.header.unwrap().sample_count).sum()
}

#[test]
fn text_and_the_blocks_that_promtool_makes_of_it_are_imported_alike() {
    let Some(promtool) = real_server("promtool") else { return };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let file = dir.join("history.om");
    std::fs::write(&file, text(1_700_000_000)).unwrap();
    let blocks = dir.join("blocks");
    succeed(
        Command::new(&promtool).args(["tsdb", "create-blocks-from", "openmetrics"]).arg(&file).arg(&blocks),
    );
    let expected = promtool_dump(&promtool, &blocks);

    let from_text = dir.join("from-text");
    let printed = succeed(&mut import("openmetrics", &file, &from_text));
    assert_eq!(printed, "2000 samples imported\n");
    assert_eq!(dump(&from_text), expected);
    let from_blocks = dir.join("from-blocks");
    let printed = succeed(&mut import("prometheus", &blocks, &from_blocks));
    assert_eq!(printed, "2000 samples imported\n");
    assert_eq!(dump(&from_blocks), expected);

    // Twice, and by both ways: nothing is doubled.
    succeed(&mut import("prometheus", &blocks, &from_text));
    assert_eq!(dump(&from_text), expected);
    assert_eq!(merged_samples(&from_text), 2000);

    // One block alone.
    let block = std::fs::read_dir(&blocks).unwrap().map(|entry| entry.unwrap().path()).find(|p| p.is_dir());
    let one = dir.join("one");
    succeed(&mut import("prometheus", &block.unwrap(), &one));
    let alone = dump(&one);
    assert!(alone.len() < expected.len() && alone.iter().all(|line| expected.binary_search(line).is_ok()));
}

/// Histograms of all kinds that Prometheus 2.42 takes, and a counter reset.
fn histograms(start_ms: i64) -> Batch {
    let mut batch = Batch::new();
    batch.push_series(&labels("integers", "h"));
    for i in 0..150i64 {
        // It begins anew in the middle, and gets another bucket.
        let n = if i < 100 { i } else { i - 100 } as f64;
        let wide = i > 30;
        let spans =
            vec![Span { offset: -2, length: 2 }, Span { offset: 3, length: if wide { 2 } else { 1 } }];
        let buckets = if wide { vec![n, 2.0 * n, 1.0, n] } else { vec![n, 2.0 * n, 1.0] };
        let histogram = Histogram {
            is_integer: true,
            schema: 0,
            zero_threshold: 2f64.powi(-128),
            zero_count: n,
            count: buckets.iter().sum::<f64>() + n + 3.0,
            sum: if i == 60 { STALE_NAN } else { n * 1.5 - 7.0 },
            positive_spans: spans,
            positive_buckets: buckets,
            negative_spans: vec![Span { offset: 0, length: 1 }],
            negative_buckets: vec![3.0],
            ..Histogram::default()
        };
        batch.histogram(start_ms + i * 1000, Arc::new(histogram));
    }
    // No gauges: Prometheus 2.42 fails to write their chunks again.
    for (job, factor) in [("f", 1.0), ("g", 0.1)] {
        batch.push_series(&labels("floats", job));
        for i in 0..130i64 {
            let n = i as f64 * factor + 0.25;
            let histogram = Histogram {
                schema: -1,
                zero_threshold: 0.001,
                zero_count: n / 3.0,
                count: 4.0 * n,
                sum: n.sqrt(),
                positive_spans: vec![Span { offset: 10, length: 2 }],
                positive_buckets: vec![n, n / 7.0],
                ..Histogram::default()
            };
            batch.histogram(start_ms + i * 1000, Arc::new(histogram));
        }
    }
    batch.push_series(&labels("plain", "p"));
    (0..200i64).for_each(|i| batch.sample(start_ms + i * 500, if i == 99 { STALE_NAN } else { i as f64 }));
    batch
}

#[test]
fn what_a_real_prometheus_holds_is_imported_into_a_folder_and_a_running_server() {
    let (Some(prometheus), Some(promtool)) = (real_server("prometheus"), real_server("promtool")) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    // Within one block, as Prometheus 2.42 fails to write a histogram's chunk again that lies across a
    // border.
    let start_ms = (now_ms() / 7_200_000 - 2) * 7_200_000 + 600_000;
    let file = dir.join("history.om");
    std::fs::write(&file, text(start_ms / 1000 - 3 * 86_400)).unwrap();
    let theirs = dir.join("prometheus");
    succeed(
        Command::new(&promtool).args(["tsdb", "create-blocks-from", "openmetrics"]).arg(&file).arg(&theirs),
    );
    let flags = [
        "--enable-feature=native-histograms",
        "--web.enable-remote-write-receiver",
        "--web.enable-admin-api",
        "--storage.tsdb.retention.time=10y",
        // No compaction, which would apply the tombstones.
        "--storage.tsdb.min-block-duration=2h",
        "--storage.tsdb.max-block-duration=2h",
    ];
    let (_process, prometheus_url) =
        start_prometheus(&prometheus, dir, |_| "global: {}\n".to_owned(), &flags);
    let body = remote_write::encode(&histograms(start_ms), &mut |_, e| panic!("{e}")).unwrap();
    let headers = [("Content-Type", "application/x-protobuf"), ("Content-Encoding", "snappy")];
    let written = post(&format!("{prometheus_url}/api/v1/write"), &headers, &body).unwrap();
    assert_eq!(written.status, 204, "{}", written.body);
    let admin = |what: &str| post(&format!("{prometheus_url}/api/v1/admin/tsdb/{what}"), &[], b"").unwrap();
    let from_s = start_ms / 1000 - 3 * 86_400 + 20_000;
    let delete = format!("delete_series?match[]=%7Bcpu%3D%223%22%7D&start={from_s}&end={}", from_s + 9_000);
    assert_eq!(admin(&delete).status, 204);
    let answer = admin("snapshot");
    let name = answer.json()["data"]["name"].as_str().unwrap_or_else(|| panic!("{}", answer.body)).to_owned();
    let snapshot = theirs.join("snapshots").join(name);
    let expected = promtool_dump(&promtool, &snapshot);
    let data = dir.join("folder");
    let printed = succeed(&mut import("prometheus", &snapshot, &data));
    assert!(printed.contains("30 samples left out that had been deleted"), "{printed}");
    assert_eq!(without_histograms(dump(&data)), expected);

    // The folder itself is refused as data, and its WAL is pointed out.
    let refused = larum().arg(format!("--storage.tsdb.path={}", theirs.display())).output().unwrap();
    assert!(
        !refused.status.success() && err(&refused).contains("larum tsdb import prometheus"),
        "{}",
        err(&refused)
    );
    let noted = import("prometheus", &theirs, &dir.join("whole")).output().unwrap();
    assert!(err(&noted).contains("/api/v1/admin/tsdb/snapshot"), "{}", err(&noted));

    // Into a server: the newest first, so that what is imported is older than what is there.
    let server = Larum::start(dir, &["--storage.tsdb.retention.time=0"]);
    let url = format!("--url={}", server.url);
    let sent = larum().args(["tsdb", "import", "prometheus", &url]).arg(&snapshot).output().unwrap();
    assert!(sent.status.success(), "{}{}", out(&sent), err(&sent));
    let histograms = |url: &str, query: &str| {
        // Off the samples, as Prometheus 2.42 has closed windows.
        let time = format!("{}.3", start_ms / 1000 + 400);
        let answer = get_with(&format!("{url}/api/v1/query"), &[("query", query), ("time", &time)]).unwrap();
        answer.json()["data"]["result"].clone()
    };
    for (query, series, samples) in [("integers[1h]", 1, 149), ("floats[1h]", 2, 130)] {
        let theirs = histograms(&prometheus_url, query);
        assert_eq!(theirs.as_array().map(Vec::len), Some(series), "{theirs}");
        assert_eq!(theirs[0]["histograms"].as_array().map(Vec::len), Some(samples));
        assert_eq!(histograms(&server.url, query), theirs);
    }
    // What is known of counter resets comes along, too.
    assert_eq!(histograms(&server.url, "resets(integers[1h])")[0]["value"][1], "1");
    drop(server);
    wait_until("the folder is free", Duration::from_secs(5), || {
        let path = format!("--storage.tsdb.path={}", dir.join("data").display());
        larum().args(["tsdb", "dump", &path, "--start=0"]).output().unwrap().status.success()
    });
    assert_eq!(without_histograms(dump(&dir.join("data"))), expected);
}
