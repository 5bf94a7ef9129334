//! CRC-32C of byte ranges.

use crate::cursor::{DecodeError, DecodeErrorKind};

/// The CRC-32C (Castagnoli) of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// The CRC-32C of two ranges as if they were one: `crc` is that of the first.
pub fn crc32c_append(crc: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc, bytes)
}

/// Compares `bytes`, which lie at `offset`, with their `stored` checksum.
///
/// # Errors
/// [`DecodeErrorKind::Checksum`] with both numbers.
pub fn check_crc32c(bytes: &[u8], stored: u32, offset: usize, what: &'static str) -> Result<(), DecodeError> {
    let computed = crc32c(bytes);
    // A fuzzer cannot guess checksums, and what lies behind them is what it is to find.
    if computed == stored || cfg!(fuzzing) {
        Ok(())
    } else {
        Err(DecodeError { kind: DecodeErrorKind::Checksum { stored, computed }, offset, what })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_polynomial_is_castagnolis() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c_append(crc32c(b"1234"), b"56789"), 0xe306_9283);
    }

    #[test]
    fn a_mismatch_names_both_checksums() {
        assert_eq!(check_crc32c(b"123456789", 0xe306_9283, 0, "x"), Ok(()));
        let error = check_crc32c(b"123456789", 1, 16, "header").unwrap_err();
        assert_eq!(
            error.to_string(),
            "header at offset 16: checksum mismatch: stored 00000001, computed e3069283"
        );
    }
}
