//! The values of one label: by text, and in order for who looks for a prefix or lists them.
//!
//! Only who asks for the order pays for it. A new value is noted in a list without order, which is
//! all that creating a series costs; a reader that finds this list long sorts it into the others
//! without a lock ([`Listed::is_ordered`], `Shared::values`). What is sorted is never changed: values
//! that have left stay until the next sorting, and are known by their text's address, as
//! [`Index::series_of`] compares it. Once more than half of what is listed has left, the lists are
//! begun anew, so that they stay bounded where nobody reads.

use super::{FastMap, Index, shrink_if_sparse};
use std::sync::Arc;

/// So many values without order are looked through rather than sorted, or an eighth of those sorted.
const MOST_UNSORTED: usize = 256;

/// A value with the number of its pair.
#[derive(Debug, Clone)]
pub(super) struct Value {
    pub text: Arc<str>,
    pub pair: u32,
}

/// See the module's text.
#[derive(Default)]
pub(super) struct Values {
    pairs: FastMap<Arc<str>, u32>,
    sorted: Arc<[Value]>,
    /// The pairs of the others; some may have left and stand for something else.
    recent: Vec<u32>,
    /// How many of those in `sorted` and `recent` have left.
    gone: usize,
}

/// What there was of a label's values at one moment.
pub(super) struct Listed {
    /// By text. Some may have left.
    pub sorted: Arc<[Value]>,
    /// The pairs of the others. Some may have left and stand for something else.
    pub recent: Vec<u32>,
    /// Whether some of the sorted ones may have left.
    pub any_gone: bool,
    /// [`Index::forgotten`] at that moment.
    pub forgotten: u64,
}

impl Listed {
    /// Whether so few values are without order that they need not be sorted.
    pub fn is_ordered(&self) -> bool {
        self.recent.len() <= MOST_UNSORTED.max(self.sorted.len() / 8)
    }

    /// The sorted values that start with `prefix`.
    pub fn sorted_with(&self, prefix: &str) -> &[Value] {
        let from = &self.sorted[self.sorted.partition_point(|value| &*value.text < prefix)..];
        &from[..from.partition_point(|value| value.text.starts_with(prefix))]
    }
}

impl Values {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The pair of this value.
    pub fn get(&self, value: &str) -> Option<u32> {
        self.pairs.get(value).copied()
    }

    /// All values with their pairs, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u32)> {
        self.pairs.iter().map(|(value, &pair)| (&**value, pair))
    }

    /// Adds a value that is not there.
    pub fn insert(&mut self, value: Arc<str>, pair: u32) {
        self.pairs.insert(value, pair);
        self.recent.push(pair);
    }

    /// Removes a value and tells whether it was there.
    pub fn remove(&mut self, value: &str) -> bool {
        let was_there = self.pairs.remove(value).is_some();
        self.gone += usize::from(was_there);
        if self.pairs.is_empty() {
            *self = Values::default();
        } else if self.gone > self.pairs.len() + MOST_UNSORTED {
            self.sorted = Arc::default();
            self.recent = self.pairs.values().copied().collect();
            self.gone = 0;
        }
        was_there
    }

    /// Gives most of the memory back if most of the values are gone.
    pub fn shrink_if_sparse(&mut self) {
        shrink_if_sparse(&mut self.pairs);
    }

    /// Takes over the order that somebody made of `listed`, unless another did so meanwhile. No pair
    /// may have been forgotten since.
    fn take_over(&mut self, listed: &Listed, sorted: &Arc<[Value]>) {
        if Arc::ptr_eq(&self.sorted, &listed.sorted) {
            self.sorted = sorted.clone();
            self.recent.drain(..listed.recent.len());
            self.recent.shrink_to_fit();
            self.gone = 0;
        }
    }
}

impl Index {
    /// The values of a label.
    pub(super) fn values_of(&self, name: &str) -> Option<&Values> {
        let name = *self.name_numbers.get(name)?;
        Some(&self.names[name as usize].values)
    }

    /// What there is of the values of a label. Copies four bytes for each of those without order.
    pub(super) fn listed(&self, name: &str) -> Option<Listed> {
        let Values { sorted, recent, gone, .. } = self.values_of(name)?;
        Some(Listed {
            sorted: sorted.clone(),
            recent: recent.clone(),
            any_gone: *gone > 0,
            forgotten: self.forgotten,
        })
    }

    /// Adds to `out` the values of those of the `pairs` that stand for one of the label's that starts
    /// with `prefix`.
    pub(super) fn values_among(&self, pairs: &[u32], name: &str, prefix: &str, out: &mut Vec<Value>) {
        let Some(&name) = self.name_numbers.get(name) else { return };
        for &pair in pairs {
            let entry = &self.pairs[pair as usize];
            if entry.name == name && entry.value.starts_with(prefix) && !entry.postings.is_empty() {
                out.push(Value { text: entry.value.clone(), pair });
            }
        }
    }

    /// Takes over the order of a label's values that somebody made of what was listed.
    pub(super) fn take_over(&mut self, name: &str, listed: &Listed, sorted: &Arc<[Value]>) {
        // Pairs that were forgotten since may stand among the sorted for other values.
        if self.forgotten == listed.forgotten
            && let Some(&name) = self.name_numbers.get(name)
        {
            self.names[name as usize].values.take_over(listed, sorted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Shared, Together};
    use super::*;
    use crate::storage::postings;
    use larum_storage_format::{IdentitySeed, Labels, SeriesId};
    use std::collections::BTreeMap;
    use std::sync::RwLock;

    fn add(index: &RwLock<Index>, value: &str) -> u32 {
        let labels = Labels::from_pairs([("__name__", "m"), ("n", value)]).unwrap();
        let id = SeriesId::of(&labels, IdentitySeed(1));
        index.write().unwrap().find_or_create(id, &labels, Together::At(0)).unwrap().0
    }

    fn add_all(index: &RwLock<Index>, numbers: std::ops::Range<usize>) {
        for n in numbers {
            add(index, &n.to_string());
        }
    }

    fn remove(index: &RwLock<Index>, gone: &[u32]) {
        let mut index = index.write().unwrap();
        index.remove(gone);
        index.reuse_retired();
    }

    /// The series whose value starts with the prefix, and the values that were asked about for it.
    fn with_prefix(index: &RwLock<Index>, prefix: &str) -> (Vec<u32>, Vec<String>) {
        let mut asked = Vec::new();
        let mut keep = |value: &str| {
            asked.push(value.to_owned());
            true
        };
        let Ok(series) = postings::Index::union(&Shared(index), "n", prefix, &mut keep);
        (series.iter().collect(), asked)
    }

    fn listed(index: &RwLock<Index>) -> Listed {
        index.read().unwrap().listed("n").unwrap()
    }

    #[test]
    fn a_prefix_finds_what_is_there_however_values_come_and_go() {
        let index = RwLock::new(Index::default());
        let mut there: BTreeMap<String, u32> = BTreeMap::new();
        let mut random = 1u64;
        let mut below = |most: u64| {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (random >> 33) % most
        };
        for _ in 0..60 {
            for _ in 0..below(400) {
                let value = below(5000).to_string();
                let series = add(&index, &value);
                there.insert(value, series);
            }
            let (keep_every, from) = (below(4), below(5000).to_string());
            let mut at = 0;
            let mut gone = Vec::new();
            there.retain(|value, series| {
                at += 1;
                let stays = keep_every == 0 || at % (keep_every + 1) == 0 || *value < from;
                if !stays {
                    gone.push(*series);
                }
                stays
            });
            gone.sort_unstable();
            remove(&index, &gone);
            for prefix in ["", "1", "12", "123", "4999", "x"] {
                let starts = |value: &&String| value.starts_with(prefix);
                let mut expected: Vec<u32> =
                    there.iter().filter(|(value, _)| starts(value)).map(|(_, series)| *series).collect();
                expected.sort_unstable();
                let (found, asked) = with_prefix(&index, prefix);
                assert_eq!(found, expected);
                assert!(asked.iter().all(|value| value.starts_with(prefix)));
                // Those that have left and were not yet noticed are asked about, too.
                assert!(asked.len() <= 2 * there.len() + 2 * MOST_UNSORTED, "{}", asked.len());
            }
        }
    }

    #[test]
    fn values_are_sorted_by_who_asks_and_again_once_many_are_new() {
        let index = RwLock::new(Index::default());
        add_all(&index, 0..3000);
        assert!(!listed(&index).is_ordered());
        assert_eq!(with_prefix(&index, "29").0.len(), 111);
        let first = listed(&index);
        assert_eq!((first.sorted.len(), first.recent.len()), (3000, 0));
        assert!(first.sorted.is_sorted_by(|a, b| a.text < b.text));

        add_all(&index, 3000..3300);
        assert_eq!(with_prefix(&index, "32").0.len(), 111);
        assert!(Arc::ptr_eq(&listed(&index).sorted, &first.sorted));

        add_all(&index, 3300..3500);
        assert_eq!(with_prefix(&index, "34").0.len(), 111);
        let second = listed(&index);
        assert_eq!((second.sorted.len(), second.recent.len()), (3500, 0));
        // Who sorted what was listed before comes too late.
        index.write().unwrap().take_over("n", &first, &first.sorted);
        assert!(Arc::ptr_eq(&listed(&index).sorted, &second.sorted));
    }

    #[test]
    fn an_order_of_values_that_left_meanwhile_is_not_taken_over() {
        let index = RwLock::new(Index::default());
        let gone = add(&index, "a");
        add(&index, "b");
        let before = listed(&index);
        remove(&index, &[gone]);
        add(&index, "c");
        let of_a = Value { text: "a".into(), pair: before.recent[0] };
        index.write().unwrap().take_over("n", &before, &[of_a].into());
        assert!(listed(&index).sorted.is_empty());
        assert_eq!(with_prefix(&index, "").0.len(), 2);
    }

    #[test]
    fn the_lists_stay_bounded_where_values_come_and_go() {
        let index = RwLock::new(Index::default());
        let stays = add(&index, "stays");
        for round in 0..20 {
            let gone: Vec<u32> =
                (0..2 * MOST_UNSORTED).map(|n| add(&index, &format!("{round}-{n}"))).collect();
            if round % 3 == 0 {
                assert_eq!(with_prefix(&index, "").0.len(), gone.len() + 1);
            }
            remove(&index, &gone);
            let Listed { sorted, recent, .. } = listed(&index);
            assert!(sorted.len() + recent.len() <= 2 + MOST_UNSORTED);
            assert_eq!(with_prefix(&index, "").0, [stays]);
        }
    }
}
