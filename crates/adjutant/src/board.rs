//! Who is doing what: live events folded into lines for people. Pure; `screen` puts it on a terminal.

use crate::words::{self, count, duration, one_line, short, tokens};
use adj_domain::{
    ApprovalResult, ApprovalSubject, Costs, Event, IdleReason, LogId, RequestResult, Ruling, RunEvent, RunOutcome,
    SessionEvent, SessionId, StepOutcome, Timestamp, Usage, Verdict,
};
use serde_json::Value;
use std::collections::BTreeMap;

/// How a line is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Good,
    Bad,
    Quiet,
}

/// Something that happened, for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub who: String,
    pub text: String,
    pub tone: Tone,
}

/// An agent at work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Working {
    pub name: String,
    pub since: Timestamp,
    pub usage: Usage,
    pub doing: String,
}

#[derive(Debug, Default)]
pub struct Board {
    names: BTreeMap<SessionId, String>,
    /// Agents in the middle of a turn.
    pub working: BTreeMap<SessionId, Working>,
    pub usage: Usage,
    pub costs: Costs,
    turns: BTreeMap<String, Timestamp>,
    calls: BTreeMap<String, String>,
}

impl Board {
    /// What a session's agent is called.
    pub fn name(&self, session: &SessionId) -> &str {
        self.names.get(session).map_or("agent", String::as_str)
    }

    /// Takes one event in; returns what to tell people.
    pub fn apply(&mut self, event: &Event) -> Vec<Line> {
        match &event.log {
            LogId::Session(session) => match event.session_event() {
                Ok(body) => self.session(session, event, &body),
                Err(_) => Vec::new(),
            },
            LogId::Grants | LogId::Budgets => Vec::new(),
            LogId::Run(_) => match event.run_event() {
                Ok(body) => self.run(event, &body),
                Err(_) => Vec::new(),
            },
        }
    }

    fn line(&self, who: impl Into<String>, tone: Tone, text: impl Into<String>) -> Vec<Line> {
        vec![Line { who: who.into(), text: text.into(), tone }]
    }

    fn session(&mut self, id: &SessionId, event: &Event, body: &SessionEvent) -> Vec<Line> {
        let name = self.names.get(id).cloned().unwrap_or_else(|| "agent".to_owned());
        let doing = |board: &mut Self, text: String| {
            if let Some(working) = board.working.get_mut(id) {
                working.doing = text;
            }
        };
        match body {
            SessionEvent::Created { spec } => {
                self.names.insert(id.clone(), spec.agent.name.clone());
                Vec::new()
            }
            SessionEvent::StatusRunning { .. } => {
                let doing = "thinking".to_owned();
                self.working.insert(id.clone(), Working { name, since: event.at, usage: Usage::default(), doing });
                Vec::new()
            }
            SessionEvent::Resumed => {
                let doing = "thinking".to_owned();
                let working = Working { name: name.clone(), since: event.at, usage: Usage::default(), doing };
                self.working.insert(id.clone(), working);
                self.line(name, Tone::Quiet, "taken up again in the middle of its turn")
            }
            SessionEvent::ModelRequestStarted { .. } => {
                doing(self, "thinking".to_owned());
                Vec::new()
            }
            SessionEvent::ModelRequestEnded { result: RequestResult::Answered { model_usage, cost, .. }, .. } => {
                self.usage = self.usage.plus(*model_usage);
                self.costs.add(cost.as_ref());
                if let Some(working) = self.working.get_mut(id) {
                    working.usage = working.usage.plus(*model_usage);
                }
                Vec::new()
            }
            SessionEvent::AgentToolUse { name: tool, input, .. }
            | SessionEvent::CustomToolUse { name: tool, input, .. } => {
                let text = call(tool, input);
                self.calls.insert(event.id.to_string(), text.clone());
                doing(self, text);
                Vec::new()
            }
            SessionEvent::AgentToolResult { tool_use_id, is_error, exit_code, duration_ms, .. } => {
                // The call may stand in a log that an earlier process has shown.
                let call = self.calls.remove(tool_use_id.as_str()).unwrap_or_else(|| "an earlier call".to_owned());
                if call.is_empty() {
                    return Vec::new();
                }
                let (tone, how) = match (is_error, exit_code) {
                    (_, Some(code)) if *code != 0 => (Tone::Quiet, format!(" → exit {code}")),
                    (true, _) => (Tone::Bad, " → failed".to_owned()),
                    _ => (Tone::Quiet, String::new()),
                };
                // Only commands take a time that tells anything.
                let took = if call.starts_with('$') { format!(" ({})", duration(*duration_ms)) } else { String::new() };
                self.line(name, tone, format!("{call}{how}{took}"))
            }
            SessionEvent::PolicyDecided { tool_use_id, ruling: Ruling { verdict: Verdict::Deny, rule, .. } } => {
                // Its result says the same again.
                let call = self.calls.insert(tool_use_id.to_string(), String::new()).unwrap_or_default();
                self.line(name, Tone::Bad, format!("{call} → refused: {rule}"))
            }
            SessionEvent::ApprovalRequested { subject, again, .. } => {
                let (id, what) = match subject {
                    ApprovalSubject::Tool { tool_use_id, .. } => {
                        let call = self.calls.get(tool_use_id.as_str()).cloned();
                        (tool_use_id, call.unwrap_or_else(|| "a call".to_owned()))
                    }
                    ApprovalSubject::Host { to } => (&event.id, format!("reach {to}")),
                };
                let again = again.as_ref().map(|why| format!(" again ({why})")).unwrap_or_default();
                self.line(name, Tone::Plain, format!("asks{again}: {what} (adjutant approvals allow {id})"))
            }
            SessionEvent::ToolConfirmed { result, by, .. } | SessionEvent::HostConfirmed { result, by, .. } => {
                let said = if *result == ApprovalResult::Allow { "allowed" } else { "denied" };
                self.line(name, Tone::Quiet, format!("{said} by {by}"))
            }
            SessionEvent::ApprovalExpired { .. } => {
                self.line(name, Tone::Bad, "nobody answered in time: denied".to_owned())
            }
            SessionEvent::NetworkDecided { to, ruling, .. } if ruling.verdict == Verdict::Deny => {
                self.line(name, Tone::Bad, format!("{to} → refused: {}", ruling.rule))
            }
            SessionEvent::OutputRejected { errors } => {
                self.line(name, Tone::Quiet, format!("answer sent back: {}", one_line(&errors.join("; "), 100)))
            }
            SessionEvent::ContextCompacted { tokens_before, .. } => {
                self.line(name, Tone::Quiet, format!("context compacted ({} tokens before)", tokens(*tokens_before)))
            }
            // Why a turn ended is told by who asked for it: the run, or the command.
            SessionEvent::StatusIdle { stop_reason } => {
                self.working.remove(id);
                match stop_reason {
                    IdleReason::Interrupted => self.line(name, Tone::Quiet, idle(stop_reason)),
                    _ => Vec::new(),
                }
            }
            _ => Vec::new(),
        }
    }

    fn run(&mut self, event: &Event, body: &RunEvent) -> Vec<Line> {
        match body {
            RunEvent::Created { spec } => self.line(
                "run",
                Tone::Plain,
                format!("{} on {} ({} at {})", event.log, spec.repository, spec.target_branch, short(&spec.base)),
            ),
            RunEvent::Resumed => self.line("run", Tone::Plain, format!("{} taken up again", event.log)),
            RunEvent::TurnStarted { step, kind, session } => {
                self.names.insert(session.clone(), step.to_string());
                self.turns.insert(format!("{step} {kind}"), event.at);
                self.line(step.as_str(), Tone::Plain, kind.to_string())
            }
            RunEvent::TurnFinished { step, kind, outcome, usage, costs } => {
                let took = match self.turns.remove(&format!("{step} {kind}")) {
                    Some(started) => format!("{}, ", between(started, event.at)),
                    None => String::new(),
                };
                match outcome {
                    StepOutcome::Completed { .. } => self.line(
                        step.as_str(),
                        Tone::Good,
                        format!("{kind} done ({took}{} tokens{})", tokens(usage.total_tokens()), words::costs(costs)),
                    ),
                    StepOutcome::Failed { why } => {
                        self.line(step.as_str(), Tone::Bad, format!("{kind} failed: {}", one_line(why, 300)))
                    }
                }
            }
            RunEvent::BlueprintAccepted { blueprint } => {
                let all = blueprint.specialists();
                let mut lines =
                    self.line("builder", Tone::Plain, format!("blueprint: {}", count(all.len(), "specialist")));
                for specialist in all {
                    let after = match specialist.depends_on.as_slice() {
                        [] => String::new(),
                        on => format!(" (after {})", on.iter().map(|on| on.as_str()).collect::<Vec<_>>().join(", ")),
                    };
                    let text = format!("{} — {}{after}", specialist.id, one_line(&specialist.title, 80));
                    lines.push(Line { who: String::new(), text, tone: Tone::Quiet });
                }
                lines
            }
            RunEvent::BlueprintRejected { errors } => {
                self.line("builder", Tone::Bad, format!("blueprint refused: {}", errors.join("; ")))
            }
            RunEvent::ResultCommitted { step, commit, changed, .. } => {
                let files = if changed.is_empty() { "no change".to_owned() } else { one_line(&changed.join(", "), 80) };
                self.line(step.as_str(), Tone::Plain, format!("result {}: {files}", short(commit)))
            }
            RunEvent::GateStarted { subject, command, .. } => {
                self.line(gate_name(subject), Tone::Plain, format!("gate: {}", one_line(command, 80)))
            }
            RunEvent::GateFinished { subject, receipt } => {
                let took = duration(receipt.duration_ms);
                if receipt.passed {
                    self.line(gate_name(subject), Tone::Good, format!("gate passed ({took})"))
                } else {
                    let exit =
                        receipt.exit_code.map_or_else(|| "ended by a limit".to_owned(), |code| format!("exit {code}"));
                    self.line(gate_name(subject), Tone::Bad, format!("gate failed ({exit}, {took})"))
                }
            }
            RunEvent::Merged { step, commit, .. } => {
                self.line(step.as_str(), Tone::Good, format!("merged ({})", short(commit)))
            }
            RunEvent::MergeConflicted { step, paths } => {
                self.line(step.as_str(), Tone::Bad, format!("does not merge: {}", one_line(&paths.join(", "), 200)))
            }
            RunEvent::WorkKept { branch, .. } => self.line("run", Tone::Plain, format!("work kept on branch {branch}")),
            RunEvent::Landed { branch, to, .. } => {
                self.line("run", Tone::Good, format!("landed on {branch} ({})", short(to)))
            }
            RunEvent::LandingRefused { why } => {
                self.line("run", Tone::Bad, format!("not landed: {}", one_line(why, 300)))
            }
            RunEvent::Interrupted => self.line("run", Tone::Plain, "interrupted".to_owned()),
            RunEvent::Paused { purse } => {
                self.line("run", Tone::Bad, format!("paused: the budget of {purse} is reached"))
            }
            RunEvent::HandedOff { .. }
            | RunEvent::BasePrepared { .. }
            | RunEvent::LandingStarted { .. }
            | RunEvent::WorkspaceRemoved { .. }
            | RunEvent::Finished { .. } => Vec::new(),
        }
    }
}

fn gate_name(subject: &adj_domain::GateSubject) -> String {
    match subject {
        adj_domain::GateSubject::Step { step, .. } => step.to_string(),
        adj_domain::GateSubject::Combined => "combined".to_owned(),
    }
}

/// A tool call in one line: what a person would want to know of it.
pub fn call(tool: &str, input: &Value) -> String {
    let field = |name: &str| input.get(name).and_then(Value::as_str).unwrap_or_default();
    let what = match tool {
        "bash" => field("command"),
        "read" | "write" | "edit" => field("file_path"),
        "glob" | "grep" => field("pattern"),
        "apply_patch" => {
            field("patch").lines().find_map(|line| line.strip_prefix("*** Update File: ")).unwrap_or_default()
        }
        _ => "",
    };
    let shown = if tool == "bash" && !what.is_empty() { "$" } else { tool };
    one_line(format!("{shown} {what}").trim(), 100)
}

fn between(from: Timestamp, to: Timestamp) -> String {
    duration(u64::try_from(to.as_millisecond() - from.as_millisecond()).unwrap_or(0))
}

/// Why a session rests, in words.
pub fn idle(reason: &IdleReason) -> String {
    match reason {
        IdleReason::EndTurn => "done".to_owned(),
        IdleReason::Interrupted => "stopped after its step".to_owned(),
        IdleReason::RetriesExhausted => "the model could not be called".to_owned(),
        IdleReason::Refusal => "the model refused".to_owned(),
        IdleReason::MaxTokens => "the answer was cut at the output limit".to_owned(),
        IdleReason::StepLimit => "the turn took as many steps as it may".to_owned(),
        IdleReason::RequiresAction { .. } => "waiting for an approval".to_owned(),
        IdleReason::BudgetReached { purse } => format!("the budget of {purse} is reached"),
        IdleReason::OutputInvalid { errors } => format!("the answer does not fit its schema: {}", errors.join("; ")),
    }
}

/// How a run ended, in words.
pub fn outcome(outcome: &RunOutcome) -> String {
    match outcome {
        RunOutcome::Landed { branch, commit } => format!("Landed on {branch} ({})", short(commit)),
        RunOutcome::GateFailed { subject } => format!("Not landed: the gate failed on {subject}"),
        RunOutcome::Conflicted { step, paths } => {
            format!("Not landed: {step} does not merge ({})", one_line(&paths.join(", "), 200))
        }
        RunOutcome::BlueprintInvalid { errors } => {
            format!("Not landed: the blueprint cannot be carried out ({})", errors.join("; "))
        }
        RunOutcome::StepFailed { step, why } => format!("Not landed: {step} failed ({})", one_line(why, 300)),
        RunOutcome::NotLanded { why } => format!("Not landed: {}", one_line(why, 300)),
    }
}
