//! Larum is killed again and again while alerts come and go. Samples come as from a real sender: what
//! cannot be sent is kept and sent later, in order.
//!
//! What must come of it is known from a model: slot by slot, from the values that were sent.

use super::random::Random;
use super::receiver::{Message, Receiver, assert_fires_all_the_time, time_ms};
use super::support::{Larum, WriteSeries, get, get_with, now_ms, post, wait_until, write_request};
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SLOT_MS: i64 = 1000;
/// So far back rules look: time for samples to arrive.
const OFFSET_MS: i64 = 3000;
const EVERY_MS: u64 = 250;
const PATIENCE: Duration = Duration::from_secs(60);

const RULES: &str = "
groups:
- name: all
  interval: 1s
  query_offset: 3s
  rules:
  - {record: slots, expr: time()}
  - {record: copied, expr: toggle}
  - {alert: Steady, expr: steady > 0, for: 2s}
  - {alert: Waiting, expr: steady > 0, for: 1h}
  - {alert: Toggling, expr: toggle > 0, for: 1s}
  - {alert: Kept, expr: toggle > 0, keep_firing_for: 2s}
";

/// The alerts of the rules that follow `toggle`: name, `for` and `keep_firing_for`.
const TOGGLING: [(&str, i64, i64); 2] = [("Toggling", 1000, 0), ("Kept", 0, 2000)];

/// Values by time, in milliseconds since the epoch.
type Values = BTreeMap<i64, f64>;

/// An alert from the slot in which it begins to fire to the one in which it is resolved, if it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Episode {
    fired_at_ms: i64,
    resolved_at_ms: Option<i64>,
}

/// Kills so often, at random moments.
pub fn run(random: &mut Random, kills: u64) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let dir = dir.path();
    let receiver = Receiver::start();
    let config = receiver.configure(dir, RULES);
    let flags = [&config[..], "--rules.alert.resend-delay=2s", "--log.level=warn"];

    let mut larum = Larum::start(dir, &flags);
    let (port, url) = (larum.port, larum.url.clone());
    let sender = Sender::start(&url, random);
    wait_until("Steady fires", PATIENCE, || !receiver.heard_of("Steady").is_empty());
    let active_at = active_at(&url);
    for kill in 0..kills {
        if random.chance(80) {
            larum.wait_ready();
            assert_eq!(self::active_at(&url), active_at, "activeAt is what it was before kill {kill}");
        }
        pause(random.below(3000));
        larum.process.kill_9();
        pause(random.below(1500));
        larum = Larum::spawn_on(port, dir, &flags);
    }
    larum.wait_ready();
    wait_until("the present is evaluated", PATIENCE, || {
        slots(&url).last_key_value().is_some_and(|(at_ms, _)| now_ms() - at_ms < OFFSET_MS + 2 * SLOT_MS)
    });
    assert_eq!(self::active_at(&url), active_at);
    assert_fires_all_the_time(&receiver.heard_of("Steady"));
    assert!(receiver.heard_of("Waiting").is_empty(), "what is pending is not sent");

    // Whatever is under way when these are asked for is left out.
    let slots = slots(&url);
    let (first_ms, last_ms) =
        (*slots.keys().next().expect("slots"), *slots.keys().next_back().expect("slots"));
    let sent = sender.stop();
    let expected: Vec<i64> = (first_ms..=last_ms).step_by(SLOT_MS as usize).collect();
    assert_eq!(slots.keys().copied().collect::<Vec<_>>(), expected, "every slot is there");
    slots.iter().for_each(|(at_ms, value)| assert_eq!(*value, *at_ms as f64 / 1000.0));
    let copied: Values = expected.iter().filter_map(|at| Some((*at, value_at(&sent, *at)?))).collect();
    assert_eq!(recorded(&url, "copied", last_ms), copied, "what was recorded is what was sent");

    let mut heard = 0;
    for (name, hold_ms, keep_ms) in TOGGLING {
        let (states, episodes) = model(&expected, &sent, hold_ms, keep_ms);
        for state in ["pending", "firing"] {
            let selector = format!("ALERTS{{alertname=\"{name}\",alertstate=\"{state}\"}}");
            let shown: Vec<i64> = recorded(&url, &selector, last_ms).into_keys().collect();
            let of_state = states.iter().filter(|(_, of_slot)| **of_slot == state);
            let expected: Vec<i64> = of_state.map(|(at_ms, _)| *at_ms).collect();
            assert_eq!(shown, expected, "{name}, {state}");
        }
        heard += check_messages(&receiver.heard_of(name), &episodes);
    }
    println!("{kills} kills, {} slots, {heard} episodes heard of, none twice", expected.len());
    assert!(heard as u64 * 4 > kills, "too few episodes were heard of");
}

/// Checks what was heard of an alert. Returns of how many episodes something was.
fn check_messages(messages: &[Message], episodes: &[Episode]) -> usize {
    let mut heard = Vec::new();
    for (n, message) in messages.iter().enumerate() {
        let Some(episode) = episodes.iter().find(|episode| episode.fired_at_ms == message.starts_at_ms)
        else {
            // It may have begun after what was asked for.
            assert!(
                episodes.last().is_none_or(|last| last.fired_at_ms < message.starts_at_ms),
                "{message:?}"
            );
            continue;
        };
        if message.is_resolved() && episode.resolved_at_ms.is_some() {
            assert_eq!(Some(message.ends_at_ms), episode.resolved_at_ms, "a false resolve: {message:?}");
        }
        heard.push(message.starts_at_ms);
        let is_last_of_it = messages[n + 1..].iter().all(|later| later.starts_at_ms != message.starts_at_ms);
        if is_last_of_it && n + 1 < messages.len() && episode.resolved_at_ms.is_some() {
            let next = &messages[n + 1];
            assert!(
                message.is_resolved() || next.starts_at_ms > message.starts_at_ms,
                "{message:?} is not resolved"
            );
        }
    }
    assert!(heard.is_sorted(), "an alert that was over came again: {messages:?}");
    heard.dedup();
    heard.len()
}

/// What an alert of a rule `toggle > 0` does at each slot (time of its samples), and its episodes.
fn model(
    slots: &[i64],
    sent: &Values,
    hold_ms: i64,
    keep_ms: i64,
) -> (BTreeMap<i64, &'static str>, Vec<Episode>) {
    let (mut states, mut episodes) = (BTreeMap::new(), Vec::<Episode>::new());
    let (mut active_since, mut kept_since, mut is_firing) = (None, None, false);
    for &at_ms in slots {
        let slot_ms = at_ms + OFFSET_MS;
        if value_at(sent, at_ms).is_some_and(|value| value > 0.0) {
            kept_since = None;
            let since_ms = *active_since.get_or_insert(slot_ms);
            if !is_firing && slot_ms - since_ms >= hold_ms {
                is_firing = true;
                episodes.push(Episode { fired_at_ms: slot_ms, resolved_at_ms: None });
            }
        } else if is_firing && slot_ms - *kept_since.get_or_insert(slot_ms) < keep_ms {
            // Goes on firing.
        } else {
            if let (true, Some(episode)) = (is_firing, episodes.last_mut()) {
                episode.resolved_at_ms = Some(slot_ms);
            }
            (active_since, kept_since, is_firing) = (None, None, false);
            continue;
        }
        states.insert(at_ms, if is_firing { "firing" } else { "pending" });
    }
    (states, episodes)
}

fn value_at(sent: &Values, at_ms: i64) -> Option<f64> {
    sent.range(..=at_ms).next_back().map(|(_, value)| *value)
}

/// Since when each alert has been active that is always there, as the API shows it.
fn active_at(url: &str) -> BTreeMap<String, i64> {
    let alerts = get(&format!("{url}/api/v1/alerts")).expect("Larum answers").json();
    let alerts = alerts["data"]["alerts"].as_array().expect("alerts").iter();
    let named = alerts.map(|alert| (alert["labels"]["alertname"].as_str().unwrap_or_default(), alert));
    let states = [("Steady", "firing"), ("Waiting", "pending")];
    let named = named.filter(|(name, _)| states.iter().any(|(steady, _)| steady == name));
    let active: BTreeMap<String, i64> = named
        .map(|(name, alert)| {
            assert!(states.contains(&(name, alert["state"].as_str().unwrap_or_default())), "{alert}");
            (name.to_owned(), time_ms(&alert["activeAt"]))
        })
        .collect();
    assert_eq!(active.len(), states.len(), "both alerts are there: {active:?}");
    active
}

fn slots(url: &str) -> Values {
    recorded(url, "slots", now_ms())
}

/// All samples of the only series that a selector selects.
fn recorded(url: &str, selector: &str, until_ms: i64) -> Values {
    let (query, time) = (format!("{selector}[1h]"), format!("{}", until_ms as f64 / 1000.0));
    let answer = get_with(&format!("{url}/api/v1/query"), &[("query", &query), ("time", &time)]);
    let answer = answer.expect("Larum answers").json();
    let series = answer["data"]["result"].as_array().unwrap_or_else(|| panic!("{answer}"));
    assert!(series.len() <= 1, "{answer}");
    let sample = |sample: &Value| {
        let value = sample[1].as_str().and_then(|value| value.parse().ok()).expect("a value");
        ((sample[0].as_f64().expect("a time") * 1000.0).round() as i64, value)
    };
    series.iter().flat_map(|series| series["values"].as_array().expect("samples")).map(sample).collect()
}

/// Sends four times a second, and again what could not be sent.
struct Sender {
    stop: Arc<AtomicBool>,
    sent: Arc<Mutex<Values>>,
    thread: std::thread::JoinHandle<()>,
}

impl Sender {
    fn start(url: &str, random: &mut Random) -> Sender {
        let (url, mut random) = (url.to_owned(), Random::new(random.below(1 << 30) as u64));
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Values::new())));
        let (stopped, values) = (stop.clone(), sent.clone());
        let thread = std::thread::spawn(move || {
            let mut waiting = VecDeque::new();
            let (mut toggle, mut until_ms) = (0.0, 0);
            while !stopped.load(Ordering::Relaxed) {
                let now_ms = now_ms();
                if now_ms >= until_ms {
                    toggle = 1.0 - toggle;
                    until_ms = now_ms + 1500 + random.below(6000) as i64;
                }
                values.lock().expect("nothing panics").insert(now_ms, toggle);
                waiting.push_back((now_ms, toggle));
                while let Some((t_ms, toggle)) = waiting.front()
                    && send(&url, *t_ms, *toggle)
                {
                    waiting.pop_front();
                }
                std::thread::sleep(Duration::from_millis(EVERY_MS));
            }
        });
        Sender { stop, sent, thread }
    }

    /// All that was to be sent.
    fn stop(self) -> Values {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the sender does not panic");
        std::mem::take(&mut *self.sent.lock().expect("nothing panics"))
    }
}

/// Whether the server took it.
fn send(url: &str, t_ms: i64, toggle: f64) -> bool {
    let series: [WriteSeries; 2] =
        [(&[("__name__", "steady")], &[(t_ms, 1.0)]), (&[("__name__", "toggle")], &[(t_ms, toggle)])];
    let body = snap::raw::Encoder::new().compress_vec(&write_request(&series)).expect("snappy compresses");
    let headers = [("Content-Type", "application/x-protobuf"), ("Content-Encoding", "snappy")];
    post(&format!("{url}/api/v1/write"), &headers, &body).is_some_and(|answer| answer.status == 204)
}

fn pause(ms: usize) {
    std::thread::sleep(Duration::from_millis(ms as u64));
}
