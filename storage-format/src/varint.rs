//! Variable-length integers: LEB128, and zigzag for signed values.

/// Appends `value` as LEB128: seven bits a byte, lowest first, the high bit set on all but the last.
pub fn put_uvarint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads a LEB128 integer from the front of `input`; returns it and how many bytes it took.
///
/// `None` if the input ends early or the integer does not fit 64 bits.
#[inline]
pub fn get_uvarint(input: &[u8]) -> Option<(u64, usize)> {
    match input.first() {
        // Most are lengths and small numbers.
        Some(&byte) if byte < 0x80 => Some((byte.into(), 1)),
        _ => get_longer_uvarint(input),
    }
}

fn get_longer_uvarint(input: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for (i, &byte) in input.iter().enumerate().take(10) {
        let bits = u64::from(byte & 0x7f);
        if i == 9 && bits > 1 {
            return None;
        }
        value |= bits << (7 * i);
        if byte < 0x80 {
            return Some((value, i + 1));
        }
    }
    None
}

/// Maps small magnitudes of either sign to small unsigned integers: 0, -1, 1, -2 become 0, 1, 2, 3.
pub const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The inverse of [`zigzag`].
pub const fn unzigzag(value: u64) -> i64 {
    ((value >> 1) as i64) ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_comes_back_and_every_cut_is_refused() {
        for shift in 0..64 {
            for value in [(1u64 << shift) - 1, 1u64 << shift, u64::MAX >> shift] {
                let mut bytes = Vec::new();
                put_uvarint(&mut bytes, value);
                assert_eq!(get_uvarint(&bytes), Some((value, bytes.len())));
                for cut in 0..bytes.len() {
                    assert_eq!(get_uvarint(&bytes[..cut]), None);
                }
            }
        }
    }

    #[test]
    fn an_integer_beyond_64_bits_is_refused() {
        assert_eq!(get_uvarint(&[0xff; 11]), None);
        assert_eq!(get_uvarint(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]), None);
    }

    #[test]
    fn zigzag_is_a_bijection() {
        for value in [0, -1, 1, i64::MIN, i64::MAX, 77, -77] {
            assert_eq!(unzigzag(zigzag(value)), value);
        }
        assert_eq!([zigzag(0), zigzag(-1), zigzag(1), zigzag(-2)], [0, 1, 2, 3]);
    }
}
