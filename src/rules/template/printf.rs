//! Go's `fmt` for the kinds a template has: `Sprint`, `Sprintln`, `Sprintf`.

use super::dates::{duration_text, time_text};
use super::quote::{can_backquote, quote, quote_with};
use super::value::Value;
use crate::promql::number::{Form, write_float};

/// `fmt.Sprint`: a space between two values neither of which is a string.
pub(super) fn print(values: &[Value]) -> String {
    let mut printer = Printer::default();
    let mut after_text = true;
    for value in values {
        let text = matches!(value, Value::Text(_));
        if !text && !after_text {
            printer.out.push(' ');
        }
        printer.value(value, 'v', 0);
        after_text = text;
    }
    printer.out
}

/// What an action writes, and what the escaping functions escape: pointers are followed first.
pub(super) fn shown(values: &[Value]) -> String {
    match values {
        [Value::Text(text)] => text.to_string(),
        [Value::Nil] => "<no value>".to_owned(),
        [Value::Sample(_)] => print(values).trim_start_matches('&').to_owned(),
        _ => print(values),
    }
}

/// `fmt.Sprintln`
pub(super) fn println(values: &[Value]) -> String {
    let mut printer = Printer::default();
    for (i, value) in values.iter().enumerate() {
        printer.out.push_str(if i > 0 { " " } else { "" });
        printer.value(value, 'v', 0);
    }
    printer.out.push('\n');
    printer.out
}

/// `fmt.Sprintf`; stops once the output exceeds `limit_bytes`.
pub(super) fn printf(format: &str, values: &[Value], limit_bytes: usize) -> String {
    let mut printer = Printer::default();
    let mut arguments = Arguments { values, next: 0, reordered: false, good: true };
    let mut any_reordered = false;
    let mut rest = format;
    while let Some(percent) = rest.find('%') {
        printer.out.push_str(&rest[..percent]);
        rest = &rest[percent + 1..];
        rest = printer.verb(rest, &mut arguments);
        any_reordered |= arguments.reordered;
        if printer.out.len() > limit_bytes {
            return printer.out;
        }
    }
    printer.out.push_str(rest);
    if !any_reordered && arguments.next < values.len() {
        printer.flags = Flags::default();
        printer.out.push_str("%!(EXTRA ");
        for (i, value) in values[arguments.next..].iter().enumerate() {
            printer.out.push_str(if i > 0 { ", " } else { "" });
            match value {
                Value::Nil => printer.out.push_str("<nil>"),
                _ => {
                    printer.out.push_str(value.type_name());
                    printer.out.push('=');
                    printer.value(value, 'v', 0);
                }
            }
        }
        printer.out.push(')');
    }
    printer.out
}

/// Printing stops here: a text this long exceeds every limit, and values that hold others many times
/// would print without end.
const MOST_BYTES: usize = 1 << 20;

/// Widths and precisions beyond this are refused.
const MAX_WIDTH: usize = 1_000_000;

struct Arguments<'v> {
    values: &'v [Value],
    next: usize,
    /// The current verb uses `[n]`.
    reordered: bool,
    /// No bad index in the current verb.
    good: bool,
}

impl Arguments<'_> {
    /// Reads `[n]`, if it is there.
    fn index<'f>(&mut self, rest: &'f str) -> (&'f str, bool) {
        let Some(inside) = rest.strip_prefix('[') else { return (rest, false) };
        self.reordered = true;
        let Some((number, after)) = inside.split_once(']') else {
            self.good = false;
            return (inside, false);
        };
        match number.parse::<usize>() {
            Ok(n) if (1..=self.values.len()).contains(&n) && number.bytes().all(|b| b.is_ascii_digit()) => {
                self.next = n - 1;
                (after, true)
            }
            _ => {
                self.good = false;
                (after, true)
            }
        }
    }

    /// Takes an argument for `*`.
    fn width(&mut self) -> Option<i64> {
        let value = self.values.get(self.next)?;
        self.next += 1;
        match value {
            Value::Int(n) if n.unsigned_abs() <= MAX_WIDTH as u64 => Some(*n),
            Value::Byte(n) => Some(i64::from(*n)),
            _ => None,
        }
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Flags {
    sharp: bool,
    zero: bool,
    plus: bool,
    minus: bool,
    space: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

#[derive(Default)]
struct Printer {
    out: String,
    flags: Flags,
    /// The verb is `%#v`.
    go_syntax: bool,
}

/// Digits at the start of `rest` as a width. A width that is too large swallows the rest.
fn digits(rest: &str) -> (Option<usize>, &str) {
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (number, after) = rest.split_at(end);
    match number.parse() {
        Ok(width) if width <= MAX_WIDTH => (Some(width), after),
        _ if number.is_empty() => (None, after),
        _ => (None, ""),
    }
}

impl Printer {
    /// Prints one verb after its `%`, and gives what follows.
    fn verb<'f>(&mut self, mut rest: &'f str, arguments: &mut Arguments<'_>) -> &'f str {
        self.flags = Flags::default();
        (arguments.reordered, arguments.good) = (false, true);
        while let Some(flag) = rest.bytes().next() {
            match flag {
                b'#' => self.flags.sharp = true,
                b'0' => self.flags.zero = !self.flags.minus,
                b'+' => self.flags.plus = true,
                b'-' => (self.flags.minus, self.flags.zero) = (true, false),
                b' ' => self.flags.space = true,
                _ => break,
            }
            rest = &rest[1..];
        }
        let mut after_index;
        (rest, after_index) = arguments.index(rest);
        if let Some(after) = rest.strip_prefix('*') {
            rest = after;
            match arguments.width() {
                None => self.out.push_str("%!(BADWIDTH)"),
                Some(width) => {
                    if width < 0 {
                        (self.flags.minus, self.flags.zero) = (true, false);
                    }
                    self.flags.width = Some(width.unsigned_abs() as usize);
                }
            }
            after_index = false;
        } else {
            let width;
            let before = rest;
            (width, rest) = digits(rest);
            self.flags.width = width;
            if after_index && before.len() != rest.len() {
                arguments.good = false;
            }
        }
        if let Some(after) = rest.strip_prefix('.') {
            rest = after;
            if after_index {
                arguments.good = false;
            }
            (rest, after_index) = arguments.index(rest);
            if let Some(after) = rest.strip_prefix('*') {
                rest = after;
                match arguments.width() {
                    None => self.out.push_str("%!(BADPREC)"),
                    Some(precision) => self.flags.precision = usize::try_from(precision).ok(),
                }
                after_index = false;
            } else {
                let before = rest;
                let precision;
                (precision, rest) = digits(rest);
                self.flags.precision = if before.len() == rest.len() { Some(0) } else { precision };
            }
        }
        if !after_index {
            (rest, _) = arguments.index(rest);
        }
        let Some(verb) = rest.chars().next() else {
            self.out.push_str("%!(NOVERB)");
            return rest;
        };
        let bad = |text: &str| format!("%!{verb}({text})");
        match arguments.values.get(arguments.next) {
            _ if verb == '%' => self.out.push('%'),
            _ if !arguments.good => self.out.push_str(&bad("BADINDEX")),
            None => self.out.push_str(&bad("MISSING")),
            Some(value) => {
                arguments.next += 1;
                if verb == 'v' {
                    self.go_syntax = std::mem::take(&mut self.flags.sharp);
                    self.flags.plus = false;
                }
                self.value(value, verb, 0);
                self.go_syntax = false;
            }
        }
        &rest[verb.len_utf8()..]
    }

    fn value(&mut self, value: &Value, verb: char, depth: usize) {
        if self.out.len() > MOST_BYTES {
            return;
        }
        match (value, verb) {
            (Value::Nil, 'T' | 'v') => self.pad("<nil>"),
            (_, 'T') => self.text(value.type_name(), 's'),
            (Value::Nil, _) => self.bad(value, verb),
            (Value::Bool(value), 't' | 'v') => self.pad(if *value { "true" } else { "false" }),
            (Value::Int(n), 'v' | 'd' | 'b' | 'o' | 'O' | 'x' | 'X' | 'c' | 'q' | 'U') => {
                self.integer(*n < 0, n.unsigned_abs(), verb);
            }
            (Value::Byte(n), 'v' | 'd' | 'b' | 'o' | 'O' | 'x' | 'X' | 'c' | 'q' | 'U') => {
                self.integer(false, u64::from(*n), verb);
            }
            (Value::Float(value), 'b') => {
                let bits = value.abs().to_bits();
                let (exponent, fraction) = ((bits >> 52) as i64, bits & ((1 << 52) - 1));
                let mantissa = if exponent == 0 { fraction } else { fraction | 1 << 52 };
                self.signed_float(*value, &format!("{mantissa}p{:+}", exponent.max(1) - 1075));
            }
            (Value::Float(value), 'x' | 'X') => self.hexadecimal(*value, verb),
            (Value::Float(value), 'v' | 'g' | 'G' | 'e' | 'E' | 'f' | 'F') => self.float(*value, verb),
            (Value::Text(text), 'v' | 's' | 'q' | 'x' | 'X') => self.text(text, verb),
            (Value::Labels(map), 'v') if self.go_syntax => {
                let pairs: Vec<_> = map.iter().map(|(k, v)| format!("{}:{}", quote(k), quote(v))).collect();
                self.out.push_str(&format!("map[string]string{{{}}}", pairs.join(", ")));
            }
            (Value::Labels(map), _) => {
                self.out.push_str("map[");
                for (i, (name, value)) in map.iter().enumerate() {
                    self.out.push_str(if i > 0 { " " } else { "" });
                    self.value(&Value::text(name), verb, depth + 1);
                    self.out.push(':');
                    self.value(&Value::text(value), verb, depth + 1);
                }
                self.out.push(']');
            }
            (Value::Args(args), _) => {
                self.out.push_str("map[");
                for (i, (name, value)) in args.values.iter().enumerate() {
                    self.out.push_str(if i > 0 { " " } else { "" });
                    self.value(&Value::text(name), verb, depth + 1);
                    self.out.push(':');
                    self.value(value, verb, depth + 1);
                }
                self.out.push(']');
            }
            (Value::Samples(samples), _) => {
                self.out.push('[');
                for (i, sample) in samples.iter().enumerate() {
                    self.out.push_str(if i > 0 { " " } else { "" });
                    self.value(&Value::Sample(sample.clone()), verb, depth + 1);
                }
                self.out.push(']');
            }
            (Value::Sample(sample), _) => {
                // Go prints the address of a pointer inside something else; it says nothing.
                if depth > 0 {
                    return self.out.push_str("0xc000000000");
                }
                self.out.push_str("&{");
                self.value(&Value::Labels(sample.labels.clone()), verb, depth + 1);
                self.out.push(' ');
                self.value(&Value::Float(sample.value), verb, depth + 1);
                self.out.push('}');
            }
            (Value::Alert(alert), _) => {
                self.out.push('{');
                self.value(&Value::Labels(alert.labels.clone()), verb, depth + 1);
                self.out.push(' ');
                self.value(&Value::Labels(alert.external_labels.clone()), verb, depth + 1);
                self.out.push(' ');
                self.value(&Value::Text(alert.external_url.clone()), verb, depth + 1);
                self.out.push(' ');
                self.value(&Value::Float(alert.value), verb, depth + 1);
                self.out.push('}');
            }
            (Value::Time(ns), 'v' | 's' | 'q' | 'x' | 'X') => self.text(&time_text(*ns), verb),
            (Value::Duration(ns), 'v' | 's' | 'q' | 'x' | 'X') => self.text(&duration_text(*ns), verb),
            _ => self.bad(value, verb),
        }
    }

    /// The verb does not suit the value: `%!d(float64=1.5)`.
    fn bad(&mut self, value: &Value, verb: char) {
        self.out.push_str("%!");
        self.out.push(verb);
        self.out.push('(');
        if !matches!(value, Value::Nil) {
            self.out.push_str(value.type_name());
            self.out.push('=');
        }
        match value {
            Value::Nil => self.out.push_str("<nil>"),
            _ => self.value(value, 'v', 0),
        }
        self.out.push(')');
    }

    fn pad(&mut self, text: &str) {
        let missing = self.flags.width.unwrap_or(0).saturating_sub(text.chars().count());
        if self.flags.minus {
            self.out.push_str(text);
        }
        let fill = if self.flags.zero { '0' } else { ' ' };
        self.out.extend(std::iter::repeat_n(fill, missing));
        if !self.flags.minus {
            self.out.push_str(text);
        }
    }

    fn text(&mut self, text: &str, verb: char) {
        let end = self.flags.precision.and_then(|most| text.char_indices().nth(most));
        let cut = end.map_or(text, |(i, _)| &text[..i]);
        match verb {
            'v' if self.go_syntax => self.pad(&quote_with(cut, '"', false)),
            'q' if self.flags.sharp && can_backquote(cut) => self.pad(&format!("`{cut}`")),
            'q' => self.pad(&quote_with(cut, '"', self.flags.plus)),
            'x' | 'X' => {
                let bytes = text.as_bytes();
                let bytes = &bytes[..self.flags.precision.unwrap_or(bytes.len()).min(bytes.len())];
                let prefix = if verb == 'x' { "0x" } else { "0X" };
                let mut hex = String::new();
                for (i, byte) in bytes.iter().enumerate() {
                    let separated = self.flags.space && i > 0;
                    hex.push_str(if separated { " " } else { "" });
                    hex.push_str(if self.flags.sharp && (i == 0 || separated) { prefix } else { "" });
                    let pair = format!("{byte:02x}");
                    hex.push_str(&if verb == 'x' { pair } else { pair.to_uppercase() });
                }
                self.pad(&hex);
            }
            _ => self.pad(cut),
        }
    }

    fn integer(&mut self, negative: bool, size: u64, verb: char) {
        let flags = self.flags;
        match verb {
            'c' | 'q' | 'U' => {
                let code = if negative { 0xfffd } else { u32::try_from(size).unwrap_or(0xfffd) };
                let c = char::from_u32(code).unwrap_or('\u{fffd}');
                let text = match verb {
                    'c' => c.to_string(),
                    'q' => quote_with(&c.to_string(), '\'', flags.plus),
                    _ => {
                        let size = if negative { size.wrapping_neg() } else { size };
                        let digits = flags.precision.unwrap_or(4).max(4);
                        let mut text = format!("U+{size:0digits$X}");
                        if flags.sharp
                            && !negative
                            && size <= u64::from(char::MAX)
                            && super::quote::is_print(c)
                        {
                            text.push_str(&format!(" '{c}'"));
                        }
                        self.flags.zero = false;
                        text
                    }
                };
                self.pad(&text);
                self.flags = flags;
                return;
            }
            _ => {}
        }
        let signed = negative || flags.plus || flags.space;
        if flags.precision == Some(0) && size == 0 {
            self.flags.zero = false;
            self.pad("");
            self.flags = flags;
            return;
        }
        let least = match (flags.precision, flags.width) {
            (Some(precision), _) => precision,
            (None, Some(width)) if flags.zero => width.saturating_sub(usize::from(signed)),
            _ => 0,
        };
        let digits = match verb {
            'b' => format!("{size:b}"),
            'o' | 'O' => format!("{size:o}"),
            'x' => format!("{size:x}"),
            'X' => format!("{size:X}"),
            _ => size.to_string(),
        };
        let mut text = String::from(match (negative, flags.plus, flags.space) {
            (true, ..) => "-",
            (_, true, _) => "+",
            (.., true) => " ",
            _ => "",
        });
        let zeros = least.saturating_sub(digits.len());
        match verb {
            'b' if flags.sharp => text.push_str("0b"),
            'O' => text.push_str("0o"),
            'x' if flags.sharp => text.push_str("0x"),
            'X' if flags.sharp => text.push_str("0X"),
            _ => {}
        }
        let octal = matches!(verb, 'o' | 'O') && flags.sharp;
        let zeros = zeros.max(usize::from(octal && !digits.starts_with('0')));
        text.extend(std::iter::repeat_n('0', zeros));
        text.push_str(&digits);
        self.flags.zero = false;
        self.pad(&text);
        self.flags = flags;
    }

    /// A float as mantissa and exponent of two: `0x1.8p+00`.
    fn hexadecimal(&mut self, value: f64, verb: char) {
        if !value.is_finite() {
            return self.signed_float(value, if value.is_nan() { "NaN" } else { "Inf" });
        }
        let bits = value.abs().to_bits();
        let (mut exponent, mut mantissa) = ((bits >> 52) as i64 - 1023, bits & ((1 << 52) - 1) | 1 << 52);
        if bits >> 52 == 0 {
            // Subnormal: bring the first digit in front of the point.
            mantissa = bits;
            exponent = if bits == 0 { 0 } else { -1022 };
            while mantissa != 0 && mantissa >> 52 == 0 {
                (mantissa, exponent) = (mantissa << 1, exponent - 1);
            }
        }
        let mut decimals = 13;
        if let Some(precision) = self.flags.precision.filter(|precision| *precision < 13) {
            let cut = 4 * (13 - precision as u32);
            let (kept, lost, half) = (mantissa >> cut, mantissa & ((1 << cut) - 1), 1 << (cut - 1));
            mantissa = kept + u64::from(lost > half || (lost == half && kept & 1 == 1));
            decimals = precision;
            if mantissa >> (4 * decimals) > 1 {
                (mantissa, exponent) = (mantissa >> 1, exponent + 1);
            }
        }
        let digits = format!("{:0decimals$x}", mantissa & ((1u64 << (4 * decimals)) - 1));
        let digits = if decimals == 0 { "" } else { digits.as_str() };
        let digits = match self.flags.precision {
            Some(precision) => format!("{digits:0<precision$}"),
            None => digits.trim_end_matches('0').to_owned(),
        };
        let point = if digits.is_empty() { "" } else { "." };
        let sign = if exponent < 0 { '-' } else { '+' };
        let first = mantissa >> (4 * decimals);
        let mut text = format!("0x{first}{point}{digits}p{sign}{:02}", exponent.abs());
        if self.flags.sharp {
            text = self.with_point(&text, verb == 'x');
        }
        if verb == 'X' {
            text.make_ascii_uppercase();
        }
        self.signed_float(value, &text);
    }

    fn float(&mut self, value: f64, verb: char) {
        let (form, precision) = match verb {
            'e' | 'E' => (Form::Exponent, Some(6)),
            'f' | 'F' => (Form::Fixed, Some(6)),
            _ => (Form::General, None),
        };
        let mut text = String::new();
        let _ = write_float(&mut text, value, form, self.flags.precision.or(precision));
        if verb.is_ascii_uppercase() && value.is_finite() {
            text.make_ascii_uppercase();
        }
        let mut digits = text.trim_start_matches(['-', '+']).to_owned();
        if self.flags.sharp && value.is_finite() {
            digits = self.with_point(&digits, matches!(form, Form::General));
        }
        self.signed_float(value, &digits);
    }

    /// What `#` asks for: always a point, and in the forms `g` and `x` (not `X`) the zeros up to the precision
    /// (of which Go counts the `x` of `0x` as one).
    fn with_point(&self, digits: &str, general: bool) -> String {
        let exponent = digits.find(['p', 'P']).or_else(|| digits.find(['e', 'E']));
        let (mantissa, exponent) = digits.split_at(exponent.unwrap_or(digits.len()));
        let significant = mantissa.trim_start_matches(['0', '.']).bytes().filter(|b| *b != b'.').count();
        let mut out = mantissa.to_owned();
        let mut missing =
            if general { self.flags.precision.unwrap_or(6) } else { 0 }.saturating_sub(significant);
        if !mantissa.contains('.') {
            out.push('.');
            missing = missing.saturating_sub(usize::from(mantissa == "0"));
        }
        out.extend(std::iter::repeat_n('0', missing));
        out + exponent
    }

    /// Pads a float's digits with its sign as the flags want it.
    fn signed_float(&mut self, value: f64, digits: &str) {
        let flags = self.flags;
        let sign = match value.is_sign_negative() && !value.is_nan() {
            true => "-",
            false if flags.plus => "+",
            false if flags.space => " ",
            false if value == f64::INFINITY => "+",
            false => "",
        };
        if !value.is_finite() {
            self.flags.zero = false;
        }
        if self.flags.zero {
            self.out.push_str(sign);
            self.flags.width = flags.width.map(|width| width.saturating_sub(sign.len()));
            self.pad(digits);
        } else {
            self.pad(&[sign, digits].concat());
        }
        self.flags = flags;
    }
}
