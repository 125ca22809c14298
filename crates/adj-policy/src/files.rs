//! Reads policy folders: `NAME.toml` and `rules/*.rules`, none of them trusted further than it has to be.
//!
//! Must not know: what the files say beyond handing them on to be read.

use crate::{
    PolicyError,
    layer::{Layer, LayerKind},
    rule_file::RuleFile,
    settings::Settings,
};
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fstat, openat, statat},
    io::Errno,
};
use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::Read,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Longest policy file, and longest file of rules.
pub const LARGEST_FILE: u64 = 1 << 20;
/// Most files of rules in one folder.
pub const MOST_RULE_FILES: usize = 100;

/// How far the author of a folder is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Only what this user owns, and nobody else can write.
    Owner(u32),
    /// The user's own: links are followed, as those who keep their settings elsewhere expect.
    User,
    /// A stranger's: nothing that could lead out of the folder is followed.
    Stranger,
}

/// Reads the layer that lies in a folder; `None` where there is nothing to read.
///
/// `below` are the folders to go down from `root` without following links.
pub(crate) fn load(
    kind: LayerKind,
    root: &Path,
    below: &[&str],
    file: &str,
    trust: Trust,
) -> Result<Option<Layer>, PolicyError> {
    let mut path = root.to_owned();
    let follows_root = if trust == Trust::Stranger { Trust::User } else { trust };
    let Some(mut folder) = open(CWD, root.as_os_str(), &path, "folder", follows_root)? else { return Ok(None) };
    for name in below {
        path.push(name);
        let Some(next) = open(&folder, OsStr::new(name), &path, "folder", trust)? else { return Ok(None) };
        folder = next;
    }
    let file_path = path.join(file);
    let text = open(&folder, OsStr::new(file), &file_path, "file", trust)?;
    let text = text.map(|opened| read(opened, &file_path)).transpose()?;
    let layer = text.map(|text| Layer::parse(kind, &file_path, &text)).transpose()?;
    let rules_path = path.join("rules");
    let rule_files = match open(&folder, OsStr::new("rules"), &rules_path, "folder", trust)? {
        None => Vec::new(),
        Some(rules) => load_rules(&rules, &rules_path, trust)?,
    };
    Ok(match layer {
        Some(layer) => Some(Layer { rule_files, ..layer }),
        None if rule_files.is_empty() => None,
        None => Some(Layer { rule_files, ..Layer::new(kind, Settings::default()) }),
    })
}

fn load_rules(folder: &OwnedFd, path: &Path, trust: Trust) -> Result<Vec<Arc<RuleFile>>, PolicyError> {
    let failed = |source: Errno| PolicyError::Read { path: path.to_owned(), source: source.into() };
    let mut names: Vec<OsString> = Vec::new();
    for entry in Dir::read_from(folder).map_err(failed)? {
        let name = OsStr::from_bytes(entry.map_err(failed)?.file_name().to_bytes()).to_owned();
        if Path::new(&name).extension() != Some(OsStr::new("rules")) {
            continue;
        }
        names.push(name);
        if names.len() > MOST_RULE_FILES {
            return Err(PolicyError::TooManyFiles { path: path.to_owned(), limit: MOST_RULE_FILES });
        }
    }
    names.sort();
    let mut files = Vec::new();
    for name in names {
        let file = path.join(&name);
        // A name that is gone by now was taken away while we looked.
        if let Some(opened) = open(folder, &name, &file, "file", trust)? {
            let text = read(opened, &file)?;
            files.push(Arc::new(RuleFile::load(&file, &text)?));
        }
    }
    Ok(files)
}

/// Opens a file or folder and checks what was opened, not what the name stood for before.
fn open(
    at: impl AsFd,
    name: &OsStr,
    path: &Path,
    expected: &'static str,
    trust: Trust,
) -> Result<Option<OwnedFd>, PolicyError> {
    let at = at.as_fd();
    let owned = || path.to_owned();
    // Without NONBLOCK a named pipe would hold us.
    let mut flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    if trust != Trust::User {
        flags |= OFlags::NOFOLLOW;
    }
    let opened = match openat(at, name, flags, Mode::empty()) {
        Ok(opened) => opened,
        Err(Errno::NOENT) if trust == Trust::User && is_link(at, name) => {
            // A link that leads nowhere is a policy that went missing, not one that never was.
            return Err(PolicyError::Read { path: owned(), source: Errno::NOENT.into() });
        }
        Err(Errno::NOENT) => return Ok(None),
        Err(_) if trust != Trust::User && is_link(at, name) => return Err(PolicyError::Link { path: owned() }),
        Err(source) => return Err(PolicyError::Read { path: owned(), source: source.into() }),
    };
    let stat = fstat(&opened).map_err(|source| PolicyError::Read { path: owned(), source: source.into() })?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if (expected == "folder") != kind.is_dir() || (expected == "file") != kind.is_file() {
        return Err(PolicyError::Kind { path: owned(), expected });
    }
    if let Trust::Owner(user) = trust {
        let mode = Mode::from_raw_mode(stat.st_mode);
        if stat.st_uid != user {
            return Err(PolicyError::Owner { path: owned(), found: stat.st_uid, expected: user });
        }
        if mode.intersects(Mode::WGRP | Mode::WOTH) {
            return Err(PolicyError::Writable { path: owned(), mode: mode.as_raw_mode() & 0o7777 });
        }
    }
    Ok(Some(opened))
}

fn is_link(at: impl AsFd, name: &OsStr) -> bool {
    statat(at, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}

fn read(opened: OwnedFd, path: &Path) -> Result<String, PolicyError> {
    let mut bytes = Vec::new();
    let path = || -> PathBuf { path.to_owned() };
    let mut file = File::from(opened).take(LARGEST_FILE + 1);
    file.read_to_end(&mut bytes).map_err(|source| PolicyError::Read { path: path(), source })?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(PolicyError::TooLarge { path: path(), limit: LARGEST_FILE });
    }
    String::from_utf8(bytes)
        .map_err(|error| PolicyError::NotText { path: path(), offset: error.utf8_error().valid_up_to() })
}
