//! Bodies of requests: read whole within bounds, and looked at once before anybody parses them.

use crate::server::Bounds;
use adj_wire::{ApiError, ErrorKind};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout, timeout_at},
};

/// Memory for bodies is given out in pieces of this size.
const PIECE: usize = 64 * 1024;
/// How much of a body that is refused is read and thrown away, so that its sender gets to read why.
const THROWN_AWAY_BYTES: usize = 256 * 1024 * 1024;
const THROWING_AWAY: Duration = Duration::from_secs(3);
/// Lists and objects within each other. Parsers call themselves for each, and nothing real goes nearly as deep.
const DEEPEST: usize = 100;

/// The memory that all bodies share, and how long they may take.
#[derive(Debug)]
pub(crate) struct Room {
    pieces: Arc<Semaphore>,
    largest: usize,
    pause: Duration,
    whole: Duration,
}

/// A body that was read; its memory is given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

impl Room {
    pub(crate) fn new(bounds: &Bounds) -> Self {
        // A body of the largest size must fit, or it would wait for ever.
        let pieces = bounds.bodies_bytes.max(bounds.body_bytes).div_ceil(PIECE);
        Self {
            pieces: Arc::new(Semaphore::new(pieces)),
            largest: bounds.body_bytes,
            pause: bounds.pause,
            whole: bounds.whole_body,
        }
    }

    /// Reads a whole body. A refused one is handed back, because its rest is still under way.
    pub(crate) async fn read(&self, mut body: Incoming) -> Result<Held, (ApiError, Incoming)> {
        let announced = body.size_hint().lower();
        if announced > self.largest as u64 {
            return Err((self.too_large(), body));
        }
        let pieces = (announced as usize).div_ceil(PIECE).max(1);
        let waited = timeout(self.pause, Arc::clone(&self.pieces).acquire_many_owned(pieces as u32)).await;
        let Ok(Ok(mut room)) = waited else {
            return Err((no_room(), body));
        };
        let deadline = Instant::now() + self.whole;
        let mut bytes = BytesMut::with_capacity(announced as usize);
        loop {
            let next = deadline.min(Instant::now() + self.pause);
            let frame = match timeout_at(next, body.frame()).await {
                Err(_) if next == deadline => {
                    let message = format!("the request's body took longer than {} s", self.whole.as_secs_f64());
                    return Err((ApiError::invalid(message), body));
                }
                Err(_) => {
                    let message = format!("the request's body stood still for {} s", self.pause.as_secs_f64());
                    return Err((ApiError::invalid(message), body));
                }
                Ok(None) => return Ok(Held { bytes: bytes.freeze(), _room: room }),
                Ok(Some(Err(error))) => {
                    return Err((ApiError::invalid(format!("the request's body broke off: {error}")), body));
                }
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > self.largest {
                return Err((self.too_large(), body));
            }
            // Nobody who holds memory waits for more of it.
            while bytes.len() + data.len() > room.num_permits() * PIECE {
                match Arc::clone(&self.pieces).try_acquire_owned() {
                    Ok(more) => room.merge(more),
                    Err(_) => return Err((no_room(), body)),
                }
            }
            bytes.extend_from_slice(&data);
        }
    }

    fn too_large(&self) -> ApiError {
        ApiError::new(ErrorKind::TooLarge, format!("the request's body is larger than {} bytes", self.largest))
    }
}

fn no_room() -> ApiError {
    ApiError::new(ErrorKind::Overloaded, "too many large requests at once").with_retry_after(Duration::from_secs(1))
}

/// Refuses what is within more lists and objects than any parser should be led into.
pub(crate) fn check_depth(bytes: &[u8]) -> Result<(), ApiError> {
    let (mut depth, mut in_text, mut is_escaped) = (0usize, false, false);
    for byte in bytes {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_text => is_escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => depth += 1,
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEEPEST {
            let message = format!("the request's body holds more than {DEEPEST} lists and objects within each other");
            return Err(ApiError::invalid(message));
        }
    }
    Ok(())
}

/// Reads for a while what the sender of a refused body is still sending: who writes without looking would otherwise find
/// a closed connection and no reason.
pub(crate) async fn throw_away(mut rest: Incoming) {
    let deadline = Instant::now() + THROWING_AWAY;
    let mut left = THROWN_AWAY_BYTES;
    while let Ok(Some(Ok(frame))) = timeout_at(deadline, rest.frame()).await {
        match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
            Some(fewer) => left = fewer,
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_counted_outside_of_texts() {
        let nested = |count: usize| "[".repeat(count);
        let in_text = format!(r#"{{"a": "\"{}"}}"#, nested(500));
        let cases = [
            (nested(100), true),
            (nested(101), false),
            (in_text, true),
            (r#"[{}, {}]"#.repeat(500), true),
            (format!(r#"{{"a\\": {}"#, "{\"b\":[".repeat(50)), false),
            ("]]]]".to_owned() + &nested(101), false),
        ];
        for (text, expected) in cases {
            assert_eq!(check_depth(text.as_bytes()).is_ok(), expected, "{text}");
        }
    }
}
