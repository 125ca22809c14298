//! Reaching somebody who listens outside.

use std::io::Read;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};

use super::report;

pub(super) fn attack(name: &str, argument: &str, second: &str) -> bool {
    match name {
        "unix" => speak(UnixStream::connect(argument)),
        "abstract" => {
            speak(SocketAddr::from_abstract_name(argument).and_then(|address| UnixStream::connect_addr(&address)))
        }
        "datagram" => {
            let socket = UnixDatagram::unbound().expect("a socket");
            let _ = socket.send_to(b"hello", argument);
        }
        "abstract-datagram" => {
            let socket = UnixDatagram::unbound().expect("a socket");
            let _ =
                SocketAddr::from_abstract_name(argument).and_then(|address| socket.send_to_addr(b"hello", &address));
        }
        "message" => message(argument),
        "fast-open" => stream(argument.parse().expect("a port"), libc::IPPROTO_TCP, true),
        "multipath" => stream(argument.parse().expect("a port"), libc::IPPROTO_MPTCP, false),
        "family" => {
            let number = |text: &str| text.parse::<i64>().expect("a number");
            let (family, (kind, protocol)) = (number(argument), second.split_once('/').expect("type/protocol"));
            // SAFETY: only numbers.
            report(unsafe { libc::syscall(libc::SYS_socket, family, number(kind), number(protocol)) });
        }
        "option" => option(argument.parse().expect("a level"), second.parse().expect("an option")),
        "filter" => filter(),
        _ => return false,
    }
    true
}

/// Sets an option to nonsense: what counts is whether the kernel went on to look at it.
fn option(level: i32, option: i32) {
    let kind = if level == libc::IPPROTO_UDP { libc::SOCK_DGRAM } else { libc::SOCK_STREAM };
    // SAFETY: the value is longer lived than the call and as long as said.
    unsafe {
        let socket = libc::socket(libc::AF_INET, kind, 0);
        let result = libc::setsockopt(socket, level, option, c"none".as_ptr().cast(), 4);
        report(super::calls::reached(result.into()));
    }
}

/// A program for the kernel that lets nothing through.
fn filter() {
    let mut program = [libc::sock_filter { code: 6, jt: 0, jf: 0, k: 0 }];
    let program = libc::sock_fprog { len: 1, filter: program.as_mut_ptr() };
    // SAFETY: the program is longer lived than the call and as long as said.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
        let (option, length) = (libc::SO_ATTACH_FILTER, size_of_val(&program) as u32);
        report(libc::setsockopt(socket, libc::SOL_SOCKET, option, (&raw const program).cast(), length).into());
    }
}

fn speak(socket: std::io::Result<UnixStream>) {
    let mut text = String::new();
    if socket.and_then(|mut socket| socket.read_to_string(&mut text)).is_ok() {
        println!("{text}");
    }
}

/// A datagram whose address is in a message header: neither `connect` nor `sendto` sees it.
fn message(path: &str) {
    // SAFETY: the header points to the address and the bytes above it, both longer lived than the call.
    unsafe {
        let socket = libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM, 0);
        let mut address: libc::sockaddr_un = std::mem::zeroed();
        address.sun_family = libc::AF_UNIX as u16;
        for (place, byte) in address.sun_path.iter_mut().zip(path.bytes()) {
            *place = byte as libc::c_char;
        }
        let mut bytes = libc::iovec { iov_base: c"hello".as_ptr().cast_mut().cast(), iov_len: 5 };
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_name = (&raw mut address).cast();
        header.msg_namelen = size_of::<libc::sockaddr_un>() as u32;
        header.msg_iov = &raw mut bytes;
        header.msg_iovlen = 1;
        report(libc::sendmsg(socket, &raw const header, 0) as i64);
    }
}

/// What the server at a port of the loopback says, reached by a kind of stream that is not plain TCP.
fn stream(port: u16, protocol: i32, is_fast: bool) {
    // SAFETY: address and buffer are longer lived than the calls that use them, and their lengths are right.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_STREAM, protocol);
        let address = libc::sockaddr_in {
            sin_family: libc::AF_INET as u16,
            sin_port: port.to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes([127, 0, 0, 1]) },
            sin_zero: [0; 8],
        };
        let (address, length) = ((&raw const address).cast(), size_of::<libc::sockaddr_in>() as u32);
        let sent = if is_fast {
            libc::sendto(socket, c"x".as_ptr().cast(), 1, libc::MSG_FASTOPEN, address, length)
        } else {
            libc::connect(socket, address, length) as isize
        };
        let mut buffer = [0u8; 64];
        let count = if sent < 0 { -1 } else { libc::recv(socket, buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        match usize::try_from(count) {
            Ok(count) => println!("{}", String::from_utf8_lossy(&buffer[..count])),
            Err(_) => println!("errno {}", std::io::Error::last_os_error()),
        }
    }
}
