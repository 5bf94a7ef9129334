//! Binary operators: between scalars, between a vector and a scalar, and between vectors whose
//! series find their partners by their labels.

mod elements;
mod vectors;

use super::ast::{Binary, BinaryOp, Cardinality, ValueType};
use super::eval::{EvalError, Evaluator, Operand};
use super::merge;
use super::plan::Node;
use super::row::{SeriesRow, Vector};
use super::steps::Steps;
use elements::{Elements, arithmetic, compare, is_arithmetic, is_comparison};

/// The value of a binary operation.
pub(crate) fn evaluate(
    evaluator: &Evaluator<'_>,
    node: &Node<'_>,
    binary: &Binary,
    lhs: &Node<'_>,
    rhs: &Node<'_>,
    steps: &Steps,
) -> Result<Operand, EvalError> {
    match (lhs.value_type, rhs.value_type) {
        (ValueType::Scalar, ValueType::Scalar) => {
            let mut row = evaluator.operand(lhs, steps)?.scalar();
            let right = evaluator.operand(rhs, steps)?.scalar();
            for (left, right) in row.iter_mut().zip(right) {
                *left = scalar(binary.op, *left, right);
            }
            Ok(Operand::Scalar(row))
        }
        (ValueType::Scalar, _) => {
            let scalar = evaluator.operand(lhs, steps)?.scalar();
            with_scalar(evaluator, node, binary, rhs, &scalar, true, steps).map(Operand::Vector)
        }
        (_, ValueType::Scalar) => {
            let scalar = evaluator.operand(rhs, steps)?.scalar();
            with_scalar(evaluator, node, binary, lhs, &scalar, false, steps).map(Operand::Vector)
        }
        _ => {
            let left = evaluator.vector(lhs, steps)?;
            let right = evaluator.vector(rhs, steps)?;
            let many_to_many = binary.matching.as_ref().is_some_and(|m| m.card == Cardinality::ManyToMany);
            if many_to_many {
                vectors::set(evaluator, binary, left, right, steps).map(Operand::Vector)
            } else {
                vectors::combine(evaluator, node, binary, left, right, steps).map(Operand::Vector)
            }
        }
    }
}

fn scalar(op: BinaryOp, left: f64, right: f64) -> f64 {
    if is_comparison(op) { f64::from(compare(op, left, right)) } else { arithmetic(op)(left, right) }
}

/// An operation between each element of a vector and a scalar, which stands left if `swapped`.
fn with_scalar(
    evaluator: &Evaluator<'_>,
    node: &Node<'_>,
    binary: &Binary,
    vector: &Node<'_>,
    scalar: &[f64],
    swapped: bool,
    steps: &Steps,
) -> Result<Vector, EvalError> {
    let op = binary.op;
    let elements = Elements { evaluator, op, return_bool: binary.return_bool, pos: node.pos };
    let drops = is_arithmetic(op) || binary.return_bool;
    let eager = !evaluator.options.delayed_name_removal;
    let mut out = Vector::new();
    let mut renamed = false;
    evaluator.each_series(vector, steps, &mut |series| {
        elements.with_scalar(&mut series.row, scalar, swapped)?;
        if series.row.points() == 0 {
            return Ok(());
        }
        evaluator.budget.hold(series.row.len() as u64)?;
        let row = std::mem::replace(&mut series.row, super::row::Row::absent(0));
        let drop_name = series.drop_name || drops;
        let mut labels = series.labels.clone();
        if drop_name && eager {
            labels = merge::without_name(&labels);
            renamed = true;
        }
        out.push(SeriesRow { labels, drop_name, row });
        Ok(())
    })?;
    if renamed { merge::merge(out) } else { Ok(out) }
}
