//! Evaluation: an expression over steps to a value.

use super::annotations::Annotations;
use super::ast::{Call, Expr, Pos, ValueType};
use super::explain::Recorder;
use super::functions::Kernel;
use super::limits::{Budget, Held, Spent};
use super::plan::{self, Kind, Node};
use super::progress::Progress;
use super::queryable::Counter;
use super::row::{Row, SeriesRow, Vector};
use super::slices::{self, Feed, Threads};
use super::steps::Steps;
use super::value::{Answer, FloatPoint, HistogramPoint, Series, Value, VectorElement};
use super::{aggregate, binary, histogram, merge, selector, window};
use crate::budget::Reservation;
use crate::storage::{ReadError, Source};
use larum_storage_format::Labels;
use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How an expression is evaluated. The defaults are the server's.
#[derive(Debug, Clone)]
pub struct EvalOptions {
    /// How long a sample counts as present where there is none newer (`--query.lookback-delta`).
    pub lookback_delta: Duration,
    /// The most samples held at one time (`--query.max-samples`).
    pub max_samples: u64,
    /// When to give up.
    pub deadline: Option<Instant>,
    /// Set by somebody else to stop the evaluation.
    pub cancel: Option<Arc<AtomicBool>>,
    /// Who watches the evaluation, and may end it.
    pub progress: Option<Arc<Progress>>,
    /// What threads may help. Without, an evaluation has but its own.
    pub threads: Option<Arc<Threads>>,
    /// Whether samples are counted that steps look at, for [`super::value::Stats::queryable`].
    pub count_samples: bool,
    /// Whether is measured what each node takes, for [`super::value::Stats::explained`].
    pub explain: bool,
    /// What the evaluation takes memory from; the answer stays reserved there. Without, [`crate::Db`]
    /// takes it from its budget, and [`evaluate`] counts none.
    pub memory: Option<Arc<Reservation>>,
    /// Whether steps of a range query may be taken from what [`crate::Db`] keeps of earlier ones, if it
    /// keeps any. The answer is the same, but for what the evaluation took.
    pub use_cache: bool,
    /// The step of subqueries without one: the global evaluation interval.
    pub default_subquery_step: Duration,
    /// `promql-delayed-name-removal`: drop `__name__` at the end rather than at once.
    pub delayed_name_removal: bool,
    /// `use-start-timestamps`: rates know when counters began.
    pub use_start_timestamps: bool,
    /// `type-and-unit-labels`: whether something is a counter is told by its label `__type__` instead of
    /// its name.
    pub type_and_unit_labels: bool,
}

impl Default for EvalOptions {
    fn default() -> EvalOptions {
        EvalOptions {
            lookback_delta: Duration::from_secs(5 * 60),
            max_samples: 50_000_000,
            deadline: None,
            cancel: None,
            progress: None,
            threads: None,
            count_samples: false,
            explain: false,
            memory: None,
            use_cache: true,
            default_subquery_step: Duration::from_secs(60),
            delayed_name_removal: false,
            use_start_timestamps: false,
            type_and_unit_labels: false,
        }
    }
}

/// Why an evaluation failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// The query cannot be answered (many-to-many matching, invalid arguments); upstream's text.
    #[error("{0}")]
    Execution(String),
    /// More samples than allowed.
    #[error("query processing would load too many samples into memory in query execution")]
    TooManySamples,
    /// It would take more memory than there is; says which selector, and what would fit.
    #[error("{0}")]
    Memory(String),
    /// The deadline passed.
    #[error("query timed out in expression evaluation")]
    Timeout,
    /// Somebody stopped it.
    #[error("query was canceled in expression evaluation")]
    Canceled,
    /// Somebody stopped this one query, and says why.
    #[error("query was canceled in expression evaluation: {0}")]
    CanceledBy(String),
    /// The data could not be read.
    #[error(transparent)]
    Storage(#[from] ReadError),
}

/// Evaluates a checked expression at every step.
///
/// An instant query (one step, width 0) yields whatever type the expression has; a range query
/// yields a matrix, and takes only scalar and vector expressions.
pub fn evaluate(
    expr: &Expr,
    source: &dyn Source,
    steps: Steps,
    options: &EvalOptions,
) -> Result<Answer, EvalError> {
    evaluate_noting(expr, source, steps, options).map(|evaluated| evaluated.answer)
}

/// An answer, and what who keeps it must know besides.
pub(crate) struct Evaluated {
    /// The answer.
    pub(crate) answer: Answer,
    /// Whether a native histogram that was read first of its series says that no counter reset came
    /// before it: with more samples before it, that might have been taken back.
    pub(crate) unchecked_hints: bool,
}

/// As [`evaluate`].
pub(crate) fn evaluate_noting(
    expr: &Expr,
    source: &dyn Source,
    steps: Steps,
    options: &EvalOptions,
) -> Result<Evaluated, EvalError> {
    on_enough_stack(expr, || evaluate_here(expr, source, steps, options))
}

/// Does `work`, which walks `expr`, on a stack that is large enough.
pub(super) fn on_enough_stack<T: Send>(
    expr: &Expr,
    work: impl FnOnce() -> Result<T, EvalError> + Send,
) -> Result<T, EvalError> {
    let depth = plan::depth(expr);
    if depth <= SHALLOW {
        return work();
    }
    // The tree is walked by recursion. What is nested more than anybody writes by hand gets a
    // stack of its own, so that the caller's need not be large.
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("promql-deep".to_owned())
            .stack_size(depth * STACK_PER_LEVEL_BYTES)
            .spawn_scoped(scope, work)
            .map_err(|error| EvalError::Execution(format!("no thread for a deeply nested query: {error}")))?
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Up to which depth a query is evaluated on the caller's stack.
pub(crate) const SHALLOW: usize = 24;

/// What one level of a query takes of the stack at most: a subquery in an unoptimised build.
const STACK_PER_LEVEL_BYTES: usize = 64 << 10;

fn evaluate_here(
    expr: &Expr,
    source: &dyn Source,
    steps: Steps,
    options: &EvalOptions,
) -> Result<Evaluated, EvalError> {
    let _busy = options.threads.as_ref().map(|threads| threads.begin());
    let mut evaluator = Evaluator::new(source, options, &steps);
    let root = plan::plan(expr, &steps, options)?;
    evaluator.recorder = options.explain.then(|| Recorder::new(&root));
    let value = evaluator.answer(&root, steps)?;
    let mut stats = evaluator.budget.stats();
    stats.explained = evaluator.recorder.as_ref().map(|recorder| recorder.finish(&evaluator));
    stats.queryable = evaluator.counter.into_inner();
    let answer = Answer { value, annotations: evaluator.annotations.into_inner(), stats };
    Ok(Evaluated { answer, unchecked_hints: evaluator.unchecked_hints.get() })
}

pub(crate) fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The value of a node, over all steps.
#[derive(Debug)]
pub(crate) enum Operand {
    /// One float per step.
    Scalar(Vec<f64>),
    /// Text.
    Text(String),
    /// Series with one value per step, or none.
    Vector(Vector),
}

impl Operand {
    /// What it holds of the budget.
    fn held(&self) -> Held {
        match self {
            Operand::Scalar(row) => Held::row(row.len() as u64),
            Operand::Text(_) => Held::default(),
            Operand::Vector(vector) => vector.iter().map(Held::series).sum(),
        }
    }

    /// The scalar, one float per step.
    ///
    /// # Panics
    /// If it is none, which the parser's checks keep from happening.
    pub(crate) fn scalar(self) -> Vec<f64> {
        match self {
            Operand::Scalar(row) => row,
            _ => unreachable!("the parser checks that a scalar stands here"),
        }
    }

    /// The instant vector.
    ///
    /// # Panics
    /// If it is none, which the parser's checks keep from happening.
    pub(crate) fn vector(self) -> Vector {
        match self {
            Operand::Vector(vector) => vector,
            _ => unreachable!("the parser checks that a vector stands here"),
        }
    }

    /// The text.
    ///
    /// # Panics
    /// If it is none, which the parser's checks keep from happening.
    pub(crate) fn text(self) -> String {
        match self {
            Operand::Text(text) => text,
            _ => unreachable!("the parser checks that a string stands here"),
        }
    }
}

/// A call on its way: what functions may know besides their arguments.
pub(crate) struct Site<'e, 'a> {
    /// Evaluates arguments, takes annotations.
    pub(crate) evaluator: &'e Evaluator<'a>,
    /// The call as written.
    pub(crate) call: &'e Call,
    /// Where it stands.
    pub(crate) pos: Pos,
    /// The arguments as planned.
    pub(crate) args: &'e [Node<'e>],
    /// The steps.
    pub(crate) steps: Steps,
}

/// Takes series one after the other. It may take the row out; what it leaves is used again.
pub(crate) type Sink<'s> = &'s mut dyn FnMut(&mut SeriesRow) -> Result<(), EvalError>;

/// What a part of an evaluation that ran apart has read and found.
pub(crate) struct Apart {
    spent: Spent,
    annotations: Annotations,
    unchecked_hints: bool,
}

/// One evaluation: where the data is, what is allowed, and what there is to say.
pub(crate) struct Evaluator<'a> {
    pub(crate) source: &'a dyn Source,
    pub(crate) options: &'a EvalOptions,
    pub(crate) lookback_ms: i64,
    pub(crate) budget: Budget,
    pub(crate) counter: Counter,
    /// Where somebody asked what the nodes take.
    pub(crate) recorder: Option<Recorder>,
    /// Whether series come in an order that does not depend on the steps, so that each step has the same
    /// value to the last bit whatever other steps are evaluated with it. The one step of an instant query
    /// does without.
    pub(crate) in_lasting_order: bool,
    /// See [`Evaluated::unchecked_hints`].
    pub(crate) unchecked_hints: Cell<bool>,
    /// Where several threads share out the series of a selector: what this one reads of them.
    pub(crate) feed: Option<&'a dyn Feed>,
    annotations: RefCell<Annotations>,
}

impl<'a> Evaluator<'a> {
    /// Nothing evaluated yet.
    pub(crate) fn new(source: &'a dyn Source, options: &'a EvalOptions, steps: &Steps) -> Evaluator<'a> {
        Evaluator {
            source,
            options,
            lookback_ms: milliseconds(options.lookback_delta).max(1),
            budget: Budget::new(options.max_samples, options.memory.clone(), options.progress.clone()),
            counter: Counter::new(options.count_samples, steps),
            recorder: None,
            in_lasting_order: steps.step_ms() > 0,
            unchecked_hints: Cell::new(false),
            feed: None,
            annotations: RefCell::default(),
        }
    }

    /// A part of an evaluation that reads what it is fed with, and may hold so many samples.
    pub(crate) fn sharing(
        source: &'a dyn Source,
        options: &'a EvalOptions,
        steps: &Steps,
        max_samples: u64,
        feed: &'a dyn Feed,
    ) -> Evaluator<'a> {
        let budget = Budget::new(max_samples, options.memory.clone(), options.progress.clone());
        Evaluator { budget, feed: Some(feed), ..Evaluator::new(source, options, steps) }
    }

    /// Ends such a part.
    pub(crate) fn apart(self) -> Apart {
        let (spent, annotations) = (self.budget.into_spent(), self.annotations.into_inner());
        Apart { spent, annotations, unchecked_hints: self.unchecked_hints.get() }
    }

    /// Adds what such a part has read and found.
    pub(crate) fn absorb(&self, apart: Apart) {
        self.budget.absorb(apart.spent);
        self.annotations.borrow_mut().merge(apart.annotations);
        self.unchecked_hints.set(self.unchecked_hints.get() | apart.unchecked_hints);
    }

    /// Adds a warning, caused by the expression at `pos`.
    pub(crate) fn warn(&self, text: impl Display, pos: Pos) {
        self.annotations.borrow_mut().warn(text, pos);
    }

    /// Adds an info, caused by the expression at `pos`.
    pub(crate) fn info(&self, text: impl Display, pos: Pos) {
        self.annotations.borrow_mut().info(text, pos);
    }

    /// Adds a warning of the storage.
    pub(crate) fn storage_warning(&self, text: String) {
        self.annotations.borrow_mut().storage_warning(text);
    }

    /// Fails once the evaluation is canceled or has lasted too long. To be called for every series
    /// and every few thousand steps of work.
    pub(crate) fn alive(&self) -> Result<(), EvalError> {
        if self.options.cancel.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed)) {
            return Err(EvalError::Canceled);
        }
        if let Some(why) = self.options.progress.as_ref().and_then(|progress| progress.canceled()) {
            return Err(EvalError::CanceledBy(why.to_owned()));
        }
        match self.options.deadline {
            Some(deadline) if Instant::now() >= deadline => Err(EvalError::Timeout),
            _ => Ok(()),
        }
    }

    /// The result of the whole query.
    fn answer(&self, root: &Node<'_>, steps: Steps) -> Result<Value, EvalError> {
        self.budget.check_steps(&steps)?;
        let range = steps.step_ms() > 0;
        Ok(match root.value_type {
            ValueType::Matrix => {
                let mut matrix = window::matrix(self, root, &steps)?;
                matrix.sort_by(|a, b| a.labels.cmp(&b.labels));
                Value::Matrix(matrix)
            }
            ValueType::String => Value::String(self.operand(root, &steps)?.text()),
            ValueType::Scalar => {
                let row = self.operand(root, &steps)?.scalar();
                if range {
                    let floats = steps.iter().zip(row).map(|(t_ms, value)| FloatPoint { t_ms, value });
                    let floats = floats.collect();
                    Value::Matrix(vec![Series { floats, ..Series::default() }])
                } else {
                    Value::Scalar(FloatPoint { t_ms: steps.start_ms(), value: row[0] })
                }
            }
            ValueType::Vector => {
                let vector = self.vector(root, &steps)?;
                let vector = merge::finish(vector)?;
                // Points have their times with them.
                let points: usize = vector.iter().map(|series| series.row.points()).sum();
                self.budget.take_bytes((points * size_of::<FloatPoint>()) as u64)?;
                if range { Value::Matrix(matrix(vector, &steps)) } else { instant(vector, &steps) }
            }
        })
    }

    /// The value of a node.
    pub(crate) fn operand(&self, node: &Node<'_>, steps: &Steps) -> Result<Operand, EvalError> {
        self.alive()?;
        self.budget.collects(None);
        let before = self.budget.held();
        let count = steps.count();
        let value = if node.invariant && count > 1 {
            let once = self.counter.repeated(|| self.operand(node, &steps.first()))?;
            self.budget.hold(count as u64)?;
            match once {
                Operand::Scalar(row) => Operand::Scalar(vec![row[0]; count]),
                Operand::Text(text) => Operand::Text(text),
                Operand::Vector(mut vector) => {
                    for series in &mut vector {
                        self.budget.hold(count as u64)?;
                        series.row = series.row.repeated(count);
                    }
                    Operand::Vector(vector)
                }
            }
        } else if let Some(recorder) = &self.recorder {
            recorder.operand(self, node, steps, || self.evaluate(node, steps))?
        } else {
            self.evaluate(node, steps)?
        };
        self.budget.settle(before, value.held())?;
        Ok(value)
    }

    fn evaluate(&self, node: &Node<'_>, steps: &Steps) -> Result<Operand, EvalError> {
        match &node.kind {
            Kind::Number(number) => Ok(Operand::Scalar(vec![*number; steps.count()])),
            Kind::Text(text) => Ok(Operand::Text((*text).to_owned())),
            Kind::Aggregate { aggregate, param, expr } => {
                aggregate::evaluate(self, node, aggregate, param.as_deref(), expr, steps).map(Operand::Vector)
            }
            Kind::Binary { binary, lhs, rhs } => binary::evaluate(self, node, binary, lhs, rhs, steps),
            Kind::Call { call, args } => self.call(node, call, args, steps),
            Kind::Negate(inner) if node.value_type == ValueType::Scalar => {
                let mut row = self.operand(inner, steps)?.scalar();
                row.iter_mut().for_each(|v| *v = -*v);
                Ok(Operand::Scalar(row))
            }
            Kind::Selector(_) | Kind::Negate(_) => self.collect(node, steps).map(Operand::Vector),
            Kind::Matrix { .. } | Kind::Subquery(_) => unreachable!("only functions take range vectors"),
        }
    }

    fn call(
        &self,
        node: &Node<'_>,
        call: &Call,
        args: &[Node<'_>],
        steps: &Steps,
    ) -> Result<Operand, EvalError> {
        match call.function.kernel {
            Kernel::Float(_)
            | Kernel::Window(_)
            | Kernel::Sums { .. }
            | Kernel::KeepName(_)
            | Kernel::Rate(_) => self.collect(node, steps).map(Operand::Vector),
            Kernel::Date(f) if args.is_empty() => {
                let floats = steps.iter().map(|t_ms| f(t_ms.div_euclid(1000) as f64)).collect();
                let labels = Labels::empty();
                Ok(Operand::Vector(vec![SeriesRow { labels, drop_name: false, row: Row::full(floats) }]))
            }
            Kernel::Date(_) => self.collect(node, steps).map(Operand::Vector),
            Kernel::Scalar(f) => {
                let rows: Vec<Vec<f64>> = args
                    .iter()
                    .map(|arg| Ok(self.operand(arg, steps)?.scalar()))
                    .collect::<Result<_, EvalError>>()?;
                let mut at_step = vec![0.0; rows.len()];
                let row = steps.iter().enumerate().map(|(i, t_ms)| {
                    at_step.iter_mut().zip(&rows).for_each(|(v, row)| *v = row[i]);
                    f(t_ms, &at_step)
                });
                Ok(Operand::Scalar(row.collect()))
            }
            Kernel::Whole(f) => {
                let operands = args.iter().map(|arg| self.operand(arg, steps)).collect::<Result<_, _>>()?;
                f(&Site { evaluator: self, call, pos: node.pos, args, steps: *steps }, operands)
            }
            Kernel::Node(f) => f(&Site { evaluator: self, call, pos: node.pos, args, steps: *steps }),
            Kernel::Query(f) => Ok(Operand::Scalar(vec![f(steps); steps.count()])),
        }
    }

    /// An instant vector with all its series.
    pub(crate) fn vector(&self, node: &Node<'_>, steps: &Steps) -> Result<Vector, EvalError> {
        Ok(self.operand(node, steps)?.vector())
    }

    /// Gives the series of an instant vector to `sink` one by one, without holding all of them
    /// where the node allows it. Series may come with a name that is to be dropped still on.
    pub(crate) fn each_series(
        &self,
        node: &Node<'_>,
        steps: &Steps,
        sink: Sink<'_>,
    ) -> Result<(), EvalError> {
        if plan::streams(node, self.options.delayed_name_removal) && !(node.invariant && steps.count() > 1) {
            return match &self.recorder {
                None => self.stream(node, steps, sink),
                Some(recorder) => {
                    recorder.series(self, node, steps, sink, |sink| self.stream(node, steps, sink))
                }
            };
        }
        for mut series in self.vector_in_order(node, steps)? {
            sink(&mut series)?;
        }
        Ok(())
    }

    /// An instant vector with all its series, for who adds them up or picks some of them. What a selector
    /// gives comes in its order; all else in that of the labels, as what stood first at some step may not
    /// be there at others.
    pub(crate) fn vector_in_order(&self, node: &Node<'_>, steps: &Steps) -> Result<Vector, EvalError> {
        let mut vector = self.vector(node, steps)?;
        if self.in_lasting_order && !plan::streams(node, self.options.delayed_name_removal) {
            vector.sort_by(|a, b| a.labels.cmp(&b.labels));
        }
        Ok(vector)
    }

    /// All series of a streaming node, with their final names and merged where these are equal.
    fn collect(&self, node: &Node<'_>, steps: &Steps) -> Result<Vector, EvalError> {
        let mut vector = Vector::new();
        let mut dropped = false;
        self.budget.collects(Some(steps.count()));
        self.stream(node, steps, &mut |series| {
            self.budget.take(Held::series(series))?;
            let row = std::mem::replace(&mut series.row, Row::absent(0));
            let mut labels = series.labels.clone();
            if series.drop_name && !self.options.delayed_name_removal {
                labels = merge::without_name(&labels);
                dropped = true;
            }
            vector.push(SeriesRow { labels, drop_name: series.drop_name, row });
            Ok(())
        })?;
        if dropped { merge::merge(vector) } else { Ok(vector) }
    }

    fn stream(&self, node: &Node<'_>, steps: &Steps, sink: Sink<'_>) -> Result<(), EvalError> {
        match &self.options.threads {
            Some(threads)
                if self.is_whole() && slices::can_be_sliced(node, self.options.delayed_name_removal) =>
            {
                slices::stream(self, threads, node, steps, sink)
            }
            _ => self.stream_here(node, steps, sink),
        }
    }

    /// Whether this is no part of an evaluation, and nobody measures or counts what its nodes do.
    fn is_whole(&self) -> bool {
        self.feed.is_none() && self.recorder.is_none() && !self.counter.is_on()
    }

    /// As [`Evaluator::stream`], by this thread alone.
    pub(crate) fn stream_here(
        &self,
        node: &Node<'_>,
        steps: &Steps,
        sink: Sink<'_>,
    ) -> Result<(), EvalError> {
        match &node.kind {
            Kind::Selector(selector) => selector::each(self, selector, node.pos, steps, sink),
            Kind::Negate(inner) => self.each_series(inner, steps, &mut |series| {
                series.row.map(|_, v| -v);
                for (_, histogram) in &mut series.row.histograms {
                    *histogram = Arc::new(histogram::scaled(histogram, -1.0));
                }
                series.drop_name = true;
                sink(series)
            }),
            Kind::Call { call, args } => match call.function.kernel {
                Kernel::Float(f) | Kernel::Date(f) => self.each_series(&args[0], steps, &mut |series| {
                    series.row.map(|_, v| f(v));
                    series.row.histograms.clear();
                    series.drop_name = true;
                    if series.row.points() > 0 { sink(series) } else { Ok(()) }
                }),
                _ => window::each(self, call, args, steps, sink),
            },
            _ => unreachable!("see `plan::streams`"),
        }
    }
}

fn instant(vector: Vector, steps: &Steps) -> Value {
    let t_ms = steps.start_ms();
    let element = |series: SeriesRow| {
        let value = series.row.value(0)?;
        Some(VectorElement { labels: series.labels, t_ms, value })
    };
    Value::Vector(vector.into_iter().filter_map(element).collect())
}

fn matrix(vector: Vector, steps: &Steps) -> Vec<Series> {
    let mut matrix: Vec<Series> = vector
        .into_iter()
        .map(|SeriesRow { labels, row, .. }| {
            let mut floats = Vec::with_capacity(row.present.count(row.len()));
            row.present
                .for_each(row.len(), |i| floats.push(FloatPoint { t_ms: steps.at(i), value: row.floats[i] }));
            let histograms = row
                .histograms
                .into_iter()
                .map(|(step, value)| HistogramPoint { t_ms: steps.at(step as usize), value })
                .collect();
            Series { labels, floats, histograms }
        })
        .filter(|series| !series.floats.is_empty() || !series.histograms.is_empty())
        .collect();
    matrix.sort_by(|a, b| a.labels.cmp(&b.labels));
    matrix
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::{MemoryBudget, Part};
    use crate::promql::explain::{Care, estimate};
    use crate::promql::parse;
    use crate::promql::testlang::Memory;
    use crate::storage::Timestamp;
    use larum_storage_format::labels::METRIC_NAME;
    use larum_storage_format::{Sample, Value as SampleValue};

    fn memory(series: &[(&str, &[f64])]) -> Memory {
        let mut memory = Memory::default();
        for (name, values) in series {
            let labels = Labels::from_pairs([(METRIC_NAME, *name)]).unwrap();
            for (i, value) in values.iter().enumerate() {
                let timestamp_ms = i as i64 * 10_000;
                let value = SampleValue::Float(*value);
                memory.insert(&labels, Sample { timestamp_ms, start_timestamp_ms: None, value });
            }
        }
        memory
    }

    fn run(memory: &Memory, query: &str, steps: Steps, options: &EvalOptions) -> Result<Answer, EvalError> {
        evaluate(&parse(query).unwrap(), memory, steps, options)
    }

    fn steps(count: i64) -> Steps {
        let end = Timestamp::from_millis((count - 1) * 10_000);
        Steps::new(Timestamp::from_millis(0), end, Duration::from_secs(10)).unwrap()
    }

    #[test]
    fn a_name_is_dropped_at_once_or_at_the_end() {
        let memory = memory(&[("a", &[1.0, 2.0]), ("b", &[3.0, 4.0])]);
        let query = r#"sum by (__name__) (rate({__name__=~"a|b"}[1m]))"#;
        let eager = EvalOptions::default();
        let at = Steps::instant(Timestamp::from_millis(10_000));
        let error = run(&memory, query, at, &eager).unwrap_err().to_string();
        assert_eq!(error, "vector cannot contain metrics with the same labelset");
        let delayed = EvalOptions { delayed_name_removal: true, ..EvalOptions::default() };
        let error = run(&memory, query, at, &delayed).unwrap_err().to_string();
        assert_eq!(
            error, "vector cannot contain metrics with the same labelset",
            "two series without a name"
        );
        let count = format!("count({query})");
        let Value::Vector(vector) = run(&memory, &count, at, &delayed).unwrap().value else { panic!() };
        assert!(matches!(vector[0].value, SampleValue::Float(2.0)), "{vector:?}");
    }

    #[test]
    fn more_samples_than_allowed_are_an_error_and_memory_is_not_asked_for() {
        let memory = memory(&[("a", &[1.0; 100])]);
        let options = EvalOptions { max_samples: 150, ..EvalOptions::default() };
        for (query, count, fails) in [
            ("a", 100, false),
            ("a + a", 100, true),
            ("sum_over_time(a[10m])", 20, false),
            ("a", 1_000_000_000_000, true),
            ("1", 1_000_000_000_000, true),
            ("max_over_time(vector(1)[10000h:1ms])", 1, true),
        ] {
            let outcome = run(&memory, query, steps(count), &options);
            assert_eq!(matches!(outcome, Err(EvalError::TooManySamples)), fails, "{query}: {outcome:?}");
        }
    }

    /// A name, and how many series have it.
    fn many(series: usize) -> Memory {
        let mut memory = Memory::default();
        for n in 0..series {
            let labels = Labels::from_pairs([(METRIC_NAME, "m"), ("n", &n.to_string())]).unwrap();
            for t in 0..2 {
                let value = SampleValue::Float(t as f64);
                memory.insert(&labels, Sample { timestamp_ms: t * 10_000, start_timestamp_ms: None, value });
            }
        }
        memory
    }

    #[test]
    fn a_query_that_does_not_fit_into_memory_is_refused_and_says_what_would() {
        let data = many(200);
        let budget = MemoryBudget::new(4 << 20);
        for (query, count, begins) in [
            // 200 rows of 8 B a step; the limit leaves 3.2 MiB.
            ("m", 100, None),
            (
                "m",
                10_000,
                Some(
                    "not enough memory for the query: {__name__=\"m\"} selects 200 series, which take about 15.3MiB at 10000 steps; 3.2MiB are free for queries under the memory limit of 4.0MiB, enough for 41 such series or 2065 steps",
                ),
            ),
            (
                "rate(m[1m])",
                10_000,
                Some("not enough memory for the query: {__name__=\"m\"} selects 200 series"),
            ),
            ("m + m", 10_000, Some("not enough memory for the query: {__name__=\"m\"} selects 200 series")),
            ("sum(m)", 10_000, None),
            (
                "topk(1, m)",
                10_000,
                Some("not enough memory for the query: {__name__=\"m\"} selects 200 series"),
            ),
            (
                "max_over_time(m[1000m:1s])",
                1,
                Some("not enough memory for the query: {__name__=\"m\"} selects"),
            ),
            // Nobody knows how many groups there will be.
            ("sum by (n) (m)", 10_000, Some("not enough memory for the query: it holds")),
            ("count_values(\"v\", m)", 10_000, None),
        ] {
            let memory = Arc::new(budget.reservation(Part::Queries));
            let options = EvalOptions { memory: Some(memory.clone()), ..EvalOptions::default() };
            let outcome = run(&data, query, steps(count), &options);
            match (&outcome, begins) {
                (Ok(_), None) => {}
                (Err(EvalError::Memory(text)), Some(begins)) => assert!(text.starts_with(begins), "{text}"),
                _ => panic!("{query}: {outcome:?}"),
            }
            if outcome.is_ok() {
                drop(outcome);
                assert!(memory.used() < 1 << 20, "{query}: only the answer is held: {}", memory.used());
            }
            drop((options, memory));
            assert_eq!(budget.status().reserved(Part::Queries), 0, "{query}");
        }
    }

    #[test]
    fn rules_have_memory_that_queries_do_not_get() {
        let data = many(200);
        let budget = MemoryBudget::new(4 << 20);
        let query = Arc::new(budget.reservation(Part::Queries));
        query.grow(query.room()).unwrap();
        let evaluate = |part| {
            let memory = Some(Arc::new(budget.reservation(part)));
            run(&data, "m", steps(100), &EvalOptions { memory, ..EvalOptions::default() })
        };
        assert!(matches!(evaluate(Part::Queries), Err(EvalError::Memory(_))));
        assert!(evaluate(Part::Rules).is_ok());
    }

    #[test]
    fn a_canceled_or_late_query_stops() {
        let memory = memory(&[("a", &[1.0; 10])]);
        let cancel = Some(Arc::new(AtomicBool::new(true)));
        let options = EvalOptions { cancel, ..EvalOptions::default() };
        assert!(matches!(run(&memory, "sum(a)", steps(10), &options), Err(EvalError::Canceled)));
        let options = EvalOptions { deadline: Some(Instant::now()), ..EvalOptions::default() };
        assert!(matches!(run(&memory, "sum(a)", steps(10), &options), Err(EvalError::Timeout)));
    }

    #[test]
    fn who_watches_sees_how_far_it_is_and_may_end_it() {
        let data = many(200);
        let progress = Arc::new(Progress::default());
        let options = EvalOptions { progress: Some(progress.clone()), ..EvalOptions::default() };
        run(&data, "sum(m)", steps(2), &options).unwrap();
        assert_eq!((progress.series(), progress.samples()), (200, 400));
        assert!(progress.cancel("by an operator") && !progress.cancel("by another"));
        let error = run(&data, "sum(m)", steps(2), &options).unwrap_err().to_string();
        assert_eq!(error, "query was canceled in expression evaluation: by an operator");
    }

    #[test]
    fn what_does_not_depend_on_the_step_reads_its_samples_once() {
        let memory = memory(&[("a", &[1.0; 100])]);
        let options = EvalOptions::default();
        let answer = run(&memory, "sum_over_time(a[10s] @ 50)", steps(100), &options).unwrap();
        assert_eq!(answer.stats.samples, 1);
        let Value::Matrix(matrix) = answer.value else { panic!() };
        assert_eq!(matrix[0].floats.len(), 100);
    }

    #[test]
    fn the_deepest_query_that_parses_can_be_evaluated() {
        let memory = memory(&[("a", &[1.0])]);
        for (open, close) in [("-(", ")"), ("sum(", ")"), ("1+(", ")"), ("max_over_time(", "[1m:])")] {
            let deepest = (1..=1000).rev().find_map(|depth| {
                let query = format!("{}a{}", open.repeat(depth), close.repeat(depth));
                Some((depth, parse(&query).ok()?))
            });
            let (depth, expr) = deepest.unwrap();
            assert!(depth >= 100, "{open}: {depth}");
            let at = Steps::instant(Timestamp::from_millis(0));
            assert!(evaluate(&expr, &memory, at, &EvalOptions::default()).is_ok(), "{open}");
            assert!(estimate(&expr, &memory, at, &EvalOptions::default(), Care::Rough).is_ok(), "{open}");
        }
    }
}
