//! The series in memory: identities, labels as numbers of interned pairs, and postings.
//!
//! Refs, pairs and places in groups that became free are given to new series again, a ref and its
//! place only after the next switch of generations: until then the old generation may still have
//! samples there.
//!
//! Postings are not kept as runs, which would take 5 MB in place of 14 for 400,000 series: with them a
//! new series in the place of one that left took ten times as long (4.5 us for eight labels), and so did
//! the union of thousands of values, both of which happen all the time where pods come and go.

mod among;
mod matching;
mod status;
mod values;

pub(super) use among::PairsAmong;
pub(super) use matching::Shared;

use super::lookup::{grow_by_an_eighth, truncate};
use super::pair_lists::PairLists;
use super::ref_table::{MAX_REFS, RefTable};
use super::scrape_groups::{Home, ScrapeGroups, Together};
use crate::storage::policy::{Policies, PolicySets};
use larum_storage_format::{Labels, SeriesId};
use roaring::RoaringBitmap;
use std::collections::HashMap;
use std::sync::Arc;
use values::Values;

/// So many series can be told apart, which is more than memory holds. A start believes no ref of the
/// WAL beyond, as it keeps a vector of them.
pub(super) const MAX_SERIES: u32 = MAX_REFS;

/// What a series takes in columns, tables and postings, and what a label takes besides its text:
/// measured, see `tests/allocations.rs`.
const SERIES_BYTES: usize = 120;
const PAIR_BYTES: usize = 240;

type FastMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// One label, name and value, and the series that have it.
struct Pair {
    name: u32,
    value: Arc<str>,
    postings: RoaringBitmap,
}

/// One label name and its values.
struct Name {
    text: Arc<str>,
    values: Values,
}

/// All series of a head.
#[derive(Default)]
pub(super) struct Index {
    ids: Vec<SeriesId>,
    by_id: RefTable,
    /// The pairs of each series in the order of its labels; none if the ref is free.
    pairs_of: PairLists,
    homes: Vec<Home>,
    /// Up to when a released generation had samples of the series, in milliseconds.
    last_seen_ms: Vec<i64>,
    names: Vec<Name>,
    name_numbers: FastMap<Arc<str>, u32>,
    pairs: Vec<Pair>,
    all: RoaringBitmap,
    groups: ScrapeGroups,
    /// The policies in force, and which of them keeps which series.
    policies: Arc<Policies>,
    kept_by: Arc<PolicySets>,
    free_pairs: Vec<u32>,
    free_names: Vec<u32>,
    free_refs: Vec<u32>,
    /// Free from the next switch on.
    retired: Vec<u32>,
    /// See [`Index::forgotten`].
    forgotten: u64,
    /// Bytes of all names and values.
    text_bytes: usize,
    /// The pairs of the series created last; the next one mostly shares many of them.
    previous: Vec<u32>,
}

/// A series could not be created.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotCreated {
    /// Another label set has the identity.
    IdentityTaken,
    /// There are as many series or groups as can be told apart.
    Full,
}

impl Index {
    /// How many series there are.
    pub fn len(&self) -> u64 {
        self.all.len()
    }

    /// About how much memory the series take, with what finds them by the labels as they are sent; but
    /// not their samples.
    pub fn len_bytes(&self) -> u64 {
        (self.ids.len() * SERIES_BYTES + self.pairs.len() * PAIR_BYTES + self.text_bytes) as u64
    }

    /// Refs are below this.
    pub fn ref_count(&self) -> usize {
        self.ids.len()
    }

    /// Groups are below this.
    pub fn group_count(&self) -> usize {
        self.groups.len()
    }

    /// The series of this identity, if its labels are these.
    pub fn find(&self, id: SeriesId, labels: &Labels) -> Result<Option<u32>, NotCreated> {
        match self.by_id.find(table_hash(id), |series| self.ids[series as usize] == id) {
            Some(series) if self.pairs(series).eq(labels.iter()) => Ok(Some(series)),
            Some(_) => Err(NotCreated::IdentityTaken),
            None => Ok(None),
        }
    }

    /// The series with these labels, created if it is not there, and whether it was.
    pub fn find_or_create(
        &mut self,
        id: SeriesId,
        labels: &Labels,
        together: Together,
    ) -> Result<(u32, bool), NotCreated> {
        if let Some(series) = self.find(id, labels)? {
            return Ok((series, false));
        }
        let mut pairs = std::mem::take(&mut self.previous);
        let mut count = 0;
        for (i, (name, value)) in labels.iter().enumerate() {
            count = i + 1;
            let same = pairs.get(i).copied().filter(|&pair| self.pair(pair) == (name, value));
            let pair = same.unwrap_or_else(|| self.intern(name, value));
            match pairs.get_mut(i) {
                Some(known) => *known = pair,
                None => pairs.push(pair),
            }
        }
        pairs.truncate(count);
        let created = self.create(id, &pairs, together);
        match created {
            Ok(series) => self.keep(series, labels),
            // Who cannot be kept must not leave names and values behind.
            Err(_) => pairs.drain(..).for_each(|pair| self.forget_if_unused(pair)),
        }
        self.previous = pairs;
        Ok((created?, true))
    }

    /// Forgets a pair that no series has any more, and its name with the last of its values.
    fn forget_if_unused(&mut self, pair: u32) {
        let Pair { name, value, postings } = &mut self.pairs[pair as usize];
        let Name { text, values } = &mut self.names[*name as usize];
        if !postings.is_empty() || !values.remove(value) {
            return;
        }
        self.text_bytes -= value.len();
        (*value, *postings) = (Arc::default(), RoaringBitmap::new());
        self.forgotten += 1;
        if values.is_empty() {
            self.name_numbers.remove(text);
            self.free_names.push(*name);
        }
        self.free_pairs.push(pair);
    }

    fn create(&mut self, id: SeriesId, pairs: &[u32], together: Together) -> Result<u32, NotCreated> {
        let job = pairs.iter().find(|&&pair| self.pair(pair).0 == "job");
        let instance = pairs.iter().find(|&&pair| self.pair(pair).0 == "instance");
        let target = job.copied().zip(instance.copied());
        let home = self.groups.assign(target, together).ok_or(NotCreated::Full)?;
        let series = match self.free_refs.pop() {
            Some(series) => series,
            None if self.ids.len() < MAX_SERIES as usize => {
                grow_by_an_eighth(&mut self.ids);
                grow_by_an_eighth(&mut self.homes);
                grow_by_an_eighth(&mut self.last_seen_ms);
                self.ids.push(id);
                self.homes.push(home);
                self.last_seen_ms.push(i64::MIN);
                (self.ids.len() - 1) as u32
            }
            None => {
                self.groups.release(home);
                return Err(NotCreated::Full);
            }
        };
        let at = series as usize;
        self.ids[at] = id;
        self.homes[at] = home;
        self.last_seen_ms[at] = i64::MIN;
        self.pairs_of.set(series, pairs);
        let ids = &self.ids;
        self.by_id.insert(table_hash(id), series, |series| table_hash(ids[series as usize]));
        self.all.insert(series);
        for &pair in pairs {
            self.pairs[pair as usize].postings.insert(series);
        }
        Ok(series)
    }

    /// Notes which policy keeps a new series.
    fn keep(&mut self, series: u32, labels: &Labels) {
        if !self.policies.list().is_empty() {
            Arc::make_mut(&mut self.kept_by).insert(self.policies.policy_of(labels), series);
        }
    }

    /// Other policies are in force. Matches them against all series.
    pub fn set_policies(&mut self, policies: &Arc<Policies>) {
        self.policies = policies.clone();
        self.kept_by = Arc::new(PolicySets::of(policies));
        for series in self.all.clone() {
            self.keep(series, &self.labels(series));
        }
    }

    /// Which policy keeps which series; `None` if other policies are in force.
    pub fn policy_sets(&self, policies: &Arc<Policies>) -> Option<&Arc<PolicySets>> {
        Arc::ptr_eq(&self.policies, policies).then_some(&self.kept_by)
    }

    /// The policy that keeps a series.
    pub fn policy_of(&self, series: u32, policies: &Arc<Policies>) -> usize {
        match self.policy_sets(policies) {
            Some(sets) => sets.policy_of(series),
            None => policies.policy_of(&self.labels(series)),
        }
    }

    /// How often a pair was forgotten: while this stays, a number stands for the same pair.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// The numbers of the pairs of a series, in order of the names.
    pub fn pair_numbers(&self, series: u32) -> impl Iterator<Item = u32> {
        self.pairs_of.get(series)
    }

    /// Name and value of the pair with this number.
    pub fn pair(&self, pair: u32) -> (&str, &str) {
        let Pair { name, value, .. } = &self.pairs[pair as usize];
        (&self.names[*name as usize].text, value)
    }

    fn pairs(&self, series: u32) -> impl Iterator<Item = (&str, &str)> {
        self.pairs_of.get(series).map(|pair| self.pair(pair))
    }

    fn intern(&mut self, name: &str, value: &str) -> u32 {
        let number = match self.name_numbers.get(name) {
            Some(&number) => number,
            None => {
                let text: Arc<str> = name.into();
                let entry = Name { text: text.clone(), values: Values::default() };
                let number = put(&mut self.names, &mut self.free_names, entry);
                self.name_numbers.insert(text, number);
                number
            }
        };
        let values = &mut self.names[number as usize].values;
        if let Some(pair) = values.get(value) {
            return pair;
        }
        self.text_bytes += value.len();
        let value: Arc<str> = value.into();
        let entry = Pair { name: number, value: value.clone(), postings: RoaringBitmap::new() };
        let pair = put(&mut self.pairs, &mut self.free_pairs, entry);
        values.insert(value, pair);
        pair
    }

    /// The identity of a series.
    pub fn id(&self, series: u32) -> SeriesId {
        self.ids[series as usize]
    }

    /// The place of a series.
    pub fn home(&self, series: u32) -> Home {
        self.homes[series as usize]
    }

    /// The labels of a series; none if it has left.
    pub fn labels(&self, series: u32) -> Labels {
        Labels::from_pairs(self.pairs(series)).unwrap_or_default()
    }

    /// Notes that a released generation held samples of the series up to `t_ms`.
    pub fn seen(&mut self, series: u32, t_ms: i64) {
        let last = &mut self.last_seen_ms[series as usize];
        *last = t_ms.max(*last);
    }

    /// Up to `most` series, from `from` on, that no released generation has seen since `border_ms`.
    pub fn silent_since(&self, border_ms: i64, from: u32, most: usize) -> Vec<u32> {
        let mut all = self.all.iter();
        all.advance_to(from);
        all.filter(|&series| self.last_seen_ms[series as usize] < border_ms).take(most).collect()
    }

    /// Removes series. Their refs and places are free after the next switch.
    pub fn remove(&mut self, gone: &[u32]) {
        for &series in gone {
            let at = series as usize;
            let ids = &self.ids;
            self.by_id.remove(table_hash(ids[at]), series, |series| table_hash(ids[series as usize]));
            self.all.remove(series);
            if !self.policies.list().is_empty() {
                Arc::make_mut(&mut self.kept_by).remove(series);
            }
            let pairs: Vec<u32> = self.pairs_of.get(series).collect();
            for pair in pairs {
                self.pairs[pair as usize].postings.remove(series);
                self.forget_if_unused(pair);
            }
            self.pairs_of.set(series, &[]);
        }
        self.names.iter_mut().for_each(|name| name.values.shrink_if_sparse());
        self.retired.extend_from_slice(gone);
        self.previous.clear();
        let pairs = &self.pairs;
        let is_gone = |pair: u32| pairs[pair as usize].postings.is_empty();
        self.groups.forget_targets(|(job, instance)| is_gone(job) || is_gone(instance));
    }

    /// Makes refs and places free that were given up before; at a switch of generations. Free refs
    /// at the end are given up for good, the lowest of the others are used again first.
    pub fn reuse_retired(&mut self) {
        for series in std::mem::take(&mut self.retired) {
            self.groups.release(self.homes[series as usize]);
            self.free_refs.push(series);
        }
        self.free_refs.sort_unstable_by(|a, b| b.cmp(a));
        let last = self.ids.len().wrapping_sub(1);
        let at_end = self.free_refs.iter().enumerate();
        let at_end = at_end.take_while(|&(i, &series)| series as usize == last.wrapping_sub(i)).count();
        self.free_refs.drain(..at_end);
        let left = self.ids.len() - at_end;
        truncate(&mut self.ids, left);
        truncate(&mut self.homes, left);
        truncate(&mut self.last_seen_ms, left);
        self.pairs_of.truncate(left);
        let ids = &self.ids;
        self.by_id.shrink_if_sparse(|series| table_hash(ids[series as usize]));
    }
}

/// Gives most of a map's memory back if most of its entries are gone.
fn shrink_if_sparse<K: Eq + std::hash::Hash, V>(map: &mut FastMap<K, V>) {
    if map.len() < map.capacity() / 8 {
        map.shrink_to_fit();
    }
}

/// Puts an entry where one is free, else at the end, and tells where.
fn put<T>(entries: &mut Vec<T>, free: &mut Vec<u32>, entry: T) -> u32 {
    if let Some(at) = free.pop() {
        entries[at as usize] = entry;
        return at;
    }
    entries.push(entry);
    (entries.len() - 1) as u32
}

/// The low bits are uniform; the high ones tell the metric.
fn table_hash(id: SeriesId) -> u64 {
    id.0 as u64
}

impl Index {
    fn find_pair(&self, name: &str, value: &str) -> Option<&Pair> {
        let pair = self.values_of(name)?.get(value)?;
        Some(&self.pairs[pair as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::matcher::{MatchOp, Matcher};
    use larum_storage_format::IdentitySeed;
    use std::sync::RwLock;

    fn labels(name: &str, instance: &str, extra: &[(&str, &str)]) -> Labels {
        let pairs = [("__name__", name), ("instance", instance), ("job", "j")];
        Labels::from_pairs(pairs.iter().chain(extra).copied()).unwrap()
    }

    fn add(index: &mut Index, labels: &Labels) -> u32 {
        let id = SeriesId::of(labels, IdentitySeed(1));
        index.find_or_create(id, labels, Together::At(0)).unwrap().0
    }

    #[test]
    fn series_are_found_by_identity_and_by_labels() {
        let mut index = Index::default();
        let sets: Vec<Labels> = (0..40)
            .map(|i| labels(["up", "down"][i % 2], &format!("i{}", i / 4), &[("n", &i.to_string())]))
            .collect();
        let refs: Vec<u32> = sets.iter().map(|set| add(&mut index, set)).collect();
        for (set, &series) in sets.iter().zip(&refs) {
            assert_eq!(add(&mut index, set), series);
            assert_eq!(&index.labels(series), set);
        }
        let matchers = [
            Matcher::equal("__name__", "up"),
            Matcher::new(MatchOp::NotEqual, "instance", "i0").unwrap(),
            Matcher::new(MatchOp::Regex, "missing", ".*").unwrap(),
        ];
        let index = RwLock::new(index);
        let shared = Shared(&index);
        let found = shared.select(&matchers);
        let expected: Vec<u32> = refs
            .iter()
            .zip(&sets)
            .filter(|(_, set)| set.metric_name() == Some("up") && set.get("instance") != Some("i0"))
            .map(|(&series, _)| series)
            .collect();
        assert_eq!(found.iter().collect::<Vec<_>>(), expected);
        assert_eq!(shared.label_values("__name__", &found), ["up"]);
        assert_eq!(shared.label_names(&found).len(), 4);
        let index = index.into_inner().unwrap();
        assert_eq!(index.home(refs[0]).group(), index.home(refs[3]).group());
        assert_ne!(index.home(refs[0]).group(), index.home(refs[4]).group());
    }

    #[test]
    fn another_label_set_with_the_same_identity_is_refused() {
        let mut index = Index::default();
        let (a, b) = (labels("a", "i", &[]), labels("b", "i", &[]));
        index.find_or_create(SeriesId(7), &a, Together::At(0)).unwrap();
        let refused = index.find_or_create(SeriesId(7), &b, Together::At(0));
        assert_eq!(refused, Err(NotCreated::IdentityTaken));
    }

    #[test]
    fn names_and_groups_do_not_add_up_when_series_come_and_go() {
        let mut index = Index::default();
        let stays = add(&mut index, &labels("up", "i", &[]));
        for round in 0..50 {
            let mut more = |n: usize| {
                let text = format!("r{round}n{n}");
                let own = labels("up", &text, &[(text.as_str(), "x")]);
                let lone = Labels::from_pairs([("__name__", "lone"), (text.as_str(), "y")]).unwrap();
                [add(&mut index, &own), add(&mut index, &lone)]
            };
            let mut gone: Vec<u32> = (0..3).flat_map(&mut more).collect();
            gone.sort_unstable();
            index.remove(&gone);
            index.reuse_retired();
        }
        let Index { names, pairs, groups, ids, .. } = &index;
        assert!(ids.len() <= 7 && names.len() <= 6 && pairs.len() <= 13 && groups.len() <= 5);
        assert_eq!(index.name_numbers.len(), 3);
        assert_eq!(index.labels(stays), labels("up", "i", &[]));
    }

    #[test]
    fn a_removed_series_leaves_nothing_behind_and_its_ref_is_used_again_after_a_switch() {
        let mut index = Index::default();
        let (a, b) = (labels("a", "i", &[]), labels("b", "i", &[]));
        let gone = add(&mut index, &a);
        index.remove(&[gone]);
        assert_eq!((index.len(), index.labels(gone)), (0, Labels::empty()));
        assert!(index.find_pair("__name__", "a").is_none());
        assert_ne!(add(&mut index, &b), gone);
        index.reuse_retired();
        assert_eq!(add(&mut index, &a), gone);
        assert_eq!(index.labels(gone), a);
    }
}
