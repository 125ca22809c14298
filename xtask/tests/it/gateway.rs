//! Both ends of the gateway's benchmark, with nothing between them: what they report is what happened.

#[path = "../../examples/gateway/callers.rs"]
mod callers;
#[path = "../../examples/gateway/http.rs"]
mod http;
#[path = "../../examples/gateway/vendor.rs"]
mod vendor;

use callers::{Case, Contender, Plan, carry_out};
use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

fn contender(address: SocketAddr, path: &str) -> Contender {
    let pid = Some(std::process::id());
    Contender { address, path: path.to_owned(), token: "x".to_owned(), model: "bench".to_owned(), pid }
}

#[tokio::test]
async fn callers_count_and_time_all_that_comes_and_say_who_refuses() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(vendor::serve(listener));
    let cases = [
        (Case::Latency { rounds: 2, requests: 3 }, 6),
        (Case::Chunks { rounds: 2, chunks: 5, pause_ms: 1 }, 10),
        (Case::Throughput { connections: 3, warm_ms: 10, last_ms: 100 }, 0),
        (Case::Streams { streams: 20, chunks: 5, pause_ms: 50 }, 100),
    ];
    for (case, times) in cases {
        let contenders = vec![contender(address, "/v1/nothing"), contender(address, "/v1/chat/completions")];
        let seen = carry_out(Plan { contenders, case }).await;
        let [Err(refused), Ok(seen)] = &seen[..] else { panic!("{case:?}: {seen:?}") };
        assert!(refused.contains("404"), "{case:?}: {refused}");
        assert_eq!(seen.times_us.len(), times, "{case:?}");
        assert!(seen.peak_kib > Some(0), "{case:?}");
        match case {
            Case::Throughput { .. } => assert!(seen.requests > 0 && seen.wall_us >= 100_000 && seen.cpu_ms.is_some()),
            Case::Streams { streams, .. } => assert!((2..=streams).contains(&seen.at_once), "{} at once", seen.at_once),
            Case::Latency { .. } | Case::Chunks { .. } => {}
        }
    }
}

#[tokio::test]
async fn a_chunk_that_does_not_arrive_is_missed_even_if_its_text_is_repeated() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        let body = "data: {\"delta\":\"@1@\"}\n\ndata: {\"whole\":\"@1@@2@\"}\n\n";
        connection.read_exact(&mut [0; 100]).await.unwrap();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        connection.write_all((head + body).as_bytes()).await.unwrap();
        // What was not read would end the connection in disorder.
        let _ = connection.read_to_end(&mut Vec::new()).await;
    });
    let case = Case::Chunks { rounds: 1, chunks: 2, pause_ms: 0 };
    let seen = carry_out(Plan { contenders: vec![contender(address, "/")], case }).await;
    let error = seen[0].as_ref().unwrap_err();
    assert!(error.starts_with("1 of 2 chunks arrived"), "{error}");
}
