//! Any bytes are the index of a block of Prometheus or an error, and so are its tombstones and its
//! `meta.json`; a walk over the series ends.
#![no_main]

use larum::ingest::prometheus_block::{BlockMeta, BlockSeries, Index, Tombstones, superseded};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Ok(tombstones) = Tombstones::decode(input) {
        let _ = tombstones.deleted(1);
    }
    if let Ok(meta) = BlockMeta::parse(input) {
        let _ = superseded(&[meta]);
    }
    let Ok(index) = Index::open(input) else { return };
    let (mut walk, mut series) = (index.series(), BlockSeries::default());
    let mut count = 0;
    while let Ok(true) = walk.next(&mut series) {
        count += 1;
        // A series takes six bytes at least: length, number of labels and of chunks, checksum.
        assert!(count <= input.len() / 6);
        assert!(series.chunks.len() <= input.len());
        let _ = index.progress(&walk);
    }
});
