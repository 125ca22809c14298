//! What is said where something is missing: by simulated machines, namespaces of which some kinds are used up, and kernels without some calls.

use std::path::Path;
use std::process::{Command as Program, Stdio};

use adj_sandbox::{Command, Launcher, Mode, Plan, RunError};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use crate::stage::{own_program, text};

/// Makes the table, and tries to run something, on the machine that this program was started on; never returns when it was started for that.
///
/// The calls that are named are taken away first.
pub fn dispatch() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [word, scratch, calls @ ..] = words.as_slice() else { return };
    if word != "__survey" {
        return;
    }
    let rules = calls.iter().map(|call| (call.parse().expect("a number"), Vec::new())).collect();
    let arch = std::env::consts::ARCH.try_into().expect("a known architecture");
    let absent = SeccompAction::Errno(libc::ENOSYS as u32);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, absent, arch).expect("a filter");
    if !calls.is_empty() {
        seccompiler::apply_filter(&BpfProgram::try_from(filter).expect("a program")).expect("a filter");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let text = runtime.block_on(async {
        let launcher = Launcher::current_exe().expect("our own program");
        let survey = launcher.survey(Path::new(scratch)).await;
        let mark = Path::new(scratch).join("mark");
        let mut plan = Plan::new(Mode::WorkspaceWrite);
        plan.workspace = adj_sandbox::Mount::Direct { host: scratch.into(), inside: scratch.into() };
        let touch = Command::new(["touch".into(), mark.clone().into_os_string()]);
        let error = match launcher.run(&plan, &touch).await {
            Ok(_) => None,
            Err(RunError::Setup(error)) => Some(format!("{error}")),
            Err(other) => panic!("{other:?}"),
        };
        serde_json::json!({"survey": survey, "is_confined": survey.is_confined(), "error": error, "has_run": mark.exists()})
    });
    let _ = std::io::Write::write_all(&mut std::io::stdout(), text.to_string().as_bytes());
    std::process::exit(0);
}

/// The table of a machine where these kinds of namespaces are used up and these calls do not exist.
fn machine(used_up: &[&str], calls: &[i64]) -> serde_json::Value {
    let scratch = tempfile::tempdir().expect("a folder");
    let script = used_up.iter().map(|kind| format!("echo 0 > /proc/sys/user/max_{kind}_namespaces && "));
    let script = format!("{}exec \"$@\"", script.collect::<String>());
    let output = Program::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script, "sh"])
        .arg(own_program())
        .arg("__survey")
        .arg(scratch.path())
        .args(calls.iter().map(ToString::to_string))
        .stdin(Stdio::null())
        .output()
        .expect("unshare");
    serde_json::from_str(&text(&output.stdout)).unwrap_or_else(|_| panic!("{}", text(&output.stderr)))
}

fn missing(machine: &serde_json::Value) -> Vec<(&str, &str)> {
    let rows = machine["survey"]["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 10, "the table is whole");
    let missing = rows.iter().filter(|row| row["is_available"] == false);
    let word = |row: &serde_json::Value, key: &str| row[key].as_str().is_some_and(|text| !text.is_empty());
    missing
        .map(|row| {
            assert!(word(row, "consequence") && word(row, "fix"), "{row}");
            assert!(row["is_needed"] == false || row["flag"] == "--sandbox danger-full-access", "{row}");
            (row["name"].as_str().expect("a name"), row["detail"].as_str().expect("a detail"))
        })
        .collect()
}

#[test]
fn this_machine_has_what_it_takes() {
    let machine = machine(&[], &[]);
    // An overlay in a namespace in a namespace is more than some file systems give.
    let needed: Vec<_> = missing(&machine).into_iter().filter(|(name, _)| *name != "overlay").collect();
    assert!(needed.is_empty(), "{needed:?}");
    assert_eq!((&machine["is_confined"], &machine["has_run"]), (&true.into(), &true.into()));
    assert!(machine["error"].is_null(), "{machine}");
}

#[test]
fn the_layer_that_is_missing_is_named_and_nothing_runs() {
    type Case<'a> = (&'a [&'a str], &'a [i64], &'a [&'a str], &'a str);
    let cases: [Case<'_>; 8] = [
        (
            &["user"],
            &[],
            &["namespaces", "mounts", "proc", "network", "privileges"],
            "(namespaces): cannot create a user namespace",
        ),
        (&["net"], &[], &["namespaces", "network"], "(namespaces): cannot create a network namespace"),
        (&["mnt"], &[], &["namespaces", "mounts", "proc"], "(namespaces): cannot create a mount namespace"),
        (&["ipc", "uts"], &[], &["namespaces"], "(namespaces): cannot create ipc, host name namespaces"),
        (
            &[],
            &[libc::SYS_landlock_create_ruleset],
            &["Landlock"],
            "(Landlock): cannot find Landlock ABI 3 (Linux 6.2)",
        ),
        (&[], &[libc::SYS_landlock_restrict_self], &["Landlock"], "(Landlock): cannot confine file access"),
        (&[], &[libc::SYS_fsopen], &["mounts", "proc"], "(mounts): cannot make a tmpfs for the root"),
        (&[], &[libc::SYS_capset], &["privileges"], "(dropped privileges): cannot drop all capabilities"),
    ];
    for (used_up, calls, expected, error) in cases {
        let machine = machine(used_up, calls);
        let missing = missing(&machine);
        let names: Vec<&str> = missing.iter().map(|(name, _)| *name).filter(|name| *name != "overlay").collect();
        assert_eq!(names, expected, "{used_up:?} {calls:?}: {missing:?}");
        assert!(machine["error"].as_str().is_some_and(|text| text.contains(error)), "{used_up:?} {calls:?}: {machine}");
        assert_eq!((&machine["is_confined"], &machine["has_run"]), (&false.into(), &false.into()), "{machine}");
    }
}
