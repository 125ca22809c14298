//! Bodies that are too large, too deep, too slow, or not there; readers that do not read.

use super::{House, ask, client, kind};
use adj_server::Bounds;
use std::time::{Duration, Instant};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

fn small() -> Bounds {
    Bounds {
        body_bytes: 100_000,
        bodies_bytes: 200_000,
        pause: Duration::from_millis(300),
        whole_body: Duration::from_millis(900),
        ..Bounds::default()
    }
}

#[tokio::test]
async fn a_body_is_json_of_bounded_size_and_depth_and_may_be_empty() {
    let house = House::with(Bounds { pause: Duration::from_secs(10), ..small() }).await;
    let invalid = "400 invalid_request_error";
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let text = |length: usize| format!("\"{}\"", "x".repeat(length - 2));
    for (body, expected) in [
        (String::new(), "200"),
        ("{}".to_owned(), "200"),
        (nested(100), "200"),
        (nested(101), invalid),
        (nested(40_000), invalid),
        (text(100_000), "200"),
        (text(100_001), "413 request_too_large"),
        (text(5_000_000), "413 request_too_large"),
        ("{".to_owned(), invalid),
        ("\u{feff}{}".to_owned(), invalid),
    ] {
        let answer = house.call("POST /test/echo", &body).await;
        assert_eq!(kind(&answer), expected, "{} bytes: {}", body.len(), &body[..body.len().min(10)]);
    }
    assert_eq!(house.call("POST /test/echo", "").await.json()["document"], serde_json::json!({}));

    // The same without an announced length.
    let head = "POST /test/echo HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\nx-api-key: ";
    let chunk = format!("{:x}\r\n{}\r\n", 60_000, " ".repeat(60_000));
    for (chunks, expected) in [(1, "200"), (2, "413 request_too_large")] {
        let body = chunk.repeat(chunks) + "2\r\n{}\r\n0\r\n\r\n";
        let bytes = format!("{head}{}\r\n\r\n{body}", house.api.1.expose());
        assert_eq!(kind(&ask(house.address, bytes.as_bytes()).await), expected, "{chunks} chunks");
    }
    let zipped = house.request("POST /test/echo", &[("content-encoding", "gzip")], b"{}");
    assert_eq!(kind(&ask(house.address, &zipped).await), invalid);
}

#[tokio::test]
async fn who_sends_too_slowly_is_cut() {
    let house = House::with(small()).await;
    let bytes = house.request("POST /test/echo", &[], &[b' '; 1000]);
    // In the middle of the head: closed without a word.
    let mut connection = TcpStream::connect(house.address).await.expect("the door listens");
    connection.write_all(&bytes[..40]).await.expect("it can be written");
    let mut rest = Vec::new();
    let closed = timeout(client::PATIENCE, connection.read_to_end(&mut rest)).await;
    assert!(closed.is_ok() && !String::from_utf8_lossy(&rest).starts_with("HTTP/1.1 200"), "{rest:?}");
    // In the middle of the body, standing still, or a little at a time.
    for (step, pause, words) in [(0, 1000, "stood still"), (1, 50, "took longer")] {
        let mut connection = TcpStream::connect(house.address).await.expect("the door listens");
        let (begun, left) = bytes.split_at(bytes.len() - 900);
        connection.write_all(begun).await.expect("it can be written");
        let (mut reader, mut writer) = connection.into_split();
        let writing = async {
            for byte in left.chunks(1).take(step * 1000) {
                sleep(Duration::from_millis(pause)).await;
                if writer.write_all(byte).await.is_err() {
                    break;
                }
            }
            std::future::pending::<()>().await;
        };
        let answer = tokio::select! {
            answer = client::read(&mut reader) => answer,
            () = writing => unreachable!("it never ends"),
        };
        assert_eq!(kind(&answer), "400 invalid_request_error");
        assert!(answer.text().contains(words), "{}", answer.text());
        assert_eq!(answer.header("connection"), Some("close"));
    }
}

#[tokio::test]
async fn who_does_not_read_is_cut_and_gives_its_place_back() {
    let house = House::with(Bounds { connections: 2, ..small() }).await;
    let mut lazy = TcpStream::connect(house.address).await.expect("the door listens");
    lazy.write_all(&house.request("GET /test/flood", &[], b"")).await.expect("it can be written");
    let silent = TcpStream::connect(house.address).await.expect("the door listens");
    sleep(Duration::from_millis(50)).await;
    // Both places are taken now; the third waits until one of them is cut.
    let asked = Instant::now();
    assert_eq!(kind(&house.call("POST /test/echo", "").await), "200");
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    drop((lazy, silent));
}

#[tokio::test]
async fn a_mistake_of_ours_is_an_answer_too() {
    let house = House::open().await;
    assert_eq!(kind(&house.call("GET /test/panics", "").await), "500 api_error");
    assert_eq!(kind(&house.call("POST /test/echo", "").await), "200");
    let long = house.request("POST /test/echo", &[("x-long", &"x".repeat(200_000))], b"");
    assert_eq!(ask(house.address, &long).await.status, 431);
}
