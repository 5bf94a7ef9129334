//! Files are copied piece by piece, and read again from the device.

use super::Digest;
use crate::storage::fs::{Fs, at_path, temporary_name};
use std::io;
use std::path::Path;
use xxhash_rust::xxh3::Xxh3;

const PIECE_BYTES: u64 = 1 << 20;

/// What the bytes of a file are known by, read from the device where the system can be told so.
pub fn digest(fs: &dyn Fs, path: &Path) -> io::Result<Digest> {
    read(fs, path, &mut |_| Ok(()))
}

/// Copies a file, so that a crash leaves all of it or nothing under its name, and reads it again. The
/// folder is still to be synced.
///
/// # Errors
/// What was written is not what is read, or those of the file system.
pub fn copy(fs: &dyn Fs, from: &Path, to: &Path) -> io::Result<Digest> {
    let temporary = temporary_name(to);
    if fs.exists(&temporary)? {
        fs.remove(&temporary)?;
    }
    let copied = write(fs, from, &temporary).and_then(|written| {
        if digest(fs, &temporary)? != written {
            let what = format!("{}: what was written is not what is read", temporary.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        fs.rename(&temporary, to)?;
        Ok(written)
    });
    if copied.is_err() {
        let _ = fs.remove(&temporary);
    }
    copied
}

fn write(fs: &dyn Fs, from: &Path, to: &Path) -> io::Result<Digest> {
    let file = fs.create(to)?;
    let written = read(fs, from, &mut |piece| file.append(piece).map_err(at_path(to)))?;
    file.sync().map_err(at_path(to))?;
    Ok(written)
}

fn read(fs: &dyn Fs, path: &Path, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<Digest> {
    let file = fs.open_read(path)?;
    let byte_len = file.byte_len().map_err(at_path(path))?;
    file.forget(0..byte_len);
    let (mut hash, mut piece) = (Xxh3::new(), Vec::new());
    let mut at = 0;
    while at < byte_len {
        let end = byte_len.min(at + PIECE_BYTES);
        piece.resize((end - at) as usize, 0);
        file.read_at(&mut piece, at).map_err(at_path(path))?;
        hash.update(&piece);
        each(&piece)?;
        file.forget(at..end);
        at = end;
    }
    Ok(Digest { byte_len, xxh3: hash.digest128() })
}
