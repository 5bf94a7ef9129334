//! When the disk will be full, by how it filled during the last day. A pure function of what was free
//! over time.
//!
//! Free space goes to and fro: a merge takes its inputs once more and gives them back, the WAL grows
//! until it is cut. So of every ten minutes the most that was free counts, with the WAL as if it were
//! free; and growth is the median of the slopes between any two of these samples (Theil and Sen),
//! which up to three samples in ten may miss by anything.

use std::collections::VecDeque;

const MINUTE_MS: i64 = 60_000;

/// One sample is kept for so long a time.
const BUCKET_MS: i64 = 10 * MINUTE_MS;

/// So many: a day.
const BUCKETS_MAX: usize = 144;

/// Fewer say nothing yet: two hours hold one cut of a head that is cut by time.
const BUCKETS_MIN: usize = 13;

/// What was free, by monotonic time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Forecast {
    /// Number of the bucket, and the most that was free in it, ascending.
    buckets: VecDeque<(i64, u64)>,
    /// Bytes a second by which free space shrinks, by all buckets but the last.
    growth: Option<f64>,
}

impl Forecast {
    /// Notes what is free.
    pub fn note(&mut self, at_ms: i64, free_bytes: u64) {
        let bucket = at_ms.div_euclid(BUCKET_MS);
        match self.buckets.back_mut() {
            Some((last, most)) if *last >= bucket => *most = (*most).max(free_bytes),
            _ => {
                self.growth = growth(self.buckets.make_contiguous());
                self.buckets.push_back((bucket, free_bytes));
                while self.buckets.front().is_some_and(|(first, _)| *first <= bucket - BUCKETS_MAX as i64) {
                    self.buckets.pop_front();
                }
            }
        }
    }

    /// Seconds until no more than `full_bytes` are free, if what is free shrinks as it did; infinite if
    /// it does not shrink, or not enough is known.
    pub fn seconds_until(&self, full_bytes: u64) -> f64 {
        let Some((_, free_bytes)) = self.buckets.back() else { return f64::INFINITY };
        let left = free_bytes.saturating_sub(full_bytes) as f64;
        match self.growth {
            Some(growth) if growth > 0.0 => left / growth,
            _ => f64::INFINITY,
        }
    }
}

/// Bytes a second by which free space shrinks: the median of all pairs.
fn growth(buckets: &[(i64, u64)]) -> Option<f64> {
    if buckets.len() < BUCKETS_MIN {
        return None;
    }
    let pairs = buckets.iter().enumerate().flat_map(|(i, a)| buckets[i + 1..].iter().map(move |b| (a, b)));
    let mut slopes: Vec<f64> =
        pairs.map(|(a, b)| (a.1 as f64 - b.1 as f64) / ((b.0 - a.0) * BUCKET_MS / 1000) as f64).collect();
    let middle = slopes.len() / 2;
    let (_, median, _) = slopes.select_nth_unstable_by(middle, f64::total_cmp);
    Some(*median)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: f64 = (1_u64 << 30) as f64;

    /// What is foretold after so many hours of a look every minute, in hours.
    fn hours_left(hours: i64, free: impl Fn(f64) -> f64) -> f64 {
        let mut forecast = Forecast::default();
        for minute in 0..=hours * 60 {
            forecast.note(minute * MINUTE_MS, free(minute as f64 / 60.0) as u64);
        }
        forecast.seconds_until(0) / 3600.0
    }

    /// Three GiB an hour for 20 minutes, and back.
    fn merges(hour: f64) -> f64 {
        if hour.rem_euclid(2.0) > 1.66 { 3.0 * GIB } else { 0.0 }
    }

    #[test]
    fn what_grows_steadily_is_foretold_whatever_merges_take_meanwhile() {
        let tooth = |hour: f64| (hour.rem_euclid(2.0) - 1.0) * GIB;
        type Free = fn(f64) -> f64;
        let cases: [(&str, Free, f64); 4] = [
            ("one GiB an hour", |hour| (100.0 - hour) * GIB, 76.0),
            ("with merges", |hour| (100.0 - hour) * GIB - merges(hour), 76.0),
            (
                "a third of it came at once, three hours ago",
                |hour| (if hour > 21.0 { 67.0 } else { 100.0 } - hour) * GIB,
                43.0,
            ),
            (
                "a step up, as when a file was removed",
                |hour| (if hour > 23.0 { 90.0 } else { 60.0 } - hour) * GIB,
                66.0,
            ),
        ];
        for (what, free, expected) in cases {
            let found = hours_left(24, free);
            assert!((found - expected).abs() < expected / 8.0, "{what}: {found} h, not {expected} h");
        }
        let found = hours_left(24, |hour| 100.0 * GIB - hour * GIB - tooth(hour));
        assert!((found - 76.0).abs() < 8.0, "with a saw-tooth as high as two hours' growth: {found}");
    }

    #[test]
    fn what_does_not_grow_is_never_full_and_neither_is_what_nobody_knows() {
        assert_eq!(hours_left(24, |_| 5.0 * GIB), f64::INFINITY);
        assert_eq!(hours_left(24, |hour| (5.0 + hour) * GIB), f64::INFINITY);
        assert_eq!(hours_left(24, |hour| 100.0 * GIB - merges(hour)), f64::INFINITY);
        assert_eq!(hours_left(1, |hour| (100.0 - hour) * GIB), f64::INFINITY, "an hour is too short");
        assert_eq!(Forecast::default().seconds_until(0), f64::INFINITY);
    }

    #[test]
    fn only_the_last_day_counts_and_what_is_full_is_full_now() {
        let free = |hour: f64| if hour < 48.0 { 100.0 * GIB } else { (148.0 - hour) * GIB };
        let found = hours_left(72, free);
        assert!((found - 76.0).abs() < 2.0, "{found}");
        let mut forecast = Forecast::default();
        for bucket in 0..20 {
            forecast.note(bucket * BUCKET_MS, 100 - bucket as u64);
        }
        assert_eq!(forecast.seconds_until(81), 0.0);
        assert_eq!(forecast.seconds_until(u64::MAX), 0.0);
        assert!(forecast.buckets.len() <= BUCKETS_MAX);
    }
}
