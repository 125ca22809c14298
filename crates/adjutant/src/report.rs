//! What a run came to: what was done, by whom, how it was checked, what it cost, where it is.

use crate::{
    board,
    failure::Result,
    words::{self, count, duration, harmless, one_line, short, thousands},
};
use adj_domain::{Costs, LogId, Run, RunEvent, RunState, StepId, Usage};
use adj_engine::Engine;
use serde::Serialize;

/// The last line of `run --json`, and what people read at the end.
#[derive(Debug, Serialize)]
pub struct Report {
    #[serde(rename = "type")]
    kind: &'static str,
    run: String,
    state: &'static str,
    outcome: String,
    prompt: String,
    repository: String,
    branch: String,
    /// The commit that the branch was moved to, if it was.
    commit: Option<String>,
    /// Branches that keep work which did not land.
    kept: Vec<String>,
    dirty_snapshot: Option<String>,
    steps: Vec<StepReport>,
    combined: Option<Check>,
    usage: Usage,
    #[serde(skip_serializing_if = "no_price_known")]
    costs: Costs,
    wall_ms: u64,
    trace: String,
}

#[derive(Debug, Serialize)]
struct StepReport {
    step: String,
    session: Option<String>,
    turns: usize,
    attempts: u32,
    usage: Usage,
    #[serde(skip_serializing_if = "no_price_known")]
    costs: Costs,
    busy_ms: u64,
    changed: Vec<String>,
    commit: Option<String>,
    check: Option<Check>,
    said: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
struct Check {
    command: String,
    passed: bool,
    exit_code: Option<i32>,
    duration_ms: u64,
    tree: String,
    #[serde(skip)]
    tail: String,
}

/// Of local and scripted models there is nothing to say.
fn no_price_known(costs: &Costs) -> bool {
    costs.amounts.is_empty() && costs.quota.is_empty()
}

impl From<&adj_domain::Receipt> for Check {
    fn from(receipt: &adj_domain::Receipt) -> Self {
        Self {
            command: receipt.command.clone(),
            passed: receipt.passed,
            exit_code: receipt.exit_code,
            duration_ms: receipt.duration_ms,
            tree: receipt.tree.clone(),
            tail: receipt.tail.clone(),
        }
    }
}

impl Report {
    pub async fn of(engine: &Engine, run: &Run) -> Result<Self> {
        let events = engine.events(&LogId::from(run.id.clone())).await?;
        let mut busy: std::collections::BTreeMap<StepId, (Option<i64>, u64)> = std::collections::BTreeMap::new();
        for event in &events {
            match event.run_event().map_err(anyhow::Error::new)? {
                RunEvent::TurnStarted { step, .. } => {
                    busy.entry(step).or_default().0 = Some(event.at.as_millisecond());
                }
                RunEvent::TurnFinished { step, .. } => {
                    let entry = busy.entry(step).or_default();
                    if let Some(started) = entry.0.take() {
                        entry.1 += u64::try_from(event.at.as_millisecond() - started).unwrap_or(0);
                    }
                }
                _ => {}
            }
        }
        let wall = match (events.first(), events.last()) {
            (Some(first), Some(last)) => last.at.as_millisecond() - first.at.as_millisecond(),
            _ => 0,
        };
        let core = run.spec.core.iter().map(|agent| agent.step.clone());
        let specialists = run.blueprint.iter().flat_map(|plan| plan.specialists().iter().map(|one| one.id.clone()));
        let steps = core.chain(specialists).map(|name| {
            let step = &run.steps[&name];
            StepReport {
                step: name.to_string(),
                session: step.session.as_ref().map(ToString::to_string),
                turns: step.turns.len(),
                attempts: step.attempts(),
                usage: step.usage,
                costs: step.costs.clone(),
                busy_ms: busy.get(&name).map_or(0, |(_, millis)| *millis),
                changed: step.result.as_ref().map(|result| result.changed.clone()).unwrap_or_default(),
                commit: step.result.as_ref().map(|result| result.commit.clone()),
                check: step.receipt().map(Check::from),
                said: step.turns.keys().rev().find_map(|kind| step.output(*kind)).map(str::to_owned),
            }
        });
        let (state, outcome) = match &run.state {
            RunState::Running => ("running", "Not finished".to_owned()),
            RunState::Interrupted => ("interrupted", "Interrupted".to_owned()),
            RunState::Paused(purse) => ("paused", format!("Paused: the budget of {purse} is reached")),
            RunState::Finished(outcome) => ("finished", board::outcome(outcome)),
        };
        // They are kept side by side, in no order.
        let mut kept: Vec<String> = run.kept.iter().map(|(branch, _)| branch.clone()).collect();
        kept.sort();
        Ok(Self {
            kind: "run.report",
            run: run.id.to_string(),
            state,
            outcome,
            prompt: run.spec.prompt.clone(),
            repository: run.spec.repository.clone(),
            branch: run.spec.target_branch.clone(),
            commit: run.landed.as_ref().map(|(_, commit)| commit.clone()),
            kept,
            dirty_snapshot: run.spec.dirty_snapshot.clone(),
            steps: steps.collect(),
            combined: run.combined.receipt.as_ref().map(Check::from),
            usage: run.usage(),
            costs: run.costs(),
            wall_ms: u64::try_from(wall).unwrap_or(0),
            trace: format!("adjutant trace show {}", run.id),
        })
    }

    /// The text for people.
    pub fn render(&self) -> String {
        let mut text = format!("\n{}\n\n", self.outcome);
        text.push_str(&format!(
            "  {:<14} {:>5}  {:<16} {:>8}  {:>9}  changed\n",
            "step", "turns", "check", "tokens", "time"
        ));
        for step in &self.steps {
            text.push_str(&format!(
                "  {:<14} {:>5}  {:<16} {:>8}  {:>9}  {}\n",
                one_line(&step.step, 14),
                step.turns,
                check_words(step.check.as_ref()),
                thousands(step.usage.total_tokens()),
                duration(step.busy_ms),
                if step.changed.is_empty() { "–".to_owned() } else { one_line(&step.changed.join(", "), 60) },
            ));
        }
        if let Some(check) = &self.combined {
            text.push_str(&format!(
                "\n  combined tree {}: `{}` {} in {}\n",
                short(&check.tree),
                one_line(&check.command, 60),
                if check.passed { "passed" } else { "failed" },
                duration(check.duration_ms)
            ));
        }
        if let Some(failed) = self.failed_check() {
            text.push_str(&format!("\n  The end of what `{}` said:\n", one_line(&failed.command, 60)));
            for line in failed.tail.lines().rev().take(15).collect::<Vec<_>>().into_iter().rev() {
                text.push_str(&format!("    {line}\n"));
            }
        }
        let models = self.steps.iter().filter(|step| step.turns > 0).count();
        text.push_str(&format!(
            "\n{}, {} tokens ({} in, {} out, {} from cache){}, {}\n",
            count(models, "agent"),
            thousands(self.usage.total_tokens()),
            thousands(self.usage.uncached_tokens()),
            thousands(self.usage.output_tokens),
            thousands(self.usage.cache_read_tokens),
            words::costs(&self.costs),
            duration(self.wall_ms),
        ));
        let moved = if self.commit.is_some() { "" } else { ", not moved" };
        text.push_str(&format!("Result    {} (branch {}{moved})\n", self.repository, self.branch));
        for branch in &self.kept {
            text.push_str(&format!("Kept      branch {branch}\n"));
        }
        if let Some(snapshot) = &self.dirty_snapshot {
            text.push_str(&format!("Snapshot  {snapshot} (your uncommitted changes)\n"));
        }
        text.push_str(&format!("Trace     {}\n", self.trace));
        if self.state != "finished" {
            text.push_str(&format!("Resume    adjutant run --resume {}\n", self.run));
        }
        harmless(&text)
    }

    fn failed_check(&self) -> Option<&Check> {
        let checks = self.steps.iter().filter_map(|step| step.check.as_ref()).chain(&self.combined);
        checks.into_iter().find(|check| !check.passed)
    }
}

fn check_words(check: Option<&Check>) -> String {
    match check {
        None => "–".to_owned(),
        Some(check) if check.passed => format!("passed ({})", duration(check.duration_ms)),
        Some(check) => check.exit_code.map_or_else(|| "stopped".to_owned(), |code| format!("failed (exit {code})")),
    }
}
