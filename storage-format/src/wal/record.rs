//! What a WAL frame holds: records of declared series, samples, exemplars and metadata.
//!
//! A frame holds one batch. Its samples are columns, in the order of the batch: ref, timestamp,
//! value; histograms and start timestamps name the sample they belong to by its position.
//! Encoding works in buffers that live on from frame to frame.

use super::{frame, histogram};
use crate::cursor::{Cursor, DecodeError, DecodeErrorKind};
use crate::histogram::Histogram;
use crate::labels::Labels;
use crate::metadata::MetricMetadata;
use crate::series_id::SeriesId;
use crate::varint::{put_uvarint, zigzag};
use std::sync::Arc;

/// The records of a frame, as numbered in the format.
mod kind {
    pub const SERIES: u8 = 1;
    pub const SAMPLES: u8 = 2;
    pub const HISTOGRAMS: u8 = 3;
    pub const START_TIMESTAMPS: u8 = 4;
    pub const EXEMPLARS: u8 = 5;
    pub const METADATA: u8 = 6;
}

/// Snappy cannot make more than this of one byte (64 bytes of 3, copies of the shortest form).
const MAX_EXPANSION: usize = 22;

/// A frame is not longer than this before it is packed: the packed length has to fit 32 bits, and
/// Snappy may add a sixth.
pub const MAX_UNPACKED_BYTES: usize = 3 << 30;

/// What was put does not fit a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it takes {bytes} bytes in the WAL, {limit_bytes} are possible; append it in parts")]
pub struct FrameTooLong {
    /// What it takes.
    pub bytes: usize,
    /// What is possible.
    pub limit_bytes: usize,
}

/// A series as a generation declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeriesDeclaration {
    /// The number that stands for the series in this generation.
    pub series: u32,
    /// Its identity.
    pub id: SeriesId,
    /// The number of its scrape group, so that replay does not join what was apart.
    pub group: u32,
    /// Its labels.
    pub labels: Labels,
}

/// An exemplar: a sample of a trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Exemplar {
    /// The series, by its number in this generation.
    pub series: u32,
    /// Milliseconds since the epoch.
    pub timestamp_ms: i64,
    /// Its value.
    pub value: f64,
    /// Its own labels (`trace_id`).
    pub labels: Labels,
}

/// The decoded records of one frame. Reuse one for many frames.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    /// Series declared here. They count for this frame too.
    pub series: Vec<SeriesDeclaration>,
    /// The series of each sample.
    pub refs: Vec<u32>,
    /// The timestamp of each sample, in milliseconds since the epoch.
    pub timestamps: Vec<i64>,
    /// The float of each sample; 0.0 where `histograms` has an entry.
    pub values: Vec<f64>,
    /// Sample position and histogram, ascending.
    pub histograms: Vec<(u32, Arc<Histogram>)>,
    /// Sample position and start timestamp, ascending.
    pub start_timestamps: Vec<(u32, i64)>,
    /// Exemplars.
    pub exemplars: Vec<Exemplar>,
    /// Metadata of metrics.
    pub metadata: Vec<MetricMetadata>,
    /// The payload, unpacked.
    unpacked: Vec<u8>,
}

/// Builds frames.
#[derive(Debug)]
pub struct FrameEncoder {
    payload: Vec<u8>,
    /// Longer than the frame: never shrunk, so that it need not be zeroed again.
    frame: Vec<u8>,
    snappy: snap::raw::Encoder,
    limit_bytes: usize,
}

impl Default for FrameEncoder {
    fn default() -> FrameEncoder {
        FrameEncoder {
            payload: Vec::new(),
            frame: Vec::new(),
            snappy: snap::raw::Encoder::new(),
            limit_bytes: MAX_UNPACKED_BYTES,
        }
    }
}

impl FrameEncoder {
    /// Forgets what was put.
    pub fn clear(&mut self) {
        self.payload.clear();
    }

    /// Whether nothing was put since [`FrameEncoder::clear`].
    pub fn is_empty(&self) -> bool {
        self.payload.is_empty()
    }

    /// How much memory the buffers hold.
    pub fn capacity(&self) -> usize {
        self.payload.capacity() + self.frame.capacity()
    }

    /// One record: its kind, its length in four bytes, what `body` writes.
    fn record(&mut self, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
        self.payload.push(kind);
        let start = self.payload.len() + 4;
        self.payload.extend_from_slice(&[0; 4]);
        body(&mut self.payload);
        // If it does not fit, finish() refuses the frame.
        let len = (self.payload.len() - start) as u32;
        self.payload[start - 4..start].copy_from_slice(&len.to_le_bytes());
    }

    /// Declares series.
    pub fn series<'a>(&mut self, series: impl Iterator<Item = &'a SeriesDeclaration>) {
        self.record(kind::SERIES, |out| {
            for declaration in series {
                put_uvarint(out, u64::from(declaration.series));
                out.extend_from_slice(&declaration.id.to_le_bytes());
                put_uvarint(out, u64::from(declaration.group));
                put_block(out, declaration.labels.as_bytes());
            }
        });
    }

    /// Adds the samples, at most once a frame.
    ///
    /// # Panics
    /// If the columns are not equally long.
    pub fn samples(&mut self, refs: &[u32], timestamps: &[i64], values: &[f64]) {
        assert!(refs.len() == timestamps.len() && refs.len() == values.len(), "columns of one length");
        self.record(kind::SAMPLES, |out| {
            put_uvarint(out, refs.len() as u64);
            put_runs(out, refs, timestamps);
            put_values(out, values);
        });
    }

    /// Adds histograms by the position of their sample, ascending.
    pub fn histograms(&mut self, histograms: &[(u32, Arc<Histogram>)]) {
        self.record(kind::HISTOGRAMS, |out| {
            let mut next = 0;
            for (sample, histogram) in histograms {
                put_uvarint(out, u64::from(sample - next));
                histogram::put(out, histogram);
                next = sample + 1;
            }
        });
    }

    /// Adds start timestamps by the position of their sample, ascending.
    pub fn start_timestamps(&mut self, start_timestamps: &[(u32, i64)]) {
        self.record(kind::START_TIMESTAMPS, |out| {
            let (mut next, mut previous) = (0, 0i64);
            for &(sample, start) in start_timestamps {
                put_uvarint(out, u64::from(sample - next));
                put_uvarint(out, zigzag(start.wrapping_sub(previous)));
                (next, previous) = (sample + 1, start);
            }
        });
    }

    /// Adds exemplars.
    pub fn exemplars(&mut self, exemplars: &[Exemplar]) {
        self.record(kind::EXEMPLARS, |out| {
            for exemplar in exemplars {
                put_uvarint(out, u64::from(exemplar.series));
                put_uvarint(out, zigzag(exemplar.timestamp_ms));
                out.extend_from_slice(&exemplar.value.to_bits().to_le_bytes());
                put_block(out, exemplar.labels.as_bytes());
            }
        });
    }

    /// Adds metadata of metrics.
    pub fn metadata(&mut self, metadata: &[MetricMetadata]) {
        self.record(kind::METADATA, |out| {
            metadata.iter().for_each(|entry| entry.encode(out));
        });
    }

    /// The frame, compressed, to be sealed ([`frame::seal`]) for the segment that takes it.
    ///
    /// # Errors
    /// If what was put is longer than [`MAX_UNPACKED_BYTES`].
    pub fn finish(&mut self) -> Result<&mut [u8], FrameTooLong> {
        let (bytes, limit_bytes) = (self.payload.len(), self.limit_bytes);
        if bytes > limit_bytes {
            return Err(FrameTooLong { bytes, limit_bytes });
        }
        let most = frame::FRAME_PREFIX_BYTES + snap::raw::max_compress_len(self.payload.len());
        if self.frame.len() < most {
            self.frame.resize(most, 0);
        }
        let len = self
            .snappy
            .compress(&self.payload, &mut self.frame[frame::FRAME_PREFIX_BYTES..])
            .expect("the output has room for the longest result and a payload is below 4 GiB");
        let frame = &mut self.frame[..frame::FRAME_PREFIX_BYTES + len];
        frame::measure(frame);
        Ok(frame)
    }
}

fn put_block(out: &mut Vec<u8>, bytes: &[u8]) {
    put_uvarint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Runs of consecutive refs with one timestamp: distance of the first ref from what would come
/// next, count - 1, distance of the timestamp from the previous run's.
fn put_runs(out: &mut Vec<u8>, refs: &[u32], timestamps: &[i64]) {
    let (mut next_ref, mut previous_ms) = (0u32, 0i64);
    let mut at = 0;
    while at < refs.len() {
        let (first, t) = (refs[at], timestamps[at]);
        let mut end = at + 1;
        while end < refs.len() && timestamps[end] == t && refs[end - 1].checked_add(1) == Some(refs[end]) {
            end += 1;
        }
        put_uvarint(out, zigzag(i64::from(first) - i64::from(next_ref)));
        put_uvarint(out, (end - at - 1) as u64);
        put_uvarint(out, zigzag(t.wrapping_sub(previous_ms)));
        next_ref = refs[end - 1].wrapping_add(1);
        previous_ms = t;
        at = end;
    }
}

/// Values without their low zero bytes: first the lengths, four bits each, then the bytes that
/// are left, the highest first, so that what values have in common stands together.
fn put_values(out: &mut Vec<u8>, values: &[f64]) {
    let lens = out.len();
    out.resize(lens + values.len().div_ceil(2) + 8 * values.len(), 0);
    let (lens, bytes) = out[lens..].split_at_mut(values.len().div_ceil(2));
    let mut end = 0;
    for (i, value) in values.iter().enumerate() {
        let bits = value.to_bits();
        let len = 8 - bits.trailing_zeros() as usize / 8;
        lens[i / 2] |= (len as u8) << (4 * (i % 2));
        bytes[end..end + 8].copy_from_slice(&bits.to_be_bytes());
        end += len;
    }
    let unused = bytes.len() - end;
    out.truncate(out.len() - unused);
}

impl Contents {
    /// Unpacks and decodes the payload of a frame.
    ///
    /// # Errors
    /// Where the payload is not what an encoder writes; the contents are then of no use.
    pub fn decode(&mut self, payload: &[u8]) -> Result<(), DecodeError> {
        const WHAT: &str = "WAL frame";
        self.clear();
        let not_snappy = |_| DecodeError::corrupt(0, WHAT, "not a snappy block");
        let len = snap::raw::decompress_len(payload).map_err(not_snappy)?;
        if len / MAX_EXPANSION > payload.len() {
            return Err(DecodeError::corrupt(0, WHAT, "claims to unpack to more than it can"));
        }
        let mut unpacked = std::mem::take(&mut self.unpacked);
        if unpacked.len() < len {
            unpacked.resize(len, 0);
        }
        let result = match snap::raw::Decoder::new().decompress(payload, &mut unpacked[..len]) {
            Ok(_) => self.decode_records(&unpacked[..len]),
            Err(error) => Err(not_snappy(error)),
        };
        self.unpacked = unpacked;
        result
    }

    fn clear(&mut self) {
        self.series.clear();
        self.refs.clear();
        self.timestamps.clear();
        self.values.clear();
        self.histograms.clear();
        self.start_timestamps.clear();
        self.exemplars.clear();
        self.metadata.clear();
    }

    fn decode_records(&mut self, records: &[u8]) -> Result<(), DecodeError> {
        const WHAT: &str = "WAL record";
        let mut cursor = Cursor::new(records);
        while !cursor.is_empty() {
            let kind = cursor.u8(WHAT)?;
            let len = cursor.u32(WHAT)? as usize;
            let base = cursor.offset();
            let mut body = Cursor::with_base(cursor.take(len, WHAT)?, base);
            match kind {
                kind::SERIES => self.decode_series(&mut body)?,
                kind::SAMPLES => self.decode_samples(&mut body)?,
                kind::HISTOGRAMS => self.decode_histograms(&mut body)?,
                kind::START_TIMESTAMPS => self.decode_start_timestamps(&mut body)?,
                kind::EXEMPLARS => self.decode_exemplars(&mut body)?,
                kind::METADATA => self.decode_metadata(&mut body)?,
                _ => return Err(cursor.corrupt(WHAT, "unknown kind")),
            }
            body.finish(WHAT)?;
        }
        Ok(())
    }

    fn decode_series(&mut self, cursor: &mut Cursor<'_>) -> Result<(), DecodeError> {
        const WHAT: &str = "series declaration";
        while !cursor.is_empty() {
            let series = number(cursor, WHAT)?;
            let id = SeriesId(cursor.u128(WHAT)?);
            let group = number(cursor, WHAT)?;
            let labels = labels(cursor, WHAT)?;
            self.series.push(SeriesDeclaration { series, id, group, labels });
        }
        Ok(())
    }

    fn decode_samples(&mut self, cursor: &mut Cursor<'_>) -> Result<(), DecodeError> {
        const WHAT: &str = "samples";
        if !self.refs.is_empty() {
            return Err(cursor.corrupt(WHAT, "a second record of samples"));
        }
        let mut ahead = cursor.clone();
        let count = ahead.uvarint(WHAT)?;
        // Every sample needs four bits for the length of its value.
        if count.div_ceil(2) > ahead.remaining() as u64 {
            return Err(cursor.corrupt(WHAT, "more samples than bytes"));
        }
        *cursor = ahead;
        let count = count as usize;
        let (mut next_ref, mut previous_ms) = (0i64, 0i64);
        while self.refs.len() < count {
            let first = next_ref.wrapping_add(cursor.ivarint(WHAT)?);
            let more = cursor.uvarint(WHAT)?;
            let t = previous_ms.wrapping_add(cursor.ivarint(WHAT)?);
            let run = more.saturating_add(1);
            let end = first.checked_add_unsigned(run).unwrap_or(i64::MAX);
            if run > (count - self.refs.len()) as u64 || first < 0 || end > 1 << 32 {
                return Err(cursor.corrupt(WHAT, "a run is too long"));
            }
            self.refs.extend((first..end).map(|series| series as u32));
            self.timestamps.resize(self.refs.len(), t);
            // The encoder wraps behind the last possible ref.
            (next_ref, previous_ms) = (end & i64::from(u32::MAX), t);
        }
        self.decode_values(count, cursor)
    }

    fn decode_values(&mut self, count: usize, cursor: &mut Cursor<'_>) -> Result<(), DecodeError> {
        const WHAT: &str = "values of samples";
        let lens = cursor.take(count.div_ceil(2), WHAT)?;
        let bytes = cursor.rest();
        self.values.reserve(count);
        let mut end = 0;
        for i in 0..count {
            let len = usize::from(lens[i / 2] >> (4 * (i % 2)) & 0xf);
            if len > 8 {
                return Err(cursor.corrupt(WHAT, "a value is longer than 8 bytes"));
            }
            // Eight bytes are read at once, and those cut off that belong to the values behind.
            let bits = match bytes[end..].first_chunk() {
                Some(eight) => u64::from_be_bytes(*eight),
                None => u64::from_be_bytes(padded(
                    bytes
                        .get(end..end + len)
                        .ok_or_else(|| cursor.error(WHAT, DecodeErrorKind::Truncated))?,
                )),
            };
            self.values.push(f64::from_bits(bits & KEPT[len]));
            end += len;
        }
        cursor.take(end, WHAT)?;
        Ok(())
    }

    /// The position of a sample, given by its distance from the position after the last one.
    fn position(&self, next: &mut u64, cursor: &mut Cursor<'_>) -> Result<u32, DecodeError> {
        const WHAT: &str = "position of a sample";
        let position = next.saturating_add(cursor.uvarint(WHAT)?);
        if position >= self.refs.len() as u64 {
            return Err(cursor.corrupt(WHAT, "beyond the samples of the frame"));
        }
        *next = position + 1;
        Ok(position as u32)
    }

    fn decode_histograms(&mut self, cursor: &mut Cursor<'_>) -> Result<(), DecodeError> {
        let mut next = self.histograms.last().map_or(0, |(last, _)| u64::from(*last) + 1);
        while !cursor.is_empty() {
            let sample = self.position(&mut next, cursor)?;
            self.histograms.push((sample, Arc::new(histogram::get(cursor)?)));
        }
        Ok(())
    }

    fn decode_start_timestamps(&mut self, cursor: &mut Cursor<'_>) -> Result<(), DecodeError> {
        let mut next = self.start_timestamps.last().map_or(0, |(last, _)| u64::from(*last) + 1);
        let mut previous = 0i64;
        while !cursor.is_empty() {
            let sample = self.position(&mut next, cursor)?;
            previous = previous.wrapping_add(cursor.ivarint("start timestamp")?);
            self.start_timestamps.push((sample, previous));
        }
        Ok(())
    }

    fn decode_exemplars(&mut self, cursor: &mut Cursor<'_>) -> Result<(), DecodeError> {
        const WHAT: &str = "exemplar";
        while !cursor.is_empty() {
            self.exemplars.push(Exemplar {
                series: number(cursor, WHAT)?,
                timestamp_ms: cursor.ivarint(WHAT)?,
                value: cursor.f64(WHAT)?,
                labels: labels(cursor, WHAT)?,
            });
        }
        Ok(())
    }

    fn decode_metadata(&mut self, cursor: &mut Cursor<'_>) -> Result<(), DecodeError> {
        while !cursor.is_empty() {
            self.metadata.push(MetricMetadata::decode(cursor)?);
        }
        Ok(())
    }
}

/// The bits of a value that its length keeps.
const KEPT: [u64; 9] = {
    let mut kept = [0; 9];
    let mut len = 1;
    while len < kept.len() {
        kept[len] = u64::MAX << (64 - 8 * len);
        len += 1;
    }
    kept
};

/// Up to eight bytes with zeros behind them.
fn padded(bytes: &[u8]) -> [u8; 8] {
    let mut padded = [0; 8];
    padded[..bytes.len()].copy_from_slice(bytes);
    padded
}

fn number(cursor: &mut Cursor<'_>, what: &'static str) -> Result<u32, DecodeError> {
    let value = cursor.uvarint(what)?;
    u32::try_from(value).map_err(|_| cursor.corrupt(what, "a number does not fit 32 bits"))
}

fn labels(cursor: &mut Cursor<'_>, what: &'static str) -> Result<Labels, DecodeError> {
    let offset = cursor.offset();
    Labels::from_canonical_bytes(cursor.block(what)?)
        .map_err(|_| DecodeError::corrupt(offset, what, "the labels are not canonical"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::Span;
    use crate::series_id::IdentitySeed;
    use crate::wal::frame::{FRAME_PREFIX_BYTES, Found, Frames, SegmentHeader};
    use proptest::prelude::*;

    const SEED: IdentitySeed = IdentitySeed(1);
    const SEGMENT: SegmentHeader = SegmentHeader { seed: SEED, generation: 1, segment: 0 };

    fn declaration(series: u32, name: &str) -> SeriesDeclaration {
        let labels = Labels::from_pairs([("__name__", name), ("job", "api")]).unwrap();
        SeriesDeclaration { series, id: SeriesId::of(&labels, SEED), group: series / 3, labels }
    }

    fn sample_histogram() -> Histogram {
        Histogram {
            is_integer: true,
            counter_reset_hint: crate::CounterResetHint::Gauge,
            schema: -4,
            count: 3.0,
            sum: crate::STALE_NAN,
            positive_spans: vec![Span { offset: -7, length: 2 }],
            positive_buckets: vec![1.0, 2.0],
            ..Histogram::default()
        }
    }

    #[test]
    fn every_record_comes_back() {
        let mut encoder = FrameEncoder::default();
        let series = [declaration(0, "up"), declaration(u32::MAX, "down")];
        encoder.series(series.iter());
        encoder.samples(
            &[0, 1, u32::MAX, 0],
            &[5, 5, i64::MIN, i64::MAX],
            &[1.0, -0.0, 0.1, crate::STALE_NAN],
        );
        encoder.histograms(&[(1, Arc::new(sample_histogram()))]);
        encoder.start_timestamps(&[(0, 3), (3, i64::MIN)]);
        let exemplars = [Exemplar { series: 1, timestamp_ms: -1, value: 2.0, labels: Labels::empty() }];
        encoder.exemplars(&exemplars);
        let metadata = [MetricMetadata {
            name: "up".into(),
            metric_type: crate::metadata::MetricType::Gauge,
            unit: String::new(),
            help: "Whether it is up.".into(),
        }];
        encoder.metadata(&metadata);
        let frame = encoder.finish().unwrap().to_vec();

        let mut contents = Contents::default();
        contents.decode(&frame[FRAME_PREFIX_BYTES..]).unwrap();
        assert_eq!(contents.series, series);
        assert_eq!(contents.refs, [0, 1, u32::MAX, 0]);
        assert_eq!(contents.timestamps, [5, 5, i64::MIN, i64::MAX]);
        let bits: Vec<u64> = contents.values.iter().map(|v| v.to_bits()).collect();
        assert_eq!(bits, [1.0, -0.0, 0.1, crate::STALE_NAN].map(f64::to_bits));
        assert!(contents.histograms[0].1.same_bits(&sample_histogram()) && contents.histograms[0].0 == 1);
        assert_eq!(contents.start_timestamps, [(0, 3), (3, i64::MIN)]);
        assert_eq!(contents.exemplars, exemplars);
        assert_eq!(contents.metadata, metadata);
    }

    #[test]
    fn what_does_not_fit_a_frame_is_refused_and_the_next_frame_is_whole() {
        let mut encoder = FrameEncoder { limit_bytes: 100, ..FrameEncoder::default() };
        encoder.samples(&[7; 40], &[1; 40], &[0.1; 40]);
        let refused = encoder.finish().unwrap_err();
        assert!(refused.bytes > 100 && refused.limit_bytes == 100, "{refused}");
        encoder.clear();
        encoder.samples(&[7], &[1], &[0.1]);
        let mut contents = Contents::default();
        contents.decode(&encoder.finish().unwrap()[FRAME_PREFIX_BYTES..]).unwrap();
        assert_eq!(contents.values, [0.1]);
    }

    #[test]
    fn a_payload_that_claims_too_much_is_refused_before_allocating() {
        let mut contents = Contents::default();
        let error = contents.decode(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0]).unwrap_err();
        assert_eq!(error.to_string(), "WAL frame at offset 0: corrupt: claims to unpack to more than it can");
        assert_eq!(contents.unpacked.capacity(), 0);
    }

    proptest! {
        #[test]
        fn samples_come_back(samples in proptest::collection::vec((0u32..50, 0i64..4, any::<u64>()), 0..300)) {
            let refs: Vec<u32> = samples.iter().map(|s| s.0).collect();
            let timestamps: Vec<i64> = samples.iter().map(|s| s.1).collect();
            let values: Vec<f64> = samples.iter().map(|s| f64::from_bits(s.2 << (s.0 % 64))).collect();
            let mut encoder = FrameEncoder::default();
            encoder.samples(&refs, &timestamps, &values);
            let mut contents = Contents::default();
            contents.decode(&encoder.finish().unwrap()[FRAME_PREFIX_BYTES..]).unwrap();
            prop_assert_eq!(&contents.refs, &refs);
            prop_assert_eq!(&contents.timestamps, &timestamps);
            let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&contents.values), bits(&values));
        }

        #[test]
        fn any_records_give_contents_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 1u8..7) {
            let mut record = vec![kind];
            record.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            record.extend_from_slice(&bytes);
            let _ = Contents::default().decode_records(&record);
            let _ = Contents::default().decode(&bytes);
            for found in Frames::new(&bytes, SEGMENT) {
                if let Found::Frame { payload, .. } = found {
                    let _ = Contents::default().decode(payload);
                }
            }
        }
    }
}
