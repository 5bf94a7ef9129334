//! Points and ranges of time.

use std::fmt;
use std::time::Duration;

/// Milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The timestamp `ms` milliseconds after the epoch (before it, if negative).
    pub const fn from_millis(ms: i64) -> Timestamp {
        Timestamp(ms)
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// The present time of the operating system.
    pub fn now() -> Timestamp {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Timestamp(since_epoch.map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}

/// A length in milliseconds; one that is too long for them is as good as endless.
pub(crate) fn as_millis(length: Duration) -> i64 {
    i64::try_from(length.as_millis()).unwrap_or(i64::MAX)
}

/// From `min_ms` to `max_ms`, both included, in milliseconds since the epoch. Empty if `min_ms > max_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeRange {
    /// The first millisecond in the range.
    pub min_ms: i64,
    /// The last millisecond in the range.
    pub max_ms: i64,
}

impl TimeRange {
    /// All of time.
    pub const ALL: TimeRange = TimeRange { min_ms: i64::MIN, max_ms: i64::MAX };

    /// From `min_ms` to `max_ms`, both included.
    pub const fn new(min_ms: i64, max_ms: i64) -> TimeRange {
        TimeRange { min_ms, max_ms }
    }

    /// Whether `t_ms` lies in the range.
    pub const fn contains(&self, t_ms: i64) -> bool {
        self.min_ms <= t_ms && t_ms <= self.max_ms
    }

    /// Whether the two share a millisecond.
    pub const fn overlaps(&self, other: &TimeRange) -> bool {
        self.min_ms <= other.max_ms && other.min_ms <= self.max_ms
    }

    /// What both contain.
    pub fn intersect(&self, other: &TimeRange) -> TimeRange {
        TimeRange { min_ms: self.min_ms.max(other.min_ms), max_ms: self.max_ms.min(other.max_ms) }
    }

    /// The shortest range that contains both, of which neither is empty.
    pub fn hull(&self, other: &TimeRange) -> TimeRange {
        TimeRange { min_ms: self.min_ms.min(other.min_ms), max_ms: self.max_ms.max(other.max_ms) }
    }

    /// Whether no millisecond lies in the range.
    pub const fn is_empty(&self) -> bool {
        self.min_ms > self.max_ms
    }
}
