//! DIR: the chunks in the order of DATA, by series, then by time.
//!
//! An entry is `u32 series ordinal | u32 chunk offset | u32 timestamp slice`, where the offset
//! counts from the start of DATA in units of one or eight bytes (see the header's flags). A chunk
//! ends where the next one starts, the last one where DATA ends.

use crate::cursor::DecodeError;
use std::ops::Range;

/// Bytes of an entry.
pub(crate) const ENTRY_BYTES: usize = 12;

/// Appends an entry.
pub(crate) fn push(out: &mut Vec<u8>, ordinal: u32, offset: u32, slice: u32) {
    for word in [ordinal, offset, slice] {
        out.extend_from_slice(&word.to_le_bytes());
    }
}

/// Reads the section in place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Directory<'a> {
    entries: &'a [[u8; ENTRY_BYTES]],
    offset_unit: u64,
    data_len: u64,
}

impl<'a> Directory<'a> {
    pub(crate) fn new(
        section: &'a [u8],
        offset_unit: u64,
        data_len: u64,
    ) -> Result<Directory<'a>, DecodeError> {
        match section.as_chunks() {
            (entries, []) => Ok(Directory { entries, offset_unit, data_len }),
            _ => Err(DecodeError::corrupt(section.len(), "chunk directory", "the last entry is cut")),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The positions of the chunks of a series. Usually every series has one chunk and the
    /// position is the ordinal; else it is searched.
    pub(crate) fn of_series(&self, ordinal: u32) -> Range<u32> {
        let guess = ordinal as usize;
        let start = if self.ordinal(guess) == Some(ordinal)
            && (guess == 0 || self.ordinal(guess - 1).is_some_and(|before| before < ordinal))
        {
            guess
        } else {
            self.entries.partition_point(|entry| word(entry, 0) < ordinal)
        };
        let count = self.entries[start..].iter().take_while(|entry| word(entry, 0) == ordinal).count();
        start as u32..(start + count) as u32
    }

    fn ordinal(&self, position: usize) -> Option<u32> {
        self.entries.get(position).map(|entry| word(entry, 0))
    }

    /// The timestamp slice of a chunk, and where the chunk lies in DATA.
    pub(crate) fn chunk(&self, position: u32) -> Result<(u32, Range<u64>), DecodeError> {
        const WHAT: &str = "chunk directory";
        let at = position as usize * ENTRY_BYTES;
        let Some(entry) = self.entries.get(position as usize) else {
            return Err(DecodeError::corrupt(at, WHAT, "no such chunk"));
        };
        let start = u64::from(word(entry, 4)) * self.offset_unit;
        let end = match self.entries.get(position as usize + 1) {
            Some(next) => u64::from(word(next, 4)) * self.offset_unit,
            None => self.data_len,
        };
        if start > end || end > self.data_len {
            return Err(DecodeError::corrupt(at, WHAT, "a chunk is out of order or out of bounds"));
        }
        Ok((word(entry, 8), start..end))
    }
}

fn word(entry: &[u8; ENTRY_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]])
}
