//! Every contact of storage with the file system: a small trait, and the real thing behind it.
//!
//! One virtual call per file operation, none per sample. All errors name the path: see [`at_path`].

use bytes::Bytes;
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
#[cfg(target_os = "linux")]
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The operations on files and folders that storage needs.
pub(crate) trait Fs: fmt::Debug + Send + Sync {
    /// Creates a folder that only its owner may enter, with its parents. It may exist already.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// The names in a folder, sorted; those that are not UTF-8 are left out, as none is ours.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// All files below a folder, with what they take. What vanishes meanwhile and what may not be looked
    /// into is left out; symbolic links are not followed.
    fn usage(&self, dir: &Path) -> io::Result<Vec<FileUse>>;

    /// How much the file system of a folder holds.
    fn space(&self, dir: &Path) -> io::Result<Space>;

    /// Makes what was created, renamed and removed in the folder survive a power cut.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Creates a file for appending. It must not exist.
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>>;

    /// Reads a whole file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Reads a whole file over what `into` holds, whose memory is used again.
    fn read_into(&self, path: &Path, into: &mut Vec<u8>) -> io::Result<()> {
        *into = self.read(path)?;
        Ok(())
    }

    /// Maps a whole file. Only for files that are finished and synced: nobody ever writes to or
    /// truncates them again.
    fn map(&self, path: &Path) -> io::Result<Bytes>;

    /// Opens a finished file to be read piece by piece: what the device cannot read is an error then,
    /// and does not end the process as it does under a map.
    fn open_read(&self, path: &Path) -> io::Result<Box<dyn ReadFile>>;

    /// Whether there is something of that name.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Renames a file, which replaces what bears the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file a second name, which must be free.
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Cuts a file that nobody has open at `len`.
    fn truncate(&self, path: &Path, len: u64) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty folder.
    fn remove_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes the lock file `path` for this process, creates it if missing, and writes `content`
    /// into it where the disk has room. `None`: somebody else has it. The end of the process frees it, however it ends.
    fn lock(&self, path: &Path, content: &str) -> io::Result<Option<Lock>>;
}

/// How much a file system holds, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Space {
    /// At all.
    pub capacity_bytes: u64,
    /// What is free for us; others may have a share of their own.
    pub free_bytes: u64,
}

/// What a name in a folder takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileUse {
    /// The name.
    pub path: PathBuf,
    /// The same for all names of one file.
    pub file: (u64, u64),
    /// What the file takes on the device, what is reserved for it included.
    pub bytes: u64,
}

/// A file open for appending.
pub(crate) trait WriteFile: fmt::Debug + Send + Sync {
    /// Appends all of `bytes` in one call to the system where it allows. After an error the file
    /// may end with a part of them.
    fn append(&self, bytes: &[u8]) -> io::Result<()>;

    /// Overwrites bytes at `offset`; the end of the file may move.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes the content survive a power cut. After an error, nobody knows what is on the device.
    fn sync(&self) -> io::Result<()>;

    /// Cuts the file at `len`.
    fn truncate(&self, len: u64) -> io::Result<()>;

    /// Reserves space up to `len` without moving the end of the file. A hint: does nothing where
    /// the file system cannot.
    fn preallocate(&self, len: u64) -> io::Result<()>;
}

/// A file open for reading. It stays readable when its name is removed.
pub(crate) trait ReadFile: fmt::Debug + Send + Sync {
    /// How long the file is.
    fn byte_len(&self) -> io::Result<u64>;

    /// Fills all of `bytes` from `offset` on.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;

    /// Bytes that were read only to be looked at need not stay in the system's cache, unless others
    /// have them mapped. A hint: does nothing where the system takes none.
    fn forget(&self, range: Range<u64>);
}

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _held: Box<dyn fmt::Debug + Send + Sync>,
}

impl Lock {
    /// A lock that ends when `held` is dropped.
    pub fn new(held: impl fmt::Debug + Send + Sync + 'static) -> Lock {
        Lock { _held: Box::new(held) }
    }
}

/// Puts the path into an error of the system, which does not name it.
pub(crate) fn at_path(path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    use rustix::io::Errno;
    move |e| {
        let kind = match Errno::from_io_error(&e) {
            // They have no kind of their own, and their number is lost here.
            Some(Errno::MFILE | Errno::NFILE) => io::ErrorKind::ResourceBusy,
            _ => e.kind(),
        };
        io::Error::new(kind, format!("{}: {e}", path.display()))
    }
}

/// Whether the process or the system is short of something (open files, memory), which says nothing
/// about the file.
pub(crate) fn is_shortage(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::OutOfMemory)
}

/// Whether the device is full (or the user's share of it).
pub(crate) fn is_disk_full(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The file system of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RealFs;

impl Fs for RealFs {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(at_path(dir))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir).map_err(at_path(dir))? {
            if let Ok(name) = entry.map_err(at_path(dir))?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn usage(&self, dir: &Path) -> io::Result<Vec<FileUse>> {
        let (mut found, mut folders) = (Vec::new(), vec![dir.to_owned()]);
        while let Some(folder) = folders.pop() {
            let Some(entries) = if_visible(fs::read_dir(&folder)).map_err(at_path(&folder))? else {
                continue;
            };
            for entry in entries {
                let entry = entry.map_err(at_path(&folder))?;
                let path = entry.path();
                let Some(meta) = if_visible(entry.metadata()).map_err(at_path(&path))? else { continue };
                if meta.is_dir() {
                    folders.push(path);
                } else {
                    // Blocks are counted in units of 512 bytes, whatever their size.
                    let bytes = meta.blocks().saturating_mul(512);
                    found.push(FileUse { path, file: (meta.dev(), meta.ino()), bytes });
                }
            }
        }
        Ok(found)
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        let found = rustix::fs::statvfs(dir).map_err(|e| at_path(dir)(e.into()))?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        match bytes(found.f_blocks) {
            // A share of it would be nothing.
            0 => Err(at_path(dir)(io::Error::other("the file system does not tell how much it can hold"))),
            capacity_bytes => Ok(Space { capacity_bytes, free_bytes: bytes(found.f_bavail) }),
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(at_path(dir))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let file = File::options().write(true).create_new(true).mode(0o600).open(path);
        Ok(Box::new(RealFile(file.map_err(at_path(path))?)))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path).map_err(at_path(path))
    }

    fn read_into(&self, path: &Path, into: &mut Vec<u8>) -> io::Result<()> {
        into.clear();
        File::open(path).and_then(|mut file| file.read_to_end(into)).map(drop).map_err(at_path(path))
    }

    fn map(&self, path: &Path) -> io::Result<Bytes> {
        let file = File::open(path).map_err(at_path(path))?;
        // SAFETY: the bytes under the map must not change while it lives. The callers map only
        // files that were finished, synced and renamed into place; Larum never writes to or
        // truncates such a file again (it only unlinks it, which leaves the map intact), the
        // folder is open to its owner alone, and the lock keeps other processes of Larum out. Nor
        // does Prometheus write to the files of a block, which it renames into place when finished.
        let map = unsafe { memmap2::Mmap::map(&file) };
        let map = map.map_err(|e| match e.kind() {
            io::ErrorKind::OutOfMemory => {
                let why =
                    "a process may have as many maps as vm.max_map_count says, and each partition is one";
                at_path(path)(io::Error::new(e.kind(), format!("{e} ({why})")))
            }
            _ => at_path(path)(e),
        })?;
        Ok(Bytes::from_owner(map))
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        Ok(Box::new(RealFile(File::open(path).map_err(at_path(path))?)))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists().map_err(at_path(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to).map_err(at_path(from))
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to).map_err(at_path(to))
    }

    fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        File::options().write(true).open(path).and_then(|file| file.set_len(len)).map_err(at_path(path))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path).map_err(at_path(path))
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        fs::remove_dir(dir).map_err(at_path(dir))
    }

    fn lock(&self, path: &Path, content: &str) -> io::Result<Option<Lock>> {
        // Not truncated when it is opened: until the lock is held, the content is another's.
        let file = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let mut file = file.map_err(at_path(path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(e)) => return Err(at_path(path)(e)),
        }
        match file.set_len(0).and_then(|()| file.write_all(content.as_bytes())) {
            // The lock holds without its content, by which others are told who has it.
            Err(e) if !is_disk_full(&e) => Err(at_path(path)(e)),
            _ => Ok(Some(Lock::new(Locked(file)))),
        }
    }
}

/// A file that is locked until this is dropped. A child that is forked meanwhile, for another program to
/// begin in it, has the file open too for a moment, and would go on holding a lock that only ended with it.
#[derive(Debug)]
struct Locked(File);

impl Drop for Locked {
    fn drop(&mut self) {
        // At the latest it ends when nobody has the file open.
        let _ = self.0.unlock();
    }
}

/// `None`: there is nothing of that name any more, or it is not ours to look into.
fn if_visible<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Maps a file that is finished, such as one of a block of Prometheus.
#[cfg(feature = "server")]
pub(crate) fn map_finished(path: &Path) -> io::Result<Bytes> {
    RealFs.map(path)
}

/// So often what a signal interrupted is tried again before it is left.
#[cfg(target_os = "linux")]
const INTERRUPTED_MAX: usize = 16;

#[derive(Debug)]
struct RealFile(File);

impl WriteFile for RealFile {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        (&self.0).write_all(bytes)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        // fdatasync on Linux, F_FULLFSYNC on macOS, where fsync alone leaves the device's cache.
        self.0.sync_data()
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        use std::io::Seek;
        self.0.set_len(len)?;
        // Appending goes on at the new end.
        (&self.0).seek(io::SeekFrom::Start(len)).map(drop)
    }

    #[cfg(target_os = "linux")]
    fn preallocate(&self, len: u64) -> io::Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::io::Errno;
        // Some file systems begin anew after a signal, and signals may come again and again.
        for _ in 0..INTERRUPTED_MAX {
            match fallocate(&self.0, FallocateFlags::KEEP_SIZE, 0, len) {
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(()),
                outcome => return Ok(outcome?),
            }
        }
        Ok(())
    }

    // macOS' twin (F_PREALLOCATE) gives no promise that later writes fit; APFS copies on write.
    #[cfg(not(target_os = "linux"))]
    fn preallocate(&self, _len: u64) -> io::Result<()> {
        Ok(())
    }
}

impl ReadFile for RealFile {
    fn byte_len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(bytes, offset)
    }

    #[cfg(target_os = "linux")]
    fn forget(&self, range: Range<u64>) {
        use rustix::fs::{Advice, fadvise};
        // A length of none would be the rest of the file.
        if let Some(len) = range.end.checked_sub(range.start).and_then(NonZeroU64::new) {
            let _ = fadvise(&self.0, range.start, Some(len), Advice::DontNeed);
        }
    }

    // macOS has no such call for a range.
    #[cfg(not(target_os = "linux"))]
    fn forget(&self, _range: Range<u64>) {}
}

/// Writes a small file so that a crash leaves the old or the new content: temporary file, sync,
/// rename, sync of the folder. `path` must have a parent.
pub(crate) fn replace_file(fs: &dyn Fs, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary_name(path);
    if fs.exists(&temporary)? {
        fs.remove(&temporary)?;
    }
    let written = fs.create(&temporary).and_then(|file| {
        file.append(bytes).and_then(|()| file.sync()).map_err(at_path(&temporary))?;
        fs.rename(&temporary, path)
    });
    if let Err(e) = written {
        // What could not be synced is never trusted again.
        let _ = fs.remove(&temporary);
        return Err(e);
    }
    fs.sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// As [`replace_file`], but a power cut may leave anything under that name: for what nobody relies on.
pub(crate) fn replace_hint(fs: &dyn Fs, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary_name(path);
    if fs.exists(&temporary)? {
        fs.remove(&temporary)?;
    }
    fs.create(&temporary)?.append(bytes).map_err(at_path(&temporary))?;
    fs.rename(&temporary, path)
}

/// Makes the name of a folder survive a power cut, with those of its parents. It is tried only, as
/// folders above ours may not be ours to open.
pub(crate) fn sync_above(fs: &dyn Fs, dir: &Path) {
    for parent in dir.ancestors().skip(1) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        let _ = fs.sync_dir(parent);
    }
}

/// What temporary files end with; such files are removed at open.
pub(crate) const TEMPORARY: &str = ".tmp";

/// The name under which a file is written before it is renamed into place.
pub(crate) fn temporary_name(path: &Path) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TEMPORARY);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_lock_that_is_dropped_is_free_even_while_others_start_programs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    std::process::Command::new("true").status().unwrap();
                }
            });
            let free = (0..2000).all(|_| RealFs.lock(&path, "x").unwrap().is_some());
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(free);
        });
    }

    #[test]
    fn a_file_is_appended_overwritten_cut_and_mapped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let file = RealFs.create(&path).unwrap();
        file.preallocate(1 << 20).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
        file.append(b"0123456789").unwrap();
        file.write_at(b"ab", 1).unwrap();
        file.truncate(5).unwrap();
        file.append(b"!").unwrap();
        file.sync().unwrap();
        assert_eq!(RealFs.map(&path).unwrap(), b"0ab34!"[..]);
        assert!(RealFs.create(&path).is_err());
        assert_eq!(RealFs.read(&path).unwrap(), b"0ab34!");
    }

    #[test]
    fn too_many_open_files_are_a_shortage_and_a_bad_sector_is_none() {
        use rustix::io::Errno;
        for (errno, expected) in
            [(Errno::MFILE, true), (Errno::NFILE, true), (Errno::NOMEM, true), (Errno::IO, false)]
        {
            assert_eq!(is_shortage(&at_path(Path::new("a"))(errno.into())), expected, "{errno}");
        }
    }

    #[test]
    fn a_file_is_read_piece_by_piece_and_stays_readable_after_it_was_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        replace_file(&RealFs, &path, b"0123456789").unwrap();
        let file = RealFs.open_read(&path).unwrap();
        RealFs.remove(&path).unwrap();
        let mut piece = [0; 3];
        for offset in [0, 7] {
            file.read_at(&mut piece, offset).unwrap();
            file.forget(offset..offset + 3);
        }
        assert_eq!((file.byte_len().unwrap(), &piece), (10, b"789"));
        assert_eq!(file.read_at(&mut piece, 8).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(RealFs.open_read(&path).unwrap_err().to_string().contains("/a: "));
    }

    #[test]
    fn a_mapped_file_stays_readable_after_it_was_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        replace_file(&RealFs, &path, b"content").unwrap();
        let map = RealFs.map(&path).unwrap();
        RealFs.remove(&path).unwrap();
        assert_eq!(map, b"content"[..]);
        assert_eq!(RealFs.list(dir.path()).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_lock_is_held_once_and_freed_by_dropping_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = RealFs.lock(&path, "1\n").unwrap();
        assert!(held.is_some());
        assert!(RealFs.lock(&path, "2\n").unwrap().is_none());
        assert_eq!(RealFs.read(&path).unwrap(), b"1\n");
        drop(held);
        assert!(RealFs.lock(&path, "3\n").unwrap().is_some());
    }

    #[test]
    fn usage_finds_every_name_and_tells_which_are_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("x/y/b"));
        RealFs.create_dir(b.parent().unwrap()).unwrap();
        replace_file(&RealFs, &a, &[1; 10_000]).unwrap();
        RealFs.hard_link(&a, &b).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("x/all")).unwrap();
        let mut found = RealFs.usage(dir.path()).unwrap();
        found.retain(|file| !file.path.ends_with("all"));
        found.sort_by(|p, q| p.path.cmp(&q.path));
        assert_eq!(found.iter().map(|f| f.path.clone()).collect::<Vec<_>>(), [a, b]);
        assert_eq!((found[0].file, found[0].bytes), (found[1].file, found[1].bytes));
        assert!(
            found[0].bytes >= 10_000 && found[0].bytes < RealFs.space(dir.path()).unwrap().capacity_bytes
        );
        assert_eq!(RealFs.usage(&dir.path().join("gone")).unwrap(), []);
    }

    #[test]
    fn folders_belong_to_their_owner_and_errors_name_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let made = dir.path().join("x/y");
        RealFs.create_dir(&made).unwrap();
        RealFs.create_dir(&made).unwrap();
        assert_eq!(fs::metadata(&made).unwrap().permissions().mode() & 0o777, 0o700);
        let missing = made.join("missing");
        assert!(RealFs.read(&missing).unwrap_err().to_string().contains("x/y/missing"));
    }
}
