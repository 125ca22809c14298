//! Golden files are fresh: nothing waits for review, and no file is left that no test looks at.

use super::{Memory, Outcome};
use crate::repository::Repository;
use anyhow::{Context, Result};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Prepares the file in which the tests write down which golden files they looked at.
pub fn references(repository: &Repository) -> Result<PathBuf> {
    let file = repository.scratch("golden")?.join("references");
    fs::write(&file, "").with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

pub fn check(repository: &Repository, memory: &Memory) -> Result<Outcome> {
    let mut golden = BTreeSet::new();
    let mut problems = Vec::new();
    let shown = |path: &Path| path.strip_prefix(&repository.root).unwrap_or(path).display().to_string();
    for folder in ["crates", "xtask"] {
        visit(&repository.root.join(folder), &mut |path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.ends_with(".snap.new") || name.ends_with(".pending-snap") {
                problems.push(format!("{} waits for review", shown(path)));
            } else if name.ends_with(".snap") {
                golden.insert(path.to_owned());
            }
        })?;
    }
    if !problems.is_empty() || golden.is_empty() {
        return Ok(Outcome::of(problems, "no golden files"));
    }
    if !memory.all_tests_ran {
        return Ok(Outcome::NotChecked(
            "nothing waits for review; whether each golden file is used is only known after `tests` passed in the same run".into(),
        ));
    }
    let file = repository.target().join("xtask/golden/references");
    let used = read_references(&fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?);
    let unused = golden.iter().filter(|path| !used.contains(*path));
    problems.extend(unused.map(|path| format!("{} is used by no test", shown(path))));
    Ok(Outcome::of(problems, format!("{} golden files", golden.len())))
}

fn read_references(text: &str) -> BTreeSet<PathBuf> {
    // Tests name their files with detours such as `src/../tests`.
    text.lines().filter_map(|line| fs::canonicalize(line).ok()).collect()
}

fn visit(folder: &Path, see: &mut impl FnMut(&Path)) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            visit(&entry.path(), see)?;
        } else {
            see(&entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn references_are_compared_without_their_detours() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("src")).unwrap();
        fs::write(root.join("a.snap"), "").unwrap();
        let text = format!("{0}/src/../a.snap\n{0}/gone.snap\n\n", root.display());
        assert_eq!(read_references(&text), BTreeSet::from([root.join("a.snap")]));
    }
}
