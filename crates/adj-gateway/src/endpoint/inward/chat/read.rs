//! A request of the chat completions API in neutral form.

use super::messages::Reading;
use crate::endpoint::{
    Refusal, Wire,
    inward::{
        Inward, Losses, Wishes,
        fields::{Fields, USUAL_BOUND, effort_of_budget, external, list, shortened},
        only_own,
        tools::Tools,
    },
};
use adj_domain::{ModelRef, ModelRequest, Purpose, Sampling, SessionId};
use serde_json::{Map, Value, json};

/// What changes the answer in a way that not every vendor has.
const REFUSED: [&str; 7] =
    ["logprobs", "top_logprobs", "logit_bias", "prediction", "audio", "functions", "function_call"];

/// Reads a request that is to be answered by this model.
pub(in crate::endpoint) fn read(body: &[u8], model: &ModelRef, session: &SessionId) -> Result<Inward, Refusal> {
    let body = Fields::read(body)?;
    let mut losses = Losses::default();
    let mut tools = Tools::new(Wire::Chat);
    add_tools(&mut tools, body.get("tools"), &mut losses)?;
    let means_nothing =
        |value: &Value| [json!(false), json!([]), json!({})].contains(value) || value.as_f64() == Some(0.0);
    for (name, value) in body.iter() {
        match name {
            "model"
            | "stream"
            | "stream_options"
            | "messages"
            | "tools"
            | "tool_choice"
            | "parallel_tool_calls"
            | "response_format"
            | "max_tokens"
            | "max_completion_tokens"
            | "temperature"
            | "top_p"
            | "top_k"
            | "stop"
            | "reasoning_effort"
            | "reasoning"
            | "thinking" => {}
            "web_search_options" => tools.search("web_search_options", &mut losses),
            "n" if *value == json!(1) => {}
            "n" => return Err(only_chat("n (more than one answer)")),
            "modalities" if *value == json!(["text"]) => {}
            "modalities" => return Err(only_chat("modalities")),
            "seed" => losses.note("seed"),
            _ if means_nothing(value) => {}
            refused if REFUSED.contains(&refused) => return Err(only_chat(refused)),
            other => losses.note(shortened(other)),
        }
    }
    let mut reading = Reading::new(&mut losses);
    list(body.get("messages"), "messages")?.iter().try_for_each(|message| reading.message(message))?;
    let (system, items) = reading.finish()?;
    let stop = match body.get("stop") {
        Value::Null => Vec::new(),
        Value::String(one) => vec![one.clone()],
        several => list(several, "stop")?.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
    };
    let sampling = Sampling {
        tool_choice: tools.choose(&choice(body.get("tool_choice")))?,
        single_call: *body.get("parallel_tool_calls") == json!(false),
        temperature: body.number("temperature")?,
        top_p: body.number("top_p")?,
        top_k: body.count("top_k")?,
        stop,
    };
    let bound = body.count("max_completion_tokens")?.or(body.count("max_tokens")?);
    let request = ModelRequest {
        model: model.clone(),
        purpose: Purpose::Step,
        caller: external(session, &items),
        system,
        items,
        tools: tools.specs.clone(),
        max_output_tokens: bound.unwrap_or(USUAL_BOUND),
        output_schema: output_schema(body.get("response_format"))?,
        effort: effort(&body, &mut losses),
        sampling,
    };
    let usage = body.get("stream_options")["include_usage"] == true;
    Ok(Inward { request, losses, tools, wishes: Wishes { usage, ..Wishes::default() } })
}

pub(super) fn only_chat(what: &str) -> Refusal {
    only_own(Wire::Chat, what)
}

/// Lifts what this wire puts below the name of a kind up to where others have it.
fn flat(outer: &Value) -> Value {
    let kind = outer["type"].as_str().unwrap_or("function");
    let mut inner = outer[kind].clone();
    if let Some(fields) = inner.as_object_mut() {
        fields.insert("type".to_owned(), json!(kind));
        return inner;
    }
    json!({"type": kind})
}

fn add_tools(tools: &mut Tools, value: &Value, losses: &mut Losses) -> Result<(), Refusal> {
    let offered = if value.is_null() { &[] } else { list(value, "tools")? };
    let offered = offered.iter().map(|tool| {
        let mut tool = flat(tool);
        if let Some(grammar) = tool["format"].get("grammar").cloned() {
            tool["format"] = grammar;
        }
        tool
    });
    tools.add(&offered.collect(), losses)
}

fn choice(value: &Value) -> Value {
    if value["type"] != "allowed_tools" {
        return if value.is_object() { flat(value) } else { value.clone() };
    }
    let allowed = &value["allowed_tools"];
    let tools = allowed["tools"].as_array().map_or(&[][..], Vec::as_slice).iter().map(flat);
    json!({"type": "allowed_tools", "mode": allowed["mode"], "tools": tools.collect::<Value>()})
}

/// Servers of this wire have several words for it; OpenAI's counts first.
fn effort(body: &Fields, losses: &mut Losses) -> Option<String> {
    let (reasoning, thinking) = (body.get("reasoning"), body.get("thinking"));
    let told = body.get("reasoning_effort").as_str().or(reasoning["effort"].as_str());
    let budget = reasoning["max_tokens"].as_u64().or(thinking["budget_tokens"].as_u64()).map(effort_of_budget);
    let is_off = thinking["type"] == "disabled" || reasoning["enabled"] == false;
    let effort = told.or(is_off.then_some("none")).or(budget);
    for (name, value) in [("reasoning", reasoning), ("thinking", thinking)] {
        let known = ["effort", "max_tokens", "enabled", "type", "budget_tokens"];
        let is_lost = |fields: &Map<String, Value>| fields.keys().any(|key| !known.contains(&key.as_str()));
        if effort.is_none() && !value.is_null() || value.as_object().is_some_and(is_lost) {
            losses.note(name);
        }
    }
    effort.map(str::to_owned)
}

fn output_schema(format: &Value) -> Result<Option<Value>, Refusal> {
    let schema = &format["json_schema"]["schema"];
    match format["type"].as_str() {
        None if format.is_null() => Ok(None),
        Some("text") => Ok(None),
        Some("json_schema") if schema.is_object() => Ok(Some(schema.clone())),
        Some("json_object") => Ok(Some(json!({"type": "object"}))),
        _ => Err(Refusal::invalid("response_format: text, json_object, or json_schema with a schema")),
    }
}
