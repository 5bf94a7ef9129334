//! How frames lie in a WAL segment, and which bytes of a segment are to be believed.
//!
//! A segment is a header and frames to the end of the file. Every frame has two checksums: one of
//! its eight bytes of length and payload checksum, so that a damaged length is not followed and
//! the next frame can be searched for; and one of its payload.

use crate::FORMAT_VERSION;
use crate::checksum::{check_crc32c, crc32c};
use crate::cursor::{Cursor, DecodeError, DecodeErrorKind};
use crate::envelope::check_magic_and_version;
use crate::series_id::IdentitySeed;

/// The first bytes of a segment.
pub const MAGIC: &[u8; 8] = b"LARUMWAL";

/// Length of what stands before a frame's payload.
pub const FRAME_PREFIX_BYTES: usize = 12;

/// What a segment says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The seed of the data folder.
    pub seed: IdentitySeed,
    /// The WAL generation.
    pub generation: u64,
    /// The position in the generation, from 0.
    pub segment: u32,
}

impl SegmentHeader {
    /// Length in bytes.
    pub const BYTES: usize = 36;

    /// The header's bytes.
    pub fn encode(&self) -> [u8; SegmentHeader::BYTES] {
        let mut out = [0; SegmentHeader::BYTES];
        out[..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        out[12..20].copy_from_slice(&self.seed.0.to_le_bytes());
        out[20..28].copy_from_slice(&self.generation.to_le_bytes());
        out[28..32].copy_from_slice(&self.segment.to_le_bytes());
        let crc = crc32c(&out[..32]);
        out[32..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the header of a segment. Its layout is the same in all versions, so that a damaged
    /// version is told from another.
    ///
    /// # Errors
    /// Another kind of file, a wrong checksum, another version, or too few bytes (torn).
    pub fn decode(segment: &[u8]) -> Result<SegmentHeader, DecodeError> {
        const WHAT: &str = "WAL segment header";
        let mut cursor = Cursor::new(segment);
        let version = check_magic_and_version(&mut cursor, MAGIC, WHAT);
        if let Err(error) = &version
            && !matches!(error.kind, DecodeErrorKind::Version { .. })
        {
            return Err(error.clone());
        }
        let header = SegmentHeader {
            seed: IdentitySeed(cursor.u64(WHAT)?),
            generation: cursor.u64(WHAT)?,
            segment: cursor.u32(WHAT)?,
        };
        let stored = cursor.u32(WHAT)?;
        check_crc32c(&segment[..SegmentHeader::BYTES - 4], stored, 0, WHAT)?;
        version.map(|()| header)
    }
}

/// Fills in the first [`FRAME_PREFIX_BYTES`] of `frame` for the payload behind them.
///
/// # Panics
/// If `frame` is shorter than its prefix or the payload 4 GiB or longer.
pub fn seal(frame: &mut [u8]) {
    let (prefix, payload) = frame.split_at_mut(FRAME_PREFIX_BYTES);
    let len = u32::try_from(payload.len()).expect("a frame is below 4 GiB");
    prefix[..4].copy_from_slice(&len.to_le_bytes());
    prefix[4..8].copy_from_slice(&crc32c(payload).to_le_bytes());
    let crc = crc32c(&prefix[..8]);
    prefix[8..].copy_from_slice(&crc.to_le_bytes());
}

/// What [`Frames`] met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found<'a> {
    /// A frame whose checksums are right.
    Frame {
        /// Where the frame begins in the segment.
        offset: usize,
        /// Its payload, still compressed.
        payload: &'a [u8],
    },
    /// Bytes that are no frame, although a frame follows them.
    Damage {
        /// The first of the bytes.
        offset: usize,
        /// How many.
        len: usize,
    },
    /// Bytes that are no frame, up to the end of the segment: what a write leaves behind that the
    /// end of the process or of the power cut short.
    Tail {
        /// The first of the bytes.
        offset: usize,
        /// How many.
        len: usize,
    },
}

/// The frames of a segment, in order.
#[derive(Debug, Clone)]
pub struct Frames<'a> {
    segment: &'a [u8],
    offset: usize,
}

impl<'a> Frames<'a> {
    /// The frames behind the header of `segment`.
    pub fn new(segment: &'a [u8]) -> Frames<'a> {
        Frames { segment, offset: SegmentHeader::BYTES.min(segment.len()) }
    }

    /// The payload of the frame at `offset`, if there is one and both its checksums are right.
    fn frame_at(&self, offset: usize) -> Option<&'a [u8]> {
        let rest = &self.segment[offset..];
        let prefix = rest.first_chunk::<FRAME_PREFIX_BYTES>()?;
        let word =
            |at: usize| u32::from_le_bytes([prefix[at], prefix[at + 1], prefix[at + 2], prefix[at + 3]]);
        // Zeros pass for a frame of no length only if their checksum were zero, which it is not.
        if crc32c(&prefix[..8]) != word(8) {
            return None;
        }
        let payload = rest.get(FRAME_PREFIX_BYTES..)?.get(..word(0) as usize)?;
        (crc32c(payload) == word(4)).then_some(payload)
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Found<'a>;

    fn next(&mut self) -> Option<Found<'a>> {
        let start = self.offset;
        if start == self.segment.len() {
            return None;
        }
        if let Some(payload) = self.frame_at(start) {
            self.offset = start + FRAME_PREFIX_BYTES + payload.len();
            return Some(Found::Frame { offset: start, payload });
        }
        let next = (start + 1..self.segment.len()).find(|&offset| self.frame_at(offset).is_some());
        self.offset = next.unwrap_or(self.segment.len());
        let len = self.offset - start;
        Some(match next {
            Some(_) => Found::Damage { offset: start, len },
            None => Found::Tail { offset: start, len },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: SegmentHeader = SegmentHeader { seed: IdentitySeed(7), generation: 3, segment: 1 };

    fn segment(payloads: &[&[u8]]) -> Vec<u8> {
        let mut out = HEADER.encode().to_vec();
        for payload in payloads {
            let start = out.len();
            out.extend_from_slice(&[0; FRAME_PREFIX_BYTES]);
            out.extend_from_slice(payload);
            seal(&mut out[start..]);
        }
        out
    }

    fn payloads(segment: &[u8]) -> Vec<&[u8]> {
        Frames::new(segment)
            .filter_map(|found| match found {
                Found::Frame { payload, .. } => Some(payload),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn a_header_comes_back_and_its_damage_is_named() {
        let bytes = HEADER.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(HEADER));
        for at in 0..bytes.len() {
            let mut bytes = bytes;
            bytes[at] ^= 1;
            let kind = SegmentHeader::decode(&bytes).unwrap_err().kind;
            match at {
                0..8 => assert_eq!(kind, DecodeErrorKind::Magic),
                _ => assert!(matches!(kind, DecodeErrorKind::Checksum { .. })),
            }
            assert!(SegmentHeader::decode(&bytes[..at]).unwrap_err().is_truncated() || at >= 8);
        }
        let mut other = bytes;
        other[8] = 9;
        let crc = crc32c(&other[..32]);
        other[32..].copy_from_slice(&crc.to_le_bytes());
        let kind = SegmentHeader::decode(&other).unwrap_err().kind;
        assert_eq!(kind, DecodeErrorKind::Version { found: 9, known: FORMAT_VERSION });
    }

    #[test]
    fn every_whole_frame_before_a_cut_is_there_and_nothing_else() {
        let whole = segment(&[b"one", b"", b"three three three"]);
        let ends = [SegmentHeader::BYTES + 15, SegmentHeader::BYTES + 27, whole.len()];
        for cut in SegmentHeader::BYTES..whole.len() {
            let expected = ends.iter().filter(|&&end| end <= cut).count();
            let found: Vec<_> = Frames::new(&whole[..cut]).collect();
            assert_eq!(payloads(&whole[..cut]).len(), expected, "cut at {cut}");
            let torn = found.iter().any(|f| matches!(f, Found::Tail { .. }));
            assert_eq!(torn, !ends.contains(&cut) && cut > SegmentHeader::BYTES, "cut at {cut}");
        }
    }

    #[test]
    fn a_flipped_byte_costs_one_frame() {
        let whole = segment(&[b"one", b"two", b"three"]);
        for at in SegmentHeader::BYTES..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x40;
            let lost = (at - SegmentHeader::BYTES) / 15;
            let mut expected: Vec<&[u8]> = vec![b"one", b"two", b"three"];
            expected.remove(lost.min(2));
            assert_eq!(payloads(&damaged), expected, "flipped at {at}");
        }
    }

    #[test]
    fn zeros_are_no_frames() {
        let mut bytes = segment(&[b"one"]);
        bytes.resize(bytes.len() + 100, 0);
        assert_eq!(payloads(&bytes).len(), 1);
        assert_eq!(
            Frames::new(&bytes).last(),
            Some(Found::Tail { offset: SegmentHeader::BYTES + 15, len: 100 })
        );
    }
}
