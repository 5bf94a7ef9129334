//! Whatever a file holds, every way of reading it gives values or errors.
//!
//! Checksums pass under cargo-fuzz (see `checksum`), so the damage gets behind them. Three bytes
//! of the input change one byte of an intact file, as bytes from scratch would never get past the
//! header; an input that starts with 0xff is taken as the file itself.
#![no_main]

use larum_storage_format::chunk::Packing;
use larum_storage_format::partition::{Origin, Partition, PartitionWriter, WriterOptions};
use larum_storage_format::{Histogram, IdentitySeed, Labels, Samples, SeriesId};
use libfuzzer_sys::fuzz_target;
use std::sync::{Arc, LazyLock};

static INTACT: LazyLock<Vec<u8>> = LazyLock::new(intact);

fuzz_target!(|input: &[u8]| {
    if let Some((0xff, file)) = input.split_first() {
        return read_everything(file);
    }
    let mut file = INTACT.clone();
    for [low, high, value] in input.as_chunks::<3>().0 {
        let at = usize::from(u16::from_le_bytes([*low, *high])) % file.len();
        file[at] = *value;
    }
    read_everything(&file);
});

fn read_everything(file: &[u8]) {
    let Ok(partition) = Partition::open(file) else { return };
    for ordinal in 0..partition.series_count() {
        let _ = partition.series_id(ordinal).map(|id| partition.find(id.unwrap_or(SeriesId(0))));
        let _ = partition.labels(ordinal);
        for chunk in partition.chunks(ordinal).into_iter().flatten().flatten() {
            let Ok(column) = partition.column(chunk.timestamps.column) else { continue };
            let timestamps = partition.slice_of(&chunk, &column);
            if let Ok(decoded) = partition.decode(&chunk, timestamps) {
                assert_eq!(decoded.floats.len().max(decoded.histograms.len()), timestamps.len());
            }
        }
    }
    for name in partition.label_names().into_iter().flatten().flatten() {
        let Ok(Some(values)) = partition.label_values(name) else { continue };
        let mut ordinals = Vec::new();
        for position in 0..values.len() {
            let _ = values.value(position).map(|value| values.find(value));
            ordinals.clear();
            if values.ordinals(position, &mut ordinals).is_ok() {
                assert!(ordinals.iter().all(|&ordinal| ordinal < partition.series_count()));
            }
        }
    }
}

/// Floats, histograms and start timestamps of a few series.
fn intact() -> Vec<u8> {
    let seed = IdentitySeed(1);
    let timestamps: Arc<[i64]> = (0..200).map(|i| 15_000 * i + i % 3).collect();
    let mut series: Vec<(SeriesId, Labels, Samples)> = (0..6usize)
        .map(|s| {
            let instance = s.to_string();
            let labels =
                Labels::from_pairs([("__name__", "m"), ("instance", &instance)]).expect("fixed labels");
            let mut samples = Samples {
                timestamps: timestamps.clone(),
                floats: (0..200)
                    .map(|i| match s {
                        3 => (i as f64).sin(),
                        // One is an alias of the other.
                        4 | 5 => (i * i % 17 + s) as f64,
                        _ => (i * s) as f64 / 10.0,
                    })
                    .collect(),
                start_timestamps: if s == 1 { vec![7; 200] } else { Vec::new() },
                ..Samples::default()
            };
            if s == 2 {
                samples.histograms = (50..80u32)
                    .map(|i| {
                        (
                            i,
                            Arc::new(Histogram {
                                positive_buckets: vec![f64::from(i)],
                                ..Histogram::default()
                            }),
                        )
                    })
                    .collect();
            }
            (SeriesId::of(&labels, seed), labels, samples)
        })
        .collect();
    series.sort_by_key(|(id, ..)| *id);
    let options = WriterOptions {
        seed,
        number: 1,
        sequence: 1,
        origin: Origin { generations: (1, 1), output: 0, outputs: 1, sources: vec![] },
        window_ms: 0..7_200_000,
        expected_data_bytes: 0,
        packing: Packing::KEPT,
    };
    let mut writer = PartitionWriter::new(Vec::new(), options).expect("memory takes bytes");
    for (id, labels, samples) in &series {
        writer.push(*id, labels, samples).expect("memory takes bytes");
    }
    let finished = writer.finish().expect("memory takes bytes");
    let mut file = finished.sink;
    let header = finished.header.encode();
    file[..header.len()].copy_from_slice(&header);
    file
}
