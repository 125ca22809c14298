//! The server through real sockets: raw bytes on one side, a few routes of the test's own on the other.

mod access;
mod bodies;
mod client;
mod doors;
mod ending;
mod models;

use self::client::{Answer, ask, ask_unix};
use adj_domain::{Secret, Timestamp};
use adj_gateway::{CancellationToken, Gateway, RetryPolicy};
use adj_providers::{Playbook, Scripted};
use adj_server::{
    Access, Bounds, Call, Gauges, Holder, NewToken, Parts, Reply, Scope, Seat, Server, TokenFile, Tokens,
    admin::{self, Admin},
    listen::{self, Door, PlainHttp, UnixDoor},
    models as served,
};
use adj_wire::ApiError;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// A server with a door of each kind, in a folder of its own.
struct House {
    _home: TempDir,
    folder: PathBuf,
    address: SocketAddr,
    socket: PathBuf,
    api: (String, Secret),
    admin: Secret,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

fn holder() -> Holder {
    Holder::of_this_process("1")
}

/// Answers with what it was told.
async fn echo(call: Call) -> Result<Reply, ApiError> {
    let who = call.caller.as_ref().map(|caller| caller.scope);
    let length = call.body.len();
    let document: serde_json::Value = call.json()?;
    Ok(Reply::json(&serde_json::json!({"scope": who, "length": length, "document": document})))
}

/// Takes as long as the body says, in milliseconds.
async fn slow(call: Call) -> Result<Reply, ApiError> {
    tokio::time::sleep(Duration::from_millis(call.json()?)).await;
    Ok(Reply::json(&"late"))
}

/// Goes on until the server is told to stop, and then says goodbye.
async fn events(call: Call) -> Result<Reply, ApiError> {
    let ticks = stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        Some((Bytes::from_static(b": tick\n\n"), ()))
    });
    let goodbye = stream::once(async { Bytes::from_static(b"event: goodbye\n\n") });
    let chunks = ticks.take_until(call.stopping.cancelled_owned()).chain(goodbye);
    Ok(Reply::stream("text/event-stream", chunks))
}

/// More than any reader's buffers hold, for ever.
async fn flood(_: Call) -> Result<Reply, ApiError> {
    Ok(Reply::stream("text/plain", stream::repeat(Bytes::from_static(&[b'x'; 64 * 1024]))))
}

async fn panics(_: Call) -> Result<Reply, ApiError> {
    panic!("a mistake of ours")
}

impl House {
    async fn open() -> Self {
        Self::with(Bounds { pause: Duration::from_secs(10), ..Bounds::default() }).await
    }

    async fn with(bounds: Bounds) -> Self {
        let home = tempfile::tempdir().expect("a scratch folder");
        let folder = home.path().join("daemon");
        let seat = Seat::take(&folder, holder()).expect("nobody is here");
        let file = TokenFile::new(&folder);
        let token = |scope| {
            let new = NewToken { name: None, scope, expires_at: None };
            file.create(new, Timestamp::now()).expect("a token can be made")
        };
        let ((made, api), (_, admin_token)) = (token(Scope::Api), token(Scope::Admin));
        let unix = UnixDoor::open(&seat).expect("the socket is free");
        let tcp = listen::tcp(([127, 0, 0, 1], 0).into(), PlainHttp::LoopbackOnly).await.expect("a port is free");
        let (address, socket) = (tcp.local_addr().expect("it has one"), unix.path().to_owned());
        let (stop, gauges) = (CancellationToken::new(), Arc::new(Gauges::default()));
        let admin = Admin {
            holder: holder(),
            state: home.path().to_owned(),
            socket: socket.clone(),
            addresses: vec![format!("http://{address}")],
            grace: bounds.grace,
            gauges: Arc::clone(&gauges),
            stop: stop.clone(),
        };
        let playbook = Playbook::parse("rules:\n  - say: hello\n", "test").expect("it is one");
        let scripted = || Arc::new(Scripted::new(playbook.clone()));
        let gateway = Gateway::new(RetryPolicy::default()).with("anthropic", scripted()).with("own", scripted());
        let models =
            served::Models { gateway: Arc::new(gateway), default: Some("own/best".parse().expect("it is a model")) };
        let routes = admin::routes(Arc::new(admin))
            .and(served::routes(Arc::new(models)))
            .post("/test/echo", Access::Api, echo)
            .post("/test/slow", Access::Api, slow)
            .get("/test/events", Access::Api, events)
            .get("/test/flood", Access::Api, flood)
            .get("/test/panics", Access::Api, panics);
        let hosts = ["box.example".to_owned()].into();
        let server = Server::new(Parts { routes, tokens: Tokens::new(&folder), hosts, bounds, gauges }, stop.clone());
        let task = tokio::spawn(async move {
            server.serve(vec![Door::Tcp(tcp), Door::Unix(unix)]).await;
            drop(seat);
        });
        Self { _home: home, folder, address, socket, api: (made.id, api), admin: admin_token, stop, task }
    }

    /// Sends a request with the token of scope `api`.
    async fn call(&self, line: &str, body: &str) -> Answer {
        ask(self.address, &self.request(line, &[], body.as_bytes())).await
    }

    fn request(&self, line: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
        let token = format!("Bearer {}", self.api.1.expose());
        let own = [("host", "localhost"), ("authorization", token.as_str()), ("content-type", "application/json")];
        request(line, &[&own, headers].concat(), body)
    }
}

fn request(line: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!("{line} HTTP/1.1\r\n{headers}content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// `404 not_found_error`, or the status alone where it is no error.
fn kind(answer: &Answer) -> String {
    let id = answer.header("request-id").expect("every answer has an id");
    assert!(id.starts_with("req_") && id.len() == 28, "{id}");
    if answer.status < 400 {
        return answer.status.to_string();
    }
    let document = answer.json();
    assert_eq!((&document["type"], &document["request_id"]), (&"error".into(), &id.into()), "{document}");
    assert!(document["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{document}");
    format!("{} {}", answer.status, document["error"]["type"].as_str().expect("an error has a type"))
}
