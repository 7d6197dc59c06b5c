//! A socket that fails at any byte, read or written, of a whole conversation leaves nothing.

use crate::support::{Count, Obedient, context};
use futures_util::{SinkExt, StreamExt};
use parking_lot::Mutex;
use std::io::{Error, ErrorKind, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio_tungstenite::tungstenite::Message as Wire;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::{accept_hdr_async, client_async};
use ws_manager_pool::serve::{Porch, serve};
use ws_manager_pool::{Environment, Pool};

/// How a socket fails, and after how many bytes.
#[derive(Clone, Copy, Debug)]
enum Failure {
    /// The read after so many bytes is an error.
    Read(usize),
    /// The read after so many bytes finds the end.
    End(usize),
    /// The write after so many bytes is an error.
    Write(usize),
}

struct Failing {
    io: DuplexStream,
    failure: Failure,
    /// Bytes that were read, and written.
    moved: Arc<Mutex<(usize, usize)>>,
}

impl AsyncRead for Failing {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let read = self.moved.lock().0;
        let left = match self.failure {
            Failure::Read(at) if read == at => return Poll::Ready(Err(ErrorKind::ConnectionReset.into())),
            Failure::End(at) if read == at => return Poll::Ready(Ok(())),
            Failure::Read(at) | Failure::End(at) => at - read,
            Failure::Write(_) => usize::MAX,
        };
        let mut part = buf.take(left);
        let polled = Pin::new(&mut self.io).poll_read(cx, &mut part);
        let count = part.filled().len();
        buf.advance(count);
        self.moved.lock().0 += count;
        polled
    }
}

impl AsyncWrite for Failing {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let written = self.moved.lock().1;
        let left = match self.failure {
            Failure::Write(at) if written == at => {
                return Poll::Ready(Err(Error::from(ErrorKind::BrokenPipe)));
            }
            Failure::Write(at) => at - written,
            _ => usize::MAX,
        };
        let part = &bytes[..bytes.len().min(left)];
        let polled = Pin::new(&mut self.io).poll_write(cx, part);
        if let Poll::Ready(Ok(count)) = polled {
            self.moved.lock().1 += count;
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Handshake, a few messages and a ping, close. A client that finds its socket broken goes.
async fn client(io: DuplexStream) {
    let Ok((mut client, _)) = client_async("ws://test/", io).await else { return };
    for wire in [Wire::text("one"), Wire::Ping("two".into()), Wire::binary(vec![3; 300])] {
        if client.send(wire).await.is_err() || client.next().await.is_none_or(|next| next.is_err()) {
            return;
        }
    }
    if client.close(None).await.is_ok() {
        while let Some(Ok(_)) = client.next().await {}
    }
}

/// The bytes that were read and written.
#[expect(clippy::result_large_err, reason = "the handshake's callback returns a whole response")]
async fn converse(pool: &Pool<Count>, failure: Failure) -> (usize, usize) {
    let (near, far) = duplex(64);
    let moved = Arc::default();
    let near = Failing { io: near, failure, moved: Arc::clone(&moved) };
    let served = async {
        let mut reservation = None;
        let admit = |_: &Request, response: Response| {
            reservation = Some(pool.reserve(&context("ada", None)).unwrap());
            Ok(response)
        };
        let place = Porch::new(pool).admit().unwrap();
        let Ok(socket) = place.handshake(accept_hdr_async(near, admit)).await else { return };
        let lease = reservation.unwrap().open().unwrap();
        serve(socket, lease, Obedient::new().0).await;
    };
    tokio::join!(served, client(far));
    let ledger = pool.ledger();
    assert!(ledger.balanced, "{failure:?}: {ledger:#?}");
    let left = (ledger.leases, ledger.reserved, ledger.users_sum, ledger.occupied_slots);
    assert_eq!(left, (0, 0, 0, 0), "{failure:?}: {ledger:#?}");
    let snapshot = pool.snapshot();
    assert_eq!((snapshot.outbound_bytes, pool.unauthenticated()), (0, 0), "{failure:?}");
    *moved.lock()
}

/// In virtual time, so that a deadline that is waited for costs none.
#[tokio::test(start_paused = true)]
async fn a_socket_that_fails_at_any_byte_leaves_nothing() {
    let pool = Pool::builder().name("failing").environment(Environment::Ci).build().unwrap();
    let (read, written) = converse(&pool, Failure::Read(usize::MAX)).await;
    assert!(read > 300 && written > 300, "a whole conversation: {read} and {written} bytes");
    for at in 0..=read {
        converse(&pool, Failure::Read(at)).await;
        converse(&pool, Failure::End(at)).await;
    }
    for at in 0..=written {
        converse(&pool, Failure::Write(at)).await;
    }
}
