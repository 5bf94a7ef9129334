//! Storage from outside: what was appended is read, whatever happened to the folder in between.

mod damage;
mod fixture;
#[path = "../support/folder.rs"]
mod folder;
mod retention;

use fixture::*;
use folder::copy_folder;
use larum::state::{Changes, buckets::RULES};
use larum::storage::options::Maintenance;
use larum::storage::series_set::{Columns, Newest};
use larum::storage::{Batch, MatchOp, Matcher, OpenError, Options, Source, Storage, TimeRange, Timestamp};
use larum::{Histogram, Labels};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

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
        let last = (loaded.timestamps[last], loaded.floats[last]);
        let mut known = Vec::new();
        set.newest(0..1, &mut Columns::default(), &mut known);
        let (t_ms, value) = last;
        assert!([Newest::Float { t_ms, value }, Newest::Unknown].contains(&known[0]), "{known:?}");
        (loaded.len(), last)
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
