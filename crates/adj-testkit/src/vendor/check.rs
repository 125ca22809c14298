//! What the real vendors refuse, and a few things that they only charge for.

use super::{Wire, render::SIGNED};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Returns everything that is wrong with a request's body.
pub(crate) fn violations(wire: Wire, model: &str, body: &Value) -> Vec<String> {
    let mut found = Violations(Vec::new());
    found.unless(!model.is_empty(), "model is missing");
    // Gemini's wire says it in the path.
    found.unless(wire == Wire::Gemini || body["stream"] == true, "stream is not true");
    match wire {
        Wire::Responses => found.responses(body),
        Wire::Messages => found.messages(body),
        Wire::Chat => found.chat(body),
        Wire::Gemini => found.gemini(model, body),
    }
    found.0
}

struct Violations(Vec<String>);

impl Violations {
    fn add(&mut self, text: impl Into<String>) {
        self.0.push(text.into());
    }

    fn unless(&mut self, good: bool, text: &str) {
        if !good {
            self.add(text);
        }
    }

    fn tool(&mut self, name: &Value, schema: &Value) {
        let name = name.as_str().unwrap_or_default();
        let legal = |character: char| character.is_ascii_alphanumeric() || character == '_' || character == '-';
        if name.is_empty() || name.len() > 64 || !name.chars().all(legal) {
            self.add(format!("{name:?} is not the name of a tool"));
        }
        if schema["type"] != "object" {
            self.add(format!("the schema of the tool {name} is not that of an object"));
        }
        self.schema(&format!("the tool {name}"), schema);
    }

    fn schema(&mut self, of: &str, schema: &Value) {
        if let Err(error) = jsonschema::meta::validate(schema) {
            self.add(format!("the schema of {of} is not a JSON Schema: {error}"));
        }
    }

    fn tool_names(&mut self, names: impl Iterator<Item = Value>) {
        let mut seen = BTreeSet::new();
        for name in names {
            if !seen.insert(name.to_string()) {
                self.add(format!("two tools have the name {name}"));
            }
        }
    }

    fn responses(&mut self, body: &Value) {
        self.unless(body["store"] == false, "store is not false");
        self.unless(body["prompt_cache_key"].is_string(), "prompt_cache_key is missing");
        for tool in list(&body["tools"]) {
            self.unless(tool["type"] == "function", "a tool is not a function");
            self.tool(&tool["name"], &tool["parameters"]);
        }
        self.tool_names(list(&body["tools"]).iter().map(|tool| tool["name"].clone()));
        if !body["text"]["format"].is_null() {
            self.unless(body["text"]["format"]["type"] == "json_schema", "text.format is not a json_schema");
            self.schema("text.format", &body["text"]["format"]["schema"]);
        }
        let input = list(&body["input"]);
        self.unless(!input.is_empty(), "input is empty");
        let mut open = Calls::default();
        let mut before = "";
        for item in input {
            let kind = item["type"].as_str().unwrap_or_default();
            let leads_on = kind == "reasoning" || kind == "function_call" || item["role"] == "assistant";
            self.unless(before != "reasoning" || leads_on, "a reasoning item leads to nothing");
            before = kind;
            match kind {
                "message" => {
                    let role = item["role"].as_str().unwrap_or_default();
                    let part = match role {
                        "user" | "developer" | "system" => "input_",
                        "assistant" => "output_text",
                        _ => {
                            self.add(format!("{role:?} is not a role"));
                            continue;
                        }
                    };
                    self.unless(open.all_answered(), "a message comes before every call is answered");
                    let parts = list(&item["content"]);
                    self.unless(!parts.is_empty(), "a message is empty");
                    for kind in parts.iter().map(|part| part["type"].as_str().unwrap_or_default()) {
                        if !kind.starts_with(part) {
                            self.add(format!("a message of the role {role} has a part {kind:?}"));
                        }
                    }
                }
                "reasoning" => {
                    self.unless(item["summary"].is_array(), "a reasoning item has no summary");
                    self.unless(
                        item["encrypted_content"].is_string(),
                        "a reasoning item is not encrypted, and nothing is stored",
                    );
                    self.unless(open.all_answered(), "reasoning comes before every call is answered");
                }
                "function_call" => {
                    self.unless(open.none_answered(), "a call comes before every call is answered");
                    open.call(&item["call_id"], self);
                    self.arguments(&item["arguments"]);
                }
                "function_call_output" => {
                    open.answer(&item["call_id"], self);
                    let good = item["output"].is_string() || item["output"].is_array();
                    self.unless(good, "an output is neither text nor a list");
                }
                _ => self.add(format!("{kind:?} is not an item")),
            }
        }
        self.unless(open.all_answered(), "a call is not answered");
    }

    fn arguments(&mut self, arguments: &Value) {
        let good = arguments.as_str().is_some_and(|text| serde_json::from_str::<Value>(text).is_ok());
        self.unless(good, "the arguments of a call are not JSON in a text");
    }

    fn messages(&mut self, body: &Value) {
        self.unless(body["max_tokens"].as_u64().is_some_and(|bound| bound > 0), "max_tokens is missing");
        for tool in list(&body["tools"]) {
            self.tool(&tool["name"], &tool["input_schema"]);
        }
        self.tool_names(list(&body["tools"]).iter().map(|tool| tool["name"].clone()));
        let breakpoints = body.to_string().matches("\"cache_control\":").count();
        self.unless(breakpoints <= 4, "more than four cache breakpoints");
        self.unless(breakpoints > 0, "no cache breakpoint");
        if let Some(budget) = body["thinking"]["budget_tokens"].as_u64() {
            let bound = body["max_tokens"].as_u64().unwrap_or(0);
            self.unless((1024..bound).contains(&budget), "the thinking budget is not between 1024 and max_tokens");
        }
        let messages = list(&body["messages"]);
        self.unless(messages.first().is_some_and(|first| first["role"] == "user"), "the first message is not a user's");
        self.unless(messages.last().is_some_and(|last| last["role"] == "user"), "the last message is not a user's");
        let mut open = Calls::default();
        let mut before = "";
        for message in messages {
            let role = message["role"].as_str().unwrap_or_default();
            self.unless(matches!(role, "user" | "assistant"), "a role is neither user nor assistant");
            self.unless(role != before, "roles do not alternate");
            before = role;
            let blocks = list(&message["content"]);
            self.unless(!blocks.is_empty(), "a message is empty");
            let mut past_results = false;
            for block in blocks {
                let kind = block["type"].as_str().unwrap_or_default();
                past_results |= kind != "tool_result";
                match (role, kind) {
                    (_, "text") => {
                        let text = block["text"].as_str().unwrap_or_default();
                        self.unless(!text.trim().is_empty(), "a text block is blank");
                    }
                    ("user", "image") => self.unless(block["source"]["data"].is_string(), "an image has no data"),
                    ("user", "tool_result") => {
                        self.unless(!past_results, "a tool result comes after other blocks of its message");
                        open.answer(&block["tool_use_id"], self);
                        if block["is_error"] == true {
                            let parts = list(&block["content"]);
                            let only_text = parts.iter().all(|part| part["type"] == "text");
                            self.unless(!parts.is_empty() && only_text, "a failed result is not text");
                        }
                    }
                    ("assistant", "tool_use") => {
                        open.call(&block["id"], self);
                        self.unless(block["input"].is_object(), "the input of a call is not an object");
                    }
                    ("assistant", "thinking") => self.unless(
                        block["signature"].as_str().is_some_and(|signature| !signature.is_empty()),
                        "a thinking block has no signature",
                    ),
                    ("assistant", "redacted_thinking") => {
                        self.unless(block["data"].is_string(), "a redacted thinking block has no data");
                    }
                    _ => self.add(format!("a message of the role {role} has a block {kind:?}")),
                }
            }
            if role == "user" {
                self.unless(open.all_answered(), "a call is not answered in the very next message");
            } else if blocks
                .last()
                .is_some_and(|last| last["type"].as_str().is_some_and(|kind| kind.contains("thinking")))
            {
                self.add("an assistant's message ends with thinking");
            }
        }
    }

    fn chat(&mut self, body: &Value) {
        self.unless(body["stream_options"]["include_usage"] == true, "usage is not asked for");
        for tool in list(&body["tools"]) {
            self.unless(tool["type"] == "function", "a tool is not a function");
            self.tool(&tool["function"]["name"], &tool["function"]["parameters"]);
        }
        self.tool_names(list(&body["tools"]).iter().map(|tool| tool["function"]["name"].clone()));
        let messages = list(&body["messages"]);
        self.unless(!messages.is_empty(), "messages is empty");
        let mut open = Calls::default();
        for (place, message) in messages.iter().enumerate() {
            let role = message["role"].as_str().unwrap_or_default();
            if role != "tool" {
                self.unless(open.all_answered(), "a message comes before every call is answered");
            }
            match role {
                "system" | "developer" => self.unless(place == 0, "a system message is not the first"),
                "user" => self.unless(!message["content"].is_null(), "a user's message is empty"),
                "assistant" => {
                    let calls = list(&message["tool_calls"]);
                    self.unless(message["content"].is_string() || !calls.is_empty(), "an assistant's message is empty");
                    for call in calls {
                        open.call(&call["id"], self);
                        self.unless(call["type"] == "function", "a call is not that of a function");
                        self.arguments(&call["function"]["arguments"]);
                    }
                }
                "tool" => {
                    open.answer(&message["tool_call_id"], self);
                    self.unless(message["content"].is_string(), "a tool's message is not text");
                }
                _ => self.add(format!("{role:?} is not a role")),
            }
        }
        self.unless(open.all_answered(), "a call is not answered");
    }

    fn gemini(&mut self, model: &str, body: &Value) {
        const FIELDS: [&str; 8] = [
            "contents",
            "systemInstruction",
            "tools",
            "toolConfig",
            "generationConfig",
            "safetySettings",
            "cachedContent",
            "labels",
        ];
        for name in body.as_object().into_iter().flat_map(|fields| fields.keys()) {
            self.unless(FIELDS.contains(&name.as_str()), &format!("unknown name {name:?}: cannot find field"));
        }
        let declared = list(&body["tools"]).iter().flat_map(|tool| list(&tool["functionDeclarations"]));
        let declared = declared.collect::<Vec<_>>();
        for tool in &declared {
            self.unless(
                tool["parameters"].is_null(),
                "parameters are declared in the part of JSON Schema that is known",
            );
            self.tool(&tool["name"], &tool["parametersJsonSchema"]);
        }
        self.tool_names(declared.iter().map(|tool| tool["name"].clone()));
        let has_levels = !["gemini-1", "gemini-2"].iter().any(|family| model.starts_with(family));
        let config = &body["generationConfig"];
        self.unless(config["maxOutputTokens"].as_u64().is_some_and(|bound| bound > 0), "maxOutputTokens is missing");
        if !config["responseJsonSchema"].is_null() {
            self.unless(
                config["responseMimeType"] == "application/json",
                "a schema is given for an answer that is text",
            );
            let together = has_levels || declared.is_empty();
            self.unless(together, "function calling with a response mime type: 'application/json' is unsupported");
            self.schema("responseJsonSchema", &config["responseJsonSchema"]);
        }
        let thinking = &config["thinkingConfig"];
        let (level, budget) = (&thinking["thinkingLevel"], &thinking["thinkingBudget"]);
        self.unless(level.is_null() || budget.is_null(), "a thinking level and a thinking budget are given");
        let known = ["MINIMAL", "LOW", "MEDIUM", "HIGH"].iter().any(|known| level == known);
        self.unless(level.is_null() || (known && has_levels), "the thinking level is none that the model knows");
        self.gemini_contents(has_levels, list(&body["contents"]));
    }

    fn gemini_contents(&mut self, is_signed: bool, contents: &[Value]) {
        self.unless(contents.first().is_some_and(|first| first["role"] == "user"), "the first content is not a user's");
        self.unless(contents.last().is_some_and(|last| last["role"] == "user"), "the last content is not a user's");
        let mut open = Calls::default();
        let mut names = BTreeMap::new();
        let mut before = "";
        for content in contents {
            let role = content["role"].as_str().unwrap_or_default();
            self.unless(matches!(role, "user" | "model"), "a role is neither user nor model");
            self.unless(role != before, "roles do not alternate");
            before = role;
            let parts = list(&content["parts"]);
            self.unless(!parts.is_empty(), "a content has no parts");
            let first_call = parts.iter().find(|part| part["functionCall"].is_object());
            for part in parts {
                let signature = part["thoughtSignature"].as_str();
                let is_good = signature.is_none_or(|text| text.starts_with(SIGNED) || text == NO_SIGNATURE);
                self.unless(is_good, "corrupted thought signature");
                if let Some(text) = part["text"].as_str() {
                    self.unless(!text.trim().is_empty() || signature.is_some(), "a text part is blank");
                } else if role == "user" && part["inlineData"].is_object() {
                    let data = &part["inlineData"];
                    self.unless(data["mimeType"].is_string() && data["data"].is_string(), "an image has no data");
                } else if role == "model" && part["functionCall"].is_object() {
                    let call = &part["functionCall"];
                    open.call(&call["id"], self);
                    names.insert(call["id"].to_string(), call["name"].clone());
                    self.unless(call["args"].is_object(), "the arguments of a call are not an object");
                    let is_first = first_call == Some(part);
                    // Only those of the last turn are looked at by the real one; who sends them all keeps the cache.
                    self.unless(
                        !is_signed || !is_first || signature.is_some(),
                        "a function call is missing a thought_signature",
                    );
                } else if role == "user" && part["functionResponse"].is_object() {
                    let answer = &part["functionResponse"];
                    open.answer(&answer["id"], self);
                    let is_same = names.get(&answer["id"].to_string()) == Some(&answer["name"]);
                    self.unless(is_same, "a function response does not name the function that was called");
                    self.unless(answer["response"].is_object(), "a function response is not an object");
                } else {
                    self.add(format!("a content of the role {role} has a part {part}"));
                }
            }
            self.unless(
                role != "user" || open.all_answered(),
                "the number of function response parts is not that of the function call parts",
            );
        }
    }
}

/// What stands in the place of a signature where there never was one.
const NO_SIGNATURE: &str = "skip_thought_signature_validator";

/// The calls of a conversation: each is answered exactly once, and all of a batch before anything else is said.
#[derive(Default)]
struct Calls {
    seen: BTreeSet<String>,
    open: BTreeSet<String>,
    batch_is_being_answered: bool,
}

impl Calls {
    fn call(&mut self, id: &Value, found: &mut Violations) {
        let id = id.as_str().unwrap_or_default().to_owned();
        found.unless(!id.is_empty() && id.len() <= 64, "a call has no id, or a too long one");
        if !self.seen.insert(id.clone()) {
            found.add(format!("two calls have the id {id}"));
        }
        self.open.insert(id);
        self.batch_is_being_answered = false;
    }

    fn answer(&mut self, id: &Value, found: &mut Violations) {
        let id = id.as_str().unwrap_or_default();
        self.batch_is_being_answered = true;
        if !self.open.remove(id) {
            found.add(format!("a result answers {id:?}, which no open call has as its id"));
        }
    }

    fn all_answered(&self) -> bool {
        self.open.is_empty()
    }

    fn none_answered(&self) -> bool {
        self.open.is_empty() || !self.batch_is_being_answered
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
