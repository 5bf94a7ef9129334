//! How fast everything stored is read, on one core: a data folder of 120 targets with a hundred
//! series each, scraped every 15 s for five hours, is written, merged and read in full. Once through
//! a view, as a query does, and once through the partition reader alone, which is decoding and
//! nothing else. Says also how fast partitions are cut and merged, and how small they get.
//!
//! `cargo bench --bench scan`

mod support;

use larum::Labels;
use larum::storage::options::Maintenance;
use larum::storage::series_set::Columns;
use larum::storage::{Batch, Options, Source, Storage, TimeRange, Timestamp};
use larum_storage_format::partition::Partition;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};
use support::row;

const TARGETS: usize = 120;
const SCRAPES: i64 = 1200;
const INTERVAL_MS: i64 = 15_000;
/// Midnight, some day.
const START_MS: i64 = 20_000 * 86_400_000;
/// Each figure is the best of so many passes: other work on the machine only adds time.
const PASSES: usize = 7;

/// xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// How a series moves. Values are integers over a power of ten.
#[derive(Clone, Copy)]
enum Kind {
    Constant,
    /// Grows by up to so much, or not at all in so many per cent of the scrapes.
    Counter {
        most: u64,
        idle: u64,
    },
    /// Walks by up to so many units either way, or not at all in so many per cent of the scrapes.
    Gauge {
        unit: i64,
        most: u64,
        idle: u64,
    },
    /// Anything below.
    Noise {
        below: u64,
    },
    /// A sum of durations, rounded as floats are.
    Sum,
}

/// A target's hundred series: how many move in this way, and over which power of ten.
const MIX: [(usize, Kind, f64); 14] = [
    (30, Kind::Constant, 1.0),
    (6, Kind::Counter { most: 60_000, idle: 0 }, 1.0),
    (10, Kind::Counter { most: 900, idle: 0 }, 1.0),
    (6, Kind::Counter { most: 6, idle: 80 }, 1.0),
    (12, Kind::Counter { most: 200, idle: 5 }, 1.0),
    (8, Kind::Counter { most: 220, idle: 0 }, 100.0),
    (3, Kind::Counter { most: 900, idle: 0 }, 1000.0),
    (2, Kind::Counter { most: 6_000_000_000, idle: 0 }, 1e9),
    (10, Kind::Gauge { unit: 4096, most: 70, idle: 20 }, 1.0),
    (5, Kind::Gauge { unit: 1, most: 4, idle: 40 }, 1.0),
    (3, Kind::Gauge { unit: 1, most: 15, idle: 10 }, 100.0),
    (3, Kind::Gauge { unit: 1, most: 5, idle: 60 }, 10.0),
    (1, Kind::Noise { below: 60_000_000 }, 1e9),
    (1, Kind::Sum, 1.0),
];

struct Series {
    labels: Labels,
    kind: Kind,
    power: f64,
    units: i64,
    sum: f64,
}

impl Series {
    fn next(&mut self, random: &mut Random) -> f64 {
        match self.kind {
            Kind::Constant => {}
            Kind::Counter { most, idle } if random.below(100) >= idle => {
                self.units += random.below(most) as i64
            }
            Kind::Gauge { unit, most, idle } if random.below(100) >= idle => {
                self.units += unit * (random.below(2 * most + 1) as i64 - most as i64)
            }
            Kind::Counter { .. } | Kind::Gauge { .. } => {}
            Kind::Noise { below } => self.units = random.below(below) as i64,
            Kind::Sum => self.sum += random.below(5_000_000) as f64 / 1e6,
        }
        self.units as f64 / self.power + self.sum
    }
}

fn series(random: &mut Random) -> Vec<Vec<Series>> {
    let of_target = |target: usize, random: &mut Random| {
        let kinds = MIX.into_iter().flat_map(|(n, kind, power)| std::iter::repeat_n((kind, power), n));
        let series = kinds.enumerate().map(|(i, (kind, power))| {
            let name = format!("metric_{i}");
            let instance = format!("10.0.0.{target}:9100");
            let pairs = [("__name__", name.as_str()), ("instance", &instance), ("job", "node")];
            let labels = Labels::from_pairs(pairs).expect("these are labels");
            Series { labels, kind, power, units: random.below(1 << 33) as i64 * 4096, sum: 0.0 }
        });
        series.collect()
    };
    (0..TARGETS).map(|target| of_target(target, random)).collect()
}

/// Appends all scrapes: each target at its own time within the interval, one in five a little late.
fn fill(storage: &Storage, now_ms: &AtomicI64) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut targets = series(&mut random);
    for scrape in 0..SCRAPES {
        now_ms.store(START_MS + (scrape + 1) * INTERVAL_MS, Ordering::Relaxed);
        for (target, series) in targets.iter_mut().enumerate() {
            let late = if random.below(5) == 0 { 1 + random.below(5) as i64 } else { 0 };
            let offset = target as i64 * INTERVAL_MS / TARGETS as i64;
            let at = Timestamp::from_millis(START_MS + scrape * INTERVAL_MS + offset + late);
            let mut batch = Batch::new();
            for series in series {
                let value = series.next(&mut random);
                batch.push(&series.labels, at, value);
            }
            let appended = storage.append(&batch).expect("the disk takes samples");
            assert!(appended.refused.is_empty());
        }
    }
}

fn best(samples: u64, mut pass: impl FnMut() -> u64) -> f64 {
    let mut fastest = Duration::MAX;
    for _ in 0..PASSES {
        let start = Instant::now();
        assert_eq!(std::hint::black_box(pass()), samples, "every sample is read");
        fastest = fastest.min(start.elapsed());
    }
    millions_per_second(samples, fastest)
}

fn millions_per_second(samples: u64, time: Duration) -> f64 {
    samples as f64 / time.as_secs_f64() / 1e6
}

fn through_view(storage: &Storage) -> u64 {
    let view = storage.view();
    let set = view.select(&[], TimeRange::ALL).expect("the index was verified");
    let mut columns = Columns::default();
    let loaded = (0..set.len()).map(|i| {
        let samples = set.load(i, &mut columns).expect("the view is intact");
        std::hint::black_box(&samples.floats).len() as u64
    });
    loaded.sum()
}

fn through_reader(partitions: &[Partition<Vec<u8>>]) -> u64 {
    let mut samples = 0;
    for partition in partitions {
        let columns: Vec<Vec<i64>> =
            (0..partition.column_count() as u32).map(|c| partition.column(c).expect("intact")).collect();
        for ordinal in 0..partition.series_count() {
            for chunk in partition.chunks(ordinal).expect("intact") {
                let chunk = chunk.expect("intact");
                let timestamps = partition.slice_of(&chunk, &columns[chunk.timestamps.column as usize]);
                let decoded = partition.decode(&chunk, timestamps).expect("intact");
                samples += std::hint::black_box(&decoded.floats).len() as u64;
            }
        }
    }
    samples
}

/// The partitions of a data folder, read whole, and their length in all.
fn partitions(folder: &Path) -> (Vec<Partition<Vec<u8>>>, usize) {
    let entries = std::fs::read_dir(folder.join("partitions")).expect("a data folder");
    let files = entries.map(|entry| entry.expect("readable").path());
    let files = files.filter(|path| path.is_file());
    let files: Vec<Vec<u8>> = files.map(|path| std::fs::read(path).expect("readable")).collect();
    let bytes = files.iter().map(Vec::len).sum();
    (files.into_iter().map(|file| Partition::open(file).expect("intact")).collect(), bytes)
}

fn main() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let now_ms = Arc::new(AtomicI64::new(START_MS));
    let clock = now_ms.clone();
    let options = Options {
        clock: Arc::new(move || Timestamp::from_millis(clock.load(Ordering::Relaxed))),
        maintenance: Maintenance::Stepped,
        ..Options::default()
    };
    let storage = Storage::open(folder.path(), options).expect("a new folder");
    fill(&storage, &now_ms);
    let samples = (TARGETS * 100) as u64 * SCRAPES as u64;

    let start = Instant::now();
    storage.flush().expect("the disk takes partitions");
    row("cut", millions_per_second(samples, start.elapsed()), "Msamples/s");
    report(&storage, folder.path(), samples, "fresh");
    let start = Instant::now();
    storage.compact().expect("the disk takes partitions");
    row("merge", millions_per_second(samples, start.elapsed()), "Msamples/s");
    report(&storage, folder.path(), samples, "merged");
    row("full scan from mapped files", best(samples, || through_view(&storage)), "Msamples/s");
}

fn report(storage: &Storage, folder: &Path, samples: u64, state: &str) {
    let (files, bytes) = partitions(folder);
    row(&format!("partition reader, {state}"), best(samples, || through_reader(&files)), "Msamples/s");
    row(&format!("view, {state}"), best(samples, || through_view(storage)), "Msamples/s");
    row(&format!("newest samples of a view, {state}"), newest(storage), "us");
    row(&format!("partition files, {state}"), bytes as f64 / samples as f64, "B/sample");
}

/// Microseconds to select a series and read its newest sample, over all of them.
fn newest(storage: &Storage) -> f64 {
    let mut series = 0;
    let pass = || {
        let view = storage.view();
        let end = START_MS + SCRAPES * INTERVAL_MS;
        let range = TimeRange::new(end - 5 * 60_000, end);
        let set = view.select(&[], range).expect("the index was verified");
        let mut columns = Columns::default();
        let mut newest = Vec::new();
        for start in (0..set.len()).step_by(1024) {
            set.newest(start..set.len().min(start + 1024), &mut columns, &mut newest);
            std::hint::black_box(&newest);
        }
        series = set.len();
        series as u64
    };
    let millions = best((TARGETS * 100) as u64, pass);
    1.0 / millions
}
