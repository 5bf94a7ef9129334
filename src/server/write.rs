//! `POST /api/v1/write`: remote write, answered so that no sender loses or repeats for nothing.
//!
//! - A cause that passes (disk, memory, backlog, shutdown): 503 with `Retry-After`. Everything is
//!   sent again, and what was kept is then a no-op.
//! - Otherwise, anything refused for good: 400 that says how many, why, and an example. The good
//!   samples are kept.
//! - Otherwise 204.
//!
//! A body in another encoding or of another version is a 415 before it is decoded.

use super::app::App;
use super::http::body::{self, BodyError};
use super::http::edge::text;
use super::refusals::{self, REASONS, Refusals};
use crate::budget::{MemoryBudget, Part, Reservation};
use crate::ingest::remote_write::{self, BodyLimits, Extras};
use crate::storage::{AppendError, Batch};
use axum::body::HttpBody;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

/// How long a request waits for others to leave memory before it is sent away.
const MEMORY_WAIT: Duration = Duration::from_secs(5);
/// How often it looks whether there is memory.
const MEMORY_LOOK: Duration = Duration::from_millis(50);
/// A body longer than this is decoded apart from the thread's other connections.
const LARGE_BYTES: usize = 4 << 20;
/// Buffers that grew beyond this are given back rather than kept.
const KEEP_BYTES: usize = 8 << 20;

/// What writes share.
pub struct Writes {
    limits: BodyLimits,
    /// One permit is 1 KiB of bodies in memory.
    memory: Semaphore,
    memory_kib: u32,
    budget: MemoryBudget,
    buffers: Mutex<Vec<Buffers>>,
    /// Figures for metrics.
    pub counts: WriteCounts,
}

/// Counters of writes; they only grow.
#[derive(Default)]
pub struct WriteCounts {
    /// Samples kept.
    pub samples: AtomicU64,
    /// Exemplars met, none of them kept.
    pub exemplars: AtomicU64,
    /// Requests that were told to come again.
    pub unavailable: AtomicU64,
    /// Requests that could not be decoded.
    pub undecodable: AtomicU64,
    /// Samples refused for good, in the order of [`REASONS`].
    pub refused: [AtomicU64; REASONS.len()],
}

impl WriteCounts {
    /// Counts refused samples.
    pub fn refuse(&self, refusals: &Refusals) {
        for (count, more) in self.refused.iter().zip(refusals.counts()) {
            count.fetch_add(more, Ordering::Relaxed);
        }
    }
}

/// Memory that one request leaves to the next.
#[derive(Default)]
struct Buffers {
    compressed: Vec<u8>,
    batch: Batch,
    /// About what they take while they are kept.
    kept_bytes: usize,
}

/// Memory that a body takes, until this is dropped.
pub struct BodyMemory<'a> {
    _permit: SemaphorePermit<'a>,
    _held: Reservation,
}

impl Writes {
    /// Writes within `limits`, of which at most `memory_bytes` are in memory at a time, and no more than
    /// the budget has.
    pub fn new(limits: BodyLimits, memory_bytes: usize, budget: MemoryBudget) -> Writes {
        let memory_kib = u32::try_from(memory_bytes >> 10).unwrap_or(u32::MAX).max(1);
        Writes {
            limits,
            memory: Semaphore::new(memory_kib as usize),
            memory_kib,
            budget,
            buffers: Mutex::default(),
            counts: WriteCounts::default(),
        }
    }

    /// Waits until `bytes` more of bodies may be in memory, for which it takes `memory_bytes`. If that
    /// lasts too long, it says why they may not.
    pub async fn reserve(&self, bytes: usize, memory_bytes: usize) -> Result<BodyMemory<'_>, String> {
        let deadline = tokio::time::Instant::now() + MEMORY_WAIT;
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).min(self.memory_kib / 2).max(1);
        let permit = tokio::time::timeout_at(deadline, self.memory.acquire_many(kib)).await;
        let Ok(Ok(permit)) = permit else { return Err("too many writes at a time".to_owned()) };
        let held = self.budget.reservation(Part::Bodies);
        while held.room() < memory_bytes as u64 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(MEMORY_LOOK).await;
        }
        match held.grow(memory_bytes as u64) {
            Ok(()) => Ok(BodyMemory { _permit: permit, _held: held }),
            Err(refused) => Err(format!("there is too little memory for this write: {refused}")),
        }
    }

    /// About how much memory is kept for requests to come.
    pub fn kept_bytes(&self) -> u64 {
        let kept = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().map(|buffers| buffers.kept_bytes as u64).sum()
    }

    /// Keeps none any more.
    pub fn forget_buffers(&self) {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn take_buffers(&self) -> Buffers {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn give_back(&self, mut buffers: Buffers) {
        let text = buffers.batch.take_text();
        let small = text.capacity() < KEEP_BYTES && buffers.compressed.capacity() < KEEP_BYTES;
        // The columns of a batch take about as much as its text.
        buffers.kept_bytes = buffers.compressed.capacity() + 2 * text.capacity();
        let mut kept = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        if small && kept.len() < 16 {
            buffers.batch.set_text(text);
            kept.push(buffers);
        }
    }
}

/// Handles one write.
pub async fn write(State(app): State<Arc<App>>, request: Request) -> Response {
    let writes = &app.writes;
    if let Err(why) = understood(request.headers()) {
        return text(StatusCode::UNSUPPORTED_MEDIA_TYPE, why);
    }
    if app.is_stopping() {
        return unavailable(&app, "the server is shutting down", 5);
    }
    let announced = HttpBody::size_hint(request.body()).upper();
    let announced = announced.and_then(|n| usize::try_from(n).ok()).unwrap_or(writes.limits.compressed_bytes);
    let announced = announced.min(writes.limits.compressed_bytes);
    let _memory = match writes.reserve(announced, announced).await {
        Ok(memory) => memory,
        Err(why) => return unavailable(&app, &why, 1),
    };
    let mut buffers = writes.take_buffers();
    let limit = writes.limits.compressed_bytes;
    let read = body::read(request.into_body(), &mut buffers.compressed, limit, app.args.read_timeout).await;
    match read {
        Ok(()) => {}
        Err(BodyError::TooLarge) => {
            let why = format!("the body is longer than {limit} bytes (--ingest.max-body-bytes)\n");
            return text(StatusCode::BAD_REQUEST, why);
        }
        // A slow network passes; a 400 would cost the sender these samples.
        Err(BodyError::TooSlow(timeout)) => {
            let why = format!("the body did not arrive within {timeout:?} (--web.read-timeout)");
            return unavailable(&app, &why, 5);
        }
        // Nobody reads this answer.
        Err(BodyError::Broken(what)) => return text(StatusCode::BAD_REQUEST, what + "\n"),
    }
    let claimed = match remote_write::claimed_len(&buffers.compressed, &writes.limits) {
        Ok(claimed) => claimed,
        Err(error) => return undecodable(&app, &error),
    };
    // As much again for the columns of the batch.
    let _decoded = match writes.reserve(claimed, 2 * claimed).await {
        Ok(memory) => memory,
        Err(why) => return unavailable(&app, &why, 1),
    };
    let decode = |buffers: &mut Buffers| -> Result<Extras, remote_write::DecodeError> {
        let mut text = buffers.batch.take_text();
        remote_write::decompress(&buffers.compressed, &writes.limits, &mut text)?;
        remote_write::decode(text, &mut buffers.batch)
    };
    let Some(db) = app.db() else {
        return unavailable(&app, "the server is starting", 1);
    };
    let work =
        |buffers: &mut Buffers| decode(buffers).map(|extras| (extras, db.append_start(&buffers.batch)));
    let done = if claimed > LARGE_BYTES {
        tokio::task::block_in_place(|| work(&mut buffers))
    } else {
        work(&mut buffers)
    };
    let (extras, pending) = match done {
        Ok(done) => done,
        Err(error) => return undecodable(&app, &error),
    };
    writes.counts.exemplars.fetch_add(extras.exemplars as u64, Ordering::Relaxed);
    if !extras.metadata.is_empty() {
        app.metadata.put(extras.metadata);
    }
    let outcome = match pending {
        Err(error) => Err(error),
        Ok(pending) if pending.is_durable() => pending.wait(),
        Ok(pending) => {
            let (send, receive) = oneshot::channel();
            pending.on_durable(move |outcome| drop(send.send(outcome)));
            match receive.await {
                Ok(outcome) => outcome,
                Err(_) => return unavailable(&app, "the server is shutting down", 5),
            }
        }
    };
    let response = match outcome {
        Err(error) => append_failed(&app, &error),
        Ok(appended) => {
            writes.counts.samples.fetch_add(appended.accepted as u64, Ordering::Relaxed);
            if appended.refused.is_empty() {
                let mut response = Response::default();
                *response.status_mut() = StatusCode::NO_CONTENT;
                response
            } else {
                let refusals = Refusals::of(&buffers.batch, &appended, remote_write::describe_labels);
                writes.counts.refuse(&refusals);
                let mut response = text(StatusCode::BAD_REQUEST, refusals.text(buffers.batch.len()));
                if let Ok(counts) = HeaderValue::from_str(&refusals.header()) {
                    response.headers_mut().insert(refusals::HEADER, counts);
                }
                response
            }
        }
    };
    writes.give_back(buffers);
    response
}

/// Whether the headers announce a body this version understands; else what to say.
fn understood(headers: &HeaderMap) -> Result<(), String> {
    let text = |name| headers.get(name).map(|v: &HeaderValue| v.to_str().unwrap_or("?").trim());
    if let Some(encoding) = text(header::CONTENT_ENCODING)
        && !encoding.eq_ignore_ascii_case("snappy")
    {
        return Err(format!("the Content-Encoding {encoding:?} is not supported; use snappy\n"));
    }
    for parameter in text(header::CONTENT_TYPE).unwrap_or("").split(';').skip(1) {
        let Some((name, value)) = parameter.split_once('=') else { continue };
        let value = value.trim().trim_matches('"');
        if name.trim().eq_ignore_ascii_case("proto") && value != "prometheus.WriteRequest" {
            let supported = "only prometheus.WriteRequest (remote write 1.0) is supported";
            return Err(format!("the message {value:?} is not supported; {supported}\n"));
        }
    }
    Ok(())
}

fn undecodable(app: &App, error: &remote_write::DecodeError) -> Response {
    app.writes.counts.undecodable.fetch_add(1, Ordering::Relaxed);
    text(StatusCode::BAD_REQUEST, format!("{error}\n"))
}

fn append_failed(app: &App, error: &AppendError) -> Response {
    let seconds = error.retry_after.as_secs_f64().ceil().clamp(1.0, 5.0) as u32;
    unavailable(app, &error.to_string(), seconds)
}

fn unavailable(app: &App, why: &str, retry_after_seconds: u32) -> Response {
    app.writes.counts.unavailable.fetch_add(1, Ordering::Relaxed);
    let mut response = text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"));
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after_seconds));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Timestamp;
    use axum::body::Body;

    #[test]
    fn what_is_not_understood_is_told_before_decoding() {
        let check = |pairs: &[(&'static str, &str)]| {
            let headers = pairs.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect();
            understood(&headers).is_ok()
        };
        assert!(check(&[]));
        assert!(check(&[("content-encoding", "snappy"), ("content-type", "application/x-protobuf")]));
        assert!(check(&[("content-type", "application/x-protobuf;proto=prometheus.WriteRequest")]));
        for encoding in ["gzip", "zstd", "", "snappy, gzip"] {
            assert!(!check(&[("content-encoding", encoding)]), "{encoding}");
        }
        for proto in ["proto=io.prometheus.write.v2.Request", " Proto = \"io.prometheus.write.v2.Request\""] {
            assert!(!check(&[("content-type", &format!("application/x-protobuf;{proto}"))]), "{proto}");
        }
    }

    /// A server with the given flags, whose data is not open yet.
    fn starting(flags: &[&str]) -> Arc<App> {
        let args = super::super::args::Args::read(std::iter::once(&"larum").chain(flags)).unwrap();
        let runtime = tokio::runtime::Handle::current();
        Arc::new(App::new(args, &[], super::super::config::Config::default(), runtime))
    }

    fn open(app: &App, folder: &std::path::Path) -> crate::Db {
        let db = crate::Db::open(folder, crate::Options::default()).unwrap();
        app.open(db.clone(), crate::rules::RuleManager::new(&db, Vec::new()).unwrap());
        db
    }

    /// Status, `Retry-After` and text of the answer to a write of `body`.
    async fn answer(app: &Arc<App>, body: Body) -> (u16, Option<u32>, String) {
        let request = Request::post("/api/v1/write").body(body).unwrap();
        let response = write(State(app.clone()), request).await;
        let retry_after = response.headers().get(header::RETRY_AFTER);
        let retry_after = retry_after.map(|v| v.to_str().unwrap().parse().unwrap());
        let status = response.status().as_u16();
        let text = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
        (status, retry_after, String::from_utf8(text.to_vec()).unwrap())
    }

    /// A request with one sample of now, or of the beginning of time.
    fn one_sample(t_ms: i64) -> Body {
        let mut request = vec![0x0a, 0, 0x0a, 14, 0x0a, 8];
        request.extend_from_slice(b"__name__");
        request.extend_from_slice(b"\x12\x02up\x12");
        let mut sample = vec![0x09];
        sample.extend_from_slice(&1f64.to_le_bytes());
        sample.push(0x10);
        let mut rest = t_ms as u64;
        while rest >= 0x80 {
            sample.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        sample.push(rest as u8);
        request.push(sample.len() as u8);
        request.extend(sample);
        request[1] = (request.len() - 2) as u8;
        Body::from(snap::raw::Encoder::new().compress_vec(&request).unwrap())
    }

    fn now() -> Body {
        one_sample(Timestamp::now().as_millis())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_passes_is_told_to_come_again_and_is_then_kept() {
        let folder = tempfile::tempdir().unwrap();
        let app = starting(&[]);
        let starting = answer(&app, now()).await;
        assert_eq!(starting, (503, Some(1), "the server is starting\n".to_owned()));
        let db = open(&app, &folder.path().join("data"));
        assert_eq!(answer(&app, now()).await, (204, None, String::new()));

        // Whatever else is wrong with a batch: what passes comes first.
        db.close().unwrap();
        for t_ms in [Timestamp::now().as_millis(), i64::MIN] {
            let (status, retry_after, text) = answer(&app, one_sample(t_ms)).await;
            assert_eq!((status, retry_after.is_some_and(|s| (1..=5).contains(&s))), (503, true), "{text}");
        }
        app.stop();
        let stopping = answer(&app, now()).await;
        assert_eq!(stopping, (503, Some(5), "the server is shutting down\n".to_owned()));
        assert_eq!(app.writes.counts.unavailable.load(Ordering::Relaxed), 4);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_body_that_does_not_arrive_is_told_to_come_again() {
        /// The body of a client that stalls.
        struct Stalled;
        impl HttpBody for Stalled {
            type Data = axum::body::Bytes;
            type Error = std::convert::Infallible;
            fn poll_frame(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Option<Result<hyper::body::Frame<Self::Data>, Self::Error>>> {
                std::task::Poll::Pending
            }
        }
        let app = starting(&["--web.read-timeout=20ms"]);
        let (status, retry_after, text) = answer(&app, Body::new(Stalled)).await;
        assert_eq!((status, retry_after), (503, Some(5)), "{text}");
        assert!(text.contains("--web.read-timeout"), "{text}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn writes_wait_for_memory_and_are_then_told_to_come_again() {
        let app = starting(&["--ingest.max-inflight-bytes=4096"]);
        let _others = app.writes.reserve(2048, 2048).await.unwrap();
        let _more = app.writes.reserve(2048, 2048).await.unwrap();
        let full = answer(&app, now()).await;
        assert_eq!(full, (503, Some(1), "too many writes at a time\n".to_owned()));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn writes_are_sent_away_while_others_hold_all_memory() {
        let app = starting(&["--memory.limit=64MiB"]);
        app.memory.set(Part::Head, 60 << 20);
        let (status, retry_after, text) = answer(&app, now()).await;
        assert_eq!((status, retry_after), (503, Some(1)), "{text}");
        assert!(text.contains("free for bodies under the memory limit of 64.0MiB"), "{text}");
        app.memory.set(Part::Head, 0);
        assert_eq!(answer(&app, now()).await.2, "the server is starting\n");
    }
}
