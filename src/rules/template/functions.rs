//! What a template can call: Go's built-ins and Prometheus' functions, in one table.

use super::value::{Alert, Args, Sample, Value};
use super::{Limits, Queries, compare, dates, numbers, printf, strings};
use crate::relabel::case;
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
    variadic("html", &[Any], |_, args| Ok(Value::text(strings::html(&printf::shown(args))))),
    variadic("js", &[Any], |_, args| Ok(Value::text(strings::js(&printf::shown(args))))),
    variadic("urlquery", &[Any], |_, args| Ok(Value::text(strings::query_escape(&printf::shown(args))))),
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
    function("humanize", &[Any], |_, args| {
        numbers::float(&args[0]).map(|v| Value::text(numbers::humanize(v)))
    }),
    function("humanize1024", &[Any], |_, args| {
        numbers::float(&args[0]).map(|v| Value::text(numbers::humanize1024(v)))
    }),
    function("humanizeDuration", &[Any], |_, args| {
        numbers::float(&args[0]).map(|v| Value::text(numbers::humanize_duration(v)))
    }),
    function("humanizePercentage", &[Any], |_, args| {
        numbers::float(&args[0]).map(|v| Value::text(format!("{}%", numbers::four_digits(v * 100.0))))
    }),
    function("humanizeTimestamp", &[Any], |_, args| {
        let seconds = numbers::float(&args[0])?;
        if !seconds.is_finite() {
            return Ok(Value::text(numbers::four_digits(seconds)));
        }
        Ok(Value::text(dates::time_text(numbers::milliseconds(numbers::nanoseconds(seconds, "timestamp")?))))
    }),
    function("toTime", &[Any], |_, args| {
        let seconds = numbers::finite(&args[0])?;
        Ok(Value::Time(numbers::milliseconds(numbers::nanoseconds(seconds, "timestamp")?)))
    }),
    function("toDuration", &[Any], |_, args| {
        let seconds = numbers::finite(&args[0])?;
        Ok(Value::Duration(numbers::nanoseconds(seconds, "duration")?))
    }),
    function("now", &[], |world, _| Ok(Value::Float(world.alert.now_ms as f64 / 1000.0))),
    // Strings.
    function("title", &[Text], |_, args| Ok(Value::text(strings::title(text(&args[0]))))),
    function("toUpper", &[Text], |_, args| Ok(Value::text(case::upper(text(&args[0]))))),
    function("toLower", &[Text], |_, args| Ok(Value::text(case::lower(text(&args[0]))))),
    function("stripPort", &[Text], |_, args| {
        let address = text(&args[0]);
        Ok(Value::text(strings::split_host_port(address).map_or(address, |(host, _)| host)))
    }),
    function("stripDomain", &[Text], |_, args| Ok(Value::text(strings::strip_domain(text(&args[0]))))),
    function("match", &[Text, Text], |_, args| {
        let pattern = Rewriter::unanchored(text(&args[0])).map_err(|error| error.to_string())?;
        Ok(Value::Bool(pattern.is_match(text(&args[1]))))
    }),
    function("reReplaceAll", &[Text, Text, Text], |world, args| {
        let pattern = text(&args[0]);
        let compiled =
            |error: RegexError| format!("regexp: Compile({}): {error}", strings::backquote(pattern));
        let limit = world.limits.output_bytes;
        Rewriter::unanchored(pattern)
            .map_err(compiled)?
            .replace_all(text(&args[2]), text(&args[1]), limit)
            .map(Value::text)
            .ok_or_else(|| format!("the text exceeds {limit} bytes"))
    }),
    function("graphLink", &[Text], |_, args| Ok(Value::text(strings::link(text(&args[0]), 0)))),
    function("tableLink", &[Text], |_, args| Ok(Value::text(strings::link(text(&args[0]), 1)))),
    function("parseDuration", &[Text], |_, args| strings::parse_duration(text(&args[0])).map(Value::Float)),
    function("urlQueryEscape", &[Text], |_, args| Ok(Value::text(strings::query_escape(text(&args[0]))))),
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

/// The labels of a map, as a template sees them.
pub(super) fn labels(map: &BTreeMap<String, String>) -> Rc<BTreeMap<String, String>> {
    Rc::new(map.clone())
}
