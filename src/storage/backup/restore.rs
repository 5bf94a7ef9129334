//! A backup becomes a data folder.

use super::copy::{copy, digest};
use super::{Backups, FOLDERS, names_in};
use crate::storage::folder::{Folder, take_lock};
use crate::storage::fs::{replace_file, sync_above, temporary_name};
use std::io::{self, ErrorKind};
use std::path::Path;

impl Backups {
    /// Copies a backup into the folder `to`, which must be empty unless an earlier restore did not come to
    /// its end. Until everything is there and verified the folder cannot be opened.
    ///
    /// # Errors
    /// A file of the backup is damaged, the folder holds something, or the file system refuses. The next
    /// restore goes on from there.
    pub fn restore(&self, name: &str, to: &Path) -> io::Result<()> {
        let fs = &*self.fs;
        let (_, contents) = self.find(Some(name), crate::storage::Timestamp::from_millis(i64::MAX))?;
        let target = Folder::new(to);
        let mark = target.restoring();
        fs.create_dir(to)?;
        let is_nothing = |name: &String| to.join(name) == temporary_name(&mark);
        if !fs.exists(&mark)? && !names_in(fs, to)?.iter().all(is_nothing) {
            let what = format!("{}: a backup is restored into an empty folder only", to.display());
            return Err(io::Error::new(ErrorKind::AlreadyExists, what));
        }
        replace_file(fs, &mark, format!("{name}\n").as_bytes())?;
        let _lock = take_lock(fs, &target).map_err(io::Error::other)?;
        for folder in FOLDERS {
            let folder = to.join(folder);
            fs.create_dir(&folder)?;
            for file in fs.list(&folder)? {
                let path = folder.join(&file);
                let is_known = |path: &Path| contents.files.iter().any(|file| to.join(&file.path) == path);
                if !is_known(&path) {
                    fs.remove(&path)?;
                }
            }
        }
        for file in &contents.files {
            let (from, path) = (self.root.join(name).join(&file.path), to.join(&file.path));
            if fs.exists(&path)? && digest(fs, &path)? == file.digest {
                continue;
            }
            if copy(fs, &from, &path)? != file.digest {
                let what = format!("{}: it is not what was written; restore another backup", from.display());
                return Err(io::Error::new(ErrorKind::InvalidData, what));
            }
        }
        FOLDERS.iter().try_for_each(|folder| fs.sync_dir(&to.join(folder)))?;
        fs.sync_dir(to)?;
        sync_above(fs, to);
        fs.remove(&mark)?;
        fs.sync_dir(to)
    }
}
