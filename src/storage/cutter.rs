//! A frozen generation of the head becomes partitions, one for each window of time.

use super::compaction::parts;
use super::cut::{coarsened, window_of};
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
    /// So many of those older than a day at most.
    pub old_windows_max: usize,
    /// Into how many equal parts each is split, a power of two: what is too large for one file.
    pub split: u32,
    /// The sequence of all files.
    pub sequence: u64,
}

impl Cut<'_> {
    /// The windows with samples, or their parts, as starts and ends, ascending.
    pub fn windows(&self, series: &[(SeriesId, u32)]) -> Vec<Range<i64>> {
        let window_at = |t_ms| window_of(t_ms, self.now_ms);
        let whole = coarsened(self.occupied(series, window_at), self.old_windows_max);
        if self.split == 1 {
            return whole;
        }
        self.occupied(series, |t_ms| {
            let at = whole.partition_point(|window| window.end <= t_ms);
            let window = whole.get(at).cloned().unwrap_or_else(|| window_at(t_ms));
            parts(&window, self.split).find(|part| part.contains(&t_ms)).unwrap_or(window)
        })
    }

    /// The windows that samples lie in.
    fn occupied(&self, series: &[(SeriesId, u32)], window_at: impl Fn(i64) -> Range<i64>) -> Vec<Range<i64>> {
        let Some(range) = self.generation.time_range() else { return Vec::new() };
        let first = window_at(range.min_ms);
        let last = window_at(range.max_ms);
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
                let window = window_at(t);
                starts.insert((window.start, window.end));
                from += samples.timestamps[from..].partition_point(|&t| t < window.end).max(1);
            }
            columns.forget_beyond(TIMESTAMPS_KEPT);
        }
        starts.into_iter().map(|(start, end)| start..end).collect()
    }

    /// Writes a partition per window, numbered from `first_number` on, and gives the numbers of those
    /// written. Nothing is committed; the folder is synced.
    ///
    /// # Errors
    /// Those of the file system; [`io::ErrorKind::FileTooLarge`] if the windows must be split further.
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
                    expected_data_bytes: self.generation.expected_bytes(),
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

#[cfg(test)]
mod tests {
    use crate::storage::options::{Maintenance, Options};
    use crate::storage::{Batch, Storage, Timestamp};
    use larum_storage_format::{Histogram, Labels, Span};
    use std::sync::Arc;
    use xxhash_rust::xxh3::xxh3_64_with_seed;

    /// Counts that nothing can pack.
    fn histogram(number: u64, is_integer: bool) -> Histogram {
        let bits = |bucket: u64| xxh3_64_with_seed(&bucket.to_le_bytes(), number);
        let count = |bucket| match is_integer {
            true => (bits(bucket) >> 20) as f64,
            false => f64::from_bits(bits(bucket) >> 2),
        };
        let buckets: Vec<f64> = (0..160).map(count).collect();
        let spans = vec![Span { offset: 1, length: 1 }; 80];
        Histogram {
            is_integer,
            schema: 3,
            count: buckets.iter().sum(),
            sum: f64::from_bits(bits(200) >> 2),
            positive_spans: spans.clone(),
            negative_spans: spans,
            positive_buckets: buckets[..80].to_vec(),
            negative_buckets: buckets[80..].to_vec(),
            ..Histogram::default()
        }
    }

    #[test]
    fn a_cut_expects_at_least_as_many_bytes_as_its_chunks_take() {
        for (histograms, is_integer) in [(0, false), (1_000, false), (1_000, true)] {
            let dir = tempfile::tempdir().unwrap();
            let clock = Arc::new(|| Timestamp::from_millis(1_000_000));
            let options = Options { clock, maintenance: Maintenance::Stepped, ..Options::default() };
            let storage = Storage::open(&dir.path().join("data"), options).unwrap();
            let mut batch = Batch::new();
            for t in 0..1_000 {
                let labels = |name| Labels::from_pairs([("__name__", name)]).unwrap();
                let at = Timestamp::from_millis(t as i64 * 1_000);
                batch.push(&labels("float"), at, f64::from_bits(xxh3_64_with_seed(&[], t) >> 2));
                if t < histograms {
                    batch.push_histogram(&labels("histogram"), at, Arc::new(histogram(t, is_integer)));
                }
            }
            assert!(storage.append(&batch).unwrap().refused.is_empty());
            let expected_bytes = storage.inner().head.active().expected_bytes();
            storage.flush().unwrap();
            let live = storage.inner().catalog().live().to_vec();
            let [(_, data_bytes), ..] = live[0].partition.header().section_bytes();
            assert!(expected_bytes >= data_bytes, "{histograms} {is_integer}: {expected_bytes} {data_bytes}");
            assert!(
                expected_bytes <= data_bytes * 4,
                "{histograms} {is_integer}: {expected_bytes} {data_bytes}"
            );
        }
    }
}
