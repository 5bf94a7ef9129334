//! A look at a data folder: what is there, what is damaged, what costs most.
//!
//! Nothing is changed, and no lock is needed: a partition never changes once the MANIFEST names it,
//! and where a server that has the folder open replaces one meanwhile, that is noticed. Not seen is
//! what such a server writes after the look began. [`Inspection::open_alone`] keeps others out, and
//! only [`Inspection::repair`] changes anything.

mod costs;
mod look;
mod repair;
mod verify;

pub use super::damage::Loss;
pub use costs::{Cost, Costs, NameCost};
pub use verify::{Checked, Fault};

use super::catalog::Live;
use super::error::OpenError;
use super::folder::{Files, Folder, io_error, read_tombstones, refuse_prometheus, take_lock, version_error};
use super::fs::{Fs, Lock, RealFs};
use super::head::{Head, HeadOptions};
use super::manifest;
use super::options::{Maintenance, Options, WalFsync};
use super::part::Part;
use super::partition::pieces::{Pieces, Trouble};
use super::partition::{Partition, PartitionError};
use super::policy::Borders;
use super::querier::{Layer, View};
use super::wal::replay::Segments;
use larum_storage_format::manifest::{LivePartition, Manifest};
use larum_storage_format::partition::PartitionHeader;
use look::LookOnly;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// So often a look begins again because a server replaced partitions meanwhile.
const ATTEMPTS: usize = 10;

/// A data folder that is looked at.
pub struct Inspection {
    fs: Arc<dyn Fs>,
    folder: Folder,
    manifest: Manifest,
    /// What is wrong with the MANIFEST on the device, if `manifest` was put together from headers.
    manifest_fault: Option<String>,
    _lock: Option<Lock>,
}

/// A live partition.
#[derive(Debug, Clone)]
pub struct PartitionSummary {
    /// What the MANIFEST says of it.
    pub meta: LivePartition,
    /// What it says of itself, or what is wrong with it.
    pub header: Result<PartitionHeader, String>,
    /// Of how many series something was deleted, or what is wrong with the file that says so.
    pub deleted_from: Result<u64, String>,
}

/// Files that lie beside the partitions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FilesSummary {
    /// How many.
    pub files: u64,
    /// How long they are together.
    pub bytes: u64,
}

/// Partitions that could be opened, and one sentence for each that could not.
type Opened = (Vec<Live>, Vec<String>);

impl Inspection {
    /// Looks at the folder `path`, which another process may have open.
    ///
    /// # Errors
    /// There is no data folder of Larum, it is of another version, or the system refuses.
    pub fn open(path: &Path) -> Result<Inspection, OpenError> {
        Inspection::look(path, None)
    }

    /// Looks at the folder `path`, and keeps others out until the inspection is dropped.
    ///
    /// # Errors
    /// As [`Inspection::open`], or another process has the folder.
    pub fn open_alone(path: &Path) -> Result<Inspection, OpenError> {
        let folder = Folder::new(path);
        check_is_ours(&RealFs, &folder)?;
        let lock = take_lock(&RealFs, &folder)?;
        Inspection::look(path, Some(lock))
    }

    fn look(path: &Path, lock: Option<Lock>) -> Result<Inspection, OpenError> {
        let fs: Arc<dyn Fs> = Arc::new(LookOnly);
        let folder = Folder::new(path);
        check_is_ours(&*fs, &folder)?;
        let (manifest, manifest_fault) = read_manifest(&*fs, &folder)?;
        Ok(Inspection { fs, folder, manifest, manifest_fault, _lock: lock })
    }

    /// What is wrong with the MANIFEST, if it cannot be read: what it must have said was then put
    /// together from the partitions, as a start would do.
    pub fn manifest_fault(&self) -> Option<&str> {
        self.manifest_fault.as_deref()
    }

    /// The live partitions. Those are left out that another process replaced meanwhile.
    pub fn partitions(&self) -> impl Iterator<Item = PartitionSummary> + '_ {
        self.manifest.partitions.iter().filter_map(|meta| {
            let read =
                Pieces::open(&*self.fs, &self.folder.partition(meta.number)).and_then(|file| file.header());
            if read.as_ref().is_err_and(Trouble::is_missing) && self.is_replaced(meta.number) {
                return None;
            }
            let deleted_from = meta.tombstones.map_or(Ok(0), |number| {
                let path = self.folder.tombstones(meta.number, number);
                let tombstones = read_tombstones(&*self.fs, &path).map_err(|e| e.to_string())?;
                Ok(tombstones.iter().count() as u64)
            });
            let header = read.map_err(|trouble| trouble.to_string());
            Some(PartitionSummary { meta: meta.clone(), header, deleted_from })
        })
    }

    /// The write-ahead log: what a start would read.
    ///
    /// # Errors
    /// Those of the system.
    pub fn wal(&self) -> Result<FilesSummary, OpenError> {
        Ok(self.segments()?.map(|segments| FilesSummary::of(segments.paths())).unwrap_or_default())
    }

    /// What was set aside because it is damaged.
    ///
    /// # Errors
    /// Those of the system.
    pub fn quarantine(&self) -> Result<FilesSummary, OpenError> {
        let dir = self.folder.quarantine();
        let names = self.list(&dir)?;
        Ok(FilesSummary::of(names.into_iter().map(|name| dir.join(name))))
    }

    /// Everything that can be read, as a view, and one sentence for each file that is left out. The WAL
    /// is read into memory.
    ///
    /// # Errors
    /// Those of the system, or a WAL that belongs to another folder or version.
    pub fn view(&mut self) -> Result<(View, Vec<String>), OpenError> {
        let (mut live, left_out) = self.live()?;
        live.sort_by_key(|p| (p.meta.sequence, p.meta.number));
        let layers: Arc<[Layer]> = live.iter().map(Live::layer).collect();
        let mut generations: Vec<Arc<dyn Part>> = Vec::new();
        if self.segments()?.is_some() {
            let options = Options::default();
            let head_options = HeadOptions {
                seed: self.manifest.seed,
                limits: options.limits,
                fsync: WalFsync::Never,
                maintenance: Maintenance::Stepped,
                wal_bytes: options.wal_bytes,
                generations_skipped: 0,
            };
            let first = self.manifest.first_generation;
            let head = Head::open(self.fs.clone(), &self.folder.wal(), first, head_options)?;
            generations.extend(head.generations().into_iter().map(|g| g as Arc<dyn Part>));
        }
        Ok((View::new(layers, generations, Borders::at(i64::MIN)), left_out))
    }

    /// The live partitions, open.
    fn live(&mut self) -> Result<Opened, OpenError> {
        for _ in 1..ATTEMPTS {
            if let Some(opened) = self.try_live(false)? {
                return Ok(opened);
            }
            (self.manifest, self.manifest_fault) = read_manifest(&*self.fs, &self.folder)?;
        }
        Ok(self.try_live(true)?.unwrap_or_default())
    }

    /// `None` if another process replaced a partition meanwhile, unless it is the last attempt.
    fn try_live(&self, is_last: bool) -> Result<Option<Opened>, OpenError> {
        let (mut live, mut left_out) = (Vec::new(), Vec::new());
        for meta in &self.manifest.partitions {
            let path = self.folder.partition(meta.number);
            let partition = match Partition::open(&*self.fs, &path) {
                Ok(partition) => partition,
                Err(PartitionError::Io(e))
                    if !is_last && e.kind() == io::ErrorKind::NotFound && self.is_replaced(meta.number) =>
                {
                    return Ok(None);
                }
                Err(error) => {
                    left_out.push(error.to_string());
                    continue;
                }
            };
            let tombstones = meta.tombstones.map(|number| {
                read_tombstones(&*self.fs, &self.folder.tombstones(meta.number, number)).map(Arc::new)
            });
            match tombstones.transpose() {
                Ok(tombstones) => {
                    live.push(Live { meta: meta.clone(), partition: Arc::new(partition), tombstones });
                }
                // What was deleted must not be shown.
                Err(_) if !is_last && self.has_changed(meta) => return Ok(None),
                Err(error) => left_out.push(format!("{}: {error}", path.display())),
            }
        }
        Ok(Some((live, left_out)))
    }

    /// Whether the MANIFEST no longer names a partition.
    fn is_replaced(&self, number: u64) -> bool {
        self.present().is_some_and(|manifest| manifest.partitions.iter().all(|p| p.number != number))
    }

    /// Whether the MANIFEST says something else of a partition.
    fn has_changed(&self, meta: &LivePartition) -> bool {
        self.present().is_some_and(|manifest| !manifest.partitions.contains(meta))
    }

    /// The MANIFEST as it is now, if it is intact.
    fn present(&self) -> Option<Manifest> {
        Manifest::decode(&self.fs.read(&self.folder.manifest()).ok()?).ok()
    }

    /// The WAL; a snapshot has none.
    fn segments(&self) -> Result<Option<Segments>, OpenError> {
        let dir = self.folder.wal();
        match self.fs.exists(&dir).map_err(io_error(&dir))? {
            true => Segments::find(&*self.fs, &dir, self.manifest.first_generation).map(Some),
            false => Ok(None),
        }
    }

    /// The names in a folder that need not be there.
    fn list(&self, dir: &Path) -> Result<Vec<String>, OpenError> {
        list(&*self.fs, dir)
    }
}

impl FilesSummary {
    /// Files that are gone meanwhile do not count.
    fn of(paths: impl IntoIterator<Item = PathBuf>) -> FilesSummary {
        let lengths = paths.into_iter().filter_map(|path| Some(std::fs::metadata(path).ok()?.len()));
        lengths.fold(FilesSummary::default(), |sum, bytes| FilesSummary {
            files: sum.files + 1,
            bytes: sum.bytes + bytes,
        })
    }
}

fn list(fs: &dyn Fs, dir: &Path) -> Result<Vec<String>, OpenError> {
    match fs.exists(dir).map_err(io_error(dir))? {
        true => fs.list(dir).map_err(io_error(dir)),
        false => Ok(Vec::new()),
    }
}

/// Nobody who only looks creates a folder.
fn check_is_ours(fs: &dyn Fs, folder: &Folder) -> Result<(), OpenError> {
    let root = folder.root();
    let names = fs.list(root).map_err(io_error(root))?;
    refuse_prometheus(fs, folder)?;
    if names.iter().any(|name| ["MANIFEST", "partitions", "wal"].contains(&&**name)) {
        return Ok(());
    }
    let what = "no data folder of Larum: it has neither a MANIFEST nor partitions (--storage.tsdb.path)";
    Err(OpenError::Damaged { path: root.to_owned(), what: what.to_owned() })
}

/// The MANIFEST, or what it must have said and why that had to be guessed.
fn read_manifest(fs: &dyn Fs, folder: &Folder) -> Result<(Manifest, Option<String>), OpenError> {
    let path = folder.manifest();
    let fault = match fs.read(&path) {
        Ok(bytes) => match Manifest::decode(&bytes) {
            Ok(manifest) => return Ok((manifest, None)),
            Err(error) => match version_error(&path, &error) {
                Some(version) => return Err(version),
                None => error.to_string(),
            },
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => "missing".to_owned(),
        Err(source) => return Err(OpenError::Io { path, source }),
    };
    let files = Files::of(list(fs, &folder.partitions())?);
    let (manifest, _) = manifest::read_or_rebuild(fs, folder, &files, &Options::default().random)?;
    Ok((manifest, Some(fault)))
}
