//! What an earlier build wrote is read by this one.
//!
//! `tests/format_compat/vN` holds a small data folder in version N of the format, as a crash leaves
//! it, and what it must answer. When the version changes, write the folder of the new one with
//!
//! ```text
//! cargo test --test format_compat -- --ignored
//! ```
//!
//! and leave those of the versions before as they are, as long as this build reads them. The folder
//! of a version that was released is never written again.

#[path = "support/folder.rs"]
mod folder;

use folder::copy_folder;
use larum::storage::options::Maintenance;
use larum::storage::series_set::Columns;
use larum::storage::{Batch, Matcher, Options, Source, Storage, TimeRange, Timestamp};
use larum::{Histogram, Labels};
use larum_storage_format::histogram::CUSTOM_BUCKETS_SCHEMA;
use larum_storage_format::{FORMAT_VERSION, STALE_NAN, Span, Value};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const HOUR: i64 = 3_600_000;
const START: i64 = 20_000 * 24 * HOUR;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/format_compat")
}

fn open(path: &Path) -> Storage {
    let options = Options {
        clock: Arc::new(|| Timestamp::from_millis(START + 3 * HOUR)),
        random: Arc::new(|| Ok(0x1a12_34f5_6789_abcd)),
        maintenance: Maintenance::Stepped,
        ..Options::default()
    };
    Storage::open(path, options).unwrap()
}

/// All that is stored, in words.
fn answer(storage: &Storage) -> String {
    let view = storage.view();
    let set = view.select(&[], TimeRange::ALL).unwrap();
    let mut all: Vec<(String, usize)> = (0..set.len()).map(|i| (set.labels(i).to_string(), i)).collect();
    all.sort();
    let mut columns = Columns::default();
    let mut out = String::new();
    for (labels, i) in all {
        writeln!(out, "{labels}").unwrap();
        let samples = set.load(i, &mut columns).unwrap();
        for at in 0..samples.len() {
            write!(out, "{}", samples.timestamps[at] - START).unwrap();
            match samples.value(at) {
                Value::Float(v) if v.is_nan() => write!(out, " NaN {:x}", v.to_bits()).unwrap(),
                Value::Float(v) => write!(out, " {v:?}").unwrap(),
                Value::Histogram(h) => write!(out, " {h:?}").unwrap(),
            }
            match samples.start_timestamp(at) {
                Some(start) => writeln!(out, " since {}", start - START).unwrap(),
                None => writeln!(out).unwrap(),
            }
        }
    }
    assert_eq!(set.warnings(), Vec::<String>::new());
    out
}

#[test]
fn folders_of_earlier_builds_answer_as_they_did() {
    let mut read = Vec::new();
    for entry in std::fs::read_dir(fixtures()).unwrap() {
        let fixture = entry.unwrap().path();
        let dir = tempfile::tempdir().unwrap();
        copy_folder(&fixture.join("data"), dir.path());
        let expected = std::fs::read_to_string(fixture.join("answer.txt")).unwrap();
        let storage = open(dir.path());
        assert!(
            answer(&storage) == expected,
            "{} answers otherwise:\n{}",
            fixture.display(),
            answer(&storage)
        );
        // Nor do they once they are written anew.
        storage.flush().unwrap();
        storage.compact().unwrap();
        assert!(answer(&storage) == expected, "{} answers otherwise once merged", fixture.display());
        read.push(fixture.file_name().unwrap().to_string_lossy().into_owned());
    }
    let present = format!("v{FORMAT_VERSION}");
    assert!(read.contains(&present), "{present} has no folder: cargo test --test format_compat -- --ignored");
}

/// Values that take every kind of chunk and stream, by the name of their series.
fn value(kind: &str, i: i64) -> f64 {
    match kind {
        "constant" => 7.0,
        "decimal" => 20.5 + (i * 7 % 13) as f64 / 10.0,
        "same_changes" => 120.5 + (i * 7 % 13) as f64 / 10.0,
        "counter" => (i * i * 3) as f64,
        "slow_counter" => (i / 40) as f64,
        "pages" => (i * 37 % 11) as f64 * 4096.0,
        "sum" => (0..i).map(|j| (j % 10) as f64 * 0.1).sum(),
        "single_precision" => f64::from((i as f32).sqrt()),
        "noise" => (i as f64 * 0.7315).sin() * 1e5 / 7.0,
        "gaps" if i % 17 == 3 => STALE_NAN,
        "gaps" if i % 19 == 5 => f64::NAN,
        "gaps" if i % 23 == 7 => f64::INFINITY,
        "gaps" if i % 29 == 11 => -0.0,
        _ => i as f64,
    }
}

const KINDS: [&str; 10] = [
    "constant",
    "decimal",
    "same_changes",
    "counter",
    "slow_counter",
    "pages",
    "sum",
    "single_precision",
    "noise",
    "gaps",
];

fn exponential(i: i64) -> Arc<Histogram> {
    let buckets = vec![i as f64, 2.0, (i % 5) as f64];
    Arc::new(Histogram {
        is_integer: true,
        schema: 2,
        zero_threshold: 1e-128,
        zero_count: 1.0,
        count: 1.0 + buckets.iter().sum::<f64>(),
        sum: i as f64 * 0.5,
        positive_spans: vec![Span { offset: -2, length: 2 }, Span { offset: 4, length: 1 }],
        positive_buckets: buckets,
        ..Histogram::default()
    })
}

fn custom(i: i64) -> Arc<Histogram> {
    Arc::new(Histogram {
        schema: CUSTOM_BUCKETS_SCHEMA,
        count: i as f64 + 0.25,
        sum: i as f64 * 1.5,
        positive_spans: vec![Span { offset: 0, length: 2 }],
        positive_buckets: vec![i as f64, 0.25],
        custom_values: vec![0.5, 1.0],
        ..Histogram::default()
    })
}

fn append(storage: &Storage, steps: std::ops::Range<i64>) {
    for i in steps {
        let t = START + i * 15_000 + i * i % 5;
        let mut batch = Batch::new();
        let labels = |name: &str| {
            Labels::from_pairs([("__name__", name), ("instance", "localhost:9100"), ("job", "node")]).unwrap()
        };
        for kind in KINDS {
            batch.push(&labels(kind), Timestamp::from_millis(t), value(kind, i));
        }
        batch.push(&labels("with_start"), Timestamp::from_millis(t), i as f64);
        batch.start_timestamp(START - 60_000 + i / 30);
        if i % 10 == 0 {
            batch.push_histogram(&labels("exponential"), Timestamp::from_millis(t), exponential(i));
            batch.push_histogram(&labels("custom"), Timestamp::from_millis(t), custom(i));
        }
        assert_eq!(storage.append(&batch).unwrap().refused, []);
    }
}

#[test]
#[ignore = "writes the folder of the present version of the format"]
fn write_the_folder_of_this_version() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path());
    // Merged: two cuts of the first window, overlapping, and what was deleted is gone.
    append(&storage, 0..160);
    storage.flush().unwrap();
    append(&storage, 150..240);
    storage.flush().unwrap();
    let series = |name: &str| vec![Matcher::equal("__name__", name)];
    storage.delete(&[series("noise")], TimeRange::new(START, START + 600_000)).unwrap();
    storage.compact().unwrap();
    // Fresh, over a border of windows, with tombstones.
    append(&storage, 470..500);
    storage.flush().unwrap();
    storage.delete(&[series("counter")], TimeRange::new(START, START + 300_000)).unwrap();
    // In the WAL.
    append(&storage, 500..520);
    let fixture = fixtures().join(format!("v{FORMAT_VERSION}"));
    let _ = std::fs::remove_dir_all(&fixture);
    copy_folder(dir.path(), &fixture.join("data"));
    std::fs::remove_file(fixture.join("data/lock")).unwrap();
    std::fs::write(fixture.join("answer.txt"), answer(&storage)).unwrap();
}
