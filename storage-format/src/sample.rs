//! Samples: a float or a native histogram at one millisecond, and columns of them.

use crate::histogram::Histogram;
use std::sync::Arc;

/// The NaN that marks a series as stale: "there is no value from here on". Compare by bits, see
/// [`is_stale`]. The bits are Prometheus' own (`model/value`).
pub const STALE_NAN: f64 = f64::from_bits(0x7ff0_0000_0000_0002);

/// Whether `value` is the stale marker. Any other NaN is an ordinary value.
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_NAN.to_bits()
}

/// What a series holds at one time. Floats travel bit by bit: NaN payloads and -0.0 survive.
#[derive(Debug, Clone)]
pub enum Value {
    /// A float.
    Float(f64),
    /// A native histogram.
    Histogram(Arc<Histogram>),
}

impl Value {
    /// Whether this is a stale marker: the float one, or a histogram whose sum is it.
    pub fn is_stale(&self) -> bool {
        match self {
            Value::Float(v) => is_stale(*v),
            Value::Histogram(h) => is_stale(h.sum),
        }
    }

    /// Equality by bits, so that a NaN equals itself and 0.0 does not equal -0.0.
    pub fn same_bits(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
            (Value::Histogram(a), Value::Histogram(b)) => Arc::ptr_eq(a, b) || a.same_bits(b),
            _ => false,
        }
    }
}

/// One sample of a series.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// When the counter or histogram began to count, if the sender told, in milliseconds since
    /// the epoch.
    pub start_timestamp_ms: Option<i64>,
    /// The value.
    pub value: Value,
}

/// A run of samples of one series in columns, ordered by time, one sample per timestamp.
///
/// `timestamps` is shared: series of one scrape target that were sampled at the same times hold
/// the *same* `Arc`, so whoever works out something per timestamp (window borders, say) can do it
/// once and reuse it for every series whose `Arc` is `ptr_eq`.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    /// Milliseconds since the Unix epoch, strictly ascending.
    pub timestamps: Arc<[i64]>,
    /// One value per timestamp. Where `histograms` has an entry the float is meaningless (0.0).
    pub floats: Vec<f64>,
    /// Index into `timestamps`, and the histogram there; ascending by index.
    pub histograms: Vec<(u32, Arc<Histogram>)>,
    /// One start timestamp per timestamp, 0 for unknown; or empty if none is known.
    pub start_timestamps: Vec<i64>,
}

impl Samples {
    /// How many samples there are.
    pub fn len(&self) -> usize {
        self.timestamps.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }

    /// The value at `index`.
    ///
    /// # Panics
    /// If `index` is out of range.
    pub fn value(&self, index: usize) -> Value {
        match self.histograms.binary_search_by_key(&(index as u32), |(i, _)| *i) {
            Ok(found) => Value::Histogram(self.histograms[found].1.clone()),
            Err(_) => Value::Float(self.floats[index]),
        }
    }

    /// The start timestamp at `index`, if known.
    pub fn start_timestamp(&self, index: usize) -> Option<i64> {
        self.start_timestamps.get(index).copied().filter(|&st| st != 0)
    }

    /// The sample at `index`.
    ///
    /// # Panics
    /// If `index` is out of range.
    pub fn sample(&self, index: usize) -> Sample {
        Sample {
            timestamp_ms: self.timestamps[index],
            start_timestamp_ms: self.start_timestamp(index),
            value: self.value(index),
        }
    }

    /// Columns from samples, which must be in strictly ascending order of time.
    pub fn from_samples(samples: impl IntoIterator<Item = Sample>) -> Samples {
        let mut timestamps = Vec::new();
        let mut out = Samples::default();
        for (i, sample) in samples.into_iter().enumerate() {
            debug_assert!(timestamps.last().is_none_or(|&last| last < sample.timestamp_ms));
            timestamps.push(sample.timestamp_ms);
            if let Some(st) = sample.start_timestamp_ms {
                out.start_timestamps.resize(i, 0);
                out.start_timestamps.push(st);
            }
            match sample.value {
                Value::Float(v) => out.floats.push(v),
                Value::Histogram(h) => {
                    out.floats.push(0.0);
                    out.histograms.push((i as u32, h));
                }
            }
        }
        if !out.start_timestamps.is_empty() {
            out.start_timestamps.resize(timestamps.len(), 0);
        }
        out.timestamps = timestamps.into();
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_marker_is_stale() {
        assert!(is_stale(STALE_NAN));
        assert!(!is_stale(f64::NAN));
        assert!(!is_stale(0.0));
    }

    #[test]
    fn columns_hold_floats_histograms_and_start_timestamps() {
        let histogram = Arc::new(Histogram { count: 3.0, ..Histogram::default() });
        let samples = Samples::from_samples([
            Sample { timestamp_ms: 1, start_timestamp_ms: None, value: Value::Float(-0.0) },
            Sample { timestamp_ms: 2, start_timestamp_ms: Some(1), value: Value::Histogram(histogram) },
            Sample { timestamp_ms: 3, start_timestamp_ms: None, value: Value::Float(f64::NAN) },
        ]);
        assert_eq!(samples.len(), 3);
        assert!(samples.value(0).same_bits(&Value::Float(-0.0)));
        assert!(matches!(samples.value(1), Value::Histogram(h) if h.count == 3.0));
        assert!(samples.value(2).same_bits(&Value::Float(f64::NAN)));
        assert_eq!([0, 1, 2].map(|i| samples.start_timestamp(i)), [None, Some(1), None]);
    }
}
