//! The store from outside: one contract for every back end, and what only a file can suffer.

mod contract;
mod crash;
mod damage;
mod disk;
mod errors;
mod model;
mod opening;
mod processes;
mod records;
mod requests;
mod support;
