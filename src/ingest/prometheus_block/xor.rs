//! Chunks of floats ("XOR", encoding 1).

use super::bits::{Bits, XorValue};
use larum_storage_format::DecodeError;

/// How many bits the change of the distance of two timestamps takes, by the ones before it.
const DISTANCE_WIDTHS: [u32; 5] = [0, 14, 17, 20, 64];

/// The floats of a chunk, one after the other.
#[derive(Debug, Clone)]
pub struct Floats<'a> {
    bits: Bits<'a>,
    read: u16,
    t_ms: i64,
    distance_ms: i64,
    value: XorValue,
}

impl<'a> Floats<'a> {
    /// The floats of these bits, which follow the number of samples.
    pub fn new(bits: Bits<'a>) -> Floats<'a> {
        Floats { bits, read: 0, t_ms: 0, distance_ms: 0, value: XorValue::default() }
    }

    /// The next sample.
    pub fn next(&mut self) -> Result<(i64, f64), DecodeError> {
        let bits = &mut self.bits;
        match self.read {
            0 => {
                self.t_ms = bits.varint()?;
                self.value = XorValue::new(bits.double()?);
            }
            1 => self.distance_ms = bits.uvarint()? as i64,
            _ => self.distance_ms = self.distance_ms.wrapping_add(bits.chosen_signed(DISTANCE_WIDTHS)?),
        }
        if self.read > 0 {
            self.t_ms = self.t_ms.wrapping_add(self.distance_ms);
            self.value.next(bits)?;
        }
        self.read = self.read.saturating_add(1);
        Ok((self.t_ms, self.value.value()))
    }
}
