//! TLS that is opened by consent.

use crate::stage::{Answer, Host, OK, Script, company, rule, server_config, tls};
use adj_domain::HostRule;
use std::sync::Arc;

fn opened(host: &str, port: u16) -> HostRule {
    HostRule { open_tls: true, ..rule(host, port) }
}

#[tokio::test]
async fn requests_within_opened_tls_are_judged_one_by_one() {
    let host = Host::tls(OK).await;
    let port = host.port;
    let narrow =
        HostRule { methods: vec!["GET".to_owned()], paths: vec!["/repos/".to_owned()], ..opened("a.test", port) };
    let stage = Script::new([narrow]).start();
    let close = "Connection: close\r\n\r\n";
    let named = format!("Host: a.test:{port}\r\n");
    let cases = [
        (format!("GET /repos/x?y HTTP/1.1\r\n{named}{close}"), 200, "ok"),
        (format!("POST /repos/x HTTP/1.1\r\n{named}Content-Length: 0\r\n{close}"), 403, "does not permit this"),
        (format!("GET /user HTTP/1.1\r\n{named}{close}"), 403, "does not permit this"),
        (format!("GET /repos/../user HTTP/1.1\r\n{named}{close}"), 403, "more than one way"),
        (format!("GET /repos/%2E%2E/user HTTP/1.1\r\n{named}{close}"), 403, "more than one way"),
        (format!("GET /repos/x HTTP/1.1\r\nHost: b.test:{port}\r\n{close}"), 400, "another host"),
        (format!("GET /repos/x HTTP/1.1\r\nHost: a.test\r\n{close}"), 400, "another host"),
        (format!("GET https://a.test:{port}/repos/x HTTP/1.1\r\n{named}{close}"), 400, "slash"),
        (format!("GET /repos/x HTTP/1.1\r\n{close}"), 400, "no Host"),
        (format!("GET /repos/x HTTP/1.1\r\n{named}Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n"), 501, "upgrades"),
        (format!("GET /repos/x HTTP/1.1\r\n{named}X-Original-URL: /user\r\n{close}"), 403, "another method or path"),
        (
            format!("GET /repos/x HTTP/1.1\r\n{named}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n{close}"),
            400,
            "both",
        ),
    ];
    for (request, status, words) in cases {
        let answer = stage.ask_tls("a.test", port, &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(words), "{request:?}: {answer}");
    }
    assert_eq!(host.seen(), [format!("GET /repos/x?y HTTP/1.1\r\n{named}{close}")]);
    let decided = stage.decided();
    assert!(decided[0].starts_with(&format!("HttpConnect allow a.test:{port} ")), "{decided:?}");
    assert!(decided[1].starts_with(&format!("Tls allow GET a.test:{port}/repos/x ")), "{decided:?}");
    assert!(decided[3].starts_with(&format!("Tls deny POST a.test:{port}/repos/x ")), "{decided:?}");
}

#[tokio::test]
async fn many_requests_go_through_one_opened_tunnel() {
    let host = Host::tls(OK).await;
    let stage = Script::new([opened("a.test", host.port)]).start();
    let one = format!("GET /1 HTTP/1.1\r\nHost: a.test:{}\r\n\r\n", host.port);
    let last = format!("GET /2 HTTP/1.1\r\nHost: a.test:{}\r\nConnection: close\r\n\r\n", host.port);
    let answer = stage.ask_tls("a.test", host.port, format!("{one}{last}")).await;
    assert_eq!(answer, format!("{OK}HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"));
    assert_eq!(host.seen().len(), 2);
}

#[tokio::test]
async fn the_host_has_to_prove_itself() {
    let key = rcgen::KeyPair::generate().expect("a key can be made");
    let signed = |name: &str| {
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("the name is good");
        params.self_signed(&key).expect("it can be signed")
    };
    let stranger = Host::start(OK.into(), Some(server_config(signed("a.test").der().clone(), &key))).await;
    let clear = Host::plain(Answer::Early(b"220 no TLS here\r\n".to_vec())).await;
    // The company's certificate is for other names.
    let other = Host::tls(OK).await;
    let stage =
        Script::new([opened("a.test", stranger.port), opened("a.test", clear.port), opened("b.example", other.port)])
            .start();
    for (name, port) in [("a.test", stranger.port), ("a.test", clear.port), ("b.example", other.port)] {
        let request = format!("GET / HTTP/1.1\r\nHost: {name}:{port}\r\n\r\n");
        let answer = stage.ask_tls(name, port, request).await;
        assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("no TLS with"), "{name}: {answer}");
    }
    for host in [&stranger, &other] {
        assert_eq!(host.seen(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn opened_tls_speaks_for_its_host_and_in_one_protocol() {
    let host = Host::tls(OK).await;
    let stage = Script::new([opened("a.test", host.port)]).start();
    let bundle = stage.authority.trust_bundle("");
    for (name, protocols, works) in [
        ("a.test", &[b"h2".as_slice(), b"http/1.1"][..], true),
        ("a.test", &[], true),
        ("a.test", &[b"h2"], false),
        ("b.test", &[b"http/1.1"], false),
    ] {
        let stream = stage.connect("a.test", host.port).await;
        let made = tls(stream, name, &bundle, protocols).await;
        assert_eq!(made.is_ok(), works, "{name} {protocols:?}");
        if let Ok(made) = made {
            assert!(matches!(made.get_ref().1.alpn_protocol(), None | Some(b"http/1.1")));
        }
    }
    // Who does not trust the session's authority gets no connection, rather than an unopened one.
    let stream = stage.connect("a.test", host.port).await;
    assert!(tls(stream, "a.test", &company().pem, &[]).await.is_err());
    assert_eq!(host.seen(), Vec::<String>::new());
}

#[tokio::test]
async fn strange_roots_are_noticed_at_the_start() {
    for (roots, is_good) in [
        ("", true),
        (" \n", true),
        ("not PEM", false),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", false),
    ] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let settings = adj_egress::Settings {
            judge: Arc::new(Nobody),
            credentials: Vec::new(),
            resolver: Arc::new(adj_egress::SystemResolver),
            limits: adj_egress::EgressLimits::default(),
            on_decision: Arc::new(|_| true),
            authority: adj_egress::CertificateAuthority::generate().expect("an authority can be made"),
            extra_roots: roots.to_owned(),
        };
        assert_eq!(adj_egress::Egress::start(listener, settings).is_ok(), is_good, "{roots:?}");
    }
}

struct Nobody;

#[async_trait::async_trait]
impl adj_egress::Judge for Nobody {
    async fn judge(&self, _: &adj_domain::Destination) -> adj_egress::Judged {
        let ruling = adj_domain::Ruling::new(adj_domain::Verdict::Deny, "built-in", "nobody");
        adj_egress::Judged { ruling, rule: None }
    }
}
