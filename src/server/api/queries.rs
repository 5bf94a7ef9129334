//! Queries seen from outside: those that run, how to end one, and what those cost that ran.

use super::super::app::App;
use super::super::error::{ApiError, ErrorKind};
use super::super::http::edge;
use super::super::http::listen::Peer;
use super::super::http::params::Params;
use super::super::json;
use super::admin;
use super::status::rfc3339;
use crate::promql::running::origin::bounded;
use crate::promql::running::{ActiveQuery, Caller, Figures, HttpOrigin, Origin, RuleOrigin, TopBy};
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::Arc;

/// The most entries of a list of top queries.
const TOP_MAX: usize = 1000;

/// Where a request came from.
pub fn origin(request: &Request) -> HttpOrigin {
    let header = |name: &str| {
        let value = request.headers().get(name).and_then(|value| value.to_str().ok());
        value.filter(|value| !value.is_empty()).map(bounded)
    };
    HttpOrigin {
        address: peer(request),
        method: request.method().to_string(),
        path: bounded(request.uri().path()),
        dashboard: header("x-dashboard-uid"),
        panel: header("x-panel-id"),
        org: header("x-grafana-org-id"),
        user_agent: header("user-agent"),
    }
}

fn peer(request: &Request) -> Option<IpAddr> {
    request.extensions().get::<Peer>().map(|Peer(address)| address.ip())
}

/// `GET /api/v1/status/active_queries`: the queries that wait or run, the oldest first.
pub async fn active(State(app): State<Arc<App>>) -> Response {
    let queries: Vec<Value> = app.queries.active().iter().map(active_in_json).collect();
    json::success(|out| json::serialized(out, &queries))
}

fn active_in_json(query: &ActiveQuery) -> Value {
    let steps = &query.steps;
    let seconds = |t_ms: i64| t_ms as f64 / 1000.0;
    let state = match (&query.canceled, query.waits) {
        (Some(_), _) => "canceled",
        (None, true) => "waiting",
        (None, false) => "running",
    };
    json!({
        "id": query.id,
        "query": query.text,
        "kind": if steps.step_ms() > 0 { "range" } else { "instant" },
        "start": seconds(steps.start_ms()),
        "end": seconds(steps.end_ms()),
        "step": seconds(steps.step_ms()),
        "state": state,
        "canceledBy": query.canceled,
        "origin": origin_in_json(&query.origin),
        "since": rfc3339(query.since.as_millis()),
        "elapsedSeconds": query.elapsed.as_secs_f64(),
        "series": query.series,
        "samples": query.samples,
        "memoryBytes": query.memory_bytes,
    })
}

fn origin_in_json(origin: &Origin) -> Value {
    match origin {
        Origin::Rule(rule) => rule_in_json(rule),
        Origin::Http(HttpOrigin { address, method, path, dashboard, panel, org, user_agent }) => json!({
            "type": if dashboard.is_some() { "dashboard" } else { "client" },
            "address": address.map(|address| address.to_string()),
            "method": method,
            "path": path,
            "dashboardUid": dashboard,
            "panelId": panel,
            "orgId": org,
            "userAgent": user_agent,
        }),
    }
}

fn rule_in_json(RuleOrigin { file, group, rule }: &RuleOrigin) -> Value {
    json!({ "type": "rule", "file": file, "group": group, "rule": rule })
}

/// `POST,PUT /api/v1/admin/queries/{id}/cancel`: the query ends soon, with an error that says by whom.
pub async fn cancel(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    admin::enabled(&app)?;
    let id: u64 = id.parse().map_err(|_| ApiError::bad_data(format!("{id:?} is no number of a query")))?;
    let from = peer(&request).map_or_else(String::new, |address| format!(" at {address}"));
    if !app.queries.cancel(id, &format!("by an operator{from} (/api/v1/admin/queries/{id}/cancel)")) {
        return Err(ApiError::new(ErrorKind::NotFound, format!("no query {id} waits or runs")));
    }
    tracing::info!("query {id} was canceled by an operator{from}");
    Ok(edge::text(StatusCode::NO_CONTENT, ""))
}

/// `GET /api/v1/status/top_queries`: what queries cost since the start, by their text and by who asks;
/// `sort` is by `time`, `count`, `samples` or `memory`.
pub async fn top(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let params = Params::read(request, &app).await?;
    let limit = params.limit()?.unwrap_or(20).min(TOP_MAX);
    let by = match params.get("sort") {
        None | Some("time") => TopBy::Time,
        Some("count") => TopBy::Count,
        Some("samples") => TopBy::Samples,
        Some("memory") => TopBy::Memory,
        Some(other) => {
            let why = format!("{other:?} is none of time, count, samples, memory");
            return Err(ApiError::parameter("sort", why));
        }
    };
    let queries = app.queries.top_queries(by, limit).into_iter();
    let queries: Vec<Value> =
        queries.map(|(text, figures)| with_figures("query", json!(text), &figures)).collect();
    let origins = app.queries.top_callers(by, limit).into_iter();
    let origins: Vec<Value> =
        origins.map(|(caller, figures)| with_figures("origin", caller_in_json(&caller), &figures)).collect();
    let data = json!({
        "since": rfc3339(app.started.as_millis()),
        "byQuery": queries,
        "byOrigin": origins,
    });
    Ok(json::success(|out| json::serialized(out, &data)))
}

fn caller_in_json(caller: &Caller) -> Value {
    match caller {
        Caller::Rule(rule) => rule_in_json(rule),
        Caller::Dashboard { org, dashboard, panel } => {
            json!({ "type": "dashboard", "orgId": org, "dashboardUid": dashboard, "panelId": panel })
        }
        Caller::Client { address, user_agent } => {
            let address = address.map(|address| address.to_string());
            json!({ "type": "client", "address": address, "userAgent": user_agent })
        }
    }
}

fn with_figures(name: &str, of: Value, figures: &Figures) -> Value {
    json!({
        name: of,
        "count": figures.count,
        "errors": figures.errors,
        "totalSeconds": figures.total.as_secs_f64(),
        "maxSeconds": figures.max.as_secs_f64(),
        "samples": figures.samples,
        "peakMemoryBytes": figures.peak_bytes,
        "lastSeen": rfc3339(figures.last.as_millis()),
    })
}
