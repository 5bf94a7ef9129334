//! What memory an append takes, counted by the allocator: none for known series between two seals
//! of their rows, and what silent series took comes back.

use larum::budget::Part;
use larum::ingest::remote_write::{self, BodyLimits};
use larum::storage::options::Maintenance;
use larum::{Batch, Db, Labels, Options, Timestamp};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicI64, AtomicIsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

mod support;

/// The system's allocator, which counts.
struct Counting;

thread_local! {
    /// Allocations of this thread.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}
/// Bytes that all threads hold.
static HELD_BYTES: AtomicIsize = AtomicIsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged; counting touches no memory of its own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        HELD_BYTES.fetch_add(layout.size() as isize, Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD_BYTES.fetch_sub(layout.size() as isize, Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        HELD_BYTES.fetch_add(size as isize - layout.size() as isize, Relaxed);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test at a time, as held bytes are counted over all threads.
static ALONE: Mutex<()> = Mutex::new(());

const SERIES: usize = 2_000;
const SERIES_PER_TARGET: usize = 500;
const FIRST_MS: i64 = 1_700_000_000_000;
const INTERVAL_MS: i64 = 15_000;
/// Rows of a scrape group that are open.
const ROWS: i64 = 16;
/// A seal takes memory for a block of each group, now and then for the list of blocks, and for the
/// buffers of the thread as long as they grow.
const ALLOCATIONS_PER_SEAL: usize = 2 * SERIES / SERIES_PER_TARGET + 4;

struct Opened {
    db: Db,
    now_ms: Arc<AtomicI64>,
    _dir: tempfile::TempDir,
}

fn open(maintenance: Maintenance) -> Opened {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let now_ms = Arc::new(AtomicI64::new(FIRST_MS));
    let clock = now_ms.clone();
    let options = Options {
        maintenance,
        clock: Arc::new(move || Timestamp::from_millis(clock.load(Relaxed))),
        ..Options::default()
    };
    Opened { db: Db::open(dir.path(), options).expect("a new folder opens"), now_ms, _dir: dir }
}

fn labels(n: usize) -> Vec<(&'static str, String)> {
    vec![
        ("__name__", format!("metric_{}_total", n % SERIES_PER_TARGET)),
        ("instance", format!("host-{}:9100", n / SERIES_PER_TARGET)),
        ("job", "node".to_owned()),
        ("path", format!("/api/v1/{}", n % 7)),
    ]
}

/// Warms up, and asserts what appends of later rounds take.
fn check(mut append: impl FnMut(i64) -> usize) {
    for round in 0..=2 * ROWS {
        append(round);
    }
    for round in 2 * ROWS + 1..6 * ROWS {
        let allocations = append(round);
        let allowed = if round % ROWS == 0 { ALLOCATIONS_PER_SEAL } else { 0 };
        assert!(allocations <= allowed, "{allocations} allocations in round {round}, {allowed} are allowed");
    }
}

fn value(n: usize, round: i64) -> f64 {
    [1.0, round as f64, (round * 37 % 11) as f64 / 10.0, 1.0 / (round + 1) as f64][n % 4]
}

#[test]
fn a_batch_of_known_samples_takes_no_allocation_between_seals() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Opened { db, now_ms, _dir } = open(Maintenance::Thread);
    let series: Vec<Labels> =
        (0..SERIES).map(|n| Labels::from_pairs(labels(n)).expect("good labels")).collect();
    let mut batch = Batch::new();
    check(|round| {
        let t = FIRST_MS + round * INTERVAL_MS;
        now_ms.store(t, Relaxed);
        let before = ALLOCATIONS.get();
        batch.clear();
        for (n, labels) in series.iter().enumerate() {
            batch.push(labels, Timestamp::from_millis(t), value(n, round));
        }
        let outcome = db.append(&batch).expect("the disk has room");
        assert_eq!(outcome.accepted, SERIES);
        ALLOCATIONS.get() - before
    });
}

#[test]
fn a_remote_write_of_known_samples_takes_no_allocation_between_seals() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Opened { db, now_ms, _dir } = open(Maintenance::Thread);
    let series: Vec<_> = (0..SERIES).map(labels).collect();
    let mut batch = Batch::new();
    check(|round| {
        let t = FIRST_MS + round * INTERVAL_MS;
        now_ms.store(t, Relaxed);
        let texts: Vec<Vec<(&str, &str)>> = series
            .iter()
            .map(|labels| labels.iter().map(|(name, value)| (*name, value.as_str())).collect())
            .collect();
        let samples: Vec<[(i64, f64); 1]> = (0..SERIES).map(|n| [(t, value(n, round))]).collect();
        let request: Vec<support::WriteSeries> =
            texts.iter().zip(&samples).map(|(labels, samples)| (&labels[..], &samples[..])).collect();
        let body = support::write_request(&request);
        let body = snap::raw::Encoder::new().compress_vec(&body).expect("snappy compresses");
        let before = ALLOCATIONS.get();
        let mut text = batch.take_text();
        remote_write::decompress(&body, &BodyLimits::default(), &mut text).expect("a good body");
        remote_write::decode(text, &mut batch).expect("a good request");
        let outcome = db.append(&batch).expect("the disk has room");
        assert_eq!(outcome.accepted, SERIES);
        ALLOCATIONS.get() - before
    });
}

#[test]
fn what_silent_series_took_comes_back() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Opened { db, now_ms, _dir } = open(Maintenance::Stepped);
    let append = |names: &str, count: usize| {
        let mut batch = Batch::new();
        for n in 0..count {
            if batch.len() == 1000 {
                assert_eq!(db.append(&batch).expect("the disk has room").accepted, 1000);
                batch.clear();
            }
            let (own, pod) = (format!("{names}{n}"), format!("pod-{names}-{}", n / 10));
            let labels = [("__name__", "m"), ("job", "churn"), ("instance", &pod), ("own", &own)];
            let labels = Labels::from_pairs(labels).expect("good labels");
            batch.push(&labels, Timestamp::from_millis(now_ms.load(Relaxed)), 1.0);
        }
        db.append(&batch).expect("the disk has room");
    };
    let held = || HELD_BYTES.load(Relaxed);
    let let_time_pass = || {
        // The first cut takes the samples, the second the series, the third makes room.
        for _ in 0..3 {
            append("stays", 100);
            db.flush().expect("the disk has room");
            now_ms.fetch_add(3 * 60 * 60 * 1000, Relaxed);
        }
    };
    append("stays", 100);
    let_time_pass();
    let before = held();
    append("comes", 20_000);
    let most = held() - before;
    let_time_pass();
    let left = held() - before;
    assert_eq!(db.stats().head_series, 100);
    println!("{most} bytes for 20,000 series, {left} after they left");
    assert!(left * 5 < most, "of {most} bytes for series that left, {left} are still held");
}

/// Bytes that the head takes by the count of the allocator, and by its own account.
fn head_bytes(
    series: usize,
    rounds: i64,
    labels: impl Fn(usize) -> Vec<(&'static str, String)>,
) -> (f64, f64) {
    let Opened { db, now_ms, _dir } = open(Maintenance::Stepped);
    let before = HELD_BYTES.load(Relaxed);
    let mut batch = Batch::new();
    for round in 0..rounds {
        let t = FIRST_MS + round * INTERVAL_MS;
        now_ms.store(t, Relaxed);
        for n in 0..series {
            let labels = Labels::from_pairs(labels(n)).expect("good labels");
            batch.push(&labels, Timestamp::from_millis(t), value(n, round));
            if batch.len() == 1000 || n + 1 == series {
                db.append(&batch).expect("the disk has room");
                batch.clear();
            }
        }
    }
    drop(batch);
    let took = HELD_BYTES.load(Relaxed) - before;
    db.stats();
    (took as f64, db.memory().status().reserved(Part::Head) as f64)
}

#[test]
fn the_head_knows_about_how_much_memory_it_takes() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let churning = |n: usize| {
        let mut labels = labels(n);
        labels.push(("pod", format!("pod-7d9f8b6c5-{n:08}")));
        labels
    };
    let cases = [
        ("many samples", head_bytes(5_000, 200, labels)),
        ("many series that share labels", head_bytes(100_000, 1, labels)),
        ("as many labels as series", head_bytes(50_000, 1, churning)),
    ];
    let ratios = cases.map(|(what, (took, accounted))| (what, took, accounted, accounted / took));
    println!("{ratios:?}");
    assert!(ratios.iter().all(|(.., ratio)| (0.75..1.4).contains(ratio)), "{ratios:?}");
}
