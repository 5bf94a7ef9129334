//! Freeing what was deleted: partitions with tombstones are written anew without it, one by one,
//! each by a merge of its own. What is deleted is hidden long before; this is about bytes.
//!
//! In the background it is done at once where it is worth it; what is less goes with the next merge
//! of the partition, or when somebody asks for it.

use super::catalog::Live;
use super::engine::Inner;
use super::jobs::{Job, JobKind};
use super::time::Timestamp;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::{MutexGuard, PoisonError};

/// A partition is worth being written anew if at least one in so many bytes of its chunks was deleted.
const WORTH_ONE_IN: u64 = 10;

/// Whether a partition is written anew in the background.
fn is_worth_it(deleted_bytes: u64, chunk_bytes: u64) -> bool {
    deleted_bytes > 0 && deleted_bytes.saturating_mul(WORTH_ONE_IN) >= chunk_bytes
}

/// What was found out about the partitions with tombstones, by their numbers. To see how much was
/// deleted takes reading timestamps, so it is done once for each deletion.
#[derive(Debug, Default)]
pub(crate) struct Looked(BTreeMap<u64, Look>);

#[derive(Debug, Clone, Copy)]
struct Look {
    /// The number of the tombstones that were looked at.
    tombstones: u64,
    is_due: bool,
}

impl Looked {
    /// Of the partitions with tombstones those that are worth being written anew, unless somebody
    /// canceled that and nothing was deleted from them since.
    fn due(&mut self, deleted_from: &[Live], deleted_bytes: impl Fn(&Live) -> u64) -> Vec<u64> {
        self.0.retain(|number, _| deleted_from.iter().any(|p| p.meta.number == *number));
        let mut due = Vec::new();
        for p in deleted_from {
            let (number, tombstones) = (p.meta.number, p.meta.tombstones.unwrap_or(0));
            let known = self.0.get(&number).copied().filter(|look| look.tombstones == tombstones);
            let look = known.unwrap_or_else(|| Look {
                tombstones,
                is_due: is_worth_it(deleted_bytes(p), p.partition.chunk_bytes()),
            });
            self.0.insert(number, look);
            due.extend(look.is_due.then_some(number));
        }
        due
    }

    /// Somebody does not want partitions with these tombstones to be written anew now.
    fn decline(&mut self, partitions: impl Iterator<Item = (u64, u64)>) {
        self.0.extend(partitions.map(|(number, tombstones)| (number, Look { tombstones, is_due: false })));
    }
}

impl Inner {
    /// Writes the partitions anew of which so much was deleted that it is worth it.
    pub fn free_deleted(&self) -> io::Result<()> {
        let _merging = self.merging.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_held()?;
        // What is held open here would take its bytes until the job is over.
        let mut due = self.looked().due(&self.deleted_from(), |p| {
            let tombstones = p.tombstones.iter().flat_map(|tombstones| tombstones.iter());
            p.partition.deleted_bytes(tombstones)
        });
        // What is too much for the disk waits until there is space.
        let bytes_max = self.disk.merge_bytes_max();
        due.retain(|&number| self.bytes_of(&[number]) <= bytes_max);
        if due.is_empty() {
            return Ok(());
        }
        let job = self.jobs.begin(JobKind::FreeDeleted, self.timestamp());
        self.rewrite_deleted_by(&job, due)
    }

    /// Writes all partitions anew of which anything was deleted.
    pub fn clean_tombstones(&self) -> io::Result<()> {
        let job = self.jobs.begin(JobKind::CleanTombstones, self.timestamp());
        let _merging = self.merging.lock().unwrap_or_else(PoisonError::into_inner);
        let all = self.deleted_from().iter().map(|p| p.meta.number).collect();
        self.rewrite_deleted_by(&job, all)
    }

    fn rewrite_deleted_by(&self, job: &Job, numbers: Vec<u64>) -> io::Result<()> {
        // Canceled is what is to be freed now, not what is deleted meanwhile.
        let tombstones_of = |p: &Live| (p.meta.number, p.meta.tombstones.unwrap_or(0));
        let tombstones: BTreeMap<u64, u64> = self.deleted_from().iter().map(tombstones_of).collect();
        let (outcome, left) = self.rewrite_by(job, numbers);
        if job.is_canceled() {
            self.looked().decline(left.iter().filter_map(|number| Some((*number, *tombstones.get(number)?))));
        }
        outcome
    }

    /// Does a job, with the lock for merges, and gives the numbers of the partitions that are not done.
    pub fn rewrite_by(&self, job: &Job, mut numbers: Vec<u64>) -> (io::Result<()>, Vec<u64>) {
        let bytes_of = |p: &Live| if numbers.contains(&p.meta.number) { p.meta.byte_len } else { 0 };
        let bytes = self.catalog().live().iter().map(bytes_of).sum();
        job.run(numbers.len() as u64, bytes);
        let outcome = job.done_by(|| self.rewrite_each(job, &mut numbers), || self.timestamp());
        let status = job.snapshot();
        tracing::info!(
            job = status.id,
            kind = status.kind.name(),
            state = status.state.name(),
            partitions = status.partitions_done,
            of = status.partitions,
            bytes_freed = status.bytes_freed,
            "partitions were written without what was deleted or has expired"
        );
        (outcome, numbers)
    }

    /// Writes the partitions anew, and leaves in `numbers` those that are not done; one that fails holds
    /// no other up. Merges that are due come in between: appends may wait for them.
    fn rewrite_each(&self, job: &Job, numbers: &mut Vec<u64>) -> io::Result<()> {
        let stop = || self.closing.load(Acquire) || job.is_canceled();
        let (mut failed, mut at) = (Ok(()), 0);
        while let Some(&number) = numbers.get(at) {
            // If that fails, the background tries it again and tells of it.
            let _ = self.merge_urgent(&stop);
            if job.is_canceled() {
                let why = format!("job {} was canceled", job.id());
                return Err(io::Error::new(io::ErrorKind::Interrupted, why));
            }
            self.check_held()?;
            let (before, merge) = {
                let catalog = self.catalog();
                let before = catalog.get(number).map_or(0, |p| p.meta.byte_len);
                (before, self.levels().rewrite(&catalog.manifest().partitions, number))
            };
            // One that expired meanwhile is freed, too.
            let merge = merge.filter(|_| before > 0);
            let outcome = merge.map_or(Ok(()), |merge| self.merge_and_count(merge, &stop));
            match outcome {
                Err(e) if e.kind() != io::ErrorKind::Interrupted => {
                    (failed, at) = (failed.and(Err(e)), at + 1);
                    continue;
                }
                Err(e) if self.closing.load(Acquire) => return Err(e),
                // It expired, or the job was canceled.
                Err(_) => continue,
                Ok(()) => {}
            }
            let catalog = self.catalog();
            let outputs = catalog.live().iter().filter(|p| p.partition.header().origin.sources == [number]);
            let freed = before.saturating_sub(outputs.map(|p| p.meta.byte_len).sum());
            drop(catalog);
            let counter = match job.kind() {
                JobKind::FreeExpired => &self.counters.expired_bytes,
                JobKind::FreeDeleted | JobKind::CleanTombstones => &self.counters.freed_bytes,
            };
            counter.fetch_add(freed, Relaxed);
            job.did(before, freed);
            numbers.remove(at);
        }
        failed
    }

    fn deleted_from(&self) -> Vec<Live> {
        self.catalog().live().iter().filter(|p| p.tombstones.is_some()).cloned().collect()
    }

    fn looked(&self) -> MutexGuard<'_, Looked> {
        self.looked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present, as jobs note it.
    pub fn timestamp(&self) -> Timestamp {
        Timestamp::from_millis(self.now().wall_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::engine::Deleted;
    use crate::storage::jobs::JobState;
    use crate::storage::options::{Clock, Maintenance, Options};
    use crate::storage::{Batch, Matcher, Storage, TimeRange};
    use larum_storage_format::Labels;
    use std::path::Path;
    use std::sync::atomic::AtomicBool;
    use std::sync::{Arc, OnceLock};

    #[test]
    fn a_tenth_of_the_chunks_is_worth_it() {
        for (deleted, chunks, worth) in [
            (0, 0, false),
            (0, 1000, false),
            (99, 1000, false),
            (100, 1000, true),
            (1000, 1000, true),
            (1, 0, true),
            (u64::MAX, u64::MAX, true),
        ] {
            assert_eq!(is_worth_it(deleted, chunks), worth, "{deleted} of {chunks}");
        }
    }

    /// Two partitions, a day apart, with two series each.
    fn open(path: &Path) -> Storage {
        open_with(path, Arc::new(|| Timestamp::from_millis(200_000_000)))
    }

    fn open_with(path: &Path, clock: Clock) -> Storage {
        let options = Options { clock, maintenance: Maintenance::Stepped, ..Options::default() };
        let storage = Storage::open(path, options).unwrap();
        for day in [0, 100_000_000] {
            let mut batch = Batch::new();
            // Equal chunks would be stored once.
            for (job, modulus) in [("a", 997), ("b", 991)] {
                let labels = Labels::from_pairs([("__name__", "m"), ("job", job)]).unwrap();
                (0..500).for_each(|t| {
                    batch.push(&labels, Timestamp::from_millis(day + t * 1000), (t * t % modulus) as f64);
                });
            }
            storage.append(&batch).unwrap();
        }
        storage.flush().unwrap();
        storage
    }

    fn numbers(storage: &Storage) -> Vec<u64> {
        storage.inner().catalog().live().iter().map(|p| p.meta.number).collect()
    }

    fn delete(storage: &Storage, range: TimeRange) {
        let deleted = storage.delete(&[vec![Matcher::equal("job", "a")]], range).unwrap();
        assert!(deleted.samples > 0);
    }

    #[test]
    fn a_preview_counts_what_would_be_deleted_and_deletes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let storage = open(dir.path());
        let chunk_bytes: u64 =
            storage.inner().catalog().live().iter().map(|p| p.partition.chunk_bytes()).sum();
        let preview =
            |job: &str, range| storage.delete_preview(&[vec![Matcher::equal("job", job)]], range).unwrap();
        let all = storage.delete_preview(&[vec![]], TimeRange::ALL).unwrap();
        assert_eq!((all.series, all.samples, all.bytes), (2, 2000, chunk_bytes));
        let (a, half) = (preview("a", TimeRange::ALL), preview("a", TimeRange::new(0, 499_999)));
        assert_eq!((half.series, half.samples), (1, 500));
        assert!((45..=55).contains(&(half.bytes * 100 / a.bytes)), "{half:?} of {a:?}");
        assert_eq!(
            (preview("none", TimeRange::ALL), storage.stats().partitions_with_tombstones),
            (Deleted::default(), 0)
        );
        let deleted =
            storage.delete(&[vec![Matcher::equal("job", "a")]], TimeRange::new(0, 499_999)).unwrap();
        assert_eq!((deleted, preview("a", TimeRange::ALL).bytes), (half, a.bytes - half.bytes));

        // In the head, too.
        let mut batch = Batch::new();
        let labels = Labels::from_pairs([("__name__", "m"), ("job", "new")]).unwrap();
        (0..4).for_each(|t| batch.push(&labels, Timestamp::from_millis(199_000_000 + t), 1.0));
        storage.append(&batch).unwrap();
        let new = preview("new", TimeRange::new(0, 199_000_001));
        assert_eq!((new.series, new.samples, new.bytes), (1, 2, storage.stats().wal_bytes / 2));
    }

    #[test]
    fn only_a_partition_that_lost_much_is_written_anew_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let storage = open(dir.path());
        let before = numbers(&storage);
        delete(&storage, TimeRange::new(0, 50_000));
        storage.inner().free_deleted().unwrap();
        assert_eq!(numbers(&storage), before, "a twentieth");
        delete(&storage, TimeRange::new(50_000, 150_000));
        storage.inner().free_deleted().unwrap();
        let after = numbers(&storage);
        assert_eq!((after.len(), after[0]), (2, before[1]), "the other is as it was");
        let [job] = &storage.jobs()[..] else { panic!("{:?}", storage.jobs()) };
        assert_eq!((job.kind, &job.state), (JobKind::FreeDeleted, &JobState::Done));
        assert_eq!((job.partitions, job.partitions_done, job.bytes), (1, 1, job.bytes_done));
        assert!(job.bytes_freed > 0 && storage.stats().freed_bytes == job.bytes_freed);
        storage.inner().free_deleted().unwrap();
        assert_eq!(storage.jobs().len(), 1, "nothing is left to do");
    }

    #[test]
    fn what_is_deleted_while_a_job_runs_is_freed_although_the_job_is_canceled() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Arc::new(OnceLock::<Storage>::new());
        // Whoever merges asks for the time.
        let (of_clock, is_armed) = (storage.clone(), AtomicBool::new(true));
        let clock = Arc::new(move || {
            let jobs = of_clock.get().map(Storage::jobs).unwrap_or_default();
            let running = jobs.first().filter(|job| job.state == JobState::Running);
            if let (Some(storage), Some(job)) = (of_clock.get(), running)
                && is_armed.swap(false, Relaxed)
            {
                storage.delete(&[vec![Matcher::equal("job", "b")]], TimeRange::ALL).unwrap();
                assert!(storage.cancel_job(job.id));
            }
            Timestamp::from_millis(200_000_000)
        });
        let storage = storage.get_or_init(|| open_with(dir.path(), clock));
        delete(storage, TimeRange::ALL);
        let before = numbers(storage);
        assert_eq!(storage.inner().free_deleted().unwrap_err().kind(), io::ErrorKind::Interrupted);
        assert_eq!((&storage.jobs()[0].state, numbers(storage)), (&JobState::Canceled, before));
        storage.inner().free_deleted().unwrap();
        assert_eq!(numbers(storage).len(), 0, "everything was deleted");
    }

    #[test]
    fn what_appends_wait_for_is_merged_before_the_next_partition_is_freed() {
        let dir = tempfile::tempdir().unwrap();
        let storage = open(dir.path());
        for t in 0..20 {
            let mut batch = Batch::new();
            let labels = Labels::from_pairs([("__name__", "m"), ("job", "new")]).unwrap();
            batch.push(&labels, Timestamp::from_millis(199_000_000 + t), 1.0);
            storage.append(&batch).unwrap();
            storage.flush().unwrap();
        }
        delete(&storage, TimeRange::ALL);
        let before = storage.inner().overlapping.load(Relaxed);
        storage.clean_tombstones().unwrap();
        let after = storage.inner().overlapping.load(Relaxed);
        assert!(before == 20 && after < 4, "{before}, then {after}");
        assert_eq!((storage.jobs()[0].partitions_done, storage.stats().partitions_with_tombstones), (2, 0));
    }

    #[test]
    fn what_is_canceled_rests_until_more_is_deleted_or_somebody_asks() {
        let dir = tempfile::tempdir().unwrap();
        let storage = open(dir.path());
        let (inner, before) = (storage.inner(), numbers(&storage));
        delete(&storage, TimeRange::ALL);
        let job = inner.jobs.begin(JobKind::FreeDeleted, Timestamp::from_millis(0));
        assert!(storage.cancel_job(job.id()));
        let outcome = inner.rewrite_deleted_by(&job, before.clone());
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::Interrupted);
        assert_eq!(storage.jobs()[0].state, JobState::Canceled);
        inner.free_deleted().unwrap();
        assert_eq!((numbers(&storage), storage.jobs().len()), (before.clone(), 1));
        storage.delete(&[vec![Matcher::equal("job", "b")]], TimeRange::new(0, 9_000)).unwrap();
        inner.free_deleted().unwrap();
        let after = numbers(&storage);
        assert_eq!(after[0], before[1], "from the first, more was deleted");
        storage.clean_tombstones().unwrap();
        assert_eq!(storage.jobs()[0].kind, JobKind::CleanTombstones);
        assert!(!numbers(&storage).contains(&before[1]));
        assert_eq!(storage.stats().partitions_with_tombstones, 0);
    }
}
