//! Running a check on exactly one tree, and writing down what it said.

use crate::runner::SquadError;
use adj_domain::{EventId, GateSubject, Receipt, Run};
use adj_engine::Engine;
use adj_sandbox::{Command, Exit};
use adj_workspace::{Authorship, CommitId, Person, Repository};
use std::{path::Path, time::Duration};

/// What a gate is asked.
pub(crate) struct GateRequest {
    pub subject: GateSubject,
    pub commit: CommitId,
    pub tree: String,
    pub command: String,
}

/// Output that is kept of a check; the middle of more is dropped.
const KEEP_BYTES: usize = 4 << 20;
/// The end of the output that people and the next attempt are shown.
const TAIL_CHARS: usize = 4000;

/// Runs a check in a throw-away workspace that shows exactly the commit. Safe to repeat.
pub(crate) async fn run(
    engine: &Engine,
    run: &Run,
    repository: &Repository,
    gate: &GateRequest,
) -> Result<Receipt, SquadError> {
    let workspaces = engine.workspaces().await?;
    let spec = &run.spec;
    let unique = EventId::derive(&[run.id.as_str(), &gate.subject.to_string(), gate.commit.as_str()]);
    let name = format!("gate-{}", unique.as_str().trim_start_matches("sevt_")).parse()?;
    let nobody = Authorship { author: by(), committer: by(), time_seconds: 0 };
    // A check that a dead process had begun starts over on a clean tree.
    if workspaces.existing(&name).is_ok() {
        workspaces.remove(&name, &nobody).await?;
    }
    let workspace = workspaces.prepare_check(repository, &gate.commit, &name).await?;
    let timeout = Duration::from_secs(spec.gate.as_ref().map_or(600, |gate| gate.timeout_seconds));
    let mut plan = engine.check_plan(Path::new(&spec.repository), spec.sandbox, &spec.confinement, timeout)?;
    workspace.place_in(&mut plan);
    let mut command = Command::new(["/bin/bash", "-c", &gate.command]);
    command.merge_stderr = true;
    command.timeout = plan.limits.wall;
    command.keep_output_bytes = KEEP_BYTES;
    let finished = engine.launcher().run(&plan, &command).await;
    let removed = workspaces.remove(&name, &nobody).await;
    let finished = finished?;
    removed?;
    let output = engine.store().put_blob(&finished.stdout).await?;
    let text = String::from_utf8_lossy(&finished.stdout);
    let mut tail = last_chars(text.trim_end(), TAIL_CHARS).to_owned();
    match finished.exit {
        Exit::Code(_) => {}
        other => match other.reached(&plan.limits) {
            Some(reached) => tail.push_str(&format!("\n[ended: {reached}]")),
            None => tail.push_str(&format!("\n[{other:?}]")),
        },
    }
    Ok(Receipt {
        tree: gate.tree.clone(),
        command: gate.command.clone(),
        exit_code: if let Exit::Code(code) = finished.exit { Some(code) } else { None },
        passed: finished.exit.is_success(),
        duration_ms: finished.duration.as_millis() as u64,
        output,
        tail,
    })
}

fn by() -> Person {
    Person::new("adjutant", "gate@adjutant.invalid")
}

fn last_chars(text: &str, count: usize) -> &str {
    let start = text.char_indices().rev().nth(count.saturating_sub(1)).map_or(0, |(index, _)| index);
    &text[start..]
}
