//! Destinations: what a call asks for, and what the layers leave of it.

use crate::world::{Call, destination, now, policy};
use adj_domain::{
    ApprovalPolicy::{Never, OnRequest},
    EventId, Grant, GrantScope, GrantSubject, HostRule, NetworkRequest,
    Verdict::{self, Allow, Ask, Deny},
};
use adj_policy::{
    LayerKind::{self, Administrator, Organisation, Repository},
    PACKAGES, Policy, group,
};
use std::time::Duration;

#[test]
fn a_destination_is_listed_by_the_call_and_by_every_layer_that_lists() {
    let packages: (LayerKind, &str) = (
        Administrator,
        "[network]\nhosts = [\"@packages\", \"*.example.org\"]\ndenied_hosts = [\"bad.example.org\", \"half.example.org:80\"]",
    );
    let open = (Organisation, "[network]\nhosts = [\"pypi.org\", \"example.com\", \"a.example.org\"]\nask = true");
    let shut = (Repository, "[network]\nask = false");
    type Case<'a> = (&'a [(LayerKind, &'a str)], &'a [&'a str], bool, &'a str, Verdict, &'a str);
    let cases: &[Case<'_>] = &[
        (&[], &[], false, "pypi.org:443", Deny, "built-in: the network is off"),
        (&[], &["pypi.org"], false, "pypi.org:443", Allow, "call: hosts: pypi.org"),
        (&[], &["pypi.org"], false, "pypi.org:22", Deny, "call: hosts: pypi.org:22 is not listed"),
        (&[], &["pypi.org"], true, "example.com:443", Ask, "call: hosts: example.com:443 is not listed"),
        (&[], &[], true, "example.com:443", Ask, "call"),
        (&[], &["*.org"], true, "127.0.0.1:443", Deny, "built-in: \"127.0.0.1\" is not a host name"),
        (&[], &["*.org"], true, "Example.ORG:443", Deny, "is not a host name"),
        // A layer that lists hosts does not open the network.
        (&[packages], &[], false, "pypi.org:443", Deny, "the network is off"),
        (&[packages], &["pypi.org"], false, "pypi.org:443", Allow, "administrator: hosts: pypi.org"),
        (
            &[packages],
            &["example.com"],
            true,
            "example.com:443",
            Deny,
            "administrator: hosts: example.com:443 is not listed",
        ),
        (
            &[packages],
            &["*.example.org"],
            true,
            "bad.example.org:443",
            Deny,
            "administrator: denied_hosts: bad.example.org",
        ),
        (&[packages], &["*.example.org:8080"], true, "bad.example.org:8080", Deny, "denied_hosts: bad.example.org"),
        (&[packages], &["*.example.org"], true, "half.example.org:443", Allow, "administrator"),
        (&[packages], &["*.example.org"], true, "half.example.org:80", Deny, "denied_hosts: half.example.org:80"),
        (&[packages, open], &["*.example.org"], false, "a.example.org:443", Allow, "administrator"),
        (
            &[packages, open],
            &["*.example.org"],
            false,
            "b.example.org:443",
            Ask,
            "organisation: hosts: b.example.org:443 is not listed",
        ),
        (&[packages, open], &["npmjs.org"], true, "npmjs.org:443", Deny, "administrator"),
        (&[open, shut], &["pypi.org"], true, "pypi.org:443", Allow, "organisation"),
        (&[open, shut], &["pypi.org"], true, "example.com:443", Deny, "repository: ask = false"),
        (&[shut], &["pypi.org"], true, "pypi.org:443", Allow, "call"),
        (&[(Administrator, "[network]\nhosts = []")], &["pypi.org"], true, "pypi.org:443", Deny, "administrator"),
    ];
    for (layers, hosts, ask, to, expected, words) in cases {
        let policy = policy(layers);
        let call = Call::new(OnRequest).with_hosts(hosts, *ask);
        let found = call.host(&policy, to);
        let context = format!("{hosts:?} {ask} {to}: {found:?}");
        assert_eq!(found.ruling.verdict, *expected, "{context}");
        assert!(format!("{}: {}", found.ruling.layer, found.ruling.rule).contains(words), "{context}");
        assert_eq!(found.rule.is_some(), *expected < Deny, "{context}");
        let never = Call { approval: Never, ..call }.host(&policy, to).ruling.verdict;
        assert_eq!(never, if *expected == Ask { Deny } else { *expected }, "nobody is asked: {context}");
    }
}

#[test]
fn what_holds_for_a_connection_is_what_all_lists_have_in_common() {
    let administrator = r#"
        [network]
        hosts = [
            { host = "api.example.org", methods = ["GET", "POST"], paths = ["/repos/", "/users/"], open_tls = true },
            { host = "db.example.org", ports = [5432, 443], private_addresses = ["10.0.0.0/8"] },
            "plain.example.org",
            { host = "two.example.org", methods = ["GET"], open_tls = true },
            { host = "two.example.org", methods = ["POST"], paths = ["/upload"], open_tls = true },
        ]
    "#;
    let organisation = r#"
        [network]
        ask = true
        hosts = [
            { host = "api.example.org", methods = ["GET", "DELETE"], paths = ["/repos/ours/"], open_tls = true },
            { host = "db.example.org", ports = [5432], private_addresses = ["10.1.0.0/16", "192.168.0.1"] },
            { host = "plain.example.org", methods = ["GET"] },
            "two.example.org",
        ]
    "#;
    let policy = policy(&[(Administrator, administrator), (Organisation, organisation)]);
    let mut call = Call::new(OnRequest).with_hosts(&["api.example.org", "plain.example.org", "two.example.org"], false);
    let mut database: HostRule = "db.example.org:5432".parse().expect("the host is good");
    database.private_addresses = vec!["10.1.2.3".to_owned(), "10.2.0.1".to_owned()];
    call.network.hosts.push(database);

    let rule = |to: &str| call.host(&policy, to).rule.unwrap_or_else(|| panic!("{to} is denied"));
    let api = rule("api.example.org:443");
    assert_eq!((api.methods, api.paths, api.open_tls), (vec!["GET".to_owned()], vec!["/repos/ours/".to_owned()], true));
    assert_eq!((api.host.to_string().as_str(), api.ports.as_slice()), ("api.example.org", &[443][..]));
    assert_eq!(rule("db.example.org:5432").private_addresses, ["10.1.2.3"]);
    let plain = rule("plain.example.org:443");
    assert!(plain.narrows_requests() && !plain.open_tls, "who narrows has to consent: {plain:?}");
    let two = rule("two.example.org:443");
    assert_eq!((two.methods, two.paths.len()), (vec!["GET".to_owned(), "POST".to_owned()], 0), "the most it may be");

    let cases = [
        ("GET api.example.org:443/repos/ours/x", Allow),
        ("GET api.example.org:443/repos/theirs", Deny),
        ("DELETE api.example.org:443/repos/ours/x", Deny),
        ("GET two.example.org:443/anything", Allow),
        ("POST two.example.org:443/upload", Allow),
        ("POST two.example.org:443/anything", Deny),
    ];
    for (to, expected) in cases {
        let found = call.host(&policy, to);
        assert_eq!(found.ruling.verdict, expected, "{to}: {found:?}");
        let destination = destination(to);
        if let (Some(rule), Some(method), Some(path)) = (found.rule, &destination.method, &destination.path) {
            assert!(rule.permits_request(method, path), "{to}: {rule:?}");
        }
    }
}

#[test]
fn lists_with_nothing_in_common_let_nothing_through() {
    let policy = policy(&[
        (Administrator, "[network]\nhosts = [{ host = \"a.org\", methods = [\"GET\"], open_tls = true }]"),
        (Organisation, "[network]\nhosts = [{ host = \"a.org\", methods = [\"POST\"], open_tls = true }]"),
    ]);
    let found = Call::new(OnRequest).with_hosts(&["a.org"], false).host(&policy, "a.org:443");
    assert_eq!(found.ruling.verdict, Deny);
    assert_eq!(found.ruling.rule, "the layers that list a.org permit no request to it in common");
}

#[test]
fn a_host_that_is_asked_for_gets_no_privileges_from_lists() {
    let policy =
        policy(&[(Organisation, "[network]\nhosts = [{ host = \"db.org\", private_addresses = [\"10.0.0.1\"] }]")]);
    let found = Call::new(OnRequest).with_hosts(&[], true).host(&policy, "db.org:443");
    assert_eq!(found.ruling.verdict, Ask);
    assert_eq!(found.rule.expect("it may be allowed").private_addresses.len(), 0);
}

#[test]
fn a_grant_opens_a_host_that_was_asked_for_and_no_other() {
    let layers = policy(&[(Administrator, "[network]\ndenied_hosts = [\"bad.org\"]")]);
    let grant = |host: &str, port, minutes: u64| Grant {
        id: EventId::derive(&["answer"]),
        subject: GrantSubject::Host { host: host.to_owned(), port },
        scope: GrantScope::Repository { path: "/srv/project".to_owned() },
        until: now() + Duration::from_secs(minutes * 60),
        by: "ada".to_owned(),
    };
    let grants = vec![grant("good.org", 443, 5), grant("bad.org", 443, 5), grant("late.org", 443, 0)];
    let cases = [
        ("good.org:443", true, Allow),
        ("good.org:8443", true, Ask),
        ("a.good.org:443", true, Ask),
        ("bad.org:443", true, Deny),
        ("late.org:443", true, Ask),
        ("good.org:443", false, Deny),
    ];
    for (to, ask, expected) in cases {
        let call = Call { grants: grants.clone(), ..Call::new(OnRequest) }.with_hosts(&["other.org"], ask);
        let found = call.host(&layers, to);
        assert_eq!(found.ruling.verdict, expected, "{to} {ask}: {found:?}");
    }
}

#[test]
fn the_group_of_package_registries_is_what_a_profile_asks_for() {
    let (profile, policy) = Policy::built_in().profile(Some("packages")).expect("it is built in");
    assert_eq!(profile.network, NetworkRequest { hosts: group(PACKAGES).expect("it is there"), ask: false });
    let call = Call { network: profile.network, ..Call::new(OnRequest) };
    for (to, expected) in [("crates.io:443", Allow), ("deb.debian.org:80", Allow), ("example.org:443", Deny)] {
        assert_eq!(call.host(&policy, to).ruling.verdict, expected, "{to}");
    }
}
