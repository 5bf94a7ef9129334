//! The series of one selection shared out among threads.
//!
//! 1. The selected series are cut into slices that follow one another. Whoever is free takes the next one;
//!    the thread of the evaluation takes part.
//! 2. A helper keeps the rows of its slice in a [`Batch`]. The thread of the evaluation gives all rows to the
//!    sink in the order of the series, as if there were no helpers: so what comes out does not depend, bit by
//!    bit, on how many threads there are.
//! 3. Helpers come when the first slice has shown that the others are worth it, and only as many as there
//!    are cores that no evaluation keeps busy.

use super::eval::{Apart, EvalError, EvalOptions, Evaluator, Sink};
use super::functions::Kernel;
use super::plan::{self, Kind, Node};
use super::row::{Presence, Row, SeriesRow};
use super::selector;
use super::steps::Steps;
use crate::storage::{Matcher, SeriesSet, Source, TimeRange};
use larum_storage_format::{Histogram, Labels};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How many threads all evaluations together may keep busy.
#[derive(Debug)]
pub struct Threads {
    most: usize,
    busy: AtomicUsize,
    /// What is left of a query must be expected to take so long before helpers are called.
    worth: Duration,
}

/// A thread that is busy as long as this is held.
#[derive(Debug)]
pub(crate) struct Busy<'t>(&'t Threads);

impl Threads {
    /// At most so many. An evaluation always has its own thread, helpers only as far as there are some left.
    pub fn new(most: usize) -> Threads {
        Threads { most, busy: AtomicUsize::new(0), worth: WORTH_HELPERS }
    }

    /// The thread of an evaluation.
    pub(crate) fn begin(&self) -> Busy<'_> {
        self.busy.fetch_add(1, Relaxed);
        Busy(self)
    }

    /// A helper, if there may be one more.
    fn helper(&self) -> Option<Busy<'_>> {
        let one_more = |busy: usize| (busy < self.most).then_some(busy + 1);
        self.busy.fetch_update(Relaxed, Relaxed, one_more).ok().map(|_| Busy(self))
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Relaxed);
    }
}

/// So many points are evaluated in a slice: they fit into a second-level cache.
const SLICE_POINTS: usize = 1 << 14;
/// So many series are in a slice at most, and at least.
const SLICE_SERIES: std::ops::RangeInclusive<usize> = 16..=1024;
/// So many slices for each thread may be taken and not given to the sink yet.
const SLICES_AHEAD: usize = 4;
/// Several times what it takes to begin a thread.
const WORTH_HELPERS: Duration = Duration::from_millis(1);
/// A thread that waits looks around after so long, whoever forgot to wake it.
const LOOK_AROUND: Duration = Duration::from_millis(50);

/// A helper has the usual stack, which is not enough for more nodes within each other.
const MOST_LEVELS: usize = 16;

/// Whether the series of a node can be evaluated slice by slice: each comes of one that was selected, as
/// soon as that is read, and everything else that is needed is a number.
pub(super) fn can_be_sliced(node: &Node<'_>, delayed_name_removal: bool) -> bool {
    can_be_sliced_within(node, delayed_name_removal, MOST_LEVELS)
}

fn can_be_sliced_within(node: &Node<'_>, delayed_name_removal: bool, levels: usize) -> bool {
    let Some(below) = levels.checked_sub(1) else { return false };
    // What does not stream is there only as a whole, once all slices are read.
    let is_sliced = |inner: &Node<'_>| {
        plan::streams(inner, delayed_name_removal) && can_be_sliced_within(inner, delayed_name_removal, below)
    };
    match &node.kind {
        Kind::Selector(_) => true,
        Kind::Negate(inner) => is_sliced(inner),
        Kind::Call { call, args } => match call.function.kernel {
            Kernel::Float(_) | Kernel::Date(_) => args.first().is_some_and(is_sliced),
            Kernel::Window(_) | Kernel::Sums { .. } | Kernel::KeepName(_) | Kernel::Rate(_) => {
                args.iter().all(|arg| matches!(arg.kind, Kind::Matrix { .. } | Kind::Number(_)))
            }
            // These look at all series at once, as `absent_over_time` does.
            _ => false,
        },
        _ => false,
    }
}

/// Tells a reader what to read.
pub(crate) trait Feed {
    /// The selected series, selected by whoever asks first.
    fn set(&self, matchers: &[Matcher], range: TimeRange) -> Result<&dyn SeriesSet, EvalError>;

    /// The series to read next, once those before are done; `None` at the end.
    fn next(&self) -> Result<Option<Range<usize>>, EvalError>;
}

/// Evaluates `node` and gives its series to `sink` in their order.
pub(super) fn stream(
    parent: &Evaluator<'_>,
    threads: &Threads,
    node: &Node<'_>,
    steps: &Steps,
    sink: Sink<'_>,
) -> Result<(), EvalError> {
    let (options, room) = (parent.options, parent.budget.samples_left());
    let shared = &Shared {
        source: parent.source,
        set: OnceLock::new(),
        state: Mutex::default(),
        changed: Condvar::new(),
        per_slice: (SLICE_POINTS / steps.count()).clamp(*SLICE_SERIES.start(), *SLICE_SERIES.end()),
    };
    let outcome = crossbeam::thread::scope(|scope| {
        let begin_helper = || {
            let Some(busy) = threads.helper() else { return false };
            let help = move |_: &crossbeam::thread::Scope<'_>| {
                let _busy = busy;
                shared.help(options, room, node, steps);
            };
            shared.lock().helpers += 1;
            scope.builder().name("larum-helper".to_owned()).spawn(help).is_ok()
        };
        let leader = Leader {
            shared,
            sink: RefCell::new(sink),
            batch: RefCell::default(),
            now: RefCell::new(None),
            started: Instant::now(),
            worth: threads.worth,
            begin_helper: &begin_helper,
            parent,
            ahead_bytes: Cell::new(0),
        };
        let evaluator = Evaluator::sharing(parent.source, options, steps, room, &leader);
        let outcome = evaluator.stream_here(node, steps, &mut |series| leader.take(series));
        shared.stop();
        parent.absorb(evaluator.apart());
        parent.budget.release_bytes(leader.ahead_bytes.get());
        outcome
    });
    let outcome = outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let spent = std::mem::take(&mut shared.lock().spent);
    spent.into_iter().for_each(|spent| parent.absorb(spent));
    if let Some(set) = shared.set.get() {
        set.warnings().into_iter().for_each(|text| parent.storage_warning(text));
    }
    outcome
}

/// What the threads of one stream share.
struct Shared<'a> {
    source: &'a dyn Source,
    set: OnceLock<Box<dyn SeriesSet + 'a>>,
    state: Mutex<State>,
    changed: Condvar,
    per_slice: usize,
}

#[derive(Default)]
struct State {
    /// How many series there are.
    len: usize,
    /// Series from this one on are free to be taken.
    next: usize,
    /// Series below this were given to the sink.
    delivered: usize,
    /// What helpers made of slices, by their first series.
    ready: BTreeMap<usize, Result<(usize, Batch), EvalError>>,
    /// Batches to be filled again.
    spare: Vec<Batch>,
    helpers: usize,
    /// Nobody waits for the rest.
    stopped: bool,
    /// A helper panicked.
    broken: bool,
    /// What helpers have read and said.
    spent: Vec<Apart>,
}

impl Shared<'_> {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        self.changed.wait_timeout(state, LOOK_AROUND).unwrap_or_else(PoisonError::into_inner).0
    }

    fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    /// Takes the next slice, if there is one and those taken are not too far ahead of the sink.
    fn take_slice(&self, state: &mut State) -> Option<Range<usize>> {
        let most_ahead = (state.helpers + 1) * SLICES_AHEAD * self.per_slice;
        if state.next >= state.len || state.next - state.delivered >= most_ahead {
            return None;
        }
        let start = state.next;
        state.next = state.len.min(start + self.per_slice);
        Some(start..state.next)
    }

    /// Evaluates slices until there are none left.
    fn help(&self, options: &EvalOptions, room: u64, node: &Node<'_>, steps: &Steps) {
        /// Tells who waits if this thread panics.
        struct Watch<'w, 'a>(&'w Shared<'a>);
        impl Drop for Watch<'_, '_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    self.0.lock().broken = true;
                    self.0.changed.notify_all();
                }
            }
        }
        let _watch = Watch(self);
        let helper = Helper { shared: self, batch: RefCell::default(), now: RefCell::new(None) };
        let evaluator = Evaluator::sharing(self.source, options, steps, room, &helper);
        let outcome = evaluator.stream_here(node, steps, &mut |series| {
            helper.batch.borrow_mut().push(series);
            Ok(())
        });
        let spent = evaluator.apart();
        let mut state = self.lock();
        if let (Err(error), Some(slice)) = (outcome, helper.now.take()) {
            state.ready.insert(slice.start, Err(error));
        }
        state.spent.push(spent);
        self.changed.notify_all();
    }
}

/// Feeds a helper.
struct Helper<'w, 'a> {
    shared: &'w Shared<'a>,
    /// The rows of the slice at hand.
    batch: RefCell<Batch>,
    now: RefCell<Option<Range<usize>>>,
}

impl Feed for Helper<'_, '_> {
    fn set(&self, _: &[Matcher], _: TimeRange) -> Result<&dyn SeriesSet, EvalError> {
        // The leader has selected before it called for help.
        self.shared.set.get().map(|set| &**set).ok_or(EvalError::Canceled)
    }

    fn next(&self) -> Result<Option<Range<usize>>, EvalError> {
        let mut state = self.shared.lock();
        if let Some(done) = self.now.take() {
            let batch =
                std::mem::replace(&mut *self.batch.borrow_mut(), state.spare.pop().unwrap_or_default());
            state.ready.insert(done.start, Ok((done.end, batch)));
            self.shared.changed.notify_all();
        }
        while !state.stopped && state.next < state.len {
            if let Some(slice) = self.shared.take_slice(&mut state) {
                *self.now.borrow_mut() = Some(slice.clone());
                return Ok(Some(slice));
            }
            state = self.shared.wait(state);
        }
        Ok(None)
    }
}

/// Feeds the thread of the evaluation, and the sink.
struct Leader<'w, 'a> {
    shared: &'w Shared<'a>,
    sink: RefCell<Sink<'w>>,
    /// The rows of the slice at hand, if another one comes before it.
    batch: RefCell<Batch>,
    /// The slice at hand, and whether its rows go to the sink at once.
    now: RefCell<Option<(Range<usize>, bool)>>,
    started: Instant,
    worth: Duration,
    begin_helper: &'w dyn Fn() -> bool,
    parent: &'w Evaluator<'a>,
    /// What is taken for batches.
    ahead_bytes: Cell<u64>,
}

/// What the leader does next.
enum Turn {
    Deliver(Result<(usize, Batch), EvalError>),
    Evaluate(Range<usize>, bool),
}

impl Leader<'_, '_> {
    /// Takes a row of the slice at hand.
    fn take(&self, series: &mut SeriesRow) -> Result<(), EvalError> {
        match &*self.now.borrow() {
            Some((_, true)) => (self.sink.borrow_mut())(series),
            _ => {
                self.batch.borrow_mut().push(series);
                Ok(())
            }
        }
    }

    /// Calls helpers if the rest is worth it, judging by how long the first slice took.
    fn call_helpers(&self, first: &Range<usize>, len: usize) {
        let slices_left = (len - first.end).div_ceil(self.shared.per_slice);
        let expected = self.started.elapsed().saturating_mul(u32::try_from(slices_left).unwrap_or(u32::MAX));
        if expected < self.worth {
            return;
        }
        let ahead_bytes = (SLICES_AHEAD * SLICE_POINTS * 2 * size_of::<f64>()) as u64;
        for _ in 1..slices_left {
            if !self.parent.budget.take_spare(ahead_bytes) {
                return;
            }
            if !(self.begin_helper)() {
                return self.parent.budget.release_bytes(ahead_bytes);
            }
            self.ahead_bytes.set(self.ahead_bytes.get() + ahead_bytes);
        }
    }

    fn turn(&self) -> Result<Option<Turn>, EvalError> {
        let mut state = self.shared.lock();
        loop {
            if state.broken {
                return Err(EvalError::Execution("a thread of the query ended".to_owned()));
            }
            let delivered = state.delivered;
            if delivered >= state.len {
                return Ok(None);
            }
            if let Some(outcome) = state.ready.remove(&delivered) {
                return Ok(Some(Turn::Deliver(outcome)));
            }
            if let Some(slice) = self.shared.take_slice(&mut state) {
                let at_once = slice.start == delivered;
                return Ok(Some(Turn::Evaluate(slice, at_once)));
            }
            state = self.shared.wait(state);
        }
    }
}

impl Feed for Leader<'_, '_> {
    fn set(&self, matchers: &[Matcher], range: TimeRange) -> Result<&dyn SeriesSet, EvalError> {
        if self.shared.set.get().is_none() {
            let set = selector::select(self.parent, matchers, range)?;
            self.shared.lock().len = set.len();
            let _ = self.shared.set.set(set);
        }
        self.shared.set.get().map(|set| &**set).ok_or(EvalError::Canceled)
    }

    fn next(&self) -> Result<Option<Range<usize>>, EvalError> {
        if let Some((done, at_once)) = self.now.take() {
            let len = {
                let mut state = self.shared.lock();
                match at_once {
                    true => state.delivered = done.end,
                    false => {
                        let spare = state.spare.pop().unwrap_or_default();
                        let batch = self.batch.replace(spare);
                        state.ready.insert(done.start, Ok((done.end, batch)));
                    }
                }
                state.len
            };
            self.shared.changed.notify_all();
            if done.start == 0 && done.end < len {
                self.call_helpers(&done, len);
            }
        }
        loop {
            match self.turn()? {
                None => return Ok(None),
                Some(Turn::Evaluate(slice, at_once)) => {
                    *self.now.borrow_mut() = Some((slice.clone(), at_once));
                    return Ok(Some(slice));
                }
                Some(Turn::Deliver(outcome)) => {
                    let (end, mut batch) = outcome?;
                    batch.drain(&mut **self.sink.borrow_mut())?;
                    let mut state = self.shared.lock();
                    state.delivered = end;
                    state.spare.push(batch);
                    drop(state);
                    self.shared.changed.notify_all();
                }
            }
        }
    }
}

/// See [`Row::histograms`].
type StepHistograms = Vec<(u32, Arc<Histogram>)>;

/// The rows of a slice.
#[derive(Default)]
struct Batch {
    /// Of each series its labels, whether the name is to be dropped, and at which steps it has floats.
    series: Vec<(Labels, bool, Presence)>,
    /// One after the other.
    floats: Vec<f64>,
    /// By position of the series.
    histograms: Vec<(usize, StepHistograms)>,
}

impl Batch {
    fn push(&mut self, series: &mut SeriesRow) {
        let row = &mut series.row;
        if !row.histograms.is_empty() {
            self.histograms.push((self.series.len(), std::mem::take(&mut row.histograms)));
        }
        self.floats.extend_from_slice(&row.floats);
        self.series.push((series.labels.clone(), series.drop_name, row.present.clone()));
    }

    /// Gives all rows to the sink.
    fn drain(&mut self, sink: Sink<'_>) -> Result<(), EvalError> {
        let count = self.floats.len() / self.series.len().max(1);
        let mut histograms = self.histograms.drain(..).peekable();
        let row = Row::full(Vec::with_capacity(count));
        let mut out = SeriesRow { labels: Labels::empty(), drop_name: false, row };
        let rows = self.floats.chunks_exact(count.max(1));
        for (at, ((labels, drop_name, present), floats)) in self.series.drain(..).zip(rows).enumerate() {
            out.labels = labels;
            out.drop_name = drop_name;
            out.row.floats.clear();
            out.row.floats.extend_from_slice(floats);
            out.row.present = present;
            out.row.histograms.clear();
            if let Some((_, of_series)) = histograms.next_if(|(of, _)| *of == at) {
                out.row.histograms = of_series;
            }
            sink(&mut out)?;
        }
        drop(histograms);
        self.floats.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::eval::evaluate;
    use super::super::parse;
    use super::super::testlang::Memory;
    use super::super::value::Value;
    use super::*;
    use crate::budget::{MemoryBudget, Part};
    use crate::storage::Timestamp;
    use larum_storage_format::labels::METRIC_NAME;
    use larum_storage_format::{Sample, Value as SampleValue};

    /// Threads that help whatever there is to do.
    fn eager(most: usize) -> Option<Arc<Threads>> {
        Some(Arc::new(Threads { worth: Duration::ZERO, ..Threads::new(most) }))
    }

    /// Counters of random floats, with gaps, resets and, in some, histograms.
    fn random_series(series: usize, samples: i64) -> Memory {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let mut memory = Memory::default();
        for n in 0..series {
            let is_histogram = n % 50 == 49;
            let a = if is_histogram { "h".to_owned() } else { format!("{}", n % 7) };
            let b = format!("{n}");
            let pairs = [(METRIC_NAME, "m_total"), ("a", a.as_str()), ("b", b.as_str())];
            let labels = Labels::from_pairs(pairs).unwrap();
            let mut sum = 0.0;
            for t in 0..samples {
                if next(8) == 0 {
                    continue;
                }
                sum = if next(40) == 0 { 0.0 } else { sum + next(1 << 40) as f64 / 3.0 };
                let value = match is_histogram {
                    true => SampleValue::Histogram(Arc::new(Histogram {
                        count: sum,
                        sum,
                        ..Histogram::default()
                    })),
                    false => SampleValue::Float(sum),
                };
                let timestamp_ms = t * 10_000 + (n % 5) as i64;
                memory.insert(&labels, Sample { timestamp_ms, start_timestamp_ms: None, value });
            }
        }
        memory
    }

    #[test]
    fn answers_do_not_depend_on_how_many_threads_there_are() {
        let data = random_series(600, 40);
        let queries = [
            "sum by (a) (rate(m_total[1m]))",
            "rate(m_total[1m])",
            r#"avg(avg_over_time(m_total{a!="h"}[90s]))"#,
            "stddev by (a) (m_total)",
            "-m_total > -1e13",
            "topk(3, delta(m_total[50s]))",
            "quantile(0.3, sqrt(m_total))",
            "count(m_total)",
            "absent(m_total)",
            "-absent_over_time(m_total[15s])",
            r#"abs(absent_over_time(m_total{b=~"1|2|599"}[30s]))"#,
            r#"-abs({__name__=~"m_.*"})"#,
            "quantile_over_time(scalar(count(m_total)) / 1000, m_total[1m])",
            r#"sum(m_total{a!="h"}) + count(m_total)"#,
            "m_total",
            &format!("{}m_total{}", "-(".repeat(200), ")".repeat(200)),
        ];
        let range = |count: i64| {
            let time = |i: i64| Timestamp::from_millis(100_000 + i * 10_000);
            Steps::new(time(0), time(count - 1), Duration::from_secs(10)).unwrap()
        };
        for query in queries {
            let expr = parse(query).unwrap();
            for steps in [Steps::instant(Timestamp::from_millis(395_000)), range(28)] {
                let answer = |threads| {
                    let options = EvalOptions { threads, ..EvalOptions::default() };
                    let answer = evaluate(&expr, &data, steps, &options).unwrap();
                    let stats = (answer.stats.samples, answer.stats.series);
                    assert!(stats.0 > 0, "{query}");
                    // Rust prints the shortest text of each float that no other has.
                    (format!("{:?}", answer.value), answer.annotations.all_infos(query), stats)
                };
                let alone = answer(None);
                for most in [1, 2, 3, 7] {
                    assert_eq!(answer(eager(most)), alone, "{query} with {most} threads");
                }
            }
        }
    }

    #[test]
    fn helpers_take_part_and_leave_nothing_busy_or_reserved() {
        let data = random_series(600, 40);
        let budget = MemoryBudget::new(64 << 20);
        let steps = {
            let time = |i: i64| Timestamp::from_millis(100_000 + i * 1000);
            Steps::new(time(0), time(280), Duration::from_secs(1)).unwrap()
        };
        for (query, fails) in [("count(rate(m_total[1m]))", false), ("m_total", true)] {
            let threads = eager(3);
            let memory = Arc::new(budget.reservation(Part::Queries));
            let max_samples = if fails { 10_000 } else { 50_000_000 };
            let options = EvalOptions {
                threads: threads.clone(),
                memory: Some(memory.clone()),
                max_samples,
                ..EvalOptions::default()
            };
            let outcome = evaluate(&parse(query).unwrap(), &data, steps, &options);
            assert_eq!(outcome.is_err(), fails, "{outcome:?}");
            assert_eq!(threads.unwrap().busy.load(Relaxed), 0);
            if let Ok(answer) = outcome {
                assert!(matches!(answer.value, Value::Matrix(matrix) if matrix[0].floats.len() == 281));
                assert!(memory.used() < 1 << 20);
            }
        }
    }

    #[test]
    fn there_are_no_more_helpers_than_cores_that_nobody_keeps_busy() {
        let threads = Threads::new(3);
        let first = threads.begin();
        let helper = threads.helper().unwrap();
        let second = threads.begin();
        assert!(threads.helper().is_none());
        let third = threads.begin();
        drop((helper, second));
        assert!(threads.helper().is_some(), "two evaluations on three cores");
        drop((first, third));
        assert_eq!(threads.busy.load(Relaxed), 0);
    }
}
