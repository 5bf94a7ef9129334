//! Aggregations.
use super::ast::Aggregate;
use super::eval::{EvalError, Evaluator};
use super::plan::Node;
use super::row::Vector;
use super::steps::Steps;
pub(crate) fn evaluate(
    _: &Evaluator<'_>,
    _: &Node<'_>,
    _: &Aggregate,
    _: Option<&Node<'_>>,
    _: &Node<'_>,
    _: &Steps,
) -> Result<Vector, EvalError> {
    Err(EvalError::Execution("aggregations are not supported yet".to_owned()))
}
