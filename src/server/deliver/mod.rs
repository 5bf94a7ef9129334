//! The HTTP transport of [`crate::notify`]: alerts posted to Alertmanagers.

use super::client::causes;
use super::config::AlertmanagerConfig;
use crate::notify::{SendError, Target, Transport};
use axum::body::Bytes;
use axum::http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use tokio::runtime::Handle;

/// As much of a refusal's text as is logged.
const MAX_ANSWER_BYTES: usize = 4096;

/// Posts alerts over HTTP.
pub struct HttpTransport {
    runtime: Handle,
    client: Client<HttpConnector, Full<Bytes>>,
    authorization: RwLock<HashMap<String, String>>,
}

impl HttpTransport {
    /// A transport whose connections live on `runtime`.
    pub fn new(runtime: Handle) -> HttpTransport {
        let client = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
        HttpTransport { runtime, client, authorization: RwLock::default() }
    }

    /// Takes up whom to send what credentials.
    pub fn configure(&self, alertmanagers: &[AlertmanagerConfig]) {
        let known = alertmanagers.iter().filter_map(|a| Some((a.url.clone(), a.authorization.clone()?)));
        *self.authorization.write().unwrap_or_else(PoisonError::into_inner) = known.collect();
    }

    fn authorization_for(&self, target: &Target) -> Option<String> {
        self.authorization.read().unwrap_or_else(PoisonError::into_inner).get(&target.url).cloned()
    }

    async fn post(&self, target: &Target, body: &[u8]) -> Result<(), SendError> {
        let for_good = |what: String| SendError { retry: false, what };
        let passing = |what: String| SendError { retry: true, what };
        let mut request = Request::post(&target.url)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("Larum/", env!("CARGO_PKG_VERSION")));
        if let Some(authorization) = self.authorization_for(target) {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body)));
        let request = request.map_err(|e| for_good(e.to_string()))?;
        let response = self.client.request(request).await.map_err(|e| passing(causes(&e)))?;
        let status = response.status();
        // Read to the end, so that the connection can be used again.
        let answer = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        if status.is_success() {
            return Ok(());
        }
        let answer = answer.map(|answer| answer.to_bytes()).unwrap_or_default();
        let what = format!("{status}: {}", String::from_utf8_lossy(&answer).trim());
        let refused = status.is_client_error()
            && !matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
        Err(if refused { for_good(what) } else { passing(what) })
    }
}

impl Transport for HttpTransport {
    fn send(&self, target: &Target, body: &[u8]) -> Result<(), SendError> {
        self.runtime.block_on(async {
            tokio::time::timeout(target.timeout, self.post(target, body)).await.unwrap_or_else(|_| {
                Err(SendError { retry: true, what: format!("no answer within {:?}", target.timeout) })
            })
        })
    }
}

#[cfg(test)]
mod tests;
