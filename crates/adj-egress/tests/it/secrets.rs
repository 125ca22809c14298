//! Secrets, which are put in outside and never seen inside.

use crate::stage::{Answer, Host, OK, Script, Stage, rule};
use adj_domain::{HostRule, Secret};
use adj_egress::{Credential, Place};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use std::sync::Arc;

const PLACEHOLDER: &str = "adjph-6b1f9c02d7e84a5f";
const SECRET: &str = "sk-real/secret+value==";

fn credential(place: Place, hosts: impl IntoIterator<Item = HostRule>) -> Credential {
    Credential {
        name: "TOKEN".to_owned(),
        placeholder: PLACEHOLDER.to_owned(),
        secret: Secret::parse("TOKEN", SECRET.to_owned()).expect("the secret is good"),
        hosts: hosts.into_iter().collect(),
        place,
    }
}

fn bearer() -> Place {
    Place::Header("authorization".to_owned())
}

/// Both names lead to the host; the secret is for the first only.
fn stage(port: u16, place: Place) -> Stage {
    let mut script = Script::new([rule("a.test", port), HostRule { open_tls: true, ..rule("b.test", port) }]);
    script.credentials.push(credential(place, [rule("a.test", port)]));
    script.start()
}

fn request(name: &str, port: u16, first: &str, more: &str, body: &str) -> String {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!("{first} HTTP/1.1\r\nHost: {name}:{port}\r\nConnection: close\r\n{more}{length}\r\n{body}")
        .replace("PH", PLACEHOLDER)
}

#[tokio::test]
async fn a_placeholder_becomes_the_secret_in_its_place() {
    let basic = |pair: &str| format!("Authorization: Basic {}\r\n", BASE64_STANDARD.encode(pair));
    let cases = [
        (
            bearer(),
            "GET /",
            "Authorization: Bearer PH\r\n".to_owned(),
            "",
            format!("Authorization: Bearer {SECRET}\r\n"),
        ),
        (
            Place::Header("x-api-key".to_owned()),
            "GET /",
            "X-Api-Key: PH\r\n".to_owned(),
            "",
            format!("X-Api-Key: {SECRET}\r\n"),
        ),
        // As git signs in.
        (Place::BasicPassword, "GET /", basic(&format!("user:{PLACEHOLDER}")), "", basic(&format!("user:{SECRET}"))),
        (
            Place::Body,
            "POST /",
            "Content-Type: application/json\r\n".to_owned(),
            "{\"key\":\"PH\"}",
            format!("\r\n\r\n{{\"key\":\"{SECRET}\"}}"),
        ),
        (
            Place::Body,
            "POST /",
            "Content-Type: application/x-www-form-urlencoded\r\n".to_owned(),
            "key=PH&x=1",
            "\r\n\r\nkey=sk-real%2Fsecret%2Bvalue%3D%3D&x=1".to_owned(),
        ),
    ];
    for (place, first, more, body, expected) in cases {
        let host = Host::tls(OK).await;
        let stage = stage(host.port, place.clone());
        let body = body.replace("PH", PLACEHOLDER);
        let answer = stage.ask_tls("a.test", host.port, request("a.test", host.port, first, &more, &body)).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{place:?}: {answer}");
        let seen = host.seen();
        assert!(
            seen.len() == 1 && seen[0].contains(&expected) && !seen[0].contains(PLACEHOLDER),
            "{place:?}: {seen:?}"
        );
        let decided = stage.decisions.lock().expect("no test panics here");
        assert_eq!(decided.last().expect("it was decided").used_secrets, ["TOKEN"]);
        assert!(!format!("{decided:?}").contains(SECRET));
    }
}

#[tokio::test]
async fn a_placeholder_anywhere_else_stops_the_request() {
    let host = Host::tls(OK).await;
    let port = host.port;
    let stage = stage(port, bearer());
    let sign = "Authorization: Bearer PH\r\n";
    let cases = [
        ("b.test", request("b.test", port, "GET /", sign, ""), "not for this host"),
        ("a.test", request("a.test", port, "GET /?token=PH", "", ""), "the address"),
        ("a.test", request("a.test", port, "GET /PH", sign, ""), "the address"),
        ("a.test", request("a.test", port, "GET /", "X-Other: PH\r\n", ""), "X-Other"),
        ("a.test", request("a.test", port, "GET /", "Cookie: a=PH\r\n", ""), "Cookie"),
        ("a.test", request("a.test", port, "GET /", "Authorization: PH PH\r\n", ""), "Authorization"),
        ("a.test", request("a.test", port, "GET /", "Authorization: Bearer PH\r\nAuthorization: x\r\n", ""), "twice"),
        ("a.test", request("b.test", port, "GET /", sign, ""), "another host"),
        ("a.test", request("a.test", port, "TRACE /", sign, ""), "TRACE"),
    ];
    for (name, request, words) in cases {
        let answer = stage.ask_tls(name, port, &request).await;
        assert!(answer.starts_with("HTTP/1.1 ") && !answer.starts_with("HTTP/1.1 2"), "{request:?}: {answer}");
        assert!(answer.contains(words) && !answer.contains(SECRET), "{request:?}: {answer}");
    }
    assert_eq!(host.seen(), Vec::<String>::new());

    // In a body it is found while the request is under way; the host never has the secret, nor the whole request.
    let body = format!("some text PH {}", "x".repeat(50_000)).replace("PH", PLACEHOLDER);
    let answer = stage.ask_tls("a.test", port, request("a.test", port, "POST /", "", &body)).await;
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("the body"), "{answer}");
    assert!(host.seen().iter().all(|seen| !seen.contains(SECRET) && !seen.contains(PLACEHOLDER)));
}

#[tokio::test]
async fn nothing_secret_goes_out_in_the_clear() {
    let host = Host::plain(Answer::Early(b"220 no TLS here\r\n".to_vec())).await;
    let stage = stage(host.port, bearer());
    let to = format!("a.test:{}", host.port);
    let text = format!("GET http://{to}/ HTTP/1.1\r\nHost: {to}\r\nAuthorization: Bearer {PLACEHOLDER}\r\n\r\n");
    let answer = stage.say(text).await;
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("in the clear"), "{answer}");
    // Nor to a host that only says it were the right one.
    let text = format!("GET / HTTP/1.1\r\nHost: {to}\r\nAuthorization: Bearer {PLACEHOLDER}\r\n\r\n");
    let answer = stage.ask_tls("a.test", host.port, text).await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    assert!(host.seen().iter().all(|seen| !seen.contains(SECRET)));
}

#[tokio::test]
async fn a_host_that_gives_the_secret_back_gives_it_to_nobody() {
    // Every header and byte of the request comes back, in pieces that cut the secret in all places.
    let mirror: Answer = Answer::Made(Arc::new(|asked| {
        let secret = asked.lines().find_map(|line| line.strip_prefix("Authorization: Bearer ")).unwrap_or_default();
        let encoded = BASE64_STANDARD.encode(format!("user:{secret}!"));
        let percent = secret.replace('/', "%2F").replace('+', "%2B").replace('=', "%3D");
        let body = format!("plain {secret} base64 {encoded} percent {percent} end");
        let head = format!(
            "HTTP/1.1 200 {secret}\r\nX-Back: a {secret} b\r\nX-{0}: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "Other"
        );
        let mut pieces = vec![head.into_bytes()];
        pieces.extend(body.as_bytes().chunks(9).map(|chunk| {
            let mut piece = format!("{:x}\r\n", chunk.len()).into_bytes();
            piece.extend_from_slice(chunk);
            piece.extend_from_slice(b"\r\n");
            piece
        }));
        pieces.push(b"0\r\nX-Trailer: ".to_vec());
        pieces.push(format!("{secret}\r\n\r\n").into_bytes());
        pieces
    }));
    let host = Host::tls(mirror).await;
    let stage = stage(host.port, bearer());
    let more = "Authorization: Bearer PH\r\nAccept-Encoding: gzip, br\r\nRange: bytes=0-3\r\n";
    let answer = stage.ask_tls("a.test", host.port, request("a.test", host.port, "GET /", more, "")).await;
    let seen = &host.seen()[0];
    assert!(seen.contains(SECRET) && seen.contains("Accept-Encoding: identity\r\n"), "{seen}");
    assert!(!seen.contains("gzip") && !seen.contains("Range"), "{seen}");
    assert!(answer.starts_with("HTTP/1.1 200 ***"), "{answer}");
    assert!(answer.contains(&format!("X-Back: a {} b\r\n", "*".repeat(SECRET.len()))), "{answer}");
    assert!(!answer.contains("X-Trailer"), "{answer}");
    // Chunks are wherever the pieces ended, so the text is put together first.
    let body = answer.split_once("\r\n\r\n").expect("there is a body").1;
    let text: String = body.split("\r\n").skip(1).step_by(2).collect();
    assert!(text.starts_with(&format!("plain {} base64 ", "*".repeat(SECRET.len()))), "{text}");
    assert!(text.ends_with(&format!(" percent {} end", "*".repeat(SECRET.len() + 2 * 4))), "{text}");
    let encoded = BASE64_STANDARD.encode(format!("user:{SECRET}!"));
    for cut in 0..encoded.len() - 8 {
        let start = &encoded[cut..cut + 8];
        let is_secret = (8..encoded.len() - 10).contains(&cut);
        assert!(!is_secret || !text.contains(start), "{start} of {encoded} in {text}");
    }
    for cut in 0..SECRET.len() - 6 {
        assert!(!text.contains(&SECRET[cut..cut + 6]), "{text}");
    }
}

#[tokio::test]
async fn what_cannot_be_looked_through_is_not_passed_back() {
    let host = Host::tls("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nxx").await;
    let stage = stage(host.port, bearer());
    let answer = stage.ask_tls("a.test", host.port, request("a.test", host.port, "GET /", "", "")).await;
    assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("compressed"), "{answer}");
    // Where no secret is, nobody minds.
    let answer = stage.ask_tls("b.test", host.port, request("b.test", host.port, "GET /", "", "")).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn a_secret_may_be_for_some_requests_only() {
    let host = Host::tls(OK).await;
    let port = host.port;
    let mut script = Script::new([rule("a.test", port)]);
    let only = HostRule { methods: vec!["GET".to_owned()], paths: vec!["/api/".to_owned()], ..rule("a.test", port) };
    script.credentials.push(credential(bearer(), [only]));
    let stage = script.start();
    let sign = "Authorization: Bearer PH\r\n";
    for (first, more, status, words) in [
        ("GET /api/x", sign, 200, "ok"),
        ("GET /other", "", 200, "ok"),
        ("GET /other", sign, 403, "not for this method and path"),
        ("POST /api/x", sign, 403, "not for this method and path"),
        ("GET /api/../other", sign, 403, "more than one way"),
        ("GET /api/x", "Authorization: Bearer PH\r\nX-Rewrite-Url: /other\r\n", 403, "another method or path"),
    ] {
        let answer = stage.ask_tls("a.test", port, request("a.test", port, first, more, "")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(words), "{first}: {answer}");
    }
    assert_eq!(host.seen().len(), 2);
}

#[tokio::test]
async fn a_body_that_may_hold_a_secret_has_a_size() {
    let host = Host::tls(OK).await;
    let mut script = Script::new([rule("a.test", host.port)]);
    script.credentials.push(credential(Place::Body, [rule("a.test", host.port)]));
    script.limits.body_bytes = 1000;
    let stage = script.start();
    for (size, status) in [(1000, 200), (1001, 413)] {
        let text = request("a.test", host.port, "POST /", "", &"x".repeat(size));
        let answer = stage.ask_tls("a.test", host.port, text).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{size}: {answer}");
        let head = format!(
            "POST / HTTP/1.1\r\nHost: a.test:{}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n",
            host.port
        );
        let text = format!("{head}{size:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(size));
        let answer = stage.ask_tls("a.test", host.port, text).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{size} in chunks: {answer}");
    }
    assert!(host.seen().iter().all(|seen| seen.contains("Content-Length: 1000\r\n")), "{:?}", host.seen());
}
