//! Dropping the metric's name, and what follows: series that become one.

use super::eval::EvalError;
use super::row::{SeriesRow, Vector};
use larum_storage_format::Labels;
use larum_storage_format::labels::METRIC_NAME;
use std::collections::HashMap;

/// The label for the type of a metric, as `type-and-unit-labels` has it.
pub(crate) const METRIC_TYPE: &str = "__type__";

/// Whether a label says what the metric is, and so goes when its values become something else.
pub(crate) fn is_metadata(name: &str) -> bool {
    name == METRIC_NAME || name == METRIC_TYPE || name == "__unit__"
}

/// The labels without the metric's name, type and unit.
pub(crate) fn without_name(labels: &Labels) -> Labels {
    labels.without(is_metadata)
}

/// The error for two values of one label set at one time.
pub(crate) fn duplicate() -> EvalError {
    EvalError::Execution("vector cannot contain metrics with the same labelset".to_owned())
}

/// Series by their labels. Those with the same labels become one, if never both have a value.
#[derive(Default)]
pub(crate) struct Merger {
    series: Vector,
    known: HashMap<Labels, usize, foldhash::fast::RandomState>,
}

impl Merger {
    /// Adds a series.
    pub(crate) fn add(&mut self, series: SeriesRow) -> Result<(), EvalError> {
        match self.known.get(&series.labels) {
            Some(&index) => {
                let into = &mut self.series[index];
                into.drop_name |= series.drop_name;
                if into.row.merge(&series.row) { Ok(()) } else { Err(duplicate()) }
            }
            None => {
                self.known.insert(series.labels.clone(), self.series.len());
                self.series.push(series);
                Ok(())
            }
        }
    }

    /// The series in the order in which they first came.
    pub(crate) fn finish(self) -> Vector {
        self.series
    }
}

/// Merges series with the same labels.
pub(crate) fn merge(vector: Vector) -> Result<Vector, EvalError> {
    let mut merger = Merger::default();
    vector.into_iter().try_for_each(|series| merger.add(series))?;
    Ok(merger.finish())
}

/// Drops at last the names that are to be dropped.
pub(crate) fn finish(mut vector: Vector) -> Result<Vector, EvalError> {
    let mut dropped = false;
    for series in vector.iter_mut().filter(|series| series.drop_name) {
        let labels = without_name(&series.labels);
        dropped |= labels != series.labels;
        series.labels = labels;
    }
    if dropped { merge(vector) } else { Ok(vector) }
}
