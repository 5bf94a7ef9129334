//! Writing a partition: a temporary file, synced and then renamed into place.
//!
//! The file means nothing until a MANIFEST names it.

use crate::storage::fs::{Fs, WriteFile, at_path, temporary_name};
use larum_storage_format::partition::{PartitionHeader, PartitionWriter, WriteError, WriterOptions};
use larum_storage_format::{Labels, Samples, SeriesId};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Bytes gathered before they are given to the system.
const BUFFER_BYTES: usize = 256 << 10;

/// A partition under way. Dropped unfinished, it removes its temporary file.
pub(crate) struct FileWriter<'a> {
    fs: &'a dyn Fs,
    path: PathBuf,
    temporary: Option<PathBuf>,
    writer: Option<PartitionWriter<BufWriter<Sink>>>,
}

/// A file as a sink for bytes.
struct Sink(Box<dyn WriteFile>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.append(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> FileWriter<'a> {
    /// Starts the file that will be called `path`.
    pub fn create(fs: &'a dyn Fs, path: &Path, options: WriterOptions) -> io::Result<FileWriter<'a>> {
        let temporary = temporary_name(path);
        if fs.exists(&temporary)? {
            fs.remove(&temporary)?;
        }
        let mut started =
            FileWriter { fs, path: path.to_owned(), temporary: Some(temporary.clone()), writer: None };
        let file = fs.create(&temporary)?;
        let sink = BufWriter::with_capacity(BUFFER_BYTES, Sink(file));
        started.writer = Some(PartitionWriter::new(sink, options).map_err(|e| started.error(e))?);
        Ok(started)
    }

    /// Adds a series; they must ascend by id.
    pub fn push(&mut self, id: SeriesId, labels: &Labels, samples: &Samples) -> io::Result<()> {
        match &mut self.writer {
            Some(writer) => writer.push(id, labels, samples).map_err(|e| self.error(e)),
            None => Err(io::Error::other("the partition is finished")),
        }
    }

    /// Whether no series was added.
    pub fn is_empty(&self) -> bool {
        self.writer.as_ref().is_none_or(PartitionWriter::is_empty)
    }

    /// Writes the index and the header, syncs, and renames the file into place. The folder is left
    /// to be synced. Without any series there is no file, and `None`.
    pub fn finish(mut self) -> io::Result<Option<PartitionHeader>> {
        if self.is_empty() {
            return Ok(None);
        }
        let (Some(writer), Some(temporary)) = (self.writer.take(), self.temporary.clone()) else {
            return Ok(None);
        };
        let finished = writer.finish().map_err(|e| self.error(e))?;
        let file = finished.sink.into_inner().map_err(|e| at_path(&temporary)(e.into_error()))?.0;
        file.write_at(&finished.header_bytes, 0).and_then(|()| file.sync()).map_err(at_path(&temporary))?;
        drop(file);
        self.fs.rename(&temporary, &self.path)?;
        self.temporary = None;
        Ok(Some(finished.header))
    }

    fn error(&self, e: WriteError) -> io::Error {
        match e {
            WriteError::Io(e) => at_path(&self.path)(e),
            e => io::Error::other(format!("{}: {e}", self.path.display())),
        }
    }
}

impl Drop for FileWriter<'_> {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = self.fs.remove(temporary);
        }
    }
}
