//! Writing a partition: a temporary file, synced and then renamed into place.
//!
//! The file means nothing until a MANIFEST names it. It is synced as it grows: a long file that
//! reached the device all at once would hold up the syncs of the WAL, which share its journal.

use crate::storage::fs::{Fs, WriteFile, at_path, temporary_name};
use larum_storage_format::partition::{
    PairKey, PartitionHeader, PartitionWriter, Spill, SpillFile, WriteError, WriterOptions,
};
use larum_storage_format::{Samples, SeriesId};
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes gathered before they are given to the system.
const BUFFER_BYTES: usize = 256 << 10;

/// Bytes that may wait for being synced.
const UNSYNCED_BYTES: usize = 8 << 20;

/// A partition under way. Dropped unfinished, it removes its temporary file.
pub(crate) struct FileWriter<'a> {
    fs: &'a dyn Fs,
    path: PathBuf,
    temporary: Option<PathBuf>,
    writer: Option<PartitionWriter<BufWriter<Sink>>>,
}

/// A file as a sink for bytes.
struct Sink {
    file: Box<dyn WriteFile>,
    unsynced_bytes: usize,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.append(bytes)?;
        self.unsynced_bytes += bytes.len();
        if self.unsynced_bytes >= UNSYNCED_BYTES {
            self.file.sync()?;
            self.unsynced_bytes = 0;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> FileWriter<'a> {
    /// Starts the file that will be called `path`. Its index grows in memory.
    pub fn create(fs: &'a dyn Fs, path: &Path, options: WriterOptions) -> io::Result<FileWriter<'a>> {
        FileWriter::start(fs, path, |sink| PartitionWriter::new(sink, options))
    }

    /// As [`FileWriter::create`], but beyond about so much memory the index grows in temporary files.
    pub fn create_bounded(
        fs: &'a Arc<dyn Fs>,
        path: &Path,
        options: WriterOptions,
        memory_bytes: usize,
    ) -> io::Result<FileWriter<'a>> {
        let spill = Beside { fs: fs.clone(), path: path.to_owned(), next: AtomicU32::new(0) };
        let start = |sink| PartitionWriter::with_spill(sink, options, Arc::new(spill), memory_bytes);
        FileWriter::start(&**fs, path, start)
    }

    fn start(
        fs: &'a dyn Fs,
        path: &Path,
        start: impl FnOnce(BufWriter<Sink>) -> Result<PartitionWriter<BufWriter<Sink>>, WriteError>,
    ) -> io::Result<FileWriter<'a>> {
        let temporary = temporary_name(path);
        if fs.exists(&temporary)? {
            fs.remove(&temporary)?;
        }
        let mut started =
            FileWriter { fs, path: path.to_owned(), temporary: Some(temporary.clone()), writer: None };
        let file = fs.create(&temporary)?;
        let sink = BufWriter::with_capacity(BUFFER_BYTES, Sink { file, unsynced_bytes: 0 });
        started.writer = Some(start(sink).map_err(|e| started.error(e))?);
        Ok(started)
    }

    /// Begins a series, whose samples follow part by part; they must ascend by id. Equal keys in
    /// `labels` are equal labels, and `text` tells name and value.
    pub fn begin_series<'t>(
        &mut self,
        id: SeriesId,
        labels: &[PairKey],
        text: impl Fn(PairKey) -> (&'t str, &'t str),
    ) -> io::Result<()> {
        self.write(|writer| writer.begin_series(id, labels, text))
    }

    /// Adds what the series begun last has in a part of the window.
    pub fn add_samples(&mut self, samples: &Samples, part: Range<i64>) -> io::Result<()> {
        self.write(|writer| writer.add_samples(samples, part))
    }

    /// Bytes written so far.
    pub fn byte_len(&self) -> u64 {
        self.writer.as_ref().map_or(0, PartitionWriter::byte_len)
    }

    fn write(
        &mut self,
        work: impl FnOnce(&mut PartitionWriter<BufWriter<Sink>>) -> Result<(), WriteError>,
    ) -> io::Result<()> {
        match &mut self.writer {
            Some(writer) => work(writer).map_err(|e| self.error(e)),
            None => Err(io::Error::other("the partition is finished")),
        }
    }

    /// Whether no series was added.
    pub fn is_empty(&self) -> bool {
        self.writer.as_ref().is_none_or(PartitionWriter::is_empty)
    }

    /// Writes the index and the header, syncs, and renames the file into place. The folder is left
    /// to be synced. Without any series there is no file, and `None`.
    pub fn finish(self) -> io::Result<Option<PartitionHeader>> {
        self.seal()?.map(|sealed| sealed.publish(|_| {})).transpose()
    }

    /// Writes the index. Without any series there is no file, and `None`.
    pub fn seal(mut self) -> io::Result<Option<Sealed<'a>>> {
        if self.is_empty() {
            return Ok(None);
        }
        let Some(writer) = self.writer.take() else { return Ok(None) };
        let finished = writer.finish().map_err(|e| self.error(e))?;
        let sink = finished.sink.into_inner().map_err(|e| at_path(&self.path)(e.into_error()))?;
        Ok(Some(Sealed { file: sink.file, header: finished.header, started: self }))
    }

    fn error(&self, e: WriteError) -> io::Error {
        match e {
            WriteError::Io(e) => at_path(&self.path)(e),
            WriteError::TooLarge(_) => {
                io::Error::new(io::ErrorKind::FileTooLarge, format!("{}: {e}", self.path.display()))
            }
            e => io::Error::other(format!("{}: {e}", self.path.display())),
        }
    }
}

/// Temporary files beside a partition under way.
#[derive(Debug)]
struct Beside {
    fs: Arc<dyn Fs>,
    path: PathBuf,
    next: AtomicU32,
}

impl Spill for Beside {
    fn create(&self) -> io::Result<Box<dyn SpillFile>> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = temporary_name(&self.path.with_added_extension(number.to_string()));
        if self.fs.exists(&path)? {
            self.fs.remove(&path)?;
        }
        let file = self.fs.create(&path)?;
        Ok(Box::new(Spilled { fs: self.fs.clone(), path, file }))
    }
}

/// What was put aside. Dropped, it removes its file; what was mapped stays readable.
#[derive(Debug)]
struct Spilled {
    fs: Arc<dyn Fs>,
    path: PathBuf,
    file: Box<dyn WriteFile>,
}

impl SpillFile for Spilled {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.append(bytes).map_err(at_path(&self.path))
    }

    fn read(self: Box<Self>) -> io::Result<Box<dyn AsRef<[u8]> + Send + Sync>> {
        // Nobody writes to it any more; that it is not synced matters to no one.
        Ok(Box::new(self.fs.map(&self.path)?))
    }
}

impl Drop for Spilled {
    fn drop(&mut self) {
        let _ = self.fs.remove(&self.path);
    }
}

/// A partition that lacks its header and its name. Dropped, it removes its temporary file.
pub(crate) struct Sealed<'a> {
    file: Box<dyn WriteFile>,
    header: PartitionHeader,
    started: FileWriter<'a>,
}

impl Sealed<'_> {
    /// Writes the header with the last `change` to it, syncs, and renames the file into place. The
    /// folder is left to be synced.
    pub fn publish(mut self, change: impl FnOnce(&mut PartitionHeader)) -> io::Result<PartitionHeader> {
        let Some(temporary) = &self.started.temporary else { return Ok(self.header) };
        change(&mut self.header);
        let written = self.file.write_at(&self.header.encode(), 0).and_then(|()| self.file.sync());
        written.map_err(at_path(temporary))?;
        self.started.fs.rename(temporary, &self.started.path)?;
        self.started.temporary = None;
        Ok(self.header)
    }
}

impl Drop for FileWriter<'_> {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = self.fs.remove(temporary);
        }
    }
}
