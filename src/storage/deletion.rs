//! Deleting samples: tombstones beside partitions, committed together.

use super::catalog::{Catalog, Change, Live};
use super::cutter::TIMESTAMPS_KEPT;
use super::engine::{Deleted, Inner};
use super::folder::Folder;
use super::fs::{Fs, replace_file};
use super::matcher::Matcher;
use super::part::Part;
use super::querier::Layer;
use super::series_set::Columns;
use super::time::TimeRange;
use larum_storage_format::SeriesId;
use larum_storage_format::manifest::LivePartition;
use larum_storage_format::tombstones::{Interval, Tombstones};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};

/// Deletes what matches any of the `sets` in `range`, and logs it.
///
/// Tombstones exist only beside partitions, so the head is cut first if it holds matches. What is
/// acknowledged while the deletion runs is kept: the partitions it touches are those of one moment.
/// They are read without the lock of the catalog, so that cuts need not wait; a merge that is done
/// meanwhile waits before it is committed.
pub(crate) fn delete(inner: &Inner, sets: &[Vec<Matcher>], range: TimeRange) -> io::Result<Deleted> {
    if range.is_empty() || sets.is_empty() {
        return Ok(Deleted::default());
    }
    let outcome = delete_found(inner, sets, range);
    let (matchers, TimeRange { min_ms, max_ms }) = (in_words(sets), range);
    match &outcome {
        Ok(Deleted { series, samples, bytes }) => {
            inner.counters.deletions.fetch_add(u64::from(*samples > 0), Relaxed);
            inner.counters.deleted_samples.fetch_add(*samples, Relaxed);
            tracing::info!(matchers, min_ms, max_ms, series, samples, bytes, "samples were deleted");
        }
        Err(error) => tracing::warn!(matchers, min_ms, max_ms, %error, "a deletion failed"),
    }
    outcome
}

fn delete_found(inner: &Inner, sets: &[Vec<Matcher>], range: TimeRange) -> io::Result<Deleted> {
    let in_head = inner.head.generations().iter().any(|generation| {
        generation.time_range().is_some_and(|own| own.overlaps(&range))
            && sets.iter().any(|matchers| !generation.matching(matchers).is_empty())
    });
    if in_head {
        inner.cut_all()?;
    }

    let _one_at_a_time = inner.deleting.lock().unwrap_or_else(PoisonError::into_inner);
    inner.check_held()?;
    let partitions = partitions_in(&inner.folder, &inner.catalog(), range)?;
    let mut found = Found::new(inner);
    let mut new = Vec::new();
    for p in &partitions {
        new.extend(found.in_partition(p, sets, range)?.map(Arc::new));
    }
    if !new.is_empty() {
        let _change = inner.head.touched().range(range);
        commit(inner, new)?;
    }
    Ok(found.deleted())
}

/// What [`delete`] would delete.
pub(crate) fn preview(inner: &Inner, sets: &[Vec<Matcher>], range: TimeRange) -> io::Result<Deleted> {
    let mut found = Found::new(inner);
    if range.is_empty() {
        return Ok(found.deleted());
    }
    // In this order, as what is cut in between would be missed the other way round.
    let mut generations = inner.head.generations();
    let wal_bytes = inner.head.wal_bytes();
    let partitions = {
        let catalog = inner.catalog();
        let first = catalog.manifest().first_generation;
        generations.retain(|generation| generation.number() >= first);
        partitions_in(&inner.folder, &catalog, range)?
    };
    for p in &partitions {
        found.in_partition(p, sets, range)?;
    }
    let appended: u64 = generations.iter().map(|generation| generation.appended()).sum();
    let before = found.samples;
    for generation in generations {
        found.in_layer(&Layer { part: generation, tombstones: None }, sets, range)?;
    }
    let share = u128::from(wal_bytes) * u128::from(found.samples - before) / u128::from(appended.max(1));
    found.bytes += share as u64;
    Ok(found.deleted())
}

/// The live partitions, unless there are others that may hold samples in the range: what is missing
/// cannot be deleted from, and would be live again once its file is back.
fn partitions_in(folder: &Folder, catalog: &Catalog, range: TimeRange) -> io::Result<Vec<Live>> {
    let lies_in = |p: &&LivePartition| TimeRange::new(p.min_ms, p.max_ms).overlaps(&range);
    let Some(missing) = catalog.missing().iter().find(lies_in) else { return Ok(catalog.live().to_vec()) };
    let (file, min_ms, max_ms) = (folder.partition(missing.number), missing.min_ms, missing.max_ms);
    let why = format!(
        "{}: this partition is missing, so nothing can be deleted between {min_ms} ms and {max_ms} ms; \
         put the file back and start again, or delete what is before and after",
        file.display()
    );
    Err(io::Error::new(io::ErrorKind::NotFound, why))
}

/// What a deletion found so far.
struct Found<'a> {
    inner: &'a Inner,
    series: BTreeSet<SeriesId>,
    samples: u64,
    bytes: u64,
}

impl Found<'_> {
    fn new(inner: &Inner) -> Found<'_> {
        Found { inner, series: BTreeSet::new(), samples: 0, bytes: 0 }
    }

    /// Looks into a partition, and gives the tombstones it needs, the old ones included; `None` if
    /// there is nothing to delete.
    fn in_partition(
        &mut self,
        p: &Live,
        sets: &[Vec<Matcher>],
        range: TimeRange,
    ) -> io::Result<Option<Tombstones>> {
        let series = self.in_layer(&p.layer(), sets, range)?;
        if series.is_empty() {
            return Ok(None);
        }
        let new = Interval { min_ms: range.min_ms, max_ms: range.max_ms };
        let mut deleted: Vec<_> = p.tombstones.iter().flat_map(|old| old.each()).collect();
        deleted.extend(series.iter().map(|&id| (id, new)));
        let tombstones = Tombstones::new(p.meta.number, p.meta.tombstones.unwrap_or(0) + 1, deleted);
        let bytes_of = |tombstones: &Tombstones| {
            p.partition.deleted_bytes(series.iter().map(|&id| (id, tombstones.of(id))))
        };
        let before = p.tombstones.as_deref().map_or(0, bytes_of);
        self.bytes += bytes_of(&tombstones).saturating_sub(before);
        Ok(Some(tombstones))
    }

    /// Counts the samples in the range of the series that match, and gives those that have any. Ends
    /// with an error when the storage is closed.
    fn in_layer(
        &mut self,
        layer: &Layer,
        sets: &[Vec<Matcher>],
        range: TimeRange,
    ) -> io::Result<Vec<SeriesId>> {
        if !layer.part.time_range().is_some_and(|own| own.overlaps(&range)) {
            return Ok(Vec::new());
        }
        let mut matching: BTreeMap<u32, SeriesId> = BTreeMap::new();
        for matchers in sets {
            // What cannot be found cannot be deleted, and must not seem to be.
            let selected = layer.part.select(matchers).map_err(io::Error::other)?;
            matching.extend(selected.into_iter().map(|(id, ordinal)| (ordinal, id)));
        }
        let mut columns = Columns::default();
        let mut found = Vec::new();
        for (ordinal, id) in matching {
            // Who closes the storage waits for this.
            self.inner.check_open()?;
            let deleted = layer.tombstones.as_ref().map_or(&[][..], |tombstones| tombstones.of(id));
            // Nor can that of which it is unknown whether it lies in the range.
            let samples = layer.part.count_left(ordinal, deleted, range, &mut columns);
            let samples = samples.map_err(io::Error::other)?;
            columns.forget_beyond(TIMESTAMPS_KEPT);
            if samples > 0 {
                self.samples += samples;
                found.push(id);
            }
        }
        self.series.extend(&found);
        Ok(found)
    }

    fn deleted(&self) -> Deleted {
        Deleted { series: self.series.len() as u64, samples: self.samples, bytes: self.bytes }
    }
}

/// The sets as PromQL writes selectors.
fn in_words(sets: &[Vec<Matcher>]) -> String {
    let one = |matchers: &Vec<Matcher>| {
        let matchers: Vec<String> = matchers.iter().map(Matcher::to_string).collect();
        format!("{{{}}}", matchers.join(","))
    };
    sets.iter().map(one).collect::<Vec<_>>().join(" or ")
}

/// Writes tombstones and puts them in force. Called with the lock for deletions.
fn commit(inner: &Inner, new: Vec<Arc<Tombstones>>) -> io::Result<()> {
    let path = |t: &Tombstones, number| inner.folder.tombstones(t.partition, number);
    for tombstones in &new {
        replace_file(&*inner.fs, &path(tombstones, tombstones.number), &tombstones.encode())?;
    }
    let mut catalog = inner.catalog();
    let is_live = |t: &Tombstones| catalog.get(t.partition).is_some();
    // Of a partition that expired meanwhile, the new file is of no use.
    let useless = |t: &Arc<Tombstones>| match is_live(t) {
        true => t.number.checked_sub(1).filter(|&n| n > 0).map(|n| path(t, n)),
        false => Some(path(t, t.number)),
    };
    let useless: Vec<PathBuf> = new.iter().filter_map(useless).collect();
    catalog.commit(&*inner.fs, &inner.folder, Change { tombstones: new, ..Change::default() })?;
    inner.publish(&catalog);
    drop(catalog);
    for path in useless {
        if let Err(error) = inner.fs.remove(&path) {
            tracing::warn!(%error, "tombstones that are no longer needed cannot be removed");
        }
    }
    Ok(())
}

/// Writes the tombstones of a live partition again, whose file is damaged. Called with the lock for
/// deletions.
pub(crate) fn write_anew(inner: &Inner, old: &Tombstones) -> io::Result<()> {
    let mut new = old.clone();
    new.number += 1;
    commit(inner, vec![Arc::new(new)])
}

/// Writes tombstones beside the `output` of a merge for what was deleted from its inputs while they
/// were merged: `before` is how they were, `now` how they are, one for one.
///
/// Each deletion hits all partitions that overlap it, so what it took from one input it took from
/// the others too, and nothing that came later is in the output: the intervals that are new in any
/// input hold for the output as a whole. Those that are old do not, since an input that is newer
/// than them may have samples there.
pub(crate) fn pass_on(
    fs: &dyn Fs,
    folder: &Folder,
    before: &[Live],
    now: &[&Live],
    output: &mut Live,
) -> io::Result<()> {
    let mut deleted = Vec::new();
    for (before, now) in before.iter().zip(now).filter(|(before, now)| before.meta != now.meta) {
        for (id, intervals) in now.tombstones.iter().flat_map(|t| t.iter()) {
            if output.partition.has(id) {
                let old = before.tombstones.as_ref().map_or(&[][..], |t| t.of(id));
                deleted.extend(new_in(intervals, old).map(|interval| (id, interval)));
            }
        }
    }
    let tombstones = Tombstones::new(output.meta.number, 1, deleted);
    if !tombstones.is_empty() {
        replace_file(fs, &folder.tombstones(output.meta.number, 1), &tombstones.encode())?;
        output.meta.tombstones = Some(1);
        output.tombstones = Some(Arc::new(tombstones));
    }
    Ok(())
}

/// What `intervals` hold beyond the `old` ones, all of which they hold. Both are sorted and disjoint.
fn new_in<'a>(intervals: &'a [Interval], old: &'a [Interval]) -> impl Iterator<Item = Interval> + 'a {
    intervals.iter().flat_map(move |whole| {
        let inside = old.iter().filter(|old| whole.min_ms <= old.min_ms && old.max_ms <= whole.max_ms);
        // A gap ends before each old interval and at the end of the whole.
        let ends = inside.clone().map(|old| old.min_ms.checked_sub(1)).chain([Some(whole.max_ms)]);
        let starts = [Some(whole.min_ms)].into_iter().chain(inside.map(|old| old.max_ms.checked_add(1)));
        let gaps =
            starts.zip(ends).filter_map(|(start, end)| Some(Interval { min_ms: start?, max_ms: end? }));
        gaps.filter(|gap| gap.min_ms <= gap.max_ms)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_in_intervals_is_what_the_old_ones_lack() {
        let intervals = |pairs: &[(i64, i64)]| {
            pairs.iter().map(|&(min_ms, max_ms)| Interval { min_ms, max_ms }).collect::<Vec<_>>()
        };
        for (now, old, new) in [
            (vec![(0, 9)], vec![], vec![(0, 9)]),
            (vec![(0, 9)], vec![(0, 9)], vec![]),
            (
                vec![(0, 9), (20, 30)],
                vec![(3, 4), (6, 9), (25, 25)],
                vec![(0, 2), (5, 5), (20, 24), (26, 30)],
            ),
            (vec![(i64::MIN, i64::MAX)], vec![(i64::MIN, 0)], vec![(1, i64::MAX)]),
            (vec![(i64::MIN, i64::MAX)], vec![(i64::MIN, i64::MAX)], vec![]),
        ] {
            let found: Vec<Interval> = new_in(&intervals(&now), &intervals(&old)).collect();
            assert_eq!(found, intervals(&new), "{now:?} less {old:?}");
        }
    }
}
