//! Tests of a disk that is full, or nearly: what is refused, what is dropped, and that it is over by
//! itself.

use super::*;

#[test]
fn a_full_disk_refuses_a_batch_and_loses_none_before_or_after_it() {
    let full: [fn(Op, &str) -> bool; 3] = [
        |op, name| of_wal(op, Op::Append, name),
        |op, name| of_wal(op, Op::Preallocate, name),
        |op, name| of_wal(op, Op::Create, name),
    ];
    for (case, hits) in full.into_iter().enumerate() {
        let mut fixture = Fixture::new();
        fixture.append("a", &[0, 1]);
        if case > 0 {
            // The next frame begins a segment.
            fixture.storage.flush().unwrap();
        }
        fixture.fs.set(Fault { times: 2, ..once(hits, ErrorKind::StorageFull) });
        for _ in 0..2 {
            let refused = fixture.try_append("new", &[2]).unwrap_err();
            assert!(matches!(refused, UnavailableCause::DiskFull(_)), "{refused}");
            fixture.check("while the disk is full");
        }
        assert!(fixture.fs.heal());
        fixture.append("new", &[3]);
        fixture.append("a", &[4]);
        fixture.check("when there is space again");
    }
}

#[test]
fn a_disk_that_fills_is_read_on_and_written_again_when_there_is_space() {
    let mut fixture = Fixture::with_free(200, None);
    fixture.append("a", &[0, 1]);
    fixture.fs.set_free(50);
    fixture.storage.maintain().unwrap();
    assert_eq!(fixture.state(), DiskState::Low);
    fixture.append("a", &[2]);
    fixture.fs.set_free(5);
    fixture.storage.maintain().unwrap();
    assert_eq!(fixture.state(), DiskState::ReadOnly);
    let refused = fixture.try_append("a", &[3]).unwrap_err();
    assert!(matches!(refused, UnavailableCause::DiskFull(_)), "{refused}");
    assert_eq!(fixture.storage.stats().partitions, 1, "the head was cut, which frees its WAL");
    fixture.check("while it is full");
    // Who asks may still delete.
    fixture.storage.delete(&[vec![]], TimeRange::new(START, START)).unwrap();
    fixture.expected.remove(&("a".to_owned(), START));
    fixture.fs.set_free(50);
    fixture.storage.maintain().unwrap();
    fixture.append("a", &[3]);
    fixture.fs.set_free(200);
    fixture.storage.maintain().unwrap();
    assert_eq!(fixture.state(), DiskState::Enough);
    fixture.check("when there is space again");
}

#[test]
fn a_disk_that_refuses_a_write_counts_as_full_for_a_while_whatever_it_says() {
    let mut fixture = Fixture::with_free(200, None);
    fixture.append("a", &[0]);
    fixture
        .fs
        .set(Fault { times: 1, ..once(|op, name| of_wal(op, Op::Append, name), ErrorKind::QuotaExceeded) });
    fixture.try_append("a", &[1]).unwrap_err();
    fixture.storage.maintain().unwrap();
    assert_eq!(fixture.state(), DiskState::ReadOnly);
    let refused = fixture.try_append("a", &[1]).unwrap_err();
    assert!(matches!(refused, UnavailableCause::DiskFull(_)), "{refused}");
    fixture.check("while it counts as full");
    let deadline = Instant::now() + Duration::from_secs(30);
    while fixture.try_append("a", &[1]).is_err() {
        assert!(Instant::now() < deadline, "it counts as full for ever");
        fixture.storage.maintain().unwrap();
    }
    fixture.check("when that is over");
}

#[test]
fn emergency_retention_drops_the_oldest_down_to_its_floor_and_nothing_if_nobody_asked() {
    for (floor_days, left) in [(None, 6), (Some(100), 6), (Some(3), 3), (Some(0), 0)] {
        let floor = floor_days.map(|days: u64| Duration::from_secs(days * 24 * 3600));
        let mut fixture = Fixture::with_free(200, floor);
        for day in (0..6).rev() {
            fixture.append("a", &[-day * 24 * HOUR - 2 * HOUR]);
            fixture.storage.flush().unwrap();
        }
        // What is free does not grow here, as if somebody still read what was removed.
        fixture.fs.set_free(50);
        for _ in 0..3 {
            fixture.storage.maintain().unwrap();
        }
        // The newest sample is two hours old, and the floor is counted from there.
        fixture.expected.retain(|(_, t), _| *t >= START - left * 24 * HOUR - 2 * HOUR);
        fixture.check(&format!("with a floor of {floor_days:?} days"));
        let stats = fixture.storage.stats();
        assert_eq!(stats.partitions_emergency, 6 - stats.partitions);
    }
}

#[test]
fn emergency_retention_drops_what_is_old_by_a_clock_that_was_wrong_long_ago() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(AtomicI64::new(START - 400 * 24 * HOUR));
    let clock_of_options = clock.clone();
    let options = Options {
        clock: Arc::new(move || Timestamp::from_millis(clock_of_options.load(Relaxed))),
        maintenance: Maintenance::Stepped,
        disk: DiskOptions {
            min_free: Some(MinFree::Bytes(MIB)),
            emergency_retention: Some(Duration::from_secs(3 * 24 * 3600)),
        },
        ..Options::default()
    };
    let storage = Storage::open(dir.path(), options).unwrap();
    let inner = storage.inner();
    // The clock is set right at once, and a day later that is believed.
    clock.store(START, Relaxed);
    let day_ms = 24 * HOUR;
    for days in 0..=10 {
        let wall_ms = START + (days - 10) * day_ms;
        inner.believed_ms(Now { wall_ms, monotonic_ms: 1 + days * day_ms });
    }
    let labels = Labels::from_pairs([("__name__", "m")]).unwrap();
    for day in (0..6).rev() {
        let mut batch = Batch::new();
        batch.push(&labels, Timestamp::from_millis(START - day * day_ms - 2 * HOUR), 1.0);
        assert_eq!(storage.append(&batch).unwrap().accepted, 1);
        storage.flush().unwrap();
    }
    inner.drop_for_space(u64::MAX, Now { wall_ms: START, monotonic_ms: 1 + 10 * day_ms }).unwrap();
    assert_eq!(storage.stats().partitions_emergency, 2);
}

#[test]
fn the_reserve_is_given_up_on_a_full_disk_and_made_again() {
    let mut fixture = Fixture::with_free(200, None);
    let reserve = fixture.dir.path().join("data/reserve");
    let is_there = || RealFs.exists(&reserve).unwrap();
    assert!(is_there());
    assert_eq!(fixture.storage.stats().disk.reserve_bytes, 4 * MIB);
    fixture.fs.set_free(1);
    fixture.storage.maintain().unwrap();
    assert!(!is_there());
    fixture.fs.set_free(50);
    fixture.storage.maintain().unwrap();
    assert!(is_there());
    fixture.append("a", &[0]);
    fixture.fs.set_free(0);
    fixture.reopen_disk(DiskOptions::default());
    assert!(!is_there(), "given up to open");
    fixture.check("after it was opened");
    fixture.storage.close().unwrap();
    fixture.fs.set_free(200);
    fixture.storage.inner().watch_disk().unwrap();
    assert!(!is_there(), "the folder is another process's now");
}

#[test]
fn a_full_disk_is_opened_and_read_and_written_when_there_is_space() {
    let mut fixture = Fixture::with_free(200, None);
    fixture.append("a", &[-3 * HOUR]);
    fixture.storage.flush().unwrap();
    fixture.append("a", &[0, 1]);
    let writes =
        |op, _: &str| matches!(op, Op::Create | Op::Append | Op::WriteAt | Op::Preallocate | Op::HardLink);
    fixture.fs.set_free(0);
    fixture.fs.set(Fault { times: usize::MAX, ..once(writes, ErrorKind::StorageFull) });
    fixture.reopen_disk(DiskOptions::default());
    fixture.check("opened while it is full");
    assert_eq!(fixture.state(), DiskState::ReadOnly);
    fixture.try_append("a", &[2]).unwrap_err();
    let _ = fixture.storage.maintain();
    fixture.check("after a round of work that failed");
    fixture.fs.heal();
    fixture.fs.set_free(200);
    fixture.storage.maintain().unwrap();
    fixture.append("a", &[3]);
    fixture.check("when there is space again");
}

#[test]
fn a_merge_waits_until_the_disk_has_room_for_it() {
    let mut fixture = Fixture::with_free(200, None);
    for i in 0..4 {
        fixture.append("a", &[i]);
        fixture.storage.flush().unwrap();
    }
    fixture.fs.set_free(8);
    fixture.storage.maintain().unwrap();
    let stats = fixture.storage.stats();
    assert!(stats.disk.merge_waits && stats.partitions == 4, "{stats:?}");
    let refused = fixture.storage.compact().unwrap_err();
    assert!(refused.kind() == ErrorKind::StorageFull, "{refused}");
    fixture.fs.set_free(200);
    fixture.storage.maintain().unwrap();
    let stats = fixture.storage.stats();
    assert!(!stats.disk.merge_waits && stats.partitions == 1, "{stats:?}");
    fixture.check("after the merge");
}
