//! What stands between an operator and its right operand: `bool`, matching, grouping, filling.

use super::{Parser, Result};
use crate::promql::ast::{BinaryOp, Cardinality, VectorMatching};
use crate::promql::lexer::{Keyword, TokenKind};

/// What stands between an operator and its right operand.
pub(super) struct BinaryModifiers {
    pub return_bool: bool,
    pub matching: VectorMatching,
    /// Where the right operand begins.
    pub end: u32,
}

/// Whether `-a op b` is `-(a op b)`. A sign binds like `*`.
pub(super) fn binds_tighter_than_unary(op: BinaryOp) -> bool {
    op.precedence() > BinaryOp::Mul.precedence()
}

impl Parser<'_> {
    pub(super) fn binary_modifiers(&mut self) -> Result<BinaryModifiers> {
        use Keyword::{Bool, GroupLeft, GroupRight, Ignoring, On};
        let mut matching = VectorMatching::default();
        let return_bool = self.accept(TokenKind::Keyword(Bool))?;
        if let TokenKind::Keyword(word @ (On | Ignoring)) = self.token.kind {
            self.advance()?;
            matching.on = word == On;
            matching.labels = self.grouping_labels()?.0;
            if let TokenKind::Keyword(word @ (GroupLeft | GroupRight)) = self.token.kind {
                self.advance()?;
                matching.card =
                    if word == GroupLeft { Cardinality::ManyToOne } else { Cardinality::OneToMany };
                if self.token.kind == TokenKind::LeftParen {
                    matching.include = self.grouping_labels()?.0;
                }
            }
        }
        self.fill_modifiers(&mut matching)?;
        Ok(BinaryModifiers { return_bool, matching, end: self.token.pos.start })
    }

    /// `fill(x)`, or `fill_left(x)` and `fill_right(y)`, each at most once, in any order.
    fn fill_modifiers(&mut self, matching: &mut VectorMatching) -> Result<()> {
        use Keyword::{Fill, FillLeft, FillRight};
        while let TokenKind::Keyword(word @ (Fill | FillLeft | FillRight)) = self.token.kind {
            let allowed = match word {
                Fill => matching.fill_left.is_none() && matching.fill_right.is_none(),
                FillLeft => matching.fill_left.is_none(),
                _ => matching.fill_right.is_none(),
            };
            if !allowed {
                return Err(self.unexpected("", ""));
            }
            self.advance()?;
            let value = self.fill_value()?;
            if word != FillRight {
                matching.fill_left = Some(value);
            }
            if word != FillLeft {
                matching.fill_right = Some(value);
            }
        }
        Ok(())
    }

    fn fill_value(&mut self) -> Result<f64> {
        self.expect(TokenKind::LeftParen, "", "")?;
        let value = self.signed_number("", "")?;
        self.expect(TokenKind::RightParen, "", "")?;
        Ok(value)
    }

    /// A number or duration with or without a sign; a duration counts as its seconds.
    pub(super) fn signed_number(&mut self, context: &str, expected: &str) -> Result<f64> {
        let sign = match self.token.kind {
            TokenKind::Binary(BinaryOp::Sub) => -1.0,
            TokenKind::Binary(BinaryOp::Add) => 1.0,
            _ => 0.0,
        };
        if sign != 0.0 {
            self.advance()?;
        }
        let token = self.token;
        let value = match token.kind {
            TokenKind::Number => self.number(token)?,
            TokenKind::Duration => self.duration_seconds(token)?,
            _ => return Err(self.unexpected(context, expected)),
        };
        self.advance()?;
        Ok(if sign < 0.0 { -value } else { value })
    }
}
