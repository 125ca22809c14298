//! What a handler answers, and how it becomes a response.

use adj_wire::ApiError;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream::BoxStream};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Response, StatusCode,
    body::Frame,
    header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue},
};
use serde::Serialize;
use std::{convert::Infallible, fmt};
use tokio_util::sync::CancellationToken;

pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// An answer.
pub struct Reply {
    status: StatusCode,
    content_type: &'static str,
    headers: Vec<(HeaderName, HeaderValue)>,
    content: Content,
}

enum Content {
    Whole(Bytes),
    Stream(BoxStream<'static, Bytes>),
}

impl Reply {
    /// A document, with status 200.
    pub fn json(document: &impl Serialize) -> Self {
        let bytes = serde_json::to_vec(document).expect("what we answer has names for keys");
        Self {
            status: StatusCode::OK,
            content_type: "application/json",
            headers: Vec::new(),
            content: Content::Whole(bytes.into()),
        }
    }

    /// An answer that goes on for as long as the stream does. It is cut when its caller's token is revoked, and some time after the
    /// server began to stop: see [`crate::Call::stopping`].
    pub fn stream(content_type: &'static str, chunks: impl Stream<Item = Bytes> + Send + 'static) -> Self {
        let content = Content::Stream(chunks.boxed());
        Self { status: StatusCode::OK, content_type, headers: Vec::new(), content }
    }

    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(crate) fn of_error(error: &ApiError, request_id: &str) -> Self {
        let status = StatusCode::from_u16(error.status()).expect("an error's status is one");
        let mut reply = Self::json(&error.body(request_id)).with_status(status);
        for (name, value) in error.headers() {
            let value = HeaderValue::from_str(&value).expect("what an error says beside its words is plain");
            reply = reply.with_header(HeaderName::from_static(name), value);
        }
        reply
    }

    pub(crate) fn into_response(self, request_id: &str, revoked: &CancellationToken) -> Response<Body> {
        let body = match self.content {
            Content::Whole(bytes) => Full::new(bytes).boxed_unsync(),
            Content::Stream(chunks) => {
                let chunks = chunks.take_until(revoked.clone().cancelled_owned());
                StreamBody::new(chunks.map(|chunk| Ok(Frame::data(chunk)))).boxed_unsync()
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.extend(self.headers);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // Nothing of this is a page or a script, whatever an agent wrote into it.
        headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
        headers.insert("request-id", HeaderValue::from_str(request_id).expect("an id is letters and digits"));
        response
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reply({} {})", self.status.as_u16(), self.content_type)
    }
}
