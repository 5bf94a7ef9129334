//! Tests of the step from one evaluation to the next, at minutes of a made-up clock.

use super::*;
use crate::promql::ast::{ExprKind, Pos};

fn describe(rule: &AlertingRule, answer: Vec<VectorElement>) -> Result<FoundAlerts, RuleError> {
    let surroundings = Surroundings {
        external_labels: &Labels::empty(),
        external_url: "",
        now_ms: 0,
        query: &|_, _| Err("no queries here".to_owned()),
        failures: Default::default(),
    };
    rule.describe(answer, &surroundings)
}

fn rule(hold_minutes: i64, keep_firing_for_minutes: i64, labels: &[(&str, &str)]) -> AlertingRule {
    let templates = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(n, t)| ((*n).to_owned(), TemplateText::parse("High", t).unwrap())).collect()
    };
    AlertingRule {
        name: "High".to_owned(),
        expr: Expr { kind: ExprKind::String("x".to_owned()), pos: Pos::default() },
        query: "load > 1".into(),
        hold_ms: hold_minutes * 60_000,
        keep_firing_for_ms: keep_firing_for_minutes * 60_000,
        labels: templates(labels),
        annotations: templates(&[("summary", "{{ $value }}")]),
    }
}

fn at(minute: i64) -> Timestamp {
    Timestamp::from_millis(minute * 60_000)
}

fn element(pairs: &[(&str, &str)], value: f64) -> VectorElement {
    let labels = Labels::from_pairs(pairs.iter().copied()).unwrap();
    VectorElement { labels, t_ms: 0, value: Value::Float(value) }
}

fn load(zone: &str, value: f64) -> VectorElement {
    element(&[("__name__", "load"), ("zone", zone)], value)
}

fn step(rule: &AlertingRule, alerts: &mut ActiveAlerts, answer: Vec<VectorElement>, minute: i64) {
    let found = describe(rule, answer).unwrap();
    rule.step(alerts, found, at(minute), 0).unwrap();
}

/// One minute of a story: the zones whose load is high, the states afterwards, the alerts due.
type Minute = (i64, &'static [&'static str], &'static str, &'static str);

fn tell(rule: &AlertingRule, story: &[Minute]) {
    let mut alerts = ActiveAlerts::new();
    for (minute, zones, states, due) in story {
        step(rule, &mut alerts, zones.iter().map(|zone| load(zone, 2.0)).collect(), *minute);
        let found: Vec<String> = alerts
            .iter()
            .map(|(labels, a)| {
                let since = a.active_at.as_millis() / 60_000;
                format!("{} {} {since}", labels.get("zone").unwrap(), a.state.as_str())
            })
            .collect();
        assert_eq!(found.join(", "), *states, "states at {minute}");
        let sent: Vec<String> = rule
            .due(&mut alerts, at(*minute), 60_000, 15_000)
            .iter()
            .map(|a| {
                let end = if a.is_resolved() { "resolved" } else { "firing" };
                format!("{} {end} {}", a.labels.get("zone").unwrap(), a.fired_at.as_millis() / 60_000)
            })
            .collect();
        assert_eq!(sent.join(", "), *due, "due at {minute}");
    }
}

#[test]
fn an_alert_is_pending_then_fires_then_is_resolved_and_forgotten() {
    let story: &[Minute] = &[
        (0, &[], "", ""),
        (1, &["a"], "a pending 1", ""),
        (3, &["a"], "a pending 1", ""),
        (4, &["a", "b"], "a firing 1, b pending 4", "a firing 4"),
        (5, &["a"], "a firing 1", ""),
        (6, &["a"], "a firing 1", "a firing 4"),
        (7, &[], "a inactive 1", "a resolved 4"),
        (8, &[], "a inactive 1", ""),
        (9, &[], "a inactive 1", "a resolved 4"),
        (22, &[], "a inactive 1", "a resolved 4"),
        (23, &[], "", ""),
    ];
    tell(&rule(3, 0, &[]), story);
}

#[test]
fn without_for_an_alert_fires_at_once_and_again_after_flapping() {
    let story: &[Minute] = &[
        (0, &["a"], "a firing 0", "a firing 0"),
        (1, &[], "a inactive 0", "a resolved 0"),
        (2, &["a"], "a firing 2", "a firing 2"),
        (3, &[], "a inactive 2", "a resolved 2"),
    ];
    tell(&rule(0, 0, &[]), story);
}

#[test]
fn pending_begins_anew_when_the_condition_was_interrupted() {
    let story: &[Minute] = &[
        (0, &["a"], "a pending 0", ""),
        (1, &["a"], "a pending 0", ""),
        (2, &[], "", ""),
        (3, &["a"], "a pending 3", ""),
        (4, &["a"], "a pending 3", ""),
        (5, &["a"], "a firing 3", "a firing 5"),
    ];
    tell(&rule(2, 0, &[]), story);
}

#[test]
fn keep_firing_for_bridges_gaps_and_counts_anew_after_each() {
    let story: &[Minute] = &[
        (0, &["a"], "a firing 0", "a firing 0"),
        (1, &[], "a firing 0", ""),
        (2, &[], "a firing 0", "a firing 0"),
        (3, &["a"], "a firing 0", ""),
        (4, &[], "a firing 0", "a firing 0"),
        (6, &[], "a firing 0", "a firing 0"),
        (7, &[], "a inactive 0", "a resolved 0"),
    ];
    tell(&rule(0, 3, &[]), story);
}

#[test]
fn a_clock_that_goes_back_delays_nothing() {
    let story: &[Minute] = &[
        (1000, &["a"], "a pending 1000", ""),
        (1002, &["a", "b"], "a firing 1000, b pending 1002", "a firing 1002"),
        (3, &["a", "b"], "a firing 1000, b pending 3", "a firing 1002"),
        (5, &["b"], "a firing 1000, b firing 3", "a firing 1002, b firing 5"),
        (8, &[], "a inactive 1000, b firing 3", "a resolved 1002, b firing 5"),
    ];
    tell(&rule(2, 3, &[]), story);
    let story: &[Minute] = &[
        (1000, &["a"], "a firing 1000", "a firing 1000"),
        (1001, &[], "a inactive 1000", "a resolved 1000"),
        (5, &[], "a inactive 1000", "a resolved 1000"),
        (21, &[], "", ""),
    ];
    tell(&rule(0, 0, &[]), story);
}

#[test]
fn labels_are_expanded_and_decide_which_alert_it_is() {
    let rule = rule(
        0,
        0,
        &[("zone", ""), ("team", "{{ $labels.zone }}"), ("alertname", "other"), ("severity", "page")],
    );
    let mut alerts = ActiveAlerts::new();
    step(&rule, &mut alerts, vec![load("a", 2.0)], 0);
    step(&rule, &mut alerts, vec![load("a", 3.0)], 1);
    let (labels, alert) = alerts.first_key_value().unwrap();
    assert_eq!(labels.to_string(), r#"{alertname="High", severity="page", team="a"}"#);
    assert_eq!((alerts.len(), alert.value, alert.active_at), (1, 3.0, at(0)));
    assert_eq!(alert.annotations["summary"], "3");
    // A label that follows the value makes a new alert each time.
    let rule = self::rule(0, 0, &[("value", "{{ $value }}")]);
    let mut alerts = ActiveAlerts::new();
    step(&rule, &mut alerts, vec![load("a", 2.0)], 0);
    step(&rule, &mut alerts, vec![load("a", 3.0)], 1);
    let states: Vec<_> = alerts.values().map(|a| a.state.as_str()).collect();
    assert_eq!(states, ["inactive", "firing"]);
}

#[test]
fn two_elements_with_one_identity_are_an_error() {
    let rule = rule(0, 0, &[("zone", "")]);
    let answer = vec![load("a", 1.0), load("b", 1.0)];
    assert!(matches!(describe(&rule, answer), Err(RuleError::SameAlertLabels)));
}

#[test]
fn above_the_limit_all_alerts_are_forgotten() {
    let rule = rule(0, 0, &[]);
    let mut alerts = ActiveAlerts::new();
    step(&rule, &mut alerts, vec![load("a", 1.0)], 0);
    let found = describe(&rule, vec![load("a", 1.0), load("b", 1.0)]).unwrap();
    let error = rule.step(&mut alerts, found, at(1), 1).unwrap_err();
    assert_eq!(error.to_string(), "exceeded limit of 1 with 2 alerts");
    assert!(alerts.is_empty());
}

#[test]
fn active_alerts_are_shown_as_samples_with_their_state() {
    let rule = rule(2, 0, &[]);
    let mut alerts = ActiveAlerts::new();
    step(&rule, &mut alerts, vec![load("a", 1.0), load("b", 1.0)], 1);
    step(&rule, &mut alerts, vec![load("a", 1.0), load("c", 1.0)], 3);
    let shown: Vec<String> = rule
        .samples(&alerts)
        .iter()
        .map(|(labels, value)| match value {
            Value::Float(value) => format!("{labels} {value}"),
            Value::Histogram(_) => unreachable!("alerts are floats"),
        })
        .collect();
    let expected = [
        r#"{__name__="ALERTS_FOR_STATE", alertname="High", zone="a"} 60"#,
        r#"{__name__="ALERTS", alertname="High", alertstate="firing", zone="a"} 1"#,
        r#"{__name__="ALERTS_FOR_STATE", alertname="High", zone="c"} 180"#,
        r#"{__name__="ALERTS", alertname="High", alertstate="pending", zone="c"} 1"#,
    ];
    assert_eq!(shown, expected);
    step(&rule, &mut alerts, vec![], 4);
    assert!(rule.samples(&alerts).is_empty());
}

#[test]
fn a_message_holds_until_four_intervals_or_resend_delays_later() {
    let rule = rule(0, 0, &[]);
    for (interval_ms, minutes) in [(15_000, 4), (120_000, 8)] {
        let mut alerts = ActiveAlerts::new();
        step(&rule, &mut alerts, vec![load("a", 1.0)], 10);
        let due = rule.due(&mut alerts, at(10), 60_000, interval_ms);
        assert_eq!(due[0].valid_until, at(10 + minutes));
    }
}
