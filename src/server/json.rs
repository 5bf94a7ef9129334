//! JSON, written straight into the bytes of an answer.

use crate::promql::number::{self, write_sample_value, write_timestamp};
use crate::storage::LabelSets;
use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use larum_storage_format::Labels;
use serde::Serialize;
use std::io;

/// An answer of JSON.
pub fn response(body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An answer `{"status":"success","data":...}` of which `write` adds the data.
pub fn success(write: impl FnOnce(&mut Vec<u8>)) -> Response {
    let mut body = SUCCESS.to_vec();
    write(&mut body);
    body.push(b'}');
    response(body)
}

/// Adds `,"name":[...]` after the data of an answer, such as its warnings, if there are any.
pub fn notes(out: &mut Vec<u8>, name: &str, notes: &[String]) {
    if !notes.is_empty() {
        out.extend_from_slice(format!(",\"{name}\":").as_bytes());
        list(out, notes, |out, note| text(out, note));
    }
}

/// How an answer begins that has data.
pub const SUCCESS: &[u8] = br#"{"status":"success","data":"#;

/// Adds `text` as Go's `encoding/json` does: characters that HTML gives a meaning are escaped.
pub fn text(out: &mut Vec<u8>, text: &str) {
    quoted(out, text, true);
}

/// Adds `text` as Prometheus prints label names and values: nothing is escaped for HTML.
pub fn label_text(out: &mut Vec<u8>, text: &str) {
    quoted(out, text, false);
}

fn quoted(out: &mut Vec<u8>, text: &str, for_html: bool) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut done = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let plain = byte >= 0x20
            && !matches!(byte, b'"' | b'\\')
            && !(for_html && matches!(byte, b'<' | b'>' | b'&' | 0xe2));
        if plain {
            continue;
        }
        // U+2028 and U+2029, which end a line in old JavaScript.
        let separator = byte == 0xe2 && matches!(bytes.get(at + 1..at + 3), Some([0x80, 0xa8 | 0xa9]));
        if byte == 0xe2 && !separator {
            continue;
        }
        out.extend_from_slice(&bytes[done..at]);
        done = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0xe2 => {
                out.extend_from_slice(if bytes[at + 2] == 0xa8 { b"\\u2028" } else { b"\\u2029" });
                done = at + 3;
            }
            byte => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.extend([HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
    }
    out.extend_from_slice(&bytes[done..]);
    out.push(b'"');
}

/// Adds `{"name":"value",...}`.
pub fn labels(out: &mut Vec<u8>, labels: &Labels) {
    out.push(b'{');
    for (i, (name, value)) in labels.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        label_text(out, name);
        out.push(b':');
        label_text(out, value);
    }
    out.push(b'}');
}

/// Label sets with the texts of their labels: each is escaped once, however many sets have it.
pub struct LabelSetTexts {
    sets: LabelSets,
    texts: Vec<u8>,
    /// Where the text of a label ends; the next one begins there.
    ends: Vec<usize>,
}

impl LabelSetTexts {
    /// Escapes all labels of the sets.
    pub fn new(sets: LabelSets) -> LabelSetTexts {
        let mut texts = Vec::new();
        let mut ends = Vec::with_capacity(sets.labels().len() + 1);
        ends.push(0);
        for (name, value) in sets.labels() {
            label_text(&mut texts, name);
            texts.push(b':');
            label_text(&mut texts, value);
            texts.push(b',');
            ends.push(texts.len());
        }
        LabelSetTexts { sets, texts, ends }
    }

    /// How many sets there are.
    pub fn count(&self) -> usize {
        self.sets.len()
    }

    /// What the texts take.
    pub fn len_bytes(&self) -> usize {
        self.texts.capacity() + self.ends.capacity() * size_of::<usize>()
    }

    /// Adds the set at `index` as [`labels`] does.
    pub fn write(&self, out: &mut Vec<u8>, index: usize) {
        out.push(b'{');
        for &number in self.sets.set(index) {
            out.extend_from_slice(&self.texts[self.ends[number as usize]..self.ends[number as usize + 1]]);
        }
        out.pop_if(|last| *last == b',');
        out.push(b'}');
    }
}

/// Adds `[a,b,...]`, each item by `write`.
pub fn list<T>(
    out: &mut Vec<u8>,
    items: impl IntoIterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(b'[');
    for (i, item) in items.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

/// Adds `[seconds,"value"]` as in vectors and matrices.
#[inline]
pub fn point(out: &mut Vec<u8>, t_ms: i64, value: f64) {
    out.push(b'[');
    timestamp(out, t_ms);
    out.extend_from_slice(b",\"");
    let _ = write_sample_value(&mut number::Bytes(out), value);
    out.extend_from_slice(b"\"]");
}

/// Adds a time in seconds as in vectors and matrices.
#[inline]
pub fn timestamp(out: &mut Vec<u8>, t_ms: i64) {
    let _ = write_timestamp(&mut number::Bytes(out), t_ms);
}

/// Adds anything small that serde can write, escaped as by [`text`].
pub fn serialized(out: &mut Vec<u8>, value: &impl Serialize) {
    let mut serializer = serde_json::Serializer::with_formatter(out, HtmlSafe);
    value.serialize(&mut serializer).expect("a vector takes all, and keys are texts");
}

/// Compact JSON in which nothing has a meaning to HTML.
struct HtmlSafe;

impl serde_json::ser::Formatter for HtmlSafe {
    fn write_string_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + io::Write,
    {
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let (before, special) = rest.split_at(at);
            let character = special.chars().next().unwrap_or_default();
            write!(writer, "{before}\\u{:04x}", u32::from(character))?;
            rest = &special[character.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_label_sets_are_printed_as_each_alone() {
        let mut sets = LabelSets::default();
        let [a, b, c] =
            [("a", "x\"y"), ("a", "z"), ("b", "1")].map(|(name, value)| sets.add_label(name, value));
        for set in [&[b, c][..], &[], &[a, c], &[a]] {
            sets.add_set(set.iter().copied());
        }
        sets.sort();
        let (mut together, mut alone) = (Vec::new(), Vec::new());
        list(&mut alone, sets.iter(), |out, set| labels(out, &set));
        let texts = LabelSetTexts::new(sets);
        list(&mut together, 0..texts.count(), |out, index| texts.write(out, index));
        assert_eq!(String::from_utf8(together).unwrap(), String::from_utf8(alone).unwrap());
    }

    #[test]
    fn text_is_escaped_as_go_does() {
        let escaped = |input: &str| {
            let mut out = Vec::new();
            text(&mut out, input);
            String::from_utf8(out).unwrap()
        };
        let cases = [
            ("a\"b\\c", r#""a\"b\\c""#),
            ("\n\r\t\u{1}\u{7f}", "\"\\n\\r\\t\\u0001\u{7f}\""),
            ("a<b>&c", r#""a\u003cb\u003e\u0026c""#),
            ("é€\u{2028}\u{2029}\u{2027}😀", "\"é€\\u2028\\u2029\u{2027}😀\""),
            ("", "\"\""),
        ];
        for (input, expected) in cases {
            assert_eq!(escaped(input), expected);
            let mut out = Vec::new();
            serialized(&mut out, &input);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
        let mut out = Vec::new();
        label_text(&mut out, "a<b>&c\u{2028}\"");
        assert_eq!(String::from_utf8(out).unwrap(), "\"a<b>&c\u{2028}\\\"\"");
    }
}
