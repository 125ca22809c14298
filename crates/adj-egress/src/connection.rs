//! Finds out what a client speaks, and serves it until it ends.

use crate::{
    Protocol,
    admit::Door,
    exchange::{Scene, answer, next_request},
    head::{HeadError, RequestHead},
    refusal::{Refusal, Stop},
    socks::{self, Introduction, Parsed, SocksError},
    target::{Authority, authority},
    tunnel,
    wire::Wire,
};
use adj_domain::host_name;
use tokio::net::TcpStream;

pub(crate) async fn serve(door: &Door, stream: TcpStream) {
    // Whoever it was has gone or was told; there is nobody else to tell.
    let _ = run(door, Wire::tcp(stream)).await;
}

async fn run(door: &Door, mut client: Wire) -> Result<(), Stop> {
    let first =
        client.incoming.until(door.limits.head_timeout, |bytes| Ok::<_, Stop>(bytes.first().copied())).await??;
    if first == 5 {
        return serve_socks(door, client).await;
    }
    // TLS to the door itself, the older SOCKS: nobody has to wait for the end of a line that never comes.
    if !first.is_ascii_graphic() {
        return tunnel::finish(door, client, Err(HeadError::StartLine.into())).await;
    }
    loop {
        let ended = match next_request(door, &mut client).await {
            Ok(Some(head)) if head.method == "CONNECT" => match tunnel_target(&head) {
                Ok(to) => return tunnel::connect(door, client, to, Protocol::HttpConnect).await,
                Err(refusal) => Err(refusal.into()),
            },
            Ok(Some(head)) => match answer(door, &mut client, head, Scene::Door).await {
                Ok(true) => continue,
                Ok(false) => Ok(()),
                Err(stop) => Err(stop),
            },
            Ok(None) => Ok(()),
            Err(stop) => Err(stop),
        };
        return tunnel::finish(door, client, ended).await;
    }
}

fn tunnel_target(head: &RequestHead) -> Result<Authority, Refusal> {
    let bad = |error: crate::target::TargetError| Refusal::new(400, error.to_string());
    if head.headers.has("Content-Length") || head.headers.has("Transfer-Encoding") {
        return Err(Refusal::new(400, "CONNECT has no body"));
    }
    let to = authority(&head.target, None).map_err(bad)?;
    let spelled = |host: &str| host_name(host).unwrap_or_else(|_| host.to_owned());
    if let Some(said) = head.headers.only("Host")? {
        let said = std::str::from_utf8(said).ok().and_then(|said| authority(said, Some(to.port)).ok());
        if !said.is_some_and(|said| said.port == to.port && spelled(&said.host) == spelled(&to.host)) {
            return Err(Refusal::new(400, "the Host header names another host"));
        }
    }
    Ok(to)
}

async fn serve_socks(door: &Door, mut client: Wire) -> Result<(), Stop> {
    let patience = door.limits.head_timeout;
    let greeting = client.incoming.until(patience, |bytes| whole(socks::parse_greeting(bytes))).await?;
    let Ok((introduction, length)) = greeting else {
        client.outgoing.send(&[5, 0xff], patience).await?;
        client.close().await;
        return Ok(());
    };
    let _ = client.incoming.buffer.split_to(length);
    match introduction {
        Introduction::None => client.outgoing.send(&[5, 0], patience).await?,
        Introduction::Password => {
            client.outgoing.send(&[5, 2], patience).await?;
            let password = client.incoming.until(patience, |bytes| whole(socks::parse_password(bytes))).await?;
            let Ok(((), length)) = password else {
                client.outgoing.send(&[1, 1], patience).await?;
                client.close().await;
                return Ok(());
            };
            let _ = client.incoming.buffer.split_to(length);
            client.outgoing.send(&[1, 0], patience).await?;
        }
    }
    let request = client.incoming.until(patience, |bytes| whole(socks::parse_request(bytes))).await?;
    match request {
        Ok((request, length)) => {
            let _ = client.incoming.buffer.split_to(length);
            let to = Authority { host: request.host, port: request.port };
            tunnel::connect(door, client, to, Protocol::Socks5).await
        }
        Err(error) => {
            let reply = match error {
                SocksError::Command => 7,
                SocksError::Kind => 8,
                _ => 1,
            };
            client.outgoing.send(&[5, reply, 0, 1, 0, 0, 0, 0, 0, 0], patience).await?;
            client.close().await;
            Ok(())
        }
    }
}

fn whole<T>(parsed: Result<Parsed<T>, SocksError>) -> Result<Option<(T, usize)>, SocksError> {
    Ok(match parsed? {
        Parsed::NeedsMore => None,
        Parsed::Done(found, length) => Some((found, length)),
    })
}
