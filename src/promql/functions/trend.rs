//! Trends within a window: linear regression and double exponential smoothing.

use super::super::eval::EvalError;
use super::super::kahan::Sum;
use super::super::window::{Remarks, Window};
use larum_storage_format::Value;

type Outcome = Result<Option<Value>, EvalError>;

/// Runs `f` if there are at least two floats; histograms beside floats are ignored.
fn of_two(window: &Window<'_>, remarks: &mut Remarks<'_, '_>, f: impl FnOnce() -> f64) -> Outcome {
    if !window.floats.is_empty() && !window.histograms.is_empty() {
        remarks.ignored();
    }
    Ok((window.floats.len() >= 2).then(|| Value::Float(f())))
}

/// `deriv(m)`: the slope of the regression line, per second.
pub(super) fn deriv(window: &Window<'_>, remarks: &mut Remarks<'_, '_>) -> Outcome {
    of_two(window, remarks, || regression(window, window.times_ms[0]).0)
}

/// `predict_linear(m, seconds)`: where the regression line will be, seen from the step.
pub(super) fn predict_linear(window: &Window<'_>, remarks: &mut Remarks<'_, '_>) -> Outcome {
    of_two(window, remarks, || {
        let (slope, intercept) = regression(window, window.step_ms);
        slope * window.args[0] + intercept
    })
}

/// Slope and value at `zero_ms` of the line through the floats with the least squares, step for
/// step as in Prometheus.
fn regression(window: &Window<'_>, zero_ms: i64) -> (f64, f64) {
    let first = window.floats[0];
    if window.floats.iter().all(|v| *v == first) {
        return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
    }
    let (mut sum_x, mut sum_y, mut sum_xy, mut sum_x2) = (Sum::ZERO, Sum::ZERO, Sum::ZERO, Sum::ZERO);
    for (t_ms, &y) in window.times_ms.iter().zip(window.floats) {
        let x = (t_ms - zero_ms) as f64 / 1e3;
        sum_x.add(x);
        sum_y.add(y);
        sum_xy.add(x * y);
        sum_x2.add(x * x);
    }
    let n = window.floats.len() as f64;
    let (sum_x, sum_y) = (sum_x.total(), sum_y.total());
    let covariance = sum_xy.total() - sum_x * sum_y / n;
    let variance = sum_x2.total() - sum_x * sum_x / n;
    let slope = covariance / variance;
    (slope, sum_y / n - slope * sum_x / n)
}

/// `double_exponential_smoothing(m, smoothing, trend)`: what the last value would be without
/// noise, where both factors lie between 0 (old samples count) and 1 (only new ones do).
pub(super) fn double_exponential_smoothing(window: &Window<'_>, remarks: &mut Remarks<'_, '_>) -> Outcome {
    let (smoothing, trend) = (window.args[0], window.args[1]);
    for (name, factor) in [("smoothing", smoothing), ("trend", trend)] {
        if factor <= 0.0 || factor >= 1.0 {
            let name_initial = if name == "smoothing" { "sf" } else { "tf" };
            return Err(EvalError::Execution(format!(
                "invalid {name} factor. Expected: 0 < {name_initial} < 1, got: {factor:.6}"
            )));
        }
    }
    of_two(window, remarks, || {
        let floats = window.floats;
        let (mut before, mut smoothed) = (0.0, floats[0]);
        let mut slope = floats[1] - floats[0];
        for (i, &v) in floats.iter().enumerate().skip(1) {
            if i > 1 {
                slope = trend * (smoothed - before) + (1.0 - trend) * slope;
            }
            let next = smoothing * v + (1.0 - smoothing) * (smoothed + slope);
            (before, smoothed) = (smoothed, next);
        }
        smoothed
    })
}
