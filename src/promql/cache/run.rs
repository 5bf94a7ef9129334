//! Runs of steps that were evaluated, as they are kept: which of them are still what they were, and how
//! an answer is put together from them.

use super::super::annotations::Annotations;
use super::super::limits::labels_bytes;
use super::super::value::{FloatPoint, HistogramPoint, Series};
use super::reach::Reach;
use crate::storage::TimeRange;
use crate::storage::policy::Borders;
use crate::storage::touched::{Changes, Version};

/// Steps from one to another, both included. They are as far apart as their key says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) first_ms: i64,
    pub(super) last_ms: i64,
}

impl Stretch {
    /// How many steps there are.
    pub(super) fn count(&self, step_ms: i64) -> u64 {
        (self.last_ms - self.first_ms) as u64 / step_ms as u64 + 1
    }

    /// The steps that both have, which are on the same grid.
    pub(super) fn intersect(&self, other: &Stretch) -> Option<Stretch> {
        let both =
            Stretch { first_ms: self.first_ms.max(other.first_ms), last_ms: self.last_ms.min(other.last_ms) };
        (both.first_ms <= both.last_ms).then_some(both)
    }

    /// The steps before `other`, and those after it, which lies within.
    pub(super) fn around(&self, other: &Stretch, step_ms: i64) -> [Option<Stretch>; 2] {
        let before = Stretch { last_ms: other.first_ms - step_ms, ..*self };
        let after = Stretch { first_ms: other.last_ms + step_ms, ..*self };
        [before, after].map(|part| (part.first_ms <= part.last_ms).then_some(part))
    }
}

/// How many samples an evaluation held at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peak {
    pub(super) samples: u64,
    /// Over so many steps.
    pub(super) steps: u64,
}

impl Peak {
    /// About how many it would have been over so many steps.
    pub(super) fn over(&self, steps: u64) -> u64 {
        (u128::from(self.samples) * u128::from(steps.max(self.steps)) / u128::from(self.steps.max(1))) as u64
    }
}

/// What was evaluated, with all that tells whether it still holds.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) steps: Stretch,
    /// By labels.
    pub(super) series: Vec<Series>,
    /// What there is to say about the steps, and perhaps about some that were there once.
    pub(super) notes: Annotations,
    /// Whether it is about the steps and no others.
    pub(super) notes_are_exact: bool,
    pub(super) peak: Peak,
    /// From before any sample was looked at.
    pub(super) version: Version,
    /// What was shown of the samples.
    pub(super) borders: Borders,
}

impl Run {
    /// The steps that are what they were, after `changes` and with these `borders`.
    pub(super) fn still_valid(
        &self,
        step_ms: i64,
        reach: &Reach,
        changes: &Changes,
        borders: &Borders,
    ) -> Vec<Stretch> {
        let mut good = vec![self.steps];
        let onwards = TimeRange::new(changes.from_ms, i64::MAX);
        let ranges = changes.ranges.iter().copied().chain(self.borders.moved(borders));
        for changed in ranges.chain([onwards]) {
            // From the first step that looks ahead to the first of these times, to the last that looks back at
            // the last.
            let from_ms = changed.min_ms.saturating_sub(reach.ahead_ms);
            let until_ms = changed.max_ms.saturating_add(reach.back_ms);
            let left = good.into_iter().flat_map(|part| without(part, from_ms, until_ms, step_ms));
            good = left.flatten().collect();
        }
        good
    }

    /// About how much memory it takes.
    pub(super) fn bytes(&self) -> u64 {
        size_of::<Run>() as u64 + bytes_of(&self.series)
    }

    /// Lets go of all steps but those from one on, and up to another.
    pub(super) fn cut_to(&mut self, kept: Stretch) {
        for series in &mut self.series {
            keep(&mut series.floats, &kept, |point| point.t_ms);
            keep(&mut series.histograms, &kept, |point| point.t_ms);
        }
        self.series.retain(|series| !series.floats.is_empty() || !series.histograms.is_empty());
        self.steps = kept;
    }

    /// Takes on the steps right after the last, up to `last_ms`.
    pub(super) fn extend(&mut self, last_ms: i64, later: &[Series]) {
        let mut old = std::mem::take(&mut self.series).into_iter().peekable();
        for new in later {
            while let Some(series) = old.next_if(|series| series.labels < new.labels) {
                self.series.push(series);
            }
            match old.next_if(|series| series.labels == new.labels) {
                Some(mut series) => {
                    series.floats.extend_from_slice(&new.floats);
                    series.histograms.extend_from_slice(&new.histograms);
                    self.series.push(series);
                }
                None => self.series.push(new.clone()),
            }
        }
        self.series.extend(old);
        self.steps.last_ms = last_ms;
    }
}

/// About how much memory series take.
pub(super) fn bytes_of(series: &[Series]) -> u64 {
    let of_one = |series: &Series| {
        let histograms = series.histograms.iter().map(|point| point.value.memory_bytes());
        let points = series.floats.capacity() * size_of::<FloatPoint>()
            + series.histograms.capacity() * size_of::<HistogramPoint>();
        (size_of::<Series>() + points + histograms.sum::<usize>()) as u64 + labels_bytes(&series.labels)
    };
    series.iter().map(of_one).sum()
}

fn keep<P>(points: &mut Vec<P>, kept: &Stretch, t_ms: impl Fn(&P) -> i64) {
    points.truncate(points.partition_point(|point| t_ms(point) <= kept.last_ms));
    points.drain(..points.partition_point(|point| t_ms(point) < kept.first_ms));
}

/// The steps of `part` before `from_ms`, and those from `until_ms` on.
fn without(part: Stretch, from_ms: i64, until_ms: i64, step_ms: i64) -> [Option<Stretch>; 2] {
    if from_ms > part.last_ms || until_ms <= part.first_ms || from_ms >= until_ms {
        return [Some(part), None];
    }
    // In 128 bits, since borders may lie anywhere.
    let steps_to = |t_ms: i64| {
        (i128::from(t_ms) - i128::from(part.first_ms) + i128::from(step_ms) - 1).div_euclid(step_ms.into())
    };
    let at = |steps: i128| part.first_ms + steps as i64 * step_ms;
    let before = (from_ms > part.first_ms).then(|| Stretch { last_ms: at(steps_to(from_ms) - 1), ..part });
    let after = (until_ms <= part.last_ms).then(|| Stretch { first_ms: at(steps_to(until_ms)), ..part });
    [before, after]
}

/// Series and the steps of them that are meant.
pub(super) type Piece<'a> = (&'a [Series], Stretch);

/// The series of all pieces, which follow each other, by labels.
pub(super) fn join(pieces: &[Piece<'_>]) -> Vec<Series> {
    let longest = pieces.iter().map(|(series, _)| series.len()).max().unwrap_or(0);
    let mut next = vec![0; pieces.len()];
    let mut out = Vec::with_capacity(longest);
    let mut parts: Vec<(&[FloatPoint], &[HistogramPoint])> = Vec::with_capacity(pieces.len());
    loop {
        let heads = pieces.iter().zip(&next).filter_map(|((series, _), &at)| series.get(at));
        let Some(labels) = heads.map(|series| &series.labels).min() else { return out };
        parts.clear();
        for ((series, steps), at) in pieces.iter().zip(&mut next) {
            let Some(series) = series.get(*at).filter(|series| series.labels == *labels) else { continue };
            *at += 1;
            parts.push((
                within(&series.floats, steps, |p| p.t_ms),
                within(&series.histograms, steps, |p| p.t_ms),
            ));
        }
        let count = |(floats, histograms): (usize, usize), (f, h): &(&[FloatPoint], &[HistogramPoint])| {
            (floats + f.len(), histograms + h.len())
        };
        let (floats, histograms) = parts.iter().fold((0, 0), count);
        if floats + histograms == 0 {
            continue;
        }
        let mut series = Series {
            labels: labels.clone(),
            floats: Vec::with_capacity(floats),
            histograms: Vec::with_capacity(histograms),
        };
        for (floats, histograms) in &parts {
            series.floats.extend_from_slice(floats);
            series.histograms.extend_from_slice(histograms);
        }
        out.push(series);
    }
}

fn within<'p, P>(points: &'p [P], steps: &Stretch, t_ms: impl Fn(&P) -> i64) -> &'p [P] {
    let from = points.partition_point(|point| t_ms(point) < steps.first_ms);
    let to = points.partition_point(|point| t_ms(point) <= steps.last_ms);
    points.get(from..to).unwrap_or(&[])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::touched::Touched;
    use larum_storage_format::Labels;

    fn stretch(first_ms: i64, last_ms: i64) -> Stretch {
        Stretch { first_ms, last_ms }
    }

    /// Steps 0, 10, ... 100, of series whose values are their times.
    fn run() -> Run {
        Run {
            steps: stretch(0, 100),
            series: vec![series("a", &[0, 10, 50, 100]), series("c", &[20]), series("d", &[100])],
            notes: Annotations::default(),
            notes_are_exact: true,
            peak: Peak { samples: 10, steps: 11 },
            version: Touched::default().version(),
            borders: Borders::at(-1000),
        }
    }

    fn series(name: &str, times: &[i64]) -> Series {
        let labels = Labels::from_pairs([("n", name)]).unwrap();
        let floats = times.iter().map(|&t_ms| FloatPoint { t_ms, value: t_ms as f64 }).collect();
        Series { labels, floats, histograms: Vec::new() }
    }

    fn shown(series: &[Series]) -> Vec<(String, Vec<i64>)> {
        let times = |series: &Series| series.floats.iter().map(|point| point.t_ms).collect();
        series.iter().map(|series| (series.labels.get("n").unwrap().to_owned(), times(series))).collect()
    }

    #[test]
    fn steps_hold_unless_something_in_their_reach_changed() {
        const NEVER: i64 = i64::MAX;
        let range = TimeRange::new;
        for (back_ms, ahead_ms, from_ms, ranges, border_ms, expected) in [
            (30, 0, NEVER, vec![], -1000, vec![(0, 100)]),
            (30, 0, 95, vec![], -1000, vec![(0, 90)]),
            (30, 0, 90, vec![], -1000, vec![(0, 80)]),
            (30, 0, 0, vec![], -1000, vec![]),
            (30, 0, -500, vec![], -1000, vec![]),
            (30, 0, 1000, vec![], -1000, vec![(0, 100)]),
            // It looks ahead, or at nothing younger than that.
            (30, 25, 90, vec![], -1000, vec![(0, 60)]),
            (30, -20, 90, vec![], -1000, vec![(0, 100)]),
            (130, -80, 0, vec![], -1000, vec![(0, 70)]),
            // What lies within.
            (30, 0, NEVER, vec![range(40, 40)], -1000, vec![(0, 30), (70, 100)]),
            (30, 0, NEVER, vec![range(41, 49)], -1000, vec![(0, 40), (80, 100)]),
            (30, 0, NEVER, vec![range(-90, -31)], -1000, vec![(0, 100)]),
            (30, 0, NEVER, vec![range(-90, -30)], -1000, vec![(0, 100)]),
            (30, 0, NEVER, vec![range(-90, -29)], -1000, vec![(10, 100)]),
            (30, 0, 95, vec![range(20, 20), range(60, 65)], -1000, vec![(0, 10), (50, 50)]),
            (30, 0, NEVER, vec![TimeRange::ALL], -1000, vec![]),
            // The border moved, on or back.
            (30, 0, NEVER, vec![], 15, vec![(50, 100)]),
            (30, 0, NEVER, vec![], -2000, vec![(0, 100)]),
            (2000, 0, NEVER, vec![], -2000, vec![]),
        ] {
            let reach = Reach { back_ms, ahead_ms, shows_hints: false };
            let changes = Changes { from_ms, ranges };
            let found = run().still_valid(10, &reach, &changes, &Borders::at(border_ms));
            let expected: Vec<Stretch> = expected.into_iter().map(|(a, b)| stretch(a, b)).collect();
            assert_eq!(found, expected, "{reach:?} {changes:?} {border_ms}");
        }
    }

    #[test]
    fn pieces_are_joined_by_labels() {
        let (before, after) = ([series("b", &[-20, -10]), series("c", &[-10])], [series("a", &[60, 70])]);
        let run = run();
        let pieces: [Piece<'_>; 3] =
            [(&before, stretch(-20, -10)), (&run.series, stretch(0, 50)), (&after, stretch(60, 70))];
        let expected = [("a", vec![0, 10, 50, 60, 70]), ("b", vec![-20, -10]), ("c", vec![-10, 20])]
            .map(|(n, t)| (n.to_owned(), t));
        assert_eq!(shown(&join(&pieces)), expected);
        assert!(join(&[]).is_empty());
    }

    #[test]
    fn a_run_is_cut_and_grows_where_it_is() {
        let mut run = run();
        run.cut_to(stretch(10, 50));
        assert_eq!(shown(&run.series), [("a".to_owned(), vec![10, 50]), ("c".to_owned(), vec![20])]);
        run.extend(80, &[series("0", &[60]), series("a", &[70]), series("b", &[80]), series("z", &[60])]);
        let expected =
            [("0", vec![60]), ("a", vec![10, 50, 70]), ("b", vec![80]), ("c", vec![20]), ("z", vec![60])];
        assert_eq!(shown(&run.series), expected.map(|(n, t)| (n.to_owned(), t)));
        assert_eq!(run.steps, stretch(10, 80));
    }

    #[test]
    fn what_is_missing_lies_around_what_is_there() {
        let wanted = stretch(0, 100);
        for (used, expected) in [
            (stretch(0, 100), [None, None]),
            (stretch(10, 100), [Some(stretch(0, 0)), None]),
            (stretch(0, 50), [None, Some(stretch(60, 100))]),
            (stretch(50, 50), [Some(stretch(0, 40)), Some(stretch(60, 100))]),
        ] {
            assert_eq!(wanted.around(&used, 10), expected);
        }
        assert_eq!((wanted.count(10), stretch(5, 5).count(10)), (11, 1));
    }
}
