//! One agent's tools at work on one workspace.

use crate::cancel::Cancel;
use crate::clip::clip;
use crate::input::{Bash, Input, parse};
use crate::shell::{Commands, End, Run, ShellPlan};
use crate::tree::{Area, Base, Place, Tree};
use crate::{edit, glob, grep, patch, read, write};
use adj_domain::{ToolOutcome, ToolRequest};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What a toolbox works on.
#[derive(Debug, Clone)]
pub struct ToolboxPlan {
    /// The workspace; file tools do not leave it, and commands start in it.
    pub root: PathBuf,
    /// A private temporary folder that file tools may use too.
    pub scratch: Option<PathBuf>,
    /// The whole environment of commands; nothing else is inherited.
    pub environment: BTreeMap<String, String>,
    /// Whether this process does nothing but serve this toolbox, and adopts orphans: then no process started by a command can hide.
    pub adopts_orphans: bool,
}

/// How much an answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caps {
    /// Characters the model is shown.
    pub keep_chars: usize,
    /// Bytes of a command's output that are kept at all.
    pub full_bytes: usize,
    pub default_timeout_ms: u64,
}

impl Default for Caps {
    fn default() -> Self {
        Self { keep_chars: 30_000, full_bytes: 1024 * 1024, default_timeout_ms: 120_000 }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum OpenToolboxError {
    #[error("cannot open the workspace {}", path.display())]
    Workspace { path: PathBuf, source: io::Error },
    #[error("cannot open the temporary folder {}", path.display())]
    Scratch { path: PathBuf, source: io::Error },
}

/// The tools of one agent. Calls may come from several threads: commands run one after another, and so do changes of files.
#[derive(Debug)]
pub struct Toolbox {
    tree: Tree,
    commands: Mutex<Commands>,
    changing: Mutex<()>,
}

/// What a tool has to say, before it is cut to size.
struct Answer {
    text: String,
    /// Said after the text, and never cut.
    note: String,
    is_error: bool,
    exit_code: Option<i32>,
    changed: Vec<String>,
}

impl Toolbox {
    pub fn open(plan: ToolboxPlan) -> Result<Self, OpenToolboxError> {
        let workspace =
            Base::open(&plan.root).map_err(|source| OpenToolboxError::Workspace { path: plan.root.clone(), source })?;
        let scratch = match &plan.scratch {
            Some(path) => {
                Some(Base::open(path).map_err(|source| OpenToolboxError::Scratch { path: path.clone(), source })?)
            }
            None => None,
        };
        let commands = Commands::new(ShellPlan {
            cwd: plan.root,
            environment: plan.environment,
            temporary: plan.scratch.unwrap_or_else(std::env::temp_dir),
            adopts_orphans: plan.adopts_orphans,
        });
        Ok(Self { tree: Tree { workspace, scratch }, commands: Mutex::new(commands), changing: Mutex::new(()) })
    }

    /// Answers a request with the usual caps; a bad request is answered too, in words for the model.
    pub fn execute(&self, request: &ToolRequest) -> ToolOutcome {
        match Cancel::open() {
            Ok(cancel) => self.execute_with(request, &Caps::default(), &cancel),
            Err(error) => ToolOutcome::error(format!("cannot run the tool: {error}")),
        }
    }

    pub fn execute_with(&self, request: &ToolRequest, caps: &Caps, cancel: &Cancel) -> ToolOutcome {
        let started = Instant::now();
        let answer = if cancel.is_cancelled() {
            Answer::error("cancelled before it started".to_owned())
        } else {
            match parse(&request.name, &request.input) {
                Ok(input) => self.answer(&input, caps, cancel),
                Err(mistakes) => Answer::error(format!("this call does not fit the tool: {}", mistakes.join("; "))),
            }
        };
        let mut outcome = answer.cut(caps.keep_chars);
        outcome.duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        outcome
    }

    /// Ends the shell and everything started through it. A later command opens a new one.
    pub fn stop(&self) {
        lock(&self.commands).stop();
    }

    fn answer(&self, input: &Input, caps: &Caps, cancel: &Cancel) -> Answer {
        let tree = &self.tree;
        match input {
            Input::Bash(bash) => self.bash(bash, caps, cancel),
            Input::Read(input) => told(read::read(tree, input, caps.keep_chars)),
            Input::Glob(input) => told(glob::glob(tree, input, cancel)),
            Input::Grep(input) => told(grep::grep(tree, input, caps.keep_chars, cancel)),
            Input::Write(input) => {
                let _alone = lock(&self.changing);
                changed(write::write(tree, input))
            }
            Input::Edit(input) => {
                let _alone = lock(&self.changing);
                changed(edit::edit(tree, input))
            }
            Input::ApplyPatch(input) => {
                let _alone = lock(&self.changing);
                match patch::apply_patch(tree, input) {
                    Ok((text, changed)) => Answer { changed, ..Answer::text(text) },
                    Err(error) => Answer::error(explain(&error)),
                }
            }
        }
    }

    fn bash(&self, input: &Bash, caps: &Caps, cancel: &Cancel) -> Answer {
        let mut commands = lock(&self.commands);
        if cancel.is_cancelled() {
            return Answer::error("cancelled before it started".to_owned());
        }
        if input.restart == Some(true) && !commands.stop() {
            return Answer::error("the shell was ended, but some of its processes could not be killed".to_owned());
        }
        let cwd = commands.cwd().display().to_string();
        let Some(command) = &input.command else {
            return Answer::text(format!("the shell was restarted; its working folder is {cwd}"));
        };
        let timeout = Duration::from_millis(input.timeout_ms.unwrap_or(caps.default_timeout_ms));
        match commands.run(command, timeout, caps.full_bytes, cancel) {
            Ok(run) => of_run(run, timeout, &cwd),
            Err(error) => Answer::error(explain(&error)),
        }
    }
}

fn of_run(run: Run, timeout: Duration, cwd: &str) -> Answer {
    let afresh = format!("the shell starts afresh with the next command, in {cwd} and without earlier variables");
    let (exit_code, mut note) = match run.end {
        End::Exited(0) if run.output.is_empty() => (Some(0), "(no output)".to_owned()),
        End::Exited(0) => (Some(0), String::new()),
        End::Exited(code) => (Some(code), format!("[exit code {code}]")),
        End::ShellEnded(code) => (Some(code), format!("[exit code {code}; the command ended the shell: {afresh}]")),
        End::TimedOut => {
            let seconds = timeout.as_secs_f64();
            (None, format!("[timed out after {seconds} s and was killed with everything it had started; {afresh}]"))
        }
        End::Cancelled => (None, format!("[cancelled, and killed with everything it had started; {afresh}]")),
    };
    if !run.is_clean {
        note.push_str("\n[some of its processes could not be killed]");
    }
    Answer { text: run.output, note, is_error: exit_code != Some(0), exit_code, changed: Vec::new() }
}

impl Answer {
    fn text(text: String) -> Self {
        Self { text, note: String::new(), is_error: false, exit_code: None, changed: Vec::new() }
    }

    fn error(text: String) -> Self {
        Self { is_error: true, ..Self::text(text) }
    }

    fn cut(self, keep_chars: usize) -> ToolOutcome {
        let (mut text, full) = match clip(&self.text, keep_chars) {
            Some(cut) => (cut, Some(self.text)),
            None => (self.text, None),
        };
        if !self.note.is_empty() {
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            text.push_str(&self.note);
        }
        ToolOutcome {
            text,
            is_error: self.is_error,
            exit_code: self.exit_code,
            duration_ms: 0,
            full,
            changed: self.changed,
        }
    }
}

fn told(result: Result<String, impl Error>) -> Answer {
    result.map_or_else(|error| Answer::error(explain(&error)), Answer::text)
}

fn changed(result: Result<(String, Place), impl Error>) -> Answer {
    match result {
        Ok((text, place)) => {
            let changed = if place.area == Area::Workspace { vec![place.shown] } else { Vec::new() };
            Answer { changed, ..Answer::text(text) }
        }
        Err(error) => Answer::error(explain(&error)),
    }
}

/// An error with all its causes.
fn explain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let reason = error.to_string();
        // Errors that pass another one on say the same.
        if !text.contains(&reason) {
            text.push_str(": ");
            text.push_str(&reason);
        }
        cause = error.source();
    }
    text
}

/// A call that panicked left nothing half-done in these: files are renamed whole, and a shell is judged anew by every command.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
