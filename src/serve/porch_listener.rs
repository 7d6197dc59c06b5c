//! The porch in front of `axum::serve`.

use super::porch::{OnPorch, Porch};
use crate::manager::Session;
use ::axum::serve::Listener;
use std::fmt;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A listener for `axum::serve` that lets no more sockets in at a time than may be without an owner. One
/// is on the [`Porch`] from its acceptance until the server begins to answer its first request, and has
/// `reservation_deadline` for the head of that request; `axum::serve` itself would wait for ever.
///
/// A socket that finds the porch full waits, accepted, for a place; those behind it wait in the kernel's
/// backlog. With TLS, put this around the listener that ends it.
///
/// ```
/// # async fn example(
/// #     listener: tokio::net::TcpListener,
/// #     router: axum::Router,
/// #     pool: ws_manager_pool::Pool,
/// # ) -> std::io::Result<()> {
/// use ws_manager_pool::serve::{Porch, PorchListener};
///
/// axum::serve(PorchListener::new(Porch::new(&pool), listener), router).await
/// # }
/// ```
///
/// A connection that is kept alive is not on the porch between its requests, and HTTP/2 leaves it with its
/// preface: if that matters, drive hyper with its own timeouts.
#[derive(Debug)]
pub struct PorchListener<L, S: Session> {
    porch: Porch<S>,
    listener: L,
}

impl<L: Listener, S: Session> PorchListener<L, S> {
    /// A porch in front of a listener.
    pub fn new(porch: Porch<S>, listener: L) -> Self {
        Self { porch, listener }
    }
}

impl<L: Listener, S: Session> Listener for PorchListener<L, S> {
    type Io = PorchIo<L::Io, S>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (io, address) = self.listener.accept().await;
        let place = self.porch.admit_wait().await;
        let deadline = self.porch.pool().config().reservation_deadline;
        let arrival = Box::new(Arrival { _place: place, head: Head::default() });
        (PorchIo { io, arrival: Some(arrival), deadline: Some(Box::pin(sleep(deadline))) }, address)
    }

    fn local_addr(&self) -> Result<L::Addr> {
        self.listener.local_addr()
    }
}

/// A socket that came over a [`PorchListener`].
pub struct PorchIo<T, S: Session> {
    io: T,
    /// Until the first answer.
    arrival: Option<Box<Arrival<S>>>,
    /// Until the first request's head has come in.
    deadline: Option<Pin<Box<Sleep>>>,
}

struct Arrival<S: Session> {
    _place: OnPorch<S>,
    head: Head,
}

impl<T, S: Session> PorchIo<T, S> {
    /// The socket alone: it has left the porch.
    pub fn into_inner(self) -> T {
        self.io
    }

    /// The server answers: whose socket it is has been decided, or is not asked.
    fn answered(&mut self) {
        (self.arrival, self.deadline) = (None, None);
    }
}

impl<T: AsyncRead + Unpin, S: Session> AsyncRead for PorchIo<T, S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let this = &mut *self;
        let old = buf.filled().len();
        if let Poll::Ready(read) = Pin::new(&mut this.io).poll_read(cx, buf) {
            read?;
            if let (Some(arrival), Some(_)) = (&mut this.arrival, &this.deadline)
                && arrival.head.is_over(&buf.filled()[old..])
            {
                this.deadline = None;
            }
            return Poll::Ready(Ok(()));
        }
        let Some(deadline) = &mut this.deadline else { return Poll::Pending };
        ready!(deadline.as_mut().poll(cx));
        this.answered();
        Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "no request came in time")))
    }
}

impl<T: AsyncWrite + Unpin, S: Session> AsyncWrite for PorchIo<T, S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        self.answered();
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        self.answered();
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

impl<T: fmt::Debug, S: Session> fmt::Debug for PorchIo<T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PorchIo")
            .field("io", &self.io)
            .field("is_on_porch", &self.arrival.is_some())
            .finish_non_exhaustive()
    }
}

/// Looks for the empty line that ends a request's head, however it is cut into pieces.
#[derive(Default)]
struct Head {
    /// Line ends in a row.
    ends: u8,
}

impl Head {
    fn is_over(&mut self, bytes: &[u8]) -> bool {
        for byte in bytes {
            self.ends = match byte {
                b'\n' => self.ends + 1,
                b'\r' => self.ends,
                _ => 0,
            };
            if self.ends == 2 {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_head_is_found_in_any_pieces() {
        let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbody";
        for cut in 0..request.len() {
            let mut head = Head::default();
            let (first, second) = request.split_at(cut);
            let is_over_in_first = head.is_over(first);
            assert_eq!(is_over_in_first, cut >= request.len() - 4, "{cut}");
            assert!(is_over_in_first || head.is_over(second), "{cut}");
        }
        assert!(!Head::default().is_over(b"GET / HTTP/1.1\r\nHost: a\r\n"));
    }
}
