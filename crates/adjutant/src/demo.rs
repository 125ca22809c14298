//! The embedded sample project, and the playbook of its scripted models.

use crate::{
    cassettes::{self, Vendors},
    cli::CassetteArgs,
    failure::{Failure, Result},
    wiring::Models,
};
use adj_domain::ModelRef;
use adj_gateway::{Gateway, RetryPolicy};
use adj_providers::{Playbook, Scripted};
use anyhow::Context;
use include_dir::{Dir, include_dir};
use std::{path::Path, process::Stdio, sync::Arc};
use tokio::process::Command;

static PROJECT: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/demo/project");
const PLAYBOOK: &str = include_str!("../demo/playbook.yaml");

pub const PROMPT: &str = "Add the commands that the README promises: month, top and help. The tests are there already.";
pub const GATE: &str = "bash test.sh";

/// The model that plays the demo; a run with it can be resumed without naming a playbook.
pub fn model() -> ModelRef {
    ModelRef { vendor: "scripted".to_owned(), name: "demo".to_owned() }
}

pub fn models(args: &CassetteArgs, folder: &Path) -> Result<Models> {
    let playbook = Playbook::parse(PLAYBOOK, "the demo's playbook").expect("the embedded playbook is valid");
    let mut vendors: Vendors = vec![("scripted".to_owned(), Arc::new(Scripted::new(playbook)))];
    let recorder = cassettes::record(args, &model(), folder, &mut vendors, &[])?;
    Ok(Models { gateway: Gateway::new(RetryPolicy::default()).with_all(vendors), model: model(), recorder })
}

/// Makes a git repository of the sample project in `folder`, which must not exist or be empty.
pub async fn unpack(folder: &Path) -> Result<()> {
    if folder.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Failure::usage(format!("{} is not empty", folder.display()))
            .hint("name a new folder with --dir, or leave it out"));
    }
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    PROJECT.extract(folder).with_context(|| format!("cannot unpack the sample project into {}", folder.display()))?;
    git(folder, &["init", "--quiet", "--initial-branch=main"]).await?;
    git(folder, &["add", "--all"]).await?;
    git(folder, &["commit", "--quiet", "--message", "tally: adds up a list of expenses"]).await
}

async fn git(folder: &Path, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("git");
    // Only what is ours: nobody's hooks, templates or signing keys.
    command.args(["-c", "user.name=Adjutant demo", "-c", "user.email=demo@adjutant.invalid"]);
    command.args(["-c", "core.hooksPath=/dev/null", "-c", "commit.gpgSign=false", "-c", "init.templateDir="]);
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        command.env_remove(variable);
    }
    let output = command.output().await.context("cannot run git")?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(anyhow::anyhow!("{said}").context(format!("git {} failed", arguments[0])).into())
}
