//! A folder of backups: each is a folder of its own with everything that a data folder needs, and is
//! whole once it has its list of contents, `BACKUP`.
//!
//! Partitions never change. One that an earlier backup holds gets a second name (a hard link) in the
//! next, so that a backup takes the time and space of what is new. Whether it is the same is told by
//! its header and its checksums, which together cover every byte.
//!
//! Files are written as everywhere in storage (temporary file, sync, rename, sync of the folder), read
//! again from the device and compared. What a killed run left is marked `UNFINISHED`; the next takes
//! over what it can use of it, and removes the rest.

mod contents;
mod copy;
mod keep;
mod restore;

pub use contents::{ContentFile, Contents, Digest};
pub use keep::Keep;

use super::folder::Folder;
use super::fs::{Fs, Lock, RealFs, replace_file, sync_above, temporary_name};
use super::partition::pieces::Pieces;
use super::time::Timestamp;
use copy::{copy, digest};
use larum_storage_format::manifest::Manifest;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const CONTENTS: &str = "BACKUP";
const UNFINISHED: &str = "UNFINISHED";
const LOCK: &str = "backups.lock";
/// The folders in a backup.
const FOLDERS: [&str; 2] = ["partitions", "state"];
const MANIFEST: &str = "MANIFEST";
/// What a new file system has, where nobody else may look.
const LOST_AND_FOUND: &str = "lost+found";

/// A folder of backups.
#[derive(Debug)]
pub struct Backups {
    fs: Arc<dyn Fs>,
    root: PathBuf,
    _lock: Option<Lock>,
}

/// A backup in the list.
#[derive(Debug, Clone)]
pub struct Backup {
    /// Its name.
    pub name: String,
    /// What it holds, or why that cannot be told.
    pub contents: Result<Contents, String>,
}

/// What a run did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// Files that were copied, and their bytes.
    pub copied: (u64, u64),
    /// Files that an earlier backup holds already, and their bytes.
    pub unchanged: (u64, u64),
    /// Files that a killed run had copied, and their bytes.
    pub taken_over: (u64, u64),
    /// Partitions that are missing where the backup was taken.
    pub missing: Vec<String>,
}

impl Backups {
    /// Opens the folder `root` for taking and removing backups; creates it if there is none. One process
    /// at a time may have it so.
    ///
    /// # Errors
    /// The folder holds something else, another process has it, or the system refuses.
    pub fn open(root: &Path) -> io::Result<Backups> {
        Backups::open_on(Arc::new(RealFs), root)
    }

    /// The same in this file system.
    pub(crate) fn open_on(fs: Arc<dyn Fs>, root: &Path) -> io::Result<Backups> {
        fs.create_dir(root)?;
        let names = names_in(&*fs, root)?;
        let is_ours =
            |name: &String| name == LOCK || fs.exists(&root.join(name).join(CONTENTS)).unwrap_or(false);
        if !names.is_empty() && !names.iter().any(is_ours) {
            let what = format!("{}: the folder holds something else than backups", root.display());
            return Err(io::Error::new(ErrorKind::AlreadyExists, what));
        }
        let lock = fs.lock(&root.join(LOCK), &format!("{}\n", std::process::id()))?;
        let busy =
            || io::Error::other(format!("{}: another process takes or removes backups", root.display()));
        let lock = lock.ok_or_else(busy)?;
        Ok(Backups { fs, root: root.to_owned(), _lock: Some(lock) })
    }

    /// Looks at the folder `root`, in which another process may take a backup.
    ///
    /// # Errors
    /// There is no such folder.
    pub fn look(root: &Path) -> io::Result<Backups> {
        RealFs.list(root)?;
        Ok(Backups { fs: Arc::new(RealFs), root: root.to_owned(), _lock: None })
    }

    /// The whole backups, the oldest first; those whose list is damaged last.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn list(&self) -> io::Result<Vec<Backup>> {
        let mut found = Vec::new();
        for name in names_in(&*self.fs, &self.root)? {
            let path = self.root.join(&name).join(CONTENTS);
            if exists_inside(&*self.fs, &path)? {
                let contents = Contents::decode(&self.fs.read(&path)?);
                found.push(Backup {
                    name,
                    contents: contents.map_err(|e| format!("{}: {e}", path.display())),
                });
            }
        }
        found.sort_by_key(|backup| backup.contents.as_ref().map_or(i64::MAX, |c| c.created.as_millis()));
        Ok(found)
    }

    /// The backup of this name, or the newest that is not younger than `at`.
    ///
    /// # Errors
    /// There is none, its list is damaged, or the file system refuses.
    pub fn find(&self, name: Option<&str>, at: Timestamp) -> io::Result<(String, Contents)> {
        let mut backups = self.list()?;
        let is_wanted = |backup: &Backup| match name {
            Some(name) => backup.name == name,
            None => backup.contents.as_ref().is_ok_and(|contents| contents.created <= at),
        };
        match backups.iter().rposition(is_wanted).map(|at| backups.swap_remove(at)) {
            Some(Backup { name, contents: Ok(contents) }) => Ok((name, contents)),
            Some(Backup { contents: Err(what), .. }) => Err(io::Error::new(ErrorKind::InvalidData, what)),
            None => {
                let which =
                    name.map_or_else(|| "of that time or older".to_owned(), |name| format!("{name:?}"));
                let what = format!("{}: there is no backup {which}", self.root.display());
                Err(io::Error::new(ErrorKind::NotFound, what))
            }
        }
    }

    /// Takes a backup of the snapshot `source` under this name. `full` copies everything anew: for when an
    /// earlier backup was found damaged.
    ///
    /// # Errors
    /// The name is taken or cannot be one, a file cannot be read back as it was written, or the file
    /// system refuses. Nothing counts as a backup then; the next run goes on from there.
    pub fn take(&self, source: &Path, name: &str, created: Timestamp, full: bool) -> io::Result<Taken> {
        let fs = &*self.fs;
        check_name(name)?;
        let dir = self.root.join(name);
        if fs.exists(&dir.join(CONTENTS))? {
            let what = format!("{}: there is such a backup", dir.display());
            return Err(io::Error::new(ErrorKind::AlreadyExists, what));
        }
        let unfinished = self.unfinished()?;
        fs.create_dir(&dir)?;
        replace_file(fs, &dir.join(UNFINISHED), b"")?;
        FOLDERS.iter().try_for_each(|folder| fs.create_dir(&dir.join(folder)))?;
        let earlier: Vec<Backup> = if full { Vec::new() } else { self.list()?.into_iter().rev().collect() };
        let sources = Sources { earlier: &earlier, unfinished: &unfinished };

        let mut taken = Taken::default();
        let mut files = Vec::new();
        for (path, is_partition) in names(fs, source)? {
            if !fs.exists(&source.join(&path))? {
                taken.missing.push(path);
                continue;
            }
            let digest = self.bring(&source.join(&path), &path, is_partition, &dir, &sources, &mut taken)?;
            files.push(ContentFile { path, digest });
        }
        FOLDERS.iter().try_for_each(|folder| fs.sync_dir(&dir.join(folder)))?;
        // This makes it a backup.
        replace_file(fs, &dir.join(CONTENTS), Contents { created, files }.encode().as_bytes())?;
        fs.sync_dir(&self.root)?;
        sync_above(fs, &self.root);
        fs.remove(&dir.join(UNFINISHED))?;
        unfinished.iter().filter(|other| *other != name).try_for_each(|other| self.remove_files(other))?;
        Ok(taken)
    }

    /// Brings a file into the backup `dir`: by a link if it is there already, else by copying it.
    fn bring(
        &self,
        from: &Path,
        path: &str,
        is_partition: bool,
        dir: &Path,
        sources: &Sources<'_>,
        taken: &mut Taken,
    ) -> io::Result<Digest> {
        let fs = &*self.fs;
        let to = dir.join(path);
        // What a run with the same name left.
        let mut left = fs.exists(&to)?;
        if is_partition {
            for backup in sources.earlier {
                let known = backup.contents.as_ref().ok().and_then(|contents| contents.find(path));
                let old = self.root.join(&backup.name).join(path);
                let Some(known) = known.filter(|_| is_same_partition(fs, from, &old)) else { continue };
                if std::mem::take(&mut left) {
                    fs.remove(&to)?;
                }
                // Not every file system links, and not without end.
                if fs.hard_link(&old, &to).is_ok() {
                    add(&mut taken.unchanged, known.digest);
                    return Ok(known.digest);
                }
            }
            for other in sources.unfinished {
                let old = self.root.join(other).join(path);
                if !is_same_partition(fs, from, &old) {
                    continue;
                }
                // Nobody had read it again.
                let expected = digest(fs, from)?;
                if digest(fs, &old)? == expected && (old == to || fs.hard_link(&old, &to).is_ok()) {
                    add(&mut taken.taken_over, expected);
                    return Ok(expected);
                }
            }
        }
        let copied = copy(fs, from, &to)?;
        add(&mut taken.copied, copied);
        Ok(copied)
    }

    /// Reads every file of a backup and compares it with the list; one sentence for each fault.
    ///
    /// # Errors
    /// There is no such backup.
    pub fn verify(&self, name: &str) -> io::Result<Vec<String>> {
        let (_, contents) = self.find(Some(name), Timestamp::from_millis(i64::MAX))?;
        let mut faults = Vec::new();
        for file in &contents.files {
            let path = self.root.join(name).join(&file.path);
            match digest(&*self.fs, &path) {
                Ok(found) if found == file.digest => {}
                Ok(_) => faults.push(format!("{}: it is not what was written", path.display())),
                Err(error) => faults.push(error.to_string()),
            }
        }
        Ok(faults)
    }

    /// Removes a backup. What others hold, too, stays with them.
    ///
    /// # Errors
    /// Those of the file system; it is no backup any more then, or still a whole one.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        let dir = self.root.join(name);
        replace_file(&*self.fs, &dir.join(UNFINISHED), b"")?;
        self.fs.remove(&dir.join(CONTENTS))?;
        self.fs.sync_dir(&dir)?;
        self.remove_files(name)
    }

    /// Removes the backups that need not be kept, and gives their names. The newest is always kept, and
    /// so is the one that was `just_taken`; nor does a wrong clock take the others.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn prune(&self, keep: Keep, now: Timestamp, just_taken: Option<&str>) -> io::Result<Vec<String>> {
        let list = self.list()?;
        let created = |backup: &Backup| Some((backup.name.clone(), backup.contents.as_ref().ok()?.created));
        let list: Vec<(String, Timestamp)> = list.iter().filter_map(created).collect();
        let names = keep::needless(&list, keep, now, just_taken);
        names.iter().try_for_each(|name| self.remove(name))?;
        Ok(names)
    }

    /// What killed runs left.
    fn unfinished(&self) -> io::Result<Vec<String>> {
        let mut kept = Vec::new();
        for name in names_in(&*self.fs, &self.root)? {
            let dir = self.root.join(&name);
            let mark = dir.join(UNFINISHED);
            let is_marked =
                exists_inside(&*self.fs, &mark)? || exists_inside(&*self.fs, &temporary_name(&mark))?;
            if is_marked && !self.fs.exists(&dir.join(CONTENTS))? {
                kept.push(name);
            }
        }
        Ok(kept)
    }

    /// Removes what is left of a backup.
    fn remove_files(&self, name: &str) -> io::Result<()> {
        let fs = &*self.fs;
        let dir = self.root.join(name);
        for folder in FOLDERS {
            let folder = dir.join(folder);
            if fs.exists(&folder)? {
                fs.list(&folder)?.iter().try_for_each(|name| fs.remove(&folder.join(name)))?;
                fs.remove_dir(&folder)?;
            }
        }
        // The mark last: without it nobody would remove the rest.
        for file in fs.list(&dir)?.iter().filter(|file| *file != UNFINISHED) {
            fs.remove(&dir.join(file))?;
        }
        if fs.exists(&dir.join(UNFINISHED))? {
            fs.remove(&dir.join(UNFINISHED))?;
        }
        fs.remove_dir(&dir)
    }
}

/// The names in a folder, but for what a new file system has.
fn names_in(fs: &dyn Fs, dir: &Path) -> io::Result<Vec<String>> {
    let mut names = fs.list(dir)?;
    names.retain(|name| name != LOST_AND_FOUND);
    Ok(names)
}

/// Whether there is something of that name; not where its folder is a file.
fn exists_inside(fs: &dyn Fs, path: &Path) -> io::Result<bool> {
    match fs.exists(path) {
        Err(e) if e.kind() == ErrorKind::NotADirectory => Ok(false),
        outcome => outcome,
    }
}

/// Where a file may be already.
struct Sources<'a> {
    /// Whole backups, the newest first.
    earlier: &'a [Backup],
    /// Names of others.
    unfinished: &'a [String],
}

fn add(sum: &mut (u64, u64), digest: Digest) {
    sum.0 += 1;
    sum.1 += digest.byte_len;
}

/// The files of a snapshot by their paths in it, and whether each is a partition.
fn names(fs: &dyn Fs, source: &Path) -> io::Result<Vec<(String, bool)>> {
    let folder = Folder::new(source);
    let manifest = Manifest::decode(&fs.read(&folder.manifest())?).map_err(|e| {
        io::Error::new(ErrorKind::InvalidData, format!("{}: {e}", folder.manifest().display()))
    })?;
    let inside = |path: PathBuf| path.strip_prefix(source).ok().and_then(Path::to_str).map(str::to_owned);
    let mut names = Vec::new();
    for partition in &manifest.partitions {
        names.extend(inside(folder.partition(partition.number)).map(|path| (path, true)));
        let tombstones = partition.tombstones.and_then(|n| inside(folder.tombstones(partition.number, n)));
        names.extend(tombstones.map(|path| (path, false)));
    }
    for (path, must_be) in [("state/export", false), (MANIFEST, true)] {
        if must_be || fs.exists(&source.join(path))? {
            names.push((path.to_owned(), false));
        }
    }
    Ok(names)
}

/// Whether two files are one partition, by its header and the checksums of all its bytes.
fn is_same_partition(fs: &dyn Fs, a: &Path, b: &Path) -> bool {
    let summary = |path: &Path| {
        let file = Pieces::open(fs, path).ok()?;
        let header = file.header().ok()?;
        let checksums = file.checksums(&header).ok()?;
        Some((header, checksums))
    };
    summary(b).is_some_and(|b| summary(a).is_some_and(|a| a == b))
}

fn check_name(name: &str) -> io::Result<()> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if (1..=100).contains(&name.len()) && name.bytes().all(is_plain) && !name.starts_with('.') {
        return Ok(());
    }
    let what = format!("{name:?} cannot be the name of a backup: letters, digits, '.', '_' and '-'");
    Err(io::Error::new(ErrorKind::InvalidInput, what))
}
