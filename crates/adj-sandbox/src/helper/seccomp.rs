//! Which system calls a sandbox refuses: what only administrators, debuggers and exploits need.
//!
//! Three filters, because each has one answer: a foreign calling convention ends the process, some calls do not exist (programs then
//! take an older way that can be judged), the rest is not permitted.

use std::collections::BTreeMap;
use std::io;

use libc::*;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

use crate::error::{Doing, Layer, SetupError};

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Calls whose arguments lie in memory, where a filter cannot look, and machinery that goes around filters.
const NOT_THERE: [i64; 8] = [
    SYS_clone3,
    // Its file mode lies in memory; `openat` is the older way.
    SYS_openat2,
    SYS_io_uring_setup,
    SYS_io_uring_enter,
    SYS_io_uring_register,
    // Newer than many headers: statmount, listmount, open_tree_attr.
    457,
    458,
    467,
];

const REFUSED: [i64; 51] = [
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
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_ptrace,
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
const REFUSED_HERE: [i64; 5] = [SYS_ioperm, SYS_iopl, SYS_modify_ldt, SYS_uselib, SYS__sysctl];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: [i64; 0] = [];

/// Terminal commands that type for the user or change what a line means.
const REFUSED_IOCTLS: [u64; 4] =
    [0x5412 /* TIOCSTI */, 0x541C /* TIOCLINUX */, 0x541D /* TIOCCONS */, 0x5423 /* TIOCSETD */];

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
    let mut programs = vec![filter(not_there, ENOSYS)?, filter(refused()?, EPERM)?];
    // The last one installed runs first, but all run, and the strictest answer wins.
    if cfg!(target_arch = "x86_64") {
        programs.push(no_x32());
    }
    Ok(programs)
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

/// Only local and internet sockets, and the routing questions that a C library asks.
fn sockets(rules: &mut Rules) -> Result<(), seccompiler::BackendError> {
    let differs = |family: i32| SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, family as u64);
    for call in [SYS_socket, SYS_socketpair] {
        when(rules, call, &[differs(AF_UNIX)?, differs(AF_INET)?, differs(AF_INET6)?, differs(AF_NETLINK)?])?;
        let not_routing = SeccompCondition::new(2, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, NETLINK_ROUTE as u64)?;
        when(rules, call, &[is(0, AF_NETLINK as u64)?, not_routing])?;
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

/// The argument has all of these bits.
fn has(argument: u8, bits: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(bits), bits)
}

/// The third calling convention of x86-64 reuses the architecture's number with a high bit, so numbers have a ceiling.
fn no_x32() -> BpfProgram {
    const LOAD_NUMBER: u16 = (BPF_LD | BPF_W | BPF_ABS) as u16;
    const JUMP_IF_AT_LEAST: u16 = (BPF_JMP | BPF_JGE | BPF_K) as u16;
    const RETURN: u16 = (BPF_RET | BPF_K) as u16;
    const X32_BIT: u32 = 0x4000_0000;
    vec![
        sock_filter { code: LOAD_NUMBER, jt: 0, jf: 0, k: 0 },
        sock_filter { code: JUMP_IF_AT_LEAST, jt: 0, jf: 1, k: X32_BIT },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: SECCOMP_RET_ERRNO | ENOSYS as u32 },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: SECCOMP_RET_ALLOW },
    ]
}
