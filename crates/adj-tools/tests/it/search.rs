//! glob and grep: what they find, in which order, and how much they show.

use crate::support::{Home, home};
use serde_json::json;
use std::fs::File;
use std::time::{Duration, SystemTime};

fn project() -> Home {
    let home = home(&[
        (".gitignore", "target/\n*.log\n"),
        (".git/config", "fn hidden\n"),
        (".github/ci.yml", "run: fn\n"),
        ("src/main.rs", "fn main() {\n    helper();\n}\n"),
        ("src/deep/helper.rs", "// first\npub fn helper() {}\r\n// last\n"),
        ("target/out.rs", "fn built() {}\n"),
        ("debug.log", "fn logged\n"),
        ("notes.txt", "nothing (here)\n"),
    ]);
    home.put("binary.bin", b"fn\0fn\n");
    let order = [".gitignore", "notes.txt", ".github/ci.yml", "src/main.rs", "binary.bin", "src/deep/helper.rs"];
    for (age, path) in order.iter().rev().enumerate() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 - age as u64);
        File::options()
            .write(true)
            .open(home.root.join(path))
            .and_then(|file| file.set_modified(time))
            .expect("a time");
    }
    home
}

#[test]
fn glob_lists_newest_first_without_ignored_files() {
    let home = project();
    let absolute = home.root.join("src/*.rs");
    let cases = [
        (json!({"pattern": "**/*.rs"}), "src/deep/helper.rs\nsrc/main.rs\n", false),
        (json!({"pattern": "*.rs", "path": "src"}), "src/main.rs\n", false),
        (json!({"pattern": "./src/*"}), "src/main.rs\n", false),
        (json!({"pattern": absolute}), "src/main.rs\n", false),
        (
            json!({"pattern": "**"}),
            "src/deep/helper.rs\nbinary.bin\nsrc/main.rs\n.github/ci.yml\nnotes.txt\n.gitignore\n",
            false,
        ),
        (json!({"pattern": "*.{txt,md}"}), "notes.txt\n", false),
        (json!({"pattern": "*.log"}), "no files match *.log in . (files excluded by .gitignore are left out)\n", false),
        (
            json!({"pattern": "*", "path": "notes.txt"}),
            "notes.txt is not a folder; the pattern goes into pattern, a folder into path",
            true,
        ),
        (json!({"pattern": "*", "path": "nope"}), "nope does not exist", true),
    ];
    for (input, expected, is_error) in cases {
        assert_eq!(home.said("glob", input.clone()), (expected.to_owned(), is_error), "{input}");
    }
    let (said, is_error) = home.said("glob", json!({"pattern": "a[b"}));
    assert!(is_error && said.starts_with("\"a[b\" is not a glob pattern: "), "{said}");
}

#[test]
fn glob_shows_five_hundred_and_counts_the_rest() {
    let home = home(&[]);
    for n in 0..510 {
        home.put(&format!("f{n}"), b"");
    }
    let (said, _) = home.said("glob", json!({"pattern": "*"}));
    assert_eq!(said.lines().count(), 501);
    assert!(said.ends_with("[500 of 510 files are shown; make the pattern narrower]\n"), "{said}");
}

#[test]
fn grep_answers_with_file_line_and_text() {
    let home = project();
    let cases = [
        (json!({"pattern": r"fn \w+"}), "src/deep/helper.rs:2:pub fn helper() {}\nsrc/main.rs:1:fn main() {\n", false),
        (json!({"pattern": r"\{\}$"}), "src/deep/helper.rs:2:pub fn helper() {}\n", false),
        (json!({"pattern": "FN MAIN", "ignore_case": true}), "src/main.rs:1:fn main() {\n", false),
        (json!({"pattern": "run"}), ".github/ci.yml:1:run: fn\n", false),
        (json!({"pattern": "helper", "path": "src/main.rs"}), "src/main.rs:2:    helper();\n", false),
        (json!({"pattern": "helper", "path": "src/deep"}), "src/deep/helper.rs:2:pub fn helper() {}\n", false),
        (json!({"pattern": "helper", "glob": "main.*"}), "src/main.rs:2:    helper();\n", false),
        (json!({"pattern": "helper", "glob": "src/*.rs"}), "src/main.rs:2:    helper();\n", false),
        (
            json!({"pattern": "pub", "context": 1}),
            "src/deep/helper.rs-1-// first\nsrc/deep/helper.rs:2:pub fn helper() {}\nsrc/deep/helper.rs-3-// last\n",
            false,
        ),
        (
            json!({"pattern": "helper", "limit": 1}),
            "src/deep/helper.rs:2:pub fn helper() {}\n[stopped after 1 match; narrow the pattern, path or glob to see the others]\n",
            false,
        ),
        // Named outright, an ignored file is searched.
        (json!({"pattern": "fn", "path": "debug.log"}), "debug.log:1:fn logged\n", false),
        (
            json!({"pattern": "absent"}),
            "no matches in . (files excluded by .gitignore and binary files are left out)\n",
            false,
        ),
        (json!({"pattern": "x", "path": "nope"}), "nope does not exist", true),
    ];
    for (input, expected, is_error) in cases {
        assert_eq!(home.said("grep", input.clone()), (expected.to_owned(), is_error), "{input}");
    }
    let (said, is_error) = home.said("grep", json!({"pattern": "(here"}));
    assert!(is_error && said.contains("put a backslash before it") && said.contains("unclosed group"), "{said}");
}

#[test]
fn grep_cuts_long_lines_and_long_answers() {
    let home = home(&[("long", &format!("{}needle\n", "é".repeat(3_000)))]);
    let (said, _) = home.said("grep", json!({"pattern": "needle"}));
    assert_eq!(said, format!("long:1:{} […]\n", "é".repeat(500)));
    home.put("many", "needle in a line of some length, again and again\n".repeat(3_000).as_bytes());
    let (said, _) = home.said("grep", json!({"pattern": "needle", "path": "many", "limit": 2000}));
    assert!(said.chars().count() <= 30_000 && said.contains("[stopped after "), "{}", said.len());
}
