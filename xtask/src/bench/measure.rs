//! Measures what one command uses: time on the clock, time on the processor, memory.

use crate::command::Invocation;
use anyhow::{Context, Result, ensure};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeVal,
};
use serde::{Deserialize, Serialize};
use std::{
    ffi::OsString,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// What a command, with all the processes it waited for, used.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Used {
    pub wall_us: u64,
    pub cpu_us: u64,
    /// The most memory that any one of the processes held at a time.
    pub peak_kib: u64,
}

/// Runs the command, in the environment given, in a process of its own that measures it.
pub fn command(folder: &Path, variables: &[(OsString, OsString)], command: &[OsString]) -> Result<Used> {
    // The kernel adds up what all children of a process used, so each command gets a parent of its own.
    let own = std::env::current_exe().context("cannot find this program's file")?;
    let text = Invocation::new(own, folder)
        .args(["measure", "--"])
        .args(command)
        .only_env(variables.iter().cloned())
        .output()?;
    serde_json::from_str(&text).context("cannot read what was measured")
}

/// Measures a command and prints the result as JSON.
pub fn print(command: &[OsString]) -> Result<()> {
    let (program, arguments) = command.split_first().context("there is no command")?;
    let started = Instant::now();
    let status = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let wall = started.elapsed();
    ensure!(status.success(), "{} ended with {status}", program.display());
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let used = Used {
        wall_us: micros(wall),
        cpu_us: micros(duration(usage.user_time()) + duration(usage.system_time())),
        peak_kib: usage.max_rss().try_into().unwrap_or(0),
    };
    println!("{}", serde_json::to_string(&used)?);
    Ok(())
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros().try_into().unwrap_or(u64::MAX)
}

fn duration(time: TimeVal) -> Duration {
    Duration::new(time.tv_sec().try_into().unwrap_or(0), u32::try_from(time.tv_usec()).unwrap_or(0) * 1000)
}

/// Returns the value that a share of the sorted values does not exceed; the values may not be empty.
pub fn percentile(values: impl IntoIterator<Item = u64>, share: f64) -> u64 {
    let mut values: Vec<u64> = values.into_iter().collect();
    values.sort_unstable();
    let last = values.len().checked_sub(1).expect("something was measured");
    let place = (last as f64 * share).round() as usize;
    values[place.min(last)]
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn percentiles_come_from_the_sorted_values() {
        let cases = [
            (vec![5, 1, 3], 0.5, 3),
            (vec![7], 0.95, 7),
            ((1..=100).collect(), 0.95, 95),
            ((1..=100).rev().collect(), 1.0, 100),
        ];
        for (values, share, expected) in cases {
            assert_eq!(percentile(values, share), expected);
        }
    }
}
