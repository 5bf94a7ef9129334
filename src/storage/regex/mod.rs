//! Regular expressions with the meaning and the errors that RE2, as Go has it, gives them.
//!
//! User patterns never reach the `regex` crates' own syntax, which differs from RE2 (`\d` and `\w`
//! are Unicode there, `[a&&b]` an intersection, `\Q..\E` unknown, `a**` allowed): [`parse`] reads
//! Go's syntax into a `regex_syntax` tree, which `regex_automata` runs in linear time.
//!
//! [`Regex`] is a label matcher's predicate, `^(?s:PATTERN)$`, answered without an automaton where
//! the pattern's [`shape`] allows; [`Rewriter`] finds groups and fills templates.

mod class;
mod parse;
mod rewrite;
mod shape;

pub use rewrite::{Rewriter, TooLong};

use regex_automata::meta;
use regex_syntax::hir::{Hir, Look};
use shape::Shape;
use std::fmt;
use std::sync::Arc;

/// The most bytes a pattern may have. Lists of names joined by `|` do get long.
pub const MAX_PATTERN_BYTES: usize = 1 << 20;

/// The most bytes a compiled automaton may take before its pattern is refused.
const MAX_AUTOMATON_BYTES: usize = 10 << 20;

/// A compiled predicate over whole texts. Clones share it.
#[derive(Clone)]
pub struct Regex {
    inner: Arc<Inner>,
}

struct Inner {
    pattern: String,
    shape: Shape,
}

/// Why a pattern is refused; the text is Go's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("error parsing regexp: {0}")]
pub struct RegexError(pub String);

impl RegexError {
    fn new(what: &str, cited: &str) -> RegexError {
        RegexError(format!("{what}: `{cited}`"))
    }

    /// The pattern needs more memory than any honest one; a long pattern is not cited in full.
    fn too_large(pattern: &str) -> RegexError {
        let end = pattern.char_indices().nth(200).map_or(pattern.len(), |(i, _)| i);
        RegexError::new("expression too large", &pattern[..end])
    }
}

impl Regex {
    /// Compiles `pattern`, whose dots match newlines too.
    pub fn new(pattern: &str) -> Result<Regex, RegexError> {
        let flags = parse::Flags { dot_matches_newline: true, ..parse::Flags::default() };
        let parsed = parse::parse(pattern, flags, Groups::None)?;
        let shape = match Shape::of(&parsed.hir, pattern.len()) {
            Some(shape) => shape,
            None => {
                let prefix = shape::prefix(&parsed.hir);
                Shape::Automaton { prefix, regex: compile(anchored(parsed.hir), pattern, Groups::None)? }
            }
        };
        Ok(Regex { inner: Arc::new(Inner { pattern: pattern.to_owned(), shape }) })
    }

    /// Whether all of `text` matches.
    #[inline]
    pub fn is_match(&self, text: &str) -> bool {
        self.inner.shape.is_match(text)
    }

    /// The pattern, as written.
    pub fn pattern(&self) -> &str {
        &self.inner.pattern
    }

    /// The only text that matches, if there is only one.
    pub fn literal(&self) -> Option<&str> {
        match &self.inner.shape {
            Shape::Literal(text) => Some(text),
            _ => None,
        }
    }

    /// All texts that match, ascending, if they are few: `a|b`, `pod-(a|b)`, `[ab]c?`.
    pub fn set(&self) -> Option<&[String]> {
        match &self.inner.shape {
            Shape::Literal(text) => Some(std::slice::from_ref(text)),
            Shape::Set(texts) => Some(texts),
            _ => None,
        }
    }

    /// What every matching text starts with; empty if nothing is known.
    pub fn prefix(&self) -> &str {
        match &self.inner.shape {
            Shape::Literal(text) => text,
            Shape::Set(_) => "",
            Shape::Gaps(gaps) => gaps.prefix(),
            Shape::Automaton { prefix, .. } => prefix,
        }
    }

    /// Whether the empty text matches, and with it a series that lacks the label.
    pub fn matches_empty(&self) -> bool {
        self.is_match("")
    }
}

impl fmt::Debug for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/", self.inner.pattern)
    }
}

fn anchored(hir: Hir) -> Hir {
    Hir::concat(vec![Hir::look(Look::Start), hir, Hir::look(Look::End)])
}

/// Whether an automaton finds the places of groups.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Groups {
    None,
    All,
}

fn compile(hir: Hir, pattern: &str, groups: Groups) -> Result<meta::Regex, RegexError> {
    use regex_automata::nfa::thompson::WhichCaptures;
    let captures = if groups == Groups::All { WhichCaptures::All } else { WhichCaptures::None };
    let config = meta::Config::new()
        .nfa_size_limit(Some(MAX_AUTOMATON_BYTES))
        .onepass_size_limit(Some(MAX_AUTOMATON_BYTES / 10))
        .which_captures(captures);
    meta::Builder::new().configure(config).build_from_hir(&hir).map_err(|_| RegexError::too_large(pattern))
}

#[cfg(test)]
mod tests;
