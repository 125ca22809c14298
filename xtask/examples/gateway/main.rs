//! Both ends of a gateway that is measured: `cargo run --release -p xtask --example gateway -- vendor`, and `… -- callers PLAN`
//!
//! The vendor prints where it listens and ends with its standard input. The callers print what they saw, as JSON.
#![expect(clippy::print_stdout, reason = "a measurement is printed")]

mod callers;
mod http;
mod vendor;

use anyhow::{Context, Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{io, thread};
use tokio::net::TcpListener;

fn main() -> Result<()> {
    // Hundreds of streams are as many descriptors at each end.
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })?;
    // One thread for each end: there are other processes to leave a processor to.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["vendor"] => runtime.block_on(async {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
            println!("{}", listener.local_addr()?);
            thread::spawn(|| {
                // Whoever started this has ended, or wants it to end.
                let _ = io::copy(&mut io::stdin(), &mut io::sink());
                std::process::exit(0);
            });
            vendor::serve(listener).await
        }),
        ["callers", plan] => {
            let plan = serde_json::from_str(plan).context("cannot read the plan")?;
            let seen = runtime.block_on(callers::carry_out(plan));
            println!("{}", serde_json::to_string(&seen)?);
            Ok(())
        }
        _ => bail!("expected `vendor` or `callers PLAN`"),
    }
}
