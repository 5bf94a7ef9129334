//! The disk on which the data folder lies: what is free there, and what is done while it fills.
//!
//! What is to be done is decided in [`ladder`], when the disk will be full is foretold in
//! [`forecast`]; the doing is here. It is looked at once a second in a thread of its own, as a cut may
//! take minutes.

mod forecast;
mod ladder;

pub use ladder::DiskState;

use super::engine::Inner;
use super::error::{AppendError, UnavailableCause};
use super::folder::Folder;
use super::fs::{Fs, Space};
use super::options::DiskOptions;
use super::part::Part;
use super::retention::Now;
use super::time::as_millis;
use super::{surplus, wal};
use forecast::Forecast;
use ladder::{RESERVE_BYTES, Situation, Step};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// When it is worth trying again while the disk is full.
const RETRY: Duration = Duration::from_secs(5);

/// After the system said that the disk is full, nothing is tried for so long, whatever else it says:
/// a quota may be used up where the file system has space.
const REFUSED_MS: i64 = 2_000;

/// So long what was removed may be read on, and its space is not missed: the time of a long query.
const PROMISED_MS: i64 = 120_000;

/// To look for what could be dropped takes asking about every file, which is not worth it every second
/// where there was nothing.
const NOTHING_MS: i64 = 10_000;

/// How the disk is doing.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DiskStatus {
    /// How much space there is.
    pub state: DiskState,
    /// What the file system can hold at all.
    pub capacity_bytes: u64,
    /// What of it is free.
    pub free_bytes: u64,
    /// With less, space is low: what shall stay free, or what a cut of the head and two segments of
    /// the WAL take, if that is more.
    pub low_below_bytes: u64,
    /// With less, samples are refused.
    pub read_only_below_bytes: u64,
    /// Seconds until samples are refused, by how the disk filled during the last day; infinite if it
    /// does not fill, or not enough is known yet.
    pub full_seconds: f64,
    /// What is kept for the last steps.
    pub reserve_bytes: u64,
    /// How much time is kept in any case; `None`: nothing is dropped for want of space.
    pub emergency_retention: Option<Duration>,
    /// Whether a merge waits for space.
    pub merge_waits: bool,
}

impl Default for DiskStatus {
    fn default() -> DiskStatus {
        DiskStatus {
            state: DiskState::Enough,
            capacity_bytes: 0,
            free_bytes: 0,
            low_below_bytes: 0,
            read_only_below_bytes: 0,
            full_seconds: f64::INFINITY,
            reserve_bytes: 0,
            emergency_retention: None,
            merge_waits: false,
        }
    }
}

/// What is known about the disk.
#[derive(Debug)]
pub(crate) struct Disk {
    options: DiskOptions,
    segment_bytes: u64,
    seen: Mutex<Seen>,
    /// Whether samples are refused.
    read_only: AtomicBool,
    /// Whether the WAL met a full disk since the last look.
    refused: AtomicBool,
    /// Bytes of WAL that belong to a frozen generation.
    frozen_bytes: AtomicU64,
    merge_waits: AtomicBool,
}

#[derive(Debug, Default)]
struct Seen {
    space: Space,
    situation: Situation,
    state: DiskState,
    forecast: Forecast,
    /// When somebody looked last.
    looked_ms: i64,
    /// Until when so many bytes will be free, by what was removed.
    promised: Option<(i64, u64)>,
    /// The merge that is under way.
    merge: Option<Merging>,
    /// Until when samples are refused since the system refused to write.
    refused_until_ms: i64,
    /// Until when nothing is looked for that could be dropped, as there was nothing.
    nothing_until_ms: i64,
}

impl Seen {
    /// So much was removed, beside what was before.
    fn promise(&mut self, freed_bytes: u64) {
        let before = self.promised.map_or(0, |(_, bytes)| bytes);
        let free_bytes = before.max(self.situation.free_bytes).saturating_add(freed_bytes);
        self.promised = Some((self.looked_ms.saturating_add(PROMISED_MS), free_bytes));
    }
}

/// What a merge that is under way will give back, at the latest with its inputs.
#[derive(Debug, Clone, Copy)]
struct Merging {
    /// What was free when it began.
    free_bytes: u64,
    /// What it takes at most.
    bytes: u64,
}

impl Merging {
    /// What of that it has taken by now, if so much is free.
    fn taken_bytes(&self, free_bytes: u64) -> u64 {
        self.free_bytes.saturating_sub(free_bytes).min(self.bytes)
    }
}

/// Counts what a merge takes as promised until it is dropped, and for the time of a long query: its
/// inputs may still be read.
#[derive(Debug)]
pub(crate) struct Room<'a>(&'a Disk);

impl Drop for Room<'_> {
    fn drop(&mut self) {
        let mut seen = self.0.seen();
        let Some(merge) = seen.merge.take() else { return };
        // An earlier promise is not prolonged, or merge after merge would keep it up for ever.
        let new = (seen.looked_ms.saturating_add(PROMISED_MS), merge.free_bytes);
        let (until_ms, bytes) = seen.promised.unwrap_or(new);
        seen.promised = Some((until_ms, bytes.max(merge.free_bytes)));
    }
}

impl Disk {
    /// Nothing is known yet but whether the reserve is there, and how long the WAL is that was
    /// replayed.
    pub fn new(options: DiskOptions, wal_bytes: u64, reserve: bool, replayed_bytes: u64) -> Disk {
        let situation = Situation { reserve, ..Situation::default() };
        Disk {
            options,
            segment_bytes: wal::segment_bytes(wal_bytes),
            seen: Mutex::new(Seen { situation, ..Seen::default() }),
            read_only: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            frozen_bytes: AtomicU64::new(replayed_bytes),
            merge_waits: AtomicBool::new(false),
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether samples are refused.
    pub fn is_read_only(&self) -> bool {
        self.read_only.load(Relaxed)
    }

    /// Why samples are refused, if they are.
    pub fn refusal(&self) -> Option<AppendError> {
        self.is_read_only().then(|| {
            let why = "samples are taken again when there is space".to_owned();
            AppendError { cause: UnavailableCause::DiskFull(why), retry_after: RETRY }
        })
    }

    /// Notes what came of an append: the system may say that the disk is full where a look does not.
    pub fn heed<T>(&self, outcome: Result<T, AppendError>) -> Result<T, AppendError> {
        if outcome.as_ref().is_err_and(AppendError::is_disk_full) {
            self.refused.store(true, Relaxed);
        }
        outcome
    }

    /// Whether the head is to be cut before its time: its partition takes less than its WAL, mostly a
    /// quarter.
    pub fn wants_cut(&self, wal_bytes: u64, samples: u64) -> bool {
        samples > 0 && self.is_read_only() && self.seen().situation.free_bytes > wal_bytes / 4
    }

    /// A generation of so much WAL is to be cut.
    pub fn cut_begins(&self, wal_bytes: u64) {
        self.frozen_bytes.fetch_add(wal_bytes, Relaxed);
    }

    /// What was frozen is in partitions.
    pub fn cut_is_done(&self) {
        self.frozen_bytes.store(0, Relaxed);
    }

    /// How much the inputs of a merge may have now.
    pub fn merge_bytes_max(&self) -> u64 {
        let seen = self.seen();
        // Nobody has looked yet, and nobody does in some tests.
        if seen.space == Space::default() { u64::MAX } else { seen.situation.merge_bytes_max() }
    }

    /// Makes sure that there is room for a merge of so much, for as long as what this gives is kept; it
    /// is told if there is none. Called with the lock for merges.
    pub fn room_for_merge(&self, input_bytes: u64) -> io::Result<Room<'_>> {
        let free_bytes = self.seen().situation.free_bytes;
        if input_bytes <= self.merge_bytes_max() {
            self.no_merge_waits();
            self.seen().merge = Some(Merging { free_bytes, bytes: ladder::merge_takes_bytes(input_bytes) });
            return Ok(Room(self));
        }
        if !self.merge_waits.swap(true, Relaxed) {
            tracing::warn!(input_bytes, free_bytes, "a merge of partitions waits for space on the disk");
        }
        let why = format!(
            "merging {input_bytes} bytes takes more space than the disk has ({free_bytes} bytes are free)"
        );
        Err(io::Error::new(io::ErrorKind::StorageFull, why))
    }

    /// No merge waits, or there is none any more.
    pub fn no_merge_waits(&self) {
        if self.merge_waits.swap(false, Relaxed) {
            tracing::info!("no merge of partitions waits for space on the disk any more");
        }
    }

    /// Whether a merge waits for space.
    pub fn merge_waits(&self) -> bool {
        self.merge_waits.load(Relaxed)
    }

    /// How the disk was doing at the last look.
    pub fn status(&self) -> DiskStatus {
        let seen = self.seen();
        // What the WAL takes counts as free there.
        let full_bytes = seen.situation.segment_bytes;
        DiskStatus {
            state: seen.state,
            capacity_bytes: seen.space.capacity_bytes,
            free_bytes: seen.space.free_bytes,
            low_below_bytes: seen.situation.low_below_bytes(),
            read_only_below_bytes: seen.situation.read_only_below_bytes(),
            full_seconds: seen.forecast.seconds_until(full_bytes),
            reserve_bytes: if seen.situation.reserve { RESERVE_BYTES } else { 0 },
            emergency_retention: self.options.emergency_retention,
            merge_waits: self.merge_waits(),
        }
    }

    /// Takes up what is free, and decides.
    fn decide(&self, space: Space, active_bytes: u64, now_ms: i64) -> Step {
        let mut seen = self.seen();
        if self.refused.swap(false, Relaxed) {
            seen.refused_until_ms = now_ms.saturating_add(REFUSED_MS);
        }
        seen.looked_ms = now_ms;
        seen.promised = seen.promised.filter(|(until_ms, _)| now_ms < *until_ms);
        let by_drop = seen.promised.map_or(0, |(_, bytes)| bytes.saturating_sub(space.free_bytes));
        let by_merge = seen.merge.map_or(0, |merge| merge.taken_bytes(space.free_bytes));
        let situation = Situation {
            free_bytes: space.free_bytes,
            promised_bytes: by_drop.saturating_add(by_merge),
            min_free_bytes: ladder::min_free_bytes(self.options.min_free, space.capacity_bytes),
            segment_bytes: self.segment_bytes,
            uncut_bytes: active_bytes.saturating_add(self.frozen_bytes.load(Relaxed)),
            reserve: seen.situation.reserve,
            refused: now_ms < seen.refused_until_ms,
        };
        let step = situation.step(seen.state);
        seen.forecast.note(now_ms, space.free_bytes.saturating_add(situation.uncut_bytes));
        let before = std::mem::replace(&mut seen.state, step.state);
        (seen.space, seen.situation) = (space, situation);
        drop(seen);
        self.read_only.store(step.state == DiskState::ReadOnly, Relaxed);
        tell(before, step.state, &situation);
        step
    }
}

/// Puts a change into the log.
fn tell(before: DiskState, now: DiskState, situation: &Situation) {
    let free_bytes = situation.free_bytes;
    let (low_below_bytes, read_only_below_bytes) =
        (situation.low_below_bytes(), situation.read_only_below_bytes());
    match (before, now) {
        (before, now) if before == now => {}
        (_, DiskState::ReadOnly) => tracing::error!(
            free_bytes,
            read_only_below_bytes,
            "the disk is full: samples are refused until there is space again; queries and rules go on"
        ),
        (DiskState::ReadOnly, _) => {
            tracing::warn!(free_bytes, read_only_below_bytes, "there is space again: samples are taken");
        }
        (_, DiskState::Low) => tracing::warn!(free_bytes, low_below_bytes, "space on the disk is low"),
        (_, DiskState::Enough) => {
            tracing::info!(free_bytes, low_below_bytes, "there is enough space on the disk again");
        }
    }
}

/// Gives the reserve up if the disk is so full that what follows may need it. Tells whether it is
/// there still.
pub(crate) fn make_room(fs: &dyn Fs, folder: &Folder) -> io::Result<bool> {
    let path = folder.reserve();
    if !fs.exists(&path)? {
        return Ok(false);
    }
    let keeps = ladder::keeps_reserve(true, fs.space(folder.root())?.free_bytes);
    if !keeps {
        fs.remove(&path)?;
        tracing::warn!(file = %path.display(), "the disk is full: the reserve is given up to open the folder");
    }
    Ok(keeps)
}

impl Inner {
    /// Looks at the disk, and does what is to be done about it.
    pub fn watch_disk(&self) -> io::Result<()> {
        let now = self.now();
        let space = self.fs.space(self.folder.root())?;
        let step = self.disk.decide(space, self.head.wal_bytes(), now.monotonic_ms);
        self.keep_reserve(step.reserve);
        if step.drop_bytes > 0 && self.options.disk.emergency_retention.is_some() {
            self.drop_for_space(step.drop_bytes, now)?;
        }
        Ok(())
    }

    /// Makes the reserve, or gives it up.
    fn keep_reserve(&self, keep: bool) {
        if keep == self.disk.seen().situation.reserve {
            return;
        }
        // Whoever closes waits for it.
        let _catalog = self.catalog();
        if self.check_held().is_err() {
            return;
        }
        let path = self.folder.reserve();
        let outcome = match keep {
            true => self.fs.create(&path).and_then(|file| file.preallocate(RESERVE_BYTES)),
            false => self.fs.remove(&path),
        };
        match outcome {
            Ok(()) if keep => tracing::debug!(file = %path.display(), "the reserve is there"),
            Ok(()) => tracing::warn!(file = %path.display(), "the disk is full: the reserve is given up"),
            Err(error) => {
                // It is tried again with the next look.
                tracing::debug!(%error, keep, "the reserve could not be made or given up");
                let _ = self.fs.remove(&path);
            }
        }
        self.disk.seen().situation.reserve = self.fs.exists(&path).unwrap_or(false);
    }

    /// Drops the oldest partitions, down to the floor of emergency retention.
    pub fn drop_for_space(&self, bytes: u64, now: Now) -> io::Result<()> {
        if now.monotonic_ms < self.disk.seen().nothing_until_ms {
            return Ok(());
        }
        let measured = self.measure()?;
        let believed_ms = self.believed_ms(now);
        let catalog = self.catalog();
        self.check_held()?;
        let in_head = self.head.generations().into_iter().filter_map(|g| g.time_range());
        let newest_ms = catalog.live().iter().map(|p| p.meta.max_ms).chain(in_head.map(|r| r.max_ms)).max();
        let length_ms = self.options.disk.emergency_retention.map_or(i64::MAX, as_millis);
        // If nothing came for long, the last that came is kept.
        let floor_ms = newest_ms.map_or(i64::MIN, |ms| ms.min(believed_ms).saturating_sub(length_ms));
        let surplus =
            surplus::surplus(&catalog.manifest().partitions, &measured.freed, bytes, 0, Some(floor_ms));
        let dropped = self.drop_partitions(catalog, surplus.numbers.into_iter().collect())?;
        let mut seen = self.disk.seen();
        if dropped.is_empty() {
            seen.nothing_until_ms = now.monotonic_ms.saturating_add(NOTHING_MS);
            return Ok(());
        }
        seen.promise(surplus.freed_bytes);
        drop(seen);
        self.counters.emergency.fetch_add(dropped.len() as u64, Relaxed);
        tracing::warn!(
            partitions = dropped.len(),
            freed_bytes = surplus.freed_bytes,
            floor_ms,
            newest_ms = dropped.iter().map(|p| p.meta.max_ms).max(),
            "the oldest partitions were dropped, as the disk is nearly full"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::MinFree;
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_was_dropped_before_is_promised_still_when_more_is_dropped() {
        let options = DiskOptions {
            min_free: Some(MinFree::Bytes(160 * MIB)),
            emergency_retention: Some(Duration::ZERO),
        };
        let disk = Disk::new(options, 128 * MIB, true, 0);
        let space = Space { capacity_bytes: 1000 * MIB, free_bytes: 100 * MIB };
        // The longer the WAL, the more must be free.
        let drop_bytes = |wal_mib: u64| disk.decide(space, wal_mib * MIB, 0).drop_bytes;
        let first = drop_bytes(0);
        assert_eq!(first, 70 * MIB);
        disk.seen().promise(first);
        let second = drop_bytes(200);
        assert!(second > 0);
        disk.seen().promise(second);
        assert_eq!(drop_bytes(200), 0);
    }

    #[test]
    fn what_a_merge_takes_meanwhile_costs_no_data() {
        let options = DiskOptions {
            min_free: Some(MinFree::Bytes(160 * MIB)),
            emergency_retention: Some(Duration::ZERO),
        };
        let disk = Disk::new(options, 128 * MIB, true, 0);
        let drop_mib = |free_mib: u64, now_ms: i64| {
            let space = Space { capacity_bytes: 1000 * MIB, free_bytes: free_mib * MIB };
            disk.decide(space, 0, now_ms).drop_bytes / MIB
        };
        assert_eq!(drop_mib(200, 0), 0);
        let room = disk.room_for_merge(100 * MIB).unwrap();
        assert_eq!(drop_mib(75, 0), 0, "that is what it was allowed");
        assert_eq!(disk.status().state, DiskState::Low);
        assert_eq!(drop_mib(30, 0), 15, "somebody else takes space, too");
        drop(room);
        assert_eq!(drop_mib(75, 0), 0, "somebody may still read the inputs");
        assert_eq!(drop_mib(75, PROMISED_MS), 95);
    }
}
