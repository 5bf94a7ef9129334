//! Storage from outside: what was appended is read, whatever happened to the folder in between.

#[path = "support/folder.rs"]
mod folder;

use folder::copy_folder;
use larum::state::{Changes, buckets::RULES};
use larum::storage::options::Maintenance;
use larum::storage::series_set::Columns;
use larum::storage::{
    Batch, MatchOp, Matcher, OpenError, Options, SizeLimit, Source, Storage, TimeRange, Timestamp,
};
use larum::{Histogram, Labels};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// Midnight, some day.
const START: i64 = 20_000 * DAY;

/// A database over a temporary folder, whose time and background work are the test's.
struct Fixture {
    dir: tempfile::TempDir,
    now: Arc<AtomicI64>,
    retention: Option<Duration>,
}

impl Fixture {
    fn new() -> Fixture {
        let now = Arc::new(AtomicI64::new(START));
        Fixture { dir: tempfile::tempdir().unwrap(), now, retention: None }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn options(&self) -> Options {
        let now = self.now.clone();
        Options {
            clock: Arc::new(move || Timestamp::from_millis(now.load(Ordering::Relaxed))),
            maintenance: Maintenance::Stepped,
            retention: self.retention,
            ..Options::default()
        }
    }

    fn open(&self) -> Storage {
        Storage::open(&self.path(), self.options()).unwrap()
    }

    fn set_now(&self, now_ms: i64) {
        self.now.store(now_ms, Ordering::Relaxed);
    }

    fn partitions(&self) -> Vec<String> {
        names(&self.path().join("partitions"))
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn labels(name: &str, job: &str) -> Labels {
    Labels::from_pairs([("__name__", name), ("job", job)]).unwrap()
}

fn batch(job: &str, samples: &[(i64, f64)]) -> Batch {
    let mut batch = Batch::new();
    for &(t, v) in samples {
        batch.push(&labels("m", job), Timestamp::from_millis(t), v);
    }
    batch
}

fn append(storage: &Storage, job: &str, samples: &[(i64, f64)]) {
    let appended = storage.append(&batch(job, samples)).unwrap();
    assert_eq!((appended.accepted, appended.refused), (samples.len(), vec![]));
}

fn read(storage: &Storage, job: &str) -> Vec<(i64, f64)> {
    read_range(storage, job, TimeRange::ALL)
}

fn read_range(storage: &Storage, job: &str, range: TimeRange) -> Vec<(i64, f64)> {
    let view = storage.view();
    let set = view.select(&[Matcher::equal("job", job)], range).unwrap();
    assert!(set.len() <= 1);
    let mut columns = Columns::default();
    let load = |i| set.load(i, &mut columns).unwrap();
    (0..set.len())
        .map(load)
        .flat_map(|s| s.timestamps.iter().copied().zip(s.floats).collect::<Vec<_>>())
        .collect()
}

#[test]
fn samples_are_read_from_head_and_partitions_alike() {
    let fixture = Fixture::new();
    let storage = fixture.open();
    append(&storage, "a", &[(START - HOUR, 1.0), (START, 2.0)]);
    let expected = [(START - HOUR, 1.0), (START, 2.0)];
    assert_eq!(read(&storage, "a"), expected);
    storage.flush().unwrap();
    assert_eq!(fixture.partitions().len(), 2, "one for each window of two hours");
    assert_eq!(read(&storage, "a"), expected);
    append(&storage, "a", &[(START + MINUTE, 3.0), (START - HOUR, 9.0)]);
    assert_eq!(read(&storage, "a"), [(START - HOUR, 9.0), (START, 2.0), (START + MINUTE, 3.0)]);
    assert_eq!(read_range(&storage, "a", TimeRange::new(START, START)), [(START, 2.0)]);
    assert_eq!(read(&storage, "b"), []);
}

#[test]
fn the_newest_sample_is_read_without_decoding_unless_something_hides_it() {
    let fixture = Fixture::new();
    let storage = fixture.open();
    let samples: Vec<(i64, f64)> =
        (0..300).map(|i| (START - HOUR + i * 10_000, (i * i % 97) as f64)).collect();
    append(&storage, "a", &samples);
    storage.flush().unwrap();
    let newest = |max_ms| {
        let range = TimeRange::new(START - HOUR, max_ms);
        let view = storage.view();
        let set = view.select(&[Matcher::equal("job", "a")], range).unwrap();
        let loaded = set.load_newest(0, &mut Columns::default()).unwrap();
        let last = loaded.len() - 1;
        (loaded.len(), (loaded.timestamps[last], loaded.floats[last]))
    };
    let end = samples[299];
    assert_eq!(newest(START), (1, end));
    assert_eq!(newest(samples[100].0 + 1), (1, samples[100]), "within a chunk");
    append(&storage, "a", &[(end.0, 5.5)]);
    assert_eq!(newest(START).1, (end.0, 5.5), "overwritten");
    let deleted = TimeRange::new(end.0, START);
    storage.delete(&[vec![Matcher::equal("job", "a")]], deleted).unwrap();
    assert_eq!(newest(START).1, samples[298], "deleted");
    storage.compact().unwrap();
    assert_eq!(newest(START), (1, samples[298]), "merged");
}

#[test]
fn old_samples_are_cut_by_the_day() {
    let fixture = Fixture::new();
    let storage = fixture.open();
    let samples: Vec<(i64, f64)> = (0..100).map(|i| (START - i * HOUR, i as f64)).rev().collect();
    append(&storage, "a", &samples);
    storage.flush().unwrap();
    // 99 hours back from midnight: START, the day before in 12 windows, and four days.
    assert_eq!(fixture.partitions().len(), 1 + 12 + 4, "{:?}", fixture.partitions());
    assert_eq!(read(&storage, "a"), samples);
    storage.compact().unwrap();
    assert_eq!(fixture.partitions().len(), 1, "a month is merged into one");
    assert_eq!(read(&storage, "a"), samples);
}

#[test]
fn a_start_after_close_replays_nothing() {
    let fixture = Fixture::new();
    let storage = fixture.open();
    append(&storage, "a", &[(START, 1.0)]);
    storage.close().unwrap();
    assert!(storage.append(&Batch::new()).is_err());
    assert!(storage.flush().is_err());
    assert_eq!(read(&storage, "a"), [(START, 1.0)], "what is open is still read");
    let again = fixture.open();
    assert!(again.stats().clean_start);
    assert_eq!(names(&fixture.path().join("wal")), Vec::<String>::new());
    assert_eq!(read(&again, "a"), [(START, 1.0)]);
}

#[test]
fn a_start_after_a_crash_replays_the_wal() {
    let fixture = Fixture::new();
    let storage = fixture.open();
    append(&storage, "a", &[(START, 1.0)]);
    storage.flush().unwrap();
    append(&storage, "a", &[(START + 1, 2.0)]);
    let copy = Fixture::new();
    copy_folder(&fixture.path(), &copy.path());
    let again = copy.open();
    assert!(!again.stats().clean_start);
    assert_eq!(read(&again, "a"), [(START, 1.0), (START + 1, 2.0)]);
}

#[test]
fn a_folder_in_use_is_refused_and_says_by_whom() {
    let fixture = Fixture::new();
    let storage = fixture.open();
    let error = Storage::open(&fixture.path(), fixture.options()).err().unwrap();
    assert!(
        matches!(error, OpenError::Locked { holder: Some(pid), .. } if pid == std::process::id()),
        "{error}"
    );
    drop(storage);
    fixture.open();
}

#[test]
fn a_new_folder_belongs_to_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let fixture = Fixture::new();
    fixture.open();
    let mode = std::fs::metadata(fixture.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn retention_hides_refuses_and_drops() {
    let mut fixture = Fixture::new();
    fixture.retention = Some(Duration::from_secs(10 * 86_400));
    let storage = fixture.open();
    append(&storage, "a", &[(START - 9 * DAY, 1.0), (START, 2.0)]);
    storage.flush().unwrap();
    assert_eq!(fixture.partitions().len(), 2);
    for hours in [12, 24, 36] {
        fixture.set_now(START + hours * HOUR);
        storage.maintain().unwrap();
    }
    assert_eq!(read(&storage, "a"), [(START, 2.0)], "nine days and a half are too old");
    let mut batch = Batch::new();
    batch.push(&labels("m", "a"), Timestamp::from_millis(START - 9 * DAY), 1.0);
    assert_eq!(storage.append(&batch).unwrap().refused.len(), 1);
    assert_eq!(fixture.partitions().len(), 1, "its partition is gone");
    assert_eq!(storage.stats().partitions_expired, 1);
}

/// The days, counted from `START`, of which there are samples.
fn days(storage: &Storage) -> Vec<i64> {
    read(storage, "a").iter().map(|&(t, _)| (t - START) / DAY).collect()
}

/// Five partitions of some kilobytes each, of one day each.
fn five_days(storage: &Storage) {
    for day in 0..5 {
        let samples: Vec<_> =
            (0..3000).map(|i| (START - (5 - day) * DAY + i, (i * i) as f64 / 7.0)).collect();
        append(storage, "b", &samples);
        append(storage, "a", &samples[..1]);
        storage.flush().unwrap();
    }
}

#[test]
fn the_oldest_partitions_go_while_the_folder_takes_more_than_it_may() {
    let fixture = Fixture::new();
    let storage = fixture.open();
    five_days(&storage);
    let limit = |bytes| storage.set_size_limit(SizeLimit { bytes: Some(bytes), percentage: None });
    let bytes = || storage.retention_status(Instant::now()).unwrap().usage.total();
    limit(bytes());
    storage.maintain().unwrap();
    assert_eq!(days(&storage), [-5, -4, -3, -2, -1], "it may take just as much");
    limit(bytes() - 1);
    let status = storage.retention_status(Instant::now()).unwrap();
    let next = status.next_by_size.expect("it is too much");
    assert_eq!((next.partitions, next.range_ms.0), (1, START - 5 * DAY));
    storage.maintain().unwrap();
    assert_eq!(days(&storage), [-4, -3, -2, -1]);
    assert_eq!(bytes(), status.bytes_after);
    // Files that are not ours to drop count, too.
    let aside = fixture.path().join("quarantine");
    std::fs::create_dir(&aside).unwrap();
    std::fs::write(aside.join("0000000001.part"), vec![1; 1 << 20]).unwrap();
    let half = storage.retention_status(Instant::now()).unwrap().usage.partitions / 2;
    limit(bytes() - (half - 4096));
    storage.maintain().unwrap();
    assert_eq!(days(&storage), [-2, -1]);
    assert_eq!(storage.stats().excess_bytes, 0);
    append(&storage, "a", &[(START, 1.0)]);
    limit(1 << 20);
    storage.maintain().unwrap();
    assert_eq!(days(&storage), [0], "the head stays");
    let stats = storage.stats();
    assert_eq!((stats.partitions, stats.partitions_surplus), (0, 5));
    assert!(stats.excess_bytes > 0 && stats.usage.quarantine >= 1 << 20, "{stats:?}");
    limit(1 << 40);
    storage.maintain().unwrap();
    assert_eq!(storage.stats().excess_bytes, 0);
}

#[test]
fn a_limit_in_percent_is_one_of_the_file_system() {
    let fixture = Fixture::new();
    let storage = fixture.open();
    five_days(&storage);
    storage.set_size_limit(SizeLimit { bytes: Some(1), percentage: Some(100.0) });
    storage.maintain().unwrap();
    assert_eq!(days(&storage).len(), 5, "the percentage prevails");
    let whole = storage.retention_status(Instant::now()).unwrap().limit_bytes.expect("there is a limit");
    storage.set_size_limit(SizeLimit { bytes: None, percentage: Some(50.0) });
    let half = storage.retention_status(Instant::now()).unwrap().limit_bytes.expect("there is a limit");
    assert!(half.abs_diff(whole / 2) <= 1 && half > 0, "{half} of {whole}");
    storage.set_size_limit(SizeLimit { bytes: None, percentage: Some(1e-12) });
    storage.maintain().unwrap();
    assert_eq!(days(&storage), Vec::<i64>::new());
}

#[test]
fn what_a_snapshot_in_the_folder_shares_is_counted_once_and_not_dropped_in_vain() {
    let fixture = Fixture::new();
    let storage = fixture.open();
    five_days(&storage);
    let before = storage.retention_status(Instant::now()).unwrap().usage;
    let parent = fixture.path().join("snapshots");
    std::fs::create_dir(&parent).unwrap();
    storage.snapshot(&parent.join("one"), &[]).unwrap();
    let usage = storage.retention_status(Instant::now()).unwrap().usage;
    assert_eq!(usage.partitions, before.partitions);
    assert!(usage.snapshots < 64 << 10, "its MANIFEST alone: {usage:?}");
    storage.set_size_limit(SizeLimit { bytes: Some(1), percentage: None });
    storage.maintain().unwrap();
    assert_eq!(days(&storage).len(), 5, "nothing would be free");
    assert!(storage.stats().excess_bytes > 0);
    std::fs::remove_dir_all(&parent).unwrap();
    storage.maintain().unwrap();
    assert_eq!(days(&storage).len(), 0);
}

#[test]
fn a_border_of_windows_cuts_the_head() {
    let fixture = Fixture::new();
    fixture.set_now(START + 10 * MINUTE);
    let storage = fixture.open();
    append(&storage, "a", &[(START, 1.0)]);
    fixture.set_now(START + 2 * HOUR);
    storage.maintain().unwrap();
    assert_eq!(fixture.partitions().len(), 0);
    fixture.set_now(START + 2 * HOUR + 6 * MINUTE);
    storage.maintain().unwrap();
    assert_eq!(fixture.partitions().len(), 1);
}

#[test]
fn partitions_are_merged_and_what_is_being_read_stays() {
    let fixture = Fixture::new();
    let storage = fixture.open();
    for i in 0..3 {
        append(&storage, "a", &[(START + i, i as f64)]);
        storage.flush().unwrap();
    }
    let view = storage.view();
    append(&storage, "a", &[(START + 1, 9.0)]);
    storage.flush().unwrap();
    storage.maintain().unwrap();
    assert_eq!(fixture.partitions().len(), 1);
    assert_eq!(read(&storage, "a"), [(START, 0.0), (START + 1, 9.0), (START + 2, 2.0)]);
    // The view holds the files that are gone, and the generation that was active when it was taken.
    let set = view.select(&[], TimeRange::ALL).unwrap();
    assert_eq!(set.load(0, &mut Columns::default()).unwrap().floats, [0.0, 9.0, 2.0]);
}

#[test]
fn a_deletion_reaches_head_and_partitions_and_spares_what_comes_later() {
    let fixture = Fixture::new();
    let storage = fixture.open();
    append(&storage, "a", &[(START, 1.0), (START + 10, 2.0)]);
    append(&storage, "b", &[(START, 1.0)]);
    storage.flush().unwrap();
    append(&storage, "a", &[(START + 5, 3.0)]);
    let sets = [vec![Matcher::equal("job", "a")], vec![Matcher::equal("job", "none")]];
    let deleted = storage.delete(&sets, TimeRange::new(START, START + 5)).unwrap();
    assert_eq!((deleted.series, deleted.samples), (1, 2));
    assert_eq!(read(&storage, "a"), [(START + 10, 2.0)]);
    assert_eq!(read(&storage, "b"), [(START, 1.0)]);
    append(&storage, "a", &[(START + 5, 4.0)]);
    let expected = [(START + 5, 4.0), (START + 10, 2.0)];
    assert_eq!(read(&storage, "a"), expected);
    storage.close().unwrap();
    let storage = fixture.open();
    assert_eq!(read(&storage, "a"), expected);
    storage.compact().unwrap();
    assert_eq!(read(&storage, "a"), expected);
    assert!(!fixture.partitions().iter().any(|name| name.ends_with(".del")), "{:?}", fixture.partitions());
}

#[test]
fn deleting_everything_leaves_nothing_after_a_merge() {
    let fixture = Fixture::new();
    let storage = fixture.open();
    append(&storage, "a", &[(START, 1.0)]);
    storage.delete(&[vec![]], TimeRange::ALL).unwrap();
    assert_eq!(read(&storage, "a"), []);
    storage.compact().unwrap();
    assert_eq!(fixture.partitions(), Vec::<String>::new());
    assert_eq!(storage.view().label_names(&[], TimeRange::ALL).items, Vec::<String>::new());
}

#[test]
fn a_clock_that_runs_far_ahead_deletes_nothing_at_any_start_of_that_day() {
    let mut fixture = Fixture::new();
    fixture.retention = Some(Duration::from_secs(10 * 24 * 3600));
    append(&fixture.open(), "a", &[(START - HOUR, 1.0), (START, 2.0)]);
    // What comes in by the wrong clock makes it no better.
    for i in 0..3 {
        fixture.set_now(START + 400 * DAY + i * HOUR);
        let storage = fixture.open();
        append(&storage, "a", &[(START + 400 * DAY + i * HOUR, 3.0)]);
        storage.maintain().unwrap();
        assert!(storage.stats().retention_paused);
        assert_eq!(read(&storage, "a")[..2], [(START - HOUR, 1.0), (START, 2.0)]);
    }
    fixture.set_now(START + HOUR);
    let storage = fixture.open();
    storage.maintain().unwrap();
    assert!(!storage.stats().retention_paused);
    assert_eq!(read(&storage, "a")[..2], [(START - HOUR, 1.0), (START, 2.0)]);
}

#[test]
fn samples_of_many_days_at_once_are_cut_into_few_partitions() {
    let fixture = Fixture::new();
    let storage = fixture.open();
    let samples: Vec<(i64, f64)> = (-1100..-1).map(|day| (START + day * DAY, day as f64)).collect();
    append(&storage, "a", &samples);
    append(&storage, "a", &[(i64::MIN, 1.0), (START, 2.0)]);
    storage.flush().unwrap();
    assert!(storage.stats().partitions < 50, "{}", storage.stats().partitions);
    let all = [&[(i64::MIN, 1.0)], &samples[..], &[(START, 2.0)]].concat();
    assert_eq!(read(&storage, "a"), all);
    storage.close().unwrap();
    assert_eq!(read(&fixture.open(), "a"), all);
}

#[test]
fn a_snapshot_opens_on_its_own() {
    let fixture = Fixture::new();
    let storage = fixture.open();
    append(&storage, "a", &[(START, 1.0), (START + 1, 2.0)]);
    storage.flush().unwrap();
    storage.delete(&[vec![Matcher::equal("job", "a")]], TimeRange::new(START, START)).unwrap();
    append(&storage, "a", &[(START + 2, 3.0)]);
    let copy = Fixture::new();
    storage.snapshot(&copy.path(), &[]).unwrap();
    assert!(storage.snapshot(&copy.path(), &[]).is_err(), "the folder is not empty");
    append(&storage, "a", &[(START + 3, 4.0)]);
    assert_eq!(read(&copy.open(), "a"), [(START + 1, 2.0), (START + 2, 3.0)]);
}

#[test]
fn the_copy_of_a_database_knows_what_the_database_knew() {
    let dir = tempfile::tempdir().unwrap();
    let options = || Options { maintenance: Maintenance::Stepped, ..Options::default() };
    let db = larum::Db::open(dir.path().join("data"), options()).unwrap();
    let fires = |db: &larum::Db| db.state().get(RULES, b"alert").unwrap();
    let put = |value: &[u8]| {
        let changes = Changes { entries: vec![(b"alert".to_vec(), Some(value.to_vec()))] };
        db.state().commit(RULES, &changes).unwrap();
    };
    put(b"fires");
    let copy = dir.path().join("copy");
    db.snapshot(&copy).unwrap();
    put(b"is over");
    let opened = larum::Db::open(&copy, options()).unwrap();
    assert_eq!(fires(&opened).as_deref(), Some(&b"fires"[..]), "while the first is open");
}

#[test]
fn a_lost_manifest_is_rebuilt() {
    let fixture = Fixture::new();
    let storage = fixture.open();
    for i in 0..4 {
        append(&storage, "a", &[(START + i, i as f64)]);
        storage.flush().unwrap();
    }
    storage.maintain().unwrap();
    append(&storage, "a", &[(START + 4, 4.0)]);
    storage.flush().unwrap();
    storage.delete(&[vec![]], TimeRange::new(START + 1, START + 1)).unwrap();
    append(&storage, "a", &[(START + 5, 5.0)]);
    let expected: Vec<(i64, f64)> = [0, 2, 3, 4, 5].map(|i| (START + i, i as f64)).into();
    assert_eq!(read(&storage, "a"), expected);
    let copy = Fixture::new();
    for damage in [false, true] {
        let path = copy.path();
        let _ = std::fs::remove_dir_all(&path);
        copy_folder(&fixture.path(), &path);
        match damage {
            false => std::fs::remove_file(path.join("MANIFEST")).unwrap(),
            true => flip(&path.join("MANIFEST"), 20),
        }
        let rebuilt = copy.open();
        assert_eq!(read(&rebuilt, "a"), expected);
        append(&rebuilt, "a", &[(START + 6, 6.0)]);
        rebuilt.flush().unwrap();
        assert_eq!(read(&rebuilt, "a").len(), 6);
    }
}

#[test]
fn a_lost_manifest_beside_a_wal_alone_is_rebuilt() {
    let fixture = Fixture::new();
    let storage = fixture.open();
    append(&storage, "a", &[(START, 1.0)]);
    let copy = Fixture::new();
    copy_folder(&fixture.path(), &copy.path());
    std::fs::remove_file(copy.path().join("MANIFEST")).unwrap();
    assert_eq!(read(&copy.open(), "a"), [(START, 1.0)]);
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x55;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_partition_with_damaged_checksums_is_set_aside() {
    let fixture = Fixture::new();
    let storage = fixture.open();
    append(&storage, "a", &[(START - 3 * HOUR, 1.0), (START, 2.0)]);
    storage.close().unwrap();
    let names = fixture.partitions();
    let first = fixture.path().join("partitions").join(&names[0]);
    let len = std::fs::metadata(&first).unwrap().len() as usize;
    flip(&first, len - 20);
    let storage = fixture.open();
    assert_eq!(read(&storage, "a"), [(START, 2.0)]);
    assert!(fixture.path().join("quarantine").join(&names[0]).exists());
    assert_eq!(storage.stats().partitions, 1);
}

#[test]
fn a_partition_is_set_aside_with_its_tombstones_wherever_a_start_ends() {
    let whole = Fixture::new();
    let storage = whole.open();
    append(&storage, "a", &[(START - 3 * HOUR, 1.0), (START - 3 * HOUR + 1, 1.5), (START, 2.0)]);
    storage.flush().unwrap();
    let deleted = TimeRange::new(START - 3 * HOUR + 1, START - 3 * HOUR + 1);
    storage.delete(&[vec![]], deleted).unwrap();
    storage.close().unwrap();
    let files = whole.partitions();
    let [tombstones, damaged, other] = &files[..] else { panic!("{files:?}") };
    assert!(tombstones.ends_with(".del") && damaged.ends_with(".part"));
    for (linked, removed) in [(false, false), (true, false), (true, true)] {
        let fixture = Fixture::new();
        copy_folder(&whole.path(), &fixture.path());
        let (from, to) = (fixture.path().join("partitions"), fixture.path().join("quarantine"));
        let len = std::fs::metadata(from.join(damaged)).unwrap().len() as usize;
        flip(&from.join(damaged), len - 20);
        if linked {
            std::fs::create_dir(&to).unwrap();
            std::fs::hard_link(from.join(damaged), to.join(damaged)).unwrap();
        }
        if removed {
            std::fs::remove_file(from.join(damaged)).unwrap();
        }
        let storage = fixture.open();
        assert_eq!((storage.stats().damaged_files, storage.stats().missing_partitions), (1, 0));
        assert_eq!(read(&storage, "a"), [(START, 2.0)]);
        assert_eq!(fixture.partitions(), [&**other]);
        assert_eq!(names(&to), [&**tombstones, damaged]);
        storage.close().unwrap();

        // The next start finds nothing to tell of, even if the removals come undone.
        for name in [tombstones, damaged] {
            std::fs::hard_link(to.join(name), from.join(name)).unwrap();
        }
        let storage = fixture.open();
        assert_eq!((storage.stats().damaged_files, storage.stats().missing_partitions), (0, 0));
        assert_eq!(read(&storage, "a"), [(START, 2.0)]);
        assert_eq!(fixture.partitions(), [&**other]);
        assert_eq!(names(&to), [&**tombstones, damaged]);
    }
}

#[test]
fn a_damaged_index_is_told_of_and_set_aside_soon() {
    let fixture = Fixture::new();
    let storage = fixture.open();
    append(&storage, "a", &[(START, 1.0)]);
    storage.flush().unwrap();
    append(&storage, "a", &[(START + 1, 2.0)]);
    storage.close().unwrap();
    let names = fixture.partitions();
    let first = fixture.path().join("partitions").join(&names[0]);
    let len = std::fs::metadata(&first).unwrap().len() as usize;
    flip(&first, len - 40);
    let storage = fixture.open();
    let view = storage.view();
    let set = view.select(&[], TimeRange::ALL).unwrap();
    assert!(set.warnings()[0].contains(&names[0]), "{:?}", set.warnings());
    let values = view.label_values("job", &[], TimeRange::ALL);
    assert_eq!((values.items.as_slice(), values.warnings.len()), (&["a".to_owned()][..], 1));
    assert_eq!(read(&storage, "a"), [(START + 1, 2.0)]);
    assert!(storage.delete(&[vec![]], TimeRange::ALL).is_err(), "what cannot be found cannot be deleted");
    let stats = storage.stats();
    assert_eq!((stats.damaged_partitions, stats.damaged_files), (1, 0));
    let [damage] = &storage.damage()[..] else { panic!("{:?}", storage.damage()) };
    assert_eq!((&damage.path, damage.loss.samples), (&first, Some(1)));
    // The whole index lies in one extent: nothing can be read without it.
    storage.maintain().unwrap();
    assert!(fixture.path().join("quarantine").join(&names[0]).exists());
    let stats = storage.stats();
    assert_eq!((stats.damaged_partitions, stats.damaged_files), (0, 1));
    assert_eq!(read(&storage, "a"), [(START + 1, 2.0)]);
}

/// What is stored, by labels: times and bits of values.
type Content = std::collections::BTreeMap<String, Vec<(i64, u64)>>;

fn content(storage: &Storage) -> (Content, Vec<String>) {
    let view = storage.view();
    let set = view.select(&[], TimeRange::ALL).unwrap();
    let mut columns = Columns::default();
    let mut found = Content::new();
    for i in 0..set.len() {
        let samples = set.load(i, &mut columns).unwrap();
        let samples = samples.timestamps.iter().zip(&samples.floats).map(|(&t, v)| (t, v.to_bits()));
        assert!(found.insert(set.labels(i).to_string(), samples.collect()).is_none());
    }
    let warnings = set.warnings();
    (found, warnings)
}

#[test]
fn a_flipped_bit_anywhere_in_a_partition_never_shows_other_samples_or_labels() {
    let fixture = Fixture::new();
    let storage = fixture.open();
    let mut batch = Batch::new();
    for series in 0..1500i64 {
        let labels = labels(&format!("m{}", series % 7), &format!("job-{series}"));
        for i in 0..4 {
            let t = Timestamp::from_millis(START + 15_000 * i + series % 50);
            batch.push(&labels, t, (series * 1000 + i * i) as f64 / 7.0);
        }
    }
    storage.append(&batch).unwrap();
    storage.close().unwrap();
    let name = fixture.partitions().remove(0);
    let whole = std::fs::read(fixture.path().join("partitions").join(&name)).unwrap();
    let storage = fixture.open();
    let (expected, warnings) = content(&storage);
    assert_eq!((expected.len(), warnings.len()), (1500, 0));
    storage.close().unwrap();
    drop(storage);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let (mut told, mut set_aside) = (0, 0);
    for round in 0..120 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let bit = (random >> 16) as usize % (whole.len() * 8);
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let copy = tempfile::tempdir().unwrap();
        copy_folder(&fixture.path(), copy.path());
        std::fs::write(copy.path().join("partitions").join(&name), &bytes).unwrap();
        let storage = Storage::open(copy.path(), fixture.options()).unwrap();
        let (found, warnings) = content(&storage);
        for (labels, samples) in &found {
            assert!(
                samples.is_empty() || expected.get(labels) == Some(samples),
                "round {round}, bit {bit}: {labels}"
            );
        }
        // Whoever is not told sees everything.
        match storage.stats().damaged_files {
            0 if warnings.is_empty() => assert_eq!(found, expected, "round {round}, bit {bit}"),
            0 => told += 1,
            _ => set_aside += 1,
        }
    }
    assert!(told > 50, "{told} told, {set_aside} set aside");
}

#[test]
fn a_missing_partition_is_told_and_live_again_once_its_file_is_back() {
    let fixture = Fixture::new();
    let storage = fixture.open();
    append(&storage, "a", &[(START - 3 * HOUR, 1.0), (START - 3 * HOUR + 1, 1.5), (START, 2.0)]);
    storage.flush().unwrap();
    let deleted = TimeRange::new(START - 3 * HOUR + 1, START - 3 * HOUR + 1);
    storage.delete(&[vec![]], deleted).unwrap();
    storage.close().unwrap();
    let file = fixture.path().join("partitions").join(&fixture.partitions()[1]);
    assert!(file.extension().is_some_and(|extension| extension == "part"), "{file:?}");
    let elsewhere = fixture.dir.path().join("elsewhere");
    std::fs::rename(&file, &elsewhere).unwrap();
    // It is not forgotten by commits, and its tombstones are kept.
    for _ in 0..2 {
        let storage = fixture.open();
        assert_eq!(storage.stats().missing_partitions, 1);
        append(&storage, "b", &[(START, 3.0)]);
        storage.flush().unwrap();
        storage.compact().unwrap();
        assert_eq!(read(&storage, "a"), [(START, 2.0)]);
    }
    std::fs::rename(&elsewhere, &file).unwrap();
    let storage = fixture.open();
    assert_eq!(storage.stats().missing_partitions, 0);
    assert_eq!(read(&storage, "a"), [(START - 3 * HOUR, 1.0), (START, 2.0)]);
}

#[test]
fn what_is_written_while_partitions_are_missing_wins_over_them_when_they_are_back() {
    let fixture = Fixture::new();
    let storage = fixture.open();
    for value in [1.0, 2.0, 3.0] {
        append(&storage, "a", &[(START, value)]);
        storage.flush().unwrap();
    }
    storage.close().unwrap();
    let files: Vec<PathBuf> =
        fixture.partitions()[1..].iter().map(|name| fixture.path().join("partitions").join(name)).collect();
    let elsewhere = |at: usize| fixture.dir.path().join(format!("elsewhere-{at}"));
    files.iter().enumerate().for_each(|(at, file)| std::fs::rename(file, elsewhere(at)).unwrap());
    let storage = fixture.open();
    append(&storage, "a", &[(START, 4.0)]);
    storage.close().unwrap();
    files.iter().enumerate().for_each(|(at, file)| std::fs::rename(elsewhere(at), file).unwrap());
    assert_eq!(read(&fixture.open(), "a"), [(START, 4.0)]);
}

#[test]
fn a_deletion_that_cannot_look_everywhere_is_an_error_and_deletes_nothing() {
    let fixture = Fixture::new();
    let storage = fixture.open();
    append(&storage, "a", &[(START - DAY, 1.0)]);
    append(&storage, "a", &[(START, 2.0)]);
    storage.close().unwrap();
    let file = fixture.path().join("partitions").join(&fixture.partitions()[0]);
    let elsewhere = fixture.dir.path().join("elsewhere");
    std::fs::rename(&file, &elsewhere).unwrap();
    let storage = fixture.open();
    for range in [TimeRange::ALL, TimeRange::new(START - DAY, START - DAY)] {
        let error = storage.delete(&[vec![]], range).unwrap_err().to_string();
        assert!(error.contains(&*file.to_string_lossy()), "{error}");
        assert!(storage.delete_preview(&[vec![]], range).is_err());
    }
    assert_eq!(read(&storage, "a"), [(START, 2.0)]);
    let rest = TimeRange::new(START - DAY + 1, i64::MAX);
    assert_eq!(storage.delete(&[vec![]], rest).unwrap().samples, 1, "what is missing lies elsewhere");
    storage.close().unwrap();
    std::fs::rename(&elsewhere, &file).unwrap();
    let storage = fixture.open();
    assert_eq!(storage.delete(&[vec![]], TimeRange::ALL).unwrap().samples, 1);
}

#[test]
fn what_is_deleted_of_damaged_chunks_does_not_come_back() {
    let fixture = Fixture::new();
    let storage = fixture.open();
    let samples: Vec<(i64, f64)> = (0..400).map(|i| (START + i, (i * i % 1009) as f64 / 7.0)).collect();
    append(&storage, "a", &samples);
    storage.close().unwrap();
    let name = fixture.partitions().remove(0);
    let file = fixture.path().join("partitions").join(name);
    // DATA follows the header.
    flip(&file, 512 + 100);
    let storage = fixture.open();
    assert_eq!(read(&storage, "a"), []);
    assert_eq!(storage.delete(&[vec![]], TimeRange::ALL).unwrap().samples, 400);
    storage.close().unwrap();
    flip(&file, 512 + 100);
    assert_eq!(read(&fixture.open(), "a"), []);
}

#[test]
fn a_damaged_extent_costs_only_its_chunks() {
    let fixture = Fixture::new();
    let storage = fixture.open();
    let mut batch = Batch::new();
    let mut noise = 1u64;
    for series in 0..40 {
        for i in 0..400 {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let value = f64::from_bits(noise >> 2);
            batch.push(&labels("m", &series.to_string()), Timestamp::from_millis(START + i), value);
        }
    }
    storage.append(&batch).unwrap();
    storage.close().unwrap();
    let name = fixture.partitions().remove(0);
    // DATA follows the header, 40 chunks of some 3 KiB; the middle of the third extent.
    flip(&fixture.path().join("partitions").join(name), 512 + 40 * 1024);
    let storage = fixture.open();
    let view = storage.view();
    let set = view.select(&[], TimeRange::ALL).unwrap();
    assert_eq!(set.len(), 40);
    let mut columns = Columns::default();
    let whole = (0..40).filter(|&i| set.load(i, &mut columns).unwrap().len() == 400).count();
    assert!((30..40).contains(&whole), "{whole} series are whole");
    let warnings = set.warnings();
    assert!(warnings[0].contains("job=") && warnings[0].contains(&START.to_string()), "{warnings:?}");
}

#[test]
fn a_backlog_of_partitions_refuses_appends_until_they_are_merged() {
    let fixture = Fixture::new();
    let storage = fixture.open();
    for i in 0..33 {
        append(&storage, "a", &[(START + i, i as f64)]);
        storage.flush().unwrap();
    }
    let mut batch = Batch::new();
    batch.push(&labels("m", "a"), Timestamp::from_millis(START), 1.0);
    let error = storage.append(&batch).unwrap_err();
    assert!(error.to_string().contains("backlog"), "{error}");
    storage.maintain().unwrap();
    storage.append(&batch).unwrap();
}

#[test]
fn histograms_and_matchers_survive_cut_and_merge() {
    let fixture = Fixture::new();
    let storage = fixture.open();
    let histogram = Arc::new(Histogram { count: 3.0, sum: 1.5, ..Histogram::default() });
    for i in 0..4 {
        let mut batch = Batch::new();
        batch.push_histogram(&labels("h", "a"), Timestamp::from_millis(START + i), histogram.clone());
        batch.push(&labels("f", &format!("job-{i}")), Timestamp::from_millis(START + i), i as f64);
        storage.append(&batch).unwrap();
        storage.flush().unwrap();
    }
    storage.maintain().unwrap();
    let view = storage.view();
    let set = view.select(&[Matcher::equal("__name__", "h")], TimeRange::ALL).unwrap();
    let samples = set.load(0, &mut Columns::default()).unwrap();
    assert_eq!(samples.histograms.len(), 4);
    assert!(samples.histograms.iter().all(|(_, h)| h.same_bits(&histogram)));
    let matchers = vec![Matcher::new(MatchOp::Regex, "job", "job-[12]").unwrap()];
    assert_eq!(view.select(&matchers, TimeRange::ALL).unwrap().len(), 2);
    assert_eq!(view.label_values("job", &[matchers], TimeRange::ALL).items, ["job-1", "job-2"]);
    assert_eq!(view.label_names(&[], TimeRange::ALL).items, ["__name__", "job"]);
    assert_eq!(view.series(&[vec![]], TimeRange::ALL).items.len(), 5);
}

#[test]
fn series_of_one_target_share_their_timestamps_across_head_and_partitions() {
    let fixture = Fixture::new();
    let storage = fixture.open();
    for i in 0..6 {
        let mut batch = Batch::new();
        for name in ["a", "b", "c"] {
            let labels = Labels::from_pairs([("__name__", name), ("job", "j"), ("instance", "i")]).unwrap();
            batch.push(&labels, Timestamp::from_millis(START + i * MINUTE), i as f64);
        }
        storage.append(&batch).unwrap();
        if i == 2 || i == 4 {
            storage.flush().unwrap();
        }
    }
    let view = storage.view();
    let set = view.select(&[], TimeRange::new(START + MINUTE, i64::MAX)).unwrap();
    let mut columns = Columns::default();
    let loaded: Vec<_> = (0..3).map(|i| set.load(i, &mut columns).unwrap()).collect();
    assert_eq!(loaded[0].len(), 5);
    assert!(loaded.iter().all(|samples| Arc::ptr_eq(&samples.timestamps, &loaded[0].timestamps)));
}

#[test]
fn readers_see_every_acknowledged_sample_while_the_background_works() {
    let fixture = Fixture::new();
    let options = Options { maintenance: Maintenance::Thread, wal_bytes: 8 << 10, ..fixture.options() };
    let storage = Storage::open(&fixture.path(), options).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                storage.flush().unwrap();
                storage.compact().unwrap();
            }
        });
        let writer = |job: &'static str| {
            let storage = &storage;
            move || {
                for i in 0..300 {
                    // A slow disk makes a backlog, and a sender then comes again.
                    let batch = batch(job, &[(START + i, i as f64)]);
                    let deadline = Instant::now() + Duration::from_secs(60);
                    while let Err(unavailable) = storage.append(&batch) {
                        assert!(Instant::now() < deadline, "{unavailable}");
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    let found = read(storage, job);
                    assert_eq!(found.len() as i64, i + 1, "{job}: {:?}", found.last());
                    assert!(found.iter().all(|(t, v)| t - START == *v as i64));
                }
            }
        };
        let writers = ["a", "b"].map(|job| scope.spawn(writer(job)));
        let outcomes = writers.map(|writer| writer.join());
        done.store(true, Ordering::Relaxed);
        worker.join().unwrap();
        outcomes.into_iter().for_each(|outcome| outcome.unwrap());
    });
    storage.close().unwrap();
    assert_eq!(read(&fixture.open(), "a").len(), 300);
}

#[test]
fn a_failed_cut_leaves_nothing_behind_and_is_tried_again() {
    use std::os::unix::fs::PermissionsExt;
    let fixture = Fixture::new();
    let storage = fixture.open();
    append(&storage, "a", &[(START - HOUR, 1.0), (START, 2.0)]);
    let partitions = fixture.path().join("partitions");
    // A folder where the second partition is to be fails the rename, for the superuser too.
    let blocked = partitions.join("0000000002.part");
    std::fs::create_dir(&blocked).unwrap();
    assert!(storage.flush().is_err());
    assert_eq!(fixture.partitions(), ["0000000002.part"]);
    assert_eq!(storage.stats().cut_failures, 1);
    append(&storage, "a", &[(START + 1, 3.0)]);
    let expected = [(START - HOUR, 1.0), (START, 2.0), (START + 1, 3.0)];
    assert_eq!(read(&storage, "a"), expected);
    std::fs::remove_dir(&blocked).unwrap();
    storage.flush().unwrap();
    assert_eq!(read(&storage, "a"), expected);
    let mode = std::fs::metadata(partitions.join(&fixture.partitions()[0])).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn what_a_crash_left_is_cut_soon_after_the_start() {
    let fixture = Fixture::new();
    let storage = fixture.open();
    append(&storage, "a", &[(START, 1.0)]);
    let copy = Fixture::new();
    copy_folder(&fixture.path(), &copy.path());
    let again = copy.open();
    again.maintain().unwrap();
    assert_eq!(copy.partitions().len(), 1);
    assert_eq!(names(&copy.path().join("wal")), Vec::<String>::new());
    assert_eq!(read(&again, "a"), [(START, 1.0)]);
}

#[test]
fn samples_at_the_ends_of_time_are_cut_merged_and_deleted() {
    let fixture = Fixture::new();
    let storage = fixture.open();
    let times = [i64::MIN, i64::MIN + 1, i64::MIN + DAY, i64::MIN / 2, -1, 0, 1];
    let samples: Vec<(i64, f64)> = times.iter().zip(0..).map(|(&t, i)| (t, f64::from(i))).collect();
    append(&storage, "a", &samples);
    assert_eq!(read(&storage, "a"), samples);
    storage.flush().unwrap();
    assert_eq!(read(&storage, "a"), samples);
    storage.compact().unwrap();
    assert_eq!(read(&storage, "a"), samples);
    let deleted = storage.delete(&[vec![]], TimeRange::ALL).unwrap();
    assert_eq!(deleted.series, 1);
    storage.compact().unwrap();
    assert_eq!(read(&storage, "a"), []);
}

#[test]
fn samples_at_the_ends_of_time_are_kept_or_refused() {
    let fixture = Fixture::new();
    let open = || {
        let max_ahead = Duration::from_secs(u64::MAX);
        Storage::open(&fixture.path(), Options { max_ahead, ..fixture.options() }).unwrap()
    };
    let storage = open();
    let times = [i64::MIN, i64::MIN + 1, i64::MIN + DAY, -1, 0, START, i64::MAX - DAY, i64::MAX - 1];
    let expected: Vec<(i64, f64)> = times.iter().enumerate().map(|(i, &t)| (t, i as f64)).collect();
    append(&storage, "a", &expected);
    let mut batch = Batch::new();
    batch.push(&labels("m", "a"), Timestamp::from_millis(i64::MAX), 1.0);
    assert_eq!(storage.append(&batch).unwrap().refused.len(), 1, "no window holds the last millisecond");
    assert_eq!(read(&storage, "a"), expected);
    let copy = Fixture::new();
    copy_folder(&fixture.path(), &copy.path());
    assert_eq!(read(&copy.open(), "a"), expected, "from the WAL");
    storage.flush().unwrap();
    assert_eq!(read(&storage, "a"), expected);
    storage.maintain().unwrap();
    storage.compact().unwrap();
    storage.close().unwrap();
    let storage = open();
    assert_eq!(read(&storage, "a"), expected);
    assert_eq!(read_range(&storage, "a", TimeRange::new(i64::MIN, i64::MIN)), expected[..1]);
    storage.delete(&[vec![]], TimeRange::new(i64::MIN, 0)).unwrap();
    storage.compact().unwrap();
    assert_eq!(read(&storage, "a"), expected[5..]);
}

#[test]
fn a_stale_histogram_of_any_shape_comes_back_and_costs_nothing_else() {
    use larum_storage_format::{STALE_NAN, Span};
    let fixture = Fixture::new();
    let storage = fixture.open();
    let odd = Histogram {
        is_integer: true,
        schema: i32::MIN,
        sum: STALE_NAN,
        count: f64::NAN,
        positive_spans: vec![Span { offset: i32::MIN, length: u32::MAX }],
        negative_buckets: vec![-1.5, f64::INFINITY],
        custom_values: vec![f64::NAN],
        ..Histogram::default()
    };
    let odd = Arc::new(odd);
    let mut batch = Batch::new();
    batch.push_histogram(&labels("m", "h"), Timestamp::from_millis(START), odd.clone());
    batch.push(&labels("m", "a"), Timestamp::from_millis(START), 1.0);
    assert_eq!(storage.append(&batch).unwrap().accepted, 2);
    let copy = Fixture::new();
    copy_folder(&fixture.path(), &copy.path());
    storage.flush().unwrap();
    for storage in [&copy.open(), &storage] {
        assert_eq!(read(storage, "a"), [(START, 1.0)]);
        let view = storage.view();
        let set = view.select(&[Matcher::equal("job", "h")], TimeRange::ALL).unwrap();
        let samples = set.load(0, &mut Columns::default()).unwrap();
        assert!(samples.histograms[0].1.same_bits(&odd), "{samples:?}");
    }
}
