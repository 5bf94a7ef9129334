//! `/api/v1/series`, `/api/v1/labels`, `/api/v1/label/{name}/values`.

use super::super::app::App;
use super::super::error::{ApiError, ErrorKind};
use super::super::http::params::Params;
use super::super::json;
use super::selectors::{matcher_sets, required_matcher_sets, time_range, unescape_name};
use super::{Watch, on_query_thread};
use crate::budget::Part;
use crate::storage::{LabelSets, Listing, View};
use axum::extract::{Path, Request, State};
use axum::response::Response;
use std::sync::Arc;
use std::time::Instant;

/// `GET,POST /api/v1/series`
pub async fn series(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let params = Params::read(request, &app).await?;
    let sets = required_matcher_sets(&params)?;
    let range = time_range(&params)?;
    answer(
        &app,
        params,
        move |view| view.series(&sets, range),
        LabelSets::len,
        |out, sets, shown, go_on| json::label_sets(out, sets, shown, go_on),
    )
    .await
}

/// `GET,POST /api/v1/labels`
pub async fn names(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let params = Params::read(request, &app).await?;
    let sets = matcher_sets(&params)?;
    let range = time_range(&params)?;
    answer(
        &app,
        params,
        move |view| view.label_names(&sets, range),
        Vec::len,
        |out, found, shown, go_on| texts(out, &found[..shown], go_on),
    )
    .await
}

/// `GET /api/v1/label/{name}/values`
pub async fn values(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let params = Params::read(request, &app).await?;
    let name = unescape_name(&name);
    if name.is_empty() {
        return Err(ApiError::bad_data("invalid label name: \"\""));
    }
    let sets = matcher_sets(&params)?;
    let range = time_range(&params)?;
    let find = move |view: &View| view.label_values(&name, &sets, range);
    answer(&app, params, find, Vec::len, |out, found, shown, go_on| texts(out, &found[..shown], go_on)).await
}

/// Answers with the list that `find` gives, of which `len` tells how many entries it has and `write`
/// adds as many as are to be shown: no more than `limit`.
async fn answer<L: 'static>(
    app: &Arc<App>,
    params: Params,
    find: impl FnOnce(&View) -> Listing<L> + Send + 'static,
    len: fn(&L) -> usize,
    write: impl Fn(&mut Vec<u8>, &L, usize, GoOn<'_>) -> Result<(), ApiError> + Send + 'static,
) -> Result<Response, ApiError> {
    let limit = params.limit()?;
    let deadline = Instant::now() + app.args.query_timeout;
    let body = on_query_thread(app, deadline, move |app, db, cancel| {
        let memory = Arc::new(app.memory.reservation(Part::Queries));
        let found = find(&db.view().within(Some(&memory)));
        if let Some(refused) = &found.refused {
            let text = format!("not enough memory for what was found: {refused}");
            return Err(ApiError::new(ErrorKind::Execution, text));
        }
        let (items, mut warnings) = (&found.items, found.warnings.clone());
        let found = len(items);
        let shown = limit.map_or(found, |limit| limit.min(found));
        if shown < found {
            warnings.push("results truncated due to limit".to_owned());
        }
        let mut body = json::SUCCESS.to_vec();
        let mut watch = Watch { memory: memory.clone(), held_bytes: 0, cancel, deadline };
        write(&mut body, items, shown, &mut |len| watch.wrote(len))?;
        json::notes(&mut body, "warnings", &warnings);
        body.push(b'}');
        Ok((body, memory))
    });
    let (body, memory) = body.await?;
    Ok(json::response_of(body, memory))
}

/// Is asked while an answer is written; see [`Watch::wrote`].
type GoOn<'a> = &'a mut dyn FnMut(usize) -> Result<(), ApiError>;

/// Adds a list of texts.
fn texts(out: &mut Vec<u8>, texts: &[String], go_on: GoOn<'_>) -> Result<(), ApiError> {
    json::long_list(out, texts, |out, text| json::text(out, text), go_on)
}
