//! Which system calls a sandbox refuses: what only administrators and exploits need.
//!
//! Three filters, because each has one answer: calls that are newer than this list do not exist, nor do some that cannot be judged (programs
//! then take an older way), the rest is not permitted. A foreign calling convention ends the process.
//!
//! Debuggers work: tracing reaches only what may be reached by signals as well, other commands of the same sandbox. Pid 1 and the
//! worker are not dumpable, and what Landlock or another user id keeps apart is kept apart for tracers, too.

use std::collections::BTreeMap;
use std::io;

use libc::*;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

use crate::error::{Doing, Layer, SetupError};

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

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
const REFUSED_IOCTLS: [u64; 5] = [
    0x540C, /* TIOCEXCL */
    0x5412, /* TIOCSTI */
    0x541C, /* TIOCLINUX */
    0x541D, /* TIOCCONS */
    0x5423, /* TIOCSETD */
];

/// Options of sockets, with their levels: other protocols inside of TCP and UDP, and programs for the kernel to run.
const REFUSED_OPTIONS: [(i32, i32); 6] = [
    (IPPROTO_TCP, TCP_ULP),
    (IPPROTO_UDP, 100 /* UDP_ENCAP */),
    (SOL_SOCKET, SO_ATTACH_FILTER),
    (SOL_SOCKET, SO_ATTACH_BPF),
    (SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF),
    (SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF),
];

const NAMESPACE_FLAGS: [i32; 7] =
    [CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWIPC, CLONE_NEWUTS, CLONE_NEWCGROUP];
const NEW_TIME: u64 = 0x80;

/// Installs the filters on this process and all it will start.
pub(super) fn apply() -> Result<(), SetupError> {
    let what = || "install the system call filters".to_owned();
    for program in programs().map_err(io::Error::other).doing(Layer::Seccomp, what)? {
        seccompiler::apply_filter(&program).map_err(io::Error::other).doing(Layer::Seccomp, what)?;
    }
    Ok(())
}

fn programs() -> Result<Vec<BpfProgram>, seccompiler::BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let filter = |rules: Rules, errno: i32| -> Result<BpfProgram, seccompiler::BackendError> {
        SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno as u32), arch)?.try_into()
    };
    let not_there = NOT_THERE.into_iter().map(|call| (call, Vec::new())).collect();
    // The last one installed runs first, but all run, and the strictest answer wins.
    Ok(vec![filter(not_there, ENOSYS)?, filter(refused()?, EPERM)?, ceiling()])
}

fn refused() -> Result<Rules, seccompiler::BackendError> {
    let mut rules: Rules = REFUSED.into_iter().chain(REFUSED_HERE).map(|call| (call, Vec::new())).collect();
    for flag in NAMESPACE_FLAGS {
        when(&mut rules, SYS_clone, &[has(0, flag as u64)?])?;
        when(&mut rules, SYS_unshare, &[has(0, flag as u64)?])?;
    }
    when(&mut rules, SYS_unshare, &[has(0, NEW_TIME)?])?;
    for command in REFUSED_IOCTLS {
        when(&mut rules, SYS_ioctl, &[is(1, command)?])?;
    }
    sockets(&mut rules)?;
    set_id_bits(&mut rules)?;
    // What exploits switch on: reading unmapped pages as code, mapping at address zero. Debuggers' and compatibility values pass.
    for bit in [0x0010_0000 /* MMAP_PAGE_ZERO */, 0x0040_0000 /* READ_IMPLIES_EXEC */] {
        let is_a_change = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, 0xFFFF_FFFF)?;
        when(&mut rules, SYS_personality, &[has(0, bit)?, is_a_change])?;
    }
    Ok(rules)
}

/// Only local and internet sockets, of the common kinds, and the routing questions that a C library asks.
fn sockets(rules: &mut Rules) -> Result<(), seccompiler::BackendError> {
    for call in [SYS_socket, SYS_socketpair] {
        when(rules, call, &[isnt(0, AF_UNIX)?, isnt(0, AF_INET)?, isnt(0, AF_INET6)?, isnt(0, AF_NETLINK)?])?;
        when(rules, call, &[is(0, AF_NETLINK as u64)?, isnt(2, NETLINK_ROUTE)?])?;
        for family in [AF_INET, AF_INET6] {
            let family = is(0, family as u64)?;
            // Streams and datagrams of TCP and UDP: no SCTP, DCCP, L2TP, MPTCP, SMC, UDP-Lite, ping.
            when(rules, call, &[family.clone(), isnt(2, 0)?, isnt(2, IPPROTO_TCP)?, isnt(2, IPPROTO_UDP)?])?;
            for kind in [SOCK_RAW, SOCK_RDM, SOCK_SEQPACKET, 6 /* SOCK_DCCP */, 10 /* SOCK_PACKET */] {
                let kind = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(0xf), kind as u64)?;
                when(rules, call, &[family.clone(), kind])?;
            }
        }
    }
    for (level, option) in REFUSED_OPTIONS {
        when(rules, SYS_setsockopt, &[is(1, level as u64)?, is(2, option as u64)?])?;
    }
    Ok(())
}

/// Nobody leaves a set-user-id file in a workspace, for somebody outside to run.
fn set_id_bits(rules: &mut Rules) -> Result<(), seccompiler::BackendError> {
    let mut modes = vec![(SYS_fchmod, 1), (SYS_fchmodat, 2), (452 /* fchmodat2 */, 2), (SYS_mknodat, 2)];
    let mut opens = vec![(SYS_openat, 2, 3)];
    #[cfg(target_arch = "x86_64")]
    {
        modes.extend([(SYS_chmod, 1), (SYS_creat, 1), (SYS_mknod, 1)]);
        opens.push((SYS_open, 1, 2));
    }
    // Set-group-id without group execution is an old locking mark; on folders it passes through mkdir and inheritance.
    let bits = [u64::from(S_ISUID), u64::from(S_ISGID | S_IXGRP)];
    for (call, mode) in modes {
        for bit in bits {
            when(rules, call, &[has(mode, bit)?])?;
        }
    }
    for (call, flags, mode) in opens {
        // The mode counts only when a file may be created; otherwise its register holds anything.
        for creating in [O_CREAT as u64, (O_TMPFILE & !O_DIRECTORY) as u64] {
            for bit in bits {
                when(rules, call, &[has(flags, creating)?, has(mode, bit)?])?;
            }
        }
    }
    Ok(())
}

fn when(rules: &mut Rules, call: i64, conditions: &[SeccompCondition]) -> Result<(), seccompiler::BackendError> {
    rules.entry(call).or_default().push(SeccompRule::new(conditions.to_vec())?);
    Ok(())
}

/// The argument equals `value`; 32 bits are compared, as the kernel does for these.
fn is(argument: u8, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
}

/// The argument is something else.
fn isnt(argument: u8, value: i32) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, value as u64)
}

/// The argument has all of these bits.
fn has(argument: u8, bits: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(bits), bits)
}

/// Calls that we do not know are not there. So is the third calling convention of x86-64, which reuses the architecture's number
/// with a high bit.
fn ceiling() -> BpfProgram {
    const LOAD_NUMBER: u16 = (BPF_LD | BPF_W | BPF_ABS) as u16;
    const JUMP_IF_GREATER: u16 = (BPF_JMP | BPF_JGT | BPF_K) as u16;
    const RETURN: u16 = (BPF_RET | BPF_K) as u16;
    vec![
        sock_filter { code: LOAD_NUMBER, jt: 0, jf: 0, k: 0 },
        sock_filter { code: JUMP_IF_GREATER, jt: 0, jf: 1, k: NEWEST },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: SECCOMP_RET_ERRNO | ENOSYS as u32 },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: SECCOMP_RET_ALLOW },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would answer: a small machine for the few instructions that filters are made of.
    fn answer(program: &BpfProgram, call: i64, arguments: [u64; 6]) -> u32 {
        const ARCHITECTURE: u32 = if cfg!(target_arch = "x86_64") { 0xC000_003E } else { 0xC000_00B7 };
        let mut data = vec![call as u32, ARCHITECTURE, 0, 0];
        data.extend(arguments.iter().flat_map(|argument| [*argument as u32, (*argument >> 32) as u32]));
        let (mut at, mut accumulator) = (0, 0u32);
        loop {
            let step = &program[at];
            let jump = |is_so: bool| at + 1 + usize::from(if is_so { step.jt } else { step.jf });
            at = match u32::from(step.code) {
                code if code == BPF_LD | BPF_W | BPF_ABS => {
                    accumulator = data[step.k as usize / 4];
                    at + 1
                }
                code if code == BPF_ALU | BPF_AND | BPF_K => {
                    accumulator &= step.k;
                    at + 1
                }
                code if code == BPF_JMP | BPF_JA | BPF_K => at + 1 + step.k as usize,
                code if code == BPF_JMP | BPF_JEQ | BPF_K => jump(accumulator == step.k),
                code if code == BPF_JMP | BPF_JGT | BPF_K => jump(accumulator > step.k),
                code if code == BPF_JMP | BPF_JGE | BPF_K => jump(accumulator >= step.k),
                code if code == BPF_RET | BPF_K => return step.k,
                code => panic!("unknown instruction {code:#x}"),
            };
        }
    }

    /// The error of a call in the sandbox; 0 when the filters let it through.
    fn errno(call: i64, arguments: &[u64]) -> u32 {
        let mut six = [0; 6];
        six[..arguments.len()].copy_from_slice(arguments);
        let answers = programs().expect("filters").iter().map(|program| answer(program, call, six)).collect::<Vec<_>>();
        // The kernel takes the strictest; among errors the filter that was installed last.
        let errors = answers.iter().rev().find(|answer| **answer != SECCOMP_RET_ALLOW);
        errors.map_or(0, |answer| {
            assert_eq!(answer & 0xffff_0000, SECCOMP_RET_ERRNO, "{call}");
            answer & 0xffff
        })
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
            ("time namespace", (SYS_unshare, vec![NEW_TIME]), NO),
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
}
