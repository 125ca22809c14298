//! The commands, one file each.

mod exec;
mod run;
mod trace;

use crate::{
    cli::{Cli, Command},
    failure::{Failure, Result},
    words::harmless,
};
use clap::CommandFactory;
use std::{io::Read, process::ExitCode};

pub async fn dispatch(command: Command) -> Result<ExitCode> {
    match command {
        Command::Run(args) => run::run(args).await,
        Command::Exec(args) => exec::exec(args).await,
        Command::Trace(command) => trace::trace(command).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "adjutant", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Longest prompt that is read.
const LONGEST_PROMPT: u64 = 1 << 20;

/// The prompt as typed, or from standard input when it is `-`.
fn read_prompt(prompt: String) -> Result<String> {
    if prompt != "-" {
        return checked(prompt);
    }
    let mut bytes = Vec::new();
    std::io::stdin().take(LONGEST_PROMPT + 1).read_to_end(&mut bytes)?;
    checked(String::from_utf8(bytes).map_err(|_| Failure::usage("the prompt is not valid UTF-8"))?)
}

fn checked(text: String) -> Result<String> {
    if text.trim().is_empty() {
        return Err(Failure::usage("the prompt is empty").hint("say what is to be done"));
    }
    if text.len() as u64 > LONGEST_PROMPT {
        return Err(Failure::usage(format!("the prompt is longer than {LONGEST_PROMPT} bytes"))
            .hint("put long material into a file and name the file"));
    }
    Ok(text)
}

/// Writes what an agent said: to programs as it is, on a terminal without anything that steers it.
fn print_theirs(text: &str) -> Result<()> {
    use std::io::IsTerminal;
    if std::io::stdout().is_terminal() { print(&harmless(text)) } else { print(text) }
}

/// Writes to standard output; a reader that went away is no error of ours.
fn print(text: &str) -> Result<()> {
    use std::io::{ErrorKind, Write};
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
