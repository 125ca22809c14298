//! `adjutant exec`: one agent, one session, in the foreground.

use super::{print_theirs, read_prompt};
use crate::{
    board,
    cli::ExecArgs,
    failure::{Code, Failure, Result},
    interrupt,
    screen::{self, Show},
    wiring,
    words::one_line,
};
use adj_domain::{
    AgentDefinition, ApprovalPolicy, Confinement, Content, EventId, IdleReason, ModelRef, PendingInput, Session,
    SessionId, Status, WorkspaceSpec, event::Input,
};
use adj_engine::{Engine, Interrupt, NewSession, ToolName, TurnEnd, default_agent, tool_specs};
use anyhow::Context;
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};
use tokio_util::sync::CancellationToken;

pub async fn exec(args: ExecArgs) -> Result<ExitCode> {
    let schema = args.output_schema.as_deref().map(load_schema).transpose()?;
    let prompt = args.prompt.clone().map(read_prompt).transpose()?;
    let state = wiring::state_dir()?;
    let mut model_args = args.model.clone();
    let earlier = match &args.resume {
        Some(id) => {
            let session = wiring::read_session(&state, id).await?;
            model_args.model = Some(session.spec.agent.model.clone());
            Some(session)
        }
        None => None,
    };
    let models = wiring::models(&model_args)?;
    let sandbox = earlier.as_ref().map_or(args.sandbox, |session| session.spec.sandbox);
    let engine = wiring::engine(&state, models.gateway, sandbox)?;
    let interrupt = Interrupt::new();
    interrupt::listen(&engine, &interrupt)?;
    let stop = CancellationToken::new();
    let how = if args.json { Show::Json } else { Show::People };
    let shown = tokio::spawn(screen::show(engine.subscribe(), how, stop.clone()));
    let worked = async {
        let (id, goes_on) = match earlier {
            Some(session) => {
                let goes_on = left_off(&engine, &session).await?;
                (session.id, goes_on)
            }
            None => (create(&engine, &args, models.model).await?, None),
        };
        // Before anything is queued: a session that another process holds would be told by us and worked on by it.
        engine.check_free(&id).await?;
        if let Some(text) = prompt.or(goes_on) {
            let input = Input::Message { content: vec![Content::text(text)], output_schema: schema };
            engine.send(&id, &PendingInput { id: EventId::from_random(wiring::random()?), input }).await?;
        }
        let end = engine.work(&id, &interrupt).await?;
        Ok::<_, Failure>((id, end))
    };
    let worked = worked.await;
    let closed = match &worked {
        // Also where this process called no tool: an earlier one may have left the sandbox open.
        Ok((id, _)) => engine.close(id).await,
        Err(_) => engine.close_all().await,
    };
    stop.cancel();
    shown.await.expect("showing events does not panic");
    let (id, end) = worked?;
    closed?;
    finish(&engine, &args, &id, &end).await
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
        | IdleReason::RequiresAction { .. } => return Ok(None),
    };
    let waits = !engine.store().pending(&session.id.clone().into()).await?.is_empty();
    Ok((!waits).then(|| format!("{why} Go on from where you stopped.")))
}

async fn create(engine: &Engine, args: &ExecArgs, model: ModelRef) -> Result<SessionId> {
    let folder = folder(args.cd.as_deref())?;
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
        sandbox: args.sandbox,
        confinement: Confinement::default(),
        approval: ApprovalPolicy::Never,
        check: None,
        run: None,
        title,
    };
    engine.create(&id, new).await?;
    Ok(id)
}

fn folder(cd: Option<&Path>) -> Result<String> {
    let folder = cd.unwrap_or(Path::new("."));
    let path = folder.canonicalize().with_context(|| format!("cannot work in {}", folder.display()));
    let path = path.map_err(|error| Failure { code: Code::Usage, error, hint: None })?;
    if !path.is_dir() {
        return Err(Failure::usage(format!("{} is not a folder", path.display())));
    }
    let system = ["/", "/bin", "/dev", "/etc", "/lib", "/proc", "/sbin", "/sys", "/tmp", "/usr", "/var"];
    if system.iter().any(|folder| path == Path::new(folder))
        || std::env::var_os("HOME").is_some_and(|home| Path::new(&home) == path)
    {
        return Err(Failure::usage(format!("{} is too much for an agent to work in", path.display()))
            .hint("name a project's folder with --cd"));
    }
    let text = PathBuf::into_os_string(path).into_string();
    text.map_err(|path| Failure::usage(format!("{} is not valid UTF-8", path.display())))
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
