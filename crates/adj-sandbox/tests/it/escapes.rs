//! Attempts to get out, each judged by ground truth; where that is harmless, the same attempt is first shown to succeed without a sandbox.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};

use adj_sandbox::{Command, Launcher, Mode, Plan};
use rustix::io::FdFlags;

use crate::stage::{CANARY, Stage, text};

/// Whether the attempt is shown to succeed without a sandbox.
#[derive(Clone, Copy, PartialEq)]
enum Shown {
    Yes,
    /// It takes root to do harm.
    AsRoot,
    /// It would harm this machine, or depends on how its kernel was built.
    No,
}

/// How one knows that an attempt got through.
#[derive(Clone, Copy)]
enum Harm {
    /// The canary was printed.
    Leaked,
    /// The attacker printed that the kernel let it.
    Broken,
    Seen(fn(&mut Stage) -> bool),
}

use Harm::{Broken, Leaked, Seen};

impl Harm {
    fn is_done(self, stage: &mut Stage, output: &str) -> bool {
        match self {
            Leaked => output.contains(CANARY),
            Broken => output.contains("BROKEN"),
            Seen(look) => look(stage),
        }
    }
}

type Attempt = (&'static str, &'static str, Harm, Shown);

fn is_file_changed(stage: &mut Stage) -> bool {
    fs::read_to_string(stage.outside.join("file")).ok().as_deref() != Some("as it was")
}

fn has_set_id_file(stage: &mut Stage) -> bool {
    fs::read_dir(&stage.workspace).expect("the workspace").flatten().any(|entry| {
        entry.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o6000 != 0 && metadata.is_file())
    })
}

const FILES: &[Attempt] = &[
    ("read outside", "cat $OUT/secret", Leaked, Shown::Yes),
    ("read by dots", "cat ../outside/secret", Leaked, Shown::Yes),
    ("read through a symlink", "ln -s $OUT/secret link; cat link", Leaked, Shown::Yes),
    ("read through a symlinked folder", "ln -s $OUT link; cat link/secret", Leaked, Shown::Yes),
    ("read through /proc/self/root", "cat /proc/self/root$OUT/secret", Leaked, Shown::Yes),
    ("read through /proc/self/cwd", "cat /proc/self/cwd/../outside/secret", Leaked, Shown::Yes),
    ("read through a parent's root", "cat /proc/$PPID/root$OUT/secret", Leaked, Shown::Yes),
    ("read through pid 1's root", "cat /proc/1/root$OUT/secret", Leaked, Shown::No),
    ("read through the caller's root", "cat /proc/$OWN/root$OUT/secret", Leaked, Shown::Yes),
    ("hard link", "ln $OUT/secret h && cat h", Leaked, Shown::Yes),
    ("write outside", "echo x > $OUT/file", Seen(is_file_changed), Shown::Yes),
    ("append outside", "echo x >> $OUT/file", Seen(is_file_changed), Shown::Yes),
    ("truncate outside", "truncate -s 0 $OUT/file", Seen(is_file_changed), Shown::Yes),
    ("delete outside", "rm $OUT/file", Seen(is_file_changed), Shown::Yes),
    ("write through a symlink", "ln -s $OUT/file l; echo x > l", Seen(is_file_changed), Shown::Yes),
    ("rename over", "echo x > n; mv n $OUT/file", Seen(is_file_changed), Shown::Yes),
    (
        "change mode outside",
        "chmod 777 $OUT/file",
        Seen(|stage| fs::metadata(stage.outside.join("file")).is_ok_and(|m| m.permissions().mode() & 0o777 == 0o777)),
        Shown::Yes,
    ),
    (
        "change times outside",
        "touch -d 2001-01-01 $OUT/file",
        Seen(|stage| {
            let modified = fs::metadata(stage.outside.join("file")).and_then(|metadata| metadata.modified());
            modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age.as_secs() > 86_400))
        }),
        Shown::Yes,
    ),
    ("create beside", "touch ../beside", Seen(|stage| stage.workspace.with_file_name("beside").exists()), Shown::Yes),
    ("move the workspace away", "mv $WS $WS.moved", Seen(|stage| !stage.workspace.exists()), Shown::Yes),
    (
        "host's shared memory",
        "echo x > /dev/shm/$ABSTRACT",
        Seen(|stage| {
            let path = format!(
                "/dev/shm/{}",
                stage.workspace.parent().expect("a parent").to_str().expect("plain").replace('/', "-")
            );
            fs::remove_file(path).is_ok()
        }),
        Shown::Yes,
    ),
    ("password hashes", "$ATTACK open-read /etc/shadow", Broken, Shown::AsRoot),
    ("write to /usr", "$ATTACK open-write /usr/bin/env", Broken, Shown::No),
    ("write to /etc", "$ATTACK open-write /etc/passwd", Broken, Shown::No),
    ("create in /", "touch /x && echo BROKEN", Broken, Shown::No),
    ("create in /etc", "touch /etc/x && echo BROKEN", Broken, Shown::No),
    ("kernel settings", "$ATTACK open-write /proc/sys/kernel/core_pattern", Broken, Shown::AsRoot),
    ("memory settings", "$ATTACK open-write /proc/sys/vm/overcommit_memory", Broken, Shown::AsRoot),
    ("magic keys", "$ATTACK open-write /proc/sysrq-trigger", Broken, Shown::No),
    ("kernel memory", "$ATTACK open-read /proc/kcore", Broken, Shown::No),
    ("pid 1's memory", "$ATTACK open-read /proc/1/environ; $ATTACK open-write /proc/1/mem", Broken, Shown::No),
    (
        "the host's disks",
        "ls /dev/vd* /dev/sd* /dev/nvme* /dev/kmsg /dev/mem 2>/dev/null | grep . && echo BROKEN",
        Broken,
        Shown::No,
    ),
    (
        "a device of one's own",
        "$ATTACK device $WS/null",
        Seen(|stage| {
            fs::symlink_metadata(stage.workspace.join("null"))
                .is_ok_and(|metadata| metadata.file_type().is_char_device())
        }),
        Shown::AsRoot,
    ),
    ("set-user-id by chmod", "cp /bin/true s; chmod 4755 s", Seen(has_set_id_file), Shown::Yes),
    ("set-group-id by chmod", "cp /bin/true s; chmod 2755 s", Seen(has_set_id_file), Shown::Yes),
    ("set-user-id by open", "$ATTACK suid-open $WS/s", Seen(has_set_id_file), Shown::Yes),
    ("set-user-id by openat2", "$ATTACK suid-openat2 $WS/s", Seen(has_set_id_file), Shown::Yes),
    ("set-user-id by mknod", "$ATTACK suid-mknod $WS/s", Seen(has_set_id_file), Shown::Yes),
    ("set-user-id by fchmodat2", "touch s; $ATTACK suid-chmod2 $WS/s", Seen(has_set_id_file), Shown::No),
];

const PROCESSES: &[Attempt] = &[
    (
        "signal a process",
        "kill -9 $VICTIM",
        Seen(|stage| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            stage.victim.try_wait().expect("a status").is_some()
        }),
        Shown::Yes,
    ),
    ("list processes", "cat /proc/$VICTIM/cmdline", Leaked, Shown::Yes),
    ("trace a child", "$ATTACK ptrace", Broken, Shown::No),
    ("read memory by call", "$ATTACK vm-read", Broken, Shown::No),
    ("compare processes", "$ATTACK kcmp", Broken, Shown::No),
    ("type into a terminal", "$ATTACK tiocsti", Broken, Shown::No),
];

const SOCKETS: &[Attempt] = &[
    ("loopback of the host", "exec 3<>/dev/tcp/127.0.0.1/$PORT && cat <&3", Leaked, Shown::Yes),
    ("socket by path", "$ATTACK unix $OUT/sock", Leaked, Shown::Yes),
    ("socket by abstract name", "$ATTACK abstract $ABSTRACT", Leaked, Shown::Yes),
    (
        "datagram by path",
        "$ATTACK datagram $OUT/datagrams",
        Seen(|stage| stage.datagrams.recv(&mut [0; 8]).is_ok()),
        Shown::Yes,
    ),
    ("vsock", "$ATTACK vsock", Broken, Shown::No),
    ("packet socket", "$ATTACK packet", Broken, Shown::AsRoot),
    ("raw socket", "$ATTACK raw", Broken, Shown::AsRoot),
    ("netfilter", "$ATTACK netfilter", Broken, Shown::No),
    ("xfrm", "$ATTACK xfrm", Broken, Shown::No),
    ("kernel crypto", "$ATTACK alg", Broken, Shown::No),
];

const KERNEL: &[Attempt] = &[
    ("mount", "$ATTACK mount", Broken, Shown::No),
    ("remount", "$ATTACK remount", Broken, Shown::No),
    ("unmount /proc", "$ATTACK umount /proc", Broken, Shown::No),
    ("unmount the workspace's .git", "$ATTACK umount $WS/.git", Broken, Shown::No),
    ("fsopen", "$ATTACK fsopen", Broken, Shown::AsRoot),
    ("open_tree", "$ATTACK open_tree", Broken, Shown::AsRoot),
    ("user namespace by unshare", "$ATTACK unshare-user", Broken, Shown::No),
    ("user namespace by clone", "$ATTACK clone-user", Broken, Shown::No),
    ("user namespace by clone3", "$ATTACK clone3-user", Broken, Shown::No),
    ("network namespace", "$ATTACK unshare-net", Broken, Shown::AsRoot),
    ("time namespace", "$ATTACK unshare-time", Broken, Shown::No),
    ("join a namespace", "$ATTACK setns", Broken, Shown::AsRoot),
    ("chroot", "$ATTACK chroot", Broken, Shown::AsRoot),
    ("pivot_root", "$ATTACK pivot_root", Broken, Shown::No),
    ("io_uring", "$ATTACK io_uring", Broken, Shown::No),
    ("bpf", "$ATTACK bpf", Broken, Shown::No),
    ("userfaultfd", "$ATTACK userfaultfd", Broken, Shown::Yes),
    ("keyring", "$ATTACK keyctl", Broken, Shown::No),
    ("add a key", "$ATTACK add_key", Broken, Shown::No),
    ("perf", "$ATTACK perf", Broken, Shown::No),
    ("file handles", "$ATTACK handle", Broken, Shown::Yes),
    ("host name", "$ATTACK sethostname", Broken, Shown::No),
    ("data as code", "$ATTACK personality", Broken, Shown::Yes),
    ("quota", "$ATTACK quotactl", Broken, Shown::No),
    ("foreign calls by int 0x80", "$ATTACK int80", Broken, Shown::No),
    ("foreign calls by number", "$ATTACK x32", Broken, Shown::No),
];

const REPOSITORY: &[Attempt] = &[
    (
        "hook",
        "echo x > .git/hooks/post-checkout",
        Seen(|s| s.workspace.join(".git/hooks/post-checkout").exists()),
        Shown::Yes,
    ),
    ("config", "echo '[core] fsmonitor=x' >> .git/config", Seen(is_config_changed), Shown::Yes),
    ("commondir", "echo /tmp > .git/commondir", Seen(|s| s.workspace.join(".git/commondir").exists()), Shown::Yes),
    ("replace .git", "mv .git g; mkdir .git", Seen(|s| !s.workspace.join(".git/config").exists()), Shown::Yes),
    ("remove .git", "rm -rf .git", Seen(|s| !s.workspace.join(".git/config").exists()), Shown::Yes),
    (
        "nested hook",
        "echo x > deep/sub/.git/hooks/pre-push",
        Seen(|s| s.workspace.join("deep/sub/.git/hooks/pre-push").exists()),
        Shown::Yes,
    ),
    (
        "rename above a nested repository",
        "mv deep d; mkdir -p deep/sub/.git/hooks; echo x > deep/sub/.git/hooks/pre-push",
        Seen(|s| s.workspace.join("deep/sub/.git/hooks/pre-push").exists()),
        Shown::Yes,
    ),
    (
        "rename just above a nested repository",
        "mv deep/sub deep/s; mkdir -p deep/sub/.git/hooks; echo x > deep/sub/.git/hooks/pre-push",
        Seen(|s| s.workspace.join("deep/sub/.git/hooks/pre-push").exists()),
        Shown::Yes,
    ),
    (
        "our own folder",
        "mkdir -p .adjutant; echo x > .adjutant/settings",
        Seen(|s| s.workspace.join(".adjutant/settings").exists()),
        Shown::Yes,
    ),
    (
        "our own folder by link",
        "ln -s /tmp .adjutant; rmdir .adjutant; ln -s /tmp .adjutant",
        Seen(|s| fs::symlink_metadata(s.workspace.join(".adjutant")).is_ok()),
        Shown::Yes,
    ),
];

fn is_config_changed(stage: &mut Stage) -> bool {
    fs::read_to_string(stage.workspace.join(".git/config")).is_ok_and(|text| text.contains("fsmonitor"))
}

async fn nobody_gets_out(attempts: &[Attempt]) {
    let is_root = rustix::process::geteuid().is_root();
    let (mut got_through, mut was_empty) = (Vec::new(), Vec::new());
    for (name, script, harm, shown) in attempts {
        if *shown == Shown::Yes || (*shown == Shown::AsRoot && is_root) {
            let mut stage = Stage::new();
            let output = stage.run_plainly(script);
            if !harm.is_done(&mut stage, &output) {
                was_empty.push(*name);
            }
        }
        let mut stage = Stage::new();
        let finished = stage.run(&stage.plan(), script).await;
        if harm.is_done(&mut stage, &text(&finished.stdout)) {
            got_through.push((*name, text(&finished.stdout)));
        }
    }
    assert!(got_through.is_empty(), "these got through: {got_through:#?}");
    assert!(was_empty.is_empty(), "these do no harm even without a sandbox, so they prove nothing: {was_empty:#?}");
}

#[tokio::test]
async fn files_outside_stay_untouched_and_unread() {
    nobody_gets_out(FILES).await;
}

#[tokio::test]
async fn processes_outside_are_out_of_reach() {
    nobody_gets_out(PROCESSES).await;
}

#[tokio::test]
async fn sockets_outside_are_out_of_reach() {
    nobody_gets_out(SOCKETS).await;
}

#[tokio::test]
async fn the_kernel_offers_no_more_than_needed() {
    nobody_gets_out(KERNEL).await;
}

#[tokio::test]
async fn nothing_is_planted_for_git() {
    nobody_gets_out(REPOSITORY).await;
}

#[tokio::test]
async fn nothing_is_inherited() {
    let stage = Stage::new();
    let secret = fs::File::open(stage.outside.join("secret")).expect("the secret");
    rustix::io::fcntl_setfd(&secret, FdFlags::empty()).expect("a flag");
    let plain = stage.run_plainly("$ATTACK descriptors");
    assert!(plain.contains(CANARY), "without a sandbox it is inherited: {plain}");
    let finished = stage.run(&stage.plan(), "$ATTACK descriptors").await;
    assert_eq!(text(&finished.stdout), "");
    let mut plan = stage.plan();
    plan.mode = Mode::DangerFullAccess;
    plan.env.insert("ATTACK".into(), format!("{} __attack", crate::stage::own_program().display()));
    let finished = stage.run(&plan, "$ATTACK descriptors").await;
    assert_eq!(text(&finished.stdout), "", "not even without confinement");
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
        let all = Command::new(["sh", "-c", "cat /proc/[0-9]*/environ | tr '\\0' '\\n' | grep -c CARGO"]);
        if mode != Mode::DangerFullAccess {
            let finished = launcher.run(&plan, &all).await.expect("a sandbox");
            assert_eq!(text(&finished.stdout), "0\n", "{mode}");
        }
    }
}
