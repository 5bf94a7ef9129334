//! Go's quoted strings: writing them (`strconv.Quote`) and reading them (`strconv.Unquote`).

use crate::storage::regex::Regex;
use std::sync::LazyLock;

/// Whether Go's `unicode.IsPrint` holds: letters, marks, numbers, punctuation, symbols, the space.
pub(super) fn is_print(c: char) -> bool {
    static PRINT: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"[\pL\pM\pN\pP\pS]").ok());
    match c {
        ' '..='~' => true,
        c if c.is_ascii() => false,
        c => PRINT.as_ref().is_some_and(|print| print.is_match(c.encode_utf8(&mut [0; 4]))),
    }
}

/// `"text"`
pub(super) fn quote(text: &str) -> String {
    quote_with(text, '"', false)
}

/// Quotes with the given mark, escaping what is not printable (or, if so wanted, not ASCII).
pub(super) fn quote_with(text: &str, mark: char, ascii: bool) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push(mark);
    for c in text.chars() {
        match c {
            c if c == mark || c == '\\' => out.extend(['\\', c]),
            c if is_print(c) && (!ascii || c.is_ascii()) => out.push(c),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if (c as u32) < 0x10000 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push_str(&format!("\\U{:08x}", c as u32)),
        }
    }
    out.push(mark);
    out
}

/// Whether `text` can stand between backquotes.
pub(super) fn can_backquote(text: &str) -> bool {
    !text.chars().any(|c| c == '`' || c == '\u{feff}' || c == '\u{7f}' || (c < ' ' && c != '\t'))
}

/// The text between quotes of any kind; none if it is no valid literal. Bytes that are no UTF-8
/// become U+FFFD.
pub(super) fn unquote(literal: &str) -> Option<String> {
    let mark = literal.chars().next()?;
    let inner = literal.get(1..)?.strip_suffix(mark)?;
    match mark {
        '`' => return Some(inner.replace('\r', "")),
        '"' | '\'' => {}
        _ => return None,
    }
    let mut out = Vec::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let c = chars.next()?;
        let number = |chars: &mut std::str::Chars<'_>, first: u32, digits: usize, base: u32| {
            (0..digits).try_fold(first, |n, _| Some(n * base + chars.next()?.to_digit(base)?))
        };
        let plain = match c {
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 11,
            '\\' => b'\\',
            '\'' | '"' if c == mark => c as u8,
            'x' => number(&mut chars, 0, 2, 16)? as u8,
            '0'..='7' => u8::try_from(number(&mut chars, c.to_digit(8)?, 2, 8)?).ok()?,
            'u' | 'U' => {
                let digits = if c == 'u' { 4 } else { 8 };
                let c = char::from_u32(number(&mut chars, 0, digits, 16)?)?;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            _ => return None,
        };
        out.push(plain);
    }
    Some(String::from_utf8(out).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
}
