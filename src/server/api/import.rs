//! `POST /api/v1/import/openmetrics`: text of any length and age, imported while it arrives.

use super::super::app::App;
use super::super::error::{ApiError, ErrorKind};
use super::super::http::params::{Params, parse_time};
use super::super::import::{self, FolderTarget, ImportError, Totals};
use super::super::json;
use crate::Db;
use crate::storage::Timestamp;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header;
use axum::response::Response;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc;

/// An import waits so long for disk, memory or background work, before its sender is told to come again.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pieces of the body that wait to be read.
const PIECES: usize = 16;
/// What an import takes of the memory for writes: pieces, text and the batch that is made of it.
const IMPORT_BYTES: usize = 8 << 20;
/// Of a body whose import has failed so much more is read and thrown away, so that a sender that writes
/// before it reads meets the answer and not a broken connection.
const DISCARDED_BYTES: usize = 32 << 20;

/// `POST /api/v1/import/openmetrics`; `timestamp` is that of samples that have none.
pub async fn open_metrics(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    if let Some(encoding) = request.headers().get(header::CONTENT_ENCODING)
        && encoding != "identity"
    {
        return Err(ApiError::bad_data(format!(
            "the Content-Encoding {encoding:?} is not supported; send plain text"
        )));
    }
    let (head, body) = request.into_parts();
    // The body is no form, whatever the sender calls it.
    let params = Params::read(Request::from_parts(head, Body::empty()), &app).await?;
    let default_ms = match params.get("timestamp") {
        None => None,
        Some("now") => Some(Timestamp::now().as_millis()),
        Some(text) => Some(parse_time(text).map_err(|e| ApiError::parameter("timestamp", e))?.as_millis()),
    };
    let memory = app.writes.reserve(IMPORT_BYTES, IMPORT_BYTES).await;
    let _memory = memory.map_err(|why| ApiError::new(ErrorKind::Unavailable, why))?;
    let (pieces, received) = mpsc::channel(PIECES);
    let of_work = app.clone();
    let work = tokio::task::spawn_blocking(move || {
        let unavailable = || ApiError::new(ErrorKind::Unavailable, "the server is starting");
        run(&of_work, of_work.db().ok_or_else(unavailable)?, received, default_ms)
    });
    hand_over(body, &pieces, app.args.read_timeout).await;
    drop(pieces);
    work.await.map_err(ApiError::internal)?
}

/// Gives the body piece by piece to who imports it, at the pace of that.
async fn hand_over(mut body: Body, pieces: &mpsc::Sender<io::Result<Bytes>>, timeout: Duration) {
    let mut discarded = 0;
    while discarded < DISCARDED_BYTES {
        let frame = match tokio::time::timeout(timeout, body.frame()).await {
            Ok(None) => return,
            Ok(Some(frame)) => frame.map_err(io::Error::other),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("nothing arrived for {timeout:?} (--web.read-timeout)"),
            )),
        };
        let piece = frame.map(|frame| frame.into_data().unwrap_or_default());
        let (len, is_last) = (piece.as_ref().map_or(0, Bytes::len), piece.is_err());
        if pieces.send(piece).await.is_err() {
            discarded += len;
        }
        if is_last {
            return;
        }
    }
}

fn run(
    app: &App,
    db: &Db,
    received: mpsc::Receiver<io::Result<Bytes>>,
    default_ms: Option<i64>,
) -> Result<Response, ApiError> {
    let mut source = Pieces { received, piece: Bytes::new() };
    let mut totals = Totals::default();
    let mut target = FolderTarget::new(|batch| db.append_start(batch)).with_patience(PATIENCE);
    let done = import::open_metrics(&mut source, None, default_ms, &mut target, &mut totals, &mut |_, _| {});
    let counts = &app.writes.counts;
    counts.samples.fetch_add(totals.samples, Ordering::Relaxed);
    counts.exemplars.fetch_add(totals.exemplars, Ordering::Relaxed);
    counts.refuse(&totals.refusals);
    match done {
        Ok(()) => Ok(json::success(|out| json::serialized(out, &in_json(&totals)))),
        Err(error) => {
            let kind = match &error {
                ImportError::Append(_) => ErrorKind::Unavailable,
                _ => ErrorKind::BadData,
            };
            let kept = totals.samples;
            let what = format!(
                "{error}; the {kept} samples before are kept, and importing them again doubles nothing"
            );
            Err(ApiError::new(kind, what))
        }
    }
}

fn in_json(totals: &Totals) -> Value {
    let refusals = totals.refusals.by_reason();
    let refusals: Vec<Value> = refusals
        .map(|(reason, count, example)| json!({ "reason": reason, "samples": count, "first": example }))
        .collect();
    json!({ "samples": totals.samples, "exemplarsLeftOut": totals.exemplars, "refused": refusals })
}

/// The pieces of a body, as something to be read.
struct Pieces {
    received: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.received.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let len = self.piece.len().min(into.len());
        into[..len].copy_from_slice(&self.piece.split_to(len));
        Ok(len)
    }
}
