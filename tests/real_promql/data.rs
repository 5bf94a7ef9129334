//! The series that both servers are filled with.
//!
//! Values are multiples of 1/1024 and gauges of one kind never meet, so that sums are exact in any
//! order and `topk` has no ties.

use crate::random::Random;

/// The sampling interval.
pub const INTERVAL_MS: i64 = 15_000;
/// Samples per series that lives all the time: 40 minutes.
pub const SLOTS: i64 = 160;
/// Samples lie this long after multiples of five seconds; nothing that is asked does.
pub const PHASE_MS: i64 = 3_000;
/// Prometheus' mark for a series that has ended.
const STALE: u64 = 0x7ff0_0000_0000_0002;

/// Milliseconds and values.
pub type Samples = Vec<(i64, f64)>;

/// A series as it is written.
pub struct Written {
    /// Its labels, ascending by name.
    pub labels: Vec<(&'static str, String)>,
    /// Its samples.
    pub samples: Samples,
}

/// About 300 series that end at `end_ms`, a multiple of the interval.
pub fn series(random: &mut Random, end_ms: i64) -> Vec<Written> {
    let mut all = Vec::new();
    let first_ms = end_ms - SLOTS * INTERVAL_MS + PHASE_MS;
    for (i, instance) in ["a", "b", "c", "d", "e", "f", "g", "h"].into_iter().enumerate() {
        let job = if i % 3 == 0 { "db" } else { "api" };
        let base = |name: &str| {
            vec![("__name__", name.to_owned()), ("instance", instance.to_owned()), ("job", job.to_owned())]
        };
        let mut add = |name: &str, more: &[(&'static str, &str)], samples: Samples| {
            let mut labels = base(name);
            labels.extend(more.iter().map(|(n, v)| (*n, (*v).to_owned())));
            labels.sort();
            all.push(Written { labels, samples });
        };
        let version = if i % 2 == 0 { "1.2" } else { "1.10" };
        add("node_info", &[("version", version), ("zone", "x")], gauge(random, first_ms, |_| 1.0));
        add("limit", &[], gauge(random, first_ms, |_| 100.0 + i as f64));
        for code in ["200", "404", "500"] {
            for method in ["get", "put"] {
                let more = [("code", code), ("method", method)];
                let requests = counter(random, first_ms);
                add("requests_total", &more, holes(random, requests));
                add("young_total", &more, young_counter(random, first_ms));
            }
        }
        for (k, disk) in ["sda", "sdb", "sdc"].into_iter().enumerate() {
            let more = [("disk", disk)];
            let own = (i * 3 + k + 1) as f64 / 1024.0;
            let temperature = gauge(random, first_ms, |r| r.below(400) as f64 - 150.0 + own);
            add("temperature", &more, holes(random, temperature));
            let odd = gauge(random, first_ms, odd);
            add("odd", &more, holes(random, odd));
            add("queue", &more, gauge(random, first_ms, |r| r.below(6) as f64));
        }
        for path in ["/", "/x"] {
            let (buckets, sums, counts) = histogram(random, first_ms);
            for (le, samples) in buckets {
                add("latency_bucket", &[("le", le), ("path", path)], samples);
            }
            add("latency_sum", &[("path", path)], sums);
            add("latency_count", &[("path", path)], counts);
        }
    }
    all
}

fn odd(random: &mut Random) -> f64 {
    match random.below(12) {
        0 => f64::NAN,
        1 => f64::INFINITY,
        2 => f64::NEG_INFINITY,
        3 => 0.0,
        4 => -0.0,
        _ => random.below(8) as f64 - 3.5,
    }
}

fn times(first_ms: i64) -> impl Iterator<Item = i64> {
    (0..SLOTS).map(move |slot| first_ms + slot * INTERVAL_MS)
}

fn gauge(random: &mut Random, first_ms: i64, mut value: impl FnMut(&mut Random) -> f64) -> Samples {
    times(first_ms).map(|t| (t, value(random))).collect()
}

/// Large numbers, half as large after each reset, of which no window sees two: so a counter seems to
/// come from zero long before the window (see `KNOWN_CHANGES`).
fn counter(random: &mut Random, first_ms: i64) -> Samples {
    let mut value = 1e6 + random.below(1000) as f64;
    let resets = random.below(45);
    times(first_ms)
        .enumerate()
        .map(|(slot, t)| {
            if slot % 45 == resets {
                value = (value / 2.0).floor();
            }
            value += if random.chance(30) { 0.0 } else { random.below(5000) as f64 / 4.0 };
            (t, value)
        })
        .collect()
}

/// From zero, with restarts, and with a sample in every slot.
fn young_counter(random: &mut Random, first_ms: i64) -> Samples {
    let from = random.below(60);
    let mut value = 0.0;
    times(first_ms)
        .skip(from)
        .map(|t| {
            let sample = (t, value);
            value = if random.chance(4) { 0.0 } else { value + random.below(40) as f64 };
            sample
        })
        .collect()
}

/// Takes samples out: lost ones, a long gap, an end with a stale marker, a late begin.
fn holes(random: &mut Random, mut samples: Samples) -> Samples {
    if random.chance(50) {
        samples.retain(|_| !random.chance(10));
    }
    if random.chance(40) {
        let from = random.below(samples.len() - 40);
        samples.drain(from..from + 1 + random.below(30));
    }
    if random.chance(30) {
        let stale = samples.len() / 3 + random.below(samples.len() / 2);
        samples[stale].1 = f64::from_bits(STALE);
        if random.chance(50) {
            samples.truncate(stale + 1);
        } else {
            samples.drain(stale + 1..(stale + 10).min(samples.len()));
        }
    }
    if random.chance(20) {
        samples.drain(..samples.len() / 2);
    }
    samples
}

/// The buckets by their bounds, the sums and the counts of a classic histogram.
fn histogram(random: &mut Random, first_ms: i64) -> (Vec<(&'static str, Samples)>, Samples, Samples) {
    let bounds = ["0.1", "0.5", "1", "2.5", "10", "+Inf"];
    let mut buckets: Vec<(&str, Samples)> = bounds.iter().map(|le| (*le, Vec::new())).collect();
    let (mut sums, mut counts) = (Vec::new(), Vec::new());
    let mut cumulative = [1e6, 2e6, 3e6, 4e6, 5e6, 6e6];
    let mut sum = 3e6;
    for t in times(first_ms) {
        for _ in 0..random.below(12) {
            let bucket = random.below(bounds.len());
            cumulative[bucket..].iter_mut().for_each(|count| *count += 1.0);
            sum += bucket as f64 / 4.0;
        }
        for ((_, samples), count) in buckets.iter_mut().zip(cumulative) {
            samples.push((t, count));
        }
        sums.push((t, sum));
        counts.push((t, cumulative[5]));
    }
    (buckets, sums, counts)
}
