//! "Small facts that change, one durable place."
//!
//! Alert instances and the progress of rule groups live here, over sled, which nobody else
//! touches. Never a sample.
//!
//! On disk, below the folder given to [`State::open`]: `store/` (sled's own files), `export` (see
//! [`export`]: what to start from when sled's files are damaged) and `damaged-<n>/` (stores set
//! aside, never deleted by us).

pub mod buckets;
mod export;
mod open;

pub use buckets::Bucket;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Where the export lies in a data folder.
pub const EXPORT_PATH: &str = "state/export";

/// The least time between two exports. An export that takes long waits a hundred times as long
/// instead, so that exporting stays below 1 % of the time.
const EXPORT_EVERY: Duration = Duration::from_secs(60);

/// The key of a bucket's number of commits, see [`Inner::commits`].
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
    db: sled::Db,
    /// How many commits each bucket has seen. The number is stored with every commit, under the
    /// empty key: sled may take damage in the middle of its log for the log's end and open without
    /// what follows, which the number in the export then shows.
    commits: Mutex<HashMap<Bucket, u64>>,
    /// Whether something was committed since the last export.
    dirty: AtomicBool,
    /// When the next export is due. Held while exporting, so that there is one at a time.
    next_export: Mutex<Instant>,
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
    /// by its last export, with a warning in the log; opening fails only for causes like missing
    /// permissions or another process that has the store.
    pub fn open(path: &Path) -> Result<State, StateError> {
        let db = open::open(path)?;
        Ok(State {
            inner: Arc::new(Inner {
                path: path.to_owned(),
                db,
                commits: Mutex::default(),
                dirty: AtomicBool::new(false),
                next_export: Mutex::new(Instant::now() + EXPORT_EVERY),
            }),
        })
    }

    /// The value of `key`.
    pub fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        let value = self.tree(bucket)?.get(key).map_err(|e| self.inner.error("reading", &e))?;
        Ok(value.map(|v| v.to_vec()))
    }

    /// Every key and value of a bucket whose key begins with `prefix`, sorted by key.
    pub fn scan(&self, bucket: Bucket, prefix: &[u8]) -> Result<Vec<Entry>, StateError> {
        self.tree(bucket)?
            .scan_prefix(prefix)
            .filter(|entry| !matches!(entry, Ok((key, _)) if key.is_empty()))
            .map(|entry| match entry {
                Ok((key, value)) => Ok((key.to_vec(), value.to_vec())),
                Err(e) => Err(self.inner.error("reading", &e)),
            })
            .collect()
    }

    /// Applies the changes together. Afterwards they survive `kill -9`; a power cut may take the
    /// last half second, as sled syncs its file that often.
    pub fn commit(&self, bucket: Bucket, changes: &Changes) -> Result<(), StateError> {
        if changes.entries.is_empty() {
            return Ok(());
        }
        let mut batch = sled::Batch::default();
        for (key, value) in &changes.entries {
            debug_assert!(!key.is_empty(), "the empty key is the store's own");
            match value {
                Some(value) => batch.insert(key.as_slice(), value.as_slice()),
                None => batch.remove(key.as_slice()),
            }
        }
        let tree = self.tree(bucket)?;
        let written = {
            let mut commits = self.inner.commits.lock().unwrap_or_else(PoisonError::into_inner);
            let count = match commits.get(&bucket) {
                Some(count) => *count,
                None => commits_of(&tree).map_err(|e| self.inner.error("reading", &e))?,
            } + 1;
            batch.insert(COMMITS, &count.to_le_bytes());
            commits.insert(bucket, count);
            tree.apply_batch(batch)
        };
        written.map_err(|e| self.inner.error("writing", &e))?;
        tree.flush().map_err(|e| self.inner.error("writing", &e))?;
        self.inner.dirty.store(true, Ordering::Release);
        self.inner.export_if_due();
        Ok(())
    }

    /// Everything, as one file that stands for the store in a copy of the data folder: at
    /// [`EXPORT_PATH`], where there is no store yet. Changes that are committed meanwhile may be in it
    /// or not.
    pub fn export(&self) -> Result<Vec<u8>, StateError> {
        export::encode(&self.inner.db).map_err(|e| self.inner.error("reading", &e))
    }

    fn tree(&self, bucket: Bucket) -> Result<sled::Tree, StateError> {
        self.inner.db.open_tree(bucket.0).map_err(|e| self.inner.error("opening a bucket", &e))
    }
}

impl Inner {
    fn error(&self, doing: &str, cause: &sled::Error) -> StateError {
        StateError {
            path: self.path.clone(),
            what: format!("{doing} failed: {cause}; check the disk and restart, which repairs the store"),
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
        if !self.dirty.swap(false, Ordering::AcqRel) {
            return;
        }
        if let Err(e) = export::write(&self.db, &self.path) {
            self.dirty.store(true, Ordering::Release);
            tracing::warn!("state store {}: the export could not be written: {e}", self.path.display());
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _one_at_a_time = self.next_export.lock().unwrap_or_else(PoisonError::into_inner);
        self.export();
    }
}

#[cfg(test)]
mod tests;
