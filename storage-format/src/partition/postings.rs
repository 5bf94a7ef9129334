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
use super::symbols::Symbols;
use super::tape::{Spool, Wound, triples};
use crate::cursor::{Cursor, DecodeError};
use crate::ints::{Packing, decode_ints, encode_ints};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::io;

const ENTRY_BYTES: usize = 12;
const COUNT_BYTES: usize = 4;

/// A series has a pair of (final) symbols.
type Entry = [u32; 3];

/// Sorts which series has which pair, in runs where that does not fit memory.
#[derive(Debug)]
pub(crate) struct PostingsWriter {
    spool: Spool,
    /// So many entries may a run have.
    run_entries: usize,
    entries: Vec<Entry>,
    runs: Vec<Wound>,
}

impl PostingsWriter {
    pub(crate) fn new(spool: &Spool, run_bytes: usize) -> PostingsWriter {
        let run_entries = (run_bytes / size_of::<Entry>()).max(64);
        PostingsWriter { spool: spool.clone(), run_entries, entries: Vec::new(), runs: Vec::new() }
    }

    /// Says that the series at `ordinal` has the pair.
    pub(crate) fn add(&mut self, (name, value): (u32, u32), ordinal: u32) -> io::Result<()> {
        if self.entries.len() == self.run_entries {
            self.sort_run()?;
        }
        // Not doubled beyond what it may take.
        if self.entries.len() == self.entries.capacity() {
            let more = self.entries.len().max(1024).min(self.run_entries - self.entries.len());
            self.entries.reserve_exact(more);
        }
        self.entries.push([name, value, ordinal]);
        Ok(())
    }

    fn sort_run(&mut self) -> io::Result<()> {
        self.entries.sort_unstable();
        let mut tape = self.spool.tape();
        self.entries.iter().try_for_each(|entry| tape.append_words(entry))?;
        self.entries.clear();
        self.runs.push(tape.finish()?);
        Ok(())
    }

    /// The section, in parts. `None` if it would exceed 4 GiB.
    pub(crate) fn finish(mut self) -> io::Result<Option<[Wound; 3]>> {
        if self.runs.is_empty() {
            self.entries.sort_unstable();
            return lay_out(self.entries.iter().copied(), &self.spool);
        }
        self.sort_run()?;
        self.entries = Vec::new();
        let mut runs: Vec<_> = self.runs.iter().map(|run| triples(run)).collect();
        let mut heads: BinaryHeap<Reverse<(Entry, usize)>> = BinaryHeap::new();
        for (run, entries) in runs.iter_mut().enumerate() {
            heads.extend(entries.next().map(|entry| Reverse((entry, run))));
        }
        let sorted = std::iter::from_fn(|| {
            let mut head = heads.peek_mut()?;
            let Reverse((entry, run)) = *head;
            match runs[run].next() {
                Some(next) => *head = Reverse((next, run)),
                None => drop(PeekMut::pop(head)),
            }
            Some(entry)
        });
        lay_out(sorted, &self.spool)
    }
}

/// Lays out the section from sorted entries.
fn lay_out(entries: impl Iterator<Item = Entry>, spool: &Spool) -> io::Result<Option<[Wound; 3]>> {
    /// As a count: the place is the ordinal itself, not one among the lists.
    const SINGLE: u32 = 1;
    let mut names: Vec<(u32, u32)> = Vec::new();
    let (mut values, mut lists) = (spool.tape(), spool.tape());
    let (mut ordinals, mut packed): (Vec<i64>, Vec<u8>) = (Vec::new(), Vec::new());
    let mut entries = entries.peekable();
    while let Some([name, value, first]) = entries.next() {
        ordinals.clear();
        ordinals.push(first.into());
        let same = |entry: &Entry| (entry[0], entry[1]) == (name, value);
        while let Some([.., ordinal]) = entries.next_if(same) {
            ordinals.push(ordinal.into());
        }
        match names.last_mut() {
            Some((last, count)) if *last == name => *count += 1,
            _ => names.push((name, 1)),
        }
        if let [_] = ordinals[..] {
            values.append_words(&[value, SINGLE, first])?;
            continue;
        }
        let Ok(place) = u32::try_from(lists.len()) else { return Ok(None) };
        values.append_words(&[value, ordinals.len() as u32, place])?;
        packed.clear();
        encode_ints(&ordinals, Packing::FAST, &mut packed);
        lists.append(&packed)?;
    }
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
    Ok(Some([head.finish()?, placed.finish()?, lists.finish()?]))
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
        (0..self.name_count()).map(move |name| self.symbols.get(words(&self.names, name)?[0]))
    }

    /// The values of a name; `None` if no series has the label.
    pub(crate) fn values(&self, name: &str) -> Result<Option<LabelValues<'a>>, DecodeError> {
        let Some(symbol) = self.symbols.find(name)? else { return Ok(None) };
        let (mut low, mut high) = (0, self.name_count());
        while low < high {
            let middle = low.midpoint(high);
            if words(&self.names, middle)?[0] < symbol { low = middle + 1 } else { high = middle }
        }
        if low == self.name_count() {
            return Ok(None);
        }
        let [found, offset, count] = words(&self.names, low)?.map(|word| word as usize);
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
        self.postings.symbols.get(words(&self.entries, position)?[0])
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
        Ok(words(&self.entries, position)?[1])
    }

    /// Appends the ordinals of the series that have the value at `position`, ascending.
    ///
    /// # Errors
    /// A damaged index, or no such position.
    pub fn ordinals(&self, position: usize, out: &mut Vec<u32>) -> Result<(), DecodeError> {
        const WHAT: &str = "postings list";
        let [_, count, place] = words(&self.entries, position)?;
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

fn words(entries: &SectionBytes<'_>, index: usize) -> Result<[u32; 3], DecodeError> {
    let entry: &[u8; ENTRY_BYTES] = entries.record(index, WHAT)?;
    let word = |at: usize| u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]);
    Ok([word(0), word(4), word(8)])
}
