//! One round: the rules of all groups that are due, each after those it waits for, several at a time.

use super::alert::Alert;
use super::graph::{RuleAt, RuleGraph};
use super::running::{Context, Progress, Round, RunningGroup, lock};
use crossbeam::thread;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Rules that took less than this together the last time are not worth another thread.
const WORTH_A_THREAD: Duration = Duration::from_millis(5);

/// A rule on its way: when its slot is, so that of those that may go the oldest does; which of the groups
/// that are due it belongs to, and its place there.
type Task = Reverse<(i64, usize, usize)>;

struct Evaluation<'a> {
    context: &'a Context<'a>,
    /// Those that are due, in their order.
    due: Vec<(&'a RunningGroup, Round)>,
    /// By group: its place in `due`.
    place: Vec<Option<usize>>,
    numbers: Vec<usize>,
    graph: &'a RuleGraph,
    shared: Mutex<Shared>,
    changed: Condvar,
}

struct Shared {
    ready: BinaryHeap<Task>,
    /// By place in `due` and rule: how many it waits for.
    waits_for: Vec<Vec<u32>>,
    /// By place in `due`.
    groups: Vec<Left>,
    /// Rules that are not done.
    left: usize,
}

/// What is left of a group.
struct Left {
    rules: usize,
    progress: Progress,
    alerts: Vec<(usize, Vec<Alert>)>,
}

/// Evaluates the groups `due`, each as its number among `groups` and its round, on at most `threads`
/// threads. Returns the alerts somebody has to hear of, in the order of groups and rules.
pub fn evaluate(
    context: &Context<'_>,
    groups: &[Arc<RunningGroup>],
    graph: &RuleGraph,
    due: &[(usize, Round)],
    threads: usize,
) -> Vec<Alert> {
    let mut place = vec![None; groups.len()];
    for (at, (number, _)) in due.iter().enumerate() {
        place[*number] = Some(at);
    }
    let evaluation = Evaluation {
        context,
        due: due.iter().map(|(number, round)| (&*groups[*number], *round)).collect(),
        place,
        numbers: due.iter().map(|(number, _)| *number).collect(),
        graph,
        shared: Mutex::new(Shared {
            ready: BinaryHeap::new(),
            waits_for: due.iter().map(|(number, _)| vec![0; groups[*number].group.rules.len()]).collect(),
            groups: Vec::new(),
            left: 0,
        }),
        changed: Condvar::new(),
    };
    evaluation.begin();
    let expected: Duration = evaluation.due.iter().map(|(group, _)| group.expected()).sum();
    let helpers = if expected < WORTH_A_THREAD { 0 } else { threads.saturating_sub(1) };
    let helpers = helpers.min(lock(&evaluation.shared).left.saturating_sub(1));
    if helpers == 0 {
        evaluation.work();
    } else {
        let worked = thread::scope(|scope| {
            for _ in 0..helpers {
                // What cannot be shared is done here.
                let _ = scope.builder().name("larum-rule".to_owned()).spawn(|_| evaluation.work());
            }
            evaluation.work();
        });
        if let Err(panic) = worked {
            std::panic::resume_unwind(panic);
        }
    }
    let shared = evaluation.shared.into_inner().unwrap_or_else(PoisonError::into_inner);
    let of_group = |mut left: Left| {
        left.alerts.sort_by_key(|(rule, _)| *rule);
        left.alerts.into_iter().flat_map(|(_, alerts)| alerts)
    };
    shared.groups.into_iter().flat_map(of_group).collect()
}

impl Evaluation<'_> {
    fn begin(&self) {
        let mut shared = lock(&self.shared);
        for (at, (group, _)) in self.due.iter().enumerate() {
            let rules = group.group.rules.len();
            for rule in 0..rules {
                for (to, to_rule) in self.waiting((at, rule)) {
                    shared.waits_for[to][to_rule] += 1;
                }
            }
            shared.left += rules;
            shared.groups.push(Left { rules, progress: Progress::new(), alerts: Vec::new() });
        }
        let Shared { ready, waits_for, .. } = &mut *shared;
        for (at, rules) in waits_for.iter().enumerate() {
            let free = rules.iter().enumerate().filter(|(_, waits_for)| **waits_for == 0);
            ready.extend(free.map(|(rule, _)| self.task(at, rule)));
        }
        for (group, round) in self.due.iter().filter(|(group, _)| group.group.rules.is_empty()) {
            group.finish(self.context, *round, &Progress::new());
        }
    }

    fn task(&self, at: usize, rule: usize) -> Task {
        Reverse((self.due[at].1.slot_ms, at, rule))
    }

    /// The rules that are due and wait for this one. One whose slot is earlier sees nothing of it anyway.
    fn waiting(&self, (at, rule): RuleAt) -> impl Iterator<Item = RuleAt> + '_ {
        let slot_ms = self.due[at].1.slot_ms;
        self.graph
            .waiting((self.numbers[at], rule))
            .filter_map(|(group, rule)| Some((self.place[group]?, rule)))
            .filter(move |(to, _)| self.due[*to].1.slot_ms >= slot_ms)
    }

    /// Evaluates rules until none is left.
    fn work(&self) {
        let mut shared = lock(&self.shared);
        loop {
            if shared.left == 0 || self.context.cancel.load(Ordering::Relaxed) {
                self.changed.notify_all();
                return;
            }
            let Some(Reverse((_, at, rule))) = shared.ready.pop() else {
                shared = self.changed.wait(shared).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(shared);
            // If it panics, the others shall not wait for ever.
            let done = Done { evaluation: self, at, rule };
            let (group, round) = self.due[at];
            let mut progress = Progress::new();
            let alerts = group.evaluate_rule(self.context, rule, round, &mut progress);
            shared = lock(&self.shared);
            let left = &mut shared.groups[at];
            left.progress.add(&progress);
            left.alerts.push((rule, alerts));
            drop(shared);
            drop(done);
            shared = lock(&self.shared);
        }
    }
}

/// A rule that was taken up: is done when this is dropped, so that those that wait for it may go.
struct Done<'a> {
    evaluation: &'a Evaluation<'a>,
    at: usize,
    rule: usize,
}

impl Drop for Done<'_> {
    fn drop(&mut self) {
        let Done { evaluation, at, rule } = *self;
        let mut shared = lock(&evaluation.shared);
        for (to, to_rule) in evaluation.waiting((at, rule)) {
            shared.waits_for[to][to_rule] -= 1;
            if shared.waits_for[to][to_rule] == 0 {
                shared.ready.push(evaluation.task(to, to_rule));
            }
        }
        shared.left -= 1;
        shared.groups[at].rules -= 1;
        let finished = (shared.groups[at].rules == 0 && !std::thread::panicking())
            .then(|| std::mem::replace(&mut shared.groups[at].progress, Progress::new()));
        drop(shared);
        evaluation.changed.notify_all();
        if let Some(progress) = finished {
            let (group, round) = evaluation.due[at];
            group.finish(evaluation.context, round, &progress);
        }
    }
}
