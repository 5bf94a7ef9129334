//! The seam between the querier and what holds samples: a head or a partition is a part.

use super::error::ReadError;
use super::label_sets::LabelSets;
use super::matcher::Matcher;
use super::policy::{Policies, PolicySets};
use super::series_set::{ColumnPiece, Columns, Newest, ReadCost};
use super::time::TimeRange;
use larum_storage_format::tombstones::Interval;
use larum_storage_format::{Histogram, Labels, Samples, SeriesId};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Something that holds series and samples: the head, or one partition.
///
/// Series are addressed by a number that is meaningful within one part only.
pub(crate) trait Part: Send + Sync {
    /// The times of the samples held; `None` if there are none.
    fn time_range(&self) -> Option<TimeRange>;

    /// The series that match all `matchers`, in any order. What their labels are read from was found
    /// intact.
    ///
    /// # Errors
    /// The index is damaged where it would have to be read.
    fn select(&self, matchers: &[Matcher]) -> Result<Vec<(SeriesId, u32)>, ReadError>;

    /// Which policy keeps which series. Worked out once as long as the policies stay the same.
    ///
    /// # Errors
    /// As [`Part::select`].
    fn policy_sets(&self, policies: &Arc<Policies>) -> Result<Arc<PolicySets>, ReadError>;

    /// Adds the labels of selected series, which ascend, to `out`.
    fn label_sets(&self, series: &mut dyn Iterator<Item = u32>, out: &mut LabelSets);

    /// Reads the labels of selected series, those of neighbours one after the other fastest: all of
    /// them, or those `among` some names, which ascend. A set that many series have is then put together
    /// once.
    fn label_reader<'a>(&'a self, among: Option<&[String]>) -> PartLabels<'a>;

    /// Appends the samples of a selected series to `load.runs`, ascending by time within a run. Runs
    /// of one part may overlap (late samples in the head); a later run then wins. What is damaged is
    /// left out and told to `load.damaged`.
    fn load(&self, series: u32, load: &mut Load<'_>);

    /// Adds what [`Part::load`] would have to read of a selected series. What is damaged costs nothing.
    fn add_cost(&self, series: u32, load: &mut Load<'_>, cost: &mut ReadCost) {
        let known = load.runs.len();
        self.load(series, load);
        let samples = load.runs.drain(known..).map(|run| run.timestamps.len()).sum();
        cost.add(&ReadCost::in_memory(samples));
    }

    /// Appends to `newest` what is known of the newest samples in `range` of selected series, one each.
    /// `part` is the number of the part within the reader's view.
    fn newest(
        &self,
        part: u32,
        series: &[u32],
        range: TimeRange,
        columns: &mut Columns,
        newest: &mut Vec<Newest>,
    );

    /// Of the samples of a selected series in `range`, how many are in none of the `deleted`
    /// intervals, which ascend. Those count whose values are damaged.
    ///
    /// # Errors
    /// Not all of their times can be read.
    fn count_left(
        &self,
        series: u32,
        deleted: &[Interval],
        range: TimeRange,
        columns: &mut Columns,
    ) -> Result<u64, ReadError>;

    /// Whether there are any; or may be, being damaged.
    fn is_left(&self, series: u32, deleted: &[Interval], range: TimeRange, columns: &mut Columns) -> bool {
        self.count_left(series, deleted, range, columns).map_or(true, |count| count > 0)
    }

    /// The label names of the series that match, unordered, possibly with repetitions.
    ///
    /// # Errors
    /// As [`Part::select`].
    fn label_names(&self, matchers: &[Matcher]) -> Result<Vec<String>, ReadError>;

    /// The values of label `name` among the series that match, unordered, possibly with repetitions.
    ///
    /// # Errors
    /// As [`Part::select`].
    fn label_values(&self, name: &str, matchers: &[Matcher]) -> Result<Vec<String>, ReadError>;
}

/// Whether a time lies in one of the intervals, which ascend.
pub(crate) fn is_deleted(deleted: &[Interval], t_ms: i64) -> bool {
    let at = deleted.partition_point(|interval| interval.max_ms < t_ms);
    deleted.get(at).is_some_and(|interval| interval.min_ms <= t_ms)
}

/// See [`Part::label_reader`].
pub(crate) type PartLabels<'a> = Box<dyn FnMut(u32) -> Labels + 'a>;

/// Label sets of chosen names that a reader has put together, by what tells their values apart in
/// the part.
#[derive(Default)]
pub(crate) struct LabelsAmong {
    known: HashMap<Box<[u32]>, Labels, foldhash::fast::RandomState>,
    /// The next series mostly has the same.
    last: Option<(Box<[u32]>, Labels)>,
}

impl LabelsAmong {
    /// Forgets the sets.
    pub fn forget(&mut self) {
        *self = LabelsAmong::default();
    }

    /// The set of these values, made by `make` if it is the first time.
    pub fn get(&mut self, values: &[u32], make: impl FnOnce() -> Labels) -> Labels {
        if let Some((last, labels)) = &self.last
            && **last == *values
        {
            return labels.clone();
        }
        let labels = match self.known.get(values) {
            Some(known) => known.clone(),
            None => {
                let labels = make();
                self.known.insert(values.into(), labels.clone());
                labels
            }
        };
        match &mut self.last {
            Some((last, known)) if last.len() == values.len() => {
                last.copy_from_slice(values);
                *known = labels.clone();
            }
            last => *last = Some((values.into(), labels.clone())),
        }
        labels
    }
}

/// A histogram takes about as much room as so many floats.
const HISTOGRAM_SAMPLES: usize = 32;

/// What a reader wants of the series it loads, and what it gets.
pub(crate) struct Load<'a> {
    /// The number of the part within the reader's view, for [`ColumnPiece::part`].
    pub part: u32,
    /// Only samples in this range.
    pub range: TimeRange,
    /// Of these only the newest is wanted: a part may leave out any that it holds a newer one of.
    pub newest_only: bool,
    /// The timestamp columns that the reader met so far.
    pub columns: &'a mut Columns,
    /// The samples.
    pub runs: Vec<Run>,
    /// What could not be read.
    pub damaged: Vec<ReadError>,
    /// How many samples more may be loaded. What is loaded then is incomplete.
    pub room: usize,
}

impl<'a> Load<'a> {
    /// Nothing loaded yet, nothing found damaged.
    pub fn new(range: TimeRange, columns: &'a mut Columns) -> Load<'a> {
        let room = columns.most_samples();
        Load { part: 0, range, newest_only: false, columns, runs: Vec::new(), damaged: Vec::new(), room }
    }

    /// Adds a run, as long as there is room; tells whether there is still some.
    pub fn push(&mut self, run: Run) -> bool {
        // A histogram takes many times as much as a float.
        self.room = self.room.saturating_sub(run.timestamps.len() + HISTOGRAM_SAMPLES * run.histograms.len());
        self.runs.push(run);
        self.room > 0
    }
}

/// Samples of one series from one place: a slice of a timestamp column, with values.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    /// Where the timestamps come from; `None` if they are this series' own.
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

impl Run {
    /// The first timestamp.
    ///
    /// # Panics
    /// If the run is empty.
    pub fn first(&self) -> i64 {
        self.timestamps[0]
    }

    /// The last timestamp.
    ///
    /// # Panics
    /// If the run is empty.
    pub fn last(&self) -> i64 {
        self.timestamps[self.timestamps.len() - 1]
    }

    /// The same as samples.
    pub fn into_samples(self) -> Samples {
        Samples {
            timestamps: self.timestamps,
            floats: self.floats,
            histograms: self.histograms,
            start_timestamps: self.start_timestamps,
        }
    }

    /// A part of the run; `None` if it is empty.
    pub fn slice(&self, range: Range<usize>, columns: &mut Columns) -> Option<Run> {
        if range.is_empty() {
            return None;
        }
        let origin = self.origin.map(|whole| ColumnPiece {
            start: whole.start + range.start as u32,
            len: range.len() as u32,
            ..whole
        });
        let timestamps = match origin {
            Some(piece) => columns.shared(&[piece], || self.timestamps[range.clone()].to_vec()),
            None => self.timestamps[range.clone()].into(),
        };
        let inside = |(i, _): &&(u32, Arc<_>)| range.contains(&(*i as usize));
        let histograms = self.histograms.iter().filter(inside);
        Some(Run {
            origin,
            timestamps,
            floats: self.floats[range.clone()].to_vec(),
            histograms: histograms.map(|(i, h)| (i - range.start as u32, h.clone())).collect(),
            start_timestamps: self.start_timestamps.get(range.clone()).unwrap_or_default().to_vec(),
        })
    }
}
