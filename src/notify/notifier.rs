//! The thin hand of the queues: one thread per Alertmanager that sends what its queue hands out.

use super::message::{PostableAlert, body};
use super::queue::Queue;
use crate::rules::Alert;
use larum_storage_format::Labels;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Where alerts are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The whole address, e.g. `http://alertmanager:9093/api/v2/alerts`; also its name in metrics.
    pub url: String,
    /// How long one attempt may take.
    pub timeout: Duration,
}

/// Why a batch was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct SendError {
    /// Whether the same batch may be taken later: true unless the receiver said no for good (4xx).
    pub retry: bool,
    /// What happened.
    pub what: String,
}

/// Carries requests to Alertmanagers.
pub trait Transport: Send + Sync + 'static {
    /// POSTs the JSON `body` to the target and waits for the answer, for as long as the target's
    /// timeout at most. Called from a thread of its own for each target.
    fn send(&self, target: &Target, body: &[u8]) -> Result<(), SendError>;
}

/// How a notifier behaves. The defaults are Prometheus'.
#[derive(Debug, Clone)]
pub struct NotifierOptions {
    /// Alerts that may wait for one Alertmanager (`--alertmanager.notification-queue-capacity`).
    pub queue_capacity: usize,
    /// Alerts in one request (`--alertmanager.notification-batch-size`).
    pub batch_size: usize,
    /// Where this server is reached from outside, for links back (`--web.external-url`).
    pub external_url: String,
}

impl Default for NotifierOptions {
    fn default() -> NotifierOptions {
        NotifierOptions { queue_capacity: 10_000, batch_size: 256, external_url: String::new() }
    }
}

/// Sends alerts to all Alertmanagers, each at its own pace.
///
/// Dropping it stops at once; [`Notifier::stop`] sends first what waits.
pub struct Notifier {
    options: NotifierOptions,
    transport: Arc<dyn Transport>,
    configured: Mutex<Configured>,
}

#[derive(Default)]
struct Configured {
    external_labels: Labels,
    lanes: Vec<Lane>,
}

/// One target with its thread.
struct Lane {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    target: Target,
    state: Mutex<LaneState>,
    wake: Condvar,
    sent: AtomicU64,
    errors: AtomicU64,
    requests: AtomicU64,
    latency_micros: AtomicU64,
}

struct LaneState {
    queue: Queue,
    /// Set when the lane is to end: at this time, or as soon as nothing waits.
    end_by: Option<Instant>,
}

/// Figures for metrics. Counters only grow.
#[derive(Debug, Clone, PartialEq)]
pub struct NotifierStats {
    /// `prometheus_notifications_queue_capacity`
    pub queue_capacity: usize,
    /// One entry per Alertmanager; their number is `prometheus_notifications_alertmanagers_discovered`.
    pub targets: Vec<TargetStats>,
}

/// Figures about one Alertmanager.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetStats {
    /// Its address: the label `alertmanager`.
    pub url: String,
    /// Alerts in requests made, failed ones included (`prometheus_notifications_sent_total`).
    pub sent: u64,
    /// Alerts in failed requests (`prometheus_notifications_errors_total`).
    pub errors: u64,
    /// Alerts given up (`prometheus_notifications_dropped_total`).
    pub dropped: u64,
    /// Alerts that wait (`prometheus_notifications_queue_length`).
    pub queue_length: usize,
    /// Requests made (`prometheus_notifications_latency_seconds_count`).
    pub requests: u64,
    /// The time they took (`prometheus_notifications_latency_seconds_sum`).
    pub latency_seconds: f64,
}

impl Notifier {
    /// A notifier without targets; see [`Notifier::configure`].
    pub fn new(options: NotifierOptions, transport: Arc<dyn Transport>) -> Notifier {
        Notifier { options, transport, configured: Mutex::default() }
    }

    /// Sets the targets and the labels added to every alert. Targets that stay keep their queue;
    /// what waits for the others is dropped.
    pub fn configure(&self, targets: Vec<Target>, external_labels: Labels) {
        let mut configured = lock(&self.configured);
        configured.external_labels = external_labels;
        let mut old = std::mem::take(&mut configured.lanes);
        for target in targets {
            if configured.lanes.iter().any(|lane| lane.shared.target.url == target.url) {
                continue;
            }
            let kept = old.iter().position(|lane| lane.shared.target == target);
            let lane = kept.map_or_else(|| self.start(target), |i| old.swap_remove(i));
            configured.lanes.push(lane);
        }
        // Their threads end by themselves; nobody waits for the attempts that are under way.
        end(&old, Instant::now());
    }

    /// Queues alerts for every target. Never waits for a delivery.
    pub fn observe(&self, alerts: &[Alert]) {
        if alerts.is_empty() {
            return;
        }
        let configured = lock(&self.configured);
        if configured.lanes.is_empty() {
            return;
        }
        let messages: Vec<Arc<PostableAlert>> = alerts
            .iter()
            .map(|a| Arc::new(PostableAlert::new(a, &configured.external_labels, &self.options.external_url)))
            .collect();
        for lane in &configured.lanes {
            let mut state = lock(&lane.shared.state);
            for message in &messages {
                state.queue.push(message.clone());
            }
            lane.shared.wake.notify_one();
        }
    }

    /// Sends what waits, for as long as `drain` at most (one attempt that is under way may take
    /// longer, up to its timeout), and ends.
    pub fn stop(&self, drain: Duration) {
        let lanes = std::mem::take(&mut lock(&self.configured).lanes);
        const FOR_EVER: Duration = Duration::from_secs(86_400 * 365);
        end(&lanes, Instant::now() + drain.min(FOR_EVER));
        for thread in lanes.into_iter().filter_map(|lane| lane.thread) {
            let _ = thread.join();
        }
    }

    /// Figures for metrics.
    pub fn stats(&self) -> NotifierStats {
        let configured = lock(&self.configured);
        let targets = configured.lanes.iter().map(|lane| lane.shared.stats()).collect();
        NotifierStats { queue_capacity: self.options.queue_capacity, targets }
    }

    fn start(&self, target: Target) -> Lane {
        let queue = Queue::new(self.options.queue_capacity, self.options.batch_size);
        let shared = Arc::new(Shared {
            target,
            state: Mutex::new(LaneState { queue, end_by: None }),
            wake: Condvar::new(),
            sent: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            latency_micros: AtomicU64::new(0),
        });
        let (transport, of_thread) = (self.transport.clone(), shared.clone());
        let thread = std::thread::Builder::new()
            .name("larum-notify".to_owned())
            .spawn(move || of_thread.run(transport.as_ref()));
        let thread = thread
            .inspect_err(|e| tracing::error!("{}: no thread for notifications: {e}", shared.target.url))
            .ok();
        Lane { shared, thread }
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}

/// Tells the lanes to end at the given time, or as soon as nothing waits.
fn end(lanes: &[Lane], by: Instant) {
    for lane in lanes {
        lock(&lane.shared.state).end_by = Some(by);
        lane.shared.wake.notify_one();
    }
}

impl Shared {
    fn run(&self, transport: &dyn Transport) {
        while let Some(batch) = self.next_batch() {
            self.deliver(transport, batch);
        }
    }

    /// Waits for something to send. `None` when the lane ends.
    fn next_batch(&self) -> Option<Vec<Arc<PostableAlert>>> {
        let mut state = lock(&self.state);
        loop {
            let now = Instant::now();
            if state.end_by.is_some_and(|by| now >= by || state.queue.is_empty()) {
                return None;
            }
            let batch = state.queue.take(now);
            if !batch.is_empty() {
                return Some(batch);
            }
            state = match state.queue.due_at(now).into_iter().chain(state.end_by).min() {
                Some(until) => {
                    let wait = until.saturating_duration_since(now);
                    self.wake.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn deliver(&self, transport: &dyn Transport, batch: Vec<Arc<PostableAlert>>) {
        let started = Instant::now();
        let outcome = transport.send(&self.target, &body(&batch));
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let count = batch.len();
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.latency_micros.fetch_add(micros, Ordering::Relaxed);
        self.sent.fetch_add(count as u64, Ordering::Relaxed);
        let mut state = lock(&self.state);
        match outcome {
            Ok(()) => state.queue.succeeded(),
            Err(error) => {
                self.errors.fetch_add(count as u64, Ordering::Relaxed);
                let url = &self.target.url;
                if error.retry {
                    tracing::warn!("{url}: {count} alerts were not taken and will be sent again: {error}");
                    state.queue.failed(batch, Instant::now());
                } else {
                    tracing::error!("{url}: {count} alerts were refused and are dropped: {error}");
                    state.queue.refused(count);
                }
            }
        }
    }

    fn stats(&self) -> TargetStats {
        let state = lock(&self.state);
        TargetStats {
            url: self.target.url.clone(),
            sent: self.sent.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            dropped: state.queue.dropped(),
            queue_length: state.queue.len(),
            requests: self.requests.load(Ordering::Relaxed),
            latency_seconds: self.latency_micros.load(Ordering::Relaxed) as f64 / 1e6,
        }
    }
}

/// Nothing here is left half done by a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::AlertState;
    use crate::storage::Timestamp;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// Tells the test of each request and waits for the answer it shall give.
    struct Scripted {
        requests: Mutex<Sender<(String, String)>>,
        answers: Mutex<Receiver<Result<(), SendError>>>,
    }

    impl Transport for Scripted {
        fn send(&self, target: &Target, body: &[u8]) -> Result<(), SendError> {
            let body = String::from_utf8(body.to_vec()).unwrap();
            lock(&self.requests).send((target.url.clone(), body)).unwrap();
            lock(&self.answers).recv_timeout(Duration::from_secs(20)).unwrap()
        }
    }

    /// The transport, the requests it is asked for (address and body), and where its answers come from.
    type Script = (Arc<Scripted>, Receiver<(String, String)>, Sender<Result<(), SendError>>);

    fn scripted() -> Script {
        let (requests, seen) = channel();
        let (answer, answers) = channel();
        (Arc::new(Scripted { requests: requests.into(), answers: answers.into() }), seen, answer)
    }

    fn alert(name: &str) -> Alert {
        let t = Timestamp::from_millis(0);
        Alert {
            labels: Labels::from_pairs([("alertname", name)]).unwrap(),
            annotations: Default::default(),
            state: AlertState::Firing,
            active_at: t,
            fired_at: t,
            resolved_at: None,
            valid_until: t,
            value: 1.0,
            expr: "up".into(),
        }
    }

    fn target(url: &str) -> Target {
        Target { url: url.to_owned(), timeout: Duration::from_secs(1) }
    }

    const WAIT: Duration = Duration::from_secs(20);

    #[test]
    fn what_an_alertmanager_missed_is_sent_again_and_what_it_refuses_is_dropped() {
        let (transport, seen, answer) = scripted();
        let notifier = Notifier::new(NotifierOptions::default(), transport);
        notifier.configure(vec![target("http://one")], Labels::from_pairs([("dc", "x")]).unwrap());
        notifier.observe(&[alert("a")]);
        assert!(seen.recv_timeout(WAIT).unwrap().1.contains(r#""dc":"x""#));
        answer.send(Err(SendError { retry: true, what: "connection refused".to_owned() })).unwrap();
        assert!(seen.recv_timeout(WAIT).unwrap().1.contains(r#""alertname":"a""#));
        answer.send(Err(SendError { retry: false, what: "400".to_owned() })).unwrap();
        notifier.observe(&[alert("b")]);
        assert!(seen.recv_timeout(WAIT).unwrap().1.contains(r#""alertname":"b""#));
        answer.send(Ok(())).unwrap();
        // The lane counts the request before it asks for the next one.
        notifier.observe(&[alert("c")]);
        seen.recv_timeout(WAIT).unwrap();
        let stats = notifier.stats().targets.remove(0);
        assert_eq!((stats.sent, stats.errors, stats.dropped, stats.requests), (3, 2, 1, 3));
        answer.send(Ok(())).unwrap();
    }

    #[test]
    fn stopping_sends_first_what_waits() {
        let (transport, seen, answer) = scripted();
        let options = NotifierOptions { batch_size: 1, ..NotifierOptions::default() };
        let notifier = Notifier::new(options, transport);
        notifier.configure(vec![target("http://one"), target("http://one")], Labels::empty());
        for _ in 0..3 {
            answer.send(Ok(())).unwrap();
        }
        notifier.observe(&[alert("a"), alert("b"), alert("c")]);
        notifier.stop(WAIT);
        assert_eq!(seen.try_iter().count(), 3);
    }

    #[test]
    fn a_target_that_stays_keeps_its_queue() {
        let (transport, seen, answer) = scripted();
        let notifier = Notifier::new(NotifierOptions::default(), transport);
        notifier.configure(vec![target("http://one")], Labels::empty());
        notifier.observe(&[alert("a")]);
        assert_eq!(seen.recv_timeout(WAIT).unwrap().0, "http://one");
        notifier.observe(&[alert("b")]);
        notifier.configure(vec![target("http://two"), target("http://one")], Labels::empty());
        let stats = notifier.stats().targets;
        assert_eq!(stats.iter().map(|t| t.queue_length).collect::<Vec<_>>(), [0, 1]);
        answer.send(Ok(())).unwrap();
        assert!(seen.recv_timeout(WAIT).unwrap().1.contains(r#""alertname":"b""#));
        answer.send(Ok(())).unwrap();
    }
}
