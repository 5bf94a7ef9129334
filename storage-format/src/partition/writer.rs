//! Writes a partition: series in, bytes out.
//!
//! Chunks leave for the sink at once; what stays until the end is the index: identities, labels as
//! symbol numbers, a directory entry per chunk, and the encoded timestamp columns. It stays on
//! [tapes](super::tape), in memory or, for many series, in temporary files.

use super::alias::AliasWriter;
use super::directory;
use super::extents::ExtentWriter;
use super::header::{Origin, PartitionHeader, Section};
use super::pairs::{PairKey, PairWriter};
use super::tape::{Spill, Spool, Tape, triples};
use super::{postings, series};
use crate::chunk::histogram::layout_run;
use crate::chunk::{ChunkValues, MAX_CHUNK_SAMPLES, Packing, encode_chunk};
use crate::histogram::Histogram;
use crate::labels::Labels;
use crate::sample::Samples;
use crate::series_id::{IdentitySeed, SeriesId};
use crate::timestamps::{TimestampSections, TimestampWriter};
use std::io::{self, Write};
use std::ops::Range;
use std::sync::Arc;

/// Sections start at multiples of this.
const SECTION_ALIGN: u64 = 8;

/// What a partition is, known before its first series.
#[derive(Debug, Clone)]
pub struct WriterOptions {
    /// The seed that the series' identities were computed with.
    pub seed: IdentitySeed,
    /// The file's number.
    pub number: u64,
    /// Of two partitions with the same series and timestamp, the higher sequence wins.
    pub sequence: u64,
    /// Where the samples come from.
    pub origin: Origin,
    /// The time window, in milliseconds since the epoch. A run of more than
    /// [`MAX_CHUNK_SAMPLES`] samples is split into equal parts of the window, so that all series of
    /// a target are split at the same times.
    pub window_ms: Range<i64>,
    /// About how long the chunks will be in all: for a merge, the sum of its inputs. From 2 GiB
    /// on, chunks are aligned to eight bytes so that 32 bits can address them.
    pub expected_data_bytes: u64,
    /// How hard the chunks are packed.
    pub packing: Packing,
}

/// Why a partition could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The sink failed.
    #[error("writing a partition: {0}")]
    Io(#[from] io::Error),
    /// The series do not ascend by id, or one came twice.
    #[error("series {id:?} does not follow {previous:?}: series must ascend by id")]
    Order {
        /// The series before.
        previous: SeriesId,
        /// The series that should have come earlier.
        id: SeriesId,
    },
    /// The partition does not fit its 32-bit numbers; split the time range.
    #[error("a partition's {0} do not fit one file")]
    TooLarge(&'static str),
}

/// A partition under way. Dropping it abandons the file.
#[derive(Debug)]
pub struct PartitionWriter<W> {
    out: Output<W>,
    options: WriterOptions,
    wide_offsets: bool,
    data_start: u64,
    timestamps: TimestampWriter,
    spool: Spool,
    memory_bytes: usize,
    /// Three words a chunk.
    directory: Tape,
    aliases: AliasWriter,
    last_id: Option<SeriesId>,
    ids: Tape,
    pairs: PairWriter,
    series_count: u32,
    chunk_count: u32,
    sample_count: u64,
    min_ms: i64,
    max_ms: i64,
    scratch: Vec<u8>,
}

/// Where the bytes go.
#[derive(Debug)]
struct Output<W> {
    sink: W,
    /// Bytes written, the header's room included.
    position: u64,
    extents: ExtentWriter,
}

/// What [`PartitionWriter::finish`] gives.
#[derive(Debug)]
pub struct Finished<W> {
    /// The sink, with all bytes of the file in it; the first ones, where the header belongs, are zero.
    pub sink: W,
    /// The header, to be encoded and written over the start of the file before it is synced. How
    /// many outputs there are may be said now, if it was not known before.
    pub header: PartitionHeader,
}

impl<W: Write> PartitionWriter<W> {
    /// Starts a file in `sink` by leaving room for the header.
    ///
    /// # Errors
    /// The sink's.
    pub fn new(sink: W, options: WriterOptions) -> Result<PartitionWriter<W>, WriteError> {
        PartitionWriter::on_spool(sink, options, Spool::default(), usize::MAX)
    }

    /// As [`PartitionWriter::new`], but what must be remembered to the end goes to `spill` beyond
    /// about so much memory.
    ///
    /// # Errors
    /// The sink's.
    pub fn with_spill(
        sink: W,
        options: WriterOptions,
        spill: Arc<dyn Spill>,
        memory_bytes: usize,
    ) -> Result<PartitionWriter<W>, WriteError> {
        // A dozen tapes are in use at a time.
        PartitionWriter::on_spool(sink, options, Spool::new(spill, memory_bytes / 64), memory_bytes)
    }

    fn on_spool(
        mut sink: W,
        options: WriterOptions,
        spool: Spool,
        memory_bytes: usize,
    ) -> Result<PartitionWriter<W>, WriteError> {
        let header_len = PartitionHeader::len_with(options.origin.sources.len());
        sink.write_all(&vec![0; header_len])?;
        Ok(PartitionWriter {
            out: Output { sink, position: header_len as u64, extents: ExtentWriter::default() },
            aliases: AliasWriter::new(options.seed),
            timestamps: TimestampWriter::on_spool(options.seed, &spool),
            // A factor of two is left for an estimate that was too low.
            wide_offsets: options.expected_data_bytes > u64::from(u32::MAX / 2),
            options,
            data_start: header_len as u64,
            directory: spool.tape(),
            last_id: None,
            ids: spool.tape(),
            pairs: PairWriter::new(&spool, memory_bytes),
            spool,
            memory_bytes,
            series_count: 0,
            chunk_count: 0,
            sample_count: 0,
            min_ms: i64::MAX,
            max_ms: i64::MIN,
            scratch: Vec::new(),
        })
    }

    /// Adds a series with all its samples of the window. One without samples is left out.
    ///
    /// # Errors
    /// An `id` that is not greater than the one before; a partition that grows too large; the
    /// sink's. After an error the file is of no use.
    ///
    /// # Panics
    /// If the columns of `samples` differ in length.
    pub fn push(&mut self, id: SeriesId, labels: &Labels, samples: &Samples) -> Result<(), WriteError> {
        if samples.is_empty() {
            return Ok(());
        }
        self.take_id(id)?;
        labels.iter().for_each(|(name, value)| self.pairs.add(name, value));
        self.pairs.end_series()?;
        self.add_samples(samples, self.options.window_ms.clone())
    }

    /// Begins a series, whose samples follow by [`PartitionWriter::add_samples`]; there must be some.
    /// `labels` are the keys of its labels, in order of the names. The same key must stand for the
    /// same name and value in each series; `text` tells them, where the writer does not remember.
    ///
    /// # Errors
    /// As [`PartitionWriter::push`].
    pub fn begin_series<'t>(
        &mut self,
        id: SeriesId,
        labels: &[PairKey],
        text: impl Fn(PairKey) -> (&'t str, &'t str),
    ) -> Result<(), WriteError> {
        self.take_id(id)?;
        labels.iter().for_each(|&key| self.pairs.add_known(key, || text(key)));
        Ok(self.pairs.end_series()?)
    }

    fn take_id(&mut self, id: SeriesId) -> Result<(), WriteError> {
        if let Some(previous) = self.last_id.filter(|previous| *previous >= id) {
            return Err(WriteError::Order { previous, id });
        }
        self.last_id = Some(id);
        self.series_count = self.series_count.checked_add(1).ok_or(WriteError::TooLarge("series"))?;
        Ok(self.ids.append(&id.to_le_bytes())?)
    }

    /// Adds samples of the series that was begun last: all that it has in `window`, which is one of
    /// 2^k equal parts of the partition's window. Parts come one after the other.
    ///
    /// # Errors
    /// As [`PartitionWriter::push`].
    ///
    /// # Panics
    /// If the columns of `samples` differ in length, or no series was begun.
    pub fn add_samples(&mut self, samples: &Samples, window: Range<i64>) -> Result<(), WriteError> {
        if samples.is_empty() {
            return Ok(());
        }
        let ordinal = self.series_count.checked_sub(1).expect("a series was begun");
        self.sample_count += samples.len() as u64;
        self.min_ms = self.min_ms.min(samples.timestamps[0]);
        self.max_ms = self.max_ms.max(samples.timestamps[samples.len() - 1]);
        if samples.len() <= MAX_CHUNK_SAMPLES {
            return self.push_run(ordinal, samples, 0..samples.len(), window);
        }
        for (run, window) in equal_parts(&samples.timestamps, window) {
            self.push_run(ordinal, samples, run, window)?;
        }
        Ok(())
    }

    /// Writes the samples at `run`, halving `window` until they fit a chunk.
    fn push_run(
        &mut self,
        ordinal: u32,
        samples: &Samples,
        run: Range<usize>,
        window: Range<i64>,
    ) -> Result<(), WriteError> {
        if run.len() > MAX_CHUNK_SAMPLES {
            let middle = window.start.midpoint(window.end);
            // Samples outside the window could be halved for ever; they are split by their number.
            let (at, left, right) = if window.start < middle && middle < window.end {
                let before = samples.timestamps[run.clone()].partition_point(|&t| t < middle);
                (run.start + before, window.start..middle, middle..window.end)
            } else {
                (run.start + run.len() / 2, window.clone(), window)
            };
            self.push_run(ordinal, samples, run.start..at, left)?;
            return self.push_run(ordinal, samples, at..run.end, right);
        }
        if run.is_empty() {
            return Ok(());
        }
        if samples.histograms.is_empty() {
            let starts = samples.start_timestamps.get(run.clone()).unwrap_or(&[]);
            let floats = ChunkValues::Floats(&samples.floats[run.clone()]);
            return self.push_chunk(ordinal, &samples.timestamps[run], floats, starts);
        }
        for Piece { timestamps, values, start_timestamps } in pieces(samples, run) {
            let values = match &values {
                PieceValues::Floats(floats) => ChunkValues::Floats(floats),
                PieceValues::Histograms(histograms) => ChunkValues::Histograms(histograms),
            };
            self.push_chunk(ordinal, &timestamps, values, &start_timestamps)?;
        }
        Ok(())
    }

    fn push_chunk(
        &mut self,
        ordinal: u32,
        timestamps: &[i64],
        values: ChunkValues<'_>,
        start_timestamps: &[i64],
    ) -> Result<(), WriteError> {
        let unit = if self.wide_offsets { 8 } else { 1 };
        let Ok(offset) = u32::try_from((self.out.position - self.data_start) / unit) else {
            return Err(WriteError::TooLarge("chunks"));
        };
        let slice = self.timestamps.add(timestamps)?;
        self.directory.append_words(&[ordinal, offset, slice])?;
        self.chunk_count = self.chunk_count.checked_add(1).ok_or(WriteError::TooLarge("chunks"))?;

        let mut chunk = std::mem::take(&mut self.scratch);
        chunk.clear();
        encode_chunk(timestamps, values, start_timestamps, self.options.packing, &mut chunk);
        self.aliases.shorten(timestamps.len(), self.out.position - self.data_start, &mut chunk);
        chunk.resize(chunk.len().next_multiple_of(unit as usize), 0);
        self.out.write(&chunk)?;
        self.scratch = chunk;
        Ok(())
    }

    /// Writes the index and gives the header.
    ///
    /// # Errors
    /// A partition that is too large; the sink's.
    ///
    /// # Panics
    /// If no series was added: there is nothing to write a partition for. See
    /// [`PartitionWriter::is_empty`].
    pub fn finish(self) -> Result<Finished<W>, WriteError> {
        assert!(!self.is_empty(), "a partition without series");
        let PartitionWriter { mut out, options, spool, pairs, aliases, .. } = self;
        drop(aliases);
        let mut sections = [const { 0..0 }; 9];
        sections[Section::Data as usize] = self.data_start..out.position;
        out.extents.close();

        let TimestampSections { columns, directory, slices } = self.timestamps.finish()?;
        sections[Section::TimestampColumns as usize] = out.write_section(&[&columns])?;
        sections[Section::TimestampDirectory as usize] = out.write_section(&[&directory])?;
        sections[Section::TimestampSlices as usize] = out.write_section(&[&slices])?;
        drop((columns, directory, slices));

        let chunks = self.directory.finish()?;
        let entry = |[ordinal, offset, slice]: [u32; 3]| directory::Entry { ordinal, offset, slice };
        let (mut blocks, mut columns) = (spool.tape(), spool.tape());
        if !directory::encode(triples(&chunks).map(entry), &mut blocks, &mut columns)? {
            return Err(WriteError::TooLarge("chunks"));
        }
        sections[Section::Directory as usize] =
            out.write_section(&[&blocks.finish()?, &columns.finish()?])?;
        drop(chunks);

        let (symbols, pairs) = pairs.finish()?.ok_or(WriteError::TooLarge("label names and values"))?;
        let [head, text] = &symbols;
        sections[Section::Symbols as usize] = out.write_section(&[head, text])?;
        drop(symbols);

        let ids = self.ids.finish()?;
        let ids = ids.as_chunks().0.iter().map(|id| SeriesId::from_le_bytes(*id));
        let parts =
            series::encode(ids, pairs.one_by_one(), &spool)?.ok_or(WriteError::TooLarge("label sets"))?;
        let [head, blocks] = &parts;
        sections[Section::Series as usize] = out.write_section(&[head, blocks])?;
        drop(parts);
        let parts = postings::encode(&pairs, &spool, self.memory_bytes / 4)?;
        let [names, values, lists] = parts.ok_or(WriteError::TooLarge("postings"))?;
        sections[Section::Postings as usize] = out.write_section(&[&names, &values, &lists])?;
        let (checksums, footer) = std::mem::take(&mut out.extents).finish();
        sections[Section::Checksums as usize] = out.write_section(&[&checksums])?;
        out.write(&footer)?;

        let header = PartitionHeader {
            seed: options.seed,
            number: options.number,
            sequence: options.sequence,
            origin: options.origin,
            min_ms: self.min_ms,
            max_ms: self.max_ms,
            series_count: self.series_count,
            chunk_count: self.chunk_count,
            sample_count: self.sample_count,
            byte_len: out.position,
            wide_offsets: self.wide_offsets,
            sections,
        };
        out.sink.flush()?;
        Ok(Finished { sink: out.sink, header })
    }

    /// Whether no series was added yet.
    pub fn is_empty(&self) -> bool {
        self.series_count == 0
    }

    /// Bytes written so far.
    pub fn byte_len(&self) -> u64 {
        self.out.position
    }
}

impl<W: Write> Output<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.sink.write_all(bytes)?;
        self.extents.update(bytes);
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// Pads to where a section may start, and writes one.
    fn write_section(&mut self, parts: &[&[u8]]) -> Result<Range<u64>, WriteError> {
        let padding = self.position.next_multiple_of(SECTION_ALIGN) - self.position;
        self.write(&[0; SECTION_ALIGN as usize][..padding as usize])?;
        let start = self.position;
        parts.iter().try_for_each(|part| self.write(part))?;
        if self.position - start > u64::from(u32::MAX) {
            return Err(WriteError::TooLarge("index sections"));
        }
        Ok(start..self.position)
    }
}

/// Splits a run into the fewest 2^k equal parts of the window that fit chunks. Where even twice as
/// many parts as their number calls for do not (the samples are bunched), some parts stay too long.
fn equal_parts(timestamps: &[i64], window: Range<i64>) -> Vec<(Range<usize>, Range<i64>)> {
    let enough = timestamps.len().div_ceil(MAX_CHUNK_SAMPLES).next_power_of_two();
    let split = |count: usize| {
        let span = i128::from(window.end) - i128::from(window.start);
        let border = |part: usize| (i128::from(window.start) + span * part as i128 / count as i128) as i64;
        let mut parts = Vec::with_capacity(count);
        let mut from = 0;
        for part in 0..count {
            let end_ms = border(part + 1);
            let to = match part + 1 == count {
                true => timestamps.len(),
                false => from + timestamps[from..].partition_point(|&t| t < end_ms),
            };
            parts.push((from..to, border(part)..end_ms));
            from = to;
        }
        parts
    };
    let fits = |parts: &[(Range<usize>, _)]| parts.iter().all(|(run, _)| run.len() <= MAX_CHUNK_SAMPLES);
    let parts = split(enough);
    if fits(&parts) { parts } else { split(enough * 2) }
}

/// What becomes one chunk.
struct Piece {
    timestamps: Vec<i64>,
    values: PieceValues,
    start_timestamps: Vec<i64>,
}

enum PieceValues {
    Floats(Vec<f64>),
    Histograms(Vec<Arc<Histogram>>),
}

/// Takes a run of samples apart so that no piece mixes floats and histograms, or histograms of
/// several layouts; in order of their first timestamps.
fn pieces(samples: &Samples, run: Range<usize>) -> Vec<Piece> {
    let from = samples.histograms.partition_point(|(at, _)| (*at as usize) < run.start);
    let to = samples.histograms.partition_point(|(at, _)| (*at as usize) < run.end);
    let histograms = &samples.histograms[from..to];
    let starts = &samples.start_timestamps;
    let piece = |places: &[usize], values: PieceValues| Piece {
        timestamps: places.iter().map(|&at| samples.timestamps[at]).collect(),
        values,
        start_timestamps: match starts.is_empty() {
            true => Vec::new(),
            false => places.iter().map(|&at| starts[at]).collect(),
        },
    };
    let mut pieces = Vec::new();
    let mut next = histograms.iter().map(|(at, _)| *at as usize).peekable();
    let floats: Vec<usize> = run.filter(|at| next.next_if_eq(at).is_none()).collect();
    if !floats.is_empty() {
        let values = floats.iter().map(|&at| samples.floats[at]).collect();
        pieces.push(piece(&floats, PieceValues::Floats(values)));
    }
    let (mut places, mut values): (Vec<usize>, Vec<Arc<Histogram>>) =
        histograms.iter().map(|(at, h)| (*at as usize, h.clone())).unzip();
    while !values.is_empty() {
        let n = layout_run(&values);
        let (later_values, later_places) = (values.split_off(n), places.split_off(n));
        pieces.push(piece(&places, PieceValues::Histograms(values)));
        (values, places) = (later_values, later_places);
    }
    pieces.sort_by_key(|piece| piece.timestamps[0]);
    pieces
}
