//! What is dropped for its age, and for what the folder takes.

use crate::fixture::*;
use larum::storage::{Batch, SizeLimit, Storage, Timestamp};
use std::time::{Duration, Instant};

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
