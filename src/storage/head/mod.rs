//! The head: recent samples in memory, backed by the WAL.
//!
//! An append goes through four steps (see [`append`]). The label bytes become series refs
//! ([`lookup`]); series not met before are created ([`index`]); one WAL frame is written
//! ([`super::wal`]); the samples go into the rows of their scrape groups ([`group`]), which belong
//! to a [`Generation`].
//!
//! The last two steps of one append may lie on both sides of those of another. Of two that write the
//! same series and time at once, either wins therefore, and after a restart, when the order of the frames
//! decides, it may be the other one. Who wants a certain one of them waits for the first append to return.
//!
//! Locks are taken in this order: gate, released, frozen, index, lookup; then those of a generation.

mod append;
mod block;
mod generation;
mod group;
mod held;
mod index;
mod limits;
mod lookup;
mod pair_lists;
mod ref_table;
mod restore;
mod rows;
mod scrape_groups;
#[cfg(test)]
mod tests;

pub(crate) use append::Accept;
pub(crate) use generation::Generation;

use super::error::OpenError;
use super::fs::Fs;
use super::options::{Limits, Maintenance, WalFsync};
use super::policy::Policies;
use super::stats::HeadStatus;
use super::time::Timestamp;
use super::touched::Touched;
use super::wal::{Wal, WalStats, replay};
use append::Scratch;
use index::Index;
use larum_storage_format::IdentitySeed;
use lookup::{Lookup, RawHasher};
use restore::restore;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

/// A series leaves memory when it was silent for so long.
const SILENT_MS: i64 = 2 * 60 * 60 * 1000;
/// So many series leave at a time; appends wait meanwhile.
const LEAVING_AT_ONCE: usize = 4096;

/// What a head needs to know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadOptions {
    /// The seed of the data folder.
    pub seed: IdentitySeed,
    /// Limits on what a series may look like.
    pub limits: Limits,
    /// When the WAL is synced.
    pub fsync: WalFsync,
    /// Who syncs it.
    pub maintenance: Maintenance,
    /// How long it gets before it is cut, if there are few series.
    pub wal_bytes: u64,
    /// So many numbers of generations are left out at the start: another one each time. A power cut may
    /// take the name of a generation that was not synced, and what it left in blocks that are used again
    /// would count as frames of the next one if that had the same number.
    pub generations_skipped: u64,
}

/// Figures about a head. They only grow.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct HeadStats {
    /// Series created.
    pub series_created: u64,
    /// Series that left because they were silent.
    pub series_removed: u64,
    /// Floats appended, no-ops included.
    pub float_samples: u64,
    /// Native histograms appended, no-ops included.
    pub histogram_samples: u64,
    /// Samples refused for good.
    pub refused_samples: u64,
    /// Figures about the WAL.
    pub wal: WalStats,
}

#[derive(Default)]
struct Counters {
    series_created: AtomicU64,
    series_removed: AtomicU64,
    float_samples: AtomicU64,
    histogram_samples: AtomicU64,
    refused_samples: AtomicU64,
}

/// The series in memory and the generations of their samples.
pub(crate) struct Head {
    options: HeadOptions,
    hasher: RawHasher,
    /// The active generation. An append holds the gate shared from its lookup to its last sample,
    /// so that who has it alone meets no append on its way.
    gate: RwLock<Arc<Generation>>,
    lookup: RwLock<Lookup>,
    index: Arc<RwLock<Index>>,
    wal: Wal,
    frozen: Mutex<Option<Arc<Generation>>>,
    /// Generations that were released; some view may still read them.
    released: Mutex<Vec<Weak<Generation>>>,
    /// Whether silent series are still to be removed after the last release.
    untidy: AtomicBool,
    scratch: Mutex<Vec<Scratch>>,
    /// What appends and everybody else changed.
    touched: Touched,
    counters: Counters,
}

impl Head {
    /// Replays the WAL folder `dir` (created if missing) from `first_generation` on, removes what is
    /// older unread, and goes on writing there. What was replayed is one generation.
    pub fn open(
        fs: Arc<dyn Fs>,
        dir: &Path,
        first_generation: u64,
        options: HeadOptions,
    ) -> Result<Head, OpenError> {
        let at_dir = |source: io::Error| OpenError::Io { path: dir.to_owned(), source };
        fs.create_dir(dir).map_err(at_dir)?;
        let segments = replay::Segments::find(fs.as_ref(), dir, first_generation)?;
        let generation = segments.next_generation().saturating_add(options.generations_skipped);
        let wal = Wal::new(fs.clone(), dir, &options, generation).map_err(at_dir)?;
        let index = Arc::new(RwLock::new(Index::default()));
        let head = Head {
            options,
            hasher: RawHasher::new().map_err(|e| at_dir(io::Error::other(e)))?,
            gate: RwLock::new(Arc::new(Generation::new(generation, index.clone()))),
            lookup: RwLock::default(),
            index,
            wal,
            frozen: Mutex::default(),
            released: Mutex::default(),
            untidy: AtomicBool::new(false),
            scratch: Mutex::default(),
            touched: Touched::default(),
            counters: Counters::default(),
        };
        let (losses, undeclared) =
            restore(&head, |put| segments.read(fs.as_ref(), options.seed, put)).map_err(at_dir)?;
        let losses = losses?;
        losses.report();
        if undeclared > 0 {
            tracing::warn!(
                samples = undeclared,
                "samples in the WAL whose series was declared in a damaged frame are lost"
            );
        }
        losses.remove_torn(fs.as_ref());
        Ok(head)
    }

    fn gate(&self) -> RwLockReadGuard<'_, Arc<Generation>> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn gate_alone(&self) -> RwLockWriteGuard<'_, Arc<Generation>> {
        self.gate.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn lookup(&self) -> RwLockReadGuard<'_, Lookup> {
        self.lookup.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn lookup_mut(&self) -> RwLockWriteGuard<'_, Lookup> {
        self.lookup.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn frozen_slot(&self) -> MutexGuard<'_, Option<Arc<Generation>>> {
        self.frozen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which times were touched since when; who changes what partitions hold notes it here, too.
    pub fn touched(&self) -> &Touched {
        &self.touched
    }

    /// The generation that is being written.
    pub fn active(&self) -> Arc<Generation> {
        self.gate().clone()
    }

    /// The generation between [`Head::switch`] and [`Head::release`].
    pub fn frozen(&self) -> Option<Arc<Generation>> {
        self.frozen_slot().clone()
    }

    /// The frozen generation, if there is one, and the active one: all that is in the head, with no
    /// switch in between.
    pub fn generations(&self) -> Vec<Arc<Generation>> {
        let gate = self.gate();
        self.frozen_slot().iter().chain([&*gate]).cloned().collect()
    }

    /// Starts a new generation of samples and WAL, waits until no append writes to the old one any
    /// more, and returns that one, frozen. If there is a frozen one already, that is returned.
    pub fn switch(&self) -> io::Result<Arc<Generation>> {
        let mut gate = self.gate_alone();
        let mut frozen = self.frozen_slot();
        if let Some(frozen) = &*frozen {
            return Ok(frozen.clone());
        }
        let number = gate.number() + 1;
        self.wal.switch(number);
        let old = std::mem::replace(&mut *gate, Arc::new(Generation::new(number, self.index.clone())));
        *frozen = Some(old.clone());
        let mut index = self.index_mut();
        index.reuse_retired();
        self.lookup_mut().truncate(index.ref_count());
        Ok(old)
    }

    /// Lets go of the frozen generation once a MANIFEST that no longer needs it is committed:
    /// deletes its WAL segments, and removes series from memory that are silent since two hours.
    ///
    /// # Errors
    /// If a segment cannot be removed; the generation is gone nevertheless, and the next start or
    /// release tries again.
    pub fn release(&self, now: Timestamp) -> io::Result<()> {
        let first_needed = {
            let gate = self.gate();
            let Some(old) = self.frozen_slot().take() else { return Ok(()) };
            self.note_seen(&old);
            self.released.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&old));
            gate.number()
        };
        let removed = self.wal.remove_before(first_needed);
        self.untidy.store(true, Relaxed);
        self.tidy(now);
        removed
    }

    /// Removes silent series if the last release could not, because somebody read what it released.
    /// To be called now and then: where somebody always reads, the next release could not either,
    /// and the series would never leave.
    pub fn tidy(&self, now: Timestamp) {
        if self.untidy.load(Relaxed) && self.forget_silent(now) {
            self.untidy.store(false, Relaxed);
        }
    }

    fn note_seen(&self, generation: &Generation) {
        let Some(range) = super::part::Part::time_range(generation) else { return };
        let mut index = self.index_mut();
        generation.written().iter().for_each(|series| index.seen(series, range.max_ms));
    }

    /// Removes silent series, unless a view still reads a generation that may have samples of them.
    /// Tells whether it is done.
    fn forget_silent(&self, now: Timestamp) -> bool {
        let border_ms = now.as_millis().saturating_sub(SILENT_MS);
        let mut from = 0;
        loop {
            let gate = self.gate_alone();
            {
                let mut released = self.released.lock().unwrap_or_else(PoisonError::into_inner);
                released.retain(|generation| generation.strong_count() > 0);
                if !released.is_empty() || self.frozen_slot().is_some() {
                    return false;
                }
            }
            let mut index = self.index_mut();
            let mut silent = index.silent_since(border_ms, from, LEAVING_AT_ONCE);
            let Some(&last) = silent.last() else { return true };
            silent.retain(|&series| !gate.has_written(series));
            self.lookup_mut().remove(&silent);
            index.remove(&silent);
            self.counters.series_removed.fetch_add(silent.len() as u64, Relaxed);
            from = last + 1;
        }
    }

    /// Other retention policies are in force. Appends wait while they are matched, about a second for a
    /// million series.
    pub fn set_policies(&self, policies: &Arc<Policies>) {
        self.index_mut().set_policies(policies);
    }

    /// How many samples are in the active generation.
    pub fn active_samples(&self) -> u64 {
        self.gate().appended()
    }

    /// Length of the WAL of the active generation.
    pub fn wal_bytes(&self) -> u64 {
        self.wal.active_bytes()
    }

    /// How many samples were ever appended, no-ops included.
    pub fn appended(&self) -> u64 {
        self.counters.float_samples.load(Relaxed) + self.counters.histogram_samples.load(Relaxed)
    }

    /// About how much memory samples and series take, those of released generations that somebody
    /// still reads included.
    pub fn held_bytes(&self) -> u64 {
        let released: Vec<_> = {
            let released = self.released.lock().unwrap_or_else(PoisonError::into_inner);
            released.iter().filter_map(Weak::upgrade).collect()
        };
        let generations = self.generations();
        let samples = released.iter().chain(&generations).map(|generation| generation.sample_bytes());
        samples.sum::<u64>() + self.index().len_bytes()
    }

    /// Gives up the buffers that appends left to the next ones.
    pub fn shrink(&self) {
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// How many series are in memory.
    pub fn series_count(&self) -> u64 {
        self.index().len()
    }

    /// What the series in memory are made of.
    pub fn status(&self, limit: usize) -> HeadStatus {
        self.index().status(limit)
    }

    /// Figures about the head.
    pub fn stats(&self) -> HeadStats {
        let Counters { series_created, series_removed, float_samples, histogram_samples, refused_samples } =
            &self.counters;
        HeadStats {
            series_created: series_created.load(Relaxed),
            series_removed: series_removed.load(Relaxed),
            float_samples: float_samples.load(Relaxed),
            histogram_samples: histogram_samples.load(Relaxed),
            refused_samples: refused_samples.load(Relaxed),
            wal: self.wal.stats(),
        }
    }

    /// Syncs the WAL, if that is left to the caller ([`Maintenance::Stepped`]).
    pub fn sync(&self) -> io::Result<()> {
        self.wal.sync()
    }

    /// Syncs the WAL and refuses appends from now on.
    pub fn close(&self) -> io::Result<()> {
        self.wal.close()
    }
}
