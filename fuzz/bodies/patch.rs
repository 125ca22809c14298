//! Applies a patch to a small workspace: a patch that is refused changes nothing, one that is not changes what it says it changed.

use adj_domain::ToolRequest;
use adj_tools::{Toolbox, ToolboxPlan};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// What the workspace holds; a patch that is to apply has to meet these.
const FILES: &[(&str, &str)] = &[
    ("a.txt", "one\ntwo\nthree\ntwo\nfive\n"),
    ("src/b.rs", "fn main() {\r\n    println!(\"hello\");\r\n}\r\n"),
    ("src/no-end", "first\nlast"),
    ("empty", ""),
    ("../outside.txt", "not yours\n"),
];

pub fn run(data: &[u8]) {
    let Ok(patch) = std::str::from_utf8(data) else { return };
    let folder = tempfile::tempdir().expect("a folder can be made");
    let root = folder.path().join("workspace");
    fs::create_dir_all(root.join("src")).expect("a folder can be made");
    for (name, text) in FILES {
        fs::write(root.join(name), text).expect("a file can be written");
    }
    let before = tree(folder.path());

    let plan = ToolboxPlan { root: root.clone(), scratch: None, environment: BTreeMap::new(), adopts_orphans: false };
    let request = ToolRequest { name: "apply_patch".to_owned(), input: json!({ "patch": patch }) };
    let outcome = Toolbox::open(plan).expect("the workspace exists").execute(&request);

    let after = tree(folder.path());
    if outcome.is_error {
        assert_eq!(before, after, "a refused patch changed something: {}", outcome.text);
        return;
    }
    let told: BTreeSet<String> = outcome.changed.iter().map(|name| format!("workspace/{name}")).collect();
    for name in before.keys().chain(after.keys()) {
        assert!(before.get(name) == after.get(name) || told.contains(name), "{name} changed, and nobody said so");
    }
}

/// Reads every file under a folder.
fn tree(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).expect("a folder can be listed") {
            let path = entry.expect("a folder can be listed").path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(folder).expect("it lies in the folder").to_string_lossy().into_owned();
                files.insert(name, fs::read(&path).expect("a file can be read"));
            }
        }
    }
    files
}
