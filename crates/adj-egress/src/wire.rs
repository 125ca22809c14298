//! One side of a connection: a reader that can look ahead, and a writer, both with patience that ends.

use crate::head::{HeadError, head_end};
use bytes::{BufMut as _, Bytes, BytesMut};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};

/// Read at once; also the most that one write has to bring through before patience ends.
const PIECE_BYTES: usize = 16 * 1024;

pub(crate) type Source = Box<dyn AsyncRead + Send + Unpin>;

pub(crate) struct Wire {
    pub incoming: Incoming,
    pub outgoing: Outgoing,
}

/// What was read and not yet used stands in `buffer`.
pub(crate) struct Incoming {
    source: Source,
    pub buffer: BytesMut,
}

pub(crate) struct Outgoing(Box<dyn AsyncWrite + Send + Unpin>);

impl Wire {
    pub(crate) fn tcp(stream: TcpStream) -> Self {
        // Small messages go back and forth; a socket that is gone already says so later.
        let _ = stream.set_nodelay(true);
        let (source, sink) = stream.into_split();
        Self { incoming: Incoming::new(Box::new(source)), outgoing: Outgoing(Box::new(sink)) }
    }

    pub(crate) fn tls(stream: impl AsyncRead + AsyncWrite + Send + 'static) -> Self {
        let (source, sink) = tokio::io::split(stream);
        Self { incoming: Incoming::new(Box::new(source)), outgoing: Outgoing(Box::new(sink)) }
    }

    /// Both directions as one stream; what was looked at ahead is read again.
    pub(crate) fn into_stream(self) -> tokio::io::Join<Incoming, Outgoing> {
        tokio::io::join(self.incoming, self.outgoing)
    }

    /// Ends our direction and reads for a moment what is still coming, so that what was written arrives.
    pub(crate) async fn close(mut self) {
        let farewell = async {
            self.outgoing.0.shutdown().await?;
            for _ in 0..16 {
                self.incoming.buffer.clear();
                if !self.incoming.fill(Duration::from_secs(1)).await? {
                    break;
                }
            }
            io::Result::Ok(())
        };
        // Nobody is left to hear of an error here.
        let _ = timeout(Duration::from_secs(2), farewell).await;
    }
}

fn too_slow(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("{what} took too long"))
}

impl Incoming {
    fn new(source: Source) -> Self {
        Self { source, buffer: BytesMut::new() }
    }

    /// Reads some more into the buffer; `false` at the end.
    pub(crate) async fn fill(&mut self, patience: Duration) -> io::Result<bool> {
        timeout(patience, self.read_more()).await.map_err(|_| too_slow("reading"))?
    }

    async fn read_more(&mut self) -> io::Result<bool> {
        self.buffer.reserve(PIECE_BYTES);
        let mut window = (&mut self.buffer).limit(PIECE_BYTES);
        Ok(self.source.read_buf(&mut window).await? > 0)
    }

    /// Takes a head off the buffer; `None` when the other side ends before one begins.
    ///
    /// A head that has begun is whole within `patience`; one that has not may come within `idle`.
    pub(crate) async fn head(
        &mut self,
        patience: Duration,
        idle: Duration,
    ) -> io::Result<Result<Option<Bytes>, HeadError>> {
        if self.buffer.is_empty() && !self.fill(idle).await? {
            return Ok(Ok(None));
        }
        let deadline = Instant::now() + patience;
        loop {
            match head_end(&self.buffer) {
                Ok(Some(end)) => return Ok(Ok(Some(self.buffer.split_to(end).freeze()))),
                Ok(None) => {}
                Err(error) => return Ok(Err(error)),
            }
            let more = timeout_at(deadline, self.read_more()).await.map_err(|_| too_slow("the head"))??;
            if !more {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Reads until `parse` finds what it looks for at the beginning of the buffer, which is left there.
    pub(crate) async fn until<T, E>(
        &mut self,
        patience: Duration,
        mut parse: impl FnMut(&[u8]) -> Result<Option<T>, E>,
    ) -> io::Result<Result<T, E>> {
        let deadline = Instant::now() + patience;
        loop {
            match parse(&self.buffer) {
                Ok(Some(found)) => return Ok(Ok(found)),
                Ok(None) => {}
                Err(error) => return Ok(Err(error)),
            }
            let more = timeout_at(deadline, self.read_more()).await.map_err(|_| too_slow("the beginning"))??;
            if !more {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

impl AsyncRead for Incoming {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.buffer.is_empty() {
            return Pin::new(&mut self.source).poll_read(cx, out);
        }
        let take = self.buffer.len().min(out.remaining());
        out.put_slice(&self.buffer.split_to(take));
        Poll::Ready(Ok(()))
    }
}

impl Outgoing {
    /// Writes all, each piece of it within `patience`.
    pub(crate) async fn send(&mut self, bytes: &[u8], patience: Duration) -> io::Result<()> {
        for piece in bytes.chunks(PIECE_BYTES) {
            timeout(patience, self.0.write_all(piece)).await.map_err(|_| too_slow("writing"))??;
        }
        timeout(patience, self.0.flush()).await.map_err(|_| too_slow("writing"))?
    }
}

impl AsyncWrite for Outgoing {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
