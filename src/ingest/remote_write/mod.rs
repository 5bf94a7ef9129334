//! Remote write 1.0: a snappy block that holds a protobuf `prometheus.WriteRequest`.
//!
//! The decoder takes no label apart. It notes where each series' label fields lie in the body and
//! moves the whole body into the [`Batch`]; the storage finds known series by those bytes and
//! calls [`parse_labels`] only for the others. Per sample it costs one timestamp, one value, no
//! allocation.

mod encode;
mod histogram;
mod wire;

pub use encode::encode;

use crate::storage::Batch;
use larum_storage_format::metadata::{MetricMetadata, MetricType};
use larum_storage_format::{Labels, LabelsError};
use wire::{Fields, WireError};

/// Bounds on one request. A sender's claims are held against them before memory is touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyLimits {
    /// Bytes of the body as sent.
    pub compressed_bytes: usize,
    /// Bytes of the body after decompression.
    pub decoded_bytes: usize,
}

impl Default for BodyLimits {
    fn default() -> BodyLimits {
        BodyLimits { compressed_bytes: 32 << 20, decoded_bytes: 128 << 20 }
    }
}

/// Why a body is no write request. Sending it again would change nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The body is longer than allowed, as sent or as it claims to be after decompression.
    #[error("{what} is {len_bytes} bytes long, {limit_bytes} are allowed")]
    TooLarge {
        /// Which form of the body.
        what: &'static str,
        /// Its length, as claimed.
        len_bytes: u64,
        /// The limit.
        limit_bytes: usize,
    },
    /// The body is no snappy block.
    #[error("the body is no snappy block: {0}")]
    Snappy(String),
    /// The decompressed body is no `WriteRequest`.
    #[error("the decompressed body is no write request: {what} at byte {offset}")]
    Protobuf {
        /// What is wrong.
        what: &'static str,
        /// Where in the decompressed body.
        offset: usize,
    },
    /// The request would need far more memory than its bytes: only garbage looks like that.
    #[error("the request's samples need more than {limit_bytes} bytes of memory")]
    TooDense {
        /// The limit.
        limit_bytes: usize,
    },
}

/// What a request carries besides samples.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extras {
    /// How many exemplars there were. They are counted, not kept.
    pub exemplars: usize,
    /// Metadata of metrics.
    pub metadata: Vec<MetricMetadata>,
}

/// A snappy block multiplies its length by at most 64/3: a copy of 64 bytes takes three. A larger
/// claim is a lie, which is not worth an allocation.
const SNAPPY_MAX_RATIO: u64 = 22;

/// How long the body will be after decompression, by its own claim held against `limits` and
/// against what the format can do.
pub fn claimed_len(body: &[u8], limits: &BodyLimits) -> Result<usize, DecodeError> {
    let too_large = |what, len_bytes, limit_bytes| DecodeError::TooLarge { what, len_bytes, limit_bytes };
    if body.len() > limits.compressed_bytes {
        return Err(too_large("the body", body.len() as u64, limits.compressed_bytes));
    }
    let claim = larum_storage_format::varint::get_uvarint(body)
        .filter(|(claim, _)| *claim <= u64::from(u32::MAX))
        .ok_or_else(|| DecodeError::Snappy("no valid length at its start".to_owned()))?
        .0;
    if claim > limits.decoded_bytes as u64 {
        return Err(too_large("the decompressed body", claim, limits.decoded_bytes));
    }
    if claim > SNAPPY_MAX_RATIO * body.len() as u64 {
        let len = body.len();
        return Err(DecodeError::Snappy(format!("{len} bytes cannot hold the {claim} they claim")));
    }
    Ok(claim as usize)
}

/// Decompresses `body` into `text`, whose former content is lost and whose memory is used again.
pub fn decompress(body: &[u8], limits: &BodyLimits, text: &mut Vec<u8>) -> Result<(), DecodeError> {
    let len = claimed_len(body, limits)?;
    text.resize(len, 0);
    let written =
        snap::raw::Decoder::new().decompress(body, text).map_err(|e| DecodeError::Snappy(e.to_string()))?;
    text.truncate(written);
    Ok(())
}

/// Decodes the decompressed request `text` into `batch`, which loses its former content and takes
/// `text` over. After an error the batch is empty.
pub fn decode(text: Vec<u8>, batch: &mut Batch) -> Result<Extras, DecodeError> {
    batch.reset(parse_labels, Vec::new());
    let mut request = Request { batch, spill: Vec::new(), memory_bytes: 0, extras: Extras::default() };
    let result = request.decode(&text);
    let Request { batch, spill, extras, .. } = request;
    let mut text = text;
    text.extend_from_slice(&spill);
    if let Err(error) = result {
        batch.clear();
        batch.set_text(text);
        return Err(error);
    }
    batch.set_text(text);
    Ok(extras)
}

/// Parses the label fields of one series, as they stand in its `TimeSeries` message.
pub fn parse_labels(raw: &[u8]) -> Result<Labels, LabelsError> {
    let broken = |e: WireError| LabelsError::NotCanonical(e.offset);
    let mut pairs: Vec<(&str, &str)> = Vec::with_capacity(16);
    let mut fields = Fields::new(raw, 0);
    while let Some(field) = fields.next().map_err(broken)? {
        let Some(label) = field.bytes(LABELS) else { continue };
        let (mut name, mut value): (&[u8], &[u8]) = (&[], &[]);
        let mut inner = Fields::new(label, fields.offset() - label.len());
        while let Some(field) = inner.next().map_err(broken)? {
            if let Some(bytes) = field.bytes(1) {
                name = bytes;
            } else if let Some(bytes) = field.bytes(2) {
                value = bytes;
            }
        }
        let name = std::str::from_utf8(name)
            .map_err(|_| LabelsError::NotUtf8(format!("name {:?}", String::from_utf8_lossy(name))))?;
        let value =
            std::str::from_utf8(value).map_err(|_| LabelsError::NotUtf8(format!("value of {name:?}")))?;
        pairs.push((name, value));
    }
    Labels::from_pairs(pairs)
}

/// The label fields of one series as far as they can be read, for a message that says what is
/// wrong with them.
pub fn describe_labels(raw: &[u8]) -> String {
    let mut out = String::from("{");
    let mut fields = Fields::new(raw, 0);
    while let Ok(Some(field)) = fields.next() {
        let Some(label) = field.bytes(LABELS) else { continue };
        let mut inner = Fields::new(label, 0);
        let (mut name, mut value): (&[u8], &[u8]) = (&[], &[]);
        while let Ok(Some(field)) = inner.next() {
            name = field.bytes(1).unwrap_or(name);
            value = field.bytes(2).unwrap_or(value);
        }
        let comma = if out.len() > 1 { ", " } else { "" };
        let (name, value) = (String::from_utf8_lossy(name), String::from_utf8_lossy(value));
        out.push_str(&format!("{comma}{name}={value:?}"));
    }
    out.push('}');
    out
}

// Field numbers of WriteRequest and TimeSeries (Prometheus' prompb/remote.proto and types.proto).
const TIMESERIES: u32 = 1;
const METADATA: u32 = 3;
const LABELS: u32 = 1;
const SAMPLES: u32 = 2;
const EXEMPLARS: u32 = 3;
const HISTOGRAMS: u32 = 4;

/// Memory that a request's samples may take beside its body. Ordinary requests stay far below; a
/// body of empty sample messages (two bytes each) would not.
const MAX_MEMORY_BYTES: usize = 256 << 20;

/// A request being decoded.
struct Request<'b> {
    batch: &'b mut Batch,
    /// Label fields of series whose labels do not lie in one piece; they go behind the body.
    spill: Vec<u8>,
    memory_bytes: usize,
    extras: Extras,
}

impl From<WireError> for DecodeError {
    fn from(error: WireError) -> DecodeError {
        DecodeError::Protobuf { what: error.what, offset: error.offset }
    }
}

impl Request<'_> {
    fn decode(&mut self, text: &[u8]) -> Result<(), DecodeError> {
        let mut fields = Fields::new(text, 0);
        while let Some(field) = fields.next()? {
            if let Some(message) = field.bytes(TIMESERIES) {
                self.series(text, message, fields.offset() - message.len())?;
            } else if let Some(message) = field.bytes(METADATA) {
                self.charge(size_of::<MetricMetadata>() + message.len())?;
                self.extras.metadata.push(metadata(message, fields.offset() - message.len())?);
            }
        }
        Ok(())
    }

    /// Decodes the `TimeSeries` message that begins at `offset` in `text`.
    fn series(&mut self, text: &[u8], message: &[u8], offset: usize) -> Result<(), DecodeError> {
        let mut fields = Fields::new(message, offset);
        // Nearly always all labels; the loop takes what is left, whatever it looks like.
        fields.skip_short(wire::short_key(LABELS));
        let mut labels = offset..fields.offset();
        let mut spilled_from = None;
        let mut begun = false;
        loop {
            let start = fields.offset();
            let Some(field) = fields.next()? else { break };
            if field.bytes(LABELS).is_some() {
                // Senders write all labels first, so that they lie in one piece. Whoever does not
                // pays for a copy behind the body.
                if labels.is_empty() && !begun {
                    labels = start..fields.offset();
                } else if start == labels.end && !begun && spilled_from.is_none() {
                    labels.end = fields.offset();
                } else {
                    let from = *spilled_from.get_or_insert_with(|| {
                        let from = self.spill.len();
                        self.spill.extend_from_slice(&text[labels.clone()]);
                        from
                    });
                    self.spill.extend_from_slice(&text[start..fields.offset()]);
                    if begun {
                        self.batch.set_last_series_text(text.len() + from..text.len() + self.spill.len());
                    }
                }
                continue;
            }
            let sample = field.bytes(SAMPLES);
            let histogram = field.bytes(HISTOGRAMS);
            if sample.is_none() && histogram.is_none() {
                self.extras.exemplars += usize::from(field.bytes(EXEMPLARS).is_some());
                continue;
            }
            if !begun {
                begun = true;
                self.charge(12)?;
                self.batch.begin_series(match spilled_from {
                    Some(from) => text.len() + from..text.len() + self.spill.len(),
                    None => labels.clone(),
                });
            }
            if let Some(message) = sample {
                let (t_ms, value) = wire::sample(message, fields.offset() - message.len())?;
                self.charge(16)?;
                self.batch.sample(t_ms, value);
            } else if let Some(message) = histogram {
                // A byte of packed deltas becomes a float; the value itself has a fixed size.
                self.charge(256 + 8 * message.len())?;
                let (t_ms, histogram) = histogram::decode(message, fields.offset() - message.len())?;
                self.batch.histogram(t_ms, histogram.into());
            }
        }
        Ok(())
    }

    fn charge(&mut self, bytes: usize) -> Result<(), DecodeError> {
        self.memory_bytes += bytes;
        if self.memory_bytes > MAX_MEMORY_BYTES {
            return Err(DecodeError::TooDense { limit_bytes: MAX_MEMORY_BYTES });
        }
        Ok(())
    }
}

fn metadata(message: &[u8], offset: usize) -> Result<MetricMetadata, WireError> {
    let mut fields = Fields::new(message, offset);
    let mut out = MetricMetadata::default();
    while let Some(field) = fields.next()? {
        let text = |number| field.bytes(number).map(|b| String::from_utf8_lossy(b).into_owned());
        if let Some(number) = field.varint(1) {
            // The wire numbers the types as MetricType does.
            let known = usize::try_from(number).ok().and_then(|n| MetricType::ALL.get(n));
            out.metric_type = known.copied().unwrap_or_default();
        } else if let Some(name) = text(2) {
            out.name = name;
        } else if let Some(help) = text(4) {
            out.help = help;
        } else if let Some(unit) = text(5) {
            out.unit = unit;
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
