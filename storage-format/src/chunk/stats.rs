//! STATS: what a reader may know of a float chunk without decoding its values.
//!
//! Statistics stand before the chunk they are of. Those of a DEC chunk are integers, counted from
//! the first integer of its stream: they stay true where an alias of the chunk has another one.
//! Resets are those of PromQL: any value below the live one before it.

use super::float::{self, DecimalHead};
use super::{KIND_BITS, KIND_STATS, decimal};
use crate::cursor::{Cursor, DecodeError};
use crate::sample::{STALE_NAN, is_stale};
use crate::varint::{put_uvarint, zigzag};

/// The live values never fall: the first is the least, the last the greatest.
const NEVER_FALLS: u8 = 1;
/// Floats, not integers over the power of ten of a DEC chunk.
const FLOATS: u8 = 1 << 1;
/// Stale markers occur; how many follows.
const STALE: u8 = 1 << 2;
/// The last sample is a stale marker.
const STALE_LAST: u8 = 1 << 3;
/// An ordinary NaN occurs: nothing but the last live value follows.
const NAN: u8 = 1 << 4;

/// Statistics that are no longer than this are written whatever the chunk takes,
const SHORT_BYTES: usize = 16;
/// longer ones if they take at most one byte in so many of the chunk.
const SHARE: usize = 16;
const WHAT: &str = "chunk statistics";

/// What is known of a float chunk without decoding its values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChunkStats {
    /// How many samples the chunk has.
    pub count: usize,
    /// How many of them are live: no stale markers.
    pub live: usize,
    /// The value of the last sample, bit by bit; the stale marker if it is one.
    pub last: f64,
    /// When the last sample began to count, in milliseconds since the epoch; 0 if unknown.
    pub last_start_timestamp_ms: i64,
    /// Over the live values. `None` if an ordinary NaN is among them, where the functions of PromQL
    /// differ in what they make of it, or if none is live.
    pub summary: Option<Summary>,
}

/// Statistics over the live values of a chunk, none of which is NaN.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// The first live value.
    pub first: f64,
    /// The last live value.
    pub last: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// The sum: of decimals exact but for one rounding, of other floats compensated.
    pub sum: f64,
    /// How often a value is below the live one before it.
    pub resets: usize,
    /// The sum of the values right before resets, so that a counter increased by
    /// `last - first + resets_sum`.
    pub resets_sum: f64,
}

/// Puts the statistics of `values` before their chunk, which is all of `out` from `from` on, if
/// they are worth it. `ints` are those of a DEC chunk that has no exceptions.
pub(super) fn put_before(values: &[f64], ints: Option<&[i64]>, from: usize, out: &mut Vec<u8>) {
    let mut stats = Vec::new();
    match ints.and_then(|ints| Ints::of(ints.iter().map(|&i| Some(i)))) {
        // All are live then, and none is NaN.
        Some(ints) => {
            let flags = if ints.resets == 0 { NEVER_FALLS } else { 0 };
            stats.push(KIND_STATS | flags << KIND_BITS);
            ints.encode(&mut stats);
        }
        None if !encode(values, float::decimal_power(out[from]), &mut stats) => return,
        None => {}
    }
    if stats.len() <= SHORT_BYTES.max((out.len() - from) / SHARE) {
        out.splice(from..from, stats);
    }
}

/// Appends the statistics of `values`, unless none is live; as integers over `power` where all live
/// ones are such.
fn encode(values: &[f64], power: Option<f64>, out: &mut Vec<u8>) -> bool {
    let live = || values.iter().copied().filter(|v| !is_stale(*v));
    let Some(last) = live().next_back() else { return false };
    let stale = values.len() - live().count();
    let mut flags = if stale > 0 { STALE } else { 0 };
    if values.last().is_some_and(|v| is_stale(*v)) {
        flags |= STALE_LAST;
    }
    let head = out.len();
    out.push(0);
    if stale > 0 {
        put_uvarint(out, stale as u64);
    }
    if live().any(f64::is_nan) {
        flags |= FLOATS | NAN;
        out.extend_from_slice(&last.to_bits().to_le_bytes());
    } else if let Some(ints) = power.and_then(|power| Ints::of(live().map(|v| decimal::exact(v, power)))) {
        flags |= if ints.resets == 0 { NEVER_FALLS } else { 0 };
        ints.encode(out);
    } else {
        let Some(floats) = summary_of(live()) else { return false };
        flags |= FLOATS | if floats.resets == 0 { NEVER_FALLS } else { 0 };
        encode_floats(&floats, out);
    }
    out[head] = KIND_STATS | flags << KIND_BITS;
    true
}

/// Statistics of a DEC chunk, as integers less its first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ints {
    last: i64,
    sum: i64,
    /// The first less the least.
    below: u64,
    /// The greatest less the first.
    above: u64,
    resets: u64,
    resets_sum: i64,
}

impl Ints {
    /// `None` if a value is no integer or a sum does not fit.
    fn of(mut values: impl Iterator<Item = Option<i64>>) -> Option<Ints> {
        let first = values.next()??;
        let (mut previous, mut least, mut greatest) = (first, first, first);
        let (mut sum, mut resets, mut resets_sum) = (0i64, 0, 0i64);
        for value in values {
            let value = value?;
            if value < previous {
                resets += 1;
                resets_sum = resets_sum.checked_add(previous - first)?;
            }
            sum = sum.checked_add(value - first)?;
            (previous, least, greatest) = (value, least.min(value), greatest.max(value));
        }
        Some(Ints {
            last: previous - first,
            sum,
            below: (first - least) as u64,
            above: (greatest - first) as u64,
            resets,
            resets_sum,
        })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_uvarint(out, zigzag(self.last));
        put_uvarint(out, zigzag(self.sum));
        if self.resets > 0 {
            put_uvarint(out, self.below);
            put_uvarint(out, self.above);
            put_uvarint(out, self.resets);
            put_uvarint(out, zigzag(self.resets_sum));
        }
    }

    fn read(cursor: &mut Cursor<'_>, never_falls: bool) -> Result<Ints, DecodeError> {
        let (last, sum) = (cursor.ivarint(WHAT)?, cursor.ivarint(WHAT)?);
        if never_falls {
            return Ok(Ints { last, sum, below: 0, above: last as u64, resets: 0, resets_sum: 0 });
        }
        Ok(Ints {
            last,
            sum,
            below: cursor.uvarint(WHAT)?,
            above: cursor.uvarint(WHAT)?,
            resets: cursor.uvarint(WHAT)?,
            resets_sum: cursor.ivarint(WHAT)?,
        })
    }

    /// What they are of a chunk of `live` values with this first integer.
    fn summary(&self, live: usize, head: DecimalHead) -> Summary {
        let value = |i: i64| i as f64 / head.power;
        let first = i128::from(head.first);
        let total = |sum: i64, n: u64| (i128::from(sum) + first * i128::from(n)) as f64 / head.power;
        Summary {
            first: value(head.first),
            last: value(head.first.wrapping_add(self.last)),
            min: value(head.first.wrapping_sub(self.below as i64)),
            max: value(head.first.wrapping_add(self.above as i64)),
            sum: total(self.sum, live as u64),
            resets: self.resets as usize,
            resets_sum: total(self.resets_sum, self.resets),
        }
    }
}

/// Statistics of floats of which none is NaN; `None` if there are none.
fn summary_of(mut values: impl Iterator<Item = f64>) -> Option<Summary> {
    let first = values.next()?;
    let (mut last, mut min, mut max) = (first, first, first);
    let (mut sum, mut resets, mut resets_sum) = (Sum::default(), 0, Sum::default());
    sum.add(first);
    for value in values {
        if value < last {
            resets += 1;
            resets_sum.add(last);
        }
        sum.add(value);
        (last, min, max) = (value, min.min(value), max.max(value));
    }
    Some(Summary { first, last, min, max, sum: sum.total(), resets, resets_sum: resets_sum.total() })
}

fn encode_floats(floats: &Summary, out: &mut Vec<u8>) {
    let mut put = |value: f64| out.extend_from_slice(&value.to_bits().to_le_bytes());
    put(floats.first);
    put(floats.last);
    put(floats.sum);
    if floats.resets > 0 {
        put(floats.min);
        put(floats.max);
        put(floats.resets_sum);
        put_uvarint(out, floats.resets as u64);
    }
}

fn read_floats(cursor: &mut Cursor<'_>, never_falls: bool) -> Result<Summary, DecodeError> {
    let (first, last, sum) = (cursor.f64(WHAT)?, cursor.f64(WHAT)?, cursor.f64(WHAT)?);
    if never_falls {
        return Ok(Summary { first, last, min: first, max: last, sum, resets: 0, resets_sum: 0.0 });
    }
    let (min, max, resets_sum) = (cursor.f64(WHAT)?, cursor.f64(WHAT)?, cursor.f64(WHAT)?);
    let resets = cursor.uvarint(WHAT)? as usize;
    Ok(Summary { first, last, min, max, sum, resets, resets_sum })
}

/// A sum that carries what rounding took off (Neumaier's).
#[derive(Debug, Default, Clone, Copy)]
struct Sum {
    sum: f64,
    rest: f64,
}

impl Sum {
    fn add(&mut self, value: f64) {
        let sum = self.sum + value;
        self.rest += match self.sum.abs() >= value.abs() {
            true => self.sum - sum + value,
            false => value - sum + self.sum,
        };
        self.sum = sum;
    }

    fn total(&self) -> f64 {
        // What is taken off an infinity is no number.
        if self.sum.is_finite() { self.sum + self.rest } else { self.sum }
    }
}

/// Statistics as they are stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored {
    stale: usize,
    stale_last: bool,
    body: Body,
}

#[derive(Debug, Clone, Copy)]
enum Body {
    Ints(Ints),
    Floats(Summary),
    Nan { last: f64 },
}

impl Stored {
    /// Reads the statistics that the cursor stands at, of a chunk of `n` samples.
    pub(crate) fn read(cursor: &mut Cursor<'_>, n: usize) -> Result<Stored, DecodeError> {
        let start = cursor.clone();
        let flags = cursor.u8(WHAT)? >> KIND_BITS;
        let is = |flag: u8| flags & flag != 0;
        let stale = if is(STALE) { cursor.uvarint(WHAT)? } else { 0 };
        if is(STALE) != (stale > 0) || stale >= n as u64 || is(STALE_LAST) && !is(STALE) {
            return Err(start.corrupt(WHAT, "impossible number of stale markers"));
        }
        let body = match (is(NAN), is(FLOATS)) {
            (true, true) if !is(NEVER_FALLS) => Body::Nan { last: cursor.f64(WHAT)? },
            (true, _) => return Err(start.corrupt(WHAT, "impossible flags")),
            (false, true) => Body::Floats(read_floats(cursor, is(NEVER_FALLS))?),
            (false, false) => Body::Ints(Ints::read(cursor, is(NEVER_FALLS))?),
        };
        Ok(Stored { stale: stale as usize, stale_last: is(STALE_LAST), body })
    }

    /// Whether they stay true if the first integer of the chunk changes.
    pub(crate) fn counts_from_first(&self) -> bool {
        matches!(self.body, Body::Ints(_))
    }

    /// The last value of the chunk of `n` samples that the cursor stands at; the stale marker if it is one.
    pub(super) fn last(self, cursor: &mut Cursor<'_>, n: usize) -> Result<f64, DecodeError> {
        if self.stale_last {
            return Ok(STALE_NAN);
        }
        Ok(match self.body {
            Body::Ints(ints) => {
                let head = float::read_decimal_head(cursor, n)?;
                head.first.wrapping_add(ints.last) as f64 / head.power
            }
            Body::Floats(summary) => summary.last,
            Body::Nan { last } => last,
        })
    }

    /// What they say of the chunk of `n` samples that the cursor stands at.
    pub(super) fn of_chunk(self, mut cursor: Cursor<'_>, n: usize) -> Result<ChunkStats, DecodeError> {
        let live = n - self.stale;
        let (last, summary) = match self.body {
            Body::Ints(ints) => {
                let summary = ints.summary(live, float::read_decimal_head(&mut cursor, n)?);
                (summary.last, Some(summary))
            }
            Body::Floats(summary) => (summary.last, Some(summary)),
            Body::Nan { last } => (last, None),
        };
        let last = if self.stale_last { STALE_NAN } else { last };
        Ok(ChunkStats { count: n, live, last, last_start_timestamp_ms: 0, summary })
    }
}

impl ChunkStats {
    /// What is known of `n` samples that are all `value`.
    pub(super) fn of_constant(value: f64, n: usize) -> ChunkStats {
        let live = if is_stale(value) { 0 } else { n };
        let summary = Summary {
            first: value,
            last: value,
            min: value,
            max: value,
            sum: value * live as f64,
            resets: 0,
            resets_sum: 0.0,
        };
        let summary = (!value.is_nan()).then_some(summary);
        ChunkStats { count: n, live, last: value, last_start_timestamp_ms: 0, summary }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ChunkValues, Packing, chunk_stats, decode_chunk, encode_chunk};
    use super::*;
    use proptest::prelude::*;

    const ALWAYS: Packing = Packing { stats_from: 0, ..Packing::KEPT };

    fn chunk(values: &[f64], starts: &[i64], packing: Packing) -> (Vec<u8>, Vec<i64>) {
        let timestamps: Vec<i64> = (1..=values.len() as i64).map(|i| i * 15_000).collect();
        let mut bytes = Vec::new();
        encode_chunk(&timestamps, ChunkValues::Floats(values), starts, packing, &mut bytes);
        (bytes, timestamps)
    }

    fn stats(values: &[f64]) -> Option<ChunkStats> {
        let (bytes, timestamps) = chunk(values, &[], ALWAYS);
        let stats = chunk_stats(&bytes, &timestamps).unwrap();
        let last = super::super::chunk_last(&bytes, values.len()).unwrap();
        assert_eq!(last.map(f64::to_bits), stats.map(|stats| stats.last.to_bits()));
        stats
    }

    /// Statistics the plain way.
    fn expected(values: &[f64]) -> Option<Summary> {
        let live: Vec<f64> = values.iter().copied().filter(|v| !is_stale(*v)).collect();
        if live.iter().any(|v| v.is_nan()) {
            return None;
        }
        let before_resets = live.windows(2).filter(|w| w[1] < w[0]).map(|w| w[0]);
        Some(Summary {
            first: *live.first()?,
            last: *live.last()?,
            min: live.iter().copied().fold(f64::INFINITY, f64::min),
            max: live.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            sum: live.iter().sum(),
            resets: before_resets.clone().count(),
            resets_sum: before_resets.sum(),
        })
    }

    /// Equal but for what rounding takes off sums of numbers as great as `scale`.
    fn close(a: f64, b: f64, scale: f64) -> bool {
        a == b || (a - b).abs() <= scale * 1e-12 || a.is_nan() && b.is_nan() || scale.is_infinite()
    }

    fn check(values: &[f64], stats: &ChunkStats) {
        assert_eq!(
            (stats.count, stats.live),
            (values.len(), values.iter().filter(|v| !is_stale(**v)).count())
        );
        assert_eq!(stats.last.to_bits(), values[values.len() - 1].to_bits());
        let (Some(found), Some(expected)) = (stats.summary, expected(values)) else {
            return assert_eq!(stats.summary, expected(values));
        };
        let exact = |s: &Summary| (s.min, s.max, s.resets);
        assert_eq!(exact(&found), exact(&expected));
        assert_eq!(found.first.to_bits(), expected.first.to_bits());
        assert_eq!(found.last.to_bits(), expected.last.to_bits());
        let scale: f64 = values.iter().filter(|v| !is_stale(**v)).map(|v| v.abs()).sum();
        assert!(close(found.sum, expected.sum, scale), "{found:?}, not {expected:?}");
        assert!(close(found.resets_sum, expected.resets_sum, scale), "{found:?}, not {expected:?}");
    }

    #[test]
    fn statistics_take_few_bytes() {
        let column = |f: &dyn Fn(usize) -> f64| (0..1200).map(f).collect::<Vec<f64>>();
        let cases = [
            ("constant", column(&|_| 2.5), 0),
            ("counter", column(&|i| (1_000_000 + i * 37 + i % 7) as f64), 8),
            ("gauge", column(&|i| (200 + i * i % 17) as f64 / 10.0), 13),
            ("stale at the end", column(&|i| if i < 1199 { (i * i % 99) as f64 } else { STALE_NAN }), 14),
            ("infinite once", column(&|i| if i == 7 { f64::INFINITY } else { (i * i % 999) as f64 }), 51),
            ("not a number once", column(&|i| if i == 7 { f64::NAN } else { (i * i % 999) as f64 }), 9),
            ("noise that grows", column(&|i| i as f64 + (i as f64).sin()), 25),
            ("noise", column(&|i| (i as f64).sin()), 51),
        ];
        for (name, values, most) in cases {
            let with = chunk(&values, &[], ALWAYS).0;
            let without = chunk(&values, &[], Packing { stats_from: usize::MAX, ..ALWAYS }).0;
            let taken = with.len() - without.len();
            assert!(taken <= most, "{name}: {taken} bytes");
            assert_eq!(taken == 0, most == 0, "{name}");
            check(&values, &stats(&values).unwrap());
        }
    }

    #[test]
    fn short_chunks_have_none_unless_they_are_constant() {
        let n = Packing::KEPT.stats_from - 1;
        let rising: Vec<f64> = (0..n).map(|i| (i * i) as f64).collect();
        let (bytes, timestamps) = chunk(&rising, &[], Packing::KEPT);
        assert_eq!(chunk_stats(&bytes, &timestamps).unwrap(), None);
        check(&[3.0; 7], &stats(&[3.0; 7]).unwrap());
        check(&[STALE_NAN; 7], &stats(&[STALE_NAN; 7]).unwrap());
        assert_eq!(stats(&[STALE_NAN; 7]).unwrap().summary, None);
        assert_eq!(chunk_stats(&[], &[]).unwrap(), None);
    }

    #[test]
    fn the_last_start_timestamp_is_known() {
        let values: Vec<f64> = (0..300).map(|i| f64::from(i * i % 71)).collect();
        let starts: Vec<i64> = (0..300).map(|i| i * i % 11 + 1).collect();
        let (bytes, timestamps) = chunk(&values, &starts, Packing::KEPT);
        let stats = chunk_stats(&bytes, &timestamps).unwrap().unwrap();
        assert_eq!(stats.last_start_timestamp_ms, starts[299]);
        assert_eq!(decode_chunk(&bytes, &timestamps).unwrap().floats, values);
        check(&values, &stats);
    }

    #[test]
    fn statistics_that_cannot_be_are_refused() {
        let flags = |flags: u8| KIND_STATS | flags << KIND_BITS;
        let dec = [1, 0, 0];
        let cases: [(&str, Vec<u8>); 6] = [
            ("of a constant", [&[flags(NEVER_FALLS), 0, 0][..], &[8, 2]].concat()),
            ("twice", [&[flags(NEVER_FALLS), 0, 0, flags(NEVER_FALLS), 0, 0][..], &dec].concat()),
            ("all stale", [&[flags(NEVER_FALLS | STALE), 3, 0, 0][..], &dec].concat()),
            ("none stale", [&[flags(NEVER_FALLS | STALE), 0, 0, 0][..], &dec].concat()),
            ("stale last, none stale", [&[flags(NEVER_FALLS | STALE_LAST), 0, 0][..], &dec].concat()),
            ("integers and NaN", [&[flags(NAN); 9][..], &dec].concat()),
        ];
        for (name, bytes) in cases {
            assert!(decode_chunk(&bytes, &[1, 2, 3]).is_err(), "{name}");
        }
        let of_bits = [&[flags(0); 9][..], &[3, 0, 0]].concat();
        assert!(chunk_stats(&of_bits, &[1, 2, 3]).is_err());
    }

    /// Columns as metrics have them and columns of any bits, with special values strewn in.
    fn columns() -> impl Strategy<Value = Vec<f64>> {
        let special = prop_oneof![
            4 => Just(STALE_NAN),
            1 => Just(f64::NAN),
            1 => Just(f64::INFINITY),
            1 => Just(f64::NEG_INFINITY),
            1 => Just(-0.0),
            1 => any::<u64>().prop_map(f64::from_bits),
        ];
        let decimals = (0..16u8, any::<bool>(), proptest::collection::vec(any::<i32>(), 1..300)).prop_map(
            |(digits, sorted, mut ints)| {
                if sorted {
                    ints.sort_unstable();
                }
                let power = decimal::power(digits);
                ints.into_iter().map(|i| f64::from(i) / power).collect::<Vec<_>>()
            },
        );
        let huge = proptest::collection::vec((-1i64 << 53..1 << 53).prop_map(|i| i as f64), 1..300);
        let floats = proptest::collection::vec(-1e9..1e9f64, 1..200);
        let strewn = proptest::collection::vec((any::<usize>(), special), 0..5);
        (prop_oneof![decimals, huge, floats], strewn).prop_map(|(mut values, specials)| {
            for (at, special) in specials {
                let at = at % values.len();
                values[at] = special;
            }
            values
        })
    }

    proptest! {
        #[test]
        fn statistics_are_what_decoding_says(values in columns()) {
            let (bytes, timestamps) = chunk(&values, &[], ALWAYS);
            let decoded = decode_chunk(&bytes, &timestamps).unwrap().floats;
            prop_assert!(decoded.iter().zip(&values).all(|(a, b)| a.to_bits() == b.to_bits()));
            if let Some(stats) = chunk_stats(&bytes, &timestamps).unwrap() {
                check(&decoded, &stats);
            }
        }

        #[test]
        fn cut_and_changed_bytes_are_survived(values in columns(), at in any::<usize>(), flip in 1..=255u8) {
            let (mut bytes, timestamps) = chunk(&values, &[], ALWAYS);
            for cut in 0..bytes.len() {
                prop_assert!(decode_chunk(&bytes[..cut], &timestamps).is_err());
                let _ = chunk_stats(&bytes[..cut], &timestamps);
            }
            let at = at % bytes.len().min(64);
            bytes[at] ^= flip;
            let _ = chunk_stats(&bytes, &timestamps);
            let _ = decode_chunk(&bytes, &timestamps);
        }
    }
}
