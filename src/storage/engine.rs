//! The storage engine: one data folder, opened.
//!
//! A `Storage` ties the head, the catalog of partitions and the background work together. What is
//! to be done is decided in `cut`, `compaction` and `retention`; the doing is in `maintenance`.
//!
//! Locks, in the order in which they are taken: `cutting` or `merging` (one cut, one merge at a
//! time, held while files are written), then `deleting` (one deletion at a time, and no merge is
//! committed meanwhile), then `catalog` (held for a commit), then the short ones. Closing takes all of
//! them, `merging` first.

use super::batch::{Appended, Batch};
use super::catalog::{Catalog, Live};
use super::cleanup::Looked;
use super::compaction::{self, Levels};
use super::cut::{self, Rhythm};
use super::damage::Damage;
use super::deletion;
use super::disk::Disk;
use super::error::{AppendError, OpenError, UnavailableCause};
use super::expired::Expiring;
use super::folder::{self, Folder, io_error};
use super::fs::{Fs, Lock, RealFs};
use super::head::{Accept, Head, HeadOptions};
use super::jobs::{JobStatus, Jobs};
use super::maintenance::{self, Workers};
use super::matcher::Matcher;
use super::options::{Maintenance, Options, SizeLimit};
use super::part::Part;
use super::policy::{Policies, RetentionPolicy};
use super::querier::{Layer, View};
use super::retention::{Now, Retention, day_before, trusted_until};
use super::retention_status::{RetentionShares, RetentionStatus};
use super::schedule::{CleanupSchedule, Cleanups};
use super::scrub::{POSITION_FILE, Scrub, ScrubStatus};
use super::snapshot;
use super::stats::{Counters, HeadStatus, StorageStats};
use super::time::{TimeRange, as_millis};
use super::touched;
use super::usage::FolderUse;
use super::wal::Pending;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// When it is worth trying again after a backlog.
const BACKLOG_RETRY: Duration = Duration::from_secs(2);

/// A start leaves out fewer numbers of generations. Ten digits of a file's name are enough for hundreds
/// of thousands of starts.
const GENERATIONS_SKIPPED: u64 = 1 << 16;

/// An open data folder. Dropping it closes it.
pub struct Storage {
    inner: Arc<Inner>,
    workers: Mutex<Option<Workers>>,
}

/// What the callers' threads and the background share.
pub(crate) struct Inner {
    pub fs: Arc<dyn Fs>,
    pub folder: Folder,
    pub options: Options,
    pub head: Head,
    pub catalog: Mutex<Catalog>,
    /// The partitions as readers see them.
    pub layers: RwLock<Arc<[Layer]>>,
    /// One cut at a time.
    pub cutting: Mutex<()>,
    /// One merge at a time.
    pub merging: Mutex<()>,
    /// One deletion at a time, and no commit of a merge meanwhile.
    pub deleting: Mutex<()>,
    /// The lengths of windows.
    pub levels: Mutex<Levels>,
    /// Numbers of partitions that failed work left, still to be removed.
    pub abandoned: Mutex<Vec<u64>>,
    pub retention: Mutex<Retention>,
    /// The newest border before which merges have left out what expired; forgotten when the clock went
    /// back behind it.
    pub removed_before_ms: AtomicI64,
    /// The disk below the folder.
    pub disk: Disk,
    /// How much the folder may take, and what that was in bytes when it was asked last (0: anything).
    size_limit: Mutex<SizeLimit>,
    limit_bytes: AtomicU64,
    /// What the folder took when it was measured last, and when that is due again, by monotonic time.
    pub usage: Mutex<FolderUse>,
    pub measure_at_ms: AtomicI64,
    /// When the active generation began, in milliseconds since the epoch.
    pub begun_ms: AtomicI64,
    /// In what rhythm samples come.
    pub rhythm: Mutex<Rhythm>,
    /// Since when memory that cuts and merges freed waits to be given back to the system;
    /// [`maintenance::NOTHING_FREED`] if none does.
    pub freed_ms: AtomicI64,
    /// How much was deleted from partitions.
    pub looked: Mutex<Looked>,
    /// Reads everything to find damage.
    pub scrub: Scrub,
    /// How partitions expire, and when that may be acted upon.
    pub expiring: Mutex<Expiring>,
    pub cleanups: Mutex<Cleanups>,
    /// Work that can be watched and canceled.
    pub jobs: Jobs,
    /// Partitions in the fullest window.
    pub overlapping: AtomicUsize,
    pub counters: Counters,
    pub closing: AtomicBool,
    /// The beginning of monotonic time.
    opened: Instant,
    /// Taken when the folder is closed, so that it can be opened again.
    lock: Mutex<Option<Lock>>,
}

/// What a deletion touches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Deleted {
    /// Series with samples in the range.
    pub series: u64,
    /// Samples in the range; one that is stored in two places counts twice.
    pub samples: u64,
    /// About how many bytes they take on disk, each sample as many as the others of its chunk. What
    /// the index has of the series is not counted.
    pub bytes: u64,
}

impl Storage {
    /// Opens or creates the folder at `path`: takes the lock, reads the MANIFEST, maps the
    /// partitions, replays the WAL, and starts the background work.
    ///
    /// # Errors
    /// Another process has the folder, it is Prometheus' or of another version, a file is damaged
    /// that nothing can replace, or the system refuses.
    pub fn open(path: &Path, options: Options) -> Result<Storage, OpenError> {
        Storage::open_on(Arc::new(RealFs), path, options)
    }

    /// Opens or creates the folder at `path` of this file system.
    pub(crate) fn open_on(fs: Arc<dyn Fs>, path: &Path, options: Options) -> Result<Storage, OpenError> {
        let opened = Instant::now();
        let folder = Folder::new(path);
        let folder::Opened { lock, catalog, damaged, reserve } =
            folder::open(&*fs, &folder, &options.random)?;
        let manifest = catalog.manifest();
        let head_options = HeadOptions {
            seed: manifest.seed,
            limits: options.limits,
            fsync: options.wal_fsync,
            maintenance: options.maintenance,
            wal_bytes: options.wal_bytes,
            generations_skipped: (options.random)().map_err(io_error(path))? % GENERATIONS_SKIPPED,
        };
        let head = Head::open(fs.clone(), &folder.wal(), manifest.first_generation, head_options)?;

        let replayed = head.active().time_range();
        let now = Now { wall_ms: (options.clock)().as_millis(), monotonic_ms: 0 };
        let partitions = catalog.live().iter().map(|p| &p.meta).chain(catalog.missing());
        let ranges = partitions.map(|p| (p.min_ms, p.max_ms));
        let ranges = ranges.chain(replayed.map(|range| (range.min_ms, range.max_ms)));
        let mut times: Vec<i64> = ranges.flat_map(|(min_ms, max_ms)| [min_ms, max_ms]).collect();
        // The ends of a long partition do not tell whether there was anything the day before.
        let day_before = day_before(now.wall_ms);
        let has_times = |p: &Live| p.partition.has_times_in(day_before);
        times.extend(catalog.live().iter().any(has_times).then_some(day_before.max_ms));
        let trusted_ms = trusted_until(times.into_iter(), now.wall_ms, as_millis(options.max_ahead));
        let policies = Policies::new(options.retention, options.retention_policies.clone());
        let levels = Levels::new(policies.keeps_ms());
        let retention = Retention::new(policies, now, trusted_ms);
        head.set_policies(retention.policies());
        if retention.is_paused() {
            tracing::warn!(
                now_ms = now.wall_ms,
                newest_ms = trusted_ms,
                "the newest sample is more than a day old, or was before the last day: \
                 the clock may be wrong, nothing expires for a day"
            );
        }
        let replayed_bytes = match replayed {
            Some(_) => {
                let files = fs.usage(&folder.wal()).map_err(io_error(path))?;
                files.iter().map(|file| file.bytes).sum()
            }
            None => 0,
        };
        let counters = Counters::default();
        counters.damaged.store(damaged, Ordering::Relaxed);
        counters.clean_start.store(replayed.is_none(), Ordering::Relaxed);
        counters.open_micros.store(opened.elapsed().as_micros() as u64, Ordering::Relaxed);
        let scrub = Scrub::new(fs.read(&folder.root().join(POSITION_FILE)).ok(), now.wall_ms);
        let inner = Arc::new(Inner {
            fs,
            folder,
            head,
            layers: RwLock::new(catalog.layers()),
            overlapping: AtomicUsize::new(overlapping(&levels, &catalog)),
            catalog: Mutex::new(catalog),
            cutting: Mutex::new(()),
            merging: Mutex::new(()),
            deleting: Mutex::new(()),
            levels: Mutex::new(levels),
            abandoned: Mutex::default(),
            retention: Mutex::new(retention),
            removed_before_ms: AtomicI64::new(i64::MIN),
            disk: Disk::new(options.disk, options.wal_bytes, reserve, replayed_bytes),
            size_limit: Mutex::new(options.size_limit),
            limit_bytes: AtomicU64::new(0),
            usage: Mutex::default(),
            measure_at_ms: AtomicI64::new(0),
            // What was replayed is cut soon, or crash after crash would lengthen the next replay.
            begun_ms: AtomicI64::new(if replayed.is_some() { i64::MIN } else { now.wall_ms }),
            rhythm: Mutex::default(),
            freed_ms: AtomicI64::new(maintenance::NOTHING_FREED),
            looked: Mutex::default(),
            scrub,
            expiring: Mutex::default(),
            cleanups: Mutex::new(Cleanups::new(options.cleanup_schedule.clone())),
            jobs: Jobs::default(),
            counters,
            closing: AtomicBool::new(false),
            opened,
            lock: Mutex::new(Some(lock)),
            options,
        });
        inner.resolve_limit().map_err(io_error(path))?;
        if let Err(error) = inner.watch_disk() {
            tracing::warn!(%error, "what is free on the disk is not known");
        }
        let workers = match inner.options.maintenance {
            Maintenance::Thread => Some(Workers::start(&inner).map_err(io_error(path))?),
            Maintenance::Stepped => None,
        };
        Ok(Storage { inner, workers: Mutex::new(workers) })
    }

    /// Appends and waits until the batch is as durable as the fsync policy says.
    ///
    /// # Errors
    /// As [`Storage::append_start`], or a failed sync.
    pub fn append(&self, batch: &Batch) -> Result<Appended, AppendError> {
        self.append_start(batch)?.wait()
    }

    /// Appends without waiting for a sync. Readers see the samples at once.
    ///
    /// # Errors
    /// The disk is full or fails, the background work lags behind, or the storage is closing. The
    /// batch may be sent again.
    pub fn append_start(&self, batch: &Batch) -> Result<Pending, AppendError> {
        let inner = &*self.inner;
        if inner.closing.load(Ordering::Acquire) {
            return Err(AppendError {
                cause: UnavailableCause::Closing,
                retry_after: Duration::from_secs(1),
            });
        }
        if let Some(refusal) = inner.disk.refusal() {
            return Err(refusal);
        }
        if let Some(backlog) = inner.backlog() {
            return Err(AppendError {
                cause: UnavailableCause::Backlog(backlog),
                retry_after: BACKLOG_RETRY,
            });
        }
        let now = inner.now();
        // Windows end before the last millisecond of time, which is in none of them.
        let newest_ms = now.wall_ms.saturating_add(as_millis(inner.options.max_ahead)).min(i64::MAX - 1);
        let accept = Accept::new(inner.borders(now), newest_ms);
        inner.disk.heed(inner.head.append_start(batch, &accept))
    }

    /// What is stored now.
    pub fn view(&self) -> View {
        self.inner.view()
    }

    /// The version of what is stored; to be asked for before a view.
    pub(crate) fn version(&self) -> touched::Version {
        self.inner.head.touched().version()
    }

    /// What was changed since a version. Who takes a view first sees all that this does not name.
    pub(crate) fn changes_since(&self, version: touched::Version) -> touched::Changes {
        self.inner.head.touched().since(version)
    }

    /// Deletes the samples in `range` of the series that match all matchers of any of the `sets`.
    /// What was acknowledged before is deleted, what comes later is kept.
    ///
    /// # Errors
    /// Those of the file system, or a partition is missing or damaged so that it cannot be told what
    /// is to be deleted from it; nothing is deleted then.
    pub fn delete(&self, sets: &[Vec<Matcher>], range: TimeRange) -> io::Result<Deleted> {
        self.inner.check_open()?;
        deletion::delete(&self.inner, sets, range)
    }

    /// What [`Storage::delete`] would delete; nothing is changed. Bytes of samples in the head are
    /// their share of the WAL.
    ///
    /// # Errors
    /// A file is missing, or damaged where it would have to be read: deleting would fail, too.
    pub fn delete_preview(&self, sets: &[Vec<Matcher>], range: TimeRange) -> io::Result<Deleted> {
        self.inner.check_open()?;
        deletion::preview(&self.inner, sets, range)
    }

    /// Writes the partitions anew of which something was deleted, and no others, now: so its bytes
    /// leave the disk. It is one of [`Storage::jobs`].
    ///
    /// # Errors
    /// Those of the file system, or [`io::ErrorKind::Interrupted`] if the job is canceled; what was
    /// written before stays.
    pub fn clean_tombstones(&self) -> io::Result<()> {
        self.inner.check_open()?;
        self.inner.clean_tombstones()
    }

    /// The work that can be watched and canceled, the newest first: what waits and runs, and the last
    /// that is over.
    pub fn jobs(&self) -> Vec<JobStatus> {
        self.inner.jobs.all()
    }

    /// Cancels a job, which ends soon after; `false` if there is none of this number, or it is over.
    /// What it did stays done. What the background would do is not begun again until more is deleted
    /// from the same partitions, or the database is opened again.
    pub fn cancel_job(&self, id: u64) -> bool {
        self.inner.jobs.cancel(id)
    }

    /// Cuts all of the head into partitions, now.
    ///
    /// # Errors
    /// Those of the file system; the samples stay in the head and the WAL.
    pub fn flush(&self) -> io::Result<()> {
        self.inner.check_open()?;
        self.inner.cut_all()
    }

    /// Merges what can be merged and applies tombstones, now.
    ///
    /// # Errors
    /// Those of the file system; what was merged before stays merged.
    pub fn compact(&self) -> io::Result<()> {
        self.inner.check_open()?;
        self.inner.merge_while(Levels::plan_all)
    }

    /// Writes a partition anew without what cannot be read of it; the damaged file goes to
    /// quarantine.
    pub(crate) fn rewrite(&self, number: u64) -> io::Result<()> {
        self.inner.check_open()?;
        self.inner.rewrite(number)
    }

    /// A consistent copy by hard links in the new folder `to`, which can be opened on its own. The
    /// head is cut first. `beside` are files that belong to the copy, by their names in it.
    ///
    /// # Errors
    /// `to` is not empty or lies on another device, or the file system refuses.
    pub fn snapshot(&self, to: &Path, beside: &[(&str, &[u8])]) -> io::Result<()> {
        self.inner.check_open()?;
        snapshot::take(&self.inner, to, beside)
    }

    /// One round of background work (sync, look at the disk, drop, cut, merge, free, scrub), for
    /// [`Maintenance::Stepped`].
    ///
    /// # Errors
    /// Those of the file system; the next round tries again.
    pub fn maintain(&self) -> io::Result<()> {
        self.inner.check_open()?;
        let synced = self.inner.head.sync();
        self.inner.watch_disk()?;
        self.inner.cut_and_drop()?;
        self.inner.merge_and_free()?;
        self.inner.scrub_if_due();
        self.inner.rescue_damaged()?;
        synced
    }

    /// Changes how long samples are kept, for reads and appends at once: `retention` is for the series
    /// that none of the `policies` matches. What has expired may be gone when it is kept for longer again.
    pub fn set_retention(&self, retention: Option<Duration>, policies: Vec<RetentionPolicy>) {
        self.inner.set_retention(Policies::new(retention, policies));
    }

    /// Believes the clock at once, where nothing expires since it jumped: somebody knows that it is right.
    pub fn trust_clock(&self) {
        let now = self.inner.now();
        let mut retention = self.inner.retention();
        if retention.is_paused() {
            tracing::warn!(
                now_ms = now.wall_ms,
                "the clock is believed, as somebody asked for it: old samples expire"
            );
        }
        retention.trust(now);
    }

    /// Changes when what has expired is removed; `None` is at once.
    pub fn set_cleanup_schedule(&self, schedule: Option<CleanupSchedule>) {
        let mut cleanups = self.inner.cleanups.lock().unwrap_or_else(PoisonError::into_inner);
        if cleanups.schedule() != schedule.as_ref() {
            *cleanups = Cleanups::new(schedule);
        }
    }

    /// Changes how much the folder may take, from the next round of background work on.
    pub fn set_size_limit(&self, limit: SizeLimit) {
        *self.inner.size_limit.lock().unwrap_or_else(PoisonError::into_inner) = limit;
    }

    /// What the folder takes, what it may take, and what is dropped next. Asks the file system about
    /// every file in the folder. What is written anew next is told of the partitions whose index was read
    /// by `until`.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn retention_status(&self, until: Instant) -> io::Result<RetentionStatus> {
        self.inner.retention_status(until)
    }

    /// How the bytes of partitions are spread over the policies of retention, and over the metrics that
    /// take most, at most `limit` of them. Reads the index of each partition once, and stops at `until`:
    /// asking again goes on.
    ///
    /// # Errors
    /// The database is being closed.
    pub fn retention_shares(&self, limit: usize, until: Instant) -> io::Result<RetentionShares> {
        self.inner.check_open()?;
        self.inner.retention_shares(limit, until)
    }

    /// What is known to be damaged in the partitions, as far as it was met by a query, a merge or the
    /// scrub.
    pub fn damage(&self) -> Vec<Damage> {
        let live = self.inner.catalog().live().to_vec();
        live.iter().flat_map(|p| p.partition.damages().places()).collect()
    }

    /// How far the scrub is, which reads everything to find damage.
    pub fn scrub_status(&self) -> ScrubStatus {
        self.inner.scrub_status()
    }

    /// Figures about the engine.
    pub fn stats(&self) -> StorageStats {
        self.inner.stats()
    }

    /// What the series of the head are made of, with at most `limit` entries a list. Reads the
    /// index in memory, no sample and no file.
    pub fn status(&self, limit: usize) -> HeadStatus {
        self.inner.head.status(limit)
    }

    /// Cuts everything, so that the next start replays nothing, and closes. Appends and work on the
    /// folder fail from then on; what is read is read. Closing again does nothing.
    ///
    /// # Errors
    /// Those of the file system. The storage is closed all the same; the next start then replays the
    /// WAL.
    pub fn close(&self) -> io::Result<()> {
        // Held to the end: whoever closes at the same time waits until it is done.
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        if self.inner.closing.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        // The threads are joined here; they stop at the next series of a merge.
        drop(workers.take());
        let cut = self.inner.cut_all();
        let closed = self.inner.head.close();
        self.inner.note_scrub_position();
        self.inner.let_go();
        cut.and(closed)
    }
}

#[cfg(test)]
impl Storage {
    /// What the callers' threads and the background share.
    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(%error, "closing the storage failed, the next start replays the WAL");
        }
    }
}

impl Inner {
    /// The present.
    pub fn now(&self) -> Now {
        Now {
            wall_ms: (self.options.clock)().as_millis(),
            monotonic_ms: i64::try_from(self.opened.elapsed().as_millis()).unwrap_or(i64::MAX),
        }
    }

    pub fn retention(&self) -> MutexGuard<'_, Retention> {
        self.retention.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lengths of windows.
    pub fn levels(&self) -> Levels {
        self.levels.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the folder may take, as it was asked last.
    pub fn limit_bytes(&self) -> Option<u64> {
        Some(self.limit_bytes.load(Ordering::Relaxed)).filter(|&bytes| bytes > 0)
    }

    /// What the folder may take now: the file system may have grown or shrunk.
    pub fn resolve_limit(&self) -> io::Result<Option<u64>> {
        let limit = *self.size_limit.lock().unwrap_or_else(PoisonError::into_inner);
        let capacity = match limit.percentage {
            Some(_) => Some(self.fs.space(self.folder.root())?.capacity_bytes),
            None => None,
        };
        let bytes = limit.in_bytes(capacity);
        self.limit_bytes.store(bytes.unwrap_or(0), Ordering::Relaxed);
        Ok(bytes)
    }

    pub fn catalog(&self) -> MutexGuard<'_, Catalog> {
        self.catalog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows readers what was committed.
    pub fn publish(&self, catalog: &Catalog) {
        self.overlapping.store(overlapping(&self.levels(), catalog), Ordering::Relaxed);
        *self.layers.write().unwrap_or_else(PoisonError::into_inner) = catalog.layers();
    }

    pub fn view(&self) -> View {
        let borders = self.borders(self.now());
        // The head is asked first: a generation that is committed in between is then seen twice,
        // which the merge hides; the other way round it would be missed.
        let generations = self.head.generations();
        let layers = self.layers.read().unwrap_or_else(PoisonError::into_inner).clone();
        View::new(layers, generations.into_iter().map(|generation| generation as Arc<dyn Part>), borders)
    }

    /// How long the WAL of a generation may get.
    pub fn wal_bound_bytes(&self) -> u64 {
        cut::wal_bound_bytes(self.options.wal_bytes, self.head.series_count())
    }

    /// Why appends must wait for the background work, if they must.
    fn backlog(&self) -> Option<String> {
        let overlapping = self.overlapping.load(Ordering::Relaxed);
        if overlapping > compaction::OVERLAPPING_MAX {
            return Some(format!("{overlapping} partitions of one window wait for being merged"));
        }
        let wal_bytes = self.head.wal_bytes();
        // In this order, since the bound and the frozen generation are behind locks.
        let too_long = wal_bytes / 2 > self.options.wal_bytes
            && self.head.frozen().is_some()
            && wal_bytes / 2 > self.wal_bound_bytes();
        too_long.then(|| format!("{wal_bytes} bytes of WAL wait for a cut that is not finished"))
    }

    /// Whether nobody closes the storage. Asked before work is begun, and by work that can end soon.
    pub fn check_open(&self) -> io::Result<()> {
        if self.closing.load(Ordering::Acquire) {
            return Err(io::Error::other("the database is closed"));
        }
        Ok(())
    }

    /// Whether the folder is still ours to change. Asked by work that the caller's threads began
    /// before another closed the storage, under the lock of that work.
    pub fn check_held(&self) -> io::Result<()> {
        match &*self.lock.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(_) => Ok(()),
            None => Err(io::Error::other("the database is closed")),
        }
    }

    /// Waits for the work that is under way and gives up the lock of the folder.
    fn let_go(&self) {
        let _merging = self.merging.lock().unwrap_or_else(PoisonError::into_inner);
        let _cutting = self.cutting.lock().unwrap_or_else(PoisonError::into_inner);
        let _deleting = self.deleting.lock().unwrap_or_else(PoisonError::into_inner);
        let _catalog = self.catalog();
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn stats(&self) -> StorageStats {
        self.note_head();
        let mut stats = self.counters.stats();
        stats.add_head(&self.head.stats());
        stats.head_series = self.head.series_count();
        stats.wal_bytes = self.head.wal_bytes();
        stats.usage = *self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        stats.size_limit_bytes = self.limit_bytes().unwrap_or(0);
        stats.disk = self.disk.status();
        stats.retention_paused = self.retention().is_paused();
        let ranges = self.head.generations().into_iter().filter_map(|g| g.time_range());
        let head = ranges.reduce(|a, b| a.hull(&b));
        stats.head_range_ms = head.map(|range| (range.min_ms, range.max_ms));
        stats.next_cleanup_ms = self.cleanups.lock().unwrap_or_else(PoisonError::into_inner).next_ms();
        stats.active_jobs = self.jobs.active();
        let catalog = self.catalog();
        let with_tombstones = catalog.live().iter().filter(|p| p.tombstones.is_some());
        stats.partitions_with_tombstones = with_tombstones.count() as u64;
        stats.partitions = catalog.live().len() as u64;
        let damaged = catalog.live().iter().filter(|p| p.partition.damages().is_any());
        stats.damaged_partitions = damaged.count() as u64;
        stats.missing_partitions = catalog.missing().len() as u64;
        stats.partition_bytes = catalog.live().iter().map(|p| p.meta.byte_len).sum();
        stats.oldest_ms = catalog.live().iter().map(|p| p.meta.min_ms).min();
        stats
    }
}

fn overlapping(levels: &Levels, catalog: &Catalog) -> usize {
    levels.most_overlapping(&catalog.manifest().partitions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::time::Timestamp;
    use larum_storage_format::Labels;

    fn open(path: &Path) -> Storage {
        Storage::open(path, Options { maintenance: Maintenance::Stepped, ..Options::default() }).unwrap()
    }

    #[test]
    fn the_folder_is_held_until_a_deletion_under_way_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let storage = open(dir.path());
        let inner = &storage.inner;
        let is_held = || inner.fs.lock(&dir.path().join("lock"), "").unwrap().is_none();
        let deletion = inner.deleting.lock().unwrap();
        std::thread::scope(|scope| {
            let closing = scope.spawn(|| storage.close().unwrap());
            let deadline = Instant::now() + Duration::from_secs(20);
            // It waits with the locks that come before, or is over.
            while inner.merging.try_lock().is_ok() && !closing.is_finished() && Instant::now() < deadline {
                std::thread::yield_now();
            }
            assert!(is_held() && !closing.is_finished());
            // Who closes again waits for it, too.
            let again = scope.spawn(|| storage.close().unwrap());
            while storage.workers.try_lock().is_ok() && !again.is_finished() && Instant::now() < deadline {
                std::thread::yield_now();
            }
            assert!(!again.is_finished());
            assert!(inner.check_open().is_err(), "by which the deletion knows that it is to end");
            drop(deletion);
        });
        assert!(!is_held());
    }

    #[test]
    fn work_that_waited_while_the_storage_was_closed_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let open = || open(&path);
        let storage = open();
        let labels = Labels::from_pairs([("__name__", "m")]).unwrap();
        for _ in 0..2 {
            let mut batch = Batch::new();
            batch.push(&labels, Timestamp::now(), 1.0);
            storage.append(&batch).unwrap();
            storage.flush().unwrap();
        }
        storage.close().unwrap();
        let _another = open();
        // As if it had asked check_open() before.
        let inner = &storage.inner;
        assert!(inner.merge_while(Levels::plan_all).is_err());
        assert!(deletion::delete(inner, &[vec![]], TimeRange::ALL).is_err());
        let copy = dir.path().join("copy");
        assert!(snapshot::take(inner, &copy, &[]).is_err());
        assert_eq!(inner.fs.list(&Folder::new(&copy).partitions()).unwrap(), Vec::<String>::new());
        assert_eq!(inner.catalog().live().len(), 2);
    }
}
