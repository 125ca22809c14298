//! The file of a playbook: its keys, its limits, and what is wrong with it, by line and column.

use super::template::{names_of, unknown_reference};
use adj_domain::{Purpose, StopReason};
use regex::Regex;
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;
use serde_saphyr::{Location, Spanned};
use std::{fmt, fs::File, io, io::Read, marker::PhantomData, path::Path, path::PathBuf};

pub(super) const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;
const MAX_RULES: usize = 10_000;
/// Ten minutes.
const MAX_DELAY_MS: u64 = 600_000;

#[derive(Debug, thiserror::Error)]
pub enum PlaybookError {
    #[error("cannot read the playbook {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the playbook {file} is larger than {MAX_FILE_BYTES} bytes")]
    TooLarge { file: String },
    #[error("{file}:{line}:{column}: {problem}")]
    Content { file: String, line: u64, column: u64, problem: String },
}

/// A list of rules, checked; the first one that fits a request answers it.
#[derive(Debug, Clone)]
pub struct Playbook {
    pub(super) file: String,
    pub(super) rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) when: When,
    pub(super) think: Option<String>,
    pub(super) say: Option<String>,
    pub(super) json: Option<Value>,
    pub(super) calls: Vec<Call>,
    pub(super) stop: Option<StopReason>,
    pub(super) usage: Option<UsageKeys>,
    pub(super) delay_ms: u64,
    pub(super) chunk: Option<usize>,
    pub(super) chunk_delay_ms: u64,
    pub(super) fail: Vec<Fail>,
}

#[derive(Debug, Clone)]
pub(super) struct When {
    pub(super) agent: Vec<String>,
    pub(super) role: Vec<String>,
    pub(super) purpose: Purpose,
    pub(super) turn: Vec<u32>,
    pub(super) step: Vec<u32>,
    pub(super) input: Option<Regex>,
    pub(super) prompt: Option<Regex>,
    pub(super) after_tool: Vec<String>,
    pub(super) tool_failed: Option<bool>,
}

#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) tool: String,
    /// Text instead of JSON, where a playbook wants to try malformed arguments.
    pub(super) input: Result<Value, String>,
}

#[derive(Debug, Clone)]
pub(super) struct Fail {
    pub(super) how: Failure,
    /// `None`: every attempt.
    pub(super) times: Option<u32>,
}

#[derive(Debug, Clone)]
pub(super) enum Failure {
    Status { status: u16, message: Option<String>, retry_after_ms: Option<u64> },
    Cut { after_chars: usize },
    Malformed,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UsageKeys {
    #[serde(default)]
    pub(super) input: u64,
    #[serde(default)]
    pub(super) output: u64,
    #[serde(default)]
    pub(super) cache_read: u64,
    #[serde(default)]
    pub(super) cache_write: u64,
    #[serde(default)]
    pub(super) reasoning: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPlaybook {
    rules: Vec<Spanned<RawRule>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    /// For people only.
    #[serde(default, rename = "name")]
    _name: Option<String>,
    #[serde(default)]
    when: RawWhen,
    #[serde(default)]
    think: Option<String>,
    #[serde(default)]
    say: Option<String>,
    #[serde(default)]
    json: Option<Value>,
    #[serde(default)]
    calls: Vec<RawCall>,
    #[serde(default)]
    stop: Option<RawStop>,
    #[serde(default)]
    usage: Option<UsageKeys>,
    #[serde(default)]
    delay_ms: u64,
    #[serde(default)]
    chunk: Option<usize>,
    #[serde(default)]
    chunk_delay_ms: u64,
    #[serde(default)]
    fail: OneOrMany<RawFail>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWhen {
    #[serde(default)]
    agent: OneOrMany<String>,
    #[serde(default)]
    role: OneOrMany<String>,
    #[serde(default)]
    purpose: Option<Purpose>,
    #[serde(default)]
    turn: OneOrMany<u32>,
    #[serde(default)]
    step: OneOrMany<u32>,
    #[serde(default)]
    input: Option<Spanned<String>>,
    #[serde(default)]
    prompt: Option<Spanned<String>>,
    #[serde(default)]
    after_tool: OneOrMany<String>,
    #[serde(default)]
    tool_failed: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCall {
    tool: String,
    #[serde(default)]
    input: Option<Value>,
    #[serde(default)]
    raw: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RawStop {
    EndTurn,
    ToolUse,
    MaxTokens,
    Refusal,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFail {
    #[serde(default)]
    status: Option<u16>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    retry_after_ms: Option<u64>,
    #[serde(default)]
    cut_after_chars: Option<usize>,
    #[serde(default)]
    malformed: bool,
    #[serde(default)]
    times: Option<u32>,
}

/// A value, or a list of them. An untagged enum would do, but would lose where and what an error is.
struct OneOrMany<T>(Vec<T>);

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> de::Visitor<'de> for Visitor<T> {
            type Value = OneOrMany<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one value or a list of them")
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = list.next_element()? {
                    values.push(value);
                }
                Ok(OneOrMany(values))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                Ok(OneOrMany(vec![T::deserialize(de::value::MapAccessDeserializer::new(map))?]))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(OneOrMany(vec![T::deserialize(de::value::StrDeserializer::new(text))?]))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
                Ok(OneOrMany(vec![T::deserialize(de::value::U64Deserializer::new(number))?]))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
                Ok(OneOrMany(vec![T::deserialize(de::value::I64Deserializer::new(number))?]))
            }
        }

        deserializer.deserialize_any(Visitor(PhantomData))
    }
}

impl Playbook {
    pub fn load(path: &Path) -> Result<Self, PlaybookError> {
        let unreadable = |source| PlaybookError::Read { path: path.to_owned(), source };
        let mut text = String::new();
        let file = File::open(path).map_err(unreadable)?;
        file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Reads a playbook; `file` is what errors call it.
    pub fn parse(text: &str, file: &str) -> Result<Self, PlaybookError> {
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(PlaybookError::TooLarge { file: file.to_owned() });
        }
        let content = |location: Location, problem: String| PlaybookError::Content {
            file: file.to_owned(),
            line: location.line(),
            column: location.column(),
            problem,
        };
        let options = serde_saphyr::options! { with_snippet: false };
        let raw: RawPlaybook = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let location = error.location().unwrap_or(Location::UNKNOWN);
            content(location, words_of(&error))
        })?;
        if raw.rules.len() > MAX_RULES {
            return Err(content(raw.rules[MAX_RULES].referenced, format!("more than {MAX_RULES} rules")));
        }
        let mut rules = Vec::with_capacity(raw.rules.len());
        for rule in raw.rules {
            let place = rule.referenced;
            rules.push(check(rule.value, place).map_err(|(location, problem)| content(location, problem))?);
        }
        Ok(Self { file: file.to_owned(), rules })
    }
}

/// Returns the parser's words without the place, which stands in front of the message anyway.
fn words_of(error: &serde_saphyr::Error) -> String {
    let text = error.to_string();
    let text = match text.find(" at line ") {
        Some(place) => text[..place].to_owned(),
        None => text,
    };
    // Its advice to programmers is of no use to the author of a playbook.
    let text = text.replace(", set DuplicateKeyPolicy in Options if acceptable", "");
    crate::error::excerpt(&text, 400)
}

fn check(raw: RawRule, place: Location) -> Result<Rule, (Location, String)> {
    let wrong = |problem: &str| Err((place, problem.to_owned()));
    let input = raw.when.input.map(pattern).transpose()?;
    let prompt = raw.when.prompt.map(pattern).transpose()?;

    let fail =
        raw.fail.0.into_iter().map(failure).collect::<Result<Vec<_>, _>>().map_err(|problem| (place, problem))?;
    let answers = raw.say.is_some() || raw.json.is_some() || !raw.calls.is_empty();
    let always_fails = fail.iter().any(|fail| fail.times.is_none());
    if !answers && !always_fails {
        return wrong("the rule answers nothing: it needs say, json or calls, or a fail without times");
    }
    if raw.say.is_some() && raw.json.is_some() {
        return wrong("the rule has both say and json; an answer has one text");
    }
    if raw.chunk == Some(0) {
        return wrong("chunk is a number of characters, at least 1");
    }
    if raw.delay_ms > MAX_DELAY_MS || raw.chunk_delay_ms > MAX_DELAY_MS {
        return Err((place, format!("a delay is longer than {MAX_DELAY_MS} ms")));
    }
    let mut calls = Vec::with_capacity(raw.calls.len());
    for call in raw.calls {
        let input = match (call.input, call.raw) {
            (Some(_), Some(_)) => return wrong("a call has both input and raw"),
            (None, Some(raw)) => Err(raw),
            (input, None) => Ok(input.unwrap_or_else(|| Value::Object(serde_json::Map::new()))),
        };
        calls.push(Call { tool: call.tool, input });
    }

    let mut known = input.as_ref().map(|pattern| names_of(pattern, true)).unwrap_or_default();
    known.extend(prompt.as_ref().map(|pattern| names_of(pattern, input.is_none())).unwrap_or_default());
    if !known.is_empty() {
        let mut texts = Vec::new();
        texts.extend([&raw.say, &raw.think].into_iter().flatten().map(String::as_str));
        raw.json.iter().for_each(|value| texts_of(value, &mut texts));
        for call in &calls {
            match &call.input {
                Ok(value) => texts_of(value, &mut texts),
                Err(text) => texts.push(text),
            }
        }
        if let Some(name) = texts.iter().find_map(|text| unknown_reference(text, &known)) {
            let known = known.join(", ");
            return Err((
                place,
                format!(
                    "{{{{{name}}}}} is nothing that the rule's patterns catch (they catch: {known}); write \\{{{{{name}}}}} to mean the text itself"
                ),
            ));
        }
    }

    Ok(Rule {
        when: When {
            agent: raw.when.agent.0,
            role: raw.when.role.0,
            purpose: raw.when.purpose.unwrap_or(Purpose::Step),
            turn: raw.when.turn.0,
            step: raw.when.step.0,
            input,
            prompt,
            after_tool: raw.when.after_tool.0,
            tool_failed: raw.when.tool_failed,
        },
        think: raw.think,
        say: raw.say,
        json: raw.json,
        calls,
        stop: raw.stop.map(|stop| match stop {
            RawStop::EndTurn => StopReason::EndTurn,
            RawStop::ToolUse => StopReason::ToolUse,
            RawStop::MaxTokens => StopReason::MaxTokens,
            RawStop::Refusal => StopReason::Refusal,
        }),
        usage: raw.usage,
        delay_ms: raw.delay_ms,
        chunk: raw.chunk,
        chunk_delay_ms: raw.chunk_delay_ms,
        fail,
    })
}

fn pattern(text: Spanned<String>) -> Result<Regex, (Location, String)> {
    Regex::new(&text.value).map_err(|error| {
        // The last line says what is wrong; the lines above it draw the pattern.
        let words = error.to_string();
        let words = words.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        (text.referenced, format!("not a regular expression: {words}"))
    })
}

fn failure(raw: RawFail) -> Result<Fail, String> {
    let how = match (raw.status, raw.cut_after_chars, raw.malformed) {
        (Some(status), None, false) if (400..=599).contains(&status) => {
            Failure::Status { status, message: raw.message, retry_after_ms: raw.retry_after_ms }
        }
        (Some(status), None, false) => return Err(format!("{status} is not the status of a failure (400 to 599)")),
        (None, Some(after_chars), false) => Failure::Cut { after_chars },
        (None, None, true) => Failure::Malformed,
        _ => return Err("a fail has exactly one of status, cut_after_chars and malformed: true".to_owned()),
    };
    if raw.times == Some(0) {
        return Err("times is at least 1; without it every attempt fails".to_owned());
    }
    Ok(Fail { how, times: raw.times })
}

/// Collects the texts within a value; keys of objects are not filled in.
fn texts_of<'a>(value: &'a Value, texts: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => texts.push(text),
        Value::Array(list) => list.iter().for_each(|one| texts_of(one, texts)),
        Value::Object(map) => map.values().for_each(|one| texts_of(one, texts)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
