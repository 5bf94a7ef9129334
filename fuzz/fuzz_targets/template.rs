//! Any template parses or is refused, and expands or fails within its limits.
#![no_main]

use larum::rules::template::{Data, Limits, QuerySample, Template};
use libfuzzer_sys::fuzz_target;
use std::collections::BTreeMap;

fuzz_target!(|text: &str| {
    let Ok(template) = Template::parse("fuzz", text) else { return };
    let labels = BTreeMap::from([("instance".to_owned(), "a.example.com:9090".to_owned())]);
    let data = Data {
        labels: labels.clone(),
        external_labels: BTreeMap::new(),
        external_url: "http://localhost:9090/path".to_owned(),
        value: 1234567.0,
        now_ms: 1_700_000_000_000,
    };
    let mut queries = |query: &str| match query.len() {
        0 => Err("empty".to_owned()),
        n => Ok(vec![QuerySample { labels: labels.clone(), value: n as f64 }; n % 4]),
    };
    let limits = Limits { steps: 5_000, ..Limits::default() };
    if let Ok(output) = template.expand(&data, &mut queries, limits) {
        assert!(output.len() <= limits.output_bytes);
    }
});
