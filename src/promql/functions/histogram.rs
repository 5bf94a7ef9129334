//! Functions on histograms.
use super::super::eval::{EvalError, Operand, Site};
pub(super) fn quantile(_: &Site<'_, '_>, _: Vec<Operand>) -> Result<Operand, EvalError> {
    Err(EvalError::Execution("function histogram_quantile is not supported yet".to_owned()))
}
pub(super) fn fraction(_: &Site<'_, '_>, _: Vec<Operand>) -> Result<Operand, EvalError> {
    Err(EvalError::Execution("function histogram_fraction is not supported yet".to_owned()))
}
