//! A home directory of its own, and commands that see nothing of the real one.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

/// A temporary world: a home, a state directory, a directory for temporary files; gone when it is dropped.
#[derive(Debug)]
pub struct Home {
    dir: TempDir,
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

impl Home {
    pub fn new() -> Self {
        let dir = TempDir::with_prefix("adj-home-").expect("a temporary directory can be made");
        let home = Self { dir };
        for place in [home.path().join("home"), home.state(), home.path().join("tmp")] {
            fs::create_dir_all(&place).expect("a directory in the temporary directory can be made");
        }
        home
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The directory that `ADJUTANT_HOME` names.
    pub fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    /// Returns a command with an environment that holds only what is said here, whoever runs the test.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into()))
            .env("HOME", self.path().join("home"))
            .env("ADJUTANT_HOME", self.state())
            .env("TMPDIR", self.path().join("tmp"))
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC")
            .env("NO_COLOR", "1")
            .envs(crate::git::ENVIRONMENT)
            .current_dir(self.path().join("home"));
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_sees_only_its_own_home() {
        let home = Home::new();
        let output = home.command("env").output().expect("env runs");
        let text = String::from_utf8(output.stdout).expect("the environment is UTF-8");
        let names = text.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name);
        let strange = names
            .filter(|name| {
                !["PATH", "HOME", "ADJUTANT_HOME", "TMPDIR", "LC_ALL", "TZ", "NO_COLOR", "PWD", "_"].contains(name)
                    && !name.starts_with("GIT_")
            })
            .collect::<Vec<_>>();
        assert_eq!(strange, Vec::<&str>::new());
        assert!(home.state().is_dir());
        let path = home.path().to_owned();
        drop(home);
        assert!(!path.exists());
    }
}
