//! The parser: text to a checked [`Expr`].

use super::ast::{Expr, Pos};

/// Why a text is no query: what Prometheus would say, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: parse error: {message}")]
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

/// Parses and checks a query.
pub fn parse(query: &str) -> Result<Expr, ParseError> {
    todo!("parse {query}")
}
