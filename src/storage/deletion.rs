//! Deleting samples: tombstones beside partitions, committed together.

use super::catalog::Change;
use super::cutter::forget_beyond;
use super::engine::{Deleted, Inner};
use super::fs::replace_file;
use super::matcher::Matcher;
use super::merge::merge;
use super::part::{Load, Part};
use super::series_set::Columns;
use super::time::TimeRange;
use larum_storage_format::SeriesId;
use larum_storage_format::tombstones::{Interval, Tombstones};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

/// Deletes what matches any of the `sets` in `range`.
///
/// Tombstones exist only beside partitions, so the head is cut first if it holds matches. What is
/// acknowledged while the deletion runs is kept: the partitions it touches are those of one moment.
pub(crate) fn delete(inner: &Inner, sets: &[Vec<Matcher>], range: TimeRange) -> io::Result<Deleted> {
    if range.is_empty() || sets.is_empty() {
        return Ok(Deleted::default());
    }
    let in_head = inner.head.generations().iter().any(|generation| {
        generation.time_range().is_some_and(|own| own.overlaps(&range))
            && sets.iter().any(|matchers| !generation.select(matchers).is_empty())
    });
    if in_head {
        inner.cut_all()?;
    }

    let mut catalog = inner.catalog();
    inner.check_held()?;
    let mut series: BTreeSet<SeriesId> = BTreeSet::new();
    let mut samples = 0;
    let mut change = Change::default();
    let overlapping =
        |p: &&super::catalog::Live| p.meta.min_ms <= range.max_ms && range.min_ms <= p.meta.max_ms;
    for p in catalog.live().iter().filter(overlapping) {
        let number = p.meta.tombstones.unwrap_or(0) + 1;
        let mut tombstones = Tombstones::new(p.meta.number, number);
        for (id, intervals) in p.tombstones.iter().flat_map(|old| old.iter()) {
            intervals.iter().for_each(|&interval| tombstones.add(id, interval));
        }
        let matching: BTreeMap<u32, SeriesId> = sets
            .iter()
            .flat_map(|matchers| p.partition.select(matchers))
            .map(|(id, ordinal)| (ordinal, id))
            .collect();
        let layer = p.layer();
        let mut columns = Columns::default();
        let mut found = false;
        for (ordinal, id) in matching {
            let mut load = Load::new(range, &mut columns);
            layer.load(id, ordinal, &mut load);
            let count = merge(load.runs, &mut columns).len() as u64;
            forget_beyond(&mut columns);
            if count == 0 {
                continue;
            }
            found = true;
            series.insert(id);
            samples += count;
            tombstones.add(id, Interval { min_ms: range.min_ms, max_ms: range.max_ms });
        }
        if found {
            change.tombstones.push(Arc::new(tombstones));
        }
    }
    let replaced: Vec<_> = change
        .tombstones
        .iter()
        .filter(|t| t.number > 1)
        .map(|t| inner.folder.tombstones(t.partition, t.number - 1))
        .collect();
    for tombstones in &change.tombstones {
        let path = inner.folder.tombstones(tombstones.partition, tombstones.number);
        replace_file(&*inner.fs, &path, &tombstones.encode())?;
    }
    if !change.tombstones.is_empty() {
        catalog.commit(&*inner.fs, &inner.folder, change)?;
        inner.publish(&catalog);
    }
    drop(catalog);
    for path in replaced {
        if let Err(error) = inner.fs.remove(&path) {
            tracing::warn!(%error, "replaced tombstones cannot be removed");
        }
    }
    Ok(Deleted { series: series.len() as u64, samples })
}
