//! The apply_patch tool: many changes in many files, all of them or none.

mod parse;

mod apply;

mod commit;

#[cfg(test)]
mod tests;

pub(crate) use commit::apply_patch;
