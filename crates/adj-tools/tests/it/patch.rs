//! apply_patch on disk: all of it or nothing.

use crate::support::{home, snapshot};
use proptest::prelude::*;
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;

fn patch(body: &str) -> serde_json::Value {
    json!({"patch": format!("*** Begin Patch\n{body}\n*** End Patch\n")})
}

#[test]
fn a_patch_changes_many_files_at_once() {
    let home = home(&[("a.txt", "1\n2\n3\n"), ("old/b.sh", "#!/bin/sh\necho b\n"), ("gone", "x"), ("crlf", "a\r\nb")]);
    fs::set_permissions(home.root.join("old/b.sh"), fs::Permissions::from_mode(0o755)).expect("a mode");
    let outcome = home.call(
        "apply_patch",
        patch(
            "*** Update File: a.txt\n@@\n-2\n+two\n*** Add File: new/deep/c\n+c\n*** Delete File: gone\n\
             *** Update File: old/b.sh\n*** Move to: bin/b.sh\n@@\n-echo b\n+echo B\n*** Update File: crlf\n-b\n+B\n+c\n\
             *** Update File: a.txt\n@@\n two\n-3\n+three\n*** Add File: gone\n+again",
        ),
    );
    assert!(!outcome.is_error, "{}", outcome.text);
    insta::assert_snapshot!(outcome.text, @r"
    updated a.txt (+1 -1)
    added new/deep/c (+1)
    deleted gone
    moved old/b.sh to bin/b.sh (+1 -1)
    updated crlf (+2 -1)
    updated a.txt (+1 -1)
    added gone (+1)
    ");
    assert_eq!(outcome.changed, ["a.txt", "bin/b.sh", "crlf", "gone", "new/deep/c", "old/b.sh"]);
    assert_eq!(home.content("a.txt"), "1\ntwo\nthree\n");
    assert_eq!(home.content("new/deep/c"), "c\n");
    assert_eq!(home.content("bin/b.sh"), "#!/bin/sh\necho B\n");
    assert_eq!(home.content("crlf"), "a\r\nB\r\nc");
    assert_eq!(home.content("gone"), "again\n");
    assert!(!home.root.join("old/b.sh").exists());
    let mode = fs::metadata(home.root.join("bin/b.sh")).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
}

#[test]
fn one_bad_part_leaves_everything_as_it_was() {
    let good = "*** Add File: n/e/w\n+x\n*** Update File: a\n@@\n-1\n+one\n*** Delete File: b\n";
    let cases = [
        ("*** Update File: a\n@@\n-nine\n+9", "a: the change in line 10 of the patch: its lines are not in the file"),
        (
            "*** Update File: nope\n@@\n-x\n+y",
            "nope does not exist (any more) at this point of the patch; nothing was changed",
        ),
        ("*** Delete File: b", "b does not exist (any more)"),
        ("*** Add File: c\n+x", "c exists already"),
        ("*** Update File: c\n*** Move to: d", "d exists already"),
        ("*** Update File: bin\n@@\n-x\n+y", "bin is a binary file"),
        ("*** Update File: folder\n@@\n-x\n+y", "folder is a folder"),
        ("*** Update File: a/x\n@@\n-x\n+y", "a/x cannot exist"),
        ("*** Add File: .git/hooks/x\n+x", ".git/hooks/x belongs to git"),
        ("*** Add File: ../x\n+x", "../x leads outside"),
        ("*** Delete File: locked", "locked is marked read-only"),
        // Only the disk can say that these two cannot both be.
        ("*** Add File: n\n+x", "cannot write n"),
    ];
    for (bad, reason) in cases {
        let home =
            home(&[("a", "1\n"), ("b", "2\n"), ("c", "3\n"), ("d", "4\n"), ("folder/x", ""), (".git/config", "")]);
        home.put("bin", b"x\0");
        home.put("locked", b"x");
        fs::set_permissions(home.root.join("locked"), fs::Permissions::from_mode(0o400)).expect("a mode");
        let before = snapshot(home.outside.path());
        let (said, is_error) = home.said("apply_patch", patch(&format!("{good}{bad}")));
        assert!(is_error && said.contains(reason), "{bad:?}: {said}");
        assert_eq!(snapshot(home.outside.path()), before, "{bad:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn garbage_never_writes(body in r"((\*\*\* (Add File: [a-c./]{1,5}|Update File: a|Delete File: a|Move to: [a-c./]{1,5}|End of File|End Patch)|@@[ 1-3]{0,2}|[-+ ]?[1-9*@]{0,2})\n){0,10}") {
        let home = home(&[("a", "1\n2\n3\n")]);
        let before = snapshot(home.outside.path());
        let outcome = home.call("apply_patch", patch(&body));
        let after = snapshot(home.outside.path());
        // Either it meant something and said what it changed, or nothing happened at all.
        prop_assert_eq!(outcome.is_error && after != before, false, "{}", outcome.text);
        if !outcome.is_error {
            let folder = |path: &std::path::Path| path.parent().map(std::path::Path::to_owned);
            prop_assert_eq!(folder(&home.root), Some(home.outside.path().to_owned()));
            prop_assert_eq!(outcome.changed.is_empty(), after == before);
        }
        prop_assert!(!after.keys().any(|path| path.to_string_lossy().ends_with(".tmp")));
    }
}
