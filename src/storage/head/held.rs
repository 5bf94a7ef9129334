//! One sample of the head, whatever it is made of.

use larum_storage_format::{Histogram, is_stale};
use std::sync::Arc;

/// One sample in the head.
#[derive(Debug, Clone)]
pub(super) struct Held {
    /// The float; 0.0 if there is a histogram.
    pub value: f64,
    /// The histogram, if it is one.
    pub histogram: Option<Arc<Histogram>>,
    /// The start timestamp, 0 for unknown.
    pub start_ms: i64,
}

impl Held {
    /// A float without a start timestamp.
    pub fn float(value: f64) -> Held {
        Held { value, histogram: None, start_ms: 0 }
    }

    fn is_stale(&self) -> bool {
        self.histogram.as_ref().map_or(is_stale(self.value), |h| is_stale(h.sum))
    }

    /// Whether a sample of the same time that came before gives way to this one: the later write
    /// wins, but a stale marker loses to any value.
    pub fn replaces(&self, before: &Held) -> bool {
        !self.is_stale() || before.is_stale()
    }
}
