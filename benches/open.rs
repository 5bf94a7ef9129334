//! How long an open takes: after `kill -9`, with the WAL at its bound, and after a clean stop, with
//! a year of partitions. Every figure is taken in a process of its own, as a start would be.
//!
//! `cargo bench --bench open` fills folders (a child process that is then killed), opens each
//! several times and prints the fastest. `-- 50k`, `-- 400k`, `-- bound` and `-- year` pick cases.
//!
//! What an open takes with one sample per series, divided by the series, is the cost of a series;
//! what the other samples add is the cost of a sample. Memory is the anonymous part of the resident
//! set (`RssAnon`), of the process that was killed and of the one that opened its folder.

#[path = "support/child.rs"]
mod child;
#[path = "support/scrapes.rs"]
mod scrapes;
mod support;

use larum::storage::options::Maintenance;
use larum::{Batch, Db, Labels, Options, Timestamp};
use scrapes::{Random, labels, value};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

const BATCH_SAMPLES: usize = 2_000;
const INTERVAL_MS: i64 = 15_000;
/// A UTC day begins.
const FIRST_MS: i64 = 20_000 * DAY_MS;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;
const OPENS: usize = 5;
/// Up to one of these the WAL of a generation grows unless it is told otherwise, as these series are
/// not so many that the bound depends on them.
const WAL_BOUND_BYTES: u64 = 128 << 20;
const WAL_BOUND_SAMPLES: i64 = 32_000_000;

fn open(path: &Path, now_ms: i64) -> Db {
    let now = Timestamp::from_millis(now_ms);
    // Stepped: what a start does of itself later is not part of the open.
    let options =
        Options { clock: Arc::new(move || now), maintenance: Maintenance::Stepped, ..Options::default() };
    Db::open(path, options).expect("the folder opens")
}

/// Appends a sample of each of `series` series at `rounds` times, or until the WAL is at its bound;
/// returns how many times that were.
fn fill(db: &Db, series: usize, rounds: i64, interval_ms: i64) -> i64 {
    let sets: Vec<Labels> = (0..series).map(labels).collect();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut batch = Batch::new();
    for round in 0..rounds {
        for (chunk, some) in sets.chunks(BATCH_SAMPLES).enumerate() {
            batch.clear();
            for (i, labels) in some.iter().enumerate() {
                let n = chunk * BATCH_SAMPLES + i;
                let t = scrapes::time(n, FIRST_MS + round * interval_ms);
                batch.push(labels, t, value(n, round, random.next()));
            }
            db.append(&batch).expect("the disk has room");
        }
        if wal_bytes(db.path()) > WAL_BOUND_BYTES || (round + 1) * series as i64 > WAL_BOUND_SAMPLES {
            return round + 1;
        }
    }
    rounds
}

/// The end of all samples of a fill.
fn end_ms(rounds: i64, interval_ms: i64) -> i64 {
    FIRST_MS + rounds * interval_ms + 60_000
}

/// Runs a task of a child: `fill` or `year` leaves a folder behind, `open` opens one.
fn work(task: &str, path: &Path, series: usize, rounds: i64) {
    match task {
        "fill" => {
            let db = open(path, end_ms(rounds, INTERVAL_MS));
            let rounds = fill(&db, series, rounds, INTERVAL_MS);
            println!("filled {} {rounds}", child::memory_mb());
            // Until it is killed.
            std::thread::park();
        }
        "year" => {
            let db = open(path, end_ms(rounds, DAY_MS / 4));
            fill(&db, series, rounds, DAY_MS / 4);
            db.close().expect("the disk has room");
            println!("filled");
        }
        "open" | "open-year" => {
            let now_ms = end_ms(rounds, if task == "open" { INTERVAL_MS } else { DAY_MS / 4 });
            let begun = Instant::now();
            let db = open(path, now_ms);
            let opened = begun.elapsed();
            let at = Timestamp::from_millis(now_ms);
            let mut batch = Batch::new();
            batch.push(&labels(0), at, 1.0);
            let appended = db.append(&batch).expect("the disk has room");
            assert_eq!(appended.accepted, 1);
            let written = begun.elapsed();
            let query = "count by (job) ({__name__=~\"http_requests_1_total|http_requests_2_total\"})";
            let answer = db.query(query, at).expect("it is a query");
            std::hint::black_box(answer);
            let answered = begun.elapsed();
            let ms = |d: std::time::Duration| d.as_secs_f64() * 1e3;
            println!(
                "opened {} {} {} {} {}",
                ms(opened),
                ms(written),
                ms(answered),
                child::memory_mb(),
                db.stats().partitions
            );
            // The folder stays as it was killed, but for one sample.
            std::process::abort();
        }
        _ => panic!("unknown task {task}"),
    }
}

/// Runs a child and returns the figures that it prints.
fn run(task: &str, path: &Path, series: usize, rounds: i64) -> Vec<f64> {
    child::run(&format!("{task} {series} {rounds}"), path, task == "year")
}

/// The fastest open, in each figure.
fn fastest(task: &str, path: &Path, series: usize, rounds: i64) -> Vec<f64> {
    let runs: Vec<Vec<f64>> = (0..OPENS).map(|_| run(task, path, series, rounds)).collect();
    (0..runs[0].len()).map(|i| runs.iter().map(|run| run[i]).fold(f64::INFINITY, f64::min)).collect()
}

fn wal_bytes(path: &Path) -> u64 {
    let files = std::fs::read_dir(path.join("wal")).expect("the folder has a WAL");
    files.map(|file| file.and_then(|file| file.metadata()).map_or(0, |meta| meta.len())).sum()
}

/// Figures of a folder whose process was killed.
struct Killed {
    rounds: f64,
    wal_bytes: f64,
    before_mb: f64,
    /// As a child prints them.
    opened: Vec<f64>,
}

fn killed(series: usize, rounds: i64) -> Killed {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let filled = run("fill", dir.path(), series, rounds);
    let wal_bytes = wal_bytes(dir.path()) as f64;
    let opened = fastest("open", dir.path(), series, filled[1] as i64);
    Killed { rounds: filled[1], wal_bytes, before_mb: filled[0], opened }
}

fn replay(series: usize, rounds: i64) {
    let (few, all) = (killed(series, 1), killed(series, rounds));
    let more = series as f64 * (all.rounds - 1.0);
    let name = |what: &str| format!("{series} series x {}, {what}", all.rounds);
    support::row(&name("replay of a series"), few.opened[0] * 1e3 / series as f64, "us");
    support::row(&name("replay of samples"), more / 1e3 / (all.opened[0] - few.opened[0]), "Msamples/s");
    support::row(&name("open"), all.opened[0], "ms");
    support::row(&name("memory before the kill"), all.before_mb, "MB");
    support::row(&name("memory after the open"), all.opened[3], "MB");
    support::row(&name("WAL"), all.wal_bytes / (series as f64 * all.rounds), "B/sample");
}

fn at_bound(series: usize) {
    let all = killed(series, i64::from(u16::MAX));
    let name = |what: &str| format!("{series} series x {}, {what}", all.rounds);
    support::row(&name("WAL at its bound"), all.wal_bytes / 1e6, "MB");
    support::row(&name("open"), all.opened[0], "ms");
    support::row(&name("memory before the kill"), all.before_mb, "MB");
    support::row(&name("memory after the open"), all.opened[3], "MB");
    support::row(&format!("open after kill, {series} series"), all.opened[2], "ms");
}

fn year(series: usize) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let rounds = 365 * 4;
    run("year", dir.path(), series, rounds);
    let opened = fastest("open-year", dir.path(), series, rounds);
    support::row("after a clean stop, partitions", opened[4], "files");
    support::row("after a clean stop, memory", opened[3], "MB");
    support::row("open after clean stop, 365 partitions", opened[2], "ms");
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    if let Some(words) = child::task() {
        let number = |at: usize| words[at].parse().expect("a number");
        return work(&words[0], Path::new(&arguments[0]), number(1) as usize, number(2));
    }
    let picked = |name: &str| arguments.is_empty() || arguments.iter().any(|argument| argument == name);
    if picked("50k") {
        replay(50_000, 240);
    }
    if picked("400k") {
        replay(400_000, 30);
    }
    if picked("bound") {
        at_bound(400_000);
    }
    if picked("year") {
        year(10_000);
    }
}
