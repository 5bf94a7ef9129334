//! Arithmetic of native histograms, by the rules of Prometheus' `FloatHistogram`: layouts that
//! differ are brought to the coarser one first.

pub(crate) mod estimate;

use super::kahan::{Mean, Sum};
use super::window::short;
use larum_storage_format::histogram::{CUSTOM_BUCKETS_SCHEMA, CounterResetHint, Span};
use larum_storage_format::{Histogram, is_stale};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

/// Index and count of buckets, ascending by index.
type Buckets = Vec<(i64, f64)>;

/// Two histograms have buckets that cannot be brought together: exponential and custom ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Incompatible;

/// A sum or difference, and what there is to say about it.
#[derive(Debug, Clone)]
pub(crate) struct Combined {
    pub(crate) histogram: Histogram,
    /// One side said that a counter reset had happened, the other that none had.
    pub(crate) hints_clash: bool,
    /// The custom bounds differed; only those that both have remain.
    pub(crate) bounds_reconciled: bool,
}

/// Whether the buckets have custom bounds.
pub(crate) fn is_custom(h: &Histogram) -> bool {
    h.schema == CUSTOM_BUCKETS_SCHEMA
}

/// Every count and the sum times `factor`. Times a negative number, a counter is none any more.
pub(crate) fn scaled(h: &Histogram, factor: f64) -> Histogram {
    mapped(h, factor < 0.0, |v| v * factor)
}

/// Every count and the sum divided by `divisor`. Divided by zero, no bucket is left.
pub(crate) fn divided(h: &Histogram, divisor: f64) -> Histogram {
    let divided = mapped(h, divisor < 0.0, |v| v / divisor);
    if divisor == 0.0 { with_buckets(&divided, Vec::new(), Vec::new()) } else { divided }
}

fn mapped(h: &Histogram, to_gauge: bool, f: impl Fn(f64) -> f64) -> Histogram {
    let all = |counts: &[f64]| counts.iter().map(|v| f(*v)).collect();
    Histogram {
        is_integer: false,
        counter_reset_hint: if to_gauge { CounterResetHint::Gauge } else { h.counter_reset_hint },
        zero_count: f(h.zero_count),
        count: f(h.count),
        sum: f(h.sum),
        positive_buckets: all(&h.positive_buckets),
        negative_buckets: all(&h.negative_buckets),
        ..h.clone()
    }
}

/// The histogram without empty buckets.
pub(crate) fn compacted(h: &Histogram) -> Histogram {
    with_buckets(h, positive(h), negative(h))
}

/// Whether two histograms count the same. What they say about counter resets does not matter.
pub(crate) fn equal(a: &Histogram, b: &Histogram) -> bool {
    let (a, b) = (compacted(a), compacted(b));
    Histogram { counter_reset_hint: b.counter_reset_hint, is_integer: b.is_integer, ..a } == b
}

fn positive(h: &Histogram) -> Buckets {
    expanded(&h.positive_spans, &h.positive_buckets)
}

fn negative(h: &Histogram) -> Buckets {
    expanded(&h.negative_spans, &h.negative_buckets)
}

fn expanded(spans: &[Span], counts: &[f64]) -> Buckets {
    let mut next = 0;
    let indexes = spans.iter().flat_map(|span| {
        let start = next + i64::from(span.offset);
        next = start + i64::from(span.length);
        start..next
    });
    // There may be more indexes than counts only in a histogram that contradicts itself.
    indexes.zip(counts.iter().copied()).collect()
}

fn with_buckets(h: &Histogram, positive: Buckets, negative: Buckets) -> Histogram {
    let (positive_spans, positive_buckets) = packed(positive);
    let (negative_spans, negative_buckets) = packed(negative);
    Histogram { positive_spans, positive_buckets, negative_spans, negative_buckets, ..h.clone() }
}

/// Spans and counts of the buckets that are not empty.
fn packed(buckets: Buckets) -> (Vec<Span>, Vec<f64>) {
    let mut spans: Vec<Span> = Vec::new();
    let mut counts = Vec::new();
    let mut next = 0;
    for (index, count) in buckets.into_iter().filter(|(_, count)| *count != 0.0) {
        match spans.last_mut() {
            Some(span) if index == next => span.length += 1,
            _ => {
                let offset = i32::try_from(index - next).unwrap_or(i32::MAX);
                spans.push(Span { offset, length: 1 });
            }
        }
        next = index + 1;
        counts.push(count);
    }
    (spans, counts)
}

/// Adds up neighbours whose index `to` makes equal.
fn merged(buckets: Buckets, to: impl Fn(i64) -> i64) -> Buckets {
    let mut out: Buckets = Vec::with_capacity(buckets.len());
    for (index, count) in buckets {
        let index = to(index);
        match out.last_mut() {
            Some((last, sum)) if *last == index => *sum += count,
            _ => out.push((index, count)),
        }
    }
    out
}

/// The buckets of both, those of `b` times `sign`.
fn added(a: Buckets, b: Buckets, sign: f64) -> Buckets {
    let mut both: Buckets = a;
    both.extend(b.into_iter().map(|(index, count)| (index, sign * count)));
    both.sort_by_key(|(index, _)| *index);
    merged(both, |index| index)
}

/// The histogram in the coarser exponential schema `schema`.
pub(crate) fn to_schema(h: &Histogram, schema: i32) -> Histogram {
    if is_custom(h) || schema >= h.schema {
        return h.clone();
    }
    // A step of the schema merges two buckets, of which the upper has the even index.
    let shift = h.schema.saturating_sub(schema).clamp(0, 62);
    let to = |index: i64| ((index - 1) >> shift) + 1;
    let coarse = with_buckets(h, merged(positive(h), to), merged(negative(h), to));
    Histogram { schema, ..coarse }
}

/// The upper bound of the positive bucket `index`.
fn upper_bound(schema: i32, index: i64) -> f64 {
    (index as f64 * (-f64::from(schema)).exp2()).exp2().min(f64::MAX)
}

/// The histogram with a zero bucket at least as wide as `threshold`: wider, if that would cut a
/// populated bucket in two.
fn with_zero_threshold(h: &Histogram, threshold: f64) -> Histogram {
    let mut threshold = threshold.max(h.zero_threshold);
    if threshold == h.zero_threshold {
        return h.clone();
    }
    let (positive, negative) = (positive(h), negative(h));
    let inside = |threshold: f64, index: i64| upper_bound(h.schema, index - 1) < threshold;
    // Widening for one side may cut a bucket on the other, so until nothing changes.
    loop {
        let cut = positive.iter().chain(&negative).filter(|(index, count)| {
            *count != 0.0 && inside(threshold, *index) && upper_bound(h.schema, *index) > threshold
        });
        match cut.map(|(index, _)| upper_bound(h.schema, *index)).reduce(f64::max) {
            Some(wider) => threshold = wider,
            None => break,
        }
    }
    let mut zero_count = h.zero_count;
    let mut outside = |buckets: Buckets| -> Buckets {
        let (swallowed, rest): (Buckets, Buckets) =
            buckets.into_iter().partition(|(index, _)| inside(threshold, *index));
        zero_count += swallowed.iter().map(|(_, count)| count).sum::<f64>();
        rest
    };
    let (positive, negative) = (outside(positive), outside(negative));
    Histogram { zero_count, zero_threshold: threshold, ..with_buckets(h, positive, negative) }
}

/// The histogram with those of its custom bounds that are in `bounds` too.
fn with_bounds(h: &Histogram, bounds: &[f64]) -> Histogram {
    let bound_of = |index: i64| {
        let upper = usize::try_from(index).ok().and_then(|i| h.custom_values.get(i)).copied();
        let upper = upper.unwrap_or(f64::INFINITY);
        bounds.partition_point(|bound| *bound < upper) as i64
    };
    let merged = merged(positive(h), bound_of);
    Histogram { custom_values: bounds.to_vec(), ..with_buckets(h, merged, Vec::new()) }
}

/// `a` and `b` in the same layout, and whether custom bounds had to be given up for it.
fn aligned(a: &Histogram, b: &Histogram) -> Result<(Histogram, Histogram, bool), Incompatible> {
    if is_custom(a) != is_custom(b) {
        return Err(Incompatible);
    }
    if is_custom(a) {
        if a.custom_values == b.custom_values {
            return Ok((a.clone(), b.clone(), false));
        }
        // They ascend.
        let in_both = |bound: &f64| {
            let order = |other: &f64| other.partial_cmp(bound).unwrap_or(Ordering::Less);
            b.custom_values.binary_search_by(order).is_ok()
        };
        let bounds: Vec<f64> = a.custom_values.iter().copied().filter(in_both).collect();
        return Ok((with_bounds(a, &bounds), with_bounds(b, &bounds), true));
    }
    let schema = a.schema.min(b.schema);
    let (mut a, mut b) = (to_schema(a, schema), to_schema(b, schema));
    // Not while they differ: a NaN would differ from itself for ever.
    while a.zero_threshold.partial_cmp(&b.zero_threshold).is_some_and(Ordering::is_ne) {
        a = with_zero_threshold(&a, b.zero_threshold);
        b = with_zero_threshold(&b, a.zero_threshold);
    }
    Ok((a, b, false))
}

fn combined(a: &Histogram, b: &Histogram, sign: f64) -> Result<Combined, Incompatible> {
    use CounterResetHint::{Gauge, Unknown};
    let (counter_reset_hint, hints_clash) = match (a.counter_reset_hint, b.counter_reset_hint) {
        (a, b) if a == b => (a, false),
        (Gauge, _) | (_, Gauge) => (Gauge, false),
        (Unknown, _) | (_, Unknown) => (Unknown, false),
        _ => (Unknown, true),
    };
    let (a, b, bounds_reconciled) = aligned(a, b)?;
    let positive = added(positive(&a), positive(&b), sign);
    let negative = added(negative(&a), negative(&b), sign);
    let histogram = Histogram {
        is_integer: false,
        counter_reset_hint,
        zero_count: a.zero_count + sign * b.zero_count,
        count: a.count + sign * b.count,
        sum: a.sum + sign * b.sum,
        ..with_buckets(&a, positive, negative)
    };
    Ok(Combined { histogram, hints_clash, bounds_reconciled })
}

/// `a + b`
pub(crate) fn add(a: &Histogram, b: &Histogram) -> Result<Combined, Incompatible> {
    combined(a, b, 1.0)
}

/// `a - b`
pub(crate) fn sub(a: &Histogram, b: &Histogram) -> Result<Combined, Incompatible> {
    combined(a, b, -1.0)
}

/// Histograms to be added up, or averaged, in the order they come.
#[derive(Debug, Clone, Default)]
pub(crate) struct HistogramSum {
    all: Vec<Arc<Histogram>>,
}

impl HistogramSum {
    /// Adds `h`.
    pub(crate) fn add(&mut self, h: &Arc<Histogram>) {
        self.all.push(h.clone());
    }

    /// The sum, or the mean, with compensated sums for every bucket.
    pub(crate) fn finish(&self, mean: bool) -> Result<Combined, Incompatible> {
        let says = |hint| self.all.iter().any(|h| h.counter_reset_hint == hint);
        let hints_clash = says(CounterResetHint::CounterReset) && says(CounterResetHint::NotCounterReset);
        let first = self.all.first().cloned().unwrap_or_default();
        // The layout that all can be brought to, and with it the hint of the sum.
        let (mut layout, mut bounds_reconciled) = (Histogram::clone(&first), false);
        for h in self.all.iter().skip(1) {
            let next = add(&layout, h)?;
            bounds_reconciled |= next.bounds_reconciled;
            layout = next.histogram;
        }
        let mut figures = [Figure::default(); 3];
        let (mut positives, mut negatives) = (Figures::default(), Figures::default());
        for (i, h) in self.all.iter().enumerate() {
            // The layout is the coarsest of all, so this gives `h` in it.
            let h = aligned(h, &layout)?.0;
            for (figure, v) in figures.iter_mut().zip([h.zero_count, h.count, h.sum]) {
                figure.add(v);
            }
            positives.add(positive(&h), i);
            negatives.add(negative(&h), i);
        }
        let n = self.all.len();
        let [zero_count, count, sum] = figures.map(|figure| figure.finish(mean));
        let buckets = with_buckets(&layout, positives.finish(n, mean), negatives.finish(n, mean));
        let histogram = Histogram { zero_count, count, sum, ..buckets };
        Ok(Combined { histogram, hints_clash, bounds_reconciled })
    }
}

/// One number of a histogram over all that are added up.
#[derive(Debug, Clone, Copy)]
struct Figure {
    sum: Sum,
    mean: Mean,
}

impl Default for Figure {
    fn default() -> Figure {
        Figure { sum: Sum::ZERO, mean: Mean::EMPTY }
    }
}

impl Figure {
    fn add(&mut self, v: f64) {
        self.sum.add(v);
        self.mean.add(v);
    }

    fn finish(&self, mean: bool) -> f64 {
        if mean { self.mean.mean() } else { self.sum.total() }
    }
}

/// The buckets of one side over all histograms that are added up.
#[derive(Default)]
struct Figures(BTreeMap<i64, (Figure, usize)>);

impl Figures {
    /// Adds the buckets of the histogram number `i`.
    fn add(&mut self, buckets: Buckets, i: usize) {
        for (index, count) in buckets {
            let (figure, seen) = self.0.entry(index).or_default();
            // A bucket that histograms before did not have was empty there.
            (*seen..i).for_each(|_| figure.add(0.0));
            figure.add(count);
            *seen = i + 1;
        }
    }

    /// The sums, or means, of all `n` histograms.
    fn finish(self, n: usize, mean: bool) -> Buckets {
        let finished = self.0.into_iter().map(|(index, (mut figure, seen))| {
            (seen..n).for_each(|_| figure.add(0.0));
            (index, figure.finish(mean))
        });
        finished.collect()
    }
}

/// Whether a counter began again between `before` and `h`: it says so, or some count went down.
pub(crate) fn is_reset(h: &Histogram, before: &Histogram) -> bool {
    match h.counter_reset_hint {
        CounterResetHint::CounterReset => return true,
        CounterResetHint::NotCounterReset => return false,
        CounterResetHint::Unknown | CounterResetHint::Gauge => {}
    }
    fell(h, before)
}

/// What `h`, the sample after `before`, says of counter resets when it comes out of storage, in
/// which each reset begins a new chunk (Prometheus, `counterResetHint` of chunks): the first of a
/// chunk says nothing, those that follow that there was none.
pub(crate) fn stored_hint(h: &Histogram, before: Option<&Histogram>) -> CounterResetHint {
    use CounterResetHint::{CounterReset, Gauge, NotCounterReset, Unknown};
    match (h.counter_reset_hint, before) {
        (Gauge, _) => Gauge,
        (CounterReset, _) | (_, None) => Unknown,
        (_, Some(before)) if before.counter_reset_hint == Gauge || is_stale(before.sum) => Unknown,
        (_, Some(before)) => {
            let chunk_ends = h.schema != before.schema
                || h.zero_threshold != before.zero_threshold
                || h.custom_values != before.custom_values
                || fell(h, before);
            if chunk_ends { Unknown } else { NotCounterReset }
        }
    }
}

/// The histogram without its buckets, and with a hint that says whether it is a reset since
/// `before`: all that `histogram_count`, `histogram_sum` and `histogram_avg` need to know.
pub(crate) fn statistics(h: &Histogram, before: Option<&Histogram>) -> Histogram {
    let counter_reset_hint = match (h.counter_reset_hint, before) {
        (CounterResetHint::Unknown, Some(before)) if fell(h, before) => CounterResetHint::CounterReset,
        (CounterResetHint::Unknown, Some(_)) => CounterResetHint::NotCounterReset,
        (hint, _) => hint,
    };
    let custom_values = h.custom_values.clone();
    let (schema, count, sum) = (h.schema, h.count, h.sum);
    Histogram { counter_reset_hint, schema, count, sum, custom_values, ..Histogram::default() }
}

/// Whether some count is lower than in the histogram before, as far as their buckets tell.
pub(crate) fn fell(h: &Histogram, before: &Histogram) -> bool {
    let finer = !is_custom(h) && (h.schema > before.schema || h.zero_threshold < before.zero_threshold);
    if h.count < before.count || finer {
        return true;
    }
    match aligned(h, before) {
        Err(Incompatible) => true,
        Ok((now, before, _)) => {
            // Had the zero bucket to be widened, it would have cut a bucket of `before` in two.
            let cut = !is_custom(h) && now.zero_threshold != h.zero_threshold;
            let fell = |now: Buckets, before: Buckets| {
                added(now, before, -1.0).iter().any(|(_, difference)| *difference < 0.0)
            };
            cut || now.zero_count < before.zero_count
                || fell(positive(&now), positive(&before))
                || fell(negative(&now), negative(&before))
        }
    }
}

/// The text of a histogram as Prometheus prints it: `{count:2, sum:3, (1,2]:2}`.
pub(crate) fn text(h: &Histogram) -> String {
    let mut out = format!("{{count:{}, sum:{}", short(h.count), short(h.sum));
    let mut bucket = |lower: f64, upper: f64, count: f64, closed: (bool, bool)| {
        if count != 0.0 {
            let (open, close) = (if closed.0 { '[' } else { '(' }, if closed.1 { ']' } else { ')' });
            let _ = write!(out, ", {open}{},{}{close}:{}", short(lower), short(upper), short(count));
        }
    };
    for (index, count) in negative(h).into_iter().rev() {
        let bounds = (upper_bound(h.schema, index), upper_bound(h.schema, index - 1));
        bucket(-bounds.0, -bounds.1, count, (true, false));
    }
    bucket(-h.zero_threshold, h.zero_threshold, h.zero_count, (true, true));
    for (index, count) in positive(h) {
        let bound = |index: i64| match usize::try_from(index) {
            _ if !is_custom(h) => upper_bound(h.schema, index),
            Ok(index) => h.custom_values.get(index).copied().unwrap_or(f64::INFINITY),
            Err(_) => f64::NEG_INFINITY,
        };
        let (lower, upper) = (bound(index - 1), bound(index));
        bucket(lower, upper, count, (lower < 0.0, upper > 0.0));
    }
    out.push('}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promql::histogram_text::HistogramText;

    fn histogram(text: &str) -> Histogram {
        HistogramText::parse(text).unwrap().histogram
    }

    #[test]
    fn sums_take_the_coarser_schema() {
        let fine = histogram("schema:1 count:4 sum:4 buckets:[1 1 1 1] offset:1");
        let coarse = histogram("schema:0 count:2 sum:1 buckets:[2] offset:1");
        let sum = add(&fine, &coarse).unwrap();
        let expected = histogram("schema:0 count:6 sum:5 buckets:[4 2] offset:1");
        assert!(equal(&sum.histogram, &expected), "{:?}", sum.histogram);
        let back = sub(&sum.histogram, &coarse).unwrap().histogram;
        assert!(equal(&back, &to_schema(&fine, 0)), "{back:?}");
    }

    #[test]
    fn a_wider_zero_bucket_swallows_what_lies_inside() {
        let wide = histogram("schema:0 count:1 z_bucket:1 z_bucket_w:2");
        let narrow = histogram("schema:0 count:6 z_bucket:1 z_bucket_w:0.5 buckets:[2 3] offset:1");
        let sum = add(&wide, &narrow).unwrap().histogram;
        let expected = histogram("schema:0 count:7 z_bucket:4 z_bucket_w:2 buckets:[3] offset:2");
        assert!(equal(&sum, &expected), "{sum:?}");
    }

    #[test]
    fn custom_bounds_are_kept_as_far_as_both_have_them() {
        let a = histogram("schema:-53 count:3 custom_values:[1 2 3] buckets:[1 1 1]");
        let b = histogram("schema:-53 count:2 custom_values:[2 4] buckets:[1 1]");
        let sum = add(&a, &b).unwrap();
        assert!(sum.bounds_reconciled);
        let expected = histogram("schema:-53 count:5 custom_values:[2] buckets:[3 2]");
        assert!(equal(&sum.histogram, &expected), "{:?}", sum.histogram);
        let exponential = histogram("schema:0 count:1 buckets:[1]");
        assert_eq!(add(&a, &exponential).unwrap_err(), Incompatible);
    }

    #[test]
    fn a_reset_is_a_count_that_fell() {
        let before = histogram("schema:0 count:3 buckets:[1 2]");
        assert!(!is_reset(&histogram("schema:0 count:4 buckets:[1 3]"), &before));
        assert!(is_reset(&histogram("schema:0 count:4 buckets:[0 4]"), &before));
        assert!(is_reset(&histogram("schema:0 count:2 buckets:[1 1]"), &before));
        assert!(is_reset(&histogram("schema:1 count:4 buckets:[1 3]"), &before));
    }

    #[test]
    fn storage_tells_of_no_reset_only_within_a_chunk() {
        use CounterResetHint::{Gauge, NotCounterReset, Unknown};
        let first = histogram("schema:0 count:3 buckets:[1 2]");
        assert_eq!(stored_hint(&first, None), Unknown);
        for (text, hint) in [
            ("schema:0 count:4 buckets:[1 3]", NotCounterReset),
            ("schema:0 count:4 buckets:[0 4] counter_reset_hint:not_reset", Unknown),
            ("schema:-1 count:4 buckets:[1 3]", Unknown),
            ("schema:0 count:4 buckets:[1 3] counter_reset_hint:reset", Unknown),
            ("schema:0 count:4 buckets:[1 3] counter_reset_hint:gauge", Gauge),
        ] {
            assert_eq!(stored_hint(&histogram(text), Some(&first)), hint, "{text}");
        }
    }

    #[test]
    fn text_is_that_of_prometheus() {
        let h =
            histogram("schema:0 sum:10 count:20 z_bucket_w:0.001 z_bucket:2 buckets:[1 2] n_buckets:[1 2]");
        let expected = "{count:20, sum:10, [-2,-1):2, [-1,-0.5):1, [-0.001,0.001]:2, (0.5,1]:1, (1,2]:2}";
        assert_eq!(text(&h), expected);
    }
}
