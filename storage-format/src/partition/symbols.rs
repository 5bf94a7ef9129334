//! SYMBOLS: every label name and value of a partition once, sorted by their bytes.
//!
//! `u32 n | u32 offset x (n + 1) | text`, offsets counted from the start of the text. A symbol's
//! number is its place in the order, so sorted numbers are sorted strings.

use super::extents::SectionBytes;
use crate::cursor::DecodeError;
use std::collections::HashMap;

/// Collects symbols, numbered as they come; sorts them at the end.
#[derive(Debug, Default)]
pub(crate) struct SymbolWriter {
    numbers: HashMap<Box<str>, u32>,
    text_len: u64,
}

impl SymbolWriter {
    /// The provisional number of `text`.
    pub(crate) fn add(&mut self, text: &str) -> u32 {
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        let number = self.numbers.len() as u32;
        self.text_len += text.len() as u64;
        self.numbers.insert(text.into(), number);
        number
    }

    /// Length of all symbols together, which must fit 32 bits.
    pub(crate) fn text_len(&self) -> u64 {
        self.text_len
    }

    /// The section, and the final number for each provisional one.
    pub(crate) fn finish(self) -> (Vec<u8>, Vec<u32>) {
        let mut symbols: Vec<(Box<str>, u32)> = self.numbers.into_iter().collect();
        symbols.sort_unstable();
        let mut section = (symbols.len() as u32).to_le_bytes().to_vec();
        let mut offset = 0u32;
        section.extend_from_slice(&offset.to_le_bytes());
        let mut renumber = vec![0; symbols.len()];
        for (number, (text, provisional)) in symbols.iter().enumerate() {
            renumber[*provisional as usize] = number as u32;
            offset += text.len() as u32;
            section.extend_from_slice(&offset.to_le_bytes());
        }
        for (text, _) in &symbols {
            section.extend_from_slice(text.as_bytes());
        }
        (section, renumber)
    }
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
        let mut writer = SymbolWriter::default();
        let numbers = ["b", "", "aa", "b", "é"].map(|text| writer.add(text));
        assert_eq!(numbers, [0, 1, 2, 0, 3]);
        let (section, renumber) = writer.finish();
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
}
