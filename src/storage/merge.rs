//! Runs of one series from several places become one column of samples.
//!
//! Runs come in rising precedence. Where two hold the same timestamp, the later run wins, except
//! that a stale marker loses to any value. Most series come from one run, or from runs that follow
//! each other in time; those are moved or joined, and nothing is compared.

use super::part::Run;
use super::series_set::{ColumnPiece, Columns};
use larum_storage_format::tombstones::Interval;
use larum_storage_format::{Samples, is_stale};
use std::sync::Arc;

/// Merges `runs`, given in rising precedence. The timestamps are shared through `columns` where
/// every run tells where its own come from: the union depends on the timestamps alone.
pub(crate) fn merge(mut runs: Vec<Run>, columns: &mut Columns) -> Samples {
    runs.retain(|run| !run.timestamps.is_empty());
    if runs.len() <= 1 {
        return runs.pop().map(Run::into_samples).unwrap_or_default();
    }
    // The sort is stable, but where a run begins says nothing about its precedence: it is kept.
    let mut runs: Vec<(usize, Run)> = runs.into_iter().enumerate().collect();
    runs.sort_by_key(|(_, run)| run.first());

    let origin: Option<Vec<ColumnPiece>> = runs.iter().map(|(_, run)| run.origin).collect();
    let known = origin.as_ref().and_then(|key| columns.get(key));
    let len = runs.iter().map(|(_, run)| run.timestamps.len()).sum();
    let mut out = Merged::new(len, known.is_none());
    let mut from = 0;
    while from < runs.len() {
        let mut last = runs[from].1.last();
        let overlapping = runs[from + 1..].iter().take_while(|(_, run)| {
            let overlaps = run.first() <= last;
            last = last.max(run.last());
            overlaps
        });
        let to = from + 1 + overlapping.count();
        match &mut runs[from..to] {
            [(_, alone)] => out.take(alone),
            several => out.interleave(several),
        }
        from = to;
    }
    let timestamps = match (known, origin) {
        (Some(known), _) => known,
        (None, Some(key)) => columns.shared(&key, || out.timestamps),
        (None, None) => out.timestamps.into(),
    };
    if !out.start_timestamps.is_empty() {
        out.start_timestamps.resize(timestamps.len(), 0);
    }
    Samples {
        timestamps,
        floats: out.floats,
        histograms: out.histograms,
        start_timestamps: out.start_timestamps,
    }
}

/// Appends what is left of `run` outside the `deleted` intervals, which are sorted and disjoint.
pub(crate) fn push_without(run: Run, deleted: &[Interval], columns: &mut Columns, out: &mut Vec<Run>) {
    if run.timestamps.is_empty() {
        return;
    }
    let (first, last) = (run.first(), run.last());
    let from = deleted.partition_point(|interval| interval.max_ms < first);
    let mut next = 0;
    for interval in deleted[from..].iter().take_while(|interval| interval.min_ms <= last) {
        let start = run.timestamps.partition_point(|&t| t < interval.min_ms);
        let end = run.timestamps.partition_point(|&t| t <= interval.max_ms);
        if start < end {
            out.extend(run.slice(next..start, columns));
            next = end;
        }
    }
    match next {
        0 => out.push(run),
        next => out.extend(run.slice(next..run.timestamps.len(), columns)),
    }
}

/// The columns being put together.
struct Merged {
    /// Left empty if the column is known already.
    timestamps: Vec<i64>,
    wants_timestamps: bool,
    floats: Vec<f64>,
    histograms: Vec<(u32, Arc<larum_storage_format::Histogram>)>,
    start_timestamps: Vec<i64>,
}

/// A run on its way through [`Merged::interleave`].
struct Place<'a> {
    run: &'a Run,
    precedence: usize,
    at: usize,
    histogram_at: usize,
}

impl Merged {
    fn new(len: usize, wants_timestamps: bool) -> Merged {
        Merged {
            timestamps: Vec::with_capacity(if wants_timestamps { len } else { 0 }),
            wants_timestamps,
            floats: Vec::with_capacity(len),
            histograms: Vec::new(),
            start_timestamps: Vec::new(),
        }
    }

    /// Appends a run whose times nobody else touches.
    fn take(&mut self, run: &mut Run) {
        let shift = self.floats.len();
        if self.wants_timestamps {
            self.timestamps.extend_from_slice(&run.timestamps);
        }
        self.floats.append(&mut run.floats);
        self.histograms.extend(run.histograms.drain(..).map(|(i, h)| (i + shift as u32, h)));
        if !run.start_timestamps.is_empty() {
            self.start_timestamps.resize(shift, 0);
            self.start_timestamps.append(&mut run.start_timestamps);
        }
    }

    /// Appends the samples of runs that overlap, one per timestamp.
    fn interleave(&mut self, runs: &[(usize, Run)]) {
        let mut places: Vec<Place<'_>> = runs
            .iter()
            .map(|(precedence, run)| Place { run, precedence: *precedence, at: 0, histogram_at: 0 })
            .collect();
        // From the highest precedence down: the first value met at a timestamp is the one.
        places.sort_by_key(|place| std::cmp::Reverse(place.precedence));
        while let Some(t) = places.iter().filter_map(Place::timestamp).min() {
            let mut best: Option<&Place<'_>> = None;
            for place in places.iter().filter(|place| place.timestamp() == Some(t)) {
                if !place.is_stale() {
                    best = Some(place);
                    break;
                }
                best = best.or(Some(place));
            }
            if let Some(place) = best {
                self.push(place);
            }
            places.iter_mut().filter(|place| place.timestamp() == Some(t)).for_each(Place::advance);
        }
    }

    fn push(&mut self, place: &Place<'_>) {
        let index = self.floats.len();
        if self.wants_timestamps {
            self.timestamps.push(place.run.timestamps[place.at]);
        }
        match place.histogram() {
            Some(histogram) => {
                self.histograms.push((index as u32, histogram.clone()));
                self.floats.push(0.0);
            }
            None => self.floats.push(place.run.floats[place.at]),
        }
        if let Some(&start) = place.run.start_timestamps.get(place.at) {
            self.start_timestamps.resize(index, 0);
            self.start_timestamps.push(start);
        }
    }
}

impl<'a> Place<'a> {
    fn timestamp(&self) -> Option<i64> {
        self.run.timestamps.get(self.at).copied()
    }

    fn histogram(&self) -> Option<&'a Arc<larum_storage_format::Histogram>> {
        let (index, histogram) = self.run.histograms.get(self.histogram_at)?;
        (*index as usize == self.at).then_some(histogram)
    }

    fn is_stale(&self) -> bool {
        is_stale(self.histogram().map_or(self.run.floats[self.at], |h| h.sum))
    }

    fn advance(&mut self) {
        self.histogram_at += usize::from(self.histogram().is_some());
        self.at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use larum_storage_format::{Histogram, STALE_NAN};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn run(column: Option<u32>, samples: &[(i64, f64)]) -> Run {
        let piece = |column| ColumnPiece { part: 0, column, start: 0, len: samples.len() as u32 };
        Run {
            origin: column.map(piece),
            timestamps: samples.iter().map(|s| s.0).collect(),
            floats: samples.iter().map(|s| s.1).collect(),
            histograms: Vec::new(),
            start_timestamps: Vec::new(),
        }
    }

    fn pairs(samples: &Samples) -> Vec<(i64, u64)> {
        samples.timestamps.iter().copied().zip(samples.floats.iter().map(|v| v.to_bits())).collect()
    }

    #[test]
    fn runs_of_the_same_origin_share_one_column() {
        let mut columns = Columns::default();
        let series = |v: f64| {
            vec![run(Some(1), &[(10, v), (20, v)]), run(Some(0), &[(1, v)]), run(Some(2), &[(15, v)])]
        };
        let a = merge(series(1.0), &mut columns);
        let b = merge(series(2.0), &mut columns);
        assert_eq!(a.timestamps[..], [1, 10, 15, 20]);
        assert!(Arc::ptr_eq(&a.timestamps, &b.timestamps));
        assert_eq!(b.floats, [2.0; 4]);
    }

    #[test]
    fn histograms_and_start_timestamps_keep_their_places() {
        let histogram = |count| Arc::new(Histogram { count, ..Histogram::default() });
        let mut low = run(None, &[(1, 1.0), (2, 0.0), (4, 4.0)]);
        low.histograms = vec![(1, histogram(2.0))];
        low.start_timestamps = vec![0, 1, 0];
        let mut high = run(None, &[(3, 0.0), (4, 0.0)]);
        high.histograms = vec![(0, histogram(3.0)), (1, histogram(4.0))];
        let merged = merge(vec![low, high], &mut Columns::default());
        let counts: Vec<(u32, f64)> = merged.histograms.iter().map(|(i, h)| (*i, h.count)).collect();
        assert_eq!(counts, [(1, 2.0), (2, 3.0), (3, 4.0)]);
        assert_eq!(merged.floats, [1.0, 0.0, 0.0, 0.0]);
        assert_eq!(merged.start_timestamps, [0, 1, 0, 0]);
    }

    #[test]
    fn deleted_intervals_cut_a_run_into_pieces() {
        let samples: Vec<(i64, f64)> = (0..10).map(|t| (t, t as f64)).collect();
        let deleted = [(-5, -1), (2, 3), (9, 20)].map(|(min_ms, max_ms)| Interval { min_ms, max_ms });
        let mut columns = Columns::default();
        let mut left = Vec::new();
        push_without(run(Some(0), &samples), &deleted, &mut columns, &mut left);
        let times: Vec<Vec<i64>> = left.iter().map(|run| run.timestamps.to_vec()).collect();
        assert_eq!(times, [vec![0, 1], vec![4, 5, 6, 7, 8]]);
        assert_eq!(left[1].origin, Some(ColumnPiece { part: 0, column: 0, start: 4, len: 5 }));
        let mut none = Vec::new();
        push_without(
            run(Some(0), &samples),
            &[Interval { min_ms: i64::MIN, max_ms: i64::MAX }],
            &mut columns,
            &mut none,
        );
        assert!(none.is_empty());
    }

    proptest! {
        #[test]
        fn merging_is_the_same_as_inserting_one_run_after_the_other(
            runs in proptest::collection::vec(
                (proptest::collection::btree_map(0..60i64, prop_oneof![3 => 0.0..9.0f64, 1 => Just(STALE_NAN)], 0..20), any::<bool>()),
                0..6,
            ),
        ) {
            let mut model: BTreeMap<i64, f64> = BTreeMap::new();
            for (run, _) in &runs {
                for (&t, &v) in run {
                    if !(is_stale(v) && model.contains_key(&t)) {
                        model.insert(t, v);
                    }
                }
            }
            let expected: Vec<(i64, u64)> = model.into_iter().map(|(t, v)| (t, v.to_bits())).collect();
            let mut columns = Columns::default();
            for _ in 0..2 {
                let runs = runs.iter().enumerate().map(|(i, (samples, own))| {
                    run((!own).then_some(i as u32), &samples.iter().map(|(&t, &v)| (t, v)).collect::<Vec<_>>())
                });
                prop_assert_eq!(pairs(&merge(runs.collect(), &mut columns)), expected.clone());
            }
        }
    }
}
