//! Filling a head from the WAL.
//!
//! Each generation of the WAL numbers series and groups in its own way; they are mapped to those of
//! this head. Series that shared a group share one again, unless they have a target, which decides.
//!
//! The caller's thread creates the series, in their order. Samples are put by two threads, each of
//! which has groups of its own: what becomes of a group depends on its samples and their order alone,
//! so the outcome is that of one thread.

use super::Head;
use super::generation::{Generation, RowBuffer};
use super::index::MAX_SERIES;
use super::scrape_groups::{Home, Together};
use crossbeam::channel::{Receiver, Sender, bounded};
use larum_storage_format::wal::Contents;
use std::collections::HashMap;
use std::io;
use std::iter::Peekable;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Of so many groups, the caller's thread, which has other work, puts the samples of one.
const GROUPS_PER_OWN: u32 = 3;
/// So many samples are gathered before they are put, so that threads and groups change seldom.
const GATHERED: usize = 4096;
/// So many times as many are under way to the other thread.
const AHEAD: usize = 3;
/// The ref of a series whose declaration was lost.
const LOST: u32 = u32::MAX;

/// Takes the contents of the frames of a generation.
pub(super) type Put<'a> = &'a mut dyn FnMut(u64, &Contents);

/// Lets `read` put what the WAL says into a head that nobody else has yet. Returns what `read` does,
/// and the number of samples of series whose declaration was lost.
///
/// # Errors
/// If no thread can be started.
pub(super) fn restore<T>(head: &Head, read: impl FnOnce(Put<'_>) -> T) -> io::Result<(T, u64)> {
    let (full, to_put) = bounded::<RowBuffer>(AHEAD);
    let (put_back, spare) = bounded(AHEAD);
    for _ in 0..AHEAD {
        put_back.send(RowBuffer::default()).expect("there is room for so many");
    }
    std::thread::scope(|scope| {
        let active = head.active();
        // It takes its ends of the channels along, so that nobody waits for it if it panics.
        std::thread::Builder::new().name("larum-wal-put".to_owned()).spawn_scoped(scope, move || {
            for mut samples in to_put {
                let rows = samples.rows();
                active.put(&rows, rows.time_range());
                samples.clear();
                // Nobody takes it back once the last sample is there.
                let _ = put_back.send(samples);
            }
        })?;
        let mut restore = Restore {
            head,
            active: head.active(),
            generation: 0,
            series: Vec::new(),
            groups: HashMap::new(),
            own: RowBuffer::default(),
            others: RowBuffer::default(),
            full,
            spare,
            lost: 0,
        };
        let outcome = read(&mut |generation, contents| restore.put(generation, contents));
        restore.deliver(1);
        Ok((outcome, restore.lost))
    })
}

struct Restore<'a> {
    head: &'a Head,
    active: Arc<Generation>,
    /// The generation whose numbers these are.
    generation: u64,
    /// Ref in the head and place, by ref in the WAL.
    series: Vec<(u32, Home)>,
    /// Group in the head, by group in the WAL.
    groups: HashMap<u32, u32>,
    /// To be put by this thread.
    own: RowBuffer,
    /// To be put by the other one, and the way there and back.
    others: RowBuffer,
    full: Sender<RowBuffer>,
    spare: Receiver<RowBuffer>,
    lost: u64,
}

impl Restore<'_> {
    fn put(&mut self, generation: u64, contents: &Contents) {
        if generation != self.generation {
            self.generation = generation;
            self.series.clear();
            self.groups.clear();
        }
        if !contents.series.is_empty() {
            self.declare(contents);
        }
        let is_plain = contents.histograms.is_empty() && contents.start_timestamps.is_empty();
        if !is_plain {
            // These are put one by one, and would take those with them that need not be.
            self.deliver(1);
        }
        self.gather(contents);
        self.deliver(if is_plain { GATHERED } else { 1 });
    }

    fn declare(&mut self, contents: &Contents) {
        let mut index = self.head.index_mut();
        let mut lookup = self.head.lookup_mut();
        for declared in &contents.series {
            let together = Together::With(self.groups.get(&declared.group).copied());
            let found = index.find_or_create(declared.id, &declared.labels, together);
            let (series, is_new) = match found {
                Ok(found) if declared.series < MAX_SERIES => found,
                _ => {
                    tracing::warn!(labels = %declared.labels, "the WAL declares a series that cannot be");
                    continue;
                }
            };
            let home = index.home(series);
            if is_new {
                lookup.add(series, home);
                self.head.counters.series_created.fetch_add(1, Relaxed);
            }
            self.groups.entry(declared.group).or_insert(home.group());
            let at = declared.series as usize;
            if self.series.len() <= at {
                self.series.resize(at + 1, (LOST, Home::default()));
            }
            self.series[at] = (series, home);
        }
        self.active.grow(index.ref_count(), index.group_count());
    }

    /// Maps the samples of a frame and divides them by who puts them.
    fn gather(&mut self, contents: &Contents) {
        let mut histograms = contents.histograms.iter().peekable();
        let mut start_timestamps = contents.start_timestamps.iter().peekable();
        let mut start = 0;
        while let Some(&first) = contents.refs.get(start) {
            let Some((_, home)) = known(&self.series, first) else {
                self.lost += 1;
                start += 1;
                continue;
            };
            let group = home.group();
            let share = if group % GROUPS_PER_OWN == 0 { &mut self.own } else { &mut self.others };
            let base = share.refs.len();
            for &series in &contents.refs[start..] {
                match known(&self.series, series) {
                    Some((series, home)) if home.group() == group => {
                        share.refs.push(series);
                        share.homes.push(home);
                    }
                    _ => break,
                }
            }
            let run = start..start + share.refs.len() - base;
            share.timestamps.extend_from_slice(&contents.timestamps[run.clone()]);
            share.values.extend_from_slice(&contents.values[run.clone()]);
            gather_sparse(&mut histograms, &run, base, &mut share.histograms);
            gather_sparse(&mut start_timestamps, &run, base, &mut share.start_timestamps);
            start = run.end;
        }
    }

    /// Puts what was gathered if it is at least so much.
    fn deliver(&mut self, least: usize) {
        if self.others.refs.len() >= least {
            // The other thread is gone only if it panicked, as this one then will at the end of its scope.
            let spare = self.spare.recv().unwrap_or_default();
            let _ = self.full.send(std::mem::replace(&mut self.others, spare));
        }
        if self.own.refs.len() >= least {
            let rows = self.own.rows();
            self.active.put(&rows, rows.time_range());
            self.own.clear();
        }
    }
}

/// Ref in the head and place of the series with this ref in the WAL. A ref that nobody can have
/// declared stands for a lost one.
fn known(series: &[(u32, Home)], wal_ref: u32) -> Option<(u32, Home)> {
    series.get(wal_ref as usize).copied().filter(|(series, _)| *series != LOST)
}

/// Moves what belongs to the samples of a run to where these begin at `base`.
fn gather_sparse<T: Clone>(
    from: &mut Peekable<std::slice::Iter<'_, (u32, T)>>,
    run: &Range<usize>,
    base: usize,
    to: &mut Vec<(u32, T)>,
) {
    while let Some((at, what)) = from.next_if(|(at, _)| (*at as usize) < run.end) {
        // What stands before the run belongs to samples that are lost.
        if let Some(ahead) = (*at as usize).checked_sub(run.start) {
            to.push(((base + ahead) as u32, what.clone()));
        }
    }
}
