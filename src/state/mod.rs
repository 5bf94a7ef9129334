//! "Small facts that change, one durable place."
//!
//! Alert instances, silences, the notification queue, alert history and metric metadata live here,
//! over sled, which nobody else touches. Never a sample.

use std::path::{Path, PathBuf};

/// The state store of one data folder.
#[derive(Clone)]
pub struct State {}

/// The store could not be opened or written.
#[derive(Debug, Clone, thiserror::Error)]
#[error("state store {}: {what}", .path.display())]
pub struct StateError {
    /// Its folder.
    pub path: PathBuf,
    /// What went wrong, and what was done about it.
    pub what: String,
}

/// The name of a group of keys ("tree" in sled's words), e.g. `alerts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bucket(pub &'static str);

/// Changes to one bucket that are committed together.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// Key and new value; `None` removes the key.
    pub entries: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl State {
    /// Opens or creates the store in the folder `path`. A damaged store is set aside and replaced
    /// by its last export, with a warning; opening fails only for causes like permissions.
    pub fn open(path: &Path) -> Result<State, StateError> {
        let _ = path;
        todo!()
    }

    /// The value of `key`.
    pub fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        let _ = (bucket, key);
        todo!()
    }

    /// Every key and value of a bucket whose key begins with `prefix`, sorted by key.
    pub fn scan(&self, bucket: Bucket, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>, StateError> {
        let _ = (bucket, prefix);
        todo!()
    }

    /// Applies the changes together. Afterwards they survive `kill -9`.
    pub fn commit(&self, bucket: Bucket, changes: &Changes) -> Result<(), StateError> {
        let _ = (bucket, changes);
        todo!()
    }
}
