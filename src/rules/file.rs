//! Rule files: Prometheus' YAML into [`Group`]s, every fault with file, line and column.

use super::alerting::AlertingRule;
use super::expand::TemplateText;
use super::group::{Group, Rule};
use super::recording::RecordingRule;
use super::twin::{self, GroupTwin, RuleTwin, Texts};
use super::unknown_fields;
use crate::promql::{self, Expr, Syntax};
use crate::yaml::{self, FileError, PromDuration, Spanned};
use larum_storage_format::labels::METRIC_NAME;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

/// A file and its text, for exact positions.
#[derive(Clone, Copy)]
struct Source<'a> {
    path: &'a Path,
    text: &'a str,
    syntax: Syntax,
}

/// A file with more fields that nobody knows is none of rules.
const IGNORED_FIELDS_MAX: usize = 1000;

/// What was read from a rule file.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Its groups, in order.
    pub groups: Vec<Group>,
    /// What loads but is probably not meant, each with its place.
    pub warnings: Vec<FileError>,
}

/// Reads the rule file at `path`.
pub fn load(path: &Path, syntax: Syntax) -> Result<Loaded, FileError> {
    let text = yaml::read_text(path)?;
    parse(path, &text, syntax)
}

/// Reads the rule file at `path` without the fields in it that nobody knows; of each there is a warning.
pub fn load_without_unknown_fields(path: &Path, syntax: Syntax) -> Result<Loaded, FileError> {
    let mut text = yaml::read_text(path)?;
    let mut ignored = Vec::new();
    loop {
        match read_file(path, &text, syntax) {
            Ok(mut loaded) => {
                loaded.warnings.extend(ignored);
                loaded.warnings.sort_by_key(|warning| warning.position);
                return Ok(loaded);
            }
            Err(error) => {
                let field =
                    error.message.strip_prefix("unknown field ").and_then(|rest| rest.split(',').next());
                let place = error.position.filter(|_| ignored.len() < IGNORED_FIELDS_MAX);
                let shorter = place.and_then(|place| unknown_fields::without_key(&text, place));
                let (Some(field), Some(shorter)) = (field, shorter) else {
                    return Err(explained(error, &text));
                };
                let message = format!("unknown field {field} is ignored");
                ignored.push(FileError { message, ..error });
                text = shorter;
            }
        }
    }
}

/// Reads the text of a rule file. `path` names it in errors and in the API.
pub fn parse(path: &Path, text: &str, syntax: Syntax) -> Result<Loaded, FileError> {
    read_file(path, text, syntax).map_err(|error| explained(error, text))
}

fn read_file(path: &Path, text: &str, syntax: Syntax) -> Result<Loaded, FileError> {
    let source = Source { path, text, syntax };
    let mut loaded = Loaded { groups: Vec::new(), warnings: Vec::new() };
    let mut names = HashSet::new();
    for group in twin::read(path, text, &mut loaded.warnings)? {
        if group.name.value.is_empty() {
            return Err(FileError::at(path, &group.name, "Groupname must not be empty"));
        }
        if !names.insert(group.name.value.clone()) {
            let what = format!("groupname: {:?} is repeated in the same file", group.name.value);
            return Err(FileError::at(path, &group.name, what));
        }
        loaded.groups.push(read_group(source, group, &mut loaded.warnings)?);
    }
    Ok(loaded)
}

fn read_group(
    source: Source<'_>,
    twin: GroupTwin,
    warnings: &mut Vec<FileError>,
) -> Result<Group, FileError> {
    let path = source.path;
    if let Some(delay) = &twin.eval_delay {
        let what = "eval_delay is taken as query_offset; write query_offset";
        warnings.push(FileError::at(path, delay, what));
    }
    let interval = match twin.interval {
        Some(interval) if interval.value.0.is_zero() => {
            return Err(FileError::at(path, &interval, "interval must be longer than 0"));
        }
        interval => interval.map(|i| i.value.0),
    };
    let limit = match twin.limit {
        None => 0,
        Some(limit) => usize::try_from(limit.value)
            .map_err(|_| FileError::at(path, &limit, "limit must not be negative (0 is no limit)"))?,
    };
    check_labels(path, &twin.labels)?;
    let mut rules = Vec::with_capacity(twin.rules.len());
    let mut places = Vec::with_capacity(twin.rules.len());
    for rule in twin.rules {
        let place = Spanned::new((), rule.referenced, rule.defined);
        rules.push(read_rule(source, &place, rule.value, &twin.labels, warnings)?);
        places.push(place);
    }
    let mut seen = HashSet::new();
    for (rule, place) in rules.iter().zip(&places) {
        if !seen.insert(rule.identity()) {
            let what =
                format!("{} has the same name and labels as a rule before it in this group", rule.name());
            warnings.push(FileError::at(path, place, what));
        }
    }
    Ok(Group {
        name: twin.name.value,
        file: path.display().to_string(),
        interval,
        query_offset: twin.query_offset.or(twin.eval_delay.map(|d| d.value)).map(|d| d.0),
        limit,
        rules,
    })
}

fn read_rule(
    source: Source<'_>,
    place: &Spanned<()>,
    twin: RuleTwin,
    group_labels: &Texts,
    warnings: &mut Vec<FileError>,
) -> Result<Rule, FileError> {
    let path = source.path;
    let fail = |what: &str| Err(FileError::at(path, place, what));
    let Some(expr_text) = twin.expr.filter(|e| !e.value.trim().is_empty()) else {
        return fail("field 'expr' must be set in rule");
    };
    let expr = source.read_expr(&expr_text)?;
    let query: Arc<str> = expr.to_string().into();
    check_labels(path, &twin.labels)?;
    let mut labels = twin.labels;
    if let Some(severity) = twin.severity {
        let what = "severity is taken as a label; write it under labels";
        warnings.push(FileError::at(path, &severity, what));
        labels.entry("severity".to_owned()).or_insert(severity);
    }
    // The rule's own labels win.
    for (name, value) in group_labels {
        labels.entry(name.clone()).or_insert_with(|| value.clone());
    }
    match (twin.record, twin.alert) {
        (Some(record), None) => {
            if let Some(hold) = &twin.hold {
                return Err(FileError::at(path, hold, "invalid field 'for' in recording rule"));
            }
            if let Some(keep) = &twin.keep_firing_for {
                return Err(FileError::at(path, keep, "invalid field 'keep_firing_for' in recording rule"));
            }
            if let Some(annotation) = twin.annotations.values().next() {
                return Err(FileError::at(path, annotation, "invalid field 'annotations' in recording rule"));
            }
            if record.value.is_empty() {
                return Err(FileError::at(path, &record, "the recording rule has no name"));
            }
            if record.value.contains(['{', '}']) {
                let what = format!(
                    "braces present in the recording rule name; should it be in expr?: {}",
                    record.value
                );
                return Err(FileError::at(path, &record, what));
            }
            let labels = labels.into_iter().map(|(name, value)| (name, value.value)).collect();
            Ok(Rule::Recording(RecordingRule { name: record.value, expr, query, labels }))
        }
        (None, Some(alert)) => {
            if alert.value.is_empty() {
                return Err(FileError::at(path, &alert, "the alert has no name"));
            }
            if let Some((_, value)) = twin.annotations.iter().find(|(name, _)| name.is_empty()) {
                return Err(FileError::at(path, value, "an annotation has an empty name"));
            }
            let millis = |d: Option<Spanned<PromDuration>>| {
                d.map_or(0, |d| i64::try_from(d.value.0.as_millis()).unwrap_or(i64::MAX))
            };
            Ok(Rule::Alerting(AlertingRule {
                expr,
                query,
                hold_ms: millis(twin.hold),
                keep_firing_for_ms: millis(twin.keep_firing_for),
                labels: read_templates(path, &alert.value, "label", labels)?,
                annotations: read_templates(path, &alert.value, "annotation", twin.annotations)?,
                name: alert.value,
            }))
        }
        (Some(_), Some(_)) => fail("only one of 'record' and 'alert' must be set"),
        (None, None) => fail("one of 'record' or 'alert' must be set"),
    }
}

fn check_labels(path: &Path, labels: &Texts) -> Result<(), FileError> {
    for (name, value) in labels {
        if name.is_empty() || name == METRIC_NAME {
            return Err(FileError::at(path, value, format!("invalid label name: {name:?}")));
        }
    }
    Ok(())
}

fn read_templates(
    path: &Path,
    alert: &str,
    kind: &str,
    texts: Texts,
) -> Result<Vec<(String, TemplateText)>, FileError> {
    let read = |(name, text): (String, Spanned<String>)| match TemplateText::parse(alert, &text.value) {
        Ok(template) => Ok((name, template)),
        Err(e) => Err(FileError::at(path, &text, format!("{kind} {name:?}: {e}"))),
    };
    texts.into_iter().map(read).collect()
}

impl Source<'_> {
    fn read_expr(self, scalar: &Spanned<String>) -> Result<Expr, FileError> {
        let text = scalar.value.trim_end();
        promql::parse_with(text, self.syntax).map_err(|e| {
            let mut error = FileError::at(self.path, scalar, format!("could not parse expression: {e}"));
            let line = text.lines().nth(e.line - 1).unwrap_or_default();
            error.position = self.position_in(error.position, e.line, line, e.column).or(error.position);
            error
        })
    }

    /// Where in the file byte `column` of line `number` of a scalar stands, both from 1: `line` is
    /// that line and `start` where the scalar begins. `None` if the scalar is not written as it reads,
    /// because of escapes or folded lines.
    fn position_in(
        self,
        start: Option<(u64, u64)>,
        number: usize,
        line: &str,
        column: usize,
    ) -> Option<(u64, u64)> {
        let (first_line, first_column) = start?;
        let file_line = usize::try_from(first_line).ok()? + number - 1;
        let written = self.text.lines().nth(file_line - 1)?;
        let skipped: usize = match number {
            1 => written
                .chars()
                .take(usize::try_from(first_column).ok()?.saturating_sub(1))
                .map(char::len_utf8)
                .sum(),
            _ => 0,
        };
        let at = skipped + written.get(skipped..)?.find(line)? + column - 1;
        Some((file_line as u64, written.get(..at)?.chars().count() as u64 + 1))
    }
}

/// Adds the line at fault.
fn explained(mut error: FileError, text: &str) -> FileError {
    let indented_by_tab =
        |line: &str| line.trim_start_matches(' ').starts_with('\t') && !line.trim_start().starts_with('#');
    if error.message.contains("tab")
        && let Some(tab) = text.lines().position(indented_by_tab)
    {
        // Some are found only after the line before was taken for continued.
        let column = text.lines().nth(tab).and_then(|line| line.find('\t')).unwrap_or(0);
        error.position = Some((tab as u64 + 1, column as u64 + 1));
        error.message = "YAML allows no tab in the indentation; use blanks".to_owned();
    }
    if let Some((line, column)) = error.position
        && let Some(written) = usize::try_from(line.saturating_sub(1)).ok().and_then(|n| text.lines().nth(n))
    {
        const SHOWN_CHARS: usize = 160;
        let shown: String = written.chars().take(SHOWN_CHARS).collect();
        let before = usize::try_from(column.saturating_sub(1)).unwrap_or(usize::MAX).min(SHOWN_CHARS);
        let blank: String = shown.chars().take(before).map(|c| if c == '\t' { c } else { ' ' }).collect();
        error.message.push_str(&format!("\n  {shown}\n  {blank}^"));
    }
    error
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
