//! Timestamp columns: each distinct run of timestamps of a partition is stored once.
//!
//! The series of one scrape target are sampled at the same times, so a partition of 20,000 chunks
//! holds some fifty distinct columns. A chunk names a *slice*: a column, where to start in it, and
//! how many timestamps to take, which is also the number of the chunk's samples. Three sections:
//! the columns (integer streams), their directory, and the slices.

use crate::bits::bit_len;
use crate::cursor::{Cursor, DecodeError};
use crate::ints::{Packing, STREAM_HEAD_BYTES, decode_ints, encode_ints, peek_first};
use crate::partition::extents::SectionBytes;
use crate::partition::tape::{Spool, Tape, Wound};
use crate::series_id::IdentitySeed;
use foldhash::fast::RandomState;
use std::collections::HashMap;
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

/// The most samples of a chunk, and so the longest timestamp column.
pub const MAX_CHUNK_SAMPLES: usize = 4096;

/// Bytes of an entry of the column directory (`u32 offset | u16 n | u16 span`, see [`span_code`]) and
/// of a slice (`u32 column | u16 start | u16 n`).
const ENTRY_BYTES: usize = 8;

/// In the code of a span, the low bits hold how far the others are shifted.
const SPAN_SHIFT_BITS: u32 = 5;

/// So many timestamps may wait for their place. A day of some fifty targets fits; of the runs of
/// more, a shorter one may miss the column that would hold it.
const WAITING_MAX: usize = 256 * 1024;

/// So many runs may wait, which bounds the memory where runs are short.
const WAITING_RUNS_MAX: usize = 16 * 1024;

/// So many runs are known again after they got their column, in some two megabytes. The first ones
/// stay: series are written metric by metric, and each metric brings the runs of all targets anew.
const SETTLED_MAX: usize = 7 << 13;

/// So many columns are compared with a run that begins at a timestamp they hold.
const CANDIDATES_MAX: usize = 8;

/// Part of a column: the timestamps of one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimestampSlice {
    /// Which column of the partition.
    pub column: u32,
    /// Index of the first timestamp in the column.
    pub start: u16,
    /// How many timestamps.
    pub len: u16,
}

/// The three sections, ready to be written.
#[derive(Debug)]
pub struct TimestampSections {
    /// TSCOL: the integer streams of the columns.
    pub columns: Wound,
    /// TSDIR: where each column lies in TSCOL, and its length.
    pub directory: Wound,
    /// TSREF: the slices.
    pub slices: Wound,
}

/// Collects the runs of timestamps of a partition's chunks and finds out which are slices of which.
#[derive(Debug)]
pub struct TimestampWriter {
    seed: IdentitySeed,
    /// Runs that have a number but no column yet.
    waiting: HashMap<Arc<[i64]>, u32, RandomState>,
    /// Timestamps in `waiting`.
    waiting_len: usize,
    /// The numbers of runs that have a column. A run is known by a seeded hash of 128 bits, as a
    /// series is by its identity.
    settled: HashMap<u128, u32, RandomState>,
    /// The number of the first waiting slice; those before it are written.
    first_waiting: u32,
    slices: Vec<TimestampSlice>,
    columns: Tape,
    directory: Tape,
    written_slices: Tape,
}

impl TimestampWriter {
    /// A writer for a partition whose identities have this seed.
    pub fn new(seed: IdentitySeed) -> TimestampWriter {
        TimestampWriter::on_spool(seed, &Spool::default())
    }

    pub(crate) fn on_spool(seed: IdentitySeed, spool: &Spool) -> TimestampWriter {
        TimestampWriter {
            seed,
            waiting: HashMap::default(),
            waiting_len: 0,
            settled: HashMap::default(),
            first_waiting: 0,
            slices: Vec::new(),
            columns: spool.tape(),
            directory: spool.tape(),
            written_slices: spool.tape(),
        }
    }

    /// The number of the slice that holds exactly `timestamps`.
    ///
    /// # Errors
    /// Those of a temporary file.
    ///
    /// # Panics
    /// If there are none or more than [`MAX_CHUNK_SAMPLES`].
    pub fn add(&mut self, timestamps: &[i64]) -> io::Result<u32> {
        assert!((1..=MAX_CHUNK_SAMPLES).contains(&timestamps.len()), "{} timestamps", timestamps.len());
        if let Some(&number) = self.waiting.get(timestamps) {
            return Ok(number);
        }
        if !self.settled.is_empty()
            && let Some(&number) = self.settled.get(&self.hash(timestamps))
        {
            return Ok(number);
        }
        if self.waiting_len + timestamps.len() > WAITING_MAX || self.waiting.len() >= WAITING_RUNS_MAX {
            self.settle()?;
        }
        let number = self.first_waiting + self.slices.len() as u32;
        self.slices.push(TimestampSlice { column: u32::MAX, start: 0, len: timestamps.len() as u16 });
        self.waiting.insert(timestamps.into(), number);
        self.waiting_len += timestamps.len();
        Ok(number)
    }

    /// The sections.
    ///
    /// # Errors
    /// Those of a temporary file.
    pub fn finish(mut self) -> io::Result<TimestampSections> {
        self.settle()?;
        Ok(TimestampSections {
            columns: self.columns.finish()?,
            directory: self.directory.finish()?,
            slices: self.written_slices.finish()?,
        })
    }

    /// Gives all waiting runs a column: the longest first, and a shorter one that lies within a
    /// column gets no column of its own.
    fn settle(&mut self) -> io::Result<()> {
        let mut runs: Vec<(Arc<[i64]>, u32)> = self.waiting.drain().collect();
        self.waiting_len = 0;
        runs.sort_by_key(|(run, number)| (std::cmp::Reverse(run.len()), *number));
        let mut kept: Vec<(Arc<[i64]>, u32)> = Vec::new();
        // For each timestamp that a run begins with, which columns hold it, and where.
        let mut holders: HashMap<i64, Vec<(usize, usize)>, RandomState> =
            runs.iter().map(|(run, _)| (run[0], Vec::new())).collect();
        for (run, number) in runs {
            let within = holders.get(&run[0]).and_then(|candidates| {
                candidates.iter().find(|&&(k, start)| kept[k].0[start..].starts_with(&run))
            });
            if self.settled.len() < SETTLED_MAX {
                self.settled.insert(self.hash(&run), number);
            }
            let (column, start) = match within {
                Some(&(k, start)) => (kept[k].1, start),
                None => {
                    for (at, &timestamp) in run.iter().enumerate() {
                        if let Some(candidates) = holders.get_mut(&timestamp)
                            && candidates.len() < CANDIDATES_MAX
                        {
                            candidates.push((kept.len(), at));
                        }
                    }
                    let column = self.write_column(&run)?;
                    kept.push((run, column));
                    (column, 0)
                }
            };
            let slice = &mut self.slices[(number - self.first_waiting) as usize];
            (slice.column, slice.start) = (column, start as u16);
        }
        self.first_waiting += self.slices.len() as u32;
        for slice in self.slices.drain(..) {
            self.written_slices.append(&slice.column.to_le_bytes())?;
            self.written_slices.append(&slice.start.to_le_bytes())?;
            self.written_slices.append(&slice.len.to_le_bytes())?;
        }
        Ok(())
    }

    fn hash(&self, timestamps: &[i64]) -> u128 {
        let mut hash = Xxh3::with_seed(self.seed.0);
        let mut bytes = [0; 64 * 8];
        for some in timestamps.chunks(64) {
            for (bytes, timestamp) in bytes.as_chunks_mut().0.iter_mut().zip(some) {
                *bytes = timestamp.to_le_bytes();
            }
            hash.update(&bytes[..some.len() * 8]);
        }
        hash.digest128()
    }

    fn write_column(&mut self, timestamps: &[i64]) -> io::Result<u32> {
        let column = self.directory.len() / ENTRY_BYTES as u64;
        // Like the file, the section stays far below 4 GiB; the partition writer checks its length.
        let span_ms = match timestamps {
            [first, .., last] => last.abs_diff(*first),
            _ => 0,
        };
        let len_and_span = timestamps.len() as u32 | u32::from(span_code(span_ms)) << 16;
        self.directory.append_words(&[self.columns.len() as u32, len_and_span])?;
        let mut stream = Vec::new();
        encode_ints(timestamps, Packing::KEPT, &mut stream);
        self.columns.append(&stream)?;
        Ok(column as u32)
    }
}

/// A span of milliseconds in 16 bits, rounded up by less than a thousandth, so that a reader knows how
/// far a column reaches without decoding it. 0 stands for one that is too long, or not known.
fn span_code(span_ms: u64) -> u16 {
    let span_ms = span_ms.max(1);
    let most = bit_len(u64::from(u16::MAX >> SPAN_SHIFT_BITS));
    let mut shift = bit_len(span_ms).saturating_sub(most);
    let mut code = span_ms.div_ceil(1 << shift);
    if bit_len(code) > most {
        (shift, code) = (shift + 1, code >> 1);
    }
    if shift < 1 << SPAN_SHIFT_BITS { (code << SPAN_SHIFT_BITS | u64::from(shift)) as u16 } else { 0 }
}

/// What [`span_code`] made of a span, or `None` if it is not known.
fn span_of(code: u16) -> Option<i64> {
    (code != 0).then(|| i64::from(code >> SPAN_SHIFT_BITS) << (code & ((1 << SPAN_SHIFT_BITS) - 1)))
}

/// Where a column lies, and what is known of it.
struct ColumnEntry {
    /// From the start of TSCOL.
    offset: usize,
    len: usize,
    /// At most so far do the timestamps reach behind the first.
    span_ms: Option<i64>,
}

/// Reads the three sections in place.
#[derive(Debug, Clone, Copy)]
pub struct TimestampReader<'a> {
    columns: SectionBytes<'a>,
    directory: SectionBytes<'a>,
    slices: SectionBytes<'a>,
}

impl<'a> TimestampReader<'a> {
    /// Takes TSCOL, TSDIR and TSREF. Each entry is checked when it is used.
    ///
    /// # Errors
    /// A directory that does not consist of whole entries.
    pub fn new(
        columns: impl Into<SectionBytes<'a>>,
        directory: impl Into<SectionBytes<'a>>,
        slices: impl Into<SectionBytes<'a>>,
    ) -> Result<Self, DecodeError> {
        let whole = |section: SectionBytes<'a>, what| match section.len() % ENTRY_BYTES {
            0 => Ok(section),
            _ => Err(section.corrupt(section.len(), what, "the last entry is cut")),
        };
        Ok(TimestampReader {
            columns: columns.into(),
            directory: whole(directory.into(), "timestamp directory")?,
            slices: whole(slices.into(), "timestamp slices")?,
        })
    }

    /// How many columns there are.
    pub fn column_count(&self) -> usize {
        self.directory.len() / ENTRY_BYTES
    }

    /// How many slices there are.
    pub fn slice_count(&self) -> usize {
        self.slices.len() / ENTRY_BYTES
    }

    /// The slice of that number.
    ///
    /// # Errors
    /// No such slice, an empty one, or one that reaches beyond its column.
    pub fn slice(&self, number: u32) -> Result<TimestampSlice, DecodeError> {
        const WHAT: &str = "timestamp slice";
        let at = number as usize * ENTRY_BYTES;
        let corrupt = |why| Err(self.slices.corrupt(at, WHAT, why));
        if number as usize >= self.slice_count() {
            return corrupt("no such slice");
        }
        let entry: &[u8; ENTRY_BYTES] = self.slices.record(number as usize, WHAT)?;
        let mut cursor = Cursor::with_base(entry, self.slices.offset(at));
        let (column, start, len) = (cursor.u32(WHAT)?, cursor.u16(WHAT)?, cursor.u16(WHAT)?);
        let column_len = self.entry(column)?.len;
        if len == 0 || usize::from(start) + usize::from(len) > column_len {
            return corrupt("empty, or beyond its column");
        }
        Ok(TimestampSlice { column, start, len })
    }

    fn entry(&self, column: u32) -> Result<ColumnEntry, DecodeError> {
        const WHAT: &str = "timestamp directory";
        let at = column as usize * ENTRY_BYTES;
        if column as usize >= self.column_count() {
            return Err(self.directory.corrupt(at, WHAT, "no such column"));
        }
        let entry: &[u8; ENTRY_BYTES] = self.directory.record(column as usize, WHAT)?;
        let mut cursor = Cursor::with_base(entry, self.directory.offset(at));
        let (offset, len) = (cursor.u32(WHAT)? as usize, usize::from(cursor.u16(WHAT)?));
        if len == 0 || len > MAX_CHUNK_SAMPLES || offset > self.columns.len() {
            return Err(self.directory.corrupt(at, WHAT, "impossible length or offset"));
        }
        Ok(ColumnEntry { offset, len, span_ms: span_of(cursor.u16(WHAT)?) })
    }

    /// Between which times the timestamps of a column lie, in milliseconds since the epoch, without
    /// decoding them: the first is exact, the last may be earlier than told.
    ///
    /// # Errors
    /// No such column, or one that does not begin as a column does.
    pub fn column_bounds(&self, column: u32) -> Result<RangeInclusive<i64>, DecodeError> {
        const WHAT: &str = "timestamp column";
        let ColumnEntry { offset, span_ms, .. } = self.entry(column)?;
        let head = offset..self.columns.len().min(offset + STREAM_HEAD_BYTES);
        let head = Cursor::with_base(self.columns.get(head, WHAT)?, self.columns.offset(offset));
        let first = peek_first(&head)?;
        Ok(first..=span_ms.map_or(i64::MAX, |span| first.saturating_add(span)))
    }

    /// Appends all timestamps of a column, in milliseconds since the epoch.
    ///
    /// # Errors
    /// No such column, or one that does not decode to strictly ascending timestamps.
    pub fn decode_column(&self, column: u32, out: &mut Vec<i64>) -> Result<(), DecodeError> {
        const WHAT: &str = "timestamp column";
        let ColumnEntry { offset, len, span_ms } = self.entry(column)?;
        // Columns follow one another; what lies behind this one need not be intact.
        let next = match column as usize + 1 < self.column_count() {
            true => self.entry(column + 1)?.offset,
            false => self.columns.len(),
        };
        let bytes = self.columns.get(offset..next, WHAT)?;
        let from = out.len();
        decode_ints(&mut Cursor::with_base(bytes, self.columns.offset(offset)), len, out)?;
        let (first, last) = (out[from], out[out.len() - 1]);
        if !out[from..].windows(2).all(|w| w[0] < w[1]) {
            return Err(self.columns.corrupt(offset, WHAT, "not strictly ascending"));
        }
        match span_ms {
            Some(span) if last > first.saturating_add(span) => {
                Err(self.columns.corrupt(offset, WHAT, "longer than its span"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_back(sections: &TimestampSections, numbers: &[u32]) -> Vec<Vec<i64>> {
        let reader =
            TimestampReader::new(&sections.columns[..], &sections.directory[..], &sections.slices[..])
                .unwrap();
        numbers
            .iter()
            .map(|&number| {
                let slice = reader.slice(number).unwrap();
                let mut column = Vec::new();
                reader.decode_column(slice.column, &mut column).unwrap();
                column[usize::from(slice.start)..][..usize::from(slice.len)].to_vec()
            })
            .collect()
    }

    #[test]
    fn slices_of_a_longer_run_share_its_column() {
        let target: Vec<i64> = (0..480).map(|i| 15_000 * i + i * 7 % 5).collect();
        let other: Vec<i64> = (0..480).map(|i| 15_000 * i + 3).collect();
        let runs = [&target[..100], &target, &target[17..], &other, &target[200..201], &target];
        let mut writer = TimestampWriter::new(IdentitySeed(1));
        let numbers = runs.map(|run| writer.add(run).unwrap());
        assert_eq!(numbers[1], numbers[5]);
        let sections = writer.finish().unwrap();
        assert_eq!(sections.directory.len(), 2 * ENTRY_BYTES);
        assert_eq!(sections.slices.len(), 5 * ENTRY_BYTES);
        assert_eq!(read_back(&sections, &numbers), runs.map(|run| run.to_vec()));
    }

    #[test]
    fn spans_are_rounded_up_a_little() {
        let lengths = (0..64).flat_map(|shift| [0, 1, 2, 1000].map(|more| (1u64 << shift) - 1 + more));
        for span in lengths.chain([45_000, 7_200_000, 61_439_985, 31 * 86_400_000]) {
            match span_of(span_code(span)) {
                Some(told) => {
                    let told = told as u64;
                    assert!(told >= span && told - span <= span / 1000 + 1, "{span}: {told}");
                }
                None => assert!(span > 2000 << 31, "{span}"),
            }
        }
        let mut writer = TimestampWriter::new(IdentitySeed(1));
        writer.add(&[-7]).unwrap();
        writer.add(&[1000, 2000, 46_000]).unwrap();
        writer.add(&[i64::MIN, 0, i64::MAX]).unwrap();
        let s = writer.finish().unwrap();
        let reader = TimestampReader::new(&s.columns[..], &s.directory[..], &s.slices[..]).unwrap();
        let slices = [0, 1, 2].map(|number| reader.slice(number).unwrap());
        let bounds = slices.map(|slice| reader.column_bounds(slice.column).unwrap());
        assert_eq!(bounds, [-7..=-6, 1000..=46_024, i64::MIN..=i64::MAX]);
        assert!(reader.column_bounds(3).is_err());
    }

    #[test]
    fn a_column_beyond_its_span_is_refused() {
        let mut writer = TimestampWriter::new(IdentitySeed(1));
        writer.add(&[1000, 2000, 46_000]).unwrap();
        let s = writer.finish().unwrap();
        let mut directory = s.directory.to_vec();
        directory[6..8].copy_from_slice(&span_code(44_000).to_le_bytes());
        let reader = TimestampReader::new(&s.columns[..], &directory[..], &s.slices[..]).unwrap();
        let error = reader.decode_column(0, &mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "timestamp column at offset 0: corrupt: longer than its span");
        directory[6..8].fill(0);
        let reader = TimestampReader::new(&s.columns[..], &directory[..], &s.slices[..]).unwrap();
        assert_eq!(reader.column_bounds(0), Ok(1000..=i64::MAX));
        assert!(reader.decode_column(0, &mut Vec::new()).is_ok());
    }

    #[test]
    fn runs_beyond_the_waiting_room_come_back() {
        let mut writer = TimestampWriter::new(IdentitySeed(1));
        let runs: Vec<Vec<i64>> =
            (0..200).map(|s| (0..4096).map(|i| i * 1000 + s * i % 7).collect()).collect();
        let numbers: Vec<u32> = runs.iter().map(|run| writer.add(run).unwrap()).collect();
        assert!(writer.waiting_len <= WAITING_MAX);
        let again: Vec<u32> = runs.iter().map(|run| writer.add(run).unwrap()).collect();
        assert_eq!(again, numbers, "each metric brings the runs of all targets again");
        assert_eq!(read_back(&writer.finish().unwrap(), &numbers), runs);
    }

    #[test]
    fn a_column_that_does_not_ascend_is_refused() {
        let mut writer = TimestampWriter::new(IdentitySeed(1));
        writer.add(&[1, 2, 2]).unwrap();
        let s = writer.finish().unwrap();
        let reader = TimestampReader::new(&s.columns[..], &s.directory[..], &s.slices[..]).unwrap();
        let error = reader.decode_column(0, &mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "timestamp column at offset 0: corrupt: not strictly ascending");
        assert!(reader.decode_column(1, &mut Vec::new()).is_err());
        assert!(reader.slice(1).is_err());
    }

    proptest! {
        #[test]
        fn any_sections_give_timestamps_or_an_error(
            columns in proptest::collection::vec(any::<u8>(), 0..64),
            directory in proptest::collection::vec(0..64u8, 0..32),
            slices in proptest::collection::vec(0..4u8, 0..32),
        ) {
            if let Ok(reader) = TimestampReader::new(&columns, &directory, &slices) {
                for number in 0..5 {
                    if let Ok(slice) = reader.slice(number) {
                        let mut out = Vec::new();
                        if reader.decode_column(slice.column, &mut out).is_ok() {
                            prop_assert!(out.len() >= usize::from(slice.start) + usize::from(slice.len));
                        }
                    }
                }
            }
        }
    }
}
