//! The partition file: header, sections, index and footer.
//!
//! One immutable file holds the samples of a time range: chunks first, so that a writer can stream
//! them, then the index. [`PartitionWriter`] takes series in ascending order of their ids and
//! writes to anything that takes bytes; [`Partition`] reads in place and verifies as it reads.
//!
//! | section | holds | module |
//! | --- | --- | --- |
//! | DATA | the chunks, by series, then by time | [`crate::chunk`] |
//! | TSCOL, TSDIR, TSREF | timestamp columns and slices | [`crate::timestamps`] |
//! | DIR | which chunk belongs to which series, and where it is | [`directory`] |
//! | SYMBOLS | every label name and value once, sorted | [`symbols`] |
//! | SERIES | identities, sorted, and label sets as symbol numbers | [`series`] |
//! | POSTINGS | for each name and value the series that have it | [`postings`] |
//! | CRC | a checksum per 16 KiB of everything above | [`extents`] |

mod alias;
pub mod directory;
pub mod extents;
pub mod header;
mod pairs;
pub mod postings;
mod reader;
pub mod series;
pub mod symbols;
pub(crate) mod tape;
#[cfg(test)]
mod tests;
mod writer;

pub use header::{Origin, PartitionHeader};
pub use pairs::PairKey;
pub use postings::LabelValues;
pub use reader::{Chunk, ChunkReader, Partition};
pub use series::LabelReader;
pub use tape::{Spill, SpillFile, Wound};
pub use writer::{Finished, PartitionWriter, WriteError, WriterOptions};
