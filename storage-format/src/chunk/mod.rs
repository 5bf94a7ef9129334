//! Compressed runs of one series: float and native-histogram codecs.
//!
//! A chunk holds the values of at most [`MAX_CHUNK_SAMPLES`] samples, floats or native histograms
//! but never both, and their start timestamps if the sender told any. How many samples there are,
//! and when they were taken, stands in the chunk's timestamp slice, not in the chunk. Its first
//! byte names the codec in the low three bits; the high five are the codec's own:
//!
//! | kind | | |
//! | --- | --- | --- |
//! | 0 | CONST | one value for all ([`float`]) |
//! | 1 | DEC | decimals, as integers over a power of ten |
//! | 2 | ULP | decimals that are off by a few units in the last place |
//! | 3 | BITS | any floats, by their bits |
//! | 4 | EXT | a second byte names the codec: 1, native histograms ([`histogram`]) |
//! | 5 | ST | start timestamps; another chunk head follows ([`start`]) |
//! | 6 | STATS | statistics of the float chunk that follows ([`stats`]) |
//! | 7 | ALIAS | another chunk of the partition, but for the first integer (`partition::alias`) |

mod decimal;
pub mod float;
pub mod histogram;
pub mod start;
pub mod stats;

use crate::cursor::{Cursor, DecodeError};
use crate::histogram::Histogram;
pub use crate::ints::Packing;
pub use crate::timestamps::MAX_CHUNK_SAMPLES;
pub use float::{decode_floats, encode_floats};
pub use stats::{ChunkStats, Summary};
use std::sync::Arc;

pub(crate) const KIND_BITS: u32 = 3;
pub(crate) const KIND_MASK: u8 = (1 << KIND_BITS) - 1;
pub(crate) const KIND_CONST: u8 = 0;
pub(crate) const KIND_DEC: u8 = 1;
pub(crate) const KIND_ULP: u8 = 2;
pub(crate) const KIND_BITS_OF_F64: u8 = 3;
pub(crate) const KIND_EXT: u8 = 4;
pub(crate) const KIND_ST: u8 = 5;
pub(crate) const KIND_STATS: u8 = 6;
pub(crate) const KIND_ALIAS: u8 = 7;
pub(crate) const EXT_HISTOGRAM: u8 = 1;

/// Where chunks start at multiples of eight, up to seven zero bytes follow them.
const PADDING_MAX: usize = 7;

/// The values of a chunk.
#[derive(Debug, Clone, Copy)]
pub enum ChunkValues<'a> {
    /// Floats, one per timestamp.
    Floats(&'a [f64]),
    /// Native histograms, one per timestamp, all of one layout: see [`histogram::layout_run`].
    Histograms(&'a [Arc<Histogram>]),
}

impl ChunkValues<'_> {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            ChunkValues::Floats(values) => values.len(),
            ChunkValues::Histograms(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a chunk decodes to. One of `floats` and `histograms` has an entry per timestamp, the other
/// is empty.
#[derive(Debug, Clone, Default)]
pub struct DecodedChunk {
    /// Floats, one per timestamp.
    pub floats: Vec<f64>,
    /// Native histograms, one per timestamp.
    pub histograms: Vec<Arc<Histogram>>,
    /// One start timestamp per timestamp, 0 for unknown; empty if none is known.
    pub start_timestamps: Vec<i64>,
}

/// Appends a chunk. `start_timestamps` is empty or holds one per timestamp, 0 for unknown.
///
/// # Panics
/// If the columns differ in length, or the histograms in layout.
pub fn encode_chunk(
    timestamps: &[i64],
    values: ChunkValues<'_>,
    start_timestamps: &[i64],
    packing: Packing,
    out: &mut Vec<u8>,
) {
    assert_eq!(timestamps.len(), values.len(), "one value per timestamp");
    start::encode(timestamps, start_timestamps, packing, out);
    match values {
        ChunkValues::Floats(values) => {
            let from = out.len();
            let ints = float::encode(values, packing, out);
            let is_constant = out.get(from).is_none_or(|head| head & KIND_MASK == KIND_CONST);
            if values.len() >= packing.stats_from && !is_constant {
                stats::put_before(values, ints.as_deref(), from, out);
            }
        }
        ChunkValues::Histograms(values) => histogram::encode(values, packing, out),
    }
}

/// Decodes the chunk at the start of `bytes`, whose samples were taken at `timestamps`. Behind it
/// up to seven zero bytes may follow.
///
/// # Errors
/// Bytes that no encoder writes, offsets counted from the start of `bytes`; more than
/// [`MAX_CHUNK_SAMPLES`] timestamps.
pub fn decode_chunk(bytes: &[u8], timestamps: &[i64]) -> Result<DecodedChunk, DecodeError> {
    const WHAT: &str = "chunk";
    let n = timestamps.len();
    let mut cursor = Cursor::new(bytes);
    if n > MAX_CHUNK_SAMPLES {
        return Err(cursor.corrupt(WHAT, "more than 4,096 samples"));
    }
    let mut decoded = DecodedChunk::default();
    if n == 0 {
        return Ok(decoded);
    }
    if kind(&cursor)? == KIND_ST {
        start::decode(&mut cursor, timestamps, &mut decoded.start_timestamps)?;
    }
    if kind(&cursor)? == KIND_STATS {
        stats::Stored::read(&mut cursor, n)?;
        if !matches!(kind(&cursor)?, KIND_DEC | KIND_ULP | KIND_BITS_OF_F64) {
            return Err(cursor.corrupt(WHAT, "statistics of a chunk that has none"));
        }
    }
    match kind(&cursor)? {
        KIND_EXT => histogram::decode(&mut cursor, n, &mut decoded.histograms)?,
        KIND_ST => return Err(cursor.corrupt(WHAT, "start timestamps twice")),
        KIND_ALIAS => return Err(cursor.corrupt(WHAT, "an alias of an alias, or outside of a partition")),
        _ => float::decode_from(&mut cursor, n, &mut decoded.floats)?,
    }
    finish(&cursor)?;
    Ok(decoded)
}

/// What is known without decoding its values of the chunk at the start of `bytes`, whose samples
/// were taken at `timestamps`. `None` if that is nothing: statistics are not worth their bytes in
/// a short chunk, and histograms have none.
///
/// # Errors
/// As [`decode_chunk`], but of what is behind the statistics nothing is looked at.
pub fn chunk_stats(bytes: &[u8], timestamps: &[i64]) -> Result<Option<ChunkStats>, DecodeError> {
    let n = timestamps.len();
    let mut cursor = Cursor::new(bytes);
    if n == 0 || n > MAX_CHUNK_SAMPLES {
        return Ok(None);
    }
    let mut starts = Vec::new();
    if kind(&cursor)? == KIND_ST {
        start::decode(&mut cursor, timestamps, &mut starts)?;
    }
    let stats = match kind(&cursor)? {
        KIND_STATS => stats::Stored::read(&mut cursor, n)?.of_chunk(cursor, n)?,
        KIND_CONST => ChunkStats::of_constant(float::read_constant(&mut cursor)?, n),
        _ => return Ok(None),
    };
    Ok(Some(ChunkStats { last_start_timestamp_ms: starts.last().copied().unwrap_or(0), ..stats }))
}

/// The value of the last of the `n` samples of the chunk at the start of `bytes`, the stale marker if it
/// is one, if that is known without decoding the values. `None` too for chunks with start timestamps,
/// of which [`chunk_stats`] may know more.
///
/// # Errors
/// As [`chunk_stats`].
pub fn chunk_last(bytes: &[u8], n: usize) -> Result<Option<f64>, DecodeError> {
    let mut cursor = Cursor::new(bytes);
    if n == 0 || n > MAX_CHUNK_SAMPLES {
        return Ok(None);
    }
    match kind(&cursor)? {
        KIND_STATS => stats::Stored::read(&mut cursor, n)?.last(&mut cursor, n).map(Some),
        KIND_CONST => float::read_constant(&mut cursor).map(Some),
        _ => Ok(None),
    }
}

/// Nothing but padding follows.
pub(crate) fn finish(cursor: &Cursor<'_>) -> Result<(), DecodeError> {
    if cursor.remaining() > PADDING_MAX || cursor.rest().iter().any(|&b| b != 0) {
        return Err(cursor.corrupt("chunk", "bytes are left over"));
    }
    Ok(())
}

/// The kind of the chunk that starts at the cursor.
fn kind(cursor: &Cursor<'_>) -> Result<u8, DecodeError> {
    Ok(cursor.clone().u8("chunk head")? & KIND_MASK)
}
