//! Numbers as text, the way Go and Prometheus print and read them.
//!
//! Shortest digits come from zmij, which breaks ties as Go does; integers go through itoa; a given
//! precision goes through `core::fmt`, which rounds correctly and ties to even, as Go does. Nothing
//! here allocates except [`write_float`] with a precision in the forms `e` and `g`.
//!
//! The writers take any [`fmt::Write`]; [`Bytes`] makes one of a `Vec<u8>`.

use std::fmt;

/// A byte buffer to write text into.
pub struct Bytes<'a>(pub &'a mut Vec<u8>);

impl fmt::Write for Bytes<'_> {
    #[inline]
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// The notation of a float, by the letter that Go's `strconv.FormatFloat` gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `f`: no exponent, `1234567`.
    Fixed,
    /// `e`: always an exponent of at least two digits, `1.234567e+06`.
    Exponent,
    /// `g`: an exponent if it is below -4 or reaches the precision (6, if none is given).
    General,
}

/// Writes `value` as `strconv.FormatFloat(value, form, precision, 64)` does; without a precision,
/// the fewest digits that read back to the same float. Infinities are `+Inf` and `-Inf`.
pub fn write_float<W: fmt::Write>(
    out: &mut W,
    value: f64,
    form: Form,
    precision: Option<usize>,
) -> fmt::Result {
    if !value.is_finite() {
        return out.write_str(not_finite(value));
    }
    match (form, precision) {
        (Form::Fixed, None) => write_fixed_shortest(out, value),
        (Form::Fixed, Some(precision)) => {
            let exact = precision.min(MOST_DECIMALS);
            write!(out, "{value:.exact$}")?;
            write_zeros(out, precision - exact)
        }
        (Form::Exponent | Form::General, None) => {
            let (mut buffer, mut room) = (zmij::Buffer::new(), [0; SHORTEST]);
            let digits = Digits::parse(buffer.format_finite(value), &mut room);
            match form {
                Form::General => digits.write_general(out, 6),
                _ => digits.write_exponent(out, 0),
            }
        }
        (Form::Exponent, Some(precision)) => {
            let text = format!("{value:.*e}", precision.min(MOST_DIGITS));
            Digits::parse(&text, &mut vec![0; text.len()]).write_exponent(out, precision)
        }
        (Form::General, Some(precision)) => {
            let precision = precision.max(1);
            let text = format!("{value:.*e}", (precision - 1).min(MOST_DIGITS));
            let mut room = vec![0; text.len()];
            let digits = Digits::parse(&text, &mut room);
            let (len, precision) = (digits.digits.len() as i32, i32::try_from(precision).unwrap_or(i32::MAX));
            // All digits stand before the point: a wider precision does not bring in an exponent.
            let turn = if precision > len && len >= digits.point { len } else { precision };
            digits.write_general(out, turn)
        }
    }
}

/// Writes a sample's value as Prometheus prints it in vectors and matrices: `f`, but `e` below 1e-6
/// and from 1e21 on (`util/jsonutil` of Prometheus).
#[inline]
pub fn write_sample_value<W: fmt::Write>(out: &mut W, value: f64) -> fmt::Result {
    let size = value.abs();
    if (1e-6..1e21).contains(&size) || value == 0.0 {
        return write_fixed_shortest(out, value);
    }
    write_float(out, value, Form::Exponent, None)
}

/// Writes the value of a scalar: always `f`.
#[inline]
pub fn write_scalar_value<W: fmt::Write>(out: &mut W, value: f64) -> fmt::Result {
    write_float(out, value, Form::Fixed, None)
}

/// Writes milliseconds as the seconds of vectors and matrices: three decimals or none.
#[inline]
pub fn write_timestamp<W: fmt::Write>(out: &mut W, t_ms: i64) -> fmt::Result {
    let (seconds, millis) = split_ms(out, t_ms)?;
    let mut buffer = itoa::Buffer::new();
    if millis == 0 {
        return out.write_str(buffer.format(seconds));
    }
    if seconds == 0 {
        return write!(out, "0.{millis:03}");
    }
    // The point goes into the digits of all milliseconds.
    let digits = buffer.format(t_ms.unsigned_abs());
    let (whole, decimals) = digits.split_at(digits.len() - 3);
    out.write_str(whole)?;
    out.write_str(".")?;
    out.write_str(decimals)
}

/// Writes milliseconds as the seconds of scalars: no more decimals than needed.
pub fn write_scalar_timestamp<W: fmt::Write>(out: &mut W, t_ms: i64) -> fmt::Result {
    write_fixed_shortest(out, t_ms as f64 / 1000.0)
}

/// Writes the sign, and gives whole seconds and the milliseconds beyond them.
fn split_ms<W: fmt::Write>(out: &mut W, t_ms: i64) -> Result<(u64, u64), fmt::Error> {
    if t_ms < 0 {
        out.write_char('-')?;
    }
    let size = t_ms.unsigned_abs();
    Ok((size / 1000, size % 1000))
}

/// `value` as [`write_sample_value`] writes it.
pub fn sample_value(value: f64) -> String {
    let mut text = String::new();
    let _ = write_sample_value(&mut text, value);
    text
}

/// A float has at most this many decimals that are not zero.
const MOST_DECIMALS: usize = 1074;
/// A float has at most this many significant digits.
const MOST_DIGITS: usize = 767;
/// Integers up to this size are exact and print without looking for the shortest digits.
const EXACT_INTEGER: f64 = 9_007_199_254_740_992.0;
/// Of these, whatever is no integer is printed by zmij as it stands in form `f`.
const PLAIN: std::ops::Range<f64> = 1e-3..1e15;

fn not_finite(value: f64) -> &'static str {
    if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "+Inf"
    } else {
        "-Inf"
    }
}

fn ascii(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

fn write_zeros<W: fmt::Write>(out: &mut W, mut count: usize) -> fmt::Result {
    const ZEROS: &str = "0000000000000000000000000000000000000000000000000000000000000000";
    while count > 0 {
        let some = count.min(ZEROS.len());
        out.write_str(&ZEROS[..some])?;
        count -= some;
    }
    Ok(())
}

/// Form `f` with the shortest digits, of a finite value.
#[inline]
fn write_fixed_shortest<W: fmt::Write>(out: &mut W, value: f64) -> fmt::Result {
    if value.abs() < EXACT_INTEGER {
        let whole = value as i64;
        if whole as f64 == value && (whole != 0 || value.is_sign_positive()) {
            return out.write_str(itoa::Buffer::new().format(whole));
        }
    }
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(value);
    if PLAIN.contains(&value.abs()) {
        return out.write_str(text);
    }
    if text.bytes().any(|b| b == b'e') {
        return Digits::parse(text, &mut [0; SHORTEST]).write_fixed(out);
    }
    out.write_str(text.strip_suffix(".0").unwrap_or(text))
}

/// No shortest form is longer, sign and exponent included.
const SHORTEST: usize = 24;

/// A decimal number: 0.DIGITS x 10^point, with no zero at either end of the digits; zero has none.
struct Digits<'a> {
    negative: bool,
    digits: &'a str,
    point: i32,
}

impl<'a> Digits<'a> {
    /// Takes apart what zmij or `core::fmt` printed: `-12.5`, `1e-7`, `1.2500e3`. `room` is at least
    /// as long as `text`.
    fn parse(text: &str, room: &'a mut [u8]) -> Digits<'a> {
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
        let (whole, decimals) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut point = exponent.parse::<i32>().unwrap_or(0) + whole.len() as i32;
        let (first, second) = room.split_at_mut(whole.len());
        first.copy_from_slice(whole.as_bytes());
        second[..decimals.len()].copy_from_slice(decimals.as_bytes());
        let all = ascii(&room[..whole.len() + decimals.len()]);
        let digits = all.trim_start_matches('0');
        point -= (all.len() - digits.len()) as i32;
        let digits = digits.trim_end_matches('0');
        Digits { negative, digits, point: if digits.is_empty() { 0 } else { point } }
    }

    fn write_sign<W: fmt::Write>(&self, out: &mut W) -> fmt::Result {
        if self.negative { out.write_char('-') } else { Ok(()) }
    }

    /// Form `f`, with all digits there are.
    fn write_fixed<W: fmt::Write>(&self, out: &mut W) -> fmt::Result {
        self.write_sign(out)?;
        let len = self.digits.len() as i32;
        if self.point <= 0 {
            out.write_char('0')?;
            if len > 0 {
                out.write_char('.')?;
                write_zeros(out, -self.point as usize)?;
            }
            out.write_str(self.digits)
        } else if self.point >= len {
            out.write_str(self.digits)?;
            write_zeros(out, (self.point - len) as usize)
        } else {
            let (whole, decimals) = self.digits.split_at(self.point as usize);
            out.write_str(whole)?;
            out.write_char('.')?;
            out.write_str(decimals)
        }
    }

    /// Form `e`, with all digits there are and at least `decimals` after the point.
    fn write_exponent<W: fmt::Write>(&self, out: &mut W, decimals: usize) -> fmt::Result {
        self.write_sign(out)?;
        let (first, rest) = self.digits.split_at(self.digits.len().min(1));
        out.write_str(if first.is_empty() { "0" } else { first })?;
        if decimals.max(rest.len()) > 0 {
            out.write_char('.')?;
            out.write_str(rest)?;
            write_zeros(out, decimals.saturating_sub(rest.len()))?;
        }
        let exponent = if first.is_empty() { 0 } else { self.point - 1 };
        out.write_str(if exponent < 0 { "e-" } else { "e+" })?;
        if exponent.abs() < 10 {
            out.write_char('0')?;
        }
        out.write_str(itoa::Buffer::new().format(exponent.unsigned_abs()))
    }

    /// Form `g`: an exponent below -4 and from `turn` on.
    fn write_general<W: fmt::Write>(&self, out: &mut W, turn: i32) -> fmt::Result {
        let exponent = self.point - 1;
        if exponent < -4 || exponent >= turn { self.write_exponent(out, 0) } else { self.write_fixed(out) }
    }
}

/// Why a text is not a float.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseFloatError {
    /// It is not written as a float.
    #[error("invalid syntax")]
    Syntax,
    /// It lies beyond the largest float.
    #[error("value out of range")]
    Range,
}

/// Reads a float as Go's `strconv.ParseFloat(text, 64)` does: decimal or hexadecimal (`0x1p-2`),
/// underscores between digits, `Inf`, `Infinity` and `NaN` in any case. The errors' texts are Go's.
pub fn parse_go_float(text: &str) -> Result<f64, ParseFloatError> {
    let (sign, rest) = match text.as_bytes() {
        [b'-', ..] => (-1.0, &text[1..]),
        [b'+', ..] => (1.0, &text[1..]),
        _ => (1.0, text),
    };
    if rest.eq_ignore_ascii_case("inf") || rest.eq_ignore_ascii_case("infinity") {
        return Ok(sign * f64::INFINITY);
    }
    if text.eq_ignore_ascii_case("nan") {
        return Ok(f64::NAN);
    }
    let plain;
    let rest = if rest.contains('_') {
        if !underscores_stand_between_digits(rest) {
            return Err(ParseFloatError::Syntax);
        }
        plain = rest.replace('_', "");
        &plain
    } else {
        rest
    };
    let value = match rest.as_bytes() {
        [b'0', b'x' | b'X', hex @ ..] => parse_hexadecimal(hex)?,
        decimal => {
            // What remains of Go's syntax is what Rust reads, save for its words.
            if !decimal.iter().all(|b| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-')) {
                return Err(ParseFloatError::Syntax);
            }
            if matches!(decimal.first(), Some(b'+' | b'-')) {
                return Err(ParseFloatError::Syntax);
            }
            rest.parse::<f64>().map_err(|_| ParseFloatError::Syntax)?
        }
    };
    if value.is_infinite() { Err(ParseFloatError::Range) } else { Ok(sign * value) }
}

/// Go's `strconv.ParseInt(text, 0, 64)` for texts without a sign: `0x1f`, `017`, `0o17`, `0b11`, `1_000`.
pub(crate) fn parse_go_integer(text: &str) -> Option<i64> {
    let (digits, base) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&text[2..], 16),
        [b'0', b'b' | b'B', ..] => (&text[2..], 2),
        [b'0', b'o' | b'O', ..] => (&text[2..], 8),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    if !digits.contains('_') {
        return i64::from_str_radix(digits, base).ok();
    }
    // Between digits, or after the base's prefix.
    let misplaced = digits.ends_with('_') || digits.contains("__") || base == 10 && digits.starts_with('_');
    let digits = digits.replace('_', "");
    if misplaced { None } else { i64::from_str_radix(&digits, base).ok() }
}

/// Go's rule for `_`: a digit (or the base prefix) before it, a digit after it.
fn underscores_stand_between_digits(text: &str) -> bool {
    let bytes = text.as_bytes();
    let hex = matches!(bytes, [b'0', b'x' | b'X', ..]);
    let digit = |b: u8| b.is_ascii_digit() || (hex && b.is_ascii_hexdigit());
    bytes.iter().enumerate().filter(|(_, b)| **b == b'_').all(|(i, _)| {
        let before = i.checked_sub(1).and_then(|i| bytes.get(i)).is_some_and(|b| digit(*b));
        let after_prefix = hex && i == 2;
        (before || after_prefix) && bytes.get(i + 1).is_some_and(|b| digit(*b))
    })
}

/// A hexadecimal float after its `0x`, rounded to even; infinite if too large.
fn parse_hexadecimal(text: &[u8]) -> Result<f64, ParseFloatError> {
    let mark = text.iter().position(|b| matches!(b, b'p' | b'P')).ok_or(ParseFloatError::Syntax)?;
    let (mantissa, exponent) = (&text[..mark], &text[mark + 1..]);
    let (mut bits, mut scale, mut digits, mut seen_point) = (0u64, 0i64, 0usize, false);
    for &b in mantissa {
        if b == b'.' && !seen_point {
            seen_point = true;
            continue;
        }
        let digit = (b as char).to_digit(16).ok_or(ParseFloatError::Syntax)?;
        digits += 1;
        if bits >> 60 == 0 {
            bits = bits << 4 | u64::from(digit);
            scale -= if seen_point { 4 } else { 0 };
        } else {
            // Beyond 60 bits a digit only decides which way a tie falls.
            bits |= u64::from(digit != 0);
            scale += if seen_point { 0 } else { 4 };
        }
    }
    let (negative, exponent) = match exponent {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if digits == 0 || exponent.is_empty() || !exponent.iter().all(u8::is_ascii_digit) {
        return Err(ParseFloatError::Syntax);
    }
    let size = exponent.iter().fold(0i64, |n, b| (n * 10 + i64::from(b - b'0')).min(1 << 40));
    scale += if negative { -size } else { size };
    if bits == 0 {
        return Ok(0.0);
    }
    let width = 64 - i64::from(bits.leading_zeros());
    let cut = (width - 53).max(-1074 - scale).max(0);
    let kept = match cut {
        0 => bits,
        1..64 => {
            let (kept, lost, half) = (bits >> cut, bits & ((1 << cut) - 1), 1u64 << (cut - 1));
            kept + u64::from(lost > half || (lost == half && kept & 1 == 1))
        }
        64 => u64::from(bits > 1 << 63),
        _ => 0,
    };
    Ok(kept as f64 * power_of_two(scale + cut))
}

/// 2^exponent; infinite above 1023. The exponent is at least -1074.
fn power_of_two(exponent: i64) -> f64 {
    match exponent {
        ..-1022 => f64::from_bits(1 << (exponent + 1074).max(0)),
        -1022..=1023 => f64::from_bits(((exponent + 1023) as u64) << 52),
        _ => f64::INFINITY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn float(value: f64, form: Form, precision: Option<usize>) -> String {
        let mut text = String::new();
        write_float(&mut text, value, form, precision).expect("a String takes all");
        text
    }

    fn written(write: impl Fn(&mut Bytes<'_>) -> fmt::Result) -> String {
        let mut out = Vec::new();
        write(&mut Bytes(&mut out)).expect("a Vec takes all");
        String::from_utf8(out).expect("text")
    }

    // The right columns are what Go prints for `%e`, `%g` and a label of `value_to_string`.
    #[test]
    fn floats_print_as_go_prints_them() {
        for (value, fixed, exponent, general) in [
            (0.0, "0", "0e+00", "0"),
            (-0.0, "-0", "-0e+00", "-0"),
            (1.0, "1", "1e+00", "1"),
            (-12.5, "-12.5", "-1.25e+01", "-12.5"),
            (100000.0, "100000", "1e+05", "100000"),
            (1234567.0, "1234567", "1.234567e+06", "1.234567e+06"),
            (0.0001, "0.0001", "1e-04", "0.0001"),
            (0.00001, "0.00001", "1e-05", "1e-05"),
            (1e20, "100000000000000000000", "1e+20", "1e+20"),
            (1.5e300, &format!("15{}", "0".repeat(299)), "1.5e+300", "1.5e+300"),
            (5e-324, &format!("0.{}5", "0".repeat(323)), "5e-324", "5e-324"),
            (2023347301156851.2, "2023347301156851.2", "2.0233473011568512e+15", "2.0233473011568512e+15"),
            (9007199254740993.0, "9007199254740992", "9.007199254740992e+15", "9.007199254740992e+15"),
            (
                f64::MAX,
                &format!("17976931348623157{}", "0".repeat(292)),
                "1.7976931348623157e+308",
                "1.7976931348623157e+308",
            ),
        ] {
            assert_eq!(float(value, Form::Fixed, None), fixed);
            assert_eq!(float(value, Form::Exponent, None), exponent);
            assert_eq!(float(value, Form::General, None), general);
        }
    }

    #[test]
    fn a_given_precision_rounds_the_exact_value_and_ties_to_even() {
        for (value, form, precision, expected) in [
            (0.125, Form::Fixed, 2, "0.12"),
            (0.375, Form::Fixed, 2, "0.38"),
            (2.5, Form::Fixed, 0, "2"),
            (1.005, Form::Fixed, 2, "1.00"),
            (3.0, Form::Fixed, 2, "3.00"),
            (-0.4, Form::Fixed, 0, "-0"),
            (1e21, Form::Fixed, 1, "1000000000000000000000.0"),
            (123456.0, Form::Exponent, 2, "1.23e+05"),
            (0.0, Form::Exponent, 3, "0.000e+00"),
            (1e-7, Form::Exponent, 0, "1e-07"),
            (1234.5678, Form::General, 4, "1235"),
            (100000.0, Form::General, 3, "1e+05"),
            (1e19, Form::General, 20, "10000000000000000000"),
            (1e20, Form::General, 20, "1e+20"),
            (0.0, Form::General, 4, "0"),
            (0.5, Form::General, 0, "0.5"),
            (999.96, Form::General, 4, "1000"),
            (12345678.0, Form::General, 10, "12345678"),
        ] {
            assert_eq!(float(value, form, Some(precision)), expected, "{value} {form:?} {precision}");
        }
        assert_eq!(float(1.5, Form::Fixed, Some(3000)).len(), 3002);
        assert_eq!(float(1.5, Form::Exponent, Some(3000)).len(), 3006);
        assert_eq!(float(0.1, Form::General, Some(3000)).len(), 57);
    }

    #[test]
    fn sample_values_turn_to_exponents_where_prometheus_does() {
        for (value, expected) in [
            (1e-6, "0.000001"),
            (9.99e-7, "9.99e-07"),
            (1e-7, "1e-07"),
            (999999999999999900000.0, "999999999999999900000"),
            (1e21, "1e+21"),
            (-1e21, "-1e+21"),
            (-0.0, "-0"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            assert_eq!(sample_value(value), expected);
        }
        assert_eq!(written(|out| write_scalar_value(out, 1e21)), "1000000000000000000000");
        assert_eq!(written(|out| write_scalar_value(out, 1e-7)), "0.0000001");
        assert_eq!(written(|out| write_scalar_value(out, f64::NEG_INFINITY)), "-Inf");
    }

    #[test]
    fn timestamps_have_three_decimals_or_none_and_scalars_as_few_as_can_be() {
        for (t_ms, vector, scalar) in [
            (0, "0", "0"),
            (1_700_000_000_000, "1700000000", "1700000000"),
            (1_700_000_000_120, "1700000000.120", "1700000000.12"),
            (-1, "-0.001", "-0.001"),
            (70, "0.070", "0.07"),
            (-1_500, "-1.500", "-1.5"),
            (i64::MIN, "-9223372036854775.808", "-9223372036854776"),
        ] {
            assert_eq!(written(|out| write_timestamp(out, t_ms)), vector);
            assert_eq!(written(|out| write_scalar_timestamp(out, t_ms)), scalar);
        }
    }

    #[test]
    fn texts_are_read_as_go_reads_them() {
        use ParseFloatError::{Range, Syntax};
        for (text, expected) in [
            ("1", Ok(1.0)),
            ("+1.5e3", Ok(1500.0)),
            (".5", Ok(0.5)),
            ("5.", Ok(5.0)),
            ("1_23.50_0_0e+1_2", Ok(1.235e14)),
            ("-Inf", Ok(f64::NEG_INFINITY)),
            ("+infinity", Ok(f64::INFINITY)),
            ("0x1p-2", Ok(0.25)),
            ("-0X1.8P1", Ok(-3.0)),
            ("0x_1p0", Ok(1.0)),
            ("0x1.fffffffffffff8p0", Ok(2.0)),
            ("0x1.fffffffffffff7p0", Ok(1.9999999999999998)),
            ("0x1p-1074", Ok(5e-324)),
            ("0x1p-1075", Ok(0.0)),
            ("0x1.8p-1075", Ok(5e-324)),
            ("0x1p1024", Err(Range)),
            ("1e309", Err(Range)),
            ("1e-400", Ok(0.0)),
            ("", Err(Syntax)),
            (".", Err(Syntax)),
            ("+-1", Err(Syntax)),
            ("1e", Err(Syntax)),
            ("0x1", Err(Syntax)),
            ("1__0", Err(Syntax)),
            ("_1", Err(Syntax)),
            ("1_", Err(Syntax)),
            ("+nan", Err(Syntax)),
            ("1 ", Err(Syntax)),
        ] {
            assert_eq!(parse_go_float(text), expected, "{text}");
        }
        assert!(parse_go_float("nAn").is_ok_and(f64::is_nan));
    }

    proptest! {
        #[test]
        fn every_form_without_precision_reads_back_to_the_same_float(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(!value.is_nan());
            for form in [Form::Fixed, Form::Exponent, Form::General] {
                let back = parse_go_float(&float(value, form, None)).expect("a float");
                prop_assert_eq!(back.to_bits(), value.to_bits());
            }
            prop_assert_eq!(parse_go_float(&sample_value(value)).expect("a float").to_bits(), value.to_bits());
        }

        #[test]
        fn values_as_metrics_have_them_are_printed_as_their_digits(value in 1e-4..1e16f64, decimals in 0..8u32) {
            let power = f64::from(10u32.pow(decimals));
            for value in [value, -value, (value * power).round() / power] {
                let (mut digits, mut buffer) = (String::new(), zmij::Buffer::new());
                let text = buffer.format_finite(value);
                Digits::parse(text, &mut [0; SHORTEST]).write_fixed(&mut digits).expect("a String takes all");
                prop_assert_eq!(sample_value(value), digits);
            }
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "[-+]?(0x)?[0-9a-fA-FpP._+-]{0,40}|.*") {
            let _ = parse_go_float(&text);
        }
    }
}
