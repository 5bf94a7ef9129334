//! Compressed answers, for those who ask for them (RFC 9110, section 12.5.3), where it is worth it.
//!
//! gzip and zstd at their fastest: an answer goes through piece by piece as it is written, and a server's
//! time is worth more than the last percent.

use super::super::app::App;
use super::super::error::{ApiError, ErrorKind};
use super::edge;
use super::stream::{PIECE_BYTES, Turns};
use crate::budget::{Part, Reservation};
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use flate2::write::GzEncoder;
use hyper::body::Frame;
use std::io::{self, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// Shorter answers are sent as they are: a few packets more or less are no gain.
const LEAST_BYTES: u64 = 4 << 10;
/// So much is sent at a time, at least.
const OUTPUT_BYTES: usize = 8 << 10;
/// What an encoder takes: tables, window and output.
const ENCODER_BYTES: u64 = 1 << 20;
/// How far back zstd looks, as a power of two: what repeats in an answer repeats soon.
const ZSTD_WINDOW_LOG: u32 = 18;

/// How an answer can be compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Gzip,
    Zstd,
}

impl Coding {
    fn name(self) -> &'static str {
        match self {
            Coding::Gzip => "gzip",
            Coding::Zstd => "zstd",
        }
    }
}

/// What a client understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Accepted {
    /// What it prefers, if it is not the answer as it is.
    coding: Option<Coding>,
    /// Whether it takes the answer as it is.
    identity: bool,
}

impl Accepted {
    fn of(headers: &HeaderMap) -> Accepted {
        let values = headers.get_all(header::ACCEPT_ENCODING).iter();
        Accepted::parse(values.filter_map(|value| value.to_str().ok()))
    }

    /// Reads the values of `Accept-Encoding`. What cannot be understood is not accepted. Where a client
    /// has no preference, the better coding is taken.
    fn parse<'a>(values: impl Iterator<Item = &'a str>) -> Accepted {
        let [mut gzip, mut zstd, mut identity, mut other] = [None; 4];
        for item in values.flat_map(|value| value.split(',')) {
            let mut parts = item.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default().to_ascii_lowercase();
            let place = match name.as_str() {
                "gzip" | "x-gzip" => &mut gzip,
                "zstd" => &mut zstd,
                "identity" => &mut identity,
                "*" => &mut other,
                _ => continue,
            };
            *place = Some(parts.next().map_or(1.0, weight));
        }
        let weight_of = |named: Option<f64>| named.or(other).unwrap_or(0.0);
        let (gzip, zstd) = (weight_of(gzip), weight_of(zstd));
        let (coding, best) = if gzip > zstd { (Coding::Gzip, gzip) } else { (Coding::Zstd, zstd) };
        let preferred = best > 0.0 && best >= identity.unwrap_or(0.0);
        // As it is, an answer is welcome unless that is ruled out.
        let identity = identity.or(other.filter(|weight| *weight == 0.0)) != Some(0.0);
        Accepted { coding: preferred.then_some(coding), identity }
    }

    /// How an answer of so many bytes is sent, if that is known. It is not asked where nothing is accepted.
    fn choose(self, bytes: Option<u64>) -> Option<Coding> {
        let is_short = bytes.is_some_and(|bytes| bytes < LEAST_BYTES);
        self.coding.filter(|_| !(is_short && self.identity))
    }
}

/// The weight of `q=0.5`; 0 if it is none.
fn weight(parameter: &str) -> f64 {
    let number = parameter.strip_prefix("q=").or(parameter.strip_prefix("Q="));
    let weight = number.and_then(|number| number.trim().parse::<f64>().ok());
    weight.filter(|weight| (0.0..=1.0).contains(weight)).unwrap_or(0.0)
}

/// Compresses what is worth it, for who asks for it.
pub async fn compress(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let accepted = Accepted::of(request.headers());
    if accepted.coding.is_none() && !accepted.identity {
        let text = "Accept-Encoding leaves nothing that this server can send: zstd, gzip or identity\n";
        return edge::text(StatusCode::NOT_ACCEPTABLE, text);
    }
    let mut response = next.run(request).await;
    let bytes = HttpBody::size_hint(response.body()).exact();
    // Nothing, as after a write.
    if bytes == Some(0) {
        return response;
    }
    response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    let Some(coding) = accepted.choose(bytes) else { return response };
    let memory = app.memory.reservation(Part::Queries);
    if let Err(refused) = memory.grow(ENCODER_BYTES) {
        if accepted.identity {
            return response;
        }
        let text = format!("not enough memory to compress the answer; {refused}");
        return ApiError::new(ErrorKind::Unavailable, text).into_response();
    }
    let encoder = match Encoder::new(coding) {
        Ok(encoder) => encoder,
        Err(error) => return ApiError::internal(error).into_response(),
    };
    let (mut head, inner) = response.into_parts();
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    let body = Compressed {
        inner,
        encoder: Some(encoder),
        input: Bytes::new(),
        turns: Turns::default(),
        _memory: memory,
    };
    Response::from_parts(head, Body::new(body))
}

/// An encoder, and what it gave that is not sent yet.
enum Encoder {
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Encoder {
    fn new(coding: Coding) -> io::Result<Encoder> {
        Ok(match coding {
            Coding::Gzip => Encoder::Gzip(GzEncoder::new(Vec::new(), flate2::Compression::fast())),
            Coding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1)?;
                encoder.window_log(ZSTD_WINDOW_LOG)?;
                Encoder::Zstd(encoder)
            }
        })
    }

    /// Takes in more; gives what it has if that is worth sending.
    fn add(&mut self, input: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let output = match self {
            Encoder::Gzip(encoder) => {
                encoder.write_all(input)?;
                encoder.get_mut()
            }
            Encoder::Zstd(encoder) => {
                encoder.write_all(input)?;
                encoder.get_mut()
            }
        };
        Ok((output.len() >= OUTPUT_BYTES).then(|| std::mem::take(output)))
    }

    /// All that is left.
    fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Encoder::Gzip(encoder) => encoder.finish(),
            Encoder::Zstd(encoder) => encoder.finish(),
        }
    }
}

/// A body as it is compressed.
struct Compressed {
    inner: Body,
    /// Gone at the end.
    encoder: Option<Encoder>,
    /// What came of the inner body and is not compressed yet.
    input: Bytes,
    turns: Turns,
    _memory: Reservation,
}

impl HttpBody for Compressed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let result = loop {
            let Some(encoder) = &mut this.encoder else { return Poll::Ready(None) };
            if this.input.is_empty() {
                match ready!(Pin::new(&mut this.inner).poll_frame(context)) {
                    Some(Ok(frame)) => this.input = frame.into_data().unwrap_or_default(),
                    Some(Err(error)) => break Err(error),
                    None => {
                        let last = this.encoder.take().map_or(Ok(Vec::new()), Encoder::finish);
                        break last.map_err(axum::Error::new);
                    }
                }
                continue;
            }
            ready!(this.turns.poll(context));
            let piece = this.input.split_to(this.input.len().min(PIECE_BYTES));
            match encoder.add(&piece) {
                Ok(None) => {}
                Ok(Some(output)) => break Ok(output),
                Err(error) => break Err(axum::Error::new(error)),
            }
        };
        if result.is_err() {
            this.encoder = None;
        }
        Poll::Ready(Some(result.map(|output| Frame::data(output.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.encoder.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::MemoryBudget;
    use http_body_util::BodyExt;
    use std::io::Read;

    #[test]
    fn a_client_gets_what_it_prefers_of_what_there_is() {
        use Coding::{Gzip, Zstd};
        for (values, coding, identity) in [
            (&[][..], None, true),
            (&[""], None, true),
            (&["gzip"], Some(Gzip), true),
            (&["GZIP;q=1.0"], Some(Gzip), true),
            (&["x-gzip"], Some(Gzip), true),
            (&["gzip, deflate, br, zstd"], Some(Zstd), true),
            (&["gzip", "zstd;q=0.9"], Some(Gzip), true),
            (&["zstd;q=0.5 , gzip;q=0.8"], Some(Gzip), true),
            (&["gzip ; q=0.3, zstd; q=0.4"], Some(Zstd), true),
            (&["*"], Some(Zstd), true),
            (&["zstd;q=0, *"], Some(Gzip), true),
            (&["*;q=0"], None, false),
            (&["gzip, *;q=0"], Some(Gzip), false),
            (&["identity, *;q=0"], None, true),
            (&["identity;q=0"], None, false),
            (&["identity;q=0, gzip"], Some(Gzip), false),
            (&["identity, gzip;q=0.5"], None, true),
            (&["identity;q=0.5, gzip;q=0.5"], Some(Gzip), true),
            (&["gzip;q=0"], None, true),
            (&["br, deflate"], None, true),
            (&["gzip;q=2, zstd;q=x, identity;level=1"], None, false),
        ] {
            let accepted = Accepted::parse(values.iter().copied());
            assert_eq!(accepted, Accepted { coding, identity }, "{values:?}");
        }
    }

    #[test]
    fn short_answers_are_compressed_only_for_who_takes_nothing_else() {
        let of = |value| Accepted::parse([value].into_iter());
        assert_eq!(of("gzip").choose(Some(LEAST_BYTES)), Some(Coding::Gzip));
        assert_eq!(of("gzip").choose(None), Some(Coding::Gzip));
        assert_eq!(of("gzip").choose(Some(LEAST_BYTES - 1)), None);
        assert_eq!(of("gzip, identity;q=0").choose(Some(1)), Some(Coding::Gzip));
        assert_eq!(of("br").choose(None), None);
    }

    #[tokio::test]
    async fn a_body_is_compressed_piece_by_piece() {
        let line = |i: usize| format!("[{}.120,\"{}\"],", 1_700_000_000 + i, i * i % 977);
        let text: String = (0..200_000).map(line).collect();
        for coding in [Coding::Gzip, Coding::Zstd] {
            let budget = MemoryBudget::unlimited();
            let mut body = Compressed {
                inner: Body::from(text.clone()),
                encoder: Some(Encoder::new(coding).unwrap()),
                input: Bytes::new(),
                turns: Turns::default(),
                _memory: budget.reservation(Part::Queries),
            };
            let (mut sent, mut longest) = (Vec::new(), 0);
            while let Some(frame) = body.frame().await {
                let data = frame.unwrap().into_data().unwrap();
                longest = longest.max(data.len());
                sent.extend_from_slice(&data);
            }
            assert!(longest < 2 * PIECE_BYTES && sent.len() < text.len() / 3, "{longest} {}", sent.len());
            let mut read = String::new();
            match coding {
                Coding::Gzip => flate2::read::GzDecoder::new(&sent[..]).read_to_string(&mut read).unwrap(),
                Coding::Zstd => {
                    zstd::stream::read::Decoder::new(&sent[..]).unwrap().read_to_string(&mut read).unwrap()
                }
            };
            assert!(read == text);
        }
    }
}
