//! The modifiers `anchored` and `smoothed`: windows that take in samples beyond their borders.
//!
//! An anchored window begins with the last sample at or before its start. A smoothed one begins and
//! ends with values interpolated at its borders. Neither looks further than the look-back, and what
//! is between the borders is all there is: nothing is extrapolated. The rules are those of
//! Prometheus (`extendedRate`, `extendedHistogramRate`).

use super::ast::{Pos, RangeExtension};
use super::eval::{EvalError, Evaluator, Sink};
use super::functions::rate::Kind;
use super::histogram::{self, Incompatible};
use super::plan::{Place, Selector};
use super::row::{Bits, Presence};
use super::selector::{Selection, time_range};
use super::steps::Steps;
use super::value::FloatPoint;
use super::window::{RangeSeries, Remarks, output, remarks, reset};
use crate::storage::TimeRange;
use larum_storage_format::{CounterResetHint, Histogram};
use std::ops::Range;
use std::sync::Arc;

/// Which functions a modifier may be used with.
fn functions(extension: RangeExtension) -> &'static [&'static str] {
    match extension {
        RangeExtension::Anchored => &["changes", "delta", "increase", "rate", "resets"],
        RangeExtension::Smoothed => &["delta", "increase", "rate"],
    }
}

/// Refuses a modifier within a function that makes nothing of it.
pub(crate) fn check_function(extension: RangeExtension, function: &str) -> Result<(), EvalError> {
    let allowed = functions(extension);
    if allowed.contains(&function) {
        return Ok(());
    }
    let (modifier, allowed) = (name(extension), allowed.join(", "));
    let text = format!("{modifier} modifier can only be used with: {allowed} - not with {function}");
    Err(EvalError::Execution(text))
}

fn name(extension: RangeExtension) -> &'static str {
    match extension {
        RangeExtension::Anchored => "anchored",
        RangeExtension::Smoothed => "smoothed",
    }
}

/// The error where a range vector that no function takes has histograms.
pub(crate) fn no_histograms(extension: RangeExtension) -> EvalError {
    EvalError::Execution(format!("{} modifier is not supported with histograms", name(extension)))
}

/// The times of which samples are needed for the windows of `range_ms` at all steps.
pub(crate) fn samples_range(
    extension: Option<RangeExtension>,
    place: &Place,
    range_ms: i64,
    lookback_ms: i64,
    steps: &Steps,
) -> TimeRange {
    let further_ms = if extension.is_some() { lookback_ms } else { 0 };
    let range = time_range(place, range_ms.saturating_add(further_ms), steps);
    match extension {
        Some(RangeExtension::Smoothed) => {
            TimeRange::new(range.min_ms, range.max_ms.saturating_add(lookback_ms))
        }
        _ => range,
    }
}

/// A window in which values at the borders are looked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reach {
    start_ms: i64,
    end_ms: i64,
    lookback_ms: i64,
    smoothed: bool,
}

impl Reach {
    /// The window of `range_ms` that ends at `end_ms`.
    pub(crate) fn new(extension: RangeExtension, end_ms: i64, range_ms: i64, lookback_ms: i64) -> Reach {
        let smoothed = extension == RangeExtension::Smoothed;
        Reach { start_ms: end_ms.saturating_sub(range_ms), end_ms, lookback_ms, smoothed }
    }

    /// The indexes of all samples within reach.
    fn all(&self, times_ms: &[i64]) -> Range<usize> {
        let from_ms = self.start_ms.saturating_sub(self.lookback_ms);
        let to_ms = if self.smoothed { self.end_ms.saturating_add(self.lookback_ms) } else { self.end_ms };
        times_ms.partition_point(|t| *t <= from_ms)..times_ms.partition_point(|t| *t <= to_ms)
    }

    /// Of the samples within reach, the first and the last that count: those next to the borders.
    /// `None` if all are on one side of the window.
    fn ends(&self, times_ms: &[i64]) -> Option<(usize, usize)> {
        let mut last = times_ms.len().checked_sub(1)?;
        let first = times_ms.partition_point(|t| *t <= self.start_ms).min(last);
        let first = if first > 0 && times_ms[first] > self.start_ms { first - 1 } else { first };
        if self.smoothed {
            last = times_ms.partition_point(|t| *t < self.end_ms).min(last);
        }
        let beside = times_ms[last] <= self.start_ms || self.smoothed && times_ms[first] > self.end_ms;
        (!beside).then_some((first, last))
    }

    /// The window itself: values at both borders, and the samples between them. `None` if all samples are
    /// on one side of it.
    pub(crate) fn floats(&self, series: &RangeSeries) -> Option<Vec<FloatPoint>> {
        let all = self.all(&series.times_ms);
        let (times_ms, values) = (&series.times_ms[all.clone()], &series.floats[all]);
        let ends = self.ends(times_ms)?;
        let (left, right) = self.borders(times_ms, values, ends, false);
        let lo = times_ms.partition_point(|t| *t <= self.start_ms);
        let hi = times_ms.partition_point(|t| *t < self.end_ms).max(lo);
        let between = times_ms[lo..hi].iter().zip(&values[lo..hi]);
        let point = |t_ms, value| FloatPoint { t_ms, value };
        let mut points = vec![point(self.start_ms, left)];
        points.extend(between.map(|(t_ms, value)| point(*t_ms, *value)));
        points.push(point(self.end_ms, right));
        Some(points)
    }

    /// The values at the borders, seen from the samples next to them.
    fn borders(
        &self,
        times_ms: &[i64],
        values: &[f64],
        (first, last): (usize, usize),
        counter: bool,
    ) -> (f64, f64) {
        let sample = |i: usize| (times_ms[i], values[i]);
        let left = if self.smoothed && times_ms[first] < self.start_ms {
            interpolated(sample(first), sample(first + 1), self.start_ms, counter)
        } else {
            values[first]
        };
        let right = if self.smoothed && last > 0 && times_ms[last] > self.end_ms {
            interpolated(sample(last - 1), sample(last), self.end_ms, counter)
        } else {
            values[last]
        };
        (left, right)
    }

    /// Whether there are histograms within reach.
    pub(crate) fn has_histograms(&self, series: &RangeSeries) -> bool {
        !self.all(&series.histogram_times_ms).is_empty()
    }

    /// The samples of an anchored window, as ranges of floats and of histograms: those in it and
    /// the last one before. Both are empty if there is none in the window.
    pub(crate) fn anchored(&self, series: &RangeSeries) -> (Range<usize>, Range<usize>) {
        let inside = |times_ms: &[i64]| {
            let lo = times_ms.partition_point(|t| *t <= self.start_ms);
            lo..times_ms.partition_point(|t| *t <= self.end_ms).max(lo)
        };
        let (mut floats, mut histograms) = (inside(&series.times_ms), inside(&series.histogram_times_ms));
        if floats.is_empty() && histograms.is_empty() {
            return (floats, histograms);
        }
        let from_ms = self.start_ms.saturating_sub(self.lookback_ms);
        let before = |times_ms: &[i64], lo: usize| {
            lo.checked_sub(1).map(|i| times_ms[i]).filter(|t_ms| *t_ms > from_ms)
        };
        let float_ms = before(&series.times_ms, floats.start);
        let histogram_ms = before(&series.histogram_times_ms, histograms.start);
        if float_ms > histogram_ms {
            floats.start -= 1;
        } else if histogram_ms.is_some() {
            histograms.start -= 1;
        }
        (floats, histograms)
    }
}

/// Which function is applied to which selector, for all steps.
pub(crate) struct Rates<'q> {
    pub(crate) kind: Kind,
    pub(crate) extension: RangeExtension,
    pub(crate) place: Place,
    pub(crate) range_ms: i64,
    /// Where the selector stands.
    pub(crate) pos: Pos,
    pub(crate) steps: &'q Steps,
}

impl Rates<'_> {
    /// Gives the rates of `series` to `sink`.
    pub(crate) fn of_series(
        &self,
        evaluator: &Evaluator<'_>,
        series: RangeSeries,
        sink: Sink<'_>,
    ) -> Result<(), EvalError> {
        let count = self.steps.count();
        let mut output = output(count);
        let mut remarks = remarks(evaluator, &series.labels, self.pos);
        let mut bits = Bits::none(count);
        reset(&mut output.row, count);
        let divisor = if self.kind == Kind::Rate { self.range_ms as f64 / 1000.0 } else { 1.0 };
        let mut any_float = false;
        for (step, t_ms) in self.steps.iter().enumerate() {
            if step % 1024 == 1023 {
                evaluator.alive()?;
            }
            let end_ms = self.place.time(t_ms);
            let reach = Reach::new(self.extension, end_ms, self.range_ms, evaluator.lookback_ms);
            let (floats, histograms) = (reach.all(&series.times_ms), reach.all(&series.histogram_times_ms));
            match (floats.is_empty(), histograms.is_empty()) {
                (true, true) => {}
                (false, false) => remarks.mixed(),
                (false, true) => {
                    let (times_ms, values) = (&series.times_ms[floats.clone()], &series.floats[floats]);
                    if let Some(delta) = float_delta(self.kind, &reach, times_ms, values) {
                        output.row.floats[step] = delta / divisor;
                        bits.set(step);
                        any_float = true;
                    }
                }
                (true, false) => {
                    let times_ms = &series.histogram_times_ms[histograms.clone()];
                    let values = &series.histograms[histograms];
                    let delta = HistogramDelta { reach, times_ms, values, remarks: &remarks };
                    if let Some(delta) = delta.of(self.kind) {
                        let rate = histogram::divided(&delta, divisor);
                        let gauge = Histogram { counter_reset_hint: CounterResetHint::Gauge, ..rate };
                        output.row.histograms.push((step as u32, Arc::new(histogram::compacted(&gauge))));
                    }
                }
            }
        }
        if self.kind.is_counter() && any_float {
            remarks.counter();
        }
        output.row.present = Presence::from_bits(&bits, count);
        output.labels = series.labels;
        output.drop_name = true;
        if output.row.points() > 0 { sink(&mut output) } else { Ok(()) }
    }
}

/// The value at `t_ms` between two samples. A counter that began again between them did so at the
/// first, from zero.
fn interpolated(before: (i64, f64), after: (i64, f64), t_ms: i64, counter: bool) -> f64 {
    let from = if counter && after.1 < before.1 { 0.0 } else { before.1 };
    from + (after.1 - from) * part(before.0, after.0, t_ms)
}

/// How far `t_ms` is on the way from `from_ms` to `to_ms`.
fn part(from_ms: i64, to_ms: i64, t_ms: i64) -> f64 {
    (t_ms - from_ms) as f64 / (to_ms - from_ms) as f64
}

/// The difference of the values at the borders, plus what resets took away.
fn float_delta(kind: Kind, reach: &Reach, times_ms: &[i64], values: &[f64]) -> Option<f64> {
    let (first, last) = reach.ends(times_ms)?;
    let counter = kind.is_counter();
    let (left, right) = reach.borders(times_ms, values, (first, last), counter);
    let mut delta = right - left;
    if counter {
        let from = first + usize::from(times_ms[first] <= reach.start_ms);
        let to = last + usize::from(times_ms[last] < reach.end_ms);
        let mut before = left;
        for &value in values.get(from..to).unwrap_or(&[]).iter().chain([&right]) {
            if value < before {
                delta += before;
            }
            before = value;
        }
    }
    Some(delta)
}

/// Why two histograms cannot be interpolated is always that their buckets do not go together.
type Interpolated = Result<Histogram, Incompatible>;

/// What [`float_delta`] is for floats, for histograms.
struct HistogramDelta<'w> {
    reach: Reach,
    times_ms: &'w [i64],
    values: &'w [Arc<Histogram>],
    remarks: &'w Remarks<'w, 'w>,
}

impl HistogramDelta<'_> {
    fn of(&self, kind: Kind) -> Option<Histogram> {
        let (first, last) = self.reach.ends(self.times_ms)?;
        let looked_at = &self.values[first..=last];
        let custom = histogram::is_custom(&looked_at[0]);
        if looked_at.iter().any(|h| histogram::is_custom(h) != custom) {
            self.remarks.mixed_schemas();
            return None;
        }
        let is_gauge = |h: &Histogram| h.counter_reset_hint == CounterResetHint::Gauge;
        let counter = kind.is_counter();
        if counter && looked_at.iter().any(|h| is_gauge(h)) {
            self.remarks.warn_of("this native histogram metric is not a counter:");
        }
        let delta = self.borders(first, last, counter).and_then(|(left, right)| {
            let gauges = is_gauge(&left) && is_gauge(&right);
            if !counter && !gauges {
                self.remarks.warn_of("this native histogram metric is not a gauge:");
            }
            let mut delta = self.sub(&right, &left)?;
            if counter {
                for lost in self.lost(first, last, left, right) {
                    delta = self.add(&delta, &lost)?;
                }
            }
            Ok(delta)
        });
        if delta.is_err() {
            self.remarks.mixed_schemas();
        }
        delta.ok()
    }

    /// The histograms at the borders.
    fn borders(
        &self,
        first: usize,
        last: usize,
        counter: bool,
    ) -> Result<(Histogram, Histogram), Incompatible> {
        let Reach { start_ms, end_ms, smoothed, .. } = self.reach;
        let left = if smoothed && self.times_ms[first] < start_ms {
            self.interpolated(first, start_ms, counter)?
        } else {
            Histogram::clone(&self.values[first])
        };
        let right = if smoothed && last > 0 && self.times_ms[last] > end_ms {
            self.interpolated(last - 1, end_ms, counter)?
        } else {
            Histogram::clone(&self.values[last])
        };
        Ok((left, right))
    }

    /// The histogram at `t_ms` between the samples `i` and `i + 1`.
    fn interpolated(&self, i: usize, t_ms: i64, counter: bool) -> Interpolated {
        let (before, after) = (&self.values[i], &self.values[i + 1]);
        interpolate((self.times_ms[i], before), (self.times_ms[i + 1], after), t_ms, counter, self.remarks)
    }

    /// The histograms before each reset in the window.
    fn lost(&self, first: usize, last: usize, left: Histogram, right: Histogram) -> Vec<Arc<Histogram>> {
        let mut before = Arc::new(left);
        // The first sample is what `left` stands for, the last what `right` does.
        let mut from = first + 1;
        let crossed = self.reach.smoothed
            && self.times_ms[first] < self.reach.start_ms
            && histogram::is_reset(&self.values[first + 1], &self.values[first]);
        if crossed {
            // `left` lies after the reset already, somewhere on the way to the next sample.
            before = self.values[first + 1].clone();
            from += 1;
        }
        if from > last {
            return Vec::new();
        }
        let mut lost = Vec::new();
        for h in self.values[from..last].iter().chain([&Arc::new(right)]) {
            if histogram::is_reset(h, &before) {
                lost.push(before);
            }
            before = h.clone();
        }
        lost
    }

    fn add(&self, a: &Histogram, b: &Histogram) -> Interpolated {
        let sum = histogram::add(a, b)?;
        self.remarks.combined(false, sum.bounds_reconciled, "addition");
        Ok(sum.histogram)
    }

    fn sub(&self, a: &Histogram, b: &Histogram) -> Interpolated {
        let difference = histogram::sub(a, b)?;
        self.remarks.combined(false, difference.bounds_reconciled, "subtraction");
        Ok(difference.histogram)
    }
}

/// The histogram at `t_ms` between two samples, by the rule of [`interpolated`].
fn interpolate(
    before: (i64, &Histogram),
    after: (i64, &Histogram),
    t_ms: i64,
    counter: bool,
    remarks: &Remarks<'_, '_>,
) -> Interpolated {
    if t_ms == before.0 {
        return Ok(before.1.clone());
    }
    if t_ms == after.0 {
        return Ok(after.1.clone());
    }
    if histogram::is_custom(before.1) != histogram::is_custom(after.1) {
        return Err(Incompatible);
    }
    let part = part(before.0, after.0, t_ms);
    if counter && histogram::is_reset(after.1, before.1) {
        return Ok(histogram::scaled(after.1, part));
    }
    let difference = histogram::sub(after.1, before.1)?;
    remarks.combined(false, difference.bounds_reconciled, "subtraction");
    let sum = histogram::add(&histogram::scaled(&difference.histogram, part), before.1)?;
    remarks.combined(false, sum.bounds_reconciled, "addition");
    Ok(sum.histogram)
}

/// Gives the series of a smoothed selector to `sink`: at each step the sample there, or the value
/// between the one before and the one after, or, if there is none after, the one before.
pub(crate) fn each_smoothed(
    evaluator: &Evaluator<'_>,
    selector: &Selector<'_>,
    pos: Pos,
    steps: &Steps,
    sink: Sink<'_>,
) -> Result<(), EvalError> {
    let (place, lookback_ms) = (selector.place, evaluator.lookback_ms);
    let range = samples_range(Some(RangeExtension::Smoothed), &place, 0, lookback_ms, steps);
    let selection = Selection::new(evaluator, selector, range)?;
    let mut reader = selection.reader();
    let count = steps.count();
    while let Some((index, samples)) = reader.next()? {
        let series = RangeSeries::from_samples(reader.labels(index), samples, false);
        let mut output = output(count);
        let mut remarks = remarks(evaluator, &series.labels, pos);
        let mut bits = Bits::none(count);
        for (step, t_ms) in steps.iter().enumerate() {
            let t_ms = place.time(t_ms);
            let reach = Reach::new(RangeExtension::Smoothed, t_ms, 0, lookback_ms);
            let (floats, histograms) = (reach.all(&series.times_ms), reach.all(&series.histogram_times_ms));
            if !floats.is_empty() && !histograms.is_empty() {
                remarks.mixed();
                continue;
            }
            // How many of them are at or before the step, and whether there is one after.
            let around = |times_ms: &[i64]| {
                let known = times_ms.partition_point(|t| *t <= t_ms);
                let next = known < times_ms.len() && known > 0 && times_ms[known - 1] < t_ms;
                known.checked_sub(1).map(|before| (before, next))
            };
            let times_ms = &series.times_ms[floats.clone()];
            if let Some((before, next)) = around(times_ms) {
                let values = &series.floats[floats];
                let sample = |i: usize| (times_ms[i], values[i]);
                output.row.floats[step] = match next {
                    true => interpolated(sample(before), sample(before + 1), t_ms, false),
                    false => values[before],
                };
                bits.set(step);
            }
            let times_ms = &series.histogram_times_ms[histograms.clone()];
            if let Some((before, next)) = around(times_ms) {
                let values = &series.histograms[histograms];
                let sample = |i: usize| (times_ms[i], &*values[i]);
                let value = if next {
                    let counter = values[before].counter_reset_hint != CounterResetHint::Gauge;
                    interpolate(sample(before), sample(before + 1), t_ms, counter, &remarks).map(Arc::new)
                } else {
                    Ok(values[before].clone())
                };
                match value {
                    Ok(value) => output.row.histograms.push((step as u32, value)),
                    Err(Incompatible) => remarks.mixed_schemas(),
                }
            }
        }
        output.row.present = Presence::from_bits(&bits, count);
        output.labels = series.labels;
        if output.row.points() > 0 {
            sink(&mut output)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delta(kind: Kind, extension: RangeExtension, (start_ms, end_ms): (i64, i64)) -> Option<f64> {
        let reach = Reach::new(extension, end_ms, end_ms - start_ms, 300_000);
        float_delta(kind, &reach, &[0, 10, 20, 30], &[10.0, 5.0, 2.0, 4.0])
    }

    #[test]
    fn a_reset_at_a_border_is_counted_once() {
        use RangeExtension::{Anchored, Smoothed};
        assert_eq!(delta(Kind::Increase, Smoothed, (1, 15)), Some(5.5));
        assert_eq!(delta(Kind::Increase, Anchored, (10, 30)), Some(4.0));
        assert_eq!(delta(Kind::Delta, Smoothed, (5, 15)), Some(-4.0));
        assert_eq!(delta(Kind::Delta, Anchored, (30, 40)), None);
    }

    #[test]
    fn a_window_by_itself_begins_and_ends_at_its_borders() {
        use RangeExtension::{Anchored, Smoothed};
        let points = |extension, (start_ms, end_ms): (i64, i64)| {
            let series = RangeSeries {
                labels: larum_storage_format::Labels::empty(),
                drop_name: false,
                times_ms: vec![0, 10, 20, 30].into(),
                floats: vec![10.0, 5.0, 2.0, 4.0],
                starts_ms: Vec::new(),
                histogram_times_ms: Vec::new(),
                histogram_starts_ms: Vec::new(),
                histograms: Vec::new(),
            };
            let points = Reach::new(extension, end_ms, end_ms - start_ms, 300_000).floats(&series)?;
            Some(points.iter().map(|point| (point.t_ms, point.value)).collect::<Vec<_>>())
        };
        assert_eq!(points(Anchored, (5, 25)), Some(vec![(5, 10.0), (10, 5.0), (20, 2.0), (25, 2.0)]));
        assert_eq!(points(Smoothed, (5, 25)), Some(vec![(5, 7.5), (10, 5.0), (20, 2.0), (25, 3.0)]));
        assert_eq!(points(Smoothed, (10, 30)), Some(vec![(10, 5.0), (20, 2.0), (30, 4.0)]));
        assert_eq!(points(Anchored, (30, 40)), None);
    }
}
