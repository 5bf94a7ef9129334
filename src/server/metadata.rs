//! What metrics are, as their senders describe them: type, help, unit.
//!
//! Kept in memory, and in `state` so that a restart does not forget it. Senders repeat it every
//! minute; only what is new is written.

use crate::Db;
use crate::state::Changes;
use crate::state::buckets::METADATA;
use larum_storage_format::metadata::MetricMetadata;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Metrics beyond this number are not described; a sender of made-up names fills no memory.
const MAX_METRICS: usize = 100_000;
/// Longer descriptions are not kept.
const MAX_TEXT_BYTES: usize = 4096;

/// One description of a metric.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// The name of its type, see [`MetricMetadata::metric_type`].
    #[serde(rename = "type")]
    pub kind: String,
    /// What it means.
    pub help: String,
    /// Its unit.
    pub unit: String,
}

/// The newest description of every metric.
#[derive(Default)]
pub struct MetadataStore {
    known: Mutex<BTreeMap<String, Description>>,
    db: OnceLock<Db>,
}

impl MetadataStore {
    /// Takes up what was known before, and keeps what comes in `db` from now on.
    pub fn open(&self, db: &Db) {
        match db.state().scan(METADATA, b"") {
            Ok(entries) => {
                let mut known = self.lock();
                for (name, description) in entries {
                    let description = serde_json::from_slice::<Description>(&description);
                    if let (Ok(name), Ok(description)) = (String::from_utf8(name), description) {
                        known.entry(name).or_insert(description);
                    }
                }
            }
            Err(error) => tracing::warn!("metadata of metrics could not be read: {error}"),
        }
        let _ = self.db.set(db.clone());
    }

    /// Takes descriptions up.
    pub fn put(&self, descriptions: Vec<MetricMetadata>) {
        let mut changes = Changes::default();
        let mut known = self.lock();
        for MetricMetadata { name, metric_type, help, unit } in descriptions {
            let fits = !name.is_empty() && name.len() + help.len() + unit.len() <= MAX_TEXT_BYTES;
            let description = Description { kind: metric_type.as_str().to_owned(), help, unit };
            let is_known = known.contains_key(&name);
            if !fits || (!is_known && known.len() >= MAX_METRICS) || known.get(&name) == Some(&description) {
                continue;
            }
            let bytes = serde_json::to_vec(&description).expect("three texts are always JSON");
            changes.entries.push((name.clone().into_bytes(), Some(bytes)));
            known.insert(name, description);
        }
        drop(known);
        let Some(db) = self.db.get().filter(|_| !changes.entries.is_empty()).cloned() else { return };
        // What cannot be written now is written later.
        let commit = move || drop(db.state().commit(METADATA, &changes));
        // It waits for the device, and nobody waits for it.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(commit)),
            Err(_) => commit(),
        }
    }

    /// Calls `each` with every metric that is `metric`, or with all, sorted by name.
    pub fn each(&self, metric: Option<&str>, mut each: impl FnMut(&str, &Description)) {
        let known = self.lock();
        match metric {
            Some(metric) => known.get_key_value(metric).into_iter().for_each(|(n, d)| each(n, d)),
            None => known.iter().for_each(|(n, d)| each(n, d)),
        }
    }

    /// How many metrics are described.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether no metric is described.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Description>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use larum_storage_format::metadata::MetricType;

    #[test]
    fn the_newest_description_counts_and_memory_is_bounded() {
        let store = MetadataStore::default();
        let meta = |name: &str, help: &str| MetricMetadata {
            name: name.to_owned(),
            metric_type: MetricType::Gauge,
            help: help.to_owned(),
            unit: String::new(),
        };
        store.put(vec![meta("a", "old"), meta("", "no name"), meta("b", &"x".repeat(5000))]);
        store.put(vec![meta("a", "new")]);
        let mut seen = Vec::new();
        store.each(None, |name, d| seen.push((name.to_owned(), d.help.clone())));
        assert_eq!(seen, [("a".to_owned(), "new".to_owned())]);
        assert_eq!(store.len(), 1);
    }
}
