//! Reads the heads of HTTP/1 messages, more strictly than those on either side might.
//!
//! What two readers could understand differently is refused, so that nobody behind us sees another request than we did.

/// A head with all its lines.
pub const MAX_HEAD_BYTES: usize = 64 * 1024;
const MAX_HEADERS: usize = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    #[error("the head is longer than {MAX_HEAD_BYTES} bytes")]
    TooLong,
    #[error("the head has more than {MAX_HEADERS} headers")]
    TooManyHeaders,
    #[error("a line of the head does not end in CR LF")]
    LineEnd,
    #[error("the first line is not one of HTTP/1")]
    StartLine,
    #[error("a header is not NAME: VALUE, or continues on the next line")]
    Header,
    #[error("the head holds a control character")]
    Control,
    #[error("the message has more than one header {0}")]
    Twice(&'static str),
    #[error("Content-Length is not one number")]
    Length,
    #[error("Transfer-Encoding is anything but chunked")]
    Encoding,
    #[error("the message has both a Content-Length and a Transfer-Encoding")]
    TwoFramings,
    #[error("Connection names a header that is not its to remove")]
    Connection,
}

/// Where a message's body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Empty,
    Length(u64),
    Chunked,
    /// Where the connection ends; only answers.
    UntilClose,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub name: String,
    pub value: Vec<u8>,
}

/// In the order in which they came, names as they were spelled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Headers(pub Vec<Header>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    pub method: String,
    /// Visible ASCII.
    pub target: String,
    /// HTTP/1.1, not 1.0.
    pub is_new: bool,
    pub headers: Headers,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseHead {
    pub status: u16,
    pub reason: Vec<u8>,
    pub is_new: bool,
    pub headers: Headers,
}

/// Finds how many bytes at the beginning are a head; `None` while its end has not come.
pub fn head_end(bytes: &[u8]) -> Result<Option<usize>, HeadError> {
    let mut start_of_line = 0;
    for end in memchr::memchr_iter(b'\n', &bytes[..bytes.len().min(MAX_HEAD_BYTES)]) {
        match end - start_of_line {
            0 => return Err(HeadError::LineEnd),
            1 if bytes[end - 1] == b'\r' => return Ok(Some(end + 1)),
            _ if bytes[end - 1] != b'\r' => return Err(HeadError::LineEnd),
            _ => start_of_line = end + 1,
        }
    }
    if bytes.len() >= MAX_HEAD_BYTES { Err(HeadError::TooLong) } else { Ok(None) }
}

impl RequestHead {
    /// `bytes` as [`head_end`] measured them.
    pub fn parse(bytes: &[u8]) -> Result<Self, HeadError> {
        let (first, headers) = lines(bytes)?;
        let mut words = first.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(HeadError::StartLine);
        };
        if !is_token(method) || method.len() > 32 || target.is_empty() || !target.iter().all(u8::is_ascii_graphic) {
            return Err(HeadError::StartLine);
        }
        Ok(Self { method: ascii(method), target: ascii(target), is_new: version_is_new(version)?, headers })
    }

    pub fn body(&self) -> Result<Framing, HeadError> {
        match self.headers.framing()? {
            // A version that does not know chunks might take them for the body.
            Some(Framing::Chunked) if !self.is_new => Err(HeadError::Encoding),
            framing => Ok(framing.unwrap_or(Framing::Empty)),
        }
    }
}

impl ResponseHead {
    pub fn parse(bytes: &[u8]) -> Result<Self, HeadError> {
        let (first, headers) = lines(bytes)?;
        let mut words = first.splitn(3, |byte| *byte == b' ');
        let (Some(version), Some(status)) = (words.next(), words.next()) else { return Err(HeadError::StartLine) };
        let reason = words.next().unwrap_or_default().to_vec();
        let status = match status {
            [b'1'..=b'5', b'0'..=b'9', b'0'..=b'9'] => ascii(status).parse().map_err(|_| HeadError::StartLine)?,
            _ => return Err(HeadError::StartLine),
        };
        Ok(Self { status, reason, is_new: version_is_new(version)?, headers })
    }

    pub fn body(&self, method: &str) -> Result<Framing, HeadError> {
        let framing = match self.headers.framing()? {
            Some(Framing::Chunked) if !self.is_new => return Err(HeadError::Encoding),
            framing => framing,
        };
        if method == "HEAD" || matches!(self.status, 100..=199 | 204 | 304) {
            return Ok(Framing::Empty);
        }
        Ok(framing.unwrap_or(Framing::UntilClose))
    }
}

impl Headers {
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.0.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value.as_slice())
    }

    pub fn has(&self, name: &str) -> bool {
        self.all(name).next().is_some()
    }

    /// The value of a header that may stand there once at most.
    pub fn only(&self, name: &'static str) -> Result<Option<&[u8]>, HeadError> {
        let mut values = self.all(name);
        let first = values.next();
        let is_alone = values.next().is_none();
        if is_alone { Ok(first) } else { Err(HeadError::Twice(name)) }
    }

    pub fn push(&mut self, name: &str, value: impl Into<Vec<u8>>) {
        self.0.push(Header { name: name.to_owned(), value: value.into() });
    }

    pub fn remove(&mut self, name: &str) {
        self.0.retain(|header| !header.name.eq_ignore_ascii_case(name));
    }

    fn framing(&self) -> Result<Option<Framing>, HeadError> {
        let length = self.only("Content-Length")?;
        match (self.only("Transfer-Encoding")?, length) {
            (Some(_), Some(_)) => Err(HeadError::TwoFramings),
            (Some(encoding), None) if encoding.eq_ignore_ascii_case(b"chunked") => Ok(Some(Framing::Chunked)),
            (Some(_), None) => Err(HeadError::Encoding),
            (None, Some(length)) => {
                let is_number = (1..=18).contains(&length.len()) && length.iter().all(u8::is_ascii_digit);
                let number = is_number.then(|| ascii(length).parse().ok()).flatten();
                Ok(Some(Framing::Length(number.ok_or(HeadError::Length)?)))
            }
            (None, None) => Ok(None),
        }
    }

    /// Whether `Connection` holds this word.
    pub fn connection_says(&self, word: &str) -> bool {
        self.connection_words().any(|known| known.eq_ignore_ascii_case(word.as_bytes()))
    }

    fn connection_words(&self) -> impl Iterator<Item = &[u8]> {
        let lists = self.all("Connection").chain(self.all("Proxy-Connection"));
        lists.flat_map(|list| list.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii).filter(|word| !word.is_empty())
    }

    /// Removes what is meant for one connection only, the framing included.
    pub fn strip_hop_by_hop(&mut self) -> Result<(), HeadError> {
        let named: Vec<String> = self.connection_words().map(|word| ascii(word).to_ascii_lowercase()).collect();
        for name in &named {
            if matches!(name.as_str(), "host" | "content-length" | "transfer-encoding" | "authorization" | "cookie") {
                return Err(HeadError::Connection);
            }
        }
        const HOP_BY_HOP: [&str; 10] = [
            "connection",
            "content-length",
            "keep-alive",
            "proxy-authenticate",
            "proxy-authorization",
            "proxy-connection",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
        ];
        self.0.retain(|header| {
            let name = header.name.to_ascii_lowercase();
            !HOP_BY_HOP.contains(&name.as_str()) && !named.contains(&name)
        });
        Ok(())
    }

    pub fn write_to(&self, head: &mut Vec<u8>) {
        for header in &self.0 {
            head.extend_from_slice(header.name.as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(&header.value);
            head.extend_from_slice(b"\r\n");
        }
    }
}

/// Cuts a head into its first line and its headers.
fn lines(bytes: &[u8]) -> Result<(&[u8], Headers), HeadError> {
    let text = bytes.strip_suffix(b"\r\n\r\n").ok_or(HeadError::LineEnd)?;
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(end) = memchr::memchr(b'\n', rest) {
        lines.push(rest[..end].strip_suffix(b"\r").ok_or(HeadError::LineEnd)?);
        rest = &rest[end + 1..];
        if lines.len() > MAX_HEADERS {
            return Err(HeadError::TooManyHeaders);
        }
    }
    lines.push(rest);
    // CR, LF and NUL are among them: none may stand within a line.
    if lines.iter().any(|line| line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t')) {
        return Err(HeadError::Control);
    }
    let mut headers = Headers::default();
    for line in &lines[1..] {
        // A line that begins with a space or has one before its colon has no token there.
        let colon = memchr::memchr(b':', line).ok_or(HeadError::Header)?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if !is_token(name) {
            return Err(HeadError::Header);
        }
        headers.push(&ascii(name), value.trim_ascii());
    }
    Ok((lines[0], headers))
}

fn version_is_new(version: &[u8]) -> Result<bool, HeadError> {
    match version {
        b"HTTP/1.1" => Ok(true),
        b"HTTP/1.0" => Ok(false),
        _ => Err(HeadError::StartLine),
    }
}

fn is_token(text: &[u8]) -> bool {
    let is_tchar = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(is_tchar)
}

fn ascii(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Result<(RequestHead, Framing), HeadError> {
        let end = head_end(text.as_bytes())?.ok_or(HeadError::LineEnd)?;
        let head = RequestHead::parse(&text.as_bytes()[..end])?;
        let framing = head.body()?;
        Ok((head, framing))
    }

    #[test]
    fn only_one_reading_of_a_request_is_possible() {
        let first = "POST /x HTTP/1.1\r\nHost: a.test\r\n";
        let cases = [
            ("", Ok(Framing::Empty)),
            ("Content-Length: 5\r\n", Ok(Framing::Length(5))),
            ("content-length:5\r\n", Ok(Framing::Length(5))),
            ("Transfer-Encoding: chunked\r\n", Ok(Framing::Chunked)),
            ("Transfer-Encoding: Chunked\r\n", Ok(Framing::Chunked)),
            ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", Err(HeadError::TwoFramings)),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", Err(HeadError::Twice("Content-Length"))),
            ("Content-Length: 5, 5\r\n", Err(HeadError::Length)),
            ("Content-Length: +5\r\n", Err(HeadError::Length)),
            ("Content-Length: -5\r\n", Err(HeadError::Length)),
            ("Content-Length: 0x5\r\n", Err(HeadError::Length)),
            ("Content-Length: 5 5\r\n", Err(HeadError::Length)),
            ("Content-Length:\r\n", Err(HeadError::Length)),
            ("Content-Length: 99999999999999999999\r\n", Err(HeadError::Length)),
            ("Content-Length : 5\r\n", Err(HeadError::Header)),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                Err(HeadError::Twice("Transfer-Encoding")),
            ),
            ("Transfer-Encoding: gzip, chunked\r\n", Err(HeadError::Encoding)),
            ("Transfer-Encoding: identity\r\n", Err(HeadError::Encoding)),
            ("Transfer-Encoding: xchunked\r\n", Err(HeadError::Encoding)),
            ("Transfer-Encoding: \"chunked\"\r\n", Err(HeadError::Encoding)),
            ("Transfer-Encoding: \x0bchunked\r\n", Err(HeadError::Control)),
            ("Transfer-Encoding : chunked\r\n", Err(HeadError::Header)),
            (" Transfer-Encoding: chunked\r\n", Err(HeadError::Header)),
            ("X: y\r\n Transfer-Encoding: chunked\r\n", Err(HeadError::Header)),
            ("X: y\r\n\tz\r\n", Err(HeadError::Header)),
            ("X: y\nTransfer-Encoding: chunked\r\n", Err(HeadError::LineEnd)),
            ("X: y\rTransfer-Encoding: chunked\r\n", Err(HeadError::Control)),
            ("X: y\0\r\n", Err(HeadError::Control)),
            ("X\0: y\r\n", Err(HeadError::Control)),
            ("no colon\r\n", Err(HeadError::Header)),
            (": empty\r\n", Err(HeadError::Header)),
        ];
        for (headers, expected) in cases {
            let text = format!("{first}{headers}\r\n");
            assert_eq!(request(&text).map(|(_, framing)| framing), expected, "{headers:?}");
        }
    }

    #[test]
    fn first_lines_have_three_words() {
        let cases = [
            ("GET / HTTP/1.1", true),
            ("GET http://a.test/ HTTP/1.0", true),
            ("GET  / HTTP/1.1", false),
            ("GET / HTTP/1.1 ", false),
            ("GET / HTTP/2.0", false),
            ("GET / http/1.1", false),
            ("GET /\t HTTP/1.1", false),
            ("GET /é HTTP/1.1", false),
            ("GET /", false),
            ("G(T / HTTP/1.1", false),
            (" GET / HTTP/1.1", false),
        ];
        for (line, expected) in cases {
            assert_eq!(request(&format!("{line}\r\n\r\n")).is_ok(), expected, "{line:?}");
        }
        assert_eq!(
            head_end(b"\r\nGET / HTTP/1.1\r\n\r\n"),
            Ok(Some(2)),
            "an empty head, which no line can be read from"
        );
        assert_eq!(RequestHead::parse(b"\r\n"), Err(HeadError::LineEnd));
    }

    #[test]
    fn heads_have_a_size() {
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(101));
        assert_eq!(request(&many).map(|_| ()), Err(HeadError::TooManyHeaders));
        let most = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(100));
        assert_eq!(request(&most).map(|(head, _)| head.headers.0.len()), Ok(100));
        let long = format!("GET / HTTP/1.1\r\na: {}", "b".repeat(MAX_HEAD_BYTES));
        assert_eq!(head_end(long.as_bytes()), Err(HeadError::TooLong));
        assert_eq!(head_end(b"GET / HTTP/1.1\r\n"), Ok(None));
        assert_eq!(head_end(b"GET / HTTP/1.1\r\n\n"), Err(HeadError::LineEnd));
    }

    #[test]
    fn answers_end_where_they_say() {
        let cases = [
            ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", Ok(Framing::Length(3))),
            ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", Ok(Framing::Empty)),
            ("GET", "HTTP/1.1 204 No Content\r\n\r\n", Ok(Framing::Empty)),
            ("GET", "HTTP/1.1 304\r\nContent-Length: 3\r\n\r\n", Ok(Framing::Empty)),
            ("GET", "HTTP/1.0 200 OK\r\n\r\n", Ok(Framing::UntilClose)),
            ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Ok(Framing::Chunked)),
            ("GET", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Err(HeadError::Encoding)),
            (
                "GET",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
                Err(HeadError::TwoFramings),
            ),
            (
                "GET",
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
                Err(HeadError::Twice("Content-Length")),
            ),
            ("GET", "HTTP/1.1 20 OK\r\n\r\n", Err(HeadError::StartLine)),
            ("GET", "HTTP/1.1 600 OK\r\n\r\n", Err(HeadError::StartLine)),
            ("GET", "HTTP/1.1 2000 OK\r\n\r\n", Err(HeadError::StartLine)),
            ("GET", "ICY 200 OK\r\n\r\n", Err(HeadError::StartLine)),
        ];
        for (method, text, expected) in cases {
            let framing = ResponseHead::parse(text.as_bytes()).and_then(|head| head.body(method));
            assert_eq!(framing, expected, "{text:?}");
        }
    }

    #[test]
    fn headers_for_one_connection_go_no_further() {
        let text = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: 5\r\nX: 2\r\nTE: trailers\r\n\r\n";
        let (mut head, _) = request(text).expect("the head is good");
        assert!(head.headers.connection_says("close"));
        head.headers.strip_hop_by_hop().expect("nothing of importance is named");
        let names: Vec<&str> = head.headers.0.iter().map(|header| header.name.as_str()).collect();
        assert_eq!(names, ["Host", "X"]);
        for word in ["host", "Content-Length", "close, transfer-encoding"] {
            let text = format!("GET / HTTP/1.1\r\nConnection: {word}\r\n\r\n");
            let (mut head, _) = request(&text).expect("the head is good");
            assert_eq!(head.headers.strip_hop_by_hop(), Err(HeadError::Connection), "{word}");
        }
    }
}
