//! "Here is a batch, keep it. Here are matchers, give me series."
//!
//! Samples live in the head (memory, backed by the WAL) and in partitions (immutable mapped
//! files). See `src/ARCHITECTURE.md` for the rules that every part keeps.

pub mod batch;
mod catalog;
mod compaction;
mod cut;
mod cutter;
pub mod engine;
pub mod error;
mod folder;
mod fs;
mod head;
mod manifest;
pub mod matcher;
mod merge;
mod merger;
pub mod options;
pub mod part;
mod partition;
mod postings;
mod querier;
pub mod regex;
mod retention;
pub mod series_set;
pub mod time;
mod wal;

pub use batch::{Appended, Batch, Refusal, Refused};
pub use engine::{Deleted, Storage, StorageStats};
pub use error::{AppendError, OpenError, ReadError};
pub use matcher::{MatchOp, Matcher};
pub use options::Options;
pub use querier::View;
pub use series_set::{SeriesSet, Source};
pub use time::{TimeRange, Timestamp};
pub use wal::Pending;
