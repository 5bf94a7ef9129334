//! Tests of rule files: what loads, and where what does not is wrong.

use super::*;
use crate::rules::AlertingRule;
use proptest::prelude::*;

fn load(text: &str) -> Loaded {
    parse(Path::new("r.yml"), text, Syntax::default()).unwrap_or_else(|e| panic!("{e}"))
}

fn alerting(rule: &Rule) -> &AlertingRule {
    match rule {
        Rule::Alerting(rule) => rule,
        Rule::Recording(rule) => panic!("{} records", rule.name),
    }
}

#[test]
fn all_keys_are_read() {
    let loaded = load(
        r#"
groups:
  - name: one
    interval: 15s
    query_offset: 1m
    limit: 7
    labels: {team: a, tier: group}
    rules:
      - record: job:up:sum
        expr: |
          sum by (job)
            (up)
        labels: {tier: rule}
      - alert: Down
        expr: up==0
        for: 1h30m
        keep_firing_for: 5m
        labels:
          severity: 3
        annotations:
          summary: "{{ $labels.job }}"
  - name: two
    rules:
"#,
    );
    assert!(loaded.warnings.is_empty());
    let [one, two] = loaded.groups.as_slice() else { panic!("two groups") };
    assert_eq!((one.name.as_str(), one.file.as_str(), one.limit), ("one", "r.yml", 7));
    assert_eq!(one.interval, Some(std::time::Duration::from_secs(15)));
    assert_eq!(one.query_offset, Some(std::time::Duration::from_secs(60)));
    assert_eq!(one.rules[0].labels().collect::<Vec<_>>(), [("team", "a"), ("tier", "rule")]);
    assert_eq!(one.rules[0].query(), "sum by (job) (up)");
    let down = alerting(&one.rules[1]);
    assert_eq!((down.name.as_str(), &*down.query), ("Down", "up == 0"));
    assert_eq!((down.hold_ms, down.keep_firing_for_ms), (5_400_000, 300_000));
    let labels: Vec<_> = one.rules[1].labels().collect();
    assert_eq!(labels, [("severity", "3"), ("team", "a"), ("tier", "group")]);
    assert_eq!(down.annotations[0].1.source(), "{{ $labels.job }}");
    assert_eq!((two.interval, two.query_offset, two.limit, two.rules.len()), (None, None, 0, 0));
}

#[test]
fn nothing_is_no_groups() {
    for text in ["", "# nothing yet\n", "groups:\n", "groups: []\n"] {
        assert!(load(text).groups.is_empty(), "{text:?}");
    }
}

#[test]
fn what_is_doubtful_loads_with_a_warning() {
    let loaded = load(
        "groups:\n- name: a\n  eval_delay: 30s\n  rules:\n  - {alert: X, expr: up}\n  - {alert: X, expr: up > 1}\n",
    );
    assert_eq!(loaded.groups[0].query_offset, Some(std::time::Duration::from_secs(30)));
    let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    let expected = [
        "r.yml:3:15: eval_delay is taken as query_offset; write query_offset",
        "r.yml:6:5: X has the same name and labels as a rule before it in this group",
    ];
    assert_eq!(warnings, expected);
}

#[test]
fn other_forms_load_as_one_group_with_notes() {
    let list = load("# mine\n- alert: X\n  expr: up == 0\n  severity: page\n- alert: Y\n  expr: up\n");
    let notes: Vec<String> = list.warnings.iter().map(ToString::to_string).collect();
    let expected = [
        "r.yml:2:1: not Prometheus' form, taken as one group; put `groups:`, `- name: ...` and `rules:` above it",
        "r.yml:4:13: severity is taken as a label; write it under labels",
    ];
    assert_eq!(notes, expected);
    let [group] = list.groups.as_slice() else { panic!("one group") };
    assert_eq!((group.name.as_str(), group.rules.len()), ("r", 2));
    assert_eq!(group.rules[0].labels().collect::<Vec<_>>(), [("severity", "page")]);

    let alerts = load("alerts:\n- {name: X Y, condition: up > 2, severity: low, duration: 5m}\n");
    assert_eq!(alerts.warnings.len(), 1);
    let rule = alerting(&alerts.groups[0].rules[0]);
    assert_eq!((rule.name.as_str(), &*rule.query, rule.hold_ms), ("X Y", "up > 2", 300_000));
    assert_eq!(alerts.groups[0].rules[0].labels().collect::<Vec<_>>(), [("severity", "low")]);
    assert!(load("alerts:\n").groups.is_empty());
}

#[test]
fn unknown_fields_are_left_out_with_a_warning_if_asked_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.yml");
    let text = "\
owner:
- me
groups:
- team: {name: a}
  name: g
  rules:
  - runbook: |
      # one

      two
    alert: A
    expr: up == 0
    links:
      - x: y
    labels: {severity: page}
  - record: r
    expr: up +
";
    std::fs::write(&path, text.replace("up +", "up")).unwrap();
    assert!(
        super::load(&path, Syntax::default())
            .unwrap_err()
            .to_string()
            .contains(":1:1: unknown field `owner`")
    );
    let loaded = load_without_unknown_fields(&path, Syntax::default()).unwrap();
    let warnings: Vec<_> =
        loaded.warnings.iter().map(|w| (w.position.unwrap(), w.message.as_str())).collect();
    let expected = [
        ((1, 1), "unknown field `owner` is ignored"),
        ((4, 3), "unknown field `team` is ignored"),
        ((7, 5), "unknown field `runbook` is ignored"),
        ((13, 5), "unknown field `links` is ignored"),
    ];
    assert_eq!(warnings, expected);
    assert_eq!(loaded.groups[0].rules.len(), 2);
    // What is wrong beside them keeps its place.
    std::fs::write(&path, text).unwrap();
    let error = load_without_unknown_fields(&path, Syntax::default()).unwrap_err();
    assert_eq!(error.position.map(|(line, _)| line), Some(17), "{error}");
    std::fs::write(&path, "groups: [{name: g, team: a}]").unwrap();
    assert!(
        load_without_unknown_fields(&path, Syntax::default()).unwrap_err().to_string().contains("`team`")
    );
}

#[test]
fn the_files_of_users_load() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/inputs");
    if !Path::new(folder).exists() {
        eprintln!("skipped: {folder} is not there");
        return;
    }
    for (file, rules) in [("alert-rules.yml", 7), ("rules-bare-list.yml", 3), ("alerts-condition.yml", 4)] {
        let loaded =
            super::load(&Path::new(folder).join(file), Syntax::default()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(loaded.groups.iter().map(|g| g.rules.len()).sum::<usize>(), rules, "{file}");
        assert!(
            loaded.groups.iter().flat_map(|g| &g.rules).all(|r| r.labels().any(|(n, _)| n == "severity"))
        );
        assert_eq!(loaded.warnings.is_empty(), file == "alert-rules.yml", "{:?}", loaded.warnings);
    }
}

#[test]
fn every_fault_has_its_place() {
    // In a rule, `RULE` stands for the beginning of a file up to the keys of a rule, in line 5.
    let cases = [
        (
            "RULE    expr: 'up + sum('\n",
            "5:21: could not parse expression: 1:10: parse error: unclosed left parenthesis",
        ),
        ("RULE    expr: up + sum(\n", "5:20: could not parse expression: 1:10: parse error"),
        ("RULE    expr: |\n      up\n      + sum(\n", "7:13: could not parse expression: 2:7: parse error"),
        ("RULE    expr: >-\n      up\n      + sum(\n", "6:7: could not parse expression: 1:10: parse error"),
        ("RULE    expr: up\n    team: a\n", "6:5: unknown field `team`, expected one of record"),
        ("RULE    expr: up\n    for: 5 minutes\n", "6:10: "),
        ("RULE    expr: up\n    for: -5m\n", "6:10: "),
        ("RULE    expr: up\n    expr: up\n", "6:5: duplicate mapping key: expr"),
        ("RULE    expr: [up]\n", "5:11: expected string scalar"),
        ("RULE    expr: ''\n", "4:5: field 'expr' must be set in rule"),
        ("RULE    for: 1m\n", "4:5: field 'expr' must be set in rule"),
        ("RULE    expr: up\n    record: y\n", "4:5: only one of 'record' and 'alert' must be set"),
        ("RULE    expr: up\n    labels:\n      __name__: x\n", "7:17: invalid label name: \"__name__\""),
        ("RULE    expr: up\n    labels:\n      '': x\n", "7:11: invalid label name: \"\""),
        ("RULE    expr: up\n\tfor: 5m\n", "6:1: YAML allows no tab in the indentation; use blanks"),
        ("groups:\n- name: a\n  rules:\n  - expr: up\n", "4:5: one of 'record' or 'alert' must be set"),
        (
            "groups:\n- name: a\n  rules:\n  - {record: 'a{b}', expr: up}\n",
            "4:14: braces present in the recording rule name",
        ),
        (
            "groups:\n- name: a\n  rules:\n  - {record: a, expr: up, for: 1m}\n",
            "4:32: invalid field 'for' in recording rule",
        ),
        (
            "groups:\n- name: a\n  rules:\n  - record: a\n    expr: up\n    annotations: {x: y}\n",
            "6:22: invalid field 'annotations'",
        ),
        ("groups:\n- name: a\n- name: a\n", "3:9: groupname: \"a\" is repeated in the same file"),
        ("groups:\n- name: ''\n", "2:9: Groupname must not be empty"),
        ("groups:\n- name: a\n  interval: 0s\n", "3:13: interval must be longer than 0"),
        ("groups:\n- name: a\n  limit: -1\n", "3:10: limit must not be negative"),
        ("groups:\n- name: a\n\trules: []\n", "3:1: YAML allows no tab"),
        ("groups:\n- nme: a\n", "2:3: unknown field `nme`"),
        ("groups: [\n", "1:9: unclosed bracket"),
        ("- alert: X\n  expr: up +\n", "2:13: could not parse expression"),
        ("- alert: X\n  team: a\n", "2:3: unknown field `team`"),
        ("alerts:\n- name: X\n", "2:3: missing field `condition`"),
        ("alerts:\n- {name: X, condition: up, expr: up}\n", "2:28: unknown field `expr`"),
    ];
    for (text, expected) in cases {
        let text = text.replace("RULE", "groups:\n- name: a\n  rules:\n  - alert: X\n");
        let error = match parse(Path::new("r.yml"), &text, Syntax::default()) {
            Ok(loaded) => panic!("{text}loads: {loaded:?}"),
            Err(error) => error.to_string(),
        };
        let expected = format!("r.yml:{expected}");
        assert!(error.starts_with(&expected), "{text}=> {error}\nexpected {expected}");
    }
}

#[test]
fn the_line_at_fault_is_shown() {
    let error = |text| parse(Path::new("r.yml"), text, Syntax::default()).unwrap_err().to_string();
    assert_eq!(
        error("groups:\n- nme: é\n"),
        "r.yml:2:3: unknown field `nme`, expected one of name, interval, query_offset, eval_delay, limit, labels, rules\
         \n  - nme: é\n    ^"
    );
}

#[test]
fn a_template_that_is_none_is_found_at_load() {
    let text = "groups:\n- name: a\n  rules:\n  - alert: X\n    expr: up\n    annotations:\n      s: '{{ $labels.x'\n";
    let error = parse(Path::new("r.yml"), text, Syntax::default()).unwrap_err().to_string();
    assert!(error.starts_with("r.yml:7:10: annotation \"s\": "), "{error}");
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.yml");
    assert!(
        super::load(&missing, Syntax::default())
            .unwrap_err()
            .to_string()
            .starts_with(missing.to_str().unwrap())
    );
    let binary = folder.path().join("binary.yml");
    std::fs::write(&binary, b"groups: \xff\n").unwrap();
    assert!(
        super::load(&binary, Syntax::default())
            .unwrap_err()
            .to_string()
            .ends_with("not UTF-8: byte 8 of the file begins no character")
    );
    let huge = folder.path().join("huge.yml");
    std::fs::File::create(&huge).unwrap().set_len((32 << 20) + 1).unwrap();
    assert!(super::load(&huge, Syntax::default()).unwrap_err().to_string().contains("larger than 32 MiB"));
}

#[test]
fn the_rules_that_come_along_load() {
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/rules")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.to_string_lossy();
        if name.ends_with(".yaml") && !name.ends_with("_test.yaml") {
            let loaded = super::load(&path, Syntax::default()).unwrap_or_else(|e| panic!("{e}"));
            assert!(loaded.warnings.is_empty() && !loaded.groups.is_empty(), "{}", path.display());
        }
    }
}

/// A file in which every key occurs.
const EXAMPLE: &str = "groups:\n- name: a\n  interval: 1m\n  query_offset: 5s\n  eval_delay: 1s\n  limit: 3\n  labels: {a: b}\n  \
    rules:\n  - record: a:b\n    expr: |\n      sum({a=\"é\"})\n      + 1\n  - alert: Xé\n    expr: 'up{a=\"b\"} > 1'\n    for: 5m\n    \
    keep_firing_for: 1m\n    severity: x\n    labels: {c: '{{ $value }}'}\n    annotations:\n      d: \"{{ $labels.a }}\\n\"\n";

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "[-:\\[\\]{}|>&*!%'\"# \n\t\r,.a-zé0-9(]{0,80}") {
        let _ = parse(Path::new("r.yml"), &text, Syntax::default());
        let _ = parse(Path::new("r.yml"), &format!("groups:\n- name: a\n  rules:\n  - alert: X\n    expr: {text}"), Syntax::default());
    }

    #[test]
    fn a_file_with_a_piece_torn_out_or_put_in_makes_no_panic(
        from in 0..EXAMPLE.len(),
        len in 0usize..40,
        put in "[-:\\[{|>'\"# \n\t(é]{0,4}",
    ) {
        let mut bytes = EXAMPLE.as_bytes().to_vec();
        let end = (from + len).min(bytes.len());
        bytes.splice(from..end, put.bytes());
        let _ = parse(Path::new("r.yml"), &String::from_utf8_lossy(&bytes), Syntax::default());
    }
}

#[test]
fn the_example_of_the_properties_loads() {
    assert_eq!(load(EXAMPLE).groups[0].rules.len(), 2);
}
