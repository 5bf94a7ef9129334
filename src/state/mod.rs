//! "Small facts that change, one durable place."
//!
//! Alert instances and the progress of rule groups live here, over sled, which nobody else
//! touches. Never a sample.
//!
//! Where sled cannot be written, as on a full disk, all that the store holds is kept in memory, and
//! written when that is possible again: with a later commit, or at the end.
//!
//! On disk, below the folder given to [`State::open`]: `store/` (sled's own files), `export` (see
//! [`export`]: what to start from when sled's files are damaged) and `damaged-<n>/` (stores set
//! aside, never deleted by us).

pub mod buckets;
mod export;
mod image;
mod open;

pub use buckets::Bucket;

use image::Image;
use open::NotOpened;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// Where the export lies in a data folder.
pub const EXPORT_PATH: &str = "state/export";

/// The least time between two exports. An export that takes long waits a hundred times as long
/// instead, so that exporting stays below 1 % of the time.
const EXPORT_EVERY: Duration = Duration::from_secs(60);

/// While sled cannot be written, it is opened again at most this often, and so that it takes no more
/// than a tenth of the time.
const RETRY_EVERY: Duration = Duration::from_secs(5);

/// So long a flush is waited for until another thread is sent after it, and so often.
const FLUSH_WAIT: Duration = Duration::from_secs(5);
const FLUSH_WAITS: usize = 12;

/// The key of a bucket's number of commits: sled may take damage in the middle of its log for the
/// log's end and open without what follows, which the number in the export then shows.
const COMMITS: &[u8] = b"";

/// How many commits a bucket has seen, by what it stores.
fn commits_of(tree: &sled::Tree) -> Result<u64, sled::Error> {
    let stored = tree.get(COMMITS)?;
    Ok(stored.and_then(|bytes| Some(u64::from_le_bytes(bytes.as_ref().try_into().ok()?))).unwrap_or(0))
}

/// The state store of one data folder. Cloning is cheap and shares it; it closes, writing its
/// export, when the last clone is dropped.
#[derive(Clone)]
pub struct State {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    store: Mutex<Store>,
    /// Whether something was committed since the last export.
    dirty: AtomicBool,
    /// When the next export is due. Held while exporting, so that there is one at a time.
    next_export: Mutex<Instant>,
}

/// Where the facts are.
enum Store {
    Sled(sled::Db),
    /// sled cannot be written. It is opened again at `retry_at`.
    Memory {
        image: Image,
        retry_at: Instant,
    },
}

/// The store could not be opened, read or written.
#[derive(Debug, Clone, thiserror::Error)]
#[error("state store {}: {what}", .path.display())]
pub struct StateError {
    /// Its folder.
    pub path: PathBuf,
    /// What went wrong, and what to do about it.
    pub what: String,
}

/// Changes to one bucket that are committed together.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// Key (not empty) and new value; `None` removes the key. Of several entries with one key the last counts.
    pub entries: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// A key and its value.
pub type Entry = (Vec<u8>, Vec<u8>);

impl State {
    /// Opens or creates the store in the folder `path`. A damaged store is set aside and replaced
    /// by its last export, with a warning in the log. If the disk is so full that sled does not open,
    /// all is read from a copy, and kept in memory until there is space. Opening fails only for
    /// causes like missing permissions or another process that has the store.
    pub fn open(path: &Path) -> Result<State, StateError> {
        let store = match open::open(path) {
            Ok(db) => Store::Sled(db),
            Err(NotOpened::Refused(error)) => return Err(error),
            Err(NotOpened::Full(error)) => {
                tracing::error!("{error}; what it holds is kept in memory, and written when there is space");
                let image = open::read_elsewhere(path);
                Store::Memory { image, retry_at: Instant::now() + RETRY_EVERY }
            }
        };
        Ok(State {
            inner: Arc::new(Inner {
                path: path.to_owned(),
                store: Mutex::new(store),
                dirty: AtomicBool::new(false),
                next_export: Mutex::new(Instant::now() + EXPORT_EVERY),
            }),
        })
    }

    /// The value of `key`.
    pub fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        let db = match &*self.inner.store() {
            Store::Sled(db) => db.clone(),
            Store::Memory { image, .. } => return Ok(image.get(bucket.0, key).cloned()),
        };
        let value = guarded(|| db.open_tree(bucket.0)?.get(key));
        Ok(value.map_err(|e| self.inner.error(&format!("reading failed: {e}")))?.map(|value| value.to_vec()))
    }

    /// Every key and value of a bucket whose key begins with `prefix`, sorted by key.
    pub fn scan(&self, bucket: Bucket, prefix: &[u8]) -> Result<Vec<Entry>, StateError> {
        let db = match &*self.inner.store() {
            Store::Sled(db) => db.clone(),
            Store::Memory { image, .. } => {
                let entries = image.scan(bucket.0, prefix);
                return Ok(entries.map(|(key, value)| (key.clone(), value.clone())).collect());
            }
        };
        let scan = || {
            let tree = db.open_tree(bucket.0)?;
            let entries = tree.scan_prefix(prefix).map(|entry| entry.map(|(k, v)| (k.to_vec(), v.to_vec())));
            entries.filter(|entry| !matches!(entry, Ok((key, _)) if key == COMMITS)).collect()
        };
        guarded(scan).map_err(|e| self.inner.error(&format!("reading failed: {e}")))
    }

    /// Applies the changes together. Afterwards they survive `kill -9`; a power cut may take the
    /// last half second, as sled syncs its file that often.
    ///
    /// # Errors
    /// The changes are in memory only. Reads see them, and they are written with a later commit. The log
    /// tells of the first and of the end of it.
    pub fn commit(&self, bucket: Bucket, changes: &Changes) -> Result<(), StateError> {
        if changes.entries.is_empty() {
            return Ok(());
        }
        debug_assert!(
            changes.entries.iter().all(|(key, _)| !key.is_empty()),
            "the empty key is the store's own"
        );
        let kept = {
            let mut store = self.inner.store();
            self.inner.write_again(&mut store);
            self.inner.commit(&mut store, bucket, changes)
        };
        if kept {
            self.inner.dirty.store(true, Ordering::Release);
            self.inner.export_if_due();
            return Ok(());
        }
        Err(self.inner.error("it cannot be written; what changed is kept in memory until it can"))
    }

    /// Everything, as one file that stands for the store in a copy of the data folder: at
    /// [`EXPORT_PATH`], where there is no store yet. Changes that are committed meanwhile may be in it
    /// or not.
    pub fn export(&self) -> Result<Vec<u8>, StateError> {
        let db = match &*self.inner.store() {
            Store::Sled(db) => db.clone(),
            Store::Memory { image, .. } => return Ok(image.export()),
        };
        guarded(|| export::encode(&db)).map_err(|e| self.inner.error(&format!("reading failed: {e}")))
    }
}

impl Inner {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, what: &str) -> StateError {
        StateError { path: self.path.clone(), what: what.to_owned() }
    }

    /// Commits, and tells whether it is in sled. If sled fails, all goes on in memory: after an error
    /// sled takes nothing any more until it is opened again.
    fn commit(&self, store: &mut Store, bucket: Bucket, changes: &Changes) -> bool {
        let failed = match store {
            Store::Memory { image, .. } => {
                image.commit(bucket.0, changes);
                return false;
            }
            Store::Sled(db) => match guarded(|| commit_to(db, bucket, changes)) {
                Ok(()) => return true,
                Err(e) => e,
            },
        };
        tracing::error!(
            "state store {}: it cannot be written ({failed}); alerts and metadata are kept in memory until it can",
            self.path.display()
        );
        let memory = Store::Memory { image: Image::default(), retry_at: Instant::now() + RETRY_EVERY };
        let Store::Sled(db) = std::mem::replace(store, memory) else { return false };
        // What was committed before is in sled's memory or on the device, which can be read.
        let read = guarded(|| Image::of_sled(&db)).unwrap_or_else(|e| {
            tracing::error!("state store {}: reading failed too: {e}", self.path.display());
            open::read_export(&self.path).map_or_else(Image::default, |export| Image::of_export(&export))
        });
        let_go(db);
        if let Store::Memory { image, .. } = store {
            *image = read;
            image.commit(bucket.0, changes);
        }
        false
    }

    /// Opens sled again, if it could not be written and that is due, and writes what is in memory.
    fn write_again(&self, store: &mut Store) {
        let Store::Memory { image, retry_at } = store else { return };
        let started = Instant::now();
        if started < *retry_at {
            return;
        }
        let opened = open::open(&self.path).map_err(|not_opened| not_opened.error().to_string());
        let written = opened.and_then(|db| match guarded(|| image.write_to(&db)) {
            Ok(changed) => Ok((db, changed)),
            Err(e) => {
                let_go(db);
                Err(e.to_string())
            }
        });
        match written {
            Ok((db, changed)) => {
                tracing::warn!(
                    "state store {}: it is written again, with {changed} entries that were kept in memory",
                    self.path.display()
                );
                *store = Store::Sled(db);
                self.dirty.store(true, Ordering::Release);
            }
            Err(what) => {
                tracing::debug!("state store {}: still in memory: {what}", self.path.display());
                *retry_at = Instant::now() + RETRY_EVERY.max(started.elapsed() * 10);
            }
        }
    }

    /// Exports unless that was done lately or is being done. Whoever commits pays for it now and
    /// then, which spares a thread.
    fn export_if_due(&self) {
        let Ok(mut next) = self.next_export.try_lock() else { return };
        let started = Instant::now();
        if started >= *next {
            self.export();
            *next = started + EXPORT_EVERY.max(started.elapsed() * 100);
        }
    }

    fn export(&self) {
        let db = match &*self.store() {
            Store::Sled(db) => db.clone(),
            Store::Memory { .. } => return,
        };
        if !self.dirty.swap(false, Ordering::AcqRel) {
            return;
        }
        if let Err(e) = export::write(&db, &self.path) {
            self.dirty.store(true, Ordering::Release);
            tracing::warn!("state store {}: the export could not be written: {e}", self.path.display());
        }
    }
}

/// Commits to sled.
fn commit_to(db: &sled::Db, bucket: Bucket, changes: &Changes) -> Result<(), sled::Error> {
    let mut batch = sled::Batch::default();
    for (key, value) in &changes.entries {
        match value {
            Some(value) => batch.insert(key.as_slice(), value.as_slice()),
            None => batch.remove(key.as_slice()),
        }
    }
    let tree = db.open_tree(bucket.0)?;
    batch.insert(COMMITS, &(commits_of(&tree)? + 1).to_le_bytes());
    tree.apply_batch(batch)?;
    flush(&tree)
}

/// Waits until what was committed is written. sled forgets to wake who waits when some of its writes
/// fail; who comes later finds the failure and wakes all, so somebody is sent now and then.
fn flush(tree: &sled::Tree) -> Result<(), sled::Error> {
    for _ in 0..FLUSH_WAITS {
        let mut flushed = pin!(tree.flush_async());
        let waker = Arc::new(Unpark(thread::current())).into();
        let until = Instant::now() + FLUSH_WAIT;
        while Instant::now() < until {
            if let Poll::Ready(outcome) = flushed.as_mut().poll(&mut Context::from_waker(&waker)) {
                return outcome.map(drop);
            }
            thread::park_timeout(until.saturating_duration_since(Instant::now()));
        }
    }
    let time = FLUSH_WAIT * FLUSH_WAITS as u32;
    Err(sled::Error::Io(std::io::Error::other(format!("a write takes longer than {time:?}"))))
}

/// Wakes a thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Does something with sled, whose panics are errors. Handles must live outside: sled must not be
/// dropped while unwinding.
fn guarded<T>(work: impl FnOnce() -> Result<T, sled::Error>) -> Result<T, sled::Error> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(sled::Error::ReportableBug(format!("sled panicked: {text}")))
    })
}

/// Closes sled, which panics where its last sync fails.
fn let_go(db: sled::Db) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(db)));
}

impl Drop for Inner {
    fn drop(&mut self) {
        {
            let mut store = self.store();
            if let Store::Memory { retry_at, .. } = &mut *store {
                *retry_at = Instant::now();
            }
            self.write_again(&mut store);
            if let Store::Memory { .. } = &*store {
                tracing::error!(
                    "state store {}: what changed since it could not be written is lost: alerts start as they were then",
                    self.path.display()
                );
            }
        }
        let _one_at_a_time = self.next_export.lock().unwrap_or_else(PoisonError::into_inner);
        self.export();
    }
}

#[cfg(test)]
mod tests;
