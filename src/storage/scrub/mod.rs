//! The scrub: reads all that is stored again and again, about once an interval, so that damage is met
//! while it is small and not when somebody asks.
//!
//! Files are read piece by piece, not through their maps: a sector that the device cannot read is an
//! error then. What is found is noted with the partition, see [`damage`](super::damage), and nobody
//! touches those extents again. The MANIFEST and tombstones are in memory, so their files are simply
//! written anew.
//!
//! The WAL is not scrubbed: it is some hours old at most, its samples are in memory and go to a
//! partition with the next cut, and a generation that is closed is gone within seconds. Nor is the
//! store of small facts, which is read as a whole at each start and exported every minute.

mod plan;

use self::plan::{Pace, Position};
use super::catalog::Live;
use super::damage::{self, Damage, Kind, Loss};
use super::deletion;
use super::engine::Inner;
use super::error::OpenError;
use super::folder::read_tombstones;
use super::fs::{is_shortage, replace_hint};
use super::partition::pieces::{DamagedExtents, Pieces, Trouble};
use crossbeam::channel::{Receiver, RecvTimeoutError};
use larum_storage_format::manifest::Manifest;
use larum_storage_format::partition::Chunk;
use larum_storage_format::partition::extents::ExtentList;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

/// At most so many bytes are read at a time.
const SLICE_BYTES: u64 = 1 << 20;

/// The position is written down at least after so many bytes.
const NOTED_BYTES: u64 = 64 << 20;

/// Pauses are interrupted so often, as what there is to read changes; and none is shorter.
const LOOK: Duration = Duration::from_secs(60);
const PAUSE_MIN: Duration = Duration::from_millis(10);

/// Where the position is written down.
pub(crate) const POSITION_FILE: &str = "scrub";

/// The scrub of a database.
#[derive(Debug)]
pub(crate) struct Scrub {
    /// Changed by whoever has `reading`. Its lock is never held while something is read, so that who
    /// asks for it need not wait for a slow device.
    position: Mutex<Position>,
    reading: Mutex<Reading>,
}

/// What is between two slices.
#[derive(Debug)]
pub(crate) struct Reading {
    /// The position as it was written down last.
    noted: Position,
    pace: Pace,
    open: Option<OpenPartition>,
    /// Bytes read since the position was written down.
    unnoted_bytes: u64,
    buffer: Vec<u8>,
}

/// The partition that is being read.
#[derive(Debug)]
struct OpenPartition {
    number: u64,
    file: Pieces,
    extents: ExtentList,
}

/// How far the scrub is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScrubStatus {
    /// How long a round takes; `None`: it is switched off.
    pub interval: Option<Duration>,
    /// The partition that is read, or was read last.
    pub partition: u64,
    /// When the last round was over, in milliseconds since the epoch, if one was.
    pub round_ended_ms: Option<i64>,
}

impl Scrub {
    /// Goes on where the one before came to. A position that cannot be read is none: it begins anew.
    pub fn new(written: Option<Vec<u8>>, now_ms: i64) -> Scrub {
        let text = written.and_then(|bytes| String::from_utf8(bytes).ok());
        let position = text.and_then(|text| text.parse().ok()).unwrap_or_default();
        let reading = Reading {
            noted: position,
            pace: Pace::new(now_ms),
            open: None,
            unnoted_bytes: 0,
            buffer: Vec::new(),
        };
        Scrub { position: Mutex::new(position), reading: Mutex::new(reading) }
    }

    pub fn reading(&self) -> MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn position(&self) -> MutexGuard<'_, Position> {
        self.position.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Scrubs until the sender of `stopped` is dropped. A slice that panics is tried again: without
    /// its thread, damage would be found by nobody.
    pub fn scrub_until(&self, stopped: &Receiver<()>) {
        let mut pause = Duration::ZERO;
        while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(pause.clamp(PAUSE_MIN, LOOK)) {
            pause = catch_unwind(AssertUnwindSafe(|| self.scrub_if_due())).unwrap_or_else(|_| {
                tracing::warn!("the scrub panicked, it is tried again");
                LOOK
            });
        }
    }

    /// Reads the next slice if it is time for it, and tells how long the pause is then.
    pub fn scrub_if_due(&self) -> Duration {
        let Some(interval) = self.options.scrub_interval else { return Duration::MAX };
        let now_ms = self.now().wall_ms;
        let total_bytes = self.catalog().live().iter().map(|p| p.meta.byte_len).sum();
        let mut reading = self.scrub.reading();
        let left = reading.pace.left(now_ms, interval, SLICE_BYTES, total_bytes);
        if !left.is_zero() {
            return left;
        }
        let bytes = self.scrub_slice(&mut reading);
        self.counters.scrubbed_bytes.fetch_add(bytes, Relaxed);
        reading.pace.read(now_ms, bytes);
        reading.unnoted_bytes += bytes;
        if reading.unnoted_bytes >= NOTED_BYTES {
            self.note_position(&mut reading);
        }
        reading.pace.left(now_ms, interval, SLICE_BYTES, total_bytes)
    }

    /// Reads the next slice, and tells how many bytes that were.
    fn scrub_slice(&self, reading: &mut Reading) -> u64 {
        let position = *self.scrub.position();
        let (next, p, is_last) = {
            let catalog = self.catalog();
            let Some(next) = position.next(&catalog.manifest().partitions) else { return 0 };
            let Some(p) = catalog.get(next.partition).cloned() else { return 0 };
            (next, p, catalog.live().last().is_some_and(|last| last.meta.number == next.partition))
        };
        if next.begins_round {
            self.scrub_manifest();
        }
        let (mut bytes, mut end) = (0, None);
        let known = reading.open.take().filter(|open| open.number == next.partition);
        if known.is_none() {
            self.scrub_tombstones(&p);
            bytes += p.meta.byte_len - p.partition.header().checksums_at();
        }
        if let Some(open) = known.or_else(|| self.open_pieces(&p)) {
            let mut damaged = Vec::new();
            let mut extents = open.extents.from(next.offset).peekable();
            if let Some(read) = open.file.read_next(&mut extents, &mut reading.buffer, &mut damaged) {
                bytes += read.end - read.start;
                end = extents.peek().map(|_| read.end);
            }
            drop(extents);
            self.note_damage(&p, damaged);
            reading.open = Some(open);
        } else {
            // It counts as read, or those that cannot be would be tried again and again.
            bytes = p.meta.byte_len;
        }
        let mut position = self.scrub.position();
        position.read(next.partition, end);
        if end.is_none() && is_last {
            position.round_ended_ms = self.now().wall_ms;
        }
        drop(position);
        if end.is_none() {
            reading.open = None;
            self.note_position(reading);
        }
        bytes
    }

    /// Opens a partition as if for the first time. `None`: it cannot be, which is noted, unless it says
    /// nothing about the file: then the next round reads it.
    fn open_pieces(&self, p: &Live) -> Option<OpenPartition> {
        let path = p.partition.path();
        let opened = Pieces::open(&*self.fs, path).and_then(|file| {
            let header = file.header()?;
            let extents = file.extents(&header)?;
            Ok((file, header, extents))
        });
        let (offset, what, kind) = match opened {
            Ok((file, header, extents)) if header == *p.partition.header() => {
                return Some(OpenPartition { number: p.meta.number, file, extents });
            }
            Ok(_) => (0, "another partition has its name".to_owned(), Kind::Vital),
            // Who replaced it has removed it, too.
            Err(_) if self.catalog().get(p.meta.number).is_none() => return None,
            Err(Trouble::Io(error)) if is_shortage(&error) => {
                tracing::warn!(file = %path.display(), %error, "a partition could not be scrubbed this time");
                return None;
            }
            Err(trouble) if trouble.is_missing() => (0, "the file was removed".to_owned(), Kind::Vital),
            Err(Trouble::Io(error)) => (0, error.to_string(), Kind::Unreadable),
            Err(Trouble::Damage(error)) => {
                (error.offset as u64, format!("{}, {}", error.what, error.kind), Kind::Vital)
            }
        };
        let loss = Loss {
            what: "nothing as long as it is open; the next start would set all of it aside",
            ..damage::of_index(p.partition.header())
        };
        p.partition.damages().note(Damage::new(path, offset..offset + 1, what, loss), kind);
        None
    }

    /// Notes damaged extents, after which nobody reads them.
    fn note_damage(&self, p: &Live, damaged: Vec<DamagedExtents>) {
        if damaged.is_empty() {
            return;
        }
        damaged.iter().for_each(|extents| p.partition.file().condemn(&extents.range));
        let of_data: Vec<DamagedExtents> = damaged.iter().filter(|e| e.is_data).cloned().collect();
        let hit = |chunk: &_| of_data.iter().position(|extents| Chunk::overlaps(chunk, &extents.range));
        let counted = damage::count(&p.partition, &of_data, hit, || self.closing.load(Acquire));
        let mut counted = counted.ok().flatten().into_iter().flatten();
        let header = p.partition.header();
        for DamagedExtents { range, is_data, what, readable } in damaged {
            let (loss, kind) = match (is_data, readable) {
                (true, _) => (counted.next().unwrap_or_else(|| damage::of_data(header)), Kind::Data),
                (false, true) => (damage::of_index(header), Kind::Vital),
                (false, false) => (damage::of_index(header), Kind::Unreadable),
            };
            p.partition.damages().note(Damage::new(p.partition.path(), range, what, loss), kind);
        }
    }

    /// What the MANIFEST says is known: a damaged one is written anew.
    fn scrub_manifest(&self) {
        let mut catalog = self.catalog();
        let path = self.folder.manifest();
        let error = match self.fs.read(&path) {
            Ok(bytes) => match Manifest::decode(&bytes) {
                Ok(_) => return,
                Err(error) => error.to_string(),
            },
            Err(error) if is_shortage(&error) => return,
            Err(error) => error.to_string(),
        };
        self.counters.damaged.fetch_add(1, Relaxed);
        let written = self.check_held().and_then(|()| catalog.write(&*self.fs, &self.folder));
        self.tell_mended(&path, &error, written);
    }

    /// What tombstones say is known: damaged ones are written anew, before a start would be refused.
    fn scrub_tombstones(&self, p: &Live) {
        let Some(number) = p.meta.tombstones else { return };
        let path = self.folder.tombstones(p.meta.number, number);
        let error = match read_tombstones(&*self.fs, &path) {
            Ok(_) => return,
            Err(OpenError::Io { source, .. }) if is_shortage(&source) => return,
            Err(OpenError::Damaged { what, .. }) => what,
            Err(error) => error.to_string(),
        };
        // A deletion writes them anew itself.
        let _deleting = match self.deleting.try_lock() {
            Ok(deleting) => deleting,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let now = self.catalog().get(p.meta.number).cloned();
        let Some(tombstones) = now.filter(|now| now.meta == p.meta).and_then(|now| now.tombstones) else {
            return;
        };
        self.counters.damaged.fetch_add(1, Relaxed);
        let written = self.check_held().and_then(|()| deletion::write_anew(self, &tombstones));
        self.tell_mended(&path, &error, written);
    }

    fn tell_mended(&self, path: &Path, error: &str, written: io::Result<()>) {
        let file = path.display();
        match written {
            Ok(()) => tracing::error!(%file, error, "a file was damaged and was written anew from memory"),
            Err(failure) => {
                tracing::error!(%file, error, %failure, "a file is damaged and cannot be written anew");
            }
        }
    }

    /// Writes the partitions anew that are damaged where the next damage, or the next start, would cost
    /// all of them. What of it cannot be read is left out, and the file goes to quarantine.
    pub fn rescue_damaged(&self) -> io::Result<()> {
        let is_vital = |p: &&Live| p.partition.damages().is_vital();
        let vital: Vec<u64> = self.catalog().live().iter().filter(is_vital).map(|p| p.meta.number).collect();
        let rewrite = |number| match self.rewrite(number) {
            // It is told when it begins to wait.
            Err(_) if self.disk.merge_waits() => Ok(()),
            outcome => outcome,
        };
        // One that fails keeps no other from it.
        vital.into_iter().map(rewrite).fold(Ok(()), io::Result::and)
    }

    /// Writes down how far the scrub is. It begins anew where that fails, and nothing more.
    pub fn note_scrub_position(&self) {
        self.note_position(&mut self.scrub.reading());
    }

    fn note_position(&self, reading: &mut Reading) {
        reading.unnoted_bytes = 0;
        let position = *self.scrub.position();
        if position == reading.noted {
            return;
        }
        let path = self.folder.root().join(POSITION_FILE);
        match replace_hint(&*self.fs, &path, position.to_string().as_bytes()) {
            Ok(()) => reading.noted = position,
            Err(error) => tracing::debug!(%error, "the position of the scrub cannot be written down"),
        }
    }

    /// How far the scrub is.
    pub fn scrub_status(&self) -> ScrubStatus {
        let Position { partition, round_ended_ms, .. } = *self.scrub.position();
        ScrubStatus {
            interval: self.options.scrub_interval,
            partition,
            round_ended_ms: Some(round_ended_ms).filter(|&ms| ms != 0),
        }
    }
}
