//! The table of all metrics: name, kind, help, and where the samples come from.

use super::http::DURATION_BOUNDS;
use super::text::Samples;
use super::{Kind, Metric, Snapshot};
use crate::budget::Part;
use crate::notify::{LATENCY_BOUNDS, TargetStats};
use crate::promql::ResultCacheStats;
use crate::rules::GroupStats;
use crate::rules::durations::{BOUNDS_SECONDS, DurationStats};
use crate::server::api::status::API_VERSION;
use crate::server::app::Phase;
use crate::server::args::VERSION;
use crate::server::refusals::REASONS;
use crate::storage::{DiskState, StorageStats, Timestamp};
use Kind::{Counter, Gauge, Histogram, Summary};
use std::sync::atomic::{AtomicU64, Ordering};

type Source = fn(&Snapshot<'_>, &mut Samples<'_>);

const fn metric(name: &'static str, kind: Kind, help: &'static str, samples: Source) -> Metric {
    Metric { name, kind, help, samples }
}

/// A metric of the storage that needs no labels.
macro_rules! storage {
    ($name:literal, $kind:ident, $help:literal, $value:expr) => {
        metric($name, $kind, $help, |snapshot, out| {
            if let Some(stats) = &snapshot.storage {
                let value: fn(&StorageStats) -> f64 = $value;
                out.value(value(stats));
            }
        })
    };
}

/// A metric of the cache of results.
macro_rules! results {
    ($name:literal, $kind:ident, $help:literal, $value:expr) => {
        metric($name, $kind, $help, |snapshot, out| {
            if let Some(cache) = &snapshot.result_cache {
                let value: fn(&ResultCacheStats) -> u64 = $value;
                out.value(value(cache) as f64);
            }
        })
    };
}

/// A metric with one sample for every rule group.
macro_rules! group {
    ($name:literal, $kind:ident, $help:literal, $value:expr) => {
        metric($name, $kind, $help, |snapshot, out| {
            let value: fn(&GroupStats) -> f64 = $value;
            groups(snapshot, out, "", value);
        })
    };
}

/// A metric with one sample for every Alertmanager.
macro_rules! alertmanager {
    ($name:literal, $kind:ident, $help:literal, $value:expr) => {
        metric($name, $kind, $help, |snapshot, out| {
            let value: fn(&TargetStats) -> f64 = $value;
            for target in &snapshot.notifier.targets {
                out.with(&[("alertmanager", &target.url)], value(target));
            }
        })
    };
}

/// A metric of the process.
macro_rules! process {
    ($name:literal, $kind:ident, $help:literal, $value:expr) => {
        metric($name, $kind, $help, |snapshot, out| {
            if let Some(stats) = &snapshot.process {
                let value: fn(&super::process::ProcessStats) -> f64 = $value;
                out.value(value(stats));
            }
        })
    };
}

fn groups(snapshot: &Snapshot<'_>, out: &mut Samples<'_>, suffix: &str, value: fn(&GroupStats) -> f64) {
    for group in &snapshot.groups {
        let name = format!("{};{}", group.file, group.name);
        out.suffixed(suffix, &[("rule_group", &name)], value(&group.stats));
    }
}

fn summary(out: &mut Samples<'_>, durations: &DurationStats, quantiles: &[&str]) {
    for quantile in quantiles {
        out.with(&[("quantile", quantile)], durations.quantile(quantile.parse().unwrap_or(f64::NAN)));
    }
    out.suffixed("_sum", &[], durations.seconds);
    out.suffixed("_count", &[], durations.count as f64);
}

fn load(counter: &AtomicU64) -> f64 {
    counter.load(Ordering::Relaxed) as f64
}

fn seconds(t: Timestamp) -> f64 {
    t.as_millis() as f64 / 1000.0
}

fn yes(condition: bool) -> f64 {
    f64::from(u8::from(condition))
}

/// All metrics, in the order they are shown.
pub(super) const METRICS: &[Metric] = &[
    // The process.
    metric(
        "process_start_time_seconds",
        Gauge,
        "When the process started, in seconds since the epoch.",
        |s, out| {
            out.value(seconds(s.app.started));
        },
    ),
    process!("process_cpu_seconds_total", Counter, "User and system time of the process.", |p| p.cpu_seconds),
    process!("process_resident_memory_bytes", Gauge, "Memory in use, mapped files included.", |p| p
        .resident_bytes
        as f64),
    process!("process_virtual_memory_bytes", Gauge, "Address space in use.", |p| p.virtual_bytes as f64),
    process!("process_open_fds", Gauge, "Open file descriptors.", |p| p.open_fds as f64),
    process!("process_max_fds", Gauge, "File descriptors that may be open.", |p| p.max_fds as f64),
    process!("process_threads", Gauge, "Threads of the process.", |p| p.threads as f64),
    metric(
        "prometheus_build_info",
        Gauge,
        "The version, of the API in `version`, of the program in `larum_version`.",
        |_, out| {
            let labels = [
                ("version", API_VERSION),
                ("revision", ""),
                ("branch", ""),
                ("goversion", ""),
                ("larum_version", VERSION),
            ];
            out.with(&labels, 1.0);
        },
    ),
    // Memory.
    metric("larum_memory_limit_bytes", Gauge, "What the process may take; 0 is anything.", |s, out| {
        out.value(s.memory.limit_bytes.unwrap_or(0) as f64);
    }),
    metric(
        "larum_memory_held_bytes",
        Gauge,
        "What the limit is compared with: what is reserved, or what the process really holds without mapped \
         files if that is more.",
        |s, out| out.value(s.memory.held_bytes as f64),
    ),
    metric("larum_memory_reserved_bytes", Gauge, "Memory that is accounted for, by part.", |s, out| {
        for part in Part::ALL {
            out.with(&[("part", part.name())], s.memory.reserved(part) as f64);
        }
    }),
    metric(
        "larum_memory_refused_total",
        Counter,
        "How often there was too little memory for a part: queries get 422, bodies 503.",
        |s, out| {
            for part in [Part::Bodies, Part::Queries, Part::Rules] {
                out.with(&[("part", part.name())], s.memory.refused(part) as f64);
            }
        },
    ),
    metric(
        "larum_memory_waits_total",
        Counter,
        "How often a small query waited for memory instead of being refused at once.",
        |s, out| out.value(s.memory.waits() as f64),
    ),
    metric(
        "larum_memory_pressure",
        Gauge,
        "What is done about memory: 0 nothing, 1 the head is cut early, 2 caches are given up, 3 merges wait, \
         4 large queries and writes are refused.",
        |s, out| out.value(f64::from(s.memory.pressure.level())),
    ),
    metric("prometheus_ready", Gauge, "Whether requests are served.", |s, out| {
        out.value(yes(s.app.phase() == Phase::Ready));
    }),
    metric(
        "prometheus_config_last_reload_successful",
        Gauge,
        "Whether the configuration was loaded well the last time.",
        |s, out| {
            out.value(yes(s.app.config().successful));
        },
    ),
    metric(
        "prometheus_config_last_reload_success_timestamp_seconds",
        Gauge,
        "When a configuration was last loaded well.",
        |s, out| {
            out.value(seconds(s.app.config().at));
        },
    ),
    // The head.
    storage!("prometheus_tsdb_head_series", Gauge, "Series in the head.", |s| s.head_series as f64),
    storage!("prometheus_tsdb_head_series_created_total", Counter, "Series created in the head.", |s| s
        .series_created
        as f64),
    storage!("prometheus_tsdb_head_series_removed_total", Counter, "Series that left the head.", |s| s
        .series_removed
        as f64),
    metric("prometheus_tsdb_head_samples_appended_total", Counter, "Samples appended.", |s, out| {
        if let Some(stats) = &s.storage {
            out.with(&[("type", "float")], stats.float_samples as f64);
            out.with(&[("type", "histogram")], stats.histogram_samples as f64);
        }
    }),
    metric(
        "prometheus_tsdb_head_min_time_seconds",
        Gauge,
        "Time of the oldest sample in the head.",
        |s, out| {
            if let Some((min, _)) = s.storage.as_ref().and_then(|s| s.head_range_ms) {
                out.value(min as f64 / 1000.0);
            }
        },
    ),
    metric(
        "prometheus_tsdb_head_max_time_seconds",
        Gauge,
        "Time of the newest sample in the head.",
        |s, out| {
            if let Some((_, max)) = s.storage.as_ref().and_then(|s| s.head_range_ms) {
                out.value(max as f64 / 1000.0);
            }
        },
    ),
    metric(
        "prometheus_tsdb_lowest_timestamp_seconds",
        Gauge,
        "Time of the oldest sample in partitions.",
        |s, out| {
            if let Some(oldest) = s.storage.as_ref().and_then(|s| s.oldest_ms) {
                out.value(oldest as f64 / 1000.0);
            }
        },
    ),
    storage!(
        "prometheus_tsdb_clean_start",
        Gauge,
        "Whether the process before closed the data folder in good order.",
        |s| yes(s.clean_start)
    ),
    storage!(
        "prometheus_tsdb_data_replay_duration_seconds",
        Gauge,
        "How long opening the data folder took.",
        |s| s.open_seconds
    ),
    // The WAL.
    storage!(
        "prometheus_tsdb_wal_segment_current",
        Gauge,
        "Number of the WAL segment that is being written.",
        |s| s.wal_segment as f64
    ),
    storage!(
        "prometheus_tsdb_wal_storage_size_bytes",
        Gauge,
        "Bytes of the WAL that a start would read.",
        |s| s.wal_bytes as f64
    ),
    metric("prometheus_tsdb_wal_fsync_duration_seconds", Summary, "Syncs of the WAL.", |s, out| {
        if let Some(stats) = &s.storage {
            out.suffixed("_sum", &[], stats.wal_sync_seconds);
            out.suffixed("_count", &[], stats.wal_syncs as f64);
        }
    }),
    storage!(
        "prometheus_tsdb_wal_writes_failed_total",
        Counter,
        "Writes or syncs of the WAL that failed.",
        |s| s.wal_failures as f64
    ),
    // Partitions, which stand where Prometheus has blocks.
    storage!("prometheus_tsdb_blocks_loaded", Gauge, "Live partitions.", |s| s.partitions as f64),
    storage!(
        "prometheus_tsdb_storage_blocks_bytes",
        Gauge,
        "Bytes of all partitions.",
        |s| s.partition_bytes as f64
    ),
    storage!(
        "prometheus_tsdb_compactions_total",
        Counter,
        "Cuts of the head and merges of partitions.",
        |s| (s.cuts + s.compactions) as f64
    ),
    storage!("prometheus_tsdb_compactions_failed_total", Counter, "Cuts and merges that failed.", |s| (s
        .cut_failures
        + s.compaction_failures)
        as f64),
    metric("prometheus_tsdb_compaction_duration_seconds", Summary, "Cuts and merges.", |s, out| {
        if let Some(stats) = &s.storage {
            out.suffixed("_sum", &[], stats.compaction_seconds);
            out.suffixed("_count", &[], (stats.cuts + stats.compactions) as f64);
        }
    }),
    storage!(
        "prometheus_tsdb_time_retentions_total",
        Counter,
        "Partitions dropped because retention has passed.",
        |s| s.partitions_expired as f64
    ),
    storage!(
        "prometheus_tsdb_size_retentions_total",
        Counter,
        "Partitions dropped because the data folder took more than it may.",
        |s| s.partitions_surplus as f64
    ),
    storage!(
        "prometheus_tsdb_retention_limit_bytes",
        Gauge,
        "What the data folder may take, a percentage resolved; 0 is anything.",
        |s| s.size_limit_bytes as f64
    ),
    metric(
        "prometheus_tsdb_retention_limit_percentage",
        Gauge,
        "Percentage of its file system that the data folder may take; 0 is anything.",
        |s, out| {
            out.value(s.app.size_limit().percentage.unwrap_or(0.0));
        },
    ),
    metric(
        "larum_storage_disk_state",
        Gauge,
        "How much space the disk has: 1 for the state it is in, else 0. With read_only, samples are refused.",
        |s, out| {
            if let Some(stats) = &s.storage {
                for state in DiskState::ALL {
                    out.with(&[("state", state.name())], yes(stats.disk.state == state));
                }
            }
        },
    ),
    storage!("larum_storage_disk_free_bytes", Gauge, "What is free on the disk of the data folder.", |s| s
        .disk
        .free_bytes
        as f64),
    storage!("larum_storage_disk_capacity_bytes", Gauge, "What that disk can hold at all.", |s| s
        .disk
        .capacity_bytes
        as f64),
    storage!(
        "larum_storage_disk_low_below_bytes",
        Gauge,
        "With less, space is low: --storage.disk.min-free, or what cuts and the WAL take, if that is more.",
        |s| s.disk.low_below_bytes as f64
    ),
    storage!(
        "larum_storage_disk_read_only_below_bytes",
        Gauge,
        "With less, samples are refused: what a cut of the head and a segment of the WAL take.",
        |s| s.disk.read_only_below_bytes as f64
    ),
    storage!(
        "larum_storage_disk_full_seconds",
        Gauge,
        "Until samples are refused, by how the disk filled in the last day; +Inf if it does not, or in the first two hours.",
        |s| s.disk.full_seconds
    ),
    storage!(
        "larum_storage_disk_reserve_bytes",
        Gauge,
        "What is kept for the last steps on a full disk; 0 while it is given up.",
        |s| s.disk.reserve_bytes as f64
    ),
    storage!("larum_storage_merge_waits_for_space", Gauge, "Whether a merge waits for space.", |s| {
        yes(s.disk.merge_waits)
    }),
    storage!(
        "larum_storage_emergency_retentions_total",
        Counter,
        "Partitions dropped because the disk was nearly full.",
        |s| s.partitions_emergency as f64
    ),
    metric(
        "larum_data_folder_bytes",
        Gauge,
        "What the data folder takes on the device, by what it is.",
        |s, out| {
            for (kind, bytes) in s.storage.iter().flat_map(|stats| stats.usage.parts()) {
                out.with(&[("kind", kind)], bytes as f64);
            }
        },
    ),
    storage!(
        "larum_retention_excess_bytes",
        Gauge,
        "By how much the data folder takes more than it may, with nothing left to drop.",
        |s| s.excess_bytes as f64
    ),
    storage!(
        "prometheus_tsdb_reloads_failures_total",
        Counter,
        "Always 0: there is nothing to reload.",
        |_| 0.0
    ),
    storage!(
        "larum_retention_paused",
        Gauge,
        "Whether nothing is dropped for a while, because the clock jumped.",
        |s| { yes(s.retention_paused) }
    ),
    storage!(
        "larum_retention_freed_bytes_total",
        Counter,
        "Bytes by which partitions became shorter without what had expired.",
        |s| s.expired_bytes as f64
    ),
    storage!(
        "larum_retention_next_cleanup_timestamp_seconds",
        Gauge,
        "When what has expired is removed next; 0: as soon as it is worth it.",
        |s| s.next_cleanup_ms.unwrap_or(0) as f64 / 1000.0
    ),
    metric(
        "larum_retention_policies",
        Gauge,
        "Policies of retention, that of all series included.",
        |s, out| out.value(s.app.config().config.retention_policies.len() as f64 + 1.0),
    ),
    storage!("larum_deletions_total", Counter, "Deletions that found something.", |s| s.deletions as f64),
    storage!("larum_deleted_samples_total", Counter, "Samples that were deleted.", |s| s.deleted_samples
        as f64),
    storage!(
        "larum_partitions_with_tombstones",
        Gauge,
        "Partitions of which something was deleted that still takes its bytes.",
        |s| s.partitions_with_tombstones as f64
    ),
    storage!(
        "larum_deletion_freed_bytes_total",
        Counter,
        "Bytes by which partitions became shorter without what was deleted.",
        |s| s.freed_bytes as f64
    ),
    storage!("larum_jobs", Gauge, "Jobs that wait or run, see /api/v1/admin/tsdb/jobs.", |s| s.active_jobs
        as f64),
    storage!(
        "larum_missing_partitions",
        Gauge,
        "Partitions that are not shown, as their files or tombstones are not there.",
        |s| s.missing_partitions as f64
    ),
    storage!(
        "larum_damaged_files_total",
        Counter,
        "Files found damaged at the start, in a merge or by the scrub, and dealt with.",
        |s| s.damaged_files as f64
    ),
    storage!(
        "larum_damaged_partitions",
        Gauge,
        "Partitions in use that are known to be damaged, see /api/v1/status/tsdb/damage.",
        |s| s.damaged_partitions as f64
    ),
    storage!("larum_scrub_read_bytes_total", Counter, "Bytes that were read to find damage.", |s| s
        .scrubbed_bytes
        as f64),
    metric(
        "prometheus_tsdb_retention_limit_seconds",
        Gauge,
        "How long samples are kept; 0 is for ever.",
        |s, out| {
            out.value(s.app.retention().map_or(0.0, |r| r.as_secs_f64()));
        },
    ),
    // Queries.
    metric("prometheus_engine_queries", Gauge, "Queries that run.", |s, out| {
        out.value(s.app.pool.running() as f64)
    }),
    metric("prometheus_engine_queries_concurrent_max", Gauge, "Queries that may run at a time.", |s, out| {
        out.value(s.app.pool.max_threads() as f64);
    }),
    metric(
        "prometheus_engine_query_duration_seconds",
        Summary,
        "Queries, by what they spend their time on.",
        |s, out| {
            let queries = &s.app.query_counts;
            let count = load(&queries.count);
            for (slice, sum) in [
                ("queue_time", s.app.pool.queued_total().as_secs_f64()),
                ("inner_eval", load(&queries.evaluation_micros) / 1e6),
                ("result_sort", load(&queries.answer_micros) / 1e6),
            ] {
                out.suffixed("_sum", &[("slice", slice)], sum);
                out.suffixed("_count", &[("slice", slice)], count);
            }
        },
    ),
    metric("prometheus_engine_query_samples_total", Counter, "Samples that queries read.", |s, out| {
        out.value(load(&s.app.query_counts.samples));
    }),
    metric("larum_queries_waiting", Gauge, "Queries and listings that wait for a thread.", |s, out| {
        out.value(s.app.pool.waiting() as f64);
    }),
    metric("larum_queries_active", Gauge, "Queries that wait or run, those of rules included.", |s, out| {
        out.value(s.app.queries.len() as f64);
    }),
    metric(
        "larum_queries_small_lane_total",
        Counter,
        "Small queries that ran on the thread kept for them, as all others were busy.",
        |s, out| out.value(s.app.pool.small_runs() as f64),
    ),
    metric("larum_queries_canceled_total", Counter, "Queries that an operator ended.", |s, out| {
        out.value(s.app.queries.canceled() as f64);
    }),
    metric(
        "larum_top_queries_entries",
        Gauge,
        "Texts and origins that /api/v1/status/top_queries adds up now.",
        |s, out| out.value(s.app.queries.top_len() as f64),
    ),
    metric("prometheus_engine_query_log_enabled", Gauge, "Whether queries are logged.", |s, out| {
        out.value(yes(s.app.query_log.is_on()));
    }),
    metric(
        "prometheus_engine_query_log_failures_total",
        Counter,
        "Queries that could not be logged.",
        |s, out| out.value(s.app.query_log.dropped() as f64),
    ),
    metric(
        "larum_query_cache_queries_total",
        Counter,
        "Range queries, by what the cache of results had of them: every step (`hit`), some (`partial`), none \
         (`miss`); or it was not asked (`bypass`), as with nocache=1, or steps cannot be kept.",
        |s, out| {
            if let Some(cache) = &s.result_cache {
                out.with(&[("result", "hit")], cache.hits as f64);
                out.with(&[("result", "partial")], cache.partial_hits as f64);
                out.with(&[("result", "miss")], cache.misses as f64);
                out.with(&[("result", "bypass")], cache.bypassed as f64);
            }
        },
    ),
    metric(
        "larum_query_cache_steps_total",
        Counter,
        "Steps of range queries that asked the cache of results, by where they are from: the hit rate is the \
         share of `cache`.",
        |s, out| {
            if let Some(cache) = &s.result_cache {
                out.with(&[("from", "cache")], cache.steps_reused as f64);
                out.with(&[("from", "evaluation")], cache.steps_evaluated as f64);
            }
        },
    ),
    results!("larum_query_cache_evicted_total", Counter, "Runs of steps given up for want of room.", |c| c
        .evicted),
    results!("larum_query_cache_runs", Gauge, "Runs of steps that are kept.", |c| c.runs),
    results!("larum_query_cache_bytes", Gauge, "What they take.", |c| c.bytes),
    // HTTP.
    metric("prometheus_http_requests_total", Counter, "Requests, by route and status code.", |s, out| {
        for (handler, route) in &s.routes {
            for (code, count) in &route.codes {
                out.with(&[("handler", handler), ("code", &code.to_string())], *count as f64);
            }
        }
    }),
    metric(
        "prometheus_http_request_duration_seconds",
        Histogram,
        "Time until a request is answered, by route.",
        |s, out| {
            for (handler, route) in &s.routes {
                let labels = [("handler", handler.as_str())];
                out.histogram(&labels, &DURATION_BOUNDS, &route.durations, route.seconds, route.count());
            }
        },
    ),
    metric("prometheus_http_response_size_bytes", Summary, "Sizes of answers, by route.", |s, out| {
        for (handler, route) in &s.routes {
            out.suffixed("_sum", &[("handler", handler)], route.bytes as f64);
            out.suffixed("_count", &[("handler", handler)], route.count() as f64);
        }
    }),
    metric("larum_http_connections", Gauge, "Open connections.", |s, out| {
        out.value(s.app.connections.open() as f64);
    }),
    metric(
        "larum_http_slow_clients_total",
        Counter,
        "Connections closed because their clients did not read their answers (--web.write-timeout).",
        |s, out| out.value(s.app.connections.given_up() as f64),
    ),
    // Rules.
    group!("prometheus_rule_evaluations_total", Counter, "Rules evaluated.", |g| g.evaluations as f64),
    group!("prometheus_rule_evaluation_failures_total", Counter, "Rules whose evaluation failed.", |g| g
        .failures
        as f64),
    group!(
        "larum_rule_template_failures_total",
        Counter,
        "Labels and annotations of alerts that could not be expanded; the error is in their text.",
        |g| g.template_failures as f64
    ),
    metric("prometheus_rule_evaluation_duration_seconds", Summary, "Evaluations of rules.", |s, out| {
        if let Some([rules, _]) = &s.durations {
            summary(out, rules, &["0.5", "0.9", "0.99"]);
        }
    }),
    metric(
        "prometheus_rule_evaluation_duration_histogram_seconds",
        Histogram,
        "Evaluations of rules.",
        |s, out| {
            if let Some([rules, _]) = &s.durations {
                out.histogram(&[], &BOUNDS_SECONDS, &rules.buckets, rules.seconds, rules.count);
            }
        },
    ),
    metric("prometheus_rule_group_duration_seconds", Summary, "Evaluations of rule groups.", |s, out| {
        if let Some([_, groups]) = &s.durations {
            summary(out, groups, &["0.01", "0.05", "0.5", "0.9", "0.99"]);
        }
    }),
    metric(
        "prometheus_rule_group_duration_histogram_seconds",
        Histogram,
        "Evaluations of rule groups.",
        |s, out| {
            if let Some([_, groups]) = &s.durations {
                out.histogram(&[], &BOUNDS_SECONDS, &groups.buckets, groups.seconds, groups.count);
            }
        },
    ),
    group!(
        "prometheus_rule_group_iterations_total",
        Counter,
        "Slots of the group that came, missed ones included.",
        |g| g.iterations as f64
    ),
    group!(
        "prometheus_rule_group_iterations_missed_total",
        Counter,
        "Slots that passed without an evaluation.",
        |g| g.missed as f64
    ),
    metric("prometheus_rule_group_interval_seconds", Gauge, "How often the group is evaluated.", |s, out| {
        for group in &s.groups {
            let name = format!("{};{}", group.file, group.name);
            out.with(&[("rule_group", &name)], group.interval.as_secs_f64());
        }
    }),
    metric("prometheus_rule_group_rules", Gauge, "Rules of the group.", |s, out| {
        for group in &s.groups {
            let name = format!("{};{}", group.file, group.name);
            out.with(&[("rule_group", &name)], group.rules.len() as f64);
        }
    }),
    metric("larum_rule_overlaps", Gauge, "Pairs of rules that yield the same series.", |s, out| {
        out.value(s.app.rules().map_or(0, |rules| rules.overlap_count()) as f64);
    }),
    metric(
        "larum_rule_clock_jumps_total",
        Counter,
        "How often the clock jumped, by half a minute or more.",
        |s, out| {
            out.value(s.app.rules().map_or(0, |rules| rules.clock_jumps()) as f64);
        },
    ),
    metric(
        "larum_self_monitoring_held_samples",
        Gauge,
        "Own samples that could not be stored yet, which rules see all the same.",
        |s, out| out.value(s.app.unstored.len() as f64),
    ),
    metric(
        "larum_rule_circles",
        Gauge,
        "Rules of different groups that wait for each other in a circle.",
        |s, out| {
            let circles = s.app.rules().map(|rules| rules.circles()).unwrap_or_default();
            out.value(circles.len() as f64);
        },
    ),
    group!("prometheus_rule_group_last_duration_seconds", Gauge, "How long the last evaluation took.", |g| g
        .last_seconds),
    group!(
        "prometheus_rule_group_last_rule_duration_sum_seconds",
        Gauge,
        "How long the rules of the last evaluation took.",
        |g| g.last_rule_seconds
    ),
    group!(
        "prometheus_rule_group_last_evaluation_timestamp_seconds",
        Gauge,
        "When the last evaluation began.",
        |g| { g.last_evaluation.map_or(0.0, seconds) }
    ),
    group!(
        "prometheus_rule_group_last_evaluation_samples",
        Gauge,
        "Samples that the last evaluation yielded.",
        |g| g.last_samples as f64
    ),
    group!(
        "prometheus_rule_group_last_restore_duration_seconds",
        Gauge,
        "How long it took to take up the state left before.",
        |g| g.restore_seconds
    ),
    group!(
        "larum_rule_group_state_failures_total",
        Counter,
        "Evaluations after which the state of the group's alerts was kept in memory only.",
        |g| g.state_failures as f64
    ),
    // Notifications.
    alertmanager!("prometheus_notifications_sent_total", Counter, "Alerts that were taken.", |t| t.sent
        as f64),
    alertmanager!("prometheus_notifications_errors_total", Counter, "Alerts in requests that failed.", |t| t
        .errors
        as f64),
    alertmanager!("prometheus_notifications_dropped_total", Counter, "Alerts given up.", |t| t.dropped
        as f64),
    metric("prometheus_notifications_latency_seconds", Summary, "Requests that succeeded.", |s, out| {
        for target in &s.notifier.targets {
            out.suffixed("_sum", &[("alertmanager", &target.url)], target.latency_seconds);
            out.suffixed("_count", &[("alertmanager", &target.url)], target.requests as f64);
        }
    }),
    metric(
        "prometheus_notifications_latency_histogram_seconds",
        Histogram,
        "Requests that succeeded, by their time.",
        |s, out| {
            for target in &s.notifier.targets {
                let labels = [("alertmanager", target.url.as_str())];
                let (sum, count) = (target.latency_seconds, target.requests);
                out.histogram(&labels, &LATENCY_BOUNDS, &target.latencies, sum, count);
            }
        },
    ),
    alertmanager!("prometheus_notifications_queue_length", Gauge, "Alerts that wait.", |t| t.queue_length
        as f64),
    metric(
        "prometheus_notifications_queue_capacity",
        Gauge,
        "Alerts that may wait for each Alertmanager.",
        |s, out| {
            out.value(s.notifier.queue_capacity as f64);
        },
    ),
    metric(
        "prometheus_notifications_alertmanagers_discovered",
        Gauge,
        "Alertmanagers that are told of alerts.",
        |s, out| {
            out.value(s.alertmanagers.active.len() as f64);
        },
    ),
    // Discovery.
    metric(
        "prometheus_sd_file_read_errors_total",
        Counter,
        "Files with targets that could not be read.",
        |s, out| {
            out.value(s.alertmanagers.file_read_errors as f64);
        },
    ),
    metric("prometheus_sd_file_mtime_seconds", Gauge, "When a file with targets was changed.", |s, out| {
        for (file, seconds) in &s.alertmanagers.files {
            out.with(&[("filename", file)], *seconds);
        }
    }),
    // Writes.
    metric("larum_write_samples_total", Counter, "Samples kept from remote write.", |s, out| {
        out.value(load(&s.app.writes.counts.samples));
    }),
    metric("larum_write_refused_samples_total", Counter, "Samples refused for good, by reason.", |s, out| {
        for (reason, count) in REASONS.iter().zip(&s.app.writes.counts.refused) {
            out.with(&[("reason", reason)], load(count));
        }
    }),
    metric(
        "prometheus_api_remote_write_invalid_labels_samples_total",
        Counter,
        "Samples refused because of their labels.",
        |s, out| {
            out.value(s.app.writes.counts.refused[..2].iter().map(load).sum());
        },
    ),
    metric("larum_write_unavailable_total", Counter, "Writes that were told to come again.", |s, out| {
        out.value(load(&s.app.writes.counts.unavailable));
    }),
    metric("larum_write_undecodable_total", Counter, "Writes that could not be decoded.", |s, out| {
        out.value(load(&s.app.writes.counts.undecodable));
    }),
    metric(
        "larum_write_exemplars_dropped_total",
        Counter,
        "Exemplars met; they are not kept yet.",
        |s, out| {
            out.value(load(&s.app.writes.counts.exemplars));
        },
    ),
    metric(
        "prometheus_target_metadata_cache_entries",
        Gauge,
        "Metrics whose type and help are known.",
        |s, out| {
            out.with(&[("scrape_job", "")], s.app.metadata.len() as f64);
        },
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_counters_say_so() {
        let mut seen = HashSet::new();
        for Metric { name, kind, help, .. } in METRICS {
            assert!(seen.insert(name), "{name} twice");
            assert_eq!(*kind == Counter, name.ends_with("_total"), "{name}");
            assert!(help.ends_with('.') && !help.contains('\n'), "{name}");
        }
    }

    #[test]
    fn rules_have_all_the_metrics_of_prometheus() {
        let names = [
            "evaluations_total",
            "evaluation_failures_total",
            "evaluation_duration_seconds",
            "evaluation_duration_histogram_seconds",
            "group_duration_seconds",
            "group_duration_histogram_seconds",
            "group_interval_seconds",
            "group_iterations_total",
            "group_iterations_missed_total",
            "group_last_duration_seconds",
            "group_last_evaluation_timestamp_seconds",
            "group_last_evaluation_samples",
            "group_last_rule_duration_sum_seconds",
            "group_last_restore_duration_seconds",
            "group_rules",
        ];
        for name in names.map(|name| format!("prometheus_rule_{name}")) {
            assert!(METRICS.iter().any(|metric| metric.name == name), "{name}");
        }
    }
}
