//! When a partition is dropped, and when it is written anew because enough of it has expired. Pure
//! decisions.
//!
//! 1. A partition is dropped when the last of its series has expired.
//! 2. It is written anew within a day after a tenth of its bytes has expired. Within that day it waits
//!    for the end of what else expires as a whole, so that it is not written twice; what is shorter than
//!    a day waits for being merged into one. It is left to be dropped if that comes first.
//! 3. How its bytes expire is worked out once, from the times of its chunks.

use super::cut::{DAY_MS, HOUR_MS};

/// A partition is written anew once one in so many of its bytes has expired.
const WORTH_ONE_IN: u64 = 10;

/// Within so long.
const WITHIN_MS: i64 = DAY_MS;

/// It waits for so long; the last hours are for the work itself.
const WAIT_MS: i64 = 20 * HOUR_MS;

/// The times of a partition are divided into so many steps.
const STEPS: usize = 64;

/// How the bytes of the series of one policy are spread over the times of their partition.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Share {
    /// Of the chunks.
    pub bytes: u64,
    /// The oldest sample.
    oldest_ms: i64,
    /// The newest sample.
    newest_ms: i64,
    /// The times of the partition.
    range_ms: (i64, i64),
    /// Bytes in each step.
    steps: Vec<f64>,
}

impl Share {
    /// Nothing yet, in a partition of these times.
    pub fn new(range_ms: (i64, i64)) -> Share {
        Share { bytes: 0, oldest_ms: i64::MAX, newest_ms: i64::MIN, range_ms, steps: Vec::new() }
    }

    /// Adds a chunk with samples from `first_ms` to `last_ms`.
    pub fn add(&mut self, first_ms: i64, last_ms: i64, bytes: u64) {
        self.bytes += bytes;
        self.oldest_ms = self.oldest_ms.min(first_ms);
        self.newest_ms = self.newest_ms.max(last_ms);
        self.steps.resize(STEPS, 0.0);
        let (from, to) = (self.place(first_ms), self.place(last_ms));
        let (first, last) = ((from as usize).min(STEPS - 1), (to as usize).min(STEPS - 1));
        for (step, sum) in self.steps.iter_mut().enumerate().take(last + 1).skip(first) {
            let inside = (to.min(step as f64 + 1.0) - from.max(step as f64)) / (to - from);
            *sum += bytes as f64 * if first == last { 1.0 } else { inside };
        }
    }

    /// A time in steps.
    fn place(&self, t_ms: i64) -> f64 {
        let (min_ms, max_ms) = self.range_ms;
        // One more, so that the newest sample lies within the last step.
        let span = (max_ms as f64 - min_ms as f64) + 1.0;
        ((t_ms as f64 - min_ms as f64) / span * STEPS as f64).clamp(0.0, STEPS as f64)
    }

    /// About how many bytes lie before a border: none if no sample does, or a partition would be written
    /// anew for nothing, and again.
    pub fn before(&self, border_ms: i64) -> u64 {
        if border_ms <= self.oldest_ms {
            return 0;
        }
        if border_ms > self.newest_ms {
            return self.bytes;
        }
        let place = self.place(border_ms);
        let whole: f64 = self.steps.iter().take(place as usize).sum();
        let part = self.steps.get(place as usize).map_or(0.0, |step| step * place.fract());
        (whole + part) as u64
    }
}

/// What becomes of a partition, by the time at which samples expire; `None` is never.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Expiry {
    /// All has expired.
    pub drop_at_ms: Option<i64>,
    /// So much has expired that writing it anew is worth it.
    pub worth_at_ms: Option<i64>,
    /// It is to be written anew.
    pub rewrite_at_ms: Option<i64>,
}

impl Expiry {
    /// Of a partition whose newest sample is of that time. Each of the `keeps_ms` keeps series of it.
    pub fn of_newest(max_ms: i64, keeps_ms: impl Iterator<Item = Option<i64>>) -> Expiry {
        let longest = keeps_ms.reduce(|a, b| Some(a?.max(b?))).flatten();
        let drop_at_ms = longest.map(|keep_ms| max_ms.saturating_add(keep_ms).saturating_add(1));
        Expiry { drop_at_ms, ..Expiry::default() }
    }

    /// Whether it may ever be written anew: it is not if it is dropped within the day anyway.
    pub fn may_be_rewritten(&self, min_ms: i64, keeps_ms: impl Iterator<Item = Option<i64>>) -> bool {
        let Some(shortest_ms) = keeps_ms.flatten().min() else { return false };
        let soonest_ms = min_ms.saturating_add(shortest_ms);
        self.drop_at_ms.is_none_or(|at_ms| at_ms > soonest_ms.saturating_add(WITHIN_MS))
    }

    /// Of a partition with these shares, each of which is kept so long.
    pub fn of_shares(shares: &[Share], keeps_ms: &[Option<i64>]) -> Expiry {
        let mut present: Vec<(&Share, Option<i64>)> = Vec::new();
        present.extend(shares.iter().zip(keeps_ms.iter().copied()).filter(|(share, _)| share.bytes > 0));
        let end_ms = |&(share, keep_ms): &(&Share, Option<i64>)| {
            Some(share.newest_ms.saturating_add(keep_ms?).saturating_add(1))
        };
        let ends_ms: Vec<Option<i64>> = present.iter().map(end_ms).collect();
        let drop_at_ms = ends_ms.iter().copied().reduce(|a, b| Some(a?.max(b?))).flatten();
        let total: u64 = present.iter().map(|(share, _)| share.bytes).sum();
        let is_worth_it = |now_ms: i64| {
            let before = |(share, keep_ms): &(&Share, Option<i64>)| {
                keep_ms.map_or(0, |keep_ms| share.before(now_ms.saturating_sub(keep_ms)))
            };
            let expired: u64 = present.iter().map(before).sum();
            expired > 0 && expired.saturating_mul(WORTH_ONE_IN) >= total
        };
        let Some(last_ms) = ends_ms.iter().copied().flatten().max().filter(|&last_ms| is_worth_it(last_ms))
        else {
            return Expiry { drop_at_ms, ..Expiry::default() };
        };
        let begins =
            present.iter().filter_map(|(share, keep_ms)| Some(share.range_ms.0.saturating_add((*keep_ms)?)));
        let worth_at_ms = first_time(begins.min().unwrap_or(last_ms), last_ms, is_worth_it);
        let is_dropped_soon = drop_at_ms.is_some_and(|at_ms| at_ms <= worth_at_ms.saturating_add(WITHIN_MS));
        let is_merged_soon =
            present.iter().all(|(share, _)| share.range_ms.1 - share.range_ms.0 < DAY_MS / 2);
        let wait_ms = if is_merged_soon { WITHIN_MS } else { WAIT_MS };
        let latest_ms = worth_at_ms.saturating_add(wait_ms);
        let ends_soon =
            ends_ms.into_iter().flatten().filter(|at_ms| (worth_at_ms..=latest_ms).contains(at_ms));
        Expiry {
            drop_at_ms,
            worth_at_ms: (!is_dropped_soon).then_some(worth_at_ms),
            rewrite_at_ms: (!is_dropped_soon)
                .then(|| ends_soon.max().filter(|_| !is_merged_soon).unwrap_or(latest_ms)),
        }
    }
}

/// The first time at which a condition holds that is not given up again; it holds at `last_ms`.
fn first_time(first_ms: i64, last_ms: i64, holds: impl Fn(i64) -> bool) -> i64 {
    let (mut low, mut high) = (first_ms.min(last_ms), last_ms);
    while low < high {
        let middle = low + high.saturating_sub(low) / 2;
        if holds(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60 * 1000;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;

    /// A share of so many bytes, evenly spread over the hours of a partition that begins at 0.
    fn share(bytes: u64, hours: (i64, i64), of_hours: i64) -> Share {
        let mut share = Share::new((0, of_hours * HOUR - 1));
        let chunks = hours.1 - hours.0;
        for hour in hours.0..hours.1 {
            share.add(hour * HOUR, (hour + 1) * HOUR - 1, bytes / chunks.unsigned_abs());
        }
        share
    }

    #[test]
    fn nothing_lies_before_the_oldest_sample() {
        let mut share = Share::new((0, DAY - 1));
        let (first, last) = (10 * HOUR + 5 * MINUTE, 10 * HOUR + 10 * MINUTE);
        share.add(first, last, 100);
        for (border, expected) in
            [(first - MINUTE, 0..1), (first, 0..1), (first + 1, 1..100), (last + 1, 100..101)]
        {
            assert!(expected.contains(&share.before(border)), "{border}: {}", share.before(border));
        }
    }

    #[test]
    fn bytes_before_a_border_are_told_within_a_step() {
        for (hours, of_hours) in [((0, 24), 24), ((0, 744), 744), ((6, 12), 24)] {
            let whole = share(74_400, hours, of_hours);
            let step = of_hours * HOUR / STEPS as i64;
            let mut last = 0;
            for hour in -1..=of_hours + 1 {
                let expected = (hour.clamp(hours.0, hours.1) - hours.0) * 74_400 / (hours.1 - hours.0);
                let found = whole.before(hour * HOUR) as i64;
                let tolerance = 74_400 * step / ((hours.1 - hours.0) * HOUR) + 1;
                assert!((found - expected).abs() <= tolerance, "{found} of {expected} at {hour}");
                assert!(found >= last);
                last = found;
            }
            assert_eq!((whole.before(i64::MIN), whole.before(i64::MAX)), (0, whole.bytes));
        }
        let mut point = Share::new((5, 5));
        point.add(5, 5, 10);
        assert_eq!([4, 5, 6].map(|border| point.before(border)), [0, 0, 10]);
    }

    #[test]
    fn what_expires_is_freed_within_a_day_and_no_more_often_than_it_must() {
        let (always, days) = (None, |n: i64| Some(n * DAY));
        let day = |bytes| share(bytes, (0, 24), 24);
        let month = |bytes| share(bytes, (0, 744), 744);
        // In hours: dropped, worth it, written anew.
        for (what, shares, keeps, dropped, worth, rewritten) in [
            ("a day is dropped", vec![day(2400)], vec![days(15)], Some(16 * 24), None, None),
            ("nothing expires", vec![day(2400)], vec![always], None, None, None),
            (
                "a part of a day goes when all of it has expired",
                vec![day(1200), day(2400)],
                vec![days(3), days(365)],
                Some(366 * 24),
                Some(72 + 7),
                Some(72 + 24),
            ),
            (
                "a twentieth is not worth it",
                vec![day(120), day(2400)],
                vec![days(3), always],
                None,
                None,
                None,
            ),
            (
                "a month is written anew every few days",
                vec![month(74_400)],
                vec![days(365)],
                Some((365 + 31) * 24),
                Some(365 * 24 + 75),
                Some(365 * 24 + 75 + 20),
            ),
            (
                "two policies that end on one day are one rewrite",
                vec![day(1200), share(1200, (0, 12), 24), day(2400)],
                vec![days(3), days(3), always],
                None,
                Some(72 + 3),
                Some(72 + 12),
            ),
            (
                "what was kept for long and is not any more is due",
                vec![month(0), month(74_400), month(74_400)],
                vec![days(3), Some(0), always],
                None,
                Some(149),
                Some(149 + 20),
            ),
            (
                "six hours are merged into a day before they are written anew alone",
                vec![share(600, (0, 6), 6), share(600, (0, 6), 6)],
                vec![days(3), always],
                None,
                Some(72 + 1),
                Some(72 + 1 + 24),
            ),
            ("all goes at once", vec![day(100), day(100)], vec![days(3), days(3)], Some(96), None, None),
        ] {
            let expiry = Expiry::of_shares(&shares, &keeps);
            let hours = |at: Option<i64>| at.map(|at| (at + HOUR / 2) / HOUR);
            assert_eq!(hours(expiry.drop_at_ms), dropped, "{what}");
            let near = |found: Option<i64>, expected: Option<i64>| {
                found.zip(expected).is_some_and(|(a, b)| (a - b).abs() <= 1) || found == expected
            };
            assert!(
                near(hours(expiry.worth_at_ms), worth),
                "{what}: worth it at {:?}",
                hours(expiry.worth_at_ms)
            );
            assert!(
                near(hours(expiry.rewrite_at_ms), rewritten),
                "{what}: at {:?}",
                hours(expiry.rewrite_at_ms)
            );
            let within = expiry.rewrite_at_ms.zip(expiry.worth_at_ms);
            assert!(within.is_none_or(|(at, worth)| at - worth <= DAY), "{what}");
            let may = Expiry { drop_at_ms: expiry.drop_at_ms, ..Expiry::default() };
            assert!(expiry.rewrite_at_ms.is_none() || may.may_be_rewritten(0, keeps.into_iter()), "{what}");
        }
    }

    #[test]
    fn a_partition_is_dropped_with_the_last_of_its_series() {
        for (keeps, drop_at_ms, rewritten) in [
            (vec![Some(10)], Some(110), false),
            (vec![Some(10), Some(30)], Some(130), false),
            (vec![Some(10), Some(2 * DAY)], Some(2 * DAY + 100), true),
            (vec![Some(10), None], None, true),
            (vec![None], None, false),
            (vec![Some(i64::MAX)], Some(i64::MAX), false),
        ] {
            let expiry = Expiry::of_newest(99, keeps.iter().copied());
            assert_eq!(expiry.drop_at_ms, drop_at_ms, "{keeps:?}");
            assert_eq!(expiry.may_be_rewritten(0, keeps.iter().copied()), rewritten, "{keeps:?}");
        }
    }
}
