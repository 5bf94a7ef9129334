//! The index of a partition file, as matchers and label lists ask for it.

use crate::storage::label_sets::LabelSets;
use crate::storage::postings::Index;
use bytes::Bytes;
use larum_storage_format::DecodeError;
use larum_storage_format::partition::{LabelReader, Partition};
use roaring::RoaringBitmap;
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

/// So many series may have their labels looked at for each value that need not be gone through.
const SERIES_PER_VALUE: u64 = 4;

impl Index for Partition<Bytes> {
    type Error = DecodeError;

    fn all(&self) -> RoaringBitmap {
        let mut all = RoaringBitmap::new();
        all.insert_range(0..self.series_count());
        all
    }

    fn postings(&self, name: &str, value: &str) -> Result<Cow<'_, RoaringBitmap>, DecodeError> {
        let mut ordinals = Vec::new();
        self.postings_of(name, value, &mut ordinals)?;
        Ok(Cow::Owned(sorted(&ordinals)))
    }

    fn postings_len(&self, name: &str, value: &str) -> Result<u64, DecodeError> {
        let Some(values) = self.label_values(name)? else { return Ok(0) };
        let Some(position) = values.find(value)? else { return Ok(0) };
        values.series_count(position).map(u64::from)
    }

    fn value_count(&self, name: &str) -> Result<u64, DecodeError> {
        Ok(self.label_values(name)?.map_or(0, |values| values.len() as u64))
    }

    fn union(
        &self,
        name: &str,
        prefix: &str,
        keep: &mut dyn FnMut(&str) -> bool,
    ) -> Result<RoaringBitmap, DecodeError> {
        let mut all = RoaringBitmap::new();
        let Some(values) = self.label_values(name)? else { return Ok(all) };
        let mut ordinals = Vec::new();
        for position in values.lower_bound(prefix)?..values.len() {
            let value = values.value(position)?;
            if !value.starts_with(prefix) {
                break;
            }
            if keep(value) {
                values.ordinals(position, &mut ordinals)?;
            }
            if ordinals.len() >= 4096 {
                all |= unsorted(&mut ordinals);
            }
        }
        all |= unsorted(&mut ordinals);
        Ok(all)
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

fn unsorted(ordinals: &mut Vec<u32>) -> RoaringBitmap {
    ordinals.sort_unstable();
    let set = sorted(ordinals);
    ordinals.clear();
    set
}
