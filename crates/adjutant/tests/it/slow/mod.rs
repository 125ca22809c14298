//! Suites that walk through every crash point, kill processes, or wait for clocks.

mod crash_exec;
mod crash_run;
mod retries;
