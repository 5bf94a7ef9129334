//! From raw label bytes to a series ref, without taking the labels apart.
//!
//! A series is looked up by a 128-bit hash of its label bytes as they came, with a secret that is
//! random per process, so that nobody can construct two that collide; bytes are not compared.
//! Senders repeat their series in one order, so the ref after the previous one is tried first:
//! that costs one comparison in memory that was just read.

use super::ref_table::RefTable;
use super::scrape_groups::Home;
use crate::storage::batch::ParseLabels;
use std::collections::HashMap;
use xxhash_rust::xxh3::xxh3_128_with_secret;

/// Other spellings of known series (another order of labels, another encoding) are remembered up to
/// this many, or as many as there are series; then all of them are forgotten.
const MIN_ALIASES: usize = 65_536;

/// The hash of a series' label bytes in one encoding; 0 means none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct RawHash(u64, u64);

/// Computes [`RawHash`]es.
pub(super) struct RawHasher {
    secret: [u8; 192],
}

impl RawHasher {
    /// A hasher with a secret of its own.
    ///
    /// # Errors
    /// If the operating system has no random bytes.
    pub fn new() -> Result<RawHasher, getrandom::Error> {
        let mut secret = [0; 192];
        getrandom::fill(&mut secret)?;
        Ok(RawHasher { secret })
    }

    /// The hash of `raw`, which `parser` would turn into labels.
    pub fn hash(&self, parser: ParseLabels, raw: &[u8]) -> RawHash {
        let hash = xxh3_128_with_secret(raw, &self.secret);
        // The same bytes may mean something else to another parser.
        let parser = (parser as usize as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        RawHash(hash as u64 ^ parser, (hash >> 64) as u64 | 1)
    }
}

/// Raw hashes and where the samples of a series go, by ref.
#[derive(Default)]
pub(super) struct Lookup {
    /// The hash under which a series is sent, as far as it is known.
    hashes: Vec<RawHash>,
    homes: Vec<Home>,
    /// Groups of all homes are below this.
    groups: usize,
    by_hash: RefTable,
    aliases: HashMap<RawHash, u32>,
}

impl Lookup {
    /// The series with this hash. `guess` is tried first.
    pub fn find(&self, hash: RawHash, guess: u32) -> Option<u32> {
        if self.hashes.get(guess as usize) == Some(&hash) {
            return Some(guess);
        }
        self.by_hash
            .find(hash.0, |series| self.hashes[series as usize] == hash)
            .or_else(|| self.aliases.get(&hash).copied())
    }

    /// Refs and groups are below these.
    pub fn bounds(&self) -> (usize, usize) {
        (self.homes.len(), self.groups)
    }

    /// Where the samples of a series go.
    pub fn home(&self, series: u32) -> Home {
        self.homes[series as usize]
    }

    /// Tells where the samples of a new series go.
    pub fn add(&mut self, series: u32, home: Home) {
        let at = series as usize;
        if self.homes.len() <= at {
            grow_by_an_eighth(&mut self.homes);
            grow_by_an_eighth(&mut self.hashes);
            self.homes.resize(at + 1, Home::default());
            self.hashes.resize(at + 1, RawHash::default());
        }
        self.homes[at] = home;
        self.groups = self.groups.max(home.group() as usize + 1);
        self.hashes[at] = RawHash::default();
    }

    /// Remembers the hash of a known series.
    pub fn learn(&mut self, series: u32, hash: RawHash) {
        let Lookup { hashes, homes, by_hash, aliases, .. } = self;
        let known = &mut hashes[series as usize];
        if *known == RawHash::default() {
            *known = hash;
            by_hash.insert(hash.0, series, |series| hashes[series as usize].0);
        } else if *known != hash {
            if aliases.len() >= homes.len().max(MIN_ALIASES) {
                aliases.clear();
            }
            aliases.insert(hash, series);
        }
    }

    /// Forgets the refs from `len` on; their series are gone.
    pub fn truncate(&mut self, len: usize) {
        truncate(&mut self.hashes, len);
        truncate(&mut self.homes, len);
        let hashes = &self.hashes;
        self.by_hash.shrink_if_sparse(|series| hashes[series as usize].0);
    }

    /// Forgets series, given in ascending order.
    pub fn remove(&mut self, gone: &[u32]) {
        let Lookup { hashes, by_hash, aliases, .. } = self;
        for &series in gone {
            let hash = hashes[series as usize];
            if hash != RawHash::default() {
                by_hash.remove(hash.0, series, |series| hashes[series as usize].0);
                hashes[series as usize] = RawHash::default();
            }
        }
        if !aliases.is_empty() {
            aliases.retain(|_, series| gone.binary_search(series).is_err());
        }
    }
}

/// Cuts a vector off, and gives its memory back if most of it is not needed any more.
pub(super) fn truncate<T>(vec: &mut Vec<T>, len: usize) {
    vec.truncate(len);
    if len < vec.capacity() / 2 {
        vec.shrink_to(len + len / 8);
    }
}

/// Room for one more; grows a long vector by an eighth instead of doubling it.
pub(super) fn grow_by_an_eighth<T>(vec: &mut Vec<T>) {
    if vec.len() == vec.capacity() {
        vec.reserve_exact((vec.len() / 8).max(64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use larum_storage_format::Labels;

    #[test]
    fn a_series_is_found_by_each_of_its_spellings_until_it_is_removed() {
        let hasher = RawHasher::new().unwrap();
        let hash = |raw: &[u8]| hasher.hash(Labels::from_canonical_bytes, raw);
        let mut lookup = Lookup::default();
        for series in 0..1000u32 {
            lookup.add(series, Home::new(series, 0));
            lookup.learn(series, hash(&series.to_le_bytes()));
        }
        lookup.learn(5, hash(b"five"));
        for series in 0..1000u32 {
            for guess in [series, 0, u32::MAX] {
                assert_eq!(lookup.find(hash(&series.to_le_bytes()), guess), Some(series));
            }
        }
        assert_eq!(lookup.find(hash(b"five"), 0), Some(5));
        assert_eq!(lookup.find(hash(b"six"), 6), None);
        lookup.remove(&[5, 6]);
        assert_eq!(lookup.find(hash(b"five"), 5), None);
        assert_eq!(lookup.find(hash(&6u32.to_le_bytes()), 6), None);
        assert_eq!(lookup.find(hash(&7u32.to_le_bytes()), 0), Some(7));
    }

    #[test]
    fn another_parser_makes_another_hash() {
        fn other(_: &[u8]) -> Result<Labels, larum_storage_format::LabelsError> {
            Ok(Labels::empty())
        }
        let hasher = RawHasher::new().unwrap();
        assert_ne!(hasher.hash(Labels::from_canonical_bytes, b"x"), hasher.hash(other, b"x"));
    }
}
