//! Compares our reading of rule files with that of the program they were made for.
//!
//! The files under `fixtures/rules` carry their questions as comments: `#? ["git", "status"]` is a command of which both have to say the
//! same, `#! NAME ["git"]` one of which we say something else on purpose, for the reason that bears this name here.

use super::Outcome;
use crate::{
    command::{self, Invocation},
    peers,
    repository::Repository,
};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// One question takes a few hundredths of a second.
const DEADLINE: Duration = Duration::from_secs(30);

/// A reason to answer otherwise, and whether two answers differ for it.
struct Difference {
    name: &'static str,
    reason: &'static str,
    explains: fn(&Value, &Value) -> bool,
}

const DIFFERENCES: [Difference; 6] = [
    Difference {
        name: "unlisted-path",
        reason: "any file can bear a program's name, so what allows a name allows no path that nobody listed",
        explains: is_stricter,
    },
    Difference {
        name: "other-spelling",
        reason: "a folder on the way may be a link, so what allows a listed path allows no other spelling of it",
        explains: is_stricter,
    },
    Difference {
        name: "relative-path",
        reason: "where a relative path leads is not known, so it is never allowed, and what asks or forbids holds",
        explains: is_stricter,
    },
    Difference {
        name: "path-as-written",
        reason: "the program is told as it was written",
        explains: |ours, theirs| without_program(ours) == without_program(theirs),
    },
    Difference {
        name: "only-declarations",
        reason: "a file may declare, within bounds; what can take any amount of time or memory is refused by name",
        explains: |ours, theirs| is_refused(ours) && !is_refused(theirs),
    },
    Difference {
        name: "none-is-not-given",
        reason: "an argument that is None counts as not given",
        explains: |ours, theirs| !is_refused(ours) && is_refused(theirs),
    },
];

fn is_refused(answer: &Value) -> bool {
    answer.get("refused").is_some()
}

/// A command of which nothing is said is asked about, unless something else allows it.
fn is_stricter(ours: &Value, theirs: &Value) -> bool {
    let strictness = |answer: &Value| match answer.get("decision").and_then(Value::as_str) {
        Some("allow") => 0,
        None => 1,
        Some("prompt") => 2,
        Some(_) => 3,
    };
    !is_refused(ours) && !is_refused(theirs) && strictness(ours) > strictness(theirs)
}

fn without_program(answer: &Value) -> Value {
    let mut answer = answer.clone();
    for rule in answer.get_mut("matchedRules").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(rule) = rule.get_mut("prefixRuleMatch").and_then(Value::as_object_mut) {
            rule.remove("resolvedProgram");
        }
    }
    answer
}

/// A command of which the rules of a file are asked.
#[derive(Debug, PartialEq, Eq)]
struct Question {
    rules: PathBuf,
    line: usize,
    /// The name of a difference.
    differs: Option<String>,
    argv: Vec<String>,
}

pub fn check(repository: &Repository) -> Result<Outcome> {
    let questions = questions(&repository.root.join("xtask/fixtures/rules"))?;
    let codex = match peers::codex(repository) {
        Ok(codex) => codex,
        Err(error) => return Ok(Outcome::NotChecked(format!("Codex's judge of rules is not to be had ({error:#})"))),
    };
    let scratch = repository.scratch("judges")?;
    let ours = ask_ours(repository, &scratch, &questions)?;
    let mut problems = Vec::new();
    let mut differ = BTreeMap::<&str, usize>::new();
    for (question, ours) in questions.iter().zip(ours) {
        let theirs = ask_codex(&codex, &scratch, question)?;
        match compare(question.differs.as_deref(), &ours, &theirs) {
            Ok(()) => *differ.entry(question.differs.as_deref().unwrap_or("alike")).or_default() += 1,
            Err(problem) => problems.push(format!(
                "{}:{}: {:?}: {problem}\n  ours:  {ours}\n  codex: {theirs}",
                question.rules.strip_prefix(&repository.root).unwrap_or(&question.rules).display(),
                question.line,
                question.argv,
            )),
        }
    }
    let named: Vec<String> = differ.iter().map(|(name, count)| format!("{name} {count}")).collect();
    Ok(Outcome::of(problems, format!("{} answers: {}", questions.len(), named.join(", "))))
}

/// Reads all questions, in the order of the files and lines.
fn questions(folder: &Path) -> Result<Vec<Question>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        files.push(entry?.path());
    }
    files.sort();
    let mut questions = Vec::new();
    for rules in files {
        let text = fs::read_to_string(&rules).with_context(|| format!("cannot read {}", rules.display()))?;
        let before = questions.len();
        for (index, line) in text.lines().enumerate() {
            let read = read_question(line).with_context(|| format!("cannot read {}:{}", rules.display(), index + 1))?;
            questions.extend(read.map(|(differs, argv)| Question {
                rules: rules.clone(),
                line: index + 1,
                differs,
                argv,
            }));
        }
        ensure!(questions.len() > before, "{} asks nothing", rules.display());
    }
    Ok(questions)
}

fn read_question(line: &str) -> Result<Option<(Option<String>, Vec<String>)>> {
    let (differs, argv) = if let Some(argv) = line.strip_prefix("#?") {
        (None, argv)
    } else if let Some(rest) = line.strip_prefix("#!") {
        let (name, argv) = rest.trim().split_once(' ').context("expected `#! NAME [WORD…]`")?;
        (Some(name.to_owned()), argv)
    } else {
        return Ok(None);
    };
    let argv: Vec<String> = serde_json::from_str(argv).context("the command is no list of texts")?;
    ensure!(!argv.is_empty(), "the command has no words");
    Ok(Some((differs, argv)))
}

/// Asks ours in one go; a refused file is `{"refused": WHY}`.
fn ask_ours(repository: &Repository, scratch: &Path, questions: &[Question]) -> Result<Vec<Value>> {
    // The whole workspace decides how its dependencies are built, so that none is built again.
    let built = command::cargo(&repository.root)
        .args(["build", "--quiet", "--workspace", "--locked", "--example", "judge"])
        .succeeds()?;
    ensure!(built, "cannot build our judge");
    let cases: Vec<Value> =
        questions.iter().map(|question| json!({ "rules": question.rules, "argv": question.argv })).collect();
    let path = scratch.join("cases.json");
    fs::write(&path, serde_json::to_vec(&cases)?).with_context(|| format!("cannot write {}", path.display()))?;
    let program = repository.target().join("debug/examples/judge");
    let text = Invocation::new(program, &repository.root).args([path]).output()?;
    let answers: Vec<Value> = serde_json::from_str(&text).context("cannot read our answers")?;
    ensure!(answers.len() == questions.len(), "{} answers to {} questions", answers.len(), questions.len());
    Ok(answers)
}

fn ask_codex(codex: &Path, scratch: &Path, question: &Question) -> Result<Value> {
    let heard = Invocation::new(codex, scratch)
        .args(["execpolicy", "check", "--resolve-host-executables", "--rules"])
        .args([&question.rules])
        .args(["--"])
        .args(&question.argv)
        .only_env([("HOME", scratch), ("CODEX_HOME", scratch), ("PATH", Path::new("/usr/bin:/bin"))])
        .heard_within(DEADLINE)?;
    match heard.status {
        Some(status) if status.success() => {
            let line = heard.text.lines().find(|line| line.starts_with('{')).unwrap_or_default();
            serde_json::from_str(line).with_context(|| format!("Codex's answer is not JSON: {}", heard.text.trim()))
        }
        // Only this is an answer; everything else is a judge that does not work.
        Some(_) if heard.text.contains("failed to parse policy") => Ok(json!({ "refused": heard.text.trim() })),
        Some(status) => bail!("Codex's judge ended with {status}: {}", heard.text.trim()),
        None => bail!("Codex's judge did not answer within {} s", DEADLINE.as_secs()),
    }
}

fn compare(differs: Option<&str>, ours: &Value, theirs: &Value) -> Result<(), String> {
    // Each says in its own words why it refuses.
    let is_alike = ours == theirs || is_refused(ours) && is_refused(theirs);
    let Some(name) = differs else {
        return if is_alike { Ok(()) } else { Err("the answers differ".to_owned()) };
    };
    let Some(difference) = DIFFERENCES.iter().find(|difference| difference.name == name) else {
        return Err(format!("there is no difference with the name {name}"));
    };
    if is_alike {
        return Err(format!("{name} makes no difference any more"));
    }
    if (difference.explains)(ours, theirs) {
        return Ok(());
    }
    Err(format!("the answers differ otherwise than {name} explains ({})", difference.reason))
}

#[cfg(test)]
mod unit {
    use super::*;

    fn answer(decision: &str, program: &str) -> Value {
        let found = json!({ "prefixRuleMatch": { "decision": decision, "resolvedProgram": program } });
        json!({ "matchedRules": [found], "decision": decision })
    }

    #[test]
    fn answers_are_alike_or_differ_for_a_reason_that_is_named() {
        let nothing = json!({ "matchedRules": [] });
        let refused = |why: &str| json!({ "refused": why });
        let cases = [
            (None, answer("allow", "/a"), answer("allow", "/a"), ""),
            (None, refused("line 1"), refused("Error"), ""),
            (None, answer("allow", "/a"), answer("prompt", "/a"), "the answers differ"),
            (None, refused("line 1"), nothing.clone(), "the answers differ"),
            (Some("unlisted-path"), nothing.clone(), answer("allow", "/a"), ""),
            (Some("unlisted-path"), answer("allow", "/a"), nothing.clone(), "otherwise than unlisted-path"),
            (Some("unlisted-path"), nothing.clone(), nothing.clone(), "no difference any more"),
            (Some("relative-path"), answer("forbidden", "/a"), nothing.clone(), ""),
            (Some("path-as-written"), answer("prompt", "a"), answer("prompt", "/a"), ""),
            (Some("path-as-written"), answer("allow", "a"), answer("prompt", "/a"), "otherwise than path-as-written"),
            (Some("only-declarations"), refused("a loop"), nothing.clone(), ""),
            (Some("none-is-not-given"), refused("a loop"), nothing.clone(), "otherwise than none-is-not-given"),
            (Some("taste"), nothing.clone(), answer("allow", "/a"), "no difference with the name taste"),
        ];
        for (differs, ours, theirs, problem) in cases {
            match compare(differs, &ours, &theirs) {
                Ok(()) => assert_eq!(problem, "", "{differs:?} {ours} {theirs}"),
                Err(said) => {
                    assert!(!problem.is_empty() && said.contains(problem), "{differs:?} {ours} {theirs}: {said}")
                }
            }
        }
    }

    #[test]
    fn questions_are_comments() {
        let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        let cases = [
            ("#? [\"git\", \"a b\"]", Some(Some((None, words(&["git", "a b"]))))),
            ("#! some-name [\"git\"]", Some(Some((Some("some-name".to_owned()), words(&["git"]))))),
            ("# [\"git\"]", Some(None)),
            ("prefix_rule(pattern = [\"git\"])", Some(None)),
            ("#? git status", None),
            ("#? []", None),
            ("#! [\"git\"]", None),
        ];
        for (line, expected) in cases {
            assert_eq!(read_question(line).ok(), expected, "{line}");
        }
    }

    #[test]
    fn every_difference_is_shown_by_a_file() {
        let questions = questions(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/rules")).unwrap();
        for difference in DIFFERENCES {
            let is_shown = questions.iter().any(|question| question.differs.as_deref() == Some(difference.name));
            assert!(is_shown, "no file shows {}", difference.name);
        }
    }
}
