//! Sealed rows of a scrape group: one column of timestamps, one small chunk per series.
//!
//! The codec is for speed and lives in memory only: sealing costs part of every append, and the
//! float codec of the storage format takes ten times as long on sixteen values. A block is one
//! allocation: how many rows and columns, timestamps, the length of each column, the columns. A
//! column is a head byte and
//!
//! 1. a constant: as an integer where it is a decimal of few digits, else its bits; or
//! 2. decimals with the same few digits: the first as an integer, then the differences, zigzag,
//!    all in the width of the widest; or
//! 3. raw.
//!
//! Start timestamps are columns of a second such piece, which is there if any series has one.

use super::rows::ROWS;
use larum_storage_format::varint::{get_uvarint, put_uvarint, unzigzag, zigzag};

/// In the head byte of a column: rows are missing, a mask of two bytes follows.
const HOLES: u8 = 0x80;
/// With the number of digits, or [`BITS`].
const CONSTANT: u8 = 0x10;
/// With the number of digits.
const DECIMALS: u8 = 0x20;
const RAW: u8 = 0x40;
/// Instead of a number of digits: no decimal.
const BITS: u8 = 7;

const POWERS: [f64; 7] = [1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6];
/// Integers below this are exact as floats.
const EXACT: f64 = (1u64 << 53) as f64;
/// Wider differences do not fit the packing, and would save nothing.
const MAX_WIDTH: u32 = 56;

/// Blocks of fewer columns have their timestamps packed; the others' are for many to read.
const PACKED_TIMES_BELOW: usize = 32;
/// Rows, whether the timestamps are packed and their length in bytes, one byte each; columns, two.
const HEADER_BYTES: usize = 5;

const INTACT: &str = "a builder wrote it, and it lay in memory since";

/// Rows that are full and do not change any more.
#[derive(Debug)]
pub(super) struct Block {
    last_ms: i64,
    bytes: Box<[u8]>,
    /// Lengths and columns of start timestamps.
    starts: Option<Box<[u8]>>,
}

/// Buffers to build blocks in.
#[derive(Debug, Default)]
pub(super) struct BlockBuilder {
    values: Columns,
    starts: Columns,
    out: Vec<u8>,
}

/// Columns on their way into a block.
#[derive(Debug, Default)]
struct Columns {
    /// Length of each; 0 for a series without samples here.
    lens: Vec<u8>,
    bytes: Vec<u8>,
}

impl Columns {
    fn end_column(&mut self, start: usize) {
        let len = self.bytes.len() - start;
        self.lens.push(u8::try_from(len).expect("16 raw numbers, mask, first and width are below 256"));
    }

    fn put_into(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.lens);
        out.append(&mut self.bytes);
    }
}

impl BlockBuilder {
    /// Adds the next column: the values of the rows in `mask`, and their start timestamps if any
    /// has one.
    pub fn push(&mut self, mask: u16, rows: usize, values: &[f64], starts: &[i64]) {
        debug_assert_eq!(mask.count_ones() as usize, values.len());
        let start = self.values.bytes.len();
        if mask == full(rows) {
            encode(0, &[], values, &mut self.values.bytes);
        } else if mask != 0 {
            encode(HOLES, &mask.to_le_bytes(), values, &mut self.values.bytes);
        }
        self.values.end_column(start);
        let start = self.starts.bytes.len();
        if !starts.is_empty() {
            put_ints(starts, &mut self.starts.bytes);
        }
        self.starts.end_column(start);
    }

    /// The block of the columns added since the last one.
    pub fn finish(&mut self, times: &[i64]) -> Block {
        let BlockBuilder { values, starts, out } = self;
        let columns = values.lens.len();
        let is_packed = columns < PACKED_TIMES_BELOW;
        out.clear();
        out.extend_from_slice(&[times.len() as u8, u8::from(is_packed), 0]);
        out.extend_from_slice(&(columns as u16).to_le_bytes());
        if is_packed {
            put_times(times, out);
        } else {
            times.iter().for_each(|t| out.extend_from_slice(&t.to_le_bytes()));
        }
        out[2] = u8::try_from(out.len() - HEADER_BYTES).expect("16 timestamps and two widths are below 256");
        values.put_into(out);
        let bytes = out.as_slice().into();
        out.clear();
        let has_starts = !starts.bytes.is_empty();
        starts.put_into(out);
        Block {
            last_ms: times.last().copied().unwrap_or(i64::MIN),
            bytes,
            starts: has_starts.then(|| out.as_slice().into()),
        }
    }
}

fn full(rows: usize) -> u16 {
    debug_assert!(0 < rows && rows <= ROWS);
    u16::MAX >> (ROWS - rows)
}

/// Appends head byte, mask and values, which are one at least.
fn encode(holes: u8, mask: &[u8], values: &[f64], out: &mut Vec<u8>) {
    let mut ints = [0; ROWS];
    let is_constant = values.iter().all(|v| v.to_bits() == values[0].to_bits());
    let values = if is_constant { &values[..1] } else { values };
    let ints = &mut ints[..values.len()];
    let digits = (0..POWERS.len()).find(|&digits| to_ints(values, POWERS[digits], ints));
    let kind = match (is_constant, digits) {
        (true, digits) => CONSTANT | digits.map_or(BITS, |digits| digits as u8),
        (false, Some(digits)) => DECIMALS | digits as u8,
        (false, None) => RAW,
    };
    out.push(holes | kind);
    out.extend_from_slice(mask);
    match (digits, is_constant) {
        (Some(_), true) => put_uvarint(out, zigzag(ints[0])),
        (Some(_), false) => put_ints(ints, out),
        (None, _) => values.iter().for_each(|v| out.extend_from_slice(&v.to_bits().to_le_bytes())),
    }
}

/// Whether all values are integers divided by `power`, bit by bit; puts the integers into `ints`.
fn to_ints(values: &[f64], power: f64, ints: &mut [i64]) -> bool {
    values.iter().zip(ints).all(|(&value, int)| {
        let scaled = value * power;
        // Rounding by truncation; what it gets wrong does not come back and is seen.
        *int = (scaled + 0.5f64.copysign(scaled)) as i64;
        scaled.abs() < EXACT && (*int as f64 / power).to_bits() == value.to_bits()
    })
}

/// Appends `n` values from what [`encode`] wrote behind the mask.
fn decode(kind: u8, bytes: &[u8], n: usize, out: &mut Vec<f64>) {
    let power = POWERS.get(usize::from(kind & BITS));
    match (kind & !BITS, power) {
        (CONSTANT, Some(power)) => {
            let (int, _) = get_uvarint(bytes).expect(INTACT);
            out.resize(n, unzigzag(int) as f64 / power);
        }
        (CONSTANT, None) => out.resize(n, f64::from_le_bytes(*bytes.first_chunk().expect(INTACT))),
        (DECIMALS, Some(&power)) => get_ints(bytes, n, |int| out.push(int as f64 / power)),
        _ => out.extend(bytes.as_chunks::<8>().0.iter().map(|raw| f64::from_le_bytes(*raw))),
    }
}

/// Appends the first of `ints` and the differences, all in the width of the widest.
fn put_ints(ints: &[i64], out: &mut Vec<u8>) {
    let steps = || ints.windows(2).map(|pair| zigzag(pair[1].wrapping_sub(pair[0])));
    put_uvarint(out, zigzag(ints[0]));
    let width = u64::BITS - steps().fold(0, |all, step| all | step).leading_zeros();
    out.push(width as u8);
    if width > MAX_WIDTH {
        steps().for_each(|step| out.extend_from_slice(&step.to_le_bytes()));
        return;
    }
    let (mut bits, mut filled) = (0u64, 0);
    for step in steps() {
        bits |= step << filled;
        filled += width;
        while filled >= 8 {
            out.push(bits as u8);
            bits >>= 8;
            filled -= 8;
        }
    }
    if filled > 0 {
        out.push(bits as u8);
    }
}

/// Calls `put` with the `n` integers that [`put_ints`] wrote.
fn get_ints(bytes: &[u8], n: usize, mut put: impl FnMut(i64)) {
    let (first, len) = get_uvarint(bytes).expect(INTACT);
    let mut int = unzigzag(first);
    put(int);
    let width = u32::from(bytes[len]);
    let packed = &bytes[len + 1..];
    if width > MAX_WIDTH {
        for step in packed.as_chunks::<8>().0.iter().take(n - 1) {
            int = int.wrapping_add(unzigzag(u64::from_le_bytes(*step)));
            put(int);
        }
        return;
    }
    let mut packed = packed.iter();
    let (mut bits, mut filled) = (0u64, 0);
    for _ in 1..n {
        while filled < width {
            bits |= u64::from(*packed.next().expect(INTACT)) << filled;
            filled += 8;
        }
        int = int.wrapping_add(unzigzag(bits & ((1 << width) - 1)));
        bits >>= width;
        filled -= width;
        put(int);
    }
}

/// Appends timestamps: the first, and their distances, which are mostly alike.
fn put_times(times: &[i64], out: &mut Vec<u8>) {
    let mut distances = [0; ROWS];
    for (distance, pair) in distances.iter_mut().zip(times.windows(2)) {
        *distance = pair[1].wrapping_sub(pair[0]);
    }
    put_uvarint(out, zigzag(times[0]));
    if times.len() > 1 {
        put_ints(&distances[..times.len() - 1], out);
    }
}

/// Appends to `out` the `n` timestamps that [`put_times`] wrote.
fn get_times(bytes: &[u8], n: usize, out: &mut Vec<i64>) {
    let (first, len) = get_uvarint(bytes).expect(INTACT);
    let mut t = unzigzag(first);
    out.push(t);
    if n > 1 {
        get_ints(&bytes[len..], n - 1, |distance| {
            t = t.wrapping_add(distance);
            out.push(t);
        });
    }
}

/// The bytes of a column among `columns` of them, whose lengths stand before them; none if it has
/// no samples.
fn column_bytes(piece: &[u8], columns: usize, column: usize) -> &[u8] {
    let (lens, bytes) = piece.split_at(columns);
    let Some(&len) = lens.get(column) else { return &[] };
    let start: usize = lens[..column].iter().map(|&len| usize::from(len)).sum();
    &bytes[start..start + usize::from(len)]
}

impl Block {
    /// The timestamp of its newest row.
    pub fn last_ms(&self) -> i64 {
        self.last_ms
    }

    /// How many rows it has.
    pub fn rows(&self) -> usize {
        usize::from(self.bytes[0])
    }

    /// How much memory it takes beside itself.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len() + self.starts.as_ref().map_or(0, |starts| starts.len())
    }

    fn columns(&self) -> usize {
        usize::from(u16::from_le_bytes([self.bytes[3], self.bytes[4]]))
    }

    /// Puts the timestamps of its rows, ascending, into `times`.
    pub fn times(&self, times: &mut Vec<i64>) {
        times.clear();
        let bytes = &self.bytes[HEADER_BYTES..][..usize::from(self.bytes[2])];
        if self.bytes[1] == 1 {
            get_times(bytes, self.rows(), times);
        } else {
            times.extend(bytes.as_chunks::<8>().0.iter().map(|raw| i64::from_le_bytes(*raw)));
        }
    }

    /// Puts the values of a column into `values` and returns in which rows they are.
    pub fn column(&self, column: u16, values: &mut Vec<f64>) -> u16 {
        values.clear();
        let piece = &self.bytes[HEADER_BYTES + usize::from(self.bytes[2])..];
        let bytes = column_bytes(piece, self.columns(), usize::from(column));
        let Some(&head) = bytes.first() else { return 0 };
        let (mask, body) = match head & HOLES {
            0 => (full(self.rows()), &bytes[1..]),
            _ => (u16::from_le_bytes([bytes[1], bytes[2]]), &bytes[3..]),
        };
        decode(head & !HOLES, body, mask.count_ones() as usize, values);
        mask
    }

    /// Puts the start timestamps of a column's `n` values into `starts`; nothing if none has one.
    pub fn starts(&self, column: u16, n: usize, starts: &mut Vec<i64>) {
        starts.clear();
        let Some(piece) = &self.starts else { return };
        let bytes = column_bytes(piece, self.columns(), usize::from(column));
        if !bytes.is_empty() {
            get_ints(bytes, n, |start| starts.push(start));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![
            4 => (-2000i64..2000, 0usize..7).prop_map(|(i, digits)| i as f64 / POWERS[digits]),
            2 => any::<i64>().prop_map(|i| (i >> 8) as f64),
            1 => any::<u64>().prop_map(f64::from_bits),
            1 => prop_oneof![Just(0.0), Just(-0.0), Just(1e300), Just(f64::INFINITY), Just(larum_storage_format::STALE_NAN)],
        ]
    }

    fn int() -> impl Strategy<Value = i64> {
        prop_oneof![0..9i64, any::<i64>(), Just(i64::MIN), Just(i64::MAX)]
    }

    #[derive(Debug, Clone)]
    struct Column {
        mask: u16,
        values: Vec<f64>,
        starts: Vec<i64>,
    }

    fn column(rows: usize) -> impl Strategy<Value = Column> {
        let values = proptest::collection::vec(value(), ROWS);
        let starts = proptest::collection::vec(int(), ROWS);
        (any::<u16>(), values, starts, 0u8..6).prop_map(move |(mask, mut values, mut starts, shape)| {
            let mask = if shape == 0 { full(rows) } else { mask & full(rows) };
            if shape == 1 {
                let first = values[0];
                values.fill(first);
            }
            let n = mask.count_ones() as usize;
            values.truncate(n);
            starts.truncate(if shape < 3 { 0 } else { n });
            Column { mask, values, starts }
        })
    }

    fn block() -> impl Strategy<Value = (Vec<i64>, Vec<Column>)> {
        (1..=ROWS).prop_flat_map(|rows| {
            (proptest::collection::vec(int(), rows), proptest::collection::vec(column(rows), 1..40))
        })
    }

    proptest! {
        #[test]
        fn columns_come_back((times, columns) in block()) {
            let mut builder = BlockBuilder::default();
            for Column { mask, values, starts } in &columns {
                builder.push(*mask, times.len(), values, starts);
            }
            let block = builder.finish(&times);
            let (mut values, mut ints) = (Vec::new(), Vec::new());
            block.times(&mut ints);
            prop_assert_eq!(&ints, &times);
            for (at, expected) in columns.iter().enumerate() {
                let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                prop_assert_eq!(block.column(at as u16, &mut values), expected.mask);
                prop_assert_eq!(bits(&values), bits(&expected.values));
                block.starts(at as u16, values.len(), &mut ints);
                prop_assert_eq!(&ints, &expected.starts);
            }
            prop_assert_eq!(block.column(columns.len() as u16, &mut values), 0);
        }
    }
}
