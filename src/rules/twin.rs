//! Rule files as YAML holds them: Prometheus' form, and two that are not Prometheus' own but are met
//! in practice and load with a note: a bare list of rules, and `alerts:` with `name`, `condition`,
//! `severity` and `duration`.

use crate::yaml::{self, FileError, PromDuration, Spanned, null_as_default};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// `groups:`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileTwin {
    #[serde(default, deserialize_with = "null_as_default")]
    pub groups: Vec<GroupTwin>,
}

/// One of the `groups:`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupTwin {
    pub name: Spanned<String>,
    pub interval: Option<Spanned<PromDuration>>,
    pub query_offset: Option<PromDuration>,
    /// vmalert's name for much the same as `query_offset`.
    pub eval_delay: Option<Spanned<PromDuration>>,
    pub limit: Option<Spanned<i64>>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub labels: Texts,
    #[serde(default, deserialize_with = "null_as_default")]
    pub rules: Vec<Spanned<RuleTwin>>,
}

/// One of the `rules:`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleTwin {
    pub record: Option<Spanned<String>>,
    pub alert: Option<Spanned<String>>,
    pub expr: Option<Spanned<String>>,
    #[serde(rename = "for")]
    pub hold: Option<Spanned<PromDuration>>,
    pub keep_firing_for: Option<Spanned<PromDuration>>,
    /// Belongs under `labels:`, where it is put with a note.
    pub severity: Option<Spanned<String>>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub labels: Texts,
    #[serde(default, deserialize_with = "null_as_default")]
    pub annotations: Texts,
}

/// Labels or annotations.
pub type Texts = BTreeMap<String, Spanned<String>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AlertsTwin {
    #[serde(default, deserialize_with = "null_as_default")]
    alerts: Vec<Spanned<AlertTwin>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AlertTwin {
    name: Spanned<String>,
    condition: Spanned<String>,
    severity: Option<Spanned<String>>,
    duration: Option<Spanned<PromDuration>>,
    #[serde(default, deserialize_with = "null_as_default")]
    labels: Texts,
    #[serde(default, deserialize_with = "null_as_default")]
    annotations: Texts,
}

/// Reads the groups in `text`, whatever the form, and notes in `warnings` if it is not Prometheus'.
pub fn read(path: &Path, text: &str, warnings: &mut Vec<FileError>) -> Result<Vec<GroupTwin>, FileError> {
    let is_content = |line: &str| !line.is_empty() && !line.starts_with('#') && line != "---";
    let first = text.lines().map(str::trim_end).enumerate().find(|(_, line)| is_content(line.trim_start()));
    let (number, first) = first.unwrap_or_default();
    let (rules, note): (Vec<Spanned<RuleTwin>>, _) = if first.starts_with("- ") {
        (yaml::parse(path, text)?, "put `groups:`, `- name: ...` and `rules:` above it")
    } else if first == "alerts:" {
        let twin: AlertsTwin = yaml::parse(path, text)?;
        let rules = twin.alerts.into_iter().map(rule).collect();
        (rules, "write `groups:` with `rules:` of `alert`, `expr` and `for`")
    } else {
        return Ok(yaml::parse::<FileTwin>(path, text)?.groups);
    };
    let note = FileError::of_file(path, format!("not Prometheus' form, taken as one group; {note}"));
    warnings.push(FileError { position: Some((number as u64 + 1, 1)), ..note });
    Ok(group(path, rules).into_iter().collect())
}

/// One group of all `rules`, named after the file. None if there are no rules.
fn group(path: &Path, rules: Vec<Spanned<RuleTwin>>) -> Option<GroupTwin> {
    let first = rules.first()?;
    let name = path.file_stem().map_or_else(|| "rules".into(), |stem| stem.to_string_lossy());
    Some(GroupTwin {
        name: Spanned::new(name.into_owned(), first.referenced, first.defined),
        interval: None,
        query_offset: None,
        eval_delay: None,
        limit: None,
        labels: Texts::new(),
        rules,
    })
}

fn rule(alert: Spanned<AlertTwin>) -> Spanned<RuleTwin> {
    let AlertTwin { name, condition, severity, duration, mut labels, annotations } = alert.value;
    if let Some(severity) = severity {
        labels.insert("severity".to_owned(), severity);
    }
    let rule = RuleTwin {
        record: None,
        alert: Some(name),
        expr: Some(condition),
        hold: duration,
        keep_firing_for: None,
        severity: None,
        labels,
        annotations,
    };
    Spanned::new(rule, alert.referenced, alert.defined)
}
