//! What was deleted from a block and is still in its chunks: `u32 magic, u8 version`, then `uvarint
//! series, varint from, varint to` for each range, and a checksum.

use larum_storage_format::checksum::check_crc32c;
use larum_storage_format::{Cursor, DecodeError, DecodeErrorKind};
use std::collections::HashMap;

const MAGIC: u32 = 0x0130_ba30;
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 5;

/// Ranges of time that were deleted, by series.
#[derive(Debug, Clone, Default)]
pub struct Tombstones {
    ranges: HashMap<u64, Vec<(i64, i64)>>,
}

impl Tombstones {
    /// Reads the file `tombstones`.
    ///
    /// # Errors
    /// It is none, or damaged: what was deleted is not known then.
    pub fn decode(bytes: &[u8]) -> Result<Tombstones, DecodeError> {
        let mut cursor = Cursor::new(bytes);
        if u32::from_be_bytes(cursor.array("tombstones")?) != MAGIC {
            return Err(DecodeError { kind: DecodeErrorKind::Magic, offset: 0, what: "tombstones" });
        }
        let found = cursor.u8("tombstones")?;
        if found != VERSION {
            let kind = DecodeErrorKind::Version { found: found.into(), known: VERSION.into() };
            return Err(DecodeError { kind, offset: 4, what: "tombstones" });
        }
        let (entries, stored) = cursor
            .rest()
            .split_last_chunk::<4>()
            .ok_or_else(|| cursor.error("tombstones", DecodeErrorKind::Truncated))?;
        check_crc32c(entries, u32::from_be_bytes(*stored), HEADER_BYTES, "tombstones")?;
        let mut cursor = Cursor::with_base(entries, HEADER_BYTES);
        let mut tombstones = Tombstones::default();
        while !cursor.is_empty() {
            let series = cursor.uvarint("series of a tombstone")?;
            let range = (cursor.ivarint("start of a tombstone")?, cursor.ivarint("end of a tombstone")?);
            tombstones.ranges.entry(series).or_default().push(range);
        }
        Ok(tombstones)
    }

    /// The ranges, first and last time, that were deleted from the series with this reference.
    pub fn deleted(&self, series: u64) -> &[(i64, i64)] {
        self.ranges.get(&series).map_or(&[], Vec::as_slice)
    }
}
