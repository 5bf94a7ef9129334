//! Any bytes decode to a chunk of so many samples or to an error; any floats come back bit by bit, and
//! their statistics know the last of them.
#![no_main]

use larum_storage_format::chunk::{ChunkValues, MAX_CHUNK_SAMPLES, Packing, chunk_stats, decode_chunk, encode_chunk};
use larum_storage_format::is_stale;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((n, bytes)) = input.split_first_chunk::<2>() else { return };
    let n = usize::from(u16::from_le_bytes(*n)) % (MAX_CHUNK_SAMPLES + 2);
    let timestamps: Vec<i64> = (0..n as i64).collect();
    let _ = chunk_stats(bytes, &timestamps);
    if let Ok(decoded) = decode_chunk(bytes, &timestamps) {
        assert_eq!(decoded.floats.len().max(decoded.histograms.len()), n);
    }

    let (words, _) = bytes.as_chunks::<8>();
    let values: Vec<f64> =
        words.iter().take(MAX_CHUNK_SAMPLES).map(|word| f64::from_le_bytes(*word)).collect();
    let timestamps: Vec<i64> = (0..values.len() as i64).collect();
    let mut encoded = Vec::new();
    encode_chunk(
        &timestamps,
        ChunkValues::Floats(&values),
        &[],
        Packing { huffman_saving_percent: 0, huffman_from: 0, stats_from: 0 },
        &mut encoded,
    );
    let decoded = decode_chunk(&encoded, &timestamps).expect("what was encoded decodes");
    let same = decoded.floats.iter().zip(&values).all(|(a, b)| a.to_bits() == b.to_bits());
    assert!(same && decoded.floats.len() == values.len());
    if let Some(stats) = chunk_stats(&encoded, &timestamps).expect("what was encoded is read") {
        assert_eq!(stats.last.to_bits(), values[values.len() - 1].to_bits());
        assert_eq!(stats.live, values.iter().filter(|v| !is_stale(**v)).count());
    }
});
