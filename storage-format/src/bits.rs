//! Fixed-width bit packing of up to 128 integers, least significant bit first.
//!
//! Value `i` of width `w` occupies the bits `i*w .. (i+1)*w` of the payload, counted from the
//! lowest bit of the first byte; the payload ends at the next byte border. Eight values take
//! exactly `w` bytes, so the decoder works on groups of eight whose shifts are constants.

use crate::cursor::{Cursor, DecodeError};

/// The most values packed with one width.
pub(crate) const BLOCK: usize = 128;

/// Room for a block of the greatest width, and for the last eight-byte load.
const SCRATCH_BYTES: usize = BLOCK * 8 + 8;
/// Room for the usual payload of a few samples; the larger one takes longer to clear than to fill.
const SHORT_SCRATCH_BYTES: usize = 64;

/// Length in bytes of `n` packed values.
pub(crate) fn packed_len(n: usize, width: u32) -> usize {
    (n * width as usize).div_ceil(8)
}

/// How many bits `value` needs.
pub(crate) fn bit_len(value: u64) -> u32 {
    64 - value.leading_zeros()
}

/// Appends at most [`BLOCK`] values, of which only the lowest `width` bits are kept.
pub(crate) fn pack(values: impl IntoIterator<Item = u64>, width: u32, out: &mut Vec<u8>) {
    let mask = if width == 0 { 0 } else { u64::MAX >> (64 - width) };
    let mut words = [[0; 8]; BLOCK + 1];
    let (mut full, mut pending, mut bits) = (0, 0u128, 0);
    for value in values {
        pending |= u128::from(value & mask) << bits;
        bits += width;
        if bits >= 64 {
            words[full] = (pending as u64).to_le_bytes();
            full += 1;
            pending >>= 64;
            bits -= 64;
        }
    }
    words[full] = (pending as u64).to_le_bytes();
    out.extend_from_slice(&words.as_flattened()[..full * 8 + bits.div_ceil(8) as usize]);
}

/// Reads `n` (at most [`BLOCK`]) values of `width` (at most 64) bits into the front of `out`.
/// What is left in `out` behind them is unspecified.
pub(crate) fn unpack(
    cursor: &mut Cursor<'_>,
    n: usize,
    width: u32,
    out: &mut [u64; BLOCK],
    what: &'static str,
) -> Result<(), DecodeError> {
    let rest = cursor.rest();
    let payload = cursor.take(packed_len(n, width), what)?;
    // Whole groups of eight are read, with a load of eight bytes for the last value.
    let groups = n.div_ceil(8);
    let out = &mut out.as_chunks_mut::<8>().0[..groups];
    let needed = groups * width as usize + 8;
    if let Some(readable) = rest.get(..needed) {
        unpack_any(readable, width, out);
    } else if needed <= SHORT_SCRATCH_BYTES {
        let mut scratch = [0; SHORT_SCRATCH_BYTES];
        scratch[..payload.len()].copy_from_slice(payload);
        unpack_any(&scratch, width, out);
    } else {
        let mut scratch = [0; SCRATCH_BYTES];
        scratch[..payload.len()].copy_from_slice(payload);
        unpack_any(&scratch, width, out);
    }
    Ok(())
}

/// The value at `index` among packed ones of `width` (at most 32) bits; `None` beyond the input.
pub(crate) fn get(packed: &[u8], index: usize, width: u32) -> Option<u32> {
    debug_assert!(width <= 32);
    let bit = index * width as usize;
    let end = (bit + width as usize).div_ceil(8);
    let bytes = packed.get(bit / 8..end)?;
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    let mask = (1u64 << width) - 1;
    Some((u64::from_le_bytes(word) >> (bit % 8) & mask) as u32)
}

/// Unpacks groups of eight from `bytes`, which must hold `width` bytes for each, and 8 more.
fn unpack_any(bytes: &[u8], width: u32, out: &mut [[u64; 8]]) {
    macro_rules! by_width {
        ($($w:literal)*) => {
            match width {
                $($w => unpack_block::<$w>(bytes, out),)*
                _ => out.fill([0; 8]),
            }
        };
    }
    by_width!(
        1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32
        33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64
    )
}

/// The width is a constant here, so that every shift is one and the bounds of the eight loads of a
/// group are checked once.
fn unpack_block<const W: usize>(bytes: &[u8], out: &mut [[u64; 8]]) {
    let mask = u64::MAX >> (64 - W);
    for (group, eight) in out.iter_mut().enumerate() {
        let bytes = &bytes[group * W..group * W + W + 8];
        for (k, value) in eight.iter_mut().enumerate() {
            let (at, shift) = (k * W / 8, k * W % 8);
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            let mut bits = u64::from_le_bytes(word) >> shift;
            if shift + W > 64 {
                bits |= u64::from(bytes[at + 8]) << (64 - shift);
            }
            *value = bits & mask;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_and_length_comes_back_with_and_without_bytes_behind() {
        for width in 0..=64u32 {
            let mask = if width == 0 { 0 } else { u64::MAX >> (64 - width) };
            let values: Vec<u64> = (1..=BLOCK as u64)
                .map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(7) & mask)
                .collect();
            for n in [0, 1, 2, 7, 8, 9, 63, 127, 128] {
                let mut bytes = Vec::new();
                pack(values[..n].iter().copied(), width, &mut bytes);
                assert_eq!(bytes.len(), packed_len(n, width));
                for behind in [0, 2000] {
                    let mut input = bytes.clone();
                    input.resize(bytes.len() + behind, 0xff);
                    let mut cursor = Cursor::new(&input);
                    let mut out = [0; BLOCK];
                    unpack(&mut cursor, n, width, &mut out, "values").unwrap();
                    assert_eq!(out[..n], values[..n], "width {width}, {n} values");
                    assert_eq!(cursor.position(), bytes.len());
                }
                if width <= 32 {
                    for (i, &value) in values[..n].iter().enumerate() {
                        assert_eq!(get(&bytes, i, width), Some(value as u32));
                    }
                    assert!(width == 0 || get(&bytes, n + 8, width).is_none());
                }
                if !bytes.is_empty() {
                    let mut cursor = Cursor::new(&bytes[..bytes.len() - 1]);
                    assert!(unpack(&mut cursor, n, width, &mut [0; BLOCK], "values").is_err());
                }
            }
        }
    }
}
