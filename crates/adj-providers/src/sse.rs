//! Server-sent events: bytes, cut anywhere, become frames.

use crate::ProviderError;

/// The largest event that is taken in; the last event of a Responses stream repeats the whole answer.
pub const MAX_EVENT_BYTES: usize = 4 * 1024 * 1024;

/// How much of what is no event is kept.
const MAX_STRAY_BYTES: usize = 64 * 1024;

/// One event as it stood on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Empty where the vendor names no event.
    pub event: String,
    pub data: String,
}

/// Splits a stream into frames; holds at most one event, and the beginning of what is none.
#[derive(Debug, Default)]
pub struct FrameParser {
    line: Vec<u8>,
    event: String,
    data: Vec<u8>,
    has_data: bool,
    stray: Vec<u8>,
    after_carriage_return: bool,
    past_first_line: bool,
}

impl FrameParser {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes in and hands each frame that they complete to `on_frame`; stops at its first error.
    pub fn push(
        &mut self,
        mut bytes: &[u8],
        mut on_frame: impl FnMut(Frame) -> Result<(), ProviderError>,
    ) -> Result<(), ProviderError> {
        if self.after_carriage_return && !bytes.is_empty() {
            self.after_carriage_return = false;
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        while let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.hold(&bytes[..end])?;
            let was_carriage_return = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            if was_carriage_return {
                match bytes {
                    [b'\n', rest @ ..] => bytes = rest,
                    [] => self.after_carriage_return = true,
                    _ => {}
                }
            }
            if let Some(frame) = self.end_line()? {
                on_frame(frame)?;
            }
        }
        self.hold(bytes)
    }

    fn hold(&mut self, bytes: &[u8]) -> Result<(), ProviderError> {
        if self.line.len() + self.data.len() + bytes.len() > MAX_EVENT_BYTES {
            return Err(ProviderError::protocol(format!(
                "an event of the vendor's stream is larger than {MAX_EVENT_BYTES} bytes"
            )));
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self) -> Result<Option<Frame>, ProviderError> {
        let line = std::mem::take(&mut self.line);
        let line = match line.strip_prefix(b"\xEF\xBB\xBF") {
            Some(rest) if !self.past_first_line => rest,
            _ => &line,
        };
        self.past_first_line = true;
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            let data = std::mem::take(&mut self.data);
            if !std::mem::take(&mut self.has_data) {
                return Ok(None);
            }
            let data = String::from_utf8(data)
                .map_err(|_| ProviderError::protocol("an event of the vendor's stream is not UTF-8"))?;
            return Ok(Some(Frame { event, data }));
        }
        let (field, value) = match line.iter().position(|byte| *byte == b':') {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &line[line.len()..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"event" => {
                // Names of events are short; a longer one is none that a wire here knows.
                self.event = String::from_utf8_lossy(&value[..value.len().min(200)]).into_owned();
            }
            b"data" => {
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.has_data = true;
                self.data.extend_from_slice(value);
            }
            // Comments, ids and reconnection times mean nothing here.
            b"" | b"id" | b"retry" => {}
            _ => {
                let room = MAX_STRAY_BYTES.saturating_sub(self.stray.len());
                self.stray.extend(line.iter().chain(b"\n").take(room));
            }
        }
        Ok(None)
    }

    /// Whether the stream stands between two events.
    pub fn is_between_events(&self) -> bool {
        self.line.is_empty() && !self.has_data
    }

    /// Returns the lines that belong to no event, as far as they are kept. They mean nothing in a proper stream, but a
    /// server that fails may write its error into the stream just as it is.
    pub fn stray(&self) -> Vec<u8> {
        [self.stray.as_slice(), &self.line].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(chunks: &[&[u8]]) -> Result<Vec<(String, String)>, ProviderError> {
        let mut parser = FrameParser::new();
        let mut frames = Vec::new();
        for chunk in chunks {
            parser.push(chunk, |frame| {
                frames.push((frame.event, frame.data));
                Ok(())
            })?;
        }
        Ok(frames)
    }

    #[test]
    fn frames_are_found_in_every_notation_and_at_every_split() {
        let cases: [(&str, &[(&str, &str)]); 8] = [
            ("data: a\n\n", &[("", "a")]),
            ("event: x\r\ndata: a\r\n\r\n", &[("x", "a")]),
            ("event:x\rdata:a\r\rdata:b\r\r", &[("x", "a"), ("", "b")]),
            ("\u{feff}data: a\ndata: é\n\n", &[("", "a\né")]),
            (": hello\n\nid: 3\nretry: 5\nevent: only\n\ndata\n\n", &[("", "")]),
            ("data:  two spaces\nunknown: x\n\n", &[("", " two spaces")]),
            ("data: not ended\n", &[]),
            ("data: a\n\n\n\n\ndata: b\n\n", &[("", "a"), ("", "b")]),
        ];
        for (text, expected) in cases {
            let expected =
                expected.iter().map(|(event, data)| ((*event).to_owned(), (*data).to_owned())).collect::<Vec<_>>();
            let bytes = text.as_bytes();
            for split in 0..=bytes.len() {
                let (head, tail) = bytes.split_at(split);
                assert_eq!(frames(&[head, tail]), Ok(expected.clone()), "{text:?} at {split}");
            }
            let single = bytes.chunks(1).collect::<Vec<_>>();
            assert_eq!(frames(&single), Ok(expected), "{text:?} byte by byte");
        }
    }

    #[test]
    fn an_event_has_a_largest_size_and_is_utf8() {
        let line = vec![b'x'; 1024 * 1024];
        let mut parser = FrameParser::new();
        let mut taken = 0;
        let error = loop {
            match parser.push(&line, |_| Ok(())) {
                Ok(()) => taken += line.len(),
                Err(error) => break error,
            }
        };
        assert!(taken <= MAX_EVENT_BYTES && error.message.contains("larger than"), "{error}");
        // The same, as many lines of one event.
        let mut parser = FrameParser::new();
        let many = b"data: 0123456789\n".repeat(1 << 16);
        assert!((0..20).any(|_| parser.push(&many, |_| Ok(())).is_err()));
        let error = frames(&[b"data: \xFF\n\n"]).unwrap_err();
        assert!(error.message.contains("not UTF-8"), "{error}");
    }

    #[test]
    fn what_is_no_event_is_kept_as_far_as_it_is_of_use() {
        let mut parser = FrameParser::new();
        let mut count = 0;
        let stream = b": hello\ndata: a\r\n\r\n{\r\n  \"error\": 7\r\n}\n\nid: 1\nrest";
        for chunk in stream.chunks(3) {
            let counted = parser.push(chunk, |_| {
                count += 1;
                Ok(())
            });
            counted.expect("nothing is too large");
        }
        assert_eq!(count, 1);
        assert_eq!(String::from_utf8_lossy(&parser.stray()), "{\n  \"error\": 7\n}\nrest");
        let many = b"<html>\n".repeat(1 << 16);
        parser.push(&many, |_| Ok(())).expect("no line is too large");
        assert_eq!(parser.stray().len(), MAX_STRAY_BYTES);
    }
}
