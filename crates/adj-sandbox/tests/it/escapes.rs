//! Attempts to get out, each judged by what happened outside, and each shown to succeed without the sandbox, so that none is empty.
//!
//! A subject is a table of cases. Started as root, each table is gone through twice: as root, and by this same program as an
//! ordinary user. `escapes/cases.txt` lists what is run as whom, so that a case that stops being run is noticed.
#![expect(clippy::print_stdout, reason = "what this machine cannot show is said")]

mod files;
mod git;
mod kernel;
mod processes;
mod resources;
mod secrets;
mod sockets;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command as Program, Stdio};
use std::time::Duration;

use adj_sandbox::Plan;

use crate::stage::{CANARY, Evidence, Freely, Stage, own_program};

/// Somebody who owns nothing on this machine.
const ORDINARY_USER: u32 = 61_234;

/// How one knows that an attempt got through.
#[derive(Clone, Copy)]
enum Harm {
    /// The canary was printed.
    Leaked,
    /// The attacker printed that the kernel let it.
    Broken,
    Took(Duration),
    Seen(fn(&mut Stage) -> bool),
}

impl Harm {
    fn is_done(self, stage: &mut Stage, evidence: &Evidence) -> bool {
        match self {
            Harm::Leaked => evidence.stdout.contains(CANARY),
            Harm::Broken => evidence.stdout.contains("BROKEN"),
            Harm::Took(time) => evidence.took >= time,
            Harm::Seen(look) => look(stage),
        }
    }
}

/// Something that not every kernel or machine has; without it the attempt cannot be shown to succeed, and does not count.
#[derive(Clone, Copy)]
struct Needs {
    what: &'static str,
    is_there: fn() -> bool,
}

/// A case that does get through: known to be wrong, and asserted as it is.
#[derive(Clone, Copy)]
struct Hole {
    why: &'static str,
    whose: Whose,
}

#[derive(Clone, Copy, PartialEq)]
enum Whose {
    /// It depends on what this machine lends us, so either answer is accepted.
    Some,
}

impl Whose {
    fn words(self) -> &'static str {
        match self {
            Whose::Some => " on some machines",
        }
    }
}

/// One attempt.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    attack: &'static str,
    harm: Harm,
    /// What is there before it begins, the same with and without the sandbox.
    arrange: Option<fn(&mut Stage)>,
    plan: Option<fn(&Stage, &mut Plan)>,
    freely: Freely,
    /// A harmless variant that shows by `BROKEN` that the attempt works, where the attempt itself would end the test.
    shown_by: Option<&'static str>,
    only_root: bool,
    needs: Option<Needs>,
    known_hole: Option<Hole>,
}

const fn case(name: &'static str, attack: &'static str, harm: Harm) -> Case {
    Case {
        name,
        attack,
        harm,
        arrange: None,
        plan: None,
        freely: Freely::AsWeAre,
        shown_by: None,
        only_root: false,
        needs: None,
        known_hole: None,
    }
}

impl Case {
    const fn after(self, arrange: fn(&mut Stage)) -> Case {
        Case { arrange: Some(arrange), ..self }
    }

    const fn with(self, plan: fn(&Stage, &mut Plan)) -> Case {
        Case { plan: Some(plan), ..self }
    }

    /// Without the sandbox it is made in namespaces of its own.
    const fn aside(self) -> Case {
        Case { freely: Freely::InOwnNamespaces, ..self }
    }

    const fn shown_by(self, script: &'static str) -> Case {
        Case { shown_by: Some(script), ..self }
    }

    /// It takes root to do this harm.
    const fn by_root(self) -> Case {
        Case { only_root: true, ..self }
    }

    const fn where_(self, what: &'static str, is_there: fn() -> bool) -> Case {
        Case { needs: Some(Needs { what, is_there }), ..self }
    }

    const fn known_hole(self, whose: Whose, why: &'static str) -> Case {
        Case { known_hole: Some(Hole { why, whose }), ..self }
    }

    /// Whether it gets through, as far as is known beforehand.
    fn expected(&self) -> Option<bool> {
        match self.known_hole.map(|hole| hole.whose) {
            None => Some(false),
            Some(Whose::Some) => None,
        }
    }

    fn is_for(&self, is_root: bool) -> bool {
        is_root || !self.only_root
    }

    fn stage(&self) -> Stage {
        let mut stage = Stage::new();
        if let Some(arrange) = self.arrange {
            arrange(&mut stage);
        }
        stage
    }

    /// Whether it does harm without a sandbox.
    fn is_shown(&self) -> bool {
        let mut stage = self.stage();
        match self.shown_by {
            Some(script) => stage.attack_freely(script, self.freely).stdout.contains("BROKEN"),
            None => {
                let evidence = stage.attack_freely(self.attack, self.freely);
                self.harm.is_done(&mut stage, &evidence)
            }
        }
    }

    /// What it came to in the sandbox, or why it was not even tried.
    async fn gets_through(&self) -> Result<bool, String> {
        let mut stage = self.stage();
        let mut plan = stage.plan();
        if let Some(change) = self.plan {
            change(&stage, &mut plan);
        }
        let evidence = stage.attack(&plan, self.attack).await;
        stage.is_confined = true;
        let is_tried = !self.attack.contains("$ATTACK") || evidence.stdout.contains("tried");
        if !is_tried || evidence.stderr.contains("command not found") {
            return Err(format!("{}: {}", evidence.stdout, evidence.stderr));
        }
        Ok(self.harm.is_done(&mut stage, &evidence))
    }
}

/// Goes through a table: nothing gets through, although everything would without the sandbox.
async fn nobody_gets_out(subject: &str, test: &str, cases: &[Case]) {
    let is_root = rustix::process::geteuid().is_root();
    let ordinary = is_root.then(|| as_ordinary_user(test));
    let (mut wrong, mut not_here, mut shown) = (Vec::new(), Vec::new(), 0);
    for case in cases.iter().filter(|case| case.is_for(is_root)) {
        let name = case.name;
        let is_there = case.needs.is_none_or(|needs| (needs.is_there)());
        match (case.is_shown(), is_there) {
            (true, _) => shown += 1,
            (false, true) => wrong.push(format!("{name}: does no harm even without a sandbox, so it proves nothing")),
            (false, false) => not_here.push(format!("{name} (needs {})", case.needs.map_or("", |needs| needs.what))),
        }
        match case.gets_through().await {
            Err(output) => wrong.push(format!("{name}: was not tried: {output}")),
            Ok(gets_through) => match case.expected() {
                Some(expected) if expected == gets_through => {}
                Some(true) => wrong.push(format!("{name}: is held now, so it is no hole any more")),
                Some(false) => wrong.push(format!("{name}: GOT THROUGH")),
                None => println!("{name}: {}", if gets_through { "gets through here" } else { "is held here" }),
            },
        }
    }
    let user = if is_root { "root" } else { "an ordinary user" };
    println!("{subject} as {user}: {shown} shown without the sandbox; not on this machine: {not_here:?}");
    if let Some(ordinary) = ordinary {
        let output = ordinary.wait();
        let count = cases.iter().filter(|case| case.is_for(false)).count();
        let is_whole = output.contains(&format!("{subject} as an ordinary user: ")) && output.contains("1 passed");
        if !is_whole {
            wrong.push(format!("not all of the {count} cases hold for an ordinary user:\n{output}"));
        }
        output.lines().filter(|line| line.contains(" here")).for_each(|line| println!("ordinary user: {line}"));
    }
    assert!(wrong.is_empty(), "as {user}:\n{}", wrong.join("\n"));
}

/// This program a second time, as somebody else.
struct Ordinary {
    _folder: tempfile::TempDir,
    child: Child,
}

fn as_ordinary_user(test: &str) -> Ordinary {
    let folder = tempfile::tempdir().expect("a folder");
    let home = folder.path().join("tmp");
    fs::create_dir(&home).expect("a folder");
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("a mode");
    std::os::unix::fs::chown(&home, Some(ORDINARY_USER), Some(ORDINARY_USER)).expect("an owner");
    // The folder of the build need not be open to everybody.
    let program = folder.path().join("program");
    fs::copy(own_program(), &program).expect("a copy");
    fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("a mode");
    let child = Program::new(&program)
        .args(["--exact", test, "--nocapture"])
        .env_clear()
        .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
        .env("TMPDIR", &home)
        .current_dir(&home)
        .uid(ORDINARY_USER)
        .gid(ORDINARY_USER)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(fs::File::create(folder.path().join("stderr")).expect("a file"))
        .spawn()
        .expect("our own program");
    Ordinary { _folder: folder, child }
}

impl Ordinary {
    fn wait(self) -> String {
        let output = self.child.wait_with_output().expect("an end");
        let stderr = fs::read(self._folder.path().join("stderr")).expect("a file");
        format!("{}{}", crate::stage::text(&output.stdout), crate::stage::text(&stderr))
    }
}

#[test]
fn every_case_is_listed() {
    let subjects = [
        ("files", files::CASES),
        ("git", git::CASES),
        ("kernel", kernel::CASES),
        ("processes", processes::CASES),
        ("resources", resources::CASES),
        ("secrets", secrets::CASES),
        ("sockets", sockets::CASES),
    ];
    let mut list = String::new();
    let mut names = std::collections::BTreeSet::new();
    for (subject, cases) in subjects {
        for case in cases {
            assert!(names.insert((subject, case.name)), "{subject}: {} is there twice", case.name);
            let users = if case.only_root { "root" } else { "root and ordinary users" };
            let needs = case.needs.map_or(String::new(), |needs| format!(", where there is {}", needs.what));
            let hole = case
                .known_hole
                .map_or(String::new(), |hole| format!("; KNOWN HOLE{}: {}", hole.whose.words(), hole.why));
            list += &format!("{subject}: {}: {users}{needs}{hole}\n", case.name);
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/escapes/cases.txt");
    if std::env::var_os("UPDATE_CASES").is_some() {
        fs::write(path, &list).expect("the list");
    }
    let expected = fs::read_to_string(path).expect("the list");
    assert!(list == expected, "run with UPDATE_CASES=1 and look at what changed; now it is:\n{list}");
}
