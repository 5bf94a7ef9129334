//! POSTINGS: for each label name its values, sorted, and for each value the series that have it.
//!
//! ```text
//! u32 names
//! names   x { u32 symbol | u32 offset of its values | u32 number of values }   by symbol
//! values  x { u32 symbol | u32 number of series | u32 place }                  by symbol
//! lists     integer streams of ascending ordinals
//! ```
//!
//! Offsets and places count bytes from the start of the section. Where a value has one series
//! only, `place` is its ordinal.

use super::symbols::Symbols;
use crate::cursor::{Cursor, DecodeError};
use crate::ints::{Packing, decode_ints, encode_ints};
use std::collections::BTreeMap;

const ENTRY_BYTES: usize = 12;
const COUNT_BYTES: usize = 4;

/// Lays out the section from what each pair of (final) symbols has as ordinals, ascending.
/// `None` if it would exceed 4 GiB.
pub(crate) fn encode(lists: &BTreeMap<(u32, u32), Vec<u32>>) -> Option<Vec<u8>> {
    let mut names: Vec<(u32, u32)> = Vec::new();
    for (name, _) in lists.keys() {
        match names.last_mut() {
            Some((last, values)) if last == name => *values += 1,
            _ => names.push((*name, 1)),
        }
    }
    let values_at = COUNT_BYTES + names.len() * ENTRY_BYTES;
    let lists_at = values_at + lists.len() * ENTRY_BYTES;
    let mut section = Vec::with_capacity(lists_at);
    let mut put =
        |words: &[u32]| words.iter().for_each(|word| section.extend_from_slice(&word.to_le_bytes()));
    put(&[names.len() as u32]);
    let mut values_before = 0;
    for (name, values) in names {
        put(&[name, u32::try_from(values_at + values_before * ENTRY_BYTES).ok()?, values]);
        values_before += values as usize;
    }
    let mut packed = Vec::new();
    for ((_, value), ordinals) in lists {
        let place = match ordinals[..] {
            [ordinal] => ordinal,
            _ => {
                let place = u32::try_from(lists_at + packed.len()).ok()?;
                let ordinals: Vec<i64> = ordinals.iter().map(|&o| i64::from(o)).collect();
                encode_ints(&ordinals, Packing::FAST, &mut packed);
                place
            }
        };
        put(&[*value, ordinals.len() as u32, place]);
    }
    section.extend_from_slice(&packed);
    Some(section)
}

/// Reads the section in place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Postings<'a> {
    section: &'a [u8],
    names: &'a [[u8; ENTRY_BYTES]],
    symbols: Symbols<'a>,
    series_count: u32,
}

impl<'a> Postings<'a> {
    pub(crate) fn new(
        section: &'a [u8],
        symbols: Symbols<'a>,
        series_count: u32,
    ) -> Result<Self, DecodeError> {
        const WHAT: &str = "postings";
        let mut cursor = Cursor::new(section);
        let count = cursor.u32(WHAT)? as usize;
        let names = cursor.take(count.saturating_mul(ENTRY_BYTES), WHAT)?.as_chunks().0;
        Ok(Postings { section, names, symbols, series_count })
    }

    /// The label names, sorted.
    pub(crate) fn names(&self) -> impl Iterator<Item = Result<&'a str, DecodeError>> + use<'a> {
        let symbols = self.symbols;
        self.names.iter().map(move |entry| symbols.get(words(entry)[0]))
    }

    /// The values of a name; `None` if no series has the label.
    pub(crate) fn values(&self, name: &str) -> Result<Option<LabelValues<'a>>, DecodeError> {
        let Some(symbol) = self.symbols.find(name)? else { return Ok(None) };
        let Ok(found) = self.names.binary_search_by_key(&symbol, |entry| words(entry)[0]) else {
            return Ok(None);
        };
        let [_, offset, count] = words(&self.names[found]).map(|word| word as usize);
        let entries =
            self.section.get(offset..).and_then(|rest| rest.get(..count.checked_mul(ENTRY_BYTES)?)).ok_or(
                DecodeError::corrupt(COUNT_BYTES + found * ENTRY_BYTES, "postings", "out of bounds"),
            )?;
        Ok(Some(LabelValues { postings: *self, entries: entries.as_chunks().0 }))
    }
}

/// The values of one label name, sorted by their bytes, addressed by position.
#[derive(Debug, Clone, Copy)]
pub struct LabelValues<'a> {
    postings: Postings<'a>,
    entries: &'a [[u8; ENTRY_BYTES]],
}

impl<'a> LabelValues<'a> {
    /// How many values there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value at `position`.
    ///
    /// # Errors
    /// A damaged index.
    ///
    /// # Panics
    /// If there is no such position.
    pub fn value(&self, position: usize) -> Result<&'a str, DecodeError> {
        self.postings.symbols.get(words(&self.entries[position])[0])
    }

    /// The values, sorted.
    pub fn iter(&self) -> impl Iterator<Item = Result<&'a str, DecodeError>> + '_ {
        (0..self.len()).map(|position| self.value(position))
    }

    /// The position of the first value that is not less than `bound`: where values with a prefix
    /// begin, for instance.
    ///
    /// # Errors
    /// A damaged index.
    pub fn lower_bound(&self, bound: &str) -> Result<usize, DecodeError> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.value(middle)? < bound {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// The position of `value`, if any series has it.
    ///
    /// # Errors
    /// A damaged index.
    pub fn find(&self, value: &str) -> Result<Option<usize>, DecodeError> {
        let position = self.lower_bound(value)?;
        Ok((position < self.len() && self.value(position)? == value).then_some(position))
    }

    /// How many series have the value at `position`.
    ///
    /// # Panics
    /// If there is no such position.
    pub fn series_count(&self, position: usize) -> u32 {
        words(&self.entries[position])[1]
    }

    /// Appends the ordinals of the series that have the value at `position`, ascending.
    ///
    /// # Errors
    /// A damaged index.
    ///
    /// # Panics
    /// If there is no such position.
    pub fn ordinals(&self, position: usize, out: &mut Vec<u32>) -> Result<(), DecodeError> {
        const WHAT: &str = "postings list";
        let [_, count, place] = words(&self.entries[position]);
        let series = self.postings.series_count;
        let corrupt = |why| DecodeError::corrupt(place as usize, WHAT, why);
        if count == 1 && place < series {
            out.push(place);
            return Ok(());
        }
        if count < 2 || count > series {
            return Err(corrupt("more series than there are, or none"));
        }
        let list = self.postings.section.get(place as usize..).ok_or(corrupt("out of bounds"))?;
        let mut ordinals = Vec::new();
        decode_ints(&mut Cursor::with_base(list, place as usize), count as usize, &mut ordinals)?;
        if ordinals[0] < 0 || ordinals[ordinals.len() - 1] >= i64::from(series) {
            return Err(corrupt("a series that is not there"));
        }
        if ordinals.windows(2).any(|w| w[0] >= w[1]) {
            return Err(corrupt("not ascending"));
        }
        out.extend(ordinals.into_iter().map(|ordinal| ordinal as u32));
        Ok(())
    }
}

fn words(entry: &[u8; ENTRY_BYTES]) -> [u32; 3] {
    let word = |at: usize| u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]);
    [word(0), word(4), word(8)]
}
