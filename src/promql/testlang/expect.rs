//! What a script expects of a query.

use super::{ScriptError, parse_time};
use crate::promql::number::{parse_go_float, parse_go_integer};
use crate::promql::parse::series::{SequenceValue, SeriesDescription, parse_series};
use crate::promql::{ast::ExprKind, parse};
use crate::storage::regex::Rewriter;
use larum_storage_format::Labels;
use std::fmt;

/// What the word after `eval_` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Plain,
    Fail,
    Warn,
    Info,
    Ordered,
}

/// Everything that is expected of one query.
#[derive(Debug, Default)]
pub(super) struct Expectations {
    pub fail: Option<Pattern>,
    pub warnings: Notes,
    pub infos: Notes,
    pub ordered: bool,
    /// `expect string`
    pub string: Option<String>,
    /// `expect range vector`: the times of the values.
    pub range_vector: Option<RangeVector>,
    /// A lone number.
    pub scalar: Option<f64>,
    pub series: Vec<ExpectedSeries>,
}

/// What is expected of the annotations of one kind.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// There is at least one.
    pub some: bool,
    /// There is none.
    pub none: bool,
    /// Each is like one of these, and each of these is like one of them.
    pub like: Vec<Pattern>,
}

impl Notes {
    fn add(&mut self, kind: &str, pattern: Option<Pattern>) -> Result<(), String> {
        match pattern {
            Some(pattern) => self.like.push(pattern),
            None => self.none = true,
        }
        if self.none && !self.like.is_empty() {
            return Err(format!("{kind} and no_{kind} cannot both be expected"));
        }
        Ok(())
    }
}

#[derive(Debug)]
pub(super) struct RangeVector {
    pub start_ms: i64,
    pub end_ms: i64,
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
    Regex { pattern: String, regex: Rewriter },
}

impl Pattern {
    pub fn matches(&self, message: &str) -> bool {
        match self {
            Pattern::Any => true,
            Pattern::Text(text) => message == text,
            Pattern::Regex { regex, .. } => regex.is_match(message),
        }
    }

    fn regex(pattern: &str) -> Result<Pattern, String> {
        let regex = Rewriter::unanchored(pattern).map_err(|error| error.to_string())?;
        Ok(Pattern::Regex { pattern: pattern.to_owned(), regex })
    }

    /// `msg:TEXT`, `regex:TEXT` or nothing.
    fn parse(text: &str) -> Result<Pattern, String> {
        match text.split_once(':') {
            _ if text.is_empty() => Ok(Pattern::Any),
            Some(("msg", text)) if !text.is_empty() => Ok(Pattern::Text(text.trim().to_owned())),
            Some(("regex", text)) if !text.is_empty() => Pattern::regex(text.trim()),
            _ => Err(format!("expected msg:TEXT or regex:PATTERN, found {text:?}")),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Any => f.write_str("of any text"),
            Pattern::Text(text) => write!(f, "{text:?}"),
            Pattern::Regex { pattern, .. } => write!(f, "like {pattern:?}"),
        }
    }
}

impl Expectations {
    /// From the lines after the command; says how many of them it used. What follows a lone number, or
    /// what a failure is to say, is the next command.
    pub fn parse(
        form: Form,
        instant: bool,
        block: &[(usize, &str)],
    ) -> Result<(Expectations, usize), ScriptError> {
        let mut expected = Expectations { ordered: form == Form::Ordered, ..Expectations::default() };
        expected.warnings.some = form == Form::Warn;
        expected.infos.some = form == Form::Info;
        if form == Form::Fail {
            expected.fail = Some(Pattern::Any);
        }
        let mut used = 0;
        for &(line, text) in block {
            used += 1;
            let last = expected.line(form, line, text).map_err(|message| ScriptError::new(line, message))?;
            if last {
                break;
            }
        }
        let several = expected.series.iter().find(|series| series.values.len() != 1);
        if let (true, None, Some(series)) = (instant, &expected.range_vector, several) {
            let message = "an instant vector has one value for each series; for several, \
                           expect range vector from TIME to TIME step DURATION";
            return Err(ScriptError::new(series.line, message));
        }
        Ok((expected, used))
    }

    /// Takes one line; says whether it is the last.
    fn line(&mut self, form: Form, line: usize, text: &str) -> Result<bool, String> {
        if form == Form::Fail
            && let Some(message) = text.strip_prefix("expected_fail_message")
        {
            self.fail = Some(Pattern::Text(message.trim().to_owned()));
            return Ok(true);
        }
        if form == Form::Fail
            && let Some(pattern) = text.strip_prefix("expected_fail_regexp")
        {
            self.fail = Some(Pattern::regex(pattern.trim())?);
            return Ok(true);
        }
        if let Some(rest) = text.strip_prefix("expect").filter(|rest| rest.starts_with(char::is_whitespace)) {
            self.expect(form, rest.trim())?;
            return Ok(false);
        }
        if let Some(number) = lone_number(text) {
            self.scalar = Some(number);
            return Ok(true);
        }
        let SeriesDescription { labels, values } = parse_series(text).map_err(|error| error.to_string())?;
        self.series.retain(|earlier| earlier.labels != labels);
        self.series.push(ExpectedSeries { line, labels, values });
        Ok(false)
    }

    fn expect(&mut self, form: Form, text: &str) -> Result<(), String> {
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let rest = rest.trim_start();
        match word {
            "fail" if self.fail.is_some() && form != Form::Fail => {
                return Err("a failure can be expected only once".to_owned());
            }
            "fail" => self.fail = Some(Pattern::parse(rest)?),
            "warn" => self.warnings.add("warn", Some(Pattern::parse(rest)?))?,
            "info" => self.infos.add("info", Some(Pattern::parse(rest)?))?,
            "no_warn" if rest.is_empty() => self.warnings.add("warn", None)?,
            "no_info" if rest.is_empty() => self.infos.add("info", None)?,
            "ordered" if rest.is_empty() => self.ordered = true,
            "no_warn" | "no_info" | "ordered" => return Err(format!("unexpected {rest:?} after {word}")),
            "string" => match parse(rest).map(|expr| expr.kind) {
                Ok(ExprKind::String(text)) => self.string = Some(text),
                _ => return Err(format!("expected a quoted text, found {rest:?}")),
            },
            "range" => {
                let words: Vec<&str> = rest.split_whitespace().collect();
                let ["vector", "from", start, "to", end, "step", step] = words.as_slice() else {
                    return Err("expected: expect range vector from TIME to TIME step DURATION".to_owned());
                };
                let (start_ms, end_ms, step_ms) = (parse_time(start)?, parse_time(end)?, parse_time(step)?);
                if end_ms < start_ms {
                    return Err(format!("the end {end} lies before the start {start}"));
                }
                self.range_vector = Some(RangeVector { start_ms, end_ms, step_ms });
            }
            _ => return Err(format!("unknown expectation {word:?}")),
        }
        Ok(())
    }
}

/// A number in Go's syntax that is all there is on the line.
fn lone_number(text: &str) -> Option<f64> {
    let (sign, unsigned) = match text.as_bytes() {
        [b'-', ..] => (-1.0, &text[1..]),
        [b'+', ..] => (1.0, &text[1..]),
        _ => (1.0, text),
    };
    if unsigned.starts_with(['-', '+']) {
        return None;
    }
    let value = match parse_go_integer(unsigned) {
        Some(integer) => integer as f64,
        None => parse_go_float(unsigned).ok()?,
    };
    Some(sign * value)
}
