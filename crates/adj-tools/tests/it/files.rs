//! read, write, edit: what they do, and what they refuse.

use crate::support::{home, snapshot};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

#[test]
fn read_numbers_lines_and_says_how_to_read_on() {
    let home = home(&[("a", "one\ntwo\r\nthree"), ("empty", ""), ("sub/b", "x\n")]);
    home.put("binary", b"a\0b");
    home.put("latin", b"caf\xe9\n");
    home.put("long", format!("{}\n", "x".repeat(5_000)).as_bytes());
    let long_cut = format!(
        "     1\t{} […]\n[lines longer than 2000 characters were cut; bash can show the rest of them]\n",
        "x".repeat(2_000)
    );
    let absolute = home.root.join("sub/b");
    let cases = [
        (json!({"file_path": "a"}), "     1\tone\n     2\ttwo\n     3\tthree\n", false),
        (json!({"file_path": "./sub/../a", "view_range": [2, 2]}), "     2\ttwo\n", false),
        (json!({"file_path": "a", "view_range": [2, -1]}), "     2\ttwo\n     3\tthree\n", false),
        (json!({"file_path": "a", "view_range": [2, 99]}), "     2\ttwo\n     3\tthree\n", false),
        (json!({"file_path": "a", "view_range": [4, -1]}), "a has 3 lines; there is nothing from line 4 on", true),
        (json!({"file_path": absolute}), "     1\tx\n", false),
        (json!({"file_path": "empty"}), "(empty is empty)", false),
        (json!({"file_path": "long"}), &long_cut, false),
        (
            json!({"file_path": "latin"}),
            "     1\tcaf\u{FFFD}\n[this file is not UTF-8; bytes that are not text are shown as \u{FFFD}]\n",
            false,
        ),
        (
            json!({"file_path": "binary"}),
            "binary is a binary file (it contains NUL bytes); use bash to inspect it",
            true,
        ),
        (json!({"file_path": "sub"}), "sub is a folder", true),
        (json!({"file_path": "emty"}), "emty does not exist; beside it there is \"empty\"", true),
        (json!({"file_path": "nope/x"}), "nope/x does not exist; there is no folder \"nope\"", true),
        (json!({"file_path": "a/x"}), "a/x cannot exist, because a is a file and not a folder", true),
        (json!({"file_path": ""}), "the path is empty; use \".\" for the workspace", true),
        (json!({"file_path": "a\0"}), "the path contains a NUL character", true),
    ];
    for (input, expected, is_error) in cases {
        let found = home.said("read", input.clone());
        assert_eq!(found, (expected.to_owned(), is_error), "{input}");
    }
}

#[test]
fn long_files_come_in_pieces_that_join() {
    let text: String = (1..=4_000).map(|line| format!("line {line} of a long file\n")).collect();
    let home = home(&[("long", &text)]);
    let mut joined = String::new();
    let mut input = json!({"file_path": "long"});
    let mut pieces = 0;
    loop {
        let (said, is_error) = home.said("read", input);
        assert!(!is_error && said.chars().count() <= 30_000, "{said}");
        pieces += 1;
        let mut next = None;
        for line in said.lines() {
            match line.split_once('\t') {
                Some((_, line)) => joined.push_str(&format!("{line}\n")),
                None => {
                    next = line.split_once("view_range ").map(|(_, range)| range.trim_end_matches(']').to_owned() + "]")
                }
            }
        }
        let Some(range) = next else { break };
        let range: Value = serde_json::from_str(&range).expect("a range");
        input = json!({"file_path": "long", "view_range": range});
    }
    assert_eq!(joined, text);
    assert!((3..20).contains(&pieces), "{pieces}");
}

#[test]
fn large_files_are_refused_with_the_way_round() {
    let home = home(&[]);
    let file = fs::File::create(home.root.join("huge")).expect("a file");
    file.set_len(10 * 1024 * 1024 + 1).expect("a length");
    let (said, is_error) = home.said("read", json!({"file_path": "huge"}));
    assert!(is_error && said.contains("10485761 bytes") && said.contains("use bash"), "{said}");
}

#[test]
fn write_makes_and_replaces_files() {
    let home = home(&[("a", "old\n"), ("run.sh", "#!/bin/sh\n")]);
    fs::set_permissions(home.root.join("run.sh"), fs::Permissions::from_mode(0o755)).expect("a mode");
    fs::write(home.root.join("locked"), "x").expect("a file");
    fs::set_permissions(home.root.join("locked"), fs::Permissions::from_mode(0o444)).expect("a mode");
    symlink("a", home.root.join("link")).expect("a link");
    symlink("new/from/link", home.root.join("dangling")).expect("a link");
    let in_scratch = home.scratch.join("note");
    let cases = [
        (json!({"file_path": "a", "content": "new\n"}), "replaced a (1 line)", &["a"][..]),
        (json!({"file_path": "x/y/z", "content": "1\n2"}), "created x/y/z (2 lines)", &["x/y/z"]),
        (json!({"file_path": "run.sh", "content": "#!/bin/bash\n"}), "replaced run.sh (1 line)", &["run.sh"]),
        // Through a link, the file it leads to changes, and the link stays.
        (json!({"file_path": "link", "content": "by link\n"}), "replaced a (1 line)", &["a"]),
        (json!({"file_path": "dangling", "content": "d\n"}), "created new/from/link (1 line)", &["new/from/link"]),
        (json!({"file_path": in_scratch, "content": ""}), "created TMP/note (0 lines)", &[]),
    ];
    for (input, expected, changed) in cases {
        let outcome = home.call("write", input.clone());
        assert_eq!((home.plain(&outcome.text).as_str(), outcome.is_error), (expected, false), "{input}");
        assert_eq!(outcome.changed, changed, "{input}");
    }
    assert_eq!(home.content("a"), "by link\n");
    assert_eq!(home.content("x/y/z"), "1\n2");
    assert_eq!(home.content("new/from/link"), "d\n");
    assert!(fs::symlink_metadata(home.root.join("link")).expect("a link").is_symlink());
    let mode = fs::metadata(home.root.join("run.sh")).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o755);

    let before = snapshot(home.outside.path());
    let refusals = [
        ("locked", "locked is marked read-only (mode 444); `chmod u+w` it with bash if it really should change"),
        ("x", "x is a folder"),
        (".", ". is a folder"),
        ("new/", "new/ ends with a slash, so it names a folder; folders come into being with the files in them"),
        ("a/b", "a/b cannot exist, because a is a file and not a folder"),
        ("nope/../../b", "nope/../../b does not exist; nope is not there"),
    ];
    for (path, expected) in refusals {
        assert_eq!(home.said("write", json!({"file_path": path, "content": "!"})), (expected.to_owned(), true));
    }
    assert_eq!(snapshot(home.outside.path()), before);
}

#[test]
fn no_path_leads_out() {
    let home = home(&[("a", "x\n"), (".git/config", "[core]\n"), ("sub/.git", "gitdir: elsewhere\n")]);
    let secret = home.outside.path().join("secret");
    let link = |target: &str, name: &str| symlink(target, home.root.join(name)).expect("a link");
    link("../secret", "up");
    link(&secret.display().to_string(), "absolute");
    link("..", "parent");
    link("/proc/self/root", "magic");
    link("/proc/self/cwd", "cwd");
    link("loop", "loop");
    link("sub/../../secret", "winding");
    link(".git", "innocent");
    fs::create_dir(home.root.join("deep")).expect("a folder");
    link("../innocent/config", "deep/config");
    let fifo = Command::new("mkfifo").arg(home.root.join("fifo")).status().expect("mkfifo");
    assert!(fifo.success());
    let _socket = std::os::unix::net::UnixListener::bind(home.root.join("socket")).expect("a socket");

    let outside = "leads outside; use a path inside the workspace ROOT or TMP";
    let secret = secret.display().to_string();
    let near = format!("{}-evil/x", home.root.display());
    let wound = format!("{}/../secret", home.root.display());
    let both = [
        ("../secret", outside),
        ("sub/../../secret", outside),
        (secret.as_str(), outside),
        (near.as_str(), outside),
        (wound.as_str(), outside),
        ("/etc/passwd", outside),
        ("/proc/self/environ", outside),
        ("/dev/zero", outside),
        ("up", outside),
        ("absolute", outside),
        ("parent/secret", outside),
        ("magic/etc/passwd", outside),
        ("cwd/Cargo.toml", outside),
        ("winding", outside),
        ("loop", "loop goes through more than 40 symbolic links"),
        ("fifo", "fifo is a named pipe; only regular files can be"),
        ("socket", "socket is a socket; only regular files can be"),
    ];
    let for_writing = [
        (".git/config", "belongs to git"),
        (".git/hooks/pre-commit", "belongs to git"),
        (".GIT/hooks/pre-commit", "belongs to git"),
        ("sub/.git", "belongs to git"),
        ("sub/.git/config", "cannot exist"),
        ("innocent/config", "belongs to git"),
        ("innocent/hooks/post-checkout", "belongs to git"),
        ("deep/config", "belongs to git"),
        ("deep/../.git/config", "belongs to git"),
    ];
    let before = snapshot(home.outside.path());
    let patch = |head: &str| json!({"patch": format!("*** Begin Patch\n*** {head}\n*** End Patch")});
    for (path, reason) in both {
        let said = home.said("read", json!({"file_path": path}));
        assert!(said.1 && said.0.contains(reason), "read {path}: {said:?}");
    }
    for (path, reason) in both.into_iter().chain(for_writing) {
        let calls = [
            ("write", json!({"file_path": path, "content": "!"})),
            ("edit", json!({"file_path": path, "old_string": "c", "new_string": "!"})),
            ("apply_patch", patch(&format!("Add File: {path}\n+!"))),
            ("apply_patch", patch(&format!("Delete File: {path}"))),
            ("apply_patch", patch(&format!("Update File: {path}\n@@\n-canary\n+!"))),
            ("apply_patch", patch(&format!("Update File: a\n*** Move to: {path}"))),
            ("apply_patch", patch(&format!("Update File: {path}\n*** Move to: b"))),
        ];
        for (tool, input) in calls {
            let said = home.said(tool, input.clone());
            assert!(said.1 && said.0.contains(reason), "{tool} {input}: {said:?}");
        }
    }
    for (tool, input) in [
        ("glob", json!({"pattern": "*", "path": ".."})),
        ("glob", json!({"pattern": "/etc/*"})),
        ("glob", json!({"pattern": "*", "path": "parent"})),
        ("grep", json!({"pattern": "canary", "path": "up"})),
        ("grep", json!({"pattern": "canary", "path": "parent"})),
    ] {
        let said = home.said(tool, input.clone());
        assert!(said.1 && said.0.contains("leads outside"), "{tool} {input}: {said:?}");
    }
    let (said, _) = home.said("grep", json!({"pattern": "canary"}));
    assert!(said.starts_with("no matches"), "{said}");
    assert_eq!(snapshot(home.outside.path()), before);
    // Reading git's files is harmless, and links that stay inside are links like others.
    assert_eq!(home.said("read", json!({"file_path": "deep/config"})), ("     1\t[core]\n".to_owned(), false));
}

#[test]
fn links_to_absolute_paths_inside_are_followed() {
    let home = home(&[("real/a", "x\n")]);
    symlink(home.root.join("real"), home.root.join("link")).expect("a link");
    symlink(home.scratch.join("t"), home.root.join("to-scratch")).expect("a link");
    fs::write(home.scratch.join("t"), "y\n").expect("a file");
    assert_eq!(home.said("read", json!({"file_path": "link/a"})), ("     1\tx\n".to_owned(), false));
    assert_eq!(home.said("read", json!({"file_path": "to-scratch"})), ("     1\ty\n".to_owned(), false));
}

#[test]
fn edit_changes_one_place_or_says_why_not() {
    let edit = |old: &str, new: &str| json!({"file_path": "f", "old_string": old, "new_string": new});
    let all =
        |old: &str, new: &str| json!({"file_path": "f", "old_string": old, "new_string": new, "replace_all": true});
    let same = None;
    let cases = [
        ("a\nb\na\n", edit("b", "B"), "replaced 1 occurrence in f (in line 2)", Some("a\nB\na\n")),
        ("a\nb\na\n", edit("b\n", ""), "replaced 1 occurrence in f (in line 2)", Some("a\na\n")),
        ("a\nb\na\n", all("a", "$1"), "replaced 2 occurrences in f (first in line 1)", Some("$1\nb\n$1\n")),
        ("no newline", edit("newline", "end"), "replaced 1 occurrence in f (in line 1)", Some("no end")),
        // The file's line ends are kept.
        ("a\r\nb\r\n", edit("a\nb", "x\ny"), "replaced 1 occurrence in f (in line 1)", Some("x\r\ny\r\n")),
        ("a\r\nb\r\n", edit("a", "x\ny"), "replaced 1 occurrence in f (in line 1)", Some("x\r\ny\r\nb\r\n")),
        ("a\r\nb\r\n", edit("a\r\n", "x\r\n"), "replaced 1 occurrence in f (in line 1)", Some("x\r\nb\r\n")),
        (
            "a\nb\na\n",
            edit("a", "c"),
            "old_string occurs 2 times in f, starting in lines 1, 3; add lines around it until it is unique, or set replace_all",
            same,
        ),
        ("a\n", edit("zebra", "c"), "old_string does not occur in f; read the file to see what it holds", same),
        (
            "fn main() {\n    let total = 1;\n}\n",
            edit("let totals = 1;", "x"),
            "old_string does not occur in f; the lines most like its first one are:\n     2\t    let total = 1;",
            same,
        ),
        (
            "if x:\n\treturn 1\n",
            edit("if x:\n    return 1", "x"),
            "old_string does not occur in f: something that differs only in white space does, near line 1; copy the indentation exactly",
            same,
        ),
    ];
    for (before, input, expected, after) in cases {
        let home = home(&[("f", before)]);
        let outcome = home.call("edit", input.clone());
        assert_eq!((outcome.text.as_str(), outcome.is_error), (expected, after.is_none()), "{input}");
        assert_eq!(home.content("f"), after.unwrap_or(before), "{input}");
        assert_eq!(outcome.changed.is_empty(), after.is_none());
    }
    let home = home(&[]);
    home.put("f", b"caf\xe9\nb\n");
    let (said, is_error) = home.said("edit", edit("b", "c"));
    assert!(is_error && said.contains("not UTF-8 text (first bad byte in line 1)"), "{said}");
}

#[test]
fn edits_at_the_same_time_all_count() {
    let lines: String = (0..20).map(|n| format!("<{n}>\n")).collect();
    let home = home(&[("f", &lines)]);
    std::thread::scope(|scope| {
        for n in 0..20 {
            let home = &home;
            scope.spawn(move || {
                let input = json!({"file_path": "f", "old_string": format!("<{n}>"), "new_string": format!("[{n}]")});
                assert!(!home.call("edit", input).is_error);
            });
        }
    });
    let expected: String = (0..20).map(|n| format!("[{n}]\n")).collect();
    assert_eq!(home.content("f"), expected);
    assert_eq!(fs::read_dir(&home.root).expect("a folder").count(), 1, "no temporary file stays");
}
