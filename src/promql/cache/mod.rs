//! Answers of range queries, kept to be used again: dashboards ask the same over and over, each time a
//! few steps further on.
//!
//! What is kept of a query is a [`Run`] of steps. When it is asked again, the steps that cannot have
//! changed are taken from there, and only those before and after them are evaluated. The answer is that
//! of an evaluation of all steps, to the last bit, with all its annotations; where that is not certain, all
//! steps are evaluated:
//!
//! * Storage tells which times were touched since the run was evaluated ([`crate::storage::touched`]), and
//!   from when on samples are shown. The run's version is taken before its samples are looked at, so
//!   what was acknowledged before a query begins is in its answer.
//! * A step depends on the samples in its [`reach::Reach`] alone, whatever steps are evaluated with it:
//!   the evaluation sees to it that series come in one order ([`super::eval::Evaluator`]); what it cannot
//!   see to is not kept, see [`reach`].
//! * What there is to say about a run is said about all of its steps. If not all of them are used, it is
//!   only known to be said still if the steps that were evaluated give rise to it again.
//! * A query that would hold more than half of the samples that it may is evaluated as a whole, so that it
//!   is refused if it must be. That is an estimate, by the fullest part: where series come and go fast, an
//!   answer may be given whose evaluation would be refused, but never the other way round.
//!
//! Whoever wants to know what an evaluation takes asks without the cache: with it, figures are about what was
//! evaluated.

mod reach;
mod run;
#[cfg(test)]
mod tests;

use super::annotations::Annotations;
use super::ast::Expr;
use super::eval::{EvalError, EvalOptions, Evaluated, evaluate_noting};
use super::steps::Steps;
use super::value::{Answer, Series, Stats, Value};
use crate::budget::{MemoryBudget, Part, Pressure, Reservation};
use crate::storage::touched::Version;
use crate::storage::{Storage, View};
use reach::{Key, Reach};
use run::{Peak, Piece, Run, Stretch, join};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// So many runs of one key are kept: somebody looks at today, somebody else at last week.
const RUNS_PER_KEY: usize = 4;
/// A run grows to so many times the steps of the query that asks for it, before it is cut back to them.
const GROWTH: u64 = 4;
/// A run that would take more than this part of the cache is not kept.
const LARGEST_SHARE: u64 = 4;
/// Steps are taken from a run if it has at least this part of those that are asked for: evaluating in two
/// parts takes more than in one.
const SMALLEST_SHARE: u64 = 4;
/// What is evicted at a time, as a part of the cache.
const EVICTED_SHARE: u64 = 8;

/// See the module.
pub(crate) struct ResultCache {
    capacity_bytes: u64,
    memory: MemoryBudget,
    kept: Mutex<Keeper>,
    counters: Counters,
}

struct Keeper {
    runs: HashMap<Key, Vec<Kept>, foldhash::fast::RandomState>,
    /// Grows with each use.
    clock: u64,
    bytes: u64,
    held: Reservation,
}

struct Kept {
    run: Arc<Run>,
    bytes: u64,
    used: u64,
}

#[derive(Default)]
struct Counters {
    hits: AtomicU64,
    partial_hits: AtomicU64,
    misses: AtomicU64,
    bypassed: AtomicU64,
    steps_reused: AtomicU64,
    steps_evaluated: AtomicU64,
    evicted: AtomicU64,
}

/// Figures about the cache of results. All but the last two only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResultCacheStats {
    /// Range queries of which every step was there.
    pub hits: u64,
    /// Range queries of which some steps were there.
    pub partial_hits: u64,
    /// Range queries of which no step was there, or too few.
    pub misses: u64,
    /// Range queries of which no step can be kept, or that asked to be evaluated.
    pub bypassed: u64,
    /// Steps that were taken from the cache.
    pub steps_reused: u64,
    /// Steps that were evaluated, of queries that were not bypassed.
    pub steps_evaluated: u64,
    /// Runs of steps that were given up for want of room.
    pub evicted: u64,
    /// Runs of steps that are there.
    pub runs: u64,
    /// What they take.
    pub bytes: u64,
}

/// A range query on its way.
struct Asked<'q> {
    expr: &'q Expr,
    steps: Steps,
    options: &'q EvalOptions,
    key: Key,
    reach: Reach,
    /// Taken before the view.
    version: Version,
    view: View,
}

impl ResultCache {
    /// Keeps so many bytes at most; with 0, nothing.
    pub(crate) fn new(capacity_bytes: u64, memory: MemoryBudget) -> ResultCache {
        let held = memory.reservation(Part::Caches);
        let kept = Keeper { runs: HashMap::default(), clock: 0, bytes: 0, held };
        ResultCache { capacity_bytes, memory, kept: Mutex::new(kept), counters: Counters::default() }
    }

    /// Evaluates as [`super::evaluate`] does, but takes steps from the cache.
    pub(crate) fn evaluate(
        &self,
        expr: &Expr,
        storage: &Storage,
        steps: Steps,
        options: &EvalOptions,
    ) -> Result<Answer, EvalError> {
        let view = || storage.view().within(options.memory.as_ref());
        if self.capacity_bytes == 0 || steps.step_ms() == 0 {
            return super::evaluate(expr, &view(), steps, options);
        }
        let usable = options.use_cache && !options.explain && steps.count() as u64 <= options.max_samples;
        let Some((key, reach)) = usable.then(|| reach::of(expr, &steps, options)).flatten() else {
            self.counters.bypassed.fetch_add(1, Relaxed);
            return super::evaluate(expr, &view(), steps, options);
        };
        let version = storage.version();
        let asked = Asked { expr, steps, options, key, reach, version, view: view() };
        let held_bytes = options.memory.as_ref().map_or(0, |memory| memory.used());
        if let Some(found) = self.find(&asked, storage) {
            if let Some(answer) = self.answer(&asked, found)? {
                return Ok(answer);
            }
            // What was evaluated for it is of no use.
            if let Some(memory) = &options.memory {
                memory.shrink(memory.used().saturating_sub(held_bytes));
            }
        }
        self.counters.misses.fetch_add(1, Relaxed);
        self.counters.steps_evaluated.fetch_add(steps.count() as u64, Relaxed);
        let evaluated = evaluate_noting(expr, &asked.view, steps, options)?;
        if asked.can_be_kept(&evaluated) {
            let peak = peak_of(&evaluated.answer, steps.count() as u64);
            self.keep_whole(&asked, &evaluated.answer, peak);
        }
        Ok(evaluated.answer)
    }

    /// Figures.
    pub(crate) fn stats(&self) -> ResultCacheStats {
        let Counters { hits, partial_hits, misses, bypassed, steps_reused, steps_evaluated, evicted } =
            &self.counters;
        let kept = self.kept();
        ResultCacheStats {
            hits: hits.load(Relaxed),
            partial_hits: partial_hits.load(Relaxed),
            misses: misses.load(Relaxed),
            bypassed: bypassed.load(Relaxed),
            steps_reused: steps_reused.load(Relaxed),
            steps_evaluated: steps_evaluated.load(Relaxed),
            evicted: evicted.load(Relaxed),
            runs: kept.runs.values().map(|runs| runs.len() as u64).sum(),
            bytes: kept.bytes,
        }
    }

    /// Gives everything up: somebody needs the memory.
    pub(crate) fn clear(&self) {
        let evicted = self.kept().shrink_to(0);
        self.counters.evicted.fetch_add(evicted, Relaxed);
    }

    /// The run that has most of the steps that are asked for.
    fn find(&self, asked: &Asked<'_>, storage: &Storage) -> Option<Found> {
        let runs: Vec<Arc<Run>> = {
            let kept = self.kept();
            kept.runs.get(&asked.key)?.iter().map(|kept| kept.run.clone()).collect()
        };
        let (wanted, step_ms) = (asked.wanted(), asked.steps.step_ms());
        let valid = |run: Arc<Run>| {
            let changes = storage.changes_since(run.version);
            let valid = run.still_valid(step_ms, &asked.reach, &changes, asked.view.borders());
            let used = valid.into_iter().filter_map(|valid| Some((valid, valid.intersect(&wanted)?)));
            let (valid, used) = used.max_by_key(|(_, used)| used.count(step_ms))?;
            Some(Found { run, valid, used })
        };
        let found = runs.into_iter().filter_map(valid).max_by_key(|found| found.used.count(step_ms))?;
        let least = wanted.count(step_ms).div_ceil(SMALLEST_SHARE);
        (found.used.count(step_ms) >= least).then_some(found)
    }

    /// The answer with the steps that were found; `None` if it is not certain that it is the same as if all
    /// were evaluated.
    fn answer(&self, asked: &Asked<'_>, found: Found) -> Result<Option<Answer>, EvalError> {
        let (wanted, step_ms, limit) = (asked.wanted(), asked.steps.step_ms(), asked.options.max_samples);
        let (run, used, count) = (&found.run, found.used, wanted.count(step_ms));
        if run.peak.over(count) > limit / 2 {
            return Ok(None);
        }
        let mut missing: [Option<(Stretch, Answer)>; 2] = [None, None];
        for (place, stretch) in missing.iter_mut().zip(wanted.around(&used, step_ms)) {
            let Some(stretch) = stretch else { continue };
            let steps = Steps::from_millis(stretch.first_ms, stretch.last_ms, step_ms);
            match evaluate_noting(asked.expr, &asked.view, steps, asked.options) {
                Ok(evaluated) if asked.can_be_kept(&evaluated) => *place = Some((stretch, evaluated.answer)),
                Err(error @ (EvalError::Timeout | EvalError::Canceled | EvalError::CanceledBy(_))) => {
                    return Err(error);
                }
                // What is to be said of it, all steps together say.
                Ok(_) | Err(_) => return Ok(None),
            }
        }
        let evaluated = || missing.iter().flatten();
        let said = evaluated().map(|(_, answer)| &answer.annotations);
        let Some(annotations) = annotations(run, used, said) else { return Ok(None) };
        let [before, after] = missing
            .each_ref()
            .map(|part| part.as_ref().map(|(stretch, answer)| (matrix_of(answer), *stretch)));
        let pieces: Vec<Piece<'_>> =
            before.into_iter().chain([(&run.series[..], used)]).chain(after).collect();
        let rows = pieces.iter().map(|(series, _)| series.len() as u64).max().unwrap_or(0);
        let peaks = evaluated().map(|(stretch, answer)| peak_of(answer, stretch.count(step_ms)));
        let peak = peaks.fold(run.peak, |a, b| if b.over(count) > a.over(count) { b } else { a });
        let peak_samples = peak.over(count).max(rows * count);
        if peak_samples > limit / 2 {
            return Ok(None);
        }
        if let Some(memory) = &asked.options.memory
            && memory.grow(run.bytes()).is_err()
        {
            return Ok(None);
        }
        let value = Value::Matrix(join(&pieces));
        let mut stats = Stats { peak_samples, ..Stats::default() };
        for (_, answer) in evaluated() {
            stats.series += answer.stats.series;
            stats.samples += answer.stats.samples;
            stats.peak_bytes = stats.peak_bytes.max(answer.stats.peak_bytes);
        }
        let answer = Answer { value, annotations, stats };
        let steps_evaluated = evaluated().map(|(stretch, _)| stretch.count(step_ms)).sum::<u64>();
        self.counters.steps_reused.fetch_add(count - steps_evaluated, Relaxed);
        self.counters.steps_evaluated.fetch_add(steps_evaluated, Relaxed);
        if steps_evaluated == 0 {
            self.counters.hits.fetch_add(1, Relaxed);
            self.kept().use_again(&asked.key, run);
        } else {
            self.counters.partial_hits.fetch_add(1, Relaxed);
            self.keep_extended(asked, found, &missing, &answer, peak);
        }
        Ok(Some(answer))
    }

    /// Keeps a run with what had to be evaluated besides.
    fn keep_extended(
        &self,
        asked: &Asked<'_>,
        Found { run, valid, .. }: Found,
        [before, after]: &[Option<(Stretch, Answer)>; 2],
        answer: &Answer,
        peak: Peak,
    ) {
        let (wanted, step_ms) = (asked.wanted(), asked.steps.step_ms());
        let grown = Stretch { last_ms: wanted.last_ms.max(valid.last_ms), ..valid };
        let grows = before.is_none() && grown.count(step_ms) <= wanted.count(step_ms).saturating_mul(GROWTH);
        let (true, Some((_, later))) = (grows, after) else { return self.keep_whole(asked, answer, peak) };
        let mut kept = self.kept();
        kept.take(&asked.key, &run);
        // Mostly nobody else reads it, and it grows where it is.
        let Ok(mut run) = Arc::try_unwrap(run) else {
            drop(kept);
            return self.keep_whole(asked, answer, peak);
        };
        let is_whole = valid == run.steps;
        if !is_whole {
            run.cut_to(valid);
        }
        run.extend(wanted.last_ms, matrix_of(later));
        run.notes_are_exact = run.steps == wanted || is_whole && run.notes_are_exact;
        match run.steps == wanted {
            true => run.notes = answer.annotations.clone(),
            false => run.notes.merge(answer.annotations.clone()),
        }
        run.peak = peak;
        (run.version, run.borders) = (asked.version, asked.view.borders().clone());
        self.put(kept, &asked.key, run);
    }

    /// Keeps an answer as a run of its own.
    fn keep_whole(&self, asked: &Asked<'_>, answer: &Answer, peak: Peak) {
        let series = matrix_of(answer);
        // Before it is copied.
        if run::bytes_of(series) > self.capacity_bytes / LARGEST_SHARE {
            return;
        }
        let run = Run {
            steps: asked.wanted(),
            series: series.to_vec(),
            notes: answer.annotations.clone(),
            notes_are_exact: true,
            peak,
            version: asked.version,
            borders: asked.view.borders().clone(),
        };
        self.put(self.kept(), &asked.key, run);
    }

    /// Puts a run in the place of those that it overlaps.
    fn put(&self, mut kept: MutexGuard<'_, Keeper>, key: &Key, run: Run) {
        let bytes = run.bytes() + key.bytes();
        let is_short = self.memory.pressure() >= Pressure::ShrinkCaches;
        let mut evicted = 0;
        if bytes <= self.capacity_bytes / LARGEST_SHARE && !is_short {
            evicted += kept.insert(key, run, bytes);
        }
        let most = self.capacity_bytes;
        if is_short {
            evicted += kept.shrink_to(0);
        } else if kept.bytes > most {
            evicted += kept.shrink_to(most - most / EVICTED_SHARE);
        }
        self.counters.evicted.fetch_add(evicted, Relaxed);
    }

    fn kept(&self) -> MutexGuard<'_, Keeper> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Steps of a run that answer a part of a query.
struct Found {
    run: Arc<Run>,
    /// Those that are what they were.
    valid: Stretch,
    /// Those of them that are asked for.
    used: Stretch,
}

impl Asked<'_> {
    fn wanted(&self) -> Stretch {
        let steps = &self.steps;
        Stretch { first_ms: steps.start_ms(), last_ms: steps.at(steps.count() - 1) }
    }

    /// Whether steps evaluated apart are what they would be together with others.
    fn can_be_kept(&self, evaluated: &Evaluated) -> bool {
        let is_damaged = evaluated.answer.annotations.has_storage_warning();
        let depends_on_start = evaluated.unchecked_hints && self.reach.shows_hints;
        !is_damaged && !depends_on_start
    }
}

/// What there is to say about steps `used` of a run together with others, of which this was `said`. `None`
/// if that is not certain.
fn annotations<'a>(
    run: &Run,
    used: Stretch,
    said: impl Iterator<Item = &'a Annotations>,
) -> Option<Annotations> {
    let mut said = said.filter(|said| !said.is_empty());
    let first = said.next();
    // Some count what they say, over all steps.
    if said.any(|other| Some(other) != first) {
        return None;
    }
    match first {
        Some(first) => first.contains(&run.notes).then(|| first.clone()),
        None if run.notes.is_empty() || run.notes_are_exact && used == run.steps => Some(run.notes.clone()),
        None => None,
    }
}

/// How many samples an evaluation of so many steps held.
fn peak_of(answer: &Answer, steps: u64) -> Peak {
    Peak { samples: answer.stats.peak_samples, steps }
}

/// The series of the answer to a range query.
fn matrix_of(answer: &Answer) -> &[Series] {
    match &answer.value {
        Value::Matrix(series) => series,
        _ => &[],
    }
}

impl Keeper {
    fn insert(&mut self, key: &Key, run: Run, bytes: u64) -> u64 {
        self.clock += 1;
        let runs = match self.runs.get_mut(key) {
            Some(runs) => runs,
            None => self.runs.entry(key.clone()).or_default(),
        };
        let mut freed = 0;
        runs.retain(|kept| {
            let stays = kept.run.steps.intersect(&run.steps).is_none();
            freed += if stays { 0 } else { kept.bytes };
            stays
        });
        let mut evicted = 0;
        if runs.len() >= RUNS_PER_KEY
            && let Some(oldest) = (0..runs.len()).min_by_key(|&i| runs[i].used)
        {
            freed += runs.swap_remove(oldest).bytes;
            evicted = 1;
        }
        runs.push(Kept { run: Arc::new(run), bytes, used: self.clock });
        self.bytes += bytes;
        // It is kept for speed only; but nobody refuses what caches hold.
        let _ = self.held.grow(bytes);
        self.give_back(freed);
        evicted
    }

    /// Takes a run out, if it is there still.
    fn take(&mut self, key: &Key, run: &Arc<Run>) {
        let Some(runs) = self.runs.get_mut(key) else { return };
        let Some(place) = runs.iter().position(|kept| Arc::ptr_eq(&kept.run, run)) else { return };
        let bytes = runs.swap_remove(place).bytes;
        if runs.is_empty() {
            self.runs.remove(key);
        }
        self.give_back(bytes);
    }

    fn use_again(&mut self, key: &Key, run: &Arc<Run>) {
        self.clock += 1;
        let runs = self.runs.get_mut(key).into_iter().flatten();
        for kept in runs.filter(|kept| Arc::ptr_eq(&kept.run, run)) {
            kept.used = self.clock;
        }
    }

    /// Gives up what was not used for longest, and tells how many runs that are.
    fn shrink_to(&mut self, most_bytes: u64) -> u64 {
        let mut by_age: Vec<(u64, u64)> =
            self.runs.values().flatten().map(|kept| (kept.used, kept.bytes)).collect();
        by_age.sort_unstable();
        let (mut left, mut until, mut evicted) = (self.bytes, 0, 0);
        for (used, bytes) in by_age {
            if left <= most_bytes {
                break;
            }
            (left, until, evicted) = (left - bytes, used, evicted + 1);
        }
        if evicted > 0 {
            self.runs.values_mut().for_each(|runs| runs.retain(|kept| kept.used > until));
            self.runs.retain(|_, runs| !runs.is_empty());
            self.give_back(self.bytes - left);
        }
        evicted
    }

    fn give_back(&mut self, bytes: u64) {
        self.bytes -= bytes;
        self.held.shrink(bytes);
    }
}
