//! Subqueries: an expression evaluated at steps of its own, whose values are then taken for
//! samples.

use super::eval::{EvalError, Evaluator};
use super::plan::Subquery;
use super::row::{Presence, SeriesRow};
use super::steps::Steps;
use super::window::RangeSeries;
use larum_storage_format::{CounterResetHint, Histogram};
use std::sync::Arc;

/// The steps at which the inner expression is evaluated: all multiples of its step, counted from
/// the epoch, that lie in a window of some outer step. `None` if there is none.
pub(super) fn inner_steps(subquery: &Subquery<'_>, steps: &Steps) -> Option<Steps> {
    let first_ms = subquery.place.time(steps.start_ms()).saturating_sub(subquery.range_ms);
    let end_ms = subquery.place.time(steps.at(steps.count() - 1));
    let step_ms = subquery.step_ms;
    // Windows are open to the left, so a multiple that lies on the border is out.
    let start_ms = first_ms.div_euclid(step_ms).checked_add(1)?.checked_mul(step_ms)?;
    (start_ms <= end_ms).then(|| Steps::from_millis(start_ms, end_ms, step_ms))
}

/// Gives the series of a subquery to `f` one by one.
pub(crate) fn each_series(
    evaluator: &Evaluator<'_>,
    subquery: &Subquery<'_>,
    steps: &Steps,
    f: &mut dyn FnMut(RangeSeries) -> Result<(), EvalError>,
) -> Result<(), EvalError> {
    let Some(inner) = inner_steps(subquery, steps) else { return Ok(()) };
    evaluator.budget.check_steps(&inner)?;
    let before = evaluator.budget.held();
    let vector = evaluator.counter.muted(|| evaluator.vector(&subquery.expr, &inner))?;
    let held = evaluator.budget.since(before);
    let times_ms: Arc<[i64]> = inner.iter().collect();
    for series in vector {
        f(range_series(series, &inner, &times_ms))?;
    }
    evaluator.budget.release(held);
    Ok(())
}

fn range_series(series: SeriesRow, steps: &Steps, all_ms: &Arc<[i64]>) -> RangeSeries {
    let SeriesRow { labels, drop_name, row } = series;
    let (times_ms, floats) = match &row.present {
        Presence::All => (all_ms.clone(), row.floats),
        present => {
            let mut times_ms = Vec::new();
            let mut floats = Vec::new();
            present.for_each(row.floats.len(), |i| {
                times_ms.push(steps.at(i));
                floats.push(row.floats[i]);
            });
            (times_ms.into(), floats)
        }
    };
    RangeSeries {
        labels,
        drop_name,
        times_ms,
        floats,
        starts_ms: Vec::new(),
        histogram_times_ms: row.histograms.iter().map(|(step, _)| steps.at(*step as usize)).collect(),
        histogram_starts_ms: Vec::new(),
        histograms: row.histograms.into_iter().map(|(_, histogram)| without_hint(histogram)).collect(),
    }
}

/// What a histogram says about a counter reset before it does not hold any more once a subquery
/// has left samples out or has repeated them.
fn without_hint(histogram: Arc<Histogram>) -> Arc<Histogram> {
    match histogram.counter_reset_hint {
        CounterResetHint::CounterReset | CounterResetHint::NotCounterReset => Arc::new(Histogram {
            counter_reset_hint: CounterResetHint::Unknown,
            ..Histogram::clone(&histogram)
        }),
        CounterResetHint::Unknown | CounterResetHint::Gauge => histogram,
    }
}
