//! A bounds-checked reader over bytes; every decoder of this crate reads through it.
//!
//! A [`Cursor`] never reads past its input. Whatever goes wrong is a [`DecodeError`] that names
//! the offset, what was being read there, and the kind of failure, so that a message about a file
//! of gigabytes points at one byte.

use crate::varint::{get_uvarint, unzigzag};
use std::fmt;

/// Why bytes could not be decoded, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} at offset {offset}: {kind}")]
pub struct DecodeError {
    /// What is wrong.
    pub kind: DecodeErrorKind,
    /// Offset in bytes from the start of the decoded input (or of the file, if the reader was
    /// told where its input lies in it).
    pub offset: usize,
    /// What was being read.
    pub what: &'static str,
}

/// The kinds of failure, one for each reaction a caller may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// The input ends before the value does. For a file that is still being written (a WAL
    /// segment) this is the torn tail; for any other it is damage.
    Truncated,
    /// The bytes cannot be what an encoder wrote; the text says why.
    Corrupt(&'static str),
    /// The stored checksum differs from the computed one.
    Checksum {
        /// The checksum in the input.
        stored: u32,
        /// The checksum of the input.
        computed: u32,
    },
    /// The file does not start with the magic of what was expected: another kind of file.
    Magic,
    /// The file was written in a version of the format that this reader does not know.
    Version {
        /// The version in the file.
        found: u32,
        /// The version this reader knows.
        known: u32,
    },
}

impl fmt::Display for DecodeErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeErrorKind::Truncated => write!(f, "the input ends too early"),
            DecodeErrorKind::Corrupt(why) => write!(f, "corrupt: {why}"),
            DecodeErrorKind::Checksum { stored, computed } => {
                write!(f, "checksum mismatch: stored {stored:08x}, computed {computed:08x}")
            }
            DecodeErrorKind::Magic => write!(f, "this is not such a file (the magic bytes differ)"),
            DecodeErrorKind::Version { found, known } => {
                write!(f, "format version {found} is not supported, this program reads version {known}")
            }
        }
    }
}

impl DecodeError {
    /// A [`DecodeErrorKind::Corrupt`] at `offset`.
    pub fn corrupt(offset: usize, what: &'static str, why: &'static str) -> DecodeError {
        DecodeError { kind: DecodeErrorKind::Corrupt(why), offset, what }
    }

    /// Whether the input merely ended too early.
    pub fn is_truncated(&self) -> bool {
        self.kind == DecodeErrorKind::Truncated
    }
}

/// A position in a byte slice. Reading moves it forward; a failed read leaves it where it was.
#[derive(Debug, Clone)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
    /// Where `bytes` lies in the file, added to the offsets in errors.
    base: usize,
}

macro_rules! read_le {
    ($($(#[$doc:meta])* $name:ident -> $type:ty;)*) => {$(
        $(#[$doc])*
        pub fn $name(&mut self, what: &'static str) -> Result<$type, DecodeError> {
            Ok(<$type>::from_le_bytes(self.array(what)?))
        }
    )*};
}

impl<'a> Cursor<'a> {
    /// A cursor at the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor::with_base(bytes, 0)
    }

    /// A cursor at the start of `bytes`, which lie at offset `base` of their file.
    pub fn with_base(bytes: &'a [u8], base: usize) -> Cursor<'a> {
        Cursor { bytes, position: 0, base }
    }

    /// The offset of the next byte, as errors count it.
    pub fn offset(&self) -> usize {
        self.base + self.position
    }

    /// How many bytes were read.
    pub fn position(&self) -> usize {
        self.position
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    /// Whether everything was read.
    pub fn is_empty(&self) -> bool {
        self.remaining() == 0
    }

    /// The bytes not yet read.
    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.position..]
    }

    /// An error of `kind` at the present position.
    pub fn error(&self, what: &'static str, kind: DecodeErrorKind) -> DecodeError {
        DecodeError { kind, offset: self.offset(), what }
    }

    /// A [`DecodeErrorKind::Corrupt`] at the present position.
    pub fn corrupt(&self, what: &'static str, why: &'static str) -> DecodeError {
        self.error(what, DecodeErrorKind::Corrupt(why))
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        match self.rest().get(..len) {
            Some(taken) => {
                self.position += len;
                Ok(taken)
            }
            None => Err(self.error(what, DecodeErrorKind::Truncated)),
        }
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        match self.rest().first_chunk::<N>() {
            Some(chunk) => {
                self.position += N;
                Ok(*chunk)
            }
            None => Err(self.error(what, DecodeErrorKind::Truncated)),
        }
    }

    read_le! {
        /// One byte.
        u8 -> u8;
        /// A little-endian integer of two bytes.
        u16 -> u16;
        /// A little-endian integer of four bytes.
        u32 -> u32;
        /// A little-endian integer of eight bytes.
        u64 -> u64;
        /// A signed little-endian integer of eight bytes.
        i64 -> i64;
        /// A little-endian integer of sixteen bytes.
        u128 -> u128;
    }

    /// The eight bytes of a float, bit by bit.
    pub fn f64(&mut self, what: &'static str) -> Result<f64, DecodeError> {
        Ok(f64::from_bits(self.u64(what)?))
    }

    /// An unsigned LEB128 integer.
    pub fn uvarint(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        match get_uvarint(self.rest()) {
            Some((value, len)) => {
                self.position += len;
                Ok(value)
            }
            None if self.remaining() < 10 => Err(self.error(what, DecodeErrorKind::Truncated)),
            None => Err(self.corrupt(what, "the integer does not fit 64 bits")),
        }
    }

    /// A zigzag LEB128 integer.
    pub fn ivarint(&mut self, what: &'static str) -> Result<i64, DecodeError> {
        self.uvarint(what).map(unzigzag)
    }

    /// A LEB128 count of items that need at least `item_bytes` (not 0) each and are still to
    /// come, so that what the caller allocates for them is paid for by the input.
    pub fn count(&mut self, item_bytes: usize, what: &'static str) -> Result<usize, DecodeError> {
        let mut ahead = self.clone();
        let count = ahead.uvarint(what)?;
        if count > (ahead.remaining() / item_bytes) as u64 {
            return Err(self.error(what, DecodeErrorKind::Truncated));
        }
        *self = ahead;
        Ok(count as usize)
    }

    /// A LEB128 length and as many bytes.
    pub fn block(&mut self, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let mut ahead = self.clone();
        let len = ahead.count(1, what)?;
        let block = ahead.take(len, what)?;
        *self = ahead;
        Ok(block)
    }

    /// A LEB128 length and as many bytes of UTF-8.
    pub fn text(&mut self, what: &'static str) -> Result<&'a str, DecodeError> {
        let mut ahead = self.clone();
        let block = ahead.block(what)?;
        let text = std::str::from_utf8(block).map_err(|_| self.corrupt(what, "not UTF-8"))?;
        *self = ahead;
        Ok(text)
    }

    /// Refuses bytes that nobody reads.
    pub fn finish(&self, what: &'static str) -> Result<(), DecodeError> {
        if self.is_empty() { Ok(()) } else { Err(self.corrupt(what, "bytes are left over")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_move_forward_and_failures_do_not() {
        let mut cursor = Cursor::with_base(&[7, 1, 0, 0xac, 0x02, 3, b'a', b'b'], 100);
        assert_eq!(cursor.u8("first"), Ok(7));
        assert_eq!(cursor.u16("second"), Ok(1));
        assert_eq!(cursor.uvarint("third"), Ok(300));
        let error = cursor.text("name").unwrap_err();
        assert_eq!(error.to_string(), "name at offset 105: the input ends too early");
        assert_eq!(cursor.offset(), 105);
        assert_eq!(cursor.take(3, "rest"), Ok(&[3, b'a', b'b'][..]));
        assert_eq!(cursor.finish("end"), Ok(()));
        assert!(cursor.u8("beyond").unwrap_err().is_truncated());
    }

    #[test]
    fn a_count_beyond_the_input_is_refused() {
        let mut cursor = Cursor::new(&[3, 0, 0, 0, 0, 0, 0]);
        assert!(cursor.count(3, "pairs").is_err());
        assert_eq!(cursor.position(), 0);
        assert_eq!(cursor.count(2, "pairs"), Ok(3));
    }

    #[test]
    fn an_integer_of_more_than_64_bits_is_corrupt_not_truncated() {
        let mut cursor = Cursor::new(&[0xff; 12]);
        assert!(!cursor.uvarint("number").unwrap_err().is_truncated());
    }
}
