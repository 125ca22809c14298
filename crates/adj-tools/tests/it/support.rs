//! A workspace of its own for every test.

use adj_domain::{ToolOutcome, ToolRequest};
use adj_tools::{Toolbox, ToolboxPlan};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

pub struct Home {
    pub toolbox: Toolbox,
    pub root: PathBuf,
    pub scratch: PathBuf,
    /// Holds all of them, and a neighbour that no tool may see.
    pub outside: TempDir,
}

/// Opens a toolbox on a workspace with these files.
pub fn home(files: &[(&str, &str)]) -> Home {
    let outside = tempfile::tempdir().expect("a temporary folder");
    let (root, scratch) = (outside.path().join("workspace"), outside.path().join("tmp"));
    fs::create_dir(&root).expect("workspace");
    fs::create_dir(&scratch).expect("tmp");
    fs::write(outside.path().join("secret"), "canary\n").expect("secret");
    let environment = BTreeMap::from([
        ("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned()),
        ("HOME".to_owned(), outside.path().display().to_string()),
        ("LANG".to_owned(), "C.UTF-8".to_owned()),
    ]);
    let plan = ToolboxPlan { root: root.clone(), scratch: Some(scratch.clone()), environment, adopts_orphans: false };
    let toolbox = Toolbox::open(plan).expect("a toolbox");
    let home = Home { toolbox, root, scratch, outside };
    for (path, content) in files {
        home.put(path, content.as_bytes());
    }
    home
}

impl Home {
    pub fn put(&self, path: &str, content: &[u8]) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        fs::write(path, content).expect("a file");
    }

    pub fn content(&self, path: &str) -> String {
        fs::read_to_string(self.root.join(path)).expect("a text file")
    }

    pub fn call(&self, name: &str, input: Value) -> ToolOutcome {
        self.toolbox.execute(&ToolRequest { name: name.to_owned(), input })
    }

    /// Text and whether it is an error; folders of this test are replaced by words.
    pub fn said(&self, name: &str, input: Value) -> (String, bool) {
        let outcome = self.call(name, input);
        (self.plain(&outcome.text), outcome.is_error)
    }

    pub fn plain(&self, text: &str) -> String {
        text.replace(&self.root.display().to_string(), "ROOT").replace(&self.scratch.display().to_string(), "TMP")
    }
}

/// Every file below a folder with its content, to see that nothing changed.
pub fn snapshot(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut queue = vec![folder.to_owned()];
    while let Some(next) = queue.pop() {
        for entry in fs::read_dir(next).expect("a folder").flatten() {
            let kind = entry.file_type().expect("a type");
            if kind.is_dir() {
                queue.push(entry.path());
                found.insert(entry.path(), b"folder".to_vec());
            } else if kind.is_file() {
                found.insert(entry.path(), fs::read(entry.path()).expect("a file"));
            } else {
                found.insert(entry.path(), b"special".to_vec());
            }
        }
    }
    found
}
