//! Runs the commands that the documents show, in a home of their own.
//!
//! A block fenced as `console` is a session in a fresh git repository: lines after `$ ` are typed, other lines are what one would
//! see and are not compared. Each command has to succeed, or to end as a line `[exit: N]` after it says. A block fenced as
//! `console no-run` is only shown.

use super::Outcome;
use crate::{
    command::{self, Invocation},
    repository::Repository,
};
use anyhow::{Context, Result, bail, ensure};
use std::{
    ffi::OsString,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// How long one block may take.
const DEADLINE: Duration = Duration::from_secs(300);

/// A fenced block of a document.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    /// Where its fence stands, counted from 1.
    line: usize,
    run: bool,
    commands: Vec<Typed>,
}

/// A command as one would type it.
#[derive(Debug, PartialEq, Eq)]
struct Typed {
    line: usize,
    text: String,
    exit: u8,
}

pub fn check(repository: &Repository) -> Result<Outcome> {
    let mut problems = Vec::new();
    let mut pages = Vec::new();
    for page in repository.files()?.into_iter().filter(|path| is_page(path)) {
        let text = fs::read_to_string(repository.root.join(&page))?;
        match parse(&text) {
            Ok(blocks) if blocks.is_empty() => {}
            Ok(blocks) => pages.push((page, blocks)),
            Err(error) => problems.push(format!("{}{error}", page.display())),
        }
    }
    let blocks = || pages.iter().flat_map(|(_, blocks)| blocks);
    if blocks().any(|block| block.run) {
        // Together with the tests: so the dependencies have the features that they were built with for these, and are not built anew.
        let build = ["build", "--quiet", "--locked", "--workspace", "--bins", "--tests"];
        let build = command::cargo(&repository.root).args(build);
        ensure!(build.succeeds()?, "cannot build adjutant, whose commands the documents show");
        let scratch = repository.scratch("commands")?;
        for (number, (page, blocks)) in pages.iter().enumerate() {
            let room = Room::prepare(repository, scratch.join(number.to_string()))?;
            for block in blocks.iter().filter(|block| block.run) {
                problems.extend(room.run(page, block)?);
            }
        }
    }
    let count =
        |run: bool| -> usize { blocks().filter(|block| block.run == run).map(|block| block.commands.len()).sum() };
    Ok(Outcome::of(problems, format!("{} commands run, {} only shown", count(true), count(false))))
}

fn is_page(path: &Path) -> bool {
    path == Path::new("README.md")
        || (path.starts_with("docs") && path.extension().is_some_and(|extension| extension == "md"))
}

/// Finds the console blocks of a page; an error starts with the line, as `:12: …`.
fn parse(text: &str) -> Result<Vec<Block>> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    while let Some((line, text)) = lines.next() {
        let Some((fence, info)) = opening(text) else { continue };
        let mut inside = Vec::new();
        loop {
            let Some((number, text)) = lines.next() else { bail!(":{line}: the block is never closed") };
            if text.trim_start().trim_end_matches(char::is_whitespace) == fence {
                break;
            }
            inside.push((number, text.trim_start()));
        }
        let words: Vec<&str> = info.split_whitespace().collect();
        let run = match words[..] {
            ["console"] => true,
            ["console", "no-run"] => false,
            ["console", ..] => bail!(":{line}: `{info}` is neither `console` nor `console no-run`"),
            _ => continue,
        };
        let commands = typed(&inside)?;
        ensure!(!commands.is_empty(), ":{line}: no line of the block starts with `$ `");
        blocks.push(Block { line, run, commands });
    }
    Ok(blocks)
}

/// Splits the line that opens a block into what will close it and what it says about itself.
fn opening(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    // A list's item may begin with a block.
    let line = ["- ", "* "].iter().find_map(|marker| line.strip_prefix(marker)).unwrap_or(line).trim_start();
    let info = line.trim_start_matches('`');
    let ticks = line.len() - info.len();
    (ticks >= 3 && !info.contains('`')).then(|| (&line[..ticks], info))
}

fn typed(lines: &[(usize, &str)]) -> Result<Vec<Typed>> {
    let mut commands: Vec<Typed> = Vec::new();
    let mut continues = false;
    for (line, text) in lines {
        if let Some(text) = text.strip_prefix("$ ") {
            commands.push(Typed { line: *line, text: text.to_owned(), exit: 0 });
        } else if let Some(command) = commands.last_mut() {
            let more = text.strip_prefix("> ").or((*text == ">").then_some(""));
            if continues || more.is_some() {
                command.text.push('\n');
                command.text.push_str(more.unwrap_or(text));
            } else if let Some(code) = text.strip_prefix("[exit: ").and_then(|text| text.strip_suffix(']')) {
                command.exit = code.parse().with_context(|| format!(":{line}: {code} is no exit code"))?;
            }
        }
        continues = text.ends_with('\\') && commands.last().is_some_and(|command| command.text.ends_with('\\'));
    }
    Ok(commands)
}

/// Where the commands of one page run: a home, a state folder and a git repository that nobody else uses.
struct Room {
    project: PathBuf,
    variables: Vec<(OsString, OsString)>,
}

impl Room {
    fn prepare(repository: &Repository, root: PathBuf) -> Result<Self> {
        let [home, state, project, temporary] = ["home", "state", "project", "tmp"].map(|name| root.join(name));
        for folder in [&home, &project, &temporary] {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let inherited = std::env::var_os("PATH").unwrap_or_default();
        let binaries = repository.target().join("debug");
        let path = std::env::join_paths([binaries].into_iter().chain(std::env::split_paths(&inherited)))?;
        let mut variables: Vec<(OsString, OsString)> = [
            ("PATH", path),
            ("HOME", home.into()),
            ("ADJUTANT_HOME", state.into()),
            ("TMPDIR", temporary.into()),
            ("LANG", "C.UTF-8".into()),
            ("TERM", "dumb".into()),
            ("NO_COLOR", "1".into()),
            ("GIT_CONFIG_NOSYSTEM", "1".into()),
            ("GIT_AUTHOR_NAME", "A. Reader".into()),
            ("GIT_AUTHOR_EMAIL", "reader@example.com".into()),
            ("GIT_COMMITTER_NAME", "A. Reader".into()),
            ("GIT_COMMITTER_EMAIL", "reader@example.com".into()),
        ]
        .map(|(name, value)| (name.into(), value))
        .into();
        for name in ["CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"] {
            variables.extend(std::env::var_os(name).map(|value| (name.into(), value)));
        }
        let room = Self { project, variables };
        let script = "git init --quiet --initial-branch=main . && echo 'A project.' >README.md && git add . && git commit --quiet --message 'A project'";
        room.bash(script).output()?;
        Ok(room)
    }

    fn bash(&self, script: &str) -> Invocation {
        Invocation::new("bash", &self.project)
            .args(["--noprofile", "--norc", "-c", script])
            .only_env(self.variables.iter().cloned())
    }

    fn run(&self, page: &Path, block: &Block) -> Result<Option<String>> {
        eprintln!("     {}:{}", page.display(), block.line);
        let heard = self.bash(&script(block)).heard_within(DEADLINE)?;
        let status = match heard.status {
            Some(status) if status.success() => return Ok(None),
            Some(status) => status.to_string(),
            None => format!("not finished after {} s", DEADLINE.as_secs()),
        };
        Ok(Some(format!(
            "{}:{}: {status}; the end of what it said:\n{}",
            page.display(),
            block.line,
            last_lines(&heard.text, 15)
        )))
    }
}

/// Makes the script that types the commands of a block into one shell, and stops at the first that ends otherwise than it should.
fn script(block: &Block) -> String {
    let mut script = String::new();
    for Typed { line, text, exit } in &block.commands {
        let quoted = text.replace('\'', r"'\''");
        writeln!(script, "eval '{quoted}'\nadjutant_exit=$?").expect("a string takes every line");
        writeln!(
            script,
            "if [ $adjutant_exit -ne {exit} ]; then echo \"line {line} ended with $adjutant_exit, not {exit}\" >&2; exit 1; fi"
        )
        .expect("a string takes every line");
    }
    script
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod unit {
    use super::*;

    fn typed(line: usize, text: &str, exit: u8) -> Typed {
        Typed { line, text: text.to_owned(), exit }
    }

    #[test]
    fn blocks_are_found_with_their_commands() {
        let page = "\
Text with ```code``` in it.

```console
$ adjutant exec \\
    --json
output
$ false
[exit: 1]
$ cat <<end
> one
>
> end
```

- ```console no-run
  $ sudo reboot
  ```

````markdown
```console
$ not a command of this page
```
````

```sh
$ neither
```
";
        let blocks = parse(page).unwrap();
        let commands =
            vec![typed(4, "adjutant exec \\\n--json", 0), typed(7, "false", 1), typed(9, "cat <<end\none\n\nend", 0)];
        let shown = vec![typed(16, "sudo reboot", 0)];
        let expected =
            [(3, true, commands), (15, false, shown)].map(|(line, run, commands)| Block { line, run, commands });
        assert_eq!(blocks, expected);
    }

    #[test]
    fn a_block_that_cannot_be_understood_is_an_error_with_its_line() {
        let cases = [
            ("a\n```console\n$ true\n", ":2: the block is never closed"),
            ("```console norun\n$ true\n```\n", ":1: `console norun` is neither"),
            ("```console\ntrue\n```\n", ":1: no line of the block starts with"),
            ("```console\n$ true\n[exit: 300]\n```\n", ":3: 300 is no exit code"),
        ];
        for (page, expected) in cases {
            let error = parse(page).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{page:?}: {error}");
        }
    }

    #[test]
    fn a_block_is_one_shell_and_its_first_surprise_ends_it() {
        let cases = [
            ("$ cd /\n$ test \"$PWD\" = / && it='it'\\''s'\n$ test \"$it\" = \"it's\"\n", true),
            ("$ false\n[exit: 1]\n", true),
            ("$ false\n$ true\n", false),
            ("$ true\n[exit: 1]\n", false),
            ("$ cat <<end | grep -q two\n> one\n> two\n> end\n", true),
            ("$ exit 3\n", false),
        ];
        for (inside, succeeds) in cases {
            let blocks = parse(&format!("```console\n{inside}```\n")).unwrap();
            let shell = Invocation::new("bash", Path::new("/")).args(["-c", &script(&blocks[0])]);
            let heard = shell.heard_within(Duration::from_secs(60)).unwrap();
            assert_eq!(heard.status.map(|status| status.success()), Some(succeeds), "{inside}: {}", heard.text);
        }
    }
}
