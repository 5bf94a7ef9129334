//! The methods of times and durations, as far as templates use them.

use super::dates;
use super::functions::Param;
use super::value::Value;

/// What a method takes, and what it answers.
type Method = (&'static [Param], fn(&Value, &[Value]) -> Value);

/// The method of a time or duration.
pub(super) fn method(receiver: &Value, name: &str) -> Option<Method> {
    fn time(value: &Value) -> i64 {
        match value {
            Value::Time(ns) | Value::Duration(ns) => *ns,
            _ => 0,
        }
    }
    fn date(value: &Value) -> jiff::civil::DateTime {
        dates::date(time(value))
    }
    Some(match (receiver, name) {
        (Value::Time(_), "Format") => (&[Param::Text], |value, args| match &args[0] {
            Value::Text(layout) => Value::text(dates::format(time(value), layout)),
            _ => Value::Nil,
        }),
        (Value::Time(_), "String") => (&[], |value, _| Value::text(dates::time_text(time(value)))),
        (Value::Time(_), "UTC") => (&[], |value, _| value.clone()),
        (Value::Time(_), "Unix") => (&[], |value, _| Value::Int(time(value).div_euclid(1_000_000_000))),
        (Value::Time(_), "UnixMilli") => (&[], |value, _| Value::Int(time(value).div_euclid(1_000_000))),
        (Value::Time(_), "UnixNano") => (&[], |value, _| Value::Int(time(value))),
        (Value::Time(_), "Year") => (&[], |value, _| Value::Int(i64::from(date(value).year()))),
        (Value::Time(_), "Month") => (&[], |value, _| Value::text(dates::month(&date(value)))),
        (Value::Time(_), "Weekday") => (&[], |value, _| Value::text(dates::weekday(&date(value)))),
        (Value::Time(_), "Day") => (&[], |value, _| Value::Int(i64::from(date(value).day()))),
        (Value::Time(_), "YearDay") => (&[], |value, _| Value::Int(i64::from(date(value).day_of_year()))),
        (Value::Time(_), "Hour") => (&[], |value, _| Value::Int(i64::from(date(value).hour()))),
        (Value::Time(_), "Minute") => (&[], |value, _| Value::Int(i64::from(date(value).minute()))),
        (Value::Time(_), "Second") => (&[], |value, _| Value::Int(i64::from(date(value).second()))),
        (Value::Duration(_), "String") => (&[], |value, _| Value::text(dates::duration_text(time(value)))),
        (Value::Duration(_), "Hours") => {
            (&[], |value, _| Value::Float(in_units(time(value), 3_600_000_000_000)))
        }
        (Value::Duration(_), "Minutes") => {
            (&[], |value, _| Value::Float(in_units(time(value), 60_000_000_000)))
        }
        (Value::Duration(_), "Seconds") => {
            (&[], |value, _| Value::Float(in_units(time(value), 1_000_000_000)))
        }
        (Value::Duration(_), "Milliseconds") => (&[], |value, _| Value::Int(time(value) / 1_000_000)),
        (Value::Duration(_), "Nanoseconds") => (&[], |value, _| Value::Int(time(value))),
        _ => return None,
    })
}

/// Whole units and the rest, added as Go does.
fn in_units(nanoseconds: i64, unit: i64) -> f64 {
    (nanoseconds / unit) as f64 + (nanoseconds % unit) as f64 / unit as f64
}
