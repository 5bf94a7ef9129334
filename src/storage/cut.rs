//! When the head is cut, and into which windows of time. Pure decisions.

use std::ops::Range;

pub(crate) const HOUR_MS: i64 = 60 * 60 * 1000;
pub(crate) const DAY_MS: i64 = 24 * HOUR_MS;

/// The window of fresh partitions, aligned to the epoch.
pub(crate) const WINDOW_MS: i64 = 2 * HOUR_MS;

/// A cut by time comes so long after the border, when the last samples before it have come in.
const GRACE_MS: i64 = 5 * 60 * 1000;

/// A WAL of this many bytes for each series is not too long: it holds few samples of each.
const WAL_BYTES_PER_SERIES: u64 = 256;

/// How long the WAL of a generation may get before it is cut.
pub(crate) fn wal_bound_bytes(option_bytes: u64, series: u64) -> u64 {
    option_bytes.max(series.saturating_mul(WAL_BYTES_PER_SERIES))
}

/// Whether a border of windows passed (some minutes ago) since the generation began.
pub(crate) fn border_passed(begun_ms: i64, now_ms: i64) -> bool {
    let window = |t_ms: i64| t_ms.saturating_sub(GRACE_MS).div_euclid(WINDOW_MS);
    window(now_ms) > window(begun_ms)
}

/// The window that a sample belongs to when it is cut at `now_ms`: two hours, or a UTC day if all
/// of that day is older than 24 hours.
pub(crate) fn window_of(t_ms: i64, now_ms: i64) -> Range<i64> {
    let day = aligned(t_ms, DAY_MS);
    if day.end <= now_ms.saturating_sub(DAY_MS) { day } else { aligned(t_ms, WINDOW_MS) }
}

/// The window of this length, aligned to the epoch, that holds `t_ms`. At the ends of time it may
/// be shorter.
pub(crate) fn aligned(t_ms: i64, len_ms: i64) -> Range<i64> {
    let start = t_ms.saturating_sub(t_ms.rem_euclid(len_ms));
    start..start.saturating_add(len_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_border_counts_as_passed_some_minutes_later() {
        let noon = 12 * HOUR_MS;
        assert!(!border_passed(noon - HOUR_MS, noon - 1));
        assert!(!border_passed(noon - HOUR_MS, noon + GRACE_MS - 1));
        assert!(border_passed(noon - HOUR_MS, noon + GRACE_MS));
        assert!(!border_passed(noon + GRACE_MS, noon + HOUR_MS));
        assert!(!border_passed(noon, noon - 5 * HOUR_MS), "a clock that runs back");
    }

    #[test]
    fn the_last_day_is_cut_by_two_hours_and_older_ones_by_the_day() {
        let now = 10 * DAY_MS + 13 * HOUR_MS;
        assert_eq!(window_of(now, now), 10 * DAY_MS + 12 * HOUR_MS..10 * DAY_MS + 14 * HOUR_MS);
        assert_eq!(window_of(9 * DAY_MS, now), 9 * DAY_MS..9 * DAY_MS + WINDOW_MS);
        assert_eq!(window_of(9 * DAY_MS - 1, now), 8 * DAY_MS..9 * DAY_MS);
        assert_eq!(window_of(-1, now), -DAY_MS..0);
    }

    #[test]
    fn many_series_may_fill_a_longer_wal() {
        assert_eq!(wal_bound_bytes(128 << 20, 50_000), 128 << 20);
        assert_eq!(wal_bound_bytes(128 << 20, 1 << 20), 256 << 20);
    }

    proptest! {
        #[test]
        fn a_window_holds_its_sample(t_ms in any::<i64>(), now_ms in any::<i64>()) {
            let window = window_of(t_ms, now_ms);
            prop_assert!(window.start <= t_ms && (t_ms < window.end || window.end == i64::MAX));
        }
    }
}
