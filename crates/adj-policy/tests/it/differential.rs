//! What the parser says of a line, against what `bash` starts when it runs it.
//!
//! The line runs in a folder of its own with a `PATH` that holds three programs which write down how they were started, and the
//! usual wrappers. Whatever they write down has to be among the commands that were told, unless the line counts as unknown.

use adj_policy::{Parsed, SimpleCommand, Word, parse};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const PROGRAMS: [&str; 3] = ["c1", "c2", "c3"];
const WRAPPERS: [&str; 9] = ["env", "nice", "nohup", "setsid", "stdbuf", "timeout", "xargs", "find", "sh"];

struct Machine {
    folder: tempfile::TempDir,
    bash: PathBuf,
}

impl Machine {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let programs = folder.path().join("bin");
        fs::create_dir(&programs).unwrap();
        fs::create_dir(folder.path().join("work")).unwrap();
        let log = folder.path().join("log");
        for name in PROGRAMS {
            let path = programs.join(name);
            let script = format!("#!/bin/sh\nprintf '%s\\0' \"$#\" \"${{0##*/}}\" \"$@\" >>'{}'\n", log.display());
            fs::write(&path, script).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        for name in WRAPPERS {
            symlink(which(name), programs.join(name)).unwrap();
        }
        let bash = which("bash");
        symlink(&bash, programs.join("bash")).unwrap();
        Self { folder, bash }
    }

    /// Runs a line, and returns how each program was started.
    fn run(&self, script: &str) -> Vec<Vec<String>> {
        let log = self.folder.path().join("log");
        let work = self.folder.path().join("work");
        fs::write(&log, "").unwrap();
        fs::remove_dir_all(&work).unwrap();
        fs::create_dir(&work).unwrap();
        fs::write(work.join("file"), "").unwrap();
        let mut command = Command::new(which("timeout"));
        command.args(["-k", "1", "10"]).arg(&self.bash).args(["--norc", "--noprofile", "-c", script]);
        command.env_clear().env("PATH", self.folder.path().join("bin")).env("HOME", &work).current_dir(&work);
        // The output is closed when the last process is gone.
        command.stdin(Stdio::null()).output().unwrap();
        let log = String::from_utf8_lossy(&fs::read(&log).unwrap()).into_owned();
        let mut fields = log.split('\0');
        let mut started = Vec::new();
        while let Some(Ok(count)) = fields.next().map(str::parse::<usize>) {
            started.push(fields.by_ref().take(count + 1).map(str::to_owned).collect());
        }
        started
    }

    /// Checks one line, and returns whether it is known.
    fn check(&self, script: &str) -> bool {
        let Parsed::Commands(commands) = parse(script) else { return false };
        for argv in self.run(script) {
            let is_told = commands.iter().any(|command| is_start_of(command, &argv));
            assert!(is_told, "{script:?} started {argv:?}, and only these were told: {commands:#?}");
        }
        true
    }
}

fn which(name: &str) -> PathBuf {
    let folders = ["/usr/bin", "/bin", "/usr/local/bin"];
    let found = folders.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("this test needs {name}"))
}

fn is_start_of(command: &SimpleCommand, argv: &[String]) -> bool {
    match (command.argv.first(), argv.first()) {
        (Some(Word::Literal(_)), Some(name)) if command.program() == Some(name) => fits(&command.argv[1..], &argv[1..]),
        _ => false,
    }
}

fn fits(words: &[Word], argv: &[String]) -> bool {
    match words.split_first() {
        None => argv.is_empty(),
        Some((Word::Literal(text), rest)) => argv.first() == Some(text) && fits(rest, &argv[1..]),
        Some((Word::Dynamic { splits: false, .. }, rest)) => !argv.is_empty() && fits(rest, &argv[1..]),
        Some((Word::Dynamic { splits: true, .. }, rest)) => (0..=argv.len()).any(|taken| fits(rest, &argv[taken..])),
    }
}

#[test]
fn lines_that_are_written_to_mislead_start_nothing_untold() {
    let machine = Machine::new();
    let started = machine.run("c1 'a b' ''; env c2");
    assert_eq!(started, [vec!["c1", "a b", ""], vec!["c2"]], "the programs do not tell how they are started");
    let lines = [
        "c1 'c2' \"c3\"",
        "c1\\ c2; c3",
        "c1 \\ c2",
        "c1 a\\\n b",
        "c1 a\\\nb",
        "c1 # c2\nc3",
        "c1 a#b; c2",
        "c1;#c2\nc3",
        "c1 $(c2 $(c3))",
        "c1 \"$(c2 \")\" | c3)\"",
        "c1 `c2 'a;b'`",
        "c1 \"`c2`\"",
        "c1 <<EOF\n$(c2)\n\\$(c3)\nEOF\n",
        "c1 <<'EOF'\n$(c2)\nEOF\nc3",
        "c1 <<-EOF\n\tx\n\tEOF\nc2",
        "c1 <<A <<B\nx\nA\ny\nB\nc2",
        "c1 <<A; c2\nc3\nA\n",
        "c1 <<A | c2\n$(c3)\nA\n",
        "c1 <(c2) >(c3)",
        "c1 a<(c2)b",
        "x=$(c1) c2",
        "x=1 y=2 c1; c2",
        "if c1; then c2; elif c3; then c1; else c2; fi",
        "if ! c1; then c2; else c3; fi",
        "for i in a b; do c1 $i; done; c2",
        "for i in 'a b' $(c2); do c1 \"$i\"; done",
        "for i\ndo c1; done; c2",
        "until c1; do c2; done",
        "{ c1; c2; } | c3",
        "( c1; (c2) ) && c3 || c1",
        "! c1 | ! c2",
        "time -p c1; time c2 | c3",
        "c1 & c2 & c3",
        "c1 2>&1 >/dev/null | c2 &>out",
        "c1 2>(c2)",
        "2>out c1 >&2 a",
        "env x=1 c1; env -i PATH=. c2; env -u x c3 env",
        "env -S 'c1 c2'",
        "nice -n 5 nohup setsid stdbuf -oL timeout 5 c1 a",
        "timeout -k 1 5s c1 || nice -5 c2",
        "sh -c 'c1 a; c2'; bash -lc 'c3'; bash -euo pipefail -c 'c1 $0' c2",
        "sh -c \"sh -c 'c1 \\\"a b\\\"'\"",
        "sh -c $'c1 \\'a b\\''",
        "sh -c 'c1 $'\"'a'; c2'\"",
        "eval c1 ';' c2; eval 'c3 \"a b\"'",
        "trap 'c1 bye' EXIT; c2",
        "printf 'a b' | xargs c1; printf 'a\\nb' | xargs -I{} c2 {} x{}y; printf x | xargs -n1 sh -c 'c3 \"$0\"'",
        "printf c2 | xargs -I% % a",
        "printf 'c3 a' | sh; printf 'c3 a' | xargs env",
        "find . -name file -exec c1 {} \\; -exec c2 {} + -execdir sh -c 'c3 \"$1\"' _ {} ';'",
        "find file $(printf '%s' '-exec c2 {} ;')",
        "command c1; builtin eval c2; exec c3",
        "x='c2 a'; $x; eval \"$x\"",
        "a=c1; \"$a\"b || ${a} x",
        "c1 {a,b} {c..e} ~ * $((1+2)) \"$HOME\"",
        "{c1,c2}",
        "c[1] || c?",
        "$'c1' $'a\\x20b' $'\\''",
        "c1 \"a\\nb\\\"c\\$d\\`e\\\\f\"",
        "c1 'a\nb' \"c\nd\"",
        "c1 $'a\\nb'",
        "\\c1 a; 'c2' b; \"c3\" c; c''1 d",
        "c1() { c2; }; c1",
        "alias c1=c2\nc1",
        "shopt -s expand_aliases\nalias c1=c2\nc1",
        "case c1 in c*) c2;; esac",
        "[[ -n $(c1) ]] && c2",
        "(( x=1 )) && c1",
        "x='a[$(c1)]'; echo $((x))",
        "x='a[$(c2)]'; test -v \"$x\"",
        "RANDOM='a[$(c2)]'",
        "export SECONDS='a[$(c2)]'",
        "printf -v 'a[$(c2)]' x",
        "read 'a[$(c2)]' <<< x",
        "unset 'a[$(c2)]'",
        "for RANDOM in 'a[$(c2)]'; do c1; done",
        "declare -i n='a[$(c2)]'",
        "PS4='$(c2)'; set -x; c1",
        "PROMPT_COMMAND=c2; c1",
        "env BASH_ENV=/dev/stdin bash -c c1 <<< c2",
        "command_not_found_handle() { c2; }; nothere",
        "hash -p \"$(command -v c2)\" c1; c1",
        "mapfile -C c2 -c 1 <<< x",
        "coproc c1; wait",
        "c1 && { c2 || { c3; }; }",
        "c1 |& c2",
        "select x in a; do c1; done <<< 1",
        "function f { c1; }; f",
        "let 'x=a[$(c2)]'",
        "bash <<EOF\nc2\nEOF\n",
        ". /dev/stdin <<< c2",
        "echo \"${x:-$(c2)}\" ${x:=`c3`}",
        "y='$(c2)'; echo \"${y@P}\"",
        "echo $[ $(c2) ]",
        "exec {fd}>out; c1",
        "c1 a=b c=$(c2) =x",
        "x+=1 c1; sh -c 'x+=1 c2'",
        "c1 $\"a$(c2)\"",
        "if c1\nthen c2\nfi\n",
        "c1 ; ; c2",
        "c1 ) c2",
        "c1 'c2",
        "c1 <<EOF\nc2\n",
        "then c1; fi; c2",
        "true && (c1\nc2\n)",
        "c1 \"$(c2 <<X\n$(c3)\nX\n)\"",
        "wait -p 'a[$(c2)]' -n; c1",
        "test -v a -o x -lt 'b[$(c2)]'",
        "compgen -W '$(c2)' x; compgen -C c3 x",
        "set -- c2 a; \"$@\"",
        "set -o posix; c1",
        "BASH_CMDS[c1]=/dev/null c2",
        "watch=1 c1; bash --rcfile x -ic c2",
        "c1 >&'$(c2)'",
        "c1 &>'$(c2)' 2>'`c3`' 3<>'$(c3)'",
        "c1 >()",
        "printf x | xargs -I% -n1 c2 %",
        "find file -name -exec -o -exec c2 {} ';'",
        "[ ! file = file -o -n x ] || c1",
        "jobs -x c2; enable -n echo; type c1",
    ];
    let known = lines.iter().filter(|line| machine.check(line)).count();
    assert!(known > 35, "only {known} of these lines are known");
}

/// Pieces that make sense together now and then.
const PIECES: &[&str] = &[
    "c1",
    "c2",
    "c3",
    "c1 ",
    "c2 ",
    "; c3 ",
    " ",
    "  ",
    "\t",
    "\n",
    ";",
    "&&",
    "||",
    "|",
    "&",
    "'",
    "\"",
    "\\",
    "$",
    "$(",
    ")",
    "(",
    "`",
    "{",
    "}",
    "{ ",
    "; }",
    "#",
    " #",
    "!",
    " ! ",
    "~",
    "*",
    "a",
    "x=1 ",
    "x=",
    "$x",
    "${x}",
    "<",
    ">",
    ">>",
    "<<EOF\n",
    "\nEOF\n",
    "<<'E'\n",
    "\nE\n",
    "<<-E\n",
    "$'",
    "\\'",
    "\\n",
    "\\\n",
    " \\\n",
    "if ",
    "; then ",
    "; fi",
    "; do ",
    "; done",
    "for i in ",
    "until ",
    "case ",
    " in ",
    "esac",
    "[[ ",
    " ]]",
    "eval ",
    "sh -c ",
    "bash -c ",
    "env ",
    "xargs ",
    "nice ",
    "timeout 5 ",
    "time ",
    "command ",
    "exec ",
    "-c ",
    "-- ",
    "-",
    " 2>&1 ",
    "&>",
    ">&2",
    "<(",
    ">(",
    "<<<",
    "=",
    "+=",
    "a b",
    "\"c2\"",
    "'c3'",
    "set ",
    "trap ",
    "0",
    "1",
    "((",
    "))",
    ",",
    "{a,b}",
    "[",
    "]",
    "?",
    "%",
    "$((",
    "\"$(c2)\"",
    "`c3`",
    "'\"'",
    "\"'\"",
    "\\\"",
    "\\\\",
    "\\$",
    "\\`",
    "|&",
    "é",
    "-x",
];

fn heap_of_pieces() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(PIECES), 1..12).prop_map(|pieces| pieces.concat())
}

/// One word, in one of the many ways to write it.
fn quoted(word: &str, style: &[u8]) -> String {
    let mut text = String::new();
    for (position, character) in word.chars().enumerate() {
        match style.get(position % style.len().max(1)).copied().unwrap_or_default() % 4 {
            0 if character == '\'' => text.push_str("\\'"),
            0 => text.extend(['\'', character, '\'']),
            1 if matches!(character, '$' | '`' | '"' | '\\') => text.extend(['"', '\\', character, '"']),
            1 => text.extend(['"', character, '"']),
            2 if character == '\n' => text.push_str("'\n'"),
            2 => text.extend(['\\', character]),
            _ if character.is_ascii_alphanumeric() => text.push(character),
            _ => text.push_str(&format!("$'\\x{:02x}'", u32::from(character))),
        }
    }
    if text.is_empty() { "''".to_owned() } else { text }
}

/// A line of which every word is known, however it is wrapped and quoted.
fn wrapped_words() -> impl Strategy<Value = String> {
    let style = prop::collection::vec(any::<u8>(), 1..5);
    let word =
        ("[a-z $`\"'\\\\;&|(){}<>#*?~=!\n-]{0,6}", style.clone()).prop_map(|(word, style)| quoted(&word, &style));
    let simple = (prop::sample::select(&PROGRAMS[..]), prop::collection::vec(word, 0..3))
        .prop_map(|(program, words)| format!("{program} {}", words.join(" ")));
    simple.prop_recursive(3, 12, 3, move |inner| {
        let style = style.clone();
        prop_oneof![
            (inner.clone(), inner.clone(), prop::sample::select(&["; ", " && ", " | ", "\n", " & "][..]))
                .prop_map(|(left, right, between)| format!("{left}{between}{right}")),
            (inner.clone(), style).prop_map(|(script, style)| format!("bash -c {}", quoted(&script, &style))),
            inner.clone().prop_map(|script| format!("( {script}\n)")),
            inner.clone().prop_map(|script| format!("{{ {script}\n}}")),
            inner.clone().prop_map(|script| format!("c1 \"$({script}\n)\" x")),
            inner.clone().prop_map(|script| format!("if {script}\nthen c2\nfi")),
            inner.clone().prop_map(|script| format!("timeout 5 {script}")),
            inner.prop_map(|script| format!("eval {}", quoted(&script, &[0, 1]))),
        ]
    })
}

/// Tries many lines, the same ones each time, and returns how many are known.
fn sweep(strategy: impl Strategy<Value = String>, cases: u32) -> u32 {
    let machine = Machine::new();
    let mut runner = match std::env::var("ADJUTANT_TEST_SEED") {
        Ok(_) => TestRunner::default(),
        Err(_) => TestRunner::deterministic(),
    };
    let mut known = 0;
    for _ in 0..cases {
        let script = strategy.new_tree(&mut runner).unwrap().current();
        known += u32::from(machine.check(&script));
    }
    known
}

fn cases(usual: u32) -> u32 {
    std::env::var("ADJUTANT_TEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(usual)
}

#[test]
fn heaps_of_pieces_start_nothing_untold() {
    let cases = cases(1500);
    let known = sweep(heap_of_pieces(), cases);
    assert!(known > cases / 50, "only {known} of {cases} lines are known");
}

#[test]
fn wrapped_and_quoted_words_are_known_and_start_nothing_untold() {
    let cases = cases(150);
    let known = sweep(wrapped_words(), cases);
    assert!(known > cases * 9 / 10, "only {known} of {cases} lines are known");
}
