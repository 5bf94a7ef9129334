//! The syntax tree of PromQL 3.x. Every node knows where in the text it stands.

use crate::storage::Matcher;

/// A range of bytes in the query's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pos {
    /// The first byte.
    pub start: u32,
    /// The byte after the last.
    pub end: u32,
}

/// An expression: what it is and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Expr {
    /// What it is.
    pub kind: ExprKind,
    /// Where it stands.
    pub pos: Pos,
}

/// The kinds of expressions.
#[derive(Debug, Clone, PartialEq)]
pub enum ExprKind {
    /// `1.5`, `0x1f`, `1h30m`
    Number {
        /// The number; the seconds of a duration.
        value: f64,
        /// Whether it was written as a duration, and so is printed as one.
        units: bool,
    },
    /// `"text"`
    String(String),
    /// `"\xff"`: a text that is not UTF-8.
    NotUtf8 {
        /// The text with U+FFFD for what is not UTF-8, as Prometheus' answers have it.
        value: String,
        /// The text as Go quotes it.
        quoted: String,
    },
    /// `up{job="api"} offset 5m @ end()`
    VectorSelector(VectorSelector),
    /// `up[5m]`
    MatrixSelector(MatrixSelector),
    /// `expr[1h:5m]`
    Subquery(Subquery),
    /// `rate(...)`
    Call(Call),
    /// `sum by (job) (...)`
    Aggregate(Aggregate),
    /// `-x`, `+x`
    Unary(UnaryOp, Box<Expr>),
    /// `a + on (job) b`
    Binary(Binary),
    /// `(x)`
    Paren(Box<Expr>),
}

/// The types of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// One float, no labels.
    Scalar,
    /// Text.
    String,
    /// A value per series at one time.
    Vector,
    /// Several values per series.
    Matrix,
}

impl Expr {
    /// The type of its value.
    pub fn value_type(&self) -> ValueType {
        let mut expr = self;
        loop {
            match &expr.kind {
                ExprKind::Number { .. } => return ValueType::Scalar,
                ExprKind::String(_) | ExprKind::NotUtf8 { .. } => return ValueType::String,
                ExprKind::VectorSelector(_) | ExprKind::Aggregate(_) => return ValueType::Vector,
                ExprKind::MatrixSelector(_) | ExprKind::Subquery(_) => return ValueType::Matrix,
                ExprKind::Call(call) => return call.function.returns,
                ExprKind::Binary(binary) => return binary.value_type,
                ExprKind::Unary(_, inner) | ExprKind::Paren(inner) => expr = inner,
            }
        }
    }
}

impl Expr {
    /// All selectors of series in it, in no particular order.
    pub fn selectors(&self) -> Vec<&VectorSelector> {
        let (mut found, mut left) = (Vec::new(), vec![self]);
        while let Some(expr) = left.pop() {
            match &expr.kind {
                ExprKind::Number { .. } | ExprKind::String(_) | ExprKind::NotUtf8 { .. } => {}
                ExprKind::VectorSelector(selector) => found.push(selector),
                ExprKind::MatrixSelector(matrix) => found.push(&matrix.selector),
                ExprKind::Subquery(subquery) => left.push(&subquery.expr),
                ExprKind::Call(call) => left.extend(&call.args),
                ExprKind::Aggregate(aggregate) => {
                    left.push(&aggregate.expr);
                    left.extend(aggregate.param.as_deref());
                }
                ExprKind::Unary(_, inner) | ExprKind::Paren(inner) => left.push(inner),
                ExprKind::Binary(binary) => left.extend([&*binary.lhs, &*binary.rhs]),
            }
        }
        found
    }
}

impl Expr {
    /// Changes all selectors of series in it, in no particular order.
    pub fn change_selectors(&mut self, mut change: impl FnMut(&mut VectorSelector)) {
        let mut left = vec![self];
        while let Some(expr) = left.pop() {
            match &mut expr.kind {
                ExprKind::Number { .. } | ExprKind::String(_) | ExprKind::NotUtf8 { .. } => {}
                ExprKind::VectorSelector(selector) => change(selector),
                ExprKind::MatrixSelector(matrix) => change(&mut matrix.selector),
                ExprKind::Subquery(subquery) => left.push(&mut subquery.expr),
                ExprKind::Call(call) => left.extend(&mut call.args),
                ExprKind::Aggregate(aggregate) => {
                    left.push(&mut aggregate.expr);
                    left.extend(aggregate.param.as_deref_mut());
                }
                ExprKind::Unary(_, inner) | ExprKind::Paren(inner) => left.push(inner),
                ExprKind::Binary(binary) => left.extend([&mut *binary.lhs, &mut *binary.rhs]),
            }
        }
    }
}

impl ValueType {
    /// The name in answers (`resultType`) and some errors.
    pub fn name(self) -> &'static str {
        match self {
            ValueType::Scalar => "scalar",
            ValueType::String => "string",
            ValueType::Vector => "vector",
            ValueType::Matrix => "matrix",
        }
    }

    /// The name in the documentation and most errors.
    pub fn documented_name(self) -> &'static str {
        match self {
            ValueType::Scalar => "scalar",
            ValueType::String => "string",
            ValueType::Vector => "instant vector",
            ValueType::Matrix => "range vector",
        }
    }
}

/// `name{matchers}` with its modifiers.
#[derive(Debug, Clone, PartialEq)]
pub struct VectorSelector {
    /// The name as written before the braces, if one was.
    pub name: Option<String>,
    /// All the matchers, that of the name included (as `__name__`).
    pub matchers: Vec<Matcher>,
    /// `offset` and `@`.
    pub modifiers: Modifiers,
    /// `anchored` or `smoothed`.
    pub extension: Option<RangeExtension>,
}

/// `selector[range]`
#[derive(Debug, Clone, PartialEq)]
pub struct MatrixSelector {
    /// The selector, whose modifiers stand after the range in the text.
    pub selector: VectorSelector,
    /// Where the selector without the range stands.
    pub selector_pos: Pos,
    /// The width of the window.
    pub range: DurationExpr,
}

/// `expr[range:step]`
#[derive(Debug, Clone, PartialEq)]
pub struct Subquery {
    /// What is evaluated.
    pub expr: Box<Expr>,
    /// The width of the window.
    pub range: DurationExpr,
    /// The resolution; `None` stands for the evaluation interval.
    pub step: Option<DurationExpr>,
    /// `offset` and `@`.
    pub modifiers: Modifiers,
}

/// `offset` and `@` of a selector or subquery.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Modifiers {
    /// How far back; negative looks ahead.
    pub offset: Option<DurationExpr>,
    /// The fixed evaluation time.
    pub at: Option<At>,
}

/// The argument of `@`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// Milliseconds since the epoch.
    Time(i64),
    /// `start()`: the first step of the query.
    Start,
    /// `end()`: the last step of the query.
    End,
}

/// How a window's borders are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeExtension {
    /// The last sample before the window counts as standing at its start.
    Anchored,
    /// Values at both borders are interpolated.
    Smoothed,
}

/// A duration, possibly calculated at query time. In seconds as a float while it is calculated.
#[derive(Debug, Clone, PartialEq)]
pub struct DurationExpr {
    /// What it is.
    pub kind: DurationKind,
    /// Where it stands.
    pub pos: Pos,
}

/// The kinds of duration expressions.
#[derive(Debug, Clone, PartialEq)]
pub enum DurationKind {
    /// `5m` or `300`: seconds.
    Literal {
        /// Its length in seconds.
        seconds: f64,
        /// Whether it was written with units, and so is printed with units.
        units: bool,
    },
    /// `step()`: the step of the query.
    Step,
    /// `range()`: the distance from the first to the last step of the query.
    Range,
    /// `-d`, `+d`
    Unary(UnaryOp, Box<DurationExpr>),
    /// `a + b`, `a * 2`
    Binary(DurationOp, Box<DurationExpr>, Box<DurationExpr>),
    /// `min_of(a, b)`
    Min(Box<DurationExpr>, Box<DurationExpr>),
    /// `max_of(a, b)`
    Max(Box<DurationExpr>, Box<DurationExpr>),
    /// `(d)`
    Paren(Box<DurationExpr>),
}

/// The operators of duration expressions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DurationOp {
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
    /// `%`
    Mod,
    /// `^`
    Pow,
}

/// A function call. The function's signature is found by its name in the function table.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The function: its row in the table.
    pub function: &'static super::functions::Function,
    /// The arguments as written.
    pub args: Vec<Expr>,
}

/// `sum by (a, b) (param, expr)`
#[derive(Debug, Clone, PartialEq)]
pub struct Aggregate {
    /// Which aggregation.
    pub op: AggregateOp,
    /// The parameter of `topk`, `quantile`, `count_values` and their like.
    pub param: Option<Box<Expr>>,
    /// What is aggregated.
    pub expr: Box<Expr>,
    /// The labels after `by` or `without`.
    pub grouping: Vec<String>,
    /// Whether `without` was written.
    pub without: bool,
}

/// The aggregations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "they are called what they are called in PromQL")]
pub enum AggregateOp {
    Sum,
    Avg,
    Min,
    Max,
    Count,
    Group,
    Stddev,
    Stdvar,
    Topk,
    Bottomk,
    Quantile,
    CountValues,
    Limitk,
    LimitRatio,
}

impl AggregateOp {
    /// All of them.
    pub const ALL: [AggregateOp; 14] = [
        AggregateOp::Sum,
        AggregateOp::Avg,
        AggregateOp::Min,
        AggregateOp::Max,
        AggregateOp::Count,
        AggregateOp::Group,
        AggregateOp::Stddev,
        AggregateOp::Stdvar,
        AggregateOp::Topk,
        AggregateOp::Bottomk,
        AggregateOp::Quantile,
        AggregateOp::CountValues,
        AggregateOp::Limitk,
        AggregateOp::LimitRatio,
    ];

    /// Its name in PromQL.
    pub fn name(self) -> &'static str {
        match self {
            AggregateOp::Sum => "sum",
            AggregateOp::Avg => "avg",
            AggregateOp::Min => "min",
            AggregateOp::Max => "max",
            AggregateOp::Count => "count",
            AggregateOp::Group => "group",
            AggregateOp::Stddev => "stddev",
            AggregateOp::Stdvar => "stdvar",
            AggregateOp::Topk => "topk",
            AggregateOp::Bottomk => "bottomk",
            AggregateOp::Quantile => "quantile",
            AggregateOp::CountValues => "count_values",
            AggregateOp::Limitk => "limitk",
            AggregateOp::LimitRatio => "limit_ratio",
        }
    }

    /// The type of its parameter, if it takes one.
    pub fn param_type(self) -> Option<ValueType> {
        match self {
            AggregateOp::Topk
            | AggregateOp::Bottomk
            | AggregateOp::Quantile
            | AggregateOp::Limitk
            | AggregateOp::LimitRatio => Some(ValueType::Scalar),
            AggregateOp::CountValues => Some(ValueType::String),
            _ => None,
        }
    }
}

/// The operators with one operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnaryOp {
    /// `+`
    Plus,
    /// `-`
    Minus,
}

/// `lhs op rhs`
#[derive(Debug, Clone, PartialEq)]
pub struct Binary {
    /// Which operator.
    pub op: BinaryOp,
    /// Where the operator stands.
    pub op_pos: Pos,
    /// The left operand.
    pub lhs: Box<Expr>,
    /// The right operand.
    pub rhs: Box<Expr>,
    /// Whether `bool` was written: a comparison gives 0 or 1 instead of filtering.
    pub return_bool: bool,
    /// Scalar if both operands are scalars, else vector.
    pub value_type: ValueType,
    /// How series find their partners; `None` unless both operands are vectors.
    pub matching: Option<VectorMatching>,
}

/// The operators with two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it; TrimUpper is `</`, TrimLower is `>/`")]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Atan2,
    Eq,
    Ne,
    Gt,
    Lt,
    Ge,
    Le,
    And,
    Or,
    Unless,
    TrimUpper,
    TrimLower,
}

impl BinaryOp {
    /// Its notation.
    pub fn symbol(self) -> &'static str {
        match self {
            BinaryOp::Add => "+",
            BinaryOp::Sub => "-",
            BinaryOp::Mul => "*",
            BinaryOp::Div => "/",
            BinaryOp::Mod => "%",
            BinaryOp::Pow => "^",
            BinaryOp::Atan2 => "atan2",
            BinaryOp::Eq => "==",
            BinaryOp::Ne => "!=",
            BinaryOp::Gt => ">",
            BinaryOp::Lt => "<",
            BinaryOp::Ge => ">=",
            BinaryOp::Le => "<=",
            BinaryOp::And => "and",
            BinaryOp::Or => "or",
            BinaryOp::Unless => "unless",
            BinaryOp::TrimUpper => "</",
            BinaryOp::TrimLower => ">/",
        }
    }

    /// How tightly it binds: operators of a higher precedence are applied first.
    pub fn precedence(self) -> u8 {
        match self {
            BinaryOp::Or => 1,
            BinaryOp::And | BinaryOp::Unless => 2,
            BinaryOp::TrimUpper | BinaryOp::TrimLower => 3,
            op if op.is_comparison() => 3,
            BinaryOp::Add | BinaryOp::Sub => 4,
            BinaryOp::Pow => 6,
            _ => 5,
        }
    }

    /// Whether it is one of `== != > < >= <=`.
    pub fn is_comparison(self) -> bool {
        use BinaryOp::{Eq, Ge, Gt, Le, Lt, Ne};
        matches!(self, Eq | Ne | Gt | Lt | Ge | Le)
    }

    /// Whether it is one of `and`, `or`, `unless`.
    pub fn is_set(self) -> bool {
        matches!(self, BinaryOp::And | BinaryOp::Or | BinaryOp::Unless)
    }
}

/// How the series of two vectors find their partners.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct VectorMatching {
    /// How many partners are allowed on which side.
    pub card: Cardinality,
    /// Whether `on` was written (else `ignoring`, or nothing).
    pub on: bool,
    /// The labels after `on` or `ignoring`.
    pub labels: Vec<String>,
    /// The labels in `group_left(...)` or `group_right(...)`.
    pub include: Vec<String>,
    /// `fill` and `fill_left`: the value of a missing left partner.
    pub fill_left: Option<f64>,
    /// `fill` and `fill_right`: the value of a missing right partner.
    pub fill_right: Option<f64>,
}

/// Cardinality of vector matching.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cardinality {
    /// No grouping.
    #[default]
    OneToOne,
    /// `group_left`
    ManyToOne,
    /// `group_right`
    OneToMany,
    /// `and`, `or`, `unless`
    ManyToMany,
}
