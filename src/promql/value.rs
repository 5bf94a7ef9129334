//! What an evaluation yields.

use super::annotations::Annotations;
use super::ast::ValueType;
use super::explain::Explained;
use super::queryable::QueryableSamples;
use larum_storage_format::{Histogram, Labels};
use std::sync::Arc;

/// A value with what there is to say about it.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The value.
    pub value: Value,
    /// Warnings and infos, with their positions.
    pub annotations: Annotations,
    /// What the evaluation took.
    pub stats: Stats,
}

/// What an evaluation took.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// Series read from storage, each as often as it was read.
    pub series: u64,
    /// Samples read from storage, each as often as it was read.
    pub samples: u64,
    /// The most samples held at one time.
    pub peak_samples: u64,
    /// The most memory held at one time, as far as it is counted.
    pub peak_bytes: u64,
    /// Samples that steps look at; where [`super::EvalOptions::count_samples`] asked for it.
    pub queryable: Option<QueryableSamples>,
    /// What its nodes took; where [`super::EvalOptions::explain`] asked for it.
    pub explained: Option<Explained>,
}

/// The value of an expression.
#[derive(Debug, Clone)]
pub enum Value {
    /// A float at the time of the step.
    Scalar(FloatPoint),
    /// Text.
    String(String),
    /// One value per series, at one time.
    Vector(Vec<VectorElement>),
    /// Points per series, sorted by labels.
    Matrix(Vec<Series>),
}

impl Value {
    /// The type of the value.
    pub fn value_type(&self) -> ValueType {
        match self {
            Value::Scalar(_) => ValueType::Scalar,
            Value::String(_) => ValueType::String,
            Value::Vector(_) => ValueType::Vector,
            Value::Matrix(_) => ValueType::Matrix,
        }
    }
}

/// One element of an instant vector.
#[derive(Debug, Clone)]
pub struct VectorElement {
    /// Its labels.
    pub labels: Labels,
    /// The time of the step (of the sample, where functions keep it), milliseconds since the epoch.
    pub t_ms: i64,
    /// Its value.
    pub value: larum_storage_format::Value,
}

/// One series of a matrix. A time stands in one of the two lists only.
#[derive(Debug, Clone, Default)]
pub struct Series {
    /// Its labels.
    pub labels: Labels,
    /// The floats, ascending by time.
    pub floats: Vec<FloatPoint>,
    /// The histograms, ascending by time.
    pub histograms: Vec<HistogramPoint>,
}

/// A float at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FloatPoint {
    /// Milliseconds since the epoch.
    pub t_ms: i64,
    /// The float.
    pub value: f64,
}

/// A histogram at a time.
#[derive(Debug, Clone)]
pub struct HistogramPoint {
    /// Milliseconds since the epoch.
    pub t_ms: i64,
    /// The histogram.
    pub value: Arc<Histogram>,
}
