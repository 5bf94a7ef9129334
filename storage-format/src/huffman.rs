//! Class-Huffman: unsigned integers by their class, with a prefix code for the class.
//!
//! A class holds the integers of one length in bits and one second-highest bit, so small integers
//! have classes of their own and large ones share; what the class leaves open follows its code as
//! plain bits. Long runs are divided among four streams, which a processor decodes side by side.

use crate::bits::bit_len;
use crate::cursor::{Cursor, DecodeError};
use crate::varint::put_uvarint;

/// Integers below this only, so that one load of eight bytes holds the bits behind a code.
pub(crate) const LIMIT: u64 = 1 << 57;
/// Integers below this have classes of their own.
const SINGLE: u64 = 16;
/// How many classes there are.
const CLASSES: usize = 122;
/// The longest code in bits, so that the decoder's table stays small.
const CODE_BITS_MAX: u32 = 12;
/// How many integers are worth the lengths of four streams.
const FOUR_STREAMS_FROM: usize = 256;
const STREAMS: usize = 4;

/// The class of an integer: itself below 16, else two for each length in bits.
fn class_of(value: u64) -> usize {
    if value < SINGLE {
        return value as usize;
    }
    let log2 = bit_len(value) - 1;
    (16 + 2 * (log2 - 4) + (value >> (log2 - 1) & 1) as u32) as usize
}

/// How many plain bits follow the code of a class, and what stands above them.
fn plain_bits(class: usize) -> (u32, u64) {
    match class {
        0..16 => (0, class as u64),
        _ => ((class as u32 - 16) / 2 + 3, 2 | (class as u64 & 1)),
    }
}

fn stream_count(n: usize) -> usize {
    if n < FOUR_STREAMS_FROM { 1 } else { STREAMS }
}

/// Code lengths for the classes of some integers, and how many bytes they take with them.
#[derive(Debug)]
pub(crate) struct Plan {
    lengths: [u8; CLASSES],
    present: [bool; CLASSES],
    /// Length of what [`Plan::encode`] writes, or a few bytes more.
    pub bytes: usize,
}

impl Plan {
    /// `None` if an integer reaches [`LIMIT`], or if there are none.
    pub fn of(values: impl Iterator<Item = u64>) -> Option<Plan> {
        let mut counts = [0u32; CLASSES];
        let mut n = 0;
        for value in values {
            if value >= LIMIT {
                return None;
            }
            counts[class_of(value)] += 1;
            n += 1;
        }
        let max_class = counts.iter().rposition(|&count| count > 0)?;
        let lengths = code_lengths(&counts);
        let bits: u64 = (0..CLASSES)
            .map(|class| {
                u64::from(counts[class]) * u64::from(u32::from(lengths[class]) + plain_bits(class).0)
            })
            .sum();
        let present = counts.map(|count| count > 0);
        let head = 1 + (max_class + 1).div_ceil(8) + present.iter().filter(|&&p| p).count().div_ceil(2);
        // The lengths of three streams, and what all but the last are padded with.
        let streams = if stream_count(n) == 1 { 0 } else { 6 + 3 };
        Some(Plan { lengths, present, bytes: head + streams + bits.div_ceil(8) as usize })
    }

    /// `u8 highest class; bitmap of classes; code lengths in four bits each; [three varint stream
    /// lengths]; streams`. The integers are those the plan was made for.
    pub fn encode(&self, values: &[u64], out: &mut Vec<u8>) {
        let max_class = self.present.iter().rposition(|&p| p).unwrap_or(0);
        out.push(max_class as u8);
        let bitmap = self.present[..=max_class].chunks(8);
        out.extend(bitmap.map(|eight| (0..).zip(eight).map(|(bit, &p)| u8::from(p) << bit).sum::<u8>()));
        let lengths: Vec<u8> =
            (0..=max_class).filter(|&c| self.present[c]).map(|c| self.lengths[c]).collect();
        out.extend(lengths.chunks(2).map(|two| two[0] | two.get(1).map_or(0, |high| high << 4)));
        let codes = codes_of(&self.lengths, &self.present);
        let count = stream_count(values.len());
        let mut streams = [const { BitWriter::new() }; STREAMS];
        for (i, &value) in values.iter().enumerate() {
            let class = class_of(value);
            let stream = &mut streams[i % count];
            stream.put(u64::from(codes[class]), u32::from(self.lengths[class]));
            let (plain, _) = plain_bits(class);
            stream.put(value & ((1 << plain) - 1), plain);
        }
        let streams = streams.map(BitWriter::finish);
        for stream in &streams[..count - 1] {
            put_uvarint(out, stream.len() as u64);
        }
        streams[..count].iter().for_each(|stream| out.extend_from_slice(stream));
    }
}

/// Huffman's lengths, none above [`CODE_BITS_MAX`]: where one is, counts are halved until none is.
/// Nothing for a single class.
fn code_lengths(counts: &[u32; CLASSES]) -> [u8; CLASSES] {
    let mut counts = *counts;
    loop {
        let lengths = huffman_lengths(&counts);
        if lengths.iter().all(|&length| u32::from(length) <= CODE_BITS_MAX) {
            return lengths;
        }
        counts.iter_mut().for_each(|count| *count = count.div_ceil(2));
    }
}

/// Merges the two lightest trees until one is left; two sorted queues do without a heap.
fn huffman_lengths(counts: &[u32; CLASSES]) -> [u8; CLASSES] {
    let mut leaves: Vec<(u32, usize)> = counts
        .iter()
        .enumerate()
        .filter(|(_, count)| **count > 0)
        .map(|(class, &count)| (count, class))
        .collect();
    leaves.sort_unstable();
    // Nodes are leaves, then inner ones in order of their weight; a parent comes after its children.
    let mut weights: Vec<u32> = leaves.iter().map(|(count, _)| *count).collect();
    let mut parents = vec![0; 2 * leaves.len()];
    let (mut leaf, mut inner) = (0, leaves.len());
    for node in leaves.len()..(2 * leaves.len()).saturating_sub(1) {
        let mut lightest = || {
            let take_leaf = leaf < leaves.len() && (inner == node || weights[leaf] <= weights[inner]);
            let next = if take_leaf { &mut leaf } else { &mut inner };
            *next += 1;
            *next - 1
        };
        let (a, b) = (lightest(), lightest());
        weights.push(weights[a] + weights[b]);
        (parents[a], parents[b]) = (node, node);
    }
    let mut depths = vec![0u8; weights.len()];
    for node in (0..weights.len().saturating_sub(1)).rev() {
        depths[node] = depths[parents[node]] + 1;
    }
    let mut lengths = [0; CLASSES];
    for ((_, class), depth) in leaves.iter().zip(depths) {
        lengths[*class] = depth;
    }
    lengths
}

/// The codes, first bit lowest: by length, then by class, each the one before plus one.
fn codes_of(lengths: &[u8; CLASSES], present: &[bool; CLASSES]) -> [u16; CLASSES] {
    let mut of_length = [0u32; 16];
    let each =
        || (0..CLASSES).filter(|&class| present[class]).map(|class| (class, u32::from(lengths[class])));
    each().for_each(|(_, length)| of_length[length as usize & 15] += 1);
    let mut next = [0u32; 16];
    for length in 1..16 {
        next[length] = (next[length - 1] + of_length[length - 1]) << 1;
    }
    let mut codes = [0; CLASSES];
    for (class, length) in each() {
        let code = &mut next[length as usize & 15];
        codes[class] = if length == 0 { 0 } else { (code.reverse_bits() >> (32 - length)) as u16 };
        *code += 1;
    }
    codes
}

/// Appends bits, the lowest first.
struct BitWriter {
    bytes: Vec<u8>,
    pending: u128,
    bits: u32,
}

impl BitWriter {
    const fn new() -> BitWriter {
        BitWriter { bytes: Vec::new(), pending: 0, bits: 0 }
    }

    fn put(&mut self, value: u64, bits: u32) {
        self.pending |= u128::from(value) << self.bits;
        self.bits += bits;
        if self.bits >= 64 {
            self.bytes.extend_from_slice(&(self.pending as u64).to_le_bytes());
            self.pending >>= 64;
            self.bits -= 64;
        }
    }

    fn finish(mut self) -> Vec<u8> {
        let last = (self.pending as u64).to_le_bytes();
        self.bytes.extend_from_slice(&last[..self.bits.div_ceil(8) as usize]);
        self.bytes
    }
}

/// What the next bits of a stream stand for: length of the code in the lowest four bits, number of
/// plain bits in the next six, what stands above them in the rest.
type Entry = u16;

/// How many bits a load of eight bytes holds of a stream at any position.
const LOADED_BITS: u32 = 57;

/// The table of a decoder, indexed by as many bits as the longest code has.
struct Table {
    entries: [Entry; 1 << CODE_BITS_MAX],
    bits: u32,
}

impl Table {
    fn empty() -> Table {
        Table { entries: [0; 1 << CODE_BITS_MAX], bits: 0 }
    }

    /// Fills an empty table in place, as it is too large to be moved about.
    fn read(&mut self, cursor: &mut Cursor<'_>) -> Result<(), DecodeError> {
        const WHAT: &str = "code lengths";
        let start = cursor.clone();
        let classes = usize::from(cursor.u8(WHAT)?) + 1;
        if classes > CLASSES {
            return Err(start.corrupt(WHAT, "unknown class"));
        }
        let bitmap = cursor.take(classes.div_ceil(8), WHAT)?;
        let mut present = [0u8; CLASSES];
        let mut count = 0;
        for class in (0..classes).filter(|class| bitmap[class / 8] >> (class % 8) & 1 == 1) {
            present[count] = class as u8;
            count += 1;
        }
        let present = &present[..count];
        let packed = cursor.take(count.div_ceil(2), WHAT)?;
        let length_of = |at: usize| usize::from(packed[at / 2] >> (at % 2 * 4) & 15);
        let mut of_length = [0u32; 16];
        (0..count).for_each(|at| of_length[length_of(at)] += 1);
        let bits = of_length.iter().rposition(|&n| n > 0).unwrap_or(0) as u32;
        // A code must be complete: then every entry of the table is filled, exactly once.
        let filled: u32 = of_length.iter().enumerate().map(|(length, n)| n << bits >> length).sum();
        if bits > CODE_BITS_MAX || filled != 1 << bits {
            return Err(start.corrupt(WHAT, "not a complete code"));
        }
        self.bits = bits;
        let mut code = 0u32;
        for length in 0..=bits {
            // What stands for fewer bits stands for them whatever the next one is.
            if length > 0 {
                self.entries.copy_within(..1 << (length - 1), 1 << (length - 1));
                code <<= 1;
            }
            for at in (0..count).filter(|&at| length_of(at) == length as usize) {
                let (plain, above) = plain_bits(present[at].into());
                let place = code.reverse_bits().checked_shr(32 - length).unwrap_or(0);
                self.entries[place as usize] =
                    length as Entry | (plain as Entry) << 4 | (above as Entry) << 10;
                code += 1;
            }
        }
        Ok(())
    }

    /// What the lowest of `bits` stand for, and how many they are; rubbish if `bits` are fewer.
    #[inline(always)]
    fn lookup(&self, bits: u64) -> (u64, u32) {
        let index = bits & ((1 << self.bits) - 1) & ((1 << CODE_BITS_MAX) - 1);
        let entry = self.entries[index as usize];
        let (length, plain) = (u32::from(entry & 15), u32::from(entry >> 4 & 63));
        let value = u64::from(entry >> 10) << plain | (bits >> length & ((1 << plain) - 1));
        (value, length + plain)
    }
}

/// A position in a stream of bits. Behind the bytes there are zeros; whoever reads checks afterwards
/// whether he got there.
struct BitReader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl BitReader<'_> {
    /// At least the next [`LOADED_BITS`] bits.
    #[inline(always)]
    fn peek(&self) -> u64 {
        self.loaded().unwrap_or_else(|| self.peek_at_end())
    }

    /// The same, unless the stream ends before.
    #[inline(always)]
    fn loaded(&self) -> Option<u64> {
        let word = self.bytes.get(self.position / 8..)?.first_chunk::<8>()?;
        Some(u64::from_le_bytes(*word) >> (self.position % 8))
    }

    #[cold]
    fn peek_at_end(&self) -> u64 {
        let rest = self.bytes.get(self.position / 8..).unwrap_or(&[]);
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        u64::from_le_bytes(word) >> (self.position % 8)
    }

    fn next(&mut self, table: &Table) -> u64 {
        let bits = self.peek();
        let entry = table.entries[(bits & ((1 << table.bits) - 1)) as usize];
        let (length, plain) = (u32::from(entry & 15), u32::from(entry >> 4 & 63));
        self.position += length as usize;
        // Both may take more than one load holds.
        let plain_bits = if length + plain > LOADED_BITS { self.peek() } else { bits >> length };
        self.position += plain as usize;
        u64::from(entry >> 10) << plain | (plain_bits & ((1 << plain) - 1))
    }

    /// How many bytes were read, if there are as many.
    fn finish(&self) -> Option<usize> {
        let read = self.position.div_ceil(8);
        (read <= self.bytes.len()).then_some(read)
    }
}

/// Reads rounds of `LOADS` integers of each of four streams with one load each, as long as the
/// streams hold enough, and tells how many integers that gave.
fn decode_rounds<const LOADS: usize>(
    streams: &mut [BitReader<'_>; STREAMS],
    table: &Table,
    map: &impl Fn(u64) -> i64,
    out: &mut [i64],
) -> usize {
    let mut done = 0;
    for values in out.chunks_exact_mut(LOADS * STREAMS) {
        let [a, b, c, d] = &*streams;
        let (Some(a), Some(b), Some(c), Some(d)) = (a.loaded(), b.loaded(), c.loaded(), d.loaded()) else {
            break;
        };
        // Four chains that do not wait for each other.
        let (mut bits, mut taken) = ([a, b, c, d], [0u32; STREAMS]);
        for four in values.as_chunks_mut::<STREAMS>().0 {
            for (s, value) in four.iter_mut().enumerate() {
                let (read, length) = table.lookup(bits[s]);
                *value = map(read);
                bits[s] >>= length & 63;
                taken[s] += length;
            }
        }
        if taken.iter().any(|&taken| taken > LOADED_BITS) {
            // More than usual: one by one.
            decode_singly(streams, table, map, values);
        } else {
            for (stream, taken) in streams.iter_mut().zip(taken) {
                stream.position += taken as usize;
            }
        }
        done += LOADS * STREAMS;
    }
    done
}

/// Reads an integer of each stream in turn.
fn decode_singly(
    streams: &mut [BitReader<'_>; STREAMS],
    table: &Table,
    map: &impl Fn(u64) -> i64,
    out: &mut [i64],
) {
    for four in out.chunks_mut(STREAMS) {
        for (value, stream) in four.iter_mut().zip(&mut *streams) {
            *value = map(stream.next(table));
        }
    }
}

/// Appends `n` integers, each turned into what it stands for by `map`.
pub(crate) fn decode(
    cursor: &mut Cursor<'_>,
    n: usize,
    map: impl Fn(u64) -> i64,
    out: &mut Vec<i64>,
) -> Result<(), DecodeError> {
    const WHAT: &str = "class-Huffman streams";
    let mut table = Table::empty();
    table.read(cursor)?;
    let start = cursor.clone();
    let from = out.len();
    out.resize(from + n, 0);
    let out = &mut out[from..];
    if stream_count(n) == 1 {
        let mut stream = BitReader { bytes: cursor.rest(), position: 0 };
        out.iter_mut().for_each(|value| *value = map(stream.next(&table)));
        let read = stream.finish().ok_or(start.error(WHAT, crate::DecodeErrorKind::Truncated))?;
        return cursor.take(read, WHAT).map(|_| ());
    }
    let mut lengths = [0; STREAMS - 1];
    for length in &mut lengths {
        *length = cursor.count(1, "length of a stream")?;
    }
    let mut streams = [const { BitReader { bytes: &[], position: 0 } }; STREAMS];
    // A stream may be loaded beyond its end; whether it was read beyond is checked afterwards.
    for (stream, length) in streams.iter_mut().zip(lengths) {
        stream.bytes = cursor.rest();
        cursor.take(length, WHAT)?;
    }
    streams[STREAMS - 1].bytes = cursor.rest();
    // As many a load as fit if all take half as many bits again as they do on average.
    let most_bytes = lengths.iter().copied().max().unwrap_or(0);
    let usual_bits = most_bytes * 8 * STREAMS / n * 3 / 2;
    let decode = match LOADED_BITS as usize / usual_bits.max(1) {
        0 | 1 => decode_rounds::<1>,
        2 => decode_rounds::<2>,
        3 => decode_rounds::<3>,
        4 => decode_rounds::<4>,
        _ => decode_rounds::<5>,
    };
    let done = decode(&mut streams, &table, &map, out);
    decode_singly(&mut streams, &table, &map, &mut out[done..]);
    for (stream, length) in streams.iter().zip(lengths) {
        if stream.finish() != Some(length) {
            return Err(start.corrupt(WHAT, "a stream is not as long as it says"));
        }
    }
    let read = streams[STREAMS - 1].finish().ok_or(start.error(WHAT, crate::DecodeErrorKind::Truncated))?;
    cursor.take(read, WHAT).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(values: &[u64]) -> Vec<u8> {
        let plan = Plan::of(values.iter().copied()).unwrap();
        let mut bytes = Vec::new();
        plan.encode(values, &mut bytes);
        assert!((bytes.len()..=bytes.len() + 8).contains(&plan.bytes), "{} for {}", plan.bytes, bytes.len());
        bytes
    }

    fn round_trip(values: &[u64]) -> usize {
        let mut bytes = encode(values);
        let len = bytes.len();
        bytes.extend([0xff; 3]);
        let mut cursor = Cursor::new(&bytes);
        let mut out = vec![7];
        decode(&mut cursor, values.len(), |v| v as i64, &mut out).unwrap();
        assert!(out[1..].iter().map(|&v| v as u64).eq(values.iter().copied()));
        assert_eq!(cursor.position(), len);
        len
    }

    #[test]
    fn classes_divide_the_integers() {
        let mut next = 0u64;
        for class in 0..CLASSES {
            let (plain, above) = plain_bits(class);
            assert_eq!(above << plain, next, "class {class}");
            assert_eq!((class_of(next), class_of(next + (1 << plain) - 1)), (class, class));
            next += 1 << plain;
        }
        assert_eq!(next, LIMIT);
        assert!(Plan::of([LIMIT].into_iter()).is_none());
        assert!(Plan::of(std::iter::empty()).is_none());
    }

    #[test]
    fn skew_beyond_the_longest_code_is_levelled() {
        // Fibonacci's numbers as counts make the deepest tree.
        let (mut a, mut b) = (1usize, 1);
        let mut values = Vec::new();
        for value in 0..16 {
            values.extend(std::iter::repeat_n(value, a));
            (a, b) = (b, a + b);
        }
        let len = round_trip(&values);
        assert!(len < values.len() * 3 / 8, "{len} bytes for {} values", values.len());
    }

    #[test]
    fn a_single_class_takes_no_code() {
        assert!(round_trip(&[5; 2000]) < 12);
        round_trip(&[LIMIT - 1; 600]);
        round_trip(&[0]);
    }

    #[test]
    fn incomplete_and_overfull_codes_are_refused() {
        // Classes 0 and 1 with code lengths of one and two, of one and none, of 13 each.
        for lengths in [0x21, 0x01, 0xdd] {
            let bytes = [1, 0b11, lengths, 0, 0, 0];
            assert!(decode(&mut Cursor::new(&bytes), 9, |v| v as i64, &mut Vec::new()).is_err());
        }
        let none = [1, 0, 0, 0];
        assert!(decode(&mut Cursor::new(&none), 9, |v| v as i64, &mut Vec::new()).is_err());
        let beyond = [CLASSES as u8; 40];
        assert!(decode(&mut Cursor::new(&beyond), 9, |v| v as i64, &mut Vec::new()).is_err());
    }

    fn integers() -> impl Strategy<Value = Vec<u64>> {
        let integer = (0..58u32, any::<u64>()).prop_map(|(bits, v)| v & ((1 << bits) - 1));
        proptest::collection::vec(prop_oneof![4 => 0..20u64, 1 => integer], 1..1200)
    }

    proptest! {
        #[test]
        fn every_sequence_comes_back(values in integers()) {
            round_trip(&values);
        }

        #[test]
        fn every_cut_and_flip_is_survived(values in integers(), flips in proptest::collection::vec(any::<(u16, u8)>(), 1..4)) {
            let mut bytes = encode(&values);
            for cut in (0..bytes.len()).step_by(7) {
                let mut cursor = Cursor::new(&bytes[..cut]);
                prop_assert!(decode(&mut cursor, values.len(), |v| v as i64, &mut Vec::new()).is_err());
            }
            for (at, flip) in flips {
                let len = bytes.len();
                bytes[usize::from(at) % len] ^= flip;
            }
            let mut out = Vec::new();
            if decode(&mut Cursor::new(&bytes), values.len(), |v| v as i64, &mut out).is_ok() {
                prop_assert_eq!(out.len(), values.len());
            }
        }

        #[test]
        fn any_bytes_give_integers_or_an_error(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            n in 1..2000usize,
        ) {
            let _ = decode(&mut Cursor::new(&bytes), n, |v| v as i64, &mut Vec::new());
        }
    }
}
