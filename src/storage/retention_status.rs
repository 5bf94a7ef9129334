//! What retention has still to do: bytes now and afterwards, and what is dropped next. Pure.

use super::expiry::{Expiry, Share};
use super::policy::Policies;
use super::surplus::{self, Surplus};
use super::usage::{FolderUse, Measured};
use larum_storage_format::manifest::LivePartition;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// What the data folder takes, what it may take, and what is dropped next.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RetentionStatus {
    /// What the folder takes now.
    pub usage: FolderUse,
    /// What it takes once all that is due is dropped.
    pub bytes_after: u64,
    /// What it may take, if there is a limit.
    pub limit_bytes: Option<u64>,
    /// By how much it will still be too much, with nothing left to drop.
    pub excess_bytes: u64,
    /// How long samples are kept that no policy is for; `None` is for ever.
    pub retention: Option<Duration>,
    /// Whether nothing expires at present, because the clock jumped or the data are old.
    pub paused: bool,
    /// When what has expired is removed next, in milliseconds since the epoch; `None`: as soon as it is
    /// due, for there is no schedule.
    pub next_cleanup_ms: Option<i64>,
    /// What is dropped next because of its age.
    pub next_by_time: Option<NextDrop>,
    /// What is written anew next because much of it has expired. It is known only of partitions of which
    /// something has.
    pub next_by_rewriting: Option<NextDrop>,
    /// What is dropped next because of the limit on size.
    pub next_by_size: Option<NextDrop>,
}

/// Partitions that are dropped, or written anew, together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct NextDrop {
    /// When, in milliseconds since the epoch, if that is known; in the past: with the next round of
    /// background work that may do it: at the next time of the schedule, or, for what expires while the
    /// clock is not believed, when it is again.
    pub at_ms: Option<i64>,
    /// How many partitions.
    pub partitions: usize,
    /// What they free.
    pub bytes: u64,
    /// Times of their oldest and newest samples, in milliseconds since the epoch.
    pub range_ms: (i64, i64),
}

/// How the bytes of partitions are spread: those of the chunks, not those of the index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetentionShares {
    /// Over the policies, in their order; the last is the retention of all others.
    pub policies: Vec<PolicyShare>,
    /// Over the metrics that take most, descending.
    pub metrics: Vec<MetricShare>,
    /// Partitions that do not count: there was no time, or their index is damaged.
    pub uncounted_partitions: usize,
}

/// What the series of a policy take.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PolicyShare {
    /// Which series; `None` for those that no other policy matches.
    pub selector: Option<String>,
    /// How long they are kept; `None` is for ever.
    pub keep: Option<Duration>,
    /// Bytes now.
    pub bytes: u64,
    /// About how many once all that is due is done.
    pub bytes_after: u64,
}

/// What the series of a metric take.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MetricShare {
    /// The metric.
    pub name: String,
    /// Bytes now.
    pub bytes: u64,
    /// About how many once all that is due is done.
    pub bytes_after: u64,
}

impl RetentionShares {
    /// Adds up partitions: how each is spread, and what becomes of it; what is due by `until_ms` is
    /// done, if anything is.
    pub(crate) fn of(
        policies: &Policies,
        partitions: &[(Arc<Shares>, Expiry)],
        until_ms: Option<i64>,
        limit: usize,
    ) -> RetentionShares {
        let selectors = policies.list().iter().map(|policy| (Some(policy.to_string()), policy.keep));
        let all = selectors.chain([(None, policies.rest())]);
        let mut by_policy: Vec<PolicyShare> =
            all.map(|(selector, keep)| PolicyShare { selector, keep, ..PolicyShare::default() }).collect();
        let mut metrics: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for (shares, expiry) in partitions {
            let left: Vec<f64> = shares.left(policies, expiry, until_ms);
            for ((sum, share), left) in by_policy.iter_mut().zip(&shares.by_policy).zip(&left) {
                sum.bytes += share.bytes;
                sum.bytes_after += (share.bytes as f64 * left) as u64;
            }
            for (name, policy, bytes) in &shares.by_metric {
                let (now, after) = metrics.entry(name).or_default();
                *now += bytes;
                *after += (*bytes as f64 * left[*policy]) as u64;
            }
        }
        let metrics = metrics.into_iter().map(|(name, (bytes, bytes_after))| MetricShare {
            name: name.to_owned(),
            bytes,
            bytes_after,
        });
        let mut metrics: Vec<MetricShare> = metrics.collect();
        metrics.sort_by(|a, b| (b.bytes, &a.name).cmp(&(a.bytes, &b.name)));
        metrics.truncate(limit);
        RetentionShares { policies: by_policy, metrics, uncounted_partitions: 0 }
    }
}

/// How the bytes of the chunks of a partition are spread.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shares {
    /// Over its times, of each policy.
    pub by_policy: Vec<Share>,
    /// Over its metrics, of each policy.
    pub by_metric: Vec<(String, usize, u64)>,
    /// What becomes of it.
    pub expiry: Expiry,
}

impl Shares {
    /// The share of the bytes of each policy that is left once what is due by `until_ms` is done.
    fn left(&self, policies: &Policies, expiry: &Expiry, until_ms: Option<i64>) -> Vec<f64> {
        let is_due =
            |at_ms: Option<i64>| at_ms.zip(until_ms).is_some_and(|(at_ms, until_ms)| at_ms <= until_ms);
        let left = |(share, keep_ms): (&Share, Option<i64>)| match (keep_ms, until_ms) {
            _ if is_due(expiry.drop_at_ms) => 0.0,
            (Some(keep_ms), Some(until_ms)) if is_due(expiry.rewrite_at_ms) && share.bytes > 0 => {
                1.0 - share.before(until_ms.saturating_sub(keep_ms)) as f64 / share.bytes as f64
            }
            _ => 1.0,
        };
        self.by_policy.iter().zip(policies.keeps_ms()).map(left).collect()
    }

    /// The share of all bytes that is left then.
    pub fn left_of_all(&self, policies: &Policies, expiry: &Expiry, until_ms: Option<i64>) -> f64 {
        let left = self.left(policies, expiry, until_ms);
        let total: u64 = self.by_policy.iter().map(|share| share.bytes).sum();
        let after: f64 = self.by_policy.iter().zip(left).map(|(share, left)| share.bytes as f64 * left).sum();
        if total == 0 { 1.0 } else { after / total as f64 }
    }
}

/// What becomes of a partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    pub expiry: Expiry,
    /// The share of its bytes that writing it anew would leave, if that is due.
    pub left: f64,
}

/// What decides about size.
pub(crate) struct Situation<'a> {
    pub live: &'a [LivePartition],
    pub measured: &'a Measured,
    /// Of what the folder takes, so much is dropped already and only waits for its removal.
    pub retired_bytes: u64,
    pub limit_bytes: Option<u64>,
    pub now_ms: i64,
}

/// What decides about time.
pub(crate) struct Times<'a> {
    /// How long series are kept that no policy matches.
    pub retention: Option<Duration>,
    pub paused: bool,
    /// What has expired by then is due; `None`: nothing is at present.
    pub until_ms: Option<i64>,
    pub next_cleanup_ms: Option<i64>,
    /// What becomes of each partition.
    pub expected: &'a BTreeMap<u64, Expected>,
}

impl Situation<'_> {
    /// What is too much.
    pub fn surplus(&self) -> Surplus {
        let total = self.measured.usage.total().saturating_sub(self.retired_bytes);
        self.limit_bytes.map_or_else(Surplus::default, |limit| {
            surplus::surplus(self.live, &self.measured.freed, total, limit, None)
        })
    }

    /// What retention has still to do.
    pub fn status(&self, times: &Times<'_>) -> RetentionStatus {
        let surplus = self.surplus();
        let dropped = times.next(|expiry| expiry.drop_at_ms);
        let mut rewritten = times.next(|expiry| expiry.rewrite_at_ms);
        let due: BTreeSet<u64> = dropped.due.union(&surplus.numbers).copied().collect();
        rewritten.due.retain(|number| !due.contains(number));
        let usage = self.measured.usage;
        let by_size = self.limit_bytes.and_then(|_| match surplus.numbers.is_empty() {
            false => self.drop_of(&surplus.numbers, Some(self.now_ms)),
            true => self.drop_of(&surplus::next(self.live, &self.measured.freed).numbers, None),
        });
        let freed = self.freed_by(&due) + self.freed_by_rewriting(&rewritten.due, times);
        RetentionStatus {
            bytes_after: usage.total().saturating_sub(self.retired_bytes + freed),
            usage,
            limit_bytes: self.limit_bytes,
            excess_bytes: surplus.excess_bytes,
            retention: times.retention,
            paused: times.paused,
            next_cleanup_ms: times.next_cleanup_ms,
            next_by_time: dropped.together().and_then(|(numbers, at_ms)| self.drop_of(&numbers, Some(at_ms))),
            next_by_rewriting: rewritten.together().and_then(|(numbers, at_ms)| {
                let bytes = self.freed_by_rewriting(&numbers, times);
                self.drop_of(&numbers, Some(at_ms)).map(|next| NextDrop { bytes, ..next })
            }),
            next_by_size: by_size,
        }
    }

    fn freed_by(&self, numbers: &BTreeSet<u64>) -> u64 {
        numbers.iter().filter_map(|number| self.measured.freed.get(number)).sum()
    }

    fn freed_by_rewriting(&self, numbers: &BTreeSet<u64>, times: &Times<'_>) -> u64 {
        let freed = |number: &u64| {
            let bytes = *self.measured.freed.get(number)? as f64;
            Some((bytes * (1.0 - times.expected.get(number)?.left)) as u64)
        };
        numbers.iter().filter_map(freed).sum()
    }

    fn drop_of(&self, numbers: &BTreeSet<u64>, at_ms: Option<i64>) -> Option<NextDrop> {
        let these = || self.live.iter().filter(|p| numbers.contains(&p.number));
        Some(NextDrop {
            at_ms,
            partitions: numbers.len(),
            bytes: self.freed_by(numbers),
            range_ms: (these().map(|p| p.min_ms).min()?, these().map(|p| p.max_ms).max()?),
        })
    }
}

/// What is due, and else what is next.
struct Coming {
    due: BTreeSet<u64>,
    first: Option<(u64, i64)>,
}

impl Times<'_> {
    fn next(&self, at_ms: impl Fn(&Expiry) -> Option<i64>) -> Coming {
        let all =
            self.expected.iter().filter_map(|(&number, expected)| Some((number, at_ms(&expected.expiry)?)));
        let all: Vec<(u64, i64)> = all.collect();
        let is_due = |at_ms: i64| self.until_ms.is_some_and(|until_ms| at_ms <= until_ms);
        Coming {
            due: all.iter().filter(|(_, at_ms)| is_due(*at_ms)).map(|(number, _)| *number).collect(),
            first: all.into_iter().min_by_key(|&(number, at_ms)| (at_ms, number)),
        }
    }
}

impl Coming {
    /// What is done together, and when it was due.
    fn together(self) -> Option<(BTreeSet<u64>, i64)> {
        let (first, at_ms) = self.first?;
        Some((if self.due.is_empty() { BTreeSet::from([first]) } else { self.due }, at_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(number: u64, min_ms: i64, max_ms: i64) -> LivePartition {
        LivePartition { number, sequence: number, byte_len: 10, min_ms, max_ms, tombstones: None }
    }

    /// Three partitions of 10 bytes each, and 70 bytes of the WAL.
    fn status(
        limit_bytes: Option<u64>,
        retention_ms: Option<i64>,
        now_ms: i64,
        paused: bool,
    ) -> RetentionStatus {
        let live = [part(1, 0, 9), part(2, 10, 19), part(3, 20, 29)];
        let usage = FolderUse { partitions: 30, wal: 70, ..FolderUse::default() };
        let measured = Measured { usage, freed: (1..4).map(|n| (n, 10)).collect() };
        let expected = live.iter().map(|p| {
            let expiry = Expiry::of_newest(p.max_ms, [retention_ms].into_iter());
            (p.number, Expected { expiry, left: 1.0 })
        });
        let expected: BTreeMap<u64, Expected> = expected.collect();
        let situation = Situation { live: &live, measured: &measured, retired_bytes: 0, limit_bytes, now_ms };
        situation.status(&Times {
            retention: None,
            paused,
            until_ms: (!paused).then_some(now_ms),
            next_cleanup_ms: None,
            expected: &expected,
        })
    }

    #[test]
    fn the_next_drop_says_when_and_what_is_left_then() {
        let drop = |at_ms, partitions, range_ms| {
            Some(NextDrop { at_ms, partitions, bytes: 10 * partitions as u64, range_ms })
        };
        for (limit, retention, now, paused, after, excess, by_time, by_size) in [
            (None, None, 40, false, 100, 0, None, None),
            (Some(100), None, 40, false, 100, 0, None, drop(None, 1, (0, 9))),
            (Some(85), None, 40, false, 80, 0, None, drop(Some(40), 2, (0, 19))),
            (Some(60), None, 40, false, 70, 10, None, drop(Some(40), 3, (0, 29))),
            (None, Some(50), 40, false, 100, 0, drop(Some(60), 1, (0, 9)), None),
            (None, Some(50), 75, false, 80, 0, drop(Some(60), 2, (0, 19)), None),
            (None, Some(50), 75, true, 100, 0, drop(Some(60), 1, (0, 9)), None),
            (Some(85), Some(50), 65, false, 80, 0, drop(Some(60), 1, (0, 9)), drop(Some(65), 2, (0, 19))),
        ] {
            let found = status(limit, retention, now, paused);
            let case = format!("{limit:?} {retention:?} at {now}");
            assert_eq!((found.bytes_after, found.excess_bytes), (after, excess), "{case}");
            assert_eq!((found.next_by_time, found.next_by_size), (by_time, by_size), "{case}");
        }
    }
}
