//! The index of a partition file, as matchers and label lists ask for it.

use crate::storage::label_sets::LabelSets;
use crate::storage::postings::Index;
use bytes::Bytes;
use larum_storage_format::DecodeError;
use larum_storage_format::partition::{LabelReader, Partition};
use roaring::RoaringBitmap;
use std::collections::{BTreeSet, HashMap};

/// So many series may have their labels looked at for each value that need not be gone through.
const SERIES_PER_VALUE: u64 = 4;

/// What filtering takes for a series, and a union for a value, in what a union takes for a series.
const FILTER_COST: u64 = 2;
const VALUE_COST: u64 = 4;

/// Looking at the labels of a series, whose block is not that of the one before, takes as long as
/// decoding so many postings.
const POSTINGS_PER_SERIES: u64 = 64;

/// Up to so many ordinals of a union are sorted.
const FEW: usize = 1024;

impl Index for Partition<Bytes> {
    type Error = DecodeError;

    fn all(&self) -> RoaringBitmap {
        let mut all = RoaringBitmap::new();
        all.insert_range(0..self.series_count());
        all
    }

    fn postings<T>(
        &self,
        name: &str,
        value: &str,
        read: impl FnOnce(&RoaringBitmap) -> T,
    ) -> Result<T, DecodeError> {
        let mut ordinals = Vec::new();
        self.postings_of(name, value, &mut ordinals)?;
        Ok(read(&sorted(&ordinals)))
    }

    fn postings_len(&self, name: &str, value: &str) -> Result<u64, DecodeError> {
        let Some(values) = self.label_values(name)? else { return Ok(0) };
        let Some(position) = values.find(value)? else { return Ok(0) };
        values.series_count(position).map(u64::from)
    }

    fn value_count(&self, name: &str) -> Result<u64, DecodeError> {
        Ok(self.label_values(name)?.map_or(0, |values| values.len() as u64))
    }

    fn are_postings_dearer(&self, postings: u64, series: u64) -> bool {
        postings > series.saturating_add(1).saturating_mul(POSTINGS_PER_SERIES)
    }

    fn is_union_dearer(&self, name: &str, prefix: &str, series: u64) -> Result<bool, DecodeError> {
        let Some(values) = self.label_values(name)? else { return Ok(false) };
        let mut cost = 0;
        for position in values.lower_bound(prefix)?..values.len() {
            if !prefix.is_empty() && !values.value(position)?.starts_with(prefix) {
                break;
            }
            cost += VALUE_COST + u64::from(values.series_count(position)?);
            if cost > series.saturating_mul(FILTER_COST) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn union(
        &self,
        name: &str,
        prefix: &str,
        keep: &mut dyn FnMut(&str) -> bool,
    ) -> Result<RoaringBitmap, DecodeError> {
        let mut union = Union::new(self.series_count());
        let Some(values) = self.label_values(name)? else { return Ok(union.finish()) };
        for position in values.lower_bound(prefix)?..values.len() {
            let value = values.value(position)?;
            if !value.starts_with(prefix) {
                break;
            }
            if keep(value) {
                values.ordinals(position, union.more())?;
            }
        }
        Ok(union.finish())
    }

    fn filter(
        &self,
        series: RoaringBitmap,
        name: &str,
        keep: &mut dyn FnMut(&str) -> bool,
    ) -> Result<RoaringBitmap, DecodeError> {
        let mut reader = self.label_reader()?;
        // By symbol, as many series have the same value.
        let mut known: HashMap<Option<u32>, bool, foldhash::fast::RandomState> = HashMap::default();
        let mut left = Vec::new();
        for ordinal in series {
            let symbol = reader.value(ordinal, name)?;
            let passes = match known.get(&symbol) {
                Some(&passes) => passes,
                None => {
                    let value = symbol.map_or(Ok(""), |symbol| reader.text(symbol))?;
                    let passes = keep(value);
                    known.insert(symbol, passes);
                    passes
                }
            };
            if passes {
                left.push(ordinal);
            }
        }
        Ok(sorted(&left))
    }
}

/// The label names, of all series or of those selected.
pub(super) fn names(file: &Partition<Bytes>, of: Option<&RoaringBitmap>) -> Result<Vec<String>, DecodeError> {
    let Some(of) = of else { return file.label_names()?.map(|name| Ok(name?.to_owned())).collect() };
    let mut names: BTreeSet<&str> = BTreeSet::new();
    let mut reader = file.label_reader()?;
    for ordinal in of {
        reader.names(ordinal, |name| {
            names.insert(name);
        })?;
    }
    Ok(names.into_iter().map(str::to_owned).collect())
}

/// The values of a label, of all series or of those selected.
pub(super) fn values(
    file: &Partition<Bytes>,
    name: &str,
    of: Option<&RoaringBitmap>,
) -> Result<Vec<String>, DecodeError> {
    let Some(values) = file.label_values(name)? else { return Ok(Vec::new()) };
    let Some(of) = of else { return values.iter().map(|value| Ok(value?.to_owned())).collect() };
    let mut found = Vec::new();
    if of.len() < values.len() as u64 * SERIES_PER_VALUE {
        let mut reader = file.label_reader()?;
        for symbol in symbols(&mut reader, name, of)? {
            found.push(reader.text(symbol)?.to_owned());
        }
        return Ok(found);
    }
    let mut ordinals = Vec::new();
    for position in 0..values.len() {
        ordinals.clear();
        values.ordinals(position, &mut ordinals)?;
        if ordinals.iter().any(|&ordinal| of.contains(ordinal)) {
            found.push(values.value(position)?.to_owned());
        }
    }
    Ok(found)
}

/// The symbols of the values of a label among these series.
fn symbols(
    reader: &mut LabelReader<'_>,
    name: &str,
    of: &RoaringBitmap,
) -> Result<BTreeSet<u32>, DecodeError> {
    let mut symbols = BTreeSet::new();
    for ordinal in of {
        symbols.extend(reader.value(ordinal, name)?);
    }
    Ok(symbols)
}

/// Adds the labels of series to `out`.
pub(super) fn label_sets(
    reader: &mut LabelReader<'_>,
    series: &mut dyn Iterator<Item = u32>,
    out: &mut LabelSets,
) {
    let mut known: HashMap<(u32, u32), u32, foldhash::fast::RandomState> = HashMap::default();
    let mut symbols = Vec::new();
    let mut numbers = Vec::new();
    for ordinal in series {
        symbols.clear();
        numbers.clear();
        // Whoever selected the series has verified what its labels are read from.
        let _ = reader.symbols(ordinal, |name, value| symbols.push((name, value)));
        for &(name, value) in &symbols {
            let number = *known.entry((name, value)).or_insert_with(|| {
                let text = |symbol| reader.text(symbol).unwrap_or_default();
                out.add_label(text(name), text(value))
            });
            numbers.push(number);
        }
        out.add_set(numbers.iter().copied());
    }
}

fn sorted(ordinals: &[u32]) -> RoaringBitmap {
    RoaringBitmap::from_sorted_iter(ordinals.iter().copied()).unwrap_or_default()
}

/// Ordinals on their way into one set: a few are sorted, of many each sets its bit.
struct Union {
    series_count: u32,
    few: Vec<u32>,
    /// One bit a series; empty as long as there were few.
    bits: Vec<u8>,
}

impl Union {
    fn new(series_count: u32) -> Union {
        Union { series_count, few: Vec::new(), bits: Vec::new() }
    }

    /// Where to append more ordinals, which are below the count of series.
    fn more(&mut self) -> &mut Vec<u32> {
        if self.few.len() >= FEW {
            self.set_bits();
        }
        &mut self.few
    }

    fn set_bits(&mut self) {
        self.bits.resize(self.series_count as usize / 8 + 1, 0);
        for ordinal in self.few.drain(..) {
            self.bits[ordinal as usize / 8] |= 1 << (ordinal % 8);
        }
    }

    fn finish(mut self) -> RoaringBitmap {
        if self.bits.is_empty() {
            self.few.sort_unstable();
            self.few.dedup();
            return sorted(&self.few);
        }
        self.set_bits();
        RoaringBitmap::from_lsb0_bytes(0, &self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_union_of_few_and_of_many_lists_is_the_same_as_a_set() {
        for (count, lists) in [(1, 1), (9, 3), (70_000, 1), (70_000, 40)] {
            let mut union = Union::new(count);
            let mut expected = BTreeSet::new();
            for list in 0..lists {
                let ordinals = (list % count..count).step_by(97 + list as usize);
                expected.extend(ordinals.clone());
                union.more().extend(ordinals);
            }
            assert_eq!(union.bits.is_empty(), expected.len() < FEW);
            assert!(union.finish().iter().eq(expected));
        }
        assert!(Union::new(0).finish().is_empty());
    }
}
