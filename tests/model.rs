//! Storage against a map: whatever is appended, overwritten, deleted, cut, merged, reopened or cut
//! off by a crash, a read gives what the map holds.

#[path = "support/folder.rs"]
mod folder;

use folder::copy_folder;
use larum::Labels;
use larum::storage::options::Maintenance;
use larum::storage::series_set::Columns;
use larum::storage::{Batch, Matcher, Options, Source, Storage, TimeRange, Timestamp};
use larum_storage_format::{STALE_NAN, Samples, is_stale};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

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
    Advance(i64),
    Reopen,
    /// The folder as it is on disk now, opened elsewhere: what a crash would leave.
    Crash,
    /// The MANIFEST is lost in a crash.
    LoseManifest,
}

#[derive(Debug, Clone, Copy)]
enum Written {
    Value(u8),
    Stale,
}

impl Written {
    fn float(self) -> f64 {
        match self {
            Written::Value(v) => v.into(),
            Written::Stale => STALE_NAN,
        }
    }
}

const SERIES: u8 = 4;

fn some_step() -> impl Strategy<Value = Step> {
    let written = || prop_oneof![4 => any::<u8>().prop_map(Written::Value), 1 => Just(Written::Stale)];
    let minutes = || prop_oneof![6 => 0..180i64, 1 => 0..3 * 24 * 60i64];
    let sample = (0..SERIES, minutes(), written());
    prop_oneof![
        6 => proptest::collection::vec(sample, 1..20).prop_map(Step::Append),
        6 => written().prop_map(Step::Scrape),
        1 => (0..SERIES, minutes(), 0..200i64).prop_map(|(s, back, len)| Step::Delete(s, back, len)),
        3 => Just(Step::Flush),
        3 => Just(Step::Maintain),
        1 => Just(Step::Compact),
        4 => prop_oneof![1..30i64, 60..200i64].prop_map(Step::Advance),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
        1 => Just(Step::LoseManifest),
    ]
}

struct World {
    root: tempfile::TempDir,
    generation: u32,
    now: Arc<AtomicI64>,
    storage: Option<Storage>,
    model: BTreeMap<(u8, i64), f64>,
}

fn labels(series: u8) -> Labels {
    let job = if series < 2 { "a" } else { "b" };
    Labels::from_pairs([("__name__", "m"), ("job", job), ("instance", "i"), ("series", &series.to_string())])
        .unwrap()
}

impl World {
    fn new() -> World {
        let mut world = World {
            root: tempfile::tempdir().unwrap(),
            generation: 0,
            now: Arc::new(AtomicI64::new(START)),
            storage: None,
            model: BTreeMap::new(),
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
            ..Options::default()
        };
        self.storage = Some(Storage::open(&self.path(), options).unwrap());
    }

    fn storage(&self) -> &Storage {
        self.storage.as_ref().unwrap()
    }

    fn now(&self) -> i64 {
        self.now.load(Ordering::Relaxed)
    }

    fn append(&mut self, samples: &[(u8, i64, f64)]) {
        let mut batch = Batch::new();
        for &(series, t, v) in samples {
            batch.push(&labels(series), Timestamp::from_millis(t), v);
            let stale_loses = is_stale(v) && self.model.contains_key(&(series, t));
            if !stale_loses {
                self.model.insert((series, t), v);
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
                    samples.iter().map(|&(s, back, w)| (s, now - back * MINUTE, w.float())).collect();
                self.append(&samples);
            }
            Step::Scrape(written) => {
                let samples: Vec<_> = (0..SERIES).map(|s| (s, now, written.float())).collect();
                self.append(&samples);
            }
            Step::Delete(series, back, minutes) => {
                let range = TimeRange::new(now - back * MINUTE, now - (back - minutes) * MINUTE);
                let sets = [vec![Matcher::equal("series", series.to_string())]];
                let in_model = |(s, t): &(u8, i64)| s == series && range.contains(*t);
                let any = self.model.keys().any(in_model);
                let deleted = self.storage().delete(&sets, range).unwrap();
                assert_eq!(deleted.series > 0, any);
                self.model.retain(|key, _| !in_model(key));
            }
            Step::Flush => self.storage().flush().unwrap(),
            Step::Maintain => self.storage().maintain().unwrap(),
            Step::Compact => self.storage().compact().unwrap(),
            Step::Advance(minutes) => self.now.store(now + minutes * MINUTE, Ordering::Relaxed),
            Step::Reopen => {
                self.storage.take().unwrap().close().unwrap();
                self.open();
                assert!(self.storage().stats().clean_start);
            }
            Step::Crash => self.crash(false),
            Step::LoseManifest => self.crash(true),
        }
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
        let set = view.select(&[], TimeRange::ALL).unwrap();
        let mut columns = Columns::default();
        let mut found = BTreeMap::new();
        for index in 0..set.len() {
            let series: u8 = set.labels(index).get("series").unwrap().parse().unwrap();
            assert_eq!(set.labels(index), labels(series));
            let samples = set.load(index, &mut columns).unwrap();
            assert!(samples.timestamps.is_sorted_by(|a, b| a < b));
            found.extend(
                samples.timestamps.iter().zip(samples.floats).map(|(&t, v)| ((series, t), v.to_bits())),
            );
        }
        let expected: BTreeMap<_, _> = self.model.iter().map(|(&key, v)| (key, v.to_bits())).collect();
        assert_eq!(found, expected);
        assert_eq!(set.warnings(), Vec::<String>::new());

        let range = TimeRange::new(self.now() - HOUR, self.now() - 20 * MINUTE);
        let set = view.select(&[Matcher::equal("job", "b")], range).unwrap();
        let mut count = 0;
        for i in 0..set.len() {
            let samples = set.load(i, &mut columns).unwrap();
            count += samples.len();
            let newest = set.load_newest(i, &mut columns).unwrap();
            let last = |s: &Samples| Some((*s.timestamps.last()?, s.floats.last()?.to_bits()));
            assert_eq!(last(&newest), last(&samples));
        }
        assert_eq!(count, self.model.keys().filter(|(s, t)| *s >= 2 && range.contains(*t)).count());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn reads_give_what_a_map_would(steps in proptest::collection::vec(some_step(), 1..60)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            world.check();
        }
    }
}
