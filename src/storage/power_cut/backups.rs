//! Backups and restores, wherever the process ends or the power goes: what counts as a backup is one,
//! the next run comes to its end, and a half restored folder is never opened.

use super::disk::Disk;
use crate::storage::backup::{Backups, Keep, Taken};
use crate::storage::options::{Maintenance, WalFsync};
use crate::storage::series_set::{Columns, SeriesSet};
use crate::storage::{Batch, OpenError, Options, Storage, TimeRange, Timestamp};
use larum_storage_format::Labels;
use std::io;
use std::path::Path;
use std::sync::Arc;

const START_MS: i64 = 20_000 * 86_400_000;
/// A power cut undoes other things each time.
const SEEDS: u64 = 3;

fn open(disk: &Disk, path: &str) -> Result<Storage, OpenError> {
    let options = Options {
        clock: Arc::new(|| Timestamp::from_millis(START_MS)),
        random: Arc::new(|| Ok(7)),
        maintenance: Maintenance::Stepped,
        wal_fsync: WalFsync::Always,
        ..Options::default()
    };
    Storage::open_on(Arc::new(disk.clone()), Path::new(path), options)
}

fn append(storage: &Storage, sample: i64) {
    let labels = Labels::from_pairs([("__name__", "m")]).expect("labels");
    let mut batch = Batch::new();
    batch.push(&labels, Timestamp::from_millis(START_MS + sample), sample as f64);
    storage.append(&batch).expect("the disk works");
}

/// The times of all samples of a folder.
fn samples(disk: &Disk, path: &str) -> Vec<i64> {
    let storage = open(disk, path).unwrap_or_else(|e| panic!("{e}"));
    let view = storage.view();
    let set = view.selection(&[], TimeRange::ALL).expect("it can be read");
    assert!(set.warnings().is_empty());
    let samples = set.load(0, &mut Columns::default()).expect("no read fails");
    samples.timestamps.iter().map(|t| t - START_MS).collect()
}

fn backups(disk: &Disk) -> io::Result<Backups> {
    Backups::open_on(Arc::new(disk.clone()), Path::new("/disk/backups"))
}

fn take(disk: &Disk, n: i64) -> io::Result<Taken> {
    let source = format!("/disk/copies/{n}");
    backups(disk)?.take(Path::new(&source), &format!("b{n}"), Timestamp::from_millis(n), false)
}

/// A disk with three snapshots, the first of which has a backup.
fn fixture(seed: u64) -> Disk {
    let disk = Disk::new(seed);
    let storage = open(&disk, "/disk/data").unwrap_or_else(|e| panic!("{e}"));
    for n in 1..=3 {
        append(&storage, n);
        let beside: &[(&str, &[u8])] = &[("state/export", &[n as u8])];
        storage.snapshot(Path::new(&format!("/disk/copies/{n}")), beside).expect("the disk works");
    }
    drop(storage);
    take(&disk, 1).expect("the disk works");
    disk
}

/// Every whole backup is what its snapshot was.
fn check(disk: &Disk) -> Vec<String> {
    let backups = backups(disk).expect("the folder opens");
    let names: Vec<String> = backups.list().expect("it can be listed").into_iter().map(|b| b.name).collect();
    for name in &names {
        assert_eq!(backups.verify(name).expect("it is whole"), Vec::<String>::new());
    }
    names
}

/// Lets `work` end at each of its operations in turn, by the end of the process or of the power, and
/// looks at what is left. Ends once the work comes to its end; tells at how many operations it ended.
fn at_every_operation(
    prepare: impl Fn(u64) -> Disk,
    work: impl Fn(&Disk) -> io::Result<()>,
    look: impl Fn(&Disk, u64),
) -> u64 {
    for end in 1.. {
        for seed in 0..SEEDS {
            let disk = prepare(seed);
            disk.end_after(Some(end));
            if work(&disk).is_ok() && !disk.has_ended() {
                return end;
            }
            match seed {
                0 => disk.restart(),
                _ => disk.cut_power(),
            }
            look(&disk, end);
        }
    }
    unreachable!("the work never comes to its end")
}

#[test]
fn a_backup_that_ends_anywhere_is_none_and_the_next_goes_on() {
    let look = |disk: &Disk, end| {
        let names = check(disk);
        assert!(names == ["b1"] || names == ["b1", "b2"], "{names:?} after {end}");
        // Under another name, which the next run has by its time.
        let taken = take(disk, 3).unwrap_or_else(|e| panic!("after {end}: {e}"));
        assert!(taken.unchanged.0 >= 1, "after {end}: {taken:?}");
        let names = check(disk);
        assert!(names.ends_with(&["b3".to_owned()]) && names.len() <= 3, "{names:?} after {end}");
        let left = |name: &String| *name != "backups.lock" && !names.contains(name);
        let fs: &dyn crate::storage::fs::Fs = disk;
        let mut strays = fs.list(Path::new("/disk/backups")).expect("a folder");
        strays.retain(left);
        // Before it is marked a folder is nobody's.
        strays.retain(|name| !fs.list(&Path::new("/disk/backups").join(name)).expect("a folder").is_empty());
        assert_eq!(strays, Vec::<String>::new(), "after {end}");
    };
    let ends = at_every_operation(fixture, |disk| take(disk, 2).map(drop), look);
    assert!(ends > 20, "{ends}");
}

#[test]
fn what_is_acknowledged_as_taken_survives_a_power_cut() {
    for seed in 0..20 {
        let disk = fixture(seed);
        take(&disk, 2).expect("the disk works");
        disk.cut_power();
        assert_eq!(check(&disk), ["b1", "b2"], "seed {seed}");
    }
}

#[test]
fn a_removal_that_ends_anywhere_leaves_the_others_whole() {
    let prepare = |seed| {
        let disk = fixture(seed);
        take(&disk, 2).expect("the disk works");
        disk
    };
    let keep = Keep { newest: Some(1), within: None };
    let prune = |disk: &Disk| backups(disk)?.prune(keep, Timestamp::from_millis(9), None).map(drop);
    let ends = at_every_operation(prepare, prune, |disk, end| {
        let names = check(disk);
        assert!(names == ["b2"] || names == ["b1", "b2"], "{names:?} after {end}");
        prune(disk).expect("it works now");
        assert_eq!(check(disk), ["b2"]);
        take(disk, 3).expect("it works now");
    });
    assert!(ends > 5, "{ends}");
}

#[test]
fn a_restore_that_ends_anywhere_cannot_be_opened_and_comes_to_its_end_later() {
    let restored = "/disk/restored/data";
    let prepare = |seed| {
        let disk = fixture(seed);
        take(&disk, 2).expect("the disk works");
        disk
    };
    let restore = |disk: &Disk, name: &str| backups(disk)?.restore(name, Path::new(restored));
    let ends = at_every_operation(
        prepare,
        |disk| restore(disk, "b2"),
        |disk, end| {
            let fs: &dyn crate::storage::fs::Fs = disk;
            let is_begun = |name: &str| fs.exists(&Path::new(restored).join(name)).expect("it can be asked");
            if is_begun("RESTORING") {
                assert!(matches!(open(disk, restored), Err(OpenError::Restoring(_))), "after {end}");
                // Another backup this time: nothing of the first may stay.
                restore(disk, "b1").unwrap_or_else(|e| panic!("after {end}: {e}"));
                assert_eq!(samples(disk, restored), [1], "after {end}");
            } else if is_begun("MANIFEST") {
                assert_eq!(samples(disk, restored), [1, 2], "after {end}");
                assert!(restore(disk, "b2").is_err(), "the folder is not empty");
            } else {
                restore(disk, "b2").unwrap_or_else(|e| panic!("after {end}: {e}"));
                assert_eq!(samples(disk, restored), [1, 2], "after {end}");
            }
            assert_eq!(fs.exists(&Path::new(restored).join("state/export")).ok(), Some(true));
        },
    );
    assert!(ends > 20, "{ends}");
}
