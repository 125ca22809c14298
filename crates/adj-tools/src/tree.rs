//! Finding files without leaving the workspace.
//!
//! A path is walked one name at a time, each opened beneath the folder before it and never through a link: links are read here, and
//! their targets walked in the same way. So there is no moment in which a swapped folder or link leads outside, `..` never asks the
//! disk, and `/proc`'s magic links are plain text. (`openat2` would do the same in one call, but system call filters cannot look into
//! its arguments, so sandboxes answer that it does not exist.)

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

const LONGEST_PATH_BYTES: usize = 4096;
const DEEPEST: usize = 128;
const MOST_LINKS: usize = 40;

/// What a path may lead to: the workspace, and the private temporary folder if there is one.
#[derive(Debug)]
pub(crate) struct Tree {
    pub workspace: Base,
    pub scratch: Option<Base>,
}

#[derive(Debug)]
pub(crate) struct Base {
    pub path: PathBuf,
    fd: OwnedFd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Area {
    Workspace,
    Scratch,
}

/// Where a path led.
#[derive(Debug)]
pub(crate) struct Place {
    pub area: Area,
    /// Below the area's folder, without links; empty for that folder itself.
    pub relative: PathBuf,
    /// As people are shown it: relative in the workspace, absolute elsewhere.
    pub shown: String,
    pub found: Found,
    /// The deepest existing folder above it.
    pub(crate) parent: OwnedFd,
    /// Folders between `parent` and `name` that do not exist yet.
    pub(crate) missing_folders: Vec<OsString>,
    pub(crate) name: OsString,
}

#[derive(Debug)]
pub(crate) enum Found {
    Missing,
    File(Box<Stat>),
    Folder,
    Special(&'static str),
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum TreeError {
    #[error("the path is empty; use \".\" for the workspace")]
    Empty,
    #[error("the path is longer or deeper than paths can be")]
    TooLong,
    #[error("the path contains a NUL character")]
    Nul,
    #[error("{path} leads outside; use a path inside {allowed}")]
    Outside { path: String, allowed: String },
    #[error("{path} goes through more than {MOST_LINKS} symbolic links")]
    TooManyLinks { path: String },
    #[error("{path} cannot exist, because {file} is a file and not a folder")]
    NotAFolder { path: String, file: String },
    #[error("{path} does not exist{hint}")]
    Missing { path: String, hint: String },
    #[error("{path} is a folder")]
    IsFolder { path: String },
    #[error("{path} is {kind}; only regular files can be used")]
    Special { path: String, kind: &'static str },
    #[error("{path} was changed by somebody else at this moment; try again")]
    Moved { path: String },
    #[error("cannot open {path}")]
    Io { path: String, source: io::Error },
}

impl Base {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let fd = openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { path: path.to_owned(), fd })
    }
}

impl Tree {
    /// Walks to where `path` leads, whether or not something is there.
    pub(crate) fn find(&self, path: &str) -> Result<Place, TreeError> {
        if path.is_empty() {
            return Err(TreeError::Empty);
        }
        if path.contains('\0') {
            return Err(TreeError::Nul);
        }
        if path.len() > LONGEST_PATH_BYTES {
            return Err(TreeError::TooLong);
        }
        let (area, below) = self.area_of(Path::new(path), Area::Workspace).ok_or_else(|| self.outside(path))?;
        Walk { tree: self, asked: path, area, folders: Vec::new(), links: 0 }.to(below)
    }

    pub(crate) fn base(&self, area: Area) -> &Base {
        match (area, &self.scratch) {
            (Area::Scratch, Some(scratch)) => scratch,
            _ => &self.workspace,
        }
    }

    /// The path of a place on disk, for walkers that take paths.
    pub(crate) fn path_of(&self, place: &Place) -> PathBuf {
        let base = &self.base(place.area).path;
        if place.relative.as_os_str().is_empty() { base.clone() } else { base.join(&place.relative) }
    }

    fn area_of<'p>(&self, path: &'p Path, current: Area) -> Option<(Area, &'p Path)> {
        if path.is_relative() {
            return Some((current, path));
        }
        if let Ok(below) = path.strip_prefix(&self.workspace.path) {
            return Some((Area::Workspace, below));
        }
        let scratch = self.scratch.as_ref()?;
        Some((Area::Scratch, path.strip_prefix(&scratch.path).ok()?))
    }

    fn outside(&self, path: &str) -> TreeError {
        let workspace = self.workspace.path.display();
        let allowed = match &self.scratch {
            Some(scratch) => format!("the workspace {workspace} or {}", scratch.path.display()),
            None => format!("the workspace {workspace}"),
        };
        TreeError::Outside { path: path.to_owned(), allowed }
    }
}

struct Walk<'t> {
    tree: &'t Tree,
    asked: &'t str,
    area: Area,
    /// The folders walked through, below the base.
    folders: Vec<(OsString, OwnedFd)>,
    links: usize,
}

impl Walk<'_> {
    fn to(mut self, below: &Path) -> Result<Place, TreeError> {
        let mut ahead: VecDeque<OsString> = VecDeque::new();
        push_front(&mut ahead, below);
        while let Some(name) = ahead.pop_front() {
            if name == ".." {
                if self.folders.pop().is_none() {
                    return Err(self.tree.outside(self.asked));
                }
                continue;
            }
            if self.folders.len() + ahead.len() > DEEPEST {
                return Err(TreeError::TooLong);
            }
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let opened = match openat(self.here(), name.as_os_str(), flags, Mode::empty()) {
                Ok(opened) => opened,
                Err(Errno::NOENT) => return self.missing(name, ahead),
                Err(Errno::NAMETOOLONG) => return Err(TreeError::TooLong),
                Err(error) => return Err(self.io(error)),
            };
            let stat = fstat(&opened).map_err(|error| self.io(error))?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => self.folders.push((name, opened)),
                FileType::Symlink => self.follow(&opened, &mut ahead)?,
                _ if !ahead.is_empty() => {
                    let file = self.show(&self.relative().join(&name));
                    return Err(TreeError::NotAFolder { path: self.asked.to_owned(), file });
                }
                kind => {
                    let found = match special(kind) {
                        Some(kind) => Found::Special(kind),
                        None => Found::File(Box::new(stat)),
                    };
                    return self.place(found, name, Vec::new());
                }
            }
        }
        match self.folders.pop() {
            Some((name, _)) => self.place(Found::Folder, name, Vec::new()),
            None => self.place(Found::Folder, OsString::new(), Vec::new()),
        }
    }

    fn here(&self) -> &OwnedFd {
        self.folders.last().map_or(&self.tree.base(self.area).fd, |(_, fd)| fd)
    }

    fn relative(&self) -> PathBuf {
        self.folders.iter().map(|(name, _)| name).collect()
    }

    fn show(&self, relative: &Path) -> String {
        let shown = match self.area {
            Area::Workspace if relative.as_os_str().is_empty() => Path::new(".").into(),
            Area::Workspace => relative.to_owned(),
            Area::Scratch => self.tree.base(Area::Scratch).path.join(relative),
        };
        shown.display().to_string()
    }

    fn follow(&mut self, link: &OwnedFd, ahead: &mut VecDeque<OsString>) -> Result<(), TreeError> {
        self.links += 1;
        if self.links > MOST_LINKS {
            return Err(TreeError::TooManyLinks { path: self.asked.to_owned() });
        }
        let target = readlinkat(link, "", Vec::new()).map_err(|error| self.io(error))?;
        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
        let (area, below) = self.tree.area_of(&target, self.area).ok_or_else(|| self.tree.outside(self.asked))?;
        if target.is_absolute() {
            self.folders.clear();
            self.area = area;
        }
        push_front(ahead, below);
        if ahead.len() > DEEPEST { Err(TreeError::TooLong) } else { Ok(()) }
    }

    fn missing(self, name: OsString, mut ahead: VecDeque<OsString>) -> Result<Place, TreeError> {
        let Some(last) = ahead.pop_back() else {
            return self.place(Found::Missing, name, Vec::new());
        };
        // Below a folder that does not exist, `..` has no meaning the disk could confirm.
        if last == ".." || ahead.iter().any(|name| name == "..") {
            let hint = format!("; {} is not there", self.show(&self.relative().join(&name)));
            return Err(TreeError::Missing { path: self.asked.to_owned(), hint });
        }
        let mut folders = vec![name];
        folders.extend(ahead);
        self.place(Found::Missing, last, folders)
    }

    fn place(mut self, found: Found, name: OsString, missing_folders: Vec<OsString>) -> Result<Place, TreeError> {
        let mut relative = self.relative();
        relative.extend(&missing_folders);
        if !name.is_empty() {
            relative.push(&name);
        }
        let shown = self.show(&relative);
        let parent = match self.folders.pop() {
            Some((_, fd)) => fd,
            None => self
                .tree
                .base(self.area)
                .fd
                .try_clone()
                .map_err(|source| TreeError::Io { path: self.asked.to_owned(), source })?,
        };
        Ok(Place { area: self.area, relative, shown, found, parent, missing_folders, name })
    }

    fn io(&self, error: Errno) -> TreeError {
        TreeError::Io { path: self.asked.to_owned(), source: error.into() }
    }
}

impl Place {
    /// Opens the regular file that is here, and nothing else.
    pub(crate) fn open_file(&self) -> Result<File, TreeError> {
        let path = || self.shown.clone();
        let expected = match &self.found {
            Found::File(stat) => stat,
            Found::Missing => {
                return Err(TreeError::Missing { path: path(), hint: self.hint() });
            }
            Found::Folder => return Err(TreeError::IsFolder { path: path() }),
            Found::Special(kind) => return Err(TreeError::Special { path: path(), kind }),
        };
        // Should a pipe or device take the file's place meanwhile, opening must not wait for it.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
        let io = |error: Errno| TreeError::Io { path: path(), source: error.into() };
        let file = openat(&self.parent, self.name.as_os_str(), flags, Mode::empty()).map_err(io)?;
        let opened = fstat(&file).map_err(io)?;
        if (opened.st_dev, opened.st_ino) != (expected.st_dev, expected.st_ino) {
            return Err(TreeError::Moved { path: path() });
        }
        Ok(file.into())
    }

    /// Whether any part of the path is git's own.
    pub(crate) fn is_in_git(&self) -> bool {
        self.relative.components().any(|part| part.as_os_str().eq_ignore_ascii_case(".git"))
    }

    /// Names like the missing one, from the folder where it was looked for.
    fn hint(&self) -> String {
        if let Some(folder) = self.missing_folders.first() {
            return format!("; there is no folder \"{}\"", folder.to_string_lossy());
        }
        let wanted = self.name.to_string_lossy();
        let names = openat(&self.parent, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .and_then(Dir::new)
            .map(|entries| {
                entries
                    .flatten()
                    .take(2_000)
                    .map(|entry| entry.file_name().to_string_lossy().into_owned())
                    .filter(|name| name != "." && name != "..")
                    .collect::<Vec<_>>()
            })
            .unwrap_or_default();
        match crate::near::closest(&names, &wanted) {
            Some(name) => format!("; beside it there is \"{name}\""),
            None => String::new(),
        }
    }

    /// Looks again at what is here, without following links.
    pub(crate) fn is_there(&self) -> bool {
        statat(&self.parent, self.name.as_os_str(), AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }
}

fn push_front(ahead: &mut VecDeque<OsString>, path: &Path) {
    for part in path.components().rev() {
        match part {
            Component::Normal(name) => ahead.push_front(name.to_owned()),
            Component::ParentDir => ahead.push_front(OsString::from("..")),
            // Roots were stripped when the area was chosen.
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
}

fn special(kind: FileType) -> Option<&'static str> {
    match kind {
        FileType::RegularFile => None,
        FileType::Fifo => Some("a named pipe"),
        FileType::Socket => Some("a socket"),
        FileType::CharacterDevice | FileType::BlockDevice => Some("a device"),
        _ => Some("not a file"),
    }
}
