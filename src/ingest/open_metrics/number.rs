//! Values and timestamps as OpenMetrics writes them.

/// What Prometheus stores for `NaN`: the quiet NaN that its parser makes of the text.
const NORMAL_NAN: u64 = 0x7ff8_0000_0000_0001;

/// A sample's value: a number, `NaN`, `+Inf` or `-Inf`.
pub fn value(text: &str) -> Option<f64> {
    let value: f64 = text.parse().ok()?;
    Some(if value.is_nan() { f64::from_bits(NORMAL_NAN) } else { value })
}

/// Seconds since the epoch, with decimals, as milliseconds. Digits beyond them are cut off; the others
/// count exactly, which a detour over floats would not promise.
pub fn timestamp_ms(text: &str) -> Option<i64> {
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (seconds, decimals) = digits.split_once('.').unwrap_or((digits, ""));
    let is_plain = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if seconds.is_empty() || !is_plain(seconds) || !is_plain(decimals) {
        return of_exponent(text);
    }
    let milli = decimals.bytes().chain(*b"000").take(3).fold(0, |n, digit| n * 10 + i64::from(digit - b'0'));
    let ms = seconds.parse::<i64>().ok()?.checked_mul(1000)?.checked_add(milli)?;
    Some(if is_negative { -ms } else { ms })
}

/// `1.7e9`, as some programs print large floats.
fn of_exponent(text: &str) -> Option<i64> {
    if !text.contains(['e', 'E']) {
        return None;
    }
    let ms = (text.parse::<f64>().ok()? * 1000.0).round();
    // Beyond, floats skip integers.
    (ms.abs() < 9e15).then_some(ms as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_exact_to_the_millisecond() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1700000000", Some(1_700_000_000_000)),
            ("1700000000.5", Some(1_700_000_000_500)),
            ("1.005", Some(1005)),
            ("1605281325.0019999", Some(1_605_281_325_001)),
            ("-1.5", Some(-1500)),
            ("1.", Some(1000)),
            ("1.7e9", Some(1_700_000_000_000)),
            ("", None),
            (".5", None),
            ("-", None),
            ("NaN", None),
            ("inf", None),
            ("1e400", None),
            ("1_0", None),
            ("99999999999999999", None),
        ] {
            assert_eq!(timestamp_ms(text), expected, "{text}");
        }
    }

    #[test]
    fn values_are_floats_and_their_special_names() {
        assert_eq!(value("+Inf"), Some(f64::INFINITY));
        assert_eq!(value("-1.5e-3"), Some(-0.0015));
        assert_eq!(value("NaN").map(f64::to_bits), Some(NORMAL_NAN));
        assert_eq!((value(""), value("1x"), value("0x10")), (None, None, None));
    }
}
