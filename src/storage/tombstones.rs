//! Deleted intervals of the series of one partition.
//!
//! A deletion never changes a partition; it commits a file of tombstones beside it. Readers leave
//! the intervals out, the next merge does away with both.

use super::time::TimeRange;
use larum_storage_format::SeriesId;
use std::collections::BTreeMap;

/// What was deleted from a partition: for each series, sorted intervals that do not touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tombstones {
    by_series: BTreeMap<SeriesId, Vec<TimeRange>>,
}

impl Tombstones {
    /// Whether nothing was deleted.
    pub fn is_empty(&self) -> bool {
        self.by_series.is_empty()
    }

    /// The deleted intervals of a series.
    pub fn of(&self, id: SeriesId) -> &[TimeRange] {
        self.by_series.get(&id).map_or(&[], Vec::as_slice)
    }

    /// How many intervals there are.
    pub fn len(&self) -> u64 {
        self.by_series.values().map(|intervals| intervals.len() as u64).sum()
    }

    /// The series, ascending, with their intervals.
    pub fn iter(&self) -> impl Iterator<Item = (SeriesId, &[TimeRange])> {
        self.by_series.iter().map(|(id, intervals)| (*id, intervals.as_slice()))
    }

    /// Deletes an interval; it grows together with those that it overlaps or touches.
    pub fn add(&mut self, id: SeriesId, mut interval: TimeRange) {
        if interval.is_empty() {
            return;
        }
        let intervals = self.by_series.entry(id).or_default();
        let from = intervals.partition_point(|i| i.max_ms.saturating_add(1) < interval.min_ms);
        let to = intervals.partition_point(|i| i.min_ms <= interval.max_ms.saturating_add(1));
        if let Some(first) = intervals[from..to].first() {
            interval.min_ms = interval.min_ms.min(first.min_ms);
        }
        if let Some(last) = intervals[from..to].last() {
            interval.max_ms = interval.max_ms.max(last.max_ms);
        }
        intervals.splice(from..to, [interval]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn intervals_stay_sorted_apart_and_cover_what_was_deleted(
            deleted in proptest::collection::vec((0..50i64, -1..6i64), 0..20),
        ) {
            let id = SeriesId(1);
            let mut tombstones = Tombstones::default();
            for &(min_ms, len) in &deleted {
                tombstones.add(id, TimeRange::new(min_ms, min_ms + len));
            }
            let intervals = tombstones.of(id);
            prop_assert!(intervals.windows(2).all(|w| w[0].max_ms + 1 < w[1].min_ms));
            for t in -1..60 {
                let expected = deleted.iter().any(|&(min_ms, len)| TimeRange::new(min_ms, min_ms + len).contains(t));
                prop_assert_eq!(intervals.iter().any(|i| i.contains(t)), expected, "at {}", t);
            }
        }
    }
}
