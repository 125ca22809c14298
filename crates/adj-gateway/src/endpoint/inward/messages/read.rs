//! A request of the Messages API in neutral form.

use super::content;
use crate::endpoint::{
    Refusal, Wire,
    inward::{
        Inward, Losses, Wishes,
        fields::{Fields, effort_of_budget, external, list, shortened},
        only_own,
        tools::Tools,
    },
};
use adj_domain::{ModelRef, ModelRequest, Purpose, Sampling, SessionId, ToolChoice, ToolSpec};
use serde_json::Value;

/// What means nothing beyond Anthropic, and does no harm when it is left out.
const DROPPED: [&str; 10] = [
    "metadata",
    "service_tier",
    "speed",
    "inference_geo",
    "diagnostics",
    "user_profile_id",
    "workspace_id",
    "betas",
    "anthropic_beta",
    "cache_control",
];

/// What changes the meaning of a request, and nobody else has.
const REFUSED: [&str; 5] = ["container", "mcp_servers", "fallbacks", "compaction", "thread"];

/// Claude Code's account of itself, first in its system prompt; it changes with every version and would spoil every cache.
const BILLING: &str = "x-anthropic-billing-header:";

/// Reads a request that is to be answered by this model.
pub(in crate::endpoint) fn read(body: &[u8], model: &ModelRef, session: &SessionId) -> Result<Inward, Refusal> {
    let body = Fields::read(body)?;
    let mut losses = Losses::default();
    for (name, value) in body.iter() {
        match name {
            "model" | "max_tokens" | "stream" | "system" | "messages" | "tools" | "tool_choice" | "thinking"
            | "output_config" | "temperature" | "top_p" | "top_k" | "stop_sequences" => {}
            "context_management" => context_management(value, &mut losses)?,
            refused if REFUSED.contains(&refused) => return Err(only_anthropic(refused)),
            dropped if DROPPED.contains(&dropped) => losses.note(dropped),
            unknown => losses.note(shortened(unknown)),
        }
    }
    let field = |name: &str| body.get(name);
    let max_output_tokens = body.count("max_tokens")?;
    let max_output_tokens =
        max_output_tokens.ok_or_else(|| Refusal::invalid("max_tokens: a number greater than 0 is required"))?;
    let system = system(field("system"), &mut losses)?;
    let (system, items) = content::items(list(field("messages"), "messages")?, &system, &mut losses)?;
    let (tool_choice, single_call) = tool_choice(field("tool_choice"))?;
    let (tools, tool_choice) = tools(field("tools"), tool_choice, &mut losses)?;
    let effort = effort(field("thinking"), field("output_config"), &mut losses)?;
    let stop = match field("stop_sequences") {
        Value::Null => Vec::new(),
        value => list(value, "stop_sequences")?.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
    };
    let sampling = Sampling {
        tool_choice,
        single_call,
        temperature: body.number("temperature")?,
        top_p: body.number("top_p")?,
        top_k: body.number("top_k")?.map(|count| count as u32),
        stop,
    };
    let request = ModelRequest {
        model: model.clone(),
        purpose: Purpose::Step,
        caller: external(session, &items),
        system,
        items,
        tools,
        max_output_tokens,
        output_schema: output_schema(field("output_config"))?,
        effort,
        sampling,
    };
    let asks_for_thoughts = matches!(field("thinking")["type"].as_str(), Some("enabled" | "adaptive"));
    let wishes = Wishes { hides_thoughts: !asks_for_thoughts, ..Wishes::default() };
    Ok(Inward { request, losses, tools: Tools::new(Wire::Messages), wishes })
}

pub(super) fn only_anthropic(what: &str) -> Refusal {
    only_own(Wire::Messages, what)
}

/// Keeping all thinking is what happens anyway; any other edit would change what the model sees.
fn context_management(value: &Value, losses: &mut Losses) -> Result<(), Refusal> {
    for edit in list(&value["edits"], "context_management.edits")? {
        let kind = edit["type"].as_str().unwrap_or_default();
        if !kind.starts_with("clear_thinking") || edit["keep"] != "all" {
            return Err(only_anthropic(&format!("context_management {kind}")));
        }
    }
    losses.note("context_management");
    Ok(())
}

fn system(value: &Value, losses: &mut Losses) -> Result<String, Refusal> {
    let texts = match value {
        Value::Null => Vec::new(),
        Value::String(text) => vec![text.as_str()],
        blocks => {
            let mut texts = Vec::new();
            for block in list(blocks, "system")? {
                content::note_cache(block, losses);
                texts.push(block["text"].as_str().ok_or_else(|| Refusal::invalid("system: only text is understood"))?);
            }
            texts
        }
    };
    if texts.first().is_some_and(|text| text.starts_with(BILLING)) {
        losses.note("x-anthropic-billing-header");
    }
    let kept = texts.into_iter().filter(|text| !text.starts_with(BILLING) && !text.trim().is_empty());
    Ok(kept.collect::<Vec<_>>().join("\n\n"))
}

fn tool_choice(value: &Value) -> Result<(ToolChoice, bool), Refusal> {
    let single_call = value["disable_parallel_tool_use"] == true;
    let choice = match (value["type"].as_str(), value["name"].as_str()) {
        (None, _) if value.is_null() => ToolChoice::Auto,
        (Some("auto"), _) => ToolChoice::Auto,
        (Some("any"), _) => ToolChoice::Required,
        (Some("none"), _) => ToolChoice::None,
        (Some("tool"), Some(name)) => ToolChoice::Tool(name.to_owned()),
        _ => return Err(Refusal::invalid("tool_choice: auto, any, none, or a tool with its name")),
    };
    Ok((choice, single_call))
}

fn tools(value: &Value, choice: ToolChoice, losses: &mut Losses) -> Result<(Vec<ToolSpec>, ToolChoice), Refusal> {
    let tools = if value.is_null() { &[] } else { list(value, "tools")? };
    let mut kept = Vec::new();
    let mut searches = Vec::new();
    for tool in tools {
        let name = tool["name"].as_str().unwrap_or_default();
        match tool["type"].as_str() {
            None | Some("custom") => {}
            Some(kind) if kind.starts_with("web_search_") => {
                searches.push(name.to_owned());
                continue;
            }
            Some(kind) => return Err(only_anthropic(&format!("the tool {kind}"))),
        }
        if name.is_empty() || !tool["input_schema"].is_object() {
            return Err(Refusal::invalid("tools: each needs a name and an input_schema"));
        }
        for extra in ["strict", "defer_loading", "eager_input_streaming", "input_examples", "allowed_callers"] {
            if tool.get(extra).is_some_and(|value| !value.is_null() && *value != false) {
                losses.note(format!("tools.{extra}"));
            }
        }
        content::note_cache(tool, losses);
        let mut input_schema = tool["input_schema"].clone();
        if let Some(schema) = input_schema.as_object_mut() {
            schema.shift_remove("$schema");
        }
        kept.push(ToolSpec {
            name: name.to_owned(),
            description: tool["description"].as_str().unwrap_or_default().to_owned(),
            input_schema,
        });
    }
    if let Some(search) = searches.first() {
        let is_forced = matches!(&choice, ToolChoice::Tool(name) if searches.contains(name));
        if kept.is_empty() || is_forced {
            return Err(only_anthropic(&format!("the tool {search} (web search at the vendor)")));
        }
        losses.note("web_search");
    }
    if let ToolChoice::Tool(name) = &choice
        && !kept.iter().any(|tool| tool.name == *name)
    {
        return Err(Refusal::invalid(format!("tool_choice: there is no tool {name:?}")));
    }
    Ok((kept, choice))
}

/// What Anthropic says in two places, the others say in one word.
fn effort(thinking: &Value, output: &Value, losses: &mut Losses) -> Result<Option<String>, Refusal> {
    if thinking.get("display").is_some() {
        losses.note("thinking.display");
    }
    let told = output["effort"].as_str().map(str::to_owned);
    match thinking["type"].as_str() {
        None if thinking.is_null() => Ok(told),
        Some("disabled") => Ok(Some("none".to_owned())),
        Some("adaptive" | "between_tools") => Ok(told),
        Some("enabled") => {
            let budget = thinking["budget_tokens"].as_u64().unwrap_or(0);
            Ok(told.or_else(|| Some(effort_of_budget(budget).to_owned())))
        }
        _ => Err(Refusal::invalid("thinking: enabled, adaptive or disabled")),
    }
}

fn output_schema(output: &Value) -> Result<Option<Value>, Refusal> {
    match (&output["format"], output["format"]["type"].as_str()) {
        (Value::Null, _) => Ok(None),
        (format, Some("json_schema")) if format["schema"].is_object() => Ok(Some(format["schema"].clone())),
        _ => Err(Refusal::invalid("output_config.format: json_schema with a schema is all that is understood")),
    }
}
