//! How samples go in: series with ten labels each, in batches of 2,000 samples, as a sender of
//! remote write would bring them, synced every second. Label bytes are looked up, the frame is
//! written, rows are filled and sealed; no HTTP.
//!
//! `cargo bench --bench ingest [ROUNDS]` appends so many samples per series, 120 unless told.
//!
//! The WAL cannot be switched off, so there is no row without it. Rows of CPU time count the thread
//! that appends, and hold on a machine that does other things too.

#[path = "support/scrapes.rs"]
mod scrapes;
mod support;

use larum::storage::options::Maintenance;
use larum::{Batch, Db, Labels, Options, Timestamp};
use scrapes::{Random, labels, value};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

const SERIES: usize = 50_000;
/// Of what cuts and merges of many series cost.
const NEW_SERIES: usize = 200_000;
const BATCH_SAMPLES: usize = 2_000;
const INTERVAL_MS: i64 = 15_000;
const FIRST_MS: i64 = 1_700_000_000_000;

/// Of the comparison of shuffled requests with ordered ones.
const SHUFFLED_SERIES: usize = 20_000;
/// Requests that share the samples of each target.
const REQUESTS: usize = 8;

/// See [`scrapes::time`].
fn time(series: usize, round: i64) -> Timestamp {
    scrapes::time(series, FIRST_MS + round * INTERVAL_MS)
}

/// Time that passed, and time on a core.
#[derive(Debug, Clone, Copy, Default)]
struct Took {
    wall: Duration,
    cpu: Option<Duration>,
}

fn open(path: &Path, rounds: i64) -> Db {
    let end = Timestamp::from_millis(FIRST_MS + (rounds + 1) * INTERVAL_MS);
    let options = Options { clock: Arc::new(move || end), ..Options::default() };
    Db::open(path, options).expect("a new folder opens")
}

/// Appends one sample of each of `series`, the first of which has the number `first`.
fn append_round(db: &Db, batch: &mut Batch, series: &[Labels], first: usize, round: i64) -> Took {
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ round as u64);
    let mut took = Took { cpu: Some(Duration::ZERO), ..Took::default() };
    for (chunk, some) in series.chunks(BATCH_SAMPLES).enumerate() {
        batch.clear();
        for (i, labels) in some.iter().enumerate() {
            let n = first + chunk * BATCH_SAMPLES + i;
            batch.push(labels, time(n, round), value(n, round, random.next()));
        }
        let (cpu, wall) = (thread_cpu_time(), Instant::now());
        let outcome = db.append(batch).expect("the disk has room");
        took.wall += wall.elapsed();
        let cpu = thread_cpu_time().zip(cpu).map(|(after, before)| after - before);
        took.cpu = took.cpu.zip(cpu).map(|(sum, cpu)| sum + cpu);
        assert_eq!(outcome.accepted, some.len());
    }
    took
}

/// Appends all rounds but the first, which creates the series; the middle round of those after.
fn append_known(db: &Db, series: &[Labels], first: usize, rounds: i64, start: &Barrier) -> (Took, Duration) {
    let mut batch = Batch::new();
    append_round(db, &mut batch, series, first, 0);
    start.wait();
    let begun = Instant::now();
    let took: Vec<Took> =
        (1..rounds.max(2)).map(|round| append_round(db, &mut batch, series, first, round)).collect();
    let all = begun.elapsed();
    let middle = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    let cpu: Option<Vec<Duration>> = took.iter().map(|took| took.cpu).collect();
    (Took { wall: middle(took.iter().map(|took| took.wall).collect()), cpu: cpu.map(middle) }, all)
}

fn nanos(time: Duration, samples: usize) -> f64 {
    time.as_nanos() as f64 / samples as f64
}

fn new_series(series: &[Labels]) {
    let mut best = Took { wall: Duration::MAX, cpu: Some(Duration::MAX) };
    for _ in 0..3 {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let took = append_round(&open(dir.path(), 0), &mut Batch::new(), series, 0, 0);
        best.wall = best.wall.min(took.wall);
        best.cpu = best.cpu.min(took.cpu);
    }
    support::row("new series", nanos(best.wall, SERIES) / 1e3, "us");
    if let Some(cpu) = best.cpu {
        support::row("new series, cpu", nanos(cpu, SERIES) / 1e3, "us");
    }
}

/// What it costs to cut twice, and then to merge, series that have few samples each: time on a core
/// for each series of a partition written.
fn cut_and_merge() {
    const ROUNDS: i64 = 30;
    let series: Vec<Labels> = (0..NEW_SERIES).map(labels).collect();
    let dir = tempfile::tempdir().expect("a temporary folder");
    let end = Timestamp::from_millis(FIRST_MS + ROUNDS * INTERVAL_MS);
    let maintenance = Maintenance::Stepped;
    let options = Options { maintenance, clock: Arc::new(move || end), ..Options::default() };
    let db = Db::open(dir.path(), options).expect("a new folder opens");
    let (mut batch, mut cut) = (Batch::new(), Took { cpu: Some(Duration::ZERO), ..Took::default() });
    let timed = |work: &dyn Fn()| {
        let before = thread_cpu_time();
        work();
        thread_cpu_time().zip(before).map(|(after, before)| after - before)
    };
    for round in 0..ROUNDS {
        append_round(&db, &mut batch, &series, 0, round);
        if (round + 1) % (ROUNDS / 2) == 0 {
            let cpu = timed(&|| db.flush().expect("the disk has room"));
            cut.cpu = cut.cpu.zip(cpu).map(|(sum, cpu)| sum + cpu);
        }
    }
    assert_eq!(db.stats().partitions, 2);
    let merge = timed(&|| db.compact().expect("the disk has room"));
    assert_eq!(db.stats().partitions, 1);
    if let (Some(cut), Some(merge)) = (cut.cpu, merge) {
        support::row("new series, cut, cpu", nanos(cut, 2 * NEW_SERIES) / 1e3, "us");
        support::row("new series, merged, cpu", nanos(merge, NEW_SERIES) / 1e3, "us");
    }
}

fn known_series(series: &[Labels], rounds: i64) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (one, one_all) = append_known(&open(dir.path(), rounds), series, 0, rounds, &Barrier::new(1));
    support::row("known series, wal, 1 thread", 1e3 / nanos(one.wall, SERIES), "Msamples/s");

    let dir = tempfile::tempdir().expect("a temporary folder");
    let (db, start) = (open(dir.path(), rounds), Barrier::new(2));
    let halves = series.split_at(SERIES / 2);
    let (a, b) = std::thread::scope(|scope| {
        let other = scope.spawn(|| append_known(&db, halves.1, SERIES / 2, rounds, &start));
        (append_known(&db, halves.0, 0, rounds, &start), other.join().expect("no panic"))
    });
    // Batches are built on the way, in both cases; a core of its own for each thread is assumed.
    let ratio = one_all.as_secs_f64() / a.1.max(b.1).as_secs_f64();
    support::row("known series, wal, 2 threads to 1", ratio, "x");
    if let (Some(one), Some(a), Some(b)) = (one.cpu, a.0.cpu, b.0.cpu) {
        support::row("known series, wal, 1 thread, cpu", nanos(one, SERIES), "ns");
        support::row("known series, wal, 2 threads, cpu", nanos(a + b, SERIES), "ns");
    }
}

/// The requests of a round: in order, or each target split over all of them, shuffled, with a tenth
/// of the samples missing.
fn requests(shuffled: bool, round: i64, random: &mut Random) -> Vec<Vec<usize>> {
    if !shuffled {
        let all: Vec<usize> = (0..SHUFFLED_SERIES).collect();
        return all.chunks(BATCH_SAMPLES).map(<[usize]>::to_vec).collect();
    }
    let mut requests = vec![Vec::new(); REQUESTS];
    for n in 0..SHUFFLED_SERIES {
        // All are there at first: memory of ordered and of shuffled requests is for the same series.
        if round == 0 || random.next() % 10 < 9 {
            requests[random.next() as usize % REQUESTS].push(n);
        }
    }
    for request in &mut requests {
        for i in (1..request.len()).rev() {
            request.swap(i, random.next() as usize % (i + 1));
        }
    }
    requests.iter().flat_map(|request| request.chunks(BATCH_SAMPLES)).map(<[usize]>::to_vec).collect()
}

/// What a child process does: appends, and prints samples, memory, and bytes on disk.
fn measure_room(shuffled: bool, rounds: i64) {
    let series: Vec<Labels> = (0..SHUFFLED_SERIES).map(labels).collect();
    let dir = tempfile::tempdir().expect("a temporary folder");
    let db = open(dir.path(), rounds);
    let (mut random, mut batch, mut samples) = (Random(7), Batch::new(), 0);
    let before = resident_bytes();
    for round in 0..rounds {
        for request in requests(shuffled, round, &mut random) {
            batch.clear();
            for &n in &request {
                batch.push(&series[n], time(n, round), value(n, round, random.next()));
            }
            samples += db.append(&batch).expect("the disk has room").accepted;
        }
    }
    let memory = resident_bytes().saturating_sub(before);
    db.flush().expect("the disk has room");
    let cut = db.stats().partition_bytes;
    db.compact().expect("the disk has room");
    println!("{samples} {memory} {cut} {}", db.stats().partition_bytes);
}

/// Ratios of the same series over the same time, 2 h unless told; and bytes a sample, of which the
/// shuffled requests have a tenth fewer.
fn shuffled_with_holes(rounds: i64) {
    let child = |how: &str| -> Vec<f64> {
        let program = std::env::current_exe().expect("a program knows where it is");
        let out = Command::new(program).args([how, &rounds.to_string()]).output().expect("it starts again");
        let text = String::from_utf8_lossy(&out.stdout);
        let figures: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        assert!(out.status.success() && figures.len() == 4, "{how}: {text}");
        figures
    };
    let (ordered, shuffled) = (child("ordered"), child("shuffled"));
    for (name, i) in [("memory", 1), ("disk", 2), ("disk merged", 3)] {
        support::row(&format!("shuffled with holes, {name}"), shuffled[i] / ordered[i], "x");
        for (how, figures) in [("ordered", &ordered), ("shuffled with holes", &shuffled)] {
            support::row(&format!("{how}, {name} a sample"), figures[i] / figures[0], "B/sample");
        }
    }
}

/// Time that this thread was on a core, where the system tells (Linux).
fn thread_cpu_time() -> Option<Duration> {
    // The kernel brings the figure up to date when it chooses whom to run.
    std::thread::yield_now();
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

/// Memory of this process that no file backs, where the system tells (Linux); else 0.
fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let rounds = args.iter().filter_map(|arg| arg.parse().ok()).next().unwrap_or(120i64);
    for (arg, shuffled) in [("ordered", false), ("shuffled", true)] {
        if args.iter().any(|other| other == arg) {
            return measure_room(shuffled, rounds);
        }
    }
    let series: Vec<Labels> = (0..SERIES).map(labels).collect();
    new_series(&series);
    cut_and_merge();
    known_series(&series, rounds);
    shuffled_with_holes(4 * rounds);
}
