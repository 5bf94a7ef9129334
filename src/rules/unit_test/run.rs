//! One test: time goes on slot by slot, samples come, rules are evaluated, alerts are looked at.

use super::Failure;
use super::check::ExpectedAlert;
use super::file::{Test, TestFile};
use crate::budget::Reservation;
use crate::promql::duration::format_duration;
use crate::promql::parse::series::SequenceValue;
use crate::promql::testlang::Memory;
use crate::promql::{EvalOptions, Steps, evaluate};
use crate::rules::alert::AlertState;
use crate::rules::error::RuleError;
use crate::rules::expand::map;
use crate::rules::manager::RuleOptions;
use crate::rules::running::{Context, Round, RuleDurations, RunningGroup};
use crate::rules::store::Store;
use crate::storage::{Matcher, ReadError, SeriesSet, Source, TimeRange, Timestamp};
use larum_storage_format::{Labels, Sample, Value};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

/// Runs a test of `file`; what is wrong.
pub fn run(file: &TestFile, test: &Test) -> Vec<Failure> {
    let interval = Duration::from_millis(file.interval_ms.unsigned_abs());
    let eval = EvalOptions { default_subquery_step: interval, ..EvalOptions::default() };
    let options = RuleOptions {
        evaluation_interval: interval,
        external_labels: test.external_labels.clone(),
        external_url: test.external_url.clone(),
        eval: eval.clone(),
        ..RuleOptions::default()
    };
    let samples = Samples::default();
    let context = Context {
        store: &samples,
        state: None,
        options: &options,
        cancel: &Arc::new(AtomicBool::new(false)),
        durations: &RuleDurations::default(),
    };
    let groups: Vec<_> = file.groups.iter().map(|group| RunningGroup::new(group.clone(), &options)).collect();
    let mut input = Input { test, next: vec![0; test.series.len()] };
    let mut checks = test.alerts.iter().peekable();
    let mut failures = Vec::new();
    let times =
        test.alerts.iter().map(|check| check.at_ms).chain(test.queries.iter().map(|check| check.at_ms));
    let last_ms = times.max().unwrap_or(0);
    let mut at_ms = 0;
    while at_ms <= last_ms {
        let now_ms = test.start_ms.saturating_add(at_ms);
        input.give(&samples, at_ms);
        for group in &groups {
            let now = Timestamp::from_millis(now_ms);
            group.evaluate(&context, Round { slot_ms: now_ms, missed: 0, now, is_heard: false });
        }
        let broken = errors(&groups, test.line, at_ms);
        if !broken.is_empty() {
            failures.extend(broken);
            return failures;
        }
        let next_ms = at_ms.saturating_add(file.interval_ms);
        while let Some(check) = checks.next_if(|check| check.at_ms < next_ms) {
            failures.extend(check.check(firing(&groups, &check.name)));
        }
        if next_ms == at_ms {
            break;
        }
        at_ms = next_ms;
    }
    for check in &test.queries {
        let at = Timestamp::from_millis(test.start_ms.saturating_add(check.at_ms));
        let answer = evaluate(&check.expr, &*samples.source(None), Steps::instant(at), &eval);
        failures.extend(check.check(answer.map(|a| a.value).map_err(|e| e.to_string()), file.fuzzy));
    }
    failures
}

/// The rules whose last evaluation failed.
fn errors(groups: &[RunningGroup], line: u64, at_ms: i64) -> Vec<Failure> {
    let mut failures = Vec::new();
    for rule in groups.iter().flat_map(|group| group.status().rules) {
        if let Some(error) = rule.last_error {
            let what = format!("rule: {}, time: {}, error: {error}", rule.name, format_duration(at_ms));
            failures.push(Failure { line, what, expected: Vec::new(), got: Vec::new() });
        }
    }
    failures
}

/// The alerts of that name that fire, of all groups.
fn firing(groups: &[RunningGroup], name: &str) -> Vec<ExpectedAlert> {
    let alerts = groups.iter().flat_map(RunningGroup::alerts);
    alerts
        .filter(|alert| alert.state == AlertState::Firing && alert.labels.get("alertname") == Some(name))
        .map(|alert| ExpectedAlert { labels: map(&alert.labels), annotations: alert.annotations })
        .collect()
}

/// The series of a test, and how much of each was given.
struct Input<'a> {
    test: &'a Test,
    next: Vec<usize>,
}

impl Input<'_> {
    /// Gives all samples that are due at `at_ms` since the beginning.
    fn give(&mut self, samples: &Samples, at_ms: i64) {
        let mut memory = samples.0.write().unwrap_or_else(PoisonError::into_inner);
        let until = usize::try_from(at_ms / self.test.interval_ms).unwrap_or(usize::MAX);
        for ((labels, values), next) in self.test.series.iter().zip(&mut self.next) {
            while *next < values.len() && *next <= until {
                let value = match &values[*next] {
                    SequenceValue::Omitted => None,
                    SequenceValue::Float(value) => Some(Value::Float(*value)),
                    SequenceValue::Histogram { value, .. } => Some(Value::Histogram(value.clone())),
                };
                let since_start_ms = self.test.interval_ms.saturating_mul(*next as i64);
                let timestamp_ms = self.test.start_ms.saturating_add(since_start_ms);
                if let Some(value) = value {
                    memory.insert(labels, Sample { timestamp_ms, start_timestamp_ms: None, value });
                }
                *next += 1;
            }
        }
    }
}

/// Samples in memory, to be read and written.
#[derive(Default)]
struct Samples(RwLock<Memory>);

struct Reading<'a>(RwLockReadGuard<'a, Memory>);

impl Source for Reading<'_> {
    fn select<'a>(
        &'a self,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<Box<dyn SeriesSet + 'a>, ReadError> {
        self.0.select(matchers, range)
    }
}

impl Store for Samples {
    fn source(&self, _memory: Option<&Arc<Reservation>>) -> Box<dyn Source + '_> {
        Box::new(Reading(self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }

    fn append(&self, at: Timestamp, samples: &[(Labels, Value)]) -> Result<(), RuleError> {
        let mut memory = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for (labels, value) in samples {
            let sample =
                Sample { timestamp_ms: at.as_millis(), start_timestamp_ms: None, value: value.clone() };
            memory.insert(labels, sample);
        }
        Ok(())
    }
}
