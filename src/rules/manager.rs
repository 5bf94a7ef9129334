//! The rule manager: all groups, evaluated when they are due, by the caller or by a thread.

use super::alert::Alert;
use super::catch_up::{Arrived, Start, catch_up, restore_all, skip_gap};
use super::clock::{self, ClockWatch};
use super::durations::DurationStats;
use super::evaluate::evaluate;
use super::graph::{RuleAt, RuleGraph};
use super::group::Group;
use super::overlap;
use super::running::{self, Context, Round, RuleDurations, RunningGroup, lock};
use super::schedule::Due;
use super::status::{AlertStatus, GroupStatus};
use super::store::Store;
use super::succession::match_rules;
use super::unstored::{StoredOrNot, Unstored};
use crate::db::Db;
use crate::promql::running::Queries;
use crate::promql::{EvalOptions, Syntax};
use crate::state::{Changes, StateError, buckets};
use crate::storage::Timestamp;
use larum_storage_format::Labels;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The longest the thread waits before it looks at the clock again, which may have been set.
const LONGEST_WAIT_MS: i64 = 1000;

/// How long between looks for rules that yield the same series.
const BETWEEN_LOOKS: Duration = Duration::from_secs(30);

/// So many texts that cannot be expanded are told of at a time.
const TEMPLATE_ERRORS_MAX: usize = 100;

/// How rules are evaluated. The defaults are Prometheus'.
#[derive(Debug, Clone)]
pub struct RuleOptions {
    /// The interval of groups that state none (`global.evaluation_interval`).
    pub evaluation_interval: Duration,
    /// How far back groups look that state no `query_offset` (`global.rule_query_offset`).
    pub query_offset: Duration,
    /// When an alert that fires is handed out again (`--rules.alert.resend-delay`).
    pub resend_delay: Duration,
    /// The longest outage after which pending alerts are taken up (`--rules.alert.for-outage-tolerance`).
    pub outage_tolerance: Duration,
    /// The least time until an alert fires that was taken up from its samples
    /// (`--rules.alert.for-grace-period`).
    pub grace_period: Duration,
    /// The longest a start waits for fresh samples before it makes up for the slots that passed
    /// (`--rules.start-grace`). Until then alerts stay as they are.
    pub start_grace: Duration,
    /// How many rules may be evaluated at a time (`--rules.max-concurrent-evals`).
    pub max_concurrent_evals: usize,
    /// The longest a rule's query may take (`--query.timeout`).
    pub query_timeout: Duration,
    /// How queries are evaluated; deadline and cancellation are set by the manager.
    pub eval: EvalOptions,
    /// Where the queries of rules are seen while they run.
    pub queries: Queries,
    /// What may be used in queries of templates.
    pub syntax: Syntax,
    /// `$externalLabels` of templates.
    pub external_labels: Labels,
    /// `$externalURL` of templates: where the server is reached from outside.
    pub external_url: String,
    /// Samples that rules see although the database could not take them yet.
    pub unstored: Arc<Unstored>,
}

impl Default for RuleOptions {
    fn default() -> RuleOptions {
        let minutes = |n: u64| Duration::from_secs(n * 60);
        RuleOptions {
            evaluation_interval: minutes(1),
            query_offset: Duration::ZERO,
            resend_delay: minutes(1),
            outage_tolerance: minutes(60),
            grace_period: minutes(10),
            start_grace: minutes(5),
            max_concurrent_evals: 4,
            query_timeout: minutes(2),
            eval: EvalOptions::default(),
            queries: Queries::default(),
            syntax: Syntax::default(),
            external_labels: Labels::empty(),
            external_url: String::new(),
            unstored: Arc::default(),
        }
    }
}

/// Evaluates groups of rules over a database. Cloning is cheap and shares it.
///
/// ```
/// # use larum::{Batch, Db, Labels, Options, Timestamp};
/// # use larum::rules::{Group, RuleManager};
/// # let folder = tempfile::tempdir()?;
/// # let file = folder.path().join("rules.yaml");
/// std::fs::write(&file, "groups: [{name: g, interval: 15s, rules: [{alert: Down, expr: up == 0}]}]")?;
/// let db = Db::open(folder.path().join("data"), Options::default())?;
/// let rules = RuleManager::new(&db, Group::load(&file)?)?;
///
/// // The embedder owns time. The first call only learns the time; a slot comes every 15 s.
/// let start = db.now().as_millis();
/// rules.tick(Timestamp::from_millis(start));
/// let mut batch = Batch::new();
/// let up = Labels::from_pairs([("__name__", "up"), ("job", "api")])?;
/// batch.push(&up, Timestamp::from_millis(start), 0.0);
/// db.append(&batch)?;
/// for alert in rules.tick(Timestamp::from_millis(start + 15_000)) {
///     assert_eq!(alert.labels.to_string(), r#"{alertname="Down", job="api"}"#);
///     assert!(!alert.is_resolved());
/// }
///
/// // Or a thread does, until `running` is dropped.
/// let running = rules.spawn(|alerts| println!("{} alerts", alerts.len()))?;
/// # drop(running);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct RuleManager {
    inner: Arc<Inner>,
}

struct Inner {
    db: Db,
    /// Held while groups are evaluated or replaced.
    evaluating: Mutex<()>,
    loaded: Mutex<Loaded>,
    /// Until the slots are made up for that passed before the start.
    start: Mutex<Option<Start>>,
    /// Whether `start` is there, for who cannot wait for an evaluation.
    waits: AtomicBool,
    cancel: Arc<AtomicBool>,
    durations: RuleDurations,
    clock: Mutex<ClockWatch>,
    overlaps: Mutex<Overlaps>,
}

/// Rules that yield the same series, as sentences.
#[derive(Default)]
struct Overlaps {
    told: Vec<String>,
    looked: Option<Instant>,
}

/// What is replaced when rules are loaded again.
#[derive(Clone)]
struct Loaded {
    options: Arc<RuleOptions>,
    groups: Vec<Arc<RunningGroup>>,
    graph: Arc<RuleGraph>,
    /// Rules of one name, see [`overlap::namesakes`].
    namesakes: Arc<Vec<Vec<RuleAt>>>,
}

impl RuleManager {
    /// A manager of `groups` over `db`, with the default options. Alerts that were active when
    /// another process evaluated the same groups go on as if there had been no stop.
    pub fn new(db: &Db, groups: Vec<Group>) -> Result<RuleManager, StateError> {
        RuleManager::with_options(db, groups, RuleOptions::default())
    }

    /// A manager with the given options.
    pub fn with_options(
        db: &Db,
        groups: Vec<Group>,
        options: RuleOptions,
    ) -> Result<RuleManager, StateError> {
        let (groups, graph) = running(groups, &options);
        let start = restore_all(db, &groups)?;
        let loaded = Loaded::new(options, groups, graph);
        let inner = Inner {
            db: db.clone(),
            evaluating: Mutex::new(()),
            loaded: Mutex::new(loaded),
            waits: AtomicBool::new(start.is_some()),
            start: Mutex::new(start),
            cancel: Arc::default(),
            durations: RuleDurations::default(),
            clock: Mutex::default(),
            overlaps: Mutex::default(),
        };
        Ok(RuleManager { inner: Arc::new(inner) })
    }

    /// Evaluates the groups that are due at `now` and returns the alerts somebody has to hear of:
    /// those that began to fire, still fire a resend delay after they were last returned, or were
    /// resolved. What fails is told by [`RuleManager::groups`] and in the log.
    ///
    /// A group is due once per interval; the first time is the first slot after the first call. If
    /// another process evaluated it before, the slots since then come first (at most an hour of
    /// them), once samples arrive again; see [`RuleOptions::start_grace`].
    pub fn tick(&self, mut now: Timestamp) -> Vec<Alert> {
        let _one_at_a_time = lock(&self.inner.evaluating);
        let Loaded { options, groups, graph, namesakes } = self.loaded();
        let db = &self.inner.db;
        let context = Context {
            store: &StoredOrNot { db, unstored: &options.unstored },
            state: Some(db.state()),
            options: &options,
            cancel: &self.inner.cancel,
            durations: &self.inner.durations,
        };
        let mut alerts = Vec::new();
        let mut start = lock(&self.inner.start);
        if let Some(waiting) = &mut *start {
            if waiting.goes_on(now.as_millis(), Arrived::now(db), options.start_grace) {
                return groups.iter().flat_map(|group| group.send_again(&context, now)).collect();
            }
            let begun = Instant::now();
            alerts = catch_up(&context, &groups, &graph, now);
            *start = None;
            self.inner.waits.store(false, Ordering::Relaxed);
            let elapsed_ms = i64::try_from(begun.elapsed().as_millis()).unwrap_or(i64::MAX);
            now = Timestamp::from_millis(now.as_millis().saturating_add(elapsed_ms));
        }
        let mut due = Vec::new();
        for (number, group) in groups.iter().enumerate() {
            let Some(Due { slot_ms, missed }) = lock(&group.schedule).due(now.as_millis()) else { continue };
            skip_gap(group, slot_ms, options.outage_tolerance);
            due.push((number, Round { slot_ms, missed, now, is_heard: true }));
        }
        due.sort_by_key(|(_, round)| round.slot_ms);
        alerts.extend(evaluate(&context, &groups, &graph, &due, options.max_concurrent_evals));
        if !due.is_empty() {
            self.look_for_overlaps(&groups, &namesakes);
        }
        alerts
    }

    /// Looks for rules that yield the same series, but not all the time; the log says when that changes.
    fn look_for_overlaps(&self, groups: &[Arc<RunningGroup>], namesakes: &[Vec<RuleAt>]) {
        let mut overlaps = lock(&self.inner.overlaps);
        if overlaps.looked.is_some_and(|looked| looked.elapsed() < BETWEEN_LOOKS) {
            return;
        }
        let found = overlap::overlaps(groups, namesakes);
        for new in found.iter().filter(|text| !overlaps.told.contains(text)) {
            tracing::warn!("{new}");
        }
        *overlaps = Overlaps { told: found, looked: Some(Instant::now()) };
    }

    /// What to do when the clock jumped: after a jump forward nobody's samples are there yet, as after a
    /// start. What would be taken for gone is waited for.
    fn clock_jumped(&self, jump_ms: i64) {
        tracing::warn!("{}; rules go on from there", clock::sentence(jump_ms));
        let Some(shortest_ms) = self.loaded().groups.iter().map(|group| group.interval_ms).min() else {
            return;
        };
        if jump_ms > 0 {
            let _one_at_a_time = lock(&self.inner.evaluating);
            *lock(&self.inner.start) = Some(Start::new(shortest_ms, Arrived::now(&self.inner.db)));
            self.inner.waits.store(true, Ordering::Relaxed);
        }
    }

    /// Evaluates from now on in a thread of its own, by the clock of the database, and calls
    /// `hear` with the alerts of each round that has some; the next round waits until it returns.
    /// The thread ends when the returned handle is dropped.
    pub fn spawn(&self, hear: impl FnMut(Vec<Alert>) + Send + 'static) -> std::io::Result<RunningRules> {
        self.inner.cancel.store(false, Ordering::Relaxed);
        let stop = Arc::new(Stop::default());
        let (manager, of_thread) = (self.clone(), stop.clone());
        let thread = std::thread::Builder::new()
            .name("larum-rules".to_owned())
            .spawn(move || manager.run(&of_thread, hear))?;
        Ok(RunningRules { manager: self.clone(), stop, thread: Some(thread) })
    }

    fn run(&self, stop: &Stop, mut hear: impl FnMut(Vec<Alert>)) {
        loop {
            let now = self.inner.db.now();
            let jump_ms = lock(&self.inner.clock).look(Instant::now(), now.as_millis());
            if let Some(jump_ms) = jump_ms {
                self.clock_jumped(jump_ms);
            }
            let alerts = self.tick(now);
            if !alerts.is_empty() {
                hear(alerts);
            }
            let now_ms = self.inner.db.now().as_millis();
            let groups = self.loaded().groups;
            let next_ms = groups.iter().map(|group| lock(&group.schedule).next_ms(now_ms)).min();
            let wait_ms =
                next_ms.map_or(LONGEST_WAIT_MS, |t| t.saturating_sub(now_ms).clamp(1, LONGEST_WAIT_MS));
            if stop.wait(Duration::from_millis(wait_ms.unsigned_abs())) {
                return;
            }
        }
    }

    /// Replaces groups and options. Rules that stay keep their alerts, also if their group was renamed
    /// or they moved to another (kind, name and labels tell); series of rules that are gone are marked
    /// stale. Waits for an evaluation that is under way.
    pub fn reload(&self, groups: Vec<Group>, options: RuleOptions) {
        let _one_at_a_time = lock(&self.inner.evaluating);
        let old = self.loaded().groups;
        let (mut new, graph) = running(groups, &options);
        let old_identities: Vec<_> = old.iter().map(|group| group.identities()).collect();
        let new_identities: Vec<_> = new.iter().map(|group| group.identities()).collect();
        let succession = match_rules(&old_identities, &new_identities);
        let mut changes = Changes::default();
        for group in &old {
            changes.entries.push((group.slot_entry().0, None));
        }
        for (g, group) in new.iter_mut().enumerate() {
            for (r, found) in succession.rules[g].iter().enumerate() {
                if let Some((o, at)) = *found {
                    changes.entries.extend(group.succeed_rule(r, &old[o], at).entries);
                }
            }
            let of_rules = succession.rules[g].iter().flatten().next().map(|(o, _)| *o);
            match (succession.groups[g], of_rules) {
                (Some(o), _) => group.succeed(&old[o]),
                (None, Some(o)) => group.begin_after(&old[o]),
                (None, None) => continue,
            }
            changes.entries.push(group.slot_entry());
        }
        let kept: HashSet<_> = succession.rules.iter().flatten().flatten().copied().collect();
        let mut stale = HashSet::new();
        for (o, group) in old.iter().enumerate() {
            for at in (0..group.group.rules.len()).filter(|at| !kept.contains(&(o, *at))) {
                let (series, keys) = group.remains(at);
                stale.extend(series);
                changes.entries.extend(keys.into_iter().map(|key| (key, None)));
            }
        }
        for group in &new {
            for series in group.series() {
                stale.remove(&series);
            }
        }
        *lock(&self.inner.loaded) = Loaded::new(options, new, graph);
        lock(&self.inner.overlaps).looked = None;
        self.clear(stale, &changes);
        // What was written now is no sign of a sender.
        if let Some(start) = &mut *lock(&self.inner.start) {
            start.begin_again(Arrived::now(&self.inner.db));
        }
    }

    /// Marks series stale and forgets alerts of rules that are gone.
    fn clear(&self, stale: HashSet<Labels>, changes: &Changes) {
        let db = &self.inner.db;
        let markers: Vec<_> = stale.iter().map(running::stale).collect();
        if let Err(e) = Store::append(db, db.now(), &markers) {
            tracing::warn!("series of rules that are gone were not marked stale: {e}");
        }
        if let Err(e) = db.state().commit(buckets::RULES, changes) {
            tracing::warn!("which alerts went and which have another name now is not stored: {e}");
        }
    }

    /// The groups, by file and name, with their rules, alerts and figures.
    pub fn groups(&self) -> Vec<GroupStatus> {
        self.by_name().iter().map(|group| group.status()).collect()
    }

    /// All pending and firing alerts, in the order of their groups.
    pub fn alerts(&self) -> Vec<AlertStatus> {
        self.by_name().iter().flat_map(|group| group.alerts()).collect()
    }

    fn by_name(&self) -> Vec<Arc<RunningGroup>> {
        let mut groups = self.loaded().groups;
        groups.sort_by(|a, b| (&a.group.file, &a.group.name).cmp(&(&b.group.file, &b.group.name)));
        groups
    }

    /// How long evaluations of rules took, and of whole groups.
    pub fn durations(&self) -> [DurationStats; 2] {
        let RuleDurations { rules, groups } = &self.inner.durations;
        let now = Instant::now();
        [rules.stats(now), groups.stats(now)]
    }

    /// What is doubtful about the rules as a whole, and about the clock, each as a sentence: circles, rules that
    /// yield the same series, texts that cannot be expanded.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.circles();
        warnings.extend(lock(&self.inner.overlaps).told.iter().cloned());
        warnings.extend(lock(&self.inner.clock).text(Instant::now()));
        let groups = self.loaded().groups;
        warnings.extend(groups.iter().flat_map(|group| group.template_errors()).take(TEMPLATE_ERRORS_MAX));
        warnings
    }

    /// How many pairs of rules yield the same series.
    pub fn overlap_count(&self) -> usize {
        lock(&self.inner.overlaps).told.len()
    }

    /// How often the clock jumped since the start.
    pub fn clock_jumps(&self) -> u64 {
        lock(&self.inner.clock).jumps()
    }

    /// Rules of different groups that wait for each other in a circle, each as text; one of each reads what
    /// was there an evaluation before.
    pub fn circles(&self) -> Vec<String> {
        let Loaded { groups, graph, .. } = self.loaded();
        let groups: Vec<&Group> = groups.iter().map(|group| &group.group).collect();
        graph.circles.iter().map(|circle| told(&groups, circle)).collect()
    }

    /// How many circles there are.
    pub fn circle_count(&self) -> usize {
        lock(&self.inner.loaded).graph.circles.len()
    }

    /// Whether a start still waits for fresh samples; until then nothing is evaluated.
    pub fn is_waiting(&self) -> bool {
        self.inner.waits.load(Ordering::Relaxed)
    }

    fn loaded(&self) -> Loaded {
        lock(&self.inner.loaded).clone()
    }
}

impl Loaded {
    fn new(options: RuleOptions, groups: Vec<RunningGroup>, graph: Arc<RuleGraph>) -> Loaded {
        let namesakes = overlap::namesakes(&groups.iter().map(|group| &group.group).collect::<Vec<_>>());
        let groups = groups.into_iter().map(Arc::new).collect();
        Loaded { options: Arc::new(options), groups, graph, namesakes: Arc::new(namesakes) }
    }
}

/// The groups, each file and name once, and which rule waits for which. Groups that are connected have the
/// same slots.
fn running(groups: Vec<Group>, options: &RuleOptions) -> (Vec<RunningGroup>, Arc<RuleGraph>) {
    let mut running: Vec<RunningGroup> = Vec::with_capacity(groups.len());
    let mut seen = HashSet::new();
    for group in groups {
        if seen.insert((group.file.clone(), group.name.clone())) {
            running.push(RunningGroup::new(group, options));
        } else {
            tracing::warn!("group {} of {} was given twice; the second is left out", group.name, group.file);
        }
    }
    let groups: Vec<&Group> = running.iter().map(|group| &group.group).collect();
    let graph = RuleGraph::new(groups.iter().copied());
    for circle in &graph.circles {
        tracing::warn!("{}", told(&groups, circle));
    }
    let leaders = graph.connected(|a, b| running[a].interval_ms == running[b].interval_ms);
    for (number, leader) in leaders.into_iter().enumerate().filter(|(number, leader)| number != leader) {
        *lock(&running[number].schedule) = lock(&running[leader].schedule).clone();
    }
    (running, Arc::new(graph))
}

/// A circle of rules as a sentence.
fn told(groups: &[&Group], circle: &[RuleAt]) -> String {
    let rule = |&(group, rule): &RuleAt| {
        let Group { name, file, rules, .. } = groups[group];
        format!("{} (group {name} of {file})", rules[rule].name())
    };
    let rules: Vec<String> = circle.iter().map(rule).collect();
    format!(
        "rules wait for each other in a circle: {}; the first reads what the last yielded an evaluation before",
        rules.join(" <- ")
    )
}

/// Rules that are being evaluated by a thread. Dropping it stops the thread and waits for it.
pub struct RunningRules {
    manager: RuleManager,
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Stop {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    /// Waits for at most `time`; whether it is time to stop.
    fn wait(&self, time: Duration) -> bool {
        let stopped = lock(&self.stopped);
        let waited = self.changed.wait_timeout_while(stopped, time, |stopped| !*stopped);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Drop for RunningRules {
    fn drop(&mut self) {
        *lock(&self.stop.stopped) = true;
        self.stop.changed.notify_one();
        self.manager.inner.cancel.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.manager.inner.cancel.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[path = "manager_tests.rs"]
mod tests;
