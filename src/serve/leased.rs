//! A socket under somebody's WebSocket library, read into a buffer of the pool.

use crate::manager::{Leased, Session};
use crate::pool::{Inbound, Pool};
use std::fmt;
use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are read from the socket at a time.
const READ: usize = 16 * 1024;

/// The sizes with which tungstenite keeps next to nothing. It allocates the first when it is made, and asks
/// for as many bytes at a time: fewer would be slow for large messages. The second is what is written at
/// once of many small messages; it allocates that when there are some.
#[cfg(any(feature = "axum", feature = "tungstenite"))]
pub(super) mod lean {
    pub(in crate::serve) const READ_BUFFER: usize = 128;
    pub(in crate::serve) const WRITE_BUFFER: usize = 512;
}

/// A socket for a WebSocket library that asks for few bytes at a time, and so needs next to no buffer of
/// its own. Read is as much as there is, into a buffer of the pool, and the library is fed from there.
/// With the last byte the buffer goes back: between two messages a connection has none.
///
/// It pays with a library that can be told to keep little: tokio-tungstenite by `serve::lean`, axum by
/// `LeasedListener` and `PooledUpgrade::lean`. Those of fastwebsockets and tokio-websockets always have
/// 8 KiB each.
///
/// ```
/// use tokio::net::TcpStream;
/// use ws_manager_pool::serve::{CloseReport, LeasedIo, application, serve};
/// use ws_manager_pool::{Pool, UserExecutionContext};
///
/// async fn connection(stream: TcpStream, pool: Pool, context: UserExecutionContext) -> Option<CloseReport> {
///     let reservation = pool.reserve(&context).ok()?;
///     let stream = LeasedIo::new(stream, &pool);
///     # #[cfg(feature = "tungstenite")]
///     let sizes = ws_manager_pool::serve::lean(&pool.config());
///     # #[cfg(feature = "tungstenite")]
///     let socket = tokio_tungstenite::accept_async_with_config(stream, Some(sizes)).await.ok()?;
///     # #[cfg(feature = "tungstenite")]
///     return Some(serve(socket, reservation.open().ok()?, application(|_, _| Ok(()))).await);
///     # #[cfg(not(feature = "tungstenite"))]
///     # None
/// }
/// ```
///
/// All connections together hold no more than [`Config::inbound_pool_bytes`]. Where that is used up,
/// nothing waits and nothing fails: the library reads from the socket itself, a few bytes at a time.
///
/// Reading is cancel-safe: what was read and not asked for is kept. Writing goes to the socket as it is.
///
/// [`Config::inbound_pool_bytes`]: crate::Config::inbound_pool_bytes
pub struct LeasedIo<IO, S: Session> {
    io: IO,
    inbound: Inbound<S>,
    unread: Option<Unread>,
}

/// What was read and not asked for yet. The rest of the buffer is somebody else's.
struct Unread {
    buffer: Leased,
    from: u16,
    to: u16,
}

impl<IO, S: Session> LeasedIo<IO, S> {
    /// A socket that is read into the buffers of this pool.
    pub fn new(io: IO, pool: &Pool<S>) -> Self {
        Self { io, inbound: pool.inbound(), unread: None }
    }

    /// The socket. What is read from it directly is not seen here.
    pub fn get_ref(&self) -> &IO {
        &self.io
    }

    /// Bytes that have been read from the socket, but not from this.
    pub fn unread(&self) -> usize {
        self.unread.as_ref().map_or(0, |unread| usize::from(unread.to - unread.from))
    }

    /// Gives the reader what fits, and the buffer back with the last byte.
    fn feed(&mut self, reader: &mut ReadBuf<'_>) {
        let Some(unread) = &mut self.unread else { return };
        let (from, to) = (usize::from(unread.from), usize::from(unread.to));
        let end = to.min(from + reader.remaining());
        reader.put_slice(&unread.buffer[from..end]);
        unread.from = end as u16; // at most READ
        if end == to {
            self.give_back();
        }
    }

    fn give_back(&mut self) {
        if let Some(unread) = self.unread.take() {
            self.inbound.give(unread.buffer);
        }
    }
}

impl<IO: AsyncRead + Unpin, S: Session> LeasedIo<IO, S> {
    /// Reads from the socket into a buffer of the pool. `None`: there is none to be had.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Option<Poll<Result<()>>> {
        let buffer = self.inbound.lease(READ)?;
        // Ours before the socket's code runs: whatever that does, `Drop` gives it back.
        let unread = self.unread.insert(Unread { buffer, from: 0, to: 0 });
        let mut room = ReadBuf::new(&mut unread.buffer[..READ]);
        let read = Pin::new(&mut self.io).poll_read(cx, &mut room);
        unread.to = room.filled().len() as u16; // at most READ
        if unread.to == 0 {
            self.give_back();
        }
        Some(read)
    }
}

impl<IO: AsyncRead + Unpin, S: Session> AsyncRead for LeasedIo<IO, S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, reader: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        if this.unread.is_none() {
            // Who asks for as much needs no buffer of ours.
            let filled = if reader.remaining() < READ { this.poll_fill(cx) } else { None };
            match filled {
                None => return Pin::new(&mut this.io).poll_read(cx, reader),
                Some(Poll::Ready(Ok(()))) => {}
                Some(other) => return other,
            }
        }
        this.feed(reader);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin, S: Session> AsyncWrite for LeasedIo<IO, S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl<IO, S: Session> Drop for LeasedIo<IO, S> {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// Says nothing of what was read.
impl<IO: fmt::Debug, S: Session> fmt::Debug for LeasedIo<IO, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeasedIo").field("io", &self.io).field("unread", &self.unread()).finish()
    }
}

#[cfg(all(test, not(pool_loom)))]
mod tests;
