//! Asking the index while series are created: no answer holds its lock for long.
//!
//! Who waits to write keeps new readers out, so a slow regular expression under the lock would stop
//! appends. Values are sorted and matched without the lock, and looked up again a slice at a time;
//! what came or left in between may or may not be seen.

use super::values::{Listed, Value};
use super::{FastMap, Index};
use crate::storage::label_sets::LabelSets;
use crate::storage::matcher::Matcher;
use crate::storage::postings;
use roaring::RoaringBitmap;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

/// So many values are looked at under one lock, some 100 us.
const SLICE: usize = 4096;

/// So many series have their labels read under one lock, for as long.
const SERIES_SLICE: usize = 512;

/// So many series may have their labels looked at for each value that need not be gone through.
const SERIES_PER_VALUE: u64 = 16;

/// Looking at the labels of a series takes as long as going through so many values.
const VALUES_PER_SERIES: u64 = 4;

/// An index that others change meanwhile.
pub(in crate::storage::head) struct Shared<'a>(pub &'a RwLock<Index>);

impl Index {
    fn value_count(&self, name: &str) -> u64 {
        self.values_of(name).map_or(0, |values| values.len() as u64)
    }

    /// The pair of a series that has this name.
    fn pair_of(&self, series: u32, name: &str) -> Option<u32> {
        let name = *self.name_numbers.get(name)?;
        self.pairs_of.get(series).find(|&pair| self.pairs[pair as usize].name == name)
    }

    /// The series of a value, if its pair still stands for it.
    fn series_of(&self, value: &Value) -> Option<&RoaringBitmap> {
        let entry = self.pairs.get(value.pair as usize)?;
        Arc::ptr_eq(&entry.value, &value.text).then_some(&entry.postings)
    }
}

impl Shared<'_> {
    fn lock(&self) -> RwLockReadGuard<'_, Index> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `each` with slices of a label's values that start with `prefix`, mostly in order.
    fn for_values(&self, name: &str, prefix: &str, mut each: impl FnMut(&[Value])) {
        let Some(listed) = self.values(name) else { return };
        listed.sorted_with(prefix).chunks(SLICE).for_each(&mut each);
        let mut slice = Vec::new();
        for pairs in listed.recent.chunks(SLICE) {
            slice.clear();
            self.lock().values_among(pairs, name, prefix, &mut slice);
            each(&slice);
        }
    }

    /// The values of a label, all but a few in order.
    fn values(&self, name: &str) -> Option<Listed> {
        let listed = self.lock().listed(name)?;
        if listed.is_ordered() {
            return Some(listed);
        }
        let mut values = Vec::with_capacity(listed.sorted.len() + listed.recent.len());
        for slice in listed.sorted.chunks(SLICE) {
            match listed.any_gone {
                true => {
                    let index = self.lock();
                    values.extend(slice.iter().filter(|value| index.series_of(value).is_some()).cloned());
                }
                false => values.extend_from_slice(slice),
            }
        }
        for pairs in listed.recent.chunks(SLICE) {
            self.lock().values_among(pairs, name, "", &mut values);
        }
        // A stable sort sees what is sorted already, and merges the rest into it.
        values.sort_by(|a, b| a.text.cmp(&b.text));
        values.dedup_by(|a, b| Arc::ptr_eq(&a.text, &b.text));
        let sorted: Arc<[Value]> = values.into();
        self.0.write().unwrap_or_else(PoisonError::into_inner).take_over(name, &listed, &sorted);
        Some(Listed { sorted, recent: Vec::new(), ..listed })
    }

    /// The series that match.
    pub fn select(&self, matchers: &[Matcher]) -> RoaringBitmap {
        let Ok(selected) = postings::select(self, matchers);
        selected
    }

    /// Calls `each` with the index and every one of the series, a slice of them under one lock.
    fn for_series(&self, series: &mut dyn Iterator<Item = u32>, mut each: impl FnMut(&Index, u32)) {
        let mut slice = Vec::with_capacity(SERIES_SLICE);
        loop {
            slice.extend((&mut *series).take(SERIES_SLICE));
            if slice.is_empty() {
                return;
            }
            let index = self.lock();
            slice.drain(..).for_each(|series| each(&index, series));
        }
    }

    /// Adds the labels of these series to `out`.
    pub fn label_sets(&self, series: &mut dyn Iterator<Item = u32>, out: &mut LabelSets) {
        let mut known = Learnt::default();
        let mut numbers = Vec::new();
        self.for_series(series, |index, series| {
            let known = known.of(index);
            for pair in index.pairs_of.get(series) {
                let number = *known.entry(pair).or_insert_with(|| {
                    let (name, value) = index.pair(pair);
                    out.add_label(name, value)
                });
                numbers.push(number);
            }
            out.add_set(numbers.drain(..));
        });
    }

    /// The names of the labels of these series.
    pub fn label_names(&self, series: &RoaringBitmap) -> Vec<String> {
        {
            let index = self.lock();
            if series.len() == index.len() {
                return index.name_numbers.keys().map(|name| name.to_string()).collect();
            }
        }
        let mut names: BTreeSet<Arc<str>> = BTreeSet::new();
        let mut seen = Learnt::default();
        self.for_series(&mut series.iter(), |index, series| {
            let seen = seen.of(index);
            for pair in index.pairs_of.get(series) {
                seen.entry(pair).or_insert_with(|| {
                    let name = &index.names[index.pairs[pair as usize].name as usize].text;
                    if !names.contains(name) {
                        names.insert(name.clone());
                    }
                });
            }
        });
        names.iter().map(|name| name.to_string()).collect()
    }

    /// The values of a label that occur among these series.
    pub fn label_values(&self, name: &str, series: &RoaringBitmap) -> Vec<String> {
        let (everything, value_count) = {
            let index = self.lock();
            (series.len() == index.len(), index.value_count(name))
        };
        let mut out = Vec::new();
        if !everything && series.len() < value_count.saturating_mul(SERIES_PER_VALUE) {
            let mut seen = Learnt::default();
            self.for_series(&mut series.iter(), |index, series| {
                let Some(pair) = index.pair_of(series, name) else { return };
                let seen = seen.of(index);
                seen.entry(pair).or_insert_with(|| out.push(index.pair(pair).1.to_owned()));
            });
            return out;
        }
        self.for_values(name, "", |values| {
            let occurring: Vec<&Value> = {
                let index = self.lock();
                let is_among = |all: &RoaringBitmap| everything || !all.is_disjoint(series);
                values.iter().filter(|value| index.series_of(value).is_some_and(is_among)).collect()
            };
            out.extend(occurring.iter().map(|value| value.text.to_string()));
        });
        out
    }
}

/// What was learnt of pairs, as long as their numbers stand for the same labels.
#[derive(Default)]
struct Learnt<T> {
    forgotten: u64,
    pairs: FastMap<u32, T>,
}

impl<T> Learnt<T> {
    fn of(&mut self, index: &Index) -> &mut FastMap<u32, T> {
        if self.forgotten != index.forgotten {
            self.forgotten = index.forgotten;
            self.pairs.clear();
        }
        &mut self.pairs
    }
}

impl postings::Index for Shared<'_> {
    type Error = Infallible;

    fn all(&self) -> RoaringBitmap {
        self.lock().all.clone()
    }

    fn postings<T>(
        &self,
        name: &str,
        value: &str,
        read: impl FnOnce(&RoaringBitmap) -> T,
    ) -> Result<T, Infallible> {
        let index = self.lock();
        Ok(match index.find_pair(name, value) {
            Some(pair) => read(&pair.postings),
            None => read(&RoaringBitmap::new()),
        })
    }

    fn postings_len(&self, name: &str, value: &str) -> Result<u64, Infallible> {
        Ok(self.lock().find_pair(name, value).map_or(0, |pair| pair.postings.len()))
    }

    fn value_count(&self, name: &str) -> Result<u64, Infallible> {
        Ok(self.lock().value_count(name))
    }

    /// They lie in memory as sets: what few series have in common with one is quickly found.
    fn are_postings_dearer(&self, _postings: u64, _series: u64) -> bool {
        false
    }

    fn is_union_dearer(&self, name: &str, prefix: &str, series: u64) -> Result<bool, Infallible> {
        let values =
            self.values(name).map_or(0, |listed| listed.sorted_with(prefix).len() + listed.recent.len());
        Ok(series.saturating_mul(VALUES_PER_SERIES) < values as u64)
    }

    fn union(
        &self,
        name: &str,
        prefix: &str,
        keep: &mut dyn FnMut(&str) -> bool,
    ) -> Result<RoaringBitmap, Infallible> {
        let mut union = RoaringBitmap::new();
        self.for_values(name, prefix, |values| {
            let kept: Vec<&Value> = values.iter().filter(|value| keep(&value.text)).collect();
            let index = self.lock();
            kept.iter().filter_map(|value| index.series_of(value)).for_each(|all| union |= all);
        });
        Ok(union)
    }

    fn filter(
        &self,
        series: RoaringBitmap,
        name: &str,
        keep: &mut dyn FnMut(&str) -> bool,
    ) -> Result<RoaringBitmap, Infallible> {
        let lacking = keep("");
        let mut verdicts: Learnt<bool> = Learnt::default();
        // The pairs of a slice's series, and which of them nothing is known about yet.
        let mut pairs: Vec<(u32, Option<u32>)> = Vec::with_capacity(SERIES_SLICE);
        let mut unknown: Vec<(u32, Arc<str>)> = Vec::new();
        let mut left = Vec::new();
        let mut all = series.iter();
        loop {
            let slice = all.by_ref().take(SERIES_SLICE);
            let known = {
                let index = self.lock();
                pairs.extend(slice.map(|series| (series, index.pair_of(series, name))));
                let known = verdicts.of(&index);
                for pair in pairs.iter().filter_map(|(_, pair)| *pair) {
                    known.entry(pair).or_insert_with(|| {
                        unknown.push((pair, index.pairs[pair as usize].value.clone()));
                        false
                    });
                }
                known
            };
            if pairs.is_empty() {
                return Ok(RoaringBitmap::from_sorted_iter(left).unwrap_or_default());
            }
            known.extend(unknown.drain(..).map(|(pair, value)| (pair, keep(&value))));
            let passes = |pair: Option<u32>| pair.map_or(lacking, |pair| known.get(&pair) == Some(&true));
            left.extend(pairs.drain(..).filter(|(_, pair)| passes(*pair)).map(|(series, _)| series));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Together;
    use super::*;
    use larum_storage_format::{IdentitySeed, Labels, SeriesId};

    fn add(index: &mut Index, n: usize) {
        let labels = Labels::from_pairs([("__name__", "m"), ("n", &*n.to_string())]).unwrap();
        let id = SeriesId::of(&labels, IdentitySeed(1));
        index.find_or_create(id, &labels, Together::At(0)).unwrap();
    }

    #[test]
    fn a_filter_is_asked_once_a_value_and_not_confused_by_numbers_that_are_used_again() {
        let all = 3 * SERIES_SLICE;
        let mut index = Index::default();
        (0..all).for_each(|n| add(&mut index, n));
        let index = RwLock::new(index);
        let shared = Shared(&index);
        let mut asked = Vec::new();
        let mut keep = |value: &str| {
            asked.push(value.to_owned());
            if asked.len() == 2 {
                // The pair of the last series becomes that of another value.
                let mut index = index.write().unwrap();
                let last = all as u32 - 1;
                index.remove(&[last]);
                index.reuse_retired();
                add(&mut index, 1_000_000);
            }
            value.len() == 1
        };
        let Ok(left) = postings::Index::filter(&shared, (0..all as u32).collect(), "n", &mut keep);
        assert_eq!(left.iter().collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
        // Once for series without the label; the first slice's verdicts may be asked for again.
        assert!((all..=all + 1 + SERIES_SLICE).contains(&asked.len()), "{}", asked.len());
        let Ok(same) = postings::Index::filter(&shared, left.clone(), "__name__", &mut |value| value == "m");
        assert_eq!(same, left);
        assert_eq!(shared.label_values("n", &left).len(), 10);
        let mut sets = LabelSets::default();
        shared.label_sets(&mut left.iter(), &mut sets);
        let read: Vec<Labels> = sets.iter().collect();
        let expected: Vec<Labels> = left.iter().map(|series| index.read().unwrap().labels(series)).collect();
        assert_eq!(read, expected);
    }

    #[test]
    fn series_are_created_and_removed_while_values_are_matched() {
        let all = 3 * SLICE;
        let mut index = Index::default();
        (0..all).for_each(|n| add(&mut index, n));
        let index = RwLock::new(index);
        let shared = Shared(&index);
        let mut asked = 0;
        // A lock held meanwhile would let this wait for ever.
        let mut keep = |value: &str| {
            asked += 1;
            if asked == 10 {
                let mut index = index.write().unwrap();
                add(&mut index, all);
                index.remove(&[5, 6, 7]);
            }
            value.len() <= 4
        };
        let Ok(into) = postings::Index::union(&shared, "n", "", &mut keep);
        assert_eq!(
            into.iter().collect::<Vec<_>>(),
            (0..10_000).filter(|n| !(5..8).contains(n)).collect::<Vec<_>>()
        );
        assert!((all..=all + 1).contains(&asked));
        assert_eq!(shared.label_values("n", &into).len(), into.len() as usize);
        assert_eq!(shared.label_names(&into), ["__name__", "n"]);
    }
}
