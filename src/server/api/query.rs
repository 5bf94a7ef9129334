//! `/api/v1/query`, `/api/v1/query_range`, `/api/v1/format_query`, `/api/v1/parse_query`.

use super::super::app::App;
use super::super::error::ApiError;
use super::super::http::params::Params;
use super::super::http::stream::{self, Begun, Text};
use super::super::json;
use super::super::pool::queue::Weight;
use super::super::query_stats::QueryStats;
use super::explain::{Explain, Explanation};
use super::on_query_thread_weighed;
use super::queries::origin;
use super::value::{self, AnswerText};
use crate::Db;
use crate::budget::{Part, Reservation};
use crate::promql::explain::Care;
use crate::promql::running::{HttpOrigin, Origin, Query, Running, Timings};
use crate::promql::value::Stats;
use crate::promql::{self, Answer, EvalError, EvalOptions, Steps};
use crate::storage::Timestamp;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// The most points of a series in an answer, as in Prometheus.
const MAX_POINTS: i64 = 11_000;
/// Longer queries are not explained: each of their nodes takes a line, and a place in the answer.
const EXPLAINED_BYTES: usize = 16 << 10;
/// How long a query that holds little waits for memory, before it is refused.
const PATIENCE: Duration = Duration::from_secs(1);

/// `GET,POST /api/v1/query`
pub async fn instant(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let from = origin(&request);
    let params = Params::read(request, &app).await?;
    let at = match params.time("time")? {
        Some(at) => at,
        None => app.db().map_or_else(Timestamp::now, Db::now),
    };
    evaluate(app, from, params, Steps::instant(at)).await
}

/// `GET,POST /api/v1/query_range`
pub async fn range(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let from = origin(&request);
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
    evaluate(app, from, params, steps).await
}

/// A query on its way.
struct Asked {
    params: Params,
    steps: Steps,
    /// At most so many series are answered with.
    limit: Option<usize>,
    explain: Explain,
    options: EvalOptions,
    started: Instant,
    deadline: Instant,
}

/// What is known of a query in the end, whether it failed or not.
#[derive(Default)]
struct Known {
    /// Its text as it is printed; empty if it cannot be parsed.
    canonical: String,
    timings: Timings,
    stats: Stats,
}

/// An answer that is short.
struct Short(Vec<u8>);

impl Text for Short {
    fn write(&mut self, out: &mut Vec<u8>, _until: usize) -> bool {
        out.append(&mut self.0);
        false
    }
}

async fn evaluate(
    app: Arc<App>,
    origin: HttpOrigin,
    params: Params,
    steps: Steps,
) -> Result<Response, ApiError> {
    let limit = params.limit()?;
    let explain = Explain::read(&params)?;
    let started = Instant::now();
    let (mut options, deadline) = options(&app, &params, started)?;
    options.count_samples = params.get("stats").is_some() || app.queries.is_heard();
    options.explain = matches!(explain, Explain::True | Explain::Text);
    let text = params.get("query").unwrap_or("");
    let now = app.db().map_or_else(Timestamp::now, Db::now);
    let running = app.queries.begin(Query::new(text, steps, Origin::Http(origin), now));
    let progress = running.progress();
    options.progress = Some(progress.clone());
    let (tell, told) = oneshot::channel();
    running.on_cancel(move || {
        let _ = tell.send(());
    });
    let asked = Arc::new(Asked { params, steps, limit, explain, options, started, deadline });
    let (of_weigh, of_app) = (asked.clone(), app.clone());
    let weigh = Box::new(move |cancel| of_weigh.weigh(&of_app, cancel));
    let answer = on_query_thread_weighed(&app, deadline, Some(weigh), move |app, db, cancel| {
        asked.answer(app, db, running, cancel)
    });
    let begun = tokio::select! {
        answer = answer => answer?,
        // It may wait, or be where it cannot be ended: whoever asked need not wait for that.
        Ok(()) = told => return Err(EvalError::CanceledBy(progress.canceled().unwrap_or("").to_owned()).into()),
    };
    let mut response = json::response(begun.into_body());
    if explain == Explain::Text {
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
    }
    Ok(response)
}

impl Asked {
    fn query(&self) -> &str {
        self.params.get("query").unwrap_or("")
    }

    /// How long it will take.
    fn weigh(&self, app: &App, cancel: Arc<AtomicBool>) -> Weight {
        // What cannot be parsed takes no time.
        let Ok(expr) = promql::parse_with(self.query(), app.args.syntax()) else {
            return Weight::Expected(Duration::ZERO);
        };
        let Some(db) = app.db() else { return Weight::Other };
        let memory = Arc::new(app.memory.reservation(Part::Queries));
        let view = db.view().within(Some(&memory));
        let options =
            EvalOptions { deadline: Some(self.deadline), cancel: Some(cancel), ..self.options.clone() };
        match promql::estimate(&expr, &view, self.steps, &options, Care::Rough) {
            Ok(estimate) => Weight::Expected(estimate.time()),
            Err(_) => Weight::Other,
        }
    }

    /// Evaluates it, and tells what it took.
    fn answer(
        &self,
        app: &App,
        db: &Db,
        running: Running,
        cancel: Arc<AtomicBool>,
    ) -> Result<Begun, ApiError> {
        let memory = Arc::new(app.memory.reservation(Part::Queries).patient(PATIENCE));
        running.run(Some(memory.clone()));
        let mut known = Known::default();
        known.timings.queue = self.started.elapsed();
        let body = self.body(app, db, memory, cancel, &mut known);
        known.timings.total = self.started.elapsed();
        let error = match (running.progress().canceled(), &body) {
            (_, Ok(_)) => None,
            (Some(why), Err(_)) => Some(EvalError::CanceledBy(why.to_owned()).to_string()),
            (None, Err(error)) => Some(error.message.clone()),
        };
        let canonical = if known.canonical.is_empty() { self.query() } else { &known.canonical };
        running.finish(canonical, known.timings, &known.stats, error.as_deref());
        body
    }

    fn body(
        &self,
        app: &App,
        db: &Db,
        memory: Arc<Reservation>,
        cancel: Arc<AtomicBool>,
        known: &mut Known,
    ) -> Result<Begun, ApiError> {
        let (query, steps) = (self.query(), self.steps);
        let begun = Instant::now();
        if self.explain != Explain::No && query.len() > EXPLAINED_BYTES {
            let text = format!("the query is longer than {EXPLAINED_BYTES} bytes, too long to be explained");
            return Err(ApiError::parameter("explain", text));
        }
        let expr =
            promql::parse_with(query, app.args.syntax()).map_err(|e| ApiError::parameter("query", e))?;
        known.canonical = expr.to_string();
        let options = EvalOptions {
            cancel: Some(cancel.clone()),
            deadline: Some(self.deadline),
            memory: Some(memory.clone()),
            ..self.options.clone()
        };
        let estimate = match self.explain {
            Explain::No => Vec::new(),
            _ => {
                let view = db.view().within(Some(&memory));
                promql::estimate(&expr, &view, steps, &options, Care::Thorough)?.selectors
            }
        };
        if self.explain == Explain::Estimate {
            let mut text = json::SUCCESS.to_vec();
            text.extend_from_slice(br#"{"explain":"#);
            Explanation { query, estimate: &estimate, measured: None }.write(&mut text);
            text.extend_from_slice(b"}}");
            return stream::begin(Short(text), memory);
        }
        known.timings.prepare = begun.elapsed();
        let begun = Instant::now();
        let Answer { value, annotations, stats } = db.evaluate(&expr, steps, &options)?;
        known.timings.evaluate = begun.elapsed();
        known.timings.total = self.started.elapsed();
        known.stats = stats;
        let explanation =
            Explanation { query, estimate: &estimate, measured: known.stats.explained.as_ref() };
        if self.explain == Explain::Text {
            return stream::begin(Short(explanation.text().into_bytes()), memory);
        }
        let written = Instant::now();
        let mut tail = Vec::new();
        if let Some(stats) = self.params.get("stats") {
            tail.extend_from_slice(b",\"stats\":");
            json::serialized(
                &mut tail,
                &QueryStats::new(known.timings, &known.stats, &steps, stats == "all"),
            );
        }
        if self.explain == Explain::True {
            tail.extend_from_slice(b",\"explain\":");
            explanation.write(&mut tail);
        }
        tail.push(b'}');
        let mut warnings = annotations.warnings(query);
        if self.limit.is_some_and(|limit| value::length(&value) > limit) {
            warnings.push("results truncated due to limit".to_owned());
        }
        json::notes(&mut tail, "warnings", &warnings);
        json::notes(&mut tail, "infos", &annotations.infos(query));
        tail.push(b'}');
        let begun = stream::begin(AnswerText::new(value, steps.start_ms(), self.limit, tail), memory)?;
        app.query_counts.add(known.timings.evaluate, written.elapsed(), known.stats.samples);
        Ok(begun)
    }
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
    // Who wants to know what an evaluation takes does not want a part of it.
    let use_cache = !params.flag("nocache")? && params.get("stats").is_none();
    Ok((EvalOptions { lookback_delta, use_cache, ..app.eval_options() }, started + timeout))
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
