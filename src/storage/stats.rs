//! Figures about the engine.

use super::disk::DiskStatus;
use super::head::HeadStats;
use super::usage::FolderUse;
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
    /// Live partitions of which something was deleted that still takes its bytes.
    pub partitions_with_tombstones: u64,
    /// Time of the oldest sample in them, in milliseconds since the epoch.
    pub oldest_ms: Option<i64>,
    /// Partitions dropped because retention has passed.
    pub partitions_expired: u64,
    /// Bytes by which partitions became shorter as they were written without what had expired.
    pub expired_bytes: u64,
    /// When what has expired is removed next, in milliseconds since the epoch, where there is a schedule.
    pub next_cleanup_ms: Option<i64>,
    /// Partitions dropped because the folder took more than it may.
    pub partitions_surplus: u64,
    /// Partitions dropped because the disk was nearly full.
    pub partitions_emergency: u64,
    /// How the disk is doing.
    pub disk: DiskStatus,
    /// What the folder took when it was measured last.
    pub usage: FolderUse,
    /// What it may take; 0: there is no limit.
    pub size_limit_bytes: u64,
    /// By how much it takes more than it may, with nothing left to drop.
    pub excess_bytes: u64,
    /// Deletions that found something.
    pub deletions: u64,
    /// Samples they took.
    pub deleted_samples: u64,
    /// Bytes by which partitions became shorter as they were written without what was deleted.
    pub freed_bytes: u64,
    /// Jobs that wait or run.
    pub active_jobs: u64,
    /// Seconds that opening took.
    pub open_seconds: f64,
    /// Whether the process before closed the folder in good order.
    pub clean_start: bool,
    /// Partitions whose files are not there, or whose tombstones cannot be read: they are not shown.
    pub missing_partitions: u64,
    /// Files found damaged at the start, when they were merged, or by the scrub.
    pub damaged_files: u64,
    /// Live partitions that are known to be damaged.
    pub damaged_partitions: u64,
    /// Bytes that were read to find damage.
    pub scrubbed_bytes: u64,
    /// Whether nothing expires at present, because the clock jumped or the data are old.
    pub retention_paused: bool,
}

/// What the series of the head are made of, for status pages. Each list holds what has most,
/// descending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeadStatus {
    /// How many series there are.
    pub series: u64,
    /// How many different labels (name and value) they have.
    pub label_pairs: u64,
    /// Series of each metric name.
    pub series_by_metric: Vec<(String, u64)>,
    /// Values of each label name.
    pub values_by_name: Vec<(String, u64)>,
    /// Bytes of the values of each label name. A value is kept once, however many series have it.
    pub value_bytes_by_name: Vec<(String, u64)>,
    /// Series with each label, which is written `name=value`.
    pub series_by_pair: Vec<(String, u64)>,
}

impl StorageStats {
    /// Takes over what the head counts.
    pub(crate) fn add_head(&mut self, head: &HeadStats) {
        self.series_created = head.series_created;
        self.series_removed = head.series_removed;
        self.float_samples = head.float_samples;
        self.histogram_samples = head.histogram_samples;
        self.refused_samples = head.refused_samples;
        self.wal_segment = head.wal.segment;
        self.wal_syncs = head.wal.syncs;
        self.wal_sync_seconds = head.wal.sync_time.as_secs_f64();
        self.wal_failures = head.wal.failures;
    }
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
    pub expired_bytes: AtomicU64,
    pub surplus: AtomicU64,
    pub emergency: AtomicU64,
    pub excess_bytes: AtomicU64,
    pub deletions: AtomicU64,
    pub deleted_samples: AtomicU64,
    pub freed_bytes: AtomicU64,
    pub damaged: AtomicU64,
    pub scrubbed_bytes: AtomicU64,
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
            expired_bytes: self.expired_bytes.load(Relaxed),
            partitions_surplus: self.surplus.load(Relaxed),
            partitions_emergency: self.emergency.load(Relaxed),
            excess_bytes: self.excess_bytes.load(Relaxed),
            deletions: self.deletions.load(Relaxed),
            deleted_samples: self.deleted_samples.load(Relaxed),
            freed_bytes: self.freed_bytes.load(Relaxed),
            damaged_files: self.damaged.load(Relaxed),
            scrubbed_bytes: self.scrubbed_bytes.load(Relaxed),
            clean_start: self.clean_start.load(Relaxed),
            open_seconds: self.open_micros.load(Relaxed) as f64 / 1e6,
            ..StorageStats::default()
        }
    }
}
