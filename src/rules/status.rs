//! How rules are doing: snapshots for the API and figures for metrics.

use super::alert::AlertState;
use crate::storage::Timestamp;
use larum_storage_format::Labels;
use std::collections::BTreeMap;
use std::time::Duration;

/// A group and its rules.
#[derive(Debug, Clone)]
pub struct GroupStatus {
    /// Its name.
    pub name: String,
    /// Its file.
    pub file: String,
    /// How often it is evaluated.
    pub interval: Duration,
    /// The most series or alerts a rule may yield; 0 is no limit.
    pub limit: usize,
    /// Its rules, in order.
    pub rules: Vec<RuleStatus>,
    /// Its figures.
    pub stats: GroupStats,
}

/// Figures of a group, for the metrics `prometheus_rule_*`. Counters only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct GroupStats {
    /// Rules evaluated (`prometheus_rule_evaluations_total`).
    pub evaluations: u64,
    /// Evaluations that failed (`prometheus_rule_evaluation_failures_total`).
    pub failures: u64,
    /// Labels and annotations of alerts that could not be expanded.
    pub template_failures: u64,
    /// Slots that came, missed ones included (`prometheus_rule_group_iterations_total`).
    pub iterations: u64,
    /// Slots that passed without an evaluation (`prometheus_rule_group_iterations_missed_total`).
    pub missed: u64,
    /// When the last evaluation began (`prometheus_rule_group_last_evaluation_timestamp_seconds`).
    pub last_evaluation: Option<Timestamp>,
    /// Seconds the last evaluation took (`prometheus_rule_group_last_duration_seconds`).
    pub last_seconds: f64,
    /// Seconds the rules of the last evaluation took, summed up
    /// (`prometheus_rule_group_last_rule_duration_sum_seconds`).
    pub last_rule_seconds: f64,
    /// Samples the last evaluation yielded (`prometheus_rule_group_last_evaluation_samples`).
    pub last_samples: u64,
    /// Seconds it took to take up the state left before (`prometheus_rule_group_last_restore_duration_seconds`).
    pub restore_seconds: f64,
    /// Times the group's state could not be written. It is tried again with the next evaluation.
    pub state_failures: u64,
}

/// A rule of either kind.
#[derive(Debug, Clone)]
pub struct RuleStatus {
    /// The alert's or the recorded metric's name.
    pub name: String,
    /// The expression.
    pub query: String,
    /// The labels it sets, as they were written.
    pub labels: BTreeMap<String, String>,
    /// Whether the last evaluation went well.
    pub health: Health,
    /// Why it did not.
    pub last_error: Option<String>,
    /// How long the last evaluation took.
    pub evaluation_time: Duration,
    /// When the last evaluation began.
    pub last_evaluation: Option<Timestamp>,
    /// What only alerting rules have; `None` for a recording rule.
    pub alerting: Option<AlertingStatus>,
}

/// What only alerting rules have.
#[derive(Debug, Clone)]
pub struct AlertingStatus {
    /// `firing` if any alert is, else `pending` if any is, else `inactive`; `None` ("unknown")
    /// before the first evaluation.
    pub state: Option<AlertState>,
    /// `for`
    pub hold: Duration,
    /// `keep_firing_for`
    pub keep_firing_for: Duration,
    /// The annotations, as they were written.
    pub annotations: BTreeMap<String, String>,
    /// The pending and firing alerts, sorted by labels.
    pub alerts: Vec<AlertStatus>,
}

/// A pending or firing alert.
#[derive(Debug, Clone)]
pub struct AlertStatus {
    /// Its labels.
    pub labels: Labels,
    /// Its expanded annotations.
    pub annotations: BTreeMap<String, String>,
    /// Pending or firing.
    pub state: AlertState,
    /// Since when its condition has held.
    pub active_at: Timestamp,
    /// Since when only `keep_firing_for` has kept it firing.
    pub keep_firing_since: Option<Timestamp>,
    /// The value of the expression when it was last met.
    pub value: f64,
}

/// Whether a rule's last evaluation went well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Health {
    /// There was none yet.
    #[default]
    Unknown,
    /// It went well.
    Good,
    /// It failed.
    Bad,
}

impl Health {
    /// Prometheus' word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Health::Unknown => "unknown",
            Health::Good => "ok",
            Health::Bad => "err",
        }
    }
}
