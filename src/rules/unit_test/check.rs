//! What a test expects, and whether that is what came.

use super::Failure;
use crate::promql::Expr;
use crate::promql::duration::format_duration;
use crate::promql::histogram_text::write_histogram;
use crate::promql::number::sample_value;
use crate::promql::value::{Value as Answered, VectorElement};
use larum_storage_format::{Histogram, Labels, Value};
use std::collections::BTreeMap;

/// Which alerts of one name fire at a time.
pub struct AlertCheck {
    pub line: u64,
    /// Since the beginning of the test.
    pub at_ms: i64,
    pub name: String,
    pub expected: Vec<ExpectedAlert>,
}

/// An alert that is to fire, or does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExpectedAlert {
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

/// What a query answers at a time.
pub struct QueryCheck {
    pub line: u64,
    /// Since the beginning of the test.
    pub at_ms: i64,
    pub text: String,
    pub expr: Expr,
    pub expected: Vec<(Labels, SampleText)>,
}

/// A value as it is compared: histograms by their notation, in which equal ones look the same.
#[derive(Debug, Clone, PartialEq)]
pub enum SampleText {
    Float(f64),
    Histogram(String),
}

impl AlertCheck {
    /// Compares with the alerts that fire.
    pub fn check(&self, mut firing: Vec<ExpectedAlert>) -> Option<Failure> {
        let mut expected = self.expected.clone();
        expected.sort();
        firing.sort();
        let show = |alerts: &[ExpectedAlert]| alerts.iter().map(ExpectedAlert::to_string).collect();
        (expected != firing).then(|| Failure {
            line: self.line,
            what: format!("alertname: {}, time: {}", self.name, format_duration(self.at_ms)),
            expected: show(&expected),
            got: show(&firing),
        })
    }
}

impl std::fmt::Display for ExpectedAlert {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut pairs = |title: &str, texts: &BTreeMap<String, String>| {
            let texts: Vec<String> = texts.iter().map(|(name, text)| format!("{name}={text:?}")).collect();
            write!(f, "{title}:{{{}}}", texts.join(", "))
        };
        pairs("labels", &self.labels)?;
        pairs(" annotations", &self.annotations)
    }
}

impl QueryCheck {
    /// Compares with what was answered. With `fuzzy`, floats may be neighbours.
    pub fn check(&self, answer: Result<Answered, String>, fuzzy: bool) -> Option<Failure> {
        let failure = |expected, got| {
            let what = format!("expr: {:?}, time: {}", self.text, format_duration(self.at_ms));
            Some(Failure { line: self.line, what, expected, got })
        };
        let mut expected = self.expected.clone();
        expected.sort_by(|a, b| a.0.cmp(&b.0));
        let mut got = match answer {
            Ok(Answered::Vector(vector)) => vector.iter().map(SampleText::of_element).collect(),
            Ok(Answered::Scalar(point)) => vec![(Labels::empty(), SampleText::Float(point.value))],
            Ok(Answered::String(_) | Answered::Matrix(_)) => {
                let kind = "an answer that is neither vector nor scalar".to_owned();
                return failure(show(&expected), vec![kind]);
            }
            Err(error) => return failure(show(&expected), vec![error]),
        };
        got.sort_by(|a, b| a.0.cmp(&b.0));
        let same =
            |((a, x), (b, y)): (&(Labels, SampleText), &(Labels, SampleText))| a == b && x.same(y, fuzzy);
        if expected.len() == got.len() && expected.iter().zip(&got).all(same) {
            return None;
        }
        failure(show(&expected), show(&got))
    }
}

impl SampleText {
    pub fn of_histogram(histogram: &Histogram) -> String {
        let mut text = String::new();
        write_histogram(&mut text, histogram).expect("a String takes any text");
        text
    }

    fn of_element(element: &VectorElement) -> (Labels, SampleText) {
        let value = match &element.value {
            Value::Float(value) => SampleText::Float(*value),
            Value::Histogram(histogram) => SampleText::Histogram(SampleText::of_histogram(histogram)),
        };
        (element.labels.clone(), value)
    }

    fn same(&self, other: &SampleText, fuzzy: bool) -> bool {
        match (self, other) {
            (SampleText::Float(a), SampleText::Float(b)) => {
                let neighbours = || fuzzy && (a.next_up() == *b || a.next_down() == *b);
                a == b || a.is_nan() && b.is_nan() || neighbours()
            }
            (SampleText::Histogram(a), SampleText::Histogram(b)) => a == b,
            _ => false,
        }
    }
}

fn show(samples: &[(Labels, SampleText)]) -> Vec<String> {
    let value = |value: &SampleText| match value {
        SampleText::Float(value) => sample_value(*value),
        SampleText::Histogram(text) => text.clone(),
    };
    samples.iter().map(|(labels, v)| format!("{labels} {}", value(v))).collect()
}
