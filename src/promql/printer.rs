//! Prints expressions as canonical text, the way Prometheus does (`promql/parser/printer.go`).
//!
//! What is printed parses to the same expression again. Like the parser, the printer keeps what is
//! still to be written on a stack of its own instead of recursing.

use super::ast::{
    At, Binary, Cardinality, DurationExpr, DurationKind, DurationOp, Expr, ExprKind, Modifiers,
    RangeExtension, UnaryOp, VectorMatching, VectorSelector,
};
use super::duration::{MAX_MS, format_duration};
use super::number::{Form, write_float};
use crate::storage::matcher::MatchOp;
use larum_storage_format::labels::{METRIC_NAME, is_legacy_name, write_quoted};
use std::fmt::{self, Write};

/// Something that is still to be written.
enum Rest<'a> {
    Expr(&'a Expr),
    Text(&'static str),
    /// ` + on (a) `
    Operator(&'a Binary),
    /// `[5m:1m] @ 1.000 offset 1m`
    SubqueryEnd(&'a super::ast::Subquery),
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut stack = vec![Rest::Expr(self)];
        while let Some(rest) = stack.pop() {
            match rest {
                Rest::Text(text) => f.write_str(text)?,
                Rest::Operator(binary) => write_operator(f, binary)?,
                Rest::SubqueryEnd(subquery) => {
                    f.write_str("[")?;
                    write_outer_duration(f, &subquery.range)?;
                    f.write_str(":")?;
                    if let Some(step) = &subquery.step {
                        write_outer_duration(f, step)?;
                    }
                    f.write_str("]")?;
                    write_at(f, &subquery.modifiers)?;
                    write_offset(f, &subquery.modifiers)?;
                }
                Rest::Expr(expr) => write_expr(f, expr, &mut stack)?,
            }
        }
        Ok(())
    }
}

/// Writes the beginning of `expr` and puts the rest on the stack, the last part first.
fn write_expr<'a>(f: &mut fmt::Formatter<'_>, expr: &'a Expr, stack: &mut Vec<Rest<'a>>) -> fmt::Result {
    match &expr.kind {
        ExprKind::Number { value, units: true } => write_seconds(f, *value),
        ExprKind::Number { value, units: false } => write_float(f, *value, Form::Fixed, None),
        ExprKind::String(text) => write_quoted(f, text),
        ExprKind::NotUtf8 { quoted, .. } => f.write_str(quoted),
        ExprKind::VectorSelector(selector) => {
            write_selector(f, selector)?;
            write_at(f, &selector.modifiers)?;
            write_extension(f, selector.extension)?;
            write_offset(f, &selector.modifiers)
        }
        ExprKind::MatrixSelector(matrix) => {
            write_selector(f, &matrix.selector)?;
            f.write_str("[")?;
            write_outer_duration(f, &matrix.range)?;
            f.write_str("]")?;
            write_extension(f, matrix.selector.extension)?;
            write_at(f, &matrix.selector.modifiers)?;
            write_offset(f, &matrix.selector.modifiers)
        }
        ExprKind::Subquery(subquery) => {
            stack.push(Rest::SubqueryEnd(subquery));
            stack.push(Rest::Expr(&subquery.expr));
            Ok(())
        }
        ExprKind::Call(call) => {
            write!(f, "{}(", call.function.name)?;
            stack.push(Rest::Text(")"));
            for (i, arg) in call.args.iter().enumerate().rev() {
                stack.push(Rest::Expr(arg));
                if i > 0 {
                    stack.push(Rest::Text(", "));
                }
            }
            Ok(())
        }
        ExprKind::Aggregate(aggregate) => {
            f.write_str(aggregate.op.name())?;
            if aggregate.without || !aggregate.grouping.is_empty() {
                f.write_str(if aggregate.without { " without (" } else { " by (" })?;
                write_labels(f, &aggregate.grouping)?;
                f.write_str(") ")?;
            }
            f.write_str("(")?;
            stack.push(Rest::Text(")"));
            stack.push(Rest::Expr(&aggregate.expr));
            if let Some(param) = &aggregate.param {
                stack.push(Rest::Text(", "));
                stack.push(Rest::Expr(param));
            }
            Ok(())
        }
        ExprKind::Unary(op, inner) => {
            stack.push(Rest::Expr(inner));
            f.write_str(sign(*op))
        }
        ExprKind::Binary(binary) => {
            stack.push(Rest::Expr(&binary.rhs));
            stack.push(Rest::Operator(binary));
            stack.push(Rest::Expr(&binary.lhs));
            Ok(())
        }
        ExprKind::Paren(inner) => {
            stack.push(Rest::Text(")"));
            stack.push(Rest::Expr(inner));
            f.write_str("(")
        }
    }
}

fn sign(op: UnaryOp) -> &'static str {
    match op {
        UnaryOp::Plus => "+",
        UnaryOp::Minus => "-",
    }
}

fn write_operator(f: &mut fmt::Formatter<'_>, binary: &Binary) -> fmt::Result {
    write!(f, " {}", binary.op.symbol())?;
    if binary.return_bool {
        f.write_str(" bool")?;
    }
    if let Some(matching) = &binary.matching {
        write_matching(f, matching)?;
    }
    f.write_str(" ")
}

fn write_matching(f: &mut fmt::Formatter<'_>, matching: &VectorMatching) -> fmt::Result {
    let group = match matching.card {
        Cardinality::ManyToOne => Some("left"),
        Cardinality::OneToMany => Some("right"),
        Cardinality::OneToOne | Cardinality::ManyToMany => None,
    };
    if !matching.labels.is_empty() || matching.on || group.is_some() {
        f.write_str(if matching.on { " on (" } else { " ignoring (" })?;
        write_labels(f, &matching.labels)?;
        f.write_str(")")?;
    }
    if let Some(side) = group {
        write!(f, " group_{side} (")?;
        write_labels(f, &matching.include)?;
        f.write_str(")")?;
    }
    let mut fill = |name, value: f64| {
        write!(f, " {name} (")?;
        write_float(f, value, Form::General, None)?;
        f.write_str(")")
    };
    match (matching.fill_left, matching.fill_right) {
        (Some(left), Some(right)) if left.to_bits() == right.to_bits() => fill("fill", left),
        (left, right) => {
            left.map_or(Ok(()), |value| fill("fill_left", value))?;
            right.map_or(Ok(()), |value| fill("fill_right", value))
        }
    }
}

fn write_labels(f: &mut fmt::Formatter<'_>, labels: &[String]) -> fmt::Result {
    for (i, label) in labels.iter().enumerate() {
        if i > 0 {
            f.write_str(", ")?;
        }
        if is_legacy_name(label) {
            f.write_str(label)?;
        } else {
            write_quoted(f, label)?;
        }
    }
    Ok(())
}

/// The name and the matchers, those sorted.
fn write_selector(f: &mut fmt::Formatter<'_>, selector: &VectorSelector) -> fmt::Result {
    let name = selector.name.as_deref();
    let mut texts: Vec<String> = selector
        .matchers
        .iter()
        .filter(|matcher| {
            let is_name = matcher.name() == METRIC_NAME && matcher.op() == MatchOp::Equal;
            !(is_name && Some(matcher.value()) == name)
        })
        .map(ToString::to_string)
        .collect();
    texts.sort_unstable();
    f.write_str(name.unwrap_or(""))?;
    if !texts.is_empty() || name.is_none() {
        write!(f, "{{{}}}", texts.join(","))?;
    }
    Ok(())
}

fn write_extension(f: &mut fmt::Formatter<'_>, extension: Option<RangeExtension>) -> fmt::Result {
    f.write_str(match extension {
        Some(RangeExtension::Anchored) => " anchored",
        Some(RangeExtension::Smoothed) => " smoothed",
        None => "",
    })
}

fn write_at(f: &mut fmt::Formatter<'_>, modifiers: &Modifiers) -> fmt::Result {
    match modifiers.at {
        Some(At::Time(ms)) => {
            let sign = if ms < 0 { "-" } else { "" };
            write!(f, " @ {sign}{}.{:03}", ms.unsigned_abs() / 1000, ms.unsigned_abs() % 1000)
        }
        Some(At::Start) => f.write_str(" @ start()"),
        Some(At::End) => f.write_str(" @ end()"),
        None => Ok(()),
    }
}

fn write_offset(f: &mut fmt::Formatter<'_>, modifiers: &Modifiers) -> fmt::Result {
    let Some(offset) = &modifiers.offset else { return Ok(()) };
    f.write_str(" offset ")?;
    write_outer_duration(f, offset)
}

/// A duration that is no part of another. A mere number is printed with units.
fn write_outer_duration(f: &mut fmt::Formatter<'_>, duration: &DurationExpr) -> fmt::Result {
    match duration.kind {
        DurationKind::Literal { seconds, .. } => write_seconds(f, seconds),
        _ => write!(f, "{duration}"),
    }
}

/// Seconds with units; without, if they are no whole milliseconds.
fn write_seconds(f: &mut fmt::Formatter<'_>, seconds: f64) -> fmt::Result {
    let ms = (seconds * 1000.0).round();
    if ms / 1000.0 == seconds && ms.abs() <= MAX_MS as f64 {
        f.write_str(&format_duration(ms as i64))
    } else {
        write_float(f, seconds, Form::Fixed, None)
    }
}

/// A calculation; the parser bounds how deeply it is nested.
impl fmt::Display for DurationExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            DurationKind::Literal { seconds, units: true } => write_seconds(f, *seconds),
            DurationKind::Literal { seconds, units: false } => write_float(f, *seconds, Form::Fixed, None),
            DurationKind::Step => f.write_str("step()"),
            DurationKind::Range => f.write_str("range()"),
            DurationKind::Unary(op, inner) => write!(f, "{}{inner}", sign(*op)),
            DurationKind::Binary(op, lhs, rhs) => write!(f, "{lhs} {} {rhs}", duration_symbol(*op)),
            DurationKind::Min(a, b) => write!(f, "min_of({a}, {b})"),
            DurationKind::Max(a, b) => write!(f, "max_of({a}, {b})"),
            DurationKind::Paren(inner) => {
                f.write_char('(')?;
                write!(f, "{inner}")?;
                f.write_char(')')
            }
        }
    }
}

fn duration_symbol(op: DurationOp) -> char {
    match op {
        DurationOp::Add => '+',
        DurationOp::Sub => '-',
        DurationOp::Mul => '*',
        DurationOp::Div => '/',
        DurationOp::Mod => '%',
        DurationOp::Pow => '^',
    }
}

#[cfg(test)]
mod tests {
    use crate::promql::parse;
    use proptest::prelude::*;

    #[test]
    fn text_is_as_prometheus_prints_it() {
        for (query, printed) in [
            ("sum by() (task:errors:rate10s{job=\"s\"})", "sum(task:errors:rate10s{job=\"s\"})"),
            ("sum(up)without(a,\"b c\")", "sum without (a, \"b c\") (up)"),
            ("topk(5,up)", "topk(5, up)"),
            ("a+on()b", "a + on () b"),
            ("a - ignoring(c) group_left b", "a - ignoring (c) group_left () b"),
            ("a - on(c) group_right(d,e) b", "a - on (c) group_right (d, e) b"),
            ("a > bool 1", "a > bool 1"),
            ("a + fill(-1.5) b", "a + fill (-1.5) b"),
            ("a + fill_right(2) fill_left(1) b", "a + fill_left (1) fill_right (2) b"),
            ("{b='x',a=~'y'}", "{a=~\"y\",b=\"x\"}"),
            ("{'a.b'}", "{__name__=\"a.b\"}"),
            ("up{}", "up"),
            ("up offset 5m @ 1.5", "up @ 1.500 offset 5m"),
            ("up[5m]@end()offset -90s", "up[5m] @ end() offset -1m30s"),
            ("up[300] anchored", "up[5m] anchored"),
            ("up smoothed @ -0.25", "up @ -0.250 smoothed"),
            ("rate(up[1h])[1d:]offset 1w", "rate(up[1h])[1d:] offset 1w"),
            ("up[step()+2*(1m-30)] offset -step()", "up[step() + 2 * (1m - 30)] offset -step()"),
            ("up[min_of(1m,range())]", "up[min_of(1m, range())]"),
            ("up[(5m)] offset -(300)", "up[5m] offset -5m"),
            ("-(a)^-1", "-(a) ^ -1"),
            ("0x1F + 1e-7 + 1h30m + Inf", "31 + 0.0000001 + 1h30m + +Inf"),
            (r"label_replace(up, 'a', `\d`, '', '')", r#"label_replace(up, "a", "\\d", "", "")"#),
            ("# comment\n a </ 2 # end", "a </ 2"),
            ("info(up, {})", "info(up, {})"),
        ] {
            assert_eq!(parse(query).unwrap().to_string(), printed, "{query}");
        }
    }

    /// Queries of random shape. They need not make sense, only mostly parse.
    fn query() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("up".to_owned()),
            Just("{job=~\"a|b\", \"x y\"!='\\n'}".to_owned()),
            Just("sum".to_owned()),
            Just("offset{bool='x'}".to_owned()),
            any::<u32>().prop_map(|n| n.to_string()),
            any::<f64>().prop_map(|n| format!("{n:e}")),
            (1..100_000_000_i64).prop_map(crate::promql::duration::format_duration),
            Just("\"text\\t\"".to_owned()),
            Just("up[5m:step()] offset (1+2)".to_owned()),
            Just("up[5m] @ 7 offset 3".to_owned()),
            Just("time()".to_owned()),
        ];
        leaf.prop_recursive(5, 40, 3, |inner| {
            let op = prop::sample::select(vec![
                "+",
                "-",
                "*",
                "/",
                "%",
                "^",
                "atan2",
                "==",
                "!= bool",
                ">",
                "<=",
                "and",
                "or",
                "unless",
                "</",
                "+ on(a) group_left(b)",
                "/ ignoring(c)",
                "- fill(0)",
                "or on()",
            ]);
            let call = prop::sample::select(vec![
                "abs",
                "sum by (a)",
                "max without (b)",
                "count",
                "rate",
                "scalar",
                "vector",
                "-",
                "+",
                "",
            ]);
            let suffix = prop::sample::select(vec!["[5m:1m]", " offset -1h", " @ start()", "[1h:]", "[10m]"]);
            prop_oneof![
                (inner.clone(), op, inner.clone()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
                (call, inner.clone()).prop_map(|(f, a)| format!("{f}({a})")),
                (inner.clone(), suffix).prop_map(|(a, s)| format!("{a}{s}")),
                inner.prop_map(|a| format!("-{a}")),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn printed_text_parses_to_the_same_text(query in query()) {
            if let Ok(expr) = parse(&query) {
                let printed = expr.to_string();
                let again = parse(&printed).map_err(|e| TestCaseError::fail(format!("{query} -> {printed}: {e}")))?;
                prop_assert_eq!(again.to_string(), printed);
            }
        }
    }
}
