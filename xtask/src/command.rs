//! Runs other programs: said aloud, with what they need and nothing left over.

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use std::{
    ffi::{OsStr, OsString},
    io::{BufRead, BufReader, Read, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

/// A program with its arguments, folder and environment.
#[derive(Debug)]
pub struct Invocation {
    program: OsString,
    arguments: Vec<OsString>,
    command: Command,
}

/// What a program said, when it was listened to.
#[derive(Debug)]
pub struct Heard {
    /// `None` when it did not end in time.
    pub status: Option<ExitStatus>,
    /// What it wrote to either stream, its end only where it is long.
    pub text: String,
}

/// Returns the cargo that started this program.
pub fn cargo(root: &Path) -> Invocation {
    Invocation::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()), root)
}

impl Invocation {
    pub fn new(program: impl Into<OsString>, folder: &Path) -> Self {
        let program = program.into();
        let mut command = Command::new(&program);
        command.current_dir(folder);
        // `cargo run` describes this package to us. Passed on, that would make build scripts believe that something changed.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_")
                || ["CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "CARGO_CRATE_NAME", "CARGO_BIN_NAME"].contains(&&*text)
            {
                command.env_remove(&name);
            }
        }
        Self { program, arguments: Vec::new(), command }
    }

    pub fn args<T: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = T>) -> Self {
        for argument in arguments {
            self.command.arg(&argument);
            self.arguments.push(argument.as_ref().to_owned());
        }
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub fn without_env(mut self, name: impl AsRef<OsStr>) -> Self {
        self.command.env_remove(name);
        self
    }

    pub fn only_env<N: AsRef<OsStr>, V: AsRef<OsStr>>(mut self, variables: impl IntoIterator<Item = (N, V)>) -> Self {
        self.command.env_clear().envs(variables);
        self
    }

    /// Runs it with our own streams, and returns whether it succeeded.
    pub fn succeeds(mut self) -> Result<bool> {
        self.announce();
        let status = self.command.stdin(Stdio::null()).status().with_context(|| self.cannot_run())?;
        Ok(status.success())
    }

    /// Runs it with our own streams, and hands each line of its conversation to `listen` as it passes.
    pub fn succeeds_heard(mut self, mut listen: impl FnMut(&str)) -> Result<bool> {
        self.announce();
        let mut child =
            self.command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().with_context(|| self.cannot_run())?;
        let mut lines = BufReader::new(child.stderr.take().expect("stderr is a pipe"));
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line)? > 0 {
            std::io::stderr().write_all(&line)?;
            listen(&String::from_utf8_lossy(&line));
            line.clear();
        }
        Ok(child.wait()?.success())
    }

    /// Runs it quietly and returns what it printed; an error carries what it complained of.
    pub fn output(mut self) -> Result<String> {
        let output = self.command.stdin(Stdio::null()).output().with_context(|| self.cannot_run())?;
        if !output.status.success() {
            let complaint = String::from_utf8_lossy(&output.stderr);
            bail!("{self} ended with {}: {}", output.status, complaint.trim());
        }
        String::from_utf8(output.stdout).with_context(|| format!("{self} printed something that is not UTF-8"))
    }

    /// Runs it quietly, for a limited time, in a process group of its own that does not outlive the call.
    pub fn heard_within(mut self, deadline: Duration) -> Result<Heard> {
        let mut child = self
            .command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| self.cannot_run())?;
        let streams: [Box<dyn Read + Send>; 2] = [
            Box::new(child.stdout.take().expect("stdout is a pipe")),
            Box::new(child.stderr.take().expect("stderr is a pipe")),
        ];
        let readers = streams.map(|stream| thread::spawn(move || tail(stream)));
        let ended = ends_before(&child, Instant::now() + deadline)?;
        // Whatever it left running would keep the pipes open, and nothing of a step outlives it. It is not waited for before:
        // until then its number cannot belong to anybody else.
        if let Some(group) = pid(&child) {
            rustix::process::kill_process_group(group, Signal::KILL)?;
        }
        let status = child.wait()?;
        let text =
            readers.into_iter().map(|reader| reader.join().expect("a reader does not panic")).collect::<String>();
        Ok(Heard { status: ended.then_some(status), text })
    }

    fn announce(&self) {
        eprintln!("     $ {self}");
    }

    fn cannot_run(&self) -> String {
        format!("cannot run {self}")
    }
}

impl std::fmt::Display for Invocation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let program = PathBuf::from(&self.program);
        f.write_str(&program.file_name().unwrap_or(program.as_os_str()).to_string_lossy())?;
        for argument in &self.arguments {
            write!(f, " {}", argument.to_string_lossy())?;
        }
        Ok(())
    }
}

fn pid(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

fn ends_before(child: &Child, deadline: Instant) -> Result<bool> {
    let id = WaitId::Pid(pid(child).context("a process has no number")?);
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    while rustix::process::waitid(id.clone(), options)?.is_none() {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(true)
}

/// Reads to the end and keeps the last 64 KiB.
fn tail(mut stream: impl Read) -> String {
    const KEEP: usize = 64 * 1024;
    let (mut kept, mut chunk) = (Vec::new(), [0; 8192]);
    while let Ok(count @ 1..) = stream.read(&mut chunk) {
        kept.extend_from_slice(&chunk[..count]);
        if kept.len() > 2 * KEEP {
            kept.drain(..kept.len() - KEEP);
        }
    }
    let start = kept.len().saturating_sub(KEEP);
    String::from_utf8_lossy(&kept[start..]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Invocation {
        Invocation::new("sh", Path::new("/")).args(["-c", script])
    }

    #[test]
    fn output_is_what_was_printed_or_what_was_complained_of() {
        assert_eq!(shell("printf one").output().unwrap(), "one");
        let error = shell("echo broken >&2; exit 3").output().unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("broken"), "{error}");
    }

    #[test]
    fn a_program_that_does_not_end_is_ended_with_all_it_started() {
        let started = Instant::now();
        let heard = shell("echo waiting; sleep 600 & sleep 600").heard_within(Duration::from_millis(300)).unwrap();
        assert_eq!((heard.status, heard.text.as_str()), (None, "waiting\n"));
        assert!(started.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn long_output_keeps_its_end() {
        let heard = shell("head -c 1000000 /dev/zero | tr '\\0' x; echo end").heard_within(Duration::from_secs(60));
        let text = heard.unwrap().text;
        assert!(text.len() <= 64 * 1024 && text.ends_with("xend\n"), "{} bytes", text.len());
    }
}
