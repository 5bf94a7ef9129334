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
