//! Damage while the database is open: the scrub finds it, says what it costs, and saves the rest.

#[path = "support/folder.rs"]
mod folder;

use folder::copy_folder;
use larum::Labels;
use larum::storage::options::Maintenance;
use larum::storage::series_set::Columns;
use larum::storage::{Batch, Damage, Matcher, Options, Source, Storage, TimeRange, Timestamp};
use larum_storage_format::partition::PartitionHeader;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

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
    let view = storage.view();
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
        std::fs::create_dir(copy.path()).unwrap();
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
        std::fs::create_dir(copy.path()).unwrap();
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
