//! Native-histogram chunks: the layout once, then every number as a column.
//!
//! A layout is what rarely changes: schema, zero threshold, spans, custom bounds. Count, zero
//! count, sum and each bucket are columns over the samples and each is a float chunk of its own;
//! the counts of integer histograms are whole numbers, whose float chunks are integer streams.
//! Stale markers fit any layout, as they hold nothing but the marker.

use super::float::{decode_from, encode_floats};
use super::{EXT_HISTOGRAM, KIND_EXT, MAX_CHUNK_SAMPLES};
use crate::cursor::{Cursor, DecodeError};
use crate::histogram::{CounterResetHint, Histogram, Span};
use crate::ints::{Packing, decode_ints, encode_ints};
use crate::sample::{STALE_NAN, is_stale};
use crate::varint::{put_uvarint, zigzag};
use std::sync::Arc;

/// A chunk decodes to at most so many numbers (samples times what each sample holds), however few
/// bytes it takes: 32 MiB.
const CELLS_MAX: usize = 1 << 22;

/// What stands in every sample beside spans, bounds and buckets.
const CELLS_FIXED: usize = 8;

// The per-sample code.
const HINT_MASK: i64 = 0b11;
const CODE_STALE: i64 = 1 << 2;
const CODE_INTEGER: i64 = 1 << 3;

/// How many of the histograms, from the front, fit into one chunk: those of the first one's layout
/// and the stale markers between them, as many as a chunk may hold. At least 1 unless there are none.
pub fn layout_run(histograms: &[Arc<Histogram>]) -> usize {
    let mut layout: Option<&Histogram> = None;
    let mut most = MAX_CHUNK_SAMPLES;
    for (n, histogram) in histograms.iter().enumerate() {
        let fits = is_marker(histogram)
            || match layout {
                Some(layout) => same_layout(layout, histogram),
                None => {
                    layout = Some(histogram);
                    most = (CELLS_MAX / cells(histogram)).clamp(1, MAX_CHUNK_SAMPLES);
                    true
                }
            };
        // A marker costs as much as any sample; they may have come before the layout was known.
        if !fits || n >= most.max(1) {
            return n.min(most);
        }
    }
    histograms.len().min(most)
}

/// Numbers that a sample of this layout decodes to.
fn cells(h: &Histogram) -> usize {
    CELLS_FIXED
        + h.positive_spans.len()
        + h.negative_spans.len()
        + h.positive_buckets.len()
        + h.negative_buckets.len()
        + h.custom_values.len()
}

/// Whether the histogram is a stale marker and nothing else.
fn is_marker(h: &Histogram) -> bool {
    is_stale(h.sum) && h.same_bits(&marker(h.is_integer, h.counter_reset_hint))
}

fn marker(is_integer: bool, counter_reset_hint: CounterResetHint) -> Histogram {
    Histogram { is_integer, counter_reset_hint, sum: STALE_NAN, ..Histogram::default() }
}

fn same_layout(a: &Histogram, b: &Histogram) -> bool {
    a.schema == b.schema
        && a.zero_threshold.to_bits() == b.zero_threshold.to_bits()
        && a.positive_spans == b.positive_spans
        && a.negative_spans == b.negative_spans
        && a.positive_buckets.len() == b.positive_buckets.len()
        && a.negative_buckets.len() == b.negative_buckets.len()
        && a.custom_values.len() == b.custom_values.len()
        && a.custom_values.iter().zip(&b.custom_values).all(|(x, y)| x.to_bits() == y.to_bits())
}

/// Appends the chunk of `histograms`.
///
/// # Panics
/// If they differ in layout; [`layout_run`] tells how many do not.
pub(super) fn encode(histograms: &[Arc<Histogram>], packing: Packing, out: &mut Vec<u8>) {
    out.push(KIND_EXT);
    out.push(EXT_HISTOGRAM);
    let live: Vec<&Histogram> = histograms.iter().map(|h| &**h).filter(|h| !is_marker(h)).collect();
    let empty = Histogram::default();
    let layout = live.first().copied().unwrap_or(&empty);
    assert!(live.iter().all(|h| same_layout(layout, h)), "histograms of several layouts in one chunk");
    encode_layout(layout, out);
    let codes: Vec<i64> = histograms
        .iter()
        .map(|h| {
            i64::from(h.counter_reset_hint as u8)
                | if is_marker(h) { CODE_STALE } else { 0 }
                | if h.is_integer { CODE_INTEGER } else { 0 }
        })
        .collect();
    encode_ints(&codes, packing, out);

    let mut column = Vec::with_capacity(live.len());
    let mut put = |of: &dyn Fn(&Histogram) -> f64| {
        column.clear();
        column.extend(live.iter().map(|h| of(h)));
        encode_floats(&column, packing, out);
    };
    put(&|h| h.count);
    put(&|h| h.zero_count);
    put(&|h| h.sum);
    for bucket in 0..layout.positive_buckets.len() {
        put(&|h| h.positive_buckets[bucket]);
    }
    for bucket in 0..layout.negative_buckets.len() {
        put(&|h| h.negative_buckets[bucket]);
    }
}

/// `varint schema, f64 zero threshold; spans and number of buckets of either sign; custom bounds`.
fn encode_layout(layout: &Histogram, out: &mut Vec<u8>) {
    put_uvarint(out, zigzag(i64::from(layout.schema)));
    out.extend_from_slice(&layout.zero_threshold.to_bits().to_le_bytes());
    for (spans, buckets) in [
        (&layout.positive_spans, &layout.positive_buckets),
        (&layout.negative_spans, &layout.negative_buckets),
    ] {
        put_uvarint(out, spans.len() as u64);
        for span in spans {
            put_uvarint(out, zigzag(i64::from(span.offset)));
            put_uvarint(out, u64::from(span.length));
        }
        put_uvarint(out, buckets.len() as u64);
    }
    put_uvarint(out, layout.custom_values.len() as u64);
    for bound in &layout.custom_values {
        out.extend_from_slice(&bound.to_bits().to_le_bytes());
    }
}

/// The layout, with buckets of zeros.
fn decode_layout(cursor: &mut Cursor<'_>) -> Result<Histogram, DecodeError> {
    let schema = cursor.clone().ivarint("histogram schema")?;
    let Ok(schema) = i32::try_from(schema) else {
        return Err(cursor.corrupt("histogram schema", "not 32 bits"));
    };
    cursor.ivarint("histogram schema")?;
    let zero_threshold = cursor.f64("zero threshold")?;
    let (positive_spans, positive_buckets) = decode_spans(cursor)?;
    let (negative_spans, negative_buckets) = decode_spans(cursor)?;
    let bounds = cursor.count(8, "number of custom bounds")?;
    let custom_values = (0..bounds).map(|_| cursor.f64("custom bound")).collect::<Result<_, _>>()?;
    Ok(Histogram {
        schema,
        zero_threshold,
        positive_spans,
        positive_buckets,
        negative_spans,
        negative_buckets,
        custom_values,
        ..Histogram::default()
    })
}

fn decode_spans(cursor: &mut Cursor<'_>) -> Result<(Vec<Span>, Vec<f64>), DecodeError> {
    const WHAT: &str = "histogram span";
    let count = cursor.count(2, WHAT)?;
    let mut spans = Vec::with_capacity(count);
    for _ in 0..count {
        let start = cursor.clone();
        let (offset, length) = (cursor.ivarint(WHAT)?, cursor.uvarint(WHAT)?);
        match (i32::try_from(offset), u32::try_from(length)) {
            (Ok(offset), Ok(length)) => spans.push(Span { offset, length }),
            _ => return Err(start.corrupt(WHAT, "not 32 bits")),
        }
    }
    // The column of a bucket takes two bytes at least. (A chunk of nothing but markers has no buckets.)
    let buckets = cursor.count(2, "number of buckets")?;
    Ok((spans, vec![0.0; buckets]))
}

/// Reads the chunk of `n` (1 to [`MAX_CHUNK_SAMPLES`]) histograms.
pub(super) fn decode(
    cursor: &mut Cursor<'_>,
    n: usize,
    out: &mut Vec<Arc<Histogram>>,
) -> Result<(), DecodeError> {
    const WHAT: &str = "histogram chunk";
    let start = cursor.clone();
    if [cursor.u8(WHAT)?, cursor.u8(WHAT)?] != [KIND_EXT, EXT_HISTOGRAM] {
        return Err(start.corrupt(WHAT, "unknown extension"));
    }
    let layout = decode_layout(cursor)?;
    if n > 1 && cells(&layout).saturating_mul(n) > CELLS_MAX {
        return Err(start.corrupt(WHAT, "too many buckets for so many samples"));
    }
    let mut codes = Vec::new();
    decode_ints(cursor, n, &mut codes)?;
    let mut histograms = Vec::with_capacity(n);
    for code in codes {
        let counter_reset_hint = match code & HINT_MASK {
            0 => CounterResetHint::Unknown,
            1 => CounterResetHint::CounterReset,
            2 => CounterResetHint::NotCounterReset,
            _ => CounterResetHint::Gauge,
        };
        let is_integer = code & CODE_INTEGER != 0;
        if code & !(HINT_MASK | CODE_STALE | CODE_INTEGER) != 0 {
            return Err(start.corrupt(WHAT, "unknown flags of a sample"));
        }
        histograms.push(if code & CODE_STALE != 0 {
            (true, marker(is_integer, counter_reset_hint))
        } else {
            (false, Histogram { is_integer, counter_reset_hint, ..layout.clone() })
        });
    }
    fill(cursor, &layout, &mut histograms)?;
    out.extend(histograms.into_iter().map(|(_, h)| Arc::new(h)));
    Ok(())
}

/// Reads the columns into the samples that are no markers.
fn fill(
    cursor: &mut Cursor<'_>,
    layout: &Histogram,
    histograms: &mut [(bool, Histogram)],
) -> Result<(), DecodeError> {
    let mut live: Vec<&mut Histogram> =
        histograms.iter_mut().filter(|(is_marker, _)| !is_marker).map(|(_, h)| h).collect();
    let mut column = Vec::with_capacity(live.len());
    let mut read = |set: &dyn Fn(&mut Histogram, f64)| -> Result<(), DecodeError> {
        column.clear();
        decode_from(cursor, live.len(), &mut column)?;
        live.iter_mut().zip(&column).for_each(|(h, &value)| set(h, value));
        Ok(())
    };
    read(&|h, v| h.count = v)?;
    read(&|h, v| h.zero_count = v)?;
    read(&|h, v| h.sum = v)?;
    for bucket in 0..layout.positive_buckets.len() {
        read(&|h, v| h.positive_buckets[bucket] = v)?;
    }
    for bucket in 0..layout.negative_buckets.len() {
        read(&|h, v| h.negative_buckets[bucket] = v)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{ChunkValues, decode_chunk, encode_chunk};
    use super::*;
    use proptest::prelude::*;

    fn encode_all(histograms: &[Arc<Histogram>]) -> Vec<u8> {
        let timestamps: Vec<i64> = (0..histograms.len() as i64).collect();
        let mut bytes = Vec::new();
        encode_chunk(&timestamps, ChunkValues::Histograms(histograms), &[], Packing::KEPT, &mut bytes);
        bytes
    }

    fn decode_all(bytes: &[u8], n: usize) -> Result<Vec<Arc<Histogram>>, DecodeError> {
        let timestamps: Vec<i64> = (0..n as i64).collect();
        decode_chunk(bytes, &timestamps).map(|decoded| decoded.histograms)
    }

    fn same(a: &[Arc<Histogram>], b: &[Arc<Histogram>]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same_bits(b))
    }

    /// A counter histogram of 20 buckets as a service exposes it.
    fn latencies(n: usize) -> Vec<Arc<Histogram>> {
        (0..n as u32)
            .map(|i| {
                let buckets: Vec<f64> = (0..20).map(|b| f64::from(i * (b % 5) + b)).collect();
                Arc::new(Histogram {
                    is_integer: true,
                    schema: 3,
                    zero_threshold: 1e-128,
                    count: buckets.iter().sum(),
                    sum: f64::from(i) * 0.125,
                    positive_spans: vec![Span { offset: -3, length: 12 }, Span { offset: 4, length: 8 }],
                    positive_buckets: buckets,
                    ..Histogram::default()
                })
            })
            .collect()
    }

    #[test]
    fn a_counter_histogram_takes_a_fraction_of_a_byte_per_bucket() {
        let histograms = latencies(480);
        assert_eq!(layout_run(&histograms), 480);
        let bytes = encode_all(&histograms);
        assert!(bytes.len() < 480, "{} bytes", bytes.len());
        assert!(same(&decode_all(&bytes, 480).unwrap(), &histograms));
    }

    #[test]
    fn a_layout_ends_where_the_next_begins_and_markers_fit_any() {
        let mut histograms = latencies(10);
        let stale = Arc::new(marker(false, CounterResetHint::Unknown));
        histograms.insert(0, stale.clone());
        histograms.insert(5, stale.clone());
        let custom = Arc::new(Histogram {
            schema: crate::histogram::CUSTOM_BUCKETS_SCHEMA,
            counter_reset_hint: CounterResetHint::Gauge,
            count: 2.5,
            sum: f64::from_bits(0x7ff8_dead_beef_0001),
            zero_count: -0.0,
            positive_spans: vec![Span { offset: 0, length: 2 }],
            positive_buckets: vec![0.5, 2.0],
            custom_values: vec![0.1, f64::INFINITY],
            ..Histogram::default()
        });
        histograms.push(custom);
        assert_eq!(layout_run(&histograms), 12);
        assert_eq!(layout_run(&histograms[12..]), 1);
        for run in [&histograms[..12], &histograms[12..], &[stale.clone(), stale][..]] {
            let bytes = encode_all(run);
            assert!(same(&decode_all(&bytes, run.len()).unwrap(), run));
            for cut in 0..bytes.len() {
                assert!(decode_all(&bytes[..cut], run.len()).is_err(), "cut at {cut}");
            }
        }
    }

    #[test]
    fn a_chunk_that_would_not_fit_memory_is_split() {
        let wide =
            Arc::new(Histogram { positive_buckets: vec![1.0; CELLS_MAX / 10], ..Histogram::default() });
        let histograms = vec![wide; 12];
        let n = layout_run(&histograms);
        assert_eq!(n, 9);
        let bytes = encode_all(&histograms[..n]);
        assert!(same(&decode_all(&bytes, n).unwrap(), &histograms[..n]));
        assert!(decode_all(&bytes, MAX_CHUNK_SAMPLES).unwrap_err().to_string().contains("too many buckets"));
    }

    proptest! {
        #[test]
        fn any_numbers_come_back(
            schema in any::<i32>(),
            zero_threshold in any::<u64>(),
            spans in proptest::collection::vec((any::<i32>(), any::<u32>()), 0..3),
            bounds in proptest::collection::vec(any::<u64>(), 0..3),
            samples in proptest::collection::vec((0..4u8, any::<bool>(), proptest::collection::vec(any::<u64>(), 7)), 1..20),
        ) {
            let hints = [
                CounterResetHint::Unknown,
                CounterResetHint::CounterReset,
                CounterResetHint::NotCounterReset,
                CounterResetHint::Gauge,
            ];
            let spans: Vec<Span> = spans.into_iter().map(|(offset, length)| Span { offset, length }).collect();
            let histograms: Vec<Arc<Histogram>> = samples
                .into_iter()
                .map(|(hint, is_integer, bits)| {
                    let f: Vec<f64> = bits.into_iter().map(f64::from_bits).collect();
                    Arc::new(Histogram {
                        is_integer,
                        counter_reset_hint: hints[usize::from(hint)],
                        schema,
                        zero_threshold: f64::from_bits(zero_threshold),
                        zero_count: f[0],
                        count: f[1],
                        sum: f[2],
                        positive_spans: spans.clone(),
                        positive_buckets: f[3..5].to_vec(),
                        negative_spans: spans[..spans.len() / 2].to_vec(),
                        negative_buckets: f[5..].to_vec(),
                        custom_values: bounds.iter().map(|&b| f64::from_bits(b)).collect(),
                    })
                })
                .collect();
            prop_assert_eq!(layout_run(&histograms), histograms.len());
            let bytes = encode_all(&histograms);
            prop_assert!(same(&decode_all(&bytes, histograms.len()).unwrap(), &histograms));
        }

        #[test]
        fn a_changed_byte_gives_histograms_or_an_error(at in any::<usize>(), flip in 1..=255u8) {
            let mut bytes = encode_all(&latencies(7));
            let at = at % bytes.len();
            bytes[at] ^= flip;
            if let Ok(histograms) = decode_all(&bytes, 7) {
                prop_assert_eq!(histograms.len(), 7);
            }
        }
    }
}
