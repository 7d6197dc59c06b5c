//! What the driver asks of a socket, whoever parses its frames.
//!
//! A [`Transport`] of a library is one by [`Foreign`], and the crate's own engine is one by itself. The
//! message that came in lies in an *inbox* beside the wire, so that a handler can borrow it while the driver
//! goes on writing.

use super::application::Received;
use super::transport::{CloseFrame, Fault, Frame, Transport};
use crate::config::Config;
use crate::manager::Room;
use bytes::Bytes;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A socket that is driven. What it leases of `room` it gives back by [`Wire::let_go`], at the latest.
pub(super) trait Wire: Unpin {
    /// Where a message lies until it has been handled.
    type Inbox: Inbox;

    /// The next frame; `None` when there will be none.
    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        inbox: &mut Self::Inbox,
        reading: Reading<'_>,
    ) -> Poll<Option<Result<Incoming, Fault>>>;

    /// Room for one more frame.
    fn poll_ready(&mut self, cx: &mut Context<'_>, room: &Room) -> Poll<Result<(), Fault>>;

    /// Takes a frame to be sent.
    ///
    /// # Errors
    ///
    /// The frame is lost, and with it the connection.
    fn start_send(&mut self, frame: Frame, room: &Room) -> Result<(), Fault>;

    /// Writes what was taken.
    fn poll_flush(&mut self, cx: &mut Context<'_>, room: &Room) -> Poll<Result<(), Fault>>;

    /// Writes what was taken and ends the sending direction.
    fn poll_close(&mut self, cx: &mut Context<'_>, room: &Room) -> Poll<Result<(), Fault>>;

    /// The task sleeps until it is woken: what is of use for one poll only is given back.
    fn rest(&mut self, room: &Room);

    /// Gives back whatever is leased. Nothing is written or read after it.
    fn let_go(&mut self, room: &Room);
}

/// What a read may use.
#[derive(Clone, Copy)]
pub(super) struct Reading<'a> {
    pub(super) room: &'a Room,
    /// How large messages may be: for the crate's own engine, as a library has been told before.
    #[cfg(feature = "engine")]
    pub(super) limits: crate::engine::Limits,
}

impl<'a> Reading<'a> {
    #[cfg(feature = "engine")]
    pub(super) fn new(room: &'a Room, config: &Config) -> Self {
        let (message, frame) = (config.inbound_message_bytes, config.inbound_frame_bytes);
        Self { room, limits: crate::engine::Limits { message, frame } }
    }

    #[cfg(not(feature = "engine"))]
    pub(super) fn new(room: &'a Room, _: &Config) -> Self {
        Self { room }
    }
}

/// Where a message lies that came in.
pub(super) trait Inbox: Default {
    /// The message, which is there.
    fn message(&self, is_text: bool) -> Received<'_>;

    /// A handler that may have to wait is about to borrow the message: it may be put where it costs less.
    fn settle(&mut self, room: &Room);

    /// The message was handled.
    fn handled(&mut self, room: &Room);

    /// The task sleeps until it is woken, with no message to be handled.
    fn rest(&mut self, room: &Room);

    /// What is being waited for, as far as the inbox knows.
    fn lack(&self) -> Lack;

    /// Gives back whatever is leased.
    fn let_go(&mut self, room: &Room);
}

/// What an inbox waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lack {
    /// The rest of something that has begun.
    pub(super) rest: bool,
    /// A buffer to read into: the pool's limit is used up.
    pub(super) buffer: bool,
}

/// A frame that came in. A message's payload is in the inbox.
pub(super) enum Incoming {
    Text,
    Binary,
    /// The wire answers it.
    Ping,
    Pong,
    Close(Option<CloseFrame>),
}

/// A library's connection. Boxed, since a task would otherwise keep it twice: as what it was given and as
/// what it works with.
pub(super) struct Foreign<T>(Pin<Box<T>>);

impl<T> Foreign<T> {
    pub(super) fn new(transport: T) -> Self {
        Self(Box::pin(transport))
    }
}

impl<T: Transport> Wire for Foreign<T> {
    type Inbox = Bytes;

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        inbox: &mut Bytes,
        _: Reading<'_>,
    ) -> Poll<Option<Result<Incoming, Fault>>> {
        self.0.as_mut().poll_recv(cx).map(|received| {
            received.map(|frame| {
                frame.map(|frame| match frame {
                    Frame::Text(payload) => {
                        *inbox = payload;
                        Incoming::Text
                    }
                    Frame::Binary(payload) => {
                        *inbox = payload;
                        Incoming::Binary
                    }
                    Frame::Ping(_) => Incoming::Ping,
                    Frame::Pong(_) => Incoming::Pong,
                    Frame::Close(close) => Incoming::Close(close),
                })
            })
        })
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>, _: &Room) -> Poll<Result<(), Fault>> {
        self.0.as_mut().poll_ready(cx)
    }

    fn start_send(&mut self, frame: Frame, _: &Room) -> Result<(), Fault> {
        self.0.as_mut().start_send(frame)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>, _: &Room) -> Poll<Result<(), Fault>> {
        self.0.as_mut().poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>, _: &Room) -> Poll<Result<(), Fault>> {
        self.0.as_mut().poll_close(cx)
    }

    fn rest(&mut self, _: &Room) {}

    fn let_go(&mut self, _: &Room) {}
}

impl Inbox for Bytes {
    fn message(&self, is_text: bool) -> Received<'_> {
        Received::shared(self, is_text)
    }

    fn settle(&mut self, _: &Room) {}

    fn handled(&mut self, _: &Room) {
        *self = Self::new(); // lets the payload go, which `clear` would not
    }

    fn rest(&mut self, _: &Room) {}

    fn lack(&self) -> Lack {
        Lack::default()
    }

    fn let_go(&mut self, _: &Room) {
        *self = Self::new();
    }
}
