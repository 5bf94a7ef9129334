//! Selectors, metrics, and lists of label names.

use super::{Parser, Result, merged};
use crate::promql::ast::{BinaryOp, Expr, ExprKind, Modifiers, Pos, VectorSelector};
use crate::promql::lexer::{NotUtf8, Token, TokenKind, quote, unquote};
use crate::storage::Matcher;
use crate::storage::matcher::MatchOp;
use larum_storage_format::Labels;
use larum_storage_format::labels::METRIC_NAME;

impl Parser<'_> {
    /// `name`, `name{...}` or `{...}`.
    pub(super) fn vector_selector(&mut self) -> Result<Expr> {
        let name = match self.token.kind {
            kind if kind.is_metric_name() => Some(self.advance()?),
            TokenKind::LeftBrace => None,
            _ => return Err(self.unexpected("", "")),
        };
        self.selector_after(name)
    }

    /// The selector whose name has been read, if it has one.
    pub(super) fn selector_after(&mut self, name: Option<Token>) -> Result<Expr> {
        let mut pos = name.unwrap_or(self.token).pos;
        let mut matchers = Vec::new();
        if self.token.kind == TokenKind::LeftBrace {
            pos.end = self.matchers(&mut matchers)?.end;
        }
        let name = name.map(|name| self.text_of(name).to_owned());
        if let Some(name) = &name {
            matchers.push(Matcher::equal(METRIC_NAME, name.as_str()));
        }
        let selector = VectorSelector { name, matchers, modifiers: Modifiers::default(), extension: None };
        Ok(Expr { kind: ExprKind::VectorSelector(selector), pos })
    }

    /// `{a="b", "name"}`; says where the closing brace is.
    fn matchers(&mut self, matchers: &mut Vec<Matcher>) -> Result<Pos> {
        self.advance()?;
        loop {
            if self.token.kind == TokenKind::RightBrace {
                return Ok(self.advance()?.pos);
            }
            matchers.push(self.matcher()?);
            if !self.accept(TokenKind::Comma)? && self.token.kind != TokenKind::RightBrace {
                return Err(self.unexpected("label matching", r#""," or "}""#));
            }
        }
    }

    fn matcher(&mut self) -> Result<Matcher> {
        let label = self.token;
        let name = match label.kind {
            TokenKind::Identifier => self.text_of(label).to_owned(),
            TokenKind::String => self.unquoted(label)?,
            _ => return Err(self.unexpected("label matching", r#"identifier or "}""#)),
        };
        self.advance()?;
        let op = match self.token.kind {
            TokenKind::Equal => MatchOp::Equal,
            TokenKind::Binary(BinaryOp::Ne) => MatchOp::NotEqual,
            TokenKind::EqualRegex => MatchOp::Regex,
            TokenKind::NotEqualRegex => MatchOp::NotRegex,
            // A quoted text alone is the name of the metric.
            _ if label.kind == TokenKind::String => return Ok(Matcher::equal(METRIC_NAME, name)),
            _ => return Err(self.unexpected("label matching", "label matching operator")),
        };
        self.advance()?;
        let value = self.expect(TokenKind::String, "label matching", "string")?;
        // No stored label has a value that is not UTF-8, so it does not matter much what that is replaced
        // by; a pattern is refused, as by Prometheus.
        let text = match (unquote(self.text_of(value)), op) {
            (Ok(text), _) => text,
            (Err(NotUtf8 { value, .. }), MatchOp::Equal | MatchOp::NotEqual) => value,
            (Err(_), _) => self.unquoted(value)?,
        };
        Matcher::new(op, name, text)
            .map_err(|error| self.error_at(merged(label.pos, value.pos), error.to_string()))
    }

    /// `(a, b, "c d")`, and where it ends.
    pub(super) fn grouping_labels(&mut self) -> Result<(Vec<String>, u32)> {
        const CONTEXT: &str = "grouping opts";
        self.expect(TokenKind::LeftParen, CONTEXT, r#""(""#)?;
        let mut labels = Vec::new();
        loop {
            // Nothing at all, or nothing after a comma.
            if self.token.kind == TokenKind::RightParen {
                return Ok((labels, self.advance()?.pos.end));
            }
            labels.push(match self.token.kind {
                kind if kind.is_label_name() => self.text_of(self.token).to_owned(),
                TokenKind::String => self.unquoted(self.token)?,
                _ => return Err(self.unexpected(CONTEXT, "label")),
            });
            if let Some(label) = labels.last().filter(|label| label.is_empty()) {
                let message = format!("invalid label name for grouping: {}", quote(label));
                return Err(self.error_at(self.token.pos, message));
            }
            self.advance()?;
            if self.token.kind == TokenKind::RightParen {
                return Ok((labels, self.advance()?.pos.end));
            }
            self.expect(TokenKind::Comma, CONTEXT, r#""," or ")""#)?;
        }
    }

    /// `name{a="b"}` with `=` only.
    pub(super) fn metric(&mut self) -> Result<Labels> {
        const CONTEXT: &str = "label set";
        let start = self.token.pos;
        let mut pairs: Vec<(String, String)> = Vec::new();
        let name = match self.token.kind {
            kind if kind.is_metric_name() => {
                let token = self.advance()?;
                Some(self.text_of(token).to_owned())
            }
            _ => None,
        };
        let mut end = start;
        if self.token.kind == TokenKind::LeftBrace {
            self.advance()?;
            while self.token.kind != TokenKind::RightBrace {
                let label = self.token;
                let text = match label.kind {
                    TokenKind::Identifier => self.text_of(label).to_owned(),
                    TokenKind::String => self.unquoted(label)?,
                    _ => return Err(self.unexpected(CONTEXT, r#"identifier or "}""#)),
                };
                self.advance()?;
                if self.accept(TokenKind::Equal)? {
                    let value = self.expect(TokenKind::String, CONTEXT, "string")?;
                    pairs.push((text, self.unquoted(value)?));
                } else if label.kind == TokenKind::String {
                    pairs.push((METRIC_NAME.to_owned(), text));
                } else {
                    return Err(self.unexpected(CONTEXT, r#""=""#));
                }
                if !self.accept(TokenKind::Comma)? && self.token.kind != TokenKind::RightBrace {
                    return Err(self.unexpected(CONTEXT, r#""," or "}""#));
                }
            }
            end = self.token.pos;
            self.advance()?;
        }
        if let Some(name) = name {
            // The name before the braces wins over one inside them.
            pairs.retain(|(label, _)| label != METRIC_NAME);
            pairs.push((METRIC_NAME.to_owned(), name));
        }
        Labels::from_pairs(pairs).map_err(|error| self.error_at(merged(start, end), error.to_string()))
    }
}
