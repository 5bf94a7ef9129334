//! Tests of the runner. What promtool says of the same files is compared in `tests/real_promtool.rs`.

use super::*;
use std::fs;

const RULES: &str = r#"
groups:
- name: recorded
  rules:
  - {record: "job:load:sum", expr: "sum by (job) (load)"}
- name: alerts
  rules:
  - alert: Load
    expr: job:load:sum > 5
    for: 2m
    labels: {severity: page, region: "{{ $externalLabels.region }}"}
    annotations: {summary: "{{ $labels.job }} at {{ $value }}"}
"#;

/// Runs tests over [`RULES`], the text of a file without its first lines.
fn run(tests: &str) -> Result<FileReport, FileError> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("rules.yml"), RULES).unwrap();
    let path = folder.path().join("test.yml");
    fs::write(&path, format!("rule_files: [rules.yml]\n{tests}")).unwrap();
    run_file(&path, |_| true)
}

/// What is wrong, without the lines.
fn failures(tests: &str) -> Vec<(String, Vec<String>, Vec<String>)> {
    let report = run(tests).unwrap_or_else(|e| panic!("{e}"));
    let failures = report.tests.into_iter().flat_map(|test| test.failures);
    failures.map(|f| (f.what, f.expected, f.got)).collect()
}

const SERIES: &str = r#"
tests:
- interval: 1m
  external_labels: {region: eu}
  input_series:
  - {series: 'load{job="a",instance="1"}', values: "1+1x10"}
  - {series: 'load{job="a",instance="2"}', values: "0 1 2 3 _x3 stale"}
"#;

#[test]
fn what_is_as_expected_passes() {
    let tests = format!(
        r#"{SERIES}
  alert_rule_test:
  - {{eval_time: 4m, alertname: Load}}
  - eval_time: 5m
    alertname: Load
    exp_alerts:
    - exp_labels: {{severity: page, region: eu, job: a}}
      exp_annotations: {{summary: "a at 9"}}
  promql_expr_test:
  - expr: job:load:sum
    eval_time: 3m
    exp_samples: [{{labels: 'job:load:sum{{job="a"}}', value: 7}}]
  - expr: ALERTS
    eval_time: 4m
    exp_samples:
    - {{labels: 'ALERTS{{alertname="Load",alertstate="pending",job="a",region="eu",severity="page"}}', value: 1}}
  - {{expr: 'absent(load)', eval_time: 5m}}
  - {{expr: '1 + 1', exp_samples: [{{value: 2}}]}}
"#
    );
    assert_eq!(failures(&tests), []);
}

#[test]
fn what_differs_is_told_with_what_was_expected_and_what_came() {
    let tests = format!(
        r#"{SERIES}
  alert_rule_test:
  - eval_time: 5m30s
    alertname: Load
    exp_alerts: [{{exp_labels: {{job: b}}}}]
  promql_expr_test:
  - expr: load
    eval_time: 1m
    exp_samples: [{{labels: 'load{{job="a",instance="1"}}', value: 2.5}}]
"#
    );
    let [alert, query] = failures(&tests).try_into().unwrap();
    assert_eq!(alert.0, "alertname: Load, time: 5m30s");
    assert_eq!(alert.1, [r#"labels:{alertname="Load", job="b"} annotations:{}"#]);
    let got =
        r#"labels:{alertname="Load", job="a", region="eu", severity="page"} annotations:{summary="a at 9"}"#;
    assert_eq!(alert.2, [got]);
    assert_eq!(query.0, r#"expr: "load", time: 1m"#);
    assert_eq!(query.1, [r#"{__name__="load", instance="1", job="a"} 2.5"#]);
    let got =
        [r#"{__name__="load", instance="1", job="a"} 2"#, r#"{__name__="load", instance="2", job="a"} 1"#];
    assert_eq!(query.2, got);
}

#[test]
fn histograms_are_compared_as_they_are_written() {
    let tests = |expected: &str| {
        format!(
            r#"
tests:
- input_series:
  - {{series: h, values: "{{{{schema:1 count:5 sum:9 buckets:[2 0 3]}}}}x3"}}
  promql_expr_test:
  - expr: h
    eval_time: 1m
    exp_samples: [{{labels: h, histogram: "{expected}"}}]
"#
        )
    };
    assert_eq!(
        failures(&tests("{{count:5 sum:9 schema:1 buckets:[2 0 3] counter_reset_hint:not_reset}}")),
        []
    );
    let [(_, expected, got)] =
        failures(&tests("{{schema:1 count:5 sum:8 buckets:[2 3]}}")).try_into().unwrap();
    assert_ne!(expected, got);
}

#[test]
fn floats_are_exact_unless_neighbours_are_allowed() {
    let tests = "tests:\n- promql_expr_test:\n  - {expr: 0.1 + 0.2, exp_samples: [{value: 0.3}]}\n";
    assert_eq!(failures(tests).len(), 1);
    assert_eq!(failures(&format!("fuzzy_compare: true\n{tests}")), []);
    let nan = "tests:\n- promql_expr_test:\n  - {expr: NaN, exp_samples: [{value: .nan}]}\n";
    assert_eq!(failures(nan), []);
}

#[test]
fn time_begins_where_the_test_says() {
    for start in ["1700000000", "'2023-11-14T22:13:20Z'"] {
        let tests = format!(
            "tests:\n- start_timestamp: {start}\n  promql_expr_test:\n  \
             - {{expr: time(), eval_time: 1m, exp_samples: [{{value: 1700000060}}]}}\n"
        );
        assert_eq!(failures(&tests), [], "{start}");
    }
}

#[test]
fn groups_are_evaluated_in_the_order_of_the_file_or_as_it_says() {
    let expects = |value: u32| {
        format!(
            "evaluation_interval: 1m\ntests:\n- interval: 1m\n  \
             input_series: [{{series: 'load{{job=\"a\"}}', values: '10x9'}}]\n  alert_rule_test:\n  \
             - {{eval_time: {value}m, alertname: Load, exp_alerts: [{{exp_labels: {{job: a, severity: page}}, \
             exp_annotations: {{summary: a at 10}}}}]}}\n"
        )
    };
    assert_eq!(failures(&expects(2)), []);
    let late = |value| failures(&format!("group_eval_order: [alerts, recorded]\n{}", expects(value)));
    assert_eq!((late(2).len(), late(3).len()), (1, 0));
}

#[test]
fn a_rule_that_fails_ends_its_test() {
    let folder = tempfile::tempdir().unwrap();
    let rules = "groups: [{name: g, rules: [{record: r, expr: 'a / on() b'}]}]";
    fs::write(folder.path().join("r.yml"), rules).unwrap();
    let path = folder.path().join("t.yml");
    let tests = "rule_files: [r.yml, 'none*.yml']\ntests:\n- name: n\n  input_series:\n  - {series: 'a', values: 1 1}\n  \
                 - {series: 'b{x=\"1\"}', values: _ 1}\n  - {series: 'b{x=\"2\"}', values: _ 1}\n  promql_expr_test:\n  \
                 - {expr: r, eval_time: 3m}\n";
    fs::write(&path, tests).unwrap();
    let report = run_file(&path, |name| name == "n").unwrap();
    let failures = &report.tests[0].failures;
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert!(failures[0].what.starts_with("rule: r, time: 1m, error: found duplicate series"), "{failures:?}");
    assert_eq!(failures[0].line, 3);
    assert!(report.warnings[0].to_string().ends_with(":1:21: no file matches \"none*.yml\""));
    assert!(run_file(&path, |name| name == "other").unwrap().tests.is_empty());
}

#[test]
fn files_at_fault_are_errors_with_their_place() {
    let cases = [
        ("tests: [{interval: 0s}]\n", ":2:20: the interval must be longer than 0"),
        ("test: []\n", ":2:1: unknown field `test`"),
        ("tests:\n- input_series: [{series: 'a{', values: 1}]\n", ":3:27: "),
        ("tests:\n- input_series:\n  - series: a\n    values: 1 x\n", ":5:13: unexpected"),
        ("tests:\n- alert_rule_test:\n  - eval_time: 1m\n", ":4:5: alertname must be set"),
        ("tests:\n- promql_expr_test:\n  - expr: sum(\n", ":4:11: "),
        (
            "tests:\n- promql_expr_test: [{expr: h, exp_samples: [{histogram: '1'}]}]\n",
            ":3:58: expected one histogram",
        ),
        ("tests:\n- start_timestamp: soon\n", ":3:20: expected Unix seconds or RFC 3339"),
    ];
    for (tests, expected) in cases {
        let error = run(tests).unwrap_err().to_string();
        assert!(error.contains(expected), "{tests}: {error}");
    }
}

#[test]
fn every_alert_that_comes_along_is_tested_firing_and_not_firing() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("rules");
    let mut files = 0;
    for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if !path.to_string_lossy().ends_with("_test.yaml") {
            continue;
        }
        files += 1;
        let file = file::load(&path, &|path| rule_file::load(path, Syntax::default())).unwrap();
        let is_tested = |name: &str, fires: bool| {
            let mut checks = file.tests.iter().flat_map(|test| &test.alerts);
            checks.any(|check| check.name == name && check.expected.is_empty() != fires)
        };
        for rule in file.groups.iter().flat_map(|group| &group.rules) {
            let (name, path) = (rule.name(), path.display());
            if matches!(rule, crate::rules::Rule::Recording(_)) {
                let mut queries = file.tests.iter().flat_map(|test| &test.queries);
                assert!(queries.any(|query| query.text.contains(name)), "{path}: {name}");
            } else {
                assert!(is_tested(name, true), "{path}: nowhere {name} fires");
                assert!(is_tested(name, false), "{path}: nowhere {name} does not fire");
            }
        }
    }
    assert_eq!(files, 3, "each pack has its tests");
}

#[test]
fn reports_are_well_formed_xml() {
    let failure = Failure {
        line: 3,
        what: "expr: \"a < b & c\", time: 0s".to_owned(),
        expected: vec!["{} 1".to_owned()],
        got: vec!["\u{1}".to_owned()],
    };
    let test = |name: &str, failures| TestReport { name: name.to_owned(), line: 2, failures };
    let report = FileReport {
        path: "a&b.yml".into(),
        warnings: Vec::new(),
        tests: vec![test("", vec![failure]), test("good", Vec::new())],
    };
    let expected = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites>
  <testsuite name="a&amp;b.yml" tests="2" failures="1">
    <testcase classname="a&amp;b.yml" name="line 2">
      <failure message="expr: &quot;a &lt; b &amp; c&quot;, time: 0s">a&amp;b.yml:3: expr: &quot;a &lt; b &amp; c&quot;, time: 0s
expected:
{} 1
got:
?</failure>
    </testcase>
    <testcase classname="a&amp;b.yml" name="good"/>
  </testsuite>
</testsuites>
"#;
    assert_eq!(junit(&[report]), expected);
}
