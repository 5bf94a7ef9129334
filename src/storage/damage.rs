//! What is known to be damaged in a partition, and what that costs.
//!
//! Queries find damage where they read, the scrub everywhere. Either notes it with the partition, so
//! that the log tells of it once, the figures show it until the partition is replaced, and the
//! background writes anew what can be saved before the file is unreadable as a whole.

use super::partition::Partition;
use super::partition::pieces::DamagedExtents;
use super::time::TimeRange;
use larum_storage_format::DecodeError;
use larum_storage_format::partition::{Chunk, PartitionHeader};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// So many series are named that damage costs.
const NAMED_MAX: usize = 3;

/// So many damaged places of a partition are remembered and logged.
const PLACES_MAX: usize = 32;

/// What damage costs, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loss {
    /// What becomes of it, in words.
    pub what: &'static str,
    /// How many series it concerns.
    pub series: Option<u64>,
    /// The first of them.
    pub named: Vec<String>,
    /// How many samples.
    pub samples: Option<u64>,
    /// Between which times the samples lie.
    pub range: Option<TimeRange>,
}

/// A damaged place of a partition that is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// Where in it, in bytes from its start.
    pub offset: u64,
    /// How many bytes are, as far as that is known.
    pub bytes: u64,
    /// What is wrong.
    pub what: String,
    /// What it costs.
    pub loss: Loss,
}

impl Damage {
    /// A damaged place.
    pub(crate) fn new(path: &Path, range: Range<u64>, what: String, loss: Loss) -> Damage {
        Damage { path: path.to_owned(), offset: range.start, bytes: range.end - range.start, what, loss }
    }

    fn overlaps(&self, other: &Damage) -> bool {
        self.offset < other.offset + other.bytes && other.offset < self.offset + self.bytes
    }
}

/// What a damaged place is a part of, and so what is done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Chunks are left out, until the next merge of the partition leaves them behind.
    Data,
    /// The partition is written anew soon: what is left of it can be told now, but not after the next
    /// damage, or not after the next start.
    Vital,
    /// The same, but the device cannot read it: nothing is done before somebody has looked at that.
    Unreadable,
}

/// The damage that is known of a partition.
#[derive(Debug, Default)]
pub(crate) struct Damages(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    places: Vec<Damage>,
    is_vital: bool,
}

impl Damages {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a damaged place, and logs it if nobody knew. Who comes later may know more of it.
    pub fn note(&self, damage: Damage, kind: Kind) {
        let mut known = self.known();
        if let Some(place) = known.places.iter_mut().find(|place| place.overlaps(&damage)) {
            if damage.bytes > place.bytes {
                *place = damage;
            }
            return;
        }
        known.is_vital |= kind == Kind::Vital;
        if known.places.len() == PLACES_MAX {
            return;
        }
        let Damage { path, offset, what, loss, .. } = &damage;
        let (series, samples) = (loss.series, loss.samples);
        let range = loss.range.unwrap_or(TimeRange::ALL);
        tracing::error!(
            file = %path.display(), offset, error = what, series, samples,
            min_ms = range.min_ms, max_ms = range.max_ms, costs = loss.what, "a partition is damaged"
        );
        known.places.push(damage);
    }

    /// The damaged places that are known.
    pub fn places(&self) -> Vec<Damage> {
        self.known().places.clone()
    }

    /// Whether any is known.
    pub fn is_any(&self) -> bool {
        !self.known().places.is_empty()
    }

    /// Whether the partition is to be written anew.
    pub fn is_vital(&self) -> bool {
        self.known().is_vital
    }
}

/// What a damaged index costs.
pub(crate) fn of_index(header: &PartitionHeader) -> Loss {
    Loss {
        what: "answers that need it leave the whole file out",
        series: Some(header.series_count.into()),
        samples: Some(header.sample_count),
        range: Some(TimeRange::new(header.min_ms, header.max_ms)),
        ..Loss::default()
    }
}

/// What damaged chunks cost, as long as they are not counted.
pub(crate) fn of_data(header: &PartitionHeader) -> Loss {
    let range = Some(TimeRange::new(header.min_ms, header.max_ms));
    Loss { what: "the samples of chunks there; the others are read", range, ..Loss::default() }
}

/// Counts what damaged extents of DATA cost, one for one. `hit` tells which of them a chunk needs;
/// `None` once `stop` says true.
///
/// # Errors
/// The index is damaged.
pub(crate) fn count(
    partition: &Partition,
    damaged: &[DamagedExtents],
    hit: impl Fn(&Chunk) -> Option<usize>,
    stop: impl Fn() -> bool,
) -> Result<Option<Vec<Loss>>, DecodeError> {
    let none = Loss { series: Some(0), samples: Some(0), range: None, ..of_data(partition.header()) };
    let mut found = vec![none; damaged.len()];
    let mut last = vec![None; damaged.len()];
    let file = partition.file();
    for series in 0..file.series_count() {
        if stop() {
            return Ok(None);
        }
        for chunk in file.chunks(series)? {
            let chunk = chunk?;
            if let Some(i) = hit(&chunk) {
                add(&mut found[i], partition, series, &chunk, last[i] != Some(series))?;
                last[i] = Some(series);
            }
        }
    }
    Ok(Some(found))
}

/// Adds a chunk that cannot be read.
fn add(
    loss: &mut Loss,
    partition: &Partition,
    series: u32,
    chunk: &Chunk,
    is_another: bool,
) -> Result<(), DecodeError> {
    let file = partition.file();
    if is_another {
        loss.series = loss.series.map(|n| n + 1);
        if loss.named.len() < NAMED_MAX {
            loss.named.push(file.labels(series)?.to_string());
        }
    }
    loss.samples = loss.samples.map(|n| n + u64::from(chunk.timestamps.len));
    let column = file.column(chunk.timestamps.column)?;
    let timestamps = file.slice_of(chunk, &column);
    if let (Some(&first), Some(&last)) = (timestamps.first(), timestamps.last()) {
        let own = TimeRange::new(first, last);
        loss.range =
            Some(loss.range.map_or(own, |range| {
                TimeRange::new(range.min_ms.min(own.min_ms), range.max_ms.max(own.max_ms))
            }));
    }
    Ok(())
}
