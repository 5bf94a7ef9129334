//! Files that are lost, missing for a while, or whose bits flipped.

use crate::fixture::*;
use crate::folder::copy_folder;
use larum::storage::series_set::Columns;
use larum::storage::{Batch, Source, Storage, TimeRange, Timestamp};
use std::path::{Path, PathBuf};

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
