//! Long work that an operator can watch and cancel: which there is, and how far it has come.

use super::time::Timestamp;
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// So many jobs are remembered; those that are not over always are.
const REMEMBERED: usize = 64;

/// What a job is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum JobKind {
    /// Partitions of which much was deleted are written anew, in the background.
    FreeDeleted,
    /// Partitions of which much has expired are, in the background.
    FreeExpired,
    /// All partitions of which anything was deleted are, because somebody asked for it.
    CleanTombstones,
}

impl JobKind {
    /// The name in the API.
    pub fn name(self) -> &'static str {
        match self {
            JobKind::FreeDeleted => "free_deleted",
            JobKind::FreeExpired => "free_expired",
            JobKind::CleanTombstones => "clean_tombstones",
        }
    }
}

/// Where a job stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum JobState {
    /// Other work must end first.
    Waiting,
    /// It is under way.
    Running,
    /// All is done.
    Done,
    /// Somebody canceled it; what was done before stays done.
    Canceled,
    /// It failed; what was done before stays done.
    Failed(String),
}

impl JobState {
    /// The name in the API.
    pub fn name(&self) -> &'static str {
        match self {
            JobState::Waiting => "waiting",
            JobState::Running => "running",
            JobState::Done => "done",
            JobState::Canceled => "canceled",
            JobState::Failed(_) => "failed",
        }
    }

    /// Whether nothing more will happen.
    pub fn is_over(&self) -> bool {
        !matches!(self, JobState::Waiting | JobState::Running)
    }
}

/// A job and its progress.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobStatus {
    /// Counts from 1 on since the database was opened.
    pub id: u64,
    /// What it is for.
    pub kind: JobKind,
    /// Where it stands.
    pub state: JobState,
    /// Partitions to be written anew; 0 while it waits.
    pub partitions: u64,
    /// Those that are.
    pub partitions_done: u64,
    /// Bytes of the partitions to be written anew.
    pub bytes: u64,
    /// Bytes of those that are.
    pub bytes_done: u64,
    /// By how much these became shorter.
    pub bytes_freed: u64,
    /// When it was begun.
    pub started: Timestamp,
    /// When it was over.
    pub ended: Option<Timestamp>,
}

/// A job, as the one who does it sees it.
#[derive(Debug)]
pub(crate) struct Job {
    status: Mutex<JobStatus>,
    canceled: AtomicBool,
}

impl Job {
    fn status(&self) -> MutexGuard<'_, JobStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the job.
    pub fn id(&self) -> u64 {
        self.status().id
    }

    /// What it is for.
    pub fn kind(&self) -> JobKind {
        self.status().kind
    }

    /// Whether somebody canceled it.
    pub fn is_canceled(&self) -> bool {
        self.canceled.load(Ordering::Acquire)
    }

    /// It is under way, and has so much to do.
    pub fn run(&self, partitions: u64, bytes: u64) {
        let mut status = self.status();
        if status.state == JobState::Waiting {
            status.state = JobState::Running;
        }
        (status.partitions, status.bytes) = (partitions, bytes);
    }

    /// Another partition is done.
    pub fn did(&self, bytes: u64, freed: u64) {
        let mut status = self.status();
        status.partitions_done += 1;
        status.bytes_done += bytes;
        status.bytes_freed += freed;
    }

    /// Does the work of the job, which is over then, even if the work panics.
    pub fn done_by(
        &self,
        work: impl FnOnce() -> io::Result<()>,
        now: impl FnOnce() -> Timestamp,
    ) -> io::Result<()> {
        let outcome = catch_unwind(AssertUnwindSafe(work));
        let outcome = outcome.unwrap_or_else(|_| Err(io::Error::other("the work panicked, see the log")));
        self.end(&outcome, now());
        outcome
    }

    /// It is over.
    fn end(&self, outcome: &io::Result<()>, now: Timestamp) {
        let mut status = self.status();
        status.ended = Some(now);
        status.state = match outcome {
            Ok(()) => JobState::Done,
            Err(_) if self.is_canceled() => JobState::Canceled,
            Err(error) => JobState::Failed(error.to_string()),
        };
    }

    /// What came of it, for the log.
    pub fn snapshot(&self) -> JobStatus {
        self.status().clone()
    }
}

/// The jobs of a database since it was opened: those that are not over, and the last that are.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    list: Mutex<(u64, VecDeque<Arc<Job>>)>,
}

impl Jobs {
    fn list(&self) -> MutexGuard<'_, (u64, VecDeque<Arc<Job>>)> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new job, which waits.
    pub fn begin(&self, kind: JobKind, now: Timestamp) -> Arc<Job> {
        let (last, list) = &mut *self.list();
        *last += 1;
        let status = JobStatus {
            id: *last,
            kind,
            state: JobState::Waiting,
            partitions: 0,
            partitions_done: 0,
            bytes: 0,
            bytes_done: 0,
            bytes_freed: 0,
            started: now,
            ended: None,
        };
        let job = Arc::new(Job { status: Mutex::new(status), canceled: AtomicBool::new(false) });
        list.push_back(job.clone());
        while list.len() > REMEMBERED
            && let Some(oldest) = list.iter().position(|job| job.status().state.is_over())
        {
            list.remove(oldest);
        }
        job
    }

    /// All that are remembered, the newest first.
    pub fn all(&self) -> Vec<JobStatus> {
        self.list().1.iter().rev().map(|job| job.snapshot()).collect()
    }

    /// How many are not over.
    pub fn active(&self) -> u64 {
        self.list().1.iter().filter(|job| !job.status().state.is_over()).count() as u64
    }

    /// Cancels a job; `false` if there is none of that number, or it is over.
    pub fn cancel(&self, id: u64) -> bool {
        let list = self.list();
        let Some(job) = list.1.iter().find(|job| job.id() == id) else { return false };
        if job.status().state.is_over() {
            return false;
        }
        job.canceled.store(true, Ordering::Release);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(5);

    #[test]
    fn a_job_is_canceled_once_and_not_when_it_is_over() {
        let jobs = Jobs::default();
        let failure = || Err(io::Error::other("no space"));
        for (canceled, outcome, state) in [
            (false, Ok(()), JobState::Done),
            (true, failure(), JobState::Canceled),
            (true, Ok(()), JobState::Done),
            (false, failure(), JobState::Failed("no space".to_owned())),
        ] {
            let job = jobs.begin(JobKind::CleanTombstones, NOW);
            assert_eq!(jobs.all()[0].state, JobState::Waiting);
            job.run(2, 100);
            job.did(60, 10);
            assert_eq!((jobs.active(), jobs.cancel(job.id() + 1)), (1, false));
            assert_eq!(canceled && jobs.cancel(job.id()), canceled);
            job.end(&outcome, NOW);
            assert_eq!((jobs.active(), jobs.cancel(job.id())), (0, false));
            let status = &jobs.all()[0];
            assert_eq!((status.id, &status.state, status.ended), (job.id(), &state, Some(NOW)));
            let progress = (status.partitions_done, status.partitions, status.bytes_done, status.bytes);
            assert_eq!((progress, status.bytes_freed), ((1, 2, 60, 100), 10));
        }
    }

    #[test]
    fn a_job_whose_work_panics_has_failed() {
        let jobs = Jobs::default();
        let job = jobs.begin(JobKind::FreeDeleted, NOW);
        job.run(1, 1);
        assert!(job.done_by(|| panic!("on purpose"), || NOW).is_err());
        assert!(matches!(&jobs.all()[0].state, JobState::Failed(why) if why.contains("panicked")));
        assert_eq!((jobs.active(), jobs.all()[0].ended), (0, Some(NOW)));
    }

    #[test]
    fn the_last_jobs_are_remembered_and_all_that_are_not_over() {
        let jobs = Jobs::default();
        let first = jobs.begin(JobKind::CleanTombstones, NOW);
        for _ in 0..3 * REMEMBERED {
            jobs.begin(JobKind::FreeDeleted, NOW).end(&Ok(()), NOW);
        }
        let all = jobs.all();
        assert_eq!((all.len(), all[0].id), (REMEMBERED, 3 * REMEMBERED as u64 + 1));
        assert_eq!(all.last().map(|job| job.id), Some(first.id()));
    }
}
