//! Sealed rows of a scrape group: one column of timestamps, one small chunk per series.

use super::group::ROWS;
use larum_storage_format::chunk::float::{decode_floats, encode_floats};

/// First byte of a column with holes; the mask of present rows follows. No float chunk begins so.
const HOLES: u8 = 0xff;
/// First byte of a column that is kept as it is, because its chunk would be longer; the mask of
/// present rows follows.
const RAW: u8 = 0xfe;

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
        if mask != 0 {
            if mask != full(rows) {
                self.bytes.push(HOLES);
                self.bytes.extend_from_slice(&mask.to_le_bytes());
            }
            encode_floats(values, &mut self.bytes);
            if self.bytes.len() - start > 3 + 8 * values.len() {
                self.bytes.truncate(start);
                self.bytes.push(RAW);
                self.bytes.extend_from_slice(&mask.to_le_bytes());
                values.iter().for_each(|v| self.bytes.extend_from_slice(&v.to_bits().to_le_bytes()));
            }
        }
        let len = self.bytes.len() - start;
        self.lens.push(u8::try_from(len).expect("16 raw floats and 3 bytes are below 256"));
    }

    /// The block of the columns added since the last one.
    pub fn finish(&mut self, times: &[i64]) -> Block {
        let block = Block {
            times: times.into(),
            lens: self.lens.as_slice().into(),
            bytes: self.bytes.as_slice().into(),
        };
        self.lens.clear();
        self.bytes.clear();
        block
    }
}

fn full(rows: usize) -> u16 {
    debug_assert!(0 < rows && rows <= ROWS);
    u16::MAX >> (ROWS - rows)
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
        let mask = match bytes[0] {
            HOLES | RAW => u16::from_le_bytes([bytes[1], bytes[2]]),
            _ => full(self.times.len()),
        };
        match bytes[0] {
            RAW => values.extend(bytes[3..].as_chunks::<8>().0.iter().map(|raw| f64::from_le_bytes(*raw))),
            first => {
                let chunk = if first == HOLES { &bytes[3..] } else { bytes };
                decode_floats(chunk, mask.count_ones() as usize, values)
                    .expect("the chunk was encoded by push() and lay in memory since");
            }
        }
        mask
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn columns_come_back(
            columns in proptest::collection::vec((any::<u16>(), any::<u64>(), 0u32..64), 1..40), rows in 1usize..17,
        ) {
            let times: Vec<i64> = (0..rows as i64).collect();
            let mut builder = BlockBuilder::default();
            let columns: Vec<(u16, Vec<f64>)> = columns
                .into_iter()
                .map(|(mask, seed, shift)| {
                    let mask = mask & full(rows);
                    let value = |i: u32| f64::from_bits(seed.wrapping_mul(u64::from(i) + 1) << shift);
                    (mask, (0..mask.count_ones()).map(value).collect())
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
