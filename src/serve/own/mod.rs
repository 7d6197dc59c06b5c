//! Way 3: the pool owns the connection. The crate's own engine decodes frames where they were read, and
//! an idle connection has no buffer of its own.

mod gate;
mod handshake;
mod head;
mod inbound;
mod outbound;
mod place;

pub use gate::{AcceptError, Admission, Door, Gate, Rejection, Vacancy, door};

use inbound::Inbound;

use super::application::{Application, CloseReport};
use super::serve_on;
use super::transport::{CloseFrame, Fault, Frame};
use super::wire::{Incoming, Reading, Wire};
#[cfg(feature = "axum")]
use super::{open, turn_away};
use crate::engine::{ClosePayload, Kind, Opcode, Violation};
use crate::manager::Room;
use crate::pool::Lease;
use inbound::Step;
use outbound::Outbound;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
#[cfg(feature = "axum")]
use {crate::pool::Reservation, bytes::Bytes};

/// Serves a socket whose handshake somebody else has done, with the crate's own engine: an idle connection
/// has no buffer. `already_read` is what came in behind the handshake: nothing, as a rule.
///
/// For axum there is `PooledUpgrade::adopt`. Otherwise as [`serve`](super::serve()).
///
/// # Panics
///
/// If polled outside of a Tokio runtime with its timer enabled.
pub fn adopt<IO, A>(
    io: IO,
    already_read: &[u8],
    lease: Lease<A::Session>,
    app: A,
) -> impl Future<Output = CloseReport> + use<IO, A>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    A: Application,
{
    let inbox = Inbound::with(already_read, lease.tie().room());
    serve_on(Own::new(io), inbox, lease, app)
}

/// A task for a connection of which nothing but the socket is left, which is as small as it can be; or the
/// word that its place is gone.
#[cfg(feature = "axum")]
pub(super) async fn adopt_or_part<IO, A>(
    io: IO,
    already_read: Bytes,
    reservation: Reservation<A::Session>,
    app: A,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Application + 'static,
{
    match open(reservation) {
        Ok(lease) => drop(tokio::spawn(adopt(io, &already_read, lease, app))),
        Err((error, Some(held))) => turn_away(Own::new(io), Inbound::default(), &error, held).await,
        Err((_, None)) => {}
    }
}

/// A socket, spoken to by the crate's own engine.
pub(super) struct Own<IO> {
    io: IO,
    outbound: Outbound,
}

impl<IO> Own<IO> {
    pub(super) fn new(io: IO) -> Self {
        Self::with_answer(io, Outbound::default())
    }

    /// One on which the answer to a handshake is still to be written.
    fn with_answer(io: IO, answer: Outbound) -> Self {
        Self { io, outbound: answer }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Wire for Own<IO> {
    type Inbox = Inbound;

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        inbox: &mut Inbound,
        reading: Reading<'_>,
    ) -> Poll<Option<Result<Incoming, Fault>>> {
        let unread = inbox.open();
        // Ends: a socket that always has more is made to wait by the runtime.
        loop {
            let found = match unread.step(&reading.limits) {
                Ok(Step::NeedsMore) => {
                    // No buffer: it stays in the kernel, and the keeper wakes us to ask again.
                    let Some(space) = unread.space(reading.room) else { return Poll::Pending };
                    let mut space = ReadBuf::new(space);
                    let read = ready!(Pin::new(&mut self.io).poll_read(cx, &mut space));
                    let bytes = space.filled().len();
                    if read.is_err() {
                        return Poll::Ready(Some(Err(Fault::Socket)));
                    }
                    if bytes == 0 {
                        return Poll::Ready(None);
                    }
                    unread.filled(bytes);
                    continue;
                }
                Ok(Step::Message(Kind::Text)) => Incoming::Text,
                Ok(Step::Message(Kind::Binary)) => Incoming::Binary,
                Ok(Step::Ping(payload)) => {
                    self.outbound.put_short(Opcode::Pong, &unread.bytes()[payload], reading.room);
                    Incoming::Ping
                }
                Ok(Step::Pong) => Incoming::Pong,
                Ok(Step::Close(close)) => Incoming::Close(close),
                Err(violation) => return Poll::Ready(Some(Err(violation.into()))),
            };
            return Poll::Ready(Some(Ok(found)));
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>, room: &Room) -> Poll<Result<(), Fault>> {
        if self.outbound.has_room() {
            return Poll::Ready(Ok(()));
        }
        self.outbound.poll_write(cx, &mut self.io, room)
    }

    fn start_send(&mut self, frame: Frame, room: &Room) -> Result<(), Fault> {
        let outbound = &mut self.outbound;
        match frame {
            Frame::Text(payload) => outbound.put(Opcode::Text, payload, room),
            Frame::Binary(payload) => outbound.put(Opcode::Binary, payload, room),
            Frame::Ping(payload) => outbound.put(Opcode::Ping, payload, room),
            Frame::Pong(payload) => outbound.put(Opcode::Pong, payload, room),
            Frame::Close(None) => outbound.put_short(Opcode::Close, &ClosePayload::EMPTY, room),
            Frame::Close(Some(CloseFrame { code, reason })) => {
                let reason = std::str::from_utf8(&reason).unwrap_or_default();
                outbound.put_short(Opcode::Close, &ClosePayload::new(code, reason), room);
            }
        }
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>, room: &Room) -> Poll<Result<(), Fault>> {
        ready!(self.outbound.poll_write(cx, &mut self.io, room))?;
        Pin::new(&mut self.io).poll_flush(cx).map_err(|_| Fault::Socket)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>, room: &Room) -> Poll<Result<(), Fault>> {
        ready!(self.poll_flush(cx, room))?;
        Pin::new(&mut self.io).poll_shutdown(cx).map_err(|_| Fault::Socket)
    }

    fn rest(&mut self, room: &Room) {
        self.outbound.rest(room);
    }

    fn let_go(&mut self, room: &Room) {
        self.outbound.close(room);
    }
}

impl From<Violation> for Fault {
    fn from(violation: Violation) -> Self {
        match violation {
            Violation::Protocol(_) => Self::Protocol,
            Violation::InvalidUtf8 => Self::InvalidUtf8,
            Violation::TooLarge => Self::TooLarge,
        }
    }
}

#[cfg(test)]
mod tests;
