//! Label sets in their canonical form: sorted by name, no empty values, no duplicate names.
//!
//! A [`Labels`] is one shared buffer of `varint length, name, varint length, value` per label, in
//! order of the name's bytes. The same bytes are the identity of a series (see
//! [`crate::series_id`]), its declaration in the WAL and its key in the head, so that nobody
//! between the wire and the disk has to take a label set apart.

use crate::varint::{get_uvarint, put_uvarint};
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};

/// The label that holds the metric's name.
pub const METRIC_NAME: &str = "__name__";

/// A canonical label set. Cloning shares the buffer.
#[derive(Clone)]
pub struct Labels {
    /// Invariant: what [`check_canonical`] accepts.
    bytes: Arc<[u8]>,
}

/// Why bytes or pairs are not a label set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LabelsError {
    /// A label has an empty name.
    #[error("a label has an empty name")]
    EmptyName,
    /// The same name stands twice.
    #[error("duplicate label name {0:?}")]
    DuplicateName(String),
    /// A name or value is not UTF-8.
    #[error("label {0} is not valid UTF-8")]
    NotUtf8(String),
    /// The bytes end early, are out of order, or hold an empty value.
    #[error("label bytes are not canonical at offset {0}")]
    NotCanonical(usize),
}

static EMPTY: LazyLock<Labels> = LazyLock::new(|| Labels { bytes: Arc::from([]) });

impl Default for Labels {
    fn default() -> Labels {
        Labels::empty()
    }
}

impl Labels {
    /// The empty label set.
    pub fn empty() -> Labels {
        EMPTY.clone()
    }

    /// Builds a label set from pairs in any order. Labels with an empty value are left out, as an
    /// empty label and a missing one are the same thing.
    ///
    /// ```
    /// use larum_storage_format::Labels;
    /// let labels = Labels::from_pairs([("job", "api"), ("__name__", "up"), ("zone", "")])?;
    /// assert_eq!(labels.metric_name(), Some("up"));
    /// assert_eq!(labels.to_string(), r#"{__name__="up", job="api"}"#);
    /// # Ok::<(), larum_storage_format::LabelsError>(())
    /// ```
    pub fn from_pairs<N, V>(pairs: impl IntoIterator<Item = (N, V)>) -> Result<Labels, LabelsError>
    where
        N: AsRef<str>,
        V: AsRef<str>,
    {
        let given = pairs.into_iter();
        let mut pairs: Vec<(N, V)> = Vec::with_capacity(given.size_hint().0.max(16));
        pairs.extend(given);
        // Mostly they come sorted.
        let is_sorted = pairs.is_sorted_by(|a, b| a.0.as_ref() < b.0.as_ref());
        if !is_sorted {
            pairs.sort_by(|a, b| a.0.as_ref().cmp(b.0.as_ref()));
        }
        if pairs.first().is_some_and(|(name, _)| name.as_ref().is_empty()) {
            return Err(LabelsError::EmptyName);
        }
        let twice = |pair: &&[(N, V)]| pair[0].0.as_ref() == pair[1].0.as_ref();
        if !is_sorted && let Some(pair) = pairs.windows(2).find(twice) {
            return Err(LabelsError::DuplicateName(pair[0].0.as_ref().to_owned()));
        }
        // Nearly all lengths are below 128 and take one byte.
        let lengths = pairs.iter().map(|(name, value)| name.as_ref().len() + value.as_ref().len() + 2);
        let mut bytes = Vec::with_capacity(lengths.sum());
        for (name, value) in &pairs {
            if !value.as_ref().is_empty() {
                put_pair(&mut bytes, name.as_ref(), value.as_ref());
            }
        }
        Ok(Labels { bytes: bytes.into() })
    }

    /// Takes canonical bytes (see the module's text) after checking all of them.
    pub fn from_canonical_bytes(bytes: &[u8]) -> Result<Labels, LabelsError> {
        check_canonical(bytes)?;
        Ok(Labels { bytes: bytes.into() })
    }

    /// The canonical bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The labels in order of their names.
    pub fn iter(&self) -> Iter<'_> {
        Iter { rest: &self.bytes }
    }

    /// The value of `name`, or `None` if there is no such label.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    /// The value of `__name__`.
    pub fn metric_name(&self) -> Option<&str> {
        self.get(METRIC_NAME)
    }

    /// How many labels there are.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether another clone of the set shares its buffer.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.bytes) > 1
    }

    /// Whether there is no label at all.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// A builder that starts from this set.
    pub fn to_builder(&self) -> LabelsBuilder {
        LabelsBuilder { pairs: self.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect() }
    }

    /// The set without the labels for which `drop` says true.
    pub fn without(&self, mut drop: impl FnMut(&str) -> bool) -> Labels {
        let mut bytes = Vec::with_capacity(self.bytes.len());
        for (name, value) in self.iter() {
            if !drop(name) {
                put_pair(&mut bytes, name, value);
            }
        }
        if bytes.len() == self.bytes.len() { self.clone() } else { Labels { bytes: bytes.into() } }
    }
}

/// Appends one label in canonical form. The caller keeps the order.
fn put_pair(bytes: &mut Vec<u8>, name: &str, value: &str) {
    for text in [name, value] {
        put_uvarint(bytes, text.len() as u64);
        bytes.extend_from_slice(text.as_bytes());
    }
}

/// Takes one `varint length, text` from the front of `rest`.
fn take_text(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, n) = get_uvarint(rest)?;
    let end = n.checked_add(usize::try_from(len).ok()?)?;
    Some((rest.get(n..end)?, &rest[end..]))
}

fn check_canonical(bytes: &[u8]) -> Result<(), LabelsError> {
    // One check of all bytes is cheaper than two a label: a piece of UTF-8 between the borders of
    // characters is UTF-8. It fails for some lengths above 127, which look like parts of a character.
    let whole = std::str::from_utf8(bytes).ok();
    let is_utf8 = |text: &[u8], after: &[u8]| {
        let end = bytes.len() - after.len();
        let is_border = |at| whole.is_some_and(|whole| whole.is_char_boundary(at));
        (is_border(end - text.len()) && is_border(end)) || std::str::from_utf8(text).is_ok()
    };
    let mut rest = bytes;
    let mut previous: &[u8] = &[];
    while !rest.is_empty() {
        let at = LabelsError::NotCanonical(bytes.len() - rest.len());
        let Some((name, after_name)) = take_text(rest) else { return Err(at) };
        let Some((value, after)) = take_text(after_name) else { return Err(at) };
        if name.is_empty() {
            return Err(LabelsError::EmptyName);
        }
        let name_text = || String::from_utf8_lossy(name);
        if !is_utf8(name, after_name) {
            return Err(LabelsError::NotUtf8(format!("name {:?}", name_text())));
        }
        if !is_utf8(value, after) {
            return Err(LabelsError::NotUtf8(format!("value of {:?}", name_text())));
        }
        if name == previous {
            return Err(LabelsError::DuplicateName(name_text().into_owned()));
        }
        // The length of the encoding is checked too: a longer varint for the same number would
        // give one label set two identities.
        let shortest =
            |text: &[u8]| (64 - (text.len() as u64 | 1).leading_zeros()).div_ceil(7) as usize + text.len();
        let used = rest.len() - after.len();
        if name < previous || value.is_empty() || used != shortest(name) + shortest(value) {
            return Err(at);
        }
        previous = name;
        rest = after;
    }
    Ok(())
}

/// The labels of a set, in order of their names.
#[derive(Clone)]
pub struct Iter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let (name, rest) = take_text(self.rest)?;
        let (value, rest) = take_text(rest)?;
        self.rest = rest;
        // SAFETY: `Labels::bytes` is canonical, and `check_canonical` as well as `put_pair` let
        // only UTF-8 in.
        unsafe { Some((std::str::from_utf8_unchecked(name), std::str::from_utf8_unchecked(value))) }
    }
}

impl<'a> IntoIterator for &'a Labels {
    type Item = (&'a str, &'a str);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl PartialEq for Labels {
    fn eq(&self, other: &Labels) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Labels {}

impl Hash for Labels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes.hash(state);
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Labels) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Prometheus' order: label by label, the name first, then the value; a prefix comes first.
impl Ord for Labels {
    fn cmp(&self, other: &Labels) -> Ordering {
        let common = common_prefix(&self.bytes, &other.bytes);
        // What is the same up to there need not be compared again: only the label that differs.
        let mut rest: &[u8] = &self.bytes;
        let mut same = 0;
        while let Some((_, after)) = take_text(rest).and_then(|(_, value)| take_text(value)) {
            let end = self.bytes.len() - after.len();
            if end > common {
                break;
            }
            (rest, same) = (after, end);
        }
        Iter { rest }.cmp(Iter { rest: &other.bytes[same..] })
    }
}

/// How many bytes two texts have in common at their beginning.
fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    const STEP: usize = 16;
    let (blocks_a, blocks_b) = (a.as_chunks::<STEP>().0, b.as_chunks::<STEP>().0);
    let same = blocks_a.iter().zip(blocks_b).take_while(|(a, b)| a == b).count() * STEP;
    same + a[same..].iter().zip(&b[same..]).take_while(|(a, b)| a == b).count()
}

/// Prometheus' notation, `{__name__="up", job="api"}`; names that are no legacy names are quoted.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (name, value)) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            if is_legacy_name(name) {
                f.write_str(name)?;
            } else {
                write_quoted(f, name)?;
            }
            f.write_str("=")?;
            write_quoted(f, value)?;
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether `name` fits `[a-zA-Z_][a-zA-Z0-9_]*`, so that it needs no quotes as a label name.
pub fn is_legacy_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Whether `name` fits `[a-zA-Z_:][a-zA-Z0-9_:]*`, so that it needs no quotes as a metric name.
pub fn is_legacy_metric_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_' || b == b':')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':')
}

/// Writes `text` in double quotes as Go's `strconv.Quote` does.
pub fn write_quoted(out: &mut impl fmt::Write, text: &str) -> fmt::Result {
    out.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' => out.write_str("\\\"")?,
            '\\' => out.write_str("\\\\")?,
            '\n' => out.write_str("\\n")?,
            '\t' => out.write_str("\\t")?,
            '\r' => out.write_str("\\r")?,
            '\u{7}' => out.write_str("\\a")?,
            '\u{8}' => out.write_str("\\b")?,
            '\u{c}' => out.write_str("\\f")?,
            '\u{b}' => out.write_str("\\v")?,
            c if (c as u32) < 0x20 || c as u32 == 0x7f => write!(out, "\\x{:02x}", c as u32)?,
            c if is_unprintable(c) && (c as u32) < 0x10000 => write!(out, "\\u{:04x}", c as u32)?,
            c if is_unprintable(c) => write!(out, "\\U{:08x}", c as u32)?,
            c => out.write_char(c)?,
        }
    }
    out.write_char('"')
}

/// Controls, separators other than the blank, and characters without a glyph, as far as they are
/// met in practice; Go's `unicode.IsPrint` has the full table.
fn is_unprintable(c: char) -> bool {
    matches!(c, '\u{80}'..='\u{a0}' | '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202f}'
        | '\u{2000}'..='\u{200a}' | '\u{205f}'..='\u{206f}' | '\u{3000}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..='\u{10ffff}' | '\u{e0001}'..='\u{e007f}')
}

/// Changes a label set label by label.
#[derive(Debug, Clone, Default)]
pub struct LabelsBuilder {
    pairs: Vec<(String, String)>,
}

impl LabelsBuilder {
    /// A builder without labels.
    pub fn new() -> LabelsBuilder {
        LabelsBuilder::default()
    }

    /// Sets `name` to `value`; an empty value removes the label. An empty name is ignored.
    pub fn set(&mut self, name: &str, value: &str) -> &mut LabelsBuilder {
        if value.is_empty() {
            return self.remove(name);
        }
        match self.pairs.iter_mut().find(|(n, _)| n == name) {
            Some((_, v)) => value.clone_into(v),
            None if name.is_empty() => {}
            None => self.pairs.push((name.to_owned(), value.to_owned())),
        }
        self
    }

    /// Removes `name`.
    pub fn remove(&mut self, name: &str) -> &mut LabelsBuilder {
        self.pairs.retain(|(n, _)| n != name);
        self
    }

    /// The value of `name` as it stands now.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The label set.
    pub fn build(&self) -> Labels {
        Labels::from_pairs(self.pairs.iter().map(|(n, v)| (n, v)))
            .expect("set() keeps names unique and not empty")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pairs_are_sorted_and_empty_values_dropped() {
        let labels = Labels::from_pairs([("b", "2"), ("a", "1"), ("c", "")]).unwrap();
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("a", "1"), ("b", "2")]);
        assert_eq!(labels.len(), 2);
        assert_eq!(labels.get("c"), None);
    }

    #[test]
    fn duplicate_and_empty_names_are_refused() {
        assert_eq!(
            Labels::from_pairs([("a", "1"), ("a", "2")]),
            Err(LabelsError::DuplicateName("a".to_owned()))
        );
        assert_eq!(Labels::from_pairs([("", "1")]), Err(LabelsError::EmptyName));
    }

    #[test]
    fn bytes_that_are_not_canonical_are_refused() {
        let cases: [(&[u8], &str); 7] = [
            (b"\x01b\x011\x01a\x012", "out of order"),
            (b"\x01a\x011\x01a\x012", "twice"),
            (b"\x01a\x00", "empty value"),
            (b"\x00\x01a", "empty name"),
            (b"\x01a\x05x", "cut"),
            (b"\x81\x00a\x011", "long varint"),
            (b"\x01a\x01\xff", "not UTF-8"),
        ];
        for (bytes, why) in cases {
            assert!(Labels::from_canonical_bytes(bytes).is_err(), "{why}");
        }
    }

    #[test]
    fn order_is_by_name_then_value_then_length() {
        let set = |pairs: &[(&str, &str)]| Labels::from_pairs(pairs.iter().copied()).unwrap();
        let mut sets = [
            set(&[("a", "2")]),
            set(&[("a", "1"), ("b", "1")]),
            set(&[("a", "1")]),
            set(&[("aa", "0")]),
            set(&[]),
        ];
        sets.sort();
        let shown: Vec<String> = sets.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["{}", r#"{a="1"}"#, r#"{a="1", b="1"}"#, r#"{a="2"}"#, r#"{aa="0"}"#]);
    }

    proptest! {
        #[test]
        fn order_is_that_of_the_labels_one_by_one(
            a in some_pairs(), b in some_pairs(), long in 0..300usize,
        ) {
            let set = |pairs: &std::collections::BTreeMap<String, String>| {
                let long = "x".repeat(long);
                Labels::from_pairs(pairs.iter().map(|(n, v)| (n.clone(), format!("{long}{v}")))).unwrap()
            };
            let (a, b) = (set(&a), set(&b));
            prop_assert_eq!(a.cmp(&b), a.iter().cmp(b.iter()));
        }
    }

    /// Few texts, so that many sets begin alike.
    fn some_pairs() -> impl Strategy<Value = std::collections::BTreeMap<String, String>> {
        proptest::collection::btree_map("[ab]{1,3}", "[ab]{0,3}", 0..5)
    }

    #[test]
    fn notation_quotes_what_needs_quotes() {
        let labels = Labels::from_pairs([("a b", "x\"y\\z\n\u{1}é\u{feff}")]).unwrap();
        assert_eq!(labels.to_string(), "{\"a b\"=\"x\\\"y\\\\z\\n\\x01é\\ufeff\"}");
    }

    #[test]
    fn a_builder_sets_replaces_and_removes() {
        let base = Labels::from_pairs([("a", "1"), ("b", "2")]).unwrap();
        let built = base.to_builder().set("a", "9").set("c", "3").remove("b").set("d", "").build();
        assert_eq!(built.to_string(), r#"{a="9", c="3"}"#);
        assert_eq!(base.without(|n| n == "a").to_string(), r#"{b="2"}"#);
    }

    proptest! {
        #[test]
        fn canonical_bytes_come_back(pairs in proptest::collection::btree_map("\\PC{1,200}", "\\PC{0,200}", 0..12)) {
            let labels = Labels::from_pairs(pairs).unwrap();
            prop_assert_eq!(Labels::from_canonical_bytes(labels.as_bytes()).unwrap(), labels.clone());
            prop_assert_eq!(labels.to_builder().build(), labels);
        }

        #[test]
        fn any_bytes_give_labels_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(labels) = Labels::from_canonical_bytes(&bytes) {
                prop_assert_eq!(Labels::from_pairs(labels.iter()).unwrap(), labels);
            }
        }
    }
}
