//! The `adjutant` command: wiring, words for errors, exit codes, pictures on a terminal.
//!
//! Must not know: rules of the domain.
//! Start at [`cli`] for what can be typed, and at [`wiring`] for how the rooms are put together.

mod cli;
mod commands;
mod wiring;

mod account;
mod cassettes;
mod confinement;
mod demo;
mod settings;

mod asker;
mod interview;
mod questions;

mod board;
mod failure;
mod foreground;
mod interrupt;
mod redact;
mod report;
mod screen;
mod timeline;
mod verify;
mod words;

use clap::Parser;
use std::{io::Write, process::ExitCode};

fn main() -> ExitCode {
    // The same program serves as the helper inside sandboxes; then it never comes back from here.
    adj_sandbox::dispatch_helper(adj_tools::worker);
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return misused(&error),
    };
    match commands::dispatch(cli.command) {
        Ok(code) => code,
        Err(failure) => report_failure(&failure),
    }
}

/// Help and wrong usage. Where a command's own code is passed on, 2 would be taken for the command's.
fn misused(error: &clap::Error) -> ExitCode {
    // When standard error is gone, there is nobody left to tell.
    let _ = error.print();
    let words: Vec<_> = std::env::args_os().skip(1).take(2).collect();
    let runs_command = match words.first().and_then(|word| word.to_str()) {
        Some("sandbox") => words.last().is_none_or(|word| word != "explain"),
        first => first == Some("gateway"),
    };
    match error.exit_code() {
        0 => ExitCode::SUCCESS,
        _ if runs_command => commands::NOT_RUN.into(),
        code => u8::try_from(code).unwrap_or(failure::Code::Usage as u8).into(),
    }
}

fn report_failure(failure: &failure::Failure) -> ExitCode {
    // When standard error is gone, there is nobody left to tell.
    let _ = write!(anstream::stderr(), "{}", failure.render());
    failure.code.into()
}
