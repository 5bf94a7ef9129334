//! Tombstones: deleted intervals of the series of one partition.
//!
//! A partition is never changed, so a delete writes a file beside it that says what readers must
//! leave out. A later delete writes a new file with all intervals, the old and the new ones; the
//! MANIFEST says which file counts. The next merge drops the samples and the file.

use crate::cursor::{Cursor, DecodeError};
use crate::envelope::{Unverified, seal};
use crate::series_id::SeriesId;
use crate::varint::{put_uvarint, zigzag};

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
///
/// A deletion may hit all series of all partitions, and all of it is in memory as long as it waits for
/// merges: 40 bytes for a series with one interval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstones {
    /// The number of the partition.
    pub partition: u64,
    /// The number of this file among the partition's tombstone files, from 1 on.
    pub number: u64,
    /// Ascending.
    ids: Vec<SeriesId>,
    /// Where the intervals of each series end.
    ends: Vec<usize>,
    /// Of one series after the other; of each ascending, neither overlapping nor adjacent, at least one.
    intervals: Vec<Interval>,
}

impl Tombstones {
    /// Tombstones of these intervals, in any order. One that ends before it begins deletes nothing.
    pub fn new(partition: u64, number: u64, mut deleted: Vec<(SeriesId, Interval)>) -> Tombstones {
        deleted.retain(|(_, interval)| interval.min_ms <= interval.max_ms);
        // It is mostly put together of few lists that are sorted.
        deleted.sort_by_key(|(id, interval)| (*id, interval.min_ms));
        let series = deleted.chunk_by(|a, b| a.0 == b.0).count();
        let mut out = Tombstones::empty(partition, number, series);
        out.intervals.reserve_exact(series);
        for of_series in deleted.chunk_by(|a, b| a.0 == b.0) {
            let from = out.intervals.len();
            for (_, interval) in of_series {
                match out.intervals[from..].last_mut() {
                    Some(last) if last.max_ms.saturating_add(1) >= interval.min_ms => {
                        last.max_ms = last.max_ms.max(interval.max_ms);
                    }
                    _ => out.intervals.push(*interval),
                }
            }
            out.end_series(of_series[0].0);
        }
        out
    }

    fn empty(partition: u64, number: u64, series: usize) -> Tombstones {
        let (ids, ends) = (Vec::with_capacity(series), Vec::with_capacity(series));
        Tombstones { partition, number, ids, ends, intervals: Vec::new() }
    }

    /// The intervals behind those of the series before are of this one.
    fn end_series(&mut self, id: SeriesId) {
        self.ids.push(id);
        self.ends.push(self.intervals.len());
    }

    fn at(&self, place: usize) -> &[Interval] {
        let start = place.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.intervals[start..self.ends[place]]
    }

    /// The deleted intervals of a series, ascending.
    pub fn of(&self, id: SeriesId) -> &[Interval] {
        self.ids.binary_search(&id).map_or(&[], |place| self.at(place))
    }

    /// All series with deleted intervals, ascending by id.
    pub fn iter(&self) -> impl Iterator<Item = (SeriesId, &[Interval])> {
        self.ids.iter().enumerate().map(|(place, id)| (*id, self.at(place)))
    }

    /// All intervals with their series, as [`Tombstones::new`] takes them.
    pub fn each(&self) -> impl Iterator<Item = (SeriesId, Interval)> {
        self.iter().flat_map(|(id, intervals)| intervals.iter().map(move |interval| (id, *interval)))
    }

    /// Whether nothing is deleted.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        put_uvarint(&mut body, self.partition);
        put_uvarint(&mut body, self.number);
        put_uvarint(&mut body, self.ids.len() as u64);
        for (id, intervals) in self.iter() {
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
        let (partition, number) = (cursor.uvarint("partition number")?, cursor.uvarint(WHAT)?);
        let count = cursor.count(SERIES_BYTES_MIN, "number of series")?;
        let mut out = Tombstones::empty(partition, number, count);
        out.intervals.reserve_exact(count);
        for _ in 0..count {
            let start = cursor.clone();
            let id = SeriesId(cursor.u128("series id")?);
            if out.ids.last().is_some_and(|&previous| previous >= id) {
                return Err(start.corrupt("series id", "not ascending"));
            }
            decode_intervals(&mut cursor, &mut out.intervals)?;
            out.end_series(id);
        }
        cursor.finish(WHAT)?;
        Ok(out)
    }
}

fn decode_intervals(cursor: &mut Cursor<'_>, out: &mut Vec<Interval>) -> Result<(), DecodeError> {
    const WHAT: &str = "deleted interval";
    let count = cursor.count(2, "number of intervals")?;
    if count == 0 {
        return Err(cursor.corrupt(WHAT, "a series without intervals"));
    }
    let from = out.len();
    for _ in 0..count {
        let start = cursor.clone();
        let (min_ms, len) = (cursor.ivarint(WHAT)?, cursor.uvarint(WHAT)?);
        let Some(max_ms) = min_ms.checked_add_unsigned(len) else {
            return Err(start.corrupt(WHAT, "it ends beyond the end of time"));
        };
        if out[from..].last().is_some_and(|last| last.max_ms.saturating_add(1) >= min_ms) {
            return Err(start.corrupt(WHAT, "it touches the one before"));
        }
        out.push(Interval { min_ms, max_ms });
    }
    Ok(())
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
        let id = SeriesId(5);
        let added = [(10, 20), (40, 50), (21, 25), (60, 55), (0, 1), (24, 41), (i64::MAX, i64::MAX)];
        let tombstones = Tombstones::new(7, 1, added.map(|(min, max)| (id, interval(min, max))).into());
        assert_eq!(tombstones.of(id), [interval(0, 1), interval(10, 50), interval(i64::MAX, i64::MAX)]);
        assert!(tombstones.of(id)[1].contains(50) && !tombstones.of(id)[1].contains(51));
        assert_eq!(tombstones.of(SeriesId(6)), []);
        assert_eq!(Tombstones::decode(&tombstones.encode()), Ok(tombstones));
    }

    #[test]
    fn a_series_with_one_interval_takes_forty_bytes() {
        let tombstones = Tombstones::new(1, 1, (0..1000).map(|id| (SeriesId(id), interval(5, 6))).collect());
        for Tombstones { ids, ends, intervals, .. } in
            [Tombstones::decode(&tombstones.encode()).unwrap(), tombstones]
        {
            assert_eq!((ids.capacity(), ends.capacity(), intervals.capacity()), (1000, 1000, 1000));
        }
        assert_eq!(size_of::<SeriesId>() + size_of::<usize>() + size_of::<Interval>(), 40);
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_refused() {
        let added = vec![(SeriesId(2), interval(3, 4)), (SeriesId(1), interval(i64::MIN, i64::MAX))];
        let tombstones = Tombstones::new(7, 2, added);
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
            let of = |&(id, min, len): &(u128, i64, i64)| (SeriesId(id), interval(min, min + len));
            let tombstones = Tombstones::new(1, 1, added.iter().map(of).collect());
            prop_assert_eq!(&Tombstones::new(1, 1, tombstones.each().collect()), &tombstones);
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
