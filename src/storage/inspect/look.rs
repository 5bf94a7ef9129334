//! The file system of the machine for who only looks.

use crate::storage::fs::{FileUse, Fs, Lock, ReadFile, RealFs, Space, WriteFile};
use bytes::Bytes;
use std::io;
use std::path::Path;

/// Reads what is there. What would tidy up (remove, truncate, set aside) counts as done and is not,
/// so that the code of a start can be used to read a folder; what would write is an error.
#[derive(Debug, Clone, Copy)]
pub(super) struct LookOnly;

impl Fs for LookOnly {
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealFs.list(dir)
    }

    fn usage(&self, dir: &Path) -> io::Result<Vec<FileUse>> {
        RealFs.usage(dir)
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        RealFs.space(dir)
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let why = format!("{}: the folder is only looked at", path.display());
        Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, why))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        RealFs.read(path)
    }

    fn read_into(&self, path: &Path, into: &mut Vec<u8>) -> io::Result<()> {
        RealFs.read_into(path, into)
    }

    fn map(&self, path: &Path) -> io::Result<Bytes> {
        RealFs.map(path)
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        RealFs.open_read(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        RealFs.exists(path)
    }

    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Ok(())
    }

    fn hard_link(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&self, _path: &Path, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, path: &Path, content: &str) -> io::Result<Option<Lock>> {
        RealFs.lock(path, content)
    }
}
