//! Several partitions become one, or several that follow each other in time; series by series.
//!
//! Memory is bounded however much is merged: a series is decoded in slices of the window, and the
//! writer keeps what it must remember in temporary files where it grows.

use super::catalog::Live;
use super::compaction::{FILE_BYTES_MAX, Merge, parts};
use super::cut::DAY_MS;
use super::folder::Folder;
use super::fs::Fs;
use super::merge::merge;
use super::part::Load;
use super::partition::{FileWriter, Partition, Sealed};
use super::policy::{Borders, Kept, from};
use super::querier::Layer;
use super::series_set::Columns;
use super::time::TimeRange;
use larum_storage_format::chunk::Packing;
use larum_storage_format::partition::{LabelReader, Origin, PairKey, WriterOptions};
use larum_storage_format::{IdentitySeed, Samples, SeriesId};
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// A series is decoded in slices of at most about so many samples.
const SLICE_SAMPLES: usize = 16 << 10;

/// The most slices of a series in one output.
const SLICES_MAX: usize = 1 << 12;

/// What is merged, and what comes of it.
pub(crate) struct Job<'a> {
    /// Where the files are written.
    pub fs: &'a Arc<dyn Fs>,
    /// The data folder.
    pub folder: &'a Folder,
    /// The identity seed.
    pub seed: IdentitySeed,
    /// The inputs, by rising sequence.
    pub inputs: &'a [Live],
    /// What is to be done.
    pub merge: &'a Merge,
    /// The number of the first output; those of the others follow.
    pub first_number: u64,
    /// What has expired is left out.
    pub borders: Option<Borders>,
    /// About how much memory to take.
    pub memory_bytes: usize,
}

/// An input as it is read.
struct Input {
    layer: Layer,
    /// Where its series begin, if some begin within.
    kept: Option<Kept>,
}

/// The next series of an input.
struct Cursor {
    input: usize,
    ordinal: u32,
    id: SeriesId,
}

impl Job<'_> {
    /// Writes the outputs, leaving out what was deleted, what has expired and what cannot be read; the
    /// inputs' damages know of the latter. Gives the numbers of the outputs, but of those of which nothing
    /// is left. Nothing is committed; the folder is synced.
    ///
    /// # Errors
    /// Those of the file system; [`io::ErrorKind::Interrupted`] once `stop` says true;
    /// [`io::ErrorKind::FileTooLarge`] if the window must be split into more outputs.
    pub fn run(&self, stop: &dyn Fn() -> bool) -> io::Result<Vec<u64>> {
        let mut sealed = Vec::new();
        for (number, part) in (self.first_number..).zip(parts(&self.merge.window_ms, self.merge.outputs)) {
            let file = self.write(number, part, stop)?;
            sealed.extend(file.map(|file| (number, file)));
        }
        // Only now it is known how many there are: a lost MANIFEST is rebuilt by that.
        let outputs = sealed.len() as u32;
        let mut written = Vec::new();
        for (output, (number, file)) in (0..).zip(sealed) {
            file.publish(|header| (header.origin.output, header.origin.outputs) = (output, outputs))?;
            written.push(number);
        }
        self.fs.sync_dir(&self.folder.partitions())?;
        Ok(written)
    }

    /// Writes the output of a part of the window; `None` if nothing is in it.
    fn write(
        &self,
        number: u64,
        window_ms: Range<i64>,
        stop: &dyn Fn() -> bool,
    ) -> io::Result<Option<Sealed<'_>>> {
        let inputs: Vec<Input> = self.inputs.iter().map(|input| self.input(input)).collect();
        let options = self.options(number, window_ms.clone());
        let path = self.folder.partition(number);
        let mut writer = FileWriter::create_bounded(self.fs, &path, options, self.memory_bytes)?;
        let mut readers: Vec<_> = self.inputs.iter().map(|input| Reader::new(&input.partition)).collect();
        let mut cursors: Vec<Cursor> =
            (0..self.inputs.len()).filter_map(|input| self.cursor(input, 0)).collect();
        let mut labels = Vec::new();
        let mut columns = Columns::default();
        while let Some(id) = cursors.iter().map(|cursor| cursor.id).min() {
            // Cursors stay in the order of the inputs, so that runs come by rising sequence.
            let places: Vec<&Cursor> = cursors.iter().filter(|cursor| cursor.id == id).collect();
            let mut begun = false;
            for slice in self.slices(&places, &window_ms) {
                if stop() {
                    return Err(io::Error::new(io::ErrorKind::Interrupted, "the merge was stopped"));
                }
                let samples = self.load(&inputs, &places, &slice, &mut columns);
                if samples.is_empty() {
                    continue;
                }
                if !begun {
                    // All have the same labels under an identity; of a damaged one they may be lost.
                    let mut readable = places.iter().map(|place| (place.input, place.ordinal));
                    let found = readable.find(|&(input, ordinal)| {
                        readers[input].read_labels(input as u32, ordinal, &mut labels)
                    });
                    let Some((input, _)) = found else { break };
                    let text = |symbol| readers[input].text(symbol);
                    writer.begin_series(id, &labels, |[_, name, value]| (text(name), text(value)))?;
                    begun = true;
                }
                writer.add_samples(&samples, slice)?;
                // A timestamp takes eight bytes: a quarter of the memory is for columns.
                columns.forget_beyond(self.memory_bytes / 32);
            }
            if writer.byte_len() > FILE_BYTES_MAX {
                let why = format!("partition {number} would be longer than {FILE_BYTES_MAX} bytes");
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
            }
            cursors.retain_mut(|cursor| {
                if cursor.id != id {
                    return true;
                }
                let next = self.cursor(cursor.input, cursor.ordinal + 1);
                next.map(|next| *cursor = next).is_some()
            });
        }
        writer.seal()
    }

    /// The samples of a series in a slice of the window.
    fn load(
        &self,
        inputs: &[Input],
        places: &[&Cursor],
        slice: &Range<i64>,
        columns: &mut Columns,
    ) -> Samples {
        let range = self.range_of(slice);
        let range = self.borders.as_ref().map_or(range, |borders| borders.shown(range));
        let mut load = Load::new(range, columns);
        for cursor in places {
            let Input { layer, kept } = &inputs[cursor.input];
            let border_ms = kept.as_ref().map_or(i64::MIN, |kept| kept.border_ms(cursor.ordinal));
            load.part = cursor.input as u32;
            load.range = from(range, border_ms);
            // What is damaged is noted with the partition.
            layer.load(cursor.id, cursor.ordinal, &mut load);
        }
        merge(load.runs, columns)
    }

    /// The times of a slice. No window reaches beyond its ends, but if a file says otherwise, its
    /// samples belong somewhere.
    fn range_of(&self, slice: &Range<i64>) -> TimeRange {
        let whole = &self.merge.window_ms;
        let min_ms = if slice.start == whole.start { i64::MIN } else { slice.start };
        let max_ms = if slice.end == whole.end { i64::MAX } else { slice.end - 1 };
        TimeRange::new(min_ms, max_ms)
    }

    /// Divides the window so far that the samples of a series fit memory.
    fn slices(&self, places: &[&Cursor], window_ms: &Range<i64>) -> impl Iterator<Item = Range<i64>> + use<> {
        let of = |place: &&Cursor| {
            self.inputs[place.input].partition.samples_at_most(place.ordinal, SLICE_SAMPLES)
        };
        let samples: usize = places.iter().map(of).sum();
        let count = samples.div_ceil(SLICE_SAMPLES).next_power_of_two().min(SLICES_MAX);
        parts(window_ms, count as u32)
    }

    fn input(&self, input: &Live) -> Input {
        let layer = input.layer();
        // Where the index cannot tell, nothing is left out but what is older than all is kept.
        let kept = |borders| layer.kept(TimeRange::ALL, borders).ok().flatten();
        let kept = self.borders.as_ref().and_then(kept);
        Input { layer, kept }
    }

    /// The first series of an input at an ordinal or behind it whose identity can be read.
    fn cursor(&self, input: usize, ordinal: u32) -> Option<Cursor> {
        let partition = &self.inputs[input].partition;
        let mut readable = (ordinal..partition.header().series_count).filter_map(|ordinal| {
            let id = partition.series_id(ordinal)?;
            Some(Cursor { input, ordinal, id })
        });
        readable.next()
    }

    fn options(&self, number: u64, window_ms: Range<i64>) -> WriterOptions {
        let headers = || self.inputs.iter().map(|p| p.partition.header());
        let generations = || headers().map(|h| h.origin.generations).filter(|&(first, _)| first > 0);
        let whole = &self.merge.window_ms;
        // What is merged into a day soon is not worth the best packing.
        let kept = whole.end.saturating_sub(whole.start) >= DAY_MS;
        WriterOptions {
            seed: self.seed,
            number,
            sequence: headers().map(|h| h.sequence).max().unwrap_or(0),
            origin: Origin {
                generations: (
                    generations().map(|(first, _)| first).min().unwrap_or(0),
                    generations().map(|(_, last)| last).max().unwrap_or(0),
                ),
                output: 0,
                outputs: 1,
                sources: self.inputs.iter().map(|p| p.meta.number).collect(),
            },
            window_ms,
            expected_data_bytes: self.inputs.iter().map(|p| p.meta.byte_len).sum(),
            packing: if kept { Packing::KEPT } else { Packing::FAST },
        }
    }
}

/// Reads the labels of an input by their symbols.
struct Reader<'a> {
    /// `None`: no label can be read.
    reader: Option<LabelReader<'a>>,
    /// Whether any label can be, without looking.
    is_intact: bool,
}

impl<'a> Reader<'a> {
    fn new(partition: &'a Partition) -> Reader<'a> {
        // Damage is noted with the partition.
        let is_intact = partition.verify_index().is_ok();
        Reader { reader: partition.symbol_reader(), is_intact }
    }

    /// Puts the labels of a series into `labels`: input, symbols of name and value. Tells whether all of
    /// them can be read.
    fn read_labels(&mut self, input: u32, ordinal: u32, labels: &mut Vec<PairKey>) -> bool {
        labels.clear();
        let Some(reader) = &mut self.reader else { return false };
        let is_readable = self.is_intact || reader.labels(ordinal).is_ok();
        let symbols = reader.symbols(ordinal, |name, value| labels.push([input, name, value]));
        is_readable && symbols.is_ok()
    }

    fn text(&self, symbol: u32) -> &'a str {
        // What cannot be read was refused above.
        self.reader.as_ref().and_then(|reader| reader.text(symbol).ok()).unwrap_or_default()
    }
}
