//! The HTTP API, one file per area.

pub mod admin;
pub mod explain;
pub mod import;
pub mod labels;
pub mod queries;
pub mod query;
pub mod rules;
pub mod selectors;
pub mod status;
pub mod value;

use super::app::{App, Phase};
use super::error::{ApiError, ErrorKind};
use super::http::{edge, encoding};
use super::pool::{PoolError, Weigh};
use super::{metrics, web, write};
use crate::Db;
use axum::Router;
use axum::http::StatusCode;
use axum::middleware::{from_fn_with_state, map_request_with_state};
use axum::response::{IntoResponse, Redirect};
use axum::routing::{get, post};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// All routes. What is asked before the data is open is refused as unavailable, save for pages
/// about the process itself.
pub fn router(app: &Arc<App>) -> Router {
    let v1 = Router::new()
        .route("/api/v1/query", get(query::instant).post(query::instant))
        .route("/api/v1/query_range", get(query::range).post(query::range))
        .route("/api/v1/format_query", get(query::format).post(query::format))
        .route("/api/v1/parse_query", get(query::parse).post(query::parse))
        .route("/api/v1/series", get(labels::series).post(labels::series))
        .route("/api/v1/labels", get(labels::names).post(labels::names))
        .route("/api/v1/label/{name}/values", get(labels::values))
        .route("/api/v1/metadata", get(status::metadata))
        .route("/api/v1/targets", get(status::targets))
        .route("/api/v1/rules", get(rules::rules))
        .route("/api/v1/alerts", get(rules::alerts))
        .route("/api/v1/alertmanagers", get(status::alertmanagers))
        .route("/api/v1/query_exemplars", get(status::empty_list).post(status::empty_list))
        .route("/api/v1/import/openmetrics", post(import::open_metrics))
        .route("/api/v1/status/config", get(status::config))
        .route("/api/v1/status/flags", get(status::flags))
        .route("/api/v1/status/runtimeinfo", get(status::runtime_info))
        .route("/api/v1/status/active_queries", get(queries::active))
        .route("/api/v1/status/top_queries", get(queries::top))
        .route("/api/v1/admin/queries/{id}/cancel", post(queries::cancel).put(queries::cancel))
        .route("/api/v1/status/tsdb", get(status::tsdb))
        .route("/api/v1/status/tsdb/damage", get(status::damage))
        .route("/api/v1/status/tsdb/retention", get(status::retention))
        .route("/api/v1/admin/tsdb/delete_series", post(admin::delete_series).put(admin::delete_series))
        .route(
            "/api/v1/admin/tsdb/clean_tombstones",
            post(admin::clean_tombstones).put(admin::clean_tombstones),
        )
        .route("/api/v1/admin/tsdb/jobs", get(admin::jobs))
        .route("/api/v1/admin/tsdb/jobs/{id}/cancel", post(admin::cancel_job).put(admin::cancel_job))
        .route("/api/v1/admin/tsdb/snapshot", post(admin::snapshot).put(admin::snapshot))
        .route("/api/v1/admin/tsdb/trust_clock", post(admin::trust_clock).put(admin::trust_clock))
        .route("/api/v1/admin/tsdb/flush", post(admin::flush).put(admin::flush))
        .route("/api/v1/admin/tsdb/compact", post(admin::compact).put(admin::compact))
        .route_layer(map_request_with_state(app.clone(), when_ready));
    let process = Router::new()
        .route("/api/v1/write", post(write::write))
        .route("/api/v1/status/buildinfo", get(status::build_info))
        .route("/api/v1/status/memory", get(status::memory))
        .route("/api/v1/status/walreplay", get(status::wal_replay))
        .route("/-/healthy", get(status::healthy))
        .route("/health", get(status::healthy))
        .route("/-/ready", get(status::ready))
        .route("/-/reload", post(admin::reload).put(admin::reload))
        .route("/-/quit", post(admin::quit).put(admin::quit))
        .route("/version", get(status::version))
        .route("/metrics", get(metrics::page));
    let prefix = app.prefix.clone();
    let routes = Router::new().merge(v1).merge(process).merge(web::router(&prefix));
    let routes = if prefix.is_empty() {
        routes
    } else {
        Router::new()
            .nest(&prefix, routes)
            .route("/", get(move || async move { Redirect::temporary(&format!("{prefix}/")) }))
    };
    routes
        .fallback(|| async { edge::text(StatusCode::NOT_FOUND, "404 page not found\n") })
        .layer(from_fn_with_state(app.clone(), encoding::compress))
        .layer(from_fn_with_state(app.clone(), edge::guard))
        .layer(from_fn_with_state(app.clone(), edge::observe))
        .with_state(app.clone())
}

/// Lets a request pass if the data is open.
async fn when_ready<B>(
    axum::extract::State(app): axum::extract::State<Arc<App>>,
    request: axum::http::Request<B>,
) -> Result<axum::http::Request<B>, axum::response::Response> {
    if app.phase() == Phase::Starting {
        return Err(ApiError::new(ErrorKind::Unavailable, "the server is starting").into_response());
    }
    Ok(request)
}

/// Runs `job` on the threads for queries and answers with what it gives.
pub async fn on_query_thread<T: Send + 'static>(
    app: &Arc<App>,
    deadline: Instant,
    job: impl FnOnce(&App, &Db, Arc<AtomicBool>) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    on_query_thread_weighed(app, deadline, None, job).await
}

/// As [`on_query_thread`]; where it has to wait, `weigh` tells how long it will take.
pub async fn on_query_thread_weighed<T: Send + 'static>(
    app: &Arc<App>,
    deadline: Instant,
    weigh: Option<Weigh>,
    job: impl FnOnce(&App, &Db, Arc<AtomicBool>) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let of_job = app.clone();
    let result = app.pool.run(deadline, weigh, move |cancel| {
        let unavailable = || ApiError::new(ErrorKind::Unavailable, "the server is starting");
        job(&of_job, of_job.db().ok_or_else(unavailable)?, cancel)
    });
    match result.await {
        Ok(result) => result,
        Err(PoolError::QueueTimeout) => {
            Err(ApiError::new(ErrorKind::Timeout, "query timed out in query queue"))
        }
        Err(PoolError::QueueFull) => {
            Err(ApiError::new(ErrorKind::Unavailable, "too many queries wait already; try again later"))
        }
        Err(PoolError::Timeout) => {
            Err(ApiError::new(ErrorKind::Timeout, "query timed out in expression evaluation"))
        }
        Err(PoolError::Failed(what)) if app.is_stopping() => Err(ApiError::new(ErrorKind::Unavailable, what)),
        Err(PoolError::Failed(what)) => Err(ApiError::internal(what)),
    }
}
