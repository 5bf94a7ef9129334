//! What one append carries, and what came of it, sample by sample.
//!
//! A batch owns one buffer with the label bytes of all its series, as they came: canonical bytes
//! from an embedder, a piece of a protobuf from the wire. Nobody parses them unless the storage
//! meets the series for the first time; then it calls the batch's [`ParseLabels`].

use larum_storage_format::{Histogram, Labels, LabelsError};
use std::sync::Arc;

use super::time::Timestamp;

/// Turns the raw label bytes of one series into a label set.
///
/// It checks what the encoding can get wrong (cut bytes, bad UTF-8, duplicate or empty names); the
/// limits on numbers and lengths are the storage's.
pub type ParseLabels = fn(raw: &[u8]) -> Result<Labels, LabelsError>;

/// Samples to append, grouped by series.
///
/// Reuse one batch for many appends ([`Batch::clear`]): its buffers then stay allocated.
#[derive(Debug, Clone)]
pub struct Batch {
    parse: ParseLabels,
    text: Vec<u8>,
    series: Vec<BatchSeries>,
    timestamps: Vec<i64>,
    values: Vec<f64>,
    histograms: Vec<(u32, Arc<Histogram>)>,
    start_timestamps: Vec<(u32, i64)>,
    too_long: bool,
}

/// One series of a batch: where its label bytes lie, and which samples are its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct BatchSeries {
    text_start: u32,
    text_end: u32,
    first_sample: u32,
}

impl Default for Batch {
    fn default() -> Batch {
        Batch::new()
    }
}

impl Batch {
    /// An empty batch for label sets in canonical form ([`Batch::push`]).
    pub fn new() -> Batch {
        Batch::with_parser(Labels::from_canonical_bytes, Vec::new())
    }

    /// An empty batch whose series are pieces of `text`, in an encoding that `parse` understands.
    /// Add to it with [`Batch::begin_series`] and [`Batch::sample`].
    pub fn with_parser(parse: ParseLabels, text: Vec<u8>) -> Batch {
        Batch {
            parse,
            text,
            series: Vec::new(),
            timestamps: Vec::new(),
            values: Vec::new(),
            histograms: Vec::new(),
            start_timestamps: Vec::new(),
            too_long: false,
        }
    }

    /// Empties the batch.
    pub fn clear(&mut self) {
        self.text.clear();
        self.series.clear();
        self.timestamps.clear();
        self.values.clear();
        self.histograms.clear();
        self.start_timestamps.clear();
        self.too_long = false;
    }

    /// Empties the batch and hands out its text buffer as it is, to be overwritten and given back.
    pub fn take_text(&mut self) -> Vec<u8> {
        let text = std::mem::take(&mut self.text);
        self.clear();
        text
    }

    /// Gives an emptied batch a new text, and the parser for it.
    pub fn reset(&mut self, parse: ParseLabels, text: Vec<u8>) {
        self.clear();
        self.parse = parse;
        self.text = text;
    }

    /// Gives the batch the text that the series begun so far are pieces of. A decoder can so read
    /// the text while it fills the batch.
    ///
    /// # Panics
    /// If a series lies beyond the end of `text`.
    pub fn set_text(&mut self, text: Vec<u8>) {
        let needed = self.series.iter().map(|series| series.text_end).max().unwrap_or(0);
        assert!(needed as usize <= text.len(), "series text out of range");
        self.text = text;
    }

    /// Adds a float for a series given by its labels.
    pub fn push(&mut self, labels: &Labels, t: Timestamp, value: f64) {
        self.push_series(labels);
        self.sample(t.as_millis(), value);
    }

    /// Adds a native histogram for a series given by its labels.
    pub fn push_histogram(&mut self, labels: &Labels, t: Timestamp, histogram: Arc<Histogram>) {
        self.push_series(labels);
        self.histogram(t.as_millis(), histogram);
    }

    /// Begins a series given by its labels, unless it is the one begun last. Only for batches
    /// made by [`Batch::new`].
    pub fn push_series(&mut self, labels: &Labels) {
        let bytes = labels.as_bytes();
        if let Some(last) = self.series.last()
            && self.text[last.text_start as usize..last.text_end as usize] == *bytes
        {
            return;
        }
        let start = self.text.len();
        let end = start + bytes.len();
        // What is refused anyway need not take more memory.
        if end < u32::MAX as usize {
            self.text.extend_from_slice(bytes);
        }
        self.begin_series(start..end);
    }

    /// Begins a series whose label bytes lie at `text` in the batch's text, or in the one that
    /// [`Batch::set_text`] will give it. The samples that follow are its own.
    ///
    /// # Panics
    /// If the range runs backwards.
    pub fn begin_series(&mut self, text: std::ops::Range<usize>) {
        assert!(text.start <= text.end, "series text out of range");
        let small = |n: usize| u32::try_from(n).ok().filter(|&n| n < u32::MAX);
        match (small(text.start), small(text.end), small(self.timestamps.len())) {
            (Some(text_start), Some(text_end), Some(first_sample)) => {
                self.series.push(BatchSeries { text_start, text_end, first_sample });
            }
            _ => {
                self.too_long = true;
                let first_sample = self.series.last().map_or(0, |last| last.first_sample);
                self.series.push(BatchSeries { text_start: 0, text_end: 0, first_sample });
            }
        }
    }

    /// Moves the label bytes of the series begun last to `text`.
    ///
    /// # Panics
    /// If no series was begun, or as [`Batch::begin_series`].
    pub fn set_last_series_text(&mut self, text: std::ops::Range<usize>) {
        let first_sample = self.series.pop().expect("a series was begun").first_sample;
        self.begin_series(text);
        self.series.last_mut().expect("just begun").first_sample = first_sample;
    }

    /// Adds a float to the series begun last.
    ///
    /// # Panics
    /// If no series was begun.
    pub fn sample(&mut self, t_ms: i64, value: f64) {
        assert!(!self.series.is_empty(), "a sample needs a series");
        self.timestamps.push(t_ms);
        self.values.push(value);
    }

    /// Adds a native histogram to the series begun last.
    ///
    /// # Panics
    /// If no series was begun.
    pub fn histogram(&mut self, t_ms: i64, histogram: Arc<Histogram>) {
        self.histograms.push((self.timestamps.len() as u32, histogram));
        self.sample(t_ms, 0.0);
    }

    /// Tells when the sample added last began to count (its start timestamp). What was told of it
    /// before no longer holds.
    pub fn start_timestamp(&mut self, st_ms: i64) {
        let Some(last) = self.timestamps.len().checked_sub(1) else { return };
        match self.start_timestamps.last_mut() {
            Some((at, told)) if *at as usize == last => *told = st_ms,
            _ => self.start_timestamps.push((last as u32, st_ms)),
        }
    }

    /// Whether the batch holds 4 GiB of text or as many samples: it is refused as a whole.
    pub fn is_too_long(&self) -> bool {
        self.too_long || self.len() >= u32::MAX as usize
    }

    /// How many samples the batch holds.
    pub fn len(&self) -> usize {
        self.timestamps.len()
    }

    /// Whether the batch holds no sample.
    pub fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }

    /// How many series were begun. The same label set may occur more than once.
    pub fn series_count(&self) -> usize {
        self.series.len()
    }

    /// The raw label bytes of the series at `index`.
    pub fn series_text(&self, index: usize) -> &[u8] {
        let series = &self.series[index];
        &self.text[series.text_start as usize..series.text_end as usize]
    }

    /// The samples of the series at `index`, as a range of sample indexes.
    pub fn series_samples(&self, index: usize) -> std::ops::Range<usize> {
        let end = self.series.get(index + 1).map_or(self.timestamps.len(), |next| next.first_sample as usize);
        self.series[index].first_sample as usize..end
    }

    /// Parses the label bytes of the series at `index`.
    pub fn parse_labels(&self, index: usize) -> Result<Labels, LabelsError> {
        (self.parse)(self.series_text(index))
    }

    /// The parser, which together with the bytes says what a series is called.
    pub fn parser(&self) -> ParseLabels {
        self.parse
    }

    /// The timestamps of all samples, in milliseconds since the epoch.
    pub fn timestamps(&self) -> &[i64] {
        &self.timestamps
    }

    /// The floats of all samples; 0.0 where [`Batch::histograms`] has an entry.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// Sample index and histogram, ascending by index.
    pub fn histograms(&self) -> &[(u32, Arc<Histogram>)] {
        &self.histograms
    }

    /// The histogram of the sample at `index`, if it is one.
    pub(super) fn histogram_at(&self, index: usize) -> Option<&Histogram> {
        let at = self.histograms.binary_search_by_key(&index, |(sample, _)| *sample as usize).ok()?;
        Some(&self.histograms[at].1)
    }

    /// Sample index and start timestamp, ascending by index, of those samples that have one.
    pub fn start_timestamps(&self) -> &[(u32, i64)] {
        &self.start_timestamps
    }
}

/// What came of an append.
///
/// A sample that is neither refused nor reported by an [`super::AppendError`] is stored: it is in
/// the WAL by the rules of the fsync policy, and readable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Appended {
    /// How many samples were kept, those included that were there already.
    pub accepted: usize,
    /// The samples refused for good, ascending by index; the others of the batch are kept.
    pub refused: Vec<Refused>,
}

/// One refused sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Which sample of the batch.
    pub sample: u32,
    /// Which series of the batch.
    pub series: u32,
    /// Why.
    pub reason: Refusal,
}

/// Why a sample is refused for good: sending it again would change nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The label bytes are no label set.
    #[error("{0}")]
    Labels(#[from] LabelsError),
    /// There is no `__name__`, or it is empty.
    #[error("the label __name__ is missing")]
    NoMetricName,
    /// More labels than allowed.
    #[error("{count} labels, {limit} are allowed")]
    TooManyLabels {
        /// How many there are.
        count: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// A label name, a label value or the whole series is too long.
    #[error("{what} is {len_bytes} bytes long, {limit_bytes} are allowed")]
    TooLong {
        /// What is too long, e.g. `value of label "path"`.
        what: String,
        /// Its length.
        len_bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
    /// The timestamp lies before the border of retention.
    #[error("older than retention, which begins at {border_ms}")]
    TooOld {
        /// The oldest timestamp accepted now, in milliseconds since the epoch.
        border_ms: i64,
    },
    /// The timestamp lies too far ahead of now.
    #[error("too far ahead of now, {border_ms} is the latest accepted")]
    TooFarAhead {
        /// The latest timestamp accepted now, in milliseconds since the epoch.
        border_ms: i64,
    },
    /// The native histogram contradicts itself.
    #[error("invalid native histogram: {0}")]
    BadHistogram(String),
    /// Another label set already has this identity. Practically impossible; checked nevertheless.
    #[error("the series' identity is taken by another series")]
    IdentityTaken,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_belong_to_the_series_begun_before_them() {
        let up = Labels::from_pairs([("__name__", "up")]).unwrap();
        let down = Labels::from_pairs([("__name__", "down")]).unwrap();
        let mut batch = Batch::new();
        batch.push(&up, Timestamp::from_millis(1), 1.0);
        batch.push(&up, Timestamp::from_millis(2), 2.0);
        batch.push_histogram(&down, Timestamp::from_millis(3), Arc::default());
        batch.start_timestamp(1);
        assert_eq!((batch.series_count(), batch.len()), (2, 3));
        assert_eq!(batch.series_samples(0), 0..2);
        assert_eq!(batch.series_samples(1), 2..3);
        assert_eq!(batch.parse_labels(1), Ok(down));
        assert_eq!(batch.start_timestamps(), [(2, 1)]);
        assert!(!batch.take_text().is_empty() && batch.is_empty());
    }

    #[test]
    fn a_sample_has_the_start_timestamp_that_was_told_last() {
        let up = Labels::from_pairs([("__name__", "up")]).unwrap();
        let mut batch = Batch::new();
        batch.push(&up, Timestamp::from_millis(1), 1.0);
        batch.start_timestamp(5);
        batch.start_timestamp(6);
        batch.push(&up, Timestamp::from_millis(2), 2.0);
        batch.start_timestamp(7);
        assert_eq!(batch.start_timestamps(), [(0, 6), (1, 7)]);
    }

    #[test]
    fn text_beyond_four_gigabytes_makes_the_batch_too_long_until_it_is_cleared() {
        let mut batch = Batch::new();
        batch.begin_series(0..0);
        batch.sample(1, 1.0);
        assert!(!batch.is_too_long());
        batch.begin_series(u32::MAX as usize..1 << 33);
        batch.sample(1, 1.0);
        assert!(batch.is_too_long());
        batch.clear();
        assert!(!batch.is_too_long());
    }
}
