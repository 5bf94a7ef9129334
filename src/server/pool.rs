//! The threads that queries run on, apart from those that serve connections.
//!
//! Their number is bounded; what finds none free waits, for as long as its own deadline. Whoever
//! asked and went away leaves a flag behind that ends the work.

use super::http::edge::panic_text;
use std::collections::VecDeque;
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
    /// It ran far beyond its deadline.
    Timeout,
    /// It panicked, or the pool has stopped.
    Failed(String),
}

/// A pool of threads, started as they are needed.
pub struct QueryPool {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    max_threads: usize,
    running: AtomicU64,
    queued_micros: AtomicU64,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    stopped: bool,
}

struct Job {
    deadline: Instant,
    cancel: Arc<AtomicBool>,
    queued: Instant,
    run: Box<dyn FnOnce() + Send>,
}

/// Sets the flag when the one who asked goes away.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl QueryPool {
    /// A pool of at most `max_threads` threads.
    pub fn new(max_threads: usize) -> QueryPool {
        QueryPool {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                wake: Condvar::new(),
                max_threads: max_threads.max(1),
                running: AtomicU64::new(0),
                queued_micros: AtomicU64::new(0),
            }),
        }
    }

    /// Runs `job` on a thread of the pool. The job gets a flag that is set when nobody waits for
    /// its result any more.
    pub async fn run<T: Send + 'static>(
        &self,
        deadline: Instant,
        job: impl FnOnce(Arc<AtomicBool>) -> T + Send + 'static,
    ) -> Result<T, PoolError> {
        let cancel = Arc::new(AtomicBool::new(false));
        let _cancel_on_drop = CancelOnDrop(cancel.clone());
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
        self.shared.push(Job { deadline, cancel, queued: Instant::now(), run })?;
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

    /// How long all jobs so far have waited for a thread.
    pub fn queued_total(&self) -> Duration {
        Duration::from_micros(self.shared.queued_micros.load(Ordering::Relaxed))
    }

    /// How many jobs may run at a time.
    pub fn max_threads(&self) -> usize {
        self.shared.max_threads
    }

    /// Drops what waits and lets the threads end.
    pub fn stop(&self) {
        let mut state = self.shared.lock();
        state.stopped = true;
        state.jobs.clear();
        self.shared.wake.notify_all();
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

    fn push(self: &Arc<Shared>, job: Job) -> Result<(), PoolError> {
        let mut state = self.lock();
        if state.stopped {
            return Err(PoolError::Failed("the server is shutting down".to_owned()));
        }
        // What nobody waits for any more makes room.
        let now = Instant::now();
        state.jobs.retain(|job| job.deadline > now && !job.cancel.load(Ordering::Relaxed));
        state.jobs.push_back(job);
        if state.idle < state.jobs.len() && state.threads < self.max_threads {
            let shared = self.clone();
            match std::thread::Builder::new().name("larum-query".to_owned()).spawn(move || shared.work()) {
                Ok(_) => state.threads += 1,
                Err(error) if state.threads == 0 => {
                    state.jobs.pop_back();
                    return Err(PoolError::Failed(format!("no thread for queries: {error}")));
                }
                Err(_) => {}
            }
        }
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                if Instant::now() < job.deadline && !job.cancel.load(Ordering::Relaxed) {
                    let waited = u64::try_from(job.queued.elapsed().as_micros()).unwrap_or(u64::MAX);
                    self.queued_micros.fetch_add(waited, Ordering::Relaxed);
                    self.running.fetch_add(1, Ordering::Relaxed);
                    (job.run)();
                    self.running.fetch_sub(1, Ordering::Relaxed);
                }
                state = self.lock();
                continue;
            }
            if state.stopped {
                state.threads -= 1;
                return;
            }
            state.idle += 1;
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[tokio::test]
    async fn jobs_run_and_panics_stay_inside() {
        let pool = QueryPool::new(2);
        assert_eq!(pool.run(soon(), |_| 7).await, Ok(7));
        let failed = pool.run(soon(), |_| panic!("broken")).await.map(|()| 0);
        assert!(matches!(failed, Err(PoolError::Failed(text)) if text.ends_with("broken")));
        assert_eq!(pool.run(soon(), |_| 8).await, Ok(8));
    }

    #[tokio::test]
    async fn a_job_that_finds_no_thread_gives_up_at_its_deadline() {
        let pool = Arc::new(QueryPool::new(1));
        let (release, held) = mpsc::channel::<()>();
        let (begun, has_begun) = oneshot::channel();
        let of_task = pool.clone();
        let holder = tokio::spawn(async move {
            let job = move |_| {
                let _ = begun.send(());
                let _ = held.recv();
            };
            of_task.run(soon(), job).await
        });
        has_begun.await.unwrap();
        let deadline = Instant::now() + Duration::from_millis(20);
        // Nothing else happens until then: no further job, and the thread stays taken.
        assert_eq!(pool.run(deadline, |_| ()).await, Err(PoolError::QueueTimeout));
        let next = pool.run(soon(), |_| 9);
        release.send(()).unwrap();
        assert_eq!(next.await, Ok(9));
        assert_eq!(holder.await.unwrap(), Ok(()));
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
            of_task.run(soon(), job).await
        });
        receive.await.unwrap();
        asking.abort();
        tokio::time::timeout(Duration::from_secs(20), has_seen).await.unwrap().unwrap();
    }
}
