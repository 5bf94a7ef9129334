//! How long the queries of the aims take (`benches/README.md`; the shapes are those of the load generator's
//! `query` phase): over series in memory, which is evaluation alone, and over a database in a temporary
//! folder, most of it in files. No HTTP. Prints the fastest of several runs of each.
//!
//! `cargo bench --bench query` runs all, `cargo bench --bench query -- rate` those whose name or text holds
//! `rate`. `LARUM_BENCH_QUICK=1` takes one hour of data in place of five.

#[path = "support/fleet.rs"]
mod fleet;
mod support;

use fleet::{INTERVAL_MS, Series, time_ms};
use larum::promql::{EvalOptions, Steps, evaluate, parse};
use larum::storage::series_set::{ColumnPiece, Columns};
use larum::storage::{MatchOp, Matcher, ReadError, SeriesSet, Source, TimeRange, Timestamp};
use larum::{Batch, Db, Labels, Options};
use larum_storage_format::Samples;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const FIRST_MS: i64 = 1_700_000_100_000;
const BATCH_SAMPLES: usize = 2_000;
/// A query is asked this long, and five times at least.
const ASKED: Duration = Duration::from_millis(500);

/// A query: its name at the load generator, its text, and its steps, as seconds back from the end and
/// seconds from one to the next; instant without.
type Query = (&'static str, &'static str, Option<(i64, u64)>);

const HOUR_S: i64 = 3_600;
/// All there is.
const ALL: i64 = i64::MAX;

#[rustfmt::skip]
const QUERIES: [Query; 15] = [
    ("single_series_24h", r#"node_load1{instance="10.0.0.7:9100"}"#, Some((ALL, 60))),
    ("rate_one_metric_1h", r#"rate(node_cpu_seconds_total{mode="idle"}[5m])"#, Some((HOUR_S, 15))),
    ("sum_by_instance_rate", r#"sum by(instance)(rate(node_cpu_seconds_total{mode!="idle"}[5m]))"#, Some((ALL, 60))),
    ("histogram_quantile_p90", "histogram_quantile(0.9, sum by(le)(rate(http_request_duration_seconds_bucket[5m])))", Some((HOUR_S, 60))),
    ("avg_over_time_scan", "sum(avg_over_time(container_memory_working_set_bytes[1h]))", Some((ALL, 300))),
    ("dashboard_mem_all", "node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes", Some((ALL, 60))),
    ("subquery_max_1h", "max_over_time(sum(rate(http_requests_total[5m]))[1h:1m])", None),
    ("raw_matrix_10m", "http_requests_total[10m]", None),
    ("topk_pods_cpu", "topk(10, sum by(pod)(rate(container_cpu_usage_seconds_total[5m])))", None),
    ("regex_high_card", r#"count by(namespace)({pod=~"(api|cart|worker)-.*[0-4]"})"#, None),
    ("count_by_name", r#"count by(__name__)({__name__=~".+"})"#, None),
    ("join_group_left", "sum by(node)(container_memory_working_set_bytes * on(namespace,pod) group_left(created_by_name) kube_pod_info)", None),
    ("alert_threshold", r#"1 - node_filesystem_avail_bytes{fstype!="tmpfs"} / node_filesystem_size_bytes > 0.55"#, None),
    ("alert_error_ratio", r#"sum by(service)(rate(http_requests_total{code=~"5.."}[5m])) / sum by(service)(rate(http_requests_total[5m])) > 0.0001"#, None),
    ("absent", r#"absent(node_load1{instance="no-such-host:9100"})"#, None),
];

fn main() {
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let wanted =
        |texts: &[&str]| filter.as_ref().is_none_or(|f| texts.iter().any(|t| t.contains(f.as_str())));
    let hours = if std::env::var_os("LARUM_BENCH_QUICK").is_some() { 1 } else { 5 };
    let rounds = hours * 3_600_000 / INTERVAL_MS;
    let end_ms = FIRST_MS + rounds * INTERVAL_MS;
    let series = fleet::series();

    let folder = tempfile::tempdir().expect("a temporary folder");
    let db = fill(folder.path(), &series, rounds, end_ms);
    let memory = Memory::new(&series, rounds);
    let view = db.view();
    for (name, text, range) in QUERIES.iter().filter(|(name, text, _)| wanted(&[name, text])) {
        let steps = steps(*range, end_ms);
        ask(&format!("{name}, memory"), text, &memory, steps);
        ask(&format!("{name}, database"), text, &view, steps);
    }
    let range = TimeRange { min_ms: FIRST_MS, max_ms: end_ms };
    if wanted(&["label_values_pod"]) {
        list("label_values_pod, database", || view.label_values("pod", &[], range).items.len());
    }
    if wanted(&["labels"]) {
        list("labels, database", || view.label_names(&[], range).items.len());
    }
    if wanted(&["series_match"]) {
        let name = Matcher::new(MatchOp::Equal, "__name__", "node_cpu_seconds_total");
        let sets = [vec![name.expect("there is no pattern")]];
        list("series_match, database", || view.series(&sets, range).items.len());
    }
}

/// A database with all samples, of which the last fifth is in memory, as in operation; nothing is being cut.
fn fill(path: &std::path::Path, series: &[Series], rounds: i64, end_ms: i64) -> Db {
    let end = Timestamp::from_millis(end_ms);
    let db = Db::open(path, Options { clock: Arc::new(move || end), ..Options::default() });
    let db = db.expect("a new folder opens");
    let mut batch = Batch::new();
    for round in 0..rounds {
        let round_ms = FIRST_MS + round * INTERVAL_MS;
        if round == rounds - rounds / 5 {
            db.flush().expect("the disk has room");
        }
        for some in series.chunks(BATCH_SAMPLES) {
            batch.clear();
            for series in some {
                let time = Timestamp::from_millis(time_ms(series.machine, round, round_ms));
                batch.push(&series.labels, time, series.value(round));
            }
            let outcome = db.append(&batch).expect("the disk has room");
            assert_eq!(outcome.accepted, some.len());
        }
    }
    db
}

/// The steps of a query on data that ends then: on multiples of the step, as dashboards ask.
fn steps(range: Option<(i64, u64)>, end_ms: i64) -> Steps {
    let Some((span_s, step_s)) = range else { return Steps::instant(Timestamp::from_millis(end_ms)) };
    let step_ms = step_s as i64 * 1000;
    let end_ms = end_ms / step_ms * step_ms;
    let first_ms = (end_ms - span_s.saturating_mul(1000).min(end_ms - FIRST_MS)) / step_ms * step_ms;
    let (start, end) = (Timestamp::from_millis(first_ms), Timestamp::from_millis(end_ms));
    Steps::new(start, end, Duration::from_millis(step_ms as u64)).expect("the end is after the start")
}

/// Prints the fastest evaluation of a query over `source`.
fn ask(name: &str, text: &str, source: &dyn Source, steps: Steps) {
    let expr = parse(text).expect("the queries of the benchmark parse");
    let options = EvalOptions::default();
    list(name, || {
        evaluate(&expr, source, steps, &options).expect("the queries have an answer").stats.samples
    });
}

/// Prints how long `run` takes at its fastest.
fn list<T>(name: &str, mut run: impl FnMut() -> T) {
    let until = Instant::now() + ASKED;
    let (mut fastest, mut runs) = (Duration::MAX, 0);
    while runs < 5 || Instant::now() < until {
        let start = Instant::now();
        std::hint::black_box(run());
        fastest = fastest.min(start.elapsed());
        runs += 1;
    }
    support::row(name, fastest.as_secs_f64() * 1000.0, "ms");
}

/// Series in memory, as columns. Of what no query asks a range of, the end alone is kept.
struct Memory<'a> {
    series: &'a [Series],
    /// By machine.
    columns: Vec<Arc<[i64]>>,
    /// Values of the last rounds: all of them, or few.
    values: Vec<Vec<f64>>,
    /// What was selected before, by the text of the matchers: an index is not what is measured here.
    selections: Mutex<HashMap<String, Arc<[usize]>>>,
}

/// So many rounds are kept of a series that only instant queries see.
const FEW_ROUNDS: i64 = 40;

impl Memory<'_> {
    fn new(series: &[Series], rounds: i64) -> Memory<'_> {
        let column = |machine| {
            (0..rounds).map(|round| time_ms(machine, round, FIRST_MS + round * INTERVAL_MS)).collect()
        };
        let asked = |labels: &Labels| {
            let name = labels.get("__name__").unwrap_or_default();
            QUERIES.iter().any(|(_, text, _)| text.contains(name))
        };
        let values = |series: &Series| {
            let first = if asked(&series.labels) { 0 } else { rounds - FEW_ROUNDS };
            (first..rounds).map(|round| series.value(round)).collect()
        };
        Memory {
            columns: (0..fleet::MACHINES).map(column).collect(),
            values: series.iter().map(values).collect(),
            series,
            selections: Mutex::default(),
        }
    }
}

struct Selected<'a> {
    memory: &'a Memory<'a>,
    indexes: Arc<[usize]>,
    range: TimeRange,
}

impl Source for Memory<'_> {
    fn select<'a>(
        &'a self,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<Box<dyn SeriesSet + 'a>, ReadError> {
        let matches = |labels: &Labels| matchers.iter().all(|m| m.matches_series(labels));
        let select = || (0..self.series.len()).filter(|i| matches(&self.series[*i].labels)).collect();
        let mut selections = self.selections.lock().expect("nobody panicked");
        let indexes = selections.entry(format!("{matchers:?}")).or_insert_with(select).clone();
        Ok(Box::new(Selected { memory: self, indexes, range }))
    }
}

impl SeriesSet for Selected<'_> {
    fn len(&self) -> usize {
        self.indexes.len()
    }

    fn labels(&self, index: usize) -> Labels {
        self.memory.series[self.indexes[index]].labels.clone()
    }

    fn load(&self, index: usize, columns: &mut Columns) -> Result<Samples, ReadError> {
        let index = self.indexes[index];
        let (machine, values) = (self.memory.series[index].machine, &self.memory.values[index]);
        let all = &self.memory.columns[machine];
        let kept_from = all.len() - values.len();
        let start = all.partition_point(|t| *t < self.range.min_ms).max(kept_from);
        let end = all.partition_point(|t| *t <= self.range.max_ms).max(start);
        let piece =
            ColumnPiece { part: 0, column: machine as u32, start: start as u32, len: (end - start) as u32 };
        let timestamps = columns.shared(&[piece], || all[start..end].to_vec());
        let floats = values[start - kept_from..end - kept_from].to_vec();
        Ok(Samples { timestamps, floats, ..Samples::default() })
    }
}
