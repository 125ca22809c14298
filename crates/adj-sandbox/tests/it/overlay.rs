//! Workspaces over a shared tree: private, and the tree below never changes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use adj_sandbox::{Command, Finished, Launcher, Mode, Mount, Plan};

use crate::stage::{repository, text};

struct Layers {
    folder: tempfile::TempDir,
    launcher: Launcher,
}

impl Drop for Layers {
    fn drop(&mut self) {
        for name in ["a", "b"] {
            let inner = self.folder.path().join(format!("{name}-work/work"));
            let _ = fs::set_permissions(inner, fs::Permissions::from_mode(0o700));
        }
    }
}

impl Layers {
    fn new() -> Layers {
        let folder = tempfile::tempdir().expect("a folder");
        let lower = folder.path().join("lower");
        repository(&lower);
        fs::write(lower.join("file.txt"), "original\n").expect("a file");
        fs::create_dir(lower.join("folder")).expect("a folder");
        fs::write(lower.join("folder/inner"), "inner\n").expect("a file");
        for name in ["a-upper", "a-work", "b-upper", "b-work"] {
            fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        Layers { folder, launcher: Launcher::current_exe().expect("our own program") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn run(&self, name: &str, mode: Mode, script: &str) -> Finished {
        let mut plan = Plan::new(mode);
        plan.workspace = Mount::Overlay {
            lower: self.path("lower"),
            upper: self.path(&format!("{name}-upper")),
            work: self.path(&format!("{name}-work")),
            inside: "/workspace".into(),
        };
        plan.cwd = "/workspace".into();
        self.launcher.run(&plan, &Command::new(["bash", "-c", script])).await.expect("a sandbox")
    }
}

/// Every path with its mode and content.
fn contents(folder: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut all = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            let metadata = fs::symlink_metadata(entry.path()).expect("metadata");
            let bytes = if metadata.is_dir() {
                folders.push(entry.path());
                Vec::new()
            } else if metadata.is_file() {
                fs::read(entry.path()).expect("a file")
            } else {
                // A removed file is a device node that cannot be opened.
                Vec::new()
            };
            all.insert(entry.path(), (metadata.permissions().mode(), bytes));
        }
    }
    all
}

#[tokio::test]
async fn two_over_one_tree_see_nothing_of_each_other() {
    let layers = Layers::new();
    let before = contents(&layers.path("lower"));
    let change = "echo changed > file.txt; rm folder/inner; mkdir new; echo hook > .git/hooks/pre-push; chmod 600 file.txt; mv folder moved; cat file.txt";
    let finished = layers.run("a", Mode::WorkspaceWrite, change).await;
    assert_eq!(text(&finished.stdout), "changed\n", "{}", text(&finished.stderr));
    assert_eq!(contents(&layers.path("lower")), before, "the shared tree is as it was");

    let look = "cat file.txt folder/inner; ls; ls .git/hooks";
    let finished = layers.run("b", Mode::WorkspaceWrite, look).await;
    assert_eq!(text(&finished.stdout), "original\ninner\nfile.txt\nfolder\n");
    // The next command of the same workspace finds what the one before left, and so does a read-only look at it.
    for mode in [Mode::WorkspaceWrite, Mode::ReadOnly] {
        let finished = layers.run("a", mode, "cat file.txt; ls; ls .git/hooks").await;
        assert_eq!(text(&finished.stdout), "changed\nfile.txt\nmoved\nnew\npre-push\n", "{mode}");
    }
    let before = contents(&layers.path("a-upper"));
    let finished =
        layers.run("a", Mode::ReadOnly, "echo x > file.txt || echo refused; rm file.txt || echo refused").await;
    assert_eq!(text(&finished.stdout), "refused\nrefused\n");
    assert_eq!(contents(&layers.path("a-upper")), before);
}

#[tokio::test]
async fn nothing_of_the_host_shows_in_its_mounts() {
    let layers = Layers::new();
    let finished = layers.run("a", Mode::WorkspaceWrite, "grep overlay /proc/self/mountinfo").await;
    let host = layers.folder.path().to_str().expect("plain").to_owned();
    assert!(!text(&finished.stdout).contains(&host), "{}", text(&finished.stdout));
    assert!(text(&finished.stdout).contains("/workspace"));
}
