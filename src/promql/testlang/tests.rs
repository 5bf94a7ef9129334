//! Tests of the runner itself: what it must notice.

use super::*;

fn run_one(script: &str) -> Vec<String> {
    let report = run(script, &options()).unwrap();
    report.failures.into_iter().map(|f| format!("{}: {}", f.line, f.difference)).collect()
}

#[test]
fn a_wrong_expectation_is_a_failure_with_its_line() {
    let script = "load 1m\n  m{a=\"b\"} 1+1x3\n\neval instant at 2m m\n  m{a=\"b\"} 3\n\n# note\n\
                  eval instant at 2m m\n  m{a=\"b\"} 4\n\neval instant at 2m m\n\n\
                  eval range from 1m to 2m step 1m m\n  m{a=\"b\"} 2 3\n\n\
                  eval range from 1m to 2m step 1m m\n  m{a=\"b\"} 2 _\n";
    let failures = run_one(script);
    assert_eq!(failures.len(), 3, "{failures:?}");
    assert_eq!(failures[0], "8: line 9: {__name__=\"m\", a=\"b\"} is 3, expected 4");
    assert_eq!(failures[1], "11: {__name__=\"m\", a=\"b\"} is unexpected");
    assert!(failures[2].starts_with("16: line 17:"), "{failures:?}");
}

#[test]
fn scalars_strings_and_failures_are_expected_too() {
    let script = "eval instant at 0 1 + 1\n  2\n\neval instant at 0 \"a\\n\"\n  expect string `a\\n`\n\n\
                  eval instant at 0 \"a\"\n  expect string \"a\"\n\n\
                  eval_fail instant at 0 1\n  expected_fail_message x\n\neval instant at 0 0x10\n  0x11\n";
    let failures = run_one(script);
    let lines: Vec<&str> = failures.iter().filter_map(|f| f.split(':').next()).collect();
    assert_eq!(lines, ["4", "10", "13"], "{failures:?}");
}

#[test]
fn a_script_that_cannot_be_read_says_where() {
    for (script, error) in [
        ("\nlaod 5m\n  a 1", "line 2: unknown command \"laod\""),
        (
            "load 5m\n  a 1\n  b x",
            "line 3: 1:3: parse error: unexpected \"x\" in series values, expected number or \"stale\"",
        ),
        (
            "load 5m\n  a@st 1m\n  b 1",
            "line 3: start timestamps of {__name__=\"a\"} are followed by {__name__=\"b\"}",
        ),
        ("load 5m\n  a@st 1m _\n  a 1", "line 3: 2 start timestamps for 1 values"),
        ("load 5", "line 1: not a valid duration string: \"5\""),
        ("eval instant at x up", "line 1: not a valid duration string: \"x\""),
        ("eval_foo instant at 0 up\n  expect fail", "line 1: unknown command eval_foo"),
        ("eval instant at 0 up\n  expect nothing", "line 2: unknown expectation \"nothing\""),
        (
            "eval range from 0 to 1 up",
            "line 1: expected eval instant at TIME QUERY or eval range from TIME to TIME step DURATION QUERY",
        ),
    ] {
        assert_eq!(run(script, &options()).unwrap_err().to_string(), error, "{script}");
    }
}

#[test]
fn pinning_leaves_what_is_pinned() {
    for (query, expected) in [
        ("a + max_over_time(b[5m:1m] @ 1)", Some("a @ 60.000 + max_over_time(b[5m:1m] @ 1.000)")),
        ("sum(rate(a[5m] offset 1m))", Some("sum(rate(a[5m] @ 60.000 offset 1m))")),
        ("max_over_time(a[5m:])", Some("max_over_time(a[5m:] @ 60.000)")),
        ("time() + a", None),
        ("1", Some("1")),
    ] {
        assert_eq!(pin::pinned(query, 60_000).as_deref(), expected, "{query}");
    }
}
