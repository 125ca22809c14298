//! Using up what others need; `BROKEN` means that the whole of it was had.

use std::io::Write;

use super::broken_if;

pub(super) fn attack(name: &str, argument: &str, _: &str) -> bool {
    let amount = || argument.parse::<usize>().expect("a number");
    match name {
        "private-memory" => broken_if(mapped(amount() << 20, libc::MAP_PRIVATE)),
        "shared-anonymous" => broken_if(mapped(amount() << 20, libc::MAP_SHARED)),
        // The first thread ends, so that its process seems to hold nothing any more.
        "leaderless-memory" => {
            let bytes = amount() << 20;
            std::thread::spawn(move || {
                std::thread::sleep(std::time::Duration::from_millis(20));
                broken_if(mapped(bytes, libc::MAP_PRIVATE));
                let _ = std::io::stdout().flush();
                // SAFETY: ends the whole process.
                unsafe { libc::_exit(0) };
            });
            let _ = std::io::stdout().flush();
            // SAFETY: ends this thread only; nothing of it is used again.
            unsafe { libc::syscall(libc::SYS_exit, 0) };
        }
        "unmapped-file" => broken_if(memory_files(amount() << 20)),
        "segments" => broken_if(segments(amount())),
        "messages" => broken_if(messages(amount() << 20)),
        "given-back" => broken_if(given_back(amount())),
        "deleted-files" => broken_if(deleted_files(amount())),
        "descriptors-bomb" => {
            let all: Vec<_> = (0..amount()).map_while(|_| std::fs::File::open("/dev/null").ok()).collect();
            broken_if(all.len() == amount());
        }
        "processes" => broken_if(processes(amount())),
        "threads" => {
            let all: Vec<_> = (0..amount())
                .map_while(|_| {
                    let sleep = || std::thread::sleep(std::time::Duration::from_secs(1));
                    std::thread::Builder::new().stack_size(64 << 10).spawn(sleep).ok()
                })
                .collect();
            let is_all = all.len() == amount();
            std::thread::sleep(std::time::Duration::from_millis(500));
            broken_if(is_all);
        }
        _ => return false,
    }
    true
}

/// Long enough for a watcher to see it.
fn linger() {
    std::thread::sleep(std::time::Duration::from_millis(400));
}

fn mapped(bytes: usize, kind: i32) -> bool {
    // SAFETY: a fresh mapping of exactly the bytes that are then written.
    unsafe {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let place = libc::mmap(std::ptr::null_mut(), bytes, protection, kind | libc::MAP_ANONYMOUS, -1, 0);
        if place == libc::MAP_FAILED {
            return false;
        }
        std::ptr::write_bytes(place.cast::<u8>(), 1, bytes);
    }
    linger();
    true
}

/// Memory that no process has mapped: it is in nobody's resident set.
fn memory_files(bytes: usize) -> bool {
    let piece = vec![1u8; 1 << 20];
    let mut files = Vec::new();
    for _ in 0..bytes >> 20 {
        let Ok(file) = rustix::fs::memfd_create("bomb", rustix::fs::MemfdFlags::empty()) else { return false };
        let mut file = std::fs::File::from(file);
        if file.write_all(&piece).is_err() {
            return false;
        }
        files.push(file);
    }
    linger();
    true
}

/// Segments of System V shared memory, each filled and then let go, so that never more than one is in a resident set.
fn segments(count: usize) -> bool {
    let bytes = 1 << 20;
    let mut all = Vec::new();
    // SAFETY: each is fresh and has exactly the bytes that are then written.
    unsafe {
        for _ in 0..count {
            let id = libc::shmget(libc::IPC_PRIVATE, bytes, libc::IPC_CREAT | 0o600);
            let place = libc::shmat(id, std::ptr::null(), 0);
            if id < 0 || place as isize == -1 {
                break;
            }
            std::ptr::write_bytes(place.cast::<u8>(), 1, bytes);
            libc::shmdt(place);
            all.push(id);
        }
        linger();
        for id in &all {
            libc::shmctl(*id, libc::IPC_RMID, std::ptr::null_mut());
        }
    }
    all.len() == count
}

/// Messages that nobody takes.
fn messages(bytes: usize) -> bool {
    const LENGTH: usize = 8192;
    #[repr(C)]
    struct Message {
        kind: libc::c_long,
        text: [u8; LENGTH],
    }
    let message = Message { kind: 1, text: [1; LENGTH] };
    let (mut sent, mut queues) = (0, Vec::new());
    // SAFETY: a message is a number above zero and as many bytes as are said.
    unsafe {
        while sent < bytes {
            let queue = libc::msgget(libc::IPC_PRIVATE, libc::IPC_CREAT | 0o600);
            if queue < 0 {
                break;
            }
            queues.push(queue);
            while libc::msgsnd(queue, (&raw const message).cast(), LENGTH, libc::IPC_NOWAIT) == 0 {
                sent += LENGTH;
            }
        }
        // There are thousands of them, so it takes a watcher some time.
        std::thread::sleep(std::time::Duration::from_millis(2500));
        for queue in queues {
            libc::msgctl(queue, libc::IPC_RMID, std::ptr::null_mut());
        }
    }
    sent >= bytes
}

/// Shared mappings of 16 MiB, filled, and given back but for a page each, which keeps the whole.
fn given_back(count: usize) -> bool {
    const BYTES: usize = 16 << 20;
    const PAGE: usize = 64 << 10;
    let mut is_all = true;
    for _ in 0..count {
        // SAFETY: a fresh mapping of exactly the bytes that are then written; the part that goes is used by nobody.
        unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let kind = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
            let place = libc::mmap(std::ptr::null_mut(), BYTES, protection, kind, -1, 0);
            is_all &= place != libc::MAP_FAILED;
            if is_all {
                std::ptr::write_bytes(place.cast::<u8>(), 1, BYTES);
                libc::munmap(place.byte_add(PAGE), BYTES - PAGE);
            }
        }
    }
    linger();
    is_all
}

/// Files of a megabyte whose names are gone while they are open.
fn deleted_files(count: usize) -> bool {
    let piece = vec![1u8; 1 << 20];
    let mut files = Vec::new();
    for number in 0..count {
        let name = format!("deleted{number}");
        let Ok(mut file) = std::fs::File::create(&name) else { return false };
        let is_written = file.write_all(&piece).is_ok();
        let _ = std::fs::remove_file(&name);
        if !is_written {
            return false;
        }
        files.push(file);
    }
    // Others may free space meanwhile, and then it takes a watcher longer.
    std::thread::sleep(std::time::Duration::from_secs(6));
    files.len() == count
}

/// So many children at once, which all end with this process at the latest.
fn processes(count: usize) -> bool {
    let mut all = Vec::new();
    // SAFETY: this process has one thread; a child only sleeps and ends.
    unsafe {
        for _ in 0..count {
            match libc::fork() {
                0 => {
                    libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                    libc::sleep(5);
                    libc::_exit(0);
                }
                -1 => break,
                child => all.push(child),
            }
        }
        linger();
        for child in &all {
            libc::kill(*child, libc::SIGKILL);
        }
    }
    all.len() == count
}
