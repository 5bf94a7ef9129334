//! The seam between the querier and what holds samples: a head or a partition is a [`Part`].

use super::error::ReadError;
use super::matcher::Matcher;
use super::series_set::{ColumnPiece, Columns};
use super::time::TimeRange;
use larum_storage_format::{Histogram, Labels, SeriesId};
use std::sync::Arc;

/// Something that holds series and samples: the head, or one partition.
///
/// Series are addressed by a number that is meaningful within one part only.
pub(crate) trait Part: Send + Sync {
    /// The times of the samples held; `None` if there are none.
    fn time_range(&self) -> Option<TimeRange>;

    /// The series that match all `matchers`, ascending by id.
    fn select(&self, matchers: &[Matcher]) -> Vec<(SeriesId, u32)>;

    /// The labels of a selected series.
    fn labels(&self, series: u32) -> Labels;

    /// Appends the samples of a selected series in `range` to `runs`, ascending by time within a
    /// run. Runs of one part may overlap (late samples in the head); a later run then wins. What is
    /// damaged is left out and told to `damaged`.
    fn load(
        &self,
        series: u32,
        range: TimeRange,
        columns: &mut Columns,
        runs: &mut Vec<Run>,
        damaged: &mut Vec<ReadError>,
    );

    /// The label names of the series that match, unordered, possibly with repetitions.
    fn label_names(&self, matchers: &[Matcher]) -> Vec<String>;

    /// The values of label `name` among the series that match, unordered, possibly with repetitions.
    fn label_values(&self, name: &str, matchers: &[Matcher]) -> Vec<String>;
}

/// Samples of one series from one place: a slice of a timestamp column, with values.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    /// Where the timestamps come from, `part` left 0 for the querier to fill in; `None` if they
    /// are this series' own.
    pub origin: Option<ColumnPiece>,
    /// Strictly ascending, in milliseconds since the epoch.
    pub timestamps: Arc<[i64]>,
    /// One per timestamp.
    pub floats: Vec<f64>,
    /// See [`larum_storage_format::Samples::histograms`].
    pub histograms: Vec<(u32, Arc<Histogram>)>,
    /// See [`larum_storage_format::Samples::start_timestamps`].
    pub start_timestamps: Vec<i64>,
}
