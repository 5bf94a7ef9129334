//! Sealed rows of a scrape group: one column of timestamps, one small chunk per series.
//!
//! The codec is for speed and lives in memory only: sealing costs part of every append, and the
//! float codec of the storage format takes ten times as long on sixteen values. A column is
//!
//! 1. a constant: its bits; or
//! 2. decimals with the same few digits: the first as an integer, then the differences, zigzag,
//!    all in the width of the widest; or
//! 3. raw.

use super::group::ROWS;
use larum_storage_format::varint::{get_uvarint, put_uvarint, unzigzag, zigzag};

/// In the head byte of a column: rows are missing, a mask of two bytes follows.
const HOLES: u8 = 0x80;
const CONSTANT: u8 = 0x10;
/// With the number of digits.
const DECIMALS: u8 = 0x20;
const RAW: u8 = 0x40;

const POWERS: [f64; 7] = [1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6];
/// Integers below this are exact as floats.
const EXACT: f64 = (1u64 << 53) as f64;
/// Wider differences do not fit the packing, and would save nothing.
const MAX_WIDTH: u32 = 56;

/// Rows that are full and do not change any more.
#[derive(Debug)]
pub(super) struct Block {
    times: Box<[i64]>,
    /// Length of each column's bytes; 0 for a series without samples here.
    lens: Box<[u8]>,
    bytes: Box<[u8]>,
}

/// Buffers to build blocks in.
#[derive(Debug, Default)]
pub(super) struct BlockBuilder {
    lens: Vec<u8>,
    bytes: Vec<u8>,
}

impl BlockBuilder {
    /// Adds the next column: the values of the rows in `mask`.
    pub fn push(&mut self, mask: u16, rows: usize, values: &[f64]) {
        debug_assert_eq!(mask.count_ones() as usize, values.len());
        let start = self.bytes.len();
        if mask == full(rows) {
            encode(0, &[], values, &mut self.bytes);
        } else if mask != 0 {
            encode(HOLES, &mask.to_le_bytes(), values, &mut self.bytes);
        }
        let len = self.bytes.len() - start;
        self.lens.push(u8::try_from(len).expect("16 raw floats and 3 bytes are below 256"));
    }

    /// The block of the columns added since the last one.
    pub fn finish(&mut self, times: &[i64]) -> Block {
        let (lens, bytes) = (self.lens.as_slice().into(), self.bytes.as_slice().into());
        self.lens.clear();
        self.bytes.clear();
        Block { times: times.into(), lens, bytes }
    }
}

fn full(rows: usize) -> u16 {
    debug_assert!(0 < rows && rows <= ROWS);
    u16::MAX >> (ROWS - rows)
}

/// Appends head byte, mask and values, which are one at least.
fn encode(holes: u8, mask: &[u8], values: &[f64], out: &mut Vec<u8>) {
    let mut ints = [0; ROWS];
    let ints = &mut ints[..values.len()];
    let (kind, digits) = if values.iter().all(|v| v.to_bits() == values[0].to_bits()) {
        (CONSTANT, 0)
    } else {
        match (0..POWERS.len()).find(|&digits| to_ints(values, POWERS[digits], ints)) {
            Some(digits) => (DECIMALS, digits as u8),
            None => (RAW, 0),
        }
    };
    let mut widest = 0;
    if kind == DECIMALS {
        widest = ints.windows(2).fold(0, |all, pair| all | zigzag(pair[1] - pair[0]));
    }
    let width = u64::BITS - widest.leading_zeros();
    let kind = if width > MAX_WIDTH { RAW } else { kind | digits };
    out.push(holes | kind);
    out.extend_from_slice(mask);
    match kind {
        CONSTANT => out.extend_from_slice(&values[0].to_bits().to_le_bytes()),
        RAW => values.iter().for_each(|v| out.extend_from_slice(&v.to_bits().to_le_bytes())),
        _ => {
            put_uvarint(out, zigzag(ints[0]));
            out.push(width as u8);
            let (mut bits, mut filled) = (0u64, 0);
            for pair in ints.windows(2) {
                bits |= zigzag(pair[1] - pair[0]) << filled;
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
    const INTACT: &str = "encode() wrote it, and it lay in memory since";
    match kind {
        CONSTANT => out.resize(n, f64::from_le_bytes(*bytes.first_chunk().expect(INTACT))),
        RAW => out.extend(bytes.as_chunks::<8>().0.iter().map(|raw| f64::from_le_bytes(*raw))),
        _ => {
            let power = POWERS[usize::from(kind & 0xf)];
            let (first, len) = get_uvarint(bytes).expect(INTACT);
            let mut int = unzigzag(first);
            out.push(int as f64 / power);
            let width = u32::from(bytes[len]);
            let mut packed = bytes[len + 1..].iter();
            let (mut bits, mut filled) = (0u64, 0);
            for _ in 1..n {
                while filled < width {
                    bits |= u64::from(*packed.next().expect(INTACT)) << filled;
                    filled += 8;
                }
                int += unzigzag(bits & ((1 << width) - 1));
                bits >>= width;
                filled -= width;
                out.push(int as f64 / power);
            }
        }
    }
}

impl Block {
    /// The timestamps of its rows, ascending.
    pub fn times(&self) -> &[i64] {
        &self.times
    }

    /// Puts the values of a column into `values` and returns in which rows they are.
    pub fn column(&self, column: u16, values: &mut Vec<f64>) -> u16 {
        values.clear();
        let column = usize::from(column);
        let Some(&len) = self.lens.get(column).filter(|&&len| len != 0) else { return 0 };
        let start: usize = self.lens[..column].iter().map(|&len| usize::from(len)).sum();
        let bytes = &self.bytes[start..start + usize::from(len)];
        let (mask, body) = match bytes[0] & HOLES {
            0 => (full(self.times.len()), &bytes[1..]),
            _ => (u16::from_le_bytes([bytes[1], bytes[2]]), &bytes[3..]),
        };
        decode(bytes[0] & !HOLES, body, mask.count_ones() as usize, values);
        mask
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

    proptest! {
        #[test]
        fn columns_come_back(
            columns in proptest::collection::vec((any::<u16>(), proptest::collection::vec(value(), ROWS), 0u8..3), 1..40),
            rows in 1usize..=ROWS,
        ) {
            let times: Vec<i64> = (0..rows as i64).collect();
            let mut builder = BlockBuilder::default();
            let columns: Vec<(u16, Vec<f64>)> = columns
                .into_iter()
                .map(|(mask, mut values, shape)| {
                    let mask = if shape == 0 { full(rows) } else { mask & full(rows) };
                    if shape == 1 {
                        let first = values[0];
                        values.fill(first);
                    }
                    values.truncate(mask.count_ones() as usize);
                    (mask, values)
                })
                .collect();
            for (mask, values) in &columns {
                builder.push(*mask, rows, values);
            }
            let block = builder.finish(&times);
            let mut values = Vec::new();
            for (at, (mask, expected)) in columns.iter().enumerate() {
                prop_assert_eq!(block.column(at as u16, &mut values), *mask);
                let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                prop_assert_eq!(bits(&values), bits(expected));
            }
            prop_assert_eq!(block.column(columns.len() as u16, &mut values), 0);
        }
    }
}
