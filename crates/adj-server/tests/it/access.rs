//! Who is let in, and what they may do.

use super::{House, ask, ask_unix, client, kind, request};
use adj_domain::Timestamp;
use adj_server::{NewToken, Scope, TokenFile};
use std::time::{Duration, Instant};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};

#[tokio::test]
async fn a_token_is_shown_in_either_header_and_the_owner_needs_none() {
    let house = House::open().await;
    let (api, admin) = (house.api.1.expose(), house.admin.expose());
    let (bearer_api, bearer_admin) = (format!("Bearer {api}"), format!("bearer {admin}"));
    let unauthenticated = "401 authentication_error";
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, &'a str);
    let cases: [Case<'_>; 14] = [
        // Line, headers, over TCP, over the socket.
        ("GET /healthz", &[], "200", "200"),
        ("GET /v1/models", &[], unauthenticated, "200"),
        ("GET /v1/models", &[("authorization", &bearer_api)], "200", "200"),
        ("GET /v1/models", &[("x-api-key", api)], "200", "200"),
        ("GET /v1/models", &[("x-api-key", "sk-of-others"), ("authorization", &bearer_api)], "200", "200"),
        ("GET /v1/models", &[("x-api-key", admin), ("authorization", &bearer_api)], unauthenticated, unauthenticated),
        ("GET /v1/models", &[("x-api-key", "sk-of-others")], unauthenticated, unauthenticated),
        ("GET /v1/models", &[("cookie", &bearer_api)], unauthenticated, "200"),
        ("GET /admin/status", &[("x-api-key", api)], "403 permission_error", "403 permission_error"),
        ("GET /admin/status", &[("authorization", &bearer_admin)], "200", "200"),
        ("GET /admin/status", &[], unauthenticated, "200"),
        ("GET /v1/nothing", &[], unauthenticated, "404 not_found_error"),
        ("GET /v1/nothing", &[("x-api-key", api)], "404 not_found_error", "404 not_found_error"),
        ("DELETE /v1/models", &[("x-api-key", api)], "405 invalid_request_error", "405 invalid_request_error"),
    ];
    for (line, headers, over_tcp, over_socket) in cases {
        let bytes = request(line, &[&[("host", "localhost")], headers].concat(), b"");
        assert_eq!(kind(&ask(house.address, &bytes).await), over_tcp, "{line} {headers:?} over TCP");
        assert_eq!(kind(&ask_unix(&house.socket, &bytes).await), over_socket, "{line} {headers:?} over the socket");
    }
}

#[tokio::test]
async fn other_hosts_and_other_sites_are_refused_before_anything_else() {
    let house = House::open().await;
    let port = house.address.port();
    let own = format!("localhost:{port}");
    let origin = format!("http://localhost:{port}");
    let refused = "403 permission_error";
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a str);
    let cases: [Case<'_>; 9] = [
        (&[("host", &own)], "200"),
        (&[("host", "box.example")], "200"),
        (&[("host", "evil.example")], refused),
        (&[], refused),
        (&[("host", &own), ("origin", &origin)], "200"),
        (&[("host", &own), ("origin", "http://localhost:1")], refused),
        (&[("host", &own), ("origin", "null")], refused),
        (&[("host", &own), ("sec-fetch-site", "cross-site")], refused),
        (&[("host", "evil.example"), ("origin", "http://evil.example")], refused),
    ];
    for (headers, expected) in cases {
        // A good token is no excuse.
        let shown = [headers, &[("x-api-key", house.api.1.expose())]].concat();
        for line in ["GET /healthz", "GET /v1/models"] {
            let answer = ask(house.address, &request(line, &shown, b"")).await;
            assert_eq!(kind(&answer), expected, "{line} {headers:?}");
            assert!(!answer.head.to_ascii_lowercase().contains("access-control"), "{}", answer.head);
            assert_eq!(answer.header("set-cookie"), None);
        }
    }
}

#[tokio::test]
async fn a_revoked_token_is_refused_at_once_and_its_stream_ends_soon() {
    let house = House::open().await;
    let mut stream = TcpStream::connect(house.address).await.expect("the door listens");
    stream.write_all(&house.request("GET /test/events", &[], b"")).await.expect("it can be written");
    assert_eq!(kind(&house.call("POST /test/echo", "").await), "200");

    // The stream has begun before it is cut, which may be at once.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(TokenFile::new(&house.folder).revoke(&house.api.0).expect("it can be revoked"));
    let revoked = Instant::now();
    assert_eq!(kind(&house.call("POST /test/echo", "").await), "401 authentication_error");
    let answer = timeout(Duration::from_secs(5), client::read(&mut stream)).await.expect("the stream ends");
    assert!(answer.whole && answer.text().contains("tick"), "{answer:?}");
    assert!(!answer.text().contains("goodbye"), "it is cut: {}", answer.text());
    assert!(revoked.elapsed() < Duration::from_secs(3), "{:?}", revoked.elapsed());
    assert!(!house.stop.is_cancelled());
}

#[tokio::test]
async fn a_token_that_was_just_made_is_good_and_an_environments_token_is_for_nothing_here() {
    let house = House::open().await;
    let new = NewToken { name: None, scope: Scope::Environment, expires_at: None };
    let (_, token) = TokenFile::new(&house.folder).create(new, Timestamp::now()).expect("it can be made");
    let bytes = request("GET /v1/models", &[("host", "localhost"), ("x-api-key", token.expose())], b"");
    let answer = ask(house.address, &bytes).await;
    assert_eq!(kind(&answer), "403 permission_error");
    assert!(answer.text().contains("scope environment"), "{}", answer.text());
    std::fs::write(house.folder.join("tokens"), "{").expect("our own file");
    assert_eq!(kind(&ask(house.address, &bytes).await), "500 api_error", "nobody is let in by a file that is damaged");
    assert_eq!(ask_unix(&house.socket, &request("GET /admin/status", &[], b"")).await.status, 200);
}
