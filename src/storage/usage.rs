//! What the data folder takes on the device, by what it is.

use super::folder::Folder;
use super::fs::{FileUse, Fs};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::Path;

/// Bytes that the files of a data folder take on the device. A file with several names counts once,
/// as what it is here rather than as a copy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FolderUse {
    /// Partitions.
    pub partitions: u64,
    /// Tombstones beside partitions.
    pub tombstones: u64,
    /// The write-ahead log.
    pub wal: u64,
    /// The store of small facts.
    pub state: u64,
    /// Damaged files that were set aside.
    pub quarantine: u64,
    /// Snapshots in the folder, as far as their files are in no use here.
    pub snapshots: u64,
    /// Anything else: MANIFEST, lock, what is being written, what nobody knows.
    pub others: u64,
}

impl FolderUse {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.parts().iter().map(|(_, bytes)| bytes).sum()
    }

    /// The parts by their names.
    pub fn parts(&self) -> [(&'static str, u64); 7] {
        [
            ("partitions", self.partitions),
            ("tombstones", self.tombstones),
            ("wal", self.wal),
            ("state", self.state),
            ("quarantine", self.quarantine),
            ("snapshots", self.snapshots),
            ("others", self.others),
        ]
    }
}

/// What a folder takes, and what would be free without each of its partitions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Measured {
    /// By what it is.
    pub usage: FolderUse,
    /// What dropping each partition frees, its tombstones included: nothing for a file that a copy
    /// in the folder shares.
    pub freed: BTreeMap<u64, u64>,
}

/// Measures a folder.
pub(crate) fn measure(fs: &dyn Fs, folder: &Folder) -> io::Result<Measured> {
    Ok(sum(folder.root(), fs.usage(folder.root())?))
}

fn sum(root: &Path, mut files: Vec<FileUse>) -> Measured {
    let relative = |file: &FileUse| file.path.strip_prefix(root).unwrap_or(&file.path).to_owned();
    let mut names: HashMap<(u64, u64), u32> = HashMap::new();
    for file in &files {
        *names.entry(file.file).or_default() += 1;
    }
    // What is in use here comes before its copies.
    files.sort_by_cached_key(|file| {
        let path = relative(file);
        (!path.starts_with("partitions"), path)
    });
    let mut measured = Measured::default();
    let mut counted: HashSet<(u64, u64)> = HashSet::new();
    for file in &files {
        let path = relative(file);
        let mut parts = path.iter().map(|part| part.to_str().unwrap_or_default());
        let (first, second) = (parts.next().unwrap_or_default(), parts.next());
        let is_first = counted.insert(file.file);
        let usage = &mut measured.usage;
        let part = match (first, second) {
            ("partitions", Some(name)) => match Folder::partition_of(name) {
                Some((number, is_partition)) => {
                    let alone = names.get(&file.file) == Some(&1);
                    *measured.freed.entry(number).or_default() += if alone { file.bytes } else { 0 };
                    if is_partition { &mut usage.partitions } else { &mut usage.tombstones }
                }
                None => &mut usage.others,
            },
            ("wal", Some(_)) => &mut usage.wal,
            ("state", Some(_)) => &mut usage.state,
            ("quarantine", Some(_)) => &mut usage.quarantine,
            ("snapshots", Some(_)) => &mut usage.snapshots,
            _ => &mut usage.others,
        };
        *part += if is_first { file.bytes } else { 0 };
    }
    measured
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_counts_once_and_as_what_it_is() {
        let files = [
            ("snapshots/s/partitions/0000000001.part", 1, 100),
            ("snapshots/s/partitions/0000000009.part", 9, 70),
            ("snapshots/s/MANIFEST", 10, 1),
            ("quarantine/0000000004.part", 4, 5),
            ("partitions/0000000001.part", 1, 100),
            ("partitions/0000000001-3.del", 2, 7),
            ("partitions/0000000002.part", 3, 200),
            ("partitions/0000000003.part.tmp", 5, 30),
            ("wal/0000000001-0000000001.wal", 6, 1000),
            ("state/store/db", 7, 40),
            ("MANIFEST", 8, 2),
            ("partitions", 11, 3),
        ];
        let files = files.map(|(path, file, bytes)| FileUse {
            path: Path::new("/data").join(path),
            file: (0, file),
            bytes,
        });
        let measured = sum(Path::new("/data"), files.to_vec());
        let usage = FolderUse {
            partitions: 300,
            tombstones: 7,
            wal: 1000,
            state: 40,
            quarantine: 5,
            snapshots: 71,
            others: 35,
        };
        assert_eq!(measured, Measured { usage, freed: [(1, 7), (2, 200)].into() });
        assert_eq!(usage.total(), 1458);
    }
}
