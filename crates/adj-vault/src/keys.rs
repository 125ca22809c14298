//! Chooses the place for a new vault's key, and goes where an old one says that its key is.

use crate::{
    key::{Key, KeyError, KeyPlace, KeyStore, VaultId},
    key_file::KeyFile,
    keyring::{KeyringProgram, SystemKeyring},
};
use std::path::Path;

/// What the user wants the keys of vaults to lie in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeySource {
    /// The system keyring if one answers, else a file.
    #[default]
    Auto,
    File,
    Keyring,
}

/// The places of this machine where keys can lie, one of them chosen.
#[derive(Debug, Clone)]
pub struct Keys {
    source: KeySource,
    file: KeyFile,
    keyring: Option<SystemKeyring>,
}

impl Keys {
    /// `folder` is that of the vault.
    pub fn new(source: KeySource, folder: &Path, keyring: Option<SystemKeyring>) -> Keys {
        Keys { source, file: KeyFile::new(folder), keyring }
    }

    fn keyring(&self) -> Result<&SystemKeyring, KeyError> {
        let program = KeyringProgram::of_this_system().name();
        self.keyring.as_ref().ok_or(KeyError::NoKeyring { program })
    }
}

impl KeyStore for Keys {
    fn create(&self, vault: VaultId) -> Result<(Key, KeyPlace), KeyError> {
        match self.source {
            KeySource::File => self.file.create(vault),
            KeySource::Keyring => self.keyring()?.create(vault),
            KeySource::Auto => {
                let answering = self.keyring.as_ref().filter(|keyring| keyring.answers());
                // A keyring that can be read may still not keep anything, when it is locked for instance.
                match answering.map(|keyring| keyring.create(vault)) {
                    Some(Ok(created)) => Ok(created),
                    _ => self.file.create(vault),
                }
            }
        }
    }

    fn load(&self, vault: VaultId, place: KeyPlace) -> Result<Key, KeyError> {
        match (self.source, place) {
            (KeySource::Auto | KeySource::File, KeyPlace::File) => self.file.load(vault, place),
            (KeySource::Auto | KeySource::Keyring, KeyPlace::Keyring) => self.keyring()?.load(vault, place),
            (KeySource::File, KeyPlace::Keyring) => Err(KeyError::OtherPlace { place, asked: KeyPlace::File }),
            (KeySource::Keyring, KeyPlace::File) => Err(KeyError::OtherPlace { place, asked: KeyPlace::Keyring }),
        }
    }
}
