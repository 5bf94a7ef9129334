//! What of a query's answer can be kept, and which samples a step of it depends on.
//!
//! A step can be kept if its value depends on the samples around it alone, and not on which other steps
//! are asked for. That is not so for:
//!
//! * `@`, `start()`, `end()` and `range()`, the functions and the durations;
//! * `sort` and its sisters, which do something else where there is one step;
//! * aggregations whose parameter changes from step to step: they judge its extremes over all steps;
//! * `info`, which chooses what it selects by all steps;
//! * an answer with a warning of the storage, and native histograms where something shows what they say of
//!   counter resets (see [`Reach::shows_hints`]): the caller looks after these.

use super::super::ast::{DurationExpr, DurationKind, Expr, ExprKind, Modifiers, RangeExtension, ValueType};
use super::super::eval::{EvalOptions, SHALLOW, milliseconds};
use super::super::functions::Kernel;
use super::super::plan::{self, Kind, Node, Place, Selector};
use super::super::steps::Steps;

/// Times beyond this, 35 million years, are left alone, so that no sum of two is too large.
const TIME_MAX_MS: i64 = 1 << 60;

/// What must be the same for steps to be the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// The expression, printed.
    text: Box<str>,
    /// Where its nodes stand in the query: annotations say so.
    positions: Box<[u32]>,
    step_ms: i64,
    /// By how much steps are past the multiples of their width.
    phase_ms: i64,
    lookback_ms: i64,
    subquery_step_ms: i64,
    /// Delayed name removal, start timestamps, type and unit labels.
    features: [bool; 3],
}

impl Key {
    /// About how much memory it takes.
    pub(super) fn bytes(&self) -> u64 {
        (size_of::<Key>() + self.text.len() + size_of_val(&self.positions[..])) as u64
    }
}

/// Which samples the value at the step `t` depends on: those later than `t - back_ms`, up to
/// `t + ahead_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reach {
    pub(super) back_ms: i64,
    /// Negative where nothing younger than some age is looked at.
    pub(super) ahead_ms: i64,
    /// Whether something shows what native histograms say of the sample before them. For the first that
    /// is read of a series, that depends on how far back it is read.
    pub(super) shows_hints: bool,
}

/// The key and the reach of a query; `None` if no step of it can be kept.
pub(super) fn of(expr: &Expr, steps: &Steps, options: &EvalOptions) -> Option<(Key, Reach)> {
    let in_time = |t_ms: i64| (-TIME_MAX_MS..=TIME_MAX_MS).contains(&t_ms);
    if steps.step_ms() == 0 || !in_time(steps.start_ms()) || !in_time(steps.end_ms()) {
        return None;
    }
    // What is deeper than anybody writes would need a stack of its own.
    if plan::depth(expr) > SHALLOW {
        return None;
    }
    let positions = positions(expr)?;
    // The evaluation tells what is wrong with it.
    let root = plan::plan(expr, steps, options).ok()?;
    let mut looked =
        Looked { lookback_ms: milliseconds(options.lookback_delta).max(1), found: None, shows_hints: false };
    looked.node(&root, Frame::default())?;
    let (back_ms, ahead_ms) = looked.found?;
    let key = Key {
        text: expr.to_string().into(),
        positions,
        step_ms: steps.step_ms(),
        phase_ms: steps.start_ms().rem_euclid(steps.step_ms()),
        lookback_ms: looked.lookback_ms,
        subquery_step_ms: milliseconds(options.default_subquery_step),
        features: [options.delayed_name_removal, options.use_start_timestamps, options.type_and_unit_labels],
    };
    let is_near = |ms: i64| ms.unsigned_abs() < TIME_MAX_MS as u64;
    let reach = Reach { back_ms, ahead_ms, shows_hints: looked.shows_hints };
    (is_near(back_ms) && is_near(ahead_ms)).then_some((key, reach))
}

/// Where the nodes stand, in an order that follows from their text; `None` if any asks for all steps.
fn positions(expr: &Expr) -> Option<Box<[u32]>> {
    let (mut positions, mut left) = (Vec::new(), vec![expr]);
    while let Some(expr) = left.pop() {
        positions.extend([expr.pos.start, expr.pos.end]);
        match &expr.kind {
            ExprKind::Number { .. } | ExprKind::String(_) | ExprKind::NotUtf8 { .. } => {}
            ExprKind::VectorSelector(selector) => of_one_step(&selector.modifiers, [])?,
            ExprKind::MatrixSelector(matrix) => of_one_step(&matrix.selector.modifiers, [&matrix.range])?,
            ExprKind::Subquery(subquery) => {
                of_one_step(&subquery.modifiers, [&subquery.range].into_iter().chain(&subquery.step))?;
                left.push(&subquery.expr);
            }
            ExprKind::Call(call) => {
                let name = call.function.name;
                let asks_for_all = matches!(call.function.kernel, Kernel::Query(_)) && name != "step";
                if asks_for_all || name == "info" || name.starts_with("sort") {
                    return None;
                }
                left.extend(&call.args);
            }
            ExprKind::Aggregate(aggregate) => {
                left.push(&aggregate.expr);
                left.extend(aggregate.param.as_deref());
            }
            ExprKind::Unary(_, inner) | ExprKind::Paren(inner) => left.push(inner),
            ExprKind::Binary(binary) => {
                positions.extend([binary.op_pos.start, binary.op_pos.end]);
                left.extend([&*binary.lhs, &*binary.rhs]);
            }
        }
    }
    Some(positions.into())
}

fn of_one_step<'a>(
    modifiers: &'a Modifiers,
    durations: impl IntoIterator<Item = &'a DurationExpr>,
) -> Option<()> {
    let mut durations = durations.into_iter().chain(&modifiers.offset);
    (modifiers.at.is_none() && !durations.any(asks_for_range)).then_some(())
}

fn asks_for_range(duration: &DurationExpr) -> bool {
    match &duration.kind {
        DurationKind::Range => true,
        DurationKind::Literal { .. } | DurationKind::Step => false,
        DurationKind::Unary(_, inner) | DurationKind::Paren(inner) => asks_for_range(inner),
        DurationKind::Binary(_, a, b) | DurationKind::Min(a, b) | DurationKind::Max(a, b) => {
            asks_for_range(a) || asks_for_range(b)
        }
    }
}

/// When a node is evaluated for the step `t`: later than `t - back_ms`, or then, up to `t + ahead_ms`.
#[derive(Debug, Clone, Copy, Default)]
struct Frame {
    back_ms: i64,
    ahead_ms: i64,
}

impl Frame {
    fn shifted(self, place: &Place) -> Frame {
        Frame {
            back_ms: self.back_ms.saturating_add(place.offset_ms),
            ahead_ms: self.ahead_ms.saturating_sub(place.offset_ms),
        }
    }
}

/// What was found in a plan so far.
struct Looked {
    lookback_ms: i64,
    /// How far back and ahead.
    found: Option<(i64, i64)>,
    shows_hints: bool,
}

impl Looked {
    /// `None` if the node has no value of its own at each step.
    fn node(&mut self, node: &Node<'_>, frame: Frame) -> Option<()> {
        match &node.kind {
            Kind::Number(_) | Kind::Text(_) => {}
            Kind::Selector(selector) => {
                self.shows_hints = true;
                self.selector(selector, self.lookback_ms, frame);
            }
            Kind::Matrix { selector, range_ms } => {
                self.shows_hints = true;
                self.selector(selector, *range_ms, frame);
            }
            Kind::Subquery(subquery) => {
                let Frame { back_ms, ahead_ms } = frame.shifted(&subquery.place);
                let back_ms = back_ms.saturating_add(subquery.range_ms);
                self.node(&subquery.expr, Frame { back_ms, ahead_ms })?;
            }
            Kind::Call { call, args } => {
                for arg in args {
                    match (&arg.kind, call.function.kernel) {
                        // Rates ask of every sample what it says of the one before, within a window only.
                        (Kind::Matrix { selector, range_ms }, Kernel::Rate(_)) => {
                            self.selector(selector, *range_ms, frame);
                        }
                        _ => self.node(arg, frame)?,
                    }
                }
            }
            Kind::Aggregate { param, expr, .. } => {
                let param = param.as_deref();
                if param.is_some_and(|param| param.value_type == ValueType::Scalar && !param.invariant) {
                    return None;
                }
                param.map_or(Some(()), |param| self.node(param, frame))?;
                self.node(expr, frame)?;
            }
            Kind::Negate(inner) => self.node(inner, frame)?,
            Kind::Binary { lhs, rhs, .. } => {
                self.node(lhs, frame)?;
                self.node(rhs, frame)?;
            }
        }
        Some(())
    }

    fn selector(&mut self, selector: &Selector<'_>, range_ms: i64, frame: Frame) {
        let Frame { mut back_ms, mut ahead_ms } = frame.shifted(&selector.place);
        back_ms = back_ms.saturating_add(range_ms);
        if selector.extension.is_some() {
            back_ms = back_ms.saturating_add(self.lookback_ms);
        }
        if selector.extension == Some(RangeExtension::Smoothed) {
            ahead_ms = ahead_ms.saturating_add(self.lookback_ms);
        }
        let (back, ahead) = self.found.unwrap_or((i64::MIN, i64::MIN));
        self.found = Some((back.max(back_ms), ahead.max(ahead_ms)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promql::parse;
    use crate::storage::Timestamp;
    use std::time::Duration;

    fn steps(start_s: i64, end_s: i64, step_s: u64) -> Steps {
        let at = |s: i64| Timestamp::from_millis(s * 1000);
        Steps::new(at(start_s), at(end_s), Duration::from_secs(step_s)).unwrap()
    }

    /// In seconds.
    fn reach(query: &str) -> Option<(i64, i64)> {
        let (_, reach) = of(&parse(query).unwrap(), &steps(0, 600, 60), &EvalOptions::default())?;
        Some((reach.back_ms / 1000, reach.ahead_ms / 1000))
    }

    #[test]
    fn a_step_depends_on_what_its_selectors_look_at() {
        for (query, expected) in [
            ("m", Some((300, 0))),
            ("rate(m[2m])", Some((120, 0))),
            ("sum by (a) (rate(m[2m])) / on (a) sum(n)", Some((300, 0))),
            ("m offset 1h", Some((3900, -3600))),
            ("m offset -1h", Some((-3300, 3600))),
            ("m offset -1h or rate(n[30m])", Some((1800, 3600))),
            ("max_over_time(m[1h:1m])", Some((3900, 0))),
            ("max_over_time(rate(m[5m] offset 1m)[1h:1m] offset -10m)", Some((3360, 540))),
            ("max_over_time(m[1h:1m] offset 1d)", Some((90_300, -86_400))),
            ("increase(m[10m] anchored)", Some((900, 0))),
            ("increase(m[10m] smoothed)", Some((900, 300))),
            ("increase(m[10m] smoothed offset -10m)", Some((300, 900))),
            ("absent(m)", Some((300, 0))),
            ("topk(3, m)", Some((300, 0))),
            ("limit_ratio(0.5, m)", Some((300, 0))),
            ("count_values(\"v\", m)", Some((300, 0))),
            ("rate(m[2 * step()])", Some((120, 0))),
            ("m * step()", Some((300, 0))),
            ("m - time()", Some((300, 0))),
            ("1", None),
            ("vector(time())", None),
            ("m @ 5", None),
            ("m @ start()", None),
            ("m + sum(n @ end())", None),
            ("max_over_time(m[1h:1m] @ 10)", None),
            ("m * start()", None),
            ("m * end()", None),
            ("m / range()", None),
            ("rate(m[range()])", None),
            ("max_over_time(m[1h:max_of(range(), 1m)])", None),
            ("m offset -range()", None),
            ("sort(m)", None),
            ("sort_by_label(m, \"a\")", None),
            ("info(m)", None),
            ("topk(scalar(n), m)", None),
            ("quantile(time() / 1e10, m)", None),
            ("rate(m[5m / (step() - 1m)])", None),
        ] {
            assert_eq!(reach(query), expected, "{query}");
        }
    }

    #[test]
    fn nesting_that_nobody_writes_is_not_kept() {
        assert!(reach(&format!("{}m{}", "-(".repeat(20), ")".repeat(20))).is_none());
        assert!(reach(&format!("{}m{}", "-(".repeat(5), ")".repeat(5))).is_some());
    }

    #[test]
    fn what_may_change_an_answer_is_in_the_key() {
        let key = |query: &str, steps: &Steps, options: &EvalOptions| {
            of(&parse(query).unwrap(), steps, options).unwrap().0
        };
        let (options, base) = (EvalOptions::default(), steps(600, 1200, 60));
        let first = key("sum(m)", &base, &options);
        for same in [steps(600, 1260, 60), steps(660, 1260, 60), steps(0, 0, 60), steps(-60, 59, 60)] {
            assert_eq!(key("sum(m)", &same, &options), first, "{same:?}");
        }
        for other in [steps(601, 1200, 60), steps(600, 1200, 30)] {
            assert_ne!(key("sum(m)", &other, &options), first, "{other:?}");
        }
        // The same, but annotations would point elsewhere.
        for other in ["sum(n)", "sum( m)", "sum (m)", "avg(m)", "sum(m) "] {
            let is_same = key(other, &base, &options) == first;
            assert_eq!(is_same, other == "sum(m) ", "{other}");
        }
        let minute = Duration::from_secs(1);
        for other in [
            EvalOptions { lookback_delta: minute, ..options.clone() },
            EvalOptions { default_subquery_step: minute, ..options.clone() },
            EvalOptions { delayed_name_removal: true, ..options.clone() },
            EvalOptions { use_start_timestamps: true, ..options.clone() },
            EvalOptions { type_and_unit_labels: true, ..options.clone() },
        ] {
            assert_ne!(key("sum(m)", &base, &other), first, "{other:?}");
        }
        assert_eq!(key("sum(m)", &base, &EvalOptions { max_samples: 5, ..options }), first);
    }

    #[test]
    fn hints_are_shown_unless_only_rates_look_at_them() {
        let shows = |query: &str| {
            of(&parse(query).unwrap(), &steps(0, 600, 60), &EvalOptions::default()).unwrap().1.shows_hints
        };
        for (query, expected) in [
            ("histogram_quantile(0.9, sum(rate(m[5m])))", false),
            ("increase(m[5m]) + delta(m[1m])", false),
            ("sum(m)", true),
            ("sum_over_time(m[5m])", true),
            ("rate(m[5m]) + m", true),
            ("rate(m[5m:1m])", true),
        ] {
            assert_eq!(shows(query), expected, "{query}");
        }
    }
}
