//! How a database is opened: plain values with documented defaults.

use super::policy::RetentionPolicy;
use super::schedule::CleanupSchedule;
use super::time::Timestamp;
use crate::budget::MemoryBudget;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Options of [`crate::Db::open`]. `Options::default()` suits an embedder: everything is kept.
#[derive(Clone)]
pub struct Options {
    /// Samples older than this are refused, not shown, and dropped by partition; a partition of which
    /// enough has expired is written anew. `None`: keep everything.
    pub retention: Option<Duration>,
    /// The same for the series of selectors, for longer or shorter: the first that matches counts.
    pub retention_policies: Vec<RetentionPolicy>,
    /// When what has expired is removed from the disk; by default, as soon as it is worth it. Reads never
    /// show it, whatever the schedule, and limits on size do not wait for it.
    pub cleanup_schedule: Option<CleanupSchedule>,
    /// How much the data folder may take; beyond, its oldest partitions are dropped.
    pub size_limit: SizeLimit,
    /// What to do while the disk fills.
    pub disk: DiskOptions,
    /// When the WAL is synced to the device.
    pub wal_fsync: WalFsync,
    /// A cut is due when the active WAL generation is longer than this and than 256 B a series; when
    /// it has more than 32 million samples and more than 64 a series; or when it is longer than a
    /// sixteenth of the bound on bytes and senders fall silent.
    pub wal_bytes: u64,
    /// About how much memory a merge of partitions may take. What it must remember beyond that goes
    /// to temporary files.
    pub merge_memory_bytes: usize,
    /// How much memory there is, for this database or for several; by default there is no limit. The
    /// library does not ask the system for one, see [`crate::budget::machine`].
    pub memory: MemoryBudget,
    /// How much memory may be taken to keep answers of range queries, whose steps are used again where they
    /// cannot have changed; 0: nothing is kept.
    pub query_cache_bytes: u64,
    /// In which time everything that is stored is read once, to find damage; `None`: never. No more than
    /// 32 MiB are read in a second.
    pub scrub_interval: Option<Duration>,
    /// Limits on what a series may look like.
    pub limits: Limits,
    /// How far ahead of now a sample may lie.
    pub max_ahead: Duration,
    /// Who does the background work.
    pub maintenance: Maintenance,
    /// Where the present time comes from.
    pub clock: Clock,
    /// Where the identity seed of a new folder comes from, and with which number the WAL goes on.
    pub random: Random,
}

/// The source of the present time. Never the operating system directly, so that tests own time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The source of randomness. A test that brings its own repeats a run exactly; anybody else needs
/// numbers that nobody can guess.
pub type Random = Arc<dyn Fn() -> io::Result<u64> + Send + Sync>;

/// How much the data folder may take, all files in it counted; by default, whatever it needs.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SizeLimit {
    /// In bytes.
    pub bytes: Option<u64>,
    /// In percent of what the file system of the folder can hold at all, however much of that
    /// others use. It prevails over `bytes`.
    pub percentage: Option<f64>,
}

/// What to do while the disk fills. In any case the database stops taking samples before nothing is
/// free, and takes them again by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct DiskOptions {
    /// So much shall stay free. By default a twentieth of what the file system can hold, but no more
    /// than 1 GiB.
    pub min_free: Option<MinFree>,
    /// Where less is free, the oldest partitions are dropped before their time, as long as so much
    /// time is kept. `None`: nothing is dropped.
    pub emergency_retention: Option<Duration>,
}

/// How much shall stay free.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MinFree {
    /// In bytes.
    Bytes(u64),
    /// In percent of what the file system can hold.
    Percent(f64),
}

/// When an append counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalFsync {
    /// Synced before the append returns, many appends by one sync: survives a power cut.
    Always,
    /// Written before the append returns, synced at this interval, or sooner where much is written:
    /// survives the end of the process; a power cut may take one interval.
    Interval(Duration),
    /// Written before the append returns; the operating system syncs when it likes.
    Never,
}

/// Who does the background work (cutting, merging, dropping, syncing).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maintenance {
    /// Threads of the database's own.
    Thread,
    /// Nobody, unless the caller asks for it: for tests. [`WalFsync::Always`] then syncs in the
    /// caller's thread, [`WalFsync::Interval`] at each round of work that is asked for.
    Stepped,
}

/// Limits on what a series may look like; a series beyond them is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Labels of a series, `__name__` included.
    pub labels: usize,
    /// Bytes of a label's name.
    pub label_name_bytes: usize,
    /// Bytes of a label's value.
    pub label_value_bytes: usize,
    /// Bytes of all names and values of a series.
    pub series_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { labels: 128, label_name_bytes: 1 << 10, label_value_bytes: 16 << 10, series_bytes: 64 << 10 }
    }
}

impl Default for Options {
    fn default() -> Options {
        Options {
            retention: None,
            retention_policies: Vec::new(),
            cleanup_schedule: None,
            size_limit: SizeLimit::default(),
            disk: DiskOptions::default(),
            wal_fsync: WalFsync::Interval(Duration::from_secs(1)),
            wal_bytes: 128 << 20,
            merge_memory_bytes: 64 << 20,
            memory: MemoryBudget::unlimited(),
            query_cache_bytes: 0,
            scrub_interval: Some(Duration::from_secs(24 * 60 * 60)),
            limits: Limits::default(),
            max_ahead: Duration::from_secs(10 * 60),
            maintenance: Maintenance::Thread,
            clock: Arc::new(Timestamp::now),
            random: Arc::new(|| getrandom::u64().map_err(io::Error::other)),
        }
    }
}
