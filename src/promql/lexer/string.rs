//! String literals: where they end, and what they say.

use super::token::{TokenKind, quote, quote_char};
use super::{Lexer, ParseError};

impl Lexer<'_> {
    /// Goes to the end of a string whose opening quote has been read, checking its escapes.
    pub(super) fn string(&mut self, quote: char) -> Result<TokenKind, ParseError> {
        let raw = quote == '`';
        loop {
            match self.bump() {
                Some(c) if c == quote => return Ok(TokenKind::String),
                Some('\\') if !raw => self.escape(quote)?,
                None if raw => return Err(self.error("unterminated raw string")),
                None => return Err(self.error("unterminated quoted string")),
                Some('\n') if !raw => return Err(self.error("unterminated quoted string")),
                Some(_) => {}
            }
        }
    }

    /// Goes over an escape sequence whose backslash has been read. They are Go's.
    fn escape(&mut self, quote: char) -> Result<(), ParseError> {
        let (digits, base, max) = match self.bump() {
            Some('a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\') => return Ok(()),
            Some(c) if c == quote => return Ok(()),
            Some(c @ '0'..='7') => {
                self.at -= c.len_utf8();
                (3, 8, 0xff)
            }
            Some('x') => (2, 16, 0xff),
            Some('u') => (4, 16, 0x10_ffff),
            Some('U') => (8, 16, 0x10_ffff),
            None => return Err(self.error("escape sequence not terminated")),
            Some(c) => return Err(self.error(format!("unknown escape sequence {}", code_point(c)))),
        };
        let mut code: u32 = 0;
        for _ in 0..digits {
            let Some(c) = self.bump() else {
                return Err(self.error("escape sequence not terminated"));
            };
            let Some(digit) = c.to_digit(base) else {
                return Err(self.error(format!("illegal character {} in escape sequence", code_point(c))));
            };
            code = code.wrapping_mul(base) | digit;
        }
        if code > max || (0xd800..0xe000).contains(&code) {
            return Err(self.error("escape sequence is an invalid Unicode code point"));
        }
        Ok(())
    }
}

/// `U+0063 'c'`, as Go's `%#U`.
fn code_point(c: char) -> String {
    format!("U+{:04X} {}", c as u32, quote_char(Some(c)))
}

/// A text whose escapes are not UTF-8, which Prometheus allows but no stored label can hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotUtf8 {
    /// The text with U+FFFD for what is not UTF-8.
    pub value: String,
    /// The text as Go quotes it.
    pub quoted: String,
}

/// What a string token says: the text between the quotes, its escapes replaced.
pub(crate) fn unquote(token: &str) -> Result<String, NotUtf8> {
    // The token went through the lexer, so nothing is wrong with its quotes and escapes.
    let bytes = unquoted_bytes(token).unwrap_or_default();
    String::from_utf8(bytes).map_err(|error| NotUtf8 {
        value: String::from_utf8_lossy(error.as_bytes()).into_owned(),
        quoted: quote_bytes(error.as_bytes()),
    })
}

/// `"a\xffz"`, as Go's `%q`.
fn quote_bytes(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        let valid = quote(chunk.valid());
        out.push_str(&valid[1..valid.len() - 1]);
        chunk.invalid().iter().for_each(|byte| out.push_str(&format!("\\x{byte:02x}")));
    }
    out.push('"');
    out
}

fn unquoted_bytes(token: &str) -> Option<Vec<u8>> {
    let inner = token.get(1..token.len().checked_sub(1)?)?;
    if token.starts_with('`') || !inner.contains('\\') {
        return Some(inner.as_bytes().to_vec());
    }
    let mut out = Vec::with_capacity(inner.len());
    let mut rest = inner.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'\\' {
            out.push(*first);
            continue;
        }
        let [kind, after @ ..] = rest else { return None };
        rest = after;
        let (digits, base) = match kind {
            b'0'..=b'7' => (3, 8),
            b'x' => (2, 16),
            b'u' => (4, 16),
            b'U' => (8, 16),
            _ => {
                out.push(match kind {
                    b'a' => 0x07,
                    b'b' => 0x08,
                    b'f' => 0x0c,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'v' => 0x0b,
                    other => *other,
                });
                continue;
            }
        };
        let code = if base == 8 {
            let code = std::str::from_utf8(rest.get(..2)?).ok()?;
            rest = &rest[2..];
            u32::from(kind - b'0') * 64 + u32::from_str_radix(code, 8).ok()?
        } else {
            let code = std::str::from_utf8(rest.get(..digits)?).ok()?;
            rest = &rest[digits..];
            u32::from_str_radix(code, base).ok()?
        };
        if matches!(kind, b'u' | b'U') {
            out.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut [0; 4]).as_bytes());
        } else {
            out.push(u8::try_from(code).ok()?);
        }
    }
    Some(out)
}
