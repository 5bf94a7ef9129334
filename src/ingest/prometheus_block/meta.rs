//! `meta.json`: what a block says of itself.

use serde::Deserialize;
use std::collections::BTreeSet;

/// What a block says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockMeta {
    version: u32,
    /// Its name.
    pub ulid: String,
    /// Its oldest sample.
    #[serde(rename = "minTime")]
    pub min_ms: i64,
    /// Where its time ends, exclusive.
    #[serde(rename = "maxTime")]
    pub max_ms: i64,
    /// How much it holds.
    #[serde(default)]
    pub stats: BlockStats,
    #[serde(default)]
    compaction: Compaction,
}

/// How much a block holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BlockStats {
    /// Samples.
    pub num_samples: u64,
    /// Series.
    pub num_series: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Compaction {
    deletable: bool,
    parents: Vec<Parent>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Parent {
    ulid: String,
}

impl BlockMeta {
    /// Reads a `meta.json`.
    ///
    /// # Errors
    /// What is wrong with it, in a sentence.
    pub fn parse(json: &[u8]) -> Result<BlockMeta, String> {
        let meta: BlockMeta = serde_json::from_slice(json).map_err(|e| e.to_string())?;
        match meta.version {
            1 => Ok(meta),
            other => Err(format!("version {other} of blocks is not known, this program reads version 1")),
        }
    }
}

/// Whether a folder may be a block by its name: a ULID.
pub fn is_block_name(name: &str) -> bool {
    name.len() == 26 && name.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase())
}

/// The names of blocks that others were made of, and of empty ones: a crash left them, and what was
/// deleted since is still in them.
pub fn superseded(blocks: &[BlockMeta]) -> BTreeSet<String> {
    let parents = blocks.iter().flat_map(|block| &block.compaction.parents).map(|parent| &parent.ulid);
    let empty = blocks.iter().filter(|block| block.compaction.deletable).map(|block| &block.ulid);
    parents.chain(empty).cloned().collect()
}
