//! What queries cost, added up by what they ask and by who asks. The tables are bounded: where one is
//! full, the lightest entry makes room, weighed by its time, of which an hour ago half counts.

use super::origin::{Caller, cut};
use crate::storage::Timestamp;
use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::xxh3_64;

/// So many entries each table has at most.
const ENTRIES_MAX: usize = 1000;
/// The longest text of a query that is kept, in bytes.
const QUERY_BYTES: usize = 1024;
/// After so long, what a query took weighs half.
const HALF_LIFE: Duration = Duration::from_secs(3600);
/// What each query weighs at least, so that many short ones count too.
const LEAST: Duration = Duration::from_millis(1);
/// Weights are scaled down before they grow by more than two to this power.
const EXPONENT_MAX: f64 = 500.0;

/// What some queries cost together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    /// How many there were.
    pub count: u64,
    /// Those of them that failed.
    pub errors: u64,
    /// Their time, waiting not counted.
    pub total: Duration,
    /// That of the longest.
    pub max: Duration,
    /// Samples they read.
    pub samples: u64,
    /// The most memory one of them held.
    pub peak_bytes: u64,
    /// When the last one ended.
    pub last: Timestamp,
    weight: f64,
}

/// What one query cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spent {
    pub time: Duration,
    pub samples: u64,
    pub peak_bytes: u64,
    pub failed: bool,
    pub ended: Timestamp,
}

/// By what a table is ordered: the most first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopBy {
    /// Time.
    Time,
    /// How many there were.
    Count,
    /// Samples read.
    Samples,
    /// Memory held.
    Memory,
}

/// The text of a query, cut if it is long, and told from others that begin alike.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct QueryKey {
    text: Box<str>,
    /// 0 if the text is whole.
    hash: u64,
}

impl QueryKey {
    fn new(text: &str) -> QueryKey {
        let kept = cut(text, QUERY_BYTES);
        QueryKey {
            text: kept.into(),
            hash: if kept.len() < text.len() { xxh3_64(text.as_bytes()) } else { 0 },
        }
    }

    fn text(&self) -> String {
        if self.hash == 0 { self.text.to_string() } else { format!("{}...", self.text) }
    }
}

/// The tables.
pub(super) struct Top {
    clock: Decay,
    queries: HashMap<QueryKey, Figures>,
    callers: HashMap<Caller, Figures>,
    most: usize,
}

/// Weights later things more instead of older ones less, so that nothing need be touched as time passes.
#[derive(Debug, Clone, Copy)]
struct Decay {
    base: Instant,
}

impl Decay {
    fn exponent(&self, now: Instant) -> f64 {
        now.saturating_duration_since(self.base).as_secs_f64() / HALF_LIFE.as_secs_f64()
    }
}

impl Top {
    pub fn new(now: Instant) -> Top {
        Top::of(ENTRIES_MAX, now)
    }

    fn of(most: usize, now: Instant) -> Top {
        Top { clock: Decay { base: now }, queries: HashMap::new(), callers: HashMap::new(), most }
    }

    /// Adds a query.
    pub fn add(&mut self, query: &str, caller: Caller, spent: Spent, now: Instant) {
        let exponent = self.clock.exponent(now);
        if exponent > EXPONENT_MAX {
            let scale = (-exponent).exp2();
            self.queries.values_mut().chain(self.callers.values_mut()).for_each(|f| f.weight *= scale);
            self.clock.base = now;
        }
        let weight = spent.time.max(LEAST).as_secs_f64() * self.clock.exponent(now).exp2();
        add(&mut self.queries, QueryKey::new(query), &spent, weight, self.most);
        add(&mut self.callers, caller, &spent, weight, self.most);
    }

    /// The first queries.
    pub fn queries(&self, by: TopBy, limit: usize) -> Vec<(String, Figures)> {
        let first = first(&self.queries, by, limit);
        first.into_iter().map(|(key, figures)| (key.text(), figures)).collect()
    }

    /// The first of those who ask.
    pub fn callers(&self, by: TopBy, limit: usize) -> Vec<(Caller, Figures)> {
        first(&self.callers, by, limit)
    }

    /// How many entries both tables have.
    pub fn len(&self) -> usize {
        self.queries.len() + self.callers.len()
    }
}

fn add<K: Eq + Hash + Clone>(
    table: &mut HashMap<K, Figures>,
    key: K,
    spent: &Spent,
    weight: f64,
    most: usize,
) {
    if !table.contains_key(&key) && table.len() >= most {
        let lightest = table.iter().min_by(|(_, a), (_, b)| a.weight.total_cmp(&b.weight));
        if let Some(lightest) = lightest.map(|(key, _)| key.clone()) {
            table.remove(&lightest);
        }
    }
    let none = Figures {
        count: 0,
        errors: 0,
        total: Duration::ZERO,
        max: Duration::ZERO,
        samples: 0,
        peak_bytes: 0,
        last: spent.ended,
        weight: 0.0,
    };
    let figures = table.entry(key).or_insert(none);
    figures.count += 1;
    figures.errors += u64::from(spent.failed);
    figures.total += spent.time;
    figures.max = figures.max.max(spent.time);
    figures.samples += spent.samples;
    figures.peak_bytes = figures.peak_bytes.max(spent.peak_bytes);
    figures.last = spent.ended;
    figures.weight += weight;
}

fn first<K: Clone>(table: &HashMap<K, Figures>, by: TopBy, limit: usize) -> Vec<(K, Figures)> {
    let rank = |figures: &Figures| match by {
        TopBy::Time => u64::try_from(figures.total.as_nanos()).unwrap_or(u64::MAX),
        TopBy::Count => figures.count,
        TopBy::Samples => figures.samples,
        TopBy::Memory => figures.peak_bytes,
    };
    let mut all: Vec<(&K, &Figures)> = table.iter().collect();
    all.sort_by(|(_, a), (_, b)| rank(b).cmp(&rank(a)).then(b.weight.total_cmp(&a.weight)));
    all.into_iter().take(limit).map(|(key, figures)| (key.clone(), *figures)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spent(ms: u64) -> Spent {
        let ended = Timestamp::from_millis(0);
        Spent { time: Duration::from_millis(ms), samples: 10, peak_bytes: ms, failed: ms == 7, ended }
    }

    fn client(name: &str) -> Caller {
        Caller::Client { address: None, user_agent: Some(name.to_owned()) }
    }

    fn names(top: &Top, by: TopBy) -> Vec<String> {
        top.queries(by, 9).into_iter().map(|(text, _)| text).collect()
    }

    #[test]
    fn queries_are_added_up_by_text_and_by_who_asks() {
        let now = Instant::now();
        let mut top = Top::new(now);
        for (query, caller, ms) in [("a", "x", 5), ("a", "y", 7), ("b", "x", 10)] {
            top.add(query, client(caller), spent(ms), now);
        }
        let (text, a) = &top.queries(TopBy::Time, 1)[0];
        assert_eq!((text.as_str(), a.count, a.errors, a.samples, a.peak_bytes), ("a", 2, 1, 20, 7));
        assert_eq!((a.total, a.max), (Duration::from_millis(12), Duration::from_millis(7)));
        let orders =
            [TopBy::Time, TopBy::Count, TopBy::Samples, TopBy::Memory].map(|by| names(&top, by)[0].clone());
        assert_eq!(orders, ["a", "a", "a", "b"]);
        let (caller, x) = &top.callers(TopBy::Count, 9)[0];
        assert_eq!((caller, x.count, x.total), (&client("x"), 2, Duration::from_millis(15)));
    }

    #[test]
    fn a_full_table_keeps_the_heavy_ones_though_light_ones_never_end() {
        let now = Instant::now();
        let mut top = Top::of(3, now);
        for query in ["heavy", "heavier"] {
            top.add(query, client(query), spent(5000), now);
        }
        for n in 0..1000 {
            top.add(&format!("light {n}"), client(&n.to_string()), spent(3), now);
            assert!(top.len() <= 6);
        }
        let mut kept = names(&top, TopBy::Time);
        kept.sort();
        assert_eq!(kept, ["heavier", "heavy", "light 999"]);
    }

    #[test]
    fn what_was_heavy_long_ago_makes_room_for_what_is_asked_now() {
        let begin = Instant::now();
        let mut top = Top::of(2, begin);
        for query in ["old", "older"] {
            top.add(query, client("x"), spent(5000), begin);
        }
        // Far beyond what weights can count to.
        for day in [1, 40, 41] {
            let now = begin + day * Duration::from_secs(86_400);
            for query in ["new", "newer"] {
                top.add(query, client("x"), spent(20), now);
            }
            assert_eq!(names(&top, TopBy::Count).len(), 2, "{day}");
            assert!(names(&top, TopBy::Count).iter().all(|name| name.starts_with("new")), "{day}");
        }
        let count: u64 = top.queries(TopBy::Count, 9).iter().map(|(_, f)| f.count).sum();
        assert_eq!(count, 6, "their counts are whole");
    }

    #[test]
    fn long_queries_that_begin_alike_are_told_apart() {
        let now = Instant::now();
        let mut top = Top::new(now);
        let long = "a".repeat(5000);
        for query in [long.clone() + "b", long.clone() + "c", long.clone() + "b"] {
            top.add(&query, client("x"), spent(1), now);
        }
        let found: Vec<_> =
            top.queries(TopBy::Count, 9).into_iter().map(|(t, f)| (t.len(), f.count)).collect();
        assert_eq!(found, [(1027, 2), (1027, 1)]);
    }
}
