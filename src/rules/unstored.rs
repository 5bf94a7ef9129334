//! Samples that rules see although the storage could not take them.
//!
//! What a process says about itself must reach the rules above all when its storage refuses samples: an alert
//! about a full disk would otherwise end as soon as the disk is full.

use super::error::RuleError;
use super::running::lock;
use super::store::Store;
use crate::budget::Reservation;
use crate::db::Db;
use crate::storage::series_set::Columns;
use crate::storage::{Batch, Matcher, ReadError, SeriesSet, Source, TimeRange, Timestamp};
use larum_storage_format::{Labels, Sample, Samples, Value};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

/// The most samples that are held; beyond, the oldest half goes. About 5 MB.
const MOST_SAMPLES: usize = 300_000;

/// Samples that wait to be stored. Each series' are in the order of time.
#[derive(Debug, Default)]
pub struct Unstored(Mutex<Arc<Held>>);

#[derive(Debug, Clone, Default)]
struct Held {
    series: BTreeMap<Labels, Vec<(i64, f64)>>,
    samples: usize,
}

impl Unstored {
    /// Holds samples of one time. Those that are newer, as the clock went back, are forgotten.
    pub fn hold(&self, at: Timestamp, samples: impl IntoIterator<Item = (Labels, f64)>) {
        let t_ms = at.as_millis();
        let mut held = lock(&self.0);
        let held = Arc::make_mut(&mut held);
        held.retain(|held_ms| held_ms < t_ms);
        for (labels, value) in samples {
            held.series.entry(labels).or_default().push((t_ms, value));
            held.samples += 1;
        }
        if held.samples > MOST_SAMPLES {
            let mut times: Vec<i64> = held.series.values().flatten().map(|(t_ms, _)| *t_ms).collect();
            let half = times.len() / 2;
            let middle_ms = *times.select_nth_unstable(half).1;
            held.retain(|held_ms| held_ms >= middle_ms);
        }
    }

    /// All that is held; `None` if that is nothing.
    pub fn batch(&self) -> Option<Batch> {
        let held = lock(&self.0).clone();
        if held.samples == 0 {
            return None;
        }
        let mut batch = Batch::new();
        for (labels, samples) in &held.series {
            for (t_ms, value) in samples {
                batch.push(labels, Timestamp::from_millis(*t_ms), *value);
            }
        }
        Some(batch)
    }

    /// Forgets all: it is stored.
    pub fn clear(&self) {
        *lock(&self.0) = Arc::default();
    }

    /// How many samples are held.
    pub fn len(&self) -> usize {
        lock(&self.0).samples
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Held {
    fn retain(&mut self, wanted: impl Fn(i64) -> bool) {
        self.series.retain(|_, samples| {
            samples.retain(|(t_ms, _)| wanted(*t_ms));
            !samples.is_empty()
        });
        self.samples = self.series.values().map(Vec::len).sum();
    }
}

/// A database together with what it could not take.
pub(super) struct StoredOrNot<'a> {
    pub db: &'a Db,
    pub unstored: &'a Unstored,
}

impl Store for StoredOrNot<'_> {
    fn source(&self, memory: Option<&Arc<Reservation>>) -> Box<dyn Source + '_> {
        // In this order: what is stored meanwhile is seen twice, and shown once, but never missed.
        let held = lock(&self.unstored.0).clone();
        let stored = self.db.source(memory);
        if held.samples == 0 { stored } else { Box::new(Both { stored, held }) }
    }

    fn memory(&self) -> Option<Arc<Reservation>> {
        Store::memory(self.db)
    }

    fn append(&self, at: Timestamp, samples: &[(Labels, Value)]) -> Result<(), RuleError> {
        Store::append(self.db, at, samples)
    }
}

struct Both<'a> {
    stored: Box<dyn Source + 'a>,
    held: Arc<Held>,
}

impl Source for Both<'_> {
    fn select<'a>(
        &'a self,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<Box<dyn SeriesSet + 'a>, ReadError> {
        let stored = self.stored.select(matchers, range)?;
        let mut held: HashMap<&Labels, &[(i64, f64)]> = HashMap::new();
        for (labels, samples) in &self.held.series {
            let first = samples.partition_point(|(t_ms, _)| *t_ms < range.min_ms);
            let last = samples.partition_point(|(t_ms, _)| *t_ms <= range.max_ms);
            if first < last && matchers.iter().all(|matcher| matcher.matches_series(labels)) {
                held.insert(labels, &samples[first..last]);
            }
        }
        if held.is_empty() {
            return Ok(stored);
        }
        let mut labels = stored.label_reader(None);
        let beside = (0..stored.len()).map(|index| held.remove(&labels(index))).collect();
        drop(labels);
        Ok(Box::new(Selection { stored, beside, alone: held.into_iter().collect() }))
    }
}

struct Selection<'a> {
    stored: Box<dyn SeriesSet + 'a>,
    /// What is held of each stored series.
    beside: Vec<Option<&'a [(i64, f64)]>>,
    /// Series of which nothing is stored.
    alone: Vec<(&'a Labels, &'a [(i64, f64)])>,
}

impl SeriesSet for Selection<'_> {
    fn len(&self) -> usize {
        self.beside.len() + self.alone.len()
    }

    fn labels(&self, index: usize) -> Labels {
        match self.beside.get(index) {
            Some(_) => self.stored.labels(index),
            None => self.alone[index - self.beside.len()].0.clone(),
        }
    }

    fn load(&self, index: usize, columns: &mut Columns) -> Result<Samples, ReadError> {
        let (stored, held) = match self.beside.get(index) {
            Some(held) => (self.stored.load(index, columns)?, held.unwrap_or_default()),
            None => (Samples::default(), self.alone[index - self.beside.len()].1),
        };
        let Some(&(first_ms, _)) = held.first() else { return Ok(stored) };
        let stored =
            (0..stored.len()).map(|i| stored.sample(i)).take_while(|sample| sample.timestamp_ms < first_ms);
        let held = held.iter().map(|&(timestamp_ms, value)| Sample {
            timestamp_ms,
            start_timestamp_ms: None,
            value: Value::Float(value),
        });
        Ok(Samples::from_samples(stored.chain(held)))
    }

    fn warnings(&self) -> Vec<String> {
        self.stored.warnings()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promql::parse::parse_metric;
    use crate::{Options, promql};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + second * 1000)
    }

    fn sample(metric: &str, value: f64) -> (Labels, f64) {
        (parse_metric(metric).unwrap(), value)
    }

    #[test]
    fn rules_see_what_is_stored_and_what_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(folder.path(), Options::default()).unwrap();
        let mut batch = Batch::new();
        for (second, value) in [(0, 1.0), (10, 2.0)] {
            batch.push(&sample("a{x=\"1\"}", value).0, at(second), value);
            batch.push(&sample("b", value).0, at(second), value);
        }
        db.append(&batch).unwrap();
        let unstored = Unstored::default();
        let store = StoredOrNot { db: &db, unstored: &unstored };
        let ask = |query: &str, second: i64| {
            let expr = promql::parse(query).unwrap();
            let steps = promql::Steps::instant(at(second));
            let answer =
                promql::evaluate(&expr, &*store.source(None), steps, &promql::EvalOptions::default());
            match answer.unwrap().value {
                promql::Value::Vector(vector) => {
                    let mut shown: Vec<String> =
                        vector.iter().map(|e| format!("{} {:?}", e.labels, e.value)).collect();
                    shown.sort();
                    shown
                }
                other => panic!("{other:?}"),
            }
        };
        let both = ask("count_over_time({__name__=~\"a|b\"}[1m])", 20);
        assert_eq!(both.len(), 2);
        unstored.hold(at(20), [sample("a{x=\"1\"}", 3.0), sample("a{x=\"2\"}", 9.0)]);
        unstored.hold(at(25), [sample("a{x=\"1\"}", 4.0)]);
        assert_eq!(
            ask("a", 20),
            [r#"{__name__="a", x="1"} Float(3.0)"#, r#"{__name__="a", x="2"} Float(9.0)"#]
        );
        assert_eq!(ask("a{x=\"1\"}", 30), [r#"{__name__="a", x="1"} Float(4.0)"#]);
        assert_eq!(ask("count_over_time(a{x=\"1\"}[1m])", 30), [r#"{x="1"} Float(4.0)"#]);
        assert_eq!(ask("a", 15), [r#"{__name__="a", x="1"} Float(2.0)"#], "what is later is not seen");
        assert_eq!(ask("b", 30), [r#"{__name__="b"} Float(2.0)"#]);

        assert_eq!(db.append(&unstored.batch().unwrap()).unwrap().accepted, 3);
        unstored.clear();
        assert!(unstored.batch().is_none());
        assert_eq!(ask("count_over_time(a{x=\"1\"}[1m])", 30), [r#"{x="1"} Float(4.0)"#]);
    }

    #[test]
    fn what_is_held_is_bounded_and_follows_the_clock() {
        let unstored = Unstored::default();
        let series: Vec<_> = (0..1000).map(|i| sample(&format!("m{{i=\"{i}\"}}"), 1.0)).collect();
        for second in 0..1000 {
            unstored.hold(at(second), series.iter().cloned());
            assert!(unstored.len() <= MOST_SAMPLES);
        }
        assert!(unstored.len() >= MOST_SAMPLES / 3);
        unstored.hold(at(5), series.iter().cloned());
        assert_eq!(unstored.len(), 1000, "the clock went back");
    }
}
