//! The MANIFEST: the commit point of storage.
//!
//! Whatever it does not name does not exist: a cut, a merge or a delete becomes real when the
//! MANIFEST is replaced by one that names its outcome. This module turns one into bytes and back;
//! writing, syncing and renaming the file is the storage's business.

use crate::cursor::{Cursor, DecodeError};
use crate::envelope::{Unverified, seal};
use crate::series_id::IdentitySeed;
use crate::varint::{put_uvarint, zigzag};

/// The first eight bytes of a MANIFEST.
pub const MANIFEST_MAGIC: &[u8; 8] = b"LARUMM01";

/// The fewest bytes a [`LivePartition`] takes, for bounding the allocation.
const PARTITION_BYTES_MIN: usize = 6;

/// Everything that storage must agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The seed of every [`crate::SeriesId`] in the folder.
    pub seed: IdentitySeed,
    /// WAL generations below this one are covered by partitions and may be deleted.
    pub first_generation: u64,
    /// The number of the next partition file; numbers are never used twice.
    pub next_number: u64,
    /// The live partitions, ascending by number.
    pub partitions: Vec<LivePartition>,
    /// Numbers of partitions that no longer belong to the database, but whose files may still be
    /// there, ascending. Nobody needs those files.
    pub retired: Vec<u64>,
}

/// One partition that belongs to the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LivePartition {
    /// Names the file.
    pub number: u64,
    /// Of two partitions with the same series and timestamp, the higher sequence wins.
    pub sequence: u64,
    /// Length of the file.
    pub byte_len: u64,
    /// Time of the oldest sample, in milliseconds since the epoch.
    pub min_ms: i64,
    /// Time of the newest sample, in milliseconds since the epoch.
    pub max_ms: i64,
    /// The number of its tombstone file, if samples were deleted from it. Counts up from 1.
    pub tombstones: Option<u64>,
}

impl Manifest {
    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        debug_assert!(self.partitions.is_sorted_by_key(|p| p.number));
        let mut body = Vec::new();
        body.extend_from_slice(&self.seed.0.to_le_bytes());
        put_uvarint(&mut body, self.first_generation);
        put_uvarint(&mut body, self.next_number);
        put_uvarint(&mut body, self.partitions.len() as u64);
        for p in &self.partitions {
            put_uvarint(&mut body, p.number);
            put_uvarint(&mut body, p.sequence);
            put_uvarint(&mut body, p.byte_len);
            put_uvarint(&mut body, zigzag(p.min_ms));
            put_uvarint(&mut body, zigzag(p.max_ms));
            put_uvarint(&mut body, p.tombstones.unwrap_or(0));
        }
        put_uvarint(&mut body, self.retired.len() as u64);
        self.retired.iter().for_each(|&number| put_uvarint(&mut body, number));
        seal(MANIFEST_MAGIC, &body)
    }

    /// Reads a whole MANIFEST: [`UnverifiedManifest::open`], then [`UnverifiedManifest::verify`].
    ///
    /// # Errors
    /// As those two.
    pub fn decode(bytes: &[u8]) -> Result<Manifest, DecodeError> {
        UnverifiedManifest::open(bytes)?.verify()
    }
}

/// Bytes that claim to be a MANIFEST of a known version; nothing else about them is trusted yet.
#[derive(Debug)]
pub struct UnverifiedManifest<'a>(Unverified<'a>);

impl<'a> UnverifiedManifest<'a> {
    /// Looks at magic and version only.
    ///
    /// # Errors
    /// Another kind of file, or another version of the format.
    pub fn open(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        Unverified::open(bytes, MANIFEST_MAGIC, "MANIFEST").map(UnverifiedManifest)
    }

    /// Checks length, checksum and content.
    ///
    /// # Errors
    /// Damage: a wrong length or checksum, partitions out of order or numbered at or beyond
    /// `next_number`, an inverted time range, a live partition that is retired.
    pub fn verify(self) -> Result<Manifest, DecodeError> {
        let mut cursor = self.0.verify()?;
        let seed = IdentitySeed(cursor.u64("identity seed")?);
        let first_generation = cursor.uvarint("first WAL generation")?;
        let next_number = cursor.uvarint("next partition number")?;
        let count = cursor.count(PARTITION_BYTES_MIN, "number of partitions")?;
        let mut partitions: Vec<LivePartition> = Vec::with_capacity(count);
        for _ in 0..count {
            let previous = partitions.last().map(|p| p.number);
            partitions.push(partition(&mut cursor, previous, next_number)?);
        }
        let count = cursor.count(1, "number of retired partitions")?;
        let mut retired: Vec<u64> = Vec::with_capacity(count);
        for _ in 0..count {
            let start = cursor.clone();
            let number = cursor.uvarint("retired partition number")?;
            if retired.last().is_some_and(|&previous| previous >= number) || number >= next_number {
                return Err(start.corrupt("retired partition number", "not ascending, or too high"));
            }
            if partitions.binary_search_by_key(&number, |p| p.number).is_ok() {
                return Err(start.corrupt("retired partition number", "of a live partition"));
            }
            retired.push(number);
        }
        cursor.finish("MANIFEST")?;
        Ok(Manifest { seed, first_generation, next_number, partitions, retired })
    }
}

fn partition(
    cursor: &mut Cursor<'_>,
    previous: Option<u64>,
    next_number: u64,
) -> Result<LivePartition, DecodeError> {
    let start = cursor.clone();
    let partition = LivePartition {
        number: cursor.uvarint("partition number")?,
        sequence: cursor.uvarint("partition sequence")?,
        byte_len: cursor.uvarint("partition length")?,
        min_ms: cursor.ivarint("partition's oldest time")?,
        max_ms: cursor.ivarint("partition's newest time")?,
        tombstones: Some(cursor.uvarint("tombstone file number")?).filter(|&n| n != 0),
    };
    if previous.is_some_and(|p| p >= partition.number) {
        return Err(start.corrupt("partition number", "not ascending"));
    }
    if partition.number >= next_number {
        return Err(start.corrupt("partition number", "not below the next number"));
    }
    if partition.min_ms > partition.max_ms {
        return Err(start.corrupt("partition", "its oldest time lies after its newest"));
    }
    Ok(partition)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::DecodeErrorKind;

    fn example() -> Manifest {
        Manifest {
            seed: IdentitySeed(0x0123_4567_89ab_cdef),
            first_generation: 7,
            next_number: 12,
            partitions: vec![
                LivePartition {
                    number: 3,
                    sequence: 3,
                    byte_len: 1 << 33,
                    min_ms: -5,
                    max_ms: 7_199_999,
                    tombstones: None,
                },
                LivePartition {
                    number: 11,
                    sequence: 9,
                    byte_len: 4096,
                    min_ms: i64::MIN,
                    max_ms: i64::MAX,
                    tombstones: Some(2),
                },
            ],
            retired: vec![2, 8],
        }
    }

    #[test]
    fn a_manifest_comes_back() {
        assert_eq!(Manifest::decode(&example().encode()), Ok(example()));
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_refused() {
        let bytes = example().encode();
        for cut in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x10;
            assert!(Manifest::decode(&changed).is_err(), "byte {at} changed");
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut bytes = example().encode();
        bytes[8] = 2;
        let error = UnverifiedManifest::open(&bytes).unwrap_err();
        assert!(matches!(error.kind, DecodeErrorKind::Corrupt(_)), "{error}: it was written as 1");
        bytes.push(0);
        let error = UnverifiedManifest::open(&bytes).unwrap_err();
        assert_eq!(error.kind, DecodeErrorKind::Version { found: 2, known: 1 });
        assert_eq!(UnverifiedManifest::open(&[0; 64]).unwrap_err().kind, DecodeErrorKind::Magic);
    }

    #[test]
    fn partitions_out_of_order_or_beyond_the_next_number_are_refused() {
        let mut manifest = example();
        manifest.next_number = 11;
        assert!(Manifest::decode(&manifest.encode()).is_err());
        let mut manifest = example();
        manifest.partitions[1].number = 3;
        assert!(Manifest::decode(&manifest.encode()).is_err());
        let mut manifest = example();
        manifest.partitions[0].min_ms = 7_200_000;
        assert!(Manifest::decode(&manifest.encode()).is_err());
        for retired in [[8, 2], [3, 8], [2, 12]] {
            let manifest = Manifest { retired: retired.into(), ..example() };
            assert!(Manifest::decode(&manifest.encode()).is_err());
        }
    }
}
