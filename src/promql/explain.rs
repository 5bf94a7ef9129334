//! What a query would read, before it runs; and what each of its nodes took, after it ran.
//!
//! A [`Recorder`] is there only where somebody asked. It holds a clock that always runs for one node: who
//! enters a node, or is handed a series by it, turns it over to another. What the evaluation counts
//! anyway (series, samples, memory) is taken from its budget at the same moments.

use super::ast::{Expr, Pos};
use super::eval::{EvalError, EvalOptions, Evaluator, Operand, Sink, on_enough_stack};
use super::extended;
use super::functions::Kernel;
use super::limits::Counts;
use super::plan::{self, Kind, Node, Selector};
use super::row::SeriesRow;
use super::running::origin::cut;
use super::steps::Steps;
use super::subquery;
use super::window::RangeSeries;
use crate::storage::{ReadCost, Source, TimeRange, series_set::Columns};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

/// Of how many series of a selection it is looked up what reading them costs; the others are taken to be
/// like them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Care {
    /// Enough to tell small from large, in little time.
    Rough,
    /// For people.
    Thorough,
}

impl Care {
    fn series(self) -> usize {
        match self {
            Care::Rough => 16,
            Care::Thorough => 256,
        }
    }
}

/// Nodes further below are written no further to the right.
const DEEPEST_INDENT: usize = 40;
/// So much of the timestamps of a series is kept for the next, while it is looked up what reading costs.
const COLUMNS_BYTES: usize = 2 << 20;

/// What a selector of a query would read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectorEstimate {
    /// Where it stands in the query.
    pub pos: Pos,
    /// The steps at which it is looked at.
    pub steps: usize,
    /// From when samples are needed, in milliseconds since the epoch.
    pub min_ms: i64,
    /// Up to when.
    pub max_ms: i64,
    /// How many series match.
    pub series: u64,
    /// The chunks, samples and bytes to be read for them.
    pub cost: ReadCost,
    /// Whether `cost` was worked out from some of the series.
    pub is_extrapolated: bool,
}

impl SelectorEstimate {
    /// About how many of the samples lie in a window of this width.
    fn in_window(&self, range_ms: i64) -> u64 {
        let span_ms = self.max_ms.saturating_sub(self.min_ms).max(1).unsigned_abs();
        let samples =
            u128::from(self.cost.samples) * u128::from(range_ms.unsigned_abs()) / u128::from(span_ms);
        u64::try_from(samples).unwrap_or(u64::MAX)
    }
}

/// What a query would read, and do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Estimate {
    /// What each selector would read.
    pub selectors: Vec<SelectorEstimate>,
    /// How many samples functions would look at, one by one in each window.
    pub looked_at: u64,
    /// The steps of all subqueries.
    pub inner_steps: u64,
}

/// What reading a series, reading a sample, a step of a series, and a look at a sample take about.
const SERIES_NS: u64 = 300;
const SAMPLE_NS: u64 = 2;
const STEP_NS: u64 = 5;
const LOOK_NS: u64 = 2;

impl Estimate {
    /// About how long it will take. Good enough to tell small from large.
    pub fn time(&self) -> Duration {
        let parts = [(self.looked_at, LOOK_NS), (self.inner_steps, STEP_NS)].into_iter();
        let parts = parts.chain(self.selectors.iter().flat_map(|selector| {
            let points = selector.series.saturating_mul(selector.steps as u64);
            [(selector.series, SERIES_NS), (selector.cost.samples, SAMPLE_NS), (points, STEP_NS)]
        }));
        Duration::from_nanos(parts.fold(0, |sum, (n, ns)| sum.saturating_add(n.saturating_mul(ns))))
    }
}

/// What a node of a query took.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeReport {
    /// Where it stands in the query.
    pub pos: Pos,
    /// What it is: `selector`, `matrix`, `subquery`, `aggregation`, ...
    pub kind: &'static str,
    /// The node whose operand it is, by its place in the list; the first one has none.
    pub parent: Option<usize>,
    /// How often it was evaluated. 0: the node above did its work.
    pub evaluations: u64,
    /// Steps of its evaluations, together.
    pub steps: u64,
    /// Its time, with that of the nodes below.
    pub time: Duration,
    /// Its time without.
    pub own_time: Duration,
    /// Series that it was given: selected from storage, or yielded by the nodes below.
    pub series_in: u64,
    /// Series that it yielded.
    pub series_out: u64,
    /// Samples that it read from storage.
    pub samples: u64,
    /// The most memory that the whole query held while this node worked.
    pub peak_bytes: u64,
}

/// What the nodes of a query took: each before those below it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Explained {
    /// The nodes.
    pub nodes: Vec<NodeReport>,
}

impl Explained {
    /// The nodes whose parent is node `index`.
    pub fn below(&self, index: usize) -> impl Iterator<Item = usize> + '_ {
        (index + 1..self.nodes.len()).filter(move |&child| self.nodes[child].parent == Some(index))
    }

    fn depth(&self, index: usize) -> usize {
        std::iter::successors(self.nodes[index].parent, |&at| self.nodes[at].parent).count()
    }

    /// The tree as text, a node a line; `query` is what was evaluated.
    pub fn text(&self, query: &str) -> String {
        let mut out = String::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let indent = "  ".repeat(self.depth(index).min(DEEPEST_INDENT));
            let _ = write!(out, "{indent}{}: {}", node.kind, excerpt(query, node.pos));
            if node.evaluations == 0 {
                out.push_str(" (done by the node above)\n");
                continue;
            }
            let _ = write!(
                out,
                " ({:.3}ms, own {:.3}ms, series {} -> {}, steps {}",
                node.time.as_secs_f64() * 1e3,
                node.own_time.as_secs_f64() * 1e3,
                node.series_in,
                node.series_out,
                node.steps
            );
            if node.samples > 0 {
                let _ = write!(out, ", samples {}", node.samples);
            }
            let _ = writeln!(out, ", memory {})", crate::budget::Size(node.peak_bytes));
        }
        out
    }
}

/// The estimates as text, a selector a line.
pub fn estimate_text(query: &str, selectors: &[SelectorEstimate]) -> String {
    let mut out = String::new();
    for selector in selectors {
        let ReadCost { chunks, samples, bytes } = selector.cost;
        let about = if selector.is_extrapolated { "about " } else { "" };
        let _ = writeln!(
            out,
            "{}: {} series, {about}{chunks} chunks, {about}{samples} samples, {about}{} to read, for {} steps",
            excerpt(query, selector.pos),
            selector.series,
            crate::budget::Size(bytes),
            selector.steps
        );
    }
    out
}

/// The longest piece of a query that is shown for a node, in bytes.
const EXCERPT_BYTES: usize = 200;

/// The piece of `query` at `pos`, on one line and not too long.
pub fn excerpt(query: &str, pos: Pos) -> String {
    let whole = query.get(pos.start as usize..pos.end as usize).unwrap_or("?");
    let shown = cut(whole, EXCERPT_BYTES);
    let mut text = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    if shown.len() < whole.len() {
        text.push_str("...");
    }
    text
}

/// What `expr` would read of `source` at `steps`. Nothing is decoded that is in partitions.
///
/// # Errors
/// As [`super::evaluate`], as far as a plan and its selections go.
pub fn estimate(
    expr: &Expr,
    source: &dyn Source,
    steps: Steps,
    options: &EvalOptions,
    care: Care,
) -> Result<Estimate, EvalError> {
    on_enough_stack(expr, || estimate_here(expr, source, steps, options, care))
}

fn estimate_here(
    expr: &Expr,
    source: &dyn Source,
    steps: Steps,
    options: &EvalOptions,
    care: Care,
) -> Result<Estimate, EvalError> {
    let root = plan::plan(expr, &steps, options)?;
    let evaluator = Evaluator::new(source, options, &steps);
    let mut estimate = Estimate::default();
    // With each node goes whether a function looks at each sample of its windows.
    let mut nodes = vec![(&root, steps, false)];
    while let Some((node, steps, is_looked_at)) = nodes.pop() {
        evaluator.alive()?;
        let steps = if node.invariant { steps.first() } else { steps };
        let mut look = |in_window: u64| {
            let looks = if is_looked_at { in_window.saturating_mul(steps.count() as u64) } else { 0 };
            estimate.looked_at = estimate.looked_at.saturating_add(looks);
        };
        match &node.kind {
            Kind::Number(_) | Kind::Text(_) => {}
            Kind::Selector(selector) => {
                let width_ms = evaluator.lookback_ms;
                let selected = estimate_selector(&evaluator, node.pos, selector, width_ms, &steps, care)?;
                estimate.selectors.push(selected);
            }
            Kind::Matrix { selector, range_ms } => {
                let selected = estimate_selector(&evaluator, node.pos, selector, *range_ms, &steps, care)?;
                look(selected.in_window(*range_ms));
                estimate.selectors.push(selected);
            }
            Kind::Subquery(subquery) => {
                let Some(inner) = subquery::inner_steps(subquery, &steps) else { continue };
                let count = inner.count() as u64;
                // One series at least; nobody knows how many there will be.
                look((subquery.range_ms / subquery.step_ms).unsigned_abs().min(count));
                estimate.inner_steps = estimate.inner_steps.saturating_add(count);
                nodes.push((&subquery.expr, inner, false));
            }
            kind => {
                let looks = matches!(kind, Kind::Call { call, .. } if matches!(call.function.kernel, Kernel::Window(_)));
                nodes.extend(operands(node).into_iter().rev().map(|operand| (operand, steps, looks)));
            }
        }
    }
    Ok(estimate)
}

fn estimate_selector(
    evaluator: &Evaluator<'_>,
    pos: Pos,
    selector: &Selector<'_>,
    width_ms: i64,
    steps: &Steps,
    care: Care,
) -> Result<SelectorEstimate, EvalError> {
    let (place, lookback_ms) = (&selector.place, evaluator.lookback_ms);
    let range = extended::samples_range(selector.extension, place, width_ms, lookback_ms, steps);
    let TimeRange { min_ms, max_ms } = range;
    let set = evaluator.source.select(selector.matchers, range);
    let set = set.map_err(|error| evaluator.budget.unread(selector.matchers, error))?;
    let series = set.len();
    let every = series.div_ceil(care.series()).max(1);
    let mut columns = Columns::default();
    let (mut cost, mut looked_at) = (ReadCost::default(), 0);
    for index in (0..series).step_by(every) {
        evaluator.alive()?;
        let of_series = set.read_cost(index, &mut columns);
        cost.add(&of_series.map_err(|error| evaluator.budget.unread(selector.matchers, error))?);
        columns.forget_beyond(COLUMNS_BYTES);
        looked_at += 1;
    }
    let is_extrapolated = looked_at < series;
    if is_extrapolated {
        cost = cost.scaled(series as u64, looked_at as u64);
    }
    Ok(SelectorEstimate {
        pos,
        steps: steps.count(),
        min_ms,
        max_ms,
        series: series as u64,
        cost,
        is_extrapolated,
    })
}

/// The nodes directly below a node.
fn operands<'n, 'a>(node: &'n Node<'a>) -> Vec<&'n Node<'a>> {
    match &node.kind {
        Kind::Number(_) | Kind::Text(_) | Kind::Selector(_) | Kind::Matrix { .. } => Vec::new(),
        Kind::Subquery(subquery) => vec![&subquery.expr],
        Kind::Call { args, .. } => args.iter().collect(),
        Kind::Aggregate { param, expr, .. } => param.as_deref().into_iter().chain([&**expr]).collect(),
        Kind::Negate(inner) => vec![inner],
        Kind::Binary { lhs, rhs, .. } => vec![lhs, rhs],
    }
}

fn kind_name(node: &Node<'_>) -> &'static str {
    match &node.kind {
        Kind::Number(_) => "number",
        Kind::Text(_) => "string",
        Kind::Selector(_) => "selector",
        Kind::Matrix { .. } => "matrix",
        Kind::Subquery(_) => "subquery",
        Kind::Call { .. } => "call",
        Kind::Aggregate { .. } => "aggregation",
        Kind::Negate(_) => "negation",
        Kind::Binary { .. } => "binary",
    }
}

/// Measures the nodes of one evaluation.
pub(crate) struct Recorder {
    /// Nodes by address; the plan does not move while it is evaluated.
    places: HashMap<*const (), usize>,
    nodes: RefCell<Vec<NodeReport>>,
    current: Cell<usize>,
    since: Cell<Instant>,
    counted: Cell<Counts>,
}

impl Recorder {
    /// A recorder for the plan below `root`; its clock runs.
    pub(crate) fn new(root: &Node<'_>) -> Recorder {
        let mut places = HashMap::new();
        let mut nodes: Vec<NodeReport> = Vec::new();
        let mut left = vec![(root, None)];
        while let Some((node, parent)) = left.pop() {
            let index = nodes.len();
            places.insert(address(node), index);
            nodes.push(NodeReport {
                pos: node.pos,
                kind: kind_name(node),
                parent,
                evaluations: 0,
                steps: 0,
                time: Duration::ZERO,
                own_time: Duration::ZERO,
                series_in: 0,
                series_out: 0,
                samples: 0,
                peak_bytes: 0,
            });
            left.extend(operands(node).into_iter().rev().map(|operand| (operand, Some(index))));
        }
        Recorder {
            places,
            nodes: RefCell::new(nodes),
            current: Cell::new(0),
            since: Cell::new(Instant::now()),
            counted: Cell::default(),
        }
    }

    /// What all nodes took.
    pub(crate) fn finish(&self, evaluator: &Evaluator<'_>) -> Explained {
        self.turn_to(evaluator, 0);
        let mut nodes = self.nodes.take();
        // Below comes after above.
        for index in (0..nodes.len()).rev() {
            let node = &mut nodes[index];
            node.time += node.own_time;
            let NodeReport { parent, time, series_out, peak_bytes, .. } = *node;
            if let Some(parent) = parent {
                let above = &mut nodes[parent];
                above.time += time;
                above.series_in += series_out;
                above.peak_bytes = above.peak_bytes.max(peak_bytes);
            }
        }
        Explained { nodes }
    }

    /// What was used since the last time belongs to the node whose turn it was; now it is that of
    /// `next`. Returns whose it was.
    fn turn_to(&self, evaluator: &Evaluator<'_>, next: usize) -> usize {
        let now = Instant::now();
        let before = self.current.replace(next);
        let counts = evaluator.budget.counts();
        let counted = self.counted.replace(counts);
        let mut nodes = self.nodes.borrow_mut();
        let node = &mut nodes[before];
        node.own_time += now.duration_since(self.since.replace(now));
        node.samples += counts.samples - counted.samples;
        node.series_in += counts.selected - counted.selected;
        node.peak_bytes = node.peak_bytes.max(evaluator.budget.take_peak_bytes());
        before
    }

    fn begin(&self, evaluator: &Evaluator<'_>, node: &Node<'_>, steps: &Steps) -> Option<(usize, usize)> {
        let place = *self.places.get(&address(node))?;
        let before = self.turn_to(evaluator, place);
        let node = &mut self.nodes.borrow_mut()[place];
        node.evaluations += 1;
        node.steps += steps.count() as u64;
        Some((place, before))
    }

    fn yielded(&self, place: usize, series: usize) {
        self.nodes.borrow_mut()[place].series_out += series as u64;
    }

    /// Measures `node` while it is evaluated as a whole.
    pub(crate) fn operand(
        &self,
        evaluator: &Evaluator<'_>,
        node: &Node<'_>,
        steps: &Steps,
        evaluate: impl FnOnce() -> Result<Operand, EvalError>,
    ) -> Result<Operand, EvalError> {
        let Some((place, before)) = self.begin(evaluator, node, steps) else { return evaluate() };
        let value = evaluate();
        if let Ok(value) = &value {
            self.yielded(place, if let Operand::Vector(vector) = value { vector.len() } else { 1 });
        }
        self.turn_to(evaluator, before);
        value
    }

    /// Measures `node` while it gives its series to `sink`, whose time is that of who takes them.
    pub(crate) fn series(
        &self,
        evaluator: &Evaluator<'_>,
        node: &Node<'_>,
        steps: &Steps,
        sink: Sink<'_>,
        stream: impl FnOnce(Sink<'_>) -> Result<(), EvalError>,
    ) -> Result<(), EvalError> {
        let Some((place, before)) = self.begin(evaluator, node, steps) else { return stream(sink) };
        let outcome = stream(&mut |series: &mut SeriesRow| {
            self.yielded(place, 1);
            self.turn_to(evaluator, before);
            let taken = sink(series);
            self.turn_to(evaluator, place);
            taken
        });
        self.turn_to(evaluator, before);
        outcome
    }

    /// As [`Recorder::series`] for a range vector.
    pub(crate) fn windows(
        &self,
        evaluator: &Evaluator<'_>,
        node: &Node<'_>,
        steps: &Steps,
        f: &mut dyn FnMut(RangeSeries) -> Result<(), EvalError>,
        stream: impl FnOnce(&mut dyn FnMut(RangeSeries) -> Result<(), EvalError>) -> Result<(), EvalError>,
    ) -> Result<(), EvalError> {
        let Some((place, before)) = self.begin(evaluator, node, steps) else { return stream(f) };
        let outcome = stream(&mut |series: RangeSeries| {
            self.yielded(place, 1);
            self.turn_to(evaluator, before);
            let taken = f(series);
            self.turn_to(evaluator, place);
            taken
        });
        self.turn_to(evaluator, before);
        outcome
    }
}

fn address(node: &Node<'_>) -> *const () {
    std::ptr::from_ref(node).cast()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promql::testlang::Memory;
    use crate::promql::{evaluate, parse};
    use crate::storage::Timestamp;
    use larum_storage_format::{Labels, Sample, Value};

    /// `series` series of eleven samples each, one every 10 s.
    fn data(series: usize) -> Memory {
        let mut memory = Memory::default();
        for n in 0..series {
            let labels = Labels::from_pairs([("__name__", "m"), ("n", &n.to_string())]).unwrap();
            for t in 0..=10 {
                let value = Value::Float(f64::from(t));
                let timestamp_ms = i64::from(t) * 10_000;
                memory.insert(&labels, Sample { timestamp_ms, start_timestamp_ms: None, value });
            }
        }
        memory
    }

    fn steps() -> Steps {
        let (start, end) = (Timestamp::from_millis(0), Timestamp::from_millis(60_000));
        Steps::new(start, end, Duration::from_secs(20)).unwrap()
    }

    fn explained(query: &str) -> Explained {
        let options = EvalOptions { explain: true, ..EvalOptions::default() };
        let answer = evaluate(&parse(query).unwrap(), &data(3), steps(), &options).unwrap();
        answer.stats.explained.unwrap()
    }

    #[test]
    fn every_node_tells_what_it_was_given_and_what_it_yields() {
        let query = "sum(rate(m[30s])) / count(m) + vector(1)";
        let found: Vec<_> = explained(query)
            .nodes
            .iter()
            .map(|n| (excerpt(query, n.pos), n.kind, n.parent, n.series_in, n.series_out, n.samples))
            .collect();
        let expected = [
            (query, "binary", None, 2, 1, 0),
            ("sum(rate(m[30s])) / count(m)", "binary", Some(0), 2, 1, 0),
            ("sum(rate(m[30s]))", "aggregation", Some(1), 3, 1, 0),
            ("rate(m[30s])", "call", Some(2), 3, 3, 0),
            ("m[30s]", "matrix", Some(3), 3, 3, 21),
            ("count(m)", "aggregation", Some(1), 3, 1, 0),
            ("m", "selector", Some(5), 3, 3, 21),
            ("vector(1)", "call", Some(0), 1, 1, 0),
            ("1", "number", Some(7), 0, 1, 0),
        ];
        let expected = expected.map(|(text, kind, parent, i, o, s)| (text.to_owned(), kind, parent, i, o, s));
        assert_eq!(found, expected);
    }

    #[test]
    fn the_times_of_nodes_add_up_and_none_is_counted_twice() {
        let explained = explained("max_over_time(sum(m)[30s:10s]) + on() sum(m @ 50)");
        for (index, node) in explained.nodes.iter().enumerate() {
            let below: Duration = explained.below(index).map(|child| explained.nodes[child].time).sum();
            assert_eq!(node.time, node.own_time + below, "{node:?}");
            assert!(node.evaluations > 0, "{node:?}");
        }
        let own: Duration = explained.nodes.iter().map(|node| node.own_time).sum();
        assert_eq!(explained.nodes[0].time, own);
    }

    #[test]
    fn the_tree_is_readable() {
        let query = "sum(\n  rate(m[30s])\n)";
        let text = explained(query).text(query);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("aggregation: sum( rate(m[30s]) ) ("), "{text}");
        assert!(lines[2].starts_with("    matrix: m[30s] (") && lines[2].contains("series 3 -> 3"), "{text}");
        assert!(lines[2].contains("samples 21"), "{text}");
    }

    #[test]
    fn an_estimate_names_each_selector_and_what_it_would_read() {
        let estimates = |query: &str, series| {
            let query = parse(query).unwrap();
            estimate(&query, &data(series), steps(), &EvalOptions::default(), Care::Thorough)
                .unwrap()
                .selectors
        };
        let found = estimates("sum(rate(m[30s])) + on() m{n='1'} + on() max_over_time(sum(m)[1m:10s])", 3);
        let figures: Vec<_> =
            found.iter().map(|e| (e.steps, e.min_ms, e.max_ms, e.series, e.cost.samples)).collect();
        let expected = [
            (4, -29_999, 60_000, 3, 21),
            (4, -299_999, 60_000, 1, 7),
            // At steps of its own.
            (12, -349_999, 60_000, 3, 21),
        ];
        assert_eq!(figures, expected);
        let many = &estimates("m", 1000)[0];
        assert_eq!((many.series, many.is_extrapolated, many.cost.samples), (1000, true, 7000));
        let text = estimate_text("m", std::slice::from_ref(many));
        assert_eq!(
            text,
            "m: 1000 series, about 1000 chunks, about 7000 samples, about 54KiB to read, for 4 steps\n"
        );
    }

    #[test]
    fn small_selections_are_expected_to_take_less_than_large_ones() {
        for (series, samples, steps, ms) in [
            (1, 240, 1, 0),
            // The rates of a dashboard's panel; all series at one time; many over a day; more than there can be.
            (800, 800 * 240, 241, 1),
            (50_000, 50_000 * 20, 1, 17),
            (50_000, 50_000 * 5760, 1440, 951),
            (u64::MAX, u64::MAX, 11_000, u128::from(u64::MAX) / 1_000_000),
        ] {
            let cost = ReadCost { samples, ..ReadCost::default() };
            let pos = Pos { start: 0, end: 0 };
            let selector =
                SelectorEstimate { pos, steps, min_ms: 0, max_ms: 0, series, cost, is_extrapolated: true };
            let estimate = Estimate { selectors: vec![selector], ..Estimate::default() };
            assert_eq!(estimate.time().as_millis(), ms, "{series} {samples} {steps}");
        }
    }

    #[test]
    fn what_reads_little_may_still_be_much_work() {
        for (query, looked_at, inner_steps) in [
            ("sum(m)", 0, 0),
            // Rates and sums do not look at each sample of each window, medians do.
            ("rate(m[30s])", 0, 0),
            ("stddev_over_time(m[30s])", 28, 0),
            ("sum_over_time(vector(1)[1d:1s])", 0, 86_460),
            ("stddev_over_time(vector(1)[1d:1s])", 4 * 86_400, 86_460),
            ("stddev_over_time(vector(1)[1d:1s] @ 5)", 86_400, 86_400),
        ] {
            let expr = parse(query).unwrap();
            let found = estimate(&expr, &data(3), steps(), &EvalOptions::default(), Care::Rough).unwrap();
            assert_eq!((found.looked_at, found.inner_steps), (looked_at, inner_steps), "{query}");
        }
    }

    #[test]
    fn long_pieces_of_a_query_are_cut_between_characters() {
        let query = "ü".repeat(150);
        let pos = Pos { start: 0, end: query.len() as u32 };
        assert_eq!(excerpt(&query, pos), "ü".repeat(100) + "...");
        assert_eq!(excerpt("short", Pos { start: 2, end: 9 }), "?", "of another query");
    }
}
