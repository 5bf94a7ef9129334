//! Which times were touched since when, for those who keep what they worked out from samples.
//!
//! An append touches all times from its oldest sample on; a deletion, or the end of a partition, a range.
//! Time is divided into *eras*. A change counts itself in before the first of its effects can be seen,
//! notes what it touches with the present era, and counts itself out when all of them can be seen. A
//! reader asks for a [`Version`] before it looks at the samples: the oldest era with a change under way.
//! What was not to be seen then, or only in part, is touched in that era or later. So whoever keeps
//! something asks [`Touched::since`] its version, and what it does not name is as it was:
//!
//! * A change that was over before the version was taken could be seen by the reader.
//! * Every other one has noted what it touches in the era of the version, or a later one, before anybody
//!   saw an effect of it, and before it was acknowledged.
//!
//! An era ends when a version is asked for and no change is left in the one before it; nobody waits. An
//! append costs two atomic additions, and a minimum in the first batch of an era. Of old eras, neighbours
//! are brought together: their lowest time counts for both, which is never too little.

use super::time::TimeRange;
use crossbeam::utils::CachePadded;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// So many eras are told apart; of more, the older ones are brought together.
const ERAS_MAX: usize = 1024;
/// Then the length of what is brought together is its age by this, at most.
const ERAS_PER_AGE: u64 = 32;
/// And so many ranges.
const RANGES_MAX: usize = 64;

/// A moment in the history of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(u64);

/// What was touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Changes {
    /// All times from here on.
    pub from_ms: i64,
    /// And the times in these.
    pub ranges: Vec<TimeRange>,
}

/// See the module.
pub(crate) struct Touched {
    /// The present era. It changes under the lock of `past` only.
    era: AtomicU64,
    /// The present era and the one before, by the parity of their numbers.
    live: [CachePadded<Era>; 2],
    past: Mutex<Past>,
}

struct Era {
    /// Changes that are under way.
    changes: AtomicUsize,
    /// The lowest time that an append touched.
    from_ms: AtomicI64,
}

/// The eras that are over.
#[derive(Default)]
struct Past {
    /// Number of an era and the lowest time that an append touched, both strictly ascending. What is
    /// missing was touched from a later time on than the next that is there.
    eras: VecDeque<(u64, i64)>,
    /// Ranges that were touched, with their eras, also that of the present ones; ascending by era.
    ranges: VecDeque<(u64, TimeRange)>,
}

/// A change that is under way until this is dropped.
#[must_use = "a change must be under way until all of it can be seen"]
pub(crate) struct Change<'a>(&'a Era);

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.0.changes.fetch_sub(1, SeqCst);
    }
}

impl Default for Touched {
    fn default() -> Touched {
        let era =
            || CachePadded::new(Era { changes: AtomicUsize::new(0), from_ms: AtomicI64::new(i64::MAX) });
        Touched { era: AtomicU64::new(1), live: [era(), era()], past: Mutex::default() }
    }
}

impl Touched {
    /// Samples from `from_ms` on are about to be seen.
    pub fn append(&self, from_ms: i64) -> Change<'_> {
        let (_, change) = self.begin();
        // Mostly another batch has touched as much in this era.
        if from_ms < change.0.from_ms.load(SeqCst) {
            change.0.from_ms.fetch_min(from_ms, SeqCst);
        }
        change
    }

    /// What is stored in a range, or shown of it, is about to change.
    pub fn range(&self, range: TimeRange) -> Change<'_> {
        let (era, change) = self.begin();
        self.past().add_range(era, range);
        change
    }

    /// Counts a change in.
    fn begin(&self) -> (u64, Change<'_>) {
        loop {
            let era = self.era.load(SeqCst);
            let live = self.live(era);
            live.changes.fetch_add(1, SeqCst);
            let change = Change(live);
            // If it is over, the place may belong to another already.
            if self.era.load(SeqCst) == era {
                return (era, change);
            }
        }
    }

    /// The version of what can be seen from now on. To be asked for before anything is looked at.
    pub fn version(&self) -> Version {
        let mut past = self.past();
        let mut era = self.era.load(SeqCst);
        let before = self.live(era - 1);
        if before.changes.load(SeqCst) == 0 {
            // Who counts itself in here from now on finds that the era is over and leaves again.
            past.add_era(era - 1, before.from_ms.swap(i64::MAX, SeqCst));
            era += 1;
            self.era.store(era, SeqCst);
        }
        let under_way = self.live(era - 1).changes.load(SeqCst) > 0;
        Version(if under_way { era - 1 } else { era })
    }

    /// What was touched since a version.
    pub fn since(&self, version: Version) -> Changes {
        let past = self.past();
        let era = self.era.load(SeqCst);
        let live = [era - 1, era].into_iter().filter(|era| *era >= version.0);
        let live = live.map(|era| self.live(era).from_ms.load(SeqCst)).min().unwrap_or(i64::MAX);
        Changes { from_ms: live.min(past.lowest_ms_since(version.0)), ranges: past.ranges_since(version.0) }
    }

    fn live(&self, era: u64) -> &Era {
        &self.live[(era % 2) as usize]
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Past {
    fn add_era(&mut self, era: u64, from_ms: i64) {
        if from_ms == i64::MAX {
            return;
        }
        // Those from before touch as much by this one.
        while self.eras.back().is_some_and(|(_, earlier_ms)| *earlier_ms >= from_ms) {
            self.eras.pop_back();
        }
        self.eras.push_back((era, from_ms));
        if self.eras.len() > ERAS_MAX {
            self.thin();
        }
    }

    /// Brings neighbours together, the more of them the older they are.
    fn thin(&mut self) {
        let newest = self.eras.back().map_or(0, |(era, _)| *era);
        let mut kept: VecDeque<(u64, i64)> = VecDeque::with_capacity(self.eras.len());
        // The last era of those that were brought together before.
        let mut before = 0;
        for &(era, from_ms) in &self.eras {
            match kept.back_mut() {
                Some((last, _)) if (era - before) * ERAS_PER_AGE <= newest - era => *last = era,
                last => {
                    before = last.map_or(0, |(last, _)| *last);
                    kept.push_back((era, from_ms));
                }
            }
        }
        // That is enough for more eras than there will be; but it must end in any case.
        while kept.len() > ERAS_MAX / 4 * 3 {
            let second = kept.remove(1).map_or(0, |(era, _)| era);
            if let Some((first, _)) = kept.front_mut() {
                *first = second;
            }
        }
        self.eras = kept;
    }

    fn add_range(&mut self, era: u64, range: TimeRange) {
        if range.is_empty() {
            return;
        }
        let place = self.ranges.partition_point(|(earlier, _)| *earlier <= era);
        self.ranges.insert(place, (era, range));
        if self.ranges.len() > RANGES_MAX
            && let Some((_, oldest)) = self.ranges.pop_front()
            && let Some((_, next)) = self.ranges.front_mut()
        {
            *next = next.hull(&oldest);
        }
    }

    fn lowest_ms_since(&self, era: u64) -> i64 {
        let first = self.eras.partition_point(|(earlier, _)| *earlier < era);
        self.eras.get(first).map_or(i64::MAX, |(_, from_ms)| *from_ms)
    }

    fn ranges_since(&self, era: u64) -> Vec<TimeRange> {
        let first = self.ranges.partition_point(|(earlier, _)| *earlier < era);
        self.ranges.range(first..).map(|(_, range)| *range).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn what_was_over_before_a_version_was_taken_is_not_touched_since() {
        let touched = Touched::default();
        drop(touched.append(5));
        drop(touched.range(TimeRange::new(1, 2)));
        // A change may have been under way in the era before.
        let _ = touched.version();
        let version = touched.version();
        assert_eq!(touched.since(version), Changes { from_ms: i64::MAX, ranges: vec![] });
        drop(touched.append(70));
        drop(touched.append(60));
        drop(touched.range(TimeRange::new(3, 4)));
        let changes = Changes { from_ms: 60, ranges: vec![TimeRange::new(3, 4)] };
        assert_eq!(touched.since(version), changes);
        let later = touched.version();
        drop(touched.append(90));
        assert_eq!(touched.since(later).from_ms, 90);
        assert_eq!(touched.since(version), changes);
    }

    #[test]
    fn what_is_under_way_is_touched_since_every_version() {
        let touched = Touched::default();
        let append = touched.append(50);
        let range = touched.range(TimeRange::new(1, 2));
        for _ in 0..5 {
            let version = touched.version();
            drop(touched.append(100));
            let changes = touched.since(version);
            assert_eq!((changes.from_ms, changes.ranges.len()), (50, 1));
        }
        drop((append, range));
        let _ = touched.version();
        let version = touched.version();
        assert_eq!(touched.since(version), Changes { from_ms: i64::MAX, ranges: vec![] });
    }

    #[test]
    fn samples_that_come_in_time_do_not_touch_what_is_older() {
        let touched = Touched::default();
        let mut versions = Vec::new();
        for t in 0..10 * ERAS_MAX as i64 {
            versions.push((t, touched.version()));
            drop(touched.append(t));
        }
        assert!(touched.past().eras.len() <= ERAS_MAX);
        let now = versions.len() as i64;
        for &(t, version) in &versions {
            let from_ms = touched.since(version).from_ms;
            assert!(from_ms <= t, "{from_ms} {t}");
            // The older, the less it matters how old.
            let slack = (now - t) / 16 + 4;
            assert!(from_ms >= t - slack, "{from_ms} is too far from {t}");
        }
    }

    #[test]
    fn ranges_that_are_brought_together_are_never_too_little() {
        let touched = Touched::default();
        let before = touched.version();
        for t in 0..1000 {
            drop(touched.range(TimeRange::new(t, t)));
        }
        let ranges = touched.since(before).ranges;
        assert!(ranges.len() <= RANGES_MAX);
        assert!((0..1000).all(|t| ranges.iter().any(|range| range.contains(t))));
    }

    proptest! {
        #[test]
        fn a_version_is_told_of_all_that_came_later_and_nothing_else(
            steps in prop::collection::vec((0..3u8, 0..1000i64), 1..300)
        ) {
            let touched = Touched::default();
            let mut versions: Vec<(Version, i64)> = Vec::new();
            for (kind, t) in steps {
                if kind == 0 {
                    versions.push((touched.version(), i64::MAX));
                } else {
                    drop(touched.append(t));
                    versions.iter_mut().for_each(|(_, low)| *low = (*low).min(t));
                }
            }
            for (version, low) in versions {
                prop_assert_eq!(touched.since(version).from_ms, low);
            }
        }
    }

    /// What is shown is the highest number that was written; a reader that keeps it must be told as soon
    /// as it is no longer that.
    #[test]
    fn no_acknowledged_change_is_missed_by_who_asks_at_the_same_time() {
        let touched = Touched::default();
        let (shown, acknowledged) = (AtomicI64::new(0), AtomicI64::new(0));
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut kept: Option<(Version, i64)> = None;
                    let mut hits = 0;
                    while !done.load(SeqCst) || hits == 0 {
                        let floor = acknowledged.load(SeqCst);
                        let fresh = kept.filter(|(version, _)| touched.since(*version).from_ms == i64::MAX);
                        let seen = match fresh {
                            Some((_, value)) => {
                                hits += 1;
                                value
                            }
                            None => {
                                let version = touched.version();
                                let value = shown.load(SeqCst);
                                kept = Some((version, value));
                                value
                            }
                        };
                        assert!(seen >= floor, "{seen} was kept though {floor} was acknowledged");
                    }
                });
            }
            for n in 1..20_000 {
                let change = touched.append(7);
                shown.store(n, SeqCst);
                drop(change);
                acknowledged.store(n, SeqCst);
            }
            done.store(true, SeqCst);
        });
    }
}
