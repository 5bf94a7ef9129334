//! Protobuf's wire format: a walk over the fields of one message, in place.

use larum_storage_format::varint::get_uvarint;

/// Bytes that are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WireError {
    /// What is wrong.
    pub what: &'static str,
    /// Where in the whole body.
    pub offset: usize,
}

/// What stands before a length-delimited field with a number below 16.
pub(super) const fn short_key(number: u32) -> u8 {
    (number << 3) as u8 | 2
}

/// One field.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field<'a> {
    number: u32,
    value: WireValue<'a>,
}

#[derive(Debug, Clone, Copy)]
enum WireValue<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    /// The value, if this is field `number` and length-delimited.
    pub fn bytes(&self, number: u32) -> Option<&'a [u8]> {
        match self.value {
            WireValue::Bytes(bytes) if self.number == number => Some(bytes),
            _ => None,
        }
    }

    /// The value, if this is field `number` and a varint.
    pub fn varint(&self, number: u32) -> Option<u64> {
        match self.value {
            WireValue::Varint(value) if self.number == number => Some(value),
            _ => None,
        }
    }

    /// The value, if this is field `number` and a double.
    pub fn double(&self, number: u32) -> Option<f64> {
        match self.value {
            WireValue::Fixed64(bits) if self.number == number => Some(f64::from_bits(bits)),
            _ => None,
        }
    }
}

/// The fields of one message, in the order they were written.
pub(super) struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
    base: usize,
}

impl<'a> Fields<'a> {
    /// The fields of `bytes`, which lie at `base` in the whole body.
    pub fn new(bytes: &'a [u8], base: usize) -> Fields<'a> {
        Fields { bytes, at: 0, base }
    }

    /// Where in the whole body the next field begins.
    pub fn offset(&self) -> usize {
        self.base + self.at
    }

    /// Passes over as many length-delimited fields as follow with this key, which takes one byte, and
    /// with a length that does too. Labels are like that, and most of a body's fields are labels.
    pub fn skip_short(&mut self, key: u8) {
        while let Some([first, len, rest @ ..]) = self.bytes.get(self.at..)
            && *first == key
            && *len < 0x80
            && usize::from(*len) <= rest.len()
        {
            self.at += 2 + usize::from(*len);
        }
    }

    /// The next field, `None` at the end.
    pub fn next(&mut self) -> Result<Option<Field<'a>>, WireError> {
        if self.at >= self.bytes.len() {
            return Ok(None);
        }
        let start = self.offset();
        let wrong = move |what| WireError { what, offset: start };
        let key = self.varint().ok_or(wrong("a cut or overlong field key"))?;
        let number = u32::try_from(key >> 3).ok().filter(|n| (1..1 << 29).contains(n));
        let number = number.ok_or(wrong("a field number out of range"))?;
        let value = match key & 7 {
            0 => WireValue::Varint(self.varint().ok_or(wrong("a cut or overlong integer"))?),
            1 => {
                let bytes = self.take(8).ok_or(wrong("a cut 64-bit value"))?;
                WireValue::Fixed64(u64::from_le_bytes(bytes.try_into().expect("eight bytes were taken")))
            }
            2 => {
                let len = self.varint().and_then(|len| usize::try_from(len).ok());
                let bytes = len.and_then(|len| self.take(len));
                WireValue::Bytes(bytes.ok_or(wrong("a length beyond the end of its message"))?)
            }
            5 => {
                self.take(4).ok_or(wrong("a cut 32-bit value"))?;
                WireValue::Fixed32
            }
            _ => return Err(wrong("an unknown wire type")),
        };
        Ok(Some(Field { number, value }))
    }

    fn varint(&mut self) -> Option<u64> {
        let rest = &self.bytes[self.at..];
        // Most keys and lengths take one byte.
        match rest.first() {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Some(u64::from(byte))
            }
            _ => {
                let (value, len) = get_uvarint(rest)?;
                self.at += len;
                Some(value)
            }
        }
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let bytes = self.bytes.get(self.at..self.at.checked_add(len)?)?;
        self.at += len;
        Some(bytes)
    }
}

/// Time and value of a `Sample` message that lies at `offset`. What is left out is zero.
pub(super) fn sample(message: &[u8], offset: usize) -> Result<(i64, f64), WireError> {
    // As every sender writes it: the value, then the timestamp.
    if let [0x09, v0, v1, v2, v3, v4, v5, v6, v7, 0x10, rest @ ..] = message
        && let Some((t, len)) = get_uvarint(rest)
        && len == rest.len()
    {
        return Ok((t as i64, f64::from_le_bytes([*v0, *v1, *v2, *v3, *v4, *v5, *v6, *v7])));
    }
    let (mut t_ms, mut value) = (0, 0.0);
    let mut fields = Fields::new(message, offset);
    while let Some(field) = fields.next()? {
        if let Some(v) = field.double(1) {
            value = v;
        } else if let Some(t) = field.varint(2) {
            t_ms = t as i64;
        }
    }
    Ok((t_ms, value))
}
