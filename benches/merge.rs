//! What merging costs: how fast a day of two-hour partitions becomes one, and how long appends take
//! while partitions are cut and merged behind them.
//!
//! Appends come at a steady rate, one batch of 2,000 samples each 2 ms, with the WAL synced every
//! second; the WAL is cut short, so that a cut or a merge is nearly always under way. A latency
//! counts from the moment at which the batch was due, so that a stall is seen by all that it delays.
//!
//! `cargo bench --bench merge [SECONDS]` appends for so long, 30 unless told.

mod support;

use larum::storage::options::Maintenance;
use larum::{Batch, Db, Labels, Options, Timestamp};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::{Duration, Instant};

const SERIES_PER_TARGET: usize = 500;
const BATCH_SAMPLES: usize = 2_000;
const INTERVAL_MS: i64 = 15_000;
const HOUR_MS: i64 = 3_600_000;
/// The start of a UTC day.
const FIRST_MS: i64 = 19_700 * 24 * HOUR_MS;
const EVERY: Duration = Duration::from_millis(2);

fn labels(n: usize) -> Labels {
    let target = n / SERIES_PER_TARGET;
    Labels::from_pairs([
        ("__name__", format!("metric_{}_total", n % 100)),
        ("code", (200 + n % 5).to_string()),
        ("instance", format!("10.1.{}.{}:9100", target / 250, target % 250)),
        ("job", "api".to_owned()),
        ("path", format!("/api/v1/{}", n % SERIES_PER_TARGET / 5)),
    ])
    .expect("the names are distinct and not empty")
}

/// Scrapes of all series, as batches: targets one after the other, each a little late.
struct Scrapes {
    series: Vec<Labels>,
    random: u64,
    next: usize,
    round: i64,
    interval_ms: i64,
}

impl Scrapes {
    fn new(series: usize) -> Scrapes {
        Scrapes {
            series: (0..series).map(labels).collect(),
            random: 0x9e37_79b9_7f4a_7c15,
            next: 0,
            round: 0,
            interval_ms: INTERVAL_MS,
        }
    }

    /// Fills the batch and gives the time of its last sample.
    fn fill(&mut self, batch: &mut Batch) -> i64 {
        batch.clear();
        let mut t = 0;
        let end = (self.next + BATCH_SAMPLES).min(self.series.len());
        for n in self.next..end {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            let jitter = (n / SERIES_PER_TARGET) as i64 * 7 + (self.round * 31 + 7) % 5;
            t = FIRST_MS + self.round * self.interval_ms + jitter;
            let value = match n % 4 {
                0 => 1.0,
                1 => self.round as f64,
                2 => (self.round * 100 + (self.random % 100) as i64) as f64,
                _ => (self.random % 100_000) as f64 / 10.0,
            };
            batch.push(&self.series[n], Timestamp::from_millis(t), value);
        }
        self.next = end % self.series.len();
        self.round += i64::from(self.next == 0);
        t
    }
}

/// A database in a temporary folder whose time is the newest sample's.
fn open(maintenance: Maintenance, wal_bytes: u64) -> (tempfile::TempDir, Db, Arc<AtomicI64>) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let now = Arc::new(AtomicI64::new(FIRST_MS));
    let clock = now.clone();
    let options = Options {
        clock: Arc::new(move || Timestamp::from_millis(clock.load(Relaxed))),
        maintenance,
        wal_bytes,
        ..Options::default()
    };
    let db = Db::open(dir.path(), options).expect("a new folder opens");
    (dir, db, now)
}

/// Twelve partitions of two hours, 5,000 series, become one.
fn merge_a_day() {
    let (_dir, db, now) = open(Maintenance::Stepped, 1 << 30);
    let (mut scrapes, mut batch, mut window) = (Scrapes::new(5_000), Batch::new(), 0);
    let mut samples = 0;
    loop {
        let t = scrapes.fill(&mut batch);
        now.store(t, Relaxed);
        let due = (t - FIRST_MS) / (2 * HOUR_MS);
        if due > window {
            db.flush().expect("the disk has room");
            window = due;
        }
        if window == 12 {
            break;
        }
        samples += db.append(&batch).expect("the disk has room").accepted;
    }
    let before = db.stats();
    let start = Instant::now();
    db.compact().expect("the disk has room");
    let took = start.elapsed().as_secs_f64();
    let after = db.stats();
    assert_eq!((before.partitions, after.partitions), (12, 1));
    support::row("merge of a day", samples as f64 / took / 1e6, "Msamples/s");
    support::row("bytes before", before.partition_bytes as f64 / samples as f64, "B/sample");
    support::row("bytes after", after.partition_bytes as f64 / samples as f64, "B/sample");
}

fn append_steadily(seconds: u64) {
    let (_dir, db, now) = open(Maintenance::Thread, 1 << 20);
    // So few series that their WAL is cut every second or so, and so short an interval that all cuts
    // fall into one window, where four of them are merged.
    let mut scrapes = Scrapes { interval_ms: 1_000, ..Scrapes::new(20_000) };
    let mut batch = Batch::new();
    for _ in 0..10 {
        scrapes.fill(&mut batch);
        db.append(&batch).expect("the disk has room");
    }
    let mut latencies = Vec::new();
    let start = Instant::now();
    for n in 0.. {
        let due = start + EVERY * n;
        if due > start + Duration::from_secs(seconds) {
            break;
        }
        let t = scrapes.fill(&mut batch);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        now.store(t, Relaxed);
        db.append(&batch).expect("merges keep up and the disk has room");
        latencies.push(due.elapsed());
    }
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    let stats = db.stats();
    assert!(stats.compactions > 0 || seconds < 20, "nothing was merged meanwhile");
    support::row("append while cutting and merging, p50", at(0.5), "ms");
    support::row("append while cutting and merging, p99", at(0.99), "ms");
    support::row("append while cutting and merging, max", at(1.0), "ms");
    support::row("cuts", stats.cuts as f64, "cuts");
    support::row("merges", stats.compactions as f64, "merges");
    support::row("partitions left", stats.partitions as f64, "partitions");
    support::row("time in cuts and merges", stats.compaction_seconds, "s");
}

fn main() {
    let seconds = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(30);
    merge_a_day();
    append_steadily(seconds);
}
