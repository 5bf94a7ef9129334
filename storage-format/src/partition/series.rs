//! SERIES: identities and label sets, ascending by identity.
//!
//! ```text
//! u32 metrics
//! metrics x { u32 top bits of the identities | u32 ordinal of the first series }
//! low 96 bits of each identity
//! u32 offset x (blocks + 1), from the end of this list
//! blocks of 64 series
//! ```
//!
//! The place of a series in this order is its ordinal, which postings and the chunk directory use.
//! The series of a metric stand together and mostly have the same label names, so a block is a
//! table: `varint columns; columns x { varint name symbol, less the one before | varint lowest value
//! symbol | u8 width, and whether a series lacks the label }; packed codes of each column`. A code
//! is the value's symbol less the lowest; where a series lacks the label, the codes of the others
//! are one higher and its own is 0.

use super::symbols::Symbols;
use crate::bits::{bit_len, get, pack, packed_len};
use crate::cursor::{Cursor, DecodeError};
use crate::labels::Labels;
use crate::series_id::SeriesId;
use crate::varint::put_uvarint;
use std::collections::BTreeMap;

/// Series in a block.
const BLOCK_SERIES: usize = 64;
/// Bytes of an identity without the bits that a metric's series share.
const LOW_BYTES: usize = 12;
const METRIC_BYTES: usize = 8;
/// In a column's width: some series of the block lacks the label.
const HAS_GAPS: u8 = 0x80;

/// Lays out the section. The pairs hold final symbol numbers, by ascending name. `None` if it would
/// exceed 4 GiB.
pub(crate) fn encode<'p>(
    ids: &[SeriesId],
    mut pairs_of: impl FnMut(usize) -> &'p [(u32, u32)],
) -> Option<Vec<u8>> {
    let mut metrics: Vec<(u32, u32)> = Vec::new();
    for (ordinal, id) in (0..).zip(ids) {
        let top = top_of(*id);
        if metrics.last().is_none_or(|(last, _)| *last != top) {
            metrics.push((top, ordinal));
        }
    }
    let mut section = Vec::with_capacity(ids.len() * (LOW_BYTES + 8));
    let put = |word: u32, out: &mut Vec<u8>| out.extend_from_slice(&word.to_le_bytes());
    put(metrics.len() as u32, &mut section);
    for (top, first) in metrics {
        put(top, &mut section);
        put(first, &mut section);
    }
    for id in ids {
        section.extend_from_slice(&id.to_le_bytes()[..LOW_BYTES]);
    }
    let mut blocks = Vec::new();
    put(0, &mut section);
    for start in (0..ids.len()).step_by(BLOCK_SERIES) {
        let end = ids.len().min(start + BLOCK_SERIES);
        encode_block((start..end).map(&mut pairs_of), &mut blocks);
        put(u32::try_from(blocks.len()).ok()?, &mut section);
    }
    section.extend_from_slice(&blocks);
    Some(section)
}

fn encode_block<'p>(series: impl ExactSizeIterator<Item = &'p [(u32, u32)]>, out: &mut Vec<u8>) {
    let count = series.len();
    let mut columns: BTreeMap<u32, [Option<u32>; BLOCK_SERIES]> = BTreeMap::new();
    for (at, pairs) in series.enumerate() {
        for &(name, value) in pairs {
            columns.entry(name).or_insert([None; BLOCK_SERIES])[at] = Some(value);
        }
    }
    put_uvarint(out, columns.len() as u64);
    let mut packed = Vec::new();
    let mut last_name = 0;
    for (name, values) in columns {
        let values = &values[..count];
        let lowest = values.iter().flatten().copied().min().unwrap_or(0);
        let gaps = values.contains(&None);
        let codes = values.iter().map(|value| value.map_or(0, |v| u64::from(v - lowest) + u64::from(gaps)));
        let width = bit_len(codes.clone().max().unwrap_or(0));
        put_uvarint(out, u64::from(name - last_name));
        put_uvarint(out, u64::from(lowest));
        out.push(width as u8 | if gaps { HAS_GAPS } else { 0 });
        pack(codes, width, &mut packed);
        last_name = name;
    }
    out.extend_from_slice(&packed);
}

fn top_of(id: SeriesId) -> u32 {
    (id.0 >> 96) as u32
}

/// Reads the section in place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SeriesTable<'a> {
    metrics: &'a [[u8; METRIC_BYTES]],
    lows: &'a [[u8; LOW_BYTES]],
    offsets: &'a [[u8; 4]],
    blocks: &'a [u8],
    /// Where `blocks` start in the section.
    blocks_at: usize,
}

impl<'a> SeriesTable<'a> {
    pub(crate) fn new(section: &'a [u8], count: u32) -> Result<SeriesTable<'a>, DecodeError> {
        const WHAT: &str = "series table";
        let count = count as usize;
        let mut cursor = Cursor::new(section);
        let metrics = cursor.u32("number of metrics")? as usize;
        let metrics = cursor.take(metrics.saturating_mul(METRIC_BYTES), WHAT)?.as_chunks().0;
        let lows = cursor.take(LOW_BYTES * count, WHAT)?.as_chunks().0;
        let offsets = cursor.take(4 * (count.div_ceil(BLOCK_SERIES) + 1), WHAT)?.as_chunks().0;
        Ok(SeriesTable { metrics, lows, offsets, blocks: cursor.rest(), blocks_at: cursor.position() })
    }

    pub(crate) fn id(&self, ordinal: u32) -> Option<SeriesId> {
        let low = self.lows.get(ordinal as usize)?;
        let metric = self.metrics.partition_point(|metric| words(metric).1 <= ordinal).checked_sub(1)?;
        Some(join(words(&self.metrics[metric]).0, low))
    }

    pub(crate) fn find(&self, id: SeriesId) -> Option<u32> {
        let top = top_of(id);
        let metric = self.metrics.binary_search_by_key(&top, |metric| words(metric).0).ok()?;
        let first = words(&self.metrics[metric]).1 as usize;
        let end = self.metrics.get(metric + 1).map_or(self.lows.len(), |next| words(next).1 as usize);
        let found = self.lows.get(first..end)?.binary_search_by(|low| join(top, low).cmp(&id)).ok()?;
        Some((first + found) as u32)
    }

    /// The labels of a series.
    pub(crate) fn labels(&self, ordinal: u32, symbols: &Symbols<'_>) -> Result<Labels, DecodeError> {
        const WHAT: &str = "labels of a series";
        let corrupt = |why| DecodeError::corrupt(self.blocks_at, WHAT, why);
        if ordinal as usize >= self.lows.len() {
            return Err(corrupt("no such series"));
        }
        let (block, at) = (ordinal as usize / BLOCK_SERIES, ordinal as usize % BLOCK_SERIES);
        let count = (self.lows.len() - block * BLOCK_SERIES).min(BLOCK_SERIES);
        let [start, end] = [0, 1].map(|i| u32::from_le_bytes(self.offsets[block + i]) as usize);
        let block = self.blocks.get(start..end).ok_or(corrupt("out of bounds"))?;
        let mut cursor = Cursor::with_base(block, self.blocks_at + start);
        let columns = cursor.count(3, WHAT)?;
        let (mut heads, mut codes) = (cursor.clone(), cursor);
        for _ in 0..columns {
            codes.uvarint(WHAT)?;
            codes.uvarint(WHAT)?;
            codes.u8(WHAT)?;
        }
        let mut pairs = Vec::with_capacity(columns);
        let mut name = 0u64;
        for _ in 0..columns {
            name = name.saturating_add(heads.uvarint(WHAT)?);
            let lowest = heads.uvarint(WHAT)?;
            let head = heads.u8(WHAT)?;
            let (gaps, width) = (head & HAS_GAPS != 0, u32::from(head & !HAS_GAPS));
            if width > 32 {
                return Err(heads.corrupt(WHAT, "impossible width"));
            }
            let packed = codes.take(packed_len(count, width), WHAT)?;
            let code = get(packed, at, width).ok_or(corrupt("out of bounds"))?;
            let Some(above) = code.checked_sub(u32::from(gaps)) else { continue };
            let symbol = |number: u64| symbols.get(u32::try_from(number).unwrap_or(u32::MAX));
            pairs.push((symbol(name)?, symbol(lowest.saturating_add(above.into()))?));
        }
        Labels::from_pairs(pairs).map_err(|_| corrupt("not a label set"))
    }
}

fn join(top: u32, low: &[u8; LOW_BYTES]) -> SeriesId {
    let mut bytes = [0; 16];
    bytes[..LOW_BYTES].copy_from_slice(low);
    bytes[LOW_BYTES..].copy_from_slice(&top.to_le_bytes());
    SeriesId::from_le_bytes(bytes)
}

fn words(metric: &[u8; METRIC_BYTES]) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = *metric;
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
}

#[cfg(test)]
mod tests {
    use super::super::symbols::SymbolWriter;
    use super::*;
    use proptest::prelude::*;

    /// Label sets by (name, value) numbers, encoded and read back.
    fn round_trip(sets: Vec<BTreeMap<u8, u16>>) {
        let mut texts = SymbolWriter::default();
        let text = |prefix: &str, number: u16| format!("{prefix}{number:05}");
        let sets: Vec<Vec<(String, String)>> = sets
            .iter()
            .map(|set| set.iter().map(|(&n, &v)| (text("n", n.into()), text("v", v))).collect())
            .collect();
        let pairs: Vec<Vec<(u32, u32)>> =
            sets.iter().map(|set| set.iter().map(|(n, v)| (texts.add(n), texts.add(v))).collect()).collect();
        let (symbols, renumber) = texts.finish();
        let renumbered = |n: &u32| renumber[*n as usize];
        let pairs: Vec<Vec<(u32, u32)>> = pairs
            .iter()
            .map(|set| set.iter().map(|(n, v)| (renumbered(n), renumbered(v))).collect())
            .collect();
        let ids: Vec<SeriesId> =
            (0..sets.len() as u128).map(|i| SeriesId(((i / 5) << 97) | (i * i))).collect();
        let section = encode(&ids, |ordinal| &pairs[ordinal]).unwrap();
        let symbols = Symbols::new(&symbols).unwrap();
        let table = SeriesTable::new(&section, ids.len() as u32).unwrap();
        for (ordinal, id) in (0..).zip(&ids) {
            assert_eq!(table.id(ordinal), Some(*id));
            assert_eq!(table.find(*id), Some(ordinal));
            assert_eq!(table.find(SeriesId(id.0 | 1 << 96)), None);
            let labels = table.labels(ordinal, &symbols).unwrap();
            let expected = sets[ordinal as usize].iter().map(|(n, v)| (n.as_str(), v.as_str()));
            assert_eq!(labels, Labels::from_pairs(expected).unwrap());
        }
        let count = ids.len() as u32;
        assert!(table.id(count).is_none() && table.labels(count, &symbols).is_err());
    }

    #[test]
    fn labels_that_follow_a_pattern_take_a_few_bits() {
        let series = 6400u32;
        let pairs: Vec<[(u32, u32); 3]> =
            (0..series).map(|i| [(0, i / 640), (1, 100 + i * 7 % 100), (2, 300)]).collect();
        let ids: Vec<SeriesId> = (0..u128::from(series)).map(|i| SeriesId(i << 80 | 7 << 96)).collect();
        let len = encode(&ids, |ordinal| &pairs[ordinal]).unwrap().len();
        assert!(len < 6400 * 14, "{len} bytes");
    }

    proptest! {
        #[test]
        fn every_table_comes_back(
            sets in proptest::collection::vec(proptest::collection::btree_map(0..9u8, 0..500u16, 0..6), 0..200),
        ) {
            round_trip(sets);
        }

        #[test]
        fn any_bytes_give_series_or_an_error(
            section in proptest::collection::vec(prop_oneof![0..6u8, any::<u8>()], 0..300),
            count in 0..5u32,
        ) {
            let (symbols, _) = SymbolWriter::default().finish();
            if let Ok(table) = SeriesTable::new(&section, count) {
                for ordinal in 0..count + 1 {
                    let _ = table.labels(ordinal, &Symbols::new(&symbols).unwrap());
                    let _ = table.id(ordinal).map(|id| table.find(id));
                }
            }
        }
    }
}
