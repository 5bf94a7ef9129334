//! Go's `text/template` with Prometheus' functions: what annotations and labels of alerts are
//! written in.
//!
//! Users and unit tests compare annotations byte for byte, so kinds, printing, comparison and the
//! texts of errors are Go's. A template is parsed once and expanded against one alert, within
//! [`Limits`]; it reaches the outside only by the query function it is handed.

mod ast;
mod compare;
mod dates;
mod exec;
mod functions;
mod lex;
mod methods;
mod numbers;
mod parse;
mod printf;
mod quote;
mod strings;
mod value;

pub(crate) use strings::link;

use std::collections::BTreeMap;
use std::time::Instant;

/// What Prometheus puts in front of each template; positions in errors count it.
const PREFIX: &str = "{{$labels := .Labels}}{{$externalLabels := .ExternalLabels}}\
                      {{$externalURL := .ExternalURL}}{{$value := .Value}}";

/// A parsed template.
#[derive(Debug)]
pub struct Template {
    name: String,
    text: String,
    trees: ast::Trees,
}

/// What a template sees of its alert.
#[derive(Debug, Clone)]
pub struct Data {
    /// `.Labels`, `$labels`
    pub labels: BTreeMap<String, String>,
    /// `.ExternalLabels`, `$externalLabels`
    pub external_labels: BTreeMap<String, String>,
    /// `.ExternalURL`, `$externalURL`
    pub external_url: String,
    /// `.Value`, `$value`
    pub value: f64,
    /// The time of the evaluation, milliseconds since the epoch.
    pub now_ms: i64,
}

/// One element of a query's result.
#[derive(Debug, Clone, PartialEq)]
pub struct QuerySample {
    /// Its labels, the metric's name included.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// Answers `query "up"` at the time of the evaluation; an error ends the expansion.
pub type Queries<'q> = dyn FnMut(&str) -> Result<Vec<QuerySample>, String> + 'q;

/// What one expansion may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most bytes of output, and of any text made on the way.
    pub output_bytes: usize,
    /// The most nodes to evaluate; a loop counts its body each time.
    pub steps: u64,
    /// The most elements of one query's result.
    pub query_results: usize,
    /// When to give up.
    pub deadline: Option<Instant>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { output_bytes: 64 << 10, steps: 200_000, query_results: 1000, deadline: None }
    }
}

/// Why a template is no template, or cannot be expanded. The texts are Go's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Its syntax is wrong.
    #[error("error parsing template {name}: {text}")]
    Parse {
        /// The template's name.
        name: String,
        /// What is wrong, with name and line.
        text: String,
    },
    /// Expanding it failed.
    #[error("error executing template {name}: {text}")]
    Execute {
        /// The template's name.
        name: String,
        /// What failed, with name, line and column.
        text: String,
    },
}

impl TemplateError {
    /// The text alone, `template: NAME:1: ...`, as the check of rule files shows it.
    pub fn text(&self) -> &str {
        match self {
            TemplateError::Parse { text, .. } | TemplateError::Execute { text, .. } => text,
        }
    }
}

impl Template {
    /// Parses an annotation or label; Prometheus names them `__alert_NAME`. `$labels`, `$value`,
    /// `$externalLabels` and `$externalURL` are defined in it.
    pub fn parse(name: &str, text: &str) -> Result<Template, TemplateError> {
        let text = [PREFIX, text].concat();
        match parse::parse(name, &text) {
            Ok(trees) => Ok(Template { name: name.to_owned(), text, trees }),
            Err(text) => Err(TemplateError::Parse { name: name.to_owned(), text }),
        }
    }

    /// Expands the template for `data`.
    pub fn expand(
        &self,
        data: &Data,
        queries: &mut Queries<'_>,
        limits: Limits,
    ) -> Result<String, TemplateError> {
        exec::run(&self.name, &self.text, &self.trees, data, queries, limits)
            .map_err(|text| TemplateError::Execute { name: self.name.clone(), text })
    }
}

#[cfg(test)]
mod tests;
