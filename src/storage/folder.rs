//! The data folder: names in it, and what opening one does before anything is read.
//!
//! 1. Create it (0700), refuse one that holds Prometheus' data, take the lock. On a full disk, give the
//!    reserve up.
//! 2. Remove temporary files.
//! 3. Read the MANIFEST, or put it together again from the partitions' headers.
//! 4. Open the partitions; a damaged one is set aside with its tombstones, and told of once. A missing
//!    one, or one whose tombstones cannot be read, stays in the MANIFEST, with an error at each start,
//!    until its file is put back or it expires.
//! 5. Remove what a committed merge replaced and what was never committed. Anything else that
//!    nobody knows is reported and left alone.

use super::catalog::{Catalog, Live};
use super::disk;
use super::error::OpenError;
use super::fs::{Fs, Lock, TEMPORARY, sync_above};
use super::manifest;
use super::options::Random;
use super::partition::{Partition, PartitionError};
use super::scrub::POSITION_FILE;
use larum_storage_format::manifest::{LivePartition, Manifest};
use larum_storage_format::partition::PartitionHeader;
use larum_storage_format::tombstones::Tombstones;
use larum_storage_format::{DecodeError, DecodeErrorKind, IdentitySeed};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MANIFEST: &str = "MANIFEST";

/// Where things lie in a data folder.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    root: PathBuf,
}

impl Folder {
    /// The folder at `root`.
    pub fn new(root: &Path) -> Folder {
        Folder { root: root.to_owned() }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The commit point.
    pub fn manifest(&self) -> PathBuf {
        self.root.join(MANIFEST)
    }

    /// Space that is kept for the last steps on a full disk.
    pub fn reserve(&self) -> PathBuf {
        self.root.join("reserve")
    }

    /// The write-ahead log.
    pub fn wal(&self) -> PathBuf {
        self.root.join("wal")
    }

    /// The partitions and what was deleted from them.
    pub fn partitions(&self) -> PathBuf {
        self.root.join("partitions")
    }

    /// While this is there, a restore has not come to its end.
    pub fn restoring(&self) -> PathBuf {
        self.root.join("RESTORING")
    }

    /// Damaged files that were set aside.
    pub fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    /// The number of the partition that a file among them is, or holds the tombstones of, and
    /// whether it is the partition itself.
    pub fn partition_of(name: &str) -> Option<(u64, bool)> {
        match FileName::parse(name)? {
            FileName::Partition(number) => Some((number, true)),
            FileName::Tombstones(partition, _) => Some((partition, false)),
        }
    }

    /// A partition file.
    pub fn partition(&self, number: u64) -> PathBuf {
        self.partitions().join(FileName::Partition(number).to_string())
    }

    /// A tombstone file of a partition.
    pub fn tombstones(&self, partition: u64, number: u64) -> PathBuf {
        self.partitions().join(FileName::Tombstones(partition, number).to_string())
    }

    /// Moves a file out of the way, where nobody deletes it.
    pub fn set_aside(&self, fs: &dyn Fs, path: &Path) -> io::Result<()> {
        // Of a rename from folder to folder a power cut may leave the half that removes.
        match self.link_aside(fs, path) {
            Ok(()) => fs.remove(path),
            // Not every file system has hard links.
            Err(_) => self.bring_aside(fs, path, |to| fs.rename(path, to)),
        }
    }

    /// Gives a file a second name where nobody deletes it, before the first may go.
    pub fn link_aside(&self, fs: &dyn Fs, path: &Path) -> io::Result<()> {
        let quarantine = self.quarantine();
        let linked = quarantine.join(path.file_name().unwrap_or_default());
        // It was linked before what was to follow failed.
        if fs.exists(&linked)? && fs.map(&linked)? == fs.map(path)? {
            return fs.sync_dir(&quarantine);
        }
        self.bring_aside(fs, path, |to| fs.hard_link(path, to))
    }

    fn bring_aside(
        &self,
        fs: &dyn Fs,
        path: &Path,
        bring: impl FnOnce(&Path) -> io::Result<()>,
    ) -> io::Result<()> {
        let quarantine = self.quarantine();
        fs.create_dir(&quarantine)?;
        fs.sync_dir(&self.root)?;
        let Some(name) = path.file_name() else { return Ok(()) };
        let mut to = quarantine.join(name);
        for again in 1.. {
            if !fs.exists(&to)? {
                break;
            }
            to = quarantine.join(format!("{}.{again}", name.to_string_lossy()));
        }
        bring(&to)?;
        fs.sync_dir(&quarantine)
    }
}

/// The names of files among the partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileName {
    Partition(u64),
    Tombstones(u64, u64),
}

impl std::fmt::Display for FileName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            FileName::Partition(number) => write!(f, "{number:010}.part"),
            FileName::Tombstones(partition, number) => write!(f, "{partition:010}-{number}.del"),
        }
    }
}

impl FileName {
    fn parse(name: &str) -> Option<FileName> {
        let parsed = if let Some(number) = name.strip_suffix(".part") {
            FileName::Partition(number.parse().ok()?)
        } else {
            let (partition, number) = name.strip_suffix(".del")?.split_once('-')?;
            FileName::Tombstones(partition.parse().ok()?, number.parse().ok()?)
        };
        (parsed.to_string() == name).then_some(parsed)
    }
}

/// A folder that was opened, up to the WAL.
pub(crate) struct Opened {
    /// Held as long as the folder is in use.
    pub lock: Lock,
    /// What is live.
    pub catalog: Catalog,
    /// How many files were found damaged and set aside.
    pub damaged: u64,
    /// Whether there is a reserve of space.
    pub reserve: bool,
}

/// Opens or creates a folder, up to the WAL.
pub(crate) fn open(fs: &dyn Fs, folder: &Folder, random: &Random) -> Result<Opened, OpenError> {
    let root = folder.root();
    fs.create_dir(root).map_err(io_error(root))?;
    refuse_prometheus(fs, folder)?;
    if fs.exists(&folder.restoring()).map_err(io_error(root))? {
        return Err(OpenError::Restoring(root.to_owned()));
    }
    let lock = take_lock(fs, folder)?;
    let reserve = disk::make_room(fs, folder).map_err(io_error(root))?;
    let partitions = folder.partitions();
    for dir in [&partitions, &folder.wal()] {
        fs.create_dir(dir).map_err(io_error(dir))?;
    }
    // A power cut must not take a folder with files in it that were synced. A MANIFEST is written
    // after this was done once.
    fs.sync_dir(root).map_err(io_error(root))?;
    if !fs.exists(&folder.manifest()).map_err(io_error(root))? {
        sync_above(fs, root);
    }
    let mut names = Vec::new();
    for dir in [root, &partitions] {
        for name in fs.list(dir).map_err(io_error(dir))? {
            if is_temporary(&name) {
                fs.remove(&dir.join(&name)).map_err(io_error(dir))?;
            } else if dir == partitions {
                names.push(name);
            }
        }
    }
    let files = Files::of(names);
    let (mut manifest, mut damaged) = manifest::read_or_rebuild(fs, folder, &files, random)?;
    let mut aside = numbers_aside(fs, folder)?;
    for &last in [files.partitions.last(), aside.last()].into_iter().flatten() {
        manifest.next_number = manifest.next_number.max(last.saturating_add(1));
    }
    let (mut live, mut missing) = (Vec::new(), Vec::new());
    for meta in manifest.partitions.clone() {
        let number = meta.number;
        if files.partitions.contains(&number) {
            match open_live(fs, folder, manifest.seed, &meta)? {
                Found::Live(partition) => live.push(partition),
                Found::SetAside => {
                    aside.insert(number);
                    damaged += 1;
                }
                Found::Hidden => missing.push(meta),
            }
        } else if aside.contains(&number) {
            // The start that set it aside ended before MANIFEST was written.
            tracing::error!(
                folder = %folder.quarantine().display(),
                number,
                min_ms = meta.min_ms,
                max_ms = meta.max_ms,
                "a partition lies in quarantine, where an earlier start brought it; its samples cannot be read"
            );
            damaged += 1;
        } else {
            let file = folder.partition(meta.number);
            tracing::error!(
                file = %file.display(),
                min_ms = meta.min_ms,
                max_ms = meta.max_ms,
                "a partition is missing; until its file is put back, its samples cannot be read"
            );
            missing.push(meta);
        }
    }
    let mut catalog = Catalog::new(manifest, live, missing);
    if damaged > 0 || !fs.exists(&folder.manifest()).map_err(io_error(root))? {
        catalog.write(fs, folder).map_err(io_error(&folder.manifest()))?;
    }
    if sort_out_strays(fs, folder, &catalog, &files, &aside)? {
        // What is removed must not come back when nobody knows any more that it may go.
        fs.sync_dir(&partitions).map_err(io_error(&partitions))?;
    }
    catalog.forget_retired();
    Ok(Opened { lock, catalog, damaged, reserve })
}

/// Whether a file is one of ours that was never finished; others may end alike.
fn is_temporary(name: &str) -> bool {
    let Some(name) = name.strip_suffix(TEMPORARY) else { return false };
    // A merge of many series has numbered files beside the partition that it writes.
    let numbered = name.rsplit_once('.').filter(|(_, number)| number.parse::<u32>().is_ok());
    [MANIFEST, POSITION_FILE].contains(&name)
        || FileName::parse(numbered.map_or(name, |(name, _)| name)).is_some()
}

/// The files among the partitions, by what they are.
#[derive(Debug, Default)]
pub(crate) struct Files {
    /// Numbers of partition files.
    pub partitions: BTreeSet<u64>,
    /// Partition number and number of tombstone files.
    pub tombstones: BTreeMap<u64, BTreeSet<u64>>,
    others: Vec<String>,
}

impl Files {
    /// Sorts the names in the folder of partitions.
    pub fn of(names: Vec<String>) -> Files {
        let mut files = Files::default();
        for name in names {
            match FileName::parse(&name) {
                Some(FileName::Partition(number)) => drop(files.partitions.insert(number)),
                Some(FileName::Tombstones(partition, number)) => {
                    files.tombstones.entry(partition).or_default().insert(number);
                }
                None => files.others.push(name),
            }
        }
        files
    }
}

/// The numbers of the partitions that were set aside.
fn numbers_aside(fs: &dyn Fs, folder: &Folder) -> Result<BTreeSet<u64>, OpenError> {
    let quarantine = folder.quarantine();
    if !fs.exists(&quarantine).map_err(io_error(&quarantine))? {
        return Ok(BTreeSet::new());
    }
    let names = fs.list(&quarantine).map_err(io_error(&quarantine))?;
    Ok(Files::of(names).partitions)
}

/// Puts the path into an error of the system.
pub(crate) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    move |source| OpenError::Io { path: path.to_owned(), source }
}

/// An error of the format: another version is told from damage.
pub(crate) fn version_error(path: &Path, error: &DecodeError) -> Option<OpenError> {
    match error.kind {
        DecodeErrorKind::Version { found, known } => {
            Some(OpenError::Version { path: path.to_owned(), found, supported: known })
        }
        _ => None,
    }
}

/// Prometheus' folder has `chunks_head`, blocks named by 26 letters and digits with a `meta.json`,
/// and a `wal` of numbered segments. Where our MANIFEST or partitions are, the folder is ours.
pub(crate) fn refuse_prometheus(fs: &dyn Fs, folder: &Folder) -> Result<(), OpenError> {
    let root = folder.root();
    let names = fs.list(root).map_err(io_error(root))?;
    if names.iter().any(|name| name == MANIFEST || name == "partitions") {
        return Ok(());
    }
    let is_block = |name: &str| {
        name.len() == 26
            && name.bytes().all(|b| b.is_ascii_alphanumeric())
            && fs.exists(&root.join(name).join("meta.json")).unwrap_or(false)
    };
    let is_segment = |name: &String| name.len() == 8 && name.bytes().all(|b| b.is_ascii_digit());
    let theirs = names.iter().any(|name| match name.as_str() {
        "chunks_head" => true,
        "wal" => fs.list(&folder.wal()).is_ok_and(|segments| segments.iter().any(is_segment)),
        name => is_block(name),
    });
    if theirs { Err(OpenError::PrometheusData(root.to_owned())) } else { Ok(()) }
}

/// Takes the folder for this process.
pub(crate) fn take_lock(fs: &dyn Fs, folder: &Folder) -> Result<Lock, OpenError> {
    let path = folder.root().join("lock");
    let content = format!("{}\n", std::process::id());
    match fs.lock(&path, &content).map_err(io_error(&path))? {
        Some(lock) => Ok(lock),
        None => {
            let holder = fs.read(&path).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let holder = holder.and_then(|text| text.trim().parse().ok());
            Err(OpenError::Locked { path: folder.root().to_owned(), holder })
        }
    }
}

/// What became of a partition that the MANIFEST names.
enum Found {
    Live(Live),
    /// It is damaged.
    SetAside,
    /// What was deleted from it is not known, so nothing of it may be shown: it counts as missing.
    Hidden,
}

/// Opens a partition that the MANIFEST names.
fn open_live(
    fs: &dyn Fs,
    folder: &Folder,
    seed: IdentitySeed,
    meta: &LivePartition,
) -> Result<Found, OpenError> {
    let path = folder.partition(meta.number);
    let partition = match Partition::open(fs, &path) {
        Ok(partition) => {
            let header = partition.header();
            if (header.seed, header.number, header.byte_len) != (seed, meta.number, meta.byte_len) {
                tracing::error!(file = %path.display(), "not the partition that MANIFEST names: moved to quarantine");
                folder.set_aside(fs, &path).map_err(io_error(&path))?;
                return Ok(Found::SetAside);
            }
            partition
        }
        Err(PartitionError::Damaged { error, .. }) => {
            if let Some(version) = version_error(&path, &error) {
                return Err(version);
            }
            tracing::error!(file = %path.display(), %error, "a damaged partition is moved to quarantine");
            folder.set_aside(fs, &path).map_err(io_error(&path))?;
            return Ok(Found::SetAside);
        }
        Err(PartitionError::Io(source)) => return Err(OpenError::Io { path, source }),
    };
    let read = meta.tombstones.map(|number| read_tombstones(fs, &folder.tombstones(meta.number, number)));
    let is_lost = |error: &OpenError| match error {
        OpenError::Damaged { .. } => true,
        OpenError::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
        _ => false,
    };
    match read.transpose() {
        Ok(tombstones) => {
            let tombstones = tombstones.map(Arc::new);
            Ok(Found::Live(Live { meta: meta.clone(), partition: Arc::new(partition), tombstones }))
        }
        // Deleted samples must not come back unasked.
        Err(error) if is_lost(&error) => {
            tracing::error!(
                file = %path.display(),
                %error,
                min_ms = meta.min_ms,
                max_ms = meta.max_ms,
                "nobody knows what was deleted from a partition: until its tombstones are put back, or \
                 given up by `larum tsdb verify --repair`, its samples are not shown"
            );
            Ok(Found::Hidden)
        }
        Err(error) => Err(error),
    }
}

/// Reads a file of tombstones.
pub(crate) fn read_tombstones(fs: &dyn Fs, path: &Path) -> Result<Tombstones, OpenError> {
    let bytes = fs.read(path).map_err(io_error(path))?;
    Tombstones::decode(&bytes).map_err(|error| {
        version_error(path, &error)
            .unwrap_or_else(|| OpenError::Damaged { path: path.to_owned(), what: error.to_string() })
    })
}

/// Removes files that a commit replaced or dropped, and those of a commit that never came; brings to
/// quarantine what belongs to a partition that is there already; reports the rest. Tells whether
/// there was any to remove.
fn sort_out_strays(
    fs: &dyn Fs,
    folder: &Folder,
    catalog: &Catalog,
    files: &Files,
    aside: &BTreeSet<u64>,
) -> Result<bool, OpenError> {
    let retired = |number: &u64| catalog.manifest().retired.contains(number);
    let live: BTreeMap<u64, &Live> = catalog.live().iter().map(|p| (p.meta.number, p)).collect();
    let replaced: BTreeSet<u64> =
        live.values().flat_map(|p| p.partition.header().origin.sources.iter().copied()).collect();
    let (mut gone, mut removed) = (BTreeSet::new(), !catalog.manifest().retired.is_empty());
    let is_named =
        |number: &u64| live.contains_key(number) || catalog.missing().iter().any(|p| p.number == *number);
    for &number in files.partitions.iter().filter(|number| !is_named(number)) {
        let path = folder.partition(number);
        let exists = fs.exists(&path).map_err(io_error(&path))?;
        let is_needless = || {
            retired(&number)
                || replaced.contains(&number)
                || is_uncommitted(fs, &path, catalog, &live, &replaced)
        };
        if exists && is_needless() {
            gone.insert(number);
        } else if exists && aside.contains(&number) {
            // A power cut undid its removal.
            folder.set_aside(fs, &path).map_err(io_error(&path))?;
            removed = true;
        } else if exists {
            tracing::warn!(file = %path.display(), "a partition that MANIFEST does not name is left alone");
        }
    }
    // Tombstones go before their partition, by which the next start would know them.
    for (&partition, numbers) in &files.tombstones {
        let missing = catalog.missing().iter().find(|p| p.number == partition);
        let current = live.get(&partition).map(|p| &p.meta).or(missing).map(|meta| meta.tombstones);
        for &number in numbers.iter().filter(|&&number| current != Some(Some(number))) {
            let path = folder.tombstones(partition, number);
            let is_dead = gone.contains(&partition) || replaced.contains(&partition) || retired(&partition);
            if current.is_some() || is_dead {
                fs.remove(&path).map_err(io_error(&path))?;
                removed = true;
            } else if aside.contains(&partition) {
                folder.set_aside(fs, &path).map_err(io_error(&path))?;
                removed = true;
            } else {
                tracing::warn!(file = %path.display(), "tombstones of an unknown partition are left alone");
            }
        }
    }
    removed |= !gone.is_empty();
    for number in gone {
        let path = folder.partition(number);
        fs.remove(&path).map_err(io_error(&path))?;
    }
    for name in &files.others {
        tracing::warn!(file = %folder.partitions().join(name).display(), "an unknown file is left alone");
    }
    Ok(removed)
}

/// Whether all samples of a file are elsewhere: still in the WAL, or in the partitions that it was
/// to replace, or in what another merge `replaced` these by.
fn is_uncommitted(
    fs: &dyn Fs,
    path: &Path,
    catalog: &Catalog,
    live: &BTreeMap<u64, &Live>,
    replaced: &BTreeSet<u64>,
) -> bool {
    let Ok(header) = fs.map(path).map_err(drop).and_then(|b| PartitionHeader::decode(&b).map_err(drop))
    else {
        return false;
    };
    let origin = &header.origin;
    let manifest: &Manifest = catalog.manifest();
    header.seed == manifest.seed
        && match origin.sources.is_empty() {
            true => origin.generations.0 > 0 && origin.generations.0 >= manifest.first_generation,
            false => origin.sources.iter().all(|n| live.contains_key(n) || replaced.contains(n)),
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::fs::{RealFs, replace_file};
    use crate::storage::options::Options;

    #[test]
    fn names_of_files_come_back() {
        for name in [FileName::Partition(7), FileName::Tombstones(12, 3), FileName::Partition(u64::MAX)] {
            assert_eq!(FileName::parse(&name.to_string()), Some(name));
        }
        for other in ["7.part", "0000000007-.del", "MANIFEST", "0000000007.part.tmp"] {
            assert_eq!(FileName::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_folder_of_prometheus_is_refused_and_left_as_it_was() {
        let block = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
        for theirs in ["chunks_head/000001", "wal/00000000", &format!("{block}/meta.json")] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(theirs);
            RealFs.create_dir(path.parent().unwrap()).unwrap();
            replace_file(&RealFs, &path, b"theirs").unwrap();
            let before = RealFs.list(dir.path()).unwrap();
            let refused = open(&RealFs, &Folder::new(dir.path()), &Options::default().random).err();
            assert!(matches!(refused, Some(OpenError::PrometheusData(_))), "{theirs}");
            assert_eq!(RealFs.list(dir.path()).unwrap(), before);
        }
    }

    #[test]
    fn temporary_files_go_and_unknown_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path());
        let random = Options::default().random;
        drop(open(&RealFs, &folder, &random).unwrap());
        let left = folder.partitions().join("0000000009.part.tmp");
        let beside = folder.partitions().join("0000000009.part.3.tmp");
        let unknown = folder.partitions().join("notes.txt");
        let theirs = dir.path().join("letter.tmp");
        for path in [&left, &beside, &unknown, &theirs] {
            RealFs.create(path).unwrap();
        }
        drop(open(&RealFs, &folder, &random).unwrap());
        assert!(!RealFs.exists(&left).unwrap() && !RealFs.exists(&beside).unwrap());
        assert!(RealFs.exists(&unknown).unwrap() && RealFs.exists(&theirs).unwrap());
    }
}
