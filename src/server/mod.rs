//! HTTP, files, signals, processes: the edge around [`crate::Db`].

pub mod args;
pub mod config;
pub mod logging;
