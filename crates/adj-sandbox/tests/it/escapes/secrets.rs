//! Finding what the caller knows: its environment, its files, its memory.

use std::fs::{self, File};

use adj_sandbox::{Command, Launcher, Mode, Plan};
use rustix::io::FdFlags;

use super::Harm::{Broken, Leaked, Seen};
use super::processes::{be_traceable, keep_in_keyring};
use super::{Case, case};
use crate::attacker::KEY_VARIABLE;
use crate::stage::{CANARY, Stage, text};

pub(super) const CASES: &[Case] = &[
    case("own environment", "env", Leaked),
    case("own environment by file", "cat /proc/self/environ | tr '\\0' '\\n'", Leaked),
    case("a parent's environment", "bash -c 'cat /proc/$PPID/environ' | tr '\\0' '\\n'; :", Leaked),
    case("the caller's environment", "tr '\\0' '\\n' < /proc/$OWN/environ", Leaked).shown_by(
        // What a program sets after its start is not in its file, so this looks into that of a child.
        "sleep 9 & sleep 0.1; tr '\\0' '\\n' < /proc/$!/environ | grep -q canary && echo BROKEN; kill $!",
    ),
    case("any process's environment", "cat /proc/[0-9]*/environ | tr '\\0' '\\n'", Leaked),
    case("command lines", "cat /proc/[0-9]*/cmdline | tr '\\0' '\\n'", Leaked),
    case("the caller's memory by file", "$ATTACK memory-file $OWN $ADDRESS", Leaked).after(be_traceable),
    case("the caller's memory by call", "$ATTACK memory-call $OWN $ADDRESS", Leaked).after(be_traceable),
    case("the caller's map of memory", "head -c 9 /proc/$OWN/maps | grep -q . && echo BROKEN", Broken)
        .after(be_traceable),
    case("secure shell keys", "cat $KEEPS/.ssh/*", Leaked),
    case("cloud keys", "cat $KEEPS/.aws/credentials", Leaked),
    case("registry logins", "cat $KEEPS/.docker/config.json", Leaked),
    case("passwords of hosts", "cat $KEEPS/.netrc", Leaked),
    case("our own vault", "cat $KEEPS/.config/adjutant/vault", Leaked),
    case(
        "the caller's home by its user",
        "test -e $(getent passwd $(id -u) | cut -d: -f6)/marker-$OWN && echo BROKEN",
        Broken,
    )
    .by_root()
    .after(|stage| {
        let path = format!("/root/marker-{}", std::process::id());
        fs::write(&path, "").expect("a file");
        stage.finally(move || drop(fs::remove_file(path)));
    })
    .where_("a home of root's own", || fs::metadata("/root").is_ok()),
    case("kernel's keyring", "$ATTACK keyring $ABSTRACT", Leaked).after(keep_in_keyring),
    case("a core dump", "ulimit -c unlimited; sh -c 'kill -SEGV $$'; cat core* >/dev/null && echo BROKEN", Broken)
        .where_("core dumps beside the program", || {
            fs::read_to_string("/proc/sys/kernel/core_pattern").is_ok_and(|pattern| pattern.starts_with("core"))
        }),
    case("a larger limit for core dumps", "ulimit -c unlimited && echo BROKEN", Broken)
        .where_("unlimited core dumps", || {
            rustix::process::getrlimit(rustix::process::Resource::Core).maximum.is_none()
        }),
    case("names of users", "getent passwd | grep -q nobody && echo BROKEN", Broken),
    case("name of the host", "test \"$(cat /proc/sys/kernel/hostname)\" = \"$NAME\" && echo BROKEN", Broken)
        .after(|stage| stage.say("NAME", rustix::system::uname().nodename().to_str().expect("plain"))),
    case(
        "write where the caller reads",
        "echo x > $KEEPS/.config/adjutant/vault",
        Seen(|stage| {
            fs::read_to_string(stage.workspace.with_file_name("home/.config/adjutant/vault")).expect("the vault")
                != CANARY
        }),
    ),
];

#[tokio::test]
async fn secrets_of_the_caller_stay_out() {
    assert_eq!(std::env::var(KEY_VARIABLE).as_deref(), Ok(CANARY), "there is something to find");
    super::nobody_gets_out("secrets", "escapes::secrets::secrets_of_the_caller_stay_out", CASES).await;
}

#[tokio::test]
async fn nothing_is_inherited() {
    let stage = Stage::new();
    let secret = File::open(stage.outside.join("secret")).expect("the secret");
    rustix::io::fcntl_setfd(&secret, FdFlags::empty()).expect("a flag");
    let plain = stage.run_plainly("$ATTACK descriptors");
    assert!(plain.contains(CANARY), "without a sandbox it is inherited: {plain}");
    let finished = stage.run(&stage.plan(), "$ATTACK descriptors").await;
    assert_eq!(text(&finished.stdout), "tried\n");
    let mut plan = stage.plan();
    plan.mode = Mode::DangerFullAccess;
    plan.env.insert("ATTACK".into(), format!("{} __attack", crate::stage::own_program().display()));
    let finished = stage.run(&plan, "$ATTACK descriptors").await;
    assert_eq!(text(&finished.stdout), "tried\n", "not even without confinement");
}

#[tokio::test]
async fn the_environment_is_the_plan_and_nothing_else() {
    let launcher = Launcher::current_exe().expect("our own program");
    for mode in [Mode::ReadOnly, Mode::WorkspaceWrite, Mode::DangerFullAccess] {
        let mut plan = Plan::new(mode);
        plan.env.insert("EXTRA".into(), "one".into());
        let finished = launcher.run(&plan, &Command::new(["env"])).await.expect("a sandbox");
        let mut lines: Vec<String> = text(&finished.stdout).lines().map(str::to_owned).collect();
        lines.sort();
        let expected: Vec<String> = plan.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(lines, expected, "{mode}");
    }
}
