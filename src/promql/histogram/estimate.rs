//! What the buckets of a native histogram tell of its observations: quantiles, fractions, variance,
//! and the histogram of those on one side of a value.
//!
//! The rules are Prometheus' (`promql/quantile.go`): within exponential buckets observations are
//! taken to be spread evenly on a logarithmic scale, within custom buckets and the zero bucket on
//! a linear one. The zero bucket reaches to one side of zero only if there are buckets on one side
//! only, and the lowest custom bucket begins at zero if it ends above.

use super::super::kahan::Sum;
use super::{Buckets, is_custom, negative, positive, upper_bound, with_buckets};
use larum_storage_format::Histogram;

/// A bucket with its bounds.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Bucket {
    side: Side,
    index: i64,
    lower: f64,
    upper: f64,
    count: f64,
    scale: Scale,
}

/// Of which list of buckets a bucket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Negative,
    Zero,
    Positive,
}

/// How observations are spread within a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scale {
    Linear,
    Logarithmic,
    /// One bound is infinite, so that nothing is known.
    Unknown,
}

impl Bucket {
    fn new(side: Side, index: i64, (lower, upper): (f64, f64), count: f64, linear: bool) -> Bucket {
        let scale = match (lower.is_infinite() || upper.is_infinite(), linear) {
            (true, _) => Scale::Unknown,
            (false, true) => Scale::Linear,
            (false, false) => Scale::Logarithmic,
        };
        Bucket { side, index, lower, upper, count, scale }
    }

    /// Which part of the observations is taken to be below `v`, which lies within the bounds.
    fn part_below(&self, v: f64) -> f64 {
        match self.scale {
            Scale::Linear => (v - self.lower) / (self.upper - self.lower),
            Scale::Logarithmic => {
                let (lower, upper) = (self.lower.abs().log2(), self.upper.abs().log2());
                (v.abs().log2() - lower) / (upper - lower)
            }
            // Everything is at the finite bound.
            Scale::Unknown => f64::from(self.lower.is_infinite()),
        }
    }

    /// The value below which there is the part `part` of the observations.
    fn value_at(&self, part: f64) -> f64 {
        match self.scale {
            Scale::Linear => self.lower + (self.upper - self.lower) * part,
            Scale::Logarithmic => {
                let (lower, upper) = (self.lower.abs().log2(), self.upper.abs().log2());
                (lower + (upper - lower) * part).exp2().copysign(self.lower)
            }
            Scale::Unknown if self.lower.is_infinite() => self.upper,
            Scale::Unknown => self.lower,
        }
    }

    /// The value that stands for all observations between `lower` and `upper`.
    fn middle(&self, lower: f64, upper: f64) -> f64 {
        match self.scale {
            Scale::Linear => lower.midpoint(upper),
            Scale::Logarithmic => (lower * upper).sqrt().copysign(lower),
            Scale::Unknown if lower.is_infinite() && upper.is_infinite() => 0.0,
            Scale::Unknown if lower.is_infinite() => upper,
            Scale::Unknown => lower,
        }
    }
}

/// All buckets, the zero bucket among them, in ascending order.
fn buckets(h: &Histogram) -> Vec<Bucket> {
    let (negative, positive) = (negative(h), positive(h));
    let mut all = Vec::with_capacity(negative.len() + positive.len() + 1);
    if is_custom(h) {
        let bound = |index: i64| match usize::try_from(index) {
            Ok(index) => h.custom_values.get(index).copied().unwrap_or(f64::INFINITY),
            Err(_) => f64::NEG_INFINITY,
        };
        all.extend(positive.iter().map(|&(index, count)| {
            let (lower, upper) = (bound(index - 1), bound(index));
            let from_zero = lower == f64::NEG_INFINITY && upper > 0.0 && upper < f64::INFINITY;
            let lower = if from_zero { 0.0 } else { lower };
            Bucket::new(Side::Positive, index, (lower, upper), count, true)
        }));
        return all;
    }
    all.extend(negative.iter().rev().map(|&(index, count)| {
        let bounds = (-upper_bound(h.schema, index), -upper_bound(h.schema, index - 1));
        Bucket::new(Side::Negative, index, bounds, count, false)
    }));
    if h.zero_count != 0.0 {
        let lower = if negative.is_empty() && !positive.is_empty() { 0.0 } else { -h.zero_threshold };
        let upper = if positive.is_empty() && !negative.is_empty() { 0.0 } else { h.zero_threshold };
        all.push(Bucket::new(Side::Zero, 0, (lower, upper), h.zero_count, true));
    }
    all.extend(positive.iter().map(|&(index, count)| {
        let bounds = (upper_bound(h.schema, index - 1), upper_bound(h.schema, index));
        Bucket::new(Side::Positive, index, bounds, count, false)
    }));
    all
}

/// What observations of NaN, which no bucket counts, do to a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NanEffect {
    /// There are none.
    None,
    /// They count as if they were higher than all others.
    Skewed,
    /// They leave nothing to be said.
    Undefined,
}

/// Whether there are observations that no bucket counts.
fn has_nans(h: &Histogram, buckets: &[Bucket]) -> bool {
    h.sum.is_nan() && buckets.iter().map(|b| b.count).sum::<f64>() < h.count
}

/// The quantile `q`.
pub(crate) fn quantile(h: &Histogram, q: f64) -> (f64, NanEffect) {
    if q < 0.0 {
        return (f64::NEG_INFINITY, NanEffect::None);
    }
    if q > 1.0 {
        return (f64::INFINITY, NanEffect::None);
    }
    if h.count == 0.0 || q.is_nan() {
        return (f64::NAN, NanEffect::None);
    }
    let buckets = buckets(h);
    // Counting from the nearer end is more exact; but NaNs, if any, are at the far end.
    let forward = h.sum.is_nan() || q < 0.5;
    let mut rank = if forward { q * h.count } else { (1.0 - q) * h.count };
    let mut count = 0.0;
    let mut found: Option<Bucket> = None;
    let mut rest = buckets.iter();
    while let Some(bucket) = if forward { rest.next() } else { rest.next_back() } {
        if bucket.count != 0.0 {
            found = Some(*bucket);
            count += bucket.count;
            if count >= rank {
                break;
            }
        }
    }
    let Some(bucket) = found else {
        let effect = if h.sum.is_nan() { NanEffect::Undefined } else { NanEffect::None };
        return (f64::NAN, effect);
    };
    // Sums of floats may come out higher than what they add up to.
    count = count.min(h.count);
    if count < rank {
        if h.sum.is_nan() {
            return (f64::NAN, NanEffect::Undefined);
        }
        return (bucket.value_at(1.0), NanEffect::None);
    }
    rank = if forward { rank - (count - bucket.count) } else { count - rank };
    let effect = if has_nans(h, &buckets) { NanEffect::Skewed } else { NanEffect::None };
    (bucket.value_at(rank / bucket.count), effect)
}

/// The fraction of the observations between `lower` and `upper`, and whether there are NaNs, which
/// are in no such range.
pub(crate) fn fraction(h: &Histogram, lower: f64, upper: f64) -> (f64, bool) {
    if h.count == 0.0 || lower.is_nan() || upper.is_nan() {
        return (f64::NAN, false);
    }
    let buckets = buckets(h);
    let nans = has_nans(h, &buckets);
    if lower >= upper {
        return (0.0, nans);
    }
    let in_buckets: f64 = buckets.iter().map(|b| b.count).sum();
    let total = if nans { in_buckets } else { h.count };
    let rank_of = |v: f64| {
        let mut rank = 0.0;
        for bucket in &buckets {
            if v <= bucket.lower {
                return rank;
            }
            if v < bucket.upper {
                return total.min(rank + bucket.count * bucket.part_below(v));
            }
            rank += bucket.count;
        }
        total
    };
    ((rank_of(upper) - rank_of(lower)) / h.count, nans)
}

/// The variance, each observation taken to be in the middle of its bucket.
pub(crate) fn variance(h: &Histogram) -> f64 {
    let mean = h.sum / h.count;
    let mut squares = Sum::ZERO;
    for bucket in buckets(h).iter().filter(|b| b.count != 0.0) {
        let middle = if bucket.side == Side::Zero { 0.0 } else { bucket.middle(bucket.lower, bucket.upper) };
        let delta = middle - mean;
        squares.add(bucket.count * delta * delta);
    }
    squares.total() / h.count
}

/// The histogram of the observations below `cut` if `below`, else of those above. Its sum is
/// estimated from the buckets, unless nothing is cut off.
pub(crate) fn trimmed(h: &Histogram, cut: f64, below: bool) -> Histogram {
    let mut kept: (Buckets, Buckets) = Default::default();
    let (mut zero_count, mut count, mut sum) = (0.0, 0.0, Sum::ZERO);
    let mut changed = false;
    for bucket in buckets(h).into_iter().filter(|b| b.count != 0.0) {
        let (part, lower, upper) = kept_part(&bucket, is_custom(h), cut, below);
        changed |= part != 1.0;
        let rest = bucket.count * part;
        if rest == 0.0 {
            continue;
        }
        // Moving the border of a bucket without end changes the estimate too.
        changed |= bucket.scale == Scale::Unknown && (lower, upper) != (bucket.lower, bucket.upper);
        count += rest;
        sum.add(rest * bucket.middle(lower, upper));
        match bucket.side {
            Side::Negative => kept.0.push((bucket.index, rest)),
            Side::Zero => zero_count = rest,
            Side::Positive => kept.1.push((bucket.index, rest)),
        }
    }
    if !changed {
        return super::compacted(h);
    }
    kept.0.reverse();
    let trimmed = with_buckets(h, kept.1, kept.0);
    Histogram { is_integer: false, zero_count, count, sum: sum.total(), ..trimmed }
}

/// Which part of a bucket is left when it is cut, and between which bounds.
fn kept_part(bucket: &Bucket, custom: bool, cut: f64, below: bool) -> (f64, f64, f64) {
    let Bucket { lower, upper, .. } = *bucket;
    let nothing = (0.0, lower, upper);
    let everything = (1.0, lower, upper);
    if below {
        if upper <= cut {
            everything
        } else if cut <= lower || cut.is_nan() || upper == f64::INFINITY {
            nothing
        } else {
            (bucket.part_below(cut), lower, cut)
        }
    } else if custom && bucket.index == 0 && cut < 0.0 && cut > f64::NEG_INFINITY && lower <= 0.0 {
        // Upstream lets go of the lowest bucket, wherever it ends, as soon as the cut is below zero.
        if lower.is_infinite() || cut < lower { nothing } else { (1.0, cut, upper) }
    } else if cut <= lower {
        everything
    } else if upper <= cut || cut.is_nan() || lower == f64::NEG_INFINITY {
        nothing
    } else {
        (1.0 - bucket.part_below(cut), cut, upper)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promql::histogram_text::HistogramText;

    fn histogram(text: &str) -> Histogram {
        HistogramText::parse(text).unwrap().histogram
    }

    #[test]
    fn a_quantile_is_the_inverse_of_a_fraction() {
        let h =
            histogram("schema:1 count:12 sum:5 z_bucket:2 z_bucket_w:0.1 buckets:[1 2 3] n_buckets:[2 2]");
        for q in [0.1, 0.3, 0.5, 0.7, 0.9] {
            let (value, _) = quantile(&h, q);
            let (back, _) = fraction(&h, f64::NEG_INFINITY, value);
            assert!((back - q).abs() < 1e-12, "{q}: {value}, {back}");
        }
    }

    #[test]
    fn what_is_trimmed_from_both_sides_adds_up() {
        let h = histogram("schema:1 count:10 sum:5 z_bucket:2 z_bucket_w:0.1 buckets:[1 2 3] n_buckets:[2]");
        for cut in [-0.9, -0.05, 0.0, 0.07, 0.9, 1.2, 2.0, 9.0] {
            let (below, above) = (trimmed(&h, cut, true), trimmed(&h, cut, false));
            assert!((below.count + above.count - h.count).abs() < 1e-12, "{cut}");
        }
    }
}
