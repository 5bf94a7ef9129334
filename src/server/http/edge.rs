//! What every request passes: the rules of origin, counting, and a net under panics.

use super::super::app::App;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

/// Refuses foreign hosts and origins, and answers what browsers ask before they send.
pub async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if let Some(why) = app.origin.refusal(request.method(), request.headers()) {
        return (StatusCode::FORBIDDEN, why + "\n").into_response();
    }
    let origin = request.headers().get(header::ORIGIN).and_then(|v| v.to_str().ok());
    let allowed = origin.and_then(|origin| app.origin.allowed_origin(origin)).map(str::to_owned);
    let mut response = if request.method() == Method::OPTIONS {
        StatusCode::NO_CONTENT.into_response()
    } else {
        next.run(request).await
    };
    if let Some(allowed) = allowed {
        allow_origin(response.headers_mut(), &allowed);
    }
    response
}

fn allow_origin(headers: &mut HeaderMap, origin: &str) {
    let Ok(value) = HeaderValue::from_str(origin) else { return };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, value);
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("Accept, Authorization, Content-Type, Origin"),
    );
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, POST, PUT, DELETE, OPTIONS"),
    );
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Date"));
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
}

/// Counts the request under its route once its answer is sent, and turns a panic into a 500 and a line in
/// the log.
pub async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = match CatchPanic(Box::pin(next.run(request))).await {
        Ok(response) => response,
        Err(what) => {
            let route = route.as_ref().map_or("?", MatchedPath::as_str);
            tracing::error!("a request to {route} panicked: {what}");
            (StatusCode::INTERNAL_SERVER_ERROR, "internal error; see the server's log\n").into_response()
        }
    };
    let route = route.as_ref().map_or("", MatchedPath::as_str);
    let handler = route.strip_prefix(app.prefix.as_str()).unwrap_or(route);
    let (status, size) = (response.status().as_u16(), HttpBody::size_hint(response.body()).exact());
    if let Some(bytes) = size {
        app.http.observe(handler, status, started.elapsed(), bytes);
        return response;
    }
    let handler = handler.to_owned();
    response.map(|inner| Body::new(Observed { inner, app, handler, status, started, bytes: 0 }))
}

/// A body whose length is known at its end.
struct Observed {
    inner: Body,
    app: Arc<App>,
    handler: String,
    status: u16,
    started: Instant,
    bytes: u64,
}

impl HttpBody for Observed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        if let Some(Ok(frame)) = &frame {
            self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        self.app.http.observe(&self.handler, self.status, self.started.elapsed(), self.bytes);
    }
}

/// A future whose panic is an error.
struct CatchPanic<F>(Pin<Box<F>>);

impl<F: Future> Future for CatchPanic<F> {
    type Output = Result<F::Output, String>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // What the request shares with others is behind locks that tolerate a panic.
        match catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(context))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => Poll::Ready(Err(panic_text(&*panic))),
        }
    }
}

/// What a panic said.
pub fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text").to_owned()
}

/// A plain text answer.
pub fn text(status: StatusCode, text: impl Into<Body>) -> Response {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}
