//! Which function answers which path, and what it is told.

use crate::{gate::Caller, reply::Reply, token::Scope};
use adj_wire::{ApiError, ErrorKind, Query, unsupported::unsupported};
use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use hyper::{HeaderMap, Method};
use serde::de::DeserializeOwned;
use std::{collections::BTreeMap, fmt, sync::Arc};
use tokio_util::sync::CancellationToken;

/// Who may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Also those who show no token.
    Anyone,
    Api,
    Admin,
}

impl Access {
    pub(crate) fn is_for(self, scope: Scope) -> bool {
        match self {
            Self::Anyone => true,
            Self::Api => matches!(scope, Scope::Api | Scope::Admin),
            Self::Admin => scope == Scope::Admin,
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Anyone => "any",
            Self::Api => "api",
            Self::Admin => "admin",
        }
    }
}

/// A request that may be answered: its caller is known, its body is here.
#[derive(Debug)]
pub struct Call {
    pub request_id: String,
    /// `None` where anyone may ask.
    pub caller: Option<Caller>,
    /// The parts of the path that the pattern names.
    pub params: BTreeMap<&'static str, String>,
    /// What follows the question mark, as it came.
    pub raw_query: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The server is about to stop: who waits, or goes on answering, says goodbye now.
    pub stopping: CancellationToken,
}

impl Call {
    /// A part of the path, by the name that the pattern gives it.
    pub fn param(&self, name: &str) -> &str {
        self.params.get(name).map(String::as_str).expect("a handler asks for what its pattern names")
    }

    pub fn query(&self) -> Result<Query, ApiError> {
        Ok(Query::parse(&self.raw_query)?)
    }

    /// The body as a document. Clients name JSON as its type also where there is none: that is an empty object.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        let bytes = if self.body.is_empty() { b"{}" } else { &self.body[..] };
        serde_json::from_slice(bytes).map_err(|error| ApiError::invalid(format!("the request's body: {error}")))
    }
}

type Answer = BoxFuture<'static, Result<Reply, ApiError>>;
pub(crate) type Handler = Arc<dyn Fn(Call) -> Answer + Send + Sync>;

/// Functions by method and path. A pattern is a path of which some parts are names: `/v1/agents/{id}`; the last may take
/// all that is left: `/v1/models/{id...}`. Where two fit, the one with a word goes before the one with a name.
#[derive(Default)]
pub struct Routes {
    routes: Vec<Route>,
}

pub(crate) struct Route {
    method: Method,
    pattern: Vec<Part>,
    pub(crate) access: Access,
    pub(crate) handler: Handler,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Word(&'static str),
    Name(&'static str),
    Rest(&'static str),
}

/// What a path leads to.
pub(crate) enum Found<'routes> {
    Route(&'routes Route, BTreeMap<&'static str, String>),
    /// The path exists for these methods.
    OtherMethods(Vec<&'routes Method>),
    Nothing,
}

impl Routes {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a route. Patterns are written in the code, so that a wrong one is a mistake of ours.
    #[must_use]
    pub fn with<F, A>(mut self, method: Method, pattern: &'static str, access: Access, handler: F) -> Self
    where
        F: Fn(Call) -> A + Send + Sync + 'static,
        A: Future<Output = Result<Reply, ApiError>> + Send + 'static,
    {
        let handler: Handler = Arc::new(move |call| handler(call).boxed());
        self.add(Route { method, pattern: parse(pattern), access, handler });
        self
    }

    #[must_use]
    pub fn get<F, A>(self, pattern: &'static str, access: Access, handler: F) -> Self
    where
        F: Fn(Call) -> A + Send + Sync + 'static,
        A: Future<Output = Result<Reply, ApiError>> + Send + 'static,
    {
        self.with(Method::GET, pattern, access, handler)
    }

    #[must_use]
    pub fn post<F, A>(self, pattern: &'static str, access: Access, handler: F) -> Self
    where
        F: Fn(Call) -> A + Send + Sync + 'static,
        A: Future<Output = Result<Reply, ApiError>> + Send + 'static,
    {
        self.with(Method::POST, pattern, access, handler)
    }

    /// Takes in the routes of another part of the house.
    #[must_use]
    pub fn and(self, others: Self) -> Self {
        others.routes.into_iter().fold(self, |mut routes, route| {
            routes.add(route);
            routes
        })
    }

    fn add(&mut self, route: Route) {
        let is_same = |other: &Route| other.method == route.method && is_like(&other.pattern, &route.pattern);
        assert!(!self.routes.iter().any(is_same), "two routes for {} {:?}", route.method, route.pattern);
        self.routes.push(route);
    }

    pub(crate) fn find(&self, method: &Method, path: &str) -> Found<'_> {
        let mut fitting: Vec<(&Route, BTreeMap<&'static str, String>)> =
            self.routes.iter().filter_map(|route| Some((route, fit(&route.pattern, path)?))).collect();
        // Words sort before names, and names before the rest.
        fitting.sort_by(|(one, _), (other, _)| one.pattern.cmp(&other.pattern));
        match fitting.iter().position(|(route, _)| route.method == *method) {
            Some(place) => {
                let (route, params) = fitting.swap_remove(place);
                Found::Route(route, params)
            }
            None if fitting.is_empty() => Found::Nothing,
            None => {
                let mut methods: Vec<&Method> = fitting.into_iter().map(|(route, _)| &route.method).collect();
                methods.dedup();
                Found::OtherMethods(methods)
            }
        }
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Routes({})", self.routes.len())
    }
}

fn parse(pattern: &'static str) -> Vec<Part> {
    let parts = pattern.strip_prefix('/').expect("a pattern begins with a slash").split('/');
    let part = |part: &'static str| match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
        Some(name) => name.strip_suffix("...").map_or(Part::Name(name), Part::Rest),
        None => Part::Word(part),
    };
    parts.map(part).collect()
}

/// Whether two patterns fit the same paths.
fn is_like(one: &[Part], other: &[Part]) -> bool {
    let same = |(one, other): (&Part, &Part)| match (one, other) {
        (Part::Word(one), Part::Word(other)) => one == other,
        (one, other) => std::mem::discriminant(one) == std::mem::discriminant(other),
    };
    one.len() == other.len() && one.iter().zip(other).all(same)
}

/// The named parts of a path, if the pattern fits. A name stands for something: `/v1/agents/` is no agent.
fn fit(pattern: &[Part], path: &str) -> Option<BTreeMap<&'static str, String>> {
    let mut rest = Some(path.strip_prefix('/')?);
    let mut params = BTreeMap::new();
    for part in pattern {
        let left = rest?;
        let (here, after) = match (part, left.split_once('/')) {
            (Part::Rest(_), _) | (_, None) => (left, None),
            (_, Some((here, after))) => (here, Some(after)),
        };
        match part {
            Part::Word(word) if *word != here => return None,
            Part::Word(_) => {}
            Part::Name(_) | Part::Rest(_) if here.is_empty() => return None,
            Part::Name(name) | Part::Rest(name) => {
                params.insert(*name, decoded(here));
            }
        }
        rest = after;
    }
    rest.is_none().then_some(params)
}

/// Reads `%2F` and its like; what is none stays as it is.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut found = Vec::with_capacity(bytes.len());
    let mut place = 0;
    while place < bytes.len() {
        let digit = |offset: usize| bytes.get(place + offset).and_then(|byte| char::from(*byte).to_digit(16));
        match (bytes[place], digit(1), digit(2)) {
            (b'%', Some(high), Some(low)) => {
                found.push((high * 16 + low) as u8);
                place += 3;
            }
            (byte, _, _) => {
                found.push(byte);
                place += 1;
            }
        }
    }
    String::from_utf8_lossy(&found).into_owned()
}

/// What is answered where there is nothing.
pub(crate) fn nothing(method: &Method, path: &str) -> ApiError {
    let shown = &path[..path.floor_char_boundary(200)];
    unsupported(path)
        .unwrap_or_else(|| ApiError::new(ErrorKind::NotFound, format!("there is nothing at {method} {shown}")))
}

pub(crate) fn wrong_method(method: &Method, path: &str, offered: &[&Method]) -> ApiError {
    let path = &path[..path.floor_char_boundary(200)];
    let offered: Vec<&str> = offered.iter().map(|method| method.as_str()).collect();
    let message = format!("{method} {path}: only {} is of use here", offered.join(" and "));
    ApiError::new(ErrorKind::MethodNotAllowed, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_go_before_names_and_names_stand_for_something() {
        let nothing = |_: Call| async { Ok(Reply::json(&())) };
        let routes = Routes::new()
            .get("/v1/agents", Access::Api, nothing)
            .get("/v1/agents/{id}", Access::Api, nothing)
            .get("/v1/agents/own", Access::Api, nothing)
            .post("/v1/agents/{id}/archive", Access::Api, nothing)
            .and(Routes::new().get("/v1/models/{id...}", Access::Api, nothing));
        let found = |method: Method, path: &str| match routes.find(&method, path) {
            Found::Route(route, params) => format!("{:?} {params:?}", route.pattern.last().expect("it has parts")),
            Found::OtherMethods(methods) => format!("{methods:?}"),
            Found::Nothing => "nothing".to_owned(),
        };
        let cases = [
            ("/v1/agents", r#"Word("agents") {}"#),
            ("/v1/agents/", "nothing"),
            ("/v1/agents/a%2Fb", r#"Name("id") {"id": "a/b"}"#),
            ("/v1/agents/own", r#"Word("own") {}"#),
            ("/v1/agents/own/archive", "[POST]"),
            ("/v1/agents/a/archive/", "nothing"),
            ("/v1/models/a/b%20c", r#"Rest("id") {"id": "a/b c"}"#),
            ("/v1/models", "nothing"),
            ("/v1//agents", "nothing"),
            ("*", "nothing"),
        ];
        for (path, expected) in cases {
            assert_eq!(found(Method::GET, path), expected, "{path}");
        }
        assert_eq!(found(Method::POST, "/v1/agents/own"), "[GET]");
    }
}
