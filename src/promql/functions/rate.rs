//! `rate`, `increase`, `delta`, and their instant sisters.
//!
//! The formulas are Prometheus' (`promql/functions.go`, `extrapolatedRate`): the difference
//! between the last and the first sample, plus what resets took away, extended to the borders of
//! the window. All of it but the values depends on the timestamps only, and is worked out once for
//! all series that share them ([`Shared`]).

use crate::promql::eval::EvalError;
use crate::promql::histogram::{self, Combined, Incompatible};
use crate::promql::plan::Place;
use crate::promql::row::{Bits, Presence, Row};
use crate::promql::steps::Steps;
use crate::promql::window::{Borders, RangeSeries, Remarks, Window};
use larum_storage_format::{CounterResetHint, Histogram, Value};
use std::sync::Arc;

/// Which of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Per second, of a counter.
    Rate,
    /// Over the window, of a counter.
    Increase,
    /// Over the window, of a gauge.
    Delta,
}

impl Kind {
    /// Whether falling values mean that a counter began again.
    pub(crate) fn is_counter(self) -> bool {
        self != Kind::Delta
    }
}

/// What is known of one window before its values are: all in seconds.
#[derive(Debug, Clone, Copy)]
struct Extent {
    /// From the first sample to the last.
    sampled: f64,
    /// How far to extend before the first sample.
    to_start: f64,
    /// How far to extend after the last.
    to_end: f64,
    /// By what the difference of the values is multiplied.
    factor: f64,
}

impl Extent {
    /// Of a window with `samples` samples, from `first_ms` to `last_ms`.
    fn new(window: (i64, i64), first_ms: i64, last_ms: i64, samples: u32, divisor: f64) -> Extent {
        let sampled = (last_ms - first_ms) as f64 / 1000.0;
        let average = sampled / f64::from(samples - 1);
        // A sample further away than this from the border is taken for the end of the series.
        let threshold = average * 1.1;
        let reach = |gap_ms: i64| {
            let gap = gap_ms as f64 / 1000.0;
            if gap >= threshold { average / 2.0 } else { gap }
        };
        let (to_start, to_end) = (reach(first_ms.saturating_sub(window.0)), reach(window.1 - last_ms));
        let extent = Extent { sampled, to_start, to_end, factor: 0.0 };
        Extent { factor: extent.factor_from(to_start, divisor), ..extent }
    }

    fn factor_from(&self, to_start: f64, divisor: f64) -> f64 {
        (self.sampled + to_start + self.to_end) / self.sampled / divisor
    }

    /// The factor for a counter that was at `first` and went up by `delta`: it was not below zero
    /// before, so the extension ends where it would have been zero.
    #[inline]
    fn counter_factor(&self, first: f64, delta: f64, divisor: f64) -> f64 {
        // Without dividing: is sampled * (first / delta) < to_start? Close calls are left to
        // the exact formula.
        if delta > 0.0 && first >= 0.0 && self.sampled * first < self.to_start * delta * (1.0 + 1e-9) {
            let to_zero = self.sampled * (first / delta);
            if to_zero < self.to_start {
                return self.factor_from(to_zero, divisor);
            }
        }
        self.factor
    }
}

/// What rates of series with the same timestamps have in common.
pub(crate) struct Shared {
    counter: bool,
    /// What an increase is divided by: the window in seconds, or 1.
    divisor: f64,
    /// Per step the index of the first and the last sample of its window. Where there are not
    /// two, both are 0 and what comes out is not looked at.
    ends: Vec<(u32, u32)>,
    extents: Vec<Extent>,
    present: Presence,
}

impl Shared {
    /// For the windows of `range_ms` at `place` of all steps.
    pub(crate) fn new(kind: Kind, times_ms: &[i64], place: &Place, range_ms: i64, steps: &Steps) -> Shared {
        let borders = Borders::new(times_ms, place, range_ms, steps);
        let divisor = if kind == Kind::Rate { range_ms as f64 / 1000.0 } else { 1.0 };
        let count = steps.count();
        let mut bits = Bits::none(count);
        let mut ends = Vec::with_capacity(count);
        let mut extents = Vec::with_capacity(count);
        for (i, t_ms) in steps.iter().enumerate() {
            let (lo, hi) = (borders.lo[i], borders.hi[i]);
            if hi - lo < 2 {
                ends.push((0, 0));
                extents.push(Extent { sampled: 1.0, to_start: 0.0, to_end: 0.0, factor: 0.0 });
                continue;
            }
            bits.set(i);
            ends.push((lo, hi - 1));
            let end_ms = place.time(t_ms);
            let window = (end_ms.saturating_sub(range_ms), end_ms);
            let (first_ms, last_ms) = (times_ms[lo as usize], times_ms[hi as usize - 1]);
            extents.push(Extent::new(window, first_ms, last_ms, hi - lo, divisor));
        }
        Shared {
            counter: kind.is_counter(),
            divisor,
            ends,
            extents,
            present: Presence::from_bits(&bits, count),
        }
    }

    /// At which steps there is a rate.
    pub(crate) fn present(&self) -> Presence {
        self.present.clone()
    }

    /// The rates of `values`, whose counter begins again at the indexes `resets`.
    pub(crate) fn fill(&self, values: &[f64], resets: &[u32], out: &mut [f64]) {
        if values.is_empty() {
            return;
        }
        let steps = out.iter_mut().zip(self.ends.iter().zip(&self.extents));
        if !self.counter {
            for (out, (&(first, last), extent)) in steps {
                *out = (values[last as usize] - values[first as usize]) * extent.factor;
            }
            return;
        }
        let mut next = 0;
        for (out, (&(first, last), extent)) in steps {
            let first_value = values[first as usize];
            let mut delta = values[last as usize] - first_value;
            if next < resets.len() {
                // Windows only move on, so resets before this one are before all that follow.
                while next < resets.len() && resets[next] <= first {
                    next += 1;
                }
                for &reset in resets[next..].iter().take_while(|reset| **reset <= last) {
                    delta += values[reset as usize - 1];
                }
            }
            *out = delta * extent.counter_factor(first_value, delta, self.divisor);
        }
    }
}

/// How many values are looked at as a whole.
const CHUNK: usize = 64;

/// Finds the indexes at which the counter of `series` began again.
pub(crate) fn find_resets(kind: Kind, series: &RangeSeries, resets: &mut Vec<u32>) {
    resets.clear();
    if !kind.is_counter() {
        return;
    }
    let values = &series.floats;
    if series.starts_ms.is_empty() {
        let (before, after) = (&values[..values.len().max(1) - 1], values.get(1..).unwrap_or(&[]));
        for (chunk, (before, after)) in before.chunks(CHUNK).zip(after.chunks(CHUNK)).enumerate() {
            // Counters rarely begin again, so most chunks are only looked at as a whole, which
            // the compiler does several values at once.
            if before.iter().zip(after).fold(false, |fell, (a, b)| fell | (b < a)) {
                let fell = before.iter().zip(after).enumerate().filter(|(_, (a, b))| b < a);
                resets.extend(fell.map(|(i, _)| (chunk * CHUNK + i) as u32 + 1));
            }
        }
    } else {
        let began = |i: &usize| {
            values[*i] < values[*i - 1] || began_again_at(&series.starts_ms, &series.times_ms, *i)
        };
        resets.extend((1..values.len()).filter(began).map(|i| i as u32));
    }
}

/// Whether start timestamps say that a counter began again between two samples, each given as its
/// start and its time (Prometheus 3.14, `isStartTimestampReset`).
pub(super) fn began_again(before: (i64, i64), after: (i64, i64)) -> bool {
    let (start_ms, t_ms) = after;
    // A start at or after the sample itself tells nothing: so does who knows no start.
    if start_ms == 0 || start_ms >= t_ms || start_ms < before.1 {
        return false;
    }
    // A start at the very time of the sample before: deltas do so, but also a counter of unknown
    // start, whose first sample then has no start that makes sense.
    start_ms > before.1 || before.0 != 0 && before.0 < before.1
}

/// Whether start timestamps, if they are used, say that a counter began again before sample `i`.
fn began_again_at(starts_ms: &[i64], times_ms: &[i64], i: usize) -> bool {
    !starts_ms.is_empty() && began_again((starts_ms[i - 1], times_ms[i - 1]), (starts_ms[i], times_ms[i]))
}

/// Whether the time that sample `i` counts overlaps with the sample before, of which it does not
/// know.
fn overlaps(starts_ms: &[i64], times_ms: &[i64], i: usize) -> bool {
    let (start_ms, before_ms) = (starts_ms[i], times_ms[i - 1]);
    start_ms != 0 && start_ms < before_ms && start_ms != starts_ms[i - 1]
}

/// Corrects `row` where windows hold histograms, or samples of which the start is known.
pub(crate) fn by_window<'w>(
    kind: Kind,
    windows: impl Iterator<Item = (Window<'w>, i64)>,
    range_ms: i64,
    row: &mut Row,
    remarks: &mut Remarks<'_, '_>,
) {
    let count = row.len();
    let mut bits = Bits::none(count);
    row.present.for_each(count, |i| bits.set(i));
    for (step, (window, end_ms)) in windows.enumerate() {
        let ends = (end_ms.saturating_sub(range_ms), end_ms);
        match (window.floats.len(), window.histograms.len()) {
            (0, 0) => {}
            (_, 0) if window.starts_ms.is_empty() || !kind.is_counter() => {}
            (_, 0) => match float_rate(kind, &window, ends, remarks) {
                Some(rate) => {
                    row.floats[step] = rate;
                    bits.set(step);
                }
                None => bits.unset(step),
            },
            (0, _) => {
                if let Some(rate) = histogram_rate(kind, &window, ends, remarks) {
                    row.histograms.push((step as u32, Arc::new(rate)));
                }
            }
            _ => {
                remarks.mixed();
                bits.unset(step);
            }
        }
    }
    row.present = Presence::from_bits(&bits, count);
}

/// How the increase seen in a window is extended to its borders.
struct Extension {
    factor: f64,
    /// Whether the counter began within the window, so that the first sample is part of the
    /// increase.
    from_start: bool,
}

impl Extension {
    /// For samples at `times_ms`, of which the first has the value `first` and after which the
    /// counter went up by `delta`. `None` if there are too few.
    fn new(
        kind: Kind,
        (times_ms, starts_ms): (&[i64], &[i64]),
        ends: (i64, i64),
        first: f64,
        delta: f64,
    ) -> Option<Extension> {
        let divisor = if kind == Kind::Rate { (ends.1 - ends.0) as f64 / 1000.0 } else { 1.0 };
        let (first_ms, last_ms) = (*times_ms.first()?, *times_ms.last()?);
        let samples = times_ms.len() as u32;
        let start_ms = starts_ms.first().copied().unwrap_or(0);
        if kind.is_counter() && start_ms != 0 && start_ms > ends.0 && start_ms < first_ms {
            let sampled = (last_ms - start_ms) as f64 / 1000.0;
            // A single sample does not tell how far apart samples are.
            let to_end = match samples {
                1 => 0.0,
                _ => Extent::new(ends, first_ms, last_ms, samples, divisor).to_end,
            };
            return Some(Extension { factor: (sampled + to_end) / sampled / divisor, from_start: true });
        }
        if samples < 2 {
            return None;
        }
        let extent = Extent::new(ends, first_ms, last_ms, samples, divisor);
        let factor = match kind {
            Kind::Delta => extent.factor,
            Kind::Rate | Kind::Increase => extent.counter_factor(first, delta, divisor),
        };
        Some(Extension { factor, from_start: false })
    }
}

/// The rate of a window of floats of which starts are known.
fn float_rate(
    kind: Kind,
    window: &Window<'_>,
    ends: (i64, i64),
    remarks: &mut Remarks<'_, '_>,
) -> Option<f64> {
    let (values, times_ms, starts_ms) = (window.floats, window.times_ms, window.starts_ms);
    let first = *values.first()?;
    let mut delta = values[values.len() - 1] - first;
    for i in 1..values.len() {
        if overlaps(starts_ms, times_ms, i) {
            remarks.overlap();
        }
        if values[i] < values[i - 1] || began_again_at(starts_ms, times_ms, i) {
            delta += values[i - 1];
        }
    }
    let extension = Extension::new(kind, (times_ms, starts_ms), ends, first, delta)?;
    if extension.from_start {
        delta += first;
    }
    Some(delta * extension.factor)
}

/// The rate of a window of histograms; none if their buckets do not go together.
fn histogram_rate(
    kind: Kind,
    window: &Window<'_>,
    ends: (i64, i64),
    remarks: &mut Remarks<'_, '_>,
) -> Option<Histogram> {
    let first = window.histograms.first()?;
    let mut delta = None;
    if window.histograms.len() > 1 {
        delta = Some(histogram_delta(kind, window, remarks)?);
    }
    let times = (window.histogram_times_ms, window.histogram_starts_ms);
    let count = delta.as_ref().map_or(0.0, |delta| delta.count);
    let extension = Extension::new(kind, times, ends, first.count, count)?;
    let delta = match (delta, extension.from_start) {
        (Some(delta), true) => take(histogram::add(&delta, first), "addition", remarks)?,
        (Some(delta), false) => delta,
        (None, _) => Histogram::clone(first),
    };
    let counter_reset_hint = CounterResetHint::Gauge;
    Some(Histogram { counter_reset_hint, ..histogram::scaled(&delta, extension.factor) })
}

/// The last histogram minus the first, plus those that were lost to counter resets.
fn histogram_delta(kind: Kind, window: &Window<'_>, remarks: &mut Remarks<'_, '_>) -> Option<Histogram> {
    let (histograms, times_ms) = (window.histograms, window.histogram_times_ms);
    let starts_ms = window.histogram_starts_ms;
    let [first, second, ..] = histograms else { return None };
    let last = &histograms[histograms.len() - 1];
    let is_gauge = |h: &Histogram| h.counter_reset_hint == CounterResetHint::Gauge;
    let mut before: Arc<Histogram> = first.clone();
    if kind.is_counter() {
        if histograms.iter().any(|h| is_gauge(h)) {
            remarks.warn_of("this native histogram metric is not a counter:");
        }
        if began_again_at(starts_ms, times_ms, 1) || histogram::is_reset(second, first) {
            // Nothing of the first one is looked at, so its layout does not matter either.
            before = Arc::new(Histogram {
                schema: second.schema,
                custom_values: second.custom_values.clone(),
                ..Histogram::default()
            });
        }
    } else if !is_gauge(first) || !is_gauge(last) {
        remarks.warn_of("this native histogram metric is not a gauge:");
    }
    let custom = histogram::is_custom(&before);
    let looked_at = if kind.is_counter() { &histograms[1..] } else { std::slice::from_ref(last) };
    if looked_at.iter().any(|h| histogram::is_custom(h) != custom) {
        remarks.mixed_schemas();
        return None;
    }
    let schema = looked_at.iter().map(|h| h.schema).fold(before.schema, i32::min);
    let difference = histogram::sub(&histogram::to_schema(last, schema), &before);
    let mut delta = take(difference, "subtraction", remarks)?;
    if kind.is_counter() {
        for (i, histogram) in histograms.iter().enumerate().skip(1) {
            if !starts_ms.is_empty() && overlaps(starts_ms, times_ms, i) {
                remarks.overlap();
            }
            if began_again_at(starts_ms, times_ms, i) || histogram::is_reset(histogram, &before) {
                delta = take(histogram::add(&delta, &before), "addition", remarks)?;
            }
            before = histogram.clone();
        }
    }
    Some(delta)
}

/// The histogram of a sum or difference in which resets are taken care of, so that clashing hints
/// mean nothing.
fn take(
    combined: Result<Combined, Incompatible>,
    operation: &str,
    remarks: &Remarks<'_, '_>,
) -> Option<Histogram> {
    let Ok(combined) = combined else {
        remarks.mixed_schemas();
        return None;
    };
    remarks.combined(false, combined.bounds_reconciled, operation);
    Some(combined.histogram)
}

/// `irate(m)`: the per-second rate between the last two samples.
pub(crate) fn irate(window: &Window<'_>, remarks: &mut Remarks<'_, '_>) -> Result<Option<Value>, EvalError> {
    last_two(window, remarks, true)
}

/// `idelta(m)`: the difference of the last two samples.
pub(crate) fn idelta(window: &Window<'_>, remarks: &mut Remarks<'_, '_>) -> Result<Option<Value>, EvalError> {
    last_two(window, remarks, false)
}

fn last_two(
    window: &Window<'_>,
    remarks: &mut Remarks<'_, '_>,
    per_second: bool,
) -> Result<Option<Value>, EvalError> {
    if window.floats.len() + window.histograms.len() < 2 {
        return Ok(None);
    }
    let newer = |times: &[i64], than: &[i64], back: usize| {
        // How many of the last two samples are of `times`: `back` is 1 for the last, 2 for both.
        times.len() >= back && times[times.len() - back] > than.last().copied().unwrap_or(i64::MIN)
    };
    if newer(window.histogram_times_ms, window.times_ms, 2) {
        return Ok(last_two_histograms(window, remarks, per_second));
    }
    if !newer(window.times_ms, window.histogram_times_ms, 2) {
        remarks.mixed();
        return Ok(None);
    }
    let last = window.floats.len() - 1;
    let (before, value) = (window.floats[last - 1], window.floats[last]);
    let interval_ms = window.times_ms[last] - window.times_ms[last - 1];
    if interval_ms == 0 {
        return Ok(None);
    }
    let reset = per_second && (value < before || began_again_at(window.starts_ms, window.times_ms, last));
    let delta = if reset { value } else { value - before };
    let value = if per_second { delta / (interval_ms as f64 / 1000.0) } else { delta };
    Ok(Some(Value::Float(value)))
}

fn last_two_histograms(window: &Window<'_>, remarks: &Remarks<'_, '_>, per_second: bool) -> Option<Value> {
    let last = window.histograms.len() - 1;
    let (before, h) = (&window.histograms[last - 1], &window.histograms[last]);
    let gauges = [before, h].iter().filter(|h| h.counter_reset_hint == CounterResetHint::Gauge).count();
    if per_second && gauges > 0 {
        remarks.warn_of("this native histogram metric is not a counter:");
    }
    if !per_second && gauges < 2 {
        remarks.warn_of("this native histogram metric is not a gauge:");
    }
    let began = || began_again_at(window.histogram_starts_ms, window.histogram_times_ms, last);
    let mut delta = if per_second && (began() || histogram::is_reset(h, before)) {
        histogram::compacted(h)
    } else {
        take(histogram::sub(h, before), "subtraction", remarks)?
    };
    if per_second {
        let interval_ms = window.histogram_times_ms[last] - window.histogram_times_ms[last - 1];
        delta = histogram::divided(&delta, interval_ms as f64 / 1000.0);
    }
    delta.counter_reset_hint = CounterResetHint::Gauge;
    Some(Value::Histogram(Arc::new(delta)))
}
