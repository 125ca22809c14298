//! A short name for the state of a folder: it changes whenever anything in the folder does.
//!
//! Must not know: what the name is compared with.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
};

/// More than this cannot be looked through in the time that a question may take.
const MOST_ENTRIES: u64 = 1_000_000;

/// Hashes every path below `root` with its kind, size, mode and times, contents unread: the kernel moves a file's change
/// time with every change, and nobody without its clock can set it back.
pub fn fingerprint(root: &Path) -> io::Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new_derive_key("adjutant 2026 workspace fingerprint v1");
    let mut entries = 0;
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let mut names = match fs::read_dir(&folder) {
            Ok(found) => found.collect::<io::Result<Vec<_>>>()?,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        names.sort_by_key(fs::DirEntry::file_name);
        for entry in names {
            entries += 1;
            if entries > MOST_ENTRIES {
                return Err(io::Error::other(format!(
                    "{} holds more than {MOST_ENTRIES} entries: too much to bind an approval to",
                    root.display()
                )));
            }
            let data = match entry.metadata() {
                Ok(data) => data,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let path = entry.path();
            let bytes = path.as_os_str().as_bytes();
            hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
            hasher.update(&data.mode().to_le_bytes());
            if data.is_dir() {
                folders.push(path);
            } else {
                hasher.update(&data.size().to_le_bytes()).update(&data.ino().to_le_bytes());
                hasher.update(&data.ctime().to_le_bytes()).update(&data.ctime_nsec().to_le_bytes());
            }
        }
    }
    Ok(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_changes_it() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("src")).expect("a folder can be made");
        fs::write(at("src/a"), "one").expect("a file can be written");
        let mut last = fingerprint(folder.path()).expect("the folder can be read");
        assert_eq!(fingerprint(folder.path()).expect("the folder can be read"), last);
        let changes: [(&str, &dyn Fn() -> io::Result<()>); 6] = [
            ("same size", &|| fs::write(at("src/a"), "two")),
            ("new file", &|| fs::write(at("b"), "")),
            ("rename", &|| fs::rename(at("b"), at("c"))),
            ("new folder", &|| fs::create_dir(at("d"))),
            ("link", &|| std::os::unix::fs::symlink("/etc/passwd", at("link"))),
            ("removal", &|| fs::remove_file(at("src/a"))),
        ];
        for (name, change) in changes {
            // The kernel's file times move in steps.
            std::thread::sleep(std::time::Duration::from_millis(15));
            change().unwrap_or_else(|error| panic!("{name}: {error}"));
            let now = fingerprint(folder.path()).expect("the folder can be read");
            assert_ne!(now, last, "{name}");
            last = now;
        }
    }
}
