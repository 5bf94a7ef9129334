//! Builds expressions from their parts and checks types on the way up.
//!
//! Prometheus checks a query only after all of it was read without error, from the outside in. So a
//! type error is not returned at once: a [`Node`] carries the first one below it, "first" being the
//! order in which Prometheus would come by.

use super::binary::BinaryModifiers;
use super::expr::Grouping;
use super::syntax::Gate;
use super::{MAX_DEPTH, ParseError, Parser, Result, merged};
use crate::promql::ast::{
    Aggregate, AggregateOp, Binary, BinaryOp, Call, Cardinality, Expr, ExprKind, Pos, UnaryOp, ValueType,
};
use crate::promql::functions::Function;
use crate::promql::lexer::quote;
use larum_storage_format::labels::METRIC_NAME;
use std::collections::HashSet;

/// What is wrong with a part of the query. Its line and column are looked up only if it is told,
/// since that takes going through the query.
#[derive(Debug, Clone)]
pub(super) struct Complaint {
    pub pos: Pos,
    pub message: String,
}

/// An expression that is being put together.
pub(super) struct Node {
    pub expr: Expr,
    /// How many expressions contain one another in it, itself included.
    pub depth: usize,
    /// The first type error in it.
    pub error: Option<Box<Complaint>>,
}

impl Node {
    /// An expression that contains no other.
    pub fn leaf(expr: Expr, error: Option<Box<Complaint>>) -> Node {
        Node { expr, depth: 1, error }
    }

    fn value_type(&self) -> ValueType {
        self.expr.value_type()
    }
}

impl Parser<'_> {
    pub(super) fn too_deep(&self, pos: Pos) -> ParseError {
        self.error_at(pos, format!("the expression is nested more than {MAX_DEPTH} levels deep"))
    }

    /// A node around others of which the deepest has `depth`.
    pub(super) fn node(
        &self,
        kind: ExprKind,
        pos: Pos,
        depth: usize,
        error: Option<Box<Complaint>>,
    ) -> Result<Node> {
        if depth >= MAX_DEPTH {
            return Err(self.too_deep(pos));
        }
        Ok(Node { expr: Expr { kind, pos }, depth: depth + 1, error })
    }

    pub(super) fn type_error(&self, pos: Pos, message: impl Into<String>) -> Option<Box<Complaint>> {
        Some(Box::new(Complaint { pos, message: message.into() }))
    }

    pub(super) fn paren(&self, inner: Node, pos: Pos) -> Result<Node> {
        self.node(ExprKind::Paren(Box::new(inner.expr)), pos, inner.depth, inner.error)
    }

    pub(super) fn unary(&self, op: UnaryOp, op_pos: Pos, inner: Node) -> Result<Node> {
        let pos = merged(op_pos, inner.expr.pos);
        if let ExprKind::Number { value, units } = inner.expr.kind {
            let value = if op == UnaryOp::Minus { -value } else { value };
            return Ok(Node::leaf(Expr { kind: ExprKind::Number { value, units }, pos }, None));
        }
        let found = inner.value_type();
        let error = inner.error.or_else(|| match found {
            ValueType::Scalar | ValueType::Vector => None,
            _ => {
                let found = quote(found.documented_name());
                self.type_error(pos, format!(
                    "unary expression only allowed on expressions of type scalar or instant vector, got {found}"
                ))
            }
        });
        self.node(ExprKind::Unary(op, Box::new(inner.expr)), pos, inner.depth, error)
    }

    pub(super) fn binary(
        &self,
        op: BinaryOp,
        op_pos: Pos,
        modifiers: BinaryModifiers,
        lhs: Node,
        rhs: Node,
    ) -> Result<Node> {
        let BinaryModifiers { return_bool, mut matching, end } = modifiers;
        if op.is_set() && matching.card == Cardinality::OneToOne {
            matching.card = Cardinality::ManyToMany;
        }
        let pos = merged(lhs.expr.pos, rhs.expr.pos);
        if matching.fill_left.is_some() || matching.fill_right.is_some() {
            let complaint = || "binop fill modifiers are experimental and not enabled".to_owned();
            self.pass(Gate::Fill, pos, complaint)?;
        }
        let (lt, rt) = (lhs.value_type(), rhs.value_type());
        let scalars = (lt == ValueType::Scalar, rt == ValueType::Scalar);
        let mut binary = Binary {
            op,
            op_pos,
            lhs: Box::new(lhs.expr),
            rhs: Box::new(rhs.expr),
            return_bool,
            value_type: if scalars == (true, true) { ValueType::Scalar } else { ValueType::Vector },
            matching: Some(matching),
        };
        let op_range = Pos { start: op_pos.start, end };
        let own = |parser: &Self| parser.binary_error(&binary, (lt, rt), pos, op_range);
        let error = lhs.error.or(rhs.error).or_else(|| own(self));
        if (lt, rt) != (ValueType::Vector, ValueType::Vector) {
            binary.matching = None;
        }
        self.node(ExprKind::Binary(binary), pos, lhs.depth.max(rhs.depth), error)
    }

    fn binary_error(
        &self,
        binary: &Binary,
        (lt, rt): (ValueType, ValueType),
        pos: Pos,
        op_range: Pos,
    ) -> Option<Box<Complaint>> {
        let op = binary.op;
        let matching = binary.matching.as_ref()?;
        let any_scalar = lt == ValueType::Scalar || rt == ValueType::Scalar;
        if binary.return_bool && !op.is_comparison() {
            return self.type_error(op_range, "bool modifier can only be used on comparison operators");
        }
        if op.is_comparison() && !binary.return_bool && binary.value_type == ValueType::Scalar {
            return self.type_error(op_range, "comparisons between scalars must use BOOL modifier");
        }
        let included: HashSet<&String> = matching.include.iter().collect();
        if matching.on
            && let Some(label) = matching.labels.iter().find(|label| included.contains(label))
        {
            let label = quote(label);
            return self.type_error(
                op_range,
                format!("label {label} must not occur in ON and GROUP clause at once"),
            );
        }
        for (found, operand) in [(lt, &binary.lhs), (rt, &binary.rhs)] {
            if !matches!(found, ValueType::Scalar | ValueType::Vector) {
                return self.type_error(
                    operand.pos,
                    "binary expression must contain only scalar and instant vector types",
                );
            }
        }
        let fills = matching.fill_left.is_some() || matching.fill_right.is_some();
        let symbol = quote(op.symbol());
        if any_scalar {
            if !matching.labels.is_empty() {
                return self.type_error(pos, "vector matching only allowed between instant vectors");
            }
            if fills {
                return self
                    .type_error(pos, "filling in missing series only allowed between instant vectors");
            }
            if op.is_set() {
                return self.type_error(
                    pos,
                    format!("set operator {symbol} not allowed in binary scalar expression"),
                );
            }
        } else if op.is_set() {
            if matching.card != Cardinality::ManyToMany {
                return self.type_error(pos, format!("no grouping allowed for {symbol} operation"));
            }
            if fills {
                return self.type_error(pos, "filling in missing series not allowed for set operators");
            }
        }
        None
    }

    pub(super) fn call(&self, function: &'static Function, args: Vec<Node>, pos: Pos) -> Result<Node> {
        let depth = args.iter().map(|arg| arg.depth).max().unwrap_or(0);
        let mut error = self.arity_error(function, args.len(), pos);
        let mut exprs = Vec::with_capacity(args.len());
        for (i, arg) in args.into_iter().enumerate() {
            let found = arg.value_type();
            let is_info_selector = function.name == "info" && i == 1;
            if is_info_selector && error.is_none() {
                error = self.info_selector_error(&arg.expr, pos);
            }
            if let Some(wanted) = function.arg_type(i)
                && error.is_none()
            {
                // The second argument of info() may match everything.
                let below = arg
                    .error
                    .filter(|_| !(is_info_selector && matches!(arg.expr.kind, ExprKind::VectorSelector(_))));
                error = below.or_else(|| {
                    let (name, wanted) = (quote(function.name), wanted.documented_name());
                    let found_name = found.documented_name();
                    if found.documented_name() == wanted {
                        return None;
                    }
                    self.type_error(
                        arg.expr.pos,
                        format!("expected type {wanted} in call to function {name}, got {found_name}"),
                    )
                });
            }
            exprs.push(arg.expr);
        }
        self.node(ExprKind::Call(Call { function, args: exprs }), pos, depth, error)
    }

    fn arity_error(&self, function: &Function, got: usize, pos: Pos) -> Option<Box<Complaint>> {
        let min = function.min_args();
        let (bound, count) = match function.max_args() {
            Some(max) if max == min && got != min => ("", min),
            _ if got < min => ("at least ", min),
            Some(max) if got > max => ("at most ", max),
            _ => return None,
        };
        let name = quote(function.name);
        self.type_error(pos, format!("expected {bound}{count} argument(s) in call to {name}, got {got}"))
    }

    fn info_selector_error(&self, arg: &Expr, call_pos: Pos) -> Option<Box<Complaint>> {
        let found = arg.value_type();
        if found != ValueType::Vector {
            let found = found.documented_name();
            return self.type_error(
                call_pos,
                format!("expected type instant vector in call to function \"info\", got {found}"),
            );
        }
        match &arg.kind {
            ExprKind::VectorSelector(selector) if selector.name.is_none() => None,
            ExprKind::VectorSelector(_) => {
                self.type_error(arg.pos, "expected label selectors only, got vector selector instead")
            }
            _ => self.type_error(arg.pos, "expected label selectors only"),
        }
    }

    pub(super) fn aggregate(
        &self,
        op: AggregateOp,
        grouping: Option<Grouping>,
        args: Vec<Node>,
        pos: Pos,
    ) -> Result<Node> {
        let got = args.len();
        if got == 0 {
            return Err(self.error_at(pos, "no arguments for aggregate expression provided"));
        }
        if matches!(op, AggregateOp::Limitk | AggregateOp::LimitRatio) {
            let complaint = || format!("{}() is experimental and not enabled", op.name());
            self.pass(Gate::Functions, pos, complaint)?;
        }
        let wrong_count = |expected: usize| {
            self.error_at(pos, format!(
                "wrong number of arguments for aggregate expression provided, expected {expected}, got {got}"
            ))
        };
        let mut args = args.into_iter();
        let (param, expr) = match (op.param_type(), args.next(), args.next(), args.next()) {
            (None, Some(expr), None, None) => (None, expr),
            (Some(wanted), Some(param), Some(expr), None) => (Some((wanted, param)), expr),
            (None, ..) => return Err(wrong_count(1)),
            (Some(_), ..) => return Err(wrong_count(2)),
        };
        let mut error = self.expect_type(&expr, ValueType::Vector, "aggregation expression");
        let mut depth = expr.depth;
        if let Some((wanted, param)) = &param {
            error = error.or_else(|| self.expect_type(param, *wanted, "aggregation parameter"));
            depth = depth.max(param.depth);
        }
        let (grouping, without) = grouping.map_or_else(Default::default, |g| (g.labels, g.without));
        let aggregate = Aggregate {
            op,
            param: param.map(|(_, param)| Box::new(param.expr)),
            expr: Box::new(expr.expr),
            grouping,
            without,
        };
        self.node(ExprKind::Aggregate(aggregate), pos, depth, error)
    }

    fn expect_type(&self, node: &Node, wanted: ValueType, context: &str) -> Option<Box<Complaint>> {
        let found = node.value_type();
        node.error.clone().or_else(|| {
            if found == wanted {
                return None;
            }
            let (wanted, found) = (wanted.documented_name(), found.documented_name());
            self.type_error(node.expr.pos, format!("expected type {wanted} in {context}, got {found}"))
        })
    }

    /// What is wrong with the matchers of a selector: a name given twice, or nothing asked for.
    pub(super) fn selector_error(&self, expr: &Expr) -> Option<Box<Complaint>> {
        let ExprKind::VectorSelector(selector) = &expr.kind else { return None };
        if let Some(name) = &selector.name {
            let (_, written) = selector.matchers.split_last()?;
            let again = written.iter().find(|matcher| matcher.name() == METRIC_NAME)?;
            let (name, again) = (quote(name), quote(again.value()));
            let message = format!("metric name must not be set twice: {name} or {again}");
            return self.type_error(expr.pos, message);
        }
        if selector.matchers.iter().any(|matcher| !matcher.matches("")) {
            return None;
        }
        self.type_error(expr.pos, "vector selector must contain at least one non-empty matcher")
    }
}
