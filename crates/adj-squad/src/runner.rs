//! Carries a run out: remembers what is due, does it, remembers what came of it.

use crate::{
    bounds,
    due::{Action, Due, due, intents, kept_ref},
    gate::{self, GateRequest},
    prompts::Prompt,
};
use adj_domain::{
    AgentDefinition, Amounts, Budget, Confinement, Content, EventId, IdleReason, LogId, PendingInput, PurseKey, Run,
    RunEvent, RunId, RunSpec, RunState, SandboxMode, SessionId, StepId, StepKind, StepOutcome, WorkspaceSpec,
    event::{EventBody, Input},
    session::IllegalEvent,
};
use adj_engine::{Engine, EngineError, Interrupt, NewSession, ToolName};
use adj_store::{Batch, Claim, LogMeta, StoreError};
use adj_workspace::{Authorship, CommitId, Merge, MergeRequest, Person, Repository, TreeId, Workspaces};
use std::{collections::BTreeSet, path::Path, sync::Arc};
use tokio::task::JoinSet;

/// What one step hands to the next of its own words; the whole is in its session's log.
const OUTPUT_BYTES: usize = 64 << 10;
const REASON_BYTES: usize = 4 << 10;
/// Trees of a repository that stay laid out for the next run.
const KEPT_TREES: usize = 8;

/// Why a run could not go on. Everything up to here is remembered; the run can be resumed.
#[derive(Debug, thiserror::Error)]
pub enum SquadError {
    #[error("there is no run {0}")]
    NoRun(RunId),
    #[error("the run {0} waits for nothing and is not finished")]
    Stuck(RunId),
    /// A step cannot go on before there is more to spend.
    #[error("the budget of {0} is reached")]
    Paused(PurseKey),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the run's log is not a legal history")]
    Illegal(#[from] IllegalEvent),
    #[error("cannot open the repository")]
    Repository(#[from] adj_workspace::OpenRepositoryError),
    #[error("cannot prepare a workspace")]
    Prepare(#[from] adj_workspace::PrepareError),
    #[error("cannot find a workspace")]
    Find(#[from] adj_workspace::FindWorkspaceError),
    #[error("cannot keep a result")]
    Snapshot(#[from] adj_workspace::SnapshotError),
    #[error("cannot merge")]
    Merge(#[from] adj_workspace::MergeError),
    #[error("cannot publish a branch")]
    Publish(#[from] adj_workspace::PublishError),
    #[error("cannot look a commit up")]
    Objects(#[from] adj_workspace::StoreError),
    #[error("cannot clear the state folder")]
    Clear(#[from] adj_workspace::FileError),
    #[error("cannot remove a workspace")]
    Remove(#[from] adj_workspace::RemoveError),
    #[error("cannot plan a check")]
    CheckPlan(#[from] adj_engine::CommandError),
    #[error("cannot run a check")]
    Gate(#[from] adj_sandbox::RunError),
    #[error("a stored name is not one")]
    Name(#[from] adj_workspace::ParseNameError),
    #[error("a stored commit is not one")]
    Commit(#[from] adj_workspace::ParseObjectIdError),
}

/// How `work` ended.
#[derive(Debug, Clone, PartialEq)]
pub struct RunEnd {
    pub run: Run,
    pub interrupted: bool,
}

/// Carries runs out, on one engine.
#[derive(Debug, Clone)]
pub struct Squad {
    engine: Engine,
    keep_workspaces: bool,
}

/// What tells two actions apart while they are under way.
fn key(action: &Action) -> String {
    match action {
        Action::Turn { step, kind, .. } => format!("turn {step} {kind}"),
        Action::PrepareBase { step, .. } => format!("base {step}"),
        Action::Commit { step, attempt } => format!("commit {step} {attempt}"),
        Action::Gate { subject, .. } => format!("gate {subject}"),
        Action::Merge { step, .. } => format!("merge {step}"),
        Action::Keep { branch, .. } => format!("keep {branch}"),
        Action::Land { .. } => "land".to_owned(),
    }
}

type Outcome = (String, Result<Vec<RunEvent>, SquadError>);

impl Squad {
    /// With `keep_workspaces`, the agents' workspaces stay after a run is over.
    pub fn new(engine: Engine, keep_workspaces: bool) -> Self {
        Self { engine, keep_workspaces }
    }

    /// Makes a run. One that exists already is left as it is.
    pub async fn create(&self, id: &RunId, spec: RunSpec) -> Result<(), SquadError> {
        let log = LogId::from(id.clone());
        let title = bounds::line(&spec.prompt);
        self.engine.store().create(&log, LogMeta { title, ..LogMeta::default() }).await?;
        let claim = self.engine.claim(&log).await?;
        let appended = if claim.head == 0 {
            let ledger = spec.budget.of_run(id);
            let event = RunEvent::Created { spec: Box::new(spec) };
            let events = vec![event.into_new(EventId::derive(&[id.as_str(), "1"]))];
            let batch = Batch { ledger, ..Batch::events(events) };
            self.engine.append_batch(&claim.fence, 0, batch).await.map_err(SquadError::from)
        } else {
            Ok(())
        };
        let released = self.engine.store().release(claim.fence).await;
        appended?;
        Ok(released?)
    }

    /// Reads and folds a run's log.
    pub async fn run(&self, id: &RunId) -> Result<Run, SquadError> {
        let mut events = Vec::new();
        for event in self.engine.events(&LogId::from(id.clone())).await? {
            events.push(event.run_event().map_err(EngineError::from)?);
        }
        Run::replay(id, events)?.ok_or_else(|| SquadError::NoRun(id.clone()))
    }

    /// Works until the run is finished, or until an interrupt has let everybody finish their step.
    pub async fn work(&self, id: &RunId, interrupt: &Interrupt) -> Result<RunEnd, SquadError> {
        let claim = self.engine.claim(&LogId::from(id.clone())).await?;
        // A failure asks the others to stop, but not those whom the caller's own wish also concerns.
        let mut worked = self.work_claimed(id, &claim, &interrupt.child()).await;
        let closed = match &mut worked {
            Ok(run) => self.close(run, &claim).await,
            Err(_) => Ok(()),
        };
        let released = self.engine.store().release(claim.fence).await;
        let run = worked?;
        closed?;
        released?;
        let interrupted = run.state == RunState::Interrupted;
        Ok(RunEnd { run, interrupted })
    }

    async fn work_claimed(&self, id: &RunId, claim: &Claim, interrupt: &Interrupt) -> Result<Run, SquadError> {
        let mut run = self.run(id).await?;
        if run.is_finished() {
            return Ok(run);
        }
        let workspaces = self.engine.workspaces().await?;
        if let Err(error) = workspaces.sweep().await {
            tracing::warn!(run = %id, "cannot clear away what earlier processes left: {}", with_causes(&error));
        }
        let repository = workspaces.repository(Path::new(&run.spec.repository)).await?;
        let hands = Arc::new(Hands { engine: self.engine.clone(), repository, interrupt: interrupt.clone() });
        if run.head > 1 {
            self.record(claim, &mut run, vec![RunEvent::Resumed]).await?;
        }
        let mut running = JoinSet::new();
        let worked = self.carry_on(claim, &mut run, &hands, &mut running).await;
        // After a failure the others come to their end first, so that nothing of theirs is lost, and each gives its
        // session back.
        interrupt.ask();
        while let Some(done) = running.join_next().await {
            let recorded = match done {
                Ok((_, Ok(events))) => self.record(claim, &mut run, events).await,
                Ok((_, Err(error))) => Err(error),
                Err(_) => continue,
            };
            if let Err(error) = recorded {
                tracing::warn!(run = %id, "beside the first failure: {}", with_causes(&error));
            }
        }
        worked?;
        Ok(run)
    }

    async fn carry_on(
        &self,
        claim: &Claim,
        run: &mut Run,
        hands: &Arc<Hands>,
        running: &mut JoinSet<Outcome>,
    ) -> Result<(), SquadError> {
        let interrupt = &hands.interrupt;
        let mut keys = BTreeSet::new();
        let mut paused: Option<PurseKey> = None;
        loop {
            let actions = match due(run) {
                Due::Record(events) => {
                    self.record(claim, run, events).await?;
                    continue;
                }
                Due::Actions(actions) => actions,
            };
            if run.is_finished() {
                return Ok(());
            }
            for action in actions {
                if interrupt.is_asked() || !keys.insert(key(&action)) {
                    continue;
                }
                let intents = intents(run, &action);
                self.record(claim, run, intents).await?;
                let (hands, run) = (Arc::clone(hands), run.clone());
                running.spawn(async move { (key(&action), hands.carry_out(&run, action).await) });
            }
            match running.join_next().await {
                Some(done) => {
                    let (key, events) = done.expect("an action does not panic");
                    match events {
                        // Its key stays: it is not begun again before somebody resumes the run. The others go on.
                        Err(SquadError::Paused(purse)) => paused = Some(purse),
                        events => {
                            keys.remove(&key);
                            self.record(claim, run, events?).await?;
                        }
                    }
                }
                None if interrupt.is_asked() => {
                    return self.record(claim, run, vec![RunEvent::Interrupted]).await;
                }
                None if paused.is_some() => {
                    let events = paused.into_iter().map(|purse| RunEvent::Paused { purse }).collect();
                    return self.record(claim, run, events).await;
                }
                None => return Err(SquadError::Stuck(run.id.clone())),
            }
        }
    }

    async fn record(&self, claim: &Claim, run: &mut Run, events: Vec<RunEvent>) -> Result<(), SquadError> {
        if events.is_empty() {
            return Ok(());
        }
        let head = run.head;
        let mut next = run.clone();
        for event in &events {
            next.apply(event)?;
        }
        let id = run.id.clone();
        self.append(claim, &id, head, events).await?;
        *run = next;
        Ok(())
    }

    async fn append(&self, claim: &Claim, id: &RunId, head: u64, events: Vec<RunEvent>) -> Result<(), SquadError> {
        let numbered = events.into_iter().zip(head + 1..);
        let events = numbered.map(|(event, seq)| event.into_new(EventId::derive(&[id.as_str(), &seq.to_string()])));
        Ok(self.engine.append(&claim.fence, head, events.collect(), Vec::new()).await?)
    }

    /// Ends every sandbox of the run; once the run is over, its workspaces go too, each into a snapshot first.
    async fn close(&self, run: &mut Run, claim: &Claim) -> Result<(), SquadError> {
        for session in run.steps.values().filter_map(|step| step.session.as_ref()) {
            self.engine.close(session).await?;
        }
        if !run.is_finished() {
            return Ok(());
        }
        let workspaces = self.engine.workspaces().await?;
        if !self.keep_workspaces {
            for step in run.steps.keys().cloned().collect::<Vec<_>>() {
                let name = workspace_name(&run.id, &step).parse()?;
                match workspaces.existing(&name) {
                    Ok(_) => {
                        let removed = workspaces.remove(&name, &by_run(run)).await?;
                        let (commit, reference) = (removed.commit.to_string(), removed.reference);
                        self.record(claim, run, vec![RunEvent::WorkspaceRemoved { step, commit, reference }]).await?;
                    }
                    Err(adj_workspace::FindWorkspaceError::Missing { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        if let Err(error) = prune(&workspaces, run).await {
            tracing::warn!(run = %run.id, "cannot remove trees that nobody uses: {}", with_causes(&error));
        }
        Ok(())
    }
}

async fn prune(workspaces: &Workspaces, run: &Run) -> Result<(), SquadError> {
    let repository = workspaces.repository(Path::new(&run.spec.repository)).await?;
    workspaces.prune_trees(&repository.id, KEPT_TREES).await?;
    Ok(())
}

fn workspace_name(run: &RunId, step: &StepId) -> String {
    format!("{run}-{step}")
}

/// Does one action at a time; each finds out by itself what has happened already.
struct Hands {
    engine: Engine,
    repository: Repository,
    interrupt: Interrupt,
}

impl Hands {
    async fn carry_out(&self, run: &Run, action: Action) -> Result<Vec<RunEvent>, SquadError> {
        match action {
            Action::Turn { step, kind, session, prompt, schema } => {
                self.turn(run, step, kind, session, prompt, schema).await
            }
            Action::PrepareBase { step, parts } => self.prepare_base(run, step, parts).await,
            Action::Commit { step, attempt } => self.commit(run, step, attempt).await,
            Action::Gate { subject, commit, tree, command } => {
                let request = GateRequest { subject, commit: commit.parse()?, tree, command };
                let receipt = gate::run(&self.engine, run, &self.repository, &request).await?;
                Ok(vec![RunEvent::GateFinished { subject: request.subject, receipt }])
            }
            Action::Merge { step, onto } => self.merge(run, step, &onto).await,
            Action::Keep { branch, commit } => {
                let workspaces = self.engine.workspaces().await?;
                let wanted = commit.parse()?;
                let branch = match workspaces.publish(&self.repository, &branch, &wanted).await {
                    Ok(_) => branch,
                    // A branch of the user's stands in the way of that name; a ref below our own folder never does.
                    Err(error) => {
                        let reference = kept_ref(&branch);
                        tracing::warn!(branch, reference, "work is kept under a ref: {}", with_causes(&error));
                        workspaces.publish(&self.repository, &reference, &wanted).await?;
                        reference
                    }
                };
                Ok(vec![RunEvent::WorkKept { branch, commit }])
            }
            Action::Land { from, to } => self.land(run, from, to).await,
        }
    }

    async fn turn(
        &self,
        run: &Run,
        step: StepId,
        kind: StepKind,
        session: SessionId,
        prompt: Prompt,
        schema: Option<serde_json::Value>,
    ) -> Result<Vec<RunEvent>, SquadError> {
        self.engine.create(&session, new_session(run, &step)?).await?;
        let message = |id: EventId, text: String, output_schema| PendingInput {
            id,
            input: Input::Message { content: vec![Content::text(text)], output_schema },
        };
        let name = [run.id.as_str(), step.as_str(), &kind.to_string()];
        self.engine.send(&session, &message(EventId::derive(&name), prompt.text, schema.clone())).await?;
        let mut end = self.engine.work_with_people(&session, &self.interrupt).await?;
        if end.reason == Some(IdleReason::Interrupted) && !self.interrupt.is_asked() {
            // An earlier process let the turn end after its step; the agent is asked to go on from there.
            let id = EventId::derive(&[name[0], name[1], name[2], "continue", &end.turns.to_string()]);
            let text = "You were interrupted. Go on from where you stopped.".to_owned();
            self.engine.send(&session, &message(id, text, schema)).await?;
            end = self.engine.work_with_people(&session, &self.interrupt).await?;
        }
        if end.waits {
            // The wish to stop came before the turn took our message up: what it said last is the answer to another.
            return Ok(Vec::new());
        }
        let outcome = match end.reason {
            Some(IdleReason::EndTurn) => {
                StepOutcome::Completed { output: bounds::text(end.last_message.unwrap_or_default(), OUTPUT_BYTES) }
            }
            Some(IdleReason::BudgetReached { purse }) => return Err(SquadError::Paused(purse)),
            Some(IdleReason::Interrupted | IdleReason::RequiresAction { .. }) | None => return Ok(Vec::new()),
            Some(reason) => {
                StepOutcome::Failed { why: bounds::text(self.explain(&session, reason).await?, REASON_BYTES) }
            }
        };
        let (usage, costs) =
            run.steps.get(&step).map_or_else(Default::default, |step| (step.usage, step.costs.clone()));
        let (usage, costs) = (end.usage.minus(usage), end.costs.minus(&costs));
        Ok(vec![RunEvent::TurnFinished { step, kind, outcome, usage, costs }])
    }

    async fn explain(&self, session: &SessionId, reason: IdleReason) -> Result<String, SquadError> {
        Ok(match reason {
            IdleReason::EndTurn
            | IdleReason::Interrupted
            | IdleReason::RequiresAction { .. }
            | IdleReason::BudgetReached { .. } => "the turn ended".to_owned(),
            IdleReason::Refusal => "the model refused".to_owned(),
            IdleReason::MaxTokens => "the answer was cut at the output limit".to_owned(),
            IdleReason::StepLimit => "the turn took as many steps as it may".to_owned(),
            IdleReason::OutputInvalid { errors } => {
                format!("the answer did not fit its schema, twice: {}", errors.join("; "))
            }
            IdleReason::RetriesExhausted => {
                self.engine.last_error(session).await?.unwrap_or_else(|| "the model could not be called".to_owned())
            }
        })
    }

    async fn prepare_base(&self, run: &Run, step: StepId, parts: Vec<StepId>) -> Result<Vec<RunEvent>, SquadError> {
        let mut base: CommitId = run.spec.base.parse()?;
        for part in &parts {
            match self.merge_result(run, &base, part).await? {
                Ok((commit, _)) => base = commit,
                Err(paths) => return Ok(vec![RunEvent::MergeConflicted { step, paths }]),
            }
        }
        Ok(vec![RunEvent::BasePrepared { step, commit: base.to_string() }])
    }

    async fn commit(&self, run: &Run, step: StepId, attempt: u32) -> Result<Vec<RunEvent>, SquadError> {
        let workspaces = self.engine.workspaces().await?;
        let workspace = workspaces.existing(&workspace_name(&run.id, &step).parse()?)?;
        let specialist = run.specialist(&step);
        let title = specialist.map_or_else(|| step.to_string(), |specialist| bounds::line(&specialist.title));
        let report = run.steps[&step].output(StepKind::Build(attempt)).unwrap_or_default().trim();
        let report = bounds::plain(report);
        let message = format!("{title}\n\n{report}\n\nAdjutant-Run: {}\nAdjutant-Step: {step}\n", run.id);
        let authorship = Authorship {
            author: Person::new(format!("adjutant {step}"), format!("{step}@adjutant.invalid")),
            ..by_run(run)
        };
        let snapshot = workspaces.snapshot(&workspace, &message, &authorship).await?;
        let (changed, more_changed) = bounds::paths(snapshot.changed.iter().map(|change| &change.path));
        Ok(vec![RunEvent::ResultCommitted {
            step,
            attempt,
            commit: snapshot.commit.to_string(),
            tree: snapshot.tree.to_string(),
            ref_name: snapshot.reference,
            changed,
            more_changed,
        }])
    }

    async fn merge(&self, run: &Run, step: StepId, onto: &str) -> Result<Vec<RunEvent>, SquadError> {
        Ok(vec![match self.merge_result(run, &onto.parse()?, &step).await? {
            Ok((commit, tree)) => RunEvent::Merged { step, commit: commit.to_string(), tree: tree.to_string() },
            Err(paths) => RunEvent::MergeConflicted { step, paths },
        }])
    }

    /// Merges a step's result onto a commit: the merged commit with its tree, or the paths that git could not decide.
    async fn merge_result(
        &self,
        run: &Run,
        onto: &CommitId,
        step: &StepId,
    ) -> Result<Result<(CommitId, TreeId), Vec<String>>, SquadError> {
        let workspaces = self.engine.workspaces().await?;
        let result = run.steps[step].result.as_ref().expect("a step is merged after its result is committed");
        let title = run.specialist(step).map_or_else(String::new, |specialist| bounds::line(&specialist.title));
        let message = format!("Merge {step}: {title}\n\nAdjutant-Run: {}\n", run.id);
        let (theirs, authorship) = (result.commit.parse()?, by_run(run));
        let request =
            MergeRequest { base: None, ours: onto, theirs: &theirs, message: &message, authorship: &authorship };
        let commit = match workspaces.merge(&self.repository, request).await? {
            Merge::Clean { commit, tree } => return Ok(Ok((commit, tree))),
            Merge::UpToDate => onto.clone(),
            Merge::FastForward { commit } => commit,
            Merge::Conflict { conflicts } => {
                let paths: BTreeSet<_> = conflicts.iter().flat_map(|one| &one.paths).collect();
                return Ok(Err(bounds::paths(paths).0));
            }
        };
        let tree = workspaces.tree_of(&self.repository, &commit).await?;
        Ok(Ok((commit, tree)))
    }

    async fn land(&self, run: &Run, from: String, to: String) -> Result<Vec<RunEvent>, SquadError> {
        let workspaces = self.engine.workspaces().await?;
        let branch = run.spec.target_branch.clone();
        let (old, new) = (from.parse()?, to.parse()?);
        let landed = if run.spec.dirty_snapshot.is_some() {
            let snapshot = run.spec.base.parse()?;
            workspaces.land_over_snapshot(&self.repository, &branch, &old, &snapshot, &new).await
        } else {
            workspaces.land(&self.repository, &branch, &old, &new).await
        };
        Ok(vec![match landed {
            Ok(_) => RunEvent::Landed { branch, from, to },
            Err(error) => RunEvent::LandingRefused { why: with_causes(&error) },
        }])
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn by_run(run: &Run) -> Authorship {
    let adjutant = Person::new("adjutant", "run@adjutant.invalid");
    Authorship {
        author: adjutant.clone(),
        committer: adjutant,
        time_seconds: run.spec.started_at.as_second().max(0) as u64,
    }
}

/// Tools of those who only look, and of those who change things.
const LOOKING: [ToolName; 4] = [ToolName::Bash, ToolName::Read, ToolName::Glob, ToolName::Grep];
const WORKING: [ToolName; 7] = ToolName::ALL;

fn new_session(run: &Run, step: &StepId) -> Result<NewSession, SquadError> {
    let core = run.spec.core.iter().find(|agent| agent.step == *step);
    let specialist = run.specialist(step);
    let base = run.steps[step].base.clone().unwrap_or_else(|| run.spec.base.clone());
    let tools: &[ToolName] = if core.is_some() { &LOOKING } else { &WORKING };
    let sandbox = match (run.spec.sandbox, core) {
        (SandboxMode::WorkspaceWrite, Some(_)) => SandboxMode::ReadOnly,
        (mode, _) => mode,
    };
    Ok(NewSession {
        agent: AgentDefinition {
            name: step.to_string(),
            role: core.map_or_else(|| "specialist".to_owned(), |agent| agent.role.clone()),
            model: core.and_then(|agent| agent.model.clone()).unwrap_or_else(|| run.spec.model.clone()),
            effort: run.spec.effort.clone(),
            tools: adj_engine::tool_specs(tools),
            ..adj_engine::default_agent(&run.spec.model)
        },
        workspace: WorkspaceSpec::Private {
            repository: run.spec.repository.clone(),
            commit: base,
            name: workspace_name(&run.id, step),
        },
        sandbox,
        confinement: match core {
            // Those who only look write nowhere.
            Some(_) => Confinement { write: Vec::new(), ..run.spec.confinement.clone() },
            None => run.spec.confinement.clone(),
        },
        approval: run.spec.approval,
        budget: Budget { run: Amounts::default(), ..run.spec.budget.clone() },
        check: specialist.and_then(|specialist| crate::prompts::check(run, specialist)).map(str::to_owned),
        run: Some((run.id.clone(), step.clone())),
        title: Some(specialist.map_or_else(|| step.to_string(), |specialist| specialist.title.clone())),
    })
}
