//! What follows a selector or an expression: `[range]`, `[range:step]`, `offset`, `@`, `anchored`
//! and `smoothed`.

use super::build::Node;
use super::syntax::Gate;
use super::{Parser, Result, merged};
use crate::promql::ast::{
    At, DurationExpr, DurationKind, ExprKind, MatrixSelector, Modifiers, Pos, RangeExtension, Subquery,
    ValueType,
};
use crate::promql::lexer::{Keyword, TokenKind};
use crate::promql::number::{Form, write_float};

const DURATION_EXPECTED: &str = "number, duration, step(), or range()";

impl Parser<'_> {
    /// `node` with all modifiers that follow it.
    pub(super) fn modified(&mut self, mut node: Node) -> Result<Node> {
        loop {
            node = match self.token.kind {
                TokenKind::LeftBracket => self.range_or_subquery(node)?,
                TokenKind::Keyword(Keyword::Offset) => self.offset(node)?,
                TokenKind::At => self.at(node)?,
                TokenKind::Keyword(Keyword::Anchored) => self.extended(node, RangeExtension::Anchored)?,
                TokenKind::Keyword(Keyword::Smoothed) => self.extended(node, RangeExtension::Smoothed)?,
                _ => return Ok(node),
            };
        }
    }

    fn range_or_subquery(&mut self, node: Node) -> Result<Node> {
        let open = self.advance()?.pos;
        let range = self.duration("subquery or range selector", DURATION_EXPECTED)?;
        self.expect_positive(&range)?;
        match self.token.kind {
            TokenKind::RightBracket => {
                let close = self.advance()?.pos;
                self.range(node, range, open, close)
            }
            TokenKind::Colon => {
                self.advance()?;
                self.subquery(node, range)
            }
            _ => Err(self.unexpected("subquery or range", r#"":" or "]""#)),
        }
    }

    fn expect_positive(&self, duration: &DurationExpr) -> Result<()> {
        match duration.kind {
            DurationKind::Literal { seconds, .. } if seconds <= 0.0 => {
                Err(self.error_at(duration.pos, "duration must be greater than 0"))
            }
            _ => Ok(()),
        }
    }

    fn range(&mut self, node: Node, range: DurationExpr, open: Pos, close: Pos) -> Result<Node> {
        let brackets = merged(open, close);
        let selector_pos = node.expr.pos;
        let ExprKind::VectorSelector(selector) = node.expr.kind else {
            return Err(self.error_at(brackets, "ranges only allowed for vector selectors"));
        };
        if selector.modifiers.offset.is_some() {
            return Err(self.error_at(brackets, "no offset modifiers allowed before range"));
        }
        if selector.modifiers.at.is_some() {
            return Err(self.error_at(brackets, "no @ modifiers allowed before range"));
        }
        let matrix = ExprKind::MatrixSelector(MatrixSelector { selector, selector_pos, range });
        self.node(matrix, merged(selector_pos, close), node.depth, node.error)
    }

    /// The rest of a subquery after the colon.
    fn subquery(&mut self, node: Node, range: DurationExpr) -> Result<Node> {
        const STEP_EXPECTED: &str = r#"number, duration, step(), range(), or "]""#;
        let step = match self.token.kind {
            TokenKind::RightBracket => None,
            _ => {
                let step = self.duration("subquery selector", STEP_EXPECTED)?;
                self.expect_positive(&step)?;
                Some(step)
            }
        };
        let close = self.expect(TokenKind::RightBracket, "subquery selector", r#""]""#)?;
        let pos = merged(node.expr.pos, close.pos);
        let found = node.expr.value_type();
        let error = node.error.or_else(|| {
            if found == ValueType::Vector {
                return None;
            }
            let found = found.name();
            self.type_error(pos, format!("subquery is only allowed on instant vector, got {found} instead"))
        });
        let subquery = Subquery { expr: Box::new(node.expr), range, step, modifiers: Modifiers::default() };
        self.node(ExprKind::Subquery(subquery), pos, node.depth, error)
    }

    fn offset(&mut self, mut node: Node) -> Result<Node> {
        self.advance()?;
        let offset = self.offset_duration()?;
        let pos = node.expr.pos;
        let Some(modifiers) = modifiers(&mut node) else {
            return Err(self.error_at(
                pos,
                "offset modifier must be preceded by an instant vector selector or range vector \
                 selector or a subquery",
            ));
        };
        if modifiers.offset.is_some() {
            return Err(self.error_at(pos, "offset may not be set multiple times"));
        }
        modifiers.offset = Some(offset);
        node.expr.pos.end = self.last_end;
        Ok(node)
    }

    fn at(&mut self, mut node: Node) -> Result<Node> {
        self.advance()?;
        let pos = node.expr.pos;
        let at = match self.token.kind {
            TokenKind::Keyword(word @ (Keyword::Start | Keyword::End)) => {
                self.advance()?;
                self.expect(TokenKind::LeftParen, "@", "timestamp")?;
                self.expect(TokenKind::RightParen, "@", "timestamp")?;
                if word == Keyword::Start { At::Start } else { At::End }
            }
            _ => {
                let seconds = self.signed_number("@", "timestamp")?;
                At::Time(self.timestamp(seconds, pos)?)
            }
        };
        let Some(modifiers) = modifiers(&mut node) else {
            return Err(self.error_at(
                pos,
                "@ modifier must be preceded by an instant vector selector or range vector selector \
                 or a subquery",
            ));
        };
        if modifiers.at.is_some() {
            return Err(self.error_at(pos, "@ <timestamp> may not be set multiple times"));
        }
        modifiers.at = Some(at);
        node.expr.pos.end = self.last_end;
        Ok(node)
    }

    fn timestamp(&self, seconds: f64, pos: Pos) -> Result<i64> {
        // Half away from zero, as Go's math.Round.
        let ms = (seconds * 1000.0).round();
        // i64::MAX as a float is 2^63, one too many.
        if ms.is_nan() || ms >= i64::MAX as f64 || ms <= i64::MIN as f64 {
            let mut text = String::new();
            write_float(&mut text, seconds, Form::Fixed, Some(6)).expect("writing to a string does not fail");
            return Err(self.error_at(pos, format!("timestamp out of bounds for @ modifier: {text}")));
        }
        Ok(ms as i64)
    }

    fn extended(&mut self, mut node: Node, extension: RangeExtension) -> Result<Node> {
        let word = self.advance()?;
        let pos = node.expr.pos;
        let name = match extension {
            RangeExtension::Anchored => "anchored",
            RangeExtension::Smoothed => "smoothed",
        };
        self.pass(Gate::Ranges, pos, || format!("{name} modifier is experimental and not enabled"))?;
        let selector = match &mut node.expr.kind {
            ExprKind::VectorSelector(selector) => selector,
            ExprKind::MatrixSelector(matrix) => &mut matrix.selector,
            ExprKind::Subquery(_) => {
                return Err(self.error_at(pos, format!("{name} modifier is not supported for subqueries")));
            }
            _ => return Err(self.error_at(pos, format!("{name} modifier not implemented"))),
        };
        if selector.extension.is_some_and(|other| other != extension) {
            return Err(self.error_at(pos, "anchored and smoothed modifiers cannot be used together"));
        }
        selector.extension = Some(extension);
        node.expr.pos.end = word.pos.end;
        Ok(node)
    }
}

/// The modifiers of an expression that may have some.
fn modifiers(node: &mut Node) -> Option<&mut Modifiers> {
    match &mut node.expr.kind {
        ExprKind::VectorSelector(selector) => Some(&mut selector.modifiers),
        ExprKind::MatrixSelector(matrix) => Some(&mut matrix.selector.modifiers),
        ExprKind::Subquery(subquery) => Some(&mut subquery.modifiers),
        _ => None,
    }
}
