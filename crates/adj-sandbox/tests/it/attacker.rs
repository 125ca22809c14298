//! Attacks that a shell cannot express; each prints `BROKEN` when the kernel let it through.
#![expect(unsafe_code, reason = "attacks are made of raw system calls")]
#![expect(clippy::print_stdout, reason = "an attack reports to its parent")]

use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};

/// Runs an attack and never returns when this process was started as one.
pub fn dispatch() {
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() != Some("__attack") {
        return;
    }
    let name = words.next().expect("the name of an attack");
    let argument = words.next().unwrap_or_default();
    attack(&name, &argument);
    std::process::exit(0);
}

fn attack(name: &str, argument: &str) {
    match name {
        "unix" => speak(UnixStream::connect(argument)),
        "abstract" => {
            speak(SocketAddr::from_abstract_name(argument).and_then(|address| UnixStream::connect_addr(&address)))
        }
        "datagram" => {
            let socket = UnixDatagram::unbound().expect("a socket");
            let _ = socket.send_to(b"hello", argument);
        }
        "open-write" => {
            if std::fs::OpenOptions::new().write(true).open(argument).is_ok() {
                println!("BROKEN");
            }
        }
        "open-read" => {
            if std::fs::read(argument).is_ok_and(|bytes| !bytes.is_empty()) {
                println!("BROKEN");
            }
        }
        "descriptors" => {
            for number in 0..1024 {
                let mut text = String::new();
                let path = format!("/proc/self/fd/{number}");
                if let Ok(mut file) = std::fs::File::open(path) {
                    let is_plain = file.metadata().is_ok_and(|metadata| metadata.is_file());
                    if is_plain && file.read_to_string(&mut text).is_ok() {
                        let _ = std::io::stdout().write_all(text.as_bytes());
                    }
                }
            }
        }
        "int80" => foreign_call(),
        _ => {
            let result = call(name, argument);
            if result >= 0 {
                println!("BROKEN {result}");
            } else {
                println!("errno {}", std::io::Error::last_os_error());
            }
        }
    }
}

fn speak(socket: std::io::Result<UnixStream>) {
    let mut text = String::new();
    if socket.and_then(|mut socket| socket.read_to_string(&mut text)).is_ok() {
        println!("{text}");
    }
}

#[cfg(target_arch = "x86_64")]
fn foreign_call() {
    let result: u64;
    // SAFETY: number 20 of the 32 bit convention is getpid, which touches no memory.
    unsafe {
        std::arch::asm!("int 0x80", inout("rax") 20u64 => result, out("r8") _, out("r9") _, out("r10") _, out("r11") _)
    };
    if (result as i32) > 0 {
        println!("BROKEN {result}");
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn foreign_call() {}

fn call(name: &str, argument: &str) -> i64 {
    let path = std::ffi::CString::new(argument).expect("plain");
    let path = path.as_ptr();
    let mut buffer = [0u8; 256];
    let space = buffer.as_mut_ptr();
    // SAFETY: every pointer is to a terminated string or to more zeroed bytes than the call reads or writes.
    unsafe {
        match name {
            "mount" => libc::syscall(libc::SYS_mount, c"none".as_ptr(), c"/tmp".as_ptr(), c"tmpfs".as_ptr(), 0, 0),
            "remount" => {
                let flags = libc::MS_REMOUNT | libc::MS_BIND;
                libc::syscall(libc::SYS_mount, 0, c"/usr".as_ptr(), 0, flags, 0)
            }
            "umount" => libc::syscall(libc::SYS_umount2, path, libc::MNT_DETACH),
            "fsopen" => libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), 0),
            "open_tree" => libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, c"/".as_ptr(), 1),
            "unshare-user" => libc::syscall(libc::SYS_unshare, libc::CLONE_NEWUSER),
            "unshare-net" => libc::syscall(libc::SYS_unshare, libc::CLONE_NEWNET),
            "unshare-time" => libc::syscall(libc::SYS_unshare, 0x80),
            "clone-user" => {
                let pid = libc::syscall(libc::SYS_clone, libc::CLONE_NEWUSER | libc::SIGCHLD, 0, 0, 0, 0);
                if pid == 0 {
                    libc::_exit(0);
                }
                pid
            }
            "clone3-user" => {
                let mut arguments = [0u64; 11];
                arguments[0] = libc::CLONE_NEWUSER as u64;
                arguments[4] = libc::SIGCHLD as u64;
                let pid = libc::syscall(libc::SYS_clone3, arguments.as_ptr(), size_of_val(&arguments));
                if pid == 0 {
                    libc::_exit(0);
                }
                pid
            }
            "setns" => libc::syscall(
                libc::SYS_setns,
                libc::syscall(libc::SYS_pidfd_open, libc::getppid(), 0),
                libc::CLONE_NEWNS,
            ),
            "ptrace" => {
                let child = libc::fork();
                if child == 0 {
                    libc::sleep(5);
                    libc::_exit(0);
                }
                let result = libc::syscall(libc::SYS_ptrace, libc::PTRACE_ATTACH, child, 0, 0);
                let error = *libc::__errno_location();
                libc::kill(child, libc::SIGKILL);
                *libc::__errno_location() = error;
                result
            }
            "vm-read" => {
                let local = libc::iovec { iov_base: space.cast(), iov_len: 8 };
                let remote = libc::iovec { iov_base: space.cast(), iov_len: 8 };
                let own = libc::getpid();
                libc::syscall(libc::SYS_process_vm_readv, own, &raw const local, 1, &raw const remote, 1, 0)
            }
            "io_uring" => libc::syscall(libc::SYS_io_uring_setup, 4, space),
            "bpf" => libc::syscall(libc::SYS_bpf, 0, space, 72),
            "userfaultfd" => libc::syscall(libc::SYS_userfaultfd, 1),
            "keyctl" => libc::syscall(libc::SYS_keyctl, 0, -3, 1),
            "add_key" => {
                libc::syscall(libc::SYS_add_key, c"user".as_ptr(), c"adj-attack".as_ptr(), c"x".as_ptr(), 1, -3)
            }
            "perf" => {
                let attributes = space.cast::<u32>();
                // A software clock of this process alone, the most harmless there is.
                *attributes = 1;
                *attributes.add(1) = 112;
                libc::syscall(libc::SYS_perf_event_open, space, 0, -1, -1, 0)
            }
            "kcmp" => libc::syscall(libc::SYS_kcmp, libc::getpid(), libc::getpid(), 0, 0, 0),
            "chroot" => libc::syscall(libc::SYS_chroot, c"/tmp".as_ptr()),
            "pivot_root" => libc::syscall(libc::SYS_pivot_root, c"/".as_ptr(), c"/".as_ptr()),
            "handle" => {
                *space.cast::<u32>() = 128;
                let mut mount = 0i32;
                libc::syscall(libc::SYS_name_to_handle_at, libc::AT_FDCWD, c"/".as_ptr(), space, &raw mut mount, 0)
            }
            "sethostname" => libc::syscall(libc::SYS_sethostname, c"broken".as_ptr(), 6),
            "personality" => libc::syscall(libc::SYS_personality, 0x0040_0000),
            "quotactl" => libc::syscall(libc::SYS_quotactl, 0x800007 << 8, 0, 0, space),
            "vsock" => libc::syscall(libc::SYS_socket, 40, libc::SOCK_STREAM, 0),
            "packet" => libc::syscall(libc::SYS_socket, libc::AF_PACKET, libc::SOCK_RAW, 0),
            "raw" => libc::syscall(libc::SYS_socket, libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
            "netfilter" => libc::syscall(libc::SYS_socket, libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER),
            "xfrm" => libc::syscall(libc::SYS_socket, libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_XFRM),
            "alg" => libc::syscall(libc::SYS_socket, libc::AF_ALG, libc::SOCK_SEQPACKET, 0),
            "tiocsti" => {
                let main = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY);
                libc::unlockpt(main);
                libc::ptsname_r(main, space.cast(), 128);
                libc::setsid();
                let terminal = libc::open(space.cast(), libc::O_RDWR);
                // The upper half of the argument is noise, which the kernel ignores and a filter must ignore too.
                libc::syscall(libc::SYS_ioctl, terminal, 0xdead_0000_5412u64, c"x".as_ptr())
            }
            "suid-open" => {
                libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, libc::O_CREAT | libc::O_WRONLY, 0o4755)
            }
            "suid-mknod" => libc::syscall(libc::SYS_mknodat, libc::AT_FDCWD, path, libc::S_IFREG | 0o4755, 0),
            "suid-chmod2" => libc::syscall(452, libc::AT_FDCWD, path, 0o4755, 0),
            "suid-openat2" => {
                let how = [(libc::O_CREAT | libc::O_WRONLY) as u64, 0o4755, 0];
                libc::syscall(libc::SYS_openat2, libc::AT_FDCWD, path, how.as_ptr(), 24)
            }
            "device" => {
                libc::syscall(libc::SYS_mknodat, libc::AT_FDCWD, path, libc::S_IFCHR | 0o666, libc::makedev(1, 3))
            }
            // The calling convention of x86-64 with 32 bit pointers; number 39 is getpid.
            "x32" => libc::syscall(0x4000_0000 + 39),
            other => panic!("unknown attack {other}"),
        }
    }
}
