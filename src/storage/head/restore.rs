//! Filling a head from the WAL.
//!
//! Each generation of the WAL numbers series and groups in its own way; they are mapped to those of
//! this head. Series that shared a group share one again, unless they have a target, which decides.

use super::Head;
use super::generation::{Generation, Rows};
use super::index::MAX_SERIES;
use super::scrape_groups::{Home, Together};
use larum_storage_format::wal::Contents;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Puts what the WAL says into a head that nobody else has yet.
pub(super) struct Restore<'a> {
    head: &'a Head,
    active: Arc<Generation>,
    /// The generation whose numbers these are.
    generation: u64,
    /// Ref in the head and place, by ref in the WAL.
    series: Vec<Option<(u32, Home)>>,
    /// Group in the head, by group in the WAL.
    groups: HashMap<u32, u32>,
    refs: Vec<u32>,
    homes: Vec<Home>,
    /// Samples of series whose declaration was lost.
    pub lost: u64,
}

impl<'a> Restore<'a> {
    pub fn new(head: &'a Head) -> Restore<'a> {
        Restore {
            head,
            active: head.active(),
            generation: 0,
            series: Vec::new(),
            groups: HashMap::new(),
            refs: Vec::new(),
            homes: Vec::new(),
            lost: 0,
        }
    }

    pub fn put(&mut self, generation: u64, contents: &mut Contents) {
        if generation != self.generation {
            self.generation = generation;
            self.series.clear();
            self.groups.clear();
        }
        if !contents.series.is_empty() {
            self.declare(contents);
        }
        self.refs.clear();
        self.homes.clear();
        for series in &contents.refs {
            // A ref that nobody can have declared stands for a lost one.
            let known = self.series.get(*series as usize).copied().flatten();
            self.refs.push(known.map_or(u32::MAX, |(series, _)| series));
            self.homes.push(known.map_or(Home::default(), |(_, home)| home));
        }
        if self.refs.contains(&u32::MAX) {
            self.drop_lost(contents);
        }
        self.active.put(&Rows {
            refs: &self.refs,
            homes: &self.homes,
            timestamps: &contents.timestamps,
            values: &contents.values,
            histograms: &contents.histograms,
            start_timestamps: &contents.start_timestamps,
        });
    }

    fn declare(&mut self, contents: &Contents) {
        let mut index = self.head.index_mut();
        let mut lookup = self.head.lookup_mut();
        for declared in &contents.series {
            let together = Together::With(self.groups.get(&declared.group).copied());
            let found = index.find_or_create(declared.id, &declared.labels, together);
            let (series, is_new) = match found {
                Ok(found) if declared.series < MAX_SERIES => found,
                _ => {
                    tracing::warn!(labels = %declared.labels, "the WAL declares a series that cannot be");
                    continue;
                }
            };
            let home = index.home(series);
            if is_new {
                lookup.add(series, home);
                self.head.counters.series_created.fetch_add(1, Relaxed);
            }
            self.groups.entry(declared.group).or_insert(home.group());
            let at = declared.series as usize;
            if self.series.len() <= at {
                self.series.resize(at + 1, None);
            }
            self.series[at] = Some((series, home));
        }
        self.active.grow(index.ref_count(), index.group_count());
    }

    /// Takes samples out whose series is not known.
    fn drop_lost(&mut self, contents: &mut Contents) {
        let keep: Vec<bool> = self.refs.iter().map(|&series| series != u32::MAX).collect();
        self.lost += keep.iter().filter(|&&keep| !keep).count() as u64;
        // From positions among all samples to positions among those that stay.
        let mut next = 0;
        let moved: Vec<u32> = keep
            .iter()
            .map(|&keep| {
                next += u32::from(keep);
                next - u32::from(keep)
            })
            .collect();
        retain(&mut self.refs, &keep);
        retain(&mut self.homes, &keep);
        retain(&mut contents.timestamps, &keep);
        retain(&mut contents.values, &keep);
        contents.histograms.retain(|(at, _)| keep[*at as usize]);
        contents.histograms.iter_mut().for_each(|(at, _)| *at = moved[*at as usize]);
        contents.start_timestamps.retain(|(at, _)| keep[*at as usize]);
        contents.start_timestamps.iter_mut().for_each(|(at, _)| *at = moved[*at as usize]);
    }

    pub fn report(&self) {
        if self.lost > 0 {
            tracing::warn!(
                samples = self.lost,
                "samples in the WAL whose series was declared in a damaged frame are lost"
            );
        }
    }
}

fn retain<T>(column: &mut Vec<T>, keep: &[bool]) {
    let mut keep = keep.iter();
    column.retain(|_| keep.next().copied().unwrap_or(false));
}
