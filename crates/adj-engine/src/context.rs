//! What a repository says to agents: instruction files and skills, read once at the start of a session.

use adj_harness::Instructions;
use rustix::fs::{CWD, Dir, Mode, OFlags, ResolveFlags, openat, openat2};
use std::{fs::File, io::Read, os::fd::OwnedFd, path::Path};

/// Instruction files at the top of a repository; the first that exists counts.
const INSTRUCTIONS: [&str; 2] = ["AGENTS.md", "CLAUDE.md"];
/// Folders that hold skills, each a folder with a `SKILL.md`.
const SKILLS: [&str; 2] = [".agents/skills", ".claude/skills"];
const MOST_SKILLS: usize = 50;
/// Entries of such a folder that are looked at.
const MOST_ENTRIES: usize = 1000;
const LONGEST_FILE: u64 = 64 * 1024;

/// Reads the instructions and the list of skills from the tree at `root`.
///
/// The tree is somebody else's: only regular files are read, no link on the way to them is followed, and sizes are bounded.
pub fn gather(root: &Path) -> Vec<Instructions> {
    let mut found = Vec::new();
    let Ok(root) = openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) else {
        return found;
    };
    if let Some(file) = INSTRUCTIONS.iter().find_map(|name| {
        let text = read(&root, name)?;
        Some(Instructions { path: (*name).to_owned(), text })
    }) {
        found.push(file);
    }
    let skills = skills(&root);
    if !skills.is_empty() {
        let text =
            format!("Skills are ways of working that you can read when they fit the task:\n{}", skills.join("\n"));
        found.push(Instructions { path: "skills".to_owned(), text });
    }
    found
}

fn skills(root: &OwnedFd) -> Vec<String> {
    let mut lines = Vec::new();
    for folder in SKILLS {
        let Some(entries) = open(root, folder).and_then(|folder| Dir::new(folder).ok()) else {
            continue;
        };
        let names = entries.flatten().filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned));
        let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).take(MOST_ENTRIES).collect();
        names.sort();
        for name in names.iter().take(MOST_SKILLS) {
            let path = format!("{folder}/{name}/SKILL.md");
            if let Some(description) = read(root, &path).as_deref().and_then(description) {
                lines.push(format!("- {path}: {description}"));
            }
        }
    }
    lines
}

/// The `description` of a skill's front matter.
fn description(text: &str) -> Option<String> {
    let (front, _) = text.strip_prefix("---")?.split_once("\n---")?;
    let line = front.lines().find_map(|line| line.strip_prefix("description:"))?;
    Some(line.trim().trim_matches('"').chars().take(300).collect())
}

fn open(root: &OwnedFd, path: &str) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    openat2(root, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS).ok()
}

fn read(root: &OwnedFd, path: &str) -> Option<String> {
    let file = File::from(open(root, path)?);
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(LONGEST_FILE).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    (!text.trim().is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    #[test]
    fn only_plain_files_of_the_repository_are_read() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("tree");
        fs::create_dir_all(root.join(".agents/skills/release")).unwrap();
        fs::write(home.path().join("secret"), "canary").unwrap();
        assert_eq!(gather(&root), Vec::new());

        symlink("../secret", root.join("AGENTS.md")).unwrap();
        fs::write(root.join("CLAUDE.md"), "Use tabs.").unwrap();
        fs::write(
            root.join(".agents/skills/release/SKILL.md"),
            "---\nname: release\ndescription: How to release\n---\nSteps",
        )
        .unwrap();
        // A folder of somebody else's skills, reached through a link at each place where one could be.
        let theirs = home.path().join("theirs/x");
        fs::create_dir_all(&theirs).unwrap();
        fs::write(theirs.join("SKILL.md"), "---\ndescription: canary\n---\n").unwrap();
        symlink(&theirs, root.join(".agents/skills/x")).unwrap();
        fs::create_dir(root.join(".claude")).unwrap();
        symlink(home.path().join("theirs"), root.join(".claude/skills")).unwrap();

        let found = gather(&root);
        assert_eq!(found[0], Instructions { path: "CLAUDE.md".to_owned(), text: "Use tabs.".to_owned() });
        assert!(found[1].text.ends_with("- .agents/skills/release/SKILL.md: How to release"), "{found:?}");
        assert!(!format!("{found:?}").contains("canary"));
    }
}
