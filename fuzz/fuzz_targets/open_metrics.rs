//! Any text is OpenMetrics or an error, the same in one piece and in two; whatever decodes has labels.
#![no_main]

use larum::Batch;
use larum::ingest::open_metrics::Decoder;
use libfuzzer_sys::fuzz_target;

/// The samples of a text that is cut at `at`, and what comes of it.
fn decode(text: &[u8], at: usize) -> (Vec<(i64, u64)>, Result<(), String>) {
    let (mut decoder, mut batch, mut found) = (Decoder::new(Some(7)), Batch::new(), Vec::new());
    let mut collect = |batch: &Batch| {
        found.extend(batch.timestamps().iter().copied().zip(batch.values().iter().map(|v| v.to_bits())));
        for series in 0..batch.series_count() {
            if let Ok(labels) = batch.parse_labels(series) {
                assert!(labels.metric_name().is_some() || batch.series_text(series).contains(&b'"'));
            }
        }
    };
    let (first, second) = text.split_at(at);
    let outcome = decoder.decode(first.to_vec(), &mut batch).and_then(|mut rest| {
        collect(&batch);
        rest.extend_from_slice(second);
        decoder.finish(rest, &mut batch)
    });
    collect(&batch);
    (found, outcome.map_err(|error| error.to_string()))
}

fuzz_target!(|input: &[u8]| {
    let [at, text @ ..] = input else { return };
    let whole = decode(text, 0);
    let at = usize::from(*at).min(text.len());
    let cut = decode(text, at);
    assert_eq!(whole.1, cut.1);
    // What stands before a fault is told again where it lies in the first piece.
    if whole.1.is_ok() {
        assert_eq!(whole.0, cut.0);
    }
});
