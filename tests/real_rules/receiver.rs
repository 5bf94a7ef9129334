//! Who receives alerts as an Alertmanager does (API version 2), and remembers all that it hears and when.

use super::support::{listen_for_posts, now_ms};
use serde_json::Value;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// A message about an alert. Times are in milliseconds since the epoch.
#[derive(Debug, Clone)]
pub struct Message {
    pub alert: String,
    /// When it came.
    pub at_ms: i64,
    pub starts_at_ms: i64,
    pub ends_at_ms: i64,
}

impl Message {
    /// Whether the alert is over, as an Alertmanager sees it.
    pub fn is_resolved(&self) -> bool {
        self.ends_at_ms <= self.at_ms
    }
}

/// Listens until the test ends.
pub struct Receiver {
    port: u16,
    messages: Arc<Mutex<Vec<Message>>>,
}

impl Receiver {
    /// A receiver on a free port.
    pub fn start() -> Receiver {
        let (port, posts) = listen_for_posts();
        let messages: Arc<Mutex<Vec<Message>>> = Arc::default();
        let heard = messages.clone();
        std::thread::spawn(move || {
            for post in posts {
                let at_ms = now_ms();
                let alerts = post.as_array().expect("alerts come as an array");
                let message = |alert: &Value| Message {
                    alert: alert["labels"]["alertname"].as_str().expect("a name").to_owned(),
                    at_ms,
                    starts_at_ms: time_ms(&alert["startsAt"]),
                    ends_at_ms: time_ms(&alert["endsAt"]),
                };
                heard.lock().unwrap_or_else(PoisonError::into_inner).extend(alerts.iter().map(message));
            }
        });
        Receiver { port, messages }
    }

    /// What was heard of an alert so far, in order.
    pub fn heard_of(&self, alert: &str) -> Vec<Message> {
        let messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        messages.iter().filter(|message| message.alert == alert).cloned().collect()
    }

    /// Writes rules and a configuration that sends their alerts here; gives the flag that names it.
    pub fn configure(&self, dir: &Path, rules: &str) -> String {
        let path = dir.join("larum.yml");
        let alertmanagers = format!("[{{static_configs: [{{targets: ['127.0.0.1:{}']}}]}}]", self.port);
        let config = format!("rule_files: [rules.yml]\nalerting: {{alertmanagers: {alertmanagers}}}\n");
        std::fs::write(dir.join("rules.yml"), rules).expect("the rules are written");
        std::fs::write(&path, config).expect("the configuration is written");
        format!("--config.file={}", path.display())
    }
}

/// Checks that an alert fired all the time from the first message on, as one and the same alert.
pub fn assert_fires_all_the_time(messages: &[Message]) {
    let first = messages.first().expect("something is heard of the alert");
    for message in messages {
        assert!(!message.is_resolved(), "resolved: {message:?}");
        assert_eq!(message.starts_at_ms, first.starts_at_ms, "another startsAt: {message:?}");
    }
    for pair in messages.windows(2) {
        assert!(pair[1].at_ms < pair[0].ends_at_ms, "lapsed, so resolved to an Alertmanager: {pair:?}");
    }
    let last = &messages[messages.len() - 1];
    assert!(now_ms() < last.ends_at_ms, "lapsed: {last:?}");
}

/// The time in an answer, in milliseconds since the epoch.
pub fn time_ms(value: &Value) -> i64 {
    let text = value.as_str().unwrap_or_else(|| panic!("{value} is no time"));
    let time: jiff::Timestamp = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
    time.as_millisecond()
}
