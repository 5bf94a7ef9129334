//! Warnings and infos about an answer, as Prometheus words them.

use super::ast::Pos;
use std::collections::BTreeSet;

/// Warnings and infos, without repetitions, with the places that caused them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Annotations {
    warnings: Notes,
    infos: Notes,
}

/// How many annotations of a kind are shown, as upstream does.
const SHOWN: usize = 10;

impl Annotations {
    /// Adds `PromQL warning: text`, caused by the expression at `pos`.
    pub fn warn(&mut self, text: impl std::fmt::Display, pos: Pos) {
        self.warnings.insert((format!("PromQL warning: {text}"), Some((pos.start, pos.end))));
    }

    /// Adds `PromQL info: text`, caused by the expression at `pos`.
    pub fn info(&mut self, text: impl std::fmt::Display, pos: Pos) {
        self.infos.insert((format!("PromQL info: {text}"), Some((pos.start, pos.end))));
    }

    /// Adds a warning of the storage, which belongs to no place in the query.
    pub fn storage_warning(&mut self, text: String) {
        self.warnings.insert((text, None));
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: Annotations) {
        self.warnings.extend(other.warnings);
        self.infos.extend(other.infos);
    }

    /// Whether all of `other` are among them.
    pub(crate) fn contains(&self, other: &Annotations) -> bool {
        self.warnings.is_superset(&other.warnings) && self.infos.is_superset(&other.infos)
    }

    /// Whether any is a warning of the storage.
    pub(crate) fn has_storage_warning(&self) -> bool {
        self.warnings.iter().any(|(_, at)| at.is_none())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.warnings.is_empty() && self.infos.is_empty()
    }

    /// The warnings, each with ` (line:column)` in `query`, at most ten and a note on the rest.
    pub fn warnings(&self, query: &str) -> Vec<String> {
        shown(&self.warnings, query, "warning")
    }

    /// The infos, each with ` (line:column)` in `query`, at most ten and a note on the rest.
    pub fn infos(&self, query: &str) -> Vec<String> {
        shown(&self.infos, query, "info")
    }

    /// All warnings, however many.
    pub fn all_warnings(&self, query: &str) -> Vec<String> {
        first(&self.warnings, query, usize::MAX)
    }

    /// All infos, however many.
    pub fn all_infos(&self, query: &str) -> Vec<String> {
        first(&self.infos, query, usize::MAX)
    }
}

/// Annotations: the text, and where in the query what caused it stands.
type Notes = BTreeSet<(String, Option<(u32, u32)>)>;

fn shown(notes: &Notes, query: &str, kind: &str) -> Vec<String> {
    let mut lines = first(notes, query, SHOWN);
    if notes.len() > SHOWN {
        lines.push(format!("{} more {kind} annotations omitted", notes.len() - SHOWN));
    }
    lines
}

fn first(notes: &Notes, query: &str, count: usize) -> Vec<String> {
    notes
        .iter()
        .take(count)
        .map(|(text, at)| match at {
            Some((start, _)) => {
                let (line, column) = line_column(query, *start as usize);
                format!("{text} ({line}:{column})")
            }
            None => text.clone(),
        })
        .collect()
}

/// Line and column, both from 1, of byte `at` in `text`; the column counts bytes, as upstream does.
pub(crate) fn line_column(text: &str, at: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..at.min(text.len())];
    let line = before.iter().filter(|&&b| b == b'\n').count() + 1;
    let column = before.len() - before.iter().rposition(|&b| b == b'\n').map_or(0, |i| i + 1) + 1;
    (line, column)
}
