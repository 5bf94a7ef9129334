//! One file of the log.

use crate::storage::fs::{Fs, WriteFile, at_path};
use larum_storage_format::IdentitySeed;
use larum_storage_format::wal::SegmentHeader;
use larum_storage_format::wal::frame::seal;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The longest segment, unless a single frame is longer.
const SEGMENT_BYTES_MAX: u64 = 8 << 20;

/// The shortest.
const SEGMENT_BYTES_MIN: u64 = 4 << 10;

/// A segment is preallocated and filled up to this, where the WAL is cut after `wal_bytes`.
pub(crate) fn segment_bytes(wal_bytes: u64) -> u64 {
    (wal_bytes / 8).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX)
}

/// `GENERATION-SEGMENT.wal`, decimal with leading zeros, so that names sort as they were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SegmentName {
    pub generation: u64,
    pub segment: u32,
}

impl SegmentName {
    /// What `name` says, if it is the name of a segment.
    pub fn parse(name: &str) -> Option<SegmentName> {
        let (generation, segment) = name.strip_suffix(".wal")?.split_once('-')?;
        let parsed = SegmentName { generation: generation.parse().ok()?, segment: segment.parse().ok()? };
        (parsed.file_name() == name).then_some(parsed)
    }

    fn file_name(&self) -> String {
        format!("{:010}-{:06}.wal", self.generation, self.segment)
    }

    /// What the header of the segment must tell, in a folder of this seed.
    pub fn header(&self, seed: IdentitySeed) -> SegmentHeader {
        SegmentHeader { seed, generation: self.generation, segment: self.segment }
    }

    /// Where the segment lies.
    pub fn path(&self, dir: &Path) -> PathBuf {
        dir.join(self.file_name())
    }
}

/// A segment that is being written.
#[derive(Debug)]
pub(super) struct Segment {
    file: Arc<dyn WriteFile>,
    header: SegmentHeader,
    /// Where the last whole frame ends.
    len: u64,
}

impl Segment {
    /// Creates a segment with its header.
    pub fn create(fs: &dyn Fs, dir: &Path, header: SegmentHeader, segment_bytes: u64) -> io::Result<Segment> {
        let path = SegmentName { generation: header.generation, segment: header.segment }.path(dir);
        let file: Arc<dyn WriteFile> = fs.create(&path)?.into();
        let begun = file.preallocate(segment_bytes).and_then(|()| file.append(&header.encode()));
        if let Err(e) = begun {
            let _ = fs.remove(&path);
            return Err(at_path(&path)(e));
        }
        Ok(Segment { file, header, len: SegmentHeader::BYTES as u64 })
    }

    /// Whether the segment takes a frame of this length. An empty one takes any.
    pub fn has_room(&self, frame_bytes: usize, segment_bytes: u64) -> bool {
        self.len == SegmentHeader::BYTES as u64 || self.len + frame_bytes as u64 <= segment_bytes
    }

    /// Seals a frame and writes it in one call.
    pub fn append(&mut self, frame: &mut [u8]) -> io::Result<()> {
        seal(frame, self.header);
        self.file.append(frame)?;
        self.len += frame.len() as u64;
        Ok(())
    }

    /// Removes what a failed [`Segment::append`] may have left.
    pub fn take_back(&self) -> io::Result<()> {
        self.file.truncate(self.len)
    }

    /// Length of header and frames.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The file, to be synced.
    pub fn file(&self) -> &Arc<dyn WriteFile> {
        &self.file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_others_are_not_ours() {
        let name = SegmentName { generation: 12, segment: 3 };
        assert_eq!(name.file_name(), "0000000012-000003.wal");
        assert_eq!(SegmentName::parse("0000000012-000003.wal"), Some(name));
        for other in ["12-3.wal", "0000000012-000003.wal.tmp", "x-000003.wal", "0000000012-+00003.wal"] {
            assert_eq!(SegmentName::parse(other), None, "{other}");
        }
    }
}
