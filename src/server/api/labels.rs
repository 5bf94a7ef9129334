//! `/api/v1/series`, `/api/v1/labels`, `/api/v1/label/{name}/values`.

use super::super::app::App;
use super::super::error::ApiError;
use super::super::http::params::Params;
use super::super::json;
use super::on_query_thread;
use super::selectors::{matcher_sets, required_matcher_sets, time_range, unescape_name};
use crate::Db;
use crate::storage::Listing;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use std::sync::Arc;
use std::time::Instant;

/// `GET,POST /api/v1/series`
pub async fn series(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let params = Params::read(request, app.args.read_timeout).await?;
    let sets = required_matcher_sets(&params)?;
    let range = time_range(&params)?;
    answer(&app, params, move |db| db.view().series(&sets, range), json::labels).await
}

/// `GET,POST /api/v1/labels`
pub async fn names(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let params = Params::read(request, app.args.read_timeout).await?;
    let sets = matcher_sets(&params)?;
    let range = time_range(&params)?;
    answer(&app, params, move |db| db.view().label_names(&sets, range), |out, name| json::text(out, name))
        .await
}

/// `GET /api/v1/label/{name}/values`
pub async fn values(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let params = Params::read(request, app.args.read_timeout).await?;
    let name = unescape_name(&name);
    if name.is_empty() {
        return Err(ApiError::bad_data("invalid label name: \"\""));
    }
    let sets = matcher_sets(&params)?;
    let range = time_range(&params)?;
    let find = move |db: &Db| db.view().label_values(&name, &sets, range);
    answer(&app, params, find, |out, value| json::text(out, value)).await
}

/// Answers with the list that `find` gives, cut at `limit`.
async fn answer<T: Send + 'static>(
    app: &Arc<App>,
    params: Params,
    find: impl FnOnce(&Db) -> Listing<T> + Send + 'static,
    write: impl Fn(&mut Vec<u8>, &T) + Send + 'static,
) -> Result<Response, ApiError> {
    let limit = params.limit()?;
    let deadline = Instant::now() + app.args.query_timeout;
    let body = on_query_thread(app, deadline, move |_, db, _| {
        let Listing { items, mut warnings } = find(db);
        let shown = limit.map_or(items.len(), |limit| limit.min(items.len()));
        if shown < items.len() {
            warnings.push("results truncated due to limit".to_owned());
        }
        let mut body = json::SUCCESS.to_vec();
        json::list(&mut body, &items[..shown], |out, item| write(out, item));
        if !warnings.is_empty() {
            body.extend_from_slice(br#","warnings":"#);
            json::list(&mut body, &warnings, |out, warning| json::text(out, warning));
        }
        body.push(b'}');
        Ok(body)
    });
    Ok(json::response(body.await?))
}
