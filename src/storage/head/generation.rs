//! A generation: all samples appended between two switches of the WAL.

use crate::storage::matcher::Matcher;
use crate::storage::part::{Load, Part};
use crate::storage::series_set::Columns;
use crate::storage::time::TimeRange;
use larum_storage_format::{Labels, Samples, SeriesId};

/// The samples appended in one generation. It lives as long as somebody holds it.
pub(crate) struct Generation {}

impl Generation {
    /// Its number; the WAL is needed from the next number on once this one is in partitions.
    pub fn number(&self) -> u64 {
        todo!()
    }

    /// How many samples were appended, no-ops included.
    pub fn appended(&self) -> u64 {
        todo!()
    }

    /// The series with samples in this generation, ascending by id.
    pub fn series(&self) -> Vec<(SeriesId, u32)> {
        todo!()
    }

    /// All samples of a series, merged, one per timestamp. Series of one scrape group that were
    /// sampled at the same times share their column of timestamps through `columns`.
    pub fn samples(&self, series: u32, columns: &mut Columns) -> Samples {
        let _ = (series, columns);
        todo!()
    }
}

impl Part for Generation {
    fn time_range(&self) -> Option<TimeRange> {
        todo!()
    }

    fn select(&self, _matchers: &[Matcher]) -> Vec<(SeriesId, u32)> {
        todo!()
    }

    fn labels(&self, _series: u32) -> Labels {
        todo!()
    }

    fn load(&self, _series: u32, _load: &mut Load<'_>) {
        todo!()
    }

    fn label_names(&self, _matchers: &[Matcher]) -> Vec<String> {
        todo!()
    }

    fn label_values(&self, _name: &str, _matchers: &[Matcher]) -> Vec<String> {
        todo!()
    }
}
