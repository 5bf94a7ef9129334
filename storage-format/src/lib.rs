//! Larum's on-disk format: bytes to values and values to bytes, and nothing else.
//!
//! This crate knows no file, no clock and no thread. Whoever reads a file hands its bytes in;
//! whoever writes one takes bytes out. Every decoder is total: whatever the input, it returns a
//! value or an error, never panics, never loops without end, and never allocates more than the
//! input has paid for.
//!
//! `FORMAT.md` beside this folder specifies the bytes; its table of contents is the list of
//! modules below, and its hex examples are tests.

mod bits;
pub mod checksum;
pub mod chunk;
pub mod cursor;
mod envelope;
pub mod histogram;
mod huffman;
pub mod ints;
pub mod labels;
pub mod manifest;
pub mod metadata;
pub mod partition;
pub mod sample;
pub mod series_id;
pub mod timestamps;
pub mod tombstones;
pub mod varint;
pub mod wal;

pub use cursor::{Cursor, DecodeError, DecodeErrorKind};
pub use histogram::{CounterResetHint, Histogram, Span};
pub use labels::{Labels, LabelsBuilder, LabelsError};
pub use sample::{STALE_NAN, Sample, Samples, Value, is_stale};
pub use series_id::{IdentitySeed, SeriesId};

/// The version of every file this crate writes. Readers refuse any other, naming both.
pub const FORMAT_VERSION: u32 = 1;
