//! Requests in the clear.

use crate::stage::{Answer, Host, OK, Script, read_all, rule};
use adj_domain::HostRule;
use adj_egress::Protocol;
use std::{net::IpAddr, sync::Arc, time::Duration};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::test]
async fn a_request_arrives_written_anew() {
    let host = Host::plain(OK).await;
    let stage = Script::new([rule("a.test", host.port)]).start();
    let port = host.port;
    let answer = stage
        .say(format!(
            "POST http://A.test:{port}/x?token=1 HTTP/1.1\r\nHost: a.TEST:{port}\r\nX-Mine: 1\r\nProxy-Authorization: Basic eDp5\r\n\
             Connection: close, X-Hop\r\nX-Hop: 1\r\nContent-Length: 3\r\n\r\nabc"
        ))
        .await;
    assert_eq!(answer, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
    let expected = format!(
        "POST /x?token=1 HTTP/1.1\r\nHost: a.test:{port}\r\nX-Mine: 1\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc"
    );
    assert_eq!(host.seen(), [expected]);
    let decided = stage.decisions.lock().expect("no test panics here");
    assert_eq!(decided.len(), 1);
    assert_eq!(decided[0].to.to_string(), format!("POST a.test:{port}/x"), "the query is nobody's business");
    assert_eq!((decided[0].protocol, &decided[0].addresses[..]), (Protocol::Http, &[IpAddr::from([127, 0, 0, 1])][..]));
}

#[tokio::test]
async fn what_is_unclear_or_unlisted_goes_nowhere() {
    let host = Host::plain(OK).await;
    let port = host.port;
    let narrow =
        HostRule { methods: vec!["GET".to_owned()], paths: vec!["/repos/".to_owned()], ..rule("narrow.test", port) };
    let stage = Script::new([rule("a.test", port), rule("ask.test", port), narrow]).start();
    let get = |to: &str| format!("GET http://{to}/ HTTP/1.1\r\nHost: {to}\r\n\r\n");
    let with = |lines: &str| format!("POST http://a.test:{port}/ HTTP/1.1\r\nHost: a.test:{port}\r\n{lines}\r\n");
    let narrow = |first: &str, more: &str| {
        let (method, path) = first.split_once(' ').expect("two words");
        format!("{method} http://narrow.test:{port}{path} HTTP/1.1\r\nHost: narrow.test:{port}\r\n{more}\r\n")
    };
    let cases = [
        // Not listed, or not to be decided here.
        (get(&format!("b.test:{port}")), 403, "no entry covers it"),
        (get("a.test:22"), 403, "no entry covers it"),
        (get("a.test"), 403, "no entry covers it"),
        (get(&format!("ask.test:{port}")), 403, "Nobody answered"),
        (get(&format!("a.test.evil.test:{port}")), 403, "no entry"),
        // Addresses, in every spelling.
        (get(&format!("127.0.0.1:{port}")), 403, "is an address"),
        (get(&format!("127.1:{port}")), 403, "is an address"),
        (get(&format!("2130706433:{port}")), 403, "is an address"),
        (get(&format!("0x7f000001:{port}")), 403, "is an address"),
        (get(&format!("0177.0.0.1:{port}")), 403, "is an address"),
        (get(&format!("[::1]:{port}")), 403, "is an address"),
        (get(&format!("[::ffff:127.0.0.1]:{port}")), 403, "is an address"),
        (get(&format!("[fe80::1%25lo]:{port}")), 403, "is an address"),
        // Targets.
        (get(&format!("user@a.test:{port}")), 400, "names a user"),
        (get(&format!("a.test:{port}@b.test:80")), 400, "names a user"),
        (get("a.test:0"), 400, "port"),
        (get("a.test:65536"), 400, "port"),
        (get(&format!("a%2etest:{port}")), 403, "is not a host name"),
        (format!("GET https://a.test:{port}/ HTTP/1.1\r\nHost: a.test:{port}\r\n\r\n"), 400, "CONNECT"),
        (format!("GET ftp://a.test:{port}/ HTTP/1.1\r\nHost: a.test:{port}\r\n\r\n"), 400, "scheme"),
        (format!("GET / HTTP/1.1\r\nHost: a.test:{port}\r\n\r\n"), 400, "absolute"),
        (format!("OPTIONS * HTTP/1.1\r\nHost: a.test:{port}\r\n\r\n"), 400, "absolute"),
        (format!("GET http://a.test:{port}/#f HTTP/1.1\r\nHost: a.test:{port}\r\n\r\n"), 400, "fragment"),
        // The host that is named twice.
        (format!("GET http://a.test:{port}/ HTTP/1.1\r\nHost: b.test\r\n\r\n"), 400, "another host"),
        (format!("GET http://a.test:{port}/ HTTP/1.1\r\nHost: a.test\r\n\r\n"), 400, "another host"),
        (format!("GET http://a.test:{port}/ HTTP/1.1\r\nHost: a.test:{port}, b.test\r\n\r\n"), 400, "another host"),
        (format!("GET http://a.test:{port}/ HTTP/1.1\r\n\r\n"), 400, "no Host"),
        (with("Host: b.test\r\n"), 400, "more than one header Host"),
        // Two readings of one message.
        (with("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"), 400, "both"),
        (with("Content-Length: 3\r\nContent-Length: 4\r\n"), 400, "more than one header Content-Length"),
        (with("Content-Length: +3\r\n"), 400, "not one number"),
        (with("Transfer-Encoding: xchunked\r\n"), 400, "Transfer-Encoding"),
        (with("Transfer-Encoding: chunked, identity\r\n"), 400, "Transfer-Encoding"),
        (with("Transfer-Encoding : chunked\r\n"), 400, "NAME: VALUE"),
        (with("Transfer-Encoding:\x0bchunked\r\n"), 400, "control"),
        (with("X: y\r\n Transfer-Encoding: chunked\r\n"), 400, "NAME: VALUE"),
        (with("X: y\nZ: w\r\n"), 400, "CR LF"),
        (with("X: y\0\r\n"), 400, "control"),
        (with("Connection: host\r\n"), 400, "Connection"),
        (with("Connection: content-length\r\nContent-Length: 0\r\n"), 400, "Connection"),
        (with(&"X: y\r\n".repeat(120)), 431, "100 headers"),
        (with(&format!("X: {}\r\n", "y".repeat(70_000))), 431, "65536"),
        (with("Upgrade: websocket\r\nConnection: Upgrade\r\n"), 501, "upgrades"),
        (format!("TRACE http://a.test:{port}/ HTTP/1.1\r\nHost: a.test:{port}\r\n\r\n"), 501, "TRACE"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 400, "first line"),
        // Some requests only.
        (narrow("POST /repos/x", ""), 403, "does not permit this"),
        (narrow("get /repos/x", ""), 403, "does not permit this"),
        (narrow("GET /other", ""), 403, "does not permit this"),
        (narrow("GET /repos/../other", ""), 403, "more than one way"),
        (narrow("GET /repos/%2e%2e/other", ""), 403, "more than one way"),
        (narrow("GET /repos/..%2fother", ""), 403, "more than one way"),
        (narrow("GET /repos//x", ""), 403, "more than one way"),
        (narrow("GET /repos/x", "X-HTTP-Method-Override: DELETE\r\n"), 403, "another method"),
    ];
    for (request, status, words) in cases {
        let answer = stage.say(&request).await;
        let shown: String = request.chars().take(200).collect();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{shown:?}: {answer}");
        assert!(answer.contains(words), "{shown:?}: {answer}");
    }
    assert_eq!(host.seen(), Vec::<String>::new());
    let answer = stage.say(narrow("GET /repos/x?..", "Connection: close\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

#[tokio::test]
async fn one_connection_carries_many_requests_each_on_its_own_outside() {
    let host = Host::plain(Answer::Made(Arc::new(|asked| {
        let line = asked.lines().next().unwrap_or_default().to_owned();
        vec![
            format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{line}\r\n0\r\nTrailer: x\r\n\r\n",
                line.len()
            )
            .into_bytes(),
        ]
    })))
    .await;
    let port = host.port;
    let stage = Script::new([rule("a.test", port)]).start();
    let mut text = String::new();
    for (method, path, rest) in [
        ("GET", "/1", "\r\n"),
        ("POST", "/2", "Transfer-Encoding: chunked\r\n\r\n3;x=1\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"),
        ("HEAD", "/3", "Connection: close\r\n\r\n"),
    ] {
        text.push_str(&format!("{method} http://a.test:{port}{path} HTTP/1.1\r\nHost: a.test:{port}\r\n{rest}"));
    }
    let answer = stage.say(text).await;
    let ok = |line: &str| {
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{line}\r\n0\r\n\r\n", line.len())
    };
    let expected =
        format!("{}{}HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", ok("GET /1 HTTP/1.1"), ok("POST /2 HTTP/1.1"));
    assert_eq!(answer, expected);
    let seen = host.seen();
    assert_eq!(seen.len(), 3);
    assert!(seen[1].ends_with("\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"), "{}", seen[1]);
}

#[tokio::test]
async fn answers_are_framed_anew_or_refused() {
    let cases = [
        // Where it leads is for the client to ask.
        (
            "HTTP/1.1 302 Found\r\nLocation: http://b.test/\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 302 Found\r\nLocation: http://b.test/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        ),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
        ),
        (
            "HTTP/1.0 200 OK\r\nKeep-Alive: 5\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        ),
        // Cut short: what there was, and no end to it.
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\nab\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nab",
        ),
        ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "502: changes the protocol"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok", "502: both"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", "502: more than one"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok", "502: Transfer-Encoding"),
        ("HTTP/1.1 200 OK\nContent-Length: 2\n\nok", "502: CR LF"),
        ("SSH-2.0-nothing\r\n\r\n", "502: first line"),
        ("", "502: broke"),
    ];
    for (text, expected) in cases {
        let host = Host::plain(text).await;
        let stage = Script::new([rule("a.test", host.port)]).start();
        let to = format!("a.test:{}", host.port);
        let answer = stage.say(format!("GET http://{to}/ HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n")).await;
        match expected.strip_prefix("502: ") {
            Some(words) => {
                assert!(answer.starts_with("HTTP/1.1 502 Bad Gateway") && answer.contains(words), "{text:?}: {answer}");
            }
            None => assert_eq!(answer, expected, "{text:?}"),
        }
        assert_eq!(host.seen().len(), 1, "nothing is followed or tried again");
    }
}

#[tokio::test]
async fn the_older_version_gets_what_it_understands() {
    let host = Host::plain("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n").await;
    let stage = Script::new([rule("a.test", host.port)]).start();
    let answer = stage.say(format!("GET http://a.test:{}/ HTTP/1.0\r\n\r\n", host.port)).await;
    assert_eq!(answer, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc");
}

#[tokio::test]
async fn a_client_that_waits_for_a_go_ahead_gets_it_after_the_decision() {
    let host = Host::plain(OK).await;
    let stage = Script::new([rule("a.test", host.port)]).start();
    let to = format!("a.test:{}", host.port);
    let mut client = stage.dial().await;
    let head = format!(
        "PUT http://{to}/ HTTP/1.1\r\nHost: {to}\r\nExpect: 100-continue\r\nContent-Length: 3\r\nConnection: close\r\n\r\n"
    );
    client.write_all(head.as_bytes()).await.expect("the door listens");
    let mut go_on = [0; 25];
    client.read_exact(&mut go_on).await.expect("the door answers");
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(stage.decided().len(), 1);
    client.write_all(b"abc").await.expect("the door listens");
    assert!(read_all(&mut client).await.starts_with("HTTP/1.1 200 OK"));
    assert!(!host.seen()[0].contains("Expect"));
}

#[tokio::test]
async fn an_answer_may_come_before_the_request_is_whole() {
    let host =
        Host::plain(Answer::Early(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno".to_vec())).await;
    let stage = Script::new([rule("a.test", host.port)]).start();
    let to = format!("a.test:{}", host.port);
    let answer =
        stage.say(format!("POST http://{to}/ HTTP/1.1\r\nHost: {to}\r\nContent-Length: 99999\r\n\r\nabc")).await;
    assert_eq!(answer, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
}

#[tokio::test]
async fn who_is_slow_on_purpose_is_left() {
    let host = Host::plain(OK).await;
    let mut script = Script::new([rule("a.test", host.port)]);
    script.limits.head_timeout = Duration::from_millis(300);
    script.limits.idle_timeout = Duration::from_millis(600);
    let stage = script.start();
    for beginning in ["", "G", "GET http://a.test/ HTTP/1.1\r\nX: ", "\x05", "\x05\x01"] {
        let mut client = stage.dial().await;
        client.write_all(beginning.as_bytes()).await.expect("the door listens");
        let begun = std::time::Instant::now();
        let drip = async {
            let (mut reader, mut writer) = client.split();
            let drops = async {
                while beginning.len() > 2 && writer.write_all(b"x").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                std::future::pending::<()>().await;
            };
            tokio::select! { said = read_all(&mut reader) => said, () = drops => String::new() }
        };
        assert_eq!(drip.await, "", "{beginning:?}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{beginning:?} took {:?}", begun.elapsed());
    }
    // A body that stops coming.
    let to = format!("a.test:{}", host.port);
    let answer = stage.say(format!("POST http://{to}/ HTTP/1.1\r\nHost: {to}\r\nContent-Length: 10\r\n\r\nabc")).await;
    assert_eq!(answer, "");
}

#[tokio::test]
async fn only_so_many_are_served_at_once_and_stopping_ends_them() {
    let host = Host::plain(OK).await;
    let mut script = Script::new([rule("a.test", host.port)]);
    script.limits.connections = 2;
    let mut stage = script.start();
    let to = format!("a.test:{}", host.port);
    let request = format!("GET http://{to}/ HTTP/1.1\r\nHost: {to}\r\n\r\n");
    let (mut first, mut second, mut third) = (stage.dial().await, stage.dial().await, stage.dial().await);
    let mut piece = [0; 1000];
    for client in [&mut first, &mut second] {
        client.write_all(request.as_bytes()).await.expect("the door listens");
        assert!(client.read(&mut piece).await.expect("the door answers") > 0);
    }
    third.write_all(request.as_bytes()).await.expect("the kernel listens");
    let early = tokio::time::timeout(Duration::from_millis(200), third.read(&mut piece)).await;
    assert!(early.is_err(), "the third waits");
    drop(first);
    assert!(third.read(&mut piece).await.expect("its turn has come") > 0);
    stage.egress.take().expect("it stands").stop().await;
    read_all(&mut second).await;
    read_all(&mut third).await;
    assert!(tokio::net::TcpStream::connect(stage.door).await.is_err(), "nobody listens any more");
}
