//! "Here is a batch, keep it. Here are matchers, give me series."
//!
//! Samples live in the head (memory, backed by the WAL) and in partitions (immutable mapped
//! files). See `src/ARCHITECTURE.md` for the rules that every part keeps.

pub mod backup;
pub mod batch;
mod catalog;
mod cleanup;
mod compaction;
mod cut;
mod cutter;
pub mod damage;
mod deletion;
pub mod disk;
pub mod engine;
pub mod error;
mod expired;
mod expiry;
#[cfg(test)]
mod faults;
mod folder;
mod fs;
mod gathered;
mod head;
pub mod inspect;
mod jobs;
mod label_sets;
mod maintenance;
mod manifest;
pub mod matcher;
mod memory;
mod merge;
mod merger;
pub mod options;
pub mod part;
mod partition;
pub mod policy;
mod postings;
#[cfg(test)]
pub(crate) mod power_cut;
mod querier;
pub mod regex;
mod retention;
pub mod retention_status;
pub mod schedule;
mod scrub;
pub mod series_set;
mod shown;
mod snapshot;
pub mod stats;
mod surplus;
pub mod time;
pub(crate) mod touched;
pub mod usage;
mod wal;

pub use batch::{Appended, Batch, Refusal, Refused};
pub use damage::{Damage, Loss};
pub use disk::{DiskState, DiskStatus};
pub use engine::{Deleted, Storage};
pub use error::{AppendError, OpenError, ReadError};
#[cfg(feature = "server")]
pub(crate) use fs::map_finished;
pub use jobs::{JobKind, JobState, JobStatus};
pub use label_sets::LabelSets;
pub use matcher::{MatchOp, Matcher};
pub use options::{DiskOptions, MinFree, Options, SizeLimit};
pub use policy::RetentionPolicy;
pub use querier::{Listing, View};
pub use retention_status::{MetricShare, NextDrop, PolicyShare, RetentionShares, RetentionStatus};
pub use schedule::CleanupSchedule;
pub use scrub::ScrubStatus;
pub use series_set::{ReadCost, SeriesSet, Source};
pub use stats::{HeadStatus, StorageStats};
pub use time::{TimeRange, Timestamp};
pub use usage::FolderUse;
pub use wal::Pending;
