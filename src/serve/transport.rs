//! The one thing [`serve`](super::serve) asks of a WebSocket library.

use bytes::Bytes;
use futures_core::Stream;
use futures_sink::Sink;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A WebSocket connection after its handshake, as `serve` drives it.
///
/// Every `Stream` and `Sink` of a [`WireMessage`] is one, so the connections of tokio-tungstenite
/// and axum are, with the feature of that name. For another library, implement either of the two
/// traits.
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

    /// Takes a frame to be sent.
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
    /// A close frame with a code and a few words.
    pub fn new(code: u16, reason: impl Into<Bytes>) -> Self {
        Self { code, reason: reason.into() }
    }
}

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
    fn poll_recv(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Fault>>> {
        // Ends: a library hands out few messages that are none.
        loop {
            match self.as_mut().poll_next(cx) {
                Poll::Ready(Some(Ok(message))) => {
                    if let Some(frame) = message.into_frame() {
                        return Poll::Ready(Some(Ok(frame)));
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(M::fault(error)))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        Sink::poll_ready(self, cx).map_err(M::fault)
    }

    fn start_send(self: Pin<&mut Self>, frame: Frame) -> Result<(), Fault> {
        Sink::start_send(self, M::from_frame(frame)?).map_err(M::fault)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        Sink::poll_flush(self, cx).map_err(M::fault)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        Sink::poll_close(self, cx).map_err(M::fault)
    }
}
