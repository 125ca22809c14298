//! `adjutant exec`: one agent, one session, in the foreground.

use super::{print_theirs, read_prompt, work_folder};
use crate::{
    board, cassettes,
    cli::ExecArgs,
    confinement::{self, Asked, policy_at},
    failure::{Code, Failure, Result},
    foreground::{Foreground, has_people},
    questions, wiring,
    words::one_line,
};
use adj_domain::{
    AgentDefinition, ApprovalPolicy, Content, EventId, IdleReason, ModelRef, PendingInput, Session, SessionId, Status,
    WorkspaceSpec, event::Input,
};
use adj_engine::{Engine, NewSession, ToolName, TurnEnd, default_agent, tool_specs};
use anyhow::Context;
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

/// What is worked on.
enum Work {
    Earlier(Box<Session>),
    New { folder: PathBuf, asked: Box<Asked>, approval: ApprovalPolicy },
}

pub async fn exec(args: ExecArgs) -> Result<ExitCode> {
    let schema = args.output_schema.as_deref().map(load_schema).transpose()?;
    let prompt = args.prompt.clone().map(read_prompt).transpose()?;
    let state = wiring::state_dir()?;
    let mut model_args = args.model.clone();
    let work = match &args.resume {
        Some(id) => {
            let session = wiring::read_session(&state, id).await?;
            model_args.model = Some(session.spec.agent.model.clone());
            Work::Earlier(Box::new(session))
        }
        None => {
            let folder = work_folder(args.cd.as_deref())?;
            let asked = Box::new(Asked::of(&policy_at(&folder)?, &args.confinement)?);
            let approval = confinement::approval(&asked.policy, &args.approval, has_people(args.json))?;
            Work::New { folder, asked, approval }
        }
    };
    let folder = match &work {
        Work::Earlier(session) => match &session.spec.workspace {
            WorkspaceSpec::Direct { path } => Path::new(path),
            WorkspaceSpec::Private { repository, .. } => Path::new(repository),
        },
        Work::New { folder, .. } => folder.as_path(),
    };
    let models = wiring::models(&model_args, &args.fallback, folder)?;
    let (sandbox, earlier) = match &work {
        Work::Earlier(session) => (session.spec.sandbox, Some(session.id.clone())),
        Work::New { asked, .. } => {
            asked.check_secrets(&state)?;
            (asked.profile.mode, None)
        }
    };
    let engine = wiring::engine(&state, models.gateway, sandbox)?;
    let foreground = Foreground::begin(&engine, args.json, &earlier).await?;
    let worked = async {
        let (id, goes_on) = match work {
            Work::Earlier(session) => {
                super::budget::raise_session(&engine, &session.id, &args.budget).await?;
                let goes_on = left_off(&engine, &session).await?;
                (session.id, goes_on)
            }
            Work::New { folder, asked, approval } => {
                (create(&engine, &args, models.model, folder, &asked, approval).await?, None)
            }
        };
        // Before anything is queued: a session that another process holds would be told by us and worked on by it.
        engine.check_free(&id).await?;
        if let Some(text) = prompt.or(goes_on) {
            let input = Input::Message { content: vec![Content::text(text)], output_schema: schema };
            engine.send(&id, &PendingInput { id: EventId::from_random(wiring::random()?), input }).await?;
        }
        let end = match foreground.asks() {
            true => engine.work_with_people(&id, &foreground.interrupt).await?,
            false => engine.work(&id, &foreground.interrupt).await?,
        };
        Ok::<_, Failure>((id, end))
    };
    let worked = worked.await;
    let closed = match &worked {
        // Also where this process called no tool: an earlier one may have left the sandbox open.
        Ok((id, _)) => engine.close(id).await,
        Err(_) => engine.close_all().await,
    };
    foreground.end().await;
    let (id, end) = worked?;
    closed?;
    cassettes::finish(models.recorder.as_ref(), finish(&engine, &args, &id, &end).await)
}

/// What an agent is told that stopped before its turn was done, when nobody has anything else to say.
async fn left_off(engine: &Engine, session: &Session) -> Result<Option<String>> {
    let Status::Idle { reason: Some(reason) } = &session.status else { return Ok(None) };
    let why = match reason {
        IdleReason::Interrupted => "You were interrupted.",
        IdleReason::RetriesExhausted | IdleReason::MaxTokens | IdleReason::StepLimit => "Your turn ended early.",
        IdleReason::EndTurn
        | IdleReason::Refusal
        | IdleReason::OutputInvalid { .. }
        | IdleReason::BudgetReached { .. }
        | IdleReason::RequiresAction { .. } => return Ok(None),
    };
    let waits = !engine.store().pending(&session.id.clone().into()).await?.is_empty();
    Ok((!waits).then(|| format!("{why} Go on from where you stopped.")))
}

async fn create(
    engine: &Engine,
    args: &ExecArgs,
    model: ModelRef,
    folder: PathBuf,
    asked: &Asked,
    approval: ApprovalPolicy,
) -> Result<SessionId> {
    let text = PathBuf::into_os_string(folder).into_string();
    let folder = text.map_err(|path| Failure::usage(format!("{} is not valid UTF-8", Path::new(&path).display())))?;
    let id = SessionId::from_random(wiring::random()?);
    let title = args.prompt.as_deref().filter(|prompt| *prompt != "-").map(|prompt| one_line(prompt, 120));
    let new = NewSession {
        agent: AgentDefinition {
            tools: tool_specs(&ToolName::ALL),
            effort: args.model.effort.clone(),
            max_steps: args.max_steps,
            ..default_agent(&model)
        },
        workspace: WorkspaceSpec::Direct { path: folder },
        sandbox: asked.profile.mode,
        confinement: asked.confinement(),
        approval,
        check: None,
        budget: args.budget.of_session(),
        run: None,
        title,
    };
    engine.create(&id, new).await?;
    Ok(id)
}

fn load_schema(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::unusable(error, format_args!("cannot read the schema {}", path.display())))?;
    let schema: Value = serde_json::from_str(&text)
        .map_err(|error| Failure::unusable(error, format_args!("the schema {} is not JSON", path.display())))?;
    let _fits = adj_harness::check_output(&schema, "null")
        .map_err(|error| Failure::usage(format!("the schema {} is {error}", path.display())))?;
    Ok(schema)
}

async fn finish(engine: &Engine, args: &ExecArgs, id: &SessionId, end: &TurnEnd) -> Result<ExitCode> {
    let message = end.last_message.as_deref().unwrap_or_default();
    if let Some(path) = &args.last_message {
        std::fs::write(path, message)
            .with_context(|| format!("cannot write the last message to {}", path.display()))?;
    }
    if !args.json && !message.is_empty() {
        print_theirs(&format!("{}\n", message.trim_end()))?;
    }
    let again =
        format!("`adjutant exec --resume {id}` goes on from here; `adjutant trace show {id}` shows what happened");
    match &end.reason {
        Some(IdleReason::EndTurn) => Ok(ExitCode::SUCCESS),
        None => Err(Failure::usage(format!("the session {id} has not been told anything yet"))
            .hint(format!("say what is to be done: adjutant exec --resume {id} \"PROMPT\""))),
        Some(IdleReason::RequiresAction { .. }) => Err(waiting(engine, id).await?),
        Some(IdleReason::BudgetReached { purse }) => {
            let refusal = engine.last_refusal(id).await?;
            Err(super::budget::reached(purse, refusal.as_ref(), &format!("adjutant exec --resume {id}")))
        }
        Some(IdleReason::RetriesExhausted) => {
            let why = engine.last_error(id).await?.unwrap_or_else(|| "the model could not be called".to_owned());
            Err(Failure::new(Code::WorkFailed, why).hint(again))
        }
        Some(reason) => {
            let code = match reason {
                IdleReason::OutputInvalid { .. } => Code::OutputInvalid,
                IdleReason::Interrupted => Code::Interrupted,
                _ => Code::WorkFailed,
            };
            Err(Failure::new(code, board::idle(reason)).hint(again))
        }
    }
}

/// Who waits for which answer, and how to give it.
async fn waiting(engine: &Engine, id: &SessionId) -> Result<Failure> {
    let open = questions::of_session(engine.store().as_ref(), id, None).await?;
    let calls: Vec<String> =
        open.iter().map(|question| format!("{} ({})", question.about.short(), question.id)).collect();
    let first = open.first().map_or_else(|| "ID".to_owned(), |question| question.id.to_string());
    Ok(Failure::new(Code::Waiting, format!("waiting for an approval: {}", calls.join(", "))).hint(format!(
        "`adjutant approvals show {first}` says what is asked and why; answer with `adjutant approvals allow {first}` or\n  \
         `adjutant approvals deny {first}`, then go on with `adjutant exec --resume {id}`"
    )))
}
