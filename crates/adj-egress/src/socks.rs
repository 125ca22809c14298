//! Reads what a SOCKS5 client says: its greeting, and the one request it makes.

use std::net::{Ipv4Addr, Ipv6Addr};

/// A reading of the beginning of a buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed<T> {
    NeedsMore,
    /// With how many bytes it took.
    Done(T, usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SocksError {
    #[error("this is not SOCKS version 5")]
    Version,
    #[error("the client offers no way to introduce itself that is known here")]
    Method,
    #[error("the only SOCKS command here is CONNECT")]
    Command,
    #[error("the address is of an unknown kind")]
    Kind,
    #[error("the host is not text")]
    Host,
}

/// Which way of introduction was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Introduction {
    None,
    /// User and password are read and ignored: who may come here is decided by who can reach the socket.
    Password,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocksRequest {
    /// A name, or an address as text, which is refused later as every address is.
    pub host: String,
    pub port: u16,
}

pub fn parse_greeting(bytes: &[u8]) -> Result<Parsed<Introduction>, SocksError> {
    let [version, rest @ ..] = bytes else { return Ok(Parsed::NeedsMore) };
    if *version != 5 {
        return Err(SocksError::Version);
    }
    let [count, rest @ ..] = rest else { return Ok(Parsed::NeedsMore) };
    let count = usize::from(*count);
    let Some(methods) = rest.get(..count) else { return Ok(Parsed::NeedsMore) };
    let chosen = if methods.contains(&0) {
        Introduction::None
    } else if methods.contains(&2) {
        Introduction::Password
    } else {
        return Err(SocksError::Method);
    };
    Ok(Parsed::Done(chosen, 2 + count))
}

/// Reads user and password over.
pub fn parse_password(bytes: &[u8]) -> Result<Parsed<()>, SocksError> {
    if bytes.first().is_some_and(|version| *version != 1) {
        return Err(SocksError::Version);
    }
    let Some(user) = bytes.get(1) else { return Ok(Parsed::NeedsMore) };
    let at_password = 2 + usize::from(*user);
    let Some(password) = bytes.get(at_password) else { return Ok(Parsed::NeedsMore) };
    let end = at_password + 1 + usize::from(*password);
    Ok(if bytes.len() < end { Parsed::NeedsMore } else { Parsed::Done((), end) })
}

pub fn parse_request(bytes: &[u8]) -> Result<Parsed<SocksRequest>, SocksError> {
    if bytes.first().is_some_and(|version| *version != 5) {
        return Err(SocksError::Version);
    }
    let [_, command, reserved, kind, rest @ ..] = bytes else { return Ok(Parsed::NeedsMore) };
    if *command != 1 {
        return Err(SocksError::Command);
    }
    if *reserved != 0 {
        return Err(SocksError::Kind);
    }
    let (before, length) = match kind {
        1 => (0, 4),
        4 => (0, 16),
        3 => match rest.first() {
            Some(length) => (1, usize::from(*length)),
            None => return Ok(Parsed::NeedsMore),
        },
        _ => return Err(SocksError::Kind),
    };
    let Some(host) = rest.get(before..before + length) else { return Ok(Parsed::NeedsMore) };
    let Some(&[high, low]) = rest.get(before + length..before + length + 2) else { return Ok(Parsed::NeedsMore) };
    let host = match (kind, host) {
        (1, &[a, b, c, d]) => Ipv4Addr::new(a, b, c, d).to_string(),
        (4, address) => {
            let octets: [u8; 16] = address.try_into().map_err(|_| SocksError::Host)?;
            Ipv6Addr::from(octets).to_string()
        }
        (_, name) => std::str::from_utf8(name).map_err(|_| SocksError::Host)?.to_owned(),
    };
    let port = u16::from_be_bytes([high, low]);
    Ok(Parsed::Done(SocksRequest { host, port }, 4 + before + length + 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greetings_choose_the_weakest_introduction() {
        let cases = [
            (&[5, 1, 0][..], Ok(Parsed::Done(Introduction::None, 3))),
            (&[5, 2, 2, 0, 9], Ok(Parsed::Done(Introduction::None, 4))),
            (&[5, 1, 2], Ok(Parsed::Done(Introduction::Password, 3))),
            (&[5, 1, 1], Err(SocksError::Method)),
            (&[5, 0], Err(SocksError::Method)),
            (&[5, 2, 0], Ok(Parsed::NeedsMore)),
            (&[4, 1, 0], Err(SocksError::Version)),
        ];
        for (bytes, expected) in cases {
            assert_eq!(parse_greeting(bytes), expected, "{bytes:?}");
        }
        assert_eq!(parse_password(&[1, 1, b'u', 2, b'p', b'q', 5]), Ok(Parsed::Done((), 6)));
        assert_eq!(parse_password(&[1, 1, b'u', 2, b'p']), Ok(Parsed::NeedsMore));
        assert_eq!(parse_password(&[5]), Err(SocksError::Version));
    }

    #[test]
    fn requests_are_read_whole_or_not_at_all() {
        let name = |text: &[u8], port: [u8; 2]| {
            let mut bytes = vec![5, 1, 0, 3, text.len() as u8];
            bytes.extend_from_slice(text);
            bytes.extend_from_slice(&port);
            bytes
        };
        let done = |host: &str, port, length| Ok(Parsed::Done(SocksRequest { host: host.to_owned(), port }, length));
        let cases = [
            (name(b"a.test", [1, 187]), done("a.test", 443, 13)),
            (name(b"evil\0.a.test", [0, 80]), done("evil\0.a.test", 80, 19)),
            (vec![5, 1, 0, 1, 127, 0, 0, 1, 0, 80], done("127.0.0.1", 80, 10)),
            ([&[5, 1, 0, 4][..], &[0; 15], &[1, 0, 80]].concat(), done("::1", 80, 22)),
            (name(&[0xff], [0, 80]), Err(SocksError::Host)),
            (vec![5, 2, 0, 1], Err(SocksError::Command)),
            (vec![5, 3, 0, 1], Err(SocksError::Command)),
            (vec![5, 1, 0, 2], Err(SocksError::Kind)),
            (vec![4, 1, 0, 1], Err(SocksError::Version)),
        ];
        for (bytes, expected) in cases {
            assert_eq!(parse_request(&bytes), expected, "{bytes:?}");
            if expected.is_ok() {
                for cut in 0..bytes.len() {
                    assert_eq!(parse_request(&bytes[..cut]), Ok(Parsed::NeedsMore), "{bytes:?} cut at {cut}");
                }
            }
        }
    }
}
