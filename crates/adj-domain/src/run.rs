//! A run as its log tells it: one function folds the events, live and in replay.

use crate::{
    blueprint::{Blueprint, Specialist},
    event::Seq,
    id::{RunId, SessionId, StepId},
    model::Usage,
    money::Costs,
    purse::PurseKey,
    run_event::{GateSubject, Receipt, RunEvent, RunOutcome, RunSpec, StepKind, StepOutcome},
    session::IllegalEvent,
};
use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunState {
    Running,
    /// Somebody asked it to stop; it can be resumed.
    Interrupted,
    /// This budget lets no more be spent; it can be resumed.
    Paused(PurseKey),
    Finished(RunOutcome),
}

/// How far one turn of a step has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepState {
    Started,
    Finished(StepOutcome),
}

/// A commit that holds a step's result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    pub attempt: u32,
    pub commit: String,
    pub tree: String,
    pub changed: Vec<String>,
}

/// One agent's part in a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub session: Option<SessionId>,
    pub turns: BTreeMap<StepKind, StepState>,
    pub usage: Usage,
    pub costs: Costs,
    /// The commit its workspace starts from, once known.
    pub base: Option<String>,
    pub result: Option<Committed>,
    /// The newest gate on its result.
    pub gate: Option<(u32, Option<Receipt>)>,
}

impl Step {
    fn new() -> Self {
        Self {
            session: None,
            turns: BTreeMap::new(),
            usage: Usage::default(),
            costs: Costs::default(),
            base: None,
            result: None,
            gate: None,
        }
    }

    /// The output of a turn, once it is completed.
    pub fn output(&self, kind: StepKind) -> Option<&str> {
        match self.turns.get(&kind) {
            Some(StepState::Finished(StepOutcome::Completed { output })) => Some(output),
            _ => None,
        }
    }

    /// Why a turn of this step failed, if one did.
    pub fn failure(&self) -> Option<&str> {
        self.turns.values().find_map(|turn| match turn {
            StepState::Finished(StepOutcome::Failed { why }) => Some(why.as_str()),
            _ => None,
        })
    }

    /// The receipt for the newest result, once there is one.
    pub fn receipt(&self) -> Option<&Receipt> {
        let result = self.result.as_ref()?;
        self.gate.as_ref().filter(|(attempt, _)| *attempt == result.attempt).and_then(|(_, receipt)| receipt.as_ref())
    }

    /// The number of the newest attempt; 0 before the first.
    pub fn attempts(&self) -> u32 {
        self.turns
            .keys()
            .filter_map(|kind| if let StepKind::Build(attempt) = kind { Some(*attempt) } else { None })
            .max()
            .unwrap_or(0)
    }
}

/// The merged work so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Combined {
    pub merged: Vec<StepId>,
    /// Commit and tree after the newest merge.
    pub tip: Option<(String, String)>,
    pub gate_started: bool,
    pub receipt: Option<Receipt>,
}

/// A run, folded.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    pub id: RunId,
    pub spec: RunSpec,
    pub head: Seq,
    pub state: RunState,
    pub blueprint: Option<Blueprint>,
    pub blueprint_errors: Option<Vec<String>>,
    /// Core agents and specialists, by name.
    pub steps: BTreeMap<StepId, Step>,
    pub combined: Combined,
    pub conflict: Option<(StepId, Vec<String>)>,
    /// Branches that keep work which did not land, with their commits.
    pub kept: Vec<(String, String)>,
    pub landing: Option<(String, String)>,
    pub landed: Option<(String, String)>,
    pub landing_refused: Option<String>,
}

impl Run {
    /// Starts the fold with the first event of a log.
    pub fn created(id: RunId, spec: RunSpec) -> Self {
        let steps = spec.core.iter().map(|agent| (agent.step.clone(), Step::new())).collect();
        Self {
            id,
            spec,
            head: 1,
            state: RunState::Running,
            blueprint: None,
            blueprint_errors: None,
            steps,
            combined: Combined::default(),
            conflict: None,
            kept: Vec::new(),
            landing: None,
            landed: None,
            landing_refused: None,
        }
    }

    /// Folds a whole log.
    pub fn replay(id: &RunId, events: impl IntoIterator<Item = RunEvent>) -> Result<Option<Self>, IllegalEvent> {
        let mut events = events.into_iter();
        let mut run = match events.next() {
            None => return Ok(None),
            Some(RunEvent::Created { spec }) => Self::created(id.clone(), *spec),
            Some(event) => return Err(illegal(1, &event, "a log starts with run.created")),
        };
        for event in events {
            run.apply(&event)?;
        }
        Ok(Some(run))
    }

    pub fn usage(&self) -> Usage {
        self.steps.values().fold(Usage::default(), |sum, step| sum.plus(step.usage))
    }

    pub fn costs(&self) -> Costs {
        self.steps.values().fold(Costs::default(), |sum, step| sum.plus(&step.costs))
    }

    pub fn specialist(&self, step: &StepId) -> Option<&Specialist> {
        self.blueprint.as_ref()?.specialists().iter().find(|specialist| specialist.id == *step)
    }

    pub fn is_finished(&self) -> bool {
        matches!(self.state, RunState::Finished(_))
    }

    /// The only place where a run changes.
    pub fn apply(&mut self, event: &RunEvent) -> Result<(), IllegalEvent> {
        let seq = self.head + 1;
        let refuse = |why| Err(illegal(seq, event, why));
        if self.is_finished() && !matches!(event, RunEvent::WorkspaceRemoved { .. }) {
            return refuse("the run is finished");
        }
        match event {
            RunEvent::Created { .. } => return refuse("the run exists already"),
            RunEvent::TurnStarted { step, kind, session } => {
                let Some(step) = self.steps.get_mut(step) else {
                    return refuse("no such step");
                };
                if step.turns.contains_key(kind) {
                    return refuse("the turn was started already");
                }
                if step.session.as_ref().is_some_and(|known| known != session) {
                    return refuse("a step keeps its session");
                }
                step.session = Some(session.clone());
                step.turns.insert(*kind, StepState::Started);
            }
            RunEvent::TurnFinished { step, kind, outcome, usage, costs } => {
                let Some(step) = self.steps.get_mut(step) else {
                    return refuse("no such step");
                };
                match step.turns.get_mut(kind) {
                    Some(state @ StepState::Started) => *state = StepState::Finished(outcome.clone()),
                    _ => return refuse("a turn finishes once, after it started"),
                }
                step.usage = step.usage.plus(*usage);
                step.costs = std::mem::take(&mut step.costs).plus(costs);
            }
            RunEvent::HandedOff { from, to, .. } => {
                if !self.steps.contains_key(from) || !self.steps.contains_key(to) {
                    return refuse("no such step");
                }
            }
            RunEvent::BlueprintAccepted { blueprint } => {
                if self.blueprint.is_some() {
                    return refuse("there is a blueprint already");
                }
                for specialist in blueprint.specialists() {
                    if self.steps.contains_key(&specialist.id) {
                        return refuse("a specialist has the name of another step");
                    }
                }
                for specialist in blueprint.specialists() {
                    let mut step = Step::new();
                    if specialist.depends_on.is_empty() {
                        step.base = Some(self.spec.base.clone());
                    }
                    self.steps.insert(specialist.id.clone(), step);
                }
                self.blueprint = Some(blueprint.clone());
            }
            RunEvent::BlueprintRejected { errors } => {
                if self.blueprint.is_some() || self.blueprint_errors.is_some() {
                    return refuse("the blueprint was judged already");
                }
                self.blueprint_errors = Some(errors.clone());
            }
            RunEvent::BasePrepared { step, commit } => match self.steps.get_mut(step) {
                Some(step) if step.base.is_none() => step.base = Some(commit.clone()),
                _ => return refuse("a step gets its base once"),
            },
            RunEvent::ResultCommitted { step, attempt, commit, tree, changed, .. } => {
                let Some(step) = self.steps.get_mut(step) else {
                    return refuse("no such step");
                };
                if step.output(StepKind::Build(*attempt)).is_none() {
                    return refuse("a result follows a completed turn");
                }
                step.result = Some(Committed {
                    attempt: *attempt,
                    commit: commit.clone(),
                    tree: tree.clone(),
                    changed: changed.clone(),
                });
            }
            RunEvent::GateStarted { subject, .. } => match subject {
                GateSubject::Step { step, attempt } => match self.steps.get_mut(step) {
                    Some(step) if step.receipt().is_some() => return refuse("a result is judged once"),
                    Some(step) if step.result.as_ref().is_some_and(|result| result.attempt == *attempt) => {
                        step.gate = Some((*attempt, None));
                    }
                    _ => return refuse("a gate judges a result"),
                },
                GateSubject::Combined if self.combined.receipt.is_some() => return refuse("a result is judged once"),
                GateSubject::Combined => self.combined.gate_started = true,
            },
            RunEvent::GateFinished { subject, receipt } => match subject {
                GateSubject::Step { step, attempt } => match self.steps.get_mut(step).and_then(|s| s.gate.as_mut()) {
                    Some((started, slot @ None)) if started == attempt => *slot = Some(receipt.clone()),
                    _ => return refuse("a gate finishes once, after it started"),
                },
                GateSubject::Combined => {
                    if !self.combined.gate_started || self.combined.receipt.is_some() {
                        return refuse("a gate finishes once, after it started");
                    }
                    self.combined.receipt = Some(receipt.clone());
                }
            },
            RunEvent::Merged { step, commit, tree } => {
                if !self.steps.contains_key(step) || self.combined.merged.contains(step) {
                    return refuse("a step is merged once");
                }
                self.combined.merged.push(step.clone());
                self.combined.tip = Some((commit.clone(), tree.clone()));
            }
            RunEvent::MergeConflicted { step, paths } => self.conflict = Some((step.clone(), paths.clone())),
            RunEvent::WorkKept { branch, commit } => self.kept.push((branch.clone(), commit.clone())),
            RunEvent::LandingStarted { from, to, .. } => {
                let passed = self.combined.receipt.as_ref().is_some_and(|receipt| receipt.passed);
                if self.spec.gate.is_some() && !passed {
                    return refuse("nothing lands before its gate has passed");
                }
                self.landing = Some((from.clone(), to.clone()));
            }
            RunEvent::Landed { branch, to, .. } => {
                if self.landing.is_none() {
                    return refuse("a landing is announced first");
                }
                self.landed = Some((branch.clone(), to.clone()));
            }
            RunEvent::LandingRefused { why } => self.landing_refused = Some(why.clone()),
            RunEvent::WorkspaceRemoved { step, .. } => {
                if !self.is_finished() || !self.steps.contains_key(step) {
                    return refuse("the workspaces of a run go after its end");
                }
            }
            RunEvent::Interrupted => self.state = RunState::Interrupted,
            RunEvent::Paused { purse } => self.state = RunState::Paused(purse.clone()),
            RunEvent::Resumed => self.state = RunState::Running,
            RunEvent::Finished { outcome } => self.state = RunState::Finished(outcome.clone()),
        }
        self.head = seq;
        Ok(())
    }
}

fn illegal(seq: Seq, event: &RunEvent, why: &'static str) -> IllegalEvent {
    IllegalEvent { seq, event: event.name(), why }
}

impl RunEvent {
    /// Returns the wire name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Created { .. } => "run.created",
            Self::TurnStarted { .. } => "run.turn_started",
            Self::TurnFinished { .. } => "run.turn_finished",
            Self::HandedOff { .. } => "run.handed_off",
            Self::BlueprintAccepted { .. } => "run.blueprint_accepted",
            Self::BlueprintRejected { .. } => "run.blueprint_rejected",
            Self::BasePrepared { .. } => "run.base_prepared",
            Self::ResultCommitted { .. } => "run.result_committed",
            Self::GateStarted { .. } => "run.gate_started",
            Self::GateFinished { .. } => "run.gate_finished",
            Self::Merged { .. } => "run.merged",
            Self::MergeConflicted { .. } => "run.merge_conflicted",
            Self::WorkKept { .. } => "run.work_kept",
            Self::LandingStarted { .. } => "run.landing_started",
            Self::Landed { .. } => "run.landed",
            Self::LandingRefused { .. } => "run.landing_refused",
            Self::WorkspaceRemoved { .. } => "run.workspace_removed",
            Self::Paused { .. } => "run.paused",
            Self::Interrupted => "run.interrupted",
            Self::Resumed => "run.resumed",
            Self::Finished { .. } => "run.finished",
        }
    }
}
