//! Paths that a plan hides or makes unchangeable, although they lie in something that is shown or writable.
//!
//! Everything is looked up in the finished view of the sandbox, before anything runs in it; what is made later is nobody's secret yet.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use globset::GlobMatcher;
use rustix::fs::{AtFlags, FileType, Mode as FileMode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::mounts::{READ_ONLY, READ_WRITE, View, attach_at, clone_of};
use super::walk::{Met, Walk};
use crate::error::{Doing, Layer, SetupError};
use crate::pattern::{PathPattern, Place};
use crate::plan::{Mode, Plan};

/// Mounts cost the kernel memory and time.
const MAX_MASKS: usize = 4_096;
const MAX_LINKS: usize = 40;

const HIDDEN_FILE: &str = ".hidden-file";
const HIDDEN_FOLDER: &str = ".hidden-folder";

impl View<'_> {
    /// Carries out `plan.readonly`, then `plan.hidden`, and covers `sockets`.
    pub(super) fn masks(&self, plan: &Plan, sockets: &BTreeSet<PathBuf>) -> Result<(), SetupError> {
        let (search, mut walk) = (Search { view: self, plan }, Walk::new());
        let readonly = search.find(&plan.readonly, true, &mut walk)?;
        let hidden = search.find(&plan.hidden, false, &mut walk)?;
        let pins = pins(plan, &readonly, &hidden);
        let count = readonly.len() + hidden.len() + pins.len() + sockets.len();
        if count > MAX_MASKS {
            let what = format!("hide or protect {count} paths, more than {MAX_MASKS}");
            return Err(SetupError::new(Layer::Protection, what, Errno::TOOBIG));
        }
        self.make_unchangeable(plan, &readonly, pins)?;
        if hidden.is_empty() && sockets.is_empty() { Ok(()) } else { self.hide(&hidden, sockets) }
    }

    fn make_unchangeable(
        &self,
        plan: &Plan,
        paths: &BTreeSet<PathBuf>,
        pins: BTreeSet<PathBuf>,
    ) -> Result<(), SetupError> {
        let paths = paths.iter().filter(|path| writable_tree(plan, path).is_some());
        let mut all: Vec<(PathBuf, u64)> = paths.map(|path| (path.clone(), READ_ONLY)).collect();
        all.extend(pins.into_iter().map(|path| (path, READ_WRITE)));
        all.sort_by_key(|(path, _)| path.components().count());
        for (path, attributes) in all {
            let what = || format!("make {} unchangeable", path.display());
            let relative = path.strip_prefix("/").unwrap_or(&path);
            let target = match self.open_inside(relative) {
                Ok(target) => target,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error).doing(Layer::Protection, what),
            };
            attach_at(&clone_of(&target, &path)?, attributes, &target).doing(Layer::Protection, what)?;
        }
        Ok(())
    }

    /// Covers files with an empty one and folders with an empty one, neither of which can be opened.
    fn hide(&self, paths: &BTreeSet<PathBuf>, sockets: &BTreeSet<PathBuf>) -> Result<(), SetupError> {
        let making = || "make what hides paths".to_owned();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        rustix::fs::openat(self.root, HIDDEN_FILE, flags, FileMode::empty()).doing(Layer::Protection, making)?;
        rustix::fs::mkdirat(self.root, HIDDEN_FOLDER, FileMode::empty()).doing(Layer::Protection, making)?;
        let file = self.open_inside(Path::new(HIDDEN_FILE)).doing(Layer::Protection, making)?;
        let folder = self.open_inside(Path::new(HIDDEN_FOLDER)).doing(Layer::Protection, making)?;
        for path in paths.iter().chain(sockets) {
            let what = || format!("hide {}", path.display());
            let relative = path.strip_prefix("/").unwrap_or(path);
            let target = match self.open_inside(relative) {
                Ok(target) => target,
                // Gone in the meantime, or below a folder that is hidden already.
                Err(Errno::NOENT | Errno::NOTDIR) => continue,
                // So is it for us.
                Err(Errno::ACCESS) if sockets.contains(path) => continue,
                Err(error) => return Err(error).doing(Layer::Protection, what),
            };
            let stat = rustix::fs::statat(&target, "", AtFlags::EMPTY_PATH).doing(Layer::Protection, what)?;
            let kind = FileType::from_raw_mode(stat.st_mode);
            // Something else may be mounted in the place of what was seen on the host.
            if kind != FileType::Socket && !paths.contains(path) {
                continue;
            }
            let mask = clone_of(if kind == FileType::Directory { &folder } else { &file }, path)?;
            attach_at(&mask, READ_ONLY | libc::MOUNT_ATTR_NOEXEC, &target).doing(Layer::Protection, what)?;
        }
        // The masks stay; only their names in the root go.
        rustix::fs::unlinkat(self.root, HIDDEN_FILE, AtFlags::empty()).doing(Layer::Protection, making)?;
        rustix::fs::unlinkat(self.root, HIDDEN_FOLDER, AtFlags::REMOVEDIR).doing(Layer::Protection, making)
    }
}

/// The folders above what is held, as far as they could be renamed, which would carry it away from its name: now, or for the next
/// command, from which nothing would be hidden there. They become mount points of their own.
fn pins(plan: &Plan, readonly: &BTreeSet<PathBuf>, hidden: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
    let mut pins = BTreeSet::new();
    for path in readonly.iter().chain(hidden) {
        let Some(tree) = writable_tree(plan, path) else { continue };
        let above = path.ancestors().skip(1).take_while(|above| *above != tree && above.starts_with(tree));
        pins.extend(above.filter(|above| !readonly.contains(*above) && !hidden.contains(*above)).map(Path::to_owned));
    }
    pins
}

/// The tree that can be written to and that `path` lies in, if there is one.
fn writable_tree<'p>(plan: &'p Plan, path: &Path) -> Option<&'p Path> {
    let workspace = plan.workspace.inside().filter(|_| plan.mode == Mode::WorkspaceWrite);
    let binds = plan.binds.iter().filter(|bind| bind.writable).map(|bind| bind.inside.as_path());
    let trees = binds.chain(workspace).filter(|tree| path.starts_with(tree));
    trees.max_by_key(|tree| tree.components().count())
}

struct Search<'a> {
    view: &'a View<'a>,
    plan: &'a Plan,
}

impl Search<'_> {
    /// Everything that the patterns mean, as absolute paths without links.
    fn find(
        &self,
        patterns: &[PathPattern],
        refuses_links: bool,
        walk: &mut Walk,
    ) -> Result<BTreeSet<PathBuf>, SetupError> {
        let mut found = BTreeSet::new();
        let mut globs: Vec<(PathBuf, GlobMatcher)> = Vec::new();
        for pattern in patterns {
            match pattern.place(self.plan.workspace.inside()) {
                Some(Place::One(path)) => self.add(&path, refuses_links, &mut found)?,
                Some(Place::Matching { base, matcher }) => globs.push((base, matcher)),
                None => {}
            }
        }
        let bases: BTreeSet<&PathBuf> = globs.iter().map(|(base, _)| base).collect();
        let mut done: Vec<&PathBuf> = Vec::new();
        for base in bases {
            // What lies below another base is met on the way, unless a link leads there.
            let is_met = done.iter().any(|above| base.starts_with(above));
            if is_met && self.resolve(base)?.is_none_or(|real| real == *base) {
                continue;
            }
            self.look_through(base, &globs, refuses_links, walk, &mut found)?;
            done.push(base);
        }
        Ok(found)
    }

    fn look_through(
        &self,
        base: &Path,
        globs: &[(PathBuf, GlobMatcher)],
        refuses_links: bool,
        walk: &mut Walk,
        found: &mut BTreeSet<PathBuf>,
    ) -> Result<(), SetupError> {
        let Some(real) = self.resolve(base)? else { return Ok(()) };
        let folder = match self.open(&real, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW) {
            Ok(folder) => folder,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            Err(error) => return Err(error).doing(Layer::Protection, || format!("look through {}", base.display())),
        };
        walk.through(&folder, base, |path, met| {
            let path = base.join(path);
            // What cannot be looked through counts as if all of it matched.
            let is_meant = met == Met::Closed || globs.iter().any(|(_, matcher)| matcher.is_match(&path));
            if is_meant {
                self.add(&path, refuses_links, found)?;
            }
            Ok(!is_meant)
        })
    }

    /// Adds what a path really is; a link stands for what it leads to.
    fn add(&self, path: &Path, refuses_links: bool, found: &mut BTreeSet<PathBuf>) -> Result<(), SetupError> {
        let Some(real) = self.resolve(path)? else { return Ok(()) };
        if real == path {
            found.insert(real);
            return Ok(());
        }
        if refuses_links {
            // The link itself could be replaced.
            return Err(Errno::LOOP).doing(Layer::Protection, || format!("make {} unchangeable", path.display()));
        }
        // A link to the system's own folders shows nothing that is worth hiding, and hiding those would break everything.
        let workspace = self.plan.workspace.inside();
        let mut shown = self.plan.binds.iter().map(|bind| bind.inside.as_path()).chain(workspace);
        if shown.any(|tree| real.starts_with(tree) && real != tree)
            && workspace.is_none_or(|tree| !tree.starts_with(&real))
        {
            found.insert(real);
        }
        Ok(())
    }

    /// Where a path leads inside; `None` where nothing is.
    fn resolve(&self, path: &Path) -> Result<Option<PathBuf>, SetupError> {
        let what = || format!("follow {}", path.display());
        let mut left: Vec<OsString> = parts(path).rev().collect();
        let mut real = PathBuf::from("/");
        let mut links = 0;
        while let Some(part) = left.pop() {
            if part == ".." {
                real.pop();
                continue;
            }
            let next = real.join(&part);
            let fd = match self.open(&next, OFlags::PATH | OFlags::NOFOLLOW) {
                Ok(fd) => fd,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::NAMETOOLONG) => return Ok(None),
                Err(error) => return Err(error).doing(Layer::Protection, what),
            };
            let stat = rustix::fs::statat(&fd, "", AtFlags::EMPTY_PATH).doing(Layer::Protection, what)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
                real = next;
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                // The kernel does not follow it either.
                return Ok(None);
            }
            let target = rustix::fs::readlinkat(&fd, "", Vec::new()).doing(Layer::Protection, what)?;
            let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
            if target.is_absolute() {
                real = PathBuf::from("/");
            }
            left.extend(parts(&target).rev());
        }
        Ok(Some(real))
    }

    fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let relative = path.strip_prefix("/").unwrap_or(path);
        let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
        rustix::fs::openat2(self.view.root, relative, flags | OFlags::CLOEXEC, FileMode::empty(), resolve)
    }
}

/// The names of a path and its steps upwards.
fn parts(path: &Path) -> impl DoubleEndedIterator<Item = OsString> + '_ {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}
