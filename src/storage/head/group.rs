//! The samples of one scrape group in one generation.
//!
//! 1. Floats go into [`Rows`] that the series of the group share.
//! 2. A sample older than the newest row, for which there is no row, goes to a sorted buffer.
//! 3. A series that often does so, or that leaves most rows empty, departs: from then on it has rows
//!    of its own, in up to [`MAX_LANES`] lanes, so that samples of now and of a time long ago can
//!    come by turns. What fits no lane goes to the buffer.
//! 4. Native histograms go to the buffer.
//!
//! A sample goes to the first of these places that has room for its time, and a place that had no
//! room for a time never has again. So of two samples of one time the one in the later place is the
//! later write; a departed series' sample in the buffer is replaced there.

use super::held::Held;
use super::rows::{self, Column, Dense, Rows};
use crate::storage::part::Run;
use crate::storage::series_set::{ColumnPiece, Columns, Newest};
use crate::storage::time::TimeRange;
use std::collections::BTreeMap;

/// A series departs with so many samples in the buffer.
const LATE_TO_DEPART: usize = 32;
/// A departed series has at most so many lanes.
const MAX_LANES: usize = 4;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Group {
    rows: Rows,
    departed: Departed,
    lanes: BTreeMap<u16, Vec<Rows>>,
    late: BTreeMap<(u16, i64), Held>,
    /// What lanes and buffer have grown by; see [`Group::take_grown`].
    grown_bytes: usize,
}

/// What a sample in the buffer takes, with its share of a tree that is not full.
const LATE_BYTES: usize = 2 * size_of::<((u16, i64), Held)>();

/// One bit a column.
#[derive(Debug, Default)]
struct Departed([u64; 8]);

impl Departed {
    fn contains(&self, column: u16) -> bool {
        self.0[usize::from(column / 64)] >> (column % 64) & 1 == 1
    }

    fn insert(&mut self, column: u16) {
        self.0[usize::from(column / 64)] |= 1 << (column % 64);
    }
}

impl Group {
    /// Puts floats in the order in which they came; `column(i)` is that of the i-th.
    pub fn put_floats(&mut self, columns: impl Fn(usize) -> u16, timestamps: &[i64], values: &[f64]) {
        let widest = (0..values.len()).map(&columns).max().unwrap_or(0);
        self.rows.widen(usize::from(widest) + 1);
        let mut row = None;
        for (i, (&t, &value)) in timestamps.iter().zip(values).enumerate() {
            let column = columns(i);
            if self.departed.contains(column) {
                self.put_apart(column, t, Held::float(value));
                continue;
            }
            match row.filter(|&(row_t, _)| row_t == t).or_else(|| Some((t, self.row_for(t)?))) {
                Some(found) => {
                    row = Some(found);
                    self.rows.set(found.1, column, value, 0);
                }
                None => self.put_late(column, t, Held::float(value)),
            }
        }
    }

    /// Puts one sample of any kind.
    pub fn put(&mut self, column: u16, t_ms: i64, held: Held) {
        if held.histogram.is_some() {
            self.departed.insert(column);
        }
        if self.departed.contains(column) {
            return self.put_apart(column, t_ms, held);
        }
        self.rows.widen(usize::from(column) + 1);
        match self.row_for(t_ms) {
            Some(row) => self.rows.set(row, column, held.value, held.start_ms),
            None => self.put_late(column, t_ms, held),
        }
    }

    /// By about how many bytes the group has grown since this was asked last.
    pub fn take_grown(&mut self) -> usize {
        std::mem::take(&mut self.grown_bytes) + self.rows.take_grown()
    }

    fn row_for(&mut self, t_ms: i64) -> Option<usize> {
        self.rows.row_for(t_ms, |column| self.departed.insert(column))
    }

    /// Puts a sample that came too late for the rows.
    fn put_late(&mut self, column: u16, t_ms: i64, held: Held) {
        if self.late.contains_key(&(column, t_ms)) {
            return self.buffer(column, t_ms, held);
        }
        // A sender that repeats itself must not fill the buffer.
        if self.rows.has_sealed(column, t_ms, &held) {
            return;
        }
        self.buffer(column, t_ms, held);
        if self.late.range((column, i64::MIN)..=(column, i64::MAX)).nth(LATE_TO_DEPART - 1).is_some() {
            self.departed.insert(column);
        }
    }

    /// Puts a sample of a departed series.
    fn put_apart(&mut self, column: u16, t_ms: i64, held: Held) {
        if held.histogram.is_some() || self.late.contains_key(&(column, t_ms)) {
            return self.buffer(column, t_ms, held);
        }
        let lanes = self.lanes.entry(column).or_default();
        let put = lanes
            .iter_mut()
            .find_map(|lane| lane.put_alone(t_ms, held.value, held.start_ms).then(|| lane.take_grown()));
        if let Some(grown_bytes) = put {
            self.grown_bytes += grown_bytes;
        } else if lanes.len() < MAX_LANES {
            let mut lane = Rows::default();
            lane.put_alone(t_ms, held.value, held.start_ms);
            self.grown_bytes += size_of::<Rows>() + lane.take_grown();
            lanes.push(lane);
        } else {
            self.buffer(column, t_ms, held);
        }
    }

    fn buffer(&mut self, column: u16, t_ms: i64, held: Held) {
        let before = self.late.entry((column, t_ms)).or_insert_with(|| {
            self.grown_bytes += LATE_BYTES + held.histogram.as_ref().map_or(0, |h| h.memory_bytes());
            held.clone()
        });
        if held.replaces(before) {
            *before = held;
        }
    }

    /// What is known of the newest sample of a column in `range`. Mostly it stands in an open row, and
    /// nothing is decoded.
    pub fn newest(&self, column: u16, range: TimeRange) -> Newest {
        if range.is_empty() {
            return Newest::None;
        }
        if self.has_elsewhere(column, range) {
            return Newest::Unknown;
        }
        match self.rows.newest(column, range) {
            Some(rows::Newest { t_ms, value, .. }) => Newest::Float { t_ms, value },
            None => Newest::None,
        }
    }

    /// Whether a column has samples in `range` that are not in the rows, or may have.
    fn has_elsewhere(&self, column: u16, range: TimeRange) -> bool {
        let is_late = || self.late.range((column, range.min_ms)..=(column, range.max_ms)).next().is_some();
        !self.lanes.is_empty() && self.lanes.contains_key(&column) || !self.late.is_empty() && is_late()
    }

    /// The newest sample of a column in `range`, and maybe others; see [`Group::load`].
    pub fn load_newest(
        &self,
        column: u16,
        range: TimeRange,
        origin: ColumnPiece,
        columns: &mut Columns,
    ) -> Option<Run> {
        if range.is_empty() {
            return None;
        }
        if self.has_elsewhere(column, range) {
            return self.load(column, range, origin, columns);
        }
        let newest = self.rows.newest(column, range)?;
        let origin = ColumnPiece { start: newest.number, len: 1, ..origin };
        Some(Run {
            origin: Some(origin),
            timestamps: columns.shared(&[origin], || vec![newest.t_ms]),
            floats: vec![newest.value],
            histograms: Vec::new(),
            start_timestamps: Some(newest.start_ms).filter(|&start| start != 0).into_iter().collect(),
        })
    }

    /// The samples of a column in `range`, one per timestamp, if there are any. `origin` says where
    /// the rows of this group stand in `columns`; start and length are filled in.
    pub fn load(
        &self,
        column: u16,
        range: TimeRange,
        origin: ColumnPiece,
        columns: &mut Columns,
    ) -> Option<Run> {
        if range.is_empty() {
            return None;
        }
        let lanes = self.lanes.get(&column).into_iter().flatten().map(|lane| lane.read(0, range));
        let lanes: Vec<Column> = lanes.filter(|lane| !lane.times.is_empty()).collect();
        let mut late = self.late.range((column, range.min_ms)..=(column, range.max_ms)).peekable();
        if !lanes.is_empty() || late.peek().is_some() {
            let late = late.map(|(&(_, t), held)| (t, held.clone()));
            return Some(merge([self.rows.read(column, range)].into_iter().chain(lanes), late));
        }
        if let Some(Dense { first, floats, starts }) = self.rows.read_dense(column, range) {
            let len = floats.len();
            if len == 0 {
                return None;
            }
            let origin = ColumnPiece { start: first as u32, len: len as u32, ..origin };
            let timestamps = columns.shared(&[origin], || self.rows.times(first..first + len));
            let histograms = Vec::new();
            return Some(Run {
                origin: Some(origin),
                timestamps,
                floats,
                histograms,
                start_timestamps: starts,
            });
        }
        let rows = self.rows.read(column, range);
        (!rows.times.is_empty()).then(|| Run {
            origin: None,
            timestamps: rows.times.into(),
            floats: rows.floats,
            histograms: Vec::new(),
            start_timestamps: rows.starts,
        })
    }
}

/// All samples in order of time; of those of one time the one that wins. Later places come later.
fn merge(columns: impl Iterator<Item = Column>, late: impl Iterator<Item = (i64, Held)>) -> Run {
    let mut all: Vec<(i64, Held)> = Vec::new();
    for Column { times, floats, starts, .. } in columns {
        let starts = starts.into_iter().chain(std::iter::repeat(0));
        let held =
            floats.into_iter().zip(starts).map(|(value, start_ms)| Held { start_ms, ..Held::float(value) });
        all.extend(times.into_iter().zip(held));
    }
    all.extend(late);
    // Stable, and quick with what consists of a few ascending runs.
    all.sort_by_key(|(t, _)| *t);
    all.dedup_by(|later, earlier| {
        let is_same_time = later.0 == earlier.0;
        if is_same_time && later.1.replaces(&earlier.1) {
            std::mem::swap(later, earlier);
        }
        is_same_time
    });
    let has_starts = all.iter().any(|(_, held)| held.start_ms != 0);
    let start_timestamps = all.iter().filter(|_| has_starts).map(|(_, held)| held.start_ms).collect();
    Run {
        origin: None,
        timestamps: all.iter().map(|(t, _)| *t).collect(),
        floats: all.iter().map(|(_, held)| held.value).collect(),
        start_timestamps,
        histograms: (0..).zip(all).filter_map(|(at, (_, held))| Some((at, held.histogram?))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use larum_storage_format::STALE_NAN;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::sync::Arc;

    const ORIGIN: ColumnPiece = ColumnPiece { part: 0, column: 0, start: 0, len: 0 };

    fn load(group: &Group, column: u16, columns: &mut Columns) -> Option<Run> {
        group.load(column, TimeRange::ALL, ORIGIN, columns)
    }

    #[test]
    fn series_of_one_group_share_their_timestamps() {
        let mut group = Group::default();
        for row in 0..50 {
            for column in 0..9 {
                group.put_floats(|_| column, &[row * 15_000], &[f64::from(column) + row as f64]);
            }
        }
        let mut columns = Columns::default();
        let runs: Vec<Run> = (0..9).map(|column| load(&group, column, &mut columns).unwrap()).collect();
        assert!(runs.iter().all(|run| std::sync::Arc::ptr_eq(&run.timestamps, &runs[0].timestamps)));
        assert_eq!(runs[8].floats[49], 57.0);
        assert_eq!(runs[0].timestamps.len(), 50);
        let part = group.load(3, TimeRange::new(30_000, 45_000), ORIGIN, &mut columns).unwrap();
        assert_eq!(part.timestamps[..], [30_000, 45_000]);
    }

    #[test]
    fn a_series_that_leaves_most_rows_empty_departs() {
        let mut group = Group::default();
        for row in 0..100i64 {
            group.put_floats(|_| 0, &[row], &[1.0]);
            if row % 7 == 0 {
                group.put_floats(|_| 1, &[row], &[2.0]);
            }
        }
        assert!(group.departed.contains(1) && !group.departed.contains(0));
        assert_eq!(load(&group, 1, &mut Columns::default()).unwrap().floats, [2.0; 15]);
    }

    #[test]
    fn a_backfill_beside_samples_of_now_is_sealed_too() {
        let mut group = Group::default();
        for i in 0..2000i64 {
            group.put_floats(|_| 0, &[10_000 + i], &[1.0]);
            group.put_floats(|_| 0, &[i], &[2.0]);
        }
        assert!(group.late.len() <= LATE_TO_DEPART, "{} in the buffer", group.late.len());
        assert_eq!(load(&group, 0, &mut Columns::default()).unwrap().floats.len(), 4000);
    }

    #[test]
    fn start_timestamps_do_not_make_a_series_depart() {
        let mut group = Group::default();
        for t in 1..100i64 {
            group.put(0, t, Held { start_ms: 1, ..Held::float(t as f64) });
            group.put_floats(|_| 1, &[t], &[1.0]);
        }
        assert!(group.lanes.is_empty() && group.late.is_empty());
        let mut columns = Columns::default();
        let [with, without] = [0, 1].map(|column| load(&group, column, &mut columns).unwrap());
        assert_eq!((with.start_timestamps, without.start_timestamps), (vec![1; 99], vec![]));
        assert!(std::sync::Arc::ptr_eq(&with.timestamps, &without.timestamps));
    }

    proptest! {
        /// A query loads series one by one while rows come in: an origin it met before must still
        /// mean the same timestamps.
        #[test]
        fn columns_stay_right_while_the_group_grows(
            steps in proptest::collection::vec((0u16..4, 0i64..3, 0i64..80, 0i64..80, any::<bool>()), 0..300),
        ) {
            let mut group = Group::default();
            let mut columns = Columns::default();
            let mut written = vec![BTreeSet::new(); 4];
            let mut now = 0;
            for (column, ahead, back, len, reads) in steps {
                now += ahead;
                if reads {
                    let max_ms = if len > 70 { i64::MAX } else { now - back + len };
                    let range = TimeRange::new(if back > 70 { i64::MIN } else { now - back }, max_ms);
                    let run = group.load(column, range, ORIGIN, &mut columns);
                    let (times, floats) = run.map(|run| (run.timestamps.to_vec(), run.floats)).unwrap_or_default();
                    let there = &written[usize::from(column)];
                    let expected: Vec<i64> = there.iter().copied().filter(|&t| range.contains(t)).collect();
                    prop_assert_eq!(&times, &expected);
                    prop_assert_eq!(floats, expected.iter().map(|&t| t as f64).collect::<Vec<_>>());
                } else {
                    group.put_floats(|_| column, &[now], &[now as f64]);
                    written[usize::from(column)].insert(now);
                }
            }
        }

        /// Samples in any order of time: the last write wins, a stale marker loses to any value.
        #[test]
        fn what_was_put_last_is_read(
            writes in proptest::collection::vec((0u16..3, 0i64..60, 0u8..6), 0..400), sorted in any::<bool>(),
        ) {
            let mut writes = writes;
            if sorted {
                writes.sort_by_key(|write| write.1);
            }
            let mut group = Group::default();
            let mut model: BTreeMap<(u16, i64), Held> = BTreeMap::new();
            for (i, (column, t, kind)) in writes.into_iter().enumerate() {
                let value = if kind == 0 { STALE_NAN } else { i as f64 };
                let held = match kind {
                    5 if column == 2 => Held { histogram: Some(Arc::default()), ..Held::float(0.0) },
                    4 => Held { start_ms: t + 1, ..Held::float(value) },
                    _ => Held::float(value),
                };
                match kind {
                    0..4 => group.put_floats(|_| column, &[t], &[value]),
                    _ => group.put(column, t, held.clone()),
                }
                let known = model.entry((column, t)).or_insert(held.clone());
                if held.replaces(known) {
                    *known = held;
                }
            }
            for column in 0..3 {
                let run = load(&group, column, &mut Columns::default());
                let expected: Vec<(i64, &Held)> = model.range((column, 0)..=(column, 99)).map(|(&(_, t), held)| (t, held)).collect();
                let Some(run) = run else {
                    prop_assert!(expected.is_empty());
                    continue;
                };
                prop_assert!(run.timestamps.iter().eq(expected.iter().map(|(t, _)| t)));
                for (from, to) in [(0, 99), (0, 30), (25, 40), (40, 41)] {
                    let range = TimeRange::new(from, to);
                    let last = |run: Option<Run>| run.map(|run| {
                        let at = run.timestamps.len() - 1;
                        let histogram = run.histograms.last().is_some_and(|(i, _)| *i as usize == at);
                        (run.timestamps[at], run.floats[at].to_bits(), run.start_timestamps.get(at).copied().unwrap_or(0), histogram)
                    });
                    let mut columns = Columns::default();
                    let all = group.load(column, range, ORIGIN, &mut columns);
                    let newest = group.load_newest(column, range, ORIGIN, &mut columns);
                    let all = last(all);
                    prop_assert_eq!(last(newest), all);
                    match group.newest(column, range) {
                        Newest::Float { t_ms, value } => {
                            let found = all.map(|(t, bits, _, histogram)| (t, bits, histogram));
                            prop_assert_eq!(found, Some((t_ms, value.to_bits(), false)));
                        }
                        Newest::None => prop_assert!(all.is_none()),
                        Newest::Unknown => {}
                    }
                }
                for (i, (_, held)) in expected.iter().enumerate() {
                    prop_assert_eq!(run.floats[i].to_bits(), held.value.to_bits());
                    prop_assert_eq!(run.start_timestamps.get(i).copied().unwrap_or(0), held.start_ms);
                }
                let histograms = (0..).zip(&expected).filter(|(_, (_, held))| held.histogram.is_some());
                prop_assert!(run.histograms.iter().map(|(at, _)| *at).eq(histograms.map(|(at, _)| at)));
            }
        }
    }
}
