//! A frozen generation of the head becomes partitions, one for each window of time.

use super::cut::window_of;
use super::folder::Folder;
use super::fs::Fs;
use super::head::Generation;
use super::part::Part;
use super::partition::FileWriter;
use super::series_set::Columns;
use larum_storage_format::chunk::Packing;
use larum_storage_format::partition::{Origin, WriterOptions};
use larum_storage_format::{IdentitySeed, Samples, SeriesId};
use std::collections::BTreeSet;
use std::io;
use std::ops::Range;

/// So many partitions are written at a time. A generation with samples in more windows (a backfill)
/// is read several times.
const WRITERS_MAX: usize = 16;

/// So many timestamps are remembered from series to series, in 16 MiB.
pub(crate) const TIMESTAMPS_KEPT: usize = 2 << 20;

/// Rough size of a sample in a fresh partition, on the safe side.
const SAMPLE_BYTES: u64 = 9;

/// What is to be cut, and how its files are called.
pub(crate) struct Cut<'a> {
    /// Where files are written.
    pub fs: &'a dyn Fs,
    /// The data folder.
    pub folder: &'a Folder,
    /// The identity seed.
    pub seed: IdentitySeed,
    /// The generation; nobody writes to it any more.
    pub generation: &'a Generation,
    /// The windows depend on the present.
    pub now_ms: i64,
    /// The sequence of all files.
    pub sequence: u64,
}

impl Cut<'_> {
    /// The windows with samples, as starts and ends, ascending.
    pub fn windows(&self, series: &[(SeriesId, u32)]) -> Vec<Range<i64>> {
        let Some(range) = self.generation.time_range() else { return Vec::new() };
        let first = window_of(range.min_ms, self.now_ms);
        let last = window_of(range.max_ms, self.now_ms);
        if first == last {
            return vec![first];
        }
        if first.end == last.start {
            return vec![first, last];
        }
        let mut starts: BTreeSet<(i64, i64)> = BTreeSet::new();
        let mut columns = Columns::default();
        for &(_, series) in series {
            let samples = self.generation.samples(series, &mut columns);
            let mut from = 0;
            while let Some(&t) = samples.timestamps.get(from) {
                let window = window_of(t, self.now_ms);
                starts.insert((window.start, window.end));
                from += samples.timestamps[from..].partition_point(|&t| t < window.end).max(1);
            }
            columns.forget_beyond(TIMESTAMPS_KEPT);
        }
        starts.into_iter().map(|(start, end)| start..end).collect()
    }

    /// Writes a partition per window, numbered from `first_number` on, and gives the numbers of those
    /// written. Nothing is committed; the folder is synced.
    pub fn write(
        &self,
        series: &[(SeriesId, u32)],
        windows: &[Range<i64>],
        first_number: u64,
    ) -> io::Result<Vec<u64>> {
        let generation = self.generation.number();
        let mut written = Vec::new();
        let outputs = windows.len() as u32;
        let numbered: Vec<(u32, &Range<i64>)> = (0..).zip(windows).collect();
        for windows in numbered.chunks(WRITERS_MAX) {
            let mut writers = Vec::new();
            for &(output, window) in windows {
                let number = first_number + u64::from(output);
                let options = WriterOptions {
                    seed: self.seed,
                    number,
                    sequence: self.sequence,
                    origin: Origin {
                        generations: (generation, generation),
                        output,
                        outputs,
                        sources: Vec::new(),
                    },
                    window_ms: window.clone(),
                    expected_data_bytes: self.generation.appended().saturating_mul(SAMPLE_BYTES),
                    packing: Packing::FAST,
                };
                let path = self.folder.partition(number);
                writers.push((number, window.clone(), FileWriter::create(self.fs, &path, options)?));
            }
            self.write_series(series, &mut writers)?;
            for (number, _, writer) in writers {
                if writer.finish()?.is_some() {
                    written.push(number);
                }
            }
        }
        self.fs.sync_dir(&self.folder.partitions())?;
        Ok(written)
    }

    fn write_series(
        &self,
        series: &[(SeriesId, u32)],
        writers: &mut [(u64, Range<i64>, FileWriter<'_>)],
    ) -> io::Result<()> {
        let (mut columns, mut labels) = (Columns::default(), Vec::new());
        for &(id, series) in series {
            let samples = self.generation.samples(series, &mut columns);
            for (_, window, writer) in &mut *writers {
                let from = samples.timestamps.partition_point(|&t| t < window.start);
                let to = samples.timestamps.partition_point(|&t| t < window.end).max(from);
                if from == to {
                    continue;
                }
                let pairs = self.generation.label_pairs();
                pairs.keys(series, &mut labels);
                writer.begin_series(id, &labels, |key| pairs.text(key))?;
                // Samples are written to the file, for which nobody should wait.
                drop(pairs);
                if from == 0 && to == samples.len() {
                    writer.add_samples(&samples, window.clone())?;
                } else {
                    writer.add_samples(&part_of(&samples, from..to), window.clone())?;
                }
            }
            columns.forget_beyond(TIMESTAMPS_KEPT);
        }
        Ok(())
    }
}

fn part_of(samples: &Samples, range: Range<usize>) -> Samples {
    let inside = samples.histograms.iter().filter(|(i, _)| range.contains(&(*i as usize)));
    Samples {
        timestamps: samples.timestamps[range.clone()].into(),
        floats: samples.floats[range.clone()].to_vec(),
        histograms: inside.map(|(i, h)| (i - range.start as u32, h.clone())).collect(),
        start_timestamps: samples.start_timestamps.get(range).unwrap_or_default().to_vec(),
    }
}
