//! What an evaluation holds, and the most it may: samples, and bytes of memory.
//!
//! Samples are counted as Prometheus does, so that `--query.max-samples` means the same. Bytes are
//! estimates of what is really held: rows, labels, histograms, what is kept per timestamp column. They
//! are counted per row and taken from the memory budget in larger pieces.

use super::eval::EvalError;
use super::progress::Progress;
use super::row::{Row, SeriesRow};
use super::steps::Steps;
use super::value::Stats;
use crate::budget::{Refused, Reservation, Size};
use crate::storage::{Matcher, ReadError};
use larum_storage_format::{Labels, Samples};
use std::cell::{Cell, RefCell};
use std::fmt::Write;
use std::sync::Arc;

/// What a row takes besides its floats: itself, its presence, its labels and what the allocator adds,
/// as long as it is not known better.
const ROW_BYTES: u64 = 256;

/// What an evaluation holds at some moment, or a part of that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) samples: u64,
    pub(crate) bytes: u64,
}

impl Held {
    /// A row of so many floats.
    pub(crate) fn row(samples: u64) -> Held {
        Held { samples, bytes: samples.saturating_mul(size_of::<f64>() as u64).saturating_add(ROW_BYTES) }
    }

    /// What a series takes. A row takes its room whether it is full or not.
    pub(crate) fn series(series: &SeriesRow) -> Held {
        let row = &series.row;
        let samples = (row.len() + row.histograms.len()) as u64;
        let fixed = size_of::<SeriesRow>() + row.len() / 8;
        Held {
            samples,
            bytes: (fixed + row.floats.len() * size_of::<f64>()) as u64
                + labels_bytes(&series.labels)
                + histograms_bytes(row),
        }
    }
}

impl std::iter::Sum for Held {
    fn sum<I: Iterator<Item = Held>>(all: I) -> Held {
        all.fold(Held::default(), |sum, one| Held {
            samples: sum.samples + one.samples,
            bytes: sum.bytes + one.bytes,
        })
    }
}

/// What a label set takes. Shared ones are counted as often as they are held.
pub(crate) fn labels_bytes(labels: &Labels) -> u64 {
    labels.as_bytes().len() as u64 + 48
}

fn histograms_bytes(row: &Row) -> u64 {
    let of_each = row.histograms.iter().map(|(_, histogram)| histogram.memory_bytes() + 32);
    of_each.sum::<usize>() as u64
}

/// How many samples and bytes are held, and the most there may be.
pub(crate) struct Budget {
    limit: u64,
    held: Cell<u64>,
    peak: Cell<u64>,
    read: Cell<u64>,
    /// Series read, and series selected.
    series: Cell<u64>,
    selected: Cell<u64>,
    memory: Option<Arc<Reservation>>,
    bytes: Cell<u64>,
    /// The most bytes held, of all time and since somebody took it.
    peak_bytes: Cell<u64>,
    recent_peak_bytes: Cell<u64>,
    progress: Option<Arc<Progress>>,
    /// Series and samples that others were told of.
    told: Cell<(u64, u64)>,
    /// Steps of rows that are about to be collected from the next selection.
    collecting: Cell<Option<usize>>,
    /// The largest selection so far.
    largest: RefCell<Option<Selected>>,
}

/// What an evaluation has read up to some moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Samples read.
    pub(crate) samples: u64,
    /// Series selected.
    pub(crate) selected: u64,
}

/// What a part of an evaluation that ran by itself has read, and held at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spent {
    series: u64,
    samples: u64,
    peak: u64,
    peak_bytes: u64,
}

/// After so many series others are told how far it is.
const SERIES_TOLD: u64 = 64;

/// A selection, for who is told that it is too large.
#[derive(Debug, Clone)]
struct Selected {
    selector: String,
    series: u64,
}

impl Budget {
    /// At most so many samples, and what the reservation may take; tells of its progress.
    pub(crate) fn new(
        limit: u64,
        memory: Option<Arc<Reservation>>,
        progress: Option<Arc<Progress>>,
    ) -> Budget {
        Budget {
            limit,
            held: Cell::new(0),
            peak: Cell::new(0),
            read: Cell::new(0),
            series: Cell::new(0),
            selected: Cell::new(0),
            memory,
            bytes: Cell::new(0),
            peak_bytes: Cell::new(0),
            recent_peak_bytes: Cell::new(0),
            progress,
            told: Cell::new((0, 0)),
            collecting: Cell::new(None),
            largest: RefCell::new(None),
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        self.tell();
        Stats {
            series: self.series.get(),
            samples: self.read.get(),
            peak_samples: self.peak.get(),
            peak_bytes: self.peak_bytes.get(),
            ..Stats::default()
        }
    }

    /// Refuses steps of which not even one row could be held.
    pub(crate) fn check_steps(&self, steps: &Steps) -> Result<(), EvalError> {
        if steps.count() as u64 > self.limit { Err(EvalError::TooManySamples) } else { Ok(()) }
    }

    /// What is held now.
    pub(crate) fn held(&self) -> Held {
        Held { samples: self.held.get(), bytes: self.bytes.get() }
    }

    /// Counts a series as read from storage, with so many samples.
    pub(crate) fn count_read(&self, samples: u64) {
        self.read.set(self.read.get() + samples);
        self.series.set(self.series.get() + 1);
        if self.series.get().is_multiple_of(SERIES_TOLD) {
            self.tell();
        }
    }

    /// Tells others how far it is.
    fn tell(&self) {
        let Some(progress) = &self.progress else { return };
        let now = (self.series.get(), self.read.get());
        let before = self.told.replace(now);
        progress.add(now.0 - before.0, now.1 - before.1);
    }

    /// How many samples more may be held.
    pub(crate) fn samples_left(&self) -> u64 {
        self.limit.saturating_sub(self.held.get())
    }

    /// Ends a part of an evaluation that ran by itself: nothing of it is held any more.
    pub(crate) fn into_spent(self) -> Spent {
        self.tell();
        self.release_bytes(self.bytes.get());
        Spent {
            series: self.series.get(),
            samples: self.read.get(),
            peak: self.peak.get(),
            peak_bytes: self.peak_bytes.get(),
        }
    }

    /// Adds what a part has read that ran by itself, and what it held beside what is held here.
    pub(crate) fn absorb(&self, part: Spent) {
        let Spent { series, samples, peak, peak_bytes } = part;
        self.series.set(self.series.get() + series);
        self.read.set(self.read.get() + samples);
        // It has told of these itself.
        let (told_series, told_samples) = self.told.get();
        self.told.set((told_series + series, told_samples + samples));
        self.peak.set(self.peak.get().max(self.held.get() + peak));
        let bytes = self.bytes.get() + peak_bytes;
        self.peak_bytes.set(self.peak_bytes.get().max(bytes));
        self.recent_peak_bytes.set(self.recent_peak_bytes.get().max(bytes));
    }

    /// What was read so far.
    pub(crate) fn counts(&self) -> Counts {
        Counts { samples: self.read.get(), selected: self.selected.get() }
    }

    /// The most bytes held since this was asked last.
    pub(crate) fn take_peak_bytes(&self) -> u64 {
        self.recent_peak_bytes.replace(self.bytes.get())
    }

    fn hold_bytes(&self, more: u64) {
        let held = self.bytes.get() + more;
        self.bytes.set(held);
        self.peak_bytes.set(self.peak_bytes.get().max(held));
        self.recent_peak_bytes.set(self.recent_peak_bytes.get().max(held));
    }

    /// Holds a row of `samples` more, and tells what that is.
    pub(crate) fn hold(&self, samples: u64) -> Result<Held, EvalError> {
        let row = Held::row(samples);
        self.take(row).map(|()| row)
    }

    /// Holds the samples of a series, and tells what that is.
    pub(crate) fn hold_samples(&self, samples: &Samples) -> Result<Held, EvalError> {
        let histograms: usize = samples.histograms.iter().map(|(_, h)| h.memory_bytes() + 32).sum();
        let columns = samples.floats.len() + samples.start_timestamps.len();
        let bytes = Held::row(columns as u64).bytes + histograms as u64;
        let held = Held { samples: samples.len() as u64, bytes };
        self.take(held).map(|()| held)
    }

    /// What was taken since `before` and is still held.
    pub(crate) fn since(&self, before: Held) -> Held {
        Held {
            samples: self.held.get().saturating_sub(before.samples),
            bytes: self.bytes.get().saturating_sub(before.bytes),
        }
    }

    /// Holds so much more.
    pub(crate) fn take(&self, more: Held) -> Result<(), EvalError> {
        let held = self.held.get().saturating_add(more.samples);
        self.held.set(held);
        self.peak.set(self.peak.get().max(held));
        if held > self.limit {
            return Err(EvalError::TooManySamples);
        }
        self.take_bytes(more.bytes)
    }

    /// Holds memory that is no sample.
    pub(crate) fn take_bytes(&self, bytes: u64) -> Result<(), EvalError> {
        if bytes == 0 {
            return Ok(());
        }
        let taken = self.memory.as_ref().map_or(Ok(()), |memory| memory.grow(bytes));
        taken.map_err(|refused| self.refused(&refused))?;
        self.hold_bytes(bytes);
        Ok(())
    }

    /// Whether there is memory for so much that could be done without; if there is, holds it.
    pub(crate) fn take_spare(&self, bytes: u64) -> bool {
        let taken = self.memory.as_ref().is_none_or(|memory| memory.grow_at_once(bytes).is_ok());
        if taken {
            self.hold_bytes(bytes);
        }
        taken
    }

    /// Lets go of so much.
    pub(crate) fn release(&self, less: Held) {
        self.held.set(self.held.get().saturating_sub(less.samples));
        self.release_bytes(less.bytes);
    }

    /// Lets go of memory that is no sample.
    pub(crate) fn release_bytes(&self, bytes: u64) {
        let bytes = bytes.min(self.bytes.get());
        self.bytes.set(self.bytes.get() - bytes);
        if let Some(memory) = &self.memory {
            memory.shrink(bytes);
        }
    }

    /// Lets go of what was held since `before`; only `result` stays.
    pub(crate) fn settle(&self, before: Held, result: Held) -> Result<(), EvalError> {
        self.held.set(before.samples);
        let stay = before.bytes + result.bytes;
        match self.bytes.get().checked_sub(stay) {
            Some(surplus) => {
                self.release_bytes(surplus);
                self.take(Held { bytes: 0, ..result })
            }
            None => self.take(Held { bytes: stay - self.bytes.get(), ..result }),
        }
    }

    /// Says that a row of `steps` of each series of the next selection will be held; or, with `None`,
    /// that it will not be known how many.
    pub(crate) fn collects(&self, steps: Option<usize>) {
        self.collecting.set(steps);
    }

    /// Notes a selection of so many series. If all their rows are to be held, and even half of them
    /// would not fit, it is refused before anything is read.
    pub(crate) fn selected(&self, matchers: &[Matcher], series: u64) -> Result<(), EvalError> {
        let collecting = self.collecting.take();
        self.selected.set(self.selected.get() + series);
        let Some(memory) = &self.memory else { return Ok(()) };
        if self.largest.borrow().as_ref().is_none_or(|largest| largest.series < series) {
            *self.largest.borrow_mut() = Some(Selected { selector: text(matchers), series });
        }
        let Some(steps) = collecting else { return Ok(()) };
        let each = Held::row(steps as u64).bytes;
        let Err(refused) = memory.check(each.saturating_mul(series) / 2) else { return Ok(()) };
        Err(EvalError::Memory(format!(
            "{NOT_ENOUGH}: {} selects {series} series, which take about {} at {steps} steps; {} are free for \
             {} under the memory limit of {}, enough for {} such series or {} steps",
            text(matchers),
            Size(each.saturating_mul(series)),
            Size(refused.free_bytes),
            refused.part.name(),
            Size(refused.limit_bytes),
            refused.free_bytes / each,
            (refused.free_bytes / series.max(1)).saturating_sub(ROW_BYTES) / size_of::<f64>() as u64,
        )))
    }

    /// The most samples that one series may have: what would not leave room for anything else.
    pub(crate) fn most_samples(&self) -> usize {
        // Timestamps and values, once as they are read and once merged; and others read meanwhile.
        let room = self.memory.as_ref().map_or(u64::MAX, |memory| memory.room());
        usize::try_from(room / 64).unwrap_or(usize::MAX).max(LEAST_SAMPLES)
    }

    /// The error for what could not be read.
    pub(crate) fn unread(&self, matchers: &[Matcher], error: ReadError) -> EvalError {
        match error {
            ReadError::Memory(_) | ReadError::SeriesTooLong { .. } => {
                let refused = self.memory.as_ref().and_then(|memory| memory.check(u64::MAX).err());
                let free =
                    refused.map_or(String::new(), |Refused { free_bytes, part, limit_bytes, .. }| {
                        let (free, limit) = (Size(free_bytes), Size(limit_bytes));
                        format!("; {free} are free for {} under the memory limit of {limit}", part.name())
                    });
                EvalError::Memory(format!("{NOT_ENOUGH}: {}: {error}{free}", text(matchers)))
            }
            error => EvalError::Storage(error),
        }
    }

    /// The error for memory that is not there.
    pub(crate) fn refused(&self, refused: &Refused) -> EvalError {
        let largest = self.largest.borrow();
        let largest = largest.as_ref().map_or(String::new(), |Selected { selector, series }| {
            format!(", the most for {selector}, which selects {series} series")
        });
        EvalError::Memory(format!("{NOT_ENOUGH}: it holds {}{largest}; {refused}", Size(self.bytes.get())))
    }
}

/// So many samples of one series may always be read, a chunk's worth: questions that take next to
/// nothing are answered as long as they can be.
const LEAST_SAMPLES: usize = 4096;

/// How the errors begin.
const NOT_ENOUGH: &str = "not enough memory for the query";

/// A selector as its matchers say it.
fn text(matchers: &[Matcher]) -> String {
    let mut out = "{".to_owned();
    for (i, matcher) in matchers.iter().enumerate() {
        let _ = write!(out, "{}{matcher}", if i > 0 { ", " } else { "" });
    }
    out + "}"
}
