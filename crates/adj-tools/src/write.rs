//! The write tool: a file's whole content.

use crate::input::Write;
use crate::save::{self, SaveError};
use crate::text::count;
use crate::tree::{Found, Place, Tree, TreeError};

#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error(transparent)]
    Save(#[from] SaveError),
    #[error("{path} ends with a slash, so it names a folder; folders come into being with the files in them")]
    NamesFolder { path: String },
}

pub(crate) fn write(tree: &Tree, input: &Write) -> Result<(String, Place), WriteError> {
    if input.file_path.ends_with('/') {
        return Err(WriteError::NamesFolder { path: input.file_path.clone() });
    }
    let place = tree.find(&input.file_path)?;
    save::save(&place, input.content.as_bytes())?;
    let verb = if matches!(place.found, Found::Missing) { "created" } else { "replaced" };
    let lines = count(input.content.lines().count(), "line");
    Ok((format!("{verb} {} ({lines})", place.shown), place))
}
