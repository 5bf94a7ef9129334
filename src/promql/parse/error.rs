//! What is wrong with a text, and where.

use crate::promql::annotations::line_column;
use crate::promql::ast::Pos;
use std::fmt;

/// Why a text is no query: what Prometheus would say, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    /// What is wrong.
    pub message: String,
    /// The bytes at fault.
    pub pos: Pos,
    /// The line of the first of them, from 1.
    pub line: usize,
    /// Its column, from 1, in bytes.
    pub column: usize,
}

impl ParseError {
    /// An error about the bytes at `pos` of `text`.
    pub(crate) fn new(text: &str, pos: Pos, message: impl Into<String>) -> ParseError {
        let (line, column) = line_column(text, pos.start as usize);
        ParseError { message: message.into(), pos, line, column }
    }
}

/// As Prometheus shows it. An error about no bytes at all has no place.
impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pos == Pos::default() {
            write!(f, "unknown position: parse error: {}", self.message)
        } else {
            write!(f, "{}:{}: parse error: {}", self.line, self.column, self.message)
        }
    }
}

impl std::error::Error for ParseError {}
