//! `GET /metrics`: what the server counts about itself, under Prometheus' names where dashboards
//! and alerts use them, in the text format 0.0.4.

pub mod http;
pub mod process;
mod table;
mod text;

use super::app::App;
use super::deliver::Discovered;
use crate::budget::MemoryStatus;
use crate::notify::NotifierStats;
use crate::promql::ResultCacheStats;
use crate::rules::GroupStatus;
use crate::rules::durations::DurationStats;
use crate::storage::StorageStats;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use process::ProcessStats;
use std::collections::BTreeMap;
use std::sync::Arc;
use text::Samples;

/// The kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
    Summary,
}

/// One metric: its name, what it is, and where its samples come from.
struct Metric {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    samples: fn(&Snapshot<'_>, &mut Samples<'_>),
}

/// Everything that is shown, as it was at one moment.
struct Snapshot<'a> {
    app: &'a App,
    /// `None` before the data is open.
    storage: Option<StorageStats>,
    result_cache: Option<ResultCacheStats>,
    groups: Vec<GroupStatus>,
    /// How long rules and groups took.
    durations: Option<[DurationStats; 2]>,
    notifier: NotifierStats,
    alertmanagers: Discovered,
    routes: BTreeMap<String, http::RouteMetrics>,
    process: Option<ProcessStats>,
    memory: MemoryStatus,
}

/// `GET /metrics`
pub async fn page(State(app): State<Arc<App>>) -> Response {
    let body = render(&app, &[], |_| true);
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, content_type)], body).into_response()
}

/// Whether there is a metric of this name.
#[cfg(test)]
pub fn has(name: &str) -> bool {
    table::METRICS.iter().any(|metric| metric.name == name)
}

/// The metrics whose names are `wanted` as text, each sample with the labels `own` beside those it has.
pub fn render(app: &App, own: &[(&str, &str)], wanted: impl Fn(&str) -> bool) -> String {
    let snapshot = Snapshot {
        app,
        storage: app.db().map(crate::Db::stats),
        result_cache: app.db().map(crate::Db::result_cache),
        groups: app.rules().map(|rules| rules.groups()).unwrap_or_default(),
        durations: app.rules().map(|rules| rules.durations()),
        notifier: app.delivery.notifier.stats(),
        alertmanagers: app.delivery.discovered(),
        routes: app.http.snapshot(),
        process: process::read(),
        memory: app.memory.status(),
    };
    let mut out = String::with_capacity(16 << 10);
    for metric in table::METRICS.iter().filter(|metric| wanted(metric.name)) {
        let mut samples = Samples::new(&mut out, metric, own);
        (metric.samples)(&snapshot, &mut samples);
    }
    out
}
