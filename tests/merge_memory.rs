//! A merge takes as much memory as it is allowed, however many series there are: every allocation of
//! this process is counted.

use larum::storage::options::Maintenance;
use larum::{Batch, Db, Labels, Options, Timestamp};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

fn grew(bytes: usize) {
    let held = HELD.fetch_add(bytes, Relaxed) + bytes;
    MOST.fetch_max(held, Relaxed);
}

// SAFETY: everything is passed on to the system's allocator as it came; counting changes nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grew(layout.size());
        // SAFETY: the caller's promises are the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SERIES: usize = 200_000;
const HOUR_MS: i64 = 3_600_000;
const START: i64 = 20_000 * 24 * HOUR_MS;

/// Every series has a pod of its own, so that symbols are as many as series.
fn labels(n: usize) -> Labels {
    let (pod, zone) = (format!("pod-7d9f8b6c5-{n:08}"), format!("zone-{}", n % 7));
    let pairs = [("__name__", "requests_total"), ("job", "api"), ("pod", &pod), ("zone", &zone)];
    Labels::from_pairs(pairs).unwrap()
}

#[test]
fn a_merge_of_many_series_keeps_to_its_memory() {
    let dir = tempfile::tempdir().unwrap();
    let memory_bytes = 16 << 20;
    let options = Options {
        clock: Arc::new(|| Timestamp::from_millis(START + 4 * HOUR_MS)),
        maintenance: Maintenance::Stepped,
        merge_memory_bytes: memory_bytes,
        ..Options::default()
    };
    let open = || Db::open(dir.path(), options.clone()).unwrap();
    for hour in [1, 3] {
        let db = open();
        let mut batch = Batch::new();
        for n in 0..SERIES {
            batch.push(&labels(n), Timestamp::from_millis(START + hour * HOUR_MS), n as f64);
            if batch.len() == 10_000 {
                assert_eq!(db.append(&batch).unwrap().accepted, 10_000);
                batch.clear();
            }
        }
        db.close().unwrap();
    }
    let db = open();
    assert_eq!(db.stats().partitions, 2);
    let before = HELD.load(Relaxed);
    MOST.store(before, Relaxed);
    db.compact().unwrap();
    let took = MOST.load(Relaxed) - before;
    assert_eq!(db.stats().partitions, 1);
    assert!(took < memory_bytes, "{took} bytes");
    println!("{took} bytes");
    assert_eq!(db.view().series(&[], larum::storage::TimeRange::ALL).items.len(), SERIES);
    db.close().unwrap();
    let names: Vec<_> = std::fs::read_dir(dir.path().join("partitions")).unwrap().collect();
    assert_eq!(names.len(), 1, "{names:?}");
}
