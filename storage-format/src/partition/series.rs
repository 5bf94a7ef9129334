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

use super::extents::SectionBytes;
use super::symbols::Symbols;
use super::tape::{Spool, Wound};
use crate::bits::{bit_len, get, pack, packed_len};
use crate::cursor::{Cursor, DecodeError};
use crate::labels::Labels;
use crate::series_id::SeriesId;
use crate::varint::put_uvarint;
use std::io;

/// Series in a block.
const BLOCK_SERIES: usize = 64;
/// Bytes of an identity without the bits that a metric's series share.
pub(crate) const LOW_BYTES: usize = 12;
const METRIC_BYTES: usize = 8;
/// In a column's width: some series of the block lacks the label.
const HAS_GAPS: u8 = 0x80;

/// Lays out the section on two tapes, one after the other. `pairs_of` puts the labels of the next
/// series into a vector: final symbol numbers, by ascending name. `None` if it would exceed 4 GiB.
pub(crate) fn encode(
    ids: impl ExactSizeIterator<Item = SeriesId>,
    mut pairs_of: impl FnMut(&mut Vec<(u32, u32)>),
    spool: &Spool,
) -> io::Result<Option<[Wound; 2]>> {
    let count = ids.len();
    let mut lows = spool.tape();
    let mut metrics: Vec<(u32, u32)> = Vec::new();
    for (ordinal, id) in (0..).zip(ids) {
        let top = top_of(id);
        if metrics.last().is_none_or(|(last, _)| *last != top) {
            metrics.push((top, ordinal));
        }
        lows.append(&id.to_le_bytes()[..LOW_BYTES])?;
    }
    let mut section = spool.tape();
    section.append_words(&[metrics.len() as u32])?;
    for (top, first) in metrics {
        section.append_words(&[top, first])?;
    }
    section.append(&lows.finish()?)?;
    let mut blocks = spool.tape();
    section.append_words(&[0])?;
    let (mut series, mut block) = (vec![Vec::new(); BLOCK_SERIES], Vec::new());
    for start in (0..count).step_by(BLOCK_SERIES) {
        let series = &mut series[..BLOCK_SERIES.min(count - start)];
        for pairs in &mut *series {
            pairs.clear();
            pairs_of(pairs);
        }
        block.clear();
        encode_block(series, &mut block);
        blocks.append(&block)?;
        let Ok(end) = u32::try_from(blocks.len()) else { return Ok(None) };
        section.append_words(&[end])?;
    }
    Ok(Some([section.finish()?, blocks.finish()?]))
}

fn encode_block(series: &[Vec<(u32, u32)>], out: &mut Vec<u8>) {
    let count = series.len();
    // By name.
    let mut columns: Vec<(u32, [Option<u32>; BLOCK_SERIES])> = Vec::new();
    for (at, pairs) in series.iter().enumerate() {
        let mut next = 0;
        for &(name, value) in pairs {
            // Series of a block mostly have the same names.
            let place = match columns.get(next) {
                Some((known, _)) if *known == name => next,
                _ => columns.binary_search_by_key(&name, |(known, _)| *known).unwrap_or_else(|place| {
                    columns.insert(place, (name, [None; BLOCK_SERIES]));
                    place
                }),
            };
            columns[place].1[at] = Some(value);
            next = place + 1;
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
    count: u32,
    metric_count: usize,
    metrics: SectionBytes<'a>,
    lows: SectionBytes<'a>,
    offsets: SectionBytes<'a>,
    blocks: SectionBytes<'a>,
}

const WHAT: &str = "series table";

impl<'a> SeriesTable<'a> {
    pub(crate) fn new(section: SectionBytes<'a>, count: u32) -> Result<SeriesTable<'a>, DecodeError> {
        let metric_count = section.word(0, WHAT)? as usize;
        let mut from = 4;
        let mut next = |len: usize| {
            let part = section.part(from..from + len, WHAT);
            from += len;
            part
        };
        Ok(SeriesTable {
            count,
            metric_count,
            metrics: next(METRIC_BYTES * metric_count)?,
            lows: next(LOW_BYTES * count as usize)?,
            offsets: next(4 * ((count as usize).div_ceil(BLOCK_SERIES) + 1))?,
            blocks: section.part(from..section.len(), WHAT)?,
        })
    }

    /// Top bits and first ordinal of a metric.
    fn metric(&self, metric: usize) -> Result<(u32, u32), DecodeError> {
        let [a, b, c, d, e, f, g, h] = *self.metrics.record(metric, WHAT)?;
        Ok((u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])))
    }

    /// The first metric for which `is_before` says false.
    fn metric_point(&self, is_before: impl Fn((u32, u32)) -> bool) -> Result<usize, DecodeError> {
        let (mut low, mut high) = (0, self.metric_count);
        while low < high {
            let middle = low.midpoint(high);
            if is_before(self.metric(middle)?) { low = middle + 1 } else { high = middle }
        }
        Ok(low)
    }

    /// The identity of a series; `None` if there is no such ordinal.
    pub(crate) fn id(&self, ordinal: u32) -> Result<Option<SeriesId>, DecodeError> {
        let mut ids = Vec::with_capacity(1);
        if ordinal < self.count {
            self.ids([ordinal], &mut ids)?;
        }
        Ok(ids.pop().map(|(id, _)| id))
    }

    /// Appends the identities of series, whose ordinals ascend.
    pub(crate) fn ids(
        &self,
        ordinals: impl IntoIterator<Item = u32>,
        out: &mut Vec<(SeriesId, u32)>,
    ) -> Result<(), DecodeError> {
        // The metric at hand: its top bits, and its series.
        let (mut top, mut of_metric) = (0, 0..0);
        for ordinal in ordinals {
            let low = self.lows.record(ordinal as usize, WHAT)?;
            if !of_metric.contains(&ordinal) {
                let next = self.metric_point(|(_, first)| first <= ordinal)?;
                let metric =
                    next.checked_sub(1).ok_or(self.lows.corrupt(0, WHAT, "a series of no metric"))?;
                let end = if next < self.metric_count { self.metric(next)?.1 } else { self.count };
                (top, of_metric) = (self.metric(metric)?.0, ordinal..end);
            }
            out.push((join(top, low), ordinal));
        }
        Ok(())
    }

    /// The ordinal of a series.
    pub(crate) fn find(&self, id: SeriesId) -> Result<Option<u32>, DecodeError> {
        let top = top_of(id);
        let metric = self.metric_point(|(other, _)| other < top)?;
        if metric == self.metric_count || self.metric(metric)?.0 != top {
            return Ok(None);
        }
        let mut low = self.metric(metric)?.1;
        let mut high = if metric + 1 < self.metric_count { self.metric(metric + 1)?.1 } else { self.count };
        while low < high {
            let middle = low.midpoint(high);
            match join(top, self.lows.record(middle as usize, WHAT)?).cmp(&id) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Ok(Some(middle)),
            }
        }
        Ok(None)
    }

    /// The bytes of a block of series, once they are verified, and where they lie in the file.
    fn block_bytes(&self, block: u32) -> Result<(&'a [u8], usize), DecodeError> {
        let place = |i: u32| self.offsets.word((block + i) as usize, WHAT).map(|word| word as usize);
        let (start, end) = (place(0)?, place(1)?);
        Ok((self.blocks.get(start..end, WHAT)?, self.blocks.offset(start)))
    }

    /// Verifies what the labels of series are read from, so that reading them finds no damage.
    pub(crate) fn verify_labels(&self, ordinals: impl IntoIterator<Item = u32>) -> Result<(), DecodeError> {
        let mut last = None;
        for block in ordinals.into_iter().map(|ordinal| ordinal / BLOCK_SERIES as u32) {
            if last.replace(block) != Some(block) {
                self.block_bytes(block)?;
            }
        }
        Ok(())
    }
}

/// So many names are kept with their symbols: more than grouping goes by.
const MOST_NAMES: usize = 16;

/// Reads label sets. Series of one block after another are read fastest.
#[derive(Debug)]
pub struct LabelReader<'a> {
    table: SeriesTable<'a>,
    symbols: Symbols<'a>,
    /// The block in `columns`.
    block: Option<u32>,
    columns: Vec<Column<'a>>,
    /// Where the block lies in the file.
    at: usize,
    /// The names that were asked for, and their symbols.
    names: Vec<(String, Option<u32>)>,
}

/// A column of a block: the values of one label name.
#[derive(Debug)]
struct Column<'a> {
    symbol: u32,
    name: &'a str,
    lowest: u32,
    /// Whether a code of 0 means that the label is missing.
    gaps: bool,
    width: u32,
    codes: &'a [u8],
}

impl Column<'_> {
    /// The symbol of a series' value, if it has the label.
    fn value(&self, at: usize) -> Result<Option<u32>, &'static str> {
        let code = get(self.codes, at, self.width).ok_or("out of bounds")?;
        let Some(above) = code.checked_sub(u32::from(self.gaps)) else { return Ok(None) };
        self.lowest.checked_add(above).map(Some).ok_or("a number exceeds 32 bits")
    }
}

impl<'a> LabelReader<'a> {
    pub(crate) fn new(table: SeriesTable<'a>, symbols: Symbols<'a>) -> LabelReader<'a> {
        LabelReader { table, symbols, block: None, columns: Vec::new(), at: 0, names: Vec::new() }
    }

    /// The labels of a series by their symbols, name and value, in order of the names; see
    /// [`LabelReader::text`].
    ///
    /// # Errors
    /// No such ordinal; damage.
    pub fn symbols(&mut self, ordinal: u32, mut take: impl FnMut(u32, u32)) -> Result<(), DecodeError> {
        let at = self.load(ordinal)?;
        for column in &self.columns {
            if let Some(value) = column.value(at).map_err(|why| self.corrupt(why))? {
                take(column.symbol, value);
            }
        }
        Ok(())
    }

    /// The labels of a series.
    ///
    /// # Errors
    /// No such ordinal; damage.
    pub fn labels(&mut self, ordinal: u32) -> Result<Labels, DecodeError> {
        let at = self.load(ordinal)?;
        let mut pairs = Vec::with_capacity(self.columns.len());
        for column in &self.columns {
            if let Some(value) = column.value(at).map_err(|why| self.corrupt(why))? {
                pairs.push((column.name, self.symbols.get(value)?));
            }
        }
        Labels::from_pairs(pairs).map_err(|_| self.corrupt("not a label set"))
    }

    /// The symbol of the value of label `name`, if the series has the label. Equal symbols are equal
    /// values; see [`LabelReader::text`].
    ///
    /// # Errors
    /// No such ordinal; damage.
    pub fn value(&mut self, ordinal: u32, name: &str) -> Result<Option<u32>, DecodeError> {
        let known = self.names.iter().find(|(known, _)| known == name);
        let symbol = match known {
            Some((_, symbol)) => *symbol,
            None => {
                let symbol = self.name(name)?;
                if self.names.len() == MOST_NAMES {
                    self.names.clear();
                }
                self.names.push((name.to_owned(), symbol));
                symbol
            }
        };
        match symbol {
            Some(symbol) => self.value_of(ordinal, symbol),
            None => self.load(ordinal).map(|_| None),
        }
    }

    /// The symbol of a label name, if there is one; see [`LabelReader::value_of`].
    ///
    /// # Errors
    /// Damage.
    pub fn name(&self, name: &str) -> Result<Option<u32>, DecodeError> {
        self.symbols.find(name)
    }

    /// As [`LabelReader::value`], of the label whose name has this symbol.
    ///
    /// # Errors
    /// No such ordinal; damage.
    #[inline]
    pub fn value_of(&mut self, ordinal: u32, name: u32) -> Result<Option<u32>, DecodeError> {
        let at = self.load(ordinal)?;
        match self.columns.iter().find(|column| column.symbol == name) {
            Some(column) => column.value(at).map_err(|why| self.corrupt(why)),
            None => Ok(None),
        }
    }

    /// The text of a symbol that [`LabelReader::value`] or [`LabelReader::symbols`] gave.
    ///
    /// # Errors
    /// No such symbol; damage.
    pub fn text(&self, symbol: u32) -> Result<&'a str, DecodeError> {
        self.symbols.get(symbol)
    }

    /// The names of the labels of a series, in order.
    ///
    /// # Errors
    /// No such ordinal; damage.
    pub fn names(&mut self, ordinal: u32, mut take: impl FnMut(&'a str)) -> Result<(), DecodeError> {
        let at = self.load(ordinal)?;
        for column in &self.columns {
            if column.value(at).map_err(|why| self.corrupt(why))?.is_some() {
                take(column.name);
            }
        }
        Ok(())
    }

    fn corrupt(&self, why: &'static str) -> DecodeError {
        DecodeError::corrupt(self.at, "labels of a series", why)
    }

    /// Reads the columns of the series' block, unless they are those at hand, and gives the series'
    /// place among its codes.
    fn load(&mut self, ordinal: u32) -> Result<usize, DecodeError> {
        const WHAT: &str = "labels of a series";
        if ordinal >= self.table.count {
            return Err(self.corrupt("no such series"));
        }
        let (block, at) = (ordinal / BLOCK_SERIES as u32, ordinal as usize % BLOCK_SERIES);
        if self.block == Some(block) {
            return Ok(at);
        }
        self.block = None;
        self.columns.clear();
        let (bytes, place) = self.table.block_bytes(block)?;
        self.at = place;
        let mut cursor = Cursor::with_base(bytes, place);
        let columns = cursor.count(3, WHAT)?;
        let mut symbol = 0u64;
        for _ in 0..columns {
            symbol = symbol.saturating_add(cursor.uvarint(WHAT)?);
            let lowest = cursor.uvarint(WHAT)?;
            let head = cursor.u8(WHAT)?;
            let (gaps, width) = (head & HAS_GAPS != 0, u32::from(head & !HAS_GAPS));
            let (Ok(symbol), Ok(lowest), ..=32) = (u32::try_from(symbol), u32::try_from(lowest), width)
            else {
                return Err(cursor.corrupt(WHAT, "impossible width or symbol"));
            };
            self.columns.push(Column {
                symbol,
                name: self.symbols.get(symbol)?,
                lowest,
                gaps,
                width,
                codes: &[],
            });
        }
        let count = (self.table.count as usize - block as usize * BLOCK_SERIES).min(BLOCK_SERIES);
        for column in &mut self.columns {
            column.codes = cursor.take(packed_len(count, column.width), WHAT)?;
        }
        self.block = Some(block);
        Ok(at)
    }
}

fn join(top: u32, low: &[u8; LOW_BYTES]) -> SeriesId {
    let mut bytes = [0; 16];
    bytes[..LOW_BYTES].copy_from_slice(low);
    bytes[LOW_BYTES..].copy_from_slice(&top.to_le_bytes());
    SeriesId::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::symbols::SymbolWriter;
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn encode(ids: &[SeriesId], pairs: &[Vec<(u32, u32)>]) -> Vec<u8> {
        let mut next = pairs.iter();
        let pairs_of = |out: &mut Vec<_>| {
            out.extend_from_slice(next.next().unwrap());
        };
        let section = super::encode(ids.iter().copied(), pairs_of, &Spool::default()).unwrap().unwrap();
        section.each_ref().map(|part| &part[..]).concat()
    }

    fn no_symbols() -> SymbolWriter {
        SymbolWriter::new(&Spool::default())
    }

    /// Label sets by (name, value) numbers, encoded and read back.
    fn round_trip(sets: Vec<BTreeMap<u8, u16>>) {
        let mut texts = no_symbols();
        let text = |prefix: &str, number: u16| format!("{prefix}{number:05}");
        let sets: Vec<Vec<(String, String)>> = sets
            .iter()
            .map(|set| set.iter().map(|(&n, &v)| (text("n", n.into()), text("v", v))).collect())
            .collect();
        let pairs: Vec<Vec<(u32, u32)>> =
            sets.iter().map(|set| set.iter().map(|(n, v)| (texts.add(n), texts.add(v))).collect()).collect();
        texts.end_run().unwrap();
        let (symbols, sorted) = texts.finish().unwrap().unwrap();
        let symbols = symbols.each_ref().map(|part| &part[..]).concat();
        let renumber = sorted.renumber(0);
        let renumbered = |n: &u32| renumber[*n as usize];
        let pairs: Vec<Vec<(u32, u32)>> = pairs
            .iter()
            .map(|set| set.iter().map(|(n, v)| (renumbered(n), renumbered(v))).collect())
            .collect();
        let ids: Vec<SeriesId> =
            (0..sets.len() as u128).map(|i| SeriesId(((i / 5) << 97) | (i * i))).collect();
        let section = encode(&ids, &pairs);
        let symbols = Symbols::new((&symbols).into()).unwrap();
        let table = SeriesTable::new((&section).into(), ids.len() as u32).unwrap();
        let mut reader = LabelReader::new(table, symbols);
        for (ordinal, id) in (0..).zip(&ids) {
            assert_eq!(table.id(ordinal), Ok(Some(*id)));
            assert_eq!(table.find(*id), Ok(Some(ordinal)));
            assert_eq!(table.find(SeriesId(id.0 | 1 << 96)), Ok(None));
            let set = &sets[ordinal as usize];
            let labels = Labels::from_pairs(set.iter().map(|(n, v)| (n.as_str(), v.as_str()))).unwrap();
            assert_eq!(reader.labels(ordinal), Ok(labels.clone()));
            assert_eq!(LabelReader::new(table, symbols).labels(ordinal), Ok(labels.clone()));
            let mut symbols = Vec::new();
            reader.symbols(ordinal, |name, value| symbols.push((name, value))).unwrap();
            let texts = symbols
                .iter()
                .map(|&(name, value)| (reader.text(name).unwrap(), reader.text(value).unwrap()));
            assert!(texts.eq(labels.iter()));
            let mut names = Vec::new();
            reader.names(ordinal, |name| names.push(name)).unwrap();
            assert!(names.iter().eq(set.iter().map(|(name, _)| name)));
            for name in (0..9).map(|n| text("n", n)) {
                let value = reader.value(ordinal, &name).unwrap().map(|symbol| reader.text(symbol).unwrap());
                let expected = set.iter().find(|(other, _)| *other == name).map(|(_, value)| value.as_str());
                assert_eq!(value, expected);
            }
        }
        let count = ids.len() as u32;
        assert!(table.id(count) == Ok(None) && reader.labels(count).is_err());
        let mut all = Vec::new();
        table.ids(0..count, &mut all).unwrap();
        assert!(all.into_iter().eq(ids.into_iter().zip(0..)));
    }

    #[test]
    fn labels_that_follow_a_pattern_take_a_few_bits() {
        let series = 6400u32;
        let pairs: Vec<Vec<(u32, u32)>> =
            (0..series).map(|i| vec![(0, i / 640), (1, 100 + i * 7 % 100), (2, 300)]).collect();
        let ids: Vec<SeriesId> = (0..u128::from(series)).map(|i| SeriesId(i << 80 | 7 << 96)).collect();
        let len = encode(&ids, &pairs).len();
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
            let (symbols, _) = no_symbols().finish().unwrap().unwrap();
            let symbols = symbols.each_ref().map(|part| &part[..]).concat();
            if let Ok(table) = SeriesTable::new((&section).into(), count) {
                let mut reader = LabelReader::new(table, Symbols::new((&symbols).into()).unwrap());
                for ordinal in 0..count + 1 {
                    let _ = reader.labels(ordinal);
                    if let Ok(Some(id)) = table.id(ordinal) {
                        let _ = table.find(id);
                    }
                }
            }
        }
    }
}
