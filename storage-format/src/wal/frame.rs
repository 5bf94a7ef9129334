//! How frames lie in a WAL segment, and which bytes of a segment are to be believed.
//!
//! A segment is a header and frames to the end of the file. Every frame has two checksums: one of
//! its eight bytes of length and payload checksum, so that a damaged length is not followed and
//! the next frame can be searched for; and one of its payload. The first is salted with what the
//! header tells. Of that the seed of the data folder is for label values, which are in a log as they
//! came: whoever sent them must not be able to write a frame that a search after damage would find.
//! Generation and segment are for frames of removed segments, which a power cut may bring to light
//! where their blocks are used again. None of it need be read from the header: a folder knows its
//! seed, and a file its numbers by its name.

use crate::FORMAT_VERSION;
use crate::checksum::{check_crc32c, crc32c, crc32c_append};
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
        // Its checksum is looked at below.
        let version = check_magic_and_version(&mut cursor, MAGIC, WHAT, &[]);
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

    /// What the checksums of prefixes in this segment go on from.
    fn salt(&self) -> u32 {
        let of_seed = crc32c(&self.seed.0.to_le_bytes());
        let of_generation = crc32c_append(of_seed, &self.generation.to_le_bytes());
        crc32c_append(of_generation, &self.segment.to_le_bytes())
    }
}

/// Fills in length and checksum of the payload that lies behind the first [`FRAME_PREFIX_BYTES`] of
/// `frame`: all but what [`seal`] does.
///
/// # Panics
/// If `frame` is shorter than its prefix or the payload 4 GiB or longer.
pub fn measure(frame: &mut [u8]) {
    let (prefix, payload) = frame.split_at_mut(FRAME_PREFIX_BYTES);
    let len = u32::try_from(payload.len()).expect("a frame is below 4 GiB");
    prefix[..4].copy_from_slice(&len.to_le_bytes());
    prefix[4..8].copy_from_slice(&crc32c(payload).to_le_bytes());
}

/// Binds a measured frame to the segment that it is written to. Does not read the payload.
///
/// # Panics
/// If `frame` is shorter than its prefix.
pub fn seal(frame: &mut [u8], segment: SegmentHeader) {
    let crc = crc32c_append(segment.salt(), &frame[..8]);
    frame[8..FRAME_PREFIX_BYTES].copy_from_slice(&crc.to_le_bytes());
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

/// The frames of a segment, in order. Time is linear in the length of the segment, whatever is in
/// it: no byte is read as a part of two payloads.
#[derive(Debug, Clone)]
pub struct Frames<'a> {
    segment: &'a [u8],
    salt: u32,
    offset: usize,
    /// The frame at `offset`, if a search has come upon it.
    met: Option<&'a [u8]>,
}

/// What the bytes at an offset look like.
enum At<'a> {
    /// The prefix and the payload of a frame.
    Frame(&'a [u8]),
    /// The prefix of a frame with so many bytes of a payload that is not right.
    Broken(usize),
    Nothing,
}

impl<'a> Frames<'a> {
    /// The frames behind the header of `segment`, which is to be the one that `header` tells of,
    /// whatever its own says.
    pub fn new(segment: &'a [u8], header: SegmentHeader) -> Frames<'a> {
        let offset = SegmentHeader::BYTES.min(segment.len());
        Frames { segment, salt: header.salt(), offset, met: None }
    }

    fn look_at(&self, offset: usize) -> At<'a> {
        let rest = &self.segment[offset..];
        let Some((prefix, rest)) = rest.split_first_chunk::<FRAME_PREFIX_BYTES>() else { return At::Nothing };
        let word =
            |at: usize| u32::from_le_bytes([prefix[at], prefix[at + 1], prefix[at + 2], prefix[at + 3]]);
        if crc32c_append(self.salt, &prefix[..8]) != word(8) {
            return At::Nothing;
        }
        match rest.get(..word(0) as usize) {
            Some(payload) if crc32c(payload) == word(4) => At::Frame(payload),
            Some(payload) => At::Broken(payload.len()),
            None => At::Nothing,
        }
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Found<'a>;

    fn next(&mut self) -> Option<Found<'a>> {
        let start = self.offset;
        let mut met = self.met.take();
        while met.is_none() && self.offset < self.segment.len() {
            match self.look_at(self.offset) {
                At::Frame(payload) => met = Some(payload),
                // Only who knows the seed can have written the prefix, and it is of this segment: its
                // length is believed.
                At::Broken(len) => self.offset += FRAME_PREFIX_BYTES + len,
                At::Nothing => self.offset += 1,
            }
        }
        let len = self.offset - start;
        match met {
            Some(payload) if len == 0 => {
                self.offset += FRAME_PREFIX_BYTES + payload.len();
                Some(Found::Frame { offset: start, payload })
            }
            Some(_) => {
                self.met = met;
                Some(Found::Damage { offset: start, len })
            }
            None => (len > 0).then_some(Found::Tail { offset: start, len }),
        }
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
            measure(&mut out[start..]);
            seal(&mut out[start..], HEADER);
        }
        out
    }

    fn payloads(segment: &[u8]) -> Vec<&[u8]> {
        Frames::new(segment, HEADER)
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
            let found: Vec<_> = Frames::new(&whole[..cut], HEADER).collect();
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
            Frames::new(&bytes, HEADER).last(),
            Some(Found::Tail { offset: SegmentHeader::BYTES + 15, len: 100 })
        );
    }

    #[test]
    fn frames_of_another_folder_generation_or_segment_are_not_believed() {
        let whole = segment(&[b"one", b"two"]);
        let len = whole.len() - SegmentHeader::BYTES;
        for other in [
            SegmentHeader { seed: IdentitySeed(8), ..HEADER },
            SegmentHeader { generation: 4, ..HEADER },
            SegmentHeader { segment: 0, ..HEADER },
        ] {
            let found: Vec<_> = Frames::new(&whole, other).collect();
            assert_eq!(found, [Found::Tail { offset: SegmentHeader::BYTES, len }], "{other:?}");
        }
    }

    #[test]
    fn frames_within_frames_are_not_looked_into() {
        // Each holds the next: if all of them were checked, 540 GB would be read.
        let depth = 300_000;
        let mut bytes = HEADER.encode().to_vec();
        bytes.resize(SegmentHeader::BYTES + depth * FRAME_PREFIX_BYTES, 0);
        for level in 0..depth {
            let at = SegmentHeader::BYTES + level * FRAME_PREFIX_BYTES;
            let len = (bytes.len() - at - FRAME_PREFIX_BYTES) as u32;
            let prefix = &mut bytes[at..at + FRAME_PREFIX_BYTES];
            prefix[..4].copy_from_slice(&len.to_le_bytes());
            seal(prefix, HEADER);
        }
        let next = segment(&[b"next"]).split_off(SegmentHeader::BYTES);
        let len = bytes.len() - SegmentHeader::BYTES;
        bytes.extend_from_slice(&next);
        let found: Vec<_> = Frames::new(&bytes, HEADER).collect();
        assert_eq!(found[0], Found::Damage { offset: SegmentHeader::BYTES, len });
        assert_eq!(payloads(&bytes), [b"next"]);
    }
}
