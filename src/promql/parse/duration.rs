//! Durations in queries, which may be calculations: `[5m]`, `[2 * step()]`, `offset -(1h + 5m)`.

use super::{Parser, Result, merged};
use crate::promql::ast::{BinaryOp, DurationExpr, DurationKind, DurationOp, UnaryOp};
use crate::promql::lexer::{Keyword, TokenKind};

/// The most operators, signs and parentheses in one duration. Reading it recurses, so the bound is
/// far below that of expressions.
const MAX_PARTS: usize = 200;

/// The longest duration in seconds: as much as Prometheus can hold in nanoseconds.
const MAX_SECONDS: f64 = i64::MAX as f64 / 1e9;

/// How tightly a sign binds: like `*`.
const UNARY_OPERAND: u8 = 6;

/// What a parser of durations needs to complain.
#[derive(Clone, Copy)]
struct Place {
    context: &'static str,
    expected: &'static str,
}

impl Parser<'_> {
    /// A duration; `context` and `expected` are for complaints of what is none.
    pub(super) fn duration(&mut self, context: &'static str, expected: &'static str) -> Result<DurationExpr> {
        self.duration_parts = 0;
        self.duration_binary(Place { context, expected }, 0)
    }

    /// The duration after `offset`. An operator after it belongs to the expression outside, as in
    /// `foo offset 5m + 1`, unless the duration begins with a parenthesis.
    pub(super) fn offset_duration(&mut self) -> Result<DurationExpr> {
        let place = Place { context: "offset", expected: "number, duration, step(), or range()" };
        self.duration_parts = 0;
        match self.token.kind {
            TokenKind::LeftParen => self.duration_binary(place, 0),
            _ => self.duration_unary(place, false),
        }
    }

    /// Operators of at least the precedence `min`.
    fn duration_binary(&mut self, place: Place, min: u8) -> Result<DurationExpr> {
        self.count_part()?;
        let mut lhs = self.duration_unary(place, true)?;
        while let TokenKind::Binary(op) = self.token.kind {
            let Some(duration_op) = duration_op(op).filter(|_| op.precedence() >= min) else { break };
            let op_pos = self.advance()?.pos;
            // `^` is right-associative, the others are left-associative.
            let rhs_min = if op == BinaryOp::Pow { op.precedence() } else { op.precedence() + 1 };
            let rhs = self.duration_binary(place, rhs_min)?;
            if matches!(rhs.kind, DurationKind::Literal { seconds: 0.0, .. }) {
                match duration_op {
                    DurationOp::Div => return Err(self.error_at(op_pos, "division by zero")),
                    DurationOp::Mod => return Err(self.error_at(op_pos, "modulo by zero")),
                    _ => {}
                }
            }
            let pos = merged(lhs.pos, rhs.pos);
            lhs = DurationExpr { kind: DurationKind::Binary(duration_op, Box::new(lhs), Box::new(rhs)), pos };
        }
        Ok(lhs)
    }

    /// A duration with or without a sign. With `power`, a `^` after the sign's operand belongs to
    /// that: `-2^2` is `-(2^2)`.
    fn duration_unary(&mut self, place: Place, power: bool) -> Result<DurationExpr> {
        let op = match self.token.kind {
            TokenKind::Binary(BinaryOp::Sub) => UnaryOp::Minus,
            TokenKind::Binary(BinaryOp::Add) => UnaryOp::Plus,
            _ => return self.duration_primary(place),
        };
        let op_pos = self.advance()?.pos;
        let inner =
            if power { self.duration_binary(place, UNARY_OPERAND)? } else { self.duration_primary(place)? };
        let pos = merged(op_pos, inner.pos);
        let kind = match (op, inner.kind) {
            (UnaryOp::Minus, DurationKind::Literal { seconds, units }) => {
                DurationKind::Literal { seconds: -seconds, units }
            }
            (UnaryOp::Minus, kind) => {
                DurationKind::Unary(op, Box::new(DurationExpr { kind, pos: inner.pos }))
            }
            (UnaryOp::Plus, kind) => kind,
        };
        Ok(DurationExpr { kind, pos })
    }

    fn duration_primary(&mut self, place: Place) -> Result<DurationExpr> {
        let token = self.token;
        let literal = |seconds: f64, units| DurationKind::Literal { seconds, units };
        match token.kind {
            TokenKind::Number | TokenKind::Duration => {
                let units = token.kind == TokenKind::Duration;
                let seconds = if units { self.duration_seconds(token)? } else { self.number(token)? };
                if seconds.is_nan() || seconds.abs() > MAX_SECONDS {
                    return Err(self.error_at(token.pos, "duration out of range"));
                }
                self.advance()?;
                Ok(DurationExpr { kind: literal(seconds, units), pos: token.pos })
            }
            TokenKind::Keyword(word @ (Keyword::Step | Keyword::Range)) => {
                self.advance()?;
                self.expect(TokenKind::LeftParen, place.context, place.expected)?;
                let close = self.expect(TokenKind::RightParen, place.context, place.expected)?;
                let kind = if word == Keyword::Step { DurationKind::Step } else { DurationKind::Range };
                Ok(DurationExpr { kind, pos: merged(token.pos, close.pos) })
            }
            TokenKind::Keyword(word @ (Keyword::MinOf | Keyword::MaxOf)) => {
                self.advance()?;
                self.expect(TokenKind::LeftParen, place.context, place.expected)?;
                let a = Box::new(self.duration_binary(place, 0)?);
                self.expect(TokenKind::Comma, place.context, place.expected)?;
                let b = Box::new(self.duration_binary(place, 0)?);
                let close = self.expect(TokenKind::RightParen, place.context, place.expected)?;
                let kind = match word {
                    Keyword::MinOf => DurationKind::Min(a, b),
                    _ => DurationKind::Max(a, b),
                };
                Ok(DurationExpr { kind, pos: merged(token.pos, close.pos) })
            }
            TokenKind::LeftParen => {
                self.advance()?;
                let inner = self.duration_binary(place, 0)?;
                let close = self.expect(TokenKind::RightParen, place.context, place.expected)?;
                // A number in parentheses is a number.
                let kind = match inner.kind {
                    literal @ DurationKind::Literal { .. } => literal,
                    _ => DurationKind::Paren(Box::new(inner)),
                };
                Ok(DurationExpr { kind, pos: merged(token.pos, close.pos) })
            }
            _ => Err(self.unexpected(place.context, place.expected)),
        }
    }

    fn count_part(&mut self) -> Result<()> {
        self.duration_parts += 1;
        if self.duration_parts > MAX_PARTS {
            let message = format!("the duration has more than {MAX_PARTS} parts");
            return Err(self.error_at(self.token.pos, message));
        }
        Ok(())
    }
}

fn duration_op(op: BinaryOp) -> Option<DurationOp> {
    Some(match op {
        BinaryOp::Add => DurationOp::Add,
        BinaryOp::Sub => DurationOp::Sub,
        BinaryOp::Mul => DurationOp::Mul,
        BinaryOp::Div => DurationOp::Div,
        BinaryOp::Mod => DurationOp::Mod,
        BinaryOp::Pow => DurationOp::Pow,
        _ => return None,
    })
}
