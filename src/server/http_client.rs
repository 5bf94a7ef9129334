//! How a server is asked over HTTP: with which credentials, headers and certificates.

use super::client::causes;
use super::secret::Secret;
use super::tls::{Material, TlsConfig};
use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// As much of an answer as is kept.
const MAX_ANSWER_BYTES: usize = 4096;
/// How often a redirect is followed, as in Go.
const MAX_REDIRECTS: usize = 10;
/// How long all addresses of a host together may take to answer.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a connection that is not used stays open, as in Prometheus.
const IDLE: Duration = Duration::from_secs(300);

/// The settings of a client, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpClientConfig {
    /// Who asks.
    pub credentials: Credentials,
    /// Over TLS.
    pub tls: TlsConfig,
    /// Whether a redirect is followed.
    pub follow_redirects: bool,
    /// Further headers.
    pub headers: Vec<(HeaderName, Secret)>,
}

impl Default for HttpClientConfig {
    fn default() -> HttpClientConfig {
        HttpClientConfig {
            credentials: Credentials::default(),
            tls: TlsConfig::default(),
            follow_redirects: true,
            headers: Vec::new(),
        }
    }
}

/// What the header `Authorization` is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Credentials {
    /// There is none.
    #[default]
    None,
    /// A name and a password.
    Basic(Secret, Secret),
    /// A scheme, such as `Bearer`, and what follows it.
    Scheme(String, Secret),
}

impl HttpClientConfig {
    /// The headers that no other server may see, from files as they are now.
    ///
    /// # Errors
    /// A file cannot be read, or holds what no header may.
    pub fn private_headers(&self) -> Result<HeaderMap, String> {
        let read = |secret: &Secret| secret.read().map_err(|error| error.to_string());
        let value = |name: &HeaderName, text: &str| {
            let mut value = HeaderValue::from_str(text)
                .map_err(|_| format!("the value of the header {name} holds a line break or a control"))?;
            value.set_sensitive(true);
            Ok::<_, String>(value)
        };
        let mut headers = HeaderMap::new();
        for (name, secret) in &self.headers {
            headers.append(name, value(name, &read(secret)?)?);
        }
        let authorization = match &self.credentials {
            Credentials::None => return Ok(headers),
            Credentials::Basic(user, password) => {
                format!("Basic {}", base64(format!("{}:{}", read(user)?, read(password)?).as_bytes()))
            }
            Credentials::Scheme(scheme, secret) => format!("{scheme} {}", read(secret)?),
        };
        headers.insert(header::AUTHORIZATION, value(&header::AUTHORIZATION, &authorization)?);
        Ok(headers)
    }
}

/// Standard base64 with padding (RFC 4648).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().enumerate().fold(0u32, |bits, (i, &b)| bits | u32::from(b) << (16 - 8 * i));
        for i in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * i)) as usize & 63];
            out.push(if i <= group.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

type Connections = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Posts bodies, over connections that it keeps.
pub struct HttpClient {
    config: HttpClientConfig,
    /// The connections, and the certificates they were made with.
    connections: Mutex<Option<(Material, Connections)>>,
}

/// A client with its files read, for one request.
pub struct Prepared {
    connections: Connections,
    private_headers: HeaderMap,
    follow_redirects: bool,
}

impl HttpClient {
    /// A client with these settings.
    pub fn new(config: HttpClientConfig) -> HttpClient {
        HttpClient { config, connections: Mutex::default() }
    }

    /// Reads secrets and certificates as they are now. Blocks.
    ///
    /// # Errors
    /// Which file cannot be used, and why.
    pub fn prepare(&self) -> Result<Prepared, String> {
        Ok(Prepared {
            connections: self.connections()?,
            private_headers: self.config.private_headers()?,
            follow_redirects: self.config.follow_redirects,
        })
    }

    /// The connections, made anew if a certificate has changed.
    fn connections(&self) -> Result<Connections, String> {
        let tls = &self.config.tls;
        let material = tls.material().map_err(|error| error.to_string())?;
        let mut kept = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made_with, connections)) = &*kept
            && *made_with == material
        {
            return Ok(connections.clone());
        }
        let client = tls.client(&material).map_err(|error| error.to_string())?;
        let builder = HttpsConnectorBuilder::new().with_tls_config(client).https_or_http();
        let mut plain = HttpConnector::new();
        plain.enforce_http(false);
        plain.set_connect_timeout(Some(CONNECT));
        let connector = match &tls.server_name {
            Some(name) => {
                builder.with_server_name_resolver(FixedServerNameResolver::new(name.clone())).enable_http1()
            }
            None => builder.enable_http1(),
        };
        let mut builder = Client::builder(TokioExecutor::new());
        let connections = builder
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .build(connector.wrap_connector(plain));
        *kept = Some((material, connections.clone()));
        Ok(connections)
    }
}

impl Prepared {
    /// Posts JSON and gives back the status and the start of the answer.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn post_json(&self, url: &str, body: Bytes) -> Result<(StatusCode, String), String> {
        let first: Uri = url.parse().map_err(|e| format!("{url}: {e}"))?;
        let mut uri = first.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = Request::post(&uri)
                .header(header::CONTENT_TYPE, "application/json")
                .header(header::USER_AGENT, concat!("Larum/", env!("CARGO_PKG_VERSION")))
                .body(Full::new(body.clone()))
                .map_err(|e| format!("{uri}: {e}"))?;
            // Nobody else is to learn them.
            if (uri.scheme(), uri.authority()) == (first.scheme(), first.authority()) {
                request.headers_mut().extend(self.private_headers.clone());
            }
            let response = self.connections.request(request).await.map_err(|e| causes(&e))?;
            let status = response.status();
            let location = response.headers().get(header::LOCATION).map(|to| to.as_bytes().to_owned());
            // Mostly read to the end, so that the connection can be used again.
            let (mut body, mut answer) = (response.into_body(), Vec::new());
            while answer.len() < MAX_ANSWER_BYTES
                && let Some(Ok(frame)) = body.frame().await
            {
                answer.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
            }
            answer.truncate(MAX_ANSWER_BYTES);
            let answer = String::from_utf8_lossy(&answer).trim().to_owned();
            let Some(to) = location.filter(|_| status.is_redirection() && self.follow_redirects) else {
                return Ok((status, answer));
            };
            let to = String::from_utf8_lossy(&to).into_owned();
            uri = redirected(status, &uri, &to)?;
        }
        Err(format!("more than {MAX_REDIRECTS} redirects, the last to {uri}"))
    }
}

/// Where a redirect leads. Only those are followed that keep the method and the body: whoever got a
/// GET instead would take nothing, and answer that all is well.
fn redirected(status: StatusCode, from: &Uri, to: &str) -> Result<Uri, String> {
    if !matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT) {
        return Err(format!("{status} to {to}: this redirect would lose what is sent; use that address"));
    }
    let scheme = from.scheme_str().unwrap_or("http");
    let whole = if to.starts_with("//") {
        format!("{scheme}:{to}")
    } else if to.starts_with('/') {
        format!("{scheme}://{}{to}", from.authority().map_or("", |authority| authority.as_str()))
    } else {
        to.to_owned()
    };
    let uri = whole.parse::<Uri>().ok().filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")));
    uri.ok_or_else(|| format!("{status} to {to}: no address that can be followed"))
}
