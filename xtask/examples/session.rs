//! What confinement costs in a session, and many sandboxes at once: `cargo run --release -p xtask --example session -- ROUNDS AT_ONCE`
//!
//! Prints times in microseconds as JSON. A session is what agents have: a supervisor, and in it the tools, which start the command.
#![expect(clippy::print_stdout, reason = "a measurement is printed")]

use adj_domain::{ToolOutcome, ToolRequest};
use adj_sandbox::{Command, Launcher, Mode, Mount, Plan, Supervisor, dispatch_helper};
use adj_tools::WorkerRequest;
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command as Bare, Stdio},
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

const PROGRAM: &str = "/bin/true";
/// How long each of many commands lasts, so that all of them are there at the same time.
const LASTS: &str = "0.5";

fn main() -> Result<()> {
    dispatch_helper(adj_tools::worker);
    let mut numbers = std::env::args().skip(1).map(|argument| argument.parse::<usize>());
    let mut next = || numbers.next().context("expected ROUNDS and AT_ONCE")?.context("expected a number");
    let (rounds, at_once) = (next()?, next()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(rounds, at_once))
}

async fn measure(rounds: usize, at_once: usize) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let workspace = folder.path().join("workspace");
    fs::create_dir(&workspace)?;
    let plan = Plan {
        workspace: Mount::Direct { host: workspace, inside: PathBuf::from("/workspace") },
        cwd: PathBuf::from("/workspace"),
        idle: Duration::from_secs(60),
        ..Plan::new(Mode::WorkspaceWrite)
    };
    let launcher = Launcher::current_exe()?;
    let supervisor = launcher.open(&folder.path().join("session"), &plan).await?;
    let measured = in_turn(&supervisor, &launcher, &plan, rounds).await;
    // A supervisor would outlive this program.
    supervisor.stop().await?;
    let [bare, session, one_shot] = measured?;
    let (failures, together) = all_at_once(&launcher, &plan, at_once).await;
    println!(
        "{}",
        json!({ "bare_us": bare, "session_us": session, "one_shot_us": one_shot, "at_once": at_once, "failures": failures, "together_ms": together.as_millis() })
    );
    Ok(())
}

async fn in_turn(supervisor: &Supervisor, launcher: &Launcher, plan: &Plan, rounds: usize) -> Result<[Vec<u128>; 3]> {
    let mut times = [const { Vec::new() }; 3];
    // The first rounds open the shell and warm the caches.
    const WARM: usize = 3;
    for round in 0..rounds + WARM {
        let mut spent = [Duration::ZERO; 3];
        let began = Instant::now();
        let status = Bare::new(PROGRAM).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        spent[0] = began.elapsed();
        ensure!(status.success(), "{PROGRAM} ended with {status}");

        let request = ToolRequest { name: "bash".to_owned(), input: json!({ "command": PROGRAM }) };
        let request = serde_json::to_vec(&WorkerRequest::new(request, Path::new("/workspace").to_owned()))?;
        let began = Instant::now();
        let reply = supervisor.call(&format!("e{round}"), request).await?;
        spent[1] = began.elapsed();
        let outcome: ToolOutcome = serde_json::from_slice(&reply)?;
        ensure!(
            !outcome.is_error && outcome.exit_code == Some(0),
            "the command in the session failed: {}",
            outcome.text
        );

        let began = Instant::now();
        let finished = launcher.run(plan, &Command::new([PROGRAM])).await?;
        spent[2] = began.elapsed();
        ensure!(finished.exit.is_success(), "the command in a sandbox of its own ended with {:?}", finished.exit);
        if round >= WARM {
            for (times, spent) in times.iter_mut().zip(spent) {
                times.push(spent.as_micros());
            }
        }
    }
    Ok(times)
}

/// Starts many sandboxes at the same time, and returns what became of those that failed.
async fn all_at_once(launcher: &Launcher, plan: &Plan, count: usize) -> (Vec<String>, Duration) {
    let began = Instant::now();
    let mut running = JoinSet::new();
    for _ in 0..count {
        let (launcher, plan) = (launcher.clone(), plan.clone());
        running.spawn(async move {
            match launcher.run(&plan, &Command::new(["/bin/sleep", LASTS])).await {
                Ok(finished) if finished.exit.is_success() => None,
                Ok(finished) => Some(format!("it ended with {:?}", finished.exit)),
                Err(error) => Some(format!("{:#}", anyhow::Error::new(error))),
            }
        });
    }
    let ended = running.join_all().await;
    (ended.into_iter().flatten().collect(), began.elapsed())
}
