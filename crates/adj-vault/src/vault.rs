//! The vault itself: secrets by name, changed by one writer at a time.

use crate::{
    entry::{Entry, EntryError, EnvName, SecretName},
    folder::{Existing, Folder, FolderError, random},
    key::{Key, KeyError, KeyPlace, KeyStore, VaultId},
    placeholder::{PLACEHOLDER_START, placeholder},
    seal::{self, Content, FORMAT, Header, MAX_ENTRIES, MAX_FILE_BYTES, Unreadable},
};
use adj_domain::Secret;
use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};
use zeroize::Zeroizing;

/// Why a vault could not be opened or changed. Whatever it is, the file stays as it was.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Entry(#[from] EntryError),
    #[error("{} is not a vault", path.display())]
    NotAVault { path: PathBuf },
    #[error("the vault {} has format {found}; this build reads format {FORMAT}", path.display())]
    Format { path: PathBuf, found: u8 },
    #[error("the vault {} is damaged", path.display())]
    Damaged { path: PathBuf },
    #[error("the vault {} does not open: it was changed or cut off, or the key is another's", path.display())]
    Locked { path: PathBuf },
    #[error("the vault {} was moved away while it was open", path.display())]
    Gone { path: PathBuf },
    #[error("a vault holds at most {MAX_ENTRIES} secrets")]
    Full,
    #[error("a vault holds at most {MAX_FILE_BYTES} bytes")]
    TooLarge,
    #[error("the variable {env} already holds the placeholder of the secret {by}")]
    VariableTaken { env: EnvName, by: SecretName },
    #[error(
        "the value of {name} is shorter than {MIN_SECRET_BYTES} characters: such a one is guessed, and cannot be told from other text"
    )]
    Short { name: SecretName },
    #[error("the value of {name} is itself a placeholder")]
    Placeholder { name: SecretName },
    #[error("the value of {name} also stands in its name, variable or note, which are shown")]
    Shown { name: SecretName },
}

const FILE: &str = "secrets";
const MIN_SECRET_BYTES: usize = 8;

/// The secrets of one user: the file `secrets` in a private folder, encrypted with a key that a [`KeyStore`] holds.
///
/// What it shows is what was there when it was opened, changed or reloaded last. Values leave it only by [`Vault::secret`].
pub struct Vault {
    folder: PathBuf,
    keys: Arc<dyn KeyStore>,
    opened: Option<Opened>,
}

struct Opened {
    id: VaultId,
    place: KeyPlace,
    key: Key,
    content: Content,
}

impl Vault {
    /// Opens the vault in `folder`. Where there is none yet it is empty, and nothing is made before the first [`Vault::set`].
    pub fn open(folder: &Path, keys: Arc<dyn KeyStore>) -> Result<Vault, VaultError> {
        let mut vault = Vault { folder: folder.to_owned(), keys, opened: None };
        vault.reload()?;
        Ok(vault)
    }

    /// Looks at the file again, for what others have changed. The key is asked for only if it is another vault by now.
    /// On an error the vault keeps showing what it showed.
    pub fn reload(&mut self) -> Result<(), VaultError> {
        let folder = Folder::open(&self.folder)?;
        self.opened = match folder {
            Some(folder) => self.read(&folder)?,
            None => None,
        };
        Ok(())
    }

    /// Takes a secret in, in place of the one of that name if there is one; says whether there was.
    pub fn set(&mut self, entry: Entry, secret: Secret) -> Result<bool, VaultError> {
        entry.check()?;
        check_value(&entry, &secret)?;
        let folder = Folder::make(&self.folder)?;
        let _lock = folder.lock()?;
        let mut opened = match self.read_again(&folder)? {
            Some(opened) => opened,
            None => self.found()?,
        };
        let secrets = &mut opened.content.secrets;
        let others = secrets.values().map(|(other, _)| other).filter(|other| other.name != entry.name);
        if let Some(env) = &entry.env
            && let Some(other) = others.into_iter().find(|other| other.env.as_ref() == Some(env))
        {
            return Err(VaultError::VariableTaken { env: env.clone(), by: other.name.clone() });
        }
        let replaced = secrets.insert(entry.name.clone(), (entry, secret)).is_some();
        if secrets.len() > MAX_ENTRIES {
            return Err(VaultError::Full);
        }
        self.write(&folder, opened)?;
        Ok(replaced)
    }

    /// Removes a secret; says whether there was one.
    pub fn remove(&mut self, name: &str) -> Result<bool, VaultError> {
        let Some(folder) = Folder::open(&self.folder)? else {
            return match self.opened {
                Some(_) => Err(self.gone()),
                None => Ok(false),
            };
        };
        let _lock = folder.lock()?;
        let Some(mut opened) = self.read_again(&folder)? else {
            return Ok(false);
        };
        let removed = opened.content.secrets.remove(name).is_some();
        match removed {
            true => self.write(&folder, opened)?,
            false => self.opened = Some(opened),
        }
        Ok(removed)
    }

    /// Everything but the values, by name.
    pub fn list(&self) -> Vec<&Entry> {
        let secrets = self.opened.iter().flat_map(|opened| opened.content.secrets.values());
        secrets.map(|(entry, _)| entry).collect()
    }

    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.find(name).map(|(entry, _)| entry)
    }

    pub fn secret(&self, name: &str) -> Option<&Secret> {
        self.find(name).map(|(_, secret)| secret)
    }

    /// The text that stands for a secret in one session; see [`placeholder`].
    pub fn placeholder(&self, session: &str, name: &str) -> Option<String> {
        let (entry, secret) = self.find(name)?;
        let salt = &self.opened.as_ref()?.content.salt;
        Some(placeholder(session, &entry.name, secret, salt))
    }

    /// Where the key lies; nothing while there is no vault.
    pub fn key_place(&self) -> Option<KeyPlace> {
        self.opened.as_ref().map(|opened| opened.place)
    }

    fn find(&self, name: &str) -> Option<&(Entry, Secret)> {
        self.opened.as_ref()?.content.secrets.get(name)
    }

    fn path(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    fn gone(&self) -> VaultError {
        VaultError::Gone { path: self.path() }
    }

    fn read(&self, folder: &Folder) -> Result<Option<Opened>, VaultError> {
        let Some(mut bytes) = folder.read(FILE, MAX_FILE_BYTES)? else {
            return Ok(None);
        };
        let path = || self.path();
        let unreadable = |why| match why {
            Unreadable::NotAVault => VaultError::NotAVault { path: path() },
            Unreadable::Format(found) => VaultError::Format { path: path(), found },
            Unreadable::Damaged => VaultError::Damaged { path: path() },
            Unreadable::Locked => VaultError::Locked { path: path() },
        };
        let Header { place, id } = seal::read_header(&bytes).map_err(unreadable)?;
        let key = match &self.opened {
            Some(opened) if opened.id == id && opened.place == place => opened.key.clone(),
            _ => self.keys.load(id, place)?,
        };
        let content = seal::open(&mut bytes, &key).map_err(unreadable)?;
        Ok(Some(Opened { id, place, key, content }))
    }

    /// Reads for a change. A vault that has vanished since is not begun anew: its secrets may be wanted back.
    fn read_again(&self, folder: &Folder) -> Result<Option<Opened>, VaultError> {
        match (self.read(folder)?, &self.opened) {
            (None, Some(_)) => Err(self.gone()),
            (found, _) => Ok(found),
        }
    }

    fn found(&self) -> Result<Opened, VaultError> {
        let id = VaultId::generate()?;
        let salt = Zeroizing::new(random()?);
        let (key, place) = self.keys.create(id)?;
        Ok(Opened { id, place, key, content: Content { salt, secrets: BTreeMap::new() } })
    }

    fn write(&mut self, folder: &Folder, opened: Opened) -> Result<(), VaultError> {
        let header = Header { place: opened.place, id: opened.id };
        let bytes = seal::seal(header, random()?, &opened.key, &opened.content).ok_or(VaultError::TooLarge)?;
        folder.write(FILE, &bytes, Existing::Replace)?;
        self.opened = Some(opened);
        Ok(())
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("folder", &self.folder).field("entries", &self.list()).finish_non_exhaustive()
    }
}

fn check_value(entry: &Entry, secret: &Secret) -> Result<(), VaultError> {
    let name = || entry.name.clone();
    let value = secret.expose();
    if value.len() < MIN_SECRET_BYTES {
        return Err(VaultError::Short { name: name() });
    }
    if value.starts_with(PLACEHOLDER_START) {
        return Err(VaultError::Placeholder { name: name() });
    }
    let shown = [Some(entry.name.as_str()), entry.env.as_ref().map(EnvName::as_str), entry.note.as_deref()];
    match shown.into_iter().flatten().any(|text| text.contains(value)) {
        true => Err(VaultError::Shown { name: name() }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{entry::Place, key_file::KeyFile};
    use adj_domain::{HostRule, Timestamp};

    fn entry(name: &str) -> Entry {
        Entry {
            name: name.parse().expect("the name is good"),
            env: None,
            hosts: vec!["api.example.org".parse().expect("the rule is good")],
            place: Place::Body,
            git: false,
            note: None,
            created: Timestamp::UNIX_EPOCH,
        }
    }

    fn secret(value: &str) -> Secret {
        Secret::parse("test", value.to_owned()).expect("the secret is good")
    }

    #[test]
    fn a_vault_has_an_end() {
        let home = tempfile::tempdir().expect("a scratch folder");
        let path = home.path().join("vault");
        let mut vault = Vault::open(&path, Arc::new(KeyFile::new(&path))).expect("an empty vault");
        let folder = Folder::make(&path).expect("a folder");
        let mut opened = vault.found().expect("a new vault");
        for number in 0..MAX_ENTRIES {
            let entry = entry(&format!("secret_{number}"));
            opened.content.secrets.insert(entry.name.clone(), (entry, secret("first-value")));
        }
        vault.write(&folder, opened).expect("a thousand fit");

        assert!(matches!(vault.set(entry("one_more"), secret("first-value")), Err(VaultError::Full)));
        assert!(vault.set(entry("secret_0"), secret("another-value")).expect("one for another"));
        let paths = vec!["x".repeat(MAX_FILE_BYTES)];
        let wide = HostRule { paths, ..entry("x").hosts[0].clone() };
        let wide = Entry { hosts: vec![wide], ..entry("secret_1") };
        assert!(matches!(vault.set(wide, secret("first-value")), Err(VaultError::TooLarge)));

        vault.reload().expect("the file is as it was");
        assert_eq!(vault.list().len(), MAX_ENTRIES);
        assert_eq!(vault.secret("secret_0"), Some(&secret("another-value")));
        assert_eq!(vault.secret("secret_1"), Some(&secret("first-value")));
    }
}
