//! The store in one SQLite file, for one machine and any number of processes on it.
//!
//! Reading order: [`store`] is the face, [`writer`] commits, [`logs`], [`books`], [`records`] and [`requests`] hold the
//! statements, [`open`] and [`schema`] decide what may be opened, [`readers`] read, [`trouble`] gives failures their names.

pub(crate) mod books;
pub(crate) mod logs;
pub(crate) mod open;
pub(crate) mod readers;
pub(crate) mod records;
pub(crate) mod requests;
pub(crate) mod schema;
pub(crate) mod store;
pub(crate) mod trouble;
pub(crate) mod writer;
