//! What was acknowledged survives `kill -9`.
//!
//! The test program starts itself again as a child that appends, flushes and merges without end and
//! prints what was acknowledged; it is killed in the middle, and the folder is read. That happens 10
//! times, or as often as `LARUM_KILLS` says; `benches/accept` does the same to the server 50 times.

use larum::storage::series_set::Columns;
use larum::storage::{Batch, Source, Storage, TimeRange, Timestamp};
use larum::{Labels, Options};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Tells the child which folder to write to.
const FOLDER: &str = "LARUM_CRASH_TEST_FOLDER";

/// Series that the child writes.
const SERIES: i64 = 50;

/// So many batches are acknowledged before each kill, at least; then again from the start.
const BATCHES: [i64; 10] = [1, 40, 5, 150, 2, 80, 20, 60, 10, 100];

fn options() -> Options {
    // A few batches fill the WAL, so that cuts and merges run all the time.
    Options { wal_bytes: 4 << 10, ..Options::default() }
}

/// The child: appends batch after batch until it is killed.
#[test]
#[ignore = "the child of acknowledged_samples_survive_kill_9"]
fn child() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let storage = Storage::open(Path::new(&folder), options()).unwrap();
    let start = std::env::var("START").unwrap().parse::<i64>().unwrap();
    let mut out = std::io::stdout();
    for batch_number in start.. {
        let mut batch = Batch::new();
        for series in 0..SERIES {
            let labels = Labels::from_pairs([("__name__", "m"), ("series", &series.to_string())]).unwrap();
            batch.push(&labels, Timestamp::from_millis(batch_number * 1000), (batch_number * series) as f64);
        }
        match storage.append(&batch) {
            Ok(appended) => assert_eq!(appended.accepted, SERIES as usize),
            Err(error) => {
                // A backlog passes.
                std::thread::sleep(error.retry_after.min(Duration::from_millis(50)));
                continue;
            }
        }
        writeln!(out, "acknowledged {batch_number}").unwrap();
        if batch_number % 20 == 0 {
            storage.flush().unwrap();
        }
    }
}

#[test]
fn acknowledged_samples_survive_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("data");
    let mut acknowledged = Vec::new();
    let mut next = 1;
    let kills = std::env::var("LARUM_KILLS").map_or(BATCHES.len(), |text| text.parse().unwrap());
    for batches in BATCHES.into_iter().cycle().take(kills) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--ignored", "--nocapture"])
            .env(FOLDER, &folder)
            .env("START", next.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut count = 0;
        while count < batches {
            assert!(Instant::now() < deadline, "{count} batches in a minute");
            let line = lines.next().expect("the child writes until it is killed").unwrap();
            count += note(&line, &mut acknowledged);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it still said before the end.
        for line in lines.map_while(Result::ok) {
            note(&line, &mut acknowledged);
        }
        next = acknowledged.last().unwrap() + 2;
        check(&folder, &acknowledged, kills);
    }
    println!("{kills} kills, {} batches acknowledged, none lost", acknowledged.len());
}

/// Adds what a line acknowledges; 1 if it does.
fn note(line: &str, acknowledged: &mut Vec<i64>) -> i64 {
    let Some((_, number)) = line.split_once("acknowledged ") else { return 0 };
    acknowledged.push(number.parse().unwrap());
    1
}

fn check(folder: &Path, acknowledged: &[i64], kills: usize) {
    let storage = Storage::open(folder, options()).unwrap();
    let view = storage.view();
    let set = view.select(&[], TimeRange::ALL).unwrap();
    assert_eq!(set.len(), SERIES as usize);
    let mut columns = Columns::default();
    for index in 0..set.len() {
        let series: i64 = set.labels(index).get("series").unwrap().parse().unwrap();
        let samples = set.load(index, &mut columns).unwrap();
        let found: BTreeMap<i64, f64> = samples.timestamps.iter().copied().zip(samples.floats).collect();
        for &batch in acknowledged {
            assert_eq!(found.get(&(batch * 1000)), Some(&((batch * series) as f64)), "batch {batch}");
        }
        // Only the batch under way when the child was killed may be there on top.
        assert!(found.len() <= acknowledged.len() + kills);
    }
    assert_eq!(set.warnings(), Vec::<String>::new());
}
