//! `adjutant run`: one piece of work, from prompt to merge.

use super::{print, read_prompt};
use crate::{
    cassettes,
    cli::RunArgs,
    confinement::{self, Asked, policy_at},
    demo,
    failure::{Code, Failure, Result},
    foreground::{Foreground, has_people},
    report,
    wiring::{self, Models},
    words::one_line,
};
use adj_domain::{
    ApprovalPolicy, Confinement, GateSpec, ModelRef, Run, RunId, RunLimits, RunOutcome, RunSpec, RunState, SandboxMode,
    SessionId, Timestamp,
};
use adj_engine::{Engine, Interrupt};
use adj_gateway::{Gateway, RetryPolicy};
use adj_squad::{RunEnd, Squad, core_agents};
use adj_workspace::{Authorship, Dirtiness, Name, Person, Repository};
use anyhow::Context;
use std::{
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

pub async fn run(args: RunArgs) -> Result<ExitCode> {
    let state = wiring::state_dir()?;
    let mut plan = prepare(&state, &args).await?;
    let Models { gateway, recorder, .. } = plan.models.take().expect("prepared once");
    let engine = wiring::engine(&state, gateway, plan.sandbox)?;
    if let Some(id) = &args.resume {
        super::budget::raise_run(&engine, id, &args.budget, &args.budget_session).await?;
    }
    let squad = Squad::new(engine.clone(), args.keep);
    let foreground = Foreground::begin(&engine, args.json, plan.sessions()).await?;
    let worked = work(&engine, &squad, &args, &plan, &foreground.interrupt).await;
    foreground.end().await;
    let closed = engine.close_all().await;
    let end = match worked {
        Ok(end) => end,
        Err(failure) if failure.hint.is_none() => {
            return Err(failure.hint(format!("`adjutant run --resume {}` goes on from here", plan.id)));
        }
        Err(failure) => return Err(failure),
    };
    closed?;
    cassettes::finish(recorder.as_ref(), finish(&engine, &args, &end).await)
}

/// What is known before there is an engine.
struct Plan {
    id: RunId,
    models: Option<Models>,
    model: ModelRef,
    sandbox: SandboxMode,
    confinement: Confinement,
    approval: ApprovalPolicy,
    prompt: String,
    folder: PathBuf,
    gate: Option<String>,
    /// The run that is resumed, which needs no more than this.
    earlier: Option<Run>,
}

impl Plan {
    /// The sessions of a run that is resumed.
    fn sessions(&self) -> impl Iterator<Item = &SessionId> {
        self.earlier.iter().flat_map(|run| run.steps.values().filter_map(|step| step.session.as_ref()))
    }
}

async fn prepare(state: &Path, args: &RunArgs) -> Result<Plan> {
    if let Some(id) = &args.resume {
        let run = wiring::read_run(state, id).await?;
        if let RunState::Finished(outcome) = &run.state {
            clear_up(state, &run, args.keep).await?;
            return Err(Failure::usage(format!("{id} is finished: {}", crate::board::outcome(outcome)))
                .hint(format!("`adjutant trace show {id}` shows what happened")));
        }
        let folder = Path::new(&run.spec.repository);
        let models = if run.spec.model == demo::model() && args.model.cassette.replay.is_none() {
            demo::models(&args.model.cassette, folder)?
        } else {
            let mut model = args.model.clone();
            model.model = Some(run.spec.model.clone());
            wiring::models(&model, &args.fallback, folder)?
        };
        return Ok(Plan {
            id: id.clone(),
            model: models.model.clone(),
            models: Some(models),
            sandbox: run.spec.sandbox,
            confinement: run.spec.confinement.clone(),
            approval: run.spec.approval,
            prompt: run.spec.prompt.clone(),
            folder: PathBuf::from(&run.spec.repository),
            gate: None,
            earlier: Some(run),
        });
    }
    let id = RunId::from_random(wiring::random()?);
    let (models, prompt, folder, gate) = if args.demo {
        // Made here, because what the demo makes below it is nobody else's business either.
        DirBuilder::new().recursive(true).mode(0o700).create(state)?;
        let folder = args.dir.clone().unwrap_or_else(|| state.join("demo").join(id.as_str()));
        demo::unpack(&folder).await?;
        (demo::models(&args.model.cassette, &folder)?, demo::PROMPT.to_owned(), folder, Some(demo::GATE.to_owned()))
    } else {
        let prompt = read_prompt(args.prompt.clone().expect("the command line demands a prompt"))?;
        let folder = args.dir.as_deref().unwrap_or(Path::new("."));
        let folder = std::path::absolute(folder).with_context(|| format!("cannot use {}", folder.display()))?;
        (wiring::models(&args.model, &args.fallback, &folder)?, prompt, folder, args.gate.clone())
    };
    let asked = Asked::of(&policy_at(&folder)?, &args.confinement)?;
    asked.check_secrets(state)?;
    Ok(Plan {
        id,
        model: models.model.clone(),
        models: Some(models),
        sandbox: asked.profile.mode,
        confinement: asked.confinement(),
        approval: confinement::approval(&asked.policy, &args.approval, has_people(args.json))?,
        prompt,
        folder,
        gate,
        earlier: None,
    })
}

/// A process that died behind a run's last event has left sandboxes and workspaces.
async fn clear_up(state: &Path, run: &Run, keep: bool) -> Result<()> {
    let engine = wiring::engine(state, Gateway::new(RetryPolicy::default()), run.spec.sandbox)?;
    Squad::new(engine, keep).work(&run.id, &Interrupt::new()).await?;
    Ok(())
}

async fn work(engine: &Engine, squad: &Squad, args: &RunArgs, plan: &Plan, interrupt: &Interrupt) -> Result<RunEnd> {
    if plan.earlier.is_none() {
        let spec = spec(engine, args, plan).await?;
        squad.create(&plan.id, spec).await?;
    }
    Ok(squad.work(&plan.id, interrupt).await?)
}

async fn spec(engine: &Engine, args: &RunArgs, plan: &Plan) -> Result<RunSpec> {
    let workspaces = engine.workspaces().await?;
    let repository = workspaces.repository(&plan.folder).await?;
    let head = repository.head().await?;
    let Some(target_branch) = head.branch.clone() else {
        return Err(Failure::usage("no branch is checked out, so there is nothing to merge onto")
            .hint("check out a branch first: git switch -c NAME"));
    };
    let run_name: Name = plan.id.as_str().parse().expect("an id is a name");
    let gate = match (&plan.gate, args.no_gate) {
        (_, true) => None,
        (Some(command), false) => Some(command.clone()),
        (None, false) => Some(find_gate(&repository)?),
    };
    let dirty = repository.dirtiness().await?;
    let started_at = Timestamp::now();
    let (base, dirty_snapshot) = match (dirty.is_clean(), args.include_dirty) {
        (true, _) => (head.commit.clone(), None),
        (false, false) => {
            return Err(Failure::usage(format!("there are uncommitted changes: {}", describe(&dirty)))
                .hint("commit or stash them, or start from them too with --include-dirty"));
        }
        (false, true) => {
            let you = Person::new("adjutant", "run@adjutant.invalid");
            let seconds = u64::try_from(started_at.as_second()).unwrap_or(0);
            let authorship = Authorship { author: you.clone(), committer: you, time_seconds: seconds };
            let message = format!("Uncommitted changes, as run {} found them\n", plan.id);
            let snapshot = workspaces.snapshot_dirty(&repository, &run_name, &message, &authorship).await?;
            (snapshot.commit, Some(snapshot.reference))
        }
    };
    repository.pin(&["runs".parse().expect("a name"), run_name], &base).await?;
    Ok(RunSpec {
        prompt: plan.prompt.clone(),
        started_at,
        repository: repository
            .root
            .to_str()
            .map(str::to_owned)
            .ok_or_else(|| Failure::usage(format!("{} is not valid UTF-8", repository.root.display())))?,
        base: base.to_string(),
        target_branch,
        target_commit: head.commit.to_string(),
        dirty_snapshot,
        gate: gate.map(|command| GateSpec { command, timeout_seconds: args.gate_timeout }),
        core: core_agents(args.max_specialists),
        limits: RunLimits { max_specialists: args.max_specialists, concurrency: args.agents, attempts: args.attempts },
        model: plan.model.clone(),
        effort: args.model.effort.clone(),
        sandbox: plan.sandbox,
        confinement: plan.confinement.clone(),
        approval: plan.approval,
        budget: args.budget.of_run(&args.budget_session),
    })
}

/// The first uncommitted paths, for an error.
fn describe(dirty: &Dirtiness) -> String {
    let kinds = [
        (&dirty.conflicted, "in conflict"),
        (&dirty.staged, "staged"),
        (&dirty.unstaged, "changed"),
        (&dirty.untracked, "new"),
    ];
    let described = kinds.into_iter().filter(|(paths, _)| paths.count > 0).map(|(paths, kind)| {
        let first = paths.first.first().map(|path| one_line(&path.display().to_string(), 60)).unwrap_or_default();
        let more = if paths.count > 1 { format!(" and {} more", paths.count - 1) } else { String::new() };
        format!("{first}{more} ({kind})")
    });
    described.collect::<Vec<_>>().join(", ")
}

/// How projects of many kinds are tested, by the file that tells.
fn find_gate(repository: &Repository) -> Result<String> {
    let root = &repository.root;
    let holds = |file: &str, part: &str| {
        std::fs::read_to_string(root.join(file)).is_ok_and(|text| text.len() < 1 << 20 && text.contains(part))
    };
    let starts =
        |file: &str, part: &str| std::fs::read_to_string(root.join(file)).is_ok_and(|text| text.starts_with(part));
    let found = [
        (root.join("test.sh").is_file(), "bash test.sh"),
        (root.join("script/test").is_file(), "bash script/test"),
        (holds("Makefile", "\ntest:") || starts("Makefile", "test:"), "make test"),
        (root.join("Cargo.toml").is_file(), "cargo test"),
        (root.join("go.mod").is_file(), "go test ./..."),
        (holds("package.json", "\"test\""), "npm test"),
        (root.join("pyproject.toml").is_file() || root.join("pytest.ini").is_file(), "python3 -m pytest"),
    ];
    let command = found.into_iter().find(|(there, _)| *there).map(|(_, command)| command.to_owned());
    command.ok_or_else(|| {
        Failure::usage("no test command was found in the repository")
            .hint("name the command that judges the work with --gate 'COMMAND', or merge unchecked with --no-gate")
    })
}

async fn finish(engine: &Engine, args: &RunArgs, end: &RunEnd) -> Result<ExitCode> {
    let report = report::Report::of(engine, &end.run).await?;
    if args.json {
        print(&format!("{}\n", serde_json::to_string(&report).expect("a report is plain data")))?;
    } else {
        print(&report.render())?;
    }
    Ok(match &end.run.state {
        RunState::Finished(RunOutcome::Landed { .. }) => ExitCode::SUCCESS,
        RunState::Finished(_) => Code::WorkFailed.into(),
        RunState::Paused(purse) => {
            return Err(super::budget::reached(purse, None, &format!("adjutant run --resume {}", end.run.id)));
        }
        RunState::Interrupted | RunState::Running => Code::Interrupted.into(),
    })
}
