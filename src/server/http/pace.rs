//! Clients that do not read: how long a connection waits for one that takes too little of its answer.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

/// Who reads more slowly than this, on average, uses the patience up.
const LEAST_BYTES_A_SECOND: u64 = 32 << 10;

/// How long it is still waited for a client. Waiting uses it up; what the client takes brings it back, up to
/// where it began. So neither silence nor a byte now and then holds an answer for ever.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Patience {
    left: Duration,
    most: Duration,
}

impl Patience {
    fn new(most: Duration) -> Patience {
        Patience { left: most, most }
    }

    /// It was waited so long.
    fn waited(&mut self, time: Duration) {
        self.left = self.left.saturating_sub(time);
    }

    /// The client took so much.
    fn took(&mut self, bytes: usize) {
        let earned = Duration::from_secs_f64(bytes as f64 / LEAST_BYTES_A_SECOND as f64);
        self.left = (self.left + earned).min(self.most);
    }
}

/// A connection that ends where its client does not read.
pub struct Paced {
    stream: TcpStream,
    patience: Patience,
    /// Since when it is waited, and until when.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
    given_up: Arc<AtomicU64>,
}

impl Paced {
    /// Waits for `patience` at most; counts in `given_up` if that was in vain.
    pub fn new(stream: TcpStream, patience: Duration, given_up: Arc<AtomicU64>) -> Paced {
        Paced { stream, patience: Patience::new(patience), waiting: None, given_up }
    }

    /// Looks at what came of a write.
    fn pace(
        &mut self,
        written: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) => {
                if let Some((since, _)) = self.waiting.take() {
                    self.patience.waited(since.elapsed());
                }
                self.patience.took(bytes);
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                let (_, sleep) = self.waiting.get_or_insert_with(|| {
                    let now = Instant::now();
                    (now, Box::pin(sleep_until(now + self.patience.left)))
                });
                if sleep.as_mut().poll(context).is_ready() {
                    self.given_up.fetch_add(1, Ordering::Relaxed);
                    let why = "the client takes too little of its answer (--web.write-timeout)";
                    tracing::debug!("a connection is closed: {why}");
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)));
                }
            }
        }
        written
    }
}

impl AsyncRead for Paced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Paced {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.pace(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.pace(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_silence_nor_a_byte_now_and_then_is_waited_for_for_ever() {
        let second = Duration::from_secs(1);
        let left_after = |rounds: u32, waited, bytes| {
            let mut patience = Patience::new(30 * second);
            for _ in 0..rounds {
                patience.waited(waited);
                patience.took(bytes);
            }
            patience.left
        };
        assert_eq!(left_after(1, 40 * second, 0), Duration::ZERO);
        // A kilobyte a second.
        assert!(left_after(20, second, 1 << 10) < 11 * second);
        assert!(left_after(40, second, 1 << 10) < second);
        // Fast enough, and not waited for any longer by what it read before.
        assert!(left_after(1000, second, 40 << 10) >= 29 * second);
        assert_eq!(left_after(1, Duration::ZERO, 1 << 30), 30 * second);
    }
}
