//! An alert as those see it who have to hear of it.

use crate::storage::Timestamp;
use larum_storage_format::Labels;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What an alert is doing. The numbers are what the state store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AlertState {
    /// It was firing and is not any more.
    Inactive = 0,
    /// Its condition holds, for less than the rule's `for`.
    Pending = 1,
    /// Its condition has held for long enough.
    Firing = 2,
}

impl AlertState {
    /// Prometheus' word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            AlertState::Inactive => "inactive",
            AlertState::Pending => "pending",
            AlertState::Firing => "firing",
        }
    }
}

/// An alert that fires or has stopped firing, as of one evaluation.
///
/// The same alert is handed out again every resend delay while it fires, and for 15 minutes after
/// it was resolved, since whoever receives it may have missed the times before.
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    /// Its identity: the labels of the series and of the rule, `alertname` among them.
    pub labels: Labels,
    /// The rule's annotations, expanded. They may change while the alert fires.
    pub annotations: BTreeMap<String, String>,
    /// Firing, or inactive if it is resolved.
    pub state: AlertState,
    /// Since when its condition has held.
    pub active_at: Timestamp,
    /// Since when it has been firing.
    pub fired_at: Timestamp,
    /// When its condition was found not to hold any more.
    pub resolved_at: Option<Timestamp>,
    /// Until when this message holds if no later one comes: the evaluation's time plus four times
    /// the resend delay or the group's interval, whichever is longer.
    pub valid_until: Timestamp,
    /// The value of the expression when it was last met.
    pub value: f64,
    /// The rule's expression.
    pub expr: Arc<str>,
}

impl Alert {
    /// Whether the alert has stopped firing.
    pub fn is_resolved(&self) -> bool {
        self.resolved_at.is_some()
    }
}
