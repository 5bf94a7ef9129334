//! Which series are kept how long: by the first policy that matches, the others by the retention of
//! all. Where each of them begins is a border.
//!
//! Policies are matched once against the series of a partition, and against a series of the head when
//! it is created; the sets are kept beside them. Where no policy is given there is one border, and
//! nobody asks which policy keeps a series.

use super::matcher::Matcher;
use super::time::{TimeRange, as_millis};
use larum_storage_format::Labels;
use roaring::RoaringBitmap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How long the series that match are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetentionPolicy {
    /// All of them must match.
    pub matchers: Vec<Matcher>,
    /// `None` is for ever.
    pub keep: Option<Duration>,
}

/// The selector, as PromQL writes it.
impl fmt::Display for RetentionPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let matchers: Vec<String> = self.matchers.iter().map(Matcher::to_string).collect();
        write!(f, "{{{}}}", matchers.join(","))
    }
}

/// The policies in force. A policy is known by its place; the last is that of the series that no
/// other matches.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Policies {
    list: Vec<RetentionPolicy>,
    rest: Option<Duration>,
}

impl Policies {
    /// `rest` keeps the series that none of the `list` matches.
    pub fn new(rest: Option<Duration>, list: Vec<RetentionPolicy>) -> Policies {
        Policies { list, rest }
    }

    /// All but the last.
    pub fn list(&self) -> &[RetentionPolicy] {
        &self.list
    }

    /// How long the series are kept that no other policy matches.
    pub fn rest(&self) -> Option<Duration> {
        self.rest
    }

    /// How long each keeps its series, in milliseconds.
    pub fn keeps_ms(&self) -> impl Iterator<Item = Option<i64>> {
        let keeps = self.list.iter().map(|policy| policy.keep).chain([self.rest]);
        keeps.map(|keep| keep.map(as_millis))
    }

    /// Whether anything ever expires.
    pub fn expire(&self) -> bool {
        self.keeps_ms().any(|keep_ms| keep_ms.is_some())
    }

    /// The policy that keeps a series of these labels.
    pub fn policy_of(&self, labels: &Labels) -> usize {
        let matches = |policy: &RetentionPolicy| policy.matchers.iter().all(|m| m.matches_series(labels));
        self.list.iter().position(matches).unwrap_or(self.list.len())
    }

    /// Which of `all` the series of a part each policy keeps; `select` finds those that match.
    pub fn sets<E>(
        &self,
        all: u64,
        mut select: impl FnMut(&[Matcher]) -> Result<RoaringBitmap, E>,
    ) -> Result<PolicySets, E> {
        let mut taken = RoaringBitmap::new();
        let mut sets = Vec::with_capacity(self.list.len());
        for policy in &self.list {
            let own = select(&policy.matchers)? - &taken;
            taken |= &own;
            sets.push(own);
        }
        Ok(PolicySets { sets, rest: all.saturating_sub(taken.len()) })
    }
}

/// Which series of a part each policy keeps.
#[derive(Debug, Clone, Default)]
pub(crate) struct PolicySets {
    /// Of each policy but the last.
    sets: Vec<RoaringBitmap>,
    /// How many series the last one keeps.
    rest: u64,
}

impl PolicySets {
    /// No series yet.
    pub fn of(policies: &Policies) -> PolicySets {
        PolicySets { sets: vec![RoaringBitmap::new(); policies.list.len()], rest: 0 }
    }

    /// The policy that keeps a series.
    pub fn policy_of(&self, series: u32) -> usize {
        self.sets.iter().position(|set| set.contains(series)).unwrap_or(self.sets.len())
    }

    /// Whether a policy keeps any series.
    pub fn has(&self, policy: usize) -> bool {
        self.sets.get(policy).map_or(self.rest > 0, |set| !set.is_empty())
    }

    /// Adds a series.
    pub fn insert(&mut self, policy: usize, series: u32) {
        match self.sets.get_mut(policy) {
            Some(set) => _ = set.insert(series),
            None => self.rest += 1,
        }
    }

    /// Takes a series out.
    pub fn remove(&mut self, series: u32) {
        let found = self.sets.iter_mut().any(|set| set.remove(series));
        self.rest -= u64::from(!found && self.rest > 0);
    }
}

/// From when on samples are kept.
#[derive(Debug, Clone)]
pub(crate) struct Borders {
    /// Where the series begins that is kept longest.
    pub oldest_ms: i64,
    /// Only where there are policies.
    pub by_policy: Option<PolicyBorders>,
}

/// Where the series of each policy begin.
#[derive(Debug, Clone)]
pub(crate) struct PolicyBorders {
    /// The policies.
    pub policies: Arc<Policies>,
    /// Of each of them.
    pub borders_ms: Arc<[i64]>,
    /// The last of them: what comes after is kept, whoever has it.
    pub newest_ms: i64,
}

impl Borders {
    /// The same for all series.
    pub fn at(border_ms: i64) -> Borders {
        Borders { oldest_ms: border_ms, by_policy: None }
    }

    /// At a given present.
    pub fn new(policies: &Arc<Policies>, now_ms: i64) -> Borders {
        let border =
            |keep_ms: Option<i64>| keep_ms.map_or(i64::MIN, |keep_ms| now_ms.saturating_sub(keep_ms));
        if policies.list.is_empty() {
            return Borders::at(policies.keeps_ms().map(border).next().unwrap_or(i64::MIN));
        }
        let borders_ms: Arc<[i64]> = policies.keeps_ms().map(border).collect();
        Borders {
            oldest_ms: borders_ms.iter().copied().min().unwrap_or(i64::MIN),
            by_policy: Some(PolicyBorders {
                policies: policies.clone(),
                newest_ms: borders_ms.iter().copied().max().unwrap_or(i64::MIN),
                borders_ms,
            }),
        }
    }

    /// What comes from then on is kept, whoever has it.
    pub fn newest_ms(&self) -> i64 {
        self.by_policy.as_ref().map_or(self.oldest_ms, |by_policy| by_policy.newest_ms)
    }

    /// What is shown of some series by these borders or by `others`, but not by both.
    pub fn moved(&self, others: &Borders) -> Vec<TimeRange> {
        let between = |(a, b): (i64, i64)| (a != b).then(|| TimeRange::new(a.min(b), a.max(b) - 1));
        match (&self.by_policy, &others.by_policy) {
            (None, None) => between((self.oldest_ms, others.oldest_ms)).into_iter().collect(),
            (Some(a), Some(b)) if Arc::ptr_eq(&a.policies, &b.policies) => {
                let both = a.borders_ms.iter().copied().zip(b.borders_ms.iter().copied());
                both.filter_map(between).collect()
            }
            _ => vec![TimeRange::ALL],
        }
    }

    /// What of `range` some series may still have.
    pub fn shown(&self, range: TimeRange) -> TimeRange {
        from(range, self.oldest_ms)
    }

    /// The policies, if the borders of some lie within `range`.
    pub fn within(&self, range: TimeRange) -> Option<&PolicyBorders> {
        self.by_policy.as_ref().filter(|by_policy| by_policy.newest_ms > range.min_ms)
    }
}

/// The part of a range that does not lie before a border.
pub(crate) fn from(range: TimeRange, border_ms: i64) -> TimeRange {
    TimeRange { min_ms: range.min_ms.max(border_ms), ..range }
}

/// Where the series of one part begin.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    sets: Arc<PolicySets>,
    borders_ms: Arc<[i64]>,
}

impl Kept {
    /// `None` if the part has no series whose border lies within `range`.
    pub fn new(sets: Arc<PolicySets>, borders: &PolicyBorders, range: TimeRange) -> Option<Kept> {
        let kept = Kept { sets, borders_ms: borders.borders_ms.clone() };
        let cuts = kept.present().any(|border_ms| border_ms > range.min_ms);
        cuts.then_some(kept)
    }

    /// Where a series begins.
    pub fn border_ms(&self, series: u32) -> i64 {
        self.borders_ms[self.sets.policy_of(series)]
    }

    /// Where the series of the part begin, as far as it has any.
    pub fn present(&self) -> impl Iterator<Item = i64> {
        self.borders_ms.iter().enumerate().filter(|(policy, _)| self.sets.has(*policy)).map(|(_, &ms)| ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(job: &str, seconds: u64) -> RetentionPolicy {
        let keep = Some(Duration::from_secs(seconds)).filter(|keep| !keep.is_zero());
        RetentionPolicy { matchers: vec![Matcher::equal("job", job)], keep }
    }

    fn labels(job: &str) -> Labels {
        Labels::from_pairs([("__name__", "m"), ("job", job)]).unwrap()
    }

    #[test]
    fn what_is_shown_changes_between_the_borders_of_each_policy() {
        let policies = |keep| Arc::new(Policies::new(keep, vec![policy("a", 10), policy("b", 0)]));
        let minute = Some(Duration::from_secs(60));
        let with = policies(minute);
        let at = |policies: &Arc<Policies>, seconds: i64| Borders::new(policies, seconds * 1000);
        let range = |from: i64, to: i64| TimeRange::new(from * 1000, to * 1000 - 1);
        let both = vec![range(90, 95), range(40, 45)];
        assert_eq!(at(&with, 100).moved(&at(&with, 105)), both);
        assert_eq!(at(&with, 105).moved(&at(&with, 100)), both);
        assert_eq!(at(&with, 100).moved(&at(&with, 100)), []);
        assert_eq!(at(&with, 100).moved(&at(&policies(minute), 100)), [TimeRange::ALL], "others");
        let plain = Arc::new(Policies::new(minute, vec![]));
        assert_eq!(at(&plain, 100).moved(&at(&plain, 101)), [range(40, 41)]);
        assert_eq!(at(&plain, 100).moved(&at(&with, 100)), [TimeRange::ALL]);
        assert_eq!(Borders::at(i64::MIN).moved(&Borders::at(i64::MIN)), []);
        assert_eq!(Borders::at(i64::MIN).moved(&Borders::at(0)), [TimeRange::new(i64::MIN, -1)]);
    }

    #[test]
    fn the_first_policy_that_matches_keeps_a_series_and_the_rest_keeps_the_others() {
        let any = RetentionPolicy { matchers: vec![Matcher::equal("__name__", "m")], keep: None };
        let policies = Policies::new(None, vec![policy("a", 1), policy("b", 2), any.clone(), policy("c", 3)]);
        for (job, expected) in [("a", 0), ("b", 1), ("c", 2), ("z", 2)] {
            assert_eq!(policies.policy_of(&labels(job)), expected, "{job}");
        }
        assert_eq!(policies.policy_of(&Labels::empty()), 4);
        // The series of a part: 0 and 1 are a's, 2 is b's, 3 is c's; 4 has another name.
        let sets = policies.sets::<()>(5, |matchers| {
            Ok(match matchers[0].value() {
                "a" => RoaringBitmap::from_iter([0, 1]),
                "b" => RoaringBitmap::from_iter([2]),
                "c" => RoaringBitmap::from_iter([3]),
                _ => RoaringBitmap::from_iter(0..4),
            })
        });
        let mut sets = sets.unwrap();
        assert_eq!([0, 1, 2, 3, 4].map(|series| sets.policy_of(series)), [0, 0, 1, 2, 4]);
        assert_eq!([0, 1, 2, 3, 4].map(|policy| sets.has(policy)), [true, true, true, false, true]);
        sets.remove(4);
        sets.remove(2);
        sets.insert(3, 2);
        assert_eq!([0, 1, 2, 3, 4].map(|policy| sets.has(policy)), [true, false, true, true, false]);
        assert_eq!((sets.policy_of(2), any.to_string().as_str()), (3, "{__name__=\"m\"}"));
    }

    #[test]
    fn borders_lie_as_far_back_as_each_policy_keeps() {
        let none = || Vec::new();
        let day = |n| Some(Duration::from_secs(n));
        for (rest, list, oldest, newest) in [
            (None, none(), i64::MIN, i64::MIN),
            (day(10), none(), 90_000, 90_000),
            (day(10), vec![policy("a", 3)], 90_000, 97_000),
            (day(10), vec![policy("a", 30)], 70_000, 90_000),
            (day(10), vec![policy("a", 0), policy("b", 3)], i64::MIN, 97_000),
            (None, vec![policy("a", 3)], i64::MIN, 97_000),
        ] {
            let policies = Arc::new(Policies::new(rest, list));
            let borders = Borders::new(&policies, 100_000);
            assert_eq!((borders.oldest_ms, borders.newest_ms()), (oldest, newest), "{policies:?}");
            assert_eq!(policies.expire(), newest > i64::MIN);
            assert_eq!(borders.by_policy.is_some(), !policies.list().is_empty());
        }
    }

    #[test]
    fn a_part_is_cut_where_it_has_series_whose_border_lies_within() {
        let policies = Arc::new(Policies::new(None, vec![policy("a", 3), policy("b", 5)]));
        let borders = Borders::new(&policies, 100_000);
        let sets = policies.sets::<()>(2, |matchers| {
            Ok(RoaringBitmap::from_iter((matchers[0].value() == "b").then_some(1)))
        });
        let sets = Arc::new(sets.unwrap());
        for (min_ms, cut) in [(0, true), (94_999, true), (95_000, false), (96_999, false), (97_000, false)] {
            let range = TimeRange::new(min_ms, i64::MAX);
            let kept = borders.within(range).and_then(|within| Kept::new(sets.clone(), within, range));
            assert_eq!(kept.is_some(), cut, "{min_ms}");
            if let Some(kept) = kept {
                assert_eq!((kept.border_ms(0), kept.border_ms(1)), (i64::MIN, 95_000));
            }
        }
    }
}
