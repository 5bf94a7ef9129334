//! Storage against a map: whatever is appended, overwritten, deleted, cut, merged, expired, reopened
//! or cut off by a crash, a read gives what the map holds; and who began to read before goes on to
//! see what it held then.

#[path = "support/folder.rs"]
mod folder;

use folder::copy_folder;
use larum::Labels;
use larum::storage::options::{Maintenance, WalFsync};
use larum::storage::series_set::{Columns, Newest};
use larum::storage::{Batch, Matcher, Options, RetentionPolicy, Source, Storage, TimeRange, Timestamp, View};
use larum_storage_format::{Histogram, STALE_NAN, Samples, Span, Value};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const START: i64 = 20_000 * DAY + 5 * HOUR;

/// One thing that happens.
#[derive(Debug, Clone)]
enum Step {
    /// Samples of a series, at times counted in minutes back from now.
    Append(Vec<(u8, i64, Written)>),
    /// A scrape: all series at one time.
    Scrape(Written),
    Delete(u8, i64, i64),
    Flush,
    Maintain,
    Compact,
    Clean,
    Advance(i64),
    /// So many days with a scrape and maintenance each.
    Days(u8),
    Reopen,
    /// The folder as it is on disk now, opened elsewhere: what a crash would leave.
    Crash,
    /// The MANIFEST is lost in a crash.
    LoseManifest,
    /// Somebody begins to read, and compares later.
    Read,
}

#[derive(Debug, Clone, Copy)]
enum Written {
    Value(u8),
    Stale,
    Histogram(u8),
    /// A value with a start timestamp, so many seconds before.
    Since(u8, u8),
}

/// A sample without its time; the start timestamp is 0 where there is none.
#[derive(Debug, Clone)]
struct Stored(Value, i64);

impl PartialEq for Stored {
    fn eq(&self, other: &Stored) -> bool {
        self.0.same_bits(&other.0) && self.1 == other.1
    }
}

/// What is stored, by series and time.
type Model = BTreeMap<(u8, i64), Stored>;

impl Written {
    fn at(self, t: i64) -> Stored {
        match self {
            Written::Value(v) => Stored(Value::Float(v.into()), 0),
            Written::Stale => Stored(Value::Float(STALE_NAN), 0),
            Written::Histogram(n) => Stored(Value::Histogram(histogram(n.into())), 0),
            Written::Since(v, seconds) => Stored(Value::Float(v.into()), t - i64::from(seconds) * 1000),
        }
    }
}

fn stored(samples: &Samples, at: usize) -> Stored {
    Stored(samples.value(at), samples.start_timestamp(at).unwrap_or(0))
}

fn histogram(n: f64) -> Arc<Histogram> {
    Arc::new(Histogram {
        is_integer: true,
        schema: 3,
        zero_threshold: 1e-128,
        zero_count: 2.0,
        count: n + 3.0,
        sum: n / 4.0,
        positive_spans: vec![Span { offset: 1, length: 2 }],
        positive_buckets: vec![n, 1.0],
        ..Histogram::default()
    })
}

const SERIES: u8 = 4;

fn some_step() -> impl Strategy<Value = Step> {
    let written = || {
        prop_oneof![
            6 => any::<u8>().prop_map(Written::Value),
            2 => Just(Written::Stale),
            1 => any::<u8>().prop_map(Written::Histogram),
            1 => (any::<u8>(), 1..99u8).prop_map(|(v, seconds)| Written::Since(v, seconds)),
        ]
    };
    let minutes = || prop_oneof![6 => 0..180i64, 1 => 0..3 * 24 * 60i64];
    let sample = (0..SERIES, minutes(), written());
    prop_oneof![
        6 => proptest::collection::vec(sample, 1..20).prop_map(Step::Append),
        6 => written().prop_map(Step::Scrape),
        1 => (0..SERIES, minutes(), 0..200i64).prop_map(|(s, back, len)| Step::Delete(s, back, len)),
        3 => Just(Step::Flush),
        3 => Just(Step::Maintain),
        1 => Just(Step::Compact),
        1 => Just(Step::Clean),
        4 => prop_oneof![2 => 1..30i64, 2 => 60..200i64, 1 => 600..1300i64].prop_map(Step::Advance),
        2 => (1..8u8).prop_map(Step::Days),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
        1 => Just(Step::LoseManifest),
        2 => Just(Step::Read),
    ]
}

/// How long the series of jobs a and b are kept.
#[derive(Debug, Clone, Copy)]
struct Retention {
    a: Option<i64>,
    b: Option<i64>,
    /// Whether job a has a policy of its own.
    has_policy: bool,
}

/// None; longer than what is late by the most; and so long that days are merged with one another.
fn some_retention() -> impl Strategy<Value = Retention> {
    let keeps = || proptest::sample::select(vec![None, Some(4 * DAY), Some(20 * DAY)]);
    prop_oneof![
        keeps().prop_map(|keep| Retention { a: keep, b: keep, has_policy: false }),
        (keeps(), keeps()).prop_map(|(a, b)| Retention { a, b, has_policy: true }),
    ]
}

/// Somebody who began to read at some time.
struct Reader {
    view: View,
    /// What was stored then.
    then: Model,
    /// What was written since: it may show, and is read instead of what it replaced.
    since: BTreeMap<(u8, i64), Vec<Stored>>,
}

impl Reader {
    fn check(&self) {
        let found = read(&self.view);
        let is_written = |key, stored| self.since.get(key).is_some_and(|written| written.contains(stored));
        for (key, stored) in &self.then {
            let now = found.get(key);
            assert!(
                now.is_some_and(|now| now == stored || is_written(key, now)),
                "{key:?} was {stored:?} and is {now:?} in the same view"
            );
        }
        for (key, stored) in &found {
            assert!(self.then.contains_key(key) || is_written(key, stored), "{key:?} is {stored:?}");
        }
    }
}

struct World {
    retention: Retention,
    root: tempfile::TempDir,
    generation: u32,
    now: Arc<AtomicI64>,
    storage: Option<Storage>,
    model: Model,
    readers: Vec<Reader>,
}

fn is_a(series: u8) -> bool {
    series < 2
}

fn labels(series: u8) -> Labels {
    let job = if is_a(series) { "a" } else { "b" };
    Labels::from_pairs([("__name__", "m"), ("job", job), ("instance", "i"), ("series", &series.to_string())])
        .unwrap()
}

impl World {
    fn new(retention: Retention) -> World {
        let mut world = World {
            retention,
            root: tempfile::tempdir().unwrap(),
            generation: 0,
            now: Arc::new(AtomicI64::new(START)),
            storage: None,
            model: Model::new(),
            readers: Vec::new(),
        };
        world.open();
        world
    }

    fn path(&self) -> PathBuf {
        self.root.path().join(self.generation.to_string())
    }

    fn open(&mut self) {
        let now = self.now.clone();
        let options = Options {
            clock: Arc::new(move || Timestamp::from_millis(now.load(Ordering::Relaxed))),
            maintenance: Maintenance::Stepped,
            // What a power cut takes is not tested here.
            wal_fsync: WalFsync::Never,
            retention: self.retention.b.map(|ms| Duration::from_millis(ms as u64)),
            retention_policies: self.retention.has_policy.then(|| self.policy()).into_iter().collect(),
            ..Options::default()
        };
        let storage = Storage::open(&self.path(), options).unwrap();
        // Samples here may lie ahead of the clock or far behind it, for which a start waits a day until
        // anything expires; the guard has tests of its own.
        storage.trust_clock();
        self.storage = Some(storage);
    }

    fn policy(&self) -> RetentionPolicy {
        let keep = self.retention.a.map(|ms| Duration::from_millis(ms as u64));
        RetentionPolicy { matchers: vec![Matcher::equal("job", "a")], keep }
    }

    fn storage(&self) -> &Storage {
        self.storage.as_ref().unwrap()
    }

    fn now(&self) -> i64 {
        self.now.load(Ordering::Relaxed)
    }

    fn append(&mut self, samples: &[(u8, i64, Written)]) {
        let mut batch = Batch::new();
        for &(series, t, v) in samples {
            let stored = v.at(t);
            batch.push_series(&labels(series));
            match &stored.0 {
                Value::Float(v) => batch.sample(t, *v),
                Value::Histogram(h) => batch.histogram(t, h.clone()),
            }
            if stored.1 != 0 {
                batch.start_timestamp(stored.1);
            }
            let stale_loses = stored.0.is_stale() && self.model.contains_key(&(series, t));
            if !stale_loses {
                self.readers
                    .iter_mut()
                    .for_each(|r| r.since.entry((series, t)).or_default().push(stored.clone()));
                self.model.insert((series, t), stored);
            }
        }
        let appended = self.storage().append(&batch).unwrap();
        assert_eq!((appended.accepted, appended.refused), (samples.len(), vec![]));
    }

    fn step(&mut self, step: &Step) {
        let now = self.now();
        match step {
            Step::Append(samples) => {
                let samples: Vec<_> =
                    samples.iter().map(|&(s, back, w)| (s, now - back * MINUTE, w)).collect();
                self.append(&samples);
            }
            Step::Scrape(written) => {
                let samples: Vec<_> = (0..SERIES).map(|s| (s, now, *written)).collect();
                self.append(&samples);
            }
            Step::Delete(series, back, minutes) => {
                let range = TimeRange::new(now - back * MINUTE, now - (back - minutes) * MINUTE);
                let sets = [vec![Matcher::equal("series", series.to_string())]];
                let in_model = |(s, t): &(u8, i64)| s == series && range.contains(*t);
                let any = self.model.keys().any(in_model);
                let preview = self.storage().delete_preview(&sets, range).unwrap();
                let deleted = self.storage().delete(&sets, range).unwrap();
                assert_eq!((preview.series, preview.samples), (deleted.series, deleted.samples));
                assert_eq!(deleted.series > 0, any);
                self.model.retain(|key, _| !in_model(key));
            }
            Step::Flush => self.storage().flush().unwrap(),
            Step::Maintain => self.storage().maintain().unwrap(),
            Step::Compact => self.storage().compact().unwrap(),
            Step::Clean => {
                self.storage().clean_tombstones().unwrap();
                assert_eq!(self.storage().stats().partitions_with_tombstones, 0);
            }
            Step::Advance(minutes) => {
                self.advance(minutes * MINUTE);
                // Somebody always writes: where the newest sample is old, the clock is not believed.
                self.append(&[(0, self.now(), Written::Value(1))]);
            }
            Step::Days(days) => {
                for _ in 0..*days {
                    self.advance(23 * HOUR);
                    self.step(&Step::Scrape(Written::Value(*days)));
                    self.step(&Step::Maintain);
                }
            }
            Step::Reopen => {
                self.storage.take().unwrap().close().unwrap();
                self.open();
                assert!(self.storage().stats().clean_start);
            }
            Step::Read => {
                let view = self.storage().view();
                self.readers.push(Reader { view, then: self.model.clone(), since: BTreeMap::new() });
                if self.readers.len() > 3 {
                    self.readers.remove(0).check();
                }
            }
            Step::Crash => self.crash(false),
            Step::LoseManifest => self.crash(true),
        }
    }

    /// Time passes, and what is older than the retention has expired.
    fn advance(&mut self, by: i64) {
        self.now.fetch_add(by, Ordering::Relaxed);
        let border = |keep: Option<i64>| keep.map_or(i64::MIN, |keep| self.now() - keep);
        let (a, b) = (border(self.retention.a), border(self.retention.b));
        self.model.retain(|(series, t), _| *t >= if is_a(*series) { a } else { b });
    }

    fn crash(&mut self, lose_manifest: bool) {
        let from = self.path();
        self.generation += 1;
        copy_folder(&from, &self.path());
        if lose_manifest {
            std::fs::remove_file(self.path().join("MANIFEST")).unwrap();
        }
        self.storage = None;
        self.open();
    }

    fn check(&self) {
        let view = self.storage().view();
        assert_eq!(read(&view), self.model);

        // A partition may have expired in part: that is looked into only where there are policies.
        if self.retention.has_policy || self.retention.b.is_none() {
            let stored: BTreeSet<String> = self.model.keys().map(|(s, _)| s.to_string()).collect();
            let listed = view.label_values("series", &[], TimeRange::ALL).items;
            assert_eq!(listed, stored.iter().cloned().collect::<Vec<_>>());
            assert_eq!(view.series(&[], TimeRange::ALL).items.len(), stored.len());
            assert_eq!(view.label_names(&[], TimeRange::ALL).items.is_empty(), stored.is_empty());
        }

        let range = TimeRange::new(self.now() - HOUR, self.now() - 20 * MINUTE);
        let mut columns = Columns::default();
        let set = view.select(&[Matcher::equal("job", "b")], range).unwrap();
        let mut count = 0;
        let mut known = Vec::new();
        set.newest(0..set.len(), &mut columns, &mut known);
        assert_eq!(known.len(), set.len());
        for (i, known) in known.into_iter().enumerate() {
            let samples = set.load(i, &mut columns).unwrap();
            count += samples.len();
            let newest = set.load_newest(i, &mut columns).unwrap();
            let last = |s: &Samples| s.len().checked_sub(1).map(|at| (s.timestamps[at], stored(s, at)));
            assert_eq!(last(&newest), last(&samples));
            match (known, last(&samples)) {
                (Newest::Unknown, _) | (Newest::None, None) => {}
                (Newest::Float { t_ms, value }, Some((last_ms, Stored(last, _)))) => {
                    assert!(t_ms == last_ms && Value::Float(value).same_bits(&last));
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(count, self.model.keys().filter(|(s, t)| *s >= 2 && range.contains(*t)).count());
    }
}

/// All that a view shows.
fn read(view: &View) -> Model {
    let set = view.select(&[], TimeRange::ALL).unwrap();
    let mut columns = Columns::default();
    let mut found = Model::new();
    for index in 0..set.len() {
        let series: u8 = set.labels(index).get("series").unwrap().parse().unwrap();
        assert_eq!(set.labels(index), labels(series));
        let samples = set.load(index, &mut columns).unwrap();
        assert!(samples.timestamps.is_sorted_by(|a, b| a < b));
        let times = samples.timestamps.iter();
        found.extend((0..).zip(times).map(|(at, &t)| ((series, t), stored(&samples, at))));
    }
    assert_eq!(set.warnings(), Vec::<String>::new());
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn reads_give_what_a_map_would(
        retention in some_retention(),
        steps in proptest::collection::vec(some_step(), 1..60),
    ) {
        let mut world = World::new(retention);
        for step in &steps {
            world.step(step);
            world.check();
        }
        world.readers.iter().for_each(Reader::check);
    }
}
