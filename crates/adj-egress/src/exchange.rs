//! Carries one HTTP request out and its answer back, both written anew.

use crate::{
    Place, Protocol,
    admit::Door,
    body::{BodyDecoder, Step},
    credential::{Goal, fill_body, fill_head, misplaced_in_body},
    head::{Framing, Headers, RequestHead, ResponseHead},
    refusal::{Refusal, Stop},
    scrub::{Finder, Scrubber},
    target::{Authority, absolute_form, authority, path_of, strict_path},
    wire::{Incoming, Outgoing, Wire},
};
use adj_domain::{Destination, host_name};
use std::{io, pin::pin, time::Duration};
use zeroize::{Zeroize as _, Zeroizing};

/// Where requests come from, which says how they name their destination.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Scene<'a> {
    /// To the door itself: `GET http://host/path`.
    Door,
    /// Within a tunnel, to its end only.
    Tunnel { host: &'a str, port: u16, is_tls: bool },
}

impl Scene<'_> {
    fn protocol(self) -> Protocol {
        match self {
            Self::Tunnel { is_tls: true, .. } => Protocol::Tls,
            _ => Protocol::Http,
        }
    }
}

/// While a request still goes out, its answer may take as long as it likes.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);
/// Headers by which some servers let themselves be told another method or path than the first line has.
const OVERRIDES: [&str; 5] =
    ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "X-Original-URL", "X-Rewrite-URL"];
/// Interim answers in a row.
const MAX_INTERIM: usize = 16;

/// Reads the next request; `None` when the client has no more.
pub(crate) async fn next_request(door: &Door, client: &mut Wire) -> Result<Option<RequestHead>, Stop> {
    let limits = &door.limits;
    match client.incoming.head(limits.head_timeout, limits.idle_timeout).await?? {
        Some(head) => Ok(Some(RequestHead::parse(&head)?)),
        None => Ok(None),
    }
}

/// Answers a request; says whether the connection can carry another one.
pub(crate) async fn answer(
    door: &Door,
    client: &mut Wire,
    mut head: RequestHead,
    scene: Scene<'_>,
) -> Result<bool, Stop> {
    let framing = head.body()?;
    let client_is_new = head.is_new;
    let client_stays = client_is_new && !head.headers.connection_says("close");
    if head.headers.has("Upgrade") {
        return Err(Refusal::new(501, "upgrades are not passed on").into());
    }
    // Both answer with what they were asked, secrets included, or turn the connection into something else.
    if matches!(head.method.as_str(), "TRACE" | "CONNECT") {
        return Err(Refusal::new(501, format!("{} is not passed on", head.method)).into());
    }
    let (to, target) = destination(door, &head, scene)?;
    head.target = target;
    let is_verified = matches!(scene, Scene::Tunnel { is_tls: true, .. });
    let goal = Goal { host: &to.host, port: to.port, is_verified };
    let protocol = scene.protocol();

    let wants_continue = head.headers.all("Expect").any(|value| value.eq_ignore_ascii_case(b"100-continue"));
    head.headers.strip_hop_by_hop()?;
    for name in ["Expect", "Host"] {
        head.headers.remove(name);
    }
    let mut used = fill_head(&door.credentials, goal, &mut head)
        .map_err(|misplaced| door.refuse_misplaced(&to, protocol, &misplaced))?;
    let holds_secret = door.holds_secret_for(&to.host, to.port);
    if holds_secret {
        // Scrubbing has to see the bytes as they are, and all of them.
        for name in ["Accept-Encoding", "Range", "If-Range"] {
            head.headers.remove(name);
        }
        head.headers.push("Accept-Encoding", "identity");
    }

    // A body into which a secret belongs is read whole, before the decision that names the secret.
    let reads_body = framing != Framing::Empty
        && is_verified
        && door.secrets_for(&to.host, to.port).any(|credential| credential.place == Place::Body);
    let mut body = None;
    let go_on = b"HTTP/1.1 100 Continue\r\n\r\n";
    if reads_body {
        if wants_continue && client_is_new {
            client.outgoing.send(go_on, door.limits.idle_timeout).await?;
        }
        let whole = whole_body(door, &mut client.incoming, framing).await?;
        let (filled, more) = fill_body(&door.credentials, goal, &head, &whole)
            .map_err(|misplaced| door.refuse_misplaced(&to, protocol, &misplaced))?;
        used.extend(more);
        body = Some(filled);
    }

    let admitted = door.admit(&to, protocol, used).await?;
    if (admitted.is_narrowed || holds_secret)
        && let Some(name) = OVERRIDES.iter().find(|name| head.headers.has(name))
    {
        let objection = format!("the header {name} may make the server read another method or path");
        return Err(door.refuse_because(&to, protocol, objection).into());
    }
    let mut upstream =
        if is_verified { door.dial_tls(&admitted).await? } else { Wire::tcp(door.dial(&admitted).await?) };
    if !reads_body && wants_continue && client_is_new && framing != Framing::Empty {
        client.outgoing.send(go_on, door.limits.idle_timeout).await?;
    }

    let out_framing = match &body {
        Some(body) => Framing::Length(body.len() as u64),
        None => framing,
    };
    let default_port = if is_verified { 443 } else { 80 };
    let out_head = request_head(&mut head, &to, default_port, out_framing);
    let idle = door.limits.idle_timeout;
    upstream.outgoing.send(&out_head, idle).await.map_err(|error| lost(&to, &error))?;

    let upload = async {
        match &body {
            Some(body) => {
                // Whoever answers early need not read the rest.
                Ok(upstream.outgoing.send(body, idle).await.is_ok())
            }
            None => {
                send_body(door, &mut client.incoming, &mut upstream.outgoing, framing, |index| {
                    let misplaced = misplaced_in_body(&door.credentials[index], goal, &head);
                    door.refuse_misplaced(&to, protocol, &misplaced)
                })
                .await
            }
        }
    };
    let mut upload = pin!(upload);
    let (mut is_uploaded, mut is_whole) = (false, false);
    let answer_head = {
        let mut waiting = pin!(response_head(&mut upstream.incoming, FOREVER));
        let mut quiet = pin!(tokio::time::sleep(FOREVER));
        loop {
            tokio::select! {
                biased;
                sent = &mut upload, if !is_uploaded => {
                    is_whole = sent?;
                    is_uploaded = true;
                    quiet.as_mut().reset(tokio::time::Instant::now() + idle);
                }
                head = &mut waiting => break head.map_err(|error| lost(&to, &error))??,
                () = &mut quiet => return Err(Refusal::new(504, format!("{} did not answer in time", to.host)).into()),
            }
        }
    };

    let secrets =
        door.secrets_for(&to.host, to.port).filter(|_| is_verified).map(|credential| credential.secret.expose());
    let mut back = Back {
        scrubber: Scrubber::new(secrets),
        client: &mut client.outgoing,
        idle,
        is_new: client_is_new,
        stays: client_stays && is_whole,
        is_chunked: false,
    };
    let decoder = back.head(answer_head, &head.method, holds_secret && is_verified).await?;
    let mut download = pin!(back.body(&mut upstream.incoming, decoder));
    loop {
        tokio::select! {
            biased;
            done = &mut download => return Ok(done?),
            sent = &mut upload, if !is_uploaded => {
                // An answer has begun; all that is left to do is to break it off.
                sent.map_err(|_| io::Error::other("the request broke off"))?;
                is_uploaded = true;
            }
        }
    }
}

fn lost(to: &Destination, error: &io::Error) -> Refusal {
    Refusal::new(502, format!("the connection to {}:{} broke: {error}", to.host, to.port))
}

/// Finds where a request goes; all that it says of its host has to agree.
fn destination(door: &Door, head: &RequestHead, scene: Scene<'_>) -> Result<(Destination, String), Refusal> {
    let bad = |error: crate::target::TargetError| Refusal::new(400, error.to_string());
    let (written, target, default_port) = match scene {
        Scene::Door => {
            let (written, target) = absolute_form(&head.target).map_err(bad)?;
            (written, target, 80)
        }
        Scene::Tunnel { host, port, is_tls } => {
            let end = Authority { host: host.to_owned(), port };
            (end, head.target.clone(), if is_tls { 443 } else { 80 })
        }
    };
    strict_path(&target, false).map_err(bad)?;
    let path = Some(path_of(&target).to_owned());
    let method = Some(head.method.clone());
    let to = match host_name(&written.host) {
        Ok(host) => Destination { host, port: written.port, method, path },
        Err(error) => {
            let host = written.host.chars().take(100).collect();
            let to = Destination { host, port: written.port, method, path };
            return Err(door.refuse_because(&to, scene.protocol(), error.to_string()));
        }
    };
    match head.headers.only("Host").map_err(Refusal::from)? {
        Some(said) => {
            let said = std::str::from_utf8(said).ok().and_then(|said| authority(said, Some(default_port)).ok());
            let agrees = said
                .is_some_and(|said| said.port == to.port && host_name(&said.host).is_ok_and(|host| host == to.host));
            if !agrees {
                let refusal =
                    door.refuse_because(&to, scene.protocol(), "the Host header names another host".to_owned());
                return Err(Refusal { status: 400, ..refusal });
            }
        }
        // Only the older version may leave it out, and only where the address names the host.
        None if !head.is_new && matches!(scene, Scene::Door) => {}
        None => return Err(Refusal::new(400, "the request has no Host header")),
    }
    Ok((to, target))
}

fn request_head(head: &mut RequestHead, to: &Destination, default_port: u16, framing: Framing) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(4096));
    let port = if to.port == default_port { String::new() } else { format!(":{}", to.port) };
    let first = format!("{} {} HTTP/1.1\r\nHost: {}{port}\r\n", head.method, head.target, to.host);
    out.extend_from_slice(first.as_bytes());
    head.headers.write_to(&mut out);
    for header in &mut head.headers.0 {
        header.value.zeroize();
    }
    match framing {
        Framing::Length(length) => out.extend_from_slice(format!("Content-Length: {length}\r\n").as_bytes()),
        Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        Framing::Empty | Framing::UntilClose => {}
    }
    out.extend_from_slice(b"Connection: close\r\n\r\n");
    out
}

async fn whole_body(door: &Door, from: &mut Incoming, framing: Framing) -> Result<Zeroizing<Vec<u8>>, Stop> {
    let most = door.limits.body_bytes;
    let too_long =
        || Refusal::new(413, format!("a secret may belong into this body, and it is longer than {most} bytes"));
    if matches!(framing, Framing::Length(length) if length > most as u64) {
        return Err(too_long().into());
    }
    let mut decoder = BodyDecoder::new(framing);
    let mut body = Zeroizing::new(Vec::new());
    loop {
        match decoder.step(&mut from.buffer).map_err(Refusal::from)? {
            Step::Data(data) if body.len() + data.len() > most => return Err(too_long().into()),
            Step::Data(data) => body.extend_from_slice(&data),
            Step::Done => return Ok(body),
            Step::NeedsMore => {
                if !from.fill(door.limits.idle_timeout).await? {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
            }
        }
    }
}

/// Sends a body on as it comes, unless a placeholder is in it; `false` when the other side stopped reading, which may mean
/// that it has answered already.
async fn send_body(
    door: &Door,
    from: &mut Incoming,
    to: &mut Outgoing,
    framing: Framing,
    on_placeholder: impl Fn(usize) -> Refusal,
) -> Result<bool, Stop> {
    let mut decoder = BodyDecoder::new(framing);
    let mut finder = Finder::new(door.credentials.iter().map(|credential| credential.placeholder.clone()));
    let is_chunked = framing == Framing::Chunked;
    let idle = door.limits.idle_timeout;
    loop {
        match decoder.step(&mut from.buffer).map_err(Refusal::from)? {
            Step::Data(data) => {
                if let Some(index) = finder.find(&data) {
                    return Err(on_placeholder(index).into());
                }
                if write_piece(to, &data, is_chunked, idle).await.is_err() {
                    return Ok(false);
                }
            }
            Step::Done => {
                return Ok(!is_chunked || to.send(b"0\r\n\r\n", idle).await.is_ok());
            }
            Step::NeedsMore => {
                if !from.fill(idle).await? {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
            }
        }
    }
}

async fn write_piece(to: &mut Outgoing, data: &[u8], is_chunked: bool, patience: Duration) -> io::Result<()> {
    if !is_chunked {
        return to.send(data, patience).await;
    }
    let mut piece = Vec::with_capacity(data.len() + 20);
    piece.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
    piece.extend_from_slice(data);
    piece.extend_from_slice(b"\r\n");
    to.send(&piece, patience).await
}

/// Reads the head of the final answer.
async fn response_head(from: &mut Incoming, patience: Duration) -> io::Result<Result<ResponseHead, Refusal>> {
    let bad = |text: String| Ok(Err(Refusal::new(502, format!("the answer cannot be passed on: {text}"))));
    for _ in 0..=MAX_INTERIM {
        let head = match from.head(patience, patience).await? {
            Ok(Some(head)) => head,
            Ok(None) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) => return bad(error.to_string()),
        };
        match ResponseHead::parse(&head) {
            Ok(head) if head.status == 101 => return bad("it changes the protocol".to_owned()),
            Ok(head) if head.status < 200 => {}
            Ok(head) => return Ok(Ok(head)),
            Err(error) => return bad(error.to_string()),
        }
    }
    bad("it does not come to its end".to_owned())
}

/// The way of an answer to the client.
struct Back<'a> {
    scrubber: Scrubber,
    client: &'a mut Outgoing,
    idle: Duration,
    is_new: bool,
    /// Whether the connection may carry another request.
    stays: bool,
    is_chunked: bool,
}

impl Back<'_> {
    async fn head(&mut self, mut head: ResponseHead, method: &str, is_scrubbed: bool) -> Result<BodyDecoder, Stop> {
        let bad = |text: &str| Refusal::new(502, format!("the answer cannot be passed on: {text}"));
        let framing = head.body(method).map_err(|error| bad(&error.to_string()))?;
        let is_identity = |value: &[u8]| value.is_empty() || value.eq_ignore_ascii_case(b"identity");
        if is_scrubbed && !head.headers.all("Content-Encoding").all(is_identity) {
            return Err(bad("it is compressed, so that nobody can see whether a secret is in it").into());
        }
        let length = head.headers.only("Content-Length").ok().flatten().map(<[u8]>::to_vec);
        // A server's list of its own connection's headers is no reason to fail.
        if head.headers.strip_hop_by_hop().is_err() {
            return Err(bad("its Connection header removes what it must not").into());
        }
        let mut framed = Headers::default();
        match framing {
            Framing::Empty => {
                if let Some(length) = length.filter(|_| method == "HEAD" || head.status == 304) {
                    framed.push("Content-Length", length);
                }
            }
            Framing::Length(length) => framed.push("Content-Length", length.to_string()),
            Framing::Chunked | Framing::UntilClose if self.is_new => {
                self.is_chunked = true;
                framed.push("Transfer-Encoding", "chunked");
            }
            Framing::Chunked | Framing::UntilClose => self.stays = false,
        }
        if !self.stays {
            framed.push("Connection", "close");
        }
        let mut scrub = |text: &[u8]| [self.scrubber.push(text), self.scrubber.flush()].concat();
        let mut out = format!("HTTP/1.1 {} ", head.status).into_bytes();
        out.extend(scrub(&head.reason));
        out.extend_from_slice(b"\r\n");
        for header in &mut head.headers.0 {
            header.name = String::from_utf8_lossy(&scrub(header.name.as_bytes())).into_owned();
            header.value = scrub(&header.value);
        }
        head.headers.write_to(&mut out);
        framed.write_to(&mut out);
        out.extend_from_slice(b"\r\n");
        self.client.send(&out, self.idle).await?;
        Ok(BodyDecoder::new(framing))
    }

    async fn body(&mut self, from: &mut Incoming, mut decoder: BodyDecoder) -> io::Result<bool> {
        loop {
            match decoder.step(&mut from.buffer).map_err(io::Error::other)? {
                Step::Data(data) => {
                    let out = self.scrubber.push(&data);
                    self.piece(&out).await?;
                }
                Step::Done => break,
                Step::NeedsMore => {
                    if !from.fill(self.idle).await? {
                        decoder.end().map_err(io::Error::other)?;
                    }
                }
            }
        }
        let rest = self.scrubber.flush();
        self.piece(&rest).await?;
        if self.is_chunked {
            self.client.send(b"0\r\n\r\n", self.idle).await?;
        }
        Ok(self.stays)
    }

    async fn piece(&mut self, data: &[u8]) -> io::Result<()> {
        // An empty chunk would be the last one.
        if data.is_empty() { Ok(()) } else { write_piece(self.client, data, self.is_chunked, self.idle).await }
    }
}
