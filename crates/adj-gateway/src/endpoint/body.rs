//! Bodies: those that are read, within bounds, and those that are sent.

use super::{Refusal, RefusalKind};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Response, StatusCode,
    body::{Body as _, Frame, Incoming},
    header::{CONTENT_TYPE, HeaderValue},
};
use serde_json::Value;
use std::{io, sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout, timeout_at},
};

pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Memory for bodies is given out in pieces of this size.
const PIECE: usize = 64 * 1024;
/// How much of a body that is refused is read and thrown away, so that its sender gets to read why.
const THROWN_AWAY_BYTES: usize = 256 * 1024 * 1024;
const THROWING_AWAY: Duration = Duration::from_secs(3);

/// The memory that all bodies share, and how long they may take.
#[derive(Debug)]
pub(super) struct Room {
    pieces: Arc<Semaphore>,
    largest: usize,
    pause: Duration,
}

/// A body that was read; its memory is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

impl Room {
    pub(super) fn new(all: usize, largest: usize, pause: Duration) -> Self {
        // A body of the largest size must fit, or it would wait for ever.
        Self { pieces: Arc::new(Semaphore::new(all.max(largest).div_ceil(PIECE))), largest, pause }
    }

    /// Reads a whole body. A refused one is handed back, because its rest is still under way.
    pub(super) async fn read(&self, mut body: Incoming) -> Result<Held, (Refusal, Incoming)> {
        let announced = body.size_hint().lower();
        if announced > self.largest as u64 {
            return Err((self.too_large(), body));
        }
        let pieces = (announced as usize).div_ceil(PIECE).max(1);
        let waited = timeout(self.pause, Arc::clone(&self.pieces).acquire_many_owned(pieces as u32)).await;
        let Ok(Ok(mut room)) = waited else {
            return Err((no_room(), body));
        };
        let mut bytes = BytesMut::with_capacity(announced as usize);
        loop {
            let frame = match timeout(self.pause, body.frame()).await {
                Err(_) => {
                    let message = format!("the request's body stood still for {} s", self.pause.as_secs_f64());
                    return Err((Refusal::new(RefusalKind::TooSlow, message), body));
                }
                Ok(None) => return Ok(Held { bytes: bytes.freeze(), _room: room }),
                Ok(Some(Err(error))) => {
                    return Err((Refusal::invalid(format!("the request's body broke off: {error}")), body));
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

    fn too_large(&self) -> Refusal {
        let message = format!("the request's body is larger than {} bytes", self.largest);
        Refusal::new(RefusalKind::TooLarge, message)
    }
}

fn no_room() -> Refusal {
    let message = "adjutant: too many large requests at once; try again in a moment";
    Refusal { retry_after: Some(Duration::from_secs(1)), ..Refusal::new(RefusalKind::Overloaded, message) }
}

pub(super) fn full(status: StatusCode, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response
}

pub(super) fn json(status: StatusCode, document: &Value) -> Response<Body> {
    let mut response = full(status, document.to_string());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

pub(super) fn streaming(chunks: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Body {
    StreamBody::new(chunks.map(|chunk| chunk.map(Frame::data))).boxed_unsync()
}

/// Says a refusal at once, and goes on reading for a while what the caller is still sending: who writes without looking
/// would otherwise find a closed connection and no reason.
pub(super) fn while_throwing_away(response: Response<Body>, rest: Incoming) -> Response<Body> {
    let (mut head, said) = response.into_parts();
    head.headers.insert("connection", HeaderValue::from_static("close"));
    let thrown = stream::once(async move {
        throw_away(rest).await;
        Ok(Bytes::new())
    });
    let said = said.into_data_stream().chain(thrown);
    Response::from_parts(head, streaming(said))
}

async fn throw_away(mut rest: Incoming) {
    let deadline = Instant::now() + THROWING_AWAY;
    let mut left = THROWN_AWAY_BYTES;
    while let Ok(Some(Ok(frame))) = timeout_at(deadline, rest.frame()).await {
        match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
            Some(fewer) => left = fewer,
            None => return,
        }
    }
}
