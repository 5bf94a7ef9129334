//! Blocks of Prometheus, found in its data folder or named one by one.

use super::{BATCH_SAMPLES, ImportError, OnProgress, Target, Totals};
use crate::ingest::prometheus_block::{
    BlockMeta, BlockSeries, Index, Tombstones, check_segment, chunk_at, is_block_name, superseded,
};
use crate::storage::{Batch, map_finished};
use bytes::Bytes;
use larum_storage_format::Value;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// The blocks to be imported, from the oldest on.
#[derive(Debug, Default)]
pub struct Blocks {
    blocks: Vec<(PathBuf, BlockMeta)>,
    /// What the user should know, such as that there is a WAL.
    pub notes: Vec<String>,
}

impl Blocks {
    /// Finds the blocks in `paths`, each of which is a block or a folder of blocks.
    ///
    /// # Errors
    /// A path is neither, or a block's `meta.json` cannot be used.
    pub fn find(paths: &[PathBuf]) -> io::Result<Blocks> {
        let mut blocks = Blocks::default();
        for path in paths {
            if path.join("meta.json").exists() {
                blocks.add(path)?;
                continue;
            }
            let before = blocks.blocks.len();
            for entry in fs::read_dir(path).map_err(|e| named(path, e))? {
                let name = entry?.file_name();
                if name.to_str().is_some_and(is_block_name) {
                    blocks.add(&path.join(name))?;
                }
            }
            if path.join("wal").exists() {
                blocks.notes.push(format!(
                    "{}: what Prometheus has in memory and in its WAL, mostly the last two to three hours, is not \
                     read; take a snapshot while it runs (POST /api/v1/admin/tsdb/snapshot, with \
                     --web.enable-admin-api) and import that from its folder snapshots",
                    path.display()
                ));
            }
            if blocks.blocks.len() == before {
                let what = "neither a block of Prometheus nor a folder that holds any";
                return Err(named(path, io::Error::new(ErrorKind::NotFound, what)));
            }
        }
        let metas: Vec<BlockMeta> = blocks.blocks.iter().map(|(_, meta)| meta.clone()).collect();
        let gone = superseded(&metas);
        blocks.blocks.retain(|(_, meta)| !gone.contains(&meta.ulid));
        blocks.blocks.sort_by_key(|(_, meta)| (meta.min_ms, meta.max_ms));
        Ok(blocks)
    }

    fn add(&mut self, path: &Path) -> io::Result<()> {
        let file = path.join("meta.json");
        let json = fs::read(&file).map_err(|e| named(&file, e))?;
        let meta =
            BlockMeta::parse(&json).map_err(|e| named(&file, io::Error::new(ErrorKind::InvalidData, e)))?;
        self.blocks.push((path.to_owned(), meta));
        Ok(())
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// How many samples the blocks say they hold.
    pub fn samples(&self) -> u64 {
        self.blocks.iter().map(|(_, meta)| meta.stats.num_samples).sum()
    }
}

/// Imports blocks. A damaged or unknown chunk is counted and left out; of a block with a damaged index
/// what follows the damage, or all of it.
///
/// # Errors
/// A file cannot be read, or samples cannot be stored.
pub fn import_blocks(
    blocks: &Blocks,
    target: &mut dyn Target,
    totals: &mut Totals,
    on_progress: OnProgress<'_>,
) -> Result<(), ImportError> {
    let all = blocks.samples().max(1) as f64;
    let mut done = 0.0;
    for (path, meta) in &blocks.blocks {
        let share = meta.stats.num_samples as f64 / all;
        let mut on_part = |totals: &Totals, part: f64| on_progress(totals, Some(done + part * share));
        Block::open(path)?.import(target, totals, &mut on_part)?;
        done += share;
    }
    Ok(())
}

/// The files of one block, mapped.
struct Block<'p> {
    path: &'p Path,
    index: Bytes,
    segments: Vec<Bytes>,
    tombstones: Option<Bytes>,
}

/// Samples on their way.
struct Load<'t> {
    target: &'t mut dyn Target,
    batch: Batch,
    /// What the batch takes, in samples.
    weight: usize,
}

impl Load<'_> {
    fn add(&mut self, t_ms: i64, value: Value, totals: &mut Totals) -> Result<(), ImportError> {
        match value {
            Value::Float(value) => {
                self.batch.sample(t_ms, value);
                self.weight += 1;
            }
            Value::Histogram(histogram) => {
                self.weight += 16 + histogram.positive_buckets.len() + histogram.negative_buckets.len();
                self.batch.histogram(t_ms, histogram);
            }
        }
        if self.weight >= BATCH_SAMPLES { self.send(totals) } else { Ok(()) }
    }

    fn send(&mut self, totals: &mut Totals) -> Result<(), ImportError> {
        if !self.batch.is_empty() {
            self.target.append(&self.batch, totals)?;
        }
        self.batch.clear();
        self.weight = 0;
        Ok(())
    }
}

impl<'p> Block<'p> {
    fn open(path: &'p Path) -> io::Result<Block<'p>> {
        let folder = path.join("chunks");
        let mut names = Vec::new();
        for entry in fs::read_dir(&folder).map_err(|e| named(&folder, e))? {
            let name = entry?.file_name();
            if name.to_str().is_some_and(|name| name.bytes().all(|b| b.is_ascii_digit())) {
                names.push(folder.join(name));
            }
        }
        names.sort();
        let tombstones = match map_finished(&path.join("tombstones")) {
            Ok(bytes) => Some(bytes),
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        Ok(Block {
            path,
            index: map_finished(&path.join("index"))?,
            segments: names.iter().map(|name| map_finished(name)).collect::<io::Result<_>>()?,
            tombstones,
        })
    }

    fn import(
        &self,
        target: &mut dyn Target,
        totals: &mut Totals,
        on_progress: &mut dyn FnMut(&Totals, f64),
    ) -> Result<(), ImportError> {
        let fault =
            |what: &str, error: &dyn std::fmt::Display| format!("{}: {what}: {error}", self.path.display());
        // What was deleted must not come back.
        let tombstones = self.tombstones.as_deref().map(Tombstones::decode).transpose();
        let (tombstones, index) = match (tombstones, Index::open(&self.index)) {
            (Ok(tombstones), Ok(index)) => (tombstones.unwrap_or_default(), index),
            (Err(error), _) => {
                totals.fault(fault("the whole block, as what was deleted from it is not known", &error));
                return Ok(());
            }
            (_, Err(error)) => {
                totals.fault(fault("the whole block", &error));
                return Ok(());
            }
        };
        let mut load = Load { target, batch: Batch::new(), weight: 0 };
        let (mut walk, mut series) = (index.series(), BlockSeries::default());
        loop {
            match walk.next(&mut series) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    totals.fault(fault("all series from here on", &error));
                    break;
                }
            }
            let batches = load.batch.is_empty();
            self.series(&series, tombstones.deleted(series.reference), &mut load, totals)?;
            if batches || load.batch.is_empty() {
                on_progress(totals, index.progress(&walk));
            }
        }
        load.send(totals)
    }

    fn series(
        &self,
        series: &BlockSeries,
        deleted: &[(i64, i64)],
        load: &mut Load<'_>,
        totals: &mut Totals,
    ) -> Result<(), ImportError> {
        for place in &series.chunks {
            let segment = self.segments.get(place.segment as usize);
            let decoded = segment.ok_or_else(|| "its segment is missing".to_owned()).and_then(|segment| {
                let found = check_segment(segment).and_then(|()| chunk_at(segment, place.offset)?.samples());
                found.map_err(|e| e.to_string())
            });
            let fault = |error: String| {
                let number = u64::from(place.segment) + 1;
                format!("{}: chunks/{number:06}: {}: {error}", self.path.display(), series.labels)
            };
            let samples = match decoded {
                Ok(samples) => samples,
                Err(error) => {
                    totals.fault(fault(error));
                    continue;
                }
            };
            for sample in samples {
                let (t_ms, value) = match sample {
                    Ok(sample) => sample,
                    Err(error) => {
                        totals.fault(fault(error.to_string()));
                        break;
                    }
                };
                if deleted.iter().any(|&(from_ms, to_ms)| (from_ms..=to_ms).contains(&t_ms)) {
                    totals.deleted += 1;
                    continue;
                }
                // A batch may have been sent within the series.
                load.batch.push_series(&series.labels);
                load.add(t_ms, value, totals)?;
            }
        }
        Ok(())
    }
}

/// Puts the path into an error of the system.
fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
