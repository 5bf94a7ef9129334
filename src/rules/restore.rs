//! What a start finds out from samples: since when alerts were pending, by `ALERTS_FOR_STATE` as in
//! Prometheus, and which series a recording rule yielded last.
//!
//! Alerts are taken up so only where [`crate::state`] knows nothing of a group: it was lost, or the
//! samples came from somewhere else.

use super::alerting::{ALERTS_FOR_STATE, ActiveAlerts};
use super::recording::RecordingRule;
use crate::storage::series_set::Columns;
use crate::storage::{Matcher, ReadError, Source, TimeRange, Timestamp};
use larum_storage_format::labels::METRIC_NAME;
use larum_storage_format::{Labels, Value};
use std::collections::{HashMap, HashSet};

/// What `ALERTS_FOR_STATE` says about an alert: when it was last written, and since when the
/// alert was active, in milliseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForState {
    down_at_ms: i64,
    active_at_ms: i64,
}

/// What is stored in `range` about the alerts of the rule `name`, by their labels. Alerts that
/// were not active at last are left out.
pub fn stored(
    source: &dyn Source,
    name: &str,
    range: TimeRange,
) -> Result<HashMap<Labels, ForState>, ReadError> {
    let matchers = [Matcher::equal(METRIC_NAME, ALERTS_FOR_STATE), Matcher::equal("alertname", name)];
    let set = source.select(&matchers, range)?;
    let (mut columns, mut labels) = (Columns::default(), set.label_reader(None));
    let mut found = HashMap::new();
    for i in 0..set.len() {
        let samples = set.load_newest(i, &mut columns)?;
        let Some(last) = samples.len().checked_sub(1) else { continue };
        let value = samples.value(last);
        if let Value::Float(seconds) = value
            && !value.is_stale()
        {
            let for_state =
                ForState { down_at_ms: samples.timestamps[last], active_at_ms: (seconds * 1000.0) as i64 };
            found.insert(labels(i).without(|n| n == METRIC_NAME), for_state);
        }
    }
    Ok(found)
}

/// The series that a recording rule yielded at `at`. Those of another rule of the same name and time may be
/// among them; what that yields then wins over a stale marker.
pub fn recorded(
    source: &dyn Source,
    rule: &RecordingRule,
    at: Timestamp,
) -> Result<HashSet<Labels>, ReadError> {
    let mut matchers = vec![Matcher::equal(METRIC_NAME, &rule.name)];
    matchers.extend(rule.labels.iter().map(|(name, value)| Matcher::equal(name, value)));
    let set = source.select(&matchers, TimeRange::new(at.as_millis(), at.as_millis()))?;
    let (mut columns, mut labels) = (Columns::default(), set.label_reader(None));
    let mut found = HashSet::new();
    for i in 0..set.len() {
        let samples = set.load_newest(i, &mut columns)?;
        if samples.len().checked_sub(1).is_some_and(|last| !samples.value(last).is_stale()) {
            found.insert(labels(i));
        }
    }
    Ok(found)
}

/// Moves back the beginning of the alerts that were active before, at the time `now`.
pub fn apply(
    alerts: &mut ActiveAlerts,
    stored: &HashMap<Labels, ForState>,
    now: Timestamp,
    hold_ms: i64,
    grace_period_ms: i64,
) {
    for (labels, alert) in alerts {
        if let Some(for_state) = stored.get(labels) {
            let ms = restored_active_at(*for_state, now.as_millis(), hold_ms, grace_period_ms);
            alert.active_at = Timestamp::from_millis(ms);
        }
    }
}

/// Since when an alert counts as active, if it was active before the server went down. An alert
/// that had fired is taken up as it was; one that was to fire soon gets the grace period, since
/// what feeds it may not be back; for any other the outage does not count.
fn restored_active_at(before: ForState, now_ms: i64, hold_ms: i64, grace_period_ms: i64) -> i64 {
    let spent_ms = before.down_at_ms.saturating_sub(before.active_at_ms);
    let remaining_ms = hold_ms.saturating_sub(spent_ms);
    if remaining_ms <= 0 {
        before.active_at_ms
    } else if remaining_ms < grace_period_ms {
        now_ms.saturating_add(grace_period_ms).saturating_sub(hold_ms)
    } else {
        before.active_at_ms.saturating_add(now_ms.saturating_sub(before.down_at_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outage_counts_as_in_prometheus() {
        let minute = 60_000;
        // Active at 0, down at `down`, now 100 min, `for` 60 min, grace 10 min.
        for (down, expected) in [(60, 0), (80, 0), (55, 50), (51, 50), (50, 50), (20, 80), (0, 100)] {
            let before = ForState { down_at_ms: down * minute, active_at_ms: 0 };
            let restored = restored_active_at(before, 100 * minute, 60 * minute, 10 * minute);
            assert_eq!(restored, expected * minute, "down at {down}");
        }
    }

    #[test]
    fn extreme_times_do_not_overflow() {
        for active_at_ms in [i64::MIN, 0, i64::MAX] {
            for down_at_ms in [i64::MIN, 0, i64::MAX] {
                for now_ms in [i64::MIN, 0, i64::MAX] {
                    restored_active_at(ForState { down_at_ms, active_at_ms }, now_ms, i64::MAX, 1);
                }
            }
        }
    }
}
