//! What each action does, by the words of Prometheus' documentation, and what is refused.

use super::*;

/// A rule of `key=value` words.
fn text(words: &str) -> RuleText {
    let mut rule = RuleText::default();
    for word in words.split(' ').filter(|word| !word.is_empty()) {
        let (key, value) = word.split_once('=').unwrap();
        let value = value.to_owned();
        match key {
            "source" => rule.source_labels = value.split(',').map(str::to_owned).collect(),
            "separator" => rule.separator = Some(value),
            "regex" => rule.regex = Some(value),
            "modulus" => rule.modulus = Some(value.parse().unwrap()),
            "target" => rule.target_label = Some(value),
            "replacement" => rule.replacement = Some(value),
            "action" => rule.action = Some(value),
            _ => panic!("{key} is no key"),
        }
    }
    rule
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

/// The labels after the rules, or `dropped`.
fn after(rules: &[&str], pairs: &[(&str, &str)]) -> String {
    let rules: Vec<Rule> = rules.iter().map(|rule| Rule::new(text(rule)).unwrap()).collect();
    process(&rules, &labels(pairs)).map_or_else(|| "dropped".to_owned(), |labels| labels.to_string())
}

#[test]
fn each_action_does_what_prometheus_does() {
    let abc = [("a", "foo"), ("b", "bar"), ("c", "baz")];
    for (rule, expected) in [
        // replace
        (
            "source=a regex=f(.*) target=d replacement=ch${1}-ch$1",
            r#"{a="foo", b="bar", c="baz", d="choo-choo"}"#,
        ),
        ("source=a,b regex=f(.*);(.*)r target=a replacement=b${1}${2}m", r#"{a="boobam", b="bar", c="baz"}"#),
        ("source=a,b separator=/ target=d", r#"{a="foo", b="bar", c="baz", d="foo/bar"}"#),
        ("source=a regex=o+ target=d", r#"{a="foo", b="bar", c="baz"}"#),
        (
            "source=a regex=(?P<x>f).* target=${x}_${x} replacement=$x",
            r#"{a="foo", b="bar", c="baz", f_f="f"}"#,
        ),
        ("source=a regex=(f)(x)?.* target=$2 replacement=y", r#"{a="foo", b="bar", c="baz"}"#),
        ("source=missing target=a", r#"{b="bar", c="baz"}"#),
        ("target=d replacement=fixed", r#"{a="foo", b="bar", c="baz", d="fixed"}"#),
        ("target=é replacement=ü", r#"{a="foo", b="bar", c="baz", "é"="ü"}"#),
        ("target=a replacement=", r#"{b="bar", c="baz"}"#),
        ("source=a target=d action=REPLACE", r#"{a="foo", b="bar", c="baz", d="foo"}"#),
        // keep, drop
        ("source=a regex=f|o action=drop", r#"{a="foo", b="bar", c="baz"}"#),
        ("source=a regex=.*o.* action=drop", "dropped"),
        ("source=a regex=f action=keep", "dropped"),
        ("source=a regex=f.* action=keep", r#"{a="foo", b="bar", c="baz"}"#),
        ("source=missing regex= action=keep", r#"{a="foo", b="bar", c="baz"}"#),
        // keepequal, dropequal
        ("source=a target=b action=keepequal", "dropped"),
        ("source=a target=a action=keepequal", r#"{a="foo", b="bar", c="baz"}"#),
        ("source=a target=a action=dropequal", "dropped"),
        ("source=missing target=nothing action=dropequal", "dropped"),
        ("source=a target=b action=dropequal", r#"{a="foo", b="bar", c="baz"}"#),
        // hashmod
        ("source=c target=d modulus=1000 action=hashmod", r#"{a="foo", b="bar", c="baz", d="976"}"#),
        // labelmap, labeldrop, labelkeep
        (
            "regex=(b|c) replacement=is_$1 action=labelmap",
            r#"{a="foo", b="bar", c="baz", is_b="bar", is_c="baz"}"#,
        ),
        ("regex=(.) replacement=one action=labelmap", r#"{a="foo", b="bar", c="baz", one="baz"}"#),
        ("regex=b|c action=labeldrop", r#"{a="foo"}"#),
        ("regex=b|c action=labelkeep", r#"{b="bar", c="baz"}"#),
        // lowercase, uppercase
        ("source=a,b target=d action=uppercase", r#"{a="foo", b="bar", c="baz", d="FOO;BAR"}"#),
        ("source=a target=a action=Lowercase", r#"{a="foo", b="bar", c="baz"}"#),
    ] {
        assert_eq!(after(&[rule], &abc), expected, "{rule}");
    }
}

#[test]
fn dots_match_newlines_and_hashes_are_of_bytes() {
    assert_eq!(after(&["source=a regex=foo.bar action=drop"], &[("a", "foo\nbar")]), "dropped");
    let hashed = after(&["source=a target=b modulus=1000 action=hashmod"], &[("a", "foo\nbar")]);
    assert_eq!(hashed, r#"{a="foo\nbar", b="734"}"#);
}

#[test]
fn rules_see_what_those_before_them_made() {
    let rules = [
        "source=host regex=(.*):.* target=__tmp_host",
        "source=__tmp_host regex=db-.* target=team replacement=storage",
        "source=team regex=storage action=keep",
        "regex=__tmp_.* action=labeldrop",
    ];
    assert_eq!(after(&rules, &[("host", "db-1:80")]), r#"{host="db-1:80", team="storage"}"#);
    assert_eq!(after(&rules, &[("host", "web-1:80")]), "dropped");
}

#[test]
fn a_label_that_would_become_too_long_stays() {
    let rule = format!("source=a target=a replacement={}", "$1".repeat(1025));
    let long = "x".repeat(1024);
    assert_eq!(after(&[&rule], &[("a", &long)]), format!(r#"{{a="{long}"}}"#));
}

#[test]
fn what_prometheus_refuses_is_refused_with_its_words() {
    for (rule, key, expected) in [
        ("action=", Key::Action, "relabel action cannot be empty"),
        ("action=unmake", Key::Action, "unknown relabel action \"unmake\""),
        ("source=a", Key::Action, "relabel configuration for replace action requires 'target_label' value"),
        (
            "action=lowercase",
            Key::Action,
            "relabel configuration for lowercase action requires 'target_label' value",
        ),
        (
            "source=a target=b action=hashmod",
            Key::Action,
            "relabel configuration for hashmod requires non-zero modulus",
        ),
        ("target=a${ ", Key::TargetLabel, "\"a${\" is invalid 'target_label' for replace action"),
        (
            "target=a replacement=b action=uppercase",
            Key::Replacement,
            "'replacement' can not be set for uppercase action",
        ),
        (
            "replacement=${} action=labelmap",
            Key::Replacement,
            "\"${}\" is invalid 'replacement' for labelmap action",
        ),
        (
            "source=a target=b regex=x action=keepequal",
            Key::Action,
            "keepequal action requires only 'source_labels' and `target_label`, and no other fields",
        ),
        (
            "source=a regex=x action=labeldrop",
            Key::Action,
            "labeldrop action requires only 'regex', and no other fields",
        ),
        (
            "target=a action=labelkeep",
            Key::Action,
            "labelkeep action requires only 'regex', and no other fields",
        ),
        ("target=a regex=(", Key::Regex, "error parsing regexp: missing closing ): `(`"),
    ] {
        let error = Rule::new(text(rule)).unwrap_err();
        assert!(error.message.starts_with(expected), "{rule} gave {error}");
        assert_eq!(error.key, key, "{rule}");
    }
}

#[test]
fn names_are_made_of_references_and_other_text() {
    for (text, expected) in [
        ("label", true),
        ("-label", true),
        ("label${1}", true),
        ("${1}label", true),
        ("$1", true),
        ("asd$2asd", true),
        ("${a}${b}", true),
        ("foo${bar}foo", true),
        ("", false),
        ("$", false),
        ("${", false),
        ("${}", false),
        ("foo${", false),
        ("a}", false),
        ("$$", false),
    ] {
        assert_eq!(is_template(text), expected, "{text:?}");
    }
}
