//! Larum: an embeddable, Prometheus-compatible time-series database with an alerting engine.
//!
//! `src/ARCHITECTURE.md` is the map of this crate.

#[cfg(not(all(target_pointer_width = "64", target_endian = "little", unix)))]
compile_error!("Larum needs a 64-bit little-endian Unix (Linux or macOS on x86-64 or aarch64)");

/// The examples of the README, as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

pub mod budget;
pub mod db;
pub mod ingest;
pub mod notify;
pub mod promql;
pub mod relabel;
pub mod rules;
#[cfg(feature = "server")]
pub mod server;
pub mod state;
pub mod storage;
pub mod yaml;

pub use db::Db;
pub use larum_storage_format::{CounterResetHint, Histogram, Labels, LabelsBuilder, Sample, SeriesId, Value};
pub use storage::{Appended, Batch, Matcher, Options, Timestamp};
