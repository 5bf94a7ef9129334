//! `larum tsdb import` and its API from outside, with text and with blocks that a real Prometheus wrote
//! (`tests/prometheus_blocks`, made by `tests/real_import.rs`).
#![cfg(feature = "server")]

mod support;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use support::{Larum, get_with, now_ms, post};

/// A counter of two series with as many samples as asked for.
fn text(samples: i64, start_s: i64) -> String {
    let mut text = "# TYPE m counter\n".to_owned();
    for i in 0..samples {
        text.push_str(&format!("m_total{{series=\"{}\"}} {i} {}\n", i % 2, start_s + i));
    }
    text + "# EOF\n"
}

/// Runs `larum tsdb import` with text for its standard input.
fn import(words: &[&str], data: &Path, input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_larum"))
        .args(["tsdb", "import"])
        .args(words)
        .arg(format!("--storage.tsdb.path={}", data.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Who stops reading has seen enough.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn blocks() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/prometheus_blocks")
}

fn count(larum: &Larum, query: &str, time_s: i64) -> String {
    let time = time_s.to_string();
    let answer =
        get_with(&format!("{}/api/v1/query", larum.url), &[("query", query), ("time", &time)]).unwrap();
    answer.json()["data"]["result"][0]["value"][1].as_str().unwrap_or("none").to_owned()
}

#[test]
fn text_is_imported_from_a_pipe_and_faults_are_told_with_file_line_and_column() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let keep_all = "--storage.tsdb.retention.time=0";
    let imported = import(&["openmetrics", "-", keep_all], &data, text(500, 1000).as_bytes());
    assert_eq!((out(&imported).as_str(), imported.status.code()), ("500 samples imported\n", Some(0)));

    let file = dir.path().join("wrong.om");
    std::fs::write(&file, "m 1 5\nm 2 6\nm x 7\n# EOF\n").unwrap();
    let name = file.to_str().unwrap();
    let failed = import(&["openmetrics", name, keep_all], &data, b"");
    assert_eq!((out(&failed).as_str(), failed.status.code()), ("2 samples imported\n", Some(1)));
    assert!(err(&failed).contains(&format!("{name}:3:3: expected a value, found 'x'")), "{}", err(&failed));

    // Without a time of their own, samples need one from the user.
    let failed = import(&["openmetrics", "-"], &data, b"m 1\n# EOF\n");
    assert!(err(&failed).contains("-:1:4: the sample has no timestamp"), "{}", err(&failed));
    let imported = import(&["openmetrics", "-", "--timestamp=now"], &data, b"m 1\n# EOF\n");
    assert_eq!(out(&imported), "1 samples imported\n");
}

#[test]
fn what_is_older_than_retention_is_counted_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let now_s = now_ms() / 1000;
    let mut both = text(6, now_s - 20 * 86_400);
    both.truncate(both.len() - "# EOF\n".len());
    both += "m_total{series=\"0\"} 6 ";
    both += &format!("{}\n# EOF\n", now_s - 60);
    let imported = import(&["openmetrics", "-"], &dir.path().join("data"), both.as_bytes());
    assert_eq!(imported.status.code(), Some(1));
    let printed = out(&imported);
    assert!(
        printed.starts_with("1 samples imported\n6 samples refused, too_old (--storage.tsdb.retention.time)"),
        "{printed}"
    );
    assert!(printed.contains("series {__name__=\"m_total\", series=\"0\"}, timestamp "), "{printed}");
}

#[test]
fn blocks_of_prometheus_are_imported_without_what_was_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let words = ["prometheus", &blocks().display().to_string(), "--storage.tsdb.retention.time=0"];
    for _ in 0..2 {
        let imported = import(&words, &data, b"");
        let printed = out(&imported);
        assert_eq!(imported.status.code(), Some(0), "{printed}{}", err(&imported));
        assert!(
            printed.starts_with("706 samples imported\n24 samples left out that had been deleted\n"),
            "{printed}"
        );
    }
    let storage = larum::storage::Storage::open(&data, larum::Options::default()).unwrap();
    storage.compact().unwrap();
    drop(storage);
    let inspection = larum::storage::inspect::Inspection::open(&data).unwrap();
    let samples: u64 = inspection.partitions().map(|p| p.header.unwrap().sample_count).sum();
    assert_eq!(samples, 706, "what is imported twice is merged away");
}

#[test]
fn damage_in_a_block_costs_what_it_covers_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let name = "01M7ZPF57CC1WWKSWRRNBJCVA5";
    let flip = |file: &str, at: usize| {
        let block = dir.path().join("blocks").join(name);
        std::fs::create_dir_all(block.join("chunks")).unwrap();
        for file in ["index", "meta.json", "tombstones", "chunks/000001"] {
            std::fs::copy(blocks().join(name).join(file), block.join(file)).unwrap();
        }
        let mut bytes = std::fs::read(block.join(file)).unwrap();
        bytes[at] ^= 1;
        std::fs::write(block.join(file), bytes).unwrap();
        let words = ["prometheus", block.to_str().unwrap(), "--storage.tsdb.retention.time=0"];
        let imported = import(&words, &dir.path().join(format!("{}-{at}", file.replace('/', "-"))), b"");
        assert_eq!(imported.status.code(), Some(1), "{}", err(&imported));
        out(&imported)
    };
    let printed = flip("chunks/000001", 100);
    assert!(printed.starts_with("72 samples imported\n") && printed.contains("1 faults"), "{printed}");
    assert!(printed.contains("chunks/000001: {__name__=\"cpu_seconds_total\", cpu=\""), "{printed}");
    assert!(printed.contains("checksum mismatch"), "{printed}");
    let printed = flip("tombstones", 8);
    assert!(printed.starts_with("0 samples imported\n") && printed.contains("what was deleted"), "{printed}");
    let printed = flip("index", 20);
    assert!(
        printed.starts_with("0 samples imported\n") && printed.contains("symbols at offset"),
        "{printed}"
    );
}

#[test]
fn a_folder_without_blocks_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let failed = import(&["prometheus", dir.path().to_str().unwrap()], &dir.path().join("data"), b"");
    assert!(err(&failed).contains("neither a block of Prometheus"), "{}", err(&failed));
    assert!(!dir.path().join("data").exists());
}

#[test]
fn a_server_takes_text_and_blocks_while_it_runs() {
    let dir = tempfile::tempdir().unwrap();
    let larum = Larum::start(dir.path(), &["--storage.tsdb.retention.time=0"]);
    let url = format!("{}/api/v1/import/openmetrics", larum.url);
    let send = |query: &str, text: &str| post(&format!("{url}{query}"), &[], text.as_bytes()).unwrap();

    let answer = send("", &text(200_000, 1_000_000));
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.json()["data"]["samples"], 200_000);
    assert_eq!(count(&larum, "sum(count_over_time(m_total[1d]))", 1_080_000), "80001");

    let answer = send("", "m 1 5\nm 2\n# EOF\n");
    assert_eq!((answer.status, &answer.json()["errorType"]), (400, &"bad_data".into()));
    assert!(
        answer.body.contains("2:4: the sample has no timestamp")
            && answer.body.contains("the 1 samples before")
    );
    assert_eq!(send("?timestamp=7", "m 2\n# EOF\n").json()["data"]["samples"], 1);
    assert_eq!(count(&larum, "m", 7), "2");
    assert_eq!(send("?timestamp=soon", "# EOF\n").status, 400);
    let refused = send("", "m{a=\"1\",a=\"2\"} 1 5\nm 1 99999999999\nm 1 6\n# EOF\n").json();
    assert_eq!(refused["data"]["samples"], 1, "{refused}");
    assert_eq!(refused["data"]["refused"][0]["reason"], "invalid_labels");
    assert_eq!(refused["data"]["refused"][1]["reason"], "too_far_ahead");
    let gzip = post(&url, &[("Content-Encoding", "gzip")], b"").unwrap();
    assert_eq!(gzip.status, 400);

    let to = format!("--url={}", larum.url);
    let imported = import(&["prometheus", blocks().to_str().unwrap(), &to], dir.path(), b"");
    assert!(out(&imported).starts_with("706 samples imported\n"), "{}{}", out(&imported), err(&imported));
    let imported = import(
        &["openmetrics", "-", &to],
        dir.path(),
        b"x{a=\"1\",a=\"2\"} 1 5\ny 1 99999999999\nz 1 5\n# EOF\n",
    );
    let printed = out(&imported);
    assert!(
        printed.starts_with("1 samples imported\n1 samples refused, invalid_labels; the first: dup"),
        "{printed}"
    );
    assert!(printed.contains("1 samples refused, too_far_ahead; the first: "), "{printed}");
    assert_eq!(imported.status.code(), Some(1));
}
