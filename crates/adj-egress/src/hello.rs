//! Reads the first words of TLS, to see which host they are meant for.

/// A hello in all its records.
pub const MAX_HELLO_BYTES: usize = 16 * 1024;
/// The type and version of a record of the handshake.
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const ENCRYPTED_HELLO: u16 = 0xfe0d;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// As it was sent.
    pub host: Option<String>,
    /// An inner hello, which may be meant for another host, or what looks like one.
    pub is_encrypted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    #[error("the first bytes are not TLS")]
    NotTls,
    #[error("the TLS hello is longer than {MAX_HELLO_BYTES} bytes")]
    TooLong,
    #[error("the TLS hello cannot be read")]
    Malformed,
    #[error("the TLS hello names its host twice")]
    TwoNames,
}

/// Reads a hello at the beginning of `bytes`, also when it is cut into several records, and says how many bytes it took;
/// `None` while it is not whole.
pub fn read_hello(bytes: &[u8]) -> Result<Option<(Hello, usize)>, HelloError> {
    let mut message = Vec::new();
    let mut rest = bytes;
    loop {
        if let [kind, length @ ..] = message.as_slice() {
            if *kind != CLIENT_HELLO {
                return Err(HelloError::NotTls);
            }
            if let [a, b, c, body @ ..] = length {
                let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
                if length > MAX_HELLO_BYTES {
                    return Err(HelloError::TooLong);
                }
                if body.len() == length {
                    let hello = read_body(body).unwrap_or(Err(HelloError::Malformed))?;
                    return Ok(Some((hello, bytes.len() - rest.len())));
                }
                // Whatever came with the hello in one record would be read by the server, and by nobody here.
                if body.len() > length {
                    return Err(HelloError::Malformed);
                }
            }
        }
        let is_beginning = |head: &[u8]| head.iter().zip([HANDSHAKE, 3]).all(|(found, wanted)| *found == wanted);
        if !is_beginning(rest) {
            return Err(HelloError::NotTls);
        }
        if bytes.len() > MAX_HELLO_BYTES + 1024 || message.len() > MAX_HELLO_BYTES {
            return Err(HelloError::TooLong);
        }
        let [_, _, _, high, low, after @ ..] = rest else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if length == 0 || length > MAX_HELLO_BYTES {
            return Err(HelloError::NotTls);
        }
        let Some(fragment) = after.get(..length) else { return Ok(None) };
        message.extend_from_slice(fragment);
        rest = &after[length..];
    }
}

/// What the server hello's random holds when it is a request for another hello (RFC 8446, 4.1.3).
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2, 0xa2, 0x11,
    0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];
const SERVER_HELLO: u8 = 2;
const ALERT: u8 = 21;
const CHANGE_CIPHER_SPEC: u8 = 20;

/// Whether a server's first bytes ask the client for a second hello; `None` while that cannot be said.
pub fn server_retries(bytes: &[u8]) -> Result<Option<bool>, HelloError> {
    let mut rest = bytes;
    loop {
        let Some((kind, fragment, after)) = record(rest)? else {
            return if bytes.len() > MAX_HELLO_BYTES { Err(HelloError::TooLong) } else { Ok(None) };
        };
        match kind {
            // A warning may come before the hello; after a fatal one nothing does.
            ALERT if after.is_empty() && fragment.first() != Some(&1) => return Ok(Some(false)),
            ALERT => rest = after,
            HANDSHAKE => {
                // One byte of kind, three of length, two of version, and the random.
                let random = fragment.get(6..38).ok_or(HelloError::Malformed)?;
                return if fragment[0] == SERVER_HELLO {
                    Ok(Some(random == RETRY))
                } else {
                    Err(HelloError::Malformed)
                };
            }
            _ => return Err(HelloError::NotTls),
        }
    }
}

/// Reads the hello that follows a retry: behind a change of ciphers that means nothing, if there is one.
pub fn second_hello(bytes: &[u8]) -> Result<Option<Hello>, HelloError> {
    let alone = |found: Option<(Hello, usize)>| found.map(|(hello, _)| hello);
    match record(bytes)? {
        Some((CHANGE_CIPHER_SPEC, [1], after)) => read_hello(after).map(alone),
        Some((HANDSHAKE, ..)) => read_hello(bytes).map(alone),
        Some(_) => Err(HelloError::NotTls),
        None => Ok(None),
    }
}

/// Its kind, what is in it, and what follows.
type Record<'a> = (u8, &'a [u8], &'a [u8]);

/// Reads the first record.
fn record(bytes: &[u8]) -> Result<Option<Record<'_>>, HelloError> {
    let [kind, version, _, high, low, rest @ ..] = bytes else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if *version != 3 || length == 0 || length > MAX_HELLO_BYTES + 2048 {
        return Err(HelloError::NotTls);
    }
    Ok(rest.split_at_checked(length).map(|(fragment, after)| (*kind, fragment, after)))
}

type Read = Option<Result<Hello, HelloError>>;

fn read_body(body: &[u8]) -> Read {
    let mut reader = Reader(body);
    reader.take(2 + 32)?;
    reader.prefixed(1)?;
    reader.prefixed(2)?;
    reader.prefixed(1)?;
    let mut hello = Hello { host: None, is_encrypted: false };
    if reader.0.is_empty() {
        return Some(Ok(hello));
    }
    let mut extensions = Reader(reader.prefixed(2)?);
    if !reader.0.is_empty() {
        return None;
    }
    let mut has_name = false;
    while !extensions.0.is_empty() {
        let kind = extensions.number(2)?;
        let content = extensions.prefixed(2)?;
        match u16::try_from(kind).ok()? {
            SERVER_NAME if has_name => return Some(Err(HelloError::TwoNames)),
            SERVER_NAME => {
                has_name = true;
                let mut content = Reader(content);
                let mut names = Reader(content.prefixed(2)?);
                if !content.0.is_empty() || names.number(1)? != 0 {
                    return None;
                }
                let name = names.prefixed(2)?;
                if !names.0.is_empty() {
                    return Some(Err(HelloError::TwoNames));
                }
                hello.host = Some(std::str::from_utf8(name).ok()?.to_owned());
            }
            ENCRYPTED_HELLO => hello.is_encrypted = true,
            _ => {}
        }
    }
    Some(Ok(hello))
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, bytes: usize) -> Option<usize> {
        Some(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// What a length of so many bytes stands before.
    fn prefixed(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let length = self.number(bytes)?;
        self.take(length)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn prefixed(bytes: usize, content: &[u8]) -> Vec<u8> {
        let mut out = content.len().to_be_bytes()[8 - bytes..].to_vec();
        out.extend_from_slice(content);
        out
    }

    fn server_name(name: &[u8]) -> Vec<u8> {
        let entry = [&[0][..], &prefixed(2, name)].concat();
        [&[0, 0][..], &prefixed(2, &prefixed(2, &entry))].concat()
    }

    fn message(extensions: &[Vec<u8>]) -> Vec<u8> {
        let body = [
            &[3, 3][..],
            &[7; 32],
            &prefixed(1, &[1; 32]),
            &prefixed(2, &[0x13, 1]),
            &prefixed(1, &[0]),
            &prefixed(2, &extensions.concat()),
        ]
        .concat();
        [&[CLIENT_HELLO][..], &prefixed(3, &body)].concat()
    }

    fn records(message: &[u8], size: usize) -> Vec<u8> {
        message.chunks(size).flat_map(|piece| [&[HANDSHAKE, 3, 1][..], &prefixed(2, piece)].concat()).collect()
    }

    #[test]
    fn the_name_is_found_however_the_hello_is_cut() {
        let name = message(&[vec![0, 43, 0, 3, 2, 3, 4], server_name(b"a.test"), vec![0x0a, 0x0a, 0, 0]]);
        for size in [1, 3, 50, 16000] {
            let bytes = records(&name, size);
            let expected = Hello { host: Some("a.test".to_owned()), is_encrypted: false };
            let length = bytes.len();
            assert_eq!(read_hello(&bytes), Ok(Some((expected.clone(), length))), "records of {size}");
            let more = [&bytes[..], &[23, 3, 3]].concat();
            assert_eq!(read_hello(&more), Ok(Some((expected, length))), "what follows is not taken");
            for cut in 0..bytes.len() {
                assert_eq!(read_hello(&bytes[..cut]), Ok(None), "records of {size} cut at {cut}");
            }
        }
    }

    #[test]
    fn hellos_that_mean_two_things_are_refused() {
        let encrypted = [&[0xfe, 0x0d][..], &prefixed(2, &[0; 10])].concat();
        let two = {
            let entry = |name: &[u8]| [&[0][..], &prefixed(2, name)].concat();
            let list = [entry(b"a.test"), entry(b"b.test")].concat();
            [&[0, 0][..], &prefixed(2, &prefixed(2, &list))].concat()
        };
        let none = Hello { host: None, is_encrypted: false };
        let cases = [
            (records(&message(&[]), 9000), Ok(Some(none.clone()))),
            (
                records(&message(&[encrypted, server_name(b"a.test")]), 9000),
                Ok(Some(Hello { host: Some("a.test".to_owned()), is_encrypted: true })),
            ),
            (records(&message(&[server_name(b"a.test"), server_name(b"b.test")]), 9000), Err(HelloError::TwoNames)),
            (records(&message(&[two]), 9000), Err(HelloError::TwoNames)),
            (records(&message(&[server_name(&[0xff])]), 9000), Err(HelloError::Malformed)),
            (records(&message(&[vec![0, 0, 0, 9, 1]]), 9000), Err(HelloError::Malformed)),
            (records(&[message(&[]), vec![1]].concat(), 9000), Err(HelloError::Malformed)),
            (records(&[CLIENT_HELLO, 0xff, 0, 0], 9000), Err(HelloError::TooLong)),
            (records(&[2, 0, 0, 1, 0], 9000), Err(HelloError::NotTls)),
            (b"GET / HTTP/1.1\r\n".to_vec(), Err(HelloError::NotTls)),
            (b"SSH-2.0-x\r\n".to_vec(), Err(HelloError::NotTls)),
            (vec![HANDSHAKE, 3, 1, 0, 0], Err(HelloError::NotTls)),
            (vec![HANDSHAKE, 2], Err(HelloError::NotTls)),
            (vec![HANDSHAKE, 3], Ok(None)),
            (vec![], Ok(None)),
        ];
        for (bytes, expected) in cases {
            let found = read_hello(&bytes).map(|found| found.map(|(hello, _)| hello));
            assert_eq!(found, expected, "{bytes:?}");
        }
    }

    fn server_hello(random: [u8; 32]) -> Vec<u8> {
        let body = [&[3, 3][..], &random, &[0, 0x13, 1, 0]].concat();
        records(&[&[SERVER_HELLO][..], &prefixed(3, &body)].concat(), 9000)
    }

    #[test]
    fn a_retry_is_noticed_and_its_hello_read() {
        let warning = [21, 3, 3, 0, 2, 1, 112];
        let cases = [
            (server_hello([9; 32]), Ok(Some(false))),
            (server_hello(RETRY), Ok(Some(true))),
            ([&warning[..], &server_hello(RETRY)].concat(), Ok(Some(true))),
            (server_hello(RETRY)[..20].to_vec(), Ok(None)),
            (warning.to_vec(), Ok(None)),
            (vec![21, 3, 3, 0, 2, 2, 40], Ok(Some(false))),
            (vec![22, 3, 3, 0, 1, 2], Err(HelloError::Malformed)),
            (b"HTTP/1.1 400 Bad Request".to_vec(), Err(HelloError::NotTls)),
        ];
        for (bytes, expected) in cases {
            assert_eq!(server_retries(&bytes), expected, "{bytes:?}");
        }
        let hello = records(&message(&[server_name(b"b.test")]), 9000);
        let expected = Hello { host: Some("b.test".to_owned()), is_encrypted: false };
        for before in [&[][..], &[20, 3, 3, 0, 1, 1]] {
            let bytes = [before, &hello].concat();
            assert_eq!(second_hello(&bytes), Ok(Some(expected.clone())), "{before:?}");
            assert_eq!(second_hello(&bytes[..bytes.len() - 1]), Ok(None), "{before:?}");
        }
        assert_eq!(second_hello(&[23, 3, 3, 0, 1, 0]), Err(HelloError::NotTls));
    }
}
