//! What costs most: metrics and labels by series, samples, bytes and churn.
//!
//! The partitions are walked together in the order of identities, so that a series counts once
//! however many partitions it is in. Memory is bounded by the number of partitions and by
//! [`KNOWN_MAX`] names: beyond, the cheapest half is forgotten, and what is shown is a lower bound.

use super::Inspection;
use crate::storage::catalog::Live;
use crate::storage::error::OpenError;
use crate::storage::time::TimeRange;
use larum_storage_format::labels::write_quoted;
use larum_storage_format::partition::{Chunk, LabelReader};
use larum_storage_format::timestamps::TimestampSlice;
use larum_storage_format::{DecodeError, Labels, SeriesId};
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};

/// A series whose last sample is so much older than the newest sample of all has ended.
const ENDED_MS: i64 = 60 * 60 * 1000;

/// So many metrics, or labels, are known at a time.
const KNOWN_MAX: usize = 1 << 18;

/// So many borders of timestamps are remembered.
const BORDERS_MAX: usize = 1 << 18;

/// What a metric, or the series with a label, cost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cost {
    /// The metric, or the label as `name="value"`.
    pub name: String,
    /// Series.
    pub series: u64,
    /// Those of them that have ended: their last sample is more than an hour older than the newest.
    pub ended: u64,
    /// Samples; one that is stored in two partitions counts twice.
    pub samples: u64,
    /// Bytes of their chunks.
    pub bytes: u64,
}

/// What a label name costs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameCost {
    /// The name.
    pub name: String,
    /// Its different values.
    pub values: u64,
    /// Bytes of their texts.
    pub bytes: u64,
}

/// What the partitions of a folder cost.
#[derive(Debug, Clone, Default)]
pub struct Costs {
    /// Partitions that were read.
    pub partitions: u64,
    /// One sentence for each that could not be read.
    pub left_out: Vec<String>,
    /// Between which times their samples lie.
    pub range: Option<TimeRange>,
    /// All of it: the bytes are those of chunks.
    pub total: Cost,
    /// Bytes of the sections of all files, by the sections' names.
    pub sections: Vec<(&'static str, u64)>,
    /// The metrics with the most bytes.
    pub metrics: Vec<Cost>,
    /// The labels whose series have the most bytes.
    pub labels: Vec<Cost>,
    /// The label names with the most values.
    pub names: Vec<NameCost>,
    /// Whether there were so many metrics or labels that figures of theirs may be too low.
    pub is_bound: bool,
}

impl Inspection {
    /// What costs most, at most `limit` entries a list. Reads the index of all partitions; the WAL does
    /// not count.
    ///
    /// # Errors
    /// Those of the system.
    pub fn costs(&mut self, limit: usize) -> Result<Costs, OpenError> {
        let (live, mut left_out) = self.live()?;
        let mut intact: Vec<Live> = Vec::new();
        for p in live {
            match p.partition.verify_index() {
                Ok(()) => intact.push(p),
                Err(error) => left_out.push(error.to_string()),
            }
        }
        let mut costs = Costs { partitions: intact.len() as u64, left_out, ..Costs::default() };
        for p in &intact {
            let own = TimeRange::new(p.meta.min_ms, p.meta.max_ms);
            let all = costs.range.unwrap_or(own);
            costs.range = Some(TimeRange::new(all.min_ms.min(own.min_ms), all.max_ms.max(own.max_ms)));
            for (i, (name, bytes)) in p.partition.header().section_bytes().into_iter().enumerate() {
                match costs.sections.get_mut(i) {
                    Some((_, sum)) => *sum += bytes,
                    None => costs.sections.push((name, bytes)),
                }
            }
        }
        let walked = walk(&intact, &mut costs, limit);
        if let Err(error) = walked.and_then(|()| names(&intact, &mut costs, limit)) {
            costs.left_out.push(format!("the figures are not complete: {error}"));
        }
        Ok(costs)
    }
}

/// Figures by name, of which the cheapest are forgotten where there are too many.
#[derive(Default)]
struct Heaviest {
    known: HashMap<String, Cost>,
    has_forgotten: bool,
}

impl Heaviest {
    fn add(&mut self, name: &str, cost: &Cost) {
        if let Some(known) = self.known.get_mut(name) {
            return known.add(cost);
        }
        if self.known.len() == KNOWN_MAX {
            let mut bytes: Vec<u64> = self.known.values().map(|cost| cost.bytes).collect();
            let middle = *bytes.select_nth_unstable(KNOWN_MAX / 2).1;
            self.known.retain(|_, cost| cost.bytes > middle);
            self.has_forgotten = true;
        }
        self.known.insert(name.to_owned(), Cost { name: name.to_owned(), ..cost.clone() });
    }

    fn into_heaviest(self, limit: usize) -> Vec<Cost> {
        let mut all: Vec<Cost> = self.known.into_values().collect();
        all.sort_unstable_by(|a, b| (Reverse(a.bytes), &a.name).cmp(&(Reverse(b.bytes), &b.name)));
        all.truncate(limit);
        all
    }
}

impl Cost {
    fn add(&mut self, other: &Cost) {
        self.series += other.series;
        self.ended += other.ended;
        self.samples += other.samples;
        self.bytes += other.bytes;
    }
}

/// The partitions, walked together.
struct Walk<'a> {
    live: &'a [Live],
    readers: Vec<LabelReader<'a>>,
    /// The next series of each partition.
    next: BinaryHeap<Reverse<(SeriesId, usize, u32)>>,
    /// The newest times of the timestamps of chunks.
    newest: HashMap<(usize, TimestampSlice), i64>,
}

/// Walks all series: totals, metrics and labels.
fn walk(live: &[Live], costs: &mut Costs, limit: usize) -> Result<(), DecodeError> {
    let newest_ms = costs.range.map_or(i64::MIN, |range| range.max_ms);
    let readers = live.iter().map(|p| p.partition.file().label_reader()).collect::<Result<_, _>>()?;
    let mut walk = Walk { live, readers, next: BinaryHeap::new(), newest: HashMap::new() };
    (0..live.len()).for_each(|part| walk.put(part, 0));
    let (mut metrics, mut pairs) = (Heaviest::default(), Heaviest::default());
    let mut pair = String::new();
    while let Some((labels, mut cost, last_ms)) = walk.series()? {
        cost.series = 1;
        cost.ended = u64::from(last_ms < newest_ms.saturating_sub(ENDED_MS));
        costs.total.add(&cost);
        metrics.add(labels.metric_name().unwrap_or(""), &cost);
        for (name, value) in labels.iter().filter(|(name, _)| *name != "__name__") {
            pair.clear();
            pair.push_str(name);
            pair.push('=');
            let _ = write_quoted(&mut pair, value);
            pairs.add(&pair, &cost);
        }
    }
    costs.is_bound = metrics.has_forgotten || pairs.has_forgotten;
    costs.metrics = metrics.into_heaviest(limit);
    costs.labels = pairs.into_heaviest(limit);
    Ok(())
}

impl Walk<'_> {
    fn put(&mut self, part: usize, ordinal: u32) {
        if let Some(id) = self.live[part].partition.series_id(ordinal) {
            self.next.push(Reverse((id, part, ordinal)));
        }
    }

    /// The next series: its labels, its samples and bytes in all partitions, and the time of its last
    /// sample.
    fn series(&mut self) -> Result<Option<(Labels, Cost, i64)>, DecodeError> {
        let Some(&Reverse((id, part, ordinal))) = self.next.peek() else { return Ok(None) };
        let labels = self.readers[part].labels(ordinal)?;
        let (mut cost, mut last_ms) = (Cost::default(), i64::MIN);
        while let Some(&Reverse((other, part, ordinal))) = self.next.peek()
            && other == id
        {
            self.next.pop();
            self.put(part, ordinal + 1);
            let mut last = None;
            for chunk in self.live[part].partition.file().chunks(ordinal)? {
                let chunk = chunk?;
                cost.samples += u64::from(chunk.timestamps.len);
                cost.bytes += chunk.byte_len() as u64;
                last = Some(chunk);
            }
            // By the time of their first samples the last chunk is the newest, or nearly.
            if let Some(chunk) = last {
                last_ms = last_ms.max(self.newest_ms(part, &chunk)?);
            }
        }
        Ok(Some((labels, cost, last_ms)))
    }

    fn newest_ms(&mut self, part: usize, chunk: &Chunk) -> Result<i64, DecodeError> {
        let key = (part, chunk.timestamps);
        if let Some(&known) = self.newest.get(&key) {
            return Ok(known);
        }
        let file = self.live[part].partition.file();
        let column = file.column(chunk.timestamps.column)?;
        let last_ms = file.slice_of(chunk, &column).last().copied().unwrap_or(i64::MIN);
        if self.newest.len() == BORDERS_MAX {
            self.newest.clear();
        }
        self.newest.insert(key, last_ms);
        Ok(last_ms)
    }
}

/// Counts the values of all label names: those of each partition are sorted, and merged.
fn names(live: &[Live], costs: &mut Costs, limit: usize) -> Result<(), DecodeError> {
    let mut names: BTreeSet<&str> = BTreeSet::new();
    for p in live {
        for name in p.partition.file().label_names()? {
            names.insert(name?);
        }
    }
    for name in names {
        let mut lists = Vec::new();
        for p in live {
            lists.extend(p.partition.file().label_values(name)?);
        }
        let mut heads: BinaryHeap<Reverse<(&str, usize, usize)>> = BinaryHeap::new();
        for (list, values) in lists.iter().enumerate().filter(|(_, values)| !values.is_empty()) {
            heads.push(Reverse((values.value(0)?, list, 0)));
        }
        let mut cost = NameCost { name: name.to_owned(), ..NameCost::default() };
        let mut last = None;
        while let Some(Reverse((value, list, position))) = heads.pop() {
            if last.replace(value) != Some(value) {
                cost.values += 1;
                cost.bytes += value.len() as u64;
            }
            if position + 1 < lists[list].len() {
                heads.push(Reverse((lists[list].value(position + 1)?, list, position + 1)));
            }
        }
        costs.names.push(cost);
    }
    costs.names.sort_by(|a, b| (b.values, &a.name).cmp(&(a.values, &b.name)));
    costs.names.truncate(limit);
    Ok(())
}
