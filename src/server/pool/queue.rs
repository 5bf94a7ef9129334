//! In which order queries get their turn. Pure: who comes next of those that wait, and to which worker.
//!
//! Queries that are expected to take long give way to those that come somewhat later, the longer the
//! further, but never to any that come more than [`GIVES_WAY_MAX`] after them: so everybody's turn comes.
//! One worker takes nothing but small queries, that these need not wait until long ones are over.

use std::time::{Duration, Instant};

/// What is expected to take no longer than this is small.
const SMALL: Duration = Duration::from_millis(50);
/// For how much later ones a query gives way at most.
pub const GIVES_WAY_MAX: Duration = Duration::from_secs(5);
/// So many may wait at a time.
pub const WAITING_MAX: usize = 1024;

/// What a query is expected to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// Nobody has looked yet, but somebody can.
    Unknown,
    /// So much time.
    Expected(Duration),
    /// It cannot be told; comes when its turn is, and not to the worker for small ones.
    Other,
}

impl Weight {
    fn is_small(self) -> bool {
        matches!(self, Weight::Expected(time) if time <= SMALL)
    }

    fn gives_way(self) -> Duration {
        match self {
            Weight::Expected(time) if time > SMALL => time.min(GIVES_WAY_MAX),
            _ => Duration::ZERO,
        }
    }
}

/// Who looks for work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Worker {
    /// Takes anything.
    General,
    /// Takes small queries, and weighs others meanwhile.
    ForSmall,
}

/// What a worker does next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn<J> {
    /// Run this.
    Run(J),
    /// Find out what the query of this number is expected to take.
    Weigh(u64),
}

/// The queries that wait.
#[derive(Debug)]
pub(super) struct Queue<J> {
    /// In the order in which they came.
    waiting: Vec<Waiting<J>>,
    last_number: u64,
}

#[derive(Debug)]
struct Waiting<J> {
    number: u64,
    since: Instant,
    weight: Weight,
    is_weighed: bool,
    job: J,
}

impl<J> Default for Queue<J> {
    fn default() -> Queue<J> {
        Queue { waiting: Vec::new(), last_number: 0 }
    }
}

impl<J> Queue<J> {
    /// Adds one that came at `now`, and tells its number; `None` if there are too many.
    pub fn push(&mut self, job: J, weight: Weight, now: Instant) -> Option<u64> {
        if self.waiting.len() >= WAITING_MAX {
            return None;
        }
        self.last_number += 1;
        let number = self.last_number;
        self.waiting.push(Waiting { number, since: now, weight, is_weighed: false, job });
        Some(number)
    }

    /// What a worker does next, if there is anything.
    pub fn next(&mut self, worker: Worker) -> Option<Turn<J>> {
        let first_of = |takes: &dyn Fn(&Waiting<J>) -> bool| {
            let all = self.waiting.iter().enumerate().filter(|(_, waiting)| takes(waiting));
            all.min_by_key(|(_, waiting)| waiting.since + waiting.weight.gives_way()).map(|(at, _)| at)
        };
        match worker {
            Worker::General => first_of(&|_| true).map(|at| Turn::Run(self.waiting.remove(at).job)),
            Worker::ForSmall => {
                if let Some(at) = first_of(&|waiting| waiting.weight.is_small()) {
                    return Some(Turn::Run(self.waiting.remove(at).job));
                }
                let unknown =
                    |waiting: &&mut Waiting<J>| waiting.weight == Weight::Unknown && !waiting.is_weighed;
                let waiting = self.waiting.iter_mut().find(unknown)?;
                waiting.is_weighed = true;
                Some(Turn::Weigh(waiting.number))
            }
        }
    }

    /// The one of this number, if it still waits.
    pub fn get_mut(&mut self, number: u64) -> Option<&mut J> {
        self.waiting.iter_mut().find(|waiting| waiting.number == number).map(|waiting| &mut waiting.job)
    }

    /// Says what one is expected to take, if it still waits.
    pub fn weighed(&mut self, number: u64, weight: Weight) {
        if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.number == number) {
            waiting.weight = weight;
        }
    }

    /// Takes one out, if it still waits.
    pub fn remove(&mut self, number: u64) -> Option<J> {
        let at = self.waiting.iter().position(|waiting| waiting.number == number)?;
        Some(self.waiting.remove(at).job)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn order(queries: &[(&'static str, u32, Weight)], worker: Worker) -> Vec<&'static str> {
        let begin = Instant::now();
        let mut queue = Queue::default();
        for &(name, at_ms, weight) in queries {
            queue.push(name, weight, begin + at_ms * MS).unwrap();
        }
        std::iter::from_fn(|| match queue.next(worker)? {
            Turn::Run(name) => Some(name),
            Turn::Weigh(_) => Some("weigh"),
        })
        .collect()
    }

    #[test]
    fn small_ones_go_first_and_long_ones_wait_for_no_more_than_some_seconds() {
        let expected = |ms: u32| Weight::Expected(ms * MS);
        let day = 86_400_000;
        for (queries, order_of_turns) in [
            // Those nobody knows, and small ones, in the order they came.
            (
                &[("a", 0, Weight::Unknown), ("b", 1, expected(50)), ("c", 2, Weight::Other)][..],
                &["a", "b", "c"][..],
            ),
            (&[("long", 0, expected(800)), ("small", 799, expected(1))], &["small", "long"]),
            (&[("long", 0, expected(800)), ("small", 801, expected(1))], &["long", "small"]),
            (&[("longer", 0, expected(3000)), ("long", 100, expected(200))], &["long", "longer"]),
            (&[("longest", 0, expected(day)), ("small", 4999, expected(1))], &["small", "longest"]),
            (&[("longest", 0, expected(day)), ("small", 5001, expected(1))], &["longest", "small"]),
        ] {
            assert_eq!(order(queries, Worker::General), order_of_turns);
        }
    }

    #[test]
    fn nobody_waits_for_what_comes_much_later_however_many_small_ones_come() {
        let begin = Instant::now();
        let mut queue = Queue::default();
        queue.push(0, Weight::Expected(Duration::from_secs(3600)), begin);
        let mut later = 0;
        for n in 1..1_000_u32 {
            // One comes every 20 ms, and one is taken.
            queue.push(n, Weight::Expected(MS), begin + n * 20 * MS);
            match queue.next(Worker::General) {
                Some(Turn::Run(0)) => break,
                Some(Turn::Run(_)) => later += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(later, 249, "5 s of them");
    }

    #[test]
    fn one_worker_takes_small_ones_only_and_weighs_each_other_once() {
        let queries = [
            ("other", 0, Weight::Other),
            ("long", 1, Weight::Expected(60 * MS)),
            ("unknown", 2, Weight::Unknown),
            ("small", 3, Weight::Expected(40 * MS)),
        ];
        assert_eq!(order(&queries, Worker::ForSmall), ["small", "weigh"]);
        let mut queue = Queue::default();
        let number = queue.push("q", Weight::Unknown, Instant::now()).unwrap();
        assert_eq!(queue.next(Worker::ForSmall), Some(Turn::Weigh(number)));
        queue.weighed(number, Weight::Expected(2 * SMALL));
        assert_eq!(queue.next(Worker::ForSmall), None);
        queue.weighed(number, Weight::Expected(SMALL));
        assert_eq!(queue.next(Worker::ForSmall), Some(Turn::Run("q")));
    }

    #[test]
    fn those_that_wait_are_bounded_and_may_leave() {
        let now = Instant::now();
        let mut queue = Queue::default();
        let numbers: Vec<u64> =
            (0..WAITING_MAX).map(|n| queue.push(n, Weight::Other, now).unwrap()).collect();
        assert_eq!(queue.push(0, Weight::Other, now), None);
        assert_eq!((queue.remove(numbers[7]), queue.remove(numbers[7])), (Some(7), None));
        assert!(queue.push(0, Weight::Other, now).is_some());
    }
}
