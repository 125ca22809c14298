//! Makes tunnels for CONNECT and SOCKS5, and looks at the first bytes that go through them.

use crate::{
    Protocol,
    admit::{Admitted, Door},
    copy,
    exchange::{Scene, answer, next_request},
    hello::{Hello, read_hello, second_hello, server_retries},
    refusal::{Refusal, Stop},
    target::Authority,
    wire::Wire,
};
use adj_domain::{Destination, host_name};
use std::io;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// Tells a TLS client in its own language that it may not; anything else just ends.
const ACCESS_DENIED: [u8; 7] = [21, 3, 1, 0, 2, 2, 49];

pub(crate) async fn connect(door: &Door, mut client: Wire, to: Authority, protocol: Protocol) -> Result<(), Stop> {
    let refused = |client, refusal| refuse(door, client, refusal, protocol);
    let host = host_name(&to.host);
    let shown = || to.host.chars().take(100).collect();
    let port = to.port;
    let destination =
        Destination { host: host.as_ref().map_or_else(|_| shown(), String::clone), port, method: None, path: None };
    if let Err(error) = host {
        let refusal = door.refuse_because(&destination, protocol, error.to_string());
        return refused(client, refusal).await;
    }
    let admitted = match door.admit(&destination, protocol, Vec::new()).await {
        Ok(admitted) => admitted,
        Err(refusal) => return refused(client, refusal).await,
    };
    // Who looks at requests has nothing to say to the host before one comes.
    let looks_inside = admitted.opens_tls || admitted.is_narrowed || admitted.port == 80;
    let upstream = if looks_inside {
        None
    } else {
        match door.dial(&admitted).await {
            Ok(stream) => Some(Wire::tcp(stream)),
            Err(refusal) => return refused(client, refusal).await,
        }
    };
    let opened: &[u8] = match protocol {
        Protocol::Socks5 => &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0],
        _ => b"HTTP/1.1 200 Connection established\r\n\r\n",
    };
    client.outgoing.send(opened, door.limits.head_timeout).await?;

    let end = End { door, destination, protocol, admitted };
    match upstream {
        None => end.look_inside(client).await,
        Some(upstream) if end.admitted.port == 443 => end.check_hello(client, upstream).await,
        Some(upstream) => end.check_if_tls(client, upstream).await,
    }
}

/// Says no in the client's protocol.
async fn refuse(door: &Door, mut client: Wire, refusal: Refusal, protocol: Protocol) -> Result<(), Stop> {
    let answer = match protocol {
        Protocol::Socks5 => {
            let reply = match refusal.status {
                403 => 2,
                502 => 4,
                504 => 6,
                _ => 1,
            };
            vec![5, reply, 0, 1, 0, 0, 0, 0, 0, 0]
        }
        _ => refusal.answer(),
    };
    client.outgoing.send(&answer, door.limits.head_timeout).await?;
    client.close().await;
    Ok(())
}

struct End<'a> {
    door: &'a Door,
    destination: Destination,
    protocol: Protocol,
    admitted: Admitted,
}

impl End<'_> {
    /// Passes TLS for the right host, opened or not, and requests in the clear.
    async fn look_inside(self, mut client: Wire) -> Result<(), Stop> {
        let looks_like_tls = |bytes: &[u8]| Ok::<_, Stop>(bytes.first().map(|byte| *byte == 22));
        let is_tls = client.incoming.until(self.door.limits.head_timeout, looks_like_tls).await??;
        let port = self.admitted.port;
        if !is_tls {
            if port == 443 {
                return self.shut(client, "the first bytes are not TLS".to_owned()).await;
            }
            let scene = Scene::Tunnel { host: &self.admitted.host, port, is_tls: false };
            return serve(self.door, client, scene).await;
        }
        if self.admitted.opens_tls {
            return self.open(client).await;
        }
        if self.admitted.is_narrowed {
            let objection = "only some requests are permitted, and without `open_tls` they cannot be seen";
            return self.shut(client, objection.to_owned()).await;
        }
        let upstream = self.door.dial(&self.admitted).await;
        match upstream {
            Ok(upstream) => self.check_hello(client, Wire::tcp(upstream)).await,
            // The tunnel was promised already, so there is no answer left but its end.
            Err(refusal) => Err(io::Error::other(refusal.text).into()),
        }
    }

    /// Passes what is not TLS, whoever speaks first; TLS has to be for the right host.
    async fn check_if_tls(self, mut client: Wire, mut upstream: Wire) -> Result<(), Stop> {
        let idle = self.door.limits.idle_timeout;
        // A client in a hurry has spoken already.
        if client.incoming.buffer.is_empty() {
            tokio::select! {
                said = client.incoming.fill(idle) => said?,
                said = upstream.incoming.fill(idle) => said?,
            };
        }
        let upstream_was_first = !upstream.incoming.buffer.is_empty();
        if !upstream_was_first && client.incoming.buffer.first() == Some(&22) {
            return self.check_hello(client, upstream).await;
        }
        Ok(copy::both_ways(&mut client, &mut upstream, idle).await?)
    }

    /// Passes TLS on after its hello was seen to be for the right host, and no other is hidden in it.
    async fn check_hello(self, mut client: Wire, mut upstream: Wire) -> Result<(), Stop> {
        match self.pass_hello(&mut client, &mut upstream).await? {
            Ok(()) => Ok(copy::both_ways(&mut client, &mut upstream, self.door.limits.idle_timeout).await?),
            Err(objection) => {
                drop(upstream);
                self.shut(client, objection).await
            }
        }
    }

    async fn pass_hello(&self, client: &mut Wire, upstream: &mut Wire) -> Result<Result<(), String>, Stop> {
        let limits = &self.door.limits;
        let (hello, length) = match client.incoming.until(limits.head_timeout, read_hello).await? {
            Ok(found) => found,
            Err(error) => return Ok(Err(error.to_string())),
        };
        if let Err(objection) = self.agrees(&hello, true) {
            return Ok(Err(objection));
        }
        let first = client.incoming.buffer.split_to(length);
        upstream.outgoing.send(&first, limits.idle_timeout).await?;
        // A server may ask for a second hello, which could name another host than the first. Nothing else goes out
        // before it is known whether this one did.
        let retries = upstream.incoming.until(limits.head_timeout, server_retries).await?;
        let back = upstream.incoming.buffer.split();
        client.outgoing.send(&back, limits.idle_timeout).await?;
        match retries {
            Ok(false) => Ok(Ok(())),
            Ok(true) => match client.incoming.until(limits.head_timeout, second_hello).await? {
                Ok(hello) => Ok(self.agrees(&hello, true)),
                Err(error) => Ok(Err(format!("after a retry: {error}"))),
            },
            Err(error) => Ok(Err(format!("the server's side: {error}"))),
        }
    }

    /// Answers in the host's place, and serves the requests that come.
    async fn open(self, mut client: Wire) -> Result<(), Stop> {
        let limits = &self.door.limits;
        let (hello, _) = match client.incoming.until(limits.head_timeout, read_hello).await? {
            Ok(found) => found,
            Err(error) => return self.shut(client, error.to_string()).await,
        };
        // An inner hello is of no use to anybody here: we have no key for it.
        if let Err(objection) = self.agrees(&hello, false) {
            return self.shut(client, objection).await;
        }
        let config = self.door.authority.server_config(&self.admitted.host, &self.door.provider);
        let config = config.map_err(io::Error::other)?;
        let accepting = TlsAcceptor::from(config).accept(client.into_stream());
        let stream =
            timeout(limits.head_timeout, accepting).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let name = stream.get_ref().1.server_name().map(host_name);
        if !matches!(name, Some(Ok(name)) if name == self.admitted.host) {
            return Err(io::Error::other("the TLS hello changed its host").into());
        }
        let scene = Scene::Tunnel { host: &self.admitted.host, port: self.admitted.port, is_tls: true };
        serve(self.door, Wire::tls(stream), scene).await
    }

    fn agrees(&self, hello: &Hello, refuses_encrypted: bool) -> Result<(), String> {
        match &hello.host {
            None => Err("the TLS hello names no host".to_owned()),
            Some(name) if !host_name(name).is_ok_and(|name| name == self.admitted.host) => {
                Err(format!("the TLS hello names {name:?}, which is not the host of the tunnel"))
            }
            Some(_) if hello.is_encrypted && refuses_encrypted => {
                Err("the TLS hello holds an encrypted one, which may be for another host".to_owned())
            }
            Some(_) => Ok(()),
        }
    }

    /// Records a refusal after the tunnel was opened, and ends it.
    async fn shut(self, mut client: Wire, objection: String) -> Result<(), Stop> {
        self.door.refuse_because(&self.destination, self.protocol, objection);
        if client.incoming.buffer.first() == Some(&22) {
            client.outgoing.send(&ACCESS_DENIED, self.door.limits.head_timeout).await?;
        }
        client.close().await;
        Ok(())
    }
}

/// Serves the requests within a tunnel.
async fn serve(door: &Door, mut client: Wire, scene: Scene<'_>) -> Result<(), Stop> {
    let ended = loop {
        let head = match next_request(door, &mut client).await {
            Ok(Some(head)) => head,
            Ok(None) => break Ok(()),
            Err(stop) => break Err(stop),
        };
        match answer(door, &mut client, head, scene).await {
            Ok(true) => {}
            Ok(false) => break Ok(()),
            Err(stop) => break Err(stop),
        }
    };
    finish(door, client, ended).await
}

/// Pays the answer that is still owed, and closes.
pub(crate) async fn finish(door: &Door, mut client: Wire, ended: Result<(), Stop>) -> Result<(), Stop> {
    match ended {
        Ok(()) => {}
        Err(Stop::Refused(refusal)) => client.outgoing.send(&refusal.answer(), door.limits.head_timeout).await?,
        // Closing in order would make a broken answer look whole.
        Err(stop) => return Err(stop),
    }
    client.close().await;
    Ok(())
}
