//! Any bytes are a remote write request or an error; whatever decodes can be asked for every series.
#![no_main]

use larum::Batch;
use larum::ingest::remote_write::{BodyLimits, decode, decompress, describe_labels};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let limits = BodyLimits { compressed_bytes: 1 << 20, decoded_bytes: 4 << 20 };
    let mut text = Vec::new();
    let mut batch = Batch::new();
    if decompress(input, &limits, &mut text).is_ok() {
        assert!(text.len() <= limits.decoded_bytes);
        let _ = decode(text, &mut batch);
    }
    if decode(input.to_vec(), &mut batch).is_err() {
        assert!(batch.is_empty());
        return;
    }
    let mut samples = 0;
    for series in 0..batch.series_count() {
        samples += batch.series_samples(series).len();
        if let Ok(labels) = batch.parse_labels(series) {
            assert!(labels.iter().all(|(name, value)| !name.is_empty() && !value.is_empty()));
        }
        let _ = describe_labels(batch.series_text(series));
    }
    assert_eq!(samples, batch.len());
});
