//! The two fields of a request's body that decide where it goes, and a change of one that keeps every other byte.

use super::Refusal;
use bytes::{Bytes, BytesMut};
use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::{fmt, ops::Range};

/// What the top of a body says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Top {
    pub(super) model: Option<String>,
    pub(super) stream: bool,
    /// Where the model's name stands, with its quotes.
    place: Option<Range<usize>>,
}

impl Top {
    /// Reads the top of a body that must be one JSON object.
    pub(super) fn read(body: &[u8]) -> Result<Self, Refusal> {
        let text = std::str::from_utf8(body).map_err(|_| Refusal::invalid("the request's body is not UTF-8"))?;
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let top = deserializer.deserialize_map(TopVisitor { text }).and_then(|top| deserializer.end().map(|()| top));
        top.map_err(|error| Refusal::invalid(format!("the request's body is not the JSON that it should be: {error}")))
    }

    /// Returns the body with another model in it, and nothing else changed.
    pub(super) fn with_model(&self, body: &Bytes, model: &str) -> Bytes {
        match &self.place {
            Some(place) if self.model.as_deref() != Some(model) => {
                let name = serde_json::Value::from(model).to_string();
                let mut whole = BytesMut::with_capacity(body.len() + name.len());
                whole.extend_from_slice(&body[..place.start]);
                whole.extend_from_slice(name.as_bytes());
                whole.extend_from_slice(&body[place.end..]);
                whole.freeze()
            }
            _ => body.clone(),
        }
    }
}

struct TopVisitor<'a> {
    text: &'a str,
}

impl<'a> Visitor<'a> for TopVisitor<'a> {
    type Value = Top;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Top, A::Error> {
        let mut top = Top::default();
        let mut streams_seen = false;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "model" => {
                    let raw: &'a RawValue = map.next_value()?;
                    let name = serde_json::from_str(raw.get()).map_err(|_| custom("\"model\" is not a text"))?;
                    // Two readers of such a body may understand two different models.
                    if top.model.replace(name).is_some() {
                        return Err(custom("\"model\" stands there twice"));
                    }
                    let start = raw.get().as_ptr() as usize - self.text.as_ptr() as usize;
                    top.place = Some(start..start + raw.get().len());
                }
                "stream" => {
                    top.stream = map.next_value::<Option<bool>>()?.unwrap_or(false);
                    if std::mem::replace(&mut streams_seen, true) {
                        return Err(custom("\"stream\" stands there twice"));
                    }
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(top)
    }
}

fn custom<E: serde::de::Error>(message: &str) -> E {
    E::custom(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_models_name_changes() {
        let cases = [
            (r#"{"model":"a"}"#, "b", r#"{"model":"b"}"#),
            (
                "{ \"x\" : {\"model\":\"a\"} ,\n\t\"mod\\u0065l\"  : \"a\" , \"y\":1e400,\"y\":[{ }]}\r\n ",
                "b\"c",
                "{ \"x\" : {\"model\":\"a\"} ,\n\t\"mod\\u0065l\"  : \"b\\\"c\" , \"y\":1e400,\"y\":[{ }]}\r\n ",
            ),
            // A name that stays is not written anew, in whatever way it was written.
            (r#"{"model":"\u0061","stream":true}"#, "a", r#"{"model":"\u0061","stream":true}"#),
            (r#"{"contents":[]}"#, "b", r#"{"contents":[]}"#),
        ];
        for (body, model, expected) in cases {
            let top = Top::read(body.as_bytes()).unwrap_or_else(|error| panic!("{body}: {error}"));
            let spliced = top.with_model(&Bytes::from_static(body.as_bytes()), model);
            assert_eq!(String::from_utf8_lossy(&spliced), expected);
        }
    }

    #[test]
    fn what_is_no_request_is_refused_in_words() {
        let cases: [(&[u8], &str); 9] = [
            (b"", "EOF"),
            (b"[1]", "a JSON object"),
            (b"{\"model\":\"a\xff\"}", "not UTF-8"),
            (b"{\"model\":7}", "is not a text"),
            (b"{\"model\":\"a\",\"model\":\"b\"}", "\"model\" stands there twice"),
            (b"{\"model\":\"a\"} {}", "trailing characters"),
            (b"{\"model\":\"a\",", "EOF"),
            (b"{\"stream\":1}", "invalid type"),
            (b"<html>", "expected value"),
        ];
        for (body, words) in cases {
            let error = Top::read(body).expect_err("it is no request");
            assert!(error.message.contains(words), "{}: {error}", String::from_utf8_lossy(body));
        }
        let deep = format!("{{\"x\":{}1{},\"model\":\"a\"}}", "[".repeat(100_000), "]".repeat(100_000));
        let _ = Top::read(deep.as_bytes());
    }
}
