//! When the head is cut, and into which windows of time. Pure decisions.

use std::ops::Range;

pub(crate) const HOUR_MS: i64 = 60 * 60 * 1000;
pub(crate) const DAY_MS: i64 = 24 * HOUR_MS;

/// The window of fresh partitions, aligned to the epoch.
pub(crate) const WINDOW_MS: i64 = 2 * HOUR_MS;

/// The longest window that partitions are merged into.
pub(crate) const WIDEST_MS: i64 = 31 * DAY_MS;

/// So many live partitions are safe.
const LIVE_MAX: usize = 32 << 10;

/// A cut by time comes so long after the border, when the last samples before it have come in.
const GRACE_MS: i64 = 5 * 60 * 1000;

/// A WAL of this many bytes for each series is not too long: it holds few samples of each.
const WAL_BYTES_PER_SERIES: u64 = 256;

/// So many samples are read again within a second on two cores. A sample takes 2 to 10 bytes of WAL,
/// so a bound on bytes alone would not bound the time.
const WAL_SAMPLES: u64 = 32_000_000;

/// As [`WAL_BYTES_PER_SERIES`], with 4 bytes a sample.
const WAL_SAMPLES_PER_SERIES: u64 = 64;

/// How long the WAL of a generation may get before it is cut, in bytes.
pub(crate) fn wal_bound_bytes(option_bytes: u64, series: u64) -> u64 {
    option_bytes.max(series.saturating_mul(WAL_BYTES_PER_SERIES))
}

/// How many samples may be in it.
pub(crate) fn wal_bound_samples(series: u64) -> u64 {
    WAL_SAMPLES.max(series.saturating_mul(WAL_SAMPLES_PER_SERIES))
}

/// A cut for silence comes once the WAL is longer than this part of its bound. What is shorter costs
/// little disk and is replayed in an instant.
const SILENCE_SHARE: u64 = 16;

/// Silence is worth a cut when it lasts this long and twice the longest pause known.
const SILENT_MS: i64 = 2_000;

/// In what rhythm samples come, as far as looking now and then can tell.
///
/// Who sends a load and then nothing should not find it in the WAL, which takes several times the
/// space of a partition and is read again after a crash. Who sends a burst every minute must not
/// cause a cut every minute: pauses are remembered for two to four hours.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rhythm {
    appended: u64,
    /// The last look.
    looked_ms: i64,
    /// The last look that found new samples.
    last_ms: Option<i64>,
    /// In this window of two hours, and in the one before.
    longest_pause_ms: i64,
    longest_pause_before_ms: i64,
}

impl Rhythm {
    /// Notes how many samples were ever appended.
    pub fn look(&mut self, appended: u64, now_ms: i64) {
        if now_ms.div_euclid(WINDOW_MS) != self.looked_ms.div_euclid(WINDOW_MS) {
            self.longest_pause_before_ms = std::mem::take(&mut self.longest_pause_ms);
        }
        if appended != self.appended {
            // Until the last look that found nothing; the pause may have been longer by two looks.
            let pause_ms = self.silent_ms().unwrap_or(0);
            self.longest_pause_ms = self.longest_pause_ms.max(pause_ms);
            self.appended = appended;
            self.last_ms = Some(now_ms);
        }
        self.looked_ms = now_ms;
    }

    /// Whether, at the last look, nothing had come for some time.
    pub fn is_quiet(&self) -> bool {
        self.silent_ms().is_none_or(|ms| ms >= SILENT_MS)
    }

    /// For how long nothing had come at the last look; `None` if nothing ever came.
    fn silent_ms(&self) -> Option<i64> {
        self.last_ms.map(|last_ms| self.looked_ms.saturating_sub(last_ms))
    }

    /// Whether, at the last look, the senders had been silent for so long that a WAL of this length
    /// is to be cut.
    pub fn is_over(&self, wal_bytes: u64, bound_bytes: u64) -> bool {
        let longest_ms = self.longest_pause_ms.max(self.longest_pause_before_ms);
        let enough_ms = longest_ms.saturating_mul(2).saturating_add(SILENT_MS);
        wal_bytes > bound_bytes / SILENCE_SHARE && self.silent_ms().is_some_and(|ms| ms >= enough_ms)
    }
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

/// How many windows of old samples a cut may have, where so many partitions are live. Each is a map of
/// the process, of which Linux allows 65,530 unless told otherwise; beyond, no cut would ever end.
pub(crate) fn old_windows_max(live: usize) -> usize {
    (LIVE_MAX.saturating_sub(live) / 32).max(1)
}

/// Makes the windows of a cut wider where those older than a day are more than `most`, as happens where
/// somebody sends a sample of each day since the epoch: the widest windows of partitions first, then
/// 31 times as wide, and so on. They are given in order of time.
pub(crate) fn coarsened(mut windows: Vec<Range<i64>>, most: usize) -> Vec<Range<i64>> {
    let is_fresh = |window: &Range<i64>| window.end.saturating_sub(window.start) <= WINDOW_MS;
    let fresh = windows.split_off(windows.partition_point(|window| !is_fresh(window)));
    let (end_ms, mut len_ms) = (windows.last().map_or(0, |window| window.end), DAY_MS);
    // The widest of all hold the whole of time in three.
    while windows.len() > most && len_ms < i64::MAX {
        len_ms = len_ms.saturating_mul(WIDEST_MS / DAY_MS);
        windows = windows.iter().map(|window| aligned(window.start, len_ms)).collect();
        windows.iter_mut().for_each(|window| window.end = window.end.min(end_ms));
        windows.dedup();
    }
    windows.extend(fresh);
    windows
}

/// The window of this length, aligned to the epoch, that holds `t_ms`. At the ends of time it may
/// be shorter.
pub(crate) fn aligned(t_ms: i64, len_ms: i64) -> Range<i64> {
    let since_start_ms = t_ms.rem_euclid(len_ms);
    t_ms.saturating_sub(since_start_ms)..t_ms.saturating_add(len_ms - since_start_ms)
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
        assert_eq!(wal_bound_samples(500_000), 32_000_000);
        assert_eq!(wal_bound_samples(1_000_000), 64_000_000);
    }

    #[test]
    fn more_live_partitions_leave_fewer_windows_but_never_none() {
        for (live, most) in [(0, 1024), (16 << 10, 512), (32 << 10, 1), (usize::MAX, 1)] {
            assert_eq!(old_windows_max(live), most, "{live}");
        }
    }

    #[test]
    fn too_many_windows_become_wider_and_the_fresh_ones_stay() {
        let days = |range: Range<i64>| range.start * DAY_MS..range.end * DAY_MS;
        let fresh = 100 * DAY_MS..100 * DAY_MS + WINDOW_MS;
        let mut windows: Vec<_> = [0, 1, 30, 31, 61, 62, 99].map(|day| days(day..day + 1)).into();
        windows.push(fresh.clone());
        assert_eq!(coarsened(windows.clone(), 7), windows);
        let wide = [0..31, 31..62, 62..93, 93..100].map(days);
        assert_eq!(coarsened(windows.clone(), 6), [&wide[..], std::slice::from_ref(&fresh)].concat());
        assert_eq!(coarsened(windows.clone(), 3), [days(0..100), fresh.clone()]);
        assert_eq!(coarsened(vec![fresh.clone(); 9], 1).len(), 9);
        let ends = vec![aligned(i64::MIN, DAY_MS), days(-1..0), days(0..1)];
        assert_eq!(coarsened(ends, 1), [i64::MIN..-i64::MAX, -i64::MAX..0, 0..DAY_MS]);
    }

    const MIB: u64 = 1 << 20;
    const BOUND: u64 = 128 * MIB;

    /// When a sender causes cuts for silence, in seconds, of those that last an hour: it appends
    /// `burst_bytes` in `burst_s` seconds, then pauses. Looks come every second.
    fn cuts_of(burst_bytes: u64, burst_s: i64, pause_s: i64) -> Vec<i64> {
        let (mut rhythm, mut cuts) = (Rhythm::default(), Vec::new());
        let (mut appended, mut wal_bytes) = (0, 0);
        for now_s in 0..3600 {
            if now_s % (burst_s + pause_s) < burst_s {
                appended += 1;
                wal_bytes += burst_bytes / burst_s as u64;
            }
            rhythm.look(appended, now_s * 1000);
            let is_over = rhythm.is_over(wal_bytes, BOUND);
            if is_over || wal_bytes > BOUND {
                wal_bytes = 0;
                cuts.extend(is_over.then_some(now_s));
            }
        }
        cuts
    }

    #[test]
    fn a_load_is_cut_once_its_sender_is_silent_and_a_steady_sender_never_for_long() {
        let cases: &[(&str, u64, i64, i64, &[i64])] = &[
            ("one load", 25 * MIB, 2, 4000, &[3]),
            ("one load that is short", 7 * MIB, 2, 4000, &[]),
            ("a load without end", 12_000 * MIB, 3600, 0, &[]),
            ("a small scrape every 15 s", MIB / 4, 1, 14, &[]),
            (
                "bursts of half the bound every minute: the first shows how long the pauses are",
                64 * MIB,
                3,
                57,
                &[4],
            ),
            ("bursts over the bound", 160 * MIB, 16, 44, &[17]),
            ("every other second", 9 * MIB, 1, 1, &[]),
            ("one second in four", 9 * MIB, 1, 3, &[2]),
            ("loads twenty minutes apart", 25 * MIB, 2, 1200, &[3]),
        ];
        for &(what, burst_bytes, burst_s, pause_s, expected) in cases {
            assert_eq!(cuts_of(burst_bytes, burst_s, pause_s), expected, "{what}");
        }
    }

    #[test]
    fn pauses_are_forgotten_after_some_hours() {
        let mut rhythm = Rhythm::default();
        let mut look = |appended, now_s: i64| {
            rhythm.look(appended, now_s * 1000);
            rhythm.is_over(BOUND, BOUND)
        };
        assert!(!look(0, 0) && !look(0, 3600), "nothing was ever sent");
        assert!(!look(1, 3601) && !look(1, 3602) && look(1, 3603));
        assert!(look(1, 3660) && !look(2, 3661) && !look(2, 3700), "there was a pause of a minute");
        assert!(look(2, 3661 + 120), "this one is twice as long");
        let next_s = WINDOW_MS / 1000;
        assert!(!look(3, next_s - 1) && !look(4, next_s) && !look(4, next_s + 120));
        assert!(!look(5, 2 * next_s) && !look(6, 3 * next_s) && !look(6, 3 * next_s + 2));
        assert!(!look(7, 4 * next_s) && look(7, 4 * next_s + 6));
    }

    proptest! {
        #[test]
        fn a_window_holds_its_sample(t_ms in any::<i64>(), now_ms in any::<i64>()) {
            let window = window_of(t_ms, now_ms);
            prop_assert!(window.start <= t_ms && (t_ms < window.end || window.end == i64::MAX));
        }
    }
}
