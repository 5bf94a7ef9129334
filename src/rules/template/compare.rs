//! `eq`, `ne`, `lt`, `le`, `gt`, `ge`: only values of one basic kind compare.

use super::value::Value;
use std::cmp::Ordering;

const INCOMPATIBLE: &str = "incompatible types for comparison";
const INVALID: &str = "invalid type for comparison";

/// Whether `first` equals one of the others.
pub(super) fn eq(first: &Value, others: &[Value]) -> Result<bool, String> {
    if others.is_empty() {
        return Err("missing argument for comparison".to_owned());
    }
    for other in others {
        let equal = match (first, other) {
            (Value::Nil, Value::Nil) => true,
            (Value::Nil, _) | (_, Value::Nil) => false,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Text(a), Value::Text(b)) => a == b,
            (Value::Float(a), Value::Float(b)) => a == b,
            (Value::Sample(a), Value::Sample(b)) => std::rc::Rc::ptr_eq(a, b),
            (a, b) => match (integer(a), integer(b)) {
                (Some(a), Some(b)) => a == b,
                (None, None) if basic(a).is_none() && basic(b).is_none() => {
                    return Err(format!(
                        "non-comparable type {}: {}",
                        super::printf::print(std::slice::from_ref(a)),
                        a.type_name()
                    ));
                }
                _ => return Err(INCOMPATIBLE.to_owned()),
            },
        };
        if equal {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether `a` is less than `b`.
pub(super) fn lt(a: &Value, b: &Value) -> Result<bool, String> {
    let kinds = (basic(a).ok_or(INVALID)?, basic(b).ok_or(INVALID)?);
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => Ok(a.partial_cmp(b) == Some(Ordering::Less)),
        (Value::Text(a), Value::Text(b)) => Ok(a < b),
        _ => match (integer(a), integer(b)) {
            (Some(a), Some(b)) => Ok(a < b),
            _ if kinds.0 != kinds.1 => Err(INCOMPATIBLE.to_owned()),
            _ => Err(INVALID.to_owned()),
        },
    }
}

/// Whether `a` is less than or equal to `b`.
pub(super) fn le(a: &Value, b: &Value) -> Result<bool, String> {
    Ok(lt(a, b)? || eq(a, std::slice::from_ref(b))?)
}

fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Int(value) => Some(*value),
        Value::Byte(value) => Some(i64::from(*value)),
        _ => None,
    }
}

/// The basic kind, if the value is of one.
fn basic(value: &Value) -> Option<u8> {
    match value {
        Value::Bool(_) => Some(0),
        Value::Int(_) => Some(1),
        Value::Byte(_) => Some(2),
        Value::Float(_) => Some(3),
        Value::Text(_) => Some(4),
        _ => None,
    }
}
