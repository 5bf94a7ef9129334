//! A native histogram in a WAL record: whole, without reference to any other.

use crate::cursor::{Cursor, DecodeError};
use crate::histogram::{CounterResetHint, Histogram, Span};
use crate::varint::{put_uvarint, zigzag};

const WHAT: &str = "native histogram";

/// Appends `histogram`.
pub(super) fn put(out: &mut Vec<u8>, histogram: &Histogram) {
    out.push(u8::from(histogram.is_integer) | (histogram.counter_reset_hint as u8) << 1);
    put_uvarint(out, zigzag(i64::from(histogram.schema)));
    for value in [histogram.zero_threshold, histogram.zero_count, histogram.count, histogram.sum] {
        out.extend_from_slice(&value.to_bits().to_le_bytes());
    }
    for spans in [&histogram.positive_spans, &histogram.negative_spans] {
        put_uvarint(out, spans.len() as u64);
        for span in spans {
            put_uvarint(out, zigzag(i64::from(span.offset)));
            put_uvarint(out, u64::from(span.length));
        }
    }
    for values in [&histogram.positive_buckets, &histogram.negative_buckets, &histogram.custom_values] {
        put_uvarint(out, values.len() as u64);
        for value in values {
            out.extend_from_slice(&value.to_bits().to_le_bytes());
        }
    }
}

/// Reads what [`put`] wrote.
pub(super) fn get(cursor: &mut Cursor<'_>) -> Result<Histogram, DecodeError> {
    let flags = cursor.u8(WHAT)?;
    let counter_reset_hint = match flags >> 1 {
        0 => CounterResetHint::Unknown,
        1 => CounterResetHint::CounterReset,
        2 => CounterResetHint::NotCounterReset,
        3 => CounterResetHint::Gauge,
        _ => return Err(cursor.corrupt(WHAT, "unknown flags")),
    };
    let schema = small(cursor)?;
    let [zero_threshold, zero_count, count, sum] =
        [cursor.f64(WHAT)?, cursor.f64(WHAT)?, cursor.f64(WHAT)?, cursor.f64(WHAT)?];
    Ok(Histogram {
        is_integer: flags & 1 == 1,
        counter_reset_hint,
        schema,
        zero_threshold,
        zero_count,
        count,
        sum,
        positive_spans: spans(cursor)?,
        negative_spans: spans(cursor)?,
        positive_buckets: floats(cursor)?,
        negative_buckets: floats(cursor)?,
        custom_values: floats(cursor)?,
    })
}

fn small(cursor: &mut Cursor<'_>) -> Result<i32, DecodeError> {
    let value = cursor.ivarint(WHAT)?;
    i32::try_from(value).map_err(|_| cursor.corrupt(WHAT, "a number does not fit 32 bits"))
}

fn spans(cursor: &mut Cursor<'_>) -> Result<Vec<Span>, DecodeError> {
    let count = cursor.count(2, WHAT)?;
    (0..count)
        .map(|_| {
            let offset = small(cursor)?;
            let length = u32::try_from(cursor.uvarint(WHAT)?)
                .map_err(|_| cursor.corrupt(WHAT, "a span is longer than 32 bits"))?;
            Ok(Span { offset, length })
        })
        .collect()
}

fn floats(cursor: &mut Cursor<'_>) -> Result<Vec<f64>, DecodeError> {
    let count = cursor.count(8, WHAT)?;
    (0..count).map(|_| cursor.f64(WHAT)).collect()
}
