//! Partitions written and read as a whole.

use super::*;
use crate::chunk::Packing;
use crate::cursor::{DecodeError, DecodeErrorKind};
use crate::histogram::Histogram;
use crate::labels::Labels;
use crate::sample::{STALE_NAN, Samples};
use crate::series_id::{IdentitySeed, SeriesId};
use std::sync::Arc;

const SEED: IdentitySeed = IdentitySeed(42);
const WINDOW_MS: std::ops::Range<i64> = 0..7_200_000;

fn options() -> WriterOptions {
    WriterOptions {
        seed: SEED,
        number: 7,
        sequence: 5,
        origin: Origin { generations: (3, 3), output: 0, outputs: 1, sources: vec![] },
        window_ms: WINDOW_MS,
        expected_data_bytes: 0,
        packing: Packing::KEPT,
    }
}

type Series = (SeriesId, Labels, Samples);

fn write(mut series: Vec<Series>, options: WriterOptions) -> Vec<u8> {
    series.sort_by_key(|(id, ..)| *id);
    let mut writer = PartitionWriter::new(Vec::new(), options).unwrap();
    for (id, labels, samples) in &series {
        writer.push(*id, labels, samples).unwrap();
    }
    let finished = writer.finish().unwrap();
    let mut file = finished.sink;
    let header = finished.header.encode();
    file[..header.len()].copy_from_slice(&header);
    file
}

fn one(pairs: &[(&str, &str)], samples: Samples) -> Series {
    let labels = Labels::from_pairs(pairs.iter().copied()).unwrap();
    (SeriesId::of(&labels, SEED), labels, samples)
}

fn floats(timestamps: &Arc<[i64]>, f: impl Fn(usize) -> f64) -> Samples {
    Samples {
        timestamps: timestamps.clone(),
        floats: (0..timestamps.len()).map(f).collect(),
        ..Samples::default()
    }
}

/// Two targets with 40 series each; the last series of each began late.
fn two_targets() -> Vec<Series> {
    let mut series = Vec::new();
    for target in 0..2i64 {
        let timestamps: Arc<[i64]> = (0..480).map(|i| 15_000 * i + 3000 * target + i * 7 % 5).collect();
        for s in 0..40 {
            let timestamps = if s == 39 { timestamps[100..].into() } else { timestamps.clone() };
            let pairs = [
                ("__name__", ["up", "requests_total", "temperature"][s % 3]),
                ("instance", ["a:1", "b:1"][target as usize]),
                ("path", &format!("/{s}")),
            ];
            series.push(one(&pairs, floats(&timestamps, |i| (i * s) as f64 / [1.0, 10.0][s % 2])));
        }
    }
    series
}

/// What a series holds, put together from its chunks: per timestamp the value's bits or histogram.
fn read(partition: &Partition<Vec<u8>>, ordinal: u32) -> Vec<(i64, Option<Arc<Histogram>>, u64, i64)> {
    let mut samples = Vec::new();
    for chunk in partition.chunks(ordinal).unwrap() {
        let chunk = chunk.unwrap();
        let column = partition.column(chunk.timestamps.column).unwrap();
        let timestamps = partition.slice_of(&chunk, &column);
        let decoded = partition.decode(&chunk, timestamps).unwrap();
        for (i, &t) in timestamps.iter().enumerate() {
            let bits = decoded.floats.get(i).map_or(0, |v| v.to_bits());
            let start = decoded.start_timestamps.get(i).copied().unwrap_or(0);
            samples.push((t, decoded.histograms.get(i).cloned(), bits, start));
        }
    }
    samples.sort_by_key(|(t, ..)| *t);
    samples
}

fn check(file: Vec<u8>, series: &[Series]) -> Partition<Vec<u8>> {
    let partition = Partition::open(file).unwrap();
    assert_eq!(partition.series_count() as usize, series.len());
    for (id, labels, samples) in series {
        let ordinal = partition.find(*id).unwrap().expect("the series is there");
        assert_eq!(partition.series_id(ordinal), Ok(Some(*id)));
        assert_eq!(partition.labels(ordinal).unwrap(), *labels);
        let got = read(&partition, ordinal);
        assert_eq!(got.len(), samples.len());
        for (i, (t, histogram, bits, start)) in got.into_iter().enumerate() {
            assert_eq!(t, samples.timestamps[i]);
            assert_eq!(start, samples.start_timestamp(i).unwrap_or(0));
            match (samples.value(i), histogram) {
                (crate::Value::Float(v), None) => assert_eq!(bits, v.to_bits()),
                (crate::Value::Histogram(a), Some(b)) => assert!(a.same_bits(&b)),
                _ => panic!("float and histogram are confused"),
            }
        }
    }
    partition
}

#[test]
fn series_come_back_and_targets_share_their_timestamps() {
    let series = two_targets();
    let partition = check(write(series.clone(), options()), &series);
    let header = partition.header();
    assert_eq!((header.min_ms, header.max_ms), (0, series[40].2.timestamps[479]));
    assert_eq!((header.series_count, header.chunk_count), (80, 80));
    assert_eq!(header.sample_count, 2 * (39 * 480 + 380));
    assert_eq!(partition.column_count(), 2);
    assert!(header.byte_len < 16 * 1024, "{} bytes", header.byte_len);
    assert_eq!(partition.find(SeriesId(0)), Ok(None));
    assert!(partition.labels(80).is_err());
    assert_eq!(partition.series_id(80), Ok(None));
}

#[test]
fn postings_find_names_values_prefixes_and_series() {
    let series = two_targets();
    let partition = Partition::open(write(series.clone(), options())).unwrap();
    let names: Vec<&str> = partition.label_names().unwrap().map(Result::unwrap).collect();
    assert_eq!(names, ["__name__", "instance", "path"]);
    let paths = partition.label_values("path").unwrap().unwrap();
    assert_eq!(paths.len(), 40);
    assert!(paths.iter().map(Result::unwrap).is_sorted());
    let with_prefix: Vec<&str> = (paths.lower_bound("/3").unwrap()..paths.lower_bound("/4").unwrap())
        .map(|i| paths.value(i).unwrap())
        .collect();
    assert_eq!(with_prefix.len(), 11);
    assert_eq!(paths.series_count(0), Ok(2));
    assert!(partition.label_values("job").unwrap().is_none());
    assert!(partition.label_values("up").unwrap().is_none(), "a symbol, but no name");
    for (name, value) in
        [("instance", "a:1"), ("__name__", "up"), ("path", "/7"), ("path", "/x"), ("up", "up")]
    {
        let mut found = Vec::new();
        partition.postings_of(name, value, &mut found).unwrap();
        assert!(found.is_sorted());
        let mut expected: Vec<u32> = series
            .iter()
            .filter(|(_, labels, _)| labels.get(name) == Some(value))
            .map(|(id, ..)| partition.find(*id).unwrap().unwrap())
            .collect();
        expected.sort_unstable();
        assert_eq!(found, expected, "{name}={value}");
    }
}

#[test]
fn floats_and_histograms_of_one_series_get_chunks_of_their_own() {
    let timestamps: Arc<[i64]> = (0..100).map(|i| 15_000 * i).collect();
    let mut samples = floats(&timestamps, |i| i as f64 + 0.5);
    for i in (20..60).chain(70..71) {
        samples.floats[i] = 0.0;
        let buckets = vec![i as f64; if i < 40 { 3 } else { 4 }];
        let sum = if i == 59 { STALE_NAN } else { 1.5 };
        samples.histograms.push((
            i as u32,
            Arc::new(Histogram { sum, count: 3.0, positive_buckets: buckets, ..Histogram::default() }),
        ));
    }
    samples.start_timestamps = (0..100).map(|i| if i < 30 { 0 } else { 15_000 * (i - 1) }).collect();
    let series = vec![
        one(&[("__name__", "mixed")], samples),
        one(&[("__name__", "up")], floats(&timestamps, |_| 1.0)),
    ];
    let partition = check(write(series.clone(), options()), &series);
    let mixed = partition.find(series[0].0).unwrap().unwrap();
    let firsts: Vec<i64> = partition
        .chunks(mixed)
        .unwrap()
        .map(|chunk| {
            let chunk = chunk.unwrap();
            partition.slice_of(&chunk, &partition.column(chunk.timestamps.column).unwrap())[0]
        })
        .collect();
    assert_eq!(firsts, [0, 20 * 15_000, 40 * 15_000]);
    // Of the four runs only those with holes in them need columns of their own.
    assert_eq!(partition.column_count(), 3);
}

/// Two counters of each of three targets, which move in step.
fn in_step() -> Vec<Series> {
    let timestamps: Arc<[i64]> = (0..100).map(|i| 15_000 * i).collect();
    let counter = |name: &str, target: usize| {
        let instance = target.to_string();
        let first = if name == "received" { 7.0 } else { -1e9 };
        let steps = move |i: usize| (i * i * (target + 1) % 23) as f64;
        one(&[("__name__", name), ("instance", &instance)], floats(&timestamps, |i| first + steps(i)))
    };
    (0..3).flat_map(|target| [counter("received", target), counter("sent", target)]).collect()
}

#[test]
fn columns_in_step_are_stored_once() {
    let series = in_step();
    let wide = WriterOptions { expected_data_bytes: 1 << 40, ..options() };
    for options in [options(), wide] {
        let partition = check(write(series.clone(), options), &series);
        let lens: Vec<usize> =
            (0..6).map(|o| partition.chunks(o).unwrap().next().unwrap().unwrap().byte_len()).collect();
        let aliases = lens.iter().filter(|&&len| len <= 16).count();
        assert_eq!(aliases, 3, "{lens:?}");
    }
}

#[test]
fn long_runs_are_split_at_the_same_times_for_all_series() {
    let timestamps: Arc<[i64]> = (0..9000).map(|i| 800 * i).collect();
    let late: Arc<[i64]> = timestamps[1000..].into();
    let wide = WriterOptions { expected_data_bytes: 1 << 40, ..options() };
    let series = vec![
        one(&[("__name__", "a")], floats(&timestamps, |i| i as f64)),
        one(&[("__name__", "b")], floats(&late, |i| (i * i) as f64)),
    ];
    for options in [options(), wide] {
        let partition = check(write(series.clone(), options), &series);
        assert_eq!(partition.column_count(), 4);
        assert_eq!(partition.header().chunk_count, 8);
    }
    // Samples that lie outside of the window are split all the same.
    let outside = WriterOptions { window_ms: -5..-4, ..options() };
    check(write(series.clone(), outside), &series);
}

#[test]
fn many_own_columns_and_large_values_cross_extents() {
    let series: Vec<Series> = (0..60usize)
        .map(|s| {
            let timestamps: Arc<[i64]> = (0..300).map(|i| 20_000 * i + (i * s as i64) % 977).collect();
            let name = format!("noise_{s}");
            one(&[("__name__", &name)], floats(&timestamps, |i| ((i + s * 999) as f64).sin()))
        })
        .collect();
    let file = write(series.clone(), options());
    assert!(file.len() > 6 * extents::EXTENT_BYTES);
    check(file, &series);
}

#[test]
fn every_cut_and_every_changed_byte_is_noticed() {
    let series = two_targets();
    let file = write(series[..6].to_vec(), options());
    let intact = Partition::open(&file[..]).unwrap();
    let section = |s| intact.header().section(s);
    let data = section(header::Section::Data);
    let index = data.end..section(header::Section::Postings).end;
    let gap = index.end..section(header::Section::Checksums).start;
    for at in 0..file.len() {
        assert!(Partition::open(&file[..at]).is_err(), "cut at {at}");
        let mut changed = file.clone();
        changed[at] ^= 0x40;
        let partition = Partition::open(&changed[..]);
        if data.contains(&(at as u64)) {
            // One damaged chunk leaves the partition usable; the damage shows when it is read.
            let partition = partition.unwrap();
            let chunk = partition.chunks(0).unwrap().next().unwrap().unwrap();
            let column = partition.column(chunk.timestamps.column).unwrap();
            let error = partition.decode(&chunk, partition.slice_of(&chunk, &column)).unwrap_err();
            assert!(matches!(error.kind, DecodeErrorKind::Checksum { .. }));
            partition.verify_index().unwrap();
        } else if index.contains(&(at as u64)) {
            // The index is one extent here, so whoever reads anything of it is told.
            let partition = partition.unwrap();
            let is_told = |error: DecodeError| {
                assert!(matches!(error.kind, DecodeErrorKind::Checksum { .. }), "byte {at} changed");
                assert_eq!(error.offset as u64, index.start);
            };
            is_told(partition.verify_index().unwrap_err());
            is_told(partition.labels(0).unwrap_err());
            is_told(partition.verify_labels([0]).unwrap_err());
            is_told(partition.series_id(0).unwrap_err());
            is_told(partition.find(SeriesId(7)).unwrap_err());
            is_told(partition.postings_of("path", "/1", &mut Vec::new()).unwrap_err());
            is_told(partition.column(0).unwrap_err());
            is_told(partition.chunks(0).map(drop).unwrap_err());
        } else if partition.is_ok() {
            assert!(gap.contains(&(at as u64)), "byte {at} changed");
        }
    }
}

#[test]
fn a_damaged_extent_of_the_index_spoils_what_lies_in_it_only() {
    let timestamps: Arc<[i64]> = [1, 2].into();
    let series: Vec<Series> = (0..6000)
        .map(|s| {
            let pod = format!("pod-{s:05}");
            one(&[("__name__", "up"), ("pod", &pod)], floats(&timestamps, |_| 1.0))
        })
        .collect();
    let file = write(series, options());
    let intact = Partition::open(&file[..]).unwrap();
    let all: Vec<Labels> = (0..6000).map(|ordinal| intact.labels(ordinal).unwrap()).collect();
    let section = intact.header().section(header::Section::Series);
    let (mut right, mut refused) = (0, 0);
    for at in (section.start..section.end).step_by(extents::EXTENT_BYTES) {
        let mut changed = file.clone();
        changed[at as usize] ^= 1;
        let partition = Partition::open(&changed[..]).unwrap();
        assert!(partition.verify_index().is_err());
        for ordinal in 0..6000 {
            let verified = partition.verify_labels([ordinal]);
            match partition.labels(ordinal) {
                Ok(labels) => {
                    assert_eq!(labels, all[ordinal as usize]);
                    right += 1;
                }
                Err(_) => {
                    assert!(verified.is_err());
                    refused += 1;
                }
            }
            if let Ok(id) = partition.series_id(ordinal) {
                assert_eq!(Ok(id), intact.series_id(ordinal));
            }
        }
    }
    assert!(right > 20_000 && refused > 5_000, "{right} right, {refused} refused");
}

#[test]
fn damage_in_one_extent_leaves_the_others_readable() {
    let timestamps: Arc<[i64]> = (0..480).map(|i| 15_000 * i).collect();
    let series: Vec<Series> = (0..20)
        .map(|s| {
            let name = format!("noise_{s}");
            one(&[("__name__", &name)], floats(&timestamps, |i| ((i + s * 999) as f64).sin()))
        })
        .collect();
    let mut file = write(series, options());
    let at = Partition::open(&file[..]).unwrap().header().section(header::Section::Data).start as usize;
    file[at + extents::EXTENT_BYTES + 5] ^= 1;
    let partition = Partition::open(file).unwrap();
    let column = partition.column(0).unwrap();
    let damaged = (0..20)
        .filter(|&ordinal| {
            let chunk = partition.chunks(ordinal).unwrap().next().unwrap().unwrap();
            partition.decode(&chunk, &column).is_err()
        })
        .count();
    assert!((5..=8).contains(&damaged), "{damaged} of 20 chunks");
}

#[test]
fn what_is_condemned_is_not_read_again_and_the_rest_is() {
    let timestamps: Arc<[i64]> = (0..480).map(|i| 15_000 * i).collect();
    let series: Vec<Series> = (0..20)
        .map(|s| {
            let name = format!("noise_{s}");
            one(&[("__name__", &name)], floats(&timestamps, |i| ((i + s * 999) as f64).sin()))
        })
        .collect();
    let partition = Partition::open(write(series, options())).unwrap();
    let unreadable = |partition: &Partition<Vec<u8>>| -> Vec<u32> {
        let is_hit = |ordinal: &u32| {
            let chunk = partition.chunks(*ordinal).unwrap().next().unwrap().unwrap();
            partition.verify_chunk(&chunk).is_err()
        };
        (0..20).filter(is_hit).collect()
    };
    // All of it is verified before.
    assert_eq!(unreadable(&partition), []);
    let data = partition.header().section(header::Section::Data);
    let second = data.start + extents::EXTENT_BYTES as u64..data.start + extents::EXTENT_BYTES as u64 + 1;
    partition.condemn(&second);
    let second = second.start..second.start + extents::EXTENT_BYTES as u64;
    let in_second = |ordinal: &u32| {
        let chunk = partition.chunks(*ordinal).unwrap().next().unwrap().unwrap();
        chunk.overlaps(&second)
    };
    let expected: Vec<u32> = (0..20).filter(in_second).collect();
    assert_eq!((unreadable(&partition), expected.len() > 4), (expected, true));
    partition.verify_index().unwrap();
    partition.condemn(&(data.end..data.end + 1));
    let error = partition.verify_index().unwrap_err();
    assert_eq!(
        (error.offset as u64, error.kind),
        (data.end, DecodeErrorKind::Corrupt("found damaged before"))
    );
    // Beyond the sections there is nothing to condemn.
    partition.condemn(&(0..data.start));
    partition.condemn(&(u64::MAX - 1..u64::MAX));
}

#[test]
fn series_out_of_order_are_refused() {
    let timestamps: Arc<[i64]> = [1].into();
    let mut writer = PartitionWriter::new(Vec::new(), options()).unwrap();
    let samples = floats(&timestamps, |_| 1.0);
    let labels = Labels::empty();
    assert!(writer.is_empty());
    writer.push(SeriesId(5), &labels, &samples).unwrap();
    for id in [5, 4] {
        assert!(matches!(writer.push(SeriesId(id), &labels, &samples), Err(WriteError::Order { .. })));
    }
}

/// Reads everything there is; errors are fine, panics are not.
fn read_everything(partition: &Partition<&[u8]>) -> usize {
    let mut samples = 0;
    for ordinal in 0..partition.series_count() {
        let _ = partition.series_id(ordinal).map(|id| partition.find(id.unwrap_or(SeriesId(1))));
        let _ = partition.labels(ordinal);
        for chunk in partition.chunks(ordinal).into_iter().flatten().flatten() {
            if let Ok(column) = partition.column(chunk.timestamps.column) {
                let timestamps = partition.slice_of(&chunk, &column);
                samples += partition.decode(&chunk, timestamps).map_or(0, |decoded| decoded.floats.len());
            }
        }
    }
    for name in partition.label_names().into_iter().flatten().flatten() {
        let Ok(Some(values)) = partition.label_values(name) else { continue };
        let mut ordinals = Vec::new();
        for position in 0..values.len() {
            let _ = values.value(position).map(|value| values.find(value));
            let _ = values.ordinals(position, &mut ordinals);
        }
    }
    samples
}

/// Makes the checksums of a damaged file right again, so that damage gets past them.
fn reseal(file: &mut [u8]) {
    let header_len = PartitionHeader::len_with(0);
    let crc = crate::checksum::crc32c(&file[..header_len - 4]);
    file[header_len - 4..header_len].copy_from_slice(&crc.to_le_bytes());
    let Ok(header) = PartitionHeader::decode(file) else { return };
    let section = |s| {
        let range = header.section(s);
        range.start as usize..range.end as usize
    };
    let data = section(header::Section::Data);
    let index = data.end..section(header::Section::Postings).end;
    let mut extents = extents::ExtentWriter::default();
    extents.update(&file[data]);
    extents.close();
    extents.update(&file[index]);
    let (checksums, footer) = extents.finish();
    let at = section(header::Section::Checksums);
    let end = file.len() - extents::FOOTER_BYTES;
    if at.len() == checksums.len() && at.end <= end {
        file[at].copy_from_slice(&checksums);
        file[end..].copy_from_slice(&footer);
    }
}

#[test]
fn damage_behind_right_checksums_gives_errors_or_values_never_panics() {
    let file = write(two_targets()[..6].to_vec(), options());
    assert_eq!(read_everything(&Partition::open(&file[..]).unwrap()), 6 * 480);
    for file in [file, write(in_step(), options())] {
        let mut opened = 0;
        for at in 0..file.len() {
            for change in [1, 0x80, 0xff] {
                let mut changed = file.clone();
                changed[at] ^= change;
                reseal(&mut changed);
                if let Ok(partition) = Partition::open(&changed[..]) {
                    opened += 1;
                    read_everything(&partition);
                }
            }
        }
        assert!(opened > file.len(), "only {opened} files got past the checksums");
    }
}

#[test]
fn bunched_samples_are_halved_until_they_fit() {
    let timestamps: Arc<[i64]> = (0..6000).chain((1..200).map(|i| 30_000 * i)).collect();
    let series = vec![one(&[("__name__", "bunched")], floats(&timestamps, |i| i as f64))];
    let partition = check(write(series.clone(), options()), &series);
    assert!((3..20).contains(&partition.header().chunk_count), "{} chunks", partition.header().chunk_count);
}
