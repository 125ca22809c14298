//! Which system calls a sandbox refuses: what only administrators and exploits need.
//!
//! Calls that are newer than this list do not exist, nor do some that cannot be judged (programs then take an older way), the rest is not
//! permitted. A foreign calling convention ends the process.
//!
//! Debuggers work: tracing reaches only what may be reached by signals as well, other commands of the same sandbox. Pid 1 and the
//! worker are not dumpable, and what Landlock or another user id keeps apart is kept apart for tracers, too.

use std::collections::BTreeMap;
use std::io;

use libc::*;

use super::filter::{Instruction, Rule, Verdict, among, compile, has, has_any, is, isnt};
use crate::error::{Doing, Layer, SetupError};
use crate::sys;

/// The newest call that was looked at and found harmless, `removexattrat` of Linux 6.13. All architectures number new ones alike.
const NEWEST: u32 = 466;

/// Calls whose arguments lie in memory, where a filter cannot look, and machinery that goes around filters.
const NOT_THERE: [i64; 12] = [
    SYS_clone3,
    // Memory that no process maps is nobody's to the watcher; programs then take `/dev/shm` or `/tmp`, which have a size.
    SYS_memfd_create,
    // Its file mode lies in memory; `openat` is the older way.
    SYS_openat2,
    SYS_io_uring_setup,
    SYS_io_uring_enter,
    SYS_io_uring_register,
    // Memory that the kernel itself cannot see.
    SYS_memfd_secret,
    // Newer than many headers: statmount, listmount, and asking and changing what security modules hold of us.
    457,
    458,
    459,
    460,
    461,
];

const REFUSED: [i64; 48] = [
    SYS_acct,
    SYS_add_key,
    SYS_adjtimex,
    SYS_bpf,
    SYS_chroot,
    SYS_clock_adjtime,
    SYS_clock_settime,
    SYS_delete_module,
    SYS_fanotify_init,
    SYS_fanotify_mark,
    SYS_finit_module,
    SYS_fsconfig,
    SYS_fsmount,
    SYS_fsopen,
    SYS_fspick,
    SYS_init_module,
    SYS_kcmp,
    SYS_kexec_file_load,
    SYS_kexec_load,
    SYS_keyctl,
    SYS_lookup_dcookie,
    SYS_migrate_pages,
    SYS_mount,
    SYS_mount_setattr,
    SYS_move_mount,
    SYS_move_pages,
    SYS_name_to_handle_at,
    SYS_nfsservctl,
    SYS_open_by_handle_at,
    SYS_open_tree,
    SYS_perf_event_open,
    SYS_pidfd_getfd,
    SYS_pivot_root,
    SYS_process_madvise,
    SYS_quotactl,
    SYS_quotactl_fd,
    SYS_reboot,
    SYS_request_key,
    SYS_setdomainname,
    SYS_setns,
    SYS_sethostname,
    SYS_settimeofday,
    SYS_swapoff,
    SYS_swapon,
    SYS_syslog,
    SYS_umount2,
    SYS_userfaultfd,
    SYS_vhangup,
];

#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: [i64; 7] = [SYS_ioperm, SYS_iopl, SYS_modify_ldt, SYS_sysfs, SYS_uselib, SYS_ustat, SYS__sysctl];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: [i64; 0] = [];

/// Terminal commands that type for the user or change what a line means.
const REFUSED_IOCTLS: [u32; 5] = [
    0x540C, /* TIOCEXCL */
    0x5412, /* TIOCSTI */
    0x541C, /* TIOCLINUX */
    0x541D, /* TIOCCONS */
    0x5423, /* TIOCSETD */
];

/// Options of sockets by their levels: other protocols inside of TCP and UDP, and programs for the kernel to run.
const REFUSED_OPTIONS: [(i32, &[u32]); 3] = [
    (IPPROTO_TCP, &[TCP_ULP as u32]),
    (IPPROTO_UDP, &[100 /* UDP_ENCAP */]),
    (
        SOL_SOCKET,
        &[
            SO_ATTACH_FILTER as u32,
            SO_ATTACH_BPF as u32,
            SO_ATTACH_REUSEPORT_CBPF as u32,
            SO_ATTACH_REUSEPORT_EBPF as u32,
        ],
    ),
];

const NAMESPACE_FLAGS: u32 =
    (CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP) as u32;
const NEW_TIME: u32 = 0x80;

/// Installs the filter on this process and all it will start.
pub(super) fn apply() -> Result<(), SetupError> {
    let what = || "install the system call filter".to_owned();
    let program = program().doing(Layer::Seccomp, what)?;
    sys::install_filter(&program).doing(Layer::Seccomp, what)
}

fn program() -> io::Result<Vec<Instruction>> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => 0xC000_003E,
        "aarch64" => 0xC000_00B7,
        "riscv64" => 0xC000_00F3,
        _ => return Err(io::ErrorKind::Unsupported.into()),
    };
    Ok(compile(architecture, &verdicts()))
}

/// The verdict about each call, up to the next number.
fn verdicts() -> BTreeMap<u32, Verdict> {
    let rules = rules().into_iter().map(|(call, rules)| (call as u32, Verdict::RefusedIf(EPERM, rules)));
    let refused = REFUSED.into_iter().chain(REFUSED_HERE).map(|call| (call as u32, Verdict::Refused(EPERM)));
    let not_there = NOT_THERE.into_iter().map(|call| (call as u32, Verdict::Refused(ENOSYS)));
    let mut all: BTreeMap<u32, Verdict> = rules.chain(refused).chain(not_there).collect();
    for call in all.keys().copied().collect::<Vec<_>>() {
        all.entry(call + 1).or_insert(Verdict::Allowed);
    }
    // Calls that we do not know are not there. So is the third calling convention of x86-64, which reuses the architecture's number
    // with a high bit.
    all.insert(NEWEST + 1, Verdict::Refused(ENOSYS));
    all
}

/// Calls that are refused for some of their arguments.
fn rules() -> BTreeMap<i64, Vec<Rule>> {
    let mut rules = BTreeMap::from([
        (SYS_clone, vec![vec![has_any(0, NAMESPACE_FLAGS)]]),
        (SYS_unshare, vec![vec![has_any(0, NAMESPACE_FLAGS | NEW_TIME)]]),
        (SYS_ioctl, vec![vec![is(1, &REFUSED_IOCTLS)]]),
        (SYS_socket, sockets()),
        (SYS_socketpair, sockets()),
        (SYS_setsockopt, REFUSED_OPTIONS.map(|(level, options)| vec![is(1, &[level as u32]), is(2, options)]).to_vec()),
        // What exploits switch on: reading unmapped pages as code, mapping at address zero. Debuggers' and compatibility values pass.
        (
            SYS_personality,
            vec![vec![
                has_any(0, 0x0010_0000 /* MMAP_PAGE_ZERO */ | 0x0040_0000 /* READ_IMPLIES_EXEC */),
                isnt(0, &[0xFFFF_FFFF /* a question */]),
            ]],
        ),
    ]);
    rules.extend(set_id_bits());
    rules
}

/// Only local and internet sockets, of the common kinds, and the routing questions that a C library asks.
fn sockets() -> Vec<Rule> {
    let (local, netlink, internet) = (AF_UNIX as u32, AF_NETLINK as u32, [AF_INET as u32, AF_INET6 as u32]);
    let uncommon = [SOCK_RAW, SOCK_RDM, SOCK_SEQPACKET, 6 /* SOCK_DCCP */, 10 /* SOCK_PACKET */];
    vec![
        vec![isnt(0, &[local, netlink, internet[0], internet[1]])],
        vec![is(0, &[netlink]), isnt(2, &[NETLINK_ROUTE as u32])],
        // Streams and datagrams of TCP and UDP: no SCTP, DCCP, L2TP, MPTCP, SMC, UDP-Lite, ping.
        vec![is(0, &internet), isnt(2, &[0, IPPROTO_TCP as u32, IPPROTO_UDP as u32])],
        vec![is(0, &internet), among(1, 0xf, &uncommon.map(|kind| kind as u32))],
    ]
}

/// Nobody leaves a set-user-id file in a workspace, for somebody outside to run.
fn set_id_bits() -> Vec<(i64, Vec<Rule>)> {
    let mut modes = vec![(SYS_fchmod, 1), (SYS_fchmodat, 2), (452 /* fchmodat2 */, 2), (SYS_mknodat, 2)];
    let mut opens = vec![(SYS_openat, 2, 3)];
    #[cfg(target_arch = "x86_64")]
    {
        modes.extend([(SYS_chmod, 1), (SYS_creat, 1), (SYS_mknod, 1)]);
        opens.push((SYS_open, 1, 2));
    }
    // Set-group-id without group execution is an old locking mark; on folders it passes through mkdir and inheritance.
    let bits = [S_ISUID, S_ISGID | S_IXGRP];
    let of_modes = modes.into_iter().map(|(call, mode)| (call, bits.map(|bits| vec![has(mode, bits)]).to_vec()));
    // The mode counts only when a file may be created; otherwise its register holds anything.
    let creating = (O_CREAT | O_TMPFILE & !O_DIRECTORY) as u32;
    let of_opens = opens
        .into_iter()
        .map(|(call, flags, mode)| (call, bits.map(|bits| vec![has_any(flags, creating), has(mode, bits)]).to_vec()));
    of_modes.chain(of_opens).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    use crate::helper::filter::tests::{answer, expected};

    const ARCHITECTURE: u32 = if cfg!(target_arch = "x86_64") { 0xC000_003E } else { 0xC000_00B7 };

    /// The error of a call in the sandbox; 0 when the filter lets it through.
    fn errno(call: i64, arguments: &[u64]) -> u32 {
        let mut six = [0; 6];
        six[..arguments.len()].copy_from_slice(arguments);
        match answer(&program().expect("a filter"), ARCHITECTURE, call as u32, six) {
            SECCOMP_RET_ALLOW => 0,
            answer => {
                assert_eq!(answer & 0xffff_0000, SECCOMP_RET_ERRNO, "{call}");
                answer & 0xffff
            }
        }
    }

    const FINE: u32 = 0;
    const GONE: u32 = ENOSYS as u32;
    const NO: u32 = EPERM as u32;

    #[test]
    fn calls_are_refused_by_number() {
        let gone = [SYS_clone3, SYS_openat2, SYS_io_uring_setup, SYS_memfd_secret, 457, 460, 467, 468, 512, 547, 1000];
        let foreign = [0x4000_0000, 0x4000_0027, 0x7fff_ffff, 0xffff_ffff];
        gone.into_iter().chain(foreign).for_each(|call| assert_eq!(errno(call, &[]), GONE, "{call}"));
        for call in [SYS_mount, SYS_bpf, SYS_keyctl, SYS_setns, SYS_kexec_load, SYS_swapon, SYS_acct, SYS_quotactl] {
            assert_eq!(errno(call, &[]), NO, "{call}");
        }
        let fine = [SYS_read, SYS_execve, SYS_ptrace, SYS_process_vm_readv, SYS_futex_waitv, 452, 462, 466];
        fine.into_iter().for_each(|call| assert_eq!(errno(call, &[]), FINE, "{call}"));
    }

    #[test]
    fn calls_are_refused_by_argument() {
        let (flags, noise) = ((SOCK_CLOEXEC | SOCK_NONBLOCK) as u64, 0xdead_0000_0000);
        let socket = |family: i32, kind: i32, protocol: i32| {
            let arguments = [family as u64 | noise, kind as u64 | flags, protocol as u64 | noise];
            (SYS_socket, arguments.to_vec())
        };
        let option = |level: i32, option: i32| (SYS_setsockopt, vec![3, level as u64 | noise, option as u64]);
        let cases = [
            ("tcp", socket(AF_INET, SOCK_STREAM, 0), FINE),
            ("tcp by name", socket(AF_INET6, SOCK_STREAM, IPPROTO_TCP), FINE),
            ("udp", socket(AF_INET6, SOCK_DGRAM, IPPROTO_UDP), FINE),
            ("local", socket(AF_UNIX, SOCK_SEQPACKET, 0), FINE),
            ("routes", socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE), FINE),
            ("netfilter", socket(AF_NETLINK, SOCK_RAW, 12), NO),
            ("raw", socket(AF_INET, SOCK_RAW, IPPROTO_UDP), NO),
            ("packets of old", socket(AF_INET, 10, 0), NO),
            ("sctp", socket(AF_INET, SOCK_SEQPACKET, 132), NO),
            ("sctp as a stream", socket(AF_INET6, SOCK_STREAM, 132), NO),
            ("dccp", socket(AF_INET, 6, 33), NO),
            ("dccp without its number", socket(AF_INET, 6, 0), NO),
            ("l2tp", socket(AF_INET, SOCK_DGRAM, 115), NO),
            ("mptcp", socket(AF_INET, SOCK_STREAM, 262), NO),
            ("smc", socket(AF_INET6, SOCK_STREAM, 256), NO),
            ("udp-lite", socket(AF_INET, SOCK_DGRAM, 136), NO),
            ("ping", socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP), NO),
            ("vsock", socket(40, SOCK_STREAM, 0), NO),
            ("alg", socket(38, SOCK_SEQPACKET, 0), NO),
            ("packet", socket(AF_PACKET, SOCK_RAW, 0), NO),
            ("no family", socket(-1, SOCK_STREAM, 0), NO),
            ("tls in the kernel", option(IPPROTO_TCP, TCP_ULP), NO),
            ("no delay", option(IPPROTO_TCP, TCP_NODELAY), FINE),
            ("a program on a socket", option(SOL_SOCKET, SO_ATTACH_BPF), NO),
            ("reuse", option(SOL_SOCKET, SO_REUSEADDR), FINE),
            ("encapsulation", option(IPPROTO_UDP, 100), NO),
            ("fork", (SYS_clone, vec![SIGCHLD as u64]), FINE),
            ("thread", (SYS_clone, vec![(CLONE_VM | CLONE_THREAD | CLONE_SIGHAND) as u64]), FINE),
            ("user namespace", (SYS_clone, vec![(CLONE_NEWUSER | SIGCHLD) as u64 | noise]), NO),
            ("several namespaces", (SYS_unshare, vec![(CLONE_NEWNET | CLONE_NEWNS) as u64]), NO),
            ("time namespace", (SYS_unshare, vec![NEW_TIME.into()]), NO),
            ("own files", (SYS_unshare, vec![CLONE_FILES as u64]), FINE),
            ("type into a terminal", (SYS_ioctl, vec![0, 0x5412 | noise]), NO),
            ("select in a console", (SYS_ioctl, vec![0, 0x541C]), NO),
            ("size of a terminal", (SYS_ioctl, vec![0, TIOCGWINSZ]), FINE),
            ("set-user-id", (SYS_fchmod, vec![3, 0o4755]), NO),
            ("set-group-id", (SYS_fchmodat, vec![3, 0, 0o2755]), NO),
            ("old locking mark", (SYS_fchmod, vec![3, 0o2644]), FINE),
            ("create set-user-id", (SYS_openat, vec![3, 0, (O_CREAT | O_WRONLY) as u64, 0o4755]), NO),
            ("open, with anything as mode", (SYS_openat, vec![3, 0, O_RDONLY as u64, 0o4755]), FINE),
            ("data as code", (SYS_personality, vec![0x0040_0000]), NO),
            ("page zero", (SYS_personality, vec![0x0010_0000]), NO),
            ("ask for the personality", (SYS_personality, vec![0xffff_ffff]), FINE),
            ("addresses that stay", (SYS_personality, vec![0x0004_0000]), FINE),
        ];
        for (name, (call, arguments), expected) in cases {
            assert_eq!(errno(call, &arguments), expected, "{name}");
        }
    }
    #[test]
    fn the_program_says_what_the_verdicts_say() {
        let (program, verdicts) = (program().expect("a filter"), verdicts());
        assert!(program.len() < 400, "{} instructions", program.len());
        // Every value that a condition compares with, what lies next to it, and noise above.
        let near = |value: u32| [0, value, value ^ 1, value.wrapping_add(1), !value].map(u64::from);
        let noise = 0xdead_0000_0000 | u64::from(u32::MAX);
        let foreign = [0x3fff_ffff, 0x4000_0000, 0x4000_0027, 0x7fff_ffff, u32::MAX];
        for call in (0..1100).chain(foreign) {
            let values = verdicts.get(&call).map(Verdict::values).unwrap_or_default();
            let some: BTreeSet<u64> = values.into_iter().flat_map(near).chain([0, noise]).collect();
            let pairs = some.iter().flat_map(|first| some.iter().map(move |second| (first, second)));
            for ((first, second), third) in pairs.flat_map(|pair| some.iter().map(move |third| (pair, third))) {
                let arguments = [*first, *second, *third, *first, *second, *third];
                let said = answer(&program, ARCHITECTURE, call, arguments);
                assert_eq!(said, expected(&verdicts, call, arguments), "{call} {arguments:x?}");
            }
            assert_eq!(answer(&program, 0x4000_0003, call, [0; 6]), SECCOMP_RET_KILL_PROCESS, "{call}");
        }
    }
}
