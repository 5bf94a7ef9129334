//! What must be stored: for each sample what it may be after a power cut.

use crate::storage::TimeRange;
use larum_storage_format::{Histogram, STALE_NAN, Span, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A series and a time.
pub(super) type Key = (u8, i64);

/// A sample without its time.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub value: Value,
    /// 0: unknown.
    pub start_ms: i64,
}

impl PartialEq for Stored {
    fn eq(&self, other: &Stored) -> bool {
        self.start_ms == other.start_ms && self.value.same_bits(&other.value)
    }
}

impl Stored {
    /// One of many samples, by its number.
    pub fn new(number: u64, t_ms: i64) -> Stored {
        let value = match number % 23 {
            0 => Value::Float(STALE_NAN),
            1 => Value::Float(-0.0),
            2 => Value::Float(f64::INFINITY),
            3 => Value::Float(f64::from_bits(0x7ff8_0000_0000_0000 | number)),
            4 => Value::Histogram(exponential(number)),
            5 => Value::Histogram(custom(number)),
            6 => Value::Float(number as f64 * 1e-3 + 1.0 / 3.0),
            _ => Value::Float(number as f64),
        };
        let start_ms = if number % 11 == 4 { t_ms - (number % 5000) as i64 } else { 0 };
        Stored { value, start_ms }
    }

    /// What is stored when this comes where `before` is: a stale marker replaces no value.
    fn over(&self, before: Option<&Stored>) -> Stored {
        match before {
            Some(before) if self.value.is_stale() && !before.value.is_stale() => before.clone(),
            _ => self.clone(),
        }
    }
}

fn exponential(number: u64) -> Arc<Histogram> {
    let buckets = vec![(number % 7) as f64, 3.0, (number % 100) as f64];
    Arc::new(Histogram {
        is_integer: true,
        schema: (number % 5) as i32,
        zero_threshold: 1e-128,
        zero_count: 1.0,
        count: 1.0 + buckets.iter().sum::<f64>(),
        sum: number as f64 / 8.0,
        positive_spans: vec![Span { offset: -1, length: 2 }, Span { offset: 3, length: 1 }],
        positive_buckets: buckets,
        ..Histogram::default()
    })
}

fn custom(number: u64) -> Arc<Histogram> {
    Arc::new(Histogram {
        schema: larum_storage_format::histogram::CUSTOM_BUCKETS_SCHEMA,
        count: number as f64 + 0.5,
        sum: number as f64 * 0.25,
        positive_spans: vec![Span { offset: 0, length: 2 }],
        positive_buckets: vec![number as f64, 0.5],
        custom_values: vec![0.1, 2.5],
        ..Histogram::default()
    })
}

/// What is read.
pub(super) type Found = BTreeMap<Key, Stored>;

/// What must be stored.
#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    /// What each sample may be after a power cut, `None` for missing. The last is what it is now.
    samples: BTreeMap<Key, Vec<Option<Stored>>>,
    /// Those that an operation was about to change when the process ended.
    unsure: BTreeSet<Key>,
    /// Times of which samples may be missing, and older ones come to light: files were damaged.
    damaged: Vec<TimeRange>,
}

/// What happened before a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum After {
    /// Nothing that could lose anything.
    Nothing,
    /// The process ended.
    End,
    /// The power was cut.
    PowerCut,
}

impl Model {
    /// The times of the samples that are there.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        let there = self.samples.iter().filter(|(_, may)| may.last().is_some_and(Option::is_some));
        there.map(|(key, _)| *key)
    }

    /// A sample was acknowledged. If it is not `durable`, a power cut may still take it.
    pub fn append(&mut self, key: Key, stored: &Stored, durable: bool) {
        let may = self.samples.entry(key).or_insert_with(|| vec![None]);
        let mut after: Vec<Option<Stored>> = if durable { Vec::new() } else { may.clone() };
        may.iter().for_each(|before| push(&mut after, Some(stored.over(before.as_ref()))));
        *may = after;
    }

    /// A deletion was acknowledged.
    pub fn delete(&mut self, deleted: impl Fn(Key) -> bool) {
        self.samples.retain(|key, _| !deleted(*key));
    }

    /// The process ended while it appended.
    pub fn append_unsure(&mut self, key: Key, stored: &Stored) {
        self.append(key, stored, false);
        self.unsure.insert(key);
    }

    /// The process ended while it deleted.
    pub fn delete_unsure(&mut self, deleted: impl Fn(Key) -> bool) {
        for (&key, may) in self.samples.iter_mut().filter(|(key, _)| deleted(**key)) {
            push(may, None);
            self.unsure.insert(key);
        }
    }

    /// All that is there now survives a power cut.
    pub fn settle(&mut self) {
        self.samples.values_mut().for_each(|may| drop(may.drain(..may.len() - 1)));
    }

    /// A file with samples of these times was damaged.
    pub fn damage(&mut self, range: TimeRange) {
        self.damaged.push(range);
    }

    /// Compares with what was read. What is older than the border of its series has expired: it may be
    /// gone, and must be if `strict`.
    ///
    /// # Panics
    /// If they differ.
    pub fn check(&mut self, found: &Found, border_ms: impl Fn(u8) -> i64, strict: bool, after: After) {
        let is_damaged = |key: &Key| self.damaged.iter().any(|range| range.contains(key.1));
        let is_known = |key: &Key| self.samples.contains_key(key) || is_damaged(key);
        if let Some((key, stored)) = found.iter().find(|(key, _)| !is_known(key)) {
            panic!("{key:?} was deleted or never written, and is {stored:?}");
        }
        let unsure = std::mem::take(&mut self.unsure);
        for (key, may) in self.samples.iter_mut().filter(|(key, _)| !is_damaged(key)) {
            let found = found.get(key).cloned();
            if key.1 < border_ms(key.0) {
                // While nothing expires, as nobody trusts the clock, what has expired before may show
                // again, and as it was before it was overwritten.
                assert!(found.is_none() || !strict, "{key:?} has expired");
                continue;
            }
            let is_right = match after {
                After::PowerCut => may.contains(&found),
                After::End if unsure.contains(key) => may.contains(&found),
                _ => may.last() == Some(&found),
            };
            assert!(is_right, "{key:?} is {found:?} after {after:?}, may be {may:?}");
            match after {
                After::PowerCut => *may = vec![found],
                // A MANIFEST that is read was synced: what is deleted stays so.
                After::End if unsure.contains(key) && found.is_none() => *may = vec![None],
                After::End if unsure.contains(key) => push(may, found),
                _ => {}
            }
        }
        self.samples.retain(|_, may| may.iter().any(Option::is_some));
    }
}

/// Adds a possibility as the last, once.
fn push(may: &mut Vec<Option<Stored>>, stored: Option<Stored>) {
    may.retain(|other| *other != stored);
    may.push(stored);
}
