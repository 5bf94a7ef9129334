//! What an operator does with two values, and with two rows of them.

use super::super::ast::{BinaryOp, Pos};
use super::super::eval::{EvalError, Evaluator};
use super::super::histogram::{self, estimate};
use super::super::row::{Bits, Presence, Row};
use super::super::window::{bounds_reconciled_text, hints_clash_text};
use larum_storage_format::{CounterResetHint, Histogram, Value};
use std::sync::Arc;

/// Whether the operator compares.
pub(crate) fn is_comparison(op: BinaryOp) -> bool {
    use BinaryOp::{Eq, Ge, Gt, Le, Lt, Ne};
    matches!(op, Eq | Ne | Gt | Lt | Ge | Le)
}

/// Whether the operator calculates, so that its result is another metric.
pub(crate) fn is_arithmetic(op: BinaryOp) -> bool {
    use BinaryOp::{Add, Atan2, Div, Mod, Mul, Pow, Sub};
    matches!(op, Add | Sub | Mul | Div | Mod | Pow | Atan2)
}

/// What an operator that calculates does; for others there is no answer, NaN.
pub(crate) fn arithmetic(op: BinaryOp) -> fn(f64, f64) -> f64 {
    match op {
        BinaryOp::Add => |a, b| a + b,
        BinaryOp::Sub => |a, b| a - b,
        BinaryOp::Mul => |a, b| a * b,
        BinaryOp::Div => |a, b| a / b,
        BinaryOp::Mod => |a, b| a % b,
        BinaryOp::Pow => f64::powf,
        BinaryOp::Atan2 => f64::atan2,
        _ => |_, _| f64::NAN,
    }
}

/// Whether a comparison holds.
pub(crate) fn compare(op: BinaryOp, a: f64, b: f64) -> bool {
    match op {
        BinaryOp::Eq => a == b,
        BinaryOp::Ne => a != b,
        BinaryOp::Gt => a > b,
        BinaryOp::Lt => a < b,
        BinaryOp::Ge => a >= b,
        BinaryOp::Le => a <= b,
        _ => false,
    }
}

/// An operator at work on the elements of vectors.
pub(crate) struct Elements<'e, 'a> {
    pub(crate) evaluator: &'e Evaluator<'a>,
    pub(crate) op: BinaryOp,
    pub(crate) return_bool: bool,
    /// Where the operation stands.
    pub(crate) pos: Pos,
}

/// What comes of two elements.
struct Combined {
    /// The value, where the comparison holds or there is none.
    value: Value,
    /// Whether the comparison holds.
    keep: bool,
}

impl Elements<'_, '_> {
    /// Replaces the elements of `row` by what the operator makes of them and the scalar of the
    /// step, which stands left if `swapped`. Comparisons keep the element.
    pub(crate) fn with_scalar(&self, row: &mut Row, scalar: &[f64], swapped: bool) -> Result<(), EvalError> {
        let histograms = std::mem::take(&mut row.histograms);
        let mut kept = Vec::new();
        for (step, histogram) in histograms {
            let float = Value::Float(scalar[step as usize]);
            let histogram = Value::Histogram(histogram);
            let (left, right) = if swapped { (&float, &histogram) } else { (&histogram, &float) };
            if let Some(Combined { value: Value::Histogram(histogram), keep: true }) =
                self.combine(left, right)?
            {
                kept.push((step, histogram));
            }
        }
        if is_comparison(self.op) {
            row.filter_map(|step, v| {
                let holds = if swapped {
                    compare(self.op, scalar[step], v)
                } else {
                    compare(self.op, v, scalar[step])
                };
                match (self.return_bool, holds) {
                    (true, holds) => Some(f64::from(holds)),
                    (false, true) => Some(v),
                    (false, false) => None,
                }
            });
        } else if is_arithmetic(self.op) {
            let f = arithmetic(self.op);
            if swapped {
                row.map(|step, v| f(scalar[step], v));
            } else {
                row.map(|step, v| f(v, scalar[step]));
            }
        } else {
            if row.points() > 0 {
                self.incompatible("float", "float");
            }
            row.filter_map(|_, _| None);
        }
        row.histograms = kept;
        Ok(())
    }

    /// The elements of two rows at the steps at which both have one and `at` is true. The result,
    /// and the steps at which they matched, whether the comparison holds or not.
    pub(crate) fn rows(
        &self,
        left: &Row,
        right: &Row,
        at: impl Fn(usize) -> bool,
    ) -> Result<(Row, Bits), EvalError> {
        let len = left.len();
        let (mut kept, mut matched) = (Bits::none(len), Bits::none(len));
        let mut floats = vec![0.0; len];
        let mut histograms: Vec<(u32, Arc<Histogram>)> = Vec::new();
        if left.histograms.is_empty() && right.histograms.is_empty() && !self.is_trim() {
            let calculate = arithmetic(self.op);
            let comparison = is_comparison(self.op);
            left.present.for_each(len, |i| {
                if !right.present.get(i) || !at(i) {
                    return;
                }
                matched.set(i);
                let (a, b) = (left.floats[i], right.floats[i]);
                floats[i] = match (comparison, self.return_bool) {
                    (false, _) => calculate(a, b),
                    (true, true) => f64::from(compare(self.op, a, b)),
                    (true, false) if compare(self.op, a, b) => a,
                    (true, false) => return,
                };
                kept.set(i);
            });
        } else {
            for i in (0..len).filter(|i| at(*i)) {
                let (Some(a), Some(b)) = (left.value(i), right.value(i)) else { continue };
                let Some(Combined { value, keep }) = self.combine(&a, &b)? else { continue };
                matched.set(i);
                match value {
                    _ if self.return_bool => {
                        floats[i] = f64::from(keep);
                        kept.set(i);
                    }
                    Value::Float(value) if keep => {
                        floats[i] = value;
                        kept.set(i);
                    }
                    Value::Histogram(histogram) if keep => histograms.push((i as u32, histogram)),
                    _ => {}
                }
            }
        }
        Ok((Row { floats, present: Presence::from_bits(&kept, len), histograms }, matched))
    }

    fn is_trim(&self) -> bool {
        matches!(self.op, BinaryOp::TrimLower | BinaryOp::TrimUpper)
    }

    /// What the operator makes of two elements; nothing, and an info, if it does not go with
    /// their types.
    fn combine(&self, a: &Value, b: &Value) -> Result<Option<Combined>, EvalError> {
        let op = self.op;
        match (a, b) {
            (Value::Float(a), Value::Float(b)) if is_comparison(op) => {
                return Ok(Some(Combined { value: Value::Float(*a), keep: compare(op, *a, *b) }));
            }
            (Value::Float(a), Value::Float(b)) if is_arithmetic(op) => {
                return Ok(Some(Combined { value: Value::Float(arithmetic(op)(*a, *b)), keep: true }));
            }
            (Value::Histogram(a), Value::Histogram(b)) if matches!(op, BinaryOp::Eq | BinaryOp::Ne) => {
                let keep = histogram::equal(a, b) == (op == BinaryOp::Eq);
                return Ok(Some(Combined { value: Value::Histogram(a.clone()), keep }));
            }
            (Value::Histogram(a), Value::Histogram(b)) if matches!(op, BinaryOp::Add | BinaryOp::Sub) => {
                return Ok(self.add_or_sub(a, b));
            }
            (Value::Float(factor), Value::Histogram(h)) | (Value::Histogram(h), Value::Float(factor))
                if op == BinaryOp::Mul =>
            {
                return Ok(Some(kept(histogram::compacted(&histogram::scaled(h, *factor)))));
            }
            (Value::Histogram(h), Value::Float(divisor)) if op == BinaryOp::Div => {
                return Ok(Some(kept(histogram::compacted(&histogram::divided(h, *divisor)))));
            }
            (Value::Histogram(h), Value::Float(cut)) if self.is_trim() => {
                return Ok(Some(kept(estimate::trimmed(h, *cut, op == BinaryOp::TrimUpper))));
            }
            _ => {}
        }
        let kind = |value: &Value| if matches!(value, Value::Float(_)) { "float" } else { "histogram" };
        self.incompatible(kind(a), kind(b));
        Ok(None)
    }

    fn add_or_sub(&self, a: &Histogram, b: &Histogram) -> Option<Combined> {
        let subtract = self.op == BinaryOp::Sub;
        let (combined, operation) = match subtract {
            true => (histogram::sub(a, b), "subtraction"),
            false => (histogram::add(a, b), "addition"),
        };
        let Ok(mut combined) = combined else {
            let text =
                format!("incompatible bucket layout encountered for binary operator {}", self.op.symbol());
            self.evaluator.warn(text, self.pos);
            return None;
        };
        if combined.hints_clash {
            self.evaluator.warn(hints_clash_text(operation), self.pos);
        }
        if combined.bounds_reconciled {
            self.evaluator.info(bounds_reconciled_text(operation), self.pos);
        }
        if subtract {
            combined.histogram.counter_reset_hint = CounterResetHint::Gauge;
        }
        Some(kept(combined.histogram))
    }

    fn incompatible(&self, left: &str, right: &str) {
        let op = self.op.symbol();
        let text = format!(
            "incompatible sample types encountered for binary operator \"{op}\": {left} {op} {right}"
        );
        self.evaluator.info(text, self.pos);
    }
}

fn kept(histogram: Histogram) -> Combined {
    Combined { value: Value::Histogram(Arc::new(histogram)), keep: true }
}
