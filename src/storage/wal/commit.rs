//! Group commit: one thread syncs, many appends wait for the same sync.
//!
//! Frames are counted. The thread takes the count and the files that were written since its last
//! sync, syncs them (and the folder, if a file is new), and tells all who wait for a frame up to
//! that count. Appends go on meanwhile. Under [`Maintenance::Stepped`] there is no thread, and the
//! first who waits does the same.

use crate::storage::batch::Appended;
use crate::storage::error::AppendError;
use crate::storage::fs::{Fs, WriteFile};
use crate::storage::options::{Maintenance, WalFsync};
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The longest wait for a sync: a device that takes longer is as good as gone.
const SYNC_DEADLINE: Duration = Duration::from_secs(60);

/// So many files are written before the interval is over; they are kept open, even removed ones, until
/// they are synced.
const DIRTY_MAX: usize = 8;

/// A longer interval is as good as none.
const INTERVAL_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

type Callback = Box<dyn FnOnce(Result<(), String>) + Send>;

/// What was written, what was synced, and who waits.
#[derive(Default)]
struct State {
    written: u64,
    synced: u64,
    /// Files written since the last sync, in order.
    dirty: Vec<Arc<dyn WriteFile>>,
    /// Takes turns with `dirty`, so that an append after a sync need not allocate.
    spare: Vec<Arc<dyn WriteFile>>,
    /// Whether there is a new file since the last sync.
    dirty_folder: bool,
    /// Ascending by frame.
    callbacks: VecDeque<(u64, Callback)>,
    failure: Option<String>,
    closing: bool,
    syncs: u64,
    sync_time: Duration,
}

struct Shared {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    /// Nobody syncs unasked.
    stepped: bool,
    /// Held by who syncs; taken before `state`.
    syncing: Mutex<()>,
    state: Mutex<State>,
    /// Something was written, or it is time to end.
    work: Condvar,
    /// Something was synced, or failed.
    done: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The committing side of a log.
pub(super) struct Commit {
    shared: Arc<Shared>,
    policy: WalFsync,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Commit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Commit").field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// A written frame, perhaps not yet synced.
pub(crate) struct Ticket {
    shared: Arc<Shared>,
    /// Frame to wait for; `None` if the policy does not wait.
    frame: Option<u64>,
}

impl Commit {
    /// Starts the thread that syncs, if there is to be one.
    pub fn start(
        fs: Arc<dyn Fs>,
        dir: &Path,
        policy: WalFsync,
        maintenance: Maintenance,
    ) -> io::Result<Commit> {
        let stepped = maintenance == Maintenance::Stepped;
        let state = State { dirty: Vec::with_capacity(4), spare: Vec::with_capacity(4), ..State::default() };
        let shared = Arc::new(Shared {
            fs,
            dir: dir.to_owned(),
            stepped,
            syncing: Mutex::default(),
            state: Mutex::new(state),
            work: Condvar::new(),
            done: Condvar::new(),
        });
        let thread = match policy {
            WalFsync::Never => None,
            _ if stepped => None,
            WalFsync::Always | WalFsync::Interval(_) => {
                let shared = shared.clone();
                let run = move || sync_until_closed(&shared, policy);
                Some(std::thread::Builder::new().name("larum-wal-sync".to_owned()).spawn(run)?)
            }
        };
        Ok(Commit { shared, policy, thread: Mutex::new(thread) })
    }

    /// Why nothing can be written any more, if so.
    pub fn failure(&self) -> Option<String> {
        self.shared.state().failure.clone()
    }

    /// How many syncs there were, and how long they took together.
    pub fn syncs(&self) -> (u64, Duration) {
        let state = self.shared.state();
        (state.syncs, state.sync_time)
    }

    /// Ends the log because of a failure.
    pub fn fail(&self, why: String) {
        let mut state = self.shared.state();
        state.failure.get_or_insert(why);
        drop(state);
        self.shared.work.notify_all();
        self.shared.done.notify_all();
    }

    /// Notes that a file was made, of which no frame counts as synced before the folder is.
    pub fn made_file(&self) {
        self.shared.state().dirty_folder = true;
    }

    /// Notes that a frame was written to `file`.
    pub fn written(&self, file: &Arc<dyn WriteFile>) -> Ticket {
        let mut state = self.shared.state();
        state.written += 1;
        let is_new = state.dirty.last().is_none_or(|last| !Arc::ptr_eq(last, file));
        if is_new && self.policy != WalFsync::Never {
            state.dirty.push(file.clone());
            // The thread takes all that is dirty each time, so it sleeps only while nothing is.
            self.shared.work.notify_one();
        }
        let frame = (self.policy == WalFsync::Always).then_some(state.written);
        drop(state);
        Ticket { shared: self.shared.clone(), frame }
    }

    /// Syncs what was written, unless a thread does.
    pub fn sync(&self) -> io::Result<()> {
        self.shared.sync_stepped();
        self.failure().map_or(Ok(()), |why| Err(io::Error::other(why)))
    }

    /// Syncs what was written and ends the thread.
    pub fn close(&self) -> io::Result<()> {
        self.shared.state().closing = true;
        self.shared.sync_stepped();
        self.shared.work.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            return Err(io::Error::other("the thread that syncs the write-ahead log panicked"));
        }
        match self.failure() {
            Some(why) => Err(io::Error::other(why)),
            None => Ok(()),
        }
    }
}

fn sync_until_closed(shared: &Shared, policy: WalFsync) {
    let interval = match policy {
        WalFsync::Interval(interval) => interval.min(INTERVAL_MAX),
        _ => Duration::ZERO,
    };
    loop {
        let mut state = shared.state();
        let until = Instant::now() + interval;
        // The last round, after `closing` was set, syncs what is left.
        while !state.closing && state.failure.is_none() {
            let left = until.saturating_duration_since(Instant::now());
            let is_due = left.is_zero() && !state.dirty.is_empty();
            if is_due || state.dirty.len() >= DIRTY_MAX {
                break;
            }
            state = match left {
                Duration::ZERO => shared.work.wait(state).unwrap_or_else(PoisonError::into_inner),
                left => shared.work.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
        let ends = state.closing || state.failure.is_some();
        drop(state);
        shared.sync();
        if ends || shared.state().failure.is_some() {
            return;
        }
    }
}

impl Shared {
    /// Syncs what is dirty, if no thread does and no sync failed.
    fn sync_stepped(&self) {
        if self.stepped && self.state().failure.is_none() {
            self.sync();
        }
    }

    /// Syncs what is dirty, and tells all who wait for it.
    fn sync(&self) {
        // What another thread is syncing is not dirty any more, but not yet synced either.
        let turn = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.state();
        let spare = std::mem::take(&mut state.spare);
        let mut files = std::mem::replace(&mut state.dirty, spare);
        let folder = !files.is_empty() && std::mem::take(&mut state.dirty_folder);
        let written = state.written;
        drop(state);

        let begun = Instant::now();
        let outcome = files.iter().try_for_each(|file| file.sync());
        let outcome = outcome.and_then(|()| if folder { self.fs.sync_dir(&self.dir) } else { Ok(()) });
        let synced_files = files.len() as u64;
        files.clear();

        let mut state = self.state();
        state.syncs += synced_files;
        state.spare = files;
        state.sync_time += begun.elapsed();
        match outcome {
            Ok(()) if state.failure.is_none() => state.synced = written,
            Ok(()) => {}
            Err(e) => {
                state.failure.get_or_insert(format!("sync failed: {e}"));
            }
        }
        let failure = state.failure.clone();
        let synced = if failure.is_some() { u64::MAX } else { state.synced };
        let ready = state.callbacks.partition_point(|(frame, _)| *frame <= synced);
        let callbacks: Vec<(u64, Callback)> = state.callbacks.drain(..ready).collect();
        drop(state);
        // A callback may append and wait.
        drop(turn);
        self.done.notify_all();
        for (_, callback) in callbacks {
            let outcome = failure.clone().map_or(Ok(()), Err);
            // A callback is the caller's code; if it panics, the others still wait for their sync.
            if catch_unwind(AssertUnwindSafe(|| callback(outcome))).is_err() {
                tracing::error!("who was told of a sync of the write-ahead log panicked");
            }
        }
    }
}

impl Ticket {
    fn sync_stepped(&self) {
        if self.frame.is_some() {
            self.shared.sync_stepped();
        }
    }

    /// Whether the frame is as durable as the policy asks, or never will be.
    fn outcome(&self, state: &State) -> Option<Result<(), String>> {
        match (self.frame, &state.failure) {
            (Some(frame), _) if state.synced >= frame => Some(Ok(())),
            (None, _) => Some(Ok(())),
            (Some(_), Some(why)) => Some(Err(why.clone())),
            (Some(_), None) => None,
        }
    }

    fn wait(&self) -> Result<(), String> {
        self.sync_stepped();
        let deadline = Instant::now() + SYNC_DEADLINE;
        let mut state = self.shared.state();
        loop {
            if let Some(outcome) = self.outcome(&state) {
                return outcome;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("a sync takes longer than {} s", SYNC_DEADLINE.as_secs()));
            }
            state = self.shared.done.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// An append that is applied and written, and perhaps not yet synced.
pub struct Pending {
    appended: Appended,
    /// `None` if nothing was written.
    ticket: Option<Ticket>,
}

impl Pending {
    pub(crate) fn new(appended: Appended, ticket: Option<Ticket>) -> Pending {
        Pending { appended, ticket }
    }

    /// Waits until the append is as durable as the fsync policy says, and tells what came of it.
    ///
    /// # Errors
    /// If the sync failed or takes longer than a minute.
    pub fn wait(self) -> Result<Appended, AppendError> {
        let outcome = self.ticket.map_or(Ok(()), |ticket| ticket.wait());
        finish(self.appended, outcome)
    }

    /// Whether waiting would return at once.
    pub fn is_durable(&self) -> bool {
        self.ticket.as_ref().is_none_or(|ticket| ticket.outcome(&ticket.shared.state()).is_some())
    }

    /// Calls `then` once with the outcome: at once if it is durable, else from the thread that syncs.
    pub fn on_durable(self, then: impl FnOnce(Result<Appended, AppendError>) + Send + 'static) {
        let Some(ticket) = self.ticket else { return then(Ok(self.appended)) };
        ticket.sync_stepped();
        let mut state = ticket.shared.state();
        match ticket.outcome(&state) {
            Some(outcome) => {
                drop(state);
                then(finish(self.appended, outcome));
            }
            None => {
                let frame = ticket.frame.unwrap_or(0);
                let at = state.callbacks.partition_point(|(other, _)| *other <= frame);
                let appended = self.appended;
                state.callbacks.insert(at, (frame, Box::new(|outcome| then(finish(appended, outcome)))));
            }
        }
    }
}

fn finish(appended: Appended, outcome: Result<(), String>) -> Result<Appended, AppendError> {
    match outcome {
        Ok(()) => Ok(appended),
        Err(why) => Err(super::wal_failed(why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// A file that is synced when it is told.
    #[derive(Debug)]
    struct Slow {
        told: Mutex<Receiver<()>>,
        /// Tells that a sync begins.
        begins: Option<Sender<()>>,
    }

    impl WriteFile for Slow {
        fn append(&self, _: &[u8]) -> io::Result<()> {
            Ok(())
        }
        fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
            Ok(())
        }
        fn sync(&self) -> io::Result<()> {
            if let Some(begins) = &self.begins {
                begins.send(()).map_err(io::Error::other)?;
            }
            self.told.lock().unwrap().recv().map_err(io::Error::other)
        }
        fn truncate(&self, _: u64) -> io::Result<()> {
            Ok(())
        }
        fn preallocate(&self, _: u64) -> io::Result<()> {
            Ok(())
        }
    }

    /// A file of which it is counted how often it is synced.
    #[derive(Debug)]
    struct Counted(Arc<Mutex<u64>>);

    impl WriteFile for Counted {
        fn append(&self, _: &[u8]) -> io::Result<()> {
            Ok(())
        }
        fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
            Ok(())
        }
        fn sync(&self) -> io::Result<()> {
            *self.0.lock().unwrap() += 1;
            Ok(())
        }
        fn truncate(&self, _: u64) -> io::Result<()> {
            Ok(())
        }
        fn preallocate(&self, _: u64) -> io::Result<()> {
            Ok(())
        }
    }

    fn start(policy: WalFsync, maintenance: Maintenance) -> Commit {
        Commit::start(Arc::new(crate::storage::fs::RealFs), Path::new("."), policy, maintenance).unwrap()
    }

    #[test]
    fn many_segments_are_synced_before_a_long_interval_is_over() {
        let commit = start(WalFsync::Interval(Duration::from_secs(3600)), Maintenance::Thread);
        let synced = Arc::new(Mutex::new(0));
        for _ in 0..20 {
            let file: Arc<dyn WriteFile> = Arc::new(Counted(synced.clone()));
            commit.written(&file);
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while *synced.lock().unwrap() < 8 {
            assert!(Instant::now() < deadline, "{} files are open", commit.shared.state().dirty.len());
            std::thread::yield_now();
        }
        commit.close().unwrap();
        assert_eq!(*synced.lock().unwrap(), 20);
    }

    #[test]
    fn what_is_written_is_synced_at_the_end_of_an_interval_without_end() {
        let commit = start(WalFsync::Interval(Duration::MAX), Maintenance::Thread);
        let synced = Arc::new(Mutex::new(0));
        let file: Arc<dyn WriteFile> = Arc::new(Counted(synced.clone()));
        commit.written(&file);
        commit.close().unwrap();
        assert_eq!(*synced.lock().unwrap(), 1);
    }

    #[test]
    fn who_waits_while_another_thread_syncs_learns_that_the_sync_failed() {
        let commit = start(WalFsync::Always, Maintenance::Stepped);
        let (sync, told) = channel();
        let (begins, begun) = channel();
        let file: Arc<dyn WriteFile> = Arc::new(Slow { told: Mutex::new(told), begins: Some(begins) });
        let (first, second) = (commit.written(&file), commit.written(&file));
        let (outcome, second_outcome) = channel();
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(first.wait().is_err()));
            begun.recv().unwrap();
            scope.spawn(move || outcome.send(second.wait()).unwrap());
            let early = second_outcome.recv_timeout(Duration::from_millis(200));
            drop(sync);
            assert!(early.is_err(), "{early:?} before the sync is over");
            assert!(second_outcome.recv().unwrap().is_err());
        });
    }

    #[test]
    fn a_callback_that_panics_does_not_end_the_syncs() {
        let commit = start(WalFsync::Always, Maintenance::Thread);
        let (sync, told) = channel();
        let file: Arc<dyn WriteFile> = Arc::new(Slow { told: Mutex::new(told), begins: None });
        let append = || {
            let appended = Appended { accepted: 1, refused: Vec::new() };
            Pending::new(appended, Some(commit.written(&file)))
        };
        append().on_durable(|_| panic!("on purpose"));
        sync.send(()).unwrap();
        let next = append();
        sync.send(()).unwrap();
        assert_eq!(next.wait().unwrap().accepted, 1);
        commit.close().unwrap();
    }
}
