//! The thin hand of the queues: one thread per Alertmanager that sends what its queue hands out.

use super::message::{PostableAlert, body};
use super::queue::Queue;
use crate::relabel::Rule;
use crate::rules::Alert;
use larum_storage_format::Labels;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

type Messages = Vec<Arc<PostableAlert>>;

/// Why a batch was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct SendError {
    /// Whether the same batch may be taken later: true unless the receiver refused what is in it.
    pub retry: bool,
    /// What happened.
    pub what: String,
}

/// Carries requests to Alertmanagers.
pub trait Transport: Send + Sync + 'static {
    /// POSTs the JSON `body` to `url` and waits for the answer, for a bounded time. Called from a
    /// thread of its own for each address.
    fn send(&self, url: &str, body: Vec<u8>) -> Result<(), SendError>;
}

/// How a notifier behaves. The defaults are Prometheus'.
#[derive(Debug, Clone)]
pub struct NotifierOptions {
    /// Alerts that may wait for one Alertmanager (`--alertmanager.notification-queue-capacity`).
    pub queue_capacity: usize,
    /// Alerts in one request (`--alertmanager.notification-batch-size`).
    pub batch_size: usize,
    /// How long what waits is still sent once the notifier stops, or an Alertmanager is no longer
    /// among those to be told (`--alertmanager.drain-notification-queue-on-shutdown`).
    pub drain: Duration,
    /// Where this server is reached from outside, for links back (`--web.external-url`).
    pub external_url: String,
}

impl Default for NotifierOptions {
    fn default() -> NotifierOptions {
        NotifierOptions {
            queue_capacity: 10_000,
            batch_size: 256,
            drain: Duration::from_secs(10),
            external_url: String::new(),
        }
    }
}

/// Who is told, and of what.
#[derive(Clone, Default)]
pub struct NotifierConfig {
    /// Added to every alert that has no label of that name.
    pub external_labels: Labels,
    /// Rules for the labels of every alert (`alerting.alert_relabel_configs`).
    pub alert_relabel: Vec<Rule>,
    /// The Alertmanagers.
    pub sets: Vec<AlertmanagerSet>,
}

/// Alertmanagers that are told of the same alerts in the same way.
#[derive(Clone)]
pub struct AlertmanagerSet {
    /// How they are reached.
    pub transport: Arc<dyn Transport>,
    /// Further rules for the labels of what they are told (`alert_relabel_configs`).
    pub alert_relabel: Vec<Rule>,
    /// Their addresses, such as `http://alertmanager:9093/api/v2/alerts`; their names in metrics too.
    pub urls: Vec<String>,
}

/// Sends alerts to all Alertmanagers, each at its own pace.
///
/// Dropping it stops at once; [`Notifier::stop`] sends first what waits, to those who take it.
pub struct Notifier {
    options: NotifierOptions,
    configured: Mutex<Configured>,
}

#[derive(Default)]
struct Configured {
    external_labels: Labels,
    alert_relabel: Vec<Rule>,
    sets: Vec<LaneSet>,
    /// Lanes that are no longer told anything, and still send what waits.
    leaving: Vec<Arc<Lane>>,
}

#[derive(Default)]
struct LaneSet {
    alert_relabel: Vec<Rule>,
    lanes: Vec<Arc<Lane>>,
}

/// One Alertmanager, which has a thread of its own.
struct Lane {
    url: String,
    state: Mutex<LaneState>,
    /// Something of the state has changed.
    changed: Condvar,
}

struct LaneState {
    transport: Arc<dyn Transport>,
    queue: Queue,
    stats: TargetStats,
    /// Set when the lane is to end: at this time, as soon as nothing waits, or when an attempt fails.
    end_by: Option<Instant>,
    /// Whether its thread has ended.
    ended: bool,
}

/// Figures for metrics. Counters only grow.
#[derive(Debug, Clone, PartialEq)]
pub struct NotifierStats {
    /// `prometheus_notifications_queue_capacity`
    pub queue_capacity: usize,
    /// One entry per Alertmanager; their number is `prometheus_notifications_alertmanagers_discovered`.
    pub targets: Vec<TargetStats>,
}

/// The upper bounds of `prometheus_notifications_latency_histogram_seconds`, as in Prometheus.
pub const LATENCY_BOUNDS: [f64; 4] = [0.01, 0.1, 1.0, 10.0];

/// Figures about one Alertmanager.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TargetStats {
    /// Its address: the label `alertmanager`.
    pub url: String,
    /// Alerts that it took (`prometheus_notifications_sent_total`).
    pub sent: u64,
    /// Alerts in failed requests (`prometheus_notifications_errors_total`).
    pub errors: u64,
    /// Alerts given up (`prometheus_notifications_dropped_total`).
    pub dropped: u64,
    /// Alerts that wait (`prometheus_notifications_queue_length`).
    pub queue_length: usize,
    /// Requests that succeeded (`prometheus_notifications_latency_seconds_count`).
    pub requests: u64,
    /// The time they took (`prometheus_notifications_latency_seconds_sum`).
    pub latency_seconds: f64,
    /// These by their time: not above each of [`LATENCY_BOUNDS`], and above the one before.
    pub latencies: [u64; LATENCY_BOUNDS.len()],
}

impl TargetStats {
    fn succeeded(&mut self, alerts: usize, took: Duration) {
        let seconds = took.as_secs_f64();
        self.sent += alerts as u64;
        self.requests += 1;
        self.latency_seconds += seconds;
        if let Some(bucket) = LATENCY_BOUNDS.iter().position(|bound| seconds <= *bound) {
            self.latencies[bucket] += 1;
        }
    }

    /// Adds the figures of another lane to the same address.
    fn add(&mut self, other: &TargetStats) {
        self.sent += other.sent;
        self.errors += other.errors;
        self.dropped += other.dropped;
        self.queue_length += other.queue_length;
        self.requests += other.requests;
        self.latency_seconds += other.latency_seconds;
        for (mine, others) in self.latencies.iter_mut().zip(other.latencies) {
            *mine += others;
        }
    }
}

impl Notifier {
    /// A notifier that tells nobody; see [`Notifier::configure`].
    pub fn new(options: NotifierOptions) -> Notifier {
        Notifier { options, configured: Mutex::default() }
    }

    /// Sets who is told, and of what. Addresses that stay keep their queue, and what paused after a
    /// failure is tried at once if the way to reach it is new. What waits for the others is still
    /// sent, for as long as [`NotifierOptions::drain`].
    pub fn configure(&self, config: NotifierConfig) {
        let mut configured = lock(&self.configured);
        configured.external_labels = config.external_labels;
        configured.alert_relabel = config.alert_relabel;
        let mut old: Vec<_> = configured.sets.drain(..).flat_map(|set| set.lanes).collect();
        for AlertmanagerSet { transport, alert_relabel, urls } in config.sets {
            let mut set = LaneSet { alert_relabel, lanes: Vec::new() };
            for url in urls {
                if set.lanes.iter().any(|lane| lane.url == url) {
                    continue;
                }
                let kept = old.iter().position(|lane| lane.url == url).map(|i| old.remove(i));
                let lane = kept.inspect(|lane| lane.use_transport(&transport));
                set.lanes.push(lane.unwrap_or_else(|| self.start(url, transport.clone())));
            }
            configured.sets.push(set);
        }
        // Their threads end by themselves; nobody waits for them here.
        let end_by = Instant::now() + self.options.drain;
        old.iter().for_each(|lane| lane.end(end_by));
        configured.leaving.extend(old);
        configured.leaving.retain(|lane| !lock(&lane.state).ended);
    }

    /// Queues alerts for every Alertmanager. Never waits for a delivery.
    pub fn observe(&self, alerts: &[Alert]) {
        let configured = lock(&self.configured);
        if alerts.is_empty() || configured.sets.is_empty() {
            return;
        }
        let messages = alerts.iter().filter_map(|alert| {
            let message = PostableAlert::new(alert, &configured.external_labels, &self.options.external_url);
            message.relabelled(&configured.alert_relabel).map(Arc::new)
        });
        let messages: Messages = messages.collect();
        for set in &configured.sets {
            let relabelled: Messages;
            let messages = if set.alert_relabel.is_empty() {
                &messages
            } else {
                let relabel = |message: &Arc<PostableAlert>| {
                    PostableAlert::clone(message).relabelled(&set.alert_relabel)
                };
                relabelled = messages.iter().filter_map(relabel).map(Arc::new).collect();
                &relabelled
            };
            for lane in &set.lanes {
                lane.push(messages);
            }
        }
    }

    /// Sends what waits, for as long as [`NotifierOptions::drain`], and ends. What is under way then
    /// is left to itself.
    pub fn stop(&self) {
        self.end(self.options.drain);
    }

    fn end(&self, within: Duration) {
        let Configured { sets, mut leaving, .. } = std::mem::take(&mut *lock(&self.configured));
        let end_by = Instant::now() + within;
        for lane in sets.into_iter().flat_map(|set| set.lanes) {
            lane.end(end_by);
            leaving.push(lane);
        }
        for lane in leaving {
            if !lane.wait_for_end(end_by) {
                tracing::warn!("{}: an answer is not waited for any longer", lane.url);
            }
        }
    }

    /// Figures for metrics.
    pub fn stats(&self) -> NotifierStats {
        let configured = lock(&self.configured);
        let mut targets: Vec<TargetStats> = Vec::new();
        for stats in configured.sets.iter().flat_map(|set| &set.lanes).map(|lane| lane.stats()) {
            match targets.iter_mut().find(|target| target.url == stats.url) {
                Some(target) => target.add(&stats),
                None => targets.push(stats),
            }
        }
        NotifierStats { queue_capacity: self.options.queue_capacity, targets }
    }

    fn start(&self, url: String, transport: Arc<dyn Transport>) -> Arc<Lane> {
        let lane = Arc::new(Lane {
            state: Mutex::new(LaneState {
                transport,
                queue: Queue::new(self.options.queue_capacity, self.options.batch_size),
                stats: TargetStats { url: url.clone(), ..TargetStats::default() },
                end_by: None,
                ended: false,
            }),
            changed: Condvar::new(),
            url,
        });
        let of_thread = lane.clone();
        let thread =
            std::thread::Builder::new().name("larum-notify".to_owned()).spawn(move || of_thread.run());
        if let Err(error) = thread {
            tracing::error!("{}: no thread for notifications: {error}", lane.url);
            lock(&lane.state).ended = true;
        }
        lane
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}

impl Lane {
    fn run(&self) {
        while let Some((transport, batch)) = self.next_batch() {
            self.deliver(&transport, batch);
        }
        let mut state = lock(&self.state);
        state.ended = true;
        let left = state.queue.len();
        drop(state);
        self.changed.notify_all();
        if left > 0 {
            tracing::warn!("{}: {left} alerts were not sent before the end", self.url);
        }
    }

    /// Waits for something to send. `None` when the lane ends.
    fn next_batch(&self) -> Option<(Arc<dyn Transport>, Messages)> {
        let mut state = lock(&self.state);
        loop {
            let now = Instant::now();
            if state.end_by.is_some_and(|by| now >= by || state.queue.is_empty()) {
                return None;
            }
            let batch = state.queue.take(now);
            if !batch.is_empty() {
                return Some((state.transport.clone(), batch));
            }
            let until = state.queue.due_at(now).into_iter().chain(state.end_by).min();
            state = self.wait(state, until);
        }
    }

    fn deliver(&self, transport: &Arc<dyn Transport>, batch: Messages) {
        let started = Instant::now();
        let outcome = transport.send(&self.url, body(&batch));
        let took = started.elapsed();
        let (url, count) = (&self.url, batch.len());
        let mut state = lock(&self.state);
        match outcome {
            Ok(()) => {
                state.stats.succeeded(count, took);
                state.queue.succeeded();
            }
            Err(error) => {
                state.stats.errors += count as u64;
                if error.retry {
                    tracing::warn!("{url}: {count} alerts were not taken and will be sent again: {error}");
                    state.queue.failed(batch, Instant::now());
                    if !Arc::ptr_eq(&state.transport, transport) {
                        state.queue.retry_now();
                    }
                    // A stop does not wait for one that is not there.
                    state.end_by = state.end_by.map(|_| Instant::now());
                } else {
                    tracing::error!("{url}: {count} alerts were refused and are dropped: {error}");
                    state.queue.refused(count);
                }
            }
        }
    }

    fn push(&self, messages: &[Arc<PostableAlert>]) {
        let mut state = lock(&self.state);
        let dropped = state.queue.dropped();
        for message in messages {
            state.queue.push(message.clone());
        }
        let dropped = state.queue.dropped() - dropped;
        drop(state);
        self.changed.notify_all();
        if dropped > 0 {
            tracing::warn!("{}: the queue is full, the {dropped} oldest alerts are dropped", self.url);
        }
    }

    fn use_transport(&self, transport: &Arc<dyn Transport>) {
        let mut state = lock(&self.state);
        if !Arc::ptr_eq(&state.transport, transport) {
            state.transport = transport.clone();
            state.queue.retry_now();
            self.changed.notify_all();
        }
    }

    /// Tells the lane to end at the given time, as soon as nothing waits, or when an attempt fails; one
    /// is made at once.
    fn end(&self, by: Instant) {
        let mut state = lock(&self.state);
        state.end_by = Some(by);
        state.queue.retry_now();
        drop(state);
        self.changed.notify_all();
    }

    /// Waits for the lane to end, but not beyond `by`; whether it has.
    fn wait_for_end(&self, by: Instant) -> bool {
        let mut state = lock(&self.state);
        while !state.ended && Instant::now() < by {
            state = self.wait(state, Some(by));
        }
        state.ended
    }

    fn wait<'a>(
        &self,
        state: MutexGuard<'a, LaneState>,
        until: Option<Instant>,
    ) -> MutexGuard<'a, LaneState> {
        match until {
            Some(until) => {
                let wait = until.saturating_duration_since(Instant::now());
                self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0
            }
            None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
        }
    }

    fn stats(&self) -> TargetStats {
        let state = lock(&self.state);
        let (dropped, queue_length) = (state.queue.dropped(), state.queue.len());
        TargetStats { dropped, queue_length, ..state.stats.clone() }
    }
}

/// Nothing here is left half done by a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relabel::RuleText;
    use crate::rules::AlertState;
    use crate::storage::Timestamp;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// Tells the test of each request and waits for the answer it shall give.
    struct Scripted {
        requests: Mutex<Sender<(String, String)>>,
        answers: Mutex<Receiver<Result<(), SendError>>>,
    }

    impl Transport for Scripted {
        fn send(&self, url: &str, body: Vec<u8>) -> Result<(), SendError> {
            lock(&self.requests).send((url.to_owned(), String::from_utf8(body).unwrap())).unwrap();
            // Whoever does not answer leaves it waiting until the test is over.
            lock(&self.answers).recv_timeout(WAIT).unwrap_or_else(|_| failed(true))
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

    fn set(transport: &Arc<Scripted>, urls: &[&str]) -> AlertmanagerSet {
        let urls = urls.iter().map(|url| (*url).to_owned()).collect();
        AlertmanagerSet { transport: transport.clone(), alert_relabel: Vec::new(), urls }
    }

    fn to(sets: Vec<AlertmanagerSet>) -> NotifierConfig {
        NotifierConfig { sets, ..NotifierConfig::default() }
    }

    /// A rule that drops alerts of this name.
    fn without(name: &str) -> Vec<Rule> {
        let text = RuleText {
            source_labels: vec!["alertname".to_owned()],
            regex: Some(name.to_owned()),
            action: Some("drop".to_owned()),
            ..RuleText::default()
        };
        vec![Rule::new(text).unwrap()]
    }

    fn failed(retry: bool) -> Result<(), SendError> {
        Err(SendError { retry, what: "no".to_owned() })
    }

    const WAIT: Duration = Duration::from_secs(20);

    #[test]
    fn what_an_alertmanager_missed_is_sent_again_and_what_it_refuses_is_dropped() {
        let (transport, seen, answer) = scripted();
        let notifier = Notifier::new(NotifierOptions::default());
        let external_labels = Labels::from_pairs([("dc", "x")]).unwrap();
        let sets = vec![set(&transport, &["http://one"])];
        notifier.configure(NotifierConfig { external_labels, sets, ..NotifierConfig::default() });
        notifier.observe(&[alert("a")]);
        assert!(seen.recv_timeout(WAIT).unwrap().1.contains(r#""dc":"x""#));
        answer.send(failed(true)).unwrap();
        assert!(seen.recv_timeout(WAIT).unwrap().1.contains(r#""alertname":"a""#));
        answer.send(failed(false)).unwrap();
        notifier.observe(&[alert("b")]);
        assert!(seen.recv_timeout(WAIT).unwrap().1.contains(r#""alertname":"b""#));
        answer.send(Ok(())).unwrap();
        // The lane counts the request before it asks for the next one.
        notifier.observe(&[alert("c")]);
        seen.recv_timeout(WAIT).unwrap();
        let stats = notifier.stats().targets.remove(0);
        assert_eq!((stats.sent, stats.errors, stats.dropped, stats.requests), (1, 2, 1, 1));
        assert_eq!(stats.latencies.iter().sum::<u64>(), 1);
        answer.send(Ok(())).unwrap();
    }

    #[test]
    fn stopping_sends_first_what_waits() {
        let (transport, seen, answer) = scripted();
        let notifier =
            Notifier::new(NotifierOptions { batch_size: 1, drain: WAIT, ..NotifierOptions::default() });
        notifier.configure(to(vec![set(&transport, &["http://one", "http://one"])]));
        for _ in 0..3 {
            answer.send(Ok(())).unwrap();
        }
        notifier.observe(&[alert("a"), alert("b"), alert("c")]);
        notifier.stop();
        assert_eq!(seen.try_iter().count(), 3);
    }

    #[test]
    fn stopping_gives_one_that_failed_a_last_chance_at_once_and_no_more() {
        let (transport, seen, answer) = scripted();
        let notifier = Notifier::new(NotifierOptions { drain: WAIT, ..NotifierOptions::default() });
        notifier.configure(to(vec![set(&transport, &["http://one"])]));
        notifier.observe(&[alert("a")]);
        for _ in 0..3 {
            // The pauses grow: the next is of four seconds.
            seen.recv_timeout(WAIT).unwrap();
            answer.send(failed(true)).unwrap();
        }
        let started = Instant::now();
        while notifier.stats().targets[0].errors < 3 {
            assert!(started.elapsed() < WAIT, "the third answer is counted");
            std::thread::yield_now();
        }
        let started = Instant::now();
        answer.send(failed(true)).unwrap();
        notifier.stop();
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
        assert_eq!(seen.try_iter().count(), 1);
    }

    #[test]
    fn stopping_does_not_wait_for_an_alertmanager_that_never_answers() {
        let (transport, seen, answer) = scripted();
        let drain = Duration::from_millis(50);
        let notifier = Notifier::new(NotifierOptions { drain, ..NotifierOptions::default() });
        notifier.configure(to(vec![set(&transport, &["http://one"])]));
        notifier.observe(&[alert("a")]);
        seen.recv_timeout(WAIT).unwrap();
        let started = Instant::now();
        notifier.stop();
        assert!(started.elapsed() < WAIT, "the answer never came");
        drop(answer);
    }

    #[test]
    fn one_that_never_answers_does_not_keep_the_others_waiting() {
        let (dead, seen_by_dead, _answer) = scripted();
        let (live, seen_by_live, answer) = scripted();
        let notifier = Notifier::new(NotifierOptions { queue_capacity: 2, ..NotifierOptions::default() });
        notifier.configure(to(vec![set(&dead, &["http://dead"]), set(&live, &["http://live"])]));
        for name in ["a", "b", "c", "d", "e"] {
            notifier.observe(&[alert(name)]);
            assert!(seen_by_live.recv_timeout(WAIT).unwrap().1.contains(&format!(r#""alertname":"{name}""#)));
            answer.send(Ok(())).unwrap();
            if name == "a" {
                seen_by_dead.recv_timeout(WAIT).unwrap();
            }
        }
        let stats = notifier.stats().targets;
        let figures: Vec<_> = stats.iter().map(|t| (t.url.as_str(), t.queue_length, t.dropped)).collect();
        assert_eq!(
            figures,
            [("http://dead", 2, 2), ("http://live", 0, 0)],
            "a is under way, b and c made room"
        );
    }

    #[test]
    fn ten_thousand_alerts_may_wait_and_go_in_batches_of_256() {
        let (transport, seen, answer) = scripted();
        let notifier = Notifier::new(NotifierOptions::default());
        notifier.configure(to(vec![set(&transport, &["http://one"])]));
        notifier.observe(&[alert("first")]);
        seen.recv_timeout(WAIT).unwrap();
        let many: Vec<Alert> = (0..10_100).map(|n| alert(&format!("a{n}"))).collect();
        notifier.observe(&many);
        let stats = notifier.stats().targets.remove(0);
        assert_eq!((stats.queue_length, stats.dropped), (10_000, 100));
        answer.send(Ok(())).unwrap();
        let (_, body) = seen.recv_timeout(WAIT).unwrap();
        assert_eq!(body.matches("alertname").count(), 256);
        assert!(body.contains(r#""a100""#) && !body.contains(r#""a99""#), "the oldest made room");
        answer.send(Ok(())).unwrap();
    }

    #[test]
    fn each_set_is_told_of_what_its_rules_leave() {
        let (one, seen_by_one, answer_one) = scripted();
        let (two, seen_by_two, answer_two) = scripted();
        let notifier = Notifier::new(NotifierOptions::default());
        let alert_relabel = without("for-nobody");
        let only_two =
            AlertmanagerSet { alert_relabel: without("not-for-two"), ..set(&two, &["http://two"]) };
        let sets = vec![set(&one, &["http://one"]), only_two];
        notifier.configure(NotifierConfig { alert_relabel, sets, ..NotifierConfig::default() });
        notifier.observe(&[alert("for-nobody"), alert("not-for-two"), alert("for-all")]);
        let (_, body) = seen_by_one.recv_timeout(WAIT).unwrap();
        assert!(
            body.contains("for-all") && body.contains("not-for-two") && !body.contains("for-nobody"),
            "{body}"
        );
        let (_, body) = seen_by_two.recv_timeout(WAIT).unwrap();
        assert!(body.contains("for-all") && !body.contains("not-for-two"), "{body}");
        answer_one.send(Ok(())).unwrap();
        answer_two.send(Ok(())).unwrap();
    }

    #[test]
    fn an_address_that_stays_keeps_its_queue_and_one_that_goes_is_sent_what_waits() {
        let (transport, seen, answer) = scripted();
        let notifier = Notifier::new(NotifierOptions { drain: WAIT, ..NotifierOptions::default() });
        notifier.configure(to(vec![set(&transport, &["http://one"])]));
        notifier.observe(&[alert("a")]);
        assert_eq!(seen.recv_timeout(WAIT).unwrap().0, "http://one");
        notifier.observe(&[alert("b")]);
        notifier.configure(to(vec![set(&transport, &["http://two", "http://one"])]));
        let stats = notifier.stats().targets;
        assert_eq!(stats.iter().map(|t| t.queue_length).collect::<Vec<_>>(), [0, 1]);
        notifier.configure(to(vec![set(&transport, &["http://two"])]));
        answer.send(Ok(())).unwrap();
        let (url, body) = seen.recv_timeout(WAIT).unwrap();
        assert!(url == "http://one" && body.contains(r#""alertname":"b""#), "{url} {body}");
        answer.send(Ok(())).unwrap();
    }

    #[test]
    fn a_new_way_to_reach_an_address_is_tried_at_once() {
        let (wrong, seen_by_wrong, answer) = scripted();
        let notifier = Notifier::new(NotifierOptions::default());
        notifier.configure(to(vec![set(&wrong, &["http://one"])]));
        notifier.observe(&[alert("a")]);
        for _ in 0..3 {
            // The pauses grow: the next is of four seconds.
            seen_by_wrong.recv_timeout(WAIT).unwrap();
            answer.send(failed(true)).unwrap();
        }
        let (right, seen_by_right, answer) = scripted();
        let reloaded = Instant::now();
        notifier.configure(to(vec![set(&right, &["http://one"])]));
        assert!(seen_by_right.recv_timeout(WAIT).unwrap().1.contains(r#""alertname":"a""#));
        assert!(reloaded.elapsed() < Duration::from_secs(3), "{:?}", reloaded.elapsed());
        answer.send(Ok(())).unwrap();
    }
}
