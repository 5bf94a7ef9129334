//! The values of one series over all steps, by columns.

use larum_storage_format::{Histogram, Labels, Value, is_stale};
use std::sync::Arc;

/// A bitmap over steps while it is being filled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Bits {
    words: Vec<u64>,
}

impl Bits {
    /// No bit set, room for `len` of them.
    pub(crate) fn none(len: usize) -> Bits {
        Bits { words: vec![0; len.div_ceil(64)] }
    }

    /// Sets bit `index`.
    #[inline]
    pub(crate) fn set(&mut self, index: usize) {
        self.words[index / 64] |= 1 << (index % 64);
    }

    /// Clears bit `index`.
    #[inline]
    pub(crate) fn unset(&mut self, index: usize) {
        self.words[index / 64] &= !(1 << (index % 64));
    }

    /// Whether bit `index` is set.
    #[inline]
    pub(crate) fn get(&self, index: usize) -> bool {
        self.words[index / 64] >> (index % 64) & 1 == 1
    }

    /// Sets the bits of all steps at which `row` has a float.
    pub(crate) fn add_floats(&mut self, row: &Row) {
        match &row.present {
            Presence::All => self.fill(row.len()),
            Presence::Bits(bits) => self.words.iter_mut().zip(bits.iter()).for_each(|(a, b)| *a |= b),
        }
    }

    /// Sets the first `len` bits.
    fn fill(&mut self, len: usize) {
        self.words[..len / 64].fill(u64::MAX);
        if !len.is_multiple_of(64) {
            self.words[len / 64] |= (1 << (len % 64)) - 1;
        }
    }

    /// Sets the bits that are set in `other`.
    pub(crate) fn add(&mut self, other: &Bits) {
        self.words.iter_mut().zip(&other.words).for_each(|(a, b)| *a |= b);
    }

    /// Whether some bit is set in both.
    pub(crate) fn overlaps(&self, other: &Bits) -> bool {
        self.words.iter().zip(&other.words).any(|(a, b)| a & b != 0)
    }

    /// Sets the bits of all steps at which `row` has a value.
    pub(crate) fn add_row(&mut self, row: &Row) {
        self.add_floats(row);
        for (step, _) in &row.histograms {
            self.set(*step as usize);
        }
    }
}

/// Whether there is a stale marker among `values`. Looks at chunks as a whole, which the compiler
/// does several values at once.
pub(crate) fn any_stale(values: &[f64]) -> bool {
    values.chunks(64).any(|chunk| chunk.iter().fold(false, |stale, v| stale | is_stale(*v)))
}

/// At which steps a row has a float. Shared by all series whose timestamps are shared.
#[derive(Debug, Clone)]
pub(crate) enum Presence {
    /// At every step.
    All,
    /// Where the bit is set.
    Bits(Arc<[u64]>),
}

impl Presence {
    /// Of `len` steps, those whose bit is set.
    pub(crate) fn from_bits(bits: &Bits, len: usize) -> Presence {
        let full = bits.words.iter().enumerate().all(|(i, word)| {
            let rest = len - i * 64;
            let want = if rest >= 64 { u64::MAX } else { (1 << rest) - 1 };
            *word == want
        });
        if full { Presence::All } else { Presence::Bits(bits.words.as_slice().into()) }
    }

    /// At no step.
    pub(crate) fn none(len: usize) -> Presence {
        Presence::from_bits(&Bits::none(len), len)
    }

    /// Whether there is a float at step `index`.
    #[inline]
    pub(crate) fn get(&self, index: usize) -> bool {
        match self {
            Presence::All => true,
            Presence::Bits(words) => words[index / 64] >> (index % 64) & 1 == 1,
        }
    }

    /// At how many of `len` steps there is a float.
    pub(crate) fn count(&self, len: usize) -> usize {
        match self {
            Presence::All => len,
            Presence::Bits(words) => words.iter().map(|w| w.count_ones() as usize).sum(),
        }
    }

    /// Calls `f` with every one of `len` steps at which there is a float.
    #[inline]
    pub(crate) fn for_each(&self, len: usize, mut f: impl FnMut(usize)) {
        match self {
            Presence::All => (0..len).for_each(f),
            Presence::Bits(words) => {
                for (i, word) in words.iter().enumerate() {
                    let mut rest = *word;
                    while rest != 0 {
                        f(i * 64 + rest.trailing_zeros() as usize);
                        rest &= rest - 1;
                    }
                }
            }
        }
    }
}

/// The values of one series at every step: floats in a column, histograms (which are rare) beside.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// One float per step, meaningless where none is present.
    pub(crate) floats: Vec<f64>,
    /// At which steps there is a float.
    pub(crate) present: Presence,
    /// Step and histogram, ascending; never where a float is present.
    pub(crate) histograms: Vec<(u32, Arc<Histogram>)>,
}

impl Row {
    /// A row without any value.
    pub(crate) fn absent(len: usize) -> Row {
        Row { floats: vec![0.0; len], present: Presence::none(len), histograms: Vec::new() }
    }

    /// A float at every step.
    pub(crate) fn full(floats: Vec<f64>) -> Row {
        Row { floats, present: Presence::All, histograms: Vec::new() }
    }

    /// How many steps there are.
    pub(crate) fn len(&self) -> usize {
        self.floats.len()
    }

    /// At how many steps there is a value.
    pub(crate) fn points(&self) -> usize {
        self.present.count(self.len()) + self.histograms.len()
    }

    /// The float at `step`, if there is one.
    #[inline]
    pub(crate) fn float(&self, step: usize) -> Option<f64> {
        self.present.get(step).then(|| self.floats[step])
    }

    /// The histogram at `step`, if there is one.
    pub(crate) fn histogram(&self, step: usize) -> Option<&Arc<Histogram>> {
        if self.histograms.is_empty() {
            return None;
        }
        let found = self.histograms.binary_search_by_key(&(step as u32), |(at, _)| *at).ok()?;
        Some(&self.histograms[found].1)
    }

    /// The value at `step`, if there is one.
    pub(crate) fn value(&self, step: usize) -> Option<Value> {
        match self.float(step) {
            Some(float) => Some(Value::Float(float)),
            None => self.histogram(step).map(|h| Value::Histogram(h.clone())),
        }
    }

    /// Replaces every float `v` by `f(step, v)`, or by nothing, and drops the histograms.
    pub(crate) fn filter_map(&mut self, mut f: impl FnMut(usize, f64) -> Option<f64>) {
        let len = self.len();
        let mut kept = Bits::none(len);
        let floats = &mut self.floats;
        self.present.for_each(len, |i| {
            if let Some(v) = f(i, floats[i]) {
                floats[i] = v;
                kept.set(i);
            }
        });
        self.present = Presence::from_bits(&kept, len);
        self.histograms.clear();
    }

    /// Replaces every float `v` by `f(step, v)`; histograms stay.
    pub(crate) fn map(&mut self, mut f: impl FnMut(usize, f64) -> f64) {
        let len = self.len();
        let floats = &mut self.floats;
        self.present.for_each(len, |i| floats[i] = f(i, floats[i]));
    }

    /// The values at the steps for which `keep` is true.
    pub(crate) fn keep(mut self, keep: impl Fn(usize) -> bool) -> Row {
        let len = self.len();
        let mut kept = Bits::none(len);
        self.present.for_each(len, |i| {
            if keep(i) {
                kept.set(i);
            }
        });
        self.present = Presence::from_bits(&kept, len);
        self.histograms.retain(|(step, _)| keep(*step as usize));
        self
    }

    /// One value repeated over `len` steps: what does not depend on the step is evaluated once.
    pub(crate) fn repeated(&self, len: usize) -> Row {
        let mut row = Row::absent(len);
        if let Some(float) = self.float(0) {
            row.floats.fill(float);
            row.present = Presence::All;
        } else if let Some(histogram) = self.histogram(0) {
            row.histograms = (0..len).map(|i| (i as u32, histogram.clone())).collect();
        }
        row
    }

    /// Adds the values of `other`, unless both have one at the same step: then nothing is changed
    /// and the answer is false.
    pub(crate) fn merge(&mut self, other: &Row) -> bool {
        let len = self.len();
        let mut mine = Bits::none(len);
        mine.add_row(self);
        let mut floats = Bits::none(len);
        let mut clash = other.histograms.iter().any(|(step, _)| mine.get(*step as usize));
        other.present.for_each(len, |i| {
            clash |= mine.get(i);
            floats.set(i);
        });
        if clash {
            return false;
        }
        other.present.for_each(len, |i| self.floats[i] = other.floats[i]);
        self.present.for_each(len, |i| floats.set(i));
        self.present = Presence::from_bits(&floats, len);
        self.histograms.extend(other.histograms.iter().cloned());
        self.histograms.sort_by_key(|(step, _)| *step);
        true
    }
}

/// A series of an instant vector over all steps.
#[derive(Debug, Clone)]
pub(crate) struct SeriesRow {
    /// Its labels.
    pub(crate) labels: Labels,
    /// Whether the metric's name is to be dropped from the labels. With delayed removal that is
    /// done at the very end; without it, only a series in a stream still has its name on.
    pub(crate) drop_name: bool,
    /// Its values.
    pub(crate) row: Row,
}

/// An instant vector over all steps. With one step, the order of the series is part of the answer.
pub(crate) type Vector = Vec<SeriesRow>;

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[Option<f64>]) -> Row {
        let mut bits = Bits::none(values.len());
        values.iter().enumerate().filter(|(_, v)| v.is_some()).for_each(|(i, _)| bits.set(i));
        Row {
            floats: values.iter().map(|v| v.unwrap_or(f64::NAN)).collect(),
            present: Presence::from_bits(&bits, values.len()),
            histograms: Vec::new(),
        }
    }

    fn shown(row: &Row) -> Vec<Option<f64>> {
        (0..row.len()).map(|i| row.float(i)).collect()
    }

    #[test]
    fn rows_merge_only_where_they_do_not_overlap() {
        let mut a = row(&[Some(1.0), None, None]);
        assert!(a.merge(&row(&[None, Some(2.0), None])));
        assert_eq!(shown(&a), [Some(1.0), Some(2.0), None]);
        assert!(!a.merge(&row(&[None, Some(3.0), Some(4.0)])));
        assert_eq!(shown(&a), [Some(1.0), Some(2.0), None]);
    }

    #[test]
    fn a_full_bitmap_becomes_all() {
        for len in [1, 63, 64, 65, 128] {
            let mut bits = Bits::none(len);
            (0..len).for_each(|i| bits.set(i));
            assert!(matches!(Presence::from_bits(&bits, len), Presence::All), "{len}");
            bits.unset(len - 1);
            assert_eq!(Presence::from_bits(&bits, len).count(len), len - 1);
        }
    }

    #[test]
    fn filtering_keeps_what_the_function_keeps() {
        let mut a = row(&[Some(1.0), None, Some(3.0)]);
        a.filter_map(|_, v| (v > 2.0).then_some(v * 2.0));
        assert_eq!(shown(&a), [None, None, Some(6.0)]);
    }
}
