//! Rule files in one form: Prometheus' own keys in one order, indented alike, whatever form was read.

mod comments;
mod scalar;

use super::file::{self, Loaded};
use super::group::{Group, Rule};
use super::twin::{self, GroupTwin, RuleTwin, Texts};
use crate::promql::duration::format_duration;
use crate::promql::{self, Syntax};
use crate::yaml::{FileError, PromDuration, Spanned};
use std::path::Path;

/// How a file is written anew.
#[derive(Debug, Clone, Copy, Default)]
pub struct FormatOptions {
    /// What may be used in expressions.
    pub syntax: Syntax,
    /// Whether expressions are printed anew, without their comments and line breaks.
    pub expressions: bool,
}

/// A file in its canonical form.
#[derive(Debug, Clone)]
pub struct Formatted {
    /// Its text.
    pub text: String,
    /// What was probably not meant in the old text, each with its place there.
    pub warnings: Vec<FileError>,
}

/// The canonical form of the rule file `text`, which came from `path`. It holds the same groups; anchors are
/// written out. Comments stand in lines of their own, above what they stood above or behind.
///
/// # Errors
/// The file does not load.
pub fn format(path: &Path, text: &str, options: FormatOptions) -> Result<Formatted, FileError> {
    let Loaded { groups, warnings } = file::parse(path, text, options.syntax)?;
    let twins = twin::read(path, text, &mut Vec::new())?;
    let mut page = Page { text, lines: Vec::new(), options };
    page.file(&twins);
    let formatted = page.finish();
    // A fault here must not cost anybody a rule.
    let again = file::parse(path, &formatted, options.syntax).map_err(|e| {
        FileError::of_file(path, format!("left as it is, for its canonical form does not load: {e}"))
    })?;
    if meaning(&again.groups) != meaning(&groups) {
        return Err(FileError::of_file(
            path,
            "left as it is, for its canonical form would mean something else",
        ));
    }
    Ok(Formatted { text: formatted, warnings })
}

/// What groups mean, without where they were read.
fn meaning(groups: &[Group]) -> Vec<String> {
    let rule = |rule: &Rule| match rule {
        Rule::Recording(rule) => format!("{} {} {:?}", rule.name, rule.query, rule.labels),
        Rule::Alerting(rule) => format!(
            "{} {} {:?} {} {} {:?}",
            rule.name, rule.query, rule.labels, rule.hold_ms, rule.keep_firing_for_ms, rule.annotations
        ),
    };
    let of_group = |group: &Group| {
        let Group { name, interval, query_offset, limit, rules, .. } = group;
        let rules: Vec<String> = rules.iter().map(rule).collect();
        format!("{name} {interval:?} {query_offset:?} {limit} {rules:?}")
    };
    groups.iter().map(of_group).collect()
}

/// The new text while it is written.
struct Page<'a> {
    /// The old one.
    text: &'a str,
    lines: Vec<Entry>,
    options: FormatOptions,
}

/// A key with its value, or the key of a list or mapping.
struct Entry {
    /// The line of the old text it comes from.
    line: Option<u64>,
    indent: usize,
    /// Whether a blank line goes before it.
    is_apart: bool,
    text: Vec<String>,
}

impl Page<'_> {
    fn file(&mut self, groups: &[GroupTwin]) {
        let is_content = |line: &str| !line.is_empty() && !line.starts_with('#') && line != "---";
        let first = self.text.lines().position(|line| is_content(line.trim()));
        let head = if groups.is_empty() { "groups: []" } else { "groups:" };
        self.entry(first.map(|at| at as u64 + 1), 0, vec![head.to_owned()]);
        for (number, group) in groups.iter().enumerate() {
            let start = self.lines.len();
            self.group(group);
            self.lines[start].is_apart = number > 0;
        }
    }

    fn group(&mut self, group: &GroupTwin) {
        self.value(&group.name, 2, "- ", "name");
        if let Some(interval) = &group.interval {
            self.duration(Some(line(interval)), 4, "interval", interval.value);
        }
        if let Some(delay) = &group.eval_delay {
            self.duration(Some(line(delay)), 4, "query_offset", group.query_offset.unwrap_or(delay.value));
        } else if let Some(offset) = group.query_offset {
            self.duration(None, 4, "query_offset", offset);
        }
        if let Some(limit) = &group.limit {
            self.entry(Some(line(limit)), 4, vec![format!("limit: {}", limit.value)]);
        }
        self.texts(4, "labels", &group.labels, None);
        let Some(first) = group.rules.first() else {
            return self.entry(None, 4, vec!["rules: []".to_owned()]);
        };
        self.entry(self.key_line("rules", line(first)), 4, vec!["rules:".to_owned()]);
        for (number, rule) in group.rules.iter().enumerate() {
            let start = self.lines.len();
            self.rule(&rule.value);
            self.lines[start].is_apart = number > 0;
        }
    }

    fn rule(&mut self, rule: &RuleTwin) {
        if let Some(record) = &rule.record {
            self.value(record, 6, "- ", "record");
        }
        if let Some(alert) = &rule.alert {
            self.value(alert, 6, "- ", "alert");
        }
        if let Some(expr) = &rule.expr {
            let printed = || promql::parse_with(expr.value.trim_end(), self.options.syntax).ok();
            let text = match self.options.expressions.then(printed).flatten() {
                Some(expr) => expr.to_string(),
                None => {
                    expr.value.trim().to_owned() + if expr.value.trim().contains('\n') { "\n" } else { "" }
                }
            };
            self.text(line(expr), 8, "", "expr", &text);
        }
        if let Some(hold) = &rule.hold {
            self.duration(Some(line(hold)), 8, "for", hold.value);
        }
        if let Some(keep) = &rule.keep_firing_for {
            self.duration(Some(line(keep)), 8, "keep_firing_for", keep.value);
        }
        let severity = rule.severity.as_ref().filter(|_| !rule.labels.contains_key("severity"));
        self.texts(8, "labels", &rule.labels, severity);
        self.texts(8, "annotations", &rule.annotations, None);
    }

    /// Labels or annotations, in the order in which they were written, and a severity that stood elsewhere.
    fn texts(&mut self, indent: usize, key: &str, texts: &Texts, severity: Option<&Spanned<String>>) {
        let mut pairs: Vec<_> = texts.iter().map(|(name, value)| (name.as_str(), value)).collect();
        pairs.sort_by_key(|(_, value)| (value.referenced.line(), value.referenced.column()));
        let key_line = pairs.first().and_then(|(_, value)| self.key_line(key, line(value)));
        pairs.extend(severity.map(|severity| ("severity", severity)));
        if pairs.is_empty() {
            return;
        }
        self.entry(key_line, indent, vec![format!("{key}:")]);
        for (name, value) in pairs {
            self.text(line(value), indent + 2, "", &scalar::key(name), &value.value);
        }
    }

    fn duration(&mut self, line: Option<u64>, indent: usize, key: &str, duration: PromDuration) {
        let ms = i64::try_from(duration.0.as_millis()).unwrap_or(i64::MAX);
        self.entry(line, indent, vec![format!("{key}: {}", format_duration(ms))]);
    }

    fn value(&mut self, value: &Spanned<String>, indent: usize, dash: &str, key: &str) {
        self.text(line(value), indent, dash, key, &value.value);
    }

    fn text(&mut self, line: u64, indent: usize, dash: &str, key: &str, text: &str) {
        let column = indent + dash.len();
        let mut lines = scalar::value(text, column, column + key.chars().count() + 2);
        if let Some(first) = lines.first_mut() {
            *first = format!("{dash}{key}: {first}");
        }
        self.entry(Some(line), indent, lines);
    }

    fn entry(&mut self, line: Option<u64>, indent: usize, text: Vec<String>) {
        self.lines.push(Entry { line, indent, is_apart: false, text });
    }

    /// The line where the key stands under which the line `below` is.
    fn key_line(&self, key: &str, below: u64) -> Option<u64> {
        let before = self.text.lines().take(usize::try_from(below).ok()?).enumerate();
        let is_key = |text: &str| {
            text.trim_start_matches([' ', '-'])
                .strip_prefix(key)
                .is_some_and(|rest| rest.trim_start().starts_with(':'))
        };
        before.filter(|(_, text)| is_key(text)).last().map(|(at, _)| at as u64 + 1)
    }

    /// The text, each comment above the entry that it stood above, or in the line of.
    fn finish(self) -> String {
        let mut above: Vec<Vec<String>> = vec![Vec::new(); self.lines.len()];
        let mut end = Vec::new();
        for comment in comments::find(self.text) {
            let below = self.lines.iter().enumerate().filter_map(|(at, entry)| Some((entry.line?, at)));
            match below.filter(|(line, _)| *line >= comment.line).min() {
                Some((_, at)) => above[at].push(comment.text),
                None => end.push(comment.text),
            }
        }
        let mut out = String::with_capacity(self.text.len());
        for (entry, comments) in self.lines.iter().zip(above) {
            if entry.is_apart {
                out.push('\n');
            }
            let mut lines = comments.iter().chain(&entry.text[..1]);
            lines.by_ref().for_each(|line| {
                out.extend(std::iter::repeat_n(' ', entry.indent));
                out.push_str(line);
                out.push('\n');
            });
            // What follows is indented already.
            entry.text[1..].iter().for_each(|line| {
                out.push_str(line);
                out.push('\n');
            });
        }
        for comment in end {
            out.push_str(&comment);
            out.push('\n');
        }
        out
    }
}

fn line<T>(value: &Spanned<T>) -> u64 {
    value.referenced.line()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
