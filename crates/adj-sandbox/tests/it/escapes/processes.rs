//! Reaching processes that are not the command's own, and outliving the command.

#![expect(unsafe_code, reason = "what processes share is made by raw calls")]

use std::fs;
use std::time::Duration;

use super::Harm::{Broken, Leaked, Seen, Took};
use super::{Case, case};
use crate::stage::{CANARY, Stage, processes_with};

pub(super) const CASES: &[Case] = &[
    case("signal a process", "kill -9 $VICTIM", Seen(is_victim_dead)),
    case("signal a process group", "kill -9 -- -$VICTIM", Seen(is_victim_dead)),
    case("signal everybody", "(kill -9 -1)", Seen(is_victim_dead))
        .aside()
        .shown_by("sleep 1000 & (kill -9 -1); sleep 0.1; kill -0 $! || echo BROKEN"),
    case("signal by descriptor", "$ATTACK pidfd-kill $VICTIM", Seen(is_victim_dead)),
    case("signal a thread", "$ATTACK thread-kill $VICTIM", Seen(is_victim_dead)),
    case("signal with a value", "$ATTACK queued-kill $VICTIM", Seen(is_victim_dead)),
    case("signal as a socket's owner", "$ATTACK owner-kill $VICTIM", Seen(is_victim_dead)),
    case(
        "stop a process",
        "kill -STOP $VICTIM",
        Seen(|stage| {
            std::thread::sleep(Duration::from_millis(30));
            status(stage, "State:").contains('T')
        }),
    ),
    case("see a process", "cat /proc/$VICTIM/cmdline", Leaked),
    case("see any process", "cat /proc/[0-9]*/cmdline", Leaked),
    case("trace a process", "$ATTACK seize $OWN", Broken).after(be_traceable),
    case("take a descriptor of a process", "$ATTACK steal-descriptor $OWN $DESCRIPTOR", Leaked).after(be_traceable),
    case("open a descriptor of a process", "cat /proc/$OWN/fd/$DESCRIPTOR", Leaked),
    case(
        "lower a process's priority",
        "renice 7 $VICTIM",
        Seen(|stage| {
            let id = rustix::process::Pid::from_child(&stage.victim);
            rustix::process::getpriority_process(Some(id)).expect("a priority") == 7
        }),
    ),
    case("lower a process's priority for disks", "$ATTACK io-priority $VICTIM", Broken),
    case("bind a process to a processor", "$ATTACK affinity $VICTIM", Broken),
    case("change how a process is scheduled", "$ATTACK batch $VICTIM", Broken),
    case(
        "limit a process",
        "$ATTACK limit $VICTIM",
        Seen(|stage| {
            let limits = fs::read_to_string(format!("/proc/{}/limits", stage.victim.id())).expect("limits");
            limits.lines().any(|line| line.starts_with("Max open files") && line.contains(" 7 "))
        }),
    ),
    case(
        "offer a process to the killer",
        "echo 900 > /proc/$VICTIM/oom_score_adj",
        Seen(|stage| {
            fs::read_to_string(format!("/proc/{}/oom_score_adj", stage.victim.id())).expect("a score").trim() == "900"
        }),
    ),
    case("a daemon stays", "(setsid bash -c '(exec -a $MARK sleep 1000 >/dev/null 2>&1 &)' &)", Seen(is_one_left))
        .after(mark),
    case(
        "a deaf daemon stays",
        "trap '' TERM HUP INT; (exec -a $MARK sleep 1000 >/dev/null 2>&1 &)",
        Seen(is_one_left),
    )
    .after(mark),
    case("a daemon below a foster parent stays", "$ATTACK subreaper $MARK", Seen(is_one_left)).after(mark),
    case(
        "a stopped process stays",
        "(exec -a $MARK sleep 1000 >/dev/null 2>&1 & sleep 0.2; kill -STOP $!)",
        Seen(is_one_left),
    )
    .after(mark),
    case("a coprocess stays", "coproc exec -a $MARK sleep 1000 >/dev/null 2>&1", Seen(is_one_left)).after(mark),
    case("hold standard output", "(setsid sleep 3 &)", Took(Duration::from_millis(2500))),
    case("hold standard error alone", "(setsid sleep 3 >/dev/null &)", Took(Duration::from_millis(2500))),
    case("System V shared memory", "$ATTACK shared-memory $SHARED", Leaked).after(share),
    case("System V messages", "$ATTACK message-queue $QUEUE", Leaked).after(share),
    case("System V semaphores", "$ATTACK semaphore $SEMAPHORE", Broken).after(share),
    case("POSIX messages", "$ATTACK posix-queue /$MARK", Leaked).after(|stage| {
        mark(stage);
        post(stage);
    }),
    case("POSIX shared memory", "cat /dev/shm/$MARK", Leaked).after(|stage| {
        mark(stage);
        let path = format!("/dev/shm/{}", mark_of(stage));
        fs::write(&path, CANARY).expect("a file");
        stage.finally(move || drop(fs::remove_file(path)));
    }),
];

fn is_victim_dead(stage: &mut Stage) -> bool {
    std::thread::sleep(Duration::from_millis(30));
    stage.victim.try_wait().expect("a status").is_some()
}

fn status(stage: &Stage, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{}/status", stage.victim.id())).expect("a status");
    status.lines().find(|line| line.starts_with(name)).expect("the line").to_owned()
}

/// Where a security module hides processes of one user from each other, this one shows itself.
pub(super) fn be_traceable(_: &mut Stage) {
    // SAFETY: only numbers; where there is no such module the call fails without effect.
    unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY) };
}

fn mark_of(stage: &Stage) -> String {
    format!("mark{}", stage.abstract_name.replace('.', "-"))
}

fn mark(stage: &mut Stage) {
    let mark = mark_of(stage);
    stage.say("MARK", &mark);
    stage.finally(move || {
        for id in marked(&mark) {
            rustix::process::kill_process(id, rustix::process::Signal::KILL).ok();
        }
    });
}

fn is_one_left(stage: &mut Stage) -> bool {
    std::thread::sleep(Duration::from_millis(50));
    !marked(&mark_of(stage)).is_empty()
}

/// Processes whose own name is this mark, which nobody else uses.
fn marked(mark: &str) -> Vec<rustix::process::Pid> {
    if processes_with(mark).is_empty() {
        return Vec::new();
    }
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    ids.filter(|id| {
        fs::read(format!("/proc/{id}/cmdline"))
            .is_ok_and(|line| line.split(|byte| *byte == 0).next() == Some(mark.as_bytes()))
    })
    .filter_map(rustix::process::Pid::from_raw)
    .collect()
}

/// One of each kind of what System V processes share.
fn share(stage: &mut Stage) {
    // SAFETY: the segment has room for the canary, and so has the message.
    unsafe {
        let segment = libc::shmget(libc::IPC_PRIVATE, 4096, libc::IPC_CREAT | 0o600);
        let place = libc::shmat(segment, std::ptr::null(), 0);
        std::ptr::copy_nonoverlapping(CANARY.as_ptr(), place.cast(), CANARY.len());
        libc::shmdt(place);
        let queue = libc::msgget(libc::IPC_PRIVATE, libc::IPC_CREAT | 0o600);
        let mut message = [0u8; 64];
        message[0] = 1;
        message[8..8 + CANARY.len()].copy_from_slice(CANARY.as_bytes());
        libc::msgsnd(queue, message.as_ptr().cast(), CANARY.len(), 0);
        let semaphore = libc::semget(libc::IPC_PRIVATE, 1, libc::IPC_CREAT | 0o600);
        stage.say("SHARED", segment);
        stage.say("QUEUE", queue);
        stage.say("SEMAPHORE", semaphore);
        stage.finally(move || {
            libc::shmctl(segment, libc::IPC_RMID, std::ptr::null_mut());
            libc::msgctl(queue, libc::IPC_RMID, std::ptr::null_mut());
            libc::semctl(semaphore, 0, libc::IPC_RMID);
        });
    }
}

/// A key in the keyring that all processes of this user share.
pub(super) fn keep_in_keyring(stage: &mut Stage) {
    let name = std::ffi::CString::new(stage.abstract_name.as_str()).expect("plain");
    // SAFETY: both texts are as long as is said.
    unsafe {
        let (kind, user_keyring) = (c"user".as_ptr(), -4);
        let key = libc::syscall(libc::SYS_add_key, kind, name.as_ptr(), CANARY.as_ptr(), CANARY.len(), user_keyring);
        stage.finally(move || {
            libc::syscall(libc::SYS_keyctl, 9 /* unlink */, key, user_keyring);
        });
    }
}

fn post(stage: &mut Stage) {
    let name = std::ffi::CString::new(format!("/{}", mark_of(stage))).expect("plain");
    // SAFETY: the name is terminated, and the message as long as it says.
    unsafe {
        let flags = libc::O_CREAT | libc::O_RDWR;
        let queue = libc::mq_open(name.as_ptr(), flags, 0o600, std::ptr::null::<libc::mq_attr>());
        libc::mq_send(queue, CANARY.as_ptr().cast(), CANARY.len(), 0);
        libc::mq_close(queue);
        stage.finally(move || {
            libc::mq_unlink(name.as_ptr());
        });
    }
}

#[tokio::test]
async fn processes_outside_are_out_of_reach() {
    super::nobody_gets_out("processes", "escapes::processes::processes_outside_are_out_of_reach", CASES).await;
}
