//! Tombstones: deleted intervals of the series of one partition.
//!
//! A partition is never changed, so a delete writes a file beside it that says what readers must
//! leave out. A later delete writes a new file with all intervals, the old and the new ones; the
//! MANIFEST says which file counts. The next merge drops the samples and the file.

use crate::cursor::{Cursor, DecodeError};
use crate::envelope::{Unverified, seal};
use crate::series_id::SeriesId;
use crate::varint::{put_uvarint, zigzag};
use std::collections::BTreeMap;

/// The first eight bytes of a tombstone file.
pub const TOMBSTONES_MAGIC: &[u8; 8] = b"LARUMT01";

/// The fewest bytes of a series: its id, a count, one interval.
const SERIES_BYTES_MIN: usize = 16 + 1 + 2;

/// A closed interval of time: samples at both ends are deleted too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    /// Milliseconds since the epoch.
    pub min_ms: i64,
    /// Milliseconds since the epoch, not before `min_ms`.
    pub max_ms: i64,
}

impl Interval {
    /// Whether `timestamp_ms` lies in the interval.
    pub fn contains(&self, timestamp_ms: i64) -> bool {
        (self.min_ms..=self.max_ms).contains(&timestamp_ms)
    }
}

/// The deleted intervals of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstones {
    /// The number of the partition.
    pub partition: u64,
    /// The number of this file among the partition's tombstone files, from 1 on.
    pub number: u64,
    /// Per series, ascending and neither overlapping nor adjacent; never empty.
    intervals: BTreeMap<SeriesId, Vec<Interval>>,
}

impl Tombstones {
    /// Tombstones without any interval.
    pub fn new(partition: u64, number: u64) -> Tombstones {
        Tombstones { partition, number, intervals: BTreeMap::new() }
    }

    /// Deletes an interval of a series. One that ends before it begins deletes nothing.
    pub fn add(&mut self, id: SeriesId, interval: Interval) {
        if interval.min_ms > interval.max_ms {
            return;
        }
        let intervals = self.intervals.entry(id).or_default();
        // Those that touch the new one are one run of the list; they become one interval with it.
        let from = intervals.partition_point(|i| i.max_ms < interval.min_ms.saturating_sub(1));
        let to = intervals.partition_point(|i| i.min_ms <= interval.max_ms.saturating_add(1));
        let joined = intervals[from..to].iter().fold(interval, |a, b| Interval {
            min_ms: a.min_ms.min(b.min_ms),
            max_ms: a.max_ms.max(b.max_ms),
        });
        intervals.splice(from..to, [joined]);
    }

    /// The deleted intervals of a series, ascending.
    pub fn of(&self, id: SeriesId) -> &[Interval] {
        self.intervals.get(&id).map_or(&[], Vec::as_slice)
    }

    /// All series with deleted intervals, ascending by id.
    pub fn iter(&self) -> impl Iterator<Item = (SeriesId, &[Interval])> {
        self.intervals.iter().map(|(id, intervals)| (*id, intervals.as_slice()))
    }

    /// Whether nothing is deleted.
    pub fn is_empty(&self) -> bool {
        self.intervals.is_empty()
    }

    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        put_uvarint(&mut body, self.partition);
        put_uvarint(&mut body, self.number);
        put_uvarint(&mut body, self.intervals.len() as u64);
        for (id, intervals) in &self.intervals {
            body.extend_from_slice(&id.to_le_bytes());
            put_uvarint(&mut body, intervals.len() as u64);
            for interval in intervals {
                put_uvarint(&mut body, zigzag(interval.min_ms));
                put_uvarint(&mut body, interval.max_ms.wrapping_sub(interval.min_ms) as u64);
            }
        }
        seal(TOMBSTONES_MAGIC, &body)
    }

    /// Reads a whole file.
    ///
    /// # Errors
    /// Another kind of file, another version, damage: a wrong checksum, series or intervals out of
    /// order, touching intervals, an interval that ends beyond the last millisecond of i64.
    pub fn decode(bytes: &[u8]) -> Result<Tombstones, DecodeError> {
        const WHAT: &str = "tombstones";
        let mut cursor = Unverified::open(bytes, TOMBSTONES_MAGIC, WHAT)?.verify()?;
        let mut out = Tombstones::new(cursor.uvarint("partition number")?, cursor.uvarint(WHAT)?);
        let count = cursor.count(SERIES_BYTES_MIN, "number of series")?;
        let mut previous = None;
        for _ in 0..count {
            let start = cursor.clone();
            let id = SeriesId(cursor.u128("series id")?);
            if previous.is_some_and(|previous| previous >= id) {
                return Err(start.corrupt("series id", "not ascending"));
            }
            previous = Some(id);
            out.intervals.insert(id, decode_intervals(&mut cursor)?);
        }
        cursor.finish(WHAT)?;
        Ok(out)
    }
}

fn decode_intervals(cursor: &mut Cursor<'_>) -> Result<Vec<Interval>, DecodeError> {
    const WHAT: &str = "deleted interval";
    let count = cursor.count(2, "number of intervals")?;
    if count == 0 {
        return Err(cursor.corrupt(WHAT, "a series without intervals"));
    }
    let mut intervals: Vec<Interval> = Vec::with_capacity(count);
    for _ in 0..count {
        let start = cursor.clone();
        let (min_ms, len) = (cursor.ivarint(WHAT)?, cursor.uvarint(WHAT)?);
        let Some(max_ms) = min_ms.checked_add_unsigned(len) else {
            return Err(start.corrupt(WHAT, "it ends beyond the end of time"));
        };
        if intervals.last().is_some_and(|last| last.max_ms.saturating_add(1) >= min_ms) {
            return Err(start.corrupt(WHAT, "it touches the one before"));
        }
        intervals.push(Interval { min_ms, max_ms });
    }
    Ok(intervals)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn interval(min_ms: i64, max_ms: i64) -> Interval {
        Interval { min_ms, max_ms }
    }

    #[test]
    fn touching_intervals_become_one() {
        let mut tombstones = Tombstones::new(7, 1);
        let id = SeriesId(5);
        for (min, max) in [(10, 20), (40, 50), (21, 25), (60, 55), (0, 1), (24, 41), (i64::MAX, i64::MAX)] {
            tombstones.add(id, interval(min, max));
        }
        assert_eq!(tombstones.of(id), [interval(0, 1), interval(10, 50), interval(i64::MAX, i64::MAX)]);
        assert!(tombstones.of(id)[1].contains(50) && !tombstones.of(id)[1].contains(51));
        assert_eq!(tombstones.of(SeriesId(6)), []);
        assert_eq!(Tombstones::decode(&tombstones.encode()), Ok(tombstones));
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_refused() {
        let mut tombstones = Tombstones::new(7, 2);
        tombstones.add(SeriesId(1), interval(i64::MIN, i64::MAX));
        tombstones.add(SeriesId(2), interval(3, 4));
        let bytes = tombstones.encode();
        assert_eq!(Tombstones::decode(&bytes), Ok(tombstones));
        for at in 0..bytes.len() {
            assert!(Tombstones::decode(&bytes[..at]).is_err(), "cut at {at}");
            let mut changed = bytes.clone();
            changed[at] ^= 4;
            assert!(Tombstones::decode(&changed).is_err(), "byte {at} changed");
        }
    }

    proptest! {
        #[test]
        fn what_is_deleted_is_what_was_added(added in proptest::collection::vec((0..3u128, -50..50i64, 0..20i64), 0..40)) {
            let mut tombstones = Tombstones::new(1, 1);
            for &(id, min, len) in &added {
                tombstones.add(SeriesId(id), interval(min, min + len));
            }
            for id in 0..3 {
                for t in -60..80 {
                    let expected = added.iter().any(|&(i, min, len)| i == id && min <= t && t <= min + len);
                    let got = tombstones.of(SeriesId(id)).iter().any(|i| i.contains(t));
                    prop_assert_eq!(got, expected);
                }
            }
            prop_assert_eq!(Tombstones::decode(&tombstones.encode()), Ok(tombstones));
        }
    }
}
