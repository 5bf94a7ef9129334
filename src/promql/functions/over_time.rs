//! The functions `*_over_time`, `changes` and `resets`: the samples of one window to one value.

use super::super::eval::EvalError;
use super::super::histogram::{self, HistogramSum, Incompatible};
use super::super::kahan::{self, Mean, Sum};
use super::super::row::Bits;
use super::super::window::{Borders, Remarks, Window};
use super::rate::began_again;
use larum_storage_format::Value;
use std::cmp::Ordering;
use std::sync::Arc;

type Outcome = Result<Option<Value>, EvalError>;

fn float(value: f64) -> Outcome {
    Ok(Some(Value::Float(value)))
}

/// For functions that make nothing of histograms: runs `f` if there are floats.
fn of_floats(window: &Window<'_>, remarks: &mut Remarks<'_, '_>, f: impl FnOnce(&[f64]) -> f64) -> Outcome {
    if window.floats.is_empty() {
        return Ok(None);
    }
    if !window.histograms.is_empty() {
        remarks.ignored();
    }
    float(f(window.floats))
}

/// For functions that work on floats or on histograms, but not on both at once.
fn of_either(
    window: &Window<'_>,
    remarks: &mut Remarks<'_, '_>,
    mean: bool,
    f: impl FnOnce(&[f64]) -> f64,
) -> Outcome {
    match (window.floats.is_empty(), window.histograms.is_empty()) {
        (false, true) => float(f(window.floats)),
        (false, false) => {
            remarks.mixed();
            Ok(None)
        }
        (true, false) => Ok(histogram_sum(window, mean, remarks)),
        (true, true) => Ok(None),
    }
}

/// The sum of the histograms of a window, or their mean; none if they do not go together.
fn histogram_sum(window: &Window<'_>, mean: bool, remarks: &Remarks<'_, '_>) -> Option<Value> {
    let mut sum = HistogramSum::default();
    window.histograms.iter().for_each(|h| sum.add(h));
    match sum.finish(mean) {
        Ok(combined) => {
            remarks.combined(combined.hints_clash, combined.bounds_reconciled, "aggregation");
            Some(Value::Histogram(Arc::new(combined.histogram)))
        }
        Err(Incompatible) => {
            remarks.mixed_schemas();
            None
        }
    }
}

/// `avg_over_time(m)`
pub(super) fn avg(window: &Window<'_>, remarks: &mut Remarks<'_, '_>) -> Outcome {
    of_either(window, remarks, true, |floats| {
        let mut mean = Mean::EMPTY;
        floats.iter().for_each(|v| mean.add(*v));
        mean.mean()
    })
}

/// `sum_over_time(m)`
pub(super) fn sum(window: &Window<'_>, remarks: &mut Remarks<'_, '_>) -> Outcome {
    of_either(window, remarks, false, |floats| {
        let mut sum = Sum::ZERO;
        floats.iter().for_each(|v| sum.add(*v));
        if sum.sum.is_infinite() { sum.sum } else { sum.total() }
    })
}

/// Sums of windows as differences of running sums.
///
/// That gives what upstream's compensated sums give only while no sum is ever rounded: for whole
/// numbers whose sums stay below 2^53. Most counters and many gauges are such.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sums {
    /// Whether to divide by how many there are.
    pub(crate) mean: bool,
}

/// 2^53: up to here every whole number is a float.
const EXACT: f64 = 9_007_199_254_740_992.0;

impl Sums {
    /// Fills `out` and `seen` with the windows that are not empty. False, and nothing done, if the
    /// sums would not be exact. `prefix` is scratch space.
    pub(crate) fn fill(
        self,
        floats: &[f64],
        borders: &Borders,
        prefix: &mut Vec<f64>,
        out: &mut [f64],
        seen: &mut Bits,
    ) -> bool {
        prefix.clear();
        prefix.push(0.0);
        let (mut sum, mut size) = (0.0, 0.0);
        for chunk in floats.chunks(64) {
            let mut whole = true;
            for v in chunk {
                // False for NaN and the infinities too.
                whole &= (*v as i64) as f64 == *v;
                sum += v;
                size += v.abs();
                prefix.push(sum);
            }
            if !whole || size >= EXACT {
                return false;
            }
        }
        for (step, (lo, hi)) in borders.lo.iter().zip(&borders.hi).enumerate().filter(|(_, (lo, hi))| lo < hi)
        {
            let sum = prefix[*hi as usize] - prefix[*lo as usize];
            out[step] = if self.mean { sum / f64::from(hi - lo) } else { sum };
            seen.set(step);
        }
        true
    }
}

/// The index of the float that `better(candidate, best)` prefers. A NaN is never preferred, and
/// replaced by anything.
fn best(floats: &[f64], better: impl Fn(f64, f64) -> bool) -> usize {
    let mut found = 0;
    for (i, v) in floats.iter().enumerate().skip(1) {
        if better(*v, floats[found]) || floats[found].is_nan() {
            found = i;
        }
    }
    found
}

/// `min_over_time(m)`
pub(super) fn min(window: &Window<'_>, remarks: &mut Remarks<'_, '_>) -> Outcome {
    of_floats(window, remarks, |floats| floats[best(floats, |v, min| v < min)])
}

/// `max_over_time(m)`
pub(super) fn max(window: &Window<'_>, remarks: &mut Remarks<'_, '_>) -> Outcome {
    of_floats(window, remarks, |floats| floats[best(floats, |v, max| v > max)])
}

/// `ts_of_min_over_time(m)`: of equal ones, the last.
pub(super) fn ts_of_min(window: &Window<'_>, remarks: &mut Remarks<'_, '_>) -> Outcome {
    of_floats(window, remarks, |floats| seconds(window.times_ms[best(floats, |v, min| v <= min)]))
}

/// `ts_of_max_over_time(m)`: of equal ones, the last.
pub(super) fn ts_of_max(window: &Window<'_>, remarks: &mut Remarks<'_, '_>) -> Outcome {
    of_floats(window, remarks, |floats| seconds(window.times_ms[best(floats, |v, max| v >= max)]))
}

fn seconds(t_ms: i64) -> f64 {
    t_ms as f64 / 1000.0
}

/// `ts_of_first_over_time(m)`
pub(super) fn ts_of_first(window: &Window<'_>, _: &mut Remarks<'_, '_>) -> Outcome {
    let first = window.times_ms.first().into_iter().chain(window.histogram_times_ms.first()).min();
    Ok(first.map(|t_ms| Value::Float(seconds(*t_ms))))
}

/// `ts_of_last_over_time(m)`
pub(super) fn ts_of_last(window: &Window<'_>, _: &mut Remarks<'_, '_>) -> Outcome {
    let last = window.times_ms.last().into_iter().chain(window.histogram_times_ms.last()).max();
    Ok(last.map(|t_ms| Value::Float(seconds(*t_ms))))
}

/// `first_over_time(m)`
pub(super) fn first(window: &Window<'_>, _: &mut Remarks<'_, '_>) -> Outcome {
    Ok(match (window.times_ms.first(), window.histogram_times_ms.first()) {
        (Some(float_ms), Some(histogram_ms)) if histogram_ms <= float_ms => histogram_at(window, 0),
        (Some(_), _) => Some(Value::Float(window.floats[0])),
        (None, Some(_)) => histogram_at(window, 0),
        (None, None) => None,
    })
}

/// `last_over_time(m)`
pub(super) fn last(window: &Window<'_>, _: &mut Remarks<'_, '_>) -> Outcome {
    let newest = window.histograms.len().wrapping_sub(1);
    Ok(match (window.times_ms.last(), window.histogram_times_ms.last()) {
        (Some(float_ms), Some(histogram_ms)) if histogram_ms >= float_ms => histogram_at(window, newest),
        (Some(_), _) => window.floats.last().map(|v| Value::Float(*v)),
        (None, Some(_)) => histogram_at(window, newest),
        (None, None) => None,
    })
}

fn histogram_at(window: &Window<'_>, index: usize) -> Option<Value> {
    window.histograms.get(index).map(|h| Value::Histogram(h.clone()))
}

/// `count_over_time(m)`
pub(super) fn count(window: &Window<'_>, _: &mut Remarks<'_, '_>) -> Outcome {
    float((window.floats.len() + window.histograms.len()) as f64)
}

/// `present_over_time(m)`
pub(super) fn present(_: &Window<'_>, _: &mut Remarks<'_, '_>) -> Outcome {
    float(1.0)
}

/// `stddev_over_time(m)`
pub(super) fn stddev(window: &Window<'_>, remarks: &mut Remarks<'_, '_>) -> Outcome {
    of_floats(window, remarks, |floats| variance(floats).sqrt())
}

/// `stdvar_over_time(m)`
pub(super) fn stdvar(window: &Window<'_>, remarks: &mut Remarks<'_, '_>) -> Outcome {
    of_floats(window, remarks, variance)
}

/// Welford's method with compensated sums, as upstream.
fn variance(floats: &[f64]) -> f64 {
    let (mut count, mut mean, mut aux) = (0.0, Sum::ZERO, Sum::ZERO);
    for &v in floats {
        count += 1.0;
        let delta = v - mean.total();
        (mean.sum, mean.compensation) = kahan::add(delta / count, mean.sum, mean.compensation);
        (aux.sum, aux.compensation) = kahan::add(delta * (v - mean.total()), aux.sum, aux.compensation);
    }
    aux.total() / count
}

/// `quantile_over_time(q, m)`
pub(super) fn quantile(window: &Window<'_>, remarks: &mut Remarks<'_, '_>) -> Outcome {
    let q = window.args[0];
    if !window.floats.is_empty() && !(0.0..=1.0).contains(&q) {
        remarks.quantile(q);
    }
    of_floats(window, remarks, |floats| quantile_of(q, &mut floats.to_vec()))
}

/// `mad_over_time(m)`: the median of the distances from the median; NaN if there is a NaN.
pub(super) fn mad(window: &Window<'_>, remarks: &mut Remarks<'_, '_>) -> Outcome {
    of_floats(window, remarks, |floats| {
        // Sorting would put a NaN at the edge, where the median does not see it.
        if floats.iter().any(|v| v.is_nan()) {
            return f64::NAN;
        }
        let mut values = floats.to_vec();
        let median = quantile_of(0.5, &mut values);
        values.iter_mut().for_each(|v| *v = (*v - median).abs());
        quantile_of(0.5, &mut values)
    })
}

/// The order of floats in PromQL: NaN is the smallest.
pub(crate) fn nan_first(a: &f64, b: &f64) -> Ordering {
    a.partial_cmp(b).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()))
}

/// The quantile `q` of `values`, interpolated; `values` are sorted on the way.
pub(crate) fn quantile_of(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    values.sort_unstable_by(nan_first);
    let last = values.len() - 1;
    let rank = q * last as f64;
    let lower = rank.floor() as usize;
    let upper = (lower + 1).min(last);
    let weight = rank - rank.floor();
    values[lower] * (1.0 - weight) + values[upper] * weight
}

/// `changes(m)`
pub(super) fn changes(window: &Window<'_>, _: &mut Remarks<'_, '_>) -> Outcome {
    if window.histograms.is_empty() {
        let changed = |pair: &&[f64]| pair[0] != pair[1] && !(pair[0].is_nan() && pair[1].is_nan());
        return float(window.floats.windows(2).filter(changed).count() as f64);
    }
    count_pairs(window, |before, after| match (&before.value, &after.value) {
        (Value::Float(a), Value::Float(b)) => a != b && !(a.is_nan() && b.is_nan()),
        (Value::Histogram(a), Value::Histogram(b)) => !histogram::equal(a, b),
        _ => true,
    })
}

/// `resets(m)`
pub(super) fn resets(window: &Window<'_>, _: &mut Remarks<'_, '_>) -> Outcome {
    if window.histograms.is_empty() && window.starts_ms.is_empty() {
        return float(window.floats.windows(2).filter(|pair| pair[1] < pair[0]).count() as f64);
    }
    count_pairs(window, |before, after| {
        began_again((before.start_ms, before.t_ms), (after.start_ms, after.t_ms))
            || match (&before.value, &after.value) {
                (Value::Float(a), Value::Float(b)) => b < a,
                (Value::Histogram(a), Value::Histogram(b)) => histogram::is_reset(b, a),
                _ => true,
            }
    })
}

/// One sample of a window.
struct Point {
    t_ms: i64,
    /// Since when it counts; 0 if that is unknown.
    start_ms: i64,
    value: Value,
}

/// Counts the pairs of neighbours, floats and histograms in order of time, for which `f` is true.
fn count_pairs(window: &Window<'_>, f: impl Fn(&Point, &Point) -> bool) -> Outcome {
    let (mut at_float, mut at_histogram) = (0, 0);
    let mut count = 0;
    let mut before: Option<Point> = None;
    loop {
        let float_ms = window.times_ms.get(at_float).copied();
        let histogram_ms = window.histogram_times_ms.get(at_histogram).copied();
        let point = match (float_ms, histogram_ms) {
            (None, None) => return float(f64::from(count)),
            (Some(t_ms), other) if other.is_none_or(|other| t_ms <= other) => {
                let start_ms = window.starts_ms.get(at_float).copied().unwrap_or(0);
                at_float += 1;
                Point { t_ms, start_ms, value: Value::Float(window.floats[at_float - 1]) }
            }
            (_, t_ms) => {
                let start_ms = window.histogram_starts_ms.get(at_histogram).copied().unwrap_or(0);
                let value = Value::Histogram(window.histograms[at_histogram].clone());
                at_histogram += 1;
                Point { t_ms: t_ms.unwrap_or_default(), start_ms, value }
            }
        };
        if let Some(before) = &before
            && f(before, &point)
        {
            count += 1;
        }
        before = Some(point);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_interpolated_and_nan_is_smallest() {
        assert_eq!(quantile_of(0.75, &mut [1.0, f64::NAN, 0.0]), 0.5);
        assert!(quantile_of(0.2, &mut [1.0, f64::NAN, 0.0]).is_nan());
        assert_eq!(quantile_of(1.0, &mut [3.0, 1.0]), 3.0);
        assert_eq!(quantile_of(-0.1, &mut [3.0]), f64::NEG_INFINITY);
        assert!(quantile_of(0.5, &mut []).is_nan());
    }

    #[test]
    fn running_sums_are_used_for_whole_numbers_only() {
        let borders = Borders { lo: vec![0, 1, 3], hi: vec![2, 4, 3] };
        let mut out = [0.0; 3];
        let mut fill = |floats: &[f64]| {
            let mut seen = Bits::none(3);
            let filled = Sums { mean: false }.fill(floats, &borders, &mut Vec::new(), &mut out, &mut seen);
            (filled, [0, 1, 2].map(|i| seen.get(i)))
        };
        assert_eq!(fill(&[1.0, -2.0, 3.0, 4.0]), (true, [true, true, false]));
        for bad in [0.5, f64::NAN, f64::INFINITY, 1e16] {
            assert!(!fill(&[1.0, bad, 3.0, 4.0]).0, "{bad}");
        }
        assert_eq!(out[..2], [-1.0, 5.0]);
    }

    #[test]
    fn a_nan_is_minimum_only_among_nans() {
        let nan = f64::NAN;
        assert_eq!(best(&[nan, 2.0, 0.0], |v, min| v < min), 2);
        assert_eq!(best(&[2.0, nan, 1.0], |v, min| v < min), 2);
        assert_eq!(best(&[1.0, 2.0, 2.0], |v, max| v >= max), 2);
    }
}
