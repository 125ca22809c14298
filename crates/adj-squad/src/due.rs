//! What a run needs next, from nothing but its fold.

use crate::prompts::{self, Prompt};
use adj_domain::{
    Blueprint, CoreAgent, GateSubject, Run, RunEvent, RunOutcome, RunState, SessionId, Specialist, StepId, StepKind,
    StepState, run::Committed,
};
use serde_json::Value;

/// Something to be done outside. Each is safe to ask for again after a crash: it finds out what has happened already.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    Turn {
        step: StepId,
        kind: StepKind,
        session: SessionId,
        prompt: Prompt,
        schema: Option<Value>,
    },
    /// Merges the results that a specialist builds on.
    PrepareBase {
        step: StepId,
        parts: Vec<StepId>,
    },
    Commit {
        step: StepId,
        attempt: u32,
    },
    Gate {
        subject: GateSubject,
        commit: String,
        tree: String,
        command: String,
    },
    Merge {
        step: StepId,
        onto: String,
    },
    Keep {
        branch: String,
        commit: String,
    },
    Land {
        from: String,
        to: String,
    },
}

/// What is due: first the events that follow from what is known, and only without any of them, actions.
#[derive(Debug, Clone, PartialEq)]
pub enum Due {
    Record(Vec<RunEvent>),
    /// All that may be under way now; those that are running already are among them.
    Actions(Vec<Action>),
}

/// Decides what follows from the state of a run. No clock, no randomness, no I/O.
pub fn due(run: &Run) -> Due {
    if run.state != RunState::Running {
        return Due::Actions(Vec::new());
    }
    if let Some(ending) = ending(run) {
        return conclude(run, ending);
    }
    if let Some(event) = judge_blueprint(run) {
        return Due::Record(vec![event]);
    }
    let mut actions = Vec::new();
    core_turns(run, &mut actions);
    if let Some(blueprint) = &run.blueprint {
        for specialist in blueprint.specialists() {
            actions.extend(specialist_action(run, specialist));
        }
        if blueprint.specialists().iter().all(|specialist| is_done(run, specialist)) {
            actions.extend(closing_action(run, blueprint));
        }
    }
    Due::Actions(limit_turns(run, actions))
}

/// What is remembered before an action begins, unless it was remembered by an earlier process.
pub fn intents(run: &Run, action: &Action) -> Vec<RunEvent> {
    match action {
        Action::Turn { step, kind, session, prompt, .. } if !run.steps[step].turns.contains_key(kind) => {
            let handed = prompt.handed.iter().map(|(from, hash, bytes)| RunEvent::HandedOff {
                from: from.clone(),
                to: step.clone(),
                hash: hash.clone(),
                bytes: *bytes,
            });
            let started = RunEvent::TurnStarted { step: step.clone(), kind: *kind, session: session.clone() };
            handed.chain([started]).collect()
        }
        Action::Gate { subject, commit, command, .. } if !gate_started(run, subject) => {
            vec![RunEvent::GateStarted { subject: subject.clone(), commit: commit.clone(), command: command.clone() }]
        }
        Action::Land { from, to } if run.landing.is_none() => vec![RunEvent::LandingStarted {
            branch: run.spec.target_branch.clone(),
            from: from.clone(),
            to: to.clone(),
        }],
        _ => Vec::new(),
    }
}

fn gate_started(run: &Run, subject: &GateSubject) -> bool {
    match subject {
        GateSubject::Step { step, attempt } => {
            run.steps[step].gate.as_ref().is_some_and(|(started, _)| started == attempt)
        }
        GateSubject::Combined => run.combined.gate_started,
    }
}

/// The session of a step: always the same, so that a repeated start finds it.
pub fn session_of(run: &Run, step: &StepId) -> SessionId {
    SessionId::derive(&[run.id.as_str(), step.as_str()])
}

fn turn(run: &Run, step: &StepId, kind: StepKind, prompt: Prompt, schema: Option<Value>) -> Action {
    Action::Turn { step: step.clone(), kind, session: session_of(run, step), prompt, schema }
}

fn core_turns(run: &Run, actions: &mut Vec<Action>) {
    for agent in &run.spec.core {
        let step = &run.steps[&agent.step];
        let ready = |on: &StepId| {
            run.spec
                .core
                .iter()
                .find(|other| other.step == *on)
                .is_some_and(|other| prompts::output(run, other).is_some())
        };
        if !agent.depends_on.iter().all(ready) {
            continue;
        }
        let last_schema = |last: bool| if last { agent.schema.clone() } else { None };
        match (&agent.follow_up_prompt, step.output(StepKind::Plan), step.output(StepKind::FollowUp)) {
            (follow_up, None, _) => {
                let prompt = prompts::fill(&agent.plan_prompt, run);
                actions.push(turn(run, &agent.step, StepKind::Plan, prompt, last_schema(follow_up.is_none())));
            }
            (Some(follow_up), Some(_), None) => {
                let prompt = prompts::fill(follow_up, run);
                actions.push(turn(run, &agent.step, StepKind::FollowUp, prompt, last_schema(true)));
            }
            _ => {}
        }
        if let Some(errors) = repair_due(run, agent) {
            actions.push(turn(run, &agent.step, StepKind::Repair, prompts::repair(&errors), agent.schema.clone()));
        }
    }
}

fn builder(run: &Run) -> Option<&CoreAgent> {
    run.spec.core.iter().rev().find(|agent| agent.role == "builder")
}

/// Reads the builder's answer as a blueprint.
fn parse_blueprint(run: &Run) -> Option<Result<Blueprint, Vec<String>>> {
    let text = prompts::output(run, builder(run)?)?.trim();
    let text = text.strip_prefix("```json").or(text.strip_prefix("```")).unwrap_or(text).trim_end_matches("```");
    let most = run.spec.limits.max_specialists;
    Some(match serde_json::from_str::<Blueprint>(text) {
        Err(error) => Err(vec![error.to_string()]),
        Ok(blueprint) if blueprint.specialists().len() as u64 > u64::from(most) => {
            Err(vec![format!("{} specialists are more than the {most} allowed", blueprint.specialists().len())])
        }
        Ok(blueprint) => {
            let taken = |specialist: &&Specialist| run.spec.core.iter().any(|agent| agent.step == specialist.id);
            match blueprint.specialists().iter().find(taken) {
                Some(specialist) => Err(vec![format!("the name \"{}\" belongs to the squad itself", specialist.id)]),
                None => Ok(blueprint),
            }
        }
    })
}

/// What is wrong with the blueprint, if the builder has not been told yet.
fn repair_due(run: &Run, agent: &CoreAgent) -> Option<Vec<String>> {
    let is_builder = builder(run).is_some_and(|builder| builder.step == agent.step);
    if !is_builder || run.blueprint.is_some() || run.steps[&agent.step].output(StepKind::Repair).is_some() {
        return None;
    }
    parse_blueprint(run)?.err()
}

fn judge_blueprint(run: &Run) -> Option<RunEvent> {
    if run.blueprint.is_some() || run.blueprint_errors.is_some() {
        return None;
    }
    match parse_blueprint(run)? {
        Ok(blueprint) => Some(RunEvent::BlueprintAccepted { blueprint }),
        Err(errors) => {
            let was_sent_back = run.steps[&builder(run)?.step].output(StepKind::Repair).is_some();
            was_sent_back.then_some(RunEvent::BlueprintRejected { errors })
        }
    }
}

fn is_done(run: &Run, specialist: &Specialist) -> bool {
    let step = &run.steps[&specialist.id];
    match (&step.result, prompts::check(run, specialist)) {
        (Some(result), None) => result.attempt == step.attempts(),
        (Some(result), Some(_)) => result.attempt == step.attempts() && step.receipt().is_some_and(|r| r.passed),
        (None, _) => false,
    }
}

fn specialist_action(run: &Run, specialist: &Specialist) -> Option<Action> {
    let step = &run.steps[&specialist.id];
    let depends_on = |on: &StepId| run.specialist(on).is_some_and(|other| is_done(run, other));
    if is_done(run, specialist) || !specialist.depends_on.iter().all(depends_on) {
        return None;
    }
    if step.base.is_none() {
        // In the order of the blueprint, as the combined tree is merged: so both make the very same commits.
        let all = run.blueprint.iter().flat_map(Blueprint::specialists).map(|other| other.id.clone());
        let parts = all.filter(|other| specialist.depends_on.contains(other)).collect();
        return Some(Action::PrepareBase { step: specialist.id.clone(), parts });
    }
    let attempt = step.attempts();
    if attempt == 0 {
        return Some(turn(run, &specialist.id, StepKind::Build(1), prompts::task(run, specialist), None));
    }
    if step.output(StepKind::Build(attempt)).is_none() {
        // Under way, or left by a process that died: the same turn again, which continues where it stands.
        let prompt = match (attempt, step.receipt()) {
            (1, _) | (_, None) => prompts::task(run, specialist),
            (_, Some(receipt)) => prompts::retry(receipt),
        };
        return Some(turn(run, &specialist.id, StepKind::Build(attempt), prompt, None));
    }
    let Some(result) = step.result.as_ref().filter(|result| result.attempt == attempt) else {
        return Some(Action::Commit { step: specialist.id.clone(), attempt });
    };
    match step.receipt() {
        None => prompts::check(run, specialist).map(|command| step_gate(specialist, result, command)),
        Some(receipt) if attempt < run.spec.limits.attempts => {
            Some(turn(run, &specialist.id, StepKind::Build(attempt + 1), prompts::retry(receipt), None))
        }
        Some(_) => None,
    }
}

fn step_gate(specialist: &Specialist, result: &Committed, command: &str) -> Action {
    Action::Gate {
        subject: GateSubject::Step { step: specialist.id.clone(), attempt: result.attempt },
        commit: result.commit.clone(),
        tree: result.tree.clone(),
        command: command.to_owned(),
    }
}

/// With every specialist done: merge one after the other, judge the whole, land.
fn closing_action(run: &Run, blueprint: &Blueprint) -> Option<Action> {
    let unmerged = blueprint.specialists().iter().find(|specialist| !run.combined.merged.contains(&specialist.id));
    if let Some(specialist) = unmerged {
        let onto = run.combined.tip.as_ref().map_or(&run.spec.base, |(commit, _)| commit).clone();
        return Some(Action::Merge { step: specialist.id.clone(), onto });
    }
    let (commit, tree) = run.combined.tip.clone()?;
    match (&run.spec.gate, &run.combined.receipt) {
        (Some(gate), None) => {
            Some(Action::Gate { subject: GateSubject::Combined, commit, tree, command: gate.command.clone() })
        }
        (None, _) | (Some(_), Some(_)) => Some(Action::Land { from: run.spec.target_commit.clone(), to: commit }),
    }
}

/// Keeps the number of agents at work within the limit: those under way first, then in the order of the blueprint.
fn limit_turns(run: &Run, actions: Vec<Action>) -> Vec<Action> {
    let started = |action: &Action| match action {
        Action::Turn { step, kind, .. } => run.steps[step].turns.contains_key(kind),
        _ => true,
    };
    let (running, waiting): (Vec<_>, Vec<_>) = actions.into_iter().partition(started);
    let at_work = running.iter().filter(|action| matches!(action, Action::Turn { .. })).count();
    let room = (run.spec.limits.concurrency.max(1) as usize).saturating_sub(at_work);
    running.into_iter().chain(waiting.into_iter().take(room)).collect()
}

/// How the run ends, if it cannot go on or is done.
fn ending(run: &Run) -> Option<RunOutcome> {
    if let Some((branch, commit)) = run.landed.clone() {
        return Some(RunOutcome::Landed { branch, commit });
    }
    if let Some(errors) = run.blueprint_errors.clone() {
        return Some(RunOutcome::BlueprintInvalid { errors });
    }
    if let Some(why) = run.landing_refused.clone() {
        return Some(RunOutcome::NotLanded { why });
    }
    if let Some((step, paths)) = run.conflict.clone() {
        return Some(RunOutcome::Conflicted { step, paths });
    }
    if run.combined.receipt.as_ref().is_some_and(|receipt| !receipt.passed) {
        return Some(RunOutcome::GateFailed { subject: GateSubject::Combined });
    }
    for (name, step) in &run.steps {
        if let Some(why) = step.failure() {
            return Some(RunOutcome::StepFailed { step: name.clone(), why: why.to_owned() });
        }
        let exhausted = step.attempts() >= run.spec.limits.attempts;
        if exhausted
            && step.result.as_ref().is_some_and(|result| result.attempt == step.attempts())
            && step.receipt().is_some_and(|receipt| !receipt.passed)
        {
            let subject = GateSubject::Step { step: name.clone(), attempt: step.attempts() };
            return Some(RunOutcome::GateFailed { subject });
        }
    }
    None
}

/// Where work is kept when its branch cannot be made.
pub(crate) fn kept_ref(branch: &str) -> String {
    format!("refs/adjutant/kept/{branch}")
}

/// Before a run ends: what is under way comes to its end, and work that does not land gets a branch of its own.
fn conclude(run: &Run, outcome: RunOutcome) -> Due {
    let landed = matches!(outcome, RunOutcome::Landed { .. });
    let mut actions: Vec<Action> = if landed { Vec::new() } else { unfinished(run) };
    if actions.is_empty() && !landed {
        actions = branches(run)
            .into_iter()
            .filter(|(branch, _)| !run.kept.iter().any(|(kept, _)| *kept == *branch || *kept == kept_ref(branch)))
            .map(|(branch, commit)| Action::Keep { branch, commit })
            .collect();
    }
    if actions.is_empty() { Due::Record(vec![RunEvent::Finished { outcome }]) } else { Due::Actions(actions) }
}

/// What is under way: turns and checks that have started and not ended, and completed turns whose result is not
/// committed yet.
fn unfinished(run: &Run) -> Vec<Action> {
    let is_open = |step: &StepId| run.steps[step].turns.values().any(|turn| *turn == StepState::Started);
    let mut actions = Vec::new();
    core_turns(run, &mut actions);
    actions.retain(|action| matches!(action, Action::Turn { step, .. } if is_open(step)));
    let specialists = run.blueprint.iter().flat_map(Blueprint::specialists).filter(|specialist| {
        let step = &run.steps[&specialist.id];
        let attempt = step.attempts();
        let is_uncommitted = step.output(StepKind::Build(attempt)).is_some()
            && step.result.as_ref().is_none_or(|result| result.attempt != attempt);
        let is_checked_now = step.gate == Some((attempt, None));
        is_open(&specialist.id) || is_uncommitted || is_checked_now
    });
    actions.extend(specialists.filter_map(|specialist| specialist_action(run, specialist)));
    actions
}

fn branches(run: &Run) -> Vec<(String, String)> {
    let name = run.id.as_str().strip_prefix("run_").unwrap_or(run.id.as_str());
    let combined = run.combined.tip.iter().map(|(commit, _)| (format!("adjutant/{name}/combined"), commit.clone()));
    let parts = run.steps.iter().filter_map(|(id, step)| {
        let result = step.result.as_ref()?;
        Some((format!("adjutant/{name}/{id}"), result.commit.clone()))
    });
    combined.chain(parts).collect()
}
