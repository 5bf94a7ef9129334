//! A group while it runs: its rules, how far they got, and one evaluation of all of them.

use super::alert::{Alert, AlertState};
use super::alerting::{ActiveAlert, ActiveAlerts, AlertingRule};
use super::durations::Durations;
use super::error::RuleError;
use super::expand::{Surroundings, TemplateFailures, map};
use super::group::{Group, Rule};
use super::manager::RuleOptions;
use super::persist::{self, StoredAlert};
use super::recording::RecordingRule;
use super::restore;
use super::schedule::Schedule;
use super::status::{AlertStatus, AlertingStatus, GroupStats, GroupStatus, Health, RuleStatus};
use super::store::Store;
use super::succession::Identities;
use super::template::QuerySample;
use crate::db::QueryError;
use crate::promql::running::{Origin, Query, RuleOrigin, Running, Timings};
use crate::promql::value::Stats;
use crate::promql::value::VectorElement;
use crate::promql::{self, EvalOptions, Expr, Steps, Value as Answered};
use crate::state::{Changes, State, StateError, buckets};
use crate::storage::{TimeRange, Timestamp};
use larum_storage_format::sample::STALE_NAN;
use larum_storage_format::{Labels, Value};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::xxh3_64;

/// What an evaluation needs besides the group.
pub struct Context<'a> {
    pub store: &'a dyn Store,
    /// Where it is kept how far rules got, if it is.
    pub state: Option<&'a State>,
    pub options: &'a RuleOptions,
    /// Set to stop evaluations that are under way.
    pub cancel: &'a Arc<AtomicBool>,
    pub durations: &'a RuleDurations,
}

/// How long rules and groups took.
#[derive(Debug, Default)]
pub struct RuleDurations {
    /// Each evaluation of a rule.
    pub rules: Durations,
    /// Each evaluation of a whole group.
    pub groups: Durations,
}

/// One evaluation of a group.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    pub slot_ms: i64,
    /// How many slots before this one were left out.
    pub missed: u64,
    /// The present time.
    pub now: Timestamp,
    /// Whether anybody is told of alerts: not of what was true on the way to the present.
    pub is_heard: bool,
}

/// How far an evaluation of a group got.
#[derive(Debug)]
pub struct Progress {
    started: Instant,
    /// Whether it was broken off.
    pub is_broken: bool,
    evaluations: u64,
    failures: u64,
    template_failures: u64,
    seconds: f64,
    samples: u64,
}

impl Progress {
    /// Nothing yet.
    pub fn new() -> Progress {
        Progress {
            started: Instant::now(),
            is_broken: false,
            evaluations: 0,
            failures: 0,
            template_failures: 0,
            seconds: 0.0,
            samples: 0,
        }
    }

    /// Adds that of other rules of the group.
    pub fn add(&mut self, other: &Progress) {
        self.started = self.started.min(other.started);
        self.is_broken |= other.is_broken;
        self.evaluations += other.evaluations;
        self.failures += other.failures;
        self.template_failures += other.template_failures;
        self.seconds += other.seconds;
        self.samples += other.samples;
    }
}

/// A group and how far it got.
pub struct RunningGroup {
    pub group: Group,
    pub schedule: Mutex<Schedule>,
    pub interval_ms: i64,
    rules: Vec<RunningRule>,
    pub query_offset_ms: i64,
    /// The last slot that was evaluated, by this process or one before.
    last_slot_ms: Mutex<Option<i64>>,
    stats: Mutex<GroupStats>,
}

/// A rule's place in the state store, and how far it got. The state is shared with the group's
/// successor when rules are loaded again.
#[derive(Clone)]
struct RunningRule {
    /// What identifies it in its group.
    identity: Vec<u8>,
    key_prefix: Vec<u8>,
    state: Arc<Mutex<RuleState>>,
}

#[derive(Default)]
struct RuleState {
    alerts: ActiveAlerts,
    /// The series of the last evaluation that was stored: those that do not come again get a
    /// stale marker.
    previous: HashSet<Labels>,
    /// When another process evaluated the rule last, until what it yielded then is looked up.
    recall: Option<Timestamp>,
    /// What the state store holds of each alert, as a hash of the bytes.
    stored: HashMap<Labels, u64>,
    /// The number of evaluations since start, while the alerts that were active before are not
    /// taken up yet from samples. Until then none are written, which would hide the old ones.
    unrestored: Option<u32>,
    health: Health,
    last_error: Option<String>,
    /// The error that was logged last, if the rule is not well again.
    told_error: Option<String>,
    template_error: Option<String>,
    evaluation_time: Duration,
    last_evaluation: Option<Timestamp>,
}

impl RunningGroup {
    /// The group with nothing evaluated yet.
    pub fn new(group: Group, options: &RuleOptions) -> RunningGroup {
        let interval_ms = millis(group.interval.unwrap_or(options.evaluation_interval));
        let query_offset_ms = millis(group.query_offset.unwrap_or(options.query_offset));
        let rules = persist::identities(&group.rules).into_iter().map(|identity| RunningRule {
            key_prefix: persist::rule_prefix(&group, &identity),
            identity,
            state: Arc::default(),
        });
        let rules = rules.collect();
        RunningGroup {
            schedule: Mutex::new(Schedule::new(&group.file, &group.name, interval_ms)),
            interval_ms,
            rules,
            query_offset_ms,
            last_slot_ms: Mutex::new(None),
            stats: Mutex::default(),
            group,
        }
    }

    /// By what the group and its rules are found again.
    pub fn identities(&self) -> Identities {
        Identities {
            group: (self.group.file.clone(), self.group.name.clone()),
            rules: self.rules.iter().map(|rule| rule.identity.clone()).collect(),
        }
    }

    /// Takes up what a process before this one left: the last slot, and the alerts of each rule.
    /// Returns what has to change in the store, where the alerts were under other names.
    pub fn restore(&self, slot_ms: Option<i64>, stored: &[Option<&Vec<StoredAlert>>]) -> Changes {
        let mut changes = Changes::default();
        for ((rule, running), stored) in self.group.rules.iter().zip(&self.rules).zip(stored) {
            let mut state = lock(&running.state);
            let Rule::Alerting(rule) = rule else {
                let at_ms = slot_ms.map(|slot_ms| slot_ms.saturating_sub(self.query_offset_ms));
                state.recall = at_ms.map(Timestamp::from_millis);
                continue;
            };
            if slot_ms.is_none() {
                state.unrestored = Some(0);
                continue;
            }
            let Some(stored) = stored else { continue };
            let (alerts, unreadable) = persist::decode_alerts(stored);
            if unreadable > 0 {
                tracing::warn!(
                    "{}: the state of {unreadable} alerts cannot be read; they start anew",
                    rule.name
                );
            }
            for alert in stored.iter().filter(|alert| !alert.key.starts_with(&running.key_prefix)) {
                let key = [running.key_prefix.as_slice(), &alert.labels].concat();
                changes.entries.push((key, Some(alert.value.clone())));
                changes.entries.push((alert.key.clone(), None));
            }
            state.previous = rule.samples(&alerts).into_iter().map(|(labels, _)| labels).collect();
            state.alerts = alerts;
            let hashes = state.alerts.iter().map(|(labels, a)| (labels.clone(), hash(a)));
            state.stored = hashes.collect();
        }
        *lock(&self.last_slot_ms) = slot_ms;
        if !changes.entries.is_empty() {
            changes.entries.push(self.slot_entry());
        }
        changes
    }

    /// Takes over how far rule `at` of `old` got, for its rule `rule`. Returns what has to change in the
    /// store, where that has another name now.
    pub fn succeed_rule(&mut self, rule: usize, old: &RunningGroup, at: usize) -> Changes {
        let (new, old) = (&mut self.rules[rule], &old.rules[at]);
        new.state = old.state.clone();
        let mut changes = Changes::default();
        if new.key_prefix != old.key_prefix {
            let state = lock(&new.state);
            for labels in state.stored.keys() {
                changes.entries.push((old.key(labels), None));
                if let Some(alert) = state.alerts.get(labels) {
                    changes.entries.push((new.key(labels), Some(persist::encode_alert(alert))));
                }
            }
        }
        changes
    }

    /// Takes over how far the group `old` got.
    pub fn succeed(&mut self, old: &RunningGroup) {
        if old.interval_ms == self.interval_ms {
            let old = lock(&old.schedule).clone();
            lock(&self.schedule).go_on_after(&old);
        }
        self.last_slot_ms = Mutex::new(*lock(&old.last_slot_ms));
        self.stats = Mutex::new(*lock(&old.stats));
    }

    /// How long it took to take up what was left before, for the figures.
    pub fn restored_in(&self, took: Duration) {
        lock(&self.stats).restore_seconds = took.as_secs_f64();
    }

    /// Lets all slots up to `slot_ms` pass without an evaluation: nobody knows what was true then, so
    /// that this does not count as time that alerts were pending.
    pub fn pass(&self, slot_ms: i64) {
        let Some(gap_ms) = self.last_slot_ms().map(|last_ms| slot_ms.saturating_sub(last_ms)) else { return };
        if gap_ms <= 0 {
            return;
        }
        self.skip(gap_ms);
        *lock(&self.last_slot_ms) = Some(slot_ms);
        let missed = (gap_ms / self.interval_ms.max(1)).unsigned_abs();
        let mut stats = lock(&self.stats);
        stats.iterations += missed;
        stats.missed += missed;
    }

    /// Begins where rules that came from the group `old` got.
    pub fn begin_after(&mut self, old: &RunningGroup) {
        self.last_slot_ms = Mutex::new(old.last_slot_ms());
    }

    /// The last slot that was evaluated, in milliseconds since the epoch.
    pub fn last_slot_ms(&self) -> Option<i64> {
        *lock(&self.last_slot_ms)
    }

    /// How far the group got, as the store has it.
    pub fn slot_entry(&self) -> (Vec<u8>, Option<Vec<u8>>) {
        (persist::group_key(&self.group), self.last_slot_ms().map(persist::encode_slot))
    }

    /// The series that rule `at` yielded last, and where its alerts stand in the store.
    pub fn remains(&self, at: usize) -> (HashSet<Labels>, Vec<Vec<u8>>) {
        let rule = &self.rules[at];
        let state = lock(&rule.state);
        (state.previous.clone(), state.stored.keys().map(|labels| rule.key(labels)).collect())
    }

    /// The series that rule `at` yielded last.
    pub fn series_of(&self, at: usize) -> HashSet<Labels> {
        lock(&self.rules[at].state).previous.clone()
    }

    /// The series that the rules yielded last.
    pub fn series(&self) -> HashSet<Labels> {
        self.rules.iter().flat_map(|rule| lock(&rule.state).previous.clone()).collect()
    }

    /// Evaluates all rules in order at the slot of `round`. Returns the alerts somebody has to hear of.
    pub fn evaluate(&self, context: &Context<'_>, round: Round) -> Vec<Alert> {
        let mut progress = Progress::new();
        let mut due = Vec::new();
        for rule in 0..self.rules.len() {
            due.extend(self.evaluate_rule(context, rule, round, &mut progress));
        }
        self.finish(context, round, &progress);
        due
    }

    /// Evaluates one rule. Returns the alerts somebody has to hear of, also if what the rule yields cannot
    /// be stored.
    pub fn evaluate_rule(
        &self,
        context: &Context<'_>,
        at: usize,
        round: Round,
        progress: &mut Progress,
    ) -> Vec<Alert> {
        let (rule, running) = (&self.group.rules[at], &self.rules[at]);
        let started = Instant::now();
        let mut due = Vec::new();
        let mut templates = TemplateFailures::default();
        let outcome = self.step(context, rule, running, round, &mut due, &mut templates);
        let took = started.elapsed();
        if context.cancel.load(Ordering::Relaxed) {
            progress.is_broken = true;
            return due;
        }
        let mut state = lock(&running.state);
        state.evaluation_time = took;
        state.last_evaluation = Some(round.now);
        state.health = if outcome.is_ok() { Health::Good } else { Health::Bad };
        if outcome.is_err() {
            // What cannot be evaluated has no alerts to take up; nobody shall wait for it.
            state.unrestored = state.unrestored.filter(|evaluations| *evaluations == 0).map(|_| 1);
        }
        context.durations.rules.observe(took, Instant::now());
        progress.evaluations += 1;
        progress.seconds += took.as_secs_f64();
        progress.samples += outcome.as_ref().unwrap_or(&0);
        progress.failures += u64::from(outcome.is_err());
        progress.template_failures += templates.count;
        // A full disk is told of once, not by every rule.
        let is_told = !matches!(&outcome, Err(RuleError::Append(e)) if e.is_disk_full());
        let error = outcome.err().map(|e| e.to_string());
        if is_told {
            self.tell(rule, "fails", &state.told_error, &error);
            state.told_error.clone_from(&error);
        }
        state.last_error = error;
        let what = "has a template that cannot be expanded";
        self.tell(rule, what, &state.template_error, &templates.first);
        state.template_error = templates.first;
        due
    }

    /// Logs what is wrong with a rule when that changes, not with each evaluation.
    fn tell(&self, rule: &Rule, what: &str, before: &Option<String>, error: &Option<String>) {
        let (Group { file, name: group, .. }, rule) = (&self.group, rule.name());
        match (before, error) {
            (before, Some(error)) if before.as_ref() != Some(error) => {
                tracing::warn!("rule {rule} of group {group} in {file} {what}: {error}");
            }
            (Some(_), None) => tracing::info!("rule {rule} of group {group} in {file} is well again"),
            _ => {}
        }
    }

    /// Commits how far the group got, after all its rules were evaluated.
    pub fn finish(&self, context: &Context<'_>, round: Round, progress: &Progress) {
        if progress.is_broken {
            // As after a crash: the slot was not evaluated, and will be.
            return;
        }
        *lock(&self.last_slot_ms) = Some(round.slot_ms);
        if let Some(state) = context.state {
            self.commit_counted(state, round.slot_ms);
        }
        let mut stats = lock(&self.stats);
        stats.evaluations += progress.evaluations;
        stats.failures += progress.failures;
        stats.template_failures += progress.template_failures;
        stats.iterations += 1 + round.missed;
        stats.missed += round.missed;
        stats.last_evaluation = Some(round.now);
        let took = progress.started.elapsed();
        context.durations.groups.observe(took, Instant::now());
        stats.last_seconds = took.as_secs_f64();
        stats.last_rule_seconds = progress.seconds;
        stats.last_samples = progress.samples;
    }

    /// How long the rules took the last time, together.
    pub fn expected(&self) -> Duration {
        self.rules.iter().map(|rule| lock(&rule.state).evaluation_time).sum()
    }

    /// Time that nobody knows anything of does not count as time that alerts were pending.
    pub fn skip(&self, gap_ms: i64) {
        for running in &self.rules {
            for alert in lock(&running.state).alerts.values_mut() {
                if alert.state == AlertState::Pending {
                    let shifted = alert.active_at.as_millis().saturating_add(gap_ms);
                    alert.active_at = Timestamp::from_millis(shifted);
                }
            }
        }
    }

    /// The alerts somebody has to hear of, again or since slots were evaluated that nobody heard of.
    pub fn send_again(&self, context: &Context<'_>, now: Timestamp) -> Vec<Alert> {
        let mut due = Vec::new();
        for (rule, running) in self.group.rules.iter().zip(&self.rules) {
            if let Rule::Alerting(rule) = rule {
                due.extend(self.due(rule, &mut lock(&running.state), context.options, now));
            }
        }
        if let (Some(state), Some(slot_ms), false) = (context.state, self.last_slot_ms(), due.is_empty()) {
            self.commit_counted(state, slot_ms);
        }
        due
    }

    fn due(
        &self,
        rule: &AlertingRule,
        state: &mut RuleState,
        options: &RuleOptions,
        at: Timestamp,
    ) -> Vec<Alert> {
        rule.due(&mut state.alerts, at, millis(options.resend_delay), self.interval_ms)
    }

    /// One rule: query, step, append. Adds to `due` the alerts to be heard of. Returns how many samples
    /// it yielded.
    fn step(
        &self,
        context: &Context<'_>,
        rule: &Rule,
        running: &RunningRule,
        round: Round,
        due: &mut Vec<Alert>,
        templates: &mut TemplateFailures,
    ) -> Result<u64, RuleError> {
        let Round { slot_ms, is_heard, now, .. } = round;
        let at = Timestamp::from_millis(slot_ms.saturating_sub(self.query_offset_ms));
        let deadline = Instant::now().checked_add(context.options.query_timeout);
        let asked = |text: &str, at| self.begin_query(context, rule, text, at, now);
        let told = asked(rule.query(), at);
        let answer = query(context, rule.expr(), rule.query(), at, deadline, told)?;
        let samples = match rule {
            Rule::Recording(rule) => rule.step(answer, self.group.limit)?,
            Rule::Alerting(rule) => {
                let slot = Timestamp::from_millis(slot_ms);
                let surroundings = Surroundings {
                    external_labels: &context.options.external_labels,
                    external_url: &context.options.external_url,
                    now_ms: slot_ms,
                    query: &|text, deadline| {
                        query_for_template(context, text, slot, deadline, || asked(text, slot))
                    },
                    failures: RefCell::default(),
                };
                let found = rule.describe(answer, &surroundings);
                *templates = surroundings.failures.into_inner();
                let found = found?;
                let mut state = lock(&running.state);
                rule.step(&mut state.alerts, found, slot, self.group.limit)?;
                state.take_up(context, rule, slot);
                if is_heard {
                    due.extend(self.due(rule, &mut state, context.options, slot));
                }
                rule.samples(&state.alerts)
            }
        };
        let count = samples.len() as u64;
        // While the old alerts are not taken up, the new ones are not shown.
        if lock(&running.state).unrestored.is_none() {
            if let Rule::Recording(rule) = rule {
                running.recall(context.store, rule);
            }
            match (store(context.store, running, samples, at), rule) {
                // The alerts are found and sent all the same; only the samples about them are missing.
                (Err(RuleError::Append(e)), Rule::Alerting(_)) if e.is_disk_full() => {}
                (outcome, _) => outcome?,
            }
        }
        Ok(count)
    }

    /// Makes a query of a rule seen.
    fn begin_query(
        &self,
        context: &Context<'_>,
        rule: &Rule,
        text: &str,
        at: Timestamp,
        now: Timestamp,
    ) -> Running {
        let Group { file, name, .. } = &self.group;
        let origin = RuleOrigin { file: file.clone(), group: name.clone(), rule: rule.name().to_owned() };
        let query = Query::new(text, Steps::instant(at), Origin::Rule(origin), now);
        context.options.queries.begin(query)
    }

    /// Commits; a failure is counted. The log says once from when to when.
    fn commit_counted(&self, store: &State, slot_ms: i64) {
        if self.commit(store, slot_ms).is_err() {
            lock(&self.stats).state_failures += 1;
        }
    }

    /// Commits what changed since the last commit, and the slot, together. Not while alerts are
    /// still to be taken up from samples, which a stored slot would end.
    fn commit(&self, store: &State, slot_ms: i64) -> Result<(), StateError> {
        if self.rules.iter().any(|running| lock(&running.state).unrestored.is_some()) {
            return Ok(());
        }
        let mut changes = Changes::default();
        let mut written = Vec::new();
        for running in &self.rules {
            let state = lock(&running.state);
            let mut hashes = HashMap::with_capacity(state.alerts.len());
            for (labels, alert) in &state.alerts {
                let value = persist::encode_alert(alert);
                let hash = xxh3_64(&value);
                if state.stored.get(labels) != Some(&hash) {
                    changes.entries.push((running.key(labels), Some(value)));
                }
                hashes.insert(labels.clone(), hash);
            }
            let gone = state.stored.keys().filter(|labels| !hashes.contains_key(*labels));
            changes.entries.extend(gone.map(|labels| (running.key(labels), None)));
            written.push(hashes);
        }
        changes.entries.push((persist::group_key(&self.group), Some(persist::encode_slot(slot_ms))));
        // Also what cannot be written is in the store: it is kept in memory until it can be.
        let outcome = store.commit(buckets::RULES, &changes);
        for (running, hashes) in self.rules.iter().zip(written) {
            lock(&running.state).stored = hashes;
        }
        outcome
    }

    /// How the group and its rules are doing.
    pub fn status(&self) -> GroupStatus {
        let rules = self.group.rules.iter().zip(&self.rules);
        GroupStatus {
            name: self.group.name.clone(),
            file: self.group.file.clone(),
            interval: duration(self.interval_ms),
            limit: self.group.limit,
            rules: rules.map(|(rule, running)| lock(&running.state).status(rule)).collect(),
            stats: *lock(&self.stats),
        }
    }

    /// Of each rule with a text that cannot be expanded, what is wrong.
    pub fn template_errors(&self) -> Vec<String> {
        let Group { name, file, rules, .. } = &self.group;
        let error = |(rule, running): (&Rule, &RunningRule)| {
            let error = lock(&running.state).template_error.clone()?;
            Some(format!("{} (group {name} of {file}): {error}", rule.name()))
        };
        rules.iter().zip(&self.rules).filter_map(error).collect()
    }

    /// The pending and firing alerts of all rules.
    pub fn alerts(&self) -> Vec<AlertStatus> {
        self.rules.iter().flat_map(|running| lock(&running.state).active()).collect()
    }
}

impl RunningRule {
    /// Looks up what the rule yielded before the start, so that series that went since are marked stale.
    fn recall(&self, store: &dyn Store, rule: &RecordingRule) {
        let Some(at) = lock(&self.state).recall.take() else { return };
        match restore::recorded(&*store.source(None), rule, at) {
            Ok(series) => lock(&self.state).previous = series,
            Err(e) => {
                tracing::warn!("rule {}: what it yielded before the start is not known: {e}", rule.name)
            }
        }
    }

    /// Where an alert stands in the state store.
    fn key(&self, labels: &Labels) -> Vec<u8> {
        [self.key_prefix.as_slice(), labels.as_bytes()].concat()
    }
}

impl RuleState {
    /// Takes up the alerts that were active before the start from the samples about them, once
    /// what feeds the rule has had time to come back: with the second evaluation.
    fn take_up(&mut self, context: &Context<'_>, rule: &AlertingRule, now: Timestamp) {
        let Some(evaluations) = self.unrestored else { return };
        let RuleOptions { outage_tolerance, grace_period, .. } = context.options;
        let grace_period_ms = millis(*grace_period);
        if rule.hold_ms < grace_period_ms {
            self.unrestored = None;
            return;
        }
        let now_ms = now.as_millis();
        let range = TimeRange::new(now_ms.saturating_sub(millis(*outage_tolerance)), now_ms);
        match restore::stored(&*context.store.source(None), &rule.name, range) {
            Ok(stored) if stored.is_empty() => self.unrestored = None,
            Ok(stored) if evaluations > 0 => {
                restore::apply(&mut self.alerts, &stored, now, rule.hold_ms, grace_period_ms);
                self.unrestored = None;
            }
            Ok(_) => self.unrestored = Some(1),
            Err(e) => {
                tracing::warn!("rule {}: what was active before the start is not known: {e}", rule.name);
                self.unrestored = None;
            }
        }
    }

    fn status(&self, rule: &Rule) -> RuleStatus {
        let text = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let alerting = match rule {
            Rule::Recording(_) => None,
            Rule::Alerting(rule) => {
                let active = self.alerts.values().map(|a| a.state).max().unwrap_or(AlertState::Inactive);
                let annotations = rule.annotations.iter().map(|(n, t)| text((n, t.source())));
                Some(AlertingStatus {
                    state: (self.health != Health::Unknown).then_some(active),
                    hold: duration(rule.hold_ms),
                    keep_firing_for: duration(rule.keep_firing_for_ms),
                    annotations: annotations.collect(),
                    alerts: self.active(),
                })
            }
        };
        RuleStatus {
            name: rule.name().to_owned(),
            query: rule.query().to_owned(),
            labels: rule.labels().map(text).collect(),
            health: self.health,
            last_error: self.last_error.clone(),
            evaluation_time: self.evaluation_time,
            last_evaluation: self.last_evaluation,
            alerting,
        }
    }

    fn active(&self) -> Vec<AlertStatus> {
        let active = self.alerts.iter().filter(|(_, alert)| alert.state != AlertState::Inactive);
        active
            .map(|(labels, alert)| AlertStatus {
                labels: labels.clone(),
                annotations: alert.annotations.clone(),
                state: alert.state,
                active_at: alert.active_at,
                keep_firing_since: alert.keep_firing_since,
                value: alert.value,
            })
            .collect()
    }
}

/// The value of `expr` at one time as a vector; a scalar is one element without labels.
fn query(
    context: &Context<'_>,
    expr: &Expr,
    canonical: &str,
    at: Timestamp,
    deadline: Option<Instant>,
    running: Running,
) -> Result<Vec<VectorElement>, RuleError> {
    let options = EvalOptions {
        deadline,
        cancel: Some(context.cancel.clone()),
        progress: Some(running.progress()),
        count_samples: context.options.queries.is_heard(),
        memory: context.store.memory(),
        ..context.options.eval.clone()
    };
    let started = Instant::now();
    running.run(options.memory.clone());
    let source = context.store.source(options.memory.as_ref());
    let answer = promql::evaluate(expr, &*source, Steps::instant(at), &options);
    let took = started.elapsed();
    let timings = Timings { evaluate: took, total: took, ..Timings::default() };
    let error = answer.as_ref().err().map(ToString::to_string);
    let stats = answer.as_ref().map_or_else(|_| Stats::default(), |answer| answer.stats.clone());
    running.finish(canonical, timings, &stats, error.as_deref());
    match answer.map_err(QueryError::from)?.value {
        Answered::Vector(vector) => Ok(vector),
        Answered::Scalar(point) => Ok(vec![VectorElement {
            labels: Labels::empty(),
            t_ms: point.t_ms,
            value: Value::Float(point.value),
        }]),
        Answered::String(_) | Answered::Matrix(_) => Err(RuleError::NotAVector),
    }
}

/// Appends what the rule yielded, and a stale marker for each series that it yielded the last
/// time but not now.
fn store(
    store: &dyn Store,
    running: &RunningRule,
    mut samples: Vec<(Labels, Value)>,
    at: Timestamp,
) -> Result<(), RuleError> {
    let series: HashSet<Labels> = samples.iter().map(|(labels, _)| labels.clone()).collect();
    let gone = lock(&running.state).previous.difference(&series).map(stale).collect::<Vec<_>>();
    samples.extend(gone);
    store.append(at, &samples)?;
    lock(&running.state).previous = series;
    Ok(())
}

/// What marks a series as gone.
pub fn stale(series: &Labels) -> (Labels, Value) {
    (series.clone(), Value::Float(STALE_NAN))
}

/// What a template's `query` yields.
fn query_for_template(
    context: &Context<'_>,
    text: &str,
    at: Timestamp,
    deadline: Instant,
    begin: impl FnOnce() -> Running,
) -> Result<Vec<QuerySample>, String> {
    let expr = promql::parse_with(text, context.options.syntax).map_err(|e| e.to_string())?;
    let canonical = expr.to_string();
    let vector = query(context, &expr, &canonical, at, Some(deadline), begin()).map_err(|e| e.to_string())?;
    let sample = |element: VectorElement| QuerySample {
        labels: map(&element.labels),
        value: match element.value {
            Value::Float(value) => value,
            Value::Histogram(_) => 0.0,
        },
    };
    Ok(vector.into_iter().map(sample).collect())
}

fn hash(alert: &ActiveAlert) -> u64 {
    xxh3_64(&persist::encode_alert(alert))
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn duration(ms: i64) -> Duration {
    Duration::from_millis(ms.unsigned_abs())
}

/// A panic elsewhere leaves nothing here half done that the next evaluation does not set right.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
