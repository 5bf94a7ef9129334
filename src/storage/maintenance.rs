//! The background work: cutting, merging, dropping. Decisions are made elsewhere; this does them.
//!
//! Three threads, since a merge of a day may take minutes and a cut must not wait for it, nor a look at
//! the disk for either. Each looks for work once a second, and waits longer after a failure.

use super::catalog::{Catalog, Change, Live};
use super::compaction::{Levels, Merge, OVERLAPPING_MAX};
use super::cut;
use super::cutter::Cut;
use super::deletion;
use super::engine::Inner;
use super::merger;
use super::options::Maintenance;
use super::part::Part;
use super::retention_status::Situation;
use super::time::{TimeRange, Timestamp};
use super::touched;
use super::usage::{self, Measured};
use crate::budget::machine;
use crossbeam::channel::{RecvTimeoutError, Sender, bounded};
use larum_storage_format::SeriesId;
use larum_storage_format::manifest::{LivePartition, Manifest};
use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often a thread looks for work.
const TICK: Duration = Duration::from_secs(1);

/// How often the folder is measured.
const MEASURE_MS: i64 = 5_000;

/// The longest wait after a failure.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Freed memory is given back after this time even while samples come.
const GIVE_BACK_MS: i64 = 5 * 60 * 1000;

/// No time: nothing was freed.
pub(crate) const NOTHING_FREED: i64 = i64::MAX;

/// A merge is split into at most so many outputs, and a window of a cut.
const OUTPUTS_MAX: u32 = 1 << 12;

/// What a thread does again and again.
type Job = fn(&Inner) -> io::Result<()>;

/// The background threads. Dropping them stops and joins them.
pub(crate) struct Workers {
    /// Never sends; a dropped sender ends the threads' waiting.
    stop: Option<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts the threads.
    pub fn start(inner: &Arc<Inner>) -> io::Result<Workers> {
        let (stop, stopped) = bounded::<()>(0);
        let mut workers = Workers { stop: Some(stop), threads: Vec::new() };
        // Appends wait for a cut that does not end, but for a merge only when there are many to do.
        let jobs: [(&str, i32, Job); 3] = [
            ("larum-disk", 0, Inner::watch_disk),
            ("larum-cut", 5, Inner::cut_and_drop),
            ("larum-merge", 10, Inner::merge_and_free),
        ];
        for (name, niceness, job) in jobs {
            let (inner, stopped) = (inner.clone(), stopped.clone());
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
                be_nice(niceness);
                let mut wait = TICK;
                while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(wait) {
                    wait = match guarded(job, &inner) {
                        Ok(()) => TICK,
                        Err(e) if is_interrupted(&e) => TICK,
                        Err(error) => {
                            tracing::warn!(thread = name, %error, "background work failed, it is tried again");
                            (wait * 2).min(WAIT_MAX)
                        }
                    };
                }
            });
            workers.threads.push(thread?);
        }
        if inner.options.scrub_interval.is_some() {
            let inner = inner.clone();
            let thread = std::thread::Builder::new().name("larum-scrub".to_owned()).spawn(move || {
                be_nice(19);
                inner.scrub_until(&stopped);
            });
            workers.threads.push(thread?);
        }
        Ok(workers)
    }
}

/// Lets other threads have the processor, and the device, first. A thread has a niceness of its own
/// on Linux only.
fn be_nice(niceness: i32) {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(niceness);
    #[cfg(not(target_os = "linux"))]
    let _ = niceness;
}

/// Does a job. One that panics is tried again as if it had failed: without its thread, WAL and
/// partitions would grow for ever.
fn guarded(job: Job, inner: &Inner) -> io::Result<()> {
    catch_unwind(AssertUnwindSafe(|| job(inner)))
        .unwrap_or_else(|_| Err(io::Error::other("the background work panicked")))
}

fn is_interrupted(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::Interrupted
}

fn is_too_large(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::FileTooLarge
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Inner {
    /// Cuts if it is due, for appends may wait for that, and drops what has expired and what is too
    /// much. A cut that fails, as on a full disk, keeps nothing from being dropped.
    pub fn cut_and_drop(&self) -> io::Result<()> {
        let cut = self.cut_if_due();
        let expired = self.drop_expired();
        cut.and(expired).and(self.drop_surplus())
    }

    /// Cuts if the WAL is long enough, a border of windows passed, senders fell silent, or a cut
    /// failed before. What cuts and merges freed is given back when nobody appends, for appends would
    /// wait meanwhile and use it again; but after some minutes in any case.
    pub fn cut_if_due(&self) -> io::Result<()> {
        let now_ms = self.now().wall_ms;
        self.head.tidy(Timestamp::from_millis(now_ms));
        let rhythm = {
            let mut rhythm = self.rhythm.lock().unwrap_or_else(PoisonError::into_inner);
            rhythm.look(self.head.appended(), now_ms);
            *rhythm
        };
        let wal_bytes = self.head.wal_bytes();
        let fills_memory = self.head_fills_memory();
        let due = self.head.frozen().is_some()
            || wal_bytes > self.wal_bound_bytes()
            || self.head.active_samples() > cut::wal_bound_samples(self.head.series_count())
            || cut::border_passed(self.begun_ms.load(Relaxed), now_ms)
            || rhythm.is_over(wal_bytes, self.wal_bound_bytes())
            || self.disk.wants_cut(wal_bytes, self.head.active_samples())
            || fills_memory;
        if due {
            self.cut()?;
        }
        let freed_ms = self.freed_ms.load(Relaxed);
        let waited_ms = now_ms.saturating_sub(freed_ms);
        if freed_ms != NOTHING_FREED && (rhythm.is_quiet() || waited_ms > GIVE_BACK_MS || fills_memory) {
            self.freed_ms.store(NOTHING_FREED, Relaxed);
            machine::give_back();
        }
        Ok(())
    }

    /// Notes that work has freed memory; earlier notes stay.
    fn freed(&self, now_ms: i64) {
        let _ = self.freed_ms.compare_exchange(NOTHING_FREED, now_ms, Relaxed, Relaxed);
    }

    /// Cuts until all that is in the head now is in partitions.
    pub fn cut_all(&self) -> io::Result<()> {
        let last = self.head.active().number();
        while self.head.generations().iter().any(|g| g.number() <= last && g.time_range().is_some()) {
            self.cut()?;
        }
        Ok(())
    }

    /// Cuts the frozen generation, if a cut failed before; else the active one.
    fn cut(&self) -> io::Result<()> {
        let _one_at_a_time = self.cutting.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_held()?;
        let started = Instant::now();
        let outcome = self.cut_locked();
        self.counters.worked(started.elapsed());
        match &outcome {
            Ok(_) => self.counters.cuts.fetch_add(1, Relaxed),
            Err(_) => self.counters.cut_failures.fetch_add(1, Relaxed),
        };
        outcome
    }

    fn cut_locked(&self) -> io::Result<()> {
        let now_ms = self.now().wall_ms;
        if self.head.frozen().is_none() {
            self.begun_ms.store(now_ms, Relaxed);
            if self.head.active().time_range().is_none() {
                return Ok(());
            }
        }
        if self.head.frozen().is_none() {
            self.disk.cut_begins(self.head.wal_bytes());
        }
        let generation = self.head.switch()?;
        let series = generation.series();
        let (seed, sequence, live) = {
            let catalog = self.catalog();
            (catalog.manifest().seed, catalog.next_sequence(), catalog.live().len())
        };
        let (fs, folder) = (&*self.fs, &self.folder);
        let old_windows_max = cut::old_windows_max(live);
        let mut cut =
            Cut { fs, folder, seed, generation: &generation, now_ms, old_windows_max, split: 1, sequence };
        let mut written = self.write_cut(&cut, &series);
        // Otherwise it could never be cut.
        while written.as_ref().is_err_and(is_too_large) && cut.split < OUTPUTS_MAX {
            cut.split *= 2;
            written = self.write_cut(&cut, &series);
        }
        let partitions = written?;
        self.disk.cut_is_done();
        self.abandon(0..0);
        tracing::info!(
            generation = generation.number(),
            series = series.len(),
            partitions,
            "the head was cut"
        );
        drop(generation);
        self.freed(now_ms);
        self.head.release(Timestamp::from_millis(now_ms))
    }

    /// Writes the partitions of a cut and commits it. Tells how many there are.
    fn write_cut(&self, cut: &Cut<'_>, series: &[(SeriesId, u32)]) -> io::Result<usize> {
        let windows = cut.windows(series);
        let first_number = self.catalog().take_numbers(windows.len() as u64);
        let written = cut.write(series, &windows, first_number).and_then(|numbers| {
            let open = |number| Live::open(&*self.fs, &self.folder, number);
            let add = numbers.into_iter().map(open).collect::<io::Result<Vec<Live>>>()?;
            let first_generation = Some(cut.generation.number() + 1);
            self.commit(Change { first_generation, add, ..Change::default() })
        });
        if written.is_err() {
            self.abandon(first_number..first_number + windows.len() as u64);
        }
        written.map(|()| windows.len())
    }

    /// Merges what is due, frees what was deleted and what has expired, and writes anew what is damaged.
    /// None of them keeps another from being done.
    pub fn merge_and_free(&self) -> io::Result<()> {
        let rescued = self.rescue_damaged();
        let merged = self.merge_in_background();
        let freed = self.free_deleted().and(self.free_expired());
        freed.and(merged).and(rescued)
    }

    /// Merges as long as `plan` finds something; what is urgent comes first.
    pub fn merge_while(
        &self,
        plan: impl Fn(&Levels, &[LivePartition], i64) -> Option<Merge>,
    ) -> io::Result<()> {
        let _one_at_a_time = self.merging.lock().unwrap_or_else(PoisonError::into_inner);
        let stop = || self.closing.load(Acquire);
        loop {
            self.check_held()?;
            self.merge_urgent(&stop)?;
            let Some(merge) = self.planned(&plan) else { return Ok(()) };
            self.merge_if_unchanged(merge, &stop)?;
        }
    }

    /// Merges what is due while partitions pile up so that appends would be refused soon: work that
    /// takes long does this now and then. Called with the lock for merges.
    pub fn merge_urgent(&self, stop: &dyn Fn() -> bool) -> io::Result<()> {
        while self.overlapping.load(Relaxed) > OVERLAPPING_MAX / 2 && !self.merges_wait() {
            let Some(merge) = self.planned(Levels::plan) else { break };
            self.merge_if_unchanged(merge, stop)?;
        }
        Ok(())
    }

    fn planned(&self, plan: impl Fn(&Levels, &[LivePartition], i64) -> Option<Merge>) -> Option<Merge> {
        let levels = self.levels().within(self.limit_bytes()).up_to(self.disk.merge_bytes_max());
        plan(&levels, &self.catalog().manifest().partitions, self.now().wall_ms)
    }

    /// Does a merge, unless its inputs change meanwhile: then it is to be planned again.
    fn merge_if_unchanged(&self, merge: Merge, stop: &dyn Fn() -> bool) -> io::Result<()> {
        match self.merge_and_count(merge, stop) {
            Err(e) if is_interrupted(&e) && !stop() => Ok(()),
            outcome => outcome,
        }
    }

    /// Merges what is worth it, as far as disk and memory have room.
    pub fn merge_in_background(&self) -> io::Result<()> {
        let plan = |levels: &Levels, live: &[LivePartition], now_ms| {
            levels.plan(live, now_ms).filter(|_| !self.merges_wait())
        };
        match self.merge_while(plan) {
            // It is told when it begins to wait.
            Err(_) if self.disk.merge_waits() => Ok(()),
            Ok(()) => {
                self.disk.no_merge_waits();
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// Writes a partition anew, without what was deleted from it or cannot be read; the damaged file
    /// goes to quarantine. One that is no longer live is left alone.
    pub fn rewrite(&self, number: u64) -> io::Result<()> {
        let _one_at_a_time = self.merging.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_held()?;
        let merge = self.levels().rewrite(&self.catalog().manifest().partitions, number);
        merge.map_or(Ok(()), |merge| self.merge_and_count(merge, &|| self.closing.load(Acquire)))
    }

    /// Merges, into more outputs where they would be too long, until `stop` says true. Called with the
    /// lock for merges.
    pub fn merge_and_count(&self, mut merge: Merge, stop: &dyn Fn() -> bool) -> io::Result<()> {
        let _room = self.disk.room_for_merge(self.bytes_of(&merge.inputs))?;
        let started = Instant::now();
        let mut outcome = self.merge(&merge, stop);
        // The times are filled too unevenly.
        while outcome.as_ref().is_err_and(is_too_large) && merge.outputs < OUTPUTS_MAX {
            merge.outputs *= 2;
            outcome = self.merge(&merge, stop);
        }
        self.freed(self.now().wall_ms);
        self.counters.worked(started.elapsed());
        match &outcome {
            Ok(()) => self.counters.merges.fetch_add(1, Relaxed),
            Err(e) if is_interrupted(e) => 0,
            Err(_) => self.counters.merge_failures.fetch_add(1, Relaxed),
        };
        outcome
    }

    /// Bytes of the files of live partitions.
    pub fn bytes_of(&self, numbers: &[u64]) -> u64 {
        let catalog = self.catalog();
        numbers.iter().filter_map(|&number| catalog.get(number)).map(|p| p.meta.byte_len).sum()
    }

    fn merge(&self, merge: &Merge, stop: &dyn Fn() -> bool) -> io::Result<()> {
        let numbers = u64::from(merge.outputs);
        let (inputs, seed, first_number) = {
            let mut catalog = self.catalog();
            let inputs: Option<Vec<Live>> = merge.inputs.iter().map(|&n| catalog.get(n).cloned()).collect();
            let Some(inputs) = inputs else { return Ok(()) };
            (inputs, catalog.manifest().seed, catalog.take_numbers(numbers))
        };
        let memory = self.merge_memory();
        let job = merger::Job {
            fs: &self.fs,
            folder: &self.folder,
            seed,
            inputs: &inputs,
            merge,
            first_number,
            borders: self.expired_borders(),
            memory_bytes: memory.bytes,
        };
        let merged = job.run(stop).and_then(|written| {
            let is_damaged = |p: &&Live| p.partition.damages().is_any();
            let damaged: Vec<Live> = inputs.iter().filter(is_damaged).cloned().collect();
            let unlinked = self.link_aside(&damaged);
            // What cannot be read is shown no more, and there is no way back for what has expired.
            let _change = self.changes_times_of(&damaged);
            job.borders.iter().for_each(|borders| self.removes_before(borders));
            let replaced = self.replace(&inputs, &written)?;
            Ok((replaced, written, damaged, unlinked))
        });
        match merged {
            Ok((replaced, written, damaged, unlinked)) => {
                tracing::info!(inputs = ?merge.inputs, outputs = ?written, "partitions were merged");
                self.remove_files(&replaced, &unlinked);
                for p in &damaged {
                    self.counters.damaged.fetch_add(1, Relaxed);
                    tracing::error!(file = %p.partition.path().display(),
                        "a damaged partition was merged without what cannot be read; the file is in quarantine");
                }
                self.abandon(0..0);
                Ok(())
            }
            Err(error) => {
                self.abandon(first_number..first_number + numbers);
                Err(error)
            }
        }
    }

    /// Brings the damaged inputs of a merge to quarantine, before it is committed: from then on a
    /// start removes them. Tells which must be moved there afterwards.
    fn link_aside(&self, damaged: &[Live]) -> BTreeSet<u64> {
        // Not every file system has hard links.
        let unlinked =
            damaged.iter().filter(|p| self.folder.link_aside(&*self.fs, p.partition.path()).is_err());
        unlinked.map(|p| p.meta.number).collect()
    }

    /// Commits a merge and gives the inputs as they were last. What was deleted from them while they
    /// were merged is deleted from the outputs.
    fn replace(&self, inputs: &[Live], outputs: &[u64]) -> io::Result<Vec<Live>> {
        let mut add = Vec::new();
        for &number in outputs {
            add.push(Live::open(&*self.fs, &self.folder, number)?);
        }
        // No deletion is under way from here on: it would write tombstones for the inputs.
        let _deleting = self.deleting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut catalog = self.catalog();
        let now: Option<Vec<&Live>> = inputs.iter().map(|p| catalog.get(p.meta.number)).collect();
        let Some(now) = now else {
            // The outputs would bring back what expired. The next round merges what is there then.
            let why = "an input of the merge expired meanwhile";
            return Err(io::Error::new(io::ErrorKind::Interrupted, why));
        };
        for output in &mut add {
            deletion::pass_on(&*self.fs, &self.folder, inputs, &now, output)?;
        }
        let replaced: Vec<Live> = now.into_iter().cloned().collect();
        let remove = replaced.iter().map(|p| p.meta.number).collect();
        catalog.commit(&*self.fs, &self.folder, Change { remove, add, ..Change::default() })?;
        self.publish(&catalog);
        Ok(replaced)
    }

    /// Removes the files of work that failed, so that a full disk does not fill with them; but not
    /// while the MANIFEST on disk names them, as it may when only its last sync failed. Those go
    /// after the next commit.
    fn abandon(&self, numbers: Range<u64>) {
        let mut abandoned = self.abandoned.lock().unwrap_or_else(PoisonError::into_inner);
        abandoned.extend(numbers);
        if abandoned.is_empty() {
            return;
        }
        let read = self.fs.read(&self.folder.manifest());
        let Ok(Ok(manifest)) = read.map(|bytes| Manifest::decode(&bytes)) else { return };
        abandoned.retain(|&number| {
            let is_named = manifest.partitions.iter().any(|p| p.number == number);
            // A file that was never written is not there to be removed.
            let is_gone = |e: io::Error| e.kind() == io::ErrorKind::NotFound;
            let is_removed = |path: PathBuf| self.fs.remove(&path).map_or_else(is_gone, |()| true);
            is_named
                || !is_removed(self.folder.tombstones(number, 1))
                || !is_removed(self.folder.partition(number))
        });
    }

    /// Says that samples are about to go for which there is no rule that hides them.
    fn changes_times_of(&self, partitions: &[Live]) -> Option<touched::Change<'_>> {
        let ranges = partitions.iter().map(|p| TimeRange::new(p.meta.min_ms, p.meta.max_ms));
        ranges.reduce(|a, b| a.hull(&b)).map(|range| self.head.touched().range(range))
    }

    /// Drops partitions, with their files, and gives those that were live.
    pub fn drop_partitions(
        &self,
        mut catalog: MutexGuard<'_, Catalog>,
        remove: Vec<u64>,
    ) -> io::Result<Vec<Live>> {
        if remove.is_empty() {
            return Ok(Vec::new());
        }
        let dropped = remove.iter().filter_map(|&number| catalog.get(number).cloned()).collect::<Vec<_>>();
        let _change = self.changes_times_of(&dropped);
        catalog.commit(&*self.fs, &self.folder, Change { remove, ..Change::default() })?;
        self.publish(&catalog);
        drop(catalog);
        self.remove_files(&dropped, &BTreeSet::new());
        Ok(dropped)
    }

    /// Measures the folder now and then, and drops its oldest partitions while it takes more than it
    /// may. That nothing is left to drop is told by the figures, and by the log when it changes.
    pub fn drop_surplus(&self) -> io::Result<()> {
        let limit_bytes = self.resolve_limit()?;
        let now_ms = self.now().monotonic_ms;
        let is_due = match self.options.maintenance {
            Maintenance::Thread => now_ms >= self.measure_at_ms.load(Relaxed),
            Maintenance::Stepped => limit_bytes.is_some() || self.counters.excess_bytes.load(Relaxed) > 0,
        };
        if !is_due {
            return Ok(());
        }
        self.measure_at_ms.store(now_ms.saturating_add(MEASURE_MS), Relaxed);
        let measured = self.measure()?;
        let catalog = self.catalog();
        self.check_held()?;
        let surplus = self.situation(&catalog, &measured).surplus();
        let had_excess = self.counters.excess_bytes.swap(surplus.excess_bytes, Relaxed) > 0;
        if surplus.excess_bytes > 0 && !had_excess {
            let usage = measured.usage;
            tracing::warn!(
                ?usage,
                limit_bytes,
                excess_bytes = surplus.excess_bytes,
                "the data folder takes more than it may, and no partition is left whose end would free anything"
            );
        } else if surplus.excess_bytes == 0 && had_excess {
            tracing::info!(limit_bytes, "the data folder takes no more than it may again");
        }
        let dropped = self.drop_partitions(catalog, surplus.numbers.into_iter().collect())?;
        if !dropped.is_empty() {
            self.counters.surplus.fetch_add(dropped.len() as u64, Relaxed);
            tracing::info!(
                partitions = dropped.len(),
                freed_bytes = surplus.freed_bytes,
                limit_bytes,
                newest_ms = dropped.iter().map(|p| p.meta.max_ms).max(),
                "the oldest partitions were dropped, as the data folder took more than it may"
            );
        }
        Ok(())
    }

    /// What the folder takes. The figures show it from then on.
    pub fn measure(&self) -> io::Result<Measured> {
        let measured = usage::measure(&*self.fs, &self.folder)?;
        *self.usage.lock().unwrap_or_else(PoisonError::into_inner) = measured.usage;
        Ok(measured)
    }

    /// What retention decides by.
    pub fn situation<'a>(&self, catalog: &'a Catalog, measured: &'a Measured) -> Situation<'a> {
        // Their files go with the next commit or start. Nothing else may be dropped for them.
        let retired = catalog.manifest().retired.iter();
        Situation {
            live: &catalog.manifest().partitions,
            measured,
            retired_bytes: retired.filter_map(|number| measured.freed.get(number)).sum(),
            limit_bytes: self.limit_bytes(),
            now_ms: self.now().wall_ms,
        }
    }

    /// Commits a change and shows it to readers.
    pub fn commit(&self, change: Change) -> io::Result<()> {
        let mut catalog = self.catalog();
        catalog.commit(&*self.fs, &self.folder, change)?;
        self.publish(&catalog);
        Ok(())
    }

    /// Removes the files of partitions that are no longer live; who still reads them keeps them. Those
    /// to be `kept` are set aside instead. What cannot be removed goes at the next start.
    fn remove_files(&self, partitions: &[Live], kept: &BTreeSet<u64>) {
        for p in partitions {
            let outcome = match kept.contains(&p.meta.number) {
                true => self.folder.set_aside(&*self.fs, p.partition.path()),
                false => self.fs.remove(p.partition.path()),
            };
            let tombstones = p.meta.tombstones.map(|n| self.folder.tombstones(p.meta.number, n));
            let outcome = outcome.and(tombstones.map_or(Ok(()), |path| self.fs.remove(&path)));
            if let Err(error) = outcome {
                tracing::warn!(%error, "a file that is no longer needed cannot be removed");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::options::Options;
    use crate::storage::series_set::Source;
    use crate::storage::{Batch, Matcher, Storage};
    use larum_storage_format::Labels;

    fn append(storage: &Storage, job: &str, times: Range<i64>, value: f64) {
        let labels = Labels::from_pairs([("__name__", "m"), ("job", job)]).unwrap();
        let mut batch = Batch::new();
        times.for_each(|t| batch.push(&labels, Timestamp::from_millis(t), value));
        assert!(storage.append(&batch).unwrap().refused.is_empty());
    }

    fn read(storage: &Storage) -> Vec<(String, Vec<(i64, f64)>)> {
        let view = storage.view();
        let set = view.select(&[], TimeRange::ALL).unwrap();
        let mut all: Vec<_> = (0..set.len())
            .map(|i| {
                let samples = set.load(i, &mut Default::default()).unwrap();
                let pairs = samples.timestamps.iter().copied().zip(samples.floats).collect();
                (set.labels(i).get("job").unwrap().to_owned(), pairs)
            })
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    fn open(path: &std::path::Path) -> Storage {
        let clock = Arc::new(|| Timestamp::from_millis(1_000));
        Storage::open(path, Options { clock, maintenance: Maintenance::Stepped, ..Options::default() })
            .unwrap()
    }

    /// Two overlapping partitions; from the first, something was deleted before the second came.
    fn two_partitions(path: &std::path::Path) -> Storage {
        let storage = open(path);
        append(&storage, "a", 0..10, 1.0);
        append(&storage, "b", 0..10, 1.0);
        storage.flush().unwrap();
        storage.delete(&[vec![Matcher::equal("job", "a")]], TimeRange::new(2, 5)).unwrap();
        append(&storage, "a", 4..12, 2.0);
        storage.flush().unwrap();
        storage
    }

    fn merge_all(storage: &Storage, outputs: u32, meanwhile: impl FnOnce()) -> io::Result<Vec<Live>> {
        let inner = storage.inner();
        let inputs: Vec<Live> = inner.catalog().live().to_vec();
        let merge =
            Merge { inputs: inputs.iter().map(|p| p.meta.number).collect(), window_ms: 0..12, outputs };
        let seed = inner.catalog().manifest().seed;
        let first_number = inner.catalog().take_numbers(outputs.into());
        let job = merger::Job {
            fs: &inner.fs,
            folder: &inner.folder,
            seed,
            inputs: &inputs,
            merge: &merge,
            first_number,
            borders: None,
            memory_bytes: 1 << 20,
        };
        let written = job.run(&|| false)?;
        meanwhile();
        let replaced = inner.replace(&inputs, &written)?;
        inner.remove_files(&replaced, &BTreeSet::new());
        Ok(inner.catalog().live().to_vec())
    }

    #[test]
    fn what_is_deleted_during_a_merge_stays_deleted_and_nothing_else() {
        for outputs in [1, 4] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("data");
            let storage = two_partitions(&path);
            let all = [vec![]];
            let live =
                merge_all(&storage, outputs, || drop(storage.delete(&all, TimeRange::new(5, 7)))).unwrap();
            assert_eq!(live.len(), outputs as usize);
            let expected = |from: i64, to: i64| from < 5 || to > 7;
            let a: Vec<(i64, f64)> =
                [0, 1].map(|t| (t, 1.0)).into_iter().chain((4..12).map(|t| (t, 2.0))).collect();
            let b: Vec<(i64, f64)> = (0..10).map(|t| (t, 1.0)).collect();
            let left =
                |all: Vec<(i64, f64)>| all.into_iter().filter(|s| expected(s.0, s.0)).collect::<Vec<_>>();
            let expected = [("a".to_owned(), left(a)), ("b".to_owned(), left(b))];
            assert_eq!(read(&storage), expected);
            storage.close().unwrap();
            let names: Vec<_> = std::fs::read_dir(path.join("partitions")).unwrap().collect();
            let with_tombstones = live.iter().filter(|p| p.meta.tombstones.is_some()).count();
            assert_eq!(names.len(), live.len() + with_tombstones, "{names:?}");
            // They hold when the MANIFEST is lost, too.
            std::fs::remove_file(path.join("MANIFEST")).unwrap();
            assert_eq!(read(&open(&path)), expected);
        }
    }

    #[test]
    fn a_merge_splits_its_window_and_leaves_out_what_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let storage = open(&dir.path().join("data"));
        append(&storage, "a", 0..3, 1.0);
        append(&storage, "b", 9..12, 1.0);
        storage.flush().unwrap();
        let before = read(&storage);
        let live = merge_all(&storage, 4, || {}).unwrap();
        assert_eq!(live.iter().map(|p| p.meta.min_ms).collect::<Vec<_>>(), [0, 9]);
        let origins = live.iter().map(|p| p.partition.header().origin.clone());
        assert_eq!(origins.map(|o| (o.output, o.outputs)).collect::<Vec<_>>(), [(0, 2), (1, 2)]);
        assert_eq!(read(&storage), before);
    }
}
