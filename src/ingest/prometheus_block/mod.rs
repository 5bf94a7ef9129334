//! Blocks of Prometheus' own storage: what lies in its data folder in folders named by 26 letters and
//! digits. Read after the description of the formats in Prometheus' `tsdb/docs/format`.
//!
//! A block is an index (symbols, then every series with where its chunks lie), segments of chunks,
//! tombstones, and `meta.json`. Whoever reads the files hands their bytes in:
//!
//! 1. [`BlockMeta::parse`] says what the block is, [`superseded`] which blocks count no more.
//! 2. [`Index::series`] walks over the series.
//! 3. [`chunk_at`] finds a chunk in its segment, [`Chunk::samples`] walks over its samples.
//! 4. [`Tombstones::deleted`] says which of them were deleted.

mod bits;
mod chunk;
mod histogram;
mod index;
mod meta;
#[cfg(test)]
mod tests;
mod tombstones;
mod xor;

pub use chunk::{Chunk, Samples, check_segment, chunk_at};
pub use index::{BlockSeries, ChunkRef, Index, SeriesWalk};
pub use meta::{BlockMeta, is_block_name, superseded};
pub use tombstones::Tombstones;
