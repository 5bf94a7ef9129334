//! What was acknowledged survives `kill -9`.
//!
//! The test program starts itself again as a child that appends, flushes and merges without end and
//! prints what was acknowledged; it is killed in the middle, and the folder is read. That happens 10
//! times, or as often as `LARUM_KILLS` says; `benches/accept` does the same to the server 50 times.
//! Another child deletes what it appends, and is killed 100 times.

use larum::storage::series_set::Columns;
use larum::storage::{Batch, Matcher, Source, Storage, TimeRange, Timestamp};
use larum::{Labels, Options};
use std::collections::{BTreeMap, BTreeSet};
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

/// How often the child that deletes is killed.
const DELETING_KILLS: u64 = 100;

/// A round of the child that deletes appends so many samples of each of its series, ...
const ROUND_SAMPLES: i64 = 20;

/// ... so many milliseconds apart, and deletes the times in the middle from every other series.
const ROUND_STEP_MS: i64 = 50;

const ROUND_SERIES: i64 = 8;

/// The times of the samples of a round.
fn round_times(round: i64) -> impl Iterator<Item = i64> {
    (0..ROUND_SAMPLES).map(move |i| (round * ROUND_SAMPLES + i) * ROUND_STEP_MS)
}

/// What a round deletes.
fn round_deletes(round: i64) -> TimeRange {
    let times: Vec<i64> = round_times(round).collect();
    TimeRange::new(times[5], times[14])
}

/// The child: appends and deletes round after round until it is killed.
#[test]
#[ignore = "the child of a_delete_of_a_range_survives_100_kills"]
fn deleting_child() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let storage = Storage::open(Path::new(&folder), options()).unwrap();
    let start = std::env::var("START").unwrap().parse::<i64>().unwrap();
    let even = [vec![Matcher::equal("parity", "even")]];
    let mut out = std::io::stdout();
    for round in start.. {
        let mut batch = Batch::new();
        for series in 0..ROUND_SERIES {
            let (name, parity) = (series.to_string(), if series % 2 == 0 { "even" } else { "odd" });
            let pairs = [("__name__", "m"), ("series", name.as_str()), ("parity", parity)];
            let labels = Labels::from_pairs(pairs).unwrap();
            round_times(round).for_each(|t| batch.push(&labels, Timestamp::from_millis(t), t as f64));
        }
        while let Err(error) = storage.append(&batch) {
            // A backlog passes.
            std::thread::sleep(error.retry_after.min(Duration::from_millis(50)));
        }
        writeln!(out, "acknowledged {round}").unwrap();
        if round % 3 == 0 {
            storage.flush().unwrap();
        }
        storage.delete(&even, round_deletes(round)).unwrap();
        writeln!(out, "deleted {round}").unwrap();
        match round % 5 {
            0 => storage.clean_tombstones().unwrap(),
            1 => storage.compact().unwrap(),
            _ => {}
        }
    }
}

#[test]
fn a_delete_of_a_range_survives_100_kills() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("data");
    let (mut appended, mut deleted) = (BTreeSet::new(), BTreeSet::new());
    for kill in 0..DELETING_KILLS {
        let start = appended.last().map_or(0, |last| last + 2);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["deleting_child", "--exact", "--ignored", "--nocapture"])
            .env(FOLDER, &folder)
            .env("START", start.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut note = |line: &str| {
            for (what, rounds) in [("acknowledged ", &mut appended), ("deleted ", &mut deleted)] {
                rounds.extend(line.split_once(what).map(|(_, round)| round.parse::<i64>().unwrap()));
            }
            line.contains("acknowledged ") || line.contains("deleted ")
        };
        let wanted = 1 + kill * 7 % 11;
        let mut count = 0;
        while count < wanted {
            let line = lines.next().expect("the child writes until it is killed").unwrap();
            count += u64::from(note(&line));
        }
        // So that kills fall anywhere in what follows the line, which takes some milliseconds.
        std::thread::sleep(Duration::from_micros(kill * 7919 % 20_000));
        child.kill().unwrap();
        child.wait().unwrap();
        // What it still said before the end.
        for line in lines.map_while(Result::ok) {
            note(&line);
        }
        check_deleted(&folder, &appended, &mut deleted);
    }
    let storage = Storage::open(&folder, options()).unwrap();
    storage.clean_tombstones().unwrap();
    assert_eq!(storage.stats().partitions_with_tombstones, 0);
    storage.close().unwrap();
    check_deleted(&folder, &appended, &mut deleted);
    let (appended, deleted) = (appended.len(), deleted.len());
    println!("{DELETING_KILLS} kills, {appended} rounds appended, {deleted} deletions, none lost or undone");
}

/// Checks that what was appended is there, and what was deleted is not. A deletion that was under way
/// is done as a whole or not at all; one that is done is added to `deleted`.
fn check_deleted(folder: &Path, appended: &BTreeSet<i64>, deleted: &mut BTreeSet<i64>) {
    let storage = Storage::open(folder, options()).unwrap();
    let view = storage.view();
    let set = view.select(&[], TimeRange::ALL).unwrap();
    assert_eq!(set.len(), ROUND_SERIES as usize);
    let mut columns = Columns::default();
    let mut left: BTreeMap<i64, usize> = BTreeMap::new();
    for index in 0..set.len() {
        let is_even = set.labels(index).get("parity") == Some("even");
        let samples = set.load(index, &mut columns).unwrap();
        let found: BTreeSet<i64> = samples.timestamps.iter().copied().collect();
        for &round in appended {
            let range = round_deletes(round);
            for t in round_times(round) {
                match is_even && range.contains(t) {
                    true => *left.entry(round).or_default() += usize::from(found.contains(&t)),
                    false => assert!(found.contains(&t), "{t} of round {round} is missing"),
                }
            }
        }
    }
    let whole = 10 * ROUND_SERIES as usize / 2;
    for (round, left) in left {
        match left {
            0 => drop(deleted.insert(round)),
            left => assert!(left == whole && !deleted.contains(&round), "{left} of round {round} are left"),
        }
    }
    assert_eq!(set.warnings(), Vec::<String>::new());
}
