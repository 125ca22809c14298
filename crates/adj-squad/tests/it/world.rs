//! A run with everything outside it played by hand.

use adj_domain::{
    ApprovalPolicy, BlobHash, Confinement, CoreAgent, GateSpec, GateSubject, Receipt, Run, RunEvent, RunLimits,
    RunOutcome, RunSpec, RunState, SandboxMode, StepId, StepKind, StepOutcome, Usage,
};
use adj_squad::{Action, Due, due, intents};
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub struct World {
    pub run: Run,
    pub events: Vec<RunEvent>,
    /// What is under way in this process.
    pub at_work: Vec<Action>,
    /// What came to its end, by name; nothing of it may be asked for again.
    pub over: Vec<String>,
}

pub fn step(name: &str) -> StepId {
    name.parse().unwrap()
}

/// A short core, so that tables stay readable: one turn each, the builder the last.
pub fn spec() -> RunSpec {
    let core = |name: &str, prompt: &str, depends_on: &[&str]| CoreAgent {
        step: step(name),
        role: name.to_owned(),
        plan_prompt: prompt.to_owned(),
        follow_up_prompt: None,
        schema: None,
        depends_on: depends_on.iter().map(|on| step(on)).collect(),
        model: None,
    };
    RunSpec {
        prompt: "the request".to_owned(),
        started_at: "2026-01-02T03:04:05Z".parse().unwrap(),
        repository: "/repo".to_owned(),
        base: "base".to_owned(),
        target_branch: "main".to_owned(),
        target_commit: "base".to_owned(),
        dirty_snapshot: None,
        gate: Some(GateSpec { command: "make test".to_owned(), timeout_seconds: 60 }),
        core: vec![core("planner", "{prompt}", &[]), core("builder", "{prompt}{planner}", &["planner"])],
        limits: RunLimits { max_specialists: 8, concurrency: 4, attempts: 2 },
        model: "scripted/test".parse().unwrap(),
        effort: None,
        sandbox: SandboxMode::WorkspaceWrite,
        confinement: Confinement::default(),
        approval: ApprovalPolicy::Never,
        budget: Default::default(),
    }
}

/// A blueprint's JSON out of `a b c:a,b`: names, and after a colon whom each waits for.
pub fn blueprint(words: &str) -> String {
    let specialists: Vec<Value> = words
        .split_whitespace()
        .map(|word| {
            let (id, on) = word.split_once(':').unwrap_or((word, ""));
            let depends_on: Vec<&str> = on.split(',').filter(|on| !on.is_empty()).collect();
            json!({"id": id, "title": format!("Title of {id}"), "task": format!("Task of {id}"), "depends_on": depends_on})
        })
        .collect();
    json!({"summary": "s", "specialists": specialists}).to_string()
}

pub fn receipt(passed: bool, tail: &str) -> Receipt {
    Receipt {
        tree: "tree".to_owned(),
        command: "make test".to_owned(),
        exit_code: Some(i32::from(!passed)),
        passed,
        duration_ms: 1,
        output: BlobHash::of(tail.as_bytes()),
        tail: tail.to_owned(),
    }
}

/// An action in words.
pub fn name(action: &Action) -> String {
    match action {
        Action::Turn { step, kind, .. } => format!("turn {step} {kind}"),
        Action::PrepareBase { step, parts } => {
            let parts: Vec<&str> = parts.iter().map(StepId::as_str).collect();
            format!("base {step} of {}", parts.join("+"))
        }
        Action::Commit { step, attempt } => format!("commit {step} {attempt}"),
        Action::Gate { subject: GateSubject::Combined, .. } => "gate combined".to_owned(),
        Action::Gate { subject: GateSubject::Step { step, attempt }, .. } => format!("gate {step} {attempt}"),
        Action::Merge { step, onto } => format!("merge {step} onto {onto}"),
        Action::Keep { branch, .. } => format!("keep {branch}"),
        Action::Land { from, to } => format!("land {from}..{to}"),
    }
}

fn outcome(outcome: &RunOutcome) -> String {
    match outcome {
        RunOutcome::Landed { commit, .. } => format!("landed {commit}"),
        RunOutcome::GateFailed { subject } => format!("gate failed: {subject}"),
        RunOutcome::Conflicted { step, .. } => format!("conflict at {step}"),
        RunOutcome::BlueprintInvalid { .. } => "blueprint invalid".to_owned(),
        RunOutcome::StepFailed { step, why } => format!("{step} failed: {why}"),
        RunOutcome::NotLanded { why } => format!("not landed: {why}"),
    }
}

impl World {
    pub fn new(spec: RunSpec) -> Self {
        let created = RunEvent::Created { spec: Box::new(spec.clone()) };
        let run = Run::created("run_test".parse().unwrap(), spec);
        Self { run, events: vec![created], at_work: Vec::new(), over: Vec::new() }
    }

    pub fn record(&mut self, event: RunEvent) {
        self.run.apply(&event).unwrap_or_else(|error| panic!("{error}: {event:?}"));
        self.events.push(event);
    }

    fn folded(&self) -> Run {
        Run::replay(&self.run.id, self.events.clone()).unwrap().unwrap()
    }

    /// Records what follows, starts what is due, and checks what must hold after each step.
    pub fn go(&mut self) {
        let actions = loop {
            match due(&self.run) {
                Due::Record(events) => events.into_iter().for_each(|event| self.record(event)),
                Due::Actions(actions) => break actions,
            }
        };
        for action in &actions {
            let name = name(action);
            assert!(!self.over.contains(&name), "{name} is asked for again");
            if self.at_work.iter().any(|other| self::name(other) == name) {
                continue;
            }
            for event in intents(&self.run, action) {
                self.record(event);
            }
            assert_eq!(intents(&self.run, action), Vec::new(), "an intent is remembered once");
            self.at_work.push(action.clone());
        }
        assert_eq!(self.folded(), self.run, "the live state is the folded state");
        let Due::Actions(again) = due(&self.run) else { panic!("an intent has no consequence of its own") };
        let names = |actions: &[Action]| actions.iter().map(name).collect::<BTreeSet<_>>();
        assert_eq!(names(&again), names(&actions), "what is due stays due until it is over");
    }

    /// What is under way, in words and in the order in which it is due; or how the run ended.
    pub fn story(&self) -> String {
        match &self.run.state {
            RunState::Finished(how) => outcome(how),
            RunState::Interrupted => "interrupted".to_owned(),
            RunState::Paused(purse) => format!("paused for {purse}"),
            RunState::Running => self.at_work.iter().map(name).collect::<Vec<_>>().join("; "),
        }
    }

    /// The process dies: what is under way is forgotten, and another one folds the log.
    pub fn crash(&mut self) {
        self.run = self.folded();
        self.at_work.clear();
        self.record(RunEvent::Resumed);
    }

    pub fn action(&self, name: &str) -> Action {
        let found = self.at_work.iter().find(|action| self::name(action).starts_with(name));
        found.unwrap_or_else(|| panic!("{name} is not under way, but {}", self.story())).clone()
    }

    /// One action comes to its end: well, with what it brought, or not.
    pub fn end(&mut self, action: &Action, result: Result<&str, &str>) {
        let name = name(action);
        self.at_work.retain(|other| self::name(other) != name);
        self.over.push(name);
        let event = self.result(action, result);
        self.record(event);
    }

    fn result(&self, action: &Action, result: Result<&str, &str>) -> RunEvent {
        match action.clone() {
            Action::Turn { step, kind, .. } => {
                let usage = Usage { input_tokens: 10, output_tokens: 5, ..Usage::default() };
                let outcome = match result {
                    Ok(output) => StepOutcome::Completed { output: output.to_owned() },
                    Err(why) => StepOutcome::Failed { why: why.to_owned() },
                };
                RunEvent::TurnFinished { step, kind, outcome, usage, costs: Default::default() }
            }
            Action::PrepareBase { step, .. } => match result {
                Ok(_) => RunEvent::BasePrepared { commit: format!("base-of-{step}"), step },
                Err(path) => RunEvent::MergeConflicted { step, paths: vec![path.to_owned()] },
            },
            Action::Commit { step, attempt } => RunEvent::ResultCommitted {
                commit: format!("{step}{attempt}"),
                tree: format!("tree-{step}{attempt}"),
                ref_name: format!("refs/{step}"),
                changed: vec![format!("{step}.txt")],
                more_changed: 0,
                step,
                attempt,
            },
            Action::Gate { subject, .. } => {
                let receipt = result.map_or_else(|tail| receipt(false, tail), |tail| receipt(true, tail));
                RunEvent::GateFinished { subject, receipt }
            }
            Action::Merge { step, onto } => match result {
                Ok(_) => {
                    RunEvent::Merged { commit: format!("{onto}+{step}"), tree: format!("tree-{onto}+{step}"), step }
                }
                Err(path) => RunEvent::MergeConflicted { step, paths: vec![path.to_owned()] },
            },
            Action::Keep { branch, commit } => RunEvent::WorkKept { branch, commit },
            Action::Land { from, to } => match result {
                Ok(_) => RunEvent::Landed { branch: self.run.spec.target_branch.clone(), from, to },
                Err(why) => RunEvent::LandingRefused { why: why.to_owned() },
            },
        }
    }

    /// The text that an agent is given for a turn that is under way.
    pub fn prompt(&self, of: &str, of_kind: StepKind) -> String {
        let found = self.at_work.iter().find_map(|action| match action {
            Action::Turn { step, kind, prompt, .. } if step.as_str() == of && *kind == of_kind => Some(&prompt.text),
            _ => None,
        });
        found.unwrap_or_else(|| panic!("{of} has no turn")).clone()
    }
}
