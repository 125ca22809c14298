//! What the scripted vendor can play: a playbook, or a cassette.

use super::{Playbook, PlaybookError, Scripted};
use crate::{
    Provider,
    cassette::{CassetteError, Manner, Places, Player, Replay, Timing, is_cassette},
};
use std::{path::Path, sync::Arc};

/// A file for the scripted vendor, read and checked.
#[derive(Debug, Clone)]
pub enum Script {
    Playbook(Playbook),
    Cassette(Player),
}

#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    #[error(transparent)]
    Playbook(#[from] PlaybookError),
    #[error(transparent)]
    Cassette(#[from] CassetteError),
}

impl Script {
    /// Reads a file, and tells by how it begins what it is. A cassette is played loosely, since its models had other names.
    pub fn load(path: &Path, places: Places, timing: Timing) -> Result<Self, ScriptError> {
        Ok(match is_cassette(path) {
            true => Self::Cassette(Player::open(path, Replay { manner: Manner::Loose, timing, places })?),
            false => Self::Playbook(Playbook::load(path)?),
        })
    }

    /// Returns the vendor that plays it.
    pub fn provider(self) -> Arc<dyn Provider> {
        match self {
            Self::Playbook(playbook) => Arc::new(Scripted::new(playbook)),
            Self::Cassette(player) => Arc::new(player),
        }
    }
}
