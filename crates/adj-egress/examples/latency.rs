//! Measures what the door costs: requests on loopback, directly and through it.
//!
//! Run with `cargo run --release -p adj-egress --example latency`.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use adj_domain::{Destination, HostRule, Ruling, Verdict};
use adj_egress::{CertificateAuthority, Egress, EgressLimits, Judge, Judged, Resolve, Settings};
use async_trait::async_trait;
use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

const ROUNDS: usize = 2000;
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

struct Everything(HostRule);

#[async_trait]
impl Judge for Everything {
    async fn judge(&self, _: &Destination) -> Judged {
        Judged { ruling: Ruling::new(Verdict::Allow, "agent", "a.test"), rule: Some(self.0.clone()) }
    }
}

struct Loopback;

#[async_trait]
impl Resolve for Loopback {
    async fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        Ok(vec![IpAddr::from([127, 0, 0, 1])])
    }
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let upstream = serve().await?;
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let door = listener.local_addr()?;
    let rule: HostRule = format!("a.test:{}", upstream.port()).parse().map_err(io::Error::other)?;
    let rule = HostRule { private_addresses: vec!["127.0.0.1".to_owned()], ..rule };
    let settings = Settings {
        judge: Arc::new(Everything(rule)),
        credentials: Vec::new(),
        resolver: Arc::new(Loopback),
        limits: EgressLimits::default(),
        on_decision: Arc::new(|_| true),
        authority: CertificateAuthority::generate().map_err(io::Error::other)?,
        extra_roots: String::new(),
    };
    let egress = Egress::start(listener, settings).map_err(io::Error::other)?;

    let host = format!("a.test:{}", upstream.port());
    let plain = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let absolute = format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let connect = format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let (mut direct, mut http, mut tunnel, mut kept) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut stays = TcpStream::connect(door).await?;
    stays.set_nodelay(true)?;
    ask(&mut stays, &connect).await?;
    // By turns, so that whatever else the machine does falls on all alike.
    for _ in 0..ROUNDS {
        direct.push(once(upstream, &[&plain]).await?);
        http.push(once(door, &[&absolute]).await?);
        tunnel.push(once(door, &[&connect, &plain]).await?);
        let begun = Instant::now();
        ask(&mut stays, &plain).await?;
        kept.push(begun.elapsed());
    }
    let base = percentile(&mut direct, 50);
    for (name, times) in [
        ("direct, a new connection each", &mut direct),
        ("through the door, plain HTTP", &mut http),
        ("through the door, CONNECT", &mut tunnel),
        ("in a tunnel that stays", &mut kept),
    ] {
        let (p50, p99) = (percentile(times, 50), percentile(times, 99));
        let more = p50.as_secs_f64() * 1e3 - base.as_secs_f64() * 1e3;
        println!(
            "{name:32} p50 {:>7.3} ms  p99 {:>7.3} ms  {more:+.3} ms",
            p50.as_secs_f64() * 1e3,
            p99.as_secs_f64() * 1e3
        );
    }
    egress.stop().await;
    Ok(())
}

async fn once(to: SocketAddr, questions: &[&str]) -> io::Result<Duration> {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    for question in questions {
        ask(&mut stream, question).await?;
    }
    Ok(begun.elapsed())
}

/// Sends a question and reads an answer, which fits into one read on loopback or comes in two.
async fn ask(stream: &mut TcpStream, question: &str) -> io::Result<()> {
    stream.write_all(question.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"ok") && !answer.ends_with(b"established\r\n\r\n") {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// A host that answers every request with the same two bytes.
async fn serve() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut asked = Vec::new();
                while stream.read_buf(&mut asked).await.is_ok_and(|read| read > 0) {
                    if asked.ends_with(b"\r\n\r\n") {
                        asked.clear();
                        if stream.write_all(OK).await.is_err() {
                            break;
                        }
                    }
                }
            });
        }
    });
    Ok(address)
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort();
    times[(times.len() - 1) * percent / 100]
}
