//! Partition files read piece by piece, not mapped: an unreadable sector is then an error at its
//! offset, and does not end the process.

use crate::storage::fs::{Fs, ReadFile, at_path};
use larum_storage_format::checksum::crc32c;
use larum_storage_format::partition::PartitionHeader;
use larum_storage_format::partition::extents::{Extent, ExtentList};
use larum_storage_format::{DecodeError, DecodeErrorKind};
use std::io;
use std::iter::Peekable;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// So many extents are read at a time: 1 MiB.
const EXTENTS_READ: usize = 64;

/// Nobody writes a longer header: it would name a million sources.
const HEADER_BYTES_MAX: u64 = 8 << 20;

/// Why something cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// The system refuses, or the device cannot read it.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The bytes are not those that were written.
    #[error(transparent)]
    Damage(#[from] DecodeError),
}

impl Trouble {
    /// Whether there is no such file.
    pub fn is_missing(&self) -> bool {
        matches!(self, Trouble::Io(e) if e.kind() == io::ErrorKind::NotFound)
    }
}

/// A partition file.
#[derive(Debug)]
pub(crate) struct Pieces {
    path: PathBuf,
    file: Box<dyn ReadFile>,
    len: u64,
}

/// Damaged bytes: neighbouring extents of the same kind.
#[derive(Debug, Clone)]
pub(crate) struct DamagedExtents {
    pub range: Range<u64>,
    pub is_data: bool,
    /// What is wrong with the first of them.
    pub what: String,
    /// Whether the device could read them.
    pub readable: bool,
}

impl Pieces {
    /// Opens a file.
    pub fn open(fs: &dyn Fs, path: &Path) -> Result<Pieces, Trouble> {
        let file = fs.open_read(path)?;
        let len = file.byte_len().map_err(at_path(path))?;
        Ok(Pieces { path: path.to_owned(), file, len })
    }

    /// Reads and checks the header, and that the file is as long as it says.
    pub fn header(&self) -> Result<PartitionHeader, Trouble> {
        let start = self.read(0..self.len.min(16))?;
        let stated = start.last_chunk().map_or(0, |len| u32::from_le_bytes(*len));
        let header_len = u64::from(stated).clamp(start.len() as u64, HEADER_BYTES_MAX).min(self.len);
        let header = PartitionHeader::decode(&self.read(0..header_len)?)?;
        if header.byte_len != self.len {
            let kind = match self.len < header.byte_len {
                true => DecodeErrorKind::Truncated,
                false => DecodeErrorKind::Corrupt("longer than its header says"),
            };
            return Err(DecodeError { kind, offset: self.len as usize, what: "partition" }.into());
        }
        Ok(header)
    }

    /// The list of checksums as it stands: with the header, it tells one partition from another.
    pub fn checksums(&self, header: &PartitionHeader) -> io::Result<Vec<u8>> {
        self.read(header.checksums_at()..self.len)
    }

    /// Reads and checks the list of checksums.
    pub fn extents(&self, header: &PartitionHeader) -> Result<ExtentList, Trouble> {
        Ok(ExtentList::decode(header, &self.read(header.checksums_at()..self.len)?)?)
    }

    /// Reads all extents and gives those that are damaged.
    pub fn damaged(&self, extents: &ExtentList) -> Vec<DamagedExtents> {
        let mut damaged = Vec::new();
        let (mut extents, mut buffer) = (extents.from(0).peekable(), Vec::new());
        while self.read_next(&mut extents, &mut buffer, &mut damaged).is_some() {}
        damaged
    }

    /// Reads the next extents, at most 1 MiB of them, adds those that are damaged, and tells which
    /// bytes were read. They are not kept in the system's cache.
    pub fn read_next(
        &self,
        extents: &mut Peekable<impl Iterator<Item = Extent>>,
        buffer: &mut Vec<u8>,
        damaged: &mut Vec<DamagedExtents>,
    ) -> Option<Range<u64>> {
        let first = extents.next()?;
        let mut range = first.range.clone();
        let mut several = Vec::with_capacity(EXTENTS_READ);
        several.push(first);
        // What is read together follows one another in the file.
        while several.len() < EXTENTS_READ
            && let Some(next) = extents.next_if(|next| next.range.start == range.end)
        {
            range.end = next.range.end;
            several.push(next);
        }
        let read = self.read_into(range.clone(), buffer).is_ok();
        for extent in &several {
            let fault = if read {
                let at = (extent.range.start - range.start) as usize;
                let bytes = &buffer[at..at + (extent.range.end - extent.range.start) as usize];
                mismatch(bytes, extent).map(|what| (what, true))
            } else {
                // One of them cannot be read: each is tried alone.
                match self.read(extent.range.clone()) {
                    Ok(bytes) => mismatch(&bytes, extent).map(|what| (what, true)),
                    Err(e) => Some((e.to_string(), false)),
                }
            };
            if let Some((what, readable)) = fault {
                push(damaged, extent, what, readable);
            }
        }
        self.file.forget(range.clone());
        Some(range)
    }

    fn read(&self, range: Range<u64>) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.read_into(range, &mut bytes)?;
        Ok(bytes)
    }

    fn read_into(&self, range: Range<u64>, bytes: &mut Vec<u8>) -> io::Result<()> {
        bytes.clear();
        bytes.resize((range.end - range.start) as usize, 0);
        self.file.read_at(bytes, range.start).map_err(at_path(&self.path))
    }
}

fn mismatch(bytes: &[u8], extent: &Extent) -> Option<String> {
    let (stored, computed) = (extent.checksum, crc32c(bytes));
    (stored != computed).then(|| DecodeErrorKind::Checksum { stored, computed }.to_string())
}

fn push(damaged: &mut Vec<DamagedExtents>, extent: &Extent, what: String, readable: bool) {
    match damaged.last_mut() {
        Some(last)
            if last.is_data == extent.is_data
                && last.readable == readable
                && last.range.end == extent.range.start =>
        {
            last.range.end = extent.range.end;
        }
        _ => damaged.push(DamagedExtents {
            range: extent.range.clone(),
            is_data: extent.is_data,
            what,
            readable,
        }),
    }
}
