//! Takes the bodies of HTTP/1 messages out of their framing, piece by piece.

use crate::head::Framing;
use bytes::{Bytes, BytesMut};

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error("a chunk of the body has no good size")]
    ChunkSize,
    #[error("a chunk of the body does not end where it says")]
    ChunkEnd,
    #[error("what follows the last chunk is too long or no header")]
    Trailer,
    #[error("the body ended early")]
    EndedEarly,
}

/// What the bytes that are there make.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    Data(Bytes),
    NeedsMore,
    Done,
}

#[derive(Debug)]
pub struct BodyDecoder(State);

#[derive(Debug)]
enum State {
    Rest(u64),
    UntilClose,
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailer { read: usize },
    Done,
}

const MAX_SIZE_LINE: usize = 256;
const MAX_TRAILER_BYTES: usize = 8 * 1024;

impl BodyDecoder {
    pub fn new(framing: Framing) -> Self {
        Self(match framing {
            Framing::Empty | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Rest(length),
            Framing::Chunked => State::ChunkSize,
            Framing::UntilClose => State::UntilClose,
        })
    }

    pub fn is_done(&self) -> bool {
        matches!(self.0, State::Done)
    }

    /// Takes the next piece of the body out of `buffer`.
    pub fn step(&mut self, buffer: &mut BytesMut) -> Result<Step, BodyError> {
        loop {
            match &mut self.0 {
                State::Done => return Ok(Step::Done),
                _ if buffer.is_empty() => return Ok(Step::NeedsMore),
                State::UntilClose => return Ok(Step::Data(buffer.split().freeze())),
                State::Rest(left) | State::Chunk(left) => {
                    let take = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
                    *left -= take as u64;
                    if *left == 0 {
                        self.0 = if matches!(self.0, State::Rest(_)) { State::Done } else { State::ChunkEnd };
                    }
                    return Ok(Step::Data(buffer.split_to(take).freeze()));
                }
                State::ChunkEnd => match buffer.as_ref() {
                    [b'\r', b'\n', ..] => {
                        let _ = buffer.split_to(2);
                        self.0 = State::ChunkSize;
                    }
                    [b'\r'] => return Ok(Step::NeedsMore),
                    _ => return Err(BodyError::ChunkEnd),
                },
                State::ChunkSize => {
                    let Some(line) = take_line(buffer, MAX_SIZE_LINE, BodyError::ChunkSize)? else {
                        return Ok(Step::NeedsMore);
                    };
                    self.0 = match chunk_size(&line)? {
                        0 => State::Trailer { read: 0 },
                        size => State::Chunk(size),
                    };
                }
                State::Trailer { read } => {
                    let Some(line) = take_line(buffer, MAX_TRAILER_BYTES - *read, BodyError::Trailer)? else {
                        return Ok(Step::NeedsMore);
                    };
                    // Trailers are dropped: who reads them after the fact might take them for headers.
                    *read = (*read + line.len() + 2).min(MAX_TRAILER_BYTES);
                    if line.is_empty() {
                        self.0 = State::Done;
                    } else if memchr::memchr(b':', &line).is_none_or(|colon| colon == 0) {
                        return Err(BodyError::Trailer);
                    }
                }
            }
        }
    }

    /// Says that nothing more will come.
    pub fn end(&mut self) -> Result<(), BodyError> {
        match self.0 {
            State::Done | State::UntilClose => {
                self.0 = State::Done;
                Ok(())
            }
            _ => Err(BodyError::EndedEarly),
        }
    }
}

/// Takes one line without its CR LF.
fn take_line(buffer: &mut BytesMut, most: usize, error: BodyError) -> Result<Option<BytesMut>, BodyError> {
    let window = &buffer[..buffer.len().min(most)];
    let Some(end) = memchr::memchr(b'\n', window) else {
        return if buffer.len() >= most { Err(error) } else { Ok(None) };
    };
    let mut line = buffer.split_to(end + 1);
    if !line.ends_with(b"\r\n") {
        return Err(error);
    }
    line.truncate(end - 1);
    if line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') { Err(error) } else { Ok(Some(line)) }
}

/// Reads the size of a chunk. Extensions are dropped: the body is framed anew for whoever gets it.
fn chunk_size(line: &[u8]) -> Result<u64, BodyError> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii_end();
    let is_size = (1..=15).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
    let text = is_size.then(|| std::str::from_utf8(digits).ok()).flatten().ok_or(BodyError::ChunkSize)?;
    u64::from_str_radix(text, 16).map_err(|_| BodyError::ChunkSize)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes in pieces of a size; gives the body and what is left over.
    fn decode(framing: Framing, bytes: &[u8], piece: usize) -> Result<(Vec<u8>, Vec<u8>), BodyError> {
        let mut decoder = BodyDecoder::new(framing);
        let mut buffer = BytesMut::new();
        let mut body = Vec::new();
        for piece in bytes.chunks(piece) {
            buffer.extend_from_slice(piece);
            while let Step::Data(data) = decoder.step(&mut buffer)? {
                body.extend_from_slice(&data);
            }
        }
        decoder.end()?;
        Ok((body, buffer.to_vec()))
    }

    #[test]
    fn bodies_end_where_their_framing_says() {
        let chunked = Framing::Chunked;
        let cases = [
            (Framing::Empty, "GET", Ok(("", "GET"))),
            (Framing::Length(3), "abcGET", Ok(("abc", "GET"))),
            (Framing::Length(3), "ab", Err(BodyError::EndedEarly)),
            (Framing::UntilClose, "abc", Ok(("abc", ""))),
            (chunked, "3\r\nabc\r\n0\r\n\r\nGET", Ok(("abc", "GET"))),
            (chunked, "3;ext=1\r\nabc\r\nA \r\n0123456789\r\n0\r\nX: y\r\n\r\n", Ok(("abc0123456789", ""))),
            (chunked, "3\r\nabcd\r\n0\r\n\r\n", Err(BodyError::ChunkEnd)),
            (chunked, "3\nabc\r\n0\r\n\r\n", Err(BodyError::ChunkSize)),
            (chunked, "3\r\nabc\n0\r\n\r\n", Err(BodyError::ChunkEnd)),
            (chunked, "0x3\r\nabc\r\n0\r\n\r\n", Err(BodyError::ChunkSize)),
            (chunked, "-3\r\nabc\r\n0\r\n\r\n", Err(BodyError::ChunkSize)),
            (chunked, "+3\r\nabc\r\n0\r\n\r\n", Err(BodyError::ChunkSize)),
            (chunked, " 3\r\nabc\r\n0\r\n\r\n", Err(BodyError::ChunkSize)),
            (chunked, "\r\nabc", Err(BodyError::ChunkSize)),
            (chunked, "ffffffffffffffff\r\n", Err(BodyError::ChunkSize)),
            (chunked, "3\r\nabc\r\n", Err(BodyError::EndedEarly)),
            (chunked, "0\r\nnot a header\r\n\r\n", Err(BodyError::Trailer)),
            (chunked, "3;a\rb\r\nabc\r\n0\r\n\r\n", Err(BodyError::ChunkSize)),
        ];
        for (framing, text, expected) in cases {
            let expected = expected.map(|(body, left)| (body.as_bytes().to_vec(), left.as_bytes().to_vec()));
            for piece in [1, 2, 3, 1000] {
                assert_eq!(decode(framing, text.as_bytes(), piece), expected, "{text:?} in pieces of {piece}");
            }
        }
        let long = format!("0\r\n{}\r\n", "a: b\r\n".repeat(2000));
        assert_eq!(decode(chunked, long.as_bytes(), 100), Err(BodyError::Trailer));
        assert_eq!(decode(chunked, "1".repeat(300).as_bytes(), 100), Err(BodyError::ChunkSize));
    }
}
