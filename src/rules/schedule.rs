//! When groups are evaluated: pure arithmetic on slots.
//!
//! A group's slots are the multiples of its interval, shifted by a part of the interval that
//! depends on its file and name, so that groups of one interval spread over it and every restart
//! meets the same slots. Groups of which one reads what another yields have the same slots, so that it reads
//! what is of the same time.

use xxhash_rust::xxh3::xxh3_64;

/// The slots of one group, and which comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    interval_ms: i64,
    offset_ms: i64,
    /// The next slot; `None` before the first look at the clock.
    next_ms: Option<i64>,
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// The slot to evaluate, in milliseconds since the epoch.
    pub slot_ms: i64,
    /// How many slots before it passed without an evaluation.
    pub missed: u64,
}

impl Schedule {
    /// The slots of the group `name` of `file`, and of those that are connected with it.
    pub fn new(file: &str, name: &str, interval_ms: i64) -> Schedule {
        let interval_ms = interval_ms.max(1);
        let hash = xxh3_64(format!("{file};{name}").as_bytes());
        let offset_ms = i64::try_from(hash % interval_ms.unsigned_abs()).unwrap_or(0);
        Schedule { interval_ms, offset_ms, next_ms: None }
    }

    /// The slots after `after_ms`, up to `until_ms`.
    pub fn slots(&self, after_ms: i64, until_ms: i64) -> impl Iterator<Item = i64> + use<> {
        let interval_ms = self.interval_ms;
        let first_ms = self.slot_before(after_ms).saturating_add(interval_ms);
        std::iter::successors(Some(first_ms), move |slot_ms| slot_ms.checked_add(interval_ms))
            .take_while(move |slot_ms| *slot_ms <= until_ms)
    }

    /// The slot `slot_ms` has been evaluated; the next one is the one after it.
    pub fn go_on_from(&mut self, slot_ms: i64) {
        self.next_ms = Some(self.slot_before(slot_ms).saturating_add(self.interval_ms));
    }

    /// Goes on where `old` got, a schedule of the same interval, perhaps with other slots.
    pub fn go_on_after(&mut self, old: &Schedule) {
        self.next_ms = old.next_ms.map(|next_ms| {
            let last_ms = next_ms.saturating_sub(self.interval_ms);
            self.slot_before(last_ms).saturating_add(self.interval_ms)
        });
    }

    /// The latest slot that is not after `now_ms`.
    pub fn slot_before(&self, now_ms: i64) -> i64 {
        let since_slot = now_ms.saturating_sub(self.offset_ms).rem_euclid(self.interval_ms);
        now_ms.saturating_sub(since_slot)
    }

    /// When to look again, in milliseconds since the epoch.
    pub fn next_ms(&self, now_ms: i64) -> i64 {
        self.next_ms.unwrap_or(now_ms)
    }

    /// The slot to evaluate at `now_ms`, if one is due; the next one is then an interval later.
    /// The first slot is the one after the first look. Of several slots that passed only the
    /// latest is evaluated. If the clock went back, the slots do too.
    pub fn due(&mut self, now_ms: i64) -> Option<Due> {
        let slot_ms = self.slot_before(now_ms);
        let after = slot_ms.saturating_add(self.interval_ms);
        let next_ms = match self.next_ms {
            Some(next_ms) if next_ms <= after => next_ms,
            _ => {
                self.next_ms = Some(after);
                return None;
            }
        };
        if now_ms < next_ms {
            return None;
        }
        self.next_ms = Some(after);
        let missed = slot_ms.saturating_sub(next_ms) / self.interval_ms;
        Some(Due { slot_ms, missed: missed.unsigned_abs() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn schedule(interval_ms: i64, offset_ms: i64) -> Schedule {
        Schedule { interval_ms, offset_ms, next_ms: None }
    }

    #[test]
    fn slots_follow_each_other_and_missed_ones_are_counted() {
        let mut s = schedule(1000, 300);
        let day_ms = 86_400_000;
        let looks = [
            (5_000, None),
            (5_200, None),
            (5_300, Some((5_300, 0))),
            (5_400, None),
            (6_350, Some((6_300, 0))),
            (9_900, Some((9_300, 2))),
            (10_300, Some((10_300, 0))),
            // The clock jumps forward by a day, and back.
            (10_400 + day_ms, Some((10_300 + day_ms, 86_399))),
            (11_000, None),
            (11_299, None),
            (11_300, Some((11_300, 0))),
        ];
        for (now_ms, expected) in looks {
            let due = s.due(now_ms).map(|d| (d.slot_ms, d.missed));
            assert_eq!(due, expected, "at {now_ms}");
        }
    }

    #[test]
    fn groups_of_one_interval_are_spread() {
        let offsets: std::collections::HashSet<i64> =
            (0..20).map(|i| Schedule::new("rules.yml", &format!("g{i}"), 60_000).offset_ms).collect();
        assert!(offsets.len() > 15);
        assert_eq!(Schedule::new("a", "b", 1000), Schedule::new("a", "b", 1000));
    }

    proptest! {
        #[test]
        fn no_clock_makes_a_slot_that_lies_ahead(
            interval_ms in 1i64..1 << 50,
            looks in proptest::collection::vec(any::<i64>(), 1..20),
        ) {
            let mut s = Schedule::new("f", "n", interval_ms);
            for now_ms in looks {
                if let Some(due) = s.due(now_ms) {
                    prop_assert!(due.slot_ms <= now_ms);
                }
            }
        }
    }
}
