//! A vault's key in a file beside it, which only its owner reads.

use crate::{
    folder::{Existing, Folder},
    key::{Key, KeyError, KeyPlace, KeyStore, VaultId},
};
use std::path::{Path, PathBuf};

const NAME: &str = "key";

/// The key in the file `key` of the vault's folder: 32 bytes, mode 0600.
#[derive(Debug, Clone)]
pub struct KeyFile {
    folder: PathBuf,
}

impl KeyFile {
    /// `folder` is that of the vault.
    pub fn new(folder: &Path) -> KeyFile {
        KeyFile { folder: folder.to_owned() }
    }

    fn path(&self) -> PathBuf {
        self.folder.join(NAME)
    }

    fn find(&self, folder: &Folder) -> Result<Option<Key>, KeyError> {
        let Some(content) = folder.read(NAME, 4096)? else {
            return Ok(None);
        };
        Key::from_bytes(&content).map(Some).ok_or_else(|| KeyError::Length { path: self.path() })
    }
}

impl KeyStore for KeyFile {
    /// A key that lies there already, from a vault that was never finished or was moved away, is taken up: it may be needed again.
    fn create(&self, _vault: VaultId) -> Result<(Key, KeyPlace), KeyError> {
        let folder = Folder::make(&self.folder)?;
        let key = match self.find(&folder)? {
            Some(key) => key,
            None => {
                let key = Key::generate()?;
                folder.write(NAME, key.expose(), Existing::Keep)?;
                key
            }
        };
        Ok((key, KeyPlace::File))
    }

    fn load(&self, _vault: VaultId, place: KeyPlace) -> Result<Key, KeyError> {
        if place != KeyPlace::File {
            return Err(KeyError::OtherPlace { place, asked: KeyPlace::File });
        }
        let missing = || KeyError::no_file(&self.path());
        let folder = Folder::open(&self.folder)?.ok_or_else(missing)?;
        self.find(&folder)?.ok_or_else(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs::{self, Permissions},
        os::unix::fs::{PermissionsExt, symlink},
    };

    #[test]
    fn a_key_is_made_once() {
        let home = tempfile::tempdir().expect("a scratch folder");
        let keys = KeyFile::new(&home.path().join("vault"));
        let id = VaultId::from_bytes([1; 16]);
        assert!(matches!(keys.load(id, KeyPlace::File), Err(KeyError::NoFile { .. })));
        let (key, place) = keys.create(id).expect("a new key");
        assert_eq!(place, KeyPlace::File);
        let mode = fs::metadata(keys.path()).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        assert_eq!(fs::read(keys.path()).expect("it is there"), key.expose());
        assert!(keys.load(id, KeyPlace::File).expect("the key") == key);
        assert!(keys.create(id).expect("the key that is there").0 == key);
        assert!(matches!(keys.load(id, KeyPlace::Keyring), Err(KeyError::OtherPlace { .. })));
        assert!(!format!("{key:?} {keys:?}").contains(&format!("{:?}", key.expose())[1..20]));
    }

    #[test]
    fn a_key_that_others_could_know_is_refused() {
        type Spoil = fn(&Path);
        let cases: [(&str, Spoil, &str); 6] = [
            ("group", |path| fs::set_permissions(path, Permissions::from_mode(0o640)).expect("ours"), "mode 640"),
            (
                "other",
                |path| fs::set_permissions(path, Permissions::from_mode(0o604)).expect("ours"),
                "run `chmod 600 ",
            ),
            ("short", |path| fs::write(path, [0; 31]).expect("ours"), "does not hold 32 bytes"),
            ("long", |path| fs::write(path, [0; 33]).expect("ours"), "does not hold 32 bytes"),
            ("gone", |path| fs::remove_file(path).expect("ours"), "is missing"),
            (
                "link",
                |path| {
                    let elsewhere = path.with_file_name("elsewhere");
                    fs::rename(path, &elsewhere).expect("ours");
                    symlink(elsewhere, path).expect("ours");
                },
                "not a regular file",
            ),
        ];
        for (name, spoil, words) in cases {
            let home = tempfile::tempdir().expect("a scratch folder");
            let keys = KeyFile::new(&home.path().join("vault"));
            let id = VaultId::from_bytes([1; 16]);
            keys.create(id).expect("a new key");
            spoil(&keys.path());
            let error = keys.load(id, KeyPlace::File).expect_err(name).to_string();
            assert!(error.contains(words), "{name}: {error}");
            if name != "gone" {
                keys.create(id).expect_err("a spoiled key is not replaced");
            }
        }
    }

    #[test]
    fn a_key_of_another_user_is_refused() {
        if !rustix::process::geteuid().is_root() {
            // Only root can give a file away; an ordinary user meets the case with a file of root's.
            let error = Folder::open(Path::new("/")).expect_err("the root folder is not ours").to_string();
            assert!(error.contains("belongs to user"), "{error}");
            return;
        }
        let home = tempfile::tempdir().expect("a scratch folder");
        let keys = KeyFile::new(&home.path().join("vault"));
        let id = VaultId::from_bytes([1; 16]);
        keys.create(id).expect("a new key");
        std::os::unix::fs::chown(keys.path(), Some(12345), None).expect("root may");
        let error = keys.load(id, KeyPlace::File).expect_err("it is another's").to_string();
        assert!(error.contains("belongs to user 12345, not to user 0"), "{error}");
    }
}
