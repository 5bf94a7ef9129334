//! A segment of chunks: `u32 magic, u8 version, 3 bytes`, then chunks of `uvarint length, u8 encoding,
//! data, u32 checksum`. All numbers of fixed length are big-endian.

use super::bits::{Bits, XorValue};
use super::histogram::{Histograms, Integer};
use super::xor::Floats;
use larum_storage_format::checksum::check_crc32c;
use larum_storage_format::{Cursor, DecodeError, DecodeErrorKind, Histogram, Value};
use std::sync::Arc;

const MAGIC: u32 = 0x85bd_40dd;
const VERSION: u8 = 1;

const XOR: u8 = 1;
const HISTOGRAM: u8 = 2;
const FLOAT_HISTOGRAM: u8 = 3;

/// Longest chunk. Prometheus' own are some kilobytes long.
const MAX_CHUNK_BYTES: u64 = 4 << 20;

/// One chunk of a series.
#[derive(Debug, Clone, Copy)]
pub struct Chunk<'a> {
    encoding: u8,
    data: &'a [u8],
    /// Where the data lies in its segment.
    offset: usize,
}

/// Checks that a file is a segment of chunks, of a version that is known.
///
/// # Errors
/// It is something else.
pub fn check_segment(segment: &[u8]) -> Result<(), DecodeError> {
    let mut cursor = Cursor::new(segment);
    let magic = u32::from_be_bytes(cursor.array("segment")?);
    if magic != MAGIC {
        return Err(DecodeError { kind: DecodeErrorKind::Magic, offset: 0, what: "segment of chunks" });
    }
    match cursor.u8("segment")? {
        VERSION => Ok(()),
        found => Err(DecodeError {
            kind: DecodeErrorKind::Version { found: found.into(), known: VERSION.into() },
            offset: 4,
            what: "segment of chunks",
        }),
    }
}

/// The chunk that lies at `offset` in a segment.
///
/// # Errors
/// It is not there, or its checksum is wrong.
pub fn chunk_at(segment: &[u8], offset: u32) -> Result<Chunk<'_>, DecodeError> {
    let at = offset as usize;
    let end = DecodeError { kind: DecodeErrorKind::Truncated, offset: segment.len(), what: "chunk" };
    let mut cursor = Cursor::with_base(segment.get(at..).ok_or(end)?, at);
    let len = cursor.uvarint("length of a chunk")?;
    if len > MAX_CHUNK_BYTES {
        return Err(cursor.corrupt("chunk", "it is longer than any that Prometheus writes"));
    }
    let start = cursor.offset();
    let whole = cursor.take(len as usize + 1, "chunk")?;
    let stored = u32::from_be_bytes(cursor.array("checksum of a chunk")?);
    check_crc32c(whole, stored, start, "chunk")?;
    Ok(Chunk { encoding: whole[0], data: &whole[1..], offset: start + 1 })
}

impl<'a> Chunk<'a> {
    /// Its samples.
    ///
    /// # Errors
    /// It is of an encoding that is not known.
    pub fn samples(&self) -> Result<Samples<'a>, DecodeError> {
        let (count, data) = self.data.split_first_chunk::<2>().ok_or(DecodeError {
            kind: DecodeErrorKind::Truncated,
            offset: self.offset,
            what: "chunk",
        })?;
        let bits = Bits::new(data, self.offset + 2);
        let form = match self.encoding {
            XOR => Form::Floats(Floats::new(bits)),
            HISTOGRAM => Form::Integer(Box::new(Histograms::new(bits)?)),
            FLOAT_HISTOGRAM => Form::Float(Box::new(Histograms::new(bits)?)),
            _ => {
                let why = "its encoding is unknown (from a newer Prometheus, or an experiment of it)";
                return Err(DecodeError::corrupt(self.offset - 1, "chunk", why));
            }
        };
        Ok(Samples { left: u16::from_be_bytes(*count), form })
    }
}

/// The samples of a chunk, one after the other.
#[derive(Debug, Clone)]
pub struct Samples<'a> {
    left: u16,
    form: Form<'a>,
}

#[derive(Debug, Clone)]
enum Form<'a> {
    Floats(Floats<'a>),
    Integer(Box<Histograms<'a, Integer>>),
    Float(Box<Histograms<'a, XorValue>>),
}

impl Iterator for Samples<'_> {
    type Item = Result<(i64, Value), DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let histogram = |(t_ms, histogram): (i64, Histogram)| (t_ms, Value::Histogram(Arc::new(histogram)));
        let next = match &mut self.form {
            Form::Floats(floats) => floats.next().map(|(t_ms, value)| (t_ms, Value::Float(value))),
            Form::Integer(histograms) => histograms.next().map(histogram),
            Form::Float(histograms) => histograms.next().map(histogram),
        };
        if next.is_err() {
            self.left = 0;
        }
        Some(next)
    }
}
