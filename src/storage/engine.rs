//! The storage engine: one data folder, opened.

use super::batch::{Appended, Batch};
use super::error::{AppendError, OpenError};
use super::matcher::Matcher;
use super::options::Options;
use super::querier::View;
use super::time::TimeRange;
use super::wal::Pending;
use std::io;
use std::path::Path;

/// An open data folder.
pub struct Storage {}

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

/// What a deletion touches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Deleted {
    /// Series with samples in the range.
    pub series: u64,
    /// Samples in the range.
    pub samples: u64,
}

impl Storage {
    /// Opens or creates the folder at `path`.
    pub fn open(path: &Path, options: Options) -> Result<Storage, OpenError> {
        let _ = (path, options);
        todo!()
    }

    /// Appends and waits until the batch is as durable as the fsync policy says.
    pub fn append(&self, batch: &Batch) -> Result<Appended, AppendError> {
        self.append_start(batch)?.wait()
    }

    /// Appends without waiting for a sync. Readers see the samples at once.
    pub fn append_start(&self, batch: &Batch) -> Result<Pending, AppendError> {
        let _ = batch;
        todo!()
    }

    /// What is stored now.
    pub fn view(&self) -> View {
        todo!()
    }

    /// Deletes the samples in `range` of the series that match all matchers of any of the `sets`.
    pub fn delete(&self, sets: &[Vec<Matcher>], range: TimeRange) -> io::Result<Deleted> {
        let _ = (sets, range);
        todo!()
    }

    /// Cuts all of the head into partitions, now.
    pub fn flush(&self) -> io::Result<()> {
        todo!()
    }

    /// Merges what can be merged and applies tombstones, now.
    pub fn compact(&self) -> io::Result<()> {
        todo!()
    }

    /// A consistent copy by hard links in the new folder `to`, which can be opened on its own.
    pub fn snapshot(&self, to: &Path) -> io::Result<()> {
        let _ = to;
        todo!()
    }

    /// One round of background work (cut, merge, drop), for [`super::options::Maintenance::Stepped`].
    pub fn maintain(&self) -> io::Result<()> {
        todo!()
    }

    /// Figures about the engine.
    pub fn stats(&self) -> StorageStats {
        todo!()
    }

    /// Cuts everything, so that the next start replays nothing, and closes. Later calls fail.
    pub fn close(&self) -> io::Result<()> {
        todo!()
    }
}
