//! Counters of HTTP requests, by route.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The upper bounds of `prometheus_http_request_duration_seconds`, as in Prometheus.
pub const DURATION_BOUNDS: [f64; 9] = [0.1, 0.2, 0.4, 1.0, 3.0, 8.0, 20.0, 60.0, 120.0];

/// Counters of all routes.
#[derive(Default)]
pub struct HttpMetrics {
    routes: Mutex<BTreeMap<String, RouteMetrics>>,
}

/// Counters of one route; they only grow.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RouteMetrics {
    /// Requests by status code.
    pub codes: BTreeMap<u16, u64>,
    /// Requests by duration: not above each of [`DURATION_BOUNDS`], and above the one before.
    pub durations: [u64; DURATION_BOUNDS.len()],
    /// Seconds that all requests took.
    pub seconds: f64,
    /// Bytes of all answers.
    pub bytes: u64,
}

impl RouteMetrics {
    /// How many requests there were.
    pub fn count(&self) -> u64 {
        self.codes.values().sum()
    }
}

impl HttpMetrics {
    /// Counts one request. `route` is a pattern, so that there are few.
    pub fn observe(&self, route: &str, code: u16, took: Duration, bytes: u64) {
        let seconds = took.as_secs_f64();
        let mut routes = self.lock();
        if !routes.contains_key(route) {
            routes.insert(route.to_owned(), RouteMetrics::default());
        }
        let Some(metrics) = routes.get_mut(route) else { return };
        *metrics.codes.entry(code).or_default() += 1;
        if let Some(bucket) = DURATION_BOUNDS.iter().position(|bound| seconds <= *bound) {
            metrics.durations[bucket] += 1;
        }
        metrics.seconds += seconds;
        metrics.bytes += bytes;
    }

    /// The counters as they are now.
    pub fn snapshot(&self) -> BTreeMap<String, RouteMetrics> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, RouteMetrics>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
