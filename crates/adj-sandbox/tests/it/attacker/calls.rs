//! System calls that only administrators, debuggers and exploits need, each in the most harmless form that still shows whether it is there.

use libc::{AT_FDCWD, SYS_clone, SYS_clone3, SYS_unshare, c_long, syscall};

/// Makes one call; its result is not negative when the kernel let it through.
pub(super) fn call(name: &str, argument: &str) -> i64 {
    let path = std::ffi::CString::new(argument).expect("plain");
    mounts(name, &path)
        .or_else(|| namespaces(name))
        .or_else(|| modes(name, &path))
        .or_else(|| machine(name))
        .or_else(|| kernel(name))
        .unwrap_or_else(|| panic!("unknown attack {name}"))
}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// For calls that must not succeed: whether the kernel went on to look at the arguments instead of refusing us.
pub(super) fn reached(result: c_long) -> i64 {
    if result < 0 && matches!(errno(), libc::EPERM | libc::EACCES | libc::ENOSYS) { -1 } else { 0 }
}

fn mounts(name: &str, path: &std::ffi::CStr) -> Option<i64> {
    let path = path.as_ptr();
    // SAFETY: every pointer is null or to a terminated string or to a structure of the length that is passed with it.
    Some(unsafe {
        match name {
            "mount" => syscall(libc::SYS_mount, c"none".as_ptr(), c"/tmp".as_ptr(), c"tmpfs".as_ptr(), 0, 0),
            "bind" => syscall(libc::SYS_mount, c"/usr".as_ptr(), c"/tmp".as_ptr(), 0, libc::MS_BIND | libc::MS_REC, 0),
            "remount" => {
                let flags = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
                syscall(libc::SYS_mount, 0, path, 0, flags, 0)
            }
            "propagate" => syscall(libc::SYS_mount, 0, c"/".as_ptr(), 0, libc::MS_SHARED | libc::MS_REC, 0),
            "umount" => syscall(libc::SYS_umount2, path, libc::MNT_DETACH),
            "fsopen" => syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), 0),
            "fspick" => syscall(libc::SYS_fspick, AT_FDCWD, path, 0),
            "open_tree" => syscall(libc::SYS_open_tree, AT_FDCWD, c"/".as_ptr(), 0x8001),
            "move_mount" => {
                let tree = syscall(libc::SYS_open_tree, AT_FDCWD, c"/proc".as_ptr(), 1);
                syscall(libc::SYS_move_mount, tree, c"".as_ptr(), AT_FDCWD, c"/tmp".as_ptr(), 4)
            }
            "mount_setattr" => {
                let attributes = [0u64, libc::MOUNT_ATTR_RDONLY, 0, 0];
                syscall(libc::SYS_mount_setattr, AT_FDCWD, path, 0, attributes.as_ptr(), 32)
            }
            "pivot_root" => {
                syscall(libc::SYS_mount, c"none".as_ptr(), c"/tmp".as_ptr(), c"tmpfs".as_ptr(), 0, 0);
                libc::chdir(c"/tmp".as_ptr());
                syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr())
            }
            "chroot" => syscall(libc::SYS_chroot, c"/tmp".as_ptr()),
            "list-mounts" => {
                let (request, mut found) = ([24u64, u64::MAX, 0], [0u64; 64]);
                syscall(458, request.as_ptr(), found.as_mut_ptr(), 64, 0)
            }
            "handle" => handle(),
            "open-handle" => {
                handle();
                let usr = libc::open(c"/usr".as_ptr(), libc::O_RDONLY);
                let mut forged = Handle { bytes: 128, kind: 0, body: [0; 128] };
                let mut mount = 0i32;
                let known =
                    syscall(libc::SYS_name_to_handle_at, usr, c"".as_ptr(), &raw mut forged, &raw mut mount, 0x1000);
                if known < 0 {
                    // Inode 2 of a classic file system is its root.
                    forged.bytes = 8;
                    forged.kind = 1;
                    forged.body[0] = 2;
                }
                syscall(libc::SYS_open_by_handle_at, usr, &raw const forged, libc::O_RDONLY)
            }
            _ => return None,
        }
    })
}

#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    body: [u8; 128],
}

fn handle() -> i64 {
    let mut space = Handle { bytes: 128, kind: 0, body: [0; 128] };
    let mut mount = 0i32;
    // SAFETY: the structure has the room that its first number promises.
    unsafe { syscall(libc::SYS_name_to_handle_at, AT_FDCWD, c"/usr".as_ptr(), &raw mut space, &raw mut mount, 0) }
}

fn namespaces(name: &str) -> Option<i64> {
    let (call, flag) = name.split_once('-')?;
    let flag = match flag {
        "user" => libc::CLONE_NEWUSER,
        "mount" => libc::CLONE_NEWNS,
        "pid" => libc::CLONE_NEWPID,
        "net" => libc::CLONE_NEWNET,
        "ipc" => libc::CLONE_NEWIPC,
        "uts" => libc::CLONE_NEWUTS,
        "cgroup" => libc::CLONE_NEWCGROUP,
        "time" => 0x80,
        _ => return None,
    };
    // SAFETY: no stack is shared, so a child is a copy, and it ends at once.
    Some(unsafe {
        match call {
            "unshare" => syscall(SYS_unshare, flag),
            "clone" => ended_in_child(syscall(SYS_clone, flag | libc::SIGCHLD, 0, 0, 0, 0)),
            "clone3" => {
                let mut arguments = [0u64; 11];
                arguments[0] = flag as u64;
                arguments[4] = libc::SIGCHLD as u64;
                ended_in_child(syscall(SYS_clone3, arguments.as_ptr(), size_of_val(&arguments)))
            }
            "setns" => syscall(libc::SYS_setns, syscall(libc::SYS_pidfd_open, libc::getppid(), 0), flag),
            _ => return None,
        }
    })
}

fn ended_in_child(pid: i64) -> i64 {
    if pid == 0 {
        // SAFETY: a process may always end.
        unsafe { libc::_exit(0) }
    }
    pid
}

/// Ways to a set-user-id file or a device.
fn modes(name: &str, path: &std::ffi::CStr) -> Option<i64> {
    let path = path.as_ptr();
    let create = libc::O_CREAT | libc::O_WRONLY;
    // SAFETY: every pointer is to a terminated string, or to a structure of the length that is passed with it.
    Some(unsafe {
        match name {
            "suid-open" => syscall(libc::SYS_openat, AT_FDCWD, path, create, 0o4755),
            "suid-openat2" => {
                let how = [create as u64, 0o4755, 0];
                syscall(libc::SYS_openat2, AT_FDCWD, path, how.as_ptr(), 24)
            }
            "suid-temporary" => {
                let file = syscall(libc::SYS_openat, AT_FDCWD, c".".as_ptr(), libc::O_TMPFILE | libc::O_WRONLY, 0o4755);
                let own = std::ffi::CString::new(format!("/proc/self/fd/{file}")).expect("plain");
                i64::from(libc::linkat(AT_FDCWD, own.as_ptr(), AT_FDCWD, path, libc::AT_SYMLINK_FOLLOW))
            }
            "suid-mknod" => syscall(libc::SYS_mknodat, AT_FDCWD, path, libc::S_IFREG | 0o4755, 0),
            "suid-fchmod" => {
                let file = syscall(libc::SYS_openat, AT_FDCWD, path, create, 0o755);
                syscall(libc::SYS_fchmod, file, 0o4755)
            }
            "suid-chmod2" => {
                syscall(libc::SYS_openat, AT_FDCWD, path, create, 0o755);
                syscall(452, AT_FDCWD, path, 0o4755, 0)
            }
            "device" => syscall(libc::SYS_mknodat, AT_FDCWD, path, libc::S_IFCHR | 0o666, libc::makedev(1, 3)),
            _ => return None,
        }
    })
}

/// What belongs to the whole machine.
fn machine(name: &str) -> Option<i64> {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let mut buffer = [0u64; 64];
    let space = buffer.as_mut_ptr();
    let nowhere = c"/nonexistent/adjutant".as_ptr();
    // SAFETY: every pointer is to a terminated string or to more zeroed bytes than the call reads or writes.
    Some(unsafe {
        match name {
            "sethostname" => syscall(libc::SYS_sethostname, c"broken".as_ptr(), 6),
            "setdomainname" => syscall(libc::SYS_setdomainname, c"broken".as_ptr(), 6),
            // The clock is set to what it shows.
            "clock_settime" => {
                libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut now);
                syscall(libc::SYS_clock_settime, libc::CLOCK_REALTIME, &raw const now)
            }
            "settimeofday" => {
                let mut time = libc::timeval { tv_sec: 0, tv_usec: 0 };
                libc::gettimeofday(&raw mut time, std::ptr::null_mut());
                syscall(libc::SYS_settimeofday, &raw const time, 0)
            }
            // Without a mode they only look.
            "adjtimex" => syscall(libc::SYS_adjtimex, space),
            "clock_adjtime" => syscall(libc::SYS_clock_adjtime, libc::CLOCK_REALTIME, space),
            "quotactl" => syscall(libc::SYS_quotactl, 0x80_0001u32 << 8, 0, 0, 0),
            "acct" => reached(syscall(libc::SYS_acct, nowhere)),
            "swapon" => reached(syscall(libc::SYS_swapon, nowhere, 0)),
            "swapoff" => reached(syscall(libc::SYS_swapoff, nowhere)),
            "reboot" => reached(syscall(libc::SYS_reboot, 0, 0, 0, 0)),
            "kexec" => reached(syscall(libc::SYS_kexec_load, 0, 0, 0, 0)),
            "init_module" => reached(syscall(libc::SYS_init_module, space, 64, c"".as_ptr())),
            "finit_module" => reached(syscall(libc::SYS_finit_module, -1, c"".as_ptr(), 0)),
            "delete_module" => reached(syscall(libc::SYS_delete_module, c"adj_attack".as_ptr(), libc::O_NONBLOCK)),
            "syslog" => syscall(libc::SYS_syslog, 10, 0, 0),
            "type" => terminal(0x5412, c"x".as_ptr().cast()),
            "discipline" => terminal(0x5423, (&raw const NO_DISCIPLINE).cast()),
            _ => return None,
        }
    })
}

static NO_DISCIPLINE: i32 = 0;

/// One command to a terminal of our own; the upper half of its number is noise, which the kernel ignores and a filter must ignore too.
fn terminal(command: u64, argument: *const u8) -> i64 {
    let mut name = [0 as libc::c_char; 128];
    // SAFETY: the name fits, and the argument is what the command reads.
    unsafe {
        let main = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY);
        libc::unlockpt(main);
        libc::ptsname_r(main, name.as_mut_ptr(), name.len());
        libc::setsid();
        let terminal = libc::open(name.as_ptr(), libc::O_RDWR);
        syscall(libc::SYS_ioctl, terminal, 0xdead_0000_0000 | command, argument)
    }
}

/// Machinery inside the kernel where its errors have been.
fn kernel(name: &str) -> Option<i64> {
    let mut buffer = [0u64; 64];
    let space = buffer.as_mut_ptr();
    // SAFETY: every pointer is to a terminated string or to more bytes than the call reads or writes; a child ends by itself.
    Some(unsafe {
        match name {
            "io_uring" => syscall(libc::SYS_io_uring_setup, 4, space),
            // An array map with one element.
            "bpf" => {
                let map = [2u32, 4, 8, 1];
                std::ptr::copy_nonoverlapping(map.as_ptr(), space.cast(), 4);
                syscall(libc::SYS_bpf, 0, space, 72)
            }
            "userfaultfd" => syscall(libc::SYS_userfaultfd, 1),
            "keyctl" => syscall(libc::SYS_keyctl, 0, -3, 1),
            "add_key" => syscall(libc::SYS_add_key, c"user".as_ptr(), c"adj".as_ptr(), c"x".as_ptr(), 1, -2),
            "request_key" => {
                syscall(libc::SYS_add_key, c"user".as_ptr(), c"adj".as_ptr(), c"x".as_ptr(), 1, -2);
                syscall(libc::SYS_request_key, c"user".as_ptr(), c"adj".as_ptr(), 0, 0)
            }
            "perf" => {
                // A software clock of this process alone, in user mode alone.
                *space = 1 | 112 << 32;
                *space.add(5) = 1 << 5 | 1 << 6;
                syscall(libc::SYS_perf_event_open, space, 0, -1, -1, 0)
            }
            "kcmp" => syscall(libc::SYS_kcmp, libc::getpid(), libc::getpid(), 0, 0, 0),
            "fanotify" => syscall(libc::SYS_fanotify_init, 0x200, 0),
            "personality" => syscall(libc::SYS_personality, 0x0040_0000),
            "page-zero" => syscall(libc::SYS_personality, 0x0010_0000),
            // As a debugger does: attach, wait for the stop, look into a register and the memory, let go.
            "ptrace" => {
                *space.add(8) = 0x7f3a_91c5;
                let child = libc::fork();
                if child == 0 {
                    libc::sleep(5);
                    libc::_exit(0);
                }
                let mut result = syscall(libc::SYS_ptrace, libc::PTRACE_ATTACH, child, 0, 0);
                if result >= 0 {
                    libc::waitpid(child, std::ptr::null_mut(), 0);
                    let piece = |at: usize| libc::iovec { iov_base: space.add(at).cast(), iov_len: 8 };
                    let (local, remote) = (piece(0), piece(8));
                    result = syscall(libc::SYS_process_vm_readv, child, &raw const local, 1, &raw const remote, 1, 0);
                    assert!(result < 0 || *space == 0x7f3a_91c5, "the child's memory");
                }
                let error = *libc::__errno_location();
                libc::kill(child, libc::SIGKILL);
                *libc::__errno_location() = error;
                result
            }
            "secret-memory" => syscall(libc::SYS_memfd_secret, 0),
            // What a file's attributes are, by call 468.
            "newer" => syscall(468, AT_FDCWD, c".".as_ptr(), space, 24, 0),
            "modules" => {
                let mut size = 512u32;
                syscall(461, space, &raw mut size, 0)
            }
            #[cfg(target_arch = "x86_64")]
            "file-systems" => syscall(libc::SYS_sysfs, 3),
            "advise" => {
                let own = syscall(libc::SYS_pidfd_open, libc::getpid(), 0);
                let piece = libc::iovec { iov_base: (space as usize & !4095) as *mut _, iov_len: 4096 };
                syscall(libc::SYS_process_madvise, own, &raw const piece, 1, libc::MADV_COLD, 0)
            }
            "descriptor" => {
                let own = syscall(libc::SYS_pidfd_open, libc::getpid(), 0);
                syscall(libc::SYS_pidfd_getfd, own, 1, 0)
            }
            "move-pages" => syscall(libc::SYS_move_pages, 0, 0, 0, 0, 0, 0),
            #[cfg(target_arch = "x86_64")]
            "ldt" => syscall(libc::SYS_modify_ldt, 0, space, 8),
            #[cfg(target_arch = "x86_64")]
            "iopl" => syscall(libc::SYS_iopl, 0),
            #[cfg(target_arch = "x86_64")]
            "ioperm" => syscall(libc::SYS_ioperm, 0x80, 1, 1),
            // The calling convention of x86-64 with 32 bit pointers; number 39 is getpid.
            "x32" => syscall(0x4000_0000 + 39),
            #[cfg(target_arch = "x86_64")]
            "int80" => {
                let result: u64;
                // Number 20 of the 32 bit convention is getpid, which touches no memory.
                std::arch::asm!("int 0x80", inout("rax") 20u64 => result, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
                i64::from(result as i32)
            }
            _ => return None,
        }
    })
}
