//! Which series belong together: by some of their labels, or by all but some.

use super::merge::is_metadata;
use larum_storage_format::Labels;
use larum_storage_format::labels::METRIC_NAME;
use std::collections::HashMap;

/// Puts label sets into groups: for `by` and `without`, and for `on` and `ignoring`.
pub(crate) struct Grouper {
    /// Sorted by name, as labels are.
    names: Vec<String>,
    without: bool,
    /// Whether the metric's name tells groups apart even `without`.
    by_name: bool,
    known: HashMap<Box<[u8]>, usize, foldhash::fast::RandomState>,
    /// The labels of each group.
    pub(crate) labels: Vec<Labels>,
    key: Vec<u8>,
    /// Shared label sets that were met, by address and whether they count as nameless. Kept, so that the
    /// address cannot become that of another.
    shared: HashMap<(usize, bool), (Labels, usize), foldhash::fast::RandomState>,
    /// The one met last; the next series mostly has the same.
    last: Option<((usize, bool), usize)>,
}

/// So many shared label sets are kept at most.
const MOST_SHARED: usize = 1 << 12;

impl Grouper {
    /// By the labels `names`, or, with `without`, by all but these and the metric's name.
    pub(crate) fn new(mut names: Vec<String>, without: bool) -> Grouper {
        names.sort_unstable();
        names.dedup();
        Grouper {
            names,
            without,
            by_name: false,
            known: HashMap::default(),
            labels: Vec::new(),
            key: Vec::new(),
            shared: HashMap::default(),
            last: None,
        }
    }

    /// By all labels but one, the metric's name included.
    pub(crate) fn except(name: &str) -> Grouper {
        Grouper { by_name: true, ..Grouper::new(vec![name.to_owned()], true) }
    }

    /// The number of the group of a series with these labels; groups are numbered as they are met.
    /// With `nameless`, the labels are taken as if they had no name any more.
    pub(crate) fn group(&mut self, labels: &Labels, nameless: bool) -> usize {
        if self.names.is_empty() && !self.without {
            if self.labels.is_empty() {
                self.labels.push(Labels::empty());
            }
            return 0;
        }
        // A reader that puts sets of chosen labels together gives each of them out many times.
        let shared = labels.is_shared().then(|| (labels.as_bytes().as_ptr() as usize, nameless));
        let Some(address) = shared else { return self.group_by_texts(labels, nameless) };
        if let Some((last, group)) = self.last
            && last == address
        {
            return group;
        }
        let known = self.shared.get(&address).map(|(_, group)| *group);
        let group = known.unwrap_or_else(|| {
            let group = self.group_by_texts(labels, nameless);
            if self.shared.len() >= MOST_SHARED {
                self.shared.clear();
            }
            self.shared.insert(address, (labels.clone(), group));
            group
        });
        self.last = Some((address, group));
        group
    }

    fn group_by_texts(&mut self, labels: &Labels, nameless: bool) -> usize {
        self.key.clear();
        for (name, value) in labels {
            if self.tells_apart(name, nameless) {
                // No byte of UTF-8 is 0xff, so different labels give different keys.
                self.key.extend_from_slice(name.as_bytes());
                self.key.push(0xff);
                self.key.extend_from_slice(value.as_bytes());
                self.key.push(0xff);
            } else if !self.without && self.names.last().is_none_or(|last| name > last.as_str()) {
                break;
            }
        }
        if let Some(&index) = self.known.get(self.key.as_slice()) {
            return index;
        }
        let index = self.labels.len();
        self.known.insert(self.key.as_slice().into(), index);
        self.labels.push(labels.without(|name| !self.tells_apart(name, nameless)));
        index
    }

    /// Whether the label `name` tells groups apart.
    fn tells_apart(&self, name: &str, nameless: bool) -> bool {
        if nameless && is_metadata(name) || self.without && !self.by_name && name == METRIC_NAME {
            return false;
        }
        self.names.iter().any(|n| n == name) != self.without
    }
}
