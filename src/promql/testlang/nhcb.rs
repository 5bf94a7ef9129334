//! Makes native histograms with custom buckets (NHCB) of classic histograms, as
//! `load_with_nhcb` asks for.

use super::memory::Memory;
use crate::promql::histogram::compacted;
use crate::promql::number::parse_go_float;
use crate::promql::parse::series::SequenceValue;
use larum_storage_format::histogram::{CUSTOM_BUCKETS_SCHEMA, Histogram, Span};
use larum_storage_format::labels::METRIC_NAME;
use larum_storage_format::{Labels, Sample, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is known about one classic histogram at one time.
#[derive(Debug, Default)]
struct Classic {
    /// Upper bound and cumulative count.
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: f64,
}

/// Classic histograms by the labels of the native one and the time in milliseconds.
#[derive(Debug, Default)]
pub(super) struct Collector {
    histograms: BTreeMap<Labels, BTreeMap<i64, Classic>>,
}

impl Collector {
    /// Takes a series if it is part of a classic histogram.
    pub fn take(&mut self, labels: &Labels, values: &[SequenceValue], step_ms: i64) {
        let Some(name) = labels.metric_name() else { return };
        let bound = labels.get("le").and_then(|le| parse_go_float(le).ok()).filter(|le| !le.is_nan());
        let (base, part) = match name.rsplit_once('_') {
            Some((base, part @ ("bucket" | "count" | "sum"))) => (base, part),
            _ => return,
        };
        if part == "bucket" && bound.is_none() {
            return;
        }
        let labels = labels.to_builder().set(METRIC_NAME, base).remove("le").build();
        let times = self.histograms.entry(labels).or_default();
        for (i, value) in values.iter().enumerate() {
            let SequenceValue::Float(value) = *value else { continue };
            let classic = times.entry(step_ms.saturating_mul(i as i64)).or_default();
            match (part, bound) {
                ("bucket", Some(bound)) => classic.buckets.push((bound, value)),
                ("count", _) => classic.count = Some(value),
                _ => classic.sum = value,
            }
        }
    }

    /// Adds the native histograms to the samples.
    pub fn store(self, memory: &mut Memory) -> Result<(), String> {
        for (labels, times) in self.histograms {
            for (timestamp_ms, classic) in times {
                // A sum alone is no histogram; a count alone is one with nothing but the last bucket.
                if classic.buckets.is_empty() && classic.count.is_none() {
                    continue;
                }
                let histogram = native(classic).map_err(|e| format!("{labels} at {timestamp_ms} ms: {e}"))?;
                let value = Value::Histogram(Arc::new(histogram));
                memory.insert(&labels, Sample { timestamp_ms, start_timestamp_ms: None, value });
            }
        }
        Ok(())
    }
}

fn native(mut classic: Classic) -> Result<Histogram, String> {
    classic.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    // The same bound in two notations counts once.
    classic.buckets.dedup_by(|again, first| again.0 == first.0);
    let highest = classic.buckets.last().map_or(0.0, |(_, count)| *count);
    let count = classic.count.unwrap_or(highest);
    if classic.buckets.last().is_some_and(|(bound, total)| *bound == f64::INFINITY && *total != count) {
        return Err("the count is not that of the highest bucket".to_owned());
    }
    classic.buckets.retain(|(bound, _)| *bound != f64::INFINITY);
    let custom_values: Vec<f64> = classic.buckets.iter().map(|(bound, _)| *bound).collect();
    let mut before = 0.0;
    let mut counts = Vec::with_capacity(classic.buckets.len() + 1);
    for cumulative in classic.buckets.iter().map(|(_, cumulative)| *cumulative).chain([count]) {
        if cumulative < before {
            return Err("the counts of the buckets are not cumulative".to_owned());
        }
        counts.push(cumulative - before);
        before = cumulative;
    }
    let positive_spans = vec![Span { offset: 0, length: counts.len() as u32 }];
    Ok(compacted(&Histogram {
        schema: CUSTOM_BUCKETS_SCHEMA,
        count,
        sum: classic.sum,
        positive_spans,
        positive_buckets: counts,
        custom_values,
        ..Histogram::default()
    }))
}
