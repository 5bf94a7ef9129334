//! Parameters of a request: those of a form in the body, then those of the URL.

use super::super::app::App;
use super::super::error::{ApiError, ErrorKind};
use super::body::{self, BodyError};
use crate::budget::{Part, Reservation};
use crate::promql::duration::{DurationError, parse_duration};
use crate::storage::Timestamp;
use axum::body::HttpBody;
use axum::extract::Request;
use axum::http::{Method, header};
use std::sync::Arc;

/// Longest form that is read, as in Go's `net/http`.
const MAX_FORM_BYTES: usize = 10 << 20;
/// A form up to this length takes its memory unasked, as a request without one does.
const SMALL_FORM_BYTES: usize = 64 << 10;

/// Names and values, decoded, in the order they came. The first of a name counts where one is
/// asked for.
#[derive(Debug, Default, Clone)]
pub struct Params {
    pairs: Vec<(String, String)>,
    /// What a long form takes, with what it is decoded to, as long as this lives.
    _memory: Option<Arc<Reservation>>,
}

impl Params {
    /// Takes them from the URL and, if the request posts a form, from its body.
    ///
    /// # Errors
    /// The form is too long, for its kind or for the memory there is, or no form.
    pub async fn read(request: Request, app: &App) -> Result<Params, ApiError> {
        let (head, body) = request.into_parts();
        let mut params = Params::default();
        let content_type = head.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
        let is_form = content_type.is_some_and(|t| t.starts_with("application/x-www-form-urlencoded"));
        if head.method == Method::POST && is_form {
            let announced = HttpBody::size_hint(&body).upper().and_then(|n| usize::try_from(n).ok());
            let announced = announced.map_or(MAX_FORM_BYTES, |bytes| bytes.min(MAX_FORM_BYTES));
            if announced > SMALL_FORM_BYTES {
                let memory = app.memory.reservation(Part::Bodies);
                memory.grow(2 * announced as u64).map_err(|refused| {
                    let why = format!("there is too little memory for this form: {refused}");
                    ApiError::new(ErrorKind::Unavailable, why)
                })?;
                params._memory = Some(Arc::new(memory));
            }
            let timeout = app.args.read_timeout;
            let mut form = Vec::new();
            body::read(body, &mut form, MAX_FORM_BYTES, timeout).await.map_err(|e| match e {
                BodyError::TooLarge => ApiError::bad_data(format!("the form exceeds {MAX_FORM_BYTES} bytes")),
                BodyError::TooSlow(timeout) => {
                    ApiError::new(ErrorKind::Timeout, format!("the form did not arrive within {timeout:?}"))
                }
                BodyError::Broken(what) => ApiError::bad_data(format!("error parsing form values: {what}")),
            })?;
            params.add(&form)?;
        }
        params.add(head.uri.query().unwrap_or("").as_bytes())?;
        Ok(params)
    }

    /// The parameters of `a=1&b=2`.
    #[cfg(test)]
    pub fn parse(encoded: &str) -> Result<Params, ApiError> {
        let mut params = Params::default();
        params.add(encoded.as_bytes())?;
        Ok(params)
    }

    /// Adds the parameters of `a=1&b=2`.
    fn add(&mut self, encoded: &[u8]) -> Result<(), ApiError> {
        for pair in encoded.split(|&b| b == b'&').filter(|pair| !pair.is_empty()) {
            let at = pair.iter().position(|&b| b == b'=').unwrap_or(pair.len());
            let name = decode(&pair[..at], true)?;
            let value = decode(pair.get(at + 1..).unwrap_or(b""), true)?;
            self.pairs.push((name, value));
        }
        Ok(())
    }

    /// The first value of `name`; an empty one counts as absent, as in Prometheus.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    /// All values of `name`.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The time `name`, if it is given.
    pub fn time(&self, name: &str) -> Result<Option<Timestamp>, ApiError> {
        self.get(name).map(|text| parse_time(text).map_err(|e| ApiError::parameter(name, e))).transpose()
    }

    /// The time `name`, which must be given.
    pub fn required_time(&self, name: &str) -> Result<Timestamp, ApiError> {
        parse_time(self.get(name).unwrap_or("")).map_err(|e| ApiError::parameter(name, e))
    }

    /// The duration `name` in milliseconds, if it is given.
    pub fn duration_ms(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let parse = |text| parse_seconds_or_duration(text).map_err(|e| ApiError::parameter(name, e));
        self.get(name).map(parse).transpose()
    }

    /// Whether `name` is `true` or `1`; not where it is absent. Anything unclear is refused, as somebody may
    /// think to be on the safe side.
    pub fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.all(name).next() {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1") => Ok(true),
            Some(other) => Err(ApiError::parameter(name, format!("{other:?} is neither true nor false"))),
        }
    }

    /// The limit on how many series or values to answer with; `None` where there is none.
    pub fn limit(&self) -> Result<Option<usize>, ApiError> {
        match self.get("limit").map(str::parse::<i64>) {
            None | Some(Ok(0)) => Ok(None),
            Some(Ok(limit)) if limit > 0 => Ok(Some(usize::try_from(limit).unwrap_or(usize::MAX))),
            _ => Err(ApiError::parameter("limit", "limit must be a non-negative number")),
        }
    }
}

/// Decodes `%41` and, in forms, `+`.
pub fn decode(encoded: &[u8], plus_is_blank: bool) -> Result<String, ApiError> {
    let mut out = Vec::with_capacity(encoded.len());
    let mut rest = encoded.iter();
    while let Some(&byte) = rest.next() {
        out.push(match byte {
            b'+' if plus_is_blank => b' ',
            b'%' => {
                let digit = |b: Option<&u8>| b.and_then(|&b| char::from(b).to_digit(16));
                match (digit(rest.next()), digit(rest.next())) {
                    (Some(high), Some(low)) => (high * 16 + low) as u8,
                    _ => return Err(ApiError::bad_data("invalid URL escape")),
                }
            }
            byte => byte,
        });
    }
    String::from_utf8(out).map_err(|_| ApiError::bad_data("a parameter is not valid UTF-8"))
}

/// Seconds with decimals, or RFC 3339.
pub fn parse_time(text: &str) -> Result<Timestamp, String> {
    let invalid = || format!("cannot parse {text:?} to a valid timestamp");
    if let Ok(seconds) = text.parse::<f64>() {
        let ms = (seconds * 1000.0).round();
        // Beyond the years -292 million to 292 million a float has no milliseconds either.
        return if ms.abs() < 9.2e18 { Ok(Timestamp::from_millis(ms as i64)) } else { Err(invalid()) };
    }
    // Prometheus' names for the ends of time.
    match text {
        "-292273086-05-16T16:47:06Z" => return Ok(Timestamp::from_millis(i64::MIN / 2)),
        "292277025-08-18T07:12:54.999999999Z" => return Ok(Timestamp::from_millis(i64::MAX / 2)),
        _ => {}
    }
    let strict = text.contains('T') && (text.ends_with('Z') || text.len() > 20);
    match text.parse::<jiff::Timestamp>() {
        Ok(t) if strict => Ok(Timestamp::from_millis(t.as_millisecond())),
        _ => Err(invalid()),
    }
}

/// Seconds with decimals, or a duration such as `5m`, in milliseconds.
fn parse_seconds_or_duration(text: &str) -> Result<i64, String> {
    let overflow = || format!("cannot parse {text:?} to a valid duration. It overflows int64");
    if let Ok(seconds) = text.parse::<f64>() {
        // Prometheus holds durations in nanoseconds of 64 bits.
        return if seconds.abs() < 9.2e9 { Ok((seconds * 1000.0) as i64) } else { Err(overflow()) };
    }
    match parse_duration(text) {
        Ok(ms) => Ok(ms),
        Err(DurationError::OutOfRange) => Err(overflow()),
        Err(_) => Err(format!("cannot parse {text:?} to a valid duration")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_decoded_and_the_first_counts() {
        let params =
            Params::parse("query=up%7Ba%3D%22b+c%22%7D&match[]=x&match%5B%5D=y&query=z&empty=&flag").unwrap();
        assert_eq!(params.get("query"), Some("up{a=\"b c\"}"));
        assert_eq!(params.all("match[]").collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!((params.get("empty"), params.get("flag"), params.get("none")), (None, None, None));
        for bad in ["a=%zz", "a=%4", "a=%ff"] {
            assert!(Params::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_flag_is_true_or_false_and_nothing_else() {
        let params = Params::parse("yes=true&one=1&no=false&zero=0&empty=&bare&two=2").unwrap();
        let flags = ["yes", "one", "no", "zero", "absent"].map(|name| params.flag(name).unwrap());
        assert_eq!(flags, [true, true, false, false, false]);
        for unclear in ["empty", "bare", "two"] {
            assert!(params.flag(unclear).is_err(), "{unclear}");
        }
    }

    #[test]
    fn times_are_seconds_or_rfc_3339() {
        let time = |text: &str| parse_time(text).map(Timestamp::as_millis);
        assert_eq!(time("1.0005"), Ok(1001));
        assert_eq!(time("-1"), Ok(-1000));
        assert_eq!(time("2023-11-14T22:13:20.250Z"), Ok(1_700_000_000_250));
        assert_eq!(time("2023-11-14T23:13:20+01:00"), Ok(1_700_000_000_000));
        for bad in ["", "now", "NaN", "Inf", "1e300", "2023-11-14"] {
            assert_eq!(time(bad), Err(format!("cannot parse {bad:?} to a valid timestamp")));
        }
    }

    #[test]
    fn durations_are_seconds_or_prometheus_durations() {
        assert_eq!(parse_seconds_or_duration("1.5"), Ok(1500));
        assert_eq!(parse_seconds_or_duration("1h30m"), Ok(5_400_000));
        assert_eq!(
            parse_seconds_or_duration("1e300").unwrap_err(),
            "cannot parse \"1e300\" to a valid duration. It overflows int64"
        );
        assert!(parse_seconds_or_duration("x").is_err());
    }
}
