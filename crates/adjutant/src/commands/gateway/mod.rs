//! `adjutant gateway`: any agent on any model, through the local endpoint.

mod programs;

use self::programs::Door;
use super::{NOT_RUN, print, raise_open_files, work_folder};
use crate::{
    cassettes,
    cli::GatewayArgs,
    failure::{Failure, Result},
    wiring,
    words::{costs, count, one_line, tokens},
};
use adj_domain::{ModelRef, SandboxMode, Session, SessionId};
use adj_engine::{Engine, NewProgram};
use adj_gateway::{
    CancellationToken, Gateway,
    endpoint::{Bounds, Endpoint, HomeRoute, ServeError, Tokens},
};
use anyhow::Context;
use std::{
    ffi::OsString,
    io::{self, Write},
    net::Ipv4Addr,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{ExitCode, ExitStatus},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::TcpListener,
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
    time::Instant,
};

const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;
/// A token ends with its program; this is for one whose end nobody saw.
const TOKEN_LASTS: Duration = Duration::from_secs(30 * 24 * 3600);

pub async fn gateway(args: GatewayArgs) -> ExitCode {
    match serve(&args).await {
        Ok(code) => code,
        // Whoever reads our exit code must be able to tell the program's from ours.
        Err(failure) => {
            say(&failure.render());
            ExitCode::from(NOT_RUN)
        }
    }
}

async fn serve(args: &GatewayArgs) -> Result<ExitCode> {
    let state = wiring::state_dir()?;
    let folder = work_folder(args.cd.as_deref())?;
    let models = wiring::models(&args.model, &args.fallback, &folder)?;
    let route = wiring::home_route(&models, args.model.model.is_some());
    let gateway = Arc::new(models.gateway);
    let engine = wiring::engine(&state, Arc::clone(&gateway), SandboxMode::DangerFullAccess)?;
    let id = match &args.resume {
        Some(id) => {
            let id = wiring::read_session(&state, id).await?.id;
            crate::commands::budget::raise_session(&engine, &id, &args.budget).await?;
            id
        }
        None => create(&engine, args, models.model, &folder).await?,
    };
    let hosted = engine.host(&id).await?;
    let open = Open::begin(args.port, gateway, route, hosted.teller(), &id).await;
    let worked = match &open {
        Ok(open) if args.argv.is_empty() => open.wait().await.map(|()| 0),
        Ok(open) => run(args, &open.door, &folder, &state.join("gateway").join(id.as_str())).await,
        Err(_) => Ok(NOT_RUN.into()),
    };
    if let Ok(open) = open {
        open.end().await?;
    } else if let Err(failure) = open {
        hosted.end(NOT_RUN.into()).await?;
        return Err(failure);
    }
    let session = hosted.end(*worked.as_ref().unwrap_or(&NOT_RUN.into())).await?;
    let code = worked?;
    if !args.quiet {
        say(&summary(&session));
    }
    cassettes::finish(models.recorder.as_ref(), Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))))
}

async fn create(engine: &Engine, args: &GatewayArgs, model: ModelRef, folder: &Path) -> Result<SessionId> {
    let folder = folder.to_owned().into_os_string().into_string();
    let folder = folder.map_err(|path| Failure::usage(format!("{} is not valid UTF-8", Path::new(&path).display())))?;
    let id = SessionId::from_random(wiring::random()?);
    let argv: Vec<String> = args.argv.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let name = args.argv.first().map_or_else(|| "gateway".to_owned(), |program| programs::name(program));
    let title = (!argv.is_empty()).then(|| one_line(&argv.join(" "), 120));
    engine
        .create_hosted(&id, NewProgram { name, argv, model, folder, title, budget: args.budget.of_session() })
        .await?;
    Ok(id)
}

/// The endpoint while it is open.
struct Open {
    door: Door,
    tokens: Arc<Tokens>,
    session: SessionId,
    stop: CancellationToken,
    served: JoinHandle<std::result::Result<(), ServeError>>,
}

impl Open {
    async fn begin(
        port: Option<u16>,
        gateway: Arc<Gateway>,
        route: HomeRoute,
        teller: adj_engine::Teller,
        session: &SessionId,
    ) -> Result<Self> {
        let no_randomness = |error| anyhow::anyhow!("no randomness from the system: {error}");
        let tokens = Arc::new(Tokens::new().map_err(no_randomness)?);
        let token = tokens.issue(session.clone(), Instant::now() + TOKEN_LASTS).map_err(no_randomness)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.unwrap_or(0)));
        let listener = listener.await.map_err(|error| {
            let port = port.map_or_else(String::new, |port| format!(" on port {port}"));
            Failure::unusable(error, format_args!("cannot listen on the loopback{port}"))
        })?;
        let address = listener.local_addr().context("the endpoint has no address")?;
        let endpoint =
            Endpoint::new(gateway, Arc::clone(&tokens), Arc::new(route), Arc::new(teller), Bounds::default());
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let served = tokio::spawn(async move { endpoint.serve(listener, stopped).await });
        Ok(Self { door: Door { address, token }, tokens, session: session.clone(), stop, served })
    }

    /// Serves until somebody wants it to end.
    async fn wait(&self) -> Result<()> {
        let mut interrupts = signal(SignalKind::interrupt())?;
        let mut terminates = signal(SignalKind::terminate())?;
        raise_open_files();
        print(&self.door.exports())?;
        say(&format!("Recording into {}. Press Ctrl+C to stop\n", self.session));
        tokio::select! {
            _ = interrupts.recv() => {}
            _ = terminates.recv() => {}
        }
        Ok(())
    }

    /// Ends what is under way, and takes the token back.
    async fn end(self) -> Result<()> {
        self.tokens.revoke(&self.session);
        self.stop.cancel();
        let served = self.served.await.expect("serving does not panic");
        Ok(served.context("the endpoint ended early")?)
    }
}

/// Runs the program to its end; returns the exit code as a shell counts.
async fn run(args: &GatewayArgs, door: &Door, folder: &Path, private: &Path) -> Result<i32> {
    let (program, rest) = args.argv.split_first().expect("there is a program");
    let told = programs::told(program, door, private)?;
    let mut command = Command::new(program);
    command.args(&told.arguments).args(rest).current_dir(folder);
    for name in wiring::vendor_variables() {
        command.env_remove(name);
    }
    command.envs(told.environment.iter().map(|(name, value)| (name, value)));
    // From before the start: a signal to all of us is the program's to answer.
    let mut signals = Signals::listen()?;
    let ended = match command.spawn() {
        Ok(child) => {
            // The program has begun by now, with the limits that it was given.
            raise_open_files();
            signals.pass_on(child).await.map(code)
        }
        Err(error) => could_not(&error, program),
    };
    if let Some(files) = told.files {
        // What is left there holds no secret.
        let _ = std::fs::remove_dir_all(files);
    }
    Ok(ended.context("cannot wait for the program")?)
}

/// What is sent to us alone is the program's too; what the terminal sends, it got itself.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    quit: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn pass_on(&mut self, mut child: Child) -> io::Result<ExitStatus> {
        use rustix::process::{Pid, Signal, kill_process};
        let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let pass = |signal| {
            if let Some(pid) = pid {
                // One that has just ended needs none.
                let _ = kill_process(pid, signal);
            }
        };
        loop {
            tokio::select! {
                status = child.wait() => return status,
                _ = self.interrupt.recv() => {}
                _ = self.quit.recv() => {}
                _ = self.terminate.recv() => pass(Signal::TERM),
                _ = self.hangup.recv() => pass(Signal::HUP),
            }
        }
    }
}

fn code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1)
}

fn could_not(error: &io::Error, program: &OsString) -> io::Result<i32> {
    let name = Path::new(program).display();
    let is_missing = error.kind() == io::ErrorKind::NotFound;
    let hint = if is_missing { "is it installed, and in PATH?" } else { "it has to be a program that may be executed" };
    say(&Failure::usage(format!("cannot run {name}: {error}")).hint(hint).render());
    Ok(i32::from(if is_missing { NOT_FOUND } else { NOT_EXECUTABLE }))
}

fn summary(session: &Session) -> String {
    let usage = session.usage;
    let costs = costs(&session.costs);
    let costs = if costs.is_empty() { costs } else { format!(", {costs}") };
    format!(
        "{}: {}, {} tokens in, {} out{costs}\n`adjutant trace show {}` shows them\n",
        session.spec.agent.name,
        count(usize::try_from(session.model_requests).unwrap_or(usize::MAX), "request"),
        tokens(usage.context_tokens()),
        tokens(usage.output_tokens),
        session.id
    )
}

fn say(text: &str) {
    // When standard error is gone, there is nobody left to tell.
    let _ = write!(anstream::stderr(), "{text}");
}

/// The folder for what one program has to be told in files.
type Files = PathBuf;
