//! Shells that are started with a script in their words.

use super::{Dialect, Findings, SimpleCommand, Word, scanner};

const SHELLS: &[&str] = &[
    "ash", "bash", "csh", "dash", "elvish", "fish", "ksh", "ksh93", "mksh", "nu", "pwsh", "rbash", "sh", "tcsh",
    "xonsh", "yash", "zsh",
];

pub(super) fn is_shell(name: &str) -> bool {
    SHELLS.contains(&name)
}

/// Follows a shell, and tells whether all it does is to run commands that are now noted.
pub(super) fn follow(found: &mut Findings, command: &SimpleCommand, name: &str) -> bool {
    let (dialect, through) = match name {
        "bash" | "rbash" => (Dialect::Bash, "bash -c"),
        "sh" | "dash" | "ash" => (Dialect::Posix, "sh -c"),
        _ => {
            found.unknown(format!("the grammar of {name} is not followed"));
            (Dialect::Posix, "shell -c")
        }
    };
    let argv = &command.argv;
    let mut has_script = false;
    let mut at = 1;
    while let Some(word) = argv.get(at) {
        let Some(text) = word.literal() else {
            found.unknown(format!("`{word}` may be a script for {name}"));
            return false;
        };
        if text == "--" {
            at += 1;
            break;
        }
        if matches!(text, "--version" | "--help") && argv.len() == 2 {
            return false;
        }
        if matches!(text, "--norc" | "--noprofile" | "--login") && dialect == Dialect::Bash {
            at += 1;
            continue;
        }
        let Some(letters) = text.strip_prefix('-').filter(|letters| !letters.is_empty()) else {
            if text.starts_with('+') || text == "-" {
                found.unknown(format!("`{name} {text}` is not followed"));
            }
            break;
        };
        at += 1;
        for letter in letters.chars() {
            match letter {
                'c' => has_script = true,
                'e' | 'u' | 'x' | 'l' | 'f' => {}
                'o' if matches!(
                    argv.get(at).and_then(Word::literal),
                    Some("pipefail" | "errexit" | "nounset" | "xtrace" | "noglob")
                ) =>
                {
                    at += 1;
                }
                _ => {
                    found.unknown(format!("`{name} {text}` is not followed"));
                    break;
                }
            }
        }
    }
    let Some(operand) = argv.get(at) else {
        found.unknown(format!("{name} reads commands from its input"));
        return false;
    };
    if !has_script {
        // It runs a file; what stands in that file is the file's business.
        if operand.is_dynamic()
            || matches!(operand.literal(), Some("-" | "/dev/stdin" | "/proc/self/fd/0" | "/dev/fd/0"))
        {
            found.unknown(format!("`{operand}` may be a script for {name}"));
        }
        return false;
    }
    let Some(script) = operand.literal() else {
        found.unknown(format!("{name} runs what is only known when it runs"));
        return false;
    };
    let mut reached_through = command.reached_through.clone();
    reached_through.push(through);
    scanner::script(found, script, reached_through, dialect);
    true
}
