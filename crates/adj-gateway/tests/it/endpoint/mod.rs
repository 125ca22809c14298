//! The local endpoint through real sockets: a raw client on one side, a vendor on the other.

mod access;
mod along;
mod bad_input;
mod chat;
mod client;
mod gemini;
mod gemini_callers;
mod messages;
mod metering;
mod passing;
mod puppet;
mod responses;

use self::client::{Answer, ask};
use adj_domain::{ModelRef, Secret, SessionId};
use adj_gateway::{
    CancellationToken, Gateway, RetryPolicy,
    endpoint::{Bounds, Closing, Endpoint, Meter, Opening, Question, Refusal, RefusalKind, Route, Tokens},
};
use adj_providers::{HttpProvider, Timeouts, WireKind, http::Credentials};
use adj_testkit::{Reply, TokenCounts};
use async_trait::async_trait;
use serde_json::Value;
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{net::TcpListener, task::JoinHandle, time::Instant};

/// The key that the vendor is shown; nobody else may see it.
pub(crate) const KEY: &str = "sk-vendor-0123456789";

pub(crate) const WIRES: [WireKind; 3] = [WireKind::OpenAi, WireKind::Anthropic, WireKind::Chat];

pub(crate) fn path(wire: WireKind) -> &'static str {
    match wire {
        WireKind::OpenAi => "/v1/responses",
        WireKind::Anthropic => "/v1/messages",
        _ => "/v1/chat/completions",
    }
}

/// Keeps account in memory.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pub(crate) opened: Mutex<Vec<Opening>>,
    pub(crate) closed: Mutex<Vec<Closing>>,
    pub(crate) refuses: Mutex<bool>,
    pub(crate) delay: Duration,
}

#[async_trait]
impl Meter for Book {
    async fn open(&self, opening: Opening) -> Result<(), Refusal> {
        tokio::time::sleep(self.delay).await;
        if *self.refuses.lock().expect("nobody panics with the lock") {
            return Err(Refusal::new(RefusalKind::BudgetReached, "nothing is left of the budget of 5 USD"));
        }
        self.opened.lock().expect("nobody panics with the lock").push(opening);
        Ok(())
    }

    fn close(&self, closing: Closing) {
        self.closed.lock().expect("nobody panics with the lock").push(closing);
    }
}

/// Sends every request to one vendor; the model `other` has another name there.
#[derive(Debug)]
struct One;

impl Route for One {
    fn target(&self, question: Question<'_>) -> Result<ModelRef, Refusal> {
        let name = if question.model == "other" { "the \"real\" one" } else { question.model };
        Ok(ModelRef { vendor: "vendor".to_owned(), name: name.to_owned() })
    }

    fn models(&self, _session: &SessionId) -> Vec<String> {
        vec!["big".to_owned(), "vendor/small".to_owned()]
    }
}

/// Sends every request to one model.
#[derive(Debug)]
struct Always(ModelRef);

impl Route for Always {
    fn target(&self, _: Question<'_>) -> Result<ModelRef, Refusal> {
        Ok(self.0.clone())
    }

    fn models(&self, _: &SessionId) -> Vec<String> {
        Vec::new()
    }
}

/// An endpoint that serves one session.
pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) token: Secret,
    pub(crate) book: Arc<Book>,
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinHandle<()>,
}

/// An answer with everything in it: thoughts, a text, these calls.
pub(crate) fn reply_calling(calls: &[(&str, Value)]) -> Reply {
    let said = Reply::empty().and_reasoning("Let me see.").and_text("I run it.");
    let called = calls.iter().fold(said, |reply, (name, input)| reply.and_call(*name, input.clone()));
    called.using(TokenCounts { input: 1000, cached: 900, output: 50, reasoning: 20 })
}

pub(crate) fn session() -> SessionId {
    SessionId::derive(&["caller"])
}

impl Door {
    pub(crate) async fn to(wire: WireKind, vendor: &str) -> Self {
        Self::with(wire, vendor, Bounds::default(), Book::default()).await
    }

    pub(crate) async fn with(wire: WireKind, vendor: &str, bounds: Bounds, book: Book) -> Self {
        let gateway = Gateway::new(RetryPolicy::default()).with("vendor", Self::provider(wire, vendor));
        Self::before(gateway, None, bounds, book).await
    }

    /// A vendor that is shown [`KEY`].
    pub(crate) fn provider(wire: WireKind, vendor: &str) -> Arc<HttpProvider> {
        let key = Secret::parse("TEST", KEY.to_owned()).expect("the key is good");
        let credentials = match wire {
            WireKind::Anthropic | WireKind::Gemini => Credentials::ApiKey(key),
            _ => Credentials::Bearer(key),
        };
        let timeouts = Timeouts {
            connect: Duration::from_secs(5),
            first_byte: Duration::from_secs(3),
            between_chunks: Duration::from_secs(2),
            ..Timeouts::default()
        };
        let url = vendor.parse().expect("a vendor's address is a URL");
        Arc::new(HttpProvider::new(wire, url, credentials, timeouts))
    }

    /// A door to all of these vendors; everything goes to `model`, or else to the only one.
    pub(crate) async fn before(gateway: Gateway, model: Option<ModelRef>, bounds: Bounds, book: Book) -> Self {
        let tokens = Arc::new(Tokens::new().expect("there is randomness"));
        let until = Instant::now() + Duration::from_secs(600);
        let token = tokens.issue(session(), until).expect("there is randomness");
        let book = Arc::new(book);
        let route: Arc<dyn Route> = match model {
            Some(model) => Arc::new(Always(model)),
            None => Arc::new(One),
        };
        let endpoint = Endpoint::new(Arc::new(gateway), Arc::clone(&tokens), route, Arc::clone(&book) as _, bounds);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move { endpoint.serve(listener, stopped).await.expect("the door opens") });
        Self { address, tokens, token, book, stop, task }
    }

    /// Posts a body with the session's token, as a client of the wire would.
    pub(crate) async fn post(&self, wire: WireKind, body: &[u8]) -> Answer {
        ask(self.address, &self.request(wire, path(wire), body)).await
    }

    pub(crate) fn request(&self, wire: WireKind, path: &str, body: &[u8]) -> Vec<u8> {
        let token = self.token.expose();
        let credentials = match wire {
            WireKind::Anthropic => format!("x-api-key: {token}\r\nanthropic-version: 2023-06-01"),
            _ => format!("authorization: Bearer {token}"),
        };
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: door\r\n{credentials}\r\ncontent-type: application/json\r\n\
             accept-encoding: gzip\r\nx-own: kept\r\nx-adjutant-own: not\r\nuser-agent: test/1\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), body].concat()
    }

    /// Waits until every request that was opened is closed, and returns how they ended.
    pub(crate) async fn closed(&self) -> Vec<Closing> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let opened = self.book.opened.lock().expect("nobody panics with the lock").len();
            let closed = self.book.closed.lock().expect("nobody panics with the lock").clone();
            assert!(closed.len() <= opened, "a request was closed twice");
            if closed.len() == opened {
                return closed;
            }
            assert!(Instant::now() < deadline, "a request is not closed");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn opened(&self) -> Vec<Opening> {
        self.book.opened.lock().expect("nobody panics with the lock").clone()
    }
}
