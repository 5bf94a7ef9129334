//! How old a sample may be: the borders of reads, of refusals and of dropping.
//!
//! A wrong clock must not delete data. While the clock cannot be trusted the borders stay where they
//! were: for a day after a jump of more than a day against monotonic time, or after a start more
//! than a day past the newest sample. If the clock jumps back to where it should be, all is well
//! at once.
//!
//! At a start, samples of the last day say little: a clock that was wrong then has given them times
//! that suit it. So those before must go on to the last day, too, or nothing expires for a day.

use super::policy::Policies;
use super::time::TimeRange;
use std::sync::Arc;

/// More than this is a jump; and so long it is not believed.
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// The present by two clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Now {
    /// Milliseconds since the epoch, by the clock of the options.
    pub wall_ms: i64,
    /// Milliseconds since some moment, by a clock that never jumps.
    pub monotonic_ms: i64,
}

/// What is kept, and by which time that is reckoned.
#[derive(Debug, Clone)]
pub(crate) struct Retention {
    policies: Arc<Policies>,
    last: Now,
    paused: Option<Pause>,
}

#[derive(Debug, Clone)]
struct Pause {
    /// The clocks before they departed from each other: until it is over, it is no later.
    before: Now,
    since_monotonic_ms: i64,
}

impl Retention {
    /// At the start, with the time until which the clock may have been right; see [`trusted_until`].
    pub fn new(policies: Policies, now: Now, newest_ms: Option<i64>) -> Retention {
        let newest_ms = newest_ms.filter(|&newest_ms| now.wall_ms.saturating_sub(newest_ms) > DAY_MS);
        let paused = newest_ms.map(|newest_ms| Pause {
            before: Now { wall_ms: newest_ms, ..now },
            since_monotonic_ms: now.monotonic_ms,
        });
        Retention { policies: Arc::new(policies), last: now, paused }
    }

    /// What is kept.
    pub fn policies(&self) -> &Arc<Policies> {
        &self.policies
    }

    /// Keeps something else from now on.
    pub fn set(&mut self, policies: Policies) {
        self.policies = Arc::new(policies);
    }

    /// The time by which samples expire: the present, as far as it is believed.
    pub fn believed_ms(&mut self, now: Now) -> i64 {
        if let Some(pause) = &self.paused
            && (now.monotonic_ms.saturating_sub(pause.since_monotonic_ms) > DAY_MS
                || !jumped(pause.before, now))
        {
            self.paused = None;
        } else if self.paused.is_none() && jumped(self.last, now) {
            self.paused = Some(Pause { before: self.last, since_monotonic_ms: now.monotonic_ms });
        }
        self.last = now;
        self.paused.as_ref().map_or(now.wall_ms, |pause| pause.before.wall_ms)
    }

    /// Somebody says that the clock is right.
    pub fn trust(&mut self, now: Now) {
        (self.paused, self.last) = (None, now);
    }

    /// Whether the clock is not believed at present, and something would expire by it.
    pub fn is_paused(&self) -> bool {
        self.paused.is_some() && self.policies.expire()
    }
}

/// The day before the last one.
pub(crate) fn day_before(now_ms: i64) -> TimeRange {
    let yesterday_ms = now_ms.saturating_sub(DAY_MS);
    TimeRange::new(yesterday_ms.saturating_sub(DAY_MS), yesterday_ms)
}

/// Until when the clock of a start may have been right, of the `times` of samples: the newest, if
/// there are samples up to the last day, else the newest before that. Times beyond what is accepted
/// say nothing.
pub(crate) fn trusted_until(
    times: impl Iterator<Item = i64> + Clone,
    now_ms: i64,
    max_ahead_ms: i64,
) -> Option<i64> {
    let newest = |until_ms: i64| times.clone().filter(|&t| t <= until_ms).max();
    let day_before = day_before(now_ms);
    let before = newest(day_before.max_ms).filter(|&t| t < day_before.min_ms);
    before.or_else(|| newest(now_ms.saturating_add(max_ahead_ms)))
}

fn jumped(before: Now, now: Now) -> bool {
    let wall_ms = now.wall_ms.saturating_sub(before.wall_ms);
    let monotonic_ms = now.monotonic_ms.saturating_sub(before.monotonic_ms);
    wall_ms.saturating_sub(monotonic_ms).unsigned_abs() > DAY_MS as u64
}

#[cfg(test)]
mod tests {
    use super::super::matcher::Matcher;
    use super::super::policy::{Borders, RetentionPolicy};
    use super::*;
    use std::time::Duration;

    fn at(wall_ms: i64, monotonic_ms: i64) -> Now {
        Now { wall_ms: 100 * DAY_MS + wall_ms, monotonic_ms }
    }

    const BORDER: i64 = 90 * DAY_MS;

    fn policies() -> Policies {
        let day = |n| Some(Duration::from_millis(n * DAY_MS as u64));
        let policy = |job, keep| RetentionPolicy { matchers: vec![Matcher::equal("job", job)], keep };
        Policies::new(day(10), vec![policy("ci", day(3)), policy("billing", None)])
    }

    /// The border of all, and those of the policies are where they should be beside it.
    fn border_ms(retention: &mut Retention, now: Now) -> i64 {
        let believed_ms = retention.believed_ms(now);
        let borders = Borders::new(retention.policies(), believed_ms).by_policy.unwrap().borders_ms;
        assert_eq!(borders[..2], [borders[2] + 7 * DAY_MS, i64::MIN]);
        borders[2]
    }

    fn ten_days() -> Retention {
        Retention::new(policies(), at(0, 0), Some(100 * DAY_MS - 5))
    }

    #[test]
    fn the_border_follows_a_clock_that_runs_well() {
        let mut retention = ten_days();
        assert_eq!(border_ms(&mut retention, at(0, 0)), BORDER);
        assert_eq!(border_ms(&mut retention, at(1000, 990)), BORDER + 1000);
        assert_eq!(border_ms(&mut retention, at(5 * DAY_MS, 5 * DAY_MS)), BORDER + 5 * DAY_MS);
        assert!(!retention.is_paused());
    }

    #[test]
    fn without_retention_nothing_is_too_old() {
        let mut retention = Retention::new(Policies::default(), at(0, 0), Some(0));
        let believed_ms = retention.believed_ms(at(400 * DAY_MS, 1));
        assert_eq!(Borders::new(retention.policies(), believed_ms).newest_ms(), i64::MIN);
        assert!(!retention.is_paused(), "nothing waits for the clock");
        retention.set(policies());
        assert!(retention.is_paused());
        assert_eq!(border_ms(&mut retention, at(400 * DAY_MS, 2)), -10 * DAY_MS);
    }

    #[test]
    fn a_jump_of_more_than_a_day_holds_the_border_for_a_day() {
        for jump_ms in [DAY_MS + 2, -DAY_MS - 2, 500 * DAY_MS] {
            let mut retention = ten_days();
            assert_eq!(border_ms(&mut retention, at(10, 10)), BORDER + 10);
            assert_eq!(border_ms(&mut retention, at(20 + jump_ms, 20)), BORDER + 10, "{jump_ms}");
            assert!(retention.is_paused());
            assert_eq!(border_ms(&mut retention, at(DAY_MS + jump_ms, DAY_MS)), BORDER + 10);
            let later = at(DAY_MS + 21 + jump_ms, DAY_MS + 21);
            assert_eq!(border_ms(&mut retention, later), BORDER + DAY_MS + 21 + jump_ms);
            assert!(!retention.is_paused());
        }
    }

    #[test]
    fn a_clock_that_comes_back_is_believed_at_once() {
        let mut retention = ten_days();
        assert_eq!(border_ms(&mut retention, at(3 * DAY_MS, 20)), BORDER);
        assert_eq!(border_ms(&mut retention, at(40, 40)), BORDER + 40);
        assert!(!retention.is_paused());
    }

    #[test]
    fn samples_by_a_wrong_clock_do_not_make_it_right() {
        for (days, trusted_days) in [
            (vec![], None),
            (vec![70.0, 71.0], Some(71.0)),
            (vec![98.5], Some(98.5)),
            (vec![98.5, 99.5], Some(99.5)),
            (vec![98.5, 100.01], Some(100.01)),
            (vec![97.9, 99.5, 100.0], Some(97.9)),
            (vec![99.5, 100.0], Some(100.0)),
            (vec![98.5, 400.0], Some(98.5)),
            (vec![400.0], None),
        ] {
            let ms = |days: f64| (days * DAY_MS as f64) as i64;
            let trusted = trusted_until(days.iter().map(|&days| ms(days)), at(0, 0).wall_ms, ms(0.01));
            assert_eq!(trusted, trusted_days.map(ms), "{days:?}");
            let is_paused = Retention::new(policies(), at(0, 0), trusted).is_paused();
            assert_eq!(is_paused, trusted_days.is_some_and(|days| days < 99.0), "{days:?}");
        }
    }

    #[test]
    fn a_clock_that_somebody_trusts_is_believed_until_it_jumps_again() {
        let mut retention = ten_days();
        assert_eq!(border_ms(&mut retention, at(5 * DAY_MS, 20)), BORDER);
        retention.trust(at(5 * DAY_MS, 30));
        assert_eq!(border_ms(&mut retention, at(5 * DAY_MS, 40)), BORDER + 5 * DAY_MS);
        assert_eq!(border_ms(&mut retention, at(50 * DAY_MS, 50)), BORDER + 5 * DAY_MS);
    }

    #[test]
    fn a_start_long_after_the_newest_sample_holds_the_border() {
        let mut retention = Retention::new(policies(), at(0, 0), Some(80 * DAY_MS));
        assert_eq!(border_ms(&mut retention, at(0, 0)), 70 * DAY_MS);
        assert_eq!(border_ms(&mut retention, at(DAY_MS + 1, DAY_MS + 1)), BORDER + DAY_MS + 1);
    }
}
