//! Puts `@` on all selectors of a query, so that it does not matter when it is evaluated.

use crate::promql::ast::{At, ExprKind, Modifiers};
use crate::promql::parse;

/// Functions whose value depends on when they are evaluated.
const TIMED: [&str; 15] = [
    "time",
    "timestamp",
    "start",
    "end",
    "range",
    "step",
    "predict_linear",
    "minute",
    "hour",
    "day_of_week",
    "day_of_month",
    "day_of_year",
    "days_in_month",
    "month",
    "year",
];

/// `query` with `@ at_ms` on every selector and subquery that has no `@`; what is inside a subquery
/// stays as it is. `None` if the answer would depend on the time all the same.
pub(super) fn pinned(query: &str, at_ms: i64) -> Option<String> {
    let mut expr = parse(query).ok()?;
    let mut rest = vec![&mut expr];
    while let Some(expr) = rest.pop() {
        match &mut expr.kind {
            ExprKind::Number { .. } | ExprKind::String(_) | ExprKind::NotUtf8 { .. } => {}
            ExprKind::VectorSelector(selector) => pin(&mut selector.modifiers, at_ms)?,
            ExprKind::MatrixSelector(matrix) => pin(&mut matrix.selector.modifiers, at_ms)?,
            ExprKind::Subquery(subquery) => pin(&mut subquery.modifiers, at_ms)?,
            ExprKind::Call(call) if TIMED.contains(&call.function.name) => return None,
            ExprKind::Call(call) => rest.extend(&mut call.args),
            ExprKind::Aggregate(aggregate) => {
                rest.push(&mut aggregate.expr);
                rest.extend(aggregate.param.as_deref_mut());
            }
            ExprKind::Unary(_, inner) | ExprKind::Paren(inner) => rest.push(inner),
            ExprKind::Binary(binary) => rest.extend([&mut *binary.lhs, &mut *binary.rhs]),
        }
    }
    Some(expr.to_string())
}

fn pin(modifiers: &mut Modifiers, at_ms: i64) -> Option<()> {
    match modifiers.at.get_or_insert(At::Time(at_ms)) {
        At::Time(_) => Some(()),
        At::Start | At::End => None,
    }
}
