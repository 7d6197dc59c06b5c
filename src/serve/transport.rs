//! The one thing [`serve`](super::serve) asks of a WebSocket library.

use super::adapt;
use bytes::Bytes;
use futures_core::Stream;
use futures_sink::Sink;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A WebSocket connection after its handshake, as `serve` drives it.
///
/// Every `Stream` and `Sink` of a [`WireMessage`] is one, so the connections of axum, tokio-tungstenite
/// and tokio-websockets are, with the feature of that name; those of fastwebsockets and actix-ws become
/// one by a function of that name. For another library there is [`adapt`](super::adapt()), or
/// either of the two traits.
///
/// What an implementation promises:
///
/// - text frames are whole messages and valid UTF-8;
/// - a received ping is answered by the library at the next `poll_recv` or `poll_flush`;
/// - `start_send` follows a `poll_ready` that was ready, and may only buffer; `poll_flush` writes;
/// - dropping it closes the socket.
pub trait Transport {
    /// The next frame; `None` when there will be none. The same after an error.
    fn poll_recv(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Fault>>>;

    /// Room for one more frame.
    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Fault>>;

    /// Takes a frame to be sent. A close frame is taken and forgotten where the library has one of its
    /// own to send.
    ///
    /// # Errors
    ///
    /// The frame is lost, and with it the connection.
    fn start_send(self: Pin<&mut Self>, frame: Frame) -> Result<(), Fault>;

    /// Writes what was taken.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Fault>>;

    /// Writes what was taken and ends the sending direction. A close frame has been sent before.
    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Fault>>;
}

/// A message or a control frame. `Debug` never shows content.
#[derive(Clone, PartialEq, Eq)]
pub enum Frame {
    /// A whole text message, UTF-8.
    Text(Bytes),
    /// A whole binary message.
    Binary(Bytes),
    /// A ping. A received one is answered by the library.
    Ping(Bytes),
    /// A pong.
    Pong(Bytes),
    /// The close handshake; the frame may be empty.
    Close(Option<CloseFrame>),
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(payload) => write!(f, "Text({} bytes)", payload.len()),
            Self::Binary(payload) => write!(f, "Binary({} bytes)", payload.len()),
            Self::Ping(payload) => write!(f, "Ping({} bytes)", payload.len()),
            Self::Pong(payload) => write!(f, "Pong({} bytes)", payload.len()),
            Self::Close(close) => write!(f, "Close({:?})", close.as_ref().map(|close| close.code)),
        }
    }
}

/// Why a side closes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CloseFrame {
    /// The close code.
    pub code: u16,
    /// A few words, UTF-8, at most 123 bytes.
    pub reason: Bytes,
}

impl CloseFrame {
    /// A close frame with a code and a few words. Of more than 123 bytes only what fits is kept, cut
    /// between two characters.
    pub fn new(code: u16, reason: impl Into<Bytes>) -> Self {
        let mut reason = reason.into();
        if reason.len() > LONGEST_REASON {
            let starts_character = |at: &usize| reason[*at] & 0xc0 != 0x80;
            let end = (0..=LONGEST_REASON).rev().find(starts_character).unwrap_or_default();
            reason.truncate(end);
        }
        Self { code, reason }
    }
}

/// A control frame's 125 bytes, without the code.
const LONGEST_REASON: usize = 123;

/// What went wrong on a socket: decides what the peer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The peer broke the protocol: 1002.
    Protocol,
    /// The peer sent text that is not UTF-8: 1007.
    InvalidUtf8,
    /// The peer sent more than is allowed: 1009.
    TooLarge,
    /// The socket failed, was reset, or ended without a close frame: nobody can be told.
    Socket,
}

/// A WebSocket library's message type, for libraries whose connection is a `Stream` of `Result`s of
/// it and a `Sink` of it.
pub trait WireMessage: Sized {
    /// The library's error.
    type Error;

    /// The library's message as a frame; `None` for what is not meant for the application.
    fn into_frame(self) -> Option<Frame>;

    /// A frame as the library's message.
    ///
    /// # Errors
    ///
    /// [`Fault`] if it is none, such as text that is not UTF-8.
    fn from_frame(frame: Frame) -> Result<Self, Fault>;

    /// What the library's error means.
    fn fault(error: Self::Error) -> Fault;
}

impl<T, M, E> Transport for T
where
    T: Stream<Item = Result<M, E>> + Sink<M, Error = E>,
    M: WireMessage<Error = E>,
{
    fn poll_recv(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Fault>>> {
        adapt::poll_recv(self, cx, M::into_frame, M::fault)
    }

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        Sink::poll_ready(self, cx).map_err(M::fault)
    }

    fn start_send(self: Pin<&mut Self>, frame: Frame) -> Result<(), Fault> {
        adapt::start_send(self, frame, M::from_frame, M::fault)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        Sink::poll_flush(self, cx).map_err(M::fault)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        Sink::poll_close(self, cx).map_err(M::fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_that_is_too_long_is_cut_between_two_characters() {
        for (text, kept) in
            [("a".repeat(123), 123), ("a".repeat(124), 123), ("a".to_owned() + &"é".repeat(80), 123)]
        {
            assert_eq!(CloseFrame::new(1000, text).reason.len(), kept);
        }
        let cut = CloseFrame::new(1000, "é".repeat(62)).reason;
        assert_eq!(std::str::from_utf8(&cut), Ok(&*"é".repeat(61)));
    }
}
