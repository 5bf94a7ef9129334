//! Any bytes are a chunk of Prometheus or an error, and hold no more samples than they say.
#![no_main]

use larum::ingest::prometheus_block::{check_segment, chunk_at};
use larum_storage_format::Value;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = check_segment(input);
    let Ok(samples) = chunk_at(input, 0).and_then(|chunk| chunk.samples()) else { return };
    let mut count = 0;
    for sample in samples {
        let Ok((_, value)) = sample else { break };
        count += 1;
        if let Value::Histogram(histogram) = value {
            let buckets = histogram.positive_buckets.len() + histogram.negative_buckets.len();
            assert!(buckets <= input.len() * 8);
        }
    }
    assert!(count <= usize::from(u16::MAX));
});
