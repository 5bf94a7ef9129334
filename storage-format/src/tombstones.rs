//! Deleted intervals of series.
