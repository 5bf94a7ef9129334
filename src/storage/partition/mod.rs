//! An open partition: one immutable, mapped file, as a part of a view.
//!
//! Opening looks at the header and the list of checksums only; the rest is verified as it is read.
//! Damage of a chunk costs that chunk; where the index cannot answer, a selection is an error that
//! names file and offset, so that nobody takes a part of the answer for the whole.

mod index;
pub(super) mod pieces;
mod writer;

pub(crate) use writer::{FileWriter, Sealed};

use super::cutter::TIMESTAMPS_KEPT;
use super::damage::{self, Damage, Damages, Kind};
use super::error::ReadError;
use super::fs::Fs;
use super::label_sets::LabelSets;
use super::matcher::Matcher;
use super::part::{LabelsAmong, Load, Part, PartLabels, Run, is_deleted};
use super::policy::{Policies, PolicySets};
use super::postings;
use super::series_set::{ColumnPiece, Columns, Newest, ReadCost};
use super::time::TimeRange;
use bytes::Bytes;
use larum_storage_format::chunk::MAX_CHUNK_SAMPLES;
use larum_storage_format::partition::{Chunk, ChunkReader, LabelReader, Partition as File, PartitionHeader};
use larum_storage_format::tombstones::Interval;
use larum_storage_format::{DecodeError, Labels, SeriesId};
use roaring::RoaringBitmap;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// An open partition. The file may be unlinked while it is open; the map keeps it alive.
#[derive(Debug)]
pub(crate) struct Partition {
    path: PathBuf,
    file: File<Bytes>,
    /// Which policy keeps which series, by the policies that were asked for last.
    kept_by: Mutex<Option<(Arc<Policies>, Arc<PolicySets>)>>,
    /// What is known to be damaged in it.
    damages: Damages,
}

/// A partition could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PartitionError {
    /// Header or checksums are damaged.
    #[error("{}: {error}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: DecodeError,
    },
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Partition {
    /// Maps a finished file. The file itself is closed again; the map is one of the process' maps
    /// (65,530 on Linux unless told otherwise, `vm.max_map_count`).
    pub fn open(fs: &dyn Fs, path: &Path) -> Result<Partition, PartitionError> {
        let bytes = fs.map(path)?;
        match File::open(bytes) {
            Ok(file) => Ok(Partition {
                path: path.to_owned(),
                file,
                kept_by: Mutex::default(),
                damages: Damages::default(),
            }),
            Err(error) => Err(PartitionError::Damaged { path: path.to_owned(), error }),
        }
    }

    /// The header.
    pub fn header(&self) -> &PartitionHeader {
        self.file.header()
    }

    /// The file as its format shows it.
    pub fn file(&self) -> &File<Bytes> {
        &self.file
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is known to be damaged in it.
    pub fn damages(&self) -> &Damages {
        &self.damages
    }

    /// Verifies all of the index, for who reads all of the file and must not miss a series.
    pub fn verify_index(&self) -> Result<(), ReadError> {
        self.file.verify_index().map_err(|error| self.unreadable(&error))
    }

    /// The identity of the series at `ordinal`, its place in the order of identities. `None` if there
    /// is no such series, or if it is damaged; see [`Partition::verify_index`].
    pub fn series_id(&self, ordinal: u32) -> Option<SeriesId> {
        self.file.series_id(ordinal).ok().flatten()
    }

    /// Reads the labels of many series by their symbols; `None` if the index is damaged.
    pub fn symbol_reader(&self) -> Option<LabelReader<'_>> {
        self.file.label_reader().ok()
    }

    /// Damage of the index, in words.
    fn unreadable(&self, error: &DecodeError) -> ReadError {
        let (offset, what) = (error.offset as u64, format!("{}, {}", error.what, error.kind));
        let loss = damage::of_index(self.header());
        let found = Damage::new(&self.path, offset..offset + 1, what.clone(), loss);
        self.damages.note(found, Kind::Vital);
        ReadError::Damaged { file: self.path.display().to_string(), offset, what }
    }

    /// Whether it has the series, or may have it, being damaged there.
    pub fn has(&self, id: SeriesId) -> bool {
        !matches!(self.file.find(id), Ok(None))
    }

    /// Bytes of all chunks.
    pub fn chunk_bytes(&self) -> u64 {
        self.file.data_len()
    }

    /// About how many bytes of chunks the intervals of these series take: each sample as many as any
    /// other of its chunk. Reads no values; what is damaged counts nothing.
    pub fn deleted_bytes<'a>(&self, deleted: impl Iterator<Item = (SeriesId, &'a [Interval])>) -> u64 {
        let mut columns = Columns::default();
        let of_series = |(id, intervals): (SeriesId, &[Interval])| {
            let series = self.file.find(id).ok().flatten()?;
            let bytes = self.file.chunks(series).ok()?.flatten().map(|chunk| {
                let all = usize::from(chunk.timestamps.len);
                let deleted = match self.times_in(&chunk, TimeRange::ALL, intervals, &mut columns) {
                    Ok(Some(times)) => times.iter().filter(|&&t| is_deleted(intervals, t)).count(),
                    Ok(None) => all,
                    Err(_) => 0,
                };
                (chunk.byte_len() * deleted / all.max(1)) as u64
            });
            let bytes = bytes.sum::<u64>();
            columns.forget_beyond(TIMESTAMPS_KEPT);
            Some(bytes)
        };
        deleted.filter_map(of_series).sum()
    }

    /// Whether any sample lies in the range. Decodes the timestamps of few chunks, mostly of none.
    pub fn has_times_in(&self, range: TimeRange) -> bool {
        let header = self.header();
        if range.contains(header.min_ms) || range.contains(header.max_ms) {
            return true;
        }
        if !range.overlaps(&TimeRange::new(header.min_ms, header.max_ms)) {
            return false;
        }
        (0..self.file.column_count() as u32).any(|column| {
            let bounds = self.file.column_bounds(column);
            bounds.is_ok_and(|bounds| range.overlaps(&TimeRange::new(*bounds.start(), *bounds.end())))
                && self.file.column(column).is_ok_and(|times| times.iter().any(|&t| range.contains(t)))
        })
    }

    /// The times of the first and the last sample of a chunk.
    pub fn times_of(&self, chunk: &Chunk, columns: &mut Columns) -> Result<Option<(i64, i64)>, DecodeError> {
        let (_, times) = self.timestamps(chunk, 0, columns)?;
        Ok(times.first().copied().zip(times.last().copied()))
    }

    /// The timestamps of a chunk; `None` if one of the intervals takes all of them that lie in the
    /// range.
    fn times_in(
        &self,
        chunk: &Chunk,
        range: TimeRange,
        deleted: &[Interval],
        columns: &mut Columns,
    ) -> Result<Option<Arc<[i64]>>, DecodeError> {
        let bounds = self.file.column_bounds(chunk.timestamps.column)?;
        let own = TimeRange::new(*bounds.start(), *bounds.end()).intersect(&range);
        if own.is_empty() || deleted.iter().any(|i| i.min_ms <= own.min_ms && own.max_ms <= i.max_ms) {
            return Ok(None);
        }
        self.timestamps(chunk, 0, columns).map(|(_, timestamps)| Some(timestamps))
    }

    /// How many samples a series has at most; counted exactly only where `enough` are possible.
    pub fn samples_at_most(&self, ordinal: u32, enough: usize) -> usize {
        let Ok(chunks) = self.file.chunks(ordinal) else { return 0 };
        let at_most = chunks.len() * MAX_CHUNK_SAMPLES;
        if at_most < enough {
            return at_most;
        }
        chunks.flatten().map(|chunk| usize::from(chunk.timestamps.len)).sum()
    }

    /// The timestamps of a chunk, and where they come from.
    fn timestamps(
        &self,
        chunk: &Chunk,
        part: u32,
        columns: &mut Columns,
    ) -> Result<(ColumnPiece, Arc<[i64]>), DecodeError> {
        let (slice, piece) = (chunk.timestamps, piece_of(chunk, part));
        if let Some(known) = columns.get(&[piece]) {
            return Ok((piece, known));
        }
        // The whole column is kept too, under a length that no slice has: the next slice of it
        // need not decode it again.
        let whole = ColumnPiece { start: 0, len: u32::MAX, ..piece };
        let column = match columns.get(&[whole]) {
            Some(known) => known,
            None => {
                let column = self.file.column(slice.column)?;
                columns.shared(&[whole], || column)
            }
        };
        if piece.start == 0 && piece.len as usize == column.len() {
            columns.insert(vec![piece], column.clone());
            return Ok((piece, column));
        }
        Ok((piece, columns.shared(&[piece], || self.file.slice_of(chunk, &column).to_vec())))
    }

    /// Whether a chunk may have samples in the range, as far as can be told without decoding its
    /// timestamps: a series has a chunk for every few hours of a long partition.
    fn may_overlap(&self, chunk: &Chunk, range: &TimeRange) -> Result<bool, DecodeError> {
        let header = self.header();
        if range.min_ms <= header.min_ms && header.max_ms <= range.max_ms {
            return Ok(true);
        }
        let bounds = self.file.column_bounds(chunk.timestamps.column)?;
        Ok(range.overlaps(&TimeRange::new(*bounds.start(), *bounds.end())))
    }

    /// The timestamps of a chunk; `None` if it lies outside the range, as far as can be told without
    /// decoding them.
    fn times_near(&self, chunk: &Chunk, load: &mut Load<'_>) -> Result<Option<Arc<[i64]>>, DecodeError> {
        // Of most series another one of the same target was asked for before.
        if let Some(known) = load.columns.get(&[piece_of(chunk, load.part)]) {
            return Ok(Some(known));
        }
        if !self.may_overlap(chunk, &load.range)? {
            return Ok(None);
        }
        self.timestamps(chunk, load.part, load.columns).map(|(_, timestamps)| Some(timestamps))
    }

    /// Whether all samples of a chunk lie in the range, as far as that can be told without decoding
    /// its timestamps.
    fn lies_in(&self, chunk: &Chunk, range: TimeRange) -> bool {
        let bounds = self.file.column_bounds(chunk.timestamps.column);
        bounds.is_ok_and(|bounds| range.min_ms <= *bounds.start() && *bounds.end() <= range.max_ms)
    }

    /// One chunk as a run, cut to the range; `None` if it lies outside.
    fn load_chunk(&self, chunk: &Chunk, load: &mut Load<'_>) -> Result<Option<Run>, DecodeError> {
        let Some(timestamps) = self.times_near(chunk, load)? else { return Ok(None) };
        let (from, to) = (before(&timestamps, load.range.min_ms), up_to(&timestamps, load.range.max_ms));
        if from >= to {
            return Ok(None);
        }
        let run = self.decode(chunk, piece_of(chunk, load.part), timestamps)?;
        Ok(if to - from == run.floats.len() { Some(run) } else { run.slice(from..to, load.columns) })
    }

    /// All of a chunk as a run.
    fn decode(&self, chunk: &Chunk, piece: ColumnPiece, timestamps: Arc<[i64]>) -> Result<Run, DecodeError> {
        let decoded = self.file.decode(chunk, &timestamps)?;
        let floats = match decoded.histograms.is_empty() {
            true => decoded.floats,
            false => vec![0.0; timestamps.len()],
        };
        Ok(Run {
            origin: Some(piece),
            timestamps,
            floats,
            histograms: (0..).zip(decoded.histograms).collect(),
            start_timestamps: decoded.start_timestamps,
        })
    }

    /// The newest sample in the range. It often ends a chunk whose statistics know it; else that chunk is
    /// decoded, and no other.
    fn load_newest(&self, series: u32, load: &mut Load<'_>) -> Result<Loaded, DecodeError> {
        let mut newest: Option<(Chunk, Arc<[i64]>, usize)> = None;
        for chunk in self.file.chunks(series)? {
            let chunk = chunk?;
            let Some(timestamps) = self.times_near(&chunk, load)? else { continue };
            let Some(at) = up_to(&timestamps, load.range.max_ms).checked_sub(1) else {
                continue;
            };
            let is_newer = newest.as_ref().is_none_or(|(_, other, there)| other[*there] < timestamps[at]);
            if timestamps[at] >= load.range.min_ms && is_newer {
                newest = Some((chunk, timestamps, at));
            }
        }
        let Some((chunk, timestamps, at)) = newest else { return Ok(Loaded::None) };
        let piece = piece_of(&chunk, load.part);
        let stats = match at + 1 == timestamps.len() {
            true => self.file.stats(&chunk, &timestamps)?,
            false => None,
        };
        let Some(stats) = stats else {
            let run = self.decode(&chunk, piece, timestamps)?;
            let alone = run.histograms.is_empty().then(|| run.slice(at..at + 1, load.columns)).flatten();
            return Ok(alone.map_or(Loaded::Histogram, Loaded::Float));
        };
        let origin = ColumnPiece { start: piece.start + at as u32, len: 1, ..piece };
        let start = Some(stats.last_start_timestamp_ms).filter(|&start| start != 0);
        Ok(Loaded::Float(Run {
            origin: Some(origin),
            timestamps: load.columns.shared(&[origin], || vec![timestamps[at]]),
            floats: vec![stats.last],
            histograms: Vec::new(),
            start_timestamps: start.into_iter().collect(),
        }))
    }

    /// What a damaged chunk costs, in words.
    fn damage(&self, chunk: Option<&Chunk>, error: &DecodeError, load: &mut Load<'_>) -> ReadError {
        let times = chunk.and_then(|chunk| self.timestamps(chunk, load.part, load.columns).ok());
        let times = times.and_then(|(_, timestamps)| Some((*timestamps.first()?, *timestamps.last()?)));
        let (min_ms, max_ms) = times.unwrap_or((self.header().min_ms, self.header().max_ms));
        let (offset, what) = (error.offset as u64, format!("{}, {}", error.what, error.kind));
        let loss = damage::of_data(self.header());
        let found = Damage::new(&self.path, offset..offset + 1, what.clone(), loss);
        self.damages.note(found, if self.file.is_data(offset) { Kind::Data } else { Kind::Vital });
        let what = format!("{what} ({min_ms} ms to {max_ms} ms)");
        ReadError::Damaged { file: self.path.display().to_string(), offset, what }
    }

    fn selected(&self, matchers: &[Matcher]) -> Result<RoaringBitmap, DecodeError> {
        postings::select(&self.file, matchers)
    }

    /// `None` for all.
    fn selected_of(&self, matchers: &[Matcher]) -> Result<Option<RoaringBitmap>, DecodeError> {
        (!matchers.is_empty()).then(|| self.selected(matchers)).transpose()
    }

    fn select_here(&self, matchers: &[Matcher]) -> Result<Vec<(SeriesId, u32)>, DecodeError> {
        let selected = self.selected(matchers)?;
        self.file.verify_labels(&selected)?;
        self.file.series_ids(&selected)
    }
}

/// The newest sample of a series in a range.
enum Loaded {
    None,
    Float(Run),
    Histogram,
}

/// The newest samples of many series in a range, without their columns.
struct NewestReader<'p, 'l, 'c> {
    partition: &'p Partition,
    chunks: ChunkReader<'p>,
    load: &'l mut Load<'c>,
    /// By slice of timestamps: which of them is the newest in the range, if one is.
    known: HashMap<(u32, u16, u16), usize, foldhash::fast::RandomState>,
    seen: Vec<Option<(Arc<[i64]>, usize)>>,
    meets_histograms: bool,
}

impl NewestReader<'_, '_, '_> {
    /// Which timestamp of a chunk is the newest in the range: its number in `seen`. `None` if it is not
    /// newer than `than_ms`, as far as that can be told without decoding.
    fn seen(&mut self, chunk: &Chunk, than_ms: Option<i64>) -> Result<Option<usize>, DecodeError> {
        let slice = chunk.timestamps;
        let key = (slice.column, slice.start, slice.len);
        if let Some(&known) = self.known.get(&key) {
            return Ok(Some(known));
        }
        if let Some(than_ms) = than_ms
            && !self.partition.may_overlap(chunk, &TimeRange::new(than_ms.saturating_add(1), i64::MAX))?
        {
            return Ok(None);
        }
        let range = self.load.range;
        let newest = self.partition.times_near(chunk, self.load)?.and_then(|timestamps| {
            let at = up_to(&timestamps, range.max_ms).checked_sub(1)?;
            (timestamps[at] >= range.min_ms).then_some((timestamps, at))
        });
        self.seen.push(newest);
        self.known.insert(key, self.seen.len() - 1);
        Ok(Some(self.seen.len() - 1))
    }

    fn of_series(&mut self, series: u32) -> Result<Newest, DecodeError> {
        let mut newest: Option<(i64, Chunk, usize)> = None;
        // Back from the last, so that those before it need not be looked at.
        for position in self.chunks.positions(series)?.rev() {
            let chunk = self.chunks.chunk(position)?;
            let Some(number) = self.seen(&chunk, newest.as_ref().map(|(t_ms, ..)| *t_ms))? else { continue };
            if let Some((timestamps, at)) = &self.seen[number]
                && newest.as_ref().is_none_or(|(newest_ms, ..)| *newest_ms < timestamps[*at])
            {
                newest = Some((timestamps[*at], chunk, number));
            }
        }
        let Some((t_ms, chunk, number)) = newest else { return Ok(Newest::None) };
        let Some((timestamps, at)) = &self.seen[number] else { return Ok(Newest::None) };
        let file = &self.partition.file;
        if *at + 1 == timestamps.len() {
            let last = match file.last(&chunk)? {
                None => file.stats(&chunk, timestamps)?.map(|stats| stats.last),
                known => known,
            };
            if let Some(value) = last {
                return Ok(Newest::Float { t_ms, value });
            }
        }
        // Series of one selection are mostly alike, and these are loaded anyway.
        if self.meets_histograms {
            return Ok(Newest::Unknown);
        }
        let decoded = file.decode(&chunk, timestamps)?;
        self.meets_histograms = !decoded.histograms.is_empty();
        Ok(decoded.floats.get(*at).map_or(Newest::Unknown, |&value| Newest::Float { t_ms, value }))
    }
}

/// Where the timestamps of a chunk come from.
fn piece_of(chunk: &Chunk, part: u32) -> ColumnPiece {
    let slice = chunk.timestamps;
    ColumnPiece { part, column: slice.column, start: slice.start.into(), len: slice.len.into() }
}

/// How many of the ascending timestamps lie before `min_ms`. Mostly none does, and a binary search
/// would take a tenth of the time that decoding the values takes.
fn before(timestamps: &[i64], min_ms: i64) -> usize {
    if timestamps.first().is_some_and(|&first| first < min_ms) {
        timestamps.partition_point(|&t| t < min_ms)
    } else {
        0
    }
}

/// How many of the ascending timestamps lie at `max_ms` or before it: mostly all.
fn up_to(timestamps: &[i64], max_ms: i64) -> usize {
    if timestamps.last().is_some_and(|&last| last > max_ms) {
        timestamps.partition_point(|&t| t <= max_ms)
    } else {
        timestamps.len()
    }
}

/// In the place of a symbol: the series lacks the label.
const LACKING: u32 = u32::MAX;

impl Part for Partition {
    fn time_range(&self) -> Option<TimeRange> {
        Some(TimeRange::new(self.header().min_ms, self.header().max_ms))
    }

    fn select(&self, matchers: &[Matcher]) -> Result<Vec<(SeriesId, u32)>, ReadError> {
        self.select_here(matchers).map_err(|error| self.unreadable(&error))
    }

    fn policy_sets(&self, policies: &Arc<Policies>) -> Result<Arc<PolicySets>, ReadError> {
        let mut kept_by = self.kept_by.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, known)) = &*kept_by
            && Arc::ptr_eq(of, policies)
        {
            return Ok(known.clone());
        }
        let sets = policies.sets(self.file.series_count().into(), |matchers| self.selected(matchers));
        let sets = Arc::new(sets.map_err(|error| self.unreadable(&error))?);
        *kept_by = Some((policies.clone(), sets.clone()));
        Ok(sets)
    }

    fn label_sets(&self, series: &mut dyn Iterator<Item = u32>, out: &mut LabelSets) {
        // Damage is dealt with as by the reader below.
        if let Ok(mut reader) = self.file.label_reader() {
            index::label_sets(&mut reader, series, out);
        }
    }

    fn label_reader<'a>(&'a self, among: Option<&[String]>) -> PartLabels<'a> {
        // Whoever selected the series has verified what its labels are read from: a label set that
        // cannot be read would have been written so.
        let Ok(mut reader) = self.file.label_reader() else { return Box::new(|_| Labels::empty()) };
        let Some(names) = among else {
            return Box::new(move |series| reader.labels(series).unwrap_or_default());
        };
        let with_symbol = |name: &String| Some((name.clone(), reader.name(name).ok()??));
        let names: Vec<(String, u32)> = names.iter().filter_map(with_symbol).collect();
        let (mut among, mut symbols) = (LabelsAmong::default(), Vec::new());
        Box::new(move |series| {
            symbols.clear();
            let value = |(_, name): &(String, u32)| reader.value_of(series, *name).ok().flatten();
            symbols.extend(names.iter().map(value).map(|symbol| symbol.unwrap_or(LACKING)));
            among.get(&symbols, || {
                let text = |&symbol: &u32| reader.text(symbol).unwrap_or_default();
                let names = names.iter().map(|(name, _)| name);
                Labels::from_pairs(names.zip(symbols.iter().map(text))).unwrap_or_default()
            })
        })
    }

    fn load(&self, series: u32, load: &mut Load<'_>) {
        if load.newest_only {
            match self.load_newest(series, load) {
                Ok(Loaded::None) => return,
                Ok(Loaded::Float(run)) => return load.runs.push(run),
                // Those before it tell whether its counter was reset.
                Ok(Loaded::Histogram) => {}
                // Damage is met again below, and told.
                Err(_) => {}
            }
        }
        let chunks = match self.file.chunks(series) {
            Ok(chunks) => chunks,
            Err(error) => {
                let damage = self.damage(None, &error, load);
                return load.damaged.push(damage);
            }
        };
        for chunk in chunks {
            let loaded = match &chunk {
                Ok(chunk) => self.load_chunk(chunk, load),
                Err(error) => Err(error.clone()),
            };
            match loaded {
                Ok(None) => {}
                Ok(Some(run)) => {
                    if !load.push(run) {
                        return;
                    }
                }
                Err(error) => {
                    let damage = self.damage(chunk.as_ref().ok(), &error, load);
                    load.damaged.push(damage);
                }
            }
        }
    }

    fn add_cost(&self, series: u32, load: &mut Load<'_>, cost: &mut ReadCost) {
        for chunk in self.file.chunks(series).into_iter().flatten().flatten() {
            if self.lies_in(&chunk, load.range) {
                let samples = chunk.timestamps.len.into();
                cost.add(&ReadCost { chunks: 1, samples, bytes: chunk.byte_len() as u64 });
                continue;
            }
            let Ok(Some(timestamps)) = self.times_near(&chunk, load) else { continue };
            let (from, to) = (before(&timestamps, load.range.min_ms), up_to(&timestamps, load.range.max_ms));
            if from < to {
                let (samples, bytes) = ((to - from) as u64, chunk.byte_len() as u64);
                cost.add(&ReadCost { chunks: 1, samples, bytes });
            }
        }
    }

    fn newest(
        &self,
        part: u32,
        series: &[u32],
        range: TimeRange,
        columns: &mut Columns,
        newest: &mut Vec<Newest>,
    ) {
        let Ok(chunks) = self.file.chunk_reader() else {
            return newest.extend(series.iter().map(|_| Newest::Unknown));
        };
        let mut load = Load { part, ..Load::new(range, columns) };
        let (known, seen) = (HashMap::default(), Vec::new());
        let load = &mut load;
        let mut reader = NewestReader { partition: self, chunks, load, known, seen, meets_histograms: false };
        // Damage is met again by who then loads the series, and told.
        newest.extend(series.iter().map(|&series| reader.of_series(series).unwrap_or(Newest::Unknown)));
    }

    fn count_left(
        &self,
        series: u32,
        deleted: &[Interval],
        range: TimeRange,
        columns: &mut Columns,
    ) -> Result<u64, ReadError> {
        let mut load = Load::new(range, columns);
        let header = self.header();
        let is_whole = deleted.is_empty() && range.min_ms <= header.min_ms && header.max_ms <= range.max_ms;
        let chunks = match self.file.chunks(series) {
            Ok(chunks) => chunks,
            Err(error) => return Err(self.damage(None, &error, &mut load)),
        };
        let mut count = 0;
        for chunk in chunks {
            let times = match &chunk {
                Ok(chunk) if is_whole => {
                    count += u64::from(chunk.timestamps.len);
                    continue;
                }
                Ok(chunk) => self.times_in(chunk, range, deleted, load.columns),
                Err(error) => Err(error.clone()),
            };
            let times = times.map_err(|error| self.damage(chunk.as_ref().ok(), &error, &mut load))?;
            let left = times.iter().flat_map(|times| times.iter());
            count += left.filter(|&&t| range.contains(t) && !is_deleted(deleted, t)).count() as u64;
        }
        Ok(count)
    }

    fn is_left(&self, series: u32, deleted: &[Interval], range: TimeRange, columns: &mut Columns) -> bool {
        let Ok(mut chunks) = self.file.chunks(series) else { return true };
        chunks.any(|chunk| {
            let Ok(chunk) = chunk else { return true };
            // A series that goes on mostly has a chunk that lies in the range as a whole.
            if deleted.is_empty() && self.lies_in(&chunk, range) {
                return true;
            }
            let times = self.times_in(&chunk, range, deleted, columns);
            let Ok(times) = times else { return true };
            times.iter().flat_map(|times| times.iter()).any(|&t| range.contains(t) && !is_deleted(deleted, t))
        })
    }

    fn label_names(&self, matchers: &[Matcher]) -> Result<Vec<String>, ReadError> {
        let selected = self.selected_of(matchers);
        let names = selected.and_then(|of| index::names(&self.file, of.as_ref()));
        names.map_err(|error| self.unreadable(&error))
    }

    fn label_values(&self, name: &str, matchers: &[Matcher]) -> Result<Vec<String>, ReadError> {
        let selected = self.selected_of(matchers);
        let values = selected.and_then(|of| index::values(&self.file, name, of.as_ref()));
        values.map_err(|error| self.unreadable(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::fs::RealFs;
    use larum_storage_format::chunk::Packing;
    use larum_storage_format::partition::{Origin, WriterOptions};
    use larum_storage_format::{IdentitySeed, Samples};

    const INTERVAL_MS: i64 = 15_000;

    const SEED: IdentitySeed = IdentitySeed(1);

    /// A partition of these series.
    fn written(path: &Path, window_ms: std::ops::Range<i64>, series: &[(Labels, Samples)]) -> Partition {
        let options = WriterOptions {
            seed: SEED,
            number: 1,
            sequence: 1,
            origin: Origin { generations: (1, 1), output: 0, outputs: 1, sources: vec![] },
            window_ms: window_ms.clone(),
            expected_data_bytes: 0,
            packing: Packing::KEPT,
        };
        let mut writer = FileWriter::create(&RealFs, path, options).unwrap();
        let mut sorted: Vec<_> = series.iter().map(|(l, s)| (SeriesId::of(l, SEED), l, s)).collect();
        sorted.sort_by_key(|(id, ..)| *id);
        let texts: Vec<_> = sorted.iter().flat_map(|(_, labels, _)| labels.iter()).collect();
        let mut keys = (0..texts.len() as u32).map(|at| [at, 0, 0]);
        for (id, labels, samples) in sorted {
            let keys: Vec<_> = keys.by_ref().take(labels.len()).collect();
            writer.begin_series(id, &keys, |[at, ..]| texts[at as usize]).unwrap();
            writer.add_samples(samples, window_ms.clone()).unwrap();
        }
        writer.finish().unwrap();
        Partition::open(&RealFs, path).unwrap()
    }

    #[test]
    fn the_times_of_a_damaged_chunk_are_those_of_its_own_layer() {
        let folder = tempfile::tempdir().unwrap();
        let window_ms = 0..2 * 86_400_000;
        // Two series with a column each, in both layers, at times of their own.
        let layer = |name: &str, first_ms: i64| {
            let series = [0, 1].map(|series: i64| {
                let labels = Labels::from_pairs([("__name__", "m"), ("series", &*series.to_string())]);
                let first_ms = first_ms + series * 3_600_000;
                let timestamps: Arc<[i64]> = (0..50).map(|i| first_ms + i * i * (series + 7)).collect();
                let floats = (0..50i32).map(|i| f64::from(i * i % 37)).collect();
                (labels.unwrap(), Samples { timestamps, floats, ..Samples::default() })
            });
            let partition = written(&folder.path().join(name), window_ms.clone(), &series);
            let times = [0, 1].map(|ordinal| {
                let id = partition.series_id(ordinal).unwrap();
                let of = series.iter().find(|(labels, _)| SeriesId::of(labels, SEED) == id);
                of.unwrap().1.timestamps.clone()
            });
            (partition, times)
        };
        let (first, times) = layer("first.part", 0);
        let (second, second_times) = layer("second.part", 86_400_000);
        let whole = std::fs::read(second.path()).unwrap();
        let path = folder.path().join("damaged.part");
        let mut told = 0;
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            std::fs::write(&path, &bytes).unwrap();
            let Ok(second) = Partition::open(&RealFs, &path) else { continue };
            for (ordinal, begins_damaged) in [(0, false), (0, true), (1, false), (1, true)] {
                let mut columns = Columns::default();
                let mut load = |layer: &Partition, part| {
                    let mut load = Load { part, ..Load::new(TimeRange::ALL, &mut columns) };
                    layer.load(ordinal, &mut load);
                    (load.runs, load.damaged)
                };
                let before = begins_damaged.then(|| load(&second, 1));
                let (runs, damaged) = load(&first, 0);
                assert!(damaged.is_empty() && runs.len() == 1);
                assert_eq!(runs[0].timestamps, times[ordinal as usize], "byte {at}");
                let (_, damaged) = before.unwrap_or_else(|| load(&second, 1));
                let own = &second_times[ordinal as usize];
                let header = second.header();
                for error in damaged.iter().map(ReadError::to_string) {
                    let is_of = |from: i64, to: i64| error.contains(&format!("({from} ms to {to} ms)"));
                    let is_own = is_of(own[0], own[own.len() - 1]);
                    assert!(is_own || is_of(header.min_ms, header.max_ms), "byte {at}: {error}");
                    told += usize::from(is_own);
                }
            }
        }
        assert!(told > 50, "{told} were told with the times of the chunk");
    }

    #[test]
    fn a_short_range_decodes_only_the_columns_of_its_chunks() {
        let folder = tempfile::tempdir().unwrap();
        let labels = Labels::from_pairs([("__name__", "m")]).unwrap();
        // The window is halved until no part has too many samples for a chunk.
        let chunk = MAX_CHUNK_SAMPLES as i64 / 2 + 1;
        let n = 16 * chunk;
        let samples = Samples {
            timestamps: (0..n).map(|i| i * INTERVAL_MS + i * i % 7).collect(),
            floats: (0..n).map(|i| (i * i % 1009) as f64).collect(),
            ..Samples::default()
        };
        let path = folder.path().join("1.part");
        let partition = written(&path, 0..n * INTERVAL_MS, &[(labels, samples.clone())]);

        let whole = (0, n - 1);
        for (first, last) in [(7, 9), (4 * chunk + 99, 5 * chunk - 99), (4 * chunk - 1, 4 * chunk), whole] {
            for newest_only in [false, true] {
                let mut columns = Columns::default();
                let at = |i: i64| samples.timestamps[i as usize];
                let range = TimeRange::new(at(first), at(last));
                let mut load = Load { newest_only, ..Load::new(range, &mut columns) };
                partition.load(0, &mut load);
                assert!(load.damaged.is_empty());
                let times = load.runs.iter().flat_map(|run| run.timestamps.iter().copied());
                let floats = load.runs.iter().flat_map(|run| run.floats.iter().copied());
                let loaded: Vec<(i64, f64)> = times.zip(floats).collect();
                let mut all = (first..=last).map(|i| (at(i), samples.floats[i as usize]));
                match newest_only {
                    false => assert_eq!(loaded, all.collect::<Vec<_>>()),
                    true => assert_eq!(loaded.last().copied(), all.next_back()),
                }
                // Under a column's own name, under that of the chunk's slice, and what is cut of it.
                let most = 3 * (last / chunk - first / chunk + 1) as usize;
                assert!(columns.len() <= most, "{} columns known", columns.len());
            }
        }
    }
}
