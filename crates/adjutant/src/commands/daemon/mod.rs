//! `adjutant daemon`: serves, is started, asked how it is, and stopped.

mod log;
mod serve;
mod unit;

use super::print;
use crate::{
    cli::{DaemonArgs, DaemonCommand, ServeArgs},
    failure::{Code, Failure, Result},
    wiring,
    words::count,
};
use adj_client::{Client, ClientError, Place, StartError};
use adj_domain::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{path::Path, process::ExitCode, time::Duration};
use tokio::time::{Instant, sleep};

/// How long a daemon may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one that was told to stop may take, after its time of grace.
const GONE: Duration = Duration::from_secs(30);
const BETWEEN: Duration = Duration::from_millis(10);

pub async fn daemon(args: DaemonArgs) -> Result<ExitCode> {
    let state = wiring::state_dir()?;
    let place = Place::new(wiring::daemon_folder(&state));
    match args.command {
        None if args.print_unit => print(&unit::unit(&unit::Facts::of_this_process(&args.serve)?))?,
        None => return serve::serve(&state, &args.serve, args.detached).await,
        Some(DaemonCommand::Start { serve }) => start(&state, &place, &serve).await?,
        Some(DaemonCommand::Status { json }) => return status(&state, &place, json).await,
        Some(DaemonCommand::Stop) => stop(&state, &place).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn start(state: &Path, place: &Place, serve: &ServeArgs) -> Result<()> {
    let was_there = place.is_held();
    let client = Client::connect_or_start(place, &wiring::daemon_start(state, serve.words())?).await;
    let client = client.map_err(|error| not_started(error, place))?;
    let told = client.get("/admin/status").await.map_err(|error| unanswered(error, place))?;
    let told = Told::read(&told)?;
    print(&format!("{}\n{}", if was_there { "A daemon runs already" } else { "Started" }, told.shown()))
}

fn not_started(error: StartError, place: &Place) -> Failure {
    match error {
        StartError::Client(error) => unanswered(error, place),
        error => Failure { code: Code::WorkFailed, error: error.into(), hint: None },
    }
}

/// The words for a daemon that is there and does not do what it should.
fn unanswered(error: ClientError, place: &Place) -> Failure {
    let hint = match place.holder() {
        Some(holder) => format!("process {} is the daemon; `kill {}` ends it", holder.pid, holder.pid),
        None => "`adjutant daemon start` starts one".to_owned(),
    };
    Failure { code: Code::WorkFailed, error: error.into(), hint: Some(hint) }
}

async fn status(state: &Path, place: &Place, json: bool) -> Result<ExitCode> {
    if !place.is_held() {
        print(&if json {
            format!("{}\n", json!({"running": false, "state": state}))
        } else {
            format!("No daemon runs for {}\n", state.display())
        })?;
        return Ok(Code::WorkFailed.into());
    }
    let client = Client::new(place).with_patience(PATIENCE);
    let mut told = client.get("/admin/status").await.map_err(|error| unanswered(error, place))?;
    if json {
        told["running"] = Value::Bool(true);
        print(&format!("{told}\n"))?;
    } else {
        print(&Told::read(&told)?.shown())?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn stop(state: &Path, place: &Place) -> Result<()> {
    if !place.is_held() {
        return print(&format!("No daemon runs for {}\n", state.display()));
    }
    let holder = place.holder();
    let client = Client::new(place).with_patience(PATIENCE);
    let told = match client.post("/admin/stop", &json!({})).await {
        Ok(told) => Some(Told::read(&told)?),
        // It has closed its door, and ends.
        Err(ClientError::NoDaemon { .. } | ClientError::Broken { .. }) => None,
        Err(error) => return Err(unanswered(error, place)),
    };
    let patience = told.as_ref().map_or(Duration::ZERO, |told| Duration::from_secs(told.grace_seconds)) + GONE;
    let deadline = Instant::now() + patience;
    // Somebody may have started the next one by then.
    let is_there = || place.is_held() && (holder.is_none() || place.holder() == holder);
    while is_there() {
        if Instant::now() >= deadline {
            let failure =
                Failure::new(Code::WorkFailed, format!("the daemon is not gone after {} s", patience.as_secs()));
            return Err(match holder {
                Some(holder) => failure.hint(format!("`kill -9 {}` ends it at once", holder.pid)),
                None => failure,
            });
        }
        sleep(BETWEEN).await;
    }
    print(&told.map_or_else(|| "Stopped\n".to_owned(), |told| format!("Stopped process {}\n", told.pid)))
}

/// What a daemon says of itself.
#[derive(Deserialize)]
struct Told {
    pid: u32,
    version: String,
    started_at: Timestamp,
    socket: String,
    addresses: Vec<String>,
    connections: usize,
    requests: usize,
    grace_seconds: u64,
}

impl Told {
    fn read(document: &Value) -> Result<Self> {
        Self::deserialize(document)
            .map_err(|error| anyhow::Error::new(error).context("the daemon says something else than expected").into())
    }

    fn shown(&self) -> String {
        let addresses = if self.addresses.is_empty() { "no address".to_owned() } else { self.addresses.join(", ") };
        format!(
            "process   {}, version {}, since {}\nsocket    {}\nlistens   {addresses}\nload      {}, {} so far\n",
            self.pid,
            self.version,
            super::when(self.started_at),
            self.socket,
            count(self.connections, "connection"),
            count(self.requests, "request"),
        )
    }
}
