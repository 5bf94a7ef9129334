//! What waiting for the device costs: appends of 2,000 samples under `always` with 1, 4 and 32
//! writers, how many of them share a sync; and how long an append takes at worst under `interval`,
//! while segments are begun and synced.
//!
//! `cargo bench --bench wal [-- SECONDS]` takes so many seconds a row, 5 unless told. The folder is
//! below `target/`, since temporary folders are often in memory, where a sync costs nothing.

mod support;

use larum::storage::options::WalFsync;
use larum::{Batch, Db, Labels, Options, Timestamp};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::{Duration, Instant};

const BATCH_SAMPLES: usize = 2_000;
const FIRST_MS: i64 = 1_700_000_000_000;

fn labels(writer: usize, n: usize) -> Labels {
    let (writer, n) = (format!("10.1.0.{writer}:9100"), n.to_string());
    let pairs = [("__name__", "requests_total"), ("instance", &writer), ("job", "api"), ("n", &n)];
    Labels::from_pairs(pairs).expect("the names are distinct and not empty")
}

/// Appends from so many threads until the time is over; returns how long each append took, ascending,
/// and how many files were synced meanwhile.
fn append(fsync: WalFsync, writers: usize, time: Duration) -> (Vec<Duration>, u64) {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    let dir = tempfile::tempdir_in(target).expect("a temporary folder");
    let now = Timestamp::from_millis(FIRST_MS);
    let options = Options { clock: Arc::new(move || now), wal_fsync: fsync, ..Options::default() };
    let db = Db::open(dir.path(), options).expect("a new folder opens");
    let before = db.stats().wal_syncs;
    let round = AtomicI64::new(0);
    let begun = Instant::now();
    let write = |writer: usize| {
        let sets: Vec<Labels> = (0..BATCH_SAMPLES).map(|n| labels(writer, n)).collect();
        let mut batch = Batch::new();
        let mut took = Vec::new();
        while begun.elapsed() < time {
            // In the past, so that no sample lies too far ahead.
            let t = Timestamp::from_millis(FIRST_MS - 3_600_000 + round.fetch_add(1, Relaxed));
            batch.clear();
            for (n, labels) in sets.iter().enumerate() {
                batch.push(labels, t, (t.as_millis() % 1000 * n as i64) as f64);
            }
            let start = Instant::now();
            let appended = db.append(&batch).expect("the disk has room");
            took.push(start.elapsed());
            assert_eq!(appended.accepted, BATCH_SAMPLES);
        }
        took
    };
    let mut all: Vec<Duration> = std::thread::scope(|scope| {
        let write = &write;
        let threads: Vec<_> = (0..writers).map(|writer| scope.spawn(move || write(writer))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no writer panics")).collect()
    });
    all.sort_unstable();
    (all, db.stats().wal_syncs - before)
}

fn main() {
    let seconds = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(5);
    let time = Duration::from_secs(seconds);
    let ms = |took: Duration| took.as_secs_f64() * 1e3;
    let part = |all: &[Duration], of_thousand: usize| ms(all[(all.len() - 1) * of_thousand / 1000]);
    for writers in [1, 4, 32] {
        let (all, syncs) = append(WalFsync::Always, writers, time);
        let name = |what: &str| format!("always, {writers} writers, {what}");
        support::row(&name("appends"), all.len() as f64 / time.as_secs_f64(), "1/s");
        support::row(&name("appends a sync"), all.len() as f64 / syncs as f64, "x");
        support::row(&name("p50"), part(&all, 500), "ms");
        support::row(&name("p99"), part(&all, 990), "ms");
    }
    for (name, fsync) in
        [("interval", WalFsync::Interval(Duration::from_secs(1))), ("never", WalFsync::Never)]
    {
        let (all, _) = append(fsync, 1, time);
        support::row(&format!("{name}, 1 writer, p50"), part(&all, 500), "ms");
        support::row(&format!("{name}, 1 writer, p99"), part(&all, 990), "ms");
        support::row(&format!("{name}, 1 writer, p99.9"), part(&all, 999), "ms");
        support::row(&format!("{name}, 1 writer, max"), part(&all, 1000), "ms");
    }
}
