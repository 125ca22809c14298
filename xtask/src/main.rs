//! One command for everything that is done to this repository: checking, measuring, fuzzing.
//!
//! Must not know: what the product does, beyond the commands it offers to everybody.
//! Start at [`check`]: it is what a change has to pass.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "printing is this program's whole face")]

mod bench;
mod check;
mod command;
mod fuzz;
mod peers;
mod repository;
mod toolbox;

use clap::{Parser, Subcommand};
use repository::Repository;
use std::{ffi::OsString, process::ExitCode};

/// One command for everything that is done to this repository
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything that a change has to pass
    Check(check::Arguments),
    /// Measure start-up, turns, tool calls, the journal, the sandbox and the gateway, against their targets
    Bench(bench::Arguments),
    /// Fuzz what reads strangers' bytes
    Fuzz(fuzz::Arguments),
    /// Run a command and print what it used, as JSON
    #[command(hide = true)]
    Measure {
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let done = Repository::find().and_then(|repository| match Arguments::parse().command {
        Command::Check(arguments) => check::run(&repository, arguments),
        Command::Bench(arguments) => bench::run(&repository, arguments),
        Command::Fuzz(arguments) => fuzz::run(&repository, arguments),
        Command::Measure { command } => bench::measure::print(&command).map(|()| true),
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}
