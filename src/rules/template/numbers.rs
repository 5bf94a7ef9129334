//! Numbers for people: `humanize` and its kin, and numbers as times.

use super::value::Value;
use super::{printf, quote};
use crate::promql::number::{Form, parse_go_float, write_float};

/// A number from a number or from text that holds one.
pub(super) fn float(value: &Value) -> Result<f64, String> {
    match value {
        Value::Float(value) => Ok(*value),
        Value::Int(value) => Ok(*value as f64),
        Value::Text(text) => parse_go_float(text)
            .map_err(|error| format!("strconv.ParseFloat: parsing {}: {error}", quote::quote(text))),
        other => Err(format!("can't convert {} to float", other.type_name())),
    }
}

/// A number that is neither NaN nor infinite.
pub(super) fn finite(value: &Value) -> Result<f64, String> {
    float(value).and_then(|v| if v.is_finite() { Ok(v) } else { Err("value is NaN or Inf".to_owned()) })
}

/// Seconds as whole nanoseconds; `what` they are stands in the error.
pub(super) fn nanoseconds(seconds: f64, what: &str) -> Result<i64, String> {
    let nanoseconds = seconds * 1e9;
    if nanoseconds > i64::MAX as f64 || nanoseconds < i64::MIN as f64 {
        let value = printf::print(&[Value::Float(seconds)]);
        return Err(format!(
            "{value} cannot be represented as a nanoseconds {what} since it overflows int64"
        ));
    }
    Ok(nanoseconds as i64)
}

/// Nanoseconds cut to whole milliseconds, towards zero.
pub(super) fn milliseconds(nanoseconds: i64) -> i64 {
    nanoseconds / 1_000_000 * 1_000_000
}

/// `%.4g`
pub(super) fn four_digits(value: f64) -> String {
    let mut text = String::new();
    let _ = write_float(&mut text, value, Form::General, Some(4));
    text
}

/// Divides (or multiplies) by `base` until the value is below it (or at least 1), with the prefix.
fn scaled(mut value: f64, base: f64, prefixes: &[&'static str], up: bool) -> (f64, &'static str) {
    let mut prefix = "";
    for next in prefixes {
        if if up { value.abs() < base } else { value.abs() >= 1.0 } {
            break;
        }
        prefix = next;
        value = if up { value / base } else { value * base };
    }
    (value, prefix)
}

const LARGE: [&str; 8] = ["k", "M", "G", "T", "P", "E", "Z", "Y"];
const SMALL: [&str; 8] = ["m", "u", "n", "p", "f", "a", "z", "y"];
const BINARY: [&str; 8] = ["ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"];

/// `humanize`: four digits and a metric prefix.
pub(super) fn humanize(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return four_digits(value);
    }
    let up = value.abs() >= 1.0;
    let (value, prefix) = scaled(value, 1000.0, if up { &LARGE } else { &SMALL }, up);
    four_digits(value) + prefix
}

/// `humanize1024`: four digits and a binary prefix.
pub(super) fn humanize1024(value: f64) -> String {
    if value.abs() <= 1.0 || !value.is_finite() {
        return four_digits(value);
    }
    let (value, prefix) = scaled(value, 1024.0, &BINARY, true);
    four_digits(value) + prefix
}

/// `humanizeDuration`: days to seconds, or four digits of a small unit.
pub(super) fn humanize_duration(value: f64) -> String {
    if !value.is_finite() {
        return four_digits(value);
    }
    if value == 0.0 {
        return four_digits(value) + "s";
    }
    if value.abs() < 1.0 {
        let (value, prefix) = scaled(value, 1000.0, &SMALL, false);
        return format!("{}{prefix}s", four_digits(value));
    }
    let sign = if value < 0.0 { "-" } else { "" };
    // What does not fit becomes the smallest integer, as on the machines Prometheus mostly runs on.
    let whole = if value.abs() < i64::MAX as f64 { value.abs() as i64 } else { i64::MIN };
    let (seconds, minutes, hours, days) = (whole % 60, whole / 60 % 60, whole / 3600 % 24, whole / 86400);
    if days != 0 {
        format!("{sign}{days}d {hours}h {minutes}m {seconds}s")
    } else if hours != 0 {
        format!("{sign}{hours}h {minutes}m {seconds}s")
    } else if minutes != 0 {
        format!("{sign}{minutes}m {seconds}s")
    } else {
        format!("{sign}{}s", four_digits(value.abs()))
    }
}
