//! Checksums of the sections: one per 16 KiB extent.
//!
//! DATA and the index (all sections between DATA and CRC, with what lies between them) are divided
//! into extents separately, so that damage in the last chunk does not touch the index. The index
//! is verified when a partition is opened; an extent of DATA when somebody first touches it, and
//! `Extents` remembers which were found intact.
//!
//! The footer ends the file: `u32 crc32c of the CRC section | u32 0 | magic`.

use crate::checksum::{check_crc32c, crc32c};
use crate::cursor::{Cursor, DecodeError, DecodeErrorKind};
use std::ops::Range;
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

/// The checksums of a partition, and which extents of DATA were found intact.
#[derive(Debug)]
pub(crate) struct Extents {
    checksums: Range<usize>,
    data: Range<usize>,
    index: Range<usize>,
    /// A bit per extent of DATA.
    intact: Box<[AtomicU64]>,
}

impl Extents {
    /// Checks the footer, that there is a checksum for each extent, and the checksum of checksums.
    pub(crate) fn open(
        file: &[u8],
        data: Range<usize>,
        index: Range<usize>,
        checksums: Range<usize>,
    ) -> Result<Extents, DecodeError> {
        const WHAT: &str = "partition footer";
        let Some((_, footer)) = file.split_last_chunk::<FOOTER_BYTES>() else {
            return Err(DecodeError { kind: DecodeErrorKind::Truncated, offset: file.len(), what: WHAT });
        };
        let at = file.len() - FOOTER_BYTES;
        let mut cursor = Cursor::with_base(footer, at);
        let stored = cursor.u32(WHAT)?;
        let zero = cursor.u32(WHAT)?;
        if cursor.rest() != FOOTER_MAGIC || zero != 0 || checksums.end > at {
            return Err(DecodeError::corrupt(at, WHAT, "not where it belongs"));
        }
        let extents = data.len().div_ceil(EXTENT_BYTES) + index.len().div_ceil(EXTENT_BYTES);
        if checksums.len() != extents * 4 {
            return Err(DecodeError::corrupt(checksums.start, WHAT, "not one checksum per extent"));
        }
        check_crc32c(&file[checksums.clone()], stored, checksums.start, "checksums of a partition")?;
        let words = data.len().div_ceil(EXTENT_BYTES).div_ceil(64);
        let intact = std::iter::repeat_with(|| AtomicU64::new(0)).take(words).collect();
        Ok(Extents { checksums, data, index, intact })
    }

    /// Verifies the whole index.
    pub(crate) fn verify_index(&self, file: &[u8]) -> Result<(), DecodeError> {
        let first = self.data.len().div_ceil(EXTENT_BYTES);
        for (i, extent) in file[self.index.clone()].chunks(EXTENT_BYTES).enumerate() {
            let at = self.index.start + i * EXTENT_BYTES;
            check_crc32c(extent, self.stored(file, first + i), at, "partition index")?;
        }
        Ok(())
    }

    /// Verifies those extents of DATA that `range` (of the file) touches and that nobody has
    /// verified yet.
    pub(crate) fn verify_data(&self, file: &[u8], range: Range<usize>) -> Result<(), DecodeError> {
        debug_assert!(self.data.start <= range.start && range.end <= self.data.end);
        let first = (range.start - self.data.start) / EXTENT_BYTES;
        let end = (range.end - self.data.start).div_ceil(EXTENT_BYTES);
        for extent in first..end {
            let (word, bit) = (&self.intact[extent / 64], 1 << (extent % 64));
            // Relaxed suffices: the bytes never change, so a late or lost bit costs only time.
            if word.load(Ordering::Relaxed) & bit == 0 {
                let start = self.data.start + extent * EXTENT_BYTES;
                let bytes = &file[start..self.data.end.min(start + EXTENT_BYTES)];
                check_crc32c(bytes, self.stored(file, extent), start, "partition data")?;
                word.fetch_or(bit, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn stored(&self, file: &[u8], extent: usize) -> u32 {
        let at = self.checksums.start + extent * 4;
        u32::from_le_bytes([file[at], file[at + 1], file[at + 2], file[at + 3]])
    }
}
