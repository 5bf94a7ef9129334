//! The trees of promql-parser, told as Prometheus tells its own. The package can do that itself, but forgets
//! the labels of `group_left`, the sign of times before 1970, and more.

use promql_parser::label::{MatchOp, Matchers};
use promql_parser::parser::value::ValueType;
use promql_parser::parser::{
    AtModifier, BinModifier, Expr, LabelModifier, Offset, VectorMatchCardinality, VectorSelector,
};
use serde_json::{Value, json};
use std::panic::catch_unwind;
use std::time::{Duration, SystemTime};

/// The tree of `query`, if it accepts that.
pub fn tree(query: &str) -> Option<Value> {
    let query = query.to_owned();
    let expr = catch_unwind(move || promql_parser::parser::parse(&query)).ok()?.ok()?;
    Some(expr_tree(&expr))
}

fn expr_tree(expr: &Expr) -> Value {
    match expr {
        Expr::Aggregate(aggregate) => {
            let (grouping, without) = match &aggregate.modifier {
                Some(LabelModifier::Include(labels)) => (labels.labels.clone(), false),
                Some(LabelModifier::Exclude(labels)) => (labels.labels.clone(), true),
                None => (Vec::new(), false),
            };
            json!({
                "type": "aggregation",
                "op": aggregate.op.to_string(),
                "expr": expr_tree(&aggregate.expr),
                "param": aggregate.param.as_ref().map(|param| expr_tree(param)),
                "grouping": grouping,
                "without": without,
            })
        }
        Expr::Unary(unary) => json!({"type": "unaryExpr", "op": "-", "expr": expr_tree(&unary.expr)}),
        Expr::Binary(binary) => {
            let vectors = [&binary.lhs, &binary.rhs].iter().all(|e| e.value_type() == ValueType::Vector);
            json!({
                "type": "binaryExpr",
                "op": binary.op.to_string(),
                "lhs": expr_tree(&binary.lhs),
                "rhs": expr_tree(&binary.rhs),
                "bool": binary.modifier.as_ref().is_some_and(|modifier| modifier.return_bool),
                "matching": vectors.then(|| matching(binary.modifier.as_ref(), &binary.op.to_string())),
            })
        }
        Expr::Paren(paren) => json!({"type": "parenExpr", "expr": expr_tree(&paren.expr)}),
        Expr::Subquery(subquery) => {
            let (start_or_end, timestamp) = at(subquery.at.as_ref());
            json!({
                "type": "subquery",
                "expr": expr_tree(&subquery.expr),
                "range": milliseconds(subquery.range),
                "step": subquery.step.map_or(0, milliseconds),
                "offset": offset(subquery.offset.as_ref()),
                "startOrEnd": start_or_end,
                "timestamp": timestamp,
            })
        }
        Expr::NumberLiteral(number) => json!({"type": "numberLiteral", "val": float(number.val)}),
        Expr::StringLiteral(text) => json!({"type": "stringLiteral", "val": text.val}),
        Expr::VectorSelector(selector) => {
            let mut tree = selector_tree(selector);
            tree["type"] = json!("vectorSelector");
            tree
        }
        Expr::MatrixSelector(matrix) => {
            let mut tree = selector_tree(&matrix.vs);
            tree["type"] = json!("matrixSelector");
            tree["range"] = json!(milliseconds(matrix.range));
            tree
        }
        Expr::Call(call) => json!({
            "type": "call",
            "args": call.args.args.iter().map(|arg| expr_tree(arg)).collect::<Vec<_>>(),
            "func": {
                "name": call.func.name,
                "argTypes": call.func.arg_types.iter().map(|arg| type_name(*arg)).collect::<Vec<_>>(),
                "returnType": type_name(call.func.return_type),
                "variadic": call.func.variadic,
            },
        }),
        Expr::Extension(_) => unreachable!("the parser makes none"),
    }
}

fn type_name(value_type: ValueType) -> &'static str {
    match value_type {
        ValueType::Vector => "vector",
        ValueType::Scalar => "scalar",
        ValueType::Matrix => "matrix",
        ValueType::String => "string",
    }
}

fn matching(modifier: Option<&BinModifier>, op: &str) -> Value {
    let set = ["and", "or", "unless"].contains(&op);
    let default = if set { "many-to-many" } else { "one-to-one" };
    let (card, include) = match modifier.map(|modifier| &modifier.card) {
        None | Some(VectorMatchCardinality::OneToOne) => (default, Vec::new()),
        Some(VectorMatchCardinality::ManyToMany) => ("many-to-many", Vec::new()),
        Some(VectorMatchCardinality::ManyToOne(labels)) => ("many-to-one", labels.labels.clone()),
        Some(VectorMatchCardinality::OneToMany(labels)) => ("one-to-many", labels.labels.clone()),
    };
    let (labels, on) = match modifier.and_then(|modifier| modifier.matching.as_ref()) {
        Some(LabelModifier::Include(labels)) => (labels.labels.clone(), true),
        Some(LabelModifier::Exclude(labels)) => (labels.labels.clone(), false),
        None => (Vec::new(), false),
    };
    let fill = modifier.map(|modifier| &modifier.fill_values);
    let number = |value: Option<f64>| value.map(|value| json!(value)).map(whole);
    json!({
        "card": card,
        "include": include,
        "labels": labels,
        "on": on,
        "fillValues": {
            "lhs": number(fill.and_then(|fill| fill.lhs)),
            "rhs": number(fill.and_then(|fill| fill.rhs)),
        },
    })
}

/// `1.0` as `1`: the same number of JSON.
fn whole(number: Value) -> Value {
    match number.as_f64() {
        Some(value) if value.fract() == 0.0 && value.abs() < 1e15 => json!(value as i64),
        _ => number,
    }
}

fn selector_tree(selector: &VectorSelector) -> Value {
    let (start_or_end, timestamp) = at(selector.at.as_ref());
    let Matchers { matchers, .. } = &selector.matchers;
    let mut matchers: Vec<Value> = matchers
        .iter()
        .map(|matcher| {
            let op = match &matcher.op {
                MatchOp::Equal => "=",
                MatchOp::NotEqual => "!=",
                MatchOp::Re(_) => "=~",
                MatchOp::NotRe(_) => "!~",
            };
            json!({"name": matcher.name, "type": op, "value": matcher.value})
        })
        .collect();
    if let Some(name) = &selector.name {
        matchers.push(json!({"name": "__name__", "type": "=", "value": name}));
    }
    json!({
        "name": selector.name.as_deref().unwrap_or(""),
        "matchers": matchers,
        "offset": offset(selector.offset.as_ref()),
        "startOrEnd": start_or_end,
        "timestamp": timestamp,
        "anchored": false,
        "smoothed": false,
    })
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn offset(offset: Option<&Offset>) -> i64 {
    match offset {
        Some(Offset::Pos(duration)) => milliseconds(*duration),
        Some(Offset::Neg(duration)) => -milliseconds(*duration),
        None => 0,
    }
}

fn at(at: Option<&AtModifier>) -> (Value, Value) {
    match at {
        Some(AtModifier::Start) => (json!("start"), Value::Null),
        Some(AtModifier::End) => (json!("end"), Value::Null),
        Some(AtModifier::At(time)) => {
            let ms = match time.duration_since(SystemTime::UNIX_EPOCH) {
                Ok(after) => milliseconds(after),
                Err(before) => -milliseconds(before.duration()),
            };
            (Value::Null, json!(ms))
        }
        None => (Value::Null, Value::Null),
    }
}

fn float(value: f64) -> String {
    let mut text = String::new();
    larum::promql::number::write_scalar_value(&mut text, value).expect("writing to a string does not fail");
    text
}
