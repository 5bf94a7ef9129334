//! Reading the log at start.
//!
//! Every frame whose checksums are right counts, in the order of generations and segments. Bytes
//! at the end of a generation that are no frame are what a crash leaves of a write that nobody was
//! told about; they are dropped. Bytes that are no frame before others that are, are damage: it is
//! reported, and what follows is read nevertheless.

use super::segment::SegmentName;
use crate::storage::error::OpenError;
use crate::storage::fs::Fs;
use larum_storage_format::wal::frame::Found;
use larum_storage_format::wal::{Contents, Frames, SegmentHeader};
use larum_storage_format::{DecodeError, DecodeErrorKind, IdentitySeed};
use std::io;
use std::path::{Path, PathBuf};

/// The segments to be replayed.
#[derive(Debug)]
pub(crate) struct Segments {
    dir: PathBuf,
    /// Ascending.
    names: Vec<SegmentName>,
    first_generation: u64,
}

impl Segments {
    /// Lists the segments in `dir` from `first_generation` on, and removes those before it unread.
    pub fn find(fs: &dyn Fs, dir: &Path, first_generation: u64) -> Result<Segments, OpenError> {
        let at_dir = |source: io::Error| OpenError::Io { path: dir.to_owned(), source };
        super::remove_before(fs, dir, first_generation).map_err(at_dir)?;
        let names = fs.list(dir).map_err(at_dir)?;
        let mut names: Vec<SegmentName> = names.iter().filter_map(|name| SegmentName::parse(name)).collect();
        names.sort_unstable();
        Ok(Segments { dir: dir.to_owned(), names, first_generation })
    }

    /// The number of the generation that comes after all that was found.
    pub fn next_generation(&self) -> u64 {
        self.names.last().map_or(self.first_generation, |last| last.generation.saturating_add(1))
    }

    /// Reads all segments and hands the contents of each frame to `put`, with its generation.
    ///
    /// # Errors
    /// If a segment cannot be read, belongs to another folder or is of another version.
    pub fn read(
        &self,
        fs: &dyn Fs,
        seed: IdentitySeed,
        mut put: impl FnMut(u64, &mut Contents),
    ) -> Result<(), OpenError> {
        let mut contents = Contents::default();
        for (at, name) in self.names.iter().enumerate() {
            let path = name.path(&self.dir);
            let bytes = fs.read(&path).map_err(|source| OpenError::Io { path: path.clone(), source })?;
            let ends_generation =
                self.names.get(at + 1).is_none_or(|next| next.generation != name.generation);
            match SegmentHeader::decode(&bytes) {
                Ok(header) => check_header(&path, header, *name, seed)?,
                // Cut short while it was made, or a damaged header before intact frames.
                Err(error) => match error.kind {
                    DecodeErrorKind::Version { found, known } => {
                        return Err(OpenError::Version { path, found, supported: known });
                    }
                    _ => {
                        warn(&path, "the header is damaged", &error, ends_generation && error.is_truncated())
                    }
                },
            }
            read_frames(&path, &bytes, ends_generation, &mut contents, |contents| {
                put(name.generation, contents);
            });
        }
        Ok(())
    }
}

fn check_header(
    path: &Path,
    header: SegmentHeader,
    name: SegmentName,
    seed: IdentitySeed,
) -> Result<(), OpenError> {
    let damaged = |what: &str| Err(OpenError::Damaged { path: path.to_owned(), what: what.to_owned() });
    if header.seed != seed {
        return damaged("the WAL segment belongs to another data folder (its identity seed differs)");
    }
    if (header.generation, header.segment) != (name.generation, name.segment) {
        return damaged("the WAL segment was renamed (its header tells other numbers)");
    }
    Ok(())
}

fn read_frames(
    path: &Path,
    bytes: &[u8],
    ends_generation: bool,
    contents: &mut Contents,
    mut put: impl FnMut(&mut Contents),
) {
    for found in Frames::new(bytes) {
        match found {
            Found::Frame { offset, payload } => match contents.decode(payload) {
                Ok(()) => put(contents),
                Err(error) => {
                    tracing::warn!(file = %path.display(), offset, %error, "a WAL frame is intact but makes no sense; its samples are lost");
                }
            },
            Found::Tail { offset, len } if ends_generation => {
                tracing::warn!(file = %path.display(), offset, bytes = len, "dropped the torn end of the WAL: a write that was not acknowledged");
            }
            Found::Tail { offset, len } | Found::Damage { offset, len } => {
                tracing::warn!(file = %path.display(), offset, bytes = len, "the WAL is damaged; the samples in these bytes are lost");
            }
        }
    }
}

fn warn(path: &Path, what: &str, error: &DecodeError, is_torn: bool) {
    if is_torn {
        tracing::warn!(file = %path.display(), "dropped a WAL segment that was cut short while it was made");
    } else {
        tracing::warn!(file = %path.display(), %error, "{what}; the frames behind it are read nevertheless");
    }
}
