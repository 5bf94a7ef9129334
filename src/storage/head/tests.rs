//! The head as its users see it: appends, reads, switches, and what a restart finds.

use super::*;
use crate::storage::batch::{Batch, Refusal};
use crate::storage::fs::RealFs;
use crate::storage::matcher::{MatchOp, Matcher};
use crate::storage::part::Part;
use crate::storage::policy::{Borders, Policies, RetentionPolicy};
use crate::storage::series_set::Columns;
use crate::storage::time::TimeRange;
use index::Shared;
use larum_storage_format::{Histogram, Labels, STALE_NAN, Samples, Span, Value};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

const OPTIONS: HeadOptions = HeadOptions {
    seed: IdentitySeed(42),
    limits: Limits { labels: 8, label_name_bytes: 64, label_value_bytes: 64, series_bytes: 256 },
    fsync: WalFsync::Never,
    maintenance: Maintenance::Thread,
    wal_bytes: 128 << 20,
    generations_skipped: 0,
};

fn open(dir: &Path) -> Head {
    open_with(dir, OPTIONS)
}

fn open_with(dir: &Path, options: HeadOptions) -> Head {
    Head::open(Arc::new(RealFs), dir, 1, options).unwrap()
}

fn series(n: usize) -> Labels {
    let (job, instance) = (format!("job{}", n % 2), format!("host{}", n % 3));
    let n = n.to_string();
    // Every fifth has no target.
    let pairs = [("__name__", "m"), ("job", &job), ("instance", &instance), ("n", &n)];
    let skipped = if n.ends_with('5') { "job" } else { "" };
    Labels::from_pairs(pairs.into_iter().filter(|(name, _)| *name != skipped)).unwrap()
}

fn accept(range: TimeRange) -> Accept {
    Accept::new(Borders::at(range.min_ms), range.max_ms)
}

fn append(head: &Head, batch: &Batch) -> crate::storage::Appended {
    head.append_start(batch, &accept(TimeRange::ALL)).unwrap().wait().unwrap()
}

fn append_floats(head: &Head, samples: &[(usize, i64, f64)]) {
    let mut batch = Batch::new();
    for &(n, t, value) in samples {
        batch.push(&series(n), Timestamp::from_millis(t), value);
    }
    assert_eq!(append(head, &batch).accepted, samples.len());
}

type Model = BTreeMap<(String, i64), u64>;

/// All floats of a generation, by labels and time.
fn floats(generation: &Generation) -> Model {
    let mut all = Model::new();
    let mut columns = Columns::default();
    let mut previous = None;
    for (id, series) in generation.series() {
        assert!(previous < Some(id), "series ascend by id");
        previous = Some(id);
        let labels = generation.label_reader(None)(series).to_string();
        let samples = generation.samples(series, &mut columns);
        assert!(samples.timestamps.is_sorted_by(|a, b| a < b), "timestamps ascend strictly");
        for (t, value) in samples.timestamps.iter().zip(&samples.floats) {
            all.insert((labels.clone(), *t), value.to_bits());
        }
    }
    all
}

/// All samples of a generation, by labels, in words.
fn everything(generation: &Generation) -> BTreeMap<String, String> {
    let mut columns = Columns::default();
    let series = generation.series().into_iter();
    let in_words = |(_, series)| {
        let samples = generation.samples(series, &mut columns);
        (generation.label_reader(None)(series).to_string(), format!("{samples:?}"))
    };
    series.map(in_words).collect()
}

fn one(head: &Head, n: usize) -> Samples {
    let labels = series(n);
    let matchers: Vec<Matcher> = labels.iter().map(|(name, value)| Matcher::equal(name, value)).collect();
    let active = head.active();
    match active.select(&matchers).unwrap()[..] {
        [(_, series)] => active.samples(series, &mut Columns::default()),
        [] => Samples::default(),
        _ => panic!("all labels of a series select one"),
    }
}

/// A copy of the WAL folder as a crash would leave it.
fn copy(dir: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
    }
    to
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn what_was_appended_is_read_and_bad_samples_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let head = open(dir.path());
    let mut batch = Batch::new();
    let nameless = Labels::from_pairs([("job", "x")]).unwrap();
    let long = Labels::from_pairs([("__name__", "m".repeat(65))]).unwrap();
    let bad = Histogram { positive_spans: vec![Span { offset: 0, length: 2 }], ..Histogram::default() };
    batch.push(&series(0), Timestamp::from_millis(50), 1.0);
    batch.push(&series(0), Timestamp::from_millis(49), 2.0);
    batch.push(&nameless, Timestamp::from_millis(50), 3.0);
    batch.push(&series(1), Timestamp::from_millis(101), 4.0);
    batch.push(&long, Timestamp::from_millis(50), 5.0);
    batch.push_histogram(&series(2), Timestamp::from_millis(50), Arc::new(bad.clone()));
    batch.push(&series(2), Timestamp::from_millis(60), 6.0);
    batch.push_histogram(&series(3), Timestamp::from_millis(60), Arc::new(bad));
    let appended = head.append_start(&batch, &accept(TimeRange::new(50, 100))).unwrap().wait().unwrap();
    assert_eq!(appended.accepted, 2);
    let refused: Vec<(u32, u32)> = appended.refused.iter().map(|r| (r.sample, r.series)).collect();
    assert_eq!(refused, [(1, 0), (2, 1), (3, 2), (4, 3), (5, 4), (7, 5)]);
    assert_eq!(appended.refused[0].reason, Refusal::TooOld { border_ms: 50 });
    assert_eq!(appended.refused[1].reason, Refusal::NoMetricName);
    assert_eq!(appended.refused[2].reason, Refusal::TooFarAhead { border_ms: 100 });
    assert!(matches!(appended.refused[3].reason, Refusal::TooLong { limit_bytes: 64, .. }));
    assert!(matches!(appended.refused[4].reason, Refusal::BadHistogram(_)));
    assert_eq!((one(&head, 0).floats, one(&head, 2).floats), (vec![1.0], vec![6.0]));
    assert_eq!(head.series_count(), 2, "a series without a good sample takes no memory");
    assert_eq!(head.active().time_range(), Some(TimeRange::new(50, 60)));
}

#[test]
fn a_sample_is_too_old_by_the_policy_of_its_series() {
    let dir = tempfile::tempdir().unwrap();
    let head = open(dir.path());
    let keep = |ms| Some(std::time::Duration::from_millis(ms));
    let policy = |job: &str, keep| RetentionPolicy { matchers: vec![Matcher::equal("job", job)], keep };
    let policies = |rest, jobs: &[(&str, u64)]| {
        let list = jobs.iter().map(|&(job, ms)| policy(job, keep(ms))).collect();
        Arc::new(Policies::new(keep(rest), list))
    };
    // Series 0 has job0, 1 has job1, 5 has none. What is known is asked for by its policy, too.
    for (rest, jobs, borders) in [
        (10, &[][..], [90, 90, 90]),
        (10, &[("job0", 3)], [97, 90, 90]),
        (10, &[("job1", 30)], [90, 70, 90]),
        (10, &[("job1", 3), ("job0", 30), ("job1", 60)], [70, 97, 90]),
        (1, &[("job0", 3)], [97, 99, 99]),
    ] {
        let policies = policies(rest, jobs);
        let borders_now = Borders::new(&policies, 100);
        let accept = Accept::new(borders_now.clone(), 200);
        // The head may learn of the policies after who appends.
        for is_known in [false, true] {
            if is_known {
                head.set_policies(&policies);
            }
            for (n, border) in [0, 1, 5].into_iter().zip(borders) {
                let mut batch = Batch::new();
                // A new series that has but an old sample, and one that has others.
                let new = [rest.to_string(), format!("{}{is_known}{n}", jobs.len())].concat();
                let with =
                    |extra: &str| Labels::from_pairs(series(n).iter().chain([("new", extra)])).unwrap();
                for labels in [series(n), with(&format!("a{new}")), with(&format!("b{new}"))] {
                    batch.push(&labels, Timestamp::from_millis(border - 1), 1.0);
                    if labels.get("new") != Some(&format!("a{new}")) {
                        batch.push(&labels, Timestamp::from_millis(border), 1.0);
                    }
                }
                let appended = head.append_start(&batch, &accept).unwrap().wait().unwrap();
                assert_eq!(appended.accepted, 2, "{n} with {policies:?}");
                let is_too_old =
                    |r: &crate::storage::batch::Refused| r.reason == Refusal::TooOld { border_ms: border };
                assert!(appended.refused.iter().all(is_too_old), "{:?}", appended.refused);
            }
            let generation = head.active();
            let sets = generation.policy_sets(&policies).unwrap();
            for (_, found) in generation.series() {
                let labels = generation.label_reader(None)(found);
                assert_eq!(sets.policy_of(found), policies.policy_of(&labels), "{labels}");
            }
        }
    }
}

#[test]
fn the_later_write_wins_but_a_stale_marker_loses_to_any_value() {
    let dir = tempfile::tempdir().unwrap();
    let head = open(dir.path());
    append_floats(&head, &[(0, 10, 1.0), (0, 20, STALE_NAN), (0, 30, 3.0), (0, 15, STALE_NAN)]);
    append_floats(&head, &[(0, 10, STALE_NAN), (0, 20, 2.0), (0, 30, 4.0), (0, 15, 1.5), (0, 15, 1.6)]);
    let samples = one(&head, 0);
    assert_eq!(samples.timestamps[..], [10, 15, 20, 30]);
    assert_eq!(samples.floats, [1.0, 1.6, 2.0, 4.0]);
}

#[test]
fn histograms_and_start_timestamps_come_back_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let head = open(dir.path());
    let histogram = Arc::new(Histogram {
        is_integer: true,
        count: 2.0,
        sum: 3.5,
        positive_spans: vec![Span { offset: 1, length: 1 }],
        positive_buckets: vec![2.0],
        ..Histogram::default()
    });
    let mut batch = Batch::new();
    batch.push(&series(0), Timestamp::from_millis(10), 1.0);
    batch.push_histogram(&series(0), Timestamp::from_millis(20), histogram.clone());
    batch.push(&series(0), Timestamp::from_millis(30), 3.0);
    batch.start_timestamp(5);
    batch.push(&series(1), Timestamp::from_millis(30), 4.0);
    append(&head, &batch);
    for head in [&head, &open(copy(dir.path()).path())] {
        let samples = one(head, 0);
        assert_eq!(samples.timestamps[..], [10, 20, 30]);
        assert!(samples.value(1).same_bits(&Value::Histogram(histogram.clone())));
        assert!(samples.value(2).same_bits(&Value::Float(3.0)));
        assert_eq!([0, 1, 2].map(|i| samples.start_timestamp(i)), [None, None, Some(5)]);
        assert_eq!(one(head, 1).floats, [4.0]);
    }
}

#[test]
fn matchers_select_and_labels_are_listed() {
    let dir = tempfile::tempdir().unwrap();
    let head = open(dir.path());
    append_floats(&head, &(0..30).map(|n| (n, 1, 0.0)).collect::<Vec<_>>());
    let active = head.active();
    let count =
        |op, name: &str, value: &str| active.select(&[Matcher::new(op, name, value).unwrap()]).unwrap().len();
    assert_eq!(count(MatchOp::Equal, "job", "job0"), 15);
    assert_eq!(count(MatchOp::Equal, "job", ""), 3);
    assert_eq!(count(MatchOp::NotEqual, "job", ""), 27);
    assert_eq!(count(MatchOp::Regex, "n", "1.|2"), 11);
    assert_eq!(count(MatchOp::NotRegex, "n", "1.|2"), 19);
    assert_eq!(active.select(&[]).unwrap().len(), 30);
    let mut names = active.label_names(&[Matcher::equal("n", "5")]).unwrap();
    names.sort();
    assert_eq!(names, ["__name__", "instance", "n"]);
    let mut values = active.label_values("instance", &[Matcher::equal("job", "job1")]).unwrap();
    values.sort();
    assert_eq!(values, ["host0", "host1", "host2"]);
}

#[test]
fn a_switch_freezes_and_a_release_deletes_the_wal_and_forgets_silent_series() {
    let dir = tempfile::tempdir().unwrap();
    let head = open(dir.path());
    append_floats(&head, &[(0, 10, 1.0), (1, 10, 1.0)]);
    let frozen = head.switch().unwrap();
    append_floats(&head, &[(1, 20, 2.0)]);
    assert_eq!(head.switch().unwrap().number(), frozen.number(), "there is one frozen generation at most");
    assert_eq!((floats(&frozen).len(), floats(&head.active()).len()), (2, 1));
    assert_eq!(segments(dir.path()).len(), 2);

    // A reader keeps the generation and the names of its series.
    let hour = 3_600_000;
    head.release(Timestamp::from_millis(3 * hour)).unwrap();
    assert!(head.frozen().is_none());
    assert_eq!(segments(dir.path()).len(), 1);
    assert_eq!((head.series_count(), floats(&frozen).len()), (2, 2));

    drop(frozen);
    head.switch().unwrap();
    head.release(Timestamp::from_millis(hour)).unwrap();
    assert_eq!(head.series_count(), 2, "not silent for long enough");
    append_floats(&head, &[(1, 30, 2.0)]);
    head.switch().unwrap();
    append_floats(&head, &[(1, 40, 2.0)]);
    head.release(Timestamp::from_millis(3 * hour)).unwrap();
    assert_eq!(head.series_count(), 1, "series 0 is gone");
    append_floats(&head, &[(0, 50, 5.0)]);
    assert_eq!((one(&head, 0).floats, one(&head, 1).floats), (vec![5.0], vec![2.0]));
    assert_eq!(floats(&open(copy(dir.path()).path()).active()), floats(&head.active()));
}

#[test]
fn silent_series_leave_later_if_somebody_reads_at_the_release() {
    let dir = tempfile::tempdir().unwrap();
    let head = open(dir.path());
    append_floats(&head, &[(0, 10, 1.0)]);
    let reader = head.active();
    head.switch().unwrap();
    let later = Timestamp::from_millis(3 * 3_600_000);
    head.release(later).unwrap();
    head.tidy(later);
    assert_eq!((head.series_count(), floats(&reader).len()), (1, 1));
    drop(reader);
    head.tidy(later);
    assert_eq!(head.series_count(), 0);
}

#[test]
fn a_series_that_leaves_after_it_was_selected_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let head = open(dir.path());
    append_floats(&head, &[(0, 10, 1.0), (1, 10, 1.0)]);
    drop(head.switch().unwrap());
    append_floats(&head, &[(1, 20, 2.0)]);
    let active = head.active();
    let selected = Shared(&head.index).select(&[]);
    head.release(Timestamp::from_millis(3 * 3_600_000)).unwrap();
    assert_eq!((selected.len(), head.series_count()), (2, 1), "one is silent");
    assert_eq!(active.with_samples(selected), active.written());
}

#[test]
fn a_restart_after_a_kill_finds_all_that_was_written_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let head = open(dir.path());
    for t in 0..40 {
        append_floats(&head, &(0..20).map(|n| (n, t * 1000, n as f64 * t as f64)).collect::<Vec<_>>());
    }
    let expected = floats(&head.active());
    assert_eq!(expected.len(), 800);
    let dir = copy(dir.path());
    let again = open(dir.path());
    assert_eq!(floats(&again.active()), expected);
    append_floats(&again, &[(3, 40_000, 7.0), (77, 1, 7.0)]);
    let expected = floats(&again.active());
    assert_eq!(expected.len(), 802);
    let third = open(copy(dir.path()).path());
    assert_eq!(floats(&third.active()), expected);
    assert_eq!(one(&third, 3).floats.len(), 41);
}

#[test]
fn a_log_cut_at_any_byte_gives_all_frames_before_the_cut_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let head = open(dir.path());
    let segment = || segments(dir.path())[0].clone();
    let mut states = Vec::new();
    for t in 0..6 {
        append_floats(&head, &[(0, t, t as f64), (t as usize % 3, t, 0.5)]);
        states.push((fs::metadata(segment()).unwrap().len(), floats(&head.active())));
    }
    let whole = fs::read(segment()).unwrap();
    for cut in 0..=whole.len() {
        let copy = tempfile::tempdir().unwrap();
        fs::write(copy.path().join(segment().file_name().unwrap()), &whole[..cut]).unwrap();
        let found = floats(&open(copy.path()).active());
        let expected =
            states.iter().rev().find(|(end, _)| *end <= cut as u64).map(|(_, state)| state.clone());
        assert_eq!(found, expected.unwrap_or_default(), "cut at {cut}");
    }
}

#[test]
fn a_flipped_byte_costs_at_most_its_frame_and_invents_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let head = open(dir.path());
    for t in 0..4 {
        append_floats(&head, &[(0, t, t as f64), (1, t, 0.5)]);
    }
    let all = floats(&head.active());
    let segment = segments(dir.path())[0].clone();
    let whole = fs::read(&segment).unwrap();
    for at in larum_storage_format::wal::SegmentHeader::BYTES..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        let copy = tempfile::tempdir().unwrap();
        fs::write(copy.path().join(segment.file_name().unwrap()), &damaged).unwrap();
        let found = floats(&open(copy.path()).active());
        assert!(found.iter().all(|(key, value)| all.get(key) == Some(value)), "flipped at {at}");
        // The first frame declares the series; without it the others have no names.
        assert!(found.len() == 6 || found.is_empty(), "flipped at {at}");
    }
}

#[test]
fn samples_whose_declaration_is_damaged_are_counted_and_the_others_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let head = open(dir.path());
    append_floats(&head, &[(0, 1, 1.0)]);
    let segment = segments(dir.path())[0].clone();
    let declares = fs::metadata(&segment).unwrap().len() as usize;
    append_floats(&head, &[(0, 2, 1.0), (1, 2, 1.0)]);
    append_floats(&head, &[(1, 3, 1.0), (0, 3, 1.0), (1, 4, 1.0)]);
    let mut bytes = fs::read(&segment).unwrap();
    bytes[declares + 20] ^= 1;
    fs::write(&segment, bytes).unwrap();

    let other = tempfile::tempdir().unwrap();
    let restored = open(other.path());
    let found = replay::Segments::find(&RealFs, dir.path(), 0).unwrap();
    let (read, lost) = restore(&restored, |put| found.read(&RealFs, OPTIONS.seed, put)).unwrap();
    read.unwrap();
    assert_eq!(lost, 2);
    assert_eq!((restored.series_count(), floats(&restored.active()).len()), (1, 2));
}

#[test]
fn a_log_of_another_folder_or_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    append_floats(&open(dir.path()), &[(0, 1, 1.0)]);
    let other = HeadOptions { seed: IdentitySeed(43), ..OPTIONS };
    let refused = Head::open(Arc::new(RealFs), dir.path(), 1, other).err().unwrap();
    assert!(refused.to_string().contains("another data folder"), "{refused}");
    let segment = segments(dir.path())[0].clone();
    let mut bytes = fs::read(&segment).unwrap();
    bytes[8] = 9;
    // A checksum that is right, or it would be damage.
    let crc = larum_storage_format::checksum::crc32c(&bytes[..32]);
    bytes[32..36].copy_from_slice(&crc.to_le_bytes());
    fs::write(&segment, &bytes).unwrap();
    let refused = Head::open(Arc::new(RealFs), dir.path(), 1, OPTIONS).err().unwrap();
    assert!(matches!(refused, OpenError::Version { found: 9, supported: 1, .. }), "{refused}");
    // Generations that are not needed any more are not even looked at.
    assert_eq!(Head::open(Arc::new(RealFs), dir.path(), 2, OPTIONS).unwrap().active().number(), 2);
    assert!(segments(dir.path()).is_empty());
}

#[test]
fn threads_append_to_the_same_groups_while_generations_change() {
    let dir = tempfile::tempdir().unwrap();
    let options = HeadOptions { fsync: WalFsync::Always, ..OPTIONS };
    let head = open_with(dir.path(), options);
    let rounds = 60;
    std::thread::scope(|scope| {
        for thread in 0..4usize {
            let head = &head;
            scope.spawn(move || {
                for t in 0..rounds {
                    let samples: Vec<_> = (0..10).map(|n| (thread * 10 + n, t, n as f64)).collect();
                    append_floats(head, &samples);
                }
            });
        }
        let head = &head;
        scope.spawn(move || head.switch().unwrap());
    });
    let found: usize = head.generations().iter().map(|generation| floats(generation).len()).sum();
    assert_eq!(found, 4 * 10 * rounds as usize);
    assert_eq!(floats(&open(copy(dir.path()).path()).active()).len(), found);
    head.close().unwrap();
    let mut batch = Batch::new();
    batch.push(&series(0), Timestamp::from_millis(1), 1.0);
    assert!(head.append_start(&batch, &accept(TimeRange::ALL)).is_err());
}

#[test]
fn a_completion_is_called_once_the_batch_is_synced() {
    let dir = tempfile::tempdir().unwrap();
    let head = open_with(dir.path(), HeadOptions { fsync: WalFsync::Always, ..OPTIONS });
    let (done, is_done) = std::sync::mpsc::channel();
    for t in 0..20 {
        let mut batch = Batch::new();
        batch.push(&series(0), Timestamp::from_millis(t), 1.0);
        let done = done.clone();
        let pending = head.append_start(&batch, &accept(TimeRange::ALL)).unwrap();
        pending.on_durable(move |outcome| done.send(outcome.unwrap().accepted).unwrap());
    }
    for _ in 0..20 {
        assert_eq!(is_done.recv_timeout(std::time::Duration::from_secs(60)), Ok(1));
    }
}

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<(usize, i64, u8)>),
    Switch,
    Release,
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => proptest::collection::vec((0usize..12, 0i64..80, 0u8..4), 1..60).prop_map(Step::Append),
        4 => (0i64..80, 0u8..4).prop_map(|(t, v)| Step::Append((0..12).map(|n| (n, t, v)).collect())),
        1 => Just(Step::Switch),
        1 => Just(Step::Release),
        1 => Just(Step::Kill),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// In order, late, twice, over switches and restarts: each generation holds what was written
    /// last in it, and a restart joins the generations that were not released.
    #[test]
    fn generations_hold_what_was_written(steps in proptest::collection::vec(step(), 1..40)) {
        let mut dir = tempfile::tempdir().unwrap();
        let mut head = open(dir.path());
        let mut first_needed = 1;
        let mut frozen: Option<Model> = None;
        let mut active = Model::new();
        fn put(model: &mut Model, key: (String, i64), value: u64) {
            let known = model.entry(key).or_insert(value);
            if value != STALE_NAN.to_bits() {
                *known = value;
            }
        }
        for step in steps {
            match step {
                Step::Append(samples) => {
                    let value = |v: u8| if v == 0 { STALE_NAN } else { f64::from(v) };
                    let samples: Vec<_> = samples.into_iter().map(|(n, t, v)| (n, t, value(v))).collect();
                    append_floats(&head, &samples);
                    for (n, t, value) in samples {
                        put(&mut active, (series(n).to_string(), t), value.to_bits());
                    }
                }
                Step::Switch => {
                    head.switch().unwrap();
                    if frozen.is_none() {
                        frozen = Some(std::mem::take(&mut active));
                    }
                }
                Step::Release => {
                    if let Some(generation) = head.frozen() {
                        first_needed = generation.number() + 1;
                    }
                    head.release(Timestamp::from_millis(i64::MAX)).unwrap();
                    frozen = None;
                }
                Step::Kill => {
                    dir = copy(dir.path());
                    head = Head::open(Arc::new(RealFs), dir.path(), first_needed, OPTIONS).unwrap();
                    for (key, value) in std::mem::replace(&mut active, frozen.take().unwrap_or_default()) {
                        put(&mut active, key, value);
                    }
                }
            }
            prop_assert_eq!(&floats(&head.active()), &active);
            let found = head.frozen().map(|generation| floats(&generation));
            prop_assert_eq!(&found, &frozen);
        }
    }
    /// Two threads fill the groups at a restart.
    #[test]
    fn a_restart_finds_samples_of_every_kind_as_they_were(
        batches in proptest::collection::vec(proptest::collection::vec((0usize..12, 0i64..80, 0u8..20), 1..40), 1..12),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let head = open(dir.path());
        for samples in batches {
            let mut batch = Batch::new();
            for (n, t, kind) in samples {
                let at = Timestamp::from_millis(t);
                match kind {
                    0 => {
                        let histogram = Histogram { sum: t as f64, ..Histogram::default() };
                        batch.push_histogram(&series(n), at, Arc::new(histogram));
                    }
                    _ => batch.push(&series(n), at, f64::from(kind)),
                }
                if kind == 1 {
                    batch.start_timestamp(t - 100);
                }
            }
            append(&head, &batch);
        }
        let copied = copy(dir.path());
        let restarted = open(copied.path());
        prop_assert_eq!(everything(&restarted.active()), everything(&head.active()));
        prop_assert_eq!(restarted.active_samples(), head.active_samples());
    }
}
