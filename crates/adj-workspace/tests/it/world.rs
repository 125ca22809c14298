//! A user's repository and a state folder, alone in a temporary home.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use adj_sandbox::{Command, Launcher, Mode, Plan};
use adj_workspace::{Authorship, CommitId, Layout, Name, Person, Repository, Workspace, Workspaces};

pub struct World {
    pub home: tempfile::TempDir,
    pub repo: PathBuf,
    pub workspaces: Workspaces,
}

pub fn name(text: &str) -> Name {
    text.parse().expect("a good name")
}

pub fn authorship() -> Authorship {
    Authorship {
        author: Person::new("builder", "builder@adjutant.invalid"),
        committer: Person::new("Adjutant", "adjutant@adjutant.invalid"),
        time_seconds: 1_700_000_000,
    }
}

impl World {
    /// One commit with a few files of different kinds.
    pub async fn new() -> Self {
        Self::with_layout(Layout::Overlay).await
    }

    pub async fn with_layout(layout: Layout) -> Self {
        let home = tempfile::tempdir().expect("a temporary folder");
        let repo = home.path().join("project");
        fs::create_dir(&repo).expect("made");
        let workspaces = open(home.path(), layout).await;
        let world = Self { home, repo, workspaces };
        world.git(&["init", "-q", "-b", "main"]);
        world.write("README", "hello\n");
        world.write("src/main.txt", "one\ntwo\nthree\n");
        world.write("src/deep/er/file", "deep\n");
        world.write(".gitignore", "ignored\n*.log\n");
        world.write("run.sh", "#!/bin/sh\necho run\n");
        fs::set_permissions(repo_file(&world.repo, "run.sh"), executable()).expect("set");
        std::os::unix::fs::symlink("README", world.repo.join("link")).expect("linked");
        world.commit("first");
        world
    }

    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.repo.join(path);
        fs::create_dir_all(path.parent().expect("inside the repository")).expect("made");
        fs::write(path, content).expect("written");
    }

    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.repo.join(path)).expect("readable")
    }

    pub fn git(&self, arguments: &[&str]) -> String {
        git_in(self.home.path(), &self.repo, arguments)
    }

    pub fn commit(&self, message: &str) -> CommitId {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
        self.head()
    }

    pub fn head(&self) -> CommitId {
        self.git(&["rev-parse", "HEAD"]).parse().expect("an id")
    }

    pub async fn repository(&self) -> Repository {
        self.workspaces.repository(&self.repo).await.expect("a good repository")
    }

    pub async fn prepare(&self, text: &str) -> Workspace {
        let repository = self.repository().await;
        self.workspaces.prepare(&repository, &self.head(), &name(text)).await.expect("prepared")
    }

    /// A git command in our store.
    pub async fn store(&self, arguments: &[&str]) -> String {
        let store = self.workspaces.store_path(&self.repository().await);
        let git_dir = format!("--git-dir={}", store.display());
        git_in(self.home.path(), self.home.path(), &[&[git_dir.as_str()], arguments].concat())
    }

    /// A result on top of `base`, made by a workspace in which `script` ran.
    pub async fn result(&self, workspace: &str, script: &str) -> CommitId {
        let workspace = self.prepare(workspace).await;
        agent(&workspace, script).await;
        self.workspaces.snapshot(&workspace, "work", &authorship()).await.expect("a snapshot").commit
    }

    pub fn marker(&self) -> PathBuf {
        self.home.path().join("PLANTED-CODE-RAN")
    }
}

pub async fn open(home: &Path, layout: Layout) -> Workspaces {
    let launcher = Launcher::current_exe().expect("this binary");
    let environment = environment(home);
    Workspaces::open_with(&home.join("state"), launcher, layout, environment).await.expect("opened")
}

fn environment(home: &Path) -> Vec<(OsString, OsString)> {
    let text = |text: &str| OsString::from(text);
    vec![
        (text("PATH"), std::env::var_os("PATH").expect("a PATH")),
        (text("HOME"), home.into()),
        (text("GIT_CONFIG_NOSYSTEM"), text("1")),
    ]
}

pub fn executable() -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o755)
}

fn repo_file(repo: &Path, path: &str) -> PathBuf {
    repo.join(path)
}

/// A person's own git, hooks and all.
pub fn try_git(home: &Path, folder: &Path, arguments: &[&str]) -> Output {
    let mut command = std::process::Command::new("git");
    command.env_clear().envs(environment(home)).current_dir(folder);
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "user").env(format!("GIT_{who}_EMAIL"), "user@example.invalid");
        command.env(format!("GIT_{who}_DATE"), "@1600000000 +0000");
    }
    command.args(["-c", "protocol.file.allow=always"]).args(arguments).output().expect("git starts")
}

pub fn git_in(home: &Path, folder: &Path, arguments: &[&str]) -> String {
    let output = try_git(home, folder, arguments);
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned()
}

pub fn plan(workspace: &Workspace) -> Plan {
    let mut plan = Plan::new(Mode::WorkspaceWrite);
    workspace.place_in(&mut plan);
    plan
}

/// What an agent does: a script in its sandbox. It must succeed.
pub async fn agent(workspace: &Workspace, script: &str) -> String {
    let launcher = Launcher::current_exe().expect("this binary");
    let command = Command::new(["bash", "-euc", script]);
    let finished = launcher.run(&plan(workspace), &command).await.expect("the sandbox works");
    let stderr = String::from_utf8_lossy(&finished.stderr);
    assert!(finished.exit.is_success(), "{script}: {:?} {stderr}", finished.exit);
    String::from_utf8_lossy(&finished.stdout).trim_end_matches('\n').to_owned()
}

/// Every path below `root` with its kind and content, for comparing trees.
pub fn tree(root: &Path) -> Vec<(Vec<u8>, String, Vec<u8>)> {
    use std::os::unix::fs::PermissionsExt;
    let mut found = Vec::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(&folder).expect("readable") {
            let path = entry.expect("readable").path();
            let meta = path.symlink_metadata().expect("there");
            let relative = path.strip_prefix(root).expect("below").as_os_str().as_bytes().to_owned();
            if meta.is_dir() {
                waiting.push(path);
            } else if meta.is_symlink() {
                let target = fs::read_link(&path).expect("a link");
                found.push((relative, "link".to_owned(), target.as_os_str().as_bytes().to_owned()));
            } else {
                let kind = format!("{:o}", meta.permissions().mode() & 0o111);
                found.push((relative, kind, fs::read(&path).expect("readable")));
            }
        }
    }
    found.sort();
    found
}

/// The paths of a commit, as git lists them.
pub async fn paths(world: &World, revision: &str) -> Vec<String> {
    let list = world.store(&["ls-tree", "-r", "-z", "--name-only", revision]).await;
    list.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect()
}

pub fn os(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}
