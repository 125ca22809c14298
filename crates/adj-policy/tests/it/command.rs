//! Command lines and what is known of them.

use adj_policy::{MAX_COMMANDS, MAX_SCRIPT_BYTES, Parsed, SimpleCommand, Word, is_known_safe, parse, parse_argv};
use std::{fmt::Write as _, fs, panic, path::Path, time::Instant};

fn word(word: &Word) -> String {
    match word {
        Word::Literal(text) if text.is_empty() || text.contains([' ', '\n', '\t', '\'']) => format!("{text:?}"),
        Word::Literal(text) => text.clone(),
        Word::Dynamic { text, splits: true } => format!("<{}>*", text.escape_debug()),
        Word::Dynamic { text, splits: false } => format!("<{}>", text.escape_debug()),
    }
}

/// Writes a command in one line: its words, what it sets and writes, and how it is reached.
fn line(command: &SimpleCommand) -> String {
    let mut line = command.argv.iter().map(word).collect::<Vec<_>>().join(" ");
    for set in &command.sets {
        write!(line, " [sets {set}]").unwrap();
    }
    for target in &command.writes {
        write!(line, " [writes {}]", word(target)).unwrap();
    }
    if command.wraps {
        line.push_str(" [wraps]");
    }
    if !command.reached_through.is_empty() {
        write!(line, " ({})", command.reached_through.join(", ")).unwrap();
    }
    line.trim_start().to_owned()
}

fn told(script: &str) -> String {
    let parsed = parse(script);
    let mut text = String::new();
    if let Parsed::Unknown { why, .. } = &parsed {
        writeln!(text, "  unknown: {why}").unwrap();
    }
    for command in parsed.commands() {
        writeln!(text, "  {}", line(command)).unwrap();
    }
    text
}

fn is_unknown(script: &str) -> bool {
    matches!(parse(script), Parsed::Unknown { .. })
}

fn finds(script: &str, name: &str) -> bool {
    parse(script).commands().iter().any(|command| command.program() == Some(name))
}

#[test]
fn command_lines_are_taken_apart() {
    let lines = [
        "git push --force origin main",
        "git add . && git commit -m 'fix: it' || echo no; ls | wc -l &",
        "FOO=1 BAR=\"$x\" make -j4 >log 2>&1 </dev/null >>more",
        "> empty; X=1",
        "echo \"$HOME\" $x *.rs ~/a {a,b} $(date +%s) \"`id -u`\" $((1 + 2)) a~b {} HEAD~1 $ 5$",
        "echo 'a b'\"c d\"e\\ f $'g\\th\\x21'",
        "cat <<EOF | grep x\nto $(whoami)\nEOF\necho done",
        "diff <(sort a) <(sort b)",
        "if test -f a; then rm a; elif [ -d b ]; then rmdir b; else touch c; fi",
        "for f in *.txt 'x y'; do cp \"$f\" /tmp; done",
        "while read -r line; do echo \"$line\"; done < file",
        "(cd /tmp && ls) > out",
        "bash -euo pipefail -c 'curl -s https://example.org | tar xz'",
        "bash -lc \"env -i PATH2=x timeout 5s nice -n 3 git push\"",
        "sudo -u root rm -rf /",
        "env rm a; /usr/bin/env rm b; ./env rm c",
        "find . -name '*.o' -exec rm -f {} + -o -execdir sh -c 'mv \"$1\" x' _ {} \\;",
        "ls | xargs -0 -n 1 rm -f; ls | xargs -I% mv % %.bak",
        "eval 'rm -rf' x; trap 'rm y' EXIT; exec rm z",
        "watch -n 1 'git status; rm x'",
        "time ! command git push; command -v git",
        "git -C sub log; git -c alias.x='!rm' x; git submodule foreach 'rm x'; git rebase -x 'rm y' main",
        "echo a \\\n  b # c; rm d",
        "export FOO=bar; unset FOO; set -euo pipefail",
        // What is not understood, and what is found in it all the same.
        "$EDITOR file",
        "rm() { git push; }; rm x",
        "case x in *) rm a;; esac; rm b",
        "[[ -f x ]] && rm x",
        "((i++)); rm x",
        "echo ${x:-$(rm y)}; echo $((a[$(rm z)]))",
        "eval \"$x\"; bash -c \"rm $x\"; bash; sh script.sh; echo rm | sh",
        "bash <<EOF\nrm x\nEOF\n",
        "PATH=/tmp:$PATH ls; LD_PRELOAD=x ls; GIT_SSH_COMMAND=x git fetch",
        "zsh -c 'rm x'; su -c 'rm y' root; ssh host rm z; strace -f rm w",
        "parallel rm ::: a b; flock /tmp/lock rm c",
        "source env.sh; . ./env.sh; alias ls=rm",
        "a=(1 2); b[0]=1; declare -a c; x+=1 y",
        "ls 'unclosed; rm x",
        "ls ) rm x",
        "ls;; rm x",
        "find . $ARGS; xargs $x rm; env $x rm; timeout $x rm a",
        "cat <<EOF\nnever ends",
        "сat file",
        "ls\u{a0}-l; ls \u{202e}x; ls \u{200b}",
        "ls \r rm",
        "echo >/dev/tcp/example.org/80",
    ];
    let mut text = String::new();
    for line in lines {
        write!(text, "{}\n{}\n", line.escape_debug(), told(line)).unwrap();
    }
    insta::assert_snapshot!(text);
}

#[test]
fn what_is_forbidden_is_found_however_it_is_reached() {
    let ways = [
        "script -qc 'rm x' /dev/null",
        "tmux new 'rm x'",
        "find . -name -exec -exec rm {} \\;",
        "rm x",
        "/bin/rm x",
        "../../bin/rm x",
        "'r'm x",
        "r\\m x",
        "$'\\x72m' x",
        "true && rm x",
        "echo $(rm x)",
        "echo \"$(rm x)\"",
        "echo `rm x`",
        "cat <(rm x)",
        "cat <<EOF\n$(rm x)\nEOF",
        "sh -c 'rm x'",
        "bash -xc \"sh -c 'rm x'\"",
        "env A=b rm x",
        "env -S 'rm x'",
        "xargs rm",
        "find . -exec rm {} \\;",
        "sudo -n rm x",
        "sudo --unheard-of rm x",
        "timeout --weird 5 rm x",
        "nohup setsid rm x &",
        "eval rm x",
        "trap 'rm x' 0",
        "f() { rm x; }; f",
        "case a in a) rm x;; esac",
        "strace rm x",
        "busybox rm x",
        "if [[ 1 ]]; then rm x; fi",
        "echo 'a\nb'\"'\"; rm x",
        "{ rm x; } &> log",
        "echo ${x:-`rm x`}",
        "ld-linux-x86-64.so.2 /bin/rm x",
        "exec -a ls rm x",
        "command -p rm x",
        "zsh -c 'rm x'",
        "echo x | while read -r y; do rm x; done",
    ];
    for way in ways {
        assert!(finds(way, "rm"), "{way}: {}", told(way));
    }
}

#[test]
fn what_changes_the_meaning_of_later_words_is_unknown() {
    let lines = [
        "RUSTFLAGS=x cargo test",
        "CC=x make",
        "TAR_OPTIONS=x tar x",
        "000000001>/dev/null git push",
        "123456789<&- git push",
        "sh -c 'sh 10>/dev/null -c ls'",
        "ls >&'a b'",
        "watch -x ls",
        "PATH=x ls",
        "IFS=x; ls",
        "export PATH",
        "export LD_PRELOAD=x",
        "env LD_LIBRARY_PATH=x ls",
        "export BASH_ENV=x",
        "GIT_PAGER=x git log",
        "read PATH",
        "for PATH in a; do ls; done",
        "PROMPT_COMMAND=x",
        "readonly 'a[$(id)]=1'",
        "x='$(id)' ls",
        "env 'x=$(id)' ls",
        "unset 'a[0]'",
        "printf -v x y",
        "printf \"$x\"",
        "test -v \"$x\"",
        "[ $x ]",
        "[ \"$a\" \"$b\" ]",
        "set -k",
        "set -- a",
        "shopt -s extglob",
        "enable -f x y",
        "hash -p x ls",
        "sh",
        "sh -s",
        "bash -i -c ls",
        "bash -O extglob -c ls",
        "bash --rcfile x",
        "python | sh",
        "sh -c \"$x\"",
        "sh $x",
        "sh -c 'x+=1 ls'",
        "sh -c \"\\$'ls'\"",
        "ssh h ls",
        "ssh -o ProxyCommand=ls h",
        "git -c a=b status",
        "git --config-env=a=b status",
        "git $x",
        "git bisect run x",
        "x() { ls; }",
        "function x { ls; }",
        "ls >&$(id",
        "echo é",
        "\u{feff}ls",
        "echo \"a\u{202e}b\"",
        "echo \0",
        "echo \u{7f}",
        "ls &&",
        "if ls",
        "(ls",
        "ls | | ls",
        "! ",
        "> ",
    ];
    for line in lines {
        assert!(is_unknown(line), "{line:?}: {}", told(line));
    }
    let known = [
        "",
        "\n\n",
        "# comment",
        "ls",
        "echo \"Grüße, 世界\"",
        "[ -n \"$x\" ]",
        "[ \"$a\" = b ]",
        "printf '%s\\n' \"$x\"",
        "set -x",
        "sh file",
        "ssh host",
        "git status",
        "read -r x",
        "RUST_BACKTRACE=1 PYTHONUNBUFFERED=1 ls",
        "ls >&out",
        "FOO=bar ls",
        "bash --version",
        "echo 'a\nb'",
        "exit 0",
    ];
    for line in known {
        assert!(!is_unknown(line), "{line:?}: {}", told(line));
    }
}

#[test]
fn only_what_reads_and_prints_is_known_to_be_safe() {
    let safe = [
        "ls -la /etc",
        "/bin/cat a b",
        "head -n 5 x",
        "wc -l x",
        "pwd",
        "echo hi 2>/dev/null",
        "true",
        "test -f x",
        "grep -rn foo src",
        "rg --files -g '*.rs'",
        "find . -name '*.rs' -type f",
        "git status",
        "git --no-pager log --oneline -5",
        "git diff --stat HEAD~1",
        "git show HEAD:a.rs",
        "git branch -a",
        "git branch --list 'a*'",
        "git rev-parse HEAD",
        "git ls-files",
        "sed -n 5p x",
        "sed -n '5,10p' x",
        "sed -n '5,$p' x",
        "sort -u x",
        "sort -k 2 x",
        "uniq -c x",
        "cut -d: -f1 x",
        "date",
        "date -u +%s",
        "make --version",
        "file x",
        "command -v git",
        "git remote -v",
        "git stash list",
    ];
    let unsafe_ones = [
        "rm x",
        "ls > x",
        "ls >> x",
        "A=b ls",
        "ls $x",
        "ls *",
        "./ls",
        "/tmp/ls",
        "cat \"$x\"",
        "grep -P x y",
        "grep -oP x y",
        "grep --perl-regexp x",
        "rg --pre x y",
        "rg --pre=x y",
        "rg --hostname-bin=x y",
        "rg -z x",
        "rg --search-zip x",
        "find . -delete",
        "find . -fprintf x y",
        "find . -exec ls {} +",
        "find . -ok ls \\;",
        "find . -fls x",
        "git log --output=x",
        "git log --outp x",
        "git diff --ext-diff",
        "git diff --textconv",
        "git grep -O x",
        "git branch x",
        "git branch -D x",
        "git push",
        "git -p log",
        "git --exec-path=x log",
        "git -c a=b log",
        "git config a b",
        "git stash",
        "git remote add a b",
        "git tag x",
        "sed -n '1e id' x",
        "sed -i s/a/b/ x",
        "sed 's/a/b/e' x",
        "sed -n 5p -i x",
        "sort -o x y",
        "sort --output=x y",
        "sort --compress-program=x y",
        "sort -S1 -T /tmp y",
        "uniq a b",
        "date -s x",
        "date 010100002030",
        "file -C x",
        "cargo build",
        "cargo --version --config x",
        "cargo --version",
        "python3 --version",
        "go version",
        "cd sub",
        "cd sub && git status",
        "node -e 1",
        "node --version -e 1",
        "env",
        "awk 1",
        "tee x",
        "> x",
        "A=b",
        "hostname x",
        "yes",
        "curl x",
        "sudo ls",
    ];
    let judge = |line: &str| match parse(line) {
        Parsed::Commands(commands) => !commands.is_empty() && commands.iter().all(is_known_safe),
        Parsed::Unknown { .. } => false,
    };
    for line in safe {
        assert!(judge(line), "{line} is safe");
    }
    for line in unsafe_ones {
        assert!(!judge(line), "{line} is not known to be safe");
    }
    // A wrapper is as safe as what it runs.
    for (line, expected) in [
        ("timeout 5 ls", true),
        ("timeout 5 rm x", false),
        ("bash -lc 'ls && git status'", true),
        ("bash -lc 'ls && git push'", false),
        ("ls | xargs cat", false),
        ("env A=b ls", false),
        ("./timeout 5 ls", false),
        ("nice ls > x", false),
        ("find . | head", true),
    ] {
        assert_eq!(judge(line), expected, "{line}");
    }
}

#[test]
fn words_that_need_no_shell_are_followed_as_well() {
    let argv = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    let parsed = parse_argv(&argv(&["bash", "-lc", "git push | cat"]));
    let lines: Vec<String> = parsed.commands().iter().map(line).collect();
    assert_eq!(lines, ["bash -lc \"git push | cat\" [wraps]", "git push (bash -c, pipe)", "cat (bash -c, pipe)"]);
    let parsed = parse_argv(&argv(&["ls", "$HOME", "*"]));
    assert_eq!(
        parsed,
        Parsed::Commands(vec![SimpleCommand {
            argv: ["ls", "$HOME", "*"].map(Word::from).to_vec(),
            ..SimpleCommand::default()
        }])
    );
    assert!(matches!(parse_argv(&argv(&["ls", "a\u{1b}[2J"])), Parsed::Unknown { .. }));
    assert_eq!(parse_argv(&[]), Parsed::Commands(Vec::new()));
}

#[test]
fn hostile_lines_are_bounded() {
    let nest = |open: &str, close: &str, times: usize| format!("{}ls{}", open.repeat(times), close.repeat(times));
    let lines = [
        "x ".repeat(MAX_SCRIPT_BYTES),
        "ls;".repeat(MAX_SCRIPT_BYTES / 3),
        nest("(", ")", 20_000),
        nest("$(", ")", 20_000),
        nest("\"$(", ")\"", 10_000),
        nest("`", "`", 20_000),
        nest("{ ", ";}", 10_000),
        nest("if ", "; then a; fi", 3_000),
        "\"(".repeat(30_000),
        "'".repeat(65_535),
        "<<A ".repeat(16_000),
        "$((".repeat(20_000),
        "${".repeat(30_000),
        "! ".repeat(30_000),
        "a=;".repeat(20_000),
        "env ".repeat(16_000),
        "strace ".repeat(9_000),
        format!("strace {}", "flock a b ".repeat(6_000)),
        "\\\n".repeat(30_000),
        "find -exec ".repeat(5_000),
        "eval ".repeat(12_000),
        "|".repeat(60_000),
        "a|".repeat(30_000),
        "<(".repeat(30_000),
        format!("{}{}", "cat <<A\n".repeat(100), "\n".repeat(60_000)),
    ];
    for line in lines {
        let start = Instant::now();
        let parsed = parse(&line);
        let short: String = line.chars().take(20).collect();
        let is_unknown = matches!(parsed, Parsed::Unknown { .. });
        assert!(is_unknown || parsed.commands().is_empty(), "{short:?} is too much");
        assert!(parsed.commands().len() <= MAX_COMMANDS);
        assert!(start.elapsed().as_secs() < 5, "{short:?} took {:?}", start.elapsed());
    }
    // What fits is told.
    assert_eq!(parse(&"ls;".repeat(MAX_COMMANDS)).commands().len(), MAX_COMMANDS);
    assert!(!is_unknown(&"ls;".repeat(MAX_COMMANDS - 1)));
}

#[path = "../../../../fuzz/bodies/command.rs"]
mod body;

#[test]
fn seeds() {
    replay("command", body::run);
}

/// Does with each seed, and with its beginnings, what the fuzz target does.
pub(crate) fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let mut count = 0;
    for entry in fs::read_dir(&folder).expect("the seeds are there") {
        let seed = entry.expect("the folder can be listed").path();
        let data = fs::read(&seed).expect("the seed can be read");
        for end in (0..data.len()).step_by(1 + data.len() / 100).chain([data.len()]) {
            let outcome = panic::catch_unwind(|| run(&data[..end]));
            assert!(outcome.is_ok(), "it fails on the first {end} bytes of {}", seed.display());
            count += 1;
        }
    }
    assert!(count > 100, "there are seeds");
}
