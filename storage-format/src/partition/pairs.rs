//! Label pairs on their way into a partition: which series has which.
//!
//! Pairs are numbered as they come, so that of a series only a few numbers must be remembered. Most
//! series bring pairs that others had, and whoever brings them mostly has numbers for them, too: a
//! pair whose key is known is neither hashed nor compared as text.
//!
//! Where names and values do not fit memory, numbers begin anew with each *run* of series.

use super::symbols::{SortedSymbols, SymbolWriter};
use super::tape::{Spool, Tape, Wound, words};
use foldhash::fast::RandomState;
use std::collections::HashMap;
use std::io;

/// What tells the label pairs of a source apart, in numbers of its own: equal keys are equal pairs.
pub type PairKey = [u32; 3];

/// What a pair takes in memory, in a hash table that is growing.
const PAIR_BYTES: usize = 32;
/// What a known key takes.
const KNOWN_BYTES: usize = 40;

/// Collects which series has which pairs.
#[derive(Debug)]
pub(crate) struct PairWriter {
    spool: Spool,
    /// So much memory may a run take.
    run_bytes: usize,
    symbols: SymbolWriter,
    /// By provisional symbols.
    numbers: HashMap<(u32, u32), u32, RandomState>,
    /// So many keys are remembered.
    known_max: usize,
    known: HashMap<PairKey, u32, RandomState>,
    /// For each series the number of its pairs, and the pairs' numbers.
    lists: Tape,
    /// The list under way.
    list: Vec<u32>,
    runs: Vec<EndedRun>,
}

/// A run whose numbers are final.
#[derive(Debug)]
struct EndedRun {
    /// The provisional symbols of each number, as words.
    pairs: Wound,
    /// Where its lists end.
    lists_end: u64,
}

impl PairWriter {
    pub(crate) fn new(spool: &Spool, memory_bytes: usize) -> PairWriter {
        PairWriter {
            spool: spool.clone(),
            run_bytes: memory_bytes / 4,
            symbols: SymbolWriter::new(spool),
            numbers: HashMap::default(),
            // A few megabytes serve the largest merges.
            known_max: (memory_bytes / 32).min(4 << 20) / KNOWN_BYTES,
            known: HashMap::default(),
            lists: spool.tape(),
            list: Vec::new(),
            runs: Vec::new(),
        }
    }

    /// Gives the series under way a pair.
    pub(crate) fn add(&mut self, name: &str, value: &str) {
        let number = self.number(name, value);
        self.list.push(number);
    }

    /// Gives the series under way the pair of this key. `text` tells name and value.
    pub(crate) fn add_known<'t>(&mut self, key: PairKey, text: impl FnOnce() -> (&'t str, &'t str)) {
        let number = match self.known.get(&key) {
            Some(&number) => number,
            None => {
                let (name, value) = text();
                let number = self.number(name, value);
                if self.known.len() >= self.known_max {
                    self.known.clear();
                }
                self.known.insert(key, number);
                number
            }
        };
        self.list.push(number);
    }

    fn number(&mut self, name: &str, value: &str) -> u32 {
        let symbols = (self.symbols.add(name), self.symbols.add(value));
        let next = self.numbers.len() as u32;
        *self.numbers.entry(symbols).or_insert(next)
    }

    /// The series under way has no more pairs.
    pub(crate) fn end_series(&mut self) -> io::Result<()> {
        self.lists.append_words(&[self.list.len() as u32])?;
        self.lists.append_words(&self.list)?;
        self.list.clear();
        if self.symbols.run_bytes() + self.numbers.len() * PAIR_BYTES > self.run_bytes {
            self.end_run()?;
        }
        Ok(())
    }

    fn end_run(&mut self) -> io::Result<()> {
        self.known.clear();
        let mut pairs = vec![[0; 2]; self.numbers.len()];
        for ((name, value), number) in std::mem::take(&mut self.numbers) {
            pairs[number as usize] = [name, value];
        }
        let mut tape = self.spool.tape();
        tape.append_words(pairs.as_flattened())?;
        drop(pairs);
        self.runs.push(EndedRun { pairs: tape.finish()?, lists_end: self.lists.len() });
        self.symbols.end_run()
    }

    /// The SYMBOLS section and who has which pairs; `None` if the text would exceed 4 GiB.
    pub(crate) fn finish(mut self) -> io::Result<Option<([Wound; 2], SeriesPairs)>> {
        self.end_run()?;
        self.known = HashMap::default();
        let Some((section, symbols)) = self.symbols.finish()? else { return Ok(None) };
        Ok(Some((section, SeriesPairs { lists: self.lists.finish()?, symbols, runs: self.runs })))
    }
}

/// Which series has which pairs, once all are known.
#[derive(Debug)]
pub(crate) struct SeriesPairs {
    lists: Wound,
    symbols: SortedSymbols,
    runs: Vec<EndedRun>,
}

/// Series that follow one another, whose pairs were numbered together.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    /// Final symbols, name and value, by number.
    pub pairs: Vec<(u32, u32)>,
    /// The numbers of the pairs of each series.
    pub lists: Lists<'a>,
}

/// Lists of numbers, each as words behind its length.
#[derive(Debug, Clone)]
pub(crate) struct Lists<'a>(&'a [[u8; 4]]);

impl<'a> Iterator for Lists<'a> {
    type Item = &'a [[u8; 4]];

    fn next(&mut self) -> Option<&'a [[u8; 4]]> {
        let (len, rest) = self.0.split_first()?;
        let (list, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        self.0 = rest;
        Some(list)
    }
}

impl SeriesPairs {
    /// The runs, in the order of their series.
    pub(crate) fn runs(&self) -> impl Iterator<Item = Run<'_>> {
        let mut from = 0;
        self.runs.iter().enumerate().map(move |(number, run)| {
            let symbols = self.symbols.renumber(number);
            let mut provisional = words(&run.pairs);
            let mut next = || provisional.next().map(|symbol| symbols[symbol as usize]);
            let pairs = std::iter::from_fn(|| Some((next()?, next()?))).collect();
            let to = run.lists_end as usize;
            let lists = Lists(self.lists[from..to].as_chunks().0);
            from = to;
            Run { pairs, lists }
        })
    }

    /// For each series in turn, puts the symbols of its pairs into a vector.
    pub(crate) fn one_by_one(&self) -> impl FnMut(&mut Vec<(u32, u32)>) {
        let mut runs = self.runs();
        let mut run = runs.next();
        move |out| {
            while let Some(Run { pairs, lists }) = &mut run {
                if let Some(list) = lists.next() {
                    out.extend(list.iter().map(|number| pairs[u32::from_le_bytes(*number) as usize]));
                    return;
                }
                run = runs.next();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::symbols::Symbols;
    use super::*;

    /// However often numbers begin anew, and whether keys are known or not.
    #[test]
    fn each_series_has_the_pairs_it_was_given() {
        for memory_bytes in [1, 2000, usize::MAX] {
            let mut writer = PairWriter::new(&Spool::default(), memory_bytes);
            let text = |n: u32| (["a", "b", "c"][n as usize % 3], format!("v{}", n * 7 % 11));
            let series: Vec<Vec<u32>> = (0..40).map(|s| (s..s + s % 4).collect()).collect();
            for (s, numbers) in series.iter().enumerate() {
                for &n in numbers {
                    let (name, value) = text(n);
                    if s % 3 == 0 {
                        writer.add(name, &value);
                    } else {
                        writer.add_known([1, n, 2], || (name, value.as_str()));
                    }
                }
                writer.end_series().unwrap();
            }
            let (section, pairs) = writer.finish().unwrap().unwrap();
            assert_eq!(pairs.runs().count() > 3, memory_bytes < usize::MAX, "{memory_bytes}");
            let section = section.each_ref().map(|part| &part[..]).concat();
            let symbols = Symbols::new((&section).into()).unwrap();
            let mut next = pairs.one_by_one();
            for numbers in series {
                let mut found = Vec::new();
                next(&mut found);
                let found =
                    found.iter().map(|&(n, v)| (symbols.get(n).unwrap(), symbols.get(v).unwrap().to_owned()));
                assert!(found.eq(numbers.iter().map(|&n| text(n))));
            }
        }
    }
}
