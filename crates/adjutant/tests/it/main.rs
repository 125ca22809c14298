//! The binary as people use it: commands typed in hermetic homes, against scripted models and fake vendors.
//!
//! Start at [`support::World`]: a home, and commands that are run in it.

mod support;

mod approvals;
mod budgets;
mod canary;
mod clients;
mod daemon;
mod exec;
mod gateway;
mod golden;
mod interrupts;
mod policy;
mod run;
mod sandbox;
mod tampering;
mod vault;
mod verify;

mod slow;
