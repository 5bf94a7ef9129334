//! `/api/v1/query`, `/api/v1/query_range`, `/api/v1/format_query`, `/api/v1/parse_query`.

use super::super::app::App;
use super::super::error::ApiError;
use super::super::http::params::Params;
use super::super::http::stream;
use super::super::json;
use super::on_query_thread;
use super::value::{self, AnswerText, Timings};
use crate::budget::Part;
use crate::promql::{self, EvalOptions, Steps};
use crate::storage::Timestamp;
use axum::extract::{Request, State};
use axum::response::Response;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The most points of a series in an answer, as in Prometheus.
const MAX_POINTS: i64 = 11_000;

/// `GET,POST /api/v1/query`
pub async fn instant(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let params = Params::read(request, &app).await?;
    let at = match params.time("time")? {
        Some(at) => at,
        None => app.db().map_or_else(Timestamp::now, |db| db.now()),
    };
    evaluate(app, params, Steps::instant(at)).await
}

/// `GET,POST /api/v1/query_range`
pub async fn range(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let params = Params::read(request, &app).await?;
    let start = params.required_time("start")?;
    let end = params.required_time("end")?;
    if end < start {
        return Err(ApiError::parameter("end", "end timestamp must not be before start time"));
    }
    let step_ms = match params.duration_ms("step")? {
        Some(step_ms) => step_ms,
        None => return Err(ApiError::parameter("step", "cannot parse \"\" to a valid duration")),
    };
    let step = Duration::from_millis(u64::try_from(step_ms).unwrap_or(0));
    let steps = Steps::new(start, end, step).map_err(|e| ApiError::parameter("step", e))?;
    if (i128::from(end.as_millis()) - i128::from(start.as_millis())) / i128::from(step_ms)
        > i128::from(MAX_POINTS)
    {
        return Err(ApiError::bad_data(
            "exceeded maximum resolution of 11,000 points per timeseries. \
             Try decreasing the query resolution (?step=XX)",
        ));
    }
    evaluate(app, params, steps).await
}

async fn evaluate(app: Arc<App>, params: Params, steps: Steps) -> Result<Response, ApiError> {
    let limit = params.limit()?;
    let started = Instant::now();
    let (options, deadline) = options(&app, &params, started)?;
    let begun = on_query_thread(&app, deadline, move |app, db, cancel| {
        let query = params.get("query").unwrap_or("");
        let queued = started.elapsed();
        let expr =
            promql::parse_with(query, app.args.syntax()).map_err(|e| ApiError::parameter("query", e))?;
        let prepared = started.elapsed();
        let memory = Arc::new(app.memory.reservation(Part::Queries));
        let options = EvalOptions {
            cancel: Some(cancel),
            deadline: Some(deadline),
            memory: Some(memory.clone()),
            ..options
        };
        let answer = promql::evaluate(&expr, &db.view().within(Some(&memory)), steps, &options)?;
        let evaluated = started.elapsed();
        let timings = params.get("stats").map(|_| Timings {
            queue: queued,
            prepare: prepared - queued,
            evaluate: evaluated - prepared,
            total: evaluated,
        });
        let mut tail = Vec::new();
        if let Some(timings) = timings {
            value::write_stats(&mut tail, &answer.stats, timings);
        }
        tail.push(b'}');
        let mut warnings = answer.annotations.warnings(query);
        if limit.is_some_and(|limit| value::length(&answer.value) > limit) {
            warnings.push("results truncated due to limit".to_owned());
        }
        json::notes(&mut tail, "warnings", &warnings);
        json::notes(&mut tail, "infos", &answer.annotations.infos(query));
        tail.push(b'}');
        let text = AnswerText::new(answer.value, steps.start_ms(), limit, tail);
        let begun = stream::begin(text, memory)?;
        app.queries.add(evaluated - prepared, started.elapsed() - evaluated, answer.stats.samples);
        Ok(begun)
    });
    Ok(json::response(begun.await?.into_body()))
}

/// How to evaluate, and until when.
fn options(app: &App, params: &Params, started: Instant) -> Result<(EvalOptions, Instant), ApiError> {
    let mut timeout = app.args.query_timeout;
    if let Some(ms) = params.duration_ms("timeout")? {
        timeout = timeout.min(Duration::from_millis(u64::try_from(ms).unwrap_or(0)));
    }
    let mut lookback_delta = app.args.lookback_delta;
    if let Some(ms) = params.duration_ms("lookback_delta")? {
        let ms = u64::try_from(ms).ok().filter(|ms| *ms > 0);
        let ms = ms.ok_or_else(|| ApiError::parameter("lookback_delta", "it must be longer than 0"))?;
        lookback_delta = Duration::from_millis(ms);
    }
    Ok((EvalOptions { lookback_delta, ..app.eval_options() }, started + timeout))
}

/// `GET,POST /api/v1/format_query`
pub async fn format(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let params = Params::read(request, &app).await?;
    let query = params.get("query").unwrap_or("");
    let expr = promql::parse_with(query, app.args.syntax()).map_err(|e| ApiError::parameter("query", e))?;
    Ok(json::success(|out| json::text(out, &expr.to_string())))
}

/// `GET,POST /api/v1/parse_query`
pub async fn parse(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let params = Params::read(request, &app).await?;
    let query = params.get("query").unwrap_or("");
    let expr = promql::parse_with(query, app.args.syntax()).map_err(|e| ApiError::parameter("query", e))?;
    Ok(json::success(|out| promql::ast_json::write_ast(out, &expr, json::text)))
}
