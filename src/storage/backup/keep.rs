//! Which backups need not be kept. A pure decision.

use crate::storage::time::Timestamp;
use std::time::Duration;

/// Which backups are kept: those that any of the two asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keep {
    /// So many of the newest.
    pub newest: Option<usize>,
    /// Those that are not older.
    pub within: Option<Duration>,
}

/// The names of those of `backups` that nothing keeps; the newest is always kept. Where nothing is asked
/// for, all are kept.
pub(super) fn needless(backups: &[(String, Timestamp)], keep: Keep, now: Timestamp) -> Vec<String> {
    if keep == Keep::default() {
        return Vec::new();
    }
    let mut sorted: Vec<&(String, Timestamp)> = backups.iter().collect();
    sorted.sort_by_key(|(_, created)| std::cmp::Reverse(*created));
    let newest = keep.newest.unwrap_or(0).max(1);
    let is_young = |created: Timestamp| {
        let age_ms = now.as_millis().saturating_sub(created.as_millis());
        keep.within.is_some_and(|within| age_ms <= i64::try_from(within.as_millis()).unwrap_or(i64::MAX))
    };
    let old = sorted.into_iter().skip(newest).filter(|(_, created)| !is_young(*created));
    old.map(|(name, _)| name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_stay_and_the_young() {
        let backups: Vec<(String, Timestamp)> =
            [3, 1, 4, 2].map(|day| (format!("day{day}"), Timestamp::from_millis(day * 86_400_000))).into();
        let days = |days: u64| Some(Duration::from_secs(days * 86_400));
        let now = Timestamp::from_millis(5 * 86_400_000);
        for (newest, within, expected) in [
            (None, None, &[][..]),
            (Some(2), None, &["day2", "day1"][..]),
            (Some(9), None, &[]),
            (Some(0), None, &["day3", "day2", "day1"]),
            (None, days(3), &["day1"]),
            (None, days(0), &["day3", "day2", "day1"]),
            (Some(3), days(1), &["day1"]),
            (Some(1), days(4), &[]),
        ] {
            assert_eq!(needless(&backups, Keep { newest, within }, now), expected, "{newest:?} {within:?}");
        }
    }
}
