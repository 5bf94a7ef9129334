//! The plan of a query: its tree with every duration worked out, `@` resolved, and the parts
//! marked whose value is the same at every step, so that they are evaluated once.

use super::ast::{
    Aggregate, AggregateOp, At, Binary, BinaryOp, Call, DurationExpr, DurationKind, DurationOp, Expr,
    ExprKind, Modifiers, Pos, RangeExtension, UnaryOp, ValueType, VectorSelector,
};
use super::eval::{EvalError, EvalOptions, milliseconds};
use super::extended;
use super::functions::Kernel;
use super::merge::METRIC_TYPE;
use super::steps::Steps;
use crate::storage::{MatchOp, Matcher};
use larum_storage_format::labels::METRIC_NAME;
use std::cell::Cell;
use std::sync::Arc;

/// A node of the plan.
#[derive(Debug)]
pub(crate) struct Node<'a> {
    /// What it is.
    pub(crate) kind: Kind<'a>,
    /// Where it stands in the query, without parentheses around it.
    pub(crate) pos: Pos,
    /// The type of its value.
    pub(crate) value_type: ValueType,
    /// Whether its value is the same at every step.
    pub(crate) invariant: bool,
}

/// The kinds of nodes. Parentheses and unary plus are gone.
#[derive(Debug)]
pub(crate) enum Kind<'a> {
    Number(f64),
    Text(&'a str),
    Selector(Selector<'a>),
    Matrix { selector: Selector<'a>, range_ms: i64 },
    Subquery(Box<Subquery<'a>>),
    Call { call: &'a Call, args: Vec<Node<'a>> },
    Aggregate { aggregate: &'a Aggregate, param: Option<Box<Node<'a>>>, expr: Box<Node<'a>> },
    Negate(Box<Node<'a>>),
    Binary { binary: &'a Binary, lhs: Box<Node<'a>>, rhs: Box<Node<'a>> },
}

/// What is selected, and where in time it is looked for.
#[derive(Debug)]
pub(crate) struct Selector<'a> {
    /// All must match.
    pub(crate) matchers: &'a [Matcher],
    /// When.
    pub(crate) place: Place,
    /// `anchored` or `smoothed`.
    pub(crate) extension: Option<RangeExtension>,
    /// Whether nothing but count and sum of histograms is of interest.
    pub(crate) statistics: bool,
    /// The names, ascending, of the labels that are of interest; `None` if all are.
    pub(crate) among: Option<Arc<[String]>>,
}

/// `expr[range:step]`
#[derive(Debug)]
pub(crate) struct Subquery<'a> {
    /// What is evaluated.
    pub(crate) expr: Node<'a>,
    /// The width of the window.
    pub(crate) range_ms: i64,
    /// The resolution, above zero.
    pub(crate) step_ms: i64,
    /// When.
    pub(crate) place: Place,
}

/// `offset` and `@`: where a selector looks, seen from a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// `@`
    pub(crate) at_ms: Option<i64>,
    /// `offset`
    pub(crate) offset_ms: i64,
}

impl Place {
    /// Where to look at the step `t_ms`.
    pub(crate) fn time(&self, t_ms: i64) -> i64 {
        self.at_ms.unwrap_or(t_ms).saturating_sub(self.offset_ms)
    }
}

/// Plans `expr`, to be evaluated at `steps`.
pub(crate) fn plan<'a>(expr: &'a Expr, steps: &Steps, options: &EvalOptions) -> Result<Node<'a>, EvalError> {
    Planner { steps: *steps, options, statistics: Cell::new(false) }.node(expr)
}

/// Whether the series of a node can be taken one by one and still be what they would be all
/// together. Where names are dropped at once, two series may become one label set, which is
/// an error or a merge; then they are needed together, unless the selector fixes the name.
pub(crate) fn streams(node: &Node<'_>, delayed_name_removal: bool) -> bool {
    let one_name = |selector: &Selector<'_>| {
        delayed_name_removal
            || selector.matchers.iter().any(|m| m.name() == METRIC_NAME && m.op() == MatchOp::Equal)
    };
    // What streams and is no selector has one name at most.
    let one_name_or_none = |arg: &Node<'_>| match &arg.kind {
        Kind::Selector(selector) => one_name(selector),
        _ => streams(arg, delayed_name_removal),
    };
    match &node.kind {
        Kind::Selector(_) => true,
        Kind::Call { call, args } => match call.function.kernel {
            Kernel::Window(_) | Kernel::Sums { .. } | Kernel::KeepName(_) | Kernel::Rate(_) => args
                .iter()
                .any(|arg| matches!(&arg.kind, Kind::Matrix { selector, .. } if one_name(selector))),
            Kernel::Float(_) | Kernel::Date(_) => args.first().is_some_and(one_name_or_none),
            _ => false,
        },
        Kind::Negate(inner) => one_name_or_none(inner),
        _ => false,
    }
}

/// The names of labels that tell what groups `aggregate` makes and what is to be said about metrics,
/// if that is all it looks at of the labels of `expr`.
fn names_among(aggregate: &Aggregate, expr: &Node<'_>, options: &EvalOptions) -> Option<Arc<[String]>> {
    use AggregateOp::{Bottomk, CountValues, LimitRatio, Limitk, Topk};
    let shows_labels = matches!(aggregate.op, Topk | Bottomk | Limitk | LimitRatio | CountValues);
    // What does not depend on the step may be evaluated as a whole, see `Evaluator::each_series`.
    if shows_labels || aggregate.without || expr.invariant || !streams(expr, options.delayed_name_removal) {
        return None;
    }
    let mut names = aggregate.grouping.clone();
    names.push(METRIC_NAME.to_owned());
    if options.type_and_unit_labels {
        names.push(METRIC_TYPE.to_owned());
    }
    names.sort_unstable();
    names.dedup();
    Some(names.into())
}

/// Tells the selector of a node that streams that no other labels are of interest.
fn select_among(node: &mut Node<'_>, names: &Arc<[String]>) {
    match &mut node.kind {
        Kind::Selector(selector) | Kind::Matrix { selector, .. } => selector.among = Some(names.clone()),
        Kind::Negate(inner) => select_among(inner, names),
        Kind::Call { args, .. } => {
            let series = args.iter_mut().filter(|arg| arg.value_type != ValueType::Scalar);
            series.for_each(|arg| select_among(arg, names));
        }
        _ => {}
    }
}

/// How deeply `expr` is nested.
pub(crate) fn depth(expr: &Expr) -> usize {
    let deepest = |exprs: &[Expr]| exprs.iter().map(depth).max().unwrap_or(0);
    1 + match &expr.kind {
        ExprKind::Number { .. }
        | ExprKind::String(_)
        | ExprKind::NotUtf8 { .. }
        | ExprKind::VectorSelector(_)
        | ExprKind::MatrixSelector(_) => 0,
        ExprKind::Subquery(subquery) => depth(&subquery.expr),
        ExprKind::Call(call) => deepest(&call.args),
        ExprKind::Aggregate(aggregate) => {
            depth(&aggregate.expr).max(aggregate.param.as_deref().map_or(0, depth))
        }
        ExprKind::Unary(_, inner) | ExprKind::Paren(inner) => depth(inner),
        ExprKind::Binary(binary) => depth(&binary.lhs).max(depth(&binary.rhs)),
    }
}

struct Planner<'o> {
    steps: Steps,
    options: &'o EvalOptions,
    /// Whether what is planned now stands in a function that looks at nothing but count and sum of
    /// histograms.
    statistics: Cell<bool>,
}

impl Planner<'_> {
    /// Plans with `statistics` set, or as before if it is `None`.
    fn with_statistics<T>(&self, statistics: Option<bool>, plan: impl FnOnce(&Self) -> T) -> T {
        let outside = self.statistics.get();
        self.statistics.set(statistics.unwrap_or(outside));
        let planned = plan(self);
        self.statistics.set(outside);
        planned
    }

    fn node<'a>(&self, mut expr: &'a Expr) -> Result<Node<'a>, EvalError> {
        while let ExprKind::Paren(inner) | ExprKind::Unary(UnaryOp::Plus, inner) = &expr.kind {
            expr = inner;
        }
        let (kind, value_type, invariant) = match &expr.kind {
            ExprKind::Number { value, .. } => (Kind::Number(*value), ValueType::Scalar, true),
            ExprKind::String(text) | ExprKind::NotUtf8 { value: text, .. } => {
                (Kind::Text(text), ValueType::String, true)
            }
            ExprKind::VectorSelector(selector) => {
                let selector = self.selector(selector)?;
                let invariant = selector.place.at_ms.is_some();
                (Kind::Selector(selector), ValueType::Vector, invariant)
            }
            ExprKind::MatrixSelector(matrix) => {
                let selector = self.selector(&matrix.selector)?;
                let range_ms = self.positive_ms(&matrix.range)?;
                let invariant = selector.place.at_ms.is_some();
                (Kind::Matrix { selector, range_ms }, ValueType::Matrix, invariant)
            }
            ExprKind::Subquery(subquery) => {
                let step_ms = match &subquery.step {
                    Some(step) => self.positive_ms(step)?,
                    None => milliseconds(self.options.default_subquery_step).max(1),
                };
                // What a subquery yields is looked through for resets once more, with all buckets.
                let planned = Subquery {
                    expr: self.with_statistics(Some(false), |planner| planner.node(&subquery.expr))?,
                    range_ms: self.positive_ms(&subquery.range)?,
                    step_ms,
                    place: self.place(&subquery.modifiers)?,
                };
                let invariant = planned.place.at_ms.is_some();
                (Kind::Subquery(Box::new(planned)), ValueType::Matrix, invariant)
            }
            ExprKind::Call(call) => self.call(call)?,
            ExprKind::Aggregate(aggregate) => {
                if let (AggregateOp::CountValues, Some(ExprKind::NotUtf8 { quoted, .. })) =
                    (aggregate.op, aggregate.param.as_deref().map(|param| &param.kind))
                {
                    return Err(EvalError::Execution(format!("invalid label name {quoted}")));
                }
                let param = aggregate.param.as_deref().map(|p| self.node(p)).transpose()?;
                let mut expr = self.node(&aggregate.expr)?;
                if let Some(names) = names_among(aggregate, &expr, self.options) {
                    select_among(&mut expr, &names);
                }
                let invariant = expr.invariant && param.as_ref().is_none_or(|p| p.invariant);
                let kind = Kind::Aggregate { aggregate, param: param.map(Box::new), expr: Box::new(expr) };
                (kind, ValueType::Vector, invariant)
            }
            ExprKind::Unary(_, inner) => {
                let inner = self.node(inner)?;
                let (value_type, invariant) = (inner.value_type, inner.invariant);
                match inner.kind {
                    Kind::Number(number) => (Kind::Number(-number), value_type, invariant),
                    _ => (Kind::Negate(Box::new(inner)), value_type, invariant),
                }
            }
            ExprKind::Binary(binary) => {
                // These look into the buckets.
                let looks = matches!(
                    binary.op,
                    BinaryOp::TrimUpper | BinaryOp::TrimLower | BinaryOp::Eq | BinaryOp::Ne
                );
                let (lhs, rhs) = self.with_statistics(looks.then_some(false), |planner| {
                    Ok::<_, EvalError>((planner.node(&binary.lhs)?, planner.node(&binary.rhs)?))
                })?;
                let invariant = lhs.invariant && rhs.invariant;
                let value_type = match (lhs.value_type, rhs.value_type) {
                    (ValueType::Scalar, ValueType::Scalar) => ValueType::Scalar,
                    _ => ValueType::Vector,
                };
                (Kind::Binary { binary, lhs: Box::new(lhs), rhs: Box::new(rhs) }, value_type, invariant)
            }
            ExprKind::Paren(_) => unreachable!("parentheses are taken off above"),
        };
        Ok(Node { kind, pos: expr.pos, value_type, invariant })
    }

    fn call<'a>(&self, call: &'a Call) -> Result<(Kind<'a>, ValueType, bool), EvalError> {
        if let Kernel::Query(value) = call.function.kernel {
            return Ok((Kind::Number(value(&self.steps)), ValueType::Scalar, true));
        }
        let statistics = match call.function.name {
            "histogram_count" | "histogram_sum" | "histogram_avg" => Some(true),
            name if name.starts_with("histogram_") => Some(false),
            _ => None,
        };
        let args: Vec<Node<'a>> = self.with_statistics(statistics, |planner| {
            call.args.iter().map(|arg| planner.node(arg)).collect::<Result<_, _>>()
        })?;
        check_label_names(call)?;
        for arg in &args {
            if let Kind::Matrix { selector: Selector { extension: Some(extension), .. }, .. } = &arg.kind {
                extended::check_function(*extension, call.function.name)?;
            }
        }
        // A date function without an argument takes the time of the step.
        let timeless = match call.function.kernel {
            Kernel::Date(_) => !args.is_empty(),
            _ => !DEPENDS_ON_STEP.contains(&call.function.name),
        };
        let invariant = timeless && args.iter().all(|arg| arg.invariant);
        Ok((Kind::Call { call, args }, call.function.returns, invariant))
    }

    fn selector<'a>(&self, selector: &'a VectorSelector) -> Result<Selector<'a>, EvalError> {
        let place = self.place(&selector.modifiers)?;
        Ok(Selector {
            matchers: &selector.matchers,
            place,
            extension: selector.extension,
            statistics: self.statistics.get(),
            among: None,
        })
    }

    fn place(&self, modifiers: &Modifiers) -> Result<Place, EvalError> {
        let at_ms = modifiers.at.map(|at| match at {
            At::Time(t_ms) => t_ms,
            At::Start => self.steps.start_ms(),
            At::End => self.steps.end_ms(),
        });
        let offset_ms = modifiers.offset.as_ref().map_or(Ok(0), |offset| self.duration_ms(offset))?;
        Ok(Place { at_ms, offset_ms })
    }

    fn positive_ms(&self, duration: &DurationExpr) -> Result<i64, EvalError> {
        match self.duration_ms(duration)? {
            ms if ms > 0 => Ok(ms),
            _ => Err(EvalError::Execution("duration must be greater than 0".to_owned())),
        }
    }

    fn duration_ms(&self, duration: &DurationExpr) -> Result<i64, EvalError> {
        let seconds = self.seconds(duration)?;
        let ms = seconds * 1000.0;
        // Upstream holds durations in nanoseconds, so 2^63 of them are the limit.
        if ms.is_nan() || ms.abs() >= super::duration::MAX_MS as f64 {
            return Err(EvalError::Execution("duration is out of range".to_owned()));
        }
        Ok(ms.round() as i64)
    }

    fn seconds(&self, duration: &DurationExpr) -> Result<f64, EvalError> {
        Ok(match &duration.kind {
            DurationKind::Literal { seconds, .. } => *seconds,
            DurationKind::Step => self.steps.step_ms() as f64 / 1000.0,
            DurationKind::Range => self.steps.end_ms().saturating_sub(self.steps.start_ms()) as f64 / 1000.0,
            DurationKind::Unary(UnaryOp::Plus, inner) | DurationKind::Paren(inner) => self.seconds(inner)?,
            DurationKind::Unary(UnaryOp::Minus, inner) => -self.seconds(inner)?,
            DurationKind::Min(a, b) => self.seconds(a)?.min(self.seconds(b)?),
            DurationKind::Max(a, b) => self.seconds(a)?.max(self.seconds(b)?),
            DurationKind::Binary(op, a, b) => {
                let (a, b) = (self.seconds(a)?, self.seconds(b)?);
                let zero = |what: &str| EvalError::Execution(format!("{what} by zero"));
                match op {
                    DurationOp::Add => a + b,
                    DurationOp::Sub => a - b,
                    DurationOp::Mul => a * b,
                    DurationOp::Div if b == 0.0 => return Err(zero("division")),
                    DurationOp::Div => a / b,
                    DurationOp::Mod if b == 0.0 => return Err(zero("modulo")),
                    DurationOp::Mod => a % b,
                    DurationOp::Pow => a.powf(b),
                }
            }
        })
    }
}

/// Refuses names of labels that are not UTF-8.
fn check_label_names(call: &Call) -> Result<(), EvalError> {
    let name = call.function.name;
    let label_joined = match name {
        "label_replace" => false,
        "label_join" => true,
        _ => return Ok(()),
    };
    for (i, arg) in call.args.iter().enumerate() {
        let role = match i {
            1 => "destination",
            3.. if label_joined => "source",
            _ => continue,
        };
        if let ExprKind::NotUtf8 { value, .. } = &arg.kind {
            return Err(EvalError::Execution(format!("invalid {role} label name in {name}(): {value}")));
        }
    }
    Ok(())
}

/// Functions whose value changes from step to step even if their arguments do not.
const DEPENDS_ON_STEP: [&str; 3] = ["predict_linear", "time", "timestamp"];
