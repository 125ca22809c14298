//! Small git repositories, the same on every machine.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};
use tempfile::TempDir;

/// No configuration but the repository's own, and commits that are the same whenever they are made.
pub(crate) const ENVIRONMENT: [(&str, &str); 9] = [
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_AUTHOR_NAME", "Test"),
    ("GIT_AUTHOR_EMAIL", "test@example.invalid"),
    ("GIT_AUTHOR_DATE", "2026-01-02T03:04:05Z"),
    ("GIT_COMMITTER_NAME", "Test"),
    ("GIT_COMMITTER_EMAIL", "test@example.invalid"),
    ("GIT_COMMITTER_DATE", "2026-01-02T03:04:05Z"),
];

/// A temporary repository with a branch `main`; gone when it is dropped.
#[derive(Debug)]
pub struct GitRepository {
    dir: TempDir,
}

/// Makes a repository with these files in its first commit.
pub fn git_repository(files: &[(&str, &str)]) -> GitRepository {
    let dir = TempDir::with_prefix("adj-repo-").expect("a temporary directory can be made");
    let repository = GitRepository { dir };
    repository.git(&["init", "--quiet", "--initial-branch=main"]);
    for (path, content) in files {
        repository.write(path, content);
    }
    repository.git(&["add", "--all"]);
    repository.git(&["commit", "--quiet", "--allow-empty", "--message=first"]);
    repository
}

impl GitRepository {
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file of the working tree, and makes its directories.
    pub fn write(&self, path: &str, content: &str) {
        let path = self.path().join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).expect("a directory of the repository can be made");
        }
        fs::write(&path, content).expect("a file of the repository can be written");
    }

    /// Runs git in the repository and returns what it printed, trimmed; panics when it fails.
    pub fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .args(arguments)
            .current_dir(self.path())
            .envs(ENVIRONMENT)
            .env_remove("GIT_DIR")
            .env_remove("GIT_INDEX_FILE")
            .env_remove("GIT_WORK_TREE")
            .stdin(Stdio::null())
            .output()
            .expect("git runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {arguments:?}: {}: {errors}", output.status);
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_the_same_every_time() {
        let files = [("a.txt", "a\n"), ("src/b.txt", "b\n")];
        let (one, two) = (git_repository(&files), git_repository(&files));
        assert_eq!(one.git(&["rev-parse", "HEAD"]), two.git(&["rev-parse", "HEAD"]));
        assert_eq!(one.git(&["status", "--porcelain"]), "");
        assert_eq!(one.git(&["ls-files"]), "a.txt\nsrc/b.txt");
        assert_eq!(one.git(&["branch", "--show-current"]), "main");
    }
}
