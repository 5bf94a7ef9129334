//! The places in storage that sync, told apart by what is synced and what was done just before.

use super::disk::Op;
use larum_storage_format::partition::PartitionHeader;
use std::path::{Path, PathBuf};

/// A place that syncs. Leaving any one out must be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Site {
    /// The names of the folders in the data folder, at open. In a new folder the MANIFEST's sync
    /// would do; one that was a snapshot has a MANIFEST and no WAL.
    OpenFolders,
    /// The name of the data folder itself, at open.
    OpenParent,
    /// A segment of the WAL.
    WalFile,
    /// The name of a new segment.
    WalFolder,
    /// A partition that a cut wrote.
    CutFile,
    /// Its name.
    CutFolder,
    /// A partition that a merge wrote.
    MergeFile,
    /// Its name.
    MergeFolder,
    /// Tombstones.
    TombstonesFile,
    /// Their name.
    TombstonesFolder,
    /// The MANIFEST.
    ManifestFile,
    /// Its name.
    ManifestFolder,
    /// The names of files that were removed, before that is forgotten.
    RetiredFolder,
    /// The same at open.
    StraysFolder,
    /// A file that a snapshot holds beside the samples.
    SnapshotBesideFile,
    /// Its name.
    SnapshotBesideFolder,
    /// The names in a snapshot.
    SnapshotFolder,
    /// The name of a snapshot.
    SnapshotParent,
    /// A damaged file that was set aside.
    QuarantineFolder,
    /// The folder for those.
    QuarantineParent,
    /// In a folder of backups, or one into which a backup is restored; see `backups`.
    Backup,
}

impl Site {
    /// All that a database syncs itself.
    pub const ALL: [Site; 20] = [
        Site::OpenFolders,
        Site::OpenParent,
        Site::WalFile,
        Site::WalFolder,
        Site::CutFile,
        Site::CutFolder,
        Site::MergeFile,
        Site::MergeFolder,
        Site::TombstonesFile,
        Site::TombstonesFolder,
        Site::ManifestFile,
        Site::ManifestFolder,
        Site::RetiredFolder,
        Site::StraysFolder,
        Site::SnapshotBesideFile,
        Site::SnapshotBesideFolder,
        Site::SnapshotFolder,
        Site::SnapshotParent,
        Site::QuarantineFolder,
        Site::QuarantineParent,
    ];

    /// The site that syncs a file.
    pub fn of_file(path: &Path, content: &[u8]) -> Site {
        if is_of_backup(path) {
            return Site::Backup;
        }
        let name = name(path);
        match name.strip_suffix(".tmp").unwrap_or(&name) {
            "MANIFEST" => Site::ManifestFile,
            "export" => Site::SnapshotBesideFile,
            name if name.ends_with(".wal") => Site::WalFile,
            name if name.ends_with(".del") => Site::TombstonesFile,
            name if name.ends_with(".part") && is_merged(content) => Site::MergeFile,
            name if name.ends_with(".part") => Site::CutFile,
            _ => panic!("who syncs {}?", path.display()),
        }
    }

    /// The site that syncs a folder.
    pub fn of_folder<'a>(dir: &Path, before: &Before, content: impl Fn(&Path) -> &'a [u8]) -> Site {
        if is_of_backup(dir) {
            return Site::Backup;
        }
        let (op, path) = (before.op, before.path.as_path());
        let last = name(path);
        let is_ours = dir.starts_with("/disk/data");
        match name(dir).as_str() {
            "wal" => Site::WalFolder,
            "state" => Site::SnapshotBesideFolder,
            "quarantine" => Site::QuarantineFolder,
            "partitions" if !is_ours => Site::SnapshotFolder,
            "partitions" if before.opens => Site::StraysFolder,
            "partitions" if before.synced => Site::RetiredFolder,
            "partitions" if last.ends_with(".del") && op == Op::Rename => Site::TombstonesFolder,
            "partitions" if last.ends_with(".part") && op == Op::Rename && !is_merged(content(path)) => {
                Site::CutFolder
            }
            "partitions" if last.ends_with(".part") && op == Op::Rename => Site::MergeFolder,
            // A merge that leaves nothing.
            "partitions" if last.ends_with(".part.tmp") && op == Op::Remove => Site::MergeFolder,
            "partitions" => Site::RetiredFolder,
            _ if op == Op::Rename && path == dir.join("MANIFEST") => Site::ManifestFolder,
            _ if op == Op::CreateDir && path == dir.join("wal") => Site::OpenFolders,
            _ if op == Op::CreateDir && last == "quarantine" => Site::QuarantineParent,
            _ if path.starts_with("/disk/data") => Site::OpenParent,
            _ => Site::SnapshotParent,
        }
    }
}

/// What was done before a folder is synced.
#[derive(Debug)]
pub(super) struct Before {
    /// The last operation but for syncs of folders.
    pub op: Op,
    /// Of what.
    pub path: PathBuf,
    /// Whether a folder was synced since.
    pub synced: bool,
    /// Whether the process creates folders and has not created a file since.
    pub opens: bool,
}

fn is_of_backup(path: &Path) -> bool {
    path.starts_with("/disk/backups") || path.starts_with("/disk/restored")
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn is_merged(partition: &[u8]) -> bool {
    PartitionHeader::decode(partition).is_ok_and(|header| !header.origin.sources.is_empty())
}
