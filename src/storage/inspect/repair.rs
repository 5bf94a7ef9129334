//! Repair: a folder becomes one that opens and reads without complaint; what is damaged goes to
//! quarantine, and nothing is deleted.
//!
//! 1. What would keep a server from starting is set aside: tombstones that cannot be read, WAL
//!    segments of another folder. Damaged WAL segments get a second name in quarantine.
//! 2. The folder is opened as a start does it: a damaged MANIFEST is put together again, partitions
//!    with damaged headers are set aside, the WAL is read.
//! 3. Partitions with damaged extents are written anew without them, as a merge would.
//! 4. The folder is closed: what the WAL held is in partitions, and its damaged segments go.

use super::verify::Place;
use super::{Fault, Inspection};
use crate::storage::engine::Storage;
use crate::storage::error::OpenError;
use crate::storage::folder::io_error;
use crate::storage::fs::{Fs, RealFs};
use crate::storage::manifest;
use crate::storage::options::{Maintenance, Options};
use std::collections::BTreeSet;
use std::path::Path;

impl Inspection {
    /// Repairs the folder as far as `faults` say that it is damaged, which this inspection found (see
    /// [`Inspection::verify`]) and meanwhile kept others out ([`Inspection::open_alone`]). `tell` gets a
    /// sentence for each thing done.
    ///
    /// # Errors
    /// A file is of another version; those of the system. What was done before stays done.
    pub fn repair(self, faults: &[Fault], tell: &mut dyn FnMut(String)) -> Result<(), OpenError> {
        let folder = self.folder.clone();
        let path = folder.root();
        clear_the_way(&self, faults, tell)?;
        // Opening takes the lock again. Who comes between finds a folder that opens.
        drop(self);
        let options = Options { maintenance: Maintenance::Stepped, ..Options::default() };
        let storage = Storage::open(path, options)?;
        for fault in faults.iter().filter(|fault| matches!(fault.place, Place::Manifest | Place::File)) {
            tell(format!("{}: dealt with as by a start of the server", fault.path.display()));
        }
        let damaged: BTreeSet<u64> = faults
            .iter()
            .filter_map(|fault| if let Place::Extents(number) = fault.place { Some(number) } else { None })
            .collect();
        for number in damaged {
            let file = folder.partition(number);
            storage.rewrite(number).map_err(io_error(&file))?;
            let done = "written anew without what is damaged; the file itself is in quarantine";
            tell(format!("{}: {done}", file.display()));
        }
        storage.close().map_err(io_error(path))
    }
}

/// Sets aside what a start would stumble over.
fn clear_the_way(
    inspection: &Inspection,
    faults: &[Fault],
    tell: &mut dyn FnMut(String),
) -> Result<(), OpenError> {
    let (fs, folder) = (&RealFs, &inspection.folder);
    let mut manifest = inspection.manifest.clone();
    let mut unnamed = Vec::new();
    let mut kept: BTreeSet<&Path> = BTreeSet::new();
    for Fault { path, place, .. } in faults {
        match place {
            Place::Tombstones(number) => {
                if let Some(meta) = manifest.partitions.iter_mut().find(|p| p.number == *number) {
                    meta.tombstones = None;
                }
                if fs.exists(path).map_err(io_error(path))? {
                    folder.link_aside(fs, path).map_err(io_error(path))?;
                    unnamed.push(path);
                }
                let file = folder.partition(*number);
                tell(format!("{}: what was deleted from it is there again; delete it anew", file.display()));
            }
            Place::ForeignSegment => {
                folder.set_aside(fs, path).map_err(io_error(path))?;
                tell(format!("{}: set aside", path.display()));
            }
            Place::Wal if path.is_file() && kept.insert(path) => {
                folder.link_aside(fs, path).map_err(io_error(path))?;
                let done = "what is intact goes to partitions; the file itself is in quarantine";
                tell(format!("{}: {done}", path.display()));
            }
            _ => {}
        }
    }
    // While the MANIFEST is damaged, a start finds the newest intact tombstones by itself.
    if manifest != inspection.manifest && inspection.manifest_fault.is_none() {
        manifest::write(fs, folder, &manifest).map_err(io_error(&folder.manifest()))?;
    }
    for path in unnamed {
        fs.remove(path).map_err(io_error(path))?;
    }
    Ok(())
}
