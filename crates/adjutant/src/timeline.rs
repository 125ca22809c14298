//! A log as a timeline that people can read.

use crate::{
    board,
    words::{self, count, duration, harmless, money, one_line, short, thousands},
};
use adj_domain::{
    ApprovalResult, ApprovalSubject, BlobHash, BudgetEvent, Content, Event, EventId, GrantEvent, LogId, Moved,
    RequestResult, Ruling, RunEvent, SessionEvent, StepOutcome, event::BodyError,
};
use adj_gateway::failover::Reason;
use std::collections::BTreeMap;

/// How much is shown of what was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text {
    /// The first lines.
    Short,
    Full,
    /// Hashes and sizes only.
    Hidden,
}

/// Renders events of several logs, in the order of time.
#[derive(Debug)]
pub struct Timeline {
    text: Text,
    names: BTreeMap<LogId, String>,
    /// What each tool call is about, for the events that follow it.
    calls: BTreeMap<EventId, String>,
    start: Option<i64>,
}

impl Timeline {
    pub fn new(text: Text) -> Self {
        Self { text, names: BTreeMap::new(), calls: BTreeMap::new(), start: None }
    }

    /// One event: a line, and below it what was said.
    pub fn render(&mut self, event: &Event) -> Result<String, BodyError> {
        let at = event.at.as_millisecond();
        let since = u64::try_from(at - *self.start.get_or_insert(at)).unwrap_or(0);
        let (head, body) = match &event.log {
            LogId::Session(_) => {
                let body = event.session_event()?;
                if let SessionEvent::Created { spec } = &body {
                    self.names.insert(event.log.clone(), spec.agent.name.clone());
                }
                if let SessionEvent::AgentToolUse { name, input, .. }
                | SessionEvent::CustomToolUse { name, input, .. } = &body
                {
                    let about =
                        if self.text == Text::Hidden { name.clone() } else { one_line(&board::call(name, input), 60) };
                    self.calls.insert(event.id.clone(), about);
                }
                self.session(&body)
            }
            LogId::Run(_) => self.run(&event.run_event()?),
            LogId::Grants => grant(&event.grant_event()?),
            LogId::Budgets => budget(&event.budget_event()?),
        };
        let kind = match event.log {
            LogId::Grants => "grants",
            LogId::Budgets => "budgets",
            LogId::Session(_) | LogId::Run(_) => "run",
        };
        let name = self.names.get(&event.log).map_or(kind, String::as_str);
        let mut text =
            format!("{:>10}  {:<12} {:<28} {head}", stamp(since), one_line(name, 12), one_line(&event.kind, 28));
        text.truncate(text.trim_end().len());
        text.push('\n');
        for line in body.lines() {
            text.push_str(format!("{:>10}  {line}", "").trim_end());
            text.push('\n');
        }
        Ok(harmless(&text))
    }

    fn said(&self, text: &str) -> String {
        match self.text {
            Text::Full => harmless(text),
            Text::Hidden => format!(
                "[{} bytes, blake3 {}]",
                thousands(text.len() as u64),
                short(BlobHash::of(text.as_bytes()).as_str())
            ),
            Text::Short => {
                const LINES: usize = 6;
                let lines: Vec<&str> = text.trim_end().lines().collect();
                let mut shown: Vec<String> = lines.iter().take(LINES).map(|line| one_line(line, 160)).collect();
                if lines.len() > LINES {
                    shown.push(format!("[{}]", count(lines.len() - LINES, "more line")));
                }
                shown.join("\n")
            }
        }
    }

    fn content(&self, content: &[Content]) -> String {
        self.said(&Content::join_text(content))
    }

    fn reason(&self, ruling: &Ruling) -> String {
        ruling.justification.as_deref().map(|why| self.said(why)).unwrap_or_default()
    }

    fn about(&self, call: &EventId) -> &str {
        self.calls.get(call).map_or("a call", String::as_str)
    }

    fn session(&self, event: &SessionEvent) -> (String, String) {
        match event {
            SessionEvent::Created { spec } if let Some(program) = &spec.program => {
                (format!("program, {}", spec.agent.model), self.said(&program.join(" ")))
            }
            SessionEvent::Created { spec } => {
                let parts: Vec<String> =
                    spec.system.iter().map(|part| format!("{} (version {})", part.name, part.version)).collect();
                let prompt = spec.system_prompt();
                let head = format!("{}, {}, sandbox {}", spec.agent.role, spec.agent.model, spec.sandbox);
                let hash = BlobHash::of(prompt.as_bytes());
                (head, format!("system prompt {}: {}", short(hash.as_str()), parts.join(", ")))
            }
            SessionEvent::StatusRunning { turn } => (format!("turn {turn}"), String::new()),
            SessionEvent::UserMessage { content, output_schema } => {
                let schema = if output_schema.is_some() { "answer by schema" } else { "" };
                (schema.to_owned(), self.content(content))
            }
            SessionEvent::ModelRequestStarted { step, model, origin: Some(origin), .. } => {
                let asked = if origin.asked_model == model.name { "" } else { &origin.asked_model };
                let asked = if asked.is_empty() { String::new() } else { format!(" for {asked}") };
                let who = [&origin.agent, &origin.subagent, &origin.thread].into_iter().flatten().next();
                let who = who.map_or_else(String::new, |who| format!(", by {who}"));
                let how = if origin.converted { "converted from" } else { "as it came, in" };
                let size = format!("{} bytes", thousands(origin.request_bytes));
                (
                    one_line(&format!("request {step} to {model}{asked}, {size}, {how} {}{who}", origin.wire), 200),
                    String::new(),
                )
            }
            SessionEvent::ModelRequestStarted { step, purpose, prompt, .. } => (
                format!(
                    "step {step}{}, prompt {} ({}, about {} tokens)",
                    if *purpose == adj_domain::Purpose::Compaction { " (summary)" } else { "" },
                    short(prompt.hash.as_str()),
                    count(usize::try_from(prompt.items).unwrap_or(usize::MAX), "item"),
                    thousands(prompt.estimated_tokens)
                ),
                String::new(),
            ),
            SessionEvent::ModelRequestEnded { result, .. } => match result {
                RequestResult::Answered {
                    model,
                    model_usage,
                    cost,
                    attempts,
                    latency_ms,
                    queued_ms,
                    losses,
                    moved,
                    ..
                } => {
                    let queued =
                        if *queued_ms > 0 { format!(", {} in the queue", duration(*queued_ms)) } else { String::new() };
                    let again = if *attempts > 1 { format!(", {attempts} attempts") } else { String::new() };
                    let cost = cost
                        .as_ref()
                        .map_or_else(String::new, |cost| format!(", {}", money(cost.amount, &cost.currency)));
                    let lost =
                        if losses.is_empty() { String::new() } else { format!(", without {}", losses.join(", ")) };
                    let head = format!(
                        "{model}: {} in, {} out, {} cached{cost}, {}{queued}{again}{lost}{}",
                        thousands(model_usage.uncached_tokens()),
                        thousands(model_usage.output_tokens),
                        thousands(model_usage.cache_read_tokens),
                        duration(*latency_ms),
                        left(moved)
                    );
                    (head, String::new())
                }
                RequestResult::Failed { message, attempts, moved, .. } => (
                    format!("failed after {}{}", count(*attempts as usize, "attempt"), left(moved)),
                    self.said(message),
                ),
                RequestResult::Abandoned => ("abandoned".to_owned(), String::new()),
                RequestResult::Refused { .. } => ("not sent".to_owned(), String::new()),
            },
            SessionEvent::BudgetReached { refusal } => (String::new(), refusal.to_string()),
            SessionEvent::AgentMessage { content } => (String::new(), self.content(content)),
            SessionEvent::AgentThinking { vendor, .. } => (format!("for {vendor} only"), String::new()),
            SessionEvent::AgentToolUse { name, input, raw_input, .. } => match (self.text, raw_input) {
                (Text::Hidden, _) => (name.clone(), self.said(&input.to_string())),
                (_, Some(raw)) => (format!("{name}, arguments are not JSON"), self.said(raw)),
                (Text::Full, None) => (name.clone(), harmless(&input.to_string())),
                (Text::Short, None) => (board::call(name, input), String::new()),
            },
            SessionEvent::CustomToolUse { name, input, .. } => match self.text {
                Text::Hidden => (name.clone(), self.said(&input.to_string())),
                Text::Full => (name.clone(), harmless(&input.to_string())),
                Text::Short => (board::call(name, input), String::new()),
            },
            SessionEvent::CustomToolResult { custom_tool_use_id, content, is_error } => {
                let how = if *is_error { "failed" } else { "done" };
                (format!("{} → {how}", self.about(custom_tool_use_id)), self.content(content))
            }
            SessionEvent::ResultRefused { custom_tool_use_id, why } => {
                (format!("of {}", self.about(custom_tool_use_id)), why.clone())
            }
            SessionEvent::PolicyDecided { tool_use_id, ruling } => {
                (format!("{} → {}", self.about(tool_use_id), decided(ruling)), self.reason(ruling))
            }
            SessionEvent::ApprovalRequested { subject, expires_at, again } => {
                let what = match subject {
                    ApprovalSubject::Tool { tool_use_id, .. } => self.about(tool_use_id).to_owned(),
                    ApprovalSubject::Host { to } => one_line(&to.to_string(), 120),
                };
                (format!("{what}, until {expires_at}"), again.clone().unwrap_or_default())
            }
            SessionEvent::ToolConfirmed { tool_use_id, result, deny_message, by } => {
                let said = deny_message.as_deref().map(|said| self.said(said)).unwrap_or_default();
                (format!("{} → {} by {}", self.about(tool_use_id), answered(*result), one_line(by, 60)), said)
            }
            SessionEvent::HostConfirmed { result, by, .. } => {
                (format!("{} by {}", answered(*result), one_line(by, 60)), String::new())
            }
            SessionEvent::ApprovalExpired { approval_id } => {
                (format!("{}: denied", self.about(approval_id)), String::new())
            }
            SessionEvent::AnswerRefused { by, why, .. } => (format!("of {}", one_line(by, 60)), why.clone()),
            SessionEvent::NetworkDecided { to, protocol, ruling, address, secrets } => {
                let at = address.as_ref().map(|address| format!(" at {address}")).unwrap_or_default();
                let with = if secrets.is_empty() { String::new() } else { format!(", with {}", secrets.join(", ")) };
                let head = format!("{protocol} {}{at}{with} → {}", one_line(&to.to_string(), 120), decided(ruling));
                (head, self.reason(ruling))
            }
            SessionEvent::ToolStarted { tool_use_id } => (self.about(tool_use_id).to_owned(), String::new()),
            SessionEvent::AgentToolResult {
                tool_use_id,
                content,
                is_error,
                exit_code,
                duration_ms,
                full_output,
                ..
            } => {
                let exit = exit_code.map_or_else(String::new, |code| format!("exit {code}, "));
                let failed = if *is_error { "failed, " } else { "" };
                let full = full_output.as_ref().map_or_else(String::new, |hash| format!(", all of it: blob {hash}"));
                let head = format!("{} → {failed}{exit}{}{full}", self.about(tool_use_id), duration(*duration_ms));
                (head, self.content(content))
            }
            SessionEvent::OutputRejected { errors } => ("sent back".to_owned(), self.said(&errors.join("\n"))),
            SessionEvent::ContextCompacted { summary, tokens_before, .. } => {
                (format!("from about {} tokens", thousands(*tokens_before)), self.said(summary))
            }
            SessionEvent::ProgramEnded { code } => (format!("exit code {code}"), String::new()),
            SessionEvent::Error { message, .. } => (String::new(), self.said(message)),
            SessionEvent::UsageReported { usage } => {
                (format!("{} tokens so far", thousands(usage.total_tokens())), String::new())
            }
            SessionEvent::StatusIdle { stop_reason } => (one_line(&board::idle(stop_reason), 200), String::new()),
            SessionEvent::UserInterrupt | SessionEvent::Resumed => Default::default(),
        }
    }

    fn run(&self, event: &RunEvent) -> (String, String) {
        match event {
            RunEvent::Created { spec } => {
                let gate = spec
                    .gate
                    .as_ref()
                    .map_or_else(|| "no gate".to_owned(), |gate| format!("gate `{}`", one_line(&gate.command, 80)));
                let head =
                    format!("{} at {}, {}, {gate}", one_line(&spec.target_branch, 60), short(&spec.base), spec.model);
                (head, self.said(&spec.prompt))
            }
            RunEvent::TurnStarted { step, kind, session } => (format!("{step}: {kind} ({session})"), String::new()),
            RunEvent::TurnFinished { step, kind, outcome, usage, costs } => {
                let (tokens, costs) = (thousands(usage.total_tokens()), words::costs(costs));
                match outcome {
                    StepOutcome::Completed { .. } => (format!("{step}: {kind}, {tokens} tokens{costs}"), String::new()),
                    StepOutcome::Failed { why } => (format!("{step}: {kind} failed"), self.said(why)),
                }
            }
            RunEvent::HandedOff { from, to, hash, bytes } => {
                (format!("{from} → {to}: {} bytes, blake3 {}", thousands(*bytes), short(hash.as_str())), String::new())
            }
            RunEvent::BlueprintAccepted { blueprint } => {
                let lines: Vec<String> = blueprint
                    .specialists()
                    .iter()
                    .map(|one| {
                        let after: Vec<&str> = one.depends_on.iter().map(|on| on.as_str()).collect();
                        let after =
                            if after.is_empty() { String::new() } else { format!(" (after {})", after.join(", ")) };
                        format!("{}: {}{after}", one.id, self.said(&one.title))
                    })
                    .collect();
                (count(lines.len(), "specialist"), lines.join("\n"))
            }
            RunEvent::BlueprintRejected { errors } => (String::new(), self.said(&errors.join("\n"))),
            RunEvent::BasePrepared { step, commit } => (format!("{step} starts from {}", short(commit)), String::new()),
            RunEvent::ResultCommitted { step, attempt, commit, changed, ref_name, .. } => {
                let head = format!("{step}, attempt {attempt}: {} ({})", short(commit), count(changed.len(), "file"));
                (head, format!("{ref_name}\n{}", self.said(&changed.join("\n"))))
            }
            RunEvent::GateStarted { subject, commit, command } => {
                (format!("{subject} at {}: {}", short(commit), one_line(command, 100)), String::new())
            }
            RunEvent::GateFinished { subject, receipt } => {
                let verdict = if receipt.passed { "passed" } else { "failed" };
                let exit = receipt.exit_code.map_or_else(String::new, |code| format!(", exit {code}"));
                let head = format!(
                    "{}: {verdict}{exit}, tree {}, {}",
                    subject,
                    short(&receipt.tree),
                    duration(receipt.duration_ms)
                );
                (head, self.said(&receipt.tail))
            }
            RunEvent::Merged { step, commit, .. } => (format!("{step}: {}", short(commit)), String::new()),
            RunEvent::MergeConflicted { step, paths } => (step.to_string(), self.said(&paths.join("\n"))),
            RunEvent::WorkKept { branch, commit } => (format!("{branch} at {}", short(commit)), String::new()),
            RunEvent::LandingStarted { branch, from, to } | RunEvent::Landed { branch, from, to } => {
                (format!("{}: {} → {}", one_line(branch, 60), short(from), short(to)), String::new())
            }
            RunEvent::WorkspaceRemoved { step, commit, reference } => {
                let at = reference.as_deref().unwrap_or("nothing but its base");
                (format!("{step}: {}, {}", short(commit), one_line(at, 100)), String::new())
            }
            RunEvent::LandingRefused { why } => (String::new(), self.said(why)),
            RunEvent::Finished { outcome } => (board::outcome(outcome), String::new()),
            RunEvent::Paused { purse } => (format!("the budget of {purse} is reached"), String::new()),
            RunEvent::Interrupted | RunEvent::Resumed => Default::default(),
        }
    }
}

/// `+12.345`: seconds since the first event.
fn stamp(millis: u64) -> String {
    format!("+{}.{:03}", millis / 1000, millis % 1000)
}
fn budget(event: &BudgetEvent) -> (String, String) {
    let BudgetEvent::Changed { scope, unit, amount, by } = event;
    let limit = amount.map_or_else(|| format!("no limit in {unit}"), |amount| unit.show(amount));
    (format!("{scope}: {limit}, by {}", one_line(by, 60)), String::new())
}

fn grant(event: &GrantEvent) -> (String, String) {
    match event {
        GrantEvent::Given { grant } => {
            (format!("{}, until {}, by {}", grant.subject, grant.until, one_line(&grant.by, 60)), String::new())
        }
        GrantEvent::Revoked { grant_id, by } => (format!("{grant_id}, by {}", one_line(by, 60)), String::new()),
    }
}

/// A decision with the place of the rule that made it.
fn decided(ruling: &Ruling) -> String {
    let place = match (&ruling.file, ruling.line) {
        (Some(file), Some(line)) => format!(", {file}:{line}"),
        (Some(file), None) => format!(", {file}"),
        (None, _) => String::new(),
    };
    format!("{} ({}: {}{})", ruling.verdict, ruling.layer, one_line(&ruling.rule, 120), one_line(&place, 200))
}

fn answered(result: ApprovalResult) -> &'static str {
    match result {
        ApprovalResult::Allow => "allowed",
        ApprovalResult::Deny => "denied",
    }
}

/// Which models a request left behind, and what it could not take along.
fn left(moved: &[Moved]) -> String {
    let told = moved.iter().map(|Moved { from, why, lost, .. }| {
        let why = Reason::of(*why).map_or("failed", Reason::word);
        let lost = if lost.is_empty() { String::new() } else { format!(", without {}", lost.join(" and ")) };
        format!(", left {from} ({why}){lost}")
    });
    told.collect()
}
