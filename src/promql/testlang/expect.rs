//! What a script expects of a query.

use super::{ScriptError, parse_time};
use crate::promql::number::parse_go_float;
use crate::promql::parse::series::{SequenceValue, parse_series};
use crate::promql::{ast::ExprKind, parse};
use crate::storage::regex::Rewriter;
use larum_storage_format::Labels;

/// Everything that is expected of one query.
#[derive(Debug, Default)]
pub(super) struct Expectations {
    pub fail: Option<Pattern>,
    pub warn: Vec<Pattern>,
    pub info: Vec<Pattern>,
    pub no_warn: bool,
    pub no_info: bool,
    pub ordered: bool,
    /// `expect string`
    pub string: Option<String>,
    /// `expect range vector`: the times of the values.
    pub range_vector: Option<RangeVector>,
    /// A lone number.
    pub scalar: Option<f64>,
    pub series: Vec<ExpectedSeries>,
}

#[derive(Debug)]
pub(super) struct RangeVector {
    pub start_ms: i64,
    pub step_ms: i64,
}

#[derive(Debug)]
pub(super) struct ExpectedSeries {
    pub line: usize,
    pub labels: Labels,
    pub values: Vec<SequenceValue>,
}

/// What a message has to be like.
#[derive(Debug, Clone)]
pub(super) enum Pattern {
    Any,
    Text(String),
    Regex(Rewriter),
}

impl Pattern {
    pub fn matches(&self, message: &str) -> bool {
        match self {
            Pattern::Any => true,
            Pattern::Text(text) => message == text,
            Pattern::Regex(regex) => regex.is_match(message),
        }
    }

    fn regex(text: &str) -> Result<Pattern, String> {
        Rewriter::unanchored(text).map(Pattern::Regex).map_err(|error| error.to_string())
    }

    /// ` msg:TEXT`, ` regex:TEXT` or nothing.
    fn parse(text: &str) -> Result<Pattern, String> {
        match text.trim().split_once(':') {
            Some(("msg", text)) => Ok(Pattern::Text(text.trim().to_owned())),
            Some(("regex", text)) => Pattern::regex(text.trim()),
            None if text.trim().is_empty() => Ok(Pattern::Any),
            _ => Err(format!("expected msg: or regex:, found {text:?}")),
        }
    }
}

impl Expectations {
    /// From the end of the command (`eval_fail`) and the lines after it.
    pub fn parse(suffix: Option<&str>, block: &[(usize, &str)]) -> Result<Expectations, ScriptError> {
        let mut expected = Expectations::default();
        match suffix {
            None => {}
            Some("fail") => expected.fail = Some(Pattern::Any),
            Some("warn") => expected.warn.push(Pattern::Any),
            Some("info") => expected.info.push(Pattern::Any),
            Some("ordered") => expected.ordered = true,
            Some(other) => {
                let line = block.first().map_or(0, |(line, _)| line.saturating_sub(1));
                return Err(ScriptError::new(line, format!("unknown command eval_{other}")));
            }
        }
        for &(line, text) in block {
            expected.line(line, text).map_err(|message| ScriptError::new(line, message))?;
        }
        Ok(expected)
    }

    fn line(&mut self, line: usize, text: &str) -> Result<(), String> {
        if let Some(rest) = text.strip_prefix("expected_fail_message ") {
            self.fail = Some(Pattern::Text(rest.trim().to_owned()));
        } else if let Some(rest) = text.strip_prefix("expected_fail_regexp ") {
            self.fail = Some(Pattern::regex(rest.trim())?);
        } else if let Some(rest) = text.strip_prefix("expect ") {
            self.expect(rest.trim())?;
        } else if let Some(number) = lone_number(text) {
            self.scalar = Some(number);
        } else {
            let described = parse_series(text).map_err(|error| error.to_string())?;
            self.series.push(ExpectedSeries { line, labels: described.labels, values: described.values });
        }
        Ok(())
    }

    fn expect(&mut self, text: &str) -> Result<(), String> {
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        match word {
            "fail" => self.fail = Some(Pattern::parse(rest)?),
            "warn" => self.warn.push(Pattern::parse(rest)?),
            "info" => self.info.push(Pattern::parse(rest)?),
            "no_warn" => self.no_warn = true,
            "no_info" => self.no_info = true,
            "ordered" => self.ordered = true,
            "string" => match parse(rest.trim()).map(|expr| expr.kind) {
                Ok(ExprKind::String(text)) => self.string = Some(text),
                _ => return Err(format!("expected a quoted text, found {rest:?}")),
            },
            "range" => {
                let words: Vec<&str> = rest.split_whitespace().collect();
                let ["vector", "from", start, "to", _, "step", step] = words.as_slice() else {
                    return Err("expected: expect range vector from TIME to TIME step DURATION".to_owned());
                };
                let (start_ms, step_ms) = (parse_time(start)?, parse_time(step)?);
                self.range_vector = Some(RangeVector { start_ms, step_ms });
            }
            _ => return Err(format!("unknown expectation {word:?}")),
        }
        Ok(())
    }
}

/// A number in Go's syntax that is all there is on the line.
fn lone_number(text: &str) -> Option<f64> {
    let unsigned = text.trim_start_matches(['+', '-']);
    let value = match parse(unsigned).map(|expr| expr.kind) {
        Ok(ExprKind::Number { value, units: false }) => value,
        _ => parse_go_float(unsigned).ok()?,
    };
    Some(if text.starts_with('-') { -value } else { value })
}
