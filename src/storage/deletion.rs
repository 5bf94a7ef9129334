//! Deleting samples: tombstones beside partitions, committed together.

use super::catalog::{Change, Live};
use super::cutter::TIMESTAMPS_KEPT;
use super::engine::{Deleted, Inner};
use super::error::ReadError;
use super::folder::Folder;
use super::fs::{Fs, replace_file};
use super::matcher::Matcher;
use super::merge::merge;
use super::part::{Load, Part};
use super::series_set::Columns;
use super::time::TimeRange;
use larum_storage_format::SeriesId;
use larum_storage_format::tombstones::{Interval, Tombstones};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

/// Deletes what matches any of the `sets` in `range`.
///
/// Tombstones exist only beside partitions, so the head is cut first if it holds matches. What is
/// acknowledged while the deletion runs is kept: the partitions it touches are those of one moment.
/// They are read without the lock of the catalog, so that cuts need not wait; a merge that is done
/// meanwhile waits before it is committed.
pub(crate) fn delete(inner: &Inner, sets: &[Vec<Matcher>], range: TimeRange) -> io::Result<Deleted> {
    if range.is_empty() || sets.is_empty() {
        return Ok(Deleted::default());
    }
    let in_head = inner.head.generations().iter().any(|generation| {
        generation.time_range().is_some_and(|own| own.overlaps(&range))
            && sets.iter().any(|matchers| !generation.matching(matchers).is_empty())
    });
    if in_head {
        inner.cut_all()?;
    }

    let _one_at_a_time = inner.deleting.lock().unwrap_or_else(PoisonError::into_inner);
    inner.check_held()?;
    let overlapping = |p: &&Live| p.meta.min_ms <= range.max_ms && range.min_ms <= p.meta.max_ms;
    let partitions: Vec<Live> = inner.catalog().live().iter().filter(overlapping).cloned().collect();
    let mut series: BTreeSet<SeriesId> = BTreeSet::new();
    let mut deleted = Deleted::default();
    let mut new = Vec::new();
    for p in &partitions {
        // What cannot be found cannot be deleted, and must not seem to be.
        let found = samples_in(p, sets, range).map_err(io::Error::other)?;
        if found.is_empty() {
            continue;
        }
        let mut tombstones = Tombstones::new(p.meta.number, p.meta.tombstones.unwrap_or(0) + 1);
        for (id, intervals) in p.tombstones.iter().flat_map(|old| old.iter()) {
            intervals.iter().for_each(|&interval| tombstones.add(id, interval));
        }
        for (id, samples) in found {
            series.insert(id);
            deleted.samples += samples;
            tombstones.add(id, Interval { min_ms: range.min_ms, max_ms: range.max_ms });
        }
        new.push(Arc::new(tombstones));
    }
    deleted.series = series.len() as u64;
    if !new.is_empty() {
        commit(inner, new)?;
    }
    Ok(deleted)
}

/// How many samples each series that matches has in the range; those without are left out.
fn samples_in(p: &Live, sets: &[Vec<Matcher>], range: TimeRange) -> Result<Vec<(SeriesId, u64)>, ReadError> {
    let mut matching: BTreeMap<u32, SeriesId> = BTreeMap::new();
    for matchers in sets {
        matching.extend(p.partition.select(matchers)?.into_iter().map(|(id, ordinal)| (ordinal, id)));
    }
    let layer = p.layer();
    let mut columns = Columns::default();
    let count = |(ordinal, id): (u32, SeriesId)| {
        let mut load = Load::new(range, &mut columns);
        layer.load(id, ordinal, &mut load);
        let samples = merge(load.runs, &mut columns).len() as u64;
        columns.forget_beyond(TIMESTAMPS_KEPT);
        (id, samples)
    };
    Ok(matching.into_iter().map(count).filter(|&(_, samples)| samples > 0).collect())
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
    let mut tombstones = Tombstones::new(output.meta.number, 1);
    for (before, now) in before.iter().zip(now).filter(|(before, now)| before.meta != now.meta) {
        for (id, intervals) in now.tombstones.iter().flat_map(|t| t.iter()) {
            if output.partition.has(id) {
                let old = before.tombstones.as_ref().map_or(&[][..], |t| t.of(id));
                new_in(intervals, old).for_each(|interval| tombstones.add(id, interval));
            }
        }
    }
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
