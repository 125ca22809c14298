//! The `adjutant` command: wiring, words for errors, exit codes, pictures on a terminal.
//!
//! Must not know: rules of the domain.
//! Start at [`cli`] for what can be typed, and at [`wiring`] for how the rooms are put together.

mod cli;
mod commands;
mod wiring;

mod account;
mod confinement;
mod demo;
mod settings;

mod asker;
mod interview;
mod questions;

mod board;
mod failure;
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
    let cli = cli::Cli::parse();
    match commands::dispatch(cli.command) {
        Ok(code) => code,
        Err(failure) => report_failure(&failure),
    }
}

fn report_failure(failure: &failure::Failure) -> ExitCode {
    // When standard error is gone, there is nobody left to tell.
    let _ = write!(anstream::stderr(), "{}", failure.render());
    failure.code.into()
}
