//! The parser: text to a checked [`Expr`], or to matchers, labels or a series description.
//!
//! Grammar, checks and the texts of the errors are those of Prometheus 3.14 (`promql/parser`).
//! There, a generated parser collects errors and goes on; only the first is ever shown, so this one
//! stops at it. Nothing here recurses along the query, however deeply that is nested: operands and
//! operators wait on a stack of their own (see [`expr`]).

mod binary;
mod build;
mod duration;
mod error;
mod expr;
mod modifiers;
mod selector;
pub mod series;
mod syntax;

pub use error::ParseError;
pub use syntax::Syntax;

use super::ast::{Expr, ExprKind, Pos, VectorSelector};
use super::lexer::{Lexer, Token, TokenKind, unquote};
use super::number::{ParseFloatError, parse_go_float, parse_go_integer};
use crate::storage::Matcher;
use larum_storage_format::Labels;

/// The longest query in bytes.
pub const MAX_QUERY_BYTES: usize = 1 << 20;

/// The deepest expression: so many expressions may contain one another.
pub const MAX_DEPTH: usize = 1_000;

type Result<T> = std::result::Result<T, ParseError>;

/// Parses and checks a query.
///
/// ```
/// let expr = larum::promql::parse("sum by (job) (rate(http_requests_total[5m]))")?;
/// let error = larum::promql::parse("sum by (job) (rate(http_requests_total))").unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     r#"1:20: parse error: expected type range vector in call to function "rate", got instant vector"#
/// );
/// # Ok::<(), larum::promql::ParseError>(())
/// ```
pub fn parse(query: &str) -> Result<Expr> {
    parse_with(query, Syntax::default())
}

/// As [`parse`], but refuses what `syntax` does not have.
pub fn parse_with(query: &str, syntax: Syntax) -> Result<Expr> {
    Parser { syntax, ..Parser::new(query)? }.expression()
}

/// Parses a selector without modifiers, as `match[]` takes it, into its matchers. Whether one of
/// them asks for more than the empty string is not checked.
pub fn parse_matchers(text: &str) -> Result<Vec<Matcher>> {
    Ok(parse_selector(text)?.matchers)
}

/// Parses a selector without modifiers.
pub fn parse_selector(text: &str) -> Result<VectorSelector> {
    let mut parser = Parser::new(text)?;
    let selector = parser.vector_selector()?;
    parser.expect_end()?;
    match selector.kind {
        ExprKind::VectorSelector(selector) => Ok(selector),
        _ => Err(parser.error_at(selector.pos, "a vector selector is expected")),
    }
}

/// Parses a metric, `name{a="b"}`: a selector in which only `=` is allowed.
pub fn parse_metric(text: &str) -> Result<Labels> {
    let mut parser = Parser::new(text)?;
    let labels = parser.metric()?;
    parser.expect_end()?;
    Ok(labels)
}

/// A text that is being parsed, and the token that is looked at.
struct Parser<'a> {
    lexer: Lexer<'a>,
    token: Token,
    /// Where the token before it ends.
    last_end: u32,
    /// Parts of the duration that is being read; see [`duration`].
    duration_parts: usize,
    /// What may be used.
    syntax: Syntax,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Result<Parser<'a>> {
        if text.len() > MAX_QUERY_BYTES {
            let message = format!("the text has {} bytes, at most {MAX_QUERY_BYTES} are allowed", text.len());
            return Err(ParseError::new(text, Pos::default(), message));
        }
        let mut lexer = Lexer::new(text);
        let token = lexer.next_token()?;
        Ok(Parser { lexer, token, last_end: 0, duration_parts: 0, syntax: Syntax::default() })
    }

    /// The token that was looked at; looks at the next one.
    fn advance(&mut self) -> Result<Token> {
        let next = self.lexer.next_token()?;
        self.last_end = self.token.pos.end;
        Ok(std::mem::replace(&mut self.token, next))
    }

    /// Goes on if the token is a `kind`; says whether it was.
    fn accept(&mut self, kind: TokenKind) -> Result<bool> {
        let found = self.token.kind == kind;
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    /// Goes on if the token is a `kind`, else complains of it.
    fn expect(&mut self, kind: TokenKind, context: &str, expected: &str) -> Result<Token> {
        if self.token.kind == kind { self.advance() } else { Err(self.unexpected(context, expected)) }
    }

    fn expect_end(&mut self) -> Result<()> {
        self.expect(TokenKind::Eof, "", "").map(|_| ())
    }

    fn text_of(&self, token: Token) -> &'a str {
        token.text(self.lexer.text())
    }

    fn error_at(&self, pos: Pos, message: impl Into<String>) -> ParseError {
        ParseError::new(self.lexer.text(), pos, message)
    }

    /// Complains of the token that is looked at.
    fn unexpected(&self, context: &str, expected: &str) -> ParseError {
        let mut message = format!("unexpected {}", self.token.describe(self.lexer.text()));
        if !context.is_empty() {
            message.push_str(" in ");
            message.push_str(context);
        }
        if !expected.is_empty() {
            message.push_str(", expected ");
            message.push_str(expected);
        }
        self.error_at(self.token.pos, message)
    }

    /// What a string token says.
    fn unquoted(&self, token: Token) -> Result<String> {
        let text = self.text_of(token);
        unquote(text).map_err(|_| {
            let quoted = super::lexer::quote(text);
            self.error_at(token.pos, format!("error unquoting string {quoted}: the text is not UTF-8"))
        })
    }

    /// What a number token says: an integer in any of Go's notations (`0x1f`, `017`, `1_000`), or
    /// a float.
    fn number(&self, token: Token) -> Result<f64> {
        let text = self.text_of(token);
        if let Some(integer) = parse_go_integer(text) {
            return Ok(integer as f64);
        }
        parse_go_float(text).map_err(|error: ParseFloatError| {
            let quoted = super::lexer::quote(text);
            let message = format!("error parsing number: strconv.ParseFloat: parsing {quoted}: {error}");
            self.error_at(token.pos, message)
        })
    }

    /// The seconds of a duration token.
    fn duration_seconds(&self, token: Token) -> Result<f64> {
        let ms = super::duration::parse_duration(self.text_of(token))
            .map_err(|error| self.error_at(token.pos, error.to_string()))?;
        Ok(ms as f64 / 1000.0)
    }
}

/// From the beginning of one place to the end of another.
fn merged(from: Pos, to: Pos) -> Pos {
    Pos { start: from.start, end: to.end }
}

#[cfg(test)]
mod tests;
