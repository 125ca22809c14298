//! A request of the Responses API in neutral form.

use super::items::Reading;
use crate::endpoint::{
    Refusal, Wire,
    inward::{
        Inward, Losses, Wishes,
        fields::{Fields, USUAL_BOUND, external, shortened},
        only_own,
        tools::Tools,
    },
};
use adj_domain::{ModelRef, ModelRequest, Purpose, Sampling, SessionId};
use serde_json::{Value, json};

/// What needs a store at the vendor, or changes the meaning of a request in a way that nobody else has.
const REFUSED: [&str; 6] =
    ["previous_response_id", "conversation", "prompt", "background", "context_management", "moderation"];

/// Reads a request that is to be answered by this model.
pub(in crate::endpoint) fn read(body: &[u8], model: &ModelRef, session: &SessionId) -> Result<Inward, Refusal> {
    let body = Fields::read(body)?;
    let mut losses = Losses::default();
    let means_nothing = |value: &Value| *value == json!(false) || *value == json!([]);
    for (name, value) in body.iter().filter(|(_, value)| !means_nothing(value)) {
        match name {
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
            other => losses.note(shortened(other)),
        }
    }
    let field = |name: &str| body.get(name);
    let mut tools = Tools::new(Wire::Responses);
    tools.add(field("tools"), &mut losses)?;
    let mut reading = Reading::new(field("instructions").as_str().unwrap_or_default(), &mut tools, &mut losses);
    match field("input") {
        Value::String(text) => reading.item(&json!({"role": "user", "content": text}))?,
        Value::Array(items) => items.iter().try_for_each(|item| reading.item(item))?,
        _ => return Err(Refusal::invalid("input: a text or a list is required")),
    }
    let (system, items) = reading.finish()?;
    let tool_choice = tools.choose(field("tool_choice"))?;
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
    let sampling = Sampling {
        tool_choice,
        single_call: *field("parallel_tool_calls") == json!(false),
        temperature: body.number("temperature")?,
        top_p: body.number("top_p")?,
        ..Sampling::default()
    };
    let request = ModelRequest {
        model: model.clone(),
        purpose: Purpose::Step,
        caller: external(session, &items),
        system,
        items,
        tools: tools.specs.clone(),
        max_output_tokens: body.count("max_output_tokens")?.unwrap_or(USUAL_BOUND),
        output_schema,
        effort: field("reasoning")["effort"].as_str().map(str::to_owned),
        sampling,
    };
    Ok(Inward { request, losses, tools, wishes: Wishes::default() })
}

pub(super) fn only_openai(what: &str) -> Refusal {
    only_own(Wire::Responses, what)
}
