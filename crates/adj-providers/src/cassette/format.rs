//! The lines of a cassette.

use crate::{ModelEvent, ProviderError, Reading, Scope, WireKind, headers::in_milliseconds};
use adj_domain::{FailureKind, ModelRef, ModelRequest, Timestamp};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::BTreeMap, fs::File, io::Read, path::Path, time::Duration};

pub(super) const FORMAT: &str = "adjutant-cassette";
pub(super) const VERSION: u32 = 1;
/// The longest line that is written or read.
pub(super) const MAX_LINE_BYTES: usize = 64 * 1024 * 1024;
/// How every cassette begins; a playbook never does.
const BEGINNING: &[u8] = b"{\"format\":\"adjutant-cassette\"";

/// Folders that lie elsewhere at the next run, by a name for each: what stands for what when two requests are compared.
pub type Places = BTreeMap<String, String>;

/// Whether a file begins as a cassette does.
pub fn is_cassette(path: &Path) -> bool {
    let mut beginning = Vec::new();
    let read = File::open(path).and_then(|file| file.take(BEGINNING.len() as u64).read_to_end(&mut beginning));
    read.is_ok() && beginning == BEGINNING
}

/// The first line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) format: String,
    pub(super) version: u32,
    /// The version of the program that wrote it.
    pub(super) adjutant: String,
    pub(super) recorded_at: Timestamp,
    #[serde(flatten)]
    pub(super) heading: Heading,
}

/// What a recording command was told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heading {
    /// The model that it was to use.
    pub model: ModelRef,
    /// The vendors that could be called, and the wire that each of them speaks, if it is one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub vendors: BTreeMap<String, Option<WireKind>>,
    #[serde(default, skip_serializing_if = "Places::is_empty")]
    pub places: Places,
}

/// Every other line: one attempt at one request, written when it was over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "exchange")]
pub(super) enum Exchange {
    #[serde(rename = "neutral")]
    Neutral(Box<Neutral>),
    #[serde(rename = "passed")]
    Passed(Box<Passed>),
    #[serde(rename = "too_large")]
    TooLarge(TooLarge),
}

/// A request in neutral form, as our own loop makes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Neutral {
    pub(super) at_ms: u64,
    pub(super) took_ms: u64,
    pub(super) attempt: u32,
    pub(super) request: ModelRequest,
    /// Each with the milliseconds since the request left.
    pub(super) events: Vec<(u64, ModelEvent)>,
    pub(super) end: End,
}

/// A request that passed through in the vendor's own words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Passed {
    pub(super) at_ms: u64,
    pub(super) took_ms: u64,
    pub(super) wire: WireKind,
    pub(super) path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) query: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Body,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) answer: Option<AnswerHead>,
    /// The answer's bytes as they came, each piece with the milliseconds since the request left.
    pub(super) chunks: Vec<(u64, Piece)>,
    pub(super) end: End,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct AnswerHead {
    pub(super) status: u16,
    pub(super) headers: BTreeMap<String, String>,
}

/// What stands for an exchange that no line can hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct TooLarge {
    pub(super) at_ms: u64,
    /// Whose it was, for people.
    pub(super) who: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Body {
    #[serde(rename = "json")]
    Json(Value),
    #[serde(rename = "text")]
    Text(String),
    #[serde(rename = "base64")]
    Base64(String),
}

impl Body {
    pub(super) fn of(bytes: &[u8]) -> Self {
        if let Ok(value) = serde_json::from_slice(bytes) {
            return Self::Json(value);
        }
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Base64(BASE64_STANDARD.encode(bytes)),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Piece {
    Text(String),
    Bytes { base64: String },
}

impl Piece {
    pub(super) fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Bytes { base64: BASE64_STANDARD.encode(bytes) },
        }
    }

    pub(super) fn into_bytes(self) -> Result<Bytes, ProviderError> {
        match self {
            Self::Text(text) => Ok(text.into()),
            Self::Bytes { base64 } => match BASE64_STANDARD.decode(base64) {
                Ok(bytes) => Ok(bytes.into()),
                Err(_) => Err(ProviderError::protocol("a piece of the recorded answer is not base64")),
            },
        }
    }
}

/// How an exchange ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum End {
    /// The answer came to its proper end; of one that passed through, the connection did.
    #[serde(rename = "finished")]
    Finished,
    /// The stream was over before the answer was.
    #[serde(rename = "cut")]
    Cut,
    /// The caller gave it up.
    #[serde(rename = "dropped")]
    Dropped,
    #[serde(rename = "failed")]
    Failed(Failed),
}

/// A [`ProviderError`] as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Failed {
    pub(super) kind: FailureKind,
    pub(super) message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<u16>,
    #[serde(rename = "retry_after_ms", default, skip_serializing_if = "Option::is_none", with = "in_milliseconds")]
    pub(super) retry_after: Option<Duration>,
    #[serde(default)]
    pub(super) scope: Scope,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) readings: Vec<Reading>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_unsent: bool,
}

impl From<&ProviderError> for Failed {
    fn from(error: &ProviderError) -> Self {
        let ProviderError { kind, message, status, retry_after, scope, readings, is_unsent } = error.clone();
        Self { kind, message, status, retry_after, scope, readings, is_unsent }
    }
}

impl From<Failed> for ProviderError {
    fn from(failed: Failed) -> Self {
        let Failed { kind, message, status, retry_after, scope, readings, is_unsent } = failed;
        Self { status, retry_after, scope, readings, is_unsent, ..Self::new(kind, message) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use adj_domain::{AnswerBlock, Caller, Content, EventId, Item, Purpose, SessionId, StopReason, Usage};
    use proptest::{collection::vec, option, prelude::*};
    use serde_json::json;

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_filter("JSON has no other numbers", |number| number.is_finite()).prop_map(Value::from),
            "\\PC{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..4).prop_map(Value::from),
                vec(("\\PC{0,6}", inner), 0..4).prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    fn request() -> impl Strategy<Value = ModelRequest> {
        let item = prop_oneof![
            any::<String>().prop_map(|text| Item::User { content: vec![Content::text(text)] }),
            any::<String>().prop_map(|text| Item::Assistant { text }),
            value().prop_map(|input| Item::ToolCall { id: EventId::derive(&["x"]), name: "bash".to_owned(), input }),
            value().prop_map(|payload| Item::Reasoning { vendor: "v".to_owned(), model: "m".to_owned(), payload }),
        ];
        (any::<String>(), vec(item, 0..4), any::<u32>(), option::of(value())).prop_map(
            |(system, items, step, output_schema)| ModelRequest {
                model: "vendor/model".parse().expect("a model"),
                purpose: Purpose::Step,
                caller: Caller {
                    session: SessionId::derive(&["s"]),
                    run: None,
                    agent: system.clone(),
                    role: "r".to_owned(),
                    turn: 1,
                    step,
                },
                system,
                items,
                tools: Vec::new(),
                max_output_tokens: 1,
                // A null there is the same as nothing.
                output_schema: output_schema.filter(|schema| !schema.is_null()),
                effort: None,
                sampling: Default::default(),
            },
        )
    }

    fn event() -> impl Strategy<Value = ModelEvent> {
        let input = prop_oneof![value().prop_map(Ok), any::<String>().prop_map(Err)];
        prop_oneof![
            any::<u64>().prop_map(|limit| {
                let reset = Some(Duration::from_millis(limit >> 8));
                ModelEvent::Limits(vec![Reading {
                    resource: crate::Resource::Tokens,
                    limit: Some(limit),
                    remaining: None,
                    reset,
                }])
            }),
            any::<String>().prop_map(|model| ModelEvent::Started { model }),
            (any::<u32>(), any::<String>()).prop_map(|(index, text)| ModelEvent::TextDelta { index, text }),
            (any::<u32>(), any::<String>()).prop_map(|(index, text)| ModelEvent::ReasoningDelta { index, text }),
            (any::<u32>(), option::of(any::<String>()), any::<String>())
                .prop_map(|(index, name, arguments)| ModelEvent::ToolCallDelta { index, name, arguments }),
            any::<String>().prop_map(|text| ModelEvent::Block(AnswerBlock::Text { text })),
            (any::<String>(), input).prop_map(|(name, input)| {
                ModelEvent::Block(AnswerBlock::ToolCall { vendor_call_id: name.clone(), name, input })
            }),
            any::<u64>().prop_map(|tokens| ModelEvent::Usage(Usage { input_tokens: tokens, ..Usage::default() })),
            any::<String>().prop_map(|word| ModelEvent::Finished { stop: StopReason::Other(word) }),
        ]
    }

    fn end() -> impl Strategy<Value = End> {
        let failed = (any::<String>(), option::of(400u16..600), option::of(any::<u32>()), any::<bool>());
        prop_oneof![
            Just(End::Finished),
            Just(End::Cut),
            Just(End::Dropped),
            failed.prop_map(|(message, status, wait, is_unsent)| End::Failed(Failed {
                kind: FailureKind::Overloaded,
                message,
                status,
                retry_after: wait.map(|wait| Duration::from_millis(wait.into())),
                scope: Scope::Account,
                readings: Vec::new(),
                is_unsent,
            })),
        ]
    }

    fn neutral() -> impl Strategy<Value = Exchange> {
        (any::<u64>(), request(), vec((any::<u64>(), event()), 0..6), end()).prop_map(
            |(at_ms, request, events, end)| {
                Exchange::Neutral(Box::new(Neutral { at_ms, took_ms: 1, attempt: 1, request, events, end }))
            },
        )
    }

    fn passed() -> impl Strategy<Value = Exchange> {
        let chunks = vec((any::<u64>(), vec(any::<u8>(), 0..12)), 0..4);
        (value(), vec(any::<u8>(), 0..12), any::<bool>(), chunks, end()).prop_map(
            |(json, bytes, is_json, chunks, end)| {
                let body = if is_json { json.to_string().into_bytes() } else { bytes };
                Exchange::Passed(Box::new(Passed {
                    at_ms: 0,
                    took_ms: 1,
                    wire: WireKind::Gemini,
                    path: "/p".to_owned(),
                    query: None,
                    headers: BTreeMap::new(),
                    body: Body::of(&body),
                    answer: Some(AnswerHead {
                        status: 200,
                        headers: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
                    }),
                    chunks: chunks.into_iter().map(|(at, bytes)| (at, Piece::of(&bytes))).collect(),
                    end,
                }))
            },
        )
    }

    proptest! {
        #[test]
        fn a_line_says_what_was_written(exchange in prop_oneof![neutral(), passed()]) {
            let line = serde_json::to_string(&exchange).expect("it is JSON");
            prop_assert!(!line.contains('\n'));
            let read: Exchange = serde_json::from_str(&line).expect("it can be read");
            prop_assert_eq!(read, exchange);
        }

        #[test]
        fn pieces_keep_their_bytes(bytes in vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(Piece::of(&bytes).into_bytes().expect("they come back"), bytes);
        }
    }

    #[test]
    fn this_is_how_lines_look() {
        let event = |event: ModelEvent| serde_json::to_value(event).expect("an event is JSON");
        let cases = [
            (event(ModelEvent::Started { model: "m".to_owned() }), json!({"started": {"model": "m"}})),
            (
                event(ModelEvent::TextDelta { index: 0, text: "a".to_owned() }),
                json!({"text_delta": {"index": 0, "text": "a"}}),
            ),
            (event(ModelEvent::Finished { stop: StopReason::EndTurn }), json!({"finished": {"stop": "end_turn"}})),
            (
                event(ModelEvent::Block(AnswerBlock::Text { text: "a".to_owned() })),
                json!({"block": {"type": "text", "text": "a"}}),
            ),
            (serde_json::to_value(WireKind::OpenAi).expect("a word"), json!("responses")),
            (serde_json::to_value(Piece::of(b"\xff")).expect("a piece"), json!({"base64": "/w=="})),
            (serde_json::to_value(Piece::of("ü".as_bytes())).expect("a piece"), json!("ü")),
        ];
        for (found, expected) in cases {
            assert_eq!(found, expected);
        }
    }
}
