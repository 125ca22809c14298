//! Parts of the kernel that a command has no use for, each a way out when it has an error.

use std::path::Path;

use super::Harm::Broken;
use super::{Case, case};

pub(super) const CASES: &[Case] = &[
    case("mount", "$ATTACK mount", Broken).aside(),
    case("bind mount", "$ATTACK bind", Broken).aside(),
    case("make /proc writable", "$ATTACK remount /proc", Broken).aside(),
    case("make a file system writable by mount_setattr", "$ATTACK mount_setattr /proc", Broken).aside(),
    case("propagate mounts", "$ATTACK propagate", Broken).aside(),
    case("unmount /proc", "$ATTACK umount /proc", Broken).aside(),
    case("unmount what covers .git", "$ATTACK umount $WS/.git", Broken)
        .aside()
        .shown_by("mount --bind .git .git && $ATTACK umount $WS/.git"),
    case("fsopen", "$ATTACK fsopen", Broken).aside(),
    case("fspick", "$ATTACK fspick /proc", Broken).aside(),
    case("open_tree", "$ATTACK open_tree", Broken).aside(),
    case("move_mount", "$ATTACK move_mount", Broken).aside(),
    case("pivot_root", "$ATTACK pivot_root", Broken).aside(),
    case("chroot", "$ATTACK chroot", Broken).aside(),
    case("list mounts by call", "$ATTACK list-mounts", Broken).where_("Linux 6.8", || is_at_least(6, 8)),
    case("file handles", "$ATTACK handle", Broken),
    case("open by file handle", "$ATTACK open-handle", Broken).by_root(),
    case("user namespace by unshare", "$ATTACK unshare-user", Broken),
    case("user namespace by clone", "$ATTACK clone-user", Broken),
    case("user namespace by clone3", "$ATTACK clone3-user", Broken),
    case("mount namespace", "$ATTACK unshare-mount", Broken).aside(),
    case("mount namespace by clone", "$ATTACK clone-mount", Broken).aside(),
    case("pid namespace", "$ATTACK unshare-pid", Broken).aside(),
    case("pid namespace by clone3", "$ATTACK clone3-pid", Broken).aside(),
    case("network namespace", "$ATTACK unshare-net", Broken).aside(),
    case("ipc namespace", "$ATTACK unshare-ipc", Broken).aside(),
    case("host name namespace", "$ATTACK unshare-uts", Broken).aside(),
    case("cgroup namespace", "$ATTACK unshare-cgroup", Broken).aside(),
    case("time namespace", "$ATTACK unshare-time", Broken).aside(),
    case("join a mount namespace", "$ATTACK setns-mount; :", Broken).aside(),
    case("join a network namespace", "$ATTACK setns-net; :", Broken).aside(),
    case("capabilities", "$ATTACK capabilities", Broken).aside(),
    case("io_uring", "$ATTACK io_uring", Broken).where_("io_uring", || is_setting("kernel/io_uring_disabled", "0")),
    case("bpf", "$ATTACK bpf", Broken).by_root(),
    case("userfaultfd", "$ATTACK userfaultfd", Broken),
    case("keyring", "$ATTACK keyctl", Broken),
    case("add a key", "$ATTACK add_key", Broken),
    case("request a key", "$ATTACK request_key", Broken),
    case("perf", "$ATTACK perf", Broken).where_("perf for everybody", || {
        ["-1", "0", "1", "2"].iter().any(|value| is_setting("kernel/perf_event_paranoid", value))
    }),
    case("memory that nobody sees", "$ATTACK secret-memory", Broken)
        .where_("secret memory", || is_at_least(6, 5) && is_built_with("CONFIG_SECRETMEM=y")),
    case("calls newer than the list", "$ATTACK newer", Broken).where_("Linux 6.17", || is_at_least(6, 17)),
    case("list security modules", "$ATTACK modules", Broken).where_("Linux 6.8", || is_at_least(6, 8)),
    case("list kinds of file systems by number", "$ATTACK file-systems", Broken)
        .where_("x86-64", || cfg!(target_arch = "x86_64")),
    case("advise on memory by call", "$ATTACK advise", Broken),
    case("take a descriptor by call", "$ATTACK descriptor", Broken),
    case("compare processes", "$ATTACK kcmp", Broken),
    case("move pages", "$ATTACK move-pages", Broken)
        .where_("several memory nodes", || Path::new("/sys/devices/system/node").exists()),
    case("watch a file system", "$ATTACK fanotify", Broken).where_("Linux 5.13", || is_at_least(5, 13)),
    case("data as code", "$ATTACK personality", Broken),
    case("a page at address zero", "$ATTACK page-zero", Broken),
    case("segments", "$ATTACK ldt", Broken).where_("x86-64", || cfg!(target_arch = "x86_64")),
    case("ports by level", "$ATTACK iopl", Broken).by_root().where_("a kernel with port access", has_ports),
    case("ports by range", "$ATTACK ioperm", Broken).by_root().where_("a kernel with port access", has_ports),
    case("foreign calls by int 0x80", "$ATTACK int80", Broken)
        .where_("calls of 32 bit", || Path::new("/proc/sys/abi/vsyscall32").exists()),
    case("foreign calls by number", "$ATTACK x32", Broken).where_("calls of x32", || is_booted_with("syscall.x32=y")),
    case("host name", "$ATTACK sethostname", Broken).aside(),
    case("domain name", "$ATTACK setdomainname", Broken).aside(),
    case("set the clock", "$ATTACK clock_settime", Broken).by_root(),
    case("set the time of day", "$ATTACK settimeofday", Broken).by_root(),
    case("tune the clock", "$ATTACK adjtimex", Broken),
    case("tune a clock by number", "$ATTACK clock_adjtime", Broken),
    case("quota", "$ATTACK quotactl", Broken),
    case("accounting", "$ATTACK acct", Broken).by_root(),
    case("swap on", "$ATTACK swapon", Broken).by_root(),
    case("swap off", "$ATTACK swapoff", Broken).by_root(),
    case("restart the machine", "$ATTACK reboot", Broken).aside(),
    case("another kernel", "$ATTACK kexec", Broken)
        .by_root()
        .where_("kexec", || Path::new("/sys/kernel/kexec_loaded").exists()),
    case("a module", "$ATTACK init_module", Broken).by_root().where_("modules", has_modules),
    case("a module from a file", "$ATTACK finit_module", Broken).by_root().where_("modules", has_modules),
    case("remove a module", "$ATTACK delete_module", Broken).by_root().where_("modules", has_modules),
    case("kernel's log", "$ATTACK syslog", Broken).by_root(),
    case("type into a terminal", "$ATTACK type", Broken)
        .where_("typing into terminals", || is_setting("dev/tty/legacy_tiocsti", "1")),
    case("change a terminal's discipline", "$ATTACK discipline", Broken),
];

fn has_ports() -> bool {
    // It needs no kernel option only where there are no ports.
    cfg!(target_arch = "x86_64") && is_built_with("CONFIG_X86_IOPL_IOPERM=y")
}

fn has_modules() -> bool {
    Path::new("/proc/modules").exists() && !is_booted_with("nomodule")
}

fn is_booted_with(word: &str) -> bool {
    std::fs::read_to_string("/proc/cmdline").is_ok_and(|line| line.split_whitespace().any(|found| found == word))
}

fn is_built_with(option: &str) -> bool {
    let output = std::process::Command::new("zcat").arg("/proc/config.gz").output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).lines().any(|line| line == option))
}

fn is_setting(name: &str, value: &str) -> bool {
    std::fs::read_to_string(Path::new("/proc/sys").join(name)).is_ok_and(|found| found.trim() == value)
}

pub(super) fn is_at_least(major: u32, minor: u32) -> bool {
    let name = rustix::system::uname();
    let mut numbers = name.release().to_str().expect("plain").split(['.', '-']).map_while(|part| part.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (major, minor)
}

#[tokio::test]
async fn the_kernel_offers_no_more_than_needed() {
    super::nobody_gets_out("kernel", "escapes::kernel::the_kernel_offers_no_more_than_needed", CASES).await;
}
