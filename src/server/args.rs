//! The command line: Prometheus' flags, each also as an environment variable.
//!
//! `--web.listen-address` is `LARUM_WEB_LISTEN_ADDRESS`, and so on; the flag wins. Nothing is
//! opened or checked against the system here.

use super::rule_format::RuleFormat;
use super::rule_tests::RuleTests;
use super::size::parse_bytes;
use crate::promql::Syntax;
use crate::promql::duration::parse_duration;
use crate::storage::CleanupSchedule;
use crate::storage::options::{MinFree, WalFsync};
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

/// A Prometheus-compatible time-series database with an alerting engine.
#[derive(Debug, Clone, Parser)]
#[command(name = "larum", version = VERSION, args_conflicts_with_subcommands = true, max_term_width = 100)]
pub struct Args {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Configuration file, in Prometheus' format. Without one, no rule is evaluated.
    #[arg(long = "config.file", env = "LARUM_CONFIG_FILE", value_name = "FILE")]
    pub config_file: Option<PathBuf>,

    /// Folder of the data.
    #[arg(
        long = "storage.tsdb.path",
        env = "LARUM_STORAGE_TSDB_PATH",
        value_name = "FOLDER",
        default_value = "data"
    )]
    pub storage_path: PathBuf,

    /// How long samples are kept; 0 keeps them for ever. By default 15d, or for ever where their size
    /// is limited.
    #[arg(long = "storage.tsdb.retention.time", env = "LARUM_STORAGE_TSDB_RETENTION_TIME", value_name = "DURATION", value_parser = duration)]
    pub retention_time: Option<Duration>,

    /// How much the data folder may take, all files in it counted, such as 512MB or 10GB (units of
    /// 1024); beyond, its oldest partitions are dropped. 0 is no limit.
    #[arg(long = "storage.tsdb.retention.size", env = "LARUM_STORAGE_TSDB_RETENTION_SIZE", value_name = "SIZE", default_value = "0", value_parser = parse_bytes)]
    pub retention_size: u64,

    /// The same in percent of what the file system can hold; it prevails over the size. 0 is no limit.
    #[arg(long = "storage.tsdb.retention.percentage", env = "LARUM_STORAGE_TSDB_RETENTION_PERCENTAGE", value_name = "PERCENT", default_value = "0", value_parser = percentage)]
    pub retention_percentage: f64,

    /// When what has expired is removed from the disk, in the five fields of cron, such as `0 2 * * *`;
    /// in UTC, or after `CRON_TZ=Europe/Berlin`. By default as soon as it is worth it. Nobody reads what
    /// has expired, whatever is said here, and limits on size do not wait.
    #[arg(long = "storage.cleanup-schedule", env = "LARUM_STORAGE_CLEANUP_SCHEDULE", value_name = "CRON", value_parser = CleanupSchedule::new)]
    pub cleanup_schedule: Option<CleanupSchedule>,

    /// How much of the disk shall stay free, such as 2GB or 5%; with less, space is low. By default 5%,
    /// but no more than 1GB. Samples are refused only when the WAL could no longer be cut.
    #[arg(long = "storage.disk.min-free", env = "LARUM_STORAGE_DISK_MIN_FREE", value_name = "SIZE", value_parser = min_free)]
    pub disk_min_free: Option<MinFree>,

    /// Where space is low, drop the oldest partitions before their time, but keep at least so much time,
    /// such as 3d. By default nothing is dropped for want of space.
    #[arg(long = "storage.disk.emergency-retention", env = "LARUM_STORAGE_DISK_EMERGENCY_RETENTION", value_name = "DURATION", value_parser = positive_duration)]
    pub disk_emergency_retention: Option<Duration>,

    /// When acknowledged samples are synced to the device: `always` before the answer, `never`, or at
    /// an interval such as `1s`. In every case they survive the end of the process.
    #[arg(long = "storage.wal.fsync", env = "LARUM_STORAGE_WAL_FSYNC", value_name = "WHEN", default_value = "1s", value_parser = wal_fsync)]
    pub wal_fsync: WalFsync,

    /// About how much memory a merge of partitions may take, in bytes; the rest goes to temporary files.
    #[arg(long = "storage.merge.memory-bytes", env = "LARUM_STORAGE_MERGE_MEMORY_BYTES", default_value = "67108864", value_parser = inflight_bytes)]
    pub merge_memory_bytes: usize,

    /// How much memory the process may take: a size such as 1GiB, or a percentage of what its control
    /// group or the machine has. Mapped files do not count. 0 is no limit.
    #[arg(long = "memory.limit", env = "LARUM_MEMORY_LIMIT", value_name = "SIZE|PERCENT", default_value = "75%", value_parser = memory_limit)]
    pub memory_limit: MemoryLimit,

    /// In which time everything that is stored is read once, to find damage: at 32 MiB a second at most,
    /// and between other work. 0 is never.
    #[arg(long = "storage.scrub.interval", env = "LARUM_STORAGE_SCRUB_INTERVAL", value_name = "DURATION", default_value = "1d", value_parser = duration)]
    pub scrub_interval: Duration,

    /// Accepted and ignored: the folder is always locked.
    #[arg(long = "storage.tsdb.no-lockfile", env = "LARUM_STORAGE_TSDB_NO_LOCKFILE", hide = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub no_lockfile: bool,

    /// Accepted and ignored: the WAL is always compressed.
    #[arg(long = "storage.tsdb.wal-compression", env = "LARUM_STORAGE_TSDB_WAL_COMPRESSION", hide = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true")]
    pub wal_compression: bool,

    /// Address to listen on; may be repeated.
    #[arg(
        long = "web.listen-address",
        env = "LARUM_WEB_LISTEN_ADDRESS",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:9090",
        value_delimiter = ','
    )]
    pub listen_address: Vec<String>,

    /// URL under which users and Alertmanager reach this server.
    #[arg(long = "web.external-url", env = "LARUM_WEB_EXTERNAL_URL", value_name = "URL")]
    pub external_url: Option<String>,

    /// Prefix of all paths; by default the path of --web.external-url.
    #[arg(long = "web.route-prefix", env = "LARUM_WEB_ROUTE_PREFIX", value_name = "PATH")]
    pub route_prefix: Option<String>,

    /// Allow POST /-/reload and /-/quit.
    #[arg(long = "web.enable-lifecycle", env = "LARUM_WEB_ENABLE_LIFECYCLE", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub enable_lifecycle: bool,

    /// Allow deletion, snapshots and other administration under /api/v1/admin.
    #[arg(long = "web.enable-admin-api", env = "LARUM_WEB_ENABLE_ADMIN_API", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub enable_admin_api: bool,

    /// Accepted: remote write is always received.
    #[arg(long = "web.enable-remote-write-receiver", env = "LARUM_WEB_ENABLE_REMOTE_WRITE_RECEIVER", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true")]
    pub enable_remote_write_receiver: bool,

    /// Accepted and ignored: there are no console templates.
    #[arg(
        long = "web.console.libraries",
        env = "LARUM_WEB_CONSOLE_LIBRARIES",
        hide = true,
        default_value = "console_libraries"
    )]
    pub console_libraries: String,

    /// Accepted and ignored: there are no console templates.
    #[arg(
        long = "web.console.templates",
        env = "LARUM_WEB_CONSOLE_TEMPLATES",
        hide = true,
        default_value = "consoles"
    )]
    pub console_templates: String,

    /// Origin that may read answers from another site: `*`, or one origin such as
    /// `https://grafana.example`. By default none may.
    #[arg(long = "web.cors.origin", env = "LARUM_WEB_CORS_ORIGIN", value_name = "ORIGIN")]
    pub cors_origin: Option<String>,

    /// Most connections open at a time.
    #[arg(long = "web.max-connections", env = "LARUM_WEB_MAX_CONNECTIONS", default_value = "512", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_connections: u32,

    /// How long a request may take to arrive, and a connection may stay idle.
    #[arg(long = "web.read-timeout", env = "LARUM_WEB_READ_TIMEOUT", value_name = "DURATION", default_value = "5m", value_parser = positive_duration)]
    pub read_timeout: Duration,

    /// How long is waited for a client that takes nothing of its answer, or less than 32 KiB a second.
    #[arg(long = "web.write-timeout", env = "LARUM_WEB_WRITE_TIMEOUT", value_name = "DURATION", default_value = "30s", value_parser = positive_duration)]
    pub write_timeout: Duration,

    /// How long a sample counts as present where there is none newer.
    #[arg(long = "query.lookback-delta", env = "LARUM_QUERY_LOOKBACK_DELTA", value_name = "DURATION", default_value = "5m", value_parser = positive_duration)]
    pub lookback_delta: Duration,

    /// How long a query may take, waiting included.
    #[arg(long = "query.timeout", env = "LARUM_QUERY_TIMEOUT", value_name = "DURATION", default_value = "2m", value_parser = positive_duration)]
    pub query_timeout: Duration,

    /// Most queries evaluated at a time; further ones wait.
    #[arg(long = "query.max-concurrency", env = "LARUM_QUERY_MAX_CONCURRENCY", default_value = "20", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub query_max_concurrency: u32,

    /// How much memory may be taken to keep answers of range queries, such as 64MB: steps that cannot have
    /// changed are not evaluated again. 0 keeps none.
    #[arg(long = "query.cache-size", env = "LARUM_QUERY_CACHE_SIZE", value_name = "SIZE", default_value = "64MB", value_parser = parse_bytes)]
    pub query_cache_bytes: u64,

    /// Most samples that one query may hold in memory.
    #[arg(long = "query.max-samples", env = "LARUM_QUERY_MAX_SAMPLES", default_value = "50000000")]
    pub query_max_samples: u64,

    /// Refuse what stock Prometheus refuses without --enable-feature: experimental functions, `fill`,
    /// `anchored` and `smoothed`, in queries and rules.
    #[arg(long = "query.strict-prometheus", env = "LARUM_QUERY_STRICT_PROMETHEUS", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub strict_prometheus: bool,

    /// Longest outage after which pending alerts go on where they were.
    #[arg(long = "rules.alert.for-outage-tolerance", env = "LARUM_RULES_ALERT_FOR_OUTAGE_TOLERANCE", value_name = "DURATION", default_value = "1h", value_parser = duration)]
    pub for_outage_tolerance: Duration,

    /// Least time until an alert fires whose state was lost and was taken up from its samples.
    #[arg(long = "rules.alert.for-grace-period", env = "LARUM_RULES_ALERT_FOR_GRACE_PERIOD", value_name = "DURATION", default_value = "10m", value_parser = duration)]
    pub for_grace_period: Duration,

    /// Longest wait at a start for fresh samples, before rules are evaluated for the time since the stop
    /// (an hour at most) and go on. Until then alerts stay as they are.
    #[arg(long = "rules.start-grace", env = "LARUM_RULES_START_GRACE", value_name = "DURATION", default_value = "5m", value_parser = duration)]
    pub start_grace: Duration,

    /// Store the server's own metrics, as often as rules are evaluated but at least every 15s, and evaluate
    /// the alerts about them that come along (rules/larum.yaml). Those of the same name in a rule file take
    /// their place.
    #[arg(long = "rules.self-monitoring", env = "LARUM_RULES_SELF_MONITORING", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true")]
    pub self_monitoring: bool,

    /// How long to wait before a firing alert is sent again.
    #[arg(long = "rules.alert.resend-delay", env = "LARUM_RULES_ALERT_RESEND_DELAY", value_name = "DURATION", default_value = "1m", value_parser = duration)]
    pub resend_delay: Duration,

    /// Most rules evaluated at a time. Those that read what others yield wait for these.
    #[arg(
        long = "rules.max-concurrent-evals",
        env = "LARUM_RULES_MAX_CONCURRENT_EVALS",
        default_value = "4"
    )]
    pub max_concurrent_evals: u32,

    /// Most alerts that wait for each Alertmanager; beyond, the oldest are dropped.
    #[arg(long = "alertmanager.notification-queue-capacity", env = "LARUM_ALERTMANAGER_NOTIFICATION_QUEUE_CAPACITY", default_value = "10000", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub notification_queue_capacity: u32,

    /// Most alerts in one request to an Alertmanager.
    #[arg(long = "alertmanager.notification-batch-size", env = "LARUM_ALERTMANAGER_NOTIFICATION_BATCH_SIZE", default_value = "256", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub notification_batch_size: u32,

    /// Whether waiting alerts are still sent when stopping.
    #[arg(long = "alertmanager.drain-notification-queue-on-shutdown", env = "LARUM_ALERTMANAGER_DRAIN_NOTIFICATION_QUEUE_ON_SHUTDOWN", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true")]
    pub drain_notification_queue: bool,

    /// Most labels of a series, its name included.
    #[arg(long = "ingest.max-labels", env = "LARUM_INGEST_MAX_LABELS", default_value = "128")]
    pub max_labels: usize,

    /// Longest name of a label, in bytes.
    #[arg(
        long = "ingest.max-label-name-bytes",
        env = "LARUM_INGEST_MAX_LABEL_NAME_BYTES",
        default_value = "1024"
    )]
    pub max_label_name_bytes: usize,

    /// Longest value of a label, in bytes.
    #[arg(
        long = "ingest.max-label-value-bytes",
        env = "LARUM_INGEST_MAX_LABEL_VALUE_BYTES",
        default_value = "16384"
    )]
    pub max_label_value_bytes: usize,

    /// Longest label set of a series, in bytes of names and values.
    #[arg(long = "ingest.max-series-bytes", env = "LARUM_INGEST_MAX_SERIES_BYTES", default_value = "65536")]
    pub max_series_bytes: usize,

    /// Longest body of a write as sent, in bytes.
    #[arg(long = "ingest.max-body-bytes", env = "LARUM_INGEST_MAX_BODY_BYTES", default_value = "33554432", value_parser = body_bytes)]
    pub max_body_bytes: usize,

    /// Longest body of a write after decompression, in bytes.
    #[arg(long = "ingest.max-decoded-bytes", env = "LARUM_INGEST_MAX_DECODED_BYTES", default_value = "134217728", value_parser = body_bytes)]
    pub max_decoded_bytes: usize,

    /// Most bytes of writes in memory at a time; further ones wait, then get 503.
    #[arg(long = "ingest.max-inflight-bytes", env = "LARUM_INGEST_MAX_INFLIGHT_BYTES", default_value = "536870912", value_parser = inflight_bytes)]
    pub max_inflight_bytes: usize,

    /// How far ahead of now a sample may lie.
    #[arg(long = "ingest.max-ahead", env = "LARUM_INGEST_MAX_AHEAD", value_name = "DURATION", default_value = "10m", value_parser = duration)]
    pub max_ahead: Duration,

    /// Features to switch on, separated by commas: promql-delayed-name-removal,
    /// type-and-unit-labels, use-start-timestamps; with --query.strict-prometheus also
    /// promql-experimental-functions, promql-binop-fill-modifiers, promql-extended-range-selectors, which
    /// are on without. Others are accepted with a warning.
    #[arg(
        long = "enable-feature",
        env = "LARUM_ENABLE_FEATURE",
        value_name = "NAMES",
        value_delimiter = ','
    )]
    pub enable_feature: Vec<String>,

    /// Least important messages to log.
    #[arg(long = "log.level", env = "LARUM_LOG_LEVEL", default_value = "info", ignore_case = true)]
    pub log_level: LogLevel,

    /// Form of log lines.
    #[arg(long = "log.format", env = "LARUM_LOG_FORMAT", default_value = "logfmt")]
    pub log_format: LogFormat,

    /// Name and value of every flag, as `/api/v1/status/flags` shows them.
    #[arg(skip)]
    pub shown: Vec<(String, String)>,
}

/// What `larum` does instead of serving.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Check files and say what is wrong with them.
    #[command(subcommand)]
    Check(Check),
    /// Run tests.
    #[command(subcommand)]
    Test(Test),
    /// Work on rule files.
    #[command(subcommand)]
    Rules(RuleTools),
    /// Look into a data folder, verify it, repair it, bring in what others stored.
    #[command(subcommand)]
    Tsdb(Tsdb),
    /// Take a backup. What an earlier one holds already is not copied again; everything is read again and
    /// compared. A run that was killed is gone on with.
    Backup(Backup),
    /// Make a data folder of a backup, into an empty folder. Everything is verified before it can be
    /// opened.
    Restore {
        /// The folder of backups.
        #[arg(long, value_name = "FOLDER")]
        from: PathBuf,
        /// Which backup, by its name; or the newest of this time or older: Unix seconds or RFC 3339. By
        /// default the newest.
        #[arg(long, value_name = "NAME|TIME")]
        at: Option<String>,
        /// The new data folder.
        #[arg(long = "storage.tsdb.path", env = "LARUM_STORAGE_TSDB_PATH", value_name = "FOLDER")]
        path: PathBuf,
    },
}

/// What is to be tested.
#[derive(Debug, Clone, Subcommand)]
pub enum Test {
    /// Run scripts in the language of Prometheus' own PromQL tests (promqltest). Exits with 1 if an
    /// answer is not the expected one, or a script cannot be read.
    Promql {
        /// Scripts, and folders, of which every `*.test` file in them and below is run.
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
    /// Run unit tests of rules in the format of `promtool test rules`. Exits with 1 if one fails.
    Rules(RuleTests),
}

/// What is to be done with rule files.
#[derive(Debug, Clone, Subcommand)]
pub enum RuleTools {
    /// Print rule files in their canonical form: `groups` with Prometheus' keys in one order, indented alike,
    /// also from a bare list of rules, `alerts` with `condition`, or a `severity` beside the labels. What is
    /// doubtful is told with its place. All comments are kept, each in a line of its own above what it stood
    /// above or behind. Anchors are written out, blank lines are set anew.
    Format(RuleFormat),
}

/// A backup to be taken, or what is to be done with those that are there.
#[derive(Debug, Clone, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Backup {
    /// Something else than taking a backup.
    #[command(subcommand)]
    pub tool: Option<BackupTool>,
    /// The folder of backups; it is created if there is none. On another disk than the data.
    #[arg(long, value_name = "FOLDER", required = true)]
    pub to: Option<PathBuf>,
    /// Server that has the data folder open, such as http://127.0.0.1:9090, with --web.enable-admin-api.
    /// Without it no server may have it open.
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Which folder; that of the server, as it is seen from here.
    #[command(flatten)]
    pub folder: DataFolder,
    /// What to call the backup; by default after the time.
    #[arg(long)]
    pub name: Option<String>,
    /// Copy everything, also what an earlier backup holds: after one was found damaged.
    #[arg(long)]
    pub full: bool,
    /// Which older backups to keep afterwards. By default all.
    #[command(flatten)]
    pub keep: KeepBackups,
}

/// Which backups are kept: those that any of the two asks for, and the newest.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct KeepBackups {
    /// Keep so many of the newest.
    #[arg(long, value_name = "COUNT")]
    pub keep: Option<usize>,
    /// Keep those that are not older, such as 30d.
    #[arg(long = "keep-for", value_name = "DURATION", value_parser = duration)]
    pub keep_for: Option<Duration>,
}

/// What is to be done with backups.
#[derive(Debug, Clone, Subcommand)]
pub enum BackupTool {
    /// List the backups, the oldest first.
    List {
        /// The folder of backups.
        #[arg(long, value_name = "FOLDER")]
        from: PathBuf,
    },
    /// Read backups and compare them with what was written; exit with 1 if there is any fault.
    Verify {
        /// The folder of backups.
        #[arg(long, value_name = "FOLDER")]
        from: PathBuf,
        /// Which backup, by its name; or the newest of this time or older. By default all.
        #[arg(long, value_name = "NAME|TIME")]
        at: Option<String>,
    },
    /// Remove backups that need not be kept.
    Prune {
        /// The folder of backups.
        #[arg(long, value_name = "FOLDER")]
        from: PathBuf,
        /// Which to keep.
        #[command(flatten)]
        keep: KeepBackups,
    },
}

/// What is to be done with a data folder.
#[derive(Debug, Clone, Subcommand)]
pub enum Tsdb {
    /// List the partitions and the WAL. A server may have the folder open; what it still holds in
    /// memory is in the WAL.
    List {
        /// Which folder.
        #[command(flatten)]
        folder: DataFolder,
    },
    /// Name the metrics and labels that cost most. A server may have the folder open; the WAL does not
    /// count.
    Analyze {
        /// Which folder.
        #[command(flatten)]
        folder: DataFolder,
        /// Most lines of a list.
        #[arg(long, default_value = "20")]
        limit: usize,
    },
    /// Bring in what others stored, while a server runs or not. What is there already is not doubled.
    /// Exits with 1 if something was refused or damaged; everything else is imported then.
    #[command(subcommand)]
    Import(Import),
    /// Print samples, one a line. No server may have the folder open.
    Dump {
        /// Which folder.
        #[command(flatten)]
        folder: DataFolder,
        /// Series to print, such as `up{job="api"}`; may be repeated. All, if there is none.
        #[arg(long = "match", value_name = "SELECTOR")]
        matchers: Vec<String>,
        /// Nothing older: Unix seconds or RFC 3339.
        #[arg(long, value_name = "TIME")]
        start: Option<String>,
        /// Nothing newer.
        #[arg(long, value_name = "TIME")]
        end: Option<String>,
        /// Form of the lines.
        #[arg(long, default_value = "promtool")]
        format: DumpFormat,
    },
    /// Check every checksum of partitions, tombstones, MANIFEST and WAL (not the state of alerts), and
    /// say what each fault costs; exit with 1 if there is any. A server may have the folder open.
    Verify {
        /// Which folder.
        #[command(flatten)]
        folder: DataFolder,
        /// Move what is damaged to quarantine, and write the rest anew. No server may have the folder
        /// open. Exits with 0 if nothing is left to repair.
        #[arg(long)]
        repair: bool,
    },
}

/// What is to be imported.
#[derive(Debug, Clone, Subcommand)]
pub enum Import {
    /// Import OpenMetrics text, which must end with `# EOF`. Exemplars are not kept.
    Openmetrics {
        /// The files; `-` is the standard input.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// When samples were taken that have no timestamp of their own: `now`, Unix seconds or RFC 3339.
        /// Without it they are an error.
        #[arg(long, value_name = "TIME")]
        timestamp: Option<String>,
        /// Where to.
        #[command(flatten)]
        target: ImportTarget,
    },
    /// Import blocks of Prometheus: its data folder or a snapshot of it, or single blocks.
    Prometheus {
        /// The folders.
        #[arg(required = true)]
        folders: Vec<PathBuf>,
        /// Where to.
        #[command(flatten)]
        target: ImportTarget,
    },
}

/// Where imported samples go.
#[derive(Debug, Clone, clap::Args)]
pub struct ImportTarget {
    /// Server that gets the samples by remote write, such as http://127.0.0.1:9090. Without it they go
    /// to the data folder, which no server may have open then.
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// The data folder; it is created if there is none.
    #[arg(
        long = "storage.tsdb.path",
        env = "LARUM_STORAGE_TSDB_PATH",
        value_name = "FOLDER",
        default_value = "data"
    )]
    pub path: PathBuf,
    /// What is older is refused, as a server with this setting would do that has the folder open; 0
    /// imports everything.
    #[arg(long = "storage.tsdb.retention.time", env = "LARUM_STORAGE_TSDB_RETENTION_TIME", value_name = "DURATION", default_value = "15d", value_parser = duration)]
    pub retention_time: Duration,
}

/// A data folder that is there.
#[derive(Debug, Clone, clap::Args)]
pub struct DataFolder {
    /// Folder of the data.
    #[arg(
        long = "storage.tsdb.path",
        env = "LARUM_STORAGE_TSDB_PATH",
        value_name = "FOLDER",
        default_value = "data"
    )]
    pub path: PathBuf,
}

/// How much memory the process may take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MemoryLimit {
    /// So many bytes; 0 is no limit.
    Bytes(u64),
    /// A share of what there is.
    Percent(f64),
}

/// The form of dumped samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DumpFormat {
    /// `{__name__="up", job="api"} 1 1700000000000`, as `promtool tsdb dump` prints them.
    Promtool,
    /// `up{job="api"} 1 1700000000`, without native histograms and stale markers.
    Openmetrics,
}

/// What is to be checked.
#[derive(Debug, Clone, Subcommand)]
pub enum Check {
    /// Configuration files, and the rule files they name.
    Config {
        /// The files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Leave out fields of rule files that nobody knows, with a warning. A server refuses them.
        #[arg(long)]
        ignore_unknown_fields: bool,
    },
    /// Rule files.
    Rules {
        /// The files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Leave out fields that nobody knows, with a warning. A server refuses them.
        #[arg(long)]
        ignore_unknown_fields: bool,
    },
}

/// How important a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// What happens.
    Info,
    /// What may go wrong.
    Warn,
    /// What went wrong.
    Error,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// `key=value`.
    Logfmt,
    /// One JSON object a line.
    Json,
}

/// The features of Prometheus that have an effect here, or are on anyway.
pub const FEATURES: [&str; 6] = [
    "promql-binop-fill-modifiers",
    "promql-delayed-name-removal",
    "promql-experimental-functions",
    "promql-extended-range-selectors",
    "type-and-unit-labels",
    "use-start-timestamps",
];

/// The version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Args {
    /// Reads the command line and the environment. Prints a clear error and exits with code 2 where
    /// they cannot be understood.
    pub fn from_command_line() -> Args {
        Args::read(std::env::args_os()).unwrap_or_else(|error| error.exit())
    }

    /// Reads a command line, its first word being the program.
    pub fn read<I>(words: I) -> Result<Args, clap::Error>
    where
        I: IntoIterator,
        I::Item: Into<std::ffi::OsString> + Clone,
    {
        let command = Args::command();
        let flags: Vec<(String, String)> = command
            .get_arguments()
            .filter_map(|arg| Some((arg.get_id().to_string(), arg.get_long()?.to_owned())))
            .filter(|(_, long)| long != "help" && long != "version")
            .collect();
        let matches = command.try_get_matches_from(words)?;
        let mut args = Args::from_arg_matches(&matches)?;
        args.shown = flags
            .into_iter()
            .map(|(id, long)| {
                let values = matches.get_raw(&id).into_iter().flatten();
                let values: Vec<String> = values.map(|v| v.to_string_lossy().into_owned()).collect();
                (long, values.join(","))
            })
            .collect();
        args.shown.sort();
        Ok(args)
    }

    /// Those of `names` that look like environment variables of this program and are none.
    pub fn unknown_variables(names: impl IntoIterator<Item = String>) -> Vec<String> {
        let command = Args::command();
        let known: HashSet<&OsStr> = command.get_arguments().filter_map(|arg| arg.get_env()).collect();
        let ours = |name: &String| name.starts_with("LARUM_") && !known.contains(OsStr::new(name));
        let mut unknown: Vec<String> = names.into_iter().filter(ours).collect();
        unknown.sort();
        unknown
    }

    /// Whether a feature was switched on.
    pub fn has_feature(&self, name: &str) -> bool {
        self.enable_feature.iter().any(|feature| feature == name)
    }

    /// What may be used in queries.
    pub fn syntax(&self) -> Syntax {
        if self.strict_prometheus { Syntax::strict(|name| self.has_feature(name)) } else { Syntax::default() }
    }

    /// The prefix of all paths: empty, or `/prefix` without a slash at the end.
    pub fn prefix(&self) -> String {
        let external_path = || {
            let uri = self.external_url.as_deref()?.parse::<axum::http::Uri>().ok()?;
            Some(uri.path().to_owned())
        };
        let path = self.route_prefix.clone().or_else(external_path).unwrap_or_default();
        let path = path.trim_matches('/');
        if path.is_empty() { String::new() } else { format!("/{path}") }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map(|ms| Duration::from_millis(ms.unsigned_abs())).map_err(|e| e.to_string())
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    duration(text).and_then(|d| if d.is_zero() { Err("it must be longer than 0".to_owned()) } else { Ok(d) })
}

fn percentage(text: &str) -> Result<f64, String> {
    let percentage = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    check_percentage(percentage).map(|()| percentage)
}

/// Whether it is a percentage of a whole.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn check_percentage(percentage: f64) -> Result<(), String> {
    match percentage {
        0.0..=100.0 => Ok(()),
        _ => Err(format!("a percentage is from 0 to 100, not {percentage}")),
    }
}

fn min_free(text: &str) -> Result<MinFree, String> {
    match text.strip_suffix('%') {
        Some(percent) => percentage(percent).map(MinFree::Percent),
        None => parse_bytes(text).map(MinFree::Bytes),
    }
}

/// With less, there is no room for anything beside the process itself.
const MEMORY_LIMIT_MIN_BYTES: u64 = 32 << 20;

fn memory_limit(text: &str) -> Result<MemoryLimit, String> {
    if let Some(number) = text.strip_suffix('%') {
        return percentage(number.trim_end()).map(MemoryLimit::Percent);
    }
    match parse_bytes(text)? {
        1..MEMORY_LIMIT_MIN_BYTES => Err("less than 32MiB is too little to run with".to_owned()),
        bytes => Ok(MemoryLimit::Bytes(bytes)),
    }
}

fn wal_fsync(text: &str) -> Result<WalFsync, String> {
    match text {
        "always" => Ok(WalFsync::Always),
        "never" => Ok(WalFsync::Never),
        "interval" => Ok(WalFsync::Interval(Duration::from_secs(1))),
        _ => positive_duration(text)
            .map(WalFsync::Interval)
            .map_err(|_| "it is neither `always`, `never` nor a duration such as `1s`".to_owned()),
    }
}

/// Lengths in a batch are 32 bits wide.
fn body_bytes(text: &str) -> Result<usize, String> {
    let bytes = text.parse::<u32>().map_err(|e| e.to_string())?;
    if bytes > 1 << 30 { Err("at most 1073741824 bytes (1 GiB)".to_owned()) } else { Ok(bytes as usize) }
}

fn inflight_bytes(text: &str) -> Result<usize, String> {
    let bytes = text.parse::<usize>().map_err(|e| e.to_string())?;
    if bytes > 1 << 40 { Err("at most 1099511627776 bytes (1 TiB)".to_owned()) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Args, String> {
        Args::read(std::iter::once(&"larum").chain(words)).map_err(|e| e.to_string())
    }

    #[test]
    fn the_flags_of_a_compose_file_are_understood() {
        let args = read(&[
            "--config.file=/etc/prometheus/prometheus.yml",
            "--storage.tsdb.path=/prometheus",
            "--web.console.libraries=/etc/prometheus/console_libraries",
            "--web.console.templates=/etc/prometheus/consoles",
            "--web.enable-lifecycle",
            "--web.enable-admin-api",
        ])
        .unwrap();
        assert!(args.enable_lifecycle && args.enable_admin_api);
        assert_eq!(args.storage_path, PathBuf::from("/prometheus"));
        assert_eq!((args.retention_time, args.retention_size, args.retention_percentage), (None, 0, 0.0));
        let shown = |name: &str| args.shown.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        assert_eq!(shown("web.enable-lifecycle"), Some("true"));
        assert_eq!(shown("query.lookback-delta"), Some("5m"));
        assert_eq!(shown("config.file"), Some("/etc/prometheus/prometheus.yml"));
    }

    #[test]
    fn sizes_are_written_as_for_prometheus() {
        let args = read(&["--storage.tsdb.retention.size=512MB", "--storage.tsdb.retention.percentage=12.5"])
            .unwrap();
        assert_eq!((args.retention_size, args.retention_percentage), (512 << 20, 12.5));
        for (text, min_free) in [("2GB", MinFree::Bytes(2 << 30)), ("2.5%", MinFree::Percent(2.5))] {
            let args = read(&[&format!("--storage.disk.min-free={text}")]).unwrap();
            assert_eq!(args.disk_min_free, Some(min_free));
        }
    }

    #[test]
    fn memory_is_limited_by_size_or_share() {
        for (text, limit) in [
            ("1GiB", Some(MemoryLimit::Bytes(1 << 30))),
            ("0", Some(MemoryLimit::Bytes(0))),
            ("0%", Some(MemoryLimit::Percent(0.0))),
            ("62.5%", Some(MemoryLimit::Percent(62.5))),
            ("31MiB", None),
            ("101%", None),
            ("1000000000", None),
            ("much", None),
        ] {
            let read = read(&[&format!("--memory.limit={text}")]);
            assert_eq!(read.as_ref().ok().map(|args| args.memory_limit), limit, "{text}");
            assert!(read.err().is_none_or(|e| e.contains("--memory.limit")), "{text}");
        }
        assert_eq!(read(&[]).unwrap().memory_limit, MemoryLimit::Percent(75.0));
    }

    #[test]
    fn a_schedule_is_shown_as_it_was_written() {
        let args = read(&["--storage.cleanup-schedule=CRON_TZ=Europe/Berlin 0 2 * * *"]).unwrap();
        let shown = args.shown.iter().find(|(name, _)| name == "storage.cleanup-schedule");
        assert_eq!(shown.map(|(_, value)| value.as_str()), Some("CRON_TZ=Europe/Berlin 0 2 * * *"));
    }

    #[test]
    fn every_flag_has_its_environment_variable() {
        for arg in Args::command().get_arguments() {
            let Some(long) = arg.get_long().filter(|l| !matches!(*l, "help" | "version")) else { continue };
            let expected = format!("LARUM_{}", long.to_uppercase().replace(['.', '-'], "_"));
            assert_eq!(arg.get_env().and_then(|e| e.to_str()), Some(expected.as_str()));
        }
    }

    #[test]
    fn a_misspelt_environment_variable_is_found() {
        let names = ["PATH", "LARUM_LOG_LEVEL", "LARUM_WEB_LISTEN_ADRESS"].map(str::to_owned);
        assert_eq!(Args::unknown_variables(names), ["LARUM_WEB_LISTEN_ADRESS"]);
    }

    #[test]
    fn what_cannot_be_understood_is_named() {
        let error = read(&["--web.listen-adress=:1"]).unwrap_err();
        assert!(error.contains("--web.listen-adress") && error.contains("--web.listen-address"), "{error}");
        let error = read(&["--storage.tsdb.retention.time=15"]).unwrap_err();
        assert!(error.contains("--storage.tsdb.retention.time") && error.contains("not a valid duration"));
        let error = read(&["--storage.tsdb.retention.size=10"]).unwrap_err();
        assert!(error.contains("--storage.tsdb.retention.size") && error.contains("needs a unit"), "{error}");
        for wrong in ["101", "-1", "NaN", "80%"] {
            assert!(read(&[&format!("--storage.tsdb.retention.percentage={wrong}")]).is_err(), "{wrong}");
        }
        for wrong in ["101%", "5", "%"] {
            let error = read(&[&format!("--storage.disk.min-free={wrong}")]).unwrap_err();
            assert!(error.contains("--storage.disk.min-free"), "{error}");
        }
        assert!(read(&["--storage.disk.emergency-retention=0s"]).unwrap_err().contains("longer than 0"));
        let error = read(&["--storage.cleanup-schedule=0 2 * *"]).unwrap_err();
        assert!(error.contains("--storage.cleanup-schedule") && error.contains("five fields"), "{error}");
        assert!(read(&["--storage.wal.fsync=soon"]).unwrap_err().contains("neither `always`"));
        assert!(read(&["--query.timeout=0s"]).unwrap_err().contains("longer than 0"));
    }

    #[test]
    fn strictness_allows_what_a_feature_allows() {
        let syntax = |words: &[&str]| read(words).unwrap().syntax();
        assert_eq!(syntax(&[]), Syntax::default());
        let strict = syntax(&["--query.strict-prometheus", "--enable-feature=promql-binop-fill-modifiers,x"]);
        let allowed =
            Syntax { experimental_functions: false, fill_modifiers: true, extended_range_selectors: false };
        assert_eq!(strict, allowed);
        let all = format!("--enable-feature={}", FEATURES.join(","));
        assert_eq!(syntax(&["--query.strict-prometheus", &all]), Syntax::default());
    }

    #[test]
    fn the_prefix_comes_from_the_route_or_the_external_url() {
        let prefix = |words: &[&str]| read(words).unwrap().prefix();
        assert_eq!(prefix(&[]), "");
        assert_eq!(prefix(&["--web.external-url=http://x/larum/"]), "/larum");
        assert_eq!(prefix(&["--web.external-url=http://x/larum", "--web.route-prefix=/"]), "");
        assert_eq!(prefix(&["--web.route-prefix=a/b"]), "/a/b");
    }
}
