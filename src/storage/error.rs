//! What can go wrong with storage: one enum for each thing a caller does.

use crate::budget::Refused;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// A data folder could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has the folder.
    #[error("data folder {} is in use by another process{}", .path.display(), .holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Locked {
        /// The folder.
        path: PathBuf,
        /// The process that holds it, if it wrote its id down.
        holder: Option<u32>,
    },
    /// The folder holds Prometheus' own data, which is not touched.
    #[error("{path} holds Prometheus' data; give Larum a folder of its own (--storage.tsdb.path), and bring the data into it by `larum tsdb import prometheus {path} --storage.tsdb.path=FOLDER`", path = .0.display())]
    PrometheusData(PathBuf),
    /// A restore into the folder has not come to its end.
    #[error("{}: a backup was not restored to the end; restore it again (larum restore)", .0.display())]
    Restoring(PathBuf),
    /// Written by another version of the format.
    #[error("{}: format version {found}, this build reads version {supported}", .path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version it states.
        found: u32,
        /// The version this build reads.
        supported: u32,
    },
    /// A file is damaged and nothing can replace it.
    #[error("{}: {what}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the offset.
        what: String,
    },
    /// The operating system refused. Its answer names the file.
    #[error("{source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// Some or all samples of a batch were not kept, for a cause that passes. Send the batch again:
/// what was kept then is a no-op.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{cause}")]
pub struct AppendError {
    /// What is short: disk, memory, backlog; or the batch is too long, or the database is closing.
    pub cause: UnavailableCause,
    /// When it is worth trying again.
    pub retry_after: Duration,
}

impl AppendError {
    /// Whether it is for want of space on the disk.
    pub fn is_disk_full(&self) -> bool {
        matches!(self.cause, UnavailableCause::DiskFull(_))
    }

    pub(crate) fn too_long(why: &dyn std::fmt::Display) -> AppendError {
        AppendError { cause: UnavailableCause::TooLong(why.to_string()), retry_after: Duration::ZERO }
    }
}

/// Why an append cannot be done now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnavailableCause {
    /// No space left on the device.
    #[error("the disk is full: {0}")]
    DiskFull(String),
    /// The WAL could not be written or synced.
    #[error("the write-ahead log failed: {0}")]
    Wal(String),
    /// Cutting and merging lag behind.
    #[error("backlog: {0}")]
    Backlog(String),
    /// The memory budget is used up.
    #[error("out of memory budget: {0}")]
    Memory(String),
    /// The batch is too long for one frame of the WAL; only its parts can be kept.
    #[error("the batch is too long: {0}")]
    TooLong(String),
    /// The database is closed or closing.
    #[error("the database is shutting down")]
    Closing,
}

/// Data could not be read.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Stored bytes are damaged.
    #[error("{file}: damaged at offset {offset}: {what}")]
    Damaged {
        /// The file.
        file: String,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// The caller gave up (deadline or cancellation).
    #[error("canceled")]
    Canceled,
    /// What is to be read takes more memory than there is.
    #[error(transparent)]
    Memory(#[from] Refused),
    /// One series has more samples than the reader has room for.
    #[error("the series has more than {samples} samples in the range")]
    SeriesTooLong {
        /// For how many there is room.
        samples: usize,
    },
}
