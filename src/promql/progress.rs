//! How far an evaluation is, for others to look at while it runs; and how they end it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Shared between an evaluation and who watches it. The evaluation tells of its progress every few dozen
/// series, so that this costs nothing.
#[derive(Debug, Default)]
pub struct Progress {
    series: AtomicU64,
    samples: AtomicU64,
    canceled: OnceLock<String>,
}

impl Progress {
    /// Series read so far, each as often as it was read.
    pub fn series(&self) -> u64 {
        self.series.load(Relaxed)
    }

    /// Samples read so far.
    pub fn samples(&self) -> u64 {
        self.samples.load(Relaxed)
    }

    /// Ends the evaluation soon, with an error that says `why`; `false` if somebody did before.
    pub fn cancel(&self, why: impl Into<String>) -> bool {
        self.canceled.set(why.into()).is_ok()
    }

    /// Why it was ended by somebody, if it was.
    pub fn canceled(&self) -> Option<&str> {
        self.canceled.get().map(String::as_str)
    }

    pub(crate) fn add(&self, series: u64, samples: u64) {
        self.series.fetch_add(series, Relaxed);
        self.samples.fetch_add(samples, Relaxed);
    }
}
