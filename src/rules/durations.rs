//! How long evaluations take: all of them in a histogram, those of the last minutes by quantiles.

use super::running::lock;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The upper bounds of the histogram in seconds, those of Prometheus.
pub const BOUNDS_SECONDS: [f64; 4] = [0.01, 0.1, 1.0, 10.0];

/// Quantiles are those of the last five to ten minutes.
const TURN: Duration = Duration::from_secs(300);
/// The fine buckets of an octave: a quantile is off by at most 4.5 %.
const PER_OCTAVE: f64 = 8.0;
/// Fine buckets reach from a microsecond over 32 octaves, to more than an hour.
const FINE: usize = 32 * PER_OCTAVE as usize;

/// Durations of one kind. They may be observed from several threads.
#[derive(Debug)]
pub struct Durations(Mutex<Counts>);

#[derive(Debug)]
struct Counts {
    count: u64,
    seconds: f64,
    buckets: [u64; BOUNDS_SECONDS.len()],
    /// Since the last turn, and between the last two.
    recent: [Box<[u32; FINE]>; 2],
    turned: Instant,
}

/// What was observed so far.
#[derive(Debug, Clone)]
pub struct DurationStats {
    /// How many.
    pub count: u64,
    /// Their sum in seconds.
    pub seconds: f64,
    /// How many lie in each bucket of [`BOUNDS_SECONDS`], without those before it.
    pub buckets: [u64; BOUNDS_SECONDS.len()],
    recent: Vec<u64>,
}

impl Default for Durations {
    fn default() -> Durations {
        let empty = || Box::new([0; FINE]);
        let (count, seconds, buckets) = (0, 0.0, Default::default());
        let recent = [empty(), empty()];
        Durations(Mutex::new(Counts { count, seconds, buckets, recent, turned: Instant::now() }))
    }
}

impl Durations {
    /// Counts one that ended at `now`.
    pub fn observe(&self, took: Duration, now: Instant) {
        let seconds = took.as_secs_f64();
        let mut counts = lock(&self.0);
        counts.turn(now);
        counts.count += 1;
        counts.seconds += seconds;
        if let Some(bucket) = BOUNDS_SECONDS.iter().position(|bound| seconds <= *bound) {
            counts.buckets[bucket] += 1;
        }
        let fine = ((seconds * 1e6).max(1.0).log2() * PER_OCTAVE) as usize;
        let fine = &mut counts.recent[0][fine.min(FINE - 1)];
        *fine = fine.saturating_add(1);
    }

    /// What was observed until `now`.
    pub fn stats(&self, now: Instant) -> DurationStats {
        let mut counts = lock(&self.0);
        counts.turn(now);
        let Counts { count, seconds, buckets, recent: [new, old], .. } = &*counts;
        let recent = new.iter().zip(old.iter()).map(|(a, b)| u64::from(*a) + u64::from(*b)).collect();
        DurationStats { count: *count, seconds: *seconds, buckets: *buckets, recent }
    }
}

impl Counts {
    fn turn(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.turned);
        if since < TURN {
            return;
        }
        self.recent.swap(0, 1);
        self.recent[0].fill(0);
        if since >= 2 * TURN {
            self.recent[1].fill(0);
        }
        self.turned = now;
    }
}

impl DurationStats {
    /// Below which so many of the recent ones lie, in seconds; NaN if there are none.
    pub fn quantile(&self, quantile: f64) -> f64 {
        let count: u64 = self.recent.iter().sum();
        let rank = (count as f64 * quantile).ceil().max(1.0) as u64;
        let mut so_far = 0;
        let found = self.recent.iter().position(|bucket| {
            so_far += bucket;
            so_far >= rank
        });
        // The middle of the bucket, on the scale of logarithms.
        found.map_or(f64::NAN, |bucket| 1e-6 * ((bucket as f64 + 0.5) / PER_OCTAVE).exp2())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_in_the_histogram_and_the_recent_ones_in_the_quantiles() {
        let durations = Durations::default();
        let start = Instant::now();
        assert!(durations.stats(start).quantile(0.5).is_nan());
        for ms in 1..=100 {
            durations.observe(Duration::from_millis(ms), start);
        }
        durations.observe(Duration::from_secs(20), start);
        let stats = durations.stats(start);
        assert_eq!((stats.count, stats.buckets), (101, [10, 90, 0, 0]));
        assert!((stats.seconds - 25.05).abs() < 1e-9);
        for (quantile, seconds) in [(0.0, 0.001), (0.5, 0.051), (0.9, 0.091), (1.0, 20.0)] {
            let found = stats.quantile(quantile);
            assert!((found / seconds - 1.0).abs() < 0.05, "{quantile}: {found} for {seconds}");
        }
        durations.observe(Duration::from_secs(5000), start + TURN);
        let later = durations.stats(start + TURN);
        assert!(later.quantile(1.0) > 4000.0 && later.quantile(0.5) < 0.06);
        assert_eq!(durations.stats(start + 3 * TURN).count, 102);
        assert!(durations.stats(start + 3 * TURN).quantile(1.0).is_nan());
    }
}
