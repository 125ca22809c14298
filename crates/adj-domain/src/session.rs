//! A session as its log tells it: one function folds the events, live and in replay.

use crate::{
    agent::SessionSpec,
    approval::{Approval, ApprovalResult, ApprovalSubject},
    content::{Content, Item},
    event::Seq,
    id::{BlobHash, EventId, SessionId},
    model::{Purpose, StopReason, Usage},
    money::Costs,
    network::Destination,
    permission::Verdict,
    purse::PurseKey,
    session_event::{IdleReason, RequestResult, SessionEvent},
};
use serde_json::Value;
use std::collections::BTreeSet;

/// What a session is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    Idle {
        /// `None` before the first turn.
        reason: Option<IdleReason>,
    },
    Running,
}

/// A model request that was asked for and has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenRequest {
    pub id: EventId,
    pub purpose: Purpose,
}

/// How far a tool call has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolState {
    Asked,
    Decided(Verdict),
    /// A person is asked; the question is among [`Session::approvals`].
    Waiting,
    /// Whoever uses the session runs it, and has not told of its result.
    AtUser,
    /// A person allowed it, for what this hash stands for.
    Confirmed(BlobHash),
    Started,
    Answered,
}

/// A tool call of the step under way.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolCall {
    pub id: EventId,
    pub name: String,
    pub input: Value,
    pub raw_input: Option<String>,
    pub state: ToolState,
    answer: Option<Item>,
}

/// A session, folded.
#[derive(Debug, Clone, PartialEq)]
pub struct Session {
    pub id: SessionId,
    pub spec: SessionSpec,
    pub head: Seq,
    pub status: Status,
    /// Turns begun.
    pub turn: u32,
    /// Requests made in this turn.
    pub step: u32,
    /// The conversation as the next request will carry it. Results of the step under way are not in it yet.
    pub items: Vec<Item>,
    pub usage: Usage,
    pub costs: Costs,
    /// What the vendor last counted as this conversation's size, and how many bytes of items came since.
    pub context_tokens: u64,
    pub bytes_since_count: u64,
    pub request: Option<OpenRequest>,
    /// Requests of the program that is this session's agent; it may make several at once.
    pub program_requests: BTreeSet<EventId>,
    pub calls: Vec<ToolCall>,
    /// Questions to people that have no answer yet.
    pub approvals: Vec<Approval>,
    /// Hosts that people have allowed to this session.
    pub allowed_hosts: Vec<Destination>,
    pub interrupted: bool,
    pub output_schema: Option<Value>,
    pub output_rejections: u32,
    /// How the last whole answer of this turn stopped.
    pub last_stop: Option<StopReason>,
    /// The text of this turn's last message; of the last turn's, while the session rests.
    pub last_message: Option<String>,
    pub model_requests: u64,
    pub tool_calls: u64,
}

/// An event that cannot follow what came before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {seq} ({event}) cannot happen here: {why}")]
pub struct IllegalEvent {
    pub seq: Seq,
    pub event: &'static str,
    pub why: &'static str,
}

impl Session {
    /// Starts the fold with the first event of a log.
    pub fn created(id: SessionId, spec: SessionSpec) -> Self {
        Self {
            id,
            spec,
            head: 1,
            status: Status::Idle { reason: None },
            turn: 0,
            step: 0,
            items: Vec::new(),
            usage: Usage::default(),
            costs: Costs::default(),
            context_tokens: 0,
            bytes_since_count: 0,
            request: None,
            program_requests: BTreeSet::new(),
            calls: Vec::new(),
            approvals: Vec::new(),
            allowed_hosts: Vec::new(),
            interrupted: false,
            output_schema: None,
            output_rejections: 0,
            last_stop: None,
            last_message: None,
            model_requests: 0,
            tool_calls: 0,
        }
    }

    /// Folds a whole log.
    pub fn replay(
        id: &SessionId,
        events: impl IntoIterator<Item = (EventId, SessionEvent)>,
    ) -> Result<Option<Self>, IllegalEvent> {
        let mut events = events.into_iter();
        let mut session = match events.next() {
            None => return Ok(None),
            Some((_, SessionEvent::Created { spec })) => Self::created(id.clone(), *spec),
            Some((_, event)) => return Err(illegal(1, &event, "a log starts with session.created")),
        };
        for (id, event) in events {
            session.apply(&id, &event)?;
        }
        Ok(Some(session))
    }

    pub fn is_idle(&self) -> bool {
        matches!(self.status, Status::Idle { .. })
    }

    /// An estimate of what the next request will hold.
    pub fn estimated_context_tokens(&self) -> u64 {
        self.context_tokens.saturating_add(self.bytes_since_count / 4)
    }

    /// Whether every call of the step under way has its answer.
    pub fn calls_answered(&self) -> bool {
        self.calls.iter().all(|call| call.state == ToolState::Answered)
    }

    /// The only place where a session changes.
    pub fn apply(&mut self, id: &EventId, event: &SessionEvent) -> Result<(), IllegalEvent> {
        let seq = self.head + 1;
        let refuse = |why| Err(illegal(seq, event, why));
        let running = self.status == Status::Running;
        match event {
            SessionEvent::Created { .. } => return refuse("the session exists already"),
            SessionEvent::StatusRunning { turn } => {
                if running {
                    return refuse("the session is running already");
                }
                if self.waits_for_people() {
                    if *turn != self.turn {
                        return refuse("a turn that waits for people goes on under its number");
                    }
                    self.status = Status::Running;
                    self.head = seq;
                    return Ok(());
                }
                // More was given, or a new message ends the turn for which there was no more.
                if self.waits_for_budget().is_some() && *turn == self.turn {
                    self.status = Status::Running;
                    self.head = seq;
                    return Ok(());
                }
                if *turn != self.turn + 1 {
                    return refuse("turns are numbered without gaps");
                }
                self.status = Status::Running;
                self.turn = *turn;
                self.step = 0;
                self.interrupted = false;
                self.output_schema = None;
                self.output_rejections = 0;
                self.last_stop = None;
                self.last_message = None;
            }
            SessionEvent::UserMessage { content, output_schema } => {
                if !running {
                    return refuse("a message is taken up within a turn");
                }
                if self.request.is_some() || !self.calls.is_empty() {
                    return refuse("a message is taken up between steps");
                }
                if output_schema.is_some() {
                    self.output_schema.clone_from(output_schema);
                    self.output_rejections = 0;
                }
                self.push(Item::User { content: content.clone() });
            }
            SessionEvent::UserInterrupt => self.interrupted |= running,
            SessionEvent::ModelRequestStarted { step, purpose, origin, .. } => {
                if !running {
                    return refuse("a request belongs to a turn");
                }
                if origin.is_some() != self.spec.program.is_some() {
                    return refuse("either the agent is a program, and makes all requests, or it makes none");
                }
                if self.request.is_some() {
                    return refuse("a request is open already");
                }
                if !self.calls.is_empty() {
                    return refuse("tool calls are still open");
                }
                if *step != self.step {
                    return refuse("steps are numbered without gaps");
                }
                self.step += 1;
                self.model_requests += 1;
                match origin {
                    Some(_) => {
                        self.program_requests.insert(id.clone());
                    }
                    None => self.request = Some(OpenRequest { id: id.clone(), purpose: *purpose }),
                }
            }
            SessionEvent::ModelRequestEnded { model_request_start_id, result, .. }
                if self.program_requests.remove(model_request_start_id) =>
            {
                if let RequestResult::Answered { model_usage, cost, .. } = result {
                    self.usage = self.usage.plus(*model_usage);
                    self.costs.add(cost.as_ref());
                }
            }
            SessionEvent::ModelRequestEnded { model_request_start_id, result, .. } => {
                if self.request.as_ref().is_none_or(|open| open.id != *model_request_start_id) {
                    return refuse("no such request is open");
                }
                let purpose = self.request.take().map(|open| open.purpose);
                match result {
                    RequestResult::Answered { model_usage, cost, stop, .. } => {
                        self.usage = self.usage.plus(*model_usage);
                        self.costs.add(cost.as_ref());
                        if purpose == Some(Purpose::Step) {
                            self.context_tokens = model_usage.total_tokens();
                            self.bytes_since_count = 0;
                            self.last_stop = Some(stop.clone());
                        }
                    }
                    RequestResult::Failed { .. } => {}
                    // Asked again under the same number, as if it had never been sent.
                    RequestResult::Abandoned => self.step -= 1,
                    RequestResult::Refused { .. } => {
                        self.step -= 1;
                        self.model_requests -= 1;
                    }
                }
            }
            SessionEvent::AgentMessage { content } => {
                if self.request.is_none() {
                    return refuse("an agent speaks only in answer to a request");
                }
                let text = Content::join_text(content);
                self.last_message = Some(text.clone());
                self.push(Item::Assistant { text });
            }
            SessionEvent::AgentThinking { vendor, model, payload } => {
                if self.request.is_none() {
                    return refuse("an agent thinks only in answer to a request");
                }
                self.push(Item::Reasoning { vendor: vendor.clone(), model: model.clone(), payload: payload.clone() });
            }
            SessionEvent::AgentToolUse { name, input, raw_input, .. } => {
                if self.request.is_none() {
                    return refuse("a tool is called only in answer to a request");
                }
                self.tool_calls += 1;
                let shown = raw_input.clone().map_or_else(|| input.clone(), Value::String);
                self.push(Item::ToolCall { id: id.clone(), name: name.clone(), input: shown });
                self.calls.push(ToolCall {
                    id: id.clone(),
                    name: name.clone(),
                    input: input.clone(),
                    raw_input: raw_input.clone(),
                    state: ToolState::Asked,
                    answer: None,
                });
            }
            SessionEvent::CustomToolUse { name, input, .. } => {
                if self.request.is_none() {
                    return refuse("a tool is called only in answer to a request");
                }
                if !self.spec.agent.custom_tools.iter().any(|tool| tool.name == *name) {
                    return refuse("nobody runs a tool of this name");
                }
                self.tool_calls += 1;
                self.push(Item::ToolCall { id: id.clone(), name: name.clone(), input: input.clone() });
                self.calls.push(ToolCall {
                    id: id.clone(),
                    name: name.clone(),
                    input: input.clone(),
                    raw_input: None,
                    state: ToolState::AtUser,
                    answer: None,
                });
            }
            SessionEvent::CustomToolResult { custom_tool_use_id, content, is_error } => {
                if !running {
                    return refuse("a result is taken up within a turn");
                }
                let answer = Item::ToolResult {
                    call: custom_tool_use_id.clone(),
                    content: content.clone(),
                    is_error: *is_error,
                };
                match self.call(custom_tool_use_id) {
                    Some(call) if call.state == ToolState::AtUser => {
                        call.state = ToolState::Answered;
                        call.answer = Some(answer);
                    }
                    _ => return refuse("no such call waits for a result"),
                }
                self.settle_calls();
            }
            SessionEvent::PolicyDecided { tool_use_id, ruling } => match self.call(tool_use_id) {
                Some(call) if call.state == ToolState::Asked => call.state = ToolState::Decided(ruling.verdict),
                // It may come to forbid what a person was asked about, and never the other way round.
                Some(call)
                    if ruling.verdict == Verdict::Deny
                        && matches!(call.state, ToolState::Decided(Verdict::Ask) | ToolState::Confirmed(_)) =>
                {
                    call.state = ToolState::Decided(Verdict::Deny);
                }
                _ => return refuse("policy decides once on each call that was asked for"),
            },
            SessionEvent::ToolStarted { tool_use_id } => match self.call(tool_use_id) {
                Some(call) if matches!(call.state, ToolState::Decided(Verdict::Allow) | ToolState::Confirmed(_)) => {
                    call.state = ToolState::Started;
                }
                _ => return refuse("a call starts once, after it was allowed"),
            },
            SessionEvent::AgentToolResult { tool_use_id, content, is_error, .. } => {
                if self.request.is_some() {
                    return refuse("results come after the answer is whole");
                }
                let answer =
                    Item::ToolResult { call: tool_use_id.clone(), content: content.clone(), is_error: *is_error };
                match self.call(tool_use_id) {
                    Some(call) if call.state != ToolState::Answered => {
                        call.state = ToolState::Answered;
                        call.answer = Some(answer);
                    }
                    _ => return refuse("a call is answered once"),
                }
                self.close_approval(tool_use_id);
                self.settle_calls();
            }
            SessionEvent::OutputRejected { errors } => {
                if !running || self.output_schema.is_none() {
                    return refuse("no answer was asked for in a schema");
                }
                self.output_rejections += 1;
                self.push(Item::User { content: vec![Content::text(rejection(errors))] });
            }
            SessionEvent::ContextCompacted { summary, .. } => {
                if !running || self.request.is_some() || !self.calls.is_empty() {
                    return refuse("the context is compacted between steps");
                }
                self.compact(summary);
            }
            SessionEvent::StatusIdle { stop_reason } => {
                if !running {
                    return refuse("the session is idle already");
                }
                if let IdleReason::RequiresAction { event_ids } = stop_reason {
                    let waits = |id: &EventId| self.waiting_calls().any(|waiting| waiting == id);
                    let runs = self.calls.iter().any(|call| call.state == ToolState::Started);
                    if self.request.is_some() || runs || event_ids.is_empty() || !event_ids.iter().all(waits) {
                        return refuse("only calls that wait for people may be under way");
                    }
                } else if self.request.is_some() || !self.program_requests.is_empty() || !self.calls.is_empty() {
                    return refuse("nothing may be under way when a session goes idle");
                }
                self.status = Status::Idle { reason: Some(stop_reason.clone()) };
            }
            SessionEvent::ApprovalRequested { subject, expires_at, .. } => {
                let id = match subject {
                    ApprovalSubject::Tool { tool_use_id, .. } => match self.call(tool_use_id) {
                        Some(call)
                            if matches!(call.state, ToolState::Decided(Verdict::Ask) | ToolState::Confirmed(_)) =>
                        {
                            call.state = ToolState::Waiting;
                            tool_use_id.clone()
                        }
                        _ => return refuse("people are asked about calls that policy leaves to them"),
                    },
                    ApprovalSubject::Host { .. } if !running => return refuse("only a running turn asks for a host"),
                    ApprovalSubject::Host { .. } => id.clone(),
                };
                self.approvals.push(Approval { id, subject: subject.clone(), expires_at: *expires_at });
            }
            SessionEvent::ToolConfirmed { tool_use_id, result, .. } => {
                if !running {
                    return refuse("an answer is taken up within a turn");
                }
                let Some(Approval { subject: ApprovalSubject::Tool { binding, .. }, .. }) =
                    self.close_approval(tool_use_id)
                else {
                    return refuse("nobody was asked about this call");
                };
                let call = self.call(tool_use_id).expect("an approval names a call that is open");
                call.state = match result {
                    ApprovalResult::Allow => ToolState::Confirmed(binding),
                    ApprovalResult::Deny => ToolState::Decided(Verdict::Deny),
                };
            }
            SessionEvent::HostConfirmed { approval_id, result, .. } => match self.close_approval(approval_id) {
                Some(Approval { subject: ApprovalSubject::Host { to }, .. }) => {
                    if *result == ApprovalResult::Allow {
                        self.allowed_hosts.push(to);
                    }
                }
                _ => return refuse("nobody was asked about such a host"),
            },
            SessionEvent::ApprovalExpired { approval_id } => {
                if self.close_approval(approval_id).is_none() {
                    return refuse("no such approval is open");
                }
                if let Some(call) = self.call(approval_id) {
                    call.state = ToolState::Decided(Verdict::Deny);
                }
            }
            SessionEvent::ProgramEnded { .. } => {
                if !running || self.spec.program.is_none() {
                    return refuse("no program is this session's agent");
                }
            }
            SessionEvent::Error { .. }
            | SessionEvent::BudgetReached { .. }
            | SessionEvent::UsageReported { .. }
            | SessionEvent::Resumed
            | SessionEvent::AnswerRefused { .. }
            | SessionEvent::ResultRefused { .. }
            | SessionEvent::NetworkDecided { .. } => {}
        }
        self.head = seq;
        Ok(())
    }

    /// Whether it rests in the middle of a turn, until a person answers.
    pub fn waits_for_people(&self) -> bool {
        matches!(self.status, Status::Idle { reason: Some(IdleReason::RequiresAction { .. }) })
    }

    /// The calls that only somebody outside can bring forward, in their order.
    pub fn waiting_calls(&self) -> impl Iterator<Item = &EventId> {
        let waits = |call: &&ToolCall| matches!(call.state, ToolState::Waiting | ToolState::AtUser);
        self.calls.iter().filter(waits).map(|call| &call.id)
    }

    /// The budget for which it rests in the middle of a turn.
    pub fn waits_for_budget(&self) -> Option<&PurseKey> {
        match &self.status {
            Status::Idle { reason: Some(IdleReason::BudgetReached { purse }) } => Some(purse),
            _ => None,
        }
    }

    fn close_approval(&mut self, id: &EventId) -> Option<Approval> {
        let index = self.approvals.iter().position(|approval| approval.id == *id)?;
        Some(self.approvals.remove(index))
    }

    fn call(&mut self, id: &EventId) -> Option<&mut ToolCall> {
        self.calls.iter_mut().find(|call| call.id == *id)
    }

    fn push(&mut self, item: Item) {
        self.bytes_since_count += serde_json::to_string(&item).map_or(0, |json| json.len() as u64);
        self.items.push(item);
    }

    /// Once all calls have answers, they enter the conversation in the order of the calls, not of the answers: so the
    /// next request is the same whichever tool was faster.
    fn settle_calls(&mut self) {
        if self.calls_answered() {
            for call in std::mem::take(&mut self.calls) {
                self.push(call.answer.expect("an answered call has its answer"));
            }
        }
    }

    /// Keeps what people said last in full, and the summary in place of everything else.
    fn compact(&mut self, summary: &str) {
        let mut items = std::mem::take(&mut self.items);
        let asked = items.iter().rposition(|item| matches!(item, Item::User { .. }));
        let last_asked = asked.map(|index| items.swap_remove(index));
        self.context_tokens = 0;
        self.bytes_since_count = 0;
        let note = format!("Summary of the conversation so far:\n\n{summary}");
        match last_asked {
            Some(Item::User { mut content }) => {
                content.insert(0, Content::text(note));
                self.push(Item::User { content });
            }
            _ => self.push(Item::User { content: vec![Content::text(note)] }),
        }
    }
}

/// What a model is told when its answer does not fit.
fn rejection(errors: &[String]) -> String {
    let mut text = String::from("Your answer does not fit the required JSON Schema:\n");
    for error in errors {
        text.push_str("- ");
        text.push_str(error);
        text.push('\n');
    }
    text.push_str("Answer again with nothing but one JSON value that fits.");
    text
}

fn illegal(seq: Seq, event: &SessionEvent, why: &'static str) -> IllegalEvent {
    IllegalEvent { seq, event: event.name(), why }
}

impl SessionEvent {
    /// Returns the wire name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Created { .. } => "session.created",
            Self::StatusRunning { .. } => "session.status_running",
            Self::UserMessage { .. } => "user.message",
            Self::UserInterrupt => "user.interrupt",
            Self::ModelRequestStarted { .. } => "span.model_request_start",
            Self::ModelRequestEnded { .. } => "span.model_request_end",
            Self::BudgetReached { .. } => "budget.reached",
            Self::AgentMessage { .. } => "agent.message",
            Self::AgentThinking { .. } => "agent.thinking",
            Self::AgentToolUse { .. } => "agent.tool_use",
            Self::CustomToolUse { .. } => "agent.custom_tool_use",
            Self::CustomToolResult { .. } => "user.custom_tool_result",
            Self::ResultRefused { .. } => "custom_tool.result_refused",
            Self::PolicyDecided { .. } => "policy.decided",
            Self::ApprovalRequested { .. } => "approval.requested",
            Self::ToolConfirmed { .. } => "user.tool_confirmation",
            Self::HostConfirmed { .. } => "user.host_confirmation",
            Self::ApprovalExpired { .. } => "approval.expired",
            Self::AnswerRefused { .. } => "approval.answer_refused",
            Self::NetworkDecided { .. } => "network.decided",
            Self::ToolStarted { .. } => "tool.started",
            Self::AgentToolResult { .. } => "agent.tool_result",
            Self::OutputRejected { .. } => "turn.output_rejected",
            Self::ContextCompacted { .. } => "agent.thread_context_compacted",
            Self::ProgramEnded { .. } => "agent.program_ended",
            Self::Error { .. } => "session.error",
            Self::UsageReported { .. } => "session.usage",
            Self::StatusIdle { .. } => "session.status_idle",
            Self::Resumed => "session.resumed",
        }
    }
}
