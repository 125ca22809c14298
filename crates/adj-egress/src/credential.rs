//! Puts secrets in where their placeholders stand, at the one place of the one host that each is for.

use crate::{
    head::{Header, RequestHead},
    target::path_of,
};
use adj_domain::{HostRule, Secret};
use base64::{
    Engine as _,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
    prelude::BASE64_STANDARD,
};
use memchr::memmem;
use zeroize::Zeroizing;

/// A secret that is known inside by its placeholder only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    pub name: String,
    /// Random and long, so that it stands nowhere by chance.
    pub placeholder: String,
    pub secret: Secret,
    /// Where it may go; naming a host is the consent to open TLS to it.
    pub hosts: Vec<HostRule>,
    pub place: Place,
}

/// Where in a request the placeholder is replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// At the end of this header, as in `Authorization: Bearer PLACEHOLDER`. The name in lower case.
    Header(String),
    /// As the password of `Authorization: Basic`, which is how git signs in.
    BasicPassword,
    /// In a body of JSON or of a form.
    Body,
}

/// A placeholder stood where it does not belong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the placeholder of the secret {name} stands in {place}, where it is not replaced: {reason}")]
pub(crate) struct Misplaced {
    name: String,
    place: String,
    reason: &'static str,
}

/// Where a request goes, as far as secrets care.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Goal<'a> {
    pub host: &'a str,
    pub port: u16,
    /// Over TLS whose certificate is checked.
    pub is_verified: bool,
}

impl Credential {
    pub(crate) fn covers(&self, host: &str, port: u16) -> bool {
        self.hosts.iter().any(|rule| rule.covers(host, port))
    }

    /// Why the secret may not go into this request; `None` when it may.
    fn objection(&self, goal: Goal<'_>, method: &str, path: &str) -> Option<&'static str> {
        if !self.covers(goal.host, goal.port) {
            return Some("the secret is not for this host");
        }
        if !goal.is_verified {
            return Some("the request is in the clear");
        }
        let covering = |rule: &&HostRule| rule.covers(goal.host, goal.port);
        if !self.hosts.iter().filter(covering).any(|rule| rule.permits_request(method, path)) {
            return Some("the secret is not for this method and path");
        }
        None
    }
}

/// Replaces placeholders in a head; gives the names of the secrets that were put in.
pub(crate) fn fill_head(
    credentials: &[Credential],
    goal: Goal<'_>,
    head: &mut RequestHead,
) -> Result<Vec<String>, Misplaced> {
    let mut used = Vec::new();
    for credential in credentials.iter().filter(|credential| !credential.placeholder.is_empty()) {
        let placeholder = credential.placeholder.as_bytes();
        let misplaced =
            |place: &str, reason| Err(Misplaced { name: credential.name.clone(), place: place.to_owned(), reason });
        let target = head.target.as_bytes();
        if holds(target, placeholder) || holds(&percent_decoded(target), placeholder) {
            return misplaced("the address", "it would end in logs");
        }
        let objection = credential.objection(goal, &head.method, path_of(&head.target));
        for index in 0..head.headers.0.len() {
            let header = &head.headers.0[index];
            let basic = basic_pair(header);
            let is_plain = holds(&header.value, placeholder);
            if !is_plain && !basic.as_ref().is_some_and(|pair| holds(pair, placeholder)) {
                continue;
            }
            let place = format!("the header {}", header.name);
            if let Some(objection) = objection {
                return misplaced(&place, objection);
            }
            if head.headers.all(&header.name).count() > 1 {
                return misplaced(&place, "the header is there twice");
            }
            let Some(value) = filled(header, basic.as_deref().filter(|_| !is_plain), credential) else {
                // A secret may have several places, each with a credential of its own.
                let fits =
                    |other: &&Credential| filled(header, basic.as_deref().filter(|_| !is_plain), other).is_some();
                if same_placeholder(credentials, credential).any(|other| fits(&other)) {
                    continue;
                }
                return misplaced(&place, "its place is another one");
            };
            head.headers.0[index].value = value;
            used.push(credential.name.clone());
        }
    }
    Ok(used)
}

/// The header's value with the secret in its place, where the place is this one. `pair` is what a `Basic` header holds.
fn filled(header: &Header, pair: Option<&[u8]>, credential: &Credential) -> Option<Vec<u8>> {
    match (&credential.place, pair) {
        (Place::Header(name), None) if header.name.eq_ignore_ascii_case(name) => at_the_end(&header.value, credential),
        (Place::BasicPassword, Some(pair)) => as_password(pair, credential),
        _ => None,
    }
}

fn same_placeholder<'a>(all: &'a [Credential], one: &'a Credential) -> impl Iterator<Item = &'a Credential> {
    all.iter().filter(move |other| other.placeholder == one.placeholder && other.name == one.name)
}

/// Replaces placeholders in a whole body.
pub(crate) fn fill_body(
    credentials: &[Credential],
    goal: Goal<'_>,
    head: &RequestHead,
    body: &[u8],
) -> Result<(Zeroizing<Vec<u8>>, Vec<String>), Misplaced> {
    let mut found: Vec<(usize, &Credential)> = Vec::new();
    for credential in credentials.iter().filter(|credential| !credential.placeholder.is_empty()) {
        // Only one credential of a secret speaks for a body, the one whose place it is if there is one.
        let is_elsewhere = credential.place != Place::Body;
        if is_elsewhere && same_placeholder(credentials, credential).any(|other| other.place == Place::Body) {
            continue;
        }
        if found.iter().any(|(_, other)| other.name == credential.name && other.placeholder == credential.placeholder) {
            continue;
        }
        found.extend(memmem::find_iter(body, &credential.placeholder).map(|at| (at, credential)));
    }
    found.sort_by_key(|(at, _)| *at);
    let kind =
        head.headers.all("Content-Type").next().and_then(|kind| std::str::from_utf8(kind).ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let (mut filled, mut used, mut copied) = (Zeroizing::new(Vec::with_capacity(body.len())), Vec::new(), 0);
    for (at, credential) in found {
        let misplaced = |reason| Misplaced { name: credential.name.clone(), place: "the body".to_owned(), reason };
        if let Some(objection) = credential.objection(goal, &head.method, path_of(&head.target)) {
            return Err(misplaced(objection));
        }
        if credential.place != Place::Body {
            return Err(misplaced("its place is another one"));
        }
        let secret = credential.secret.expose();
        let escaped = match kind.as_str() {
            "application/json" => Zeroizing::new(secret.replace('\\', "\\\\").replace('"', "\\\"")),
            "application/x-www-form-urlencoded" => Zeroizing::new(percent_encoded(secret)),
            _ => return Err(misplaced("the body is neither JSON nor a form")),
        };
        // Placeholders that overlap were not made by us.
        let before = body.get(copied..at).ok_or_else(|| misplaced("it overlaps with another one"))?;
        filled.extend_from_slice(before);
        filled.extend_from_slice(escaped.as_bytes());
        copied = at + credential.placeholder.len();
        if !used.contains(&credential.name) {
            used.push(credential.name.clone());
        }
    }
    filled.extend_from_slice(&body[copied..]);
    Ok((filled, used))
}

/// What a placeholder that was found in a body which is not looked at whole means.
pub(crate) fn misplaced_in_body(credential: &Credential, goal: Goal<'_>, head: &RequestHead) -> Misplaced {
    let reason = credential.objection(goal, &head.method, path_of(&head.target)).unwrap_or("its place is another one");
    Misplaced { name: credential.name.clone(), place: "the body".to_owned(), reason }
}

fn at_the_end(value: &[u8], credential: &Credential) -> Option<Vec<u8>> {
    let before = value.strip_suffix(credential.placeholder.as_bytes())?;
    if holds(before, credential.placeholder.as_bytes()) {
        return None;
    }
    Some([before, credential.secret.expose().as_bytes()].concat())
}

fn as_password(pair: &[u8], credential: &Credential) -> Option<Vec<u8>> {
    let colon = memchr::memchr(b':', pair)?;
    let (user, password) = (&pair[..colon], &pair[colon + 1..]);
    if password != credential.placeholder.as_bytes() || holds(user, credential.placeholder.as_bytes()) {
        return None;
    }
    let pair = Zeroizing::new([user, b":", credential.secret.expose().as_bytes()].concat());
    Some(format!("Basic {}", *Zeroizing::new(BASE64_STANDARD.encode(pair.as_slice()))).into_bytes())
}

/// What stands behind `Basic` in any header.
fn basic_pair(header: &Header) -> Option<Vec<u8>> {
    let config = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let engine = GeneralPurpose::new(&base64::alphabet::STANDARD, config);
    let (scheme, text) = header.value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    engine.decode(text.trim_ascii()).ok()
}

fn holds(text: &[u8], wanted: &[u8]) -> bool {
    memmem::find(text, wanted).is_some()
}

fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let digit = |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let (mut out, mut at) = (Vec::with_capacity(text.len()), 0);
    while let Some(byte) = text.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    out
}

fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::head_end;

    const PLACEHOLDER: &str = "adjph0123456789abcdef";

    fn credential(place: Place, rule: &str) -> Credential {
        Credential {
            name: "TOKEN".to_owned(),
            placeholder: PLACEHOLDER.to_owned(),
            secret: Secret::parse("TOKEN", "s3cr\"et&/".to_owned()).expect("the secret is good"),
            hosts: vec![HostRule { methods: vec!["GET".to_owned()], ..rule.parse().expect("the rule is good") }],
            place,
        }
    }

    fn head(text: &str) -> RequestHead {
        let text = format!("{}\r\n\r\n", text.replace("PH", PLACEHOLDER));
        let end = head_end(text.as_bytes()).expect("the head is good").expect("the head is whole");
        RequestHead::parse(&text.as_bytes()[..end]).expect("the head is good")
    }

    const GOAL: Goal<'_> = Goal { host: "a.test", port: 443, is_verified: true };

    #[test]
    fn placeholders_are_replaced_in_their_place_only() {
        let basic = |text: &str| format!("Basic {}", BASE64_STANDARD.encode(text.replace("PH", PLACEHOLDER)));
        let bearer = Place::Header("authorization".to_owned());
        let other = Goal { host: "b.test", ..GOAL };
        let port = Goal { port: 8443, ..GOAL };
        let clear = Goal { is_verified: false, ..GOAL };
        let cases = [
            (
                &bearer,
                GOAL,
                "GET / HTTP/1.1\r\nAuthorization: Bearer PH".to_owned(),
                Ok(Some("Bearer s3cr\"et&/".to_owned())),
            ),
            (&bearer, GOAL, "GET / HTTP/1.1\r\nAuthorization: PH".to_owned(), Ok(Some("s3cr\"et&/".to_owned()))),
            (&bearer, GOAL, "GET / HTTP/1.1\r\nAuthorization: none".to_owned(), Ok(None)),
            (&bearer, GOAL, "GET / HTTP/1.1\r\nAuthorization: Bearer PH, x".to_owned(), Err("another one")),
            (&bearer, GOAL, "GET / HTTP/1.1\r\nAuthorization: PH PH".to_owned(), Err("another one")),
            (&bearer, GOAL, "GET / HTTP/1.1\r\nX-Other: PH".to_owned(), Err("another one")),
            (&bearer, GOAL, "GET / HTTP/1.1\r\nCookie: a=PH".to_owned(), Err("another one")),
            (&bearer, GOAL, "GET /?t=PH HTTP/1.1".to_owned(), Err("the address")),
            (&bearer, GOAL, "GET /%61djph0123456789abcdef HTTP/1.1".to_owned(), Err("the address")),
            (&bearer, GOAL, "POST / HTTP/1.1\r\nAuthorization: Bearer PH".to_owned(), Err("not for this method")),
            (&bearer, GOAL, "GET / HTTP/1.1\r\nAuthorization: PH\r\nAuthorization: x".to_owned(), Err("twice")),
            (&bearer, other, "GET / HTTP/1.1\r\nAuthorization: PH".to_owned(), Err("not for this host")),
            (&bearer, port, "GET / HTTP/1.1\r\nAuthorization: PH".to_owned(), Err("not for this host")),
            (&bearer, clear, "GET / HTTP/1.1\r\nAuthorization: PH".to_owned(), Err("in the clear")),
            (&bearer, GOAL, format!("GET / HTTP/1.1\r\nAuthorization: {}", basic("u:PH")), Err("another one")),
            (
                &Place::BasicPassword,
                GOAL,
                format!("GET / HTTP/1.1\r\nAuthorization: {}", basic("u:PH")),
                Ok(Some(format!("Basic {}", BASE64_STANDARD.encode("u:s3cr\"et&/")))),
            ),
            (
                &Place::BasicPassword,
                GOAL,
                format!("GET / HTTP/1.1\r\nAuthorization: {}", basic("PH:x")),
                Err("another one"),
            ),
            (&Place::BasicPassword, GOAL, format!("GET / HTTP/1.1\r\nX: {}", basic("u:PHx")), Err("another one")),
            (&Place::BasicPassword, GOAL, "GET / HTTP/1.1\r\nAuthorization: Bearer PH".to_owned(), Err("another one")),
            (&Place::Body, GOAL, "GET / HTTP/1.1\r\nAuthorization: Bearer PH".to_owned(), Err("another one")),
        ];
        for (place, goal, text, expected) in cases {
            let mut head = head(&text);
            let found = fill_head(&[credential(place.clone(), "a.test:443")], goal, &mut head);
            match (found, expected) {
                (Ok(used), Ok(Some(value))) => {
                    assert_eq!(used, ["TOKEN"]);
                    assert_eq!(head.headers.only("authorization"), Ok(Some(value.as_bytes())), "{text}");
                }
                (Ok(used), Ok(None)) => assert!(used.is_empty(), "{text}"),
                (Err(error), Err(words)) => {
                    assert!(error.to_string().contains(words), "{error}: {text}");
                    assert!(!error.to_string().contains("s3cr"), "{error}");
                }
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
    }

    #[test]
    fn a_secret_with_two_places_goes_into_either() {
        let basic = |text: &str| format!("Basic {}", BASE64_STANDARD.encode(text));
        let filled = format!("Basic {}", BASE64_STANDARD.encode("u:s3cr\"et&/"));
        let in_basic = basic(&format!("u:{PLACEHOLDER}"));
        let both = [Place::Header("authorization".to_owned()), Place::BasicPassword, Place::Body];
        let cases = [
            ("Authorization: Bearer PH".to_owned(), Ok("Bearer s3cr\"et&/".to_owned())),
            (format!("Authorization: {in_basic}"), Ok(filled)),
            (format!("Authorization: {}", basic(&format!("{PLACEHOLDER}:x"))), Err("another one")),
            ("X-Other: PH".to_owned(), Err("another one")),
        ];
        for turned in 0..3 {
            let mut places = both.clone();
            places.rotate_left(turned);
            let all = places.map(|place| credential(place, "a.test:443"));
            for (text, expected) in &cases {
                let mut head = head(&format!("GET / HTTP/1.1\r\n{text}"));
                match (fill_head(&all, GOAL, &mut head), expected) {
                    (Ok(used), Ok(value)) => {
                        assert_eq!(used, ["TOKEN"], "{text}");
                        assert_eq!(head.headers.only("authorization"), Ok(Some(value.as_bytes())), "{text}");
                    }
                    (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{error}: {text}"),
                    (found, _) => panic!("{text}: {found:?}"),
                }
            }
            let form = head("GET / HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded");
            let body = format!("t={PLACEHOLDER}&u={PLACEHOLDER}");
            let (filled, used) = fill_body(&all, GOAL, &form, body.as_bytes()).expect("it is filled");
            assert_eq!(String::from_utf8_lossy(&filled), "t=s3cr%22et%26%2F&u=s3cr%22et%26%2F");
            assert_eq!(used, ["TOKEN"]);
        }
    }

    #[test]
    fn bodies_are_filled_as_their_kind_wants_it() {
        let cases = [
            (
                "application/json; charset=utf-8",
                "{\"t\":\"PH\",\"u\":\"PH\"}",
                Ok("{\"t\":\"s3cr\\\"et&/\",\"u\":\"s3cr\\\"et&/\"}"),
            ),
            ("application/x-www-form-urlencoded", "t=PH&u=1", Ok("t=s3cr%22et%26%2F&u=1")),
            ("application/json", "{}", Ok("{}")),
            ("text/plain", "nothing", Ok("nothing")),
            ("text/plain", "PH", Err("neither JSON nor a form")),
        ];
        for (kind, body, expected) in cases {
            let head = head(&format!("GET / HTTP/1.1\r\nContent-Type: {kind}"));
            let body = body.replace("PH", PLACEHOLDER);
            let found = fill_body(&[credential(Place::Body, "a.test:443")], GOAL, &head, body.as_bytes());
            match (found, expected) {
                (Ok((filled, used)), Ok(text)) => {
                    assert_eq!(String::from_utf8_lossy(&filled), text);
                    assert_eq!(used.len(), usize::from(body.contains(PLACEHOLDER)));
                }
                (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{error}"),
                (found, _) => panic!("{body}: {found:?}"),
            }
        }
        let header = credential(Place::Header("authorization".to_owned()), "a.test:443");
        let found = fill_body(&[header], GOAL, &head("GET / HTTP/1.1"), PLACEHOLDER.as_bytes());
        assert!(found.is_err_and(|error| error.to_string().contains("another one")));
    }
}
