//! Import of what others stored: text and blocks become batches, which go the way of every write, into
//! a folder or to a server that runs. So memory is bounded as for writes, old samples are cut into
//! partitions of their days, and what is imported twice is merged away.

mod blocks;
mod target;
mod text;

pub use blocks::{Blocks, import_blocks};
pub use target::{FolderTarget, ServerTarget, Target};
pub use text::open_metrics;

use super::refusals::Refusals;
use crate::ingest::open_metrics::TextError;
use crate::storage::AppendError;
use std::io;

/// So many samples go into a batch; histograms count for their buckets.
const BATCH_SAMPLES: usize = 64 << 10;

/// So many faults of blocks are told.
const FAULTS_TOLD: usize = 10;

/// An import could not go on. What was imported before is kept, and importing it again is harmless.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The text is wrong.
    #[error("{0}")]
    Text(#[from] TextError),
    /// The source cannot be read.
    #[error("{0}")]
    Source(#[from] io::Error),
    /// The samples cannot be stored now.
    #[error("{0}")]
    Append(#[from] AppendError),
    /// The server to which they go refuses them, or does not answer.
    #[error("{0}")]
    Server(String),
}

/// What came of an import, so far.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    /// Samples that were stored, those included that were there already.
    pub samples: u64,
    /// Samples that were refused.
    pub refusals: Refusals,
    /// Exemplars, none of which is kept.
    pub exemplars: u64,
    /// Samples that had been deleted where they come from.
    pub deleted: u64,
    /// Chunks and series that are damaged or of an unknown kind.
    pub faults: u64,
    /// The first of them, in words.
    pub faults_told: Vec<String>,
}

impl Totals {
    fn fault(&mut self, what: String) {
        self.faults += 1;
        if self.faults_told.len() < FAULTS_TOLD {
            self.faults_told.push(what);
        }
    }

    /// Whether everything there was is stored now.
    pub fn is_complete(&self) -> bool {
        self.refusals.total() == 0 && self.faults == 0
    }
}

/// Is told how far an import is, between 0 and 1 where that is known.
pub type OnProgress<'a> = &'a mut dyn FnMut(&Totals, Option<f64>);
