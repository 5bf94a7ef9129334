//! The samples of one scrape group in one generation, row by row.
//!
//! 1. A row is one timestamp and one float for each series of the group that has a sample then.
//! 2. When [`ROWS`] rows are full and a newer one comes, they are sealed into a [`Block`].
//! 3. What does not fit a row goes to the [`Slot`] of its series: native histograms, samples with
//!    a start timestamp, and samples older than the newest row for which there is no row.
//! 4. A series that often does so, or that leaves most rows empty, departs: all its samples go to
//!    its slot from then on. A sample in the slot is newer than one of the same time in a row.

use super::block::{Block, BlockBuilder};
use super::slot::{Held, Slot};
use crate::storage::part::Run;
use crate::storage::series_set::{ColumnPiece, Columns};
use crate::storage::time::TimeRange;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// How many rows are kept open.
pub(super) const ROWS: usize = 16;

/// A series departs with so many samples in its slot.
const LATE_TO_DEPART: usize = 32;
/// A series departs that fills less than a quarter of at least so many rows.
const SPARSE_ROWS: u32 = 8;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// How many columns a row has room for.
    width: usize,
    /// How many rows are open; `times` of these are valid.
    rows: usize,
    times: [i64; ROWS],
    /// `ROWS` rows of `width` values.
    values: Vec<f64>,
    /// For each row, one bit a column.
    present: Vec<u64>,
    blocks: Vec<Block>,
    slots: BTreeMap<u16, Slot>,
    /// One bit a column: departed.
    departed: [u64; 8],
}

thread_local! {
    static SEALING: RefCell<(BlockBuilder, Vec<f64>)> = RefCell::default();
}

impl Group {
    fn words(&self) -> usize {
        self.width.div_ceil(64)
    }

    /// Makes room for columns below `columns`.
    fn widen(&mut self, columns: usize) {
        if columns <= self.width {
            return;
        }
        let wider = if columns == 1 { 1 } else { columns.next_multiple_of(8) };
        let mut values = vec![0.0; ROWS * wider];
        let words = wider.div_ceil(64);
        let mut present = vec![0; ROWS * words];
        for row in 0..self.rows {
            let (from, old_words) = (row * self.width, self.words());
            values[row * wider..][..self.width].copy_from_slice(&self.values[from..from + self.width]);
            present[row * words..][..old_words]
                .copy_from_slice(&self.present[row * old_words..(row + 1) * old_words]);
        }
        (self.width, self.values, self.present) = (wider, values, present);
    }

    fn has_departed(&self, column: u16) -> bool {
        self.departed[usize::from(column / 64)] >> (column % 64) & 1 == 1
    }

    fn depart(&mut self, column: u16) {
        self.departed[usize::from(column / 64)] |= 1 << (column % 64);
    }

    /// Puts floats in the order in which they came; `column(i)` is that of the i-th.
    pub fn put_floats(&mut self, columns: impl Fn(usize) -> u16, timestamps: &[i64], values: &[f64]) {
        let widest = (0..values.len()).map(&columns).max().unwrap_or(0);
        self.widen(usize::from(widest) + 1);
        let mut row = None;
        for (i, (&t, &value)) in timestamps.iter().zip(values).enumerate() {
            let column = columns(i);
            if self.has_departed(column) {
                self.slots.entry(column).or_default().put(t, Held::float(value));
                continue;
            }
            match row.filter(|&(row_t, _)| row_t == t).or_else(|| Some((t, self.row_for(t)?))) {
                Some(found) => {
                    row = Some(found);
                    self.set(found.1, column, value);
                }
                None => self.put_late(column, t, value),
            }
        }
    }

    /// Puts one sample of any kind.
    pub fn put(&mut self, column: u16, t_ms: i64, held: Held) {
        if held.histogram.is_none() && held.start_ms == 0 {
            return self.put_floats(|_| column, &[t_ms], &[held.value]);
        }
        self.depart(column);
        self.slots.entry(column).or_default().put(t_ms, held);
    }

    /// The open row of this time; a new one if it is newer than all of them.
    fn row_for(&mut self, t_ms: i64) -> Option<usize> {
        if self.rows > 0 && t_ms <= self.times[self.rows - 1] {
            return self.times[..self.rows].binary_search(&t_ms).ok();
        }
        if self.rows == ROWS {
            self.seal();
        }
        let (row, words) = (self.rows, self.words());
        self.times[row] = t_ms;
        self.present[row * words..(row + 1) * words].fill(0);
        self.rows += 1;
        Some(row)
    }

    fn set(&mut self, row: usize, column: u16, value: f64) {
        let column = usize::from(column);
        let word = &mut self.present[row * self.width.div_ceil(64) + column / 64];
        let cell = &mut self.values[row * self.width + column];
        let bit = 1 << (column % 64);
        if *word & bit == 0 || Held::float(value).replaces(&Held::float(*cell)) {
            *word |= bit;
            *cell = value;
        }
    }

    fn put_late(&mut self, column: u16, t_ms: i64, value: f64) {
        let slot = self.slots.entry(column).or_default();
        let sealed = self.blocks.partition_point(|block| block.times().last().is_some_and(|&t| t < t_ms));
        if slot.len() == 0
            && let Some(block) = self.blocks.get(sealed)
            && sealed_value(block, column, t_ms).is_some_and(|known| known.to_bits() == value.to_bits())
        {
            return;
        }
        slot.put(t_ms, Held::float(value));
        if slot.len() >= LATE_TO_DEPART {
            self.depart(column);
        }
    }

    /// Turns the open rows into a block.
    fn seal(&mut self) {
        SEALING.with_borrow_mut(|(builder, values)| {
            for column in 0..self.width {
                let mask = self.gather_tail(column, values);
                builder.push(mask, self.rows, values);
                let span = if mask == 0 { 0 } else { 16 - mask.leading_zeros() - mask.trailing_zeros() };
                if span >= SPARSE_ROWS && mask.count_ones() * 4 < span {
                    self.depart(column as u16);
                }
            }
            self.blocks.push(builder.finish(&self.times[..self.rows]));
        });
        self.rows = 0;
    }

    /// The values of a column in the open rows, and in which rows they are.
    fn gather_tail(&self, column: usize, values: &mut Vec<f64>) -> u16 {
        values.clear();
        let mut mask = 0;
        if column < self.width {
            for row in 0..self.rows {
                if self.present[row * self.words() + column / 64] >> (column % 64) & 1 == 1 {
                    mask |= 1 << row;
                    values.push(self.values[row * self.width + column]);
                }
            }
        }
        mask
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
        let rows = self.rows_of(column, range);
        let mut late = Vec::new();
        if let Some(slot) = self.slots.get(&column) {
            slot.for_each(range.min_ms, range.max_ms, |t, held| late.push((t, held)));
        }
        if !late.is_empty() {
            return Some(merge(&rows, &late));
        }
        let (first, last) = rows.numbers?;
        let len = rows.times.len() as u32;
        let contiguous = last - first + 1 == len;
        let origin = contiguous.then_some(ColumnPiece { start: first, len, ..origin });
        let timestamps = match origin {
            Some(origin) => columns.shared(vec![origin], || rows.times),
            None => rows.times.into(),
        };
        let (histograms, start_timestamps) = (Vec::new(), Vec::new());
        Some(Run { origin, timestamps, floats: rows.floats, histograms, start_timestamps })
    }

    fn rows_of(&self, column: u16, range: TimeRange) -> Rows {
        let mut out = Rows { numbers: None, times: Vec::new(), floats: Vec::new() };
        let mut values = Vec::new();
        let skipped =
            self.blocks.partition_point(|block| block.times().last().is_some_and(|&t| t < range.min_ms));
        let mut first = skipped as u32 * ROWS as u32;
        for block in &self.blocks[skipped..] {
            if block.times().first().is_some_and(|&t| t > range.max_ms) {
                return out;
            }
            let mask = block.column(column, &mut values);
            out.add(first, block.times(), mask, &values, range);
            first += block.times().len() as u32;
        }
        let mask = self.gather_tail(usize::from(column), &mut values);
        out.add(first, &self.times[..self.rows], mask, &values, range);
        out
    }
}

fn sealed_value(block: &Block, column: u16, t_ms: i64) -> Option<f64> {
    let row = block.times().binary_search(&t_ms).ok()?;
    let mut values = Vec::new();
    let mask = block.column(column, &mut values);
    let before = mask & ((1u32 << row) - 1) as u16;
    (mask >> row & 1 == 1).then(|| values[before.count_ones() as usize])
}

/// The samples that one series has in rows.
struct Rows {
    /// The numbers of the first and the last row with a sample.
    numbers: Option<(u32, u32)>,
    times: Vec<i64>,
    floats: Vec<f64>,
}

impl Rows {
    /// Adds the rows in `range` of a block that begins at row `first`.
    fn add(&mut self, first: u32, times: &[i64], mask: u16, values: &[f64], range: TimeRange) {
        if mask == 0 {
            return;
        }
        let from = times.partition_point(|&t| t < range.min_ms);
        let to = times.partition_point(|&t| t <= range.max_ms);
        if values.len() == times.len() && from < to {
            self.note(first + from as u32);
            self.note(first + to as u32 - 1);
            self.times.extend_from_slice(&times[from..to]);
            self.floats.extend_from_slice(&values[from..to]);
            return;
        }
        let mut value = values.iter();
        for (row, &t) in times.iter().enumerate() {
            if mask >> row & 1 == 1
                && let Some(&value) = value.next()
                && range.contains(t)
            {
                self.note(first + row as u32);
                self.times.push(t);
                self.floats.push(value);
            }
        }
    }

    fn note(&mut self, row: u32) {
        self.numbers = Some((self.numbers.map_or(row, |(first, _)| first), row));
    }
}

/// Rows and slot in order of time; of two samples at one time the slot's is the later write.
fn merge(rows: &Rows, late: &[(i64, &Held)]) -> Run {
    let mut run = Run {
        origin: None,
        timestamps: [].into(),
        floats: Vec::with_capacity(rows.times.len() + late.len()),
        histograms: Vec::new(),
        start_timestamps: Vec::new(),
    };
    let mut times = Vec::with_capacity(rows.times.len() + late.len());
    let mut push = |t: i64, held: &Held| {
        if held.start_ms != 0 {
            run.start_timestamps.resize(times.len(), 0);
            run.start_timestamps.push(held.start_ms);
        } else if !run.start_timestamps.is_empty() {
            run.start_timestamps.push(0);
        }
        if let Some(histogram) = &held.histogram {
            run.histograms.push((times.len() as u32, histogram.clone()));
        }
        times.push(t);
        run.floats.push(held.value);
    };
    let mut late = late.iter().peekable();
    for (&t, &value) in rows.times.iter().zip(&rows.floats) {
        while let Some((late_t, held)) = late.next_if(|(late_t, _)| *late_t < t) {
            push(*late_t, held);
        }
        let row = Held::float(value);
        match late.next_if(|(late_t, _)| *late_t == t) {
            Some((_, held)) if held.replaces(&row) => push(t, held),
            _ => push(t, &row),
        }
    }
    late.for_each(|(t, held)| push(*t, held));
    run.timestamps = times.into();
    run
}

#[cfg(test)]
mod tests {
    use super::*;
    use larum_storage_format::STALE_NAN;
    use proptest::prelude::*;

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
        assert!(group.has_departed(1) && !group.has_departed(0));
        assert_eq!(load(&group, 1, &mut Columns::default()).unwrap().floats, [2.0; 15]);
    }

    proptest! {
        /// A query loads series one by one while rows come in: an origin it met before must still
        /// mean the same timestamps.
        #[test]
        fn columns_stay_right_while_the_group_grows(
            steps in proptest::collection::vec((0u16..4, 0i64..3, 0i64..40, any::<bool>()), 0..200),
        ) {
            let mut group = Group::default();
            let mut columns = Columns::default();
            let mut now = 0;
            for (column, ahead, back, reads) in steps {
                now += ahead;
                if reads {
                    let range = TimeRange::new(now - back, i64::MAX);
                    let shared = group.load(column, range, ORIGIN, &mut columns);
                    let alone = group.load(column, range, ORIGIN, &mut Columns::default());
                    prop_assert_eq!(
                        shared.map(|run| (run.timestamps, run.floats)),
                        alone.map(|run| (run.timestamps, run.floats))
                    );
                } else {
                    group.put_floats(|_| column, &[now], &[now as f64]);
                }
            }
        }

        /// Floats in any order of time: the last write wins, a stale marker loses to any value.
        #[test]
        fn what_was_put_last_is_read(
            writes in proptest::collection::vec((0u16..3, 0i64..60, 0u8..4), 0..200), sorted in any::<bool>(),
        ) {
            let mut writes = writes;
            if sorted {
                writes.sort_by_key(|write| write.1);
            }
            let mut group = Group::default();
            let mut model: BTreeMap<(u16, i64), f64> = BTreeMap::new();
            for (column, t, value) in writes {
                let value = if value == 0 { STALE_NAN } else { f64::from(value) };
                group.put_floats(|_| column, &[t], &[value]);
                let known = model.entry((column, t)).or_insert(value);
                if Held::float(value).replaces(&Held::float(*known)) {
                    *known = value;
                }
            }
            for column in 0..3 {
                let run = load(&group, column, &mut Columns::default());
                let found: Vec<(i64, u64)> = run.iter()
                    .flat_map(|run| run.timestamps.iter().zip(&run.floats).map(|(&t, v)| (t, v.to_bits())))
                    .collect();
                let expected: Vec<(i64, u64)> = model.iter()
                    .filter(|((c, _), _)| *c == column)
                    .map(|((_, t), v)| (*t, v.to_bits()))
                    .collect();
                prop_assert_eq!(found, expected);
            }
        }
    }
}
