//! Binary operators.
use super::ast::Binary;
use super::eval::{EvalError, Evaluator, Operand};
use super::plan::Node;
use super::steps::Steps;
pub(crate) fn evaluate(
    _: &Evaluator<'_>,
    _: &Node<'_>,
    _: &Binary,
    _: &Node<'_>,
    _: &Node<'_>,
    _: &Steps,
) -> Result<Operand, EvalError> {
    Err(EvalError::Execution("binary operators are not supported yet".to_owned()))
}
