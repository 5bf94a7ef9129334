//! Several partitions become one, series by series.

use super::catalog::Live;
use super::cutter::forget_beyond;
use super::folder::Folder;
use super::fs::Fs;
use super::merge::merge;
use super::part::Load;
use super::partition::FileWriter;
use super::querier::Layer;
use super::series_set::Columns;
use super::time::TimeRange;
use larum_storage_format::chunk::Packing;
use larum_storage_format::partition::{Origin, WriterOptions};
use larum_storage_format::{IdentitySeed, SeriesId};
use std::collections::BTreeSet;
use std::io;
use std::ops::Range;

/// How often a merge asks whether it is to stop, in series.
const ASK_EVERY: u64 = 1024;

/// What is merged, and what comes of it.
pub(crate) struct Job<'a> {
    /// Where the file is written.
    pub fs: &'a dyn Fs,
    /// The data folder.
    pub folder: &'a Folder,
    /// The identity seed.
    pub seed: IdentitySeed,
    /// The inputs, by rising sequence.
    pub inputs: &'a [Live],
    /// The window of the output.
    pub window_ms: Range<i64>,
    /// The number of the output.
    pub number: u64,
}

/// What a merge wrote.
#[derive(Debug, Default)]
pub(crate) struct Merged {
    /// Whether there is a file: not if everything was deleted.
    pub written: bool,
    /// The numbers of inputs that are damaged: what could not be read is not in the output.
    pub damaged: BTreeSet<u64>,
}

/// The next series of an input.
struct Cursor {
    input: usize,
    ordinal: u32,
    id: SeriesId,
}

impl Job<'_> {
    /// Writes the output, leaving out what was deleted. Nothing is committed; the folder is synced.
    ///
    /// # Errors
    /// Those of the file system; [`io::ErrorKind::Interrupted`] once `stop` says true.
    pub fn run(&self, stop: &dyn Fn() -> bool) -> io::Result<Merged> {
        let mut merged = Merged::default();
        let layers: Vec<Layer> = self.inputs.iter().map(Live::layer).collect();
        let mut writer = FileWriter::create(self.fs, &self.folder.partition(self.number), self.options())?;
        let mut cursors: Vec<Cursor> =
            (0..self.inputs.len()).filter_map(|input| self.cursor(input, 0)).collect();
        let mut columns = Columns::default();
        let mut count = 0;
        while let Some(id) = cursors.iter().map(|cursor| cursor.id).min() {
            if count % ASK_EVERY == 0 && stop() {
                return Err(io::Error::new(io::ErrorKind::Interrupted, "the merge was stopped"));
            }
            count += 1;
            let mut load = Load::new(TimeRange::ALL, &mut columns);
            let mut labels = None;
            // Cursors stay in the order of the inputs, so that runs come by rising sequence.
            for cursor in cursors.iter().filter(|cursor| cursor.id == id) {
                let layer = &layers[cursor.input];
                load.part = cursor.input as u32;
                layer.load(id, cursor.ordinal, &mut load);
                labels.get_or_insert_with(|| layer.part.labels(cursor.ordinal));
                if !std::mem::take(&mut load.damaged).is_empty() {
                    merged.damaged.insert(self.inputs[cursor.input].meta.number);
                }
            }
            let samples = merge(load.runs, &mut columns);
            if let Some(labels) = labels
                && !samples.is_empty()
            {
                writer.push(id, &labels, &samples)?;
            }
            cursors.retain_mut(|cursor| {
                if cursor.id != id {
                    return true;
                }
                let next = self.cursor(cursor.input, cursor.ordinal + 1);
                next.map(|next| *cursor = next).is_some()
            });
            forget_beyond(&mut columns);
        }
        merged.written = writer.finish()?.is_some();
        self.fs.sync_dir(&self.folder.partitions())?;
        Ok(merged)
    }

    fn cursor(&self, input: usize, ordinal: u32) -> Option<Cursor> {
        let id = self.inputs[input].partition.series_id(ordinal)?;
        Some(Cursor { input, ordinal, id })
    }

    fn options(&self) -> WriterOptions {
        let headers = || self.inputs.iter().map(|p| p.partition.header());
        let generations = || headers().map(|h| h.origin.generations).filter(|&(first, _)| first > 0);
        WriterOptions {
            seed: self.seed,
            number: self.number,
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
            window_ms: self.window_ms.clone(),
            expected_data_bytes: self.inputs.iter().map(|p| p.meta.byte_len).sum(),
            packing: Packing::KEPT,
        }
    }
}
