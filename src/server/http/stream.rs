//! Answers that are written piece by piece, as fast as their readers take them.
//!
//! All that can fail is done before the status is sent: a query is evaluated, what there is to say about
//! it is known, and the memory for what is under way is reserved. What is left to fail is the program
//! itself or the connection. Then the connection ends without the last chunk, which no client takes for
//! a whole answer.
//!
//! Pieces are written by the threads that serve connections, and no thread waits for a reader. Who goes
//! away drops the answer with all it holds.

use super::super::error::{ApiError, ErrorKind};
use super::edge::panic_text;
use crate::budget::Reservation;
use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// An answer is as long as this at least before it is sent in pieces: until then its length is known,
/// and it is sent with it.
pub const WHOLE_BYTES: usize = 256 << 10;
/// A piece: large beside what sending it costs, small beside a processor's cache.
pub const PIECE_BYTES: usize = 64 << 10;
/// What is under way of an answer in pieces: the piece, and what HTTP holds of it (hyper: 400 KiB).
const UNDER_WAY_BYTES: u64 = 512 << 10;
/// So many pieces are written before others have their turn on the thread: about a millisecond.
const PIECES_A_TURN: u32 = 8;

/// An answer that can be written piece by piece.
pub trait Text: Send + 'static {
    /// Adds the next of it to `out`, until that is `until` bytes long or somewhat more. Says whether there
    /// is more to come.
    fn write(&mut self, out: &mut Vec<u8>, until: usize) -> bool;
}

/// An answer that has begun: whole if it is short.
pub struct Begun {
    first: Vec<u8>,
    rest: Option<Box<dyn Text>>,
    memory: Arc<Reservation>,
}

/// Begins to write `text`, which lies in `memory`.
///
/// # Errors
/// There is no memory for it.
pub fn begin(mut text: impl Text, memory: Arc<Reservation>) -> Result<Begun, ApiError> {
    let mut first = Vec::new();
    let is_whole = !text.write(&mut first, WHOLE_BYTES);
    let bytes = first.capacity() as u64;
    memory.grow(bytes + if is_whole { 0 } else { UNDER_WAY_BYTES }).map_err(|refused| {
        ApiError::new(ErrorKind::Execution, format!("not enough memory for the answer; {refused}"))
    })?;
    let rest: Option<Box<dyn Text>> = if is_whole {
        drop(text);
        memory.shrink(memory.used().saturating_sub(bytes));
        None
    } else {
        Some(Box::new(text))
    };
    Ok(Begun { first, rest, memory })
}

impl Begun {
    /// What is sent. The memory is given back once it was.
    pub fn into_body(self) -> Body {
        match self.rest {
            Some(rest) => Body::new(Stream {
                first: self.first,
                rest: Some(rest),
                turns: Turns::default(),
                _memory: self.memory,
            }),
            None => Body::from(Bytes::from_owner(Held { bytes: self.first, _memory: self.memory })),
        }
    }
}

/// Bytes in memory that is reserved as long as they are there.
struct Held {
    bytes: Vec<u8>,
    _memory: Arc<Reservation>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// An answer in pieces.
struct Stream {
    first: Vec<u8>,
    rest: Option<Box<dyn Text>>,
    turns: Turns,
    _memory: Arc<Reservation>,
}

impl HttpBody for Stream {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if !self.first.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.first).into()))));
        }
        if self.rest.is_none() {
            return Poll::Ready(None);
        }
        ready!(self.turns.poll(context));
        let Some(mut rest) = self.rest.take() else { return Poll::Ready(None) };
        let written = catch_unwind(AssertUnwindSafe(move || {
            let mut piece = Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 16);
            let more = rest.write(&mut piece, PIECE_BYTES);
            (piece, more.then_some(rest))
        }));
        Poll::Ready(match written {
            Ok((piece, rest)) => {
                self.rest = rest;
                match (piece.is_empty(), self.rest.is_some()) {
                    (false, _) => Some(Ok(Frame::data(piece.into()))),
                    (true, false) => None,
                    // Else it would be taken for the whole.
                    (true, true) => Some(Err(io::Error::other("an answer is not written any further"))),
                }
            }
            Err(panic) => {
                let what = panic_text(&*panic);
                tracing::error!(
                    "an answer could not be written to its end, the connection is closed: {what}"
                );
                Some(Err(io::Error::other(what)))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_empty() && self.rest.is_none()
    }
}

/// Lets others on the same thread have their turn now and then.
#[derive(Debug, Default)]
pub struct Turns {
    pieces: u32,
}

impl Turns {
    /// To be asked before each piece; what is pending is polled again at once.
    pub fn poll(&mut self, context: &Context<'_>) -> Poll<()> {
        if self.pieces == PIECES_A_TURN {
            self.pieces = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.pieces += 1;
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::{MemoryBudget, Part, Share};
    use http_body_util::BodyExt;

    /// So many bytes, in writes of ten; panics after `faulty_at` of them.
    struct Tens {
        left: usize,
        faulty_at: usize,
    }

    impl Text for Tens {
        fn write(&mut self, out: &mut Vec<u8>, until: usize) -> bool {
            while self.left > 0 && out.len() < until {
                assert!(self.left != self.faulty_at, "broken");
                out.extend_from_slice(b"0123456789");
                self.left -= 10;
            }
            self.left > 0
        }
    }

    fn begun(bytes: usize, faulty_at: usize) -> (MemoryBudget, Begun) {
        let budget = MemoryBudget::new(100 << 20);
        let memory = Arc::new(budget.reservation(Part::Queries));
        memory.grow(10 << 20).unwrap();
        let begun = begin(Tens { left: bytes, faulty_at }, memory).unwrap();
        (budget, begun)
    }

    #[tokio::test]
    async fn a_short_answer_is_sent_whole_and_holds_no_more_than_itself() {
        let (budget, begun) = begun(100_000, 0);
        assert!(budget.status().reserved(Part::Queries) < 5 << 20);
        let body = begun.into_body();
        assert_eq!(HttpBody::size_hint(&body).exact(), Some(100_000));
        let sent = body.collect().await.unwrap().to_bytes();
        assert!(sent.len() == 100_000 && sent.chunks(10).all(|ten| ten == b"0123456789"));
        drop(sent);
        assert_eq!(budget.status().reserved(Part::Queries), 0);
    }

    #[tokio::test]
    async fn a_long_answer_is_written_as_it_is_read() {
        let (budget, begun) = begun(10_000_000, 0);
        let mut body = begun.into_body();
        assert_eq!(HttpBody::size_hint(&body).exact(), None);
        let (mut total, mut longest) = (0, 0);
        while let Some(frame) = body.frame().await {
            let length = frame.unwrap().into_data().unwrap().len();
            longest = if total == 0 { 0 } else { longest.max(length) };
            total += length;
            assert!(budget.status().reserved(Part::Queries) < 16 << 20, "the answer is not there as a whole");
        }
        assert_eq!(total, 10_000_000);
        assert!(longest < PIECE_BYTES + 10, "{longest}");
        drop(body);
        assert_eq!(budget.status().reserved(Part::Queries), 0);
    }

    #[test]
    fn what_a_short_text_holds_is_given_back_once() {
        struct Holding {
            _share: Share,
        }
        impl Text for Holding {
            fn write(&mut self, out: &mut Vec<u8>, _: usize) -> bool {
                out.extend_from_slice(b"short");
                false
            }
        }
        let memory = Arc::new(MemoryBudget::unlimited().reservation(Part::Queries));
        memory.grow(1000).unwrap();
        let mut share = Share::of(Some(&memory));
        share.resize(5000).unwrap();
        let begun = begin(Holding { _share: share }, memory.clone()).unwrap();
        assert_eq!(memory.used(), begun.first.capacity() as u64);
    }

    #[tokio::test]
    async fn who_goes_away_gives_everything_back() {
        let (budget, begun) = begun(10_000_000, 0);
        let mut body = begun.into_body();
        body.frame().await.unwrap().unwrap();
        assert!(budget.status().reserved(Part::Queries) >= 10 << 20);
        drop(body);
        assert_eq!(budget.status().reserved(Part::Queries), 0);
    }

    #[tokio::test]
    async fn a_fault_after_the_status_breaks_the_answer_off() {
        let (_, begun) = begun(1_000_000, 100_000);
        assert!(begun.into_body().collect().await.is_err());
    }

    #[test]
    fn an_answer_without_memory_is_refused_before_its_status() {
        let budget = MemoryBudget::new(1 << 20);
        let memory = Arc::new(budget.reservation(Part::Queries));
        let Err(error) = begin(Tens { left: 10_000_000, faulty_at: 0 }, memory) else {
            panic!("there is no memory for it")
        };
        assert!(error.message.contains("not enough memory for the answer"), "{}", error.message);
    }
}
