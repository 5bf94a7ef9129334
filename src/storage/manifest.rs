//! The MANIFEST file: read, replaced, and put together again if it is lost.

use super::error::OpenError;
use super::folder::{Files, Folder, io_error, version_error};
use super::fs::{Fs, replace_file};
use super::options::Random;
use larum_storage_format::IdentitySeed;
use larum_storage_format::manifest::{LivePartition, Manifest};
use larum_storage_format::partition::PartitionHeader;
use larum_storage_format::tombstones::Tombstones;
use larum_storage_format::wal::SegmentHeader;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

/// Reads the MANIFEST. A missing or damaged one is rebuilt from what the other files say; where
/// there is nothing, a new one with a random seed begins. Also tells how many files were damaged.
pub(crate) fn read_or_rebuild(
    fs: &dyn Fs,
    folder: &Folder,
    files: &Files,
    random: &Random,
) -> Result<(Manifest, u64), OpenError> {
    let path = folder.manifest();
    let mut damaged = 0;
    match fs.read(&path) {
        Ok(bytes) => match Manifest::decode(&bytes) {
            Ok(manifest) => return Ok((manifest, 0)),
            Err(error) => {
                if let Some(version) = version_error(&path, &error) {
                    return Err(version);
                }
                tracing::error!(file = %path.display(), %error, "MANIFEST is damaged and rebuilt");
                folder.set_aside(fs, &path).map_err(io_error(&path))?;
                damaged = 1;
            }
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(OpenError::Io { path, source }),
    }
    let headers = read_headers(fs, folder, files)?;
    let seed = match headers.first() {
        Some(header) => Some(header.seed),
        None => seed_of_wal(fs, &folder.wal())?,
    };
    let manifest = match seed {
        Some(seed) => {
            if damaged == 0 {
                tracing::warn!(file = %path.display(), "MANIFEST is missing and rebuilt");
            }
            let tombstones = |partition| newest_tombstones(fs, folder, files, partition);
            rebuild(seed, headers, tombstones)
        }
        None => Manifest {
            seed: new_seed(&path, random)?,
            first_generation: 1,
            next_number: 1,
            partitions: Vec::new(),
            retired: Vec::new(),
        },
    };
    Ok((manifest, damaged))
}

/// Replaces the MANIFEST: the commit point.
pub(crate) fn write(fs: &dyn Fs, folder: &Folder, manifest: &Manifest) -> io::Result<()> {
    replace_file(fs, &folder.manifest(), &manifest.encode())
}

fn new_seed(path: &Path, random: &Random) -> Result<IdentitySeed, OpenError> {
    random().map(IdentitySeed).map_err(io_error(path))
}

fn read_headers(fs: &dyn Fs, folder: &Folder, files: &Files) -> Result<Vec<PartitionHeader>, OpenError> {
    let mut headers = Vec::new();
    for &number in &files.partitions {
        let path = folder.partition(number);
        let bytes = fs.map(&path).map_err(io_error(&path))?;
        match PartitionHeader::decode(&bytes) {
            Ok(header) if header.number == number && header.byte_len == bytes.len() as u64 => {
                headers.push(header);
            }
            Ok(_) => tracing::error!(file = %path.display(), "wrong number or length, left alone"),
            Err(error) => match version_error(&path, &error) {
                Some(version) => return Err(version),
                None => tracing::error!(file = %path.display(), %error, "damaged, left alone"),
            },
        }
    }
    Ok(headers)
}

/// The seed that the first readable segment of the WAL states.
fn seed_of_wal(fs: &dyn Fs, wal: &Path) -> Result<Option<IdentitySeed>, OpenError> {
    if !fs.exists(wal).map_err(io_error(wal))? {
        return Ok(None);
    }
    for name in fs.list(wal).map_err(io_error(wal))? {
        let bytes = fs.read(&wal.join(name)).map_err(io_error(wal))?;
        if let Ok(header) = SegmentHeader::decode(&bytes) {
            return Ok(Some(header.seed));
        }
    }
    Ok(None)
}

fn newest_tombstones(fs: &dyn Fs, folder: &Folder, files: &Files, partition: u64) -> Option<u64> {
    files.tombstones.get(&partition)?.iter().rev().copied().find(|&number| {
        let bytes = fs.read(&folder.tombstones(partition, number));
        bytes.is_ok_and(|bytes| {
            Tombstones::decode(&bytes).is_ok_and(|t| (t.partition, t.number) == (partition, number))
        })
    })
}

/// What the MANIFEST must have said, by the headers of all partition files there are.
///
/// A merge or a cut was committed if all of its files are there; a merge then replaces its sources.
/// The WAL is needed from behind the last generation that a finished cut or merge covers.
fn rebuild(
    seed: IdentitySeed,
    mut headers: Vec<PartitionHeader>,
    tombstones: impl Fn(u64) -> Option<u64>,
) -> Manifest {
    headers.retain(|header| header.seed == seed);
    let next_number = headers.iter().map(|header| header.number.saturating_add(1)).max().unwrap_or(1);
    let mut siblings: BTreeMap<_, u32> = BTreeMap::new();
    let group = |h: &PartitionHeader| (h.origin.sources.clone(), h.origin.generations, h.origin.outputs);
    for header in &headers {
        *siblings.entry(group(header)).or_default() += 1;
    }
    let is_complete = |h: &PartitionHeader| siblings.get(&group(h)) == Some(&h.origin.outputs);
    let present: BTreeSet<u64> = headers.iter().map(|header| header.number).collect();
    let replaced: BTreeSet<u64> =
        headers.iter().filter(|h| is_complete(h)).flat_map(|h| h.origin.sources.iter().copied()).collect();
    let first_generation = headers
        .iter()
        .filter(|h| is_complete(h))
        .map(|h| h.origin.generations.1.saturating_add(1))
        .max()
        .unwrap_or(1);
    // The files of an unfinished cut stay: what they hold comes from the WAL again, and equal
    // samples do no harm. Those of an unfinished merge go if their sources are there.
    let unfinished = |h: &PartitionHeader| {
        let sources = &h.origin.sources;
        !sources.is_empty() && !is_complete(h) && sources.iter().all(|n| present.contains(n))
    };
    headers.retain(|h| !replaced.contains(&h.number) && !unfinished(h));
    let live = |h: &PartitionHeader| LivePartition {
        number: h.number,
        sequence: h.sequence,
        byte_len: h.byte_len,
        min_ms: h.min_ms,
        max_ms: h.max_ms,
        tombstones: tombstones(h.number),
    };
    headers.sort_by_key(|header| header.number);
    Manifest {
        seed,
        first_generation,
        next_number,
        partitions: headers.iter().map(live).collect(),
        retired: Vec::new(),
    }
}
