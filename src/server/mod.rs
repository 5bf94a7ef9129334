//! HTTP, files, signals, processes: the edge around [`crate::Db`].

pub mod api;
pub mod app;
pub mod args;
pub mod backup;
pub mod client;
pub mod config;
pub mod deliver;
pub mod error;
pub mod http;
pub mod import;
pub mod json;
pub mod logging;
pub mod memory;
pub mod metadata;
pub mod metrics;
pub mod pool;
pub mod refusals;
pub mod reload;
pub mod rule_tests;
pub mod run;
pub mod scripts;
pub mod self_monitoring;
pub mod size;
pub mod tsdb;
pub mod web;
pub mod write;
