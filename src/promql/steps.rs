//! The times at which an expression is evaluated.

use crate::storage::Timestamp;
use std::time::Duration;

/// `start`, `start + step`, ... up to and including `end`. An instant query is one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steps {
    start_ms: i64,
    end_ms: i64,
    step_ms: i64,
}

/// Why three times are no steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StepsError {
    /// The step is zero or below a millisecond.
    #[error("zero or negative query resolution step widths are not accepted. Try a positive integer")]
    StepNotPositive,
    /// The end lies before the start.
    #[error("end timestamp must not be before start time")]
    EndBeforeStart,
}

impl Steps {
    /// Steps from `start` to `end`.
    pub fn new(start: Timestamp, end: Timestamp, step: Duration) -> Result<Steps, StepsError> {
        let step_ms = i64::try_from(step.as_millis()).unwrap_or(i64::MAX);
        if step_ms <= 0 {
            return Err(StepsError::StepNotPositive);
        }
        if end < start {
            return Err(StepsError::EndBeforeStart);
        }
        Ok(Steps { start_ms: start.as_millis(), end_ms: end.as_millis(), step_ms })
    }

    /// The one step of an instant query. Its step width counts as 0, as in Prometheus.
    pub fn instant(at: Timestamp) -> Steps {
        Steps { start_ms: at.as_millis(), end_ms: at.as_millis(), step_ms: 0 }
    }

    /// Steps given in milliseconds, for evaluations inside an evaluation. `step_ms` must not be
    /// negative, nor `end_ms` before `start_ms`.
    pub(super) fn from_millis(start_ms: i64, end_ms: i64, step_ms: i64) -> Steps {
        debug_assert!(step_ms >= 0 && start_ms <= end_ms);
        Steps { start_ms, end_ms, step_ms }
    }

    /// The first step alone, with the same width.
    pub(super) fn first(&self) -> Steps {
        Steps { end_ms: self.start_ms, ..*self }
    }

    /// The first step, in milliseconds since the epoch.
    pub fn start_ms(&self) -> i64 {
        self.start_ms
    }

    /// The end as given, in milliseconds since the epoch; the last step may lie before it.
    pub fn end_ms(&self) -> i64 {
        self.end_ms
    }

    /// The distance between steps in milliseconds; 0 for an instant.
    pub fn step_ms(&self) -> i64 {
        self.step_ms
    }

    /// How many steps there are, at least one.
    pub fn count(&self) -> usize {
        if self.step_ms == 0 {
            return 1;
        }
        let span = i128::from(self.end_ms) - i128::from(self.start_ms);
        usize::try_from(span / i128::from(self.step_ms)).unwrap_or(usize::MAX).saturating_add(1)
    }

    /// The time of step `index`, in milliseconds since the epoch.
    pub fn at(&self, index: usize) -> i64 {
        self.start_ms.saturating_add(self.step_ms.saturating_mul(index as i64))
    }

    /// The times of all steps.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = i64> + use<> {
        let steps = *self;
        (0..steps.count()).map(move |i| steps.at(i))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_a_step_only_if_it_falls_on_one() {
        let at = Timestamp::from_millis;
        let second = Duration::from_secs(1);
        let steps = Steps::new(at(0), at(2500), second).unwrap();
        assert_eq!(steps.iter().collect::<Vec<_>>(), [0, 1000, 2000]);
        assert_eq!(Steps::new(at(0), at(2000), second).unwrap().count(), 3);
        assert_eq!(Steps::instant(at(7)).iter().collect::<Vec<_>>(), [7]);
        assert_eq!(Steps::new(at(0), at(0), Duration::ZERO), Err(StepsError::StepNotPositive));
        assert_eq!(Steps::new(at(1), at(0), second), Err(StepsError::EndBeforeStart));
    }
}
