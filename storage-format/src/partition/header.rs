//! The header of a partition file: what it is, where it came from, where its sections lie.
//!
//! A lost MANIFEST can be put together again from headers alone, which is why they say which WAL
//! generations and which other partitions the file replaces.

use crate::FORMAT_VERSION;
use crate::checksum::{check_crc32c, crc32c};
use crate::cursor::{Cursor, DecodeError};
use crate::envelope::check_magic_and_version;
use crate::series_id::IdentitySeed;
use std::ops::Range;

/// The first eight bytes of a partition file.
pub const PARTITION_MAGIC: &[u8; 8] = b"LARUMP01";

/// Headers end at a multiple of this.
const ALIGN_BYTES: usize = 64;

/// What stands before the sources.
const FIXED_BYTES: usize = 8 + 4 * 4 + 6 * 8 + 2 * 4 + 3 * 8 + 6 * 4;
const SECTION_BYTES: usize = 24;
const CRC_BYTES: usize = 4;

/// In the flags: chunk offsets count in units of eight bytes instead of one.
const FLAG_WIDE_OFFSETS: u32 = 1;

/// Number of the CRC section, the last.
const SECTIONS: usize = 9;

/// A section; the number is its place in the file, counted from 1 there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Section {
    Data = 0,
    TimestampColumns = 1,
    TimestampDirectory = 2,
    TimestampSlices = 3,
    Directory = 4,
    Symbols = 5,
    Series = 6,
    Postings = 7,
    Checksums = 8,
}

/// Where the samples of a partition came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The first and the last WAL generation whose samples are in this file or in its siblings.
    /// For a merge, those of its sources together. (0, 0) if there was none, as for an import.
    pub generations: (u64, u64),
    /// Which of the files that one cut or merge wrote this is, counted from 0.
    pub output: u32,
    /// How many files that cut or merge wrote. It counts as done only if all of them exist.
    pub outputs: u32,
    /// The numbers of the partitions that this one and its siblings replace; empty for a cut.
    pub sources: Vec<u64>,
}

/// The header of a partition file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionHeader {
    /// The seed of the series' identities.
    pub seed: IdentitySeed,
    /// The file's number.
    pub number: u64,
    /// Of two partitions with the same series and timestamp, the higher sequence wins.
    pub sequence: u64,
    /// Where the samples came from.
    pub origin: Origin,
    /// Time of the oldest sample, in milliseconds since the epoch.
    pub min_ms: i64,
    /// Time of the newest sample, in milliseconds since the epoch.
    pub max_ms: i64,
    /// How many series there are.
    pub series_count: u32,
    /// How many chunks there are.
    pub chunk_count: u32,
    /// How many samples there are.
    pub sample_count: u64,
    /// Length of the file.
    pub byte_len: u64,
    /// Whether chunk offsets count in units of eight bytes.
    pub(crate) wide_offsets: bool,
    /// Where the sections lie, in the order of [`Section`].
    pub(crate) sections: [Range<u64>; SECTIONS],
}

impl PartitionHeader {
    /// Length of the header of a partition with that many sources.
    pub(crate) fn len_with(sources: usize) -> usize {
        (FIXED_BYTES + sources * 8 + SECTIONS * SECTION_BYTES + CRC_BYTES).next_multiple_of(ALIGN_BYTES)
    }

    /// The bytes at the start of the file. Their length depends on the number of sources alone.
    pub fn encode(&self) -> Vec<u8> {
        let len = Self::len_with(self.origin.sources.len());
        let mut out = Vec::with_capacity(len);
        out.extend_from_slice(PARTITION_MAGIC);
        for word in [FORMAT_VERSION, len as u32, if self.wide_offsets { FLAG_WIDE_OFFSETS } else { 0 }, 0] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        let (first, last) = self.origin.generations;
        for word in [self.byte_len, self.seed.0, self.number, self.sequence, first, last] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        for word in [self.origin.output, self.origin.outputs] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        for word in [self.min_ms, self.max_ms] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&self.sample_count.to_le_bytes());
        for word in
            [self.series_count, self.chunk_count, self.origin.sources.len() as u32, SECTIONS as u32, 0, 0]
        {
            out.extend_from_slice(&word.to_le_bytes());
        }
        debug_assert_eq!(out.len(), FIXED_BYTES);
        for number in &self.origin.sources {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for (i, range) in self.sections.iter().enumerate() {
            out.extend_from_slice(&(i as u32 + 1).to_le_bytes());
            out.extend_from_slice(&0u32.to_le_bytes());
            out.extend_from_slice(&range.start.to_le_bytes());
            out.extend_from_slice(&(range.end - range.start).to_le_bytes());
        }
        out.resize(len - CRC_BYTES, 0);
        out.extend_from_slice(&crc32c(&out).to_le_bytes());
        out
    }

    /// Reads the header at the start of a file of which at least the header is there.
    ///
    /// # Errors
    /// Another kind of file, another version, damage.
    pub fn decode(bytes: &[u8]) -> Result<PartitionHeader, DecodeError> {
        const WHAT: &str = "partition header";
        let mut cursor = Cursor::new(bytes);
        let stated = bytes.get(12..16).and_then(|len| len.try_into().ok()).map_or(0, u32::from_le_bytes);
        let frame = bytes.get(..stated as usize).unwrap_or_default();
        check_magic_and_version(&mut cursor, PARTITION_MAGIC, WHAT, frame)?;
        let len = cursor.u32("length of the partition header")? as usize;
        let Some((content, stored)) =
            bytes.get(..len).and_then(|header| header.split_last_chunk::<CRC_BYTES>())
        else {
            return Err(cursor.error(WHAT, crate::cursor::DecodeErrorKind::Truncated));
        };
        check_crc32c(content, u32::from_le_bytes(*stored), 0, WHAT)?;
        // From here on everything is what a writer wrote, and checked all the same.
        let mut cursor = Cursor::new(content);
        cursor.take(16, WHAT)?;
        let flags = cursor.u32("partition flags")?;
        cursor.u32(WHAT)?;
        let byte_len = cursor.u64("length of the partition")?;
        let seed = IdentitySeed(cursor.u64("identity seed")?);
        let number = cursor.u64("partition number")?;
        let sequence = cursor.u64("partition sequence")?;
        let generations = (cursor.u64("WAL generation")?, cursor.u64("WAL generation")?);
        let (output, outputs) = (cursor.u32("output number")?, cursor.u32("number of outputs")?);
        let (min_ms, max_ms) = (cursor.i64("oldest time")?, cursor.i64("newest time")?);
        let sample_count = cursor.u64("number of samples")?;
        let (series_count, chunk_count) = (cursor.u32("number of series")?, cursor.u32("number of chunks")?);
        let (sources, sections) = (cursor.u32("number of sources")?, cursor.u32("number of sections")?);
        cursor.u64(WHAT)?;
        if flags & !FLAG_WIDE_OFFSETS != 0 || sections as usize != SECTIONS {
            return Err(cursor.corrupt(WHAT, "unknown flags or sections"));
        }
        if min_ms > max_ms || output >= outputs {
            return Err(cursor.corrupt(WHAT, "impossible times or output number"));
        }
        if sources as usize > cursor.remaining() / 8 || Self::len_with(sources as usize) != len {
            return Err(cursor.corrupt(WHAT, "the length does not fit the number of sources"));
        }
        let sources = (0..sources).map(|_| cursor.u64("source")).collect::<Result<_, _>>()?;
        let sections = decode_sections(&mut cursor, len as u64, byte_len)?;
        Ok(PartitionHeader {
            seed,
            number,
            sequence,
            origin: Origin { generations, output, outputs, sources },
            min_ms,
            max_ms,
            series_count,
            chunk_count,
            sample_count,
            byte_len,
            wide_offsets: flags & FLAG_WIDE_OFFSETS != 0,
            sections,
        })
    }

    /// The sections by their names in FORMAT.md, with their lengths in bytes, in the order of the file.
    pub fn section_bytes(&self) -> [(&'static str, u64); SECTIONS] {
        const NAMES: [&str; SECTIONS] =
            ["DATA", "TSCOL", "TSDIR", "TSREF", "DIR", "SYMBOLS", "SERIES", "POSTINGS", "CRC"];
        std::array::from_fn(|i| (NAMES[i], self.sections[i].end - self.sections[i].start))
    }

    /// The names of the sections that have bytes in a range of the file.
    pub fn sections_in(&self, range: &Range<u64>) -> impl Iterator<Item = &'static str> {
        let places = self.section_bytes().into_iter().zip(&self.sections);
        places.filter(|(_, own)| own.start < range.end && range.start < own.end).map(|((name, _), _)| name)
    }

    /// Where the list of checksums begins, which reaches to the end of the file.
    pub fn checksums_at(&self) -> u64 {
        self.section(Section::Checksums).start
    }

    /// Where a section lies in the file.
    pub(crate) fn section(&self, section: Section) -> Range<u64> {
        self.sections[section as usize].clone()
    }

    /// Bytes that a unit of a chunk offset stands for.
    pub(crate) fn offset_unit(&self) -> u64 {
        if self.wide_offsets { 8 } else { 1 }
    }
}

/// Sections follow one another, within the file, without overlap.
fn decode_sections(
    cursor: &mut Cursor<'_>,
    header_len: u64,
    byte_len: u64,
) -> Result<[Range<u64>; SECTIONS], DecodeError> {
    const WHAT: &str = "section table";
    let mut sections = [const { 0..0 }; SECTIONS];
    let mut free_from = header_len;
    for (i, section) in sections.iter_mut().enumerate() {
        let start = cursor.clone();
        let (id, flags) = (cursor.u32(WHAT)?, cursor.u32(WHAT)?);
        let (offset, len) = (cursor.u64(WHAT)?, cursor.u64(WHAT)?);
        let end = offset.checked_add(len).filter(|&end| end <= byte_len);
        match end {
            Some(end) if id == i as u32 + 1 && flags == 0 && offset >= free_from => {
                *section = offset..end;
                free_from = end;
            }
            _ => return Err(start.corrupt(WHAT, "a section is unknown, out of order or out of bounds")),
        }
    }
    Ok(sections)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> PartitionHeader {
        let mut sections = [const { 0..0 }; SECTIONS];
        let len = PartitionHeader::len_with(3) as u64;
        for (i, section) in sections.iter_mut().enumerate() {
            *section = len + 8 * i as u64..len + 8 * i as u64 + 7;
        }
        PartitionHeader {
            seed: IdentitySeed(1),
            number: 2,
            sequence: 3,
            origin: Origin { generations: (4, 5), output: 0, outputs: 2, sources: vec![6, 7, 8] },
            min_ms: -9,
            max_ms: 10,
            series_count: 11,
            chunk_count: 12,
            sample_count: 13,
            byte_len: 1000,
            wide_offsets: true,
            sections,
        }
    }

    #[test]
    fn a_header_comes_back_and_is_a_multiple_of_64_bytes() {
        let bytes = example().encode();
        assert_eq!(bytes.len() % 64, 0);
        assert_eq!(PartitionHeader::decode(&bytes), Ok(example()));
    }

    #[test]
    fn sections_have_the_names_of_the_specification() {
        let names = example().section_bytes().map(|(name, bytes)| {
            assert_eq!(bytes, 7);
            name
        });
        assert!(include_str!("../../FORMAT.md").contains(&format!("ids 1 to 9: {}", names.join(", "))));
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_refused() {
        let bytes = example().encode();
        for at in 0..bytes.len() {
            assert!(PartitionHeader::decode(&bytes[..at]).is_err(), "cut at {at}");
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let error = PartitionHeader::decode(&changed).unwrap_err();
            assert!(!matches!(error.kind, crate::DecodeErrorKind::Version { .. }), "byte {at}: {error}");
        }
    }

    #[test]
    fn times_and_outputs_out_of_order_are_refused() {
        let mut header = example();
        header.min_ms = 11;
        assert!(PartitionHeader::decode(&header.encode()).is_err());
        let mut header = example();
        header.origin.output = 2;
        assert!(PartitionHeader::decode(&header.encode()).is_err());
    }

    #[test]
    fn sections_out_of_bounds_or_overlapping_are_refused() {
        let mut header = example();
        header.byte_len = 300;
        assert!(PartitionHeader::decode(&header.encode()).is_err());
        let mut header = example();
        header.sections[3].start -= 5;
        assert!(PartitionHeader::decode(&header.encode()).is_err());
    }
}
