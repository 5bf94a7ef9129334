//! Alerting rules: which alerts are active, by a pure step from one evaluation to the next.

use super::alert::{Alert, AlertState};
use super::error::RuleError;
use super::expand::{Surroundings, TemplateText, map};
use crate::promql::Expr;
use crate::promql::value::VectorElement;
use crate::storage::Timestamp;
use larum_storage_format::labels::METRIC_NAME;
use larum_storage_format::{Labels, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The label that carries the rule's name.
const ALERT_NAME: &str = "alertname";
/// How long a resolved alert is remembered, and so sent again, in milliseconds: as in Prometheus.
const RESOLVED_RETENTION_MS: i64 = 15 * 60_000;
/// The metric that shows each pending or firing alert.
pub(crate) const ALERTS: &str = "ALERTS";
/// The metric that shows since when each alert has been active, in seconds since the epoch.
pub(crate) const ALERTS_FOR_STATE: &str = "ALERTS_FOR_STATE";

/// An alerting rule as it was written.
#[derive(Debug, Clone)]
pub struct AlertingRule {
    /// The alert's name.
    pub name: String,
    /// The condition: every element it yields is an alert.
    pub expr: Expr,
    /// The condition's text.
    pub query: Arc<str>,
    /// How long the condition must hold before the alert fires (`for`), in milliseconds.
    pub hold_ms: i64,
    /// How long the alert goes on firing after the condition was last met, in milliseconds.
    pub keep_firing_for_ms: i64,
    /// The labels it sets, by name; a value that expands to nothing removes the label.
    pub labels: Vec<(String, TemplateText)>,
    /// Its annotations, by name.
    pub annotations: Vec<(String, TemplateText)>,
}

/// The alerts of one rule, by their labels: pending, firing and lately resolved ones.
pub type ActiveAlerts = BTreeMap<Labels, ActiveAlert>;

/// One alert of a rule and how far it got.
#[derive(Debug, Clone, PartialEq)]
pub struct ActiveAlert {
    /// Pending, firing, or inactive if it is resolved.
    pub state: AlertState,
    /// The expanded annotations.
    pub annotations: BTreeMap<String, String>,
    /// The value of the expression when it was last met.
    pub value: f64,
    /// Since when the condition has held.
    pub active_at: Timestamp,
    /// Since when it has been firing.
    pub fired_at: Option<Timestamp>,
    /// When it was resolved.
    pub resolved_at: Option<Timestamp>,
    /// Since when only `keep_firing_for` has kept it firing.
    pub keep_firing_since: Option<Timestamp>,
    /// When it was last handed out to be sent.
    pub last_sent: Option<Timestamp>,
}

/// What a condition's result describes: labels, annotations and value of each alert.
pub type FoundAlerts = BTreeMap<Labels, (BTreeMap<String, String>, f64)>;

impl AlertingRule {
    /// The alerts that the condition's result describes, labels and annotations expanded.
    pub fn describe(
        &self,
        answer: Vec<VectorElement>,
        surroundings: &Surroundings<'_>,
    ) -> Result<FoundAlerts, RuleError> {
        let mut found = FoundAlerts::new();
        if answer.is_empty() {
            return Ok(found);
        }
        let mut data = surroundings.data();
        for element in answer {
            let value = match element.value {
                Value::Float(value) => value,
                Value::Histogram(_) => 0.0,
            };
            data.labels = map(&element.labels);
            data.value = value;
            let expand = |text: &TemplateText| text.expand(&data, surroundings);
            let mut labels = element.labels.to_builder();
            labels.remove(METRIC_NAME);
            for (name, text) in &self.labels {
                labels.set(name, &expand(text));
            }
            labels.set(ALERT_NAME, &self.name);
            let annotations = self.annotations.iter().map(|(name, t)| (name.clone(), expand(t))).collect();
            if found.insert(labels.build(), (annotations, value)).is_some() {
                return Err(RuleError::SameAlertLabels);
            }
        }
        Ok(found)
    }

    /// Takes the alerts of the rule one evaluation further, given which of them the condition
    /// found at `at`. With more than `limit` of them (0 is no limit) all are forgotten, which is
    /// an error.
    pub fn step(
        &self,
        alerts: &mut ActiveAlerts,
        mut found: FoundAlerts,
        at: Timestamp,
        limit: usize,
    ) -> Result<(), RuleError> {
        alerts.retain(|labels, alert| {
            alert.not_after(at);
            if alert.state == AlertState::Inactive && found.contains_key(labels) {
                // It is active again: a new alert, which is added below.
                return false;
            }
            let Some((annotations, value)) = found.remove(labels) else {
                return self.not_found(alert, at);
            };
            alert.annotations = annotations;
            alert.value = value;
            alert.keep_firing_since = None;
            self.fire_if_held(alert, at);
            true
        });
        for (labels, (annotations, value)) in found {
            let mut alert = ActiveAlert {
                state: AlertState::Pending,
                annotations,
                value,
                active_at: at,
                fired_at: None,
                resolved_at: None,
                keep_firing_since: None,
                last_sent: None,
            };
            self.fire_if_held(&mut alert, at);
            alerts.insert(labels, alert);
        }
        let count = alerts.values().filter(|a| a.state != AlertState::Inactive).count();
        if limit > 0 && count > limit {
            alerts.clear();
            return Err(RuleError::TooManyAlerts { limit, count });
        }
        Ok(())
    }

    fn fire_if_held(&self, alert: &mut ActiveAlert, at: Timestamp) {
        if alert.state == AlertState::Pending && since(alert.active_at, at) >= self.hold_ms {
            alert.state = AlertState::Firing;
            alert.fired_at = Some(at);
        }
    }

    /// The condition does not hold for the alert any more. Whether to remember it further.
    fn not_found(&self, alert: &mut ActiveAlert, at: Timestamp) -> bool {
        match alert.state {
            AlertState::Pending => false,
            AlertState::Firing => {
                if self.keep_firing_for_ms > 0 {
                    let kept_since = *alert.keep_firing_since.get_or_insert(at);
                    if since(kept_since, at) < self.keep_firing_for_ms {
                        return true;
                    }
                }
                alert.state = AlertState::Inactive;
                alert.resolved_at = Some(at);
                true
            }
            AlertState::Inactive => {
                alert.resolved_at.is_some_and(|resolved| since(resolved, at) <= RESOLVED_RETENTION_MS)
            }
        }
    }

    /// The samples that show the alerts: `ALERTS` and `ALERTS_FOR_STATE`.
    pub fn samples(&self, alerts: &ActiveAlerts) -> Vec<(Labels, Value)> {
        let mut samples = Vec::with_capacity(2 * alerts.len());
        for (labels, alert) in alerts {
            if alert.state == AlertState::Inactive {
                continue;
            }
            let mut series = labels.to_builder();
            series.set(METRIC_NAME, ALERTS_FOR_STATE);
            let active_at_seconds = alert.active_at.as_millis().div_euclid(1000) as f64;
            samples.push((series.build(), Value::Float(active_at_seconds)));
            series.set(METRIC_NAME, ALERTS).set("alertstate", alert.state.as_str());
            samples.push((series.build(), Value::Float(1.0)));
        }
        samples
    }

    /// The alerts somebody has to hear of now, which count as sent from then on: firing ones that
    /// were not sent within the resend delay, and resolved ones.
    pub fn due(
        &self,
        alerts: &mut ActiveAlerts,
        at: Timestamp,
        resend_delay_ms: i64,
        interval_ms: i64,
    ) -> Vec<Alert> {
        let valid_ms = resend_delay_ms.max(interval_ms).saturating_mul(4);
        let mut due = Vec::new();
        for (labels, alert) in alerts {
            let Some(fired_at) = alert.fired_at.filter(|_| alert.needs_sending(at, resend_delay_ms)) else {
                continue;
            };
            alert.last_sent = Some(at);
            due.push(Alert {
                labels: labels.clone(),
                annotations: alert.annotations.clone(),
                state: alert.state,
                active_at: alert.active_at,
                fired_at,
                resolved_at: alert.resolved_at,
                valid_until: Timestamp::from_millis(at.as_millis().saturating_add(valid_ms)),
                value: alert.value,
                expr: self.query.clone(),
            });
        }
        due
    }
}

impl ActiveAlert {
    /// After the clock went back, nothing that is waited for began later than now.
    fn not_after(&mut self, at: Timestamp) {
        if self.state == AlertState::Pending {
            self.active_at = self.active_at.min(at);
        }
        self.keep_firing_since = self.keep_firing_since.map(|t| t.min(at));
        self.resolved_at = self.resolved_at.map(|t| t.min(at));
    }

    fn needs_sending(&self, at: Timestamp, resend_delay_ms: i64) -> bool {
        if self.state == AlertState::Pending {
            return false;
        }
        match self.last_sent {
            // Nobody has to hear that it is resolved who has not heard of it.
            None => self.resolved_at.is_none(),
            // Also when it was resolved since it was last sent, or the clock went back.
            Some(sent) => {
                self.resolved_at.is_some_and(|resolved| resolved > sent)
                    || since(sent, at) > resend_delay_ms
                    || sent > at
            }
        }
    }
}

/// Milliseconds from `earlier` to `later`; negative if the clock went back.
fn since(earlier: Timestamp, later: Timestamp) -> i64 {
    later.as_millis().saturating_sub(earlier.as_millis())
}

#[cfg(test)]
#[path = "alerting_tests.rs"]
mod tests;
