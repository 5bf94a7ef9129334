//! One memory budget for everything: who needs much memory takes a [`Reservation`] first.
//!
//! The limit is shared by the head, caches, merges, bodies of requests, queries and rules. Who may take
//! how much is decided in [`decide`]; here are the counters. They are behind one lock, which nobody takes
//! for a sample: reservations grow by [`QUANTUM_BYTES`] and more at a time.
//!
//! Reservations are estimates. Who can tell what the process really holds (the server can, an embedder
//! need not) says so by [`MemoryBudget::observe`]: the larger of the two counts.

mod decide;
pub mod machine;

pub use decide::Pressure;
pub(crate) use decide::{MERGE_MIN_BYTES, head_is_large, merge_share};

use decide::{Load, room, rules_share, small_bytes};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Reservations grow by this at least, so that the lock is taken seldom.
const QUANTUM_BYTES: u64 = 64 << 10;
/// And by this at most, beyond what is needed, so that little lies idle.
const QUANTUM_MAX_BYTES: u64 = 2 << 20;

/// What memory is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// Series and samples in memory.
    Head,
    /// What is kept only because it may be used again.
    Caches,
    /// Merges of partitions.
    Merges,
    /// Bodies of requests on their way in.
    Bodies,
    /// Queries and their answers.
    Queries,
    /// The queries of rules.
    Rules,
}

impl Part {
    /// All parts.
    pub const ALL: [Part; 6] =
        [Part::Head, Part::Caches, Part::Merges, Part::Bodies, Part::Queries, Part::Rules];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Part::Head => "head",
            Part::Caches => "caches",
            Part::Merges => "merges",
            Part::Bodies => "bodies",
            Part::Queries => "queries",
            Part::Rules => "rules",
        }
    }
}

/// Gives memory that is free back to the system and tells what the process holds then; `None` if that
/// was done just before.
pub type Relief = Arc<dyn Fn() -> Option<u64> + Send + Sync>;

/// How much memory there is for a database, or for several. Cloning is cheap and shares it.
///
/// ```
/// use larum::budget::{MemoryBudget, Part};
///
/// let budget = MemoryBudget::new(64 << 20);
/// let query = budget.reservation(Part::Queries);
/// assert!(query.grow(16 << 20).is_ok());
/// let refused = query.grow(64 << 20).unwrap_err();
/// assert!(refused.free_bytes < 64 << 20);
/// drop(query); // gives back what it took
/// assert_eq!(budget.status().reserved(Part::Queries), 0);
/// ```
#[derive(Clone)]
pub struct MemoryBudget {
    shared: Arc<Shared>,
}

struct Shared {
    limit_bytes: Option<u64>,
    relief: Option<Relief>,
    counts: Mutex<Counts>,
    /// Tells those who wait that somebody gave memory back.
    given_back: Condvar,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    /// By part, in their order.
    reserved: [u64; Part::ALL.len()],
    refused: [u64; Part::ALL.len()],
    /// How often somebody waited for memory, and how many do so now.
    waits: u64,
    waiting: u64,
    /// What the process held when somebody looked last.
    resident: u64,
    /// What it holds that nobody reserves: code, stacks, what the allocator keeps.
    base: u64,
    pressure: Pressure,
}

/// A part may not take more memory now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} more are needed, {} are free for {} under the memory limit of {}",
    Size(*.needed_bytes), Size(*.free_bytes), .part.name(), Size(*.limit_bytes)
)]
pub struct Refused {
    /// Who asked.
    pub part: Part,
    /// What it holds already.
    pub held_bytes: u64,
    /// How much more it needs at least.
    pub needed_bytes: u64,
    /// How much more it could have.
    pub free_bytes: u64,
    /// The limit of all parts together.
    pub limit_bytes: u64,
}

/// Figures about a budget, as they were at one moment.
#[derive(Debug, Clone, Copy)]
pub struct MemoryStatus {
    /// The limit; `None` if there is none.
    pub limit_bytes: Option<u64>,
    /// What is decided by: what is reserved or what the process really holds, whichever is more.
    pub held_bytes: u64,
    /// What the process held when somebody looked last; 0 if nobody did.
    pub resident_bytes: u64,
    /// What only rules may take.
    pub rules_share_bytes: u64,
    /// How full it is.
    pub pressure: Pressure,
    counts: Counts,
}

impl MemoryStatus {
    /// What a part has reserved.
    pub fn reserved(&self, part: Part) -> u64 {
        self.counts.reserved[part as usize]
    }

    /// How often something small waited for memory instead of being refused at once.
    pub fn waits(&self) -> u64 {
        self.counts.waits
    }

    /// How often a part was refused memory.
    pub fn refused(&self, part: Part) -> u64 {
        self.counts.refused[part as usize]
    }
}

impl Default for MemoryBudget {
    fn default() -> MemoryBudget {
        MemoryBudget::unlimited()
    }
}

impl fmt::Debug for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBudget").field("limit_bytes", &self.shared.limit_bytes).finish_non_exhaustive()
    }
}

impl MemoryBudget {
    /// No limit: what is reserved is counted only.
    pub fn unlimited() -> MemoryBudget {
        MemoryBudget::with(None, None)
    }

    /// At most so many bytes.
    pub fn new(limit_bytes: u64) -> MemoryBudget {
        MemoryBudget::with(Some(limit_bytes), None)
    }

    /// At most so many bytes, with what helps before anybody is refused.
    pub fn with(limit_bytes: Option<u64>, relief: Option<Relief>) -> MemoryBudget {
        let (counts, given_back) = (Mutex::default(), Condvar::new());
        MemoryBudget { shared: Arc::new(Shared { limit_bytes, relief, counts, given_back }) }
    }

    /// The limit; `None` if there is none.
    pub fn limit_bytes(&self) -> Option<u64> {
        self.shared.limit_bytes
    }

    /// A reservation that holds nothing yet.
    pub fn reservation(&self, part: Part) -> Reservation {
        Reservation {
            budget: self.clone(),
            part,
            patience: Duration::ZERO,
            used: AtomicU64::new(0),
            granted: AtomicU64::new(0),
            peak: AtomicU64::new(0),
        }
    }

    /// Says what a part holds that is never refused, as it is there already.
    pub fn set(&self, part: Part, bytes: u64) {
        let mut counts = self.counts();
        counts.reserved[part as usize] = bytes;
        self.tell_those_who_wait(&counts);
    }

    /// Says what the process really holds (of its own memory: mapped files do not count), and tells
    /// how full the budget is.
    pub fn observe(&self, resident_bytes: u64) -> Pressure {
        let mut counts = self.counts();
        counts.observe(resident_bytes, self.shared.limit_bytes);
        self.tell_those_who_wait(&counts);
        counts.pressure
    }

    /// How full it is, by what is known now.
    pub fn pressure(&self) -> Pressure {
        let mut counts = self.counts();
        counts.look(self.shared.limit_bytes);
        counts.pressure
    }

    /// How much more a part could take now, if it holds `own_bytes` already; `u64::MAX` if there is
    /// no limit.
    pub fn room(&self, part: Part, own_bytes: u64) -> u64 {
        self.shared.limit_bytes.map_or(u64::MAX, |limit| room(&self.counts().load(limit), part, own_bytes))
    }

    /// Figures.
    pub fn status(&self) -> MemoryStatus {
        let counts = *self.counts();
        MemoryStatus {
            limit_bytes: self.shared.limit_bytes,
            held_bytes: counts.held(),
            resident_bytes: counts.resident,
            rules_share_bytes: self.shared.limit_bytes.map_or(0, rules_share),
            pressure: counts.pressure,
            counts,
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.shared.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell_those_who_wait(&self, counts: &Counts) {
        if counts.waiting > 0 {
            self.shared.given_back.notify_all();
        }
    }

    /// Takes `asked` bytes for who holds `own` already; if that is too much, as many as are `needed`.
    /// Tells how many it took. What is small and finds none waits, for as long as its patience.
    fn take(
        &self,
        part: Part,
        own: u64,
        needed: u64,
        asked: u64,
        patience: Duration,
    ) -> Result<u64, Refused> {
        let Some(limit) = self.shared.limit_bytes else {
            self.counts().reserved[part as usize] += asked;
            return Ok(asked);
        };
        let attempt = |counts: &mut Counts| {
            let free = room(&counts.load(limit), part, own);
            let taken = if asked <= free { asked } else { needed };
            if taken > free {
                return Err((free, counts.held() > counts.reserved()));
            }
            counts.reserved[part as usize] += taken;
            Ok(taken)
        };
        let refused = |free_bytes| {
            let mut counts = self.counts();
            counts.refused[part as usize] += 1;
            Refused { part, held_bytes: own, needed_bytes: needed, free_bytes, limit_bytes: limit }
        };
        let first = attempt(&mut self.counts());
        let second = match first {
            // Some is held that nobody reserves: perhaps it is free, and only not given back yet.
            Err((_, true)) => match self.shared.relief.as_ref().and_then(|relief| relief()) {
                Some(resident) => {
                    self.observe(resident);
                    attempt(&mut self.counts())
                }
                None => first,
            },
            other => other,
        };
        let (free, _) = match second {
            Ok(taken) => return Ok(taken),
            Err(why) => why,
        };
        if patience.is_zero() || own.saturating_add(needed) > small_bytes(limit) {
            return Err(refused(free));
        }
        let until = Instant::now() + patience;
        let mut counts = self.counts();
        counts.waits += 1;
        counts.waiting += 1;
        loop {
            let outcome = attempt(&mut counts);
            let left = until.saturating_duration_since(Instant::now());
            match outcome {
                Err(_) if !left.is_zero() => {}
                outcome => {
                    counts.waiting -= 1;
                    drop(counts);
                    return outcome.map_err(|(free, _)| refused(free));
                }
            }
            let waited = self.shared.given_back.wait_timeout(counts, left);
            counts = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Counts {
    fn reserved(&self) -> u64 {
        self.reserved.iter().sum()
    }

    fn held(&self) -> u64 {
        (self.reserved() + self.base).max(self.resident)
    }

    fn load(&self, limit: u64) -> Load {
        Load { limit, held: self.held(), rules: self.reserved[Part::Rules as usize] }
    }

    fn observe(&mut self, resident: u64, limit: Option<u64>) {
        self.resident = resident;
        // Who works may not have touched all that it reserved. Head and caches have.
        let lasting = self.reserved[Part::Head as usize] + self.reserved[Part::Caches as usize];
        let passing = self.reserved() - lasting;
        let base = resident.saturating_sub(lasting);
        let is_calm = passing <= limit.unwrap_or(u64::MAX) / 64;
        self.base = if is_calm { base } else { base.min(self.base) };
        self.look(limit);
    }

    fn look(&mut self, limit: Option<u64>) {
        self.pressure = limit.map_or(Pressure::Calm, |limit| Pressure::of(&self.load(limit), self.pressure));
    }
}

/// Memory that is taken for one piece of work until this is dropped. Threads may share it.
pub struct Reservation {
    budget: MemoryBudget,
    part: Part,
    patience: Duration,
    used: AtomicU64,
    /// What was taken from the budget: mostly somewhat more than is used.
    granted: AtomicU64,
    /// The most that was granted.
    peak: AtomicU64,
}

impl Reservation {
    /// The same; as long as it holds little, it waits so long for others to give memory back rather than
    /// be refused. Only for threads that may wait.
    pub fn patient(mut self, patience: Duration) -> Reservation {
        self.patience = patience;
        self
    }

    /// Takes `bytes` more.
    ///
    /// # Errors
    /// There are not as many; it holds what it held before.
    #[inline]
    pub fn grow(&self, bytes: u64) -> Result<(), Refused> {
        let used = self.used.fetch_add(bytes, Relaxed).saturating_add(bytes);
        let granted = self.granted.load(Relaxed);
        if used <= granted { Ok(()) } else { self.extend(bytes, used - granted, granted, self.patience) }
    }

    /// As [`Reservation::grow`], but never waits: for what can be done without.
    ///
    /// # Errors
    /// There are not as many now.
    pub fn grow_at_once(&self, bytes: u64) -> Result<(), Refused> {
        let used = self.used.fetch_add(bytes, Relaxed).saturating_add(bytes);
        let granted = self.granted.load(Relaxed);
        if used <= granted { Ok(()) } else { self.extend(bytes, used - granted, granted, Duration::ZERO) }
    }

    #[cold]
    fn extend(&self, bytes: u64, missing: u64, granted: u64, patience: Duration) -> Result<(), Refused> {
        let quantum = (granted / 8).clamp(QUANTUM_BYTES, QUANTUM_MAX_BYTES);
        let asked = missing.checked_next_multiple_of(quantum).unwrap_or(missing);
        let taken = self.budget.take(self.part, granted, missing, asked, patience);
        match taken {
            Ok(taken) => {
                let granted = self.granted.fetch_add(taken, Relaxed) + taken;
                self.peak.fetch_max(granted, Relaxed);
                Ok(())
            }
            Err(refused) => {
                self.used.fetch_sub(bytes, Relaxed);
                Err(refused)
            }
        }
    }

    /// Gives `bytes` back, which it must have taken.
    #[inline]
    pub fn shrink(&self, bytes: u64) {
        let used = self.used.fetch_sub(bytes, Relaxed).saturating_sub(bytes);
        let granted = self.granted.load(Relaxed);
        // Not for every row: it is mostly needed again.
        if granted > used + used / 2 + 2 * QUANTUM_MAX_BYTES {
            self.give_back(granted - used - QUANTUM_MAX_BYTES);
        }
    }

    #[cold]
    fn give_back(&self, bytes: u64) {
        let mut counts = self.budget.counts();
        // Under the lock, so that two threads do not give the same bytes back.
        let given = bytes.min(self.granted.load(Relaxed));
        self.granted.fetch_sub(given, Relaxed);
        counts.reserved[self.part as usize] -= given;
        self.budget.tell_those_who_wait(&counts);
    }

    /// The most it ever took.
    pub fn peak(&self) -> u64 {
        self.peak.load(Relaxed)
    }

    /// How many bytes it holds.
    pub fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// How many more it could take now.
    pub fn room(&self) -> u64 {
        let (used, granted) = (self.used.load(Relaxed), self.granted.load(Relaxed));
        self.budget.room(self.part, granted).saturating_add(granted.saturating_sub(used))
    }

    /// Fails as [`Reservation::grow`] would, and takes nothing.
    ///
    /// # Errors
    /// There are no `bytes` more.
    pub fn check(&self, bytes: u64) -> Result<(), Refused> {
        self.grow(bytes)?;
        self.shrink(bytes);
        Ok(())
    }
}

/// Memory taken from a reservation for something within the work; it goes back when this is dropped.
/// Without a reservation, nothing is counted.
#[derive(Debug, Default)]
pub struct Share {
    reservation: Option<Arc<Reservation>>,
    bytes: u64,
}

impl Share {
    /// Nothing yet of a reservation, if there is one.
    pub fn of(reservation: Option<&Arc<Reservation>>) -> Share {
        Share { reservation: reservation.cloned(), bytes: 0 }
    }

    /// Changes it to so many bytes.
    ///
    /// # Errors
    /// There are not as many; it stays what it was.
    pub fn resize(&mut self, bytes: usize) -> Result<(), Refused> {
        let Some(reservation) = &self.reservation else { return Ok(()) };
        let bytes = bytes as u64;
        match bytes.checked_sub(self.bytes) {
            Some(more) => reservation.grow(more)?,
            None => reservation.shrink(self.bytes - bytes),
        }
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(reservation) = &self.reservation {
            reservation.shrink(self.bytes);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.give_back(u64::MAX);
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation")
            .field("part", &self.part)
            .field("used", &self.used)
            .finish_non_exhaustive()
    }
}

/// A number of bytes for people to read: `1.5GiB`, `12.0MiB`, `300KiB`.
#[derive(Debug, Clone, Copy)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        match UNITS.into_iter().find(|(_, unit)| self.0 >= *unit) {
            Some(("KiB", unit)) => write!(f, "{}KiB", self.0 / unit),
            Some((name, unit)) => write!(f, "{:.1}{name}", self.0 as f64 / unit as f64),
            None => write!(f, "{}B", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_is_taken_comes_back_with_the_reservation() {
        let budget = MemoryBudget::new(100 * MIB);
        let reserved = || budget.status().reserved(Part::Queries);
        let query = budget.reservation(Part::Queries);
        query.grow(1).unwrap();
        assert_eq!((query.used(), reserved()), (1, QUANTUM_BYTES));
        query.grow(30 * MIB).unwrap();
        assert!(reserved() > 30 * MIB && reserved() < 33 * MIB);
        query.shrink(30 * MIB);
        assert!(query.used() == 1 && reserved() < 3 * MIB, "{}", reserved());
        drop(query);
        assert_eq!(reserved(), 0);
    }

    #[test]
    fn a_refusal_takes_nothing_counts_and_tells_what_would_fit() {
        let budget = MemoryBudget::new(100 * MIB);
        budget.set(Part::Head, 40 * MIB);
        let query = budget.reservation(Part::Queries);
        query.grow(10 * MIB).unwrap();
        let refused = query.grow(50 * MIB).unwrap_err();
        let text = refused.to_string();
        assert!(text.contains("free for queries under the memory limit of 100.0MiB"), "{text}");
        assert_eq!(query.used(), 10 * MIB);
        assert!(query.grow(query.room()).is_ok(), "what was said to be free is");
        assert!(query.room() < 2 * QUANTUM_BYTES);
        let status = budget.status();
        assert_eq!((status.refused(Part::Queries), status.refused(Part::Rules)), (1, 0));
        // What rules may take is there all the same.
        assert!(budget.reservation(Part::Rules).grow(10 * MIB).is_ok());
    }

    #[test]
    fn without_a_limit_everything_is_counted_and_nothing_refused() {
        let budget = MemoryBudget::unlimited();
        let query = budget.reservation(Part::Queries);
        query.grow(1 << 50).unwrap();
        assert!(budget.status().reserved(Part::Queries) >= 1 << 50);
        assert_eq!((budget.pressure(), budget.room(Part::Queries, 0)), (Pressure::Calm, u64::MAX));
    }

    #[test]
    fn what_the_process_really_holds_counts_if_it_is_more() {
        let budget = MemoryBudget::new(100 * MIB);
        budget.set(Part::Head, 20 * MIB);
        budget.observe(30 * MIB);
        assert_eq!(budget.status().held_bytes, 30 * MIB, "10 MiB are held that nobody reserves");
        let query = budget.reservation(Part::Queries);
        query.grow(8 * MIB).unwrap();
        assert!(budget.status().held_bytes >= 38 * MIB, "they are still there");
        assert_eq!(budget.observe(95 * MIB), Pressure::Refuse);
        assert!(query.grow(8 * MIB).is_err());
        assert_eq!(budget.observe(38 * MIB), Pressure::Calm);
        assert!(query.grow(8 * MIB).is_ok());
    }

    #[test]
    fn who_would_be_refused_for_memory_that_is_only_not_given_back_is_helped_first() {
        let calls = Arc::new(AtomicU64::new(0));
        let of_relief = calls.clone();
        let relief: Relief = Arc::new(move || (of_relief.fetch_add(1, Relaxed) == 0).then_some(20 * MIB));
        let budget = MemoryBudget::with(Some(100 * MIB), Some(relief));
        budget.observe(90 * MIB);
        let query = budget.reservation(Part::Queries);
        query.grow(40 * MIB).unwrap();
        assert_eq!(calls.load(Relaxed), 1);
        assert!(query.grow(40 * MIB).is_err(), "there is nothing more to give back");
        assert_eq!(budget.status().refused(Part::Queries), 1);
    }

    #[test]
    fn what_is_small_waits_for_others_rather_than_be_refused() {
        let budget = MemoryBudget::new(640 * MIB);
        // Up to 90 %, which nobody else may have.
        budget.set(Part::Head, 512 * MIB);
        let other = budget.reservation(Part::Queries);
        let others: Vec<_> = (0..7).map(|_| budget.reservation(Part::Queries)).collect();
        others.iter().for_each(|small| small.grow(9 * MIB).unwrap());
        let small = budget.reservation(Part::Queries).patient(Duration::from_secs(20));
        assert!(small.grow_at_once(5 * MIB).is_err() && other.grow(5 * MIB).is_err(), "nobody waits unasked");
        assert!(small.grow(20 * MIB).is_err(), "nor for much");
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| small.grow(5 * MIB));
            while budget.status().waits() == 0 {
                std::thread::yield_now();
            }
            drop(others);
            assert!(waits.join().unwrap().is_ok());
        });
        assert_eq!((small.used(), budget.status().refused(Part::Queries)), (5 * MIB, 3));
        let patient = budget.reservation(Part::Queries).patient(Duration::from_millis(1));
        budget.set(Part::Head, 600 * MIB);
        assert!(patient.grow(5 * MIB).is_err(), "patience ends");
        assert_eq!(budget.status().waits(), 2);
    }

    #[test]
    fn the_most_that_was_taken_is_known_afterwards() {
        let query = MemoryBudget::unlimited().reservation(Part::Queries);
        query.grow(30 * MIB).unwrap();
        query.shrink(30 * MIB);
        query.grow(1).unwrap();
        assert!((30 * MIB..33 * MIB).contains(&query.peak()), "{}", query.peak());
    }

    #[test]
    fn threads_share_a_reservation() {
        let budget = MemoryBudget::new(1 << 40);
        let query = budget.reservation(Part::Queries);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for i in 0..10_000 {
                        query.grow(i * 1000).unwrap();
                        query.shrink(i * 1000);
                    }
                });
            }
        });
        assert_eq!(query.used(), 0);
        drop(query);
        assert_eq!(budget.status().reserved(Part::Queries), 0);
    }

    #[test]
    fn sizes_are_readable() {
        let texts = [5, 2048, 3 * MIB / 2, 3 << 30].map(|bytes| Size(bytes).to_string());
        assert_eq!(texts, ["5B", "2KiB", "1.5MiB", "3.0GiB"]);
    }
}
