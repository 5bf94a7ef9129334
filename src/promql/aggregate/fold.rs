//! What a group keeps per step while rows are folded into it.

use super::super::ast::AggregateOp;
use super::super::functions::over_time::quantile_of;
use super::super::histogram::{self, Combined, HistogramSum, Incompatible};
use super::super::kahan::{self, Mean};
use super::super::limits::Held;
use super::super::row::{Bits, Presence, Row};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The columns of one group.
pub(super) struct Group {
    /// Whether a series in it has a name that is still to be dropped.
    pub(super) drop_name: bool,
    /// The steps at which a float was seen.
    floats: Bits,
    /// The steps at which a histogram was seen, with those to be added up.
    histograms: BTreeMap<u32, HistogramSum>,
    columns: Columns,
    len: usize,
    grown: Held,
}

/// The state of an aggregation, a column per figure.
enum Columns {
    /// Sum and compensation.
    Sum(Vec<f64>, Vec<f64>),
    Mean(Vec<Mean>),
    Min(Vec<f64>),
    Max(Vec<f64>),
    Count(Vec<f64>),
    /// Only whether there is anything.
    Group,
    Variance {
        state: Vec<Variance>,
        root: bool,
    },
    Quantile(Vec<Vec<f64>>),
}

/// The variance of the numbers seen so far, by Welford's method.
#[derive(Clone, Copy)]
struct Variance {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Variance {
    fn add(&mut self, v: f64) {
        self.count += 1.0;
        if self.count == 1.0 {
            self.mean = v;
            self.squares = if v.is_finite() { 0.0 } else { f64::NAN };
            return;
        }
        let delta = v - self.mean;
        self.mean += delta / self.count;
        self.squares += delta * (v - self.mean);
    }
}

/// What there is to say about a sum of histograms.
pub(super) struct Note {
    pub(super) hints_clash: bool,
    pub(super) bounds_reconciled: bool,
    /// The buckets do not go together, so there is no value.
    pub(super) incompatible: bool,
}

/// What became of a group.
pub(super) struct Finished {
    /// Its values.
    pub(super) row: Row,
    /// Whether floats and histograms met at some step, which then has no value.
    pub(super) mixed: bool,
    /// One for each step with a sum of histograms.
    pub(super) notes: Vec<Note>,
}

impl Group {
    /// An empty group over `len` steps.
    pub(super) fn new(op: AggregateOp, len: usize) -> Group {
        let columns = match op {
            AggregateOp::Sum => Columns::Sum(vec![0.0; len], vec![0.0; len]),
            AggregateOp::Avg => Columns::Mean(vec![Mean::EMPTY; len]),
            AggregateOp::Min => Columns::Min(vec![f64::NAN; len]),
            AggregateOp::Max => Columns::Max(vec![f64::NAN; len]),
            AggregateOp::Count => Columns::Count(vec![0.0; len]),
            AggregateOp::Stddev | AggregateOp::Stdvar => {
                let state = vec![Variance { count: 0.0, mean: 0.0, squares: 0.0 }; len];
                Columns::Variance { state, root: op == AggregateOp::Stddev }
            }
            AggregateOp::Quantile => Columns::Quantile(vec![Vec::new(); len]),
            _ => Columns::Group,
        };
        Group {
            drop_name: false,
            floats: Bits::none(len),
            histograms: BTreeMap::new(),
            columns,
            len,
            grown: Held::default(),
        }
    }

    /// About what an empty group over `len` steps takes, with its labels.
    pub(super) fn new_bytes(op: AggregateOp, len: usize) -> u64 {
        let each = match op {
            AggregateOp::Sum => 2 * size_of::<f64>(),
            AggregateOp::Avg => size_of::<Mean>(),
            AggregateOp::Stddev | AggregateOp::Stdvar => size_of::<Variance>(),
            AggregateOp::Quantile => size_of::<Vec<f64>>(),
            _ => size_of::<f64>(),
        };
        (len * each + len / 8) as u64 + Held::row(0).bytes
    }

    /// What is held more than before.
    pub(super) fn grown(&mut self) -> Held {
        std::mem::take(&mut self.grown)
    }

    /// Folds a row in. False if it holds histograms and these are ignored.
    pub(super) fn add(&mut self, row: &Row) -> bool {
        self.floats.add_floats(row);
        match &mut self.columns {
            Columns::Sum(sums, compensations) => match row.present {
                Presence::All => {
                    for ((sum, c), v) in sums.iter_mut().zip(compensations).zip(&row.floats) {
                        (*sum, *c) = kahan::add(*v, *sum, *c);
                    }
                }
                Presence::Bits(_) => row.present.for_each(self.len, |i| {
                    (sums[i], compensations[i]) = kahan::add(row.floats[i], sums[i], compensations[i]);
                }),
            },
            Columns::Mean(means) => row.present.for_each(self.len, |i| means[i].add(row.floats[i])),
            Columns::Min(out) => row.present.for_each(self.len, |i| {
                if out[i] > row.floats[i] || out[i].is_nan() {
                    out[i] = row.floats[i];
                }
            }),
            Columns::Max(out) => row.present.for_each(self.len, |i| {
                if out[i] < row.floats[i] || out[i].is_nan() {
                    out[i] = row.floats[i];
                }
            }),
            Columns::Count(counts) => {
                row.present.for_each(self.len, |i| counts[i] += 1.0);
                row.histograms.iter().for_each(|(step, _)| counts[*step as usize] += 1.0);
            }
            Columns::Group => {}
            Columns::Variance { state, .. } => {
                row.present.for_each(self.len, |i| state[i].add(row.floats[i]));
            }
            Columns::Quantile(values) => row.present.for_each(self.len, |i| {
                let before = values[i].capacity();
                values[i].push(row.floats[i]);
                self.grown.samples += 1;
                self.grown.bytes += ((values[i].capacity() - before) * size_of::<f64>()) as u64;
            }),
        }
        let sums = matches!(self.columns, Columns::Sum(..) | Columns::Mean(_));
        let taken = sums || matches!(self.columns, Columns::Count(_) | Columns::Group);
        for (step, histogram) in row.histograms.iter().filter(|_| taken) {
            let known = self.histograms.entry(*step).or_insert_with(|| {
                self.grown.bytes += histogram.memory_bytes() as u64 + 64;
                HistogramSum::default()
            });
            if sums {
                self.grown.samples += 1;
                known.add(histogram);
            }
        }
        taken || row.histograms.is_empty()
    }

    /// The values, with the parameter of each step.
    pub(super) fn finish(self, params: &[f64]) -> Finished {
        let Group { mut floats, histograms, columns, len, .. } = self;
        let mean = matches!(columns, Columns::Mean(_));
        let sums = mean || matches!(columns, Columns::Sum(..));
        let mut mixed = false;
        let mut notes = Vec::new();
        let mut kept = Vec::new();
        for (step, sum) in histograms {
            let i = step as usize;
            if !sums {
                floats.set(i);
            } else if floats.get(i) {
                floats.unset(i);
                mixed = true;
            } else {
                match sum.finish(mean) {
                    Ok(combined) => {
                        let Combined { histogram, hints_clash, bounds_reconciled } = combined;
                        notes.push(Note { hints_clash, bounds_reconciled, incompatible: false });
                        kept.push((step, Arc::new(histogram::compacted(&histogram))));
                    }
                    Err(Incompatible) => {
                        notes.push(Note { hints_clash: false, bounds_reconciled: false, incompatible: true });
                    }
                }
            }
        }
        let values = match columns {
            Columns::Sum(mut sums, compensations) => {
                sums.iter_mut().zip(&compensations).for_each(|(sum, c)| *sum += c);
                sums
            }
            Columns::Mean(means) => means.iter().map(Mean::mean).collect(),
            Columns::Min(values) | Columns::Max(values) | Columns::Count(values) => values,
            Columns::Group => vec![1.0; len],
            Columns::Variance { state, root } => {
                let variance = |v: &Variance| v.squares / v.count;
                state.iter().map(|v| if root { variance(v).sqrt() } else { variance(v) }).collect()
            }
            Columns::Quantile(values) => {
                values.into_iter().zip(params).map(|(mut values, q)| quantile_of(*q, &mut values)).collect()
            }
        };
        let present = Presence::from_bits(&floats, len);
        Finished { row: Row { floats: values, present, histograms: kept }, mixed, notes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(op: AggregateOp, rows: &[&[f64]]) -> Vec<f64> {
        let mut group = Group::new(op, rows[0].len());
        rows.iter().for_each(|row| assert!(group.add(&Row::full(row.to_vec()))));
        group.finish(&[0.5, 0.5]).row.floats
    }

    #[test]
    fn columns_are_folded_step_by_step() {
        let rows: [&[f64]; 3] = [&[1.0, 1e100], &[f64::NAN, 3.0], &[5.0, -1e100]];
        assert_eq!(folded(AggregateOp::Sum, &rows)[1], 3.0);
        assert!(folded(AggregateOp::Sum, &rows)[0].is_nan());
        assert_eq!(folded(AggregateOp::Min, &rows), [1.0, -1e100]);
        assert_eq!(folded(AggregateOp::Max, &rows), [5.0, 1e100]);
        assert_eq!(folded(AggregateOp::Count, &rows), [3.0, 3.0]);
        assert_eq!(folded(AggregateOp::Quantile, &rows), [1.0, 3.0]);
        assert_eq!(folded(AggregateOp::Stdvar, &[&[1.0, 2.0], &[3.0, 2.0]]), [1.0, 0.0]);
    }
}
