//! Any text is a query or an error, and what is printed of a query parses to the same text again.
#![no_main]

use larum::promql::parse;
use larum::promql::parse::{parse_matchers, parse_metric, series::parse_series};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(expr) = parse(text) {
        let printed = expr.to_string();
        let again = parse(&printed).unwrap_or_else(|error| panic!("{text:?} -> {printed:?}: {error}"));
        assert_eq!(again.to_string(), printed, "{text:?}");
    }
    let _ = (parse_matchers(text), parse_metric(text), parse_series(text));
});
