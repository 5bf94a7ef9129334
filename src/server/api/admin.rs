//! `/api/v1/admin/...`, `/-/reload`, `/-/quit`: only for those who switched them on.

use super::super::app::App;
use super::super::error::{ApiError, ErrorKind};
use super::super::http::edge;
use super::super::http::params::Params;
use super::super::{json, reload};
use super::selectors::{required_matcher_sets, time_range};
use super::status::rfc3339;
use crate::Db;
use crate::storage::{JobState, JobStatus};
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io;
use std::sync::Arc;

/// `POST,PUT /api/v1/admin/tsdb/delete_series`; with `dry_run=true` nothing is deleted, and the answer
/// tells what would be.
pub async fn delete_series(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    enabled(&app)?;
    let params = Params::read(request, &app).await?;
    let sets = required_matcher_sets(&params)?;
    let range = time_range(&params)?;
    if !params.flag("dry_run")? {
        work(&app, move |db| db.delete(&sets, range)).await?;
        return Ok(edge::text(StatusCode::NO_CONTENT, ""));
    }
    let found = work(&app, move |db| db.delete_preview(&sets, range)).await?;
    let counts = json!({ "series": found.series, "samples": found.samples, "bytes": found.bytes });
    Ok(json::success(|out| json::serialized(out, &counts)))
}

/// `POST,PUT /api/v1/admin/tsdb/clean_tombstones`: writes the partitions anew of which something was
/// deleted, so that its bytes leave the disk.
pub async fn clean_tombstones(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    enabled(&app)?;
    work(&app, Db::clean_tombstones).await?;
    Ok(edge::text(StatusCode::NO_CONTENT, ""))
}

/// `GET /api/v1/admin/tsdb/jobs`: long work, the newest first.
pub async fn jobs(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    enabled(&app)?;
    let jobs = work(&app, |db| Ok(db.jobs())).await?;
    Ok(json::success(|out| json::list(out, &jobs, |out, job| json::serialized(out, &job_in_json(job)))))
}

fn job_in_json(job: &JobStatus) -> Value {
    json!({
        "id": job.id,
        "kind": job.kind.name(),
        "state": job.state.name(),
        "error": if let JobState::Failed(error) = &job.state { error.as_str() } else { "" },
        "partitions": job.partitions,
        "partitionsDone": job.partitions_done,
        "bytes": job.bytes,
        "bytesDone": job.bytes_done,
        "bytesFreed": job.bytes_freed,
        "started": rfc3339(job.started.as_millis()),
        "ended": job.ended.map(|t| rfc3339(t.as_millis())),
    })
}

/// `POST,PUT /api/v1/admin/tsdb/jobs/{id}/cancel`: the job ends soon after; what it did stays done.
pub async fn cancel_job(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, ApiError> {
    enabled(&app)?;
    let id: u64 = id.parse().map_err(|_| ApiError::bad_data(format!("{id:?} is no number of a job")))?;
    if !work(&app, move |db| Ok(db.cancel_job(id))).await? {
        return Err(ApiError::new(ErrorKind::NotFound, format!("no job {id} waits or runs")));
    }
    Ok(edge::text(StatusCode::NO_CONTENT, ""))
}

/// `POST,PUT /api/v1/admin/tsdb/trust_clock`: samples expire by the present time at once, though the clock
/// jumped.
pub async fn trust_clock(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    enabled(&app)?;
    work(&app, |db| {
        db.trust_clock();
        Ok(())
    })
    .await?;
    Ok(edge::text(StatusCode::NO_CONTENT, ""))
}

/// `POST,PUT /api/v1/admin/tsdb/flush`: cuts the head into partitions.
pub async fn flush(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    enabled(&app)?;
    work(&app, Db::flush).await?;
    Ok(edge::text(StatusCode::NO_CONTENT, ""))
}

/// `POST,PUT /api/v1/admin/tsdb/compact`: merges all partitions that can be merged.
pub async fn compact(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    enabled(&app)?;
    work(&app, Db::compact).await?;
    Ok(edge::text(StatusCode::NO_CONTENT, ""))
}

/// `POST,PUT /api/v1/admin/tsdb/snapshot`: a copy below `snapshots` in the data folder, the head
/// always included. `name` is what to call it, which nothing there may be called yet.
pub async fn snapshot(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    enabled(&app)?;
    let params = Params::read(request, &app).await?;
    let name = match params.get("name") {
        None => snapshot_name().map_err(ApiError::internal)?,
        Some(name) if name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') => name.to_owned(),
        Some(name) => {
            let what = format!("{name:?} is no name of letters, digits and '-'");
            return Err(ApiError::parameter("name", what));
        }
    };
    let folder = name.clone();
    work(&app, move |db| {
        let parent = db.path().join("snapshots");
        std::fs::create_dir_all(&parent)?;
        db.snapshot(&parent.join(folder))
    })
    .await?;
    Ok(json::success(|out| json::serialized(out, &json!({ "name": name }))))
}

/// A name that no snapshot has.
pub fn snapshot_name() -> Result<String, getrandom::Error> {
    let mut random = [0u8; 8];
    getrandom::fill(&mut random)?;
    let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ-").to_string();
    Ok(random.iter().fold(now, |mut name, byte| {
        let _ = write!(name, "{byte:02x}");
        name
    }))
}

/// `POST,PUT /-/reload`
pub async fn reload(State(app): State<Arc<App>>) -> Response {
    if !app.args.enable_lifecycle {
        return edge::text(StatusCode::FORBIDDEN, "Lifecycle API is not enabled.\n");
    }
    match tokio::task::spawn_blocking(move || reload::reload(&app)).await {
        Ok(Ok(())) => edge::text(StatusCode::OK, ""),
        Ok(Err(error)) => edge::text(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("failed to reload config: {error}\nThe old configuration stays in force.\n"),
        ),
        Err(_) => edge::text(StatusCode::INTERNAL_SERVER_ERROR, "failed to reload config\n"),
    }
}

/// `POST,PUT /-/quit`
pub async fn quit(State(app): State<Arc<App>>) -> Response {
    if !app.args.enable_lifecycle {
        return edge::text(StatusCode::FORBIDDEN, "Lifecycle API is not enabled.\n");
    }
    app.stop();
    edge::text(StatusCode::OK, "Requesting termination... Goodbye!\n")
}

pub(super) fn enabled(app: &App) -> Result<(), ApiError> {
    if app.args.enable_admin_api {
        return Ok(());
    }
    Err(ApiError::new(ErrorKind::Unavailable, "admin APIs disabled"))
}

/// Runs `job`, which waits for the disk, apart from the threads that serve connections.
async fn work<T: Send + 'static>(
    app: &Arc<App>,
    job: impl FnOnce(&Db) -> io::Result<T> + Send + 'static,
) -> Result<T, ApiError> {
    let app = app.clone();
    let done = tokio::task::spawn_blocking(move || match app.db() {
        Some(db) => job(db),
        None => Err(io::Error::other("the server is starting")),
    });
    done.await.map_err(ApiError::internal)?.map_err(|error| match error.kind() {
        // A job that somebody canceled, or the server stops.
        io::ErrorKind::Interrupted => ApiError::new(ErrorKind::Canceled, error),
        // The name of a snapshot is taken.
        io::ErrorKind::AlreadyExists => ApiError::bad_data(error),
        _ => ApiError::internal(error),
    })
}
