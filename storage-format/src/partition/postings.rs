//! POSTINGS: for each label name its values, sorted, and for each value the series that have it.
//!
//! ```text
//! u32 names
//! names   x { u32 symbol | u32 offset of its values | u32 number of values }   by symbol
//! values  x { u32 symbol | u32 number of series | u32 place }                  by symbol
//! lists     integer streams of ascending ordinals
//! ```
//!
//! Offsets and places count bytes from the start of the section. Where a value has one series
//! only, `place` is its ordinal.

use super::extents::SectionBytes;
use super::pairs::{Lists, Run, SeriesPairs};
use super::symbols::Symbols;
use super::tape::{Spool, Tape, Wound, triples, words};
use crate::cursor::{Cursor, DecodeError};
use crate::ints::{Packing, decode_ints, encode_ints};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;

const ENTRY_BYTES: usize = 12;
const COUNT_BYTES: usize = 4;
/// As a number of series: the place is the ordinal itself, not one among the lists.
const SINGLE: u32 = 1;

/// Series that have pairs, sorted by pair.
struct Sorted {
    /// Symbols of the pairs, rising, and where the list of each ends.
    pairs: Vec<((u32, u32), usize)>,
    /// The lists, one behind the other.
    ordinals: Vec<u32>,
}

/// Lays out the section on tapes, one after the other. About so much memory may it take; with less
/// than all need, they are sorted in several runs. `None` if it would exceed 4 GiB.
pub(crate) fn encode(
    pairs: &SeriesPairs,
    spool: &Spool,
    memory_bytes: usize,
) -> io::Result<Option<[Wound; 3]>> {
    let run_entries = (memory_bytes / size_of::<u32>()).max(64);
    let mut ordinal = 0;
    let mut runs: Vec<Wound> = Vec::new();
    let mut last: Option<Sorted> = None;
    for Run { pairs, mut lists } in pairs.runs() {
        while lists.clone().next().is_some() {
            if let Some(before) = last.take() {
                runs.push(before.put_aside(spool)?);
            }
            last = Some(Sorted::take(&pairs, &mut lists, &mut ordinal, run_entries));
        }
    }
    let mut layout = Layout::new(spool);
    let Some(last) = last else { return layout.finish() };
    if runs.is_empty() {
        let mut start = 0;
        for (pair, end) in last.pairs {
            if !layout.put(pair, &last.ordinals[start..end])? {
                return Ok(None);
            }
            start = end;
        }
        return layout.finish();
    }
    runs.push(last.put_aside(spool)?);
    let mut rest: Vec<_> = runs.iter().map(|run| words(run)).collect();
    let mut heads: BinaryHeap<Reverse<((u32, u32), usize)>> = BinaryHeap::new();
    for (run, rest) in rest.iter_mut().enumerate() {
        heads.extend(next_pair(rest).map(|pair| Reverse((pair, run))));
    }
    let mut ordinals = Vec::new();
    while let Some(Reverse((pair, run))) = heads.pop() {
        // Runs follow one another, and so do their ordinals.
        let rest = &mut rest[run];
        let count = rest.next().unwrap_or(0) as usize;
        ordinals.extend(rest.by_ref().take(count));
        heads.extend(next_pair(rest).map(|pair| Reverse((pair, run))));
        if heads.peek().is_none_or(|Reverse((next, _))| *next != pair) {
            if !layout.put(pair, &ordinals)? {
                return Ok(None);
            }
            ordinals.clear();
        }
    }
    layout.finish()
}

/// Takes the pair that an entry of a run begins with.
fn next_pair(rest: &mut impl Iterator<Item = u32>) -> Option<(u32, u32)> {
    Some((rest.next()?, rest.next()?))
}

impl Sorted {
    /// Takes series from `lists`, the first of which has this ordinal, as long as there are no more
    /// than so many entries; at least one.
    fn take(pairs: &[(u32, u32)], lists: &mut Lists<'_>, ordinal: &mut u32, most: usize) -> Sorted {
        let (mut here, first) = (lists.clone(), *ordinal);
        let mut counts = vec![0; pairs.len()];
        let mut entries = 0;
        let mut ahead = lists.clone();
        while let Some(list) = ahead.next().filter(|list| entries == 0 || entries + list.len() <= most) {
            entries += list.len();
            list.iter().for_each(|number| counts[u32::from_le_bytes(*number) as usize] += 1);
            *ordinal += 1;
            *lists = ahead.clone();
        }
        let mut order: Vec<u32> = (0..pairs.len() as u32).filter(|&n| counts[n as usize] > 0).collect();
        order.sort_unstable_by_key(|&number| pairs[number as usize]);
        // Each count becomes the place of the next ordinal, and in the end the end of the list.
        let mut end = 0;
        let mut places = counts;
        for &number in &order {
            let count = std::mem::replace(&mut places[number as usize], end);
            end += count;
        }
        let mut ordinals = vec![0; entries];
        for series in first..*ordinal {
            for number in here.next().unwrap_or_default() {
                let place = &mut places[u32::from_le_bytes(*number) as usize];
                ordinals[*place] = series;
                *place += 1;
            }
        }
        let pair = |number: u32| (pairs[number as usize], places[number as usize]);
        Sorted { pairs: order.into_iter().map(pair).collect(), ordinals }
    }

    /// Winds `name | value | count | ordinals` of each pair, as words.
    fn put_aside(self, spool: &Spool) -> io::Result<Wound> {
        let mut tape = spool.tape();
        let mut start = 0;
        for ((name, value), end) in self.pairs {
            tape.append_words(&[name, value, (end - start) as u32])?;
            tape.append_words(&self.ordinals[start..end])?;
            start = end;
        }
        tape.finish()
    }
}

/// The section under way.
struct Layout<'s> {
    spool: &'s Spool,
    /// Symbols, and the number of values of each.
    names: Vec<(u32, u32)>,
    values: Tape,
    lists: Tape,
    integers: Vec<i64>,
    packed: Vec<u8>,
}

impl Layout<'_> {
    fn new(spool: &Spool) -> Layout<'_> {
        Layout {
            spool,
            names: Vec::new(),
            values: spool.tape(),
            lists: spool.tape(),
            integers: Vec::new(),
            packed: Vec::new(),
        }
    }

    /// Adds the next pair; `false` if the section would exceed 4 GiB.
    fn put(&mut self, (name, value): (u32, u32), ordinals: &[u32]) -> io::Result<bool> {
        match self.names.last_mut() {
            Some((last, count)) if *last == name => *count += 1,
            _ => self.names.push((name, 1)),
        }
        if let [only] = ordinals {
            self.values.append_words(&[value, SINGLE, *only])?;
            return Ok(true);
        }
        let Ok(place) = u32::try_from(self.lists.len()) else { return Ok(false) };
        self.values.append_words(&[value, ordinals.len() as u32, place])?;
        self.integers.clear();
        self.integers.extend(ordinals.iter().map(|&ordinal| i64::from(ordinal)));
        self.packed.clear();
        encode_ints(&self.integers, Packing::FAST, &mut self.packed);
        self.lists.append(&self.packed)?;
        Ok(true)
    }

    fn finish(self) -> io::Result<Option<[Wound; 3]>> {
        let Layout { spool, names, values, lists, .. } = self;
        let lists = lists.finish()?;
        let values_at = COUNT_BYTES + names.len() * ENTRY_BYTES;
        let values = values.finish()?;
        let lists_at = (values_at + values.len()) as u64;
        let mut head = spool.tape();
        head.append_words(&[names.len() as u32])?;
        let mut values_before = 0;
        for (name, count) in names {
            let Ok(at) = u32::try_from(values_at + values_before * ENTRY_BYTES) else { return Ok(None) };
            head.append_words(&[name, at, count])?;
            values_before += count as usize;
        }
        // Only now it is known where the lists begin.
        let mut placed = spool.tape();
        for [value, count, place] in triples(&values) {
            let place = if count == SINGLE { Ok(place) } else { u32::try_from(lists_at + u64::from(place)) };
            let Ok(place) = place else { return Ok(None) };
            placed.append_words(&[value, count, place])?;
        }
        Ok(Some([head.finish()?, placed.finish()?, lists]))
    }
}

/// Reads the section in place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Postings<'a> {
    section: SectionBytes<'a>,
    names: SectionBytes<'a>,
    symbols: Symbols<'a>,
    series_count: u32,
}

const WHAT: &str = "postings";

impl<'a> Postings<'a> {
    pub(crate) fn new(
        section: SectionBytes<'a>,
        symbols: Symbols<'a>,
        series_count: u32,
    ) -> Result<Self, DecodeError> {
        let count = section.word(0, WHAT)? as usize;
        let names = section.part(COUNT_BYTES..COUNT_BYTES + count * ENTRY_BYTES, WHAT)?;
        Ok(Postings { section, names, symbols, series_count })
    }

    fn name_count(&self) -> usize {
        self.names.len() / ENTRY_BYTES
    }

    /// The label names, sorted.
    pub(crate) fn names(self) -> impl Iterator<Item = Result<&'a str, DecodeError>> {
        (0..self.name_count()).map(move |name| self.symbols.get(entry(&self.names, name)?[0]))
    }

    /// The values of a name; `None` if no series has the label.
    pub(crate) fn values(&self, name: &str) -> Result<Option<LabelValues<'a>>, DecodeError> {
        let Some(symbol) = self.symbols.find(name)? else { return Ok(None) };
        let (mut low, mut high) = (0, self.name_count());
        while low < high {
            let middle = low.midpoint(high);
            if entry(&self.names, middle)?[0] < symbol { low = middle + 1 } else { high = middle }
        }
        if low == self.name_count() {
            return Ok(None);
        }
        let [found, offset, count] = entry(&self.names, low)?.map(|word| word as usize);
        if found != symbol as usize {
            return Ok(None);
        }
        let entries = self.section.part(offset..offset + count * ENTRY_BYTES, WHAT)?;
        Ok(Some(LabelValues { postings: *self, entries }))
    }
}

/// The values of one label name, sorted by their bytes, addressed by position.
#[derive(Debug, Clone, Copy)]
pub struct LabelValues<'a> {
    postings: Postings<'a>,
    entries: SectionBytes<'a>,
}

impl<'a> LabelValues<'a> {
    /// How many values there are.
    pub fn len(&self) -> usize {
        self.entries.len() / ENTRY_BYTES
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value at `position`.
    ///
    /// # Errors
    /// A damaged index, or no such position.
    pub fn value(&self, position: usize) -> Result<&'a str, DecodeError> {
        self.postings.symbols.get(entry(&self.entries, position)?[0])
    }

    /// The values, sorted.
    pub fn iter(&self) -> impl Iterator<Item = Result<&'a str, DecodeError>> + '_ {
        (0..self.len()).map(|position| self.value(position))
    }

    /// The position of the first value that is not less than `bound`: where values with a prefix
    /// begin, for instance.
    ///
    /// # Errors
    /// A damaged index.
    pub fn lower_bound(&self, bound: &str) -> Result<usize, DecodeError> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.value(middle)? < bound {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// The position of `value`, if any series has it.
    ///
    /// # Errors
    /// A damaged index.
    pub fn find(&self, value: &str) -> Result<Option<usize>, DecodeError> {
        let position = self.lower_bound(value)?;
        Ok((position < self.len() && self.value(position)? == value).then_some(position))
    }

    /// How many series have the value at `position`.
    ///
    /// # Errors
    /// A damaged index, or no such position.
    pub fn series_count(&self, position: usize) -> Result<u32, DecodeError> {
        Ok(entry(&self.entries, position)?[1])
    }

    /// Appends the ordinals of the series that have the value at `position`, ascending.
    ///
    /// # Errors
    /// A damaged index, or no such position.
    pub fn ordinals(&self, position: usize, out: &mut Vec<u32>) -> Result<(), DecodeError> {
        const WHAT: &str = "postings list";
        let [_, count, place] = entry(&self.entries, position)?;
        let series = self.postings.series_count;
        let section = &self.postings.section;
        let corrupt = |why| section.corrupt(place as usize, WHAT, why);
        if count == 1 && place < series {
            out.push(place);
            return Ok(());
        }
        if count < 2 || count > series {
            return Err(section.corrupt(0, WHAT, "more series than there are, or none"));
        }
        let (place, count) = (place as usize, count as usize);
        let list = section.get(place..section.len().min(place + list_bytes_max(count)), WHAT)?;
        let mut ordinals = Vec::new();
        decode_ints(&mut Cursor::with_base(list, section.offset(place)), count, &mut ordinals)?;
        if ordinals[0] < 0 || ordinals[count - 1] >= i64::from(series) {
            return Err(corrupt("a series that is not there"));
        }
        if ordinals.windows(2).any(|w| w[0] >= w[1]) {
            return Err(corrupt("not ascending"));
        }
        out.extend(ordinals.into_iter().map(|ordinal| ordinal as u32));
        Ok(())
    }
}

/// What a list of so many ordinals takes at most: its length stands nowhere, and what lies behind
/// it need not be intact. Residuals of numbers below 2^32 have at most 34 bits.
fn list_bytes_max(count: usize) -> usize {
    64 + 8 * count
}

fn entry(entries: &SectionBytes<'_>, index: usize) -> Result<[u32; 3], DecodeError> {
    let bytes: &[u8; ENTRY_BYTES] = entries.record(index, WHAT)?;
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    Ok([word(0), word(4), word(8)])
}
