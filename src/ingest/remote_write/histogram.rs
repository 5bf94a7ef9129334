//! The `Histogram` message of remote write: a native histogram with integer or float counts.

use super::wire::{Fields, WireError};
use larum_storage_format::varint::{get_uvarint, unzigzag};
use larum_storage_format::{CounterResetHint, Histogram, Span};

/// Decodes the message that lies at `offset`: its timestamp in milliseconds, and the histogram
/// with absolute counts. Whether the counts make sense is the storage's to judge.
pub(super) fn decode(message: &[u8], offset: usize) -> Result<(i64, Histogram), WireError> {
    let mut t_ms = 0;
    // Without any count the histogram is an empty integer one.
    let mut out = Histogram { is_integer: true, ..Histogram::default() };
    let (mut positive, mut negative) = (Counts::default(), Counts::default());
    let mut fields = Fields::new(message, offset);
    while let Some(field) = fields.next()? {
        let at = fields.offset();
        // Field numbers of `Histogram` in Prometheus' prompb/types.proto.
        if let Some(count) = field.varint(1) {
            out.count = count as f64;
        } else if let Some(count) = field.double(2) {
            out.count = count;
            out.is_integer = false;
        } else if let Some(sum) = field.double(3) {
            out.sum = sum;
        } else if let Some(schema) = field.varint(4) {
            out.schema = unzigzag(schema) as i32;
        } else if let Some(threshold) = field.double(5) {
            out.zero_threshold = threshold;
        } else if let Some(count) = field.varint(6) {
            out.zero_count = count as f64;
        } else if let Some(count) = field.double(7) {
            out.zero_count = count;
            out.is_integer = false;
        } else if let Some(message) = field.bytes(8) {
            out.negative_spans.push(span(message, at - message.len())?);
        } else if let Some(message) = field.bytes(11) {
            out.positive_spans.push(span(message, at - message.len())?);
        } else if let Some(hint) = field.varint(14) {
            out.counter_reset_hint = match hint {
                1 => CounterResetHint::CounterReset,
                2 => CounterResetHint::NotCounterReset,
                3 => CounterResetHint::Gauge,
                _ => CounterResetHint::Unknown,
            };
        } else if let Some(t) = field.varint(15) {
            t_ms = t as i64;
        } else {
            for (counts, deltas, floats) in [(&mut negative, 9, 10), (&mut positive, 12, 13)] {
                if let Some(packed) = field.bytes(deltas) {
                    counts.packed_deltas(packed, at - packed.len())?;
                } else if let Some(delta) = field.varint(deltas) {
                    counts.delta(delta);
                } else if let Some(packed) = field.bytes(floats) {
                    doubles(&mut counts.floats, packed, at - packed.len())?;
                } else if let Some(count) = field.double(floats) {
                    counts.floats.push(count);
                }
            }
            if let Some(packed) = field.bytes(16) {
                doubles(&mut out.custom_values, packed, at - packed.len())?;
            } else if let Some(bound) = field.double(16) {
                out.custom_values.push(bound);
            }
        }
    }
    out.negative_buckets = negative.buckets(out.is_integer);
    out.positive_buckets = positive.buckets(out.is_integer);
    Ok((t_ms, out))
}

/// Bucket counts of one sign, in whichever of the two forms they come.
#[derive(Default)]
struct Counts {
    /// The first count, then differences, added up so far.
    running: i64,
    from_deltas: Vec<f64>,
    floats: Vec<f64>,
}

impl Counts {
    fn packed_deltas(&mut self, mut packed: &[u8], offset: usize) -> Result<(), WireError> {
        let end = offset + packed.len();
        while !packed.is_empty() {
            let cut = WireError { what: "a cut bucket delta", offset: end - packed.len() };
            let (delta, len) = get_uvarint(packed).ok_or(cut)?;
            self.delta(delta);
            packed = &packed[len..];
        }
        Ok(())
    }

    fn delta(&mut self, zigzagged: u64) {
        // Nonsense wraps to a negative count, which the storage refuses.
        self.running = self.running.wrapping_add(unzigzag(zigzagged));
        self.from_deltas.push(self.running as f64);
    }

    fn buckets(self, is_integer: bool) -> Vec<f64> {
        if is_integer { self.from_deltas } else { self.floats }
    }
}

fn doubles(out: &mut Vec<f64>, packed: &[u8], offset: usize) -> Result<(), WireError> {
    let (whole, rest) = packed.as_chunks::<8>();
    if !rest.is_empty() {
        return Err(WireError { what: "packed doubles of a length not divisible by 8", offset });
    }
    out.extend(whole.iter().map(|bytes| f64::from_le_bytes(*bytes)));
    Ok(())
}

fn span(message: &[u8], offset: usize) -> Result<Span, WireError> {
    let mut span = Span::default();
    let mut fields = Fields::new(message, offset);
    while let Some(field) = fields.next()? {
        if let Some(gap) = field.varint(1) {
            span.offset = unzigzag(gap) as i32;
        } else if let Some(length) = field.varint(2) {
            span.length = length as u32;
        }
    }
    Ok(span)
}
