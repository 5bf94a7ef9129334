//! Evaluation: an expression over steps to a value.

use super::ast::Expr;
use super::steps::Steps;
use super::value::Answer;
use crate::storage::{ReadError, Source};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// How an expression is evaluated. The defaults are the server's.
#[derive(Debug, Clone)]
pub struct EvalOptions {
    /// How long a sample counts as present where there is none newer (`--query.lookback-delta`).
    pub lookback_delta: Duration,
    /// The most samples held at one time (`--query.max-samples`).
    pub max_samples: u64,
    /// When to give up.
    pub deadline: Option<Instant>,
    /// Set by somebody else to stop the evaluation.
    pub cancel: Option<Arc<AtomicBool>>,
    /// The step of subqueries without one: the global evaluation interval.
    pub default_subquery_step: Duration,
    /// `promql-delayed-name-removal`: drop `__name__` at the end rather than at once.
    pub delayed_name_removal: bool,
    /// `use-start-timestamps`: rates know when counters began.
    pub use_start_timestamps: bool,
}

impl Default for EvalOptions {
    fn default() -> EvalOptions {
        EvalOptions {
            lookback_delta: Duration::from_secs(5 * 60),
            max_samples: 50_000_000,
            deadline: None,
            cancel: None,
            default_subquery_step: Duration::from_secs(60),
            delayed_name_removal: false,
            use_start_timestamps: false,
        }
    }
}

/// Why an evaluation failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// The query cannot be answered (many-to-many matching, invalid arguments); upstream's text.
    #[error("{0}")]
    Execution(String),
    /// More samples than allowed.
    #[error("query processing would load too many samples into memory in query execution")]
    TooManySamples,
    /// The deadline passed.
    #[error("query timed out in expression evaluation")]
    Timeout,
    /// Somebody stopped it.
    #[error("query was canceled in expression evaluation")]
    Canceled,
    /// The data could not be read.
    #[error(transparent)]
    Storage(#[from] ReadError),
}

/// Evaluates a checked expression at every step.
///
/// An instant query (one step, width 0) yields whatever type the expression has; a range query
/// yields a matrix, and takes only scalar and vector expressions.
pub fn evaluate(
    expr: &Expr,
    source: &dyn Source,
    steps: Steps,
    options: &EvalOptions,
) -> Result<Answer, EvalError> {
    let _ = (expr, source, steps, options);
    todo!()
}
