//! What the index is made of: how many series there are, and which names and values have most.

use super::values::Values;
use super::{Index, Name};
use crate::storage::stats::HeadStatus;

impl Index {
    /// The status, with at most `limit` entries a list.
    pub fn status(&self, limit: usize) -> HeadStatus {
        let in_use = |name: &&Name| !name.values.is_empty();
        let names = || self.names.iter().filter(in_use);
        let of_pair = |pair: u32| self.pairs[pair as usize].postings.len();
        let metrics = self.values_of("__name__").into_iter().flat_map(Values::iter);
        let metrics = metrics.map(|(value, pair)| (of_pair(pair), (value, "")));
        let pairs = names().flat_map(|name| {
            name.values.iter().map(move |(value, pair)| (of_pair(pair), (&*name.text, value)))
        });
        let value_counts = names().map(|name| (name.values.len() as u64, (&*name.text, "")));
        let value_bytes = names().map(|name| {
            let bytes: usize = name.values.iter().map(|(value, _)| value.len()).sum();
            (bytes as u64, (&*name.text, ""))
        });
        let alone = |(text, _): (&str, &str)| text.to_owned();
        HeadStatus {
            series: self.len(),
            label_pairs: (self.pairs.len() - self.free_pairs.len()) as u64,
            series_by_metric: top(metrics, limit, alone),
            values_by_name: top(value_counts, limit, alone),
            value_bytes_by_name: top(value_bytes, limit, alone),
            series_by_pair: top(pairs, limit, |(name, value)| format!("{name}={value}")),
        }
    }
}

/// The `limit` entries with the highest counts, highest first; equal ones by text.
fn top<'a>(
    entries: impl Iterator<Item = (u64, (&'a str, &'a str))>,
    limit: usize,
    text: impl Fn((&'a str, &'a str)) -> String,
) -> Vec<(String, u64)> {
    let mut entries: Vec<(u64, (&str, &str))> = entries.collect();
    let order = |a: &(u64, (&str, &str)), b: &(u64, (&str, &str))| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1));
    if limit < entries.len() {
        entries.select_nth_unstable_by(limit, order);
        entries.truncate(limit);
    }
    entries.sort_unstable_by(order);
    entries.into_iter().map(|(count, of)| (text(of), count)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Index, Together};
    use larum_storage_format::{IdentitySeed, Labels, SeriesId};

    #[test]
    fn the_names_and_values_with_most_come_first_and_what_left_is_not_counted() {
        let mut index = Index::default();
        let mut add = |name: &str, n: usize| {
            let n = n.to_string();
            let labels = Labels::from_pairs([("__name__", name), ("n", n.as_str())]).unwrap();
            let id = SeriesId::of(&labels, IdentitySeed(1));
            index.find_or_create(id, &labels, Together::At(0)).unwrap().0
        };
        for n in 0..12 {
            add(["a", "b", "b"][n % 3], n);
        }
        let gone = add("gone", 100);
        index.remove(&[gone]);
        let list = |entries: &[(&str, u64)]| -> Vec<(String, u64)> {
            entries.iter().map(|&(text, count)| (text.to_owned(), count)).collect()
        };
        let status = index.status(3);
        assert_eq!((status.series, status.label_pairs), (12, 14));
        assert_eq!(status.series_by_metric, list(&[("b", 8), ("a", 4)]));
        assert_eq!(status.values_by_name, list(&[("n", 12), ("__name__", 2)]));
        assert_eq!(status.value_bytes_by_name, list(&[("n", 14), ("__name__", 2)]));
        assert_eq!(status.series_by_pair, list(&[("__name__=b", 8), ("__name__=a", 4), ("n=0", 1)]));
        assert!(index.status(0).series_by_pair.is_empty());
    }
}
