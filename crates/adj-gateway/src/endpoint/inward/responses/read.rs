//! A request of the Responses API in neutral form.

use super::{
    items::Reading,
    tools::{Tools, only_openai},
};
use crate::endpoint::{
    Refusal,
    inward::{Inward, Losses},
};
use adj_domain::{Caller, Item, ModelRef, ModelRequest, Purpose, Sampling, SessionId};
use serde_json::{Map, Value, json};

/// What needs a store at the vendor, or changes the meaning of a request in a way that nobody else has.
const REFUSED: [&str; 6] =
    ["previous_response_id", "conversation", "prompt", "background", "context_management", "moderation"];

/// Codex names no bound; some vendors must be told one.
const USUAL_BOUND: u32 = 32_000;

/// Reads a request that is to be answered by this model.
pub(in crate::endpoint) fn read(body: &[u8], model: &ModelRef, session: &SessionId) -> Result<Inward, Refusal> {
    let body: Map<String, Value> = serde_json::from_slice(body)
        .map_err(|error| Refusal::invalid(format!("the request's body is not the JSON that it should be: {error}")))?;
    let mut losses = Losses::default();
    let means_nothing = |value: &Value| value.is_null() || *value == json!(false) || *value == json!([]);
    for (name, value) in body.iter().filter(|(_, value)| !means_nothing(value)) {
        match name.as_str() {
            "model"
            | "stream"
            | "input"
            | "instructions"
            | "tools"
            | "tool_choice"
            | "parallel_tool_calls"
            | "reasoning"
            | "max_output_tokens"
            | "temperature"
            | "top_p"
            | "text" => {}
            // Reasoning comes back sealed in any case.
            "include" if *value == json!(["reasoning.encrypted_content"]) => {}
            "truncation" if value == "disabled" => {}
            "top_logprobs" if *value == json!(0) => {}
            "top_logprobs" => return Err(only_openai("top_logprobs")),
            refused if REFUSED.contains(&refused) => return Err(only_openai(refused)),
            other => losses.note(other.chars().take(60).collect::<String>()),
        }
    }
    let field = |name: &str| body.get(name).unwrap_or(&Value::Null);
    let mut tools = Tools::default();
    tools.add(field("tools"), &mut losses)?;
    let mut reading = Reading::new(field("instructions").as_str().unwrap_or_default(), &mut tools, &mut losses);
    match field("input") {
        Value::String(text) => reading.item(&json!({"role": "user", "content": text}))?,
        Value::Array(items) => items.iter().try_for_each(|item| reading.item(item))?,
        _ => return Err(Refusal::invalid("input: a text or a list is required")),
    }
    let (system, items) = reading.finish()?;
    let tool_choice = tools.choose(field("tool_choice"))?;
    let number = |name: &str| match field(name) {
        Value::Null => Ok(None),
        value => value.as_f64().map(Some).ok_or_else(|| Refusal::invalid(format!("{name}: a number is required"))),
    };
    for word in ["summary", "context", "mode", "generate_summary"] {
        if field("reasoning").get(word).is_some_and(|value| !value.is_null()) {
            losses.note(format!("reasoning.{word}"));
        }
    }
    if field("text").get("verbosity").is_some_and(|value| !value.is_null()) {
        losses.note("text.verbosity");
    }
    let format = &field("text")["format"];
    let output_schema = match format["type"].as_str() {
        None | Some("text") => None,
        Some("json_schema") if format["schema"].is_object() => Some(format["schema"].clone()),
        Some("json_object") => Some(json!({"type": "object"})),
        Some(_) => return Err(Refusal::invalid("text.format: text, json_object, or json_schema with a schema")),
    };
    let max_output_tokens = match field("max_output_tokens") {
        Value::Null => USUAL_BOUND,
        value => value
            .as_u64()
            .and_then(|count| u32::try_from(count).ok())
            .filter(|count| *count > 0)
            .ok_or_else(|| Refusal::invalid("max_output_tokens: a number greater than 0 is required"))?,
    };
    let step = items.iter().filter(|item| matches!(item, Item::ToolCall { .. })).count();
    let caller = Caller {
        run: None,
        session: session.clone(),
        agent: "external".to_owned(),
        role: "external".to_owned(),
        turn: 1,
        step: u32::try_from(step).unwrap_or(u32::MAX),
    };
    let sampling = Sampling {
        tool_choice,
        single_call: *field("parallel_tool_calls") == json!(false),
        temperature: number("temperature")?,
        top_p: number("top_p")?,
        ..Sampling::default()
    };
    let request = ModelRequest {
        model: model.clone(),
        purpose: Purpose::Step,
        caller,
        system,
        items,
        tools: tools.specs.clone(),
        max_output_tokens,
        output_schema,
        effort: field("reasoning")["effort"].as_str().map(str::to_owned),
        sampling,
    };
    Ok(Inward { request, losses, tools })
}
