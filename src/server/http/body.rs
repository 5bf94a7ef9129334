//! Reading a body: bounded in length and in time.

use axum::body::Body;
use http_body_util::BodyExt;
use std::time::Duration;
use tokio::time::timeout_at;

/// Why a body could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BodyError {
    /// It is longer than allowed.
    TooLarge,
    /// It took too long to arrive.
    TooSlow(Duration),
    /// The connection broke.
    Broken(String),
}

/// Reads `body` into `into`, whose former content is lost.
///
/// Of a body that is too long, some more is read and thrown away, so that a sender that writes
/// before it reads meets the answer and not a broken connection.
pub async fn read(
    mut body: Body,
    into: &mut Vec<u8>,
    limit: usize,
    timeout: Duration,
) -> Result<(), BodyError> {
    into.clear();
    let deadline = tokio::time::Instant::now() + timeout;
    let mut discarded = 0;
    loop {
        let frame = match timeout_at(deadline, body.frame()).await {
            Err(_) => return Err(BodyError::TooSlow(timeout)),
            Ok(None) => break,
            Ok(Some(Err(error))) => return Err(BodyError::Broken(error.to_string())),
            Ok(Some(Ok(frame))) => frame,
        };
        let Some(data) = frame.data_ref() else { continue };
        if discarded > 0 || data.len() > limit - into.len() {
            discarded += data.len();
            if discarded > limit {
                return Err(BodyError::TooLarge);
            }
            continue;
        }
        into.extend_from_slice(data);
    }
    if discarded > 0 { Err(BodyError::TooLarge) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_limit_is_exact() {
        let mut into = vec![1, 2, 3];
        let second = Duration::from_secs(1);
        assert_eq!(read(Body::from("four"), &mut into, 4, second).await, Ok(()));
        assert_eq!(into, b"four");
        assert_eq!(read(Body::from("fives"), &mut into, 4, second).await, Err(BodyError::TooLarge));
    }
}
