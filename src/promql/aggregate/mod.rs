//! Aggregations. Which group a series belongs to is found once per series; its row is then folded
//! into the group's columns and let go, so that memory follows the output.

mod count_values;
mod fold;
mod pick;

use super::ast::{Aggregate, AggregateOp};
use super::eval::{EvalError, Evaluator};
use super::limits::Held;
use super::matching::Grouper;
use super::plan::Node;
use super::row::{SeriesRow, Vector};
use super::steps::Steps;
use super::window::{MIXED_SCHEMAS, Quoted, bad_quantile, bounds_reconciled_text, hints_clash_text, short};
use fold::Group;

/// The value of an aggregation.
pub(crate) fn evaluate(
    evaluator: &Evaluator<'_>,
    node: &Node<'_>,
    aggregate: &Aggregate,
    param: Option<&Node<'_>>,
    expr: &Node<'_>,
    steps: &Steps,
) -> Result<Vector, EvalError> {
    let scalar_param = |param: Option<&Node<'_>>| match param {
        Some(param) => Ok::<_, EvalError>(evaluator.operand(param, steps)?.scalar()),
        None => Ok(Vec::new()),
    };
    match aggregate.op {
        AggregateOp::CountValues => {
            let label = match param {
                Some(param) => evaluator.operand(param, steps)?.text(),
                None => String::new(),
            };
            count_values::evaluate(evaluator, aggregate, &label, expr, steps)
        }
        AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk | AggregateOp::LimitRatio => {
            let params = scalar_param(param)?;
            pick::evaluate(evaluator, node, aggregate, (&params, param), expr, steps)
        }
        AggregateOp::Quantile => {
            let params = scalar_param(param)?;
            if let Some(param) = param {
                check_quantiles(evaluator, &params, param);
            }
            folded(evaluator, aggregate, &params, expr, steps)
        }
        _ => folded(evaluator, aggregate, &[], expr, steps),
    }
}

/// Warns of quantiles out of range: of the extremes, as upstream does.
fn check_quantiles(evaluator: &Evaluator<'_>, params: &[f64], param: &Node<'_>) {
    let extremes = Extremes::of(params);
    let bad =
        [(extremes.nan, f64::NAN), (extremes.max > 1.0, extremes.max), (extremes.min < 0.0, extremes.min)];
    for (_, q) in bad.into_iter().filter(|(bad, _)| *bad) {
        evaluator.warn(bad_quantile(q), param.pos);
    }
}

/// The range of a parameter over all steps.
struct Extremes {
    min: f64,
    max: f64,
    nan: bool,
}

impl Extremes {
    fn of(params: &[f64]) -> Extremes {
        Extremes {
            min: params.iter().copied().fold(f64::INFINITY, f64::min),
            max: params.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            nan: params.iter().any(|v| v.is_nan()),
        }
    }
}

fn folded(
    evaluator: &Evaluator<'_>,
    aggregate: &Aggregate,
    params: &[f64],
    expr: &Node<'_>,
    steps: &Steps,
) -> Result<Vector, EvalError> {
    let count = steps.count();
    let eager = !evaluator.options.delayed_name_removal;
    let mut grouper = Grouper::new(aggregate.grouping.clone(), aggregate.without);
    let mut groups: Vec<Group> = Vec::new();
    let mut ignored = false;
    evaluator.each_series(expr, steps, &mut |series| {
        let index = grouper.group(&series.labels, eager && series.drop_name);
        if index == groups.len() {
            let held = Held { samples: count as u64, bytes: Group::new_bytes(aggregate.op, count) };
            evaluator.budget.take(held)?;
            groups.push(Group::new(aggregate.op, count));
        }
        let group = &mut groups[index];
        group.drop_name |= series.drop_name && !eager;
        ignored |= !group.add(&series.row);
        evaluator.budget.take(group.grown())
    })?;
    if ignored {
        let name = aggregate.op.name();
        evaluator.info(format!("ignored histogram in {name} aggregation"), expr.pos);
    }
    let mut vector = Vector::with_capacity(groups.len());
    for (group, labels) in groups.into_iter().zip(grouper.labels) {
        let drop_name = group.drop_name;
        let finished = group.finish(params);
        if finished.mixed {
            evaluator.warn("encountered a mix of histograms and floats for aggregation", expr.pos);
        }
        for note in finished.notes {
            if note.hints_clash {
                evaluator.warn(hints_clash_text("aggregation"), expr.pos);
            }
            if note.bounds_reconciled {
                evaluator.info(bounds_reconciled_text("aggregation"), expr.pos);
            }
            if note.incompatible {
                let name = Quoted(labels.metric_name().unwrap_or(""));
                evaluator.warn(format!("{MIXED_SCHEMAS} {name}"), expr.pos);
            }
        }
        if finished.row.points() > 0 {
            vector.push(SeriesRow { labels, drop_name, row: finished.row });
        }
    }
    Ok(vector)
}

/// A parameter that must fit into 64 bits, in upstream's words.
fn out_of_bounds(value: f64, direction: &str) -> EvalError {
    EvalError::Execution(format!("Scalar value {} {direction} int64", short(value)))
}
