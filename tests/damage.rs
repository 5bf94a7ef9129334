//! Damage: the scrub finds it while the database is open, says what it costs, and saves the rest; and
//! after damage of any file the database opens, answers everything else, and says what it lacks.

#[path = "support/folder.rs"]
mod folder;
#[path = "../src/storage/power_cut/warnings.rs"]
mod warnings;

use folder::copy_folder;
use larum::state::{Bucket, Changes};
use larum::storage::options::{Maintenance, WalFsync};
use larum::storage::series_set::Columns;
use larum::storage::{Batch, Damage, Matcher, Options, Source, Storage, TimeRange, Timestamp, View};
use larum::{Db, Labels};
use larum_storage_format::checksum::crc32c;
use larum_storage_format::partition::PartitionHeader;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use warnings::Warnings;

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
/// Midnight, some day.
const START: i64 = 20_000 * DAY;
const SERIES: i64 = 40;
const SAMPLES: i64 = 300;

/// What is stored: bits of values by labels and time.
type Content = BTreeMap<(String, i64), u64>;

/// A database in a temporary folder, whose time and background work are the test's: two partitions of
/// a day each, of the first of which something was deleted.
struct Fixture {
    dir: tempfile::TempDir,
    now: Arc<AtomicI64>,
    expected: Content,
}

impl Fixture {
    fn new() -> Fixture {
        let now = Arc::new(AtomicI64::new(START + 3 * DAY));
        let mut fixture = Fixture { dir: tempfile::tempdir().unwrap(), now, expected: Content::new() };
        let storage = fixture.open();
        for day in 0..2 {
            let mut batch = Batch::new();
            for series in 0..SERIES {
                for i in 0..SAMPLES {
                    let t = START + day * DAY + i * 15_000;
                    // Values that do not pack, so that chunks lie in several extents.
                    let value = ((series * 1_000_003 + day * 7 + i) as f64).sin();
                    batch.push(&labels(series), Timestamp::from_millis(t), value);
                    fixture.expected.insert((labels(series).to_string(), t), value.to_bits());
                }
            }
            assert!(storage.append(&batch).unwrap().refused.is_empty());
        }
        storage.flush().unwrap();
        let first = labels(0).to_string();
        let deleted = TimeRange::new(START, START + 10 * 15_000);
        storage.delete(&[vec![Matcher::equal("series", "0")]], deleted).unwrap();
        fixture.expected.retain(|(labels, t), _| *labels != first || !deleted.contains(*t));
        storage.close().unwrap();
        fixture
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn options(&self) -> Options {
        let now = self.now.clone();
        Options {
            clock: Arc::new(move || Timestamp::from_millis(now.load(Ordering::Relaxed))),
            maintenance: Maintenance::Stepped,
            scrub_interval: Some(Duration::from_secs(3600)),
            ..Options::default()
        }
    }

    fn open(&self) -> Storage {
        Storage::open(&self.path(), self.options()).unwrap()
    }

    /// Time passes until all was read.
    fn scrub(&self, storage: &Storage) {
        let begun_ms = self.now.load(Ordering::Relaxed);
        while storage.scrub_status().round_ended_ms.is_none_or(|ended_ms| ended_ms <= begun_ms) {
            assert!(self.now.fetch_add(60_000, Ordering::Relaxed) < begun_ms + 5 * HOUR, "it does not end");
            storage.maintain().unwrap();
        }
    }

    fn file(&self, end: &str) -> PathBuf {
        let names = names(&self.path().join("partitions"));
        self.path().join("partitions").join(names.iter().find(|name| name.ends_with(end)).unwrap())
    }
}

fn labels(series: i64) -> Labels {
    Labels::from_pairs([("__name__", "noise"), ("series", &*series.to_string())]).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn read(storage: &Storage) -> (Content, Vec<String>) {
    read_view(&storage.view())
}

fn read_view(view: &View) -> (Content, Vec<String>) {
    let set = view.select(&[], TimeRange::ALL).unwrap();
    let mut columns = Columns::default();
    let mut found = Content::new();
    for i in 0..set.len() {
        let samples = set.load(i, &mut columns).unwrap();
        let pairs = samples.timestamps.iter().zip(&samples.floats);
        found.extend(pairs.map(|(&t, v)| ((set.labels(i).to_string(), t), v.to_bits())));
    }
    (found, set.warnings())
}

/// Flips a bit of a file in place: who has it open or mapped sees that.
fn flip(path: &Path, at: u64, bit: u8) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1 << bit], at).unwrap();
}

fn len(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

#[test]
fn the_scrub_names_damaged_chunks_and_nobody_reads_them_again() {
    let fixture = Fixture::new();
    let storage = fixture.open();
    assert!(read(&storage) == (fixture.expected.clone(), vec![]));
    // The second extent of DATA, which begins behind a header of 384 bytes. It was read before.
    let (file, at) = (fixture.file(".part"), 384 + 16_384);
    flip(&file, at + 100, 3);
    fixture.scrub(&storage);

    let [Damage { path, offset, bytes, loss, .. }] = &storage.damage()[..] else { panic!() };
    assert_eq!((path, *offset, *bytes), (&file, at, 16_384));
    assert_eq!(storage.stats().damaged_partitions, 1);
    let (found, warnings) = read(&storage);
    let lost: Vec<_> = fixture.expected.iter().filter(|(key, _)| !found.contains_key(key)).collect();
    assert!(found.iter().all(|(key, value)| fixture.expected.get(key) == Some(value)));
    // What was deleted counts as lost.
    let (series, samples) = (loss.series.unwrap(), loss.samples.unwrap());
    assert!((2..SERIES as u64).contains(&series) && samples == series * SAMPLES as u64, "{loss:?}");
    assert!((samples - 11..=samples).contains(&(lost.len() as u64)), "{} of {loss:?}", lost.len());
    assert_eq!(loss.range, Some(TimeRange::new(START, START + (SAMPLES - 1) * 15_000)));
    assert!(warnings[0].contains("found damaged before"), "{warnings:?}");

    // It costs no more when the partition is written anew, and the file is kept.
    storage.delete(&[vec![Matcher::equal("series", "1")]], TimeRange::ALL).unwrap();
    storage.clean_tombstones().unwrap();
    let (mut after, warnings) = read(&storage);
    after.retain(|(labels, _), _| !labels.contains("\"1\""));
    assert!(found.iter().all(|(key, value)| key.0.contains("\"1\"") || after.get(key) == Some(value)));
    assert_eq!((warnings.len(), storage.stats().damaged_partitions), (0, 0));
    assert!(fixture.path().join("quarantine").join(file.file_name().unwrap()).exists());
}

#[test]
fn what_would_cost_a_whole_partition_at_the_next_start_costs_nothing() {
    let fixture = Fixture::new();
    let partition = len(&fixture.file(".part"));
    let (tombstones, manifest) = (fixture.file(".del"), fixture.path().join("MANIFEST"));
    // The header and the footer; and two files that are in memory as a whole.
    let places: [(PathBuf, u64); 5] = [
        (fixture.file(".part"), 100),
        (fixture.file(".part"), 8),
        (fixture.file(".part"), partition - 10),
        (tombstones.clone(), 20),
        (manifest.clone(), 30),
    ];
    for (file, at) in places {
        let copy = Fixture { dir: tempfile::tempdir().unwrap(), ..Fixture::new() };
        copy_folder(&fixture.path(), &copy.path());
        let storage = copy.open();
        let name = file.strip_prefix(fixture.path()).unwrap();
        flip(&copy.path().join(name), at, 5);
        copy.scrub(&storage);
        assert_eq!(storage.stats().damaged_files, 1, "{name:?} at {at}");
        assert!(read(&storage) == (fixture.expected.clone(), vec![]), "{name:?} at {at}");
        let aside = usize::from(name.extension().is_some_and(|end| end == "part"));
        assert_eq!(names(&copy.path().join("quarantine")).len(), aside, "{name:?} at {at}");
        storage.close().unwrap();
        let storage = copy.open();
        assert_eq!((storage.stats().damaged_files, storage.stats().damaged_partitions), (0, 0));
        assert!(read(&storage) == (fixture.expected.clone(), vec![]), "{name:?} at {at}");
    }
}

#[test]
fn a_damaged_extent_of_the_index_costs_the_series_that_need_it() {
    let mut fixture = Fixture::new();
    std::fs::remove_dir_all(fixture.path()).unwrap();
    fixture.expected.clear();
    let storage = fixture.open();
    let mut batch = Batch::new();
    for series in 0..8_000 {
        batch.push(&labels(series), Timestamp::from_millis(START), series as f64);
        fixture.expected.insert((labels(series).to_string(), START), (series as f64).to_bits());
    }
    storage.append(&batch).unwrap();
    storage.close().unwrap();
    let file = fixture.file(".part");
    let header = PartitionHeader::decode(&std::fs::read(&file).unwrap()).unwrap();
    let mut lost_of = BTreeMap::new();
    for at in (100..header.byte_len).step_by(16_384) {
        let section: Vec<&str> = header.sections_in(&(at..at + 1)).collect();
        let [section @ ("DIR" | "SYMBOLS" | "SERIES" | "POSTINGS")] = section[..] else { continue };
        let copy = Fixture { dir: tempfile::tempdir().unwrap(), ..Fixture::new() };
        copy_folder(&fixture.path(), &copy.path());
        flip(&copy.path().join("partitions").join(file.file_name().unwrap()), at, 2);
        let storage = copy.open();
        copy.scrub(&storage);
        let (found, warnings) = read(&storage);
        assert!(found.iter().all(|(key, value)| fixture.expected.get(key) == Some(value)), "{section} {at}");
        assert_eq!((warnings.len(), names(&copy.path().join("quarantine")).len()), (0, 1), "{section} {at}");
        lost_of.entry(section).or_insert_with(Vec::new).push(8_000 - found.len());
    }
    // The directory is shorter than an extent, and some extents hold what every series needs.
    let least = |section: &str| lost_of[section].iter().min().copied().unwrap();
    assert_eq!((least("DIR"), least("POSTINGS")), (8_000, 0), "{lost_of:?}");
    assert!((1..2_000).contains(&least("SERIES")), "{lost_of:?}");
    assert!((1..5_000).contains(&least("SYMBOLS")), "{lost_of:?}");
}

#[test]
fn a_partition_whose_file_was_removed_is_written_anew_from_its_map() {
    let fixture = Fixture::new();
    let storage = fixture.open();
    std::fs::remove_file(fixture.file(".part")).unwrap();
    fixture.scrub(&storage);
    storage.close().unwrap();
    assert!(read(&fixture.open()) == (fixture.expected.clone(), vec![]));
}

#[test]
fn a_start_goes_on_where_the_scrub_was_and_a_position_that_is_nonsense_is_none() {
    let fixture = Fixture::new();
    let numbers: Vec<u64> = names(&fixture.path().join("partitions"))
        .iter()
        .filter_map(|name| name.strip_suffix(".part")?.parse().ok())
        .collect();
    assert_eq!(numbers.len(), 2);
    let mut read = Vec::new();
    for start in 0..5 {
        if start == 3 {
            std::fs::write(fixture.path().join("scrub"), b"\xff 1 2").unwrap();
        }
        let storage = fixture.open();
        fixture.now.fetch_add(3_600_000, Ordering::Relaxed);
        let before = storage.stats().scrubbed_bytes;
        storage.maintain().unwrap();
        assert!(storage.stats().scrubbed_bytes > before);
        read.push(storage.scrub_status().partition - 1);
        storage.close().unwrap();
    }
    assert_eq!(read, [numbers[0], numbers[1], numbers[0], numbers[0], numbers[1]]);
}

#[test]
fn the_scrub_ends_at_once_when_the_database_is_closed_and_reads_no_faster_than_it_must() {
    let fixture = Fixture::new();
    let options = Options { maintenance: Maintenance::Thread, ..fixture.options() };
    let storage = Storage::open(&fixture.path(), options).unwrap();
    let begun = std::time::Instant::now();
    storage.close().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(storage.stats().scrubbed_bytes, 0);
}

/// A folder as a crash leaves it, with a file of every kind, and what is in it.
struct EveryFile {
    fixture: Fixture,
    /// What only the WAL holds.
    in_wal: Content,
    /// What was deleted.
    deleted: Content,
}

const BUCKET: Bucket = Bucket("test");

impl EveryFile {
    fn new() -> EveryFile {
        let fixture = Fixture::new();
        let storage = fixture.open();
        fixture.scrub(&storage);
        storage.close().unwrap();
        drop(storage);
        let options = Options { wal_fsync: WalFsync::Never, ..fixture.options() };
        let entry = |key: &str| (key.as_bytes().to_vec(), Some(b"value".to_vec()));
        let db = Db::open(fixture.path(), options.clone()).unwrap();
        let entries = (0..200).map(|i| entry(&format!("exported {i}"))).collect();
        db.state().commit(BUCKET, &Changes { entries }).unwrap();
        drop(db);

        let db = Db::open(fixture.path(), options).unwrap();
        db.state().commit(BUCKET, &Changes { entries: vec![entry("late")] }).unwrap();
        let mut in_wal = Content::new();
        for i in 0..20 {
            let mut batch = Batch::new();
            for series in 0..10 {
                let t = START + 2 * DAY + i * 1000;
                batch.push(&labels(series + i), Timestamp::from_millis(t), i as f64);
                in_wal.insert((labels(series + i).to_string(), t), (i as f64).to_bits());
            }
            db.append(&batch).unwrap();
        }
        let copy =
            Fixture { dir: tempfile::tempdir().unwrap(), now: fixture.now, expected: fixture.expected };
        copy_folder(db.path(), &copy.path());
        let deleted = (0..=10).map(|i| START + i * 15_000);
        let deleted = deleted.map(|t| ((labels(0).to_string(), t), 0)).collect();
        EveryFile { fixture: copy, in_wal, deleted }
    }

    /// The files, relative to the folder.
    fn files(&self) -> Vec<PathBuf> {
        let root = self.fixture.path();
        let (mut files, mut folders) = (Vec::new(), vec![root.clone()]);
        while let Some(folder) = folders.pop() {
            for name in names(&folder) {
                let path = folder.join(name);
                match path.is_dir() {
                    true => folders.push(path),
                    false => files.push(path.strip_prefix(&root).unwrap().to_owned()),
                }
            }
        }
        files.sort();
        files
    }

    /// Opens a copy of the folder with a bit of a file flipped, and checks what is left. Tells whether
    /// the damage was met.
    fn check(&self, file: &Path, at: u64, bit: u8) -> bool {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        copy_folder(&self.fixture.path(), &path);
        flip(&path.join(file), at, bit);
        let logged = Warnings::default();
        let db = logged.catch(|| Db::open(&path, self.fixture.options()));
        let db = db.unwrap_or_else(|e| panic!("it does not open: {e}"));
        let view = db.view();
        let (found, warnings) = logged.catch(|| read_view(&view));
        let stats = db.stats();
        let is_told = !warnings.is_empty()
            || stats.damaged_files + stats.missing_partitions > 0
            || !logged.take().is_empty();

        // Nothing is read that was never written, or was deleted.
        let expected = |key: &(String, i64)| self.fixture.expected.get(key).or(self.in_wal.get(key));
        for (key, value) in &found {
            assert!(expected(key) == Some(value) && !self.deleted.contains_key(key), "{key:?}");
        }
        let lost =
            self.fixture.expected.keys().chain(self.in_wal.keys()).filter(|key| !found.contains_key(key));
        let (mut days, mut of_wal, mut lost_samples) = (BTreeSet::new(), 0, 0);
        for key in lost {
            lost_samples += 1;
            of_wal += usize::from(self.in_wal.contains_key(key));
            days.insert((key.1 - START) / DAY);
        }
        assert!(is_told || lost_samples == 0, "{lost_samples} samples are lost, and nobody says so");
        let folder = file.iter().next().unwrap().to_str().unwrap();
        match folder {
            // All of a partition at most, and of no other.
            "partitions" => assert!(days.len() <= 1 && of_wal == 0, "{days:?} {of_wal}"),
            "wal" => assert_eq!(lost_samples, of_wal),
            _ => assert_eq!(lost_samples, 0),
        }
        let keys = db.state().scan(BUCKET, b"exported").unwrap();
        assert_eq!(keys.len(), 200, "what was exported");
        let late = db.state().get(BUCKET, b"late").unwrap();
        // sled may take a damaged header for the end of its log; the export does not know of what came after
        // it. Rules are evaluated again from the slot that is there, so that alerts are as they were.
        assert!(late.is_some() || folder == "state", "the last commit is lost");
        is_told
    }
}

#[test]
fn a_flipped_bit_in_any_file_costs_at_most_what_it_covers_and_is_reported() {
    let whole = EveryFile::new();
    let files = whole.files();
    let kinds = ["MANIFEST", "lock", "scrub", ".part", ".del", ".wal", "state/store/db", "state/export"];
    for kind in kinds {
        assert!(files.iter().any(|file| file.to_string_lossy().ends_with(kind)), "no {kind} in {files:?}");
    }
    let only = std::env::var("LARUM_DAMAGE_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    let time = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
    let mut told: BTreeMap<&Path, usize> = BTreeMap::new();
    for seed in only.map_or(vec![1, time], |seed| vec![seed]) {
        println!("LARUM_DAMAGE_SEED={seed}");
        let mut random = seed;
        let mut below = |n: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % n.max(1)
        };
        for file in &files {
            let bytes = std::fs::read(whole.fixture.path().join(file)).unwrap();
            if bytes.is_empty() {
                continue;
            }
            // Much of some files is not used.
            let used = bytes.iter().rposition(|&b| b != 0).unwrap_or(0) as u64 + 1;
            for round in 0..3 {
                let reach = [bytes.len() as u64, used, used.min(64)][round % 3];
                let (at, bit) = (below(reach), below(8) as u8);
                let check = std::panic::AssertUnwindSafe(|| whole.check(file, at, bit));
                match std::panic::catch_unwind(check) {
                    Ok(is_told) => *told.entry(file).or_default() += usize::from(is_told),
                    Err(panic) => {
                        eprintln!(
                            "{} byte {at} bit {bit}: LARUM_DAMAGE_SEED={seed} repeats it",
                            file.display()
                        );
                        std::panic::resume_unwind(panic);
                    }
                }
            }
        }
    }
    println!("{told:?}");
    let never = ["lock", "scrub"];
    for (file, count) in told {
        let name = file.to_string_lossy();
        let is_ours = ["MANIFEST", ".part", ".del", ".wal", "export"].iter().any(|end| name.ends_with(end));
        assert!(!is_ours || count > 0, "no damage of {name} was met");
        assert!(!never.contains(&&*name) || count == 0, "{name} means nothing");
    }
}

#[test]
fn a_newer_format_is_refused_by_name_and_left_as_it_is() {
    let whole = EveryFile::new();
    let sealed = |bytes: &mut [u8], len: usize| {
        bytes[8..12].copy_from_slice(&2_u32.to_le_bytes());
        let crc = crc32c(&bytes[..len - 4]);
        bytes[len - 4..len].copy_from_slice(&crc.to_le_bytes());
    };
    for end in ["MANIFEST", ".part", ".del", ".wal", "state/export"] {
        let copy = Fixture { dir: tempfile::tempdir().unwrap(), ..Fixture::new() };
        copy_folder(&whole.fixture.path(), &copy.path());
        let files = whole.files();
        let file = copy.path().join(files.iter().find(|file| file.to_string_lossy().ends_with(end)).unwrap());
        let mut bytes = std::fs::read(&file).unwrap();
        match end {
            ".part" => {
                let len = u32::from_le_bytes(bytes[12..16].try_into().unwrap());
                sealed(&mut bytes, len as usize);
            }
            ".wal" => sealed(&mut bytes, 36),
            "state/export" => {
                let len = bytes.len() - 8;
                bytes[7] = b'2';
                let checksum = xxhash_rust::xxh3::xxh3_64(&bytes[..len]);
                bytes[len..].copy_from_slice(&checksum.to_le_bytes());
            }
            _ => {
                let len = bytes.len();
                sealed(&mut bytes, len);
            }
        }
        std::fs::write(&file, &bytes).unwrap();
        let error = Db::open(copy.path(), copy.options()).err().unwrap().to_string();
        let named = if end == "state/export" { file.parent().unwrap() } else { &file };
        assert!(error.contains(&named.display().to_string()), "{end}: {error}");
        assert!(error.contains("format version 2, this build reads version 1"), "{end}: {error}");
        assert_eq!(std::fs::read(&file).unwrap(), bytes, "{end}");
        assert!(!copy.path().join("quarantine").exists(), "{end}");
    }
}
