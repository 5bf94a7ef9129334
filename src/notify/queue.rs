//! What waits to be sent to one Alertmanager: pure decisions about what goes when.
//!
//! Each alert waits at most once: a later message about it replaces the one that waits, so that
//! an Alertmanager which comes back is told the present state and nothing else. Alerts that fire
//! are handed in again and again by the rules, so nothing that still fires is lost for good even
//! if the queue overflows.

use super::message::PostableAlert;
use larum_storage_format::Labels;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The first pause after a failure; doubled with each failure that follows, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Alerts that wait to be sent to one Alertmanager.
#[derive(Debug)]
pub struct Queue {
    capacity: usize,
    batch_size: usize,
    /// The alerts that wait, oldest first, by their identity. Invariant: the same as the keys of `waiting`.
    order: VecDeque<Labels>,
    waiting: HashMap<Labels, Arc<PostableAlert>>,
    failures: u32,
    not_before: Option<Instant>,
    dropped: u64,
}

impl Queue {
    /// An empty queue that holds `capacity` alerts and hands them out `batch_size` at a time.
    pub fn new(capacity: usize, batch_size: usize) -> Queue {
        Queue {
            capacity: capacity.max(1),
            batch_size: batch_size.max(1),
            order: VecDeque::new(),
            waiting: HashMap::new(),
            failures: 0,
            not_before: None,
            dropped: 0,
        }
    }

    /// Adds an alert, or replaces the message about it that waits. In a full queue the alert that
    /// has waited longest is dropped.
    pub fn push(&mut self, alert: Arc<PostableAlert>) {
        if let Some(waiting) = self.waiting.get_mut(&alert.identity) {
            *waiting = alert;
            return;
        }
        if self.order.len() >= self.capacity
            && let Some(oldest) = self.order.pop_front()
        {
            self.waiting.remove(&oldest);
            self.dropped += 1;
        }
        self.order.push_back(alert.identity.clone());
        self.waiting.insert(alert.identity.clone(), alert);
    }

    /// The alerts to send now: none while a pause lasts, else those that have waited longest. The
    /// caller reports back by [`Queue::succeeded`], [`Queue::refused`] or [`Queue::failed`].
    pub fn take(&mut self, now: Instant) -> Vec<Arc<PostableAlert>> {
        if self.not_before.is_some_and(|t| now < t) {
            return Vec::new();
        }
        let count = self.order.len().min(self.batch_size);
        self.order.drain(..count).filter_map(|identity| self.waiting.remove(&identity)).collect()
    }

    /// When [`Queue::take`] will have something: `None` while nothing waits.
    pub fn due_at(&self, now: Instant) -> Option<Instant> {
        (!self.order.is_empty()).then(|| self.not_before.unwrap_or(now))
    }

    /// The Alertmanager took the batch.
    pub fn succeeded(&mut self) {
        self.failures = 0;
        self.not_before = None;
    }

    /// Ends a pause: what made the last attempt fail may be mended.
    pub fn retry_now(&mut self) {
        self.not_before = None;
    }

    /// The Alertmanager will never take the batch of `count` alerts.
    pub fn refused(&mut self, count: usize) {
        self.succeeded();
        self.dropped += count as u64;
    }

    /// The batch did not arrive. It goes back to the front, save for alerts of which there is a
    /// later message by now, and a pause begins.
    pub fn failed(&mut self, batch: Vec<Arc<PostableAlert>>, now: Instant) {
        for alert in batch.into_iter().rev() {
            if self.waiting.contains_key(&alert.identity) {
                continue;
            }
            if self.order.len() >= self.capacity {
                // These are the oldest, and the oldest go first.
                self.dropped += 1;
                continue;
            }
            self.order.push_front(alert.identity.clone());
            self.waiting.insert(alert.identity.clone(), alert);
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(10)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now + pause);
    }

    /// How many alerts wait.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether no alert waits.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// How many alerts were dropped, because the queue was full or they were refused.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Timestamp;

    fn alert(name: &str, ends_at_ms: i64) -> Arc<PostableAlert> {
        let labels = Labels::from_pairs([("alertname", name)]).unwrap();
        Arc::new(PostableAlert {
            identity: labels.clone(),
            labels,
            annotations: Default::default(),
            starts_at: Timestamp::from_millis(0),
            ends_at: Timestamp::from_millis(ends_at_ms),
            generator_url: String::new(),
        })
    }

    fn names(batch: &[Arc<PostableAlert>]) -> Vec<(String, i64)> {
        batch.iter().map(|a| (a.labels.get("alertname").unwrap().to_owned(), a.ends_at.as_millis())).collect()
    }

    fn name(text: &str, ends_at_ms: i64) -> (String, i64) {
        (text.to_owned(), ends_at_ms)
    }

    #[test]
    fn batches_are_handed_out_in_order_and_bounded() {
        let now = Instant::now();
        let mut queue = Queue::new(10, 2);
        assert_eq!(queue.due_at(now), None);
        for n in ["a", "b", "c"] {
            queue.push(alert(n, 0));
        }
        assert_eq!(queue.due_at(now), Some(now));
        assert_eq!(names(&queue.take(now)), [name("a", 0), name("b", 0)]);
        assert_eq!(names(&queue.take(now)), [name("c", 0)]);
        assert!(queue.take(now).is_empty());
    }

    #[test]
    fn a_later_message_replaces_the_one_that_waits() {
        let now = Instant::now();
        let mut queue = Queue::new(10, 10);
        queue.push(alert("a", 1));
        queue.push(alert("b", 1));
        queue.push(alert("a", 2));
        assert_eq!(names(&queue.take(now)), [name("a", 2), name("b", 1)]);
    }

    #[test]
    fn a_full_queue_drops_the_oldest_and_counts_it() {
        let mut queue = Queue::new(2, 10);
        for n in ["a", "b", "c"] {
            queue.push(alert(n, 0));
        }
        assert_eq!((queue.len(), queue.dropped()), (2, 1));
        let now = Instant::now();
        let batch = queue.take(now);
        assert_eq!(names(&batch), [name("b", 0), name("c", 0)]);
        for n in ["d", "e"] {
            queue.push(alert(n, 0));
        }
        queue.failed(batch, now);
        assert_eq!((queue.len(), queue.dropped()), (2, 3));
        queue.refused(4);
        assert_eq!(queue.dropped(), 7);
    }

    #[test]
    fn after_a_failure_the_present_state_is_sent_again_with_growing_pauses() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut queue = Queue::new(10, 10);
        queue.push(alert("a", 1));
        queue.push(alert("b", 1));
        let batch = queue.take(start);
        queue.push(alert("b", 2));
        queue.failed(batch, start);
        assert!(queue.take(start).is_empty());
        assert_eq!(queue.due_at(start), Some(start + second));
        let batch = queue.take(start + second);
        assert_eq!(names(&batch), [name("a", 1), name("b", 2)]);
        queue.failed(batch, start + second);
        assert_eq!(queue.due_at(start), Some(start + 3 * second));
        for _ in 0..100 {
            queue.failed(Vec::new(), start);
        }
        assert_eq!(queue.due_at(start), Some(start + LONGEST_PAUSE));
        queue.retry_now();
        assert_eq!(queue.due_at(start), Some(start));
        queue.failed(Vec::new(), start);
        queue.succeeded();
        assert_eq!(queue.take(start).len(), 2);
    }
}
