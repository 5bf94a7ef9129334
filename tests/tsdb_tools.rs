//! `larum tsdb` from outside: the program over folders that the library made, whole and damaged.
#![cfg(feature = "server")]

#[path = "support/folder.rs"]
mod folder;

use folder::copy_folder;
use larum::storage::options::Maintenance;
use larum::storage::series_set::Columns;
use larum::storage::{Batch, Matcher, Options, Source, Storage, TimeRange, Timestamp};
use larum::{Histogram, Labels};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

const MINUTE: i64 = 60_000;
/// Midnight, some day.
const START: i64 = 20_000 * 86_400_000;
const SERIES: i64 = 50;
const SAMPLES: i64 = 100;

fn options() -> Options {
    let clock = Arc::new(|| Timestamp::from_millis(START + 120 * MINUTE));
    Options { clock, maintenance: Maintenance::Stepped, ..Options::default() }
}

fn labels(series: i64) -> Labels {
    Labels::from_pairs([("__name__", "noise"), ("series", &format!("s{series}"))]).unwrap()
}

/// Values that do not pack, so that chunks lie in several extents.
fn value(series: i64, i: i64) -> f64 {
    ((series * 1_000_003 + i) as f64).sin()
}

/// A folder with a partition of noise, tombstones of one series, and a WAL of two frames more.
struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Fixture {
        let fixture = Fixture { dir: tempfile::tempdir().unwrap() };
        let storage = Storage::open(&fixture.path(), options()).unwrap();
        let mut batch = Batch::new();
        for series in 0..SERIES {
            for i in 0..SAMPLES {
                batch.push(&labels(series), Timestamp::from_millis(START + i * MINUTE), value(series, i));
            }
        }
        let up = Labels::from_pairs([("__name__", "up"), ("job", "a\"b")]).unwrap();
        batch.push(&up, Timestamp::from_millis(START), 1.0);
        assert!(storage.append(&batch).unwrap().refused.is_empty());
        storage.flush().unwrap();
        let s7 = [vec![Matcher::equal("series", "s7")]];
        storage.delete(&s7, TimeRange::new(START, START + 9 * MINUTE)).unwrap();
        for minute in [110, 111, 112] {
            let mut batch = Batch::new();
            batch.push(&up, Timestamp::from_millis(START + minute * MINUTE), minute as f64);
            storage.append(&batch).unwrap();
        }
        // As a crash leaves it: with a WAL.
        copy_folder(&fixture.path(), &fixture.dir.path().join("copy"));
        drop(storage);
        std::fs::remove_dir_all(fixture.path()).unwrap();
        std::fs::rename(fixture.dir.path().join("copy"), fixture.path()).unwrap();
        fixture
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The only file in a folder that ends so.
    fn file(&self, folder: &str, end: &str) -> PathBuf {
        let found = files(&self.path().join(folder)).into_keys().filter(|path| path.ends_with(end));
        let found: Vec<String> = found.collect();
        assert_eq!(found.len(), 1, "{found:?}");
        self.path().join(folder).join(&found[0])
    }

    /// How many partitions were set aside.
    fn partitions_aside(&self) -> usize {
        files(&self.path().join("quarantine")).keys().filter(|name| name.ends_with(".part")).count()
    }

    fn partition(&self) -> PathBuf {
        self.file("partitions", ".part")
    }

    fn run(&self, words: &[&str]) -> Output {
        let path = format!("--storage.tsdb.path={}", self.path().display());
        Command::new(env!("CARGO_BIN_EXE_larum")).arg("tsdb").args(words).arg(path).output().unwrap()
    }

    /// What a tool that succeeds prints.
    fn print(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert_eq!(error(&output), "", "{words:?}");
        assert!(output.status.success(), "{words:?}: {}", text(&output));
        text(&output)
    }

    /// What `verify` prints, which must find so many faults.
    fn faults(&self, words: &[&str], count: usize) -> String {
        let output = self.run(words);
        assert_eq!(output.status.code(), Some(i32::from(count > 0)), "{}{}", text(&output), error(&output));
        let printed = text(&output);
        assert_eq!(printed.lines().filter(|line| line.contains("; costs: ")).count(), count, "{printed}");
        printed
    }

    /// Repairs, after which nothing is damaged, and gives what was printed.
    fn repair(&self) -> String {
        let output = self.run(&["verify", "--repair"]);
        let printed = text(&output);
        assert_eq!(output.status.code(), Some(0), "{printed}{}", error(&output));
        assert!(printed.contains("after the repair: 0 faults"), "{printed}");
        self.faults(&["verify"], 0);
        printed
    }

    /// How many samples each series has.
    fn samples(&self) -> BTreeMap<String, usize> {
        let storage = Storage::open(&self.path(), options()).unwrap();
        let view = storage.view();
        let set = view.select(&[], TimeRange::ALL).unwrap();
        let load = |i| (set.labels(i).to_string(), set.load(i, &mut Columns::default()).unwrap().len());
        let samples = (0..set.len()).map(load).collect();
        assert_eq!(set.warnings(), Vec::<String>::new());
        samples
    }
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn error(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The files below a folder with their contents.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            found.extend(files(&path).into_iter().map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
        } else if name != "lock" {
            found.insert(name, std::fs::read(&path).unwrap());
        }
    }
    found
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn an_intact_folder_has_no_fault_and_looking_changes_nothing() {
    let fixture = Fixture::new();
    let before = files(&fixture.path());
    let printed = fixture.faults(&["verify"], 0);
    assert!(printed.starts_with("0 faults in 1 partitions"), "{printed}");
    assert!(printed.contains("3 frames of WAL (3 samples)"), "{printed}");
    fixture.print(&["list"]);
    fixture.print(&["analyze"]);
    fixture.print(&["dump"]);
    assert_eq!(files(&fixture.path()), before);
}

#[test]
fn partitions_are_listed_with_the_wal() {
    let fixture = Fixture::new();
    let printed = fixture.print(&["list"]);
    let row: Vec<&str> = printed.lines().nth(1).unwrap().split_whitespace().collect();
    let bytes = std::fs::metadata(fixture.partition()).unwrap().len().to_string();
    let samples = (SERIES * SAMPLES + 1).to_string();
    assert_eq!(row[2..], ["2024-10-04T00:00:00Z", "2024-10-04T01:39:00Z", "51", &samples, &bytes, "1"]);
    assert!(printed.contains("WAL: 1 segments"), "{printed}");
}

#[test]
fn a_flipped_bit_in_data_costs_what_verify_says_and_repair_keeps_the_rest() {
    let fixture = Fixture::new();
    let before = fixture.samples();
    let fixture = Fixture::new();
    // The second extent: DATA begins behind a header of 384 bytes.
    flip(&fixture.partition(), 384 + 16_384 + 100);
    let printed = fixture.faults(&["verify"], 1);
    assert!(printed.contains(&format!(
        "{}: offset {}: checksum",
        fixture.partition().display(),
        384 + 16_384
    )));
    let figure = |unit: &str| -> usize {
        let before = printed.split(unit).next().unwrap();
        before.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let (series, samples) = (figure(" series ("), figure(" samples; "));
    assert!((1..SERIES as usize).contains(&series) && samples == series * SAMPLES as usize, "{printed}");
    assert!(printed.contains("2024-10-04T00:00:00Z to 2024-10-04T01:39:00Z"), "{printed}");

    fixture.repair();
    let after = fixture.samples();
    assert_eq!(after.len(), before.len() - series);
    assert!(after.iter().all(|(series, samples)| before[series] == *samples));
    assert_eq!(fixture.partitions_aside(), 1);
}

#[test]
fn a_flipped_bit_anywhere_in_a_partition_is_found_and_repaired() {
    let whole = Fixture::new();
    let len = std::fs::metadata(whole.partition()).unwrap().len() as usize;
    let places = (0..12).map(|i| i * (len - 1) / 11).chain([9, 20, 381, len - 20, len - 400]);
    for (i, at) in places.enumerate() {
        let fixture = Fixture { dir: tempfile::tempdir().unwrap() };
        copy_folder(&whole.path(), &fixture.path());
        flip(&fixture.partition(), at);
        fixture.faults(&["verify"], 1);
        if i % 4 == 0 {
            fixture.repair();
            assert_eq!(fixture.partitions_aside(), 1, "flipped at {at}");
        }
    }
}

#[test]
fn a_repair_saves_what_a_damaged_extent_of_the_index_does_not_cover() {
    const MANY: i64 = 8_000;
    let fixture = Fixture { dir: tempfile::tempdir().unwrap() };
    let storage = Storage::open(&fixture.path(), options()).unwrap();
    let mut batch = Batch::new();
    (0..MANY).for_each(|series| batch.push(&labels(series), Timestamp::from_millis(START), 1.0));
    storage.append(&batch).unwrap();
    storage.close().unwrap();
    drop(storage);
    // Near the end: the series of each label. The identities of series lie in several extents before.
    let len = std::fs::metadata(fixture.partition()).unwrap().len() as usize;
    flip(&fixture.partition(), len - 2_000);
    let printed = fixture.faults(&["verify"], 1);
    assert!(printed.contains("bytes of POSTINGS") && printed.contains("8000 series"), "{printed}");
    fixture.repair();
    assert_eq!((fixture.samples().len() as i64, fixture.partitions_aside()), (MANY, 1));
}

#[test]
fn a_damaged_manifest_is_found_and_put_together_again() {
    let fixture = Fixture::new();
    let before = fixture.samples();
    let fixture = Fixture::new();
    flip(&fixture.path().join("MANIFEST"), 20);
    let printed = fixture.faults(&["verify"], 1);
    assert!(printed.contains("MANIFEST: ") && printed.contains("a start puts it together"), "{printed}");
    assert!(fixture.print(&["list"]).starts_with("MANIFEST: "));
    fixture.repair();
    assert_eq!(fixture.samples(), before);
}

#[test]
fn damaged_tombstones_are_set_aside_only_by_repair() {
    let fixture = Fixture::new();
    flip(&fixture.file("partitions", ".del"), 30);
    let storage = Storage::open(&fixture.path(), options()).unwrap();
    assert_eq!((storage.stats().partitions, storage.stats().missing_partitions), (0, 1));
    storage.close().unwrap();
    let printed = fixture.faults(&["verify"], 1);
    assert!(printed.contains("a server does not show it"), "{printed}");
    let printed = fixture.repair();
    assert!(printed.contains("delete it anew"), "{printed}");
    assert_eq!(fixture.samples()[&labels(7).to_string()], SAMPLES as usize);
    assert_eq!(files(&fixture.path().join("quarantine")).len(), 1);
}

#[test]
fn a_damaged_frame_of_the_wal_is_found_and_the_others_are_kept() {
    let fixture = Fixture::new();
    let segment = fixture.file("wal", ".wal");
    let bytes = std::fs::read(&segment).unwrap();
    // In the second of three frames, behind the prefix: the header has 36 bytes.
    let first = 12 + u32::from_le_bytes(bytes[36..40].try_into().unwrap()) as usize;
    flip(&segment, 36 + first + 13);
    let printed = fixture.faults(&["verify"], 1);
    assert!(printed.contains(&format!("{}: offset {}: ", segment.display(), 36 + first)), "{printed}");
    fixture.repair();
    assert_eq!(fixture.samples()[r#"{__name__="up", job="a\"b"}"#], 3, "one is lost");
    assert_eq!(files(&fixture.path().join("quarantine")).len(), 1);
}

#[test]
fn a_missing_partition_is_a_fault_that_stays() {
    let fixture = Fixture::new();
    std::fs::remove_file(fixture.partition()).unwrap();
    let printed = fixture.faults(&["verify"], 1);
    assert!(printed.contains(": missing; costs: "), "{printed}");
    assert_eq!(fixture.run(&["verify", "--repair"]).status.code(), Some(1));
}

#[test]
fn samples_are_dumped_from_partitions_and_wal_without_what_was_deleted() {
    let fixture = Fixture::new();
    let all = fixture.print(&["dump"]);
    assert_eq!(all.lines().count() as i64, SERIES * SAMPLES + 1 - 10 + 3);
    let up = fixture.print(&["dump", "--match=up"]);
    let line = |value: i64, minute: i64| {
        format!("{{__name__=\"up\", job=\"a\\\"b\"}} {value} {}\n", START + minute * MINUTE)
    };
    assert_eq!(up, [line(1, 0), line(110, 110), line(111, 111), line(112, 112)].concat());
    let seconds = ((START + 110 * MINUTE) / 1000).to_string();
    let (start, end) = (format!("--start={seconds}"), "--end=2024-10-04T01:51:00Z");
    let words = ["dump", "--match=up", "--match={job=~\".+\"}", &start, end];
    assert_eq!(fixture.print(&words), [line(110, 110), line(111, 111)].concat());
    let words = ["dump", "--match=up", &start, end, "--format=openmetrics"];
    let later = (START + 111 * MINUTE) / 1000;
    let expected = format!("up{{job=\"a\\\"b\"}} 110 {seconds}\nup{{job=\"a\\\"b\"}} 111 {later}\n# EOF\n");
    assert_eq!(fixture.print(&words), expected);
}

#[test]
fn native_histograms_are_dumped_as_prometheus_prints_them() {
    let fixture = Fixture { dir: tempfile::tempdir().unwrap() };
    let storage = Storage::open(&fixture.path(), options()).unwrap();
    let mut batch = Batch::new();
    let histogram = Histogram { count: 2.0, sum: 3.0, ..Histogram::default() };
    let name = Labels::from_pairs([("__name__", "h")]).unwrap();
    batch.push_histogram(&name, Timestamp::from_millis(START), Arc::new(histogram));
    storage.append(&batch).unwrap();
    storage.close().unwrap();
    let expected = format!("{{__name__=\"h\"}} {{count:2, sum:3}} {START}\n");
    assert_eq!(fixture.print(&["dump"]), expected);
    let output = fixture.run(&["dump", "--format=openmetrics"]);
    assert_eq!(text(&output), "# EOF\n");
    assert!(error(&output).contains("1 native histograms"));
}

#[test]
fn an_open_folder_is_listed_and_verified_but_not_dumped_or_repaired() {
    let fixture = Fixture::new();
    let storage = Storage::open(&fixture.path(), options()).unwrap();
    fixture.print(&["list"]);
    fixture.print(&["analyze"]);
    fixture.faults(&["verify"], 0);
    for words in [&["dump"][..], &["verify", "--repair"]] {
        let output = fixture.run(words);
        assert_eq!(output.status.code(), Some(1));
        assert!(error(&output).contains(&format!("in use by another process (pid {}", std::process::id())));
    }
    storage.close().unwrap();
}

#[test]
fn what_costs_most_is_named_first() {
    let fixture = Fixture::new();
    let printed = fixture.print(&["analyze", "--limit=3"]);
    assert!(printed.starts_with("1 partitions, 51 series (1 ended), 5001 samples"), "{printed}");
    let below = |title: &str| {
        let mut lines = printed.lines().skip_while(|line| !line.ends_with(title)).skip(1);
        lines.next().unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(below(" METRIC")[2..5], ["50", "0", "5000"]);
    assert_eq!(below(" METRIC")[6], "noise");
    assert!(below(" LABEL")[6].starts_with("series=\"s"), "{printed}");
    assert_eq!(below(" LABEL NAME"), ["50", "140", "series"]);
    assert_eq!(printed.lines().filter(|line| line.contains("series=")).count(), 3);
}

#[test]
fn a_folder_that_is_none_is_refused_and_not_created() {
    let fixture = Fixture { dir: tempfile::tempdir().unwrap() };
    for words in [&["list"][..], &["analyze"], &["dump"], &["verify"], &["verify", "--repair"]] {
        let output = fixture.run(words);
        assert_eq!(output.status.code(), Some(1));
        assert!(error(&output).contains(&fixture.path().display().to_string()), "{}", error(&output));
        assert!(!fixture.path().exists());
    }
    std::fs::create_dir(fixture.path()).unwrap();
    assert!(error(&fixture.run(&["verify", "--repair"])).contains("no data folder of Larum"));
    assert_eq!(std::fs::read_dir(fixture.path()).unwrap().count(), 0);
}

#[test]
fn output_that_nobody_reads_ends_quietly() {
    let fixture = Fixture::new();
    let mut child = Command::new(env!("CARGO_BIN_EXE_larum"))
        .args(["tsdb", "dump", &format!("--storage.tsdb.path={}", fixture.path().display())])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    // The reader and the pipe end with this statement.
    BufReader::with_capacity(16, child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.starts_with("{__name__="), "{first}");
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), error(&output)), (Some(0), String::new()));
}
