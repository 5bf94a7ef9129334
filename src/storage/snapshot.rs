//! A copy of the whole folder by hard links, taken while others append and read.

use super::engine::Inner;
use super::folder::Folder;
use super::fs::{Fs, replace_file, sync_above};
use std::io;
use std::path::Path;

/// Cuts the head and links everything into the new folder `to`, with the files `beside`. The MANIFEST
/// comes last: a folder without one is no snapshot.
pub(super) fn take(inner: &Inner, to: &Path, beside: &[(&str, &[u8])]) -> io::Result<()> {
    inner.cut_all()?;
    let fs = &*inner.fs;
    let target = Folder::new(to);
    if fs.exists(to)? && !fs.list(to)?.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!("{}: the folder for a snapshot must be empty", to.display()),
        ));
    }
    fs.create_dir(&target.partitions())?;
    let taken = write_beside(fs, to, beside).and_then(|()| link(inner, &target));
    if taken.is_err() {
        // Links that nobody will use would keep the space of files that are long gone.
        let names = fs.list(&target.partitions()).unwrap_or_default();
        names.iter().for_each(|name| drop(fs.remove(&target.partitions().join(name))));
    }
    taken
}

fn write_beside(fs: &dyn Fs, to: &Path, files: &[(&str, &[u8])]) -> io::Result<()> {
    for (name, bytes) in files {
        let path = to.join(name);
        fs.create_dir(path.parent().unwrap_or(to))?;
        replace_file(fs, &path, bytes)?;
    }
    Ok(())
}

fn link(inner: &Inner, target: &Folder) -> io::Result<()> {
    let fs = &*inner.fs;
    // Held to the end, so that no file is unlinked before it is linked.
    let catalog = inner.catalog();
    inner.check_held()?;
    for p in catalog.live() {
        let number = p.meta.number;
        fs.hard_link(&inner.folder.partition(number), &target.partition(number))?;
        if let Some(n) = p.meta.tombstones {
            fs.hard_link(&inner.folder.tombstones(number, n), &target.tombstones(number, n))?;
        }
    }
    // Of what is missing there may be one of its two files. The copy names it, too, and lacks the other.
    for p in catalog.missing() {
        link_if_there(fs, &inner.folder.partition(p.number), &target.partition(p.number))?;
        if let Some(n) = p.tombstones {
            link_if_there(fs, &inner.folder.tombstones(p.number, n), &target.tombstones(p.number, n))?;
        }
    }
    fs.sync_dir(&target.partitions())?;
    super::manifest::write(fs, target, &catalog.manifest_to_write())?;
    sync_above(fs, target.root());
    Ok(())
}

fn link_if_there(fs: &dyn Fs, from: &Path, to: &Path) -> io::Result<()> {
    if fs.exists(from)? { fs.hard_link(from, to) } else { Ok(()) }
}
