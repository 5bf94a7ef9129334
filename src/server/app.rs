//! What all requests share.

use super::args::Args;
use super::config::{Config, RetentionConfig};
use super::deliver::Delivery;
use super::http::listen::Connections;
use super::http::origin::OriginRules;
use super::memory;
use super::metadata::MetadataStore;
use super::metrics::http::HttpMetrics;
use super::pool::QueryPool;
use super::query_log::QueryLog;
use super::write::Writes;
use crate::Db;
use crate::budget::MemoryBudget;
use crate::ingest::remote_write::BodyLimits;
use crate::notify::NotifierOptions;
use crate::promql::running::Queries;
use crate::promql::{EvalOptions, Threads};
use crate::rules::RuleManager;
use crate::rules::unstored::Unstored;
use crate::storage::{CleanupSchedule, SizeLimit, Timestamp};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;

/// How long samples are kept where nothing says so.
const DEFAULT_RETENTION: Duration = Duration::from_secs(15 * 86_400);
/// How long alerts that wait may still be sent when the server stops.
const ALERTS_END: Duration = Duration::from_secs(10);

/// The server's state. One per process, behind an `Arc`.
pub struct App {
    /// The command line.
    pub args: Args,
    /// The prefix of all paths, see [`Args::prefix`].
    pub prefix: String,
    /// Where users reach this server.
    pub external_url: String,
    /// What its own metrics have as `instance`.
    pub instance: String,
    /// Own metrics that could not be stored yet.
    pub unstored: Arc<Unstored>,
    /// When the process started.
    pub started: Timestamp,
    /// Who may ask.
    pub origin: OriginRules,
    /// The open connections.
    pub connections: Connections,
    /// How much memory there is, and who takes it.
    pub memory: MemoryBudget,
    /// The threads for queries.
    pub pool: QueryPool,
    /// What threads may help queries and rules that have much to read: one a core.
    helpers: Arc<Threads>,
    /// What writes share.
    pub writes: Writes,
    /// Descriptions of metrics.
    pub metadata: MetadataStore,
    /// Counters of requests.
    pub http: HttpMetrics,
    /// The queries that run, and what those cost that ran.
    pub queries: Queries,
    /// Counters of queries.
    pub query_counts: QueryCounts,
    /// Where queries are logged.
    pub query_log: QueryLog,
    /// Who tells Alertmanagers of alerts.
    pub delivery: Delivery,
    opened: OnceLock<(Db, RuleManager)>,
    config: RwLock<Loaded>,
    phase: watch::Sender<Phase>,
}

/// Counters of queries; they only grow.
#[derive(Default)]
pub struct QueryCounts {
    /// Queries evaluated.
    pub count: AtomicU64,
    /// Time spent evaluating, in microseconds.
    pub evaluation_micros: AtomicU64,
    /// Time spent writing answers, in microseconds.
    pub answer_micros: AtomicU64,
    /// Samples read.
    pub samples: AtomicU64,
}

impl QueryCounts {
    /// Counts one query.
    pub fn add(&self, evaluation: Duration, answer: Duration, samples: u64) {
        let micros = |d: Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.evaluation_micros.fetch_add(micros(evaluation), Ordering::Relaxed);
        self.answer_micros.fetch_add(micros(answer), Ordering::Relaxed);
        self.samples.fetch_add(samples, Ordering::Relaxed);
    }
}

/// The configuration in force, and how loading it went.
#[derive(Clone)]
pub struct Loaded {
    /// The configuration in force.
    pub config: Arc<Config>,
    /// Whether the last attempt to load one went well.
    pub successful: bool,
    /// When one was last loaded well.
    pub at: Timestamp,
}

/// Where the process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The data is being opened.
    Starting,
    /// Requests are served.
    Ready,
    /// Requests in flight are finished.
    Stopping,
}

impl App {
    /// The state of a server that listens at `addresses`. What it sends is sent on `runtime`.
    pub fn new(args: Args, addresses: &[SocketAddr], config: Config, runtime: Handle) -> App {
        let now = Timestamp::now();
        let limits =
            BodyLimits { compressed_bytes: args.max_body_bytes, decoded_bytes: args.max_decoded_bytes };
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        // More threads than this only make the queries wait for each other's memory.
        let threads = (args.query_max_concurrency as usize).min((2 * cores).max(4));
        let prefix = args.prefix();
        let instance = format!("{}:{}", host_name(), addresses.first().map_or(9090, SocketAddr::port));
        let external_url = args.external_url.clone().unwrap_or_else(|| format!("http://{instance}{prefix}"));
        let memory = memory::budget(args.memory_limit);
        let notifier_options = NotifierOptions {
            queue_capacity: args.notification_queue_capacity as usize,
            batch_size: args.notification_batch_size as usize,
            drain: if args.drain_notification_queue { ALERTS_END } else { Duration::ZERO },
            external_url: external_url.clone(),
        };
        App {
            delivery: Delivery::new(notifier_options, runtime),
            origin: OriginRules::new(addresses, args.external_url.as_deref(), args.cors_origin.as_deref()),
            connections: Connections::new(args.max_connections, args.read_timeout, args.write_timeout),
            pool: QueryPool::new(threads),
            helpers: Arc::new(Threads::new(cores)),
            writes: Writes::new(limits, args.max_inflight_bytes, memory.clone()),
            memory,
            metadata: MetadataStore::default(),
            http: HttpMetrics::default(),
            queries: Queries::default(),
            query_counts: QueryCounts::default(),
            query_log: QueryLog::default(),
            opened: OnceLock::new(),
            config: RwLock::new(Loaded { config: Arc::new(config), successful: true, at: now }),
            phase: watch::Sender::new(Phase::Starting),
            started: now,
            instance,
            unstored: Arc::default(),
            external_url,
            prefix,
            args,
        }
    }

    /// The database, once it is open.
    pub fn db(&self) -> Option<&Db> {
        self.opened.get().map(|(db, _)| db)
    }

    /// The rules, once the database is open.
    pub fn rules(&self) -> Option<&RuleManager> {
        self.opened.get().map(|(_, rules)| rules)
    }

    /// Gives the requests their database and rules.
    pub fn open(&self, db: Db, rules: RuleManager) {
        self.metadata.open(&db);
        let _ = self.opened.set((db, rules));
        self.phase.send_if_modified(|phase| {
            let starting = *phase == Phase::Starting;
            *phase = (*phase).max(Phase::Ready);
            starting
        });
    }

    /// Where the process is in its life.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Whether no new work is taken on.
    pub fn is_stopping(&self) -> bool {
        self.phase() == Phase::Stopping
    }

    /// Begins to stop.
    pub fn stop(&self) {
        self.phase.send_replace(Phase::Stopping);
    }

    /// Tells of changes of the phase.
    pub fn watch_phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// How long samples are kept; `None` is for ever.
    pub fn retention(&self) -> Option<Duration> {
        retention(&self.config().config, &self.args).0
    }

    /// How much the data folder may take.
    pub fn size_limit(&self) -> SizeLimit {
        retention(&self.config().config, &self.args).1
    }

    /// When what has expired is removed; `None` is at once.
    pub fn cleanup_schedule(&self) -> Option<CleanupSchedule> {
        let by_config = self.config().config.cleanup_schedule.clone();
        by_config.or_else(|| self.args.cleanup_schedule.clone())
    }

    /// How queries are evaluated, as the command line says.
    pub fn eval_options(&self) -> EvalOptions {
        EvalOptions {
            lookback_delta: self.args.lookback_delta,
            max_samples: self.args.query_max_samples,
            threads: Some(self.helpers.clone()),
            default_subquery_step: self.config().config.evaluation_interval,
            delayed_name_removal: self.args.has_feature("promql-delayed-name-removal"),
            use_start_timestamps: self.args.has_feature("use-start-timestamps"),
            type_and_unit_labels: self.args.has_feature("type-and-unit-labels"),
            ..EvalOptions::default()
        }
    }

    /// The configuration in force.
    pub fn config(&self) -> Loaded {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts a configuration in force.
    pub fn set_config(&self, config: Config) {
        let loaded = Loaded { config: Arc::new(config), successful: true, at: Timestamp::now() };
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = loaded;
    }

    /// Notes that a new configuration could not be loaded; the old one stays in force.
    pub fn config_failed(&self) {
        self.config.write().unwrap_or_else(PoisonError::into_inner).successful = false;
    }
}

/// How long samples are kept and how much they may take, by the configuration and else by the flags.
pub fn retention(config: &Config, args: &Args) -> (Option<Duration>, SizeLimit) {
    let RetentionConfig { time, size, percentage } = config.retention;
    let limit = SizeLimit {
        bytes: Some(size.unwrap_or(args.retention_size)).filter(|&bytes| bytes > 0),
        percentage: Some(percentage.unwrap_or(args.retention_percentage)).filter(|&p| p > 0.0),
    };
    // As Prometheus: who limits the size alone means the size alone.
    let default = if limit == SizeLimit::default() { DEFAULT_RETENTION } else { Duration::ZERO };
    let time = time.or(args.retention_time).unwrap_or(default);
    (Some(time).filter(|time| !time.is_zero()), limit)
}

/// The name of this machine.
pub fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_limits_the_size_alone_means_the_size_alone() {
        let day = Duration::from_secs(86_400);
        let limit = |bytes, percentage| SizeLimit { bytes, percentage };
        let config = |time, size, percentage| RetentionConfig { time, size, percentage };
        for (words, retained, expected) in [
            ("", config(None, None, None), (Some(15 * day), limit(None, None))),
            ("--storage.tsdb.retention.time=0", config(None, None, None), (None, limit(None, None))),
            ("--storage.tsdb.retention.size=1KB", config(None, None, None), (None, limit(Some(1024), None))),
            (
                "--storage.tsdb.retention.size=1KB",
                config(None, Some(0), None),
                (Some(15 * day), limit(None, None)),
            ),
            (
                "--storage.tsdb.retention.time=2d",
                config(None, Some(5), Some(8.5)),
                (Some(2 * day), limit(Some(5), Some(8.5))),
            ),
            (
                "--storage.tsdb.retention.time=2d",
                config(Some(day), None, Some(8.5)),
                (Some(day), limit(None, Some(8.5))),
            ),
        ] {
            let args = Args::read(["larum"].into_iter().chain(words.split_whitespace())).unwrap();
            let config = Config { retention: retained, ..Config::default() };
            assert_eq!(retention(&config, &args), expected, "{words} {retained:?}");
        }
    }
}
