//! The embedder's API on one page.

use crate::budget::{MemoryBudget, Part};
use crate::promql::cache::ResultCache;
use crate::promql::{self, Answer, EvalError, EvalOptions, Expr, ParseError, ResultCacheStats, Steps};
use crate::state::{State, StateError};
use crate::storage::{
    AppendError, Appended, Batch, CleanupSchedule, Damage, Deleted, HeadStatus, JobStatus, Matcher,
    OpenError, Options, Pending, RetentionPolicy, RetentionShares, RetentionStatus, ScrubStatus, SizeLimit,
    Storage, StorageStats, TimeRange, Timestamp, View,
};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An open database. Cloning is cheap and shares it; it closes when the last clone is dropped.
///
/// ```
/// use larum::promql::{Steps, Value};
/// use larum::{Batch, Db, Labels, Options, Timestamp};
/// use std::time::Duration;
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("data");
/// let db = Db::open(&path, Options::default())?; // keeps everything by default
///
/// let up = Labels::from_pairs([("__name__", "up"), ("job", "api")])?;
/// let mut batch = Batch::new();
/// batch.push(&up, Timestamp::from_millis(60_000), 1.0);
/// let outcome = db.append(&batch)?;
/// assert_eq!((outcome.accepted, outcome.refused.len()), (1, 0));
///
/// let answer = db.query("sum by (job) (up)", Timestamp::from_millis(61_000))?;
/// let Value::Vector(elements) = answer.value else { unreachable!() };
/// assert_eq!(elements[0].labels.to_string(), r#"{job="api"}"#);
///
/// let (start, end) = (Timestamp::from_millis(60_000), Timestamp::from_millis(120_000));
/// let answer = db.query_range("up", Steps::new(start, end, Duration::from_secs(30))?)?;
/// let Value::Matrix(series) = answer.value else { unreachable!() };
/// assert_eq!(series[0].floats.len(), 3);
///
/// db.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Db {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    storage: Storage,
    state: State,
    memory: MemoryBudget,
    results: ResultCache,
    clock: crate::storage::options::Clock,
}

/// A database could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DbOpenError {
    /// The samples could not be opened.
    #[error(transparent)]
    Storage(#[from] OpenError),
    /// The state store could not be opened.
    #[error(transparent)]
    State(#[from] StateError),
}

/// A query has no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The text is no query.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// The evaluation failed.
    #[error(transparent)]
    Eval(#[from] EvalError),
}

impl Db {
    /// Opens or creates the database in the folder `path`. One process at a time may have it.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Db, DbOpenError> {
        let path = path.as_ref().to_owned();
        let (clock, memory) = (options.clock.clone(), options.memory.clone());
        let results = ResultCache::new(options.query_cache_bytes, memory.clone());
        let storage = Storage::open(&path, options)?;
        let state = State::open(&path.join("state"))?;
        Ok(Db { inner: Arc::new(Inner { path, storage, state, memory, results, clock }) })
    }

    /// Appends a batch and waits until it is as durable as the fsync policy says. Good samples are
    /// kept, bad ones are named in the outcome. Queries see the samples from then on.
    pub fn append(&self, batch: &Batch) -> Result<Appended, AppendError> {
        self.inner.storage.append(batch)
    }

    /// Appends a batch without waiting for the device; the outcome tells when it is durable.
    pub fn append_start(&self, batch: &Batch) -> Result<Pending, AppendError> {
        self.inner.storage.append_start(batch)
    }

    /// Evaluates a query at one time.
    pub fn query(&self, query: &str, at: Timestamp) -> Result<Answer, QueryError> {
        Ok(self.evaluate(&promql::parse(query)?, Steps::instant(at), &EvalOptions::default())?)
    }

    /// Evaluates a query at every step.
    pub fn query_range(&self, query: &str, steps: Steps) -> Result<Answer, QueryError> {
        Ok(self.evaluate(&promql::parse(query)?, steps, &EvalOptions::default())?)
    }

    /// Evaluates a parsed query. Steps of range queries that were evaluated before, and cannot have changed,
    /// are used again, as far as [`Options::query_cache_bytes`] let them be kept. Where the options name no reservation of memory, it takes one for
    /// queries, as long as it lasts: the answer is the caller's.
    pub fn evaluate(&self, expr: &Expr, steps: Steps, options: &EvalOptions) -> Result<Answer, EvalError> {
        let memory = options.memory.clone();
        let memory = memory.unwrap_or_else(|| Arc::new(self.inner.memory.reservation(Part::Queries)));
        let options = EvalOptions { memory: Some(memory), ..options.clone() };
        self.inner.results.evaluate(expr, &self.inner.storage, steps, &options)
    }

    /// What is kept of the answers to range queries, and how often it was of use.
    pub fn result_cache(&self) -> ResultCacheStats {
        self.inner.results.stats()
    }

    /// Gives up what is kept of answers, for the memory.
    pub fn forget_results(&self) {
        self.inner.results.clear();
    }

    /// What is stored now, for selecting series without PromQL and for listing labels.
    pub fn view(&self) -> View {
        self.inner.storage.view()
    }

    /// Deletes the samples in `range` of the series that match all matchers of any of the `sets`.
    pub fn delete(&self, sets: &[Vec<Matcher>], range: TimeRange) -> io::Result<Deleted> {
        self.inner.storage.delete(sets, range)
    }

    /// What [`Db::delete`] would delete; nothing is changed.
    pub fn delete_preview(&self, sets: &[Vec<Matcher>], range: TimeRange) -> io::Result<Deleted> {
        self.inner.storage.delete_preview(sets, range)
    }

    /// Writes the partitions anew of which something was deleted, now, so that its bytes leave the
    /// disk. What is much goes by itself soon after the deletion.
    pub fn clean_tombstones(&self) -> io::Result<()> {
        self.inner.storage.clean_tombstones()
    }

    /// The work that can be watched and canceled, the newest first.
    pub fn jobs(&self) -> Vec<JobStatus> {
        self.inner.storage.jobs()
    }

    /// Cancels a job; `false` if there is none of this number, or it is over.
    pub fn cancel_job(&self, id: u64) -> bool {
        self.inner.storage.cancel_job(id)
    }

    /// Cuts all of the head into partitions, now.
    pub fn flush(&self) -> io::Result<()> {
        self.inner.storage.flush()
    }

    /// Merges partitions and applies deletions, now.
    pub fn compact(&self) -> io::Result<()> {
        self.inner.storage.compact()
    }

    /// A consistent copy by hard links in the new folder `to`, which can be opened on its own: the
    /// samples, and the small facts as they stood before the copy began. So rules go on in the copy
    /// where they were, as after a crash.
    pub fn snapshot(&self, to: &Path) -> io::Result<()> {
        let state = self.inner.state.export().map_err(io::Error::other)?;
        self.inner.storage.snapshot(to, &[(crate::state::EXPORT_PATH, &state)])
    }

    /// Changes how long samples are kept, for queries and appends at once: `retention` is for the series
    /// that none of the `policies` matches.
    pub fn set_retention(&self, retention: Option<Duration>, policies: Vec<RetentionPolicy>) {
        self.inner.storage.set_retention(retention, policies);
    }

    /// Believes the clock at once, where nothing expires for a day since it jumped, or since the newest
    /// sample is old: somebody knows that it is right.
    pub fn trust_clock(&self) {
        self.inner.storage.trust_clock();
    }

    /// Changes when what has expired is removed from the disk; `None` is at once.
    pub fn set_cleanup_schedule(&self, schedule: Option<CleanupSchedule>) {
        self.inner.storage.set_cleanup_schedule(schedule);
    }

    /// Changes how much the data folder may take; at once, as far as that is done in the background.
    pub fn set_size_limit(&self, limit: SizeLimit) {
        self.inner.storage.set_size_limit(limit);
    }

    /// What the data folder takes, what it may take, and what is dropped next; looks into the files for
    /// what is written anew next, but not beyond `until`.
    pub fn retention_status(&self, until: Instant) -> io::Result<RetentionStatus> {
        self.inner.storage.retention_status(until)
    }

    /// How the bytes of partitions are spread over policies, and over at most `limit` metrics; looks
    /// into the files for it, but not beyond `until`.
    pub fn retention_shares(&self, limit: usize, until: Instant) -> io::Result<RetentionShares> {
        self.inner.storage.retention_shares(limit, until)
    }

    /// What is known to be damaged in the partitions.
    pub fn damage(&self) -> Vec<Damage> {
        self.inner.storage.damage()
    }

    /// How far the scrub is, which reads everything to find damage.
    pub fn scrub_status(&self) -> ScrubStatus {
        self.inner.storage.scrub_status()
    }

    /// Figures about the storage, for metrics and status pages.
    pub fn stats(&self) -> StorageStats {
        self.inner.storage.stats()
    }

    /// What the series in memory are made of, with at most `limit` entries a list.
    pub fn status(&self, limit: usize) -> HeadStatus {
        self.inner.storage.status(limit)
    }

    /// The memory it may take, and what takes it.
    pub fn memory(&self) -> &MemoryBudget {
        &self.inner.memory
    }

    /// The store of small facts.
    pub fn state(&self) -> &State {
        &self.inner.state
    }

    /// The data folder.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// The present time, by the clock of the options.
    pub fn now(&self) -> Timestamp {
        (self.inner.clock)()
    }

    /// Cuts everything, so that the next start replays nothing, and closes. Later calls fail.
    pub fn close(&self) -> io::Result<()> {
        self.inner.storage.close()
    }
}
