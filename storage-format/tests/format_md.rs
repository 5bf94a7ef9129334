//! The hex examples of FORMAT.md are what this crate writes and reads.
//!
//! An example is a fenced block whose info string is `hex NAME`; text behind a `;` is a comment.
//! Every example of the document has an entry in [`EXAMPLES`], and every entry an example.

use larum_storage_format::chunk::{ChunkValues, Packing, chunk_stats, decode_chunk, encode_chunk};
use larum_storage_format::ints::{decode_ints, encode_ints};
use larum_storage_format::manifest::{LivePartition, Manifest};
use larum_storage_format::metadata::{MetricMetadata, MetricType};
use larum_storage_format::partition::{Origin, Partition, PartitionWriter, WriterOptions};
use larum_storage_format::timestamps::{TimestampReader, TimestampWriter};
use larum_storage_format::tombstones::{Interval, Tombstones};
use larum_storage_format::varint::put_uvarint;
use larum_storage_format::{Cursor, Histogram, IdentitySeed, Labels, STALE_NAN, Samples, SeriesId, Span};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Name, what the crate writes for it, and a check that it reads the same back.
type Example = (&'static str, fn() -> Vec<u8>, fn(&[u8]));

const EXAMPLES: [Example; 17] = [
    ("varint", varint, |bytes| assert_eq!(Cursor::new(bytes).uvarint("varint"), Ok(300))),
    (
        "labels",
        || labels().as_bytes().to_vec(),
        |bytes| {
            assert_eq!(Labels::from_canonical_bytes(bytes), Ok(labels()));
        },
    ),
    ("ints-steady", || ints(&STEADY), |bytes| assert_eq!(read_ints(bytes, 4), STEADY)),
    ("ints-bits", || ints(&BITS), |bytes| assert_eq!(read_ints(bytes, 9), BITS)),
    ("ints-sparse", || ints(&sparse()), |bytes| assert_eq!(read_ints(bytes, 300), sparse())),
    ("ints-classes", || ints(&classes()), |bytes| assert_eq!(read_ints(bytes, 17), classes())),
    ("timestamps", timestamps, read_timestamps),
    ("chunk-const", || chunk(&[1.5; 4], &[]), |bytes| read_chunk(bytes, &[1.5; 4], &[])),
    ("chunk-dec", || chunk(&DECIMALS, &[]), |bytes| read_chunk(bytes, &DECIMALS, &[])),
    ("chunk-stats", stats_chunk, read_stats),
    ("chunk-start", || chunk(&[7.0; 4], &STARTS), |bytes| read_chunk(bytes, &[7.0; 4], &STARTS)),
    ("chunk-histogram", histogram_chunk, |bytes| {
        let decoded = decode_chunk(bytes, &[1, 2]).unwrap();
        assert!(decoded.histograms.iter().zip(histograms()).all(|(a, b)| a.same_bits(&b)));
    }),
    ("chunk-alias", aliased, |bytes| assert_eq!(bytes.len(), 15 + 6)),
    ("partition", partition, read_partition),
    ("manifest", || manifest().encode(), |bytes| assert_eq!(Manifest::decode(bytes), Ok(manifest()))),
    (
        "tombstones",
        || tombstones().encode(),
        |bytes| {
            assert_eq!(Tombstones::decode(bytes), Ok(tombstones()));
        },
    ),
    ("metadata", write_metadata, |bytes| {
        assert_eq!(MetricMetadata::decode(&mut Cursor::new(bytes)), Ok(metadata()));
    }),
];

#[test]
fn examples_are_what_is_written_and_read() {
    let document = examples_of(include_str!("../FORMAT.md"));
    for (name, write, read) in EXAMPLES {
        let bytes = write();
        match document.get(name) {
            Some(example) if *example == bytes => read(example),
            _ => panic!("FORMAT.md must show `{name}` as\n{}", hex(&bytes)),
        }
    }
    // The WAL's examples have a test of their own.
    let known = |name: &str| name.starts_with("wal-") || EXAMPLES.iter().any(|e| e.0 == name);
    let unknown: Vec<&String> = document.keys().filter(|name| !known(name)).collect();
    assert!(unknown.is_empty(), "nobody tests {unknown:?}");
}

#[test]
fn sections_are_modules() {
    let modules: Vec<&str> = include_str!("../src/lib.rs")
        .lines()
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'))
        .collect();
    for section in include_str!("../FORMAT.md").lines().filter_map(|line| line.strip_prefix("## ")) {
        assert!(modules.contains(&section), "there is no src/{section}.rs");
    }
}

/// The examples of a document by name.
fn examples_of(document: &str) -> BTreeMap<String, Vec<u8>> {
    let mut examples = BTreeMap::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_prefix("```hex ") else { continue };
        let block = lines.by_ref().take_while(|line| *line != "```");
        let bytes = block
            .flat_map(|line| line.split(';').next().unwrap_or("").split_whitespace())
            .map(|byte| u8::from_str_radix(byte, 16).unwrap_or_else(|_| panic!("{name}: {byte:?}")))
            .collect();
        assert!(examples.insert(name.to_owned(), bytes).is_none(), "{name} stands twice");
    }
    examples
}

fn hex(bytes: &[u8]) -> String {
    let line = |line: &[u8]| line.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ");
    bytes.chunks(16).map(line).collect::<Vec<_>>().join("\n")
}

fn varint() -> Vec<u8> {
    let mut out = Vec::new();
    put_uvarint(&mut out, 300);
    out
}

fn labels() -> Labels {
    Labels::from_pairs([("__name__", "up"), ("job", "api")]).unwrap()
}

const STEADY: [i64; 4] = [1_000, 1_015, 1_030, 1_045];
const BITS: [i64; 9] = [100, 101, 103, 102, 105, 105, 106, 108, 107];

fn classes() -> Vec<i64> {
    let steps = [1, 1000, 1, 1, 1001, 1000, 1, 1000, 1000, 1, 1001, 1, 1, 1000, 1, 1000];
    let mut value = 0;
    std::iter::once(0)
        .chain(steps.map(|step| {
            value += step;
            value
        }))
        .collect()
}

fn sparse() -> [i64; 300] {
    std::array::from_fn(|i| if i < 200 { 7 } else { 12 })
}

fn ints(values: &[i64]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_ints(values, Packing { huffman_from: 0, ..Packing::KEPT }, &mut out);
    out
}

fn read_ints(bytes: &[u8], n: usize) -> Vec<i64> {
    let mut out = Vec::new();
    let mut cursor = Cursor::new(bytes);
    decode_ints(&mut cursor, n, &mut out).unwrap();
    cursor.finish("example").unwrap();
    out
}

const COLUMN: [i64; 4] = [60_000, 75_000, 90_000, 105_000];

/// TSCOL, padded to eight bytes, TSDIR, TSREF.
fn timestamps() -> Vec<u8> {
    let mut writer = TimestampWriter::new(IdentitySeed(1));
    writer.add(&COLUMN).unwrap();
    writer.add(&COLUMN[1..3]).unwrap();
    let sections = writer.finish().unwrap();
    let mut out = sections.columns.to_vec();
    out.resize(out.len().next_multiple_of(8), 0);
    out.extend_from_slice(&sections.directory);
    out.extend_from_slice(&sections.slices);
    out
}

fn read_timestamps(bytes: &[u8]) {
    let (columns, rest) = bytes.split_at(bytes.len() - 24);
    let (directory, slices) = rest.split_at(8);
    let reader = TimestampReader::new(columns, directory, slices).unwrap();
    let slice = reader.slice(1).unwrap();
    assert_eq!((slice.column, slice.start, slice.len), (0, 1, 2));
    let mut out = Vec::new();
    reader.decode_column(0, &mut out).unwrap();
    assert_eq!(out, COLUMN);
}

const DECIMALS: [f64; 4] = [0.5, 0.7, 0.6, STALE_NAN];
const STARTS: [i64; 4] = [45_000, 60_000, 75_000, 90_000];

fn chunk(values: &[f64], starts: &[i64]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_chunk(&COLUMN, ChunkValues::Floats(values), starts, Packing::KEPT, &mut out);
    out
}

fn read_chunk(bytes: &[u8], values: &[f64], starts: &[i64]) {
    let decoded = decode_chunk(bytes, &COLUMN).unwrap();
    let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&decoded.floats), bits(values));
    assert_eq!(decoded.start_timestamps, starts);
}

fn stats_chunk() -> Vec<u8> {
    let mut out = Vec::new();
    let packing = Packing { stats_from: 0, ..Packing::KEPT };
    encode_chunk(&COLUMN, ChunkValues::Floats(&DECIMALS), &[], packing, &mut out);
    out
}

fn read_stats(bytes: &[u8]) {
    read_chunk(bytes, &DECIMALS, &[]);
    let stats = chunk_stats(bytes, &COLUMN).unwrap().unwrap();
    let summary = stats.summary.unwrap();
    assert_eq!((stats.live, stats.last.to_bits()), (3, STALE_NAN.to_bits()));
    assert_eq!((summary.first, summary.last, summary.min, summary.max), (0.5, 0.6, 0.5, 0.7));
    assert_eq!((summary.sum, summary.resets, summary.resets_sum), (1.8, 1, 0.7));
}

fn histograms() -> Vec<Arc<Histogram>> {
    let histogram = |count: f64| Histogram {
        is_integer: true,
        schema: 1,
        zero_threshold: 0.001,
        count,
        sum: count / 2.0,
        positive_spans: vec![Span { offset: -1, length: 2 }],
        positive_buckets: vec![count - 1.0, 1.0],
        ..Histogram::default()
    };
    vec![Arc::new(histogram(3.0)), Arc::new(histogram(5.0))]
}

fn histogram_chunk() -> Vec<u8> {
    let mut out = Vec::new();
    encode_chunk(&[1, 2], ChunkValues::Histograms(&histograms()), &[], Packing::KEPT, &mut out);
    out
}

const SEED: IdentitySeed = IdentitySeed(0x1122_3344_5566_7788);

fn partition() -> Vec<u8> {
    partition_of(&[(labels(), &COLUMN, &DECIMALS)])
}

fn partition_of(series: &[(Labels, &[i64], &[f64])]) -> Vec<u8> {
    let options = WriterOptions {
        seed: SEED,
        number: 4,
        sequence: 4,
        origin: Origin { generations: (2, 2), output: 0, outputs: 1, sources: vec![] },
        window_ms: 0..7_200_000,
        expected_data_bytes: 0,
        packing: Packing::KEPT,
    };
    let mut writer = PartitionWriter::new(Vec::new(), options).unwrap();
    let mut series: Vec<_> = series.iter().map(|s| (SeriesId::of(&s.0, SEED), s)).collect();
    series.sort_by_key(|(id, _)| *id);
    for (id, (labels, timestamps, floats)) in series {
        let samples =
            Samples { timestamps: (*timestamps).into(), floats: floats.to_vec(), ..Samples::default() };
        writer.push(id, labels, &samples).unwrap();
    }
    let finished = writer.finish().unwrap();
    let mut file = finished.sink;
    let header = finished.header.encode();
    file[..header.len()].copy_from_slice(&header);
    file
}

/// DATA of two series in step.
fn aliased() -> Vec<u8> {
    let steps = [0, 9, 4, 11, 2, 13, 6, 15, 8, 1, 10, 3, 12, 5, 14, 7, 9];
    let timestamps: Vec<i64> = (0..steps.len() as i64).map(|i| 15_000 * i).collect();
    let values = [1000, 500_000].map(|first| steps.map(|step| f64::from(first + step)));
    let up = |job: &str| Labels::from_pairs([("__name__", "up"), ("job", job)]).unwrap();
    let file = partition_of(&[(up("a"), &timestamps, &values[0]), (up("b"), &timestamps, &values[1])]);
    let partition = Partition::open(&file[..]).unwrap();
    for (job, values) in [("a", values[0]), ("b", values[1])] {
        let ordinal = partition.find(SeriesId::of(&up(job), SEED)).unwrap().unwrap();
        let chunk = partition.chunks(ordinal).unwrap().next().unwrap().unwrap();
        assert_eq!(partition.decode(&chunk, &timestamps).unwrap().floats, values);
    }
    let header_len = u32::from_le_bytes(file[12..16].try_into().unwrap()) as usize;
    file[header_len..][..partition.data_len() as usize].to_vec()
}

fn read_partition(bytes: &[u8]) {
    let partition = Partition::open(bytes).unwrap();
    assert_eq!(partition.header().number, 4);
    let ordinal = partition.find(SeriesId::of(&labels(), SEED)).unwrap().unwrap();
    assert_eq!(partition.labels(ordinal), Ok(labels()));
    let chunk = partition.chunks(ordinal).unwrap().next().unwrap().unwrap();
    let decoded = partition.decode(&chunk, &partition.column(0).unwrap()).unwrap();
    assert_eq!(decoded.floats[..3], DECIMALS[..3]);
}

fn manifest() -> Manifest {
    Manifest {
        seed: SEED,
        first_generation: 3,
        next_number: 5,
        partitions: vec![LivePartition {
            number: 4,
            sequence: 4,
            byte_len: partition().len() as u64,
            min_ms: COLUMN[0],
            max_ms: COLUMN[3],
            tombstones: Some(1),
        }],
        retired: vec![2],
    }
}

fn tombstones() -> Tombstones {
    let interval = Interval { min_ms: 75_000, max_ms: 90_000 };
    Tombstones::new(4, 1, vec![(SeriesId::of(&labels(), SEED), interval)])
}

fn metadata() -> MetricMetadata {
    MetricMetadata {
        name: "up".to_owned(),
        metric_type: MetricType::Gauge,
        unit: String::new(),
        help: "ok".to_owned(),
    }
}

fn write_metadata() -> Vec<u8> {
    let mut out = Vec::new();
    metadata().encode(&mut out);
    out
}
