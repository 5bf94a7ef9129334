//! One append, from label bytes to rows.
//!
//! 1. Each series of the batch becomes a ref, or it is unknown ([`Scratch::resolve`]).
//! 2. Unknown series are parsed, checked and created; what is refused is noted.
//! 3. The samples that are left become columns of refs, places, timestamps and values.
//! 4. They are encoded as one WAL frame, with declarations of those series that the generation
//!    has not declared in a written frame yet, and written.
//! 5. They go into the rows of their groups. Before the frame is written nobody sees them.
//!
//! All buffers live in a [`Scratch`] and are used again, so that a batch of known series allocates
//! nothing.

use super::generation::{Generation, RowBuffer, Rows};
use super::index::{Index, NotCreated};
use super::limits::{check_histogram, check_labels};
use super::lookup::RawHash;
use super::scrape_groups::{Home, Together};
use super::{Head, HeadOptions};
use crate::storage::batch::{Appended, Batch, Refusal, Refused};
use crate::storage::error::{AppendError, UnavailableCause};
use crate::storage::policy::{Borders, PolicyBorders, from};
use crate::storage::time::TimeRange;
use crate::storage::wal::Pending;
use larum_storage_format::wal::{FrameEncoder, SeriesDeclaration};
use larum_storage_format::{Histogram, Labels, SeriesId};
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Stands for a series whose samples were all refused.
const REFUSED: u32 = u32::MAX;
/// Stands for a series that is not known, and none of whose samples will be kept.
const NONE_GOOD: u32 = u32::MAX - 1;
/// So many scratches are kept, and none whose frames grew beyond so many bytes: known series take
/// ten bytes a sample, and a burst of new ones is not worth remembering.
const MAX_SCRATCHES: usize = 64;
const MAX_SCRATCH_BYTES: usize = 512 << 10;

/// The buffers of one append.
#[derive(Default)]
pub(super) struct Scratch {
    /// Of each series of the batch.
    series: Vec<u32>,
    series_homes: Vec<Home>,
    /// Refs and groups are below these.
    bounds: (usize, usize),
    /// Series of the batch that are not known, with the hash under which they were looked up.
    unknown: Vec<(u32, RawHash)>,
    /// The labels of those that were created.
    created: Vec<(u32, Labels)>,
    /// Where each series of the batch begins, if any sample is older than the newest border.
    borders_ms: Vec<i64>,
    /// The samples that are kept.
    kept: RowBuffer,
    undeclared: Vec<u32>,
    sorted: Sorted,
    encoder: FrameEncoder,
}

/// Columns in the order of their groups and times.
#[derive(Default)]
struct Sorted {
    order: Vec<u32>,
    homes: Vec<Home>,
    timestamps: Vec<i64>,
    values: Vec<f64>,
}

/// Which samples are not refused for their time.
#[derive(Debug, Clone)]
pub(crate) struct Accept {
    /// Those in this range,
    range: TimeRange,
    /// and no older than the border of their series.
    by_policy: Option<PolicyBorders>,
}

impl Accept {
    /// Those that are kept, up to `newest_ms`.
    pub fn new(borders: Borders, newest_ms: i64) -> Accept {
        Accept { range: TimeRange::new(borders.oldest_ms, newest_ms), by_policy: borders.by_policy }
    }

    /// Which of a series that this policy keeps.
    fn of_policy(&self, policy: impl FnOnce(&PolicyBorders) -> usize) -> TimeRange {
        let border_ms = self.by_policy.as_ref().map(|borders| borders.borders_ms[policy(borders)]);
        from(self.range, border_ms.unwrap_or(i64::MIN))
    }
}

impl Head {
    /// Writes one WAL frame with the samples of `batch` that are in `accept` and are otherwise in
    /// order, and puts them into the active generation, where readers see them at once.
    ///
    /// # Errors
    /// If the WAL cannot be written; then no sample was kept.
    pub fn append_start(&self, batch: &Batch, accept: &Accept) -> Result<Pending, AppendError> {
        let mut scratches = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scratch = scratches.pop().unwrap_or_default();
        drop(scratches);
        let outcome = self.append_with(&mut scratch, batch, accept);
        let mut scratches = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        if scratches.len() < MAX_SCRATCHES && scratch.encoder.capacity() <= MAX_SCRATCH_BYTES {
            scratches.push(scratch);
        }
        outcome
    }

    fn append_with(
        &self,
        scratch: &mut Scratch,
        batch: &Batch,
        accept: &Accept,
    ) -> Result<Pending, AppendError> {
        if batch.is_too_long() {
            return Err(AppendError::too_long(&"it has 4 GiB of labels or samples; append it in parts"));
        }
        let gate = self.gate();
        let generation: &Generation = &gate;
        scratch.resolve(self, batch);
        let mut refused = Vec::new();
        if !scratch.unknown.is_empty() {
            self.create_unknown(scratch, batch, accept, &mut refused)?;
        }
        self.find_borders(scratch, batch, accept);
        scratch.gather(batch, accept.range, &mut refused);
        refused.sort_by_key(|refused| refused.sample);
        self.counters.refused_samples.fetch_add(refused.len() as u64, Relaxed);
        let appended = Appended { accepted: scratch.kept.refs.len(), refused };
        if scratch.kept.refs.is_empty() {
            return Ok(Pending::new(appended, None));
        }
        generation.grow(scratch.bounds.0, scratch.bounds.1);
        self.encode(scratch, generation);
        let frame = scratch.encoder.finish().map_err(|e| AppendError::too_long(&e))?;
        let ticket = self.wal.append(frame)?;
        generation.declare(&scratch.undeclared);
        let rows = scratch.rows();
        let range = rows.time_range();
        let change = self.touched().append(range.min_ms);
        generation.put(&rows, range);
        drop(change);
        let (all, histograms) = (rows.refs.len() as u64, rows.histograms.len() as u64);
        self.counters.float_samples.fetch_add(all - histograms, Relaxed);
        self.counters.histogram_samples.fetch_add(histograms, Relaxed);
        Ok(Pending::new(appended, Some(ticket)))
    }

    /// Creates the series that were not found, or refuses all samples of them.
    fn create_unknown(
        &self,
        scratch: &mut Scratch,
        batch: &Batch,
        accept: &Accept,
        refused: &mut Vec<Refused>,
    ) -> Result<(), AppendError> {
        let mut refuse = |series: u32, reason: &Refusal| {
            let samples = batch.series_samples(series as usize);
            refused.extend(samples.map(|sample| Refused {
                sample: sample as u32,
                series,
                reason: reason.clone(),
            }));
        };
        // Parsed before any lock is taken.
        let mut parsed: Vec<(u32, RawHash, Labels, SeriesId, i64)> =
            Vec::with_capacity(scratch.unknown.len());
        for &(series, hash) in &scratch.unknown {
            match parse(batch, series, &self.options) {
                Ok((labels, id)) => {
                    let own = accept.of_policy(|borders| borders.policies.policy_of(&labels));
                    let is_good = |sample: usize| {
                        let t_ms = batch.timestamps()[sample];
                        check_sample(t_ms, batch.histogram_at(sample), own).is_ok().then_some(t_ms)
                    };
                    match batch.series_samples(series as usize).find_map(is_good) {
                        Some(t_ms) => parsed.push((series, hash, labels, id, t_ms)),
                        // It is not worth memory.
                        None => scratch.series[series as usize] = NONE_GOOD,
                    }
                }
                Err(reason) => refuse(series, &reason),
            }
        }
        let mut index = self.index_mut();
        let mut lookup = self.lookup_mut();
        for (series, hash, labels, id, t_ms) in parsed {
            match index.find_or_create(id, &labels, Together::At(t_ms)) {
                Ok((found, is_new)) => {
                    let home = index.home(found);
                    if is_new {
                        lookup.add(found, home);
                        self.counters.series_created.fetch_add(1, Relaxed);
                        scratch.created.push((found, labels));
                    }
                    lookup.learn(found, hash);
                    scratch.series[series as usize] = found;
                    scratch.series_homes[series as usize] = home;
                }
                Err(NotCreated::IdentityTaken) => refuse(series, &Refusal::IdentityTaken),
                Err(NotCreated::Full) => {
                    return Err(AppendError {
                        cause: UnavailableCause::Memory(
                            "there are as many series as can be told apart".into(),
                        ),
                        retry_after: Duration::from_secs(5),
                    });
                }
            }
        }
        scratch.bounds = lookup.bounds();
        Ok(())
    }

    /// Finds out where the series of the batch begin, if any sample is so old that it matters.
    fn find_borders(&self, scratch: &mut Scratch, batch: &Batch, accept: &Accept) {
        scratch.borders_ms.clear();
        let Some(PolicyBorders { policies, borders_ms, newest_ms }) = &accept.by_policy else { return };
        if !batch.timestamps().iter().any(|t| t < newest_ms) {
            return;
        }
        let index = self.index();
        let border_ms = |(series, &found): (usize, &u32)| match found {
            REFUSED => i64::MIN,
            NONE_GOOD => {
                let labels = batch.parse_labels(series).unwrap_or_default();
                borders_ms[policies.policy_of(&labels)]
            }
            known => borders_ms[index.policy_of(known, policies)],
        };
        scratch.borders_ms.extend(scratch.series.iter().enumerate().map(border_ms));
    }

    fn encode(&self, scratch: &mut Scratch, generation: &Generation) {
        let Scratch { kept, undeclared, created, encoder, .. } = scratch;
        encoder.clear();
        undeclared.clear();
        generation.undeclared(&kept.refs, undeclared);
        if !undeclared.is_empty() {
            undeclared.sort_unstable();
            undeclared.dedup();
            created.sort_unstable_by_key(|(series, _)| *series);
            let mut created = created.drain(..).peekable();
            // Those of the series at hand, unless it is known from an earlier batch.
            let mut labels_of = |series: u32, index: &Index| {
                while created.next_if(|(other, _)| *other < series).is_some() {}
                match created.next_if(|(other, _)| *other == series) {
                    Some((_, labels)) => labels,
                    None => index.labels(series),
                }
            };
            let index = self.index();
            let declarations: Vec<SeriesDeclaration> = undeclared
                .iter()
                .map(|&series| SeriesDeclaration {
                    series,
                    id: index.id(series),
                    group: index.home(series).group(),
                    labels: labels_of(series, &index),
                })
                .collect();
            encoder.series(declarations.iter());
        }
        encoder.samples(&kept.refs, &kept.timestamps, &kept.values);
        if !kept.histograms.is_empty() {
            encoder.histograms(&kept.histograms);
        }
        if !kept.start_timestamps.is_empty() {
            encoder.start_timestamps(&kept.start_timestamps);
        }
    }
}

/// The labels of a series of the batch, checked.
fn parse(batch: &Batch, series: u32, options: &HeadOptions) -> Result<(Labels, SeriesId), Refusal> {
    let labels = batch.parse_labels(series as usize)?;
    check_labels(&labels, &options.limits)?;
    let id = SeriesId::of(&labels, options.seed);
    Ok((labels, id))
}

impl Scratch {
    /// Looks up all series of the batch.
    fn resolve(&mut self, head: &Head, batch: &Batch) {
        self.series.clear();
        self.series_homes.clear();
        self.unknown.clear();
        self.created.clear();
        let parser = batch.parser();
        let lookup = head.lookup();
        self.bounds = lookup.bounds();
        let mut guess = 0;
        for series in 0..batch.series_count() {
            let hash = head.hasher.hash(parser, batch.series_text(series));
            match lookup.find(hash, guess) {
                Some(found) => {
                    self.series.push(found);
                    self.series_homes.push(lookup.home(found));
                    guess = found + 1;
                }
                None => {
                    self.series.push(REFUSED);
                    self.series_homes.push(Home::default());
                    if !batch.series_samples(series).is_empty() {
                        self.unknown.push((series as u32, hash));
                    }
                }
            }
        }
    }

    /// Collects the samples that are kept, in their order, and refuses the others.
    fn gather(&mut self, batch: &Batch, accept: TimeRange, refused: &mut Vec<Refused>) {
        let kept = &mut self.kept;
        kept.clear();
        let (timestamps, values) = (batch.timestamps(), batch.values());
        let mut histograms = batch.histograms().iter().peekable();
        let mut start_timestamps = batch.start_timestamps().iter().peekable();
        for (series, (&found, &home)) in self.series.iter().zip(&self.series_homes).enumerate() {
            let accept = self.borders_ms.get(series).map_or(accept, |&border_ms| from(accept, border_ms));
            for sample in batch.series_samples(series) {
                let histogram = histograms.next_if(|(at, _)| *at as usize == sample);
                let start = start_timestamps.next_if(|(at, _)| *at as usize == sample);
                if found == REFUSED {
                    continue;
                }
                let t = timestamps[sample];
                if let Err(reason) = check_sample(t, histogram.map(|(_, h)| h.as_ref()), accept) {
                    refused.push(Refused { sample: sample as u32, series: series as u32, reason });
                    continue;
                }
                let position = kept.refs.len() as u32;
                if let Some((_, histogram)) = histogram {
                    kept.histograms.push((position, histogram.clone()));
                }
                if let Some(&(_, start)) = start.filter(|(_, start)| *start != 0) {
                    kept.start_timestamps.push((position, start));
                }
                kept.refs.push(found);
                kept.homes.push(home);
                kept.timestamps.push(t);
                kept.values.push(values[sample]);
            }
        }
    }

    /// The gathered columns, ordered by group and time if the batch jumps between groups or goes
    /// back in time; then each group is locked once and its rows are filled one after the other.
    fn rows(&mut self) -> Rows<'_> {
        let (kept, sorted) = (&self.kept, &mut self.sorted);
        let is_plain = kept.histograms.is_empty() && kept.start_timestamps.is_empty();
        if !(is_plain && is_scattered(&kept.homes, &kept.timestamps)) {
            return kept.rows();
        }
        sorted.fill(&kept.homes, &kept.timestamps, &kept.values);
        let Sorted { homes, timestamps, values, .. } = sorted;
        Rows { homes, timestamps, values, ..kept.rows() }
    }
}

/// Whether samples jump between groups often, or go back in time within one.
fn is_scattered(homes: &[Home], timestamps: &[i64]) -> bool {
    let mut jumps = 0;
    for (pair, times) in homes.windows(2).zip(timestamps.windows(2)) {
        if pair[0].group() != pair[1].group() {
            jumps += 1;
        } else if times[1] < times[0] {
            return true;
        }
    }
    jumps > 16 && jumps * 8 > homes.len()
}

impl Sorted {
    fn fill(&mut self, homes: &[Home], timestamps: &[i64], values: &[f64]) {
        self.order.clear();
        self.order.extend(0..homes.len() as u32);
        // By position last, as a later sample of the same series and time wins.
        self.order.sort_unstable_by_key(|&at| (homes[at as usize].group(), timestamps[at as usize], at));
        let order = self.order.iter().map(|&at| at as usize);
        self.homes.clear();
        self.homes.extend(order.clone().map(|at| homes[at]));
        self.timestamps.clear();
        self.timestamps.extend(order.clone().map(|at| timestamps[at]));
        self.values.clear();
        self.values.extend(order.map(|at| values[at]));
    }
}

fn check_sample(t_ms: i64, histogram: Option<&Histogram>, accept: TimeRange) -> Result<(), Refusal> {
    if t_ms < accept.min_ms {
        Err(Refusal::TooOld { border_ms: accept.min_ms })
    } else if t_ms > accept.max_ms {
        Err(Refusal::TooFarAhead { border_ms: accept.max_ms })
    } else {
        histogram.map_or(Ok(()), check_histogram)
    }
}
