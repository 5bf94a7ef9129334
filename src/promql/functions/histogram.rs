//! Figures of native histograms, and quantiles and fractions of classic ones: buckets that are series, told apart by `le`.
//!
//! The rules are Prometheus' (`promql/quantile.go`): linear interpolation within a bucket, from 0
//! in the lowest one; no answer without a bucket `+Inf`; counts that fall are lifted.

use super::super::ast::Pos;
use super::super::eval::{EvalError, Operand, Site};
use super::super::histogram::estimate::{self, NanEffect};
use super::super::matching::Grouper;
use super::super::merge;
use super::super::number::parse_go_float;
use super::super::row::{Bits, Presence, Row, SeriesRow, Vector};
use super::super::window::{Quoted, bad_quantile, short};
use larum_storage_format::labels::METRIC_NAME;
use larum_storage_format::{Histogram, Labels};
use std::collections::HashMap;

/// The label that holds a bucket's upper bound.
const BUCKET: &str = "le";

/// A bucket at one step.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Bucket {
    upper_bound: f64,
    /// How many observations are below the bound.
    count: f64,
}

/// `histogram_count(v)`
pub(super) fn count(site: &Site<'_, '_>, args: Vec<Operand>) -> Result<Operand, EvalError> {
    of_native(site, args, |h| h.count)
}

/// `histogram_sum(v)`
pub(super) fn sum(site: &Site<'_, '_>, args: Vec<Operand>) -> Result<Operand, EvalError> {
    of_native(site, args, |h| h.sum)
}

/// `histogram_avg(v)`
pub(super) fn avg(site: &Site<'_, '_>, args: Vec<Operand>) -> Result<Operand, EvalError> {
    of_native(site, args, |h| h.sum / h.count)
}

/// Replaces native histograms by `f` of them; floats go.
fn of_native(
    site: &Site<'_, '_>,
    args: Vec<Operand>,
    f: fn(&Histogram) -> f64,
) -> Result<Operand, EvalError> {
    let count = site.steps.count();
    let eager = !site.evaluator.options.delayed_name_removal;
    let mut out = Vector::new();
    for series in args.into_iter().flat_map(Operand::vector) {
        let mut bits = Bits::none(count);
        let mut floats = vec![0.0; count];
        for (step, histogram) in &series.row.histograms {
            floats[*step as usize] = f(histogram);
            bits.set(*step as usize);
        }
        let row = Row { floats, present: Presence::from_bits(&bits, count), histograms: Vec::new() };
        if row.points() > 0 {
            let labels = if eager { merge::without_name(&series.labels) } else { series.labels };
            out.push(SeriesRow { labels, drop_name: true, row });
        }
    }
    Ok(Operand::Vector(if eager { merge::merge(out)? } else { out }))
}

/// `histogram_stddev(v)`
pub(super) fn stddev(site: &Site<'_, '_>, args: Vec<Operand>) -> Result<Operand, EvalError> {
    of_native(site, args, |h| estimate::variance(h).sqrt())
}

/// `histogram_stdvar(v)`
pub(super) fn stdvar(site: &Site<'_, '_>, args: Vec<Operand>) -> Result<Operand, EvalError> {
    of_native(site, args, estimate::variance)
}

/// `histogram_quantile(q, v)`
pub(super) fn quantile(site: &Site<'_, '_>, args: Vec<Operand>) -> Result<Operand, EvalError> {
    let mut args = args.into_iter();
    let quantiles = args.next().map(Operand::scalar).unwrap_or_default();
    let vector = args.next().map(Operand::vector).unwrap_or_default();
    let histograms = Histograms::new(site, vector, site.args[1].pos);
    check_quantiles(site, &quantiles, 0);
    Ok(Operand::Vector(histograms.named(histograms.quantiles(&quantiles)?)?))
}

/// `histogram_quantiles(v, label, q, ...)`
pub(super) fn quantiles(site: &Site<'_, '_>, args: Vec<Operand>) -> Result<Operand, EvalError> {
    let mut args = args.into_iter();
    let vector = args.next().map(Operand::vector).unwrap_or_default();
    let label = args.next().map(Operand::text).unwrap_or_default();
    let histograms = Histograms::new(site, vector, site.args[0].pos);
    let mut out = merge::Merger::default();
    for (i, quantiles) in args.map(Operand::scalar).enumerate() {
        check_quantiles(site, &quantiles, i + 2);
        let rows = histograms.quantiles(&quantiles)?;
        // A quantile may change from step to step, and with it the label.
        let mut distinct: Vec<f64> = Vec::new();
        for q in &quantiles {
            if !distinct.iter().any(|known| known.to_bits() == q.to_bits()) {
                distinct.push(*q);
            }
        }
        for q in distinct {
            let text = open_metrics_float(q);
            for series in histograms.named(rows.clone())? {
                let row = series.row.keep(|step| quantiles[step].to_bits() == q.to_bits());
                if row.points() > 0 {
                    let mut builder = series.labels.to_builder();
                    builder.set(&label, &text);
                    out.add(SeriesRow { labels: builder.build(), row, ..series })?;
                }
            }
        }
    }
    Ok(Operand::Vector(out.finish()))
}

/// A float as label values have it in OpenMetrics: whole numbers with `.0`.
fn open_metrics_float(value: f64) -> String {
    let mut text = short(value);
    if value.is_finite() && !text.contains(['.', 'e']) {
        text.push_str(".0");
    }
    text
}

/// Warns of quantiles that are none.
fn check_quantiles(site: &Site<'_, '_>, quantiles: &[f64], arg: usize) {
    for q in quantiles {
        if !(0.0..=1.0).contains(q) {
            site.evaluator.warn(bad_quantile(*q), site.args[arg].pos);
        }
    }
}

/// `histogram_fraction(lower, upper, v)`
pub(super) fn fraction(site: &Site<'_, '_>, args: Vec<Operand>) -> Result<Operand, EvalError> {
    let mut args = args.into_iter();
    let lower = args.next().map(Operand::scalar).unwrap_or_default();
    let upper = args.next().map(Operand::scalar).unwrap_or_default();
    let vector = args.next().map(Operand::vector).unwrap_or_default();
    let histograms = Histograms::new(site, vector, site.args[2].pos);
    let out = histograms.each(
        |_, step, buckets| bucket_fraction(lower[step], upper[step], buckets),
        |labels, step, h| {
            let (fraction, nans) = estimate::fraction(h, lower[step], upper[step]);
            if nans {
                histograms.nan_info(labels, "histogram_fraction", "which are excluded from all fractions");
            }
            fraction
        },
    )?;
    Ok(Operand::Vector(histograms.named(out)?))
}

/// The histograms of a vector, classic and native.
struct Histograms<'s, 'e, 'a> {
    site: &'s Site<'e, 'a>,
    /// Where the vector stands.
    pos: Pos,
    /// By group: the classic buckets with their bounds, ascending.
    classic: Vec<Vec<(f64, SeriesRow)>>,
    /// The labels of the groups, without `le`.
    labels: Vec<Labels>,
    /// Series with native histograms, and the group to which they would belong.
    native: Vec<(usize, SeriesRow)>,
}

impl<'s, 'e, 'a> Histograms<'s, 'e, 'a> {
    fn new(site: &'s Site<'e, 'a>, vector: Vector, pos: Pos) -> Histograms<'s, 'e, 'a> {
        let mut grouper = Grouper::except(BUCKET);
        let mut classic: Vec<Vec<(f64, SeriesRow)>> = Vec::new();
        let mut native = Vec::new();
        let count = site.steps.count();
        for mut series in vector {
            let group = grouper.group(&series.labels, false);
            classic.resize_with(classic.len().max(group + 1), Vec::new);
            let floats = series.row.present.count(count);
            if !series.row.histograms.is_empty() {
                let histograms = std::mem::take(&mut series.row.histograms);
                let row = Row { histograms, ..Row::absent(count) };
                native.push((group, SeriesRow { row, ..series.clone() }));
            }
            if floats == 0 {
                continue;
            }
            let bound = series.labels.get(BUCKET).unwrap_or("");
            match parse_go_float(bound) {
                Ok(upper_bound) => classic[group].push((upper_bound, series)),
                Err(_) => {
                    let text = "bucket label \"le\" is missing or has a malformed value of";
                    let text = format!("{text} {}", Quoted(bound));
                    site.evaluator.warn(text + &of_metric(site, &series.labels), pos);
                }
            }
        }
        // Sorted once, not at every step; buckets with equal bounds keep their order.
        classic.iter_mut().for_each(|series| series.sort_by(|a, b| a.0.total_cmp(&b.0)));
        Histograms { site, pos, classic, labels: grouper.labels, native }
    }

    /// Makes a float of each histogram at each step; the names are still on.
    fn each(
        &self,
        mut classic: impl FnMut(&Labels, usize, &mut Vec<Bucket>) -> f64,
        mut native: impl FnMut(&Labels, usize, &Histogram) -> f64,
    ) -> Result<Vector, EvalError> {
        let evaluator = self.site.evaluator;
        let count = self.site.steps.count();
        let mut out = Vector::new();
        // The steps at which a group has native histograms.
        let mut natives: HashMap<usize, Bits> = HashMap::new();
        for (group, series) in &self.native {
            evaluator.alive()?;
            evaluator.budget.hold(count as u64)?;
            let (mut bits, mut floats) = (Bits::none(count), vec![0.0; count]);
            let seen = natives.entry(*group).or_insert_with(|| Bits::none(count));
            seen.add_row(&series.row);
            for (step, histogram) in &series.row.histograms {
                let step = *step as usize;
                if self.classic[*group].iter().any(|(_, bucket)| bucket.row.float(step).is_some()) {
                    let text = "vector contains a mix of classic and native histograms";
                    evaluator.warn(text.to_owned() + &of_metric(self.site, &series.labels), self.pos);
                    continue;
                }
                floats[step] = native(&series.labels, step, histogram);
                bits.set(step);
            }
            let row = Row { floats, present: Presence::from_bits(&bits, count), histograms: Vec::new() };
            if row.points() > 0 {
                out.push(SeriesRow { labels: series.labels.clone(), drop_name: true, row });
            }
        }
        let mut buckets = Vec::new();
        for (group, series) in self.classic.iter().enumerate().filter(|(_, series)| !series.is_empty()) {
            evaluator.alive()?;
            evaluator.budget.hold(count as u64)?;
            let labels = &self.labels[group];
            let (mut bits, mut floats) = (Bits::none(count), vec![0.0; count]);
            let native = natives.get(&group);
            for (step, out) in floats.iter_mut().enumerate() {
                if native.is_some_and(|native| native.get(step)) {
                    continue;
                }
                buckets.clear();
                buckets.extend(series.iter().filter_map(|(upper_bound, series)| {
                    Some(Bucket { upper_bound: *upper_bound, count: series.row.float(step)? })
                }));
                if !buckets.is_empty() {
                    *out = classic(labels, step, &mut buckets);
                    bits.set(step);
                }
            }
            let row = Row { floats, present: Presence::from_bits(&bits, count), histograms: Vec::new() };
            if row.points() > 0 {
                out.push(SeriesRow { labels: labels.clone(), drop_name: true, row });
            }
        }
        Ok(out)
    }

    /// A quantile of each histogram, which may differ from step to step.
    fn quantiles(&self, quantiles: &[f64]) -> Result<Vector, EvalError> {
        let mut lifts = Lifts::default();
        let out = self.each(
            |labels, step, buckets| {
                let (value, lifted) = bucket_quantile(quantiles[step], buckets);
                if let Some(lifted) = lifted {
                    lifts.add(labels, self.site.steps.at(step), lifted);
                }
                value
            },
            |labels, step, h| {
                let (value, nans) = estimate::quantile(h, quantiles[step]);
                match nans {
                    NanEffect::None => {}
                    NanEffect::Skewed => {
                        self.nan_info(labels, "histogram_quantile", "result is skewed higher");
                    }
                    NanEffect::Undefined => self.nan_info(labels, "histogram_quantile", "result is NaN"),
                }
                value
            },
        )?;
        let evaluator = self.site.evaluator;
        for lift in lifts.0 {
            evaluator.info(lift.text(!evaluator.options.delayed_name_removal), self.pos);
        }
        Ok(out)
    }

    fn nan_info(&self, labels: &Labels, function: &str, effect: &str) {
        let metric = of_metric(self.site, labels);
        let text = format!("input to {function} has NaN observations, {effect}{metric}");
        self.site.evaluator.info(text, self.pos);
    }

    /// The series without their names, if these go at once.
    fn named(&self, vector: Vector) -> Result<Vector, EvalError> {
        if self.site.evaluator.options.delayed_name_removal {
            return Ok(vector);
        }
        let nameless = |s: SeriesRow| SeriesRow { labels: merge::without_name(&s.labels), ..s };
        merge::merge(vector.into_iter().map(nameless).collect())
    }
}

/// How an annotation ends that tells of a metric: not at all if names are dropped at once, as
/// upstream does.
fn of_metric(site: &Site<'_, '_>, labels: &Labels) -> String {
    match labels.metric_name() {
        Some(name) if site.evaluator.options.delayed_name_removal => {
            format!(" for metric name {}", Quoted(name))
        }
        _ => String::new(),
    }
}

/// What was done to counts that fell with rising bounds.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Lifted {
    lowest_bound: f64,
    highest_bound: f64,
    most: f64,
}

/// The quantile `q` of a histogram, and what had to be lifted for it.
fn bucket_quantile(q: f64, buckets: &mut Vec<Bucket>) -> (f64, Option<Lifted>) {
    if q.is_nan() {
        return (f64::NAN, None);
    }
    if q < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if q > 1.0 {
        return (f64::INFINITY, None);
    }
    if buckets.last().is_none_or(|last| last.upper_bound != f64::INFINITY) {
        return (f64::NAN, None);
    }
    coalesce(buckets);
    let lifted = make_monotonic(buckets);
    let last = buckets.len() - 1;
    let observations = buckets[last].count;
    if last == 0 || observations == 0.0 || observations.is_nan() {
        return (f64::NAN, None);
    }
    let rank = q * observations;
    let found = buckets[..last].partition_point(|b| b.count < rank);
    let value = if found == last {
        // Above the highest finite bound there is nothing to interpolate to.
        buckets[last - 1].upper_bound
    } else if found == 0 && buckets[0].upper_bound <= 0.0 {
        buckets[0].upper_bound
    } else {
        let below = match found {
            0 => Bucket { upper_bound: 0.0, count: 0.0 },
            _ => buckets[found - 1],
        };
        let Bucket { upper_bound, count } = buckets[found];
        below.upper_bound + (upper_bound - below.upper_bound) * ((rank - below.count) / (count - below.count))
    };
    (value, lifted)
}

/// The fraction of the observations between `lower` and `upper`.
fn bucket_fraction(lower: f64, upper: f64, buckets: &mut Vec<Bucket>) -> f64 {
    if buckets.last().is_none_or(|last| last.upper_bound != f64::INFINITY) {
        return f64::NAN;
    }
    coalesce(buckets);
    let total = buckets[buckets.len() - 1].count;
    if total == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    (rank_of(upper, buckets).min(total) - rank_of(lower, buckets).min(total)) / total
}

/// How many observations are below `value`, interpolated.
fn rank_of(value: f64, buckets: &[Bucket]) -> f64 {
    let mut below = Bucket { upper_bound: f64::NEG_INFINITY, count: 0.0 };
    if buckets[0].upper_bound > 0.0 {
        below.upper_bound = 0.0;
    }
    for bucket in buckets {
        if below.upper_bound >= value {
            return below.count;
        }
        if bucket.upper_bound > value {
            if below.upper_bound == f64::NEG_INFINITY {
                // Nothing is known of where in it the observations are.
                return bucket.count;
            }
            let share = (value - below.upper_bound) / (bucket.upper_bound - below.upper_bound);
            return below.count + (bucket.count - below.count) * share;
        }
        below = *bucket;
    }
    f64::INFINITY
}

/// Adds up buckets with the same bound; the buckets are sorted.
fn coalesce(buckets: &mut Vec<Bucket>) {
    buckets.dedup_by(|bucket, kept| {
        let same = bucket.upper_bound == kept.upper_bound;
        if same {
            kept.count += bucket.count;
        }
        same
    });
}

/// Lifts counts that are below that of the bucket before; differences that are rounding errors are
/// levelled without being spoken of.
fn make_monotonic(buckets: &mut [Bucket]) -> Option<Lifted> {
    let mut lifted: Option<Lifted> = None;
    let mut before = buckets[0].count;
    for bucket in &mut buckets[1..] {
        if bucket.count == before {
            continue;
        }
        if nearly_equal(before, bucket.count) {
            bucket.count = before;
        } else if bucket.count < before {
            let (bound, by) = (bucket.upper_bound, before - bucket.count);
            let lift = lifted.get_or_insert(Lifted { lowest_bound: bound, highest_bound: bound, most: by });
            lift.highest_bound = bound;
            lift.most = lift.most.max(by);
            bucket.count = before;
        } else {
            before = bucket.count;
        }
    }
    lifted
}

/// Whether two counts differ by less than 10^-12 of their sum.
fn nearly_equal(a: f64, b: f64) -> bool {
    let (sum, difference) = (a.abs() + b.abs(), (a - b).abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < 1e-12 * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < 1e-12
}

/// The lifts of all steps, put together by metric.
#[derive(Default)]
struct Lifts(Vec<Lift>);

struct Lift {
    name: String,
    lifted: Lifted,
    first_ms: i64,
    last_ms: i64,
    samples: usize,
}

impl Lifts {
    fn add(&mut self, labels: &Labels, t_ms: i64, lifted: Lifted) {
        let name = labels.get(METRIC_NAME).unwrap_or("");
        if let Some(lift) = self.0.iter_mut().find(|lift| lift.name == name) {
            let all = &mut lift.lifted;
            all.lowest_bound = all.lowest_bound.min(lifted.lowest_bound);
            all.highest_bound = all.highest_bound.max(lifted.highest_bound);
            all.most = all.most.max(lifted.most);
            (lift.first_ms, lift.last_ms) = (lift.first_ms.min(t_ms), lift.last_ms.max(t_ms));
            lift.samples += 1;
        } else {
            let name = name.to_owned();
            self.0.push(Lift { name, lifted, first_ms: t_ms, last_ms: t_ms, samples: 1 });
        }
    }
}

impl Lift {
    fn text(&self, nameless: bool) -> String {
        let mut text = "input to histogram_quantile needed to be fixed for monotonicity (see \
            https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)"
            .to_owned();
        if !nameless && !self.name.is_empty() {
            text.push_str(&format!(" for metric name {}", Quoted(&self.name)));
        }
        let time = |t_ms| jiff::Timestamp::from_millisecond(t_ms).map_or(String::new(), |t| t.to_string());
        text.push_str(&format!(
            ", from buckets {} to {}, with a max diff of {}, over {} samples from {} to {}",
            short(self.lifted.lowest_bound),
            short(self.lifted.highest_bound),
            short(self.lifted.most),
            self.samples,
            time(self.first_ms),
            time(self.last_ms)
        ));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(pairs: &[(f64, f64)]) -> Vec<Bucket> {
        pairs.iter().map(|&(upper_bound, count)| Bucket { upper_bound, count }).collect()
    }

    const INF: f64 = f64::INFINITY;

    #[test]
    fn quantiles_are_interpolated_within_the_bucket() {
        let of = |q| bucket_quantile(q, &mut buckets(&[(1.0, 10.0), (2.0, 30.0), (INF, 40.0)])).0;
        assert_eq!(of(0.125), 0.5);
        assert_eq!(of(0.5), 1.5);
        assert_eq!(of(0.99), 2.0, "there is nothing to interpolate to above the last bound");
        assert_eq!(of(-0.1), f64::NEG_INFINITY);
        assert_eq!(of(1.1), INF);
        let negative = bucket_quantile(0.1, &mut buckets(&[(-1.0, 10.0), (INF, 10.0)])).0;
        assert_eq!(negative, -1.0);
    }

    #[test]
    fn a_histogram_that_is_none_has_no_quantile() {
        for bad in [&[(1.0, 1.0), (2.0, 2.0)][..], &[(INF, 3.0)], &[(1.0, 0.0), (INF, 0.0)]] {
            assert!(bucket_quantile(0.5, &mut buckets(bad)).0.is_nan(), "{bad:?}");
        }
    }

    #[test]
    fn falling_counts_are_lifted_and_rounding_errors_are_not_spoken_of() {
        let lifted = bucket_quantile(0.5, &mut buckets(&[(1.0, 4.0), (2.0, 1.0), (INF, 8.0)])).1;
        assert_eq!(lifted, Some(Lifted { lowest_bound: 2.0, highest_bound: 2.0, most: 3.0 }));
        let close = bucket_quantile(0.5, &mut buckets(&[(1.0, 4.0), (2.0, 4.0 - 1e-14), (INF, 8.0)])).1;
        assert_eq!(close, None);
    }

    #[test]
    fn fractions_are_interpolated_like_quantiles() {
        let of = |lower, upper| {
            bucket_fraction(lower, upper, &mut buckets(&[(1.0, 10.0), (2.0, 30.0), (INF, 40.0)]))
        };
        assert_eq!(of(0.0, 1.5), 0.5);
        assert_eq!(of(1.0, 2.0), 0.5);
        assert_eq!(of(-INF, INF), 1.0);
        assert_eq!(of(2.0, 1.0), 0.0);
        assert!(of(f64::NAN, 1.0).is_nan());
    }
}
