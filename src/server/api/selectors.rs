//! `match[]`, `start` and `end`: which series, and when.

use super::super::error::ApiError;
use super::super::http::params::Params;
use crate::promql::{self, ast::ExprKind};
use crate::storage::{Matcher, TimeRange};

/// The matchers of every `match[]`.
pub fn matcher_sets(params: &Params) -> Result<Vec<Vec<Matcher>>, ApiError> {
    params.all("match[]").map(|text| selector(text).map_err(|e| ApiError::parameter("match[]", e))).collect()
}

/// As [`matcher_sets`], but there must be one.
pub fn required_matcher_sets(params: &Params) -> Result<Vec<Vec<Matcher>>, ApiError> {
    let sets = matcher_sets(params)?;
    if sets.is_empty() { Err(ApiError::bad_data("no match[] parameter provided")) } else { Ok(sets) }
}

/// The matchers of a series selector.
pub fn selector(text: &str) -> Result<Vec<Matcher>, String> {
    match promql::parse(text).map_err(|e| e.to_string())?.kind {
        ExprKind::VectorSelector(selector)
            if selector.modifiers == Default::default() && selector.extension.is_none() =>
        {
            Ok(selector.matchers)
        }
        _ => Err(format!("{text:?} is no series selector")),
    }
}

/// `start` and `end`; where they are absent, all of time.
pub fn time_range(params: &Params) -> Result<TimeRange, ApiError> {
    let min_ms = params.time("start")?.map_or(i64::MIN, |t| t.as_millis());
    let max_ms = params.time("end")?.map_or(i64::MAX, |t| t.as_millis());
    if max_ms < min_ms {
        return Err(ApiError::parameter("end", "end timestamp must not be before start time"));
    }
    Ok(TimeRange::new(min_ms, max_ms))
}

/// Undoes the escaping of names that begin with `U__`: `_2e_` is a dot, `__` an underscore.
pub fn unescape_name(name: &str) -> String {
    let Some(escaped) = name.strip_prefix("U__") else { return name.to_owned() };
    let mut out = String::new();
    let mut rest = escaped;
    while let Some(at) = rest.find('_') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('_') {
            out.push('_');
            rest = after;
            continue;
        }
        let code = rest.split_once('_').and_then(|(hex, after)| {
            let fits = !hex.is_empty() && hex.len() <= 6 && hex.bytes().all(|b| b.is_ascii_hexdigit());
            let code = u32::from_str_radix(hex, 16).ok().filter(|_| fits)?;
            Some((char::from_u32(code)?, after))
        });
        // What is not escaped as it should be is a name as it stands, as in Prometheus.
        let Some((character, after)) = code else { return name.to_owned() };
        out.push(character);
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unescaped_as_in_prometheus() {
        let cases = [
            ("plain", "plain"),
            ("U__http_2e_status", "http.status"),
            ("U__a__b", "a_b"),
            ("U___1f600_", "😀"),
            ("U__bad_zz_", "U__bad_zz_"),
            ("U__cut_2e", "U__cut_2e"),
        ];
        for (escaped, expected) in cases {
            assert_eq!(unescape_name(escaped), expected);
        }
    }
}
