//! Who is let in: the host that a request names, the page it comes from, and whose token it shows.
//!
//! A page that somebody visits can make the browser send requests to this machine. It cannot choose their `Host` and `Origin`, so
//! these tell; and since nothing here is known by a cookie, a browser has nothing to give away.

use crate::token::{Checked, Scope, Tokens};
use adj_wire::{ApiError, ErrorKind};
use hyper::{
    header::{AUTHORIZATION, HOST, HeaderMap, ORIGIN},
    http::{request::Parts, uri::Authority},
};
use std::{collections::BTreeSet, net::IpAddr};
use tokio_util::sync::CancellationToken;

/// Which way a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Unix {
        is_owner: bool,
    },
    /// To this address of ours.
    Tcp {
        local: IpAddr,
    },
}

/// Somebody who was let in.
#[derive(Debug, Clone)]
pub struct Caller {
    pub who: Who,
    pub scope: Scope,
    /// Ends what the caller has under way.
    pub revoked: CancellationToken,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// The user whose daemon this is, over the Unix socket.
    Owner,
    /// The token with this id.
    Token(String),
}

/// Refuses what a page of another site may have sent, and names that are not ours.
pub(crate) fn check_site(head: &Parts, way: Way, hosts: &BTreeSet<String>) -> Result<(), ApiError> {
    let refused = |message: String| ApiError::new(ErrorKind::Permission, message);
    let named = named_host(head);
    if let Way::Tcp { local } = way {
        match &named {
            Some(host) if is_ours(host, local, hosts) => {}
            Some(host) => {
                let message = format!("the host {:?} is none of this daemon's (--host adds one)", host.as_str());
                return Err(refused(message));
            }
            None => return Err(refused("the request names no host, or more than one".to_owned())),
        }
    }
    // Browsers say so also where they send no origin.
    let foreign = |value: &[u8]| value == b"cross-site" || value == b"same-site";
    if head.headers.get_all("sec-fetch-site").iter().any(|value| foreign(value.as_bytes())) {
        return Err(refused("pages of other sites may not ask here".to_owned()));
    }
    let mut origins = head.headers.get_all(ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (None, _) => Ok(()),
        (Some(origin), None) if named.as_ref().is_some_and(|host| is_origin_of(origin.as_bytes(), host)) => Ok(()),
        _ => Err(refused("pages of other sites may not ask here: the request's origin is not this host".to_owned())),
    }
}

/// The one host that the request names.
fn named_host(head: &Parts) -> Option<Authority> {
    let mut values = head.headers.get_all(HOST).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let host: Authority = value.to_str().ok()?.parse().ok()?;
    // A request line may name one too, and then it is the one that counts.
    let is_same = head.uri.authority().is_none_or(|asked| *asked == host);
    (is_same && !host.as_str().contains('@')).then_some(host)
}

fn is_ours(host: &Authority, local: IpAddr, hosts: &BTreeSet<String>) -> bool {
    let name = host.host().trim_end_matches('.').to_ascii_lowercase();
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(&name);
    match address.parse::<IpAddr>() {
        // No name, so nobody has bent it to point here.
        Ok(address) => address.to_canonical().is_loopback() || address.to_canonical() == local.to_canonical(),
        Err(_) => name == "localhost" || hosts.contains(&name),
    }
}

fn is_origin_of(origin: &[u8], host: &Authority) -> bool {
    let Ok(origin) = std::str::from_utf8(origin) else { return false };
    let (rest, port) = match (origin.strip_prefix("http://"), origin.strip_prefix("https://")) {
        (Some(rest), _) => (rest, ":80"),
        (_, Some(rest)) => (rest, ":443"),
        (None, None) => return false,
    };
    let plain = |text: &str| text.strip_suffix(port).unwrap_or(text).to_ascii_lowercase();
    plain(rest) == plain(host.as_str())
}

/// Whose request this is. Who shows a token is taken for its owner and nobody else, whichever way the request came.
pub(crate) fn caller(head: &Parts, way: Way, tokens: &Tokens) -> Result<Caller, ApiError> {
    let mut found: Option<Caller> = None;
    let mut has_shown = false;
    for shown in shown_tokens(&head.headers) {
        has_shown = true;
        match (tokens.check(shown), &found) {
            (Checked::Unknown, _) => {
                let message = "the tokens cannot be read; the daemon's log says why";
                return Err(ApiError::new(ErrorKind::Internal, message));
            }
            (Checked::Good(caller), Some(other)) if caller.who != other.who => {
                return Err(unauthenticated("two different tokens are shown"));
            }
            (Checked::Good(caller), _) => found = Some(caller),
            // Clients that hold keys of others show them besides.
            (Checked::No, _) => {}
        }
    }
    match (found, has_shown, way) {
        (Some(caller), _, _) => Ok(caller),
        (None, false, Way::Unix { is_owner: true }) => {
            Ok(Caller { who: Who::Owner, scope: Scope::Admin, revoked: CancellationToken::new() })
        }
        (None, true, _) => Err(unauthenticated("what is shown is no token that is in force")),
        (None, false, _) => Err(unauthenticated(
            "this needs a token, as `authorization: Bearer …` or `x-api-key: …`; `adjutant token create` makes one",
        )),
    }
}

fn unauthenticated(message: &str) -> ApiError {
    ApiError::new(ErrorKind::Authentication, message)
}

/// Every word that may be meant as a token.
fn shown_tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let bearer = headers.get_all(AUTHORIZATION).iter().filter_map(|value| {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    });
    let keys = headers.get_all("x-api-key").iter().filter_map(|value| Some(value.to_str().ok()?.trim()));
    bearer.chain(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    fn let_in(target: &str, headers: &[(&str, &str)], way: Way) -> bool {
        let mut request = Request::builder().uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).expect("a test's request is one").into_parts();
        check_site(&head, way, &["adjutant.example".to_owned()].into()).is_ok()
    }

    #[test]
    fn only_our_own_names_are_served() {
        let here = Way::Tcp { local: [192, 168, 1, 5].into() };
        for (host, expected) in [
            ("localhost", true),
            ("LocalHost.:7133", true),
            ("127.0.0.1:7133", true),
            ("127.9.9.9", true),
            ("[::1]:7133", true),
            ("[::ffff:127.0.0.1]", true),
            ("192.168.1.5:80", true),
            ("adjutant.example", true),
            ("192.168.1.6", false),
            ("evil.example", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("adjutant.example.evil", false),
            ("user@localhost", false),
            ("127.1", false),
            ("", false),
        ] {
            assert_eq!(let_in("/", &[("host", host)], here), expected, "{host}");
            assert!(host.is_empty() || let_in("/", &[("host", host)], Way::Unix { is_owner: true }), "{host}");
        }
        assert!(!let_in("/", &[], here), "no host at all");
        assert!(!let_in("/", &[("host", "localhost"), ("host", "localhost")], here), "two");
        assert!(!let_in("http://evil.example/", &[("host", "localhost")], here), "another in the request line");
        assert!(let_in("http://localhost/", &[("host", "localhost")], here));
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let here = Way::Tcp { local: [127, 0, 0, 1].into() };
        let host = ("host", "localhost:7133");
        for (name, value, expected) in [
            ("origin", "http://localhost:7133", true),
            ("origin", "http://LOCALHOST:7133", true),
            ("origin", "https://localhost:7133", true),
            ("origin", "http://localhost", false),
            ("origin", "http://localhost:3000", false),
            ("origin", "http://127.0.0.1:7133", false),
            ("origin", "https://evil.example", false),
            ("origin", "null", false),
            ("origin", "", false),
            ("sec-fetch-site", "cross-site", false),
            ("sec-fetch-site", "same-site", false),
            ("sec-fetch-site", "same-origin", true),
            ("sec-fetch-site", "none", true),
        ] {
            assert_eq!(let_in("/", &[host, (name, value)], here), expected, "{name}: {value}");
        }
        assert!(let_in("/", &[("host", "localhost"), ("origin", "http://localhost:80")], here));
        assert!(!let_in("/", &[("origin", "http://evil.example")], Way::Unix { is_owner: true }));
    }
}
