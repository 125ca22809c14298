//! A vendor of chat completions that costs next to nothing: canned bytes, as many chunks and as slowly as the prompt says.

use super::http::{Head, Reader};
use anyhow::Result;
use std::{
    io::Write,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    time::Instant,
};

/// What a whole answer says.
pub const DONE: &str = "Done.";

const WHOLE: &str = concat!(
    r#"{"id":"c1","object":"chat.completion","created":1,"model":"bench","choices":[{"index":0,"#,
    r#""message":{"role":"assistant","content":"Done."},"finish_reason":"stop"}],"#,
    r#""usage":{"prompt_tokens":1000,"completion_tokens":10,"total_tokens":1010}}"#
);
const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// What a request asks of this vendor, in its prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    pub chunks: usize,
    pub pause: Duration,
}

impl Wish {
    /// A text that says so, of some kilobytes as agents' prompts are.
    pub fn prompt(self) -> String {
        format!("chunks={} pause_ms={} {}", self.chunks, self.pause.as_millis(), "and so on, ".repeat(400))
    }

    fn read(body: &str) -> Self {
        let number = |name: &str| -> Option<u64> {
            let (_, rest) = body.split_once(name)?;
            rest[..rest.find(|letter: char| !letter.is_ascii_digit())?].parse().ok()
        };
        let chunks = usize::try_from(number("chunks=").unwrap_or(0)).unwrap_or(0);
        Self { chunks, pause: Duration::from_millis(number("pause_ms=").unwrap_or(0)) }
    }
}

/// The time as both ends tell it, in nanoseconds.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Answers for ever.
pub async fn serve(listener: TcpListener) -> Result<()> {
    loop {
        let (connection, _) = listener.accept().await?;
        tokio::spawn(async move {
            // Whoever called hears of a failure by the answer that is missing.
            let _ = converse(connection).await;
        });
    }
}

async fn converse(connection: TcpStream) -> Result<()> {
    connection.set_nodelay(true)?;
    let mut reader = Reader::new(connection);
    let mut body = Vec::new();
    while let Some(head) = Head::read(&mut reader).await? {
        if !head.first.starts_with("POST ") || !head.first.contains("/chat/completions ") {
            // LiteLLM asks for more when it starts.
            reader.get_mut().write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await?;
            continue;
        }
        body.clear();
        head.read_body(&mut reader, |piece| body.extend_from_slice(piece)).await?;
        let text = std::str::from_utf8(&body)?;
        if ["\"stream\":true", "\"stream\": true"].iter().any(|words| text.contains(words)) {
            stream(reader.get_mut(), Wish::read(text)).await?;
        } else {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ";
            reader.get_mut().write_all(format!("{head}{}\r\n\r\n{WHOLE}", WHOLE.len()).as_bytes()).await?;
        }
    }
    Ok(())
}

/// Says `chunks` times what the time is; the end of the answer comes with the last of them.
async fn stream(connection: &mut TcpStream, wish: Wish) -> Result<()> {
    let mut said = STREAM.as_bytes().to_vec();
    let began = Instant::now();
    for number in 0..wish.chunks {
        if !wish.pause.is_zero() {
            let pauses = u32::try_from(number + 1).unwrap_or(u32::MAX);
            tokio::time::sleep_until(began + wish.pause * pauses).await;
        }
        event(&mut said, &delta(&format!(r#"{{"role":"assistant","content":"@{}@"}}"#, now()), "null"))?;
        if number + 1 < wish.chunks && !wish.pause.is_zero() {
            connection.write_all(&said).await?;
            said.clear();
        }
    }
    if wish.chunks == 0 {
        event(&mut said, &delta(&format!(r#"{{"role":"assistant","content":"{DONE}"}}"#), "null"))?;
    }
    event(&mut said, &delta("{}", "\"stop\""))?;
    event(
        &mut said,
        concat!(
            r#"{"id":"c1","object":"chat.completion.chunk","created":1,"model":"bench","choices":[],"#,
            r#""usage":{"prompt_tokens":1000,"completion_tokens":10,"total_tokens":1010}}"#
        ),
    )?;
    event(&mut said, "[DONE]")?;
    said.extend_from_slice(b"0\r\n\r\n");
    connection.write_all(&said).await?;
    Ok(())
}

fn delta(delta: &str, finish: &str) -> String {
    format!(
        r#"{{"id":"c1","object":"chat.completion.chunk","created":1,"model":"bench","choices":[{{"index":0,"delta":{delta},"finish_reason":{finish}}}]}}"#
    )
}

fn event(said: &mut Vec<u8>, data: &str) -> Result<()> {
    let length = "data: \n\n".len() + data.len();
    Ok(write!(said, "{length:x}\r\ndata: {data}\n\n\r\n")?)
}
