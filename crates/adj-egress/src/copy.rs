//! Passes bytes through a tunnel, in both directions at once.

use crate::wire::Wire;
use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::{Instant, sleep},
};

const BUFFER_BYTES: usize = 16 * 1024;

/// Ends when both sides have ended, when one breaks, or when neither says anything for `idle`.
///
/// A side that ended is told to the other, which may go on: answers often come after the last word of the question.
pub(crate) async fn both_ways(client: &mut Wire, upstream: &mut Wire, idle: Duration) -> io::Result<()> {
    let start = Instant::now();
    let last = AtomicU64::new(0);
    let note = || last.store(start.elapsed().as_millis() as u64, Ordering::Relaxed);
    let out = one_way(&mut client.incoming, &mut upstream.outgoing, &note);
    let back = one_way(&mut upstream.incoming, &mut client.outgoing, &note);
    let watch = async {
        loop {
            let quiet_since = Duration::from_millis(last.load(Ordering::Relaxed));
            let quiet = start.elapsed().saturating_sub(quiet_since);
            match idle.checked_sub(quiet) {
                Some(left) if !left.is_zero() => sleep(left).await,
                _ => return,
            }
        }
    };
    tokio::select! {
        done = async { tokio::try_join!(out, back) } => done.map(|_| ()),
        () = watch => Err(io::Error::new(io::ErrorKind::TimedOut, "the tunnel was quiet for too long")),
    }
}

async fn one_way(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    note: &impl Fn(),
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        note();
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
        to.flush().await?;
        note();
    }
}
