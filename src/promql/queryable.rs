//! How many samples each step looks at, as Prometheus counts them for `stats`.
//!
//! A step counts what it would count as an instant query: all samples of each window, though windows
//! overlap. Only the first evaluation of a sample counts: what a subquery reads is counted where its
//! values are looked at.

use super::plan::Place;
use super::row::Row;
use super::steps::Steps;
use super::window::{Borders, RangeSeries};
use std::cell::RefCell;
use std::sync::Arc;

/// Samples that steps look at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueryableSamples {
    /// By step: `totalQueryableSamplesPerStep`.
    pub per_step: Vec<u64>,
    /// By step, without those that the step before looked at, too: `samplesReadPerStep`.
    pub read_per_step: Vec<u64>,
}

impl QueryableSamples {
    /// None yet at `steps` steps.
    fn of_steps(steps: usize) -> QueryableSamples {
        QueryableSamples { per_step: vec![0; steps], read_per_step: vec![0; steps] }
    }

    /// All steps together.
    pub fn total(&self) -> u64 {
        self.per_step.iter().sum()
    }

    /// All steps together, each sample of a window once.
    pub fn read(&self) -> u64 {
        self.read_per_step.iter().sum()
    }

    /// Adds what something else looks at.
    fn add(&mut self, other: &QueryableSamples) {
        self.per_step.iter_mut().zip(&other.per_step).for_each(|(a, b)| *a += b);
        self.read_per_step.iter_mut().zip(&other.read_per_step).for_each(|(a, b)| *a += b);
    }

    /// Adds those of windows between `borders`, each sample counting `weight`.
    fn add_windows(&mut self, borders: &Borders, weights: Option<&[u64]>) {
        let count = |lo: u32, hi: u32| match weights {
            Some(weights) => weights[lo as usize..hi as usize].iter().sum(),
            None => u64::from(hi - lo),
        };
        let mut seen = 0;
        for (step, (&lo, &hi)) in borders.lo.iter().zip(&borders.hi).enumerate() {
            self.per_step[step] += count(lo, hi);
            self.read_per_step[step] += count(lo.max(seen).min(hi), hi);
            seen = hi;
        }
    }
}

/// Counts during one evaluation.
#[derive(Default)]
pub(crate) struct Counter {
    /// `None` while nothing counts.
    counted: RefCell<Option<QueryableSamples>>,
    /// The next series mostly shares the timestamps of the one before.
    last: RefCell<Option<ColumnWindows>>,
}

/// What the windows over one column of timestamps hold.
struct ColumnWindows {
    column: Arc<[i64]>,
    place: Place,
    range_ms: i64,
    steps: Steps,
    samples: QueryableSamples,
}

impl ColumnWindows {
    fn are_of(&self, column: &Arc<[i64]>, place: &Place, range_ms: i64, steps: &Steps) -> bool {
        Arc::ptr_eq(&self.column, column)
            && (self.place, self.range_ms, self.steps) == (*place, range_ms, *steps)
    }
}

impl Counter {
    /// A counter for the `steps`, if anybody asks.
    pub(crate) fn new(wanted: bool, steps: &Steps) -> Counter {
        let counted = wanted.then(|| QueryableSamples::of_steps(steps.count()));
        Counter { counted: RefCell::new(counted), ..Counter::default() }
    }

    /// What was counted.
    pub(crate) fn into_inner(self) -> Option<QueryableSamples> {
        self.counted.into_inner()
    }

    /// Whether anything is counted, so that who would have to work for it need not.
    pub(crate) fn is_on(&self) -> bool {
        self.counted.borrow().is_some()
    }

    /// Adds what a selector shows of one series: one sample a step.
    pub(crate) fn add_row(&self, row: &Row) {
        let Some(counted) = &mut *self.counted.borrow_mut() else { return };
        let mut add = |step: usize, samples: u64| {
            counted.per_step[step] += samples;
            counted.read_per_step[step] += samples;
        };
        row.present.for_each(row.len(), |step| add(step, 1));
        for (step, histogram) in &row.histograms {
            add(*step as usize, histogram_samples(histogram));
        }
    }

    /// Adds the windows over one series.
    pub(crate) fn add_windows(&self, series: &RangeSeries, place: &Place, range_ms: i64, steps: &Steps) {
        let Some(counted) = &mut *self.counted.borrow_mut() else { return };
        let mut last = self.last.borrow_mut();
        let known = last.take().filter(|last| last.are_of(&series.times_ms, place, range_ms, steps));
        let windows = known.unwrap_or_else(|| {
            let mut samples = QueryableSamples::of_steps(steps.count());
            samples.add_windows(&Borders::new(&series.times_ms, place, range_ms, steps), None);
            ColumnWindows { column: series.times_ms.clone(), place: *place, range_ms, steps: *steps, samples }
        });
        counted.add(&windows.samples);
        *last = Some(windows);
        if !series.histograms.is_empty() {
            let weights: Vec<u64> = series.histograms.iter().map(|h| histogram_samples(h)).collect();
            let borders = Borders::new(&series.histogram_times_ms, place, range_ms, steps);
            counted.add_windows(&borders, Some(&weights));
        }
    }

    /// Evaluates something whose samples are counted elsewhere.
    pub(crate) fn muted<T>(&self, work: impl FnOnce() -> T) -> T {
        let outside = self.counted.take();
        let done = work();
        self.counted.replace(outside);
        done
    }

    /// Evaluates at one step what counts at every step, since it is the same there.
    pub(crate) fn repeated<T>(&self, work: impl FnOnce() -> T) -> T {
        if !self.is_on() {
            return work();
        }
        let outside = self.counted.replace(Some(QueryableSamples::of_steps(1)));
        let done = work();
        let once = self.counted.replace(outside);
        if let (Some(once), Some(all)) = (once, &mut *self.counted.borrow_mut()) {
            let total = once.total();
            all.per_step.iter_mut().for_each(|step| *step += total);
            all.read_per_step.iter_mut().take(1).for_each(|step| *step += once.read());
        }
        done
    }
}

/// For how many samples a histogram counts: for as many as its memory would hold in Prometheus
/// (`HPoint.size`), where the lists beside 176 bytes take 8 bytes an entry.
fn histogram_samples(histogram: &larum_storage_format::Histogram) -> u64 {
    let lists = [&histogram.positive_buckets, &histogram.negative_buckets, &histogram.custom_values];
    let spans = histogram.positive_spans.len() + histogram.negative_spans.len();
    let entries = spans + lists.map(Vec::len).iter().sum::<usize>();
    (176 + 8 * entries as u64) / 16
}

#[cfg(test)]
mod tests {
    use crate::promql::testlang::Memory;
    use crate::promql::{EvalOptions, Steps, evaluate, parse};
    use crate::storage::Timestamp;
    use larum_storage_format::{Labels, Sample, Value};
    use std::time::Duration;

    /// A sample every 10 s from 0 to 100 s, of each of two series.
    fn data() -> Memory {
        let mut memory = Memory::default();
        for name in ["a", "b"] {
            let labels = Labels::from_pairs([("__name__", "m"), ("n", name)]).unwrap();
            for t in 0..=10 {
                let value = Value::Float(f64::from(t));
                let timestamp_ms = i64::from(t) * 10_000;
                memory.insert(&labels, Sample { timestamp_ms, start_timestamp_ms: None, value });
            }
        }
        memory
    }

    #[test]
    fn each_step_counts_what_it_looks_at() {
        let steps =
            Steps::new(Timestamp::from_millis(0), Timestamp::from_millis(60_000), Duration::from_secs(20));
        let steps = steps.unwrap();
        for (query, per_step, read_per_step) in [
            ("1", [0, 0, 0, 0], [0, 0, 0, 0]),
            ("m", [2, 2, 2, 2], [2, 2, 2, 2]),
            ("sum(m)", [2, 2, 2, 2], [2, 2, 2, 2]),
            (r#"m{n="a"} + on() m{n="b"}"#, [2, 2, 2, 2], [2, 2, 2, 2]),
            // Windows of 30 s, open to the left, hold one sample of each at 0 and three from 20 s on.
            ("sum_over_time(m[30s])", [2, 6, 6, 6], [2, 4, 4, 4]),
            ("sum(rate(m[30s]))", [2, 6, 6, 6], [2, 4, 4, 4]),
            // What does not depend on the step counts at each, and is read once.
            ("m @ 50", [2, 2, 2, 2], [2, 0, 0, 0]),
            ("sum_over_time(m[30s] @ 50)", [6, 6, 6, 6], [6, 0, 0, 0]),
            // Only the values of a subquery count: one every 10 s.
            ("sum_over_time(sum(m)[20s:10s])", [1, 2, 2, 2], [1, 2, 2, 2]),
            ("m{n=\"none\"}", [0, 0, 0, 0], [0, 0, 0, 0]),
        ] {
            let options = EvalOptions { count_samples: true, ..EvalOptions::default() };
            let answer = evaluate(&parse(query).unwrap(), &data(), steps, &options).unwrap();
            let counted = answer.stats.queryable.unwrap();
            assert_eq!(
                (&counted.per_step[..], &counted.read_per_step[..]),
                (&per_step[..], &read_per_step[..]),
                "{query}"
            );
        }
        let answer = evaluate(&parse("m").unwrap(), &data(), steps, &EvalOptions::default()).unwrap();
        assert_eq!(answer.stats.queryable, None, "nobody asked");
    }
}
