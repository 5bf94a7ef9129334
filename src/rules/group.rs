//! Groups and rules as they were written: what to evaluate, not how far it got.

use super::alerting::AlertingRule;
use super::file::{self, Loaded};
use super::recording::RecordingRule;
use crate::promql::{Expr, Syntax};
use crate::yaml::FileError;
use std::path::Path;
use std::time::Duration;

/// Rules that are evaluated one after the other, at one timestamp, every interval.
#[derive(Debug, Clone)]
pub struct Group {
    /// Its name, unique in its file.
    pub name: String,
    /// The file it was read from, as its path was given. File and name together identify a group.
    pub file: String,
    /// How often it is evaluated; `None` stands for the global evaluation interval.
    pub interval: Option<Duration>,
    /// How far before the evaluation's time the rules look; `None` stands for the global setting.
    pub query_offset: Option<Duration>,
    /// The most series or alerts a rule may yield; 0 is no limit.
    pub limit: usize,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// A rule of either kind.
#[derive(Debug, Clone)]
pub enum Rule {
    /// `alert:`
    Alerting(AlertingRule),
    /// `record:`
    Recording(RecordingRule),
}

impl Group {
    /// Reads the groups of the rule file at `path`. What is doubtful in it goes to the log; see
    /// [`file::load`] to have it as a list.
    pub fn load(path: impl AsRef<Path>) -> Result<Vec<Group>, FileError> {
        let Loaded { groups, warnings } = file::load(path.as_ref(), Syntax::default())?;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        Ok(groups)
    }
}

impl Rule {
    /// The alert's or the recorded metric's name.
    pub fn name(&self) -> &str {
        match self {
            Rule::Alerting(rule) => &rule.name,
            Rule::Recording(rule) => &rule.name,
        }
    }

    /// The expression.
    pub fn expr(&self) -> &Expr {
        match self {
            Rule::Alerting(rule) => &rule.expr,
            Rule::Recording(rule) => &rule.expr,
        }
    }

    /// The expression's text.
    pub fn query(&self) -> &str {
        match self {
            Rule::Alerting(rule) => &rule.query,
            Rule::Recording(rule) => &rule.query,
        }
    }

    /// The labels the rule sets, by name, as they were written.
    pub fn labels(&self) -> Box<dyn Iterator<Item = (&str, &str)> + '_> {
        match self {
            Rule::Alerting(rule) => Box::new(rule.labels.iter().map(|(n, t)| (n.as_str(), t.source()))),
            Rule::Recording(rule) => Box::new(rule.labels.iter().map(|(n, v)| (n.as_str(), v.as_str()))),
        }
    }

    /// What identifies the rule within its group while the file is edited: kind, name and labels,
    /// as in Prometheus. Several rules may share it; then their order tells them apart.
    pub fn identity(&self) -> Vec<(&str, &str)> {
        let kind = match self {
            Rule::Alerting(_) => "alert",
            Rule::Recording(_) => "record",
        };
        std::iter::once((kind, self.name())).chain(self.labels()).collect()
    }
}
