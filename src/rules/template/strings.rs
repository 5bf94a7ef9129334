//! Texts: letters, addresses, escapes, durations.

use super::quote;
use crate::relabel::case::single;

/// `strings.Title`: the first letter of each word in upper case.
pub(super) fn title(text: &str) -> String {
    let mut after_word = false;
    let of_word = |c: char| c == '_' || c.is_alphanumeric() || (!c.is_ascii() && !c.is_whitespace());
    text.chars()
        .map(|c| {
            let mapped = if after_word { c } else { single(c, c.to_uppercase()) };
            after_word = of_word(c);
            mapped
        })
        .collect()
}

/// `net.SplitHostPort`
pub(super) fn split_host_port(address: &str) -> Option<(&str, &str)> {
    let (before, port) = address.rsplit_once(':')?;
    let host = match before.strip_prefix('[') {
        Some(inside) => inside.strip_suffix(']').filter(|host| !host.contains(['[', ']']))?,
        None if before.contains([':', '[', ']']) => return None,
        None => before,
    };
    if port.contains(['[', ']']) { None } else { Some((host, port)) }
}

/// The first part of a host name, its port kept; addresses stay as they are.
pub(super) fn strip_domain(address: &str) -> String {
    let (host, port) = split_host_port(address).unwrap_or((address, ""));
    if host.parse::<std::net::IpAddr>().is_ok() {
        return address.to_owned();
    }
    let host = host.split('.').next().unwrap_or_default();
    match (port, host.contains(':')) {
        ("", _) => host.to_owned(),
        (port, true) => format!("[{host}]:{port}"),
        (port, false) => format!("{host}:{port}"),
    }
}

/// The text quoted as Go quotes a pattern in a panic.
pub(super) fn backquote(text: &str) -> String {
    if quote::can_backquote(text) { format!("`{text}`") } else { quote::quote(text) }
}

/// A link to Prometheus' expression browser: its graph is tab 0, its table tab 1.
pub(crate) fn link(expression: &str, tab: u8) -> String {
    format!("/graph?g0.expr={}&g0.tab={tab}", query_escape(expression))
}

/// `url.QueryEscape`
pub(super) fn query_escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte as char),
            b' ' => out.push('+'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// `html`: the text escaped for HTML.
pub(super) fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\0' => out.push('\u{fffd}'),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c => out.push(c),
        }
    }
    out
}

/// `js`: the text escaped for JavaScript.
pub(super) fn js(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\'' => out.push_str("\\'"),
            '"' => out.push_str("\\\""),
            '<' | '>' | '&' | '=' => out.push_str(&format!("\\u{:04X}", c as u32)),
            c if c < ' ' || (!c.is_ascii() && !quote::is_print(c)) => {
                out.push_str(&format!("\\u{:04X}", c as u32));
            }
            c => out.push(c),
        }
    }
    out
}

/// Seconds of a duration such as `1h30m`: each unit once, from years down to milliseconds.
pub(super) fn parse_duration(text: &str) -> Result<f64, String> {
    if text == "0" {
        return Ok(0.0);
    }
    if text.is_empty() {
        return Err("empty duration string".to_owned());
    }
    let invalid = || format!("not a valid duration string: {}", quote::quote(text));
    const UNITS: [(&str, u64); 7] = [
        ("y", 365 * 86_400_000),
        ("w", 7 * 86_400_000),
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1000),
        ("ms", 1),
    ];
    let (mut rest, mut units, mut total_ms) = (text, UNITS.as_slice(), 0u64);
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(invalid)?;
        let (number, after) = rest.split_at(unit_at);
        let unit_end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let place = units.iter().position(|(name, _)| *name == unit).ok_or_else(invalid)?;
        if number.is_empty() {
            return Err(invalid());
        }
        let out_of_range = || "duration out of range".to_owned();
        let count: u64 = number.parse().map_err(|_| out_of_range())?;
        let part = count.checked_mul(units[place].1).ok_or_else(out_of_range)?;
        total_ms = total_ms.checked_add(part).ok_or_else(out_of_range)?;
        if total_ms > i64::MAX as u64 / 1_000_000 {
            return Err(out_of_range());
        }
        (rest, units) = (after, &units[place + 1..]);
    }
    Ok((total_ms * 1_000_000) as f64 / 1e9)
}
