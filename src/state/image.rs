//! All that a store holds, in memory: what stands for it while sled cannot be written.

use super::export::{Export, Writer};
use super::{COMMITS, Changes, commits_of, flush};
use std::collections::BTreeMap;

/// Every bucket by its name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    buckets: BTreeMap<Vec<u8>, Bucket>,
}

/// The entries of a bucket, and how many commits it has seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Bucket {
    commits: u64,
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Image {
    /// What `db` holds.
    pub fn of_sled(db: &sled::Db) -> Result<Image, sled::Error> {
        let mut image = Image::default();
        for name in db.tree_names() {
            let tree = db.open_tree(&name)?;
            let mut bucket = Bucket { commits: commits_of(&tree)?, entries: BTreeMap::new() };
            for entry in &tree {
                let (key, value) = entry?;
                if key != COMMITS {
                    bucket.entries.insert(key.to_vec(), value.to_vec());
                }
            }
            image.buckets.insert(name.to_vec(), bucket);
        }
        Ok(image)
    }

    /// What an export holds.
    pub fn of_export(export: &Export) -> Image {
        let buckets = export.buckets().into_iter().map(|bucket| {
            let entries = bucket.entries.into_iter().map(|(key, value)| (key.to_vec(), value.to_vec()));
            (bucket.name.to_vec(), Bucket { commits: bucket.commits, entries: entries.collect() })
        });
        Image { buckets: buckets.collect() }
    }

    /// Applies changes.
    pub fn commit(&mut self, bucket: &str, changes: &Changes) {
        let bucket = self.buckets.entry(bucket.as_bytes().to_vec()).or_default();
        bucket.commits += 1;
        for (key, value) in &changes.entries {
            match value {
                Some(value) => drop(bucket.entries.insert(key.clone(), value.clone())),
                None => drop(bucket.entries.remove(key)),
            }
        }
    }

    /// The value of a key.
    pub fn get(&self, bucket: &str, key: &[u8]) -> Option<&Vec<u8>> {
        self.buckets.get(bucket.as_bytes())?.entries.get(key)
    }

    /// The entries of a bucket whose key begins with `prefix`.
    pub fn scan<'a>(
        &'a self,
        bucket: &str,
        prefix: &'a [u8],
    ) -> impl Iterator<Item = (&'a Vec<u8>, &'a Vec<u8>)> {
        let entries = self.buckets.get(bucket.as_bytes()).map(|bucket| &bucket.entries);
        let from = entries.into_iter().flat_map(|entries| entries.range(prefix.to_vec()..));
        from.take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// Makes `db` hold this and nothing else. Returns how many entries that changes.
    pub fn write_to(&self, db: &sled::Db) -> Result<usize, sled::Error> {
        let mut changed = 0;
        let of_db = Image::of_sled(db)?;
        let none = Bucket::default();
        for name in
            of_db.buckets.keys().chain(self.buckets.keys().filter(|n| !of_db.buckets.contains_key(*n)))
        {
            let (old, new) =
                (of_db.buckets.get(name).unwrap_or(&none), self.buckets.get(name).unwrap_or(&none));
            if old.entries == new.entries && old.commits >= new.commits {
                continue;
            }
            let mut batch = sled::Batch::default();
            for key in old.entries.keys().filter(|key| !new.entries.contains_key(*key)) {
                batch.remove(key.as_slice());
                changed += 1;
            }
            for (key, value) in new.entries.iter().filter(|(key, value)| old.entries.get(*key) != Some(value))
            {
                batch.insert(key.as_slice(), value.as_slice());
                changed += 1;
            }
            batch.insert(COMMITS, &old.commits.max(new.commits).saturating_add(1).to_le_bytes());
            let tree = db.open_tree(name)?;
            tree.apply_batch(batch)?;
            flush(&tree)?;
        }
        Ok(changed)
    }

    /// The bytes of an export of it.
    pub fn export(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        for (name, bucket) in &self.buckets {
            writer.begin(name, bucket.commits);
            bucket.entries.iter().for_each(|(key, value)| writer.entry(key, value));
            writer.end();
        }
        writer.finish()
    }
}
