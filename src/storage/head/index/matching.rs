//! Asking the index while series are created: no answer holds its lock for long.
//!
//! Who waits to write keeps new readers out, so a slow regular expression under the lock would stop
//! appends. Values are copied out a slice at a time, matched without the lock, and looked up again;
//! what came or left in between may or may not be seen.

use super::Index;
use crate::storage::matcher::Matcher;
use crate::storage::postings;
use roaring::RoaringBitmap;
use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

/// So many values or series are looked at under one lock, some 100 us.
const SLICE: usize = 4096;

/// An index that others change meanwhile.
pub(in crate::storage::head) struct Shared<'a>(pub &'a RwLock<Index>);

/// Values with the numbers of their pairs.
type Values = Vec<(u32, Arc<str>)>;

impl Index {
    /// Adds to `out` values of a label that start with `prefix`, from position `from` on, and tells
    /// where to go on.
    fn some_values(&self, name: &str, prefix: &str, from: usize, out: &mut Values) -> Option<usize> {
        let name = *self.name_numbers.get(name)?;
        let values = &self.names[name as usize].values;
        if values.len() <= SLICE {
            let all = values.iter().filter(|(value, _)| value.starts_with(prefix));
            out.extend(all.map(|(value, &pair)| (pair, value.clone())));
            return None;
        }
        // A map has no positions; the pairs of all names do.
        let to = self.pairs.len().min(from + SLICE);
        for (pair, entry) in (from as u32..).zip(self.pairs.get(from..to)?) {
            if entry.name == name && entry.value.starts_with(prefix) && !entry.postings.is_empty() {
                out.push((pair, entry.value.clone()));
            }
        }
        (to < self.pairs.len()).then_some(to)
    }

    /// The series of a pair, if it still stands for this value.
    fn series_of(&self, pair: u32, value: &Arc<str>) -> Option<&RoaringBitmap> {
        let entry = self.pairs.get(pair as usize)?;
        Arc::ptr_eq(&entry.value, value).then_some(&entry.postings)
    }
}

impl Shared<'_> {
    fn lock(&self) -> RwLockReadGuard<'_, Index> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `each` with slices of a label's values that start with `prefix`.
    fn for_values(&self, name: &str, prefix: &str, mut each: impl FnMut(&mut Values)) {
        let mut slice = Values::new();
        let mut from = Some(0);
        while let Some(position) = from {
            slice.clear();
            from = self.lock().some_values(name, prefix, position, &mut slice);
            each(&mut slice);
        }
    }

    /// The series that match.
    pub fn select(&self, matchers: &[Matcher]) -> RoaringBitmap {
        let Ok(selected) = postings::select(self, matchers);
        selected
    }

    /// The names of the labels of these series.
    pub fn label_names(&self, series: &RoaringBitmap) -> Vec<String> {
        {
            let index = self.lock();
            if series.len() == index.len() {
                return index.name_numbers.keys().map(|name| name.to_string()).collect();
            }
        }
        let mut names = Vec::new();
        let mut series = series.iter();
        let mut seen = RoaringBitmap::new();
        loop {
            let slice: Vec<u32> = series.by_ref().take(SLICE).collect();
            if slice.is_empty() {
                return names;
            }
            let index = self.lock();
            for series in slice {
                for pair in index.pairs_of.get(series) {
                    let name = index.pairs[pair as usize].name;
                    if seen.insert(name) {
                        names.push(index.names[name as usize].text.to_string());
                    }
                }
            }
        }
    }

    /// The values of a label that occur among these series.
    pub fn label_values(&self, name: &str, series: &RoaringBitmap) -> Vec<String> {
        let mut out = Vec::new();
        let everything = series.len() == self.lock().len();
        self.for_values(name, "", |values| {
            let index = self.lock();
            let is_among = |all: &RoaringBitmap| everything || !all.is_disjoint(series);
            let occurs = |pair, value| index.series_of(pair, value).is_some_and(is_among);
            out.extend(
                values
                    .iter()
                    .filter(|(pair, value)| occurs(*pair, value))
                    .map(|(_, value)| value.to_string()),
            );
        });
        out
    }
}

impl postings::Index for Shared<'_> {
    type Error = Infallible;

    fn all(&self) -> RoaringBitmap {
        self.lock().all.clone()
    }

    fn postings(&self, name: &str, value: &str) -> Result<Cow<'_, RoaringBitmap>, Infallible> {
        let index = self.lock();
        Ok(Cow::Owned(index.find_pair(name, value).map(|pair| pair.postings.clone()).unwrap_or_default()))
    }

    fn postings_len(&self, name: &str, value: &str) -> Result<u64, Infallible> {
        Ok(self.lock().find_pair(name, value).map_or(0, |pair| pair.postings.len()))
    }

    fn value_count(&self, name: &str) -> Result<u64, Infallible> {
        let index = self.lock();
        let name = index.name_numbers.get(name);
        Ok(name.map_or(0, |&name| index.names[name as usize].values.len() as u64))
    }

    fn union(
        &self,
        name: &str,
        prefix: &str,
        keep: &mut dyn FnMut(&str) -> bool,
    ) -> Result<RoaringBitmap, Infallible> {
        let mut union = RoaringBitmap::new();
        self.for_values(name, prefix, |values| {
            values.retain(|(_, value)| keep(value));
            let index = self.lock();
            let series = values.iter().filter_map(|(pair, value)| index.series_of(*pair, value));
            series.for_each(|all| union |= all);
        });
        Ok(union)
    }

    fn filter(&self, series: RoaringBitmap, matcher: &Matcher) -> Result<RoaringBitmap, Infallible> {
        let passes = |series: &u32| {
            let value = {
                let index = self.lock();
                let mut pairs = index.pairs_of.get(*series).map(|pair| &index.pairs[pair as usize]);
                let pair = pairs.find(|pair| *index.names[pair.name as usize].text == *matcher.name());
                pair.map(|pair| pair.value.clone())
            };
            matcher.matches(value.as_deref().unwrap_or(""))
        };
        Ok(series.into_iter().filter(passes).collect())
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
