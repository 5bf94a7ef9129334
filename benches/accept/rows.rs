//! The rows: what is measured, its aim, and by what. A new row is a line here.
//!
//! Aims are those of the project's plan. An absolute figure that depends on the machine (CPU,
//! throughput) is turned into a ratio to VictoriaMetrics; memory, disk and latency stay as they are.

use crate::aim::Aim::{self, Max, MaxTimes, MaxTimesBest, Min, MinTimes};
use crate::dashboards::Shown;
use crate::judge::{Figure, Run, Set};
use crate::long::Span;

/// A row of the table.
#[derive(Debug)]
pub struct Row {
    /// What it is asked for by.
    pub group: &'static str,
    /// What is measured.
    pub what: &'static str,
    /// What the figure should be.
    pub aim: Aim,
    /// What it counts.
    pub unit: &'static str,
    /// Where it comes from.
    pub by: By,
}

/// What measures a row.
#[derive(Debug)]
pub enum By {
    /// A run of the load generator, with every server.
    Judge(&'static Run, Figure),
    /// How many answers of a run with queries are not Prometheus'.
    Answers(&'static Run),
    /// A bench of this package, by its name and the row's.
    Bench(&'static str, &'static str),
    /// Dashboards that ask while samples come in.
    Dashboards(Shown),
    /// Queries over long times.
    Long(Span),
    /// Killing Larum under load.
    Kills,
}

const STEADY: Set = Set {
    name: "50k series x 2 h",
    full: "--targets 100 --duration 2h",
    quick: "--targets 100 --duration 1h",
    peer_phases: PEERS,
};
const NEW: Set = Set {
    name: "400k new series x 30 samples",
    full: "--targets 800 --duration 450s",
    quick: "--targets 400 --duration 450s",
    peer_phases: PEERS,
};
const LONG: Set = Set {
    name: "5 h with jitter",
    full: "--targets 100 --duration 5h",
    quick: "--targets 10 --duration 5h",
    peer_phases: PEERS,
};
const QUERIED: Set = Set {
    name: "5 h with jitter, queries",
    full: "--targets 100 --duration 5h",
    quick: "--targets 100 --duration 2h",
    peer_phases: QUERIES,
};
const NOISE: Set = Set {
    name: "random floats",
    full: "--profile devops-cpu --targets 500 --duration 5h",
    quick: "--profile devops-cpu --targets 200 --duration 2h",
    peer_phases: MERGED,
};

// What Larum holds in memory, and what it has to read again after a crash, is of interest as it is
// without a forced merge, so that is a run of its own.
const LEFT_ALONE: &str = "load,settle,restart,crash,idle";
const MERGED: &str = "load,settle,force";
// A peer does both in one: figures of the time before the forced merge are taken before it. Its data
// is flushed before it is killed, for VictoriaMetrics loses what it has not flushed, and the load
// generator would wait in vain for an answer.
const PEERS: &str = "load,settle,force,restart,crash,idle";

// As it is in operation: what is old lies in files, what is new in memory.
const QUERIES: &str = "load,settle,query";

static STEADY_LEFT: Run = Run { set: STEADY, phases: LEFT_ALONE };
static STEADY_MERGED: Run = Run { set: STEADY, phases: MERGED };
static NEW_LEFT: Run = Run { set: NEW, phases: LEFT_ALONE };
static NEW_MERGED: Run = Run { set: NEW, phases: MERGED };
static LONG_LEFT: Run = Run { set: LONG, phases: LEFT_ALONE };
static LONG_MERGED: Run = Run { set: LONG, phases: MERGED };
static LONG_QUERIED: Run = Run { set: QUERIED, phases: QUERIES };
static NOISE_MERGED: Run = Run { set: NOISE, phases: MERGED };

const MB: f64 = 1e-6;

const fn bench(
    group: &'static str,
    what: &'static str,
    aim: Aim,
    unit: &'static str,
    (bench, row): (&'static str, &'static str),
) -> Row {
    Row { group, what, aim, unit, by: By::Bench(bench, row) }
}

const fn judge(
    group: &'static str,
    what: &'static str,
    aim: Aim,
    unit: &'static str,
    run: &'static Run,
    figure: Figure,
) -> Row {
    Row { group, what, aim, unit, by: By::Judge(run, figure) }
}

/// A query of the load generator: its name there, what it is, and how many times the better peer's median it
/// may take.
const fn query(name: &'static str, what: &'static str, times: f64) -> Row {
    judge("query", what, MaxTimesBest(times), "ms", &LONG_QUERIED, Figure::Query(name))
}

const fn at(pointer: &'static str) -> Figure {
    Figure::At(pointer, 1.0)
}

/// All rows, in the order they are printed.
#[rustfmt::skip]
pub static ROWS: &[Row] = &[
    bench("append", "known series, one thread, no WAL (measured with it)", Min(15.0), "Msamples/s", ("ingest", "known series, wal, 1 thread")),
    bench("append", "known series, one thread, WAL", Min(10.0), "Msamples/s", ("ingest", "known series, wal, 1 thread")),
    bench("append", "two threads to one, WAL", Min(1.7), "x", ("ingest", "known series, wal, 2 threads to 1")),
    bench("append", "new series with 10 label pairs", Max(2.0), "us", ("ingest", "new series")),
    bench("append", "shuffled with holes to ordered, memory", Max(1.3), "x", ("ingest", "shuffled with holes, memory")),
    bench("append", "shuffled with holes to ordered, disk", Max(1.3), "x", ("ingest", "shuffled with holes, disk")),

    judge("ingest", "throughput, 50k series (the loader may be the limit)", MinTimes(6.0), "samples/s", &STEADY_LEFT, at("/load/samples_per_s")),
    judge("ingest", "throughput, 400k new series (the loader may be the limit)", MinTimes(8.0), "samples/s", &NEW_LEFT, at("/load/samples_per_s")),

    judge("cpu", "server CPU while loading, 50k series", MaxTimes(0.12), "s/Msample", &STEADY_LEFT, at("/load/server_cpu_s_per_msample")),
    judge("cpu", "the same with forced merge, 50k series", MaxTimes(0.15), "s/Msample", &STEADY_MERGED, at("/cpu_s_per_msample_with_background")),
    judge("cpu", "server CPU while loading, 400k new series", MaxTimes(0.13), "s/Msample", &NEW_LEFT, at("/load/server_cpu_s_per_msample")),
    judge("cpu", "the same with forced merge, 400k new series", MaxTimes(0.15), "s/Msample", &NEW_MERGED, at("/cpu_s_per_msample_with_background")),

    judge("latency", "request p99, 50k series", Max(15.0), "ms", &STEADY_LEFT, at("/load/latency_ms_p99")),
    judge("latency", "request max, 50k series", Max(100.0), "ms", &STEADY_LEFT, at("/load/latency_ms_max")),
    judge("latency", "request p99, 5 h of 50k series, cutting meanwhile", Max(15.0), "ms", &LONG_LEFT, at("/load/latency_ms_p99")),
    judge("latency", "request max, 5 h of 50k series, cutting meanwhile", Max(100.0), "ms", &LONG_LEFT, at("/load/latency_ms_max")),
    bench("latency", "append p99 while cutting and merging", Max(15.0), "ms", ("merge", "append while cutting and merging, p99")),
    bench("latency", "append max while cutting and merging", Max(100.0), "ms", ("merge", "append while cutting and merging, max")),

    judge("memory", "RSS empty", Max(15.0), "MB", &STEADY_LEFT, Figure::At("/mem_empty/rss", MB)),
    judge("memory", "RSS peak while loading, 50k series", Max(100.0), "MB", &STEADY_LEFT, Figure::At("/load/server_rss_peak", MB)),
    judge("memory", "RSS peak while loading, 400k new series", Max(170.0), "MB", &NEW_LEFT, Figure::At("/load/server_rss_peak", MB)),
    judge("memory", "RSS settled, 50k series", MaxTimes(0.35), "MB", &STEADY_LEFT, Figure::At("/settle/mem/rss", MB)),
    judge("memory", "RSS settled, 400k new series", MaxTimes(0.35), "MB", &NEW_LEFT, Figure::At("/settle/mem/rss", MB)),
    judge("memory", "RSS settled after a forced merge, 50k series", MaxTimes(0.35), "MB", &STEADY_MERGED, Figure::At("/mem_after_load_settled/rss", MB)),
    judge("memory", "RSS settled after a forced merge, 400k new series", MaxTimes(0.35), "MB", &NEW_MERGED, Figure::At("/mem_after_load_settled/rss", MB)),
    judge("memory", "RSS idle after a restart, 50k series", Max(50.0), "MB", &STEADY_LEFT, Figure::At("/idle/mem/rss", MB)),
    judge("memory", "RSS idle after a restart, 400k new series", Max(80.0), "MB", &NEW_LEFT, Figure::At("/idle/mem/rss", MB)),

    judge("disk", "timestamps and values, 5 h with jitter, merged", MaxTimes(0.40), "B/sample", &LONG_MERGED, Figure::DataBytes),
    judge("disk", "whole folder, 5 h with jitter, merged", MaxTimes(0.60), "B/sample", &LONG_MERGED, Figure::FolderBytes),
    judge("disk", "whole folder, 5 h with jitter, nothing forced", MaxTimes(0.70), "B/sample", &LONG_LEFT, at("/disk_after_settle/bytes_per_sample")),
    judge("disk", "whole folder, random full-mantissa floats, merged", Max(7.2), "B/sample", &NOISE_MERGED, Figure::FolderBytes),

    query("single_series_24h", "one series, 24 h", 0.6),
    query("rate_one_metric_1h", "rate of one metric, 800 series, 1 h at 15 s", 0.1),
    query("sum_by_instance_rate", "sum by (instance) (rate), 5,600 series, all the time at 60 s", 0.105),
    query("histogram_quantile_p90", "histogram_quantile over 7,200 buckets, 1 h at 60 s", 0.073),
    query("avg_over_time_scan", "avg_over_time 1 h, all the time at 5 m", 0.154),
    query("dashboard_mem_all", "dashboard: a / b of 100 instances, all the time", 0.2),
    query("subquery_max_1h", "max_over_time of a 1 h subquery", 0.073),
    query("raw_matrix_10m", "raw samples of 10 m, 3,600 series", 0.103),
    query("topk_pods_cpu", "topk(10, sum by (pod) (rate)), instant", 0.21),
    query("regex_high_card", "regular expression on pod, 1,300 series, instant", 0.2),
    query("count_by_name", "count by (__name__), all series, instant", 0.021),
    query("join_group_left", "join with group_left, instant", 0.19),
    query("alert_threshold", "alert: threshold on a ratio, 300 series, instant", 0.2),
    query("alert_error_ratio", "alert: error ratio by service, instant", 0.194),
    query("absent", "absent of what is not there, instant", 0.6),
    query("series_match", "/series, 6,400 series", 0.31),
    query("labels", "/labels", 0.67),
    query("label_values_pod", "/label/pod/values", 0.5),
    Row { group: "query", what: "answers that are not Prometheus'", aim: Max(0.0), unit: "answers", by: By::Answers(&LONG_QUERIED) },

    Row { group: "concurrent", what: "dashboard query p99, 64 clients once a second, while samples come in", aim: Max(100.0), unit: "ms", by: By::Dashboards(Shown::P99) },
    Row { group: "concurrent", what: "samples taken in meanwhile (200,000 are sent)", aim: Min(195_000.0), unit: "samples/s", by: By::Dashboards(Shown::Ingested) },

    Row { group: "long", what: "one series, one year at 1 h", aim: MaxTimesBest(1.0), unit: "ms", by: By::Long(Span::Year) },
    Row { group: "long", what: "sum of the rate of 1,000 series, 30 days at 5 m", aim: MaxTimesBest(1.0), unit: "ms", by: By::Long(Span::Month) },

    bench("scan", "full scan from mapped files, one core", Min(800.0), "Msamples/s", ("scan", "full scan from mapped files")),

    judge("open", "kill -9 to the first answer, 50k series x 2 h", Max(1000.0), "ms", &STEADY_LEFT, at("/restart_kill9_settled/first_query_ms")),
    judge("open", "kill -9 to the first answer, 50k series x 5 h", Max(1000.0), "ms", &LONG_LEFT, at("/restart_kill9_settled/first_query_ms")),
    judge("open", "kill -9 to the first answer, 400k new series", Max(1000.0), "ms", &NEW_LEFT, at("/restart_kill9_settled/first_query_ms")),
    bench("open", "after kill -9, WAL at its bound, 400k series, to the first write and query", Max(1000.0), "ms", ("open", "open after kill, 400000 series")),
    bench("open", "after a clean stop, 365 partitions", Max(100.0), "ms", ("open", "open after clean stop, 365 partitions")),

    bench("growth", "memory a series, 1 M active for 10 minutes", Max(600.0), "B", ("growth", "active, memory a series")),
    bench("growth", "append, 1 M active series", Min(4.0), "Msamples/s", ("growth", "active, append")),
    bench("growth", "query of 500 of 1 M active series", Max(20.0), "ms", ("growth", "active, query of 500 series")),
    bench("growth", "query of all of 1 M active series", Max(3000.0), "ms", ("growth", "active, query of all")),
    bench("growth", "kill -9 to the first answer, 1 M active series", Max(3000.0), "ms", ("growth", "active, open after kill")),
    bench("growth", "1,000 partitions: the last commits to the first", Max(2.0), "x", ("growth", "partitions, last commits to first")),
    bench("growth", "1,000 partitions: memory after a start", Max(60.0), "MB", ("growth", "partitions, memory after open")),
    bench("growth", "1,000 partitions: start to the first answer", Max(250.0), "ms", ("growth", "partitions, open")),
    bench("growth", "1,000 partitions: query over all of them", Max(250.0), "ms", ("growth", "partitions, query over all")),
    bench("growth", "10 M series seen: the last to the first", Max(1.5), "x", ("growth", "seen, last waves to first")),
    bench("growth", "10 M series seen: memory at the end", Max(300.0), "MB", ("growth", "seen, memory at the end")),
    bench("growth", "10 M series seen: start to the first answer", Max(250.0), "ms", ("growth", "seen, open")),
    bench("growth", "10 M series seen: query of 500 of them", Max(100.0), "ms", ("growth", "seen, query of 500 series")),
    bench("growth", "10 M series seen: the values of a label", Max(2000.0), "ms", ("growth", "seen, values of a label")),

    bench("rules", "share of a core, 10,000 alerting rules over 100,000 series every 15 s", Max(25.0), "%", ("rules", "rules, share of a core")),
    bench("rules", "the same: slots missed", Max(0.0), "slots", ("rules", "rules, slots missed")),
    bench("rules", "the same: kill -9 to all 1,000 alerts firing as before", Max(1000.0), "ms", ("rules", "rules, kill to all alerts firing")),

    judge("lost", "acknowledged samples lost, kill -9 at the last answer", Max(0.0), "samples", &STEADY_LEFT, at("/crash/lost")),
    Row { group: "lost", what: "acknowledged samples lost, kills under load", aim: Max(0.0), unit: "samples", by: By::Kills },
];
