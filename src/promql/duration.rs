//! Durations as Prometheus writes them, `1h30m`: in queries, rule files and configuration.

use std::fmt::Write;

/// The units from the longest to the shortest, with their length in milliseconds. A year has 365
/// days and a day 24 hours, as in Prometheus (`model.ParseDuration`).
const UNITS: [(&str, i64); 7] = [
    ("y", 365 * 24 * 3_600_000),
    ("w", 7 * 24 * 3_600_000),
    ("d", 24 * 3_600_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// The longest duration in milliseconds: what Prometheus can hold in nanoseconds (about 292 years).
pub(crate) const MAX_MS: i64 = i64::MAX / 1_000_000;

/// Why a text is no duration. The texts are Prometheus' own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DurationError {
    /// Nothing is written.
    #[error("empty duration string")]
    Empty,
    /// It is not numbers with units in descending order.
    #[error("not a valid duration string: {0:?}")]
    Invalid(String),
    /// A number has a unit that does not exist.
    #[error("unknown unit {unit:?} in duration {text:?}")]
    UnknownUnit {
        /// The unit.
        unit: String,
        /// The whole text.
        text: String,
    },
    /// It is longer than 292 years.
    #[error("duration out of range")]
    OutOfRange,
}

/// The milliseconds of `1h30m`: whole numbers with units `y w d h m s ms`, each at most once, in
/// this order. `0` needs no unit.
///
/// ```
/// # use larum::promql::duration::parse_duration;
/// assert_eq!(parse_duration("1h30m"), Ok(5_400_000));
/// assert!(parse_duration("30m1h").is_err());
/// ```
pub fn parse_duration(text: &str) -> Result<i64, DurationError> {
    match text {
        "0" => return Ok(0),
        "" => return Err(DurationError::Empty),
        _ => {}
    }
    let invalid = || DurationError::Invalid(text.to_owned());
    let mut rest = text;
    let mut units = UNITS.iter();
    let mut total_ms: i64 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let (unit, after) = after.split_at(after.bytes().take_while(|b| !b.is_ascii_digit()).count());
        if number.is_empty() || unit.is_empty() {
            return Err(invalid());
        }
        if !UNITS.iter().any(|(name, _)| *name == unit) {
            return Err(DurationError::UnknownUnit { unit: unit.to_owned(), text: text.to_owned() });
        }
        // The iterator goes on where it stopped, so a unit is found only if it is shorter than
        // the one before.
        let &(_, unit_ms) = units.find(|(name, _)| *name == unit).ok_or_else(invalid)?;
        total_ms = number
            .parse::<i64>()
            .ok()
            .and_then(|n| n.checked_mul(unit_ms))
            .and_then(|ms| ms.checked_add(total_ms))
            .filter(|&ms| ms <= MAX_MS)
            .ok_or(DurationError::OutOfRange)?;
        rest = after;
    }
    Ok(total_ms)
}

/// The text of a duration as Prometheus prints it: `1h30m`, `0s`, `2w`; a sign for negative ones.
///
/// Years, weeks and days are used only where they divide the duration, so that `90m` becomes
/// `1h30m` but `8d` does not become `1w1d`.
pub fn format_duration(ms: i64) -> String {
    if ms == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    if ms < 0 {
        out.push('-');
    }
    let mut rest = ms.unsigned_abs();
    for (i, (unit, unit_ms)) in UNITS.iter().enumerate() {
        let unit_ms = unit_ms.unsigned_abs();
        if i < 3 && !rest.is_multiple_of(unit_ms) {
            continue;
        }
        let count = rest / unit_ms;
        if count > 0 {
            write!(out, "{count}{unit}").expect("writing to a string does not fail");
            rest -= count * unit_ms;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn units_stand_in_order_each_once() {
        for (text, ms) in [
            ("0", 0),
            ("0s", 0),
            ("1ms", 1),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("3w2d1h", 1_990_800_000),
            ("1y", 31_536_000_000),
            ("10m1s1ms", 601_001),
        ] {
            assert_eq!(parse_duration(text), Ok(ms), "{text}");
        }
        for text in ["1", "m", "1m1h", "1h1h", "-1m", " 1m", "1ms5s"] {
            assert_eq!(parse_duration(text), Err(DurationError::Invalid(text.to_owned())));
        }
        for (text, unit) in [("1.5h", "."), ("1m ", "m "), ("1M", "M"), ("1h2é", "é"), ("5y1hs", "hs")] {
            let error = DurationError::UnknownUnit { unit: unit.to_owned(), text: text.to_owned() };
            assert_eq!(parse_duration(text), Err(error));
        }
        assert_eq!(parse_duration(""), Err(DurationError::Empty));
    }

    #[test]
    fn a_duration_beyond_292_years_is_out_of_range() {
        assert_eq!(parse_duration("292y"), Ok(292 * 31_536_000_000));
        for text in ["293y", "99999999999999999999s", "9223372036854775807y", "292y99w"] {
            assert_eq!(parse_duration(text), Err(DurationError::OutOfRange), "{text}");
        }
    }

    #[test]
    fn text_is_as_prometheus_prints_it() {
        for (ms, text) in [
            (0, "0s"),
            (1, "1ms"),
            (5_400_000, "1h30m"),
            (8 * 86_400_000, "8d"),
            (14 * 86_400_000, "2w"),
            (36 * 3_600_000, "36h"),
            (365 * 86_400_000, "1y"),
            (-90_500, "-1m30s500ms"),
        ] {
            assert_eq!(format_duration(ms), text);
        }
    }

    proptest! {
        #[test]
        fn text_comes_back(ms in 0..=MAX_MS) {
            prop_assert_eq!(parse_duration(&format_duration(ms)), Ok(ms));
        }

        #[test]
        fn any_text_gives_a_duration_or_an_error(text in "\\PC*|[0-9smhdwy]*") {
            let _ = parse_duration(&text);
        }
    }
}
