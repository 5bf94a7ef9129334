//! Sizes as Prometheus writes them, `512MB`: on the command line and in the configuration.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use std::fmt::Write;

/// The units from the longest on, each by its two names. All are powers of 1,024, as in Prometheus.
const UNITS: [(&str, &str, u64); 7] = [
    ("EB", "EiB", 1 << 60),
    ("PB", "PiB", 1 << 50),
    ("TB", "TiB", 1 << 40),
    ("GB", "GiB", 1 << 30),
    ("MB", "MiB", 1 << 20),
    ("KB", "KiB", 1 << 10),
    ("B", "B", 1),
];

/// A number of bytes as a user writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        parse_bytes(&String::deserialize(deserializer)?).map(Bytes).map_err(D::Error::custom)
    }
}

/// The bytes of `512MB`, `1.5GiB` or `1GB512MB`: numbers with units; `0` needs none.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    if text == "0" {
        return Ok(0);
    }
    let mut rest = text;
    let mut total = 0_f64;
    while !rest.is_empty() || text.is_empty() {
        let digits = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let (number, after) = rest.split_at(digits);
        let letters = after.bytes().take_while(|b| !b.is_ascii_digit() && *b != b'.').count();
        let (unit, after) = after.split_at(letters);
        let number: f64 = number.parse().map_err(|_| format!("{text:?} is no size such as 512MB or 10GB"))?;
        let named = UNITS.iter().find(|(short, long, _)| unit == *short || unit == *long);
        let Some((_, _, bytes)) = named else {
            return Err(format!("{text:?} needs a unit: B, KB, MB, GB, TB, PB or EB"));
        };
        total += number * *bytes as f64;
        rest = after;
    }
    // Beyond, a number of bytes fits in no file offset.
    if total < i64::MAX as f64 { Ok(total as u64) } else { Err(format!("{text:?} is larger than 8EB")) }
}

/// The text of a size as Prometheus prints it: `10GiB`, `1GiB512MiB`, `0B`.
pub fn format_bytes(bytes: u64) -> String {
    let mut out = String::new();
    let mut rest = bytes;
    for (_, unit, size) in UNITS {
        if rest >= size {
            let _ = write!(out, "{}{unit}", rest / size);
            rest %= size;
        }
    }
    if out.is_empty() { "0B".to_owned() } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_numbers_with_units_of_1024() {
        for (text, bytes, printed) in [
            ("0", 0, "0B"),
            ("0B", 0, "0B"),
            ("17B", 17, "17B"),
            ("512MB", 512 << 20, "512MiB"),
            ("10GiB", 10 << 30, "10GiB"),
            ("1.5GB", 1536 << 20, "1GiB512MiB"),
            ("1GB512MB", 1536 << 20, "1GiB512MiB"),
            ("1025KB", 1025 << 10, "1MiB1KiB"),
            ("7EB", 7 << 60, "7EiB"),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
            assert_eq!(format_bytes(bytes), printed);
            assert_eq!(parse_bytes(printed), Ok(bytes));
        }
        for text in ["", "GB", "10", "1.2.3GB", "-1GB", "10 GB", "10gb", "10GBs", "8EB", "1GB7", "1e3B"] {
            assert!(parse_bytes(text).is_err(), "{text:?}");
        }
    }
}
