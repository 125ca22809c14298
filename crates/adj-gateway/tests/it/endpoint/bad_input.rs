//! What callers should not send, and what it does not do to us.

use super::{Book, Door, WIRES, client, path, puppet::Puppet};
use adj_gateway::endpoint::Bounds;
use adj_providers::WireKind;
use std::time::{Duration, Instant};
use tokio::{io::AsyncWriteExt, net::TcpStream};

/// The most memory that this process ever had, in bytes.
fn peak_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("the kernel tells");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("the kernel tells");
    let kib: usize = line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("a number");
    kib * 1024
}

#[tokio::test]
async fn a_body_that_is_no_request_is_refused_before_anybody_is_asked() {
    let mut vendor = Puppet::playing(Vec::new()).await;
    for wire in WIRES {
        let door = Door::to(wire, &vendor.url()).await;
        let cases: [(&[u8], &str); 8] = [
            (b"", "EOF"),
            (b"{\"model\":\"m\",\"x\":\"\xff\"}", "not UTF-8"),
            (b"{\"model\":\"m\",", "EOF"),
            (b"[]", "JSON object"),
            (b"{}", "names no model"),
            (b"{\"model\":null}", "is not a text"),
            (b"{\"model\":\"m\",\"model\":\"n\"}", "stands there twice"),
            (b"{\"model\":\"m\",\"stream\":\"yes\"}", "invalid type"),
        ];
        for (body, words) in cases {
            let answer = door.post(wire, body).await;
            assert_eq!(answer.status, 400, "{wire:?} {}", String::from_utf8_lossy(body));
            let message = answer.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
            assert!(message.contains(words), "{message}");
        }
        assert!(door.opened().is_empty());
    }
    assert!(vendor.was_left_alone());
}

/// Sends a head and then much more, a piece at a time; returns the answer, if there was one.
async fn flood(door: &Door, head: &str, piece: &[u8], times: usize) -> Option<client::Answer> {
    let mut connection = TcpStream::connect(door.address).await.expect("the door listens");
    connection.write_all(head.as_bytes()).await.expect("the door reads");
    for _ in 0..times {
        if connection.write_all(piece).await.is_err() {
            break;
        }
    }
    let mut first = [0; 1];
    match connection.peek(&mut first).await {
        Ok(1) => Some(client::read(&mut connection).await),
        _ => None,
    }
}

#[tokio::test]
async fn a_hundred_megabytes_are_refused_early_and_not_kept() {
    let door = Door::to(WireKind::Anthropic, "http://127.0.0.1:1").await;
    let before = peak_memory();
    let head = |rest: &str| {
        format!("POST /v1/messages HTTP/1.1\r\nhost: d\r\nx-api-key: {}\r\n{rest}\r\n\r\n", door.token.expose())
    };
    let mebibyte = vec![b'x'; 1 << 20];
    let answer = flood(&door, &head("content-length: 104857600"), &mebibyte, 100).await.expect("it is told why");
    assert_eq!(answer.status, 413, "{}", answer.text());
    assert_eq!(answer.json()["error"]["type"], "request_too_large");
    let after_announced = peak_memory();
    assert!(after_announced - before < 24 << 20, "{before} became {after_announced}");

    // A caller that asks first need not send at all.
    let started = Instant::now();
    let answer = flood(&door, &head("content-length: 104857600\r\nexpect: 100-continue"), b"", 0).await;
    assert_eq!(answer.expect("it is told why").status, 413);
    assert!(started.elapsed() < Duration::from_secs(1));

    let chunk = [b"100000\r\n".as_slice(), &mebibyte, b"\r\n"].concat();
    let answer = flood(&door, &head("transfer-encoding: chunked"), &chunk, 100).await.expect("it is told why");
    assert_eq!(answer.status, 413, "{}", answer.text());

    // Within the bound of a body, beyond the bound of memory: nothing grows further.
    assert!(peak_memory() - before < 200 << 20);

    let line = format!("x-large: {}\r\n", "y".repeat(8000));
    let answer = flood(&door, "POST /v1/messages HTTP/1.1\r\n", line.repeat(128).as_bytes(), 100).await;
    // The connection is closed while the caller still writes, so it may see no more than that.
    assert!(answer.is_none_or(|answer| answer.status == 431));
    let line = "POST /v1/messages HTTP/1.1\r\nhost: d\r\n".to_owned() + &line.repeat(9) + "\r\n";
    let answer = client::ask(door.address, line.as_bytes()).await;
    assert_eq!(answer.status, 431, "{}", answer.head);
    let many = "POST /v1/messages HTTP/1.1\r\n".to_owned() + &"a: b\r\n".repeat(200) + "\r\n";
    assert_eq!(client::ask(door.address, many.as_bytes()).await.status, 431);
    assert!(peak_memory() - before < 200 << 20);
}

#[tokio::test]
async fn all_bodies_together_have_a_bound_too() {
    let bounds =
        Bounds { body_bytes: 1 << 20, bodies_bytes: 2 << 20, pause: Duration::from_millis(700), ..Bounds::default() };
    let door = Door::with(WireKind::Chat, "http://127.0.0.1:1", bounds, Book::default()).await;
    let head = |length: usize| {
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: d\r\nauthorization: Bearer {}\r\ncontent-length: {length}\r\n\r\n",
            door.token.expose()
        )
    };
    let mut idle = Vec::new();
    for _ in 0..2 {
        let mut connection = TcpStream::connect(door.address).await.expect("the door listens");
        connection.write_all(head(1 << 20).as_bytes()).await.expect("the door reads");
        idle.push(connection);
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    // It waits for a while, and gets the place of those that do not go on.
    let started = Instant::now();
    let answer = client::ask(door.address, &[head(2).as_bytes(), b"{}"].concat()).await;
    assert!(matches!(answer.status, 400 | 503), "{}", answer.text());
    assert!(started.elapsed() >= Duration::from_millis(300));
    for mut connection in idle {
        let answer = client::read(&mut connection).await;
        assert_eq!(answer.status, 408, "{}", answer.text());
    }
    let answer = client::ask(door.address, &[head(2).as_bytes(), b"{}"].concat()).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_for_their_turn() {
    let bounds = Bounds { connections: 2, ..Bounds::default() };
    let door = Door::with(WireKind::Chat, "http://127.0.0.1:1", bounds, Book::default()).await;
    let first = TcpStream::connect(door.address).await.expect("the door listens");
    let _second = TcpStream::connect(door.address).await.expect("the door listens");
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut third = TcpStream::connect(door.address).await.expect("the kernel's queue takes it");
    let request = door.request(WireKind::Chat, path(WireKind::Chat), b"{}");
    third.write_all(&request).await.expect("the kernel's buffers take it");
    let mut byte = [0; 1];
    let waited = tokio::time::timeout(Duration::from_millis(200), third.peek(&mut byte)).await;
    assert!(waited.is_err(), "it was served beyond the bound");
    drop(first);
    assert_eq!(client::read(&mut third).await.status, 400);
}

#[tokio::test]
async fn a_compressed_body_is_refused_by_name() {
    let door = Door::to(WireKind::Chat, "http://127.0.0.1:1").await;
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: d\r\nauthorization: Bearer {}\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n{{}}",
        door.token.expose()
    );
    let answer = client::ask(door.address, request.as_bytes()).await;
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("content-encoding"), "{}", answer.text());
}
