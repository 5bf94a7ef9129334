//! Tests of the runner itself: what it must take, and what it must notice.

use super::*;

fn run_one(script: &str) -> Vec<String> {
    let report = run(script, &options_of(script)).unwrap_or_else(|error| panic!("{error}\n{script}"));
    let shown = |f: Failure| format!("{}/{}: {}", f.line, f.difference.line.unwrap_or(0), f.difference);
    report.failures.into_iter().map(shown).collect()
}

#[test]
fn a_wrong_expectation_is_a_failure_with_its_line() {
    let script = "load 1m\n  m{a=\"b\"} 1+1x3\n\neval instant at 2m m\n  m{a=\"b\"} 3\n\n# note\n\
                  eval instant at 2m m\n  m{a=\"b\"} 4\n\neval instant at 2m m\n\n\
                  eval range from 1m to 2m step 1m m\n  m{a=\"b\"} 2 3\n\n\
                  eval range from 1m to 2m step 1m m\n  m{a=\"b\"} 2 _\n";
    assert_eq!(
        run_one(script),
        [
            "8/9: expected {__name__=\"m\", a=\"b\"} 4, got 3",
            "11/0: expected 0 series, got {__name__=\"m\", a=\"b\"} besides",
            "16/17: expected {__name__=\"m\", a=\"b\"} nothing at 120000 ms, got 3",
        ]
    );
}

/// What the evals below ask for.
const DATA: &str = r#"
load 1m
  m{a="x"} 1+1x10
  m{a="y"} 5 _ NaN stale
  h{} {{schema:1 count:3 sum:2 buckets:[1 2] counter_reset_hint:gauge}}x5
  i 0+60x10
  two 1 2
  two{b="1"} 1 2

"#;

#[test]
fn every_form_of_an_expectation_is_met_by_the_right_answer() {
    for eval in [
        "eval instant at 2m m\n  {__name__='m',a=\"y\",} NaN\n m{a=\"x\"} 3",
        "\teval\tinstant  at\t2m   m{a='x'}   \n\t m{a=\"x\"}\t3 ",
        "eval instant at 3m m{a='y'}",
        "eval instant at 0 1 + 1\n  2",
        // A number ends a block: what follows is a command.
        "eval instant at 0 17\n  0x11\neval instant at 0 -Inf\n-inf\neval instant at 0 3\n0b11\nclear",
        "eval instant at 0 \"a\\n\"\n  expect string \"a\\n\"",
        "eval instant at 0 \"a\"\n  expect   string   `a`",
        "eval_ordered instant at 2m sort_desc(i or m)\n  i 120\n  m{a='x'} 3\n  m{a='y'} NaN",
        "eval instant at 2m sort(i or m)\n  expect ordered\n m{a='x'} 3\n i 120\n m{a='y'} NaN",
        "eval_fail instant at 0 two + on() m",
        "eval_fail instant at 0 m + on() m\n  expected_fail_regexp many-to-many matching .* allowed\nclear",
        "eval_fail instant at 0 label_replace(m, 'a', 'b', 'a', '(')\n \
         expected_fail_message invalid regular expression in label_replace(): (\nclear",
        "eval instant at 0 label_replace(m, 'a', 'b', 'a', '(')\n \
         expect  fail  msg:  invalid regular expression in label_replace(): (  ",
        "eval instant at 0 m + on() m\n  expect fail regex:many-to-many",
        "eval_fail range from 0 to 5m step 1m m + on() m\n  expect fail",
        "eval_info instant at 2m rate(i[2m])\n {} 1",
        "eval_warn instant at 0 quantile(2, i)\n {} Inf",
        "eval instant at 2m rate(i[2m])\n  expect info regex:might not be a counter.*\\(1:6\\)\n \
         expect no_warn\n {} 1",
        "eval instant at 2m rate(i[2m])\n  expect info\n {} 1",
        "eval instant at 0 quantile(2, i)\n  expect warn regex:^PromQL warning: quantile value should be between 0 and 1, got 2 \\(1:\\d+\\)$\n  expect no_info\n {} Inf",
        "eval_warn range from 0 to 1m step 1m quantile(2, i)\n {} Inf Inf",
        "eval range from 0 to 3m step 1m m{a='y'}\n  m{a='y'} 5 5 NaN",
        "eval range from 0 to 3m step 1m m{a='y'}\n  m{a='y'} 5 5 NaN _",
        "eval range from 0 to 2m step 1m i\n  i 0+60x2",
        "eval range from 0s to 1m step 30s 1\n  {} 1x2",
        "eval instant at 2m i[2m]\n  expect range vector from 1m to 2m step 60s\n    i 60 120",
        "eval instant at 1m h\n  h {{schema:1 sum:2 count:3 buckets:[1 2]}}",
        "eval instant at 1m h\n  h {{ offset:0 buckets:[1 2 0] count:3 sum:2 schema:1 counter_reset_hint:gauge }}",
        "eval range from 0 to 1m step 1m h\n  h {{schema:1 sum:2 count:3 buckets:[1 2]}}x1",
        // The later of two lines for the same series counts.
        "eval instant at 0 i\n  i 1\n  i 0",
        "CLEAR\neval instant at 0 m",
    ] {
        assert_eq!(run_one(&format!("{DATA}{eval}\n")), [""; 0], "{eval}");
    }
}

#[test]
fn every_form_of_an_expectation_notices_the_wrong_answer() {
    for (eval, difference) in [
        ("eval instant at 0 1\n  2", "expected the scalar 2, got the scalar 1"),
        ("eval instant at 0 i\n  0", "expected the scalar 0, got a vector of 1 [{__name__=\"i\"} 0]"),
        ("eval instant at 0 1\n  i 1", "expected a vector of 1, got the scalar 1"),
        ("eval instant at 0 'a'\n  expect string 'b'", "expected the text \"b\", got the text \"a\""),
        (
            "eval_ordered instant at 2m sort_desc(i or m{a='x'})\n  m{a='x'} 3\n  i 120",
            "expected {__name__=\"m\", a=\"x\"} at place 1, got it at place 2",
        ),
        ("eval instant at 0 i\n  j 0", "expected {__name__=\"j\"} 0, got a vector of 1 [{__name__=\"i\"} 0]"),
        ("eval instant at 0 i\n  i 0.0001", "expected {__name__=\"i\"} 0.0001, got 0"),
        ("eval instant at 0 i\n  i stale", "expected {__name__=\"i\"} stale, got 0"),
        (
            "eval instant at 2m m{a='y'}\n  m{a='y'} stale",
            "expected {__name__=\"m\", a=\"y\"} stale, got NaN",
        ),
        ("eval_fail instant at 0 1", "expected a failure of any text, got the scalar 1"),
        (
            "eval instant at 0 m + on() m\n  expect fail msg:x",
            "expected a failure \"x\", got the failure \"found duplicate series for the match group {} on the \
             right hand-side of the operation: [{__name__=\\\"m\\\", a=\\\"x\\\"}, {__name__=\\\"m\\\", \
             a=\\\"y\\\"}];many-to-many matching not allowed: matching labels must be unique on one side\"",
        ),
        (
            "eval instant at 0 quantile(2, i)\n  expect no_warn\n  {} Inf",
            "expected no warning, got [\"PromQL warning: quantile value should be between 0 and 1, got 2 (1:10)\"]",
        ),
        ("eval_warn instant at 0 i\n  i 0", "expected some warning, got none"),
        ("eval_info instant at 0 i\n  i 0", "expected some info, got none"),
        ("eval instant at 0 i\n  expect info\n  i 0", "expected an info of any text, got []"),
        (
            "eval instant at 0 quantile(2, i)\n  expect warn msg:PromQL warning: x\n  {} Inf",
            "expected a warning \"PromQL warning: x\", got [\"PromQL warning: quantile value should be between \
             0 and 1, got 2 (1:10)\"]",
        ),
        (
            "eval instant at 0 quantile(2, i) + quantile(3, i)\n  expect warn regex:got 2\n  {} Inf",
            "expected no other warning, got \"PromQL warning: quantile value should be between 0 and 1, got 3 \
             (1:27)\"",
        ),
        (
            "eval range from 0 to 1m step 1m i\n  i 0 60 120",
            "expected 3 values of {__name__=\"i\"}, got steps for 2 alone",
        ),
        (
            "eval range from 0 to 1m step 1m i\n  i 0",
            "expected nothing of {__name__=\"i\"} at 60000 ms, got 60",
        ),
        (
            "eval range from 0 to 1m step 1m i\n  expect ordered\n  i 0 60",
            "expected an ordered vector, got a range vector of 1 series",
        ),
        (
            "eval instant at 2m i[2m]\n  expect range vector from 0 to 2m step 1m\n  i 60 120",
            "expected {__name__=\"i\"} 60 at 0 ms, got nothing",
        ),
        (
            "eval instant at 0 h\n  h {{schema:1 sum:2 count:3 buckets:[1 2] counter_reset_hint:reset}}",
            "expected {__name__=\"h\"} {{schema:1 count:3 sum:2 counter_reset_hint:reset buckets:[1 2]}}, got \
             {{schema:1 count:3 sum:2 counter_reset_hint:gauge buckets:[1 2]}}",
        ),
        (
            "eval instant at 0 h\n  h 3",
            "expected {__name__=\"h\"} 3, got {{schema:1 count:3 sum:2 counter_reset_hint:gauge buckets:[1 2]}}",
        ),
        // A query that does not parse is wrong even where a failure is expected.
        (
            "eval_fail instant at 0 sum(",
            "expected a query that parses, got 1:5: parse error: unclosed left parenthesis",
        ),
        (
            "eval range from 0 to 1m step 0 i",
            "expected a value, got zero or negative query resolution step widths are not accepted. Try a positive integer",
        ),
    ] {
        let failures = run_one(&format!("{DATA}{eval}\n"));
        let [failure] = failures.as_slice() else { panic!("{eval}: {failures:?}") };
        assert_eq!(failure.split_once(": ").map(|(_, text)| text), Some(difference), "{eval}");
    }
}

#[test]
fn values_are_loaded_in_every_notation() {
    let script = r##"
load 1m
    a 1 -1 +1.5e1 _ _x2 Inf -Inf NaN stale 7x2 0-5x2 0.1+0.1x2
	b{le="x",x='#'}	3
    {"c.d", "e f"="g@st h"} 4
    sum{by="1"}@st _ -1m 1m-30sx1
    sum{by="1"} 1 2 3 4
    a 2
load 1m
    d 1
"##;
    assert!(
        run(script, &options()).is_err_and(|error| error.line == 9),
        "a load needs an empty line before it"
    );
    let script = script.replace("load 1m\n    d", "\n# A comment ends a block too.\nload 1m\n    d");
    let eval = r##"
eval instant at 0 {__name__=~".+"}
  a 2
  b{le="x",x="#"} 3
  {"c.d", "e f"="g@st h"} 4
  sum{by="1"} 1
  d 1

eval range from 0 to 3m step 1m start_timestamp(sum)
  {by="1"} 0 0 180 210

clear
load 1m
    a 1 -1 +1.5e1 _ _x2 Inf -Inf NaN stale 7x2 0-5x2 0.1+0.1x2

eval instant at 18m a
  a 0.3

eval range from 0 to 15m step 1m last_over_time(a[1m])
  a 1 -1 15 _ _ _ Inf -Inf NaN _ 7 7 7 0 -5 -10
"##;
    assert_eq!(run_one(&format!("{script}\n{eval}")), [""; 0]);
}

#[test]
fn histograms_are_loaded_in_every_notation() {
    let script = r#"
load 1m
  h {{}} {{schema:-53 custom_values:[1 2] buckets:[1 2 3] count:6 sum:9}}x1 _ {{count:1 sum:1}}+{{count:1 sum:2}}x2
  g {{n_offset:-1 n_buckets:[1 2] z_bucket:3 z_bucket_w:0.5 count:6 counter_reset_hint:gauge}}-{{count:1}}x1

eval range from 0 to 6m step 1m histogram_count(last_over_time(h[1m]))
  {} 0 6 6 _ 1 2 3

eval range from 0 to 6m step 1m histogram_sum(last_over_time(h[1m]))
  {} 0 9 9 _ 1 3 5

eval range from 0 to 1m step 1m g
  g {{n_offset:-1 n_buckets:[1 2] z_bucket:3 z_bucket_w:0.5 count:6}} {{n_offset:-1 n_buckets:[1 2] z_bucket:3 z_bucket_w:0.5 count:5}}
"#;
    assert_eq!(run_one(script), [""; 0]);
}

#[test]
fn classic_histograms_become_native_ones() {
    let script = r#"
load_with_nhcb 1m
  all_bucket{le="1", a="x"} 1 2
  all_bucket{le="2.0", a="x"} 3 _
  all_bucket{le="2", a="x"} 3 4
  all_bucket{le="+Inf", a="x"} 4 5
  all_bucket{le="many", a="x"} 9 9
  all_count{a="x"} 4 5
  all_sum{a="x"} 10 11
  no_count_bucket{le="1"} 2
  no_count_bucket{le="5"} 7
  count_only_count 3
  sum_only_sum 3

eval instant at 0 {__name__=~"all|no_count|count_only|sum_only"}
  all{a="x"} {{schema:-53 count:4 sum:10 custom_values:[1 2] buckets:[1 2 1]}}
  no_count {{schema:-53 count:7 custom_values:[1 5] buckets:[2 5]}}
  count_only {{schema:-53 count:3 buckets:[3]}}

eval instant at 1m all
  all{a="x"} {{schema:-53 count:5 sum:11 custom_values:[1 2] buckets:[2 2 1]}}

eval instant at 0 all_bucket{le="many"}
  all_bucket{le="many", a="x"} 9
"#;
    assert_eq!(run_one(script), [""; 0]);
}

#[test]
fn names_are_dropped_at_the_end_unless_the_script_says_otherwise() {
    let script =
        "load 1m\n  a 1\n  b 1\n\neval instant at 0 sum by (__name__) (-{__name__=~'a|b'})\n  expect fail";
    assert_eq!(run_one(script), [""; 0]);
    let script = "load 1m\n  a 1\n  b 1\n\neval instant at 0 sum by (__name__) (-a)\n  {} -1";
    assert_eq!(run_one(&format!("# names: dropped at once\n{script}")), [""; 0]);
    let label = "load 1m\n  a 1\n\neval instant at 0 label_replace(-a, 'n', '$1', '__name__', '(.*)')\n  ";
    assert_eq!(run_one(&format!("{label}{{n='a'}} -1")), [""; 0]);
    assert_eq!(run_one(&format!("# names: dropped at once\n{label}{{}} -1")), [""; 0]);
}

#[test]
fn start_timestamps_count_only_if_they_are_used() {
    let load = "load 1m\n  c_total@st -30s -90s -10s\n  c_total 10 20 30\n\n";
    let with = "eval instant at 2m resets(c_total[5m])\n  {} 1\n\n\
                eval instant at 2m start_timestamp(c_total)\n  {} 110\n";
    let without =
        "eval instant at 2m resets(c_total[5m])\n  {} 0\n\neval instant at 2m start_timestamp(c_total)\n";
    for (evals, use_start_timestamps) in [(with, true), (without, false)] {
        let options = EvalOptions { use_start_timestamps, ..options() };
        let report = run(&format!("{load}{evals}"), &options).unwrap();
        assert!(report.failures.is_empty(), "{use_start_timestamps}: {report:?}");
    }
}

#[test]
fn the_label_for_the_type_tells_counters_only_if_it_is_used() {
    let load = "load 1m\n  a_total{__type__='gauge'} 0+60x5\n  b{__type__='counter'} 0+60x5\n  c 0+60x5\n\n";
    let by_name = "eval instant at 5m rate(a_total[5m])\n  expect no_info\n  {} 1\n\n\
                   eval instant at 5m sum by (x) (rate(b[5m]))\n  expect info msg:PromQL info: metric might not be \
                   a counter, name does not end in _total/_sum/_count/_bucket: \"b\" (1:18)\n  {} 1\n";
    // Positions move where selectors are pinned.
    let by_name = by_name.replace("msg:", "regex:").replace("(1:18)", r"\(1:18\)");
    let by_type = "eval instant at 5m rate(a_total[5m])\n  expect info regex:^PromQL info: metric might not be a \
                   counter, __type__ label is not set to \"counter\" or \"histogram\", got \"gauge\": \"a_total\" \
                   \\(1:6\\)$\n  {} 1\n\n\
                   eval instant at 5m sum by (x) (rate(b[5m]))\n  expect no_info\n  {} 1\n\n\
                   eval instant at 5m increase(c[5m])\n  expect info regex:got \"\": \"c\" \\(1:10\\)$\n  {} 300\n";
    for (evals, type_and_unit_labels) in [(by_name.as_str(), false), (by_type, true)] {
        let options = EvalOptions { type_and_unit_labels, ..options() };
        let report = run(&format!("{load}{evals}"), &options).unwrap();
        assert!(report.failures.is_empty(), "{type_and_unit_labels}: {report:?}");
    }
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
            "line 2: start timestamps of {__name__=\"a\"} are followed by {__name__=\"b\"}",
        ),
        ("load 5m\n  a@st 1m _\n  a 1", "line 2: 2 start timestamps for 1 values"),
        (
            "load 5m\n  a 1\n  a@st 1m",
            "line 3: start timestamps of {__name__=\"a\"} are followed by no values",
        ),
        ("load 5m\n  a@st 1\n  a 1", "line 2: not a valid duration string: \"1\""),
        ("load 5m\n  a@st 1m+1s\n  a 1", "line 2: \"1m+1s\" has a step and no repetition"),
        ("load 5m\n  a@st 1mxx\n  a 1", "line 2: invalid repetition in \"1mxx\""),
        ("load 5m\n  a@st 1mx9999999\n  a 1", "line 2: more than 1000000 start timestamps"),
        ("load 5", "line 1: not a valid duration string: \"5\""),
        ("load", "line 1: empty duration string"),
        ("load_with_ncb 5m", "line 1: unknown command \"load_with_ncb\""),
        (
            "load 1m\n  m{a!='b'} 1",
            "line 2: 1:4: parse error: unexpected <op:!=> in label set, expected \"=\"",
        ),
        ("load 1m\n  m {{foo:1}}", "line 2: 1:5: parse error: bad histogram descriptor found: \"foo\""),
        (
            "load_with_nhcb 1m\n  h_bucket{le='1'} 5\n  h_count 3",
            "line 1: {__name__=\"h\"} at 0 ms: the counts of the buckets are not cumulative",
        ),
        (
            "load_with_nhcb 1m\n  h_bucket{le='Inf'} 5\n  h_count 3",
            "line 1: {__name__=\"h\"} at 0 ms: the count is not that of the highest bucket",
        ),
        ("eval instant at x up", "line 1: not a valid duration string: \"x\""),
        ("eval_foo instant at 0 up\n  expect fail", "line 1: unknown command eval_foo"),
        ("eval_ordered range from 0 to 1 step 1 up", "line 1: not a valid duration string: \"1\""),
        ("eval_ordered range from 0 to 1s step 1s up", "line 1: unknown command eval_ordered"),
        ("eval range from 1s to 0 step 1s up", "line 1: the end 0 lies before the start 1s"),
        ("eval instant at 0 up\n  expect nothing", "line 2: unknown expectation \"nothing\""),
        (
            "eval instant at 0 up\n  expect warn\n  expect no_warn",
            "line 3: warn and no_warn cannot both be expected",
        ),
        (
            "eval instant at 0 up\n  expect no_info\n  expect info",
            "line 3: info and no_info cannot both be expected",
        ),
        ("eval instant at 0 up\n  expect fail\n  expect fail", "line 3: a failure can be expected only once"),
        ("eval instant at 0 up\n  expect ordered msg:x", "line 2: unexpected \"msg:x\" after ordered"),
        ("eval instant at 0 up\n  expect warn x", "line 2: expected msg:TEXT or regex:PATTERN, found \"x\""),
        (
            "eval instant at 0 up\n  expect warn msg:",
            "line 2: expected msg:TEXT or regex:PATTERN, found \"msg:\"",
        ),
        ("eval instant at 0 up\n  expect string", "line 2: expected a quoted text, found \"\""),
        (
            "eval instant at 0 up\n  expect range vector from 0 to 1m",
            "line 2: expected: expect range vector from TIME to TIME step DURATION",
        ),
        (
            "eval instant at 0 up\n  up 1 2",
            "line 2: an instant vector has one value for each series; for several, expect range vector from \
             TIME to TIME step DURATION",
        ),
        (
            "eval instant at 0 up\n  expected_fail_message x",
            "line 2: 1:23: parse error: unexpected \"x\" in series values, expected number or \"stale\"",
        ),
        (
            "eval range from 0 to 1 up",
            "line 1: expected eval instant at TIME QUERY or eval range from TIME to TIME step DURATION QUERY",
        ),
    ] {
        assert_eq!(run(script, &options()).unwrap_err().to_string(), error, "{script}");
    }
    let error = run("eval instant at 0 up\n  expect fail regex:(", &options()).unwrap_err();
    assert_eq!(error.line, 2);
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
