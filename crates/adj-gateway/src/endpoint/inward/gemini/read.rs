//! A request of the generateContent API in neutral form.

use super::{contents::Reading, proto::Proto, schema};
use crate::endpoint::{
    Refusal, Wire,
    inward::{
        Inward, Losses, Wishes,
        fields::{USUAL_BOUND, count, effort_of_budget, external, number, shortened},
        only_own,
        tools::{Tools, outward},
    },
};
use adj_domain::{ModelRef, ModelRequest, Purpose, Sampling, SessionId};
use serde_json::{Value, json};

/// Reads a request that is to be answered by this model.
pub(in crate::endpoint) fn read(body: &[u8], model: &ModelRef, session: &SessionId) -> Result<Inward, Refusal> {
    let body: Value = serde_json::from_slice(body)
        .map_err(|error| Refusal::invalid(format!("the request's body is not the JSON that it should be: {error}")))?;
    let body = Proto::of(&body);
    let mut losses = Losses::default();
    for (name, _) in body.fields() {
        match name.as_ref() {
            "model" | "contents" | "systemInstruction" | "tools" | "toolConfig" | "generationConfig" => {}
            "cachedContent" | "continuationToken" => return Err(only_gemini(&name)),
            other => losses.note(shortened(other)),
        }
    }
    let config = Config::read(body.proto("generationConfig"), &mut losses)?;
    let mut tools = Tools::new(Wire::Gemini);
    body.list("tools")?.try_for_each(|tool| add_tool(&mut tools, tool, &mut losses))?;
    let tool_choice = tools.choose(&choice(body.proto("toolConfig"), &mut losses)?)?;
    let mut reading = Reading::new(&mut losses);
    reading.instructions(body.get("systemInstruction"))?;
    body.list("contents")?.try_for_each(|content| reading.content(content))?;
    let (system, items) = reading.finish()?;
    let request = ModelRequest {
        model: model.clone(),
        purpose: Purpose::Step,
        caller: external(session, &items),
        system,
        items,
        tools: tools.specs.clone(),
        max_output_tokens: config.bound,
        output_schema: config.output_schema,
        effort: config.effort,
        sampling: Sampling { tool_choice, ..config.sampling },
    };
    let wishes = Wishes { thoughts: config.thoughts, ..Wishes::default() };
    Ok(Inward { request, losses, tools, wishes })
}

pub(super) fn only_gemini(what: &str) -> Refusal {
    only_own(Wire::Gemini, what)
}

fn add_tool(tools: &mut Tools, tool: Proto<'_>, losses: &mut Losses) -> Result<(), Refusal> {
    for (name, _) in tool.fields() {
        match name.as_ref() {
            "functionDeclarations" => {}
            "googleSearch" | "googleSearchRetrieval" => tools.search("googleSearch", losses),
            other => return Err(only_gemini(&format!("the tool {}", shortened(other)))),
        }
    }
    for function in tool.list("functionDeclarations")? {
        for lost in ["response", "responseJsonSchema", "behavior"] {
            if function.has(lost) {
                losses.note(format!("functionDeclarations.{lost}"));
            }
        }
        let parameters = match function.get("parametersJsonSchema") {
            Value::Null => function.get("parameters"),
            schema => schema,
        };
        let tool = json!({"type": "function", "name": function.text("name"),
            "description": function.text("description"), "parameters": schema::parameters(parameters)});
        tools.add(&json!([tool]), losses)?;
    }
    Ok(())
}

/// Says which tools are to be called as the Responses API says it.
fn choice(config: Proto<'_>, losses: &mut Losses) -> Result<Value, Refusal> {
    for (name, _) in config.fields().filter(|(name, _)| name != "functionCallingConfig") {
        losses.note(shortened(&format!("toolConfig.{name}")));
    }
    let calling = config.proto("functionCallingConfig");
    if calling.get("streamFunctionCallArguments") == &json!(true) {
        losses.note("toolConfig.streamFunctionCallArguments");
    }
    let allowed = calling.get("allowedFunctionNames").as_array().map_or(&[][..], Vec::as_slice);
    let allowed = allowed.iter().filter_map(Value::as_str).collect::<Vec<_>>();
    let some = |mode: &str| {
        let tools = allowed.iter().map(|name| json!({"name": name}));
        json!({"type": "allowed_tools", "mode": mode, "tools": tools.collect::<Value>()})
    };
    match (calling.text("mode"), allowed.as_slice()) {
        ("" | "MODE_UNSPECIFIED" | "AUTO", _) | ("VALIDATED", []) => Ok(json!("auto")),
        ("VALIDATED", _) => Ok(some("auto")),
        ("NONE", _) => Ok(json!("none")),
        ("ANY", []) => Ok(json!("required")),
        ("ANY", [one]) => Ok(json!({"type": "function", "name": outward(None, one)})),
        ("ANY", _) => Ok(some("required")),
        _ => Err(Refusal::invalid("toolConfig.functionCallingConfig.mode: AUTO, ANY, NONE or VALIDATED")),
    }
}

/// What `generationConfig` says.
struct Config {
    bound: u32,
    sampling: Sampling,
    output_schema: Option<Value>,
    effort: Option<String>,
    thoughts: bool,
}

impl Config {
    fn read(config: Proto<'_>, losses: &mut Losses) -> Result<Self, Refusal> {
        let is_nothing = |value: &Value| *value == json!(false) || *value == json!([]) || value.as_f64() == Some(0.0);
        for (name, value) in config.fields() {
            match name.as_ref() {
                "temperature" | "topP" | "topK" | "maxOutputTokens" | "stopSequences" | "responseMimeType"
                | "responseSchema" | "responseJsonSchema" | "thinkingConfig" => {}
                "candidateCount" if *value == json!(1) => {}
                "candidateCount" => return Err(only_gemini("candidateCount (more than one answer)")),
                "responseModalities" if *value == json!(["TEXT"]) => {}
                "seed" => losses.note("seed"),
                _ if is_nothing(value) => {}
                "responseModalities" | "responseLogprobs" | "logprobs" | "speechConfig" | "imageConfig" => {
                    return Err(only_gemini(&name));
                }
                other => losses.note(shortened(other)),
            }
        }
        let thinking = config.proto("thinkingConfig");
        let at = |name: &str| number(config.get(name), name);
        let stop = config.get("stopSequences").as_array().map_or(&[][..], Vec::as_slice);
        Ok(Self {
            bound: count(config.get("maxOutputTokens"), "maxOutputTokens")?.unwrap_or(USUAL_BOUND),
            sampling: Sampling {
                temperature: at("temperature")?,
                top_p: at("topP")?,
                top_k: at("topK")?.map(|count| count as u32),
                stop: stop.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
                ..Sampling::default()
            },
            output_schema: output_schema(config)?,
            effort: effort(thinking)?,
            thoughts: thinking.get("includeThoughts") == &json!(true),
        })
    }
}

fn output_schema(config: Proto<'_>) -> Result<Option<Value>, Refusal> {
    let schema = match config.get("responseJsonSchema") {
        Value::Null => config.get("responseSchema"),
        schema => schema,
    };
    match (config.text("responseMimeType"), schema) {
        ("" | "text/plain", Value::Null) => Ok(None),
        ("application/json", Value::Null) => Ok(Some(json!({"type": "object"}))),
        ("" | "application/json", schema) => Ok(Some(schema::json_schema(schema))),
        (other, _) => Err(only_gemini(&format!("responseMimeType {}", shortened(other)))),
    }
}

/// What Google says as a level or as a number of tokens, the others say in one word.
fn effort(thinking: Proto<'_>) -> Result<Option<String>, Refusal> {
    match (thinking.text("thinkingLevel"), thinking.get("thinkingBudget")) {
        ("" | "THINKING_LEVEL_UNSPECIFIED", Value::Null) => Ok(None),
        ("" | "THINKING_LEVEL_UNSPECIFIED", budget) => {
            let budget = budget.as_i64().ok_or_else(|| Refusal::invalid("thinkingBudget: a number is required"))?;
            // Less than nothing leaves it to the model.
            Ok(u64::try_from(budget).ok().map(|tokens| effort_of_budget(tokens).to_owned()))
        }
        (level, _) => Ok(Some(shortened(&level.to_ascii_lowercase()))),
    }
}
