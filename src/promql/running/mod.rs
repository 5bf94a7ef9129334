//! The queries that run or wait, how to end one, and what those cost that ran.
//!
//! Whoever evaluates queries for others tells of each by [`Queries::begin`] and, when it is over, by
//! [`Running::finish`]. Texts are cut and tables bounded; a query that runs costs a few hundred bytes here.

pub mod origin;
mod top;

pub use origin::{Caller, HttpOrigin, Origin, RuleOrigin};
pub use top::{Figures, TopBy};

use super::progress::Progress;
use super::steps::Steps;
use super::value::Stats;
use crate::budget::Reservation;
use crate::storage::Timestamp;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};
use top::{Spent, Top};

/// The longest text that is shown of a query that runs, in bytes.
const SHOWN_BYTES: usize = 4096;
/// The longest that is kept of it, for whoever listens.
const KEPT_BYTES: usize = 64 << 10;

/// What is told of a query as it begins.
#[derive(Debug, Clone)]
pub struct Query {
    /// Its text, or the first 64 KiB.
    pub text: String,
    /// When it is evaluated.
    pub steps: Steps,
    /// Who asks.
    pub origin: Origin,
    /// The present time.
    pub now: Timestamp,
}

impl Query {
    /// A query at `steps` that somebody asks `now`.
    pub fn new(text: &str, steps: Steps, origin: Origin, now: Timestamp) -> Query {
        Query { text: origin::cut(text, KEPT_BYTES).to_owned(), steps, origin, now }
    }
}

/// How long the parts of a query took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// Waiting for a thread.
    pub queue: Duration,
    /// Parsing and planning.
    pub prepare: Duration,
    /// Evaluating.
    pub evaluate: Duration,
    /// All of it.
    pub total: Duration,
}

/// A query that is over.
#[derive(Debug)]
pub struct Ended<'a> {
    /// What was told of it.
    pub query: &'a Query,
    /// How long it took.
    pub timings: Timings,
    /// What it took.
    pub stats: &'a Stats,
    /// Why it failed, if it did.
    pub error: Option<&'a str>,
}

/// What is called with every query that is over; it must not wait for anything.
pub type Listener = Arc<dyn Fn(&Ended<'_>) + Send + Sync>;

/// The queries of a process. Cloning is cheap and shares them.
#[derive(Clone)]
pub struct Queries {
    shared: Arc<Shared>,
}

struct Shared {
    last_id: AtomicU64,
    active: Mutex<BTreeMap<u64, Arc<Active>>>,
    top: Mutex<Top>,
    canceled: AtomicU64,
    listener: RwLock<Option<Listener>>,
}

/// A query that waits or runs.
struct Active {
    id: u64,
    query: Query,
    since: Instant,
    runs: AtomicBool,
    progress: Arc<Progress>,
    memory: OnceLock<Arc<Reservation>>,
    on_cancel: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

/// A query that waits or runs, as it was at one moment.
#[derive(Debug, Clone)]
pub struct ActiveQuery {
    /// Its number; none is used again.
    pub id: u64,
    /// Its text, cut if it is long.
    pub text: String,
    /// When it is evaluated.
    pub steps: Steps,
    /// Who asks.
    pub origin: Origin,
    /// Since when it waits or runs.
    pub since: Timestamp,
    /// For how long.
    pub elapsed: Duration,
    /// Whether it waits for its turn.
    pub waits: bool,
    /// Why it was canceled, if it was and is about to end.
    pub canceled: Option<String>,
    /// Series read so far.
    pub series: u64,
    /// Samples read so far.
    pub samples: u64,
    /// The memory it holds.
    pub memory_bytes: u64,
}

impl Default for Queries {
    fn default() -> Queries {
        Queries {
            shared: Arc::new(Shared {
                last_id: AtomicU64::new(0),
                active: Mutex::default(),
                top: Mutex::new(Top::new(Instant::now())),
                canceled: AtomicU64::new(0),
                listener: RwLock::new(None),
            }),
        }
    }
}

impl fmt::Debug for Queries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queries").field("active", &self.len()).finish_non_exhaustive()
    }
}

impl Queries {
    /// Takes up a query, which is seen from now on until what is returned is dropped.
    pub fn begin(&self, query: Query) -> Running {
        let id = self.shared.last_id.fetch_add(1, Relaxed) + 1;
        let active = Arc::new(Active {
            id,
            query,
            since: Instant::now(),
            runs: AtomicBool::new(false),
            progress: Arc::default(),
            memory: OnceLock::new(),
            on_cancel: Mutex::default(),
        });
        lock(&self.shared.active).insert(id, active.clone());
        Running { queries: self.clone(), active, is_finished: false }
    }

    /// The queries that wait or run, the oldest first.
    pub fn active(&self) -> Vec<ActiveQuery> {
        let active: Vec<Arc<Active>> = lock(&self.shared.active).values().cloned().collect();
        active.iter().map(|active| active.look()).collect()
    }

    /// How many wait or run.
    pub fn len(&self) -> usize {
        lock(&self.shared.active).len()
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends the query of this number soon, with an error that says `why`; `false` if there is none.
    pub fn cancel(&self, id: u64, why: &str) -> bool {
        let Some(active) = lock(&self.shared.active).get(&id).cloned() else { return false };
        if active.progress.cancel(why) {
            self.shared.canceled.fetch_add(1, Relaxed);
            if let Some(tell) = lock(&active.on_cancel).take() {
                tell();
            }
        }
        true
    }

    /// How many were ended so.
    pub fn canceled(&self) -> u64 {
        self.shared.canceled.load(Relaxed)
    }

    /// What queries cost by their text, at most `limit`.
    pub fn top_queries(&self, by: TopBy, limit: usize) -> Vec<(String, Figures)> {
        lock(&self.shared.top).queries(by, limit)
    }

    /// What queries cost by who asks, at most `limit`.
    pub fn top_callers(&self, by: TopBy, limit: usize) -> Vec<(Caller, Figures)> {
        lock(&self.shared.top).callers(by, limit)
    }

    /// How many entries there are in both tables.
    pub fn top_len(&self) -> usize {
        lock(&self.shared.top).len()
    }

    /// Calls `listener` with every query that is over from now on; `None` ends that.
    pub fn listen(&self, listener: Option<Listener>) {
        *self.shared.listener.write().unwrap_or_else(PoisonError::into_inner) = listener;
    }

    /// Whether somebody listens, who wants to know how many samples queries look at.
    pub fn is_heard(&self) -> bool {
        self.shared.listener.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

impl Active {
    fn look(&self) -> ActiveQuery {
        ActiveQuery {
            id: self.id,
            text: origin::cut(&self.query.text, SHOWN_BYTES).to_owned(),
            steps: self.query.steps,
            origin: self.query.origin.clone(),
            since: self.query.now,
            elapsed: self.since.elapsed(),
            waits: !self.runs.load(Relaxed),
            canceled: self.progress.canceled().map(str::to_owned),
            series: self.progress.series(),
            samples: self.progress.samples(),
            memory_bytes: self.memory.get().map_or(0, |memory| memory.used()),
        }
    }
}

/// A query of one's own that waits or runs. Dropped unfinished, it counts as one that failed.
pub struct Running {
    queries: Queries,
    active: Arc<Active>,
    is_finished: bool,
}

impl Running {
    /// Its number.
    pub fn id(&self) -> u64 {
        self.active.id
    }

    /// Who watches its evaluation.
    pub fn progress(&self) -> Arc<Progress> {
        self.active.progress.clone()
    }

    /// Says that its turn has come, and what it takes memory from.
    pub fn run(&self, memory: Option<Arc<Reservation>>) {
        if let Some(memory) = memory {
            let _ = self.active.memory.set(memory);
        }
        self.active.runs.store(true, Relaxed);
    }

    /// Calls `tell` once somebody ends it.
    pub fn on_cancel(&self, tell: impl FnOnce() + Send + 'static) {
        *lock(&self.active.on_cancel) = Some(Box::new(tell));
    }

    /// It is over: what it asked for (its text as it is printed, so that those that mean the same are one),
    /// how long it took, what, and why it failed, if it did.
    pub fn finish(mut self, canonical: &str, timings: Timings, stats: &Stats, error: Option<&str>) {
        self.end(canonical, timings, stats, error);
    }

    fn end(&mut self, canonical: &str, timings: Timings, stats: &Stats, error: Option<&str>) {
        self.is_finished = true;
        let query = &self.active.query;
        let memory = self.active.memory.get().map_or(0, |memory| memory.peak());
        let took_ms = i64::try_from(self.active.since.elapsed().as_millis()).unwrap_or(i64::MAX);
        let spent = Spent {
            time: timings.total.saturating_sub(timings.queue),
            samples: stats.samples.max(self.active.progress.samples()),
            peak_bytes: stats.peak_bytes.max(memory),
            failed: error.is_some(),
            ended: Timestamp::from_millis(query.now.as_millis().saturating_add(took_ms)),
        };
        let caller = query.origin.caller();
        lock(&self.queries.shared.top).add(canonical, caller, spent, Instant::now());
        let listener = self.queries.shared.listener.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(listener) = listener {
            listener(&Ended { query, timings, stats, error });
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_finished {
            let elapsed = self.active.since.elapsed();
            let waited = !self.active.runs.load(Relaxed);
            let queue = if waited { elapsed } else { Duration::ZERO };
            let timings = Timings { queue, total: elapsed, ..Timings::default() };
            let active = self.active.clone();
            let error = match (active.progress.canceled(), waited) {
                (Some(why), _) => why,
                (None, true) => "it had no turn before its time was up or nobody waited for it any more",
                (None, false) => "it was given up",
            };
            self.end(&active.query.text, timings, &Stats::default(), Some(error));
        }
        lock(&self.queries.shared.active).remove(&self.active.id);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        let origin = Origin::Http(HttpOrigin::default());
        let steps = Steps::instant(Timestamp::from_millis(0));
        Query::new(text, steps, origin, Timestamp::from_millis(1000))
    }

    #[test]
    fn a_query_is_seen_from_its_begin_to_its_end() {
        let queries = Queries::default();
        let first = queries.begin(query("up"));
        let second = queries.begin(query(&"u".repeat(10_000)));
        second.run(None);
        second.progress().add(3, 40);
        let seen: Vec<_> =
            queries.active().into_iter().map(|q| (q.id, q.text.len(), q.waits, q.samples)).collect();
        assert_eq!(seen, [(1, 2, true, 0), (2, SHOWN_BYTES, false, 40)]);
        first.finish("up", Timings::default(), &Stats::default(), None);
        drop(second);
        assert!(queries.is_empty());
        let counts: Vec<_> =
            queries.top_callers(TopBy::Count, 9).iter().map(|(_, f)| (f.count, f.errors)).collect();
        assert_eq!(counts, [(2, 1)], "what was given up counts as failed");
    }

    #[test]
    fn who_is_canceled_is_told_once_and_why() {
        let queries = Queries::default();
        let running = queries.begin(query("up"));
        let told = Arc::new(AtomicU64::new(0));
        let of_listener = told.clone();
        running.on_cancel(move || {
            of_listener.fetch_add(1, Relaxed);
        });
        assert!(!queries.cancel(running.id() + 1, "nobody"));
        assert!(queries.cancel(running.id(), "by an operator") && queries.cancel(running.id(), "again"));
        assert_eq!((told.load(Relaxed), queries.canceled()), (1, 1));
        assert_eq!(running.progress().canceled(), Some("by an operator"));
        assert_eq!(queries.active()[0].canceled.as_deref(), Some("by an operator"));
    }

    #[test]
    fn who_listens_hears_of_every_query_that_is_over() {
        let queries = Queries::default();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let of_listener = heard.clone();
        queries.listen(Some(Arc::new(move |ended: &Ended<'_>| {
            lock(&of_listener).push((ended.query.text.clone(), ended.error.map(str::to_owned)));
        })));
        queries.begin(query("a")).finish("a", Timings::default(), &Stats::default(), None);
        queries.begin(query("b")).finish("b", Timings::default(), &Stats::default(), Some("wrong"));
        drop(queries.begin(query("c")));
        queries.listen(None);
        queries.begin(query("d")).finish("d", Timings::default(), &Stats::default(), None);
        let heard = lock(&heard);
        assert_eq!(heard[..2], [("a".to_owned(), None), ("b".to_owned(), Some("wrong".to_owned()))]);
        assert!(
            heard.len() == 3
                && heard[2].1.as_deref().is_some_and(|error| error.starts_with("it had no turn"))
        );
    }
}
