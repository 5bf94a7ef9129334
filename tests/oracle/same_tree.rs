//! What both our parser and promql-parser accept becomes the same tree, but for the [`differences`].
//!
//! promql-parser knows less than Prometheus 3.14, and accepts some of what that refuses, so what only one
//! of the two accepts says nothing here; `src/promql/parse` has its own tests for that.

mod differences;
mod inputs;
mod theirs;

#[path = "../real_promql/grammar.rs"]
#[expect(dead_code, reason = "only the queries are of interest, not what they are asked of")]
mod grammar;
#[path = "../real_promql/random.rs"]
mod random;

use differences::{DIFFERENCES, Difference};
use serde_json::Value;
use std::collections::BTreeMap;
use std::panic;

/// Our tree of a query, as `/api/v1/parse_query` tells it.
fn ours(query: &str) -> Option<Value> {
    let expr = larum::promql::parse(query).ok()?;
    let mut json = Vec::new();
    larum::promql::ast_json::write_ast(&mut json, &expr, |out, text| {
        serde_json::to_writer(out, text).expect("a text can be written to memory");
    });
    Some(serde_json::from_slice(&json).unwrap_or_else(|error| panic!("{query}: no JSON: {error}")))
}

/// What came of the comparisons.
#[derive(Default)]
struct Tally {
    compared: usize,
    /// What only one of the two accepts, and what neither does.
    not_comparable: usize,
    /// How often each known difference was met.
    met: BTreeMap<&'static str, usize>,
    unknown: Vec<String>,
}

impl Tally {
    fn compare(&mut self, query: &str) {
        let (Some(mut ours), Some(mut theirs)) = (ours(query), theirs::tree(query)) else {
            self.not_comparable += 1;
            return;
        };
        self.compared += 1;
        for Difference { name, apply, .. } in DIFFERENCES {
            if apply(query, &mut ours, &mut theirs) {
                *self.met.entry(name).or_default() += 1;
            }
        }
        if ours != theirs {
            self.unknown.push(format!("{query}\n    ours   {ours}\n    theirs {theirs}"));
        }
    }
}

#[test]
fn what_both_accept_becomes_the_same_tree() {
    // promql-parser panics at some durations; that is caught, and not to be told.
    panic::set_hook(Box::new(|info| {
        if !info
            .location()
            .is_some_and(|place| place.file().contains("promql-parser") || place.file().contains("/core/"))
        {
            eprintln!("{info}");
        }
    }));
    let mut tally = Tally::default();
    let written = inputs::written();
    written.iter().for_each(|query| tally.compare(query));
    let of_written = tally.compared;
    inputs::random(&written, 20_000).iter().for_each(|query| tally.compare(query));
    println!(
        "{of_written} of {} written queries and {} of 20000 random ones are accepted by both",
        written.len(),
        tally.compared - of_written
    );
    for Difference { name, reason, .. } in DIFFERENCES {
        println!("{name}: {} times; {reason}", tally.met.get(name).copied().unwrap_or_default());
    }
    assert!(
        tally.unknown.is_empty(),
        "{} trees differ:\n{}",
        tally.unknown.len(),
        tally.unknown.iter().take(20).cloned().collect::<Vec<_>>().join("\n")
    );
    let unmet: Vec<&str> =
        DIFFERENCES.iter().map(|d| d.name).filter(|name| !tally.met.contains_key(name)).collect();
    assert!(unmet.is_empty(), "known differences that are none any more: {unmet:?}");
    // So many are, of which too few would say that the inputs went wrong.
    assert!(tally.compared - of_written > 8_000, "only {} random queries could be compared", tally.compared);
}
