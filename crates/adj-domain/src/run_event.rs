//! What happens in a run, in the past tense, with the names that are stored.

use crate::{
    Timestamp,
    agent::{Confinement, SandboxMode, is_plain, never},
    blueprint::Blueprint,
    budget::Budget,
    id::{BlobHash, SessionId, StepId},
    model::{ModelRef, Usage, is_zero},
    money::Costs,
    permission::ApprovalPolicy,
    purse::PurseKey,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;

/// Everything a run starts from; never changes afterwards.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSpec {
    pub prompt: String,
    /// The date of every commit of the run, so that a repeated step makes the same commit.
    pub started_at: Timestamp,
    /// The top folder of the user's repository.
    pub repository: String,
    /// The commit that all work starts from.
    pub base: String,
    /// The branch that the final merge moves.
    pub target_branch: String,
    /// What `target_branch` pointed at; differs from `base` only when uncommitted changes were included.
    pub target_commit: String,
    /// The ref that keeps the user's uncommitted changes, if they were included.
    #[serde(default)]
    pub dirty_snapshot: Option<String>,
    pub gate: Option<GateSpec>,
    pub core: Vec<CoreAgent>,
    pub limits: RunLimits,
    pub model: ModelRef,
    #[serde(default)]
    pub effort: Option<String>,
    pub sandbox: SandboxMode,
    /// What its agents ask for beside the mode.
    #[serde(default, skip_serializing_if = "is_plain")]
    pub confinement: Confinement,
    /// When people are asked; runs of an older build never asked.
    #[serde(default = "never")]
    pub approval: ApprovalPolicy,
    /// What it may spend, and each of its sessions.
    #[serde(default, skip_serializing_if = "Budget::is_empty")]
    pub budget: Budget,
}

/// A check that must hold before work goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateSpec {
    /// Run by `bash -c` at the top of the tree.
    pub command: String,
    pub timeout_seconds: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunLimits {
    pub max_specialists: u32,
    /// Agents at work at the same time.
    pub concurrency: u32,
    /// Turns a specialist gets to pass its gate.
    pub attempts: u32,
}

impl Default for RunLimits {
    fn default() -> Self {
        Self { max_specialists: 8, concurrency: 4, attempts: 2 }
    }
}

/// A member of the fixed part of the squad. `{prompt}` and `{STEP}` in its prompts stand for the user's prompt and the output of that step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CoreAgent {
    pub step: StepId,
    pub role: String,
    pub plan_prompt: String,
    #[serde(default)]
    pub follow_up_prompt: Option<String>,
    /// The schema of the last turn's answer.
    #[serde(default)]
    pub schema: Option<Value>,
    #[serde(default)]
    pub depends_on: Vec<StepId>,
    #[serde(default)]
    pub model: Option<ModelRef>,
}

/// Which turn of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    Plan,
    FollowUp,
    /// The builder gets its blueprint back, with what is wrong with it.
    Repair,
    /// A specialist's turn; attempts count from 1.
    Build(u32),
}

/// Messages to sessions get their ids from these words too, so they are as stable as anything stored.
impl fmt::Display for StepKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plan => f.write_str("plan"),
            Self::FollowUp => f.write_str("follow-up"),
            Self::Repair => f.write_str("repair"),
            Self::Build(1) => f.write_str("build"),
            Self::Build(attempt) => write!(f, "build (attempt {attempt})"),
        }
    }
}

/// How a turn of a step ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum StepOutcome {
    Completed { output: String },
    Failed { why: String },
}

/// What a gate judged.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum GateSubject {
    Step { step: StepId, attempt: u32 },
    Combined,
}

impl fmt::Display for GateSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step { step, attempt: 1 } => write!(f, "{step}"),
            Self::Step { step, attempt } => write!(f, "{step} (attempt {attempt})"),
            Self::Combined => f.write_str("combined tree"),
        }
    }
}

/// Evidence of a check, made by the engine: which command said what about which tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    pub tree: String,
    pub command: String,
    /// `None` when the command was ended by a signal or a limit.
    pub exit_code: Option<i32>,
    pub passed: bool,
    pub duration_ms: u64,
    /// The whole output.
    pub output: BlobHash,
    /// The end of the output, for people and for the next attempt.
    pub tail: String,
}

/// One entry of a run's log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum RunEvent {
    #[serde(rename = "run.created")]
    Created { spec: Box<RunSpec> },

    /// The intent: the session gets this turn. The message's id is derived from run, step and kind, so that it is sent once.
    #[serde(rename = "run.turn_started")]
    TurnStarted { step: StepId, kind: StepKind, session: SessionId },
    #[serde(rename = "run.turn_finished")]
    TurnFinished {
        step: StepId,
        kind: StepKind,
        outcome: StepOutcome,
        usage: Usage,
        #[serde(default, skip_serializing_if = "Costs::is_empty")]
        costs: Costs,
    },

    /// One step's output became part of another's input.
    #[serde(rename = "run.handed_off")]
    HandedOff { from: StepId, to: StepId, hash: BlobHash, bytes: u64 },

    #[serde(rename = "run.blueprint_accepted")]
    BlueprintAccepted { blueprint: Blueprint },
    #[serde(rename = "run.blueprint_rejected")]
    BlueprintRejected { errors: Vec<String> },

    /// The tree a specialist starts from: the run's base with the results it depends on.
    #[serde(rename = "run.base_prepared")]
    BasePrepared { step: StepId, commit: String },

    #[serde(rename = "run.result_committed")]
    ResultCommitted {
        step: StepId,
        attempt: u32,
        commit: String,
        tree: String,
        ref_name: String,
        /// The first of the paths that differ from the step's base.
        changed: Vec<String>,
        #[serde(default, skip_serializing_if = "is_zero")]
        more_changed: u64,
    },

    #[serde(rename = "run.gate_started")]
    GateStarted { subject: GateSubject, commit: String, command: String },
    #[serde(rename = "run.gate_finished")]
    GateFinished { subject: GateSubject, receipt: Receipt },

    #[serde(rename = "run.merged")]
    Merged { step: StepId, commit: String, tree: String },
    /// `step` does not merge: with the results it depends on (before its work), or with the combined tree (after it).
    #[serde(rename = "run.merge_conflicted")]
    MergeConflicted { step: StepId, paths: Vec<String> },

    /// The work is safe under a branch of its own; the target branch is untouched.
    #[serde(rename = "run.work_kept")]
    WorkKept { branch: String, commit: String },

    #[serde(rename = "run.landing_started")]
    LandingStarted { branch: String, from: String, to: String },
    #[serde(rename = "run.landed")]
    Landed { branch: String, from: String, to: String },
    #[serde(rename = "run.landing_refused")]
    LandingRefused { why: String },

    /// After the end: a workspace is gone. What it held lies under `reference` in the store of the repository, if it held anything
    /// beyond its base.
    #[serde(rename = "run.workspace_removed")]
    WorkspaceRemoved {
        step: StepId,
        commit: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reference: Option<String>,
    },

    /// A budget lets none of its agents go on; it can be resumed when there is more.
    #[serde(rename = "run.paused")]
    Paused { purse: PurseKey },
    #[serde(rename = "run.interrupted")]
    Interrupted,
    #[serde(rename = "run.resumed")]
    Resumed,
    #[serde(rename = "run.finished")]
    Finished { outcome: RunOutcome },
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RunOutcome {
    /// The target branch holds the work.
    Landed {
        branch: String,
        commit: String,
    },
    /// The work did not pass; it stays on the branches that `run.work_kept` names.
    GateFailed {
        subject: GateSubject,
    },
    Conflicted {
        step: StepId,
        paths: Vec<String>,
    },
    BlueprintInvalid {
        errors: Vec<String>,
    },
    StepFailed {
        step: StepId,
        why: String,
    },
    /// All checks passed, but the target branch could not be moved.
    NotLanded {
        why: String,
    },
}
