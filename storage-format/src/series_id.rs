//! The identity of a series: computed from its labels, registered nowhere.

use crate::labels::Labels;
use std::fmt;
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128_with_seed};

/// The random seed of a data folder. It keeps anybody from constructing two label sets with one
/// identity. It stands in the MANIFEST, in every partition's header and in every WAL segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdentitySeed(pub u64);

/// The 128-bit identity of a series, the same in head, WAL and partitions of one data folder.
///
/// The top 32 bits come from the metric's name alone, so that the series of a metric lie together
/// wherever series are sorted by identity; the low 96 bits come from all the labels.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesId(pub u128);

impl SeriesId {
    /// xxh3 of the canonical label bytes, with the top 32 bits replaced by those of the name's.
    pub fn of(labels: &Labels, seed: IdentitySeed) -> SeriesId {
        let all = xxh3_128_with_seed(labels.as_bytes(), seed.0);
        let name = xxh3_64_with_seed(labels.metric_name().unwrap_or("").as_bytes(), seed.0);
        SeriesId((u128::from(name >> 32) << 96) | (all & (u128::MAX >> 32)))
    }

    /// Little-endian bytes, as on disk.
    pub fn to_le_bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }

    /// The inverse of [`SeriesId::to_le_bytes`].
    pub fn from_le_bytes(bytes: [u8; 16]) -> SeriesId {
        SeriesId(u128::from_le_bytes(bytes))
    }
}

impl fmt::Debug for SeriesId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(pairs: &[(&str, &str)], seed: u64) -> SeriesId {
        SeriesId::of(&Labels::from_pairs(pairs.iter().copied()).unwrap(), IdentitySeed(seed))
    }

    #[test]
    fn series_of_one_metric_share_the_top_bits_only() {
        let a = id(&[("__name__", "up"), ("job", "a")], 7);
        let b = id(&[("__name__", "up"), ("job", "b")], 7);
        assert_eq!(a.0 >> 96, b.0 >> 96);
        assert_ne!(a, b);
    }

    #[test]
    fn another_seed_gives_another_identity() {
        assert_ne!(id(&[("a", "b")], 1), id(&[("a", "b")], 2));
        assert_eq!(id(&[("a", "b")], 1), id(&[("a", "b")], 1));
    }
}
