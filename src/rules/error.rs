//! Why a rule could not be evaluated. The texts, where Prometheus has one, are its own.

use crate::db::QueryError;
use crate::storage::AppendError;

/// Why an evaluation of a rule failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// The expression could not be evaluated.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The expression yields text or a matrix.
    #[error("rule result is not a vector or scalar")]
    NotAVector,
    /// Two alerts have one identity.
    #[error("vector contains metrics with the same labelset after applying alert labels")]
    SameAlertLabels,
    /// Two recorded series have one identity.
    #[error("vector contains metrics with the same labelset after applying rule labels")]
    SameRuleLabels,
    /// More alerts than the group's limit.
    #[error("exceeded limit of {limit} with {count} alerts")]
    TooManyAlerts {
        /// The limit.
        limit: usize,
        /// How many there are.
        count: usize,
    },
    /// More series than the group's limit.
    #[error("exceeded limit of {limit} with {count} series")]
    TooManySeries {
        /// The limit.
        limit: usize,
        /// How many there are.
        count: usize,
    },
    /// The result could not be stored now.
    #[error("storing the result failed: {0}")]
    Append(#[from] AppendError),
    /// Samples of the result were refused for good.
    #[error("{count} samples of the result were refused, the first ({series}): {reason}")]
    Refused {
        /// How many.
        count: usize,
        /// The series of the first.
        series: String,
        /// Why the first was refused.
        reason: String,
    },
}
