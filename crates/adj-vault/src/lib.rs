//! Secrets at rest, and the placeholders that stand for them where agents work.
//!
//! Must not know: agents, the network, or who asks for a secret.
//! Start at [`Vault`]: one encrypted file, whose key a [`KeyStore`] holds. An [`Entry`] says which hosts a secret is for and where in a request
//! it goes; [`placeholder`] makes the text that is handed into a sandbox in its stead. A [`Folder`] keeps other private files as it keeps the vault's.
//!
//! What it protects: a copy of the vault's file (a backup, a synchronised folder, a disk) tells nothing without the key, and a change to it
//! is noticed. What it does not: whoever runs as the same user can ask for the key as we do, and with [`KeyFile`] the key lies beside the vault, so
//! that a copy of the whole folder holds both. An old version of the file that is put back is taken for the present one.

mod entry;
mod placeholder;

mod folder;
mod key;
mod key_file;
mod keyring;
mod keys;

mod seal;
mod vault;

mod dumps;

pub use dumps::forbid_core_dumps;
pub use entry::{Entry, EntryError, EnvName, HeaderName, Place, SecretName};
pub use folder::{Existing, Folder, FolderError, Lock};
pub use key::{Key, KeyError, KeyPlace, KeyStore, VaultId};
pub use key_file::KeyFile;
pub use keyring::{KeyringProgram, SystemKeyring};
pub use keys::{KeySource, Keys};
pub use placeholder::{PLACEHOLDER_START, placeholder};
pub use vault::{Vault, VaultError};
