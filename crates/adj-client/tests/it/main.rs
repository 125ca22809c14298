//! The client against a real server, against what is none, and against programs that should have become one.

use adj_client::{Client, ClientError, Place, Start, StartError};
use adj_server::{
    Access, Bounds, Call, Gauges, Holder, Parts, Reply, Routes, Seat, Server, Tokens,
    listen::{Door, UnixDoor},
};
use serde_json::json;
use std::{fs, path::Path, sync::Arc, time::Duration};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, UnixListener},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// A server in this folder, until it is told to stop.
fn serve(folder: &Path, stop: CancellationToken) -> JoinHandle<()> {
    let seat = Seat::take(folder, Holder::of_this_process("1")).expect("nobody is here");
    let door = UnixDoor::open(&seat).expect("the socket is free");
    let echo = |call: Call| async move { Ok(Reply::json(&json!({"said": call.json::<serde_json::Value>()?}))) };
    let routes = Routes::new().get("/healthz", Access::Anyone, echo).post("/echo", Access::Admin, echo).get(
        "/never",
        Access::Anyone,
        |_| std::future::pending(),
    );
    let (tokens, gauges) = (Tokens::new(folder), Arc::new(Gauges::default()));
    let bounds = Bounds { grace: Duration::from_millis(100), ..Bounds::default() };
    let server = Server::new(Parts { routes, tokens, hosts: Default::default(), bounds, gauges }, stop);
    tokio::spawn(async move {
        server.serve(vec![Door::Unix(door)]).await;
        drop(seat);
    })
}

fn sh(script: &str, patience: Duration) -> Start {
    let arguments = ["-c", script].map(Into::into).to_vec();
    Start { program: "/bin/sh".into(), arguments, environment: Vec::new(), patience }
}

#[tokio::test]
async fn a_daemon_is_asked_and_its_refusals_are_errors_in_its_own_words() {
    let home = tempfile::tempdir().expect("a scratch folder");
    // Longer than the kernel takes for a socket.
    let folder = home.path().join("d".repeat(120)).join("daemon");
    let place = Place::new(&folder);
    let client = Client::new(&place);
    assert!(matches!(client.get("/healthz").await, Err(ClientError::NoDaemon { .. })));
    assert_eq!((place.is_held(), place.holder()), (false, None));

    let stop = CancellationToken::new();
    let served = serve(&folder, stop.clone());
    assert_eq!(place.holder().map(|holder| holder.pid), Some(std::process::id()));
    let answer = client.post("/echo", &json!({"a": [1]})).await.expect("it answers");
    assert_eq!(answer, json!({"said": {"a": [1]}}));
    match client.get("/v1/nothing").await {
        Err(ClientError::Refused { status: 404, kind, message, request_id }) => {
            assert_eq!((kind.as_str(), message.as_str()), ("not_found_error", "there is nothing at GET /v1/nothing"));
            assert!(request_id.starts_with("req_"));
        }
        other => panic!("{other:?}"),
    }
    let hasty = client.clone().with_patience(Duration::from_millis(50));
    assert!(matches!(hasty.get("/never").await, Err(ClientError::Silent { .. })));
    let start = sh("exit 9", Duration::from_secs(5));
    Client::connect_or_start(&place, &start).await.expect("there is one already");

    stop.cancel();
    served.await.expect("it ends");
    assert!(!place.is_held());
    assert!(matches!(client.get("/healthz").await, Err(ClientError::NoDaemon { .. })));
}

#[tokio::test]
async fn what_is_no_daemon_is_told_apart_from_none() {
    let home = tempfile::tempdir().expect("a scratch folder");
    let place = Place::new(home.path());
    // What a killed process leaves.
    drop(UnixListener::bind(place.socket()).expect("a socket"));
    assert!(matches!(Client::new(&place).get("/healthz").await, Err(ClientError::NoDaemon { .. })));

    let page = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>";
    for (says, expected) in [(page, "no daemon of ours"), ("SSH-2.0-x\r\n", "broke"), ("", "broke")] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let url = format!("http://{}", listener.local_addr().expect("it has one"));
        let answering = tokio::spawn(async move {
            let (mut connection, _) = listener.accept().await.expect("somebody comes");
            let mut asked = [0; 4096];
            let _ = tokio::io::AsyncReadExt::read(&mut connection, &mut asked).await;
            connection.write_all(says.as_bytes()).await.expect("it can be written");
        });
        let client = Client::http(&url, "adj_token").expect("it is an address");
        assert!(!format!("{client:?}").contains("adj_token"));
        let error = client.get("/healthz").await.expect_err(says).to_string();
        assert!(error.contains(expected), "{says:?}: {error}");
        answering.await.expect("it ends");
    }
    for url in ["https://localhost:1", "localhost:1", "http://", "http://a/b", "http://a b", "http://u@h:1"] {
        assert!(matches!(Client::http(url, "t"), Err(ClientError::Url { .. })), "{url}");
    }
    assert!(matches!(Client::http("http://[::1]:1", "t\n"), Err(ClientError::Token)));
}

#[tokio::test]
async fn a_daemon_that_does_not_come_says_why() {
    let home = tempfile::tempdir().expect("a scratch folder");
    let place = Place::new(home.path().join("state/daemon"));
    let patience = Duration::from_secs(10);
    let start = sh("echo one >&2; echo two >&2; exit 3", patience);
    for _ in 0..2 {
        match Client::connect_or_start(&place, &start).await {
            Err(StartError::Ended { status, told }) => {
                assert_eq!((status.code(), told.as_str()), (Some(3), "one\ntwo"))
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(fs::read_to_string(place.log()).expect("there is a log"), "one\ntwo\none\ntwo\n");
    let start = sh("exec sleep 3", Duration::from_millis(200));
    assert!(matches!(Client::connect_or_start(&place, &start).await, Err(StartError::Silent { .. })));
    let missing = Start { program: home.path().join("missing"), ..sh("", patience) };
    assert!(matches!(Client::connect_or_start(&place, &missing).await, Err(StartError::Spawn(_))));
}

#[tokio::test]
async fn one_that_comes_late_is_waited_for() {
    let home = tempfile::tempdir().expect("a scratch folder");
    let folder = home.path().join("daemon");
    let place = Place::new(&folder);
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let late = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        serve(&folder, stopped).await.expect("it ends");
    });
    let start = sh("exec sleep 2", Duration::from_secs(10));
    Client::connect_or_start(&place, &start).await.expect("it comes");
    stop.cancel();
    late.await.expect("it ends");
}
