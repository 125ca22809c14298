//! Policy as callers use it: command lines, rules, layers.

mod budgets;
mod command;
mod differential;
mod errors;
mod explain;
mod files;
mod hosts;
mod profiles;
mod properties;
mod rules;
mod seeds;
mod tools;
mod world;
