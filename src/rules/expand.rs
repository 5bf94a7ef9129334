//! Labels and annotations of alerts: texts with templates in them, and what these get to see.

use super::template::{Data, Limits, QuerySample, Template, TemplateError};
use larum_storage_format::Labels;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The longest one expansion may take, queries included.
pub const LONGEST: Duration = Duration::from_millis(100);

/// The value of a label or annotation of an alerting rule.
#[derive(Clone)]
pub struct TemplateText {
    source: String,
    /// None where nothing is to be expanded, as in most labels; thousands of rules have those.
    template: Option<Arc<Template>>,
}

/// Answers a query of a template until a deadline.
pub type Ask<'a> = dyn Fn(&str, Instant) -> Result<Vec<QuerySample>, String> + 'a;

/// What an expansion sees beside the element it is for.
pub struct Surroundings<'a> {
    /// `$externalLabels`
    pub external_labels: &'a Labels,
    /// `$externalURL`
    pub external_url: &'a str,
    /// The time of the evaluation, milliseconds since the epoch.
    pub now_ms: i64,
    /// Answers `query "up"` at that time.
    pub query: &'a Ask<'a>,
    /// What could not be expanded.
    pub failures: RefCell<TemplateFailures>,
}

/// Templates that could not be expanded.
#[derive(Debug, Default)]
pub struct TemplateFailures {
    /// How many.
    pub count: u64,
    /// Why the first of them could not.
    pub first: Option<String>,
}

impl TemplateText {
    /// Parses a text of the rule `rule`.
    pub fn parse(rule: &str, source: &str) -> Result<TemplateText, TemplateError> {
        let is_plain = !source.contains("{{") && source.len() <= Limits::default().output_bytes;
        let template = match is_plain {
            true => None,
            false => Some(Arc::new(Template::parse(&format!("__alert_{rule}"), source)?)),
        };
        Ok(TemplateText { source: source.to_owned(), template })
    }

    /// The text as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The text for an element. A failure is told in the text, so that the alert gets out, and counted.
    pub fn expand(&self, data: &Data, surroundings: &Surroundings<'_>) -> String {
        let Some(template) = &self.template else { return self.source.clone() };
        let deadline = Instant::now() + LONGEST;
        let limits = Limits { deadline: Some(deadline), ..Limits::default() };
        let expanded = template.expand(data, &mut |query| (surroundings.query)(query, deadline), limits);
        expanded.unwrap_or_else(|error| {
            let mut failures = surroundings.failures.borrow_mut();
            failures.count += 1;
            failures.first.get_or_insert_with(|| error.to_string());
            format!("<error expanding template: {error}>")
        })
    }
}

impl fmt::Debug for TemplateText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

impl Surroundings<'_> {
    /// What templates see, with labels and value still to be filled in.
    pub fn data(&self) -> Data {
        Data {
            labels: BTreeMap::new(),
            external_labels: map(self.external_labels),
            external_url: self.external_url.to_owned(),
            value: 0.0,
            now_ms: self.now_ms,
        }
    }
}

/// The labels as templates see them.
pub fn map(labels: &Labels) -> BTreeMap<String, String> {
    labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
