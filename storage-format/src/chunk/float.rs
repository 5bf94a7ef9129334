//! Float chunks: bit-exact for every f64, NaN payloads, -0.0 and infinities included.
//!
//! The encoder tries, in this order: all values equal (CONST); decimals with at most one
//! exception in eight (DEC); decimals plus a small number of units in the last place (ULP), which
//! is what running sums of decimals look like; and the floats' bits in an order-preserving form
//! (BITS), which costs at most one per cent more than raw bytes.

use super::decimal::{self, DIGITS_MAX};
use super::{KIND_BITS, KIND_BITS_OF_F64, KIND_CONST, KIND_DEC, KIND_MASK, KIND_ULP, MAX_CHUNK_SAMPLES};
use crate::bits::bit_len;
use crate::cursor::{Cursor, DecodeError};
use crate::ints::{Packing, decode_ints, decode_mapped, encode_ints, peek_first};
use crate::sample::{STALE_NAN, is_stale};
use crate::varint::{put_uvarint, zigzag};

/// In the parameter of DEC: an exception list precedes the integers.
const HAS_EXCEPTIONS: u8 = 1 << 4;
const DIGITS_MASK: u8 = 0b1111;

/// Digits that ULP is tried with.
const ULP_DIGITS: std::ops::RangeInclusive<u8> = 1..=12;
/// ULP is tried on so many values first, and never on fewer: too few to pay.
const ULP_TRIAL: usize = 96;

/// Appends the chunk of `values`; nothing at all if there are none.
pub fn encode_floats(values: &[f64], packing: Packing, out: &mut Vec<u8>) {
    encode(values, packing, out);
}

/// As [`encode_floats`]; gives the integers of a DEC chunk that has no exceptions.
pub(super) fn encode(values: &[f64], packing: Packing, out: &mut Vec<u8>) -> Option<Vec<i64>> {
    let &first = values.first()?;
    if values.iter().all(|v| v.to_bits() == first.to_bits()) {
        encode_constant(first, out);
    } else if let Some((digits, ints)) = decimal::of_all(values) {
        out.push(head(KIND_DEC, digits));
        encode_ints(&ints, packing, out);
        return Some(ints);
    } else if let Some(digits) = decimal::digits_of_most(values) {
        encode_decimals(values, digits, packing, out);
    } else {
        encode_by_bits(values, packing, out);
    }
    None
}

/// Decodes a chunk of `n` floats, which takes all of `bytes`, and appends them to `out`.
///
/// # Errors
/// Bytes that no encoder writes; `n` beyond [`MAX_CHUNK_SAMPLES`]. `out` then holds rubbish behind
/// its old end.
pub fn decode_floats(bytes: &[u8], n: usize, out: &mut Vec<f64>) -> Result<(), DecodeError> {
    let mut cursor = Cursor::new(bytes);
    decode_from(&mut cursor, n, out)?;
    cursor.finish("float chunk")
}

/// As [`decode_floats`], but from a cursor and leaving what follows the chunk.
pub(crate) fn decode_from(cursor: &mut Cursor<'_>, n: usize, out: &mut Vec<f64>) -> Result<(), DecodeError> {
    const WHAT: &str = "float chunk";
    if n > MAX_CHUNK_SAMPLES {
        return Err(cursor.corrupt(WHAT, "more than 4,096 samples"));
    }
    if n == 0 {
        return Ok(());
    }
    let mut start = cursor.clone();
    let head = cursor.u8("chunk head")?;
    let param = head >> KIND_BITS;
    match head & KIND_MASK {
        KIND_CONST => {
            let value = read_constant(&mut start)?;
            *cursor = start;
            out.resize(out.len() + n, value);
        }
        KIND_DEC => decode_decimals(cursor, param, n, out)?,
        KIND_ULP if param <= DIGITS_MAX => {
            let power = decimal::power(param);
            let mut nearest = Vec::new();
            decode_mapped(cursor, n, |i| ordered(i as f64 / power), &mut nearest)?;
            let mut steps = Vec::new();
            decode_ints(cursor, n, &mut steps)?;
            out.extend(nearest.iter().zip(steps).map(|(near, step)| from_ordered(near.wrapping_add(step))));
        }
        KIND_BITS_OF_F64 if param == 0 => decode_mapped(cursor, n, from_ordered, out)?,
        _ => return Err(start.corrupt(WHAT, "not a float chunk, or an unknown parameter")),
    }
    Ok(())
}

fn head(kind: u8, param: u8) -> u8 {
    kind | param << KIND_BITS
}

fn encode_constant(value: f64, out: &mut Vec<u8>) {
    let from = out.len();
    if let Some((digits, i)) = decimal::of_one(value) {
        out.push(head(KIND_CONST, digits + 1));
        put_uvarint(out, zigzag(i));
        if out.len() - from <= 8 {
            return;
        }
        out.truncate(from);
    }
    out.push(head(KIND_CONST, 0));
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

/// `head; [varint count; per exception varint (gap << 1 | is stale), [u64 bits]]; int stream`.
fn encode_decimals(values: &[f64], digits: u8, packing: Packing, out: &mut Vec<u8>) {
    let power = decimal::power(digits);
    let mut exceptions = Vec::new();
    let mut ints: Vec<i64> = Vec::with_capacity(values.len());
    for (at, &value) in values.iter().enumerate() {
        match decimal::exact(value, power) {
            Some(i) => ints.push(i),
            None => {
                // The slot must hold something; the previous integer costs least.
                let previous = ints.last().copied();
                ints.push(
                    previous.unwrap_or_else(|| {
                        values.iter().find_map(|&v| decimal::exact(v, power)).unwrap_or(0)
                    }),
                );
                exceptions.push(at);
            }
        }
    }
    out.push(head(KIND_DEC, digits | if exceptions.is_empty() { 0 } else { HAS_EXCEPTIONS }));
    if !exceptions.is_empty() {
        put_uvarint(out, exceptions.len() as u64);
        let mut next = 0;
        for at in exceptions {
            let stale = is_stale(values[at]);
            put_uvarint(out, ((at - next) as u64) << 1 | u64::from(stale));
            if !stale {
                out.extend_from_slice(&values[at].to_bits().to_le_bytes());
            }
            next = at + 1;
        }
    }
    encode_ints(&ints, packing, out);
}

fn decode_decimals(
    cursor: &mut Cursor<'_>,
    param: u8,
    n: usize,
    out: &mut Vec<f64>,
) -> Result<(), DecodeError> {
    let mut exceptions = Vec::new();
    if param & HAS_EXCEPTIONS != 0 {
        read_exceptions(cursor, n, |at, value| exceptions.push((at, value)))?;
    }
    let from = out.len();
    match param & DIGITS_MASK {
        0 => decode_mapped(cursor, n, |i| i as f64, out)?,
        digits => {
            let power = decimal::power(digits);
            decode_mapped(cursor, n, |i| i as f64 / power, out)?;
        }
    }
    let decoded = &mut out[from..];
    for (at, value) in exceptions {
        decoded[at] = value;
    }
    Ok(())
}

/// Reads the exceptions of `n` decimals and tells `each` their places and values.
fn read_exceptions(
    cursor: &mut Cursor<'_>,
    n: usize,
    mut each: impl FnMut(usize, f64),
) -> Result<(), DecodeError> {
    const WHAT: &str = "exceptions of a float chunk";
    let count = cursor.count(1, WHAT)?;
    let mut next = 0u64;
    for _ in 0..count {
        let start = cursor.clone();
        let entry = cursor.uvarint(WHAT)?;
        let value = if entry & 1 == 1 { STALE_NAN } else { cursor.f64(WHAT)? };
        let at = next + (entry >> 1);
        if at >= n as u64 {
            return Err(start.corrupt(WHAT, "an exception lies behind the last sample"));
        }
        each(at as usize, value);
        next = at + 1;
    }
    Ok(())
}

/// The power of ten of a DEC chunk with this head; `None` for any other.
pub(super) fn decimal_power(head: u8) -> Option<f64> {
    (head & KIND_MASK == KIND_DEC).then(|| decimal::power(head >> KIND_BITS & DIGITS_MASK))
}

/// What the first bytes of a DEC chunk say.
#[derive(Debug, Clone, Copy)]
pub(super) struct DecimalHead {
    /// Its values are integers over this.
    pub power: f64,
    /// The first integer.
    pub first: i64,
}

/// Reads the first bytes of a DEC chunk of `n` values.
pub(super) fn read_decimal_head(cursor: &mut Cursor<'_>, n: usize) -> Result<DecimalHead, DecodeError> {
    let start = cursor.clone();
    let head = cursor.u8("chunk head")?;
    let Some(power) = decimal_power(head) else {
        return Err(start.corrupt("chunk statistics", "integers of a chunk that has none"));
    };
    if head >> KIND_BITS & HAS_EXCEPTIONS != 0 {
        read_exceptions(cursor, n, |_, _| {})?;
    }
    Ok(DecimalHead { power, first: peek_first(cursor)? })
}

/// The value of the CONST chunk that the cursor stands at.
pub(super) fn read_constant(cursor: &mut Cursor<'_>) -> Result<f64, DecodeError> {
    let start = cursor.clone();
    match cursor.u8("chunk head")? >> KIND_BITS {
        0 => cursor.f64("constant"),
        param @ 1..=16 => Ok(cursor.ivarint("constant")? as f64 / decimal::power(param - 1)),
        _ => Err(start.corrupt("float chunk", "unknown parameter of CONST")),
    }
}

/// ULP or BITS, whichever is shorter.
fn encode_by_bits(values: &[f64], packing: Packing, out: &mut Vec<u8>) {
    let from = out.len();
    encode_bits(values, packing, out);
    if values.len() < ULP_TRIAL {
        return;
    }
    let middle = (values.len() - ULP_TRIAL) / 2;
    let trial = &values[middle..middle + ULP_TRIAL];
    let digits = ULP_DIGITS.min_by_key(|&digits| ulp_bits(trial, digits)).unwrap_or(1);
    let mut scratch = Vec::new();
    encode_bits(trial, packing, &mut scratch);
    let by_bits = scratch.len();
    scratch.clear();
    encode_ulp(trial, digits, packing, &mut scratch);
    // Two streams decode at half the speed of one; a twentieth must be gained at least.
    if scratch.len() < by_bits / 20 * 19 {
        scratch.clear();
        encode_ulp(values, digits, packing, &mut scratch);
        if scratch.len() < out.len() - from {
            out.truncate(from);
            out.extend_from_slice(&scratch);
        }
    }
}

/// About how many bits the two streams of ULP take.
fn ulp_bits(values: &[f64], digits: u8) -> u64 {
    let power = decimal::power(digits);
    let mut previous = 0;
    let bits = |value: i64| u64::from(bit_len(zigzag(value)));
    values
        .iter()
        .map(|&value| {
            let i = decimal::nearest(value, power);
            let step = i.wrapping_sub(std::mem::replace(&mut previous, i));
            bits(step) + bits(ordered(value).wrapping_sub(ordered(i as f64 / power)))
        })
        .sum()
}

fn encode_bits(values: &[f64], packing: Packing, out: &mut Vec<u8>) {
    out.push(head(KIND_BITS_OF_F64, 0));
    let ints: Vec<i64> = values.iter().map(|&v| ordered(v)).collect();
    encode_ints(&ints, packing, out);
}

fn encode_ulp(values: &[f64], digits: u8, packing: Packing, out: &mut Vec<u8>) {
    let power = decimal::power(digits);
    out.push(head(KIND_ULP, digits));
    let ints: Vec<i64> = values.iter().map(|&v| decimal::nearest(v, power)).collect();
    let steps: Vec<i64> =
        values.iter().zip(&ints).map(|(&v, &i)| ordered(v).wrapping_sub(ordered(i as f64 / power))).collect();
    encode_ints(&ints, packing, out);
    encode_ints(&steps, packing, out);
}

/// The bits of a float as an integer that sorts as floats do (by sign and magnitude), so that
/// neighbouring floats are neighbouring integers.
fn ordered(value: f64) -> i64 {
    let bits = value.to_bits() as i64;
    bits ^ (((bits >> 63) as u64) >> 1) as i64
}

/// The inverse of [`ordered`].
fn from_ordered(value: i64) -> f64 {
    f64::from_bits((value ^ (((value >> 63) as u64) >> 1) as i64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(values: &[f64]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_floats(values, Packing::KEPT, &mut bytes);
        bytes
    }

    fn bits(values: &[f64]) -> Vec<u64> {
        values.iter().map(|v| v.to_bits()).collect()
    }

    /// Round trip; gives the kind that was chosen and the length.
    fn round_trip(values: &[f64]) -> (u8, usize) {
        let bytes = encode(values);
        let mut out = vec![7.5];
        decode_floats(&bytes, values.len(), &mut out).unwrap();
        assert_eq!(bits(&out[1..]), bits(values));
        (bytes.first().map_or(0, |b| b & KIND_MASK), bytes.len())
    }

    #[test]
    fn the_codec_follows_the_data() {
        let n = 480;
        let f = |f: &dyn Fn(usize) -> f64| (0..n).map(f).collect::<Vec<_>>();
        let mut sum = 0.0;
        let cases = [
            ("constant", f(&|_| 1.5), KIND_CONST, 2),
            ("constant NaN", f(&|_| f64::NAN), KIND_CONST, 9),
            ("constant third", f(&|_| 1.0 / 3.0), KIND_CONST, 9),
            ("counter", f(&|i| (i * 37 + i % 7) as f64), KIND_DEC, 260),
            ("gauge", f(&|i| (200 + i * i % 17) as f64 / 10.0), KIND_DEC, 340),
            ("stale at the end", f(&|i| if i < 400 { i as f64 } else { STALE_NAN }), KIND_DEC, 200),
            ("some infinite", f(&|i| if i % 100 == 0 { f64::INFINITY } else { i as f64 }), KIND_DEC, 120),
            (
                "running sum",
                (0..n)
                    .map(|i| {
                        sum += (i * 7919 % 100_003) as f64 / 1e6;
                        sum
                    })
                    .collect(),
                KIND_ULP,
                1200,
            ),
            ("noise", f(&|i| (i as f64).sin()), KIND_BITS_OF_F64, n * 8 + 40),
        ];
        for (name, values, kind, most) in cases {
            let (chosen, len) = round_trip(&values);
            assert_eq!(chosen, kind, "{name}");
            assert!(len <= most, "{name}: {len} bytes");
        }
    }

    #[test]
    fn order_of_bits_is_order_of_floats() {
        let floats = [f64::NEG_INFINITY, -1.0, -f64::MIN_POSITIVE, -0.0, 0.0, 1e-300, 1.0, f64::INFINITY];
        assert!(floats.map(ordered).is_sorted());
        assert_eq!(ordered(1.0) + 1, ordered(1.0f64.next_up()));
    }

    #[test]
    fn kinds_that_are_no_floats_are_refused() {
        for kind in 4..8 {
            assert!(decode_floats(&[kind, 1, 0, 0], 3, &mut Vec::new()).is_err());
        }
        assert!(decode_floats(&[KIND_CONST | 31 << 3, 0], 3, &mut Vec::new()).is_err());
        assert!(decode_floats(&[KIND_CONST | 1 << 3, 0], 4097, &mut Vec::new()).is_err());
    }

    fn special() -> impl Strategy<Value = f64> {
        prop_oneof![
            Just(STALE_NAN),
            Just(-0.0),
            Just(f64::NAN),
            Just(f64::INFINITY),
            Just(f64::NEG_INFINITY),
            any::<u64>().prop_map(f64::from_bits),
        ]
    }

    /// Columns as metrics have them, and columns of nothing but bit patterns.
    fn columns() -> impl Strategy<Value = Vec<f64>> {
        let decimals =
            (0..16u8, proptest::collection::vec(any::<i32>(), 0..400)).prop_map(|(digits, ints)| {
                ints.into_iter().map(|i| f64::from(i) / decimal::power(digits)).collect::<Vec<_>>()
            });
        let sprinkled = (decimals, proptest::collection::vec((any::<usize>(), special()), 0..20)).prop_map(
            |(mut values, specials)| {
                for (at, special) in specials {
                    if !values.is_empty() {
                        let at = at % values.len();
                        values[at] = special;
                    }
                }
                values
            },
        );
        let bits = proptest::collection::vec(any::<u64>().prop_map(f64::from_bits), 0..300);
        prop_oneof![2 => sprinkled, 1 => bits, 1 => proptest::collection::vec(special(), 0..150)]
    }

    proptest! {
        #[test]
        fn every_bit_pattern_comes_back(values in columns()) {
            round_trip(&values);
        }

        #[test]
        fn every_cut_is_refused(values in columns()) {
            let bytes = encode(&values);
            for cut in 0..bytes.len() {
                prop_assert!(decode_floats(&bytes[..cut], values.len(), &mut Vec::new()).is_err());
            }
        }

        #[test]
        fn a_changed_byte_gives_values_or_an_error(values in columns(), at in any::<usize>(), flip in 1..=255u8) {
            let mut bytes = encode(&values);
            if !bytes.is_empty() {
                let at = at % bytes.len();
                bytes[at] ^= flip;
                let mut out = Vec::new();
                if decode_floats(&bytes, values.len(), &mut out).is_ok() {
                    prop_assert_eq!(out.len(), values.len());
                }
            }
        }
    }
}
