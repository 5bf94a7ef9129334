//! What is live: the MANIFEST, and beside it the partitions it names, open.

use super::folder::{Files, Folder};
use super::fs::Fs;
use super::manifest;
use super::partition::Partition;
use super::querier::Layer;
use larum_storage_format::manifest::{LivePartition, Manifest};
use larum_storage_format::tombstones::Tombstones;
use std::io;
use std::sync::Arc;

/// A live partition, open.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    /// What the MANIFEST says of it.
    pub meta: LivePartition,
    /// The file.
    pub partition: Arc<Partition>,
    /// What was deleted from it.
    pub tombstones: Option<Arc<Tombstones>>,
}

impl Live {
    /// The partition as a layer of a view.
    pub fn layer(&self) -> Layer {
        Layer { part: self.partition.clone(), tombstones: self.tombstones.clone() }
    }

    /// Opens a partition that was just written, to be committed.
    pub fn open(fs: &dyn Fs, folder: &Folder, number: u64) -> io::Result<Live> {
        let partition = Partition::open(fs, &folder.partition(number)).map_err(io::Error::other)?;
        let header = partition.header();
        let meta = LivePartition {
            number,
            sequence: header.sequence,
            byte_len: header.byte_len,
            min_ms: header.min_ms,
            max_ms: header.max_ms,
            tombstones: None,
        };
        Ok(Live { meta, partition: Arc::new(partition), tombstones: None })
    }
}

/// The live partitions, ascending by number, and the rest of the MANIFEST.
#[derive(Debug)]
pub(crate) struct Catalog {
    /// Without the missing partitions, so that nobody plans with them.
    manifest: Manifest,
    live: Vec<Live>,
    /// Partitions that the MANIFEST names and whose files are not there. It goes on to name them, so
    /// that a file that comes back is live at the next start.
    missing: Vec<LivePartition>,
}

/// What a commit changes.
#[derive(Debug, Default)]
pub(crate) struct Change {
    /// The WAL generations before this one are no longer needed.
    pub first_generation: Option<u64>,
    /// Partitions that are gone.
    pub remove: Vec<u64>,
    /// New partitions.
    pub add: Vec<Live>,
    /// New tombstones of partitions that stay.
    pub tombstones: Vec<Arc<Tombstones>>,
}

impl Catalog {
    /// `live` are the partitions of `manifest` that could be opened, `missing` those whose files are
    /// not there.
    pub fn new(manifest: Manifest, live: Vec<Live>, missing: Vec<LivePartition>) -> Catalog {
        let mut catalog = Catalog { manifest, live, missing };
        catalog.manifest.partitions = catalog.live.iter().map(|p| p.meta.clone()).collect();
        catalog
    }

    /// The MANIFEST as it is written, with what is missing.
    pub fn manifest_to_write(&self) -> Manifest {
        with_missing(&self.manifest, &self.missing)
    }

    /// The MANIFEST as committed last, without what is missing.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The live partitions.
    pub fn live(&self) -> &[Live] {
        &self.live
    }

    /// The partitions whose files are not there.
    pub fn missing(&self) -> &[LivePartition] {
        &self.missing
    }

    /// The files of all retired partitions were removed, and the folder was synced.
    pub fn forget_retired(&mut self) {
        self.manifest.retired.clear();
    }

    /// The live partition of that number.
    pub fn get(&self, number: u64) -> Option<&Live> {
        self.live.iter().find(|p| p.meta.number == number)
    }

    /// The partitions as layers of a view: by rising sequence.
    pub fn layers(&self) -> Arc<[Layer]> {
        let mut sorted: Vec<&Live> = self.live.iter().collect();
        sorted.sort_by_key(|p| (p.meta.sequence, p.meta.number));
        sorted.into_iter().map(Live::layer).collect()
    }

    /// The numbers of the next `count` partitions; never handed out again.
    pub fn take_numbers(&mut self, count: u64) -> u64 {
        let first = self.manifest.next_number;
        self.manifest.next_number = first.saturating_add(count);
        first
    }

    /// The sequence of a new cut: above that of any partition, also of those that may come back.
    pub fn next_sequence(&self) -> u64 {
        let all = self.live.iter().map(|p| &p.meta).chain(&self.missing);
        all.map(|p| p.sequence.saturating_add(1)).max().unwrap_or(1)
    }

    /// Writes the MANIFEST as it is.
    pub fn write(&mut self, fs: &dyn Fs, folder: &Folder) -> io::Result<()> {
        manifest::write(fs, folder, &self.manifest_to_write())
    }

    /// Commits a change: once the MANIFEST is replaced, it is done. On an error nothing changed as
    /// far as this process is concerned; what the device holds is seen at the next commit or start.
    pub fn commit(&mut self, fs: &dyn Fs, folder: &Folder, change: Change) -> io::Result<()> {
        let mut live = self.live.clone();
        live.retain(|p| !change.remove.contains(&p.meta.number));
        for tombstones in change.tombstones {
            if let Some(p) = live.iter_mut().find(|p| p.meta.number == tombstones.partition) {
                p.meta.tombstones = Some(tombstones.number);
                p.tombstones = Some(tombstones);
            }
        }
        live.extend(change.add);
        live.sort_by_key(|p| p.meta.number);
        let mut missing = self.missing.clone();
        missing.retain(|p| !change.remove.contains(&p.number));
        let mut retired = self.still_there(fs, folder).unwrap_or_else(|_| self.manifest.retired.clone());
        retired.extend(change.remove);
        retired.sort_unstable();
        let manifest = Manifest {
            seed: self.manifest.seed,
            first_generation: change.first_generation.unwrap_or(self.manifest.first_generation),
            next_number: self.manifest.next_number,
            partitions: live.iter().map(|p| p.meta.clone()).collect(),
            retired,
        };
        manifest::write(fs, folder, &with_missing(&manifest, &missing))?;
        (self.manifest, self.live, self.missing) = (manifest, live, missing);
        Ok(())
    }

    /// The retired partitions of which a file is there or may come back in a power cut.
    fn still_there(&self, fs: &dyn Fs, folder: &Folder) -> io::Result<Vec<u64>> {
        let mut retired = self.manifest.retired.clone();
        if !retired.is_empty() {
            let partitions = folder.partitions();
            let files = Files::of(fs.list(&partitions)?);
            retired.retain(|n| files.partitions.contains(n) || files.tombstones.contains_key(n));
            fs.sync_dir(&partitions)?;
        }
        Ok(retired)
    }
}

/// What is written to the device.
fn with_missing(manifest: &Manifest, missing: &[LivePartition]) -> Manifest {
    let mut manifest = manifest.clone();
    manifest.partitions.extend_from_slice(missing);
    manifest.partitions.sort_by_key(|p| p.number);
    manifest
}
