//! CONNECT and SOCKS5, and what may go through the tunnels that they make.

use crate::stage::{Answer, Host, OK, PATIENCE, Script, company, read_all, rule, tls};
use adj_domain::HostRule;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

#[tokio::test]
async fn tunnels_to_what_is_not_listed_are_not_made() {
    let stage =
        Script::new([rule("a.test", 8443), HostRule { methods: vec!["GET".to_owned()], ..rule("narrow.test", 443) }])
            .start();
    let connect = |to: &str, more: &str| format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n{more}\r\n");
    let cases = [
        (connect("b.test:443", ""), 403, "no entry covers it"),
        (connect("a.test:443", ""), 403, "no entry covers it"),
        (connect("a.test:22", ""), 403, "no entry covers it"),
        (connect("a.test:25", ""), 403, "no entry covers it"),
        (connect("127.0.0.1:8443", ""), 403, "is an address"),
        (connect("127.1:8443", ""), 403, "is an address"),
        (connect("0x7f.1:8443", ""), 403, "is an address"),
        (connect("[::1]:8443", ""), 403, "is an address"),
        (connect("[::ffff:7f00:1]:8443", ""), 403, "is an address"),
        (connect("user@a.test:8443", ""), 400, "names a user"),
        (connect("a.test", ""), 400, "port"),
        (connect("a.test:", ""), 400, "port"),
        (connect("http://a.test:8443", ""), 400, "port"),
        (connect("a.test:8443", "Content-Length: 3\r\n"), 400, "no body"),
        (connect("a.test:8443", "Transfer-Encoding: chunked\r\n"), 400, "no body"),
        ("CONNECT a.test:8443 HTTP/1.1\r\nHost: b.test:8443\r\n\r\n".to_owned(), 400, "another host"),
        (connect("narrow.test:443", ""), 403, "open_tls"),
    ];
    for (request, status, words) in cases {
        let answer = stage.say(&request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(words), "{request:?}: {answer}");
    }
}

#[tokio::test]
async fn socks_makes_tunnels_to_names_only() {
    let host = Host::plain(Answer::from("hello\n")).await;
    let stage = Script::new([rule("a.test", host.port)]).start();
    let [high, low] = host.port.to_be_bytes();
    let ask = |command: u8, kind: u8, address: &[u8]| [&[5, 1, 0, 5, command, 0, kind], address, &[high, low]].concat();
    let name = |name: &[u8]| ask(1, 3, &[&[name.len() as u8], name].concat());
    let cases = [
        (name(b"b.test"), 2),
        (name(b"evil.test\0.a.test"), 2),
        (name(b"a.test\0"), 2),
        (name(b"127.0.0.1"), 2),
        (name(b"127.1"), 2),
        (name(b"::1"), 2),
        (name(b""), 2),
        (name(b"a.test/../b.test"), 2),
        (name(b"\xff\xfe"), 1),
        (ask(1, 1, &[127, 0, 0, 1]), 2),
        (ask(1, 4, &[0; 16]), 2),
        (ask(2, 3, b"\x06a.test"), 7),
        (ask(3, 3, b"\x06a.test"), 7),
        (ask(1, 2, b"\x06a.test"), 8),
    ];
    for (bytes, reply) in cases {
        let mut client = stage.dial().await;
        client.write_all(&bytes).await.expect("the door listens");
        let mut found = Vec::new();
        let _ = client.read_to_end(&mut found).await;
        assert_eq!(found.get(..4), Some(&[5, 0, 5, reply][..]), "{bytes:?}");
    }
    assert_eq!(host.seen(), Vec::<String>::new());
    assert!(stage.decided().iter().all(|line| line.starts_with("Socks5 deny")), "{:?}", stage.decided());

    // Introduced with a password, which nobody reads.
    let mut client = stage.dial().await;
    client.write_all(&[5, 1, 2]).await.expect("the door listens");
    client.write_all(b"\x01\x01u\x01p").await.expect("the door listens");
    client.write_all(&name(b"A.test")[3..]).await.expect("the door listens");
    client.write_all(b"knock!\n").await.expect("the door listens");
    let mut found = Vec::new();
    client.read_to_end(&mut found).await.expect("it ends in order");
    assert_eq!(found, [&[5, 2, 1, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], b"hello\n"].concat());
    assert_eq!(host.seen(), ["knock!\n"]);

    for bytes in [&b"\x05\x01\x01"[..], b"\x05\x00"] {
        let mut client = stage.dial().await;
        client.write_all(bytes).await.expect("the door listens");
        let mut found = Vec::new();
        let _ = client.read_to_end(&mut found).await;
        assert_eq!(found, [5, 0xff], "{bytes:?}");
    }
    let mut client = stage.dial().await;
    client.write_all(b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00").await.expect("the door listens");
    assert!(read_all(&mut client).await.starts_with("HTTP/1.1 400 "), "the older SOCKS is not spoken");
}

#[tokio::test]
async fn other_protocols_pass_on_listed_ports_whoever_speaks_first() {
    let greeting = Host::plain(Answer::Early(b"220 ready\r\n".to_vec())).await;
    let asked = Host::plain(Answer::from("world\n")).await;
    let stage = Script::new([rule("a.test", greeting.port), rule("b.test", asked.port)]).start();
    let mut client = stage.connect("a.test", greeting.port).await;
    let mut found = [0; 11];
    client.read_exact(&mut found).await.expect("the host speaks first");
    assert_eq!(&found, b"220 ready\r\n");
    client.write_all(b"bye!\n").await.expect("the door listens");
    assert_eq!(read_all(&mut client).await, "");
    assert_eq!(greeting.seen(), ["bye!\n"]);

    // One side that has ended does not end the other.
    let mut client = stage.connect("b.test", asked.port).await;
    client.write_all(b"half").await.expect("the door listens");
    client.shutdown().await.expect("the door listens");
    assert_eq!(read_all(&mut client).await, "world\n");
    assert_eq!(asked.seen(), ["half"]);
}

#[tokio::test]
async fn tls_passes_unopened_and_only_for_its_host() {
    let host = Host::tls(OK).await;
    let port = host.port;
    let stage = Script::new([rule("a.test", port), rule("b.test", port)]).start();
    let stream = stage.connect("a.test", port).await;
    let mut client = tls(stream, "a.test", &company().pem, &[b"h2", b"http/1.1"]).await.expect("TLS works");
    client.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.expect("the door listens");
    assert!(read_all(&mut client).await.ends_with("ok"));

    for name in ["b.test", "evil.test", "a.test.evil.test"] {
        let stream = stage.connect("a.test", port).await;
        tls(stream, name, &company().pem, &[]).await.expect_err(name);
    }
    assert_eq!(host.seen().len(), 1);
    let decided = stage.decided();
    let denied: Vec<&String> = decided.iter().filter(|line| line.contains(" deny ")).collect();
    assert!(denied.len() == 3 && denied[1].contains("\"evil.test\""), "{decided:?}");
}

/// A hello with these extensions, in one record.
fn hello(extensions: &[u8]) -> Vec<u8> {
    let length = |length: usize| (length as u16).to_be_bytes();
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend(length(extensions.len()));
    body.extend(extensions);
    let mut out = vec![22, 3, 1];
    out.extend(length(body.len() + 4));
    out.extend([1, 0]);
    out.extend(length(body.len()));
    out.extend(body);
    out
}

fn server_name(name: &str) -> Vec<u8> {
    let length = name.len() as u8;
    [&[0, 0, 0, length + 5, 0, length + 3, 0, 0, length], name.as_bytes()].concat()
}

#[tokio::test]
async fn hellos_that_hide_their_host_do_not_pass() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has ports");
    let port = listener.local_addr().expect("it is bound").port();
    let stage = Script::new([rule("a.test", port)]).start();
    let encrypted = [0xfe, 0x0d, 0, 2, 0, 0];
    let cases = [
        (hello(&[]), "names no host"),
        (hello(&server_name("b.test")), "\\\"b.test\\\"|\"b.test\""),
        (hello(&[server_name("a.test"), server_name("b.test")].concat()), "twice"),
        (hello(&[&server_name("a.test")[..], &encrypted].concat()), "encrypted"),
        (hello(&server_name("127.0.0.1")), "127.0.0.1"),
        (hello(&server_name("a.test\0")), "a.test\\0"),
        (vec![22, 3, 1, 0, 5, 1, 0, 0, 1, 0], "cannot be read"),
        (vec![22, 3, 1, 0, 4, 1, 0xff, 0, 0], "longer than"),
    ];
    for (bytes, words) in cases {
        let before = stage.decided().len();
        let mut client = stage.connect("a.test", port).await;
        let (mut accepted, _) = listener.accept().await.expect("the door dials");
        client.write_all(&bytes).await.expect("the door listens");
        read_all(&mut client).await;
        assert_eq!(read_all(&mut accepted).await, "", "nothing of {words} came through");
        let decided = stage.decided().split_off(before);
        assert!(
            decided[1].contains(" deny ") && words.split('|').any(|words| decided[1].contains(words)),
            "{words}: {decided:?}"
        );
    }
    // The same hello, with the right name and in pieces, comes through as it was.
    let mut client = stage.connect("a.test", port).await;
    let (mut accepted, _) = listener.accept().await.expect("the door dials");
    let good = hello(&server_name("A.test"));
    for piece in good.chunks(7) {
        client.write_all(piece).await.expect("the door listens");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let mut found = vec![0; good.len()];
    tokio::time::timeout(PATIENCE, accepted.read_exact(&mut found)).await.expect("in time").expect("it comes through");
    assert_eq!(found, good);
}

#[tokio::test]
async fn a_second_hello_may_not_name_another_host() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has ports");
    let port = listener.local_addr().expect("it is bound").port();
    let stage = Script::new([rule("a.test", port)]).start();
    // What a server says to be sent another hello: its random is SHA-256 of "HelloRetryRequest".
    let random = [
        0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2, 0xa2,
        0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
    ];
    let retry = [&[22, 3, 3, 0, 42, 2, 0, 0, 38, 3, 3][..], &random, &[0, 0x13, 1, 0]].concat();
    for (name, passes) in [("a.test", true), ("b.test", false)] {
        let mut client = stage.connect("a.test", port).await;
        let (mut accepted, _) = listener.accept().await.expect("the door dials");
        let first = hello(&server_name("a.test"));
        let second = [&[20, 3, 3, 0, 1, 1][..], &hello(&server_name(name))].concat();
        // Both at once, as one who knows what the server will say could.
        client.write_all(&[&first[..], &second].concat()).await.expect("the door listens");
        let mut found = vec![0; first.len()];
        accepted.read_exact(&mut found).await.expect("the first comes through");
        assert_eq!(found, first);
        accepted.write_all(&retry).await.expect("the door listens");
        let mut back = vec![0; retry.len()];
        client.read_exact(&mut back).await.expect("the retry comes back");
        if passes {
            let mut found = vec![0; second.len()];
            accepted.read_exact(&mut found).await.expect("the second comes through");
            assert_eq!(found, second);
        } else {
            assert_eq!(read_all(&mut accepted).await, "", "the second hello came through");
        }
    }
}

#[tokio::test]
async fn what_is_narrowed_is_seen_in_tunnels_too() {
    let host = Host::plain(OK).await;
    let port = host.port;
    let narrow = HostRule { methods: vec!["GET".to_owned()], ..rule("a.test", port) };
    let stage = Script::new([narrow, HostRule { open_tls: true, ..rule("b.test", 443) }]).start();
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: a.test:PORT\r\nConnection: close\r\n\r\n", "200"),
        ("POST / HTTP/1.1\r\nHost: a.test:PORT\r\nContent-Length: 0\r\n\r\n", "403"),
        ("GET / HTTP/1.1\r\nHost: b.test:PORT\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        ("GET http://a.test:PORT/ HTTP/1.1\r\nHost: a.test:PORT\r\n\r\n", "400"),
        ("CONNECT c.test:443 HTTP/1.1\r\nHost: c.test:443\r\n\r\n", "501"),
        ("SSH-2.0-OpenSSH_9.9\r\n\r\n", "400"),
    ] {
        let mut client = stage.connect("a.test", port).await;
        client.write_all(request.replace("PORT", &port.to_string()).as_bytes()).await.expect("the door listens");
        let answer = read_all(&mut client).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer}");
    }
    assert_eq!(host.seen().len(), 1);

    let stream = stage.connect("a.test", port).await;
    tls(stream, "a.test", &company().pem, &[]).await.expect_err("TLS would hide the requests");
    assert!(stage.decided().last().expect("it was decided").contains("open_tls"));

    let mut client = stage.connect("b.test", 443).await;
    client.write_all(b"SSH-2.0-OpenSSH_9.9\r\n").await.expect("the door listens");
    assert_eq!(read_all(&mut client).await, "");
    assert!(stage.decided().last().expect("it was decided").contains("not TLS"));
}

#[tokio::test]
async fn a_quiet_tunnel_ends() {
    let host = Host::plain(OK).await;
    let mut script = Script::new([rule("a.test", host.port)]);
    script.limits.idle_timeout = Duration::from_millis(300);
    let stage = script.start();
    let mut client = stage.connect("a.test", host.port).await;
    client.write_all(b"a word").await.expect("the door listens");
    assert_eq!(read_all(&mut client).await, "");
}
