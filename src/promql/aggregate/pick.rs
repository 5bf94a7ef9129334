//! Aggregations that pick series: `topk`, `bottomk`, `limitk`, `limit_ratio`.

use super::super::ast::{Aggregate, AggregateOp};
use super::super::eval::{EvalError, Evaluator};
use super::super::functions::over_time::nan_first;
use super::super::matching::Grouper;
use super::super::plan::Node;
use super::super::row::{Bits, SeriesRow, Vector};
use super::super::steps::Steps;
use super::super::window::short;
use super::{Extremes, out_of_bounds};
use larum_storage_format::Labels;
use std::cmp::Ordering;
use xxhash_rust::xxh64::xxh64;

/// The series that are picked at some step, with the values of the steps at which they are.
pub(super) fn evaluate(
    evaluator: &Evaluator<'_>,
    node: &Node<'_>,
    aggregate: &Aggregate,
    (params, param): (&[f64], Option<&Node<'_>>),
    expr: &Node<'_>,
    steps: &Steps,
) -> Result<Vector, EvalError> {
    let op = aggregate.op;
    let vector = evaluator.vector_in_order(expr, steps)?;
    let extremes = Extremes::of(params);
    if op == AggregateOp::LimitRatio {
        if extremes.nan {
            return Err(EvalError::Execution("Ratio value is NaN".to_owned()));
        }
        let capped = [(extremes.max > 1.0, extremes.max, 1.0), (extremes.min < -1.0, extremes.min, -1.0)];
        for (_, ratio, to) in capped.into_iter().filter(|(bad, ..)| *bad) {
            let (got, to) = (short(ratio), short(to));
            let text = format!("ratio value should be between -1 and 1, got {got}, capping to {to}");
            evaluator.warn(text, param.map_or(node.pos, |param| param.pos));
        }
    } else {
        if extremes.nan {
            return Err(EvalError::Execution("Parameter value is NaN".to_owned()));
        }
        if extremes.max < 1.0 {
            return Ok(Vector::new());
        }
        if extremes.min <= i64::MIN as f64 {
            return Err(out_of_bounds(extremes.min, "underflows"));
        }
        if extremes.max >= i64::MAX as f64 {
            return Err(out_of_bounds(extremes.max, "overflows"));
        }
    }
    let ranked = matches!(op, AggregateOp::Topk | AggregateOp::Bottomk);
    if ranked && vector.iter().any(|series| !series.row.histograms.is_empty()) {
        evaluator.info(format!("ignored histogram in {} aggregation", op.name()), node.pos);
    }
    let mut grouper = Grouper::new(aggregate.grouping.clone(), aggregate.without);
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (i, series) in vector.iter().enumerate() {
        let group = grouper.group(&series.labels, false);
        groups.resize_with(groups.len().max(group + 1), Vec::new);
        groups[group].push(i);
    }
    let count = steps.count();
    let mut picked: Vec<Option<Bits>> = vec![None; vector.len()];
    let mut order = Vec::new();
    let mut at_step: Vec<(f64, usize)> = Vec::new();
    for (step, &param) in params.iter().enumerate() {
        evaluator.alive()?;
        for group in &groups {
            pick(op, param, &vector, group, step, &mut at_step);
            for &(_, i) in &at_step {
                picked[i]
                    .get_or_insert_with(|| {
                        order.push(i);
                        Bits::none(count)
                    })
                    .set(step);
            }
        }
    }
    // At one step, the order in which series were picked is the order of the answer.
    let mut vector: Vec<Option<SeriesRow>> = vector.into_iter().map(Some).collect();
    let taken = order.into_iter().filter_map(|i| {
        let (series, bits) = (vector[i].take()?, picked[i].as_ref()?);
        Some(SeriesRow { row: series.row.keep(|step| bits.get(step)), ..series })
    });
    Ok(taken.collect())
}

/// Picks of the series of one group at one step: value and position, in the order of the answer.
fn pick(
    op: AggregateOp,
    param: f64,
    vector: &[SeriesRow],
    group: &[usize],
    step: usize,
    out: &mut Vec<(f64, usize)>,
) {
    out.clear();
    let floats = group.iter().filter_map(|&i| Some((vector[i].row.float(step)?, i)));
    let present =
        group.iter().filter(|&&i| vector[i].row.present.get(step) || vector[i].row.histogram(step).is_some());
    match op {
        AggregateOp::LimitRatio => {
            let ratio = param.clamp(-1.0, 1.0);
            let kept = present.filter(|&&i| keeps(ratio, &vector[i].labels));
            out.extend(kept.map(|&i| (0.0, i)));
        }
        _ if param < 1.0 => {}
        AggregateOp::Limitk => out.extend(present.take(param as usize).map(|&i| (0.0, i))),
        _ => {
            out.extend(floats);
            // NaN comes last both ways; of equal ones, those that come first are kept.
            let by_value = |a: &(f64, usize), b: &(f64, usize)| -> Ordering {
                let order = match (a.0.is_nan(), b.0.is_nan()) {
                    (false, false) if op == AggregateOp::Topk => nan_first(&b.0, &a.0),
                    (false, false) => nan_first(&a.0, &b.0),
                    (a, b) => a.cmp(&b),
                };
                order.then(a.1.cmp(&b.1))
            };
            let k = param as usize;
            if k < out.len() {
                out.select_nth_unstable_by(k, by_value);
                out.truncate(k);
            }
            out.sort_unstable_by(by_value);
        }
    }
}

/// Whether `limit_ratio` keeps a series: its hash, scaled to 0 to 1, lies below the ratio, or, for
/// a negative ratio, above the complement. The hash is Prometheus', so the same series are kept.
fn keeps(ratio: f64, labels: &Labels) -> bool {
    let at = xxh64(labels.as_bytes(), 0) as f64 / u64::MAX as f64;
    if ratio >= 0.0 { at < ratio } else { at >= 1.0 + ratio }
}
