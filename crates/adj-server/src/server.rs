//! The server: connections, their bounds, what each request goes through, and the end.

use crate::{
    body::{self, Room},
    connection::Patient,
    gate::{self, Caller, Way},
    listen::Door,
    reply::{Body, Reply},
    route::{self, Access, Call, Found, Handler, Routes},
    token::Tokens,
};
use adj_wire::{ApiError, ErrorKind};
use futures_util::FutureExt;
use hyper::{
    Request, Response,
    body::{Body as _, Incoming},
    header::{CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, EXPECT, HeaderValue},
    http::request::Parts as Head,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    io,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

/// How soon a stream ends whose token was revoked.
const SWEEP: Duration = Duration::from_secs(1);

/// How much callers may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// At one door at one time; who comes when all places are taken waits in the kernel's queue.
    pub connections: usize,
    pub head_bytes: usize,
    pub body_bytes: usize,
    /// All bodies together that are in memory at one time.
    pub bodies_bytes: usize,
    /// How long a caller may send nothing of a request that it has begun, or read nothing of its answer.
    pub pause: Duration,
    pub whole_body: Duration,
    /// How long requests under way may take when the server stops.
    pub grace: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self {
            connections: 12_000,
            head_bytes: 64 * 1024,
            body_bytes: 32 * MIB,
            bodies_bytes: 256 * MIB,
            pause: Duration::from_secs(60),
            whole_body: Duration::from_secs(600),
            grace: Duration::from_secs(10),
        }
    }
}

/// What is going on, for whoever asks.
#[derive(Debug, Default)]
pub struct Gauges {
    requests: AtomicU64,
    connections: AtomicU64,
}

impl Gauges {
    /// Requests since the start.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Connections that are open.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

/// What a server is made of.
#[derive(Debug)]
pub struct Parts {
    pub routes: Routes,
    pub tokens: Tokens,
    /// Names of this machine under which it may be asked, besides the loopback's.
    pub hosts: BTreeSet<String>,
    pub bounds: Bounds,
    pub gauges: Arc<Gauges>,
}

#[derive(Debug, Clone)]
pub struct Server {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    parts: Parts,
    room: Room,
    stop: CancellationToken,
}

impl Server {
    /// Stops when `stop` is cancelled.
    pub fn new(parts: Parts, stop: CancellationToken) -> Self {
        let room = Room::new(&parts.bounds);
        Self { inner: Arc::new(Inner { parts, room, stop }) }
    }

    /// Serves until it is told to stop. Then nobody comes in any more, requests under way may end, and what has not ended
    /// after the time of grace is cut.
    pub async fn serve(&self, doors: Vec<Door>) {
        let mut open = JoinSet::new();
        for door in doors {
            open.spawn(Arc::clone(&self.inner).keep(door));
        }
        let mut sweeps = interval(SWEEP);
        sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                closed = open.join_next() => match closed {
                    Some(Ok(())) => {}
                    Some(Err(error)) => tracing::error!("a listener failed: {error}"),
                    None => return,
                },
                _ = sweeps.tick() => self.inner.parts.tokens.sweep(),
            }
        }
    }
}

impl Inner {
    /// Takes connections at one door.
    async fn keep(self: Arc<Self>, door: Door) {
        let places = Arc::new(Semaphore::new(self.parts.bounds.connections));
        let mut connections = JoinSet::new();
        loop {
            let accepted = async {
                let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
                Ok::<_, io::Error>((accept(&door).await?, place))
            };
            let accepted = tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                Some(_) = connections.join_next() => continue,
                accepted = accepted => accepted,
            };
            match accepted {
                Ok(((stream, way), place)) => {
                    let inner = Arc::clone(&self);
                    connections.spawn(async move {
                        inner.parts.gauges.connections.fetch_add(1, Ordering::Relaxed);
                        match stream {
                            Stream::Unix(stream) => inner.serve(stream, way).await,
                            Stream::Tcp(stream) => inner.serve(stream, way).await,
                        }
                        inner.parts.gauges.connections.fetch_sub(1, Ordering::Relaxed);
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!("cannot take a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        drop(door);
        let ending = async { while connections.join_next().await.is_some() {} };
        if timeout(self.parts.bounds.grace, ending).await.is_err() {
            tracing::warn!("{} still open at the end of the time of grace: cut", connections.len());
            connections.shutdown().await;
        }
    }

    async fn serve(self: &Arc<Self>, stream: impl AsyncRead + AsyncWrite + Unpin, way: Way) {
        let service = service_fn(|request| {
            let inner = Arc::clone(self);
            async move { Ok::<_, Infallible>(inner.answer(request, way).await) }
        });
        let bounds = &self.parts.bounds;
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(bounds.pause)
            .max_buf_size(bounds.head_bytes)
            .serve_connection(TokioIo::new(Patient::new(stream, bounds.pause)), service);
        let mut connection = pin!(connection);
        let served = tokio::select! {
            served = connection.as_mut() => served,
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = served {
            tracing::debug!("a connection ended early: {error}");
        }
    }

    async fn answer(&self, request: Request<Incoming>, way: Way) -> Response<Body> {
        let started = Instant::now();
        self.parts.gauges.requests.fetch_add(1, Ordering::Relaxed);
        let request_id = request_id();
        let (head, body) = request.into_parts();
        let unrevoked = CancellationToken::new();
        let mut response = match self.begin(&head, body, way, &request_id).await {
            Ok((reply, caller)) => {
                let revoked = caller.map_or(unrevoked, |caller| caller.revoked);
                reply.into_response(&request_id, &revoked)
            }
            Err((error, rest)) => {
                let mut response = Reply::of_error(&error, &request_id).into_response(&request_id, &unrevoked);
                if let Some(rest) = rest.filter(|rest| !rest.is_end_stream()) {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                    // Who waits to be asked for the body sends none. This ends by itself, soon, or with the connection.
                    if !head.headers.contains_key(EXPECT) {
                        tokio::spawn(body::throw_away(rest));
                    }
                }
                if error.kind == ErrorKind::Permission || error.kind == ErrorKind::Internal {
                    tracing::warn!("{request_id} {} {}: {error}", head.method, head.uri.path());
                }
                response
            }
        };
        // No page is made of this, and none shows it.
        let nothing = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
        response.headers_mut().insert(CONTENT_SECURITY_POLICY, nothing);
        tracing::debug!(
            "{request_id} {} {} {} {} ms",
            head.method,
            head.uri.path(),
            response.status().as_u16(),
            started.elapsed().as_millis()
        );
        response
    }

    /// Takes a request up to its answer. What is refused before its body was read comes back with it.
    async fn begin(
        &self,
        head: &Head,
        body: Incoming,
        way: Way,
        request_id: &str,
    ) -> Result<(Reply, Option<Caller>), (ApiError, Option<Incoming>)> {
        let Admitted { handler, params, caller } = match self.admit(head, way) {
            Ok(admitted) => admitted,
            Err(error) => return Err((error, Some(body))),
        };
        if head.headers.get("content-encoding").is_some_and(|coding| coding != "identity") {
            let error = ApiError::invalid("a compressed request (content-encoding) cannot be read");
            return Err((error, Some(body)));
        }
        // Its memory is given back when there is an answer.
        let held = self.room.read(body).await.map_err(|(error, rest)| (error, Some(rest)))?;
        if may_be_json(head) {
            body::check_depth(&held.bytes).map_err(|error| (error, None))?;
        }
        let call = Call {
            request_id: request_id.to_owned(),
            caller: caller.clone(),
            params,
            raw_query: head.uri.query().unwrap_or_default().to_owned(),
            headers: head.headers.clone(),
            body: held.bytes.clone(),
            stopping: self.stop.clone(),
        };
        match AssertUnwindSafe(handler(call)).catch_unwind().await {
            Ok(Ok(reply)) => Ok((reply, caller)),
            Ok(Err(error)) => Err((error, None)),
            Err(_) => {
                let message = "this failed, and it is our own mistake; the daemon's log says more";
                Err((ApiError::new(ErrorKind::Internal, message), None))
            }
        }
    }

    fn admit(&self, head: &Head, way: Way) -> Result<Admitted, ApiError> {
        gate::check_site(head, way, &self.parts.hosts)?;
        let path = head.uri.path();
        let found = self.parts.routes.find(&head.method, path);
        if let Found::Route(route, params) = &found
            && route.access == Access::Anyone
        {
            return Ok(Admitted { handler: Arc::clone(&route.handler), params: params.clone(), caller: None });
        }
        // Who may not come in learns nothing of what there is.
        let caller = gate::caller(head, way, &self.parts.tokens)?;
        match found {
            Found::Route(route, params) if route.access.is_for(caller.scope) => {
                Ok(Admitted { handler: Arc::clone(&route.handler), params, caller: Some(caller) })
            }
            Found::Route(route, _) => {
                let (needed, scope) = (route.access.word(), caller.scope);
                let message = format!("this needs a token of scope {needed}, and the one shown has scope {scope}");
                Err(ApiError::new(ErrorKind::Permission, message))
            }
            Found::OtherMethods(offered) => Err(route::wrong_method(&head.method, path, &offered)),
            Found::Nothing => Err(route::nothing(&head.method, path)),
        }
    }
}

/// A request that may be answered.
struct Admitted {
    handler: Handler,
    params: BTreeMap<&'static str, String>,
    caller: Option<Caller>,
}

enum Stream {
    Unix(tokio::net::UnixStream),
    Tcp(tokio::net::TcpStream),
}

async fn accept(door: &Door) -> io::Result<(Stream, Way)> {
    match door {
        Door::Unix(door) => {
            let (stream, _) = door.listener.accept().await?;
            let owner = rustix::process::geteuid().as_raw();
            let is_owner = stream.peer_cred().is_ok_and(|peer| peer.uid() == owner);
            Ok((Stream::Unix(stream), Way::Unix { is_owner }))
        }
        Door::Tcp(listener) => {
            let (stream, _) = listener.accept().await?;
            let _ = stream.set_nodelay(true);
            let local = stream.local_addr()?.ip();
            Ok((Stream::Tcp(stream), Way::Tcp { local }))
        }
    }
}

fn may_be_json(head: &Head) -> bool {
    let kind = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    // Who names no type, or the one that tools put there by themselves, sends JSON too.
    !kind.starts_with("multipart/") && !kind.starts_with("application/octet-stream")
}

fn request_id() -> String {
    let mut random = [0; 12];
    // Without randomness from the system an id is not unique, and a request is answered all the same.
    let _ = getrandom::fill(&mut random);
    let digits = random.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("req_{digits}")
}
