//! The write-ahead log: what is acknowledged is here before it is in a partition.
//!
//! A log is a folder of segments `GENERATION-SEGMENT.wal`. One generation holds what one generation
//! of the head holds, and declares each series again, so that it can be read on its own and
//! removed as a whole. Segments are preallocated, so that a full disk shows before a write.
//!
//! After a failed sync nobody knows what is on the device, so the log takes nothing any more until
//! the next start. A write that fails is taken back to the last whole frame; the log goes on.

mod commit;
pub(crate) mod replay;
mod segment;

pub use commit::Pending;

use super::error::{AppendError, UnavailableCause};
use super::fs::{Fs, is_disk_full};
use super::head::HeadOptions;
use commit::Commit;
use larum_storage_format::IdentitySeed;
pub(crate) use segment::segment_bytes;
use segment::{Segment, SegmentName};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// When it is worth trying again after the disk was full.
const DISK_FULL_RETRY: Duration = Duration::from_secs(5);
/// When it is worth trying again after any other failure.
const RETRY: Duration = Duration::from_secs(1);

/// The log of one data folder, open for writing.
#[derive(Debug)]
pub(crate) struct Wal {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    seed: IdentitySeed,
    segment_bytes: u64,
    writer: Mutex<Writer>,
    commit: Commit,
}

#[derive(Debug)]
struct Writer {
    generation: u64,
    /// The number of the next segment.
    next_segment: u32,
    /// Made when the first frame comes, so that a start that writes nothing leaves nothing.
    segment: Option<Segment>,
    /// Length of the generation's finished segments.
    finished_bytes: u64,
    closed: bool,
    failures: u64,
}

/// Figures about the log. All but `segment` only grow.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WalStats {
    /// Position of the segment that is being written in its generation.
    pub segment: u64,
    /// Files synced.
    pub syncs: u64,
    /// How long that took.
    pub sync_time: Duration,
    /// Writes and syncs that failed.
    pub failures: u64,
}

impl Wal {
    /// A log that goes on in `dir` with `generation`, of which there must be no segment yet.
    ///
    /// # Errors
    /// If the thread that syncs cannot be started.
    pub fn new(fs: Arc<dyn Fs>, dir: &Path, options: &HeadOptions, generation: u64) -> io::Result<Wal> {
        let writer = Writer {
            generation,
            next_segment: 0,
            segment: None,
            finished_bytes: 0,
            closed: false,
            failures: 0,
        };
        Ok(Wal {
            dir: dir.to_owned(),
            seed: options.seed,
            segment_bytes: segment_bytes(options.wal_bytes),
            writer: Mutex::new(writer),
            commit: Commit::start(fs.clone(), dir, options.fsync, options.maintenance)?,
            fs,
        })
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seals a frame and appends it to the active generation, and returns what to wait for.
    ///
    /// # Errors
    /// If the frame could not be written; the log then ends with the frame before.
    pub fn append(&self, frame: &mut [u8]) -> Result<commit::Ticket, AppendError> {
        let mut writer = self.writer();
        if writer.closed {
            return Err(AppendError { cause: UnavailableCause::Closing, retry_after: RETRY });
        }
        if let Some(failure) = self.commit.failure() {
            return Err(wal_failed(failure));
        }
        if writer.segment.as_ref().is_some_and(|segment| !segment.has_room(frame.len(), self.segment_bytes)) {
            self.finish_segment(&mut writer);
        }
        if writer.segment.is_none() {
            self.start_segment(&mut writer).map_err(|e| {
                writer.failures += 1;
                self.append_error(&e)
            })?;
        }
        let segment = writer.segment.as_mut().expect("it was just started");
        if let Err(e) = segment.append(frame) {
            if let Err(again) = segment.take_back() {
                // What follows would stand behind a torn frame.
                self.commit.fail(format!("{e}; and the log could not be taken back: {again}"));
            }
            writer.failures += 1;
            return Err(self.append_error(&e));
        }
        Ok(self.commit.written(segment.file()))
    }

    fn start_segment(&self, writer: &mut Writer) -> io::Result<()> {
        let name = SegmentName { generation: writer.generation, segment: writer.next_segment };
        // What a failure leaves behind must not be in the way of the next try.
        writer.next_segment += 1;
        let header = name.header(self.seed);
        let segment = Segment::create(self.fs.as_ref(), &self.dir, header, self.segment_bytes)?;
        self.commit.made_file();
        writer.segment = Some(segment);
        Ok(())
    }

    fn finish_segment(&self, writer: &mut Writer) {
        if let Some(segment) = writer.segment.take() {
            writer.finished_bytes += segment.len();
        }
    }

    fn append_error(&self, e: &io::Error) -> AppendError {
        let place = format!("{}: {e}", self.dir.display());
        if is_disk_full(e) {
            AppendError { cause: UnavailableCause::DiskFull(place), retry_after: DISK_FULL_RETRY }
        } else {
            wal_failed(place)
        }
    }

    /// Goes on with a new generation. The caller keeps appends away meanwhile.
    pub fn switch(&self, generation: u64) {
        let mut writer = self.writer();
        self.finish_segment(&mut writer);
        writer.generation = generation;
        writer.next_segment = 0;
        writer.finished_bytes = 0;
    }

    /// Removes the segments of all generations before `first`.
    pub fn remove_before(&self, first: u64) -> io::Result<()> {
        remove_before(self.fs.as_ref(), &self.dir, first)
    }

    /// Length of the active generation.
    pub fn active_bytes(&self) -> u64 {
        let writer = self.writer();
        writer.finished_bytes + writer.segment.as_ref().map_or(0, Segment::len)
    }

    /// Figures about the log.
    pub fn stats(&self) -> WalStats {
        let writer = self.writer();
        let (syncs, sync_time) = self.commit.syncs();
        let failures = writer.failures + u64::from(self.commit.failure().is_some());
        WalStats { segment: u64::from(writer.next_segment.saturating_sub(1)), syncs, sync_time, failures }
    }

    /// Syncs what was written, unless a thread does.
    ///
    /// # Errors
    /// If this sync or an earlier one failed.
    pub fn sync(&self) -> io::Result<()> {
        self.commit.sync()
    }

    /// Syncs what was written and takes nothing any more.
    pub fn close(&self) -> io::Result<()> {
        self.writer().closed = true;
        self.commit.close()
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        // Who wants to know calls close().
        let _ = self.commit.close();
    }
}

fn wal_failed(what: String) -> AppendError {
    AppendError { cause: UnavailableCause::Wal(what), retry_after: RETRY }
}

/// Removes the segments of all generations before `first`, unread.
fn remove_before(fs: &dyn Fs, dir: &Path, first: u64) -> io::Result<()> {
    let names = fs.list(dir)?;
    let old = names.iter().filter_map(|name| SegmentName::parse(name)).filter(|n| n.generation < first);
    for name in old {
        fs.remove(&name.path(dir))?;
    }
    Ok(())
}
