//! Where imported samples go: a database, or a server that has one open.

use super::super::client::Client;
use super::super::refusals::{self, Refusals};
use super::{ImportError, Totals};
use crate::ingest::remote_write;
use crate::storage::{AppendError, Appended, Batch, Pending, Refusal, Refused};
use axum::http::{StatusCode, header};
use std::time::{Duration, Instant};

/// An import waits so long for disk, memory or background work before it gives up.
const PATIENCE: Duration = Duration::from_secs(10 * 60);
/// A server that does not answer is asked again for so long.
const SERVER_PATIENCE: Duration = Duration::from_secs(60);
/// Longest wait for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two attempts where nobody says how long to wait.
const RETRY: Duration = Duration::from_secs(1);

/// Takes batches, and waits where it must.
pub trait Target {
    /// Stores a batch.
    ///
    /// # Errors
    /// It cannot be stored, not even after waiting.
    fn append(&mut self, batch: &Batch, totals: &mut Totals) -> Result<(), ImportError>;
}

/// Stores batches by a function that appends to a database.
pub struct FolderTarget<A> {
    append: A,
    patience: Duration,
}

impl<A: FnMut(&Batch) -> Result<Pending, AppendError>> FolderTarget<A> {
    /// A target that appends so.
    pub fn new(append: A) -> FolderTarget<A> {
        FolderTarget { append, patience: PATIENCE }
    }

    /// Gives up sooner: somebody waits for an answer.
    pub fn with_patience(self, patience: Duration) -> FolderTarget<A> {
        FolderTarget { patience, ..self }
    }
}

impl<A: FnMut(&Batch) -> Result<Pending, AppendError>> Target for FolderTarget<A> {
    fn append(&mut self, batch: &Batch, totals: &mut Totals) -> Result<(), ImportError> {
        let (begun, mut has_told) = (Instant::now(), false);
        let appended = loop {
            match (self.append)(batch).and_then(Pending::wait) {
                Ok(appended) => break appended,
                // What cannot pass has no time to wait.
                Err(error) if error.retry_after.is_zero() || begun.elapsed() > self.patience => {
                    return Err(error.into());
                }
                Err(error) => {
                    if !std::mem::replace(&mut has_told, true) {
                        tracing::warn!(%error, "an import waits for at most {:?}", self.patience);
                    }
                    std::thread::sleep(error.retry_after.min(RETRY));
                }
            }
        };
        totals.samples += appended.accepted as u64;
        totals.refusals.merge(&Refusals::of(batch, &appended, as_text));
        Ok(())
    }
}

/// Sends batches by remote write.
pub struct ServerTarget {
    client: Client,
}

impl ServerTarget {
    /// A target that sends to this server.
    pub fn new(client: Client) -> ServerTarget {
        ServerTarget { client }
    }

    /// Sends a body until the server has taken it; gives what it refused of it.
    fn send(&self, body: &[u8]) -> Result<Refusals, ImportError> {
        let headers = [
            (header::CONTENT_ENCODING, "snappy"),
            (header::CONTENT_TYPE, "application/x-protobuf"),
            (header::HeaderName::from_static("x-prometheus-remote-write-version"), "0.1.0"),
        ];
        let (begun, mut has_told) = (Instant::now(), false);
        let mut tell = |error: &str| {
            if !std::mem::replace(&mut has_told, true) {
                tracing::warn!(error, "the import waits");
            }
        };
        loop {
            let answer = match self.client.post("/api/v1/write", &headers, body.to_vec(), ANSWER_TIMEOUT) {
                Ok(answer) => answer,
                Err(error) if begun.elapsed() > SERVER_PATIENCE => return Err(ImportError::Server(error)),
                Err(error) => {
                    tell(&error);
                    std::thread::sleep(RETRY);
                    continue;
                }
            };
            let refused = answer.headers.get(refusals::HEADER).and_then(|value| value.to_str().ok());
            match (answer.status, refused) {
                (status, _) if status.is_success() => return Ok(Refusals::default()),
                (StatusCode::BAD_REQUEST, Some(counts)) => return Ok(Refusals::told(counts, &answer.text)),
                (StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS, _)
                    if begun.elapsed() < PATIENCE =>
                {
                    tell(answer.text.trim());
                    let seconds = answer.headers.get(header::RETRY_AFTER);
                    let seconds = seconds.and_then(|value| value.to_str().ok()?.parse().ok());
                    std::thread::sleep(seconds.map_or(RETRY, Duration::from_secs).min(10 * RETRY));
                }
                (status, _) => {
                    return Err(ImportError::Server(format!(
                        "the server answers {status}: {}",
                        answer.text.trim()
                    )));
                }
            }
        }
    }
}

impl Target for ServerTarget {
    fn append(&mut self, batch: &Batch, totals: &mut Totals) -> Result<(), ImportError> {
        // What has no labels that could be sent is refused here, as the server would.
        let mut unsent = Appended::default();
        let body = remote_write::encode(batch, &mut |series, error| {
            unsent.refused.extend(batch.series_samples(series).map(|sample| Refused {
                sample: sample as u32,
                series: series as u32,
                reason: Refusal::Labels(error.clone()),
            }));
        });
        let body = body.map_err(|e| ImportError::Server(e.to_string()))?;
        let mut refused = Refusals::of(batch, &unsent, as_text);
        if unsent.refused.len() < batch.len() {
            refused.merge(&self.send(&body)?);
        }
        totals.samples += (batch.len() as u64).saturating_sub(refused.total());
        totals.refusals.merge(&refused);
        Ok(())
    }
}

/// Labels that are no label set, as they stand in the text.
fn as_text(labels: &[u8]) -> String {
    String::from_utf8_lossy(labels).into_owned()
}
