//! Chosen labels of many series, put together once for all series that have the same.

use super::Index;
use crate::storage::part::LabelsAmong;
use larum_storage_format::Labels;

/// What was put together of the labels of some names.
pub(in crate::storage::head) struct PairsAmong {
    /// The names, ascending.
    texts: Vec<String>,
    /// [`Index::forgotten`] when the numbers below were found; `None` before.
    forgotten: Option<u64>,
    /// The numbers of the names that are known.
    names: Vec<u32>,
    known: LabelsAmong,
    /// The pairs of the series at hand that have one of the names.
    pairs: Vec<u32>,
}

impl PairsAmong {
    /// Of labels with one of the `names`, which ascend.
    pub fn of(names: &[String]) -> PairsAmong {
        PairsAmong {
            texts: names.to_vec(),
            forgotten: None,
            names: Vec::new(),
            known: LabelsAmong::default(),
            pairs: Vec::new(),
        }
    }

    /// Of the labels of a series those with one of the names.
    pub fn labels(&mut self, index: &Index, series: u32) -> Labels {
        if self.forgotten != Some(index.forgotten) {
            self.forgotten = Some(index.forgotten);
            self.known.forget();
            let numbers = self.texts.iter().filter_map(|name| index.name_numbers.get(name.as_str()));
            self.names = numbers.copied().collect();
        }
        self.pairs.clear();
        let mut left = self.names.len();
        let mut pairs = index.pairs_of.get(series);
        while left > 0
            && let Some(pair) = pairs.next()
        {
            if self.names.contains(&index.pairs[pair as usize].name) {
                self.pairs.push(pair);
                left -= 1;
            }
        }
        let pairs = &self.pairs;
        let make = || Labels::from_pairs(pairs.iter().map(|&pair| index.pair(pair))).unwrap_or_default();
        self.known.get(pairs, make)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Together;
    use super::*;
    use larum_storage_format::{IdentitySeed, SeriesId};

    #[test]
    fn chosen_labels_are_those_of_the_series_also_after_numbers_were_used_again() {
        let mut index = Index::default();
        let add = |index: &mut Index, pairs: &[(&str, &str)]| {
            let labels = Labels::from_pairs(pairs.iter().copied()).unwrap();
            let id = SeriesId::of(&labels, IdentitySeed(1));
            (index.find_or_create(id, &labels, Together::At(0)).unwrap().0, labels)
        };
        let mut series = vec![
            add(&mut index, &[("__name__", "a"), ("job", "x"), ("zone", "1")]),
            add(&mut index, &[("__name__", "a"), ("job", "y")]),
            add(&mut index, &[("__name__", "b"), ("zone", "1")]),
        ];
        let names = [&["job", "zone"][..], &["__name__", "missing"], &[], &["zone"]];
        let names = names.map(|names| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        let mut readers = names.each_ref().map(|names| PairsAmong::of(names));
        let mut check = |index: &Index, series: &[(u32, Labels)]| {
            for (names, among) in names.iter().zip(&mut readers) {
                for (number, labels) in series.iter().chain(series) {
                    let expected = labels.without(|name| !names.iter().any(|other| other == name));
                    assert_eq!(among.labels(index, *number), expected);
                }
            }
        };
        check(&index, &series);
        // Both the pair and its name become others.
        let (gone, _) = series.remove(2);
        index.remove(&[gone, series[0].0]);
        series.remove(0);
        index.reuse_retired();
        series.push(add(&mut index, &[("job", "z"), ("missing", "2"), ("zone", "3")]));
        check(&index, &series);
    }
}
