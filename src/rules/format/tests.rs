//! Tests of the canonical form: what it looks like, and that it means the same.

use super::*;
use proptest::prelude::*;

fn formatted(text: &str) -> String {
    let options = FormatOptions::default();
    let once = format(Path::new("r.yml"), text, options).unwrap_or_else(|e| panic!("{e}\n{text}")).text;
    let twice = format(Path::new("r.yml"), &once, options).unwrap_or_else(|e| panic!("{e}\n{once}"));
    assert_eq!(twice.text, once, "formatting it again changes nothing");
    assert!(twice.warnings.iter().all(|w| w.message.contains("same name")), "{:?}", twice.warnings);
    once
}

#[test]
fn keys_have_one_order_and_comments_stay_where_they_belong() {
    let text = r#"# of the file

groups:
# of the group
- rules:
    - labels: {severity: 3, team: "a b"} # behind labels
      # of the expression
      expr: "up == 0" # down
      for: 90s
      alert:   "It's down"
      annotations:
          # of the summary
          summary: '{{ $labels.job }}: "x"'
          description: |
            # not a comment
            two

            lines
    # of the next rule
    - record: a:b
      expr: |
        sum by (job)
          (up) # in the expression
  limit: 5
  eval_delay: 1m
  name: g
- {name: h, interval: 1h, rules: []}
# at the end
"#;
    let expected = r#"# of the file
groups:
  - name: g
    query_offset: 1m
    limit: 5
    # of the group
    rules:
      - alert: It's down
        # of the expression
        # down
        expr: up == 0
        for: 1m30s
        # behind labels
        labels:
          severity: "3"
          team: a b
        annotations:
          # of the summary
          summary: '{{ $labels.job }}: "x"'
          description: |
            # not a comment
            two

            lines

      # of the next rule
      - record: a:b
        expr: |
          sum by (job)
            (up) # in the expression

  - name: h
    interval: 1h
    rules: []
# at the end
"#;
    assert_eq!(formatted(text), expected);
}

#[test]
fn other_forms_become_groups() {
    let list = "# pages\n- alert: X\n  expr: up == 0\n  severity: page\n- {alert: Y, expr: up > 1}\n";
    let expected = "# pages\ngroups:\n  - name: r\n    rules:\n      - alert: X\n        expr: up == 0\n        \
                    labels:\n          severity: page\n\n      - alert: \"Y\"\n        expr: up > 1\n";
    assert_eq!(formatted(list), expected);
    let alerts = "alerts:\n- {name: A B, condition: up > 2, severity: low, duration: 5m}\n";
    let expected = "groups:\n  - name: r\n    rules:\n      - alert: A B\n        expr: up > 2\n        for: 5m\n        \
                    labels:\n          severity: low\n";
    assert_eq!(formatted(alerts), expected);
    assert_eq!(formatted("# nothing\n"), "groups: []\n# nothing\n");
}

#[test]
fn long_texts_are_folded_and_expressions_printed_if_asked() {
    let long = format!("a{} > 1", " + a".repeat(40));
    let text = format!("groups: [{{name: g, rules: [{{record: r, expr: '{long}'}}]}}]");
    let folded = formatted(&text);
    assert!(folded.contains("        expr: >-\n          a + a"), "{folded}");
    assert!(folded.lines().all(|line| line.len() <= 110), "{folded}");
    let spaced = "groups: [{name: g, rules: [{record: r, expr: 'sum(  up )by(job)'}]}]";
    assert!(formatted(spaced).contains("expr: sum(  up )by(job)\n"));
    let options = FormatOptions { expressions: true, ..FormatOptions::default() };
    let printed = format(Path::new("r.yml"), spaced, options).unwrap().text;
    assert!(printed.contains("expr: sum by (job) (up)\n"), "{printed}");
}

#[test]
fn what_does_not_load_is_not_formatted() {
    let error = format(Path::new("r.yml"), "groups:\n- nme: x\n", FormatOptions::default()).unwrap_err();
    assert!(error.to_string().starts_with("r.yml:2:3: unknown field `nme`"), "{error}");
}

#[test]
fn the_files_that_come_along_and_those_of_users_keep_their_meaning() {
    for folder in ["rules", "../shared/inputs"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let Ok(entries) = std::fs::read_dir(&folder) else {
            eprintln!("skipped: {} is not there", folder.display());
            continue;
        };
        for path in entries.map(|entry| entry.unwrap().path()) {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            if file::parse(&path, &text, Syntax::default()).is_ok() {
                let formatted = formatted(&text);
                assert_eq!(
                    comments::find(&formatted).len(),
                    comments::find(&text).len(),
                    "{}",
                    path.display()
                );
            }
        }
    }
}

proptest! {
    #[test]
    fn any_text_keeps_its_meaning_and_is_formatted_once(
        texts in prop::collection::vec(
            prop_oneof![
                "[ -~]{0,12}",
                "[a-z #:'\"\\\\\n\t{}-]{0,30}",
                ".{0,8}",
                prop::collection::vec("[a-z#'\":{},-]{1,9}", 10..40).prop_map(|words| words.join(" ")),
            ],
            3,
        ),
    ) {
        let quoted = |text: &String| serde_json::to_string(text).expect("a JSON string");
        // Braces of templates have tests of their own.
        prop_assume!(texts.iter().all(|text| !text.contains("{{") && !text.contains('\u{7f}')));
        let text = format!(
            "groups:\n- name: {}\n  rules:\n  - alert: A\n    expr: up\n    labels: {{l: {}}}\n    annotations: {{a: {}, b: {}}}\n",
            quoted(&("g".to_owned() + &texts[0])), quoted(&texts[0]), quoted(&texts[1]), quoted(&texts[2]),
        );
        if file::parse(Path::new("r.yml"), &text, Syntax::default()).is_ok() {
            formatted(&text);
        }
    }
}
