//! Between scalars and vectors, and what is there at all: `scalar`, `vector`, `absent`,
//! `absent_over_time`, `timestamp`.

use super::super::ast::{Expr, ExprKind};
use super::super::eval::{EvalError, Operand, Site};
use super::super::plan::Kind;
use super::super::row::{Bits, Presence, Row, SeriesRow};
use super::super::selector::{self, Time};
use super::super::{merge, window};
use super::over_time;
use crate::storage::{MatchOp, Matcher};
use larum_storage_format::labels::METRIC_NAME;
use larum_storage_format::{Labels, LabelsBuilder};

type Outcome = Result<Operand, EvalError>;

/// `vector(s)`
pub(super) fn vector(_: &Site<'_, '_>, args: Vec<Operand>) -> Outcome {
    let rows = args.into_iter().map(|arg| Row::full(arg.scalar()));
    let series = rows.map(|row| SeriesRow { labels: Labels::empty(), drop_name: false, row });
    Ok(Operand::Vector(series.collect()))
}

/// `scalar(v)`: the value of the only float at the step, else NaN.
pub(super) fn scalar(site: &Site<'_, '_>, args: Vec<Operand>) -> Outcome {
    let count = site.steps.count();
    let mut seen = Bits::none(count);
    let mut out = vec![f64::NAN; count];
    for series in args.into_iter().flat_map(Operand::vector) {
        series.row.present.for_each(count, |i| {
            out[i] = if seen.get(i) { f64::NAN } else { series.row.floats[i] };
            seen.set(i);
        });
    }
    Ok(Operand::Scalar(out))
}

/// `absent(v)`. Once there is something at every step, no more is read; but of what is computed all is,
/// for there may be more to tell of it.
pub(super) fn absent(site: &Site<'_, '_>) -> Outcome {
    let count = site.steps.count();
    let mut seen = Bits::none(count);
    let mut is_enough = false;
    let is_read = matches!(site.args[0].kind, Kind::Selector(_));
    let outcome = site.evaluator.each_series(&site.args[0], &site.steps, &mut |series| {
        seen.add_row(&series.row);
        is_enough = is_read && matches!(Presence::from_bits(&seen, count), Presence::All);
        if is_enough { Err(EvalError::Canceled) } else { Ok(()) }
    });
    if !is_enough {
        outcome?;
    }
    Ok(missing(site, &seen))
}

/// `absent_over_time(m)`
pub(super) fn absent_over_time(site: &Site<'_, '_>) -> Outcome {
    let mut seen = Bits::none(site.steps.count());
    let work = window::Work::windows(over_time::present);
    window::over_windows(site.evaluator, work, site.args, &site.steps, &mut |series| {
        seen.add_row(&series.row);
        Ok(())
    })?;
    Ok(missing(site, &seen))
}

/// 1 at every step that was not seen.
fn missing(site: &Site<'_, '_>, seen: &Bits) -> Operand {
    let count = site.steps.count();
    let mut bits = Bits::none(count);
    (0..count).filter(|i| !seen.get(*i)).for_each(|i| bits.set(i));
    let row = Row { present: Presence::from_bits(&bits, count), ..Row::full(vec![1.0; count]) };
    if row.points() == 0 {
        return Operand::Vector(Vec::new());
    }
    let labels = site.call.args.first().map_or_else(Labels::empty, known_labels);
    Operand::Vector(vec![SeriesRow { labels, drop_name: false, row }])
}

/// The labels that whatever a selector could have selected would have had: those that it names
/// once, with `=`.
fn known_labels(arg: &Expr) -> Labels {
    let matchers: &[Matcher] = match &arg.kind {
        ExprKind::Paren(inner) => return known_labels(inner),
        ExprKind::VectorSelector(selector) => &selector.matchers,
        ExprKind::MatrixSelector(matrix) => &matrix.selector.matchers,
        _ => &[],
    };
    let mut builder = LabelsBuilder::new();
    let mut known: Vec<&str> = Vec::new();
    for matcher in matchers.iter().filter(|m| m.name() != METRIC_NAME) {
        if matcher.op() == MatchOp::Equal && !known.contains(&matcher.name()) {
            builder.set(matcher.name(), matcher.value());
            known.push(matcher.name());
        } else {
            builder.remove(matcher.name());
        }
    }
    builder.build()
}

/// `start_timestamp(v)`: since when the sample counts, 0 if that is unknown. Nothing unless `v` is a
/// selector, as only samples know, and unless start timestamps are used.
pub(super) fn start_timestamp(site: &Site<'_, '_>) -> Outcome {
    let selector = match &site.args[0].kind {
        Kind::Selector(selector) if site.evaluator.options.use_start_timestamps => selector,
        _ => return Ok(Operand::Vector(Vec::new())),
    };
    let eager = !site.evaluator.options.delayed_name_removal;
    let mut vector = Vec::new();
    selector::each_time(site.evaluator, selector, Time::Start, &site.steps, &mut |series| {
        site.evaluator.budget.hold(series.row.len() as u64)?;
        let labels = if eager { merge::without_name(&series.labels) } else { series.labels.clone() };
        vector.push(SeriesRow { labels, drop_name: true, row: series.row.clone() });
        Ok(())
    })?;
    Ok(Operand::Vector(if eager { merge::merge(vector)? } else { vector }))
}

/// `timestamp(v)`: when the sample was taken if `v` is a selector, else the time of the step.
pub(super) fn timestamp(site: &Site<'_, '_>) -> Outcome {
    let eager = !site.evaluator.options.delayed_name_removal;
    let mut vector = Vec::new();
    let mut take = |series: &mut SeriesRow| {
        site.evaluator.budget.hold(series.row.len() as u64)?;
        let labels = if eager { merge::without_name(&series.labels) } else { series.labels.clone() };
        vector.push(SeriesRow { labels, drop_name: true, row: series.row.clone() });
        Ok(())
    };
    match &site.args[0].kind {
        Kind::Selector(selector) => {
            selector::each_time(site.evaluator, selector, Time::Sampled, &site.steps, &mut take)?;
        }
        _ => site.evaluator.each_series(&site.args[0], &site.steps, &mut |series| {
            let mut bits = Bits::none(series.row.len());
            bits.add_row(&series.row);
            series.row.present = Presence::from_bits(&bits, series.row.len());
            series.row.histograms.clear();
            series.row.map(|i, _| site.steps.at(i) as f64 / 1000.0);
            take(series)
        })?,
    }
    Ok(Operand::Vector(if eager { merge::merge(vector)? } else { vector }))
}
