//! How long queries take that are evaluated over series in memory: no storage, no HTTP. Prints the
//! fastest of several runs of each shape.
//!
//! `cargo bench --bench query` runs all, `cargo bench --bench query -- rate` those whose text
//! holds `rate`. The shapes are those of the aims in `benches/README.md`.

use larum::Labels;
use larum::promql::{EvalOptions, Steps, evaluate, parse};
use larum::storage::series_set::{ColumnPiece, Columns};
use larum::storage::{Matcher, ReadError, SeriesSet, Source, TimeRange, Timestamp};
use larum_storage_format::Samples;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Series in memory, of targets that are sampled every 15 seconds, each with a jitter of its own.
struct Memory {
    series: Vec<(Labels, usize)>,
    /// Per target its timestamps.
    columns: Vec<Arc<[i64]>>,
    values: Vec<Vec<f64>>,
}

const INTERVAL_MS: i64 = 15_000;

impl Memory {
    /// `targets` targets with `metrics` counters each, of `samples` samples.
    fn counters(targets: usize, metrics: usize, samples: usize) -> Memory {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        let mut memory = Memory { series: Vec::new(), columns: Vec::new(), values: Vec::new() };
        for target in 0..targets {
            let jitter = (next() % 15_000) as i64;
            let times = (0..samples as i64).map(|i| i * INTERVAL_MS + jitter + (next() % 20) as i64);
            memory.columns.push(times.collect());
            for metric in 0..metrics {
                let name = format!("metric_{}_total", if metrics > 200 { metric } else { metric % 2 });
                let pairs = [
                    ("__name__", name.as_str()),
                    ("instance", &format!("10.0.0.{target}:9100")),
                    ("job", "node"),
                    ("device", &format!("disk{metric}")),
                ];
                memory.series.push((Labels::from_pairs(pairs).expect("these are labels"), target));
                let mut value = (next() % 1000) as f64;
                memory.values.push(
                    (0..samples)
                        .map(|_| {
                            value += (next() % 100) as f64;
                            value
                        })
                        .collect(),
                );
            }
        }
        memory
    }
}

struct Selected<'a> {
    memory: &'a Memory,
    indexes: Vec<usize>,
    range: TimeRange,
}

impl Source for Memory {
    fn select<'a>(
        &'a self,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<Box<dyn SeriesSet + 'a>, ReadError> {
        let matches = |labels: &Labels| matchers.iter().all(|m| m.matches_series(labels));
        let indexes = (0..self.series.len()).filter(|i| matches(&self.series[*i].0)).collect();
        Ok(Box::new(Selected { memory: self, indexes, range }))
    }
}

impl SeriesSet for Selected<'_> {
    fn len(&self) -> usize {
        self.indexes.len()
    }

    fn labels(&self, index: usize) -> Labels {
        self.memory.series[self.indexes[index]].0.clone()
    }

    fn load(&self, index: usize, columns: &mut Columns) -> Result<Samples, ReadError> {
        let index = self.indexes[index];
        let target = self.memory.series[index].1;
        let all = &self.memory.columns[target];
        let start = all.partition_point(|t| *t < self.range.min_ms);
        let end = all.partition_point(|t| *t <= self.range.max_ms);
        let piece =
            ColumnPiece { part: 0, column: target as u32, start: start as u32, len: (end - start) as u32 };
        let timestamps = columns.shared(&[piece], || all[start..end].to_vec());
        let floats = self.memory.values[index][start..end].to_vec();
        Ok(Samples { timestamps, floats, ..Samples::default() })
    }
}

fn main() {
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let run = |memory: &Memory, query: &str, steps: Steps| {
        if filter.as_ref().is_some_and(|filter| !query.contains(filter.as_str())) {
            return;
        }
        let expr = parse(query).expect("the queries of the benchmark parse");
        let options = EvalOptions::default();
        let mut fastest = Duration::MAX;
        let mut samples = 0;
        for _ in 0..20 {
            let start = Instant::now();
            let answer = evaluate(&expr, memory, steps, &options).expect("the queries have an answer");
            fastest = fastest.min(start.elapsed());
            samples = answer.stats.samples;
        }
        let ms = fastest.as_secs_f64() * 1000.0;
        println!("{ms:9.3} ms  {samples:>10} samples  {:>4} steps  {query}", steps.count());
    };
    let range = |start_s: i64, step_s: u64, count: i64| {
        let start = Timestamp::from_millis(start_s * 1000);
        let end = Timestamp::from_millis((start_s + step_s as i64 * (count - 1)) * 1000);
        Steps::new(start, end, Duration::from_secs(step_s)).expect("the end is after the start")
    };

    let small = Memory::counters(100, 16, 300);
    run(&small, "rate(metric_0_total[5m])", range(600, 15, 241));
    run(&small, "metric_0_total", range(600, 15, 241));
    run(&small, "metric_0_total / on (instance, device) metric_0_total", range(600, 15, 241));
    run(&small, "avg_over_time(metric_0_total[1h])", range(3700, 60, 61));
    run(
        &small,
        "max_over_time(sum(rate(metric_0_total[5m]))[1h:1m])",
        Steps::instant(Timestamp::from_millis(4_400_000)),
    );
    drop(small);
    let middle = Memory::counters(100, 112, 1_300);
    run(&middle, "sum by (instance) (rate(metric_0_total[5m]))", range(400, 60, 315));
    drop(middle);
    let large = Memory::counters(100, 500, 20);
    run(&large, r#"count by (__name__) ({__name__!=""})"#, Steps::instant(Timestamp::from_millis(300_000)));
    run(&large, r#"topk(5, {__name__!=""})"#, Steps::instant(Timestamp::from_millis(300_000)));
}
