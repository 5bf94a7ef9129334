//! Every checksum of a folder: MANIFEST, partitions, tombstones, WAL; and what each fault costs.

use super::{ATTEMPTS, Inspection};
use crate::storage::damage::{self, Loss};
use crate::storage::error::OpenError;
use crate::storage::folder::read_tombstones;
use crate::storage::partition::Partition;
use crate::storage::partition::pieces::{DamagedExtents, Pieces, Trouble};
use crate::storage::time::TimeRange;
use larum_storage_format::DecodeError;
use larum_storage_format::manifest::LivePartition;
use larum_storage_format::partition::{Chunk, PartitionHeader};
use std::io;
use std::path::{Path, PathBuf};

/// What was verified.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checked {
    /// Partitions.
    pub partitions: u64,
    /// Bytes of their files.
    pub partition_bytes: u64,
    /// Intact frames of the WAL.
    pub wal_frames: u64,
    /// Samples in them.
    pub wal_samples: u64,
    /// Partitions that another process replaced meanwhile; they were not verified.
    pub replaced: u64,
    /// Faults found.
    pub faults: u64,
}

/// Something is wrong with a file.
#[derive(Debug, Clone)]
pub struct Fault {
    /// The file.
    pub path: PathBuf,
    /// Where in it, where that is known.
    pub offset: Option<u64>,
    /// What is wrong.
    pub what: String,
    /// What it costs.
    pub loss: Loss,
    /// What it is a fault of.
    pub(super) place: Place,
}

/// What a fault is a fault of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Manifest,
    /// A partition whose header or list of checksums cannot be used.
    File,
    /// A partition that is not there.
    Missing,
    /// Extents of a partition.
    Extents(u64),
    /// A tombstone file of a partition.
    Tombstones(u64),
    Wal,
    /// A segment that is none of this WAL's.
    ForeignSegment,
}

impl Inspection {
    /// Verifies everything and reports each fault as it is found.
    ///
    /// # Errors
    /// A file is of another version, or the system refuses.
    pub fn verify(&self, report: &mut dyn FnMut(Fault)) -> Result<Checked, OpenError> {
        let mut checked = Checked::default();
        let mut faults = 0;
        let mut report = |fault| {
            faults += 1;
            report(fault);
        };
        if let Some(what) = &self.manifest_fault {
            let loss = Loss { what: "a start puts it together again from the partitions", ..Loss::default() };
            report(Fault {
                path: self.folder.manifest(),
                offset: None,
                what: what.clone(),
                loss,
                place: Place::Manifest,
            });
        }
        for meta in &self.manifest.partitions {
            if !self.verify_partition(meta, &mut report)? {
                checked.replaced += 1;
                continue;
            }
            checked.partitions += 1;
            checked.partition_bytes += meta.byte_len;
            self.verify_tombstones(meta, &mut report)?;
        }
        self.verify_wal(&mut checked, &mut report)?;
        checked.faults = faults;
        Ok(checked)
    }

    /// Tells whether the partition is still there.
    fn verify_partition(
        &self,
        meta: &LivePartition,
        report: &mut dyn FnMut(Fault),
    ) -> Result<bool, OpenError> {
        let path = self.folder.partition(meta.number);
        let whole =
            |what| Loss { what, range: Some(TimeRange::new(meta.min_ms, meta.max_ms)), ..Loss::default() };
        let fault = |offset, what, loss, place| Fault { path: path.clone(), offset, what, loss, place };
        let opened = Pieces::open(&*self.fs, &path).and_then(|file| {
            let header = file.header()?;
            let extents = file.extents(&header)?;
            Ok((file, header, extents))
        });
        let (file, header, extents) = match opened {
            Ok(opened) => opened,
            Err(trouble) if trouble.is_missing() => {
                if self.is_replaced(meta.number) {
                    return Ok(false);
                }
                let loss = whole("all its samples cannot be read until the file is put back");
                report(fault(None, "missing".to_owned(), loss, Place::Missing));
                return Ok(true);
            }
            Err(Trouble::Damage(error)) => {
                if let Some(version) = crate::storage::folder::version_error(&path, &error) {
                    return Err(version);
                }
                let loss = whole("all its samples; a start sets the file aside");
                let what = format!("{}: {}", error.what, error.kind);
                report(fault(Some(error.offset as u64), what, loss, Place::File));
                return Ok(true);
            }
            Err(Trouble::Io(e)) => {
                report(fault(None, e.to_string(), whole("all its samples"), Place::File));
                return Ok(true);
            }
        };
        if (header.seed, header.number, header.byte_len) != (self.manifest.seed, meta.number, meta.byte_len) {
            let what = "not the partition that MANIFEST names".to_owned();
            let loss = whole("all its samples; a start sets the file aside");
            report(fault(Some(0), what, loss, Place::File));
            return Ok(true);
        }
        let damaged = file.damaged(&extents);
        if damaged.is_empty() {
            // The bytes are those that were written; whether they make sense is another question.
            if let Err(error) = self.open_partition(&path, |partition| partition.file().verify_index()) {
                let loss = damage::of_index(&header);
                let what = format!("{}: {}", error.what, error.kind);
                report(fault(Some(error.offset as u64), what, loss, Place::Extents(meta.number)));
            }
            return Ok(true);
        }
        let losses = self.losses(&path, &header, &damaged);
        for (extents, loss) in damaged.into_iter().zip(losses) {
            let sections: Vec<&str> = header.sections_in(&extents.range).collect();
            let what = format!(
                "{} ({} bytes of {})",
                extents.what,
                extents.range.end - extents.range.start,
                sections.join(", ")
            );
            report(fault(Some(extents.range.start), what, loss, Place::Extents(meta.number)));
        }
        Ok(true)
    }

    /// Maps a partition. Only for files of which every byte was read before.
    fn open_partition<T: Default>(
        &self,
        path: &Path,
        look: impl FnOnce(&Partition) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        match Partition::open(&*self.fs, path) {
            Ok(partition) => look(&partition),
            // It was there a moment ago: another process replaced it.
            Err(_) => Ok(T::default()),
        }
    }

    /// What damaged extents of a partition cost, one for one.
    fn losses(&self, path: &Path, header: &PartitionHeader, damaged: &[DamagedExtents]) -> Vec<Loss> {
        let of = |extents: &DamagedExtents| match extents.is_data {
            true => damage::of_data(header),
            false => damage::of_index(header),
        };
        let mut losses: Vec<Loss> = damaged.iter().map(of).collect();
        // A map of what the device cannot read would end the process; an index with holes cannot say.
        if damaged.iter().any(|extents| !extents.is_data || !extents.readable) {
            return losses;
        }
        let counted = self.open_partition(path, |partition| {
            // An alias needs a chunk that may lie in another extent.
            let hit = |chunk: &Chunk| {
                let at = partition.file().verify_chunk(chunk).err()?.offset as u64;
                damaged.iter().position(|extents| extents.range.contains(&at))
            };
            Ok(damage::count(partition, damaged, hit, || false)?.unwrap_or_default())
        });
        if let Ok(found) = counted
            && found.len() == losses.len()
        {
            losses = found;
        }
        losses
    }

    fn verify_tombstones(
        &self,
        meta: &LivePartition,
        report: &mut dyn FnMut(Fault),
    ) -> Result<(), OpenError> {
        let Some(number) = meta.tombstones else { return Ok(()) };
        let path = self.folder.tombstones(meta.number, number);
        let what = match read_tombstones(&*self.fs, &path) {
            Ok(tombstones) if (tombstones.partition, tombstones.number) == (meta.number, number) => {
                return Ok(());
            }
            Ok(_) => "tombstones of another partition or number".to_owned(),
            Err(error @ OpenError::Version { .. }) => return Err(error),
            Err(_) if self.has_changed(meta) => return Ok(()),
            Err(OpenError::Damaged { what, .. }) => what,
            Err(error) => error.to_string(),
        };
        let loss = Loss {
            what: "nobody knows what was deleted from the partition: a server does not show it; with --repair, deleted samples are there again",
            range: Some(TimeRange::new(meta.min_ms, meta.max_ms)),
            ..Loss::default()
        };
        report(Fault { path, offset: None, what, loss, place: Place::Tombstones(meta.number) });
        Ok(())
    }

    fn verify_wal(&self, checked: &mut Checked, report: &mut dyn FnMut(Fault)) -> Result<(), OpenError> {
        for attempt in 1.. {
            let Some(segments) = self.segments()? else { return Ok(()) };
            let (mut frames, mut samples) = (0, 0);
            let read = segments.read(&*self.fs, self.manifest.seed, |_, contents| {
                frames += 1;
                samples += contents.refs.len() as u64;
            });
            match read {
                Ok(losses) => {
                    (checked.wal_frames, checked.wal_samples) = (frames, samples);
                    let lost = "the samples of these bytes; a start reads the frames behind them";
                    for (path, offset, what) in losses.places() {
                        let loss = Loss { what: lost, ..Loss::default() };
                        let offset = Some(offset);
                        report(Fault { path: path.to_owned(), offset, what, loss, place: Place::Wal });
                    }
                    if losses.more_places() > 0 {
                        let what = format!("{} more damaged places", losses.more_places());
                        let loss = Loss { what: "the samples there", ..Loss::default() };
                        let path = self.folder.wal();
                        report(Fault { path, offset: None, what, loss, place: Place::Wal });
                    }
                    return Ok(());
                }
                // A server that has the folder open removed a segment: it was cut.
                Err(OpenError::Io { source, .. })
                    if source.kind() == io::ErrorKind::NotFound && attempt < ATTEMPTS => {}
                Err(OpenError::Damaged { path, what }) => {
                    let loss = Loss {
                        what: "a server does not start, and the segments behind it were not verified; with --repair, it is set aside",
                        ..Loss::default()
                    };
                    report(Fault { path, offset: Some(0), what, loss, place: Place::ForeignSegment });
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
