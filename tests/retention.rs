//! How long samples are kept, from outside: by policies, by a schedule, by a clock that may be wrong.
//! What has expired is hidden at once, and its bytes leave the folder in time.

use larum::Labels;
use larum::storage::options::Maintenance;
use larum::storage::series_set::Columns;
use larum::storage::{
    Batch, CleanupSchedule, JobKind, JobState, Matcher, Options, Refusal, RetentionPolicy, SizeLimit, Source,
    Storage, TimeRange, Timestamp,
};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// Midnight, some day.
const START: i64 = 20_000 * DAY;

fn days(n: u64) -> Option<Duration> {
    Some(Duration::from_secs(n * 86_400))
}

fn policy(job: &str, keep: Option<Duration>) -> RetentionPolicy {
    RetentionPolicy { matchers: vec![Matcher::equal("job", job)], keep }
}

/// A database over a temporary folder, whose time and background work are the test's.
struct World {
    dir: tempfile::TempDir,
    now: Arc<AtomicI64>,
    options: Options,
    storage: Option<Storage>,
}

impl World {
    fn new(retention: Option<Duration>, policies: Vec<RetentionPolicy>) -> World {
        let now = Arc::new(AtomicI64::new(START));
        let clock = now.clone();
        let options = Options {
            clock: Arc::new(move || Timestamp::from_millis(clock.load(Ordering::Relaxed))),
            maintenance: Maintenance::Stepped,
            retention,
            retention_policies: policies,
            ..Options::default()
        };
        let mut world = World { dir: tempfile::tempdir().unwrap(), now, options, storage: None };
        world.reopen();
        world
    }

    fn reopen(&mut self) {
        if let Some(storage) = self.storage.take() {
            storage.close().unwrap();
        }
        self.storage = Some(Storage::open(&self.path(), self.options.clone()).unwrap());
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn storage(&self) -> &Storage {
        self.storage.as_ref().unwrap()
    }

    fn now(&self) -> i64 {
        self.now.load(Ordering::Relaxed)
    }

    /// Time passes in steps that are no jumps, with a round of work after each.
    fn go_to(&self, now_ms: i64) {
        while self.now() < now_ms {
            self.now.store((self.now() + 6 * HOUR).min(now_ms), Ordering::Relaxed);
            self.storage().maintain().unwrap();
        }
    }

    /// Samples every ten minutes of so many hours, of ten series for each of the jobs; values that hardly
    /// become shorter.
    fn fill(&self, jobs: &[&str], hours: i64) {
        for _ in 0..hours {
            let mut batch = Batch::new();
            for (job, series) in jobs.iter().flat_map(|job| (0..10).map(move |series| (job, series))) {
                let labels = labels(job, series);
                let hash = |t: i64| {
                    (t ^ series << 20 ^ job.len() as i64).wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64)
                };
                for t in (0..6).map(|i| self.now() + i * 10 * MINUTE) {
                    batch.push(&labels, Timestamp::from_millis(t), (hash(t) >> 11) as f64);
                }
            }
            self.now.fetch_add(HOUR, Ordering::Relaxed);
            assert!(self.storage().append(&batch).unwrap().refused.is_empty());
            self.storage().maintain().unwrap();
        }
        self.storage().flush().unwrap();
    }

    /// The times of the samples of each series of a job that are shown.
    fn read(&self, job: &str) -> Vec<Vec<i64>> {
        let view = self.storage().view();
        let set = view.select(&[Matcher::equal("job", job)], TimeRange::ALL).unwrap();
        let mut columns = Columns::default();
        (0..set.len()).map(|i| set.load(i, &mut columns).unwrap().timestamps.to_vec()).collect()
    }

    fn jobs(&self) -> Vec<String> {
        self.storage().view().label_values("job", &[], TimeRange::ALL).items
    }

    /// Bytes of the files of partitions.
    fn bytes(&self) -> u64 {
        let files = std::fs::read_dir(self.path().join("partitions")).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
    }

    fn refused(&self, job: &str, t_ms: i64) -> Option<Refusal> {
        let mut batch = Batch::new();
        batch.push(&labels(job, 0), Timestamp::from_millis(t_ms), 1.0);
        let mut refused = self.storage().append(&batch).unwrap().refused;
        refused.pop().map(|refused| refused.reason)
    }
}

fn labels(job: &str, series: i64) -> Labels {
    Labels::from_pairs([("__name__", "m"), ("job", job), ("series", &series.to_string())]).unwrap()
}

/// Compares without printing thousands of times.
fn assert_shown(found: &[Vec<i64>], expected: &[Vec<i64>], what: &str) {
    let short = |all: &[Vec<i64>]| {
        let ends = all.iter().map(|times| (times.first().copied(), times.last().copied(), times.len()));
        ends.collect::<std::collections::BTreeSet<_>>()
    };
    assert!(found == expected, "{what}: {:?} is not {:?}", short(found), short(expected));
}

/// All of ten series, every ten minutes from one time to another.
fn whole(from_ms: i64, to_ms: i64) -> Vec<Vec<i64>> {
    vec![(from_ms..to_ms).step_by(10 * MINUTE as usize).collect(); 10]
}

#[test]
fn a_policy_of_three_days_beside_one_of_a_year_frees_the_disk_on_its_day() {
    // As days are merged, and where everything is in one partition before any of it expires.
    for is_wide in [false, true] {
        let world = World::new(days(365), vec![policy("ci", days(3))]);
        world.fill(&["ci", "prod"], 48);
        let end = START + 2 * DAY;
        if is_wide {
            world.storage().compact().unwrap();
            assert_eq!(world.storage().stats().partitions, 1);
        }
        let before = world.bytes();
        for hours in (0..=4 * 24).step_by(6) {
            world.go_to(end + hours * HOUR);
            let now = world.now();
            let border = now - 3 * DAY;
            assert_shown(&world.read("prod"), &whole(START, end), "the other series stay whole");
            let left = whole(border.max(START), end);
            let shown = world.read("ci");
            assert_shown(&shown, if border < end { &left } else { &[] }, &format!("after {hours} hours"));
            let jobs: &[&str] = if border < end { &["ci", "prod"] } else { &["prod"] };
            assert_eq!(world.jobs(), jobs, "{hours}");
            // What expired a day ago is gone, and its share of the bytes with it.
            let gone_hours = (border - START - DAY).clamp(0, 2 * DAY) / HOUR;
            let share = gone_hours as f64 / 96.0;
            let most = if share >= 0.1 { before as f64 * (1.0 - share) } else { before as f64 };
            let bytes = world.bytes();
            assert!((bytes as f64) < most * 1.1, "{bytes} of {before} after {hours} hours, at most {most}");
        }
        assert!(world.bytes() * 100 < before * 56, "{} of {before}", world.bytes());
        let jobs = world.storage().jobs();
        let freed: u64 = jobs.iter().map(|job| job.bytes_freed).sum();
        let stats = world.storage().stats();
        assert_eq!((stats.expired_bytes, jobs.is_empty()), (freed, freed == 0));
        if is_wide {
            assert!(jobs.iter().all(|job| job.kind == JobKind::FreeExpired && job.state == JobState::Done));
            assert!((1..=3).contains(&jobs.len()), "not more often than it must: {jobs:?}");
        } else {
            assert!(jobs.is_empty(), "merges do it: {jobs:?}");
        }
        // The year passes, too.
        world.go_to(end + 370 * DAY);
        assert_eq!((world.bytes(), world.jobs().len()), (0, 0));
    }
}

#[test]
fn a_clock_that_jumps_a_year_ahead_and_back_deletes_nothing() {
    for schedule in [None, CleanupSchedule::new("0 2 * * *").ok()] {
        let mut world = World::new(days(30), vec![policy("ci", days(3)), policy("keep", None)]);
        world.options.cleanup_schedule = schedule;
        world.reopen();
        world.fill(&["ci", "keep", "prod"], 30);
        let right = world.now();
        let all = whole(START, right);
        let check = |world: &World, when: &str| {
            world.storage().maintain().unwrap();
            for job in ["ci", "keep", "prod"] {
                assert_shown(&world.read(job), &all, &format!("{job} {when}"));
            }
            let stats = world.storage().stats();
            assert_eq!((stats.partitions_expired, stats.expired_bytes), (0, 0), "{when}");
        };
        check(&world, "before");
        world.now.store(right + 365 * DAY, Ordering::Relaxed);
        check(&world, "after the jump");
        assert!(world.storage().stats().retention_paused);
        world.storage().compact().unwrap();
        check(&world, "after work that was asked for");
        world.reopen();
        check(&world, "after a restart");
        // Who sends samples by the wrong clock does not make it right.
        assert_eq!(world.refused("new", world.now()), None);
        world.reopen();
        check(&world, "after a restart with samples of the wrong time");
        world.now.store(right + HOUR, Ordering::Relaxed);
        check(&world, "after it came back");
        assert!(!world.storage().stats().retention_paused);
        world.reopen();
        check(&world, "after a restart with the right time");
        // Somebody may know better, and is believed until it jumps again.
        world.now.store(right + 2 * DAY, Ordering::Relaxed);
        check(&world, "after a jump of two days");
        world.storage().trust_clock();
        assert_shown(&world.read("ci"), &whole(right - DAY, right), "two days later");
        // And then what should expire does.
        let bytes = world.bytes();
        world.go_to(right + 6 * DAY);
        assert_shown(&world.read("ci"), &[], "ci");
        assert_shown(&world.read("prod"), &all, "prod");
        assert!(world.bytes() < bytes, "{} of {bytes}", world.bytes());
    }
}

#[test]
fn another_retention_is_in_force_at_once() {
    let world = World::new(days(30), vec![]);
    world.fill(&["ci", "prod"], 48);
    world.storage().compact().unwrap();
    let (now, before) = (world.now(), world.bytes());
    let old = now - 40 * HOUR;
    for (retention, policies, borders) in [
        (days(30), vec![], [START, START]),
        (days(30), vec![policy("ci", days(1))], [now - DAY, START]),
        (days(1), vec![policy("ci", days(30))], [START, now - DAY]),
        (days(1), vec![policy("ci", None), policy("prod", None)], [START, START]),
        (days(1), vec![], [now - DAY, now - DAY]),
        (None, vec![], [START, START]),
    ] {
        world.storage().set_retention(retention, policies.clone());
        for (job, border) in ["ci", "prod"].into_iter().zip(borders) {
            assert_shown(
                &world.read(job),
                &whole(border, now),
                &format!("{job} by {retention:?} and {policies:?}"),
            );
            let refused = world.refused(job, old);
            assert_eq!(
                refused.is_some(),
                border > old,
                "{job} by {retention:?} and {policies:?}: {refused:?}"
            );
        }
    }
    // What outlives a retention that became shorter does not stay on the disk for long.
    world.storage().set_retention(days(1), vec![]);
    world.storage().flush().unwrap();
    world.storage().maintain().unwrap();
    assert!(world.bytes() * 100 < before * 56, "{} of {before}", world.bytes());
    world.storage().set_retention(days(30), vec![]);
    assert_shown(&world.read("ci"), &whole(now - DAY, now), "what is gone is gone");
}

#[test]
fn a_partition_that_outlives_a_shorter_retention_after_a_restart_is_written_anew() {
    let mut world = World::new(days(365), vec![]);
    world.fill(&["prod"], 48);
    world.storage().compact().unwrap();
    // Who finds no sample between the last day and those before believes no clock.
    world.fill(&["prod"], 36);
    let (now, before) = (world.now(), world.bytes());
    world.options.retention = days(2);
    world.reopen();
    assert_shown(&world.read("prod"), &whole(now - 2 * DAY, now), "two days");
    world.storage().maintain().unwrap();
    assert_eq!(world.storage().jobs()[0].kind, JobKind::FreeExpired);
    assert!(world.bytes() * 100 < before * 75, "{} of {before}", world.bytes());
    assert_shown(&world.read("prod"), &whole(now - 2 * DAY, now), "two days");
}

#[test]
fn a_schedule_delays_what_time_demands_and_nothing_else() {
    let mut world = World::new(days(365), vec![policy("ci", days(3))]);
    // In Berlin it is two hours later.
    world.options.cleanup_schedule = CleanupSchedule::new("CRON_TZ=Europe/Berlin 0 3 * * *").ok();
    world.reopen();
    world.fill(&["ci", "prod"], 24);
    world.storage().compact().unwrap();
    let before = world.bytes();
    let day = START + 4 * DAY;
    world.go_to(day + 30 * MINUTE);
    assert_eq!((world.read("ci").len(), world.bytes()), (0, before), "hidden, and there");
    let status = world.storage().retention_status(Instant::now() + Duration::from_secs(60)).unwrap();
    let next = status.next_by_rewriting.expect("half of it has expired");
    assert_eq!((status.next_cleanup_ms, next.partitions), (Some(day + HOUR), 1));
    world.go_to(day + 2 * HOUR);
    assert!(world.bytes() * 100 < before * 56, "{} of {before}", world.bytes());
    let status = world.storage().retention_status(Instant::now() + Duration::from_secs(60)).unwrap();
    assert_eq!((status.next_cleanup_ms, status.next_by_rewriting), (Some(day + DAY + HOUR), None));
    assert_eq!(world.storage().stats().next_cleanup_ms, Some(day + DAY + HOUR));
    // Limits on size do not wait.
    world.storage().set_size_limit(SizeLimit { bytes: Some(1), percentage: None });
    world.storage().maintain().unwrap();
    assert_eq!(world.bytes(), 0);
}

#[test]
fn shares_tell_what_each_policy_and_metric_takes_now_and_afterwards() {
    let world = World::new(days(365), vec![policy("ci", days(1)), policy("none", None)]);
    let storage = world.storage();
    storage.set_cleanup_schedule(CleanupSchedule::new("0 0 1 1 *").ok());
    world.fill(&["ci", "prod"], 12);
    storage.compact().unwrap();
    let shares = || storage.retention_shares(10, Instant::now() + Duration::from_secs(60)).unwrap();
    let now = shares();
    let [ci, none, rest] = &now.policies[..] else { panic!("{now:?}") };
    assert_eq!(ci.selector.as_deref(), Some("{job=\"ci\"}"));
    assert_eq!((none.bytes, &rest.selector, rest.keep), (0, &None, days(365)));
    assert!(ci.bytes.abs_diff(rest.bytes) < rest.bytes / 10, "{now:?}");
    assert_eq!((ci.bytes_after, now.uncounted_partitions), (ci.bytes, 0));
    assert_eq!(now.metrics.len(), 1);
    assert_eq!((now.metrics[0].name.as_str(), now.metrics[0].bytes), ("m", ci.bytes + rest.bytes));
    // What has expired waits for the schedule; without one, it is due.
    world.go_to(START + 3 * DAY);
    assert_eq!(shares(), now);
    storage.set_cleanup_schedule(None);
    let due = shares();
    assert_eq!((due.policies[0].bytes_after, due.policies[2].bytes_after), (0, rest.bytes));
    assert_eq!((due.metrics[0].bytes, due.metrics[0].bytes_after), (ci.bytes + rest.bytes, rest.bytes));
    let status = storage.retention_status(Instant::now() + Duration::from_secs(60)).unwrap();
    let after = status.bytes_after as f64 - (status.usage.total() - world.bytes()) as f64;
    storage.maintain().unwrap();
    let found = world.bytes() as f64;
    // In so small a file the index counts, which does not become shorter by half.
    assert!((-500.0..2000.0).contains(&(found - after)), "{found}, and {after} was told");
    assert_eq!(shares().policies[0].bytes, 0);
    // Who has no time is told what does not count.
    storage.set_retention(days(365), vec![]);
    let none = storage.retention_shares(10, Instant::now()).unwrap();
    assert_eq!(none.uncounted_partitions as u64, storage.stats().partitions);
}
