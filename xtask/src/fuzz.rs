//! Fuzzes what reads strangers' bytes, with cargo-fuzz on a nightly toolchain.

use crate::{command::Invocation, repository::Repository};
use anyhow::{Context, Result, ensure};
use clap::Args;
use std::fs;

#[derive(Debug, Args)]
pub struct Arguments {
    /// The targets to fuzz; all of them when none is named
    targets: Vec<String>,
    /// How long to fuzz each target
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u32,
    /// Name the targets
    #[arg(long)]
    list: bool,
}

/// Fuzzes each target in turn and returns whether none of them found anything.
pub fn run(repository: &Repository, arguments: Arguments) -> Result<bool> {
    let known = targets(repository)?;
    if arguments.list {
        known.iter().for_each(|name| println!("{name}"));
        return Ok(true);
    }
    for name in &arguments.targets {
        ensure!(known.contains(name), "there is no fuzz target {name}; there are {}", known.join(", "));
    }
    let inherited = std::env::var_os("PATH").unwrap_or_default();
    let installed = repository.target().join("tools/bin");
    let path = std::env::join_paths(std::env::split_paths(&inherited).chain([installed]))?;
    let cargo = || {
        Invocation::new("cargo", &repository.root)
            .env("RUSTUP_TOOLCHAIN", "nightly")
            .env("PATH", &path)
            .without_env("CARGO")
    };
    cargo()
        .args(["fuzz", "--version"])
        .output()
        .context("fuzzing needs a nightly toolchain and cargo-fuzz: `rustup toolchain install nightly` and `cargo install --locked --root target/tools cargo-fuzz`")?;

    let chosen = if arguments.targets.is_empty() { known } else { arguments.targets };
    let mut failed = Vec::new();
    for name in &chosen {
        let corpus = repository.root.join("fuzz/corpus").join(name);
        fs::create_dir_all(&corpus).with_context(|| format!("cannot make {}", corpus.display()))?;
        let seeds = repository.root.join("fuzz/seeds").join(name);
        let done = cargo()
            .args(["fuzz", "run", name])
            .args([corpus, seeds])
            .args(["--", &format!("-max_total_time={}", arguments.seconds), "-timeout=10", "-rss_limit_mb=2048"])
            .succeeds()?;
        if !done {
            failed.push(name.as_str());
        }
    }
    if failed.is_empty() {
        eprintln!("{} fuzzed for {} s each, nothing found", chosen.join(", "), arguments.seconds);
    } else {
        eprintln!(
            "found by {}; the input lies in fuzz/artifacts, and belongs into fuzz/seeds once it is mended",
            failed.join(", ")
        );
    }
    Ok(failed.is_empty())
}

/// Lists the targets: each is a file that cargo-fuzz builds.
fn targets(repository: &Repository) -> Result<Vec<String>> {
    let folder = repository.root.join("fuzz/fuzz_targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        names.extend(name.strip_suffix(".rs").map(str::to_owned));
    }
    names.sort();
    Ok(names)
}
