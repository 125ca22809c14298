//! The loop, as a table and as properties.

mod compaction;
mod loops;
mod prefix;
mod prompt;
mod properties;
mod world;
