//! What rules are evaluated over: a database, or whatever else holds samples.

use super::error::RuleError;
use crate::budget::{Part, Reservation};
use crate::db::Db;
use crate::storage::{Batch, Source, Timestamp};
use larum_storage_format::{Labels, Value};
use std::sync::Arc;

/// Where rules read, and where what they yield goes.
pub trait Store: Sync {
    /// What is there now. Selecting takes its memory from the reservation, if there is one.
    fn source(&self, memory: Option<&Arc<Reservation>>) -> Box<dyn Source + '_>;

    /// What a query takes its memory from; `None` if that is not limited.
    fn memory(&self) -> Option<Arc<Reservation>> {
        None
    }

    /// Stores samples of one time. A refused sample is an error that names the first.
    fn append(&self, at: Timestamp, samples: &[(Labels, Value)]) -> Result<(), RuleError>;
}

impl Store for Db {
    fn source(&self, memory: Option<&Arc<Reservation>>) -> Box<dyn Source + '_> {
        Box::new(self.view().within(memory))
    }

    fn memory(&self) -> Option<Arc<Reservation>> {
        Some(Arc::new(Db::memory(self).reservation(Part::Rules)))
    }

    fn append(&self, at: Timestamp, samples: &[(Labels, Value)]) -> Result<(), RuleError> {
        if samples.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new();
        for (labels, value) in samples {
            match value {
                Value::Float(value) => batch.push(labels, at, *value),
                Value::Histogram(histogram) => batch.push_histogram(labels, at, histogram.clone()),
            }
        }
        let refused = Db::append(self, &batch)?.refused;
        let Some(first) = refused.first() else { return Ok(()) };
        let series = batch.parse_labels(first.series as usize);
        Err(RuleError::Refused {
            count: refused.len(),
            series: series.map_or_else(|e| e.to_string(), |labels| labels.to_string()),
            reason: first.reason.to_string(),
        })
    }
}
