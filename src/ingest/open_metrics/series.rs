//! The series of a line: `name{label="value", ...}`, or `{"a name", "a label"="value"}` where a name is
//! no identifier.

use larum_storage_format::labels::METRIC_NAME;
use larum_storage_format::{Labels, LabelsError};
use std::borrow::Cow;

/// What is wrong with a line, and at which byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The byte, from 0.
    pub at: usize,
    /// What is wrong.
    pub what: String,
}

/// Parses the series of a line as a label set.
///
/// # Errors
/// What [`Labels::from_pairs`] finds wrong, or text that the decoder never passed on.
pub fn parse_labels(raw: &[u8]) -> Result<Labels, LabelsError> {
    let text = std::str::from_utf8(raw).map_err(|e| LabelsError::NotCanonical(e.valid_up_to()))?;
    let mut pairs: Vec<(Cow<str>, Cow<str>)> = Vec::with_capacity(16);
    let mut add = |name, value| pairs.push((name, value));
    Scan::new(text).series(&mut add).map_err(|fault| LabelsError::NotCanonical(fault.at))?;
    Labels::from_pairs(pairs)
}

/// What is done with the name and the value of a label, escapes resolved.
type OnPair<'t, 'f> = &'f mut dyn FnMut(Cow<'t, str>, Cow<'t, str>);

/// A walk over one line.
pub struct Scan<'t> {
    line: &'t str,
    at: usize,
}

impl<'t> Scan<'t> {
    /// A walk that begins at the line's start.
    pub fn new(line: &'t str) -> Scan<'t> {
        Scan { line, at: 0 }
    }

    /// Where the walk is.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Whether nothing follows.
    pub fn is_at_end(&self) -> bool {
        self.at == self.line.len()
    }

    /// Whether this byte follows.
    pub fn is_at(&self, byte: u8) -> bool {
        self.peek() == Some(byte)
    }

    /// Passes over spaces; whether there were any.
    pub fn skip_spaces(&mut self) -> bool {
        let spaces = self.rest().len() - self.rest().trim_start_matches(' ').len();
        self.at += spaces;
        spaces > 0
    }

    /// Passes over the spaces that must follow.
    pub fn space(&mut self, expected: &str) -> Result<(), Fault> {
        if self.skip_spaces() { Ok(()) } else { Err(self.expected(expected)) }
    }

    /// Nothing may follow.
    pub fn end(&mut self) -> Result<(), Fault> {
        self.skip_spaces();
        if self.is_at_end() { Ok(()) } else { Err(self.expected("the end of the line")) }
    }

    /// Reads up to the next space by `parse`.
    pub fn number<T>(&mut self, parse: fn(&str) -> Option<T>, what: &str) -> Result<T, Fault> {
        let len = self.rest().find(' ').unwrap_or(self.rest().len());
        let word = &self.rest()[..len];
        let number = parse(word).ok_or_else(|| self.expected(&format!("a {what}")))?;
        self.at += len;
        Ok(number)
    }

    /// Reads a series: a name, labels, or both.
    pub fn series(&mut self, on_pair: OnPair<'t, '_>) -> Result<(), Fault> {
        let name = self.identifier(true);
        if !name.is_empty() {
            on_pair(METRIC_NAME.into(), name.into());
        }
        if self.is_at(b'{') {
            return self.labels(name.is_empty(), on_pair);
        }
        if name.is_empty() { Err(self.expected("the name of a metric")) } else { Ok(()) }
    }

    /// Reads `# {label="value"} 1 [timestamp]`.
    pub fn exemplar(&mut self) -> Result<(), Fault> {
        self.at += 1;
        self.space("a space and an exemplar")?;
        self.labels(false, &mut |_, _| {})?;
        self.space("a space and the exemplar's value")?;
        self.number(super::number::value, "value")?;
        if self.skip_spaces() && !self.is_at_end() {
            self.number(super::number::timestamp_ms, "timestamp in seconds")?;
        }
        Ok(())
    }

    /// Reads `{...}`, with the metric's name in it where that is still to come.
    fn labels(&mut self, mut wants_name: bool, on_pair: OnPair<'t, '_>) -> Result<(), Fault> {
        let open = self.at;
        self.expect(b'{', "\"{\"")?;
        self.skip_spaces();
        while !self.is_at(b'}') {
            let is_quoted = self.is_at(b'"');
            let name = if is_quoted { self.quoted()? } else { self.identifier(false).into() };
            if name.is_empty() {
                return Err(self.expected("the name of a label"));
            }
            self.skip_spaces();
            if wants_name && is_quoted && !self.is_at(b'=') {
                wants_name = false;
                on_pair(METRIC_NAME.into(), name);
            } else {
                self.expect(b'=', "\"=\"")?;
                self.skip_spaces();
                on_pair(name, self.quoted()?);
            }
            self.skip_spaces();
            if !self.is_at(b',') {
                break;
            }
            self.at += 1;
            self.skip_spaces();
        }
        self.expect(b'}', "\",\" or \"}\"")?;
        if wants_name {
            return Err(Fault { at: open, what: "the series has no metric name".to_owned() });
        }
        Ok(())
    }

    /// Passes over an identifier, which may be empty.
    fn identifier(&mut self, with_colons: bool) -> &'t str {
        let is_inside = |(at, b): (usize, u8)| {
            b.is_ascii_alphabetic()
                || b == b'_'
                || (with_colons && b == b':')
                || (at > 0 && b.is_ascii_digit())
        };
        let rest = self.rest();
        let len = rest.bytes().enumerate().take_while(|&at| is_inside(at)).count();
        self.at += len;
        &rest[..len]
    }

    /// Reads a text in quotes.
    fn quoted(&mut self) -> Result<Cow<'t, str>, Fault> {
        self.expect(b'"', "a quote")?;
        let rest = self.rest();
        let mut escaped = None;
        let mut from = 0;
        loop {
            let Some(len) = rest[from..].find(['"', '\\']) else {
                self.at -= 1;
                return Err(Fault { at: self.at, what: "the quote is not closed".to_owned() });
            };
            let (piece, end) = (&rest[from..from + len], from + len);
            if rest.as_bytes()[end] == b'"' {
                self.at += end + 1;
                return Ok(match escaped {
                    None => piece.into(),
                    Some(text) => Cow::Owned(text + piece),
                });
            }
            let text: &mut String = escaped.get_or_insert_default();
            text.push_str(piece);
            text.push(match rest.as_bytes().get(end + 1) {
                Some(b'\\') => '\\',
                Some(b'"') => '"',
                Some(b'n') => '\n',
                _ => {
                    let what = "unknown escape; there are \\\\, \\\" and \\n".to_owned();
                    return Err(Fault { at: self.at + end, what });
                }
            });
            from = end + 2;
        }
    }

    fn rest(&self) -> &'t str {
        &self.line[self.at..]
    }

    fn peek(&self) -> Option<u8> {
        self.line.as_bytes().get(self.at).copied()
    }

    fn expect(&mut self, byte: u8, what: &str) -> Result<(), Fault> {
        if self.is_at(byte) {
            self.at += 1;
            return Ok(());
        }
        Err(self.expected(what))
    }

    fn expected(&self, what: &str) -> Fault {
        let found = match self.rest().chars().next() {
            Some(found) => format!("{found:?}"),
            None => "the end of the line".to_owned(),
        };
        Fault { at: self.at, what: format!("expected {what}, found {found}") }
    }
}
