//! `explain`: what a query would read, and what its nodes took, in its answer.
//!
//! `explain=true` adds `data.explain` to the answer: the estimate, the measured tree, and both as text.
//! `explain=text` answers with that text alone. `explain=estimate` does not run the query.

use super::super::error::ApiError;
use super::super::http::params::Params;
use super::super::json;
use crate::promql::explain::{Explained, NodeReport, SelectorEstimate, estimate_text, excerpt};
use crate::storage::ReadCost;
use serde_json::{Value, json};
use std::fmt::Write;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Explain {
    /// Nothing.
    No,
    /// The answer with everything.
    True,
    /// The text alone.
    Text,
    /// What would be read; the query does not run.
    Estimate,
}

impl Explain {
    /// Reads the parameter.
    ///
    /// # Errors
    /// It is none of those above.
    pub fn read(params: &Params) -> Result<Explain, ApiError> {
        match params.get("explain") {
            None | Some("false") => Ok(Explain::No),
            Some("true") => Ok(Explain::True),
            Some("text") => Ok(Explain::Text),
            Some("estimate") => Ok(Explain::Estimate),
            Some(other) => {
                let why = format!("{other:?} is none of true, text, estimate, false");
                Err(ApiError::parameter("explain", why))
            }
        }
    }
}

/// What is known of a query.
pub struct Explanation<'a> {
    /// Its text.
    pub query: &'a str,
    /// What its selectors would read.
    pub estimate: &'a [SelectorEstimate],
    /// What its nodes took, if it ran.
    pub measured: Option<&'a Explained>,
}

impl Explanation<'_> {
    /// For people.
    pub fn text(&self) -> String {
        let mut text = "estimate\n".to_owned();
        if self.estimate.is_empty() {
            text.push_str("  nothing is read\n");
        }
        for line in estimate_text(self.query, self.estimate).lines() {
            let _ = writeln!(text, "  {line}");
        }
        if let Some(measured) = self.measured {
            text.push_str("measured\n");
            for line in measured.text(self.query).lines() {
                let _ = writeln!(text, "  {line}");
            }
        }
        text
    }

    /// Adds it as JSON: `{"estimate":...,"measured":...,"text":...}`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut total = ReadCost::default();
        self.estimate.iter().for_each(|selector| total.add(&selector.cost));
        let selectors: Vec<Value> = self.estimate.iter().map(|s| self.selector_in_json(s)).collect();
        let estimate = json!({
            "selectors": selectors,
            "series": self.estimate.iter().map(|selector| selector.series).sum::<u64>(),
            "chunks": total.chunks,
            "samples": total.samples,
            "bytes": total.bytes,
        });
        out.extend_from_slice(br#"{"estimate":"#);
        json::serialized(out, &estimate);
        if let Some(measured) = self.measured {
            out.extend_from_slice(br#","measured":"#);
            self.write_tree(out, measured);
        }
        out.extend_from_slice(br#","text":"#);
        json::text(out, &self.text());
        out.push(b'}');
    }

    fn selector_in_json(&self, selector: &SelectorEstimate) -> Value {
        let SelectorEstimate { pos, steps, min_ms, max_ms, series, cost, is_extrapolated } = selector;
        json!({
            "selector": excerpt(self.query, *pos),
            "steps": steps,
            "minTime": min_ms,
            "maxTime": max_ms,
            "series": series,
            "chunks": cost.chunks,
            "samples": cost.samples,
            "bytes": cost.bytes,
            "extrapolated": is_extrapolated,
        })
    }

    /// Writes nodes, which stand each before those below it, without recursion: queries nest deeply.
    fn write_tree(&self, out: &mut Vec<u8>, measured: &Explained) {
        let mut open: Vec<usize> = Vec::new();
        for (index, node) in measured.nodes.iter().enumerate() {
            let mut is_sibling = false;
            while open.last().copied() != node.parent && open.pop().is_some() {
                out.extend_from_slice(b"]}");
                is_sibling = true;
            }
            if is_sibling {
                out.push(b',');
            }
            let mut fields = Vec::new();
            json::serialized(&mut fields, &self.node_in_json(node));
            fields.pop();
            out.extend_from_slice(&fields);
            out.extend_from_slice(br#","children":["#);
            open.push(index);
        }
        open.iter().for_each(|_| out.extend_from_slice(b"]}"));
    }

    fn node_in_json(&self, node: &NodeReport) -> Value {
        json!({
            "expr": excerpt(self.query, node.pos),
            "kind": node.kind,
            "seconds": node.time.as_secs_f64(),
            "ownSeconds": node.own_time.as_secs_f64(),
            "evaluations": node.evaluations,
            "steps": node.steps,
            "seriesIn": node.series_in,
            "seriesOut": node.series_out,
            "samples": node.samples,
            "peakMemoryBytes": node.peak_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promql::explain::Care;
    use crate::promql::testlang::Memory;
    use crate::promql::{EvalOptions, Steps, estimate, evaluate, parse};
    use crate::storage::Timestamp;

    #[test]
    fn the_tree_is_json_however_deep_it_is() {
        let options = EvalOptions { explain: true, ..EvalOptions::default() };
        let steps = Steps::instant(Timestamp::from_millis(0));
        let deep = format!("{}a{}", "-sum(".repeat(60), ")".repeat(60));
        for query in ["1", "a", "(a + b) / on() (c - rate(d[5m]))", &deep] {
            let expr = parse(query).unwrap();
            let estimate =
                estimate(&expr, &Memory::default(), steps, &options, Care::Thorough).unwrap().selectors;
            let answer = evaluate(&expr, &Memory::default(), steps, &options).unwrap();
            let measured = answer.stats.explained.unwrap();
            let explanation = Explanation { query, estimate: &estimate, measured: Some(&measured) };
            let mut out = Vec::new();
            explanation.write(&mut out);
            let text = String::from_utf8(out).unwrap();
            let mut deserializer = serde_json::Deserializer::from_str(&text);
            let value: Result<Value, _> = serde::Deserialize::deserialize(&mut deserializer);
            if query.len() < 100 {
                let value = value.unwrap();
                let mut nodes = vec![&value["measured"]];
                let mut count = 0;
                while let Some(node) = nodes.pop() {
                    count += 1;
                    nodes.extend(node["children"].as_array().unwrap());
                }
                assert_eq!(count, measured.nodes.len(), "{text}");
            }
            assert_eq!(text.matches('[').count(), text.matches(']').count());
        }
    }
}
