//! The index of a block: `u32 magic, u8 version`, sections, and at its end where they begin.
//!
//! Only two sections are read: the symbols (all texts of labels) and the series, from the first to the
//! last. Version 1 names a symbol by its offset, version 2 by its number.

use larum_storage_format::checksum::check_crc32c;
use larum_storage_format::{Cursor, DecodeError, DecodeErrorKind, Labels};

const MAGIC: u32 = 0xbaaa_d700;
/// Six offsets and a checksum.
const CONTENTS_BYTES: usize = 6 * 8 + 4;
/// Series of version 2 begin at multiples of this.
const ALIGNMENT: usize = 16;

/// An index whose symbols were found right.
#[derive(Debug)]
pub struct Index<'a> {
    bytes: &'a [u8],
    version: u8,
    /// Where each symbol begins, in version 2.
    symbols: Vec<u32>,
    symbols_start: usize,
    /// Where the series begin and end.
    series: std::ops::Range<usize>,
}

/// Where a chunk lies, and between which times its samples do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkRef {
    /// Which segment, from 0.
    pub segment: u32,
    /// Where in it.
    pub offset: u32,
    /// Its oldest sample.
    pub min_ms: i64,
    /// Its newest sample.
    pub max_ms: i64,
}

/// A series of the index.
#[derive(Debug, Clone, Default)]
pub struct BlockSeries {
    /// The number by which tombstones know it.
    pub reference: u64,
    /// Its labels.
    pub labels: Labels,
    /// Its chunks.
    pub chunks: Vec<ChunkRef>,
}

impl<'a> Index<'a> {
    /// The index that `bytes` are.
    ///
    /// # Errors
    /// They are no index, of a version that is not known, or damaged where everything depends on it.
    pub fn open(bytes: &'a [u8]) -> Result<Index<'a>, DecodeError> {
        let mut cursor = Cursor::new(bytes);
        if u32::from_be_bytes(cursor.array("index")?) != MAGIC {
            return Err(DecodeError { kind: DecodeErrorKind::Magic, offset: 0, what: "index" });
        }
        let version = cursor.u8("index")?;
        if !(1..=2).contains(&version) {
            let kind = DecodeErrorKind::Version { found: version.into(), known: 2 };
            return Err(DecodeError { kind, offset: 4, what: "index" });
        }
        let contents_at = bytes.len().checked_sub(CONTENTS_BYTES).filter(|&at| at >= 5);
        let contents_at = contents_at.ok_or_else(|| cursor.error("index", DecodeErrorKind::Truncated))?;
        let offsets = contents(&bytes[contents_at..], contents_at)?;
        let [symbols_at, series_at, ..] = offsets;
        // The sections have no common order; the series end where something else begins.
        let others = offsets.into_iter().filter(|&at| at > series_at);
        let series_end = others.min().unwrap_or(contents_at).min(contents_at);
        if series_at < 5 || series_at > contents_at {
            return Err(DecodeError::corrupt(contents_at, "table of contents", "the series are outside"));
        }
        let mut index =
            Index { bytes, version, symbols: Vec::new(), symbols_start: 0, series: series_at..series_end };
        index.read_symbols(symbols_at)?;
        Ok(index)
    }

    /// A walk over all series, in order of their labels.
    pub fn series(&self) -> SeriesWalk<'_, 'a> {
        SeriesWalk { index: self, at: self.series.start }
    }

    /// How much of a walk is done, between 0 and 1.
    pub fn progress(&self, walk: &SeriesWalk<'_, '_>) -> f64 {
        let done = walk.at.saturating_sub(self.series.start);
        done as f64 / self.series.len().max(1) as f64
    }

    fn read_symbols(&mut self, at: usize) -> Result<(), DecodeError> {
        let mut cursor = self.cursor(at)?;
        let len = u32::from_be_bytes(cursor.array("length of the symbols")?) as usize;
        let start = cursor.offset();
        let symbols = cursor.take(len, "symbols")?;
        check_crc32c(
            symbols,
            u32::from_be_bytes(cursor.array("checksum of the symbols")?),
            start,
            "symbols",
        )?;
        if self.version == 1 {
            return Ok(());
        }
        let mut cursor = Cursor::with_base(symbols, start);
        let count = u32::from_be_bytes(cursor.array("number of symbols")?) as usize;
        if count > cursor.remaining() {
            return Err(cursor.corrupt("number of symbols", "more than there are bytes"));
        }
        self.symbols_start = start;
        self.symbols.reserve(count);
        for _ in 0..count {
            self.symbols.push((cursor.offset() - start) as u32);
            cursor.text("symbol")?;
        }
        Ok(())
    }

    fn symbol(&self, reference: u64, cursor: &Cursor<'_>) -> Result<&'a str, DecodeError> {
        let number = usize::try_from(reference).ok();
        let at = match self.version {
            1 => number,
            _ => number
                .and_then(|number| self.symbols.get(number))
                .map(|&offset| self.symbols_start + offset as usize),
        };
        let at = at.ok_or_else(|| cursor.corrupt("label", "there is no such symbol"))?;
        self.cursor(at)?.text("symbol")
    }

    fn cursor(&self, at: usize) -> Result<Cursor<'a>, DecodeError> {
        let end = DecodeError { kind: DecodeErrorKind::Truncated, offset: self.bytes.len(), what: "index" };
        Ok(Cursor::with_base(self.bytes.get(at..).ok_or(end)?, at))
    }
}

/// A walk over the series of an index.
#[derive(Debug)]
pub struct SeriesWalk<'i, 'a> {
    index: &'i Index<'a>,
    at: usize,
}

impl SeriesWalk<'_, '_> {
    /// The next series, over the one before. `false`: there is none.
    ///
    /// # Errors
    /// It is damaged. What follows cannot be found then.
    pub fn next(&mut self, series: &mut BlockSeries) -> Result<bool, DecodeError> {
        let (index, end) = (self.index, self.index.series.end);
        if index.version > 1 {
            self.at = self.at.next_multiple_of(ALIGNMENT);
        }
        if self.at >= end {
            return Ok(false);
        }
        let mut cursor = Cursor::with_base(&index.bytes[self.at..end], self.at);
        let entry = cursor.block("series")?;
        if entry.is_empty() {
            // What fills the space up to the next section.
            self.at = end;
            return Ok(false);
        }
        let start = cursor.offset() - entry.len();
        check_crc32c(entry, u32::from_be_bytes(cursor.array("checksum of a series")?), start, "series")?;
        series.reference = match index.version {
            1 => self.at as u64,
            _ => (self.at / ALIGNMENT) as u64,
        };
        self.at = cursor.offset();
        let mut cursor = Cursor::with_base(entry, start);
        series.labels = labels(index, &mut cursor)?;
        read_chunks(&mut cursor, &mut series.chunks)?;
        Ok(true)
    }
}

fn contents(bytes: &[u8], at: usize) -> Result<[usize; 6], DecodeError> {
    let mut cursor = Cursor::with_base(bytes, at);
    let offsets = cursor.take(CONTENTS_BYTES - 4, "table of contents")?;
    let stored = u32::from_be_bytes(cursor.array("table of contents")?);
    check_crc32c(offsets, stored, at, "table of contents")?;
    let mut out = [0; 6];
    for (out, bytes) in out.iter_mut().zip(offsets.as_chunks::<8>().0) {
        *out = usize::try_from(u64::from_be_bytes(*bytes)).unwrap_or(usize::MAX);
    }
    Ok(out)
}

fn labels(index: &Index<'_>, cursor: &mut Cursor<'_>) -> Result<Labels, DecodeError> {
    let count = cursor.count(2, "number of labels")?;
    let mut pairs = Vec::with_capacity(16);
    for _ in 0..count {
        let (name, value) = (cursor.uvarint("label")?, cursor.uvarint("label")?);
        pairs.push((index.symbol(name, cursor)?, index.symbol(value, cursor)?));
    }
    Labels::from_pairs(pairs).map_err(|_| cursor.corrupt("labels", "they are no label set"))
}

fn read_chunks(cursor: &mut Cursor<'_>, chunks: &mut Vec<ChunkRef>) -> Result<(), DecodeError> {
    chunks.clear();
    let count = cursor.count(3, "number of chunks")?;
    let (mut max_ms, mut place) = (0i64, 0i64);
    for i in 0..count {
        let (min_ms, len_ms) = if i == 0 {
            (cursor.ivarint("time of a chunk")?, cursor.uvarint("length of a chunk's time")?)
        } else {
            let gap_ms = cursor.uvarint("time of a chunk")? as i64;
            (max_ms.wrapping_add(gap_ms), cursor.uvarint("length of a chunk's time")?)
        };
        max_ms = min_ms.wrapping_add(len_ms as i64);
        place = match i {
            0 => cursor.uvarint("place of a chunk")? as i64,
            _ => place.wrapping_add(cursor.ivarint("place of a chunk")?),
        };
        // The number of the segment, then where in it.
        let (segment, offset) = ((place as u64 >> 32) as u32, place as u32);
        chunks.push(ChunkRef { segment, offset, min_ms, max_ms });
    }
    Ok(())
}
