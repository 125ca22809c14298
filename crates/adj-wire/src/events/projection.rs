//! The log as clients see it: what has a form on the wire, in it; the rest, not at all.

use super::{
    block,
    client::{confirmation, custom_result, event},
    stop,
};
use crate::{
    record::object,
    usage::{Cents, Tally, model_usage},
};
use adj_domain::{Event, EventId, RequestResult, Seq, SessionEvent, Timestamp, Usage, Verdict, event::BodyError};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// An entry of a session's log.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub seq: Seq,
    pub id: EventId,
    pub at: Timestamp,
    pub event: SessionEvent,
}

impl Entry {
    pub fn read(event: &Event) -> Result<Self, BodyError> {
        Ok(Self { seq: event.seq, id: event.id.clone(), at: event.at, event: event.session_event()? })
    }
}

/// An event as it goes out.
#[derive(Debug, Clone, PartialEq)]
pub struct WireEvent {
    pub seq: Seq,
    pub at: Timestamp,
    pub kind: &'static str,
    pub json: Value,
}

/// A tool of an MCP server: on the wire it has a name of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct McpTool {
    pub server: String,
    pub name: String,
}

/// Turns a log into events of the wire, in its order. What it is fed with comes in whole transactions, so that a call and the
/// decision about it are seen together.
#[derive(Debug, Clone)]
pub struct Projection {
    mcp_tools: BTreeMap<String, McpTool>,
    budget: Option<Cents>,
    tally: Option<Tally>,
    /// Calls of MCP servers' tools whose results are still to come.
    mcp_calls: BTreeSet<EventId>,
}

impl Projection {
    /// `mcp_tools` are found by the names that the model is told. `tally` is that of everything before the first entry; without
    /// it, `session.usage` does not tell cost and time.
    pub fn new(mcp_tools: BTreeMap<String, McpTool>, budget: Option<Cents>, tally: Option<Tally>) -> Self {
        Self { mcp_tools, budget, tally, mcp_calls: BTreeSet::new() }
    }

    /// What it knows by now of the session's use.
    pub fn tally(&self) -> Option<&Tally> {
        self.tally.as_ref()
    }

    pub fn feed(&mut self, entries: &[Entry]) -> Vec<WireEvent> {
        let mut verdicts = BTreeMap::new();
        for entry in entries {
            if let SessionEvent::PolicyDecided { tool_use_id, ruling } = &entry.event {
                // The first decision is the one about what was asked for; a later one can only forbid it.
                verdicts.entry(tool_use_id.clone()).or_insert(ruling.verdict);
            }
        }
        entries.iter().filter_map(|entry| self.project(entry, &verdicts)).collect()
    }

    fn project(&mut self, entry: &Entry, verdicts: &BTreeMap<EventId, Verdict>) -> Option<WireEvent> {
        if let Some(tally) = &mut self.tally {
            tally.apply(&entry.event, entry.at);
        }
        let (kind, fields) = self.form(entry, verdicts)?;
        let json = event(kind, &entry.id, Some(entry.at), fields);
        Some(WireEvent { seq: entry.seq, at: entry.at, kind, json })
    }

    fn form(
        &mut self,
        entry: &Entry,
        verdicts: &BTreeMap<EventId, Verdict>,
    ) -> Option<(&'static str, Map<String, Value>)> {
        let kind = entry.event.name();
        let fields = match &entry.event {
            SessionEvent::StatusRunning { .. }
            | SessionEvent::ModelRequestStarted { .. }
            | SessionEvent::AgentThinking { .. }
            | SessionEvent::ContextCompacted { .. } => json!({}),
            SessionEvent::UserMessage { content, .. } | SessionEvent::AgentMessage { content } => {
                json!({"content": block::answers(content)})
            }
            SessionEvent::UserInterrupt => json!({"session_thread_id": null}),
            SessionEvent::ToolConfirmed { tool_use_id, result, deny_message, .. } => {
                confirmation(tool_use_id, *result, deny_message.as_deref())
            }
            SessionEvent::ModelRequestEnded { model_request_start_id, result, .. } => {
                let (usage, is_error) = match result {
                    RequestResult::Answered { model_usage, .. } => (*model_usage, false),
                    RequestResult::Failed { .. } | RequestResult::Abandoned | RequestResult::Refused { .. } => {
                        (Usage::default(), true)
                    }
                };
                json!({
                    "model_request_start_id": model_request_start_id,
                    "is_error": is_error,
                    "model_usage": model_usage(usage),
                })
            }
            SessionEvent::AgentToolUse { name, input, raw_input, .. } => {
                return Some(self.tool_use(&entry.id, name, shown(input, raw_input.as_deref()), {
                    let verdict = verdicts.get(&entry.id).copied();
                    verdict.or(raw_input.is_some().then_some(Verdict::Deny))
                }));
            }
            SessionEvent::CustomToolUse { name, input, .. } => json!({"name": name, "input": shown(input, None)}),
            SessionEvent::CustomToolResult { custom_tool_use_id, content, is_error } => {
                custom_result(custom_tool_use_id, block::answers(content), *is_error)
            }
            SessionEvent::AgentToolResult { tool_use_id, content, is_error, .. } => {
                let content = block::answers(content);
                if self.mcp_calls.remove(tool_use_id) {
                    let fields = json!({"mcp_tool_use_id": tool_use_id, "content": content, "is_error": is_error});
                    return Some(("agent.mcp_tool_result", object(fields)));
                }
                json!({"tool_use_id": tool_use_id, "content": content, "is_error": is_error})
            }
            SessionEvent::Error { kind, message } => json!({"error": stop::error(*kind, message)}),
            SessionEvent::UsageReported { usage } => {
                // Cost and time are those of the fold, the tokens those that were written down.
                let known = self.tally.clone().map(|tally| Tally { usage: *usage, ..tally });
                let told = known.unwrap_or_else(|| Tally { usage: *usage, ..Tally::default() });
                let mut told = object(told.answer(entry.at));
                if self.tally.is_none() {
                    told.shift_remove("active_seconds");
                }
                json!({"usage": told, "budget": self.budget.as_ref().map(Cents::answer)})
            }
            SessionEvent::StatusIdle { stop_reason } => {
                let (reason, details) = stop::stop(stop_reason);
                json!({"stop_reason": reason, "stop_details": details})
            }
            // The log's own: what they say is in the answers of resources, in stop reasons and in calls' permissions.
            SessionEvent::Created { .. }
            | SessionEvent::BudgetReached { .. }
            | SessionEvent::PolicyDecided { .. }
            | SessionEvent::ApprovalRequested { .. }
            | SessionEvent::HostConfirmed { .. }
            | SessionEvent::ApprovalExpired { .. }
            | SessionEvent::AnswerRefused { .. }
            | SessionEvent::ResultRefused { .. }
            | SessionEvent::NetworkDecided { .. }
            | SessionEvent::ToolStarted { .. }
            | SessionEvent::OutputRejected { .. }
            | SessionEvent::ProgramEnded { .. }
            | SessionEvent::Resumed => return None,
        };
        Some((kind, object(fields)))
    }

    fn tool_use(
        &mut self,
        id: &EventId,
        name: &str,
        input: Value,
        verdict: Option<Verdict>,
    ) -> (&'static str, Map<String, Value>) {
        let mut fields = Map::new();
        let kind = match self.mcp_tools.get(name) {
            Some(tool) => {
                self.mcp_calls.insert(id.clone());
                fields.extend(object(json!({"mcp_server_name": tool.server, "name": tool.name, "input": input})));
                "agent.mcp_tool_use"
            }
            None => {
                fields.extend(object(json!({"name": name, "input": input})));
                "agent.tool_use"
            }
        };
        if let Some(verdict) = verdict {
            fields.insert("evaluated_permission".to_owned(), json!(verdict));
        }
        (kind, fields)
    }
}

/// Inputs are objects on the wire; what a model wrote in place of one is shown inside of one.
fn shown(input: &Value, raw: Option<&str>) -> Value {
    match (input, raw) {
        (_, Some(raw)) => json!({"invalid_json": raw}),
        (Value::Object(_), None) => input.clone(),
        (Value::Null, None) => json!({}),
        (other, None) => json!({"value": other}),
    }
}
