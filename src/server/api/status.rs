//! What the server says about itself.

use super::super::app::{App, Phase, host_name};
use super::super::args::VERSION;
use super::super::error::ApiError;
use super::super::http::edge;
use super::super::http::params::Params;
use super::super::json;
use super::super::size::format_bytes;
use crate::budget::{MemoryStatus, Part};
use crate::promql::duration::format_duration;
use crate::storage::{CleanupSchedule, Damage, DiskStatus, RetentionShares, RetentionStatus, SizeLimit};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The version of Prometheus whose API this is; clients choose what they ask by it.
pub const API_VERSION: &str = "3.14.0";

/// `GET /-/healthy`, `GET /health`
pub async fn healthy() -> Response {
    edge::text(StatusCode::OK, "Larum is Healthy.\n")
}

/// `GET,HEAD /-/ready`
pub async fn ready(State(app): State<Arc<App>>) -> Response {
    match app.phase() {
        Phase::Ready => edge::text(StatusCode::OK, "Larum is Ready.\n"),
        Phase::Starting => edge::text(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable: starting\n"),
        Phase::Stopping => edge::text(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable: stopping\n"),
    }
}

/// `GET /version`
pub async fn version() -> Response {
    let mut body = Vec::new();
    json::serialized(&mut body, &build());
    json::response(body)
}

/// `GET /api/v1/status/buildinfo`
pub async fn build_info() -> Response {
    json::success(|out| json::serialized(out, &build()))
}

fn build() -> Value {
    json!({
        "version": API_VERSION,
        "revision": format!("larum-{VERSION}"),
        "branch": "",
        "buildUser": "",
        "buildDate": "",
        "goVersion": "",
        "larumVersion": VERSION,
    })
}

/// `GET /api/v1/status/runtimeinfo`
pub async fn runtime_info(State(app): State<Arc<App>>) -> Response {
    let loaded = app.config();
    let info = json!({
        "startTime": rfc3339(app.started.as_millis()),
        "CWD": std::env::current_dir().map_or(String::new(), |dir| dir.display().to_string()),
        "hostname": host_name(),
        "serverTime": jiff::Timestamp::now().to_string(),
        "reloadConfigSuccess": loaded.successful,
        "lastConfigTime": rfc3339(loaded.at.as_millis()),
        "corruptionCount": app.db().map_or(0, |db| db.stats().damaged_files),
        "goroutineCount": 0,
        "GOMAXPROCS": std::thread::available_parallelism().map_or(1, usize::from),
        "GOMEMLIMIT": app.memory.limit_bytes().unwrap_or(0),
        "GOGC": "",
        "GODEBUG": "",
        "storageRetention": retention_text(app.retention(), app.size_limit()),
    });
    json::success(|out| json::serialized(out, &info))
}

/// What is kept, as Prometheus says it: `15d or 10GiB`.
fn retention_text(time: Option<Duration>, limit: SizeLimit) -> String {
    let time = time.map(|time| format_duration(i64::try_from(time.as_millis()).unwrap_or(i64::MAX)));
    let size = match limit {
        SizeLimit { percentage: Some(percentage), .. } => Some(format!("{percentage}%")),
        SizeLimit { bytes, .. } => bytes.map(format_bytes),
    };
    match (time, size) {
        (None, None) => "0s".to_owned(),
        (time, size) => time.into_iter().chain(size).collect::<Vec<_>>().join(" or "),
    }
}

/// A time as the API prints it.
pub fn rfc3339(t_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(t_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

/// `GET /api/v1/status/config`
pub async fn config(State(app): State<Arc<App>>) -> Response {
    let config = app.config().config;
    json::success(|out| json::serialized(out, &json!({ "yaml": config.shown })))
}

/// `GET /api/v1/status/flags`
pub async fn flags(State(app): State<Arc<App>>) -> Response {
    let flags: BTreeMap<&String, &String> = app.args.shown.iter().map(|(n, v)| (n, v)).collect();
    json::success(|out| json::serialized(out, &json!(flags)))
}

/// `GET /api/v1/status/walreplay`: answered before the data is open, too.
pub async fn wal_replay(State(app): State<Arc<App>>) -> Response {
    let state = if app.phase() == Phase::Starting { "in progress" } else { "done" };
    let status = json!({
        "min": 0, "max": 0, "current": 0, "state": state,
        "read": 0, "total": 0, "progress": if state == "done" { 100 } else { 0 },
    });
    json::success(|out| json::serialized(out, &status))
}

/// `GET /api/v1/status/memory`: the limit, what it is compared with, and who takes it.
pub async fn memory(State(app): State<Arc<App>>) -> Response {
    let status = app.memory.status();
    let by_part = |of: fn(&MemoryStatus, Part) -> u64| -> BTreeMap<&str, u64> {
        Part::ALL.map(|part| (part.name(), of(&status, part))).into_iter().collect()
    };
    let data = json!({
        "limitBytes": status.limit_bytes,
        "heldBytes": status.held_bytes,
        "residentBytes": status.resident_bytes,
        "rulesShareBytes": status.rules_share_bytes,
        "pressure": status.pressure.level(),
        "pressureText": status.pressure.text(),
        "reservedBytes": by_part(MemoryStatus::reserved),
        "refused": by_part(MemoryStatus::refused),
        "roomForQueryBytes": status.limit_bytes.map(|_| app.memory.room(Part::Queries, 0)),
    });
    json::success(|out| json::serialized(out, &data))
}

/// `GET /api/v1/status/tsdb`
pub async fn tsdb(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let params = Params::read(request, &app).await?;
    let limit = params.limit()?.unwrap_or(10).min(10_000);
    let deadline = std::time::Instant::now() + app.args.query_timeout;
    let data = super::on_query_thread(&app, deadline, move |_, db, _| {
        let (stats, status) = (db.stats(), db.status(limit));
        let (min_ms, max_ms) = stats.head_range_ms.unwrap_or((0, 0));
        let list = |entries: Vec<(String, u64)>| -> Vec<Value> {
            entries.into_iter().map(|(name, value)| json!({ "name": name, "value": value })).collect()
        };
        Ok(json!({
            "headStats": {
                "numSeries": status.series,
                "numLabelPairs": status.label_pairs,
                "chunkCount": 0,
                "minTime": min_ms,
                "maxTime": max_ms,
            },
            "seriesCountByMetricName": list(status.series_by_metric),
            "labelValueCountByLabelName": list(status.values_by_name),
            "memoryInBytesByLabelName": list(status.value_bytes_by_name),
            "seriesCountByLabelValuePair": list(status.series_by_pair),
        }))
    });
    let data = data.await?;
    Ok(json::success(|out| json::serialized(out, &data)))
}

/// `GET /api/v1/status/tsdb/damage`: what is known to be damaged, and how far the search for it is.
pub async fn damage(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let deadline = std::time::Instant::now() + app.args.query_timeout;
    let data = super::on_query_thread(&app, deadline, |_, db, _| {
        let (scrub, stats) = (db.scrub_status(), db.stats());
        Ok(json!({
            "damagedFiles": stats.damaged_files,
            "missingPartitions": stats.missing_partitions,
            "quarantineBytes": stats.usage.quarantine,
            "scrub": {
                "intervalSeconds": scrub.interval.map_or(0.0, |interval| interval.as_secs_f64()),
                "readBytes": stats.scrubbed_bytes,
                "partition": scrub.partition,
                "lastRound": scrub.round_ended_ms.map(rfc3339),
            },
            "damaged": db.damage().iter().map(damage_json).collect::<Vec<Value>>(),
        }))
    });
    let data = data.await?;
    Ok(json::success(|out| json::serialized(out, &data)))
}

fn damage_json(damage: &Damage) -> Value {
    let Damage { path, offset, bytes, what, loss, .. } = damage;
    json!({
        "file": path.display().to_string(),
        "offset": offset,
        "bytes": bytes,
        "error": what,
        "costs": loss.what,
        "series": loss.series,
        "firstSeries": loss.named,
        "samples": loss.samples,
        "minTime": loss.range.map(|range| range.min_ms),
        "maxTime": loss.range.map(|range| range.max_ms),
    })
}

/// `GET /api/v1/status/tsdb/retention`: what the data folder takes and may take, by policies and by the
/// `limit` metrics that take most, and what goes next.
pub async fn retention(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let params = Params::read(request, &app).await?;
    let limit = params.limit()?.unwrap_or(10).min(10_000);
    let now = std::time::Instant::now();
    let deadline = now + app.args.query_timeout;
    // The first time, the index of every partition is read.
    let look_until = now + app.args.query_timeout / 2;
    let schedule = app.cleanup_schedule();
    let data = super::on_query_thread(&app, deadline, move |_, db, _| {
        let shares =
            db.retention_shares(limit, look_until).map_err(|error| ApiError::internal(error.to_string()))?;
        let status =
            db.retention_status(look_until).map_err(|error| ApiError::internal(error.to_string()))?;
        let mut data = retention_json(&status, &shares, schedule.as_ref());
        data["disk"] = disk_json(&db.stats().disk);
        Ok(data)
    });
    let data = data.await?;
    Ok(json::success(|out| json::serialized(out, &data)))
}

fn retention_json(
    status: &RetentionStatus,
    shares: &RetentionShares,
    schedule: Option<&CleanupSchedule>,
) -> Value {
    let parts: BTreeMap<&str, u64> = status.usage.parts().into_iter().collect();
    let next = [
        ("time", status.next_by_time),
        ("rewriting", status.next_by_rewriting),
        ("size", status.next_by_size),
    ];
    let next = next.into_iter().filter_map(|(by, next)| {
        let next = next?;
        Some(json!({
            "by": by,
            "at": next.at_ms.map(rfc3339),
            "partitions": next.partitions,
            "bytes": next.bytes,
            "minTime": next.range_ms.0,
            "maxTime": next.range_ms.1,
        }))
    });
    let policies = shares.policies.iter().map(|policy| {
        json!({
            "match": policy.selector,
            "keepSeconds": policy.keep.map(|keep| keep.as_secs_f64()),
            "bytesNow": policy.bytes,
            "bytesAfter": policy.bytes_after,
        })
    });
    let metrics = shares.metrics.iter().map(
        |metric| json!({ "name": metric.name, "bytesNow": metric.bytes, "bytesAfter": metric.bytes_after }),
    );
    json!({
        "policies": policies.collect::<Vec<Value>>(),
        "metrics": metrics.collect::<Vec<Value>>(),
        "uncountedPartitions": shares.uncounted_partitions,
        "cleanupSchedule": schedule.map(ToString::to_string),
        "nextCleanup": status.next_cleanup_ms.map(rfc3339),
        "bytesNow": status.usage.total(),
        "bytesAfter": status.bytes_after,
        "bytesByKind": parts,
        "limitBytes": status.limit_bytes,
        "excessBytes": status.excess_bytes,
        "retentionSeconds": status.retention.map(|retention| retention.as_secs_f64()),
        "paused": status.paused,
        "next": next.collect::<Vec<Value>>(),
    })
}

fn disk_json(disk: &DiskStatus) -> Value {
    json!({
        "state": disk.state.name(),
        "capacityBytes": disk.capacity_bytes,
        "freeBytes": disk.free_bytes,
        "lowBelowBytes": disk.low_below_bytes,
        "readOnlyBelowBytes": disk.read_only_below_bytes,
        // Never is no number in JSON.
        "fullSeconds": disk.full_seconds.is_finite().then_some(disk.full_seconds),
        "reserveBytes": disk.reserve_bytes,
        "emergencyRetentionSeconds": disk.emergency_retention.map(|time| time.as_secs_f64()),
        "mergeWaits": disk.merge_waits,
    })
}

/// `GET /api/v1/metadata`
pub async fn metadata(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let params = Params::read(request, &app).await?;
    // A negative limit is none.
    let limit = match params.get("limit").map(str::parse::<i64>) {
        None => usize::MAX,
        Some(Ok(limit)) => usize::try_from(limit).unwrap_or(usize::MAX),
        Some(Err(_)) => return Err(ApiError::bad_data("limit must be a number")),
    };
    let mut data = serde_json::Map::new();
    app.metadata.each(params.get("metric"), |name, description| {
        if data.len() < limit {
            data.insert(name.to_owned(), json!([description]));
        }
    });
    Ok(json::success(|out| json::serialized(out, &Value::Object(data))))
}

/// `GET /api/v1/targets`: nothing is scraped yet.
pub async fn targets() -> Response {
    let none = json!({ "activeTargets": [], "droppedTargets": [], "droppedTargetCounts": {} });
    json::success(|out| json::serialized(out, &none))
}

/// `GET /api/v1/alertmanagers`
pub async fn alertmanagers(State(app): State<Arc<App>>) -> Response {
    let discovered = app.delivery.discovered();
    let list = |urls: &[String]| urls.iter().map(|url| json!({ "url": url })).collect::<Vec<Value>>();
    let data = json!({
        "activeAlertmanagers": list(&discovered.active),
        "droppedAlertmanagers": list(&discovered.dropped),
    });
    json::success(|out| json::serialized(out, &data))
}

/// An answer without anything, where there is nothing to be found yet.
pub async fn empty_list() -> Response {
    json::success(|out| out.extend_from_slice(b"[]"))
}
