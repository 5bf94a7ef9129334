//! The index of a partition file, as matchers and label lists ask for it.
//!
//! The index was verified when the file was opened, so what cannot be read here was written so; it
//! counts as not there.

use crate::storage::matcher::Matcher;
use crate::storage::postings::Index;
use bytes::Bytes;
use larum_storage_format::partition::{LabelValues, Partition};
use roaring::RoaringBitmap;
use std::borrow::Cow;

impl Index for Partition<Bytes> {
    fn all(&self) -> RoaringBitmap {
        let mut all = RoaringBitmap::new();
        all.insert_range(0..self.series_count());
        all
    }

    fn postings(&self, name: &str, value: &str) -> Cow<'_, RoaringBitmap> {
        let mut ordinals = Vec::new();
        let _ = self.postings_of(name, value, &mut ordinals);
        Cow::Owned(sorted(&ordinals))
    }

    fn postings_len(&self, name: &str, value: &str) -> u64 {
        let Some(values) = values_of(self, name) else { return 0 };
        values.find(value).ok().flatten().map_or(0, |position| values.series_count(position).into())
    }

    fn value_count(&self, name: &str) -> u64 {
        values_of(self, name).map_or(0, |values| values.len() as u64)
    }

    fn union(&self, name: &str, prefix: &str, keep: &mut dyn FnMut(&str) -> bool, into: &mut RoaringBitmap) {
        let Some(values) = values_of(self, name) else { return };
        let from = values.lower_bound(prefix).unwrap_or(0);
        let mut ordinals = Vec::new();
        for position in from..values.len() {
            let Ok(value) = values.value(position) else { continue };
            if !value.starts_with(prefix) {
                break;
            }
            let before = ordinals.len();
            if keep(value) && values.ordinals(position, &mut ordinals).is_err() {
                ordinals.truncate(before);
            }
            if ordinals.len() >= 4096 {
                *into |= unsorted(&mut ordinals);
            }
        }
        *into |= unsorted(&mut ordinals);
    }

    fn passes(&self, series: u32, matcher: &Matcher) -> bool {
        self.labels(series).is_ok_and(|labels| matcher.matches_series(&labels))
    }
}

/// The label names.
pub(super) fn names(file: &Partition<Bytes>) -> Vec<String> {
    file.label_names().map(|names| names.flatten().map(str::to_owned).collect()).unwrap_or_default()
}

/// The values of a label, of all series or of those selected.
pub(super) fn values(file: &Partition<Bytes>, name: &str, of: Option<&RoaringBitmap>) -> Vec<String> {
    let Some(values) = values_of(file, name) else { return Vec::new() };
    let Some(of) = of else { return values.iter().flatten().map(str::to_owned).collect() };
    if of.len() < values.len() as u64 {
        let labels = of.iter().filter_map(|ordinal| file.labels(ordinal).ok());
        return labels.filter_map(|labels| labels.get(name).map(str::to_owned)).collect();
    }
    let mut ordinals = Vec::new();
    let has_series = |position: &usize| {
        ordinals.clear();
        values.ordinals(*position, &mut ordinals).is_ok() && ordinals.iter().any(|&o| of.contains(o))
    };
    let found = (0..values.len()).filter(has_series);
    found.filter_map(|position| values.value(position).ok().map(str::to_owned)).collect()
}

fn values_of<'a>(file: &'a Partition<Bytes>, name: &str) -> Option<LabelValues<'a>> {
    file.label_values(name).ok().flatten()
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
