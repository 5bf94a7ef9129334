//! Cached answers are those of an evaluation, whatever is written, deleted, cut and merged meanwhile.

use super::*;
use crate::budget::MemoryBudget;
use crate::promql::parse;
use crate::storage::options::Maintenance;
use crate::storage::power_cut::rng::Rng;
use crate::storage::{Batch, Matcher, Options, RetentionPolicy, TimeRange, Timestamp};
use larum_storage_format::{Histogram, Labels, STALE_NAN, Span};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
/// A Tuesday in 2023, ten minutes before a border of windows.
const START: i64 = 1_699_999_800_000;

/// A database and a cache before it, at a time of its own.
struct World {
    storage: Storage,
    cache: ResultCache,
    now: Arc<AtomicI64>,
    _dir: tempfile::TempDir,
}

impl World {
    fn new(capacity_bytes: u64, memory: MemoryBudget) -> World {
        let dir = tempfile::tempdir().unwrap();
        let now = Arc::new(AtomicI64::new(START));
        let clock = now.clone();
        let options = Options {
            clock: Arc::new(move || Timestamp::from_millis(clock.load(Ordering::SeqCst))),
            maintenance: Maintenance::Stepped,
            ..Options::default()
        };
        let storage = Storage::open(&dir.path().join("data"), options).unwrap();
        World { storage, cache: ResultCache::new(capacity_bytes, memory), now, _dir: dir }
    }

    fn now(&self) -> i64 {
        self.now.load(Ordering::SeqCst)
    }

    fn append(&self, samples: &[(Labels, i64, f64)]) {
        let mut batch = Batch::new();
        samples.iter().for_each(|(labels, t, value)| batch.push(labels, Timestamp::from_millis(*t), *value));
        self.storage.append(&batch).unwrap();
    }

    fn ask(&self, query: &str, steps: Steps, options: &EvalOptions) -> Result<Answer, EvalError> {
        self.cache.evaluate(&parse(query).unwrap(), &self.storage, steps, options)
    }

    /// Asks with and without the cache, which must give the same, and gives that.
    fn compare(&self, query: &str, steps: Steps, options: &EvalOptions) -> String {
        let cached = shown(query, self.ask(query, steps, options));
        let mut plain = EvalOptions { use_cache: false, ..options.clone() };
        let mut fresh = shown(query, self.ask(query, steps, &plain));
        if fresh == EvalError::TooManySamples.to_string() && cached != fresh {
            // How many they would be is an estimate where series come and go.
            plain.max_samples = 2 * options.max_samples;
            fresh = shown(query, self.ask(query, steps, &plain));
        }
        assert_eq!(cached, fresh, "{query} {steps:?} at {}", self.now());
        fresh
    }
}

/// An answer with all its bits.
fn shown(query: &str, answer: Result<Answer, EvalError>) -> String {
    let Answer { value, annotations, .. } = match answer {
        Ok(answer) => answer,
        Err(error) => return error.to_string(),
    };
    let Value::Matrix(matrix) = value else { panic!("a range query has a matrix") };
    let mut text = format!("{:?} {:?}\n", annotations.all_warnings(query), annotations.all_infos(query));
    for Series { labels, floats, histograms } in matrix {
        let floats: Vec<(i64, u64)> = floats.iter().map(|p| (p.t_ms, p.value.to_bits())).collect();
        text.push_str(&format!("{labels} {floats:x?} {histograms:?}\n"));
    }
    text
}

/// Steps as dashboards ask for: multiples of their width, up to now.
fn sliding(now: i64, length_ms: i64, step_ms: i64) -> Steps {
    let end = now.div_euclid(step_ms) * step_ms;
    let start = (now - length_ms).div_euclid(step_ms) * step_ms;
    let at = Timestamp::from_millis;
    Steps::new(at(start), at(end), Duration::from_millis(step_ms as u64)).unwrap()
}

fn labels(name: &str, pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs([("__name__", name)].into_iter().chain(pairs.iter().copied())).unwrap()
}

/// A native histogram that has seen so much.
fn native(count: u64) -> Histogram {
    Histogram {
        schema: 1,
        count: count as f64,
        sum: count as f64 * 0.7,
        positive_spans: vec![Span { offset: 0, length: 2 }],
        positive_buckets: vec![(count / 3) as f64, (count - count / 3) as f64],
        is_integer: true,
        ..Histogram::default()
    }
}

const QUERIES: [&str; 54] = [
    "g",
    "sum(g)",
    "avg by (job) (g)",
    "stddev(g)",
    "quantile(0.7, g)",
    "quantile(1.5, g)",
    "topk(2, g)",
    "bottomk by (job) (1, g)",
    "limitk(3, g)",
    "limit_ratio(0.5, g)",
    "count_values(\"v\", round(g))",
    "topk(2, sum by (job) (g))",
    "limitk(1, avg by (job, i) (g) > 0.3)",
    "sum(sum by (i) (g))",
    "limitk(1, sum by (job) (g))",
    "topk(1, count by (job) (g))",
    "avg(max by (job) (g) * 1.1)",
    "sum({__name__=~\"g|c_total\"})",
    "sum(abs({__name__=~\"g|c_total\",i=\"1\"}))",
    "rate(c_total[1m])",
    "sum by (job) (rate(c_total[5m]))",
    "sum(rate(c_total[90s])) / on () group_left sum(g)",
    "g * on (i, job) group_left rate(c_total[2m])",
    "sum by (job) (g * on (i) group_left (job) max by (i, job) (c_total{job!=\"a\"}))",
    "increase(g[3m])",
    "irate(c_total[1m]) > 0.01",
    "delta(g[2m])",
    "avg_over_time(g[5m])",
    "sum_over_time(c_total[3m])",
    "quantile_over_time(0.5, g[2m])",
    "last_over_time(g[1m])",
    "max_over_time(sum(rate(c_total[1m]))[5m:30s])",
    "avg_over_time(sum by (job) (g)[3m:])",
    "g offset 10m",
    "g offset -1m",
    "increase(c_total[2m] anchored)",
    "increase(c_total[2m] smoothed)",
    "absent(g{i=\"7\"})",
    "absent_over_time(g{i=\"7\"}[1m])",
    "scalar(g{i=\"1\"}) + 1",
    "vector(1) or g",
    "g and on (i) c_total",
    "g unless on (i) (c_total > 40)",
    "g > bool on (i) group_left () max by (i) (c_total)",
    "label_replace(g, \"x\", \"$1\", \"i\", \"(.*)\")",
    "label_replace(sum by (i) (g), \"i\", \"all\", \"i\", \"[0-3]\")",
    "timestamp(g)",
    "histogram_quantile(0.9, sum by (le) (rate(h_bucket[2m])))",
    "histogram_quantile(0.5, rate(n[2m]))",
    "histogram_quantile(0.5, sum(n))",
    "n",
    "g @ end()",
    "sort(g)",
    "g * range()",
];

/// What goes on in the world besides queries.
fn disturb(world: &World, rng: &mut Rng, all: &[Labels]) {
    let now = world.now();
    let long_ago = now - rng.between(1, 80) * MINUTE;
    let one = &all[rng.below(all.len() as u64) as usize];
    match rng.below(80) {
        0..5 => world.append(&[(one.clone(), long_ago, rng.below(1000) as f64 / 7.0)]),
        // There is a sample at such times, perhaps.
        5..9 => world.append(&[(one.clone(), long_ago.div_euclid(15 * SECOND) * 15 * SECOND, 0.125)]),
        9..11 => world.append(&[(one.clone(), long_ago, STALE_NAN)]),
        11..13 => {
            let matchers = vec![Matcher::equal("i", rng.below(8).to_string().as_str())];
            let range = TimeRange::new(long_ago, long_ago + rng.between(0, 10) * MINUTE);
            world.storage.delete(&[matchers], range).unwrap();
        }
        13..17 => world.storage.flush().unwrap(),
        17..19 => world.storage.compact().unwrap(),
        19..25 => world.storage.maintain().unwrap(),
        25 => world.storage.clean_tombstones().unwrap(),
        26 => {
            let keep = Duration::from_secs(60 * (60 + 20 * rng.below(4)));
            let short = RetentionPolicy {
                matchers: vec![Matcher::equal("job", "b")],
                keep: Some(Duration::from_secs(30 * 60)),
            };
            let policies = if rng.one_in(2) { vec![short] } else { Vec::new() };
            world.storage.set_retention(Some(keep), policies);
        }
        27 => world.now.store(now - rng.between(1, 20) * MINUTE, Ordering::SeqCst),
        _ => {}
    }
}

#[test]
fn a_cached_answer_is_that_of_an_evaluation_whatever_happens() {
    let (mut reused, mut evaluated) = (0, 0);
    for seed in 0..3 {
        let mut rng = Rng::new(seed);
        let world = World::new(64 << 20, MemoryBudget::unlimited());
        let mut all = Vec::new();
        for i in 0..8 {
            let (i, job) = (i.to_string(), ["a", "b", "c"][i % 3]);
            all.extend(["g", "c_total"].map(|name| labels(name, &[("i", &i), ("job", job)])));
        }
        let buckets = ["0.1", "0.5", "1", "+Inf"].map(|le| labels("h_bucket", &[("le", le)]));
        let natives = ["1", "2"].map(|i| labels("n", &[("i", i)]));
        let mut counts = [0.0; 16];
        let mut hidden = [false; 16];
        for round in 0..120u64 {
            world.now.fetch_add(15 * SECOND, Ordering::SeqCst);
            let now = world.now();
            let mut batch = Batch::new();
            for (n, labels) in all.iter().enumerate() {
                // Series come and go.
                hidden[n] ^= rng.one_in(12);
                if hidden[n] {
                    continue;
                }
                counts[n] = if rng.one_in(40) { 0.0 } else { counts[n] + rng.below(50) as f64 / 10.0 };
                let is_counter = labels.metric_name() == Some("c_total");
                let value = if is_counter { counts[n] } else { rng.below(1000) as f64 / 1001.0 };
                let late = if rng.one_in(3) { rng.between(0, 12 * SECOND) } else { 0 };
                batch.push(labels, Timestamp::from_millis(now - late), value);
            }
            for (n, labels) in buckets.iter().enumerate() {
                let value = (round * (n as u64 + 1) + rng.below(2)) as f64;
                batch.push(labels, Timestamp::from_millis(now), value);
            }
            for labels in &natives {
                batch.push_histogram(labels, Timestamp::from_millis(now), Arc::new(native(round % 60)));
            }
            world.storage.append(&batch).unwrap();
            disturb(&world, &mut rng, &all);
            for _ in 0..8 {
                // Some are asked for much more often than others.
                let most = if rng.one_in(3) { QUERIES.len() as u64 } else { 6 };
                let query = QUERIES[((rng.below(most) + seed * 17) % QUERIES.len() as u64) as usize];
                let (length, step) = [(20, 15), (20, 15), (60, 30)][rng.below(3) as usize];
                let mut steps = sliding(world.now(), length * MINUTE, step * SECOND);
                if rng.one_in(10) {
                    // Somebody scrolls.
                    steps =
                        sliding(world.now() - rng.between(1, 30) * MINUTE, length * MINUTE, step * SECOND);
                }
                let max_samples = if rng.one_in(8) { 10 + rng.below(3000) } else { 50_000_000 };
                let delayed_name_removal = rng.one_in(6);
                let options = EvalOptions { max_samples, delayed_name_removal, ..EvalOptions::default() };
                world.compare(query, steps, &options);
            }
        }
        let stats = world.cache.stats();
        assert!(stats.hits > 0 && stats.partial_hits > 0, "seed {seed}: {stats:?}");
        (reused, evaluated) = (reused + stats.steps_reused, evaluated + stats.steps_evaluated);
    }
    let rate = reused as f64 / (reused + evaluated) as f64;
    assert!(rate >= 0.3, "{rate}");
}

/// Series of which the first ten minutes are there.
fn ten_minutes(capacity_bytes: u64, memory: MemoryBudget) -> World {
    let world = World::new(capacity_bytes, memory);
    for i in 0..=40 {
        let t = START - 10 * MINUTE + i * 15 * SECOND;
        let series = |name: &str, n: i64| (labels(name, &[("n", &n.to_string())]), t, (i * n) as f64);
        world.append(&[series("a_total", 1), series("a_total", 2), series("b", 1)]);
    }
    world
}

/// The last five minutes, a step each quarter of a minute, that far from the start.
fn five_minutes(from_start_ms: i64) -> Steps {
    sliding(START + from_start_ms, 5 * MINUTE, 15 * SECOND)
}

fn reused(world: &World, ask: impl FnOnce()) -> (u64, u64) {
    let before = world.cache.stats();
    ask();
    let after = world.cache.stats();
    (after.steps_reused - before.steps_reused, after.steps_evaluated - before.steps_evaluated)
}

#[test]
fn what_changed_is_evaluated_and_nothing_else() {
    let a = labels("a_total", &[("n", "1")]);
    type Change = fn(&World, &Labels);
    let changes: [(&str, Change, (u64, u64)); 12] = [
        ("nothing", |_, _| {}, (21, 0)),
        ("a sample of now", |world, a| world.append(&[(a.clone(), START, 7.0)]), (20, 1)),
        ("a sample of the future", |world, a| world.append(&[(a.clone(), START + MINUTE, 7.0)]), (21, 0)),
        (
            "one that comes a minute late",
            |world, a| world.append(&[(a.clone(), START - MINUTE, 7.0)]),
            (16, 5),
        ),
        ("a stale marker", |world, a| world.append(&[(a.clone(), START - MINUTE + 1, STALE_NAN)]), (17, 4)),
        (
            "one that is older than any step",
            |world, a| world.append(&[(a.clone(), START - 9 * MINUTE, 7.0)]),
            (0, 21),
        ),
        (
            "a deletion before all that is looked at",
            |world, _| _ = world.storage.delete(&[vec![]], TimeRange::new(0, START - 7 * MINUTE)).unwrap(),
            (21, 0),
        ),
        (
            "a deletion at the beginning",
            |world, _| _ = world.storage.delete(&[vec![]], TimeRange::new(0, START - 5 * MINUTE)).unwrap(),
            // The windows of a minute after it begin with it.
            (17, 4),
        ),
        ("a cut", |world, _| world.storage.flush().unwrap(), (21, 0)),
        (
            "cuts and a merge",
            |world, a| {
                world.storage.flush().unwrap();
                world.append(&[(a.clone(), START + 5 * MINUTE, 1.0)]);
                world.storage.flush().unwrap();
                world.storage.compact().unwrap();
            },
            (21, 0),
        ),
        (
            "another retention",
            |world, _| world.storage.set_retention(Some(Duration::from_secs(86_400)), vec![]),
            (0, 21),
        ),
        ("the same retention", |world, _| world.storage.set_retention(None, vec![]), (21, 0)),
    ];
    for (what, change, expected) in changes {
        let world = ten_minutes(1 << 20, MemoryBudget::unlimited());
        let options = EvalOptions::default();
        let query = "sum by (n) (rate(a_total[1m]))";
        assert_eq!(reused(&world, || _ = world.ask(query, five_minutes(0), &options)), (0, 21));
        change(&world, &a);
        let found = reused(&world, || _ = world.compare(query, five_minutes(0), &options));
        assert_eq!(found, expected, "{what}");
        // What was evaluated is kept in its turn.
        assert_eq!(reused(&world, || _ = world.compare(query, five_minutes(0), &options)), (21, 0), "{what}");
    }
}

#[test]
fn what_expires_is_not_shown_and_what_does_not_is_used_again() {
    let world = ten_minutes(1 << 20, MemoryBudget::unlimited());
    let keep = |minutes: u64| Some(Duration::from_secs(60 * minutes));
    let short = RetentionPolicy { matchers: vec![Matcher::equal("n", "2")], keep: keep(5) };
    world.storage.set_retention(keep(8), vec![short]);
    let options = EvalOptions { lookback_delta: Duration::from_secs(60), ..EvalOptions::default() };
    world.compare("a_total", five_minutes(0), &options);
    world.now.fetch_add(MINUTE, Ordering::SeqCst);
    // The border moved from the first step to the fifth, whose samples are a minute old at most.
    let found = reused(&world, || _ = world.compare("a_total", five_minutes(0), &options));
    assert_eq!(found, (13, 8));
    world.now.fetch_add(20 * MINUTE, Ordering::SeqCst);
    let empty = world.compare("a_total", five_minutes(0), &options);
    assert_eq!(empty, "[] []\n");
}

#[test]
fn samples_that_a_merge_removed_are_not_shown_when_the_clock_goes_back() {
    let world = ten_minutes(1 << 20, MemoryBudget::unlimited());
    world.storage.set_retention(Some(Duration::from_secs(10 * 60)), vec![]);
    let options = EvalOptions::default();
    let all = world.compare("b", five_minutes(0), &options);
    world.storage.flush().unwrap();
    world.append(&[(labels("b", &[("n", "1")]), START + MINUTE, 1.0)]);
    world.storage.flush().unwrap();
    world.now.fetch_add(8 * MINUTE, Ordering::SeqCst);
    world.storage.compact().unwrap();
    world.now.store(START, Ordering::SeqCst);
    let left = world.compare("b", five_minutes(0), &options);
    assert!(left != all, "the merge was to leave out what had expired");
}

#[test]
fn a_window_that_slides_takes_one_step_at_a_time() {
    let world = ten_minutes(1 << 20, MemoryBudget::unlimited());
    let options = EvalOptions::default();
    // The name tells of no counter, which is said each time.
    let query = "rate(b[1m])";
    for n in 0..100 {
        let found = reused(&world, || _ = world.compare(query, five_minutes(n * 15 * SECOND), &options));
        let expected = if n == 0 { (0, 21) } else { (20, 1) };
        assert_eq!(found, expected, "{n}");
        let next = START + (n + 1) * 15 * SECOND;
        world.now.store(next, Ordering::SeqCst);
        world.append(&[(labels("b", &[("n", "1")]), next, n as f64)]);
    }
    let stats = world.cache.stats();
    assert_eq!(stats.runs, 1);
    assert!(stats.bytes < 8 << 10, "it does not grow for ever: {stats:?}");
}

#[test]
fn an_annotation_stays_only_as_long_as_its_cause_is_in_sight() {
    let world = World::new(1 << 20, MemoryBudget::unlimited());
    let b = labels("b", &[("n", "1")]);
    for i in 0..=40 {
        // Nothing of it is there in the second half.
        let t = START - 10 * MINUTE + i * 15 * SECOND;
        world.append(&[(labels("c_total", &[]), t, i as f64)]);
        if i < 24 {
            world.append(&[(b.clone(), t, i as f64)]);
        }
    }
    let query = "rate({__name__=~\"b|c_total\"}[1m])";
    let query = &format!("sum by (x) ({query})");
    let options = EvalOptions::default();
    let said =
        |from: i64| world.compare(query, five_minutes(from * MINUTE), &options).contains("might not be");
    assert!(said(-3));
    assert!(said(-2));
    assert!(said(-1));
    assert!(!said(2));
    assert!(!said(3));
    assert!(said(-1));
}

#[test]
fn a_query_that_holds_too_much_is_refused_from_the_cache_too() {
    let world = ten_minutes(1 << 20, MemoryBudget::unlimited());
    let options = |max_samples| EvalOptions { max_samples, ..EvalOptions::default() };
    for query in ["a_total", "a_total + a_total", "sum_over_time(a_total[5m])", "sum(a_total)"] {
        world.compare(query, five_minutes(0), &options(1_000_000));
        for max_samples in (1..200).step_by(3) {
            world.compare(query, five_minutes(0), &options(max_samples));
            world.compare(query, five_minutes(15 * SECOND), &options(max_samples));
        }
    }
}

#[test]
fn the_least_used_goes_first_when_there_is_no_room() {
    let world = ten_minutes(16 << 10, MemoryBudget::unlimited());
    let options = EvalOptions::default();
    let query = |n: i64| format!("a_total + {n}");
    for n in 0..50 {
        world.compare(&query(n), five_minutes(0), &options);
        // This one is always wanted.
        let found = reused(&world, || _ = world.compare(&query(0), five_minutes(0), &options));
        assert_eq!(found, (21, 0));
        assert!(world.cache.stats().bytes <= 16 << 10);
    }
    let stats = world.cache.stats();
    assert!(stats.evicted > 30 && stats.runs > 3, "{stats:?}");
    let found = reused(&world, || _ = world.compare(&query(49), five_minutes(0), &options));
    assert_eq!(found, (21, 0), "the newest are there");
    let found = reused(&world, || _ = world.compare(&query(1), five_minutes(0), &options));
    assert_eq!(found, (0, 21), "the others are not");
    // What takes too much of all the room is not kept at all.
    let many = sliding(START, 10 * MINUTE, SECOND);
    assert_eq!(reused(&world, || _ = world.compare("a_total", many, &options)), (0, 601));
    assert_eq!(reused(&world, || _ = world.compare("a_total", many, &options)), (0, 601));
}

#[test]
fn what_is_kept_is_taken_from_the_budget_and_given_up_where_memory_is_short() {
    let memory = MemoryBudget::new(1 << 20);
    let world = ten_minutes(512 << 10, memory.clone());
    let options = EvalOptions::default();
    world.compare("a_total", five_minutes(0), &options);
    let stats = world.cache.stats();
    assert!(stats.bytes > 500 && memory.status().reserved(Part::Caches) >= stats.bytes);
    let others = memory.reservation(Part::Queries);
    others.grow(740 << 10).unwrap();
    assert!(memory.pressure() >= Pressure::ShrinkCaches);
    world.compare("b", five_minutes(0), &options);
    assert_eq!((world.cache.stats().runs, world.cache.stats().bytes), (0, 0));
    drop(others);
    world.compare("b", five_minutes(0), &options);
    assert_eq!(reused(&world, || _ = world.compare("b", five_minutes(0), &options)), (21, 0));
    world.cache.clear();
    assert_eq!(world.cache.stats().runs, 0);
}

#[test]
fn an_answer_from_the_cache_takes_memory_from_its_query() {
    let budget = MemoryBudget::new(1 << 20);
    let world = ten_minutes(64 << 10, MemoryBudget::unlimited());
    let ask = || {
        let memory = Arc::new(budget.reservation(Part::Queries));
        let options = EvalOptions { memory: Some(memory.clone()), ..EvalOptions::default() };
        world.ask("a_total", five_minutes(0), &options).unwrap();
        memory.used()
    };
    let (evaluated, cached) = (ask(), ask());
    assert_eq!(world.cache.stats().hits, 1);
    assert!(cached >= 42 * 16 && cached < 4 * evaluated, "{cached} {evaluated}");
    assert_eq!(budget.status().reserved(Part::Queries), 0);
}

#[test]
fn somebody_may_look_at_today_and_somebody_else_at_yesterday() {
    let world = ten_minutes(1 << 20, MemoryBudget::unlimited());
    let options = EvalOptions::default();
    for (days_ago, expected) in [(0, 0), (1, 0), (0, 21), (1, 21), (2, 0), (3, 0), (1, 21), (4, 0), (0, 0)] {
        let steps = five_minutes(-days_ago * 24 * 60 * MINUTE);
        let found = reused(&world, || _ = world.compare("b", steps, &options));
        assert_eq!(found.0, expected, "{days_ago}");
    }
}

/// Twelve panels over an hour, refreshed every quarter of a minute, as Grafana does.
#[test]
fn a_dashboard_that_is_refreshed_evaluates_its_last_steps_only() {
    let world = World::new(64 << 20, MemoryBudget::unlimited());
    let all: Vec<Labels> = (0..24)
        .flat_map(|i| {
            let (i, job) = (i.to_string(), ["a", "b", "c"][i % 3]);
            ["g", "c_total"].map(|name| labels(name, &[("i", &i), ("job", job)]))
        })
        .collect();
    let mut rng = Rng::new(9);
    let mut scrape = |at: i64| {
        let samples = all.iter().enumerate();
        // Each at its place in the quarter of a minute, and some come a little late.
        let sample =
            |(i, labels): (usize, &Labels)| (labels.clone(), at - (i as i64 * 300), rng.below(100) as f64);
        world.append(&samples.map(sample).collect::<Vec<_>>());
    };
    for n in (1..=280).rev() {
        scrape(START - n * 15 * SECOND);
    }
    let panels = [
        "g",
        "sum(g)",
        "avg by (job) (g)",
        "topk(2, sum by (job) (g))",
        "count(g > 50)",
        "rate(c_total[1m])",
        "sum by (job) (rate(c_total[5m]))",
        "increase(g[3m])",
        "avg_over_time(g[5m])",
        "max_over_time(sum(rate(c_total[1m]))[5m:30s])",
        "g offset 10m",
        "sum(rate(c_total[90s])) / on () group_left () sum(g)",
    ];
    let refresh = || {
        let options = EvalOptions::default();
        let hour = sliding(world.now(), 60 * MINUTE, 15 * SECOND);
        for query in panels {
            world.ask(query, hour, &options).unwrap();
        }
    };
    refresh();
    let before = world.cache.stats();
    for n in 0..20 {
        world.now.store(START + n * 15 * SECOND + 7 * SECOND, Ordering::SeqCst);
        scrape(START + n * 15 * SECOND);
        refresh();
    }
    let after = world.cache.stats();
    let (reused, evaluated) =
        (after.steps_reused - before.steps_reused, after.steps_evaluated - before.steps_evaluated);
    let rate = reused as f64 / (reused + evaluated) as f64;
    assert!(rate > 0.99, "{rate} {after:?}");
}

/// So many that they may be evaluated in parts, or by several threads.
#[test]
fn sums_of_many_series_that_come_and_go_are_the_same_to_the_last_bit() {
    let world = World::new(64 << 20, MemoryBudget::unlimited());
    let mut rng = Rng::new(5);
    let all: Vec<Labels> =
        (0..3000).map(|i| labels("g", &[("i", &i.to_string()), ("j", &(i % 7).to_string())])).collect();
    for round in 0..24 {
        let now = START + round * 15 * SECOND;
        world.now.store(now, Ordering::SeqCst);
        let mut samples = Vec::new();
        for (i, labels) in all.iter().enumerate() {
            // A thousand at a time, others each minute.
            if (i as i64 / 250 + round / 4) % 3 == 0 || i < 20 && rng.one_in(8) {
                samples.push((labels.clone(), now, rng.below(1 << 40) as f64 / 1e7));
            }
        }
        world.append(&samples);
        if round == 12 {
            world.storage.flush().unwrap();
        }
        let options = EvalOptions { lookback_delta: Duration::from_secs(40), ..EvalOptions::default() };
        for query in [
            "sum(g)",
            "avg by (j) (g)",
            "stddev(avg_over_time(g[1m]))",
            "sum(sum by (j) (g) * 1.1)",
            "limitk(2, count by (i) (g))",
            "limitk(1, sum by (j) (g))",
        ] {
            world.compare(query, sliding(now, 4 * MINUTE, 15 * SECOND), &options);
        }
    }
    let stats = world.cache.stats();
    assert!(stats.steps_reused > 10 * stats.steps_evaluated / 8, "{stats:?}");
}

/// Samples are overwritten one by one, and each is acknowledged before it is looked for.
#[test]
fn an_acknowledged_sample_is_never_hidden_by_a_cached_answer() {
    const STEPS: usize = 40;
    const WRITES: i64 = 3000;
    let world = World::new(1 << 20, MemoryBudget::unlimited());
    let m = labels("m", &[]);
    let time = |step: usize| START - (STEPS - step) as i64 * 15 * SECOND;
    (0..STEPS).for_each(|step| world.append(&[(m.clone(), time(step), 0.0)]));
    let acknowledged: Vec<AtomicI64> = (0..STEPS).map(|_| AtomicI64::new(0)).collect();
    let done = AtomicBool::new(false);
    let at = Timestamp::from_millis;
    let steps = Steps::new(at(time(0)), at(time(STEPS - 1)), Duration::from_secs(15)).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    let floors: Vec<i64> = acknowledged.iter().map(|n| n.load(Ordering::SeqCst)).collect();
                    let answer = world.ask("m", steps, &EvalOptions::default()).unwrap();
                    let Value::Matrix(matrix) = answer.value else { panic!("a matrix") };
                    for (point, floor) in matrix[0].floats.iter().zip(&floors) {
                        assert!(point.value as i64 >= *floor, "{point:?} hides {floor}");
                    }
                }
            });
        }
        let mut rng = Rng::new(1);
        for n in 1..=WRITES {
            // Mostly the newest, so that there is something to be used again.
            let back = if rng.one_in(20) { rng.below(STEPS as u64) } else { rng.below(3) } as usize;
            let step = STEPS - 1 - back;
            world.append(&[(m.clone(), time(step), n as f64)]);
            acknowledged[step].store(n, Ordering::SeqCst);
            if n % 500 == 0 {
                world.storage.flush().unwrap();
            }
            if n % 1000 == 0 {
                world.storage.compact().unwrap();
            }
        }
        done.store(true, Ordering::SeqCst);
    });
    assert!(world.cache.stats().steps_reused > 0, "{:?}", world.cache.stats());
}
