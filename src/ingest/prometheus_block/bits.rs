//! Bits from the highest to the lowest, and the numbers that chunks make of them.

use larum_storage_format::varint::unzigzag;
use larum_storage_format::{DecodeError, DecodeErrorKind};

/// A position between the bits of a chunk.
#[derive(Debug, Clone)]
pub struct Bits<'a> {
    bytes: &'a [u8],
    /// In bits from the start.
    at: usize,
    /// Where `bytes` lies in its file.
    base: usize,
}

impl<'a> Bits<'a> {
    /// At the first bit of `bytes`, which lie at `base` in their file.
    pub fn new(bytes: &'a [u8], base: usize) -> Bits<'a> {
        Bits { bytes, at: 0, base }
    }

    /// How many bits are left.
    pub fn remaining(&self) -> usize {
        self.bytes.len() * 8 - self.at
    }

    /// What is wrong here.
    pub fn corrupt(&self, why: &'static str) -> DecodeError {
        DecodeError::corrupt(self.base + self.at / 8, "chunk", why)
    }

    /// One bit.
    pub fn bit(&mut self) -> Result<bool, DecodeError> {
        Ok(self.bits(1)? == 1)
    }

    /// Up to 64 bits as a number.
    pub fn bits(&mut self, count: u32) -> Result<u64, DecodeError> {
        if count as usize > self.remaining() {
            let offset = self.base + self.bytes.len();
            return Err(DecodeError { kind: DecodeErrorKind::Truncated, offset, what: "chunk" });
        }
        if count == 0 {
            return Ok(0);
        }
        let mut window = [0; 16];
        let from = &self.bytes[self.at / 8..];
        let len = from.len().min(9);
        window[..len].copy_from_slice(&from[..len]);
        let value = u128::from_be_bytes(window) << (self.at % 8) >> (128 - count);
        self.at += count as usize;
        Ok(value as u64)
    }

    /// A float as it is.
    pub fn double(&mut self) -> Result<f64, DecodeError> {
        Ok(f64::from_bits(self.bits(64)?))
    }

    /// A LEB128 number, whose bytes may lie across those of the chunk.
    pub fn uvarint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.bits(8)?;
            value |= (byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.corrupt("a number of more than 64 bits"))
    }

    /// The same with a sign.
    pub fn varint(&mut self) -> Result<i64, DecodeError> {
        Ok(unzigzag(self.uvarint()?))
    }

    /// How many ones stand before the next zero, which is passed over; at most `max`, after which there
    /// is none.
    fn ones(&mut self, max: u32) -> Result<u32, DecodeError> {
        for count in 0..max {
            if !self.bit()? {
                return Ok(count);
            }
        }
        Ok(max)
    }

    /// A number of one of `widths` bits, which the ones before it choose.
    pub fn chosen<const N: usize>(&mut self, widths: [u32; N]) -> Result<(u64, u32), DecodeError> {
        let width = widths[self.ones(N as u32 - 1)? as usize];
        Ok((self.bits(width)?, width))
    }

    /// The same with a sign: what is more than half of the range is negative.
    pub fn chosen_signed<const N: usize>(&mut self, widths: [u32; N]) -> Result<i64, DecodeError> {
        let (bits, width) = self.chosen(widths)?;
        if width == 0 || width == 64 || bits <= 1 << (width - 1) {
            return Ok(bits as i64);
        }
        Ok(bits as i64 - (1 << width))
    }

    /// A number of a histogram ("varbit").
    pub fn varbit_uint(&mut self) -> Result<u64, DecodeError> {
        Ok(self.chosen(VARBIT_WIDTHS)?.0)
    }

    /// The same with a sign.
    pub fn varbit_int(&mut self) -> Result<i64, DecodeError> {
        self.chosen_signed(VARBIT_WIDTHS)
    }
}

const VARBIT_WIDTHS: [u32; 9] = [0, 3, 6, 9, 12, 18, 25, 56, 64];

/// A float that is stored as what differs from the one before.
#[derive(Debug, Clone, Copy, Default)]
pub struct XorValue {
    bits: u64,
    leading: u32,
    trailing: u32,
}

impl XorValue {
    /// One that begins with this float.
    pub fn new(value: f64) -> XorValue {
        XorValue { bits: value.to_bits(), leading: 0, trailing: 0 }
    }

    /// The present float.
    pub fn value(&self) -> f64 {
        f64::from_bits(self.bits)
    }

    /// Goes on to the next.
    pub fn next(&mut self, bits: &mut Bits<'_>) -> Result<f64, DecodeError> {
        if !bits.bit()? {
            return Ok(self.value());
        }
        if bits.bit()? {
            let leading = bits.bits(5)? as u32;
            let significant = match bits.bits(6)? as u32 {
                0 => 64,
                n => n,
            };
            let trailing = 64u32.checked_sub(leading + significant);
            self.trailing = trailing.ok_or_else(|| bits.corrupt("a float of more than 64 bits"))?;
            self.leading = leading;
        }
        self.bits ^= bits.bits(64 - self.leading - self.trailing)? << self.trailing;
        Ok(self.value())
    }
}
