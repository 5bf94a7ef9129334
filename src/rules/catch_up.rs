//! What a start has to make up for: the state that a process before this one left, and the slots that
//! passed while none ran.

use super::alert::Alert;
use super::alerting::{ALERTS, ALERTS_FOR_STATE};
use super::evaluate::evaluate;
use super::graph::RuleGraph;
use super::persist::{self, StoredGroup};
use super::running::{Context, Round, RunningGroup, lock};
use super::succession::{Identities, match_rules};
use crate::db::Db;
use crate::state::{Changes, StateError, buckets};
use crate::storage::series_set::Columns;
use crate::storage::{Matcher, ReadError, TimeRange, Timestamp};
use larum_storage_format::labels::METRIC_NAME;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// No slots before this are evaluated again.
const LONGEST: Duration = Duration::from_secs(60 * 60);
/// What is stored of a group that is in no file any more is kept so long, in case that is a mistake.
const FORGOTTEN_AFTER_MS: i64 = 24 * 60 * 60_000;

/// A start that waits for fresh samples: after a stop those that senders have kept arrive first, and
/// rules that are evaluated before would take what has not come yet for gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Samples are fresh that are no older than this.
    interval_ms: i64,
    since_ms: Option<i64>,
    /// What was there already; those that were replayed are no sign of a sender.
    before: Arrived,
}

/// Samples that arrived.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Arrived {
    /// How many.
    pub samples: u64,
    /// The time of the newest, in milliseconds since the epoch.
    pub newest_ms: Option<i64>,
}

impl Arrived {
    /// What arrived so far.
    pub fn now(db: &Db) -> Arrived {
        let stats = db.stats();
        let samples = stats.float_samples.saturating_add(stats.histogram_samples);
        Arrived { samples, newest_ms: stats.head_range_ms.map(|(_, newest_ms)| newest_ms) }
    }
}

impl Start {
    /// Waits for samples no older than `interval_ms`, beside those that were there `before`.
    pub fn new(interval_ms: i64, before: Arrived) -> Start {
        Start { interval_ms, since_ms: None, before }
    }

    /// What is there now does not count as arrived.
    pub fn begin_again(&mut self, before: Arrived) {
        self.before = before;
    }

    /// Whether to wait further at `now_ms`, with what arrived so far.
    pub fn goes_on(&mut self, now_ms: i64, arrived: Arrived, grace: Duration) -> bool {
        let since_ms = *self.since_ms.get_or_insert(now_ms);
        let waited_ms = now_ms.saturating_sub(since_ms);
        let is_recent = |newest_ms| now_ms.saturating_sub(newest_ms) <= self.interval_ms;
        let is_fresh = arrived.samples > self.before.samples && arrived.newest_ms.is_some_and(is_recent);
        // If the clock went back, nobody knows how long it has been.
        !is_fresh && waited_ms >= 0 && i128::from(waited_ms) < grace.as_millis() as i128
    }
}

/// Gives each group what was stored of it, or of one that it succeeds, and forgets what nobody will
/// ask for. Returns the start to be made if any group ran before.
pub fn restore_all(db: &Db, groups: &[RunningGroup]) -> Result<Option<Start>, StateError> {
    let started = Instant::now();
    let stored = persist::stored_groups(db.state().scan(buckets::RULES, b"")?);
    let (names, stored): (Vec<_>, Vec<StoredGroup>) = stored.into_iter().unzip();
    let identities = |(group, stored): (&(String, String), &StoredGroup)| Identities {
        group: group.clone(),
        rules: stored.rules.keys().cloned().collect(),
    };
    let old: Vec<Identities> = names.iter().zip(&stored).map(identities).collect();
    let new: Vec<Identities> = groups.iter().map(RunningGroup::identities).collect();
    let succession = match_rules(&old, &new);
    let alerts_of: Vec<Vec<_>> = stored.iter().map(|group| group.rules.values().collect()).collect();
    let mut changes = Changes::default();
    let mut shortest_ms: Option<i64> = None;
    for (g, group) in groups.iter().enumerate() {
        let predecessors = &succession.rules[g];
        let of_rules = predecessors.iter().flatten().map(|(o, _)| *o);
        let slot_ms = succession.groups[g].into_iter().chain(of_rules).find_map(|o| stored[o].slot_ms);
        let alerts: Vec<_> = predecessors.iter().map(|found| found.map(|(o, at)| alerts_of[o][at])).collect();
        changes.entries.extend(group.restore(slot_ms, &alerts).entries);
        if slot_ms.is_some() {
            shortest_ms = Some(shortest_ms.map_or(group.interval_ms, |ms| ms.min(group.interval_ms)));
        }
    }
    let kept: HashSet<_> = succession.rules.iter().flatten().flatten().copied().collect();
    let has_successor: HashSet<_> = succession.groups.iter().flatten().copied().collect();
    let named: HashSet<_> = new.iter().map(|new| &new.group).collect();
    let now_ms = db.now().as_millis();
    for (o, group) in stored.iter().enumerate() {
        let is_named = named.contains(&old[o].group);
        let age_ms = group.slot_ms.map_or(i64::MAX, |slot_ms| now_ms.saturating_sub(slot_ms));
        if !is_named && !has_successor.contains(&o) && age_ms < FORGOTTEN_AFTER_MS {
            continue;
        }
        if !is_named {
            changes.entries.push((persist::slot_key(&old[o].group.0, &old[o].group.1), None));
        }
        let gone = group.rules.values().enumerate().filter(|(at, _)| !kept.contains(&(o, *at)));
        let keys = gone.flat_map(|(_, alerts)| alerts).map(|alert| (alert.key.clone(), None));
        changes.entries.extend(keys);
    }
    if !changes.entries.is_empty() {
        db.state().commit(buckets::RULES, &changes)?;
    }
    for group in groups {
        group.restored_in(started.elapsed());
    }
    Ok(shortest_ms.map(|interval_ms| Start::new(interval_ms, Arrived::now(db))))
}

/// Evaluates the slots that passed since each group was evaluated last, all groups in the order of
/// time, each slot at its own timestamp. Only of what is true at the end anybody hears.
///
/// Where no samples are at all, from anybody, nothing can be told: such slots pass without an
/// evaluation, and do not count as time that alerts were pending.
pub fn catch_up(
    context: &Context<'_>,
    groups: &[Arc<RunningGroup>],
    graph: &RuleGraph,
    now: Timestamp,
) -> Vec<Alert> {
    let started = Instant::now();
    let longest_ms = LONGEST.min(context.options.outage_tolerance).as_millis() as i64;
    let (mut alerts, mut evaluated, mut before) = (Vec::new(), 0, usize::MAX);
    loop {
        // Time goes on meanwhile; what came due is made up for too, as long as it becomes less.
        let elapsed_ms = i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX);
        let until_ms = now.as_millis().saturating_add(elapsed_ms);
        let from_ms = until_ms.saturating_sub(longest_ms);
        let mut slots = Vec::new();
        for (g, group) in groups.iter().enumerate() {
            let Some(last_ms) = group.last_slot_ms() else { continue };
            if last_ms < from_ms {
                group.pass(lock(&group.schedule).slot_before(from_ms));
            }
            let of_group = lock(&group.schedule).slots(last_ms.max(from_ms), until_ms);
            slots.extend(of_group.map(|slot_ms| (slot_ms, g)));
        }
        if slots.is_empty() || slots.len() >= before {
            break;
        }
        before = slots.len();
        slots.sort_unstable();
        let covered = Covered::new(context, from_ms, until_ms);
        for same in slots.chunk_by(|a, b| a.0 == b.0) {
            let mut due = Vec::new();
            for &(slot_ms, g) in same {
                if covered.contains(slot_ms.saturating_sub(groups[g].query_offset_ms)) {
                    // Whoever heard of an alert hears of it once the way to the present is known.
                    due.push((g, Round { slot_ms, missed: 0, now, is_heard: false }));
                } else {
                    groups[g].pass(slot_ms);
                }
            }
            evaluate(context, groups, graph, &due, context.options.max_concurrent_evals);
            if context.cancel.load(Ordering::Relaxed) {
                return alerts;
            }
            evaluated += due.len();
            for &(slot_ms, g) in same {
                lock(&groups[g].schedule).go_on_from(slot_ms);
            }
        }
    }
    for group in groups {
        alerts.extend(group.send_again(context, now));
    }
    if evaluated > 0 {
        let took = started.elapsed();
        tracing::info!(slots = evaluated, ?took, "made up for the evaluations that passed before the start");
    }
    alerts
}

/// The times of samples of many series, as far as needed to tell when any came.
struct Covered {
    times_ms: Vec<i64>,
    lookback_ms: i64,
}

impl Covered {
    /// Looks at series spread over all there are, until so many have samples.
    const ENOUGH: usize = 1000;

    fn new(context: &Context<'_>, from_ms: i64, until_ms: i64) -> Covered {
        let lookback_ms = i64::try_from(context.options.eval.lookback_delta.as_millis()).unwrap_or(i64::MAX);
        let offset_ms = context.options.query_offset.as_millis() as i64;
        let first_ms = from_ms.saturating_sub(lookback_ms).saturating_sub(offset_ms);
        let range = TimeRange::new(first_ms, until_ms);
        let times_ms = Covered::times(context, range).unwrap_or_else(|e| {
            // Alerts stay as they are.
            tracing::warn!("when samples came is not known, the slots before the start are left out: {e}");
            Vec::new()
        });
        Covered { times_ms, lookback_ms }
    }

    fn times(context: &Context<'_>, range: TimeRange) -> Result<Vec<i64>, ReadError> {
        let memory = context.store.memory();
        let source = context.store.source(memory.as_ref());
        // What rules say of themselves is no sign of life.
        let others = [ALERTS, ALERTS_FOR_STATE].map(|name| Matcher::not_equal(METRIC_NAME, name));
        let set = source.select(&others, range)?;
        let mut columns = Columns::default();
        let mut times = BTreeSet::new();
        let mut found = 0;
        let stride = set.len().div_ceil(Covered::ENOUGH).max(1);
        for index in (0..stride).flat_map(|first| (first..set.len()).step_by(stride)) {
            let samples = set.load(index, &mut columns)?;
            times.extend(samples.timestamps.iter());
            found += usize::from(!samples.is_empty());
            if found == Covered::ENOUGH {
                break;
            }
        }
        Ok(times.into_iter().collect())
    }

    /// Whether a query at `at_ms` may see any sample.
    fn contains(&self, at_ms: i64) -> bool {
        let next = self.times_ms.partition_point(|t_ms| *t_ms <= at_ms);
        let newest_ms = next.checked_sub(1).map(|newest| self.times_ms[newest]);
        newest_ms.is_some_and(|newest_ms| at_ms.saturating_sub(newest_ms) < self.lookback_ms)
    }
}

/// After a gap longer than the tolerance nobody knows whether conditions held; it does not count as
/// time that alerts were pending.
pub fn skip_gap(group: &RunningGroup, slot_ms: i64, tolerance: Duration) {
    let Some(last_ms) = group.last_slot_ms() else { return };
    let gap_ms = slot_ms.saturating_sub(last_ms);
    if i128::from(gap_ms) > tolerance.as_millis() as i128 {
        group.skip(gap_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_waits_for_fresh_samples_but_not_for_ever() {
        let grace = Duration::from_secs(300);
        /// The second, how many samples came since, the newest of all, and whether to wait.
        type Look = (i64, u64, Option<i64>, bool);
        let cases: [&[Look]; 6] = [
            &[(1000, 0, None, true), (1299, 0, None, true), (1300, 0, None, false)],
            &[(1000, 1, Some(900), true), (1010, 2, Some(999), true), (1011, 3, Some(1001), false)],
            // What was there before the start says nothing, not even if its clock is ahead.
            &[(1000, 0, Some(995), true), (1001, 0, Some(1500), true)],
            &[(1000, 1, Some(995), false)],
            &[(1000, 1, Some(1500), false)],
            &[(1000, 0, None, true), (900, 0, None, false)],
        ];
        for looks in cases {
            let mut start = Start::new(10_000, Arrived { samples: 7, newest_ms: None });
            for &(now_s, came, newest_s, waits) in looks {
                let arrived = Arrived { samples: 7 + came, newest_ms: newest_s.map(|s| s * 1000) };
                assert_eq!(start.goes_on(now_s * 1000, arrived, grace), waits, "{looks:?} at {now_s}");
            }
        }
        assert!(!Start::new(10_000, Arrived::default()).goes_on(0, Arrived::default(), Duration::ZERO));
    }
}
