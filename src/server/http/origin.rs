//! Who may ask: which names this server answers to, and which other sites' pages may use it.
//!
//! A server on loopback trusts whoever can reach it; a web page elsewhere could then reach it
//! through the user's browser. By a name of its own that resolves to 127.0.0.1 (DNS rebinding) it
//! would read, by a plain form it would write. So foreign names are refused, and so are changes
//! asked for by pages of other origins.

use axum::http::{HeaderMap, Method, Uri, header};
use std::net::IpAddr;

/// Decides by a request's headers.
#[derive(Debug, Clone)]
pub struct OriginRules {
    /// Whether only this machine reaches the server, so that foreign names are a sign of an attack.
    pub loopback_only: bool,
    /// The host of `--web.external-url`.
    pub external_host: Option<String>,
    /// `--web.cors.origin`.
    pub cors_origin: Option<String>,
}

impl OriginRules {
    /// The rules for a server that listens at `addresses`.
    pub fn new(addresses: &[std::net::SocketAddr], external_url: Option<&str>, cors: Option<&str>) -> Self {
        let external_host = external_url.and_then(|url| url.parse::<Uri>().ok());
        OriginRules {
            loopback_only: addresses.iter().all(|address| address.ip().is_loopback()),
            external_host: external_host.and_then(|uri| Some(uri.host()?.to_ascii_lowercase())),
            cors_origin: cors.map(str::to_owned),
        }
    }

    /// Why the request is refused, if it is.
    pub fn refusal(&self, method: &Method, headers: &HeaderMap) -> Option<String> {
        let text = |name| headers.get(name).and_then(|v: &axum::http::HeaderValue| v.to_str().ok());
        let host = match headers.get(header::HOST) {
            Some(_) => text(header::HOST).unwrap_or("?"),
            // HTTP/1.0; a browser always sends one.
            None => return None,
        };
        if self.loopback_only && !self.is_own(host_of(host)) {
            return Some(format!(
                "the host {host:?} is not this server's: use localhost, or name it by --web.external-url"
            ));
        }
        let changes = !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        if changes && let Some(origin) = text(header::ORIGIN) {
            let same = origin.split_once("://").is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(host));
            if !same && !self.is_external(origin) && self.allowed_origin(origin).is_none() {
                return Some(format!(
                    "pages of the origin {origin:?} may not use this server: see --web.cors.origin"
                ));
            }
        }
        None
    }

    /// What `Access-Control-Allow-Origin` shall say to a page of `origin`: nothing by default.
    pub fn allowed_origin(&self, origin: &str) -> Option<&str> {
        let allowed = self.cors_origin.as_deref()?;
        (allowed == "*" || allowed == ".*" || allowed.eq_ignore_ascii_case(origin))
            .then_some(if allowed == ".*" { "*" } else { allowed })
    }

    fn is_external(&self, origin: &str) -> bool {
        let host = origin.split_once("://").map(|(_, rest)| host_of(rest).to_ascii_lowercase());
        host.is_some() && host == self.external_host
    }

    fn is_own(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        host == "localhost"
            || host.ends_with(".localhost")
            || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
            || Some(&host) == self.external_host.as_ref()
    }
}

/// `host:port` without the port.
fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(address: &str, cors: Option<&str>) -> OriginRules {
        OriginRules::new(&[address.parse().unwrap()], Some("https://Larum.example/x"), cors)
    }

    fn refused(rules: &OriginRules, method: Method, headers: &[(&'static str, &str)]) -> bool {
        let headers = headers.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect();
        rules.refusal(&method, &headers).is_some()
    }

    #[test]
    fn on_loopback_only_own_names_are_answered() {
        let rules = rules("127.0.0.1:9090", None);
        for own in ["localhost:9090", "LOCALHOST", "127.0.0.1:1", "127.8.8.8", "[::1]:9090", "larum.example"]
        {
            assert!(!refused(&rules, Method::GET, &[("host", own)]), "{own}");
        }
        for foreign in ["evil.example", "evil.example:9090", "localhost.evil.example", "10.0.0.1", ""] {
            assert!(refused(&rules, Method::GET, &[("host", foreign)]), "{foreign}");
        }
    }

    #[test]
    fn beyond_loopback_every_name_is_answered() {
        assert!(!refused(&rules("0.0.0.0:9090", None), Method::GET, &[("host", "any.example")]));
    }

    #[test]
    fn pages_of_other_origins_change_nothing_unless_allowed() {
        let from = |origin: &'static str| [("host", "127.0.0.1:9090"), ("origin", origin)];
        let closed = rules("127.0.0.1:9090", None);
        assert!(refused(&closed, Method::POST, &from("https://evil.example")));
        assert!(refused(&closed, Method::POST, &from("null")));
        assert!(!refused(&closed, Method::POST, &from("http://127.0.0.1:9090")));
        assert!(!refused(&closed, Method::POST, &from("https://larum.example")));
        assert!(
            !refused(&closed, Method::GET, &from("https://evil.example")),
            "reading gives no CORS header"
        );
        assert_eq!(closed.allowed_origin("https://a.example"), None);
        let open = rules("127.0.0.1:9090", Some("https://a.example"));
        assert!(!refused(&open, Method::POST, &from("https://a.example")));
        assert!(refused(&open, Method::POST, &from("https://b.example")));
        assert_eq!(open.allowed_origin("https://a.example"), Some("https://a.example"));
    }
}
