//! Commands that only read and print, with the options for which that is known.

use super::SimpleCommand;

/// Tells whether a command changes nothing, starts nothing and sends nothing, whatever the files hold.
///
/// A command that only runs another one of the same list counts as safe itself; the other one is judged on its own.
pub fn is_known_safe(command: &SimpleCommand) -> bool {
    let writes = command.writes.iter().any(|target| target.literal() != Some("/dev/null"));
    if writes || !command.sets.is_empty() || command.has_dynamic_words() {
        return command.wraps && !writes && command.sets.is_empty();
    }
    if command.wraps {
        return true;
    }
    let Some(words) = command.literal_argv() else { return false };
    let Some((first, arguments)) = words.split_first() else { return false };
    let name = match first.rsplit_once('/') {
        None => *first,
        Some(("/bin" | "/usr/bin", name)) => name,
        Some(_) => return false,
    };
    is_safe(name, arguments)
}

fn is_safe(name: &str, arguments: &[&str]) -> bool {
    match name {
        ":" | "[" | "basename" | "cat" | "cksum" | "cmp" | "comm" | "cut" | "df" | "dirname" | "du" | "echo"
        | "expr" | "false" | "fold" | "groups" | "head" | "id" | "ls" | "md5sum" | "nl" | "nproc" | "od" | "paste"
        | "printf" | "pwd" | "readlink" | "realpath" | "rev" | "seq" | "sha1sum" | "sha256sum" | "sha512sum"
        | "sleep" | "stat" | "tac" | "tail" | "test" | "tr" | "true" | "tty" | "uname" | "wc" | "which" | "whoami" => {
            true
        }
        "command" => matches!(arguments, ["-v" | "-V", ..]),
        // What they set is harmless, or the whole line would be unknown.
        "read" | "set" | "type" | "unset" => true,
        "exit" | "return" | "break" | "continue" => true,
        "arch" | "hostname" => arguments.is_empty(),
        "date" => arguments.iter().all(|word| {
            word.starts_with('+')
                || matches!(*word, "-u" | "--utc" | "--universal" | "-R" | "--rfc-email")
                || word.starts_with("-I")
                || word.starts_with("--iso-8601")
                || word.starts_with("--rfc-3339=")
        }),
        "file" => arguments.iter().all(|word| {
            !word.starts_with('-')
                || matches!(*word, "-b" | "-i" | "-L" | "--brief" | "--mime" | "--mime-type" | "--mime-encoding")
        }),
        "sort" => sort(arguments),
        "uniq" => {
            let operands = arguments.iter().filter(|word| !word.starts_with('-')).count();
            operands <= 1 && arguments.iter().all(|word| !word.starts_with('-') || only_letters(word, "cdDuiz"))
        }
        // Perl's patterns can take for ever.
        "grep" | "egrep" | "fgrep" => arguments.iter().all(|word| match word.strip_prefix("--") {
            Some(long) => !long.starts_with('p'),
            None => !word.starts_with('-') || !word.contains('P'),
        }),
        "rg" => arguments.iter().all(|word| match word.strip_prefix("--") {
            Some(long) => !["pre", "hostname-bin", "search-zip", "pcre2"].iter().any(|bad| long.starts_with(bad)),
            None => !word.starts_with('-') || !word.contains(['z', 'P']),
        }),
        "find" => !arguments.iter().any(|word| {
            let bad = ["-exec", "-ok", "-delete", "-fprint", "-fls"];
            bad.iter().any(|bad| word.starts_with(bad))
        }),
        "sed" => match arguments {
            ["-n", script, files @ ..] => is_print_script(script) && files.iter().all(|file| !file.starts_with('-')),
            _ => false,
        },
        "git" => git(arguments),
        // Not those that a file of the folder can turn into another program: version managers stand before most languages.
        "clang" | "cmake" | "gcc" | "make" | "perl" => matches!(arguments, ["--version"]),
        _ => false,
    }
}

fn only_letters(word: &str, allowed: &str) -> bool {
    word.strip_prefix('-')
        .is_some_and(|letters| !letters.is_empty() && letters.chars().all(|letter| allowed.contains(letter)))
}

fn sort(arguments: &[&str]) -> bool {
    let mut words = arguments.iter();
    let mut only_files = false;
    while let Some(word) = words.next() {
        match *word {
            "--" => only_files = true,
            _ if only_files || !word.starts_with('-') || *word == "-" => {}
            "-k" | "-t" => {
                words.next();
            }
            _ if word.starts_with("-k") || word.starts_with("-t") || only_letters(word, "bdfgiMhnRrVcCmsuz") => {}
            _ => return false,
        }
    }
    true
}

/// Recognises `5p`, `5,9p` and `5,$p`.
fn is_print_script(script: &str) -> bool {
    let Some(lines) = script.strip_suffix('p') else { return false };
    let (first, last) = lines.split_once(',').unwrap_or((lines, "1"));
    let is_number = |text: &str| !text.is_empty() && text.chars().all(|character| character.is_ascii_digit());
    is_number(first) && (is_number(last) || last == "$")
}

fn git(arguments: &[&str]) -> bool {
    let arguments = match arguments {
        ["--no-pager", rest @ ..] => rest,
        all => all,
    };
    let Some((subcommand, arguments)) = arguments.split_first() else { return false };
    // Options may be shortened, so everything that could be one of these is refused.
    let is_bad = |word: &&str| {
        let Some(long) = word.strip_prefix("--").filter(|long| !long.is_empty()) else { return word.starts_with("-O") };
        let long = long.split_once('=').map_or(long, |(long, _)| long);
        ["output", "ext-diff", "textconv", "filters", "exec", "open-files-in-pager", "upload-pack"]
            .iter()
            .any(|bad| bad.starts_with(long) || long.starts_with(bad))
    };
    if arguments.iter().any(is_bad) {
        return false;
    }
    match *subcommand {
        "status" | "log" | "diff" | "show" | "rev-parse" | "ls-files" | "ls-tree" | "rev-list" | "merge-base"
        | "describe" | "blame" | "cat-file" | "shortlog" | "--version" | "version" => true,
        "branch" => match arguments {
            ["--list" | "-l", patterns @ ..] => patterns.iter().all(|pattern| !pattern.starts_with('-')),
            flags => flags.iter().all(|flag| {
                matches!(
                    *flag,
                    "-a" | "-r" | "-v" | "-vv" | "--all" | "--remotes" | "--list" | "--show-current" | "--no-color"
                )
            }),
        },
        "remote" => matches!(arguments, [] | ["-v"]),
        "tag" => matches!(arguments, [] | ["-l" | "--list"]),
        "stash" | "worktree" => matches!(arguments, ["list"]),
        _ => false,
    }
}
