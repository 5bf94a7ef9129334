//! Selectors of instant vectors: for each step the newest sample that is not too old.

use super::ast::{Pos, RangeExtension};
use super::eval::{EvalError, Evaluator, Sink};
use super::limits::Budget;
use super::plan::{Place, Selector};
use super::row::{Bits, Presence, Row, SeriesRow, any_stale};
use super::steps::Steps;
use super::{extended, histogram};
use crate::storage::series_set::{Columns, LabelReader, Newest};
use crate::storage::{Matcher, SeriesSet, TimeRange};
use larum_storage_format::{CounterResetHint, Histogram, Labels, Samples, is_stale};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// Things worked out once per column of timestamps, for all series that share the column.
///
/// A column is known by its address, so the cache keeps it alive. Series whose timestamps nobody
/// shares would fill it without use; so it starts anew when it has become large.
pub(crate) struct PerColumn<'e, T> {
    known: HashMap<(*const i64, usize), Entry<T>, foldhash::fast::RandomState>,
    budget: &'e Budget,
    most: usize,
    /// What one entry takes besides its column.
    entry_bytes: u64,
    held_bytes: u64,
}

struct Entry<T> {
    /// Kept so that its address cannot become that of another.
    _column: Arc<[i64]>,
    value: Rc<T>,
}

/// How many steps all entries of a cache may have together: some 40 MiB of window borders.
const MOST_CACHED_STEPS: usize = 1 << 20;

/// How many columns a cache keeps alive at most: more than there are targets.
const MOST_CACHED_COLUMNS: usize = 1 << 13;

/// What such a thing takes for each step: at most two places, and what is known of the window between.
const STEP_BYTES: u64 = 40;

impl<'e, T> PerColumn<'e, T> {
    /// A cache for things that take room for `steps` steps each.
    pub(crate) fn new(steps: usize, budget: &'e Budget) -> PerColumn<'e, T> {
        PerColumn {
            known: HashMap::default(),
            budget,
            most: (MOST_CACHED_STEPS / steps.max(1)).clamp(1, MOST_CACHED_COLUMNS),
            entry_bytes: steps as u64 * STEP_BYTES,
            held_bytes: 0,
        }
    }

    /// What belongs to `column`, made by `make` if it is the first time.
    pub(crate) fn get(&mut self, column: &Arc<[i64]>, make: impl FnOnce() -> T) -> Rc<T> {
        let key = (column.as_ptr(), column.len());
        if let Some(known) = self.known.get(&key) {
            return known.value.clone();
        }
        let made = Rc::new(make());
        let bytes = self.entry_bytes + size_of_val(&column[..]) as u64;
        if self.known.len() >= self.most {
            self.forget();
        }
        if !self.budget.take_spare(bytes) {
            // It is kept for speed only, and somebody needs the memory.
            self.forget();
            return made;
        }
        self.held_bytes += bytes;
        self.known.insert(key, Entry { _column: column.clone(), value: made.clone() });
        made
    }

    fn forget(&mut self) {
        self.known = HashMap::default();
        self.budget.release_bytes(std::mem::take(&mut self.held_bytes));
    }
}

impl<T> Drop for PerColumn<'_, T> {
    fn drop(&mut self) {
        self.forget();
    }
}

/// The range of times from which samples are needed to look back `width_ms` from every step.
pub(crate) fn time_range(place: &Place, width_ms: i64, steps: &Steps) -> TimeRange {
    let (first, last) = (place.time(steps.start_ms()), place.time(steps.at(steps.count() - 1)));
    TimeRange::new(first.saturating_sub(width_ms).saturating_add(1), last)
}

/// After so many series, or samples, it is looked again whether anybody still waits for the result, and how
/// many samples a series may have: asking the clock takes as long as reading a newest sample.
const SERIES_PER_LOOK: usize = 64;
const SAMPLES_PER_LOOK: usize = 1 << 16;

/// So many series are asked for their newest samples at a time.
const NEWEST_AT_ONCE: usize = 1024;

/// What the columns of one selection may take.
const MOST_COLUMNS_BYTES: u64 = 256 << 20;

/// Selected series.
pub(crate) struct Selection<'e, 'a> {
    evaluator: &'e Evaluator<'a>,
    set: Set<'e>,
    matchers: &'e [Matcher],
    statistics: bool,
    among: Option<Arc<[String]>>,
}

/// Who has selected the series.
enum Set<'e> {
    Own(Box<dyn SeriesSet + 'e>),
    /// Several threads share them out.
    Shared(&'e dyn SeriesSet),
}

impl Set<'_> {
    fn get(&self) -> &dyn SeriesSet {
        match self {
            Set::Own(set) => &**set,
            Set::Shared(set) => *set,
        }
    }
}

/// Selects series, unless they are too many.
pub(crate) fn select<'a>(
    evaluator: &Evaluator<'a>,
    matchers: &[Matcher],
    range: TimeRange,
) -> Result<Box<dyn SeriesSet + 'a>, EvalError> {
    let budget = &evaluator.budget;
    let mut set = evaluator.source.select(matchers, range).map_err(|error| budget.unread(matchers, error))?;
    if evaluator.in_lasting_order {
        set.in_lasting_order();
    }
    budget.selected(matchers, set.len() as u64)?;
    Ok(set)
}

/// Loads selected series, one by one.
pub(crate) struct Reader<'s, 'a> {
    evaluator: &'s Evaluator<'a>,
    set: &'s dyn SeriesSet,
    matchers: &'s [Matcher],
    statistics: bool,
    columns: Columns,
    /// What is taken for the columns.
    columns_bytes: u64,
    labels: LabelReader<'s>,
    /// The next series, and where to stop.
    next: usize,
    end: usize,
    /// What may be read before it is looked again whether to go on, in samples.
    until_look: usize,
    /// The newest samples of the series from `newest_from` on.
    newest: Vec<Newest>,
    newest_from: usize,
}

/// What a reader found of a series.
enum Seen {
    /// Its newest sample, a float that is no stale marker.
    Float(f64),
    /// Its samples.
    Samples(Samples),
}

impl<'e, 'a> Selection<'e, 'a> {
    /// Selects what `selector` matches in `range`.
    pub(crate) fn new(
        evaluator: &'e Evaluator<'a>,
        selector: &'e Selector<'_>,
        range: TimeRange,
    ) -> Result<Selection<'e, 'a>, EvalError> {
        let matchers = selector.matchers;
        let set = match evaluator.feed {
            Some(feed) => Set::Shared(feed.set(matchers, range)?),
            None => Set::Own(select(evaluator, matchers, range)?),
        };
        Ok(Selection {
            evaluator,
            set,
            matchers,
            statistics: selector.statistics,
            among: selector.among.clone(),
        })
    }

    /// Reads the series.
    pub(crate) fn reader(&self) -> Reader<'_, 'a> {
        let set = self.set.get();
        Reader {
            evaluator: self.evaluator,
            set,
            matchers: self.matchers,
            statistics: self.statistics,
            columns: Columns::default(),
            columns_bytes: 0,
            labels: set.label_reader(self.among.as_deref()),
            next: 0,
            // Who shares them out says what to read.
            end: if self.evaluator.feed.is_some() { 0 } else { set.len() },
            until_look: 0,
            newest: Vec::new(),
            newest_from: 0,
        }
    }
}

impl Reader<'_, '_> {
    /// The next series that has samples: its position and its samples.
    pub(crate) fn next(&mut self) -> Result<Option<(usize, Samples)>, EvalError> {
        self.next_loaded(false)
    }

    /// As [`Reader::next`], but only the newest of the samples is needed.
    fn next_newest(&mut self) -> Result<Option<(usize, Samples)>, EvalError> {
        self.next_loaded(true)
    }

    fn next_loaded(&mut self, newest_only: bool) -> Result<Option<(usize, Samples)>, EvalError> {
        while let Some(index) = self.next_index()? {
            if let Some(samples) = self.load(index, newest_only)? {
                return Ok(Some((index, samples)));
            }
        }
        Ok(None)
    }

    fn next_index(&mut self) -> Result<Option<usize>, EvalError> {
        if self.next == self.end {
            let Some(feed) = self.evaluator.feed else { return Ok(None) };
            let Some(more) = feed.next()? else { return Ok(None) };
            (self.next, self.end) = (more.start, more.end);
        }
        self.next += 1;
        Ok(Some(self.next - 1))
    }

    /// The next series that shows something at the end of the range, as far as that is known: its position,
    /// and what it shows.
    fn next_seen(&mut self) -> Result<Option<(usize, Seen)>, EvalError> {
        while let Some(index) = self.next_index()? {
            if index >= self.newest_from + self.newest.len() {
                let indexes = index..self.end.min(index + NEWEST_AT_ONCE);
                self.newest_from = index;
                self.set.newest(indexes, &mut self.columns, &mut self.newest);
                self.hold_columns();
            }
            match self.newest[index - self.newest_from] {
                Newest::None => self.look(0)?,
                Newest::Float { value, .. } => {
                    self.look(1)?;
                    self.evaluator.budget.count_read(1);
                    if !is_stale(value) {
                        return Ok(Some((index, Seen::Float(value))));
                    }
                }
                Newest::Unknown => {
                    if let Some(samples) = self.load(index, true)? {
                        return Ok(Some((index, Seen::Samples(samples))));
                    }
                }
            }
        }
        Ok(None)
    }

    /// The samples of a series, if it has any; only the newest and maybe others, if no more are needed.
    fn load(&mut self, index: usize, newest_only: bool) -> Result<Option<Samples>, EvalError> {
        self.look(0)?;
        let samples = match newest_only {
            true => self.set.load_newest(index, &mut self.columns),
            false => self.set.load(index, &mut self.columns),
        };
        let budget = &self.evaluator.budget;
        let mut samples = samples.map_err(|error| budget.unread(self.matchers, error))?;
        self.hold_columns();
        if samples.is_empty() {
            return Ok(None);
        }
        budget.count_read(samples.len() as u64);
        self.until_look = self.until_look.saturating_sub(samples.len());
        if distrust_hints(&mut samples.histograms) {
            self.evaluator.unchecked_hints.set(true);
        }
        if self.statistics {
            reduce_to_statistics(&mut samples.histograms);
        }
        Ok(Some(samples))
    }

    /// Looks now and then whether to go on; to be called for each series, with what was read of it.
    fn look(&mut self, samples: usize) -> Result<(), EvalError> {
        if self.until_look == 0 {
            self.evaluator.alive()?;
            self.columns.allow_samples(self.evaluator.budget.most_samples());
            self.until_look = SAMPLES_PER_LOOK;
        }
        self.until_look = self.until_look.saturating_sub(SAMPLES_PER_LOOK / SERIES_PER_LOOK + samples);
        Ok(())
    }

    /// Takes memory for the columns met so far, or forgets them: they are kept for speed only.
    fn hold_columns(&mut self) {
        let bytes = self.columns.len_bytes() as u64;
        let more = bytes.saturating_sub(self.columns_bytes);
        if more == 0 {
            return;
        }
        if bytes <= MOST_COLUMNS_BYTES && self.evaluator.budget.take_spare(more) {
            self.columns_bytes = bytes;
        } else {
            self.columns.forget();
            self.evaluator.budget.release_bytes(std::mem::take(&mut self.columns_bytes));
        }
    }

    /// The labels of the series at `index` that are of interest.
    pub(crate) fn labels(&mut self, index: usize) -> Labels {
        (self.labels)(index)
    }
}

impl Drop for Reader<'_, '_> {
    fn drop(&mut self) {
        // Also of who stops before the end. Who shares series out tells for all threads.
        if self.evaluator.feed.is_none() {
            self.set.warnings().into_iter().for_each(|text| self.evaluator.storage_warning(text));
        }
        self.evaluator.budget.release_bytes(self.columns_bytes);
    }
}

/// Takes back that there was no counter reset where counts fell. Who said so may have seen samples
/// that were lost or deleted since, or that stand elsewhere now that several runs are merged. Tells
/// whether the first says so, of which it cannot be known.
fn distrust_hints(histograms: &mut [(u32, Arc<Histogram>)]) -> bool {
    for i in 1..histograms.len() {
        let (before, rest) = histograms.split_at_mut(i);
        let ((before_at, before), (at, h)) = (&before[i - 1], &mut rest[0]);
        let neighbours = before_at + 1 == *at && !is_stale(before.sum) && !is_stale(h.sum);
        let promised = h.counter_reset_hint == CounterResetHint::NotCounterReset;
        if promised && neighbours && histogram::fell(h, before) {
            Arc::make_mut(h).counter_reset_hint = CounterResetHint::Unknown;
        }
    }
    let first = histograms.first().map(|(_, h)| h.counter_reset_hint);
    first.is_some_and(|hint| hint == CounterResetHint::NotCounterReset)
}

/// Takes the buckets off histograms, once they have told where counters began again.
fn reduce_to_statistics(histograms: &mut [(u32, Arc<Histogram>)]) {
    let mut before: Option<(u32, Arc<Histogram>)> = None;
    for (at, h) in histograms {
        let neighbour = before.as_ref().filter(|(other, h)| other + 1 == *at && !is_stale(h.sum));
        let statistics = histogram::statistics(h, neighbour.map(|(_, h)| &**h));
        before = Some((*at, std::mem::replace(h, Arc::new(statistics))));
    }
}

/// For each step the index of the sample that is seen there.
struct Lookup {
    index: Vec<u32>,
    present: Presence,
}

impl Lookup {
    fn new(times_ms: &[i64], place: &Place, lookback_ms: i64, steps: &Steps) -> Lookup {
        let count = steps.count();
        let mut index = vec![0; count];
        let mut bits = Bits::none(count);
        let mut after = 0;
        for (i, t_ms) in steps.iter().enumerate() {
            let t_ms = place.time(t_ms);
            after = if i == 0 {
                times_ms.partition_point(|t| *t <= t_ms)
            } else {
                after + times_ms[after..].iter().take_while(|t| **t <= t_ms).count()
            };
            if after > 0 && times_ms[after - 1] > t_ms.saturating_sub(lookback_ms) {
                index[i] = (after - 1) as u32;
                bits.set(i);
            }
        }
        Lookup { index, present: Presence::from_bits(&bits, count) }
    }

    /// Fills `row` with what a series with these samples shows at the steps.
    fn fill(&self, samples: &Samples, row: &mut Row) {
        row.floats.clear();
        row.floats.extend(self.index.iter().map(|&i| samples.floats[i as usize]));
        row.present = self.present.clone();
        row.histograms.clear();
        let stale = any_stale(&row.floats);
        if !stale && samples.histograms.is_empty() {
            return;
        }
        let count = row.len();
        let mut bits = Bits::none(count);
        let (floats, histograms) = (&row.floats, &mut row.histograms);
        self.present.for_each(count, |i| {
            let found = samples.histograms.binary_search_by_key(&self.index[i], |(at, _)| *at);
            match found {
                Ok(found) if !is_stale(samples.histograms[found].1.sum) => {
                    histograms.push((i as u32, samples.histograms[found].1.clone()));
                }
                Err(_) if !is_stale(floats[i]) => bits.set(i),
                _ => {}
            }
        });
        row.present = Presence::from_bits(&bits, count);
    }
}

/// Gives the series that `selector`, which stands at `pos`, selects to `sink`.
pub(crate) fn each(
    evaluator: &Evaluator<'_>,
    selector: &Selector<'_>,
    pos: Pos,
    steps: &Steps,
    sink: Sink<'_>,
) -> Result<(), EvalError> {
    // There is no window that `anchored` could change.
    if selector.extension == Some(RangeExtension::Smoothed) {
        return extended::each_smoothed(evaluator, selector, pos, steps, sink);
    }
    if steps.count() == 1 {
        return each_newest(evaluator, selector, steps, sink);
    }
    each_seen(evaluator, selector, steps, |lookup, _, samples, row| lookup.fill(samples, row), sink)
}

/// Which time of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Time {
    /// When it was taken.
    Sampled,
    /// When it was taken, if it is a float; histograms stay what they are.
    SampledFloats,
    /// Since when it counts; 0 if that is unknown.
    Start,
}

/// Gives the series that `selector` selects to `sink`, with a time of their samples in seconds as
/// values.
pub(crate) fn each_time(
    evaluator: &Evaluator<'_>,
    selector: &Selector<'_>,
    time: Time,
    steps: &Steps,
    sink: Sink<'_>,
) -> Result<(), EvalError> {
    let fill = |lookup: &Lookup, count: usize, samples: &Samples, row: &mut Row| {
        lookup.fill(samples, row);
        if time != Time::SampledFloats {
            let mut bits = Bits::none(count);
            bits.add_row(row);
            row.present = Presence::from_bits(&bits, count);
            row.histograms.clear();
        }
        for (value, &index) in row.floats.iter_mut().zip(&lookup.index) {
            let index = index as usize;
            let t_ms = match time {
                Time::Sampled | Time::SampledFloats => samples.timestamps[index],
                Time::Start => samples.start_timestamp(index).unwrap_or(0),
            };
            *value = t_ms as f64 / 1000.0;
        }
    };
    each_seen(evaluator, selector, steps, fill, sink)
}

fn each_seen(
    evaluator: &Evaluator<'_>,
    selector: &Selector<'_>,
    steps: &Steps,
    fill: impl Fn(&Lookup, usize, &Samples, &mut Row),
    sink: Sink<'_>,
) -> Result<(), EvalError> {
    let lookback_ms = evaluator.lookback_ms;
    let range = time_range(&selector.place, lookback_ms, steps);
    let count = steps.count();
    let selection = Selection::new(evaluator, selector, range)?;
    let mut reader = selection.reader();
    let mut lookups = PerColumn::new(count, &evaluator.budget);
    let mut series =
        SeriesRow { labels: Labels::empty(), drop_name: false, row: Row::full(Vec::with_capacity(count)) };
    while let Some((index, samples)) = if count == 1 { reader.next_newest()? } else { reader.next()? } {
        let make = || Lookup::new(&samples.timestamps, &selector.place, lookback_ms, steps);
        let lookup = lookups.get(&samples.timestamps, make);
        fill(&lookup, count, &samples, &mut series.row);
        if series.row.points() > 0 {
            evaluator.counter.add_row(&series.row);
            series.labels = reader.labels(index);
            series.drop_name = false;
            sink(&mut series)?;
        }
    }
    Ok(())
}

/// As [`each`], at a single step: there a series shows its newest sample, and mostly no column of
/// timestamps is needed to know it.
fn each_newest(
    evaluator: &Evaluator<'_>,
    selector: &Selector<'_>,
    steps: &Steps,
    sink: Sink<'_>,
) -> Result<(), EvalError> {
    let lookback_ms = evaluator.lookback_ms;
    let range = time_range(&selector.place, lookback_ms, steps);
    let selection = Selection::new(evaluator, selector, range)?;
    let mut reader = selection.reader();
    let mut series = SeriesRow { labels: Labels::empty(), drop_name: false, row: Row::full(Vec::new()) };
    while let Some((index, seen)) = reader.next_seen()? {
        match seen {
            Seen::Float(value) => {
                series.row.floats.clear();
                series.row.floats.push(value);
                series.row.present = Presence::All;
                series.row.histograms.clear();
            }
            Seen::Samples(samples) => {
                let lookup = Lookup::new(&samples.timestamps, &selector.place, lookback_ms, steps);
                lookup.fill(&samples, &mut series.row);
                if series.row.points() == 0 {
                    continue;
                }
            }
        }
        evaluator.counter.add_row(&series.row);
        series.labels = reader.labels(index);
        series.drop_name = false;
        sink(&mut series)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_of_no_reset_is_checked() {
        let sample = |at: u32, count: f64| {
            let counter_reset_hint = CounterResetHint::NotCounterReset;
            (at, Arc::new(Histogram { counter_reset_hint, count, ..Histogram::default() }))
        };
        // The third fell; the fourth has no histogram right before it.
        let mut histograms = [sample(0, 3.0), sample(1, 4.0), sample(2, 1.0), sample(4, 0.5)];
        assert!(distrust_hints(&mut histograms));
        assert!(!distrust_hints(&mut []));
        let kept = histograms.map(|(_, h)| h.counter_reset_hint == CounterResetHint::NotCounterReset);
        assert_eq!(kept, [true, true, false, true]);
    }
}
