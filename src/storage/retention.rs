//! How old a sample may be: the border of reads, of refusals and of dropping.
//!
//! A wrong clock must not delete data. While the clock cannot be trusted the border stays where it
//! was: for a day after a jump of more than a day against monotonic time, or after a start more
//! than a day past the newest sample. If the clock jumps back to where it should be, all is well
//! at once.
//!
//! At a start, samples of the last day say little: a clock that was wrong then has given them times
//! that suit it. So those before must go on to the last day, too, or nothing expires for a day.

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

/// Where retention begins.
#[derive(Debug, Clone)]
pub(crate) struct Retention {
    /// `None`: everything is kept.
    retention_ms: Option<i64>,
    last: Now,
    paused: Option<Pause>,
}

#[derive(Debug, Clone)]
struct Pause {
    /// The clocks before they departed from each other.
    before: Now,
    since_monotonic_ms: i64,
    border_ms: i64,
}

impl Retention {
    /// At the start, with the time until which the clock may have been right; see [`trusted_until`].
    pub fn new(retention_ms: Option<i64>, now: Now, newest_ms: Option<i64>) -> Retention {
        let mut retention = Retention { retention_ms, last: now, paused: None };
        if let (Some(length_ms), Some(newest_ms)) = (retention_ms, newest_ms)
            && now.wall_ms.saturating_sub(newest_ms) > DAY_MS
        {
            retention.paused = Some(Pause {
                before: Now { wall_ms: newest_ms, ..now },
                since_monotonic_ms: now.monotonic_ms,
                border_ms: newest_ms.saturating_sub(length_ms),
            });
        }
        retention
    }

    /// The oldest time that is kept now.
    pub fn border_ms(&mut self, now: Now) -> i64 {
        let Some(retention_ms) = self.retention_ms else { return i64::MIN };
        if let Some(pause) = &self.paused
            && (now.monotonic_ms.saturating_sub(pause.since_monotonic_ms) > DAY_MS
                || !jumped(pause.before, now))
        {
            self.paused = None;
        } else if self.paused.is_none() && jumped(self.last, now) {
            self.paused = Some(Pause {
                before: self.last,
                since_monotonic_ms: now.monotonic_ms,
                border_ms: self.last.wall_ms.saturating_sub(retention_ms),
            });
        }
        self.last = now;
        self.paused.as_ref().map_or(now.wall_ms.saturating_sub(retention_ms), |pause| pause.border_ms)
    }

    /// Whether the clock is not believed at present.
    pub fn is_paused(&self) -> bool {
        self.paused.is_some()
    }
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
    let yesterday_ms = now_ms.saturating_sub(DAY_MS);
    let before = newest(yesterday_ms).filter(|&t| yesterday_ms.saturating_sub(t) > DAY_MS);
    before.or_else(|| newest(now_ms.saturating_add(max_ahead_ms)))
}

fn jumped(before: Now, now: Now) -> bool {
    let wall_ms = now.wall_ms.saturating_sub(before.wall_ms);
    let monotonic_ms = now.monotonic_ms.saturating_sub(before.monotonic_ms);
    wall_ms.saturating_sub(monotonic_ms).unsigned_abs() > DAY_MS as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(wall_ms: i64, monotonic_ms: i64) -> Now {
        Now { wall_ms: 100 * DAY_MS + wall_ms, monotonic_ms }
    }

    const BORDER: i64 = 90 * DAY_MS;

    fn ten_days() -> Retention {
        Retention::new(Some(10 * DAY_MS), at(0, 0), Some(100 * DAY_MS - 5))
    }

    #[test]
    fn the_border_follows_a_clock_that_runs_well() {
        let mut retention = ten_days();
        assert_eq!(retention.border_ms(at(0, 0)), BORDER);
        assert_eq!(retention.border_ms(at(1000, 990)), BORDER + 1000);
        assert_eq!(retention.border_ms(at(5 * DAY_MS, 5 * DAY_MS)), BORDER + 5 * DAY_MS);
        assert!(!retention.is_paused());
    }

    #[test]
    fn without_retention_nothing_is_too_old() {
        let mut retention = Retention::new(None, at(0, 0), Some(0));
        assert_eq!(retention.border_ms(at(400 * DAY_MS, 1)), i64::MIN);
    }

    #[test]
    fn a_jump_of_more_than_a_day_holds_the_border_for_a_day() {
        for jump_ms in [DAY_MS + 2, -DAY_MS - 2, 500 * DAY_MS] {
            let mut retention = ten_days();
            assert_eq!(retention.border_ms(at(10, 10)), BORDER + 10);
            assert_eq!(retention.border_ms(at(20 + jump_ms, 20)), BORDER + 10, "{jump_ms}");
            assert!(retention.is_paused());
            assert_eq!(retention.border_ms(at(DAY_MS + jump_ms, DAY_MS)), BORDER + 10);
            let later = at(DAY_MS + 21 + jump_ms, DAY_MS + 21);
            assert_eq!(retention.border_ms(later), BORDER + DAY_MS + 21 + jump_ms);
            assert!(!retention.is_paused());
        }
    }

    #[test]
    fn a_clock_that_comes_back_is_believed_at_once() {
        let mut retention = ten_days();
        assert_eq!(retention.border_ms(at(3 * DAY_MS, 20)), BORDER);
        assert_eq!(retention.border_ms(at(40, 40)), BORDER + 40);
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
            let is_paused = Retention::new(Some(10 * DAY_MS), at(0, 0), trusted).is_paused();
            assert_eq!(is_paused, trusted_days.is_some_and(|days| days < 99.0), "{days:?}");
        }
    }

    #[test]
    fn a_start_long_after_the_newest_sample_holds_the_border() {
        let mut retention = Retention::new(Some(10 * DAY_MS), at(0, 0), Some(80 * DAY_MS));
        assert_eq!(retention.border_ms(at(0, 0)), 70 * DAY_MS);
        assert_eq!(retention.border_ms(at(DAY_MS + 1, DAY_MS + 1)), BORDER + DAY_MS + 1);
    }
}
