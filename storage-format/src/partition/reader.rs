//! Reads a partition in place.
//!
//! [`Partition`] borrows everything from the bytes it owns (a mapped file, say). Opening looks at
//! the header and the checksums only; an extent of index or chunks is verified when it is first
//! read.

use super::alias::Alias;
use super::directory::Directory;
use super::extents::{Extents, SectionBytes};
use super::header::{PartitionHeader, Section};
use super::postings::{LabelValues, Postings};
use super::series::{LabelReader, SeriesTable};
use super::symbols::Symbols;
use crate::chunk::{ChunkStats, DecodedChunk, chunk_last, chunk_stats, decode_chunk};
use crate::cursor::{DecodeError, DecodeErrorKind};
use crate::labels::Labels;
use crate::series_id::SeriesId;
use crate::timestamps::{TimestampReader, TimestampSlice};
use std::borrow::Cow;
use std::ops::{Range, RangeInclusive};

/// A partition whose header and list of checksums are intact.
///
/// Series are addressed by *ordinal*, their place in the order of ids, below
/// [`Partition::series_count`]; timestamp columns by number.
#[derive(Debug)]
pub struct Partition<B> {
    bytes: B,
    header: PartitionHeader,
    extents: Extents,
}

/// A chunk of a series: which timestamps its samples have, and where its values lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The timestamps, one per sample.
    pub timestamps: TimestampSlice,
    /// Where the chunk lies, in bytes from the start of the file.
    range: Range<usize>,
}

impl Chunk {
    /// Length of the chunk in bytes.
    pub fn byte_len(&self) -> usize {
        self.range.len()
    }

    /// Whether it has bytes in a range of the file.
    pub fn overlaps(&self, range: &Range<u64>) -> bool {
        (self.range.start as u64) < range.end && range.start < self.range.end as u64
    }
}

/// Finds the chunks of a partition's series; those of neighbours one after the other fastest.
#[derive(Debug)]
pub struct ChunkReader<'a> {
    directory: Directory<'a>,
    timestamps: TimestampReader<'a>,
    /// Where DATA starts in the file.
    data_at: u64,
    series_count: u32,
}

impl ChunkReader<'_> {
    /// The places of the chunks of a series; see [`ChunkReader::chunk`].
    ///
    /// # Errors
    /// Damage, or an index that no writer writes.
    pub fn positions(&self, ordinal: u32) -> Result<Range<u32>, DecodeError> {
        self.directory.of_series(ordinal, self.series_count)
    }

    /// The chunk at a place.
    ///
    /// # Errors
    /// No such place; damage, or an index that no writer writes.
    pub fn chunk(&self, position: u32) -> Result<Chunk, DecodeError> {
        let (slice, range) = self.directory.chunk(position)?;
        let range = (self.data_at + range.start) as usize..(self.data_at + range.end) as usize;
        Ok(Chunk { timestamps: self.timestamps.slice(slice)?, range })
    }
}

impl<B: AsRef<[u8]>> Partition<B> {
    /// Checks magic, version, header and length of a whole file, and its list of checksums.
    ///
    /// # Errors
    /// Another kind of file, another version, a wrong length, damage there.
    pub fn open(bytes: B) -> Result<Partition<B>, DecodeError> {
        let file = bytes.as_ref();
        let header = PartitionHeader::decode(file)?;
        if file.len() as u64 != header.byte_len {
            return Err(DecodeError {
                kind: if (file.len() as u64) < header.byte_len {
                    DecodeErrorKind::Truncated
                } else {
                    DecodeErrorKind::Corrupt("longer than its header says")
                },
                offset: file.len(),
                what: "partition",
            });
        }
        // The header has checked that sections lie within the file, whose length fits usize.
        let section = |s: Section| {
            let range = header.section(s);
            range.start as usize..range.end as usize
        };
        let (data, checksums) = (section(Section::Data), section(Section::Checksums));
        let index = data.end..section(Section::Postings).end;
        // Who goes through all series or chunks must not be sent through more than the file has.
        let room = |s, records: u64, bytes: usize| match records * bytes as u64 <= section(s).len() as u64 {
            true => Ok(()),
            false => Err(DecodeError::corrupt(
                section(s).start,
                "partition",
                "a section is shorter than its count",
            )),
        };
        room(Section::Series, header.series_count.into(), super::series::LOW_BYTES)?;
        let blocks = header.chunk_count.div_ceil(super::directory::BLOCK_CHUNKS as u32);
        room(Section::Directory, blocks.into(), super::directory::ENTRY_BYTES)?;
        let extents = Extents::open(file, data, index, checksums)?;
        Ok(Partition { bytes, header, extents })
    }

    /// Verifies what of the index was not verified yet, and that what the header counts is there.
    ///
    /// # Errors
    /// Damage anywhere but in DATA.
    pub fn verify_index(&self) -> Result<(), DecodeError> {
        self.extents.verify_index(self.bytes.as_ref())?;
        self.series()?;
        self.postings()?;
        self.timestamps()?;
        Ok(())
    }

    /// The header.
    pub fn header(&self) -> &PartitionHeader {
        &self.header
    }

    /// The bytes of the file.
    pub fn bytes(&self) -> &B {
        &self.bytes
    }

    /// How many series there are; ordinals are below it.
    pub fn series_count(&self) -> u32 {
        self.header.series_count
    }

    /// The identity of a series, or `None` if there is no such ordinal.
    ///
    /// # Errors
    /// Damage.
    pub fn series_id(&self, ordinal: u32) -> Result<Option<SeriesId>, DecodeError> {
        self.series()?.id(ordinal)
    }

    /// The identities of series, whose ordinals ascend, each with its ordinal.
    ///
    /// # Errors
    /// No such ordinal; damage.
    pub fn series_ids(
        &self,
        ordinals: impl IntoIterator<Item = u32>,
    ) -> Result<Vec<(SeriesId, u32)>, DecodeError> {
        let mut ids = Vec::new();
        self.series()?.ids(ordinals, &mut ids)?;
        Ok(ids)
    }

    /// The ordinal of a series, if it is here.
    ///
    /// # Errors
    /// Damage.
    pub fn find(&self, id: SeriesId) -> Result<Option<u32>, DecodeError> {
        self.series()?.find(id)
    }

    /// The labels of a series. For those of many, see [`Partition::label_reader`].
    ///
    /// # Errors
    /// No such ordinal; damage.
    pub fn labels(&self, ordinal: u32) -> Result<Labels, DecodeError> {
        self.label_reader()?.labels(ordinal)
    }

    /// Reads the labels of many series.
    ///
    /// # Errors
    /// Damage.
    pub fn label_reader(&self) -> Result<LabelReader<'_>, DecodeError> {
        Ok(LabelReader::new(self.series()?, self.symbols()?))
    }

    /// Verifies what the labels of series are read from, so that reading them later finds no damage.
    ///
    /// # Errors
    /// No such ordinal; damage.
    pub fn verify_labels(&self, ordinals: impl IntoIterator<Item = u32>) -> Result<(), DecodeError> {
        self.symbols()?.verify()?;
        self.series()?.verify_labels(ordinals)
    }

    /// The label names, sorted.
    ///
    /// # Errors
    /// Damage, or an index that no writer writes.
    pub fn label_names(&self) -> Result<impl Iterator<Item = Result<&str, DecodeError>> + '_, DecodeError> {
        Ok(self.postings()?.names())
    }

    /// The values of a label name, sorted, each with its series; `None` if no series has the label.
    ///
    /// # Errors
    /// Damage, or an index that no writer writes.
    pub fn label_values(&self, name: &str) -> Result<Option<LabelValues<'_>>, DecodeError> {
        self.postings()?.values(name)
    }

    /// Appends the ordinals of the series with the label `name="value"`, ascending.
    ///
    /// # Errors
    /// Damage, or an index that no writer writes.
    pub fn postings_of(&self, name: &str, value: &str, out: &mut Vec<u32>) -> Result<(), DecodeError> {
        let Some(values) = self.label_values(name)? else { return Ok(()) };
        let Some(position) = values.find(value)? else { return Ok(()) };
        values.ordinals(position, out)
    }

    /// The chunks of a series, by the time of their first sample. Chunks may overlap in time where
    /// a series mixes floats and histograms, but never share a timestamp.
    ///
    /// # Errors
    /// Damage, or an index that no writer writes.
    pub fn chunks(
        &self,
        ordinal: u32,
    ) -> Result<impl ExactSizeIterator<Item = Result<Chunk, DecodeError>> + '_, DecodeError> {
        let reader = self.chunk_reader()?;
        let positions = reader.positions(ordinal)?;
        Ok(positions.map(move |position| reader.chunk(position)))
    }

    /// Finds the chunks of many series.
    ///
    /// # Errors
    /// An index that no writer writes.
    pub fn chunk_reader(&self) -> Result<ChunkReader<'_>, DecodeError> {
        Ok(ChunkReader {
            directory: self.directory(),
            timestamps: self.timestamps()?,
            data_at: self.header.section(Section::Data).start,
            series_count: self.header.series_count,
        })
    }

    /// How many timestamp columns there are.
    pub fn column_count(&self) -> usize {
        self.timestamps().map_or(0, |t| t.column_count())
    }

    /// A whole timestamp column, in milliseconds since the epoch. Many chunks share one; decode it
    /// once and cut it with [`Partition::slice_of`].
    ///
    /// # Errors
    /// No such column, or one that no writer writes.
    pub fn column(&self, column: u32) -> Result<Vec<i64>, DecodeError> {
        let mut out = Vec::new();
        self.timestamps()?.decode_column(column, &mut out)?;
        Ok(out)
    }

    /// Between which times the timestamps of a column lie, in milliseconds since the epoch, without
    /// decoding them. They may end a little earlier.
    ///
    /// # Errors
    /// No such column, or one that no writer writes.
    pub fn column_bounds(&self, column: u32) -> Result<RangeInclusive<i64>, DecodeError> {
        self.timestamps()?.column_bounds(column)
    }

    /// The timestamps of `chunk` within its decoded `column`.
    ///
    /// # Panics
    /// If `column` is not the chunk's.
    pub fn slice_of<'c>(&self, chunk: &Chunk, column: &'c [i64]) -> &'c [i64] {
        &column[usize::from(chunk.timestamps.start)..][..usize::from(chunk.timestamps.len)]
    }

    /// Decodes the values of a chunk, whose samples have `timestamps`. The extents it lies in are
    /// verified unless they were before.
    ///
    /// # Errors
    /// Damage, which concerns the chunks in the same 16 KiB only.
    pub fn decode(&self, chunk: &Chunk, timestamps: &[i64]) -> Result<DecodedChunk, DecodeError> {
        self.read(chunk, |bytes| decode_chunk(bytes, timestamps))
    }

    /// The value of a chunk's last sample, if it is known without decoding the values; see
    /// [`chunk_last`].
    ///
    /// # Errors
    /// As [`Partition::decode`].
    pub fn last(&self, chunk: &Chunk) -> Result<Option<f64>, DecodeError> {
        self.read(chunk, |bytes| chunk_last(bytes, chunk.timestamps.len.into()))
    }

    /// What is known of a chunk without decoding its values; see [`chunk_stats`].
    ///
    /// # Errors
    /// As [`Partition::decode`].
    pub fn stats(&self, chunk: &Chunk, timestamps: &[i64]) -> Result<Option<ChunkStats>, DecodeError> {
        self.read(chunk, |bytes| chunk_stats(bytes, timestamps))
    }

    /// Verifies what a chunk is decoded from, without decoding it.
    ///
    /// # Errors
    /// As [`Partition::decode`].
    pub fn verify_chunk(&self, chunk: &Chunk) -> Result<(), DecodeError> {
        self.read(chunk, |_| Ok(()))
    }

    /// Reads the verified bytes of a chunk.
    fn read<T>(
        &self,
        chunk: &Chunk,
        read: impl FnOnce(&[u8]) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        let file = self.bytes.as_ref();
        self.extents.verify(file, chunk.range.clone())?;
        let mut bytes = Cow::Borrowed(&file[chunk.range.clone()]);
        if let Some(alias) = Alias::read(&bytes, chunk.range.start)? {
            let owner = alias.owner(self.header.section(Section::Data).start as usize)?;
            self.extents.verify(file, owner.clone())?;
            bytes = Cow::Owned(alias.resolve(&file[owner])?);
        }
        read(&bytes).map_err(|error| DecodeError { offset: error.offset + chunk.range.start, ..error })
    }

    /// From now on the extents that `range` of the file touches count as damaged: whoever wants them
    /// gets an error, and their bytes are not touched. For who finds out by other means that they are not
    /// what was written, or that the device cannot read them.
    pub fn condemn(&self, range: &Range<u64>) {
        let at = |offset: u64| offset.min(self.header.byte_len) as usize;
        self.extents.condemn(&(at(range.start)..at(range.end)));
    }

    /// Whether chunks lie at an offset of the file.
    pub fn is_data(&self, offset: u64) -> bool {
        self.header.section(Section::Data).contains(&offset)
    }

    /// Length of DATA in bytes.
    pub fn data_len(&self) -> u64 {
        let data = self.header.section(Section::Data);
        data.end - data.start
    }

    fn section(&self, section: Section) -> SectionBytes<'_> {
        let range = self.header.section(section);
        SectionBytes::of(self.bytes.as_ref(), range.start as usize..range.end as usize, &self.extents)
    }

    fn symbols(&self) -> Result<Symbols<'_>, DecodeError> {
        Symbols::new(self.section(Section::Symbols))
    }

    fn series(&self) -> Result<SeriesTable<'_>, DecodeError> {
        SeriesTable::new(self.section(Section::Series), self.header.series_count)
    }

    fn postings(&self) -> Result<Postings<'_>, DecodeError> {
        Postings::new(self.section(Section::Postings), self.symbols()?, self.header.series_count)
    }

    fn timestamps(&self) -> Result<TimestampReader<'_>, DecodeError> {
        TimestampReader::new(
            self.section(Section::TimestampColumns),
            self.section(Section::TimestampDirectory),
            self.section(Section::TimestampSlices),
        )
    }

    fn directory(&self) -> Directory<'_> {
        let (chunks, unit) = (self.header.chunk_count, self.header.offset_unit());
        Directory::new(self.section(Section::Directory), chunks, unit, self.data_len())
    }
}
