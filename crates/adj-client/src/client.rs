//! What a daemon is asked, and what it answers.

use crate::{
    connection::{self, Address, Answer},
    place::Place,
};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue},
};
use serde::Deserialize;
use serde_json::Value;
use std::{fmt, io, time::Duration};

const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no daemon listens at {address}")]
    NoDaemon { address: String },
    #[error("cannot reach the daemon at {address}")]
    NoConnection { address: String, source: io::Error },
    #[error("the daemon at {address} says nothing for {seconds} s")]
    Silent { address: String, seconds: u64 },
    #[error("the connection to the daemon at {address} broke")]
    Broken { address: String, source: hyper::Error },
    #[error("the daemon at {address} answers more than can be taken")]
    TooLarge { address: String },
    #[error("what answers at {address} is no daemon of ours: {problem}")]
    NotADaemon { address: String, problem: String },
    /// The daemon's own refusal, in its own words.
    #[error("{message}")]
    Refused { status: u16, kind: String, message: String, request_id: String },
    #[error("{url:?} is no address of a daemon: http://HOST:PORT is expected")]
    Url { url: String },
    #[error("a token is printable ASCII")]
    Token,
}

/// A way to a daemon. Each request takes a connection of its own.
#[derive(Clone)]
pub struct Client {
    address: Address,
    token: Option<HeaderValue>,
    patience: Duration,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.address)
    }
}

#[derive(Deserialize)]
struct Envelope {
    error: Said,
    #[serde(default)]
    request_id: String,
}

#[derive(Deserialize)]
struct Said {
    #[serde(rename = "type")]
    kind: String,
    message: String,
}

impl Client {
    /// The way to the daemon of this place, over its socket; nothing is connected yet.
    pub fn new(place: &Place) -> Self {
        Self { address: Address::Unix(place.socket()), token: None, patience: PATIENCE }
    }

    /// The way to a daemon that listens on an address, with a token of its.
    pub fn http(url: &str, token: &str) -> Result<Self, ClientError> {
        let wrong = || ClientError::Url { url: url.chars().take(200).collect() };
        let authority = url.strip_prefix("http://").ok_or_else(wrong)?;
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
        if authority.is_empty() || !authority.bytes().all(is_plain) {
            return Err(wrong());
        }
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let authority = if has_port { authority.to_owned() } else { format!("{authority}:80") };
        let mut token = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| ClientError::Token)?;
        token.set_sensitive(true);
        Ok(Self { address: Address::Http(authority), token: Some(token), patience: PATIENCE })
    }

    /// Waits at most so long for the head of an answer, and for each piece of its body.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    pub async fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.document(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.document(Method::POST, path, Some(body)).await
    }

    /// Asks, and returns when the head of the answer is there; refusals are errors. `path` begins with a slash and is
    /// encoded as in a request line.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, ClientError> {
        let host = match &self.address {
            Address::Unix(_) => "localhost",
            Address::Http(authority) => authority,
        };
        let mut request = Request::builder().method(method).uri(path).header(HOST, host);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
        let request = request.body(Full::new(body)).map_err(|error| self.strange(error.to_string()))?;
        let answer = connection::send(&self.address, request, self.patience).await?;
        if answer.status.is_success() { Ok(answer) } else { Err(self.refusal(answer).await) }
    }

    async fn document(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, ClientError> {
        let answer = self.ask(method, path, body).await?;
        let bytes = answer.whole(self.patience).await?;
        serde_json::from_slice(&bytes).map_err(|error| self.strange(error.to_string()))
    }

    async fn refusal(&self, answer: Answer) -> ClientError {
        let status = answer.status.as_u16();
        let bytes = match answer.whole(self.patience).await {
            Ok(bytes) => bytes,
            Err(error) => return error,
        };
        match serde_json::from_slice(&bytes) {
            Ok(Envelope { error: Said { kind, message }, request_id }) => {
                ClientError::Refused { status, kind, message, request_id }
            }
            Err(_) => self.strange(format!("status {status} without a reason")),
        }
    }

    fn strange(&self, problem: String) -> ClientError {
        ClientError::NotADaemon { address: self.address.to_string(), problem }
    }
}
