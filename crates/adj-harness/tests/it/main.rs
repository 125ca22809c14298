//! The loop, as a table and as properties.

mod allowances;
mod compaction;
mod custom;
mod loops;
mod prefix;
mod prompt;
mod properties;
mod world;
