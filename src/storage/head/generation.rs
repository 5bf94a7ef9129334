//! A generation: all samples appended between two switches of the WAL.
//!
//! Refs and places come from the head's [`Index`], which outlives generations; a generation holds
//! the rows of the groups, and which series were written and declared in it.

use super::group::Group;
use super::held::Held;
use super::index::{Index, PairsAmong, Shared};
use super::scrape_groups::Home;
use crate::storage::error::ReadError;
use crate::storage::label_sets::LabelSets;
use crate::storage::matcher::Matcher;
use crate::storage::part::{Load, Part, PartLabels, Run, is_deleted};
use crate::storage::policy::{Policies, PolicySets};
use crate::storage::series_set::{ColumnPiece, Columns, Newest};
use crate::storage::time::TimeRange;
use larum_storage_format::partition::PairKey;
use larum_storage_format::tombstones::Interval;
use larum_storage_format::{Histogram, Samples, SeriesId};
use roaring::RoaringBitmap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

/// The samples appended in one generation. It lives as long as somebody holds it.
pub(crate) struct Generation {
    number: u64,
    index: Arc<RwLock<Index>>,
    tables: RwLock<Tables>,
    min_ms: AtomicI64,
    max_ms: AtomicI64,
    appended: AtomicU64,
    /// What few samples have beside a float, as [`Generation::expected_bytes`] counts it.
    sparse_bytes: AtomicU64,
}

/// The longest that a timestamp of a regular rhythm and a float become, or a start timestamp.
const SAMPLE_BYTES: u64 = 9;

/// What grows with the index.
#[derive(Default)]
struct Tables {
    groups: Vec<Mutex<Group>>,
    /// About what the groups take.
    bytes: AtomicU64,
    written: Bits,
    declared: Bits,
}

/// One bit a series.
#[derive(Default)]
struct Bits(Vec<AtomicU64>);

impl Bits {
    fn get(&self, series: u32) -> bool {
        self.0.get(series as usize / 64).is_some_and(|word| word.load(Relaxed) >> (series % 64) & 1 == 1)
    }

    fn set(&self, series: u32) {
        let word = &self.0[series as usize / 64];
        let bit = 1 << (series % 64);
        // Mostly it is set already; looking does not take the cache line from other cores.
        if word.load(Relaxed) & bit == 0 {
            word.fetch_or(bit, Relaxed);
        }
    }

    fn to_bitmap(&self) -> RoaringBitmap {
        let mut bytes = Vec::with_capacity(self.0.len() * 8);
        self.0.iter().for_each(|word| bytes.extend_from_slice(&word.load(Relaxed).to_le_bytes()));
        RoaringBitmap::from_lsb0_bytes(0, &bytes)
    }
}

/// Samples on their way into a generation, in columns, each with its series and place.
pub(super) struct Rows<'a> {
    pub refs: &'a [u32],
    pub homes: &'a [Home],
    pub timestamps: &'a [i64],
    pub values: &'a [f64],
    /// By position, ascending.
    pub histograms: &'a [(u32, Arc<Histogram>)],
    /// By position, ascending.
    pub start_timestamps: &'a [(u32, i64)],
}

/// [`Rows`] that own their columns, to be filled again and again.
#[derive(Debug, Default)]
pub(super) struct RowBuffer {
    pub refs: Vec<u32>,
    pub homes: Vec<Home>,
    pub timestamps: Vec<i64>,
    pub values: Vec<f64>,
    pub histograms: Vec<(u32, Arc<Histogram>)>,
    pub start_timestamps: Vec<(u32, i64)>,
}

impl RowBuffer {
    pub fn rows(&self) -> Rows<'_> {
        Rows {
            refs: &self.refs,
            homes: &self.homes,
            timestamps: &self.timestamps,
            values: &self.values,
            histograms: &self.histograms,
            start_timestamps: &self.start_timestamps,
        }
    }

    pub fn clear(&mut self) {
        self.refs.clear();
        self.homes.clear();
        self.timestamps.clear();
        self.values.clear();
        self.histograms.clear();
        self.start_timestamps.clear();
    }
}

impl Rows<'_> {
    /// From the oldest sample to the newest; empty if there is none.
    pub fn time_range(&self) -> TimeRange {
        let ends = |(min_ms, max_ms): (i64, i64), &t_ms: &i64| (min_ms.min(t_ms), max_ms.max(t_ms));
        let (min_ms, max_ms) = self.timestamps.iter().fold((i64::MAX, i64::MIN), ends);
        TimeRange::new(min_ms, max_ms)
    }
}

impl Generation {
    /// An empty generation for the series of `index`.
    pub(super) fn new(number: u64, index: Arc<RwLock<Index>>) -> Generation {
        Generation {
            number,
            index,
            tables: RwLock::default(),
            min_ms: AtomicI64::new(i64::MAX),
            max_ms: AtomicI64::new(i64::MIN),
            appended: AtomicU64::new(0),
            sparse_bytes: AtomicU64::new(0),
        }
    }

    /// Its number; the WAL is needed from the next number on once this one is in partitions.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// How many samples were appended, no-ops included.
    pub fn appended(&self) -> u64 {
        self.appended.load(Relaxed)
    }

    /// About how much memory the samples take.
    pub fn sample_bytes(&self) -> u64 {
        let tables = self.tables();
        tables.bytes.load(Relaxed) + (tables.groups.len() * size_of::<Mutex<Group>>()) as u64
    }

    /// About how many bytes the chunks of a fresh partition with all of it will take, on the safe side.
    pub fn expected_bytes(&self) -> u64 {
        self.appended().saturating_mul(SAMPLE_BYTES).saturating_add(self.sparse_bytes.load(Relaxed))
    }

    /// The series with samples in this generation, ascending by id.
    pub fn series(&self) -> Vec<(SeriesId, u32)> {
        self.with_ids(self.written())
    }

    /// All samples of a series, merged, one per timestamp. Series of one scrape group that were
    /// sampled at the same times share their column of timestamps through `columns`, which must not
    /// be used for another part.
    pub fn samples(&self, series: u32, columns: &mut Columns) -> Samples {
        let run = self.run(series, &mut Load::new(TimeRange::ALL, columns));
        run.map(Run::into_samples).unwrap_or_default()
    }

    /// The labels of series. Nobody creates series meanwhile.
    pub fn label_pairs(&self) -> LabelPairs<'_> {
        LabelPairs(self.index())
    }

    fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn tables(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for so many series and groups.
    pub(super) fn grow(&self, series: usize, groups: usize) {
        let words = series.div_ceil(64);
        let tables = self.tables();
        if tables.written.0.len() >= words && tables.groups.len() >= groups {
            return;
        }
        drop(tables);
        let mut guard = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        let tables = &mut *guard;
        for bits in [&mut tables.written, &mut tables.declared] {
            let more = words.saturating_sub(bits.0.len());
            bits.0.extend((0..more).map(|_| AtomicU64::new(0)));
        }
        let more = groups.saturating_sub(tables.groups.len());
        tables.groups.extend((0..more).map(|_| Mutex::default()));
    }

    /// Adds to `out` those of `refs` that no written frame of this generation declares.
    pub(super) fn undeclared(&self, refs: &[u32], out: &mut Vec<u32>) {
        let tables = self.tables();
        out.extend(refs.iter().filter(|&&series| !tables.declared.get(series)));
    }

    /// Notes that a written frame declares these series.
    pub(super) fn declare(&self, refs: &[u32]) {
        let tables = self.tables();
        refs.iter().for_each(|&series| tables.declared.set(series));
    }

    /// Whether the series has samples here.
    pub(super) fn has_written(&self, series: u32) -> bool {
        self.tables().written.get(series)
    }

    /// The series that have samples here.
    pub(super) fn written(&self) -> RoaringBitmap {
        self.tables().written.to_bitmap()
    }

    /// Puts samples, whose times are in `range`, into the rows of their groups, in their order. There must
    /// be room: [`Generation::grow`].
    pub(super) fn put(&self, rows: &Rows<'_>, range: TimeRange) {
        if range.is_empty() {
            return;
        }
        let TimeRange { min_ms: min, max_ms: max } = range;
        let tables = self.tables();
        rows.refs.iter().for_each(|&series| tables.written.set(series));
        if min < self.min_ms.load(Relaxed) {
            self.min_ms.fetch_min(min, Relaxed);
        }
        if max > self.max_ms.load(Relaxed) {
            self.max_ms.fetch_max(max, Relaxed);
        }
        if rows.histograms.is_empty() && rows.start_timestamps.is_empty() {
            put_floats(&tables, rows.homes, rows.timestamps, rows.values);
        } else {
            put_all(&tables, rows);
            self.sparse_bytes.fetch_add(sparse_bytes(rows), Relaxed);
        }
        self.appended.fetch_add(rows.refs.len() as u64, Relaxed);
    }

    fn with_ids(&self, series: RoaringBitmap) -> Vec<(SeriesId, u32)> {
        let index = self.index();
        let mut out: Vec<(SeriesId, u32)> = series.iter().map(|series| (index.id(series), series)).collect();
        drop(index);
        out.sort_unstable();
        out
    }

    /// The written series that match.
    pub fn matching(&self, matchers: &[Matcher]) -> RoaringBitmap {
        self.with_samples(Shared(&self.index).select(matchers))
    }

    /// Those of the series that have samples here. The others may have left since they were selected;
    /// these cannot, as long as somebody holds the generation.
    pub(super) fn with_samples(&self, selected: RoaringBitmap) -> RoaringBitmap {
        let tables = self.tables();
        if selected.len() < tables.written.0.len() as u64 {
            return selected.iter().filter(|&series| tables.written.get(series)).collect();
        }
        selected & tables.written.to_bitmap()
    }

    fn run(&self, series: u32, load: &mut Load<'_>) -> Option<Run> {
        let home = {
            let index = self.index();
            ((series as usize) < index.ref_count()).then(|| index.home(series))?
        };
        let tables = self.tables();
        let group = lock(tables.groups.get(home.group() as usize)?);
        let origin = ColumnPiece { part: load.part, column: home.group(), start: 0, len: 0 };
        match load.newest_only {
            true => group.load_newest(home.column(), load.range, origin, load.columns),
            false => group.load(home.column(), load.range, origin, load.columns),
        }
    }
}

impl Tables {
    /// Mostly a group grows only when its rows are sealed.
    fn count(&self, grown_bytes: usize) {
        if grown_bytes > 0 {
            self.bytes.fetch_add(grown_bytes as u64, Relaxed);
        }
    }
}

fn lock(group: &Mutex<Group>) -> MutexGuard<'_, Group> {
    group.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks each group once for a run of samples that go there.
fn put_floats(tables: &Tables, homes: &[Home], timestamps: &[i64], values: &[f64]) {
    let mut at = 0;
    while at < homes.len() {
        let group = homes[at].group();
        let end = at + homes[at..].iter().take_while(|home| home.group() == group).count();
        let run = &homes[at..end];
        let mut group = lock(&tables.groups[group as usize]);
        group.put_floats(|i| run[i].column(), &timestamps[at..end], &values[at..end]);
        tables.count(group.take_grown());
        at = end;
    }
}

/// What histograms that nothing can pack, no two of one layout, take in a chunk; and start timestamps.
fn sparse_bytes(rows: &Rows<'_>) -> u64 {
    let of_histogram = |h: &Histogram| {
        let buckets = h.positive_buckets.len() + h.negative_buckets.len();
        let spans = h.positive_spans.len() + h.negative_spans.len();
        64 + 9 * buckets + 10 * spans + 8 * h.custom_values.len()
    };
    let histograms: usize = rows.histograms.iter().map(|(_, histogram)| of_histogram(histogram)).sum();
    histograms as u64 + rows.start_timestamps.len() as u64 * SAMPLE_BYTES
}

fn put_all(tables: &Tables, rows: &Rows<'_>) {
    let mut histograms = rows.histograms.iter().peekable();
    let mut start_timestamps = rows.start_timestamps.iter().peekable();
    for (i, home) in rows.homes.iter().enumerate() {
        let histogram = histograms.next_if(|(at, _)| *at as usize == i);
        let start = start_timestamps.next_if(|(at, _)| *at as usize == i);
        let held = Held {
            value: rows.values[i],
            histogram: histogram.map(|(_, histogram)| histogram.clone()),
            start_ms: start.map_or(0, |(_, start)| *start),
        };
        let mut group = lock(&tables.groups[home.group() as usize]);
        group.put(home.column(), rows.timestamps[i], held);
        tables.count(group.take_grown());
    }
}

impl Part for Generation {
    fn time_range(&self) -> Option<TimeRange> {
        let range = TimeRange::new(self.min_ms.load(Relaxed), self.max_ms.load(Relaxed));
        (!range.is_empty()).then_some(range)
    }

    fn select(&self, matchers: &[Matcher]) -> Result<Vec<(SeriesId, u32)>, ReadError> {
        let matching = self.matching(matchers);
        let index = self.index();
        Ok(matching.iter().map(|series| (index.id(series), series)).collect())
    }

    /// Series without samples here may be among them.
    fn policy_sets(&self, policies: &Arc<Policies>) -> Result<Arc<PolicySets>, ReadError> {
        let all = {
            let index = self.index();
            if let Some(known) = index.policy_sets(policies) {
                return Ok(known.clone());
            }
            index.len()
        };
        // Who began to read before the policies changed, or while they do.
        let shared = Shared(&self.index);
        let Ok(sets) = policies.sets::<Infallible>(all, |matchers| Ok(shared.select(matchers)));
        Ok(Arc::new(sets))
    }

    fn label_sets(&self, series: &mut dyn Iterator<Item = u32>, out: &mut LabelSets) {
        Shared(&self.index).label_sets(series, out);
    }

    fn label_reader<'a>(&'a self, among: Option<&[String]>) -> PartLabels<'a> {
        let Some(names) = among else { return Box::new(|series| self.index().labels(series)) };
        let mut among = PairsAmong::of(names);
        Box::new(move |series| among.labels(&self.index(), series))
    }

    fn load(&self, series: u32, load: &mut Load<'_>) {
        if let Some(run) = self.run(series, load) {
            load.push(run);
        }
    }

    fn newest(
        &self,
        _part: u32,
        series: &[u32],
        range: TimeRange,
        _columns: &mut Columns,
        newest: &mut Vec<Newest>,
    ) {
        let homes: Vec<Option<Home>> = {
            let index = self.index();
            let is_known = |series: u32| (series as usize) < index.ref_count();
            series.iter().map(|&series| is_known(series).then(|| index.home(series))).collect()
        };
        let tables = self.tables();
        // Neighbours mostly stand in one group, which is then locked once.
        for same in homes.chunk_by(|a, b| a.map(Home::group) == b.map(Home::group)) {
            let group = same[0].and_then(|home| tables.groups.get(home.group() as usize)).map(lock);
            newest.extend(same.iter().map(|home| match (&group, home) {
                (Some(group), Some(home)) => group.newest(home.column(), range),
                _ => Newest::None,
            }));
        }
    }

    fn count_left(
        &self,
        series: u32,
        deleted: &[Interval],
        range: TimeRange,
        columns: &mut Columns,
    ) -> Result<u64, ReadError> {
        let run = self.run(series, &mut Load::new(range, columns));
        let times = run.iter().flat_map(|run| run.timestamps.iter());
        Ok(times.filter(|&&t| !is_deleted(deleted, t)).count() as u64)
    }

    fn label_names(&self, matchers: &[Matcher]) -> Result<Vec<String>, ReadError> {
        Ok(Shared(&self.index).label_names(&self.matching(matchers)))
    }

    fn label_values(&self, name: &str, matchers: &[Matcher]) -> Result<Vec<String>, ReadError> {
        let matching = self.matching(matchers);
        Ok(Shared(&self.index).label_values(name, &matching))
    }
}

/// See [`Generation::label_pairs`].
pub(crate) struct LabelPairs<'a>(RwLockReadGuard<'a, Index>);

impl LabelPairs<'_> {
    /// Puts the keys of the labels of a series into `keys`, in the order of their names. What has the
    /// same key later is the same label.
    pub fn keys(&self, series: u32, keys: &mut Vec<PairKey>) {
        keys.clear();
        // A forgotten pair's number may be another one's later.
        let forgotten = self.0.forgotten();
        let (low, high) = (forgotten as u32, (forgotten >> 32) as u32);
        keys.extend(self.0.pair_numbers(series).map(|pair| [pair, low, high]));
    }

    /// Name and value of a label whose key was just given.
    pub fn text(&self, [pair, ..]: PairKey) -> (&str, &str) {
        self.0.pair(pair)
    }
}
