//! The threads that queries run on, apart from those that serve connections.
//!
//! Their number is bounded; what finds none free waits, for as long as its own deadline, and in the order
//! of [`queue`]. One thread is kept for small queries, as soon as all others are busy. Whoever asked and
//! went away leaves a flag behind that ends the work.

pub mod queue;

use super::http::edge::panic_text;
use queue::{Queue, Turn, Weight, Worker};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long after its deadline a job that runs is still waited for: it looks at the clock itself, and
/// says better what it was at.
const GRACE: Duration = Duration::from_secs(1);

/// Why a job has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PoolError {
    /// No thread was free before the deadline.
    QueueTimeout,
    /// Too many wait already.
    QueueFull,
    /// It ran far beyond its deadline.
    Timeout,
    /// It panicked, or the pool has stopped.
    Failed(String),
}

/// Finds out how long a job takes; what it cannot tell is [`Weight::Other`].
/// It gets the flag that the job gets.
pub type Weigh = Box<dyn FnOnce(Arc<AtomicBool>) -> Weight + Send>;

/// A pool of threads, started as they are needed.
pub struct QueryPool {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Wakes those that take anything, and the one that takes small ones.
    wake: Condvar,
    wake_small: Condvar,
    general_threads: usize,
    small_threads: usize,
    running: AtomicU64,
    small_runs: AtomicU64,
    queued_micros: AtomicU64,
}

#[derive(Default)]
struct State {
    queue: Queue<Job>,
    /// Threads there are, and those of them that take anything and have nothing to do.
    general: usize,
    small: usize,
    idle: usize,
    stopped: bool,
}

struct Job {
    deadline: Instant,
    cancel: Arc<AtomicBool>,
    queued: Instant,
    weigh: Option<Weigh>,
    run: Box<dyn FnOnce() + Send>,
}

/// When the one who asked goes away: nobody waits for the job any more.
struct Leave {
    shared: Arc<Shared>,
    number: u64,
    cancel: Arc<AtomicBool>,
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.cancel.store(true, Ordering::Relaxed);
        let removed = self.shared.lock().queue.remove(self.number);
        // Not under the lock: others may look at what it held.
        drop(removed);
    }
}

impl QueryPool {
    /// A pool of at most `max_threads` threads.
    pub fn new(max_threads: usize) -> QueryPool {
        let small_threads = usize::from(max_threads > 1);
        QueryPool {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                wake: Condvar::new(),
                wake_small: Condvar::new(),
                general_threads: max_threads.saturating_sub(small_threads).max(1),
                small_threads,
                running: AtomicU64::new(0),
                small_runs: AtomicU64::new(0),
                queued_micros: AtomicU64::new(0),
            }),
        }
    }

    /// Runs `job` on a thread of the pool. The job gets a flag that is set when nobody waits for
    /// its result any more. Where it has to wait, `weigh` tells how long it will take.
    pub async fn run<T: Send + 'static>(
        &self,
        deadline: Instant,
        weigh: Option<Weigh>,
        job: impl FnOnce(Arc<AtomicBool>) -> T + Send + 'static,
    ) -> Result<T, PoolError> {
        let cancel = Arc::new(AtomicBool::new(false));
        let (send, receive) = oneshot::channel();
        let started = Arc::new(AtomicBool::new(false));
        let run: Box<dyn FnOnce() + Send> = {
            let (cancel, started) = (cancel.clone(), started.clone());
            Box::new(move || {
                started.store(true, Ordering::Relaxed);
                let result = catch_unwind(AssertUnwindSafe(|| job(cancel)));
                let _ = send.send(result.map_err(|panic| panic_text(&*panic)));
            })
        };
        let job = Job { deadline, cancel: cancel.clone(), queued: Instant::now(), weigh, run };
        let number = self.shared.push(job)?;
        let _leave = Leave { shared: self.shared.clone(), number, cancel };
        let mut receive = receive;
        let mut received = tokio::time::timeout_at(deadline.into(), &mut receive).await;
        if received.is_err() && started.load(Ordering::Relaxed) {
            received = tokio::time::timeout_at((deadline + GRACE).into(), &mut receive).await;
            if received.is_err() {
                return Err(PoolError::Timeout);
            }
        }
        match received {
            Ok(Ok(Ok(result))) => Ok(result),
            Ok(Ok(Err(panic))) => {
                tracing::error!("a query panicked: {panic}");
                Err(PoolError::Failed(format!("the query failed by a fault of the server: {panic}")))
            }
            // Dropped unrun, because the pool has stopped or at the deadline.
            Ok(Err(_)) if Instant::now() < deadline => {
                Err(PoolError::Failed("the server is shutting down".to_owned()))
            }
            Ok(Err(_)) | Err(_) => Err(PoolError::QueueTimeout),
        }
    }

    /// How many jobs run now.
    pub fn running(&self) -> u64 {
        self.shared.running.load(Ordering::Relaxed)
    }

    /// How many jobs wait now.
    pub fn waiting(&self) -> usize {
        self.shared.lock().queue.len()
    }

    /// How many jobs so far ran on the thread for small ones.
    pub fn small_runs(&self) -> u64 {
        self.shared.small_runs.load(Ordering::Relaxed)
    }

    /// How long all jobs so far have waited for a thread.
    pub fn queued_total(&self) -> Duration {
        Duration::from_micros(self.shared.queued_micros.load(Ordering::Relaxed))
    }

    /// How many jobs may run at a time.
    pub fn max_threads(&self) -> usize {
        self.shared.general_threads + self.shared.small_threads
    }

    /// Drops what waits and lets the threads end.
    pub fn stop(&self) {
        let mut state = self.shared.lock();
        state.stopped = true;
        let waiting = std::mem::take(&mut state.queue);
        drop(state);
        self.shared.wake.notify_all();
        self.shared.wake_small.notify_all();
        drop(waiting);
    }
}

impl Drop for QueryPool {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(self: &Arc<Shared>, job: Job) -> Result<u64, PoolError> {
        let mut state = self.lock();
        if state.stopped {
            return Err(PoolError::Failed("the server is shutting down".to_owned()));
        }
        let weight = if job.weigh.is_some() { Weight::Unknown } else { Weight::Other };
        let queued = job.queued;
        let number = state.queue.push(job, weight, queued).ok_or(PoolError::QueueFull)?;
        let all_busy = state.idle < state.queue.len();
        if all_busy && state.general < self.general_threads {
            match self.spawn(Worker::General) {
                Ok(()) => state.general += 1,
                Err(error) if state.general == 0 => {
                    state.queue.remove(number);
                    return Err(PoolError::Failed(format!("no thread for queries: {error}")));
                }
                Err(_) => {}
            }
        } else if all_busy && state.small < self.small_threads && self.spawn(Worker::ForSmall).is_ok() {
            state.small += 1;
        }
        drop(state);
        if all_busy {
            self.wake_small.notify_one();
        }
        self.wake.notify_one();
        Ok(number)
    }

    fn spawn(self: &Arc<Shared>, worker: Worker) -> std::io::Result<()> {
        let shared = self.clone();
        let name = match worker {
            Worker::General => "larum-query",
            Worker::ForSmall => "larum-query-sm",
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(move || shared.work(worker)).map(|_| ())
    }

    fn work(&self, worker: Worker) {
        let mut state = self.lock();
        loop {
            let turn = state.queue.next(worker);
            match turn {
                Some(Turn::Run(job)) => {
                    drop(state);
                    self.run(job, worker);
                    state = self.lock();
                }
                Some(Turn::Weigh(number)) => {
                    let job = state.queue.get_mut(number);
                    let weigh = job.and_then(|job| Some((job.weigh.take()?, job.cancel.clone())));
                    drop(state);
                    let weigh = weigh.map(|(weigh, cancel)| catch_unwind(AssertUnwindSafe(|| weigh(cancel))));
                    state = self.lock();
                    state.queue.weighed(number, weigh.and_then(Result::ok).unwrap_or(Weight::Other));
                }
                None if state.stopped => return,
                None => {
                    let wake = match worker {
                        Worker::General => &self.wake,
                        Worker::ForSmall => &self.wake_small,
                    };
                    let idle = usize::from(worker == Worker::General);
                    state.idle += idle;
                    state = wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                    state.idle -= idle;
                }
            }
        }
    }

    fn run(&self, job: Job, worker: Worker) {
        if Instant::now() >= job.deadline || job.cancel.load(Ordering::Relaxed) {
            return;
        }
        let waited = u64::try_from(job.queued.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.queued_micros.fetch_add(waited, Ordering::Relaxed);
        if worker == Worker::ForSmall {
            self.small_runs.fetch_add(1, Ordering::Relaxed);
        }
        self.running.fetch_add(1, Ordering::Relaxed);
        (job.run)();
        self.running.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    /// Takes all threads of the pool that take anything, until what is returned is dropped.
    async fn fill(pool: &Arc<QueryPool>) -> Vec<mpsc::Sender<()>> {
        let mut holders = Vec::new();
        for _ in 0..pool.shared.general_threads {
            let (release, held) = mpsc::channel::<()>();
            let (begun, has_begun) = oneshot::channel();
            let of_task = pool.clone();
            tokio::spawn(async move {
                let job = move |_| {
                    let _ = begun.send(());
                    let _ = held.recv();
                };
                of_task.run(soon(), None, job).await
            });
            has_begun.await.unwrap();
            holders.push(release);
        }
        holders
    }

    #[tokio::test]
    async fn jobs_run_and_panics_stay_inside() {
        let pool = QueryPool::new(2);
        assert_eq!(pool.run(soon(), None, |_| 7).await, Ok(7));
        let failed = pool.run(soon(), None, |_| panic!("broken")).await.map(|()| 0);
        assert!(matches!(failed, Err(PoolError::Failed(text)) if text.ends_with("broken")));
        assert_eq!(pool.run(soon(), None, |_| 8).await, Ok(8));
    }

    #[tokio::test]
    async fn a_job_that_finds_no_thread_gives_up_at_its_deadline() {
        let pool = Arc::new(QueryPool::new(1));
        let held = fill(&pool).await;
        let deadline = Instant::now() + Duration::from_millis(20);
        // Nothing else happens until then: no further job, and the thread stays taken.
        assert_eq!(pool.run(deadline, None, |_| ()).await, Err(PoolError::QueueTimeout));
        assert_eq!(pool.waiting(), 0, "it has left");
        let next = pool.run(soon(), None, |_| 9);
        drop(held);
        assert_eq!(next.await, Ok(9));
    }

    #[tokio::test]
    async fn small_jobs_are_done_while_long_ones_take_all_other_threads() {
        let pool = Arc::new(QueryPool::new(3));
        let held = fill(&pool).await;
        let weigh =
            |ms| -> Option<Weigh> { Some(Box::new(move |_| Weight::Expected(Duration::from_millis(ms)))) };
        let of_task = pool.clone();
        let long = tokio::spawn(async move { of_task.run(soon(), weigh(10_000), |_| "long").await });
        let broken: Option<Weigh> = Some(Box::new(|_| panic!("cannot be weighed")));
        let of_task = pool.clone();
        let unweighed = tokio::spawn(async move { of_task.run(soon(), broken, |_| "unweighed").await });
        for _ in 0..3 {
            assert_eq!(pool.run(soon(), weigh(1), |_| "small").await, Ok("small"));
        }
        assert_eq!((pool.small_runs(), pool.waiting()), (3, 2));
        assert!(!long.is_finished());
        drop(held);
        assert_eq!((long.await.unwrap(), unweighed.await.unwrap()), (Ok("long"), Ok("unweighed")));
    }

    #[tokio::test]
    async fn whoever_goes_away_cancels_the_job() {
        let pool = Arc::new(QueryPool::new(1));
        let (send, receive) = oneshot::channel();
        let (seen, has_seen) = oneshot::channel();
        let of_task = pool.clone();
        let asking = tokio::spawn(async move {
            let job = move |cancel: Arc<AtomicBool>| {
                let _ = send.send(());
                while !cancel.load(Ordering::Relaxed) {
                    std::thread::yield_now();
                }
                let _ = seen.send(());
            };
            of_task.run(soon(), None, job).await
        });
        receive.await.unwrap();
        asking.abort();
        tokio::time::timeout(Duration::from_secs(20), has_seen).await.unwrap().unwrap();
    }
}
