//! Recording rules: the value of an expression under a name of its own.

use super::error::RuleError;
use crate::promql::Expr;
use crate::promql::value::VectorElement;
use larum_storage_format::labels::METRIC_NAME;
use larum_storage_format::{Labels, Value};
use std::collections::HashSet;
use std::sync::Arc;

/// A recording rule as it was written.
#[derive(Debug, Clone)]
pub struct RecordingRule {
    /// The metric it records.
    pub name: String,
    /// The expression.
    pub expr: Expr,
    /// The expression's text.
    pub query: Arc<str>,
    /// The labels it sets, by name; an empty value removes the label.
    pub labels: Vec<(String, String)>,
}

impl RecordingRule {
    /// The series and values to record, given what the expression yielded.
    pub fn step(&self, answer: Vec<VectorElement>, limit: usize) -> Result<Vec<(Labels, Value)>, RuleError> {
        let mut seen = HashSet::with_capacity(answer.len());
        let mut recorded = Vec::with_capacity(answer.len());
        for element in answer {
            let mut labels = element.labels.to_builder();
            labels.set(METRIC_NAME, &self.name);
            for (name, value) in &self.labels {
                labels.set(name, value);
            }
            let labels = labels.build();
            if !seen.insert(labels.clone()) {
                return Err(RuleError::SameRuleLabels);
            }
            recorded.push((labels, element.value));
        }
        if limit > 0 && recorded.len() > limit {
            return Err(RuleError::TooManySeries { limit, count: recorded.len() });
        }
        Ok(recorded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promql::ast::{ExprKind, Pos};

    fn element(pairs: &[(&str, &str)], value: f64) -> VectorElement {
        let labels = Labels::from_pairs(pairs.iter().copied()).unwrap();
        VectorElement { labels, t_ms: 0, value: Value::Float(value) }
    }

    fn rule() -> RecordingRule {
        RecordingRule {
            name: "job:up".to_owned(),
            expr: Expr { kind: ExprKind::String("x".to_owned()), pos: Pos::default() },
            query: "1".into(),
            labels: vec![("instance".to_owned(), String::new()), ("team".to_owned(), "x".to_owned())],
        }
    }

    #[test]
    fn the_name_and_the_labels_are_the_rules() {
        let answer = vec![element(&[("__name__", "up"), ("instance", "a"), ("job", "j")], 3.0)];
        let recorded = rule().step(answer, 0).unwrap();
        assert_eq!(recorded[0].0.to_string(), r#"{__name__="job:up", job="j", team="x"}"#);
        assert!(recorded[0].1.same_bits(&Value::Float(3.0)));
    }

    #[test]
    fn series_that_become_one_and_series_beyond_the_limit_are_errors() {
        let two = |label| vec![element(&[(label, "a")], 1.0), element(&[(label, "b")], 1.0)];
        assert!(matches!(rule().step(two("instance"), 0), Err(RuleError::SameRuleLabels)));
        assert!(matches!(rule().step(two("job"), 1), Err(RuleError::TooManySeries { limit: 1, count: 2 })));
        assert_eq!(rule().step(two("job"), 2).unwrap().len(), 2);
    }
}
