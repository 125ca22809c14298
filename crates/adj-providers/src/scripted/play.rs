//! Playing a playbook: everything follows from the request and the attempt, so a repeated request gets the same answer.

use super::{
    Playbook,
    playbook::{Failure, Rule, When},
    template::{Caught, catch, fill},
};
use crate::{EventStream, ModelEvent, Provider, ProviderError, error::excerpt};
use adj_domain::{AnswerBlock, Content, FailureKind, Item, ModelRequest, StopReason, Usage};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use std::{collections::VecDeque, sync::Arc, time::Duration};

/// The vendor `scripted`; the model's name is free.
#[derive(Debug, Clone)]
pub struct Scripted {
    playbook: Arc<Playbook>,
}

type Step = (Duration, Result<ModelEvent, ProviderError>);

impl Scripted {
    pub fn new(playbook: Playbook) -> Self {
        Self { playbook: Arc::new(playbook) }
    }

    fn steps(&self, request: &ModelRequest, attempt: u32) -> VecDeque<Step> {
        let heard = Heard::of(request);
        let found = self.playbook.rules.iter().find_map(|rule| Some((rule, fits(&rule.when, request, &heard)?)));
        match found {
            Some((rule, caught)) => play(rule, &caught, request, attempt),
            None => VecDeque::from([(Duration::ZERO, Err(self.no_rule(request, &heard)))]),
        }
    }

    fn no_rule(&self, request: &ModelRequest, heard: &Heard<'_>) -> ProviderError {
        let caller = &request.caller;
        let purpose = match request.purpose {
            adj_domain::Purpose::Step => "",
            adj_domain::Purpose::Compaction => " for a summary (purpose: compaction)",
        };
        ProviderError::new(
            FailureKind::InvalidRequest,
            format!(
                "no rule of the playbook {} answers agent {:?} (role {:?}) at turn {}, step {}{purpose}; the input begins: {:?}",
                self.playbook.file,
                caller.agent,
                caller.role,
                caller.turn,
                caller.step,
                excerpt(&heard.input, 200)
            ),
        )
    }
}

impl Provider for Scripted {
    fn stream(&self, request: &ModelRequest, attempt: u32) -> EventStream {
        let steps = self.steps(request, attempt);
        stream::unfold(steps, |mut steps| async {
            let (wait, event) = steps.pop_front()?;
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            Some((event, steps))
        })
        .boxed()
    }
}

/// What was said to the model since its last answer.
struct Heard<'a> {
    /// The texts of messages and tool results, joined by line breaks.
    input: String,
    /// The first message of the conversation.
    prompt: String,
    /// The tools that answered, and whether they failed.
    results: Vec<(&'a str, bool)>,
}

impl<'a> Heard<'a> {
    fn of(request: &'a ModelRequest) -> Self {
        let items = &request.items;
        let last_answer = items.iter().rposition(|item| !matches!(item, Item::User { .. } | Item::ToolResult { .. }));
        let mut texts = Vec::new();
        let mut results = Vec::new();
        for item in &items[last_answer.map_or(0, |place| place + 1)..] {
            match item {
                Item::User { content } => texts.push(Content::join_text(content)),
                Item::ToolResult { call, content, is_error } => {
                    texts.push(Content::join_text(content));
                    let name = items.iter().find_map(|item| match item {
                        Item::ToolCall { id, name, .. } if id == call => Some(name.as_str()),
                        _ => None,
                    });
                    results.push((name.unwrap_or_default(), *is_error));
                }
                Item::Assistant { .. } | Item::Reasoning { .. } | Item::ToolCall { .. } => {}
            }
        }
        let prompt = items.iter().find_map(|item| match item {
            Item::User { content } => Some(Content::join_text(content)),
            _ => None,
        });
        Self { input: texts.join("\n"), prompt: prompt.unwrap_or_default(), results }
    }
}

/// Returns what the rule's patterns caught, if all of its conditions hold.
fn fits(when: &When, request: &ModelRequest, heard: &Heard<'_>) -> Option<Caught> {
    let caller = &request.caller;
    let plain = when.purpose == request.purpose
        && (when.agent.is_empty() || when.agent.contains(&caller.agent))
        && (when.role.is_empty() || when.role.contains(&caller.role))
        && (when.turn.is_empty() || when.turn.contains(&caller.turn))
        && (when.step.is_empty() || when.step.contains(&caller.step));
    if !plain {
        return None;
    }
    let named = |name: &str| when.after_tool.is_empty() || when.after_tool.iter().any(|wanted| wanted == name);
    let asks_for_results = !when.after_tool.is_empty() || when.tool_failed.is_some();
    if asks_for_results {
        let found = heard
            .results
            .iter()
            .any(|(name, failed)| named(name) && when.tool_failed.is_none_or(|wanted| wanted == *failed));
        if !found {
            return None;
        }
    }
    let mut caught = Caught::new();
    // The input's pattern comes last, so that its names win; only one of the two is counted by number.
    if let Some(pattern) = &when.prompt {
        catch(&mut caught, pattern, &pattern.captures(&heard.prompt)?, when.input.is_none());
    }
    if let Some(pattern) = &when.input {
        catch(&mut caught, pattern, &pattern.captures(&heard.input)?, true);
    }
    Some(caught)
}

fn play(rule: &Rule, caught: &Caught, request: &ModelRequest, attempt: u32) -> VecDeque<Step> {
    let has_patterns = rule.when.input.is_some() || rule.when.prompt.is_some();
    let filled = |text: &String| if has_patterns { fill(text, caught) } else { text.clone() };
    let mut play = Play {
        steps: VecDeque::new(),
        wait: Duration::from_millis(rule.delay_ms),
        chunk: rule.chunk.unwrap_or(usize::MAX),
        chunk_wait: Duration::from_millis(rule.chunk_delay_ms),
        output_bytes: 0,
    };
    let failure = failure_of(rule, attempt);
    if let Some(Failure::Status { status, message, retry_after_ms }) = failure {
        let message = message.clone().unwrap_or_else(|| format!("the playbook answers with status {status}"));
        let body = json!({"error": {"message": message}}).to_string();
        let wait = retry_after_ms.map(Duration::from_millis);
        play.add(Err(ProviderError::from_status(*status, body.as_bytes(), wait)));
        return play.steps;
    }
    play.add(Ok(ModelEvent::Started { model: request.model.name.clone() }));
    if let Some(Failure::Malformed) = failure {
        play.add(Err(ProviderError::protocol("the answer cannot be read (the playbook says so)")));
        return play.steps;
    }
    let mut index = 0;
    if let Some(think) = rule.think.as_ref().map(filled) {
        for text in pieces(&think, play.chunk) {
            play.piece(ModelEvent::ReasoningDelta { index, text });
        }
        play.block(AnswerBlock::Reasoning { payload: json!({"text": think}) }, think.len());
        index += 1;
    }
    let json = rule.json.as_ref().map(|value| fill_value(value, has_patterns.then_some(caught)).to_string());
    let text = rule.say.as_ref().map(filled).or(json).unwrap_or_default();
    if let Some(Failure::Cut { after_chars }) = failure {
        let shown = text.chars().take(*after_chars).collect::<String>();
        for text in pieces(&shown, play.chunk) {
            play.piece(ModelEvent::TextDelta { index, text });
        }
        play.add(Err(ProviderError::new(
            FailureKind::Connection,
            format!("the stream broke off after {after_chars} characters (the playbook says so)"),
        )));
        return play.steps;
    }
    if !text.is_empty() {
        for text in pieces(&text, play.chunk) {
            play.piece(ModelEvent::TextDelta { index, text });
        }
        let bytes = text.len();
        play.block(AnswerBlock::Text { text }, bytes);
        index += 1;
    }
    for (number, call) in rule.calls.iter().enumerate() {
        let input = match &call.input {
            Ok(value) => Ok(fill_value(value, has_patterns.then_some(caught))),
            Err(raw) => Err(filled(raw)),
        };
        let arguments = input.as_ref().map_or_else(String::clone, Value::to_string);
        let bytes = call.tool.len() + arguments.len();
        play.add(Ok(ModelEvent::ToolCallDelta { index, name: Some(call.tool.clone()), arguments }));
        let vendor_call_id = format!("call_{}_{}_{number}", request.caller.turn, request.caller.step);
        play.block(AnswerBlock::ToolCall { vendor_call_id, name: call.tool.clone(), input }, bytes);
        index += 1;
    }
    let usage = match rule.usage {
        Some(keys) => Usage {
            input_tokens: keys.input,
            output_tokens: keys.output,
            cache_read_tokens: keys.cache_read,
            cache_write_tokens: keys.cache_write,
            cache_write_1h_tokens: 0,
            reasoning_tokens: keys.reasoning,
        },
        None => Usage {
            input_tokens: tokens(size_of_request(request)),
            output_tokens: tokens(play.output_bytes),
            ..Usage::default()
        },
    };
    play.add(Ok(ModelEvent::Usage(usage)));
    let otherwise = if rule.calls.is_empty() { StopReason::EndTurn } else { StopReason::ToolUse };
    play.add(Ok(ModelEvent::Finished { stop: rule.stop.clone().unwrap_or(otherwise) }));
    play.steps
}

/// Returns how this attempt fails, if it does: the failures of a rule follow one another.
fn failure_of(rule: &Rule, attempt: u32) -> Option<&Failure> {
    let mut before = 0u32;
    rule.fail.iter().find_map(|fail| {
        before = before.saturating_add(fail.times.unwrap_or(u32::MAX));
        (attempt <= before).then_some(&fail.how)
    })
}

struct Play {
    steps: VecDeque<Step>,
    /// Before the next step.
    wait: Duration,
    chunk: usize,
    chunk_wait: Duration,
    output_bytes: usize,
}

impl Play {
    fn add(&mut self, event: Result<ModelEvent, ProviderError>) {
        self.steps.push_back((std::mem::take(&mut self.wait), event));
    }

    fn piece(&mut self, event: ModelEvent) {
        self.add(Ok(event));
        self.wait = self.chunk_wait;
    }

    fn block(&mut self, block: AnswerBlock, bytes: usize) {
        self.output_bytes += bytes;
        self.add(Ok(ModelEvent::Block(block)));
    }
}

/// Splits a text into pieces of so many characters.
fn pieces(text: &str, chars: usize) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.char_indices().nth(chars).map_or(rest.len(), |(place, _)| place);
        let (piece, after) = rest.split_at(end);
        pieces.push(piece.to_owned());
        rest = after;
    }
    pieces
}

fn fill_value(value: &Value, caught: Option<&Caught>) -> Value {
    let Some(caught) = caught else { return value.clone() };
    match value {
        Value::String(text) => Value::String(fill(text, caught)),
        Value::Array(list) => list.iter().map(|one| fill_value(one, Some(caught))).collect(),
        Value::Object(map) => {
            let filled = map.iter().map(|(key, one)| (key.clone(), fill_value(one, Some(caught))));
            Value::Object(filled.collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// Four bytes a token is what English and code come to, roughly.
fn tokens(bytes: usize) -> u64 {
    (bytes as u64).div_ceil(4)
}

fn size_of_request(request: &ModelRequest) -> usize {
    let content = |blocks: &[Content]| -> usize {
        let sizes = blocks.iter().map(|block| match block {
            Content::Text { text } => text.len(),
            Content::Image { data, .. } | Content::Document { data, .. } => data.len(),
            Content::ImageUrl { url } => url.len(),
        });
        sizes.sum()
    };
    let items = request.items.iter().map(|item| match item {
        Item::User { content: blocks } | Item::ToolResult { content: blocks, .. } => content(blocks),
        Item::Assistant { text } => text.len(),
        Item::Reasoning { payload, .. } => payload.to_string().len(),
        Item::ToolCall { name, input, .. } => name.len() + input.to_string().len(),
    });
    let tools =
        request.tools.iter().map(|tool| tool.name.len() + tool.description.len() + tool.input_schema.to_string().len());
    request.system.len() + items.sum::<usize>() + tools.sum::<usize>()
}
