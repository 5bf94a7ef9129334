//! SYMBOLS: every label name and value of a partition once, sorted by their bytes.
//!
//! `u32 n | u32 offset x (n + 1) | text`, offsets counted from the start of the text. A symbol's
//! number is its place in the order, so sorted numbers are sorted strings.

use super::extents::SectionBytes;
use super::tape::{Spool, Tape, Wound, words};
use crate::cursor::DecodeError;
use foldhash::fast::RandomState;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;

/// What a symbol takes in memory beside its text: its entry and its allocation.
const SYMBOL_BYTES: usize = 64;

/// Collects symbols, numbered as they come; sorts them at the end.
///
/// Where they do not fit memory they make *runs*, each with numbers of its own: the caller says when
/// one ends.
#[derive(Debug)]
pub(crate) struct SymbolWriter {
    spool: Spool,
    numbers: HashMap<Box<str>, u32, RandomState>,
    text_len: usize,
    runs: Vec<Run>,
}

/// Symbols that were numbered together.
#[derive(Debug)]
struct Run {
    /// `u32 length | text` of each, sorted.
    sorted: Wound,
    /// For each number the place in that order, as words.
    places: Wound,
}

/// What the numbers of each run became.
#[derive(Debug)]
pub(crate) struct SortedSymbols {
    /// For each run: the places of its numbers, and the symbol at each place, as words.
    runs: Vec<(Wound, Wound)>,
}

impl SortedSymbols {
    /// The final number for each provisional one of a run.
    pub(crate) fn renumber(&self, run: usize) -> Vec<u32> {
        let (places, symbols) = &self.runs[run];
        let symbol = |place| symbols.as_chunks().0.get(place as usize).map_or(0, |b| u32::from_le_bytes(*b));
        words(places).map(symbol).collect()
    }
}

impl SymbolWriter {
    pub(crate) fn new(spool: &Spool) -> SymbolWriter {
        let numbers = HashMap::default();
        SymbolWriter { spool: spool.clone(), numbers, text_len: 0, runs: Vec::new() }
    }

    /// The provisional number of `text`, in this run.
    pub(crate) fn add(&mut self, text: &str) -> u32 {
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        let number = self.numbers.len() as u32;
        self.text_len += text.len();
        self.numbers.insert(text.into(), number);
        number
    }

    /// What the run under way takes in memory.
    pub(crate) fn run_bytes(&self) -> usize {
        self.text_len + self.numbers.len() * SYMBOL_BYTES
    }

    /// Ends a run: numbers begin anew.
    pub(crate) fn end_run(&mut self) -> io::Result<()> {
        let mut symbols: Vec<(Box<str>, u32)> = std::mem::take(&mut self.numbers).into_iter().collect();
        self.text_len = 0;
        symbols.sort_unstable();
        let mut places = vec![0; symbols.len()];
        let mut sorted = self.spool.tape();
        for (place, (text, number)) in (0..).zip(&symbols) {
            places[*number as usize] = place;
            sorted.append_words(&[text.len() as u32])?;
            sorted.append(text.as_bytes())?;
        }
        let mut tape = self.spool.tape();
        tape.append_words(&places)?;
        self.runs.push(Run { sorted: sorted.finish()?, places: tape.finish()? });
        Ok(())
    }

    /// The section, in parts, and what the numbers of the runs became, of which the last must have
    /// ended; `None` if the text would exceed 4 GiB.
    pub(crate) fn finish(self) -> io::Result<Option<([Wound; 2], SortedSymbols)>> {
        let (mut offsets, mut text) = (self.spool.tape(), self.spool.tape());
        let mut became: Vec<Tape> = self.runs.iter().map(|_| self.spool.tape()).collect();
        let mut rest: Vec<&[u8]> = self.runs.iter().map(|run| &run.sorted[..]).collect();
        let mut heads: BinaryHeap<Reverse<(&[u8], usize)>> = BinaryHeap::new();
        for (run, rest) in rest.iter_mut().enumerate() {
            heads.extend(next_text(rest).map(|text| Reverse((text, run))));
        }
        offsets.append_words(&[0])?;
        let mut count = 0u32;
        let mut last: Option<&[u8]> = None;
        while let Some(Reverse((symbol, run))) = heads.pop() {
            if last != Some(symbol) {
                last = Some(symbol);
                count += 1;
                text.append(symbol)?;
                let Ok(end) = u32::try_from(text.len()) else { return Ok(None) };
                offsets.append_words(&[end])?;
            }
            became[run].append_words(&[count - 1])?;
            heads.extend(next_text(&mut rest[run]).map(|text| Reverse((text, run))));
        }
        let mut head = self.spool.tape();
        head.append_words(&[count])?;
        head.append(&offsets.finish()?)?;
        let section = [head.finish()?, text.finish()?];
        let became = became.into_iter().map(Tape::finish).collect::<io::Result<Vec<_>>>()?;
        let runs = self.runs.into_iter().map(|run| run.places).zip(became).collect();
        Ok(Some((section, SortedSymbols { runs })))
    }
}

/// Takes the next `u32 length | text`.
fn next_text<'t>(rest: &mut &'t [u8]) -> Option<&'t [u8]> {
    let (len, behind) = rest.split_first_chunk()?;
    let (text, behind) = behind.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    *rest = behind;
    Some(text)
}

/// Reads the section in place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Symbols<'a> {
    section: SectionBytes<'a>,
    count: u32,
    text: SectionBytes<'a>,
}

const WHAT: &str = "symbol";

impl<'a> Symbols<'a> {
    pub(crate) fn new(section: SectionBytes<'a>) -> Result<Symbols<'a>, DecodeError> {
        let count = section.word(0, WHAT)?;
        let text = section.part(4 * (count as usize + 2)..section.len(), WHAT)?;
        Ok(Symbols { section, count, text })
    }

    pub(crate) fn len(&self) -> u32 {
        self.count
    }

    /// Verifies the whole section.
    pub(crate) fn verify(&self) -> Result<(), DecodeError> {
        self.section.all().map(drop)
    }

    /// The text of a symbol.
    pub(crate) fn get(&self, number: u32) -> Result<&'a str, DecodeError> {
        let corrupt = || self.section.corrupt(4 + 4 * number as usize, WHAT, "not UTF-8");
        std::str::from_utf8(self.bytes(number)?).map_err(|_| corrupt())
    }

    fn bytes(&self, number: u32) -> Result<&'a [u8], DecodeError> {
        let at = 4 + 4 * number as usize;
        if number >= self.count {
            return Err(self.section.corrupt(at, WHAT, "no such symbol"));
        }
        let [a, b, c, d, e, f, g, h] = *self.section.get(at..at + 8, WHAT)? else {
            return Err(self.section.corrupt(at, WHAT, "no such symbol"));
        };
        let (start, end) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        self.text.get(start as usize..end as usize, WHAT)
    }

    /// The number of `text`, if it is a symbol.
    pub(crate) fn find(&self, text: &str) -> Result<Option<u32>, DecodeError> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.bytes(middle)?.cmp(text.as_bytes()) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Ok(Some(middle)),
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_sorted_and_found() {
        let mut writer = SymbolWriter::new(&Spool::default());
        let numbers = ["b", "", "aa", "b", "é"].map(|text| writer.add(text));
        assert_eq!(numbers, [0, 1, 2, 0, 3]);
        writer.end_run().unwrap();
        let (section, sorted) = writer.finish().unwrap().unwrap();
        let (section, renumber) = (section.each_ref().map(|part| &part[..]).concat(), sorted.renumber(0));
        let symbols = Symbols::new((&section).into()).unwrap();
        assert_eq!(symbols.len(), 4);
        let texts = numbers.map(|n| symbols.get(renumber[n as usize]).unwrap());
        assert_eq!(texts, ["b", "", "aa", "b", "é"]);
        assert_eq!(
            ["", "aa", "b", "é", "c"].map(|t| symbols.find(t).unwrap()),
            [Some(0), Some(1), Some(2), Some(3), None]
        );
        assert!(symbols.get(4).is_err());
    }

    #[test]
    fn symbols_of_several_runs_are_sorted_together() {
        let mut writer = SymbolWriter::new(&Spool::default());
        let texts = ["b", "c", "a", "b", "d", "a", "c"];
        let (mut run, mut added) = (0, Vec::new());
        for text in texts {
            added.push((run, writer.add(text)));
            if writer.run_bytes() > 2 * SYMBOL_BYTES {
                writer.end_run().unwrap();
                run += 1;
            }
        }
        assert!(run > 1);
        writer.end_run().unwrap();
        let (section, sorted) = writer.finish().unwrap().unwrap();
        let section = section.each_ref().map(|part| &part[..]).concat();
        let symbols = Symbols::new((&section).into()).unwrap();
        assert_eq!(symbols.len(), 4);
        for (text, (run, number)) in texts.iter().zip(added) {
            assert_eq!(symbols.get(sorted.renumber(run)[number as usize]), Ok(*text));
        }
    }
}
