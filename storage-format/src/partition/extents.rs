//! Checksums of the sections: one per 16 KiB extent.
//!
//! DATA and the index (all sections between DATA and CRC, with what lies between them) are divided
//! into extents separately, so that damage in the last chunk does not touch the index. An extent is
//! verified when somebody first touches it, and `Extents` remembers which were found intact.
//!
//! The footer ends the file: `u32 crc32c of the CRC section | u32 0 | magic`.

use super::header::{PartitionHeader, Section};
use crate::checksum::{check_crc32c, crc32c};
use crate::cursor::{Cursor, DecodeError, DecodeErrorKind};
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Length of an extent in bytes; the last of DATA and the last of the index may be shorter.
pub const EXTENT_BYTES: usize = 16 * 1024;

/// The last eight bytes of a partition file.
pub const FOOTER_MAGIC: &[u8; 8] = b"LARUMEND";

/// Length of the footer in bytes.
pub const FOOTER_BYTES: usize = 16;

/// Computes checksums of a region while it streams by.
#[derive(Debug, Default)]
pub(crate) struct ExtentWriter {
    checksums: Vec<u32>,
    /// Checksum and length of the extent under way.
    open: (u32, usize),
}

impl ExtentWriter {
    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(EXTENT_BYTES - self.open.1));
            self.open = (crate::checksum::crc32c_append(self.open.0, now), self.open.1 + now.len());
            if self.open.1 == EXTENT_BYTES {
                self.close();
            }
            bytes = later;
        }
    }

    /// Ends the region: the next byte starts an extent.
    pub(crate) fn close(&mut self) {
        if self.open.1 > 0 {
            self.checksums.push(self.open.0);
            self.open = (0, 0);
        }
    }

    /// The CRC section and the footer.
    pub(crate) fn finish(mut self) -> (Vec<u8>, Vec<u8>) {
        self.close();
        let section: Vec<u8> = self.checksums.iter().flat_map(|crc| crc.to_le_bytes()).collect();
        let mut footer = crc32c(&section).to_le_bytes().to_vec();
        footer.extend_from_slice(&[0; 4]);
        footer.extend_from_slice(FOOTER_MAGIC);
        (section, footer)
    }
}

/// The checksums of a partition, and which extents were found intact.
#[derive(Debug)]
pub(crate) struct Extents {
    checksums: Range<usize>,
    data: Range<usize>,
    index: Range<usize>,
    /// A bit per extent, those of DATA first.
    intact: Bits,
    /// Likewise: extents that are not to be read again.
    condemned: OnceLock<Bits>,
}

type Bits = Box<[AtomicU64]>;

impl Extents {
    /// Checks the footer, that there is a checksum for each extent, and the checksum of checksums.
    pub(crate) fn open(
        file: &[u8],
        data: Range<usize>,
        index: Range<usize>,
        checksums: Range<usize>,
    ) -> Result<Extents, DecodeError> {
        let extents = data.len().div_ceil(EXTENT_BYTES) + index.len().div_ceil(EXTENT_BYTES);
        let end = file.get(checksums.start..).unwrap_or_default();
        stored_checksums(end, &checksums, extents)?;
        Ok(Extents { checksums, data, index, intact: no_bits(extents), condemned: OnceLock::new() })
    }

    /// Lets nobody read the extents again that `range` of the file touches, though they may have been
    /// found intact before.
    pub(crate) fn condemn(&self, range: &Range<usize>) {
        let of_data = self.data.len().div_ceil(EXTENT_BYTES);
        let all = of_data + self.index.len().div_ceil(EXTENT_BYTES);
        let condemned = self.condemned.get_or_init(|| no_bits(all));
        for (region, before) in [(&self.data, 0), (&self.index, of_data)] {
            let (start, end) = (range.start.max(region.start), range.end.min(region.end));
            if start < end {
                let first = (start - region.start) / EXTENT_BYTES;
                for extent in first..(end - region.start).div_ceil(EXTENT_BYTES) {
                    let (word, bit) = place(before + extent);
                    condemned[word].fetch_or(bit, Ordering::Relaxed);
                    self.intact[word].fetch_and(!bit, Ordering::Relaxed);
                }
            }
        }
    }

    /// Verifies those extents of the index that nobody has verified yet.
    pub(crate) fn verify_index(&self, file: &[u8]) -> Result<(), DecodeError> {
        self.verify(file, self.index.clone())
    }

    /// Verifies those extents that `range` of the file touches and that nobody has verified yet.
    /// The range lies within DATA or within the index.
    #[inline]
    pub(crate) fn verify(&self, file: &[u8], range: Range<usize>) -> Result<(), DecodeError> {
        let (region, before) = match range.start < self.index.start {
            true => (&self.data, 0),
            false => (&self.index, self.data.len().div_ceil(EXTENT_BYTES)),
        };
        debug_assert!(region.start <= range.start && range.end <= region.end);
        let first = (range.start - region.start) / EXTENT_BYTES;
        let end = (range.end - region.start).div_ceil(EXTENT_BYTES);
        for extent in first..end {
            let (word, bit) = place(before + extent);
            // Relaxed suffices: the bytes never change, so a late or lost bit costs only time.
            if self.intact[word].load(Ordering::Relaxed) & bit == 0 {
                self.verify_extent(file, region, extent, before)?;
            }
        }
        Ok(())
    }

    #[cold]
    fn verify_extent(
        &self,
        file: &[u8],
        region: &Range<usize>,
        extent: usize,
        before: usize,
    ) -> Result<(), DecodeError> {
        let what = if before == 0 { "partition data" } else { "partition index" };
        let start = region.start + extent * EXTENT_BYTES;
        let (word, bit) = place(before + extent);
        if self.condemned.get().is_some_and(|bits| bits[word].load(Ordering::Relaxed) & bit != 0) {
            return Err(DecodeError::corrupt(start, what, "found damaged before"));
        }
        let bytes = &file[start..region.end.min(start + EXTENT_BYTES)];
        check_crc32c(bytes, self.stored(file, before + extent), start, what)?;
        self.intact[word].fetch_or(bit, Ordering::Relaxed);
        Ok(())
    }

    fn stored(&self, file: &[u8], extent: usize) -> u32 {
        let at = self.checksums.start + extent * 4;
        u32::from_le_bytes([file[at], file[at + 1], file[at + 2], file[at + 3]])
    }
}

/// Where the bit of an extent is.
fn place(extent: usize) -> (usize, u64) {
    (extent / 64, 1 << (extent % 64))
}

fn no_bits(extents: usize) -> Bits {
    std::iter::repeat_with(|| AtomicU64::new(0)).take(extents.div_ceil(64)).collect()
}

/// The CRC section, once it is found intact. `end` is the file from there on.
fn stored_checksums<'f>(
    end: &'f [u8],
    section: &Range<usize>,
    extents: usize,
) -> Result<&'f [u8], DecodeError> {
    const WHAT: &str = "partition footer";
    let Some((before, footer)) = end.split_last_chunk::<FOOTER_BYTES>() else {
        let offset = section.start + end.len();
        return Err(DecodeError { kind: DecodeErrorKind::Truncated, offset, what: WHAT });
    };
    let at = section.start + before.len();
    let mut cursor = Cursor::with_base(footer, at);
    let stored = cursor.u32(WHAT)?;
    let zero = cursor.u32(WHAT)?;
    let checksums = match before.get(..section.len()) {
        Some(checksums) if cursor.rest() == FOOTER_MAGIC && zero == 0 => checksums,
        _ => return Err(DecodeError::corrupt(at, WHAT, "not where it belongs")),
    };
    if checksums.len() != extents * 4 {
        return Err(DecodeError::corrupt(section.start, WHAT, "not one checksum per extent"));
    }
    check_crc32c(checksums, stored, section.start, "checksums of a partition")?;
    Ok(checksums)
}

/// An extent of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// Where it lies, in bytes from the start of the file.
    pub range: Range<u64>,
    /// Whether it holds chunks, else it belongs to the index.
    pub is_data: bool,
    /// The CRC-32C that it must have.
    pub checksum: u32,
}

/// The extents of a partition, for who reads the file piece by piece.
#[derive(Debug)]
pub struct ExtentList {
    data: Range<u64>,
    index: Range<u64>,
    checksums: Vec<u8>,
}

impl ExtentList {
    /// Reads the list from the end of a file: what stands from [`PartitionHeader::checksums_at`] on.
    ///
    /// # Errors
    /// Damage there.
    pub fn decode(header: &PartitionHeader, end: &[u8]) -> Result<ExtentList, DecodeError> {
        let data = header.section(Section::Data);
        let index = data.end..header.section(Section::Postings).end;
        let count = |region: &Range<u64>| (region.end - region.start).div_ceil(EXTENT_BYTES as u64) as usize;
        let section = header.section(Section::Checksums);
        let section = section.start as usize..section.end as usize;
        let checksums = stored_checksums(end, &section, count(&data) + count(&index))?.to_vec();
        Ok(ExtentList { data, index, checksums })
    }

    /// The extents that begin at an offset of the file or behind it, in the order of the file.
    pub fn from(&self, offset: u64) -> impl Iterator<Item = Extent> + '_ {
        let before = |region: &Range<u64>| {
            let len = region.end.min(offset).saturating_sub(region.start);
            len.div_ceil(EXTENT_BYTES as u64) as usize
        };
        let of_data = (self.data.end - self.data.start).div_ceil(EXTENT_BYTES as u64) as usize;
        let checksums = self.checksums.as_chunks().0;
        let left = checksums.iter().enumerate().skip(before(&self.data) + before(&self.index));
        left.map(move |(extent, checksum)| {
            let is_data = extent < of_data;
            let (region, at) = if is_data { (&self.data, extent) } else { (&self.index, extent - of_data) };
            let start = region.start + (at * EXTENT_BYTES) as u64;
            let range = start..region.end.min(start + EXTENT_BYTES as u64);
            Extent { range, is_data, checksum: u32::from_le_bytes(*checksum) }
        })
    }
}

/// Bytes of a section, or of a part of it, that are verified as they are read.
#[derive(Debug, Clone, Copy)]
pub struct SectionBytes<'a> {
    bytes: &'a [u8],
    /// Where they lie in the file.
    at: usize,
    /// The checksums and the file; `None` where the bytes need none.
    extents: Option<(&'a Extents, &'a [u8])>,
}

/// Bytes that are no part of a file.
impl<'a> From<&'a [u8]> for SectionBytes<'a> {
    fn from(bytes: &'a [u8]) -> SectionBytes<'a> {
        SectionBytes { bytes, at: 0, extents: None }
    }
}

impl<'a> From<&'a Vec<u8>> for SectionBytes<'a> {
    fn from(bytes: &'a Vec<u8>) -> SectionBytes<'a> {
        SectionBytes::from(bytes.as_slice())
    }
}

impl<'a> SectionBytes<'a> {
    /// What lies at `range` of `file`, within the index.
    pub(crate) fn of(file: &'a [u8], range: Range<usize>, extents: &'a Extents) -> SectionBytes<'a> {
        SectionBytes { bytes: &file[range.clone()], at: range.start, extents: Some((extents, file)) }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Where the byte at `position` lies in the file.
    pub(crate) fn offset(&self, position: usize) -> usize {
        self.at + position
    }

    /// An error at `position`.
    pub(crate) fn corrupt(&self, position: usize, what: &'static str, why: &'static str) -> DecodeError {
        DecodeError::corrupt(self.offset(position), what, why)
    }

    /// A part, not verified yet.
    pub(crate) fn part(
        &self,
        range: Range<usize>,
        what: &'static str,
    ) -> Result<SectionBytes<'a>, DecodeError> {
        let Some(bytes) = self.bytes.get(range.clone()) else {
            return Err(self.corrupt(range.start.min(self.len()), what, "out of bounds"));
        };
        Ok(SectionBytes { bytes, at: self.at + range.start, ..*self })
    }

    /// All of the bytes, once they are verified.
    #[inline]
    pub(crate) fn all(&self) -> Result<&'a [u8], DecodeError> {
        if let Some((extents, file)) = self.extents {
            extents.verify(file, self.at..self.at + self.bytes.len())?;
        }
        Ok(self.bytes)
    }

    /// The bytes at `range`, once they are verified.
    #[inline]
    pub(crate) fn get(&self, range: Range<usize>, what: &'static str) -> Result<&'a [u8], DecodeError> {
        self.part(range, what)?.all()
    }

    /// The record at `index` among records of `N` bytes each.
    #[inline]
    pub(crate) fn record<const N: usize>(
        &self,
        index: usize,
        what: &'static str,
    ) -> Result<&'a [u8; N], DecodeError> {
        let start = index.saturating_mul(N);
        let bytes = self.get(start..start.saturating_add(N), what)?;
        bytes.first_chunk().ok_or(self.corrupt(start, what, "out of bounds"))
    }

    /// The number at `index` among numbers of four bytes.
    #[inline]
    pub(crate) fn word(&self, index: usize, what: &'static str) -> Result<u32, DecodeError> {
        self.record(index, what).map(|bytes| u32::from_le_bytes(*bytes))
    }
}
