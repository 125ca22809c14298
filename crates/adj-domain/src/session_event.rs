//! What happens in a session, in the past tense, with the names that are stored.

use crate::{
    Timestamp,
    agent::SessionSpec,
    approval::{ApprovalResult, ApprovalSubject},
    content::Content,
    id::{BlobHash, EventId},
    ledger::{Refusal, Reservation},
    model::{FailureKind, ModelRef, Moved, Purpose, StopReason, Usage, is_zero},
    money::Cost,
    network::Destination,
    permission::Ruling,
    purse::{Charge, PurseKey},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One entry of a session's log. New fields get a default; a stored name never changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum SessionEvent {
    #[serde(rename = "session.created")]
    Created { spec: Box<SessionSpec> },

    #[serde(rename = "session.status_running")]
    StatusRunning { turn: u32 },

    /// A queued message, taken up. The event has the id that the message got when it was queued.
    #[serde(rename = "user.message")]
    UserMessage {
        content: Vec<Content>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output_schema: Option<Value>,
    },

    /// Somebody asked the turn to end after the step it is in. Of a session at rest it is remembered, and changes nothing.
    #[serde(rename = "user.interrupt")]
    UserInterrupt,

    #[serde(rename = "span.model_request_start")]
    ModelRequestStarted {
        turn: u32,
        step: u32,
        purpose: Purpose,
        model: ModelRef,
        prompt: PromptRecord,
        /// Set where the request is another program's, which came through the local endpoint.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        origin: Option<Box<Origin>>,
        /// What was set aside for it, in the same transaction; absent in logs of older builds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hold: Option<Reservation>,
    },

    #[serde(rename = "span.model_request_end")]
    ModelRequestEnded {
        model_request_start_id: EventId,
        result: RequestResult,
        /// What each of its holds came to, in their order.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        charges: Vec<Charge>,
    },

    /// A request was not sent, because a budget did not let it.
    #[serde(rename = "budget.reached")]
    BudgetReached { refusal: Refusal },

    #[serde(rename = "agent.message")]
    AgentMessage { content: Vec<Content> },

    /// The vendor's opaque record of reasoning, carried back to the same vendor.
    #[serde(rename = "agent.thinking")]
    AgentThinking { vendor: String, model: String, payload: Value },

    /// `raw_input` is set, and `input` null, where the model's arguments were not JSON; such a call never runs.
    #[serde(rename = "agent.tool_use")]
    AgentToolUse {
        name: String,
        input: Value,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        raw_input: Option<String>,
        vendor_call_id: String,
    },

    /// A call of a tool that whoever uses the session runs.
    #[serde(rename = "agent.custom_tool_use")]
    CustomToolUse { name: String, input: Value, vendor_call_id: String },

    /// The result of such a call, taken up. The event has the id that the result got when it was queued.
    #[serde(rename = "user.custom_tool_result")]
    CustomToolResult { custom_tool_use_id: EventId, content: Vec<Content>, is_error: bool },

    /// A result that came too late, came twice, or belongs to no call that waits. It changes nothing.
    #[serde(rename = "custom_tool.result_refused")]
    ResultRefused { custom_tool_use_id: EventId, why: String },

    #[serde(rename = "policy.decided")]
    PolicyDecided {
        tool_use_id: EventId,
        #[serde(flatten)]
        ruling: Ruling,
    },

    /// A person is asked. The id of an approval of a tool call is the call's, that of a host is this event's.
    #[serde(rename = "approval.requested")]
    ApprovalRequested {
        subject: ApprovalSubject,
        expires_at: Timestamp,
        /// Why it is asked again, after an answer that no longer held.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        again: Option<String>,
    },

    /// The answer about a tool call, taken up. The event has the id that the answer got when it was queued.
    #[serde(rename = "user.tool_confirmation")]
    ToolConfirmed {
        tool_use_id: EventId,
        result: ApprovalResult,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deny_message: Option<String>,
        by: String,
    },

    /// The answer about a host, taken up.
    #[serde(rename = "user.host_confirmation")]
    HostConfirmed { approval_id: EventId, result: ApprovalResult, by: String },

    /// Nobody answered in time: it is denied.
    #[serde(rename = "approval.expired")]
    ApprovalExpired { approval_id: EventId },

    /// An answer that came too late, came twice, or was given to something else. It changes nothing.
    #[serde(rename = "approval.answer_refused")]
    AnswerRefused { approval_id: EventId, by: String, why: String },

    /// The door to the network has decided about a destination, before a byte went out.
    #[serde(rename = "network.decided")]
    NetworkDecided {
        to: Destination,
        /// `connect`, `http`, `socks5` or `tls`: how it was asked for.
        protocol: String,
        #[serde(flatten)]
        ruling: Ruling,
        /// The address that the name was pinned to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<String>,
        /// Names of the secrets that were put in place of their placeholders.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        secrets: Vec<String>,
    },

    /// The intent: from here on the call may have happened. Its effect id is `tool_use_id`.
    #[serde(rename = "tool.started")]
    ToolStarted { tool_use_id: EventId },

    #[serde(rename = "agent.tool_result")]
    AgentToolResult {
        tool_use_id: EventId,
        content: Vec<Content>,
        is_error: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit_code: Option<i32>,
        #[serde(default)]
        duration_ms: u64,
        /// The whole output, where `content` is a cut of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        full_output: Option<BlobHash>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        changed: Vec<String>,
    },

    /// The final answer did not fit its schema; the model is told so, once.
    #[serde(rename = "turn.output_rejected")]
    OutputRejected { errors: Vec<String> },

    #[serde(rename = "agent.thread_context_compacted")]
    ContextCompacted { summary: String, tokens_before: u64, items_dropped: u64 },

    /// The program that is this session's agent has ended.
    #[serde(rename = "agent.program_ended")]
    ProgramEnded {
        /// As a shell counts: 128 and the signal's number for one that was killed.
        code: i32,
    },

    #[serde(rename = "session.error")]
    Error { kind: FailureKind, message: String },

    #[serde(rename = "session.usage")]
    UsageReported { usage: Usage },

    #[serde(rename = "session.status_idle")]
    StatusIdle { stop_reason: IdleReason },

    /// A new holder has taken the session over, in the middle of a turn.
    #[serde(rename = "session.resumed")]
    Resumed,
}

/// Which prompt a request carried. Our own can be rebuilt from the log, and this hash tells whether it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptRecord {
    /// BLAKE3 of the neutral request's JSON (system, tools, items, schema); of another program's request, of its body.
    pub hash: BlobHash,
    pub items: u64,
    /// Four bytes of JSON are counted as one token.
    pub estimated_tokens: u64,
}

/// Where another program's request came from. What it says of itself is told, and not proven.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Origin {
    /// The protocol that the program spoke: `responses`, `messages`, `chat`, `gemini`.
    pub wire: String,
    /// The model's name as the program wrote it.
    pub asked_model: String,
    pub request_bytes: u64,
    /// Whether the request was made anew for the vendor's protocol; if not, it went out as it came.
    #[serde(skip_serializing_if = "is_false")]
    pub converted: bool,
    /// Whether only the tokens were to be counted.
    #[serde(skip_serializing_if = "is_false")]
    pub counts_only: bool,
    /// The program's own name for its session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The thread, or the sub-agent, that asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thread: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_thread: Option<String>,
    /// What a sub-agent is for: `review`, `collab_spawn`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subagent: Option<String>,
    /// An agent's place among the others: `/root/builder`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turn: Option<String>,
    /// `turn`, `compaction`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_kind: Option<String>,
    /// How often the program itself has tried already.
    #[serde(skip_serializing_if = "is_none_yet")]
    pub retries: u32,
}

fn is_false(is_so: &bool) -> bool {
    !is_so
}

fn is_none_yet(count: &u32) -> bool {
    *count == 0
}

/// How a model request ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum RequestResult {
    Answered {
        model: String,
        stop: StopReason,
        model_usage: Usage,
        /// Absent where nobody knows the model's price, and in logs of older builds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cost: Option<Cost>,
        attempts: u32,
        latency_ms: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        first_token_ms: Option<u64>,
        /// How much of the latency was spent in the gateway's queue.
        #[serde(default, skip_serializing_if = "is_zero")]
        queued_ms: u64,
        /// What another program asked for and the vendor's protocol has no words for.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        losses: Vec<String>,
        /// The model that answered, where that is another than was asked for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        answered_by: Option<ModelRef>,
        /// How the request went from one model to another.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        moved: Vec<Moved>,
    },
    Failed {
        kind: FailureKind,
        message: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        http_status: Option<u16>,
        attempts: u32,
        latency_ms: u64,
        #[serde(default, skip_serializing_if = "is_zero")]
        queued_ms: u64,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        moved: Vec<Moved>,
    },
    /// Whoever asked died, was told to stop, or hung up before the answer was whole; nothing of it was used.
    Abandoned,
    /// It was never sent.
    Refused { refusal: Refusal },
}

/// Why a session rests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum IdleReason {
    EndTurn,
    /// Asked for by `user.interrupt`.
    Interrupted,
    /// The model could not be reached or refused, also after the gateway's retries.
    RetriesExhausted,
    Refusal,
    /// The answer was cut at the output limit.
    MaxTokens,
    /// The turn took as many steps as the agent may.
    StepLimit,
    /// These tool calls wait, for a person's word or for a result.
    RequiresAction {
        event_ids: Vec<EventId>,
    },
    /// This budget lets no more be sent. The turn is not over: it goes on when there is more.
    BudgetReached {
        purse: PurseKey,
    },
    /// The final answer did not fit its schema, twice.
    OutputInvalid {
        errors: Vec<String>,
    },
}
