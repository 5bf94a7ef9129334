//! Storage under threads: writers, readers, deletions, cuts, merges and retention at once. Every
//! value tells its series and time, so that a reader knows a wrong one; what is acknowledged is
//! there from then on; and a start, after a crash or not, finds exactly what each writer left.

#[path = "support/folder.rs"]
mod folder;

use folder::copy_folder;
use larum::Labels;
use larum::storage::options::{Maintenance, WalFsync};
use larum::storage::series_set::Columns;
use larum::storage::{Batch, Matcher, Options, Source, Storage, TimeRange, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

const HOUR: i64 = 3_600_000;
const START: i64 = 20_000 * 24 * HOUR;
const STEP: i64 = 15_000;
const WRITERS: usize = 4;
const SERIES: u64 = 12;
const RUNS_FOR: Duration = Duration::from_secs(5);
const GIVES_UP_AFTER: Duration = Duration::from_secs(60);

/// By writer, series and time. The series above [`SERIES`] come and go.
type Model = BTreeMap<(usize, u64), BTreeSet<i64>>;

fn labels(writer: usize, series: u64) -> Labels {
    let (writer, series) = (writer.to_string(), series.to_string());
    Labels::from_pairs([("__name__", "m"), ("job", &writer), ("instance", "i"), ("n", &series)]).unwrap()
}

fn value(writer: usize, series: u64, t: i64) -> f64 {
    ((t - START) * 1000 + series as i64 % 100 * 10 + writer as i64) as f64
}

/// A number that looks random.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// What a writer tells readers.
#[derive(Default)]
struct Progress {
    /// All series below [`SERIES`] have all samples up to here.
    acknowledged: AtomicI64,
    /// Deletions that began, and whether they are done: series and range.
    deletions: Mutex<Vec<(u64, TimeRange, bool)>>,
}

struct Stage {
    storage: Storage,
    now: Arc<AtomicI64>,
    progress: [Progress; WRITERS],
    ends: AtomicBool,
    deadline: Instant,
}

fn options(now: &Arc<AtomicI64>) -> Options {
    let now = now.clone();
    Options {
        clock: Arc::new(move || Timestamp::from_millis(now.load(SeqCst))),
        maintenance: Maintenance::Stepped,
        wal_fsync: WalFsync::Interval(Duration::from_millis(10)),
        wal_bytes: 4 << 10,
        max_ahead: Duration::from_secs(48 * 3600),
        ..Options::default()
    }
}

impl Stage {
    fn append(&self, batch: &Batch) {
        loop {
            match self.storage.append(batch) {
                Ok(appended) => return assert_eq!(appended.refused, []),
                Err(e) => assert!(e.to_string().contains("backlog"), "{e}"),
            }
            assert!(Instant::now() < self.deadline, "the backlog stays");
            std::thread::yield_now();
        }
    }

    fn write(&self, writer: usize) -> Model {
        let mut random = Random(writer as u64);
        let mut model = Model::new();
        let mut t = START;
        while !self.ends.load(SeqCst) {
            t += STEP;
            let mut batch = Batch::new();
            let mut put = |series: u64, t: i64| {
                batch.push(&labels(writer, series), Timestamp::from_millis(t), value(writer, series, t));
                model.entry((writer, series)).or_default().insert(t);
            };
            (0..SERIES).for_each(|series| put(series, t));
            put(SERIES + (t - START) as u64 / 2_000_000, t);
            if random.below(8) == 0 {
                put(random.below(SERIES), t - random.below(3 * HOUR as u64) as i64 / STEP * STEP + 1);
            }
            self.append(&batch);
            self.progress[writer].acknowledged.store(t, SeqCst);
            self.now.fetch_max(t, SeqCst);
            if random.below(150) == 0 {
                let series = random.below(SERIES);
                let range = TimeRange::new(t - random.below(HOUR as u64) as i64, t);
                let deletions = &self.progress[writer].deletions;
                deletions.lock().unwrap().push((series, range, false));
                let (job, n) = (writer.to_string(), series.to_string());
                let set = vec![Matcher::equal("job", &job), Matcher::equal("n", &n)];
                self.storage.delete(&[set], range).unwrap();
                deletions.lock().unwrap().last_mut().unwrap().2 = true;
                model.entry((writer, series)).or_default().retain(|&t| !range.contains(t));
            }
        }
        model
    }

    fn read(&self, reader: usize) -> u64 {
        let mut random = Random(100 + reader as u64);
        let mut reads = 0;
        while !self.ends.load(SeqCst) {
            let writer = random.below(WRITERS as u64) as usize;
            let progress = &self.progress[writer];
            let acknowledged = progress.acknowledged.load(SeqCst);
            let deleted = progress.deletions.lock().unwrap().clone();
            let view = self.storage.view();
            let min_ms = (acknowledged - random.below(2 * HOUR as u64) as i64).max(START + STEP);
            let range = TimeRange::new(min_ms, i64::MAX);
            let set = view.select(&[Matcher::equal("job", writer.to_string())], range).unwrap();
            let mut columns = Columns::default();
            let mut found = BTreeMap::new();
            for i in 0..set.len() {
                let series = set.labels(i).get("n").unwrap().parse::<u64>().unwrap();
                let samples = set.load(i, &mut columns).unwrap();
                assert!(samples.timestamps.is_sorted_by(|a, b| a < b));
                for (&t, &v) in samples.timestamps.iter().zip(&samples.floats) {
                    assert!(range.contains(t));
                    assert_eq!(v, value(writer, series, t), "series {series} at {t}");
                }
                found.insert(series, samples.timestamps);
            }
            assert!(set.warnings().is_empty(), "{:?}", set.warnings());
            let perhaps_deleted = progress.deletions.lock().unwrap().clone();
            for series in 0..SERIES {
                let times = found.get(&series).map_or(&[][..], |times| times);
                let covered = |deletions: &[(u64, TimeRange, bool)], t: i64| {
                    deletions.iter().any(|(of, range, done)| *of == series && *done && range.contains(t))
                };
                let begun: Vec<_> = perhaps_deleted.iter().map(|&(of, range, _)| (of, range, true)).collect();
                let first = START + (min_ms - START + STEP - 1) / STEP * STEP;
                for t in (first..=acknowledged).step_by(STEP as usize) {
                    match times.binary_search(&t) {
                        Ok(_) => assert!(!covered(&deleted, t), "{t} of {series} was deleted"),
                        Err(_) => assert!(covered(&begun, t), "{t} of {series} was acknowledged"),
                    }
                }
            }
            reads += 1;
        }
        reads
    }
}

fn read_all(storage: &Storage) -> Model {
    let view = storage.view();
    let set = view.select(&[], TimeRange::ALL).unwrap();
    let mut columns = Columns::default();
    let mut model = Model::new();
    for i in 0..set.len() {
        let labels = set.labels(i);
        let number = |name| labels.get(name).unwrap().parse::<u64>().unwrap();
        let (writer, series) = (number("job") as usize, number("n"));
        let samples = set.load(i, &mut columns).unwrap();
        let right = |(&t, &v): (&i64, &f64)| v == value(writer, series, t);
        assert!(samples.timestamps.iter().zip(&samples.floats).all(right));
        if !samples.is_empty() {
            model.insert((writer, series), samples.timestamps.iter().copied().collect());
        }
    }
    model
}

fn assert_same(found: &Model, expected: &Model, when: &str) {
    for key in expected.keys().chain(found.keys()) {
        let none = BTreeSet::new();
        let [found, expected] = [found, expected].map(|model| model.get(key).unwrap_or(&none));
        let differ: Vec<_> = found.symmetric_difference(expected).take(5).collect();
        assert!(differ.is_empty(), "{when}: series {key:?} differs at {differ:?}");
    }
}

#[test]
fn writers_readers_deletions_and_background_work_do_not_disturb_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicI64::new(START));
    let stage = Stage {
        storage: Storage::open(dir.path(), options(&now)).unwrap(),
        now: now.clone(),
        progress: Default::default(),
        ends: AtomicBool::new(false),
        deadline: Instant::now() + GIVES_UP_AFTER,
    };
    let mut expected = Model::new();
    let stage = &stage;
    std::thread::scope(|scope| {
        let (ended, end) = mpsc::channel::<()>();
        let writers: Vec<_> = (0..WRITERS).map(|n| scope.spawn(move || stage.write(n))).collect();
        let readers: Vec<_> = (0..2).map(|n| scope.spawn(move || stage.read(n))).collect();
        let maintenance = scope.spawn(move || {
            while let Err(mpsc::RecvTimeoutError::Timeout) = end.recv_timeout(Duration::from_millis(5)) {
                stage.storage.maintain().unwrap();
            }
        });
        // Ends early if a thread panicked.
        let until = Instant::now() + RUNS_FOR;
        let one_ended = || writers.iter().any(|w| w.is_finished()) || readers.iter().any(|r| r.is_finished());
        while Instant::now() < until && !one_ended() && !maintenance.is_finished() {
            std::thread::park_timeout(Duration::from_millis(20));
        }
        stage.ends.store(true, SeqCst);
        for writer in writers {
            expected.append(&mut writer.join().unwrap());
        }
        for reader in readers {
            assert!(reader.join().unwrap() > 0);
        }
        drop(ended);
        maintenance.join().unwrap();
    });
    let stats = stage.storage.stats();
    assert!(stats.cuts > 3 && stats.compactions > 0 && stats.series_removed > 0, "{stats:?}");
    assert_same(&read_all(&stage.storage), &expected, "at the end");

    let copy = tempfile::tempdir().unwrap();
    copy_folder(dir.path(), copy.path());
    let crashed = Storage::open(copy.path(), options(&now)).unwrap();
    assert_same(&read_all(&crashed), &expected, "after a crash");
    stage.storage.close().unwrap();
    let again = Storage::open(dir.path(), options(&now)).unwrap();
    assert_same(&read_all(&again), &expected, "after a start");
    again.compact().unwrap();
    assert_same(&read_all(&again), &expected, "after merging all");
}
