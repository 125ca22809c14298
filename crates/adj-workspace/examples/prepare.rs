//! Measures workspaces on a repository of 10,000 files: `cargo run -p adj-workspace --example prepare [FOLDER]`

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use adj_sandbox::Launcher;
use adj_workspace::{Authorship, Layout, Name, Person, Workspaces};

fn main() {
    adj_sandbox::dispatch_helper(|_| 1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(measure());
}

#[expect(clippy::print_stdout, reason = "the numbers are the purpose")]
async fn measure() {
    let parent = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let home = tempfile::tempdir_in(parent).expect("a folder");
    let repo = home.path().join("project");
    for number in 0..10_000 {
        let path = repo.join(format!("d{}/e{}/file{number}", number % 40, number % 97));
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, format!("{number}\n").repeat(1200)).expect("written");
    }
    git(&repo, &["init", "-q", "-b", "main"]);
    git(&repo, &["add", "-A"]);
    git(&repo, &["-c", "user.name=a", "-c", "user.email=a", "commit", "-qm", "first"]);
    let launcher = Launcher::current_exe().expect("this binary");
    let workspaces = Workspaces::open(&home.path().join("state"), launcher, Layout::Overlay).await.expect("opened");
    let repository = workspaces.repository(&repo).await.expect("a repository");
    let head = repository.head().await.expect("a head").commit;
    let name = |number: usize| format!("w{number}").parse::<Name>().expect("a name");
    let start = Instant::now();
    workspaces.prepare(&repository, &head, &name(0)).await.expect("prepared");
    println!("first prepare (lays out the tree): {:?}", start.elapsed());
    let mut times = Vec::new();
    for number in 1..=40 {
        let start = Instant::now();
        workspaces.prepare(&repository, &head, &name(number)).await.expect("prepared");
        times.push(start.elapsed());
    }
    println!("further prepare, median: {:?}", median(times));
    let authorship =
        Authorship { author: Person::new("a", "a"), committer: Person::new("a", "a"), time_seconds: 1_700_000_000 };
    let workspace = workspaces.existing(&name(1)).expect("there");
    let mut plan = adj_sandbox::Plan::new(adj_sandbox::Mode::WorkspaceWrite);
    workspace.place_in(&mut plan);
    let launcher = Launcher::current_exe().expect("this binary");
    for script in
        ["git status --short | wc -l", "for n in d1/e*/*; do echo more >> $n; done", "git status --short | wc -l"]
    {
        let start = Instant::now();
        let finished = launcher.run(&plan, &adj_sandbox::Command::new(["sh", "-c", script])).await.expect("runs");
        let said = String::from_utf8_lossy(&finished.stdout).trim().to_owned();
        println!("inside, {script}: {:?} ({said})", start.elapsed());
    }
    for what in ["snapshot", "snapshot again"] {
        let start = Instant::now();
        let snapshot = workspaces.snapshot(&workspace, "m", &authorship).await.expect("a snapshot");
        println!("{what} ({} paths): {:?}", snapshot.changed.len(), start.elapsed());
    }
    let untouched = workspaces.existing(&name(2)).expect("there");
    let start = Instant::now();
    workspaces.snapshot(&untouched, "m", &authorship).await.expect("a snapshot");
    println!("snapshot of nothing: {:?}", start.elapsed());
    let start = Instant::now();
    workspaces.remove(&name(1), &authorship).await.expect("removed");
    println!("remove, changed: {:?}", start.elapsed());
    let start = Instant::now();
    workspaces.remove(&name(2), &authorship).await.expect("removed");
    println!("remove, untouched: {:?}", start.elapsed());
    let start = Instant::now();
    git(&repo, &["worktree", "add", "-q", "--detach", "../peer"]);
    println!("git worktree add, for comparison: {:?}", start.elapsed());
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn git(folder: &Path, arguments: &[&str]) {
    let status = Command::new("git").current_dir(folder).args(arguments).status().expect("git starts");
    assert!(status.success(), "git {arguments:?}");
}
