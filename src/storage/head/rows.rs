//! Samples row by row: a row is one timestamp and one float for each of some series.
//!
//! When [`ROWS`] rows are full and a newer one comes, they are sealed into a [`Block`]. Start
//! timestamps are a second field of the rows, which is there from the first sample on that has one.

use super::block::{Block, BlockBuilder};
use super::held::Held;
use crate::storage::time::TimeRange;
use std::cell::RefCell;
use std::ops::Range;

/// How many rows are kept open: one bit each in a mask of 16.
pub(super) const ROWS: usize = 16;

/// A series is sparse that fills less than a quarter of at least so many rows.
const SPARSE_ROWS: u32 = 8;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// How many columns a row has room for.
    width: usize,
    /// How many rows are open; `times` of these are valid.
    rows: usize,
    times: [i64; ROWS],
    /// `ROWS` rows of `width` values.
    values: Vec<f64>,
    /// As `values`; empty until a start timestamp comes.
    starts: Vec<i64>,
    /// For each column, one bit an open row.
    present: Vec<u16>,
    blocks: Vec<Block>,
    /// See [`Rows::take_grown`].
    grown_bytes: usize,
}

/// What sealing works in, one for each thread.
#[derive(Default)]
struct Sealing {
    builder: BlockBuilder,
    values: Vec<f64>,
    starts: Vec<i64>,
}

thread_local! {
    static SEALING: RefCell<Sealing> = RefCell::default();
}

impl Rows {
    /// Makes room for columns below `columns`.
    pub fn widen(&mut self, columns: usize) {
        if columns <= self.width {
            return;
        }
        let wider = if columns == 1 { 1 } else { columns.next_multiple_of(8) };
        self.values = widened(&self.values, self.width, wider);
        if !self.starts.is_empty() {
            self.starts = widened(&self.starts, self.width, wider);
        }
        self.present.reserve_exact(wider - self.width);
        self.present.resize(wider, 0);
        self.grown_bytes += (wider - self.width) * (ROWS * size_of::<f64>() + size_of::<u16>());
        self.width = wider;
    }

    /// By how many bytes the rows have grown since this was asked last.
    pub fn take_grown(&mut self) -> usize {
        std::mem::take(&mut self.grown_bytes)
    }

    /// Whether a sample of this time finds a row, or may begin one.
    fn has_room(&self, t_ms: i64) -> bool {
        let open = &self.times[..self.rows];
        open.last().is_none_or(|&newest| newest < t_ms) || open.binary_search(&t_ms).is_ok()
    }

    /// The open row of this time; a new one if it is newer than all of them. Sealing the old ones
    /// tells `sparse` which columns leave most of them empty.
    pub fn row_for(&mut self, t_ms: i64, sparse: impl FnMut(u16)) -> Option<usize> {
        if self.rows > 0 && t_ms <= self.times[self.rows - 1] {
            return self.times[..self.rows].binary_search(&t_ms).ok();
        }
        if self.rows == ROWS {
            self.seal(sparse);
        }
        self.times[self.rows] = t_ms;
        self.rows += 1;
        Some(self.rows - 1)
    }

    /// Puts a float into an open row, unless it gives way to what is there. There must be room for
    /// the column.
    pub fn set(&mut self, row: usize, column: u16, value: f64, start_ms: i64) {
        let column = usize::from(column);
        let at = row * self.width + column;
        let (mask, bit) = (&mut self.present[column], 1 << row);
        let cell = &mut self.values[at];
        if *mask & bit == 0 || Held::float(value).replaces(&Held::float(*cell)) {
            *mask |= bit;
            *cell = value;
            if start_ms != 0 && self.starts.is_empty() {
                self.starts = vec![0; self.values.len()];
                self.grown_bytes += size_of_val(&self.starts[..]);
            }
            if let Some(cell) = self.starts.get_mut(at) {
                *cell = start_ms;
            }
        }
    }

    /// Puts a float of the only column, if there is room for its time; tells whether there was.
    pub fn put_alone(&mut self, t_ms: i64, value: f64, start_ms: i64) -> bool {
        self.widen(1);
        let has_room = self.has_room(t_ms);
        if has_room && let Some(row) = self.row_for(t_ms, |_| ()) {
            self.set(row, 0, value, start_ms);
        }
        has_room
    }

    /// Turns the open rows into a block.
    fn seal(&mut self, mut sparse: impl FnMut(u16)) {
        SEALING.with_borrow_mut(|Sealing { builder, values, starts }| {
            for column in 0..self.width {
                let mask = self.present[column];
                self.gather_tail(column, values, starts);
                builder.push(mask, self.rows, values, starts);
                let span = if mask == 0 { 0 } else { 16 - mask.leading_zeros() - mask.trailing_zeros() };
                if span >= SPARSE_ROWS && mask.count_ones() * 4 < span {
                    sparse(column as u16);
                }
            }
            let block = builder.finish(&self.times[..self.rows]);
            self.grown_bytes += size_of::<Block>() + block.len_bytes();
            self.blocks.push(block);
        });
        self.present.fill(0);
        self.rows = 0;
    }

    /// The values of a column in the open rows, and their start timestamps if any has one.
    fn gather_tail(&self, column: usize, values: &mut Vec<f64>, starts: &mut Vec<i64>) {
        values.clear();
        starts.clear();
        let mut mask = self.present.get(column).copied().unwrap_or(0);
        while mask != 0 {
            let at = mask.trailing_zeros() as usize * self.width + column;
            values.push(self.values[at]);
            starts.extend(self.starts.get(at));
            mask &= mask - 1;
        }
        if starts.iter().all(|&start| start == 0) {
            starts.clear();
        }
    }

    /// Whether a block has exactly this float.
    pub fn has_sealed(&self, column: u16, t_ms: i64, held: &Held) -> bool {
        let Some(block) = self.blocks.get(self.blocks_before(t_ms)) else { return false };
        let (mut times, mut values, mut starts) = (Vec::new(), Vec::new(), Vec::new());
        block.times(&mut times);
        let mask = block.column(column, &mut values);
        block.starts(column, values.len(), &mut starts);
        let Some(row) = times.binary_search(&t_ms).ok().filter(|row| mask >> row & 1 == 1) else {
            return false;
        };
        let position = (mask & ((1u32 << row) - 1) as u16).count_ones() as usize;
        values[position].to_bits() == held.value.to_bits()
            && starts.get(position).copied().unwrap_or(0) == held.start_ms
    }

    /// How many blocks end before `t_ms`.
    fn blocks_before(&self, t_ms: i64) -> usize {
        self.blocks.partition_point(|block| block.last_ms() < t_ms)
    }

    /// The newest sample of a column in `range`, if there is one. Decodes as many blocks as lie in the
    /// range behind it: all of them, if there is none. The range is not empty.
    pub fn newest(&self, column: u16, range: TimeRange) -> Option<Newest> {
        let present = *self.present.get(usize::from(column))?;
        let up_to = self.times[..self.rows].partition_point(|&t| t <= range.max_ms);
        let Some(row) = (u32::from(present) & ((1 << up_to) - 1)).checked_ilog2() else {
            return self.newest_sealed(column, range);
        };
        let row = row as usize;
        let at = row * self.width + usize::from(column);
        let newest = Newest {
            number: (self.blocks.len() * ROWS + row) as u32,
            t_ms: self.times[row],
            value: self.values[at],
            start_ms: self.starts.get(at).copied().unwrap_or(0),
        };
        (newest.t_ms >= range.min_ms).then_some(newest)
    }

    /// The newest sample of a column in `range` that is in a block.
    fn newest_sealed(&self, column: u16, range: TimeRange) -> Option<Newest> {
        let (mut times, mut values, mut starts) = (Vec::new(), Vec::new(), Vec::new());
        let blocks = self.blocks.iter().enumerate().rev();
        for (number, block) in blocks.take_while(|(_, block)| block.last_ms() >= range.min_ms) {
            block.times(&mut times);
            let up_to = times.partition_point(|&t| t <= range.max_ms);
            if up_to == 0 {
                continue;
            }
            let mask = u32::from(block.column(column, &mut values));
            let Some(row) = (mask & ((1 << up_to) - 1)).checked_ilog2() else { continue };
            block.starts(column, values.len(), &mut starts);
            let position = (mask & ((1 << row) - 1)).count_ones() as usize;
            let row = row as usize;
            let newest = Newest {
                number: (number * ROWS + row) as u32,
                t_ms: times[row],
                value: values[position],
                start_ms: starts.get(position).copied().unwrap_or(0),
            };
            return (newest.t_ms >= range.min_ms).then_some(newest);
        }
        None
    }

    /// The samples of a column in `range`, if it has one in every row from its first there to its last.
    /// Timestamps are read only where the range begins and ends: series share them, see [`Rows::times`].
    pub fn read_dense(&self, column: u16, range: TimeRange) -> Option<Dense> {
        let mut out = Dense::default();
        let (mut times, mut values, mut starts) = (Vec::new(), Vec::new(), Vec::new());
        let skipped = self.blocks_before(range.min_ms);
        for (number, block) in self.blocks.iter().enumerate().skip(skipped) {
            let begins = number == skipped && range.min_ms > i64::MIN;
            let ends = block.last_ms() > range.max_ms;
            let inside = if begins || ends {
                block.times(&mut times);
                rows_in(&times, range)
            } else {
                0..block.rows()
            };
            let mask = block.column(column, &mut values);
            block.starts(column, values.len(), &mut starts);
            out.add(number * ROWS, inside, mask, &values, &starts)?;
            if ends {
                return Some(out);
            }
        }
        self.gather_tail(usize::from(column), &mut values, &mut starts);
        let inside = rows_in(&self.times[..self.rows], range);
        let mask = self.present.get(usize::from(column)).copied().unwrap_or(0);
        out.add(self.blocks.len() * ROWS, inside, mask, &values, &starts)?;
        Some(out)
    }

    /// The timestamps of rows, by their numbers.
    pub fn times(&self, rows: Range<usize>) -> Vec<i64> {
        let (mut out, mut times) = (Vec::with_capacity(rows.len()), Vec::new());
        let mut add = |number: usize, times: &[i64]| {
            let first = number * ROWS;
            let of_block = |row: usize| row.saturating_sub(first).min(times.len());
            out.extend_from_slice(&times[of_block(rows.start)..of_block(rows.end)]);
        };
        let (first, last) = (rows.start / ROWS, rows.end.div_ceil(ROWS));
        for (number, block) in self.blocks.iter().enumerate().take(last).skip(first) {
            block.times(&mut times);
            add(number, &times);
        }
        if last > self.blocks.len() {
            add(self.blocks.len(), &self.times[..self.rows]);
        }
        out
    }

    /// The samples of a column in `range`, with holes or without.
    pub fn read(&self, column: u16, range: TimeRange) -> Column {
        let mut out = Column::default();
        let (mut times, mut values, mut starts) = (Vec::new(), Vec::new(), Vec::new());
        for block in &self.blocks[self.blocks_before(range.min_ms)..] {
            block.times(&mut times);
            if times.first().is_some_and(|&t| t > range.max_ms) {
                return out;
            }
            let mask = block.column(column, &mut values);
            block.starts(column, values.len(), &mut starts);
            out.add(&times, mask, &values, &starts, range);
        }
        self.gather_tail(usize::from(column), &mut values, &mut starts);
        let mask = self.present.get(usize::from(column)).copied().unwrap_or(0);
        out.add(&self.times[..self.rows], mask, &values, &starts, range);
        out
    }
}

/// Which of the rows with these times are in `range`.
fn rows_in(times: &[i64], range: TimeRange) -> Range<usize> {
    let from = times.partition_point(|&t| t < range.min_ms);
    from..times.partition_point(|&t| t <= range.max_ms).max(from)
}

/// The open rows, with room for more columns.
fn widened<T: Copy + Default>(cells: &[T], width: usize, wider: usize) -> Vec<T> {
    let mut out = vec![T::default(); ROWS * wider];
    if width > 0 {
        for (to, from) in out.chunks_exact_mut(wider).zip(cells.chunks_exact(width)) {
            to[..width].copy_from_slice(from);
        }
    }
    out
}

/// The samples of one series in rows that follow each other.
#[derive(Debug, Default)]
pub(super) struct Dense {
    /// The number of the first row, counted since the rows began.
    pub first: usize,
    /// One a row.
    pub floats: Vec<f64>,
    /// One a row, or empty if there is none.
    pub starts: Vec<i64>,
}

impl Dense {
    /// Adds those of a block's rows that are `inside`; the first row of the block has the number
    /// `block`. `values` are those in the rows of `mask`, `starts` belong to the values. `None` if
    /// there is a hole.
    fn add(
        &mut self,
        block: usize,
        inside: Range<usize>,
        mask: u16,
        values: &[f64],
        starts: &[i64],
    ) -> Option<()> {
        let below = |row: usize| (1u32 << row) - 1;
        let mask = u32::from(mask);
        let wanted = mask & below(inside.end) & !below(inside.start);
        if wanted == 0 {
            return Some(());
        }
        let row = wanted.trailing_zeros() as usize;
        let len = wanted.count_ones() as usize;
        if self.floats.is_empty() {
            self.first = block + row;
        }
        if wanted >> row != below(len) || block + row != self.first + self.floats.len() {
            return None;
        }
        let at = (mask & below(row)).count_ones() as usize;
        if !starts.is_empty() {
            self.starts.resize(self.floats.len(), 0);
            self.starts.extend_from_slice(&starts[at..at + len]);
        }
        self.floats.extend_from_slice(&values[at..at + len]);
        if !self.starts.is_empty() {
            self.starts.resize(self.floats.len(), 0);
        }
        Some(())
    }
}

/// One sample.
#[derive(Debug)]
pub(super) struct Newest {
    /// The number of its row, counted since the rows began.
    pub number: u32,
    pub t_ms: i64,
    pub value: f64,
    /// 0 if it has none.
    pub start_ms: i64,
}

/// The samples that one series has in rows.
#[derive(Debug, Default)]
pub(super) struct Column {
    /// Ascending.
    pub times: Vec<i64>,
    /// One per time.
    pub floats: Vec<f64>,
    /// One per time, or empty if there is none.
    pub starts: Vec<i64>,
}

impl Column {
    /// Adds the rows in `range`. `values` are those in the rows of `mask`, `starts` belong to the
    /// values.
    fn add(&mut self, times: &[i64], mask: u16, values: &[f64], starts: &[i64], range: TimeRange) {
        if !starts.is_empty() {
            self.starts.resize(self.times.len(), 0);
        }
        let rows = times.iter().enumerate().filter(|(row, _)| mask >> row & 1 == 1);
        for (i, ((_, &t), &value)) in rows.zip(values).enumerate() {
            if range.contains(t) {
                self.times.push(t);
                self.floats.push(value);
                self.starts.extend(starts.get(i));
            }
        }
        if !self.starts.is_empty() {
            self.starts.resize(self.times.len(), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_timestamps_come_back_and_others_have_none() {
        let mut rows = Rows::default();
        rows.widen(3);
        for t in 1..=40i64 {
            let row = rows.row_for(t, |_| ()).unwrap();
            rows.set(row, 0, t as f64, if t < 20 { 0 } else { t - 1 });
            rows.set(row, 1, 1.0, 0);
            if t % 2 == 0 {
                rows.set(row, 2, 2.0, 7);
            }
        }
        assert!(rows.read_dense(1, TimeRange::ALL).unwrap().starts.is_empty());
        let range = TimeRange::new(18, 40);
        let first = rows.read_dense(0, range).unwrap();
        assert_eq!(first.starts[..4], [0, 0, 19, 20]);
        assert_eq!((first.first, first.floats.len(), first.starts.len()), (17, 23, 23));
        let with_times = rows.read(0, range);
        assert_eq!((with_times.floats, with_times.starts), (first.floats, first.starts));
        assert_eq!(with_times.times, rows.times(17..40));
        assert!(rows.read_dense(2, range).is_none(), "every other row is a hole");
        assert_eq!(rows.read(2, TimeRange::ALL).starts, [7; 20]);
        let held = |value, start_ms| Held { start_ms, ..Held::float(value) };
        assert!(rows.has_sealed(0, 21, &held(21.0, 20)) && !rows.has_sealed(0, 21, &held(21.0, 19)));
        assert!(rows.has_sealed(1, 21, &held(1.0, 0)) && !rows.has_sealed(2, 21, &held(2.0, 7)));
    }

    #[test]
    fn a_series_alone_takes_a_few_bytes_a_sample() {
        let mut rows = Rows::default();
        for i in 0..480i64 {
            assert!(rows.put_alone(1_700_000_000_000 + i * 15_000 + i % 3, i as f64, 0));
        }
        assert!(!rows.put_alone(1_700_000_000_000, 1.0, 0));
        assert_eq!(rows.read(0, TimeRange::ALL).times.len(), 480);
        let bytes: usize = rows.blocks.iter().map(|block| size_of::<Block>() + block.len_bytes()).sum();
        assert!(bytes < 6 * 480, "{bytes} bytes");
    }
}
