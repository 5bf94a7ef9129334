//! Samples in memory, for scripts: a [`Source`] without a data folder.

use crate::promql::histogram::stored_hint;
use crate::promql::parse::series::SequenceValue;
use crate::storage::series_set::Columns;
use crate::storage::{Matcher, ReadError, SeriesSet, Source, TimeRange};
use larum_storage_format::{Labels, Sample, Samples, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The samples of one series by their time.
type Series = BTreeMap<i64, Sample>;

/// Series and their samples.
#[derive(Debug, Default)]
pub struct Memory {
    series: BTreeMap<Labels, Series>,
}

impl Memory {
    /// Drops everything.
    pub fn clear(&mut self) {
        self.series.clear();
    }

    /// Adds a sample; it replaces one at the same time. What it says of counter resets becomes what
    /// it would say after it has been stored.
    pub fn insert(&mut self, labels: &Labels, mut sample: Sample) {
        let series = match self.series.get_mut(labels) {
            Some(series) => series,
            None => self.series.entry(labels.clone()).or_default(),
        };
        if let Value::Histogram(h) = &mut sample.value {
            let before = series.range(..sample.timestamp_ms).next_back().map(|(_, before)| &before.value);
            let before = match before {
                Some(Value::Histogram(before)) => Some(&**before),
                _ => None,
            };
            let hint = stored_hint(h, before);
            if hint != h.counter_reset_hint {
                Arc::make_mut(h).counter_reset_hint = hint;
            }
        }
        series.insert(sample.timestamp_ms, sample);
    }

    /// Adds the values of a description, the i-th at `i * step_ms`, with start timestamps relative
    /// to these times.
    pub(super) fn insert_sequence(
        &mut self,
        labels: &Labels,
        values: &[SequenceValue],
        start_offsets_ms: &[Option<i64>],
        step_ms: i64,
    ) {
        for (i, value) in values.iter().enumerate() {
            let timestamp_ms = step_ms.saturating_mul(i as i64);
            let value = match value {
                SequenceValue::Omitted => continue,
                SequenceValue::Float(value) => Value::Float(*value),
                SequenceValue::Histogram { value, .. } => Value::Histogram(value.clone()),
            };
            let offset_ms = start_offsets_ms.get(i).copied().flatten();
            let start_timestamp_ms = offset_ms.map(|offset_ms| timestamp_ms.saturating_add(offset_ms));
            self.insert(labels, Sample { timestamp_ms, start_timestamp_ms, value });
        }
    }
}

impl Source for Memory {
    fn select<'a>(
        &'a self,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<Box<dyn SeriesSet + 'a>, ReadError> {
        let matching = |labels: &Labels| matchers.iter().all(|matcher| matcher.matches_series(labels));
        let series = self.series.iter().filter(|(labels, _)| matching(labels)).collect();
        Ok(Box::new(Selection { series, range }))
    }
}

struct Selection<'a> {
    series: Vec<(&'a Labels, &'a Series)>,
    range: TimeRange,
}

impl SeriesSet for Selection<'_> {
    fn len(&self) -> usize {
        self.series.len()
    }

    fn labels(&self, index: usize) -> Labels {
        self.series[index].0.clone()
    }

    fn load(&self, index: usize, _: &mut Columns) -> Result<Samples, ReadError> {
        if self.range.is_empty() {
            return Ok(Samples::default());
        }
        let samples = self.series[index].1.range(self.range.min_ms..=self.range.max_ms);
        Ok(Samples::from_samples(samples.map(|(_, sample)| sample.clone())))
    }
}
