//! The values a template handles, with the names and the truth Go gives them.

use std::collections::BTreeMap;
use std::rc::Rc;

/// A value. Clones are cheap.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// No value: an untyped nil, the element that `args` lacks.
    Nil,
    Bool(bool),
    Int(i64),
    /// A byte of an indexed string.
    Byte(u8),
    Float(f64),
    Text(Rc<str>),
    Labels(Rc<BTreeMap<String, String>>),
    /// What `args` makes.
    Args(Rc<Args>),
    /// A query's result.
    Samples(Rc<[Rc<Sample>]>),
    Sample(Rc<Sample>),
    /// The dot an alert's template starts with.
    Alert(Rc<Alert>),
    /// Nanoseconds since the epoch.
    Time(i64),
    /// Nanoseconds.
    Duration(i64),
}

/// Values by name.
#[derive(Debug)]
pub(super) struct Args {
    pub values: BTreeMap<String, Value>,
    /// How deep such maps are nested in it, itself counted.
    pub depth: usize,
}

/// An element of a query's result.
#[derive(Debug)]
pub(super) struct Sample {
    pub labels: Rc<BTreeMap<String, String>>,
    pub value: f64,
}

/// What a template sees of its alert.
#[derive(Debug)]
pub(super) struct Alert {
    pub labels: Rc<BTreeMap<String, String>>,
    pub external_labels: Rc<BTreeMap<String, String>>,
    pub external_url: Rc<str>,
    pub value: f64,
    pub now_ms: i64,
}

impl Value {
    pub(super) fn text(text: impl AsRef<str>) -> Value {
        Value::Text(Rc::from(text.as_ref()))
    }

    /// Go's name of the type.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Value::Nil => "<nil>",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Byte(_) => "uint8",
            Value::Float(_) => "float64",
            Value::Text(_) => "string",
            Value::Labels(_) => "map[string]string",
            Value::Args(_) => "map[string]interface {}",
            Value::Samples(_) => "template.queryResult",
            Value::Sample(_) => "*template.sample",
            Value::Alert(_) => {
                "struct { Labels map[string]string; ExternalLabels map[string]string; \
                 ExternalURL string; Value interface {} }"
            }
            Value::Time(_) => "*time.Time",
            Value::Duration(_) => "*time.Duration",
        }
    }

    /// Whether `if` takes the value as true.
    pub(super) fn truth(&self) -> bool {
        match self {
            Value::Nil => false,
            Value::Bool(value) => *value,
            Value::Int(value) => *value != 0,
            Value::Byte(value) => *value != 0,
            Value::Float(value) => *value != 0.0,
            Value::Text(text) => !text.is_empty(),
            Value::Labels(map) => !map.is_empty(),
            Value::Args(args) => !args.values.is_empty(),
            Value::Samples(samples) => !samples.is_empty(),
            Value::Sample(_) | Value::Alert(_) | Value::Time(_) | Value::Duration(_) => true,
        }
    }
}
