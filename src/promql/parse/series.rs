//! Series descriptions, `m{a="b"} 1+2x5 _x3 stale {{schema:1}}`: a metric and its values, as test
//! scripts and rule unit tests write them.

use super::{ParseError, Result, parse_metric};
use crate::promql::ast::Pos;
use crate::promql::histogram::{self, Combined, Incompatible};
use crate::promql::histogram_text::HistogramText;
use crate::promql::lexer::{Lexer, TokenKind};
use crate::promql::number::parse_go_float;
use larum_storage_format::sample::STALE_NAN;
use larum_storage_format::{Histogram, Labels};
use std::sync::Arc;

/// How the next histogram of a sequence is made of the last one.
type Combine = fn(&Histogram, &Histogram) -> std::result::Result<Combined, Incompatible>;

/// The most values one description may stand for.
pub const MAX_VALUES: usize = 1_000_000;

/// A metric and its values.
#[derive(Debug, Clone)]
pub struct SeriesDescription {
    /// The labels, `__name__` included.
    pub labels: Labels,
    /// The values, one per step.
    pub values: Vec<SequenceValue>,
}

/// One value of a description.
#[derive(Debug, Clone)]
pub enum SequenceValue {
    /// `_`: there is no sample.
    Omitted,
    /// A float; `stale` is the stale marker.
    Float(f64),
    /// `{{...}}`
    Histogram {
        /// The histogram.
        value: Arc<Histogram>,
        /// Whether a counter reset hint was written.
        hint_given: bool,
    },
}

/// Parses a metric and the values after it.
pub fn parse_series(text: &str) -> Result<SeriesDescription> {
    let metric_end = metric_end(text)?;
    let (metric, values) = text.split_at(metric_end);
    let labels = parse_metric(metric)?;
    Ok(SeriesDescription { labels, values: Values { text, at: text.len() - values.len() }.all()? })
}

/// Where the metric at the beginning of `text` ends. Braces count as part of it only if nothing
/// stands between the name and them, so that `m {{}}` is a metric and a histogram.
pub(crate) fn metric_end(text: &str) -> Result<usize> {
    let name = text.bytes().take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':')).count();
    if text.as_bytes().get(name) != Some(&b'{') {
        return Ok(name);
    }
    let mut lexer = Lexer::new(text);
    loop {
        let token = lexer.next_token()?;
        if matches!(token.kind, TokenKind::RightBrace | TokenKind::Eof) {
            return Ok(token.pos.end as usize);
        }
    }
}

/// Reads the values of a description.
struct Values<'a> {
    text: &'a str,
    at: usize,
}

impl Values<'_> {
    fn all(mut self) -> Result<Vec<SequenceValue>> {
        let mut values = Vec::new();
        loop {
            let blanks = self.skip_blanks();
            if self.at >= self.text.len() {
                return Ok(values);
            }
            if blanks == 0 {
                return Err(self.error("unexpected text in series values, expected a blank"));
            }
            self.item(&mut values)?;
        }
    }

    fn item(&mut self, values: &mut Vec<SequenceValue>) -> Result<()> {
        if self.accept("{{") {
            return self.histograms(values);
        }
        if self.accept("_") {
            let times = if self.accept("x") { self.times(values, 0)? } else { 1 };
            values.extend(std::iter::repeat_n(SequenceValue::Omitted, times));
            return Ok(());
        }
        if self.accept("stale") {
            values.push(SequenceValue::Float(STALE_NAN));
            return Ok(());
        }
        let mut value = self.number()?;
        let step = match self.peek() {
            Some('+' | '-') => Some(self.number()?),
            _ => None,
        };
        if !self.accept("x") {
            if step.is_some() {
                return Err(self.error("unexpected text in series values, expected \"x\""));
            }
            values.push(SequenceValue::Float(value));
            return Ok(());
        }
        for _ in 0..self.times(values, 1)? {
            values.push(SequenceValue::Float(value));
            value += step.unwrap_or(0.0);
        }
        Ok(())
    }

    /// What stands after `{{`.
    fn histograms(&mut self, values: &mut Vec<SequenceValue>) -> Result<()> {
        let first = self.histogram()?;
        let combine = match self.peek() {
            Some('+') => Some(histogram::add as Combine),
            Some('-') => Some(histogram::sub as Combine),
            _ => None,
        };
        let Some(combine) = combine else {
            let times = if self.accept("x") { self.times(values, 1)? } else { 1 };
            let value = Arc::new(first.histogram);
            let hint_given = first.hint_given;
            values.extend((0..times).map(|_| SequenceValue::Histogram { value: value.clone(), hint_given }));
            return Ok(());
        };
        self.at += 1;
        if !self.accept("{{") {
            return Err(self.error("unexpected text in series values, expected \"{{\""));
        }
        let step = self.histogram()?;
        if !self.accept("x") {
            return Err(self.error("unexpected text in series values, expected \"x\""));
        }
        let mut value = first.histogram;
        let times = self.times(values, 1)?;
        for i in 0..times {
            values.push(SequenceValue::Histogram {
                value: Arc::new(value.clone()),
                hint_given: step.hint_given,
            });
            if i + 1 < times {
                let incompatible = || {
                    let (from, to) = (step.histogram.schema, value.schema);
                    self.error(format!("error combining histograms: cannot merge from schema {from} to {to}"))
                };
                if value.schema > step.histogram.schema {
                    return Err(incompatible());
                }
                let combined = combine(&value, &step.histogram).map_err(|_| incompatible())?;
                value = combined.histogram;
            }
        }
        Ok(())
    }

    /// The histogram after `{{`, up to and with `}}`.
    fn histogram(&mut self) -> Result<HistogramText> {
        let rest = &self.text[self.at..];
        let Some(len) = rest.find("}}") else {
            return Err(self.error("histogram description incomplete, expected \"}}\""));
        };
        let parsed = HistogramText::parse(&rest[..len]).map_err(|(at, message)| {
            let pos = Pos { start: (self.at + at) as u32, end: (self.at + len) as u32 };
            ParseError::new(self.text, pos, message)
        })?;
        self.at += len + 2;
        Ok(parsed)
    }

    /// The number after `x`, and `extra` more.
    fn times(&mut self, values: &[SequenceValue], extra: usize) -> Result<usize> {
        let digits = self.text[self.at..].bytes().take_while(u8::is_ascii_digit).count();
        let text = &self.text[self.at..self.at + digits];
        let times = text.parse::<usize>().ok().and_then(|n| n.checked_add(extra));
        match times {
            Some(times) if times.saturating_add(values.len()) <= MAX_VALUES => {
                self.at += digits;
                Ok(times)
            }
            Some(_) => Err(self.error(format!("more than {MAX_VALUES} values"))),
            None => Err(self.error(format!("invalid repetition in series values: {text:?}"))),
        }
    }

    /// A number with or without a sign. Hexadecimal ones do not exist here, as the `x` means "times".
    fn number(&mut self) -> Result<f64> {
        let rest = &self.text.as_bytes()[self.at..];
        let sign = usize::from(matches!(rest.first(), Some(b'+' | b'-')));
        let word = rest[sign..]
            .get(..3)
            .is_some_and(|w| w.eq_ignore_ascii_case(b"inf") || w.eq_ignore_ascii_case(b"nan"));
        let len = if word {
            sign + 3
        } else {
            let mut len = sign;
            while let Some(&b) = rest.get(len) {
                let exponent_sign =
                    matches!(b, b'+' | b'-') && matches!(rest[len - 1], b'e' | b'E') && len > sign;
                if !(b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'_') || exponent_sign) {
                    break;
                }
                len += 1;
            }
            len
        };
        let text = &self.text[self.at..self.at + len];
        let unsigned = text.trim_start_matches(['+', '-']);
        let value = parse_go_float(unsigned).map_err(|_| {
            let word: String =
                self.text[self.at..].chars().take_while(|c| !c.is_whitespace()).take(20).collect();
            self.error(format!("unexpected {word:?} in series values, expected number or \"stale\""))
        })?;
        self.at += len;
        Ok(if text.starts_with('-') { -value } else { value })
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn accept(&mut self, wanted: &str) -> bool {
        let found = self.text[self.at..].starts_with(wanted);
        if found {
            self.at += wanted.len();
        }
        found
    }

    fn skip_blanks(&mut self) -> usize {
        let rest = &self.text[self.at..];
        let blanks = rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
        self.at += blanks;
        blanks
    }

    fn error(&self, message: impl Into<String>) -> ParseError {
        let pos = Pos { start: self.at as u32, end: self.text.len() as u32 };
        ParseError::new(self.text, pos, message)
    }
}
