//! What a repository says to agents: instruction files and skills, read once at the start of a session.

use adj_harness::Instructions;
use std::{fs, io::Read, os::unix::fs::OpenOptionsExt, path::Path};

/// Instruction files at the top of a repository; the first that exists counts.
const INSTRUCTIONS: [&str; 2] = ["AGENTS.md", "CLAUDE.md"];
/// Folders that hold skills, each a folder with a `SKILL.md`.
const SKILLS: [&str; 2] = [".agents/skills", ".claude/skills"];
const MOST_SKILLS: usize = 50;
const LONGEST_FILE: u64 = 64 * 1024;

/// Reads the instructions and the list of skills from the tree at `root`.
///
/// The tree is somebody else's: only regular files are read, links are not followed, and sizes are bounded.
pub fn gather(root: &Path) -> Vec<Instructions> {
    let mut found = Vec::new();
    if let Some(file) = INSTRUCTIONS.iter().find_map(|name| {
        let text = read(&root.join(name))?;
        Some(Instructions { path: (*name).to_owned(), text })
    }) {
        found.push(file);
    }
    let skills = skills(root);
    if !skills.is_empty() {
        let text =
            format!("Skills are ways of working that you can read when they fit the task:\n{}", skills.join("\n"));
        found.push(Instructions { path: "skills".to_owned(), text });
    }
    found
}

fn skills(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for folder in SKILLS {
        let Ok(entries) = fs::read_dir(root.join(folder)) else {
            continue;
        };
        let mut names: Vec<String> =
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).take(MOST_SKILLS).collect();
        names.sort();
        for name in names {
            let path = format!("{folder}/{name}/SKILL.md");
            if let Some(description) = read(&root.join(&path)).as_deref().and_then(description) {
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

fn read(path: &Path) -> Option<String> {
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)
        .ok()?;
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

    #[test]
    fn only_plain_files_of_the_repository_are_read() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("tree");
        fs::create_dir_all(root.join(".agents/skills/release")).unwrap();
        fs::write(home.path().join("secret"), "canary").unwrap();
        assert_eq!(gather(&root), Vec::new());

        std::os::unix::fs::symlink("../secret", root.join("AGENTS.md")).unwrap();
        fs::write(root.join("CLAUDE.md"), "Use tabs.").unwrap();
        fs::write(
            root.join(".agents/skills/release/SKILL.md"),
            "---\nname: release\ndescription: How to release\n---\nSteps",
        )
        .unwrap();
        let found = gather(&root);
        assert_eq!(found[0], Instructions { path: "CLAUDE.md".to_owned(), text: "Use tabs.".to_owned() });
        assert!(found[1].text.ends_with("- .agents/skills/release/SKILL.md: How to release"), "{found:?}");
        assert!(!format!("{found:?}").contains("canary"));
    }
}
