//! A place for the samples of one series that do not fit the rows of its scrape group: native
//! histograms, samples with a start timestamp, late samples, and all samples of a series that
//! keeps departing from its group.

use larum_storage_format::{Histogram, is_stale};
use std::collections::BTreeMap;
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

    pub fn is_stale(&self) -> bool {
        self.histogram.as_ref().map_or(is_stale(self.value), |h| is_stale(h.sum))
    }

    /// Whether a sample of the same time that came before gives way to this one: the later write
    /// wins, but a stale marker loses to any value.
    pub fn replaces(&self, before: &Held) -> bool {
        !self.is_stale() || before.is_stale()
    }
}

/// Samples in order of time: those that came in order in a vector, the others in a tree.
#[derive(Debug, Default)]
pub(super) struct Slot {
    in_order: Vec<(i64, Held)>,
    late: BTreeMap<i64, Held>,
}

impl Slot {
    /// How many samples are here.
    pub fn len(&self) -> usize {
        self.in_order.len() + self.late.len()
    }

    /// Puts a sample.
    pub fn put(&mut self, t_ms: i64, held: Held) {
        let last = self.in_order.last().map(|(t, _)| *t);
        if last.is_none_or(|last| last < t_ms) && !self.late.contains_key(&t_ms) {
            self.in_order.push((t_ms, held));
            return;
        }
        let before = match self.in_order.binary_search_by_key(&t_ms, |(t, _)| *t) {
            Ok(at) => &mut self.in_order[at].1,
            Err(_) => self.late.entry(t_ms).or_insert_with(|| held.clone()),
        };
        if held.replaces(before) {
            *before = held;
        }
    }

    /// Calls `f` with the samples in `min_ms..=max_ms`, ascending by time.
    pub fn for_each<'a>(&'a self, min_ms: i64, max_ms: i64, mut f: impl FnMut(i64, &'a Held)) {
        if min_ms > max_ms {
            return;
        }
        let from = self.in_order.partition_point(|(t, _)| *t < min_ms);
        let mut late = self.late.range(min_ms..=max_ms).peekable();
        for (t, held) in self.in_order[from..].iter().take_while(|(t, _)| *t <= max_ms) {
            while let Some((late_t, late_held)) = late.next_if(|(late_t, _)| *late_t < t) {
                f(*late_t, late_held);
            }
            f(*t, held);
        }
        late.for_each(|(t, held)| f(*t, held));
    }
}
