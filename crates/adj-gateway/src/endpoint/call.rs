//! What a request line asks for.

use super::{Refusal, RefusalKind, Wire, meter::Operation};
use hyper::{HeaderMap, Method, Uri, header, http::request::Parts};

/// A request whose place is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Call {
    Ask(Ask),
    /// The list of models, or one of them.
    Models {
        wire: Wire,
        one: Option<String>,
    },
    /// The Responses API over a websocket: with an empty answer of status 426 clients turn to plain HTTP.
    Websocket,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) wire: Wire,
    pub(super) operation: Operation,
    /// Gemini names the model in the path, everybody else in the body.
    pub(super) in_path: Option<InPath>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InPath {
    /// `v1` or `v1beta`.
    pub(super) version: &'static str,
    pub(super) model: String,
    /// As the caller wrote it.
    pub(super) raw_model: String,
    pub(super) method: &'static str,
    pub(super) streams: Streams,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Streams {
    No,
    Events,
    /// Without `alt=sse` a stream is one long list.
    List,
}

/// All that is offered, as a 404 lists it.
const OFFERED: &str = "POST /v1/responses, POST /v1/messages, POST /v1/messages/count_tokens, POST /v1/chat/completions, \
                       POST /v1beta/models/{model}:generateContent (also streamGenerateContent and countTokens, and below \
                       /v1/models), GET /v1/models, GET /v1beta/models";

impl Ask {
    /// Whether the answer is to be a stream: Gemini's callers say it in the path, everybody else in the body.
    pub(super) fn streams(&self, in_body: bool) -> bool {
        self.in_path.as_ref().map_or(in_body, |path| path.streams != Streams::No)
    }
}

impl Call {
    pub(super) fn of(head: &Parts) -> Result<Self, (Wire, Refusal)> {
        let path = head.uri.path();
        let ask = |wire, operation| Ok(Self::Ask(Ask { wire, operation, in_path: None }));
        let (wire, call) = match path {
            "/v1/responses" if head.method == Method::GET && is_websocket(&head.headers) => return Ok(Self::Websocket),
            "/v1/responses" => (Wire::Responses, ask(Wire::Responses, Operation::Generate)),
            "/v1/messages" => (Wire::Messages, ask(Wire::Messages, Operation::Generate)),
            "/v1/messages/count_tokens" => (Wire::Messages, ask(Wire::Messages, Operation::CountTokens)),
            "/v1/chat/completions" => (Wire::Chat, ask(Wire::Chat, Operation::Generate)),
            _ => return Self::below_models(head),
        };
        if head.method != Method::POST {
            let message = format!("{} {path}: only POST is of use here", head.method);
            return Err((wire, Refusal::new(RefusalKind::WrongMethod, message)));
        }
        call
    }

    fn below_models(head: &Parts) -> Result<Self, (Wire, Refusal)> {
        let path = head.uri.path();
        let (version, rest) = match (path.strip_prefix("/v1beta/models"), path.strip_prefix("/v1/models")) {
            (Some(rest), _) => ("v1beta", rest),
            (None, Some(rest)) => ("v1", rest),
            (None, None) => return Err(nothing(head)),
        };
        let wire = if version == "v1beta" { Wire::Gemini } else { guess(head) };
        if head.method == Method::GET {
            return match rest.strip_prefix('/') {
                None if rest.is_empty() => Ok(Self::Models { wire, one: None }),
                Some(one) if !one.is_empty() => Ok(Self::Models { wire, one: Some(decoded(one)) }),
                _ => Err(nothing(head)),
            };
        }
        let Some((raw_model, method)) = rest.strip_prefix('/').and_then(|rest| rest.rsplit_once(':')) else {
            return Err(nothing(head));
        };
        let as_events = query(&head.uri).any(|(name, value)| name == "alt" && value == "sse");
        let (method, operation, streams) = match method {
            "generateContent" => ("generateContent", Operation::Generate, Streams::No),
            "streamGenerateContent" if as_events => ("streamGenerateContent", Operation::Generate, Streams::Events),
            "streamGenerateContent" => ("streamGenerateContent", Operation::Generate, Streams::List),
            "countTokens" => ("countTokens", Operation::CountTokens, Streams::No),
            _ => return Err(nothing(head)),
        };
        if head.method != Method::POST || raw_model.is_empty() {
            return Err(nothing(head));
        }
        let (model, raw_model) = (decoded(raw_model), raw_model.to_owned());
        let in_path = Some(InPath { version, model, raw_model, method, streams });
        Ok(Self::Ask(Ask { wire: Wire::Gemini, operation, in_path }))
    }

    pub(super) fn wire(&self) -> Wire {
        match self {
            Self::Ask(ask) => ask.wire,
            Self::Models { wire, .. } => *wire,
            Self::Websocket => Wire::Responses,
        }
    }
}

fn nothing(head: &Parts) -> (Wire, Refusal) {
    let path = head.uri.path();
    let path = &path[..path.floor_char_boundary(200)];
    let message = format!("{} {path} is not offered here; there is: {OFFERED}", head.method);
    (guess(head), Refusal::new(RefusalKind::NotFound, message))
}

/// Whose client this is, by its headers; three vendors share one path.
fn guess(head: &Parts) -> Wire {
    let has = |name: &str| head.headers.contains_key(name);
    if has("x-goog-api-key")
        || query(&head.uri).any(|(name, _)| name == "key")
        || head.uri.path().starts_with("/v1beta")
    {
        Wire::Gemini
    } else if has("anthropic-version") || has("x-api-key") || head.uri.path().starts_with("/v1/messages") {
        Wire::Messages
    } else if head.uri.path().starts_with("/v1/chat") {
        Wire::Chat
    } else {
        Wire::Responses
    }
}

fn is_websocket(headers: &HeaderMap) -> bool {
    headers.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// The parts of a query, as they are written.
pub(super) fn query(uri: &Uri) -> impl Iterator<Item = (&str, &str)> {
    let parts = uri.query().unwrap_or_default().split('&').filter(|part| !part.is_empty());
    parts.map(|part| part.split_once('=').unwrap_or((part, "")))
}

/// Every word that may be meant as a token.
pub(super) fn shown_tokens(head: &Parts) -> Vec<String> {
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = header("authorization").and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    });
    let in_query = query(&head.uri).find(|(name, _)| *name == "key").map(|(_, value)| decoded(value));
    let in_headers = [bearer, header("x-api-key"), header("x-goog-api-key")].into_iter().flatten().map(str::to_owned);
    in_headers.chain(in_query).collect()
}

/// Reads `%2F` and its like; what is none stays as it is.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut found = Vec::with_capacity(bytes.len());
    let mut place = 0;
    while place < bytes.len() {
        let digits = bytes.get(place + 1..place + 3).and_then(|digits| std::str::from_utf8(digits).ok());
        let value = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match value.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(value) if bytes[place] == b'%' => {
                found.push(value);
                place += 3;
            }
            _ => {
                found.push(bytes[place]);
                place += 1;
            }
        }
    }
    String::from_utf8_lossy(&found).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    fn call(line: &str, headers: &[(&str, &str)]) -> String {
        let (method, path) = line.split_once(' ').expect("a test's line has a method");
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).expect("a test's request is one").into_parts();
        match Call::of(&head) {
            Ok(Call::Ask(Ask { wire, operation, in_path })) => {
                let path = in_path.map(|path| format!(" {} {} {:?}", path.version, path.model, path.streams));
                format!("{wire:?} {operation:?}{}", path.unwrap_or_default())
            }
            Ok(Call::Models { wire, one }) => format!("models for {wire:?} {}", one.unwrap_or_default()),
            Ok(Call::Websocket) => "websocket".to_owned(),
            Err((wire, refusal)) => format!("{wire:?} {}", refusal.status(wire).as_u16()),
        }
    }

    #[test]
    fn three_vendors_share_the_paths() {
        let goog = ("x-goog-api-key", "t");
        let anthropic = ("anthropic-version", "2023-06-01");
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);
        let cases: [Case<'_>; 23] = [
            ("POST /v1/responses", &[], "Responses Generate"),
            ("GET /v1/responses", &[], "Responses 405"),
            ("GET /v1/responses", &[("upgrade", "WebSocket")], "websocket"),
            ("POST /v1/messages?beta=true", &[], "Messages Generate"),
            ("POST /v1/messages/count_tokens?beta=true", &[], "Messages CountTokens"),
            ("POST /v1/messages/batches", &[], "Messages 404"),
            ("POST /v1/chat/completions", &[], "Chat Generate"),
            ("POST /v1beta/models/g-3:generateContent", &[], "Gemini Generate v1beta g-3 No"),
            ("POST /v1/models/g-3:streamGenerateContent?alt=sse", &[], "Gemini Generate v1 g-3 Events"),
            ("POST /v1/models/g-3:streamGenerateContent", &[goog], "Gemini Generate v1 g-3 List"),
            ("POST /v1beta/models/a%2Fb:7b:countTokens", &[], "Gemini CountTokens v1beta a/b:7b No"),
            ("POST /v1beta/models/a/b:generateContent", &[], "Gemini Generate v1beta a/b No"),
            ("POST /v1beta/models/m:embedContent", &[], "Gemini 404"),
            ("GET /v1/models", &[], "models for Responses "),
            ("GET /v1/models?limit=1000", &[anthropic], "models for Messages "),
            ("GET /v1/models", &[("x-api-key", "t")], "models for Messages "),
            ("GET /v1/models", &[goog], "models for Gemini "),
            ("GET /v1/models?key=t", &[], "models for Gemini "),
            ("GET /v1beta/models/g", &[], "models for Gemini g"),
            ("GET /v1/modelsx", &[], "Responses 404"),
            ("HEAD /", &[], "Responses 404"),
            ("POST /v2/anything", &[goog], "Gemini 404"),
            ("DELETE /v1/models/m:generateContent", &[], "Responses 404"),
        ];
        for (line, headers, expected) in cases {
            assert_eq!(call(line, headers), expected, "{line} {headers:?}");
        }
    }

    #[test]
    fn percent_signs_are_read_where_they_mean_something() {
        let cases = [("a%2Fb", "a/b"), ("100%", "100%"), ("%zz%4", "%zz%4"), ("%F0%9F%A6%80", "🦀"), ("%+1", "%+1")];
        for (text, expected) in cases {
            assert_eq!(decoded(text), expected);
        }
    }
}
