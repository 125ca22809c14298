//! The server: a thread of its own, so that synchronous tests and tests of the binary can use it as well.

use super::{
    Reply, Wire, check,
    prefix::{self, Remembered},
    render::{self, Rendered},
    reply::{Cut, Delivery, Kind},
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response, StatusCode,
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt, io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};
use tokio::{net::TcpListener, sync::oneshot, task::JoinSet};

const MAX_REQUEST_BYTES: usize = 64 * 1024 * 1024;
const BEFORE_A_CUT: Duration = Duration::from_millis(20);

/// One request as it arrived.
#[derive(Debug, Clone)]
pub struct Asked {
    pub wire: Wire,
    /// Counts from 0.
    pub number: usize,
    /// With its query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Value,
    /// The body's very bytes.
    pub bytes: Vec<u8>,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(held, _)| held == name).map(|(_, value)| value.as_str())
    }

    pub fn model(&self) -> &str {
        let path = self.path.split('?').next().unwrap_or_default();
        super::model_in(path).or_else(|| self.body["model"].as_str()).unwrap_or_default()
    }

    fn wants_stream(&self) -> bool {
        match self.wire {
            Wire::Gemini => self.path.contains(":streamGenerateContent"),
            Wire::Responses | Wire::Messages | Wire::Chat => self.body["stream"] == true,
        }
    }

    /// The last entry of the conversation (a message or an item), as JSON.
    pub fn last(&self) -> &Value {
        let list = match self.wire {
            Wire::Responses => &self.body["input"],
            Wire::Messages | Wire::Chat => &self.body["messages"],
            Wire::Gemini => &self.body["contents"],
        };
        list.as_array().and_then(|list| list.last()).unwrap_or(&Value::Null)
    }
}

type Script = Box<dyn FnMut(&Asked) -> Option<Reply> + Send>;

struct Shared {
    script: Script,
    /// Whether requests are checked as the real vendors check ours.
    is_strict: bool,
    asked: Vec<Asked>,
    violations: Vec<String>,
    memory: Vec<Remembered>,
    /// Connections on which something was asked.
    connections: usize,
}

/// A vendor on 127.0.0.1 that answers from a script and checks each request as the real ones do.
///
/// A request that a real vendor would refuse is refused with status 400. Dropping the fake panics if there was a
/// violation, unless the test is failing already.
pub struct FakeVendor {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl fmt::Debug for FakeVendor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeVendor").field("address", &self.address).finish_non_exhaustive()
    }
}

impl FakeVendor {
    /// Answers the first request with the first reply, and so on; a request too many is a violation.
    pub fn answering(replies: impl IntoIterator<Item = Reply>) -> Self {
        let mut replies = replies.into_iter().collect::<VecDeque<_>>();
        Self::start(true, Box::new(move |_| replies.pop_front()))
    }

    /// Answers each request with what the closure makes of it.
    pub fn with(mut script: impl FnMut(&Asked) -> Reply + Send + 'static) -> Self {
        Self::start(true, Box::new(move |asked| Some(script(asked))))
    }

    /// Answers programs that are not ours: they may ask for more than we ever do, and for an answer in one piece.
    pub fn for_others(mut script: impl FnMut(&Asked) -> Reply + Send + 'static) -> Self {
        Self::start(false, Box::new(move |asked| Some(script(asked))))
    }

    fn start(is_strict: bool, script: Script) -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port of this machine is free");
        listener.set_nonblocking(true).expect("a listener can be made non-blocking");
        let address = listener.local_addr().expect("a bound listener has an address");
        let shared =
            Shared { script, is_strict, asked: Vec::new(), violations: Vec::new(), memory: Vec::new(), connections: 0 };
        let shared = Arc::new(Mutex::new(shared));
        let (stop, stopped) = oneshot::channel();
        let served = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime can be made");
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("the listener belongs to this runtime");
                tokio::select! {
                    _ = stopped => {}
                    () = accept(listener, served) => {}
                }
            });
        });
        Self { address, shared, stop: Some(stop), thread: Some(thread) }
    }

    /// The address without a path, which is what `ANTHROPIC_BASE_URL` and `GEMINI_BASE_URL` want.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The address with `/v1`, which is what `OPENAI_BASE_URL` wants.
    pub fn v1_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// The variables that make a program use this vendor over every wire, with keys that open nothing.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("OPENAI_API_KEY", "sk-fake-openai".to_owned()),
            ("OPENAI_BASE_URL", self.v1_url()),
            ("ANTHROPIC_API_KEY", "sk-fake-anthropic".to_owned()),
            ("ANTHROPIC_BASE_URL", self.url()),
            ("GEMINI_API_KEY", "fake-gemini-key".to_owned()),
            ("GEMINI_BASE_URL", self.url()),
            ("OPENAI_COMPATIBLE_API_KEY", "sk-fake-compatible".to_owned()),
            ("OPENAI_COMPATIBLE_BASE_URL", self.v1_url()),
            ("OPENAI_COMPATIBLE_MODEL", "fake-model".to_owned()),
        ]
    }

    /// Returns what was asked so far, in order.
    pub fn requests(&self) -> Vec<Asked> {
        lock(&self.shared).asked.clone()
    }

    /// Returns how many connections carried requests.
    pub fn connections(&self) -> usize {
        lock(&self.shared).connections
    }

    /// Returns what was wrong with the requests.
    pub fn violations(&self) -> Vec<String> {
        lock(&self.shared).violations.clone()
    }

    /// Returns the violations and forgets them, for tests that provoke some.
    pub fn take_violations(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.shared).violations)
    }
}

impl Drop for FakeVendor {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        let ended = self.thread.take().map(thread::JoinHandle::join);
        if !thread::panicking() {
            assert!(!matches!(ended, Some(Err(_))), "the fake vendor's own thread panicked");
            let violations = self.violations();
            assert!(violations.is_empty(), "requests that a vendor would not like: {violations:#?}");
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, shared: Arc<Mutex<Shared>>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((connection, _)) = listener.accept().await else {
            continue;
        };
        let _ = connection.set_nodelay(true);
        let shared = Arc::clone(&shared);
        let counted = Arc::new(Mutex::new(false));
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let (shared, counted) = (Arc::clone(&shared), Arc::clone(&counted));
                async move {
                    if !std::mem::replace(&mut *counted.lock().unwrap_or_else(PoisonError::into_inner), true) {
                        lock(&shared).connections += 1;
                    }
                    Ok::<_, Infallible>(answer(request, &shared).await)
                }
            });
            // A client that hangs up, and a cut that was asked for, both end here as errors.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(connection), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

type Body = UnsyncBoxBody<Bytes, io::Error>;

async fn answer(request: Request<Incoming>, shared: &Mutex<Shared>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let Some(wire) = Wire::of_path(head.uri.path()) else {
        lock(shared).violations.push(format!("{} {} is nothing that a vendor offers", head.method, head.uri.path()));
        return plain(
            StatusCode::NOT_FOUND,
            "application/json",
            "{\"error\":{\"message\":\"no such path\"}}".to_owned(),
        );
    };
    let bytes = match Limited::new(body, MAX_REQUEST_BYTES).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return plain(StatusCode::BAD_REQUEST, "text/plain", error.to_string()),
    };
    let headers = head
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    let (asked, problems, reply) = {
        let mut shared = lock(shared);
        let path = head.uri.path_and_query().map_or_else(String::new, ToString::to_string);
        let number = shared.asked.len();
        let asked = Asked { wire, number, path, headers: headers.collect(), body, bytes: bytes.to_vec() };
        let (mut problems, mut broken_cache) = (Vec::new(), None);
        if shared.is_strict {
            problems = check_head(&asked, head.method.as_str());
            problems.extend(check::violations(wire, asked.model(), &asked.body));
            broken_cache = prefix::remember(&mut shared.memory, wire, &asked.body);
        }
        let reply = (shared.script)(&asked);
        if reply.is_none() {
            problems.push("there are more requests than replies".to_owned());
        }
        let place = format!("request {} over {wire:?}", asked.number);
        let worded = problems.iter().chain(&broken_cache).map(|problem| format!("{place}: {problem}"));
        shared.violations.extend(worded.collect::<Vec<_>>());
        shared.asked.push(asked.clone());
        (asked, problems, reply)
    };
    match reply {
        Some(reply) if problems.is_empty() => send(&asked, reply).await,
        _ => {
            let body = render::failure(wire, 400, "invalid_request_error", &problems.join("; "), None);
            plain(StatusCode::BAD_REQUEST, "application/json", body.to_string())
        }
    }
}

fn check_head(asked: &Asked, method: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let mut unless = |good: bool, problem: &str| {
        if !good {
            problems.push(problem.to_owned());
        }
    };
    unless(method == "POST", "the method is not POST");
    unless(asked.header("content-type") == Some("application/json"), "the body is not said to be JSON");
    let bearer = asked.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    let key = match asked.wire {
        Wire::Messages => asked.header("x-api-key").or(bearer),
        Wire::Gemini => asked.header("x-goog-api-key"),
        Wire::Responses | Wire::Chat => bearer,
    };
    unless(key.is_some_and(|key| !key.is_empty()), "there is no key");
    if asked.wire == Wire::Messages {
        unless(asked.header("anthropic-version") == Some("2023-06-01"), "anthropic-version is missing");
    }
    if asked.wire == Wire::Gemini {
        let query = asked.path.split_once('?').map_or("", |(_, query)| query);
        unless(query.split('&').any(|part| part == "alt=sse"), "events are not asked for (alt=sse)");
    }
    problems
}

async fn send(asked: &Asked, mut reply: Reply) -> Response<Body> {
    let headers = std::mem::take(&mut reply.delivery.headers);
    let mut response = play(asked, reply).await;
    for (name, value) in headers {
        let name: hyper::header::HeaderName = name.parse().expect("a reply's header has a name");
        response.headers_mut().insert(name, value.parse().expect("a reply's header has a value"));
    }
    response
}

async fn play(asked: &Asked, reply: Reply) -> Response<Body> {
    let Reply { kind, delivery } = reply;
    tokio::time::sleep(delivery.delay).await;
    let events = match kind {
        Kind::Answer { blocks, counts, stop } => {
            let rendered = Rendered { model: asked.model(), number: asked.number, blocks: &blocks, counts, stop };
            if !asked.wants_stream() {
                return plain(StatusCode::OK, "application/json", render::whole(asked.wire, &rendered).to_string());
            }
            render::answer(asked.wire, &rendered)
        }
        Kind::FailedStream { code, message } => render::failed_stream(asked.wire, asked.model(), &code, &message),
        Kind::Failure { status, code, message, retry_after } => {
            let body = render::failure(asked.wire, status, &code, &message, retry_after.as_deref()).to_string();
            let status = StatusCode::from_u16(status).expect("a reply's status is one of HTTP");
            let mut response = plain(status, "application/json", body);
            // Gemini says it in the body.
            if let Some(wait) = retry_after.filter(|_| asked.wire != Wire::Gemini) {
                let wait = wait.parse().expect("a reply's retry-after fits into a header");
                response.headers_mut().insert("retry-after", wait);
            }
            return response;
        }
        Kind::Page { content_type, body } => return plain(StatusCode::OK, &content_type, body),
    };
    let chunks = chunks_of(events, &delivery);
    let pause = delivery.pause;
    let frames = stream::iter(chunks).enumerate().then(move |(number, chunk)| async move {
        // What comes before a cut must be on its way, or the client would see no answer at all.
        let pause = if chunk.is_err() { pause.max(BEFORE_A_CUT) } else { pause };
        if (number > 0 || chunk.is_err()) && pause > Duration::ZERO {
            tokio::time::sleep(pause).await;
        }
        chunk.map(Frame::data)
    });
    response(StatusCode::OK, "text/event-stream; charset=utf-8", StreamBody::new(frames.boxed()).boxed_unsync())
}

/// Cuts a stream as the reply wants it to arrive.
fn chunks_of(events: Vec<String>, delivery: &Delivery) -> Vec<io::Result<Bytes>> {
    let whole = events.concat().into_bytes();
    let kept = delivery.cut.map_or(whole.len(), |cut| cut.after_bytes.min(whole.len()));
    let mut borders = match delivery.chunk {
        Some(size) => (size..kept).step_by(size).collect::<Vec<_>>(),
        None => events
            .iter()
            .scan(0, |end, event| {
                *end += event.len();
                Some(*end)
            })
            .take_while(|end| *end < kept)
            .collect(),
    };
    borders.push(kept);
    let mut start = 0;
    let mut chunks = Vec::new();
    for end in borders {
        if end > start {
            chunks.push(Ok(Bytes::copy_from_slice(&whole[start..end])));
        }
        start = end;
    }
    if let Some(Cut { cleanly: false, .. }) = delivery.cut {
        chunks.push(Err(io::Error::new(io::ErrorKind::ConnectionReset, "the script cuts here")));
    }
    chunks
}

fn plain(status: StatusCode, content_type: &str, body: String) -> Response<Body> {
    let body = Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed_unsync();
    response(status, content_type, body)
}

fn response(status: StatusCode, content_type: &str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let content_type = content_type.parse().expect("a reply's content type fits into a header");
    response.headers_mut().insert("content-type", content_type);
    response
}
