//! A database on a disk that loses power, beside a model of what it must hold.

use super::disk::Disk;
use super::model::{After, Found, Key, Model, Stored};
use super::rng::Rng;
use super::site::Site;
use super::warnings::Warnings;
use crate::storage::cut::{DAY_MS, HOUR_MS};
use crate::storage::engine::Storage;
use crate::storage::error::UnavailableCause;
use crate::storage::folder::Folder;
use crate::storage::fs::Fs;
use crate::storage::options::{Maintenance, Options, SizeLimit, WalFsync};
use crate::storage::part::{Load, Part};
use crate::storage::partition::{Partition, PartitionError};
use crate::storage::series_set::{Columns, SeriesSet};
use crate::storage::{Batch, Matcher, RetentionPolicy, TimeRange, Timestamp};
use larum_storage_format::manifest::Manifest;
use larum_storage_format::{DecodeErrorKind, Labels, Value};
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What may be warned of: the first two always, the others where appends are not synced at once,
/// as any of the last writes may be missing then.
const EXPECTED: [&str; 5] = [
    "dropped the torn end of the WAL",
    "the newest sample is more than a day old",
    "the WAL is damaged",
    "the header of a WAL segment is damaged",
    "samples in the WAL whose series",
];

/// What may be warned of besides, where files are damaged.
const OF_DAMAGE: [&str; 7] = [
    "a damaged partition is moved to quarantine",
    "a partition lies in quarantine",
    // A merge wrote it and was not committed, and of what it read something is in quarantine now.
    "a partition that MANIFEST does not name is left alone",
    "tombstones of an unknown partition are left alone",
    "a partition is damaged",
    "a damaged partition was merged without what cannot be read",
    "a deletion failed",
];

/// What may be warned of besides, where the disk fills.
const OF_FULL_DISK: [&str; 4] = [
    "the disk is full",
    "there is space again",
    "space on the disk is low",
    "a merge of partitions waits for space",
];

const START_MS: i64 = 20_000 * DAY_MS + 5 * HOUR_MS;
const MINUTE_MS: i64 = 60_000;
/// What a snapshot holds beside the samples.
const BESIDE: &str = "state/export";
const SERIES: u8 = 6;

/// Every so many seeds the disk flips bits.
pub(super) const FLIPS_IN: u64 = 8;

/// Every so many seeds it fills now and then.
const FILLS_IN: u64 = 5;

/// Every so many seeds series are kept for different times.
const POLICIES_IN: u64 = 6;

/// The process has ended in the middle of a step.
struct Ended;

pub(super) struct World {
    disk: Disk,
    /// The data folder.
    path: PathBuf,
    rng: Rng,
    /// Numbers the samples.
    next: u64,
    now_ms: Arc<AtomicI64>,
    /// What storage gets.
    random: Arc<Mutex<Rng>>,
    fsync: WalFsync,
    wal_bytes: u64,
    /// How long the series of job a are kept, and how long those of job b.
    keeps_ms: [Option<i64>; 2],
    model: Model,
    storage: Option<Storage>,
    /// Snapshots that were acknowledged, and what was in them.
    snapshots: Vec<(PathBuf, Model)>,
    snapshots_begun: u32,
    /// Whether samples expire more often than else: few other commits remove files and write none.
    expires: bool,
    /// Whether the disk flips bits of files.
    flips: bool,
    /// Whether the disk fills now and then: samples are refused then, and merges wait.
    fills: bool,
    /// How often: after one in so many lives.
    flips_in: u64,
    /// Whether it just did.
    was_damaged: bool,
    /// Files that it damaged, and their times: they must stay somewhere.
    damaged: Vec<(Vec<u8>, TimeRange)>,
    warnings: Warnings,
    /// What happened since the last check.
    after: After,
    verbose: bool,
}

/// What a run did.
pub(super) struct Outcome {
    /// File operations.
    pub ops: u64,
    /// A hash of them.
    pub trace: u64,
    /// The sites that synced.
    pub sites: BTreeSet<Site>,
    /// How often the process ended or the power was cut.
    pub ends: u32,
}

/// One history, with the power cut at several places.
///
/// # Panics
/// If anything is lost, comes back, is torn, or is warned of that should not be.
pub(super) fn run(seed: u64, fsync: WalFsync, omitted: Option<Site>, warnings: Warnings) -> Outcome {
    let mut rng = Rng::new(seed);
    let disk = Disk::new(rng.next());
    if let Some(site) = omitted {
        disk.omit(site);
    }
    let expires = matches!(omitted, Some(Site::RetiredFolder | Site::StraysFolder));
    let retention_ms = match expires {
        true => [Some(3 * DAY_MS), Some(8 * HOUR_MS)][rng.below(2) as usize],
        false => [None, Some(3 * DAY_MS), Some(8 * HOUR_MS)][rng.below(3) as usize],
    };
    // Every so many seeds job a has a policy of its own, for longer or for shorter.
    let keeps_ms = match seed % POLICIES_IN {
        2 => [Some(8 * HOUR_MS), retention_ms.map(|_| 3 * DAY_MS)],
        3 => [None, retention_ms],
        _ => [retention_ms; 2],
    };
    let mut world = World {
        disk,
        path: PathBuf::from("/disk/data"),
        next: 0,
        now_ms: Arc::new(AtomicI64::new(START_MS)),
        random: Arc::new(Mutex::new(Rng::new(rng.next()))),
        fsync,
        wal_bytes: [2 << 10, 16 << 10, 1 << 20][rng.below(3) as usize],
        keeps_ms,
        expires,
        rng,
        model: Model::default(),
        storage: None,
        snapshots: Vec::new(),
        snapshots_begun: 0,
        flips: seed % FLIPS_IN == 1,
        fills: seed % FILLS_IN == 2 && omitted.is_none(),
        flips_in: if omitted.is_some() { 1 } else { 2 },
        was_damaged: false,
        damaged: Vec::new(),
        warnings,
        after: After::Nothing,
        verbose: super::variable("LARUM_POWER_CUT_SEED").is_some(),
    };
    let lives = if world.flips { 12 } else { 2 } + world.rng.below(8) as u32;
    for _ in 0..lives {
        world.live();
    }
    world.end_well();
    Outcome { ops: world.disk.ops(), trace: world.disk.trace(), sites: world.disk.sites(), ends: lives }
}

fn is_a(series: u8) -> bool {
    series < 3
}

fn labels(series: u8) -> Labels {
    let (job, series) = (if is_a(series) { "a" } else { "b" }, series.to_string());
    Labels::from_pairs([("__name__", "m"), ("job", job), ("instance", "i"), ("series", &series)]).unwrap()
}

impl World {
    fn now(&self) -> i64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    fn options(&self) -> Options {
        let (now_ms, random) = (self.now_ms.clone(), self.random.clone());
        let [a_ms, b_ms] = self.keeps_ms;
        let length = |keep_ms: Option<i64>| keep_ms.map(|ms| Duration::from_millis(ms as u64));
        let policy = || RetentionPolicy { matchers: vec![Matcher::equal("job", "a")], keep: length(a_ms) };
        Options {
            clock: Arc::new(move || Timestamp::from_millis(now_ms.load(Ordering::Relaxed))),
            random: Arc::new(move || Ok(random.lock().unwrap_or_else(PoisonError::into_inner).next())),
            maintenance: Maintenance::Stepped,
            wal_fsync: self.fsync,
            wal_bytes: self.wal_bytes,
            retention: length(b_ms),
            retention_policies: (a_ms != b_ms).then(policy).into_iter().collect(),
            // Never reached, but measured.
            size_limit: SizeLimit { percentage: Some(100.0), bytes: None },
            ..Options::default()
        }
    }

    /// Tells what happens, if somebody looks at one seed.
    fn tell(&self, what: fmt::Arguments<'_>) {
        if self.verbose {
            println!("{:6} {:13} {what}", self.disk.ops(), self.now());
        }
    }

    fn storage(&self) -> &Storage {
        self.storage.as_ref().expect("opened")
    }

    /// A process from its start to its end, and the power cut after it, if it is.
    fn live(&mut self) {
        // What is found damaged at the start is set aside within few operations.
        let reach = match self.was_damaged {
            true => 20,
            false => [4, 30, 150, 600][self.rng.below(4) as usize],
        };
        self.disk.end_after(Some(1 + self.rng.below(reach)));
        if self.open().is_ok() && self.expire_at_once().is_ok() {
            let mut steps = 0;
            while steps < 120 && self.step().is_ok() {
                steps += 1;
            }
        }
        self.disk.end();
        self.storage = None;
        self.tell(format_args!("ends, {:?}", self.warnings.take()));
        if self.rng.one_in(4) {
            self.disk.restart();
            self.after = self.after.max(After::End);
        } else {
            self.disk.cut_power();
            self.after = After::PowerCut;
        }
        self.tell(format_args!("{:?}", self.after));
        let count = self.damaged.len();
        if self.flips && self.rng.one_in(self.flips_in) {
            self.damage();
        }
        self.was_damaged = self.damaged.len() > count && self.rng.one_in(2);
    }

    /// Damages a file that is in order, so that it is noticed. A power cut may take back what named
    /// it before that was synced, and then nobody misses it: such files are left alone.
    fn damage(&mut self) {
        let folder = Folder::new(&self.path);
        if !self.disk.is_durable(&folder.manifest()) {
            return;
        }
        let manifest = self.disk.read(&folder.manifest()).ok();
        let Some(manifest) = manifest.and_then(|bytes| Manifest::decode(&bytes).ok()) else { return };
        let live = manifest.partitions;
        let Some(meta) = live.get(self.rng.below(live.len() as u64) as usize) else { return };
        let path = folder.partition(meta.number);
        let range = TimeRange::new(meta.min_ms, meta.max_ms);
        if self.is_sound(&path) != Some(true) {
            return;
        }
        // The header, or anything: what nobody would notice is left as it is.
        let reach = if self.rng.one_in(2) { 64 } else { u64::MAX };
        let (at, bits) = (self.rng.below(reach), 1 << self.rng.below(8));
        if self.disk.flip(&path, at, bits).is_none() {
            return;
        }
        if self.is_sound(&path) != Some(false) {
            self.disk.flip(&path, at, bits);
            return;
        }
        self.tell(format_args!("{} is damaged, {range:?}", path.display()));
        let bytes = self.disk.read(&path).expect("the file is there");
        self.damaged.push((bytes, range));
        self.model.damage(range);
        self.snapshots.iter_mut().for_each(|(_, model)| model.damage(range));
    }

    /// Whether all of a partition can be read; `None` if that cannot be said.
    fn is_sound(&self, path: &Path) -> Option<bool> {
        let partition = match Partition::open(&self.disk, path) {
            Ok(partition) => partition,
            // It may be of another version.
            Err(PartitionError::Damaged { error, .. }) => {
                return (!matches!(error.kind, DecodeErrorKind::Version { .. })).then_some(false);
            }
            Err(PartitionError::Io(_)) => return None,
        };
        if partition.verify_index().is_err() {
            return Some(false);
        }
        let mut columns = Columns::default();
        let mut load = Load::new(TimeRange::ALL, &mut columns);
        (0..).take_while(|&series| partition.series_id(series).is_some()).for_each(|series| {
            partition.load(series, &mut load);
        });
        Some(load.damaged.is_empty())
    }

    /// What was damaged is never deleted before it expires.
    fn check_damaged(&mut self, border_ms: i64) {
        self.damaged.retain(|(_, range)| range.max_ms >= border_ms);
        let (disk, path) = (&self.disk, &self.path);
        let files = ["partitions", "quarantine"].map(|folder| {
            let folder = path.join(folder);
            let names = disk.list(&folder).unwrap_or_default();
            names.into_iter().map(move |name| folder.join(name))
        });
        let files: Vec<PathBuf> = files.into_iter().flatten().collect();
        for (bytes, range) in &self.damaged {
            let is_kept = files.iter().any(|file| disk.read(file).is_ok_and(|held| held == *bytes));
            assert!(is_kept, "a damaged file with {range:?} is gone, there are {files:?}");
        }
    }

    /// The last process: nothing ends it, and all is in order.
    fn end_well(&mut self) {
        self.disk.set_full(false);
        self.all_is_well(|world| world.open());
        self.all_is_well(|world| world.maintain());
        self.all_is_well(|world| world.compact());
        self.all_is_well(|world| world.append_now());
        self.all_is_well(|world| world.flush());
        self.lose_power_and_open();
        self.all_is_well(|world| world.reopen());
        let names = self.disk.list(Path::new("/disk/data/partitions")).expect("the folder is there");
        let files = names.iter().filter(|name| name.ends_with(".part")).count();
        let live = self.storage().stats().partitions;
        // Besides what a merge wrote whose input was found damaged before it was committed.
        assert!(files as u64 == live || self.flips && files as u64 > live, "{names:?}");
        let segments = self.disk.list(Path::new("/disk/data/wal")).expect("the folder is there");
        assert_eq!(segments, Vec::<String>::new());
        self.storage = None;
        self.damaged.clear();
        for (path, model) in std::mem::take(&mut self.snapshots) {
            (self.path, self.model) = (path, model);
            self.disk.restart();
            let beside = self.disk.read(&self.path.join(BESIDE)).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(beside, self.path.as_os_str().as_encoded_bytes());
            self.all_is_well(|world| world.open());
            // What was a snapshot is a database like any other.
            self.all_is_well(|world| world.append_now());
            self.lose_power_and_open();
            self.storage = None;
        }
    }

    /// The process ends and the power goes after all ended well.
    fn lose_power_and_open(&mut self) {
        self.disk.end();
        self.storage = None;
        self.disk.cut_power();
        self.warnings.take();
        self.after = After::PowerCut;
        self.all_is_well(|world| world.open());
    }

    fn all_is_well(&mut self, work: impl FnOnce(&mut World) -> Result<(), Ended>) {
        assert!(work(self).is_ok(), "nothing ends this process");
    }

    fn open(&mut self) -> Result<(), Ended> {
        let disk: Arc<dyn Fs> = Arc::new(self.disk.clone());
        let opened = Storage::open_on(disk, &self.path, self.options());
        if self.disk.has_ended() {
            return Err(Ended);
        }
        self.storage = Some(opened.unwrap_or_else(|e| panic!("open fails after {:?}: {e}", self.after)));
        self.check();
        Ok(())
    }

    /// Compares all that is read with the model.
    fn check(&mut self) {
        let after = std::mem::replace(&mut self.after, After::Nothing);
        let mut model = std::mem::take(&mut self.model);
        self.compare(self.storage(), &mut model, after);
        self.model = model;
        let fine = |warning: &String| {
            let expected = match self.fsync {
                WalFsync::Always => &EXPECTED[..2],
                _ => &EXPECTED,
            };
            let of_damage = if self.flips { &OF_DAMAGE[..] } else { &[] };
            let of_full_disk = if self.fills { &OF_FULL_DISK[..] } else { &[] };
            expected.iter().chain(of_damage).chain(of_full_disk).any(|expected| warning.starts_with(expected))
        };
        let warnings: Vec<String> = self.warnings.take().into_iter().filter(|w| !fine(w)).collect();
        assert_eq!(warnings, Vec::<String>::new(), "after {after:?}");
        assert_eq!(self.disk.violations(), Vec::<String>::new());
        self.check_damaged(self.border_ms(0).max(self.border_ms(SERIES - 1)));
    }

    /// Where a series begins.
    fn border_ms(&self, series: u8) -> i64 {
        let keep_ms = self.keeps_ms[usize::from(!is_a(series))];
        keep_ms.map_or(i64::MIN, |ms| self.now() - ms)
    }

    fn compare(&self, storage: &Storage, model: &mut Model, after: After) {
        let found = read(storage, self.flips);
        model.check(&found, |series| self.border_ms(series), !storage.stats().retention_paused, after);
    }

    /// Does one thing.
    fn step(&mut self) -> Result<(), Ended> {
        let what = if self.expires && self.rng.one_in(3) { 33 } else { self.rng.below(40) };
        if self.fills && self.rng.one_in(12) {
            self.disk.set_full(!self.disk.is_full());
        }
        self.tell(format_args!("step {what}, {}", if self.disk.is_full() { "full" } else { "not full" }));
        match what {
            0..12 => self.append_now(),
            12..20 => self.append_late(),
            20..22 => self.append_burst(),
            22..25 => self.flush(),
            25..29 => self.maintain(),
            29 if self.rng.one_in(2) => self.compact(),
            29 => self.clean(),
            30..33 => self.delete(),
            33 if self.expires_at_all() => self.expire(),
            33..37 => {
                let most = if self.rng.one_in(3) { 9 * HOUR_MS } else { 40 * MINUTE_MS };
                let by = self.rng.between(1, most);
                self.now_ms.fetch_add(by, Ordering::Relaxed);
                // Else several of these are a clock that jumps by more than a day: somebody always looks.
                drop(self.storage().view());
                Ok(())
            }
            37 => self.snapshot(),
            38 => self.reopen(),
            _ => {
                self.check();
                Ok(())
            }
        }
    }

    fn sample(&mut self, series: u8, t_ms: i64) -> (Key, Stored) {
        self.next += 1;
        ((series, t_ms), Stored::new(self.next * 7 + self.rng.below(5), t_ms))
    }

    fn append_now(&mut self) -> Result<(), Ended> {
        let now = self.now();
        let samples = (0..SERIES).map(|series| self.sample(series, now)).collect();
        self.append(samples)
    }

    /// Late samples, overwritten ones, and the first of a series.
    fn append_late(&mut self) -> Result<(), Ended> {
        let keys: Vec<Key> = self.model.keys().collect();
        let reach = self.keeps_ms.into_iter().flatten().min().unwrap_or(4 * DAY_MS) / 5 * 4;
        let oldest = self.now() - reach;
        let count = 1 + self.rng.below(12);
        let mut samples = Vec::new();
        for _ in 0..count {
            let known = keys.get(self.rng.below(keys.len().max(1) as u64) as usize);
            let key = match known.filter(|key| key.1 >= oldest) {
                Some(&key) if self.rng.one_in(2) => key,
                _ => {
                    let back = if self.rng.one_in(4) { reach } else { 3 * HOUR_MS };
                    (self.rng.below(SERIES.into()) as u8, self.now() - self.rng.between(0, back))
                }
            };
            samples.push(self.sample(key.0, key.1));
        }
        self.append(samples)
    }

    /// Many samples of one series, so that the WAL fills.
    fn append_burst(&mut self) -> Result<(), Ended> {
        let series = self.rng.below(SERIES.into()) as u8;
        let (count, step) = (self.rng.between(50, 300), self.rng.between(1, 20_000));
        let now = self.now();
        let samples = (0..count).map(|i| self.sample(series, now - (count - i) * step)).collect();
        self.append(samples)
    }

    fn append(&mut self, samples: Vec<(Key, Stored)>) -> Result<(), Ended> {
        self.tell(format_args!("appends {samples:?}"));
        let mut batch = Batch::new();
        for ((series, t_ms), stored) in &samples {
            batch.push_series(&labels(*series));
            match &stored.value {
                Value::Float(v) => batch.sample(*t_ms, *v),
                Value::Histogram(histogram) => batch.histogram(*t_ms, histogram.clone()),
            }
            if stored.start_ms != 0 {
                batch.start_timestamp(stored.start_ms);
            }
        }
        let appended = self.storage().append(&batch);
        if self.disk.has_ended() {
            samples.iter().for_each(|(key, stored)| self.model.append_unsure(*key, stored));
            return Err(Ended);
        }
        match appended {
            Ok(appended) => {
                assert_eq!((appended.accepted, appended.refused), (samples.len(), Vec::new()));
                let durable = self.fsync == WalFsync::Always;
                samples.iter().for_each(|(key, stored)| self.model.append(*key, stored, durable));
                Ok(())
            }
            Err(error) if matches!(error.cause, UnavailableCause::Backlog(_)) => self.compact(),
            Err(error) if self.fills && error.is_disk_full() => Ok(()),
            Err(error) => panic!("append fails: {error}"),
        }
    }

    /// What a step came to: an error is none of the disk's.
    fn alive<T>(&self, what: &str, outcome: io::Result<T>) -> Result<T, Ended> {
        if self.disk.has_ended() {
            return Err(Ended);
        }
        Ok(outcome.unwrap_or_else(|e| panic!("{what} fails: {e}")))
    }

    /// The same of what a full disk has no room for; tells whether it was done.
    fn done_if_there_is_space(&self, what: &str, outcome: io::Result<()>) -> Result<bool, Ended> {
        let waits = outcome.as_ref().is_err_and(|e| self.fills && e.kind() == io::ErrorKind::StorageFull);
        self.alive(what, if waits { Ok(()) } else { outcome }).map(|()| !waits)
    }

    fn flush(&mut self) -> Result<(), Ended> {
        self.alive("flush", self.storage().flush())?;
        self.model.settle();
        Ok(())
    }

    fn maintain(&mut self) -> Result<(), Ended> {
        self.alive("maintain", self.storage().maintain())?;
        self.model.settle();
        Ok(())
    }

    fn compact(&mut self) -> Result<(), Ended> {
        let compacted = self.storage().compact();
        self.done_if_there_is_space("compact", compacted).map(drop)
    }

    fn clean(&mut self) -> Result<(), Ended> {
        let cleaned = self.storage().clean_tombstones();
        if self.done_if_there_is_space("clean", cleaned)? {
            assert_eq!(self.storage().stats().partitions_with_tombstones, 0);
        }
        Ok(())
    }

    fn delete(&mut self) -> Result<(), Ended> {
        let series = self.rng.below(SERIES.into()) as u8;
        let back = if self.rng.one_in(4) { 3 * DAY_MS } else { 3 * HOUR_MS };
        let from = self.now() - self.rng.between(0, back);
        let range = TimeRange::new(from, from + self.rng.between(0, 2 * HOUR_MS));
        self.tell(format_args!("deletes {series} {range:?}"));
        let deleted = |key: Key| key.0 == series && range.contains(key.1);
        let sets = [vec![Matcher::equal("series", series.to_string())]];
        let outcome = self.storage().delete(&sets, range);
        if self.disk.has_ended() {
            self.model.delete_unsure(deleted);
        }
        if self.flips && outcome.is_err() {
            // Nothing is deleted where a damaged file might hold some of it.
            return self.alive("delete", Ok(()));
        }
        self.alive("delete", outcome)?;
        self.model.delete(deleted);
        Ok(())
    }

    fn expires_at_all(&self) -> bool {
        self.keeps_ms.iter().any(Option::is_some)
    }

    /// Time passes and nobody writes, so that one window expires after the other.
    fn expire(&mut self) -> Result<(), Ended> {
        self.flush()?;
        for _ in 0..1 + self.rng.below(4) {
            self.now_ms.fetch_add(2 * HOUR_MS, Ordering::Relaxed);
            self.maintain()?;
        }
        Ok(())
    }

    /// Often a process begins by dropping what expired before it did.
    fn expire_at_once(&mut self) -> Result<(), Ended> {
        if !self.expires_at_all() || !self.rng.one_in(3) {
            return Ok(());
        }
        self.now_ms.fetch_add(2 * HOUR_MS, Ordering::Relaxed);
        self.maintain()
    }

    fn snapshot(&mut self) -> Result<(), Ended> {
        if self.snapshots.len() == 3 {
            return Ok(());
        }
        self.snapshots_begun += 1;
        let path = PathBuf::from(format!("/disk/copies/{}", self.snapshots_begun));
        self.alive(
            "snapshot",
            self.storage().snapshot(&path, &[(BESIDE, path.as_os_str().as_encoded_bytes())]),
        )?;
        self.model.settle();
        self.snapshots.push((path, self.model.clone()));
        Ok(())
    }

    fn reopen(&mut self) -> Result<(), Ended> {
        let closed = self.storage().close();
        self.alive("close", closed)?;
        self.model.settle();
        self.storage = None;
        self.open()?;
        assert!(self.storage().stats().clean_start);
        Ok(())
    }
}

/// All samples that are read.
fn read(storage: &Storage, flips: bool) -> Found {
    let view = storage.view();
    let set = view.selection(&[], TimeRange::ALL).expect("memory is not limited");
    let mut columns = Columns::default();
    let mut found = Found::new();
    for i in 0..set.len() {
        let series: u8 = set.labels(i).get("series").and_then(|s| s.parse().ok()).expect("a label of ours");
        assert_eq!(set.labels(i), labels(series));
        let samples = set.load(i, &mut columns).expect("no read fails");
        assert!(samples.timestamps.is_sorted_by(|a, b| a < b));
        for at in 0..samples.len() {
            let start_ms = samples.start_timestamp(at).unwrap_or(0);
            found.insert((series, samples.timestamps[at]), Stored { value: samples.value(at), start_ms });
        }
    }
    assert!(flips || set.warnings().is_empty(), "{:?}", set.warnings());
    found
}
