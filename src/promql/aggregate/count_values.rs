//! `count_values`: how often each value occurs.

use super::super::ast::Aggregate;
use super::super::eval::{EvalError, Evaluator};
use super::super::histogram;
use super::super::matching::Grouper;
use super::super::number::write_scalar_value;
use super::super::plan::Node;
use super::super::row::{Bits, Presence, Row, SeriesRow, Vector};
use super::super::steps::Steps;
use std::collections::HashMap;

/// The counts, with the value as the label `label`.
pub(super) fn evaluate(
    evaluator: &Evaluator<'_>,
    aggregate: &Aggregate,
    label: &str,
    expr: &Node<'_>,
    steps: &Steps,
) -> Result<Vector, EvalError> {
    if label.is_empty() {
        return Err(EvalError::Execution("invalid label name \"\"".to_owned()));
    }
    let mut names = aggregate.grouping.clone();
    if !aggregate.without {
        names.push(label.to_owned());
    }
    let mut grouper = Grouper::new(names, aggregate.without);
    let count = steps.count();
    let eager = !evaluator.options.delayed_name_removal;
    let mut counts: Vec<(Vec<f64>, Bits)> = Vec::new();
    evaluator.each_series(expr, steps, &mut |series| {
        let builder = series.labels.to_builder();
        // A series repeats its values; the group of each is looked up once.
        let mut known: HashMap<u64, usize> = HashMap::new();
        let mut result = Ok(());
        let mut group_of = |text: &str| {
            let labels = builder.clone().set(label, text).build();
            grouper.group(&labels, eager && series.drop_name)
        };
        let mut counted = |step: usize, group: usize| {
            if group == counts.len() {
                counts.push((vec![0.0; count], Bits::none(count)));
                result =
                    std::mem::replace(&mut result, Ok(())).and(evaluator.budget.hold(count as u64).map(drop));
            }
            counts[group].0[step] += 1.0;
            counts[group].1.set(step);
        };
        series.row.present.for_each(count, |step| {
            let value = series.row.floats[step];
            let group = *known.entry(value.to_bits()).or_insert_with(|| {
                let mut text = String::new();
                let _ = write_scalar_value(&mut text, value);
                group_of(&text)
            });
            counted(step, group);
        });
        for (step, histogram) in &series.row.histograms {
            counted(*step as usize, group_of(&histogram::text(histogram)));
        }
        result
    })?;
    let series = counts.into_iter().zip(grouper.labels).map(|((floats, bits), labels)| {
        let row = Row { floats, present: Presence::from_bits(&bits, count), histograms: Vec::new() };
        SeriesRow { labels, drop_name: false, row }
    });
    Ok(series.collect())
}
