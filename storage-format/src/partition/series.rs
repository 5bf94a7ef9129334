//! SERIES: identities and label sets, ascending by identity.
//!
//! `u128 id x n | u32 offset x (n + 1) | pairs`: the pairs of a series are `varint name symbol,
//! varint value symbol` each, from one offset to the next, counted from the start of the pairs.
//! The place of a series in this order is its ordinal, which postings and the chunk directory use.

use super::symbols::Symbols;
use crate::cursor::{Cursor, DecodeError};
use crate::labels::Labels;
use crate::series_id::SeriesId;
use crate::varint::put_uvarint;

/// Lays out the section. The pairs hold final symbol numbers.
pub(crate) fn encode(
    ids: &[SeriesId],
    pairs_of: impl Iterator<Item: IntoIterator<Item = (u32, u32)>>,
) -> Vec<u8> {
    let mut section = Vec::with_capacity(ids.len() * 20 + 4);
    for id in ids {
        section.extend_from_slice(&id.to_le_bytes());
    }
    let mut pairs = Vec::new();
    section.extend_from_slice(&0u32.to_le_bytes());
    for labels in pairs_of {
        for (name, value) in labels {
            put_uvarint(&mut pairs, u64::from(name));
            put_uvarint(&mut pairs, u64::from(value));
        }
        section.extend_from_slice(&(pairs.len() as u32).to_le_bytes());
    }
    section.extend_from_slice(&pairs);
    section
}

/// Reads the section in place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SeriesTable<'a> {
    ids: &'a [[u8; 16]],
    offsets: &'a [[u8; 4]],
    pairs: &'a [u8],
}

impl<'a> SeriesTable<'a> {
    pub(crate) fn new(section: &'a [u8], count: u32) -> Result<SeriesTable<'a>, DecodeError> {
        const WHAT: &str = "series table";
        let count = count as usize;
        let mut cursor = Cursor::new(section);
        let ids = cursor.take(16 * count, WHAT)?.as_chunks().0;
        let offsets = cursor.take(4 * (count + 1), WHAT)?.as_chunks().0;
        Ok(SeriesTable { ids, offsets, pairs: cursor.rest() })
    }

    pub(crate) fn id(&self, ordinal: u32) -> Option<SeriesId> {
        self.ids.get(ordinal as usize).map(|id| SeriesId::from_le_bytes(*id))
    }

    pub(crate) fn find(&self, id: SeriesId) -> Option<u32> {
        let found = self.ids.binary_search_by(|probe| SeriesId::from_le_bytes(*probe).cmp(&id));
        found.ok().map(|ordinal| ordinal as u32)
    }

    /// The labels of a series.
    pub(crate) fn labels(&self, ordinal: u32, symbols: &Symbols<'_>) -> Result<Labels, DecodeError> {
        const WHAT: &str = "labels of a series";
        let at = 16 * self.ids.len() + 4 * ordinal as usize;
        let bytes = match self.offsets.get(ordinal as usize..) {
            Some([start, end, ..]) => {
                let range = u32::from_le_bytes(*start) as usize..u32::from_le_bytes(*end) as usize;
                self.pairs.get(range).ok_or(DecodeError::corrupt(at, WHAT, "out of bounds"))?
            }
            _ => return Err(DecodeError::corrupt(at, WHAT, "no such series")),
        };
        let mut cursor = Cursor::new(bytes);
        let mut pairs = Vec::with_capacity(bytes.len() / 2);
        while !cursor.is_empty() {
            let mut symbol = || {
                let number = u32::try_from(cursor.uvarint(WHAT)?).unwrap_or(u32::MAX);
                symbols.get(number)
            };
            pairs.push((symbol()?, symbol()?));
        }
        Labels::from_pairs(pairs).map_err(|_| DecodeError::corrupt(at, WHAT, "not a label set"))
    }
}
