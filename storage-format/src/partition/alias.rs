//! ALIAS: a chunk that another one of the file gives, but for its first integer.
//!
//! Counters of one target often move in step: requests and responses, packets and interrupts. Their
//! DEC chunks then differ in the first integer alone, as their statistics count from it. The later
//! one is stored as `head; varint distance back to the start of the other; varint its length;
//! ivarint own first integer`.

use crate::chunk::stats::Stored;
use crate::chunk::{KIND_ALIAS, KIND_DEC, KIND_MASK, KIND_STATS, MAX_CHUNK_SAMPLES};
use crate::cursor::{Cursor, DecodeError};
use crate::series_id::IdentitySeed;
use crate::varint::{put_uvarint, zigzag};
use foldhash::fast::RandomState;
use std::collections::HashMap;
use std::ops::Range;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// So many chunks are remembered at most: they fill a table of some four megabytes.
const REMEMBERED_MAX: usize = 7 << 14;
/// Chunks that are shorter gain nothing.
const WORTH_BYTES: usize = 10;
const WHAT: &str = "alias";

/// What is left when the first integer is taken out of a DEC chunk without exceptions: statistics and
/// the heads of chunk and stream, and what follows the integer.
fn without_first(chunk: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut cursor = Cursor::new(chunk);
    if chunk.first()? & KIND_MASK == KIND_STATS
        && !Stored::read(&mut cursor, MAX_CHUNK_SAMPLES).ok()?.counts_from_first()
    {
        return None;
    }
    // A parameter below 16 says: no exceptions.
    if cursor.u8(WHAT).ok()? & 0b1000_0111 != KIND_DEC {
        return None;
    }
    cursor.u8(WHAT).ok()?;
    let heads = &chunk[..cursor.position()];
    cursor.uvarint(WHAT).ok()?;
    Some((heads, cursor.rest()))
}

/// Finds chunks that can be aliases.
#[derive(Debug)]
pub(crate) struct AliasWriter {
    seed: IdentitySeed,
    /// Where a chunk of this content starts, from the start of DATA, and how long it is. Content is
    /// known by a seeded hash of 128 bits, as a series is by its identity.
    seen: HashMap<u128, (u64, usize), RandomState>,
    content: Vec<u8>,
}

impl AliasWriter {
    pub(crate) fn new(seed: IdentitySeed) -> AliasWriter {
        AliasWriter { seed, seen: HashMap::default(), content: Vec::new() }
    }

    /// Replaces `chunk`, of `n` samples and about to be written at `offset` in DATA, by an alias if
    /// that is shorter.
    pub(crate) fn shorten(&mut self, n: usize, offset: u64, chunk: &mut Vec<u8>) {
        if chunk.len() < WORTH_BYTES {
            return;
        }
        let Some((heads, rest)) = without_first(chunk) else { return };
        self.content.clear();
        self.content.extend_from_slice(&(n as u64).to_le_bytes());
        self.content.extend_from_slice(heads);
        self.content.extend_from_slice(rest);
        let hash = xxh3_128_with_seed(&self.content, self.seed.0);
        let Some(&(owner, len)) = self.seen.get(&hash) else {
            if self.seen.len() < REMEMBERED_MAX {
                self.seen.insert(hash, (offset, chunk.len()));
            }
            return;
        };
        let mut alias = vec![KIND_ALIAS];
        put_uvarint(&mut alias, offset - owner);
        put_uvarint(&mut alias, len as u64);
        alias.extend_from_slice(&chunk[heads.len()..chunk.len() - rest.len()]);
        if alias.len() < chunk.len() {
            *chunk = alias;
        }
    }
}

/// An alias as it is stored.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Alias {
    distance: u64,
    len: u64,
    first: i64,
    /// Where the alias lies in the file.
    at: usize,
}

impl Alias {
    /// Reads the chunk at `at` of a file if it is an alias.
    pub(crate) fn read(chunk: &[u8], at: usize) -> Result<Option<Alias>, DecodeError> {
        let mut cursor = Cursor::with_base(chunk, at);
        match cursor.clone().u8("chunk head")? {
            KIND_ALIAS => cursor.u8(WHAT)?,
            _ => return Ok(None),
        };
        let (distance, len) = (cursor.uvarint(WHAT)?, cursor.uvarint(WHAT)?);
        let first = cursor.ivarint(WHAT)?;
        crate::chunk::finish(&cursor)?;
        Ok(Some(Alias { distance, len, first, at }))
    }

    /// Where in the file the chunk lies that this one is like; before it, behind `data_start`.
    pub(crate) fn owner(&self, data_start: usize) -> Result<Range<usize>, DecodeError> {
        let start = usize::try_from(self.distance).ok().and_then(|distance| self.at.checked_sub(distance));
        match (start, self.len <= self.distance) {
            (Some(start), true) if start >= data_start => Ok(start..start + self.len as usize),
            _ => Err(DecodeError::corrupt(self.at, WHAT, "its chunk is out of bounds")),
        }
    }

    /// The chunk that the alias stands for.
    pub(crate) fn resolve(&self, owner: &[u8]) -> Result<Vec<u8>, DecodeError> {
        let corrupt = DecodeError::corrupt(self.at, WHAT, "not of a decimal chunk without exceptions");
        let (heads, rest) = without_first(owner).ok_or(corrupt)?;
        let mut chunk = heads.to_vec();
        put_uvarint(&mut chunk, zigzag(self.first));
        chunk.extend_from_slice(rest);
        Ok(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::{ChunkValues, Packing, chunk_stats, decode_floats, encode_chunk, encode_floats};

    fn chunk(values: &[f64]) -> Vec<u8> {
        let mut chunk = Vec::new();
        encode_floats(values, Packing::KEPT, &mut chunk);
        chunk
    }

    fn values(first: f64) -> Vec<f64> {
        (0..50).map(|i| first + f64::from(i * i % 17) / 2.0).collect()
    }

    #[test]
    fn a_chunk_that_differs_in_its_first_value_becomes_an_alias() {
        let mut writer = AliasWriter::new(IdentitySeed(1));
        let (owner, far) = (chunk(&values(3.0)), values(-1234567.5));
        let mut kept = owner.clone();
        writer.shorten(50, 70, &mut kept);
        assert_eq!(kept, owner);
        let mut alias = chunk(&far);
        writer.shorten(50, 470, &mut alias);
        assert!(alias.len() < WORTH_BYTES, "{} bytes", alias.len());
        let read = Alias::read(&alias, 570).unwrap().unwrap();
        assert_eq!(read.owner(100), Ok(170..170 + owner.len()));
        assert!(read.owner(171).is_err());
        let mut decoded = Vec::new();
        decode_floats(&read.resolve(&owner).unwrap(), 50, &mut decoded).unwrap();
        assert_eq!(decoded, far);
        for cut in 0..alias.len() {
            assert!(Alias::read(&alias[..cut], 0).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn statistics_of_an_alias_are_its_own() {
        let timestamps: Vec<i64> = (0..50).collect();
        let with_stats = |values: &[f64]| {
            let mut chunk = Vec::new();
            let packing = Packing { stats_from: 0, ..Packing::KEPT };
            encode_chunk(&timestamps, ChunkValues::Floats(values), &[], packing, &mut chunk);
            chunk
        };
        let mut writer = AliasWriter::new(IdentitySeed(1));
        let owner = with_stats(&values(3.0));
        writer.shorten(50, 70, &mut owner.clone());
        let far = with_stats(&values(-1234567.5));
        let mut alias = far.clone();
        writer.shorten(50, 470, &mut alias);
        let read = Alias::read(&alias, 570).unwrap().unwrap();
        let resolved = read.resolve(&owner).unwrap();
        assert_eq!(resolved, far);
        let stats = chunk_stats(&resolved, &timestamps).unwrap().unwrap();
        let summary = stats.summary.unwrap();
        assert_eq!((stats.last, summary.first), (-1234567.5 + 2.0, -1234567.5));
        assert_eq!((summary.min, summary.max), (-1234567.5, -1234567.5 + 8.0));
        assert_eq!(summary.sum, values(-1234567.5).iter().sum::<f64>());
        assert!(summary.resets > 0 && summary.resets_sum < -1e6 * summary.resets as f64);
    }

    #[test]
    fn other_chunks_stay_as_they_are() {
        let mut with_stale = values(3.0);
        with_stale[7] = crate::STALE_NAN;
        let noise: Vec<f64> = (0..50).map(|i| f64::from(i).sin()).collect();
        for values in [&values(3.0)[..49], &with_stale, &noise, &[2.5; 50]] {
            let mut writer = AliasWriter::new(IdentitySeed(1));
            writer.shorten(50, 0, &mut chunk(&self::values(3.0)));
            let mut once = chunk(values);
            writer.shorten(values.len(), 1000, &mut once);
            assert_eq!(once, chunk(values));
            assert_eq!(Alias::read(&once, 0), Ok(None));
        }
        assert!(Alias { distance: 9, len: 9, first: 0, at: 9 }.resolve(&chunk(&with_stale)).is_err());
    }
}
