//! What the fuzz targets start from: `fuzz/seeds/TARGET/` holds a few small inputs for each.
//!
//! After a change of a format, write them anew with
//!
//! ```text
//! cargo test --no-default-features --test fuzz_seeds -- --ignored
//! ```
//!
//! once `tests/format_compat` holds a folder in it: files of a data folder are taken from there.

use larum_storage_format::chunk::{ChunkValues, Packing, encode_chunk};
use larum_storage_format::ints::encode_ints;
use larum_storage_format::metadata::{MetricMetadata, MetricType};
use larum_storage_format::varint::get_uvarint;
use larum_storage_format::wal::frame::Found;
use larum_storage_format::wal::{Frames, SegmentHeader};
use larum_storage_format::{FORMAT_VERSION, Histogram, Labels, STALE_NAN};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A seed is one input of many: a long one makes all that follow from it slow.
const SEED_BYTES_MAX: usize = 4 << 10;

/// Target, name and content.
type Seed = (&'static str, String, Vec<u8>);

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The files of a folder, by name.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    paths
        .iter()
        .filter(|path| path.is_file())
        .map(|path| (name(path), std::fs::read(path).unwrap()))
        .collect()
}

/// `u16 number of samples | bytes`, as the targets `chunk` and `timestamps` want it.
fn counted(n: usize, encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut input = (n as u16).to_le_bytes().to_vec();
    encode(&mut input);
    input
}

/// The name of a column, and its values by their position.
type Column<I, V> = (&'static str, fn(I) -> V);

/// A chunk of each codec, with and without statistics and start timestamps.
fn chunks() -> Vec<Seed> {
    const N: usize = 130;
    let timestamps: Vec<i64> = (0..N as i64).collect();
    let columns: [Column<usize, f64>; 7] = [
        ("const", |_| 2.5),
        ("decimals", |i| (1000 + i * i % 97) as f64 / 10.0),
        ("huffman", |i| (i * 50 + if i % 9 == 0 { i * i * 31 } else { 0 }) as f64),
        ("stale", |i| if i % 50 == 49 { STALE_NAN } else { i as f64 }),
        ("ulp", |i| (0..i).map(|k| (k * 7919 % 100_003) as f64 / 1e6).sum()),
        ("bits", |i| (i as f64).sin()),
        ("special", |i| [f64::NAN, f64::INFINITY, -0.0, 1e300][i % 4]),
    ];
    let mut seeds = Vec::new();
    for (name, column) in columns {
        let values: Vec<f64> = (0..N).map(column).collect();
        for (how, stats_from, starts) in [("", usize::MAX, vec![]), ("-stats-start", 0, vec![7; N])] {
            let packing = Packing { huffman_saving_percent: 0, huffman_from: 0, stats_from };
            let encode = |out: &mut Vec<u8>| {
                encode_chunk(&timestamps, ChunkValues::Floats(&values), &starts, packing, out)
            };
            seeds.push(("chunk", format!("{name}{how}"), counted(N, encode)));
        }
    }
    let histograms: Vec<Arc<Histogram>> = (0..20u32)
        .map(|i| {
            let buckets = vec![f64::from(i), f64::from(i * i)];
            Arc::new(Histogram { count: f64::from(i), positive_buckets: buckets, ..Histogram::default() })
        })
        .collect();
    let values = ChunkValues::Histograms(&histograms);
    let encode = |out: &mut Vec<u8>| encode_chunk(&timestamps[..20], values, &[], Packing::KEPT, out);
    seeds.push(("chunk", "histograms".to_owned(), counted(20, encode)));
    seeds
}

/// A stream of each order and packer.
fn streams() -> Vec<Seed> {
    let columns: [Column<i64, i64>; 6] = [
        ("steady", |i| 60_000 + 15_000 * i),
        ("jitter", |i| 15_000 * i + i * 7 % 5),
        ("noise", |i| i * 7919 % 251),
        ("multiples", |i| i * i * 4096),
        ("sparse", |i| if i == 77 { 1 << 40 } else { 0 }),
        ("extremes", |i| if i % 40 == 0 { i64::MIN } else { i }),
    ];
    let mut seeds = Vec::new();
    for (name, column) in columns {
        let values: Vec<i64> = (0..300).map(column).collect();
        let huffman = Packing { huffman_saving_percent: 0, huffman_from: 0, ..Packing::KEPT };
        for (how, packing) in [("", Packing::FAST), ("-huffman", huffman)] {
            let input = counted(values.len(), |out| encode_ints(&values, packing, out));
            seeds.push(("timestamps", format!("{name}{how}"), input));
        }
    }
    seeds
}

/// Whole files of a small data folder, and what is in their frames.
fn stored() -> Vec<Seed> {
    let data = root().join(format!("tests/format_compat/v{FORMAT_VERSION}/data"));
    let mut seeds = Vec::new();
    // The target of small files makes the frame around a body itself: 16 bytes before, 4 behind.
    let body = |file: &[u8]| file[16..file.len() - 4].to_vec();
    seeds.push(("manifest", "manifest".to_owned(), body(&std::fs::read(data.join("MANIFEST")).unwrap())));
    for (name, file) in files(&data.join("partitions")) {
        match name.ends_with(".part") {
            true => seeds.push(("partition", name, [&[0xff], &file[..]].concat())),
            false => seeds.push(("manifest", name, body(&file))),
        }
    }
    for (name, file) in files(&data.join("wal")) {
        let header = SegmentHeader::decode(&file).unwrap();
        for found in Frames::new(&file, header) {
            if let Found::Frame { offset, payload } = found {
                seeds.push(("wal", format!("payload-{offset}"), payload.to_vec()));
                let unpacked = snap::raw::Decoder::new().decompress_vec(payload);
                seeds.extend(unpacked.ok().map(|bytes| ("wal", format!("unpacked-{offset}"), bytes)));
            }
        }
        seeds.push(("wal", name, file));
    }
    seeds.push(("partition", "one-byte-changed".to_owned(), vec![0x90, 0x01, 0x55]));
    let metadata = MetricMetadata {
        name: "requests_total".to_owned(),
        metric_type: MetricType::Counter,
        unit: "requests".to_owned(),
        help: "How many there were.".to_owned(),
    };
    let mut bytes = Vec::new();
    metadata.encode(&mut bytes);
    seeds.push(("manifest", "metadata".to_owned(), bytes));
    let labels = Labels::from_pairs([("__name__", "up"), ("instance", "10.0.0.1:9100"), ("job", "node")]);
    seeds.push(("labels", "three".to_owned(), labels.unwrap().as_bytes().to_vec()));
    seeds.push(("labels", "none".to_owned(), Labels::default().as_bytes().to_vec()));
    seeds
}

/// What users write.
fn texts() -> Vec<Seed> {
    let texts = [
        ("regex", "classes", "(?i)api|[a-c]+\\d{2,3}.*apiab12"),
        ("regex", "set", "(GET|POST)/(a|b|c)GET/a"),
        ("regex", "prefix", "node_(cpu|memory)_.+node_cpu_x"),
        (
            "promql",
            "rate",
            "sum by (job) (rate(http_requests_total{code=~\"5..\",job!=\"x\"}[5m] offset 1h))",
        ),
        ("promql", "join", "a / on (instance) group_left (job) b > bool 0.5 or vector(1)"),
        ("promql", "subquery", "max_over_time(deriv(x{y=\"z\"}[1m])[30m:10s] @ end())"),
        ("promql", "series", "m{l=\"v\"} 0+1x5 _x3 {{schema:1 count:4 buckets:[1 2 1]}}"),
        ("template", "labels", "{{ $labels.instance }} is at {{ $value | humanize }}"),
        ("template", "query", "{{ range query \"up\" }}{{ .Labels.job }}{{ else }}none{{ end }}"),
        ("template", "define", "{{ define \"x\" }}{{ . | toUpper }}{{ end }}{{ template \"x\" \"y\" }}"),
    ];
    texts.map(|(target, name, text)| (target, name.to_owned(), text.as_bytes().to_vec())).into()
}

/// A remote write request of version 1: one series, two samples.
fn requests() -> Vec<Seed> {
    /// Field of a message: its number, wire type 2, the length and the bytes, all short.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
    }
    let label =
        |name: &str, value: &str| field(1, &[field(1, name.as_bytes()), field(2, value.as_bytes())].concat());
    // A double at field 1, a varint at field 2.
    let sample =
        |value: f64, time: u8| field(2, &[&[0x09], &value.to_le_bytes()[..], &[0x10, time]].concat());
    let series = [label("__name__", "up"), label("job", "node"), sample(1.0, 5), sample(0.5, 100)].concat();
    let request = field(1, &series);
    let packed = snap::raw::Encoder::new().compress_vec(&request).unwrap();
    vec![("remote_write", "plain".to_owned(), request), ("remote_write", "packed".to_owned(), packed)]
}

/// OpenMetrics, behind a byte that says where it is cut.
fn open_metrics() -> Vec<Seed> {
    let texts = [
        ("counter", "# TYPE a counter\na_total{b=\"c\"} 1 1700000000.5 # {d=\"e\"} 2 3\n# EOF\n"),
        ("quoted", "{\"a.b\",\"c d\"=\"\\\"\\n\"} NaN 5\nup -Inf -1e3\n# EOF\n"),
    ];
    texts.map(|(name, text)| ("open_metrics", name.to_owned(), [b"\x15", text.as_bytes()].concat())).into()
}

/// Files of the blocks that a real Prometheus wrote.
fn blocks() -> Vec<Seed> {
    let mut seeds = Vec::new();
    let folders = std::fs::read_dir(root().join("tests/prometheus_blocks")).unwrap();
    let mut folders: Vec<PathBuf> = folders.map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    for (number, block) in folders.iter().enumerate() {
        let of_index = files(block).into_iter().map(|(name, file)| {
            let name = name.trim_end_matches(".json");
            ("prometheus_index", format!("{name}-{number}"), file)
        });
        seeds.extend(of_index);
        let segment = std::fs::read(block.join("chunks/000001")).unwrap();
        let mut at = 8;
        while at < segment.len() {
            let (len, varint) = get_uvarint(&segment[at..]).unwrap();
            // Length, encoding, data, checksum.
            let end = at + varint + 1 + len as usize + 4;
            if end - at < SEED_BYTES_MAX {
                seeds.push(("prometheus_chunk", format!("{number}-{at}"), segment[at..end].to_vec()));
            }
            at = end;
        }
    }
    seeds
}

#[test]
fn every_target_has_small_seeds() {
    let stem = |name: &str| name.strip_suffix(".rs").map(str::to_owned);
    let targets: BTreeSet<String> =
        files(&root().join("fuzz/fuzz_targets")).iter().filter_map(|(name, _)| stem(name)).collect();
    let seeds = root().join("fuzz/seeds");
    let folders: BTreeSet<String> = std::fs::read_dir(&seeds)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(folders, targets);
    for target in targets {
        let of_target = files(&seeds.join(&target));
        assert!(of_target.len() >= 2, "{target} has {} seeds", of_target.len());
        for (name, content) in of_target {
            assert!(content.len() < SEED_BYTES_MAX, "{target}/{name}: {} bytes", content.len());
        }
    }
}

#[test]
#[ignore = "writes the seeds anew"]
fn write_the_seeds() {
    let folder = root().join("fuzz/seeds");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).unwrap();
    }
    let all = [chunks(), streams(), stored(), texts(), requests(), open_metrics(), blocks()];
    for (target, name, content) in all.concat() {
        std::fs::create_dir_all(folder.join(target)).unwrap();
        std::fs::write(folder.join(target).join(name), content).unwrap();
    }
}
