//! A database whose time and background work are the test's, and what is written to and read from it.

use larum::Labels;
use larum::storage::options::Maintenance;
use larum::storage::series_set::Columns;
use larum::storage::{Batch, Matcher, Options, Source, Storage, TimeRange, Timestamp};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

pub const MINUTE: i64 = 60_000;
pub const HOUR: i64 = 60 * MINUTE;
pub const DAY: i64 = 24 * HOUR;
/// Midnight, some day.
pub const START: i64 = 20_000 * DAY;

/// A database over a temporary folder.
pub struct Fixture {
    pub dir: tempfile::TempDir,
    pub now: Arc<AtomicI64>,
    pub retention: Option<Duration>,
}

impl Fixture {
    pub fn new() -> Fixture {
        let now = Arc::new(AtomicI64::new(START));
        Fixture { dir: tempfile::tempdir().unwrap(), now, retention: None }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn options(&self) -> Options {
        let now = self.now.clone();
        Options {
            clock: Arc::new(move || Timestamp::from_millis(now.load(Ordering::Relaxed))),
            maintenance: Maintenance::Stepped,
            retention: self.retention,
            ..Options::default()
        }
    }

    pub fn open(&self) -> Storage {
        Storage::open(&self.path(), self.options()).unwrap()
    }

    pub fn set_now(&self, now_ms: i64) {
        self.now.store(now_ms, Ordering::Relaxed);
    }

    pub fn partitions(&self) -> Vec<String> {
        names(&self.path().join("partitions"))
    }
}

pub fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub fn labels(name: &str, job: &str) -> Labels {
    Labels::from_pairs([("__name__", name), ("job", job)]).unwrap()
}

pub fn batch(job: &str, samples: &[(i64, f64)]) -> Batch {
    let mut batch = Batch::new();
    for &(t, v) in samples {
        batch.push(&labels("m", job), Timestamp::from_millis(t), v);
    }
    batch
}

pub fn append(storage: &Storage, job: &str, samples: &[(i64, f64)]) {
    let appended = storage.append(&batch(job, samples)).unwrap();
    assert_eq!((appended.accepted, appended.refused), (samples.len(), vec![]));
}

pub fn read(storage: &Storage, job: &str) -> Vec<(i64, f64)> {
    read_range(storage, job, TimeRange::ALL)
}

pub fn read_range(storage: &Storage, job: &str, range: TimeRange) -> Vec<(i64, f64)> {
    let view = storage.view();
    let set = view.select(&[Matcher::equal("job", job)], range).unwrap();
    assert!(set.len() <= 1);
    let mut columns = Columns::default();
    let load = |i| set.load(i, &mut columns).unwrap();
    (0..set.len())
        .map(load)
        .flat_map(|s| s.timestamps.iter().copied().zip(s.floats).collect::<Vec<_>>())
        .collect()
}
