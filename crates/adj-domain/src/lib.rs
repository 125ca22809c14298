//! What exists and how it may change: ids, events, states, decisions.
//!
//! Must not know: I/O, async, clocks, HTTP, SQL, or any vendor.
//! Start at [`SessionEvent`] and [`Session`]: the first is what happened, the second is its fold.

pub mod agent;
pub mod approval;
pub mod blueprint;
pub mod budget;
pub mod chain;
pub mod content;
pub mod event;
pub mod grants;
pub mod id;
pub mod ledger;
pub mod model;
pub mod money;
pub mod network;
pub mod permission;
pub mod purse;
pub mod run;
pub mod run_event;
pub mod secret;
pub mod session;
pub mod session_event;
pub mod tool;

pub use agent::{AgentDefinition, Confinement, NetworkRequest, PromptPart, SandboxMode, SessionSpec, WorkspaceSpec};
pub use approval::{Approval, ApprovalResult, ApprovalSubject, Confirmation};
pub use blueprint::{Blueprint, BlueprintError, Specialist};
pub use budget::{Budget, BudgetError, BudgetEvent, Limit, Span, Unpriced};
pub use chain::{ChainBreak, ChainHash, ChainVerifier};
pub use content::{Content, Item};
pub use event::{Event, EventBody, NewEvent, PendingInput, Seq};
pub use grants::{GrantEvent, Grants};
pub use id::{BlobHash, EventId, IdError, LogId, RunId, SessionId, StepId};
pub use ledger::{Book, Cap, Gap, Hold, HoldState, LedgerOp, Purse, Refusal, Reservation};
pub use model::{
    AnswerBlock, Caller, FailureKind, ModelAnswer, ModelFailure, ModelRef, ModelRequest, Moved, Purpose, Sampling,
    StopReason, ToolChoice, ToolSpec, Usage,
};
pub use money::{Amount, Cost, Costs, Currency, Micros, MoneyError, PerMillion, Price, Rates, Tier};
pub use network::{Destination, HostError, HostPattern, HostRule, host_name};
pub use permission::{ApprovalPolicy, Grant, GrantScope, GrantSubject, Ruling, ToolPermission, Verdict};
pub use purse::{Amounts, AttemptId, Charge, PurseError, PurseKey, Scope, Unit};
pub use run::{Run, RunState, Step, StepState};
pub use run_event::{
    CoreAgent, GateSpec, GateSubject, Receipt, RunEvent, RunLimits, RunOutcome, RunSpec, StepKind, StepOutcome,
};
pub use secret::{Secret, SecretError};
pub use session::{IllegalEvent, OpenRequest, Session, Status, ToolCall, ToolState};
pub use session_event::{IdleReason, Origin, PromptRecord, RequestResult, SessionEvent};
pub use tool::{ToolOutcome, ToolRequest};

/// A moment, in UTC; events carry it with millisecond precision.
pub use jiff::Timestamp;
