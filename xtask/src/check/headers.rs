//! Every room says what it is for and what it must not know, and keeps the workspace's lints.

use super::Outcome;
use crate::repository::{Package, Repository};
use anyhow::{Context, Result};
use std::{fs, path::Path};

pub fn check(repository: &Repository) -> Result<Outcome> {
    let packages = repository.packages()?;
    let mut problems = Vec::new();
    for package in &packages {
        problems.extend(problems_of(package, &repository.root)?);
    }
    Ok(Outcome::of(problems, format!("{} rooms", packages.len())))
}

fn problems_of(package: &Package, root: &Path) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let folder = package.folder();
    if folder.file_name().is_none_or(|name| name != package.name.as_str()) {
        problems.push(format!("{}: the folder {} has another name", package.name, folder.display()));
    }
    let sources = folder.join("src");
    let first = ["lib.rs", "main.rs"].map(|name| sources.join(name)).into_iter().find(|path| path.is_file());
    match first {
        Some(path) => {
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let name = path.strip_prefix(root).unwrap_or(&path);
            problems.extend(missing_from_header(&text).map(|missing| format!("{}: {missing}", name.display())));
        }
        None => problems.push(format!("{}: no lib.rs or main.rs", package.name)),
    }
    let manifest = fs::read_to_string(&package.manifest_path)?;
    if !manifest.contains("[lints]\nworkspace = true") {
        problems.push(format!("{}: the manifest does not take the workspace's lints", package.name));
    }
    Ok(problems)
}

/// Says what the first comment of a room lacks.
fn missing_from_header(source: &str) -> Option<&'static str> {
    let mut header = source.lines().map_while(|line| line.strip_prefix("//!"));
    let first = header.next().unwrap_or_default().trim();
    if first.is_empty() || !first.ends_with('.') {
        Some("the file does not start with `//!` and a sentence that says what the room is for")
    } else if header.any(|line| line.contains("Must not know")) {
        None
    } else {
        Some("the header does not say `Must not know: …`")
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn a_header_has_a_sentence_and_a_limit() {
        let cases = [
            ("//! Keeps things.\n//!\n//! Must not know: HTTP.\n", true),
            ("//! Keeps things.\n\n//! Must not know: HTTP.\n", false),
            ("//! Keeps things.\n//! Knows all.\n", false),
            ("//! Keeps things\n//! Must not know: HTTP.\n", false),
            ("//!\n//! Must not know: HTTP.\n", false),
            ("pub mod thing; //! Must not know\n", false),
            ("", false),
        ];
        for (source, complete) in cases {
            assert_eq!(missing_from_header(source).is_none(), complete, "{source:?}");
        }
    }
}
