//! What grows, and how: many series at a time, many partitions, and many series seen in all.
//!
//! `cargo bench --bench growth` takes some minutes and 3 GB of disk; with the variable
//! `LARUM_BENCH_QUICK` it takes a tenth of everything. `-- active`, `-- partitions` and `-- seen` pick
//! parts. Each is filled by a process of its own, and opened by another.
//!
//! Memory is the anonymous part of the resident set (`RssAnon`): mapped files come and go. A row "to
//! first" compares the last tenth of the work with the first: what grows worse than its amount shows
//! there.

#[path = "support/child.rs"]
mod child;
#[path = "support/scrapes.rs"]
mod scrapes;
mod support;

use larum::storage::TimeRange;
use larum::storage::options::Maintenance;
use larum::{Batch, Db, Labels, Options, Timestamp};
use scrapes::{Random, labels, value};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

const BATCH_SAMPLES: usize = 2_000;
const SECOND_MS: i64 = 1_000;
const HOUR_MS: i64 = 3_600 * SECOND_MS;
const DAY_MS: i64 = 24 * HOUR_MS;
/// A UTC day begins.
const FIRST_MS: i64 = 20_000 * DAY_MS;

/// Ten minutes, every 15 seconds.
const ACTIVE_ROUNDS: i64 = 40;

/// Of each partition.
const PARTITION_SERIES: usize = 1_000;
const PARTITION_ROUNDS: i64 = 24;

/// So many waves of series come and go; each lives an hour.
const WAVES: i64 = 100;
const WAVE_ROUNDS: i64 = 4;

/// A database whose time is ours.
struct Timed {
    db: Db,
    now_ms: Arc<AtomicI64>,
}

impl Timed {
    fn open(path: &Path, now_ms: i64, maintenance: Maintenance) -> Timed {
        let now_ms = Arc::new(AtomicI64::new(now_ms));
        let of_clock = now_ms.clone();
        let clock = Arc::new(move || Timestamp::from_millis(of_clock.load(Ordering::Relaxed)));
        let options = Options { clock, maintenance, scrub_interval: None, ..Options::default() };
        Timed { db: Db::open(path, options).expect("the folder opens"), now_ms }
    }

    fn set_now(&self, now_ms: i64) {
        self.now_ms.store(now_ms, Ordering::Relaxed);
    }

    /// Appends a sample of each series.
    fn scrape(&self, sets: &[Labels], first: usize, round: i64, round_ms: i64, random: &mut Random) {
        let mut batch = Batch::new();
        for (chunk, some) in sets.chunks(BATCH_SAMPLES).enumerate() {
            batch.clear();
            for (i, labels) in some.iter().enumerate() {
                let n = chunk * BATCH_SAMPLES + i;
                batch.push(labels, scrapes::time(n, round_ms), value(first + n, round, random.next()));
            }
            let appended = self.db.append(&batch).expect("the disk has room");
            assert!(appended.refused.is_empty(), "{:?}", appended.refused);
        }
    }

    /// Milliseconds that a query takes, at best of three, and the value that it must have.
    fn query_ms(&self, query: &str, at_ms: i64, expected: f64) -> f64 {
        let at = Timestamp::from_millis(at_ms);
        let run = || {
            let begun = Instant::now();
            let answer = self.db.query(query, at).expect("it is a query");
            let took_ms = ms_since(begun);
            let text = format!("{:?}", answer.value);
            assert!(text.contains(&format!("{expected:?}")), "{query} gives {text}");
            took_ms
        };
        (0..3).map(|_| run()).fold(f64::INFINITY, f64::min)
    }
}

fn ms_since(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e3
}

fn sets(range: Range<usize>) -> Vec<Labels> {
    range.map(labels).collect()
}

/// How much of everything.
fn scale() -> usize {
    if std::env::var_os("LARUM_BENCH_QUICK").is_some() { 10 } else { 1 }
}

/// The series of the first target, of which there are 500 in all.
const OF_TARGET: &str = "count(count_over_time({instance=\"10.1.0.0:9100\"}[10m]))";

fn fill_active(path: &Path, series: usize) {
    let timed = Timed::open(path, FIRST_MS, Maintenance::Thread);
    let (sets, mut random) = (sets(0..series), Random(7));
    let before_mb = child::memory_mb();
    let begun = Instant::now();
    let end_ms = FIRST_MS + ACTIVE_ROUNDS * 15 * SECOND_MS;
    for round in 0..ACTIVE_ROUNDS {
        let round_ms = FIRST_MS + round * 15 * SECOND_MS;
        timed.set_now(round_ms + 14 * SECOND_MS);
        timed.scrape(&sets, 0, round, round_ms, &mut random);
    }
    let took_s = begun.elapsed().as_secs_f64();
    let memory = (child::memory_mb() - before_mb) * 1e6 / series as f64;
    let few_ms = timed.query_ms(OF_TARGET, end_ms, 500.0);
    let all_ms = timed.query_ms("count({__name__=~\".+\"})", end_ms, series as f64);
    let begun = Instant::now();
    assert_eq!(timed.db.status(10).series, series as u64);
    let status_ms = ms_since(begun);
    let rate = (series as i64 * ACTIVE_ROUNDS) as f64 / took_s / 1e6;
    println!("filled {memory} {rate} {few_ms} {all_ms} {status_ms}");
    // Until it is killed.
    std::thread::park();
}

fn active(folder: &Path) {
    let series = 1_000_000 / scale();
    let filled = child::run(&format!("fill-active {series}"), folder, false);
    let [memory, rate, few_ms, all_ms, status_ms] = filled[..] else { panic!("{filled:?}") };
    let end_ms = FIRST_MS + ACTIVE_ROUNDS * 15 * SECOND_MS;
    let opened = child::run(&format!("open {end_ms}"), folder, false);
    support::row("active, series", series as f64, "series");
    support::row("active, append", rate, "Msamples/s");
    support::row("active, memory a series", memory, "B");
    support::row("active, query of 500 series", few_ms, "ms");
    support::row("active, query of all", all_ms, "ms");
    support::row("active, status page", status_ms, "ms");
    support::row("active, open after kill", opened[0], "ms");
    support::row("active, memory after open", opened[1], "MB");
}

/// A partition a day, each cut and committed on its own; none is merged.
fn fill_partitions(path: &Path, count: i64) {
    let timed = Timed::open(path, FIRST_MS, Maintenance::Stepped);
    let (sets, mut random) = (sets(0..PARTITION_SERIES), Random(7));
    let mut took_ms = Vec::new();
    for day in 0..count {
        timed.set_now(FIRST_MS + (day + 2) * DAY_MS);
        for round in 0..PARTITION_ROUNDS {
            let round_ms = FIRST_MS + day * DAY_MS + round * HOUR_MS;
            timed.scrape(&sets, 0, round, round_ms, &mut random);
        }
        let begun = Instant::now();
        timed.db.flush().expect("the disk has room");
        took_ms.push(ms_since(begun));
    }
    assert_eq!(timed.db.stats().partitions, count as u64);
    println!("filled {}", last_to_first(&took_ms));
    // Nothing is lost by leaving like this, and nothing is merged.
    std::thread::park();
}

fn partitions(folder: &Path) {
    let count = 1_000 / scale() as i64;
    let filled = child::run(&format!("fill-partitions {count}"), folder, false);
    let now_ms = FIRST_MS + (count + 1) * DAY_MS;
    let opened = child::run(&format!("open {now_ms}"), folder, false);
    let queried = child::run(&format!("query-partitions {count}"), folder, false);
    support::row("partitions", count as f64, "files");
    support::row("partitions, last commits to first", filled[0], "x");
    support::row("partitions, open", opened[0], "ms");
    support::row("partitions, memory after open", opened[1], "MB");
    support::row("partitions, query over all", queried[0], "ms");
    support::row("partitions, values of a label", queried[1], "ms");
}

fn query_partitions(path: &Path, count: i64) {
    let now_ms = FIRST_MS + (count + 1) * DAY_MS;
    let timed = Timed::open(path, now_ms, Maintenance::Stepped);
    let query = format!("sum(count_over_time(http_requests_1_total[{}d]))", count + 2);
    let samples = (PARTITION_SERIES / 100) as i64 * PARTITION_ROUNDS * count;
    let query_ms = timed.query_ms(&query, now_ms, samples as f64);
    println!("queried {query_ms} {}", values_ms(&timed, "pod", PARTITION_SERIES / 500));
}

/// Waves of series that come, live an hour and go; the head is cut after each.
fn fill_seen(path: &Path, series: usize) {
    let timed = Timed::open(path, FIRST_MS, Maintenance::Stepped);
    let (of_wave, mut random) = (series / WAVES as usize, Random(7));
    let mut took_ms = Vec::new();
    for wave in 0..WAVES {
        let first = wave as usize * of_wave;
        let sets = sets(first..first + of_wave);
        let begun = Instant::now();
        for round in 0..WAVE_ROUNDS {
            let round_ms = FIRST_MS + wave * HOUR_MS + round * HOUR_MS / WAVE_ROUNDS;
            timed.set_now(round_ms + HOUR_MS / WAVE_ROUNDS);
            timed.scrape(&sets, first, round, round_ms, &mut random);
        }
        timed.db.flush().expect("the disk has room");
        took_ms.push(ms_since(begun));
    }
    let (memory_mb, stats) = (child::memory_mb(), timed.db.stats());
    assert_eq!(stats.series_created, series as u64);
    assert!(stats.head_series <= 4 * of_wave as u64, "{} series stay", stats.head_series);
    let begun = Instant::now();
    timed.db.compact().expect("the disk has room");
    let compact_s = begun.elapsed().as_secs_f64();
    println!("filled {} {memory_mb} {compact_s} {}", last_to_first(&took_ms), stats.head_series);
    timed.db.close().expect("the disk has room");
}

fn query_seen(path: &Path, series: usize) {
    let now_ms = FIRST_MS + WAVES * HOUR_MS;
    let timed = Timed::open(path, now_ms, Maintenance::Stepped);
    let few = OF_TARGET.replace("10m", "200h");
    let few_ms = timed.query_ms(&few, now_ms, 500.0);
    println!("queried {few_ms} {}", values_ms(&timed, "pod", series / 500));
}

/// How long it takes to list the values of a label.
fn values_ms(timed: &Timed, name: &str, expected: usize) -> f64 {
    let begun = Instant::now();
    let values = timed.db.view().label_values(name, &[], TimeRange::ALL);
    assert_eq!((values.items.len(), values.warnings.len()), (expected, 0));
    ms_since(begun)
}

fn seen(folder: &Path) {
    let series = 10_000_000 / scale();
    let filled = child::run(&format!("fill-seen {series}"), folder, true);
    let now_ms = FIRST_MS + WAVES * HOUR_MS;
    let opened = child::run(&format!("open {now_ms}"), folder, false);
    let queried = child::run(&format!("query-seen {series}"), folder, false);
    support::row("seen, series", series as f64, "series");
    support::row("seen, left in the head", filled[3], "series");
    support::row("seen, last waves to first", filled[0], "x");
    support::row("seen, memory at the end", filled[1], "MB");
    support::row("seen, merging them all", filled[2], "s");
    support::row("seen, open", opened[0], "ms");
    support::row("seen, memory after open", opened[1], "MB");
    support::row("seen, query of 500 series", queried[0], "ms");
    support::row("seen, values of a label", queried[1], "ms");
}

/// From the start of the process to its first answer, and its memory then.
fn open(path: &Path, now_ms: i64) {
    let begun = Instant::now();
    let timed = Timed::open(path, now_ms, Maintenance::Stepped);
    let answer = timed.db.query("count(http_requests_1_total)", Timestamp::from_millis(now_ms));
    std::hint::black_box(answer.expect("it is a query"));
    println!("opened {} {}", ms_since(begun), child::memory_mb());
    std::process::abort();
}

/// What the last tenth takes to what the first takes, without the very first, which warms up.
fn last_to_first(took_ms: &[f64]) -> f64 {
    let tenth = took_ms.len() / 10;
    let middle = |some: &[f64]| {
        let mut some = some.to_vec();
        some.sort_unstable_by(f64::total_cmp);
        some[some.len() / 2]
    };
    middle(&took_ms[took_ms.len() - tenth..]) / middle(&took_ms[tenth.min(3)..tenth + 3])
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    if let Some(words) = child::task() {
        let (path, number) = (Path::new(&arguments[0]), words[1].parse::<i64>().expect("a number"));
        match words[0].as_str() {
            "fill-active" => fill_active(path, number as usize),
            "fill-partitions" => fill_partitions(path, number),
            "query-partitions" => query_partitions(path, number),
            "fill-seen" => fill_seen(path, number as usize),
            "query-seen" => query_seen(path, number as usize),
            "open" => open(path, number),
            task => panic!("unknown task {task}"),
        }
        return;
    }
    let picked = |name: &str| arguments.is_empty() || arguments.iter().any(|argument| argument == name);
    let folder = || tempfile::tempdir().expect("a temporary folder");
    if picked("active") {
        active(folder().path());
    }
    if picked("partitions") {
        partitions(folder().path());
    }
    if picked("seen") {
        seen(folder().path());
    }
}
