//! Figures about the engine.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Figures about the engine, for metrics and status pages. Counters only grow.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct StorageStats {
    /// Series in the head.
    pub head_series: u64,
    /// Series created in the head.
    pub series_created: u64,
    /// Series that left the head.
    pub series_removed: u64,
    /// Floats appended.
    pub float_samples: u64,
    /// Native histograms appended.
    pub histogram_samples: u64,
    /// Samples refused for good.
    pub refused_samples: u64,
    /// Times of the oldest and the newest sample in the head, in milliseconds since the epoch.
    pub head_range_ms: Option<(i64, i64)>,
    /// Bytes of the WAL that a start would read.
    pub wal_bytes: u64,
    /// Number of the WAL segment that is being written.
    pub wal_segment: u64,
    /// Syncs of the WAL.
    pub wal_syncs: u64,
    /// Seconds they took.
    pub wal_sync_seconds: f64,
    /// Writes or syncs of the WAL that failed.
    pub wal_failures: u64,
    /// Cuts of the head into partitions.
    pub cuts: u64,
    /// Cuts that failed.
    pub cut_failures: u64,
    /// Merges of partitions.
    pub compactions: u64,
    /// Merges that failed.
    pub compaction_failures: u64,
    /// Seconds that cuts and merges took.
    pub compaction_seconds: f64,
    /// Live partitions.
    pub partitions: u64,
    /// Bytes of their files.
    pub partition_bytes: u64,
    /// Time of the oldest sample in them, in milliseconds since the epoch.
    pub oldest_ms: Option<i64>,
    /// Partitions dropped because retention has passed.
    pub partitions_expired: u64,
    /// Seconds that opening took.
    pub open_seconds: f64,
    /// Whether the process before closed the folder in good order.
    pub clean_start: bool,
    /// Damaged extents met.
    pub damaged_extents: u64,
}

/// The counters behind them.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub cuts: AtomicU64,
    pub cut_failures: AtomicU64,
    pub merges: AtomicU64,
    pub merge_failures: AtomicU64,
    pub work_micros: AtomicU64,
    pub expired: AtomicU64,
    pub damaged: AtomicU64,
    pub clean_start: AtomicBool,
    pub open_micros: AtomicU64,
}

impl Counters {
    /// Adds the time that a cut or merge took.
    pub fn worked(&self, time: Duration) {
        self.work_micros.fetch_add(time.as_micros() as u64, Relaxed);
    }

    /// What is counted here.
    pub fn stats(&self) -> StorageStats {
        StorageStats {
            cuts: self.cuts.load(Relaxed),
            cut_failures: self.cut_failures.load(Relaxed),
            compactions: self.merges.load(Relaxed),
            compaction_failures: self.merge_failures.load(Relaxed),
            compaction_seconds: self.work_micros.load(Relaxed) as f64 / 1e6,
            partitions_expired: self.expired.load(Relaxed),
            damaged_extents: self.damaged.load(Relaxed),
            clean_start: self.clean_start.load(Relaxed),
            open_seconds: self.open_micros.load(Relaxed) as f64 / 1e6,
            ..StorageStats::default()
        }
    }
}
