//! DIR: the chunks in the order of DATA, by series, then by time.
//!
//! Chunks stand in blocks of 64: `entry x blocks | columns x blocks`, where an entry of a block is
//!
//! ```text
//! u32 first series ordinal | u32 first chunk offset | u32 lowest timestamp slice |
//! u32 place of its columns, from the start of the section |
//! u8 x 3 widths of the columns | u8 0
//! ```
//!
//! and its columns, each packed with its own width, hold for each chunk how far its series lags
//! behind its position (0 as long as each series has one chunk), its offset and its slice, the
//! latter two less what the entry says. An offset counts from the start of DATA in units of one or
//! eight bytes (see the header's flags). A chunk ends where the next one starts, the last one where
//! DATA ends.

use super::extents::SectionBytes;
use super::tape::Tape;
use crate::bits::{bit_len, get, pack, packed_len};
use crate::cursor::DecodeError;
use std::cell::Cell;
use std::io;
use std::ops::Range;

/// Chunks in a block.
pub(crate) const BLOCK_CHUNKS: usize = 64;
pub(crate) const ENTRY_BYTES: usize = 20;
const WHAT: &str = "chunk directory";

/// A chunk as the writer collects it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The series; rises by at most one from chunk to chunk.
    pub ordinal: u32,
    /// Where the chunk starts; never falls.
    pub offset: u32,
    /// Which timestamps it has.
    pub slice: u32,
}

/// Lays out the section on the given tapes, one after the other; `false` if it would exceed 4 GiB.
pub(crate) fn encode(
    chunks: impl ExactSizeIterator<Item = Entry>,
    section: &mut Tape,
    rest: &mut Tape,
) -> io::Result<bool> {
    let columns_at = chunks.len().div_ceil(BLOCK_CHUNKS) * ENTRY_BYTES;
    let mut chunks = chunks.peekable();
    let (mut block, mut columns, mut widths) = (Vec::new(), Vec::new(), [0; 4]);
    while chunks.peek().is_some() {
        block.clear();
        block.extend(chunks.by_ref().take(BLOCK_CHUNKS));
        let first: Entry = block[0];
        let lowest = block.iter().map(|chunk| chunk.slice).min().unwrap_or(0);
        let Ok(place) = u32::try_from(columns_at as u64 + rest.len()) else { return Ok(false) };
        section.append_words(&[first.ordinal, first.offset, lowest, place])?;
        columns.clear();
        let lags = (0..).zip(&block).map(|(i, chunk)| u64::from(i - (chunk.ordinal - first.ordinal)));
        widths[0] = pack_narrowly(lags, &mut columns);
        let offsets = block.iter().map(|chunk| u64::from(chunk.offset - first.offset));
        widths[1] = pack_narrowly(offsets, &mut columns);
        let slices = block.iter().map(|chunk| u64::from(chunk.slice - lowest));
        widths[2] = pack_narrowly(slices, &mut columns);
        section.append(&widths)?;
        rest.append(&columns)?;
    }
    Ok(true)
}

/// Packs numbers below 2^32 with the least width, and gives it.
fn pack_narrowly(values: impl Iterator<Item = u64> + Clone, out: &mut Vec<u8>) -> u8 {
    let width = bit_len(values.clone().max().unwrap_or(0));
    pack(values, width, out);
    width as u8
}

/// Reads the section in place. Chunks of one block after another are found fastest.
#[derive(Debug)]
pub(crate) struct Directory<'a> {
    section: SectionBytes<'a>,
    chunk_count: u32,
    offset_unit: u64,
    data_len: u64,
    /// The block read last, and its number.
    last: Cell<Option<(usize, Block<'a>)>>,
}

/// A block's entry and the number of its chunks.
#[derive(Debug, Clone, Copy)]
struct Block<'a> {
    words: [u32; 4],
    widths: [u32; 3],
    /// All three columns.
    columns: &'a [u8],
    len: usize,
}

impl<'a> Directory<'a> {
    pub(crate) fn new(
        section: SectionBytes<'a>,
        chunk_count: u32,
        offset_unit: u64,
        data_len: u64,
    ) -> Directory<'a> {
        Directory { section, chunk_count, offset_unit, data_len, last: Cell::new(None) }
    }

    /// The positions of the chunks of a series. Mostly all of the `series_count` series have as many
    /// chunks, and they stand where they are then expected; else they are searched from there.
    ///
    /// # Errors
    /// A directory that no writer writes.
    pub(crate) fn of_series(&self, ordinal: u32, series_count: u32) -> Result<Range<u32>, DecodeError> {
        let expected = |ordinal: u64| {
            let position = ordinal * u64::from(self.chunk_count) / u64::from(series_count.max(1));
            position.min(self.chunk_count.into()) as u32
        };
        let start = self.first_from(ordinal, expected(ordinal.into()))?;
        let end = match ordinal.checked_add(1) {
            Some(next) => self.first_from(next, expected(next.into()).max(start))?,
            None => self.chunk_count,
        };
        Ok(start..end.max(start))
    }

    /// The position of the first chunk of this series, or of a later one, sought around `expected`.
    fn first_from(&self, ordinal: u32, expected: u32) -> Result<u32, DecodeError> {
        let is_before = |position: u32| Ok::<_, DecodeError>(self.ordinal(position)? < ordinal);
        let (mut low, mut high) = (0, self.chunk_count);
        // Twice as far each time, until the border is within reach.
        let mut reach = 1;
        if expected == high || !is_before(expected)? {
            high = expected;
            // Series rise by one at most: the chunk of series n stands at n at the earliest.
            while low < high && high > ordinal {
                let at = high.saturating_sub(reach);
                if is_before(at)? {
                    low = at + 1;
                    break;
                }
                high = at;
                reach *= 2;
            }
            if high <= ordinal {
                return Ok(high);
            }
        } else {
            low = expected + 1;
            while low < high {
                let at = low.saturating_add(reach - 1).min(high - 1);
                if !is_before(at)? {
                    high = at;
                    break;
                }
                low = at + 1;
                reach *= 2;
            }
        }
        while low < high {
            let middle = low + (high - low) / 2;
            match is_before(middle)? {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        Ok(low)
    }

    /// The timestamp slice of a chunk, and where the chunk lies in DATA.
    pub(crate) fn chunk(&self, position: u32) -> Result<(u32, Range<u64>), DecodeError> {
        let (block, at) = self.block(position)?;
        let lift = |column, number| self.lifted(&block, at, column, number, position);
        let start = u64::from(lift(1, block.words[1])?) * self.offset_unit;
        let end = match position + 1 {
            next if next >= self.chunk_count => self.data_len,
            next if at + 1 < block.len => {
                u64::from(self.lifted(&block, at + 1, 1, block.words[1], next)?) * self.offset_unit
            }
            next => u64::from(self.offset(next)?) * self.offset_unit,
        };
        if start > end || end > self.data_len {
            return Err(self.corrupt(position, "a chunk is out of order or out of bounds"));
        }
        Ok((lift(2, block.words[2])?, start..end))
    }

    fn ordinal(&self, position: u32) -> Result<u32, DecodeError> {
        let (block, at) = self.block(position)?;
        let lag = block.get(at, 0).ok_or(self.corrupt(position, "out of bounds"))?;
        let unlagged = block.words[0].checked_add(at as u32);
        let ordinal = unlagged.and_then(|ordinal| ordinal.checked_sub(lag));
        ordinal.ok_or(self.corrupt(position, "impossible series"))
    }

    fn offset(&self, position: u32) -> Result<u32, DecodeError> {
        let (block, at) = self.block(position)?;
        self.lifted(&block, at, 1, block.words[1], position)
    }

    /// What a column holds, plus what the entry says.
    fn lifted(
        &self,
        block: &Block<'_>,
        at: usize,
        column: usize,
        number: u32,
        position: u32,
    ) -> Result<u32, DecodeError> {
        let code = block.get(at, column).ok_or(self.corrupt(position, "out of bounds"))?;
        number.checked_add(code).ok_or(self.corrupt(position, "a number exceeds 32 bits"))
    }

    /// The block of a chunk, and the chunk's place in it.
    fn block(&self, position: u32) -> Result<(Block<'a>, usize), DecodeError> {
        let number = position as usize / BLOCK_CHUNKS;
        if position >= self.chunk_count {
            return Err(self.corrupt(position, "no such chunk"));
        }
        let at = position as usize % BLOCK_CHUNKS;
        if let Some((known, block)) = self.last.get()
            && known == number
        {
            return Ok((block, at));
        }
        let entry: &[u8; ENTRY_BYTES] = self.section.record(number, WHAT)?;
        let word = |at: usize| u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]);
        let widths = [16, 17, 18].map(|at| u32::from(entry[at]));
        if widths.iter().any(|&width| width > 32) {
            return Err(self.corrupt(position, "impossible widths"));
        }
        let len = (self.chunk_count as usize - number * BLOCK_CHUNKS).min(BLOCK_CHUNKS);
        let columns: usize = widths.iter().map(|&width| packed_len(len, width)).sum();
        let place = word(12) as usize;
        let columns = self.section.get(place..place + columns, WHAT)?;
        let words = [word(0), word(4), word(8), word(12)];
        let block = Block { words, widths, columns, len };
        self.last.set(Some((number, block)));
        Ok((block, at))
    }

    fn corrupt(&self, position: u32, why: &'static str) -> DecodeError {
        self.section.corrupt(position as usize / BLOCK_CHUNKS * ENTRY_BYTES, WHAT, why)
    }
}

impl Block<'_> {
    /// The code of a chunk in a column.
    fn get(&self, at: usize, column: usize) -> Option<u32> {
        let before: usize = self.widths[..column].iter().map(|&width| packed_len(self.len, width)).sum();
        get(self.columns.get(before..)?, at, self.widths[column])
    }
}

#[cfg(test)]
mod tests {
    use super::super::tape::Spool;
    use super::*;
    use proptest::prelude::*;

    fn encode(chunks: &[Entry]) -> Vec<u8> {
        let spool = Spool::default();
        let (mut section, mut rest) = (spool.tape(), spool.tape());
        assert!(super::encode(chunks.iter().copied(), &mut section, &mut rest).unwrap());
        [&section.finish().unwrap()[..], &rest.finish().unwrap()].concat()
    }

    fn check(chunks: &[Entry], section: &[u8]) {
        let directory = Directory::new(section.into(), chunks.len() as u32, 8, 8 * u64::from(u32::MAX));
        for (position, chunk) in chunks.iter().enumerate() {
            let (slice, range) = directory.chunk(position as u32).unwrap();
            assert_eq!((slice, range.start), (chunk.slice, 8 * u64::from(chunk.offset)));
            let end = chunks.get(position + 1).map_or(u32::MAX, |next| next.offset);
            assert_eq!(range.end, 8 * u64::from(end));
        }
        let series = chunks.last().map_or(0, |chunk| chunk.ordinal + 1);
        for ordinal in 0..series + 2 {
            let start = chunks.partition_point(|chunk| chunk.ordinal < ordinal) as u32;
            let end = chunks.partition_point(|chunk| chunk.ordinal <= ordinal) as u32;
            for count in [series, 1, 7, u32::MAX] {
                let found = directory.of_series(ordinal, count).unwrap();
                assert!(found == (start..end) || found.is_empty() && start == end, "{found:?}");
            }
        }
        assert!(directory.chunk(chunks.len() as u32).is_err());
    }

    #[test]
    fn one_chunk_a_series_takes_no_bits_for_ordinals() {
        let chunks: Vec<Entry> =
            (0..6400).map(|i| Entry { ordinal: i, offset: 110 * i, slice: i % 100 }).collect();
        let section = encode(&chunks);
        assert!(section.len() <= 100 * (ENTRY_BYTES + 64 * (13 + 7) / 8), "{} bytes", section.len());
        check(&chunks, &section);
    }

    fn directories() -> impl Strategy<Value = Vec<Entry>> {
        proptest::collection::vec((any::<bool>(), 0..1u32 << 22, any::<u32>()), 0..300).prop_map(|steps| {
            let mut last = Entry { ordinal: 0, offset: 0, slice: 0 };
            let step = |(i, (next, len, slice)): (usize, (bool, u32, u32))| {
                let ordinal = last.ordinal + u32::from(next && i > 0);
                last = Entry { ordinal, offset: last.offset + len, slice };
                last
            };
            steps.into_iter().enumerate().map(step).collect()
        })
    }

    proptest! {
        #[test]
        fn every_directory_comes_back(chunks in directories()) {
            check(&chunks, &encode(&chunks));
        }

        #[test]
        fn any_bytes_give_chunks_or_an_error(
            section in proptest::collection::vec(any::<u8>(), 0..200),
            count in 0..200u32,
        ) {
            let directory = Directory::new((&section).into(), count, 1, 1000);
            for position in 0..count + 1 {
                if let Ok((_, range)) = directory.chunk(position) {
                    prop_assert!(range.start <= range.end && range.end <= 1000);
                }
                if let Ok(positions) = directory.of_series(position, count / 2) {
                    prop_assert!(positions.end <= count);
                }
            }
        }
    }
}
