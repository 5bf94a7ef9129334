//! Which backups need not be kept. A pure decision.

use crate::storage::cut::DAY_MS;
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
///
/// A wrong clock takes no good backup: what is younger than `now` is neither counted nor given, nor is
/// `just_taken`, whatever time it has. Where all but those of the last day would be too old by far, ages
/// count from the newest of the others.
pub(super) fn needless(
    backups: &[(String, Timestamp)],
    keep: Keep,
    now: Timestamp,
    just_taken: Option<&str>,
) -> Vec<String> {
    if keep == Keep::default() {
        return Vec::new();
    }
    let aged = backups.iter().filter_map(|(name, created)| {
        let age_ms = now.as_millis().checked_sub(created.as_millis())?;
        (age_ms >= 0).then_some((age_ms, name))
    });
    let mut aged: Vec<(i64, &String)> = aged.collect();
    aged.sort_unstable();
    let within_ms = keep.within.map(|within| i64::try_from(within.as_millis()).unwrap_or(i64::MAX));
    let newest_ms = aged.iter().map(|&(age_ms, _)| age_ms).find(|&age_ms| age_ms >= DAY_MS).unwrap_or(0);
    let is_young = |age_ms: i64| {
        within_ms.is_some_and(|within_ms| {
            let is_doubtful = newest_ms > within_ms.saturating_add(DAY_MS);
            age_ms - if is_doubtful { newest_ms } else { 0 } <= within_ms
        })
    };
    let old = aged.into_iter().skip(keep.newest.unwrap_or(0).max(1));
    let old = old.filter(|&(age_ms, name)| !is_young(age_ms) && Some(name.as_str()) != just_taken);
    old.map(|(_, name)| name.clone()).collect()
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
            assert_eq!(
                needless(&backups, Keep { newest, within }, now, None),
                expected,
                "{newest:?} {within:?}"
            );
        }
    }

    #[test]
    fn a_wrong_clock_takes_no_good_backup() {
        let days = |days: u64| Some(Duration::from_secs(days * 86_400));
        let (newest, within) =
            (|n| Keep { newest: Some(n), within: None }, |n| Keep { newest: None, within: days(n) });
        for (created, keep, now, just_taken, expected) in [
            // One was taken while the clock was ahead.
            (&[1, 2, 3, 400][..], newest(1), 4, None, &["day2", "day1"][..]),
            (&[1, 2, 3, 400], within(1), 4, Some("day3"), &["day2", "day1"]),
            // One is taken while it is behind, and removed if it is right meanwhile.
            (&[0, 11, 12, 13], newest(2), 0, Some("day0"), &[]),
            (&[0, 11, 12, 13], newest(2), 14, Some("day0"), &["day11"]),
            // It is ahead now, and was an hour ago, too.
            (&[1, 9, 10, 400], within(3), 400, Some("day400"), &["day1"]),
            // Few backups are taken, but regularly.
            (&[30, 60, 90], within(7), 90, Some("day90"), &["day30"]),
            // Or they are right after a pause.
            (&[1, 2, 40, 41], within(30), 41, Some("day41"), &["day2", "day1"]),
        ] {
            let backups: Vec<(String, Timestamp)> = created
                .iter()
                .map(|day| (format!("day{day}"), Timestamp::from_millis(day * DAY_MS)))
                .collect();
            let now = Timestamp::from_millis(now * DAY_MS);
            assert_eq!(needless(&backups, keep, now, just_taken), expected, "{created:?} {keep:?}");
        }
        let hourly: Vec<(String, Timestamp)> =
            (0..48).map(|hour| (format!("{hour}"), Timestamp::from_millis(hour * 3_600_000))).collect();
        let six_hours = Keep { newest: None, within: Some(Duration::from_secs(6 * 3600)) };
        let gone = needless(&hourly, six_hours, Timestamp::from_millis(47 * 3_600_000), Some("47"));
        assert_eq!(gone.len(), 41);
    }
}
