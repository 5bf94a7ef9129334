//! Expressions: operators by precedence, calls, aggregations, parentheses.
//!
//! What waits for its (last) operand is a [`Frame`] on a stack. An operand is read, then modifiers
//! and operators are, until an operator asks for the next operand or the text ends; an operator
//! first lets all waiting operators go that bind more tightly. So the depth of a query costs memory
//! that [`MAX_DEPTH`] bounds, and no stack of the thread.

use super::binary::{BinaryModifiers, binds_tighter_than_unary};
use super::build::Node;
use super::syntax::Gate;
use super::{MAX_DEPTH, Parser, Result, merged};
use crate::promql::ast::{AggregateOp, BinaryOp, Expr, ExprKind, Pos, UnaryOp};
use crate::promql::functions::{Function, lookup};
use crate::promql::lexer::{Keyword, NotUtf8, Token, TokenKind, quote, unquote};

/// Something that waits for an operand.
enum Frame {
    /// `-` ...
    Unary { op: UnaryOp, pos: Pos },
    /// `lhs op` ...
    Binary { op: BinaryOp, op_pos: Pos, modifiers: BinaryModifiers, lhs: Node },
    /// `(` ...
    Paren { open: Pos },
    /// `f(args,` ...
    Call { name: Token, args: Vec<Node>, comma: Option<Pos> },
    /// `sum by (a) (args,` ...
    Aggregate { op: AggregateOp, pos: Pos, grouping: Option<Grouping>, args: Vec<Node>, comma: Option<Pos> },
}

/// `by (a, b)` or `without (a, b)`.
pub(super) struct Grouping {
    pub labels: Vec<String>,
    pub without: bool,
    /// Where its closing parenthesis ends.
    pub end: u32,
}

/// What has been read.
enum Read {
    /// An operand; operators may follow.
    Operand(Node),
    /// Something that needs an operand.
    Opening,
}

impl Parser<'_> {
    /// The whole text as an expression.
    pub(super) fn expression(&mut self) -> Result<Expr> {
        if self.token.kind == TokenKind::Eof {
            return Err(self.error_at(Pos::default(), "no expression found in input"));
        }
        let mut stack: Vec<Frame> = Vec::new();
        loop {
            let Read::Operand(mut node) = self.operand(&mut stack)? else { continue };
            // After an operand: what belongs to it, then an operator, a comma or a closing.
            loop {
                node = self.modified(node)?;
                match self.token.kind {
                    TokenKind::Binary(op) => {
                        node = self.reduce(&mut stack, node, |frame| match frame {
                            Frame::Unary { .. } => !binds_tighter_than_unary(op),
                            Frame::Binary { op: waiting, .. } => {
                                waiting.precedence() > op.precedence()
                                    || waiting.precedence() == op.precedence() && op != BinaryOp::Pow
                            }
                            _ => false,
                        })?;
                        let op_token = self.advance()?;
                        let modifiers = self.binary_modifiers()?;
                        self.push(
                            &mut stack,
                            Frame::Binary { op, op_pos: op_token.pos, modifiers, lhs: node },
                        )?;
                        break;
                    }
                    TokenKind::Comma => {
                        let done = self.reduce_operators(&mut stack, node)?;
                        match stack.last_mut() {
                            Some(Frame::Call { args, comma, .. } | Frame::Aggregate { args, comma, .. }) => {
                                args.push(done);
                                *comma = Some(self.token.pos);
                                self.advance()?;
                                break;
                            }
                            _ => return Err(self.unexpected(context(&stack), "")),
                        }
                    }
                    TokenKind::RightParen => {
                        let done = self.reduce_operators(&mut stack, node)?;
                        node = self.close(&mut stack, Some(done))?;
                    }
                    TokenKind::Eof => {
                        let done = self.reduce_operators(&mut stack, node)?;
                        if !stack.is_empty() {
                            return Err(self.unexpected(context(&stack), ""));
                        }
                        return match done.error {
                            Some(complaint) => Err(self.error_at(complaint.pos, complaint.message)),
                            None => Ok(done.expr),
                        };
                    }
                    _ => return Err(self.unexpected(context(&stack), "")),
                }
            }
        }
    }

    /// Reads what may stand where an operand is due.
    fn operand(&mut self, stack: &mut Vec<Frame>) -> Result<Read> {
        let token = self.token;
        match token.kind {
            TokenKind::Binary(op @ (BinaryOp::Add | BinaryOp::Sub)) => {
                self.advance()?;
                let op = if op == BinaryOp::Add { UnaryOp::Plus } else { UnaryOp::Minus };
                self.push(stack, Frame::Unary { op, pos: token.pos })?;
                Ok(Read::Opening)
            }
            TokenKind::LeftParen => {
                self.advance()?;
                self.push(stack, Frame::Paren { open: token.pos })?;
                Ok(Read::Opening)
            }
            TokenKind::Number => {
                let value = self.number(token)?;
                self.advance()?;
                Ok(Read::Operand(leaf(ExprKind::Number { value, units: false }, token.pos)))
            }
            TokenKind::Duration => {
                let value = self.duration_seconds(token)?;
                self.advance()?;
                Ok(Read::Operand(leaf(ExprKind::Number { value, units: true }, token.pos)))
            }
            TokenKind::String => {
                let literal = self.text_of(token);
                let kind = match unquote(literal) {
                    Ok(text) => ExprKind::String(text),
                    Err(NotUtf8 { value, quoted }) => ExprKind::NotUtf8 { value, quoted },
                };
                self.advance()?;
                Ok(Read::Operand(leaf(kind, token.pos)))
            }
            TokenKind::LeftBrace => self.selector_operand(None),
            TokenKind::RightParen => match stack.last() {
                Some(Frame::Call { comma: None, .. } | Frame::Aggregate { comma: None, .. }) => {
                    self.close(stack, None).map(Read::Operand)
                }
                _ => Err(self.misplaced(stack)),
            },
            kind if kind.is_metric_name() => self.named_operand(stack),
            _ => Err(self.misplaced(stack)),
        }
    }

    /// Complains of a token where an operand is due.
    fn misplaced(&self, stack: &[Frame]) -> super::ParseError {
        match stack.last() {
            Some(Frame::Call { comma: Some(comma), .. } | Frame::Aggregate { comma: Some(comma), .. }) => {
                self.error_at(*comma, "trailing commas not allowed in function call args")
            }
            _ => self.unexpected(context(stack), ""),
        }
    }

    /// A call, an aggregation or a selector; all begin with a name.
    fn named_operand(&mut self, stack: &mut Vec<Frame>) -> Result<Read> {
        use Keyword::{By, End, MaxOf, MinOf, Range, Start, Step, Without};
        let name = self.advance()?;
        match (name.kind, self.token.kind) {
            (TokenKind::Aggregate(op), TokenKind::LeftParen | TokenKind::Keyword(By | Without)) => {
                let grouping = self.grouping()?;
                self.expect(TokenKind::LeftParen, "aggregation", "")?;
                let frame = Frame::Aggregate { op, pos: name.pos, grouping, args: Vec::new(), comma: None };
                self.push(stack, frame)?;
                Ok(Read::Opening)
            }
            (
                TokenKind::Identifier | TokenKind::Keyword(Start | End | Step | Range | MinOf | MaxOf),
                TokenKind::LeftParen,
            ) => {
                self.advance()?;
                self.push(stack, Frame::Call { name, args: Vec::new(), comma: None })?;
                Ok(Read::Opening)
            }
            _ => self.selector_operand(Some(name)),
        }
    }

    fn selector_operand(&mut self, name: Option<Token>) -> Result<Read> {
        let expr = self.selector_after(name)?;
        let error = self.selector_error(&expr);
        Ok(Read::Operand(Node::leaf(expr, error)))
    }

    fn push(&self, stack: &mut Vec<Frame>, frame: Frame) -> Result<()> {
        if stack.len() >= MAX_DEPTH {
            return Err(self.too_deep(self.token.pos));
        }
        stack.push(frame);
        Ok(())
    }

    /// Lets the waiting operators on top of the stack go, for which `goes` says true.
    fn reduce(&self, stack: &mut Vec<Frame>, mut node: Node, goes: impl Fn(&Frame) -> bool) -> Result<Node> {
        while stack.last().is_some_and(&goes) {
            node = match stack.pop() {
                Some(Frame::Unary { op, pos }) => self.unary(op, pos, node)?,
                Some(Frame::Binary { op, op_pos, modifiers, lhs }) => {
                    self.binary(op, op_pos, modifiers, lhs, node)?
                }
                other => {
                    stack.extend(other);
                    return Ok(node);
                }
            };
        }
        Ok(node)
    }

    fn reduce_operators(&self, stack: &mut Vec<Frame>, node: Node) -> Result<Node> {
        self.reduce(stack, node, |frame| matches!(frame, Frame::Unary { .. } | Frame::Binary { .. }))
    }

    /// At a `)`: ends the parentheses, call or aggregation on top of the stack, `last` being what
    /// stood before it.
    fn close(&mut self, stack: &mut Vec<Frame>, last: Option<Node>) -> Result<Node> {
        let Some(frame) = stack.pop() else { return Err(self.unexpected("", "")) };
        let close = self.advance()?.pos;
        match frame {
            Frame::Call { name, mut args, .. } => {
                args.extend(last);
                let function = self.function(name)?;
                if function.experimental {
                    let name_quoted = || format!("function {} is not enabled", quote(function.name));
                    self.pass(Gate::Functions, name.pos, name_quoted)?;
                }
                self.call(function, args, merged(name.pos, close))
            }
            Frame::Aggregate { op, pos, mut grouping, mut args, .. } => {
                args.extend(last);
                let mut end = close.end;
                if grouping.is_none() {
                    grouping = self.grouping()?;
                    end = grouping.as_ref().map_or(end, |grouping| grouping.end);
                }
                self.aggregate(op, grouping, args, Pos { start: pos.start, end })
            }
            Frame::Paren { open } => match last {
                Some(inner) => self.paren(inner, merged(open, close)),
                None => Err(self.unexpected(context(stack), "")),
            },
            Frame::Unary { .. } | Frame::Binary { .. } => Err(self.unexpected(context(stack), "")),
        }
    }

    fn function(&self, name: Token) -> Result<&'static Function> {
        let text = self.text_of(name);
        let known = match name.kind {
            TokenKind::Keyword(_) => lookup(&text.to_ascii_lowercase()),
            _ => lookup(text),
        };
        known.ok_or_else(|| self.error_at(name.pos, format!("unknown function with name {}", quote(text))))
    }

    /// `by (...)` or `without (...)`, if one of them follows.
    fn grouping(&mut self) -> Result<Option<Grouping>> {
        let without = match self.token.kind {
            TokenKind::Keyword(Keyword::By) => false,
            TokenKind::Keyword(Keyword::Without) => true,
            _ => return Ok(None),
        };
        self.advance()?;
        let (labels, end) = self.grouping_labels()?;
        Ok(Some(Grouping { labels, without, end }))
    }
}

fn leaf(kind: ExprKind, pos: Pos) -> Node {
    Node::leaf(Expr { kind, pos }, None)
}

/// Where an unexpected token stands, in Prometheus' words.
fn context(stack: &[Frame]) -> &'static str {
    let in_aggregation = stack.iter().any(|frame| matches!(frame, Frame::Aggregate { .. }));
    if in_aggregation { "aggregation" } else { "" }
}
