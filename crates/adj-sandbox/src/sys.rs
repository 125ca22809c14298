//! The system calls that no safe crate offers; the only unsafe code of the room.
//!
//! Must not know: what they are used for.
#![expect(unsafe_code, reason = "clone, fork, capset, mount_setattr and lock queries have no safe wrapper")]

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use rustix::fd::BorrowedFd;

pub(crate) const NEW_NAMESPACES: u64 = (libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP) as u64;

/// A child made by [`clone_process`].
#[derive(Debug)]
pub(crate) struct Child {
    pub pid: i32,
    pub pidfd: OwnedFd,
}

/// Duplicates this process, which must have a single thread, optionally into new namespaces; `None` is the child.
pub(crate) fn clone_process(namespaces: u64) -> io::Result<Option<Child>> {
    let flags = namespaces | libc::CLONE_PIDFD as u64 | libc::SIGCHLD as u64;
    let mut pidfd: RawFd = -1;
    // SAFETY: without CLONE_VM and with a null stack this behaves as fork(2); the helper has one thread, so no lock can be held by
    // another. The third argument is where CLONE_PIDFD stores a descriptor, on every architecture. The stale thread id that the C
    // library keeps in the child is used by none of our calls before the next fork(3), which renews it.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0usize, &raw mut pidfd, 0usize, 0usize) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        // SAFETY: the kernel has just stored a descriptor that nobody else owns.
        pid => Ok(Some(Child { pid: pid as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })),
    }
}

/// Duplicates this process, which must have a single thread; `None` is the child.
pub(crate) fn fork() -> io::Result<Option<i32>> {
    // SAFETY: the process has a single thread, so the child may do whatever the parent may.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        pid => Ok(Some(pid)),
    }
}

/// Ends this process without running anything else.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Takes ownership of a descriptor that was inherited by number.
pub(crate) fn inherited(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: F_GETFD only looks at the number.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } == -1 {
        return None;
    }
    // SAFETY: the descriptor is open, and dispatch_helper calls this once, first thing in the process, before anything else is opened.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Closes every descriptor from 0 up that is not listed.
pub(crate) fn close_all_but(keep: &mut [RawFd]) -> io::Result<()> {
    keep.sort_unstable();
    let mut first: u32 = 0;
    for &fd in keep.iter() {
        let fd = fd as u32;
        if fd > first {
            close_range(first, fd - 1, 0)?;
        }
        first = fd + 1;
    }
    close_range(first, u32::MAX, 0)
}

/// Marks every descriptor from `first` up to be closed at the next exec.
pub(crate) fn close_on_exec_from(first: u32) -> io::Result<()> {
    close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

fn close_range(first: u32, last: u32, flags: u32) -> io::Result<()> {
    // SAFETY: the callers are freshly forked helpers that never drop the owners of what is closed here.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) })
}

/// Puts `fd` at the number 0, 1 or 2.
pub(crate) fn place_fd(fd: &OwnedFd, number: RawFd) -> io::Result<()> {
    // SAFETY: the standard descriptors are owned by nobody in a helper.
    check(unsafe { libc::dup2(fd.as_raw_fd(), number) }.into())
}

/// Gives every signal its default meaning and unblocks all: ignored and blocked ones are inherited from whoever started us.
pub(crate) fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: setting the default action is always sound; the uncatchable and reserved ones fail harmlessly.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    set_blocked(&[]);
}

/// Undoes what a helper itself has changed since [`reset_signals`].
pub(crate) fn restore_signals() {
    // SAFETY: setting the default action is always sound.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    set_blocked(&[]);
}

/// Ignores one signal.
pub(crate) fn ignore_signal(signal: i32) {
    // SAFETY: ignoring a signal installs no handler.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

fn signal_set(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: sigset_t is plain data, made valid by sigemptyset.
    unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for &signal in signals {
            libc::sigaddset(&raw mut set, signal);
        }
        set
    }
}

/// Blocks exactly these signals.
pub(crate) fn set_blocked(signals: &[i32]) {
    let set = signal_set(signals);
    // SAFETY: the set is initialised and the old one is not asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) };
}

/// Blocks exactly these signals and returns a descriptor that becomes readable when one arrives.
pub(crate) fn signal_fd(signals: &[i32]) -> io::Result<OwnedFd> {
    set_blocked(signals);
    let set = signal_set(signals);
    // SAFETY: the set is initialised.
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    check(fd.into())?;
    // SAFETY: just returned by the kernel.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Code(i32),
    Signal(i32),
}

/// Reaps one dead child without waiting, if there is one.
pub(crate) fn reap_one() -> Option<(i32, Ended)> {
    let mut status = 0;
    // SAFETY: the status is a valid place.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    if pid <= 0 {
        return None;
    }
    Some((pid, ended(status)))
}

/// Reaps exactly `pid`, waiting for it; `None` when it is no child of ours.
pub(crate) fn reap(pid: i32) -> Option<Ended> {
    let mut status = 0;
    loop {
        // SAFETY: the status is a valid place.
        let result = unsafe { libc::waitpid(pid, &raw mut status, 0) };
        if result != -1 {
            return Some(ended(status));
        }
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return None;
        }
    }
}

fn ended(status: i32) -> Ended {
    if libc::WIFSIGNALED(status) {
        Ended::Signal(libc::WTERMSIG(status))
    } else {
        Ended::Code(libc::WEXITSTATUS(status))
    }
}

/// Takes the news that a child was stopped, if it was: the signal that did it.
pub(crate) fn stopped(pid: i32) -> Option<i32> {
    // SAFETY: siginfo_t is plain data.
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    // SAFETY: the place for the answer is valid; only stops are asked for, so no death is taken.
    let result =
        unsafe { libc::waitid(libc::P_PID, pid.cast_unsigned(), &raw mut info, libc::WSTOPPED | libc::WNOHANG) };
    // SAFETY: for SIGCHLD these fields are set; without news the process is zero.
    (result == 0 && unsafe { info.si_pid() } == pid).then(|| unsafe { info.si_status() })
}

/// Overwrites the arguments and the environment that this process was started with, which its `/proc` entries show, and forgets them.
pub(crate) fn wipe_beginnings() -> io::Result<()> {
    unsafe extern "C" {
        static mut environ: *mut *mut libc::c_char;
    }
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name in parentheses may contain anything, so fields are counted from its end.
    let fields: Vec<&str> = stat.rsplit_once(") ").map_or(Vec::new(), |(_, rest)| rest.split(' ').collect());
    let place =
        |field: usize| fields.get(field - 3).and_then(|text| text.trim().parse::<usize>().ok()).filter(|at| *at > 0);
    let (Some(arguments), Some(arguments_end), Some(environment), Some(environment_end)) =
        (place(48), place(49), place(50), place(51))
    else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    for (start, end) in [(arguments, arguments_end), (environment, environment_end)] {
        let length = end.checked_sub(start).ok_or(io::ErrorKind::InvalidData)?;
        // SAFETY: the kernel itself has put these texts at the bottom of this thread's stack, above all frames; they are writable, and a
        // freshly forked helper has no other thread that could read them.
        unsafe { std::ptr::write_bytes(std::ptr::with_exposed_provenance_mut::<u8>(start), 0, length) };
    }
    // SAFETY: as above; nobody else holds on to the list.
    unsafe { environ = std::ptr::null_mut() };
    Ok(())
}

/// The signals that wait in a descriptor made by [`signal_fd`], oldest first.
pub(crate) fn read_signals(signals: &OwnedFd) -> Vec<i32> {
    const SIZE: usize = size_of::<libc::signalfd_siginfo>();
    let mut bytes = [0u8; 16 * SIZE];
    let Ok(count) = rustix::io::read(signals, &mut bytes) else { return Vec::new() };
    // The number is the first field of each.
    let number = |info: &[u8]| i32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
    bytes[..count].chunks_exact(SIZE).map(number).collect()
}

/// Stops this process and its group, as a key of the terminal would, and returns when it goes on. `blocked` are all signals that are blocked
/// meanwhile and afterwards.
pub(crate) fn stop_group(signal: i32, blocked: &[i32]) {
    let others: Vec<i32> = blocked.iter().copied().filter(|other| *other != signal).collect();
    set_blocked(&others);
    kill(0, signal);
    set_blocked(blocked);
}

/// Sends a signal; -1 means everything this process may signal.
pub(crate) fn kill(pid: i32, signal: i32) {
    // SAFETY: kill has no memory effects.
    unsafe { libc::kill(pid, signal) };
}

/// Drops every capability, including what an exec could bring back.
pub(crate) fn drop_capabilities() -> io::Result<()> {
    for capability in 0..64 {
        // SAFETY: prctl with integers only.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } == -1 {
            let error = io::Error::last_os_error();
            if error.raw_os_error() == Some(libc::EINVAL) && capability > 0 {
                break;
            }
            return Err(error);
        }
    }
    // SAFETY: as above.
    check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) }.into())?;
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    let header = Header { version: 0x2008_0522, pid: 0 };
    let nothing = [[0u32; 3]; 2];
    // SAFETY: version 3 reads a header and two triples of 32 bits, which both are.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, &raw const nothing) })
}

/// No later exec can gain privileges.
pub(crate) fn set_no_new_privileges() -> io::Result<()> {
    // SAFETY: prctl with integers only.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into())
}

/// Filters the system calls of this process and all it will start.
pub(crate) fn install_filter(program: &[libc::sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel copies as many instructions as there are, and changes none.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) })
}

/// Neither traceable nor dumped; its `/proc` entries belong to root.
pub(crate) fn set_not_dumpable() -> io::Result<()> {
    // SAFETY: prctl with integers only.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) }.into())
}

/// Asks to be killed when the parent dies.
pub(crate) fn die_with_parent() -> io::Result<()> {
    // SAFETY: prctl with integers only.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) }.into())
}

/// Orphaned descendants become children of this process.
pub(crate) fn adopt_orphans() -> io::Result<()> {
    // SAFETY: prctl with integers only.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }.into())
}

/// Makes this process's environment exactly `env`.
pub(crate) fn replace_environment(env: &std::collections::BTreeMap<String, String>) {
    let old: Vec<_> = std::env::vars_os().map(|(name, _)| name).collect();
    // SAFETY: a freshly forked helper has a single thread, and names and values were checked with the plan.
    unsafe {
        for name in old {
            std::env::remove_var(name);
        }
        for (name, value) in env {
            std::env::set_var(name, value);
        }
    }
}

/// Names this process in listings.
pub(crate) fn set_name(name: &std::ffi::CStr) {
    // SAFETY: the kernel reads at most 16 bytes of a terminated string.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) };
}

/// Clears the supplementary groups, which only a privileged process can do; others keep theirs.
pub(crate) fn drop_groups() {
    // SAFETY: zero groups are read from nowhere.
    unsafe { libc::setgroups(0, std::ptr::null()) };
}

#[cfg(target_env = "gnu")]
type Resource = libc::__rlimit_resource_t;
#[cfg(not(target_env = "gnu"))]
type Resource = libc::c_int;

/// One resource limit, hard and soft, never above what is allowed already.
pub(crate) fn set_limit(resource: Resource, value: u64) -> io::Result<()> {
    let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is valid for writing.
    check(unsafe { libc::getrlimit(resource, &raw mut now) }.into())?;
    let value = value.min(now.rlim_max);
    let new = libc::rlimit { rlim_cur: value, rlim_max: value };
    // SAFETY: the structure is valid for reading.
    check(unsafe { libc::setrlimit(resource, &raw const new) }.into())
}

/// Sets attributes of a mount, or of a mount and all below it.
pub(crate) fn set_mount_attributes(mount: BorrowedFd<'_>, set: u64, is_recursive: bool) -> io::Result<()> {
    #[repr(C)]
    struct Attributes {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    let attributes = Attributes { set, clear: 0, propagation: 0, user_namespace: 0 };
    let flags = libc::AT_EMPTY_PATH | if is_recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is empty and terminated, the structure is as long as said.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    })
}

/// Brings the loopback interface of this network namespace up.
pub(crate) fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    // SAFETY: ifreq is plain data; SIOCSIFFLAGS reads the name and the flags.
    unsafe {
        let mut request: libc::ifreq = mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request).into())
    }
}

/// A listener on 127.0.0.1 of this network namespace, non-blocking.
///
/// Without address reuse: nobody else can listen on the same port beside it.
pub(crate) fn listen_on_loopback(port: u16) -> io::Result<OwnedFd> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&socket, &std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, port))?;
    rustix::net::listen(&socket, 512)?;
    Ok(socket)
}

/// The newest Landlock ABI that the kernel has; 0 when there is none.
pub(crate) fn landlock_abi() -> i32 {
    const VERSION: u32 = 1;
    // SAFETY: with this flag the kernel reads nothing.
    let abi = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0usize, VERSION) };
    i32::try_from(abi).unwrap_or(0).max(0)
}

/// Takes the whole-file lock that says "somebody lives here"; `false` when somebody else has it.
pub(crate) fn try_lock(file: impl AsFd) -> io::Result<bool> {
    let lock = whole_file(libc::F_WRLCK);
    // SAFETY: the structure is valid; the descriptor lives as long as the borrow.
    if unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) } == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(error),
    }
}

/// Whether somebody holds that lock, without taking it.
pub(crate) fn is_locked(file: impl AsFd) -> io::Result<bool> {
    let mut lock = whole_file(libc::F_WRLCK);
    // SAFETY: the structure is valid for writing.
    check(unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) }.into())?;
    Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
}

fn whole_file(kind: i32) -> libc::flock {
    // SAFETY: flock is plain data.
    let mut lock: libc::flock = unsafe { mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock
}

fn check(result: i64) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
