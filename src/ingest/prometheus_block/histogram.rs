//! Chunks of native histograms, with integer counts (encoding 2) or floats (encoding 3).
//!
//! All histograms of a chunk have the same buckets, which stand at its start. The first has its counts
//! as they are; the others what changed.

use super::bits::{Bits, XorValue};
use larum_storage_format::histogram::CUSTOM_BUCKETS_SCHEMA;
use larum_storage_format::{CounterResetHint, DecodeError, Histogram, Span, is_stale};

/// The first two bits of a chunk's flags.
const FLAGS_MASK: u8 = 0b1100_0000;
const FLAG_RESET: u8 = 0b1000_0000;
const FLAG_GAUGE: u8 = 0b1100_0000;

/// The histograms of a chunk, one after the other.
#[derive(Debug, Clone)]
pub struct Histograms<'a, C> {
    bits: Bits<'a>,
    flags: u8,
    read: u32,
    t_ms: i64,
    distance_ms: i64,
    /// Schema, zero threshold, spans and bounds; no counts.
    layout: Histogram,
    sum: XorValue,
    count: C,
    zero_count: C,
    positive: Vec<C>,
    negative: Vec<C>,
}

/// How a count is stored.
pub trait Count: Copy + Default {
    /// Whether counts are integers.
    const IS_INTEGER: bool;
    /// Reads the first one; `is_bucket` if it is that of a bucket.
    fn first(bits: &mut Bits<'_>, is_bucket: bool) -> Result<Self, DecodeError>;
    /// Goes on to the next histogram's.
    fn next(&mut self, bits: &mut Bits<'_>) -> Result<(), DecodeError>;
    /// The counts of buckets.
    fn of_buckets(buckets: &[Self]) -> Vec<f64>;
    /// A count that is no bucket's.
    fn value(&self) -> f64;
}

/// An integer, by the change of its change.
#[derive(Debug, Clone, Copy, Default)]
pub struct Integer {
    value: i64,
    change: i64,
}

impl Count for Integer {
    const IS_INTEGER: bool = true;

    fn first(bits: &mut Bits<'_>, is_bucket: bool) -> Result<Integer, DecodeError> {
        // A bucket has what it differs by from the bucket before.
        let value = if is_bucket { bits.varbit_int()? } else { bits.varbit_uint()? as i64 };
        Ok(Integer { value, change: 0 })
    }

    fn next(&mut self, bits: &mut Bits<'_>) -> Result<(), DecodeError> {
        self.change = self.change.wrapping_add(bits.varbit_int()?);
        self.value = self.value.wrapping_add(self.change);
        Ok(())
    }

    fn of_buckets(buckets: &[Integer]) -> Vec<f64> {
        let mut running = 0i64;
        let add = |bucket: &Integer| {
            // Nonsense wraps to a negative count, which the storage refuses.
            running = running.wrapping_add(bucket.value);
            running as f64
        };
        buckets.iter().map(add).collect()
    }

    fn value(&self) -> f64 {
        self.value as u64 as f64
    }
}

impl Count for XorValue {
    const IS_INTEGER: bool = false;

    fn first(bits: &mut Bits<'_>, _is_bucket: bool) -> Result<XorValue, DecodeError> {
        Ok(XorValue::new(bits.double()?))
    }

    fn next(&mut self, bits: &mut Bits<'_>) -> Result<(), DecodeError> {
        XorValue::next(self, bits).map(drop)
    }

    fn of_buckets(buckets: &[XorValue]) -> Vec<f64> {
        buckets.iter().map(XorValue::value).collect()
    }

    fn value(&self) -> f64 {
        XorValue::value(self)
    }
}

impl<'a, C: Count> Histograms<'a, C> {
    /// The histograms of these bits, which follow the number of samples.
    pub fn new(mut bits: Bits<'a>) -> Result<Histograms<'a, C>, DecodeError> {
        let flags = bits.bits(8)? as u8 & FLAGS_MASK;
        Ok(Histograms {
            bits,
            flags,
            read: 0,
            t_ms: 0,
            distance_ms: 0,
            layout: Histogram::default(),
            sum: XorValue::default(),
            count: C::default(),
            zero_count: C::default(),
            positive: Vec::new(),
            negative: Vec::new(),
        })
    }

    /// The next sample.
    pub fn next(&mut self) -> Result<(i64, Histogram), DecodeError> {
        if self.read == 0 {
            self.first()?
        } else {
            self.following()?
        }
        self.read += 1;
        let sum = self.sum.value();
        if is_stale(sum) {
            // A stale marker says nothing besides.
            return Ok((self.t_ms, Histogram { is_integer: C::IS_INTEGER, sum, ..Histogram::default() }));
        }
        let histogram = Histogram {
            is_integer: C::IS_INTEGER,
            counter_reset_hint: self.hint(),
            sum,
            count: self.count.value(),
            zero_count: self.zero_count.value(),
            positive_buckets: C::of_buckets(&self.positive),
            negative_buckets: C::of_buckets(&self.negative),
            ..self.layout.clone()
        };
        Ok((self.t_ms, histogram))
    }

    fn first(&mut self) -> Result<(), DecodeError> {
        let bits = &mut self.bits;
        self.layout = layout(bits)?;
        self.t_ms = bits.varbit_int()?;
        self.count = C::first(bits, false)?;
        self.zero_count = C::first(bits, false)?;
        self.sum = XorValue::new(bits.double()?);
        for (buckets, spans) in [
            (&mut self.positive, &self.layout.positive_spans),
            (&mut self.negative, &self.layout.negative_spans),
        ] {
            let count: u64 = spans.iter().map(|span| u64::from(span.length)).sum();
            if count > bits.remaining() as u64 {
                return Err(bits.corrupt("more buckets than bits"));
            }
            *buckets = (0..count).map(|_| C::first(bits, true)).collect::<Result<_, _>>()?;
        }
        Ok(())
    }

    fn following(&mut self) -> Result<(), DecodeError> {
        let bits = &mut self.bits;
        self.distance_ms = self.distance_ms.wrapping_add(bits.varbit_int()?);
        self.t_ms = self.t_ms.wrapping_add(self.distance_ms);
        self.count.next(bits)?;
        self.zero_count.next(bits)?;
        if is_stale(self.sum.next(bits)?) {
            return Ok(());
        }
        self.positive.iter_mut().chain(&mut self.negative).try_for_each(|bucket| bucket.next(bits))
    }

    /// What the chunk's flags say of the histogram read last. A chunk ends before a reset.
    fn hint(&self) -> CounterResetHint {
        match self.flags {
            FLAG_GAUGE => CounterResetHint::Gauge,
            _ if self.read > 1 => CounterResetHint::NotCounterReset,
            FLAG_RESET => CounterResetHint::CounterReset,
            // Whether the chunk before is still there is not known.
            _ => CounterResetHint::Unknown,
        }
    }
}

fn layout(bits: &mut Bits<'_>) -> Result<Histogram, DecodeError> {
    let zero_threshold = match bits.bits(8)? {
        0 => 0.0,
        255 => bits.double()?,
        // Powers of two, by their exponent.
        exponent => 2f64.powi(exponent as i32 - 244),
    };
    let schema = bits.varbit_int()? as i32;
    let positive_spans = spans(bits)?;
    let negative_spans = spans(bits)?;
    let custom_values = if schema == CUSTOM_BUCKETS_SCHEMA { bounds(bits)? } else { Vec::new() };
    Ok(Histogram {
        schema,
        zero_threshold,
        positive_spans,
        negative_spans,
        custom_values,
        ..Histogram::default()
    })
}

/// A number of things that take a bit each, at least.
fn claimed(bits: &mut Bits<'_>) -> Result<usize, DecodeError> {
    let count = bits.varbit_uint()?;
    let possible = usize::try_from(count).ok().filter(|&count| count <= bits.remaining());
    possible.ok_or_else(|| bits.corrupt("more parts than bits"))
}

fn spans(bits: &mut Bits<'_>) -> Result<Vec<Span>, DecodeError> {
    let count = claimed(bits)?;
    let mut span = || Ok(Span { length: bits.varbit_uint()? as u32, offset: bits.varbit_int()? as i32 });
    (0..count).map(|_| span()).collect()
}

/// Bounds of custom buckets: thousandths plus one, or zero and the float.
fn bounds(bits: &mut Bits<'_>) -> Result<Vec<f64>, DecodeError> {
    let count = claimed(bits)?;
    let mut bound = || match bits.varbit_uint()? {
        0 => bits.double(),
        thousandths => Ok((thousandths - 1) as f64 / 1000.0),
    };
    (0..count).map(|_| bound()).collect()
}
