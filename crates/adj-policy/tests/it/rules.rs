//! Files of rules: what they say, what is wrong with them, and what hostile ones cannot do.

use adj_policy::{CheckOutput, Decision, MAX_RULES, RuleSet, Word};
use std::{fmt::Write as _, path::Path, time::Instant};

fn load(text: &str) -> Result<RuleSet, String> {
    RuleSet::load(Path::new("my.rules"), text).map_err(|error| error.to_string())
}

/// Makes words of a text; what begins with a dollar sign is not known, and `$*` may be several words.
fn words(text: &str) -> Vec<Word> {
    let word = |word: &str| match word {
        _ if word.starts_with('$') => Word::Dynamic { text: word.to_owned(), splits: word.starts_with("$*") },
        known => Word::from(known),
    };
    text.split(' ').map(word).collect()
}

const SAMPLE: &str = r#"
# What a team may run without being asked.
prefix_rule(
    pattern = ["git", ["status", "diff", "log"]],
    match = ["git status", ["git", "log", "--oneline"]],
    not_match = ["git push"],
)
prefix_rule(pattern = ["git", "push"], decision = "prompt", justification = "others see it")
prefix_rule(["git", "push", "--force"], "forbidden", justification = "history is shared")
prefix_rule(
    pattern = [["rm", "rmdir"]],
    decision = "forbidden",
    match = ["rm -rf x", "rmdir x"],
    not_match = ["echo rm", "rmx"],
)
host_executable(name = "git", paths = ["/usr/bin/git", "/opt/homebrew/bin/git"])

PACKAGES = ["npm", "pnpm"] + ["yarn"]
for manager in PACKAGES:
    prefix_rule(pattern = [manager, "test"])
    if manager != "yarn":
        prefix_rule(pattern = [manager, "publish"], decision = "forbidden", justification = f"{manager} publish is for the CI")

def ask(program, why = "it leaves the machine"):
    prefix_rule(pattern = [program], decision = "prompt", justification = why)

[ask(program) for program in ("curl", "wget")]
ask("ssh", why = "it is another machine")
network_rule(host = "Example.org", protocol = "https", decision = "deny", justification = "not ours")
"#;

#[test]
fn the_strictest_matching_rule_decides() {
    let rules = load(SAMPLE).unwrap();
    let cases = [
        // command, decision, what matched, resolved program, line
        ("git status -s", Some((Decision::Allow, "git status", None, 3))),
        ("git log", Some((Decision::Allow, "git log", None, 3))),
        ("git push origin", Some((Decision::Prompt, "git push", None, 8))),
        ("git push --force", Some((Decision::Forbidden, "git push --force", None, 9))),
        ("git push origin --force", Some((Decision::Prompt, "git push", None, 8))),
        ("git", None),
        ("git statusx", None),
        ("git commit", None),
        ("", None),
        // Listed paths are the program.
        ("/usr/bin/git status", Some((Decision::Allow, "git status", Some("/usr/bin/git"), 3))),
        ("/usr/bin/git push", Some((Decision::Prompt, "git push", Some("/usr/bin/git"), 8))),
        ("/usr/bin/../bin/./git push", Some((Decision::Prompt, "git push", Some("/usr/bin/../bin/./git"), 8))),
        ("/usr/bin/../bin/git status", None),
        ("/tmp/git status", None),
        ("/tmp/git push", None),
        ("./git status", None),
        ("./git push", Some((Decision::Prompt, "git push", None, 8))),
        // Where nothing is listed, a path is not trusted and not trusted to be something else.
        ("/bin/rm x", Some((Decision::Forbidden, "rm", Some("/bin/rm"), 10))),
        ("../rm x", Some((Decision::Forbidden, "rm", None, 10))),
        ("/usr/bin/npm test", None),
        ("/usr/bin/npm publish", Some((Decision::Forbidden, "npm publish", Some("/usr/bin/npm"), 22))),
        ("yarn test", Some((Decision::Allow, "yarn test", None, 20))),
        ("yarn publish", None),
        ("curl x", Some((Decision::Prompt, "curl", None, 25))),
        // Words that are not known match nothing for sure.
        ("git $x", None),
        ("git status $x", Some((Decision::Allow, "git status", None, 3))),
        ("$x status", None),
    ];
    for (command, expected) in cases {
        let found = rules.judge(&words(command));
        let told = found.as_ref().map(|found| {
            let program = found.resolved_program.as_ref().map(|path| path.to_str().unwrap().to_owned());
            (found.decision, found.matched.join(" "), program, found.line)
        });
        let expected = expected.map(|(decision, matched, program, line): (_, &str, Option<&str>, _)| {
            (decision, matched.to_owned(), program.map(str::to_owned), line)
        });
        assert_eq!(told, expected, "{command}");
    }
    assert_eq!(rules.len(), 12);
    let justification = |command: &str| rules.judge(&words(command)).unwrap().justification.unwrap();
    assert_eq!(justification("pnpm publish"), "pnpm publish is for the CI");
    assert_eq!(justification("wget x"), "it leaves the machine");
    assert_eq!(justification("ssh x"), "it is another machine");
    let network = &rules.network_rules()[0];
    assert_eq!((network.host.as_str(), network.protocol.as_str()), ("example.org", "https"));
    assert_eq!((network.decision, network.line), (Decision::Forbidden, 29));
}

#[test]
fn what_might_match_is_told_apart() {
    let rules = load(SAMPLE).unwrap();
    let cases = [
        ("git $x", Some((Decision::Prompt, "git $x"))),
        ("git $*x", Some((Decision::Forbidden, "git $*x"))),
        ("git $x --force", Some((Decision::Forbidden, "git $x --force"))),
        ("git push $x", Some((Decision::Forbidden, "git push $x"))),
        ("git commit $x", None),
        ("git push", None),
        ("rm $x", None),
        ("npm $x", Some((Decision::Forbidden, "npm $x"))),
        ("/tmp/npm $x", Some((Decision::Forbidden, "npm $x"))),
        ("ls $x", None),
        ("$x", None),
    ];
    for (command, expected) in cases {
        let found = rules.might_match(&words(command)).map(|found| (found.decision, found.matched.join(" ")));
        assert_eq!(found, expected.map(|(decision, matched)| (decision, matched.to_owned())), "{command}");
    }
}

#[test]
fn answers_have_the_form_that_codex_prints() {
    let rules = load(SAMPLE).unwrap();
    let mut text = String::new();
    for command in ["git push --force x", "/usr/bin/git status", "ls"] {
        let output = CheckOutput::of([&rules], &words(command));
        writeln!(text, "{command}\n{}\n", serde_json::to_string_pretty(&output).unwrap()).unwrap();
    }
    insta::assert_snapshot!(text);
}

#[test]
fn what_is_wrong_has_a_place() {
    let texts = [
        "prefix_rule(pattern = [])",
        "prefix_rule()",
        "\n\n  prefix_rule(pattern = [\"a\"])",
        "prefix_rule(pattern = [\"a\"]",
        "prefix_rule(pattern = [\"a\"]\nprefix_rule(pattern = [\"b\"])",
        "prefix_rule(pattern = \"git\")",
        "prefix_rule(pattern = [\"a\", []])",
        "prefix_rule(pattern = [\"a\", [\"b\", 1]])",
        "prefix_rule(pattern = [1])",
        "x = 1\nprefix_rule(pattern = [\"a\"], decision = \"deny\")",
        "prefix_rule(pattern = [\"a\"], decision = 1)",
        "prefix_rule(pattern = [\"a\"], justification = \" \")",
        "prefix_rule(pattern = [\"a\"], pattern = [\"b\"])",
        "prefix_rule([\"a\"], pattern = [\"b\"])",
        "prefix_rule(pattern = [\"a\"], why = \"b\")",
        "prefix_rule(1, 2, 3, 4, 5, 6)",
        "# first\nprefix_rule(\n    pattern = [\"git\", \"push\"],\n    match = [\"git push\", \"git pull\"],\n)",
        "prefix_rule(pattern = [\"git\"], not_match = [[\"git\", \"pu sh\"]])",
        "prefix_rule(pattern = [\"git\"], match = [\"git 'x\"])",
        "prefix_rule(pattern = [\"git\"], match = [\"\"])",
        "prefix_rule(pattern = [\"git\"], match = \"git\")",
        "prefix_rule(pattern = [\"git\"], match = [\"/tmp/git\"])\nhost_executable(name = \"git\", paths = [\"/bin/git\"])",
        "host_executable(name = \"git\")",
        "host_executable(name = \"bin/git\", paths = [])",
        "host_executable(name = \"git\", paths = [\"bin/git\"])",
        "host_executable(name = \"git\", paths = [\"/bin/got\"])",
        "network_rule(host = \"*\", protocol = \"https\", decision = \"allow\")",
        "network_rule(host = \"a\", protocol = \"gopher\", decision = \"allow\")",
        "network_rule(host = \"a\", protocol = \"https\", decision = \"perhaps\")",
        "load(\"x\", \"y\")",
        "print(\"x\")",
        "open(\"/etc/passwd\")",
        "x = \"a\" * 9",
        "x = \"a\".join([])",
        "x = lambda: 1",
        "x = {}",
        "x = y",
        "x = [1][1]",
        "x = 99999999999999999999",
        "x = \"a\" + 1",
        "x = f\"{[1]}\"",
        "for x in 1: pass",
        "a, b = [1]",
        "def f(*x): pass",
        "def f(x): pass\nf()",
        "def f(x): pass\nf(1, 2)",
        "def f(x): pass\nf(y = 1)",
        "x = 1\nx()",
        "while True: pass",
        "class A: pass",
        "import os",
        "\u{1b}[2J",
        "x = \"a",
        "    x = 1\n  y = 2",
        "  é = 1",
    ];
    let mut text = String::new();
    for file in texts {
        let outcome = load(file);
        let told = outcome.err().unwrap_or_else(|| "no complaint".to_owned());
        writeln!(text, "{}\n  {told}\n", file.escape_debug()).unwrap();
        assert!(!told.chars().any(char::is_control), "{told:?}");
    }
    insta::assert_snapshot!(text);
}

#[test]
fn hostile_files_end_soon_with_a_complaint() {
    let double = |times: usize| "x = x + x\n".repeat(times);
    let files = [
        "a".repeat(2 * 1024 * 1024),
        format!("x = \"aaaaaaaa\"\n{}", double(60)),
        format!("x = [1, 2]\n{}", double(60)),
        format!("x = \"a\"\n{}", "x = [x, x]\n".repeat(60)),
        format!("x = \"a\"\n{}y = f\"{{x}}\"", "x = f\"{x}{x}\"\n".repeat(60)),
        "x = [1]\nfor a in x:\n  x = [x]\n".to_owned() + &"x = [x]\n".repeat(20),
        "def f(): f()\nf()".to_owned(),
        "def f(): return [f(), f()]\nf()".to_owned(),
        format!("x = [{}]\nfor a in x:\n for b in x:\n  for c in x:\n   for d in x: pass\n", "1,".repeat(100)),
        format!("x = [{}]\ny = [[a, b, c, d] for a in x for b in x for c in x for d in x]", "1,".repeat(100)),
        format!("x = [{}]\nfor a in x:\n for b in x:\n  prefix_rule(pattern = [\"a\"])\n", "1,".repeat(200)),
        "prefix_rule(pattern=[\"a\"])\n".repeat(MAX_RULES + 1),
        "(".repeat(500_000),
        "[".repeat(500_000),
        format!("x = {}1{}", "[".repeat(60), "]".repeat(60)),
        format!("x = 1{}", "+1".repeat(400_000)),
        format!("x = {}1", "-".repeat(500_000)),
        format!("x = {}1", "not ".repeat(200_000)),
        format!("x = {}1", "1 if 1 else ".repeat(80_000)),
        format!("x = {}1", "lambda: ".repeat(100_000)),
        format!("f{}", "()".repeat(400_000)),
        format!("f{}", "(\n)".repeat(300_000)),
        format!("f{}", ".a".repeat(400_000)),
        format!("x = f\"{{{}1{}}}\"", "(".repeat(200_000), ")".repeat(200_000)),
        format!("if 1: pass\n{}", "elif 1: pass\n".repeat(50_000)),
        (0..1_000).map(|depth| format!("{}if 1:\n", " ".repeat(depth))).collect(),
        format!("x = \"{}", "\\".repeat(900_000)),
        "\"\"\"".to_owned() + &"\n".repeat(900_000),
        format!("prefix_rule(pattern = [\"a\"], match = [{}])", "\"b\",".repeat(100_000)),
        "\0".to_owned(),
    ];
    for file in files {
        let start = Instant::now();
        let outcome = load(&file);
        let short: String = file.chars().take(60).collect();
        let message = outcome.err().unwrap_or_else(|| panic!("{short:?} is too much"));
        assert!(message.len() < 500, "{message}");
        assert_ne!(message, "my.rules:1:1: the file cannot be read", "{short:?}");
        assert!(start.elapsed().as_secs() < 20, "{short:?} took {:?}", start.elapsed());
    }
    let most = "prefix_rule(pattern=[\"a\",[\"b\",\"c\"]],match=[\"a c\"])\n".repeat(MAX_RULES);
    assert_eq!(load(&most).unwrap().len(), MAX_RULES);
    assert!(load(&format!("x = f\"{{{}1{}}}\"", "(".repeat(500), ")".repeat(500))).is_ok());
    let one_line = "prefix_rule(pattern=[\"a\"]);".repeat(MAX_RULES);
    assert_eq!(load(&one_line).unwrap().len(), MAX_RULES);
}

#[path = "../../../../fuzz/bodies/rules.rs"]
mod body;

#[test]
fn seeds() {
    crate::command::replay("rules", body::run);
}
