//! Commands that run other commands: `env`, `timeout`, `xargs`, `find -exec`, `eval` and their kind.
//!
//! What is not known of an option of theirs makes the whole line unknown.

use super::{Dialect, Findings, SimpleCommand, Word, scanner, shell, words::is_harmless_assignment};

/// How a program takes options before the command that it runs.
struct Wrapper {
    name: &'static str,
    /// Letters that stand alone.
    flags: &'static str,
    /// Letters that a value follows.
    values: &'static str,
    long_flags: &'static [&'static str],
    long_values: &'static [&'static str],
    /// How many words, made of digits and a unit, come before the command.
    operands: usize,
    /// Whether `NAME=value` may come before the command.
    assigns: bool,
    /// Whether the command runs as it would without it.
    is_neutral: bool,
}

const PLAIN: Wrapper = Wrapper {
    name: "",
    flags: "",
    values: "",
    long_flags: &[],
    long_values: &[],
    operands: 0,
    assigns: false,
    is_neutral: true,
};

const WRAPPERS: &[Wrapper] = &[
    Wrapper {
        name: "env",
        flags: "iv",
        values: "uC",
        long_flags: &["ignore-environment", "debug"],
        long_values: &["unset", "chdir"],
        assigns: true,
        ..PLAIN
    },
    Wrapper { name: "nice", values: "n", long_values: &["adjustment"], ..PLAIN },
    Wrapper { name: "nohup", ..PLAIN },
    Wrapper {
        name: "timeout",
        flags: "v",
        values: "ks",
        long_flags: &["foreground", "preserve-status", "verbose"],
        long_values: &["kill-after", "signal"],
        operands: 1,
        ..PLAIN
    },
    Wrapper { name: "time", flags: "pv", long_flags: &["portability", "verbose"], ..PLAIN },
    Wrapper { name: "stdbuf", values: "ioe", long_values: &["input", "output", "error"], ..PLAIN },
    Wrapper { name: "setsid", flags: "cfw", long_flags: &["ctty", "fork", "wait"], ..PLAIN },
    Wrapper {
        name: "ionice",
        flags: "t",
        values: "cn",
        long_flags: &["ignore"],
        long_values: &["class", "classdata"],
        ..PLAIN
    },
    Wrapper { name: "chrt", flags: "abfiorRv", operands: 1, is_neutral: false, ..PLAIN },
    Wrapper { name: "taskset", flags: "ac", operands: 1, ..PLAIN },
    Wrapper { name: "command", flags: "p", ..PLAIN },
    Wrapper { name: "builtin", ..PLAIN },
    Wrapper { name: "exec", flags: "cl", values: "a", ..PLAIN },
    Wrapper {
        name: "sudo",
        flags: "AbEHknPS",
        values: "ugpCrtTUDR",
        long_flags: &["non-interactive", "preserve-env", "set-home", "background", "stdin", "reset-timestamp"],
        long_values: &["user", "group", "host", "prompt", "chdir", "chroot"],
        assigns: true,
        is_neutral: false,
        ..PLAIN
    },
    Wrapper { name: "doas", flags: "n", values: "uC", is_neutral: false, ..PLAIN },
    Wrapper { name: "pkexec", long_flags: &["keep-cwd"], long_values: &["user"], is_neutral: false, ..PLAIN },
    Wrapper { name: "busybox", is_neutral: false, ..PLAIN },
    Wrapper { name: "toybox", is_neutral: false, ..PLAIN },
    Wrapper {
        name: "xargs",
        flags: "0rtpxo",
        values: "InPLsdaE",
        long_flags: &["null", "no-run-if-empty", "verbose", "interactive", "exit", "open-tty"],
        long_values: &["max-args", "max-procs", "max-chars", "delimiter", "arg-file"],
        ..PLAIN
    },
];

/// Programs that run others in ways which are not followed.
const RUNNERS: &[&str] = &[
    "at",
    "batch",
    "abduco",
    "bwrap",
    "caffeinate",
    "chronic",
    "dtach",
    "ifne",
    "nix-shell",
    "pee",
    "screen",
    "tmux",
    "xterm",
    "capsh",
    "chpst",
    "chroot",
    "cpulimit",
    "dbus-run-session",
    "dumb-init",
    "entr",
    "fakeroot",
    "faketime",
    "firejail",
    "flock",
    "gdb",
    "hyperfine",
    "i386",
    "linux32",
    "linux64",
    "ltrace",
    "nsenter",
    "numactl",
    "parallel",
    "perf",
    "prlimit",
    "proot",
    "proxychains",
    "proxychains4",
    "rlwrap",
    "runcon",
    "runuser",
    "script",
    "setarch",
    "setpriv",
    "sg",
    "softlimit",
    "ssh-agent",
    "start-stop-daemon",
    "strace",
    "systemd-run",
    "tini",
    "torify",
    "torsocks",
    "unbuffer",
    "unshare",
    "valgrind",
    "x86_64",
    "xvfb-run",
];

/// The shell's own commands that change what later words mean, or run what only they know.
const UNFOLLOWED: &[&str] = &[
    ".",
    "alias",
    "bind",
    "coproc",
    "compgen",
    "complete",
    "compopt",
    "declare",
    "enable",
    "fc",
    "getopts",
    "hash",
    "history",
    "jobs",
    "let",
    "mapfile",
    "readarray",
    "shopt",
    "source",
    "typeset",
    "unalias",
];

/// Notes a command, and those that it runs.
pub(super) fn command(found: &mut Findings, command: SimpleCommand, dialect: Dialect) {
    if !found.spend(command.argv.len()) {
        return;
    }
    found.deeper(|found| {
        let Some(first) = command.argv.first() else {
            if !command.writes.is_empty() || !command.sets.is_empty() {
                found.push(command);
            }
            return;
        };
        let Some(name) = first.literal() else {
            found.unknown(format!("the program in `{first}` is only known when it runs"));
            found.push(command);
            return;
        };
        if !name.chars().all(|character| character.is_ascii_graphic()) {
            found.unknown("the name of a program holds unusual letters");
        }
        follow(found, command, dialect);
    });
}

fn follow(found: &mut Findings, mut command: SimpleCommand, dialect: Dialect) {
    let name = command.program().unwrap_or_default().to_owned();
    let place = found.commands.len();
    if shell::is_shell(&name) {
        command.wraps = shell::follow(found, &command, &name) && is_trusted(&command);
    } else if let Some(wrapper) = WRAPPERS.iter().find(|wrapper| wrapper.name == name) {
        let runs_another = wrapped(found, &command, wrapper, dialect);
        command.wraps = runs_another && wrapper.is_neutral && is_trusted(&command);
    } else {
        match name.as_str() {
            "find" => find(found, &command, dialect),
            "fd" | "fdfind" => {
                let runs = |word: &Word| match word.literal() {
                    Some(word) if word.starts_with("--") => word.starts_with("--exec"),
                    Some(word) => word.starts_with('-') && word.contains(['x', 'X']),
                    None => true,
                };
                if command.argv[1..].iter().any(runs) {
                    guess(found, &command, dialect);
                }
            }
            "eval" => text(found, &command, &command.argv[1..], "eval", dialect),
            "trap" => trap(found, &command, dialect),
            "watch" => watch(found, &command),
            "su" => su(found, &command),
            "git" => git(found, &command, dialect),
            "ssh" => ssh(found, &command),
            "export" | "readonly" | "local" => assignments(found, &command),
            "unset" | "read" => names(found, &command),
            "set" => set(found, &command),
            "test" | "[" => test(found, &command),
            "printf" => {
                let format = command.argv.get(1).and_then(Word::literal);
                if command.argv.len() > 1 && format.is_none_or(|format| format.starts_with('-')) {
                    found.unknown("`printf` may set a variable");
                }
            }
            "wait" if command.argv[1..].iter().any(|word| word.literal().is_none_or(|word| word.starts_with('-'))) => {
                found.unknown("`wait` may set a variable");
            }
            _ if UNFOLLOWED.contains(&name.as_str()) => {
                found.unknown(format!("what `{name}` does to later commands is not followed"));
            }
            _ if RUNNERS.contains(&name.as_str()) || name.starts_with("ld-") || name.starts_with("ld.so") => {
                guess(found, &command, dialect);
            }
            _ => {}
        }
    }
    // The command itself comes before those that it runs.
    found.insert(place, command);
}

/// Tells whether the name is that of the system's program rather than of some file.
fn is_trusted(command: &SimpleCommand) -> bool {
    let first = command.argv.first().and_then(Word::literal).unwrap_or_default();
    match first.rsplit_once('/') {
        None => true,
        Some((folder, _)) => matches!(folder, "/bin" | "/usr/bin"),
    }
}

fn inner(command: &SimpleCommand, through: &'static str, argv: Vec<Word>) -> SimpleCommand {
    let mut reached_through = command.reached_through.clone();
    reached_through.push(through);
    SimpleCommand { argv, reached_through, sets: command.sets.clone(), ..SimpleCommand::default() }
}

/// Follows a wrapper, and tells whether it runs another command that is now noted.
fn wrapped(found: &mut Findings, command: &SimpleCommand, wrapper: &Wrapper, dialect: Dialect) -> bool {
    let argv = &command.argv;
    let not_followed = |found: &mut Findings, word: &dyn std::fmt::Display| {
        found.unknown(format!("`{word}` after `{}` is not followed", wrapper.name));
        guess(found, command, dialect);
        false
    };
    let is_xargs = wrapper.name == "xargs";
    let mut replaced = None;
    let mut sets = Vec::new();
    let mut at = 1;
    while let Some(word) = argv.get(at) {
        let Some(text) = word.literal() else { return not_followed(found, word) };
        if text == "--" {
            at += 1;
            break;
        }
        if wrapper.name == "env" && text == "-" {
            at += 1;
        } else if wrapper.name == "command" && (text == "-v" || text == "-V") {
            return false;
        } else if wrapper.name == "nice" && text.strip_prefix('-').is_some_and(is_digits) {
            at += 1;
        } else if let Some(long) = text.strip_prefix("--") {
            let (long, has_value) = long.split_once('=').map_or((long, false), |(long, _)| (long, true));
            if wrapper.long_flags.contains(&long) {
                at += 1;
            } else if wrapper.long_values.contains(&long) {
                if !has_value && argv.get(at + 1).and_then(Word::literal).is_none() {
                    return not_followed(found, word);
                }
                at += if has_value { 1 } else { 2 };
            } else {
                return not_followed(found, word);
            }
        } else if let Some(letters) = text.strip_prefix('-').filter(|letters| !letters.is_empty()) {
            at += 1;
            for (position, letter) in letters.char_indices() {
                if wrapper.flags.contains(letter) {
                    continue;
                }
                if !wrapper.values.contains(letter) {
                    return not_followed(found, word);
                }
                let attached = &letters[position + 1..];
                let value = if attached.is_empty() {
                    at += 1;
                    argv.get(at - 1).and_then(Word::literal)
                } else {
                    Some(attached)
                };
                let Some(value) = value else { return not_followed(found, word) };
                if is_xargs && letter == 'I' {
                    replaced = Some(value.to_owned());
                }
                break;
            }
        } else {
            break;
        }
    }
    while wrapper.assigns
        && let Some(word) = argv.get(at)
        && word.to_string().contains('=')
    {
        match word.literal().and_then(scanner::split_assignment) {
            Some((name, value)) if is_harmless_assignment(name, Some(value)) => sets.push(format!("{name}={value}")),
            _ => found.unknown(format!("`{word}` may change what is run")),
        }
        at += 1;
    }
    for _ in 0..wrapper.operands {
        let is_number = |text: &str| {
            let body = text.strip_suffix(['s', 'm', 'h', 'd']).unwrap_or(text);
            let body = body.strip_prefix("0x").unwrap_or(body);
            !body.is_empty() && body.chars().all(|c| c.is_ascii_hexdigit() || matches!(c, '.' | ',' | '-'))
        };
        match argv.get(at) {
            Some(word) if word.literal().is_some_and(is_number) => at += 1,
            Some(word) => return not_followed(found, word),
            None => return false,
        }
    }
    let Some(rest) = argv.get(at..).filter(|rest| !rest.is_empty()) else { return is_xargs };
    let mut rest = rest.to_vec();
    if is_xargs {
        if let Some(mark) = replaced {
            for word in &mut rest {
                if word.literal().is_some_and(|text| text.contains(&mark)) {
                    *word = Word::Dynamic { text: word.to_string(), splits: false };
                }
            }
        }
        // A later option may have taken the replacement back.
        rest.push(Word::Dynamic { text: "…".to_owned(), splits: true });
    }
    let mut inner = inner(command, wrapper.name, rest);
    inner.sets.extend(sets);
    self::command(found, inner, dialect);
    true
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|character| character.is_ascii_digit())
}

/// Notes that a command may run others, and every command that could stand in its words.
fn guess(found: &mut Findings, command: &SimpleCommand, dialect: Dialect) {
    let name = command.program().unwrap_or_default();
    found.unknown(format!("what `{name}` runs is not followed"));
    let starts = (1..command.argv.len()).filter(|at| {
        let word = command.argv[*at].literal().unwrap_or("-");
        !word.starts_with('-') && !word.is_empty()
    });
    for at in starts.take(4) {
        let words = command.argv[at..].to_vec();
        if let Some(text) = words[0].literal().filter(|text| text.contains(' ')) {
            scanner::script(found, text, through(command, "guess"), Dialect::Posix);
        } else {
            self::command(found, inner(command, "guess", words), dialect);
        }
    }
}

fn through(command: &SimpleCommand, what: &'static str) -> Vec<&'static str> {
    let mut through = command.reached_through.clone();
    through.push(what);
    through
}

/// Follows words that are joined and read as a script.
fn text(found: &mut Findings, command: &SimpleCommand, words: &[Word], what: &'static str, dialect: Dialect) {
    let words: Option<Vec<&str>> = words.iter().map(Word::literal).collect();
    match words {
        None => found.unknown(format!("`{what}` runs what is only known when it runs")),
        Some(words) if words.first().is_some_and(|first| first.starts_with('-')) => {
            found.unknown(format!("an option of `{what}` is not followed"));
        }
        Some(words) => scanner::script(found, &words.join(" "), through(command, what), dialect),
    }
}

fn find(found: &mut Findings, command: &SimpleCommand, dialect: Dialect) {
    if let Some(word) = command.argv.iter().find(|word| word.is_dynamic()) {
        found.unknown(format!("`{word}` may make `find` run commands"));
    }
    for (at, word) in command.argv.iter().enumerate() {
        if !matches!(word.literal(), Some("-exec" | "-execdir" | "-ok" | "-okdir")) {
            continue;
        }
        if !found.spend(command.argv.len() - at) {
            return;
        }
        // One that is the value of another option is looked at as well, since that cannot be told here.
        let mut argv: Vec<Word> = Vec::new();
        let mut words = command.argv[at + 1..].iter();
        loop {
            let Some(word) = words.next() else {
                found.unknown("a command of `find` has no end");
                break;
            };
            match word.literal() {
                Some(";") => break,
                Some("+") if argv.last().is_some_and(|last| last.to_string() == "{}") => break,
                Some(text) if text.contains("{}") => {
                    argv.push(Word::Dynamic { text: text.to_owned(), splits: text == "{}" });
                }
                _ => argv.push(word.clone()),
            }
        }
        self::command(found, inner(command, "find -exec", argv), dialect);
    }
}

fn trap(found: &mut Findings, command: &SimpleCommand, dialect: Dialect) {
    match command.argv.get(1).map(Word::literal) {
        None | Some(Some("-" | "" | "-p" | "-l")) => {}
        Some(Some("--")) => text(found, command, command.argv.get(2..3).unwrap_or_default(), "trap", dialect),
        Some(_) => text(found, command, &command.argv[1..2], "trap", dialect),
    }
    if command.argv.iter().any(Word::is_dynamic) {
        found.unknown("`trap` runs what is only known when it runs");
    }
}

fn watch(found: &mut Findings, command: &SimpleCommand) {
    let mut at = 1;
    while let Some(option) = command.argv.get(at).and_then(Word::literal).filter(|word| word.starts_with('-')) {
        match option {
            "-b" | "-d" | "-e" | "-g" | "-t" | "-c" | "-w" | "-p" => at += 1,
            "-n" if command.argv.get(at + 1).is_some_and(|word| !word.is_dynamic()) => at += 2,
            _ => return guess(found, command, Dialect::Posix),
        }
    }
    text(found, command, &command.argv[at.min(command.argv.len())..], "watch", Dialect::Posix);
}

fn su(found: &mut Findings, command: &SimpleCommand) {
    found.unknown("which shell `su` starts is not known");
    let mut words = command.argv.iter().skip_while(|word| !matches!(word.literal(), Some("-c" | "--command")));
    if let Some(script) = words.nth(1) {
        text(found, command, std::slice::from_ref(script), "su -c", Dialect::Posix);
    }
}

fn git(found: &mut Findings, command: &SimpleCommand, dialect: Dialect) {
    let mut words = command.argv[1..].iter();
    while let Some(word) = words.next() {
        match word.literal() {
            Some("-C") => {
                words.next();
            }
            Some("-c") => return found.unknown("`git -c` may run commands"),
            Some(text) if text.starts_with("--config-env") || text.starts_with("--exec-path=") => {
                return found.unknown(format!("`git {text}` may run commands"));
            }
            Some(text) if text.starts_with("-c") => return found.unknown("`git -c` may run commands"),
            Some(text) if text.starts_with('-') => {}
            Some("bisect" | "submodule" | "filter-branch" | "filter-repo" | "difftool" | "mergetool") => {
                let runs = |word: &Word| matches!(word.literal(), None | Some("run" | "foreach" | "-x" | "--extcmd"));
                let is_filter = matches!(word.literal(), Some("filter-branch" | "filter-repo"));
                if is_filter || words.any(runs) {
                    guess(found, command, dialect);
                }
                return;
            }
            Some("rebase") => {
                let runs =
                    |word: &Word| word.literal().is_none_or(|word| word.starts_with("-x") || word.starts_with("--e"));
                if words.any(runs) {
                    guess(found, command, dialect);
                }
                return;
            }
            Some(_) => return,
            None => return found.unknown(format!("`git {word}` may be any command of git")),
        }
    }
}

fn ssh(found: &mut Findings, command: &SimpleCommand) {
    let mut operands = 0;
    let mut words = command.argv[1..].iter();
    while let Some(word) = words.next() {
        match word.literal() {
            Some("-o" | "-F" | "-J") | None => return found.unknown("`ssh` may run commands here"),
            Some("-b" | "-c" | "-E" | "-i" | "-l" | "-m" | "-p") => {
                words.next();
            }
            Some(text)
                if text.starts_with('-') && text[1..].chars().all(|letter| "46AaCGKkNnqTtVvXxYy".contains(letter)) => {}
            Some(text) if text.starts_with('-') => return found.unknown(format!("`ssh {text}` may run commands here")),
            Some(_) => operands += 1,
        }
    }
    if operands > 1 {
        found.unknown("what `ssh` runs on another machine is not followed");
    }
}

fn assignments(found: &mut Findings, command: &SimpleCommand) {
    for word in &command.argv[1..] {
        let is_harmless = match word.literal() {
            Some(text) => match scanner::split_assignment(text) {
                Some((name, value)) => is_harmless_assignment(name, Some(value)),
                None => is_harmless_assignment(text, None),
            },
            None => false,
        };
        if !is_harmless {
            found.unknown(format!("`{word}` may change what is run"));
        }
    }
}

fn names(found: &mut Findings, command: &SimpleCommand) {
    for word in &command.argv[1..] {
        let is_harmless = word.literal().is_some_and(|text| text == "-r" || is_harmless_assignment(text, None));
        if !is_harmless {
            found.unknown(format!("`{word}` may change what is run"));
        }
    }
}

fn set(found: &mut Findings, command: &SimpleCommand) {
    for word in &command.argv[1..] {
        let is_harmless = word.literal().is_some_and(|text| {
            let letters = text.strip_prefix(['-', '+']);
            letters.is_some_and(|letters| !letters.is_empty() && letters.chars().all(|letter| "euxo".contains(letter)))
                || matches!(text, "pipefail" | "errexit" | "nounset" | "xtrace")
        });
        if !is_harmless {
            found.unknown(format!("`set {word}` is not followed"));
        }
    }
}

/// A test may evaluate the index of an array, and with it a substitution that somebody put there.
fn test(found: &mut Findings, command: &SimpleCommand) {
    let words: Vec<&Word> = command.argv[1..].iter().filter(|word| word.literal() != Some("]")).collect();
    let splits = words.iter().any(|word| matches!(word, Word::Dynamic { splits: true, .. }));
    let looks_up = words.iter().any(|word| matches!(word.literal(), Some("-v" | "-R")));
    let words = match words.as_slice() {
        [first, rest @ ..] if first.literal() == Some("!") => rest,
        all => all,
    };
    let has_dynamic = words.iter().any(|word| word.is_dynamic());
    let is_operator =
        |word: &Word| word.literal().is_some_and(|text| text.starts_with('-') || matches!(text, "=" | "==" | "!="));
    let is_clear = match words {
        [_] => true,
        [operator, _] => is_operator(operator),
        [_, operator, _] => is_operator(operator),
        _ => false,
    };
    if looks_up || splits || has_dynamic && !is_clear {
        found.unknown("a test may evaluate what is only known when it runs");
    }
}
