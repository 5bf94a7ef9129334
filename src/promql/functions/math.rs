//! Arithmetic on every value by itself: rounding, logarithms, trigonometry, clamping, and the
//! numbers `pi`, `min_of` and `max_of`.

use super::super::eval::{EvalError, Operand, Site};
use super::super::merge;
use std::f64::consts::PI;

type Outcome = Result<Operand, EvalError>;

/// -1, 1, or the value itself where it is zero or NaN.
pub(super) fn sgn(v: f64) -> f64 {
    if v < 0.0 {
        -1.0
    } else if v > 0.0 {
        1.0
    } else {
        v
    }
}

/// Radians to degrees, in Prometheus' order of operations.
pub(super) fn deg(v: f64) -> f64 {
    v * 180.0 / PI
}

/// Degrees to radians, in Prometheus' order of operations.
pub(super) fn rad(v: f64) -> f64 {
    v * PI / 180.0
}

/// The lesser of the two as Go's `math.Min` has it: NaN if one is, unless the other is -Inf.
fn min(a: f64, b: f64) -> f64 {
    if a == f64::NEG_INFINITY || b == f64::NEG_INFINITY {
        return f64::NEG_INFINITY;
    }
    if a.is_nan() || b.is_nan() {
        return f64::NAN;
    }
    if a == 0.0 && b == 0.0 {
        return if a.is_sign_negative() { a } else { b };
    }
    if a < b { a } else { b }
}

/// The greater of the two as Go's `math.Max` has it: NaN if one is, unless the other is +Inf.
fn max(a: f64, b: f64) -> f64 {
    -min(-a, -b)
}

/// `min_of(a, b)`
pub(super) fn min_of(_: i64, args: &[f64]) -> f64 {
    min(args[0], args[1])
}

/// `max_of(a, b)`
pub(super) fn max_of(_: i64, args: &[f64]) -> f64 {
    max(args[0], args[1])
}

/// `clamp(v, min, max)`; nothing where `min` is greater than `max`.
pub(super) fn clamp(site: &Site<'_, '_>, args: Vec<Operand>) -> Outcome {
    with_scalars(site, args, |v, scalars| {
        let &[low, high] = scalars else { return Some(v) };
        if high < low { None } else { Some(max(low, min(high, v))) }
    })
}

/// `clamp_max(v, max)`
pub(super) fn clamp_max(site: &Site<'_, '_>, args: Vec<Operand>) -> Outcome {
    with_scalars(site, args, |v, scalars| Some(scalars.iter().fold(v, |v, high| min(*high, v))))
}

/// `clamp_min(v, min)`
pub(super) fn clamp_min(site: &Site<'_, '_>, args: Vec<Operand>) -> Outcome {
    with_scalars(site, args, |v, scalars| Some(scalars.iter().fold(v, |v, low| max(*low, v))))
}

/// `round(v, to)`: to the nearest multiple of `to` (1 if not given), halves upwards.
pub(super) fn round(site: &Site<'_, '_>, args: Vec<Operand>) -> Outcome {
    with_scalars(site, args, |v, scalars| {
        // Multiplying by the inverse is what keeps 0.1 and its like from showing.
        let inverse = 1.0 / scalars.first().copied().unwrap_or(1.0);
        Some((v * inverse + 0.5).floor() / inverse)
    })
}

/// Replaces every float by what `f` makes of it and of the scalar arguments at its step; drops
/// histograms and the metric's name.
fn with_scalars(site: &Site<'_, '_>, args: Vec<Operand>, f: impl Fn(f64, &[f64]) -> Option<f64>) -> Outcome {
    let mut args = args.into_iter();
    let mut vector = args.next().map_or_else(Vec::new, Operand::vector);
    let scalars: Vec<Vec<f64>> = args.map(Operand::scalar).collect();
    let mut at_step = vec![0.0; scalars.len()];
    for series in &mut vector {
        series.row.filter_map(|i, v| {
            at_step.iter_mut().zip(&scalars).for_each(|(out, row)| *out = row[i]);
            f(v, &at_step)
        });
        series.drop_name = true;
    }
    vector.retain(|series| series.row.points() > 0);
    if site.evaluator.options.delayed_name_removal {
        return Ok(Operand::Vector(vector));
    }
    for series in &mut vector {
        series.labels = merge::without_name(&series.labels);
    }
    Ok(Operand::Vector(merge::merge(vector)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INF: f64 = f64::INFINITY;

    #[test]
    fn extremes_treat_nan_infinities_and_zeros_as_go_does() {
        assert_eq!(min(-INF, f64::NAN), -INF);
        assert_eq!(max(f64::NAN, INF), INF);
        assert!(min(INF, f64::NAN).is_nan());
        assert!(max(1.0, f64::NAN).is_nan());
        assert!(min(0.0, -0.0).is_sign_negative());
        assert!(max(-0.0, 0.0).is_sign_positive());
        assert_eq!((min(1.0, 2.0), max(1.0, 2.0)), (1.0, 2.0));
    }

    #[test]
    fn the_sign_of_zero_and_nan_is_the_value() {
        assert_eq!((sgn(-3.0), sgn(INF), sgn(0.0)), (-1.0, 1.0, 0.0));
        assert!(sgn(-0.0).is_sign_negative());
        assert!(sgn(f64::NAN).is_nan());
    }
}
