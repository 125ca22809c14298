//! Reaching other processes, and what they share.

use std::io::{Read, Write};
use std::os::fd::FromRawFd;

use super::{broken_if, report};

pub(super) fn attack(name: &str, argument: &str, second: &str) -> bool {
    let number = |text: &str| text.parse::<i64>().expect("a number");
    let mut buffer = [0u8; 16384];
    let space = buffer.as_mut_ptr();
    // SAFETY: every pointer is to a terminated string or to more bytes than the call reads or writes.
    unsafe {
        match name {
            // Attaches without stopping; ends with this process.
            "seize" => report(libc::syscall(libc::SYS_ptrace, libc::PTRACE_SEIZE, number(argument), 0, 0)),
            "pidfd-kill" => {
                let process = libc::syscall(libc::SYS_pidfd_open, number(argument), 0);
                report(libc::syscall(libc::SYS_pidfd_send_signal, process, libc::SIGKILL, 0, 0));
            }
            "thread-kill" => {
                report(libc::syscall(libc::SYS_tgkill, number(argument), number(argument), libc::SIGKILL));
            }
            "queued-kill" => {
                let information = space.cast::<i32>();
                *information = libc::SIGKILL;
                *information.add(2) = -1;
                let result = libc::syscall(libc::SYS_rt_sigqueueinfo, number(argument), libc::SIGKILL, space);
                report(result);
            }
            // A socket's owner gets a signal of one's choice when something arrives.
            "owner-kill" => {
                let mut pair = [0i32; 2];
                libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, pair.as_mut_ptr());
                libc::fcntl(pair[0], libc::F_SETOWN, number(argument) as i32);
                libc::fcntl(pair[0], 10 /* F_SETSIG */, libc::SIGKILL);
                libc::fcntl(pair[0], libc::F_SETFL, libc::O_ASYNC | libc::O_NONBLOCK);
                report(libc::write(pair[1], c"x".as_ptr().cast(), 1) as i64);
            }
            "steal-descriptor" => {
                let process = libc::syscall(libc::SYS_pidfd_open, number(argument), 0);
                let stolen = libc::syscall(libc::SYS_pidfd_getfd, process, number(second), 0);
                if stolen >= 0 {
                    let mut file = std::fs::File::from_raw_fd(stolen as i32);
                    let _ = file.read(&mut buffer).map(|count| std::io::stdout().write_all(&buffer[..count]));
                }
            }
            "memory-call" => {
                let local = libc::iovec { iov_base: space.cast(), iov_len: 64 };
                let remote =
                    libc::iovec { iov_base: second.parse::<usize>().expect("an address") as *mut _, iov_len: 64 };
                let pid = number(argument);
                libc::syscall(libc::SYS_process_vm_readv, pid, &raw const local, 1, &raw const remote, 1, 0);
                let _ = std::io::stdout().write_all(&buffer[..64]);
            }
            "io-priority" => {
                // The idle class, for a process.
                report(libc::syscall(libc::SYS_ioprio_set, 1, number(argument), 3 << 13));
            }
            "affinity" => {
                *space = 1;
                report(libc::syscall(libc::SYS_sched_setaffinity, number(argument), 8, space));
            }
            "batch" => {
                report(libc::syscall(libc::SYS_sched_setscheduler, number(argument), libc::SCHED_BATCH, space.add(8)));
            }
            "limit" => {
                let limit = [7u64, 7];
                let pid = number(argument);
                report(libc::syscall(libc::SYS_prlimit64, pid, libc::RLIMIT_NOFILE, limit.as_ptr(), 0));
            }
            "shared-memory" => {
                let place = libc::shmat(number(argument) as i32, std::ptr::null(), libc::SHM_RDONLY);
                if place as isize != -1 {
                    let _ = std::io::stdout().write_all(std::slice::from_raw_parts(place.cast::<u8>(), 32));
                }
            }
            "message-queue" => {
                let count =
                    libc::msgrcv(number(argument) as i32, space.cast(), 64, 0, libc::IPC_NOWAIT | libc::MSG_NOERROR);
                if let Ok(count) = usize::try_from(count) {
                    let _ = std::io::stdout().write_all(&buffer[8..8 + count]);
                }
            }
            "semaphore" => {
                let mut change = libc::sembuf { sem_num: 0, sem_op: 1, sem_flg: libc::IPC_NOWAIT as i16 };
                report(libc::semop(number(argument) as i32, &raw mut change, 1) as i64);
            }
            "posix-queue" => {
                let name = std::ffi::CString::new(argument).expect("plain");
                let queue = libc::mq_open(name.as_ptr(), libc::O_RDONLY | libc::O_NONBLOCK);
                let count = libc::mq_receive(queue, space.cast(), 16384, std::ptr::null_mut());
                if let Ok(count) = usize::try_from(count) {
                    let _ = std::io::stdout().write_all(&buffer[..count]);
                }
            }
            "keyring" => {
                let word = std::ffi::CString::new(argument).expect("plain");
                let key = libc::syscall(libc::SYS_keyctl, 10 /* search */, -4, c"user".as_ptr(), word.as_ptr(), 0);
                let count = libc::syscall(libc::SYS_keyctl, 11 /* read */, key, space, 64);
                if let Ok(count @ 1..=64) = usize::try_from(count) {
                    let _ = std::io::stdout().write_all(&buffer[..count]);
                }
            }
            // Everything orphaned below us comes to us, and we ignore whoever asks us to go.
            "subreaper" => {
                libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1);
                for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGINT, libc::SIGPIPE] {
                    libc::signal(signal, libc::SIG_IGN);
                }
                if libc::fork() == 0 {
                    libc::setsid();
                    libc::prctl(libc::PR_SET_PDEATHSIG, 0);
                    if libc::fork() == 0 {
                        for descriptor in 0..3 {
                            libc::close(descriptor);
                        }
                        let name = std::ffi::CString::new(argument).expect("plain");
                        libc::execl(c"/bin/sleep".as_ptr(), name.as_ptr(), c"1000".as_ptr(), std::ptr::null::<u8>());
                    }
                    libc::_exit(0);
                }
            }
            "exchange" => {
                let [one, two] = [argument, second].map(|path| std::ffi::CString::new(path).expect("plain"));
                let here = libc::AT_FDCWD;
                report(libc::syscall(
                    libc::SYS_renameat2,
                    here,
                    one.as_ptr(),
                    here,
                    two.as_ptr(),
                    libc::RENAME_EXCHANGE,
                ));
            }
            "attribute" => {
                let [path, name] = [argument, second].map(|text| std::ffi::CString::new(text).expect("plain"));
                // A capability to make raw sockets, in the second revision of its format; other attributes take any bytes.
                let value: [u32; 5] = [0x0200_0001, 1 << 13, 0, 0, 0];
                report(libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), 20, 0) as i64);
            }
            "capabilities" => {
                let status = std::fs::read_to_string("/proc/self/status").expect("a status");
                let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("capabilities");
                broken_if(u64::from_str_radix(line.trim(), 16).expect("a number") != 0);
            }
            _ => return false,
        }
    }
    true
}
