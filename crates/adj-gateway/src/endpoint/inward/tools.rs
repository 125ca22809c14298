//! Callers' tools as the functions that every vendor has, and back. Tools are described as the Responses API does it, which has
//! the most kinds of them; the other wires are brought into its form.

use super::{Losses, only_own};
use crate::endpoint::{Refusal, Wire};
use adj_domain::{EventId, ToolChoice, ToolSpec};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The longest name that every vendor takes.
const LONGEST_NAME: usize = 64;
const SEARCH: &str = "tool_search";

/// The tools of one request, by the names under which the vendor knows them.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::endpoint) struct Tools {
    wire: Wire,
    pub(super) specs: Vec<ToolSpec>,
    origins: BTreeMap<String, Origin>,
    /// The caller's word for search at the vendor, if it offers that.
    search: Option<&'static str>,
}

/// What a tool is to the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    kind: Kind,
    namespace: Option<String>,
    name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Function,
    /// Its input is free text.
    Custom,
    /// Tools that the caller loads when they are asked for.
    Search,
}

impl Tools {
    pub(super) fn new(wire: Wire) -> Self {
        Self { wire, specs: Vec::new(), origins: BTreeMap::new(), search: None }
    }

    pub(super) fn add(&mut self, tools: &Value, losses: &mut Losses) -> Result<(), Refusal> {
        for tool in tools.as_array().map_or(&[][..], Vec::as_slice) {
            self.add_one(tool, None, losses)?;
        }
        Ok(())
    }

    fn add_one(&mut self, tool: &Value, namespace: Option<&str>, losses: &mut Losses) -> Result<(), Refusal> {
        let text = |name: &str| tool[name].as_str().unwrap_or_default();
        // What is loaded later is offered then.
        if tool["defer_loading"] == true {
            return Ok(());
        }
        let description = text("description").to_owned();
        match text("type") {
            "function" => {
                if tool["strict"] == true {
                    losses.note("tools.strict");
                }
                let mut schema = tool["parameters"].clone();
                if !schema.is_object() {
                    schema = json!({"type": "object", "properties": {}});
                }
                without_encryption(&mut schema);
                self.offer(Kind::Function, namespace, text("name"), description, schema)
            }
            "custom" => {
                let mut description = description;
                if let Some(grammar) = tool["format"]["definition"].as_str() {
                    losses.note("grammar");
                    description.push_str("\n\nThe input is free text that must match this grammar:\n");
                    description.push_str(grammar);
                }
                let schema =
                    json!({"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]});
                self.offer(Kind::Custom, namespace, text("name"), description, schema)
            }
            "namespace" => {
                let name = text("name").to_owned();
                for inner in tool["tools"].as_array().map_or(&[][..], Vec::as_slice) {
                    self.add_one(inner, Some(&name), losses)?;
                }
                Ok(())
            }
            SEARCH if tool["execution"] == "client" => {
                let mut schema = tool["parameters"].clone();
                if !schema.is_object() {
                    schema =
                        json!({"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]});
                }
                self.offer(Kind::Search, None, SEARCH, description, schema)
            }
            "web_search" | "web_search_preview" => {
                self.search("web_search", losses);
                Ok(())
            }
            kind => Err(only_own(self.wire, &format!("the tool {kind:?}"))),
        }
    }

    /// Leaves out search at the vendor, which is no loss as long as there are other tools.
    pub(super) fn search(&mut self, word: &'static str, losses: &mut Losses) {
        self.search = Some(word);
        losses.note(word);
    }

    fn offer(
        &mut self,
        kind: Kind,
        namespace: Option<&str>,
        name: &str,
        description: String,
        input_schema: Value,
    ) -> Result<(), Refusal> {
        if name.is_empty() {
            return Err(Refusal::invalid("tools: each needs a name"));
        }
        let own = outward(namespace, name);
        let origin = Origin { kind, namespace: namespace.map(str::to_owned), name: name.to_owned() };
        match self.origins.get(&own) {
            // A tool that was loaded stays in the conversation, and comes again with each request.
            Some(held) if *held == origin => return Ok(()),
            Some(_) => return Err(Refusal::invalid(format!("tools: two of them would have the name {own}"))),
            None => {}
        }
        self.origins.insert(own.clone(), origin);
        self.specs.push(ToolSpec { name: own, description, input_schema });
        Ok(())
    }

    /// Reads which tools are to be called; some ways of saying it leave only a part of them.
    pub(super) fn choose(&mut self, choice: &Value) -> Result<ToolChoice, Refusal> {
        let named = |value: &Value| outward(value["namespace"].as_str(), value["name"].as_str().unwrap_or_default());
        let chosen = match (choice.as_str(), choice["type"].as_str()) {
            (None, None) if choice.is_null() => ToolChoice::Auto,
            (Some("auto"), _) => ToolChoice::Auto,
            (Some("none"), _) => ToolChoice::None,
            (Some("required"), _) => ToolChoice::Required,
            (None, Some("function" | "custom")) => ToolChoice::Tool(named(choice)),
            (None, Some("allowed_tools")) => {
                let allowed = choice["tools"].as_array().map_or(&[][..], Vec::as_slice);
                let allowed = allowed.iter().map(named).collect::<BTreeSet<_>>();
                self.specs.retain(|tool| allowed.contains(&tool.name));
                if choice["mode"] == "required" { ToolChoice::Required } else { ToolChoice::Auto }
            }
            _ => return Err(only_own(self.wire, &format!("tool_choice {choice}"))),
        };
        if let ToolChoice::Tool(name) = &chosen
            && !self.specs.iter().any(|tool| tool.name == *name)
        {
            return Err(Refusal::invalid(format!("tool_choice: there is no tool {name:?}")));
        }
        if let Some(search) = self.search.filter(|_| self.specs.is_empty()) {
            return Err(only_own(self.wire, &format!("the tool {search} (search at the vendor)")));
        }
        if chosen == ToolChoice::Required && self.specs.is_empty() {
            return Err(Refusal::invalid("tool_choice: a call is required, and there is no tool to call"));
        }
        Ok(chosen)
    }

    /// Returns the caller's own name for a tool.
    pub(super) fn callers_name<'a>(&'a self, name: &'a str) -> &'a str {
        self.origins.get(name).map_or(name, |origin| origin.name.as_str())
    }

    /// Returns what a tool is called with, if that is free text to the caller.
    pub(super) fn free_text(&self, name: &str, input: &Result<Value, String>) -> Option<String> {
        self.origins.get(name).filter(|origin| origin.kind == Kind::Custom)?;
        let text = input.as_ref().ok().and_then(|value| value["input"].as_str()).map(str::to_owned);
        Some(text.unwrap_or_else(|| raw(input)))
    }

    /// Returns how the id of a call's item begins.
    pub(super) fn prefix(&self, name: &str) -> &'static str {
        match self.origins.get(name).map(|origin| origin.kind) {
            Some(Kind::Custom) => "ctc",
            Some(Kind::Search) => "tsc",
            Some(Kind::Function) | None => "fc",
        }
    }

    /// Writes a call as the kind of item that the caller expects; the first is how it begins.
    pub(super) fn item(
        &self,
        item_id: &str,
        call_id: &str,
        name: &str,
        input: &Result<Value, String>,
    ) -> (Value, Value) {
        let function = Origin { kind: Kind::Function, namespace: None, name: name.to_owned() };
        let origin = self.origins.get(name).unwrap_or(&function);
        let (kind, key, empty, whole) = match origin.kind {
            Kind::Function => ("function_call", "arguments", json!(""), json!(raw(input))),
            Kind::Custom => ("custom_tool_call", "input", json!(""), json!(self.free_text(name, input))),
            Kind::Search => {
                let object = input.clone().ok().filter(Value::is_object);
                ("tool_search_call", "arguments", json!({}), object.unwrap_or_else(|| json!({"query": raw(input)})))
            }
        };
        let write = |status: &str, held: Value| {
            let mut item = json!({"id": item_id, "type": kind, "status": status, "call_id": call_id});
            if origin.kind == Kind::Search {
                item["execution"] = json!("client");
            } else {
                item["name"] = json!(origin.name);
            }
            if let Some(namespace) = &origin.namespace {
                item["namespace"] = json!(namespace);
            }
            item[key] = held;
            item
        };
        (write("in_progress", empty), write("completed", whole))
    }
}

/// What a model wrote as a call's arguments, as a text.
pub(super) fn raw(input: &Result<Value, String>) -> String {
    input.as_ref().map_or_else(Clone::clone, Value::to_string)
}

/// One name out of two, of the characters and the length that every vendor takes.
pub(super) fn outward(namespace: Option<&str>, name: &str) -> String {
    let whole = match namespace {
        None | Some("functions" | "") => name.to_owned(),
        Some(namespace) => format!("{namespace}__{name}"),
    };
    let legal = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-');
    if whole.len() <= LONGEST_NAME && whole.chars().all(legal) {
        return whole;
    }
    let mark = EventId::derive(&[&whole]);
    let mark = &mark.as_str()[5..13];
    let kept = whole.chars().map(|one| if legal(one) { one } else { '_' }).take(LONGEST_NAME - 9).collect::<String>();
    format!("{kept}_{mark}")
}

/// Takes out a word that only OpenAI knows, and other vendors' validators stumble over.
fn without_encryption(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if map.get("encrypted").is_some_and(Value::is_boolean) {
                map.shift_remove("encrypted");
            }
            map.values_mut().for_each(without_encryption);
        }
        Value::Array(list) => list.iter_mut().for_each(without_encryption),
        _ => {}
    }
}
