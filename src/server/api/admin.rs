//! `/api/v1/admin/...`, `/-/reload`, `/-/quit`: only for those who switched them on.

use super::super::app::App;
use super::super::error::{ApiError, ErrorKind};
use super::super::http::edge;
use super::super::http::params::Params;
use super::super::{json, reload};
use super::selectors::{required_matcher_sets, time_range};
use crate::Db;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use std::fmt::Write as _;
use std::sync::Arc;

/// `POST,PUT /api/v1/admin/tsdb/delete_series`
pub async fn delete_series(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    enabled(&app)?;
    let params = Params::read(request, app.args.read_timeout).await?;
    let sets = required_matcher_sets(&params)?;
    let range = time_range(&params)?;
    work(&app, move |db| {
        let deleted = db.delete(&sets, range)?;
        tracing::info!(series = deleted.series, samples = deleted.samples, "deleted series");
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

/// `POST,PUT /api/v1/admin/tsdb/compact` and `clean_tombstones`: merges partitions, so that what
/// was deleted leaves the disk.
pub async fn compact(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    enabled(&app)?;
    work(&app, Db::compact).await?;
    Ok(edge::text(StatusCode::NO_CONTENT, ""))
}

/// `POST,PUT /api/v1/admin/tsdb/snapshot`: a copy below `snapshots` in the data folder, the head
/// always included.
pub async fn snapshot(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    enabled(&app)?;
    let mut random = [0u8; 8];
    getrandom::fill(&mut random).map_err(ApiError::internal)?;
    let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ-").to_string();
    let name = random.iter().fold(now, |mut name, byte| {
        let _ = write!(name, "{byte:02x}");
        name
    });
    let folder = name.clone();
    work(&app, move |db| {
        let parent = db.path().join("snapshots");
        std::fs::create_dir_all(&parent)?;
        db.snapshot(&parent.join(folder))
    })
    .await?;
    Ok(json::success(|out| json::serialized(out, &serde_json::json!({ "name": name }))))
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

fn enabled(app: &App) -> Result<(), ApiError> {
    if app.args.enable_admin_api {
        return Ok(());
    }
    Err(ApiError::new(ErrorKind::Unavailable, "admin APIs disabled"))
}

/// Runs `job`, which waits for the disk, apart from the threads that serve connections.
async fn work(
    app: &Arc<App>,
    job: impl FnOnce(&Db) -> std::io::Result<()> + Send + 'static,
) -> Result<(), ApiError> {
    let app = app.clone();
    let done = tokio::task::spawn_blocking(move || match app.db() {
        Some(db) => job(db),
        None => Err(std::io::Error::other("the server is starting")),
    });
    done.await.map_err(ApiError::internal)?.map_err(ApiError::internal)
}
