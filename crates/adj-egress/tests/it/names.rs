//! Names and the addresses that they lead to.

use crate::stage::{Host, OK, Script, rule};
use adj_domain::HostRule;
use std::{net::IpAddr, sync::atomic::Ordering};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn get(host: &str, port: u16) -> String {
    format!("GET http://{host}:{port}/ HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n")
}

#[tokio::test]
async fn a_listed_name_does_not_lead_inwards() {
    let host = Host::plain(OK).await;
    let cases = [
        "127.0.0.1",
        "127.8.9.10",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "::1",
        "::",
        "::ffff:127.0.0.1",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "2001::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "224.0.0.1",
        "255.255.255.255",
        "198.18.0.1",
        "192.0.2.1",
    ];
    for address in cases {
        let open = HostRule { private_addresses: Vec::new(), ..rule("a.test", host.port) };
        let mut script = Script::new([open]);
        script.addresses.insert("a.test".to_owned(), vec![vec![ip(address)]]);
        let stage = script.start();
        let answer = stage.say(get("a.test", host.port)).await;
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("not public"), "{address}: {answer}");
        let decided = stage.decided();
        assert!(decided.len() == 1 && decided[0].starts_with("Http deny"), "{decided:?}");
    }
    assert_eq!(host.seen(), Vec::<String>::new());
}

#[tokio::test]
async fn only_what_is_listed_of_what_is_private_is_reached() {
    let host = Host::plain(OK).await;
    let cases = [
        ("127.0.0.1", vec!["127.0.0.1"], true),
        ("127.0.0.0/8", vec!["127.0.0.1"], true),
        // What is not listed is dropped, the rest is tried.
        ("127.0.0.1", vec!["10.1.1.1", "::ffff:127.0.0.1", "127.0.0.1"], true),
        ("127.0.0.2", vec!["127.0.0.1"], false),
        ("10.0.0.0/8", vec!["127.0.0.1"], false),
        ("127.0.0.1", vec!["::ffff:127.0.0.1"], false),
        ("not an address", vec!["127.0.0.1"], false),
    ];
    for (listed, found, is_reached) in cases {
        let open = HostRule { private_addresses: vec![listed.to_owned()], ..rule("a.test", host.port) };
        let mut script = Script::new([open]);
        script.addresses.insert("a.test".to_owned(), vec![found.iter().map(|text| ip(text)).collect()]);
        let stage = script.start();
        let answer = stage.say(get("a.test", host.port)).await;
        assert_eq!(answer.starts_with("HTTP/1.1 200 "), is_reached, "{listed} {found:?}: {answer}");
    }
}

#[tokio::test]
async fn a_name_that_changes_its_mind_is_not_followed() {
    let host = Host::plain(OK).await;
    let mut script = Script::new([rule("a.test", host.port)]);
    script.addresses.insert("a.test".to_owned(), vec![vec![ip("127.0.0.1")], vec![ip("169.254.169.254")]]);
    let stage = script.start();
    for _ in 0..3 {
        assert!(stage.say(get("a.test", host.port)).await.starts_with("HTTP/1.1 200 "));
    }
    assert_eq!(stage.resolved.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_name_that_may_not_be_reached_is_not_even_looked_up() {
    let stage = Script::new([rule("a.test", 80)]).start();
    for host in ["b.test", "secret-data.evil.test", "127.0.0.1"] {
        assert!(stage.say(get(host, 80)).await.starts_with("HTTP/1.1 403 "));
    }
    assert_eq!(stage.resolved.load(Ordering::SeqCst), 0);
    assert_eq!(stage.decided().len(), 3);
}

#[tokio::test]
async fn what_cannot_be_recorded_does_not_happen() {
    let host = Host::plain(OK).await;
    let stage = Script::new([rule("a.test", host.port)]).start();
    stage.can_record.store(false, Ordering::SeqCst);
    let answer = stage.say(get("a.test", host.port)).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("recorded"), "{answer}");
    let tunnel = format!("CONNECT a.test:{0} HTTP/1.1\r\nHost: a.test:{0}\r\n\r\n", host.port);
    assert!(stage.say(tunnel).await.starts_with("HTTP/1.1 503 "));
    assert_eq!(host.seen(), Vec::<String>::new());
}

#[tokio::test]
async fn a_host_that_moved_is_found_again() {
    let host = Host::plain(OK).await;
    // Nobody listens on the second loopback address, so the first try fails wherever the name leads.
    let open = HostRule { private_addresses: vec!["127.0.0.0/8".to_owned()], ..rule("a.test", host.port) };
    let mut script = Script::new([open]);
    script.addresses.insert("a.test".to_owned(), vec![vec![ip("127.0.0.2")], vec![ip("127.0.0.1")]]);
    let stage = script.start();
    let answer = stage.say(get("a.test", host.port)).await;
    assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("cannot connect"), "{answer}");
    assert!(stage.say(get("a.test", host.port)).await.starts_with("HTTP/1.1 200 "));
}
