//! Blocks that a real Prometheus 2.42 wrote, indexes of both versions made by hand, and damage of all
//! kinds, behind right checksums too.

use super::*;
use larum_storage_format::checksum::crc32c;
use larum_storage_format::varint::{get_uvarint, put_uvarint, zigzag};
use larum_storage_format::{CounterResetHint, DecodeError, Histogram, Span, Value, is_stale};
use proptest::prelude::*;
use std::path::PathBuf;
use std::sync::Arc;

/// Floats, some of them deleted; and histograms of integers and floats, beside floats.
const BLOCKS: [&str; 2] = ["01M7ZPF57CC1WWKSWRRNBJCVA5", "01M7ZPF8BNV4078F4ZAK1XER1Q"];

fn file(block: usize, name: &str) -> Vec<u8> {
    let blocks = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/prometheus_blocks");
    std::fs::read(blocks.join(BLOCKS[block]).join(name)).unwrap()
}

type Found = Vec<(BlockSeries, Vec<(i64, Value)>)>;

/// Everything in a block, what was deleted included.
fn read(block: usize) -> Found {
    let (index, segment) = (file(block, "index"), file(block, "chunks/000001"));
    check_segment(&segment).unwrap();
    let index = Index::open(&index).unwrap();
    let (mut walk, mut series, mut found) = (index.series(), BlockSeries::default(), Found::new());
    while walk.next(&mut series).unwrap() {
        let mut samples = Vec::new();
        for place in &series.chunks {
            assert_eq!(place.segment, 0);
            let chunk = chunk_at(&segment, place.offset).unwrap();
            let of_chunk: Vec<(i64, Value)> = chunk.samples().unwrap().map(Result::unwrap).collect();
            let ends = (of_chunk.first().unwrap().0, of_chunk.last().unwrap().0);
            assert_eq!(ends, (place.min_ms, place.max_ms));
            samples.extend(of_chunk);
        }
        found.push((series.clone(), samples));
    }
    assert!((index.progress(&walk) - 1.0).abs() < 0.1);
    found
}

#[test]
fn a_block_of_floats_is_read_with_what_was_deleted_from_it() {
    let found = read(0);
    let meta = BlockMeta::parse(&file(0, "meta.json")).unwrap();
    assert_eq!((found.len(), meta.ulid.as_str()), (5, BLOCKS[0]));
    assert_eq!(found.iter().map(|(_, samples)| samples.len()).sum::<usize>() as u64, meta.stats.num_samples);
    let (series, samples) = &found[2];
    assert_eq!(series.labels.to_string(), r#"{__name__="cpu_seconds_total", cpu="2", path="a\\b\""}"#);
    assert!(samples.iter().all(|(_, value)| value.same_bits(&Value::Float(42.0))));
    assert!(samples.windows(2).all(|pair| pair[0].0 < pair[1].0));

    let tombstones = Tombstones::decode(&file(0, "tombstones")).unwrap();
    let deleted: Vec<usize> = found
        .iter()
        .map(|(series, samples)| {
            let ranges = tombstones.deleted(series.reference);
            samples.iter().filter(|(t, _)| ranges.iter().any(|(from, to)| (from..=to).contains(&t))).count()
        })
        .collect();
    assert_eq!(deleted, [0, 0, 0, 24, 0]);
}

#[test]
fn a_block_of_histograms_is_read_as_it_was_sent() {
    let found = read(1);
    let samples = |name: &str| {
        let is_it = |(series, _): &&(BlockSeries, _)| series.labels.metric_name() == Some(name);
        found.iter().find(is_it).map(|(_, samples)| samples.clone()).unwrap()
    };
    let histogram = |(_, value): &(i64, Value)| match value {
        Value::Histogram(histogram) => histogram.clone(),
        Value::Float(_) => panic!("a float"),
    };
    let integers: Vec<Arc<Histogram>> = samples("integers").iter().map(histogram).collect();
    assert_eq!(integers.len(), 150);
    for (i, found) in integers.iter().enumerate() {
        let n = (if i < 100 { i } else { i - 100 }) as f64;
        assert!(found.is_integer);
        if i == 60 {
            assert!(is_stale(found.sum) && found.positive_buckets.is_empty());
            continue;
        }
        assert_eq!((found.sum, found.zero_count, found.schema), (n * 1.5 - 7.0, n, 0), "{i}");
        assert_eq!(found.zero_threshold, 2f64.powi(-128));
        let buckets: Vec<f64> = found.positive_buckets.iter().copied().filter(|&count| count > 0.0).collect();
        let sent = if i > 30 { vec![n, 2.0 * n, 1.0, n] } else { vec![n, 2.0 * n, 1.0] };
        assert_eq!(buckets, sent.into_iter().filter(|&count| count > 0.0).collect::<Vec<_>>(), "{i}");
        assert_eq!(found.negative_buckets, [3.0]);
    }
    let floats = samples("floats");
    assert_eq!(floats.len(), 130);
    let last = histogram(floats.last().unwrap());
    assert!(!last.is_integer && last.positive_spans == [Span { offset: 10, length: 2 }]);
    assert_eq!((last.sum, last.zero_threshold, last.schema), (129.25f64.sqrt(), 0.001, -1));
    assert_eq!(last.positive_buckets, [129.25, 129.25 / 7.0]);
    assert!(samples("plain")[99].1.is_stale());
}

/// The bits of a chunk, from the highest on.
#[derive(Default)]
struct BitWriter(Vec<bool>);

impl BitWriter {
    fn put(&mut self, value: u64, width: u32) -> &mut BitWriter {
        self.0.extend((0..width).rev().map(|bit| value >> bit & 1 == 1));
        self
    }

    /// A number of a histogram: so many ones and a zero, then so many bits.
    fn varbit(&mut self, ones: u32, value: i64, width: u32) -> &mut BitWriter {
        self.put((1 << (ones + 1)) - 2, ones + 1).put(value as u64, width)
    }

    fn bytes(&self) -> Vec<u8> {
        let byte = |bits: &[bool]| (0..8).fold(0, |b, i| b << 1 | u8::from(bits.get(i) == Some(&true)));
        self.0.chunks(8).map(byte).collect()
    }
}

/// A chunk by itself, in the frame of a segment.
fn framed(encoding: u8, data: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    put_uvarint(&mut frame, data.len() as u64);
    let start = frame.len();
    frame.push(encoding);
    frame.extend_from_slice(data);
    let checksum = crc32c(&frame[start..]);
    frame.extend_from_slice(&checksum.to_be_bytes());
    frame
}

fn decoded(encoding: u8, data: &[u8]) -> Result<Vec<(i64, Value)>, DecodeError> {
    chunk_at(&framed(encoding, data), 0)?.samples()?.collect()
}

#[test]
fn custom_buckets_and_the_hints_of_a_chunk_are_read() {
    for (flags, hint) in [
        (0b0000_0000, CounterResetHint::Unknown),
        (0b0100_0000, CounterResetHint::Unknown),
        (0b1000_0000, CounterResetHint::CounterReset),
        (0b1100_0000, CounterResetHint::Gauge),
    ] {
        let mut bits = BitWriter::default();
        // Two histograms; no zero threshold, schema -53, a span of two buckets, bounds 0.5 and 1e9.
        bits.put(2, 16).put(flags, 8).put(0, 8).varbit(3, -53, 9);
        bits.varbit(1, 1, 3).varbit(1, 2, 3).put(0, 1).put(0, 1);
        bits.varbit(1, 2, 3).varbit(3, 501, 9).put(0, 1).put(1e9f64.to_bits(), 64);
        // At 1000: count 3, sum 2.5, buckets 1 and 2. A second later the same.
        bits.varbit(4, 1000, 12).varbit(1, 3, 3).put(0, 1).put(2.5f64.to_bits(), 64);
        bits.varbit(1, 1, 3).varbit(1, 1, 3);
        bits.varbit(4, 1000, 12).put(0, 2).put(0, 1).put(0, 2);
        let found = decoded(2, &bits.bytes()).unwrap();
        let expected = Histogram {
            is_integer: true,
            counter_reset_hint: hint,
            schema: -53,
            count: 3.0,
            sum: 2.5,
            positive_spans: vec![Span { offset: 0, length: 2 }],
            positive_buckets: vec![1.0, 2.0],
            custom_values: vec![0.5, 1e9],
            ..Histogram::default()
        };
        assert_eq!(found.iter().map(|(t, _)| *t).collect::<Vec<_>>(), [1000, 2000]);
        assert!(found[0].1.same_bits(&Value::Histogram(Arc::new(expected.clone()))), "{:?}", found[0]);
        // Within a chunk of a counter there is no reset.
        let later = match hint {
            CounterResetHint::Gauge => hint,
            _ => CounterResetHint::NotCounterReset,
        };
        let second = Histogram { counter_reset_hint: later, ..expected };
        assert!(found[1].1.same_bits(&Value::Histogram(Arc::new(second))), "{:?}", found[1]);
    }
}

#[test]
fn a_chunk_of_an_unknown_kind_says_so() {
    let error = decoded(4, &[0, 1, 0, 0]).unwrap_err();
    assert!(error.to_string().contains("encoding is unknown"), "{error}");
    let claim = [0xff, 0xff, 0xff, 0x7f, 1];
    assert!(chunk_at(&claim, 0).unwrap_err().to_string().contains("longer than any"));
    assert!(chunk_at(&claim, 99).is_err());
}

/// An index of one version: symbols, two series with two chunks each, one that goes back in time.
fn index(version: u8) -> Vec<u8> {
    let mut out = [0xbaaa_d700u32.to_be_bytes().as_slice(), &[version]].concat();
    let symbols_at = out.len();
    let mut symbols = 5u32.to_be_bytes().to_vec();
    let mut references = Vec::new();
    for (number, symbol) in ["", "__name__", "a", "b", "up"].into_iter().enumerate() {
        // Version 1 names a symbol by its offset in the file.
        references.push(if version == 1 { (symbols_at + 4 + symbols.len()) as u64 } else { number as u64 });
        put_uvarint(&mut symbols, symbol.len() as u64);
        symbols.extend_from_slice(symbol.as_bytes());
    }
    out.extend_from_slice(&(symbols.len() as u32).to_be_bytes());
    out.extend_from_slice(&symbols);
    out.extend_from_slice(&crc32c(&symbols).to_be_bytes());
    if version == 2 {
        out.resize(out.len().next_multiple_of(16), 0);
    }
    let series_at = out.len();
    for value in [2, 3] {
        if version == 2 {
            out.resize(out.len().next_multiple_of(16), 0);
        }
        let mut entry = Vec::new();
        put_uvarint(&mut entry, 2);
        [1, 4, 2, value].iter().for_each(|&symbol: &usize| put_uvarint(&mut entry, references[symbol]));
        put_uvarint(&mut entry, 2);
        // 10 to 30 in the first segment at 8; from 25 to 40 in the second at 9.
        for number in [zigzag(10), 20, 8, (25i64 - 30) as u64, 15, zigzag((1 << 32 | 9) - 8)] {
            put_uvarint(&mut entry, number);
        }
        put_uvarint(&mut out, entry.len() as u64);
        out.extend_from_slice(&entry);
        out.extend_from_slice(&crc32c(&entry).to_be_bytes());
    }
    let end = out.len();
    let offsets = [symbols_at, series_at, end, end, end, end];
    let contents: Vec<u8> = offsets.iter().flat_map(|&at| (at as u64).to_be_bytes()).collect();
    out.extend_from_slice(&contents);
    out.extend_from_slice(&crc32c(&contents).to_be_bytes());
    out
}

#[test]
fn indexes_of_both_versions_are_walked() {
    for version in [1, 2] {
        let bytes = index(version);
        let index = Index::open(&bytes).unwrap();
        let (mut walk, mut series) = (index.series(), BlockSeries::default());
        let mut found = Vec::new();
        while walk.next(&mut series).unwrap() {
            found.push(series.labels.to_string());
            let place = |segment, offset, min_ms, max_ms| ChunkRef { segment, offset, min_ms, max_ms };
            assert_eq!(series.chunks, [place(0, 8, 10, 30), place(1, 9, 25, 40)]);
            let unit = if version == 1 { 1 } else { 16 };
            assert!(series.reference * unit < bytes.len() as u64);
        }
        assert_eq!(found, [r#"{__name__="up", a="a"}"#, r#"{__name__="up", a="b"}"#], "version {version}");
    }
    let mut later = index(2);
    later[4] = 3;
    assert!(Index::open(&later).unwrap_err().to_string().contains("version 3"));
}

#[test]
fn what_others_were_made_of_counts_no_more() {
    let meta = |ulid: &str, compaction: &str| {
        let json =
            format!(r#"{{"ulid":"{ulid}","minTime":1,"maxTime":2,"version":1,"compaction":{compaction}}}"#);
        BlockMeta::parse(json.as_bytes()).unwrap()
    };
    let blocks = [
        meta("A", r#"{"level":1,"sources":["A"]}"#),
        meta("B", r#"{"level":2,"parents":[{"ulid":"A","minTime":1,"maxTime":2}]}"#),
        meta("C", r#"{"deletable":true}"#),
    ];
    assert_eq!(superseded(&blocks).into_iter().collect::<Vec<_>>(), ["A", "C"]);
    assert!(BlockMeta::parse(br#"{"ulid":"A","minTime":1,"maxTime":2,"version":2}"#).is_err());
    assert!(is_block_name(BLOCKS[0]) && !is_block_name("chunks_head") && !is_block_name("wal"));
}

/// Makes the checksums of an index right again, as far as it can be followed.
fn reseal(index: &mut [u8]) {
    fn seal(index: &mut [u8], start: usize, len: usize) -> Option<usize> {
        let end = start.checked_add(len)?;
        let checksum = crc32c(index.get(start..end)?);
        index.get_mut(end..end + 4)?.copy_from_slice(&checksum.to_be_bytes());
        Some(end + 4)
    }
    let contents = index.len() - 52;
    seal(index, contents, 48);
    let offset = |index: &[u8], i: usize| {
        let bytes = index[contents + i * 8..contents + i * 8 + 8].try_into().unwrap();
        usize::try_from(u64::from_be_bytes(bytes)).unwrap_or(usize::MAX)
    };
    let (symbols, mut at) = (offset(index, 0), offset(index, 1));
    if let Some(len) = symbols.checked_add(4).and_then(|end| index.get(symbols..end)) {
        let len = u32::from_be_bytes(len.try_into().unwrap()) as usize;
        seal(index, symbols + 4, len);
    }
    while at < contents {
        if index[4] == 2 {
            at = at.next_multiple_of(16);
        }
        let Some((len, varint)) = index.get(at..).and_then(get_uvarint) else { return };
        match seal(index, at + varint, len as usize) {
            Some(end) => at = end,
            None => return,
        }
    }
}

/// Walks an index; what it allocates must be in proportion to its length.
fn walk(bytes: &[u8]) -> usize {
    let Ok(index) = Index::open(bytes) else { return 0 };
    let (mut walk, mut series, mut count) = (index.series(), BlockSeries::default(), 0);
    while let Ok(true) = walk.next(&mut series) {
        count += 1;
        assert!(series.chunks.len() < bytes.len() && count < bytes.len());
    }
    count
}

proptest! {
    #[test]
    fn a_damaged_index_is_an_error_or_an_index(
        version in 1u8..=3, changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        len in any::<prop::sample::Index>(), cut in any::<bool>(),
    ) {
        let mut bytes = if version == 3 { file(0, "index") } else { index(version) };
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        reseal(&mut bytes);
        walk(&bytes);
        if cut {
            bytes.truncate(len.index(bytes.len()));
            walk(&bytes);
        }
    }

    #[test]
    fn a_damaged_chunk_is_an_error_or_samples(
        series in 0usize..9, changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        encoding in 0u8..5, len in any::<prop::sample::Index>(),
    ) {
        let (block, number) = if series < 5 { (0, series) } else { (1, series - 5) };
        let segment = file(block, "chunks/000001");
        let found = read(block);
        let (of_series, _) = &found[number % found.len()];
        let at = of_series.chunks[0].offset as usize;
        let (data_len, varint) = get_uvarint(&segment[at..]).unwrap();
        let start = at + varint + 1;
        let mut data = segment[start..start + data_len as usize].to_vec();
        for (at, byte) in changes {
            // The start says how much there is.
            let at = at.index(if byte % 2 == 0 { data.len() } else { 24 });
            data[at] = byte;
        }
        data.truncate(len.index(data.len()).max(8));
        for encoding in [encoding, segment[start - 1]] {
            if let Ok(samples) = decoded(encoding, &data) {
                prop_assert!(samples.len() <= usize::from(u16::MAX));
            }
        }
    }

    #[test]
    fn any_bytes_are_tombstones_or_an_error(body in proptest::collection::vec(any::<u8>(), 0..60)) {
        let mut bytes = [0x0130_ba30u32.to_be_bytes().as_slice(), &[1], &body].concat();
        bytes.extend_from_slice(&crc32c(&body).to_be_bytes());
        let _ = Tombstones::decode(&bytes);
        let _ = Tombstones::decode(&body);
    }
}
