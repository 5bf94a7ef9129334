//! The pages for people: files of the folder `web`, as they are, in the binary.
//!
//! They ask the HTTP API like any other client. Their addresses are those of Prometheus, so that the
//! links in alerts (`/graph?g0.expr=...`) open the expression here.

use super::app::App;
use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use std::sync::Arc;

/// Nothing but this server's own files and answers: what a label holds cannot become a script.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'self'; frame-ancestors 'self'";

/// All pages are one file, whose script looks at the address.
const PAGES: [&str; 4] = ["/graph", "/query", "/alerts", "/rules"];

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// What the page loads: name, type, content.
const ASSETS: [(&str, &str, &str); 7] = [
    ("/assets/larum.css", "text/css; charset=utf-8", include_str!("../../web/larum.css")),
    ("/assets/larum.js", JAVASCRIPT, include_str!("../../web/larum.js")),
    ("/assets/common.js", JAVASCRIPT, include_str!("../../web/common.js")),
    ("/assets/expression.js", JAVASCRIPT, include_str!("../../web/expression.js")),
    ("/assets/graph.js", JAVASCRIPT, include_str!("../../web/graph.js")),
    ("/assets/alerts.js", JAVASCRIPT, include_str!("../../web/alerts.js")),
    ("/assets/rules.js", JAVASCRIPT, include_str!("../../web/rules.js")),
];

/// The routes of the pages and of what they load; `/` leads to the first. `prefix` is that of all routes.
pub fn router(prefix: &str) -> Router<Arc<App>> {
    let first = format!("{prefix}{}", PAGES[0]);
    let router = Router::new().route("/", get(move || async move { Redirect::temporary(&first) }));
    let page = || async { file("text/html; charset=utf-8", include_str!("../../web/page.html")) };
    let router = PAGES.iter().fold(router, |router, path| router.route(path, get(page)));
    ASSETS.iter().fold(router, |router, &(path, kind, content)| {
        router.route(path, get(move || async move { file(kind, content) }))
    })
}

fn file(kind: &'static str, content: &'static str) -> Response {
    let headers: [(HeaderName, HeaderValue); 4] = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        // Of a few kilobytes; another version of the server has others under the same names.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, content).into_response()
}
