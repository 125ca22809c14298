//! The store that forgets: the model that the others are compared with, and what fast tests use.

pub(crate) mod records;
pub(crate) mod requests;
pub(crate) mod store;
