//! The write-ahead log: segments of frames, one frame for each batch.
//!
//! [`frame`] knows how frames lie in a segment and which bytes are to be believed; [`record`] knows
//! what is in a frame.

pub mod frame;
mod histogram;
pub mod record;

pub use frame::{Frames, SegmentHeader};
pub use record::{Contents, Exemplar, FrameEncoder, FrameTooLong, SeriesDeclaration};
