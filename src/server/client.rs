//! Requests of the command line to a server that runs.

use axum::body::Bytes;
use axum::http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::{Client as HyperClient, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// Longest answer that is read.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// A server, by its URL.
pub struct Client {
    runtime: Runtime,
    client: HyperClient<HttpConnector, Full<Bytes>>,
    base: String,
}

/// An answer of whatever status.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, as text.
    pub text: String,
}

impl Client {
    /// A client of the server at `url`, such as `http://127.0.0.1:9090`.
    ///
    /// # Errors
    /// The URL is none of HTTP, or the system refuses.
    pub fn new(url: &str) -> Result<Client, String> {
        let base = url.trim_end_matches('/');
        if base.parse::<axum::http::Uri>().ok().is_none_or(|uri| uri.scheme_str() != Some("http")) {
            return Err(format!("--url: {url:?} is no address such as http://127.0.0.1:9090"));
        }
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
        let client = HyperClient::builder(TokioExecutor::new()).build(HttpConnector::new());
        Ok(Client { runtime, client, base: base.to_owned() })
    }

    /// Posts `body` to a path, such as `/api/v1/write`.
    ///
    /// # Errors
    /// Why there is no answer, with the URL.
    pub fn post(
        &self,
        path: &str,
        headers: &[(header::HeaderName, &str)],
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<Answer, String> {
        let url = format!("{}{path}", self.base);
        let request = headers
            .iter()
            .fold(Request::post(&url), |request, (name, value)| request.header(name, *value))
            .header(header::USER_AGENT, concat!("Larum/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| format!("{url}: {e}"))?;
        let exchange = async {
            let response = self.client.request(request).await.map_err(|e| causes(&e))?;
            let (head, body) = response.into_parts();
            let bytes = Limited::new(body, MAX_ANSWER_BYTES).collect().await.map_err(|e| e.to_string())?;
            let text = String::from_utf8_lossy(&bytes.to_bytes()).into_owned();
            Ok(Answer { status: head.status, headers: head.headers, text })
        };
        let answer = self.runtime.block_on(async { tokio::time::timeout(timeout, exchange).await });
        let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {timeout:?}")));
        answer.map_err(|e: String| format!("{url}: {e}"))
    }
}

/// An error with what caused it.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
