//! Which partitions go when the folder takes more than it may. Pure decisions.
//!
//! The oldest go first. A partition never goes before those that it overlaps and that were written
//! before it: what it overwrote there would come back. One that frees nothing, since a copy in the
//! folder shares its file, stays unless it is in the way.

use super::options::SizeLimit;
use larum_storage_format::manifest::LivePartition;
use std::collections::{BTreeMap, BTreeSet};

/// What is to be dropped, and what is left then.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Surplus {
    /// The numbers of the partitions, ascending.
    pub numbers: BTreeSet<u64>,
    /// What they free.
    pub freed_bytes: u64,
    /// By how much the rest is still too much, with nothing left to drop.
    pub excess_bytes: u64,
}

impl SizeLimit {
    /// In bytes, on a file system that can hold so many; `None`: there is no limit.
    pub(crate) fn in_bytes(&self, capacity_bytes: Option<u64>) -> Option<u64> {
        let share = self.percentage.filter(|&p| p > 0.0).zip(capacity_bytes);
        let share =
            share.map(|(percentage, capacity)| (capacity as f64 * percentage / 100.0).max(1.0) as u64);
        share.or(self.bytes.filter(|&bytes| bytes > 0))
    }
}

/// Decides what goes. `total_bytes` is all that counts; `freed` says what each partition frees. What has
/// samples from `floor_ms` on stays in any case.
pub(crate) fn surplus(
    live: &[LivePartition],
    freed: &BTreeMap<u64, u64>,
    total_bytes: u64,
    limit_bytes: u64,
    floor_ms: Option<i64>,
) -> Surplus {
    let mut surplus = Surplus::default();
    let mut too_much = total_bytes.saturating_sub(limit_bytes);
    let mut oldest: Vec<&LivePartition> = live.iter().collect();
    oldest.sort_by_key(|p| (p.min_ms, p.max_ms, p.number));
    for p in oldest {
        if too_much == 0 {
            break;
        }
        let group = with_covered(live, p, &surplus.numbers);
        let is_old = |p: &LivePartition| floor_ms.is_none_or(|floor_ms| p.max_ms < floor_ms);
        if live.iter().any(|p| group.contains(&p.number) && !is_old(p)) {
            continue;
        }
        let frees: u64 = group.iter().filter_map(|number| freed.get(number)).sum();
        if frees > 0 {
            surplus.numbers.extend(group);
            surplus.freed_bytes += frees;
            too_much = too_much.saturating_sub(frees);
        }
    }
    surplus.excess_bytes = too_much;
    surplus
}

/// The next that would go if the folder grew beyond its limit.
pub(crate) fn next(live: &[LivePartition], freed: &BTreeMap<u64, u64>) -> Surplus {
    surplus(live, freed, 1, 0, None)
}

/// The partition with those that must not stay without it, save for those that are `gone`.
fn with_covered(live: &[LivePartition], p: &LivePartition, gone: &BTreeSet<u64>) -> BTreeSet<u64> {
    let mut group = BTreeSet::new();
    let mut found = vec![p];
    while let Some(over) = found.pop() {
        if gone.contains(&over.number) || !group.insert(over.number) {
            continue;
        }
        let under = |p: &&LivePartition| {
            p.sequence < over.sequence && p.min_ms <= over.max_ms && over.min_ms <= p.max_ms
        };
        found.extend(live.iter().filter(under));
    }
    group
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Number, sequence, range and what it frees.
    fn parts(parts: &[(u64, u64, (i64, i64), u64)]) -> (Vec<LivePartition>, BTreeMap<u64, u64>) {
        let live = parts.iter().map(|&(number, sequence, (min_ms, max_ms), byte_len)| LivePartition {
            number,
            sequence,
            byte_len,
            min_ms,
            max_ms,
            tombstones: None,
        });
        (live.collect(), parts.iter().map(|&(number, .., freed)| (number, freed)).collect())
    }

    #[test]
    fn the_oldest_go_until_the_rest_fits() {
        let (live, freed) = parts(&[(7, 3, (20, 29), 30), (5, 1, (0, 9), 10), (6, 2, (10, 19), 20)]);
        for (total, limit, numbers, excess) in [
            (100, 100, vec![], 0),
            (100, 99, vec![5], 0),
            (100, 90, vec![5], 0),
            (100, 89, vec![5, 6], 0),
            (100, 40, vec![5, 6, 7], 0),
            (100, 30, vec![5, 6, 7], 10),
            (100, 0, vec![5, 6, 7], 40),
            (0, 0, vec![], 0),
        ] {
            let found = surplus(&live, &freed, total, limit, None);
            assert_eq!(found.numbers, BTreeSet::from_iter(numbers), "{limit} of {total}");
            assert_eq!(found.excess_bytes, excess, "{limit} of {total}");
        }
    }

    #[test]
    fn what_was_overwritten_does_not_come_back() {
        // Late samples, older than all of the day that they belong to but the first hours.
        let (live, freed) = parts(&[(1, 1, (0, 23), 50), (2, 2, (5, 6), 10), (3, 3, (24, 30), 40)]);
        assert_eq!(surplus(&live, &freed, 100, 95, None).numbers, [1].into(), "the day, not what came late");
        // A newer one that begins earlier takes what it covers with it, and that in turn.
        let (live, freed) =
            parts(&[(1, 1, (8, 12), 10), (2, 2, (4, 8), 10), (3, 3, (0, 4), 10), (4, 4, (13, 20), 10)]);
        assert_eq!(surplus(&live, &freed, 40, 35, None).numbers, [1, 2, 3].into());
        assert_eq!(surplus(&live, &freed, 40, 35, None).freed_bytes, 30);
    }

    #[test]
    fn nothing_goes_that_has_samples_from_the_floor_on_nor_what_it_covers() {
        let parts =
            parts(&[(1, 1, (0, 9), 10), (2, 2, (10, 19), 10), (3, 3, (12, 35), 10), (4, 4, (20, 29), 10)]);
        let (live, freed) = parts;
        for (floor_ms, numbers) in
            [(0, vec![]), (9, vec![]), (10, vec![1]), (20, vec![1, 2]), (30, vec![1, 2])]
        {
            let found = surplus(&live, &freed, 40, 0, Some(floor_ms));
            assert_eq!(found.numbers, BTreeSet::from_iter(numbers), "{floor_ms}");
        }
        assert_eq!(surplus(&live, &freed, 40, 0, Some(36)).excess_bytes, 0);
    }

    #[test]
    fn what_a_copy_shares_stays_since_it_frees_nothing() {
        let (live, freed) = parts(&[(1, 1, (0, 9), 0), (2, 2, (10, 19), 0), (3, 3, (20, 29), 30)]);
        let found = surplus(&live, &freed, 100, 60, None);
        assert_eq!((found.numbers, found.excess_bytes), ([3].into(), 10));
        assert_eq!(next(&live, &freed).numbers, [3].into());
    }

    #[test]
    fn a_percentage_prevails_over_bytes() {
        let limit = |bytes, percentage| SizeLimit { bytes, percentage };
        for (limit, capacity, expected) in [
            (limit(None, None), Some(1000), None),
            (limit(Some(0), Some(0.0)), Some(1000), None),
            (limit(Some(5), None), None, Some(5)),
            (limit(Some(5), Some(80.0)), Some(1000), Some(800)),
            (limit(None, Some(0.5)), Some(1000), Some(5)),
            (limit(Some(5), Some(80.0)), None, Some(5)),
        ] {
            assert_eq!(limit.in_bytes(capacity), expected, "{limit:?} of {capacity:?}");
        }
    }
}
