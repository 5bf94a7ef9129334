//! What a template can call: Go's built-ins and Prometheus' functions, in one table.

use super::value::{Alert, Args, Sample, Value};
use super::{Limits, Queries, compare, dates, printf, quote};
use crate::promql::number::{Form, parse_go_float, write_float};
use crate::storage::regex::{RegexError, Rewriter};
use std::collections::BTreeMap;
use std::rc::Rc;

/// The type of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Param {
    Any,
    Text,
    Samples,
    Sample,
}

impl Param {
    pub(super) fn type_name(self) -> &'static str {
        match self {
            Param::Any => "interface {}",
            Param::Text => "string",
            Param::Samples => "template.queryResult",
            Param::Sample => "*template.sample",
        }
    }

    /// Whether a nil may stand for it.
    pub(super) fn takes_nil(self) -> bool {
        self != Param::Text
    }
}

/// What functions reach beyond their arguments.
pub(super) struct World<'w, 'q> {
    pub alert: Rc<Alert>,
    pub queries: &'w mut Queries<'q>,
    pub limits: Limits,
}

/// Maps of `args` may nest this deep.
const MAX_ARGS_DEPTH: usize = 50;

type Run = fn(&mut World<'_, '_>, &[Value]) -> Result<Value, String>;

/// A function.
pub(super) struct Function {
    pub name: &'static str,
    pub params: &'static [Param],
    /// The last parameter repeats, none or many times.
    pub variadic: bool,
    pub run: Run,
}

/// Whether there is a function of this name.
pub(super) fn exists(name: &str) -> bool {
    find(name).is_some()
}

/// The function of this name.
pub(super) fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|function| function.name == name)
}

const fn function(name: &'static str, params: &'static [Param], run: Run) -> Function {
    Function { name, params, variadic: false, run }
}

const fn variadic(name: &'static str, params: &'static [Param], run: Run) -> Function {
    Function { name, params, variadic: true, run }
}

use Param::{Any, Text};

static FUNCTIONS: &[Function] = &[
    // Go's own. `and` and `or` are short-circuited by the evaluator, which never runs them.
    variadic("and", &[Any, Any], |_, args| Ok(args.last().cloned().unwrap_or(Value::Nil))),
    variadic("or", &[Any, Any], |_, args| Ok(args.last().cloned().unwrap_or(Value::Nil))),
    function("not", &[Any], |_, args| Ok(Value::Bool(!args[0].truth()))),
    variadic("eq", &[Any, Any], |_, args| compare::eq(&args[0], &args[1..]).map(Value::Bool)),
    function("ne", &[Any, Any], |_, args| compare::eq(&args[0], &args[1..]).map(|eq| Value::Bool(!eq))),
    function("lt", &[Any, Any], |_, args| compare::lt(&args[0], &args[1]).map(Value::Bool)),
    function("le", &[Any, Any], |_, args| compare::le(&args[0], &args[1]).map(Value::Bool)),
    function("gt", &[Any, Any], |_, args| compare::le(&args[0], &args[1]).map(|le| Value::Bool(!le))),
    function("ge", &[Any, Any], |_, args| compare::lt(&args[0], &args[1]).map(|lt| Value::Bool(!lt))),
    variadic("call", &[Any, Any], |_, args| match &args[0] {
        Value::Nil => Err("call of nil".to_owned()),
        value => Err(format!("non-function of type {}", value.type_name())),
    }),
    variadic("html", &[Any], |_, args| Ok(Value::text(html(&printf::shown(args))))),
    variadic("js", &[Any], |_, args| Ok(Value::text(js(&printf::shown(args))))),
    variadic("urlquery", &[Any], |_, args| Ok(Value::text(query_escape(&printf::shown(args))))),
    variadic("index", &[Any, Any], |_, args| index(args)),
    variadic("slice", &[Any, Any], |_, args| slice(args)),
    function("len", &[Any], |_, args| len(&args[0])),
    variadic("print", &[Any], |_, args| Ok(Value::text(printf::print(args)))),
    variadic("printf", &[Text, Any], |world, args| {
        Ok(Value::text(printf::printf(text(&args[0]), &args[1..], world.limits.output_bytes)))
    }),
    variadic("println", &[Any], |_, args| Ok(Value::text(printf::println(args)))),
    // Prometheus': queries.
    function("query", &[Text], query),
    function("first", &[Param::Samples], |_, args| match samples(&args[0]).first() {
        Some(sample) => Ok(Value::Sample(sample.clone())),
        None => Err("first() called on vector with no elements".to_owned()),
    }),
    function("label", &[Text, Param::Sample], |_, args| {
        let labels = &sample(&args[1])?.labels;
        Ok(Value::text(labels.get(text(&args[0])).map_or("", String::as_str)))
    }),
    function("value", &[Param::Sample], |_, args| Ok(Value::Float(sample(&args[0])?.value))),
    function("strvalue", &[Param::Sample], |_, args| {
        let labels = &sample(&args[0])?.labels;
        Ok(Value::text(labels.get("__value__").map_or("", String::as_str)))
    }),
    function("sortByLabel", &[Text, Param::Samples], |_, args| {
        let mut sorted = samples(&args[1]).to_vec();
        let by = |sample: &Rc<Sample>| sample.labels.get(text(&args[0])).cloned().unwrap_or_default();
        sorted.sort_by_cached_key(by);
        Ok(Value::Samples(sorted.into()))
    }),
    // Numbers.
    function("humanize", &[Any], |_, args| float(&args[0]).map(|v| Value::text(humanize(v)))),
    function("humanize1024", &[Any], |_, args| float(&args[0]).map(|v| Value::text(humanize1024(v)))),
    function("humanizeDuration", &[Any], |_, args| {
        float(&args[0]).map(|v| Value::text(humanize_duration(v)))
    }),
    function("humanizePercentage", &[Any], |_, args| {
        float(&args[0]).map(|v| Value::text(format!("{}%", four_digits(v * 100.0))))
    }),
    function("humanizeTimestamp", &[Any], |_, args| {
        let seconds = float(&args[0])?;
        if !seconds.is_finite() {
            return Ok(Value::text(four_digits(seconds)));
        }
        Ok(Value::text(dates::time_text(milliseconds(nanoseconds(seconds, "timestamp")?))))
    }),
    function("toTime", &[Any], |_, args| {
        let seconds = finite(&args[0])?;
        Ok(Value::Time(milliseconds(nanoseconds(seconds, "timestamp")?)))
    }),
    function("toDuration", &[Any], |_, args| {
        let seconds = finite(&args[0])?;
        Ok(Value::Duration(nanoseconds(seconds, "duration")?))
    }),
    function("now", &[], |world, _| Ok(Value::Float(world.alert.now_ms as f64 / 1000.0))),
    // Strings.
    function("title", &[Text], |_, args| Ok(Value::text(title(text(&args[0]))))),
    function("toUpper", &[Text], |_, args| {
        Ok(Value::text(text(&args[0]).chars().map(|c| single(c, c.to_uppercase())).collect::<String>()))
    }),
    function("toLower", &[Text], |_, args| {
        Ok(Value::text(text(&args[0]).chars().map(|c| single(c, c.to_lowercase())).collect::<String>()))
    }),
    function("stripPort", &[Text], |_, args| {
        let address = text(&args[0]);
        Ok(Value::text(split_host_port(address).map_or(address, |(host, _)| host)))
    }),
    function("stripDomain", &[Text], |_, args| Ok(Value::text(strip_domain(text(&args[0]))))),
    function("match", &[Text, Text], |_, args| {
        let pattern = Rewriter::unanchored(text(&args[0])).map_err(|error| error.to_string())?;
        Ok(Value::Bool(pattern.is_match(text(&args[1]))))
    }),
    function("reReplaceAll", &[Text, Text, Text], |world, args| {
        let pattern = text(&args[0]);
        let compiled = |error: RegexError| format!("regexp: Compile({}): {error}", backquote(pattern));
        let limit = world.limits.output_bytes;
        Rewriter::unanchored(pattern)
            .map_err(compiled)?
            .replace_all(text(&args[2]), text(&args[1]), limit)
            .map(Value::text)
            .ok_or_else(|| format!("the text exceeds {limit} bytes"))
    }),
    function("graphLink", &[Text], |_, args| Ok(Value::text(link(text(&args[0]), 0)))),
    function("tableLink", &[Text], |_, args| Ok(Value::text(link(text(&args[0]), 1)))),
    function("parseDuration", &[Text], |_, args| parse_duration(text(&args[0])).map(Value::Float)),
    function("urlQueryEscape", &[Text], |_, args| Ok(Value::text(query_escape(text(&args[0]))))),
    // Others.
    variadic("args", &[Any], |_, args| {
        let inner = args.iter().map(|value| if let Value::Args(args) = value { args.depth } else { 0 });
        let depth = 1 + inner.max().unwrap_or(0);
        if depth > MAX_ARGS_DEPTH {
            return Err(format!("args nest deeper than {MAX_ARGS_DEPTH}"));
        }
        let named = args.iter().enumerate().map(|(i, value)| (format!("arg{i}"), value.clone()));
        Ok(Value::Args(Rc::new(Args { values: named.collect(), depth })))
    }),
    function("safeHtml", &[Text], |_, args| Ok(args[0].clone())),
    function("externalURL", &[], |world, _| Ok(Value::Text(world.alert.external_url.clone()))),
    function("pathPrefix", &[], |world, _| {
        let url: &str = &world.alert.external_url;
        let after = url.split_once("://").map_or(url, |(_, after)| after);
        let path = after.find('/').map_or("", |slash| &after[slash..]);
        Ok(Value::text(path.split(['?', '#']).next().unwrap_or_default()))
    }),
];

// The evaluator has checked the arguments against the parameters.
fn text(value: &Value) -> &str {
    match value {
        Value::Text(text) => text,
        _ => "",
    }
}

fn samples(value: &Value) -> &[Rc<Sample>] {
    match value {
        Value::Samples(samples) => samples,
        _ => &[],
    }
}

fn sample(value: &Value) -> Result<&Sample, String> {
    match value {
        Value::Sample(sample) => Ok(sample),
        _ => Err("runtime error: invalid memory address or nil pointer dereference".to_owned()),
    }
}

fn query(world: &mut World<'_, '_>, args: &[Value]) -> Result<Value, String> {
    let result = (world.queries)(text(&args[0]))?;
    let limit = world.limits.query_results;
    if result.len() > limit {
        return Err(format!("the query has {} results, more than {limit}", result.len()));
    }
    let samples = result.into_iter().map(|s| Rc::new(Sample { labels: Rc::new(s.labels), value: s.value }));
    Ok(Value::Samples(samples.collect()))
}

/// A number from a number or from text that holds one.
fn float(value: &Value) -> Result<f64, String> {
    match value {
        Value::Float(value) => Ok(*value),
        Value::Int(value) => Ok(*value as f64),
        Value::Text(text) => parse_go_float(text)
            .map_err(|error| format!("strconv.ParseFloat: parsing {}: {error}", quote::quote(text))),
        other => Err(format!("can't convert {} to float", other.type_name())),
    }
}

fn finite(value: &Value) -> Result<f64, String> {
    float(value).and_then(|v| if v.is_finite() { Ok(v) } else { Err("value is NaN or Inf".to_owned()) })
}

fn nanoseconds(seconds: f64, what: &str) -> Result<i64, String> {
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
fn milliseconds(nanoseconds: i64) -> i64 {
    nanoseconds / 1_000_000 * 1_000_000
}

/// `%.4g`
fn four_digits(value: f64) -> String {
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

fn humanize(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return four_digits(value);
    }
    let up = value.abs() >= 1.0;
    let (value, prefix) = scaled(value, 1000.0, if up { &LARGE } else { &SMALL }, up);
    four_digits(value) + prefix
}

fn humanize1024(value: f64) -> String {
    if value.abs() <= 1.0 || !value.is_finite() {
        return four_digits(value);
    }
    let (value, prefix) = scaled(value, 1024.0, &BINARY, true);
    four_digits(value) + prefix
}

fn humanize_duration(value: f64) -> String {
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
    let whole = value.abs() as i64;
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

/// A character's other case where that is one character, as Go maps it.
fn single(c: char, mut mapped: impl Iterator<Item = char>) -> char {
    match (mapped.next(), mapped.next()) {
        (Some(only), None) => only,
        _ => c,
    }
}

/// `strings.Title`: the first letter of each word in upper case.
fn title(text: &str) -> String {
    let mut after_word = false;
    let of_word = |c: char| c == '_' || c.is_alphanumeric() || (!c.is_ascii() && !c.is_whitespace());
    text.chars()
        .map(|c| {
            let mapped = if after_word { c } else { single(c, c.to_uppercase()) };
            after_word = of_word(c);
            mapped
        })
        .collect()
}

/// `net.SplitHostPort`
fn split_host_port(address: &str) -> Option<(&str, &str)> {
    let (before, port) = address.rsplit_once(':')?;
    let host = match before.strip_prefix('[') {
        Some(inside) => inside.strip_suffix(']').filter(|host| !host.contains(['[', ']']))?,
        None if before.contains([':', '[', ']']) => return None,
        None => before,
    };
    if port.contains(['[', ']']) { None } else { Some((host, port)) }
}

fn strip_domain(address: &str) -> String {
    let (host, port) = split_host_port(address).unwrap_or((address, ""));
    if host.parse::<std::net::IpAddr>().is_ok() {
        return address.to_owned();
    }
    let host = host.split('.').next().unwrap_or_default();
    match (port, host.contains(':')) {
        ("", _) => host.to_owned(),
        (port, true) => format!("[{host}]:{port}"),
        (port, false) => format!("{host}:{port}"),
    }
}

fn backquote(text: &str) -> String {
    if quote::can_backquote(text) { format!("`{text}`") } else { quote::quote(text) }
}

fn link(expression: &str, tab: u8) -> String {
    format!("/graph?g0.expr={}&g0.tab={tab}", query_escape(expression))
}

/// `url.QueryEscape`
fn query_escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte as char),
            b' ' => out.push('+'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\0' => out.push('\u{fffd}'),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c => out.push(c),
        }
    }
    out
}

fn js(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\'' => out.push_str("\\'"),
            '"' => out.push_str("\\\""),
            '<' | '>' | '&' | '=' => out.push_str(&format!("\\u{:04X}", c as u32)),
            c if c < ' ' || (!c.is_ascii() && !quote::is_print(c)) => {
                out.push_str(&format!("\\u{:04X}", c as u32));
            }
            c => out.push(c),
        }
    }
    out
}

/// Seconds of a duration such as `1h30m`: each unit once, from years down to milliseconds.
fn parse_duration(text: &str) -> Result<f64, String> {
    if text == "0" {
        return Ok(0.0);
    }
    if text.is_empty() {
        return Err("empty duration string".to_owned());
    }
    let invalid = || format!("not a valid duration string: {}", quote::quote(text));
    const UNITS: [(&str, u64); 7] = [
        ("y", 365 * 86_400_000),
        ("w", 7 * 86_400_000),
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1000),
        ("ms", 1),
    ];
    let (mut rest, mut units, mut total_ms) = (text, UNITS.as_slice(), 0u64);
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(invalid)?;
        let (number, after) = rest.split_at(unit_at);
        let unit_end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let place = units.iter().position(|(name, _)| *name == unit).ok_or_else(invalid)?;
        if number.is_empty() {
            return Err(invalid());
        }
        let out_of_range = || "duration out of range".to_owned();
        let count: u64 = number.parse().map_err(|_| out_of_range())?;
        let part = count.checked_mul(units[place].1).ok_or_else(out_of_range)?;
        total_ms = total_ms.checked_add(part).ok_or_else(out_of_range)?;
        if total_ms > i64::MAX as u64 / 1_000_000 {
            return Err(out_of_range());
        }
        (rest, units) = (after, &units[place + 1..]);
    }
    Ok((total_ms * 1_000_000) as f64 / 1e9)
}

fn len(value: &Value) -> Result<Value, String> {
    let len = match value {
        Value::Text(text) => text.len(),
        Value::Labels(map) => map.len(),
        Value::Args(args) => args.values.len(),
        Value::Samples(samples) => samples.len(),
        Value::Nil => return Err("reflect: call of reflect.Value.Type on zero Value".to_owned()),
        Value::Sample(_) => return Err("len of type template.sample".to_owned()),
        Value::Time(_) => return Err("len of type time.Time".to_owned()),
        Value::Duration(_) => return Err("len of type time.Duration".to_owned()),
        other => return Err(format!("len of type {}", other.type_name())),
    };
    Ok(Value::Int(len as i64))
}

/// A position in something of `len` elements; `most` is the largest that is allowed.
fn position(value: &Value, most: usize) -> Result<usize, String> {
    let index = match value {
        Value::Int(index) => *index,
        Value::Byte(index) => i64::from(*index),
        Value::Nil => return Err("cannot index slice/array with nil".to_owned()),
        other => return Err(format!("cannot index slice/array with type {}", other.type_name())),
    };
    match usize::try_from(index) {
        Ok(index) if index <= most => Ok(index),
        _ => Err(format!("index out of range: {index}")),
    }
}

fn index(args: &[Value]) -> Result<Value, String> {
    let mut value = args[0].clone();
    if matches!(value, Value::Nil) {
        return Err("index of untyped nil".to_owned());
    }
    for by in &args[1..] {
        let key = || match by {
            Value::Text(key) => Ok(&**key),
            Value::Nil => Err("value is nil; should be of type string".to_owned()),
            other => Err(format!("value has type {}; should be string", other.type_name())),
        };
        // Go checks against the length inclusively, and panics at the length itself.
        let below = |len: usize, what: &str| match position(by, len)? {
            index if index == len => Err(format!("reflect: {what} index out of range")),
            index => Ok(index),
        };
        value = match &value {
            Value::Text(text) => Value::Byte(text.as_bytes()[below(text.len(), "string")?]),
            Value::Samples(samples) => Value::Sample(samples[below(samples.len(), "slice")?].clone()),
            Value::Labels(map) => Value::text(map.get(key()?).map_or("", String::as_str)),
            Value::Args(args) => args.values.get(key()?).cloned().unwrap_or(Value::Nil),
            Value::Nil => return Err("index of nil pointer".to_owned()),
            Value::Sample(_) => return Err("can't index item of type template.sample".to_owned()),
            other => return Err(format!("can't index item of type {}", other.type_name())),
        };
    }
    Ok(value)
}

fn slice(args: &[Value]) -> Result<Value, String> {
    let indexes = &args[1..];
    if matches!(args[0], Value::Nil) {
        return Err("slice of untyped nil".to_owned());
    }
    if indexes.len() > 3 {
        return Err(format!("too many slice indexes: {}", indexes.len()));
    }
    let len = match &args[0] {
        Value::Text(_) if indexes.len() == 3 => return Err("cannot 3-index slice a string".to_owned()),
        Value::Text(text) => text.len(),
        Value::Samples(samples) => samples.len(),
        other => return Err(format!("can't slice item of type {}", other.type_name())),
    };
    let mut bounds = [0, len, len];
    for (bound, by) in bounds.iter_mut().zip(indexes) {
        *bound = position(by, len)?;
    }
    for pair in bounds[..indexes.len().max(2)].windows(2) {
        if pair[0] > pair[1] {
            return Err(format!("invalid slice index: {} > {}", pair[0], pair[1]));
        }
    }
    let range = bounds[0]..bounds[1];
    Ok(match &args[0] {
        // A cut inside a character leaves bytes that are no text; they show as U+FFFD.
        Value::Text(text) => Value::text(String::from_utf8_lossy(&text.as_bytes()[range])),
        Value::Samples(samples) => Value::Samples(samples[range].into()),
        _ => Value::Nil,
    })
}

/// The value of `.name` on a time or duration, if Go's type has such a method: what it takes, and
/// what it answers.
pub(super) fn method(
    receiver: &Value,
    name: &str,
) -> Option<(&'static [Param], fn(&Value, &[Value]) -> Value)> {
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
        (Value::Time(_), "Format") => {
            (&[Text], |value, args| Value::text(dates::format(time(value), text(&args[0]))))
        }
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

/// The labels of a map, as a template sees them.
pub(super) fn labels(map: &BTreeMap<String, String>) -> Rc<BTreeMap<String, String>> {
    Rc::new(map.clone())
}
