//! The head: recent samples in memory, backed by the WAL.
//!
//! An append goes through four steps. The label bytes become series refs ([`lookup`]); series not
//! met before are created ([`index`]); one WAL frame is written ([`super::wal`]); the samples go
//! into the rows of their scrape groups ([`group`]), which belong to a [`Generation`].

mod generation;

pub(crate) use generation::Generation;

use super::batch::Batch;
use super::error::{AppendError, OpenError};
use super::options::{Limits, WalFsync};
use super::time::{TimeRange, Timestamp};
use super::wal::Pending;
use larum_storage_format::IdentitySeed;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What a head needs to know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadOptions {
    /// The seed of the data folder.
    pub seed: IdentitySeed,
    /// Limits on what a series may look like.
    pub limits: Limits,
    /// When the WAL is synced.
    pub fsync: WalFsync,
}

/// The series in memory and the generations of their samples.
pub(crate) struct Head {}

impl Head {
    /// Replays the WAL folder `dir` (created if missing) from `first_generation` on, removes what is
    /// older unread, and goes on writing there. What was replayed is one generation.
    pub fn open(dir: &Path, first_generation: u64, options: HeadOptions) -> Result<Head, OpenError> {
        let _ = (dir, first_generation, options);
        todo!()
    }

    /// Writes one WAL frame with the samples of `batch` that lie in `accept` and are otherwise in
    /// order, and puts them into the active generation, where readers see them at once.
    pub fn append_start(&self, batch: &Batch, accept: TimeRange) -> Result<Pending, AppendError> {
        let _ = (batch, accept);
        todo!()
    }

    /// The generation that is being written.
    pub fn active(&self) -> Arc<Generation> {
        todo!()
    }

    /// The generation between [`Head::switch`] and [`Head::release`].
    pub fn frozen(&self) -> Option<Arc<Generation>> {
        todo!()
    }

    /// Starts a new generation of samples and WAL, waits until no append writes to the old one any
    /// more, and returns that one, frozen. If there is a frozen one already, that is returned.
    pub fn switch(&self) -> io::Result<Arc<Generation>> {
        todo!()
    }

    /// Lets go of the frozen generation once a MANIFEST that no longer needs it is committed:
    /// deletes its WAL segments, and removes series from memory that are silent since two hours.
    pub fn release(&self, now: Timestamp) -> io::Result<()> {
        let _ = now;
        todo!()
    }

    /// Length of the WAL of the active generation.
    pub fn wal_bytes(&self) -> u64 {
        todo!()
    }

    /// How many series are in memory.
    pub fn series_count(&self) -> u64 {
        todo!()
    }

    /// Syncs the WAL and refuses appends from now on.
    pub fn close(&self) -> io::Result<()> {
        todo!()
    }
}
