//! The integer stream: the one compressor behind timestamps, decimals and histogram counts.
//!
//! A stream holds n integers of 64 bits; n is known from elsewhere. The encoder replaces them by
//! residuals of order 0 (difference to the first), 1 (to the one before) or 2 (difference of
//! differences), divides by the greatest common divisor of the differences, and packs the
//! residuals in blocks of 128 with a width for each block, as a list of those that are not zero, or,
//! where the writer can wait, by class-Huffman. All arithmetic wraps, so every sequence of i64 comes
//! back.

use crate::bits::{BLOCK, bit_len, pack, packed_len, unpack};
use crate::cursor::{Cursor, DecodeError};
use crate::huffman;
use crate::varint::{put_uvarint, unzigzag, zigzag};

const PACKER_ZERO: u8 = 0;
const PACKER_BITS: u8 = 1;
const PACKER_SPARSE: u8 = 2;
const PACKER_HUFFMAN: u8 = 3;
const ORDER_MASK: u8 = 0b11;
const PACKER_SHIFT: u32 = 2;
const HAS_GCD: u8 = 1 << 4;
/// Of packer 3: codes are residuals less their minimum, not their zigzag form.
const HAS_MIN: u8 = 1 << 5;

/// Width 63 is not used, so that six bits suffice for 0 to 64.
const WIDTH_CODE_64: u8 = 63;
const BLOCK_ZIGZAG: u8 = 1 << 6;
const BLOCK_EXCEPTIONS: u8 = 1 << 7;

/// Below this share of non-zero residuals (one in four) the sparse list is tried.
const SPARSE_SHARE: usize = 4;
/// Orders whose sums of bits differ by less than an eighth are compared by their packed length.
const CLOSE_SHARE: u64 = 8;

/// What a writer prefers: to be small, or to be read and written fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packing {
    /// Class-Huffman is used for residuals that it makes at least so many per cent shorter; at 100,
    /// never. It decodes at half the speed.
    pub huffman_saving_percent: u8,
    /// Streams of fewer integers do without: making the decoder's table takes as long as decoding
    /// them in packed blocks.
    pub huffman_from: usize,
    /// Float chunks of at least so many samples carry statistics: shorter ones are decoded as soon.
    pub stats_from: usize,
}

impl Packing {
    /// Without class-Huffman: for what is read most, or written anew within a day.
    pub const FAST: Packing =
        Packing { huffman_saving_percent: 100, huffman_from: usize::MAX, stats_from: 240 };
    /// For what is kept.
    pub const KEPT: Packing = Packing { huffman_saving_percent: 5, huffman_from: 200, stats_from: 240 };
}

/// Appends the stream of `values`; nothing at all if there are none.
pub fn encode_ints(values: &[i64], packing: Packing, out: &mut Vec<u8>) {
    let Some(&first) = values.first() else { return };
    match common_divisor(values) {
        1 => encode_scaled(values, first, 1, packing, out),
        gcd => {
            let scaled: Vec<i64> = values.iter().map(|v| (v - first) / gcd).collect();
            encode_scaled(&scaled, first, gcd, packing, out);
        }
    }
}

/// Reads a stream of `n` integers and appends them to `out`. The caller has bounded `n`, as a
/// stream of a few bytes may stand for any number of integers.
///
/// # Errors
/// Input that is truncated or that no encoder writes. `out` then holds rubbish behind its old end.
pub fn decode_ints(cursor: &mut Cursor<'_>, n: usize, out: &mut Vec<i64>) -> Result<(), DecodeError> {
    decode_mapped(cursor, n, |value| value, out)
}

/// As [`decode_ints`], but appends what `map` makes of each integer: one pass less than mapping them
/// afterwards.
#[inline]
pub(crate) fn decode_mapped<T>(
    cursor: &mut Cursor<'_>,
    n: usize,
    map: impl Fn(i64) -> T,
    out: &mut Vec<T>,
) -> Result<(), DecodeError> {
    let mut residuals = Vec::new();
    let Some(head) = decode_residuals(cursor, n, &mut residuals)? else { return Ok(()) };
    out.reserve(n);
    out.push(map(head.first));
    if head.order == 2 {
        out.push(map(head.first.wrapping_add(head.first_delta)));
    }
    integrate(&residuals, head.order, head.first, head.first_delta, map, out);
    Ok(())
}

/// What precedes the residuals of a stream.
struct StreamHead {
    order: u8,
    first: i64,
    first_delta: i64,
}

/// Reads a stream of `n` integers; `None` if these are none.
fn decode_residuals(
    cursor: &mut Cursor<'_>,
    n: usize,
    out: &mut Vec<i64>,
) -> Result<Option<StreamHead>, DecodeError> {
    const WHAT: &str = "integer stream";
    if n == 0 {
        return Ok(None);
    }
    let start = cursor.clone();
    let head = cursor.u8(WHAT)?;
    let (order, packer) = (head & ORDER_MASK, (head >> PACKER_SHIFT) & 0b11);
    let min_allowed = if packer == PACKER_HUFFMAN { HAS_MIN } else { 0 };
    if head & !(ORDER_MASK | 0b11 << PACKER_SHIFT | HAS_GCD | min_allowed) != 0 || order == 3 {
        return Err(start.corrupt(WHAT, "unknown order or flags"));
    }
    let first = cursor.ivarint("first integer")?;
    let gcd = if head & HAS_GCD != 0 { cursor.uvarint("common divisor")? as i64 } else { 1 };
    if gcd == 0 {
        return Err(start.corrupt(WHAT, "the common divisor is 0"));
    }
    let first_delta = if order == 2 { cursor.ivarint("first delta")?.wrapping_mul(gcd) } else { 0 };
    let known = if order == 2 { 2 } else { 1 };
    let Some(residuals) = n.checked_sub(known) else {
        return Err(start.corrupt(WHAT, "order 2 needs two integers"));
    };
    out.reserve(residuals);
    match packer {
        PACKER_ZERO => out.resize(residuals, 0),
        PACKER_BITS => decode_blocks(cursor, residuals, out)?,
        PACKER_SPARSE => decode_sparse(cursor, residuals, out)?,
        _ if head & HAS_MIN != 0 => {
            let min = cursor.ivarint("least residual")?;
            huffman::decode(cursor, residuals, |code| min.wrapping_add(code as i64), out)?;
        }
        _ => huffman::decode(cursor, residuals, unzigzag, out)?,
    }
    if gcd != 1 {
        out.iter_mut().for_each(|r| *r = r.wrapping_mul(gcd));
    }
    Ok(Some(StreamHead { order, first, first_delta }))
}

/// In so many bytes [`peek_first`] finds what it looks for: the head and a varint.
pub(crate) const STREAM_HEAD_BYTES: usize = 11;

/// The first integer of the stream that the cursor stands at.
pub(crate) fn peek_first(cursor: &Cursor<'_>) -> Result<i64, DecodeError> {
    let mut ahead = cursor.clone();
    ahead.u8("integer stream")?;
    ahead.ivarint("first integer")
}

/// Turns residuals into values, and appends what `map` makes of each.
fn integrate<T>(
    residuals: &[i64],
    order: u8,
    first: i64,
    first_delta: i64,
    map: impl Fn(i64) -> T,
    out: &mut Vec<T>,
) {
    let residuals = residuals.iter();
    match order {
        0 => out.extend(residuals.map(|r| map(first.wrapping_add(*r)))),
        1 => {
            let mut value = first;
            out.extend(residuals.map(|r| {
                value = value.wrapping_add(*r);
                map(value)
            }));
        }
        _ => {
            let (mut delta, mut value) = (first_delta, first.wrapping_add(first_delta));
            out.extend(residuals.map(|r| {
                delta = delta.wrapping_add(*r);
                value = value.wrapping_add(delta);
                map(value)
            }));
        }
    }
}

/// The greatest common divisor of all differences to the first value: 1 if there is none worth
/// storing, as with steady values, whose one difference is stored anyway; or if a difference does
/// not fit 64 bits, as division and wrapping do not mix.
fn common_divisor(values: &[i64]) -> i64 {
    let first = values[0];
    let step = values.get(1).map_or(0, |second| second.wrapping_sub(first));
    if values.windows(2).all(|w| w[1].wrapping_sub(w[0]) == step) {
        return 1;
    }
    let mut gcd = 0u64;
    for &value in values {
        let Some(delta) = value.checked_sub(first) else { return 1 };
        gcd = binary_gcd(gcd, delta.unsigned_abs());
        if gcd == 1 {
            return 1;
        }
    }
    // A constant has no divisor. The only divisor beyond i64 is 2^63, between 0 and i64::MIN.
    i64::try_from(gcd).ok().filter(|&g| g != 0).unwrap_or(1)
}

/// Stein's algorithm: no divisions.
fn binary_gcd(mut a: u64, mut b: u64) -> u64 {
    if a == 0 || b == 0 {
        return a | b;
    }
    let shift = (a | b).trailing_zeros();
    a >>= a.trailing_zeros();
    while b != 0 {
        b >>= b.trailing_zeros();
        (a, b) = (a.min(b), a.abs_diff(b));
    }
    a << shift
}

/// Encodes values whose differences are already divided by `gcd`; `first` is not.
fn encode_scaled(scaled: &[i64], first: i64, gcd: i64, packing: Packing, out: &mut Vec<u8>) {
    let (order, packed_bytes) = best_order(scaled);
    let residuals = Residuals { values: scaled, order };
    let nonzero = residuals.count_nonzero();
    let mut body = Vec::new();
    if nonzero > 0 && nonzero * SPARSE_SHARE < residuals.len() {
        encode_sparse(&residuals, nonzero, &mut body);
    }
    let packed_bytes = packed_bytes.unwrap_or_else(|| residuals.packed_bytes());
    let (mut packer, bytes) = match (nonzero, body.len()) {
        (0, _) => (PACKER_ZERO, 0),
        (_, 1..) if body.len() < packed_bytes => (PACKER_SPARSE, body.len()),
        _ => (PACKER_BITS, packed_bytes),
    };
    let mut has_min = 0;
    if let Some(least) = encode_huffman(&residuals, bytes, packing, &mut body) {
        packer = PACKER_HUFFMAN;
        has_min = if least { HAS_MIN } else { 0 };
    }
    out.push(order | packer << PACKER_SHIFT | has_min | if gcd == 1 { 0 } else { HAS_GCD });
    put_uvarint(out, zigzag(first));
    if gcd != 1 {
        put_uvarint(out, gcd as u64);
    }
    if order == 2 {
        put_uvarint(out, zigzag(scaled[1].wrapping_sub(scaled[0])));
    }
    match packer {
        PACKER_BITS => residuals.for_each_block(|block| encode_block(block, out)),
        PACKER_SPARSE | PACKER_HUFFMAN => out.extend_from_slice(&body),
        _ => {}
    }
}

/// Replaces `body` if class-Huffman is enough shorter than `bytes`, and tells whether the minimum is
/// taken off.
fn encode_huffman(
    residuals: &Residuals<'_>,
    bytes: usize,
    packing: Packing,
    body: &mut Vec<u8>,
) -> Option<bool> {
    let most = bytes * 100usize.saturating_sub(packing.huffman_saving_percent.into()) / 100;
    if most == 0 || residuals.values.len() < packing.huffman_from {
        return None;
    }
    let mut all = Vec::with_capacity(residuals.len());
    residuals.for_each_block(|block| all.extend_from_slice(block));
    // Around zero, the zigzag form gives the common small steps classes of their own; steps in one
    // direction only would waste their sign.
    let (min, max) = (all.iter().copied().min()?, all.iter().copied().max()?);
    let least = min >= 0 || max <= 0;
    let code = |r: i64| if least { r.wrapping_sub(min) as u64 } else { zigzag(r) };
    let min_bytes = if least { varint_len(zigzag(min)) } else { 0 };
    let plan = huffman::Plan::of(all.iter().map(|&r| code(r)))?;
    if plan.bytes + min_bytes > most {
        return None;
    }
    body.clear();
    if least {
        put_uvarint(body, zigzag(min));
    }
    let codes: Vec<u64> = all.into_iter().map(code).collect();
    plan.encode(&codes, body);
    Some(least)
}

/// Length of a varint.
fn varint_len(value: u64) -> usize {
    (bit_len(value | 1) as usize).div_ceil(7)
}

/// The order whose residuals are shortest. The sum of their bits, which one pass gives for all
/// three, decides where it is clear; where it is close, the packed length does. Steps count by
/// their size or by how far they are from the first one, as a block may take its minimum off.
///
/// Gives the packed length too if it decided.
fn best_order(values: &[i64]) -> (u8, Option<usize>) {
    let [first, second, ..] = *values else { return (0, None) };
    let bits = |residual: i64| u64::from(bit_len(zigzag(residual)));
    let first_step = second.wrapping_sub(first);
    let (mut previous, mut previous_step) = (first, first_step);
    let (mut sums, mut sum_of_steps) = ([0u64; 3], 0);
    for &value in &values[1..] {
        let step = value.wrapping_sub(previous);
        sums[0] += bits(value.wrapping_sub(first));
        sums[1] += bits(step.wrapping_sub(first_step));
        sum_of_steps += bits(step);
        sums[2] += bits(step.wrapping_sub(previous_step));
        (previous, previous_step) = (value, step);
    }
    sums[1] = sums[1].min(sum_of_steps);
    let least = sums.iter().copied().min().unwrap_or(0);
    let is_close = |order: u8| sums[usize::from(order)] <= least + least / CLOSE_SHARE;
    let close = (0..=2u8).filter(|&order| is_close(order));
    if close.clone().count() == 1 {
        return (close.clone().next().unwrap_or(0), None);
    }
    let packed = close.map(|order| (Residuals { values, order }.packed_bytes(), order));
    packed.min().map_or((0, None), |(bytes, order)| (order, Some(bytes)))
}

/// The residuals of a sequence, worked out where they are needed.
struct Residuals<'a> {
    values: &'a [i64],
    order: u8,
}

impl Residuals<'_> {
    fn len(&self) -> usize {
        self.values.len() - if self.order == 2 { 2 } else { 1 }
    }

    fn count_nonzero(&self) -> usize {
        let mut nonzero = 0;
        self.for_each_block(|block| nonzero += block.iter().filter(|&&r| r != 0).count());
        nonzero
    }

    /// Length of the residuals in packed blocks; nothing if all are zero.
    fn packed_bytes(&self) -> usize {
        if self.count_nonzero() == 0 {
            return 0;
        }
        let mut bytes = 0;
        self.for_each_block(|block| bytes += BlockPlan::of(block).bytes);
        bytes
    }

    fn for_each_block(&self, mut f: impl FnMut(&[i64])) {
        let mut block = [0i64; BLOCK];
        let mut done = 0;
        while done < self.len() {
            let n = (self.len() - done).min(BLOCK);
            let out = &mut block[..n];
            match self.order {
                0 => {
                    let first = self.values[0];
                    for (r, v) in out.iter_mut().zip(&self.values[1 + done..]) {
                        *r = v.wrapping_sub(first);
                    }
                }
                1 => {
                    for (r, v) in out.iter_mut().zip(self.values[done..].windows(2)) {
                        *r = v[1].wrapping_sub(v[0]);
                    }
                }
                _ => {
                    for (r, v) in out.iter_mut().zip(self.values[done..].windows(3)) {
                        *r = v[2].wrapping_sub(v[1]).wrapping_sub(v[1].wrapping_sub(v[0]));
                    }
                }
            }
            f(out);
            done += n;
        }
    }
}

/// How one block is packed.
struct BlockPlan {
    zigzag: bool,
    min: i64,
    width: u32,
    /// Bits of the greatest value; more than `width` if there are exceptions.
    max_width: u32,
    bytes: usize,
}

impl BlockPlan {
    /// The cheaper of "value minus the block's minimum" and zigzag, each with its best width.
    fn of(block: &[i64]) -> BlockPlan {
        let min = block.iter().copied().min().unwrap_or(0);
        // Neighbours are often as wide: each counts for itself, so that none waits for the other.
        let mut signed = [[0u8; 65]; 2];
        let mut lifted = [[0u8; 65]; 2];
        let mut count = |k: usize, r: i64| {
            signed[k][bit_len(zigzag(r)) as usize] += 1;
            lifted[k][bit_len(r.wrapping_sub(min) as u64) as usize] += 1;
        };
        let (pairs, rest) = block.as_chunks::<2>();
        for &[a, b] in pairs {
            count(0, a);
            count(1, b);
        }
        rest.iter().for_each(|&r| count(0, r));
        let signed = best_width(&signed, block.len());
        let lifted = best_width(&lifted, block.len());
        let min_bytes = varint_len(zigzag(min));
        if signed.2 <= lifted.2 + min_bytes {
            BlockPlan { zigzag: true, min: 0, width: signed.0, max_width: signed.1, bytes: 1 + signed.2 }
        } else {
            let bytes = 1 + min_bytes + lifted.2;
            BlockPlan { zigzag: false, min, width: lifted.0, max_width: lifted.1, bytes }
        }
    }

    fn code(&self, residual: i64) -> u64 {
        if self.zigzag { zigzag(residual) } else { residual.wrapping_sub(self.min) as u64 }
    }
}

/// The width that makes `n` codes shortest, the width of the greatest, and the length in bytes. How
/// many codes there are of each width is given in two portions.
fn best_width(of_width: &[[u8; 65]; 2], n: usize) -> (u32, u32, usize) {
    let codes = |width: u32| usize::from(of_width[0][width as usize] + of_width[1][width as usize]);
    let max_width = (0..=64).rev().find(|&width| codes(width) > 0).unwrap_or(0);
    let top = if max_width == 63 { 64 } else { max_width };
    let mut best = (top, max_width, packed_len(n, top));
    let mut above = 0usize;
    for width in (0..max_width).rev() {
        above += codes(width + 1);
        let exceptions = 2 + above + packed_len(above, max_width - width);
        if exceptions >= best.2 {
            // They only get more, and longer.
            break;
        }
        let bytes = packed_len(n, width) + exceptions;
        if width < 63 && bytes < best.2 {
            best = (width, max_width, bytes);
        }
    }
    best
}

/// `u8 width code | zigzag | exceptions; [varint min]; [u8 count, u8 width]; low parts;
/// [positions, high parts]`.
fn encode_block(block: &[i64], out: &mut Vec<u8>) {
    let plan = BlockPlan::of(block);
    let exceptions = plan.max_width > plan.width;
    let width_code = if plan.width == 64 { WIDTH_CODE_64 } else { plan.width as u8 };
    out.push(
        width_code
            | if plan.zigzag { BLOCK_ZIGZAG } else { 0 }
            | if exceptions { BLOCK_EXCEPTIONS } else { 0 },
    );
    if !plan.zigzag {
        put_uvarint(out, zigzag(plan.min));
    }
    let codes = || block.iter().map(|&r| plan.code(r));
    if !exceptions {
        return pack(codes(), plan.width, out);
    }
    let high = || codes().enumerate().map(|(i, code)| (i, code >> plan.width)).filter(|(_, h)| *h != 0);
    let high_width = plan.max_width - plan.width;
    out.push(high().count() as u8);
    out.push(high_width as u8);
    pack(codes(), plan.width, out);
    out.extend(high().map(|(i, _)| i as u8));
    pack(high().map(|(_, h)| h), high_width, out);
}

fn decode_blocks(cursor: &mut Cursor<'_>, n: usize, out: &mut Vec<i64>) -> Result<(), DecodeError> {
    let mut codes = [0; BLOCK];
    let mut left = n;
    while left > 0 {
        let block = left.min(BLOCK);
        decode_block(cursor, block, &mut codes, out)?;
        left -= block;
    }
    Ok(())
}

/// `codes` is room for the work, so that it is cleared once for all blocks.
fn decode_block(
    cursor: &mut Cursor<'_>,
    n: usize,
    codes: &mut [u64; BLOCK],
    out: &mut Vec<i64>,
) -> Result<(), DecodeError> {
    const WHAT: &str = "integer block";
    let start = cursor.clone();
    let head = cursor.u8(WHAT)?;
    let width = match head & 0x3f {
        WIDTH_CODE_64 => 64,
        width => u32::from(width),
    };
    let min = if head & BLOCK_ZIGZAG == 0 { cursor.ivarint("block minimum")? } else { 0 };
    if head & BLOCK_EXCEPTIONS == 0 {
        unpack(cursor, n, width, codes, WHAT)?;
    } else {
        let count = usize::from(cursor.u8("number of exceptions")?);
        let high_width = u32::from(cursor.u8("width of exceptions")?);
        if count > n || high_width == 0 || width + high_width > 64 {
            return Err(start.corrupt(WHAT, "impossible exceptions"));
        }
        unpack(cursor, n, width, codes, WHAT)?;
        let positions = cursor.take(count, "positions of exceptions")?;
        let mut high = [0; BLOCK];
        unpack(cursor, count, high_width, &mut high, "exceptions")?;
        for (&position, high) in positions.iter().zip(high) {
            match codes[..n].get_mut(usize::from(position)) {
                Some(code) => *code |= high << width,
                None => return Err(start.corrupt(WHAT, "an exception lies behind the block")),
            }
        }
    }
    if head & BLOCK_ZIGZAG == 0 {
        out.extend(codes[..n].iter().map(|&code| min.wrapping_add(code as i64)));
    } else {
        out.extend(codes[..n].iter().map(|&code| unzigzag(code)));
    }
    Ok(())
}

/// `varint k; blocks of k gaps; blocks of k values`. A gap counts the zeros before the value.
fn encode_sparse(residuals: &Residuals<'_>, nonzero: usize, out: &mut Vec<u8>) {
    let (mut gaps, mut values) = (Vec::with_capacity(nonzero), Vec::with_capacity(nonzero));
    let mut gap = 0;
    residuals.for_each_block(|block| {
        for &residual in block {
            if residual == 0 {
                gap += 1;
            } else {
                gaps.push(std::mem::take(&mut gap));
                values.push(residual);
            }
        }
    });
    put_uvarint(out, values.len() as u64);
    for list in [gaps, values] {
        list.chunks(BLOCK).for_each(|block| encode_block(block, out));
    }
}

fn decode_sparse(cursor: &mut Cursor<'_>, n: usize, out: &mut Vec<i64>) -> Result<(), DecodeError> {
    const WHAT: &str = "sparse integers";
    let start = cursor.clone();
    let k = cursor.uvarint(WHAT)?;
    if k > n as u64 {
        return Err(start.corrupt(WHAT, "more values than places"));
    }
    let k = k as usize;
    let mut lists = Vec::with_capacity(2 * k);
    decode_blocks(cursor, k, &mut lists)?;
    decode_blocks(cursor, k, &mut lists)?;
    let (gaps, values) = lists.split_at(k);
    let from = out.len();
    out.resize(from + n, 0);
    let mut places = &mut out[from..];
    for (&gap, &value) in gaps.iter().zip(values) {
        let split = usize::try_from(gap).ok().and_then(|gap| places.split_at_mut_checked(gap));
        let Some((place, rest)) = split.and_then(|(_, rest)| rest.split_first_mut()) else {
            return Err(start.corrupt(WHAT, "a value lies behind the end"));
        };
        *place = value;
        places = rest;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALWAYS_IF_SHORTER: Packing =
        Packing { huffman_saving_percent: 0, huffman_from: 0, ..Packing::KEPT };

    /// Length without class-Huffman.
    fn round_trip(values: &[i64]) -> usize {
        packed_and_read(values, ALWAYS_IF_SHORTER);
        packed_and_read(values, Packing::FAST)
    }

    fn packed_and_read(values: &[i64], packing: Packing) -> usize {
        let mut bytes = Vec::new();
        encode_ints(values, packing, &mut bytes);
        let mut cursor = Cursor::new(&bytes);
        let mut out = vec![42];
        decode_ints(&mut cursor, values.len(), &mut out).unwrap();
        assert_eq!(out[1..], *values);
        assert!(cursor.is_empty());
        bytes.len()
    }

    #[test]
    fn what_is_regular_takes_a_few_bytes() {
        let n = 1000;
        type Case = (&'static str, usize, fn(i64) -> i64);
        let cases: [Case; 6] = [
            ("constant", 3, |_| 77),
            ("steady", 12, |i| 1_790_000_000_000 + 15_000 * i),
            ("one step", 8, |i| if i < 500 { 5 } else { 6 }),
            ("multiples", 1024, |i| 4096 * (i * i * 7919 % 251)),
            ("outlier", 24, |i| if i == 600 { i64::MAX } else { 0 }),
            ("alternating", 160, |i| i % 2),
        ];
        for (name, most, f) in cases {
            let len = round_trip(&(0..n).map(f).collect::<Vec<_>>());
            assert!(len <= most, "{name}: {len} bytes");
        }
    }

    #[test]
    fn extremes_wrap_and_come_back() {
        let extremes = [0, 1, -1, i64::MIN, i64::MAX, i64::MIN + 1, 1 << 62, -(1 << 62), 4096];
        for a in extremes {
            for b in extremes {
                for c in extremes {
                    round_trip(&[a, b, c, a, c, b]);
                    round_trip(&[a, b]);
                }
            }
            round_trip(&[a]);
        }
        round_trip(&[]);
    }

    #[test]
    fn class_huffman_is_used_where_it_saves_enough() {
        // Steps of 50 and 1000 and a little: their widths differ, so packed bits waste some.
        let mut value = 0;
        let values: Vec<i64> = (0..2000i64)
            .map(|i| {
                value += if i * 7919 % 97 % 8 == 0 { 1000 + i % 13 } else { 50 + i * i % 3 };
                value
            })
            .collect();
        let fast = packed_and_read(&values, Packing::FAST);
        let small = packed_and_read(&values, Packing::KEPT);
        assert!(small * 100 < fast * 75, "{small} bytes, {fast} without");
        let saved = 100 - (small * 100 / fast) as u8;
        let more = Packing { huffman_saving_percent: saved + 2, ..Packing::KEPT };
        assert_eq!(packed_and_read(&values, more), fast);
    }

    #[test]
    fn flags_that_a_packer_does_not_have_are_refused() {
        for head in [0b0010_0000, 0b0010_0100, 0b0100_1100, 0b1000_0000, 0b0000_0011] {
            assert!(decode_ints(&mut Cursor::new(&[head, 0, 0, 0, 0, 0, 0]), 9, &mut Vec::new()).is_err());
        }
    }

    fn sequences() -> impl Strategy<Value = Vec<i64>> {
        let steps = prop_oneof![
            Just(0i64),
            -3..4i64,
            any::<i16>().prop_map(i64::from),
            any::<i32>().prop_map(i64::from),
            any::<i64>()
        ];
        let factor = prop_oneof![Just(1i64), 2..5000i64, Just(1 << 40)];
        (
            proptest::collection::vec(prop_oneof![3 => Just(0i64), 1 => steps], 0..600),
            0..3u8,
            factor,
            any::<i64>(),
        )
            .prop_map(|(mut values, order, factor, first)| {
                values.iter_mut().for_each(|v| *v = v.wrapping_mul(factor));
                let mut sums = Vec::new();
                integrate(&values, order, first, factor, |value| value, &mut sums);
                sums
            })
    }

    proptest! {
        #[test]
        fn every_sequence_comes_back(values in sequences()) {
            round_trip(&values);
        }

        #[test]
        fn every_cut_is_refused(values in sequences()) {
            let mut bytes = Vec::new();
            encode_ints(&values, ALWAYS_IF_SHORTER, &mut bytes);
            for cut in 0..bytes.len() {
                prop_assert!(decode_ints(&mut Cursor::new(&bytes[..cut]), values.len(), &mut Vec::new()).is_err());
            }
        }

        #[test]
        fn any_bytes_give_integers_or_an_error(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            n in 0..4097usize,
        ) {
            let mut out = Vec::new();
            if decode_ints(&mut Cursor::new(&bytes), n, &mut out).is_ok() {
                prop_assert_eq!(out.len(), n);
            }
        }
    }
}
