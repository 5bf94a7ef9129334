//! Expressions as JSON, the way Prometheus tells them (`/api/v1/parse_query`, `translateAST`): the same
//! fields, in the same order.
//!
//! Like the printer, this keeps what is still to be written on a stack of its own instead of recursing.

use super::ast::{
    At, Binary, Call, Cardinality, DurationExpr, DurationKind, Expr, ExprKind, MatrixSelector, Modifiers,
    RangeExtension, Subquery, UnaryOp, ValueType, VectorMatching, VectorSelector,
};
use super::number::{Bytes, Form, write_float};
use crate::storage::MatchOp;

/// Writes a text as JSON, quotes included.
pub type WriteText = fn(&mut Vec<u8>, &str);

/// Adds `expr` to `out`. What is text is added by `text`: how much of it is escaped is the edge's affair.
pub fn write_ast(out: &mut Vec<u8>, expr: &Expr, text: WriteText) {
    let mut stack = vec![Rest::Expr(expr)];
    while let Some(rest) = stack.pop() {
        match rest {
            Rest::Bytes(bytes) => out.extend_from_slice(&bytes),
            Rest::Expr(expr) => {
                let parts = Writer { text, out: Vec::new(), parts: Vec::new() }.expr(expr);
                stack.extend(parts.into_iter().rev());
            }
        }
    }
}

/// What is still to be written.
enum Rest<'a> {
    Expr(&'a Expr),
    Bytes(Vec<u8>),
}

/// Takes one node apart: bytes, and the nodes below it.
struct Writer<'a> {
    text: WriteText,
    out: Vec<u8>,
    parts: Vec<Rest<'a>>,
}

impl<'a> Writer<'a> {
    fn expr(mut self, expr: &'a Expr) -> Vec<Rest<'a>> {
        match &expr.kind {
            ExprKind::Number { value, .. } => {
                self.plain(r#"{"type":"numberLiteral","val":""#);
                write_float(&mut Bytes(&mut self.out), *value, Form::Fixed, None)
                    .expect("writing to a buffer does not fail");
                self.plain("\"}");
            }
            ExprKind::String(text) => self.string_literal(text),
            ExprKind::NotUtf8 { value, .. } => self.string_literal(value),
            ExprKind::VectorSelector(selector) => {
                self.plain("{");
                self.selector(selector, None);
                self.plain(r#""type":"vectorSelector"}"#);
            }
            ExprKind::MatrixSelector(MatrixSelector { selector, range, .. }) => {
                self.plain("{");
                self.selector(selector, Some(range));
                self.plain(r#""type":"matrixSelector"}"#);
            }
            ExprKind::Subquery(subquery) => self.subquery(subquery),
            ExprKind::Call(call) => self.call(call),
            ExprKind::Aggregate(aggregate) => {
                self.plain(r#"{"expr":"#);
                self.below(&aggregate.expr);
                self.plain(r#","grouping":"#);
                self.texts(&aggregate.grouping);
                self.plain(&format!(r#","op":"{}","param":"#, aggregate.op.name()));
                match &aggregate.param {
                    Some(param) => self.below(param),
                    None => self.plain("null"),
                }
                self.plain(&format!(r#","type":"aggregation","without":{}}}"#, aggregate.without));
            }
            ExprKind::Unary(op, inner) => {
                self.plain(r#"{"expr":"#);
                self.below(inner);
                let op = if *op == UnaryOp::Minus { '-' } else { '+' };
                self.plain(&format!(r#","op":"{op}","type":"unaryExpr"}}"#));
            }
            ExprKind::Binary(binary) => self.binary(binary),
            ExprKind::Paren(inner) => {
                self.plain(r#"{"expr":"#);
                self.below(inner);
                self.plain(r#","type":"parenExpr"}"#);
            }
        }
        self.parts.push(Rest::Bytes(self.out));
        self.parts
    }

    fn plain(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    fn text(&mut self, text: &str) {
        (self.text)(&mut self.out, text);
    }

    fn texts(&mut self, texts: &[String]) {
        self.plain("[");
        for (i, text) in texts.iter().enumerate() {
            if i > 0 {
                self.plain(",");
            }
            self.text(text);
        }
        self.plain("]");
    }

    fn below(&mut self, expr: &'a Expr) {
        self.parts.push(Rest::Bytes(std::mem::take(&mut self.out)));
        self.parts.push(Rest::Expr(expr));
    }

    fn string_literal(&mut self, value: &str) {
        self.plain(r#"{"type":"stringLiteral","val":"#);
        self.text(value);
        self.plain("}");
    }

    /// All fields of a selector, up to the comma before its type.
    fn selector(&mut self, selector: &VectorSelector, range: Option<&DurationExpr>) {
        let anchored = selector.extension == Some(RangeExtension::Anchored);
        let smoothed = selector.extension == Some(RangeExtension::Smoothed);
        self.plain(&format!(r#""anchored":{anchored},"matchers":["#));
        for (i, matcher) in selector.matchers.iter().enumerate() {
            self.plain(if i > 0 { r#",{"name":"# } else { r#"{"name":"# });
            self.text(matcher.name());
            let op = match matcher.op() {
                MatchOp::Equal => "=",
                MatchOp::NotEqual => "!=",
                MatchOp::Regex => "=~",
                MatchOp::NotRegex => "!~",
            };
            self.plain(&format!(r#","type":"{op}","value":"#));
            self.text(matcher.value());
            self.plain("}");
        }
        self.plain(r#"],"name":"#);
        self.text(selector.name.as_deref().unwrap_or(""));
        self.plain(&format!(r#","offset":{},"#, offset_ms(&selector.modifiers)));
        if let Some(range) = range {
            self.plain(&format!(r#""range":{},"#, milliseconds(range)));
        }
        self.plain(&format!(r#""smoothed":{smoothed},"#));
        self.at(&selector.modifiers, None);
    }

    /// `startOrEnd`, `step` if it is one of a subquery, and `timestamp`.
    fn at(&mut self, modifiers: &Modifiers, step_ms: Option<i64>) {
        let (start_or_end, timestamp) = match modifiers.at {
            Some(At::Start) => (r#""start""#, None),
            Some(At::End) => (r#""end""#, None),
            Some(At::Time(t_ms)) => ("null", Some(t_ms)),
            None => ("null", None),
        };
        self.plain(&format!(r#""startOrEnd":{start_or_end},"#));
        if let Some(step_ms) = step_ms {
            self.plain(&format!(r#""step":{step_ms},"#));
        }
        let timestamp = timestamp.map_or_else(|| "null".to_owned(), |t_ms| t_ms.to_string());
        self.plain(&format!(r#""timestamp":{timestamp},"#));
    }

    fn subquery(&mut self, subquery: &'a Subquery) {
        self.plain(r#"{"expr":"#);
        self.below(&subquery.expr);
        let (offset_ms, range_ms) = (offset_ms(&subquery.modifiers), milliseconds(&subquery.range));
        self.plain(&format!(r#","offset":{offset_ms},"range":{range_ms},"#));
        self.at(&subquery.modifiers, Some(subquery.step.as_ref().map_or(0, milliseconds)));
        self.plain(r#""type":"subquery"}"#);
    }

    fn call(&mut self, call: &'a Call) {
        self.plain(r#"{"args":["#);
        for (i, arg) in call.args.iter().enumerate() {
            if i > 0 {
                self.plain(",");
            }
            self.below(arg);
        }
        let types: Vec<&str> = call.function.args.iter().map(|arg: &ValueType| arg.name()).collect();
        let types = if types.is_empty() { String::new() } else { format!("\"{}\"", types.join("\",\"")) };
        self.plain(&format!(
            r#"],"func":{{"argTypes":[{types}],"name":"{}","returnType":"{}","variadic":{}}},"type":"call"}}"#,
            call.function.name,
            call.function.returns.name(),
            call.function.variadic
        ));
    }

    fn binary(&mut self, binary: &'a Binary) {
        self.plain(&format!(r#"{{"bool":{},"lhs":"#, binary.return_bool));
        self.below(&binary.lhs);
        self.plain(r#","matching":"#);
        match &binary.matching {
            Some(matching) => self.matching(matching),
            None => self.plain("null"),
        }
        self.plain(r#","op":"#);
        self.text(binary.op.symbol());
        self.plain(r#","rhs":"#);
        self.below(&binary.rhs);
        self.plain(r#","type":"binaryExpr"}"#);
    }

    fn matching(&mut self, matching: &VectorMatching) {
        let card = match matching.card {
            Cardinality::OneToOne => "one-to-one",
            Cardinality::ManyToOne => "many-to-one",
            Cardinality::OneToMany => "one-to-many",
            Cardinality::ManyToMany => "many-to-many",
        };
        let [lhs, rhs] = [matching.fill_left, matching.fill_right].map(json_number);
        self.plain(&format!(r#"{{"card":"{card}","fillValues":{{"lhs":{lhs},"rhs":{rhs}}},"include":"#));
        self.texts(&matching.include);
        self.plain(r#","labels":"#);
        self.texts(&matching.labels);
        self.plain(&format!(r#","on":{}}}"#, matching.on));
    }
}

/// A number of JSON; `null` where there is none, or none that JSON knows.
fn json_number(value: Option<f64>) -> String {
    value.filter(|value| value.is_finite()).map_or_else(|| "null".to_owned(), |value| value.to_string())
}

fn offset_ms(modifiers: &Modifiers) -> i64 {
    modifiers.offset.as_ref().map_or(0, milliseconds)
}

/// The whole milliseconds of a duration; 0 of one that is worked out when the query is evaluated.
fn milliseconds(duration: &DurationExpr) -> i64 {
    match duration.kind {
        DurationKind::Literal { seconds, .. } => (seconds * 1e9).round() as i64 / 1_000_000,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promql::parse;

    fn json(query: &str) -> String {
        let mut out = Vec::new();
        let text: WriteText = |out, text| out.extend(format!("{text:?}").bytes());
        write_ast(&mut out, &parse(query).unwrap(), text);
        String::from_utf8(out).unwrap()
    }

    const UP: &str = r#"{"anchored":false,"matchers":[{"name":"__name__","type":"=","value":"up"}],"name":"up","offset":0,"smoothed":false,"startOrEnd":null,"timestamp":null,"type":"vectorSelector"}"#;

    #[test]
    fn every_kind_of_node_is_told_as_prometheus_tells_it() {
        for (query, expected) in [
            ("1.5e3", r#"{"type":"numberLiteral","val":"1500"}"#.to_owned()),
            ("-Inf", r#"{"type":"numberLiteral","val":"-Inf"}"#.to_owned()),
            ("1h", r#"{"type":"numberLiteral","val":"3600"}"#.to_owned()),
            ("'a\\nb'", r#"{"type":"stringLiteral","val":"a\nb"}"#.to_owned()),
            ("\"a\\xffb\"", "{\"type\":\"stringLiteral\",\"val\":\"a\u{fffd}b\"}".to_owned()),
            ("up", UP.to_owned()),
            ("(up)", format!(r#"{{"expr":{UP},"type":"parenExpr"}}"#)),
            ("-up", format!(r#"{{"expr":{UP},"op":"-","type":"unaryExpr"}}"#)),
            (
                r#"{a=~"b",c!="d"} offset -90s @ -1.5"#,
                r#"{"anchored":false,"matchers":[{"name":"a","type":"=~","value":"b"},{"name":"c","type":"!=","value":"d"}],"name":"","offset":-90000,"smoothed":false,"startOrEnd":null,"timestamp":-1500,"type":"vectorSelector"}"#.to_owned(),
            ),
            (
                "up[90.0015] anchored @ end()",
                UP.replace(r#""anchored":false"#, r#""anchored":true"#)
                    .replace(r#""offset":0,"#, r#""offset":0,"range":90001,"#)
                    .replace("null", "\"end\"")
                    .replace(r#""timestamp":"end""#, r#""timestamp":null"#)
                    .replace("vectorSelector", "matrixSelector"),
            ),
            // What is worked out later is 0 here, as there; a sign or parentheses are no calculation.
            (
                "up[step()] offset (1m + 1m)",
                UP.replace(r#""offset":0,"#, r#""offset":0,"range":0,"#).replace("vectorSelector", "matrixSelector"),
            ),
            (
                "up[(5m)] offset -(1m)",
                UP.replace(r#""offset":0,"#, r#""offset":-60000,"range":300000,"#)
                    .replace("vectorSelector", "matrixSelector"),
            ),
            (
                "up[5m:1m] @ start()",
                format!(r#"{{"expr":{UP},"offset":0,"range":300000,"startOrEnd":"start","step":60000,"timestamp":null,"type":"subquery"}}"#),
            ),
            (
                "up[5m:]",
                format!(r#"{{"expr":{UP},"offset":0,"range":300000,"startOrEnd":null,"step":0,"timestamp":null,"type":"subquery"}}"#),
            ),
            (
                "abs(up)",
                format!(r#"{{"args":[{UP}],"func":{{"argTypes":["vector"],"name":"abs","returnType":"vector","variadic":0}},"type":"call"}}"#),
            ),
            (
                "time()",
                r#"{"args":[],"func":{"argTypes":[],"name":"time","returnType":"scalar","variadic":0},"type":"call"}"#.to_owned(),
            ),
            (
                "round(up, 5)",
                format!(r#"{{"args":[{UP},{{"type":"numberLiteral","val":"5"}}],"func":{{"argTypes":["vector","scalar"],"name":"round","returnType":"vector","variadic":1}},"type":"call"}}"#),
            ),
            (
                "topk without (a, b) (3, up)",
                format!(r#"{{"expr":{UP},"grouping":["a","b"],"op":"topk","param":{{"type":"numberLiteral","val":"3"}},"type":"aggregation","without":true}}"#),
            ),
            (
                "sum(up)",
                format!(r#"{{"expr":{UP},"grouping":[],"op":"sum","param":null,"type":"aggregation","without":false}}"#),
            ),
            (
                "up > bool 1",
                format!(r#"{{"bool":true,"lhs":{UP},"matching":null,"op":">","rhs":{{"type":"numberLiteral","val":"1"}},"type":"binaryExpr"}}"#),
            ),
            (
                "up / on (a) group_left (b) fill_right (0) up",
                format!(r#"{{"bool":false,"lhs":{UP},"matching":{{"card":"many-to-one","fillValues":{{"lhs":null,"rhs":0}},"include":["b"],"labels":["a"],"on":true}},"op":"/","rhs":{UP},"type":"binaryExpr"}}"#),
            ),
            (
                "up unless up",
                format!(r#"{{"bool":false,"lhs":{UP},"matching":{{"card":"many-to-many","fillValues":{{"lhs":null,"rhs":null}},"include":[],"labels":[],"on":false}},"op":"unless","rhs":{UP},"type":"binaryExpr"}}"#),
            ),
        ] {
            assert_eq!(json(query), expected, "{query}");
        }
    }

    #[test]
    fn the_deepest_query_is_told_on_a_small_stack() {
        let query = format!("{}up{}", "-(".repeat(490), ")".repeat(490));
        let thread = std::thread::Builder::new().stack_size(256 << 10);
        let told = thread.spawn(move || json(&query)).unwrap().join().unwrap();
        assert_eq!(told.matches("unaryExpr").count(), 490);
    }
}
