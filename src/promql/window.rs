//! Range vectors: windows over the samples of one series, step after step.
//!
//! Where the windows begin and end depends only on the timestamps, so it is worked out once per
//! column of timestamps and used for all series that share it.

use super::ast::{Call, Pos, RangeExtension, ValueType};
use super::eval::{EvalError, Evaluator, Sink};
use super::extended::{self, Reach};
use super::functions::over_time::Sums;
use super::functions::{Kernel, WindowKernel, rate};
use super::limits::Held;
use super::merge::{self, METRIC_TYPE};
use super::number::{Form, write_float};
use super::plan::{Kind, Node, Place};
use super::row::{Bits, Presence, Row, SeriesRow, any_stale};
use super::selector::{PerColumn, Selection};
use super::steps::Steps;
use super::subquery;
use super::value::{FloatPoint, HistogramPoint, Series};
use larum_storage_format::labels::write_quoted;
use larum_storage_format::{Histogram, Labels, Samples, Value, is_stale};
use std::collections::HashSet;
use std::fmt::{self, Display};
use std::sync::Arc;

/// What a function over a range vector sees of one series at one step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window<'a> {
    /// The time of the step.
    pub(crate) step_ms: i64,
    /// When the floats were sampled, ascending.
    pub(crate) times_ms: &'a [i64],
    /// The floats.
    pub(crate) floats: &'a [f64],
    /// Since when the floats count, 0 if unknown; empty if start timestamps are not used.
    pub(crate) starts_ms: &'a [i64],
    /// When the histograms were sampled, ascending.
    pub(crate) histogram_times_ms: &'a [i64],
    /// The histograms.
    pub(crate) histograms: &'a [Arc<Histogram>],
    /// Since when the histograms count, as `starts_ms`.
    pub(crate) histogram_starts_ms: &'a [i64],
    /// The scalar arguments of the function at this step, in order.
    pub(crate) args: &'a [f64],
}

/// A `"quoted"` text as Go's `%q` writes it.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_quoted(f, self.0)
    }
}

/// What a function has to say about the series it works on. Each remark is made once per series.
pub(crate) struct Remarks<'r, 'a> {
    evaluator: &'r Evaluator<'a>,
    labels: &'r Labels,
    pos: Pos,
    mixed: bool,
    ignored: bool,
}

impl Remarks<'_, '_> {
    fn name(&self) -> Quoted<'_> {
        Quoted(self.labels.metric_name().unwrap_or(""))
    }

    /// Floats and histograms in one window, where that yields nothing.
    pub(crate) fn mixed(&mut self) {
        if !std::mem::replace(&mut self.mixed, true) {
            let text = format!("encountered a mix of histograms and floats for metric name {}", self.name());
            self.evaluator.warn(text, self.pos);
        }
    }

    /// Histograms ignored beside floats in one window.
    pub(crate) fn ignored(&mut self) {
        if !std::mem::replace(&mut self.ignored, true) {
            let name = self.name();
            let text = format!(
                "ignored histograms in a range containing both floats and histograms for metric name {name}"
            );
            self.evaluator.info(text, self.pos);
        }
    }

    /// A warning that ends with the metric's name.
    pub(crate) fn warn_of(&self, text: &str) {
        self.evaluator.warn(format!("{text} {}", self.name()), self.pos);
    }

    /// Histograms with exponential and with custom buckets in one window.
    pub(crate) fn mixed_schemas(&self) {
        self.warn_of(MIXED_SCHEMAS);
    }

    /// What came up when histograms were added or subtracted, which is called `operation`.
    pub(crate) fn combined(&self, hints_clash: bool, bounds_reconciled: bool, operation: &str) {
        if hints_clash {
            self.evaluator.warn(hints_clash_text(operation), self.pos);
        }
        if bounds_reconciled {
            self.evaluator.info(bounds_reconciled_text(operation), self.pos);
        }
    }

    /// A sample that claims to count from before the last one.
    pub(crate) fn overlap(&self) {
        let text = "sample has start time that overlaps with previous sample timestamp for metric";
        self.warn_of(text);
    }

    /// A quantile outside of 0 to 1.
    pub(crate) fn quantile(&mut self, q: f64) {
        self.evaluator.warn(bad_quantile(q), self.pos);
    }

    /// A rate of what does not look like a counter.
    pub(crate) fn counter(&mut self) {
        const SUFFIXES: [&str; 4] = ["_total", "_sum", "_count", "_bucket"];
        let name = self.labels.metric_name().unwrap_or("");
        if name.is_empty() {
            return;
        }
        if self.evaluator.options.type_and_unit_labels {
            let found = self.labels.get(METRIC_TYPE).unwrap_or("");
            if !matches!(found, "counter" | "histogram") {
                let (found, name) = (Quoted(found), Quoted(name));
                let text = format!(
                    "metric might not be a counter, __type__ label is not set to \"counter\" or \"histogram\", \
                     got {found}: {name}"
                );
                self.evaluator.info(text, self.pos);
            }
        } else if !SUFFIXES.iter().any(|suffix| name.ends_with(suffix)) {
            let text = format!(
                "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {}",
                Quoted(name)
            );
            self.evaluator.info(text, self.pos);
        }
    }
}

/// The text, but for the metric's name, for exponential and custom buckets side by side.
pub(crate) const MIXED_SCHEMAS: &str =
    "vector contains a mix of histograms with exponential and custom buckets schemas for metric name";

/// The text for histograms of which one says that a counter began again and another that it did not.
pub(crate) fn hints_clash_text(operation: &str) -> String {
    format!("conflicting counter resets during histogram {operation}")
}

/// The text for histograms of which not all custom bounds could be kept.
pub(crate) fn bounds_reconciled_text(operation: &str) -> String {
    format!("mismatched custom buckets were reconciled during {operation}")
}

/// The text for a quantile outside of 0 to 1.
pub(crate) fn bad_quantile(q: f64) -> String {
    format!("quantile value should be between 0 and 1, got {}", short(q))
}

/// A float as Go's `%g` writes it.
pub(crate) fn short(value: f64) -> String {
    let mut text = String::new();
    let _ = write_float(&mut text, value, Form::General, None);
    text
}

/// Where the windows of all steps lie in a column of timestamps.
pub(crate) struct Borders {
    /// Per step the index of the first sample in its window.
    pub(crate) lo: Vec<u32>,
    /// Per step the index after the last.
    pub(crate) hi: Vec<u32>,
}

impl Borders {
    /// The windows `(place(t) - range_ms, place(t)]` of all steps `t`.
    pub(crate) fn new(times_ms: &[i64], place: &Place, range_ms: i64, steps: &Steps) -> Borders {
        let count = steps.count();
        let mut borders = Borders { lo: Vec::with_capacity(count), hi: Vec::with_capacity(count) };
        let (mut lo, mut hi) = (0, 0);
        for (i, t_ms) in steps.iter().enumerate() {
            let end_ms = place.time(t_ms);
            let start_ms = end_ms.saturating_sub(range_ms);
            if i == 0 {
                lo = times_ms.partition_point(|t| *t <= start_ms);
                hi = times_ms.partition_point(|t| *t <= end_ms);
            } else {
                lo += times_ms[lo..].iter().take_while(|t| **t <= start_ms).count();
                hi += times_ms[hi..].iter().take_while(|t| **t <= end_ms).count();
            }
            borders.lo.push(lo as u32);
            borders.hi.push(hi as u32);
        }
        borders
    }

    fn range(&self, step: usize) -> std::ops::Range<usize> {
        self.lo[step] as usize..self.hi[step] as usize
    }
}

/// The samples of one series, floats and histograms apart, without stale markers.
pub(crate) struct RangeSeries {
    /// Its labels.
    pub(crate) labels: Labels,
    /// See [`SeriesRow::drop_name`].
    pub(crate) drop_name: bool,
    /// When the floats were sampled.
    pub(crate) times_ms: Arc<[i64]>,
    /// The floats.
    pub(crate) floats: Vec<f64>,
    /// The start timestamps of the floats, 0 if unknown; possibly empty.
    pub(crate) starts_ms: Vec<i64>,
    /// When the histograms were sampled.
    pub(crate) histogram_times_ms: Vec<i64>,
    /// The histograms.
    pub(crate) histograms: Vec<Arc<Histogram>>,
    /// The start timestamps of the histograms, 0 if unknown; possibly empty.
    pub(crate) histogram_starts_ms: Vec<i64>,
}

impl RangeSeries {
    pub(crate) fn from_samples(labels: Labels, samples: Samples, starts: bool) -> RangeSeries {
        let Samples { timestamps, floats, histograms, mut start_timestamps } = samples;
        if !starts {
            start_timestamps.clear();
        }
        let clean = histograms.is_empty() && !any_stale(&floats);
        let mut series = RangeSeries {
            labels,
            drop_name: false,
            times_ms: timestamps,
            floats,
            starts_ms: start_timestamps,
            histogram_times_ms: Vec::new(),
            histograms: Vec::new(),
            histogram_starts_ms: Vec::new(),
        };
        if !clean {
            series.split(histograms);
        }
        series
    }

    /// Takes the stale markers out and the histograms apart. The series then has a column of
    /// timestamps of its own.
    fn split(&mut self, histograms: Vec<(u32, Arc<Histogram>)>) {
        let mut at_histogram = histograms.into_iter().peekable();
        let mut times_ms = Vec::with_capacity(self.times_ms.len());
        let mut kept = 0;
        for (i, &t_ms) in self.times_ms.iter().enumerate() {
            if let Some((_, histogram)) = at_histogram.next_if(|(at, _)| *at as usize == i) {
                if !is_stale(histogram.sum) {
                    self.histogram_times_ms.push(t_ms);
                    self.histograms.push(histogram);
                    self.histogram_starts_ms.extend(self.starts_ms.get(i));
                }
            } else if !is_stale(self.floats[i]) {
                times_ms.push(t_ms);
                self.floats[kept] = self.floats[i];
                if let Some(&start_ms) = self.starts_ms.get(i) {
                    self.starts_ms[kept] = start_ms;
                }
                kept += 1;
            }
        }
        self.floats.truncate(kept);
        self.starts_ms.truncate(kept);
        self.times_ms = times_ms.into();
    }
}

/// The range of a node that is a range vector: where its windows are, and how wide.
fn shape(node: &Node<'_>) -> (Place, i64) {
    match &node.kind {
        Kind::Matrix { selector, range_ms } => (selector.place, *range_ms),
        Kind::Subquery(subquery) => (subquery.place, subquery.range_ms),
        _ => unreachable!("the parser checks that a range vector stands here"),
    }
}

/// The modifier of a range vector.
fn extension(node: &Node<'_>) -> Option<RangeExtension> {
    match &node.kind {
        Kind::Matrix { selector, .. } => selector.extension,
        _ => None,
    }
}

/// Gives the series of a range vector to `f` one by one, with all samples of all windows.
fn each_series(
    evaluator: &Evaluator<'_>,
    node: &Node<'_>,
    steps: &Steps,
    f: &mut dyn FnMut(RangeSeries) -> Result<(), EvalError>,
) -> Result<(), EvalError> {
    let mut counting = |series: RangeSeries| {
        let (place, range_ms) = shape(node);
        evaluator.counter.add_windows(&series, &place, range_ms, steps);
        f(series)
    };
    let f: &mut dyn FnMut(RangeSeries) -> _ = if evaluator.counter.is_on() { &mut counting } else { f };
    match &evaluator.recorder {
        None => each_unmeasured(evaluator, node, steps, f),
        Some(recorder) => {
            recorder.windows(evaluator, node, steps, f, |f| each_unmeasured(evaluator, node, steps, f))
        }
    }
}

fn each_unmeasured(
    evaluator: &Evaluator<'_>,
    node: &Node<'_>,
    steps: &Steps,
    f: &mut dyn FnMut(RangeSeries) -> Result<(), EvalError>,
) -> Result<(), EvalError> {
    match &node.kind {
        Kind::Matrix { selector, range_ms } => {
            let (place, lookback_ms) = (&selector.place, evaluator.lookback_ms);
            let range = extended::samples_range(selector.extension, place, *range_ms, lookback_ms, steps);
            let selection = Selection::new(evaluator, selector, range)?;
            let mut reader = selection.reader();
            while let Some((index, samples)) = reader.next()? {
                let held = evaluator.budget.hold_samples(&samples)?;
                let labels = reader.labels(index);
                let starts = evaluator.options.use_start_timestamps;
                f(RangeSeries::from_samples(labels, samples, starts))?;
                evaluator.budget.release(held);
            }
            Ok(())
        }
        Kind::Subquery(subquery) => subquery::each_series(evaluator, subquery, steps, f),
        _ => unreachable!("the parser checks that a range vector stands here"),
    }
}

/// The series of a function over a range vector.
pub(crate) fn each(
    evaluator: &Evaluator<'_>,
    call: &Call,
    args: &[Node<'_>],
    steps: &Steps,
    sink: Sink<'_>,
) -> Result<(), EvalError> {
    match call.function.kernel {
        Kernel::Window(kernel) => over_windows(evaluator, Work::windows(kernel), args, steps, sink),
        Kernel::Sums { kernel, mean } => {
            let work = Work { sums: Some(Sums { mean }), ..Work::windows(kernel) };
            over_windows(evaluator, work, args, steps, sink)
        }
        Kernel::KeepName(kernel) => {
            let work = Work { drop_name: false, ..Work::windows(kernel) };
            over_windows(evaluator, work, args, steps, sink)
        }
        Kernel::Rate(kind) => rates(evaluator, kind, args, steps, sink),
        _ => unreachable!("only these take range vectors"),
    }
}

/// After so many samples in windows it is looked whether anybody still waits for the result.
const SAMPLES_PER_LOOK: usize = 1 << 16;

/// What is done with the windows of a range vector.
#[derive(Clone, Copy)]
pub(crate) struct Work {
    /// Makes a value of each window.
    kernel: WindowKernel,
    /// Does so for a whole column at once, where that gives the same.
    sums: Option<Sums>,
    /// Whether the metric's name goes.
    drop_name: bool,
}

impl Work {
    /// Runs `kernel` over each window and drops the name.
    pub(crate) fn windows(kernel: WindowKernel) -> Work {
        Work { kernel, sums: None, drop_name: true }
    }
}

/// Does `work` on all windows of all series of the one argument that is a range vector.
pub(crate) fn over_windows(
    evaluator: &Evaluator<'_>,
    work: Work,
    args: &[Node<'_>],
    steps: &Steps,
    sink: Sink<'_>,
) -> Result<(), EvalError> {
    let (matrices, scalars): (Vec<&Node<'_>>, Vec<&Node<'_>>) =
        args.iter().partition(|arg| arg.value_type == ValueType::Matrix);
    let node = matrices[0];
    let mut scalar_rows = Vec::new();
    for scalar in scalars {
        scalar_rows.push(evaluator.operand(scalar, steps)?.scalar());
    }
    let (place, range_ms) = shape(node);
    let anchored = extension(node).is_some();
    let count = steps.count();
    let mut borders = PerColumn::new(count, &evaluator.budget);
    let mut output = output(count);
    let mut at_step = vec![0.0; scalar_rows.len()];
    let mut prefix = Vec::new();
    each_series(evaluator, node, steps, &mut |series| {
        let floats =
            borders.get(&series.times_ms, || Borders::new(&series.times_ms, &place, range_ms, steps));
        let histograms = (!series.histograms.is_empty())
            .then(|| Borders::new(&series.histogram_times_ms, &place, range_ms, steps));
        let mut remarks = remarks(evaluator, &series.labels, args[0].pos);
        let mut bits = Bits::none(count);
        reset(&mut output.row, count);
        let reach = |t_ms: i64| {
            Reach::new(RangeExtension::Anchored, place.time(t_ms), range_ms, evaluator.lookback_ms)
        };
        let summed = work.sums.is_some_and(|sums| {
            histograms.is_none()
                && sums.fill(&series.floats, &floats, &mut prefix, &mut output.row.floats, &mut bits)
        });
        let windows = if summed { 0 } else { count };
        let mut looked_at = 0;
        for (step, t_ms) in steps.iter().enumerate().take(windows) {
            let (range, histogram_range) = if anchored {
                reach(t_ms).anchored(&series)
            } else {
                (floats.range(step), histograms.as_ref().map_or(0..0, |b| b.range(step)))
            };
            if range.is_empty() && histogram_range.is_empty() {
                continue;
            }
            looked_at += range.len() + histogram_range.len();
            if looked_at > SAMPLES_PER_LOOK {
                evaluator.alive()?;
                looked_at = 0;
            }
            at_step.iter_mut().zip(&scalar_rows).for_each(|(v, row)| *v = row[step]);
            let window = window(&series, range, histogram_range, t_ms, &at_step);
            match (work.kernel)(&window, &mut remarks)? {
                Some(Value::Float(value)) => {
                    output.row.floats[step] = value;
                    bits.set(step);
                }
                Some(Value::Histogram(histogram)) => output.row.histograms.push((step as u32, histogram)),
                None => {}
            }
        }
        output.row.present = Presence::from_bits(&bits, count);
        output.labels = series.labels;
        output.drop_name = work.drop_name || series.drop_name;
        if output.row.points() > 0 { sink(&mut output) } else { Ok(()) }
    })
}

fn rates(
    evaluator: &Evaluator<'_>,
    kind: rate::Kind,
    args: &[Node<'_>],
    steps: &Steps,
    sink: Sink<'_>,
) -> Result<(), EvalError> {
    let node = &args[0];
    let (place, range_ms) = shape(node);
    let count = steps.count();
    let mut shared = PerColumn::new(count, &evaluator.budget);
    let mut output = output(count);
    let mut events = Vec::new();
    if let Some(extension) = extension(node) {
        let rates = extended::Rates { kind, extension, place, range_ms, pos: node.pos, steps };
        return each_series(evaluator, node, steps, &mut |series| rates.of_series(evaluator, series, sink));
    }
    each_series(evaluator, node, steps, &mut |series| {
        let make = || rate::Shared::new(kind, &series.times_ms, &place, range_ms, steps);
        let shared = shared.get(&series.times_ms, make);
        let mut remarks = remarks(evaluator, &series.labels, node.pos);
        reset(&mut output.row, count);
        rate::find_resets(kind, &series, &mut events);
        shared.fill(&series.floats, &events, &mut output.row.floats);
        output.row.present = shared.present();
        if !series.histograms.is_empty() || kind.is_counter() && series.starts_ms.iter().any(|s| *s != 0) {
            let floats = Borders::new(&series.times_ms, &place, range_ms, steps);
            let histograms = Borders::new(&series.histogram_times_ms, &place, range_ms, steps);
            let windows = steps.iter().enumerate().map(|(step, t_ms)| {
                let window = window(&series, floats.range(step), histograms.range(step), t_ms, &[]);
                (window, place.time(t_ms))
            });
            rate::by_window(kind, windows, range_ms, &mut output.row, &mut remarks);
        }
        let floats = output.row.present.count(count);
        if kind.is_counter() && floats > 0 {
            remarks.counter();
        }
        output.labels = series.labels;
        output.drop_name = true;
        if floats + output.row.histograms.len() > 0 { sink(&mut output) } else { Ok(()) }
    })
}

fn window<'w>(
    series: &'w RangeSeries,
    floats: std::ops::Range<usize>,
    histograms: std::ops::Range<usize>,
    step_ms: i64,
    args: &'w [f64],
) -> Window<'w> {
    Window {
        step_ms,
        times_ms: &series.times_ms[floats.clone()],
        floats: &series.floats[floats.clone()],
        starts_ms: series.starts_ms.get(floats).unwrap_or(&[]),
        histogram_times_ms: &series.histogram_times_ms[histograms.clone()],
        histograms: &series.histograms[histograms.clone()],
        histogram_starts_ms: series.histogram_starts_ms.get(histograms).unwrap_or(&[]),
        args,
    }
}

/// Takes what there is to say about a series with these labels.
pub(crate) fn remarks<'r, 'a>(evaluator: &'r Evaluator<'a>, labels: &'r Labels, pos: Pos) -> Remarks<'r, 'a> {
    Remarks { evaluator, labels, pos, mixed: false, ignored: false }
}

/// A series to be filled in.
pub(crate) fn output(count: usize) -> SeriesRow {
    SeriesRow { labels: Labels::empty(), drop_name: false, row: Row::full(vec![0.0; count]) }
}

/// Makes a row ready for `count` values, also if the sink took its buffers.
pub(crate) fn reset(row: &mut Row, count: usize) {
    row.floats.resize(count, 0.0);
    row.histograms.clear();
}

/// The value of a range vector itself, at the one step of an instant query.
pub(crate) fn matrix(
    evaluator: &Evaluator<'_>,
    node: &Node<'_>,
    steps: &Steps,
) -> Result<Vec<Series>, EvalError> {
    let (place, range_ms) = shape(node);
    let mut matrix: Vec<Series> = Vec::new();
    if let Some(extension) = extension(node) {
        let reach = Reach::new(extension, place.time(steps.start_ms()), range_ms, evaluator.lookback_ms);
        each_series(evaluator, node, steps, &mut |series| {
            if reach.has_histograms(&series) {
                return Err(extended::no_histograms(extension));
            }
            if let Some(floats) = reach.floats(&series) {
                evaluator.budget.hold(floats.len() as u64)?;
                matrix.push(Series { labels: series.labels, floats, histograms: Vec::new() });
            }
            Ok(())
        })?;
        return Ok(matrix);
    }
    let mut known: HashSet<Labels, foldhash::fast::RandomState> = HashSet::default();
    each_series(evaluator, node, steps, &mut |series| {
        let floats = Borders::new(&series.times_ms, &place, range_ms, steps).range(0);
        let histograms = Borders::new(&series.histogram_times_ms, &place, range_ms, steps).range(0);
        if floats.is_empty() && histograms.is_empty() {
            return Ok(());
        }
        let samples = (floats.len() + histograms.len()) as u64;
        let points = floats.len() * size_of::<FloatPoint>() + histograms.len() * size_of::<HistogramPoint>();
        evaluator.budget.take(Held { bytes: Held::row(0).bytes + points as u64, samples })?;
        let labels = if series.drop_name { merge::without_name(&series.labels) } else { series.labels };
        if !known.insert(labels.clone()) {
            return Err(merge::duplicate());
        }
        matrix.push(Series {
            labels,
            floats: floats
                .map(|i| FloatPoint { t_ms: series.times_ms[i], value: series.floats[i] })
                .collect(),
            histograms: histograms
                .map(|i| HistogramPoint {
                    t_ms: series.histogram_times_ms[i],
                    value: series.histograms[i].clone(),
                })
                .collect(),
        });
        Ok(())
    })?;
    Ok(matrix)
}
