//! One bash process, the pipes it is driven through, and its end.
//!
//! It reads its script from a named pipe, so its three standard streams belong to the commands alone. What a command writes goes to a
//! pipe of its own; that it is over is said on a third one. All three lie in a private folder.

use super::processes::Family;
use super::random;
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, mkdirat, mknodat, openat};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// High enough that no script uses it by chance.
pub(super) const CONTROL_FD: u32 = 250;
pub(super) const MARK_VARIABLE: &str = "ADJUTANT_SHELL";
/// These would make bash run something before its first command.
const NOT_INHERITED: [&str; 2] = ["BASH_ENV", "ENV"];

#[derive(Debug, thiserror::Error)]
pub(crate) enum BashError {
    #[error("cannot make the shell's private folder {}", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error("the working folder {} cannot be entered", path.display())]
    Cwd { path: PathBuf, source: io::Error },
    #[error("cannot start /bin/bash")]
    Start { source: io::Error },
    #[error("cannot talk to the shell")]
    Talk { source: io::Error },
}

/// What every shell of a toolbox is started with.
#[derive(Debug)]
pub(crate) struct ShellPlan {
    pub cwd: PathBuf,
    pub environment: BTreeMap<String, String>,
    /// Where private folders are made.
    pub temporary: PathBuf,
    /// Whether orphans become children of this process, which has no other children.
    pub adopts_orphans: bool,
}

#[derive(Debug)]
pub(super) struct Bash {
    child: Child,
    pub(super) ended: OwnedFd,
    folder: PathBuf,
    pub(super) script: OwnedFd,
    pub(super) control: OwnedFd,
}

impl Bash {
    pub(super) fn start(plan: &ShellPlan, mark: &str) -> Result<Self, BashError> {
        std::fs::read_dir(&plan.cwd).map_err(|source| BashError::Cwd { path: plan.cwd.clone(), source })?;
        let folder = plan.temporary.join(format!("adjutant-shell-{:016x}", random()));
        let made = || -> io::Result<(OwnedFd, OwnedFd)> {
            mkdirat(CWD, &folder, Mode::RWXU)?;
            // Its name is what bash calls itself in messages.
            Ok((pipe(&folder.join("bash"), OFlags::RDWR)?, pipe(&folder.join("control"), OFlags::RDWR)?))
        };
        let (script, control) = made().map_err(|source| {
            remove(&folder);
            BashError::Folder { path: folder.clone(), source }
        })?;
        let variables = plan.environment.iter().filter(|(name, _)| !NOT_INHERITED.contains(&name.as_str()));
        let started = Command::new("/bin/bash")
            .arg0("bash")
            .args(["--noprofile", "--norc", "bash"])
            .current_dir(&folder)
            .env_clear()
            .envs(variables)
            .env(MARK_VARIABLE, mark)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        let mut child = match started {
            Ok(child) => child,
            Err(source) => {
                remove(&folder);
                return Err(BashError::Start { source });
            }
        };
        let ended = match pidfd_open(pid_of(&child), PidfdFlags::empty()) {
            Ok(ended) => ended,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                remove(&folder);
                return Err(BashError::Start { source: error.into() });
            }
        };
        let bash = Self { child, ended, folder, script, control };
        let prologue = format!(
            "\\exec {CONTROL_FD}>{}\n\\cd -- {}\n\\unset OLDPWD\n",
            quoted(&bash.folder.join("control")),
            quoted(&plan.cwd)
        );
        rustix::io::write(&bash.script, prologue.as_bytes())
            .map_err(|error| BashError::Talk { source: error.into() })?;
        Ok(bash)
    }

    pub(super) fn pid(&self) -> Pid {
        pid_of(&self.child)
    }

    /// A fresh pipe for one command's output: the reading end, and the path for the shell.
    pub(super) fn output_pipe(&self) -> Result<(OwnedFd, PathBuf), BashError> {
        let path = self.folder.join("output");
        let made = || -> io::Result<OwnedFd> {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            // A command may have emptied the temporary folder, and ours with it.
            match mkdirat(CWD, &self.folder, Mode::RWXU) {
                Err(error) if error != Errno::EXIST => return Err(error.into()),
                _ => {}
            }
            pipe(&path, OFlags::RDONLY)
        };
        let reader = made().map_err(|source| BashError::Folder { path: self.folder.clone(), source })?;
        Ok((reader, path))
    }

    /// The exit code of a shell that ended, as a shell would tell it.
    pub(super) fn exit_code(&mut self) -> Option<i32> {
        let status: ExitStatus = self.child.try_wait().ok()??;
        Some(status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1))
    }

    /// Ends the shell and everything it started; returns whether nothing is left.
    pub(super) fn kill(mut self, mark: &str, is_everything: bool) -> bool {
        let mark = format!("{MARK_VARIABLE}={mark}");
        let is_done = Family { shell: self.pid(), mark: &mark, is_everything }.kill();
        // The family includes it, and it is waited for only when it is known to be dead, or not at all.
        let _ = if is_done { self.child.wait().map(Some) } else { self.child.try_wait() };
        is_done
    }
}

impl Drop for Bash {
    fn drop(&mut self) {
        remove(&self.folder);
    }
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_child(child)
}

fn remove(folder: &Path) {
    // Only pipes without a name are lost if it stays; the sandbox's end takes the rest.
    let _ = std::fs::remove_dir_all(folder);
}

fn pipe(path: &Path, access: OFlags) -> io::Result<OwnedFd> {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    let opened = openat(CWD, path, access | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&opened)?.st_mode) != FileType::Fifo {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(opened)
}

/// One word for a shell, whatever the text holds.
pub(super) fn quoted_text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

pub(super) fn quoted(path: &Path) -> String {
    quoted_text(&path.to_string_lossy())
}
