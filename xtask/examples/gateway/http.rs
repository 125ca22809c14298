//! As much of HTTP/1.1 as both ends need, and nothing that costs time.

use anyhow::{Context, Result, bail, ensure};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::TcpStream,
};

/// The longest body or chunk that is read.
const LARGEST: usize = 64 << 20;

/// A connection with what was read of it ahead.
pub type Reader = BufReader<TcpStream>;

/// What comes before a body.
#[derive(Debug)]
pub struct Head {
    /// The line of the request, or of the status.
    pub first: String,
    length: Option<usize>,
    is_chunked: bool,
}

impl Head {
    /// Reads the next one; `None` when the connection ends between two messages.
    pub async fn read(reader: &mut Reader) -> Result<Option<Self>> {
        let mut first = String::new();
        if reader.read_line(&mut first).await? == 0 {
            return Ok(None);
        }
        let mut head = Self { first: first.trim_end().to_owned(), length: None, is_chunked: false };
        let mut line = String::new();
        loop {
            line.clear();
            ensure!(reader.read_line(&mut line).await? > 0, "a message ends in its head");
            let Some((name, value)) = line.trim_end().split_once(':') else {
                return Ok(Some(head));
            };
            if name.eq_ignore_ascii_case("content-length") {
                head.length = Some(value.trim().parse().context("a message has a strange length")?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                head.is_chunked = value.trim().eq_ignore_ascii_case("chunked");
            }
        }
    }

    /// Reads the body, and hands on each piece of it as soon as it is there.
    pub async fn read_body(&self, reader: &mut Reader, mut take: impl FnMut(&[u8])) -> Result<()> {
        let mut piece = Vec::new();
        if !self.is_chunked {
            let Some(length) = self.length else { bail!("a message has no known length") };
            take(fill(reader, &mut piece, length).await?);
            return Ok(());
        }
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).await?;
            let length = line.trim_end().split(';').next().unwrap_or_default();
            let length = usize::from_str_radix(length, 16).context("a chunk has a strange length")?;
            // Its last two bytes end the line. The last chunk is empty, and nothing follows it here.
            let piece = fill(reader, &mut piece, length.checked_add(2).context("a chunk is too large")?).await?;
            if length == 0 {
                return Ok(());
            }
            take(&piece[..length]);
        }
    }
}

async fn fill<'a>(reader: &mut Reader, piece: &'a mut Vec<u8>, length: usize) -> Result<&'a [u8]> {
    ensure!(length <= LARGEST, "{length} bytes are too much");
    piece.resize(length, 0);
    reader.read_exact(piece).await?;
    Ok(piece)
}
