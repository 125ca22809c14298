//! Attacks that a shell cannot express; each says `tried`, and prints `BROKEN` when the kernel let it through.
#![expect(unsafe_code, reason = "attacks are made of raw system calls")]
#![expect(clippy::print_stdout, reason = "an attack reports to its parent")]

mod bombs;
mod calls;
mod neighbours;
mod sockets;

use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};

/// A variable of the environment that no sandbox may see.
pub const KEY_VARIABLE: &str = "SERVICE_API_KEY";

/// Runs an attack and never returns when this process was started as one.
pub fn dispatch() {
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() != Some("__attack") {
        // SAFETY: this runs before `main`, so there is no other thread.
        unsafe { std::env::set_var(KEY_VARIABLE, crate::stage::CANARY) };
        return;
    }
    let name = words.next().expect("the name of an attack");
    let arguments: Vec<String> = words.collect();
    println!("tried");
    attack(&name, &arguments);
    std::process::exit(0);
}

fn attack(name: &str, arguments: &[String]) {
    let argument = arguments.first().map_or("", String::as_str);
    let second = arguments.get(1).map_or("", String::as_str);
    let is_done = files(name, argument, second)
        || sockets::attack(name, argument, second)
        || neighbours::attack(name, argument, second)
        || bombs::attack(name, argument, second);
    if !is_done {
        report(calls::call(name, argument));
    }
}

/// Says what the kernel answered.
fn report(result: i64) {
    if result >= 0 {
        println!("BROKEN {result}");
    } else {
        println!("errno {}", std::io::Error::last_os_error());
    }
}

fn broken_if(is_broken: bool) {
    if is_broken {
        println!("BROKEN");
    }
}

fn files(name: &str, argument: &str, second: &str) -> bool {
    match name {
        "open-write" => broken_if(std::fs::OpenOptions::new().write(true).open(argument).is_ok()),
        "open-read" => {
            // Some files of the kernel's give whole words only.
            let mut word = [0u8; 8];
            let file = std::fs::File::open(argument);
            broken_if(file.and_then(|mut file| file.read(&mut word)).is_ok_and(|count| count > 0));
        }
        "open-only" => broken_if(std::fs::File::open(argument).is_ok()),
        // The first block of the disk that a path lies on, through a device node made for it.
        "disk" => {
            let device = std::fs::metadata("/usr").expect("/usr").dev();
            let path = std::ffi::CString::new(argument).expect("plain");
            // SAFETY: the path is a terminated string.
            let made = unsafe { libc::mknod(path.as_ptr(), libc::S_IFBLK | 0o600, device) };
            let mut block = [0u8; 512];
            let read = std::fs::File::open(argument).and_then(|disk| disk.read_exact_at(&mut block, 0));
            let _ = std::fs::remove_file(argument);
            broken_if(made == 0 && read.is_ok());
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
        // What lies at an address in the memory of another process, through its file.
        "memory-file" => {
            let mut bytes = [0u8; 64];
            let file = std::fs::File::open(format!("/proc/{argument}/mem"));
            let read = file.and_then(|mut file| {
                file.seek(SeekFrom::Start(second.parse().expect("an address")))?;
                file.read(&mut bytes)
            });
            if let Ok(count) = read {
                let _ = std::io::stdout().write_all(&bytes[..count]);
            }
        }
        _ => return false,
    }
    true
}
