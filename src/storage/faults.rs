//! What storage does when the file system fails: a file system that fails on purpose, and tests
//! that let every operation of a piece of work fail once.
//!
//! After each failure the same must hold: readers see what was acknowledged; a crash right then
//! loses none of it; and the work succeeds when it is tried again.

#[path = "../../tests/support/folder.rs"]
mod folder;
mod full_disk;

use self::folder::copy_folder;
use super::backup::Backups;
use super::disk::DiskState;
use super::engine::Storage;
use super::error::UnavailableCause;
use super::fs::{FileUse, Fs, Lock, ReadFile, RealFs, Space, WriteFile};
use super::options::{DiskOptions, Maintenance, MinFree, Options, SizeLimit, WalFsync};
use super::retention::Now;
use super::series_set::{Columns, SeriesSet};
use super::{Batch, Matcher, TimeRange, Timestamp};
use bytes::Bytes;
use larum_storage_format::Labels;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The operations that can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    CreateDir,
    List,
    SyncDir,
    Create,
    Read,
    ReadAt,
    Map,
    Exists,
    Rename,
    HardLink,
    Remove,
    Append,
    WriteAt,
    Sync,
    Truncate,
    Preallocate,
}

/// Which operation fails, and how.
#[derive(Debug, Clone, Copy)]
struct Fault {
    /// What has to be failing: given an operation and the name of a file.
    hits: fn(Op, &str) -> bool,
    /// So many hits pass before.
    skip: usize,
    /// So many fail.
    times: usize,
    kind: ErrorKind,
    /// Whether the failing operation does its work before it fails.
    works: bool,
}

/// The file system of the machine, with at most one fault. Nothing is synced: no test cuts the power.
#[derive(Debug, Clone, Default)]
struct FaultyFs {
    fault: Arc<Mutex<Option<Fault>>>,
    /// What is said to be free, of [`CAPACITY`].
    free: Arc<Mutex<Option<u64>>>,
}

const MIB: u64 = 1 << 20;
const CAPACITY: u64 = 1000 * MIB;

impl FaultyFs {
    fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap() = Some(fault);
    }

    /// Says that so many MiB are free.
    fn set_free(&self, mib: u64) {
        *self.free.lock().unwrap() = Some(mib * MIB);
    }

    /// Takes the fault away, and tells whether it was met.
    fn heal(&self) -> bool {
        self.fault.lock().unwrap().take().is_none_or(|fault| fault.times == 0)
    }

    fn run<T>(&self, op: Op, path: &Path, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let failing = {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let mut fault = self.fault.lock().unwrap();
            match &mut *fault {
                Some(fault) if (fault.hits)(op, &name) && fault.skip > 0 => {
                    fault.skip -= 1;
                    None
                }
                Some(fault) if (fault.hits)(op, &name) && fault.times > 0 => {
                    fault.times -= 1;
                    Some(*fault)
                }
                _ => None,
            }
        };
        let Some(fault) = failing else { return work() };
        if fault.works {
            work()?;
        }
        Err(io::Error::new(fault.kind, format!("{op:?} of {} fails on purpose", path.display())))
    }
}

impl Fs for FaultyFs {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.run(Op::CreateDir, dir, || RealFs.create_dir(dir))
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.run(Op::List, dir, || RealFs.list(dir))
    }
    fn usage(&self, dir: &Path) -> io::Result<Vec<FileUse>> {
        self.run(Op::List, dir, || RealFs.usage(dir))
    }
    fn space(&self, dir: &Path) -> io::Result<Space> {
        match *self.free.lock().unwrap() {
            Some(free_bytes) => Ok(Space { capacity_bytes: CAPACITY, free_bytes }),
            None => RealFs.space(dir),
        }
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.run(Op::SyncDir, dir, || Ok(()))
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let file = self.run(Op::Create, path, || RealFs.create(path))?;
        Ok(Box::new(FaultyFile { file, path: path.to_owned(), fs: self.clone() }))
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.run(Op::Read, path, || RealFs.read(path))
    }
    fn map(&self, path: &Path) -> io::Result<Bytes> {
        self.run(Op::Map, path, || RealFs.map(path))
    }
    fn open_read(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        let file = self.run(Op::Read, path, || RealFs.open_read(path))?;
        Ok(Box::new(FaultyReadFile { file, path: path.to_owned(), fs: self.clone() }))
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.run(Op::Exists, path, || RealFs.exists(path))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.run(Op::Rename, to, || RealFs.rename(from, to))
    }
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.run(Op::HardLink, to, || RealFs.hard_link(from, to))
    }
    fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        self.run(Op::Truncate, path, || RealFs.truncate(path, len))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.run(Op::Remove, path, || RealFs.remove(path))
    }
    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.run(Op::Remove, dir, || RealFs.remove_dir(dir))
    }
    fn lock(&self, path: &Path, content: &str) -> io::Result<Option<Lock>> {
        RealFs.lock(path, content)
    }
}

#[derive(Debug)]
struct FaultyFile {
    file: Box<dyn WriteFile>,
    path: PathBuf,
    fs: FaultyFs,
}

impl WriteFile for FaultyFile {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        // A write that fails leaves its first half.
        let (first, second) = bytes.split_at(bytes.len() / 2);
        self.file.append(first)?;
        self.fs.run(Op::Append, &self.path, || self.file.append(second))
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.fs.run(Op::WriteAt, &self.path, || self.file.write_at(bytes, offset))
    }
    fn sync(&self) -> io::Result<()> {
        self.fs.run(Op::Sync, &self.path, || Ok(()))
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        self.fs.run(Op::Truncate, &self.path, || self.file.truncate(len))
    }
    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.fs.run(Op::Preallocate, &self.path, || self.file.preallocate(len))
    }
}

#[derive(Debug)]
struct FaultyReadFile {
    file: Box<dyn ReadFile>,
    path: PathBuf,
    fs: FaultyFs,
}

impl ReadFile for FaultyReadFile {
    fn byte_len(&self) -> io::Result<u64> {
        self.file.byte_len()
    }
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.fs.run(Op::ReadAt, &self.path, || self.file.read_at(bytes, offset))
    }
    fn forget(&self, range: Range<u64>) {
        self.file.forget(range);
    }
}

const START: i64 = 20_000 * 86_400_000;
const HOUR: i64 = 3_600_000;

type Samples = BTreeMap<(String, i64), u64>;

struct Fixture {
    dir: tempfile::TempDir,
    fs: FaultyFs,
    storage: Storage,
    /// What was acknowledged and not deleted.
    expected: Samples,
}

fn open(fs: &FaultyFs, path: &Path) -> Storage {
    open_with(fs, path, Options::default())
}

fn open_with(fs: &FaultyFs, path: &Path, options: Options) -> Storage {
    let options = Options {
        clock: Arc::new(|| Timestamp::from_millis(START)),
        maintenance: Maintenance::Stepped,
        wal_fsync: WalFsync::Always,
        ..options
    };
    Storage::open_on(Arc::new(fs.clone()), path, options).unwrap()
}

impl Fixture {
    /// With so many MiB free of [`CAPACITY`], of which 100 shall be.
    fn with_free(mib: u64, emergency_retention: Option<Duration>) -> Fixture {
        let mut fixture = Fixture::new();
        fixture.fs.set_free(mib);
        fixture.reopen_disk(DiskOptions { min_free: Some(MinFree::Bytes(100 * MIB)), emergency_retention });
        fixture
    }

    fn reopen_disk(&mut self, disk: DiskOptions) {
        self.reopen(Options { disk, ..Options::default() });
    }

    fn reopen(&mut self, options: Options) {
        // Whatever comes of it: it is left as if the process had ended.
        let _ = self.storage.close();
        self.storage = open_with(&self.fs, &self.dir.path().join("data"), options);
    }

    fn state(&self) -> DiskState {
        self.storage.stats().disk.state
    }

    fn new() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let fs = FaultyFs::default();
        let storage = open(&fs, &dir.path().join("data"));
        Fixture { dir, fs, storage, expected: Samples::new() }
    }

    /// The next process, which scrubs all the time: each round of background work reads a partition.
    fn reopen_scrubbed(&mut self) {
        self.reopen(Options { scrub_interval: Some(Duration::ZERO), ..Options::default() });
    }

    fn try_append(&mut self, job: &str, times: &[i64]) -> Result<(), UnavailableCause> {
        let labels = Labels::from_pairs([("__name__", "m"), ("job", job)]).unwrap();
        let mut batch = Batch::new();
        times.iter().for_each(|&t| batch.push(&labels, Timestamp::from_millis(START + t), t as f64));
        let appended = self.storage.append(&batch).map_err(|e| e.cause)?;
        assert_eq!(appended.accepted, times.len());
        self.expected.extend(times.iter().map(|&t| ((job.to_owned(), START + t), (t as f64).to_bits())));
        Ok(())
    }

    fn append(&mut self, job: &str, times: &[i64]) {
        self.try_append(job, times).unwrap();
    }

    /// What a start would find if the process ended now.
    fn after_a_crash(&self) -> Samples {
        let to = tempfile::tempdir().unwrap();
        copy_folder(&self.dir.path().join("data"), to.path());
        read(&open(&FaultyFs::default(), to.path()))
    }

    fn check(&self, when: &str) {
        assert_eq!(read(&self.storage), self.expected, "{when}");
        assert_eq!(self.after_a_crash(), self.expected, "after a crash, {when}");
    }

    fn files(&self) -> Vec<String> {
        RealFs.list(&self.dir.path().join("data/partitions")).unwrap()
    }
}

fn read(storage: &Storage) -> Samples {
    let view = storage.view();
    let set = view.selection(&[], TimeRange::ALL).expect("memory is not limited");
    let mut columns = Columns::default();
    let mut all = Samples::new();
    for i in 0..set.len() {
        let job = set.labels(i).get("job").unwrap().to_owned();
        let samples = set.load(i, &mut columns).unwrap();
        let pairs = samples.timestamps.iter().zip(&samples.floats);
        all.extend(pairs.map(|(&t, v)| ((job.clone(), t), v.to_bits())));
    }
    all
}

fn of_wal(op: Op, wanted: Op, name: &str) -> bool {
    op == wanted && name.ends_with(".wal")
}

fn once(hits: fn(Op, &str) -> bool, kind: ErrorKind) -> Fault {
    Fault { hits, skip: 0, times: 1, kind, works: false }
}

#[test]
fn a_segment_that_could_not_be_removed_is_not_in_the_way() {
    let mut fixture = Fixture::new();
    let hits = |op, name: &str| of_wal(op, Op::Append, name) || of_wal(op, Op::Remove, name);
    fixture.fs.set(Fault { times: 2, ..once(hits, ErrorKind::StorageFull) });
    fixture.try_append("a", &[0]).unwrap_err();
    assert!(fixture.fs.heal());
    fixture.append("a", &[1]);
    fixture.check("after the segment was begun under another name");
}

/// The only segment of the WAL of a data folder.
fn segment(data: &Path) -> PathBuf {
    let names = RealFs.list(&data.join("wal")).unwrap();
    assert_eq!(names.len(), 1, "{names:?}");
    data.join("wal").join(&names[0])
}

#[test]
fn what_a_segment_without_a_name_left_in_blocks_is_not_read_from_the_next_one() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let [first, second, third] = dirs.each_ref().map(|dir| dir.path());
    let start = |data: &Path, random: u64| {
        let clock = Arc::new(|| Timestamp::from_millis(START));
        let random = Arc::new(move || Ok(random));
        let options = Options { clock, random, maintenance: Maintenance::Stepped, ..Options::default() };
        Storage::open(data, options).unwrap()
    };
    let append = |storage: &Storage, job: &str, t: i64| {
        let labels = Labels::from_pairs([("__name__", "m"), ("job", job)]).unwrap();
        let mut batch = Batch::new();
        batch.push(&labels, Timestamp::from_millis(START + t), 1.0);
        assert_eq!(storage.append(&batch).unwrap().accepted, 1);
    };
    let storage = start(first, 1);
    (0..9).for_each(|t| append(&storage, "lost", t));
    copy_folder(first, second);
    let left = std::fs::read(segment(second)).unwrap();
    // The power is cut, and the folder of the log was not synced.
    std::fs::remove_file(segment(second)).unwrap();
    let storage = start(second, 2);
    append(&storage, "kept", 10);
    copy_folder(second, third);
    // The power is cut again, and of the new segment only its start was synced.
    let mut torn = std::fs::read(segment(third)).unwrap();
    torn.extend_from_slice(&left[torn.len()..]);
    std::fs::write(segment(third), torn).unwrap();
    let found = read(&start(third, 3));
    assert_eq!(found.into_keys().collect::<Vec<_>>(), [("kept".to_owned(), START + 10)]);
}

#[test]
fn a_partition_that_cannot_be_removed_takes_no_other_with_it() {
    let mut fixture = Fixture::new();
    for day in 1..4 {
        fixture.append("a", &[-day * 24 * HOUR]);
        fixture.storage.flush().unwrap();
    }
    let bytes = fixture.storage.retention_status(Instant::now()).unwrap().usage.total();
    fixture.storage.set_size_limit(SizeLimit { bytes: Some(bytes - 1), percentage: None });
    let hits = |op, name: &str| op == Op::Remove && name.ends_with(".part");
    fixture.fs.set(Fault { times: 100, ..once(hits, ErrorKind::PermissionDenied) });
    for _ in 0..3 {
        fixture.storage.maintain().unwrap();
    }
    fixture.expected.pop_first();
    fixture.check("one partition was dropped, and its file is still there");
    assert_eq!((fixture.storage.stats().partitions, fixture.files().len()), (2, 3));
}

#[test]
fn a_failed_sync_of_the_wal_refuses_all_that_follows_until_the_next_start() {
    let failures: [fn(Op, &str) -> bool; 2] = [
        |op, name| of_wal(op, Op::Sync, name),
        |op, name| of_wal(op, Op::Append, name) || of_wal(op, Op::Truncate, name),
    ];
    for hits in failures {
        let mut fixture = Fixture::new();
        fixture.append("a", &[0, 1]);
        fixture.fs.set(Fault { times: 2, ..once(hits, ErrorKind::Other) });
        fixture.try_append("a", &[2]).unwrap_err();
        fixture.fs.heal();
        for _ in 0..3 {
            let refused = fixture.try_append("a", &[3]).unwrap_err();
            assert!(matches!(refused, UnavailableCause::Wal(_)), "{refused}");
        }
        let has_all = |found: Samples| fixture.expected.iter().all(|(at, v)| found.get(at) == Some(v));
        assert!(has_all(read(&fixture.storage)), "reads go on");
        assert!(has_all(fixture.after_a_crash()));
        assert!(fixture.storage.stats().wal_failures > 0);
        assert!(fixture.storage.close().is_err(), "who closes is told");
        let again = open(&fixture.fs, &fixture.dir.path().join("data"));
        assert!(has_all(read(&again)));
        fixture.storage = again;
        fixture.append("a", &[2, 3]);
        fixture.check("after a start");
    }
}

/// Lets each operation of `work` fail once, in several ways, and checks what is left.
fn fail_everywhere(
    prepare: impl Fn(&mut Fixture),
    work: impl Fn(&Fixture) -> io::Result<()>,
    check: impl Fn(&Fixture, &str),
    finish: impl Fn(&mut Fixture),
) {
    for (kind, works) in [(ErrorKind::StorageFull, false), (ErrorKind::Other, true)] {
        let mut failures = 0;
        for skip in 0.. {
            let mut fixture = Fixture::new();
            prepare(&mut fixture);
            fixture.fs.set(Fault { skip, works, ..once(|_, _| true, kind) });
            let outcome = work(&fixture);
            if !fixture.fs.heal() {
                outcome.unwrap();
                break;
            }
            failures += usize::from(outcome.is_err());
            let when = format!("operation {skip} failed ({kind}, {works}): {outcome:?}");
            check(&fixture, &when);
            // What follows must find a sound folder.
            fixture.append("later", &[skip as i64 + 100]);
            if outcome.is_err() {
                work(&fixture).unwrap_or_else(|e| panic!("{when}, and again: {e}"));
            }
            finish(&mut fixture);
            fixture.check(&when);
        }
        assert!(failures > 5, "{failures} failures");
    }
}

fn two_windows(fixture: &mut Fixture) {
    fixture.append("a", &[-3 * HOUR, -1, 0, 1]);
    fixture.append("b", &[0, 1]);
}

#[test]
fn a_cut_that_fails_anywhere_is_tried_again() {
    fail_everywhere(
        two_windows,
        |fixture| fixture.storage.flush(),
        |fixture, when| fixture.check(when),
        |fixture| {
            fixture.storage.flush().unwrap();
            let (live, files) = (fixture.storage.stats().partitions, fixture.files());
            assert_eq!(live, files.len() as u64, "{files:?}");
        },
    );
}

#[test]
fn a_cut_that_is_too_large_for_one_file_is_split_by_time() {
    let mut fixture = Fixture::new();
    // The first half of its window is empty.
    fixture.append("a", &[-HOUR, -HOUR * 2 / 3, -HOUR / 2]);
    fixture.append("b", &[-HOUR / 2 - 1]);
    let synced: fn(Op, &str) -> bool = |op, name| op == Op::Sync && name.contains(".part");
    fixture.fs.set(Fault { times: 2, ..once(synced, ErrorKind::FileTooLarge) });
    fixture.storage.flush().unwrap();
    assert!(fixture.fs.heal());
    fixture.check("after the cut");
    let stats = fixture.storage.stats();
    assert_eq!((stats.partitions, stats.cuts, stats.cut_failures), (2, 1, 0));
    assert_eq!(fixture.files().len(), 2, "{:?}", fixture.files());
    // That it is whole is known without the MANIFEST, too.
    RealFs.remove(&fixture.dir.path().join("data/MANIFEST")).unwrap();
    assert_eq!(fixture.after_a_crash(), fixture.expected);
}

#[test]
fn a_merge_that_fails_anywhere_is_tried_again() {
    fail_everywhere(
        |fixture| {
            two_windows(fixture);
            fixture.storage.flush().unwrap();
            fixture.append("a", &[2, 0]);
            fixture.storage.flush().unwrap();
            fixture.storage.delete(&[vec![Matcher::equal("job", "b")]], TimeRange::ALL).unwrap();
            fixture.expected.retain(|(job, _), _| job != "b");
        },
        |fixture| fixture.storage.compact(),
        |fixture, when| fixture.check(when),
        |_| {},
    );
}

#[test]
fn what_an_unsure_commit_left_goes_at_a_start_although_the_merge_was_done_again() {
    let mut fixture = Fixture::new();
    for t in 0..2 {
        fixture.append("a", &[t]);
        fixture.storage.flush().unwrap();
    }
    // The MANIFEST may be in place or not.
    let last_sync = once(|op, name| op == Op::SyncDir && name == "data", ErrorKind::Other);
    fixture.fs.set(Fault { works: true, ..last_sync });
    fixture.storage.compact().unwrap_err();
    assert!(fixture.fs.heal());
    // The process ends before anything is removed.
    let hits = |op, name: &str| op == Op::Remove && name.ends_with(".part");
    fixture.fs.set(Fault { times: 100, ..once(hits, ErrorKind::PermissionDenied) });
    fixture.storage.compact().unwrap();
    assert_eq!(fixture.files().len(), 4);
    let to = tempfile::tempdir().unwrap();
    copy_folder(&fixture.dir.path().join("data"), to.path());
    let storage = open(&FaultyFs::default(), to.path());
    assert_eq!(RealFs.list(&to.path().join("partitions")).unwrap().len(), 1);
    assert_eq!(read(&storage), fixture.expected);
}

#[test]
fn a_deletion_that_fails_deletes_nothing_until_it_is_tried_again() {
    let delete = |fixture: &Fixture| {
        let set = vec![Matcher::equal("job", "a")];
        fixture.storage.delete(&[set], TimeRange::new(START, START)).map(drop)
    };
    fail_everywhere(
        |fixture| {
            two_windows(fixture);
            fixture.storage.flush().unwrap();
            fixture.append("a", &[5]);
            delete(fixture).unwrap();
            fixture.append("a", &[0]);
        },
        delete,
        |fixture, when| {
            let mut without = fixture.expected.clone();
            without.remove(&("a".to_owned(), START));
            // If all but the last sync was done, a start may find it deleted.
            let found = [read(&fixture.storage), fixture.after_a_crash()];
            assert!(found.iter().all(|found| *found == fixture.expected || *found == without), "{when}");
        },
        |fixture| {
            fixture.expected.remove(&("a".to_owned(), START));
        },
    );
}

#[test]
fn a_snapshot_that_fails_leaves_no_links() {
    let mut skip = 0;
    loop {
        let mut fixture = Fixture::new();
        two_windows(&mut fixture);
        fixture.storage.flush().unwrap();
        let files = fixture.files().len();
        let to = fixture.dir.path().join("copy");
        fixture.fs.set(Fault { skip, ..once(|_, _| true, ErrorKind::Other) });
        let outcome = fixture.storage.snapshot(&to, &[("state/export", b"facts")]);
        let met = fixture.fs.heal();
        let linked = RealFs.list(&to.join("partitions")).unwrap_or_default().len();
        assert_eq!(linked, if outcome.is_ok() { files } else { 0 }, "{outcome:?}");
        if outcome.is_ok() {
            assert_eq!(read(&open(&fixture.fs, &to)), fixture.expected);
        }
        if !met {
            break;
        }
        skip += 1;
    }
    assert!(skip > 5);
}

#[test]
fn what_cannot_be_linked_into_a_backup_is_copied() {
    let mut fixture = Fixture::new();
    fixture.append("a", &[0]);
    let snapshot = fixture.dir.path().join("snapshot");
    fixture.storage.snapshot(&snapshot, &[]).unwrap();
    let to = tempfile::tempdir().unwrap();
    let backups = Backups::open_on(Arc::new(fixture.fs.clone()), to.path()).unwrap();
    let take = |name| backups.take(&snapshot, name, Timestamp::from_millis(START), false).unwrap();
    for name in ["a", "b", "c"] {
        take(name);
    }
    // As if the last had been killed before its end.
    std::fs::remove_file(to.path().join("c/BACKUP")).unwrap();
    std::fs::write(to.path().join("c/UNFINISHED"), "").unwrap();
    fixture.fs.set(Fault { times: usize::MAX, ..once(|op, _| op == Op::HardLink, ErrorKind::TooManyLinks) });
    assert_eq!(take("c").copied.0, 2);
    assert_eq!(backups.verify("c").unwrap(), Vec::<String>::new());
}

#[test]
fn a_partition_that_cannot_be_written_anew_holds_no_other_up() {
    let mut fixture = Fixture::new();
    for day in 1..4 {
        fixture.append("a", &[-day * 24 * HOUR, -day * 24 * HOUR + 1]);
    }
    fixture.storage.flush().unwrap();
    let deleted = |t: i64| t.rem_euclid(24 * HOUR) == 1;
    for day in 1..4 {
        let t = START - day * 24 * HOUR + 1;
        fixture.storage.delete(&[vec![]], TimeRange::new(t, t)).unwrap();
    }
    fixture.expected.retain(|(_, t), _| !deleted(*t));
    let hits = |op, name: &str| op == Op::Create && name.ends_with(".part.tmp");
    fixture.fs.set(Fault { skip: 1, ..once(hits, ErrorKind::Other) });
    assert!(fixture.storage.clean_tombstones().is_err());
    assert!(fixture.fs.heal());
    let job = fixture.storage.jobs().remove(0);
    assert_eq!((job.state.name(), job.partitions, job.partitions_done), ("failed", 3, 2));
    assert_eq!(fixture.storage.stats().partitions_with_tombstones, 1);
    fixture.check("after one of three failed");
    fixture.storage.clean_tombstones().unwrap();
    assert_eq!(fixture.storage.stats().partitions_with_tombstones, 0);
    fixture.check("when it was tried again");
}

#[test]
fn what_the_device_cannot_read_costs_its_chunks_and_nothing_is_thrown_away() {
    let mut fixture = Fixture::new();
    fixture.append("a", &[0, 1, 2]);
    fixture.reopen_scrubbed();
    // Header, list of checksums; all at once, then the only extent of DATA alone. The index is fine.
    let hits = |op, name: &str| op == Op::ReadAt && name.ends_with(".part");
    fixture.fs.set(Fault { skip: 3, times: 2, ..once(hits, ErrorKind::Other) });
    fixture.storage.maintain().unwrap();
    assert!(fixture.fs.heal());
    let [damage] = &fixture.storage.damage()[..] else { panic!("{:?}", fixture.storage.damage()) };
    assert_eq!((damage.loss.series, damage.loss.samples), (Some(1), Some(3)));
    assert!(damage.what.contains("on purpose"), "{damage:?}");
    // Its bytes are not touched again, which would end the process.
    assert_eq!(read(&fixture.storage), Samples::new());

    // The next process may have better luck.
    fixture.reopen_scrubbed();
    fixture.check("when it is opened again");

    // Where the index cannot be read, nothing is written anew without it.
    fixture.fs.set(Fault { skip: 3, times: 9, ..once(hits, ErrorKind::Other) });
    let files = fixture.files();
    fixture.storage.maintain().unwrap();
    fixture.fs.heal();
    assert_eq!((fixture.storage.damage().len(), fixture.files()), (2, files));
    fixture.reopen_scrubbed();
    fixture.check("when it is opened again");
}

#[test]
fn a_scrub_that_is_short_of_files_or_memory_finds_no_damage() {
    let mut fixture = Fixture::new();
    fixture.append("a", &[0, 1, 2]);
    fixture.storage.flush().unwrap();
    let set = vec![Matcher::equal("job", "a")];
    fixture.storage.delete(&[set], TimeRange::new(START, START)).unwrap();
    fixture.reopen_scrubbed();
    for kind in [ErrorKind::ResourceBusy, ErrorKind::OutOfMemory] {
        let hits = |op, _: &str| matches!(op, Op::Read | Op::ReadAt);
        fixture.fs.set(Fault { times: usize::MAX, ..once(hits, kind) });
        fixture.storage.inner().scrub_if_due();
        fixture.fs.heal();
        assert!(fixture.storage.damage().is_empty(), "{:?}", fixture.storage.damage());
        assert_eq!(fixture.storage.stats().damaged_files, 0, "{kind}");
    }
}

#[test]
fn who_asks_how_far_the_scrub_is_does_not_wait_for_it() {
    let fixture = Fixture::new();
    let _reads = fixture.storage.inner().scrub.reading();
    assert_eq!(fixture.storage.scrub_status().partition, 0);
}

#[test]
fn a_scrub_that_cannot_write_down_its_position_goes_on() {
    let mut fixture = Fixture::new();
    for time in 0..2 {
        fixture.append("a", &[time]);
        fixture.storage.flush().unwrap();
    }
    fixture.reopen_scrubbed();
    for skip in 0..4 {
        let hits = |_, name: &str| name.starts_with("scrub");
        fixture.fs.set(Fault { skip, times: usize::MAX, ..once(hits, ErrorKind::StorageFull) });
        let before = fixture.storage.stats().scrubbed_bytes;
        fixture.storage.maintain().unwrap();
        assert!(fixture.storage.stats().scrubbed_bytes > before, "{skip}");
    }
}
