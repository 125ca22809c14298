//! Finds what must not be left in a file, and reports how long the files are.

use super::Outcome;
use crate::repository::Repository;
use anyhow::{Context, Result};
use std::{fs, path::Path};

/// A file that is longer than this should be asked whether it still has one sentence.
const LONG: usize = 450;

/// Something that is not left in a file, with the reason. Written in halves, so that this file does not find itself.
struct Leftover {
    text: &'static str,
    only_rust: bool,
    why: &'static str,
}

const LEFTOVERS: &[Leftover] = &[
    anywhere(concat!("/wo", "rk/"), "a path of the machine it was written on"),
    anywhere(concat!("/root/", ".cargo"), "a path of the machine it was written on"),
    anywhere(concat!("arti", "factory"), "the name of a package registry's mirror"),
    anywhere(concat!("index.", "crates.io"), "the host of a package registry"),
    anywhere(concat!("static.", "crates.io"), "the host of a package registry"),
    anywhere(concat!("registry.", "npmjs.org"), "the host of a package registry"),
    anywhere(concat!("files.", "pythonhosted.org"), "the host of a package registry"),
    anywhere(concat!("<<<<<", "<< "), "an unfinished merge"),
    anywhere(concat!(">>>>>", ">> "), "an unfinished merge"),
    rust(concat!("todo", "!("), "unfinished work"),
    rust(concat!("unimplemented", "!("), "unfinished work"),
    rust(concat!("#[igno", "re]"), "a test left out without a reason"),
];

const fn anywhere(text: &'static str, why: &'static str) -> Leftover {
    Leftover { text, only_rust: false, why }
}

const fn rust(text: &'static str, why: &'static str) -> Leftover {
    Leftover { text, only_rust: true, why }
}

pub fn check(repository: &Repository) -> Result<Outcome> {
    let mut problems = Vec::new();
    let mut lengths = Vec::new();
    for name in repository.files()? {
        let path = repository.root.join(&name);
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let is_rust = name.extension().is_some_and(|extension| extension == "rs");
        match std::str::from_utf8(&bytes) {
            Ok(text) if !bytes.contains(&0) => {
                problems.extend(leftovers(&name, text, is_rust));
                if is_rust {
                    lengths.push((text.lines().count(), name));
                }
            }
            _ if is_rust => problems.push(format!("{} is not UTF-8 text", name.display())),
            _ => {}
        }
    }
    Ok(Outcome::of(problems, length_report(lengths)))
}

fn leftovers(name: &Path, text: &str, is_rust: bool) -> Vec<String> {
    // What cargo writes names where packages come from; `deny` checks that.
    let is_lock = name.file_name().is_some_and(|name| name == "Cargo.lock");
    let sought = LEFTOVERS.iter().filter(|leftover| is_rust || !leftover.only_rust);
    let mut problems = Vec::new();
    for leftover in sought.filter(|_| !is_lock) {
        let found = text.lines().enumerate().filter(|(_, line)| contains_whole(line, leftover.text));
        problems.extend(
            found.map(|(index, _)| format!("{}:{}: {} ({})", name.display(), index + 1, leftover.why, leftover.text)),
        );
    }
    problems
}

/// Tells whether the line has the text, and not only as the end of a longer word or path.
fn contains_whole(line: &str, text: &str) -> bool {
    line.match_indices(text).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|character| character.is_alphanumeric() || "_-~.}".contains(character))
    })
}

fn length_report(mut lengths: Vec<(usize, std::path::PathBuf)>) -> String {
    lengths.sort_by(|a, b| b.cmp(a));
    let lines: usize = lengths.iter().map(|(length, _)| length).sum();
    let long: Vec<String> = lengths
        .iter()
        .take_while(|(length, _)| *length > LONG)
        .map(|(length, name)| format!("{length} lines in {}", name.display()))
        .collect();
    let mut report =
        format!("{lines} lines in {} Rust files, {} of them longer than {LONG}", lengths.len(), long.len());
    for line in long.iter().take(5) {
        report += "\n";
        report += line;
    }
    report
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn leftovers_are_found_with_their_line() {
        let cases = [
            ("a.rs", "fn f() {\n    to@do!(\"x\")\n}", Some("a.rs:2: unfinished work")),
            ("a.md", "to@do!(x)", None),
            ("a.md", "see /wo@rk/main", Some("a.md:1: a path of the machine")),
            ("a.md", "see /wo@rkspace/main and target/wo@rk/x", None),
            ("a.rs", "#[igno@re]", Some("a test left out")),
            ("a.rs", "#[igno@re = \"needs a printer\"]", None),
            ("Cargo.lock", "index.@crates.io", None),
            ("a.toml", "index.@crates.io", Some("the host of a package registry")),
        ];
        for (name, text, expected) in cases {
            let found = leftovers(Path::new(name), &text.replace('@', ""), name.ends_with(".rs"));
            match expected {
                Some(expected) => assert!(found.len() == 1 && found[0].contains(expected), "{name} {text}: {found:?}"),
                None => assert_eq!(found, [] as [&str; 0], "{name} {text}"),
            }
        }
    }

    #[test]
    fn long_files_are_named_longest_first() {
        let lengths = vec![(10, "a.rs".into()), (451, "b.rs".into()), (900, "c.rs".into())];
        let expected = "1361 lines in 3 Rust files, 2 of them longer than 450\n900 lines in c.rs\n451 lines in b.rs";
        assert_eq!(length_report(lengths), expected);
    }
}
