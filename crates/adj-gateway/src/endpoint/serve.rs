//! The server: connections, their bounds, and what each request goes through.

use super::{
    Asks, Attribution, Meter, Opening, Question, Refusal, RefusalKind, Route, Tokens, Wire,
    body::{self, Body, Room},
    call::{Ask, Call, shown_tokens},
    inward,
    journey::Journey,
    meter::{Metered, Operation},
    models,
    splice::Top,
    token::Caller,
};
use crate::{Failover, Gateway};
use adj_domain::{BlobHash, EventId};
use hyper::{
    Request, Response, StatusCode, body::Incoming, http::request::Parts, server::conn::http1, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// What a request is taken to ask for at most, where its own words are not looked at. An estimate, for limits only.
pub(super) const MAX_OUTPUT_TOKENS: u64 = 16_384;

/// How much callers may ask of this door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub connections: usize,
    pub head_bytes: usize,
    pub body_bytes: usize,
    /// All bodies together that are in memory at one time.
    pub bodies_bytes: usize,
    /// More than this of an answer is not read along.
    pub tapped_bytes: usize,
    /// How long a caller may pause while it sends.
    pub pause: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self {
            connections: 1024,
            head_bytes: 64 * 1024,
            body_bytes: 64 * MIB,
            bodies_bytes: 256 * MIB,
            tapped_bytes: 32 * MIB,
            pause: Duration::from_secs(60),
        }
    }
}

/// The local door to every model, for agents that are not ours.
#[derive(Debug, Clone)]
pub struct Endpoint {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    gateway: Arc<Gateway>,
    tokens: Arc<Tokens>,
    route: Arc<dyn Route>,
    meter: Arc<dyn Meter>,
    bounds: Bounds,
    room: Room,
}

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("the models' endpoint must not be reachable from other machines, and {0} is")]
    NotLoopback(SocketAddr),
    #[error("cannot serve the models' endpoint")]
    Io(#[from] io::Error),
}

impl Endpoint {
    pub fn new(
        gateway: Arc<Gateway>,
        tokens: Arc<Tokens>,
        route: Arc<dyn Route>,
        meter: Arc<dyn Meter>,
        bounds: Bounds,
    ) -> Self {
        let room = Room::new(bounds.bodies_bytes, bounds.body_bytes, bounds.pause);
        Self { inner: Arc::new(Inner { gateway, tokens, route, meter, bounds, room }) }
    }

    /// Serves until it is told to stop; then every connection ends at once, and so does what the vendors were saying.
    pub async fn serve(&self, listener: TcpListener, stop: CancellationToken) -> Result<(), ServeError> {
        let address = listener.local_addr()?;
        if !address.ip().is_loopback() {
            return Err(ServeError::NotLoopback(address));
        }
        let free = Arc::new(Semaphore::new(self.inner.bounds.connections));
        let mut connections = JoinSet::new();
        loop {
            // Who comes when all places are taken waits in the kernel's queue.
            let accepted = async {
                let place = Arc::clone(&free).acquire_owned().await.map_err(io::Error::other)?;
                Ok::<_, io::Error>((listener.accept().await?.0, place))
            };
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(_) = connections.join_next() => continue,
                accepted = accepted => accepted,
            };
            let (connection, place) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!("cannot take a connection to the models' endpoint: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let _ = connection.set_nodelay(true);
            let inner = Arc::clone(&self.inner);
            connections.spawn(async move {
                let service = service_fn(|request| {
                    let inner = Arc::clone(&inner);
                    // What it took to begin an answer is not kept while the answer lasts.
                    async move { Ok::<_, Infallible>(Box::pin(inner.answer(request)).await) }
                });
                let served = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(inner.bounds.pause)
                    .max_buf_size(inner.bounds.head_bytes)
                    .serve_connection(TokioIo::new(connection), service)
                    .await;
                if let Err(error) = served {
                    tracing::debug!("a connection to the models' endpoint ended early: {error}");
                }
                drop(place);
            });
        }
        connections.shutdown().await;
        Ok(())
    }
}

impl Inner {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        match self.begin(&head, body).await {
            Ok(response) => response,
            Err((wire, refusal, rest)) => {
                let response = refusal.response(wire);
                let is_waiting = head.headers.contains_key("expect");
                match rest {
                    Some(rest) if !is_waiting && !hyper::body::Body::is_end_stream(&rest) => {
                        body::while_throwing_away(response, rest)
                    }
                    _ => response,
                }
            }
        }
    }

    /// Takes a request up to the point where its answer begins. What is refused before its body was read comes back with it.
    async fn begin(&self, head: &Parts, body: Incoming) -> Result<Response<Body>, (Wire, Refusal, Option<Incoming>)> {
        let call = match Call::of(head) {
            Ok(Call::Websocket) => return Ok(body::full(StatusCode::UPGRADE_REQUIRED, "")),
            Ok(call) => call,
            Err((wire, refusal)) => return Err((wire, refusal, Some(body))),
        };
        let wire = call.wire();
        // The connection stops reading near the bound; what came at one go may still be beyond it.
        let head_bytes = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>();
        if head_bytes + head.uri.path().len() > self.bounds.head_bytes {
            let message = format!("the request's head is larger than {} bytes", self.bounds.head_bytes);
            return Err((wire, Refusal::new(RefusalKind::HeadTooLarge, message), Some(body)));
        }
        let caller = match self.caller(head) {
            Some(caller) => caller,
            None => return Err((wire, unauthenticated(), Some(body))),
        };
        let ask = match call {
            Call::Ask(ask) => ask,
            Call::Models { wire, one } => {
                return Ok(models::answer(wire, &self.route.models(&caller.session), one.as_deref()));
            }
            Call::Websocket => return Ok(body::full(StatusCode::UPGRADE_REQUIRED, "")),
        };
        if head.headers.get("content-encoding").is_some_and(|coding| coding != "identity") {
            let refusal = Refusal::invalid("adjutant: a compressed request (content-encoding) cannot be read");
            return Err((wire, refusal, Some(body)));
        }
        let held = match self.room.read(body).await {
            Ok(held) => held,
            Err((refusal, rest)) => return Err((wire, refusal, Some(rest))),
        };
        self.ask(head, &ask, caller, held).await.map_err(|refusal| (wire, refusal, None))
    }

    /// Every token that is shown must be one and the same session's.
    fn caller(&self, head: &Parts) -> Option<Caller> {
        let mut found: Option<Caller> = None;
        for shown in shown_tokens(head) {
            match (self.tokens.check(&shown), &found) {
                (Some(caller), Some(other)) if caller.session != other.session => return None,
                (Some(caller), _) => found = Some(caller),
                // Clients send keys of their own besides; they mean nothing here, and go nowhere.
                (None, _) => {}
            }
        }
        found
    }

    async fn ask(&self, head: &Parts, ask: &Ask, caller: Caller, held: body::Held) -> Result<Response<Body>, Refusal> {
        let top = Top::read(&held.bytes)?;
        let asked_model = match &ask.in_path {
            Some(path) => path.model.as_str(),
            None => top.model.as_deref().unwrap_or_default(),
        };
        if asked_model.is_empty() || asked_model.len() > 500 {
            return Err(Refusal::invalid("the request names no model, or one with an impossible name"));
        }
        let question = Question { session: &caller.session, wire: ask.wire, model: asked_model };
        let model = self.route.target(question)?;
        let mut failover = self.gateway.failover(&model);
        if ask.operation == Operation::CountTokens {
            // Nobody else would count what this model does.
            failover = Arc::new(Failover::to(failover.targets[..1].to_vec()));
        }
        let request = EventId::from_random(random()?);
        let journey = Journey {
            gateway: &self.gateway,
            head,
            ask,
            top: &top,
            body: held,
            caller,
            asked_model,
            request: request.clone(),
            model: model.clone(),
            failover: Arc::clone(&failover),
            tapped_bytes: self.bounds.tapped_bytes,
        };
        if ask.operation == Operation::CountTokens && !journey.can_count()? {
            return Ok(inward::estimate(ask.wire, &journey.body.bytes));
        }
        let leg = journey.first()?;
        let opening = Opening {
            request,
            session: journey.caller.session.clone(),
            wire: ask.wire,
            operation: ask.operation,
            asked_model: asked_model.to_owned(),
            model,
            attribution: Attribution::of(&head.headers),
            request_bytes: journey.body.bytes.len() as u64,
            body_hash: BlobHash::of(&journey.body.bytes),
            asks: Asks::new(journey.body.bytes.clone()),
            converted: !leg.is_same(),
        };
        let metered = Metered::open(&self.meter, &self.gateway, &failover, opening).await?;
        Ok(journey.run(leg, metered).await)
    }
}

fn unauthenticated() -> Refusal {
    let message = "adjutant: this needs the token of a session, and what was shown is none that is in force";
    Refusal::new(RefusalKind::Unauthenticated, message)
}

fn random() -> Result<[u8; 20], Refusal> {
    let mut bytes = [0; 20];
    let lost = |error| Refusal::new(RefusalKind::Server, format!("adjutant: no randomness from the system: {error}"));
    getrandom::fill(&mut bytes).map_err(lost)?;
    Ok(bytes)
}
