//! The key of a vault, and what a place that keeps keys must do.

use crate::folder::{FolderError, random};
use std::{
    fmt,
    path::{Path, PathBuf},
};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// 32 random bytes that open one vault; never shown, overwritten when dropped.
///
/// They lie on the heap, because a value that is moved leaves its bytes where it was.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Key(Box<[u8; 32]>);

impl Key {
    pub fn generate() -> Result<Key, FolderError> {
        let mut key = Key(Box::new([0; 32]));
        getrandom::fill(&mut key.0[..]).map_err(FolderError::Randomness)?;
        Ok(key)
    }

    /// Nothing where there are not exactly 32 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Key> {
        let mut key = Key(Box::new([0; 32]));
        if bytes.len() != key.0.len() {
            return None;
        }
        key.0.copy_from_slice(bytes);
        Some(key)
    }

    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(•••)")
    }
}

/// Tells one vault from another, so that each finds its own key. As text 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VaultId([u8; 16]);

impl VaultId {
    pub(crate) fn generate() -> Result<VaultId, FolderError> {
        Ok(VaultId(random()?))
    }

    pub const fn from_bytes(bytes: [u8; 16]) -> VaultId {
        VaultId(bytes)
    }

    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for VaultId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Where the key of a vault lies; each vault says it of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyPlace {
    /// In a file that only its owner reads, beside the vault.
    File,
    /// With the desktop's keyring.
    Keyring,
}

impl fmt::Display for KeyPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyPlace::File => "the key file",
            KeyPlace::Keyring => "the system keyring",
        })
    }
}

/// Keeps the keys of vaults.
pub trait KeyStore: fmt::Debug + Send + Sync {
    /// Makes the key of a vault that has none yet, and says where it lies. Called by one writer at a time, after the vault's folder was made.
    fn create(&self, vault: VaultId) -> Result<(Key, KeyPlace), KeyError>;

    /// Brings the key of a vault from the place that the vault names. Never makes one.
    fn load(&self, vault: VaultId, place: KeyPlace) -> Result<Key, KeyError>;
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the key file {} is missing, and nothing else opens this vault: bring it back from a copy, or move the vault away", path.display())]
    NoFile { path: PathBuf },
    #[error("the key file {} does not hold 32 bytes", path.display())]
    Length { path: PathBuf },
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error("the key of the vault lies in {place}, but only {asked} was to be asked")]
    OtherPlace { place: KeyPlace, asked: KeyPlace },
    #[error("there is no system keyring: {program} is not on the PATH")]
    NoKeyring { program: &'static str },
    #[error(
        "the system keyring has no key for the vault {vault}, and nothing else opens it: unlock the keyring that it was made with, or move the vault away"
    )]
    NotInKeyring { vault: VaultId },
    #[error("the system keyring holds something else than a key for the vault {vault}")]
    KeyringContent { vault: VaultId },
    #[error("the system keyring did not keep the key for the vault {vault}")]
    NotKept { vault: VaultId },
    #[error("cannot run {}", program.display())]
    Run { program: PathBuf, source: std::io::Error },
    #[error("{} did not answer within {seconds} seconds: is the keyring locked?", program.display())]
    Silent { program: PathBuf, seconds: u64 },
    #[error("{} failed: {said}", program.display())]
    Refused { program: PathBuf, said: String },
}

impl KeyError {
    pub(crate) fn no_file(path: &Path) -> KeyError {
        KeyError::NoFile { path: path.to_owned() }
    }
}
